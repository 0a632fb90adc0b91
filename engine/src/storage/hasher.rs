//! The hash of a key: seeded, the same in all shards and, after a handshake, on all nodes of a group.
//!
//! Lives here: the hash function and its seed. Not here: which bits choose a bucket (see `index`).

use std::sync::Arc;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use parking_lot::Mutex;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// How many seeds a cache can have had; each is kept while the cache lives (72 bytes).
const SEEDS_MAX: usize = 4096;

/// A handle on one seed; clones share it.
///
/// 1. A seed that was ever set stays in memory, so that a thread that hashes while another seed is set has one of
///    the two. Whoever sets a seed clears every shard; an operation that hashed before it had its lock hashes again if
///    [`KeyHasher::seed`] has changed meanwhile.
#[derive(Clone)]
pub(crate) struct KeyHasher(Arc<Seeds>);

/// A hash function for keys.
pub trait KeyHash: Send + Sync + 'static {
    /// The hash of a key under a seed: the same for the same two, on every node; every bit as likely 0 as 1, and hard to
    /// foresee for whoever does not know the seed. (Its lowest 32 bits choose a place, the next 8 tell entries there
    /// apart, those above choose a shard. A poor function makes the cache slow, not wrong.)
    fn hash(&self, seed: u64, key: &[u8]) -> u64;
}

struct Seeds {
    /// In the place of rapidhash.
    custom: Option<Arc<dyn KeyHash>>,
    current: AtomicPtr<Seeded>,
    #[expect(clippy::vec_box, reason = "their addresses stay when the vector grows")]
    all: Mutex<Vec<Box<Seeded>>>,
}

/// Names a seed by where it lies; it lies there for as long as the cache lives.
#[derive(Clone, Copy)]
pub(crate) struct SeedId(usize);

struct Seeded {
    seed: u64,
    secrets: RapidSecrets,
}

/// This cache has had as many seeds as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManySeeds;

impl KeyHasher {
    pub(crate) fn new(seed: u64, custom: Option<Arc<dyn KeyHash>>) -> KeyHasher {
        let seeds = Seeds { custom, current: AtomicPtr::default(), all: Mutex::default() };
        let hasher = KeyHasher(Arc::new(seeds));
        hasher.set_seed(seed).expect("it is the first");
        hasher
    }

    #[inline]
    fn current(&self) -> &Seeded {
        // SAFETY: set in `new` and by `set_seed` to boxes that `all` keeps as long as `self` lives.
        unsafe { &*self.0.current.load(Acquire) }
    }

    /// The hash of a key under the seed of this moment.
    #[inline(never)]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hash_inline(key)
    }

    /// As [`KeyHasher::hash`], for a loop over keys.
    #[inline]
    pub(crate) fn hash_inline(&self, key: &[u8]) -> u64 {
        match &self.0.custom {
            None => rapidhash_v3_seeded(key, &self.current().secrets),
            Some(custom) => self.hash_by(&**custom, key),
        }
    }

    /// As [`KeyHasher::hash`], of a hasher without a function of its own.
    #[inline]
    pub(crate) fn hash_as_usual(&self, key: &[u8]) -> u64 {
        debug_assert!(!self.is_custom());
        rapidhash_v3_seeded(key, &self.current().secrets)
    }

    /// As [`KeyHasher::hash_as_usual`], and which seed it was.
    #[inline]
    pub(crate) fn hash_and_seed(&self, key: &[u8]) -> (u64, SeedId) {
        debug_assert!(!self.is_custom());
        let current = self.current();
        (rapidhash_v3_seeded(key, &current.secrets), SeedId(std::ptr::from_ref(current).addr()))
    }

    /// The seed of this moment, for several keys that are to be hashed under one.
    #[inline]
    pub(crate) fn one_seed(&self) -> OneSeed<'_> {
        OneSeed(self.current())
    }

    /// Whether the seed is that one still.
    #[inline]
    pub(crate) fn is_seed(&self, seed: SeedId) -> bool {
        self.0.current.load(Acquire).addr() == seed.0
    }

    /// Whether another function is in the place of rapidhash.
    #[inline]
    pub(crate) fn is_custom(&self) -> bool {
        self.0.custom.is_some()
    }

    #[cold]
    #[inline(never)]
    fn hash_by(&self, custom: &dyn KeyHash, key: &[u8]) -> u64 {
        custom.hash(self.current().seed, key)
    }

    /// The seed that was set last.
    pub(crate) fn seed(&self) -> u64 {
        self.current().seed
    }

    /// Another seed: every shard must be empty, or be cleared before it is used again. A seed that was set before
    /// takes no memory.
    pub(crate) fn set_seed(&self, seed: u64) -> Result<(), TooManySeeds> {
        let mut all = self.0.all.lock();
        let at = match all.iter().position(|old| old.seed == seed) {
            Some(at) => at,
            None if all.len() == SEEDS_MAX => return Err(TooManySeeds),
            None => {
                all.push(Box::new(Seeded { seed, secrets: RapidSecrets::seed(seed) }));
                all.len() - 1
            }
        };
        self.0.current.store(&raw mut *all[at], Release);
        Ok(())
    }
}

/// One seed of a hasher without a function of its own, whether it is still the one in use or not.
#[derive(Clone, Copy)]
pub(crate) struct OneSeed<'h>(&'h Seeded);

impl OneSeed<'_> {
    /// As [`KeyHasher::hash`], under this seed.
    #[inline(always)]
    pub(crate) fn hash(self, key: &[u8]) -> u64 {
        rapidhash_v3_seeded(key, &self.0.secrets)
    }

    /// Which it is.
    #[inline]
    pub(crate) fn id(self) -> SeedId {
        SeedId(std::ptr::from_ref(self.0).addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_hash_and_another_seed_another() {
        let (one, two) = (KeyHasher::new(7, None), KeyHasher::new(8, None));
        assert_ne!(one.hash(b"key"), two.hash(b"key"));
        two.set_seed(7).unwrap();
        assert_eq!(one.hash(b"key"), two.hash(b"key"));
        assert_eq!(two.seed(), 7);
    }

    #[test]
    fn one_seed_hashes_as_before_whatever_is_set_meanwhile() {
        let hasher = KeyHasher::new(7, None);
        let (one, before) = (hasher.one_seed(), hasher.hash(b"key"));
        hasher.set_seed(8).unwrap();
        assert_eq!(one.hash(b"key"), before);
        assert!(!hasher.is_seed(one.id()));
        hasher.set_seed(7).unwrap();
        assert!(hasher.is_seed(one.id()) && hasher.hash(b"key") == before);
    }

    #[test]
    fn seeds_that_come_again_take_no_memory_and_others_end_somewhere() {
        let hasher = KeyHasher::new(0, None);
        for round in 0..3 {
            for seed in 0..SEEDS_MAX as u64 {
                assert_eq!(hasher.set_seed(seed), Ok(()), "{round}");
            }
        }
        assert_eq!(hasher.set_seed(1 << 40), Err(TooManySeeds));
        assert_eq!(hasher.seed(), SEEDS_MAX as u64 - 1);
    }
}
