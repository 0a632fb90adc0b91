//! The caches that are compared, each behind the same four calls.
//!
//! Keys are 16 bytes in a `Box<[u8]>` and values `Arc<[u8]>` where a cache stores handles: that is how a program with
//! keys and values of any length uses it. Hotspare stores the bytes themselves.

use std::sync::Arc;

#[cfg(feature = "group")]
use hotspare::ReplicationConfig;
use hotspare::{Config, Expiry};

/// One cache, as the loops see it.
pub trait Compared: Sync {
    /// Its name in the tables.
    const NAME: &'static str;
    /// Whether it evicts and keeps whole keys: only such a one can be "the best peer".
    const IS_PEER: bool = true;

    /// A cache for about so many entries of 16 + 100 bytes.
    fn with_entries(entries: usize) -> Self;

    /// Runs `reader` on the value in place, or on a handle of it.
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R>;

    /// Stores a copy of the bytes.
    fn set(&self, key: &[u8], value: &[u8]);

    /// Eight reads; how many hit, and a byte of each.
    fn read_eight(&self, keys: [&[u8]; 8]) -> u64 {
        keys.into_iter().map(|key| self.read(key, |value| u64::from(value[0])).unwrap_or(0)).sum()
    }
}

pub struct Hotspare(pub hotspare::Cache);

/// Bytes that an entry of 16 + 100 bytes takes, with a margin, so that none is evicted.
const BYTES_PER_ENTRY: usize = 160;

impl Compared for Hotspare {
    const NAME: &'static str = "hotspare";
    const IS_PEER: bool = false;

    fn with_entries(entries: usize) -> Hotspare {
        let bytes = (entries * BYTES_PER_ENTRY).max(32 << 20);
        Hotspare(hotspare::Cache::new(Config::new().memory_bytes_max(bytes).hash_seed(7)).unwrap())
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.read(key, |item| reader(item.value.as_slice().unwrap())).unwrap()
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.set(key, value, Expiry::Never).unwrap();
    }

    #[inline]
    fn read_eight(&self, keys: [&[u8]; 8]) -> u64 {
        let mut sum = 0;
        let add = |_, item: Option<hotspare::ItemRef<'_>>| {
            sum += item.map_or(0, |item| u64::from(item.value.as_slice().unwrap()[0]));
        };
        self.0.read_many(&keys, add).unwrap();
        sum
    }
}

/// Hotspare as a primary: each write goes to the log.
#[cfg(feature = "group")]
pub struct HotspareWithLog(pub hotspare::Cache);

#[cfg(feature = "group")]
impl Compared for HotspareWithLog {
    const NAME: &'static str = "hotspare+log";
    const IS_PEER: bool = false;

    fn with_entries(entries: usize) -> HotspareWithLog {
        let bytes = (entries * BYTES_PER_ENTRY).max(32 << 20);
        let config =
            Config::new().memory_bytes_max(bytes).hash_seed(7).replication(ReplicationConfig::primary());
        HotspareWithLog(hotspare::Cache::new(config).unwrap())
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.read(key, |item| reader(item.value.as_slice().unwrap())).unwrap()
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.set(key, value, Expiry::Never).unwrap();
    }
}

pub struct QuickCache(quick_cache::sync::Cache<Box<[u8]>, Arc<[u8]>>);

impl Compared for QuickCache {
    const NAME: &'static str = "quick_cache";

    fn with_entries(entries: usize) -> QuickCache {
        QuickCache(quick_cache::sync::Cache::new(entries))
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(key).map(|value| reader(&value))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.insert(key.into(), value.into());
    }
}

pub struct Moka(moka::sync::Cache<Box<[u8]>, Arc<[u8]>>);

impl Compared for Moka {
    const NAME: &'static str = "moka";

    fn with_entries(entries: usize) -> Moka {
        Moka(moka::sync::Cache::new(entries as u64))
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(key).map(|value| reader(&value))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.insert(key.into(), value.into());
    }
}

pub struct Scc(scc::HashCache<Box<[u8]>, Arc<[u8]>>);

impl Compared for Scc {
    const NAME: &'static str = "scc";

    fn with_entries(entries: usize) -> Scc {
        Scc(scc::HashCache::with_capacity(entries, entries))
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.read_sync(key, |_, value| reader(value))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        // `put` refuses a key that is there.
        if let Err((key, value)) = self.0.put_sync(key.into(), value.into())
            && let Some(mut entry) = self.0.get_sync(&key)
        {
            entry.put(value);
        }
    }
}

pub struct Foyer(foyer_memory::Cache<Box<[u8]>, Arc<[u8]>>);

impl Compared for Foyer {
    const NAME: &'static str = "foyer-s3fifo";

    fn with_entries(entries: usize) -> Foyer {
        let config = foyer_memory::EvictionConfig::S3Fifo(foyer_memory::S3FifoConfig::default());
        Foyer(foyer_memory::CacheBuilder::new(entries).with_eviction_config(config).build())
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(key).map(|entry| reader(entry.value()))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.insert(key.into(), value.into());
    }
}

/// Does not evict.
pub struct Papaya(papaya::HashMap<Box<[u8]>, Arc<[u8]>>);

impl Compared for Papaya {
    const NAME: &'static str = "papaya";
    const IS_PEER: bool = false;

    fn with_entries(entries: usize) -> Papaya {
        Papaya(papaya::HashMap::with_capacity(entries))
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.pin().get(key).map(|value| reader(value))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.pin().insert(key.into(), value.into());
    }
}

/// Keeps hashes instead of keys: two keys of one hash share a value.
pub struct TinyUfo(tinyufo::TinyUfo<[u8; 16], Arc<[u8]>>);

impl Compared for TinyUfo {
    const NAME: &'static str = "tinyufo";
    const IS_PEER: bool = false;

    fn with_entries(entries: usize) -> TinyUfo {
        TinyUfo(tinyufo::TinyUfo::new(entries, entries))
    }

    #[inline]
    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.0.get(key.try_into().expect("16 bytes")).map(|value| reader(&value))
    }

    #[inline]
    fn set(&self, key: &[u8], value: &[u8]) {
        self.0.put(key.try_into().expect("16 bytes"), value.into(), 1);
    }
}
