//! Slabs: pages cut into chunks of one size each.
//!
//! Lives here: size classes, the shard's page table, free chunks, which class has a page's worth of them.
//! Not here: what a chunk holds beyond its tag (see `item`), who leaves when memory is short (see `room`).
//!
//! ```text
//!  ChunkRef = page number << unit_shift | offset / 8          (page 0 does not exist: its numbers name list markers)
//!
//!  page:  | chunk 0 | chunk 1 | chunk 2 | ... | never carved yet |
//!  chunk: free: next free u32, 0 u32, tag u64 = 0      live: anything u64, tag u64 != 0, anything
//!
//!  class: partial -> page 7 <-> page 3 <-> page 9      (each with at least one live and one free chunk)
//! ```
//! Why no bitmaps: the tag at offset 8 tells a free chunk from a live one, so a page's table entry stays small.

use std::num::NonZeroU32;

/// The smallest chunk: a header, the tag's eight bytes included, and eight bytes of key and value.
const CHUNK_BYTES_MIN: usize = 40;
/// Where each chunk keeps its tag.
pub(super) const TAG_AT: usize = 8;
/// The tag of a free chunk.
pub(super) const TAG_FREE: u64 = 0;
/// The tag of a chunk that continues an item, or is reserved for one. An item's first chunk has any other tag.
pub(super) const TAG_TAIL: u64 = 1;
/// How many partly filled pages a compaction looks at to find the emptiest.
const PAGES_LOOKED_AT: usize = 32;

/// Where a chunk begins, in units of 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRef(pub(super) NonZeroU32);

impl ChunkRef {
    pub(super) fn get(self) -> u32 {
        self.0.get()
    }

    pub(super) fn from_link(link: u32) -> Option<ChunkRef> {
        NonZeroU32::new(link).map(ChunkRef)
    }
}

/// An index into the table of size classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassId(pub(super) u8);

struct Page {
    /// Empty for a page number that is not in use.
    bytes: Box<[u8]>,
    class: ClassId,
    /// Neighbours in the class's list of partial pages; 0 is none.
    previous: u32,
    next: u32,
    live: u32,
    /// Bytes that have been cut into chunks; what follows is stale.
    carved_bytes: u32,
    /// First free chunk, as offset / 8 + 1; 0 is none.
    free_head: u32,
}

struct Class {
    chunk_bytes: usize,
    chunks_per_page: usize,
    pages: usize,
    free_chunks: usize,
    partial_head: u32,
}

/// The chunks of one shard.
///
/// 1. A class's `free_chunks` is the sum of its pages' `chunks_per_page - live`.
/// 2. A page is in its class's partial list exactly if it has a live and a free chunk; no page is without a live
///    chunk between operations: an empty one leaves at once.
/// 3. A page's free list holds exactly its carved chunks with the tag `TAG_FREE`.
/// 4. Bit `c` of `compactable` is set exactly if class `c` has `chunks_per_page` free chunks or more; then any of
///    its partial pages can be emptied into the others.
pub(super) struct Slabs {
    page_bytes: usize,
    unit_shift: u32,
    pages: Vec<Page>,
    vacant_numbers: Vec<u32>,
    classes: Vec<Class>,
    compactable: u128,
    page_count: usize,
}

impl Slabs {
    pub(super) fn new(page_bytes: usize) -> Slabs {
        let classes: Vec<Class> = class_sizes(page_bytes)
            .into_iter()
            .map(|chunk_bytes| Class {
                chunk_bytes,
                chunks_per_page: page_bytes / chunk_bytes,
                pages: 0,
                free_chunks: 0,
                partial_head: 0,
            })
            .collect();
        assert!(classes.len() <= 128, "the set of compactable classes has 128 bits");
        Slabs {
            page_bytes,
            unit_shift: (page_bytes / 8).ilog2(),
            pages: vec![Page::vacant()],
            vacant_numbers: Vec::new(),
            classes,
            compactable: 0,
            page_count: 0,
        }
    }

    /// The class with the smallest chunk of at least `bytes`.
    pub(super) fn class_at_least(&self, bytes: usize) -> Option<ClassId> {
        let class = self.classes.partition_point(|class| class.chunk_bytes < bytes);
        (class < self.classes.len()).then_some(ClassId(class as u8))
    }

    /// The class with the largest chunk of at most `bytes`.
    pub(super) fn class_at_most(&self, bytes: usize) -> Option<ClassId> {
        let above = self.classes.partition_point(|class| class.chunk_bytes <= bytes);
        above.checked_sub(1).map(|class| ClassId(class as u8))
    }

