//! A shard: one lock's worth of cache.
//!
//! Lives here: finding, reading, marking, storing and removing items. Not here: how room is made (see `room`).
//!
//! A store is `reserve`, then `commit` or `cancel`; nothing else that changes the shard comes between.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::accounting;
use super::departures::{Cause, Departures, Event};
use super::expiry::Moment;
use super::hasher::KeyHasher;
use super::index::{Index, Removal};
use super::item::{self, Footprint, Value, View};
use super::lru::{Lru, Outlook};
use super::memory::{ChunkRef, Memory};
use super::pages::PagePool;
use super::passes::Passes;
use super::policy::{Drought, Policy};
use super::room::{Reservation, ReserveError};
use super::slabs::{ClassCounts, ClassId, ClassSize, Slabs};
use super::sweep::Sweep;
use super::table::{Ahead, Tables};
use super::walk::Walks;
use super::{Marks, Meta, Version};

/// Names an item until the shard is next changed by a reservation, a commit, a removal or a surrender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemId(pub(super) NonZeroU32);

impl ItemId {
    pub(super) fn chunk(self) -> ChunkRef {
        ChunkRef(self.0)
    }
}

impl From<ChunkRef> for ItemId {
    fn from(chunk: ChunkRef) -> ItemId {
        ItemId(chunk.0)
    }
}

/// Where in the order a stored item goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the hot end of the queue that the policy chooses: what its key is known by decides.
    New,
    /// To the hot end of the queue that its marks say.
    Hot,
    /// Just colder than the install marker, so that installed items keep the order they arrive in.
    Install,
}

/// What eviction has done since the shard was made, or since the counters were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) evictions: u64,
    pub(crate) evicted_unfetched: u64,
    pub(crate) expired_unfetched: u64,
    pub(crate) reclaimed: u64,
    pub(crate) no_memory: u64,
    pub(crate) pages_moved: u64,
}

/// The class that items were evicted of last, and what the shard had counted before the first of them: so that an
/// eviction counts where it writes anyway.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evicting {
    pub(super) class: ClassId,
    pub(super) evictions: u64,
    pub(super) unfetched: u64,
}

impl Evicting {
    /// What the class has to be credited with.
    pub(super) fn since(self, evictions: u64, unfetched: u64) -> ClassCounts {
        let (evictions, evicted_unfetched) = (evictions - self.evictions, unfetched - self.unfetched);
        ClassCounts { evictions, evicted_unfetched, ..ClassCounts::default() }
    }
}

/// One lock's worth of cache; the caller holds the lock.
///
/// 1. Each item is in the index once, under the hash of its key, and in the list once; no two have the same key.
/// 2. Each live chunk belongs to one item or to the one reservation.
/// 3. `item_bytes` is the sum of all items' header, key and value, `probation_bytes` of those on probation; they come
///    first in the list, and their marks say so.
/// 4. Between operations no page is in hand: what slabs and index do not use is the pool's.
/// 5. While a page is due at some time, or is looked at for dead items, writes know that there is something to sweep.
/// 6. With accounting, each class knows how many items begin in it, how many of them are in the main queue, and their bytes.
/// 7. While `is_settled` the shard evicts, and should not ask other shards for pages.
///
/// The fields that every store changes come first and share two cache lines with the lock: when two cores take turns at
/// a shard, each line that has to move from one to the other costs more than the store itself.
#[repr(C)]
pub(crate) struct Shard {
    pub(super) item_bytes: usize,
    pub(super) probation_bytes: usize,
    /// Bytes evicted from probation, as far as the main queue was not looked at for them.
    pub(super) owed_bytes: u64,
    pub(super) evictions: u64,
    pub(super) evicted_unfetched: u64,
    /// The item whose bytes and line were fetched ahead, as it leaves next, 0 for none; and where its entry is.
    pub(super) ahead_at: Ahead,
    pub(super) ahead: u32,
    /// Chunks of the reservation that is neither committed nor cancelled yet; 0 without one.
    pub(super) reserved_chunks: u32,
    pub(super) drought: Drought,
    /// The second of the last reservation, with accounting: what is stored counts as accessed then.
    pub(super) now_s: u32,
    /// The item that was hotter than that then: for the processor only, as it may have left since. 0 for none.
    pub(super) after: u32,
    /// Whether the last reservation failed for want of other shards' pages.
    pub(super) shortage_told: bool,
    /// Whether `departures` or `passes` may be kept.
    pub(super) listens: bool,
    /// Whether an eviction may be a plain one; false where that is not known.
    pub(super) is_settled: bool,
    pub(super) lru: Lru,
    pub(super) index: Index,
    pub(super) evict: bool,
    /// The highest floor that was swept for; [`SWEEP_WANTED`](super::sweep::SWEEP_WANTED) while there is more to do.
    pub(super) swept_floor: u64,
    pub(super) policy: Policy,
    pub(super) pool: Arc<PagePool>,
    pub(super) hasher: KeyHasher,
    pub(super) slabs: Slabs,
    pub(super) walks: Walks,
    pub(super) passes: Passes,
    pub(super) pages_moved: u64,
    pub(super) evicted: Evicting,
    departures: Option<Departures>,
    pub(super) sweep: Sweep,
    /// Pages between the slabs and the pool.
    pub(super) in_hand: Vec<u32>,
}

