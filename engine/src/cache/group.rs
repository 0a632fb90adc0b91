//! A node's part in its group, as the operations on keys see it: the log, marks, whom to ask instead.
//!
//! Lives here: [`Group`] and what each write and hit does with it. Not here: a replica's side (see `apply`), changes of
//! role (see `role_changes`), what a build without replication has instead (see `no_group`).

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::{Config, ReplicationConfig};
use crate::error::WriteError;
use crate::mutation::{Marks, Mutation, Version};
use crate::replication::Warning;
use crate::replication::acks::Acks;
use crate::replication::bug::Bug;
use crate::replication::doorbell::Doorbell;
use crate::replication::lease::Lease;
use crate::replication::log::Log;
use crate::replication::primary::Now;
use crate::replication::record;
use crate::replication::risk::Risk;
use crate::replication::roles::Roles;
use crate::replication::{AckMode, Role, Status};
use crate::serving::Serving;
use crate::storage::{Meta, Shard, Value, prefetch_to_write};

use super::{Cache, Desk, Sleepers};

/// Hints that a shard keeps between two collections (8 bytes each); more are dropped, as hints may be.
const SHARD_HINTS_MAX: usize = 4096;

/// The scratch buffer of a shard keeps at most this much.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;

const CACHE_LINE_BYTES: usize = 64;

/// Which lines behind the end of the log are fetched with each entry: those of the next but one, if both are of usual size. A
/// log of 64 MiB comes round to memory that no cache holds any more, and a lock under which it is written is not free before the
/// last line has come.
const LINES_AHEAD: Range<usize> = 3..6;

thread_local! {
    /// The version of the last mutation that this thread has logged, in whatever cache; 0 before the first. So a write
    /// tells whoever asks for it what to wait for, and pays a store for it.
    /// In strict also the newest that it has seen and must wait for.
    pub(super) static LAST_WRITTEN: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread asks afterwards what to wait for.
    static IS_TRACKING: Cell<bool> = const { Cell::new(false) };
}

/// This thread asks for what it wrote and saw, as long as this lives: a panic ends it as well.
struct Tracking {
    before: bool,
}

impl Drop for Tracking {
    fn drop(&mut self) {
        IS_TRACKING.set(self.before);
    }
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
    /// Who waits for the next change.
    pub(crate) sleepers: Arc<Sleepers>,
    /// How far replicas are, for whoever waits for them.
    pub(crate) acks: Acks,
    /// Until when a strict primary answers, and what.
    pub(crate) lease: Lease,
    /// Loads that one node does for all.
    pub(crate) desk: Desk,
    /// The largest item that the configuration allows.
    item_bytes_max: usize,
    /// The largest of those that replicas get.
    replicated_item_bytes_max: usize,
    /// A larger record is logged as a deletion.
    record_bytes_max: usize,
    log_bytes_max: usize,
    /// With which all items are among them, if there is such a size.
    sufficient_log_bytes: Option<usize>,
    /// Whether anybody is there to be told of reads.
    pub(crate) has_replicas: AtomicBool,
    /// By shard: hashes of items whose mark went from clear to set and found no room in the log; at most
    /// [`SHARD_HINTS_MAX`], collected by the driver.
    pub(crate) hints: Box<[Mutex<Vec<u64>>]>,
    /// The last record of a frame, whose seq was taken before it was applied: a bug put back.
    #[cfg(feature = "testing")]
    pub(crate) unapplied: Mutex<Option<Box<[u8]>>>,
}

/// Has the processor fetch where the log's next entry but one will lie.
#[inline(always)]
fn fetch_ahead(end_of_log: *const u8) {
    for line in LINES_AHEAD {
        prefetch_to_write(end_of_log.wrapping_add(line * CACHE_LINE_BYTES));
    }
}

impl Group {
    /// As the configuration says; `None` without replication.
    pub(super) fn new(config: &Config, shard_count: usize) -> Option<Group> {
        let log_bytes_max = config.log_bytes_max();
        let item_bytes_max = config.item_bytes_max;
        let replicated_item_bytes_max = config.replicated_item_bytes_max();
        let sufficient_log_bytes = config.sufficient_log_bytes();
        let clock = config.clock.clone();
        let config = config.replication.clone()?;
        let mut roles = Roles::new(&config);
        let mut log = Log::new(log_bytes_max);
        log.bugs = config.bugs;
        if roles.is_to_ask() {
            roles.begin_asking();
        } else if roles.role() == Role::Primary {
            let (term, branch, random) = roles.begin_as_primary();
            log.mint(term, branch, random, false);
        }
        let record_bytes_max = Log::record_bytes_max_of(log_bytes_max).min(config.frame_bytes_max / 2);
        Some(Group {
            gate: Mutex::new(()),
            roles: Mutex::new(roles),
            log: Mutex::new(log),
            settled_ms: AtomicU64::new(0),
            doorbell: Doorbell::default(),
            sleepers: Arc::default(),
            acks: Acks::new(config.ack_mode),
            lease: Lease::new(config.ack_mode.is_strict(), clock.lease_ms()),
            desk: Desk::new(config.frame_bytes_max),
            item_bytes_max,
            replicated_item_bytes_max,
            record_bytes_max,
            log_bytes_max,
            sufficient_log_bytes,
            has_replicas: AtomicBool::new(false),
            hints: (0..shard_count).map(|_| Mutex::default()).collect(),
            #[cfg(feature = "testing")]
            unapplied: Mutex::default(),
            config,
        })
    }

