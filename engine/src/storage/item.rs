//! An item's bytes: header, key, value, in one chunk or several.
//!
//! Lives here: the layout, reading and writing it, [`Value`]. Not here: where chunks come from (see `slabs`) and how many of
//! which classes (see `cuts`), who may read (see `memory`).
//!
//! ```text
//!  first chunk   0        8      12       16      20
//!                | version | shape | colder | hotter | expires 8? | flags 4? | value_bytes 4? | state 12? | next 4? | key | value…
//!
//!  shape         marks 5 bits | expires? | flags? | value_bytes? | next? | state? | key_bytes - 1: 10 | value_bytes + 1: 12
//!  state         the client's own CAS 8 | whether it has one, stale, token sent 4
//!
//!  tail chunk    0          4      8          12
//!                | previous | next | TAG_TAIL | value goes on…                    (next of the last one is 0)
//! ```
//! What is marked `?` is there only when it is used: flags other than 0, an expiry (or a value above 4 093 bytes, beside
//! which eight bytes do not count), a length above 4 093 bytes, what meta commands leave, more than one chunk. The shape's
//! last field is never 0, so a first chunk's tag is neither `TAG_FREE` nor `TAG_TAIL`.
//!
//! Shape and expiry change only while the item's line is locked, links only under the shard's lock, the rest never.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use super::cuts;
use super::memory::{ChunkRef, Memory};
use super::slabs::{ClassId, Slabs, TAG_AT, TAG_TAIL};
use super::{Meta, Version};
use crate::mutation::Marks;

pub(super) const COLDER_AT: usize = 12;
pub(super) const HOTTER_AT: usize = 16;

const SHAPE_AT: usize = TAG_AT;
/// What every item costs besides its key and value.
const HEADER_BYTES_MIN: usize = 20;
const EXPIRES_AT: usize = 20;
const TAIL_PREVIOUS_AT: usize = 0;
const TAIL_NEXT_AT: usize = 4;
pub(super) const TAIL_HEADER_BYTES: usize = 12;

const MARKS_MASK: u32 = (1 << 5) - 1;
const HAS_EXPIRY: u32 = 1 << 5;
const HAS_FLAGS: u32 = 1 << 6;
const HAS_LENGTH: u32 = 1 << 7;
const HAS_NEXT: u32 = 1 << 8;
const HAS_STATE: u32 = 1 << 9;
/// An item with none of these has nothing but key and value, in one chunk.
const NOT_PLAIN: u32 = HAS_EXPIRY | HAS_FLAGS | HAS_LENGTH | HAS_NEXT | HAS_STATE;
const KEY_BYTES_SHIFT: u32 = 10;
const KEY_BYTES_MASK: u32 = (1 << 10) - 1;
const VALUE_BYTES_SHIFT: u32 = 20;
const VALUE_BYTES_MASK: u32 = (1 << 12) - 1;
/// The longest value whose length, and one, is in the shape; the mask itself says that it is elsewhere.
const SHORT_VALUE_BYTES_MAX: usize = VALUE_BYTES_MASK as usize - 2;
/// In the state's word: whether the client's own CAS is one.
const HAS_CLIENT_CAS: u32 = 1;

/// What an item counts as at least: header, key and value. `item_bytes_max` is compared with it.
pub(crate) fn item_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    HEADER_BYTES_MIN.saturating_add(key_bytes).saturating_add(value_bytes)
}

/// What decides how many bytes an item takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    has_expiry: bool,
    has_flags: bool,
    has_state: bool,
}

impl Footprint {
    #[inline]
    pub(crate) fn new(key_bytes: usize, value_bytes: usize, flags: u32, expires_at_ms: u64) -> Footprint {
        let has_expiry = expires_at_ms != 0 || value_bytes > SHORT_VALUE_BYTES_MAX;
        Footprint { key_bytes, value_bytes, has_expiry, has_flags: flags != 0, has_state: false }
    }

