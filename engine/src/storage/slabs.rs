//! Slabs: pages cut into chunks of one size each.
//!
//! Lives here: size classes, free chunks, a shard's pages by class, which class has a page's worth of free chunks.
//! Not here: what a chunk holds beyond its tag (see `item`), who leaves when memory is short (see `room`), where a
//! page lies and its entry in the page table (see `memory`).
//!
//! ```text
//!  ChunkRef = page number << unit_shift | offset / 8          (page 0 does not exist: its numbers name list markers)
//!
//!  page:  | chunk 0 | chunk 1 | chunk 2 | ... | never carved yet |
//!  chunk: free: next free u32, 0 u32, tag u32 = 0      live: anything u64, tag u32 != 0, anything
//!
//!  class: partial -> page 7 <-> page 3 <-> page 9      (each with at least one live and one free chunk)
//! ```
//! Why no bitmaps: the tag at offset 8 tells a free chunk from a live one, so a page's table entry stays small.

use std::num::NonZeroU32;

use super::accounting::ClassHeld;
use super::cuts;
use super::due::Dues;
use super::memory::{ChunkRef, Memory, PageEntry};

/// The smallest chunk: a header of 20 bytes and four bytes of key and value.
const CHUNK_BYTES_MIN: usize = 24;
/// Where each chunk keeps its tag.
pub(super) const TAG_AT: usize = 8;
/// The tag of a free chunk.
pub(super) const TAG_FREE: u32 = 0;
/// The tag of a chunk that continues an item, or is reserved for one. An item's first chunk has any other tag.
pub(super) const TAG_TAIL: u32 = 1;
/// Sizes below this one have their class looked up in a table; all of them fit the smallest page.
const SMALL_BYTES: usize = 2 << 10;
/// Those in units of 8 bytes.
const SMALL_UNITS: usize = SMALL_BYTES / 8;
/// In the table of small sizes, beside a class; there are at most 128.
const MAY_BE_CUT: u8 = 1 << 7;
/// How many partly filled pages a compaction looks at to find the emptiest.
const PAGES_LOOKED_AT: usize = 32;

/// An index into the table of size classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ClassId(pub(super) u8);

/// What was counted of the items that began in a class, since the shard was made or its counters were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClassCounts {
    pub(crate) evictions: u64,
    pub(crate) evicted_unfetched: u64,
    pub(crate) expired_unfetched: u64,
    pub(crate) reclaimed: u64,
    /// Items that were refused for want of memory.
    pub(crate) no_memory: u64,
    /// Of the evicted ones, those that would have expired.
    pub(crate) evicted_expiring: u64,
}

impl ClassCounts {
    /// A dead item's memory is used again.
    pub(super) fn reclaim(&mut self, is_expired_unfetched: bool) {
        self.reclaimed += 1;
        self.expired_unfetched += u64::from(is_expired_unfetched);
    }

    pub(crate) fn add(&mut self, other: ClassCounts) {
        self.evictions += other.evictions;
        self.evicted_unfetched += other.evicted_unfetched;
        self.expired_unfetched += other.expired_unfetched;
        self.reclaimed += other.reclaimed;
        self.no_memory += other.no_memory;
        self.evicted_expiring += other.evicted_expiring;
    }
}

struct Class {
    counts: ClassCounts,
    held: ClassHeld,
    partial_head: u32,
    chunk_bytes: u32,
    chunks_per_page: u32,
    pages: u32,
    free_chunks: u32,
}

/// What one class holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassSize {
    pub(crate) chunk_bytes: usize,
    pub(crate) chunks_per_page: usize,
    pub(crate) pages: usize,
    pub(crate) free_chunks: usize,
    pub(crate) counts: ClassCounts,
    pub(crate) held: ClassHeld,
}

/// A bit for each class. (Not a `u128`: that would align whatever contains it to 16 bytes.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ClassSet([u64; 2]);

impl ClassSet {
    fn bits(self) -> u128 {
        u128::from(self.0[1]) << 64 | u128::from(self.0[0])
    }

