//! The index: from a key's hash to the item's first chunk, as its one writer sees it.
//!
//! Lives here: adding and removing entries, overflow lines, growing and shrinking one line at a time.
//! Not here: what readers do (see `table`), keys (the caller compares them and hashes them again for a split), the
//! pages' account (see `room`).
//!
//! ```text
//!  pages:   [ home 0 … n-1 ][ home n … 2n-1 ] …
//!               |
//!               '-> overflow line -> overflow line    (pages of their own, a free list)
//! ```
//! Linear hashing: with `b` home lines an insertion that makes the load exceed [`LOAD_MAX`] entries a line splits one
//! line, number `b - 2^k`, into itself and line `b`; a removal that makes it fall below [`LOAD_MIN`] undoes one
//! split. So one operation moves the entries of one chain (about 11; `entries_moved_max` remembers the most), never
//! the table.

use std::cell::Cell;
use std::ptr::NonNull;

use super::line::{Line, LineGuard, SLOTS};
use super::memory::ChunkRef;
use super::table::{Ahead, Table, Tables, Walk, fingerprint, tag};

/// Entries a line above which the next insertion splits one.
const LOAD_MAX: usize = 8;
/// Entries a line below which the next removal merges two.
const LOAD_MIN: usize = 3;

/// A line, by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Home(usize),
    Overflow(u32),
}

/// Changed under the shard's lock only; each line that is changed is locked besides, or unreachable for readers.
///
/// 1. An entry lies in the chain of its home line, under its tag; `entries` counts them.
/// 2. In a chain only the last line has empty slots, and they are at its end; no overflow line is empty.
/// 3. Each overflow line is in one chain or in the free list. A line that is not in use is empty.
/// 4. The count of home lines is 0, or at least one page's worth and at most what the pages hold.
/// 5. Each line of a chain has at least the kinds of all tags that are in the lines behind it.
/// 6. `limits` follow from the counts of home lines and of their pages.
#[repr(C)]
pub(super) struct Index {
    // What every store changes comes first (see `Shard`).
    entries: usize,
    overflow_free: Cell<u32>,
    overflow_free_head: Cell<u32>,
    limits: Limits,
    ghosts: Cell<Ghosts>,
    /// Into `tables`.
    table: NonNull<Table>,
    tables: Tables,
    at: usize,
    home_pages: usize,
    overflow_pages: usize,
    /// Entries on their way from one line to another; empty between operations, kept for its capacity.
    moving: Vec<(u8, u32)>,
    entries_moved_max: usize,
}

/// What follows from the counts of lines and pages: at how many entries something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// From so many on the next insertion wants a page of home lines.
    page_from: usize,
    /// Above so many a line is split.
    split_above: usize,
    /// Below so many two lines are merged.
    merge_below: usize,
}

/// How many ghosts a chain keeps (see [`Index::ghosts_max`]), as it follows from these counts.
#[derive(Debug, Clone, Copy, Default)]
struct Ghosts {
    entries: usize,
    count: usize,
    /// The highest bit of the count.
    bit: usize,
    /// In the chain of a line that was not split yet, and of one that was.
    most: [u8; 2],
}

/// A key's chain while an entry is stored there, its home line locked: what is there of the key, and how the chain ends.
pub(super) struct Spot<'a> {
    guard: LineGuard<'a>,
    /// The chain's last line; the one that has the key's entry if there is one.
    last: &'a Line,
    /// Entries of that line.
    len: usize,
    /// The line and slot of the key's entry, and its chunk.
    found: Option<(&'a Line, usize, ChunkRef)>,
    is_ghost: bool,
}

impl Spot<'_> {
    /// The item that is stored under the key.
    #[inline]
    pub(super) fn present(&self) -> Option<ChunkRef> {
        self.found.map(|(_, _, chunk)| chunk)
    }

    /// Whether it was evicted not long ago: from probation, or from the main queue although it had been read.
    #[inline]
    pub(super) fn is_ghost(&self) -> bool {
        self.is_ghost
    }
}

/// The same where the chain is one line that has room and does not have the key.
pub(super) struct PlainSpot<'a> {
    guard: LineGuard<'a>,
    len: usize,
    pub(super) is_ghost: bool,
}