    /// Of an item with all that `meta` says.
    #[inline]
    pub(crate) fn of(key_bytes: usize, value_bytes: usize, meta: &Meta) -> Footprint {
        let has_state = meta.client_cas.is_some() || meta.marks.has_state();
        Footprint { has_state, ..Footprint::new(key_bytes, value_bytes, meta.flags, meta.expires_at_ms) }
    }

    /// Of an item whose value comes piece by piece: it has room for an expiry in any case, so that where its value lies
    /// does not depend on when it expires.
    pub(crate) fn of_unfinished(
        key_bytes: usize,
        value_bytes: usize,
        has_flags: bool,
        has_state: bool,
    ) -> Footprint {
        Footprint { key_bytes, value_bytes, has_expiry: true, has_flags, has_state }
    }

    /// Where the value of such an item begins in its first chunk, if it has more than one.
    pub(super) fn chained_value_at(self) -> usize {
        Shape(self.shape(true)).key_at() + self.key_bytes
    }

    #[inline(always)]
    fn shape(self, is_chained: bool) -> u32 {
        let bit = |condition: bool, bit: u32| if condition { bit } else { 0 };
        let is_long = self.value_bytes > SHORT_VALUE_BYTES_MAX;
        let value_bytes = if is_long { VALUE_BYTES_MASK } else { self.value_bytes as u32 + 1 };
        bit(self.has_expiry, HAS_EXPIRY)
            | bit(self.has_flags, HAS_FLAGS)
            | bit(is_long, HAS_LENGTH)
            | bit(is_chained, HAS_NEXT)
            | bit(self.has_state, HAS_STATE)
            | (self.key_bytes as u32 - 1) << KEY_BYTES_SHIFT
            | value_bytes << VALUE_BYTES_SHIFT
    }

    /// The class whose chunks hold such an item whole, if its item is not to be cut.
    #[inline]
    pub(super) fn class_of_whole(self, slabs: &Slabs) -> Option<ClassId> {
        let bytes = self.bytes_in_one_chunk(slabs.memory());
        slabs.small_fitting_class(bytes).or_else(|| cuts::fitting_class(slabs, bytes))
    }

    #[inline]
    pub(super) fn bytes_in_one_chunk(self, memory: &Memory) -> usize {
        let is_long = self.value_bytes > SHORT_VALUE_BYTES_MAX;
        let parts = usize::from(self.has_flags) + usize::from(is_long) + 3 * usize::from(self.has_state);
        let header_bytes = HEADER_BYTES_MIN + 8 * usize::from(self.has_expiry) + 4 * parts;
        header_bytes + self.key_bytes + self.value_bytes + memory.trailer_bytes()
    }
}

/// The word that says what follows it.
#[derive(Clone, Copy)]
pub(super) struct Shape(u32);

impl Shape {
    #[inline]
    fn of(memory: &Memory, first: ChunkRef) -> Shape {
        Shape(memory.word(first, SHAPE_AT).get())
    }

    #[inline]
    pub(super) fn marks(self) -> Marks {
        Marks((self.0 & MARKS_MASK) as u8)
    }

    #[inline]
    pub(super) fn has_state(self) -> bool {
        self.has(HAS_STATE)
    }

    /// Whether the item has nothing but header, key and value, in one chunk.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 & NOT_PLAIN == 0
    }

    #[inline]
    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    #[inline]
    fn flags_at(self) -> usize {
        EXPIRES_AT + if self.has(HAS_EXPIRY) { 8 } else { 0 }
    }

    #[inline]
    fn length_at(self) -> usize {
        self.flags_at() + if self.has(HAS_FLAGS) { 4 } else { 0 }
    }

    #[inline]
    fn state_at(self) -> usize {
        self.length_at() + if self.has(HAS_LENGTH) { 4 } else { 0 }
    }

    #[inline]
    fn next_at(self) -> usize {
        self.state_at() + if self.has(HAS_STATE) { 12 } else { 0 }
    }

    #[inline]
    fn key_at(self) -> usize {
        /// 20, and eight for an expiry, twelve for a state, four for each other bit, by the five bits.
        const KEY_AT: [u8; 32] = [
            20, 28, 24, 32, 24, 32, 28, 36, 24, 32, 28, 36, 28, 36, 32, 40, 32, 40, 36, 44, 36, 44, 40, 48,
            36, 44, 40, 48, 40, 48, 44, 52,
        ];
        usize::from(KEY_AT[(self.0 >> 5 & 31) as usize])
    }

    #[inline]
    fn key_bytes(self) -> usize {
        (self.0 >> KEY_BYTES_SHIFT & KEY_BYTES_MASK) as usize + 1
    }

    #[inline]
    fn value_bytes(self, memory: &Memory, first: ChunkRef) -> usize {
        match self.0 >> VALUE_BYTES_SHIFT & VALUE_BYTES_MASK {
            VALUE_BYTES_MASK => memory.word(first, self.length_at()).get() as usize,
            // No item's field is 0; a chunk that is none may be looked at before anybody knows.
            short => (short as usize).wrapping_sub(1),
        }
    }
}

