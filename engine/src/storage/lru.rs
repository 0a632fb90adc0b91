//! The order of a shard's items, from cold to hot, whatever their size: a queue of those on probation, and the main one.
//!
//! Lives here: one doubly linked ring through the items' headers, and markers in it for walks and installs.
//! Not here: who leaves (see `room`), which queue an item is in (its marks say).
//!
//! ```text
//!   P -> coldest … W … I … hottest on probation -> M -> coldest … I' … hottest of the main queue -> P    ("->" is "hotter")
//!     P, M: where the two queues begin
//!     W: a walk's marker: what is hotter has not been visited yet; it walks through probation, then the main queue
//!     I, I': install markers: installed items go just colder than the one of their queue, others to its hot end
//! ```
//! A node below [`NODE_COUNT`] is one of the beginnings or a marker; those numbers would lie in page 0, which does not
//! exist.

use super::item::{COLDER_AT, HOTTER_AT};
use super::memory::{ChunkRef, Memory};

/// How many walks may be under way in one shard.
pub(super) const WALKS_MAX: usize = 32;
const PROBATION: Node = Node(1);
const MAIN: Node = Node(2);
const INSTALLS: [Node; 2] = [Node(3), Node(4)];
const FIRST_WALK: u32 = 5;
const NODE_COUNT: usize = FIRST_WALK as usize + WALKS_MAX;

/// An item, the beginning of a queue or a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node(u32);

impl Node {
    pub(super) fn walk(slot: usize) -> Node {
        debug_assert!(slot < WALKS_MAX);
        Node(FIRST_WALK + slot as u32)
    }

    #[inline]
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
/// 3. `outlook` holds of the main queue as it is: whatever may change that takes it back.
/// 4. An install marker, if in use, lies where the last installed item was put or hotter ones were put since.
#[repr(C)]
pub(super) struct Lru {
    /// Links of the two queues' beginnings, which every store and eviction changes.
    beginnings: [Links; 2],
    /// Links of the markers, by node; those of the beginnings are unused.
    markers: Box<[Links; NODE_COUNT]>,
    /// What whoever evicts has found of the main queue, until that changes.
    pub(super) outlook: Outlook,
}

/// When it is not yet the main queue's turn: as long as so little is owed, and the shard's items have at least so many
/// bytes. (Working it out at each eviction took 40 instructions, and a look at the queue's coldest item.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    pub(super) owed_below: u64,
    pub(super) item_bytes_min: usize,
}

impl Outlook {
    const NONE: Outlook = Outlook { owed_below: 0, item_bytes_min: 0 };
}

impl Lru {
    pub(super) fn new() -> Lru {
        let alone = |number| Links { colder: Node(number as u32), hotter: Node(number as u32) };
        Lru {
            beginnings: [MAIN, PROBATION].map(|other| Links { colder: other, hotter: other }),
            markers: Box::new(std::array::from_fn(alone)),
            outlook: Outlook::NONE,
        }
    }

    #[inline]
    fn marker(&self, marker: Node) -> &Links {
        let number = marker.0 as usize;
        if marker.0 <= MAIN.0 { &self.beginnings[number - 1] } else { &self.markers[number] }
    }

    #[inline]
    fn marker_mut(&mut self, marker: Node) -> &mut Links {
        let number = marker.0 as usize;
        if marker.0 <= MAIN.0 { &mut self.beginnings[number - 1] } else { &mut self.markers[number] }
    }

    /// Puts an item, or a marker, at the hot end of a queue.
    pub(super) fn push_hot(&mut self, memory: &Memory, node: impl Into<Node>, is_main: bool) {
        self.insert_colder_than(memory, hot_end(is_main), node.into());
    }

    /// Puts an arriving item where an install has got to, or at the hot end when none is under way.
    pub(super) fn push_installed(&mut self, memory: &Memory, item: ChunkRef, is_main: bool) {
        let marker = INSTALLS[usize::from(is_main)];
        let before = if self.is_used(marker) { marker } else { hot_end(is_main) };
        self.insert_colder_than(memory, before, item.into());
    }

