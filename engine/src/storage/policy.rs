//! The eviction policy's numbers. The policy itself is in `room`: two queues, and ghosts in the index.
//!
//! ```text
//!   store ──> probation ──(coldest: no hit)──> evicted, its hash stays as a ghost in the index line
//!     │           │                                │ stored again
//!     │           └─(coldest: hit, or small)─> main <──┘         (a small one begins there as if it was hit)
//!     └──(in a drought: one in eight)──────────>│  coldest: a hit less and round again, or evicted (a ghost if ever read)
//! ```
//! A hit only counts in the item's header: everything moves when something is evicted, so a replica that is told of
//! stores and hits in their order evicts the same. The numbers were found with `tests/compare`'s `hit_ratio`.

use crate::config::Eviction;
use crate::mutation::Marks;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What part of all items' bytes the probation queue has before the main one gives way, in thousandths.
    pub(crate) probation_per_mille: usize,
    /// How many rounds hits can earn an item in the main queue.
    pub(crate) hits_max: u8,
    /// The main queue goes round once while so many tenths of all bytes are evicted from probation, so that what was
    /// popular once does not stay for ever where nothing is promoted; 0 is never.
    pub(crate) decay_tenths: u32,
    /// So many items of an item's size take less than the average of all, if it goes to the main queue even unread and
    /// begins there with a hit, as it takes so little: many keys are kept for few bytes so. 0 is never. Where all items
    /// have one size it changes nothing.
    pub(crate) small: usize,
    /// Whether new items are tried in the main queue in a [`Drought`].
    pub(crate) tries_in_drought: bool,
}

impl Policy {
    /// Whether an item is small where `items` have `item_bytes` in all.
    #[inline]
    pub(crate) fn is_small(self, bytes: usize, item_bytes: usize, items: usize) -> bool {
        self.small > 0 && bytes * self.small * items < item_bytes
    }

    /// What [`Policy::turn_of_main`] costs, if it is its turn: so much must be owed at least.
    pub(crate) fn price_of_turn(self, bytes: usize, main_bytes: usize, all_bytes: usize) -> u64 {
        let price = u128::from(bytes as u64 * u64::from(self.decay_tenths)) * all_bytes as u128;
        u64::try_from(price / u128::from(main_bytes.max(1) as u64 * 10)).unwrap_or(u64::MAX)
    }

    /// The marks of an item on probation as it begins in the main queue.
    #[inline]
    pub(crate) fn promoted(self, marks: Marks, is_small: bool) -> Marks {
        let marks = marks.without_hits().in_main();
        if is_small { marks.hit(self.hits_max) } else { marks }
    }

    /// Whether it is the main queue's turn, and what that costs of the bytes that are owed to it: its coldest item, of
    /// `bytes`, is looked at once for so many bytes evicted from probation that it goes round as `decay_tenths` says.
    #[inline(always)]
    pub(crate) fn turn_of_main(
        self,
        owed_bytes: u64,
        bytes: usize,
        main_bytes: usize,
        all_bytes: usize,
    ) -> Option<u64> {
        // Multiplied before it is divided: a division of 128 bits is slow.
        let price = u128::from(bytes as u64 * u64::from(self.decay_tenths)) * all_bytes as u128;
        let each = main_bytes.max(1) as u64 * 10;
        if price > u128::from(owed_bytes) * u128::from(each) + u128::from(each - 1) {
            return None;
        }
        let cost = u64::try_from(price / u128::from(each)).unwrap_or(u64::MAX);
        (cost > 0).then_some(cost)
    }
}

/// Whether nothing on probation is read any more: scans, or loops over more than the cache holds, of which neither
/// probation nor ghosts see the end. Then nothing is lost by letting some new items into the main queue, as far as that
/// is not full; where there is a loop, those hit.
///
/// Only whoever decides a new item's queue looks at it, so a replica needn't agree.
#[derive(Debug, Default)]
pub(crate) struct Drought {
    /// Unread ones that were evicted, less [`Drought::PROMOTION`] for each item promoted from probation.
    evicted: u32,
}

impl Drought {
    const PROMOTION: u32 = 32;
    /// In a drought one store is tried in the main queue for so many evictions.
    const EVICTIONS_PER_TRIAL: u64 = 8;

    #[inline]
    pub(crate) fn evict_unread(&mut self, items: usize) {
        // So that it is over after the promotion of a sixteenth of the items.
        let most = u32::try_from(2 * items).unwrap_or(u32::MAX);
        self.evicted = self.evicted.saturating_add(1).min(most);
    }

    pub(crate) fn promote(&mut self) {
        self.evicted = self.evicted.saturating_sub(Drought::PROMOTION);
    }

    /// Whether the item that is stored after so many evictions is to be tried.
    #[inline]
    pub(crate) fn is_trial(&self, items: usize, evictions: u64) -> bool {
        self.evicted as usize > items && evictions.is_multiple_of(Drought::EVICTIONS_PER_TRIAL)
    }
}

impl From<Eviction> for Policy {
    fn from(eviction: Eviction) -> Policy {
        match eviction {
            Eviction::Lru => Policy {
                probation_per_mille: 150,
                hits_max: 3,
                decay_tenths: 200,
                small: 4,
                tries_in_drought: false,
            },
            Eviction::S3Fifo => Policy {
                probation_per_mille: 100,
                hits_max: 3,
                decay_tenths: 300,
                small: 4,
                tries_in_drought: true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drought_begins_after_a_whole_turn_unread_and_ends_with_promotions() {
        let mut drought = Drought::default();
        (0..100).for_each(|_| drought.evict_unread(100));
        assert!(!drought.is_trial(100, 8));
        (0..900).for_each(|_| drought.evict_unread(100));
        assert!(drought.is_trial(100, 8) && !drought.is_trial(100, 9));
        (0..4).for_each(|_| drought.promote());
        assert!(!drought.is_trial(100, 8));
    }

    #[test]
    fn of_equal_items_none_is_small() {
        let policy = Policy::from(Eviction::Lru);
        assert!(!policy.is_small(100, 100, 1) && !policy.is_small(100, 100 * 1000, 1000));
        assert!(policy.is_small(100, 401 * 10, 10) && !policy.is_small(100, 400 * 10, 10));
        assert!(!Policy { small: 0, ..policy }.is_small(100, 401 * 10, 10));
    }
}
