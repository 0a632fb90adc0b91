//! The part of an index that readers use without the shard's lock: from a hash to a locked line.
//!
//! Lives here: which line is a hash's home, locking it so that a split or a merge can't be missed, finding an entry.
//! Not here: changing entries, growing, shrinking (see `index`), the line itself (see `line`).
//!
//! ```text
//!   state: | count of home lines: 32 | generation: 27 | bits: 5 |        directory[home / lines a page] -> line page
//! ```
//! A reader takes the state, finds the home line, and looks for the hash's tag. Without one, and if line and state are
//! still the same, it is a miss. With one it locks the line as it looked at it, and looks at the state again. A split
//! or merge locks the lines whose entries it moves, then publishes the new state, then unlocks: so a reader that holds
//! a line under a state that still leads there sees every entry of its hash. Pages of lines go from shard to shard but
//! hold lines for ever, so a reader with an old state locks, at worst, an empty line or another shard's for a moment.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use super::accounting;
use super::item::{self, Shape, Value, View};
use super::line::{Line, LineGuard, OVERFLOW_MAX};
use super::memory::{ChunkRef, Memory, prefetch, prefetch_to_write};
use super::pages::PagePool;
use super::{Meta, Version};

const BITS_BITS: u32 = 5;
const GENERATION_STEP: u64 = 1 << BITS_BITS;
const COUNT_SHIFT: u32 = 32;

/// Which lines a shard's index has, for all threads. (Of 256 bytes: a shift finds a shard's.)
#[repr(align(128))]
pub(crate) struct Table {
    state: AtomicU64,
    memory: Memory,
    /// Of lines in a page: the number of bits, and the bits.
    line_shift: u32,
    line_mask: usize,
    homes: Directory,
    overflows: Directory,
}

/// Where the pages of home lines, or of overflow lines, begin; those beyond the counts that `index` keeps are stale, but
/// lead to lines.
struct Directory(Box<[AtomicPtr<Line>]>);

impl Directory {
    fn new(memory: &Memory, pages: usize) -> Directory {
        Directory((0..pages).map(|_| AtomicPtr::new(memory.line_page(0).as_ptr())).collect())
    }
}

/// A count of home lines and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

impl State {
    /// No table's: there are not so many lines.
    pub(super) const NEVER: State = State(u64::MAX);

    #[inline]
    pub(super) fn count(self) -> usize {
        (self.0 >> COUNT_SHIFT) as usize
    }

    /// With this many home lines, after one change more.
    fn next(self, count: usize) -> State {
        let bits = if count <= 1 { 0 } else { (count - 1).ilog2() + 1 };
        let low = (self.0 as u32).wrapping_add(GENERATION_STEP as u32) & !((1 << BITS_BITS) - 1);
        State((count as u64) << COUNT_SHIFT | u64::from(low | bits))
    }

    /// The home of a hash: its low bits, one bit fewer where that line is not there yet.
    #[inline]
    pub(super) fn home(self, hash: u64) -> usize {
        let mask = (1_usize << (self.0 as u32 & ((1 << BITS_BITS) - 1))) - 1;
        let number = hash as usize & mask;
        if number < self.count() { number } else { number & (mask >> 1) }
    }
}

impl State {
    /// The home line that holds the hashes at a position of a scan, and where its stretch ends (see `scan`); there is
    /// at least one line.
    pub(super) fn line_at(self, position: u32) -> (usize, u64) {
        let home = self.home(u64::from(position.reverse_bits()));
        let bits = self.0 as u32 & ((1 << BITS_BITS) - 1);
        // A line whose other half is not there yet holds what has one bit less in common.
        let half = (1_usize << bits) >> 1;
        let is_split = bits > 0 && (home & half.wrapping_sub(1)) + half < self.count();
        let bits_in_common = if is_split { bits } else { bits.saturating_sub(1) };
        let stretch = 1_u64 << (32 - bits_in_common);
        (home, (u64::from(position) & !(stretch - 1)) + stretch)
    }
}

