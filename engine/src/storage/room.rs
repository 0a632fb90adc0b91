//! Making room: eviction, compaction, and pages between shards.
//!
//! Lives here: the policy (who leaves) and what is done until an item fits.
//! Not here: the order itself (see `lru`), chunks and size classes (see `slabs`).
//!
//! ```text
//!   reserve: until the chunks that are wanted are free, or pages for them in hand
//!     1. a page from the pool
//!     2. else compact: a class with a page's worth of free chunks empties one page into its others
//!     3. else evict: the coldest leaves, whatever its class
//!   then cut the pages in hand into chunks, and give the rest back
//! ```
//! So memory that eviction frees in other classes never piles up: it comes back a page at a time, and the order of
//! eviction is the policy's alone.
//!
//! **Work of one operation.** An item that wants `p` pages evicts at most what lies between it and `p` pages: each
//! class keeps less than a page's worth free, so at most `p` + the number of classes in use, in pages, and as a
//! rule little more than `p`. Each eviction passes over at most [`REPRIEVES_MAX`] marked items and
//! copies nothing; each compaction copies less than one page.

use super::cuts::Cuts;
use super::departures::Cause;
use super::expiry::Moment;
use super::index::Removal;
use super::item::{self, Footprint, View};
use super::lru::Outlook;
use super::memory::{ChunkRef, Memory};
use super::policy::Policy;
use super::shard::{Evicting, Shard};
use super::slabs::ClassId;
use crate::mutation::{KEY_BYTES_MAX, Pass};

/// How many items with hits one eviction sends to the hot end before it takes the coldest, hit or not.
const REPRIEVES_MAX: usize = 256;
/// With eviction off: how many of the coldest items one reservation looks at to find dead ones.
const RECLAIM_LOOKS_MAX: usize = 1024;

/// Room for one item: to be committed or cancelled before the shard is changed otherwise.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(super) first: ChunkRef,
    pub(super) footprint: Footprint,
}

/// What becomes of the coldest item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes to the hot end of its queue.
    Stays,
    /// It goes to the main queue.
    Promoted {
        is_small: bool,
    },
    Reclaimed {
        cause: Cause,
        is_unfetched: bool,
    },
    Evicted {
        is_unfetched: bool,
        /// Whether it would have expired some time.
        is_expiring: bool,
    },
}

/// What is decided of the coldest item.
#[derive(Clone, Copy)]
struct Verdict {
    fate: Fate,
    removal: Removal,
    /// What the main queue is owed for it.
    owed_bytes: u64,
}

impl Verdict {
    const STAYS: Verdict = Verdict { fate: Fate::Stays, removal: Removal::Keep, owed_bytes: 0 };
}

/// Decides the fate of the coldest item.
#[derive(Clone, Copy)]
struct Bench<'a> {
    policy: Policy,
    moment: Moment<'a>,
    evict: bool,
    /// Whether a hit earns another round.
    may_stay: bool,
    item_bytes: usize,
    items: usize,
}

impl Bench<'_> {
    /// Judges an item, whose line and shard are held, and takes from its marks what the verdict costs.
    #[inline]
    fn judge(&self, memory: &Memory, first: ChunkRef) -> Verdict {
        let meta = item::meta(memory, first);
        let is_unfetched = !meta.marks.is_fetched();
        // SAFETY: the item's line and its shard are held.
        let key = || unsafe { View::new(memory) }.key(first);
        if self.moment.is_dead(meta, key) {
            let fate = Fate::Reclaimed { cause: self.moment.cause_of_death(meta), is_unfetched };
            return Verdict { fate, removal: Removal::Remove, owed_bytes: 0 };
        }
        if !self.evict {
            return Verdict::STAYS;
        }
        let (is_main, bytes) = (meta.marks.is_main(), item::counted_bytes(memory, first));
        let is_small = !is_main && self.policy.is_small(bytes, self.item_bytes, self.items);
        if (meta.marks.hits() > 0 || is_small) && self.may_stay {
            let (fate, marks) = match is_main {
                true => (Fate::Stays, meta.marks.without_hit()),
                false => (Fate::Promoted { is_small }, self.policy.promoted(meta.marks, is_small)),
            };
            item::set_marks(memory, first, marks);
            return Verdict { fate, ..Verdict::STAYS };
        }
        Verdict {
            fate: Fate::Evicted { is_unfetched, is_expiring: meta.expires_at_ms != 0 },
            removal: if is_main && is_unfetched { Removal::Remove } else { Removal::RemoveAsGhost },
            owed_bytes: if is_main { 0 } else { bytes as u64 },
        }
    }
}

