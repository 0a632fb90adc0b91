//! The cache: a cloneable handle that hashes once, locks the shard, applies, and logs.
//!
//! Lives here: the public operations, and the order of all locks.
//! Not here: how one write goes (see `write`), a replica's side (see `apply`), changes of role (see `role_changes`).
//!
//! **Lock order**: the gate (one applier or one change of role at a time), then one shard, then index lines of that
//! shard (a reader locks one without the shard), then one of the leaves (log, roles, hints). No two shards are locked
//! at once, and nothing is locked while a leaf is held, except the log under the roles. A thread that reads an item in place holds that item's line;
//! every call that would lock a shard or the gate refuses there.

#[cfg(feature = "serde")]
mod acks;
#[cfg(feature = "serde")]
mod apply;
pub(crate) mod arithmetic;
mod classes;
mod conditional;
#[cfg(feature = "serde")]
mod copies;
mod counters;
mod events;
mod flush;
#[cfg(feature = "serde")]
mod group;
mod group_clock;
#[cfg(feature = "serde")]
mod image;
#[cfg(feature = "serde")]
mod inspect;
mod latency;
mod load;
#[cfg(not(feature = "serde"))]
mod no_group;
mod prefetch;
mod read;
#[cfg(feature = "serde")]
mod replica_reads;
#[cfg(feature = "serde")]
mod role_changes;
#[cfg(feature = "serde")]
mod roll_back;
mod scan;
mod set_while;
#[cfg(feature = "serde")]
mod subscribe;
mod sweep;
mod value_writer;
mod versions;
mod write;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam::utils::CachePadded;

use crate::clock::{Clock, Millis};
use crate::config::Config;
use crate::error::{ConfigError, CounterError, ReadError, WriteError};
use crate::mutation::{Attributes, Expiry, KEY_BYTES_MAX, Marks, Version};
use crate::serving::Serving;
use crate::stats::Stats;
pub use crate::storage::Value;
use crate::storage::{Floors, KeyHasher, Moment, PagePool, Policy, Shard, ShardMutex, SizeClasses, Tables};
pub use latency::{Histogram, Latencies};
use latency::{LatencyCounters, Timed};
pub use load::{Lease, LoadError, LoadPolicy, Lookup, Waiting};
pub use prefetch::KeyAhead;
pub use scan::{Cursor, Entries};
pub use set_while::{Put, SetBatch};

use arithmetic::Direction;
pub use classes::{ClassAges, ClassStats, ItemDetails};
pub use conditional::{Deletion, ItemState, Update, Updated};
#[cfg(feature = "serde")]
pub(crate) use copies::InstallReader;
use counters::ReadCounters;
pub(crate) use counters::is_inside_read;
pub(crate) use events::Listener;
use events::{Events, Watch};
#[cfg(feature = "serde")]
pub(crate) use group::Group;
use group_clock::GroupClock;
#[cfg(feature = "serde")]
pub use image::{Damage, RestoreError, Restored, SaveError};
#[cfg(feature = "serde")]
pub use inspect::{InspectedItem, InspectedPart, Inspection};
#[cfg(feature = "serde")]
pub(crate) use load::{Desk, Lent, LoadLease};
use load::{Flights, LoadLeases};
#[cfg(not(feature = "serde"))]
pub(crate) use no_group::Group;
#[cfg(feature = "serde")]
pub use replica_reads::Applied;
#[cfg(feature = "serde")]
pub(crate) use role_changes::{INQUIRY_WITHIN, Promotion};
#[cfg(feature = "serde")]
pub(crate) use subscribe::Sleepers;
#[cfg(feature = "serde")]
pub use subscribe::{
    Change, Effect, NoChange, Position, PositionError, Restart, SubscribeError, Subscription,
};
pub use value_writer::ValueWriter;
use value_writer::Writers;
use versions::{LastVersion, NextVersion, VersionBlock};

/// An embeddable in-memory cache with a byte limit, expiry, versions and, if configured, warm replicas.
///
/// A `Cache` is a handle: clone it freely and use it from any thread. Keys and values are bytes.
///
/// ```
/// use hotspare::{Cache, Config, Expiry};
/// use std::time::Duration;
///
/// let cache = Cache::new(Config::new().memory_bytes_max(16 << 20))?;
/// cache.set("user:7", "Ada", Duration::from_secs(60))?;
/// cache.set("motd", "hello", Expiry::Never)?;
/// let item = cache.get("user:7")?.expect("it was just stored");
/// assert_eq!(&item.value[..], b"Ada");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("memory_bytes_max", &self.inner.pool.memory_bytes_max())
            .finish_non_exhaustive()
    }
}

