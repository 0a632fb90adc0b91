//! The replication log: the newest mutations, in order, already encoded, and the history they belong to.
//!
//! Lives here: appending, reading from a position, forgetting the oldest.
//! Not here: who reads (see `primary`), what a record means (see `record`).
//!
//! ```text
//!    first_seq                    last_seq
//!    |<------- retained range ------->|  next append
//!    [len][record][len][record][mark][len][record] ...            (len: u32, little-endian)
//! ```
//! Between the records lie marks: the hash of a key that was read, behind a length with its highest bit set. They
//! have no seq and may be lost; but where they are read, they are read at their place, so that a replica's eviction
//! meets the marks that its primary's met.
//!
//! Owns the invariant: seqs are contiguous within a branch; one missing number is a bug, not an error.

mod entry;

use std::collections::VecDeque;

use super::bug::{Bug, Bugs};
use super::fills::Fills;
use super::position::{Branch, LINEAGE_MAX, Lineage, LineageEntry, Position, Seq, Term};
use super::record::{self, Scope};
use super::risk::LogEnd;
use crate::mutation::{Marks, Pass, Version};
pub(crate) use entry::{Entry, WholeShard, entries, first_entry};
use entry::{MARK_BIT, entry_bytes, pass_body};

/// Bytes in front of each record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Marks take at most one part in so many of the log; more are refused, and go as hints.
const MARKS_DIVISOR: u64 = 4;

/// Bytes in fixed pieces, as one long string that grows at the end and is forgotten from the front.
///
/// 1. `start <= end`, both counted from the first byte ever written.
/// 2. `pieces[i]` holds bytes from `(start / piece_bytes + i) * piece_bytes` on; `piece_bytes` is a power of two.
#[derive(Debug)]
struct ByteRing {
    pieces: VecDeque<Box<[u8]>>,
    spare: Option<Box<[u8]>>,
    piece_bytes: usize,
    piece_shift: u32,
    start: u64,
    end: u64,
}

impl ByteRing {
    fn new(piece_bytes: usize) -> ByteRing {
        assert!(piece_bytes.is_power_of_two());
        let piece_shift = piece_bytes.ilog2();
        ByteRing { pieces: VecDeque::new(), spare: None, piece_bytes, piece_shift, start: 0, end: 0 }
    }

    /// Where in its piece a byte lies.
    fn within(&self, at: u64) -> usize {
        at as usize & (self.piece_bytes - 1)
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        let within = self.within(self.end);
        let is_inside = within != 0 && within + bytes.len() <= self.piece_bytes;
        match self.pieces.back_mut() {
            Some(piece) if is_inside => {
                piece[within..within + bytes.len()].copy_from_slice(bytes);
                self.end += bytes.len() as u64;
            }
            _ => self.append_over_pieces(bytes),
        }
    }

    /// The next `count` bytes, to be written, if they are in one piece.
    #[inline(always)]
    fn append_in_place(&mut self, count: usize) -> Option<&mut [u8]> {
        let within = self.within(self.end);
        let piece = self.pieces.back_mut().filter(|_| within != 0)?;
        let place = piece.get_mut(within..within + count)?;
        self.end += count as u64;
        Some(place)
    }

