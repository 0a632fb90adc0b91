//! Size classes and single items as the storage keeps them, for those who look after a cache.
//!
//! Lives here: what `scan_details` says of an item, the figures of each class. Not here: the classes themselves (see
//! `storage::slabs`).

use std::cell::Cell;

use crate::error::ReadError;
use crate::mutation::{Attributes, Expiry, KEY_BYTES_MAX};
use crate::storage::{ClassCounts, ClassHeld, Footprint, ItemId, Shard, whole_seconds};

use super::Cache;

thread_local! {
    static FOUND: Cell<u8> = const { Cell::new(0) };
}

/// The class of the live item that a write has found under its key.
#[inline]
pub(super) fn note_found(class: usize) {
    FOUND.set(class as u8);
}

/// What one size class holds, and what became of the items that began in it. The counters are those of
/// [`Stats`](crate::Stats), whose figures they add up to. An item may lie in chunks of several classes, where that
/// wastes less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassStats {
    /// The size of a chunk, in bytes.
    pub chunk_bytes: u64,
    /// How many chunks a page is cut into.
    pub chunks_per_page: u64,
    /// Pages held now.
    pub pages: u64,
    /// Chunks of these pages that hold nothing.
    pub free_chunks: u64,
    /// Live items that left for want of memory.
    pub evictions: u64,
    /// Those of them that were never read.
    pub evicted_unfetched: u64,
    /// Expired items removed that were never read.
    pub expired_unfetched: u64,
    /// Dead items whose memory was used again.
    pub reclaimed: u64,
    /// Items refused for want of memory.
    pub store_no_memory: u64,
    /// Of the evicted ones, those that would have expired some time.
    pub evicted_expiring: u64,
    /// Items that begin in it now. 0, as what follows, unless [`Config::accounting`](crate::Config::accounting) was asked
    /// for.
    pub items: u64,
    /// Those of them in the main queue: they were hit, or came back soon after their eviction. The others are on probation.
    pub main_items: u64,
    /// Headers, keys and values of its items, in bytes.
    pub item_bytes: u64,
    /// For how long the item that was evicted last had not been accessed then, in seconds; of several shards, the longest.
    pub evicted_age_s: u64,
}

/// For how long the items of a class have not been accessed; see [`Cache::class_ages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClassAges {
    /// Of those on probation the longest, in seconds.
    pub on_probation_s: u64,
    /// Of those in the main queue the longest, in seconds.
    pub in_main_s: u64,
}

impl ClassStats {
    /// Chunks that hold an item or a part of one.
    pub fn used_chunks(&self) -> u64 {
        self.pages * self.chunks_per_page - self.free_chunks
    }

    fn add(&mut self, counts: ClassCounts, held: ClassHeld) {
        self.items += held.items;
        self.main_items += held.main_items;
        self.item_bytes += held.bytes;
        self.evicted_age_s = self.evicted_age_s.max(held.evicted_age_s);
        self.add_counts(counts);
    }

    fn add_counts(&mut self, counts: ClassCounts) {
        let ClassCounts { evictions, evicted_unfetched, expired_unfetched, reclaimed, .. } = counts;
        self.evictions += evictions;
        self.evicted_expiring += counts.evicted_expiring;
        self.evicted_unfetched += evicted_unfetched;
        self.expired_unfetched += expired_unfetched;
        self.reclaimed += reclaimed;
        self.store_no_memory += counts.no_memory;
    }
}

/// What the storage knows of an item beside its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemDetails {
    /// Its class: its place among [`Cache::class_stats`]. Of a large item, the class of its first chunk.
    pub class: usize,
    /// Header, key and value, in bytes.
    pub bytes: usize,
    /// Whether it was read since it was stored.
    pub is_fetched: bool,
}

impl ItemDetails {
    pub(super) fn of(shard: &Shard, id: ItemId) -> ItemDetails {
        let (class, bytes) = shard.class_and_bytes(id);
        ItemDetails { class, bytes, is_fetched: shard.meta(id).marks.is_fetched() }
    }
}

