//! The sweep: dead items leave, a few looks at a time, though nobody reads them and they are not the coldest.
//!
//! Lives here: which page is looked at next, looking at its items, how much one operation does. Not here: when a page
//! is due (see `due`), who leaves for want of room (see `room`).
//!
//! ```text
//!   a write:  nothing expires, no flush since?                  that is one comparison each, and all
//!             a look under way, a flush, or too many overdue?   up to 96 looks at the items of one page or more
//!             else every eighth time                            reads the clock: whose page is overdue now?
//! ```
//! Why pages and not items: to find a dead item by its own deadline costs each item at least four bytes of links, more
//! than the dead are let keep. A page is 64 KiB at most and lists a few of its items, those that expire soonest. Where each
//! item has its own lifetime, a look reads the dead among the listed and little else, until the list's horizon has
//! passed; then the page is scanned, which makes the list anew: about 12 looks a dead item. Where lifetimes are alike,
//! a page's items die together, and one scan finds them all.
//!
//! A page that is due waits until more are: meanwhile the rest of its items die as well, where lifetimes are alike. How
//! many wait is decided by what the last looks found: the dead on them shall be a 256th of the shard at most. Only when live items have to leave for want of room, no page waits.
//!
//! A flush has each page looked at once. What it may concern and is moved or written anew meanwhile makes its new page due.
//!
//! A replica sweeps as it applies records, but as of a moment by which it knows all that its primary did, since an item
//! that has expired there may have been touched in time on its primary (see `cache::apply`).

use super::Floors;
use super::departures::Cause;
use super::due::{self, NEVER, Soonest};
use super::expiry::Moment;
use super::index::Removal;
use super::item;
use super::memory::ChunkRef;
use super::memory::Memory;
use super::shard::Shard;
use super::slabs::{Chunks, Slabs};

/// How many chunks one write looks at, at most.
pub(crate) const LOOKS_A_WRITE: usize = 96;
/// As how many looks a removal counts: it touches the item's line and its neighbours in the order.
const LOOKS_A_REMOVAL: usize = 8;
/// Of how many pages one may be overdue without being looked at.
const PAGES_PER_OVERDUE: usize = 256;
/// What looks found is told in such parts.
const SHARE_ONE: usize = 1024;
/// As little is expected of an overdue page, whatever the last ones held: at most 8 % of the pages wait.
const SHARE_MIN: usize = SHARE_ONE / 20;
/// After so many looks at the clock one overdue page is looked at, to learn what is to be expected of them.
const CLOCKS_A_PROBE: u8 = 64;
/// How many writes go by before the clock is read to see which pages are due.
const WRITES_A_CLOCK: u8 = 8;
/// How many pages become overdue at a time, at most.
const OVERDUE_AT_ONCE: usize = 8;

/// So many chunks ahead of the one that is scanned the processor is to fetch.
const SCANNED_AHEAD: u32 = 8;

/// Stands in the place of a floor that was swept for; no floor is so high.
pub(super) const SWEEP_WANTED: u64 = u64::MAX;

/// Where a shard's sweep stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    writes_to_clock: u8,
    clocks_to_probe: u8,
    /// The share of dead items, of [`SHARE_ONE`], on the pages that were looked at last; more counts at once, less by
    /// and by.
    found_share: usize,
    /// Looks at the page so far, and the dead among them.
    page_looks: usize,
    page_dead: usize,
    /// The highest floor of which every page knows.
    floor: u64,
    /// The pages in the slots below this one have not been looked at since the floor was raised.
    flush_slots: usize,
    /// Whether the page that is looked at is scanned; else only what is listed of it is looked at.
    is_scan: bool,
    /// Where on its page the scan goes on, in units of 8 bytes.
    next_units: u32,
    soonest: Soonest,
    /// How many evictions there had been at the last write.
    evictions: u64,
    /// Chunks that were looked at, ever.
    looks: u64,
}

impl Sweep {
    /// A page was looked at.
    fn learn_share(&mut self) {
        let share = self.page_dead * SHARE_ONE / self.page_looks.max(1);
        self.found_share = share.max((3 * self.found_share + share) / 4);
    }
}

impl Slabs {
    /// An item that expires was stored here, moved here, or given another expiry; its page is not scanned just now.
    #[inline]
    fn note_expiry(&mut self, first: ChunkRef, expires_at_ms: u64) {
        let slot = self.slot_of(first);
        if self.dues.is_soon(slot, expires_at_ms) {
            self.list(slot, first, expires_at_ms);
        }
    }

    #[inline(never)]
    fn list(&mut self, slot: usize, first: ChunkRef, expires_at_ms: u64) {
        let (chunks, page_count) = (self.chunks_of(slot), self.page_count());
        let worth = due::worth_a_look(self.chunks_at(slot));
        let (dues, memory) = self.dues_and_memory();
        let units = chunks.units_of(first);
        dues.list(slot, units, expires_at_ms, page_count, worth, |units| expiry_at(memory, chunks, units));
    }

