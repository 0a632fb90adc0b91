//! The log against a plain list of all that was ever appended.

use proptest::prelude::*;

use super::entry::MARK_BYTES;
use super::*;
use crate::mutation::{Marks, Mutation};

fn record_of(seq: Seq, length: usize) -> Vec<u8> {
    (0..length.max(8)).map(|index| (seq as usize * 31 + index) as u8).collect()
}

/// All records that a fresh cursor at `position` reads, with the branches between them.
fn read_all(log: &Log, position: Position, bytes_max: usize) -> Option<Vec<(Branch, Seq, Vec<u8>)>> {
    let mut cursor = log.cursor_at(position)?;
    let mut out = Vec::new();
    loop {
        match log.read(&mut cursor, bytes_max, u64::MAX) {
            LogRead::Records { bytes, prev, .. } => {
                let mut seq = prev.seq;
                for entry in entries(&bytes) {
                    if let Entry::Record(record) = entry.unwrap() {
                        seq += 1;
                        out.push((prev.branch, seq, record.to_vec()));
                    }
                }
                assert_eq!(cursor.position.seq, seq);
            }
            LogRead::NewBranch(entry) => assert_eq!(cursor.position.branch, entry.branch),
            LogRead::AtEnd => return Some(out),
            LogRead::Overtaken => panic!("a cursor just made was overtaken"),
        }
    }
}