/// The right to read items: its holder has their line, or their shard, for as long as the view lives.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(&'a Memory);

impl<'a> View<'a> {
    /// # Safety
    /// For `'a`, nobody frees or writes the items that are read through the view: the caller holds the lock of their
    /// line or of their shard.
    #[inline]
    pub(super) unsafe fn new(memory: &'a Memory) -> View<'a> {
        View(memory)
    }

    #[inline]
    pub(super) fn key(self, first: ChunkRef) -> &'a [u8] {
        let shape = Shape::of(self.0, first);
        // SAFETY: the key's range, and `View::new`'s caller holds the item.
        unsafe { self.0.bytes(first, shape.key_at(), shape.key_bytes()) }
    }

    /// [`View::key`] of an item that has nothing else before the key.
    #[inline(always)]
    pub(super) fn key_of_plain(self, first: ChunkRef) -> Option<&'a [u8]> {
        let shape = Shape::of(self.0, first);
        // SAFETY: as for `key`.
        shape.is_plain().then(|| unsafe { self.0.bytes(first, HEADER_BYTES_MIN, shape.key_bytes()) })
    }

    /// The item's shape, if it has this key.
    #[inline(always)]
    pub(super) fn with_key(self, first: ChunkRef, key: &[u8]) -> Option<Shape> {
        const PLAIN_OF_LENGTH: u32 = NOT_PLAIN | KEY_BYTES_MASK << KEY_BYTES_SHIFT;
        let shape = Shape::of(self.0, first);
        let key_bits = (key.len() as u32).wrapping_sub(1) << KEY_BYTES_SHIFT;
        // In one comparison: nothing lies before the key, and it has this length.
        if shape.0 & PLAIN_OF_LENGTH != key_bits {
            return self.with_key_behind_more(first, key);
        }
        // SAFETY: as for `key`.
        same(unsafe { self.0.bytes(first, HEADER_BYTES_MIN, key.len()) }, key).then_some(shape)
    }

    #[inline(never)]
    fn with_key_behind_more(self, first: ChunkRef, key: &[u8]) -> Option<Shape> {
        let shape = Shape::of(self.0, first);
        if shape.key_bytes() != key.len() {
            return None;
        }
        // SAFETY: as for `key`.
        same(unsafe { self.0.bytes(first, shape.key_at(), key.len()) }, key).then_some(shape)
    }

    #[inline]
    pub(super) fn has_key(self, first: ChunkRef, key: &[u8]) -> bool {
        self.with_key(first, key).is_some()
    }

    #[inline]
    pub(super) fn version(self, first: ChunkRef) -> Version {
        Version(self.0.double_word(first).load(Relaxed))
    }

    #[inline(never)]
    fn all_parts(self, first: ChunkRef) -> (u32, u64, Value<'a>) {
        let meta = self.meta(first);
        (meta.flags, meta.expires_at_ms, self.value(first))
    }

    /// The value of the item of this shape, if it has nothing besides key and value.
    #[inline(always)]
    pub(super) fn plain_value(self, first: ChunkRef, shape: Shape) -> Option<Value<'a>> {
        if !shape.is_plain() {
            return None;
        }
        let len = (shape.0 >> VALUE_BYTES_SHIFT) as usize - 1;
        // SAFETY: a plain item's value lies behind its key, and `View::new`'s caller holds the item.
        let value = unsafe { self.0.bytes(first, HEADER_BYTES_MIN + shape.key_bytes(), len) };
        Some(Value { memory: self.0, len, first: value, next: None })
    }

    /// Flags, expiry (0 is never) and value of the item of this shape.
    #[inline]
    pub(super) fn parts(self, first: ChunkRef, shape: Shape) -> (u32, u64, Value<'a>) {
        match self.plain_value(first, shape) {
            Some(value) => (0, 0, value),
            None => self.all_parts(first),
        }
    }

    /// When the item of this shape expires; 0 is never.
    #[inline]
    pub(super) fn expires_at_ms(self, first: ChunkRef, shape: Shape) -> u64 {
        if shape.has(HAS_EXPIRY) { self.meta(first).expires_at_ms } else { 0 }
    }

    #[inline]
    pub(super) fn meta(self, first: ChunkRef) -> Meta {
        meta(self.0, first)
    }

    #[inline]
    pub(super) fn value(self, first: ChunkRef) -> Value<'a> {
        let shape = Shape::of(self.0, first);
        let len = shape.value_bytes(self.0, first);
        let value_at = shape.key_at() + shape.key_bytes();
        let (here, next) = if shape.has(HAS_NEXT) {
            let next = ChunkRef::from_link(self.0.word(first, shape.next_at()).get());
            (len.min(room(self.0, first) - value_at), next)
        } else {
            (len, None)
        };
        // SAFETY: the value's range in this chunk, and `View::new`'s caller holds the item.
        let first = unsafe { self.0.bytes(first, value_at, here) };
        Value { memory: self.0, len, first, next }
    }
}