    /// All that is listed of the page and dead has left.
    fn end_look(&mut self, slot: usize, now_ms: u64) {
        let (chunks, worth) = (self.chunks_of(slot), due::worth_a_look(self.chunks_at(slot)));
        let (dues, memory) = self.dues_and_memory();
        dues.end_look(now_ms, worth, |units| expiry_at(memory, chunks, units));
    }
}

/// When the item expires that begins there on a page; never, if there is none.
fn expiry_at(memory: &Memory, chunks: Chunks, units: u16) -> u64 {
    item::life(memory, chunks.starting_at(units)).map_or(NEVER, |(_, expires_at_ms)| expires_at_ms)
}

impl Shard {
    /// The item now lies here with this expiry: its page is due when it is worth it.
    #[inline]
    pub(super) fn note_expiry(&mut self, first: ChunkRef, expires_at_ms: u64) {
        if expires_at_ms != 0 {
            self.note_some_expiry(first, expires_at_ms);
        }
    }

    #[inline(never)]
    fn note_some_expiry(&mut self, first: ChunkRef, expires_at_ms: u64) {
        self.swept_floor = SWEEP_WANTED;
        if self.sweep.is_scan && self.slabs.dues.looked_at() == Some(self.slabs.slot_of(first)) {
            self.note_expiry_during_scan(first, expires_at_ms);
        } else {
            self.slabs.note_expiry(first, expires_at_ms);
        }
    }

    /// What lies ahead on the page that is scanned will be met there.
    fn note_expiry_during_scan(&mut self, first: ChunkRef, expires_at_ms: u64) {
        let units = self.slabs.chunks_of(self.slabs.slot_of(first)).units_of(first);
        if u32::from(units) < self.sweep.next_units {
            self.sweep.soonest.add(expires_at_ms, units);
        }
    }

    /// A compaction has moved the item here.
    pub(super) fn note_moved(&mut self, first: ChunkRef) {
        self.note_came(first);
        self.note_expiry(first, item::meta(self.memory(), first).expires_at_ms);
    }

    /// An item of before lies here now. If a flush concerns it, it may have come to a page that the flush's pass has left
    /// behind; the pass is over with the look at its last page.
    pub(super) fn note_came(&mut self, first: ChunkRef) {
        let is_flushing = self.sweep.flush_slots > 0 || self.slabs.dues.looked_at().is_some();
        if is_flushing && item::meta(self.memory(), first).version.0 < self.sweep.floor {
            self.slabs.dues.want_scan(self.slabs.slot_of(first), self.slabs.page_count());
            self.swept_floor = SWEEP_WANTED;
        }
    }

    /// Whether a write has a share in the sweep.
    #[inline]
    pub(crate) fn is_sweep_wanted(&self, floors: &Floors) -> bool {
        self.swept_floor != floors.highest()
    }

    /// A write's share of the sweep: a bounded number of looks. What has expired by this moment leaves, so it must be
    /// one at which nobody can touch such an item any more.
    pub(crate) fn sweep_a_bit(&mut self, moment: Moment<'_>) {
        let has_evicted = std::mem::replace(&mut self.sweep.evictions, self.evictions) != self.evictions;
        let overdue_max = if has_evicted { 0 } else { self.overdue_max() };
        let is_flushing = self.sweep.flush_slots > 0 || self.sweep.floor != moment.floors.highest();
        let is_pressing = is_flushing
            || self.slabs.dues.looked_at().is_some()
            || self.slabs.dues.overdue_count() > overdue_max;
        if !is_pressing && self.sweep.writes_to_clock > 0 {
            self.sweep.writes_to_clock -= 1;
            return;
        }
        self.sweep.writes_to_clock = WRITES_A_CLOCK - 1;
        let is_probe = !is_pressing && self.sweep.clocks_to_probe == 0;
        self.sweep.clocks_to_probe = if is_probe { CLOCKS_A_PROBE } else { self.sweep.clocks_to_probe };
        self.sweep.clocks_to_probe -= u8::from(!is_pressing);
        self.sweep(LOOKS_A_WRITE, if is_probe { 0 } else { overdue_max }, moment);
    }

    /// Looks at whatever is due at all; returns how many looks that took.
    pub(crate) fn sweep_all_due(&mut self, looks_max: usize, moment: Moment<'_>) -> usize {
        self.sweep(looks_max, 0, moment)
    }

    /// How many pages wait until more are due: so many that the dead on them are a 256th of what the shard holds. In a
    /// shard that holds little, some more: they are little, too.
    fn overdue_max(&self) -> usize {
        let pages = self.slabs.page_count().max(self.pool.half_share());
        pages * SHARE_ONE / (PAGES_PER_OVERDUE * self.sweep.found_share.max(SHARE_MIN))
    }

