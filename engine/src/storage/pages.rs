//! The page pool: all memory of a cache, counted in pages against one hard limit.
//!
//! Lives here: how large a page is, who may have one more, free pages kept for the next taker, changing the limit.
//! Not here: what is inside a page (see `slabs` for items, `index` for lines), where it lies (see `memory`).
//!
//! ```text
//!   shard 0: items, lines ---.                          .--- kept (free, backed by memory)
//!   shard 1: items, lines ---+--- out (held by shards)  |
//!                            '----------- + ------------'  <= page_count_max
//! ```
//! Item pages and line pages come from two ranges and never change sides, but count against one limit: a kept item
//! page gives its memory up when a line page is wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::line::Line;
use super::mapping::{HUGE_PAGE_BYTES, has_huge_pages};
use super::memory::{Memory, NoAddressSpace, PageEntry};

/// The smallest page: an item's first chunk, with the longest key, still fits a third of it.
const PAGE_BYTES_MIN: usize = 4 << 10;
/// The largest page: what a compaction copies at most.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// How many pages a shard should have at least, so that a half-filled one for each size class costs little.
const PAGES_PER_SHARD: usize = 512;
/// From this limit on, huge pages are asked for; below, the last one would be more than 2 % of the cache.
const HUGE_FROM_BYTES: usize = 128 << 20;

/// The same for the index's lines, of which the last huge page comes on top.
const HUGE_LINES_FROM_BYTES: usize = 256 << 20;
/// How far above the first limit it can be raised later; the directories of the index have room for so much.
const GROWTH: usize = 4;

/// Memory of all shards together.
///
/// 1. `items_out + lines_out + kept_items.len() + kept_lines.len() <= page_count_max`, or nothing is kept: the hard
///    limit, and how it is reached after it was lowered.
/// 2. Each item page from 1 to `fresh_item - 1` is out, kept or released, and so is each line page below
///    `fresh_line`, once.
/// 3. `unfinished` of those that are out no shard has: values that come piece by piece lie there. Nor those that were left by
///    their shards while they were pinned (see `pinned`).
/// 4. `available` is `page_count_max` less what is out (0 if that is negative), as of the last change.
pub(crate) struct PagePool {
    memory: Memory,
    shard_count: usize,
    half_share_shift: u32,
    bytes_ceiling: usize,
    is_huge: bool,
    has_huge_lines: bool,
    /// A hint that spares a taker the lock when there is nothing to take.
    available: AtomicUsize,
    /// As in the state, for those who do not hold it.
    page_count_max: AtomicUsize,
    unfinished: AtomicUsize,
    state: Mutex<PoolState>,
}

struct PoolState {
    page_count_max: usize,
    memory_bytes_max: usize,
    items_out: usize,
    lines_out: usize,
    /// Free and backed by memory.
    kept_items: Vec<u32>,
    kept_lines: Vec<u32>,
    /// Free, their memory given back to the system.
    released_items: Vec<u32>,
    released_lines: Vec<u32>,
    /// The first pages that were never used.
    fresh_item: u32,
    fresh_line: u32,
}

/// The limit can't be set to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitOutOfRange {
    pub(crate) bytes_max: usize,
}

impl PagePool {
    #[cfg(test)]
    pub(crate) fn new(memory_bytes_max: usize, shard_count: usize) -> Result<Arc<PagePool>, NoAddressSpace> {
        PagePool::with_accounting(memory_bytes_max, shard_count, false)
    }