/// What an eviction has come to.
enum Evicted {
    /// Nothing may leave.
    Nothing,
    /// One left, its chunks are free.
    Freed,
    /// One left, and this chunk of it is the caller's.
    Kept(ChunkRef),
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReserveError {
    /// Other shards hold the memory: have them surrender so many pages, then try again.
    Shortage { pages: usize },
    /// Eviction is off and the memory is used up, or the item can never fit.
    OutOfMemory,
}

impl Shard {
    /// Makes room for an item of this footprint, whose key has this hash. May move or evict any item.
    pub(crate) fn reserve(
        &mut self,
        hash: u64,
        footprint: Footprint,
        moment: Moment<'_>,
    ) -> Result<Reservation, ReserveError> {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled before the next one");
        assert!((1..=KEY_BYTES_MAX).contains(&footprint.key_bytes), "the caller refuses other keys");
        if u32::try_from(footprint.value_bytes).is_err() {
            return Err(ReserveError::OutOfMemory);
        }
        if let Some(reservation) = self.reserve_in_one(hash, footprint, moment) {
            return Ok(reservation);
        }
        let cuts = Cuts::new(&self.slabs, footprint);
        let first = self.reserve_chain(hash, &cuts, moment)?;
        Ok(Reservation { first: first.expect("an item has a first chunk"), footprint })
    }

    /// Makes room for chunks that are cut like this and for one more entry of the index, and takes the chunks; none where
    /// none are cut.
    pub(super) fn reserve_chain(
        &mut self,
        hash: u64,
        cuts: &Cuts,
        moment: Moment<'_>,
    ) -> Result<Option<ChunkRef>, ReserveError> {
        let made = self.make_room(hash, cuts, moment);
        if made.is_ok() {
            self.cut_pages(hash, cuts);
        }
        let reservation = made.map(|()| self.allocate_chain(cuts));
        self.shortage_told = matches!(reservation, Err(ReserveError::Shortage { .. }));
        self.is_settled = false;
        if reservation.is_err() {
            self.in_hand.drain(..).for_each(|page| self.pool.give_unused(page));
        }
        self.return_pages();
        reservation
    }

    /// Room for an item, if that is a free chunk, or the chunk of the item that leaves for it.
    #[inline]
    pub(crate) fn reserve_at_once(
        &mut self,
        hash: u64,
        footprint: Footprint,
        moment: Moment<'_>,
    ) -> Option<Reservation> {
        let reservation = self.reserve_in_one(hash, footprint, moment);
        if reservation.is_none() {
            // What left meanwhile may have emptied a page.
            self.return_pages();
        }
        reservation
    }

    /// As [`Shard::reserve_at_once`], but on a failure there may be pages in hand.
    #[inline(always)]
    fn reserve_in_one(&mut self, hash: u64, footprint: Footprint, moment: Moment<'_>) -> Option<Reservation> {
        self.note_moment(moment);
        let class = footprint.class_of_whole(&self.slabs)?;
        let first = self.reserve_whole(hash, class, moment)?;
        Some(Reservation { first, footprint })
    }

