//! Writes: under the key's shard lock, reserve memory, log, commit.
//!
//! Lives here: the one way that a client's change takes, and each public write in terms of it.
//! Not here: what concerns all keys (see `flush`), a primary's records on a replica (see `apply`).

use std::sync::atomic::Ordering;

use crate::config::MEMORY_BYTES_MIN;
use crate::error::{ConfigError, CounterError, WriteError};
use crate::mutation::{Attributes, KEY_BYTES_MAX, Mutation, Version};
use crate::serving::Serving;
use crate::storage::{
    Ahead, Cause, Footprint, ItemId, Meta, Moment, Place, ReserveError, Room, SeedId, ShardGuard, ShardMutex,
    item_bytes, prefetch_to_write,
};

use super::arithmetic::{self, Direction};
use super::latency::Timed;
use super::{Group, Inner, ShardCell, Swap, Watch, classes, is_inside_read};

/// How often a write asks other shards for memory before it gives up.
const SHORTAGE_ROUNDS_MAX: usize = 8;

/// [`Watch`], as a constant of a set's copies.
const NOBODY: u8 = Watch::Nobody as u8;
const IN_ORDER: u8 = Watch::InOrder as u8;
const ANYBODY: u8 = Watch::Anybody as u8;

/// How many pages a shard gives up at a time when the limit is lowered.
const PAGES_A_STEP: usize = 8;

/// Why an attempt under the shard's lock ended without its effect.
pub(crate) enum Refusal {
    /// Other shards hold the memory: ask them, then try again.
    Shortage { pages: usize },
    /// It can't be done.
    Error(WriteError),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Refusal::Error(error)
    }
}

/// A key's shard, locked for one write.
pub(crate) struct Locked<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) cell: ShardGuard<'a, ShardCell>,
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
    pub(crate) moment: Moment<'a>,
    /// The item that there was no room for.
    pub(super) refused: Option<Footprint>,
}

impl Locked<'_> {
    /// The live item. A dead one goes, so that it is not in the way; a remembered absence is none.
    pub(super) fn find_live(&mut self) -> Option<(ItemId, Meta)> {
        self.find_stored().filter(|(_, meta)| !meta.marks.is_absence())
    }

    /// The live item, or a remembered absence.
    pub(super) fn find_stored(&mut self) -> Option<(ItemId, Meta)> {
        let id = self.cell.shard.find(self.hash, self.key)?;
        if self.cell.shard.is_dead(id, self.moment) {
            self.cell.shard.remove_dead(self.hash, id, self.moment);
            return None;
        }
        classes::note_found(self.cell.shard.class_of(id));
        Some((id, self.cell.shard.meta(id)))
    }

    /// A touch needs room for an expiry only; it counts under the smallest class.
    fn count_no_memory(&mut self) {
        let class = self.refused.map_or(0, |footprint| self.inner.size_classes.class_of(footprint));
        self.cell.shard.count_no_memory(class);
    }

    /// Gives the mutation its version and, in a group, its place in the log.
    pub(crate) fn log(&mut self, mutation: &Mutation<'_>) -> Version {
        self.overtake_loads();
        self.inner.log_passes(&mut self.cell);
        let version = self.inner.log(mutation, &mut self.cell.scratch);
        self.inner.ring();
        version
    }

    /// Who loads this key may have read its source before this write.
    #[inline]
    pub(super) fn overtake_loads(&mut self) {
        if self.inner.flights_under_way.load(Ordering::Relaxed) != 0 {
            self.inner.overtake_loads(&mut self.cell, self.key, Version(u64::MAX));
        }
    }

    /// A value above the limit is refused before anybody looks whether the key is present (rule L3).
    pub(super) fn check_item_bytes(&mut self, value_bytes: usize) -> Result<(), Refusal> {
        let bytes = item_bytes(self.key.len(), value_bytes);
        if bytes <= self.inner.item_bytes_max.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.cell.too_large += 1;
        Err(self.inner.too_large(bytes).into())
    }

    /// Stores under a new version; that of `meta` does not matter.
    pub(super) fn put(&mut self, value: &[u8], meta: Meta) -> Result<Version, Refusal> {
        self.check_item_bytes(value.len())?;
        let bytes = item_bytes(self.key.len(), value.len());
        let footprint = Footprint::of(self.key.len(), value.len(), &meta);
        self.cell.shard.prefetch_for_store();
        match self.cell.shard.room_for(self.hash, self.key, footprint, self.moment) {
            Ok(room) => Ok(self.store(room, value, meta)),
            Err(error) => Err(self.no_room(footprint, bytes, error)),
        }
    }

    /// What follows where there is no room for an item of this footprint, whose header, key and value are `bytes`.
    pub(super) fn no_room(&mut self, footprint: Footprint, bytes: usize, error: ReserveError) -> Refusal {
        self.refused = Some(footprint);
        match error {
            ReserveError::Shortage { pages } => Refusal::Shortage { pages },
            ReserveError::OutOfMemory => WriteError::OutOfMemory { bytes }.into(),
        }
    }

    /// Stores in this room.
    #[inline(never)]
    fn store(&mut self, room: Room, value: &[u8], meta: Meta) -> Version {
        let at = self.inner.tables.look_ahead(self.hash);
        self.inner.store(&mut self.cell, at, self.key, room, value, meta)
    }

    pub(super) fn put_attributes(
        &mut self,
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Version, Refusal> {
        let expires_at_ms = attributes.expiry.deadline_ms(|| self.moment.now_ms());
        self.put(value, Meta::new(attributes.flags, expires_at_ms))
    }

    pub(super) fn remove(&mut self) -> bool {
        let found = self.find_stored();
        if found.is_none() && self.inner.group.as_ref().is_some_and(Group::leaves_absent_deletes_out) {
            return false;
        }
        self.log(&Mutation::Delete { key: self.key });
        if let Some((id, _)) = found {
            self.cell.shard.remove(self.hash, id, Cause::Removed);
        }
        found.is_some_and(|(_, meta)| !meta.marks.is_absence())
    }
}

