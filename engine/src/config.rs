//! Every setting of a cache, with its default, its unit and what it costs.
//!
//! Lives here: [`Config`] and [`ReplicationConfig`]. Not here: what only a transport needs (its addresses, secrets).

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::error::ConfigError;

/// The least `memory_bytes_max`: 1 MiB.
pub const MEMORY_BYTES_MIN: usize = 1 << 20;
/// The most `memory_bytes_max`: what 32-bit references in units of 8 bytes reach.
pub const MEMORY_BYTES_MAX: usize = 32 << 30;
/// The least `log_bytes_max`: 4 KiB.
pub const LOG_BYTES_MIN: usize = 4 << 10;

/// Which items leave a full cache. Both policies try new items in a queue of their own, so that a scan passes through
/// without throwing out what is read again and again, and remember what they threw out not long ago. Items of less than
/// an eighth of the average size get more time to be read. All nodes of a group should have the same.
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
/// The worst-case memory of a cache is `memory_bytes_max` + `log_bytes_max` + for each attached replica two frames
/// (`frame_bytes_max`) + 1 MiB of queued hints.
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
    pub(crate) replication: Option<ReplicationConfig>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("memory_bytes_max", &self.memory_bytes_max)
            .field("item_bytes_max", &self.item_bytes_max)
            .field("evict", &self.evict)
            .field("shards", &self.shards)
            .field("replication", &self.replication)
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
    /// a megabyte and 256. Default: one below 16 MiB, so that strictly the coldest item leaves first; above, one for each 8 MiB, at most 64.
    pub fn shards(mut self, shards: usize) -> Config {
        self.shards = Some(shards);
        self
    }

    /// Where the time comes from. Default: the system's coarse clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Config {
        self.clock = clock;
        self
    }

    /// The seed of the key hash. Default: random, which keeps an attacker from choosing colliding keys; a replica
    /// takes its primary's. Tests give one to be repeatable.
    pub fn hash_seed(mut self, seed: u64) -> Config {
        self.hash_seed = Some(seed);
        self
    }

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
            None => (self.memory_bytes_max / (8 << 20)).next_power_of_two().min(64),
        }
    }

    /// The log's size in bytes: what was configured, or the larger of 4 MiB and 1/16 of the cache.
    pub(crate) fn log_bytes_max(&self) -> usize {
        match &self.replication {
            None => 0,
            Some(replication) => {
                replication.log_bytes_max.unwrap_or_else(|| (4 << 20).max(self.memory_bytes_max / 16))
            }
        }
    }
}

/// A node's part in a group of caches that hold the same items.
#[derive(Debug, Clone)]
pub struct ReplicationConfig {
    pub(crate) group: String,
    pub(crate) node: Option<u128>,
    pub(crate) slot: u8,
    /// Whether the slot was given; else a node whose slot is taken tries the next.
    pub(crate) slot_is_given: bool,
    pub(crate) start: Start,
    pub(crate) upstream: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) advertised: Option<String>,
    pub(crate) replica_reads: bool,
    pub(crate) log_bytes_max: Option<usize>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) random_seed: Option<u64>,
}

/// How a node begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// As the primary of a new group.
    Primary,
    /// As a follower of whoever is primary.
    Follower,
}

impl ReplicationConfig {
    /// A node that begins as the primary of a new group (`--bootstrap` of the server).
    pub fn primary() -> ReplicationConfig {
        ReplicationConfig {
            group: "default".to_owned(),
            node: None,
            slot: 0,
            slot_is_given: false,
            start: Start::Primary,
            upstream: Vec::new(),
            peers: Vec::new(),
            advertised: None,
            replica_reads: false,
            log_bytes_max: None,
            frame_bytes_max: 16 << 20,
            random_seed: None,
        }
    }

    /// A node that begins as a follower of the node that listens for replication at `address`.
    pub fn replica_of(address: impl Into<String>) -> ReplicationConfig {
        ReplicationConfig {
            start: Start::Follower,
            upstream: vec![address.into()],
            slot: 1,
            ..ReplicationConfig::primary()
        }
    }

    /// A node that begins as a follower of whichever of its peers is the primary.
    pub fn follower() -> ReplicationConfig {
        ReplicationConfig { start: Start::Follower, slot: 1, ..ReplicationConfig::primary() }
    }

    /// The group's name; nodes of another group are refused. Default `"default"`.
    pub fn group(mut self, name: impl Into<String>) -> ReplicationConfig {
        self.group = name.into();
        self
    }

    /// This node's identity. Default: random at each start.
    pub fn node(mut self, node: u128) -> ReplicationConfig {
        self.node = Some(node);
        self
    }

    /// 0 to 15, unique in the group, so that two nodes that are promoted at once never mint the same term. Default
    /// 0 for a primary, 1 for a follower; a follower whose default slot is taken moves on to the next. A slot that
    /// was given and is taken is refused.
    pub fn slot(mut self, slot: u8) -> ReplicationConfig {
        self.slot = slot;
        self.slot_is_given = true;
        self
    }

    /// Another node of the group, by the address where it listens for replication; repeatable. A promoted node
    /// tells each of them until it has answered; a follower asks them who is primary.
    pub fn peer(mut self, address: impl Into<String>) -> ReplicationConfig {
        self.peers.push(address.into());
        self
    }

    /// The address that this node names to others as its own. Default: none; the transport sets it when it listens.
    pub fn advertised(mut self, address: impl Into<String>) -> ReplicationConfig {
        self.advertised = Some(address.into());
        self
    }

    /// Whether a replica answers reads. Default off: a read says who the primary is.
    pub fn replica_reads(mut self, on: bool) -> ReplicationConfig {
        self.replica_reads = on;
        self
    }

    /// The replication log's size in bytes: how far a replica may fall behind before it is copied anew. Default
    /// the larger of 4 MiB and 1/16 of the cache, beside the cache's memory; at least 4 KiB. A record above a
    /// quarter of it is logged as a deletion.
    pub fn log_bytes_max(mut self, bytes: usize) -> ReplicationConfig {
        self.log_bytes_max = Some(bytes);
        self
    }

    /// The largest frame in bytes. Default 16 MiB; 64 KiB to 64 MiB. A link holds at most two.
    pub fn frame_bytes_max(mut self, bytes: usize) -> ReplicationConfig {
        self.frame_bytes_max = bytes.clamp(64 << 10, 64 << 20);
        self
    }

    /// Makes branches, gaps and identities repeatable: for simulations only. Default: the system's randomness.
    pub fn random_seed(mut self, seed: u64) -> ReplicationConfig {
        self.random_seed = Some(seed);
        self
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.slot > 15 {
            return Err(ConfigError::SlotTooLarge { slot: self.slot });
        }
        match self.log_bytes_max {
            Some(bytes) if bytes < LOG_BYTES_MIN => {
                Err(ConfigError::LogTooSmall { bytes, bytes_min: LOG_BYTES_MIN })
            }
            _ => Ok(()),
        }
    }
}
