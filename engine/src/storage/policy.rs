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
    /// Whether it is the main queue's turn, and what that costs of the bytes that are owed to it: its coldest item, of
    /// `bytes`, is looked at once for so many bytes evicted from probation that it goes round as `decay_tenths` says.
    pub(crate) fn turn_of_main(
        self,
        owed_bytes: u64,
        bytes: usize,
        main_bytes: usize,
        all_bytes: usize,
    ) -> Option<u64> {
        let price = bytes as u128 * u128::from(self.decay_tenths) * all_bytes as u128;
        let each = main_bytes.max(1) as u128 * 10;
        // Multiplied before it is divided: a division of 128 bits is slow, and most often it is not the turn.
        if price > u128::from(owed_bytes) * each + (each - 1) {
            return None;
        }
        let cost = u64::try_from(price / each).unwrap_or(u64::MAX);
        (cost > 0).then_some(cost)
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