/// An item that was read: its value is a copy of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The value.
    pub value: Bytes,
    /// What the writer gave.
    pub flags: u32,
    /// The version, memcached's CAS unique.
    pub version: Version,
    /// When it expires, in milliseconds since the Unix epoch; `None` is never.
    pub expires_at_ms: Option<u64>,
}

/// An item while it is read in place.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ItemRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, in one or more pieces.
    pub value: Value<'a>,
    /// What the writer gave.
    pub flags: u32,
    /// The version, memcached's CAS unique.
    pub version: Version,
    /// When it expires, in milliseconds since the Unix epoch; `None` is never.
    pub expires_at_ms: Option<u64>,
    /// Whether it was read before, since it was stored.
    pub is_fetched: bool,
    /// When it was last stored or read before this, in seconds since the Unix epoch on the cache's clock; `None` unless
    /// [`Config::accounting`] was asked for. [`Cache::peek`] and scans are no accesses.
    pub accessed_s: Option<u64>,
    /// What memcached's meta commands say of it.
    pub state: ItemState,
}

impl ItemRef<'_> {
    /// What memcached's clients see as CAS: what one of them gave, or the version (rule M6).
    pub fn cas(&self) -> u64 {
        self.state.client_cas.unwrap_or(self.version.0)
    }

    /// A copy that outlives the read.
    pub fn to_item(&self) -> Item {
        Item {
            value: self.value.to_vec().into(),
            flags: self.flags,
            version: self.version,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

/// What a compare-and-swap did (rule C2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The version matched; the item has this new version.
    Stored(Version),
    /// The item has another version; nothing was stored.
    Exists,
    /// There is no such item; nothing was stored.
    NotFound,
}

/// What the lock of a shard guards.
#[repr(C)]
pub(crate) struct ShardCell {
    next_version: NextVersion,
    pub(crate) shard: Shard,
    versions: VersionBlock,
    /// Items refused because they are above the limit.
    pub(crate) too_large: u64,
    flights: Flights,
    /// A buffer for the record that is being encoded; it keeps its memory up to 64 KiB.
    pub(crate) scratch: Vec<u8>,
    load_leases: LoadLeases,
}

/// Why a read has to look closer.
pub(crate) mod attention {
    /// This node does not serve everything.
    pub(crate) const SERVING: u8 = 1;
    /// There is an appointment for a flush.
    pub(crate) const FLUSH: u8 = 2;
}

pub(crate) struct Inner {
    pub(crate) hasher: KeyHasher,
    pub(crate) pool: Arc<PagePool>,
    /// The readers' side of each shard.
    pub(crate) tables: Tables,
    pub(crate) shards: Box<[CachePadded<ShardMutex<ShardCell>>]>,
    read_counters: ReadCounters,
    clock: Arc<dyn Clock>,
    /// What the group's clock is ahead of this node's; changed by a follower only.
    group_clock: GroupClock,
    pub(crate) floors: Floors,
    /// When a flush is due; 0 for none.
    pub(crate) flush_at_ms: AtomicU64,
    /// Whether a read has more to look at than its item: [`attention`] has the bits.
    pub(crate) attention: AtomicU8,
    /// How many loads are under way here, and leases of other nodes that are known.
    flights_under_way: AtomicUsize,
    /// Of a cache in no group.
    last_version: LastVersion,
    /// Which shard is swept next, when somebody asks for it.
    sweep_turn: AtomicUsize,
    /// The largest item; lower than configured while each write has to be acknowledged and its log is small.
    pub(crate) item_bytes_max: AtomicUsize,
    size_classes: SizeClasses,
    /// Values that have not come whole.
    writers: Writers,
    /// How many hits an item counts.
    pub(crate) hits_max: u8,
    /// From which marks on a read has nothing to write.
    read_enough: u8,
    /// Whether it is kept when items were accessed.
    is_accounting: bool,
    /// The second of the accesses of this round; 0 where each looks at the clock.
    round_s: AtomicU32,
    pub(crate) serving: AtomicU8,
    pub(crate) group: Option<Group>,
    events: Option<Events>,
    /// Whether, and where, it is counted how long operations take.
    latencies: Option<LatencyCounters>,
    /// Whether the cache has those, or a hash function of its own: its plain reads and sets take a longer way.
    is_special: bool,
    /// What a set may have to do besides to store.
    watch: Watch,
}

impl Cache {
    /// Makes a cache. Memory is taken as it fills.
    ///
    /// # Errors
    /// A setting is out of range; the error says which and what works.
    pub fn new(config: Config) -> Result<Cache, ConfigError> {
        config.validate()?;
        let shard_count = config.shard_count();
        let pool = PagePool::with_accounting(config.memory_bytes_max, shard_count, config.accounting)
            .map_err(|refused| ConfigError::NoAddressSpace { bytes: refused.bytes })?;
        let tables = Tables::new(&pool);
        let seed = config.hash_seed.unwrap_or_else(random_u64);
        let hasher = KeyHasher::new(seed, config.hash.clone());
        let policy = Policy::from(config.eviction);
        let events = config.listener.clone().map(|listener| Events::new(listener, shard_count));
        let cell = |number| {
            CachePadded::new(ShardMutex::new(ShardCell {
                next_version: NextVersion::default(),
                shard: Shard::new(pool.clone(), tables.clone(), number, config.evict, policy, hasher.clone()),
                versions: VersionBlock::default(),
                too_large: 0,
                flights: Flights::default(),
                scratch: Vec::new(),
                load_leases: LoadLeases::new(shard_count),
            }))
        };
        let group = Group::new(&config, shard_count);
        let serving = group.as_ref().map_or(Serving::All, Group::serving);
        let inner = Inner {
            shards: (0..shard_count).map(cell).collect(),
            tables,
            read_counters: ReadCounters::new(),
            hasher,
            size_classes: SizeClasses::new(&pool),
            writers: Writers::default(),
            pool,
            clock: config.clock,
            group_clock: GroupClock::default(),
            floors: Floors::new(),
            flush_at_ms: AtomicU64::new(0),
            attention: AtomicU8::new(if serving == Serving::All { 0 } else { attention::SERVING }),
            flights_under_way: AtomicUsize::new(0),
            last_version: LastVersion::new(config.versions_in_order),
            sweep_turn: AtomicUsize::new(0),
            item_bytes_max: AtomicUsize::new(
                group.as_ref().map_or(config.item_bytes_max, |group| group.item_bytes_max()),
            ),
            hits_max: policy.hits_max,
            read_enough: Marks::read_enough(policy.hits_max, config.accounting),
            is_accounting: config.accounting,
            round_s: AtomicU32::new(0),
            watch: Watch::of(group.is_some(), events.is_some(), config.versions_in_order),
            serving: AtomicU8::new(serving as u8),
            group,
            events,
            latencies: config.latency_histograms.then(LatencyCounters::new),
            is_special: config.latency_histograms || config.hash.is_some(),
        };
        for (number, cell) in inner.shards.iter().enumerate() {
            if let Some(events) = &inner.events {
                cell.lock().shard.keep_departures(events.departures(number));
            }
        }
        Ok(Cache { inner: Arc::new(inner) })
    }

    /// The item under `key`, copied out; `None` if it is absent, expired or flushed.
    ///
    /// # Errors
    /// The key's length is out of range, this node does not answer reads, or the call came from inside a read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, ReadError> {
        self.read(key, |item| item.to_item())
    }

    /// Reads the item under `key` in place, without copying it; `None` if it is absent, expired or flushed.
    ///
    /// The closure runs while the item, and about seven others, are locked: keep it short. Calling a cache inside it is refused with
    /// an error. A panic inside it goes on to the caller and leaves the cache sound.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("k", "value", Expiry::Never)?;
    /// let length = cache.read("k", |item| item.value.len())?;
    /// assert_eq!(length, Some(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub fn read<R>(
        &self,
        key: impl AsRef<[u8]>,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.inner.read(key.as_ref(), reader)
    }

    /// Reads many items, each as [`Cache::get`] does, in less time: the processor fetches the next ones while one is
    /// read. The results are in the order of the keys.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("a", "1", Expiry::Never)?;
    /// cache.set("c", "3", Expiry::Never)?;
    /// let items = cache.get_many(&["a", "b", "c"])?;
    /// let found: Vec<bool> = items.iter().map(Option::is_some).collect();
    /// assert_eq!(found, [true, false, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get`]; then no item is given at all.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Item>>, ReadError> {
        let mut items = Vec::with_capacity(keys.len());
        self.read_many(keys, |_, item| items.push(item.map(|item| item.to_item())))?;
        Ok(items)
    }

    /// Reads many items in place, each as [`Cache::read`] does: the closure is given the key's place in `keys` and the
    /// item, `None` for an absent one, in the order of the keys.
    ///
    /// # Errors
    /// As [`Cache::get`]; the closure has run for the keys before the one that was refused.
    pub fn read_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut reader: impl FnMut(usize, Option<ItemRef<'_>>),
    ) -> Result<(), ReadError> {
        self.read_while(keys, |at, item| {
            reader(at, item);
            ControlFlow::Continue(())
        })
    }

    /// [`Cache::read_many`] for as long as the closure says so: the keys behind the one for which it broke off are not
    /// read, not counted, and count as little as read as if nobody had asked for them.
    ///
    /// # Errors
    /// As [`Cache::read_many`].
    pub fn read_while<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        reader: impl FnMut(usize, Option<ItemRef<'_>>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.inner.timed(Timed::Read, || self.inner.read_while(keys, reader))
    }

    /// Reads like [`Cache::read`] and gives the item another expiry (memcached's gat, rule R3). The closure sees
    /// the new expiry.
    ///
    /// # Errors
    /// As the writes: a replica refuses, since an expiry is a change.
    pub fn read_and_touch<R>(
        &self,
        key: impl AsRef<[u8]>,
        expiry: impl Into<Expiry>,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, WriteError> {
        self.inner.read_and_touch(key.as_ref(), expiry.into(), true, reader)
    }

    /// Like [`Cache::read_and_touch`], but leaves marks as they are: to eviction the item is as unread as before.
    ///
    /// # Errors
    /// As [`Cache::read_and_touch`].
    pub fn peek_and_touch<R>(
        &self,
        key: impl AsRef<[u8]>,
        expiry: impl Into<Expiry>,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, WriteError> {
        self.inner.read_and_touch(key.as_ref(), expiry.into(), false, reader)
    }

    /// Reads like [`Cache::read`], but leaves marks and statistics as they are.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub fn peek<R>(
        &self,
        key: impl AsRef<[u8]>,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.inner.peek(key.as_ref(), reader)
    }

    /// Whether the key is present. That is no read: marks and statistics stay.
    ///
    /// # Errors
    /// As [`Cache::get`].
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool, ReadError> {
        Ok(self.inner.peek(key.as_ref(), |_| ())?.is_some())
    }

    /// Stores, whatever is there.
    ///
    /// # Errors
    /// On `ItemTooLarge` and `OutOfMemory` an older item under the key is removed, so that a failed overwrite
    /// leaves nothing stale (rule L5).
    pub fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attributes: impl Into<Attributes>,
    ) -> Result<Version, WriteError> {
        self.inner.set(key.as_ref(), value.as_ref(), attributes.into())
    }

    /// Stores if the key is absent. `None` if it is present; then the present item counts as read (rule S1).
    ///
    /// # Errors
    /// The write was refused; an older item stays.
    pub fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attributes: impl Into<Attributes>,
    ) -> Result<Option<Version>, WriteError> {
        self.inner.add(key.as_ref(), value.as_ref(), attributes.into())
    }

    /// Stores if the key is present; `None` if it is absent.
    ///
    /// # Errors
    /// The write was refused; an older item stays.
    pub fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        attributes: impl Into<Attributes>,
    ) -> Result<Option<Version>, WriteError> {
        self.inner.replace(key.as_ref(), value.as_ref(), attributes.into())
    }

    /// Adds behind the value; flags and expiry stay. `None` if the key is absent.
    ///
    /// # Errors
    /// The write was refused; the item stays as it was.
    pub fn append(
        &self,
        key: impl AsRef<[u8]>,
        suffix: impl AsRef<[u8]>,
    ) -> Result<Option<Version>, WriteError> {
        self.inner.extend(key.as_ref(), &[], suffix.as_ref())
    }

    /// Adds before the value; flags and expiry stay. `None` if the key is absent.
    ///
    /// # Errors
    /// The write was refused; the item stays as it was.
    pub fn prepend(
        &self,
        key: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
    ) -> Result<Option<Version>, WriteError> {
        self.inner.extend(key.as_ref(), prefix.as_ref(), &[])
    }

    /// Stores if the item still has this version (rule C2).
    ///
    /// # Errors
    /// The write was refused; an older item stays.
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Version,
        value: impl AsRef<[u8]>,
        attributes: impl Into<Attributes>,
    ) -> Result<Swap, WriteError> {
        self.inner.compare_and_swap(key.as_ref(), expected, value.as_ref(), attributes.into())
    }

    /// Removes; whether the key was present. The deletion is replicated even if it was not.
    ///
    /// # Errors
    /// The write was refused.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, WriteError> {
        self.inner.delete(key.as_ref())
    }

    /// Gives the item another expiry; whether the key was present. Value and version stay (rule A6).
    ///
    /// # Errors
    /// The write was refused.
    pub fn touch(&self, key: impl AsRef<[u8]>, expiry: impl Into<Expiry>) -> Result<bool, WriteError> {
        Ok(self.inner.read_and_touch(key.as_ref(), expiry.into(), true, |_| ())?.is_some())
    }

    /// Adds `delta` to a decimal value, modulo 2^64 (rules A2 to A5); `None` if the key is absent.
    ///
    /// # Errors
    /// The value spells no number, or the write was refused; the item stays as it was.
    pub fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, CounterError> {
        self.inner.count(key.as_ref(), Direction::Up, delta)
    }

    /// Takes `delta` from a decimal value, down to 0 (rules A2 to A5); `None` if the key is absent.
    ///
    /// # Errors
    /// The value spells no number, or the write was refused; the item stays as it was.
    pub fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, CounterError> {
        self.inner.count(key.as_ref(), Direction::Down, delta)
    }

    /// Makes every item that is present now absent, in constant time; their memory is used again as it is needed.
    ///
    /// # Errors
    /// The write was refused.
    pub fn flush(&self) -> Result<(), WriteError> {
        self.inner.flush()
    }

    /// Makes every item that was last stored before `at` absent, once that moment has come (rule G2). A later
    /// appointment replaces an earlier one. `Expiry::Never` cancels it.
    ///
    /// # Errors
    /// The write was refused.
    pub fn flush_at(&self, at: Expiry) -> Result<(), WriteError> {
        self.inner.flush_at(at)
    }

    /// Makes every item absent whose key begins with `prefix`, in constant time; replicas follow. Their memory is used
    /// again as it is needed.
    ///
    /// The cache remembers each such prefix until the next [`Cache::flush`], so let it be one of few (a table, a
    /// tenant): at most [`PREFIXES_MAX`](crate::PREFIXES_MAX), of which none begins with another, of at most
    /// [`PREFIX_BYTES_MAX`](crate::PREFIX_BYTES_MAX) bytes. The same prefix any number of times counts once.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("user:7", "Ada", Expiry::Never)?;
    /// cache.set("page:7", "home", Expiry::Never)?;
    /// cache.invalidate_prefix("user:")?;
    /// assert!(cache.get("user:7")?.is_none() && cache.get("page:7")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The prefix is empty, too long or one too many, or the write was refused; nothing was invalidated then.
    pub fn invalidate_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<(), WriteError> {
        self.inner.invalidate_prefix(prefix.as_ref())
    }

    /// Sets another memory limit, in bytes. A lower one evicts, a few pages of one shard at a time, until it holds; other
    /// threads go on meanwhile. With eviction off nothing leaves: the cache stores nothing new until enough was deleted.
    /// The limit is this node's own: replicas keep theirs.
    ///
    /// # Errors
    /// The limit is out of range: at least 1 MiB and twice the largest item, at most four times what the cache was
    /// made with.
    pub fn resize(&self, memory_bytes_max: usize) -> Result<(), ConfigError> {
        self.inner.resize(memory_bytes_max)
    }

    /// Counters and gauges. Inside a read, shards that are being written to are left out.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            memory_bytes: self.inner.pool.memory_bytes() as u64,
            memory_bytes_max: self.inner.pool.memory_bytes_max() as u64,
            pinned_bytes: self.inner.pool.pinned_bytes() as u64,
            shards: self.inner.shards.len() as u64,
            ..Stats::default()
        };
        self.inner.read_counters.add_to(&mut stats);
        self.inner.for_each_cell(|cell| cell.add_to(&mut stats));
        stats
    }

    /// How long operations took; `None` unless [`Config::latency_histograms`] was asked for.
    pub fn latencies(&self) -> Option<Latencies> {
        self.inner.latencies.as_ref().map(LatencyCounters::latencies)
    }

    /// Sets the counters of [`Stats`] and [`Latencies`] to zero; gauges stay.
    pub fn reset_stats(&self) {
        self.inner.read_counters.reset();
        self.inner.latencies.iter().for_each(LatencyCounters::reset);
        self.inner.for_each_cell(|cell| {
            cell.versions.forget_stores(&cell.next_version);
            cell.too_large = 0;
            cell.shard.reset_counters();
        });
    }

    /// Milliseconds since the Unix epoch on the clock by which this cache expires items: the group's clock.
    pub fn now_ms(&self) -> Millis {
        self.inner.now_ms()
    }

    /// The cache's own clock, by which a [`Replicator`](crate::Replicator) states its deadlines, in milliseconds.
    pub fn local_now_ms(&self) -> Millis {
        self.inner.local_now_ms()
    }
}

