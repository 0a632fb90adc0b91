//! Dues: for each page on which items expire, a moment not later than when enough of them are dead to be worth a look.
//!
//! Lives here: the dues of a shard's pages and their order. Not here: looking at the items of a page (see `sweep`).
//!
//! ```text
//!   slot in the shard's pages:    0        1        2        3
//!                             | due, early items, place in a heap |
//!   waiting: earliest first  [3, 0]           overdue: earliest first  [2]         (page 1: nothing is due)
//! ```
//! Both orders are binary heaps of slots, and each page knows its place there. The memory, 32 bytes a page and for
//! caches with items that expire only, is not counted against the cache's limit.

/// No moment.
pub(super) const NEVER: u64 = u64::MAX;

const WAITING: usize = 0;
const OVERDUE: usize = 1;

/// Of how many chunks of a page one is let lie dead before the page is due.
const CHUNKS_PER_DEAD: usize = 64;
/// As many are let lie dead on the pages with the most chunks.
pub(super) const DEAD_MAX: usize = 16;

/// How many items of a page are dead when the page is due.
pub(super) fn worth_a_look(chunks_per_page: usize) -> usize {
    (chunks_per_page / CHUNKS_PER_DEAD).clamp(1, DEAD_MAX)
}

/// How many items that expire before the due a page is given until they change it.
pub(super) fn early_max(chunks_per_page: usize) -> usize {
    (worth_a_look(chunks_per_page) / 2).max(1)
}

#[derive(Debug, Clone, Copy)]
struct PageDue {
    due_ms: u64,
    /// Items that expire before the due and have not changed it, and the first moment of theirs.
    early: u32,
    early_ms: u64,
    /// Which heap lists the page (the lowest bit) and where, from 1 on; 0 is none.
    place: u32,
}

const NOT_DUE: PageDue = PageDue { due_ms: NEVER, early: 0, early_ms: NEVER, place: 0 };

/// The dues of a shard's pages.
///
/// 1. `pages` has an entry for each of the shard's pages, in the same order, or is empty while nothing expires.
/// 2. A page with a due is in one of the heaps, once, and its entry says where; one without is in none.
/// 3. Of a page that nobody looks at, fewer than `worth_a_look + early_max - 1` items expire before its due.
#[derive(Debug, Default)]
pub(super) struct Dues {
    pages: Vec<PageDue>,
    heaps: [Vec<u32>; 2],
    /// The page that is being looked at; until that ends, it has a due only for what has come since.
    looked_at: Option<usize>,
}

impl Dues {
    /// The page at `slot` has an item that expires then: whether that changes anything.
    #[inline]
    pub(super) fn is_early(&self, slot: usize, expires_at_ms: u64) -> bool {
        self.pages.get(slot).is_none_or(|page| expires_at_ms < page.due_ms)
    }

    /// Counts an item that expires before the page's due, one of `page_count`.
    pub(super) fn note_early(
        &mut self,
        slot: usize,
        expires_at_ms: u64,
        early_max: usize,
        page_count: usize,
    ) {
        if self.pages.is_empty() {
            self.pages.resize(page_count, NOT_DUE);
        }
        let page = &mut self.pages[slot];
        page.early += 1;
        page.early_ms = page.early_ms.min(expires_at_ms);
        if page.early as usize >= early_max {
            let due_ms = page.early_ms;
            (page.early, page.early_ms) = (0, NEVER);
            self.lower(slot, due_ms);
        }
    }

    /// The page is due at this moment, unless it is due before.
    fn lower(&mut self, slot: usize, due_ms: u64) {
        let page = &mut self.pages[slot];
        if due_ms >= page.due_ms {
            return;
        }
        page.due_ms = due_ms;
        match page.place {
            0 => self.push(WAITING, slot),
            place => self.sift_up((place & 1) as usize, (place >> 1) as usize - 1),
        }
    }

    /// Pages that are due at this moment are overdue from now on, up to `count_max` of them.
    pub(super) fn pass_on(&mut self, now_ms: u64, count_max: usize) {
        for _ in 0..count_max {
            match self.heaps[WAITING].first() {
                Some(slot) if self.pages[*slot as usize].due_ms <= now_ms => {
                    let slot = *slot as usize;
                    self.unlist(slot);
                    self.push(OVERDUE, slot);
                }
                _ => return,
            }
        }
    }

