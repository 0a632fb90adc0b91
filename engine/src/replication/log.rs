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
mod ring;

use std::collections::VecDeque;

use super::bug::{Bug, Bugs};
use super::fills::Fills;
use super::position::{Branch, LINEAGE_MAX, Lineage, LineageEntry, Position, Seq, Term};
use super::record::{self, RECORD_HEAD_BYTES, Scope};
use super::risk::LogEnd;
use crate::config::LOG_BYTES_MIN;
use crate::mutation::{Marks, Pass, Version};
pub(crate) use entry::{Entry, WholeShard, entries, first_entry};
use entry::{MARK_BIT, entry_bytes, pass_body};
use ring::ByteRing;

/// Bytes in front of each record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Marks take at most one part in so many of the log; more are refused, and go as hints.
const MARKS_DIVISOR: u64 = 4;

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
/// 2. Retained seqs are `first_seq..=last`, those of gaps between branches excepted, without a hole.
/// 3. What lies in front of the ring's end, less what lies in front of its start, is retained: so many records, and so many
///    bytes of marks and their like. Those are at most one part in [`MARKS_DIVISOR`], and the words that a shard is whole, of
///    which each copy has one a shard.
/// 4. An entry that ends at `calm_until` or in front of it has room, in the newest piece, and no landmark is due for it; a record
///    is retained.
/// 5. No record behind `last_of_many` concerns more than one item, and none behind `last_load` says who loads a key.
#[derive(Debug)]
pub(crate) struct Log {
    ring: ByteRing,
    lineage: Lineage,
    /// The seq of the record at the ring's start; last + 1 if none is retained.
    first_seq: Seq,
    in_front_of_start: Sums,
    in_front_of_end: Sums,
    calm_until: u64,
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
/// 2. None lies beyond the log's end. Those in front of its beginning go when more is forgotten.
#[derive(Debug, Default)]
struct Landmarks {
    entries: VecDeque<Landmark>,
    /// An entry that ends behind this has the next one in front of it: where a piece of the log's memory ends, so that appending
    /// takes care of both at once.
    next_at: u64,
}

#[derive(Debug, Clone, Copy)]
struct Landmark {
    after: Seq,
    offset: u64,
    in_front: Sums,
}

/// What lies in front of a place in the log, since it began or took another history.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    records: u64,
    mark_bytes: u64,
}

impl Landmarks {
    /// The last one that has an earlier record before it.
    fn before(&self, seq: Seq) -> Option<Landmark> {
        let count = self.entries.partition_point(|landmark| landmark.after < seq);
        self.entries.get(count.checked_sub(1)?).copied()
    }

    /// The last one that is no further than at this offset, and has no later record in front of it.
    fn last_within(&self, offset_max: u64, seq_max: Seq) -> Option<Landmark> {
        let is_within = |landmark: &Landmark| landmark.offset <= offset_max && landmark.after <= seq_max;
        let count = self.entries.partition_point(is_within);
        self.entries.get(count.checked_sub(1)?).copied()
    }