    #[inline(never)]
    fn append_over_pieces(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.within(self.end);
            if within == 0 || self.pieces.is_empty() {
                let fresh = self.spare.take().unwrap_or_else(|| vec![0; self.piece_bytes].into());
                self.pieces.push_back(fresh);
            }
            let piece = self.pieces.back_mut().expect("a piece was just added");
            let count = bytes.len().min(self.piece_bytes - within);
            piece[within..within + count].copy_from_slice(&bytes[..count]);
            self.end += count as u64;
            bytes = &bytes[count..];
        }
    }

    /// Appends `count` bytes from `at` on to `out`.
    fn copy_to(&self, mut at: u64, mut count: usize, out: &mut Vec<u8>) {
        let first_piece = self.start >> self.piece_shift;
        while count > 0 {
            let piece = &self.pieces[((at >> self.piece_shift) - first_piece) as usize];
            let within = self.within(at);
            let part = count.min(self.piece_bytes - within);
            out.extend_from_slice(&piece[within..within + part]);
            at += part as u64;
            count -= part;
        }
    }

    #[inline(always)]
    fn forget(&mut self, count: u64) {
        let before = self.start >> self.piece_shift;
        self.start += count;
        let pieces = (self.start >> self.piece_shift) - before;
        if pieces > 0 {
            self.forget_pieces(pieces);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_pieces(&mut self, pieces: u64) {
        for _ in 0..pieces {
            self.spare = self.pieces.pop_front();
        }
    }

    /// [`ByteRing::length_at`] where it starts.
    #[inline(always)]
    fn length_at_start(&self) -> u32 {
        let within = self.within(self.start);
        match self.pieces.front().and_then(|piece| piece.get(within..)?.first_chunk()) {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => self.length_over_pieces(self.start),
        }
    }

    /// Forgets from the end all behind `end`.
    fn truncate(&mut self, end: u64) {
        assert!(self.start <= end && end <= self.end);
        let first_piece = self.start >> self.piece_shift;
        self.pieces.truncate((end.div_ceil(self.piece_bytes as u64) - first_piece) as usize);
        self.end = end;
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.start = 0;
        self.end = 0;
    }

    #[inline]
    fn length_at(&self, at: u64) -> u32 {
        let piece = &self.pieces[((at >> self.piece_shift) - (self.start >> self.piece_shift)) as usize];
        match piece[self.within(at)..].first_chunk() {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => self.length_over_pieces(at),
        }
    }

    #[inline(never)]
    fn length_over_pieces(&self, at: u64) -> u32 {
        let mut bytes = Vec::with_capacity(LENGTH_BYTES);
        self.copy_to(at, LENGTH_BYTES, &mut bytes);
        u32::from_le_bytes(bytes.try_into().expect("four bytes were copied"))
    }

    fn memory_bytes(&self) -> usize {
        (self.pieces.len() + usize::from(self.spare.is_some())) * self.piece_bytes
    }
}

/// Where a reader stands: behind which seq, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogCursor {
    pub(crate) position: Position,
    offset: u64,
}

impl LogCursor {
    /// Whether this is where the log ended then, or behind it.
    pub(crate) fn is_at(&self, end: LogEnd) -> bool {
        self.position.seq == end.seq && self.offset >= end.bytes
    }

    /// As if the log ended here, at this moment.
    pub(crate) fn as_end(&self, at_ms: u64) -> LogEnd {
        LogEnd { seq: self.position.seq, bytes: self.offset, at_ms }
    }
}

/// What follows a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LogRead {
    /// Records and marks of the cursor's branch, each behind its length; the cursor moved past them.
    Records { bytes: Vec<u8>, term: Term, prev: Position },
    /// The branch ended here and this one follows; the cursor moved to its beginning.
    NewBranch(LineageEntry),
    /// Nothing yet, up to the seq that was asked for.
    AtEnd,
    /// The log has forgotten what follows.
    Overtaken,
}

/// 1. The bytes of all that is retained, lengths included, are at most `bytes_max`: the oldest leave before the newest
///    enters.
/// 2. Retained seqs are `first_seq..=last`, those of gaps between branches excepted, without a hole; there are
///    `retained_records` of them.
/// 3. `mark_bytes` is what marks and their like take of the ring: at most one part in [`MARKS_DIVISOR`], and the words that
///    a shard is whole, of which each copy has one a shard.
/// 4. No record behind `last_of_many` concerns more than one item, and none behind `last_load` says who loads a key.
#[derive(Debug)]
pub(crate) struct Log {
    ring: ByteRing,
    lineage: Lineage,
    /// The seq of the record at the ring's start; last + 1 if none is retained.
    first_seq: Seq,
    retained_records: u64,
    mark_bytes: u64,
    /// The seq of the last flush of any kind; 0 before the first.
    last_of_many: Seq,
    /// The seq of the last record that says who loads a key; 0 before the first.
    last_load: Seq,
    /// Whether somebody reads this log who does not know such records: then none is appended.
    pub(crate) has_old_reader: bool,
    bytes_max: usize,
    /// Records replaced by a deletion because they are above `record_bytes_max`.
    pub(crate) oversized: u64,
    pub(crate) bugs: Bugs,
    cuts: Cuts,
    /// What came beside the log, for those who follow this node's changes.
    pub(crate) fills: Fills,
    landmarks: Landmarks,
}