/// Where an entry is looked for soon.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) hash: u64,
    /// The hash's home line, and its number, in this state.
    state: State,
    line: NonNull<Line>,
    home: u32,
}

impl Ahead {
    /// Nothing is.
    pub(super) const NOWHERE: Ahead =
        Ahead { hash: 0, state: State::NEVER, line: NonNull::dangling(), home: 0 };

    /// # Safety
    /// It was looked ahead for in a table that lives as long as `'a`.
    #[inline(always)]
    pub(super) unsafe fn line<'a>(&self) -> &'a Line {
        // SAFETY: the caller's; a table's lines live as long as it does.
        unsafe { self.line.as_ref() }
    }

    /// Tells the processor that the line is about to be written.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_to_write(self.line.as_ptr());
    }
}

// SAFETY: the pointer leads to a line, which is shared between threads anyway.
unsafe impl Send for Ahead {}

/// The tables of all shards, side by side; there is a power of two of them.
#[derive(Clone)]
pub(crate) struct Tables {
    tables: Arc<[Table]>,
    /// The first of them, and their number less one.
    first: NonNull<Table>,
    mask: usize,
}

// SAFETY: the pointer leads into `tables`, which are shared between threads anyway.
unsafe impl Send for Tables {}
// SAFETY: as for `Send`.
unsafe impl Sync for Tables {}

impl Tables {
    pub(crate) fn new(pool: &PagePool) -> Tables {
        let table = |_| Table::new(pool.memory().clone(), pool.line_pages_per_shard());
        Tables::from((0..pool.shard_count()).map(table).collect::<Arc<[Table]>>())
    }

    /// The shard of a hash. The bits are ones that the index of a shard does not use first.
    #[inline]
    pub(crate) fn shard_number(&self, hash: u64) -> usize {
        (hash >> 40) as usize & self.mask
    }

    /// The table of a hash's shard.
    #[inline]
    pub(crate) fn of(&self, hash: u64) -> &Table {
        // SAFETY: the mask keeps it among `tables`, which live as long as `self`. (With a check of the bounds a read
        // took 7 instructions more.)
        unsafe { self.first.add(self.shard_number(hash)).as_ref() }
    }

    /// Where an entry with this hash lies now, or will, in its shard. The processor fetches the line.
    #[inline(always)]
    pub(crate) fn look_ahead(&self, hash: u64) -> Ahead {
        self.of(hash).look_ahead(hash)
    }

    /// The table of the shard with this number.
    pub(super) fn at(&self, number: usize) -> &Table {
        &self.tables[number]
    }
}

impl From<Arc<[Table]>> for Tables {
    fn from(tables: Arc<[Table]>) -> Tables {
        assert!(tables.len().is_power_of_two(), "bits of a hash choose the shard");
        let first = NonNull::new(tables.as_ptr().cast_mut()).expect("tables lie somewhere");
        Tables { first, mask: tables.len() - 1, tables }
    }
}

impl Table {
    pub(super) fn new(memory: Memory, pages_max: usize) -> Table {
        let lines_per_page = memory.page_bytes() / size_of::<Line>();
        // Where hashes are what they should be a line in five is an overflow line, and lines take a quarter of the memory at
        // most, of which `pages_max` is twice as much.
        let overflow_pages_max = (pages_max / 4 + 4).min(OVERFLOW_MAX as usize / lines_per_page);
        // `look` follows the first place of a shard without lines, too.
        assert!(pages_max > 0, "an index has room for a page");
        Table {
            state: AtomicU64::new(0),
            line_shift: lines_per_page.ilog2(),
            line_mask: lines_per_page - 1,
            homes: Directory::new(&memory, pages_max),
            overflows: Directory::new(&memory, overflow_pages_max),
            memory,
        }
    }

