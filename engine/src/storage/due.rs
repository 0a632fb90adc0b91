//! Dues: for each page on which items expire, those that expire soonest, and a moment not later than when enough of them
//! are dead to be worth a look.
//!
//! Lives here: the dues of a shard's pages, their order, which items expire soonest. Not here: looking at the items of a
//! page (see `sweep`).
//!
//! ```text
//!   slot in the shard's pages:    0        1        2        3
//!                             | due, horizon, listed, place in a heap |
//!                             | 720 12 9 - | ... where the soonest begin on the page, the very soonest last
//!   waiting: earliest first  [3, 0]           overdue: earliest first  [2]         (page 1: nothing is due)
//! ```
//! All items that expire before a page's horizon are listed, so until then a look reads the listed ones only, from the
//! soonest on. Behind it the whole page is scanned and the list made anew.
//!
//! A list is in order by the expiries that its items had when they were listed. They are not kept, but read from the items
//! when they matter, and by then the item may be gone, or another in its place. So a listed place is a hint; what
//! can be trusted is that nothing unlisted expires before the horizon.
//!
//! Both orders are binary heaps of slots, and each page knows its place there. The memory, 28 bytes a page and a
//! thousandth of it, for caches with items that expire only, is not counted against the cache's limit.

/// No moment.
pub(super) const NEVER: u64 = u64::MAX;

const WAITING: usize = 0;
const OVERDUE: usize = 1;

/// Of how many chunks of a page one is let lie dead before the page is due.
const CHUNKS_PER_DEAD: usize = 64;
/// As many are let lie dead on the pages with the most chunks.
const DEAD_MAX: usize = 16;
/// Of how many bytes of a page one place is listed, in two bytes.
const BYTES_PER_LISTED: usize = 2 << 10;
/// As many are listed of the largest page.
const LISTED_MAX: usize = 32;

/// How many items of a page are dead when the page is due.
pub(super) fn worth_a_look(chunks_per_page: usize) -> usize {
    (chunks_per_page / CHUNKS_PER_DEAD).clamp(1, DEAD_MAX)
}

#[derive(Debug, Clone, Copy)]
struct PageDue {
    due_ms: u64,
    /// Whatever expires before is listed.
    horizon_ms: u64,
    listed: u32,
    /// Which heap lists the page (the lowest bit) and where, from 1 on; 0 is none.
    place: u32,
}

const NOT_DUE: PageDue = PageDue { due_ms: NEVER, horizon_ms: NEVER, listed: 0, place: 0 };

/// The dues of a shard's pages.
///
/// 1. `pages` has an entry for each of the shard's pages, in the same order, or is empty while nothing expires; and
///    `listed` has `listed_max` places for each.
/// 2. A page with a due is in one of the heaps, once, and its entry says where; one without is in none.
/// 3. Of a page that is not scanned, each item that expires before the horizon is listed.
/// 4. Of a page that nobody looks at, the due is not behind the horizon.
#[derive(Debug)]
pub(super) struct Dues {
    pages: Vec<PageDue>,
    /// Where listed items begin on their page, in units of 8 bytes.
    listed: Vec<u16>,
    listed_max: usize,
    heaps: [Vec<u32>; 2],
    /// The page that is being looked at; until that ends, it has a due only for what has come since.
    looked_at: Option<usize>,
}

impl Dues {
    pub(super) fn new(page_bytes: usize) -> Dues {
        Dues {
            pages: Vec::new(),
            listed: Vec::new(),
            listed_max: (page_bytes / BYTES_PER_LISTED).clamp(2, LISTED_MAX),
            heaps: Default::default(),
            looked_at: None,
        }
    }

    /// Nothing that can be soonest, of a page that is about to be scanned.
    pub(super) fn soonest(&self) -> Soonest {
        Soonest::new(self.listed_max)
    }

    /// The page at `slot` has an item that expires then: whether it is to be listed.
    #[inline]
    pub(super) fn is_soon(&self, slot: usize, expires_at_ms: u64) -> bool {
        self.pages.get(slot).is_none_or(|page| expires_at_ms < page.horizon_ms)
    }

    /// The item that begins there on the page, one of `page_count`, expires then, before the horizon. `expiry_at` tells
    /// when the item at a listed place expires, [`NEVER`] if there is none; `worth` is how many dead are worth a look.
    pub(super) fn list(
        &mut self,
        slot: usize,
        units: u16,
        expires_at_ms: u64,
        page_count: usize,
        worth: usize,
        expiry_at: impl Fn(u16) -> u64,
    ) {
        self.begin(page_count);
        let begin = slot * self.listed_max;
        let (page, listed) = (&mut self.pages[slot], &mut self.listed[begin..begin + self.listed_max]);
        let mut len = page.listed as usize;
        if let Some(at) = listed[..len].iter().position(|other| *other == units) {
            listed.copy_within(at + 1..len, at);
            len -= 1;
        }
        let at = listed[..len].partition_point(|other| expiry_at(*other) > expires_at_ms);
        if len < listed.len() {
            listed.copy_within(at..len, at + 1);
            listed[at] = units;
            len += 1;
        } else {
            // The latest of them is not listed any more: the horizon comes nearer.
            let latest_ms = if at == 0 { expires_at_ms } else { expiry_at(listed[0]) };
            page.horizon_ms = page.horizon_ms.min(latest_ms);
            if at > 0 {
                listed.copy_within(1..at, 0);
                listed[at - 1] = units;
            }
        }
        page.listed = len as u32;
        let due_ms = self.due_of(slot, worth, expiry_at);
        self.lower(slot, due_ms);
    }