/// Whether two keys of one length are the same: words at a time, without a call for the short ones.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let word =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    match a.len() {
        8..=16 => {
            let last = a.len() - 8;
            b.len() == a.len() && (word(a, 0) ^ word(b, 0)) | (word(a, last) ^ word(b, last)) == 0
        }
        17..=32 => {
            let (middle, last) = (a.len() - 16, a.len() - 8);
            let differs = |at: usize| word(a, at) ^ word(b, at);
            b.len() == a.len() && differs(0) | differs(8) | differs(middle) | differs(last) == 0
        }
        _ => a == b,
    }
}

/// What an item's first chunk has room for: header, key and value.
fn room(memory: &Memory, first: ChunkRef) -> usize {
    memory.chunk_bytes(first) - memory.trailer_bytes()
}

/// Links a new tail behind the chunk that was allocated before it; the first of an item is not linked to any.
pub(super) fn link_tail(memory: &Memory, previous: Option<ChunkRef>, tail: ChunkRef) {
    memory.word(tail, TAIL_PREVIOUS_AT).set(previous.map_or(0, ChunkRef::get));
    memory.word(tail, TAIL_NEXT_AT).set(0);
    if let Some(previous) = previous {
        memory.word(previous, TAIL_NEXT_AT).set(tail.get());
    }
}

/// Links the chain of tails that begins at `tail` behind the last chunk of another.
pub(super) fn join_tails(memory: &Memory, last: ChunkRef, tail: ChunkRef) {
    memory.word(last, TAIL_NEXT_AT).set(tail.get());
    memory.word(tail, TAIL_PREVIOUS_AT).set(last.get());
}

/// Turns a chain of tails (as [`link_tail`] made it) into an item, its version still missing; gives the bytes of header,
/// key and value.
///
/// # Safety
/// The chain was allocated for an item of this footprint, and nobody else knows it.
#[inline(always)]
pub(super) unsafe fn write(
    memory: &Memory,
    first: ChunkRef,
    footprint: Footprint,
    key: &[u8],
    value: &[u8],
    meta: Meta,
) -> usize {
    let next = memory.word(first, TAIL_NEXT_AT).get();
    let shape = Shape(footprint.shape(next != 0) | u32::from(meta.marks.0) & MARKS_MASK);
    if !shape.is_plain() {
        // SAFETY: the caller's.
        return unsafe { write_parts(memory, first, shape, key, value, meta) };
    }
    memory.word(first, SHAPE_AT).set(shape.0);
    let bytes = HEADER_BYTES_MIN + key.len() + value.len();
    assert!(bytes <= memory.chunk_bytes(first), "a reservation has room for the item it was made for");
    // SAFETY: within the chunk, as just checked; the caller is the only one who knows it.
    unsafe {
        memory.write_short(first, HEADER_BYTES_MIN, key);
        memory.write(first, HEADER_BYTES_MIN + key.len(), value);
    }
    bytes
}

