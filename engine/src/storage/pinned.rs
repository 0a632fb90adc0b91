//! Values that stay where they lie while somebody sends them, whatever becomes of their items.
//!
//! Lives here: [`PinnedValue`], which pages are pinned, and how many may be. Not here: what is done with such a value.
//!
//! ```text
//!   item:     | first page | whole page | whole page | smaller chunks |
//!   pinned:   '-------- stay where they are ---------'  '-- a copy ---'
//! ```
//! Only whole pages are pinned: a page of smaller chunks belongs to many items, and its chunks move. A pinned page changes
//! nothing for its item, which is read, overwritten and evicted as any other. But when the item has gone, the page is *left*: no
//! shard has it, and the pool gets it back when the last holder goes. A left page counts as held, so that the hard limit
//! holds, and other items leave for it.
//!
//! **Lock order**: the list of pinned pages is a leaf. Whoever pins holds the item's line or shard, so a page can't be given
//! back meanwhile; whoever gives one back has locked that line since the item was in it, and sees every pin.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};

use parking_lot::Mutex;

use super::item::{TAIL_HEADER_BYTES, Value};
use super::memory::Memory;
use super::pages::PagePool;

/// Of all pages, the part that may be pinned.
const PINNED_PART: usize = 4;

/// The pinned pages of a pool.
#[derive(Default)]
pub(super) struct Pins {
    /// Where pages go that are left and let go.
    pool: OnceLock<Weak<PagePool>>,
    /// How many are pinned: spares those the lock who give pages back while there are none.
    count: AtomicUsize,
    pages: Mutex<HashMap<u32, Pin>>,
}

/// What is known of a pinned page.
#[derive(Default)]
struct Pin {
    holders: usize,
    /// No shard has it any more.
    is_left: bool,
}

impl Pins {
    /// Once, when the pool is made.
    pub(super) fn set_pool(&self, pool: Weak<PagePool>) {
        self.pool.set(pool).unwrap_or_else(|_| unreachable!("a memory has one pool"));
    }

    /// Pins these pages, unless that would be too many: a quarter of all, or one value's.
    fn pin(&self, pages: &[u32]) -> bool {
        let Some(pool) = self.pool.get().and_then(Weak::upgrade) else { return false };
        let pages_max = (pool.page_count_max() / PINNED_PART).max(pages.len());
        let mut pinned = self.pages.lock();
        let new = pages.iter().filter(|page| !pinned.contains_key(page)).count();
        if pinned.len() + new > pages_max {
            return false;
        }
        pages.iter().for_each(|page| pinned.entry(*page).or_default().holders += 1);
        self.count.store(pinned.len(), Ordering::Relaxed);
        true
    }

    /// One holder less; what is left and nobody's is the pool's again.
    fn unpin(&self, pages: &[u32]) {
        let mut free = Vec::new();
        let mut pinned = self.pages.lock();
        for page in pages {
            let Entry::Occupied(mut entry) = pinned.entry(*page) else {
                unreachable!("who pinned a page lets it go once")
            };
            entry.get_mut().holders -= 1;
            if entry.get().holders == 0 && entry.remove().is_left {
                free.push(*page);
            }
        }
        self.count.store(pinned.len(), Ordering::Relaxed);
        drop(pinned);
        if let Some(pool) = self.pool.get().and_then(Weak::upgrade) {
            free.into_iter().for_each(|page| pool.give(page));
        }
    }

    /// A shard gives this page up, whose items have gone: whether it has to stay as it is for now.
    #[inline]
    pub(super) fn leave(&self, page: u32) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.leave_pinned(page)
    }

    #[cold]
    fn leave_pinned(&self, page: u32) -> bool {
        self.pages.lock().get_mut(&page).is_some_and(|pin| {
            pin.is_left = true;
            true
        })
    }

    /// How many pages no shard has any more.
    pub(super) fn left_pages(&self) -> usize {
        match self.count.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.pages.lock().values().filter(|pin| pin.is_left).count(),
        }
    }
}