    /// Has the log say what the eviction pass of this shard has done, if somebody is being copied: before whatever is said
    /// of the shard next.
    #[inline]
    pub(super) fn log_passes(&self, shard: &mut Shard) {
        if shard.tells_passes() {
            self.log_all_passes(shard);
        }
    }

    #[cold]
    fn log_all_passes(&self, shard: &mut Shard) {
        let mut log = self.log.lock();
        // Where what has no seq has its share of the log already, the copy will differ a bit.
        for (hash, pass) in shard.take_passes() {
            log.append_pass(hash, pass);
        }
    }

    /// What a write waits for.
    pub(crate) fn ack_mode(&self) -> AckMode {
        match (self.acks.needed(), self.lease.is_strict()) {
            (replicas @ 1.., true) => AckMode::Strict { replicas },
            (replicas, _) => AckMode::of(replicas),
        }
    }

    pub(super) fn serving(&self) -> Serving {
        self.roles.lock().serving()
    }

    /// Where the primary is, for the error of a node that is not it.
    pub(super) fn primary_address(&self) -> Option<String> {
        self.roles.lock().primary_address()
    }

    pub(super) fn configured_item_bytes_max(&self) -> usize {
        self.item_bytes_max
    }

    /// The largest item that clients may store: where each write has to be acknowledged, one that fits the log.
    pub(super) fn item_bytes_max(&self) -> usize {
        match self.acks.needed() {
            0 => self.item_bytes_max,
            _ => self.replicated_item_bytes_max,
        }
    }

    /// Whether what a replica lacks is within the budget.
    pub(crate) fn affords(&self, risk: &Risk, now: Now) -> bool {
        let ReplicationConfig { unacked_ms_max, unacked_bytes_max, .. } = self.config;
        unacked_ms_max.is_none_or(|ms_max| risk.lag_ms(now.local_ms) <= ms_max)
            && unacked_bytes_max.is_none_or(|bytes_max| risk.lag_bytes() <= bytes_max)
    }

    /// Runs this as one who waits for what it writes and sees.
    pub(super) fn tracking<R>(run: impl FnOnce() -> R) -> R {
        let _tracking = Tracking { before: IS_TRACKING.replace(true) };
        run()
    }

    /// The version that whoever waits for this thread's operations waits for so far.
    pub(super) fn last_written() -> Version {
        Version(LAST_WRITTEN.get())
    }

    /// Whether a read may be answered by an item of this version on a node that reigns. One that is not acknowledged is for
    /// whoever waits for that: inside of [`Cache::track`].
    pub(super) fn may_show(&self, version: Version, lease_now_ms: impl FnOnce() -> u64) -> bool {
        if !self.lease.is_strict() {
            return true;
        }
        if !self.lease.is_held(lease_now_ms()) {
            self.lease.count_miss();
            return false;
        }
        if self.lease.has_acked(version.seq()) {
            return true;
        }
        if IS_TRACKING.get() {
            LAST_WRITTEN.set(LAST_WRITTEN.get().max(version.0));
            return true;
        }
        self.lease.count_unacked_miss();
        false
    }

    /// Whether a strict primary may write. Whoever waits for the write waits for all that it may have seen, too.
    pub(super) fn check_lease(&self, lease_now_ms: u64) -> Result<(), WriteError> {
        if !self.lease.is_held(lease_now_ms) {
            return Err(WriteError::NoLease);
        }
        let last = self.log.lock().last_version();
        LAST_WRITTEN.set(LAST_WRITTEN.get().max(last.0));
        Ok(())
    }

    /// Why writes are refused for want of replicas.
    pub(super) fn shortage(&self) -> WriteError {
        self.roles.lock().shortage()
    }

    /// The version that the next mutation will have.
    pub(super) fn next_version(&self) -> Version {
        self.log.lock().next_version()
    }

    /// [`Group::append`] of an item that has nothing but key and value.
    #[inline(never)]
    pub(super) fn append_plain(&self, key: &[u8], value: &[u8], marks: Marks) -> Version {
        if self.is_oversized(key.len() + value.len()) {
            let put = Mutation::Put { key, value, flags: 0, expires_at_ms: 0, marks, client_cas: None };
            return self.append(&put, &mut Vec::new());
        }
        let mut log = self.log.lock();
        let version = log.append_plain_put(key, value, marks);
        let end = log.end_address();
        drop(log);
        fetch_ahead(end);
        LAST_WRITTEN.set(version.0);
        version
    }

