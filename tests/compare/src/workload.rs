//! Keys and request sequences, made beforehand, so that no generator is measured.

/// A small generator of its own (xorshift*), so that a run can be repeated on any machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Key number `number`: 16 bytes, all of which differ from key to key.
pub fn key(number: u64) -> [u8; 16] {
    let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = (number ^ 0x5555).wrapping_mul(0xd134_2543_de82_ef95);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&low.to_le_bytes());
    key[8..].copy_from_slice(&high.to_le_bytes());
    key
}

pub fn keys(count: u64) -> Vec<[u8; 16]> {
    (0..count).map(key).collect()
}

/// Indices of keys, each equally likely.
pub fn uniform(keys: usize, requests: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..requests).map(|_| random.below(keys as u64) as u32).collect()
}

/// Indices of keys whose rank `r` is wanted with a weight of `r^-theta`; ranks are spread over the indices.
pub fn zipf(keys: usize, requests: usize, theta: f64, seed: u64) -> Vec<u32> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += (rank as f64).powf(-theta);
        sums.push(sum);
    }
    let mut spread: Vec<u32> = (0..keys as u32).collect();
    let mut random = Random::new(seed);
    for at in (1..keys).rev() {
        spread.swap(at, random.below(at as u64 + 1) as usize);
    }
    (0..requests)
        .map(|_| {
            let wanted = random.unit() * sum;
            spread[sums.partition_point(|sum| *sum < wanted).min(keys - 1)]
        })
        .collect()
}