impl Log {
    /// Looks at every entry.
    fn check_invariants(&self) {
        let (mut offset, mut records, mut mark_bytes) = (self.ring.start, 0, 0);
        while offset < self.ring.end {
            let length = self.ring.length_at(offset);
            match length & MARK_BIT {
                0 => records += 1,
                _ => mark_bytes += entry_bytes(length),
            }
            offset += entry_bytes(length);
        }
        assert_eq!(
            (offset, records, mark_bytes),
            (self.ring.end, self.retained_records(), self.mark_bytes())
        );
        assert!(self.retained_bytes() <= self.bytes_max as u64);
        if records > 0 {
            let after = (1..records).fold(self.first_seq, |seq, _| self.seq_after(seq));
            assert_eq!(after, self.lineage.seq_before(Seq::MAX), "the last of {records} records");
        }
        let landmarks = &self.landmarks.entries;
        assert!(landmarks.iter().is_sorted_by(|a, b| a.offset < b.offset && a.after <= b.after));
        assert!(landmarks.back().is_none_or(|last| last.offset <= self.ring.end));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Mark(u64),
    Mint(u64),
    /// Back by so many positions.
    RollBack(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0usize..1500).prop_map(Step::Append),
        4 => any::<u64>().prop_map(Step::Mark),
        1 => any::<u64>().prop_map(Step::Mint),
        1 => (1usize..8).prop_map(Step::RollBack),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_position_reads_all_that_followed_it_or_is_known_to_be_forgotten(steps in steps(), read_bytes in 1usize..5000) {
        let mut log = Log::new(8 << 10);
        let mut all: Vec<(Branch, Seq, Vec<u8>)> = Vec::new();
        let mut positions = Vec::new();
        let mut term = Term(16);
        log.mint(term, Branch(1), 0, false);
        positions.push((log.position().unwrap(), 0));
        for step in steps {
            match step {
                Step::Append(length) => {
                    let next = log.last_seq() + 1;
                    let record = record_of(next, length);
                    let branch = log.position().unwrap().branch;
                    let (seq, _) = log.append(&record);
                    prop_assert_eq!(seq, next);
                    all.push((branch, seq, record));
                }
                Step::Mark(hash) => {
                    log.append_mark(hash);
                }
                Step::Mint(random) => {
                    term = term.next_for(3).unwrap();
                    log.mint(term, Branch(u128::from(term.0)), random, true);
                }
                Step::RollBack(count) => {
                    let (position, index) = positions[positions.len().saturating_sub(count + 1)];
                    if log.lineage().contains(position) && log.truncate_to(position) {
                        all.truncate(index);
                        positions.retain(|(_, behind)| *behind <= index);
                    }
                }
            }
            log.check_invariants();
            positions.push((log.position().unwrap(), all.len()));
            prop_assert!(log.memory_bytes() <= 8 << 10);
        }
        let mut forgotten = true;
        for (position, index) in positions {
            if !log.lineage().contains(position) {
                continue;
            }
            if let Some(cursor) = log.cursor_at(position).filter(|cursor| cursor.offset < log.ring.end) {
                let walked = log.walk_to(position.seq, log.ring.start, log.first_seq).0;
                // In the gap in front of a branch marks may lie that whoever stands there has had: all that may be left out.
                prop_assert!(cursor.offset >= walked, "landmarks lead to nothing else");
                let mut between = Vec::new();
                log.ring.copy_to(walked, (cursor.offset - walked) as usize, &mut between);
                prop_assert!(entries(&between).all(|entry| matches!(entry, Some(Entry::Mark(_)))));
            }
            match read_all(&log, position, read_bytes) {
                Some(read) => {
                    forgotten = false;
                    prop_assert_eq!(&read[..], &all[index..]);
                }
                None => prop_assert!(forgotten, "a later position is held, an earlier one was, this is not"),
            }
        }
        prop_assert!(!forgotten, "the end itself can always be read from");
    }
}

#[test]
fn a_position_is_found_without_walking_more_than_a_piece_of_the_log() {
    let mut log = Log::new(4 << 20);
    log.mint(Term(16), Branch(1), 0, false);
    let mut longest = 0;
    let check = |log: &Log, longest: &mut usize| {
        for seq in (log.first_seq..log.last_seq()).step_by(997) {
            let position = Position { branch: Branch(1), seq };
            let cursor = log.cursor_at(position).unwrap();
            let landmark = log.landmarks.before(seq).filter(|landmark| landmark.offset >= log.ring.start);
            let (from, next) = landmark
                .map_or((log.ring.start, log.first_seq), |mark| (mark.offset, log.seq_after(mark.after)));
            let (offset, walked) = log.walk_to(seq, from, next);
            assert_eq!(offset, cursor.offset);
            *longest = walked.max(*longest);
        }
    };
    for number in 0..300_000 {
        log.append(&[7; 12]);
        if number % 3 == 0 {
            log.append_mark(number);
        }
    }
    let entries = log.ring.piece_bytes / (LENGTH_BYTES + MARK_BYTES) + 1;
    check(&log, &mut longest);
    assert!(longest > 100 && longest <= entries, "{longest} of {entries}");
    assert!(log.landmarks.entries.len() <= log.bytes_max / log.ring.piece_bytes + 3);
    // Cut back, and grown again.
    let middle = log.first_seq + log.retained_records() / 2;
    assert!(log.truncate_to(Position { branch: Branch(1), seq: middle }));
    check(&log, &mut longest);
    for _ in 0..50_000 {
        log.append(&[9; 20]);
    }
    check(&log, &mut longest);
    assert!(longest <= entries, "{longest} of {entries}");
}

#[test]
fn what_is_forgotten_leaves_in_stretches_of_a_piece_and_the_rest_stays() {
    let mut log = Log::new(1 << 20);
    log.mint(Term(16), Branch(1), 0, false);
    let (mut steps, mut least) = (0, u64::MAX);
    for number in 0..40_000 {
        let before = log.ring.start;
        log.append(&put_record(number));
        if log.ring.start > before {
            steps += 1;
            least = least.min(log.retained_bytes());
        }
    }
    let piece_bytes = log.ring.piece_bytes as u64;
    assert!(least > log.bytes_max as u64 - piece_bytes - 200, "{least} of {}", log.bytes_max);
    assert!(steps <= log.ring.start / piece_bytes + 1, "{steps} times");
}

#[test]
fn a_reader_of_much_looks_at_few_entries_of_it() {
    let mut log = Log::new(4 << 20);
    log.mint(Term(16), Branch(1), 0, false);
    let mut cursor = log.cursor_at_end().unwrap();
    let branch = |log: &Log| log.lineage().entries()[0];
    let everything = LogEnd { seq: Seq::MAX, bytes: u64::MAX, at_ms: 0 };
    for number in 0..30_000 {
        log.append(&put_record(number));
        if number % 5 == 0 {
            log.append_mark(number);
        }
    }
    let (mut pieces, mut walked) = (0, 0);
    while cursor.offset < log.ring.end {
        let before = cursor;
        walked += log.pass_over(&mut cursor, branch(&log), 256 << 10, everything);
        assert!(cursor.offset > before.offset && cursor.offset - before.offset <= 256 << 10);
        // One who looks at each entry comes to the same place.
        let mut seq = before.position.seq;
        let mut bytes = Vec::new();
        log.ring.copy_to(before.offset, (cursor.offset - before.offset) as usize, &mut bytes);
        seq += entries(&bytes).filter(|entry| matches!(entry, Some(Entry::Record(_)))).count() as u64;
        assert_eq!(cursor.position.seq, seq);
        pieces += 1;
    }
    assert!(pieces <= 14 && walked == 0, "{pieces} pieces, {walked} entries");
    assert_eq!(cursor, log.cursor_at_end().unwrap());
    // What ends in the middle of a stretch is looked for there.
    let mut cursor =
        log.cursor_at(log.position().map(|end| Position { seq: end.seq - 20_000, ..end }).unwrap()).unwrap();
    let until = LogEnd { seq: cursor.position.seq + 1_500, ..everything };
    walked = log.pass_over(&mut cursor, branch(&log), 256 << 10, until);
    assert_eq!(cursor.position.seq, until.seq);
    assert!(walked < 1_000, "{walked}");
}

#[test]
fn a_reader_that_is_overtaken_is_told() {
    let mut log = Log::new(4 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let mut cursor = log.cursor_at_end().unwrap();
    for _ in 0..100 {
        log.append(&[7; 100]);
    }
    assert_eq!(log.read(&mut cursor, 1000, u64::MAX), LogRead::Overtaken);
}

#[test]
fn a_restarted_log_stands_at_the_end_of_its_new_history() {
    let mut log = Log::new(4 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    log.append(b"one");
    let followed = log.lineage().clone();
    let mut replica = Log::new(4 << 10);
    replica.restart(followed);
    assert_eq!(replica.position(), log.position());
    assert_eq!(replica.undo_floor(), log.last_seq(), "it has nothing that it could undo");
    assert_eq!(replica.append(b"two"), log.append(b"two"));
}

#[test]
fn records_cut_short_end_with_none() {
    let bytes = [3, 0, 0, 0, 1, 2, 3, 9, 0, 0, 0, 1];
    let read: Vec<_> = entries(&bytes).collect();
    assert_eq!(read, [Some(Entry::Record(&[1, 2, 3])), None]);
}

#[test]
fn marks_are_read_at_their_place_and_take_no_seq_and_a_quarter_of_the_log_at_most() {
    let mut log = Log::new(4 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let mut cursor = log.cursor_at_end().unwrap();
    log.append(b"one");
    assert!(log.append_mark(7));
    let (seq, _) = log.append(b"two");
    let LogRead::Records { bytes, .. } = log.read(&mut cursor, 1000, u64::MAX) else { panic!() };
    let read: Vec<_> = entries(&bytes).flatten().collect();
    assert_eq!(read, [Entry::Record(b"one"), Entry::Mark(7), Entry::Record(b"two")]);
    assert_eq!(cursor.position.seq, seq);
    let taken = (0..1000).filter(|hash| log.append_mark(*hash)).count();
    assert!((30..100).contains(&taken), "{taken}");
}

/// Puts of one key, as a log that can be gone back in has them.
fn put_record(seq: Seq) -> Vec<u8> {
    [&[0], &record_of(seq, 60)[..]].concat()
}

#[test]
fn a_log_cut_back_reads_and_goes_on_as_if_it_had_never_gone_further() {
    for cut in 0..=40 {
        let mut log = Log::new(64 << 10);
        log.mint(Term(16), Branch(1), 0, false);
        let mut positions = vec![log.position().unwrap()];
        for step in 0..40 {
            if step % 15 == 14 {
                log.mint(log.lineage().term().next_for(1).unwrap(), Branch(step), 3, true);
            }
            log.append(&put_record(log.last_seq() + 1));
            log.append_mark(7);
            positions.push(log.position().unwrap());
        }
        let begin = positions[0];
        let to = positions[cut];
        let all = read_all(&log, begin, 500).unwrap();
        assert!(log.undo_floor() <= begin.seq && log.truncate_to(to));
        assert_eq!(log.position(), Some(to));
        assert_eq!(read_all(&log, begin, 500).unwrap()[..], all[..cut]);
        assert_eq!(log.append(b"next").0, to.seq + 1);
        assert_eq!(read_all(&log, to, 500).unwrap(), [(to.branch, to.seq + 1, b"next".to_vec())]);
        // What marks take was counted down with them: there is room for as many as in the beginning.
        assert!(log.mark_bytes() <= cut as u64 * 12);
    }
}

#[test]
fn a_log_cut_back_behind_what_it_forgot_stays_as_it_was() {
    let mut log = Log::new(4 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let begin = log.position().unwrap();
    for seq in 0..200 {
        log.append(&put_record(seq));
    }
    let before = log.position();
    assert!(log.undo_floor() > begin.seq);
    assert!(!log.truncate_to(begin));
    assert_eq!(log.position(), before);
    let floor = Position { seq: log.undo_floor(), ..begin };
    assert!(log.truncate_to(floor), "the floor itself can be gone back to");
    assert_eq!((log.retained_bytes(), log.position()), (0, Some(floor)));
}

#[test]
fn no_flush_of_any_kind_can_be_undone() {
    for flush in [&[3][..], &[4, 7], &[5, 1, b'u']] {
        let mut log = Log::new(4 << 10);
        log.mint(Term(16), Branch(1), 0, false);
        log.append(&put_record(1));
        let (flushed, _) = log.append(flush);
        log.append(&put_record(3));
        assert_eq!(log.undo_floor(), flushed);
    }
}

#[test]
fn a_put_written_in_place_is_read_as_one_that_was_appended() {
    for bytes_max in [2 << 10, 64 << 10] {
        let (mut in_place, mut appended) = (Log::new(bytes_max), Log::new(bytes_max));
        let position = [&mut in_place, &mut appended].map(|log| {
            log.mint(Term(16), Branch(1), 0, false);
            log.position().unwrap()
        })[0];
        let mut last = position;
        for number in 0..3_000_usize {
            let key = format!("key-{number}");
            let value = vec![number as u8; number * 7 % 200];
            let mut record = Vec::new();
            let put = Mutation::Put {
                key: key.as_bytes(),
                value: &value,
                flags: 0,
                expires_at_ms: 0,
                marks: Marks(8),
                client_cas: None,
            };
            record::encode(&put, &mut record);
            let (_, version) = appended.append(&record);
            assert_eq!(in_place.append_plain_put(key.as_bytes(), &value, Marks(8)), version);
            assert_eq!(in_place.retained_bytes(), appended.retained_bytes());
            let read = |log: &Log| read_all(log, last, 1 << 20).unwrap();
            assert_eq!(read(&in_place), read(&appended), "put {number}");
            last = in_place.position().unwrap();
        }
        assert!(in_place.cursor_at(position).is_none(), "the oldest were forgotten");
    }
}

#[test]
fn what_an_eviction_pass_did_lies_between_records_and_is_kept_from_older_readers() {
    let mut log = Log::new(64 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let mut cursor = log.cursor_at_end().unwrap();
    let whole = WholeShard { slot: 3, shard: 400, shards: 512, owed_bytes: u64::MAX - 1 };
    log.append(b"one");
    assert!(log.append_pass(7, Pass::Kept) && log.append_pass(8, Pass::Evicted));
    let before = log.end(0);
    assert!(log.append_whole(whole));
    let pass = |hash, pass| Entry::Pass { hash, pass };
    let LogRead::Records { bytes, .. } = log.read_until(&mut cursor, usize::MAX, before) else { panic!() };
    let read: Vec<_> = entries(&bytes).flatten().collect();
    assert_eq!(read, [Entry::Record(b"one"), pass(7, Pass::Kept), pass(8, Pass::Evicted)]);
    assert!(cursor.is_at(before) && !cursor.is_at(log.end(0)));
    let LogRead::Records { bytes, .. } = log.read(&mut cursor, usize::MAX, Seq::MAX) else { panic!() };
    assert_eq!(entries(&bytes).flatten().collect::<Vec<_>>(), [Entry::Whole(whole)]);

    let last = log.last_seq();
    assert!(!log.is_plain_behind(last));
    // The next branch begins behind a gap, and whoever goes on from in there reads those entries as well.
    log.mint(Term(33), Branch(2), 9, true);
    assert!(log.last_seq() > last + 1 && !log.is_plain_behind(log.last_seq()));
    let next = log.append(b"two").0;
    assert!(log.is_plain_behind(next) && !log.is_plain_behind(next - 1));
    log.has_old_reader = true;
    assert!(!log.append_pass(9, Pass::Kept) && !log.append_whole(whole) && log.append_mark(9));
}

#[test]
fn that_a_shard_is_whole_is_said_though_marks_have_their_share() {
    let mut log = Log::new(8 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let whole = WholeShard { slot: 3, shard: 0, shards: 1, owed_bytes: 5 };
    while log.append_mark(7) {}
    assert!(!log.append_pass(7, Pass::Kept));
    let mut cursor = log.cursor_at_end().unwrap();
    assert!(log.append_whole(whole));
    let LogRead::Records { bytes, .. } = log.read(&mut cursor, usize::MAX, Seq::MAX) else { panic!() };
    assert_eq!(entries(&bytes).flatten().collect::<Vec<_>>(), [Entry::Whole(whole)]);
    assert!(!log.append_mark(7), "it counts as marks do");
}

#[test]
fn an_entry_without_a_seq_of_another_length_is_malformed() {
    for length in 0..32_u32 {
        let mut bytes = (length | MARK_BIT).to_le_bytes().to_vec();
        bytes.extend(std::iter::repeat_n(1, length as usize));
        assert_eq!(first_entry(&bytes).is_some(), [8, 9, 13].contains(&length), "{length}");
    }
    let pass = [(9 | MARK_BIT).to_le_bytes().as_slice(), &[0; 8], &[3]].concat();
    assert_eq!(first_entry(&pass), None, "no such pass");
}

#[test]
fn a_roll_back_past_marks_alone_leaves_no_landmark_of_the_branch_that_was_cut_off() {
    let mut log = Log::new(4 << 10);
    log.mint(Term(16), Branch(1), 0, false);
    let common = log.position().unwrap();
    // Of a later branch the log has marks only.
    log.mint(Term(32), Branch(2), 40_000, true);
    assert!(log.append_mark(7));
    assert!(log.truncate_to(common));
    log.mint(Term(48), Branch(3), 100, true);
    log.append(b"one");
    let second = log.mint(Term(64), Branch(4), 60_000, true);
    log.append(b"two");
    let mut cursor = log.cursor_at(Position { branch: second.branch, seq: second.start - 1 }).unwrap();
    let LogRead::Records { bytes, .. } = log.read(&mut cursor, usize::MAX, Seq::MAX) else { panic!() };
    assert_eq!(entries(&bytes).flatten().collect::<Vec<_>>(), [Entry::Record(b"two")]);
}
