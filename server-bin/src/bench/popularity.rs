//! Which keys are asked for how often: by chance that a run can repeat on any machine.

/// A small generator (xorshift*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed; 0 counts as 1.
    pub fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In 0..`bound`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_keys_are_asked_for_much_more_than_others_and_none_that_is_not_there() {
        let wanted = zipf(100, 10_000, 0.99, 9);
        let mut counts = vec![0; 100];
        wanted.iter().for_each(|key| counts[*key as usize] += 1);
        counts.sort_unstable();
        assert!(counts[99] > 1_500 && counts[0] < 60, "{counts:?}");
        assert_eq!(zipf(1, 3, 0.99, 9), [0, 0, 0]);
    }
}