    /// A pool that never holds more than `memory_bytes_max`; takes addresses, but no memory yet.
    pub(crate) fn with_accounting(
        memory_bytes_max: usize,
        shard_count: usize,
        is_accounting: bool,
    ) -> Result<Arc<PagePool>, NoAddressSpace> {
        let shard_count = shard_count.max(1);
        let page_bytes = page_bytes(memory_bytes_max, shard_count);
        let memory = Memory::reserve(page_bytes, memory_bytes_max)?;
        let memory = if is_accounting { memory.accounting() } else { memory };
        let is_huge = memory_bytes_max >= HUGE_FROM_BYTES && has_huge_pages();
        if is_huge {
            memory.advise_huge(memory_bytes_max);
        }
        let has_huge_lines = is_huge && memory_bytes_max >= HUGE_LINES_FROM_BYTES;
        if has_huge_lines {
            memory.advise_huge_lines();
        }
        let bytes_ceiling =
            memory_bytes_max.saturating_mul(GROWTH).min((memory.item_pages() - 1) * page_bytes);
        let page_count_max = page_count(memory_bytes_max, page_bytes).min(memory.item_pages() - 1);
        let pool = Arc::new(PagePool {
            memory,
            shard_count,
            half_share_shift: shard_count.ilog2() + 1,
            bytes_ceiling: bytes_ceiling.max(memory_bytes_max),
            is_huge,
            has_huge_lines,
            available: AtomicUsize::new(page_count_max),
            page_count_max: AtomicUsize::new(page_count_max),
            unfinished: AtomicUsize::new(0),
            state: Mutex::new(PoolState {
                page_count_max,
                memory_bytes_max,
                items_out: 0,
                lines_out: 0,
                kept_items: Vec::new(),
                kept_lines: Vec::new(),
                released_items: Vec::new(),
                released_lines: Vec::new(),
                fresh_item: 1,
                fresh_line: 0,
            }),
        });
        pool.memory.pins().set_pool(Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Bytes that are backed by memory now: pages held and kept, their table, and, with huge pages, what the last
    /// one under the item pages has beyond the pages in use, and the last one under the lines.
    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state.lock();
        let pages = state.out() + state.kept();
        let mut bytes = pages * self.page_bytes() + state.table_bytes();
        let beyond = |pages: u32| {
            let used = pages as usize * self.page_bytes();
            used.next_multiple_of(HUGE_PAGE_BYTES) - used
        };
        if self.is_huge {
            bytes += beyond(state.fresh_item);
        }
        if self.has_huge_lines {
            bytes += beyond(state.fresh_line);
        }
        bytes.min(state.memory_bytes_max.max(pages * self.page_bytes()))
    }

    /// The hard limit, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.state.lock().memory_bytes_max
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.memory.page_bytes()
    }

    #[inline]
    pub(super) fn page_count_max(&self) -> usize {
        self.page_count_max.load(Ordering::Relaxed)
    }

    /// Half of what would be each shard's, if all had the same.
    #[inline]
    pub(super) fn half_share(&self) -> usize {
        self.page_count_max() >> self.half_share_shift
    }

    /// Whether a page can be had, as of the last change.
    #[inline]
    pub(super) fn has_pages(&self) -> bool {
        self.available.load(Ordering::Relaxed) > 0
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shard_count
    }

    /// How many line pages one shard's index may have: an even share of half of all memory, four times over.
    pub(super) fn line_pages_per_shard(&self) -> usize {
        let pages = self.bytes_ceiling / 2 / self.shard_count / self.page_bytes();
        (pages + 4).min(self.memory.line_pages())
    }

    /// Another limit. Taking stops above it at once; pages come back as shards surrender them.
    pub(crate) fn set_memory_bytes_max(&self, bytes: usize) -> Result<(), LimitOutOfRange> {
        if bytes > self.bytes_ceiling {
            return Err(LimitOutOfRange { bytes_max: self.bytes_ceiling });
        }
        let mut state = self.state.lock();
        state.memory_bytes_max = bytes;
        // The table keeps the entries of pages that were in use under a higher limit.
        let beside_table = bytes - state.table_bytes().min(bytes / 2);
        state.page_count_max = page_count(bytes, self.page_bytes()).min(beside_table / self.page_bytes());
        self.page_count_max.store(state.page_count_max, Ordering::Relaxed);
        while state.out() + state.kept() > state.page_count_max && state.kept() > 0 {
            self.release_one(&mut state);
        }
        if self.is_huge {
            self.memory.advise_huge(bytes);
        }
        self.tell_available(&state);
        Ok(())
    }

    /// How many pages shards hold above the limit.
    pub(crate) fn excess_pages(&self) -> usize {
        let state = self.state.lock();
        state.out().saturating_sub(state.page_count_max)
    }

    /// One item page, its content stale, or `None` at the limit.
    pub(super) fn take(&self) -> Option<u32> {
        if !self.has_pages() {
            return None;
        }
        let mut state = self.state.lock();
        if state.out() >= state.page_count_max {
            return None;
        }
        let kept = state.kept_items.pop();
        if kept.is_none() {
            self.make_place(&mut state);
        }
        let page = kept.or_else(|| state.released_items.pop()).or_else(|| {
            let fresh = state.fresh_item;
            ((fresh as usize) < self.memory.item_pages()).then(|| {
                state.fresh_item += 1;
                fresh
            })
        })?;
        state.items_out += 1;
        self.tell_available(&state);
        Some(page)
    }

