//! What the eviction pass did, for replicas that are being copied, and doing the same there.
//!
//! Lives here: keeping it while somebody is copied, following it, an item that a copy brings again. Not here: how it travels
//! (see `replication::log`), the pass itself (see `room`).
//!
//! A node in the middle of a full copy has room that its primary has not, so its own pass would come later, and then in
//! other shards: each would hold another part of the memory ever after. So until a shard is whole it evicts what its primary
//! evicts, and keeps what that keeps; from there on it goes on by itself, from the same state.

use super::departures::Cause;
use super::index::Removal;
use super::item;
use super::shard::{ItemId, Shard};
use crate::mutation::{Marks, Pass};

/// 1. `told` is empty while `readers` is 0.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    /// How many copies of this shard are under way.
    readers: u32,
    told: Vec<(u64, Pass)>,
    /// This shard is being copied from a primary, and follows its pass.
    pub(super) follows: bool,
}

impl Shard {
    /// From now on what the pass does is kept for one more copy.
    pub(crate) fn tell_passes(&mut self) {
        self.passes.readers += 1;
        self.set_listening();
    }

    /// Ends that.
    pub(crate) fn tell_passes_no_more(&mut self) {
        self.passes.readers -= 1;
        if self.passes.readers == 0 {
            self.passes.told.clear();
        }
        self.set_listening();
    }

    /// Whether what the pass does is kept.
    #[inline]
    pub(crate) fn tells_passes(&self) -> bool {
        self.passes.readers > 0
    }

    /// What the pass has done since the last call: hashes of keys.
    pub(crate) fn take_passes(&mut self) -> std::vec::Drain<'_, (u64, Pass)> {
        self.passes.told.drain(..)
    }

    pub(super) fn tell_pass(&mut self, hash: u64, pass: Pass) {
        // With eviction off nothing is passed by, however often the coldest are looked at.
        if self.evict && self.tells_passes() {
            self.passes.told.push((hash, pass));
        }
    }

    /// Bytes that the main queue is owed.
    pub(crate) fn owed_bytes(&self) -> u64 {
        self.owed_bytes
    }

    /// The copy of this shard is whole: it evicts by itself from here on, as the shard did that it was copied from.
    pub(crate) fn end_following(&mut self, owed_bytes: u64) {
        if std::mem::take(&mut self.passes.follows) {
            self.owed_bytes = owed_bytes;
        }
    }

    /// Does to the item of this hash what the primary's pass did, if this shard is being copied and the item is here.
    pub(crate) fn follow_pass(&mut self, hash: u64, pass: Pass) {
        let Some(id) = self.find_by_hash(hash).filter(|_| self.passes.follows && self.evict) else { return };
        let (first, marks) = (id.chunk(), self.meta(id).marks);
        match pass {
            Pass::Kept | Pass::KeptAsSmall if marks.is_main() => {
                // A mark may have been lost on its way.
                self.mark(hash, id, |marks| if marks.hits() > 0 { marks.without_hit() } else { marks });
                self.raise(id);
            }
            Pass::Kept | Pass::KeptAsSmall => {
                let memory = self.slabs.memory();
                let promoted = self.policy.promoted(marks, pass == Pass::KeptAsSmall);
                self.index.with_line(hash, || item::set_marks(memory, first, promoted));
                self.promote(first);
            }
            Pass::Evicted => {
                let is_worthless = marks.is_main() && !marks.is_fetched();
                let removal = if is_worthless { Removal::Remove } else { Removal::RemoveAsGhost };
                self.count_eviction(self.slabs.class_of(first), !marks.is_fetched(), self.index.len());
                self.remove_if(hash, first, Cause::Evicted, |_| removal);
                self.return_pages();
            }
        }
    }

    /// Appends what home lines from `first` on remember of evicted items, about `bytes_max` bytes; gives how many lines there
    /// are, and the one to go on with.
    pub(crate) fn copy_ghosts(
        &self,
        first: usize,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> (usize, Option<usize>) {
        (self.index.count(), self.index.copy_ghosts(first, bytes_max, out))
    }

    /// Takes over what that gave of a shard with so many lines; false where it is malformed.
    pub(crate) fn remember_ghosts(&self, first: usize, lines: usize, bytes: &[u8]) -> bool {
        self.index.remember_ghosts(first, lines, bytes)
    }

    /// An item that is here comes again by a copy: it goes where the copy has got to, with the queue, hits and reads that
    /// these marks say. What else they say was checked beside what came with them, which need not be what is here.
    pub(crate) fn install_again(&mut self, hash: u64, id: ItemId, marks: Marks) {
        let (memory, first) = (self.slabs.memory(), id.chunk());
        let (bytes, before) = item::counted(memory, first);
        let marks = before.in_order_of(marks);
        self.lru.unlink(memory, first);
        self.index.with_line(hash, || item::set_marks(memory, first, marks));
        self.lru.push_installed(memory, first, marks.is_main());
        self.probation_bytes -= if before.is_main() { 0 } else { bytes };
        self.probation_bytes += if marks.is_main() { 0 } else { bytes };
        if self.is_accounting() {
            self.account_moved(first, before.is_main(), marks.is_main());
        }
    }
}