/// An entry's home line, locked.
pub(super) struct EntryGuard<'a> {
    guard: LineGuard<'a>,
    home: usize,
}

/// Whether there can be an entry more without a page of home lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    Possible,
    WantsPage,
}

/// What is to become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    Keep,
    Remove,
    /// It goes, and its line remembers its hash.
    RemoveAsGhost,
}

/// Why an entry that is looked for is there.
const INDEXED: &str = "an item is indexed under the hash of its key";

impl Index {
    /// The writer's side of table number `at`.
    pub(super) fn new(tables: Tables, at: usize) -> Index {
        let mut index = Index {
            limits: Limits { page_from: 0, split_above: 0, merge_below: 0 },
            ghosts: Cell::default(),
            table: NonNull::from(tables.at(at)),
            tables,
            at,
            home_pages: 0,
            overflow_pages: 0,
            overflow_free_head: Cell::new(0),
            overflow_free: Cell::new(0),
            entries: 0,
            moving: Vec::new(),
            entries_moved_max: 0,
        };
        index.limits = index.limits_of_now();
        index
    }

    fn limits_of_now(&self) -> Limits {
        let (count, lines) = (self.count(), self.table().lines_per_page());
        let is_full = count == self.home_pages * lines;
        let can_grow = self.home_pages < self.table().home_pages_max();
        Limits {
            page_from: if is_full && can_grow { count * LOAD_MAX } else { usize::MAX },
            split_above: if is_full { usize::MAX } else { count * LOAD_MAX },
            merge_below: if count > lines { count * LOAD_MIN } else { 0 },
        }
    }

    #[inline]
    pub(super) fn table(&self) -> &Table {
        // SAFETY: it lies in `tables`, which live as long as `self`. (Looking it up there cost 30 instructions a set.)
        unsafe { self.table.as_ref() }
    }

    /// Home lines.
    pub(super) fn count(&self) -> usize {
        self.table().state().count()
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Line pages.
    pub(super) fn page_count(&self) -> usize {
        self.home_pages + self.overflow_pages
    }

    /// How many entries the largest split or merge has moved.
    #[cfg(test)]
    pub(super) fn entries_moved_max(&self) -> usize {
        self.entries_moved_max
    }

    /// The entry of this hash that `is_match` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_match: impl FnMut(ChunkRef) -> bool) -> Option<ChunkRef> {
        let state = self.table().state();
        if state.count() == 0 {
            return None;
        }
        self.table().find_from(self.table().home(state.home(hash)), hash, is_match)
    }