    #[inline]
    fn put(&mut self, class: ClassId, is_in: bool) {
        let (half, bit) = (&mut self.0[usize::from(class.0 >> 6)], class.0 & 63);
        *half = *half & !(1 << bit) | u64::from(is_in) << bit;
    }
}

/// The chunks of one shard.
///
/// 1. A class's `free_chunks` is the sum of its pages' `chunks_per_page - live`.
/// 2. A page is in its class's partial list exactly if it has a live and a free chunk; no page is without a live
///    chunk between operations: an empty one leaves at once. `pages[entry.slot]` is the page's number.
/// 3. A page's free list holds exactly its carved chunks with the tag `TAG_FREE`.
/// 4. Bit `c` of `compactable` is set exactly if class `c` has `chunks_per_page` free chunks or more; then any of
///    its partial pages can be emptied into the others.
pub(super) struct Slabs {
    memory: Memory,
    unit_shift: u32,
    classes: Vec<Class>,
    /// By size in units of 8 bytes, rounded up: the smallest class that has it, for sizes below `SMALL_BYTES`; with
    /// [`MAY_BE_CUT`] unless each item of such a size is a whole chunk of it.
    small_classes: Box<[u8; SMALL_UNITS]>,
    compactable: ClassSet,
    /// The numbers of all pages, in no order.
    pages: Vec<u32>,
    /// When it is worth looking for dead items on which page.
    pub(super) dues: Dues,
}

impl Slabs {
    pub(super) fn new(memory: Memory) -> Slabs {
        let page_bytes = memory.page_bytes();
        let classes: Vec<Class> = class_sizes(page_bytes)
            .into_iter()
            .map(|chunk_bytes| Class {
                counts: ClassCounts::default(),
                held: ClassHeld::default(),
                chunk_bytes: chunk_bytes as u32,
                chunks_per_page: (page_bytes / chunk_bytes) as u32,
                pages: 0,
                free_chunks: 0,
                partial_head: 0,
            })
            .collect();
        assert!(classes.len() <= 128, "the set of compactable classes has 128 bits");
        let class_of_units =
            |units| classes.partition_point(|class: &Class| (class.chunk_bytes as usize) < units * 8) as u8;
        let small_class = |units: usize| {
            let class = class_of_units(units);
            let chunk_bytes = classes[usize::from(class)].chunk_bytes as usize;
            let fits = (units * 8).saturating_sub(7) > 0
                && (units * 8 - 7..=units * 8).all(|bytes| cuts::fits(ClassId(class), chunk_bytes, bytes));
            if fits { class } else { class | MAY_BE_CUT }
        };
        let small_classes = Box::new(std::array::from_fn(small_class));
        Slabs {
            unit_shift: (page_bytes / 8).ilog2(),
            memory,
            classes,
            small_classes,
            compactable: ClassSet::default(),
            pages: Vec::new(),
            dues: Dues::new(page_bytes),
        }
    }

    #[inline]
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn dues_and_memory(&mut self) -> (&mut Dues, &Memory) {
        (&mut self.dues, &self.memory)
    }

    /// The class with the smallest chunk of at least `bytes`.
    #[inline]
    pub(super) fn class_at_least(&self, bytes: usize) -> Option<ClassId> {
        if let Some(class) = self.small_classes.get(bytes.div_ceil(8)) {
            return Some(ClassId(class & !MAY_BE_CUT));
        }
        let class = self.classes.partition_point(|class| (class.chunk_bytes as usize) < bytes);
        (class < self.classes.len()).then_some(ClassId(class as u8))
    }

    /// The class of whose chunks an item of `bytes` is one, as far as a table says so.
    #[inline]
    pub(super) fn small_fitting_class(&self, bytes: usize) -> Option<ClassId> {
        let class = *self.small_classes.get(bytes.wrapping_add(7) / 8)?;
        (class & MAY_BE_CUT == 0).then_some(ClassId(class))
    }

