//! A replica's side of the cache.
//!
//! Lives here: applying records and chunks, marks by hash. Not here: when any of it happens (see
//! `replication::{primary, replica}` and `driver`), what is read out for replicas (see `copies`).
//!
//! A replica sweeps as well, or it would evict live items for the sake of dead ones that its primary has swept. But an
//! item that has expired may have been touched in time, by a record that is still on its way: so expired items leave
//! only once the primary has said, by the end of its log at a moment behind their deadline, that nothing is.
//!
//! Whoever applies holds the gate. A position moves (the log grows) only after the record has been applied, under
//! the same shard's lock.

mod ahead;

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::clock::Millis;
use crate::mutation::{Marks, Mutation, Version};
use crate::replication::bug::Bug;
use crate::replication::install::Item;
use crate::replication::log::WholeShard;
use crate::replication::message::{Append, ChunkItem, ChunkKind, Ghosts, InstallBegin, from_wire};
use crate::replication::record;
use crate::storage::{Cause, Footprint, Meta, Moment, Place, ReserveError, Room};

use super::copies::copy_out;
use super::{Group, Inner, LoadLease, ShardCell};
use ahead::Read;

/// How often an applied item asks other shards for memory before its key is dropped.
const SHORTAGE_ROUNDS_MAX: usize = 8;

/// For how long a replica keeps what has expired, by its own clock: another primary's may be behind it.
const EXPIRED_KEPT_MS: u64 = 250;

/// The records do not follow what this node holds, or are malformed: the link closes and resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfStep;

/// Looks up the version of the item that a key has now.
pub(super) type Present<'a> = &'a dyn Fn() -> Option<Version>;

impl Inner {
    /// Applies records and marks that follow this node's position; stops at the first that can't be read. Gives the
    /// hashes of marked items that are not here.
    pub(crate) fn apply_append(&self, group: &Group, append: &Append<'_>) -> Result<Vec<u64>, OutOfStep> {
        {
            let log = group.log.lock();
            let in_step = log.position() == Some(append.prev()) && log.lineage().term().0 == append.term;
            if !in_step && !group.config.bugs.has(Bug::AppendWithoutBranch) {
                return Err(OutOfStep);
            }
        }
        #[cfg(feature = "testing")]
        if let Some(late) = group.unapplied.lock().take() {
            self.apply_unapplied(group, &late);
        }
        let mut missing = Vec::new();
        let mut version = group.log.lock().next_version();
        for read in self.read_ahead(append.records) {
            match read? {
                Read::Record { mutation, hash, bytes } => {
                    #[cfg(feature = "testing")]
                    if group.config.bugs.has(Bug::PositionBeforeApply) && append.records.ends_with(bytes) {
                        *group.unapplied.lock() = Some(bytes.into());
                        version = group.log.lock().append(bytes).1.next();
                        continue;
                    }
                    self.apply_record(group, (version, bytes), &mutation, hash);
                    version = version.next();
                }
                Read::Mark(hash) => {
                    // At its place, for this node's own replicas; where the log has its share of marks it is lost.
                    if group.has_replicas.load(Ordering::Relaxed) {
                        group.log.lock().append_mark(hash);
                    }
                    if !self.mark_by_hash(hash) {
                        missing.push(hash);
                    }
                }
                Read::Pass { hash, pass } => {
                    self.cell(hash).lock().shard.follow_pass(hash, pass);
                }
                Read::Whole(whole) => self.end_following(group, whole),
            }
        }
        Ok(missing)
    }

    /// Takes over what a shard of the primary's remembers of evicted items.
    pub(crate) fn apply_ghosts(&self, ghosts: &Ghosts) -> Result<(), OutOfStep> {
        if usize::from(ghosts.shards) != self.shards.len() {
            return Ok(());
        }
        let cell = self.shards.get(usize::from(ghosts.shard)).ok_or(OutOfStep)?;
        let (first, lines) = (ghosts.first as usize, ghosts.lines as usize);
        match cell.lock().shard.remember_ghosts(first, lines, &ghosts.fingerprints) {
            true => Ok(()),
            false => Err(OutOfStep),
        }
    }

    /// This node may have a whole shard now, and goes on evicting there by itself.
    fn end_following(&self, group: &Group, whole: WholeShard) {
        let is_meant = whole.slot == group.roles.lock().slot;
        if !is_meant || usize::from(whole.shards) != self.shards.len() {
            return;
        }
        if let Some(cell) = self.shards.get(usize::from(whole.shard)) {
            cell.lock().shard.end_following(whole.owed_bytes);
        }
    }