/// Writes key and value of an item that has nothing else.
///
/// # Safety
/// It fits the chunk, of which nobody else knows.
#[inline(always)]
pub(super) unsafe fn write_plain(memory: &Memory, first: ChunkRef, key: &[u8], value: &[u8]) {
    // SAFETY: the caller's.
    unsafe {
        memory.write_short(first, HEADER_BYTES_MIN, key);
        write_plain_value(memory, first, key.len(), value);
    }
}

/// Writes the value of an item that has nothing else but a key, of this length.
///
/// # Safety
/// It fits the chunk, which nobody else knows, or of whose item the caller holds shard and line.
#[inline(always)]
pub(super) unsafe fn write_plain_value(memory: &Memory, first: ChunkRef, key_bytes: usize, value: &[u8]) {
    debug_assert!(HEADER_BYTES_MIN + key_bytes + value.len() <= room(memory, first));
    // SAFETY: the caller's.
    unsafe { memory.write_short(first, HEADER_BYTES_MIN + key_bytes, value) };
}

/// Makes a chunk the first and only one of such an item.
#[inline(always)]
pub(super) fn set_plain_shape(
    memory: &Memory,
    first: ChunkRef,
    key_bytes: usize,
    value_bytes: usize,
    marks: Marks,
) {
    debug_assert!(value_bytes <= SHORT_VALUE_BYTES_MAX);
    let lengths = (key_bytes as u32 - 1) << KEY_BYTES_SHIFT | (value_bytes as u32 + 1) << VALUE_BYTES_SHIFT;
    memory.word(first, SHAPE_AT).set(lengths | u32::from(marks.0) & MARKS_MASK);
}

/// [`write`], of an item that has more than key and value.
///
/// # Safety
/// As for [`write`].
#[inline(never)]
unsafe fn write_parts(
    memory: &Memory,
    first: ChunkRef,
    shape: Shape,
    key: &[u8],
    value: &[u8],
    meta: Meta,
) -> usize {
    let next = memory.word(first, TAIL_NEXT_AT).get();
    // SAFETY: the caller's.
    let value_at = unsafe { write_head(memory, first, shape, key, value.len(), meta) };
    let (mut here, room) = (value.len(), room(memory, first));
    if shape.has(HAS_NEXT) {
        here = here.min(room - value_at);
    }
    assert!(value_at + here <= room, "a reservation has room for the item it was made for");
    // SAFETY: within the chunk, as just checked; the caller is the only one who knows it.
    unsafe { memory.write(first, value_at, &value[..here]) };
    // SAFETY: the caller's.
    unsafe { write_tails(memory, ChunkRef::from_link(next), &value[here..]) };
    value_at + value.len()
}

/// Whether an item of one chunk has just the parts that one of this footprint has; false of one with a state.
pub(super) fn has_parts_of(memory: &Memory, first: ChunkRef, footprint: Footprint) -> bool {
    let parts = (Shape::of(memory, first).0 ^ footprint.shape(false)) & NOT_PLAIN;
    parts == 0 && !footprint.has_state
}

