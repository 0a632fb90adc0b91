//! A shard: one lock's worth of cache.
//!
//! Lives here: finding, reading, marking, storing and removing items. Not here: how room is made (see `room`).
//!
//! A store is `reserve`, then `commit` or `cancel`; nothing else that changes the shard comes between.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::expiry::Moment;
use super::hasher::KeyHasher;
use super::index::Index;
use super::item::{self, Value};
use super::lru::Lru;
use super::pages::PagePool;
use super::room::Reservation;
use super::slabs::{ChunkRef, Slabs};
use super::walk::Walks;
use super::{Marks, Meta};

/// Names an item until the shard is next changed by a reservation, a commit, a removal or a surrender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemId(pub(super) NonZeroU32);

impl ItemId {
    pub(super) fn chunk(self) -> ChunkRef {
        ChunkRef(self.0)
    }
}

impl From<ChunkRef> for ItemId {
    fn from(chunk: ChunkRef) -> ItemId {
        ItemId(chunk.0)
    }
}

/// Where in the order a stored item goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the hot end.
    Hot,
    /// Just colder than the install marker, so that installed items keep the order they arrive in.
    Install,
}

/// What eviction has done since the shard was made, or since the counters were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) evictions: u64,
    pub(crate) evicted_unfetched: u64,
    pub(crate) expired_unfetched: u64,
    pub(crate) reclaimed: u64,
    pub(crate) pages_moved: u64,
}

/// One lock's worth of cache; the caller holds the lock.
///
/// 1. Each item is in the index once, under the hash of its key, and in the list once; no two have the same key.
/// 2. Each live chunk belongs to one item or to the one reservation.
/// 3. `item_bytes` is the sum of all items' header, key and value.
/// 4. Between operations no page is in hand: what slabs and index do not use is the pool's.
pub(crate) struct Shard {
    pub(super) pool: Arc<PagePool>,
    pub(super) evict: bool,
    pub(super) hasher: KeyHasher,
    pub(super) slabs: Slabs,
    pub(super) index: Index,
    pub(super) lru: Lru,
    pub(super) walks: Walks,
    pub(super) item_bytes: usize,
    pub(super) counters: Counters,
    /// Pages between the slabs and the pool.
    pub(super) in_hand: Vec<Box<[u8]>>,
    /// Chunks of the reservation that is neither committed nor cancelled yet; 0 without one.
    pub(super) reserved_chunks: usize,
    /// Whether the last reservation failed for want of other shards' pages.
    pub(super) shortage_told: bool,
}

impl Shard {
    /// An empty shard; it takes its first pages when it stores its first item. Without `evict` a full shard
    /// refuses to store.
    pub(crate) fn new(pool: Arc<PagePool>, evict: bool, hasher: KeyHasher) -> Shard {
        let page_bytes = pool.page_bytes();
        Shard {
            pool,
            evict,
            hasher,
            slabs: Slabs::new(page_bytes),
            index: Index::new(page_bytes),
            lru: Lru::new(),
            walks: Walks::default(),
            item_bytes: 0,
            counters: Counters::default(),
            in_hand: Vec::new(),
            reserved_chunks: 0,
            shortage_told: false,
        }
    }