    /// Locks the home line of a hash; `None` if the index is empty.
    pub(super) fn lock(&self, hash: u64) -> Option<LineGuard<'_>> {
        loop {
            let state = self.state();
            if state.count() == 0 {
                return None;
            }
            let guard = self.home(state.home(hash)).lock();
            if self.state() == state {
                return Some(guard);
            }
        }
    }

    /// The item of this key, its line locked for as long as the result lives.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<HeldItem<'_>> {
        match self.look(hash, key) {
            Look::Found(held) => Some(held),
            Look::Absent => None,
            Look::Unsure => self.find_slowly(hash, key),
        }
    }

    /// [`Table::find`], as far as that is possible without waiting for anybody.
    #[inline(always)]
    pub(crate) fn look(&self, hash: u64, key: &[u8]) -> Look<'_> {
        let state = self.state();
        self.look_into::<false>(self.home(state.home(hash)), state, hash, key)
    }

    /// [`Table::look`] into the hash's home line in a state. `IS_FETCHED`: the item is on its way.
    #[inline(always)]
    fn look_into<'a, const IS_FETCHED: bool>(
        &'a self,
        line: &'a Line,
        state: State,
        hash: u64,
        key: &[u8],
    ) -> Look<'a> {
        // Where there is none this one may be another shard's or nobody's: it has nothing of this hash, and is not to be locked.
        let Some(glance) = line.glance() else {
            return Look::Unsure;
        };
        let tag = tag(hash);
        let slots = line.slots_with(tag);
        if slots == 0 {
            let is_sure = !line.goes_on_for(tag) && line.is_still(glance) && self.state() == state;
            return if is_sure { Look::Absent } else { Look::Unsure };
        }
        if state.count() == 0 {
            return Look::Absent;
        }
        // While the line is being locked the item comes already, and its value at once with the header.
        if !IS_FETCHED {
            self.memory.prefetch_named(line.reference(slots.trailing_zeros() as usize));
        }
        let Some(guard) = line.lock_as(glance) else {
            return Look::Unsure;
        };
        if self.state() != state {
            return Look::Unsure;
        }
        // Anew: who slept before the lock may see a line again whose count of changes has come around.
        let slots = guard.line().slots_with(tag);
        if let Some((first, shape)) = self.key_at(&guard, slots, key) {
            return Look::Found(HeldItem { memory: &self.memory, first, shape, _guard: guard });
        }
        match self.find_further(guard, hash, key) {
            Some(held) => Look::Found(held),
            None => Look::Absent,
        }
    }

    /// The line is locked by somebody, or has changed, or goes on elsewhere.
    #[cold]
    fn find_slowly(&self, hash: u64, key: &[u8]) -> Option<HeldItem<'_>> {
        let guard = self.lock(hash)?;
        self.find_further(guard, hash, key)
    }

    /// The item in the first of these slots, of which there may be none, of a guarded line, if it has this key.
    #[inline(always)]
    fn key_at(&self, guard: &LineGuard<'_>, slots: u32, key: &[u8]) -> Option<(ChunkRef, Shape)> {
        if slots == 0 {
            return None;
        }
        // SAFETY: entries of this hash are in the guarded line's chain only, and an item is freed only after its
        // entry was removed under that guard.
        let view = unsafe { View::new(&self.memory) };
        // SAFETY: the line is locked, so what a slot with a tag refers to is an item.
        let first = unsafe { ChunkRef::of_entry(guard.line().reference(slots.trailing_zeros() as usize)) };
        Some((first, view.with_key(first, key)?))
    }

    /// The item of this key in the chain that begins with the guarded line, the hash's home.
    #[cold]
    #[inline(never)]
    fn find_further<'a>(&'a self, guard: LineGuard<'a>, hash: u64, key: &[u8]) -> Option<HeldItem<'a>> {
        let mut slots = guard.line().slots_with(tag(hash));
        while slots != 0 {
            if let Some((first, shape)) = self.key_at(&guard, slots, key) {
                return Some(HeldItem { memory: &self.memory, first, shape, _guard: guard });
            }
            slots &= slots - 1;
        }
        if !guard.line().goes_on_for(tag(hash)) {
            return None;
        }
        // SAFETY: as in `key_at`.
        let view = unsafe { View::new(&self.memory) };
        let (first, shape) = self.find_behind(guard.line().overflow() - 1, hash, view, key)?;
        Some(HeldItem { memory: &self.memory, first, shape, _guard: guard })
    }

    #[inline(never)]
    fn find_behind(&self, overflow: u32, hash: u64, view: View<'_>, key: &[u8]) -> Option<(ChunkRef, Shape)> {
        let mut shape = None;
        let first = self.find_from(self.overflow(overflow), hash, |chunk| {
            shape = view.with_key(chunk, key);
            shape.is_some()
        })?;
        Some((first, shape?))
    }

    /// Where an entry with this hash lies now, or will. The processor fetches the line.
    #[inline(always)]
    pub(super) fn look_ahead(&self, hash: u64) -> Ahead {
        let state = self.state();
        let home = state.home(hash);
        let line = NonNull::from(self.home(home));
        prefetch(line.as_ptr());
        Ahead { hash, state, line, home: home as u32 }
    }

    /// The line that was looked ahead for and its number, if it is the one still.
    #[inline(always)]
    pub(super) fn line_ahead(&self, ahead: &Ahead) -> Option<(&Line, usize)> {
        if ahead.state != self.state() {
            return None;
        }
        // SAFETY: no table has the state `NEVER`, so it was looked ahead for in this one.
        Some((unsafe { ahead.line() }, ahead.home as usize))
    }

    /// Tells the processor that the line of this hash is about to be read, and gives the line; none of an empty index.
    #[inline(always)]
    pub(crate) fn prefetch_line(&self, hash: u64) -> Option<FetchedLine<'_>> {
        let state = self.state();
        (state.count() > 0).then(|| {
            let line = self.home(state.home(hash));
            prefetch(line);
            FetchedLine { line, table: self, state, hash }
        })
    }

    /// The entry of this hash, in a chain that the caller may read, that `is_match` accepts.
    #[inline]
    pub(super) fn find_from<'a>(
        &'a self,
        mut line: &'a Line,
        hash: u64,
        mut is_match: impl FnMut(ChunkRef) -> bool,
    ) -> Option<ChunkRef> {
        let tag = tag(hash);
        loop {
            let mut slots = line.slots_with(tag);
            while slots != 0 {
                let reference = line.reference(slots.trailing_zeros() as usize);
                if let Some(chunk) = ChunkRef::from_link(reference)
                    && is_match(chunk)
                {
                    return Some(chunk);
                }
                slots &= slots - 1;
            }
            if !line.goes_on_for(tag) {
                return None;
            }
            line = self.overflow(line.overflow() - 1);
        }
    }

    /// Walks a chain once: where an entry is that `is_match` accepts, and how the chain ends.
    #[inline]
    pub(super) fn walk<'a>(
        &'a self,
        home: &'a Line,
        hash: u64,
        is_match: impl FnMut(ChunkRef) -> bool,
    ) -> Walk<'a> {
        let Walk { found, before_last, last } = self.seek(home, hash, is_match);
        let (before_last, last) = self.walk_on(before_last, last);
        Walk { found, before_last, last }
    }

    /// Walks a chain as far as the entry that `is_match` accepts: that line is taken for the last one. (The next ones may be
    /// far away in memory.)
    #[inline]
    pub(super) fn seek<'a>(
        &'a self,
        home: &'a Line,
        hash: u64,
        mut is_match: impl FnMut(ChunkRef) -> bool,
    ) -> Walk<'a> {
        let tag = tag(hash);
        let (mut before_last, mut last) = (home, home);
        loop {
            let mut slots = last.slots_with(tag);
            while slots != 0 {
                let slot = slots.trailing_zeros() as usize;
                if let Some(chunk) = ChunkRef::from_link(last.reference(slot))
                    && is_match(chunk)
                {
                    return Walk { found: Some((last, slot, chunk)), before_last, last };
                }
                slots &= slots - 1;
            }
            match last.overflow() {
                0 => return Walk { found: None, before_last, last },
                next => (before_last, last) = (last, self.overflow(next - 1)),
            }
        }
    }

    /// How a chain ends, from this line, and the one before it, on.
    #[inline(always)]
    fn walk_on<'a>(&'a self, mut before: &'a Line, mut line: &'a Line) -> (&'a Line, &'a Line) {
        loop {
            match line.overflow() {
                0 => return (before, line),
                next => (before, line) = (line, self.overflow(next - 1)),
            }
        }
    }

    #[inline]
    pub(super) fn state(&self) -> State {
        State(self.state.load(Acquire))
    }

    /// Makes readers use this many home lines. The caller holds the lines whose entries move.
    pub(super) fn publish(&self, count: usize) {
        self.state.store(self.state().next(count).0, Release);
    }

    #[inline]
    pub(super) fn home(&self, number: usize) -> &Line {
        self.line(&self.homes, number)
    }

    #[inline]
    pub(super) fn overflow(&self, number: u32) -> &Line {
        self.line(&self.overflows, number as usize)
    }

    #[inline]
    fn line(&self, directory: &Directory, number: usize) -> &Line {
        let at = number >> self.line_shift;
        debug_assert!(at < directory.0.len());
        // SAFETY: a published count, and a line that names another one, are within the pages that `index` was given, and
        // those within the directory (index 4), which has a first place in any case. Each place there leads to a page of lines, and the range
        // holds lines for ever. (Numbers and checks of the bounds took a read 10 instructions more.)
        unsafe {
            let page = directory.0.get_unchecked(at).load(Relaxed);
            &*page.add(number & self.line_mask)
        }
    }

    /// Tells the processor that the line that follows this one, if one does, is about to be read.
    #[inline(always)]
    pub(super) fn prefetch_rest(&self, line: &Line) {
        match line.overflow() {
            0 => {}
            next => prefetch(self.overflow(next - 1)),
        }
    }

    /// Tells the processor that the line that follows a line, which nobody has locked, is about to be read.
    #[cold]
    #[inline(never)]
    fn prefetch_behind(&self, line: &Line) {
        let number = (line.overflow() as usize).wrapping_sub(1);
        // What an unlocked line says may be no number of this table's.
        if let Some(page) = self.overflows.0.get(number >> self.line_shift) {
            prefetch(page.load(Relaxed).wrapping_add(number & self.line_mask));
        }
    }

    pub(super) fn lines_per_page(&self) -> usize {
        1 << self.line_shift
    }

    /// How many pages of home lines there is room for.
    #[inline]
    pub(super) fn home_pages_max(&self) -> usize {
        self.homes.0.len()
    }

    /// How many pages of overflow lines there is room for.
    #[inline]
    pub(super) fn overflow_pages_max(&self) -> usize {
        self.overflows.0.len()
    }

    /// The line page with this number holds the home lines of this place.
    pub(super) fn set_home_page(&self, at: usize, page: u32) {
        self.homes.0[at].store(self.memory.line_page(page).as_ptr(), Relaxed);
    }

    /// The line page with this number holds the overflow lines of this place.
    pub(super) fn set_overflow_page(&self, at: usize, page: u32) {
        self.overflows.0[at].store(self.memory.line_page(page).as_ptr(), Relaxed);
    }

    /// The number of the line page in this place for home lines.
    pub(super) fn home_page(&self, at: usize) -> u32 {
        self.memory.line_page_number(self.homes.0[at].load(Relaxed))
    }

    /// The number of the line page in this place for overflow lines.
    pub(super) fn overflow_page(&self, at: usize) -> u32 {
        self.memory.line_page_number(self.overflows.0[at].load(Relaxed))
    }
}

