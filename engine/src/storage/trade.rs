//! The most common set in one go: the key's item is overwritten where it lies, or a chunk is free, or the coldest item
//! leaves and its chunk is the new item's.
//!
//! Lives here: that one way, which does what a reservation and a commit would, in half the instructions: nothing has to
//! be handed over between the two, and an index that loses an entry and gets one neither shrinks nor grows.
//! Not here: every other case (see `room`, `shard` and `overwrite`); tests compare the ways.

use super::index::{Growth, Spot};
use super::item::{self, Shape, View, item_bytes};
use super::line::Line;
use super::memory::{ChunkRef, Memory};
use super::overwrite::Weight;
use super::shard::Shard;
use super::slabs::ClassId;
use super::table::Ahead;
use super::{Cause, Marks, Version};

/// Makes what is written an item of this queue, under the version that `publish` gives.
#[inline(always)]
fn publish_as(
    memory: &Memory,
    first: ChunkRef,
    key_bytes: usize,
    value_bytes: usize,
    is_main: bool,
    publish: impl FnOnce(Marks) -> Version,
) -> Version {
    let marks = if is_main { Marks::default().in_main() } else { Marks::default() };
    item::set_plain_shape(memory, first, key_bytes, value_bytes, marks);
    let version = publish(marks);
    item::set_version(memory, first, version);
    version
}

