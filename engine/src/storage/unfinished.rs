//! A value that comes piece by piece: it lies in pages of the pool from its first byte on, and those become its item's.
//!
//! Lives here: filling such pages, making room for one more, turning them into an item. Not here: who may have how many, and
//! when a value is given up (see `cache::value_writer`).
//!
//! ```text
//!   page 0:   | room for the header and key | value goes on…          |    the first chunk of the item
//!   page 1..: | room for a tail's header | value goes on…             |    its whole tails
//!   the last: | the same | what takes less than a page |                    is copied into smaller chunks at the end
//! ```
//! The pages are counted as the pool's others are. No shard has them: so compaction, eviction, flushes, walks and images
//! don't meet them, and whoever gives a value up needs no shard. The item that comes of it lies as one that was stored at
//! once does.

use std::sync::Arc;

use super::cuts::{Cuts, SizeClasses};
use super::expiry::Moment;
use super::item::{self, Footprint, TAIL_HEADER_BYTES, Value, View, item_bytes};
use super::memory::ChunkRef;
use super::pages::PagePool;
use super::room::ReserveError;
use super::shard::{Place, Shard};
use super::{Marks, Meta, Version};

/// A value of which a part has come.
///
/// 1. `filled` bytes of the value lie in `pages`, which have no room for a whole page more than that.
/// 2. The pool counts `pages` as unfinished.
pub(crate) struct Unfinished {
    pool: Arc<PagePool>,
    footprint: Footprint,
    /// Where the value begins in the first page.
    value_at: usize,
    /// How many of the pages become chunks of the item; 0 for an item that is too small for that.
    kept: usize,
    pages: Vec<u32>,
    filled: usize,
}

/// Chunks behind the whole pages of an item, to be given to [`Shard::commit_unfinished`] before the shard is changed
/// otherwise.
#[must_use]
pub(crate) struct Rest(Option<ChunkRef>);

impl Unfinished {
    /// None of a value has come that its item is to have this footprint with.
    pub(crate) fn new(pool: &Arc<PagePool>, classes: &SizeClasses, footprint: Footprint) -> Unfinished {
        let kept = match classes.pages_and_more(footprint) {
            (1, 0) => 0,
            (pages, _) => pages,
        };
        let value_at = if kept > 0 { footprint.chained_value_at() } else { TAIL_HEADER_BYTES };
        Unfinished { pool: pool.clone(), footprint, value_at, kept, pages: Vec::new(), filled: 0 }
    }

    pub(crate) fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// What its item counts as at least: header, key and value.
    pub(crate) fn item_bytes(&self) -> usize {
        item_bytes(self.footprint.key_bytes, self.footprint.value_bytes)
    }

    fn missing(&self) -> usize {
        self.footprint.value_bytes - self.filled
    }

    /// Whether there is no room for the next byte.
    pub(crate) fn wants_page(&self) -> bool {
        self.missing() > 0 && self.place(self.filled).0 == self.pages.len()
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Where in a page the value goes on.
    fn begin(&self, page: usize) -> usize {
        if page == 0 { self.value_at } else { TAIL_HEADER_BYTES }
    }

    /// How many bytes of the value a page has room for.
    fn room(&self, page: usize) -> usize {
        let memory = self.pool.memory();
        let trailer_bytes = if page == 0 { memory.trailer_bytes() } else { 0 };
        memory.page_bytes() - self.begin(page) - trailer_bytes
    }

    /// In which page a byte of the value lies, and how many of the value lie before it there.
    fn place(&self, at: usize) -> (usize, usize) {
        match at.checked_sub(self.room(0)) {
            None => (0, at),
            Some(behind) => (1 + behind / self.room(1), behind % self.room(1)),
        }
    }

    fn chunk(&self, page: usize) -> ChunkRef {
        self.pool.memory().page_chunk(self.pages[page])
    }

    /// Takes as many bytes as it has pages for; gives how many.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let (mut rest, memory) = (&bytes[..bytes.len().min(self.missing())], self.pool.memory());
        let all = rest.len();
        while !rest.is_empty() && !self.wants_page() {
            let (page, within) = self.place(self.filled);
            let (here, behind) = rest.split_at(rest.len().min(self.room(page) - within));
            // SAFETY: within the page, which the pool gave to nobody else.
            unsafe { memory.write(self.chunk(page), self.begin(page) + within, here) };
            self.filled += here.len();
            rest = behind;
        }
        all - rest.len()
    }

    /// What has come, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.filled;
        (0..self.pages.len()).map(move |page| {
            let here = rest.min(self.room(page));
            rest -= here;
            // SAFETY: `here` bytes of this page were written, and nobody else has it.
            unsafe { self.pool.memory().bytes(self.chunk(page), self.begin(page), here) }
        })
    }

    /// The whole value, if its item has no page of its own.
    pub(crate) fn small_value(&self) -> Option<&[u8]> {
        debug_assert_eq!(self.missing(), 0);
        (self.kept == 0).then(|| self.pieces().next().unwrap_or_default())
    }

    /// One page more. It was counted before.
    fn push(&mut self, page: u32) {
        debug_assert!(self.wants_page());
        self.pages.push(page);
    }

    /// A page of the pool's, if there is one; false if there is none. At most `pages_max` are given to unfinished values in
    /// all: an error above that.
    pub(crate) fn take_free_page(&mut self, pages_max: usize) -> Result<bool, ReserveError> {
        if !self.pool.count_unfinished(pages_max) {
            return Err(ReserveError::OutOfMemory);
        }
        let page = self.pool.take();
        match page {
            Some(page) => self.push(page),
            None => self.pool.forget_unfinished(1),
        }
        Ok(page.is_some())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.pool.forget_unfinished(self.pages.len());
        self.pages.drain(..).for_each(|page| self.pool.give(page));
    }
}