impl Cache {
    /// Counts that what was just read was no value after all.
    #[cfg(feature = "serde")]
    pub(crate) fn count_undecodable(&self) {
        self.inner.read_counters.count(counters::ReadOutcome::Undecodable);
    }

    /// Panics if a structure of the storage breaks one of its invariants. For tests.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        for cell in &self.inner.shards {
            cell.lock().shard.check_invariants();
        }
    }
}

impl ShardCell {
    fn add_to(&self, stats: &mut Stats) {
        let storage = self.shard.counters();
        stats.items += self.shard.item_count() as u64;
        stats.item_bytes += self.shard.item_bytes() as u64;
        stats.index_bytes += self.shard.index_bytes() as u64;
        stats.stores += self.versions.stores(&self.next_version);
        stats.store_too_large += self.too_large;
        stats.store_no_memory += storage.no_memory;
        stats.evictions += storage.evictions;
        stats.evicted_unfetched += storage.evicted_unfetched;
        stats.expired_unfetched += storage.expired_unfetched;
        stats.reclaimed += storage.reclaimed;
        stats.pages_moved += storage.pages_moved;
    }
}

impl Inner {
    /// The shard of a hash.
    #[inline]
    pub(crate) fn shard_number(&self, hash: u64) -> usize {
        self.tables.shard_number(hash)
    }