    /// When so many of the listed will be dead, as far as that is known.
    fn due_of(&self, slot: usize, worth: usize, expiry_at: impl Fn(u16) -> u64) -> u64 {
        let page = self.pages[slot];
        match (page.listed as usize).checked_sub(worth) {
            Some(at) => page.horizon_ms.min(expiry_at(self.listed[slot * self.listed_max + at])),
            None => page.horizon_ms,
        }
    }

    /// The places that are listed of the page, the soonest last.
    pub(super) fn listed(&self, slot: usize) -> &[u16] {
        let begin = slot * self.listed_max;
        let len = self.pages.get(slot).map_or(0, |page| page.listed as usize);
        if len == 0 { &[] } else { &self.listed[begin..begin + len] }
    }

    pub(super) fn horizon_ms(&self, slot: usize) -> u64 {
        self.pages.get(slot).map_or(NEVER, |page| page.horizon_ms)
    }

    /// The last place that is listed of the page is none of the soonest any more.
    pub(super) fn unlist_soonest(&mut self, slot: usize) {
        self.pages[slot].listed -= 1;
    }

    /// The last two places that are listed of the page change places.
    pub(super) fn swap_soonest(&mut self, slot: usize) {
        let end = slot * self.listed_max + self.pages[slot].listed as usize;
        self.listed.swap(end - 1, end - 2);
    }