/// Places to begin at when a position is looked for: the first entry of about each piece of the log, so that no more than a
/// piece is walked under the log's lock.
///
/// 1. `offset` and `after` of entries rise; all records in front of `offset` have a seq of at most `after`.
/// 2. None lies beyond the log's end. Those that were forgotten at its beginning go when the next one comes.
#[derive(Debug, Default)]
struct Landmarks {
    entries: VecDeque<Landmark>,
    /// Where the log has to end for the next one.
    next_at: u64,
}

#[derive(Debug, Clone, Copy)]
struct Landmark {
    after: Seq,
    offset: u64,
}

impl Landmarks {
    /// The last one that has an earlier record before it.
    fn before(&self, seq: Seq) -> Option<Landmark> {
        let count = self.entries.partition_point(|landmark| landmark.after < seq);
        self.entries.get(count.checked_sub(1)?).copied()
    }

    /// Forgets those that the end of the log no longer holds: also where a mark alone lies in front of it, its seq is
    /// that of a branch that was cut off.
    fn truncate(&mut self, end: u64, seq: Seq, piece_bytes: usize) {
        let is_kept = |landmark: &Landmark| landmark.offset < end && landmark.after <= seq;
        self.entries.truncate(self.entries.partition_point(is_kept));
        self.next_at = self.entries.back().map_or(end, |landmark| landmark.offset + piece_bytes as u64);
    }
}

/// How often what a log says was not only added to: a subscription's cursor from before is good for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Cuts {
    /// Another history was taken with a full copy.
    pub(crate) restarts: u32,
    /// The end was cut off.
    pub(crate) truncations: u32,
}

impl Log {
    pub(crate) fn new(bytes_max: usize) -> Log {
        let piece_bytes = (bytes_max / 8).next_power_of_two().clamp(1 << 10, 64 << 10);
        Log {
            ring: ByteRing::new(piece_bytes),
            lineage: Lineage::default(),
            first_seq: 1,
            retained_records: 0,
            mark_bytes: 0,
            last_of_many: 0,
            last_load: 0,
            has_old_reader: false,
            // Up to two pieces are partly empty; they count.
            bytes_max: bytes_max.saturating_sub(2 * piece_bytes).max(bytes_max / 2),
            oversized: 0,
            bugs: Bugs::default(),
            cuts: Cuts::default(),
            fills: Fills::default(),
            landmarks: Landmarks::default(),
        }
    }