/// Writes an item that is there anew, but for its links and its version.
///
/// # Safety
/// It has the parts of this footprint and the same key, its chunk is of a class that holds the footprint whole, and the
/// caller holds shard and line.
pub(super) unsafe fn rewrite(
    memory: &Memory,
    first: ChunkRef,
    footprint: Footprint,
    key: &[u8],
    value: &[u8],
    meta: Meta,
) {
    let shape = Shape(footprint.shape(false) | u32::from(meta.marks.0) & MARKS_MASK);
    // SAFETY: the caller's.
    let value_at = unsafe { write_head(memory, first, shape, key, value.len(), meta) };
    assert!(value_at + value.len() <= room(memory, first), "the class holds the footprint");
    // SAFETY: within the chunk, as just checked; the caller holds the item.
    unsafe { memory.write(first, value_at, value) };
}

/// Writes all of an item but its value, its links and its version; gives where the value begins.
///
/// # Safety
/// As for [`write`] or [`rewrite`]; the first chunk names the second one still as [`link_tail`] had it do.
unsafe fn write_head(
    memory: &Memory,
    first: ChunkRef,
    shape: Shape,
    key: &[u8],
    value_bytes: usize,
    meta: Meta,
) -> usize {
    let next = memory.word(first, TAIL_NEXT_AT).get();
    memory.word(first, SHAPE_AT).set(shape.0);
    if shape.has(HAS_EXPIRY) {
        set_expiry(memory, first, meta.expires_at_ms);
    }
    if shape.has(HAS_FLAGS) {
        memory.word(first, shape.flags_at()).set(meta.flags);
    }
    if shape.has(HAS_LENGTH) {
        memory.word(first, shape.length_at()).set(value_bytes as u32);
    }
    if shape.has(HAS_STATE) {
        write_state(memory, first, shape.state_at(), meta);
    }
    if shape.has(HAS_NEXT) {
        memory.word(first, shape.next_at()).set(next);
    }
    let value_at = shape.key_at() + key.len();
    assert!(value_at <= room(memory, first), "a reservation has room for the key it was made for");
    // SAFETY: within the chunk, as just checked; the caller is the only one who knows it, or holds it.
    unsafe { memory.write(first, shape.key_at(), key) };
    value_at
}

/// Writes what is left of a value into the tails from `next` on.
///
/// # Safety
/// They were allocated for it, and nobody else knows them.
pub(super) unsafe fn write_tails(memory: &Memory, mut next: Option<ChunkRef>, mut rest: &[u8]) {
    while let Some(tail) = next {
        let (piece, after) = rest.split_at(rest.len().min(memory.chunk_bytes(tail) - TAIL_HEADER_BYTES));
        // SAFETY: within the chunk; the caller is the only one who knows it.
        unsafe { memory.write(tail, TAIL_HEADER_BYTES, piece) };
        (rest, next) = (after, ChunkRef::from_link(memory.word(tail, TAIL_NEXT_AT).get()));
    }
    assert!(rest.is_empty(), "a reservation has room for the value it was made for");
}

/// Turns a chain of tails that have the value in them already into an item, its version still missing; gives the bytes of
/// header, key and value.
///
/// # Safety
/// The chain was allocated for an item of this footprint and has more than one chunk, and nobody else knows it.
pub(super) unsafe fn write_around(
    memory: &Memory,
    first: ChunkRef,
    footprint: Footprint,
    key: &[u8],
    meta: Meta,
) -> usize {
    let shape = Shape(footprint.shape(true) | u32::from(meta.marks.0) & MARKS_MASK);
    // SAFETY: the caller's.
    unsafe { write_head(memory, first, shape, key, footprint.value_bytes, meta) + footprint.value_bytes }
}

fn write_state(memory: &Memory, first: ChunkRef, at: usize, meta: Meta) {
    let (cas, has_cas) = meta.client_cas.map_or((0, 0), |cas| (cas, HAS_CLIENT_CAS));
    memory.word(first, at).set(cas as u32);
    memory.word(first, at + 4).set((cas >> 32) as u32);
    memory.word(first, at + 8).set(u32::from(meta.marks.state().0) | has_cas);
}

/// The client's own CAS, and the marks of the state.
#[cold]
fn state(memory: &Memory, first: ChunkRef, shape: Shape) -> (Option<u64>, Marks) {
    let word = |at: usize| memory.word(first, shape.state_at() + at).get();
    let cas = u64::from(word(4)) << 32 | u64::from(word(0));
    ((word(8) & HAS_CLIENT_CAS != 0).then_some(cas), Marks(word(8) as u8).state())
}