/// A value that can be read without its item's lock, for as long as one likes: from where it lies, and as it was when
/// [`Value::pin`] was called, also when its item was overwritten, deleted, flushed or evicted since.
///
/// The memory of an item that has gone stays with it, counts against
/// [`Config::memory_bytes_max`](crate::Config::memory_bytes_max) ([`Stats::pinned_bytes`](crate::Stats::pinned_bytes)), and is
/// the cache's again when the last such value of it is dropped.
pub struct PinnedValue {
    memory: Memory,
    pages: Box<[u32]>,
    /// Where in its first page it begins, and how much of it lies there.
    first_at: usize,
    first_bytes: usize,
    len: usize,
    /// What lies behind its whole pages.
    rest: Box<[u8]>,
}

impl Value<'_> {
    /// The value as it is now, to be read later. What lies in whole pages, which are 4 to 64 KiB, stays there; what is less than
    /// a page is copied. `None` of a value that has no page to itself, or where a quarter of the memory is pinned
    /// already (one value of any length is always pinned while no other is): whoever wants it nevertheless copies it.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("film", vec![1; 300_000], Expiry::Never)?;
    /// let pinned = cache.read("film", |item| item.value.pin())?.flatten().unwrap();
    /// cache.delete("film")?;
    /// assert_eq!(pinned.pieces_from(0).map(<[u8]>::len).sum::<usize>(), 300_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn pin(&self) -> Option<PinnedValue> {
        let memory = self.memory;
        let page_bytes = memory.page_bytes();
        // By the key's last byte.
        let (first_page, before) = memory.place_of(self.first.as_ptr().wrapping_sub(1));
        // One chunk is taken over as it is by the next item of its class. A chain is freed chunk by chunk.
        if self.next.is_none() || memory.page_chunk_bytes(first_page) != page_bytes {
            return None;
        }
        let mut pages = vec![first_page];
        let (mut next, mut paged_bytes) = (self.next, self.first.len());
        while let Some(tail) = next.filter(|tail| memory.chunk_bytes(*tail) == page_bytes) {
            pages.push(memory.page_of(tail));
            paged_bytes += (page_bytes - TAIL_HEADER_BYTES).min(self.len - paged_bytes);
            next = super::item::next_chunk(memory, tail);
        }
        if !memory.pins().pin(&pages) {
            return None;
        }
        let mut rest = Vec::with_capacity(self.len - paged_bytes);
        self.pieces().skip(pages.len()).for_each(|piece| rest.extend_from_slice(piece));
        Some(PinnedValue {
            memory: memory.clone(),
            pages: pages.into(),
            first_at: before + 1,
            first_bytes: self.first.len(),
            len: self.len,
            rest: rest.into(),
        })
    }
}

impl PinnedValue {
    /// Its length, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "it has a page at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What it takes beside the cache's pages, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.rest.len() + size_of_val(&*self.pages)
    }

    /// The bytes from `at` on that lie in one piece; none behind the end.
    pub fn piece(&self, at: usize) -> &[u8] {
        if at < self.first_bytes {
            return self.paged(0, self.first_at + at, self.first_bytes - at);
        }
        let room = self.memory.page_bytes() - TAIL_HEADER_BYTES;
        let behind = at - self.first_bytes;
        let (page, within) = (1 + behind / room, behind % room);
        if page < self.pages.len() {
            let here = (room - within).min(self.len.saturating_sub(at));
            return self.paged(page, TAIL_HEADER_BYTES + within, here);
        }
        self.rest.get(behind - (self.pages.len() - 1) * room..).unwrap_or_default()
    }

    /// The bytes from `at` on, in order.
    pub fn pieces_from(&self, mut at: usize) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let piece = self.piece(at);
            at += piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    fn paged(&self, page: usize, at: usize, len: usize) -> &[u8] {
        let chunk = self.memory.page_chunk(self.pages[page]);
        // SAFETY: a range of the value. Its page is pinned, so nobody gets it to write another item into; and its item has
        // more than one chunk (`Value::pin`), so it is not overwritten where it lies (`storage::overwrite`).
        unsafe { self.memory.bytes(chunk, at, len) }
    }
}

impl Drop for PinnedValue {
    fn drop(&mut self) {
        self.memory.pins().unpin(&self.pages);
    }
}

impl fmt::Debug for PinnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedValue").field("len", &self.len).finish_non_exhaustive()
    }
}