    pub(super) fn overdue_count(&self) -> usize {
        self.heaps[OVERDUE].len()
    }

    /// The page that has been overdue for longest.
    pub(super) fn first_overdue(&self) -> Option<usize> {
        self.heaps[OVERDUE].first().map(|slot| *slot as usize)
    }

    pub(super) fn has_dues(&self) -> bool {
        self.looked_at.is_some() || self.heaps.iter().any(|heap| !heap.is_empty())
    }

    pub(super) fn looked_at(&self) -> Option<usize> {
        self.looked_at
    }

    pub(super) fn begin_look(&mut self, slot: usize) {
        if let Some(page) = self.pages.get(slot) {
            if page.place != 0 {
                self.unlist(slot);
            }
            self.pages[slot] = NOT_DUE;
        }
        self.looked_at = Some(slot);
    }

    /// All items were looked at: of those that stay enough will be dead at `due_ms`.
    pub(super) fn end_look(&mut self, due_ms: u64, page_count: usize) {
        let slot = self.looked_at.take().expect("a look begins before it ends");
        if due_ms != NEVER {
            self.set_due(slot, due_ms, page_count);
        }
    }

    /// The page is due at this moment at the latest.
    pub(super) fn set_due(&mut self, slot: usize, due_ms: u64, page_count: usize) {
        if self.pages.is_empty() {
            self.pages.resize(page_count, NOT_DUE);
        }
        self.lower(slot, due_ms);
    }

    /// The shard has a page more, in the last slot.
    pub(super) fn add_page(&mut self) {
        if !self.pages.is_empty() {
            self.pages.push(NOT_DUE);
        }
    }

    /// The page has left, and the last one has taken its slot.
    pub(super) fn remove_page(&mut self, slot: usize, page_count: usize) {
        self.looked_at = match self.looked_at {
            Some(looked_at) if looked_at == slot => None,
            Some(looked_at) if looked_at == page_count => Some(slot),
            other => other,
        };
        if self.pages.is_empty() {
            return;
        }
        if self.pages[slot].place != 0 {
            self.unlist(slot);
        }
        self.pages.swap_remove(slot);
        if let Some(moved) = self.pages.get(slot).filter(|moved| moved.place != 0) {
            self.heaps[(moved.place & 1) as usize][(moved.place >> 1) as usize - 1] = slot as u32;
        }
    }

    fn push(&mut self, heap: usize, slot: usize) {
        self.heaps[heap].push(slot as u32);
        self.sift_up(heap, self.heaps[heap].len() - 1);
    }

    /// Takes a page out of its heap; its due stays.
    fn unlist(&mut self, slot: usize) {
        let place = std::mem::take(&mut self.pages[slot].place);
        let (heap, at) = ((place & 1) as usize, (place >> 1) as usize - 1);
        self.heaps[heap].swap_remove(at);
        if at < self.heaps[heap].len() {
            self.sift_up(heap, at);
            let slot = self.heaps[heap][at] as usize;
            self.sift_down(heap, (self.pages[slot].place >> 1) as usize - 1);
        }
    }

    fn due_at(&self, heap: usize, at: usize) -> u64 {
        self.pages[self.heaps[heap][at] as usize].due_ms
    }

    fn say_place(&mut self, heap: usize, at: usize) {
        self.pages[self.heaps[heap][at] as usize].place = ((at + 1) << 1 | heap) as u32;
    }

    fn sift_up(&mut self, heap: usize, mut at: usize) {
        while at > 0 && self.due_at(heap, at) < self.due_at(heap, (at - 1) / 2) {
            self.heaps[heap].swap(at, (at - 1) / 2);
            self.say_place(heap, at);
            at = (at - 1) / 2;
        }
        self.say_place(heap, at);
    }

    fn sift_down(&mut self, heap: usize, mut at: usize) {
        let len = self.heaps[heap].len();
        loop {
            let children = (2 * at + 1..len.min(2 * at + 3)).min_by_key(|child| self.due_at(heap, *child));
            match children {
                Some(child) if self.due_at(heap, child) < self.due_at(heap, at) => {
                    self.heaps[heap].swap(at, child);
                    self.say_place(heap, at);
                    at = child;
                }
                _ => break,
            }
        }
        self.say_place(heap, at);
    }