    /// The largest record that is kept: a quarter of the log.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.bytes_max / 4
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.lineage.position()
    }

    pub(crate) fn last_seq(&self) -> Seq {
        self.lineage.newest().map_or(0, |entry| entry.last)
    }

    /// A version in this history up to which everything was written.
    pub(crate) fn last_version(&self) -> Version {
        let last = self.lineage.seq_before(Seq::MAX);
        self.lineage.newest().map_or(Version(0), |entry| Version::new(entry.term.0, last))
    }

    /// The version that the next record will have.
    pub(crate) fn next_version(&self) -> Version {
        self.lineage.newest().map_or(Version(0), |entry| self.version(entry.term, entry.last + 1))
    }

    fn version(&self, term: Term, seq: Seq) -> Version {
        let term = if self.bugs.has(Bug::CasReused) { Term(1) } else { term };
        Version::new(term.0, seq)
    }

    /// A seq that no record has.
    #[cfg(feature = "testing")]
    pub(crate) fn skip_seq(&mut self) {
        self.lineage.advance();
    }

    /// Bytes of the retained records, lengths included.
    pub(crate) fn retained_bytes(&self) -> u64 {
        self.ring.end - self.ring.start
    }

    pub(crate) fn cuts(&self) -> Cuts {
        self.cuts
    }

    /// Where it ends at this moment.
    pub(crate) fn end(&self, at_ms: u64) -> LogEnd {
        LogEnd { seq: self.last_seq(), bytes: self.ring.end, at_ms }
    }

    /// Bytes of memory that the log holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.ring.memory_bytes()
    }

    /// Forgets everything and takes another history, at whose end it stands.
    pub(crate) fn restart(&mut self, lineage: Lineage) {
        self.ring.clear();
        self.landmarks = Landmarks::default();
        self.retained_records = 0;
        self.mark_bytes = 0;
        self.first_seq = lineage.newest().map_or(1, |entry| entry.last + 1);
        self.lineage = lineage;
        self.cuts.restarts += 1;
        self.fills.forget_all();
    }

    /// The lowest seq that this node can roll back to: the log holds all that follows, and each record of it concerns
    /// one key.
    pub(crate) fn undo_floor(&self) -> Seq {
        let first = if self.retained_records == 0 { self.last_seq() + 1 } else { self.first_seq };
        let held = self.lineage.seq_before(first);
        if self.bugs.has(Bug::RollBackOverFlushes) { held } else { held.max(self.last_of_many) }
    }

    /// Whether one who does not know the records of loads can go on behind this seq. A seq in a gap between two branches lies
    /// behind the last record before it, and so in front of the entries without a seq that follow that one.
    pub(crate) fn is_plain_behind(&self, seq: Seq) -> bool {
        self.lineage.seq_before(seq + 1) >= self.last_load
    }

    /// Forgets from the end all that came behind `position`; false if that is not what the log holds. No replica goes on
    /// behind the new end with an older cursor: the driver, which rolls back, has the links to this node's own replicas end
    /// before it sends anything more. A subscription looks at [`Log::cuts`].
    pub(crate) fn truncate_to(&mut self, position: Position) -> bool {
        let Some(mut cursor) = self.cursor_at(position) else { return false };
        let end = cursor.offset;
        while cursor.offset < self.ring.end {
            let length = self.ring.length_at(cursor.offset);
            let bytes = entry_bytes(length);
            cursor.offset += bytes;
            match length & MARK_BIT {
                0 => self.retained_records -= 1,
                _ => self.mark_bytes -= bytes,
            }
        }
        self.cuts.truncations += 1;
        self.fills.forget_all();
        self.ring.truncate(end);
        self.landmarks.truncate(end, position.seq, self.ring.piece_bytes);
        self.lineage.truncate_to(position);
        if self.retained_records == 0 {
            self.first_seq = position.seq + 1;
        }
        true
    }

    /// Begins a branch; see [`Lineage::mint`].
    pub(crate) fn mint(&mut self, term: Term, branch: Branch, random: u64, promoted: bool) -> LineageEntry {
        self.forget_branches_beyond_lineage();
        let random = if self.bugs.has(Bug::CasReused) { 0 } else { random };
        let entry = self.lineage.mint(term, branch, random, promoted);
        self.begin_branch(entry)
    }

    /// Follows its primary into a new branch. The caller has checked that it comes behind the newest one.
    pub(crate) fn follow_branch(&mut self, entry: LineageEntry) {
        self.forget_branches_beyond_lineage();
        let entry = self.lineage.push(LineageEntry { last: entry.start - 1, ..entry });
        self.begin_branch(entry);
    }

    /// A full lineage loses its oldest branch to the next one, so the records of that branch go first.
    fn forget_branches_beyond_lineage(&mut self) {
        let [oldest, .., _] = self.lineage.entries() else { return };
        if self.lineage.entries().len() < LINEAGE_MAX {
            return;
        }
        let last = oldest.last;
        while self.retained_records > 0 && self.first_seq <= last {
            self.forget_oldest();
        }
    }

    fn begin_branch(&mut self, entry: LineageEntry) -> LineageEntry {
        if self.retained_records == 0 {
            self.first_seq = entry.start;
        }
        entry
    }

    /// Makes room for a record of so many bytes and gives it the next seq.
    #[inline(always)]
    fn begin_append(&mut self, record_bytes: usize) -> (Seq, Version) {
        self.make_room(LENGTH_BYTES + record_bytes);
        self.note_landmark();
        let (seq, version) = self.lineage.advance();
        let version = self.version(Term(version.term()), version.seq());
        if self.retained_records == 0 {
            self.first_seq = seq;
        }
        self.retained_records += 1;
        (seq, version)
    }

    /// [`Log::append`] of a put of an item that has nothing but key and value: written where it stays.
    #[inline(always)]
    pub(crate) fn append_plain_put(&mut self, key: &[u8], value: &[u8], marks: Marks) -> Version {
        match record::is_short(key, value) {
            true => self.append_in_place::<true>(key, value, marks),
            false => self.append_long_in_place(key, value, marks),
        }
    }

    #[inline(never)]
    fn append_long_in_place(&mut self, key: &[u8], value: &[u8], marks: Marks) -> Version {
        self.append_in_place::<false>(key, value, marks)
    }

    #[inline(always)]
    fn append_in_place<const IS_SHORT: bool>(&mut self, key: &[u8], value: &[u8], marks: Marks) -> Version {
        let record_bytes = record::plain_put_bytes::<IS_SHORT>(key, value);
        let (_, version) = self.begin_append(record_bytes);
        match self.ring.append_in_place(LENGTH_BYTES + record_bytes) {
            Some(place) => {
                let (length, record) = place.split_at_mut(LENGTH_BYTES);
                length.copy_from_slice(&(record_bytes as u32).to_le_bytes());
                record::write_plain_put::<IS_SHORT>(key, value, marks, record);
            }
            None => self.append_over_pieces::<IS_SHORT>(key, value, marks, record_bytes),
        }
        version
    }

    #[cold]
    #[inline(never)]
    fn append_over_pieces<const IS_SHORT: bool>(
        &mut self,
        key: &[u8],
        value: &[u8],
        marks: Marks,
        record_bytes: usize,
    ) {
        let mut record = vec![0; record_bytes];
        record::write_plain_put::<IS_SHORT>(key, value, marks, &mut record);
        self.ring.append(&(record_bytes as u32).to_le_bytes());
        self.ring.append(&record);
    }

    /// Appends a record and gives it the next seq.
    pub(crate) fn append(&mut self, record: &[u8]) -> (Seq, Version) {
        let (seq, version) = self.begin_append(record.len());
        match record::scope_of(record) {
            Scope::Item => {}
            Scope::Load => self.last_load = seq,
            Scope::Many => self.last_of_many = seq,
        }
        self.ring.append(&(record.len() as u32).to_le_bytes());
        self.ring.append(record);
        (seq, version)
    }

    /// Notes that the item of this hash was read; false if marks take their share of the log already.
    pub(crate) fn append_mark(&mut self, hash: u64) -> bool {
        self.append_as_mark(&hash.to_le_bytes())
    }

    /// Notes what an eviction pass did with the item of this hash, for replicas that are being copied.
    pub(crate) fn append_pass(&mut self, hash: u64, pass: Pass) -> bool {
        let is_told = !self.has_old_reader && self.append_as_mark(&pass_body(hash, pass));
        if is_told {
            self.last_load = self.last_seq() + 1;
        }
        is_told
    }

    /// Notes that a replica was sent a whole shard, whatever share marks take: without this word the replica would follow
    /// the passes of the next copy, too, whosever that is. False if somebody reads this log who does not know it.
    pub(crate) fn append_whole(&mut self, whole: WholeShard) -> bool {
        let is_known = !self.has_old_reader;
        if is_known {
            self.last_load = self.last_seq() + 1;
            self.append_unnumbered(&whole.body());
        }
        is_known
    }

    /// A mark, or what goes as one, if marks do not take their share of the log already.
    fn append_as_mark(&mut self, bytes: &[u8]) -> bool {
        let needed = (LENGTH_BYTES + bytes.len()) as u64;
        let has_room = (self.mark_bytes + needed) * MARKS_DIVISOR <= self.bytes_max as u64;
        if has_room {
            self.append_unnumbered(bytes);
        }
        has_room
    }

    fn append_unnumbered(&mut self, bytes: &[u8]) {
        let needed = LENGTH_BYTES + bytes.len();
        self.make_room(needed);
        self.note_landmark();
        self.mark_bytes += needed as u64;
        self.ring.append(&(bytes.len() as u32 | MARK_BIT).to_le_bytes());
        self.ring.append(bytes);
    }

    /// An entry is about to be appended.
    #[inline]
    fn note_landmark(&mut self) {
        if self.ring.end >= self.landmarks.next_at {
            self.add_landmark();
        }
    }

    #[cold]
    fn add_landmark(&mut self) {
        let (start, offset) = (self.ring.start, self.ring.end);
        while self.landmarks.entries.front().is_some_and(|landmark| landmark.offset < start) {
            self.landmarks.entries.pop_front();
        }
        self.landmarks.entries.push_back(Landmark { after: self.last_seq(), offset });
        self.landmarks.next_at = offset + self.ring.piece_bytes as u64;
    }

    #[inline]
    fn make_room(&mut self, needed: usize) {
        while self.retained_bytes() + needed as u64 > self.bytes_max as u64 && self.retained_bytes() > 0 {
            self.forget_oldest();
        }
    }

    #[inline(always)]
    fn forget_oldest(&mut self) {
        let length = self.ring.length_at_start();
        let bytes = entry_bytes(length);
        self.ring.forget(bytes);
        if length & MARK_BIT != 0 {
            self.mark_bytes -= bytes;
        } else {
            self.retained_records -= 1;
            self.first_seq = self.seq_after(self.first_seq);
        }
    }

    /// The seq that follows `seq` in this history, over the gap if its branch ends there.
    #[inline]
    fn seq_after(&self, seq: Seq) -> Seq {
        match self.lineage.entries().last() {
            Some(newest) if seq < newest.last && seq + 1 >= newest.start => seq + 1,
            _ => self.seq_after_in_history(seq),
        }
    }

    #[cold]
    #[inline(never)]
    fn seq_after_in_history(&self, seq: Seq) -> Seq {
        let branch = self.lineage.entries().iter().find(|entry| seq < entry.last && seq + 1 >= entry.start);
        let next = self.lineage.entries().iter().find(|entry| entry.start > seq && entry.last >= entry.start);
        match (branch, next) {
            (Some(_), _) => seq + 1,
            (None, Some(entry)) => entry.start,
            (None, None) => seq + 1,
        }
    }

    /// A cursor behind `position`, or `None` if the log holds not all that follows it, or never held it.
    pub(crate) fn cursor_at(&self, position: Position) -> Option<LogCursor> {
        if !self.lineage.contains(position) {
            return None;
        }
        if self.retained_records == 0 || self.seq_after(position.seq) > self.last_seq() {
            return (position.seq >= self.last_seq() || self.nothing_after(position))
                .then_some(LogCursor { position, offset: self.ring.end });
        }
        if self.seq_after(position.seq) < self.first_seq {
            return None;
        }
        let landmark = self.landmarks.before(position.seq);
        let (offset, seq) = match landmark.filter(|landmark| landmark.offset >= self.ring.start) {
            Some(landmark) => (landmark.offset, self.seq_after(landmark.after)),
            None => (self.ring.start, self.first_seq),
        };
        let (offset, _) = self.walk_to(position.seq, offset, seq);
        Some(LogCursor { position, offset })
    }

    /// The place behind the record of this seq, from a place in front of it where the next record has the seq `next`; and how
    /// many entries were walked.
    fn walk_to(&self, seq: Seq, mut offset: u64, mut next: Seq) -> (u64, usize) {
        let mut walked = 0;
        while offset < self.ring.end && next <= seq {
            let length = self.ring.length_at(offset);
            offset += entry_bytes(length);
            walked += 1;
            if length & MARK_BIT == 0 {
                next = self.seq_after(next);
            }
        }
        (offset, walked)
    }

    fn nothing_after(&self, position: Position) -> bool {
        self.lineage.entries().iter().all(|entry| entry.last <= position.seq || entry.last < entry.start)
    }

    /// A cursor at the end: for an install, which begins with what is there now.
    pub(crate) fn cursor_at_end(&self) -> Option<LogCursor> {
        self.position().map(|position| LogCursor { position, offset: self.ring.end })
    }

    /// A cursor before the oldest retained record, for looking at all of them.
    pub(crate) fn cursor_at_start(&self) -> Option<LogCursor> {
        let holds_first = |entry: &&LineageEntry| (entry.start..=entry.last).contains(&self.first_seq);
        match self.lineage.entries().iter().find(holds_first) {
            Some(entry) if self.retained_records > 0 => {
                let position = Position { branch: entry.branch, seq: self.first_seq - 1 };
                Some(LogCursor { position, offset: self.ring.start })
            }
            _ => self.cursor_at_end(),
        }
    }

    /// Reads what follows the cursor up to `seq_max`, at most `bytes_max` bytes but at least one entry, and moves it.
    pub(crate) fn read(&self, cursor: &mut LogCursor, bytes_max: usize, seq_max: Seq) -> LogRead {
        self.read_until(cursor, bytes_max, LogEnd { seq: seq_max, bytes: u64::MAX, at_ms: 0 })
    }

    /// As [`Log::read`], but no further than to where the log ended once.
    pub(crate) fn read_until(&self, cursor: &mut LogCursor, bytes_max: usize, until: LogEnd) -> LogRead {
        let seq_max = until.seq;
        if cursor.offset < self.ring.start || cursor.offset > self.ring.end {
            return LogRead::Overtaken;
        }
        let branch = cursor.position.branch;
        let Some(index) = self.lineage.entries().iter().position(|entry| entry.branch == branch) else {
            return LogRead::Overtaken;
        };
        let entry = self.lineage.entries()[index];
        let prev = cursor.position;
        let begin = cursor.offset;
        while cursor.offset < self.ring.end {
            let length = self.ring.length_at(cursor.offset);
            let is_record = length & MARK_BIT == 0;
            let bytes = entry_bytes(length);
            let is_beyond = is_record && cursor.position.seq >= entry.last.min(seq_max);
            let is_full = cursor.offset > begin && cursor.offset + bytes - begin > bytes_max as u64;
            if is_beyond || is_full || cursor.offset >= until.bytes {
                break;
            }
            cursor.offset += bytes;
            cursor.position.seq += u64::from(is_record);
        }
        if cursor.offset > begin {
            let mut bytes = Vec::with_capacity((cursor.offset - begin) as usize);
            self.ring.copy_to(begin, (cursor.offset - begin) as usize, &mut bytes);
            return LogRead::Records { bytes, term: entry.term, prev };
        }
        match self.lineage.entries().get(index + 1) {
            Some(next) if cursor.position.seq >= entry.last && next.start <= seq_max.saturating_add(1) => {
                cursor.position = Position { branch: next.branch, seq: next.start - 1 };
                LogRead::NewBranch(*next)
            }
            _ => LogRead::AtEnd,
        }
    }
}

#[cfg(test)]
mod tests;
