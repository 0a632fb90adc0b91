//! What is kept of items for whoever looks after a cache, where [`Config::accounting`](crate::Config::accounting) asks
//! for it: when each was last accessed, and what each size class holds.
//!
//! Lives here: where the time of an access lies, the sums of each class, the oldest accesses. Not here: what counts as an
//! access (see `cache`), what is counted without being asked for (see `slabs`).
//!
//! ```text
//!   an item's first chunk:  | header | key | value… | unused | accessed, u32: seconds since the Unix epoch |
//! ```
//! At the chunk's end, so that nothing else of the layout depends on it: without accounting the word is the value's, and
//! a read does not know that there could be one.
//!
//! The word is set before an index line names the item, and changes with the item's line or its shard locked. If both at
//! once, either time stays.

use super::expiry::Moment;
use super::item;
use super::memory::{ChunkRef, Memory};
use super::overwrite::Weight;
use super::shard::{ItemId, Shard};
use super::slabs::{ClassId, Slabs};
use crate::clock::Millis;

/// What the time of its last access takes of an item's first chunk.
pub(super) const TRAILER_BYTES: usize = 4;
/// How many chunks of a shard are looked at to find those that were not accessed for longest.
const LOOKS_MAX: usize = 4096;

/// What one class holds; all 0 without accounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClassHeld {
    /// Items that begin in it, dead ones that nobody has met yet included.
    pub(crate) items: u64,
    /// Those of them that are in the main queue.
    pub(crate) main_items: u64,
    /// Their headers, keys and values.
    pub(crate) bytes: u64,
    /// For how long the one that was evicted last had not been accessed, in seconds.
    pub(crate) evicted_age_s: u64,
}

/// The whole seconds of a moment, as they are kept.
#[inline]
pub(crate) fn whole_seconds(moment_ms: Millis) -> u32 {
    u32::try_from(moment_ms / 1000).unwrap_or(u32::MAX)
}

/// Tells the processor that it is about to be noted, or looked at, when an item is accessed, if an unlocked line names one
/// still: it lies behind the value.
#[inline(always)]
pub(super) fn prefetch(memory: &Memory, first: ChunkRef) {
    if memory.is_accounting() {
        memory.prefetch_end(first, TRAILER_BYTES);
    }
}

/// When the item was last accessed; 0 without accounting.
#[inline]
pub(super) fn accessed_s(memory: &Memory, first: ChunkRef) -> u32 {
    if memory.is_accounting() { memory.word(first, accessed_at(memory, first)).get() } else { 0 }
}

/// It was accessed; when it had been before that. Writes only when the second is another.
#[inline]
pub(super) fn note_access(memory: &Memory, first: ChunkRef, now_s: u32) -> u32 {
    let word = memory.word(first, accessed_at(memory, first));
    let before = word.get();
    if before != now_s {
        word.set(now_s);
    }
    before
}

#[inline]
fn accessed_at(memory: &Memory, first: ChunkRef) -> usize {
    memory.chunk_bytes(first) - TRAILER_BYTES
}

impl Slabs {
    /// An item is stored now in this chunk, of this class, which no index line names yet.
    #[cold]
    #[inline(never)]
    pub(super) fn account_traded(
        &mut self,
        first: ChunkRef,
        class: ClassId,
        bytes: usize,
        is_main: bool,
        now_s: u32,
    ) {
        let accessed_at = self.chunk_bytes(class) - TRAILER_BYTES;
        // Whatever lay there before.
        self.memory().word(first, accessed_at).set(now_s);
        let held = self.held_of(class);
        held.items += 1;
        held.main_items += u64::from(is_main);
        held.bytes += bytes as u64;
    }
}

impl Shard {
    #[inline(always)]
    pub(super) fn is_accounting(&self) -> bool {
        self.memory().is_accounting()
    }

    /// Whatever is stored or evicted from here on is so in this second.
    #[inline(always)]
    pub(crate) fn note_second(&mut self, now_s: u32) {
        self.now_s = now_s;
    }

    /// Whatever is stored or evicted from here on is so at this moment.
    #[inline(always)]
    pub(crate) fn note_moment(&mut self, moment: Moment<'_>) {
        if self.is_accounting() {
            self.now_s = moment.access_s();
        }
    }

    /// When the item was last accessed, in seconds since the Unix epoch; 0 without accounting.
    pub(crate) fn accessed_s(&self, id: ItemId) -> u32 {
        accessed_s(self.memory(), id.chunk())
    }

    /// The item was last accessed then. Does nothing without accounting.
    pub(crate) fn set_accessed(&mut self, id: ItemId, accessed_s: u32) {
        if self.is_accounting() {
            note_access(self.memory(), id.chunk(), accessed_s);
        }
    }

