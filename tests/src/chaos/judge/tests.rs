//! Each promise broken once, in a history of one key, so that every check is seen to fail.

use super::*;

/// A version of a term.
fn at(term: u64, seq: u64) -> u64 {
    term << 44 | seq
}

/// The first reign, and the second by a promotion at the moment 100 that certainly kept what is up to `held_seq`.
fn reigns(held_seq: u64) -> Vec<Reign> {
    let first = Reign { term: 16, begun: 0, planned: true, held_seq: 0, exported: None, survived_seq: 0 };
    let second = Reign { term: 33, begun: 100, planned: false, held_seq, ..first.clone() };
    vec![first, second]
}

fn set(counter: u32, version: u64) -> Write {
    let began = Moment::from(counter) * 10;
    Write {
        key: 0,
        counter,
        kind: Kind::Set,
        outcome: Outcome::Acknowledged,
        began,
        ended: began + 5,
        version,
        above: 0,
        below: 0,
        reign: 0,
    }
}

fn delete(counter: u32, above: u64, below: u64) -> Write {
    Write { kind: Kind::Delete, version: 0, above, below, ..set(counter, 0) }
}

fn hit(reign: usize, counter: u32, version: u64) -> Read {
    let found = Found::Value { counter, version };
    Read { key: 0, began: 200, ended: 210, found, place: Place::Primary(reign) }
}

fn miss(reign: usize) -> Read {
    Read { found: Found::Miss, ..hit(reign, 0, 0) }
}

/// What is said, and how many writes are lost, when the client of one key saw this.
fn judged(loses_nothing: bool, held_seq: u64, writes: Vec<Write>, reads: Vec<Read>) -> (Vec<String>, u64) {
    let mut judge = Judge::new(1, if loses_nothing { Mode::SemiSync } else { Mode::Async });
    let watch = Watch::start(&[], super::super::history::Clock::start());
    let journal = Journal { writes, reads, strange: Vec::new() };
    judge.judge(vec![journal], Vec::new(), &mut reigns(held_seq), &watch);
    (judge.complaints, judge.tally.lost)
}

/// The same, of an asynchronous group of which everything up to seq 10 was certainly kept.
fn in_async(writes: Vec<Write>, reads: Vec<Read>) -> (Vec<String>, u64) {
    judged(false, 10, writes, reads)
}

fn assert_said(outcome: &(Vec<String>, u64), words: &str) {
    assert!(outcome.0.iter().any(|text| text.contains(words)), "`{words}` is missing in {:#?}", outcome.0);
}

#[test]
fn what_was_acknowledged_last_may_be_read() {
    let writes = vec![set(1, at(16, 9)), set(2, at(16, 11))];
    assert_eq!(in_async(writes, vec![hit(0, 2, at(16, 11)), hit(1, 2, at(16, 11))]), (vec![], 0));
}

#[test]
fn in_one_reign_an_older_value_is_stale_whatever_the_mode() {
    let writes = vec![set(1, at(16, 11)), set(2, at(16, 12))];
    assert_said(&in_async(writes, vec![hit(0, 1, at(16, 11))]), "a stale hit");
}

#[test]
fn a_promotion_may_lose_what_was_not_exported_as_applied_in_async_and_nothing_in_semi_sync() {
    let writes = || vec![set(1, at(16, 9)), set(2, at(16, 11))];
    let read = || vec![hit(1, 1, at(16, 9))];
    assert_eq!(in_async(writes(), read()), (vec![], 1));
    assert_said(&judged(true, 10, writes(), read()), "is lost");
    assert_said(&judged(false, 11, writes(), read()), "a stale hit");
}

#[test]
fn a_lost_write_leaves_no_hole_before_one_that_survived() {
    let other = Write { key: 0, ..set(3, at(16, 13)) };
    let writes = vec![set(1, at(16, 9)), set(2, at(16, 11)), other];
    let reads = vec![hit(1, 3, at(16, 13)), hit(1, 1, at(16, 9))];
    assert_said(&in_async(writes, reads), "a stale hit");
}

#[test]
fn a_miss_needs_a_delete_or_a_loss() {
    assert_said(&in_async(vec![set(1, at(16, 9))], vec![miss(1)]), "missing");
    assert_eq!(in_async(vec![set(1, at(16, 11))], vec![miss(1)]), (vec![], 1));
    let deleted = vec![set(1, at(16, 9)), delete(2, at(16, 9), at(16, 10))];
    assert_eq!(in_async(deleted, vec![miss(0), miss(1)]), (vec![], 0));
    let late = Write { outcome: Outcome::Unknown, ended: Moment::MAX, ..delete(1, 0, 0) };
    assert_eq!(in_async(vec![late, set(2, at(16, 9))], vec![miss(0)]), (vec![], 0));
}

#[test]
fn a_delete_is_lost_only_behind_what_was_kept() {
    let writes = |below| vec![set(1, at(16, 7)), delete(2, at(16, 8), below)];
    let read = || vec![hit(1, 1, at(16, 7))];
    assert_eq!(in_async(writes(at(16, 12)), read()), (vec![], 1));
    assert_eq!(in_async(writes(0), read()), (vec![], 1));
    assert_said(&in_async(writes(at(16, 10)), read()), "a stale hit");
}

#[test]
fn what_nobody_wrote_and_what_was_refused_is_never_read() {
    let refused = Write { outcome: Outcome::Refused, version: 0, ..set(2, 0) };
    let writes = || vec![set(1, at(16, 9)), refused.clone()];
    assert_said(&in_async(writes(), vec![hit(0, 2, at(16, 11))]), "refused");
    assert_said(&in_async(writes(), vec![hit(0, 1, at(16, 10))]), "another version");
    assert_said(&in_async(writes(), vec![hit(0, 7, at(16, 10))]), "of nobody");
    let wrong = Read { found: Found::Wrong("x".to_owned()), ..miss(0) };
    assert_said(&in_async(writes(), vec![wrong]), "bytes that nobody wrote");
}

#[test]
fn an_old_primary_may_be_behind_and_must_not_lie() {
    let writes = || vec![set(1, at(16, 9)), set(2, at(33, 40))];
    let old = |counter, version| Read { place: Place::Node(0), ..hit(0, counter, version) };
    let outcome = in_async(writes(), vec![old(1, at(16, 9))]);
    assert_eq!(outcome, (vec![], 0));
    assert_said(&in_async(writes(), vec![old(1, at(16, 8))]), "another version");
}

#[test]
fn what_an_empty_process_at_the_old_address_took_is_nobodys_promise() {
    let stray = Write { reign: 1, ..set(2, at(16, 400)) };
    assert_eq!(in_async(vec![set(1, at(16, 9)), stray], vec![hit(1, 1, at(16, 9))]), (vec![], 0));
}
