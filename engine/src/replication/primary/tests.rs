//! Which plan a replica is given.

use super::*;
use crate::replication::hello::Purpose;
use crate::replication::position::{Branch, Lineage, Term};

const PUT: &[u8] = &[0, 1, b'k', 1, b'v', 0, 0, 0, 0];

/// A primary that was promoted when it stood at seq 5 of branch 1, and has written `written` records since.
fn promoted(bytes_max: usize, written: usize) -> Log {
    let mut log = Log::new(bytes_max);
    log.mint(Term(16), Branch(1), 3, false);
    log.append(PUT);
    log.mint(Term(33), Branch(2), 9, true);
    for _ in 0..written {
        log.append(PUT);
    }
    log
}

/// The one before it, which wrote two records more.
fn ahead(undo_floor: Option<Seq>) -> Hello {
    let mut lineage = Lineage::default();
    lineage.mint(Term(16), Branch(1), 3, false);
    for _ in 0..3 {
        lineage.advance();
    }
    Hello {
        version: 1,
        purpose: Purpose::Follow,
        group: 1,
        node: 2,
        incarnation: 3,
        slot: 0,
        term_seen: Term(33),
        position: lineage.position(),
        lineage,
        undo_floor,
        grants_leases: true,
        frame_bytes_max: 1 << 20,
        clock_ms: 0,
        address: String::new(),
        cascades: false,
        ack_mode: None,
        slot_is_free: false,
    }
}

#[test]
fn a_replica_ahead_rolls_back_to_the_last_seq_that_both_have() {
    for floor in [0, 4, 5] {
        let (plan, cursor) = plan_for(&ahead(Some(floor)), &promoted(64 << 10, 10));
        assert_eq!(plan, Plan::RollBack { branch: 1, seq: 5 });
        assert_eq!(cursor.unwrap().position, Position { branch: Branch(1), seq: 5 });
    }
}

#[test]
fn one_that_does_not_know_how_or_cannot_go_back_so_far_is_copied_anew() {
    for floor in [None, Some(6), Some(u64::MAX)] {
        assert_eq!(plan_for(&ahead(floor), &promoted(64 << 10, 10)), (Plan::Install, None));
    }
    let nothing_claimed = Hello { position: None, ..ahead(Some(0)) };
    assert_eq!(plan_for(&nothing_claimed, &promoted(64 << 10, 10)), (Plan::Install, None));
    let stranger = Hello { lineage: Lineage::default(), ..ahead(Some(0)) };
    assert_eq!(plan_for(&stranger, &promoted(64 << 10, 10)), (Plan::Install, None));
}

#[test]
fn nobody_rolls_back_to_what_the_primary_has_forgotten() {
    assert_eq!(plan_for(&ahead(Some(0)), &promoted(4 << 10, 1_000)), (Plan::Install, None));
}

#[test]
fn a_replica_behind_resumes_whatever_it_could_undo() {
    let log = promoted(64 << 10, 10);
    let behind = Hello {
        position: log
            .lineage()
            .entries()
            .first()
            .map(|entry| Position { branch: entry.branch, seq: entry.last }),
        ..ahead(Some(0))
    };
    assert_eq!(plan_for(&behind, &log).0, Plan::Resume);
}