    fn sweep(&mut self, looks_max: usize, overdue_max: usize, moment: Moment<'_>) -> usize {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled first");
        let (now_ms, looks_before) = (moment.now_ms(), self.sweep.looks);
        let mut looks_left = looks_max;
        while looks_left > 0 && self.choose_page(overdue_max, now_ms, moment) {
            if self.sweep.is_scan {
                self.scan_page(&mut looks_left, now_ms, moment);
            } else {
                self.look_at_listed(&mut looks_left, now_ms);
            }
        }
        self.return_pages();
        let is_wanted = self.sweep.flush_slots > 0 || self.slabs.dues.has_dues();
        self.swept_floor = if is_wanted { SWEEP_WANTED } else { self.sweep.floor };
        (self.sweep.looks - looks_before) as usize
    }

    /// Goes on with the page that is looked at, or begins with another; whether there is one.
    fn choose_page(&mut self, overdue_max: usize, now_ms: u64, moment: Moment<'_>) -> bool {
        if self.slabs.dues.looked_at().is_some() {
            return true;
        }
        // Of a floor that is raised during a pass, the next pass takes care, so that each comes to its end.
        if self.sweep.flush_slots == 0 && self.sweep.floor != moment.floors.highest() {
            self.sweep.floor = moment.floors.highest();
            self.sweep.flush_slots = usize::MAX;
        }
        self.sweep.flush_slots = self.sweep.flush_slots.min(self.slabs.page_count());
        self.slabs.dues.pass_on(now_ms, OVERDUE_AT_ONCE);
        let is_flush = self.sweep.flush_slots > 0;
        let slot = if is_flush {
            self.sweep.flush_slots -= 1;
            self.sweep.flush_slots
        } else if self.slabs.dues.overdue_count() > overdue_max {
            self.slabs.dues.first_overdue().expect("at least one is overdue")
        } else {
            return false;
        };
        let is_scan = is_flush || self.slabs.dues.horizon_ms(slot) <= now_ms;
        self.slabs.dues.begin_look(slot, is_scan);
        (self.sweep.is_scan, self.sweep.next_units, self.sweep.page_dead) = (is_scan, 0, 0);
        self.sweep.soonest = self.slabs.dues.soonest();
        // A share of the page's items is counted, of all of them in each case.
        self.sweep.page_looks = if is_scan { 0 } else { self.slabs.chunks_at(slot) };
        if !is_scan {
            self.prefetch_soonest(slot, now_ms);
        }
        true
    }

    /// Has the processor fetch what is read of the soonest, all at once instead of one by one, and then what is written
    /// where those leave that are dead.
    fn prefetch_soonest(&self, slot: usize, now_ms: u64) {
        let (chunks, memory) = (self.slabs.chunks_of(slot), self.slabs.memory());
        let count = due::worth_a_look(self.slabs.chunks_at(slot)) + 2;
        let soonest = || self.slabs.dues.listed(slot).iter().rev().take(count);
        soonest().for_each(|units| memory.prefetch(chunks.starting_at(*units)));
        for first in soonest()
            .filter(|units| expiry_at(memory, chunks, **units) <= now_ms)
            .map(|units| chunks.starting_at(*units))
        {
            self.lru.prefetch_to_unlink(memory, first);
            self.index.prefetch(self.hash_of(first));
        }
    }

    /// Looks at what is listed of the page, from the soonest on, until one is not dead, or no look is left.
    fn look_at_listed(&mut self, looks_left: &mut usize, now_ms: u64) {
        while *looks_left > 0
            && let Some(slot) = self.slabs.dues.looked_at()
        {
            let (chunks, memory) = (self.slabs.chunks_of(slot), self.slabs.memory());
            let [.., soonest] = *self.slabs.dues.listed(slot) else { break };
            let expires_at_ms = expiry_at(memory, chunks, soonest);
            self.sweep.looks += 1;
            *looks_left -= 1;
            if expires_at_ms <= now_ms {
                self.slabs.dues.unlist_soonest(slot);
                *looks_left = looks_left.saturating_sub(LOOKS_A_REMOVAL - 1);
                self.sweep.page_dead += 1;
                self.reclaim(chunks.starting_at(soonest), true);
            } else if expires_at_ms >= self.slabs.dues.horizon_ms(slot) {
                self.slabs.dues.unlist_soonest(slot);
            } else if self.is_next_sooner(slot, expires_at_ms) {
                // It was touched since it was listed.
                self.slabs.dues.swap_soonest(slot);
            } else {
                break;
            }
        }
        match self.slabs.dues.looked_at() {
            Some(_) if *looks_left == 0 => return,
            Some(slot) => self.slabs.end_look(slot, now_ms),
            None => {}
        }
        self.sweep.learn_share();
    }