/// The line of a hash as of a moment ago: locked by nobody, so what it names may be wrong.
#[derive(Clone, Copy)]
pub(crate) struct FetchedLine<'a> {
    line: &'a Line,
    table: &'a Table,
    /// Of the table then.
    state: State,
    hash: u64,
}

impl<'a> FetchedLine<'a> {
    /// The hash that it was fetched for.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// [`Table::look`], without finding the line again, behind [`FetchedLine::prefetch_item`].
    #[inline(always)]
    pub(crate) fn look(&self, key: &[u8]) -> Look<'a> {
        self.table.look_into::<true>(self.line, self.state, self.hash, key)
    }

    /// Tells the processor that the item with the hash, if the line names one, is about to be read, or the line that may name it.
    #[inline(always)]
    pub(crate) fn prefetch_item(&self) {
        match self.item() {
            Some(chunk) => {
                self.table.memory.prefetch_named(chunk.get());
                accounting::prefetch(&self.table.memory, chunk);
            }
            None if self.line.goes_on_for(tag(self.hash)) => self.table.prefetch_behind(self.line),
            None => {}
        }
    }

    /// The same, and that the item is about to leave for another one.
    #[inline(always)]
    pub(crate) fn prefetch_to_replace(&self) {
        if let Some(chunk) = self.item() {
            self.table.memory.prefetch_named(chunk.get());
            self.table.memory.prefetch_entry(chunk);
        } else if self.line.goes_on_for(tag(self.hash)) {
            self.table.prefetch_behind(self.line);
        }
    }

    /// The same of the items on both sides of it in its list, for when it has come itself: it leaves the list.
    #[inline(always)]
    pub(crate) fn prefetch_neighbours(&self) {
        if let Some(chunk) = self.item() {
            self.table.memory.prefetch_neighbours(chunk.get());
        }
    }

    #[inline(always)]
    fn item(&self) -> Option<ChunkRef> {
        let slots = self.line.slots_with(tag(self.hash));
        if slots == 0 {
            return None;
        }
        ChunkRef::from_link(self.line.reference(slots.trailing_zeros() as usize))
    }
}