    /// The common case, an item of one chunk: takes a free one, after evicting if need be. Decides as
    /// [`Shard::make_room`] does, and leaves to it what wants a page, a compaction or other shards.
    #[inline(never)]
    fn reserve_whole(&mut self, hash: u64, class: ClassId, moment: Moment<'_>) -> Option<ChunkRef> {
        let is_chunk_all = self.index.pages_wanted(hash) == 0;
        if is_chunk_all && let Some(first) = self.slabs.allocate(class) {
            return Some(self.reserved_whole(first));
        }
        if let Some(first) = self.evict_plainly(moment.floors.highest(), class) {
            self.index.count_removed();
            // With an item less the index may do with the pages that it has.
            if is_chunk_all || self.index.pages_wanted(hash) == 0 {
                return Some(self.reserved_whole(first));
            }
            self.release_chain(first);
        }
        self.reserve_whole_slowly(hash, class, moment)
    }

    /// [`Shard::reserve_whole`] where nothing about it is simple.
    #[inline(never)]
    fn reserve_whole_slowly(&mut self, hash: u64, class: ClassId, moment: Moment<'_>) -> Option<ChunkRef> {
        let mut looks_left = self.looks_at_most();
        while !self.index.is_exhausted(hash) {
            let is_chunk_all = self.index.pages_wanted(hash) == 0;
            if is_chunk_all && let Some(first) = self.slabs.allocate(class) {
                return Some(self.reserved_whole(first));
            }
            let can_compact = self.slabs.is_compactable()
                && self.slabs.compactable_class(|other| usize::from(other == class)).is_some();
            let is_full = !self.pool.has_pages() && !can_compact && self.in_hand.is_empty();
            if !is_full || self.should_ask_others(1) {
                return None;
            }
            match self.evict_coldest(moment, &mut looks_left, is_chunk_all.then_some(class)) {
                Evicted::Nothing => return None,
                Evicted::Freed => {}
                Evicted::Kept(first) if self.index.pages_wanted(hash) == 0 => {
                    return Some(self.reserved_whole(first));
                }
                Evicted::Kept(first) => self.release_chain(first),
            }
        }
        None
    }

    #[inline]
    fn reserved_whole(&mut self, first: ChunkRef) -> ChunkRef {
        item::link_tail(self.slabs.memory(), None, first);
        self.reserved_chunks = 1;
        self.shortage_told = false;
        self.return_pages();
        first
    }

    /// Gives pages back to the pool for another shard: evicts and compacts until so many are free. Returns how
    /// many were given back; fewer when nothing is left that may leave.
    pub(crate) fn surrender_pages(&mut self, pages: usize, moment: Moment<'_>) -> usize {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled first");
        self.note_moment(moment);
        let mut looks_left = self.looks_at_most();
        while self.in_hand.len() < pages {
            if !self.compact(|_| 0) && !self.evict_one(moment, &mut looks_left) {
                break;
            }
        }
        let surrendered = self.in_hand.len() + self.drop_empty_index();
        self.return_pages();
        surrendered
    }

    /// Until the pages in hand and the free chunks suffice for these cuts and for one more entry of the index.
    fn make_room(&mut self, hash: u64, cuts: &Cuts, moment: Moment<'_>) -> Result<(), ReserveError> {
        if self.pages_without_chunks(cuts) > self.pool.page_count_max() {
            return Err(ReserveError::OutOfMemory);
        }
        let mut looks_left = self.looks_at_most();
        loop {
            let wanted = self.pages_wanted(hash, cuts);
            if self.index.is_exhausted(hash) {
                if !self.evict_one(moment, &mut looks_left) {
                    return Err(ReserveError::OutOfMemory);
                }
                continue;
            }
            if self.in_hand.len() >= wanted {
                return Ok(());
            }
            let missing = wanted - self.in_hand.len();
            if let Some(page) = self.pool.take() {
                self.in_hand.push(page);
            } else if self.compact(|class| cuts.count(class)) {
                continue;
            } else if self.should_ask_others(missing) {
                return Err(ReserveError::Shortage { pages: missing });
            } else if !self.evict_one(moment, &mut looks_left) {
                let others_can_help = self.evict && self.pool.shard_count() > 1;
                return Err(match others_can_help {
                    true => ReserveError::Shortage { pages: missing },
                    false => ReserveError::OutOfMemory,
                });
            }
        }
    }

