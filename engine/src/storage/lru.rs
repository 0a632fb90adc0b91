//! The order of a shard's items, from cold to hot, whatever their size.
//!
//! Lives here: one doubly linked list through the items' headers, and markers in it for walks and installs.
//! Not here: who leaves (see `room`).
//!
//! ```text
//!   sentinel -> coldest … W … … I … hottest -> sentinel        (a ring; "->" is "hotter")
//!     W: a walk's marker: what is hotter has not been visited yet
//!     I: the install marker: installed items go just colder than it, others to the hot end
//! ```
//! A node below [`NODE_COUNT`] is the sentinel or a marker; those numbers would lie in page 0, which does not exist.

use super::item::{COLDER_AT, HOTTER_AT};
use super::memory::{ChunkRef, Memory};

/// How many walks may be under way in one shard.
pub(super) const WALKS_MAX: usize = 32;
const SENTINEL: Node = Node(1);
const INSTALL: Node = Node(2);
const FIRST_WALK: u32 = 3;
const NODE_COUNT: usize = FIRST_WALK as usize + WALKS_MAX;

/// An item, the sentinel or a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node(u32);

impl Node {
    pub(super) const COLD_END: Node = SENTINEL;

    pub(super) fn walk(slot: usize) -> Node {
        debug_assert!(slot < WALKS_MAX);
        Node(FIRST_WALK + slot as u32)
    }

    fn item(self) -> Option<ChunkRef> {
        if (self.0 as usize) < NODE_COUNT { None } else { ChunkRef::from_link(self.0) }
    }
}

impl From<ChunkRef> for Node {
    fn from(chunk: ChunkRef) -> Node {
        Node(chunk.get())
    }
}

#[derive(Clone, Copy)]
struct Links {
    colder: Node,
    hotter: Node,
}

/// 1. `hotter` and `colder` of neighbours agree, all around the ring.
/// 2. A marker that is not in use has its own number in both links.
/// 3. The install marker, if in use, lies where the last installed item was put or hotter ones were put since.
pub(super) struct Lru {
    /// Links of the sentinel and the markers; index 0 is unused.
    markers: [Links; NODE_COUNT],
}

impl Lru {
    pub(super) fn new() -> Lru {
        Lru {
            markers: std::array::from_fn(|number| {
                let node = Node(number as u32);
                Links { colder: node, hotter: node }
            }),
        }
    }

    pub(super) fn push_hot(&mut self, memory: &Memory, node: impl Into<Node>) {
        self.insert_colder_than(memory, SENTINEL, node.into());
    }

    /// Puts an arriving item where an install has got to, or at the hot end when none is under way.
    pub(super) fn push_installed(&mut self, memory: &Memory, item: ChunkRef) {
        let before = if self.is_used(INSTALL) { INSTALL } else { SENTINEL };
        self.insert_colder_than(memory, before, item.into());
    }

    pub(super) fn unlink(&mut self, memory: &Memory, node: impl Into<Node>) {
        let Links { colder, hotter } = self.links(memory, node.into());
        self.set_hotter(memory, colder, hotter);
        self.set_colder(memory, hotter, colder);
    }

    /// An item was copied elsewhere, links included: its neighbours name the new place.
    pub(super) fn relocate(&mut self, memory: &Memory, moved: ChunkRef) {
        let Links { colder, hotter } = self.links(memory, moved.into());
        self.set_hotter(memory, colder, moved.into());
        self.set_colder(memory, hotter, moved.into());
    }

    /// The next item hotter than this node, over at most all markers.
    pub(super) fn next_hotter(&self, memory: &Memory, mut node: Node) -> Option<ChunkRef> {
        loop {
            node = self.links(memory, node).hotter;
            match node.item() {
                Some(item) => return Some(item),
                None if node == SENTINEL => return None,
                None => {}
            }
        }
    }

    /// Puts a walk's marker colder than everything.
    pub(super) fn place_walk(&mut self, memory: &Memory, slot: usize) {
        let coldest = self.links(memory, SENTINEL).hotter;
        self.insert_colder_than(memory, coldest, Node::walk(slot));
    }

    /// Moves a walk's marker just hotter than this item.
    pub(super) fn advance_walk(&mut self, memory: &Memory, slot: usize, past: ChunkRef) {
        self.unlink(memory, Node::walk(slot));
        let hotter = self.links(memory, past.into()).hotter;
        self.insert_colder_than(memory, hotter, Node::walk(slot));
    }

    /// Takes a marker out of the list.
    pub(super) fn remove_walk(&mut self, memory: &Memory, slot: usize) {
        self.remove_marker(memory, Node::walk(slot));
    }

    /// Puts the install marker at the hot end, from wherever it was.
    pub(super) fn place_install(&mut self, memory: &Memory) {
        self.remove_marker(memory, INSTALL);
        self.push_hot(memory, INSTALL);
    }

    pub(super) fn remove_install(&mut self, memory: &Memory) {
        self.remove_marker(memory, INSTALL);
    }

    /// All items are gone: only the install marker stays, if it was there.
    pub(super) fn clear(&mut self, memory: &Memory) {
        let installing = self.is_used(INSTALL);
        *self = Lru::new();
        if installing {
            self.place_install(memory);
        }
    }

    fn remove_marker(&mut self, memory: &Memory, marker: Node) {
        if self.is_used(marker) {
            self.unlink(memory, marker);
        }
        self.markers[marker.0 as usize] = Links { colder: marker, hotter: marker };
    }

    fn is_used(&self, marker: Node) -> bool {
        self.markers[marker.0 as usize].hotter != marker
    }

    fn insert_colder_than(&mut self, memory: &Memory, hotter: Node, node: Node) {
        let colder = self.links(memory, hotter).colder;
        self.set_colder(memory, node, colder);
        self.set_hotter(memory, node, hotter);
        self.set_hotter(memory, colder, node);
        self.set_colder(memory, hotter, node);
    }

    fn links(&self, memory: &Memory, node: Node) -> Links {
        match node.item() {
            Some(item) => Links {
                colder: Node(memory.word(item, COLDER_AT).get()),
                hotter: Node(memory.word(item, HOTTER_AT).get()),
            },
            None => self.markers[node.0 as usize],
        }
    }

    fn set_colder(&mut self, memory: &Memory, node: Node, colder: Node) {
        match node.item() {
            Some(item) => memory.word(item, COLDER_AT).set(colder.0),
            None => self.markers[node.0 as usize].colder = colder,
        }
    }

    fn set_hotter(&mut self, memory: &Memory, node: Node, hotter: Node) {
        match node.item() {
            Some(item) => memory.word(item, HOTTER_AT).set(hotter.0),
            None => self.markers[node.0 as usize].hotter = hotter,
        }
    }

    /// All items, from cold to hot. Panics with the number of a broken invariant.
    pub(super) fn check_invariants(&self, memory: &Memory) -> Vec<ChunkRef> {
        let (mut node, mut items, mut markers) = (SENTINEL, Vec::new(), 0);
        loop {
            let hotter = self.links(memory, node).hotter;
            assert_eq!(self.links(memory, hotter).colder, node, "lru 1: neighbours of {hotter:?}");
            match hotter.item() {
                Some(item) => items.push(item),
                None => markers += 1,
            }
            node = hotter;
            if node == SENTINEL {
                break;
            }
        }
        let used = (2..NODE_COUNT).filter(|marker| self.is_used(Node(*marker as u32))).count();
        assert_eq!(markers, 1 + used, "lru 2: markers in use are in the ring");
        items
    }
}