    /// Panics with the number of a broken invariant. `expiries` gives the moments at which a page's items expire, and
    /// how many chunks the page has.
    pub(super) fn check_invariants(&self, page_count: usize, expiries: impl Fn(usize) -> (Vec<u64>, usize)) {
        assert!(self.pages.is_empty() || self.pages.len() == page_count, "dues 1: an entry a page");
        for (heap, slots) in self.heaps.iter().enumerate() {
            for (at, slot) in slots.iter().enumerate() {
                let page = self.pages[*slot as usize];
                assert_eq!(page.place as usize, (at + 1) << 1 | heap, "dues 2: place of slot {slot}");
                assert!(at == 0 || self.due_at(heap, (at - 1) / 2) <= page.due_ms, "dues 2: order");
            }
        }
        let listed = self.heaps.iter().map(Vec::len).sum::<usize>();
        let with_due = self.pages.iter().filter(|page| page.due_ms != NEVER).count();
        assert_eq!(listed, with_due, "dues 2: pages with a due");
        for slot in (0..page_count).filter(|slot| self.looked_at != Some(*slot)) {
            let due_ms = self.pages.get(slot).map_or(NEVER, |page| page.due_ms);
            let (expiries, chunks) = expiries(slot);
            let before = expiries.into_iter().filter(|expires_at_ms| *expires_at_ms < due_ms).count();
            let allowed = worth_a_look(chunks) + early_max(chunks) - 1;
            assert!(before < allowed, "dues 3: {before} of slot {slot} expire before {due_ms}");
        }
    }
}

/// The soonest of a page's expiries, as far as they count.
#[derive(Debug, Default)]
pub(super) struct Soonest {
    /// Ascending.
    moments_ms: [u64; DEAD_MAX],
    len: usize,
    len_max: usize,
    /// The last of them once there are so many; until then, never.
    last_ms: u64,
}

impl Soonest {
    pub(super) fn new(len_max: usize) -> Soonest {
        Soonest { moments_ms: [0; DEAD_MAX], len: 0, len_max, last_ms: NEVER }
    }

    #[inline]
    pub(super) fn add(&mut self, moment_ms: u64) {
        if moment_ms < self.last_ms {
            self.insert(moment_ms);
        }
    }

    fn insert(&mut self, moment_ms: u64) {
        self.len -= usize::from(self.len == self.len_max);
        let at = self.moments_ms[..self.len].partition_point(|other| *other <= moment_ms);
        self.moments_ms.copy_within(at..self.len, at + 1);
        self.moments_ms[at] = moment_ms;
        self.len += 1;
        if self.len == self.len_max {
            self.last_ms = self.moments_ms[self.len - 1];
        }
    }

    /// When as many as count will have passed.
    pub(super) fn last(&self) -> u64 {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_overdue_in_the_order_of_their_dues() {
        let mut dues = Dues::default();
        let due = |slot: usize| (slot as u64 * 7919) % 101;
        for slot in 0..101 {
            dues.set_due(slot, due(slot) + 50, 101);
            dues.set_due(slot, due(slot), 101);
        }
        dues.remove_page(40, 100);
        let mut seen = Vec::new();
        dues.pass_on(60, usize::MAX);
        while let Some(slot) = dues.first_overdue() {
            seen.push(dues.pages[slot].due_ms);
            dues.begin_look(slot);
            dues.end_look(NEVER, 100);
        }
        assert_eq!(seen, (0..=60).filter(|ms| *ms != due(40)).collect::<Vec<_>>());
        dues.check_invariants(100, |_| (Vec::new(), 1));
    }

    #[test]
    fn a_few_early_items_do_not_make_a_page_due() {
        let mut dues = Dues::default();
        for early in [9, 5, 7] {
            dues.note_early(0, early, 4, 1);
        }
        assert_eq!(dues.pages[0].due_ms, NEVER);
        dues.note_early(0, 8, 4, 1);
        assert_eq!(dues.pages[0].due_ms, 5);
    }

    #[test]
    fn soonest_is_the_last_of_those_that_count() {
        let mut soonest = Soonest::new(3);
        for (moment, last) in [(9, NEVER), (4, NEVER), (7, 9), (8, 8), (8, 8), (1, 7), (2, 4)] {
            soonest.add(moment);
            assert_eq!(soonest.last(), last);
        }
    }
}
