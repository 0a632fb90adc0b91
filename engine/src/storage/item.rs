//! An item's bytes: header, key, value, and how a large one is cut over several chunks.
//!
//! Lives here: the layout, reading and writing it, [`Value`]. Not here: where chunks come from (see `slabs`).
//!
//! ```text
//!  first chunk   0        8      16     20            24      28      32
//!                | version | tag  | flags | value_bytes | colder | hotter | key | value…        in one chunk
//!                                                                         | next | key | value… in several
//!  tag           marks 8 bits | key_bytes 11 bits | in several chunks 1 bit | expires_at_ms 44 bits
//!
//!  tail chunk    0          4      8          16
//!                | previous | next | TAG_TAIL | value goes on…                    (next of the last one is 0)
//! ```
//! Keys are not empty, so a first chunk's tag is neither `TAG_FREE` nor `TAG_TAIL`.

use std::fmt;

use super::slabs::{ChunkRef, ClassId, Slabs, TAG_AT, TAG_TAIL, read_u32, read_u64};
use super::{Meta, Version};
use crate::mutation::Marks;

/// What an item costs besides its key and value.
pub(super) const HEADER_BYTES: usize = 32;
pub(super) const COLDER_AT: usize = 24;
pub(super) const HOTTER_AT: usize = 28;

const FLAGS_AT: usize = 16;
const VALUE_BYTES_AT: usize = 20;
const FIRST_NEXT_AT: usize = 32;
const CHAINED_HEADER_BYTES: usize = 36;
const TAIL_PREVIOUS_AT: usize = 0;
const TAIL_NEXT_AT: usize = 4;
const TAIL_HEADER_BYTES: usize = 16;

const KEY_BYTES_SHIFT: u32 = 8;
const KEY_BYTES_MASK: u64 = (1 << 11) - 1;
const CHAINED: u64 = 1 << 19;
const EXPIRES_SHIFT: u32 = 20;
/// The latest expiry that is kept apart, in the year 2527; a later one is stored as this.
const EXPIRES_AT_MS_MAX: u64 = (1 << 44) - 1;
/// How many different classes one item's chunks come from at most: whole pages, then halves and smaller, each more
/// than halving what is left.
const CUTS_MAX: usize = 12;

/// What an item counts as: header, key and value. `item_bytes_max` is compared with it.
pub(crate) fn item_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    HEADER_BYTES.saturating_add(key_bytes).saturating_add(value_bytes)
}

/// From which classes an item's chunks come, in the order of its bytes: so many of one, then so many of the next.
///
/// 1. The first chunk holds the header and the whole key.
/// 2. All chunks but the last are full; of a chunk that is not, at most an eighth (or 8 bytes) is wasted, except
///    where the item is too small to be cut without breaking 1.
#[derive(Debug)]
pub(super) struct Cuts {
    cuts: [(ClassId, usize); CUTS_MAX],
    len: usize,
}