    pub(super) fn chunk_bytes(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].chunk_bytes
    }

    pub(super) fn chunks_per_page(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].chunks_per_page
    }

    pub(super) fn free_chunks(&self, class: ClassId) -> usize {
        self.classes[usize::from(class.0)].free_chunks
    }

    pub(super) fn page_count(&self) -> usize {
        self.page_count
    }

    pub(super) fn class_of(&self, chunk: ChunkRef) -> ClassId {
        self.pages[self.page_number(chunk)].class
    }

    /// The bytes from the chunk's begin to the page's end: the reader knows how much of it is his.
    #[inline]
    pub(super) fn bytes(&self, chunk: ChunkRef) -> &[u8] {
        &self.pages[self.page_number(chunk)].bytes[self.offset(chunk)..]
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, chunk: ChunkRef) -> &mut [u8] {
        let (number, offset) = (self.page_number(chunk), self.offset(chunk));
        &mut self.pages[number].bytes[offset..]
    }

    #[inline]
    pub(super) fn u32_at(&self, chunk: ChunkRef, at: usize) -> u32 {
        read_u32(self.bytes(chunk), at)
    }

    #[inline]
    pub(super) fn set_u32_at(&mut self, chunk: ChunkRef, at: usize, value: u32) {
        self.bytes_mut(chunk)[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(super) fn u64_at(&self, chunk: ChunkRef, at: usize) -> u64 {
        read_u64(self.bytes(chunk), at)
    }

    #[inline]
    pub(super) fn set_u64_at(&mut self, chunk: ChunkRef, at: usize, value: u64) {
        self.bytes_mut(chunk)[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// A chunk of this class, tagged as a tail, or `None` if the class has no free chunk.
    pub(super) fn allocate(&mut self, class: ClassId) -> Option<ChunkRef> {
        let number = self.classes[usize::from(class.0)].partial_head;
        if number == 0 {
            return None;
        }
        let chunk_bytes = self.chunk_bytes(class) as u32;
        let page = &mut self.pages[number as usize];
        let unit = if page.free_head != 0 {
            let unit = page.free_head - 1;
            page.free_head = read_u32(&page.bytes, unit as usize * 8);
            unit
        } else {
            let unit = page.carved_bytes / 8;
            page.carved_bytes += chunk_bytes;
            unit
        };
        page.live += 1;
        let full = page.live as usize == self.chunks_per_page(class);
        if full {
            self.unlink_partial(number);
        }
        self.change_free_chunks(class, -1);
        let chunk =
            ChunkRef(NonZeroU32::new((number << self.unit_shift) | unit).expect("page 0 has no chunks"));
        self.set_u64_at(chunk, TAG_AT, TAG_TAIL);
        Some(chunk)
    }

    /// Frees a chunk. If its page has no other live chunk, the page leaves and is returned.
    #[must_use]
    pub(super) fn release(&mut self, chunk: ChunkRef) -> Option<Box<[u8]>> {
        let number = self.page_number(chunk) as u32;
        let was_full = self.push_free(chunk);
        let page = &self.pages[number as usize];
        let (class, live) = (page.class, page.live);
        if live == 0 {
            if !was_full {
                self.unlink_partial(number);
            }
            return Some(self.remove_page(number));
        }
        if was_full {
            self.link_partial(class, number);
        }
        None
    }

    /// Gives a page to a class. The caller allocates from it before anything else happens (invariant 2).
    pub(super) fn add_page(&mut self, class: ClassId, bytes: Box<[u8]>) {
        let number = self.vacant_numbers.pop().unwrap_or_else(|| {
            self.pages.push(Page::vacant());
            (self.pages.len() - 1) as u32
        });
        assert!(number >> (32 - self.unit_shift) == 0, "the pool has no more pages than references reach");
        self.pages[number as usize] = Page { bytes, class, ..Page::vacant() };
        self.page_count += 1;
        self.classes[usize::from(class.0)].pages += 1;
        self.change_free_chunks(class, self.chunks_per_page(class) as isize);
        self.link_partial(class, number);
    }

    /// A class with at least a page's worth of free chunks beyond those that `kept_back` says are promised.
    pub(super) fn compactable_class(&self, kept_back: impl Fn(ClassId) -> usize) -> Option<ClassId> {
        let mut candidates = self.compactable;
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
    /// from it. The caller moves every live chunk away by [`Slabs::move_chunk`], then calls
    /// [`Slabs::finish_compaction`].
    pub(super) fn begin_compaction(&mut self, class: ClassId) -> PageNumber {
        let mut number = self.classes[usize::from(class.0)].partial_head;
        assert_ne!(number, 0, "a class with free chunks has a partial page");
        let (mut emptiest, mut live_min) = (number, u32::MAX);
        for _ in 0..PAGES_LOOKED_AT {
            let page = &self.pages[number as usize];
            if page.live < live_min {
                (emptiest, live_min) = (number, page.live);
            }
            number = page.next;
            if number == 0 {
                break;
            }
        }
        self.unlink_partial(emptiest);
        PageNumber(emptiest)
    }

    /// The first chunk at or after `offset` (in bytes) of this page that is live, and where the next one begins.
    pub(super) fn next_live(&self, page: PageNumber, mut offset: usize) -> Option<(ChunkRef, usize)> {
        let entry = &self.pages[page.0 as usize];
        let chunk_bytes = self.chunk_bytes(entry.class);
        while offset < entry.carved_bytes as usize {
            if read_u64(&entry.bytes, offset + TAG_AT) != TAG_FREE {
                let chunk = (page.0 << self.unit_shift) | (offset / 8) as u32;
                return Some((ChunkRef(NonZeroU32::new(chunk)?), offset + chunk_bytes));
            }
            offset += chunk_bytes;
        }
        None
    }

    /// Copies a chunk of a page under compaction to another chunk of its class and frees the old one.
    pub(super) fn move_chunk(&mut self, from: ChunkRef) -> ChunkRef {
        let class = self.class_of(from);
        let to = self.allocate(class).expect("the class has a page's worth of free chunks");
        let chunk_bytes = self.chunk_bytes(class);
        let (from_page, from_at) = (self.page_number(from), self.offset(from));
        let (to_page, to_at) = (self.page_number(to), self.offset(to));
        let [source, target] =
            self.pages.get_disjoint_mut([from_page, to_page]).expect("no chunk moves within its page");
        target.bytes[to_at..to_at + chunk_bytes]
            .copy_from_slice(&source.bytes[from_at..from_at + chunk_bytes]);
        self.push_free(from);
        to
    }

    pub(super) fn finish_compaction(&mut self, page: PageNumber) -> Box<[u8]> {
        assert_eq!(self.pages[page.0 as usize].live, 0, "a compacted page has no live chunk");
        self.remove_page(page.0)
    }

    /// All pages leave.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Box<[u8]>> + use<> {
        let pages = std::mem::take(&mut self.pages);
        *self = Slabs::new(self.page_bytes);
        pages.into_iter().map(|page| page.bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Puts a chunk on its page's free list; whether the page was full.
    fn push_free(&mut self, chunk: ChunkRef) -> bool {
        let class = self.class_of(chunk);
        let (number, offset) = (self.page_number(chunk), self.offset(chunk));
        debug_assert_ne!(self.u64_at(chunk, TAG_AT), TAG_FREE, "a chunk is freed once");
        self.set_u64_at(chunk, TAG_AT, TAG_FREE);
        self.set_u32_at(chunk, 0, self.pages[number].free_head);
        let page = &mut self.pages[number];
        page.free_head = (offset / 8) as u32 + 1;
        page.live -= 1;
        let was_full = page.live as usize + 1 == self.chunks_per_page(class);
        self.change_free_chunks(class, 1);
        was_full
    }

    fn remove_page(&mut self, number: u32) -> Box<[u8]> {
        let page = std::mem::replace(&mut self.pages[number as usize], Page::vacant());
        self.vacant_numbers.push(number);
        self.page_count -= 1;
        self.classes[usize::from(page.class.0)].pages -= 1;
        self.change_free_chunks(page.class, -(self.chunks_per_page(page.class) as isize));
        page.bytes
    }

    fn change_free_chunks(&mut self, class: ClassId, by: isize) {
        let entry = &mut self.classes[usize::from(class.0)];
        entry.free_chunks = entry.free_chunks.strict_add_signed(by);
        let bit = 1u128 << class.0;
        if entry.free_chunks >= entry.chunks_per_page {
            self.compactable |= bit;
        } else {
            self.compactable &= !bit;
        }
    }

    fn link_partial(&mut self, class: ClassId, number: u32) {
        let head = std::mem::replace(&mut self.classes[usize::from(class.0)].partial_head, number);
        if head != 0 {
            self.pages[head as usize].previous = number;
        }
        let page = &mut self.pages[number as usize];
        (page.previous, page.next) = (0, head);
    }

    fn unlink_partial(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        let (previous, next, class) = (page.previous, page.next, page.class);
        (page.previous, page.next) = (0, 0);
        match previous {
            0 => self.classes[usize::from(class.0)].partial_head = next,
            _ => self.pages[previous as usize].next = next,
        }
        if next != 0 {
            self.pages[next as usize].previous = previous;
        }
    }

    #[inline]
    fn page_number(&self, chunk: ChunkRef) -> usize {
        (chunk.get() >> self.unit_shift) as usize
    }

    #[inline]
    fn offset(&self, chunk: ChunkRef) -> usize {
        (chunk.get() as usize & ((1 << self.unit_shift) - 1)) * 8
    }

    /// Live chunks of all classes.
    pub(super) fn live_chunks(&self) -> usize {
        self.pages.iter().map(|page| page.live as usize).sum()
    }

    /// Panics with the number of a broken invariant.
    pub(super) fn check_invariants(&self) {
        let used = || self.pages.iter().enumerate().filter(|(_, page)| !page.bytes.is_empty());
        assert_eq!(used().count(), self.page_count, "slabs: page count");
        assert_eq!(
            self.pages.len(),
            1 + self.page_count + self.vacant_numbers.len(),
            "slabs: vacant numbers"
        );
        let mut partial = vec![false; self.pages.len()];
        for (index, class) in self.classes.iter().enumerate() {
            let pages = || used().filter(|(_, page)| usize::from(page.class.0) == index);
            let free: usize = pages().map(|(_, page)| class.chunks_per_page - page.live as usize).sum();
            assert_eq!(free, class.free_chunks, "slabs 1: free chunks of class {index}");
            assert_eq!(pages().count(), class.pages, "slabs 1: pages of class {index}");
            let compactable = self.compactable >> index & 1 == 1;
            assert_eq!(compactable, free >= class.chunks_per_page, "slabs 4: compactable class {index}");
            let (mut previous, mut number) = (0, class.partial_head);
            while number != 0 {
                let page = &self.pages[number as usize];
                assert_eq!(
                    (page.previous, usize::from(page.class.0)),
                    (previous, index),
                    "slabs 2: partial list"
                );
                partial[number as usize] = true;
                (previous, number) = (number, page.next);
            }
        }
        for (number, page) in used() {
            let chunks_per_page = self.chunks_per_page(page.class) as u32;
            assert_eq!(page.bytes.len(), self.page_bytes, "slabs: size of page {number}");
            assert!(page.live > 0 && page.live <= chunks_per_page, "slabs 2: page {number} is empty");
            assert_eq!(
                partial[number],
                page.live < chunks_per_page,
                "slabs 2: page {number} in partial list"
            );
            self.check_free_list(number, page);
        }
    }

    fn check_free_list(&self, number: usize, page: &Page) {
        let chunk_bytes = self.chunk_bytes(page.class);
        let tagged_free = (0..page.carved_bytes as usize)
            .step_by(chunk_bytes)
            .filter(|offset| read_u64(&page.bytes, offset + TAG_AT) == TAG_FREE)
            .count();
        let (mut listed, mut head) = (0, page.free_head);
        while head != 0 {
            let offset = (head as usize - 1) * 8;
            assert!(offset.is_multiple_of(chunk_bytes), "slabs 3: free list of page {number}");
            assert_eq!(
                read_u64(&page.bytes, offset + TAG_AT),
                TAG_FREE,
                "slabs 3: free list of page {number}"
            );
            listed += 1;
            assert!(listed <= tagged_free, "slabs 3: free list of page {number} has a loop");
            head = read_u32(&page.bytes, offset);
        }
        assert_eq!(listed, tagged_free, "slabs 3: free list of page {number}");
        let carved = page.carved_bytes as usize / chunk_bytes;
        assert_eq!(carved - listed, page.live as usize, "slabs 3: live chunks of page {number}");
    }
}

impl Page {
    fn vacant() -> Page {
        Page {
            bytes: Box::default(),
            class: ClassId(0),
            previous: 0,
            next: 0,
            live: 0,
            carved_bytes: 0,
            free_head: 0,
        }
    }
}

/// A page under compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageNumber(u32);

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Chunk sizes: each the largest multiple of 8 of which so many fit a page, and at most 1/8 (or 8 bytes) above the
/// one before, until a ninth of a page; then an eighth, a seventh … of a page, up to a whole one.
fn class_sizes(page_bytes: usize) -> Vec<usize> {
    let mut sizes = Vec::new();
    let mut chunks = page_bytes / CHUNK_BYTES_MIN;
    let mut size = (page_bytes / chunks) & !7;
    loop {
        sizes.push(size);
        if chunks == 1 {
            return sizes;
        }
        let limit = (size + 8).max(size + size / 8);
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
    fn classes_are_at_most_an_eighth_apart_below_a_ninth_of_a_page() {
        for page_bytes in [4 << 10, 8 << 10, 16 << 10, 64 << 10] {
            let sizes = class_sizes(page_bytes);
            assert_eq!(*sizes.last().unwrap(), page_bytes);
            assert!(sizes.len() <= 128);
            for pair in sizes.windows(2) {
                let step = pair[1] - pair[0];
                if pair[1] <= page_bytes / 9 {
                    assert!(step <= 8.max(pair[0] / 8), "{pair:?} of {page_bytes}");
                }
                assert!(pair[1] % 8 == 0 && step >= 8);
            }
        }
    }

    #[test]
    fn an_empty_page_leaves_at_once() {
        let mut slabs = Slabs::new(4 << 10);
        let class = slabs.class_at_least(100).unwrap();
        slabs.add_page(class, vec![0xff; 4 << 10].into());
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