impl PagePool {
    /// How many pages unfinished values may have: half of all, or as many as the largest item takes if that is more.
    pub(crate) fn unfinished_pages_max(&self, item_bytes_max: usize) -> usize {
        let of_item = item_bytes_max.div_ceil(self.page_bytes() - TAIL_HEADER_BYTES) + 2;
        of_item.max(self.page_count_max() / 2)
    }
}

impl Shard {
    /// Evicts until an unfinished value has a page more, but where this shard `keeps_half` no more than leaves it half of its
    /// even share; whether it has. At most `pages_max` are given to unfinished values in all: an error above that.
    pub(crate) fn spare_page(
        &mut self,
        unfinished: &mut Unfinished,
        keeps_half: bool,
        pages_max: usize,
        moment: Moment<'_>,
    ) -> Result<bool, ReserveError> {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled first");
        self.note_moment(moment);
        let pages_kept = if keeps_half { self.pool.half_share() } else { 0 };
        let mut looks_left = self.looks_at_most();
        loop {
            if unfinished.take_free_page(pages_max)? {
                return Ok(true);
            }
            let may_leave = self.page_count() > pages_kept;
            if !may_leave || !(self.compact(|_| 0) || self.evict_one(moment, &mut looks_left)) {
                return Ok(false);
            }
            self.is_settled = false;
            self.return_pages();
        }
    }

    /// Makes room for what an unfinished value that is whole now wants beside its pages. `hash` is the one of its key.
    pub(crate) fn reserve_rest(
        &mut self,
        unfinished: &Unfinished,
        hash: u64,
        moment: Moment<'_>,
    ) -> Result<Rest, ReserveError> {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled before the next one");
        if u32::try_from(unfinished.footprint.value_bytes).is_err() {
            return Err(ReserveError::OutOfMemory);
        }
        self.note_moment(moment);
        let mut cuts = Cuts::new(&self.slabs, unfinished.footprint);
        let pages = cuts.take_first(self.slabs.page_class());
        assert_eq!(pages, unfinished.kept, "a small value is stored as others are");
        self.reserve_chain(hash, &cuts, moment).map(Rest)
    }

    /// Stores an unfinished value that is whole now, as [`Shard::commit`] does at [`Place::New`]. `meta` has flags and a state
    /// only as far as the footprint says so. `publish` is told marks and value and gives the version.
    pub(crate) fn commit_unfinished(
        &mut self,
        unfinished: &mut Unfinished,
        rest: Rest,
        hash: u64,
        key: &[u8],
        meta: Meta,
        publish: impl FnOnce(Marks, Value<'_>) -> Version,
    ) -> Version {
        debug_assert_eq!(hash, self.hasher.hash(key), "the hash is of this key and seed");
        let footprint = unfinished.footprint;
        assert_eq!((key.len(), unfinished.missing()), (footprint.key_bytes, 0));
        let first = self.adopt_pages(unfinished, rest);
        self.reserved_chunks = 0;
        let memory = self.slabs.memory().clone();
        // SAFETY: the chain is that of this footprint, and nothing names it yet.
        let bytes = unsafe { item::write_around(&memory, first, footprint, key, meta) };
        let at = self.index.look_ahead(hash);
        // SAFETY: the item changes no more, but for words of its header, and stays: its shard is held.
        let view = unsafe { View::new(&memory) };
        self.enlist(at, first, bytes, key, meta, Place::New, |marks| publish(marks, view.value(first)))
    }

    /// The pages become this shard's chunks, linked to one chain with the rest, into which what is left of the value is
    /// copied.
    fn adopt_pages(&mut self, unfinished: &mut Unfinished, Rest(rest): Rest) -> ChunkRef {
        let class = self.slabs.page_class();
        let (mut first, mut previous) = (None, None);
        for page in &unfinished.pages[..unfinished.kept] {
            self.slabs.add_page(class, *page);
            let chunk = self.slabs.allocate(class).expect("its page was just added");
            debug_assert_eq!(chunk, self.pool.memory().page_chunk(*page));
            item::link_tail(self.slabs.memory(), previous, chunk);
            first = first.or(Some(chunk));
            previous = Some(chunk);
        }
        let memory = self.slabs.memory();
        if let Some((last, rest)) = previous.zip(rest) {
            item::join_tails(memory, last, rest);
            let behind = unfinished.pieces().nth(unfinished.kept).unwrap_or_default();
            // SAFETY: the rest was reserved for these bytes, and nothing names it yet.
            unsafe { item::write_tails(memory, Some(rest), behind) };
        }
        unfinished.pages.drain(..unfinished.kept);
        self.pool.forget_unfinished(unfinished.kept);
        first.expect("a value without a page of its own is stored as others are")
    }
}