impl Cuts {
    pub(super) fn new(slabs: &Slabs, key_bytes: usize, value_bytes: usize) -> Cuts {
        let mut cuts = Cuts { cuts: [(ClassId(0), 0); CUTS_MAX], len: 0 };
        let whole = item_bytes(key_bytes, value_bytes);
        if let Some(class) = fitting_class(slabs, whole) {
            cuts.push(class, 1);
            return cuts;
        }
        let whole_chained = whole + (CHAINED_HEADER_BYTES - HEADER_BYTES);
        let first = slabs.class_at_most(whole_chained).expect("no item is below the smallest chunk");
        if slabs.chunk_bytes(first) < CHAINED_HEADER_BYTES + key_bytes {
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

    /// (class, count), in order; no class comes twice.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, usize)> + use<'_> {
        self.cuts[..self.len].iter().copied()
    }

    pub(super) fn count(&self, class: ClassId) -> usize {
        self.iter().filter(|(other, _)| *other == class).map(|(_, count)| count).sum()
    }
}

/// The class of at least `bytes`, unless more than an eighth of its chunk (or 8 bytes) would be wasted.
fn fitting_class(slabs: &Slabs, bytes: usize) -> Option<ClassId> {
    let class = slabs.class_at_least(bytes)?;
    let wasted = slabs.chunk_bytes(class) - bytes;
    let smallest = class.0 == 0;
    (smallest || wasted <= (bytes / 8).max(8)).then_some(class)
}

/// Links a new tail behind the chunk that was allocated before it; the first of an item is not linked to any.
pub(super) fn link_tail(slabs: &mut Slabs, previous: Option<ChunkRef>, tail: ChunkRef) {
    slabs.set_u32_at(tail, TAIL_PREVIOUS_AT, previous.map_or(0, ChunkRef::get));
    slabs.set_u32_at(tail, TAIL_NEXT_AT, 0);
    if let Some(previous) = previous {
        slabs.set_u32_at(previous, TAIL_NEXT_AT, tail.get());
    }
}

/// Turns a chain of tails (as [`link_tail`] made it) into an item.
pub(super) fn write(slabs: &mut Slabs, first: ChunkRef, key: &[u8], value: &[u8], meta: Meta) {
    let next = slabs.u32_at(first, TAIL_NEXT_AT);
    let chained = next != 0;
    let tag = u64::from(meta.marks.0)
        | (key.len() as u64) << KEY_BYTES_SHIFT
        | if chained { CHAINED } else { 0 }
        | meta.expires_at_ms.min(EXPIRES_AT_MS_MAX) << EXPIRES_SHIFT;
    let chunk_bytes = slabs.chunk_bytes(slabs.class_of(first));
    let bytes = &mut slabs.bytes_mut(first)[..chunk_bytes];
    bytes[..8].copy_from_slice(&meta.version.0.to_le_bytes());
    bytes[TAG_AT..TAG_AT + 8].copy_from_slice(&tag.to_le_bytes());
    bytes[FLAGS_AT..FLAGS_AT + 4].copy_from_slice(&meta.flags.to_le_bytes());
    bytes[VALUE_BYTES_AT..VALUE_BYTES_AT + 4].copy_from_slice(&(value.len() as u32).to_le_bytes());
    let key_at = if chained { CHAINED_HEADER_BYTES } else { HEADER_BYTES };
    let value_at = key_at + key.len();
    if chained {
        bytes[FIRST_NEXT_AT..FIRST_NEXT_AT + 4].copy_from_slice(&next.to_le_bytes());
    }
    bytes[key_at..value_at].copy_from_slice(key);
    let here = value.len().min(chunk_bytes - value_at);
    bytes[value_at..value_at + here].copy_from_slice(&value[..here]);
    let (mut rest, mut next) = (&value[here..], ChunkRef::from_link(next));
    while let Some(tail) = next {
        let chunk_bytes = slabs.chunk_bytes(slabs.class_of(tail));
        let (piece, after) = rest.split_at(rest.len().min(chunk_bytes - TAIL_HEADER_BYTES));
        slabs.bytes_mut(tail)[TAIL_HEADER_BYTES..][..piece.len()].copy_from_slice(piece);
        (rest, next) = (after, ChunkRef::from_link(slabs.u32_at(tail, TAIL_NEXT_AT)));
    }
    assert!(rest.is_empty(), "a reservation has room for the value it was made for");
}

/// The chunk after this one in its item or reservation.
pub(super) fn next_chunk(slabs: &Slabs, chunk: ChunkRef) -> Option<ChunkRef> {
    let tag = slabs.u64_at(chunk, TAG_AT);
    let at = match tag {
        TAG_TAIL => TAIL_NEXT_AT,
        _ if tag & CHAINED != 0 => FIRST_NEXT_AT,
        _ => return None,
    };
    ChunkRef::from_link(slabs.u32_at(chunk, at))
}

/// After a chunk was copied elsewhere: its neighbours in the chain name the new place. Whether it is a first chunk.
pub(super) fn relink_chain(slabs: &mut Slabs, moved: ChunkRef) -> bool {
    if let Some(next) = next_chunk(slabs, moved) {
        slabs.set_u32_at(next, TAIL_PREVIOUS_AT, moved.get());
    }
    if slabs.u64_at(moved, TAG_AT) != TAG_TAIL {
        return true;
    }
    let previous =
        ChunkRef::from_link(slabs.u32_at(moved, TAIL_PREVIOUS_AT)).expect("a tail has a previous chunk");
    let at = if slabs.u64_at(previous, TAG_AT) == TAG_TAIL { TAIL_NEXT_AT } else { FIRST_NEXT_AT };
    slabs.set_u32_at(previous, at, moved.get());
    false
}

pub(super) fn key(slabs: &Slabs, first: ChunkRef) -> &[u8] {
    let bytes = slabs.bytes(first);
    let tag = read_u64(bytes, TAG_AT);
    &bytes[key_at(tag)..][..key_bytes(tag)]
}

/// Header, key and value.
pub(super) fn counted_bytes(slabs: &Slabs, first: ChunkRef) -> usize {
    let bytes = slabs.bytes(first);
    item_bytes(key_bytes(read_u64(bytes, TAG_AT)), read_u32(bytes, VALUE_BYTES_AT) as usize)
}

pub(super) fn meta(slabs: &Slabs, first: ChunkRef) -> Meta {
    let bytes = slabs.bytes(first);
    let tag = read_u64(bytes, TAG_AT);
    Meta {
        version: Version(read_u64(bytes, 0)),
        flags: read_u32(bytes, FLAGS_AT),
        expires_at_ms: tag >> EXPIRES_SHIFT,
        marks: Marks(tag as u8),
    }
}

pub(super) fn set_marks(slabs: &mut Slabs, first: ChunkRef, marks: Marks) {
    slabs.bytes_mut(first)[TAG_AT] = marks.0;
}

pub(super) fn set_expiry(slabs: &mut Slabs, first: ChunkRef, expires_at_ms: u64) {
    let tag = slabs.u64_at(first, TAG_AT) & ((1 << EXPIRES_SHIFT) - 1);
    slabs.set_u64_at(first, TAG_AT, tag | expires_at_ms.min(EXPIRES_AT_MS_MAX) << EXPIRES_SHIFT);
}

pub(super) fn value(slabs: &Slabs, first: ChunkRef) -> Value<'_> {
    let bytes = slabs.bytes(first);
    let tag = read_u64(bytes, TAG_AT);
    let len = read_u32(bytes, VALUE_BYTES_AT) as usize;
    let value_at = key_at(tag) + key_bytes(tag);
    if tag & CHAINED == 0 {
        return Value { slabs, len, first: &bytes[value_at..value_at + len], next: None };
    }
    let chunk_bytes = slabs.chunk_bytes(slabs.class_of(first));
    let here = len.min(chunk_bytes - value_at);
    let next = ChunkRef::from_link(read_u32(bytes, FIRST_NEXT_AT));
    Value { slabs, len, first: &bytes[value_at..value_at + here], next }
}