    /// From now on there is an entry for each page.
    fn begin(&mut self, page_count: usize) {
        if self.pages.is_empty() {
            self.pages.resize(page_count, NOT_DUE);
            self.listed.resize(page_count * self.listed_max, 0);
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

    /// Someone looks at the page now: at all its items, or at the listed ones.
    pub(super) fn begin_look(&mut self, slot: usize, is_scan: bool) {
        if let Some(page) = self.pages.get(slot) {
            if page.place != 0 {
                self.unlist(slot);
            }
            let page = &mut self.pages[slot];
            *page = if is_scan { NOT_DUE } else { PageDue { due_ms: NEVER, ..*page } };
        }
        self.looked_at = Some(slot);
    }

    /// All items were looked at; of those that stay these expire soonest.
    pub(super) fn end_scan(&mut self, soonest: &Soonest, page_count: usize, worth: usize) {
        let slot = self.looked_at.take().expect("a look begins before it ends");
        if soonest.len == 0 {
            return;
        }
        self.begin(page_count);
        let listed = &mut self.listed[slot * self.listed_max..][..soonest.len];
        listed.iter_mut().rev().zip(&soonest.items).for_each(|(place, item)| *place = item.1);
        let page = &mut self.pages[slot];
        page.listed = soonest.len as u32;
        page.horizon_ms = page.horizon_ms.min(soonest.horizon_ms);
        let due_ms = soonest.items[..soonest.len].get(worth - 1).map_or(NEVER, |item| item.0);
        let due_ms = due_ms.min(page.horizon_ms);
        self.lower(slot, due_ms);
    }

    /// The listed items were looked at, and those that are dead by now have left.
    pub(super) fn end_look(&mut self, now_ms: u64, worth: usize, expiry_at: impl Fn(u16) -> u64) {
        let slot = self.looked_at.take().expect("a look begins before it ends");
        let due_ms = self.due_of(slot, worth, expiry_at);
        if due_ms <= now_ms {
            // The order has changed so much that only a scan helps.
            self.pages[slot].horizon_ms = due_ms;
        }
        self.lower(slot, due_ms);
    }

    /// The whole page is to be looked at now.
    pub(super) fn want_scan(&mut self, slot: usize, page_count: usize) {
        self.begin(page_count);
        self.pages[slot].horizon_ms = 0;
        self.lower(slot, 0);
    }

    /// The shard has a page more, in the last slot.
    pub(super) fn add_page(&mut self) {
        if !self.pages.is_empty() {
            self.pages.push(NOT_DUE);
            self.listed.resize(self.pages.len() * self.listed_max, 0);
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
        let last = self.pages.len() * self.listed_max;
        self.listed.copy_within(last.., slot * self.listed_max);
        self.listed.truncate(last);
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

    /// Panics with the number of a broken invariant. `items` gives where a page's items begin and when they expire.
    pub(super) fn check_invariants(&self, page_count: usize, items: impl Fn(usize) -> Vec<(u16, u64)>) {
        assert!(self.pages.is_empty() || self.pages.len() == page_count, "dues 1: an entry a page");
        assert_eq!(self.listed.len(), self.pages.len() * self.listed_max, "dues 1: places a page");
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
            let (horizon_ms, listed) = (self.horizon_ms(slot), self.listed(slot));
            let due_ms = self.pages.get(slot).map_or(NEVER, |page| page.due_ms);
            assert!(due_ms <= horizon_ms, "dues 4: slot {slot} is due at {due_ms}, behind {horizon_ms}");
            for (units, expires_at_ms) in items(slot) {
                let is_known = expires_at_ms >= horizon_ms || listed.contains(&units);
                assert!(is_known, "dues 3: {units} of slot {slot} expires at {expires_at_ms}, unlisted");
            }
        }
    }
}

/// The items of a page that expire soonest.
#[derive(Debug, Default)]
pub(super) struct Soonest {
    /// When each expires, and where it begins; ascending.
    items: [(u64, u16); LISTED_MAX],
    len: usize,
    len_max: usize,
    /// Whatever expires before is among them.
    horizon_ms: u64,
}

impl Soonest {
    fn new(len_max: usize) -> Soonest {
        Soonest { items: [(0, 0); LISTED_MAX], len: 0, len_max, horizon_ms: NEVER }
    }

    #[inline]
    pub(super) fn add(&mut self, expires_at_ms: u64, units: u16) {
        if expires_at_ms < self.horizon_ms {
            self.insert(expires_at_ms, units);
        }
    }

    fn insert(&mut self, expires_at_ms: u64, units: u16) {
        let at = self.items[..self.len].partition_point(|item| item.0 <= expires_at_ms);
        if self.len == self.len_max {
            if at == self.len {
                self.horizon_ms = expires_at_ms;
                return;
            }
            self.len -= 1;
            self.horizon_ms = self.items[self.len].0;
        }
        self.items.copy_within(at..self.len, at + 1);
        self.items[at] = (expires_at_ms, units);
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_BYTES: usize = 4 << 10;

    #[test]
    fn pages_become_overdue_in_the_order_of_their_dues() {
        let mut dues = Dues::new(PAGE_BYTES);
        let due = |slot: usize| (slot as u64 * 7919) % 101;
        for slot in 0..101 {
            dues.list(slot, 1, due(slot) + 50, 101, 1, |_| due(slot) + 50);
            dues.list(slot, 2, due(slot), 101, 1, |units| due(slot) + if units == 1 { 50 } else { 0 });
        }
        dues.remove_page(40, 100);
        let mut seen = Vec::new();
        dues.pass_on(60, usize::MAX);
        while let Some(slot) = dues.first_overdue() {
            seen.push(dues.pages[slot].due_ms);
            dues.begin_look(slot, true);
            dues.end_scan(&Soonest::new(2), 100, 1);
        }
        assert_eq!(seen, (0..=60).filter(|ms| *ms != due(40)).collect::<Vec<_>>());
        dues.check_invariants(100, |_| Vec::new());
    }

    #[test]
    fn the_soonest_are_listed_and_the_horizon_is_the_first_that_is_not() {
        let mut dues = Dues::new(2 * PAGE_BYTES);
        for (units, horizon_ms) in
            [(70, NEVER), (90, NEVER), (50, NEVER), (80, NEVER), (60, 90), (99, 90), (55, 80)]
        {
            if dues.is_soon(0, u64::from(units)) {
                dues.list(0, units, u64::from(units), 1, 2, u64::from);
            }
            assert_eq!(dues.horizon_ms(0), horizon_ms);
        }
        assert_eq!(dues.listed(0), [70, 60, 55, 50]);
        assert_eq!(dues.pages[0].due_ms, 55);
    }

    #[test]
    fn an_item_is_listed_once_however_often_it_is_touched() {
        let mut dues = Dues::new(PAGE_BYTES);
        for expires_at_ms in [30, 20, 40] {
            dues.list(0, 7, expires_at_ms, 1, 1, |_| expires_at_ms);
        }
        assert_eq!(dues.listed(0), [7]);
        assert_eq!(dues.horizon_ms(0), NEVER);
    }

    #[test]
    fn a_scan_lists_the_soonest() {
        let mut soonest = Soonest::new(3);
        for (moment, horizon_ms) in
            [(9, NEVER), (4, NEVER), (7, NEVER), (8, 9), (8, 8), (8, 8), (1, 8), (2, 7), (7, 7)]
        {
            soonest.add(moment, moment as u16);
            assert_eq!(soonest.horizon_ms, horizon_ms, "{moment}");
        }
        let mut dues = Dues::new(4 << 10);
        dues.listed_max = 3;
        dues.begin_look(0, true);
        dues.end_scan(&soonest, 1, 2);
        assert_eq!((dues.listed(0), dues.pages[0].due_ms), (&[4, 2, 1][..], 2));
    }
}
