//! A node's part in its group, as the operations on keys see it: the log, marks, whom to ask instead.
//!
//! Lives here: [`Group`] and what each write and hit does with it. Not here: a replica's side (see `apply`), changes of
//! role (see `role_changes`), what a build without replication has instead (see `no_group`).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::{Config, ReplicationConfig};
use crate::error::WriteError;
use crate::mutation::{Mutation, Version};
use crate::replication::acks::Acks;
use crate::replication::bug::Bug;
use crate::replication::doorbell::Doorbell;
use crate::replication::log::Log;
use crate::replication::primary::Now;
use crate::replication::record;
use crate::replication::risk::Risk;
use crate::replication::roles::Roles;
use crate::replication::{AckMode, Role, Status};
use crate::serving::Serving;

use super::Cache;

/// Hints that a shard keeps between two collections (8 bytes each); more are dropped, as hints may be.
const SHARD_HINTS_MAX: usize = 4096;

/// The scratch buffer of a shard keeps at most this much.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;

/// What a record adds to key and value, at most.
const RECORD_HEAD_BYTES: usize = 64;

thread_local! {
    /// The version of the last mutation that this thread has logged, in whatever cache; 0 before the first. So a write
    /// tells whoever asks for it what to wait for, and pays a store for it.
    pub(super) static LAST_WRITTEN: Cell<u64> = const { Cell::new(0) };
}

/// A node's part in its group; absent in a standalone cache.
pub(crate) struct Group {
    pub(crate) config: ReplicationConfig,
    /// Taken by whoever applies a primary's records, and by every change of role.
    pub(crate) gate: Mutex<()>,
    pub(crate) roles: Mutex<Roles>,
    pub(crate) log: Mutex<Log>,
    /// On a replica: all that its primary did before this moment of the group's clock has been applied. Written by
    /// whoever holds the gate.
    pub(crate) settled_ms: AtomicU64,
    /// How the driver is woken.
    pub(crate) doorbell: Doorbell,
    /// How far replicas are, for whoever waits for them.
    pub(crate) acks: Acks,
    /// The largest item that the configuration allows.
    item_bytes_max: usize,
    /// A larger record is logged as a deletion.
    record_bytes_max: usize,
    log_bytes_max: usize,
    /// Whether anybody is there to be told of reads.
    pub(crate) has_replicas: AtomicBool,
    /// By shard: hashes of items whose mark went from clear to set and found no room in the log; at most
    /// [`SHARD_HINTS_MAX`], collected by the driver.
    pub(crate) hints: Box<[Mutex<Vec<u64>>]>,
    /// The last record of a frame, whose seq was taken before it was applied: a bug put back.
    #[cfg(feature = "testing")]
    pub(crate) unapplied: Mutex<Option<Box<[u8]>>>,
}

impl Group {
    /// As the configuration says; `None` without replication.
    pub(super) fn new(config: &Config, shard_count: usize) -> Option<Group> {
        let log_bytes_max = config.log_bytes_max();
        let item_bytes_max = config.item_bytes_max;
        let config = config.replication.clone()?;
        let mut roles = Roles::new(&config);
        let mut log = Log::new(log_bytes_max);
        log.bugs = config.bugs;
        if roles.role() == Role::Primary {
            let (term, branch, random) = roles.begin_as_primary();
            log.mint(term, branch, random, false);
        }
        let record_bytes_max = log.record_bytes_max().min(config.frame_bytes_max / 2);
        Some(Group {
            gate: Mutex::new(()),
            roles: Mutex::new(roles),
            log: Mutex::new(log),
            settled_ms: AtomicU64::new(0),
            doorbell: Doorbell::default(),
            acks: Acks::new(config.ack_mode),
            item_bytes_max,
            record_bytes_max,
            log_bytes_max,
            has_replicas: AtomicBool::new(false),
            hints: (0..shard_count).map(|_| Mutex::default()).collect(),
            #[cfg(feature = "testing")]
            unapplied: Mutex::default(),
            config,
        })
    }

    pub(super) fn serving(&self) -> Serving {
        self.roles.lock().serving()
    }