    /// The coldest item of a queue.
    #[inline(always)]
    pub(super) fn coldest(&self, memory: &Memory, is_main: bool) -> Option<ChunkRef> {
        match self.beginnings[usize::from(is_main)].hotter {
            node if node.item().is_some() => node.item(),
            PROBATION | MAIN => None,
            marker => self.coldest_behind(memory, marker, is_main),
        }
    }

    #[cold]
    #[inline(never)]
    fn coldest_behind(&self, memory: &Memory, mut node: Node, is_main: bool) -> Option<ChunkRef> {
        let end = if is_main { PROBATION } else { MAIN };
        loop {
            match node.item() {
                Some(item) => return Some(item),
                None if node == end => return None,
                None => node = self.links(memory, node).hotter,
            }
        }
    }

    /// The item with this number, if it is the coldest on probation and no marker is colder than it.
    #[inline(always)]
    pub(super) fn coldest_on_probation(&self, number: u32) -> Option<ChunkRef> {
        let first = self.beginnings[PROBATION.0 as usize - 1].hotter;
        debug_assert!(number == 0 || number as usize >= NODE_COUNT);
        // SAFETY: a queue's beginning always names something, so it is not 0.
        (first.0 == number).then(|| unsafe { ChunkRef::of_entry(number) })
    }

    /// Takes the item that is the coldest on probation out of the list; gives what is hotter, if that is an item.
    #[inline(always)]
    pub(super) fn unlink_coldest_on_probation(
        &mut self,
        memory: &Memory,
        coldest: ChunkRef,
    ) -> Option<ChunkRef> {
        let hotter = Node(memory.word(coldest, HOTTER_AT).get());
        self.beginnings[PROBATION.0 as usize - 1].hotter = hotter;
        let item = hotter.item();
        match item {
            Some(item) => memory.word(item, COLDER_AT).set(PROBATION.0),
            None => self.marker_mut(hotter).colder = PROBATION,
        }
        item
    }

    /// The hottest item of a queue, or what is there in its place, becomes colder than this new one.
    #[inline(always)]
    pub(super) fn push_new(&mut self, memory: &Memory, item: ChunkRef, is_main: bool) {
        if is_main {
            self.outlook = Outlook::NONE;
        }
        let hot_end = hot_end(is_main);
        let colder = std::mem::replace(&mut self.marker_mut(hot_end).colder, item.into());
        memory.word(item, COLDER_AT).set(colder.0);
        memory.word(item, HOTTER_AT).set(hot_end.0);
        self.set_hotter(memory, colder, item.into());
    }

    /// An item goes to the hot end of a queue, that of the other queue if it was there before.
    #[inline(always)]
    pub(super) fn renew(&mut self, memory: &Memory, item: ChunkRef, was_main: bool, is_main: bool) {
        let Links { colder, hotter } = self.links(memory, item.into());
        if was_main {
            // It may have another size now.
            self.outlook = Outlook::NONE;
        }
        if hotter == hot_end(is_main) {
            return;
        }
        self.set_hotter(memory, colder, hotter);
        self.set_colder(memory, hotter, colder);
        self.push_new(memory, item, is_main);
    }

