//! Walks: visiting a shard's items from cold to hot in bounded steps, while writers go on.
//!
//! Lives here: walks and the install marker, as the shard offers them. Not here: how markers lie in the list (see
//! `lru`), what is done with an item (see the caller).
//!
//! ```text
//!   coldest … visited … W … not visited yet … hottest <- stored, raised and reprieved items go here
//! ```
//! An item that stays is visited at least once: nothing ever moves from the hot side of `W` to its cold side but by
//! a step. (Installed items arrive on the cold side of the install marker: a walk beside an install may miss them.)

use super::item;
use super::lru::{Node, WALKS_MAX};
use super::memory::ChunkRef;
use super::shard::{ItemId, Shard};

/// Names a walk until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalkId {
    slot: u8,
    generation: u32,
}

/// As many walks as are possible at once are under way in this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyWalks {
    pub(crate) walks_max: usize,
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkStep {
    /// There may be more.
    More,
    /// The hot end: every item has been visited. Items that are stored later are hotter than the marker still.
    AtHotEnd,
    /// The walk had ended: by `walk_end`, or because the shard was cleared.
    Ended,
}

/// Which markers are in use. A slot's generation is odd while it is.
#[derive(Debug, Default)]
pub(super) struct Walks {
    generations: [u32; WALKS_MAX],
}

impl Walks {
    fn begin(&mut self) -> Option<WalkId> {
        let slot = self.generations.iter().position(|generation| generation % 2 == 0)?;
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        Some(WalkId { slot: slot as u8, generation: self.generations[slot] })
    }

    fn slot(&self, walk: WalkId) -> Option<usize> {
        let slot = usize::from(walk.slot);
        (self.generations[slot] == walk.generation).then_some(slot)
    }

    fn end(&mut self, slot: usize) {
        self.generations[slot] = self.generations[slot].wrapping_add(1);
    }

    pub(super) fn end_all(&mut self) {
        for slot in 0..WALKS_MAX {
            if self.generations[slot] % 2 == 1 {
                self.end(slot);
            }
        }
    }
}

impl Shard {
    /// Begins a walk colder than everything.
    pub(crate) fn walk_begin(&mut self) -> Result<WalkId, TooManyWalks> {
        let walk = self.walks.begin().ok_or(TooManyWalks { walks_max: WALKS_MAX })?;
        self.lru.place_walk(self.slabs.memory(), usize::from(walk.slot));
        Ok(walk)
    }

    /// Visits the next items, dead ones included, and moves the marker past them: at most `items_max`, and none
    /// after those that come to `bytes_max` of header, key and value (so at least one, if there is one).
    pub(crate) fn walk_step(
        &mut self,
        walk: WalkId,
        items_max: usize,
        bytes_max: usize,
        mut visit: impl FnMut(&Shard, ItemId),
    ) -> WalkStep {
        let Some(slot) = self.walks.slot(walk) else {
            return WalkStep::Ended;
        };
        let (mut last, mut items, mut bytes) = (None, 0, 0);
        let step = loop {
            if items >= items_max || bytes >= bytes_max {
                break WalkStep::More;
            }
            let from = last.map_or(Node::walk(slot), |item: ChunkRef| Node::from(item));
            let Some(item) = self.lru.next_hotter(self.slabs.memory(), from) else {
                break WalkStep::AtHotEnd;
            };
            visit(self, item.into());
            items += 1;
            bytes += item::counted_bytes(self.slabs.memory(), item);
            last = Some(item);
        };
        if let Some(last) = last {
            self.lru.advance_walk(self.slabs.memory(), slot, last);
        }
        step
    }

    /// Ends a walk; one that has ended already stays so.
    pub(crate) fn walk_end(&mut self, walk: WalkId) {
        if let Some(slot) = self.walks.slot(walk) {
            self.lru.remove_walk(self.slabs.memory(), slot);
            self.walks.end(slot);
        }
    }

    /// Begins an install: items committed with `Place::Install` go colder than everything that is stored or raised
    /// from now on, and hotter than what is there. Begun again, it starts anew at the hot end. What the primary's eviction
    /// pass does is followed until `end_following`.
    pub(crate) fn install_begin(&mut self) {
        self.lru.place_install(self.slabs.memory());
        self.passes.follows = true;
    }

    /// Ends an install, if one is under way.
    pub(crate) fn install_end(&mut self) {
        self.lru.remove_install(self.slabs.memory());
    }
}
