//! Storing a key anew where its item lies.
//!
//! Lives here: which items are overwritten in place, and how that is done. Not here: sets of plain items, which look for
//! theirs by themselves (see `trade`), every other store (see `room` and `shard`).
//!
//! A store that takes chunks and leaves those of the item before writes two chunks, two page entries and a slot of the
//! index; one in place writes the item's own chunk and its place in the list. All that anybody can tell apart is the time that
//! it takes: the item goes to the hot end in either case, readers see one value or the other, and an item is overwritten
//! only while its class has a free chunk besides, so that behind it as many are free as if the new one had been taken and the old
//! one left. Who is evicted when, here and on a replica, stays the same.

use super::expiry::Moment;
use super::index::Growth;
use super::item::{self, Footprint};
use super::memory::ChunkRef;
use super::room::{Reservation, ReserveError};
use super::shard::{ItemId, Place, Shard};
use super::slabs::ClassId;
use super::{Marks, Meta, Version};

/// Room for one item.
#[must_use]
#[derive(Debug)]
pub(crate) enum Room {
    Chunks(Reservation),
    /// That of the item which the key has.
    Item(ItemId),
}

/// An item's header, key and value in bytes, and whether it is in the main queue.
#[derive(Clone, Copy)]
pub(super) struct Weight {
    pub(super) bytes: usize,
    pub(super) is_main: bool,
}

impl Shard {
    /// The item of this key, dead or live, if one of this footprint fits in its place: it is one chunk of the same class with the
    /// same parts, a chunk of that class is free besides, and nobody is to be told that it leaves. It is stored at this moment.
    pub(super) fn overwritable(
        &mut self,
        hash: u64,
        key: &[u8],
        footprint: Footprint,
        moment: Moment<'_>,
    ) -> Option<ItemId> {
        self.note_moment(moment);
        let class = footprint.class_of_whole(&self.slabs)?;
        let has_room =
            self.slabs.has_free_chunk(class) && self.index.room_to_trade(hash) == Some(Growth::Possible);
        if !has_room || self.listens && self.is_told_what_leaves() {
            return None;
        }
        let item = self.find(hash, key)?;
        let has_same_parts = item::has_parts_of(self.memory(), item.chunk(), footprint);
        (has_same_parts && self.slabs.class_of(item.chunk()) == class).then_some(item)
    }

    /// Room for an item of this key and footprint: in the place of the one that is there, or as [`Shard::reserve`] makes it.
    pub(crate) fn room_for(
        &mut self,
        hash: u64,
        key: &[u8],
        footprint: Footprint,
        moment: Moment<'_>,
    ) -> Result<Room, ReserveError> {
        match self.overwritable(hash, key, footprint, moment) {
            Some(item) => Ok(Room::Item(item)),
            None => self.reserve(hash, footprint, moment).map(Room::Chunks),
        }
    }

    /// The same, or as [`Shard::reserve_at_once`] finds it.
    #[inline]
    pub(crate) fn room_at_once(
        &mut self,
        hash: u64,
        key: &[u8],
        footprint: Footprint,
        moment: Moment<'_>,
    ) -> Option<Room> {
        match self.overwritable(hash, key, footprint, moment) {
            Some(item) => Some(Room::Item(item)),
            None => self.reserve_at_once(hash, footprint, moment).map(Room::Chunks),
        }
    }

    /// Stores in the place of the item that is [overwritable](Shard::overwritable) for this footprint. Otherwise as
    /// [`Shard::commit`].
    #[expect(clippy::too_many_arguments, reason = "an item's parts and its place")]
    pub(crate) fn overwrite(
        &mut self,
        hash: u64,
        item: ItemId,
        key: &[u8],
        value: &[u8],
        meta: Meta,
        place: Place,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        debug_assert_ne!(place, Place::Install, "what a copy brings has a place of its own");
        debug_assert!(self.find(hash, key) == Some(item), "the item is the key's");
        let (memory, first) = (self.slabs.memory(), item.chunk());
        self.lru.prefetch_to_unlink(memory, first);
        let before = Weight::of(self, first);
        let is_main = place == Place::New && (before.is_main || self.is_trial(self.index.len()));
        let marks = if is_main { meta.marks.in_main() } else { meta.marks };
        let footprint = Footprint::of(key.len(), value.len(), &meta);
        let version = self.index.with_line(hash, || {
            // SAFETY: the item has the parts of this footprint, its chunk is of the class for it, and line and shard are held.
            unsafe { item::rewrite(memory, first, footprint, key, value, Meta { marks, ..meta }) };
            let version = publish(marks);
            item::set_version(memory, first, version);
            version
        });
        self.renew(first, self.slabs.class_of(first), before, Weight::of(self, first));
        self.note_expiry(first, meta.expires_at_ms);
        version
    }

    /// An item of this class that was overwritten goes to the hot end of its queue, and the sums are what they are with it. (It
    /// may be the one that was looked ahead for: its entry is where it was.)
    #[inline(always)]
    pub(super) fn renew(&mut self, first: ChunkRef, class: ClassId, before: Weight, now: Weight) {
        self.lru.renew(self.slabs.memory(), first, before.is_main, now.is_main);
        self.item_bytes = self.item_bytes - before.bytes + now.bytes;
        self.probation_bytes = self.probation_bytes - before.on_probation() + now.on_probation();
        if self.is_accounting() {
            self.account_overwritten(first, class, before, now);
        }
        self.shortage_told = false;
    }
}

impl Weight {
    #[inline(always)]
    pub(super) fn of(shard: &Shard, first: ChunkRef) -> Weight {
        let (bytes, marks) = item::counted(shard.memory(), first);
        Weight { bytes, is_main: marks.is_main() }
    }

    #[inline(always)]
    fn on_probation(self) -> usize {
        if self.is_main { 0 } else { self.bytes }
    }
}
