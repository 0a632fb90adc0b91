//! Reads: find, check that the item lives, mark it, run the reader in place.
//!
//! Lives here: what a hit does and counts. Not here: which item is evicted (see `storage`), what a hint does (see
//! `replication::primary`).
//!
//! A read locks the item's index line, not its shard. What a hit touches: the line (locked), the item, and, if its
//! mark was clear, the item's header; besides that its own thread's counters.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::clock::Millis;
use crate::error::{ReadError, WriteError};
use crate::mutation::{Expiry, KEY_BYTES_MAX, Marks, Mutation, Version};
use crate::serving::Serving;
use crate::storage::{HeldItem, ItemId, Look, Meta, NotedItem, Now, ReserveError, whole_seconds};

use super::counters::{HereStripe, ReadOutcome, ReadingHere, is_inside_read};
use super::latency::Timed;
use super::write::Refusal;
use super::{Cache, Inner, ItemRef, ItemState, ShardCell};

/// How many keys of a read of many are looked up ahead: more than a processor has misses under way at once.
pub(super) const BATCH: usize = 16;

/// How many reads before its own an item of a read of many is fetched ahead; its line is [`BATCH`] reads before.
const ITEM_LEAD: usize = 8;

impl Inner {
    #[inline(always)]
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        match HereStripe::own() {
            Some(stripe) if !self.is_special && !Inner::is_key_length_wrong(key) => {
                self.read_hashed(stripe, self.hasher.hash_as_usual(key), key, reader)
            }
            _ => self.read_specially(key, reader),
        }
    }

    /// A thread's first read, one of a thread that shares its counters' stripe, one that is refused, or one of a cache with a
    /// hash function or histograms of its own.
    #[cold]
    #[inline(never)]
    fn read_specially<R>(
        &self,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.check_read(key)?;
        if let Some(stripe) = HereStripe::shared().filter(|_| !self.is_special) {
            return self.read_hashed(stripe, self.hasher.hash_as_usual(key), key, reader);
        }
        self.timed(Timed::Read, || self.read_closely(self.hasher.hash(key), key, reader))
    }

    /// Runs it, and counts how long it takes if that is wanted.
    pub(super) fn timed<R>(&self, timed: Timed, run: impl FnOnce() -> R) -> R {
        match &self.latencies {
            None => run(),
            Some(latencies) => latencies.time(timed, run),
        }
    }

    /// What refuses a read whatever is stored.
    #[inline]
    pub(super) fn check_read(&self, key: &[u8]) -> Result<(), ReadError> {
        if Inner::is_key_length_wrong(key) {
            return Err(ReadError::KeyLength { bytes: key.len(), bytes_max: KEY_BYTES_MAX });
        }
        if is_inside_read() {
            return Err(ReadError::InsideRead);
        }
        Ok(())
    }

    /// [`Inner::read`] behind its checks.
    #[inline(always)]
    fn read_hashed<const IS_OWN: bool, R>(
        &self,
        stripe: HereStripe<IS_OWN>,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.read_looked(stripe, || self.tables.of(hash).look(hash, key), hash, key, reader)
    }

    /// [`Inner::read_hashed`] by a look for the key that the caller has: the common case, an item with nothing but key and value, on
    /// a node that serves everything. What is not so simple is done out of line. (A look that was handed over made took a hit 10
    /// instructions more.)
    #[inline(always)]
    fn read_looked<'a, const IS_OWN: bool, R>(
        &'a self,
        stripe: HereStripe<IS_OWN>,
        look: impl FnOnce() -> Look<'a>,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        let look = look();
        // After the line was locked: a change of role is done before the node drops or changes an item for it.
        let is_ordinary = self.attention.load(Ordering::Acquire) == 0;
        let held = match look {
            Look::Found(held) if is_ordinary => held,
            Look::Absent if is_ordinary => {
                self.read_counters.count_at(stripe, ReadOutcome::Miss);
                return Ok(None);
            }
            look => {
                drop(look);
                return self.read_closely(hash, key, reader);
            }
        };
        let version = held.version();
        let Some(value) = held.plain_value().filter(|_| version.0 >= self.floors.highest()) else {
            return self.read_held(held, hash, key, reader);
        };
        self.read_counters.count_at(stripe, ReadOutcome::Hit);
        let accessed_s = self.note_read(&held, hash);
        let (is_fetched, state) = (held.is_fetched(), ItemState::default());
        let item =
            ItemRef { key, value, flags: 0, version, expires_at_ms: None, is_fetched, accessed_s, state };
        let reading = ReadingHere::enter_from(stripe);
        let result = reader(item);
        drop(reading);
        drop(held);
        Ok(Some(result))
    }

    /// Reads on a node that may not serve everything.
    #[inline(never)]
    fn read_closely<R>(
        &self,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        match self.find_served(hash, key)? {
            Some(held) => self.read_held(held, hash, key, reader),
            None => {
                self.read_counters.count(ReadOutcome::Miss);
                Ok(None)
            }
        }
    }

    /// Reads an item that may have anything besides key and value, or be dead.
    #[inline(never)]
    fn read_held<R>(
        &self,
        held: HeldItem<'_>,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        let version = held.version();
        if self.is_dead(&held, key) {
            drop(held);
            self.read_dead(hash, key, version);
            return Ok(None);
        }
        if held.is_absence() {
            drop(held);
            self.read_counters.count(ReadOutcome::Miss);
            return Ok(None);
        }
        self.read_counters.count(ReadOutcome::Hit);
        let accessed_s = self.note_read(&held, hash);
        Ok(Some(run_reader(ItemRef { accessed_s, ..item_ref(&held, key, version) }, reader)))
    }

    /// An item is read: counts that in its marks, and notes when. Gives when it was accessed before, if that is kept.
    #[inline(always)]
    fn note_read(&self, held: &HeldItem<'_>, hash: u64) -> Option<u64> {
        if held.is_read_enough(self.read_enough) { None } else { self.note_new_of_read(held.noted(), hash) }
    }

    #[inline(never)]
    fn note_new_of_read(&self, item: NotedItem<'_>, hash: u64) -> Option<u64> {
        if item.count_read(self.hits_max) && self.group.is_some() {
            return self.tell_of_read(item, hash);
        }
        self.accessed_before(item)
    }

    /// Out of line, and the last that is done, so that others who note a read keep no registers free for it.
    #[inline(never)]
    fn tell_of_read(&self, item: NotedItem<'_>, hash: u64) -> Option<u64> {
        self.tell_mark(hash);
        self.accessed_before(item)
    }

    /// Notes when an item is read; when it was before that.
    #[inline]
    fn accessed_before(&self, item: NotedItem<'_>) -> Option<u64> {
        self.is_accounting.then(|| item.note_access(self.access_s()).into())
    }

    /// When an item that is read or stored now is accessed, in seconds.
    #[inline]
    pub(super) fn access_s(&self) -> u32 {
        match self.round_s.load(Ordering::Relaxed) {
            0 => self.now_s(),
            round_s => round_s,
        }
    }

    /// Out of line, so that what only sometimes looks at the clock keeps no registers free for that.
    #[cold]
    #[inline(never)]
    fn now_s(&self) -> u32 {
        whole_seconds(self.now_ms())
    }

    /// When an item was last accessed, as its readers see it.
    #[inline]
    pub(super) fn shown_access(&self, accessed_s: u32) -> Option<u64> {
        self.is_accounting.then(|| accessed_s.into())
    }

    /// Reads a live item; nothing is marked or counted.
    pub(super) fn peek<R>(
        &self,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.check_read(key)?;
        let Some(held) = self.find_served(self.hasher.hash(key), key)? else { return Ok(None) };
        if self.is_dead(&held, key) || held.is_absence() {
            return Ok(None);
        }
        let accessed_s = self.shown_access(held.accessed_s());
        Ok(Some(run_reader(ItemRef { accessed_s, ..item_ref(&held, key, held.version()) }, reader)))
    }

    /// Reads whatever is stored; the reader is told whether that is a remembered absence.
    pub(super) fn read_any<R>(
        &self,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>, bool) -> R,
    ) -> Result<Option<R>, ReadError> {
        let Some(held) = self.find_served(hash, key)? else {
            self.read_counters.count(ReadOutcome::Miss);
            return Ok(None);
        };
        if self.is_dead(&held, key) {
            let version = held.version();
            drop(held);
            self.read_dead(hash, key, version);
            return Ok(None);
        }
        self.read_counters.count(ReadOutcome::Hit);
        let accessed_s = self.note_read(&held, hash);
        let item = ItemRef { accessed_s, ..item_ref(&held, key, held.version()) };
        Ok(Some(run_reader(item, |item| reader(item, held.is_absence()))))
    }

    /// What lies under a key, dead or alive, on a node that answers reads.
    fn find_served(&self, hash: u64, key: &[u8]) -> Result<Option<HeldItem<'_>>, ReadError> {
        let mut held = self.tables.of(hash).find(hash, key);
        // After the line was locked: a change of role is done before the node drops or changes an item for it.
        if self.attention.load(Ordering::Acquire) != 0 {
            drop(held);
            held = self.find_attentively(hash, key)?;
        }
        Ok(held)
    }

    fn is_dead(&self, held: &HeldItem<'_>, key: &[u8]) -> bool {
        self.floors.is_flushed(held.version(), || key) || self.is_expired(held.expires_at_ms())
    }

    /// The clock is read for an item that expires only.
    #[inline]
    fn is_expired(&self, expires_at_ms: u64) -> bool {
        expires_at_ms != 0 && expires_at_ms <= self.now_ms()
    }

    pub(crate) fn read_while<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut reader: impl FnMut(usize, Option<ItemRef<'_>>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        // By the key's place, modulo their length. Lines are asked for first, the items that they name later, while others are read.
        let mut lines = [None; BATCH];
        let (mut lines_end, mut items_end) = (0, 0);
        for (at, key) in keys.iter().enumerate() {
            while lines_end < keys.len().min(at + BATCH) {
                lines[lines_end % BATCH] = self.prefetch_line(keys[lines_end].as_ref());
                lines_end += 1;
            }
            while items_end < lines_end.min(at + ITEM_LEAD) {
                if let Some(line) = &lines[items_end % BATCH] {
                    line.prefetch_item();
                }
                items_end += 1;
            }
            let key = key.as_ref();
            let read = |item: ItemRef<'_>| reader(at, Some(item));
            let found = match (HereStripe::own(), &lines[at % BATCH]) {
                (Some(stripe), Some(line)) if !Inner::is_key_length_wrong(key) => {
                    self.read_looked(stripe, || line.look(key), line.hash(), key, read)?
                }
                _ => self.read_checked(self.hasher.hash(key), key, read)?,
            };
            if found.unwrap_or_else(|| reader(at, None)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One of several reads that is refused, or of a thread that has no counters of its own.
    #[cold]
    #[inline(never)]
    fn read_checked<R>(
        &self,
        hash: u64,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.check_read(key)?;
        match HereStripe::shared() {
            Some(stripe) => self.read_hashed(stripe, hash, key, reader),
            None => self.read_closely(hash, key, reader),
        }
    }

    /// Finds where a flush is due at some time, or this node does not serve everything.
    #[cold]
    fn find_attentively(&self, hash: u64, key: &[u8]) -> Result<Option<HeldItem<'_>>, ReadError> {
        self.settle_flush();
        // Before the item is looked at: what it shows is as new as that, or newer.
        let refused = self.read_refusal();
        let held = self.tables.of(hash).find(hash, key);
        // And behind it: a change of role is done before the node drops or changes an item for it.
        let serving = self.serving();
        let refused = refused.or_else(|| (!serving.answers_reads()).then(|| self.refused_read(serving)));
        match refused {
            None if serving.reigns() => Ok(held.filter(|held| self.may_show(held.version()))),
            None => Ok(held),
            Some(refused) => {
                drop(held);
                Err(refused)
            }
        }
    }

    /// Whether this primary may answer by an item of this version. Looked at behind the item, so that what was true of it
    /// then is true of what was read.
    pub(super) fn may_show(&self, version: Version) -> bool {
        self.group.as_ref().is_none_or(|group| group.may_show(version, || self.lease_now_ms()))
    }

    /// Why this node answers no reads now.
    pub(super) fn read_refusal(&self) -> Option<ReadError> {
        match self.serving() {
            serving if !serving.answers_reads() => Some(self.refused_read(serving)),
            Serving::Reads => {
                let behind_ms = self.group.as_ref().and_then(|group| group.too_stale_ms(self.now_ms()))?;
                Some(ReadError::Stale { behind_ms, primary: self.primary_address() })
            }
            _ => None,
        }
    }

    /// Counts a dead item, and has it leave where this node may remove it.
    #[cold]
    fn read_dead(&self, hash: u64, key: &[u8], version: Version) {
        self.count_dead(version, key);
        // A replica leaves the dead where they are: a touch that its primary made in time may be on its way.
        if self.serving().reigns() {
            self.reclaim(hash, key);
        }
    }

    fn refused_read(&self, serving: Serving) -> ReadError {
        let primary = self.primary_address();
        match serving {
            Serving::Fenced => ReadError::Fenced { primary },
            _ => ReadError::Replica { primary },
        }
    }

    fn count_dead(&self, version: Version, key: &[u8]) {
        let is_flushed = self.floors.is_flushed(version, || key);
        self.read_counters.count(if is_flushed { ReadOutcome::Flushed } else { ReadOutcome::Expired });
    }

    /// A dead item goes, if it is dead still.
    fn reclaim(&self, hash: u64, key: &[u8]) {
        let mut cell = self.cell(hash).lock();
        if let Some(id) = cell.shard.find(hash, key)
            && cell.shard.is_dead(id, self.moment())
        {
            cell.shard.remove_dead(hash, id, self.moment());
        }
        drop(cell);
        self.tell_events();
    }

    /// An item has a hit more: replicas are told. Called with the item's line locked.
    #[inline]
    fn tell_mark(&self, hash: u64) {
        if let Some(group) = &self.group {
            group.tell_mark(self.shard_number(hash), hash);
        }
    }

    /// `leaves_mark`: the item counts as read.
    pub(crate) fn read_and_touch<R>(
        &self,
        key: &[u8],
        expiry: Expiry,
        leaves_mark: bool,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, WriteError> {
        let mut reader = Some(reader);
        self.mutate(key, |locked| {
            let (hash, moment) = (locked.hash, locked.moment);
            let Some((id, meta)) = locked.find_to_read() else { return Ok(None) };
            let accessed_s = self.shown_access(locked.cell.shard.accessed_s(id));
            let expires_at_ms = expiry.deadline_ms(|| moment.now_ms());
            let id = match locked.cell.shard.set_expiry(hash, id, expires_at_ms, moment) {
                Ok(id) => id,
                Err(ReserveError::Shortage { pages }) => return Err(Refusal::Shortage { pages }),
                Err(ReserveError::OutOfMemory) => {
                    return Err(WriteError::OutOfMemory { bytes: key.len() }.into());
                }
            };
            locked.log(&Mutation::Touch { key, version: meta.version, expires_at_ms });
            self.read_counters.count(ReadOutcome::Hit);
            if leaves_mark {
                self.mark(&mut locked.cell, id, hash, |marks| marks.read(self.hits_max));
            }
            let reader = reader.take().expect("an attempt that succeeds is the last");
            let item = ItemRef {
                key,
                value: locked.cell.shard.value(id),
                flags: meta.flags,
                version: meta.version,
                expires_at_ms: (expires_at_ms != 0).then_some(expires_at_ms),
                is_fetched: meta.marks.is_fetched(),
                accessed_s,
                state: ItemState::of(meta),
            };
            Ok(Some(run_reader(item, reader)))
        })
    }

    /// Changes marks under the shard's lock, as an access; of more hits replicas are told.
    pub(crate) fn mark(
        &self,
        cell: &mut ShardCell,
        id: ItemId,
        hash: u64,
        change: impl FnOnce(Marks) -> Marks,
    ) {
        if cell.shard.mark(hash, id, change) {
            self.tell_mark(hash);
        }
        self.note_access(cell, id);
    }
}

impl Cache {
    /// Gives [`Cache::now_ms`], and has reads and sets of any thread note that moment as the one of their access
    /// ([`Config::accounting`](crate::Config::accounting)) until this is called again, where they would look at the clock
    /// each: for a program that serves requests in rounds, and says so at the beginning of each. When items expire is still
    /// looked at by each read.
    ///
    /// While no round begins, for want of requests, the moment stays: a thread that reads beside them calls this before, or its
    /// reads are noted as of the last round. That is seen in [`ItemRef::accessed_s`](crate::ItemRef::accessed_s) alone, and
    /// changes nothing of what leaves.
    ///
    /// ```
    /// use hotspare::{Cache, Config, Expiry, ManualClock};
    /// use std::sync::Arc;
    ///
    /// let clock = Arc::new(ManualClock::new(1_000_000));
    /// let cache = Cache::new(Config::new().clock(clock.clone()).accounting(true))?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// assert_eq!(cache.begin_round(), 1_000_000);
    /// clock.advance_ms(60_000);
    /// cache.get("motd")?;
    /// cache.set("news", "none", Expiry::Never)?;
    /// assert_eq!(cache.read("motd", |item| item.accessed_s)?, Some(Some(1_000)), "the round's");
    /// assert_eq!(cache.read("news", |item| item.accessed_s)?, Some(Some(1_000)));
    /// cache.begin_round();
    /// cache.get("motd")?;
    /// assert_eq!(cache.read("motd", |item| item.accessed_s)?, Some(Some(1_060)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_round(&self) -> Millis {
        let now_ms = self.inner.now_ms();
        self.inner.note_round(now_ms);
        now_ms
    }
}

impl Inner {
    fn note_round(&self, now_ms: Millis) {
        let round_s = whole_seconds(now_ms);
        // Written once a second, since all threads that read have the line.
        if self.round_s.load(Ordering::Relaxed) != round_s {
            self.round_s.store(round_s, Ordering::Relaxed);
        }
    }

    /// The time, and where rounds are told of, the beginning of one: for whoever stores what others send while the program that
    /// tells of rounds may sleep.
    #[cfg(feature = "serde")]
    pub(crate) fn renew_round(&self) -> Millis {
        let now_ms = self.now_ms();
        if self.round_s.load(Ordering::Relaxed) != 0 {
            self.note_round(now_ms);
        }
        now_ms
    }

    /// The item is accessed now, if that is kept.
    pub(super) fn note_access(&self, cell: &mut ShardCell, id: ItemId) {
        if self.is_accounting {
            cell.shard.set_accessed(id, whole_seconds(self.now_ms()));
        }
    }
}

impl Now for Inner {
    fn now_ms(&self) -> Millis {
        Inner::now_ms(self)
    }

    fn access_s(&self) -> u32 {
        Inner::access_s(self)
    }
}

impl super::write::Locked<'_> {
    /// The live item; an absent or dead one is counted as a miss, and a dead one goes.
    fn find_to_read(&mut self) -> Option<(ItemId, Meta)> {
        let Some(id) = self.cell.shard.find(self.hash, self.key) else {
            self.inner.read_counters.count(ReadOutcome::Miss);
            return None;
        };
        let meta = self.cell.shard.meta(id);
        if self.moment.is_dead(meta, || self.key) {
            self.inner.count_dead(meta.version, self.key);
            self.cell.shard.remove_dead(self.hash, id, self.moment);
            return None;
        }
        if meta.marks.is_absence() {
            self.inner.read_counters.count(ReadOutcome::Miss);
            return None;
        }
        super::classes::note_found(self.cell.shard.class_of(id));
        Some((id, meta))
    }
}

/// What a reader sees of an item that is held; it looks as it did before this read.
#[inline(always)]
fn item_ref<'a>(held: &'a HeldItem<'_>, key: &'a [u8], version: Version) -> ItemRef<'a> {
    let (flags, expires_at_ms, value) = held.parts();
    let expires_at_ms = (expires_at_ms != 0).then_some(expires_at_ms);
    let state = held.meta_if_stated().map_or_else(ItemState::default, ItemState::of);
    let is_fetched = held.is_fetched();
    ItemRef { key, value, flags, version, expires_at_ms, is_fetched, accessed_s: None, state }
}

#[inline]
pub(super) fn run_reader<T, R>(item: T, reader: impl FnOnce(T) -> R) -> R {
    let _reading = ReadingHere::enter();
    reader(item)
}