    /// A page more is to be an unfinished value's; false, and nothing is counted, if `pages_max` are already.
    pub(super) fn count_unfinished(&self, pages_max: usize) -> bool {
        let more = |pages: usize| (pages < pages_max).then_some(pages + 1);
        self.unfinished.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// So many pages are no unfinished value's any more.
    pub(super) fn forget_unfinished(&self, pages: usize) {
        self.unfinished.fetch_sub(pages, Ordering::Relaxed);
    }

    /// How many pages unfinished values have.
    pub(crate) fn unfinished_pages(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// How many bytes of values whose items have gone stay for those who read them still.
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.memory.pins().left_pages() * self.page_bytes()
    }

    /// Turns an item page that the caller holds into a line page: all its lines are empty.
    pub(super) fn exchange_for_lines(&self, item_page: u32) -> u32 {
        let mut state = self.state.lock();
        state.items_out -= 1;
        state.lines_out += 1;
        state.kept_items.push(item_page);
        if let Some(kept) = state.kept_lines.pop() {
            return kept;
        }
        while state.out() + state.kept() > state.page_count_max && state.kept() > 0 {
            self.release_one(&mut state);
        }
        state.released_lines.pop().unwrap_or_else(|| {
            let fresh = state.fresh_line;
            assert!(
                (fresh as usize) < self.memory.line_pages(),
                "directories are smaller than the reserved range"
            );
            state.fresh_line += 1;
            fresh
        })
    }

    /// Takes an item page back and keeps it for the next taker, or gives its memory back when enough are kept.
    pub(super) fn give(&self, page: u32) {
        let mut state = self.state.lock();
        state.items_out -= 1;
        state.kept_items.push(page);
        self.trim(&mut state);
    }

    /// Takes an item page back that was taken for nothing. It may never have been written, and what is kept counts as memory:
    /// so it is not kept.
    pub(super) fn give_unused(&self, page: u32) {
        let mut state = self.state.lock();
        state.items_out -= 1;
        self.memory.release_item_page(page);
        state.released_items.push(page);
        self.tell_available(&state);
    }

    /// Takes a line page back; all its lines are empty.
    pub(super) fn give_lines(&self, page: u32) {
        let mut state = self.state.lock();
        state.lines_out -= 1;
        state.kept_lines.push(page);
        self.trim(&mut state);
    }

    fn trim(&self, state: &mut PoolState) {
        let kept_max = (state.page_count_max / 16).max(1);
        while state.kept() > 0
            && (state.kept() > kept_max || state.out() + state.kept() > state.page_count_max)
        {
            self.release_one(state);
        }
        self.tell_available(state);
    }

    /// Before a page that has no memory yet is used: within the limit there must be place for it.
    fn make_place(&self, state: &mut PoolState) {
        while state.out() + state.kept() + 1 > state.page_count_max && state.kept() > 0 {
            self.release_one(state);
        }
    }

    /// Gives the memory of one kept page back. A system that does not take it leaves the page forgotten here all the
    /// same: it is used again, at most `page_count_max` of them at a time.
    fn release_one(&self, state: &mut PoolState) {
        if let Some(page) = state.kept_lines.pop() {
            self.release_lines(page);
            state.released_lines.push(page);
        } else if let Some(page) = state.kept_items.pop() {
            self.memory.release_item_page(page);
            state.released_items.push(page);
        }
    }

    /// Locks every line of a free page, so that no late reader is inside, then gives the page back, which unlocks
    /// them: zeroes are an empty, unlocked line.
    fn release_lines(&self, page: u32) {
        let count = self.page_bytes() / size_of::<Line>();
        let first = page as usize * count;
        let guards: Vec<_> = (first..first + count).map(|number| self.memory.line(number).lock()).collect();
        if self.memory.release_line_page(page) {
            guards.into_iter().for_each(std::mem::forget);
        }
    }

    fn tell_available(&self, state: &PoolState) {
        self.available.store(state.page_count_max.saturating_sub(state.out()), Ordering::Relaxed);
    }

    /// How many pages shards hold.
    #[cfg(test)]
    pub(super) fn pages_out(&self) -> usize {
        self.state.lock().out()
    }

    /// Panics with the number of a broken invariant. `pages_out` is what all shards together count.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self, pages_out: usize) {
        let state = self.state.lock();
        let held = state.out() + state.kept();
        assert!(held <= state.page_count_max || state.kept() == 0, "page pool 1: the hard limit");
        assert!(
            state.page_count_max * self.page_bytes() <= state.memory_bytes_max,
            "page pool 1: the hard limit"
        );
        let held = pages_out + self.unfinished_pages() + self.memory.pins().left_pages();
        assert_eq!(state.out(), held, "page pool 3: every page out is held");
        let items = state.items_out + state.kept_items.len() + state.released_items.len();
        assert_eq!(items + 1, state.fresh_item as usize, "page pool 2: item pages");
        let lines = state.lines_out + state.kept_lines.len() + state.released_lines.len();
        assert_eq!(lines, state.fresh_line as usize, "page pool 2: line pages");
        assert_eq!(
            self.available.load(Ordering::Relaxed),
            state.page_count_max.saturating_sub(state.out()),
            "page pool 4: hint"
        );
    }
}