    /// Where the primary is, for the error of a node that is not it.
    pub(super) fn primary_address(&self) -> Option<String> {
        self.roles.lock().primary_address()
    }

    /// The largest item that clients may store: where each write has to be acknowledged, one that fits the log.
    pub(super) fn item_bytes_max(&self) -> usize {
        match self.acks.needed() {
            0 => self.item_bytes_max,
            _ => self.item_bytes_max.min(self.record_bytes_max - RECORD_HEAD_BYTES),
        }
    }

    /// Whether what a replica lacks is within the budget.
    pub(crate) fn affords(&self, risk: &Risk, now: Now) -> bool {
        let ReplicationConfig { unacked_ms_max, unacked_bytes_max, .. } = self.config;
        unacked_ms_max.is_none_or(|ms_max| risk.lag_ms(now.local_ms) <= ms_max)
            && unacked_bytes_max.is_none_or(|bytes_max| risk.lag_bytes() <= bytes_max)
    }

    /// Why writes are refused for want of replicas.
    pub(super) fn shortage(&self) -> WriteError {
        self.roles.lock().shortage()
    }

    /// The version that the next mutation will have.
    pub(super) fn next_version(&self) -> Version {
        self.log.lock().next_version()
    }

    /// Encodes and appends. A record too large for the log or a frame goes in as a deletion of its key.
    pub(super) fn append(&self, mutation: &Mutation<'_>, scratch: &mut Vec<u8>) -> Version {
        scratch.clear();
        let key_and_value = match mutation {
            Mutation::Put { key, value, .. } => key.len() + value.len(),
            _ => 0,
        };
        let oversized = key_and_value + RECORD_HEAD_BYTES > self.record_bytes_max;
        match mutation {
            Mutation::Put { key, .. } if oversized => record::encode(&Mutation::Delete { key }, scratch),
            fits => record::encode(fits, scratch),
        }
        let mut log = self.log.lock();
        log.oversized += u64::from(oversized);
        let (_, version) = log.append(scratch);
        drop(log);
        LAST_WRITTEN.set(version.0);
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = Vec::new();
        }
        version
    }

    /// A bug put back: see `replication::bug`.
    #[inline]
    pub(super) fn leaves_absent_deletes_out(&self) -> bool {
        self.config.bugs.has(Bug::UnloggedAbsentDelete)
    }

    /// Wakes whoever ships the log.
    pub(super) fn ring(&self) {
        self.doorbell.ring();
    }

    /// An item has a hit more: replicas are told, at this place in the log, or by a hint where the log has its share of
    /// marks. Called with the item's line locked.
    #[inline]
    pub(super) fn tell_mark(&self, shard: usize, hash: u64) {
        if self.has_replicas.load(Ordering::Relaxed) {
            self.log_mark(shard, hash);
        }
    }

    fn log_mark(&self, shard: usize, hash: u64) {
        if self.log.lock().append_mark(hash) {
            return;
        }
        self.hint(shard, hash);
    }

    /// Queues a hint; one too many is lost, as hints may be.
    pub(super) fn hint(&self, shard: usize, hash: u64) {
        let mut hints = self.hints[shard].lock();
        if hints.len() < SHARD_HINTS_MAX {
            hints.push(hash);
        }
    }
}

impl Cache {
    /// The largest replication frame in bytes, for transports; `None` without replication.
    pub fn frame_bytes_max(&self) -> Option<usize> {
        self.inner.group.as_ref().map(|group| group.config.frame_bytes_max)
    }

    /// The node's role, position and peers.
    pub fn status(&self) -> Status {
        let Some(group) = &self.inner.group else { return Status::standalone() };
        let mut status = group.roles.lock().status(&group.config);
        let log = group.log.lock();
        status.seq = log.last_seq();
        status.log_bytes = log.memory_bytes() as u64;
        status.log_bytes_max = group.log_bytes_max as u64;
        status.oversized_records = log.oversized;
        status.ack_mode = AckMode::of(group.acks.needed());
        status
    }
}