pub(super) fn set_version(memory: &Memory, first: ChunkRef, version: Version) {
    memory.double_word(first).store(version.0, Relaxed);
}

/// The chunk after this one in its item or reservation.
pub(super) fn next_chunk(memory: &Memory, chunk: ChunkRef) -> Option<ChunkRef> {
    let at = next_at(memory, chunk)?;
    ChunkRef::from_link(memory.word(chunk, at).get())
}

/// Where this chunk names the next one, if its kind does.
fn next_at(memory: &Memory, chunk: ChunkRef) -> Option<usize> {
    let tag = memory.word(chunk, TAG_AT).get();
    if tag == TAG_TAIL {
        return Some(TAIL_NEXT_AT);
    }
    let shape = Shape(tag);
    shape.has(HAS_NEXT).then(|| shape.next_at())
}

/// The first chunk of the item that a live chunk belongs to; no chunk of a reservation.
pub(super) fn first_chunk(memory: &Memory, mut chunk: ChunkRef) -> ChunkRef {
    while memory.word(chunk, TAG_AT).get() == TAG_TAIL {
        let previous = memory.word(chunk, TAIL_PREVIOUS_AT).get();
        chunk = ChunkRef::from_link(previous).expect("a tail of an item has a previous chunk");
    }
    chunk
}

/// After a chunk was copied elsewhere: its neighbours in the chain name the new place. Whether it is a first chunk.
pub(super) fn relink_chain(memory: &Memory, moved: ChunkRef) -> bool {
    if let Some(next) = next_chunk(memory, moved) {
        memory.word(next, TAIL_PREVIOUS_AT).set(moved.get());
    }
    if memory.word(moved, TAG_AT).get() != TAG_TAIL {
        return true;
    }
    let previous = memory.word(moved, TAIL_PREVIOUS_AT).get();
    let previous = ChunkRef::from_link(previous).expect("a tail of an item has a previous chunk");
    let at = next_at(memory, previous).expect("a chunk before a tail names it");
    memory.word(previous, at).set(moved.get());
    false
}

/// Header, key and value.
#[inline(always)]
pub(super) fn counted_bytes(memory: &Memory, first: ChunkRef) -> usize {
    counted(memory, first).0
}

/// Header, key and value, and the marks.
#[inline(always)]
pub(super) fn counted(memory: &Memory, first: ChunkRef) -> (usize, Marks) {
    let shape = Shape::of(memory, first);
    (shape.key_at() + shape.key_bytes() + shape.value_bytes(memory, first), shape.marks())
}

/// Version, size and marks of an item of one chunk on probation that has nothing but key and value and was not hit.
#[inline]
pub(super) fn plain_unhit(memory: &Memory, first: ChunkRef) -> Option<(u64, usize, Marks)> {
    let shape = Shape::of(memory, first);
    if shape.0 & (NOT_PLAIN | u32::from(Marks::MAIN_OR_HIT.0)) != 0 {
        return None;
    }
    let bytes = HEADER_BYTES_MIN + shape.key_bytes() + (shape.0 >> VALUE_BYTES_SHIFT) as usize - 1;
    Some((memory.double_word(first).load(Relaxed), bytes, shape.marks()))
}

/// Whether an item lies in one chunk.
#[inline]
pub(super) fn is_whole(memory: &Memory, first: ChunkRef) -> bool {
    !Shape::of(memory, first).has(HAS_NEXT)
}

#[inline]
pub(super) fn meta(memory: &Memory, first: ChunkRef) -> Meta {
    let shape = Shape::of(memory, first);
    let expires_at_ms = match shape.has(HAS_EXPIRY) {
        true => {
            let word = |at: usize| u64::from(memory.word(first, at).get());
            word(EXPIRES_AT + 4) << 32 | word(EXPIRES_AT)
        }
        false => 0,
    };
    let flags = if shape.has(HAS_FLAGS) { memory.word(first, shape.flags_at()).get() } else { 0 };
    let version = Version(memory.double_word(first).load(Relaxed));
    let (client_cas, marks) =
        if shape.has(HAS_STATE) { state(memory, first, shape) } else { (None, Marks::default()) };
    Meta { version, flags, expires_at_ms, marks: Marks(shape.marks().0 | marks.0), client_cas }
}