/// Has the processor fetch the shard's busiest lines, all at once instead of one by one as they are needed.
#[inline(always)]
pub(super) fn prefetch_cell(cell: &ShardMutex<ShardCell>) {
    let cell: *const u8 = std::ptr::from_ref(cell).cast();
    prefetch_to_write(cell);
    prefetch_to_write(cell.wrapping_add(64));
}

impl Inner {
    /// Gives a mutation its version and, in a group, its place in the log.
    #[inline(never)]
    pub(super) fn log(&self, mutation: &Mutation<'_>, scratch: &mut Vec<u8>) -> Version {
        match &self.group {
            None => self.last_version.next(),
            Some(group) => group.append(mutation, scratch),
        }
    }

    /// Has the log say what the eviction pass did in this shard, for replicas that are being copied.
    #[inline(always)]
    pub(super) fn log_passes(&self, cell: &mut ShardCell) {
        if let Some(group) = &self.group {
            group.log_passes(&mut cell.shard);
        }
    }

    /// Stores an item in the room that its shard has for it.
    #[inline(always)]
    fn store(
        &self,
        cell: &mut ShardCell,
        at: Ahead,
        key: &[u8],
        room: Room,
        value: &[u8],
        meta: Meta,
    ) -> Version {
        let Meta { flags, expires_at_ms, client_cas, .. } = meta;
        if self.flights_under_way.load(Ordering::Relaxed) != 0 {
            self.overtake_loads(cell, key, Version(u64::MAX));
        }
        self.log_passes(cell);
        let ShardCell { shard, scratch, next_version, versions, .. } = cell;
        // Logged while the item's line is locked: a mark of the older item lies before it in the log, one of the new
        // item behind it.
        let publish = |marks| {
            if self.group.is_none() {
                return versions.give(next_version, &self.last_version, self.floors.highest());
            }
            next_version.count_store();
            self.log(&Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas }, scratch)
        };
        let version = match room {
            Room::Chunks(reservation) => {
                shard.commit_inline(reservation, at, key, value, meta, Place::New, publish)
            }
            Room::Item(item) => shard.overwrite(at.hash, item, key, value, meta, Place::New, publish),
        };
        self.ring();
        version
    }

    /// Wakes whoever ships the log.
    #[inline]
    pub(super) fn ring(&self) {
        if self.watch != Watch::Anybody {
            return;
        }
        if let Some(group) = &self.group {
            group.ring();
        }
    }

    /// Locks the key's shard and runs `attempt`; on a shortage, asks the other shards and runs it again.
    pub(crate) fn mutate<R>(
        &self,
        key: &[u8],
        attempt: impl FnMut(&mut Locked<'_>) -> Result<R, Refusal>,
    ) -> Result<R, WriteError> {
        match &self.latencies {
            None => self.mutate_untimed(key, attempt),
            Some(latencies) => latencies.time(Timed::Write, || self.mutate_untimed(key, attempt)),
        }
    }

    fn mutate_untimed<R>(
        &self,
        key: &[u8],
        mut attempt: impl FnMut(&mut Locked<'_>) -> Result<R, Refusal>,
    ) -> Result<R, WriteError> {
        if Inner::is_key_length_wrong(key) {
            return Err(WriteError::KeyLength { bytes: key.len(), bytes_max: KEY_BYTES_MAX });
        }
        if is_inside_read() {
            return Err(WriteError::InsideRead);
        }
        self.settle_flush();
        let mut rounds = 0;
        loop {
            let seed = self.hasher.seed();
            let hash = self.hasher.hash(key);
            prefetch_cell(self.cell(hash));
            self.tables.of(hash).prefetch_line(hash);
            let mut locked = Locked {
                inner: self,
                cell: self.cell(hash).lock(),
                key,
                hash,
                moment: self.moment(),
                refused: None,
            };
            self.check_writable()?;
            if self.hasher.seed() != seed {
                // A full copy came in between, and this node was promoted since.
                continue;
            }
            let before = Group::last_written();
            let outcome = attempt(&mut locked);
            self.check_answer(before)?;
            match outcome {
                Ok(done) => {
                    self.sweep_a_bit(&mut locked.cell);
                    drop(locked);
                    self.tell_events();
                    return Ok(done);
                }
                Err(Refusal::Error(error)) => {
                    if matches!(error, WriteError::OutOfMemory { .. }) {
                        locked.count_no_memory();
                    }
                    drop(locked);
                    self.tell_events();
                    return Err(error);
                }
                Err(Refusal::Shortage { .. }) if rounds == SHORTAGE_ROUNDS_MAX => {
                    locked.count_no_memory();
                    return Err(WriteError::OutOfMemory { bytes: 0 });
                }
                Err(Refusal::Shortage { pages }) => {
                    drop(locked);
                    rounds += 1;
                    self.collect_pages(hash, pages);
                }
            }
        }
    }

    pub(super) fn check_writable(&self) -> Result<(), WriteError> {
        match self.serving() {
            Serving::All => Ok(()),
            Serving::Leased => {
                self.group.as_ref().map_or(Ok(()), |group| group.check_lease(self.lease_now_ms()))
            }
            Serving::Reads | Serving::Replica => Err(WriteError::Replica { primary: self.primary_address() }),
            Serving::Fenced => Err(WriteError::Fenced { primary: self.primary_address() }),
            Serving::Unguarded => {
                let nobody = WriteError::NotEnoughReplicas { level: 0, needed: 0 };
                Err(self.group.as_ref().map_or(nobody, Group::shortage))
            }
        }
    }

    /// Whether what an operation saw, which has written nothing since `before`, may be answered by a strict primary: as a read,
    /// it asks for its lease behind its look at the item. The process may have been stopped in between.
    #[inline]
    fn check_answer(&self, before: Version) -> Result<(), WriteError> {
        match self.serving() {
            Serving::Leased if Group::last_written() == before => self.check_writable(),
            _ => Ok(()),
        }
    }

    /// Has the other shards evict until `pages` pages have come back to the pool. The first asked is the one behind
    /// the needy one, so that the burden goes round.
    pub(crate) fn collect_pages(&self, hash: u64, pages: usize) {
        let count = self.shards.len();
        let needy = self.shard_number(hash);
        let mut missing = pages;
        for step in 1..count {
            if missing == 0 {
                return;
            }
            let mut cell = self.shards[(needy + step) % count].lock();
            let moment = self.moment();
            missing = missing.saturating_sub(cell.shard.surrender_pages(missing, moment));
            self.log_passes(&mut cell);
        }
    }

    /// That an item of so many bytes is too large.
    #[cold]
    pub(super) fn too_large(&self, bytes: usize) -> WriteError {
        let bytes_max = self.item_bytes_max.load(Ordering::Relaxed);
        let is_of_log =
            self.group.as_ref().is_some_and(|group| bytes_max < group.configured_item_bytes_max());
        WriteError::ItemTooLarge { bytes, bytes_max, is_of_log }
    }

    pub(crate) fn resize(&self, bytes: usize) -> Result<(), ConfigError> {
        if bytes < MEMORY_BYTES_MIN {
            return Err(ConfigError::MemoryTooSmall { bytes, bytes_min: MEMORY_BYTES_MIN });
        }
        let item_bytes_max = self.item_bytes_max.load(Ordering::Relaxed);
        if item_bytes_max > bytes / 2 {
            return Err(ConfigError::ItemTooLarge { bytes: item_bytes_max, bytes_max: bytes / 2 });
        }
        self.pool
            .set_memory_bytes_max(bytes)
            .map_err(|refused| ConfigError::MemoryTooLarge { bytes, bytes_max: refused.bytes_max })?;
        self.shards.iter().for_each(|cell| cell.lock().shard.unsettle());
        self.fit_unfinished();
        // Round by round, so that all shards give about the same, until there is no excess or nothing may leave.
        let mut surrendered = 1;
        while surrendered > 0 {
            surrendered = 0;
            for cell in &self.shards {
                let pages = self.pool.excess_pages().min(PAGES_A_STEP);
                if pages == 0 {
                    return Ok(());
                }
                let mut cell = cell.lock();
                surrendered += cell.shard.surrender_pages(pages, self.moment());
                self.log_passes(&mut cell);
                drop(cell);
                self.tell_events();
            }
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn set(
        &self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Version, WriteError> {
        if self.is_special {
            return self.set_anyway(key, value, attributes);
        }
        match self.set_hashed(self.hasher.hash_and_seed(key), key, value, attributes) {
            Some(version) => Ok(version),
            None => self.set_anyway(key, value, attributes),
        }
    }

    /// [`Inner::set`] of a key with this hash, under this seed, in a cache that is not special, as far as that is simple; else
    /// nothing is stored, and it is to be set anyway.
    #[inline]
    pub(super) fn set_hashed(
        &self,
        hash: (u64, SeedId),
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Option<Version> {
        match self.watch {
            Watch::Nobody if attributes.are_none() => self.set_unwatched(hash, key, value),
            Watch::InOrder if attributes.are_none() => self.set_in_order(hash, key, value),
            _ => self.set_at_once(hash, key, value, attributes),
        }
    }

    /// The common case of a set: a primary without an appointment stores an item of one chunk in one go. Does nothing
    /// (but make room) and gives `None` where it is not so simple; everything is checked anew then.
    #[inline(always)]
    fn set_in_one_go<const WATCH: u8>(
        &self,
        (hash, seed): (u64, SeedId),
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Option<Version> {
        if Inner::is_key_length_wrong(key) || is_inside_read() {
            return None;
        }
        let cell = self.cell(hash);
        prefetch_cell(cell);
        let at = self.tables.look_ahead(hash);
        let mut cell = cell.lock();
        // A change of role sets its bit, then passes through this lock.
        let is_plain = self.attention.load(Ordering::Acquire) == 0 && self.hasher.is_seed(seed);
        if !is_plain || item_bytes(key.len(), value.len()) > self.item_bytes_max.load(Ordering::Relaxed) {
            return None;
        }
        cell.shard.prefetch_for_store();
        let traded = match attributes.are_none() {
            true => self.trade::<WATCH>(&mut cell, at, key, value),
            false => None,
        };
        let version = match traded {
            Some(version) => version,
            None => self.set_in_room(&mut cell, hash, key, value, attributes)?,
        };
        self.sweep_a_bit(&mut cell);
        drop(cell);
        match WATCH {
            NOBODY => {}
            IN_ORDER => self.tell_listener(),
            _ => self.tell_events(),
        }
        Some(version)
    }

    /// [`Inner::set_in_one_go`] of an item that has nothing but key and value, where it takes the place of the one that leaves.
    #[inline(always)]
    fn trade<const WATCH: u8>(
        &self,
        cell: &mut ShardCell,
        at: Ahead,
        key: &[u8],
        value: &[u8],
    ) -> Option<Version> {
        if self.flights_under_way.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let ShardCell { shard, next_version, versions, .. } = cell;
        let floor = self.floors.highest();
        if self.is_accounting {
            shard.note_second(self.access_s());
        }
        if WATCH == NOBODY {
            let version = versions.next(next_version, &self.last_version, floor);
            shard.trade(at, key, value, floor, |_| version)?;
            next_version.count_store();
            return Some(version);
        }
        if WATCH == IN_ORDER {
            // Taken ahead, a version that is not used would be a later store's.
            let version = shard.trade(at, key, value, floor, |_| self.last_version.next())?;
            next_version.count_store();
            return Some(version);
        }
        if shard.tells_passes()
            && let Some(group) = &self.group
        {
            // What was passed by before this store lies before it. (No trade is begun where somebody is to be told of what
            // leaves for it.)
            group.log_passes(shard);
        }
        let Some(group) = &self.group else {
            return shard
                .trade(at, key, value, floor, |_| versions.give(next_version, &self.last_version, floor));
        };
        let version = shard.trade(at, key, value, floor, |marks| {
            next_version.count_store();
            group.append_plain(key, value, marks)
        })?;
        group.ring();
        Some(version)
    }

    /// [`Inner::set_in_one_go`] of an item of any kind.
    #[inline(never)]
    fn set_in_room(
        &self,
        cell: &mut ShardCell,
        hash: u64,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Option<Version> {
        let at = self.tables.look_ahead(hash);
        let meta = Meta::new(attributes.flags, attributes.expiry.deadline_ms(|| self.now_ms()));
        let footprint = Footprint::of(key.len(), value.len(), &meta);
        let room = cell.shard.room_at_once(hash, key, footprint, self.moment())?;
        Some(self.store(cell, at, key, room, value, meta))
    }

    /// [`Inner::set_in_one_go`] of any item of any cache.
    fn set_at_once(
        &self,
        hash: (u64, SeedId),
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Option<Version> {
        self.set_in_one_go::<ANYBODY>(hash, key, value, attributes)
    }

    /// [`Inner::set_in_one_go`] of an item that has nothing but key and value, of a cache that has neither listener nor group
    /// and keeps no order of versions.
    fn set_unwatched(&self, hash: (u64, SeedId), key: &[u8], value: &[u8]) -> Option<Version> {
        self.set_in_one_go::<NOBODY>(hash, key, value, Attributes::NONE)
    }

    /// [`Inner::set_in_one_go`] of such an item, of a cache in no group whose versions are in order.
    fn set_in_order(&self, hash: (u64, SeedId), key: &[u8], value: &[u8]) -> Option<Version> {
        self.set_in_one_go::<IN_ORDER>(hash, key, value, Attributes::NONE)
    }

    #[cold]
    pub(super) fn set_anyway(
        &self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Version, WriteError> {
        self.store_anyway(key, value.len(), |locked| locked.put_attributes(value, attributes))
    }

    /// Has `put` store a value of this length; a failure of it takes an older item along (rule L5).
    pub(super) fn store_anyway(
        &self,
        key: &[u8],
        value_bytes: usize,
        put: impl FnMut(&mut Locked<'_>) -> Result<Version, Refusal>,
    ) -> Result<Version, WriteError> {
        let outcome = self.mutate(key, put);
        let bytes = item_bytes(key.len(), value_bytes);
        match outcome {
            Err(WriteError::ItemTooLarge { .. }) => {
                self.mutate(key, |locked| Ok(locked.remove()))?;
            }
            Err(WriteError::OutOfMemory { .. }) => {
                self.mutate(key, |locked| Ok(locked.remove()))?;
                return Err(WriteError::OutOfMemory { bytes });
            }
            _ => {}
        }
        outcome
    }

    pub(crate) fn add(
        &self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Option<Version>, WriteError> {
        self.store_if_absent(key, value.len(), |locked| locked.put_attributes(value, attributes))
    }

    pub(super) fn store_if_absent(
        &self,
        key: &[u8],
        value_bytes: usize,
        mut put: impl FnMut(&mut Locked<'_>) -> Result<Version, Refusal>,
    ) -> Result<Option<Version>, WriteError> {
        self.mutate(key, |locked| {
            locked.check_item_bytes(value_bytes)?;
            match locked.find_live() {
                Some((id, _)) => {
                    self.mark(&mut locked.cell, id, locked.hash, |marks| marks.hit(self.hits_max));
                    Ok(None)
                }
                None => put(locked).map(Some),
            }
        })
    }

    pub(crate) fn replace(
        &self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Option<Version>, WriteError> {
        self.store_if_present(key, value.len(), |locked| locked.put_attributes(value, attributes))
    }

    pub(super) fn store_if_present(
        &self,
        key: &[u8],
        value_bytes: usize,
        mut put: impl FnMut(&mut Locked<'_>) -> Result<Version, Refusal>,
    ) -> Result<Option<Version>, WriteError> {
        self.mutate(key, |locked| {
            locked.check_item_bytes(value_bytes)?;
            match locked.find_live() {
                Some(_) => put(locked).map(Some),
                None => Ok(None),
            }
        })
    }

    pub(super) fn check_value_bytes(&self, key: &[u8], value_bytes: usize) -> Result<(), WriteError> {
        self.mutate(key, |locked| locked.check_item_bytes(value_bytes))
    }

    pub(crate) fn extend(
        &self,
        key: &[u8],
        prefix: &[u8],
        suffix: &[u8],
    ) -> Result<Option<Version>, WriteError> {
        self.mutate(key, |locked| {
            let added_bytes = prefix.len() + suffix.len();
            locked.check_item_bytes(added_bytes)?;
            let Some((id, meta)) = locked.find_live() else { return Ok(None) };
            let old_bytes = locked.cell.shard.value(id).len();
            locked.check_item_bytes(old_bytes + added_bytes)?;
            let old = locked.cell.shard.value(id);
            let mut value = Vec::with_capacity(prefix.len() + old.len() + suffix.len());
            value.extend_from_slice(prefix);
            old.append_to(&mut value);
            value.extend_from_slice(suffix);
            locked.put(&value, meta.of_changed()).map(Some)
        })
    }

    pub(crate) fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Version,
        value: &[u8],
        attributes: Attributes,
    ) -> Result<Swap, WriteError> {
        let put = |locked: &mut Locked<'_>| locked.put_attributes(value, attributes);
        self.store_if_unchanged(key, expected, value.len(), put)
    }

    pub(super) fn store_if_unchanged(
        &self,
        key: &[u8],
        expected: Version,
        value_bytes: usize,
        mut put: impl FnMut(&mut Locked<'_>) -> Result<Version, Refusal>,
    ) -> Result<Swap, WriteError> {
        self.mutate(key, |locked| {
            locked.check_item_bytes(value_bytes)?;
            match locked.find_live() {
                None => Ok(Swap::NotFound),
                Some((_, meta)) if meta.cas() != expected.0 => Ok(Swap::Exists),
                Some(_) => put(locked).map(Swap::Stored),
            }
        })
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool, WriteError> {
        self.mutate(key, |locked| Ok(locked.remove()))
    }

    pub(crate) fn count(
        &self,
        key: &[u8],
        direction: Direction,
        delta: u64,
    ) -> Result<Option<u64>, CounterError> {
        let outcome = self.mutate(key, |locked| {
            let Some((id, meta)) = locked.find_live() else { return Ok(Ok(None)) };
            let old = locked.cell.shard.value(id);
            let Some(number) = old.as_slice().and_then(arithmetic::parse) else {
                return Ok(Err(CounterError::NotANumber));
            };
            let number = arithmetic::step(number, direction, delta);
            let text = arithmetic::text(number, old.len());
            // As memcached has it, a number written in place leaves the item's marks: one that was stale is not less so.
            let is_in_place = text.len() == old.len();
            let meta = if is_in_place { Meta { client_cas: None, ..meta } } else { meta.of_changed() };
            locked.put(&text, Meta { marks: meta.marks.hit(locked.inner.hits_max), ..meta })?;
            Ok(Ok(Some(number)))
        });
        outcome?
    }
}
