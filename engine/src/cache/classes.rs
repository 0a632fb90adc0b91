//! Size classes and single items as the storage keeps them, for those who look after a cache.
//!
//! Lives here: what `scan_details` says of an item, the figures of each class. Not here: the classes themselves (see
//! `storage::slabs`).

use crate::error::ReadError;
use crate::storage::{ItemId, Shard};

use super::Cache;

/// What one size class holds. An item may lie in chunks of several classes, where that
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
}

impl ClassStats {
    /// Chunks that hold an item or a part of one.
    pub fn used_chunks(&self) -> u64 {
        self.pages * self.chunks_per_page - self.free_chunks
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
            }
        });
        classes
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
    use crate::{Config, Cursor, Expiry};

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
    }
}