impl Shard {
    /// An empty shard, the writer of table number `at`; it takes its first pages when it stores its first item. Without
    /// `evict` a full shard refuses to store.
    pub(crate) fn new(
        pool: Arc<PagePool>,
        tables: Tables,
        at: usize,
        evict: bool,
        policy: Policy,
        hasher: KeyHasher,
    ) -> Shard {
        Shard {
            slabs: Slabs::new(pool.memory().clone()),
            pool,
            evict,
            policy,
            hasher,
            index: Index::new(tables, at),
            lru: Lru::new(),
            walks: Walks::default(),
            passes: Passes::default(),
            item_bytes: 0,
            probation_bytes: 0,
            owed_bytes: 0,
            evictions: 0,
            evicted_unfetched: 0,
            evicted: Evicting::default(),
            ahead_at: Ahead::NOWHERE,
            ahead: 0,
            after: 0,
            pages_moved: 0,
            in_hand: Vec::new(),
            reserved_chunks: 0,
            drought: Drought::default(),
            shortage_told: false,
            now_s: 0,
            listens: false,
            is_settled: false,
            departures: None,
            swept_floor: 0,
            sweep: Sweep::default(),
        }
    }

    /// What decides on plain evictions may have changed outside of the shard.
    pub(crate) fn unsettle(&mut self) {
        self.is_settled = false;
    }

    /// From now on what leaves is kept for a listener.
    pub(crate) fn keep_departures(&mut self, departures: Departures) {
        self.departures = Some(departures);
        self.set_listening();
    }

    pub(super) fn set_listening(&mut self) {
        self.listens = self.departures.is_some() || self.tells_passes();
    }

