//! Every setting of a cache, with its default, its unit and what it costs.
//!
//! Lives here: [`Config`]. Not here: a node's part in a group (see `replication`).

#[cfg(feature = "serde")]
mod replication;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cache::Listener;
use crate::clock::{Clock, SystemClock};
use crate::error::ConfigError;
#[cfg(feature = "serde")]
use crate::replication::log::Log;
use crate::storage::{Event, KeyHash};

#[cfg(feature = "serde")]
pub(crate) use replication::Start;
#[cfg(feature = "serde")]
pub use replication::{LOG_BYTES_MIN, ReplicationConfig};

/// The least `memory_bytes_max`: 1 MiB.
pub const MEMORY_BYTES_MIN: usize = 1 << 20;
/// The most `memory_bytes_max`: what 32-bit references in units of 8 bytes reach.
pub const MEMORY_BYTES_MAX: usize = 32 << 30;

/// Which items leave a full cache. Both policies try new items in a queue of their own, so that a scan passes through
/// without throwing out what is read again and again, and remember what they threw out not long ago. Items of less than
/// a quarter of the average size get more time to be read. All nodes of a group should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Eviction {
    /// Closer to LRU: at least as good as exact LRU on every trace we have. New items have 15 % of the memory to prove
    /// themselves, and what was popular once leaves sooner.
    #[default]
    Lru,
    /// S3-FIFO (Yang et al., SOSP 2023) with one change: an item that was read once while it was new is kept. New items
    /// have a tenth of the memory. Better where many items are read once only, and in loops, and where sizes differ.
    S3Fifo,
}

/// The settings of a [`Cache`](crate::Cache).
///
/// The worst-case memory of a cache is `memory_bytes_max` + `log_bytes_max` + for each attached replica, of which there
/// are at most 15, three frames (`frame_bytes_max`) + 1 MiB: what is copied out for it, what its link has not sent, what
/// comes from it, and queued hints. A frame holds 256 KiB or one item, so where items are small that is about 2 MiB a
/// replica, in the middle of a full copy as well.
///
/// ```
/// use hotspare::{Cache, Config};
/// let cache = Cache::new(Config::new().memory_bytes_max(8 << 20))?;
/// # Ok::<(), hotspare::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) memory_bytes_max: usize,
    pub(crate) item_bytes_max: usize,
    pub(crate) evict: bool,
    pub(crate) eviction: Eviction,
    pub(crate) shards: Option<usize>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hash_seed: Option<u64>,
    pub(crate) listener: Option<Listener>,
    pub(crate) latency_histograms: bool,
    pub(crate) accounting: bool,
    pub(crate) versions_in_order: bool,
    pub(crate) hash: Option<Arc<dyn KeyHash>>,
    #[cfg(feature = "serde")]
    pub(crate) replication: Option<ReplicationConfig>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("memory_bytes_max", &self.memory_bytes_max)
            .field("item_bytes_max", &self.item_bytes_max)
            .field("evict", &self.evict)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

impl Config {
    /// 64 MiB, items of up to 1 MiB, eviction on, no replication.
    pub fn new() -> Config {
        Config {
            memory_bytes_max: 64 << 20,
            item_bytes_max: 1 << 20,
            evict: true,
            eviction: Eviction::default(),
            shards: None,
            clock: Arc::new(SystemClock::new()),
            hash_seed: None,
            listener: None,
            latency_histograms: false,
            accounting: false,
            versions_in_order: false,
            hash: None,
            #[cfg(feature = "serde")]
            replication: None,
        }
    }

    /// The hard limit of items and index together, in bytes. Default 64 MiB; at least 1 MiB.
    pub fn memory_bytes_max(mut self, bytes: usize) -> Config {
        self.memory_bytes_max = bytes;
        self
    }

    /// The largest item, header and key included, in bytes. Default 1 MiB; at most half of the memory.
    pub fn item_bytes_max(mut self, bytes: usize) -> Config {
        self.item_bytes_max = bytes;
        self
    }