/// The item's line is held.
#[inline]
pub(super) fn set_marks(memory: &Memory, first: ChunkRef, marks: Marks) {
    let word = memory.word(first, SHAPE_AT);
    word.set(word.get() & !MARKS_MASK | u32::from(marks.0) & MARKS_MASK);
}

/// Version and expiry of the item that begins at this chunk, if one does; an expiry that is never is `u64::MAX`.
#[inline]
pub(super) fn life(memory: &Memory, chunk: ChunkRef) -> Option<(u64, u64)> {
    let shape = Shape::of(memory, chunk);
    if shape.0 <= TAG_TAIL {
        return None;
    }
    let word = |at: usize| u64::from(memory.word(chunk, at).get());
    let expires_at_ms = if shape.has(HAS_EXPIRY) { word(EXPIRES_AT + 4) << 32 | word(EXPIRES_AT) } else { 0 };
    // 0 becomes the highest number.
    Some((memory.double_word(chunk).load(Relaxed), expires_at_ms.wrapping_sub(1).saturating_add(1)))
}

pub(super) fn has_expiry_field(memory: &Memory, first: ChunkRef) -> bool {
    Shape::of(memory, first).has(HAS_EXPIRY)
}

/// The item's line is held, and it has the field.
pub(super) fn set_expiry(memory: &Memory, first: ChunkRef, expires_at_ms: u64) {
    debug_assert!(has_expiry_field(memory, first));
    memory.word(first, EXPIRES_AT).set(expires_at_ms as u32);
    memory.word(first, EXPIRES_AT + 4).set((expires_at_ms >> 32) as u32);
}

/// The bytes of an item's value in place: one piece, or several for an item larger than a chunk.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    pub(super) memory: &'a Memory,
    pub(super) len: usize,
    pub(super) first: &'a [u8],
    pub(super) next: Option<ChunkRef>,
}

impl<'a> Value<'a> {
    /// Its length, in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The size class that its item begins in: a place among [`Cache::class_stats`](crate::Cache::class_stats).
    #[inline]
    pub fn class(&self) -> usize {
        // The key's last byte. The value's own first one may lie behind the chunk, if there is none.
        self.memory.class_at(self.first.as_ptr().wrapping_sub(1))
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its pieces, in order; together they are the value. Nothing is copied.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (memory, mut next, mut rest) = (self.memory, self.next, self.len - self.first.len());
        let tails = std::iter::from_fn(move || {
            let tail = next?;
            let here = rest.min(memory.chunk_bytes(tail) - TAIL_HEADER_BYTES);
            next = ChunkRef::from_link(memory.word(tail, TAIL_NEXT_AT).get());
            rest -= here;
            // SAFETY: a range of the value, and a `Value` lives no longer than the view that it came from.
            Some(unsafe { memory.bytes(tail, TAIL_HEADER_BYTES, here) })
        });
        std::iter::once(self.first).chain(tails)
    }

    /// The whole value as one slice, if it lies in one piece.
    #[inline]
    pub fn as_slice(&self) -> Option<&'a [u8]> {
        (self.first.len() == self.len).then_some(self.first)
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self.as_slice() {
            Some(whole) => out.extend_from_slice(whole),
            None => self.append_pieces_to(out),
        }
    }

    #[inline(never)]
    fn append_pieces_to(&self, out: &mut Vec<u8>) {
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

/// Whether the value is these bytes.
impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        let mut rest = other;
        let is_next = |piece: &[u8]| {
            let found = rest.strip_prefix(piece);
            rest = found.unwrap_or(rest);
            found.is_some()
        };
        self.len == other.len() && self.pieces().all(is_next)
    }
}

/// Whether the value is these bytes.
impl<const N: usize> PartialEq<[u8; N]> for Value<'_> {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