    /// Forgets those that do not lie behind the log's start.
    fn forget(&mut self, start: u64) {
        while self.entries.front().is_some_and(|landmark| landmark.offset <= start) {
            self.entries.pop_front();
        }
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

/// What part of the log the largest item may take (design 2).
const ITEM_PART: usize = 4;

/// The most bytes of a piece of the log's memory.
const PIECE_BYTES_MAX: usize = 64 << 10;

impl Log {
    fn piece_bytes(bytes_max: usize) -> usize {
        // Bounded before it is rounded up, which the largest of numbers can't be.
        (bytes_max / 8).min(PIECE_BYTES_MAX).next_power_of_two().max(1 << 10)
    }

    /// What a log of this size holds: up to two pieces are partly empty; they count.
    fn filled_bytes_max(bytes_max: usize) -> usize {
        bytes_max.saturating_sub(2 * Log::piece_bytes(bytes_max)).max(bytes_max / 2)
    }

    /// The largest item of which a log of this size keeps the record: a quarter of it. The record's head comes on top, so that
    /// the default log of 4 MiB carries the default largest item of 1 MiB.
    pub(crate) fn item_bytes_max_of(bytes_max: usize) -> usize {
        bytes_max / ITEM_PART
    }

    /// The least size at which the log keeps the records of items of so many bytes.
    pub(crate) fn bytes_max_for(item_bytes: usize) -> usize {
        item_bytes.saturating_mul(ITEM_PART).max(LOG_BYTES_MIN)
    }

    /// The largest record that a log of this size keeps.
    pub(crate) fn record_bytes_max_of(bytes_max: usize) -> usize {
        Log::item_bytes_max_of(bytes_max).saturating_add(RECORD_HEAD_BYTES)
    }

    pub(crate) fn new(bytes_max: usize) -> Log {
        let piece_bytes = Log::piece_bytes(bytes_max);
        Log {
            ring: ByteRing::new(piece_bytes),
            lineage: Lineage::default(),
            first_seq: 1,
            in_front_of_start: Sums::default(),
            in_front_of_end: Sums::default(),
            calm_until: 0,
            last_of_many: 0,
            last_load: 0,
            has_old_reader: false,
            bytes_max: Log::filled_bytes_max(bytes_max),
            oversized: 0,
            bugs: Bugs::default(),
            cuts: Cuts::default(),
            fills: Fills::default(),
            landmarks: Landmarks::default(),
        }
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

    #[inline]
    fn retained_records(&self) -> u64 {
        self.in_front_of_end.records - self.in_front_of_start.records
    }

    #[inline]
    fn mark_bytes(&self) -> u64 {
        self.in_front_of_end.mark_bytes - self.in_front_of_start.mark_bytes
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
        self.calm_until = 0;
        self.landmarks = Landmarks::default();
        self.in_front_of_start = Sums::default();
        self.in_front_of_end = Sums::default();
        self.first_seq = lineage.newest().map_or(1, |entry| entry.last + 1);
        self.lineage = lineage;
        self.cuts.restarts += 1;
        self.fills.forget_all();
    }

    /// The lowest seq that this node can roll back to: the log holds all that follows, and each record of it concerns
    /// one key.
    pub(crate) fn undo_floor(&self) -> Seq {
        let first = if self.retained_records() == 0 { self.last_seq() + 1 } else { self.first_seq };
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
                0 => self.in_front_of_end.records -= 1,
                _ => self.in_front_of_end.mark_bytes -= bytes,
            }
        }
        self.cuts.truncations += 1;
        self.fills.forget_all();
        self.ring.truncate(end);
        self.calm_until = 0;
        self.landmarks.truncate(end, position.seq, self.ring.piece_bytes);
        self.lineage.truncate_to(position);
        if self.retained_records() == 0 {
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
        while self.retained_records() > 0 && self.first_seq <= last {
            self.forget_oldest();
        }
        self.calm_until = 0;
    }

    fn begin_branch(&mut self, entry: LineageEntry) -> LineageEntry {
        if self.retained_records() == 0 {
            self.first_seq = entry.start;
        }
        entry
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
        let entry_bytes = LENGTH_BYTES + record_bytes;
        if self.ring.end + entry_bytes as u64 > self.calm_until {
            return self.append_with_care::<IS_SHORT>(key, value, marks, record_bytes);
        }
        let (_, version) = self.take_seq();
        let (length, record) = self.ring.append_in_place(entry_bytes).split_at_mut(LENGTH_BYTES);
        length.copy_from_slice(&(record_bytes as u32).to_le_bytes());
        record::write_plain_put::<IS_SHORT>(key, value, marks, record);
        version
    }

    /// Where the next entry will lie, as long as no piece of the log's memory ends: to be fetched ahead, never to be read.
    #[inline]
    pub(crate) fn end_address(&self) -> *const u8 {
        self.ring.end_address()
    }

    #[cold]
    #[inline(never)]
    fn append_with_care<const IS_SHORT: bool>(
        &mut self,
        key: &[u8],
        value: &[u8],
        marks: Marks,
        record_bytes: usize,
    ) -> Version {
        let mut record = vec![0; record_bytes];
        record::write_plain_put::<IS_SHORT>(key, value, marks, &mut record);
        self.append(&record).1
    }

    /// Appends a record and gives it the next seq.
    pub(crate) fn append(&mut self, record: &[u8]) -> (Seq, Version) {
        let is_calm = self.begin_entry(record.len());
        let (seq, version) = self.take_seq();
        if !is_calm && self.retained_records() == 1 {
            self.first_seq = seq;
        }
        match record::scope_of(record) {
            Scope::Item => {}
            Scope::Load => self.last_load = seq,
            Scope::Many => self.last_of_many = seq,
        }
        self.end_entry(record.len() as u32, record, is_calm);
        (seq, version)
    }

    #[inline(always)]
    fn take_seq(&mut self) -> (Seq, Version) {
        let (seq, version) = self.lineage.advance();
        self.in_front_of_end.records += 1;
        (seq, self.version(Term(version.term()), version.seq()))
    }

    /// Makes room for an entry of so many bytes; whether there was need of nothing.
    #[inline]
    fn begin_entry(&mut self, bytes: usize) -> bool {
        let is_calm = self.ring.end + (LENGTH_BYTES + bytes) as u64 <= self.calm_until;
        if !is_calm {
            self.prepare(LENGTH_BYTES + bytes);
        }
        is_calm
    }

    #[inline]
    fn end_entry(&mut self, length: u32, bytes: &[u8], is_calm: bool) {
        self.ring.append(&length.to_le_bytes());
        self.ring.append(bytes);
        if !is_calm {
            self.calm_down();
        }
    }

    #[cold]
    #[inline(never)]
    fn prepare(&mut self, needed: usize) {
        while self.retained_bytes() + needed as u64 > self.bytes_max as u64 && self.retained_bytes() > 0 {
            self.forget_stretch();
        }
        let end = self.ring.end + needed as u64;
        if end > self.landmarks.next_at {
            self.add_landmark(end);
        }
    }

    /// Looks how far appending is simple again.
    #[cold]
    #[inline(never)]
    fn calm_down(&mut self) {
        let has_room_until = self.ring.start + self.bytes_max as u64;
        let is_simple = self.retained_records() > 0;
        let until = has_room_until.min(self.landmarks.next_at).min(self.ring.piece_end());
        self.calm_until = if is_simple { until } else { 0 };
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
        let has_room = (self.mark_bytes() + needed) * MARKS_DIVISOR <= self.bytes_max as u64;
        if has_room {
            self.append_unnumbered(bytes);
        }
        has_room
    }

    fn append_unnumbered(&mut self, bytes: &[u8]) {
        let is_calm = self.begin_entry(bytes.len());
        self.in_front_of_end.mark_bytes += (LENGTH_BYTES + bytes.len()) as u64;
        self.end_entry(bytes.len() as u32 | MARK_BIT, bytes, is_calm);
    }

    /// In front of the entry that is to end there.
    fn add_landmark(&mut self, end: u64) {
        let (offset, in_front) = (self.ring.end, self.in_front_of_end);
        self.landmarks.entries.push_back(Landmark { after: self.last_seq(), offset, in_front });
        self.landmarks.next_at = (end + 1).next_multiple_of(self.ring.piece_bytes as u64);
    }

    /// Forgets all in front of the next landmark, unread: so it costs an append next to nothing.
    fn forget_stretch(&mut self) {
        self.landmarks.forget(self.ring.start);
        let Some(next) = self.landmarks.entries.pop_front() else { return self.forget_oldest() };
        self.ring.forget(next.offset - self.ring.start);
        self.in_front_of_start = next.in_front;
        self.first_seq = self.seq_after(next.after);
    }

    fn forget_oldest(&mut self) {
        let length = self.ring.length_at(self.ring.start);
        let bytes = entry_bytes(length);
        self.ring.forget(bytes);
        if length & MARK_BIT != 0 {
            self.in_front_of_start.mark_bytes += bytes;
        } else {
            self.in_front_of_start.records += 1;
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
        if self.retained_records() == 0 || self.seq_after(position.seq) > self.last_seq() {
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
            Some(entry) if self.retained_records() > 0 => {
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
        self.read_behind(cursor, bytes_max, until, |_, _, bytes| Vec::with_capacity(bytes))
    }

    /// As [`Log::read_until`], but behind what `begin` makes of the branch's term, the position that the records follow and how many
    /// bytes they are.
    pub(crate) fn read_behind(
        &self,
        cursor: &mut LogCursor,
        bytes_max: usize,
        until: LogEnd,
        begin: impl FnOnce(Term, Position, usize) -> Vec<u8>,
    ) -> LogRead {
        if cursor.offset < self.ring.start || cursor.offset > self.ring.end {
            return LogRead::Overtaken;
        }
        let branch = cursor.position.branch;
        let Some(index) = self.lineage.entries().iter().position(|entry| entry.branch == branch) else {
            return LogRead::Overtaken;
        };
        let entry = self.lineage.entries()[index];
        let (prev, offset) = (cursor.position, cursor.offset);
        self.pass_over(cursor, entry, bytes_max, until);
        if cursor.offset > offset {
            let count = (cursor.offset - offset) as usize;
            let mut bytes = begin(entry.term, prev, count);
            self.ring.copy_to(offset, count, &mut bytes);
            return LogRead::Records { bytes, term: entry.term, prev };
        }
        match self.lineage.entries().get(index + 1) {
            Some(next) if cursor.position.seq >= entry.last && next.start <= until.seq.saturating_add(1) => {
                cursor.position = Position { branch: next.branch, seq: next.start - 1 };
                LogRead::NewBranch(*next)
            }
            _ => LogRead::AtEnd,
        }
    }

    /// Moves the cursor over what is to be read of its branch; gives how many entries were looked at for that.
    fn pass_over(
        &self,
        cursor: &mut LogCursor,
        branch: LineageEntry,
        bytes_max: usize,
        until: LogEnd,
    ) -> usize {
        let begin = cursor.offset;
        let seq_max = branch.last.min(until.seq);
        let reach = begin.saturating_add(bytes_max as u64);
        if let Some(place) = self.place_within(reach.min(until.bytes), seq_max)
            && place.offset > begin
        {
            (cursor.offset, cursor.position.seq) = (place.offset, cursor.position.seq.max(place.after));
            // What remains would be read entry by entry; it can as well begin the next piece.
            if place.offset - begin >= bytes_max as u64 / 2 {
                return 0;
            }
        }
        let mut walked = 0;
        while cursor.offset < self.ring.end.min(until.bytes) {
            let length = self.ring.length_at(cursor.offset);
            let is_record = length & MARK_BIT == 0;
            let bytes = entry_bytes(length);
            let is_beyond = is_record && cursor.position.seq >= seq_max;
            let is_full = cursor.offset > begin && cursor.offset + bytes > reach;
            if is_beyond || is_full {
                break;
            }
            cursor.offset += bytes;
            cursor.position.seq += u64::from(is_record);
            walked += 1;
        }
        walked
    }

    /// The last place between two entries that is known without a look at them: the log's end or a landmark, no further than at
    /// this offset, with no record in front of it behind `seq_max`.
    fn place_within(&self, offset_max: u64, seq_max: Seq) -> Option<Landmark> {
        let (after, offset, in_front) = (self.last_seq(), self.ring.end, self.in_front_of_end);
        if offset <= offset_max && after <= seq_max {
            return Some(Landmark { after, offset, in_front });
        }
        self.landmarks.last_within(offset_max, seq_max)
    }
}

#[cfg(test)]
mod tests;
