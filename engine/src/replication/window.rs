//! What the log has changed while parts of a full copy were on their way.
//!
//! Lives here: which items of a late chunk are still what the primary has. Not here: when a chunk or the log waits (see
//! `apart`).
//!
//! ```text
//!      floor                         applied
//!   ...  |<---- noted here: by hash --->|
//!        the newest chunk is exact here; all that still come are so at or behind it
//! ```

use std::collections::{HashMap, VecDeque};

use super::bug::{Bug, Bugs};
use super::log::{Entry, entries};
use super::message::{Append, Chunk};
use super::position::Seq;
use super::record;
use crate::mutation::{Mutation, Pass, Version};

/// Records that are noted unless a configuration says otherwise, about 80 bytes each.
pub(crate) const RECORDS_MAX: usize = 64 << 10;

/// Records of one frame: more than a primary's of this version has.
const FRAME_RECORDS_MAX: usize = 64 << 10;

/// 1. `order` has each record of one key behind `floor` that was applied, oldest first, and marks between them; at most
///    `records_max`, or those of one frame.
/// 2. `changes` has the hashes in `order`, each with what all of its records there come to, and no other.
#[derive(Debug)]
pub(crate) struct Window {
    floor: Seq,
    order: VecDeque<(Seq, u64)>,
    changes: HashMap<u64, Change>,
    records_max: usize,
    bugs: Bugs,
}

#[derive(Debug, Clone, Copy, Default)]
struct Change {
    last: Seq,
    /// It was put or deleted: what a chunk says of it has passed.
    is_overtaken: bool,
    /// The item of this version expires then, 0 for never.
    touched: Option<(Version, u64)>,
    /// It was read.
    is_read: bool,
}

impl Window {
    /// Of a copy that begins at this seq.
    pub(crate) fn new(begin: Seq, records_max: usize, bugs: Bugs) -> Window {
        Window { floor: begin, order: VecDeque::new(), changes: HashMap::new(), records_max, bugs }
    }

    /// Whether so many records can be in one frame.
    pub(crate) fn may_be(records: usize) -> bool {
        records <= FRAME_RECORDS_MAX
    }

    /// Whether it takes the records of a frame: always, if nothing is noted, so that the log can go on then.
    pub(crate) fn has_room_for(&self, records: usize) -> bool {
        self.order.is_empty() || self.order.len() + records <= self.records_max
    }

    /// Below this seq no chunk can be exact any more.
    pub(crate) fn floor(&self) -> Seq {
        self.floor
    }

    /// No chunk on its way is of an earlier moment: what was changed by then is in each of them.
    pub(crate) fn raise(&mut self, floor: Seq) {
        self.floor = self.floor.max(floor);
        if self.bugs.has(Bug::WindowForgotten) {
            self.order.clear();
            self.changes.clear();
        }
        while let Some((seq, hash)) = self.order.front().copied().filter(|(seq, _)| *seq <= self.floor) {
            self.order.pop_front();
            if self.changes.get(&hash).is_some_and(|change| change.last == seq) {
                self.changes.remove(&hash);
            }
        }
    }

    /// Notes records that were applied, for which it has room.
    pub(crate) fn note(&mut self, append: &Append<'_>, hash: impl Fn(&[u8]) -> u64) {
        let mut seq = append.prev_seq;
        for entry in entries(append.records).flatten() {
            match entry {
                Entry::Record(bytes) => {
                    seq += 1;
                    if let Ok(mutation) = record::decode(bytes) {
                        self.note_mutation(seq, &mutation, &hash);
                    }
                }
                // One that finds no room is lost, as a mark may be.
                Entry::Mark(marked) if self.order.len() < self.records_max => {
                    if let Some(change) = self.change(seq, marked) {
                        change.is_read = true;
                    }
                }
                // What a chunk brings of it is gone. One that finds no room stays, as what the coldest.
                Entry::Pass { hash, pass: Pass::Evicted } if self.order.len() < self.records_max => {
                    if let Some(change) = self.change(seq, hash) {
                        change.is_overtaken = true;
                    }
                }
                Entry::Mark(_) | Entry::Pass { .. } | Entry::Whole(_) => {}
            }
        }
    }

    fn note_mutation(&mut self, seq: Seq, mutation: &Mutation<'_>, hash: impl Fn(&[u8]) -> u64) {
        match mutation {
            Mutation::Put { key, .. } | Mutation::Delete { key } => {
                if let Some(change) = self.change(seq, hash(key)) {
                    change.is_overtaken = true;
                }
            }
            Mutation::Touch { key, version, expires_at_ms } => {
                if let Some(change) = self.change(seq, hash(key)) {
                    change.touched = Some((*version, *expires_at_ms));
                }
            }
            // These raise floors, which stay.
            Mutation::Flush | Mutation::FlushAt { .. } | Mutation::FlushPrefix { .. } => {}
            // No item changes.
            Mutation::LendLoad { .. } | Mutation::EndLoad { .. } => {}
        }
    }

    /// What is noted of a hash, which is changed at `seq`; `None` if every chunk to come has that.
    fn change(&mut self, seq: Seq, hash: u64) -> Option<&mut Change> {
        if seq <= self.floor {
            return None;
        }
        self.order.push_back((seq, hash));
        let change = self.changes.entry(hash).or_default();
        change.last = seq;
        Some(change)
    }