    /// Pages that an empty shard would want for these cuts, index included.
    fn pages_without_chunks(&self, cuts: &Cuts) -> usize {
        let index_pages_min = 2;
        let pages = |(class, count): (ClassId, usize)| count.div_ceil(self.slabs.chunks_per_page(class));
        index_pages_min + cuts.iter().map(pages).sum::<usize>()
    }

    fn pages_wanted(&self, hash: u64, cuts: &Cuts) -> usize {
        self.index.pages_wanted(hash)
            + cuts.iter().map(|(class, count)| self.pages_missing(class, count)).sum::<usize>()
    }

    /// Pages that a class wants to have so many free chunks.
    fn pages_missing(&self, class: ClassId, count: usize) -> usize {
        let missing = count.saturating_sub(self.slabs.free_chunks(class));
        missing.div_ceil(self.slabs.chunks_per_page(class))
    }

    /// A shard that holds less than half of its even share, or less than this item wants, asks the others before it
    /// throws out its own items; but not twice in a row, so that it does not depend on them.
    #[inline(always)]
    pub(super) fn should_ask_others(&self, missing: usize) -> bool {
        if self.pool.shard_count() == 1 || self.shortage_told || !self.evict {
            return false;
        }
        let held = self.page_count();
        held + missing <= self.pool.half_share() || held < missing
    }

    /// Turns pages in hand into chunks and index lines.
    fn cut_pages(&mut self, hash: u64, cuts: &Cuts) {
        for (class, count) in cuts.iter() {
            for _ in 0..self.pages_missing(class, count) {
                let page = self.in_hand.pop().expect("make_room took it");
                self.slabs.add_page(class, page);
            }
        }
        for _ in 0..self.index.pages_wanted(hash) {
            let page = self.in_hand.pop().expect("make_room took it");
            self.index.add_page(self.pool.exchange_for_lines(page));
        }
    }

    fn allocate_chain(&mut self, cuts: &Cuts) -> Option<ChunkRef> {
        let (mut first, mut previous) = (None, None);
        for (class, count) in cuts.iter() {
            for _ in 0..count {
                let chunk = self.slabs.allocate(class).expect("make_room counted it");
                item::link_tail(self.slabs.memory(), previous, chunk);
                self.reserved_chunks += 1;
                first = first.or(Some(chunk));
                previous = Some(chunk);
            }
        }
        first
    }

    /// With eviction on no limit is needed: each eviction has its own.
    pub(super) fn looks_at_most(&self) -> usize {
        if self.evict { usize::MAX } else { RECLAIM_LOOKS_MAX.min(self.index.len()) }
    }

    /// The item that is looked at next: the coldest on probation, unless those on probation have less than their share or
    /// it is the main queue's turn.
    fn next_to_leave(&mut self) -> Option<ChunkRef> {
        let coldest = |is_main| self.lru.coldest(self.slabs.memory(), is_main);
        let (on_probation, in_main) = (coldest(false), coldest(true));
        let Some(main) = in_main else {
            return on_probation;
        };
        if let Some(cost) = self.turn_of(main) {
            self.owed_bytes -= cost;
            return in_main;
        }
        let is_short = self.probation_bytes * 1000 < self.policy.probation_per_mille * self.item_bytes;
        if is_short { in_main } else { on_probation.or(in_main) }
    }

    /// Whether a new item is tried in the main queue: in a drought, while that has not all that it may have.
    #[inline]
    pub(super) fn is_trial(&self, items: usize) -> bool {
        self.policy.tries_in_drought
            && self.drought.is_trial(items, self.evictions)
            && self.probation_bytes * 1000 > self.policy.probation_per_mille * self.item_bytes
    }

    /// One eviction, the chunks of which are free; whether one left.
    pub(super) fn evict_one(&mut self, moment: Moment<'_>, looks_left: &mut usize) -> bool {
        !matches!(self.evict_coldest(moment, looks_left, None), Evicted::Nothing)
    }

