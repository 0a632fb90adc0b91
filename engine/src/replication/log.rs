//! The replication log: the newest mutations, in order, already encoded, and the history they belong to.
//!
//! Lives here: appending, reading from a position, forgetting the oldest.
//! Not here: who reads (see `primary`), what a record means (see `record`).
//!
//! ```text
//!    first_seq                    last_seq
//!    |<------- retained range ------->|  next append
//!    [len][record][len][record] ...            (len: u32, little-endian)
//! ```
//! Owns the invariant: seqs are contiguous within a branch; one missing number is a bug, not an error.

use std::collections::VecDeque;

use super::position::{Branch, LINEAGE_MAX, Lineage, LineageEntry, Position, Seq, Term};
use crate::mutation::Version;

/// Bytes in front of each record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Bytes in fixed pieces, as one long string that grows at the end and is forgotten from the front.
///
/// 1. `start <= end`, both counted from the first byte ever written.
/// 2. `pieces[i]` holds bytes from `(start / piece_bytes + i) * piece_bytes` on.
#[derive(Debug)]
struct ByteRing {
    pieces: VecDeque<Box<[u8]>>,
    spare: Option<Box<[u8]>>,
    piece_bytes: usize,
    start: u64,
    end: u64,
}

impl ByteRing {
    fn new(piece_bytes: usize) -> ByteRing {
        ByteRing { pieces: VecDeque::new(), spare: None, piece_bytes, start: 0, end: 0 }
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = (self.end % self.piece_bytes as u64) as usize;
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
        let first_piece = self.start / self.piece_bytes as u64;
        while count > 0 {
            let piece = &self.pieces[(at / self.piece_bytes as u64 - first_piece) as usize];
            let within = (at % self.piece_bytes as u64) as usize;
            let part = count.min(self.piece_bytes - within);
            out.extend_from_slice(&piece[within..within + part]);
            at += part as u64;
            count -= part;
        }
    }