    /// The item of this key, dead or live.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<ItemId> {
        self.index.find(hash, |chunk| item::key(&self.slabs, chunk) == key).map(ItemId::from)
    }

    /// An item whose key has this hash, dead or live. Two keys of the same hash are possible, though not likely.
    pub(crate) fn find_by_hash(&self, hash: u64) -> Option<ItemId> {
        self.index.find(hash, |chunk| self.hash_of(chunk) == hash).map(ItemId::from)
    }

    /// Whether the item has expired or is older than the last flush.
    #[inline]
    pub(crate) fn is_dead(&self, id: ItemId, moment: Moment) -> bool {
        moment.is_dead(self.meta(id))
    }

    #[inline]
    pub(crate) fn meta(&self, id: ItemId) -> Meta {
        item::meta(&self.slabs, id.chunk())
    }

    pub(crate) fn key(&self, id: ItemId) -> &[u8] {
        item::key(&self.slabs, id.chunk())
    }

    #[inline]
    pub(crate) fn value(&self, id: ItemId) -> Value<'_> {
        item::value(&self.slabs, id.chunk())
    }

    /// The hash of the item's key, computed anew: it is not stored.
    pub(crate) fn hash(&self, id: ItemId) -> u64 {
        self.hash_of(id.chunk())
    }

    /// Sets these marks; whether `ACCESSED` was clear and is set now. Writes only when something changes.
    #[inline]
    pub(crate) fn mark(&mut self, id: ItemId, marks: Marks) -> bool {
        let before = self.meta(id).marks;
        let after = before.with(marks);
        if after != before {
            item::set_marks(&mut self.slabs, id.chunk(), after);
        }
        after.contains(Marks::ACCESSED) && !before.contains(Marks::ACCESSED)
    }

    pub(crate) fn set_expiry(&mut self, id: ItemId, expires_at_ms: u64) {
        item::set_expiry(&mut self.slabs, id.chunk(), expires_at_ms);
    }

    /// Moves the item to the hot end.
    pub(crate) fn raise(&mut self, id: ItemId) {
        self.lru.unlink(&mut self.slabs, id.chunk());
        self.lru.push_hot(&mut self.slabs, id.chunk());
    }

    /// Stores an item in the room that was reserved for it. An item of the same key leaves. `hash` is the key's
    /// hash under the hasher's seed of this moment, and the lengths are those of the reservation.
    pub(crate) fn commit(
        &mut self,
        reservation: Reservation,
        hash: u64,
        key: &[u8],
        value: &[u8],
        meta: Meta,
        place: Place,
    ) {
        debug_assert_eq!(hash, self.hasher.hash(key), "the hash is of this key and seed");
        assert_eq!((key.len(), value.len()), (reservation.key_bytes, reservation.value_bytes));
        if let Some(old) = self.find(hash, key) {
            self.remove_item(hash, old.chunk());
        }
        let first = reservation.first;
        self.reserved_chunks = 0;
        item::write(&mut self.slabs, first, key, value, meta);
        let (slabs, hasher) = (&self.slabs, &self.hasher);
        self.index.insert(hash, first, |chunk| hasher.hash(item::key(slabs, chunk)));
        match place {
            Place::Hot => self.lru.push_hot(&mut self.slabs, first),
            Place::Install => self.lru.push_installed(&mut self.slabs, first),
        }
        self.item_bytes += item::counted_bytes(&self.slabs, first);
        self.return_pages();
    }

    /// Gives the reserved room up.
    #[cfg(test)]
    pub(crate) fn cancel(&mut self, reservation: Reservation) {
        self.reserved_chunks = 0;
        self.release_chain(reservation.first);
        self.return_pages();
    }

    /// Removes an item; `hash` is the hash of its key.
    pub(crate) fn remove(&mut self, hash: u64, id: ItemId) {
        self.remove_item(hash, id.chunk());
        self.return_pages();
    }

    /// All items are gone, the pages are the pool's again, walks have ended. The install marker and the counters
    /// stay. Takes time in the number of pages, not of items.
    pub(crate) fn clear(&mut self) {
        assert_eq!(self.reserved_chunks, 0, "a reservation is committed or cancelled first");
        self.in_hand.extend(self.slabs.drain());
        let pages = self.index.clear();
        self.pool.give_freed(pages);
        self.lru.clear(&mut self.slabs);
        self.walks.end_all();
        self.item_bytes = 0;
        self.return_pages();
    }

    /// Items, dead ones that nobody has met yet included.
    pub(crate) fn item_count(&self) -> usize {
        self.index.len()
    }

    /// Header, key and value of all items.
    pub(crate) fn item_bytes(&self) -> usize {
        self.item_bytes
    }

    /// Bytes of the pages that the index stands on.
    pub(crate) fn index_bytes(&self) -> usize {
        self.index.page_count() * self.pool.page_bytes()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn reset_counters(&mut self) {
        self.counters = Counters::default();
    }

    pub(super) fn hash_of(&self, chunk: ChunkRef) -> u64 {
        self.hasher.hash(item::key(&self.slabs, chunk))
    }

    /// Takes an item out of index and list and frees its chunks; pages that became empty are in hand.
    pub(super) fn remove_item(&mut self, hash: u64, first: ChunkRef) {
        let pages = self.index.remove(hash, first);
        if pages > 0 {
            self.pool.give_freed(pages);
        }
        self.lru.unlink(&mut self.slabs, first);
        self.item_bytes -= item::counted_bytes(&self.slabs, first);
        self.release_chain(first);
    }

    fn release_chain(&mut self, first: ChunkRef) {
        let mut next = Some(first);
        while let Some(chunk) = next {
            next = item::next_chunk(&self.slabs, chunk);
            let page = self.slabs.release(chunk);
            self.in_hand.extend(page);
        }
    }

    pub(super) fn return_pages(&mut self) {
        for page in self.in_hand.drain(..) {
            self.pool.give(page);
        }
    }

    /// Pages that this shard has from the pool.
    pub(crate) fn page_count(&self) -> usize {
        self.slabs.page_count() + self.index.page_count() + self.in_hand.len()
    }

    /// Panics with the number of a broken invariant.
    pub(crate) fn check_invariants(&self) {
        self.slabs.check_invariants();
        self.index.check_invariants(|chunk| self.hash_of(chunk));
        let items = self.lru.check_invariants(&self.slabs);
        assert_eq!(items.len(), self.index.len(), "shard 1: index and list hold the same items");
        let (mut chunks, mut item_bytes) = (0, 0);
        for first in items {
            let hash = self.hash_of(first);
            let found = self.find(hash, item::key(&self.slabs, first));
            assert_eq!(found, Some(ItemId::from(first)), "shard 1: an item is found by its key");
            item_bytes += item::counted_bytes(&self.slabs, first);
            let mut next = Some(first);
            while let Some(chunk) = next {
                chunks += 1;
                next = item::next_chunk(&self.slabs, chunk);
            }
            let value = item::value(&self.slabs, first);
            assert_eq!(
                value.pieces().map(<[u8]>::len).sum::<usize>(),
                value.len(),
                "shard 2: pieces of a value"
            );
        }
        assert_eq!(
            chunks + self.reserved_chunks,
            self.slabs.live_chunks(),
            "shard 2: a chunk belongs to nobody"
        );
        assert_eq!(item_bytes, self.item_bytes, "shard 3: item bytes");
        assert!(self.in_hand.is_empty(), "shard 4: pages in hand");
    }
}

impl Drop for Shard {
    /// The pool outlives a shard: it gets its pages back.
    fn drop(&mut self) {
        self.in_hand.extend(self.slabs.drain());
        let pages = self.index.clear();
        self.pool.give_freed(pages);
        self.return_pages();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
