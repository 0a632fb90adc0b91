//! How an item is cut over chunks of several classes.
//!
//! Lives here: which classes, and how many chunks of each. Not here: what is in them (see `item`), where they come from (see
//! `slabs`).

use super::item::{Footprint, TAIL_HEADER_BYTES};
use super::pages::PagePool;
use super::slabs::{ClassId, Slabs};

/// How many different classes one item's chunks come from at most: whole pages, then halves and smaller, each more
/// than halving what is left.
const CUTS_MAX: usize = 12;

/// From which classes an item's chunks come, in the order of its bytes: so many of one, then so many of the next.
///
/// 1. The first chunk holds the header and the whole key.
/// 2. All chunks but the last are full; of a chunk that is not, at most a sixteenth (or 8 bytes) is wasted, except
///    where the item is too small to be cut without breaking 1.
#[derive(Debug)]
pub(super) struct Cuts {
    cuts: [(ClassId, usize); CUTS_MAX],
    len: usize,
}

impl Cuts {
    pub(super) fn new(slabs: &Slabs, footprint: Footprint) -> Cuts {
        let mut cuts = Cuts { cuts: [(ClassId(0), 0); CUTS_MAX], len: 0 };
        if let Some(class) = footprint.class_of_whole(slabs) {
            cuts.push(class, 1);
            return cuts;
        }
        let whole = footprint.bytes_in_one_chunk(slabs.memory());
        let whole_chained = whole + 4;
        let first = slabs.class_at_most(whole_chained).expect("no item is below the smallest chunk");
        let room = slabs.chunk_bytes(first) - slabs.memory().trailer_bytes();
        if room < footprint.chained_value_at() {
            cuts.push(slabs.class_at_least(whole).expect("a key fits a page"), 1);
            return cuts;
        }
        cuts.push(first, 1);
        let mut rest = whole_chained - slabs.chunk_bytes(first);
        while rest > 0 {
            let needed = rest + TAIL_HEADER_BYTES;
            if let Some(class) = fitting_class(slabs, needed) {
                cuts.push(class, 1);
                return cuts;
            }
            let class = slabs.class_at_most(needed).expect("a small rest has a fitting class");
            let payload_bytes = slabs.chunk_bytes(class) - TAIL_HEADER_BYTES;
            cuts.push(class, rest / payload_bytes);
            rest %= payload_bytes;
        }
        cuts
    }

    fn push(&mut self, class: ClassId, count: usize) {
        if count == 0 {
            return;
        }
        if self.len > 0 && self.cuts[self.len - 1].0 == class {
            self.cuts[self.len - 1].1 += count;
        } else {
            self.cuts[self.len] = (class, count);
            self.len += 1;
        }
    }

    /// Takes away what comes first, if that is of this class; gives how many chunks those were.
    pub(super) fn take_first(&mut self, class: ClassId) -> usize {
        let (first, count) = self.cuts[0];
        if self.len == 0 || first != class {
            return 0;
        }
        self.cuts[..self.len].rotate_left(1);
        self.len -= 1;
        count
    }

    /// (class, count), in order; no class comes twice.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, usize)> + use<'_> {
        self.cuts[..self.len].iter().copied()
    }

    pub(super) fn count(&self, class: ClassId) -> usize {
        self.iter().filter(|(other, _)| *other == class).map(|(_, count)| count).sum()
    }
}

/// The class of at least `bytes`, unless too many would be wasted.
#[inline(never)]
pub(super) fn fitting_class(slabs: &Slabs, bytes: usize) -> Option<ClassId> {
    slabs.class_at_least(bytes).filter(|class| fits(*class, slabs.chunk_bytes(*class), bytes))
}

/// Whether an item of so many bytes may be a whole chunk of this class: unless more than a sixteenth of them (or 8 bytes)
/// would be wasted.
pub(super) fn fits(class: ClassId, chunk_bytes: usize, bytes: usize) -> bool {
    class.0 == 0 || chunk_bytes - bytes <= (bytes / 16).max(8)
}

/// Which class an item begins in, for who has no shard at hand.
pub(crate) struct SizeClasses(Slabs);

impl SizeClasses {
    pub(crate) fn new(pool: &PagePool) -> SizeClasses {
        SizeClasses(Slabs::new(pool.memory().clone()))
    }

    /// How many whole pages an item of this footprint begins with, and how many chunks it has beside those.
    pub(super) fn pages_and_more(&self, footprint: Footprint) -> (usize, usize) {
        let mut cuts = Cuts::new(&self.0, footprint);
        let pages = cuts.take_first(self.0.page_class());
        (pages, cuts.iter().map(|(_, count)| count).sum())
    }

    /// The place of the class among those of a shard.
    pub(crate) fn class_of(&self, footprint: Footprint) -> usize {
        let of_cut = || Cuts::new(&self.0, footprint).cuts[0].0;
        usize::from(footprint.class_of_whole(&self.0).unwrap_or_else(of_cut).0)
    }
}