    fn forget(&mut self, count: u64) {
        let before = self.start / self.piece_bytes as u64;
        self.start += count;
        for _ in before..self.start / self.piece_bytes as u64 {
            self.spare = self.pieces.pop_front();
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.start = 0;
        self.end = 0;
    }

    fn length_at(&self, at: u64) -> u32 {
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

/// What follows a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LogRead {
    /// Records of the cursor's branch, each behind its length; the cursor moved past them.
    Records { bytes: Vec<u8>, term: Term, prev: Position, count: u64 },
    /// The branch ended here and this one follows; the cursor moved to its beginning.
    NewBranch(LineageEntry),
    /// Nothing yet, up to the seq that was asked for.
    AtEnd,
    /// The log has forgotten what follows.
    Overtaken,
}

/// 1. `bytes` of all retained records, lengths included, are at most `bytes_max`: the oldest leave before the
///    newest enters.
/// 2. Retained seqs are `first_seq..=last`, those of gaps between branches excepted, without a hole.
/// 3. `offsets[branch]` is where its first retained record begins, for each branch that has one.
#[derive(Debug)]
pub(crate) struct Log {
    ring: ByteRing,
    lineage: Lineage,
    /// The seq of the record at the ring's start; last + 1 if none is retained.
    first_seq: Seq,
    bytes_max: usize,
    /// Records replaced by a deletion because they are above `record_bytes_max`.
    pub(crate) oversized: u64,
}

impl Log {
    pub(crate) fn new(bytes_max: usize) -> Log {
        let piece_bytes = (bytes_max / 8).next_power_of_two().clamp(1 << 10, 64 << 10);
        Log {
            ring: ByteRing::new(piece_bytes),
            lineage: Lineage::default(),
            first_seq: 1,
            // Up to two pieces are partly empty; they count.
            bytes_max: bytes_max.saturating_sub(2 * piece_bytes).max(bytes_max / 2),
            oversized: 0,
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

    /// The version that the next record will have.
    pub(crate) fn next_version(&self) -> Version {
        self.lineage.newest().map_or(Version(0), |entry| Version::new(entry.term.0, entry.last + 1))
    }

    /// Bytes of the retained records, lengths included.
    pub(crate) fn retained_bytes(&self) -> u64 {
        self.ring.end - self.ring.start
    }

    /// Bytes of memory that the log holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.ring.memory_bytes()
    }

    /// Bytes between a reader and the end.
    pub(crate) fn bytes_behind(&self, cursor: &LogCursor) -> u64 {
        self.ring.end - cursor.offset.clamp(self.ring.start, self.ring.end)
    }

    /// Forgets everything and takes another history, at whose end it stands.
    pub(crate) fn restart(&mut self, lineage: Lineage) {
        self.ring.clear();
        self.first_seq = lineage.newest().map_or(1, |entry| entry.last + 1);
        self.lineage = lineage;
    }

    /// Begins a branch; see [`Lineage::mint`].
    pub(crate) fn mint(&mut self, term: Term, branch: Branch, random: u64, promoted: bool) -> LineageEntry {
        self.forget_branches_beyond_lineage();
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
        while self.retained_bytes() > 0 && self.first_seq <= last {
            self.forget_oldest();
        }
    }

    fn begin_branch(&mut self, entry: LineageEntry) -> LineageEntry {
        if self.retained_bytes() == 0 {
            self.first_seq = entry.start;
        }
        entry
    }

    /// Appends a record and gives it the next seq.
    pub(crate) fn append(&mut self, record: &[u8]) -> (Seq, Version) {
        let needed = (LENGTH_BYTES + record.len()) as u64;
        while self.retained_bytes() + needed > self.bytes_max as u64 && self.retained_bytes() > 0 {
            self.forget_oldest();
        }
        let (seq, version) = self.lineage.advance();
        if self.retained_bytes() == 0 {
            self.first_seq = seq;
        }
        self.ring.append(&(record.len() as u32).to_le_bytes());
        self.ring.append(record);
        (seq, version)
    }

    fn forget_oldest(&mut self) {
        let length = u64::from(self.ring.length_at(self.ring.start));
        self.ring.forget(LENGTH_BYTES as u64 + length);
        self.first_seq = self.seq_after(self.first_seq);
    }

    /// The seq that follows `seq` in this history, over the gap if its branch ends there.
    fn seq_after(&self, seq: Seq) -> Seq {
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
        if self.retained_bytes() == 0 || self.seq_after(position.seq) > self.last_seq() {
            return (position.seq >= self.last_seq() || self.nothing_after(position))
                .then_some(LogCursor { position, offset: self.ring.end });
        }
        if self.seq_after(position.seq) < self.first_seq {
            return None;
        }
        let mut offset = self.ring.start;
        let mut seq = self.first_seq;
        while offset < self.ring.end && seq <= position.seq {
            offset += LENGTH_BYTES as u64 + u64::from(self.ring.length_at(offset));
            seq = self.seq_after(seq);
        }
        Some(LogCursor { position, offset })
    }

    fn nothing_after(&self, position: Position) -> bool {
        self.lineage.entries().iter().all(|entry| entry.last <= position.seq || entry.last < entry.start)
    }

    /// A cursor at the end: for an install, which begins with what is there now.
    pub(crate) fn cursor_at_end(&self) -> Option<LogCursor> {
        self.position().map(|position| LogCursor { position, offset: self.ring.end })
    }

    /// Reads what follows the cursor up to `seq_max`, at most `bytes_max` bytes but at least one record, and moves it.
    pub(crate) fn read(&self, cursor: &mut LogCursor, bytes_max: usize, seq_max: Seq) -> LogRead {
        if cursor.offset < self.ring.start || cursor.offset > self.ring.end {
            return LogRead::Overtaken;
        }
        let Some(index) =
            self.lineage.entries().iter().position(|entry| entry.branch == cursor.position.branch)
        else {
            return LogRead::Overtaken;
        };
        let entry = self.lineage.entries()[index];
        if cursor.position.seq >= entry.last {
            return match self.lineage.entries().get(index + 1) {
                Some(next) if next.start <= seq_max.saturating_add(1) => {
                    cursor.position = Position { branch: next.branch, seq: next.start - 1 };
                    LogRead::NewBranch(*next)
                }
                _ => LogRead::AtEnd,
            };
        }
        let prev = cursor.position;
        let mut end = cursor.offset;
        let mut count = 0;
        while cursor.position.seq < entry.last.min(seq_max) {
            let length = LENGTH_BYTES as u64 + u64::from(self.ring.length_at(end));
            if count > 0 && end + length - cursor.offset > bytes_max as u64 {
                break;
            }
            end += length;
            count += 1;
            cursor.position.seq += 1;
        }
        if count == 0 {
            return LogRead::AtEnd;
        }
        let mut bytes = Vec::with_capacity((end - cursor.offset) as usize);
        self.ring.copy_to(cursor.offset, (end - cursor.offset) as usize, &mut bytes);
        cursor.offset = end;
        LogRead::Records { bytes, term: entry.term, prev, count }
    }
}

/// The records of an `Append`, one after the other; `None` where the bytes end in mid-record.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = rest
            .split_first_chunk::<LENGTH_BYTES>()
            .and_then(|(length, behind)| behind.split_at_checked(u32::from_le_bytes(*length) as usize));
        match record {
            Some((record, behind)) => {
                rest = behind;
                Some(Some(record))
            }
            None => {
                rest = &[];
                Some(None)
            }
        }
    })
}

#[cfg(test)]
mod tests;