impl PoolState {
    fn out(&self) -> usize {
        self.items_out + self.lines_out
    }

    fn kept(&self) -> usize {
        self.kept_items.len() + self.kept_lines.len()
    }

    /// What the page table takes: entries of all item pages that were ever used.
    fn table_bytes(&self) -> usize {
        self.fresh_item as usize * size_of::<PageEntry>()
    }
}

/// How many pages with their entries in the page table fit.
fn page_count(memory_bytes: usize, page_bytes: usize) -> usize {
    memory_bytes / (page_bytes + size_of::<PageEntry>())
}

/// A power of two that gives each shard at least [`PAGES_PER_SHARD`] pages, within 4 and 64 KiB.
fn page_bytes(memory_bytes_max: usize, shard_count: usize) -> usize {
    let wanted = (memory_bytes_max / shard_count / PAGES_PER_SHARD).max(1);
    let rounded_down = 1 << wanted.ilog2();
    usize::clamp(rounded_down, PAGE_BYTES_MIN, PAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_follows_the_memory_of_a_shard() {
        assert_eq!(page_bytes(1 << 20, 1), 4 << 10);
        assert_eq!(page_bytes(3 << 20, 1), 4 << 10);
        assert_eq!(page_bytes(64 << 20, 8), 16 << 10);
        assert_eq!(page_bytes(4 << 30, 64), 64 << 10);
        assert_eq!(page_bytes(32 << 30, 1), 64 << 10);
    }

    #[test]
    fn kept_pages_count_against_the_limit() {
        let pool = PagePool::new(64 << 10, 1).unwrap();
        let pages: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(pages.len(), 15, "the sixteenth is for the page table");
        assert!(pool.memory_bytes() <= pool.memory_bytes_max());
        for page in pages {
            pool.give(page);
        }
        pool.check_invariants(0);
        let table = 16 * size_of::<PageEntry>();
        assert!(
            pool.memory_bytes() <= pool.page_bytes() + table,
            "a sixteenth is kept, the rest is given back"
        );
    }

    #[test]
    fn lowered_limit_stops_taking_and_gives_back_what_returns() {
        let pool = PagePool::new(64 << 10, 1).unwrap();
        let pages: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        pool.set_memory_bytes_max(20 << 10).unwrap();
        assert_eq!(pool.excess_pages(), pages.len() - 4);
        assert_eq!(pool.take(), None);
        for page in &pages[4..] {
            pool.give(*page);
        }
        assert_eq!(pool.excess_pages(), 0);
        pool.check_invariants(4);
        assert_eq!(pool.take(), None);
        pool.set_memory_bytes_max(64 << 10).unwrap();
        assert!(pool.take().is_some());
        assert_eq!(pool.set_memory_bytes_max(1 << 40), Err(LimitOutOfRange { bytes_max: 256 << 10 }));
    }

    #[test]
    fn line_page_takes_the_place_of_an_item_page() {
        let pool = PagePool::new(64 << 10, 1).unwrap();
        let pages: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let lines = pool.exchange_for_lines(pages[0]);
        pool.check_invariants(15);
        let number = lines as usize * pool.page_bytes() / size_of::<Line>();
        pool.memory().line(number).set(0, 7, 9);
        pool.memory().line(number).wipe();
        pool.give_lines(lines);
        assert!(pool.take().is_some());
        pool.check_invariants(15);
        let lines = pool.exchange_for_lines(pages[1]);
        let number = lines as usize * pool.page_bytes() / size_of::<Line>();
        assert_eq!(pool.memory().line(number).len(), 0);
        pool.check_invariants(15);
    }
}