    pub(super) fn unlink(&mut self, memory: &Memory, node: impl Into<Node>) {
        self.outlook = Outlook::NONE;
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

    /// The next item of a walk, over at most all markers.
    pub(super) fn next_hotter(&self, memory: &Memory, mut node: Node) -> Option<ChunkRef> {
        loop {
            node = self.links(memory, node).hotter;
            match node.item() {
                Some(item) => return Some(item),
                None if node == PROBATION => return None,
                None => {}
            }
        }
    }

    /// What is just hotter than an item, if that is an item.
    #[inline]
    pub(super) fn hotter_item(&self, memory: &Memory, item: ChunkRef) -> Option<ChunkRef> {
        Node(memory.word(item, HOTTER_AT).get()).item()
    }

    /// Tells the processor that a store at the hot end of a queue is about to come.
    #[inline]
    pub(super) fn prefetch_hot_end(&self, memory: &Memory, is_main: bool) {
        if let Some(hottest) = self.links(memory, hot_end(is_main)).colder.item() {
            memory.prefetch_links(hottest);
        }
    }

    /// Tells the processor that an item, which was read just now, is about to leave the list.
    pub(super) fn prefetch_to_unlink(&self, memory: &Memory, item: ChunkRef) {
        let links = self.links(memory, item.into());
        [links.colder, links.hotter].into_iter().filter_map(Node::item).for_each(|item| {
            memory.prefetch_links(item);
        });
    }

    /// Puts a walk's marker colder than everything.
    pub(super) fn place_walk(&mut self, memory: &Memory, slot: usize) {
        let coldest = self.links(memory, PROBATION).hotter;
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

    /// Puts the install markers at the hot ends, from wherever they were.
    pub(super) fn place_install(&mut self, memory: &Memory) {
        for (marker, is_main) in INSTALLS.into_iter().zip([false, true]) {
            self.remove_marker(memory, marker);
            self.push_hot(memory, marker, is_main);
        }
    }

    pub(super) fn remove_install(&mut self, memory: &Memory) {
        INSTALLS.into_iter().for_each(|marker| self.remove_marker(memory, marker));
    }

    /// All items are gone: only the install markers stay, if they were there.
    pub(super) fn clear(&mut self, memory: &Memory) {
        let installing = self.is_used(INSTALLS[0]);
        *self = Lru::new();
        if installing {
            self.place_install(memory);
        }
    }

    fn remove_marker(&mut self, memory: &Memory, marker: Node) {
        if self.is_used(marker) {
            self.unlink(memory, marker);
        }
        *self.marker_mut(marker) = Links { colder: marker, hotter: marker };
    }

    fn is_used(&self, marker: Node) -> bool {
        self.marker(marker).hotter != marker
    }

    fn insert_colder_than(&mut self, memory: &Memory, hotter: Node, node: Node) {
        self.outlook = Outlook::NONE;
        let colder = self.links(memory, hotter).colder;
        self.set_colder(memory, node, colder);
        self.set_hotter(memory, node, hotter);
        self.set_hotter(memory, colder, node);
        self.set_colder(memory, hotter, node);
    }

    #[inline]
    fn links(&self, memory: &Memory, node: Node) -> Links {
        match node.item() {
            Some(item) => Links {
                colder: Node(memory.word(item, COLDER_AT).get()),
                hotter: Node(memory.word(item, HOTTER_AT).get()),
            },
            None => *self.marker(node),
        }
    }

    #[inline(always)]
    fn set_colder(&mut self, memory: &Memory, node: Node, colder: Node) {
        match node.item() {
            Some(item) => memory.word(item, COLDER_AT).set(colder.0),
            None => self.marker_mut(node).colder = colder,
        }
    }

    #[inline(always)]
    fn set_hotter(&mut self, memory: &Memory, node: Node, hotter: Node) {
        match node.item() {
            Some(item) => memory.word(item, HOTTER_AT).set(hotter.0),
            None => self.marker_mut(node).hotter = hotter,
        }
    }

    /// All items, from cold to hot, those on probation first, and how many of them are. Panics with the number of a
    /// broken invariant.
    pub(super) fn check_invariants(&self, memory: &Memory) -> (Vec<ChunkRef>, usize) {
        let (mut node, mut items, mut markers, mut on_probation) = (PROBATION, Vec::new(), 0, None);
        loop {
            let hotter = self.links(memory, node).hotter;
            assert_eq!(self.links(memory, hotter).colder, node, "lru 1: neighbours of {hotter:?}");
            match hotter.item() {
                Some(item) => items.push(item),
                None => markers += 1,
            }
            node = hotter;
            if node == MAIN {
                on_probation = Some(items.len());
            }
            if node == PROBATION {
                break;
            }
        }
        let used = (3..NODE_COUNT).filter(|marker| self.is_used(Node(*marker as u32))).count();
        assert_eq!(markers, 2 + used, "lru 2: markers in use are in the ring");
        (items, on_probation.expect("lru 1: the main queue begins somewhere"))
    }
}

/// What is just hotter than a queue's hottest item: the other queue's beginning.
fn hot_end(is_main: bool) -> Node {
    if is_main { PROBATION } else { MAIN }
}