    /// Tells the processor that the line of this hash is about to be read.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.table().prefetch_line(hash);
    }

    /// The entries of the home line at a position of a scan, and where its stretch ends; `None` if the index is empty.
    pub(super) fn line_at(&self, position: u32, mut visit: impl FnMut(ChunkRef)) -> Option<u64> {
        let state = self.table().state();
        if state.count() == 0 {
            return None;
        }
        let (home, end) = state.line_at(position);
        let mut line = self.table().home(home);
        loop {
            let chunks = (0..line.len()).filter_map(|slot| ChunkRef::from_link(line.reference(slot)));
            chunks.for_each(&mut visit);
            match line.overflow() {
                0 => return Some(end),
                next => line = self.table().overflow(next - 1),
            }
        }
    }

    /// How many pages the next insertion, of this hash, wants: the first page, room to split, a free overflow line.
    #[inline]
    pub(super) fn pages_wanted(&self, hash: u64) -> usize {
        usize::from(self.wants_home_page()) + usize::from(self.lacks_overflow(hash))
    }

    /// Whether an insertion of this hash would need an overflow line, and none is free.
    #[inline]
    fn lacks_overflow(&self, hash: u64) -> bool {
        self.overflow_free.get() == 0 && self.is_chain_full(hash)
    }

    #[inline(never)]
    fn is_chain_full(&self, hash: u64) -> bool {
        if self.count() == 0 {
            return true;
        }
        self.last_line(self.table().state().home(hash)).len() == SLOTS
    }

    /// Whether there is no place for an entry of this hash, nor for the page that it wants: something must leave first.
    #[inline]
    pub(super) fn is_exhausted(&self, hash: u64) -> bool {
        self.overflow_free.get() == 0
            && self.overflow_pages == self.table().overflow_pages_max()
            && self.is_chain_full(hash)
    }

    /// Takes the page that is wanted most; all its lines are empty.
    pub(super) fn add_page(&mut self, page: u32) {
        let lines = self.table().lines_per_page();
        if self.wants_home_page() {
            self.table().set_home_page(self.home_pages, page);
            self.home_pages += 1;
            if self.count() == 0 {
                self.table().publish(lines);
            }
        } else {
            self.table().set_overflow_page(self.overflow_pages, page);
            let first = (self.overflow_pages * lines) as u32;
            self.overflow_pages += 1;
            for number in (first..first + lines as u32).rev() {
                self.free_overflow(number);
            }
        }
        self.limits = self.limits_of_now();
    }

    /// Whether the next insertion wants a page of home lines.
    #[inline]
    pub(super) fn wants_home_page(&self) -> bool {
        self.entries >= self.limits.page_from
    }

    /// Whether an entry of this hash can be added without a page, if so only once any other has gone; `None` if not even then.
    #[inline(always)]
    pub(super) fn room_to_trade(&self, hash: u64) -> Option<Growth> {
        let growth = if self.entries < self.limits.page_from { Growth::Possible } else { Growth::WantsPage };
        let is_too_full = growth == Growth::WantsPage && self.entries > self.limits.page_from;
        (!is_too_full && !self.lacks_overflow(hash)).then_some(growth)
    }

    /// Begins to store an entry, in the place of the one that `is_match` accepts, or as a new one;
    /// [`Index::pages_wanted`] of its hash is 0. The ghost of its hash is gone. [`Index::finish_store`] ends it.
    /// The hash is the one that was looked ahead for.
    #[inline(always)]
    pub(super) fn begin_store(&self, at: Ahead, is_match: impl FnMut(ChunkRef) -> bool) -> Spot<'_> {
        let at = if self.is_ahead(&at) { at } else { self.look_ahead(at.hash) };
        // SAFETY: it is the one still, or was looked for just now.
        let line = unsafe { at.line() };
        match self.begin_plainly(line, at.hash) {
            Some(PlainSpot { guard, len, is_ghost }) => {
                Spot { last: guard.line(), guard, len, found: None, is_ghost }
            }
            None => self.begin_in_chain_coldly(line, at.hash, is_match),
        }
    }

    /// [`Index::begin_store`] in the home line of this hash, in the most common case: it is alone, has room, and has no
    /// entry of this tag.
    #[inline(always)]
    pub(super) fn begin_plainly<'a>(&self, home: &'a Line, hash: u64) -> Option<PlainSpot<'a>> {
        let mut guard = home.lock();
        let tags = home.tags();
        let len = tags.len();
        if !home.is_last() || len == SLOTS || tags.slots_with(tag(hash)) != 0 {
            return None;
        }
        let is_ghost = guard.changing().take_ghost(len, fingerprint(hash));
        Some(PlainSpot { guard, len, is_ghost })
    }

    /// [`Index::finish_store`] of such a spot, which replaces nothing.
    #[inline(always)]
    pub(super) fn finish_plainly(&self, spot: PlainSpot<'_>, hash: u64, chunk: ChunkRef) {
        spot.guard.line().set(spot.len, tag(hash), chunk.get());
    }

    /// [`Index::begin_store`] in the chain of this hash's home line, in any case.
    #[inline(always)]
    pub(super) fn begin_in_chain<'a>(
        &'a self,
        home: &'a Line,
        hash: u64,
        is_match: impl FnMut(ChunkRef) -> bool,
    ) -> Spot<'a> {
        let mut guard = home.lock();
        let Walk { found, last, .. } = self.table().seek(guard.changing(), hash, is_match);
        let len = last.len();
        // What is there has no ghost.
        let is_ghost = found.is_none() && last.take_ghost(len, fingerprint(hash));
        Spot { guard, last, len, found, is_ghost }
    }

    /// [`Index::begin_in_chain`], out of line.
    #[cold]
    #[inline(never)]
    fn begin_in_chain_coldly<'a>(
        &'a self,
        home: &'a Line,
        hash: u64,
        is_match: impl FnMut(ChunkRef) -> bool,
    ) -> Spot<'a> {
        self.begin_in_chain(home, hash, is_match)
    }

    /// Counts an entry that was added; may split one line.
    #[inline]
    pub(super) fn count_added(&mut self, hash_of: impl Fn(ChunkRef) -> u64) {
        self.entries += 1;
        if self.entries > self.limits.split_above {
            self.split(hash_of);
        }
    }

    /// The entry of this hash now refers to this chunk; gives what it has referred to before. If that is nothing, there is
    /// an entry more, which is to be counted, unless another was removed for it and not counted either.
    #[inline(always)]
    pub(super) fn finish_store(&self, spot: Spot<'_>, hash: u64, chunk: ChunkRef) -> Option<ChunkRef> {
        let Spot { guard, last, len, found, .. } = spot;
        if let Some((line, slot, old)) = found {
            line.set_reference(slot, chunk.get());
            return Some(old);
        }
        if len < SLOTS && std::ptr::eq(guard.line(), last) {
            last.set(len, tag(hash), chunk.get());
        } else {
            self.append_behind(guard.line(), last, len, tag(hash), chunk.get());
        }
        drop(guard);
        None
    }

    /// Counts an entry that [`Index::remove`] has removed.
    #[inline]
    pub(super) fn count_removed(&mut self) {
        self.entries -= 1;
    }

    /// Runs with the line of this hash locked; the hash is one of an entry.
    pub(super) fn with_line<R>(&self, hash: u64, run: impl FnOnce() -> R) -> R {
        let _guard = self.table().lock(hash).expect("an index with an entry has lines");
        run()
    }

    /// An entry's item was moved by `copy`, which runs with the line locked and says where to.
    pub(super) fn relocate(&self, hash: u64, old: ChunkRef, copy: impl FnOnce() -> ChunkRef) -> ChunkRef {
        let table = self.table();
        let mut guard = table.home(table.state().home(hash)).lock();
        let new = copy();
        let (line, slot, _) = table.seek(guard.changing(), hash, |chunk| chunk == old).found.expect(INDEXED);
        line.set_reference(slot, new.get());
        new
    }

    /// Removes an entry, unless `decide`, which runs with the line locked, says otherwise. Whether it was removed.
    #[inline]
    pub(super) fn remove_if(&mut self, hash: u64, chunk: ChunkRef, decide: impl FnOnce() -> Removal) -> bool {
        let entry = self.lock_entry(hash);
        let removal = decide();
        if removal == Removal::Keep {
            return false;
        }
        self.remove(entry, hash, chunk, removal == Removal::RemoveAsGhost);
        self.count_removed();
        true
    }

    /// Locks the line of an entry with this hash.
    #[inline]
    fn lock_entry(&self, hash: u64) -> EntryGuard<'_> {
        let home = self.table().state().home(hash);
        EntryGuard { guard: self.table().home(home).lock(), home }
    }

    /// [`Index::lock_entry`] of the hash that was looked ahead for, if its line is the one still.
    #[inline(always)]
    pub(super) fn lock_if_ahead(&self, ahead: &Ahead) -> Option<EntryGuard<'_>> {
        let (line, home) = self.table().line_ahead(ahead)?;
        Some(EntryGuard { guard: line.lock(), home })
    }

    /// Whether the line that was looked ahead for is the one still.
    #[inline(always)]
    pub(super) fn is_ahead(&self, ahead: &Ahead) -> bool {
        self.table().line_ahead(ahead).is_some()
    }

    /// An entry with this hash will be removed soon: the processor fetches its line.
    #[inline(always)]
    pub(super) fn look_ahead(&self, hash: u64) -> Ahead {
        self.table().look_ahead(hash)
    }

    /// Has the processor fetch what follows the line that was looked ahead for, which has come by now.
    #[inline(always)]
    pub(super) fn prefetch_rest(&self, ahead: &Ahead) {
        if let Some((home, _)) = self.table().line_ahead(ahead) {
            self.table().prefetch_rest(home);
        }
    }

    /// Removes an entry whose line is locked, and leaves it to the caller to count it; `as_ghost`: the line remembers its
    /// hash.
    #[inline(always)]
    pub(super) fn remove(&self, entry: EntryGuard<'_>, hash: u64, chunk: ChunkRef, as_ghost: bool) {
        let EntryGuard { mut guard, home } = entry;
        let line = guard.changing();
        let (last, len) = if line.is_last() {
            let tags = line.tags();
            let (slots, end) = (tags.slots_with(tag(hash)), tags.len() - 1);
            let slot = line.slot_of(slots, chunk.get()).expect(INDEXED);
            line.set(slot, line.tag(end), line.reference(end));
            line.set(end, 0, 0);
            (line, end)
        } else {
            self.remove_from_chain(line, hash, chunk)
        };
        if as_ghost {
            last.add_ghost(len, self.ghosts_max(home), fingerprint(hash));
        }
        drop(guard);
    }

    /// Takes an entry out of the chain that begins with this line, which is locked and is being changed; gives the
    /// chain's last line and how many entries that has.
    #[cold]
    #[inline(never)]
    fn remove_from_chain<'a>(&'a self, home: &'a Line, hash: u64, chunk: ChunkRef) -> (&'a Line, usize) {
        let walk = self.table().walk(home, hash, |found| found == chunk);
        let (line, slot, _) = walk.found.expect(INDEXED);
        // The chain's last entry fills the gap, so that only the last line has empty slots.
        let end = walk.last.len() - 1;
        let (tag, reference) = (walk.last.tag(end), walk.last.reference(end));
        line.set(slot, tag, reference);
        walk.last.set(end, 0, 0);
        let number = walk.before_last.overflow();
        // The kinds of what is left, for the line that is asked most; those before it may have one too many.
        let kinds = walk.last.kinds_of_first(end);
        walk.before_last.set_overflow_for(if end == 0 { 0 } else { number }, kinds);
        if end == 0 {
            self.free_overflow(number - 1);
            return (walk.before_last, walk.before_last.len());
        }
        (walk.last, end)
    }

    /// How many ghosts a chain keeps: as many as the entries that it should have, which is twice as many where the home
    /// line was not split yet; and a fifth more, since full lines have no room for theirs. (By the entries that it has,
    /// some chains would remember for much longer than others.)
    #[inline(always)]
    fn ghosts_max(&self, home: usize) -> usize {
        if self.ghosts.get().entries != self.entries {
            self.count_ghosts();
        }
        let ghosts = self.ghosts.get();
        // Its other half, if it was split, has the other value of that bit.
        let is_split = (home ^ ghosts.bit) < ghosts.count;
        usize::from(ghosts.most[usize::from(is_split)])
    }

    #[cold]
    #[inline(never)]
    fn count_ghosts(&self) {
        let count = self.count();
        let bits = count.ilog2();
        let most = [0, 1].map(|split| {
            let halves = (self.entries * 12 / 5) >> (bits + split);
            halves.div_ceil(2).clamp(1, 2 * SLOTS) as u8
        });
        self.ghosts.set(Ghosts { entries: self.entries, count, bit: 1 << bits, most });
    }

    /// Appends what home lines from `first` on remember of evicted items: of each line how many there are, and their
    /// fingerprints, oldest first, 0 where one was taken; about `bytes_max` bytes. Gives the line to go on with, `None` behind the last.
    pub(super) fn copy_ghosts(&self, first: usize, bytes_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        for home in first..self.count() {
            if out.len() >= bytes_max {
                return Some(home);
            }
            let last = self.last_line(home);
            let count_at = out.len();
            out.push(0);
            for fingerprint in last.ghosts(last.len()) {
                out.extend_from_slice(&fingerprint.to_le_bytes());
                out[count_at] += 1;
            }
        }
        None
    }

    /// Takes over what [`Index::copy_ghosts`] of an index with so many lines gave; false where it is malformed.
    pub(super) fn remember_ghosts(&self, first: usize, lines: usize, mut bytes: &[u8]) -> bool {
        let mut from = first;
        while let Some((count, behind)) = bytes.split_first() {
            let Some((fingerprints, behind)) = behind.split_at_checked(2 * usize::from(*count)) else {
                return false;
            };
            if self.count() > 0 {
                self.remember_line(from as u64, self.count() == lines, fingerprints);
            }
            (bytes, from) = (behind, from.wrapping_add(1));
        }
        true
    }

    /// `hash`: any of the line's. Of the same line: what it remembers already is among these, as far as it is not older.
    fn remember_line(&self, hash: u64, is_same_line: bool, fingerprints: &[u8]) {
        let entry = self.lock_entry(hash);
        let most = self.ghosts_max(entry.home);
        let last = self.last_line(entry.home);
        let len = last.len();
        let fingerprints = fingerprints.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        if is_same_line {
            last.set_ghosts(len, fingerprints.rev());
        } else {
            fingerprints.filter(|one| *one != 0).for_each(|one| last.add_ghost(len, most, one));
        }
    }

    /// The last line of a home's chain.
    fn last_line(&self, home: usize) -> &Line {
        let mut line = self.table().home(home);
        while !line.is_last() {
            line = self.table().overflow(line.overflow() - 1);
        }
        line
    }

    /// After a removal: may merge two lines. Gives a page that became free, its lines empty.
    #[inline]
    pub(super) fn shrink(&mut self) -> Option<u32> {
        // Two lines joined may need one overflow line more, and one must stay for the next insertion.
        if self.entries < self.limits.merge_below && self.overflow_free.get() >= 2 {
            return self.merge();
        }
        None
    }

    /// Empties the index, once no reader is in it any more, and gives up all pages; their lines are empty.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        let count = self.count();
        if count > 0 {
            self.table().publish(0);
        }
        for home in 0..count {
            self.table().home(home).lock().changing().wipe();
        }
        for number in 0..(self.overflow_pages * self.table().lines_per_page()) as u32 {
            self.table().overflow(number).wipe();
        }
        let mut freed: Vec<u32> = (0..self.home_pages).map(|at| self.table().home_page(at)).collect();
        freed.extend((0..self.overflow_pages).map(|at| self.table().overflow_page(at)));
        *self = Index::new(self.tables.clone(), self.at);
        freed
    }

    #[cold]
    fn split(&mut self, hash_of: impl Fn(ChunkRef) -> u64) {
        let mut moving = std::mem::take(&mut self.moving);
        let table = self.table();
        let new = self.count();
        let old = new - (1 << new.ilog2());
        let mut guards = (table.home(old).lock(), table.home(new).lock());
        guards.0.changing();
        guards.1.changing();
        self.take_chain(old, &mut moving);
        let moved = moving.len();
        table.publish(new + 1);
        let state = table.state();
        for (tag, reference) in moving.drain(..) {
            let hash = hash_of(ChunkRef::from_link(reference).expect("an entry refers to an item"));
            let home = state.home(hash);
            debug_assert!(home == old || home == new);
            self.append(home, tag, reference);
        }
        drop(guards);
        self.moving = moving;
        self.entries_moved_max = self.entries_moved_max.max(moved);
        self.ghosts = Cell::default();
        self.limits = self.limits_of_now();
    }

    #[cold]
    fn merge(&mut self) -> Option<u32> {
        let mut moving = std::mem::take(&mut self.moving);
        let table = self.table();
        let gone = self.count() - 1;
        let into = gone - (1 << gone.ilog2());
        let mut guards = (table.home(into).lock(), table.home(gone).lock());
        guards.0.changing();
        guards.1.changing();
        self.take_chain(gone, &mut moving);
        let moved = moving.len();
        table.publish(gone);
        for (tag, reference) in moving.drain(..) {
            self.append(into, tag, reference);
        }
        drop(guards);
        self.moving = moving;
        self.entries_moved_max = self.entries_moved_max.max(moved);
        self.ghosts = Cell::default();
        let is_page_free = gone <= (self.home_pages - 1) * self.table().lines_per_page();
        self.home_pages -= usize::from(is_page_free);
        self.limits = self.limits_of_now();
        is_page_free.then(|| self.table().home_page(self.home_pages))
    }

    /// Empties a chain into `moving` and frees its overflow lines.
    fn take_chain(&self, home: usize, moving: &mut Vec<(u8, u32)>) {
        let mut place = Place::Home(home);
        loop {
            let line = self.line(place);
            let overflow = line.overflow();
            moving.extend((0..line.len()).map(|slot| (line.tag(slot), line.reference(slot))));
            line.wipe();
            if let Place::Overflow(number) = place {
                self.free_overflow(number);
            }
            if overflow == 0 {
                break;
            }
            place = Place::Overflow(overflow - 1);
        }
    }

    fn append(&self, home: usize, tag: u8, reference: u32) {
        let home = self.table().home(home);
        let mut last = home;
        loop {
            match last.overflow() {
                0 => break,
                next => last = self.table().overflow(next - 1),
            }
        }
        self.append_behind(home, last, last.len(), tag, reference);
    }

    /// Adds an entry to the last line of a chain, which has `len` entries, or to a new one behind it.
    #[inline]
    fn append_behind<'a>(
        &'a self,
        home: &'a Line,
        mut last: &'a Line,
        mut len: usize,
        tag: u8,
        reference: u32,
    ) {
        if len == SLOTS {
            let number = self.overflow_free_head.get();
            assert_ne!(number, 0, "an insertion was prepared with a free overflow line");
            let free = self.table().overflow(number - 1);
            self.overflow_free_head.set(free.overflow());
            free.set_overflow(0);
            self.overflow_free.set(self.overflow_free.get() - 1);
            last.set_overflow(number);
            (last, len) = (free, 0);
        }
        last.set(len, tag, reference);
        let mut before = home;
        while !std::ptr::eq(before, last) {
            before.add_kind(tag);
            before = self.table().overflow(before.overflow() - 1);
        }
    }

    #[cold]
    fn free_overflow(&self, number: u32) {
        let line = self.table().overflow(number);
        line.wipe();
        line.set_overflow(self.overflow_free_head.get());
        self.overflow_free_head.set(number + 1);
        self.overflow_free.set(self.overflow_free.get() + 1);
    }

    #[inline]
    fn line(&self, place: Place) -> &Line {
        match place {
            Place::Home(number) => self.table().home(number),
            Place::Overflow(number) => self.table().overflow(number),
        }
    }

    /// Panics with the number of a broken invariant.
    pub(super) fn check_invariants(&self, hash_of: impl Fn(ChunkRef) -> u64) {
        let (mut entries, mut chained) = (0, 0);
        let (state, lines) = (self.table().state(), self.table().lines_per_page());
        for home in 0..state.count() {
            let mut place = Place::Home(home);
            loop {
                let line = self.line(place);
                let used = line.len();
                assert!((used..SLOTS).all(|slot| line.tag(slot) == 0), "index 2: holes in line {home}");
                assert!(place == Place::Home(home) || used > 0, "index 2: empty overflow line");
                assert!(line.overflow() == 0 || used == SLOTS, "index 2: a line with room has a successor");
                let mut before = Place::Home(home);
                while before != place {
                    let line_before = self.line(before);
                    assert!((0..used).all(|slot| line_before.goes_on_for(line.tag(slot))), "index 5: kinds");
                    before = Place::Overflow(line_before.overflow() - 1);
                }
                for slot in 0..used {
                    let chunk = ChunkRef::from_link(line.reference(slot)).expect("index 1: empty reference");
                    let hash = hash_of(chunk);
                    assert_eq!((state.home(hash), tag(hash)), (home, line.tag(slot)), "index 1: wrong line");
                }
                entries += used;
                if line.overflow() == 0 {
                    break;
                }
                chained += 1;
                place = Place::Overflow(line.overflow() - 1);
            }
        }
        assert_eq!(entries, self.entries, "index 1: count of entries");
        assert_eq!(self.limits, self.limits_of_now(), "index 6: limits");
        let (mut free, mut head) = (0, self.overflow_free_head.get());
        while head != 0 && free <= self.overflow_free.get() {
            free += 1;
            let line = self.table().overflow(head - 1);
            assert_eq!(line.len(), 0, "index 3: a free line is empty");
            head = line.overflow();
        }
        assert_eq!(free, self.overflow_free.get(), "index 3: free list");
        assert_eq!(free as usize + chained, self.overflow_pages * lines, "index 3: lost line");
        let room = self.home_pages * lines;
        assert!((state.count()..room).all(|home| self.table().home(home).len() == 0), "index 3: unused line");
        assert!(state.count() <= room && state.count() >= lines.min(room), "index 4");
        assert!(
            self.home_pages <= 1 || state.count() >= room - lines || self.home_pages == 0,
            "index 4: unused page"
        );
        assert!(self.moving.is_empty(), "index: entries on their way");
    }
}

// SAFETY: the pointer leads into `tables`, which are shared between threads anyway.
unsafe impl Send for Index {}

#[cfg(test)]
mod tests;