    fn is_oversized(&self, key_and_value_bytes: usize) -> bool {
        key_and_value_bytes + record::RECORD_HEAD_BYTES > self.record_bytes_max
    }

    /// [`Group::append`] of a put of a value that may lie in pieces. One that the log has room for is copied out for that.
    pub(super) fn append_in_pieces(
        &self,
        key: &[u8],
        value: Value<'_>,
        meta: Meta,
        scratch: &mut Vec<u8>,
    ) -> Version {
        let Meta { flags, expires_at_ms, marks, client_cas, .. } = meta;
        if self.is_oversized(key.len() + value.len()) {
            return self.append_fitting(&Mutation::Delete { key }, true, scratch);
        }
        let value = &value.to_vec();
        self.append(&Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas }, scratch)
    }

    /// Encodes and appends. A record too large for the log or a frame goes in as a deletion of its key.
    pub(super) fn append(&self, mutation: &Mutation<'_>, scratch: &mut Vec<u8>) -> Version {
        match mutation {
            Mutation::Put { key, value, .. } if self.is_oversized(key.len() + value.len()) => {
                self.append_fitting(&Mutation::Delete { key }, true, scratch)
            }
            fits => self.append_fitting(fits, false, scratch),
        }
    }

    /// [`Group::append`] of what fits, or of the deletion that stands for what does not.
    fn append_fitting(
        &self,
        mutation: &Mutation<'_>,
        stands_for_oversized: bool,
        scratch: &mut Vec<u8>,
    ) -> Version {
        scratch.clear();
        record::encode(mutation, scratch);
        let mut log = self.log.lock();
        log.oversized += u64::from(stands_for_oversized);
        let (_, version) = log.append(scratch);
        drop(log);
        LAST_WRITTEN.set(version.0);
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            *scratch = Vec::new();
        }
        version
    }

    /// Appends a record that says who loads a key; `None` where the log can't have one. Whoever waits for what this thread
    /// writes does not wait for it.
    pub(super) fn append_of_load(&self, mutation: &Mutation<'_>, scratch: &mut Vec<u8>) -> Option<Version> {
        scratch.clear();
        record::encode(mutation, scratch);
        let mut log = self.log.lock();
        let is_read_by_all = !log.has_old_reader || self.config.bugs.has(Bug::LentToOld);
        let fits = scratch.len() <= self.record_bytes_max && is_read_by_all;
        fits.then(|| log.append(scratch).1)
    }

    /// A bug put back: see `replication::bug`.
    #[inline]
    pub(super) fn leaves_absent_deletes_out(&self) -> bool {
        self.config.bugs.has(Bug::UnloggedAbsentDelete)
    }

    /// Wakes whoever ships the log, for a record that was appended.
    #[inline]
    pub(super) fn ring(&self) {
        self.doorbell.ring_for_record();
    }

    /// Wakes those who wait for changes; called with nothing locked.
    #[inline]
    pub(super) fn wake_subscribers(&self) {
        self.sleepers.wake();
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
        if !self.config.bugs.has(Bug::ReadsUntold) && !self.log.lock().append_mark(hash) {
            self.hint(shard, hash);
        }
    }

    /// Queues a hint; one too many is lost, as hints may be.
    pub(super) fn hint(&self, shard: usize, hash: u64) {
        let mut hints = self.hints[shard].lock();
        if hints.len() < SHARD_HINTS_MAX {
            hints.push(hash);
        }
    }
}

impl Drop for Group {
    /// Who waits for a change is told that there will be none.
    fn drop(&mut self) {
        self.sleepers.wake();
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
        let (mut status, (noted_seq, noted_ms)) = {
            let roles = group.roles.lock();
            (roles.status(&group.config), roles.replicas_noted)
        };
        let since_ms = self.local_now_ms().saturating_sub(noted_ms);
        let log = group.log.lock();
        status.seq = log.last_seq();
        for replica in &mut status.replicas {
            // Noted at the driver's last turn. What was written or has grown older since is at risk as well.
            replica.lag_seqs += status.seq.saturating_sub(noted_seq);
            if replica.lag_seqs > 0 {
                replica.lag_ms += since_ms;
            }
        }
        status.log_bytes = log.memory_bytes() as u64;
        status.log_bytes_max = group.log_bytes_max as u64;
        status.oversized_records = log.oversized;
        status.ack_mode = group.ack_mode();
        [status.loads_lent, status.loads_taken, status.loads_refused] = group.desk.counted();
        status.lease = group.lease.status(status.role == Role::Primary, self.inner.lease_now_ms());
        if status.role == Role::Replica {
            status.staleness_ms = group.stale_ms(self.now_ms());
        }
        status.warnings.extend(Warning::of_acks(&status));
        if let records @ 1.. = status.oversized_records {
            status.warnings.push(Warning::OversizedRecords {
                records,
                item_bytes_max: group.replicated_item_bytes_max as u64,
                sufficient_log_bytes: group.sufficient_log_bytes.map(|bytes| bytes as u64),
            });
        }
        status
    }
}