fn key_at(tag: u64) -> usize {
    if tag & CHAINED == 0 { HEADER_BYTES } else { CHAINED_HEADER_BYTES }
}

fn key_bytes(tag: u64) -> usize {
    (tag >> KEY_BYTES_SHIFT & KEY_BYTES_MASK) as usize
}

/// The bytes of an item's value in place: one piece, or several for an item larger than a chunk.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    slabs: &'a Slabs,
    len: usize,
    first: &'a [u8],
    next: Option<ChunkRef>,
}

impl<'a> Value<'a> {
    /// Its length, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its pieces, in order; together they are the value. Nothing is copied.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (slabs, mut next, mut rest) = (self.slabs, self.next, self.len - self.first.len());
        let tails = std::iter::from_fn(move || {
            let tail = next?;
            let here = rest.min(slabs.chunk_bytes(slabs.class_of(tail)) - TAIL_HEADER_BYTES);
            let bytes = slabs.bytes(tail);
            next = ChunkRef::from_link(read_u32(bytes, TAIL_NEXT_AT));
            rest -= here;
            Some(&bytes[TAIL_HEADER_BYTES..][..here])
        });
        std::iter::once(self.first).chain(tails)
    }

    /// The whole value as one slice, if it lies in one piece.
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        (self.first.len() == self.len).then_some(self.first)
    }

    /// Appends the value to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.len);
        for piece in self.pieces() {
            out.extend_from_slice(piece);
        }
    }

    /// A copy of the value.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len);
        self.append_to(&mut out);
        out
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_item_wastes_more_than_an_eighth_of_its_chunks() {
        for page_bytes in [4 << 10, 16 << 10, 64 << 10] {
            let slabs = Slabs::new(page_bytes);
            for value_bytes in (0..4 * page_bytes).step_by(13) {
                let cuts = Cuts::new(&slabs, 16, value_bytes);
                let held: usize = cuts.iter().map(|(class, count)| slabs.chunk_bytes(class) * count).sum();
                let chunks: usize = cuts.iter().map(|(_, count)| count).sum();
                let item = item_bytes(16, value_bytes);
                let wasted = held - item - (chunks - 1) * TAIL_HEADER_BYTES;
                assert!(wasted <= (item / 8).max(8) + 4, "{item} bytes waste {wasted}: {cuts:?}");
            }
        }
    }

    #[test]
    fn longest_key_lies_whole_in_the_first_chunk() {
        for page_bytes in [4 << 10, 64 << 10] {
            let slabs = Slabs::new(page_bytes);
            for value_bytes in (0..3 * page_bytes).step_by(7) {
                let (first, _) = Cuts::new(&slabs, 1024, value_bytes).iter().next().unwrap();
                assert!(slabs.chunk_bytes(first) >= HEADER_BYTES + 1024);
            }
        }
    }
}