    /// An item was stored.
    #[inline(never)]
    pub(super) fn account_stored(&mut self, first: ChunkRef, bytes: usize, is_main: bool) {
        let class = self.slabs.class_of(first);
        let held = self.slabs.held_of(class);
        held.items += 1;
        held.main_items += u64::from(is_main);
        held.bytes += bytes as u64;
    }

    /// An item leaves; its first chunk is its own still.
    #[inline(never)]
    pub(super) fn account_left(&mut self, first: ChunkRef, bytes: usize, is_main: bool) {
        let class = self.slabs.class_of(first);
        let held = self.slabs.held_of(class);
        held.items -= 1;
        held.main_items -= u64::from(is_main);
        held.bytes -= bytes as u64;
    }

    /// An item was overwritten in its chunk, of this class.
    #[cold]
    #[inline(never)]
    pub(super) fn account_overwritten(
        &mut self,
        first: ChunkRef,
        class: ClassId,
        before: Weight,
        now: Weight,
    ) {
        let accessed_at = self.slabs.chunk_bytes(class) - TRAILER_BYTES;
        self.memory().word(first, accessed_at).set(self.now_s);
        let held = self.slabs.held_of(class);
        held.main_items = held.main_items + u64::from(now.is_main) - u64::from(before.is_main);
        held.bytes = held.bytes + now.bytes as u64 - before.bytes as u64;
    }

    /// An item on probation, one chunk of this class, is evicted, and has left.
    #[cold]
    #[inline(never)]
    pub(super) fn account_evicted_plainly(&mut self, first: ChunkRef, class: ClassId, bytes: usize) {
        let accessed_at = self.slabs.chunk_bytes(class) - TRAILER_BYTES;
        let age_s = self.now_s.saturating_sub(self.memory().word(first, accessed_at).get());
        let held = self.slabs.held_of(class);
        held.evicted_age_s = age_s.into();
        held.items -= 1;
        held.bytes -= bytes as u64;
    }

    /// An item goes from probation to the main queue.
    pub(super) fn account_promoted(&mut self, first: ChunkRef) {
        let class = self.slabs.class_of(first);
        self.slabs.held_of(class).main_items += 1;
    }

    /// An item that is here comes again by a copy, maybe in the other queue.
    pub(super) fn account_moved(&mut self, first: ChunkRef, was_main: bool, is_main: bool) {
        let class = self.slabs.class_of(first);
        let held = self.slabs.held_of(class);
        held.main_items = held.main_items + u64::from(is_main) - u64::from(was_main);
    }

    /// An item is evicted, for the last reservation.
    #[inline(never)]
    pub(super) fn account_evicted(&mut self, first: ChunkRef) {
        let (class, age_s) =
            (self.slabs.class_of(first), self.now_s.saturating_sub(accessed_s(self.memory(), first)));
        self.slabs.held_of(class).evicted_age_s = age_s.into();
    }

    /// Tells of items, by class, whether they are in the main queue and when they were last accessed: of all in a small
    /// shard, else of about [`LOOKS_MAX`] evenly chosen ones.
    pub(crate) fn sample_accesses(&self, mut tell: impl FnMut(usize, bool, u32)) {
        let pages = self.slabs.page_count();
        if pages == 0 || !self.is_accounting() {
            return;
        }
        let looks_a_page = LOOKS_MAX / pages.min(LOOKS_MAX);
        for slot in (0..pages).step_by(pages.div_ceil(LOOKS_MAX)) {
            let chunks = self.slabs.chunks_of(slot);
            let mut units = 0;
            for _ in 0..looks_a_page {
                let Some((chunk, next)) = chunks.at(units) else { break };
                units = next;
                if item::life(self.memory(), chunk).is_some() {
                    let is_main = self.meta(chunk.into()).marks.is_main();
                    tell(self.class_of(chunk.into()), is_main, accessed_s(self.memory(), chunk));
                }
            }
        }
    }

    /// Panics if a class does not hold what it says.
    pub(super) fn check_accounts(&self, items: &[ChunkRef]) {
        let mut held = vec![ClassHeld::default(); self.slabs.sizes().count()];
        for first in items.iter().filter(|_| self.is_accounting()) {
            let (bytes, marks) = item::counted(self.memory(), *first);
            let held = &mut held[self.class_of((*first).into())];
            held.items += 1;
            held.main_items += u64::from(marks.is_main());
            held.bytes += bytes as u64;
        }
        for (index, (class, held)) in self.slabs.sizes().zip(held).enumerate() {
            let evicted_age_s = class.held.evicted_age_s;
            assert_eq!(class.held, ClassHeld { evicted_age_s, ..held }, "shard 6: what class {index} holds");
        }
    }
}