    /// Whether the last but one that is listed of the page expires before this moment.
    fn is_next_sooner(&self, slot: usize, than_ms: u64) -> bool {
        let [.., next, _] = *self.slabs.dues.listed(slot) else { return false };
        expiry_at(self.memory(), self.slabs.chunks_of(slot), next) < than_ms
    }

    /// Looks at chunks of the page until it ends, or leaves with its last item, or no look is left.
    fn scan_page(&mut self, looks_left: &mut usize, now_ms: u64, moment: Moment<'_>) {
        let floor = moment.floors.highest();
        while let Some(slot) = self.slabs.dues.looked_at() {
            let Some(first) = self.next_suspect(slot, looks_left, now_ms, floor) else {
                if *looks_left > 0 {
                    let worth = due::worth_a_look(self.slabs.chunks_at(slot));
                    let page_count = self.slabs.page_count();
                    self.slabs.dues.end_scan(&self.sweep.soonest, page_count, worth);
                    self.sweep.learn_share();
                }
                return;
            };
            let meta = item::meta(self.memory(), first);
            let is_expired = meta.expires_at_ms != 0 && meta.expires_at_ms <= now_ms;
            if is_expired || moment.floors.is_flushed(meta.version, || self.view().key(first)) {
                *looks_left = looks_left.saturating_sub(LOOKS_A_REMOVAL - 1);
                self.sweep.page_dead += 1;
                self.reclaim(first, is_expired);
                if self.slabs.dues.looked_at().is_none() {
                    self.sweep.learn_share();
                }
            } else if meta.expires_at_ms != 0 {
                self.sweep.soonest.add(meta.expires_at_ms, self.slabs.chunks_of(slot).units_of(first));
            }
        }
    }

    /// The next item that has expired or is older than the highest floor; `None` at the end of the page, or when no
    /// look is left.
    fn next_suspect(
        &mut self,
        slot: usize,
        looks_left: &mut usize,
        now_ms: u64,
        floor: u64,
    ) -> Option<ChunkRef> {
        let (sweep, memory, chunks) = (&mut self.sweep, self.slabs.memory(), self.slabs.chunks_of(slot));
        let looks_before = *looks_left;
        let mut suspect = None;
        while suspect.is_none()
            && *looks_left > 0
            && let Some((chunk, next)) = chunks.at(sweep.next_units)
        {
            let units = std::mem::replace(&mut sweep.next_units, next);
            if let Some((ahead, _)) = chunks.at(next + (next - units) * SCANNED_AHEAD) {
                memory.prefetch(ahead);
            }
            *looks_left -= 1;
            if let Some((version, expires_at_ms)) = item::life(memory, chunk) {
                if expires_at_ms <= now_ms || version < floor {
                    suspect = Some(chunk);
                } else if expires_at_ms < NEVER {
                    sweep.soonest.add(expires_at_ms, units as u16);
                }
            }
        }
        sweep.looks += (looks_before - *looks_left) as u64;
        sweep.page_looks += looks_before - *looks_left;
        suspect
    }

    /// A dead item leaves, and is counted as one that eviction meets.
    fn reclaim(&mut self, first: ChunkRef, is_expired: bool) {
        let hash = self.hash_of(first);
        let (class, mut is_fetched) = (self.slabs.class_of(first), false);
        let cause = if is_expired { Cause::Expired } else { Cause::Flushed };
        self.remove_if(hash, first, cause, |memory| {
            is_fetched = item::meta(memory, first).marks.is_fetched();
            Removal::Remove
        });
        self.slabs.counts_of(class).reclaim(is_expired && !is_fetched);
    }

    /// How many chunks were looked at, ever.
    #[cfg(test)]
    pub(crate) fn sweep_looks(&self) -> u64 {
        self.sweep.looks
    }

    /// Panics with the number of a broken invariant.
    pub(super) fn check_dues(&self) {
        let items = |slot: usize| {
            let (mut items, mut next_units) = (Vec::new(), 0);
            while let Some((chunk, next)) = self.slabs.chunks_of(slot).at(next_units) {
                let expiry = item::life(self.memory(), chunk).map(|(_, expires_at_ms)| expires_at_ms);
                items.extend(expiry.map(|expires_at_ms| (next_units as u16, expires_at_ms)));
                next_units = next;
            }
            items
        };
        self.slabs.dues.check_invariants(self.slabs.page_count(), items);
        let is_wanted = self.sweep.flush_slots > 0 || self.slabs.dues.has_dues();
        assert!(!is_wanted || self.swept_floor == SWEEP_WANTED, "shard 5: a due that nobody sees to");
    }
}