    /// One eviction: the coldest item of the queue that gives way leaves if it is dead or was not hit (nor is small and
    /// on probation); else it goes to the hot end of the main queue, having used a hit up, and the next is looked at (with eviction off a live one just
    /// goes to the hot end). If it is one chunk of the class in `keep`, the caller gets that chunk.
    fn evict_coldest(
        &mut self,
        moment: Moment<'_>,
        looks_left: &mut usize,
        keep: Option<ClassId>,
    ) -> Evicted {
        let mut reprieves = 0;
        while *looks_left > 0 {
            let Some(coldest) = self.next_to_leave() else {
                return Evicted::Nothing;
            };
            *looks_left -= 1;
            let hash = if self.ahead == coldest.get() { self.ahead_at.hash } else { self.hash_of(coldest) };
            let (bench, mut verdict) = (self.bench(moment, reprieves < REPRIEVES_MAX), Verdict::STAYS);
            // With its line locked, so that a read either was before, and counts, or finds nothing.
            let left = self.remove_entry_if(hash, coldest, |memory| {
                verdict = bench.judge(memory, coldest);
                verdict.removal
            });
            let Verdict { fate, owed_bytes, .. } = verdict;
            match fate {
                Fate::Stays => {
                    reprieves += 1;
                    self.tell_pass(hash, Pass::Kept);
                    self.raise(coldest.into());
                    continue;
                }
                Fate::Promoted { is_small } => {
                    reprieves += 1;
                    self.tell_pass(hash, if is_small { Pass::KeptAsSmall } else { Pass::Kept });
                    self.drought.promote();
                    self.promote(coldest);
                    continue;
                }
                Fate::Reclaimed { cause, is_unfetched } => {
                    let class = self.slabs.class_of(coldest);
                    self.slabs.counts_of(class).reclaim(is_unfetched && cause == Cause::Expired);
                    debug_assert!(left, "what is not kept has left the index");
                    return self.forget_evicted(coldest, cause, owed_bytes, keep);
                }
                Fate::Evicted { is_unfetched, is_expiring } => {
                    self.tell_pass(hash, Pass::Evicted);
                    let class = self.slabs.class_of(coldest);
                    self.count_eviction(class, is_unfetched, self.index.len());
                    if self.is_accounting() {
                        self.account_evicted(coldest);
                    }
                    self.slabs.counts_of(class).evicted_expiring += u64::from(is_expiring);
                    debug_assert!(left, "what is not kept has left the index");
                    return self.forget_evicted(coldest, Cause::Evicted, owed_bytes, keep);
                }
            }
        }
        Evicted::Nothing
    }

    /// One eviction in the most common case, which is most of them: [`Shard::evict_coldest`] would take the coldest item
    /// on probation, at its first look; it was not hit, has nothing but key and value, and is one chunk of this class, which
    /// the caller gets. The index is still to be told that it has an entry less. Otherwise nothing has changed.
    #[inline(never)]
    pub(super) fn evict_plainly(&mut self, floor: u64, class: ClassId) -> Option<ChunkRef> {
        let is_full = !self.pool.has_pages() && !self.slabs.is_compactable();
        if !is_full || !(self.is_settled || self.settle()) || self.listens && self.is_told_what_leaves() {
            return None;
        }
        let first = self.lru.coldest_on_probation(self.ahead)?;
        if self.is_turn_of_main() {
            return None;
        }
        let memory = self.slabs.memory();
        // With its line locked, so that a read either was before, and counts, or finds nothing.
        let entry = self.index.lock_if_ahead(&self.ahead_at)?;
        let (version, bytes, marks) = item::plain_unhit(memory, first)?;
        let is_small = self.policy.is_small(bytes, self.item_bytes, self.index.len());
        let is_of_class = self.slabs.is_small_fitting(bytes + memory.trailer_bytes(), class);
        if version < floor || is_small || !is_of_class {
            return None;
        }
        debug_assert_eq!(self.slabs.class_of(first), class);
        self.item_bytes -= bytes;
        self.index.remove(entry, self.ahead_at.hash, first, true);
        let next = self.lru.unlink_coldest_on_probation(self.slabs.memory(), first);
        self.probation_bytes -= bytes;
        self.count_eviction(class, !marks.is_fetched(), self.index.len() - 1);
        if self.is_accounting() {
            self.account_evicted_plainly(first, class, bytes);
        }
        let is_main_empty = self.probation_bytes == self.item_bytes;
        self.owed_bytes = if is_main_empty { 0 } else { self.owed_bytes.saturating_add(bytes as u64) };
        self.ahead = 0;
        let key = next.and_then(|next| Some((next, self.view().key_of_plain(next)?)));
        match key {
            // No other hash function is settled.
            Some((next, key)) => self.prefetch_to_leave(next, self.hasher.hash_as_usual(key)),
            None => self.prefetch_coldest(),
        }
        Some(first)
    }