/// A chain, as [`Table::walk`] or [`Table::seek`] saw it.
pub(super) struct Walk<'a> {
    /// The line and slot of the entry that was looked for, and its chunk.
    pub(super) found: Option<(&'a Line, usize, ChunkRef)>,
    /// The last line but one; the last if it is alone.
    pub(super) before_last: &'a Line,
    pub(super) last: &'a Line,
}

/// What one look for a key has shown.
pub(crate) enum Look<'a> {
    Found(HeldItem<'a>),
    Absent,
    /// Somebody else is at the line, or it goes on elsewhere: whoever wants to know takes [`Table::find`].
    Unsure,
}

/// An item that can be read: its line is locked.
pub(crate) struct HeldItem<'a> {
    memory: &'a Memory,
    first: ChunkRef,
    shape: Shape,
    _guard: LineGuard<'a>,
}

impl HeldItem<'_> {
    #[inline]
    pub(crate) fn version(&self) -> Version {
        self.view().version(self.first)
    }

    /// 0 is never.
    #[inline]
    pub(crate) fn expires_at_ms(&self) -> u64 {
        self.view().expires_at_ms(self.first, self.shape)
    }

    /// Whether it says that the source has no value; only an item with an expiry does.
    #[inline]
    pub(crate) fn is_absence(&self) -> bool {
        self.shape.marks().is_absence()
    }

    /// Whether it was read before it was found.
    #[inline]
    pub(crate) fn is_fetched(&self) -> bool {
        self.shape.marks().is_fetched()
    }

    /// All of its meta, if meta commands have said something of it.
    #[inline]
    pub(crate) fn meta_if_stated(&self) -> Option<Meta> {
        self.shape.has_state().then(|| self.view().meta(self.first))
    }

    /// The value of an item that has nothing besides key and value.
    #[inline(always)]
    pub(crate) fn plain_value(&self) -> Option<Value<'_>> {
        self.view().plain_value(self.first, self.shape)
    }

    /// Flags, expiry (0 is never) and value.
    #[inline]
    pub(crate) fn parts(&self) -> (u32, u64, Value<'_>) {
        self.view().parts(self.first, self.shape)
    }

    #[inline]
    fn view(&self) -> View<'_> {
        // SAFETY: the line is locked for as long as `self` lives, and views borrow `self`.
        unsafe { View::new(self.memory) }
    }

    /// Whether a read has nothing to write.
    #[inline(always)]
    pub(crate) fn is_read_enough(&self, enough: u8) -> bool {
        self.shape.marks().are_enough(enough)
    }

    /// When it was last accessed, in seconds since the Unix epoch; 0 without accounting.
    #[inline]
    pub(crate) fn accessed_s(&self) -> u32 {
        accounting::accessed_s(self.memory, self.first)
    }

    /// The item for whoever notes that it is read. By value, so that `self` can stay in registers.
    #[inline(always)]
    pub(crate) fn noted(&self) -> NotedItem<'_> {
        NotedItem { memory: self.memory, first: self.first, shape: self.shape }
    }
}