    /// Whether a full cache drops its coldest items (default) or refuses to store.
    pub fn evict(mut self, evict: bool) -> Config {
        self.evict = evict;
        self
    }

    /// Which items leave a full cache. Default [`Eviction::Lru`].
    pub fn eviction(mut self, eviction: Eviction) -> Config {
        self.eviction = eviction;
        self
    }

    /// Into how many parts, each with its own lock, the cache is divided: rounded up to a power of two, at most one
    /// a megabyte and 256. Default: one below 16 MiB, so that strictly the coldest item leaves
    /// first; above, one for each 2 MiB until they are 16 (two cores that set wait for each other's shard a
    /// sixteenth of the time), then one for each 8 MiB, at most 64.
    pub fn shards(mut self, shards: usize) -> Config {
        self.shards = Some(shards);
        self
    }

    /// Where the time comes from. Default: the system's coarse clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Config {
        self.clock = clock;
        self
    }

    /// Is called for each item that leaves the cache: evicted, expired, flushed, replaced or deleted, with what it was.
    ///
    /// It runs outside all locks and may use the cache. For one key events come in the order in which they happened; for
    /// different keys in any. They are told by threads that happen to use the cache: what an operation caused has been
    /// told when it returns, or another thread is telling it. An expired or flushed item leaves when it is met or its
    /// memory is wanted, not at the very moment. On a replica the same holds for what its primary sends; when a full copy
    /// begins, what the replica held goes without an event. While the listener is slow, those who cause more events wait
    /// for it. A panic in it is logged, and loses that event only. Each event copies key and value.
    ///
    /// ```
    /// use hotspare::{Cache, Cause, Config, Expiry};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let seen = Arc::new(Mutex::new(Vec::new()));
    /// let told = seen.clone();
    /// let cache = Cache::new(Config::new().on_departure(move |event| told.lock().unwrap().push(event)))?;
    /// cache.set("k", "1", Expiry::Never)?;
    /// cache.set("k", "2", Expiry::Never)?;
    /// cache.delete("k")?;
    /// let causes: Vec<Cause> = seen.lock().unwrap().iter().map(|event| event.cause).collect();
    /// assert_eq!(causes, [Cause::Replaced, Cause::Removed]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_departure(self, listener: impl Fn(Event) + Send + Sync + 'static) -> Config {
        self.on_departure_while(Arc::new(AtomicBool::new(true)), listener)
    }

    /// Like [`Config::on_departure`], for a listener that is often not interested: while `wanted` is false nothing is
    /// copied or told, and an item that leaves costs one load. What leaves just as it changes may be told late, or not
    /// at all.
    pub fn on_departure_while(
        mut self,
        wanted: Arc<AtomicBool>,
        listener: impl Fn(Event) + Send + Sync + 'static,
    ) -> Config {
        self.listener = Some(Listener { wanted, tell: Arc::new(listener) });
        self
    }

    /// Whether it is counted how long reads and writes take, for [`Cache::latencies`](crate::Cache::latencies). Default
    /// off; on, each operation reads the system's clock twice (about 40 ns) and counts in memory that all threads
    /// share (5 KiB).
    pub fn latency_histograms(mut self, on: bool) -> Config {
        self.latency_histograms = on;
        self
    }

    /// Whether it is kept when each item was last accessed ([`ItemRef::accessed_s`](crate::ItemRef::accessed_s)) and what
    /// each size class holds ([`ClassStats`](crate::ClassStats)): what a memcached server tells its operators. Default off;
    /// on, an item takes 4 bytes more, a hit or set reads the clock (but for a program that says when a [round](crate::Cache::begin_round)
    /// begins) and writes the time once a second at most, and a set counts.
    ///
    /// The times are this node's own, by the group's clock in seconds: of an item that comes from another node it is when it
    /// came. [`Cache::save_to`](crate::Cache::save_to) keeps them.
    ///
    /// ```
    /// use hotspare::{Cache, Config, Expiry, ManualClock};
    /// use std::sync::Arc;
    ///
    /// let clock = Arc::new(ManualClock::new(1_000_000));
    /// let cache = Cache::new(Config::new().clock(clock.clone()).accounting(true))?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// clock.advance_ms(60_000);
    /// assert_eq!(cache.read("motd", |item| item.accessed_s)?, Some(Some(1_000)), "when it was stored");
    /// assert_eq!(cache.read("motd", |item| item.accessed_s)?, Some(Some(1_060)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn accounting(mut self, on: bool) -> Config {
        self.accounting = on;
        self
    }

    /// Whether the versions of all keys of a cache in no group are in the order of their writes: 1, 2, 3. Default off: only
    /// those of each key are, since shards take 256 at a time; on, sets of several threads wait for one counter. In a group
    /// they always are.
    ///
    /// ```
    /// use hotspare::{Cache, Config, Expiry, Version};
    ///
    /// let cache = Cache::new(Config::new().versions_in_order(true))?;
    /// for number in 1..=3 {
    ///     assert_eq!(cache.set(format!("key-{number}"), "v", Expiry::Never)?, Version(number));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn versions_in_order(mut self, on: bool) -> Config {
        self.versions_in_order = on;
        self
    }

    /// Another hash function for keys. Default: rapidhash. All nodes of a group must have the same one.
    ///
    /// ```
    /// use hotspare::{Cache, Config, KeyHash};
    /// use std::hash::{DefaultHasher, Hasher};
    /// use std::sync::Arc;
    ///
    /// struct SipHash;
    ///
    /// impl KeyHash for SipHash {
    ///     fn hash(&self, seed: u64, key: &[u8]) -> u64 {
    ///         let mut hasher = DefaultHasher::new();
    ///         hasher.write_u64(seed);
    ///         hasher.write(key);
    ///         hasher.finish()
    ///     }
    /// }
    ///
    /// let cache = Cache::new(Config::new().key_hash(Arc::new(SipHash)))?;
    /// # Ok::<(), hotspare::ConfigError>(())
    /// ```
    pub fn key_hash(mut self, hash: Arc<dyn KeyHash>) -> Config {
        self.hash = Some(hash);
        self
    }

    /// The seed of the key hash. Default: random, which keeps an attacker from choosing colliding keys; a replica
    /// takes its primary's. Tests give one to be repeatable.
    pub fn hash_seed(mut self, seed: u64) -> Config {
        self.hash_seed = Some(seed);
        self
    }

    #[cfg(feature = "serde")]
    /// Turns replication on. Default off: no log is kept, and a write pays nothing for it.
    pub fn replication(mut self, replication: ReplicationConfig) -> Config {
        self.replication = Some(replication);
        self
    }

    /// Checks every number, so that what runs later can rely on it.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let bytes = self.memory_bytes_max;
        if bytes < MEMORY_BYTES_MIN {
            return Err(ConfigError::MemoryTooSmall { bytes, bytes_min: MEMORY_BYTES_MIN });
        }
        if bytes > MEMORY_BYTES_MAX {
            return Err(ConfigError::MemoryTooLarge { bytes, bytes_max: MEMORY_BYTES_MAX });
        }
        if self.item_bytes_max > bytes / 2 {
            return Err(ConfigError::ItemTooLarge { bytes: self.item_bytes_max, bytes_max: bytes / 2 });
        }
        #[cfg(feature = "serde")]
        if let Some(replication) = &self.replication {
            replication.validate()?;
        }
        Ok(())
    }

    /// How many shards this configuration gives.
    pub(crate) fn shard_count(&self) -> usize {
        match self.shards {
            // A power of two, rounded down so that each shard has a megabyte to itself.
            Some(shards) => {
                let shards_max = 1 << (self.memory_bytes_max >> 20).clamp(1, 256).ilog2();
                shards.clamp(1, 256).next_power_of_two().min(shards_max)
            }
            None if self.memory_bytes_max < 16 << 20 => 1,
            None => {
                let one_for_each = |bytes: usize| (self.memory_bytes_max / bytes).next_power_of_two();
                one_for_each(8 << 20).max(one_for_each(2 << 20).min(16)).min(64)
            }
        }
    }

    #[cfg(feature = "serde")]
    /// The log's size in bytes: what was configured, or the larger of 4 MiB and 1/16 of the cache.
    pub(crate) fn log_bytes_max(&self) -> usize {
        let Some(replication) = &self.replication else { return 0 };
        replication.log_bytes_max.unwrap_or_else(|| (4 << 20).max(self.memory_bytes_max / 16))
    }

    #[cfg(feature = "serde")]
    /// The largest item that replication carries, header and key included, in bytes; never above
    /// [`Config::item_bytes_max`]. A larger one reaches replicas as a deletion; where writes wait for acks it is refused.
    pub fn replicated_item_bytes_max(&self) -> usize {
        let Some(replication) = &self.replication else { return self.item_bytes_max };
        let logged = Log::item_bytes_max_of(self.log_bytes_max());
        self.item_bytes_max.min(replication.framed_item_bytes_max()).min(logged)
    }

    #[cfg(feature = "serde")]
    /// The `log_bytes_max` with which replication carries every item that may be stored; `None` if none does, since a frame
    /// has no room for the largest one ([`ReplicationConfig::frame_bytes_max`]), or where there is no replication.
    pub fn sufficient_log_bytes(&self) -> Option<usize> {
        let replication = self.replication.as_ref()?;
        let is_framed = self.item_bytes_max <= replication.framed_item_bytes_max();
        is_framed.then(|| Log::bytes_max_for(self.item_bytes_max))
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::replication::record::RECORD_HEAD_BYTES;

    fn with_log(log_bytes: Option<usize>, item_bytes: usize) -> Config {
        let primary = ReplicationConfig::primary();
        let replication = log_bytes.map_or(primary.clone(), |bytes| primary.log_bytes_max(bytes));
        Config::new().memory_bytes_max(64 << 20).item_bytes_max(item_bytes).replication(replication)
    }

    #[test]
    fn the_default_log_carries_the_default_largest_item_and_a_log_a_quarter_of_its_size() {
        let default = with_log(None, 1 << 20);
        assert_eq!((default.log_bytes_max(), default.replicated_item_bytes_max()), (4 << 20, 1 << 20));
        assert_eq!(with_log(None, 2 << 20).replicated_item_bytes_max(), 1 << 20);
        let beyond = with_log(Some(64 << 20), 32 << 20);
        assert_eq!(beyond.replicated_item_bytes_max(), (8 << 20) - RECORD_HEAD_BYTES, "half a frame");
        assert_eq!(beyond.sufficient_log_bytes(), None);
        let small = Config::new().memory_bytes_max(1 << 30).item_bytes_max(1 << 10);
        assert_eq!(small.replication(ReplicationConfig::primary()).log_bytes_max(), 64 << 20);
    }

    #[test]
    fn a_budget_of_nothing_is_refused() {
        for budget in [ReplicationConfig::max_unacked_ms, ReplicationConfig::max_unacked_bytes] {
            let with = |amount| Config::new().replication(budget(ReplicationConfig::primary(), amount));
            assert_eq!(with(0).validate(), Err(ConfigError::BudgetZero));
            assert_eq!(with(1).validate(), Ok(()));
        }
    }

    #[test]
    fn a_log_that_is_said_to_suffice_does_and_half_of_it_does_not() {
        for item_bytes in [1 << 10, 100_000, 1 << 20, 8_000_000] {
            let sufficient = with_log(Some(LOG_BYTES_MIN), item_bytes).sufficient_log_bytes().unwrap();
            assert_eq!(with_log(Some(sufficient), item_bytes).replicated_item_bytes_max(), item_bytes);
            let short = with_log(Some(sufficient / 2), item_bytes).replicated_item_bytes_max();
            assert!(short < item_bytes || item_bytes == 1 << 10, "{short}");
        }
        assert_eq!(with_log(Some(usize::MAX), 1 << 20).replicated_item_bytes_max(), 1 << 20);
        let alone = Config::new();
        assert_eq!((alone.replicated_item_bytes_max(), alone.sufficient_log_bytes()), (1 << 20, None));
    }
}
