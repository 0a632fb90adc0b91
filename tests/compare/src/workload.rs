//! Keys and request sequences, made beforehand, so that no generator is measured.

pub use crate::popularity::{Random, zipf};

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