/// A [`HeldItem`] that is read, while it is held.
#[derive(Clone, Copy)]
pub(crate) struct NotedItem<'a> {
    memory: &'a Memory,
    first: ChunkRef,
    shape: Shape,
}

impl NotedItem<'_> {
    /// Counts a read; whether its hits are more now. Writes only when something changes.
    #[inline]
    pub(crate) fn count_read(self, hits_max: u8) -> bool {
        let before = self.shape.marks();
        let after = before.read(hits_max);
        if after != before {
            item::set_marks(self.memory, self.first, after);
        }
        after.hits() != before.hits()
    }

    /// It is accessed now, of a cache with accounting; when it was before that.
    #[inline]
    pub(crate) fn note_access(self, now_s: u32) -> u32 {
        accounting::note_access(self.memory, self.first, now_s)
    }
}

/// What a ghost keeps of a hash: its highest bits; 0 is no ghost.
#[inline]
pub(super) fn fingerprint(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

/// The byte of a hash that its entry carries; 0 is an empty slot's. The bits below are the home's, those above choose
/// the shard.
#[inline]
pub(super) fn tag(hash: u64) -> u8 {
    let tag = (hash >> 32) as u8;
    tag + u8::from(tag == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_takes_one_bit_fewer_where_the_line_is_missing() {
        let mut state = State(0);
        for count in 1..2_000_usize {
            state = state.next(count);
            assert_eq!(state.count(), count);
            for hash in (0..64_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) {
                let number = hash as usize;
                let mask = count.next_power_of_two() - 1;
                let expected = if number & mask < count { number & mask } else { number & (mask >> 1) };
                assert_eq!(state.home(hash), expected);
            }
        }
    }

    #[test]
    fn stretches_of_a_scan_lie_side_by_side_and_hold_what_their_line_holds() {
        let mut state = State(0);
        for count in 1..300_usize {
            state = state.next(count);
            let (mut position, mut lines) = (0, Vec::new());
            while let Ok(begin) = u32::try_from(position) {
                let (home, end) = state.line_at(begin);
                lines.push(home);
                for within in [position, (position + end) / 2, end - 1] {
                    let hash = (within as u32).reverse_bits();
                    assert_eq!(state.home(u64::from(hash)), home, "{within:#x} with {count} lines");
                }
                position = end;
            }
            assert_eq!(position, 1 << 32);
            lines.sort_unstable();
            assert_eq!(lines, (0..count).collect::<Vec<_>>(), "each line once");
        }
    }

    #[test]
    fn each_change_gives_another_state() {
        let state = State(0).next(8);
        assert_ne!(state.next(9).next(8), state);
    }

    #[test]
    fn a_table_without_lines_follows_nothing_that_it_finds_in_those_of_others() {
        let table = Table::new(Memory::reserve(4 << 10, 64 << 20).unwrap(), 4);
        let line = table.home(0);
        let hash = 5 << 32;
        // As where the line is another's overflow line, which locking it protects from nobody: just emptied, a ghost's, one of a chain.
        for reference in [0, u32::MAX, 7] {
            line.set(0, tag(hash), reference);
            line.set_overflow(3);
            line.add_kind(tag(hash));
            assert!(matches!(table.look(hash, b"key"), Look::Absent), "{reference}");
            assert!(table.find(hash, b"key").is_none());
        }
        line.wipe();
        assert!(matches!(table.look(hash, b"key"), Look::Absent));
    }
}