    /// Whether an item of `bytes` is a whole chunk of this class, as far as a table says so.
    #[inline]
    pub(super) fn is_small_fitting(&self, bytes: usize, class: ClassId) -> bool {
        debug_assert_eq!(class.0 & MAY_BE_CUT, 0);
        self.small_classes.get(bytes.wrapping_add(7) / 8) == Some(&class.0)
    }

    /// Whether a chunk of this class can be allocated.
    #[inline]
    pub(super) fn has_free_chunk(&self, class: ClassId) -> bool {
        self.classes[usize::from(class.0)].partial_head != 0
    }

    /// The class with the largest chunk of at most `bytes`.
    pub(super) fn class_at_most(&self, bytes: usize) -> Option<ClassId> {
        let above = self.classes.partition_point(|class| class.chunk_bytes as usize <= bytes);
        above.checked_sub(1).map(|class| ClassId(class as u8))
    }

    /// The class whose chunks are whole pages.
    pub(super) fn page_class(&self) -> ClassId {
        ClassId(self.classes.len() as u8 - 1)
    }

    pub(super) fn chunk_bytes(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].chunk_bytes as usize
    }

    pub(super) fn chunks_per_page(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].chunks_per_page as usize
    }

    pub(super) fn free_chunks(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].free_chunks as usize
    }

    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Each class, from the smallest chunk to the largest.
    pub(super) fn sizes(&self) -> impl Iterator<Item = ClassSize> + '_ {
        self.classes.iter().map(|class| ClassSize {
            chunk_bytes: class.chunk_bytes as usize,
            chunks_per_page: class.chunks_per_page as usize,
            pages: class.pages as usize,
            free_chunks: class.free_chunks as usize,
            counts: class.counts,
            held: class.held,
        })
    }

    /// The counts of all classes together.
    pub(super) fn counts(&self) -> ClassCounts {
        let mut sum = ClassCounts::default();
        self.classes.iter().for_each(|class| sum.add(class.counts));
        sum
    }

    /// What is counted of a class.
    #[inline]
    pub(super) fn counts_of(&mut self, class: ClassId) -> &mut ClassCounts {
        &mut self.classes[usize::from(class.0)].counts
    }

    /// What a class holds.
    #[inline]
    pub(super) fn held_of(&mut self, class: ClassId) -> &mut ClassHeld {
        &mut self.classes[usize::from(class.0)].held
    }

    pub(super) fn reset_counts(&mut self) {
        for class in &mut self.classes {
            (class.counts, class.held.evicted_age_s) = (ClassCounts::default(), 0);
        }
    }

    /// Whether some class has a page's worth of free chunks.
    #[inline]
    pub(super) fn is_compactable(&self) -> bool {
        self.compactable != ClassSet::default()
    }

    #[inline]
    pub(super) fn class_of(&self, chunk: ChunkRef) -> ClassId {
        self.class_of_page(self.page_number(chunk))
    }

    #[inline]
    fn class_of_page(&self, page: u32) -> ClassId {
        ClassId(self.entry(page).class.get() as u8)
    }

    #[inline]
    fn entry(&self, page: u32) -> &PageEntry {
        self.memory.entry(page)
    }

    /// A chunk of this class, tagged as a tail, or `None` if the class has no free chunk.
    #[inline]
    pub(super) fn allocate(&mut self, class: ClassId) -> Option<ChunkRef> {
        match self.classes[usize::from(class.0)].partial_head {
            0 => None,
            number => Some(self.allocate_from(class, number)),
        }
    }

    /// A chunk of the class's first partial page.
    #[inline(never)]
    fn allocate_from(&mut self, class: ClassId, number: u32) -> ChunkRef {
        let entry = &mut self.classes[usize::from(class.0)];
        let page = self.memory.entry(number);
        let free_head = page.free_head.get();
        let unit = if free_head != 0 { free_head - 1 } else { page.carved_bytes.get() / 8 };
        let chunk =
            ChunkRef(NonZeroU32::new(number << self.unit_shift | unit).expect("page 0 has no chunks"));
        if free_head != 0 {
            page.free_head.set(self.memory.word(chunk, 0).get());
        } else {
            page.carved_bytes.set(page.carved_bytes.get() + entry.chunk_bytes);
        }
        self.memory.word(chunk, TAG_AT).set(TAG_TAIL);
        let live = page.live.get() + 1;
        page.live.set(live);
        if live == entry.chunks_per_page {
            // It is the head, so the next one becomes it.
            entry.partial_head = page.next.get();
            if entry.partial_head != 0 {
                self.memory.entry(entry.partial_head).previous.set(0);
            }
        }
        self.change_free_chunks(class, -1);
        chunk
    }

    /// Frees a chunk. If its page has no other live chunk, the page leaves and is returned.
    #[must_use]
    #[inline]
    pub(super) fn release(&mut self, chunk: ChunkRef) -> Option<u32> {
        let number = self.page_number(chunk);
        let was_full = self.push_free(chunk);
        if self.entry(number).live.get() == 0 {
            if !was_full {
                self.unlink_partial(number);
            }
            self.forget_page(number);
            return Some(number);
        }
        if was_full {
            self.link_partial(number);
        }
        // Most likely it is what the next item of its class gets: a store into memory that has yet to be fetched holds up the
        // locked instruction behind it.
        self.memory.prefetch_to_reuse(chunk);
        None
    }

    /// Gives a page to a class. The caller allocates from it before anything else happens (invariant 2).
    pub(super) fn add_page(&mut self, class: ClassId, number: u32) {
        let entry = self.memory.entry(number);
        entry.class.set(u32::from(class.0));
        entry.chunk_bytes.set(self.chunk_bytes(class) as u32);
        entry.live.set(0);
        entry.carved_bytes.set(0);
        entry.free_head.set(0);
        entry.slot.set(self.pages.len() as u32);
        self.pages.push(number);
        self.dues.add_page();
        self.classes[usize::from(class.0)].pages += 1;
        self.change_free_chunks(class, self.chunks_per_page(class) as isize);
        self.link_partial(number);
    }

    /// A class with at least a page's worth of free chunks beyond those that `kept_back` says are promised.
    pub(super) fn compactable_class(&self, kept_back: impl Fn(ClassId) -> usize) -> Option<ClassId> {
        let mut candidates = self.compactable.bits();
        while candidates != 0 {
            let class = ClassId(candidates.trailing_zeros() as u8);
            if self.free_chunks(class) >= self.chunks_per_page(class) + kept_back(class) {
                return Some(class);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Chooses the emptiest of the first partial pages and takes it off the list, so that nothing is allocated
    /// from it. The caller moves every live chunk away by [`Slabs::begin_move`] and [`Slabs::end_move`], then calls
    /// [`Slabs::finish_compaction`].
    pub(super) fn begin_compaction(&mut self, class: ClassId) -> PageNumber {
        let mut number = self.classes[usize::from(class.0)].partial_head;
        assert_ne!(number, 0, "a class with free chunks has a partial page");
        let (mut emptiest, mut live_min) = (number, u32::MAX);
        for _ in 0..PAGES_LOOKED_AT {
            let page = self.entry(number);
            if page.live.get() < live_min {
                (emptiest, live_min) = (number, page.live.get());
            }
            number = page.next.get();
            if number == 0 {
                break;
            }
        }
        self.unlink_partial(emptiest);
        PageNumber(emptiest)
    }

    /// The first chunk at or after `offset` (in bytes) of this page that is live, and where the next one begins.
    pub(super) fn next_live(&self, page: PageNumber, mut offset: usize) -> Option<(ChunkRef, usize)> {
        let entry = self.entry(page.0);
        let (chunk_bytes, carved_bytes) =
            (entry.chunk_bytes.get() as usize, entry.carved_bytes.get() as usize);
        while offset < carved_bytes {
            let chunk = self.chunk(page.0, (offset / 8) as u32);
            if self.memory.word(chunk, TAG_AT).get() != TAG_FREE {
                return Some((chunk, offset + chunk_bytes));
            }
            offset += chunk_bytes;
        }
        None
    }

    /// The chunks of the page in this slot, as far as it was carved.
    #[inline]
    pub(super) fn chunks_of(&self, slot: usize) -> Chunks {
        let number = self.pages[slot];
        let entry = self.entry(number);
        Chunks {
            first: number << self.unit_shift,
            units: entry.chunk_bytes.get() / 8,
            end: (number << self.unit_shift) + entry.carved_bytes.get() / 8,
        }
    }

    /// How many chunks the page in this slot has.
    pub(super) fn chunks_at(&self, slot: usize) -> usize {
        self.chunks_per_page(self.class_of_page(self.pages[slot]))
    }

    /// Where the chunk's page is listed.
    #[inline]
    pub(super) fn slot_of(&self, chunk: ChunkRef) -> usize {
        self.entry(self.page_number(chunk)).slot.get() as usize
    }

    /// Copies a chunk of a page under compaction to another chunk of its class. The caller holds the line of the
    /// chunk's item, makes everything name the new chunk, and then calls [`Slabs::end_move`].
    pub(super) fn begin_move(&mut self, from: ChunkRef) -> ChunkRef {
        let class = self.class_of(from);
        let to = self.allocate(class).expect("the class has a page's worth of free chunks");
        // SAFETY: both are chunks of this class and differ, since the source's page is off the partial list; the
        // target was just allocated; this shard and, as required above, the item's line are held.
        unsafe { self.memory.copy(from, to, self.chunk_bytes(class)) };
        to
    }

    /// Frees the chunk that was moved.
    pub(super) fn end_move(&mut self, from: ChunkRef) {
        self.push_free(from);
    }

    pub(super) fn finish_compaction(&mut self, page: PageNumber) -> u32 {
        assert_eq!(self.entry(page.0).live.get(), 0, "a compacted page has no live chunk");
        self.forget_page(page.0);
        page.0
    }

    /// All pages leave.
    pub(super) fn drain(&mut self) -> Vec<u32> {
        let pages = std::mem::take(&mut self.pages);
        let empty = Slabs::new(self.memory.clone());
        let counts: Vec<_> =
            std::mem::replace(self, empty).classes.iter().map(|class| class.counts).collect();
        self.classes.iter_mut().zip(counts).for_each(|(class, counts)| class.counts = counts);
        pages
    }

    /// Puts a chunk on its page's free list; whether the page was full.
    #[inline]
    fn push_free(&mut self, chunk: ChunkRef) -> bool {
        let page = self.memory.entry(self.page_number(chunk));
        let class = ClassId(page.class.get() as u8);
        let (tag, next) = (self.memory.word(chunk, TAG_AT), self.memory.word(chunk, 0));
        debug_assert_ne!(tag.get(), TAG_FREE, "a chunk is freed once");
        tag.set(TAG_FREE);
        next.set(page.free_head.get());
        page.free_head.set(self.unit(chunk) + 1);
        page.live.set(page.live.get() - 1);
        let was_full = page.live.get() as usize + 1 == self.chunks_per_page(class);
        self.change_free_chunks(class, 1);
        was_full
    }

    /// A page that is in no list any more and has no live chunk is not this shard's.
    fn forget_page(&mut self, number: u32) {
        let class = self.class_of_page(number);
        let slot = self.entry(number).slot.get() as usize;
        self.pages.swap_remove(slot);
        if let Some(moved) = self.pages.get(slot) {
            self.memory.entry(*moved).slot.set(slot as u32);
        }
        self.dues.remove_page(slot, self.pages.len());
        self.classes[usize::from(class.0)].pages -= 1;
        self.change_free_chunks(class, -(self.chunks_per_page(class) as isize));
    }

    #[inline]
    fn change_free_chunks(&mut self, class: ClassId, by: isize) {
        let entry = &mut self.classes[usize::from(class.0)];
        entry.free_chunks = entry.free_chunks.strict_add_signed(by as i32);
        let is_compactable = entry.free_chunks >= entry.chunks_per_page;
        self.compactable.put(class, is_compactable);
    }

    fn link_partial(&mut self, number: u32) {
        let page = self.memory.entry(number);
        let class = page.class.get() as usize;
        let head = std::mem::replace(&mut self.classes[class].partial_head, number);
        if head != 0 {
            self.memory.entry(head).previous.set(number);
        }
        page.previous.set(0);
        page.next.set(head);
    }

    fn unlink_partial(&mut self, number: u32) {
        let page = self.memory.entry(number);
        let (previous, next) = (page.previous.get(), page.next.get());
        match previous {
            0 => self.classes[page.class.get() as usize].partial_head = next,
            _ => self.memory.entry(previous).next.set(next),
        }
        if next != 0 {
            self.memory.entry(next).previous.set(previous);
        }
    }

    #[inline]
    fn page_number(&self, chunk: ChunkRef) -> u32 {
        chunk.get() >> self.unit_shift
    }

    #[inline]
    fn unit(&self, chunk: ChunkRef) -> u32 {
        chunk.get() & ((1 << self.unit_shift) - 1)
    }

    fn chunk(&self, page: u32, unit: u32) -> ChunkRef {
        ChunkRef(NonZeroU32::new(page << self.unit_shift | unit).expect("page 0 has no chunks"))
    }

    fn partial_pages(&self, class: usize) -> Vec<u32> {
        let mut pages = Vec::new();
        let (mut previous, mut number) = (0, self.classes[class].partial_head);
        while number != 0 {
            let page = self.entry(number);
            let place = (page.previous.get(), page.class.get() as usize);
            assert_eq!(place, (previous, class), "slabs 2: partial list");
            pages.push(number);
            (previous, number) = (number, page.next.get());
        }
        pages
    }

    /// Live chunks of all classes.
    pub(super) fn live_chunks(&self) -> usize {
        self.pages.iter().map(|page| self.entry(*page).live.get() as usize).sum()
    }

    /// Panics with the number of a broken invariant.
    pub(super) fn check_invariants(&self) {
        for (slot, number) in self.pages.iter().enumerate() {
            assert_eq!(self.entry(*number).slot.get() as usize, slot, "slabs 2: slot of page {number}");
        }
        for (index, class) in self.classes.iter().enumerate() {
            let partial = self.partial_pages(index);
            let of_class = |page: &&u32| self.entry(**page).class.get() as usize == index;
            let (mut free, mut pages, per_page) = (0, 0, class.chunks_per_page as usize);
            for number in self.pages.iter().filter(of_class) {
                let live = self.entry(*number).live.get() as usize;
                assert!(live > 0 && live <= per_page, "slabs 2: page {number} is empty");
                let is_partial = live < per_page;
                assert_eq!(is_partial, partial.contains(number), "slabs 2: list of page {number}");
                assert_eq!(self.entry(*number).chunk_bytes.get(), class.chunk_bytes);
                free += per_page - live;
                pages += 1;
                self.check_free_list(*number);
            }
            assert_eq!(free, class.free_chunks as usize, "slabs 1: free chunks of class {index}");
            assert_eq!(pages, class.pages as usize, "slabs 1: pages of class {index}");
            let compactable = self.compactable.bits() >> index & 1 == 1;
            assert_eq!(compactable, free >= per_page, "slabs 4: compactable class {index}");
        }
    }

    fn check_free_list(&self, number: u32) {
        let page = self.entry(number);
        let chunk_bytes = page.chunk_bytes.get();
        let carved_bytes = page.carved_bytes.get();
        let tag = |offset: u32| self.memory.word(self.chunk(number, offset / 8), TAG_AT).get();
        let tagged_free =
            (0..carved_bytes).step_by(chunk_bytes as usize).filter(|offset| tag(*offset) == TAG_FREE).count();
        let (mut listed, mut head) = (0, page.free_head.get());
        while head != 0 {
            let offset = (head - 1) * 8;
            assert!(offset.is_multiple_of(chunk_bytes), "slabs 3: free list of page {number}");
            assert_eq!(tag(offset), TAG_FREE, "slabs 3: free list of page {number}");
            listed += 1;
            assert!(listed <= tagged_free, "slabs 3: free list of page {number} has a loop");
            head = self.memory.word(self.chunk(number, head - 1), 0).get();
        }
        assert_eq!(listed, tagged_free, "slabs 3: free list of page {number}");
        let carved = (carved_bytes / chunk_bytes) as usize;
        assert_eq!(carved - listed, page.live.get() as usize, "slabs 3: live chunks of page {number}");
    }
}

/// A page's chunks, one after the other; they stay the same while the page is the shard's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    first: u32,
    /// The size of one.
    units: u32,
    end: u32,
}

impl Chunks {
    /// The chunk that begins `units` behind the page's begin.
    #[inline]
    pub(super) fn starting_at(self, units: u16) -> ChunkRef {
        ChunkRef(NonZeroU32::new(self.first + u32::from(units)).expect("page 0 has no chunks"))
    }

    /// How far behind the page's begin a chunk of it lies; a page has at most 8192 units.
    #[inline]
    pub(super) fn units_of(self, chunk: ChunkRef) -> u16 {
        (chunk.get() - self.first) as u16
    }

    /// The chunk that begins `units` behind the page's begin, and where the next one does.
    #[inline]
    pub(super) fn at(self, units: u32) -> Option<(ChunkRef, u32)> {
        let chunk = self.first + units;
        (chunk < self.end)
            .then(|| (ChunkRef(NonZeroU32::new(chunk).expect("page 0 has no chunks")), units + self.units))
    }
}

/// A page under compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageNumber(u32);

/// Chunk sizes: each the largest multiple of 8 of which so many fit a page, and at most 1/16 (and up to 8 bytes,
/// since sizes are multiples of 8) above the one before, until a seventeenth of a page; then a sixteenth, a fifteenth … of a page, up to a whole one.
fn class_sizes(page_bytes: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut chunks = page_bytes / CHUNK_BYTES_MIN;
    let mut size = (page_bytes / chunks) & !7;
    loop {
        sizes.push(size);
        if chunks == 1 {
            return sizes;
        }
        let limit = (size + 8).max(size + size / 16);
        chunks = page_bytes.div_ceil(limit).min(chunks - 1);
        while (page_bytes / chunks) & !7 <= size {
            chunks -= 1;
        }
        size = (page_bytes / chunks) & !7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_at_most_a_sixteenth_apart_below_a_seventeenth_of_a_page() {
        for page_bytes in [4 << 10, 8 << 10, 16 << 10, 64 << 10] {
            let sizes = class_sizes(page_bytes);
            assert_eq!(*sizes.last().unwrap(), page_bytes);
            assert!(sizes.len() <= 128);
            for pair in sizes.windows(2) {
                let step = pair[1] - pair[0];
                if pair[1] <= page_bytes / 17 {
                    assert!(step <= 8 + pair[0] / 16, "{pair:?} of {page_bytes}");
                }
                assert!(pair[1] % 8 == 0 && step >= 8);
            }
        }
    }

    #[test]
    fn an_empty_page_leaves_at_once() {
        let mut slabs = Slabs::new(Memory::reserve(4 << 10, 1 << 20).unwrap());
        let class = slabs.class_at_least(100).unwrap();
        slabs.add_page(class, 3);
        let chunks: Vec<ChunkRef> = std::iter::from_fn(|| slabs.allocate(class)).collect();
        assert_eq!(chunks.len(), slabs.chunks_per_page(class));
        slabs.check_invariants();
        let pages: Vec<bool> = chunks.into_iter().map(|chunk| slabs.release(chunk).is_some()).collect();
        assert_eq!(pages.iter().filter(|left| **left).count(), 1);
        assert_eq!(pages.last(), Some(&true));
        slabs.check_invariants();
        assert_eq!(slabs.page_count(), 0);
    }
}