    /// Leaves of a late chunk what the primary has still, as it has it now; gives the hashes of items that were read since.
    pub(crate) fn sift(&self, chunk: &mut Chunk<'_>, hash: impl Fn(&[u8]) -> u64) -> Vec<u64> {
        let mut read = Vec::new();
        chunk.items.retain_mut(|item| {
            let hash = hash(item.key);
            let Some(change) = self.changes.get(&hash) else { return true };
            if change.is_overtaken && !self.bugs.has(Bug::LateChunk) {
                return false;
            }
            if let Some((_, expires_at_ms)) = change.touched.filter(|(version, _)| version.0 == item.version)
            {
                item.expires_at_ms = expires_at_ms;
            }
            if change.is_read {
                read.push(hash);
            }
            true
        });
        read
    }

    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert!(self.order.len() <= self.records_max.max(FRAME_RECORDS_MAX));
        assert!(self.order.iter().all(|(seq, hash)| *seq > self.floor && self.changes.contains_key(hash)));
        assert!(self.order.iter().is_sorted_by_key(|(seq, _)| seq));
        for (hash, change) in &self.changes {
            let last = self.order.iter().rev().find(|(_, other)| other == hash);
            assert_eq!(last.map(|(seq, _)| *seq), Some(change.last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::message::{ChunkItem, ChunkKind};

    fn hash(key: &[u8]) -> u64 {
        u64::from(key[0])
    }

    /// The records, each behind its length, with marks between them: a hash without a record.
    fn note(window: &mut Window, prev_seq: Seq, told: &[Result<Mutation<'_>, u64>]) {
        let mut records = Vec::new();
        for entry in told {
            let mut record = Vec::new();
            match entry {
                Ok(mutation) => record::encode(mutation, &mut record),
                Err(marked) => record.extend_from_slice(&marked.to_le_bytes()),
            }
            let mark_bit = if entry.is_err() { 1 << 31 } else { 0 };
            records.extend_from_slice(&(record.len() as u32 | mark_bit).to_le_bytes());
            records.extend_from_slice(&record);
        }
        let append = Append { term: 1, branch: 1, prev_seq, clock_ms: 0, records: &records };
        window.note(&append, hash);
        window.check_invariants();
    }

    fn put(key: &[u8]) -> Result<Mutation<'_>, u64> {
        let marks = crate::mutation::Marks(0);
        Ok(Mutation::Put { key, value: b"v", flags: 0, expires_at_ms: 0, marks, client_cas: None })
    }

    /// What is left of a chunk with these keys, each item of version 7: the keys with their expiry, and who was read.
    fn sifted(window: &Window, keys: &[&'static str]) -> (Vec<(&'static str, u64)>, Vec<u64>) {
        let item = |key: &&'static str| ChunkItem {
            key: key.as_bytes(),
            value: b"v",
            flags: 0,
            expires_at_ms: 0,
            client_cas: None,
            marks: 0,
            version: 7,
        };
        let items = keys.iter().map(item).collect();
        let mut chunk = Chunk { at_seq: 0, kind: ChunkKind::Install, items };
        let read = window.sift(&mut chunk, hash);
        let left = chunk.items.iter().map(|item| {
            let key = keys.iter().find(|key| key.as_bytes() == item.key).expect("one of them");
            (*key, item.expires_at_ms)
        });
        (left.collect(), read)
    }

    #[test]
    fn of_a_late_chunk_only_what_was_not_changed_behind_its_moment_counts_as_the_log_left_it() {
        let mut window = Window::new(10, RECORDS_MAX, Bugs::default());
        let touch = |key, version| Ok(Mutation::Touch { key, version: Version(version), expires_at_ms: 99 });
        let told =
            [put(b"a"), Ok(Mutation::Delete { key: b"b" }), touch(b"c", 7), touch(b"d", 6), Err(b'e'.into())];
        note(&mut window, 10, &told);
        let left = sifted(&window, &["a", "b", "c", "d", "e", "f"]);
        assert_eq!(left, (vec![("c", 99), ("d", 0), ("e", 0), ("f", 0)], vec![b'e'.into()]));
        window.raise(11);
        window.check_invariants();
        assert_eq!(sifted(&window, &["a", "b"]).0, [("a", 0)], "a chunk of seq 11 has what was put there");
        window.raise(14);
        window.check_invariants();
        assert_eq!(
            sifted(&window, &["a", "b", "c", "e"]),
            (vec![("a", 0), ("b", 0), ("c", 0), ("e", 0)], vec![])
        );
    }

    #[test]
    fn what_was_changed_twice_is_known_until_the_later_change_is_in_every_chunk() {
        let mut window = Window::new(0, RECORDS_MAX, Bugs::default());
        note(&mut window, 0, &[put(b"a"), put(b"b"), put(b"a")]);
        window.raise(1);
        assert_eq!(sifted(&window, &["a", "b"]).0, []);
        window.raise(2);
        assert_eq!(sifted(&window, &["a", "b"]).0, [("b", 0)]);
        window.raise(3);
        assert_eq!(sifted(&window, &["a", "b"]).0, [("a", 0), ("b", 0)]);
    }

    #[test]
    fn it_takes_no_more_than_its_bound_or_one_frame_and_loses_marks_beyond() {
        let mut window = Window::new(0, 3, Bugs::default());
        assert!(window.has_room_for(FRAME_RECORDS_MAX) && !Window::may_be(FRAME_RECORDS_MAX + 1));
        note(&mut window, 0, &[put(b"a"), put(b"b")]);
        assert!(window.has_room_for(1) && !window.has_room_for(2));
        note(&mut window, 2, &[put(b"c"), Err(b'd'.into())]);
        assert_eq!(sifted(&window, &["d"]).1, [], "a mark without room is lost");
        assert!(!window.has_room_for(1));
        window.raise(3);
        assert!(window.has_room_for(FRAME_RECORDS_MAX), "the log can always go on once nothing is noted");
    }
}