impl Cache {
    /// What each size class holds, from the smallest chunk to the largest; classes without a page included.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// let used: u64 = cache.class_stats().iter().map(|class| class.used_chunks()).sum();
    /// assert_eq!(used, 1, "a small item lies in one chunk");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn class_stats(&self) -> Vec<ClassStats> {
        let mut classes: Vec<ClassStats> = Vec::new();
        self.inner.for_each_cell(|cell| {
            for (index, size) in cell.shard.class_sizes().enumerate() {
                if index == classes.len() {
                    let (chunk_bytes, chunks_per_page) =
                        (size.chunk_bytes as u64, size.chunks_per_page as u64);
                    classes.push(ClassStats { chunk_bytes, chunks_per_page, ..ClassStats::default() });
                }
                classes[index].pages += size.pages as u64;
                classes[index].free_chunks += size.free_chunks as u64;
                classes[index].add(size.counts, size.held);
            }
        });
        classes
    }

    /// For how long the items of each class of [`Cache::class_stats`] have not been accessed; all 0 unless
    /// [`Config::accounting`](crate::Config::accounting) was asked for. Of a large cache it looks at some thousand items of
    /// each shard, evenly chosen, so the longest may be a little longer.
    pub fn class_ages(&self) -> Vec<ClassAges> {
        let now_s = whole_seconds(self.now_ms());
        let mut ages = Vec::new();
        self.inner.for_each_cell(|cell| {
            ages.resize(cell.shard.class_sizes().count(), ClassAges::default());
            cell.shard.sample_accesses(|class, is_main, accessed_s| {
                let ClassAges { on_probation_s, in_main_s } = &mut ages[class];
                let oldest = if is_main { in_main_s } else { on_probation_s };
                *oldest = (*oldest).max(now_s.saturating_sub(accessed_s).into());
            });
        });
        ages
    }

    /// In which class an item of this size begins, where it is stored: a place among [`Cache::class_stats`].
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// let class = cache.class_of("motd".len(), "hello".len(), Expiry::Never);
    /// assert_eq!(cache.details("motd")?.expect("it was just stored").class, class);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn class_of(&self, key_bytes: usize, value_bytes: usize, attributes: impl Into<Attributes>) -> usize {
        let Attributes { flags, expiry } = attributes.into();
        let deadline_ms = u64::from(expiry != Expiry::Never);
        let (key_bytes, value_bytes) =
            (key_bytes.clamp(1, KEY_BYTES_MAX), value_bytes.min(u32::MAX as usize));
        self.inner.size_classes.class_of(Footprint::new(key_bytes, value_bytes, flags, deadline_ms))
    }

    /// The class of the live item that the last write of this thread, to whichever cache, found under its key: what was
    /// deleted, counted, compared or touched. Means nothing behind a write that found none, and behind a plain set,
    /// which does not look.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// let class = cache.details("motd")?.expect("it was just stored").class;
    /// assert!(cache.delete("motd")?);
    /// assert_eq!(cache.class_found(), class);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn class_found(&self) -> usize {
        usize::from(FOUND.get())
    }

    /// What the storage knows of one item; `None` if it is absent, expired or flushed. Marks and statistics stay.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// let details = cache.details("motd")?.expect("it was just stored");
    /// assert!(details.bytes > "motd".len() + "hello".len() && !details.is_fetched);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub fn details(&self, key: impl AsRef<[u8]>) -> Result<Option<ItemDetails>, ReadError> {
        let key = key.as_ref();
        if !self.contains(key)? {
            return Ok(None);
        }
        let hash = self.inner.hasher.hash(key);
        let cell = self.inner.cell(hash).lock();
        Ok(cell.shard.find(hash, key).map(|id| ItemDetails::of(&cell.shard, id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Cursor};

    #[test]
    fn details_agree_with_the_classes_and_the_sums() {
        let cache = Cache::new(Config::new().memory_bytes_max(8 << 20)).unwrap();
        for number in 0..2000 {
            cache.set(format!("key-{number}"), vec![7; number], Expiry::Never).unwrap();
        }
        cache.get("key-7").unwrap();
        let mut next = Some(Cursor::START);
        let (mut bytes, mut fetched, mut used) = (0, Vec::new(), vec![0; cache.class_stats().len()]);
        while let Some(cursor) = next {
            next = cache
                .scan_details(cursor, |item, details| {
                    bytes += details.bytes as u64;
                    used[details.class] += 1;
                    fetched.extend(details.is_fetched.then(|| item.key.to_vec()));
                })
                .unwrap();
        }
        assert_eq!(bytes, cache.stats().item_bytes);
        assert_eq!(fetched, [b"key-7"]);
        assert_eq!(used.iter().sum::<u64>(), cache.stats().items);
        for (class, begun) in cache.class_stats().iter().zip(used) {
            assert!(begun <= class.used_chunks(), "{begun} items begin in {class:?}");
        }
        for number in 0..2000 {
            let key = format!("key-{number}");
            let class = cache.details(&key).unwrap().expect("it was stored").class;
            assert_eq!(cache.class_of(key.len(), number, Expiry::Never), class, "a value of {number} bytes");
            assert_eq!(cache.read(&key, |item| item.value.class()).unwrap(), Some(class));
            assert!(cache.delete(&key).unwrap());
            assert_eq!(cache.class_found(), class);
        }
    }

    #[test]
    fn g5_what_classes_count_adds_up_to_the_sums() {
        let clock = std::sync::Arc::new(crate::ManualClock::new(1_000_000));
        let cache = Cache::new(Config::new().memory_bytes_max(8 << 20).clock(clock.clone())).unwrap();
        let lifetime = std::time::Duration::from_secs(1);
        for number in 0..20_000_usize {
            let expiry = if number % 3 == 0 { Expiry::After(lifetime) } else { Expiry::Never };
            cache.set(format!("key-{number}"), vec![7; number * 37 % 5000], expiry).unwrap();
            cache.get(format!("key-{}", number / 2)).unwrap();
            clock.advance_ms(1);
        }
        let stats = cache.stats();
        let sum = |count: fn(&ClassStats) -> u64| cache.class_stats().iter().map(count).sum::<u64>();
        assert!(stats.evictions > 100 && stats.reclaimed > 100, "{stats:?}");
        assert_eq!(sum(|class| class.evictions), stats.evictions);
        assert_eq!(sum(|class| class.evicted_unfetched), stats.evicted_unfetched);
        assert_eq!(sum(|class| class.expired_unfetched), stats.expired_unfetched);
        assert_eq!(sum(|class| class.reclaimed), stats.reclaimed);
        assert!(cache.class_stats().iter().filter(|class| class.evictions > 0).count() > 10);
        cache.reset_stats();
        assert_eq!(cache.class_stats().iter().map(|class| class.evictions + class.reclaimed).sum::<u64>(), 0);
    }

    #[test]
    fn l4_what_is_refused_for_want_of_memory_counts_under_its_class() {
        let cache = Cache::new(Config::new().memory_bytes_max(4 << 20).evict(false)).unwrap();
        let stores = |number: u32| cache.set(format!("{number}"), vec![7; 1000], Expiry::Never);
        let first_refused = (0..).find(|number| stores(*number).is_err()).expect("memory ends");
        let class = cache.class_of(format!("{first_refused}").len(), 1000, Expiry::Never);
        assert!(cache.stats().store_no_memory > 0);
        assert_eq!(cache.class_stats()[class].store_no_memory, cache.stats().store_no_memory);
    }
}
