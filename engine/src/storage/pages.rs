//! The page pool: all memory of a cache, counted in pages against one hard limit.
//!
//! Lives here: how large a page is, who may have one more, free pages kept for the next taker.
//! Not here: what is inside a page (see `slabs` for items, `index` for buckets).
//!
//! ```text
//!   shard 0: slabs, index ---.                          .--- kept (free, allocated)
//!   shard 1: slabs, index ---+--- out (held by shards)  |
//!                            '----------- + ------------'  <= page_count_max
//! ```
//! The table of a shard's pages (40 bytes a page: 1 % at 4 KiB, 0.06 % at 64 KiB) lies outside the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The smallest page: an item's first chunk, with the longest key, still fits a third of it.
const PAGE_BYTES_MIN: usize = 4 << 10;
/// The largest page: what a compaction copies at most.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// How many pages a shard should have at least, so that a half-filled one for each size class costs little.
const PAGES_PER_SHARD: usize = 512;

/// Memory of all shards together.
///
/// 1. `out + kept.len() <= page_count_max`: the hard limit.
/// 2. Each kept page is `page_bytes` long; its content is stale.
/// 3. `available` is `page_count_max - out`, as of the last change.
pub(crate) struct PagePool {
    page_bytes: usize,
    page_count_max: usize,
    shard_count: usize,
    memory_bytes_max: usize,
    /// A hint that spares a taker the lock when there is nothing to take.
    available: AtomicUsize,
    state: Mutex<PoolState>,
}

struct PoolState {
    out: usize,
    kept: Vec<Box<[u8]>>,
}

impl PagePool {
    /// A pool that never holds more than `memory_bytes_max`; allocates nothing yet.
    pub(crate) fn new(memory_bytes_max: usize, shard_count: usize) -> Arc<PagePool> {
        let shard_count = shard_count.max(1);
        let page_bytes = page_bytes(memory_bytes_max, shard_count);
        // A reference is 32 bits in units of 8 bytes, and page number 0 does not exist.
        let page_count_max = (memory_bytes_max / page_bytes).min((1 << 35) / page_bytes - 1);
        Arc::new(PagePool {
            page_bytes,
            page_count_max,
            shard_count,
            memory_bytes_max,
            available: AtomicUsize::new(page_count_max),
            state: Mutex::new(PoolState { out: 0, kept: Vec::new() }),
        })
    }

    /// Bytes of all pages that are allocated, free ones kept for reuse included.
    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state.lock();
        (state.out + state.kept.len()) * self.page_bytes
    }

    /// The hard limit, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(super) fn page_count_max(&self) -> usize {
        self.page_count_max
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shard_count
    }

    /// One page, its content stale, or `None` at the limit.
    pub(super) fn take(&self) -> Option<Box<[u8]>> {
        if self.available.load(Ordering::Relaxed) == 0 {
            return None;
        }
        {
            let mut state = self.state.lock();
            if state.out == self.page_count_max {
                return None;
            }
            state.out += 1;
            self.available.store(self.page_count_max - state.out, Ordering::Relaxed);
            if let Some(page) = state.kept.pop() {
                return Some(page);
            }
        }
        // Allocated outside the lock; it is counted already. Nothing is kept, so the sum stays within the limit.
        Some(vec![0; self.page_bytes].into_boxed_slice())
    }

    /// Takes a page back and keeps it for the next taker, or frees it when enough are kept.
    pub(super) fn give(&self, page: Box<[u8]>) {
        debug_assert_eq!(page.len(), self.page_bytes);
        let mut state = self.state.lock();
        state.out -= 1;
        self.available.store(self.page_count_max - state.out, Ordering::Relaxed);
        if state.kept.len() < (self.page_count_max / 16).max(1) {
            state.kept.push(page);
        } else {
            // Before the lock is released: nobody may allocate in its place while it is still there.
            drop(page);
        }
    }

    /// Takes back pages that were turned into index segments and are freed already.
    pub(super) fn give_freed(&self, pages: usize) {
        let mut state = self.state.lock();
        state.out -= pages;
        self.available.store(self.page_count_max - state.out, Ordering::Relaxed);
    }

    /// How many pages shards hold.
    #[cfg(test)]
    pub(super) fn pages_out(&self) -> usize {
        self.state.lock().out
    }

    /// Panics with the number of a broken invariant. `pages_out` is what all shards together count.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self, pages_out: usize) {
        let state = self.state.lock();
        assert!(state.out + state.kept.len() <= self.page_count_max, "page pool 1: the hard limit");
        assert!(
            self.page_count_max * self.page_bytes <= self.memory_bytes_max,
            "page pool 1: the hard limit"
        );
        assert_eq!(state.out, pages_out, "page pool 1: every page out is held by a shard");
        assert!(state.kept.iter().all(|page| page.len() == self.page_bytes), "page pool 2: kept pages");
        assert_eq!(
            self.available.load(Ordering::Relaxed),
            self.page_count_max - state.out,
            "page pool 3: hint"
        );
    }
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
        let pool = PagePool::new(64 << 10, 1);
        let pages: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(pages.len(), 16);
        assert_eq!(pool.memory_bytes(), pool.memory_bytes_max());
        for page in pages {
            pool.give(page);
        }
        pool.check_invariants(0);
        assert_eq!(pool.memory_bytes(), pool.page_bytes(), "a sixteenth is kept, the rest is freed");
    }
}
