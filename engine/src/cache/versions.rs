//! The versions of a cache in no group: one counter for all shards, which hand them out from blocks of their own.
//!
//! Lives here: the counter and a shard's block. Not here: versions in a group, which are the log's (see `group`).
//!
//! With one counter alone every set of every core wrote the same cache line, and waited for it.
//!
//! 1. A version is given once, and within a shard each is above the one before; so a key's versions rise.
//! 2. A version that is given lies at or above all floors that were raised before: a block that a flush has overtaken is
//!    given up. (A flush in progress takes its version behind all that were given until then.)

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crossbeam::utils::CachePadded;

use crate::mutation::Version;

/// How many versions a shard takes at once, unless they are to be in order.
const BLOCK: u64 = 256;

/// The last version that was given, or that a shard may give. On a line of its own: what lies about it is read by every
/// operation.
pub(super) struct LastVersion {
    last: CachePadded<AtomicU64>,
    /// How many versions a shard takes at once.
    block: u64,
}

impl LastVersion {
    /// `in_order`: a later write has a higher version, whatever its key.
    pub(super) fn new(in_order: bool) -> LastVersion {
        let block = if in_order { 1 } else { BLOCK };
        LastVersion { last: CachePadded::new(AtomicU64::new(0)), block }
    }

    /// A version above all that were given.
    pub(super) fn next(&self) -> Version {
        Version(self.last.fetch_add(1, Relaxed) + 1)
    }

    pub(super) fn get(&self) -> Version {
        Version(self.last.load(SeqCst))
    }

    /// Versions go on behind this one; none was given before.
    #[cfg(feature = "serde")]
    pub(super) fn begin_behind(&self, last: u64) {
        self.last.store(last, SeqCst);
    }
}

/// What of a shard's block changes with each store: it lies with the shard's busiest fields.
#[derive(Default)]
pub(crate) struct NextVersion(u64);

/// What of a shard's block rarely changes.
#[derive(Default)]
pub(crate) struct VersionBlock {
    /// The first version behind the block.
    end: u64,
    /// What [`NextVersion`] would be had nothing been stored. In a group, and where versions are in order, it may count stores
    /// and nothing else.
    stores_from: u64,
}

impl VersionBlock {
    /// The version of a store, which is counted, where items below `floor` are dead.
    #[inline(always)]
    pub(super) fn give(&mut self, next: &mut NextVersion, last: &LastVersion, floor: u64) -> Version {
        let version = self.next(next, last, floor);
        next.count_store();
        version
    }

    /// What [`VersionBlock::give`] would, for a store that may come to nothing; one that does not is to be counted.
    #[inline(always)]
    pub(super) fn next(&mut self, next: &mut NextVersion, last: &LastVersion, floor: u64) -> Version {
        if next.0 >= self.end || next.0 < floor {
            self.take(next, last);
        }
        Version(next.0)
    }

    #[cold]
    #[inline(never)]
    fn take(&mut self, next: &mut NextVersion, last: &LastVersion) {
        let first = last.last.fetch_add(last.block, Relaxed) + 1;
        self.stores_from = self.stores_from.wrapping_add(first.wrapping_sub(next.0));
        (next.0, self.end) = (first, first + last.block);
    }

    /// Gives the block up: the next store takes another.
    #[cfg(feature = "serde")]
    pub(super) fn give_up(&mut self) {
        self.end = 0;
    }

    /// Stores since the shard was made, or since they were last forgotten.
    pub(super) fn stores(&self, next: &NextVersion) -> u64 {
        next.0.wrapping_sub(self.stores_from)
    }

    pub(super) fn forget_stores(&mut self, next: &NextVersion) {
        self.stores_from = next.0;
    }
}

impl NextVersion {
    /// Counts a store, whose version was the next one or came from elsewhere.
    #[inline(always)]
    pub(super) fn count_store(&mut self) {
        self.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, Config, Expiry};

    #[test]
    fn versions_of_a_shard_rise_no_two_are_the_same_and_stores_are_counted() {
        let last = LastVersion::new(false);
        let mut shards: Vec<(NextVersion, VersionBlock)> = (0..3).map(|_| Default::default()).collect();
        let mut given = Vec::new();
        for round in 0..1000 {
            let (next, block) = &mut shards[round % 3 * (round % 2)];
            given.push(block.give(next, &last, 0));
            given.push(last.next());
        }
        assert!(given.iter().all(|version| *version <= last.get()));
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 2000);
        let stores = |(next, block): &(NextVersion, VersionBlock)| block.stores(next);
        assert_eq!(shards.iter().map(stores).sum::<u64>(), 1000);
        let (next, block) = &mut shards[0];
        block.forget_stores(next);
        let before = block.give(next, &last, 0);
        assert_eq!((block.stores(next), block.give(next, &last, 0) > before), (1, true));
    }

    #[test]
    fn a_version_under_which_nothing_was_stored_is_the_next_again_and_does_not_count() {
        let last = LastVersion::new(false);
        let (mut next, mut block) = (NextVersion::default(), VersionBlock::default());
        let first = block.give(&mut next, &last, 0);
        let second = block.next(&mut next, &last, 0);
        assert_eq!((second.0, block.stores(&next)), (first.0 + 1, 1));
        assert_eq!(block.give(&mut next, &last, 0), second);
        assert_eq!(block.stores(&next), 2);
    }

    #[test]
    fn a_store_that_came_to_nothing_leaves_no_version_to_a_later_one() {
        let config = Config::new().memory_bytes_max(4 << 20).shards(4).evict(false).versions_in_order(true);
        let cache = Cache::new(config.item_bytes_max(8 << 10)).unwrap();
        let (mut newest, mut refused) = (Version(0), 0);
        for number in 0..40_000u32 {
            let key = (number.wrapping_mul(2_654_435_761) % 6000).to_string();
            if number % 3 == 0 {
                cache.delete(&key).unwrap();
            }
            match cache.set(&key, [b'x'; 1000], Expiry::Never) {
                Ok(version) => {
                    assert!(version > newest, "{version:?} behind {newest:?}");
                    newest = version;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn versions_in_order_rise_over_all_shards() {
        let last = LastVersion::new(true);
        let mut shards: Vec<(NextVersion, VersionBlock)> = (0..3).map(|_| Default::default()).collect();
        for number in 1..100_u64 {
            let (next, block) = &mut shards[number as usize % 3];
            assert_eq!(block.give(next, &last, 0), Version(number));
        }
        assert_eq!(last.next(), Version(100));
    }

    #[test]
    fn a_block_that_a_flush_overtook_is_given_up() {
        let last = LastVersion::new(false);
        let (mut next, mut block) = Default::default();
        VersionBlock::give(&mut block, &mut next, &last, 0);
        let flush = last.next();
        let version = block.give(&mut next, &last, flush.0);
        assert!(version > flush);
        assert_eq!(block.give(&mut next, &last, flush.0).0, version.0 + 1, "one block is given up, once");
    }
}
