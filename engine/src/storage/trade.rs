//! The most common set in one go: a chunk is free, or the coldest item leaves and its chunk is the new item's.
//!
//! Lives here: that one way, which does what a reservation and a commit would, in half the instructions: nothing has to
//! be handed over between the two, and an index that loses an entry and gets one neither shrinks nor grows.
//! Not here: every other case (see `room` and `shard`); a test compares the two ways.

use super::accounting;
use super::index::{Index, PlainSpot, Spot};
use super::item::{self, View, item_bytes};
use super::memory::ChunkRef;
use super::shard::Shard;
use super::table::Ahead;
use super::{Cause, Marks, Version};

/// Where the item's entry goes; its line is locked.
enum Place<'a> {
    Plain(PlainSpot<'a>),
    InChain(Spot<'a>),
}

impl Place<'_> {
    /// The entry is there, and the line is not locked any more; gives what it has referred to before.
    #[inline(always)]
    fn finish(self, index: &Index, hash: u64, first: ChunkRef) -> Option<ChunkRef> {
        match self {
            Place::Plain(spot) => {
                index.finish_plainly(spot, hash, first);
                None
            }
            Place::InChain(spot) => index.finish_store(spot, hash, first),
        }
    }
}

/// An item that is all there but for its version, and that nothing names yet; its line is locked.
#[must_use]
pub(crate) struct Trade<'a> {
    shard: &'a mut Shard,
    place: Place<'a>,
    hash: u64,
    first: ChunkRef,
    bytes: usize,
    is_main: bool,
    /// Whether nobody left for it.
    is_more: bool,
}

impl Trade<'_> {
    /// The item's marks.
    #[inline(always)]
    pub(crate) fn marks(&self) -> Marks {
        marks(self.is_main)
    }

    /// The item is stored under this version.
    #[inline(always)]
    pub(crate) fn finish(self, version: Version) {
        let Trade { shard, place, hash, first, bytes, is_main, is_more } = self;
        let memory = shard.slabs.memory();
        item::set_version(memory, first, version);
        let replaced = place.finish(&shard.index, hash, first);
        shard.lru.push_new(memory, first, is_main);
        shard.item_bytes += bytes;
        shard.probation_bytes += if is_main { 0 } else { bytes };
        if shard.is_accounting() {
            shard.account_stored(first, bytes, is_main);
        }
        if is_more || replaced.is_some() {
            shard.settle_trade(replaced, is_more);
        }
    }
}

/// Of an item that begins in this queue.
#[inline(always)]
fn marks(is_main: bool) -> Marks {
    if is_main { Marks::default().in_main() } else { Marks::default() }
}

impl Shard {
    /// Begins to store an item that has nothing but key and value, as a reservation and a commit at
    /// [`Place::New`](super::Place) would, in a free chunk or that of the item that leaves for it. `None` where it is not so simple: then
    /// nothing has changed. The hash is the one that was looked ahead for, and of this key; items older than `floor` may be
    /// dead.
    #[inline(always)]
    pub(crate) fn begin_trade<'a>(
        &'a mut self,
        at: Ahead,
        key: &[u8],
        value: &[u8],
        floor: u64,
    ) -> Option<Trade<'a>> {
        let bytes = item_bytes(key.len(), value.len());
        let class = self.slabs.small_fitting_class(bytes + self.memory().trailer_bytes())?;
        if !self.index.has_room_to_trade(at.hash) || !self.index.is_ahead(at) {
            return None;
        }
        debug_assert_eq!(at.hash, self.hasher.hash(key), "the hash is of this key and seed");
        let is_more = !self.index.wants_home_page() && self.slabs.has_free_chunk(class);
        let first = match is_more {
            true => self.slabs.allocate(class)?,
            false => self.evict_plainly(floor, class)?,
        };
        let memory = self.slabs.memory();
        // SAFETY: the chunk is of a class that holds so many bytes, and nothing names it any more.
        unsafe { item::write_plain(memory, first, key, value) };
        if self.is_accounting() {
            accounting::note_access(memory, first, self.now_s);
        }
        let items = self.index.len() - usize::from(!is_more);
        // SAFETY: it hands out what leads to lines, never into the shard; those live as long as the index, and the trade
        // borrows the whole shard until it has unlocked them.
        let index: &'a Index = unsafe { &*std::ptr::from_ref(&self.index) };
        // SAFETY: the line that was looked ahead for is the one still, as found above: an eviction splits and merges none.
        let (place, is_main) = match unsafe { index.begin_plainly(at) } {
            Ok(spot) => {
                let is_main = spot.is_ghost || self.is_trial(items);
                (Place::Plain(spot), is_main)
            }
            Err(guard) => {
                let view = self.view();
                let spot = index.begin_in_chain(guard, at.hash, |chunk| view.has_key(chunk, key));
                let is_main = self.begins_in_main(&spot, items);
                (Place::InChain(spot), is_main)
            }
        };
        item::set_plain_shape(memory, first, key.len(), value.len(), marks(is_main));
        Some(Trade { shard: self, place, hash: at.hash, first, bytes, is_main, is_more })
    }

    /// Whether a new item goes to the main queue, where there are so many others.
    #[inline]
    pub(super) fn begins_in_main(&self, spot: &Spot<'_>, items: usize) -> bool {
        let was_main = |old: ChunkRef| self.view().meta(old).marks.is_main();
        spot.is_ghost() || self.is_trial(items) || spot.present().is_some_and(was_main)
    }

    /// The index has an entry more or less, unless both; the item that was stored under the key before leaves.
    #[inline(never)]
    fn settle_trade(&mut self, replaced: Option<ChunkRef>, is_more: bool) {
        if is_more {
            self.shortage_told = false;
        }
        match (replaced, is_more) {
            (None, true) => {
                let (hasher, view) = (&self.hasher, self.slabs.memory());
                // SAFETY: `self` is borrowed mutably, so nobody else frees or writes this shard's items.
                let view = unsafe { View::new(view) };
                self.index.count_added(|chunk| hasher.hash(view.key(chunk)));
            }
            (Some(_), false) => self.index.count_removed(),
            _ => {}
        }
        if let Some(old) = replaced {
            self.forget_item(old, Cause::Replaced);
            self.return_pages();
        }
    }
}