impl Shard {
    /// Stores an item that has nothing but key and value, as a reservation and a commit at
    /// [`Place::New`](super::Place) would, in a free chunk or that of the item that leaves for it. `None` where it is not so simple: then
    /// nothing has changed. The hash is the one that was looked ahead for, and of this key; items older than `floor` may be
    /// dead. `publish` runs while the item's line is locked: it is told the marks and gives the version.
    ///
    /// What is rare lies out of line, so that what all sets need stays in registers.
    #[inline(always)]
    pub(crate) fn trade(
        &mut self,
        at: Ahead,
        key: &[u8],
        value: &[u8],
        floor: u64,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Option<Version> {
        let bytes = item_bytes(key.len(), value.len());
        let class = self.slabs.small_fitting_class(bytes.wrapping_add(self.memory().trailer_bytes()))?;
        let growth = self.index.room_to_trade(at.hash)?;
        if !self.index.is_ahead(&at) {
            return None;
        }
        debug_assert_eq!(at.hash, self.hasher.hash(key), "the hash is of this key and seed");
        // SAFETY: it was looked ahead for in this index, as found above, of which the shard has the lines for as long as it
        // lives. (It is the hash's home still: an eviction splits and merges none.)
        let home = unsafe { at.line() };
        if growth == Growth::Possible && self.slabs.has_free_chunk(class) {
            return self.trade_for_free(at, home, class, key, value, publish);
        }
        let first = self.evict_plainly(floor, class)?;
        Some(self.store_traded(at, home, (first, class), key, value, false, publish))
    }

    /// A trade where a chunk of the class is free: nobody leaves.
    #[inline(never)]
    fn trade_for_free(
        &mut self,
        at: Ahead,
        home: &Line,
        class: ClassId,
        key: &[u8],
        value: &[u8],
        publish: impl FnOnce(Marks) -> Version,
    ) -> Option<Version> {
        if let Some(old) = self.overwritable_plainly(home, at.hash, key, class) {
            return Some(self.overwrite_plainly(home, (old, class), key.len(), value, publish));
        }
        self.shortage_told = false;
        let first = self.slabs.allocate(class)?;
        Some(self.store_traded(at, home, (first, class), key, value, true, publish))
    }

    /// Stores in a chunk of this class that nobody has any more.
    #[expect(clippy::too_many_arguments, reason = "what the trade has found so far")]
    #[inline(always)]
    fn store_traded(
        &mut self,
        at: Ahead,
        home: &Line,
        (first, class): (ChunkRef, ClassId),
        key: &[u8],
        value: &[u8],
        is_more: bool,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        self.index.prefetch_rest(&at);
        let memory = self.slabs.memory();
        // SAFETY: the chunk is of a class that holds so many bytes, and nothing names it any more.
        unsafe { item::write_plain(memory, first, key, value) };
        let Some(spot) = self.index.begin_plainly(home, at.hash) else {
            return self.trade_in_chain(home, at.hash, first, key, value.len(), is_more, publish);
        };
        let is_main = spot.is_ghost || self.is_trial(self.index.len() - usize::from(!is_more));
        let bytes = item_bytes(key.len(), value.len());
        if memory.is_accounting() {
            self.slabs.account_traded(first, class, bytes, is_main, self.now_s);
        }
        let memory = self.slabs.memory();
        let version = publish_as(memory, first, key.len(), value.len(), is_main, publish);
        self.index.finish_plainly(spot, at.hash, first);
        self.enlist_traded(first, bytes, is_main);
        if is_more {
            self.settle_trade(None, is_more);
        }
        version
    }

    /// [`Shard::overwritable`] of an item that has nothing but key and value; the caller has found a free chunk besides.
    #[inline(always)]
    fn overwritable_plainly(&self, home: &Line, hash: u64, key: &[u8], class: ClassId) -> Option<ChunkRef> {
        let view = self.view();
        let is_here = |chunk| {
            let shape = view.with_key(chunk, key);
            shape.is_some_and(Shape::is_plain) && self.slabs.class_of(chunk) == class
        };
        let found = self.index.table().find_from(home, hash, is_here);
        found.filter(|_| !(self.listens && self.is_told_what_leaves()))
    }

    /// [`Shard::overwrite`] of such an item.
    #[inline(always)]
    fn overwrite_plainly(
        &mut self,
        home: &Line,
        (item, class): (ChunkRef, ClassId),
        key_bytes: usize,
        value: &[u8],
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        let memory = self.slabs.memory();
        self.lru.prefetch_to_unlink(memory, item);
        let before = Weight::of(self, item);
        let is_main = before.is_main || self.is_trial(self.index.len());
        let guard = home.lock();
        // SAFETY: the chunk is of a class that holds so many bytes, shard and line are held.
        unsafe { item::write_plain_value(memory, item, key_bytes, value) };
        let version = publish_as(memory, item, key_bytes, value.len(), is_main, publish);
        drop(guard);
        self.renew(item, class, before, Weight { bytes: item_bytes(key_bytes, value.len()), is_main });
        version
    }

    /// The rest of a trade, once key and value are written, where the key's line goes on elsewhere, is full, or may have the
    /// key already.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "what the trade has found so far")]
    #[inline(never)]
    fn trade_in_chain(
        &mut self,
        home: &Line,
        hash: u64,
        first: ChunkRef,
        key: &[u8],
        value_bytes: usize,
        is_more: bool,
        publish: impl FnOnce(Marks) -> Version,
    ) -> Version {
        let (memory, view) = (self.slabs.memory(), self.view());
        let spot = self.index.begin_in_chain(home, hash, |chunk| view.has_key(chunk, key));
        if let Some(old) = spot.present() {
            self.lru.prefetch_to_unlink(memory, old);
        }
        let is_main = self.begins_in_main(&spot, self.index.len() - usize::from(!is_more));
        if memory.is_accounting() {
            let (class, bytes) = (self.slabs.class_of(first), item_bytes(key.len(), value_bytes));
            self.slabs.account_traded(first, class, bytes, is_main, self.now_s);
        }
        let memory = self.slabs.memory();
        let version = publish_as(memory, first, key.len(), value_bytes, is_main, publish);
        let replaced = self.index.finish_store(spot, hash, first);
        self.enlist_traded(first, item_bytes(key.len(), value_bytes), is_main);
        if is_more || replaced.is_some() {
            self.settle_trade(replaced, is_more);
        }
        version
    }

    /// A traded item comes into list and sums.
    #[inline(always)]
    fn enlist_traded(&mut self, first: ChunkRef, bytes: usize, is_main: bool) {
        self.lru.push_new(self.slabs.memory(), first, is_main);
        self.item_bytes += bytes;
        self.probation_bytes += if is_main { 0 } else { bytes };
    }

    /// Whether a new item goes to the main queue, where there are so many others.
    #[inline]
    pub(super) fn begins_in_main(&self, spot: &Spot<'_>, items: usize) -> bool {
        let was_main = |old: ChunkRef| self.view().meta(old).marks.is_main();
        spot.is_ghost() || self.is_trial(items) || spot.present().is_some_and(was_main)
    }

    /// The index has an entry more or less, unless both; the item that was stored under the key before leaves.
    #[cold]
    #[inline(never)]
    fn settle_trade(&mut self, replaced: Option<ChunkRef>, is_more: bool) {
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
