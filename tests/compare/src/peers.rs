//! Peers as policies on a trace, each with its defaults (shards included) but for its hasher: one without a random seed,
//! so that a run can be repeated. A capacity is a number of entries for a trace without sizes and of bytes of values for
//! one with: the peers count no keys and no bookkeeping.
//!
//! Lives here: peers for hit ratios. They store a size as the value and weigh by it; the adapters for the speed
//! benchmark (see `caches`) store bytes and weigh nothing, and a weigher would be part of what is timed.
//! Not here: our engine, whose limit is memory (see `engine`).

use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::policies::{Policy, entries};

type Hasher = BuildHasherDefault<DefaultHasher>;

#[derive(Clone)]
struct BySize;

impl quick_cache::Weighter<u32, u32> for BySize {
    fn weight(&self, _key: &u32, size: &u32) -> u64 {
        u64::from(*size)
    }
}

/// CLOCK-Pro with ghosts. How many shards it has by default depends on the machine's cores.
pub struct QuickCache(quick_cache::sync::Cache<u32, u32, BySize, Hasher>);

impl QuickCache {
    pub fn new(capacity: u64, sizes: &[u32]) -> QuickCache {
        QuickCache(quick_cache::sync::Cache::with(
            entries(capacity, sizes),
            capacity,
            BySize,
            Hasher::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        ))
    }
}

impl Policy for QuickCache {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, size);
        false
    }
}

/// An LRU behind TinyLFU's admission, without a window. Its writes queue up, and who evicts is whoever next finds the
/// queue long or the last time long ago: in a replay as fast as this one it would hold far more than its limit. So its
/// pending tasks run after each insertion, and at each request it holds what its limit allows.
pub struct Moka(moka::sync::Cache<u32, u32, Hasher>);

impl Moka {
    pub fn new(capacity: u64) -> Moka {
        let builder = moka::sync::Cache::builder().max_capacity(capacity).weigher(|_, size| *size);
        Moka(builder.build_with_hasher(Hasher::default()))
    }
}

impl Policy for Moka {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, size);
        self.0.run_pending_tasks();
        false
    }
}

/// Its in-memory cache by itself, whose default is an LRU in 8 shards; a shard of a small cache is very small.
pub struct Foyer(foyer_memory::Cache<u32, u32, Hasher>);

impl Foyer {
    pub fn new(capacity: u64) -> Foyer {
        let builder = foyer_memory::CacheBuilder::new(capacity as usize);
        Foyer(
            builder
                .with_hash_builder(Hasher::default())
                .with_weighter(|_: &u32, size: &u32| *size as usize)
                .build(),
        )
    }
}

impl Policy for Foyer {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        // The entry it returns keeps the item in memory, so it is dropped at once.
        drop(self.0.insert(key, size));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Random;

    const CAPACITY: u64 = 40_000;

    /// Hits of 4000 requests, equally likely, after each of which the cache holds no more than its limit.
    fn hits<P: Policy>(mut cache: P, sizes: &[u32], held: impl Fn(&P) -> u64) -> usize {
        let mut random = Random::new(3);
        let mut request = |_: &u32| {
            let key = random.below(sizes.len() as u64) as u32;
            let is_hit = cache.request(key, sizes[key as usize]);
            assert!(held(&cache) <= CAPACITY);
            is_hit
        };
        (0..4000).filter(|number| request(number)).count()
    }

    #[test]
    fn a_peer_holds_its_limit_of_bytes_and_no_more() {
        let sizes: Vec<u32> = (0..1000).map(|key| 50 + key % 101).collect();
        // Of 100 000 bytes in all 40 000 fit, so two in five are hits, less what shards leave unused.
        let counts = [
            hits(QuickCache::new(CAPACITY, &sizes), &sizes, |cache| cache.0.weight()),
            hits(Moka::new(CAPACITY), &sizes, |cache| cache.0.iter().map(|(_, size)| u64::from(size)).sum()),
            hits(Foyer::new(CAPACITY), &sizes, |cache| cache.0.usage() as u64),
        ];
        assert!(counts.iter().all(|count| (1300..1700).contains(count)), "{counts:?}");
    }
}
