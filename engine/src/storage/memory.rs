//! Memory: one reserved range of addresses, in which pages of items, pages of index lines and the page table lie.
//!
//! Lives here: how a reference becomes an address, and every `unsafe` read and write of bytes.
//! Not here: which pages are in use (see `pages`), where the range comes from (see `mapping`), what the bytes mean.
//!
//! ```text
//!   mapping:  | page 0 (never used) | item page 1 | item page 2 | … |   line page 0 | line page 1 | … |   page table |
//!              \__ a ChunkRef is the offset in units of 8 bytes __/      64-byte lines of the index      32 B a page
//! ```
//! Why one range: a reference is turned into an address by one shift and one addition, without a table (a table of
//! boxed pages cost a dependent load a read; `tests/compare` shows a uniform read of 1 M keys), the kernel can back
//! it with huge pages, and what the hard limit counts is exactly what was touched here.
//!
//! **Who may touch what**: a word (links, tags, free lists, lines) is an atomic, so a racy access is defined. A key's
//! or value's bytes are plain: written only while no index line names their chunk, read only by whoever holds the
//! item's line or the shard, or has pinned its page, and a chunk is freed only after its line has been locked and the entry
//! is gone, and written again only when nobody has its page pinned.

use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::accounting::TRAILER_BYTES;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::item::{COLDER_AT, HOTTER_AT};
use super::line::Line;
use super::mapping::Mapping;
use super::pinned::Pins;

/// Bytes in which chunks are aligned and references count.
const UNIT_BYTES: usize = 8;
/// What 32-bit references reach.
const ITEM_BYTES_MAX: usize = (1 << 32) * UNIT_BYTES;

/// Where a chunk begins, in units of 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkRef(pub(super) NonZeroU32);

impl ChunkRef {
    #[inline]
    pub(super) fn get(self) -> u32 {
        self.0.get()
    }

    /// # Safety
    /// It is not 0: the reference of an entry, read by whoever holds its line or shard.
    #[inline]
    pub(super) unsafe fn of_entry(reference: u32) -> ChunkRef {
        debug_assert_ne!(reference, 0);
        // SAFETY: the caller's.
        ChunkRef(unsafe { NonZeroU32::new_unchecked(reference) })
    }

    #[inline]
    pub(super) fn from_link(link: u32) -> Option<ChunkRef> {
        NonZeroU32::new(link).map(ChunkRef)
    }
}

/// What is known of one item page; changed only under the lock of the shard that has the page.
#[derive(Default)]
#[repr(C, align(32))]
pub(super) struct PageEntry {
    pub(super) class: Word,
    /// Also read without the shard's lock, by readers of a chained item.
    pub(super) chunk_bytes: Word,
    /// Neighbours in the class's list of partial pages, or of full ones; 0 is none.
    pub(super) previous: Word,
    pub(super) next: Word,
    pub(super) live: Word,
    /// Bytes that have been cut into chunks; what follows is stale.
    pub(super) carved_bytes: Word,
    /// First free chunk, as offset / 8 + 1; 0 is none.
    pub(super) free_head: Word,
    /// Where its shard lists it.
    pub(super) slot: Word,
}

/// A 32-bit word in shared memory.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Word(AtomicU32);

impl Word {
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }
}