    /// Applies the record whose seq was taken before.
    #[cfg(feature = "testing")]
    fn apply_unapplied(&self, group: &Group, bytes: &[u8]) {
        let Ok(mutation) = record::decode(bytes) else { return };
        let last = group.log.lock().position().map_or(0, |position| position.seq);
        let version = Version::new(group.log.lock().lineage().term().0, last);
        match mutation {
            Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas } => {
                let meta = Meta { version, flags, expires_at_ms, marks, client_cas };
                let hash = self.hasher.hash(key);
                self.store_or_drop((hash, key), value, meta, Place::Hot, |_| true, |_| ());
            }
            Mutation::Touch { key, version, expires_at_ms } => {
                self.touch_or_drop((self.hasher.hash(key), key), version, expires_at_ms, |_, _| ());
            }
            Mutation::Delete { key } => {
                let hash = self.hasher.hash(key);
                let mut cell = self.cell(hash).lock();
                if let Some(id) = cell.shard.find(hash, key) {
                    cell.shard.remove(hash, id, Cause::Removed);
                }
            }
            Mutation::Flush | Mutation::FlushAt { .. } | Mutation::FlushPrefix { .. } => {
                let _first_shard = self.shards[0].lock();
                self.carry_out_for_all(&mutation, version);
            }
            Mutation::LendLoad { .. } | Mutation::EndLoad { .. } => {}
        }
    }

    /// Applies the record of this version, these bytes; `hash` is that of its key, if it has one.
    fn apply_record(
        &self,
        group: &Group,
        (version, bytes): (Version, &[u8]),
        mutation: &Mutation<'_>,
        hash: u64,
    ) {
        match *mutation {
            Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas } => {
                let meta = Meta { version, flags, expires_at_ms, marks, client_cas };
                self.store_or_drop(
                    (hash, key),
                    value,
                    meta,
                    Place::Hot,
                    |_| true,
                    |cell| self.finish_record(group, cell, bytes, version),
                );
            }
            Mutation::Touch { key, version: touched, expires_at_ms } => {
                self.touch_or_drop((hash, key), touched, expires_at_ms, |cell, had_expired| {
                    self.overtake_loads(cell, key, version);
                    self.finish_record(group, cell, bytes, version);
                    if had_expired {
                        // Touched in time, and dead here until the record came: who went through the cache meanwhile has
                        // not seen it.
                        self.note_fill(group, cell, key, touched);
                    }
                });
            }
            Mutation::Delete { key } => {
                let mut cell = self.cell(hash).lock();
                self.overtake_loads(&mut cell, key, version);
                if let Some(id) = cell.shard.find(hash, key) {
                    cell.shard.remove(hash, id, Cause::Removed);
                }
                self.finish_record(group, &mut cell, bytes, version);
            }
            Mutation::Flush | Mutation::FlushAt { .. } | Mutation::FlushPrefix { .. } => {
                let _first_shard = self.shards[0].lock();
                self.carry_out_for_all(mutation, version);
                append(group, bytes, version);
            }
            Mutation::LendLoad { key, node, until_ms, is_primarys } => {
                let mut cell = self.cell(hash).lock();
                self.note_lease(&mut cell, key, LoadLease { node, version, until_ms, is_primarys });
                self.finish_record(group, &mut cell, bytes, version);
            }
            Mutation::EndLoad { key } => {
                let mut cell = self.cell(hash).lock();
                self.note_lease_end(&mut cell, key);
                self.finish_record(group, &mut cell, bytes, version);
            }
        }
    }

    /// A record was applied under this lock: the position moves, and a bit of the dead leaves.
    fn finish_record(&self, group: &Group, cell: &mut ShardCell, bytes: &[u8], version: Version) {
        group.log_passes(&mut cell.shard);
        append(group, bytes, version);
        if cell.shard.is_sweep_wanted(&self.floors) {
            let as_of_ms = self.settled_as_of_ms(group);
            cell.shard.sweep_a_bit(Moment { clock: &as_of_ms, floors: &self.floors });
        }
    }

    /// What had expired by this moment is dead for good on a replica: no touch of it is on its way.
    fn settled_as_of_ms(&self, group: &Group) -> Millis {
        group.settled_ms.load(Ordering::Relaxed).min(self.now_ms().saturating_sub(EXPIRED_KEPT_MS))
    }

    /// As of when the dead are left out of what is sent.
    pub(super) fn sent_as_of_ms(&self) -> Millis {
        match &self.group {
            Some(group) if !self.serving().reigns() => self.settled_as_of_ms(group),
            _ => self.now_ms(),
        }
    }

    /// Stores an item of the primary's, if `wanted` says so, which can look up the version that is there; if memory can't be had
    /// the key is dropped, since an older value must not stay. `then` runs under the same lock. The key comes behind its hash.
    pub(super) fn store_or_drop(
        &self,
        (hash, key): (u64, &[u8]),
        value: &[u8],
        meta: Meta,
        place: Place,
        wanted: impl Fn(Present<'_>) -> bool,
        then: impl FnOnce(&mut ShardCell),
    ) {
        for round in 0..=SHORTAGE_ROUNDS_MAX {
            let mut cell = self.cell(hash).lock();
            self.overtake_loads(&mut cell, key, meta.version);
            let present = || cell.shard.find(hash, key).map(|id| cell.shard.meta(id).version);
            if !wanted(&present) {
                return then(&mut cell);
            }
            let footprint = Footprint::of(key.len(), value.len(), &meta);
            let (shard, moment, publish) = (&mut cell.shard, self.moment(), |_| meta.version);
            let room = match place {
                Place::Install => shard.reserve(hash, footprint, moment).map(Room::Chunks),
                Place::New | Place::Hot => shard.room_for(hash, key, footprint, moment),
            };
            match room {
                Ok(Room::Chunks(reservation)) => {
                    shard.commit(reservation, hash, key, value, meta, place, publish);
                    return then(&mut cell);
                }
                Ok(Room::Item(item)) => {
                    shard.overwrite(hash, item, key, value, meta, place, publish);
                    return then(&mut cell);
                }
                Err(ReserveError::Shortage { pages }) if round < SHORTAGE_ROUNDS_MAX => {
                    drop(cell);
                    self.collect_pages(hash, pages);
                }
                Err(_) => {
                    // The failed reservation may have evicted or moved it: look again.
                    if let Some(id) = cell.shard.find(hash, key) {
                        cell.shard.remove(hash, id, Cause::Evicted);
                    }
                    return then(&mut cell);
                }
            }
        }
    }

    /// Gives the item of this version another expiry; if memory for it can't be had the key is dropped. `then` runs
    /// under the same lock, and is told whether the item had expired.
    fn touch_or_drop(
        &self,
        (hash, key): (u64, &[u8]),
        touched: Version,
        expires_at_ms: u64,
        then: impl FnOnce(&mut ShardCell, bool),
    ) {
        for round in 0..=SHORTAGE_ROUNDS_MAX {
            let mut cell = self.cell(hash).lock();
            let Some(id) = cell.shard.find(hash, key).filter(|id| cell.shard.meta(*id).version == touched)
            else {
                return then(&mut cell, false);
            };
            if expires_at_ms == 0 && cell.shard.meta(id).marks.is_absence() {
                // No primary says so: an absence that never expired would be shown as a value.
                cell.shard.remove(hash, id, Cause::Removed);
                return then(&mut cell, false);
            }
            let expired_at_ms = cell.shard.meta(id).expires_at_ms;
            let had_expired = expired_at_ms != 0 && expired_at_ms <= self.now_ms();
            match cell.shard.set_expiry(hash, id, expires_at_ms, self.moment()) {
                Ok(_) => return then(&mut cell, had_expired),
                Err(ReserveError::Shortage { pages }) if round < SHORTAGE_ROUNDS_MAX => {
                    drop(cell);
                    self.collect_pages(hash, pages);
                }
                Err(_) => {
                    if let Some(id) = cell.shard.find(hash, key) {
                        cell.shard.remove(hash, id, Cause::Evicted);
                    }
                    return then(&mut cell, false);
                }
            }
        }
    }

    /// Drops the items of one shard that has any, and gives its memory up: with most of the items small, a GiB of them all takes
    /// a third of a second, and a peer that hears nothing for two gives the link up. Whether all shards are empty.
    pub(crate) fn clear_some(&self) -> bool {
        let mut filled = self.shards.iter().filter(|cell| cell.lock().shard.page_count() > 0);
        if let Some(cell) = filled.next() {
            cell.lock().shard.clear();
        }
        filled.next().is_none()
    }

    /// Drops everything that is left and takes the primary's history and flushes as they were when the install began.
    pub(crate) fn begin_install(
        &self,
        group: &Group,
        begin: &InstallBegin,
        hash_seed: u64,
    ) -> Result<(), OutOfStep> {
        let lineage = from_wire(begin.lineage.clone()).map_err(|_| OutOfStep)?;
        for cell in &self.shards {
            cell.lock().shard.clear();
        }
        for hints in &group.hints {
            hints.lock().clear();
        }
        if self.hasher.set_seed(hash_seed).is_err() {
            tracing::error!("this cache has followed too many groups: restart the node");
            return Err(OutOfStep);
        }
        for cell in &self.shards {
            let mut cell = cell.lock();
            cell.shard.install_begin();
            // Under another seed they would be looked for in other shards.
            self.forget_loads(&mut cell);
        }
        let prefixes = begin.prefix_floors.iter();
        self.floors.restart(
            Version(begin.flush_floor),
            prefixes.map(|entry| (entry.prefix.as_slice().into(), Version(entry.floor))),
        );
        self.set_flush_at(begin.flush_at_ms);
        group.log.lock().restart(lineage);
        Ok(())
    }

    /// Stores items as they are at this node's position. What the log has brought is newer and stays; what a flush has made
    /// dead by now is left out.
    pub(crate) fn apply_chunk(
        &self,
        group: &Group,
        kind: ChunkKind,
        items: &[ChunkItem<'_>],
    ) -> Result<(), OutOfStep> {
        for item in items {
            if item.key.is_empty() || item.key.len() > crate::mutation::KEY_BYTES_MAX {
                return Err(OutOfStep);
            }
            let meta = Meta {
                version: Version(item.version),
                flags: item.flags,
                expires_at_ms: item.expires_at_ms,
                marks: Marks(item.marks),
                client_cas: item.client_cas,
            };
            if !meta.marks.fit(item.value.len() as u64, meta.flags, meta.expires_at_ms, meta.client_cas) {
                return Err(OutOfStep);
            }
            if self.floors.is_flushed(meta.version, || item.key) {
                continue;
            }
            let place = match kind {
                ChunkKind::Install => Place::Install,
                ChunkKind::Refill => Place::Hot,
            };
            let was_here = Cell::new(false);
            let wanted = |present: Present<'_>| {
                let present = present();
                was_here.set(present == Some(meta.version));
                present.is_none_or(|version| version < meta.version)
            };
            let key = (self.hasher.hash(item.key), item.key);
            self.store_or_drop(key, item.value, meta, place, wanted, |cell| match kind {
                ChunkKind::Refill => self.note_fill(group, cell, item.key, meta.version),
                ChunkKind::Install if was_here.get() => self.install_again(cell, item.key, meta.marks),
                ChunkKind::Install => {}
            });
        }
        Ok(())
    }

    /// An item that the log, or the copy, had brought before goes where the copy has got to, as it lies there on the primary.
    fn install_again(&self, cell: &mut ShardCell, key: &[u8], marks: Marks) {
        let hash = self.hasher.hash(key);
        if let Some(id) = cell.shard.find(hash, key) {
            cell.shard.install_again(hash, id, marks);
        }
    }

    /// Tells those who follow this node's changes of an item that it shows although no record of the log put it there.
    fn note_fill(&self, group: &Group, cell: &ShardCell, key: &[u8], version: Version) {
        let stored = cell.shard.find(self.hasher.hash(key), key);
        let Some(id) = stored.filter(|id| cell.shard.meta(*id).version == version) else { return };
        let mut log = group.log.lock();
        let at_seq = log.last_seq();
        log.fills.note(at_seq, version, || {
            let Item { value, flags, expires_at_ms, marks, client_cas, .. } = copy_out(&cell.shard, id);
            let mut record = Vec::new();
            let value = value.as_slice();
            record::encode(
                &Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas },
                &mut record,
            );
            record
        });
    }

    /// Marks end the place where chunks went in.
    pub(crate) fn end_install(&self) {
        for cell in &self.shards {
            cell.lock().shard.install_end();
        }
    }

    /// Counts a read of the item of this hash, as the log tells of it; whether the item is here.
    fn mark_by_hash(&self, hash: u64) -> bool {
        self.change_marks(hash, |marks| marks.read(self.hits_max))
    }

    /// Sees to it that the item of this hash has a hit: a hint may come twice. Whether the item is here.
    pub(crate) fn hint_by_hash(&self, hash: u64) -> bool {
        self.change_marks(hash, |marks| if marks.hits() == 0 { marks.read(self.hits_max) } else { marks })
    }

    fn change_marks(&self, hash: u64, change: impl FnOnce(Marks) -> Marks) -> bool {
        let mut cell = self.cell(hash).lock();
        let Some(id) = cell.shard.find_by_hash(hash) else { return false };
        cell.shard.mark(hash, id, change);
        self.note_access(&mut cell, id);
        true
    }

    /// Queues the primary's hints for this node's own replicas.
    pub(crate) fn pass_hints_on(&self, hashes: &[u64]) {
        let Some(group) = &self.group else { return };
        if group.has_replicas.load(Ordering::Relaxed) {
            hashes.iter().for_each(|hash| group.hint(self.shard_number(*hash), *hash));
        }
    }

    /// Takes the hashes whose marks were set since the last call.
    pub(crate) fn take_hints(&self) -> Vec<u64> {
        let mut taken = Vec::new();
        for hints in self.group.iter().flat_map(|group| &group.hints) {
            taken.append(&mut hints.lock());
        }
        taken
    }
}

fn append(group: &Group, bytes: &[u8], version: Version) {
    let (_, appended) = group.log.lock().append(bytes);
    assert_eq!(appended, version, "only the holder of the gate appends on a replica");
}
