//! The eviction policy's numbers. The policy itself is in `room`: two queues, and ghosts in the index.
//!
//! ```text
//!   store ──> probation ──(coldest: no hit)──> evicted, its hash stays as a ghost in the index line
//!                 │                                │ stored again
//!                 └─(coldest: hit)──> main <───────┘
//!                                      │  coldest: a hit less and round again, or evicted
//! ```
//! A hit only counts in the item's header: everything moves when something is evicted, so a replica that is told of
//! stores and hits in their order evicts the same. The numbers were found with `tests/compare`'s `hit_ratio`.

use crate::config::Eviction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What part of all items' bytes the probation queue has before the main one gives way, in thousandths.
    pub(crate) probation_per_mille: usize,
    /// How many rounds hits can earn an item in the main queue.
    pub(crate) hits_max: u8,
    /// The main queue goes round once while so many tenths of all bytes are evicted from probation, so that what was
    /// popular once does not stay for ever where nothing is promoted; 0 is never.
    pub(crate) decay_tenths: u32,
}

impl Policy {
    /// For how many bytes evicted from probation an item of `bytes` in the main queue is looked at, where `main_bytes` of
    /// `all_bytes` are in that queue; 0 is never.
    pub(crate) fn look_after_bytes(self, bytes: usize, main_bytes: usize, all_bytes: usize) -> u64 {
        let scaled = bytes as u128 * u128::from(self.decay_tenths) * all_bytes as u128;
        u64::try_from(scaled / (main_bytes.max(1) as u128 * 10)).unwrap_or(u64::MAX)
    }
}

impl From<Eviction> for Policy {
    fn from(eviction: Eviction) -> Policy {
        match eviction {
            Eviction::Lru => Policy { probation_per_mille: 300, hits_max: 2, decay_tenths: 20 },
            Eviction::S3Fifo => Policy { probation_per_mille: 100, hits_max: 3, decay_tenths: 200 },
        }
    }
}
