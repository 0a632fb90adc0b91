//! Replacement policies as references: exact, one thread, keys numbered from 0, sizes in units or bytes.
//!
//! | file | policies |
//! |---|---|
//! | `list` | lists over key numbers |
//! | `recency` | LRU, FIFO, CLOCK (second chance), SIEVE |
//! | `s3fifo` | S3-FIFO |
//! | `tinylfu` | W-TinyLFU |
//! | `adaptive` | the candidates for our engine |
//! | `belady` | the optimum, which knows the future |

pub mod adaptive;
pub mod belady;
pub mod list;
pub mod recency;
pub mod s3fifo;
pub mod tinylfu;

/// One cache under one policy.
pub trait Policy {
    /// A request: whether it hit. A miss inserts the key.
    fn request(&mut self, key: u32, size: u32) -> bool;
}

/// About how many entries of the keys' mean size a capacity holds: what a policy that must know it beforehand is told.
pub fn entries(capacity: u64, sizes: &[u32]) -> usize {
    let bytes: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
    (u128::from(capacity) * sizes.len() as u128 / u128::from(bytes.max(1))) as usize
}