    #[inline]
    pub(crate) fn cell(&self, hash: u64) -> &ShardMutex<ShardCell> {
        &self.shards[self.shard_number(hash)]
    }

    /// Runs on each shard in turn; inside a read, on those that are free.
    fn for_each_cell(&self, mut run: impl FnMut(&mut ShardCell)) {
        for cell in &self.shards {
            if is_inside_read() {
                cell.try_lock().iter_mut().for_each(|cell| run(cell));
            } else {
                run(&mut cell.lock());
            }
        }
    }

    /// This node's own clock, by which links time out.
    pub(crate) fn local_now_ms(&self) -> Millis {
        self.clock.now_ms()
    }

    /// The clock of leases.
    pub(crate) fn lease_now_ms(&self) -> Millis {
        self.clock.lease_ms()
    }

    /// The group's clock, by which items expire.
    pub(crate) fn now_ms(&self) -> Millis {
        self.group_clock.now_ms(&*self.clock)
    }

    pub(crate) fn clock_offset_ms(&self) -> i64 {
        self.group_clock.offset_ms()
    }

    /// Takes another clock outright, forward or back: for a node that holds nothing.
    pub(crate) fn adopt_clock_offset_ms(&self, offset_ms: i64) {
        self.group_clock.adopt_offset_ms(offset_ms);
    }

    /// The group's clock never goes back: with a lower offset it stands still for as long as that takes back.
    pub(crate) fn set_clock_offset_ms(&self, offset_ms: i64) {
        self.group_clock.set_offset_ms(offset_ms, &*self.clock);
    }

    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment { clock: self, floors: &self.floors }
    }

    pub(crate) fn serving(&self) -> Serving {
        Serving::from(self.serving.load(Ordering::Acquire))
    }

    /// Where the primary is, for the error of a node that is not it.
    fn primary_address(&self) -> Option<String> {
        self.group.as_ref().and_then(Group::primary_address)
    }

    fn is_key_length_wrong(key: &[u8]) -> bool {
        key.is_empty() || key.len() > KEY_BYTES_MAX
    }
}

/// A number that nobody can guess.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the system gives random numbers")
}

#[cfg(test)]
mod tests;
