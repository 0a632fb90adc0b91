//! The most common set in one go: a chunk is free, or the coldest item leaves and its chunk is the new item's.
//!
//! Lives here: that one way, which does what a reservation and a commit would, in half the instructions: nothing has to
//! be handed over between the two, and an index that loses an entry and gets one neither shrinks nor grows.
//! Not here: every other case (see `room` and `shard`); a test compares the two ways.

use super::index::{Growth, Spot};
use super::item::{self, View, item_bytes};
use super::line::Line;
use super::memory::{ChunkRef, Memory};
use super::shard::Shard;
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
        let is_more = growth == Growth::Possible && self.slabs.has_free_chunk(class);
        let first = match is_more {
            true => self.slabs.allocate(class)?,
            false => self.evict_plainly(floor, class)?,
        };
        self.index.prefetch_rest(&at);
        let memory = self.slabs.memory();
        // SAFETY: the chunk is of a class that holds so many bytes, and nothing names it any more.
        unsafe { item::write_plain(memory, first, key, value) };
        let items = self.index.len() - usize::from(!is_more);
        // SAFETY: it was looked ahead for in this index, as found above, of which the shard has the lines for as long as it
        // lives. (It is the hash's home still: an eviction splits and merges none.)
        let home = unsafe { at.line() };
        let Some(spot) = self.index.begin_plainly(home, at.hash) else {
            return Some(self.trade_in_chain(home, at.hash, first, key, value.len(), is_more, publish));
        };
        let is_main = spot.is_ghost || self.is_trial(items);
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
        Some(version)
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