    /// Whether evictions may be plain, as far as that depends on this shard alone; it is found out anew where it may have
    /// changed.
    #[cold]
    fn settle(&mut self) -> bool {
        self.is_settled =
            self.evict && !self.hasher.is_custom() && !self.shortage_told && !self.should_ask_others(1);
        self.is_settled
    }

    /// [`Shard::prefetch_to_leave`] of the item that is the coldest on probation, if there is one.
    #[cold]
    #[inline(never)]
    fn prefetch_coldest(&mut self) {
        if let Some(next) = self.lru.coldest(self.slabs.memory(), false) {
            self.prefetch_to_leave(next, self.hash_of(next));
        }
    }

    #[inline(always)]
    pub(super) fn count_eviction(&mut self, class: ClassId, is_unfetched: bool, items: usize) {
        if self.evicted.class != class {
            self.count_evicted(class);
        }
        self.evictions += 1;
        self.evicted_unfetched += u64::from(is_unfetched);
        if is_unfetched && self.policy.tries_in_drought {
            self.drought.evict_unread(items);
        }
    }

    /// What was counted of evictions since another class's item was evicted belongs to this one's class.
    #[cold]
    fn count_evicted(&mut self, next: ClassId) {
        let counts = self.evicted.since(self.evictions, self.evicted_unfetched);
        self.slabs.counts_of(self.evicted.class).add(counts);
        let (evictions, unfetched) = (self.evictions, self.evicted_unfetched);
        self.evicted = Evicting { class: next, evictions, unfetched };
    }

    /// Whether [`Shard::next_to_leave`] would be the main queue's coldest item.
    #[inline(always)]
    fn is_turn_of_main(&mut self) -> bool {
        let Outlook { owed_below, item_bytes_min } = self.lru.outlook;
        let may_be_owed = self.owed_bytes >= owed_below || self.item_bytes < item_bytes_min;
        // Where the main queue is empty, all bytes are those on probation.
        self.probation_bytes * 1000 < self.policy.probation_per_mille * self.item_bytes
            || may_be_owed && self.is_main_owed()
    }

    /// Whether the main queue is owed its turn; if not, notes until when that is so.
    #[cold]
    #[inline(never)]
    fn is_main_owed(&mut self) -> bool {
        let Some(main) = self.lru.coldest(self.slabs.memory(), true) else {
            self.lru.outlook = Outlook { owed_below: u64::MAX, item_bytes_min: 0 };
            return false;
        };
        if self.turn_of(main).is_some() {
            return true;
        }
        let item_bytes_min = self.item_bytes - self.item_bytes / 64;
        self.lru.outlook = Outlook { owed_below: self.owed_at_least(main, item_bytes_min), item_bytes_min };
        false
    }

    pub(super) fn is_main_owed_now(&self) -> bool {
        let main = self.lru.coldest(self.slabs.memory(), true);
        main.is_some_and(|main| self.turn_of(main).is_some())
    }

    /// How much is owed when it is the turn of the main queue, of which this is the coldest item, if all items have so many
    /// bytes.
    fn owed_at_least(&self, main: ChunkRef, item_bytes: usize) -> u64 {
        if self.policy.decay_tenths == 0 {
            return u64::MAX;
        }
        let bytes = item::counted_bytes(self.slabs.memory(), main);
        self.policy.price_of_turn(bytes, self.item_bytes - self.probation_bytes, item_bytes)
    }

