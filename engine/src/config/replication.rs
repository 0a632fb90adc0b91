//! The settings of a node in a group.
//!
//! Lives here: [`ReplicationConfig`]. Not here: what only a transport needs (its addresses, secrets).

use crate::error::ConfigError;
use crate::replication::AckMode;
use crate::replication::bug::Bugs;
use crate::replication::record::RECORD_HEAD_BYTES;

/// The least `log_bytes_max`: 4 KiB.
pub const LOG_BYTES_MIN: usize = 4 << 10;

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
    pub(crate) cascades: bool,
    pub(crate) peers: Vec<String>,
    pub(crate) advertised: Option<String>,
    pub(crate) replica_reads: bool,
    pub(crate) replica_staleness_max_ms: Option<u64>,
    pub(crate) log_bytes_max: Option<usize>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) ack_mode: AckMode,
    pub(crate) promote_command: Option<String>,
    pub(crate) unacked_ms_max: Option<u64>,
    pub(crate) unacked_bytes_max: Option<u64>,
    pub(crate) random_seed: Option<u64>,
    pub(crate) takes_copies_apart: bool,
    pub(crate) window_records_max: usize,
    pub(crate) bugs: Bugs,
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
    ///
    /// With [peers](ReplicationConfig::peer) it takes no write before its [`Replicator`](crate::Replicator) has asked them, for
    /// at most a second, whether they hold items of the group: it may have been its primary, and have lost its memory. If
    /// one does this node waits for it to be promoted, and follows.
    pub fn primary() -> ReplicationConfig {
        ReplicationConfig {
            group: "default".to_owned(),
            node: None,
            slot: 0,
            slot_is_given: false,
            start: Start::Primary,
            upstream: Vec::new(),
            cascades: false,
            peers: Vec::new(),
            advertised: None,
            replica_reads: false,
            replica_staleness_max_ms: None,
            log_bytes_max: None,
            frame_bytes_max: 16 << 20,
            ack_mode: AckMode::Async,
            promote_command: None,
            unacked_ms_max: None,
            unacked_bytes_max: None,
            random_seed: None,
            takes_copies_apart: true,
            window_records_max: crate::replication::window::RECORDS_MAX,
            bugs: Bugs::default(),
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

    /// Follows the node that was named to [`ReplicationConfig::replica_of`] even while that is a replica, so that the primary
    /// ships to it once for both. Up to four links lie below a primary. Default off: a replica sends others to its
    /// primary. A node that can't reach what it was told to follow for 10 s follows the primary itself, until that link
    /// ends. Needs a slot that was given, since its primary does not see whether another replica has it.
    pub fn cascade(mut self) -> ReplicationConfig {
        self.cascades = true;
        self
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

    /// Has a replica refuse reads ([`ReadError::Stale`](crate::ReadError::Stale)) while its items may be older than so
    /// many milliseconds: since it last had all that its primary said to have. Default: no bound, so one that is cut off
    /// answers from what it has.
    ///
    /// A primary says so every 250 ms, and each time it takes as long as what was written before: a bound below 500 ms
    /// refuses reads now and then. Frames carry the primary's clock, and no clock can tell how long a frame took: where
    /// they come to take longer and longer, what a read shows may be older by that.
    pub fn replica_staleness_max_ms(mut self, ms: u64) -> ReplicationConfig {
        self.replica_staleness_max_ms = Some(ms);
        self
    }

    /// The replication log's size in bytes: how far a replica may fall behind before it is copied anew. Default
    /// the larger of 4 MiB and 1/16 of the cache, beside the cache's memory; at least 4 KiB. An item above a quarter of it, or
    /// half of a frame, is logged as a deletion: see [`Config::sufficient_log_bytes`](crate::Config::sufficient_log_bytes).
    pub fn log_bytes_max(mut self, bytes: usize) -> ReplicationConfig {
        self.log_bytes_max = Some(bytes);
        self
    }

    /// The largest frame in bytes. Default 16 MiB; 64 KiB to 64 MiB. A link holds at most two.
    pub fn frame_bytes_max(mut self, bytes: usize) -> ReplicationConfig {
        self.frame_bytes_max = bytes.clamp(64 << 10, 64 << 20);
        self
    }

    /// What a write waits for. Default [`AckMode::Async`]: nothing. In semi-sync an item has to fit a quarter of the log
    /// ([`Config::replicated_item_bytes_max`](crate::Config::replicated_item_bytes_max)); give every node of the
    /// group the same mode, for any of them may be promoted.
    ///
    /// The promises of semi-sync and of strict hold through a promotion that is not forced: with as many replicas asked for
    /// as there are other nodes, each has every write that was acknowledged; with fewer a promotion asks others
    /// ([`Cache::begin_promotion`](crate::Cache::begin_promotion)), and each node has to name all others as its peers.
    pub fn ack(mut self, mode: AckMode) -> ReplicationConfig {
        self.ack_mode = mode.bounded();
        self
    }

    /// What an operator types to promote this node: a warning that asks for it then says so. Default: none.
    pub fn promote_command(mut self, command: impl Into<String>) -> ReplicationConfig {
        self.promote_command = Some(command.into());
        self
    }

    /// Refuses writes while no attached replica lacks less than so many milliseconds of them. Default: none is refused. It
    /// is looked at whenever the replicator is polled (about every 5 ms), so it is passed by as much as is written
    /// meanwhile, and a few milliseconds refuse some now and then, where a node waits for a core. Give it to every node of the group: a
    /// node with a budget collects for half as long.
    pub fn max_unacked_ms(mut self, ms: u64) -> ReplicationConfig {
        self.unacked_ms_max = Some(ms);
        self
    }

    /// As [`ReplicationConfig::max_unacked_ms`], in bytes of the log. Allow for what is written in three milliseconds: about so long it takes
    /// until an ack is back where nothing is amiss.
    pub fn max_unacked_bytes(mut self, bytes: u64) -> ReplicationConfig {
        self.unacked_bytes_max = Some(bytes);
        self
    }

    /// Makes branches, gaps and identities repeatable: for simulations only. Default: the system's randomness.
    pub fn random_seed(mut self, seed: u64) -> ReplicationConfig {
        self.random_seed = Some(seed);
        self
    }

    /// A replica that is copied on one channel with the log, whatever its link has, as one of an older version is: for
    /// measurements, and tests of mixed versions.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn one_channel(mut self) -> ReplicationConfig {
        self.takes_copies_apart = false;
        self
    }

    /// How many records a replica notes beside a full copy: for the simulation, which has few.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn window_records_max(mut self, records: usize) -> ReplicationConfig {
        self.window_records_max = records;
        self
    }

    /// Puts a bug back: for the simulation, which has to find it.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn bug(mut self, bug: crate::replication::Bug) -> ReplicationConfig {
        self.bugs.put_back = Some(bug);
        self
    }

    /// Whether writes are refused while replicas lack too much.
    pub(crate) fn has_budget(&self) -> bool {
        self.unacked_ms_max.is_some() || self.unacked_bytes_max.is_some()
    }

    /// The largest item that a frame carries beside others, in bytes.
    pub(super) fn framed_item_bytes_max(&self) -> usize {
        self.frame_bytes_max / 2 - RECORD_HEAD_BYTES
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.slot > 15 {
            return Err(ConfigError::SlotTooLarge { slot: self.slot });
        }
        if self.cascades && (self.upstream.is_empty() || !self.slot_is_given) {
            return Err(ConfigError::CascadeUnnamed);
        }
        if self.unacked_ms_max == Some(0) || self.unacked_bytes_max == Some(0) {
            return Err(ConfigError::BudgetZero);
        }
        match self.log_bytes_max {
            Some(bytes) if bytes < LOG_BYTES_MIN => {
                Err(ConfigError::LogTooSmall { bytes, bytes_min: LOG_BYTES_MIN })
            }
            _ => Ok(()),
        }
    }
}