/// A handle on a cache's memory; clones name the same.
#[derive(Clone)]
pub(super) struct Memory {
    items: NonNull<u8>,
    lines: NonNull<Line>,
    entries: NonNull<PageEntry>,
    page_bytes: usize,
    /// From a reference to its page's number.
    unit_shift: u32,
    item_pages: usize,
    line_pages: usize,
    /// What each item's first chunk has at its end for the time of its last access.
    trailer_bytes: usize,
    pins: Arc<Pins>,
    mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which the handle keeps alive; who may touch what is said above.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`: words are atomics, and plain bytes follow the rule above.
unsafe impl Sync for Memory {}

/// The system gives no range of addresses of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAddressSpace {
    pub(crate) bytes: usize,
}

impl Memory {
    /// Reserves addresses for all that references reach, or, where the system refuses that, for `bytes_max`.
    pub(super) fn reserve(page_bytes: usize, bytes_max: usize) -> Result<Memory, NoAddressSpace> {
        Memory::reserve_exactly(page_bytes, ITEM_BYTES_MAX)
            .or_else(|_| Memory::reserve_exactly(page_bytes, bytes_max))
    }

    fn reserve_exactly(page_bytes: usize, item_bytes: usize) -> Result<Memory, NoAddressSpace> {
        // Page 0 is not used, so that one more fits beside `bytes_max`, unless references do not reach it.
        let item_pages = (item_bytes / page_bytes + 1).min(ITEM_BYTES_MAX / page_bytes);
        // An entry of the index takes about 8 bytes, an item at least 24.
        let line_pages = item_pages.div_ceil(2) + 2;
        let entries_at = (item_pages + line_pages) * page_bytes;
        let bytes = entries_at + item_pages * size_of::<PageEntry>();
        let mapping = Arc::new(Mapping::reserve(bytes).ok_or(NoAddressSpace { bytes })?);
        let at = |offset: usize| {
            // SAFETY: the offset is within the mapping, which is `bytes` long.
            unsafe { mapping.base().add(offset) }
        };
        Ok(Memory {
            items: at(0),
            lines: at(item_pages * page_bytes).cast(),
            entries: at(entries_at).cast(),
            page_bytes,
            unit_shift: (page_bytes / UNIT_BYTES).ilog2(),
            item_pages,
            line_pages,
            trailer_bytes: 0,
            pins: Arc::default(),
            mapping,
        })
    }

    /// The same memory, for items of which it is kept when they were last accessed.
    pub(super) fn accounting(self) -> Memory {
        Memory { trailer_bytes: TRAILER_BYTES, ..self }
    }

    #[inline(always)]
    pub(super) fn is_accounting(&self) -> bool {
        self.trailer_bytes != 0
    }

    /// What each item's first chunk has at its end that is neither header, key nor value.
    #[inline(always)]
    pub(super) fn trailer_bytes(&self) -> usize {
        self.trailer_bytes
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Item pages that there are addresses for, page 0 included.
    pub(super) fn item_pages(&self) -> usize {
        self.item_pages
    }

    /// Line pages that there are addresses for.
    pub(super) fn line_pages(&self) -> usize {
        self.line_pages
    }

    /// Tells the processor that the entry of a chunk's page is about to be read.
    #[inline(always)]
    pub(super) fn prefetch_entry(&self, chunk: ChunkRef) {
        prefetch(self.entries.as_ptr().wrapping_add((chunk.get() >> self.unit_shift) as usize));
    }

    /// A page's entry in the page table.
    #[inline]
    pub(super) fn entry(&self, page: u32) -> &PageEntry {
        assert!((page as usize) < self.item_pages, "a page number is within the reserved range");
        // SAFETY: the page table has `item_pages` entries; zeroes are a valid entry.
        unsafe { self.entries.add(page as usize).as_ref() }
    }

    /// A line of the index, by its number in all line pages. The range only ever holds lines, whoever's they are: a
    /// stale number leads to a line.
    #[inline]
    pub(super) fn line(&self, number: usize) -> &Line {
        debug_assert!(number < self.line_pages * (self.page_bytes / size_of::<Line>()));
        // SAFETY: pages in directories are the pool's, so within the range; zeroes are an empty, unlocked line.
        unsafe { self.lines.add(number).as_ref() }
    }

    /// Where a line page begins.
    pub(super) fn line_page(&self, page: u32) -> NonNull<Line> {
        assert!((page as usize) < self.line_pages, "a line page's number is within the reserved range");
        // SAFETY: within the range, as just checked.
        unsafe { self.lines.add(page as usize * (self.page_bytes / size_of::<Line>())) }
    }

    /// The number of the line page that begins there.
    pub(super) fn line_page_number(&self, begin: *const Line) -> u32 {
        ((begin.addr() - self.lines.addr().get()) / self.page_bytes) as u32
    }

    /// The size of a chunk, by the page it lies on.
    #[inline(always)]
    pub(super) fn chunk_bytes(&self, chunk: ChunkRef) -> usize {
        self.entry(chunk.get() >> self.unit_shift).chunk_bytes.get() as usize
    }

    /// The page that a byte of an item lies on, and where on it.
    pub(super) fn place_of(&self, byte: *const u8) -> (u32, usize) {
        let offset = byte.addr() - self.items.addr().get();
        ((offset / self.page_bytes) as u32, offset % self.page_bytes)
    }

    pub(super) fn page_of(&self, chunk: ChunkRef) -> u32 {
        chunk.get() >> self.unit_shift
    }

    /// The size of the chunks of a page.
    pub(super) fn page_chunk_bytes(&self, page: u32) -> usize {
        self.entry(page).chunk_bytes.get() as usize
    }

    /// The chunk that is a whole page.
    pub(super) fn page_chunk(&self, page: u32) -> ChunkRef {
        ChunkRef(NonZeroU32::new(page << self.unit_shift).expect("page 0 is nobody's"))
    }

    /// Pages that stay as they are for somebody who reads them without a lock.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The class of the page that holds a byte of an item.
    #[inline]
    pub(super) fn class_at(&self, byte: *const u8) -> usize {
        let offset = byte.addr() - self.items.addr().get();
        self.entry(((offset / UNIT_BYTES) >> self.unit_shift) as u32).class.get() as usize
    }

    #[inline]
    fn address(&self, chunk: ChunkRef, at: usize) -> NonNull<u8> {
        let offset = chunk.get() as usize * UNIT_BYTES + at;
        debug_assert!(offset < self.item_pages * self.page_bytes);
        // SAFETY: references are made by `slabs` from pages that the pool gave out, so within the range.
        unsafe { self.items.add(offset) }
    }

    /// The word at `at` bytes from the chunk's begin, a multiple of 4 within the chunk's header.
    #[inline]
    pub(super) fn word(&self, chunk: ChunkRef, at: usize) -> &Word {
        debug_assert!(at.is_multiple_of(4));
        // SAFETY: within the mapping and aligned; header words are only ever accessed as atomics while the chunk
        // can be reached by more than one thread.
        unsafe { self.address(chunk, at).cast().as_ref() }
    }

    /// The eight bytes at the chunk's begin.
    #[inline]
    pub(super) fn double_word(&self, chunk: ChunkRef) -> &AtomicU64 {
        // SAFETY: as for `word`; chunks are aligned to 8 bytes.
        unsafe { self.address(chunk, 0).cast().as_ref() }
    }

    /// Plain bytes of a chunk.
    ///
    /// # Safety
    /// The range lies in a key or a value, and for as long as the slice is used the caller holds the item's line, or
    /// the lock of its shard, or has its page pinned, or is the only one who knows the chunk.
    #[inline]
    pub(super) unsafe fn bytes(&self, chunk: ChunkRef, at: usize, len: usize) -> &[u8] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts(self.address(chunk, at).as_ptr(), len) }
    }

    /// Writes plain bytes of a chunk.
    ///
    /// # Safety
    /// The range lies in the chunk, and nobody else knows the chunk.
    #[inline]
    pub(super) unsafe fn write(&self, chunk: ChunkRef, at: usize, bytes: &[u8]) {
        // SAFETY: the caller's; `bytes` can't overlap what only the caller knows.
        unsafe { self.address(chunk, at).as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// [`Memory::write`], without a call where it is few bytes: that took 20 instructions more for a value of 100.
    ///
    /// # Safety
    /// As for [`Memory::write`].
    #[inline(always)]
    pub(super) unsafe fn write_short(&self, chunk: ChunkRef, at: usize, bytes: &[u8]) {
        let (to, from, len) = (self.address(chunk, at).as_ptr(), bytes.as_ptr(), bytes.len());
        // SAFETY: the caller's; a piece at a time, of which the last may write some bytes twice, from `0..len` to the same.
        unsafe {
            if len > 32 {
                if len <= 64 {
                    copy_ends::<32>(from, to, len);
                } else if len <= 128 {
                    copy_ends::<64>(from, to, len);
                } else {
                    self.write(chunk, at, bytes);
                }
            } else if len > 16 {
                copy_ends::<16>(from, to, len);
            } else if len >= 8 {
                copy_ends::<8>(from, to, len);
            } else {
                self.write(chunk, at, bytes);
            }
        }
    }

    /// Copies a chunk's bytes to another one.
    ///
    /// # Safety
    /// Both chunks have `bytes` bytes and are not the same, nobody else knows the target, and the caller holds the
    /// source's shard and its item's line.
    pub(super) unsafe fn copy(&self, from: ChunkRef, to: ChunkRef, bytes: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.address(to, 0).as_ptr().copy_from_nonoverlapping(self.address(from, 0).as_ptr(), bytes)
        }
    }

    /// Tells the processor that a chunk's first 192 bytes are about to be read.
    #[inline]
    pub(super) fn prefetch(&self, chunk: ChunkRef) {
        for line in 0..3 {
            prefetch(self.address(chunk, 0).as_ptr().wrapping_add(64 * line));
        }
    }

    /// The same of what a slot of an unlocked line names, which may be any number.
    #[inline(always)]
    pub(super) fn prefetch_named(&self, reference: u32) {
        let begin = self.items.as_ptr().wrapping_add(reference as usize * UNIT_BYTES);
        for line in 0..3 {
            prefetch(begin.wrapping_add(64 * line));
        }
    }

    /// Tells the processor that the last bytes of what may be a chunk are about to be read.
    #[inline(always)]
    pub(super) fn prefetch_end(&self, chunk: ChunkRef, bytes: usize) {
        let page = chunk.get() >> self.unit_shift;
        if (page as usize) < self.item_pages {
            let end =
                self.address(chunk, 0).as_ptr().wrapping_add(self.entry(page).chunk_bytes.get() as usize);
            prefetch(end.wrapping_sub(bytes));
        }
    }

    /// Tells the processor that a chunk's first 192 bytes are about to be written, by the item that comes next.
    #[inline]
    pub(super) fn prefetch_to_reuse(&self, chunk: ChunkRef) {
        let begin = self.address(chunk, 0).as_ptr();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: as in `prefetch_to_write`.
        unsafe {
            std::arch::asm!(
                "prefetchw [{begin}]",
                "prefetchw [{begin} + 64]",
                "prefetchw [{begin} + 128]",
                begin = in(reg) begin,
                options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = begin;
    }

    /// Tells the processor that a chunk's first bytes are about to be written.
    #[inline]
    pub(super) fn prefetch_links(&self, chunk: ChunkRef) {
        prefetch_to_write(self.address(chunk, 0).as_ptr());
    }

    /// Tells the processor that the items on both sides of one in its list are about to be written, if a slot of an unlocked
    /// line names an item still; whatever else it names does no harm.
    #[inline(always)]
    pub(super) fn prefetch_neighbours(&self, reference: u32) {
        let offset = reference as usize * UNIT_BYTES;
        if offset >= self.item_pages * self.page_bytes {
            return;
        }
        let item = self.items.as_ptr().wrapping_add(offset);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: the two words lie within the mapping, which has pages of lines behind the items. Others may write them
        // meanwhile, and they may be no links but bytes of a key or value: they are read here, by the processor alone, and used
        // for nothing but two prefetches, which never fault.
        unsafe {
            std::arch::asm!(
                "mov {colder:e}, dword ptr [{item} + {colder_at}]",
                "mov {hotter:e}, dword ptr [{item} + {hotter_at}]",
                "prefetchw [{items} + {colder} * {unit}]",
                "prefetchw [{items} + {hotter} * {unit}]",
                item = in(reg) item,
                items = in(reg) self.items.as_ptr(),
                colder = out(reg) _,
                hotter = out(reg) _,
                colder_at = const COLDER_AT,
                hotter_at = const HOTTER_AT,
                unit = const UNIT_BYTES,
                options(nostack, preserves_flags, readonly)
            );
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = item;
    }

    /// Gives an item page's bytes back to the system; what is read there next is zero. Whether the system took them.
    pub(super) fn release_item_page(&self, page: u32) -> bool {
        self.mapping.release(page as usize * self.page_bytes, self.page_bytes)
    }

    /// The same for a line page. All its lines are empty; one that a late reader has locked stays lockable.
    pub(super) fn release_line_page(&self, page: u32) -> bool {
        self.mapping.release((self.item_pages + page as usize) * self.page_bytes, self.page_bytes)
    }

    /// Asks for huge pages under the first `bytes` of the item pages, in whole huge pages.
    pub(super) fn advise_huge(&self, bytes: usize) {
        self.mapping.advise_huge(0, bytes);
    }

    /// The same for the line pages, all of them.
    pub(super) fn advise_huge_lines(&self) {
        self.mapping.advise_huge(self.item_pages * self.page_bytes, self.line_pages * self.page_bytes);
    }
}

/// Copies the first `N` and the last `N` bytes of `len`.
///
/// # Safety
/// `len` bytes can be read and written there, and are from `N` to `2 * N`.
#[inline(always)]
unsafe fn copy_ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's.
    unsafe {
        to.copy_from_nonoverlapping(from, N);
        to.add(len - N).copy_from_nonoverlapping(from.add(len - N), N);
    }
}

/// Tells the processor that this cache line is about to be read.
#[inline]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Tells the processor that this cache line is about to be written: it is fetched from another core's cache once, not
/// first to be read and then again to be written.
#[inline]
pub(crate) fn prefetch_to_write<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address, and changes nothing; a processor without this one ignores it.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