    /// What the turn of the main queue costs, of which this is the coldest item, if it is its turn.
    #[inline(always)]
    fn turn_of(&self, main: ChunkRef) -> Option<u64> {
        if self.owed_bytes == 0 || self.policy.decay_tenths == 0 {
            return None;
        }
        let (bytes, main_bytes) =
            (item::counted_bytes(self.slabs.memory(), main), self.item_bytes - self.probation_bytes);
        self.policy.turn_of_main(self.owed_bytes, bytes, main_bytes, self.item_bytes)
    }

    /// What the fate of the coldest item is decided by.
    #[inline]
    fn bench<'a>(&self, moment: Moment<'a>, may_stay: bool) -> Bench<'a> {
        let (policy, evict) = (self.policy, self.evict);
        Bench { policy, moment, evict, may_stay, item_bytes: self.item_bytes, items: self.index.len() }
    }

    /// An item that has left the index leaves list and memory as well.
    #[inline]
    fn forget_evicted(
        &mut self,
        first: ChunkRef,
        cause: Cause,
        owed_bytes: u64,
        keep: Option<ClassId>,
    ) -> Evicted {
        let bytes = self.unlink_item(first, cause);
        let is_main_empty = self.probation_bytes == self.item_bytes;
        self.owed_bytes = if is_main_empty { 0 } else { self.owed_bytes.saturating_add(owed_bytes) };
        self.prefetch_coldest();
        let is_fitting =
            keep.is_some() && keep == self.slabs.class_at_least(bytes + self.memory().trailer_bytes());
        if is_fitting && item::is_whole(self.slabs.memory(), first) {
            debug_assert_eq!(keep, Some(self.slabs.class_of(first)));
            return Evicted::Kept(first);
        }
        self.release_chain(first);
        Evicted::Freed
    }

    /// Has the processor fetch what the next eviction reads: the line of the item that is the coldest now, whose
    /// bytes were fetched at the eviction before, and the bytes of the one behind it. (Each of these would be a wait for
    /// memory under the shard's lock.)
    #[inline(always)]
    fn prefetch_to_leave(&mut self, next: ChunkRef, hash: u64) {
        let memory = self.slabs.memory();
        self.ahead = next.get();
        self.ahead_at = self.index.look_ahead(hash);
        if let Some(after) = self.lru.hotter_item(memory, next) {
            self.after = after.get();
            memory.prefetch_to_reuse(after);
        }
    }

    /// Empties one page of a class that has a page's worth of free chunks beyond those kept back; the page is in
    /// hand then. Contents and order stay.
    pub(super) fn compact(&mut self, kept_back: impl Fn(ClassId) -> usize) -> bool {
        let Some(class) = self.slabs.compactable_class(kept_back) else {
            return false;
        };
        let page = self.slabs.begin_compaction(class);
        let mut offset = 0;
        while let Some((chunk, next_offset)) = self.slabs.next_live(page, offset) {
            offset = next_offset;
            self.move_chunk(chunk);
        }
        self.in_hand.push(self.slabs.finish_compaction(page));
        self.pages_moved += 1;
        true
    }

    /// Moves a live chunk of a page under compaction; no reader of its item is there meanwhile.
    fn move_chunk(&mut self, chunk: ChunkRef) {
        let first = item::first_chunk(self.memory(), chunk);
        if self.ahead == first.get() {
            self.ahead = 0;
        }
        let hash = self.hash_of(first);
        let slabs = &mut self.slabs;
        if first == chunk {
            let moved = self.index.relocate(hash, chunk, || {
                let moved = slabs.begin_move(chunk);
                item::relink_chain(slabs.memory(), moved);
                moved
            });
            self.lru.relocate(slabs.memory(), moved);
            self.note_moved(moved);
        } else {
            self.index.with_line(hash, || {
                let moved = slabs.begin_move(chunk);
                item::relink_chain(slabs.memory(), moved);
            });
        }
        self.slabs.end_move(chunk);
    }

    /// An index without entries is given up as well; returns its pages.
    fn drop_empty_index(&mut self) -> usize {
        if self.index.len() > 0 { 0 } else { self.give_line_pages() }
    }
}