    /// What has left since the last call.
    pub(crate) fn take_departures(&mut self) -> Vec<Event> {
        self.departures.as_mut().map(Departures::take).unwrap_or_default()
    }

    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        self.slabs.memory()
    }

    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        // SAFETY: whoever has a `&Shard` holds its lock, items are freed and written through `&mut Shard` only, and
        // chunks of other shards are in no reference that this shard has.
        unsafe { View::new(self.slabs.memory()) }
    }

    /// The item of this key, dead or live.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<ItemId> {
        let view = self.view();
        self.index.find(hash, |chunk| view.has_key(chunk, key)).map(ItemId::from)
    }

    /// An item whose key has this hash, dead or live. Two keys of the same hash are possible, though not likely.
    pub(crate) fn find_by_hash(&self, hash: u64) -> Option<ItemId> {
        self.index.find(hash, |chunk| self.hash_of(chunk) == hash).map(ItemId::from)
    }

    /// Whether the item has expired or is older than the last flush.
    #[inline]
    pub(crate) fn is_dead(&self, id: ItemId, moment: Moment<'_>) -> bool {
        moment.is_dead(self.meta(id), || self.key(id))
    }

    #[inline]
    pub(crate) fn meta(&self, id: ItemId) -> Meta {
        self.view().meta(id.chunk())
    }

    pub(crate) fn key(&self, id: ItemId) -> &[u8] {
        self.view().key(id.chunk())
    }

    #[inline]
    pub(crate) fn value(&self, id: ItemId) -> Value<'_> {
        self.view().value(id.chunk())
    }

    /// The hash of the item's key, computed anew: it is not stored.
    pub(crate) fn hash(&self, id: ItemId) -> u64 {
        self.hash_of(id.chunk())
    }

    /// Changes marks, but not the queue; whether there are more hits now. Writes only when something changes.
    #[inline]
    pub(crate) fn mark(&mut self, hash: u64, id: ItemId, change: impl FnOnce(Marks) -> Marks) -> bool {
        self.index.with_line(hash, || {
            let before = self.meta(id).marks;
            let after = change(before);
            debug_assert_eq!(before.is_main(), after.is_main());
            if after != before {
                item::set_marks(self.memory(), id.chunk(), after);
            }
            after.hits() > before.hits()
        })
    }

    /// Gives the item another expiry. One that was stored without any is written anew, at the hot end, under the name
    /// that is returned; on an error it may have been evicted.
    pub(crate) fn set_expiry(
        &mut self,
        hash: u64,
        id: ItemId,
        expires_at_ms: u64,
        moment: Moment<'_>,
    ) -> Result<ItemId, ReserveError> {
        let meta = Meta { expires_at_ms, ..self.meta(id) };
        if item::has_expiry_field(self.memory(), id.chunk()) {
            let memory = self.slabs.memory();
            self.index.with_line(hash, || item::set_expiry(memory, id.chunk(), expires_at_ms));
            self.note_expiry(id.chunk(), expires_at_ms);
            return Ok(id);
        }
        if expires_at_ms == 0 {
            return Ok(id);
        }
        let (key, value, accessed_s) = (self.key(id).to_vec(), self.value(id).to_vec(), self.accessed_s(id));
        let footprint = Footprint::of(key.len(), value.len(), &meta);
        self.raise(id);
        let reservation = self.reserve(hash, footprint, moment)?;
        // Making room may have moved it to the main queue, or even evicted it.
        let present = self.find(hash, &key).map(|id| Meta { expires_at_ms, ..self.meta(id) });
        let meta = present.unwrap_or(meta);
        let new = ItemId::from(reservation.first);
        let now_s = std::mem::replace(&mut self.now_s, accessed_s);
        self.commit(reservation, hash, &key, &value, meta, Place::Hot, |_| meta.version);
        self.now_s = now_s;
        self.note_came(new.chunk());
        Ok(new)
    }

    /// Moves the item to the hot end of its queue.
    pub(crate) fn raise(&mut self, id: ItemId) {
        let is_main = self.meta(id).marks.is_main();
        self.lru.unlink(self.slabs.memory(), id.chunk());
        self.lru.push_hot(self.slabs.memory(), id.chunk(), is_main);
    }

    /// An item whose marks say main now goes there from probation.
    pub(super) fn promote(&mut self, first: ChunkRef) {
        let memory = self.slabs.memory();
        self.lru.unlink(memory, first);
        self.lru.push_hot(memory, first, true);
        self.probation_bytes -= item::counted_bytes(memory, first);
        if self.is_accounting() {
            self.account_promoted(first);
        }
    }

    /// Tells the processor what a store with this hash is about to touch, as far as it is known without a wait.
    #[inline]
    pub(crate) fn prefetch_for_store(&self) {
        self.lru.prefetch_hot_end(self.memory(), false);
        // Fetched at the eviction before already, but perhaps by another core.
        if let Some(next) = ChunkRef::from_link(self.ahead) {
            self.memory().prefetch_to_reuse(next);
            self.ahead_at.prefetch();
            self.index.prefetch_rest(&self.ahead_at);
        }
        if let Some(after) = ChunkRef::from_link(self.after) {
            self.memory().prefetch_to_reuse(after);
        }
    }

    /// Stores an item in the room that was reserved for it. An item of the same key leaves, without a moment in
    /// which neither is there. `hash` is the key's hash under the hasher's seed of this moment, and the footprint is
    /// the reservation's. `publish` runs while the item's line is locked: it is told the marks and gives the version.
    #[expect(clippy::too_many_arguments, reason = "an item's parts and its place")]
    #[inline(never)]
    pub(crate) fn commit(
        &mut self,
        reservation: Reservation,
        hash: u64,
        key: &[u8],
        value: &[u8],
        meta: Meta,
        place: Place,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        let at = self.index.look_ahead(hash);
        self.commit_inline(reservation, at, key, value, meta, place, publish)
    }

    /// [`Shard::commit`] for the one caller that stores most; the hash is the one that was looked ahead for.
    #[expect(clippy::too_many_arguments, reason = "an item's parts and its place")]
    #[inline(always)]
    pub(crate) fn commit_inline(
        &mut self,
        reservation: Reservation,
        at: Ahead,
        key: &[u8],
        value: &[u8],
        meta: Meta,
        place: Place,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        debug_assert_eq!(at.hash, self.hasher.hash(key), "the hash is of this key and seed");
        let Reservation { first, footprint } = reservation;
        assert_eq!((key.len(), value.len()), (footprint.key_bytes, footprint.value_bytes));
        self.reserved_chunks = 0;
        let memory = self.slabs.memory();
        // SAFETY: the chain was reserved for this footprint, and nothing names it yet.
        let bytes = unsafe { item::write(memory, first, footprint, key, value, meta) };
        self.enlist(at, first, bytes, key, meta, place, publish)
    }

    /// An item that is all there but for its version comes into index, list and sums; `bytes` are its header, key and value.
    #[expect(clippy::too_many_arguments, reason = "an item's parts and its place")]
    #[inline(always)]
    pub(super) fn enlist(
        &mut self,
        at: Ahead,
        first: ChunkRef,
        bytes: usize,
        key: &[u8],
        meta: Meta,
        place: Place,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        let (hash, memory) = (at.hash, self.slabs.memory());
        if self.is_accounting() {
            accounting::note_access(memory, first, self.now_s);
        }
        // SAFETY: `self` is borrowed mutably, so nobody else frees or writes this shard's items.
        let view = unsafe { View::new(memory) };
        let spot = self.index.begin_store(at, |chunk| view.has_key(chunk, key));
        if let Some(old) = spot.present() {
            self.lru.prefetch_to_unlink(memory, old);
        }
        let mut marks = meta.marks;
        if place == Place::New && self.begins_in_main(&spot, self.index.len()) {
            marks = marks.in_main();
            item::set_marks(memory, first, marks);
        }
        let version = publish(marks);
        item::set_version(memory, first, version);
        let replaced = self.index.finish_store(spot, hash, first);
        if replaced.is_none() {
            let hasher = &self.hasher;
            self.index.count_added(|chunk| hasher.hash(view.key(chunk)));
        }
        match place {
            Place::New | Place::Hot => self.lru.push_new(memory, first, marks.is_main()),
            Place::Install => self.lru.push_installed(memory, first, marks.is_main()),
        }
        self.item_bytes += bytes;
        self.probation_bytes += if marks.is_main() { 0 } else { bytes };
        if self.is_accounting() {
            self.account_stored(first, bytes, marks.is_main());
        }
        self.note_expiry(first, meta.expires_at_ms);
        if let Some(old) = replaced {
            self.forget_item(old, Cause::Replaced);
            self.return_pages();
        }
        version
    }

    /// Gives the reserved room up.
    #[cfg(test)]
    pub(crate) fn cancel(&mut self, reservation: Reservation) {
        self.reserved_chunks = 0;
        self.release_chain(reservation.first);
        self.return_pages();
    }

    /// Removes an item; `hash` is the hash of its key.
    pub(crate) fn remove(&mut self, hash: u64, id: ItemId, cause: Cause) {
        self.remove_if(hash, id.chunk(), cause, |_| Removal::Remove);
        self.return_pages();
    }

    /// Removes an item that is dead at this moment.
    pub(crate) fn remove_dead(&mut self, hash: u64, id: ItemId, moment: Moment<'_>) {
        self.remove(hash, id, moment.cause_of_death(self.meta(id)));
    }

    /// All items are gone, the pages are the pool's again, walks have ended. The install marker and the counters
    /// stay. Takes time in the number of index lines, an eighth of the items.
    pub(crate) fn clear(&mut self) {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled first");
        self.drain();
        self.lru.clear(self.slabs.memory());
        self.walks.end_all();
        (self.item_bytes, self.probation_bytes, self.owed_bytes, self.ahead) = (0, 0, 0, 0);
        self.drought = Drought::default();
        self.return_pages();
    }

    /// What each size class holds, from the smallest chunk to the largest.
    pub(crate) fn class_sizes(&self) -> impl Iterator<Item = ClassSize> + '_ {
        let class = usize::from(self.evicted.class.0);
        self.slabs.sizes().enumerate().map(move |(at, mut size)| {
            if at == class {
                size.counts.add(self.evicted.since(self.evictions, self.evicted_unfetched));
            }
            size
        })
    }

    /// Counts an item of this class that was refused for want of memory.
    pub(crate) fn count_no_memory(&mut self, class: usize) {
        self.slabs.counts_of(ClassId(class as u8)).no_memory += 1;
    }

    /// The place among [`Shard::class_sizes`] of the chunk that an item begins in.
    #[inline]
    pub(crate) fn class_of(&self, id: ItemId) -> usize {
        usize::from(self.slabs.class_of(id.chunk()).0)
    }

    /// The place among [`Shard::class_sizes`] of the chunk that an item begins in, and its header, key and value in bytes.
    pub(crate) fn class_and_bytes(&self, id: ItemId) -> (usize, usize) {
        let class = self.slabs.class_of(id.chunk());
        (usize::from(class.0), item::counted_bytes(self.memory(), id.chunk()))
    }

    /// Items, dead ones that nobody has met yet included.
    pub(crate) fn item_count(&self) -> usize {
        self.index.len()
    }

    /// Header, key and value of all items.
    pub(crate) fn item_bytes(&self) -> usize {
        self.item_bytes
    }

    /// Bytes of the pages that the index stands on.
    pub(crate) fn index_bytes(&self) -> usize {
        self.index.page_count() * self.pool.page_bytes()
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut counts = self.slabs.counts();
        counts.add(self.evicted.since(self.evictions, self.evicted_unfetched));
        Counters {
            evictions: counts.evictions,
            evicted_unfetched: counts.evicted_unfetched,
            expired_unfetched: counts.expired_unfetched,
            reclaimed: counts.reclaimed,
            no_memory: counts.no_memory,
            pages_moved: self.pages_moved,
        }
    }

    pub(crate) fn reset_counters(&mut self) {
        (self.evictions, self.evicted_unfetched, self.pages_moved) = (0, 0, 0);
        self.evicted = Evicting::default();
        self.slabs.reset_counts();
    }

    #[inline]
    pub(super) fn hash_of(&self, chunk: ChunkRef) -> u64 {
        self.hasher.hash(self.view().key(chunk))
    }

    /// Takes an item out of index and list and frees its chunks, unless `decide`, which runs with the item's line
    /// locked, says otherwise; pages that became empty are in hand. Whether it was removed.
    pub(super) fn remove_if(
        &mut self,
        hash: u64,
        first: ChunkRef,
        cause: Cause,
        decide: impl FnOnce(&Memory) -> Removal,
    ) -> bool {
        if !self.remove_entry_if(hash, first, decide) {
            return false;
        }
        self.forget_item(first, cause);
        true
    }

    /// As [`Shard::remove_if`], but out of the index only.
    #[inline]
    pub(super) fn remove_entry_if(
        &mut self,
        hash: u64,
        first: ChunkRef,
        decide: impl FnOnce(&Memory) -> Removal,
    ) -> bool {
        let memory = self.slabs.memory();
        if !self.index.remove_if(hash, first, || decide(memory)) {
            return false;
        }
        if let Some(page) = self.index.shrink() {
            self.is_settled = false;
            self.pool.give_lines(page);
        }
        true
    }

    /// An item that is not in the index any more leaves the list, and its chunks are free.
    pub(super) fn forget_item(&mut self, first: ChunkRef, cause: Cause) {
        self.unlink_item(first, cause);
        self.release_chain(first);
    }

    /// An item leaves the list and the sums; gives its header, key and value in bytes.
    #[inline]
    pub(super) fn unlink_item(&mut self, first: ChunkRef, cause: Cause) -> usize {
        if self.listens {
            self.keep_departure(first, cause);
        }
        let memory = self.slabs.memory();
        let (bytes, marks) = item::counted(memory, first);
        self.lru.unlink(memory, first);
        if self.ahead == first.get() {
            self.ahead = 0;
        }
        self.item_bytes -= bytes;
        self.probation_bytes -= if marks.is_main() { 0 } else { bytes };
        if self.is_accounting() {
            self.account_left(first, bytes, marks.is_main());
        }
        bytes
    }

    /// Whether a copy is to be told what leaves now, or a listener wants to know.
    #[inline]
    pub(super) fn is_told_what_leaves(&self) -> bool {
        self.tells_passes() || self.is_told_of_departures()
    }

    #[inline]
    fn is_told_of_departures(&self) -> bool {
        self.departures.as_ref().is_some_and(Departures::are_wanted)
    }

    #[cold]
    fn keep_departure(&mut self, first: ChunkRef, cause: Cause) {
        if !self.is_told_of_departures() {
            return;
        }
        let id = ItemId::from(first);
        let meta = self.meta(id);
        // An item that is only written anew, to have room for an expiry, does not leave.
        let hash = self.hash(id);
        let is_rewritten = cause == Cause::Replaced
            && self.find(hash, self.key(id)).is_some_and(|new| self.meta(new).version == meta.version);
        if is_rewritten || meta.marks.is_absence() {
            return;
        }
        let event = Event {
            cause,
            key: Bytes::copy_from_slice(self.key(id)),
            value: self.value(id).to_vec().into(),
            flags: meta.flags,
            version: meta.version,
            is_fetched: meta.marks.is_fetched(),
            expires_at_ms: Some(meta.expires_at_ms).filter(|moment| *moment > 0),
            class: self.class_of(id),
            accessed_s: Some(self.accessed_s(id).into()).filter(|_| self.is_accounting()),
        };
        if let Some(departures) = &mut self.departures {
            departures.push(event);
        }
    }

    pub(super) fn release_chain(&mut self, first: ChunkRef) {
        let mut next = Some(first);
        while let Some(chunk) = next {
            next = item::next_chunk(self.memory(), chunk);
            if let Some(page) = self.slabs.release(chunk) {
                self.take_in_hand(page);
            }
        }
    }

    /// A page that has no items any more; one that is pinned is this shard's no longer.
    fn take_in_hand(&mut self, page: u32) {
        if !self.memory().pins().leave(page) {
            self.in_hand.push(page);
        }
    }

    /// All pages leave; no reader is in them any more, but for pinned ones.
    fn drain(&mut self) {
        self.give_line_pages();
        self.slabs.drain().into_iter().for_each(|page| self.take_in_hand(page));
    }

    /// Empties the index and gives its pages up; how many they were.
    pub(super) fn give_line_pages(&mut self) -> usize {
        self.is_settled = false;
        let pages = self.index.clear();
        pages.iter().for_each(|page| self.pool.give_lines(*page));
        pages.len()
    }

    #[inline]
    pub(super) fn return_pages(&mut self) {
        if !self.in_hand.is_empty() {
            self.return_all_pages();
        }
    }

    #[cold]
    fn return_all_pages(&mut self) {
        self.is_settled = false;
        for page in self.in_hand.drain(..) {
            self.pool.give(page);
        }
    }

    /// Pages that this shard has from the pool.
    pub(crate) fn page_count(&self) -> usize {
        self.slabs.page_count() + self.index.page_count() + self.in_hand.len()
    }

    /// Panics with the number of a broken invariant.
    pub(crate) fn check_invariants(&self) {
        self.slabs.check_invariants();
        self.index.check_invariants(|chunk| self.hash_of(chunk));
        let (memory, view) = (self.memory(), self.view());
        let (items, on_probation) = self.lru.check_invariants(memory);
        assert_eq!(items.len(), self.index.len(), "shard 1: index and list hold the same items");
        self.check_accounts(&items);
        let (mut chunks, mut item_bytes, mut probation_bytes) = (0, 0, 0);
        for (place, first) in items.into_iter().enumerate() {
            let is_main = view.meta(first).marks.is_main();
            assert_eq!(is_main, place >= on_probation, "shard 3: an item's marks say its queue");
            probation_bytes += if is_main { 0 } else { item::counted_bytes(memory, first) };
            let hash = self.hash_of(first);
            let found = self.find(hash, view.key(first));
            assert_eq!(found, Some(ItemId::from(first)), "shard 1: an item is found by its key");
            item_bytes += item::counted_bytes(memory, first);
            let mut next = Some(first);
            while let Some(chunk) = next {
                chunks += 1;
                next = item::next_chunk(memory, chunk);
            }
            let value = view.value(first);
            assert_eq!(
                value.pieces().map(<[u8]>::len).sum::<usize>(),
                value.len(),
                "shard 2: pieces of a value"
            );
        }
        assert_eq!(
            chunks + self.reserved_chunks as usize,
            self.slabs.live_chunks(),
            "shard 2: a chunk belongs to nobody"
        );
        assert_eq!(item_bytes, self.item_bytes, "shard 3: item bytes");
        assert_eq!(probation_bytes, self.probation_bytes, "shard 3: bytes on probation");
        assert!(self.in_hand.is_empty(), "shard 4: pages in hand");
        assert!(!self.is_settled || !self.should_ask_others(1), "shard 7: a shard that should ask others");
        let Outlook { owed_below, item_bytes_min } = self.lru.outlook;
        let is_far = self.owed_bytes < owed_below && self.item_bytes >= item_bytes_min;
        assert!(!is_far || !self.is_main_owed_now(), "lru 3: the main queue's turn");
        self.check_dues();
    }
}

impl Drop for Shard {
    /// The pool outlives a shard: it gets its pages back.
    fn drop(&mut self) {
        self.drain();
        self.return_pages();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
