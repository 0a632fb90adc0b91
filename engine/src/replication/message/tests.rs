//! The bytes of each body, pinned, and what hostile bytes do.

use super::*;
use proptest::prelude::*;

type Sample = (Message<'static>, &'static [u8]);

/// One for each plan, and what follows an answer to whom would follow a replica.
fn answers() -> Vec<Sample> {
    let entry = WireEntry { term: 16, branch: 5, start: 1, last: 9, promoted: true };
    vec![
        (
            Message::HelloOk(HelloOk {
                lineage: vec![entry],
                plan: Plan::Install,
                node: 1,
                slot: 2,
                hash_seed: 3,
                clock_ms: 4,
                frame_bytes_max: 5,
                peers: vec!["a".to_owned()],
            }),
            &[1, 16, 5, 1, 9, 1, 1, 1, 2, 3, 4, 5, 1, 1, b'a'],
        ),
        (
            Message::HelloOk(HelloOk {
                lineage: Vec::new(),
                plan: Plan::RollBack { branch: 5, seq: 200 },
                node: 1,
                slot: 2,
                hash_seed: 3,
                clock_ms: 4,
                frame_bytes_max: 5,
                peers: Vec::new(),
            }),
            &[0, 2, 5, 0xc8, 1, 1, 2, 3, 4, 5, 0],
        ),
        (
            Message::Relay(Relay {
                path: vec![5, 6],
                primary: "p".to_owned(),
                level: true,
                settled_seq: 7,
                settled_ms: 200,
            }),
            &[2, 5, 6, 1, b'p', 1, 7, 0xc8, 1],
        ),
    ]
}

fn samples() -> Vec<Sample> {
    let entry = WireEntry { term: 16, branch: 5, start: 1, last: 9, promoted: true };
    let item = || ChunkItem {
        key: b"k",
        value: b"v",
        flags: 1,
        expires_at_ms: 2,
        client_cas: None,
        marks: 3,
        version: 4,
    };
    vec![
        (
            Message::Reject(Reject {
                code: RejectCode::StaleTerm,
                primary: "p".to_owned(),
                retry_after_ms: 7,
            }),
            &[8, 1, b'p', 7],
        ),
        (
            Message::Append(Append { term: 16, branch: 5, prev_seq: 9, clock_ms: 200, records: &[1, 2] }),
            &[16, 5, 9, 0xc8, 1, 2, 1, 2],
        ),
        (Message::Ack(Ack { applied: 1, received: 2, incarnation: 3 }), &[1, 2, 3]),
        (
            Message::Heartbeat(Heartbeat { term: 1, last_seq: 2, clock_ms: 3, peers: Vec::new() }),
            &[1, 2, 3, 0],
        ),
        (
            Message::InstallBegin(InstallBegin {
                lineage: vec![entry],
                flush_floor: 6,
                flush_at_ms: 7,
                prefix_floors: Vec::new(),
            }),
            &[1, 16, 5, 1, 9, 1, 6, 7, 0],
        ),
        (
            Message::Chunk(Chunk { at_seq: 9, kind: ChunkKind::Refill, items: vec![item()] }),
            &[9, 1, 1, 1, b'k', 1, b'v', 1, 2, 0, 3, 4],
        ),
        (Message::InstallEnd(InstallEnd { seq: 5 }), &[5]),
        (Message::Hints(Hints { at_seq: 1, hashes: vec![2, 3] }), &[1, 2, 2, 3]),
        (Message::Want(Want { hashes: vec![2] }), &[1, 2]),
        (Message::Lineage(entry), &[16, 5, 1, 9, 1]),
        (
            Message::Fenced(Fenced { term: 1, lineage: vec![entry], primary: String::new() }),
            &[1, 1, 16, 5, 1, 9, 1, 0],
        ),
        (Message::Bye(Bye { reason: ByeReason::OutOfStep }), &[4]),
        (Message::Handover(Handover { seq: 200 }), &[0xc8, 1]),
        (Message::Lease(Lease { asked_ms: 200 }), &[0xc8, 1]),
    ]
}

/// What came with later versions.
fn later_samples() -> Vec<Sample> {
    let entry = WireEntry { term: 16, branch: 5, start: 1, last: 9, promoted: true };
    vec![
        (Message::Mode(Mode { strict: true, replicas: 2 }), &[1, 2]),
        (Message::Apart(Apart { copy: 200 }), &[0xc8, 1]),
        (
            Message::Ghosts(Ghosts {
                shard: 1,
                shards: 2,
                lines: 200,
                first: 3,
                fingerprints: vec![1, 7, 8],
            }),
            &[1, 2, 0xc8, 1, 3, 3, 1, 7, 8],
        ),
        (
            Message::Standing(Standing {
                node: 9,
                term_seen: 8,
                lineage: vec![entry],
                has_data: true,
                lease_over_in_ms: 7,
            }),
            &[9, 8, 1, 16, 5, 1, 9, 1, 1, 7],
        ),
    ]
}

/// What is said of loads, each variant.
fn loads() -> Vec<Sample> {
    let ask = LoadAsk { id: 200, key: b"k", lease_ms: 7, replaces: Some(5), needs_value: true };
    let done = |loaded| Message::LoadDone(LoadDone { lease: 9, key: b"k", loaded });
    let answer = |verdict| Message::LoadAnswer(LoadAnswer { id: 3, verdict });
    vec![
        (Message::LoadAsk(ask), &[0xc8, 1, 1, b'k', 7, 1, 5, 1]),
        (answer(LoadVerdict::Open), &[3, 0]),
        (answer(LoadVerdict::Granted { lease: 200, until_ms: 4 }), &[3, 1, 0xc8, 1, 4]),
        (answer(LoadVerdict::Held { until_ms: 4 }), &[3, 2, 4]),
        (answer(LoadVerdict::Present), &[3, 3]),
        (answer(LoadVerdict::Refused), &[3, 4]),
        (done(Loaded::Value { value: b"v", flags: 1, expires_at_ms: 2 }), &[9, 1, b'k', 0, 1, b'v', 1, 2]),
        (done(Loaded::Absence { expires_at_ms: 2 }), &[9, 1, b'k', 1, 2]),
        (done(Loaded::Nothing), &[9, 1, b'k', 2]),
    ]
}

#[test]
fn each_body_has_its_golden_bytes_and_reads_back() {
    let all = [answers(), samples(), later_samples(), loads()];
    for (number, (message, golden)) in all.into_iter().flatten().enumerate() {
        let frame = message.encode(number as u32);
        assert_eq!(&frame[frame::HEADER_BYTES..], golden, "{message:?}");
        assert_eq!(Message::decode(&frame).unwrap(), (number as u32, message));
    }
}

#[test]
fn a_body_with_surplus_bytes_is_refused() {
    let frame = frame::encode(Kind::Ack, 0, |out| out.extend_from_slice(&[1, 2, 3, 4]));
    assert_eq!(Message::decode(&frame).unwrap_err(), FrameError::BadBody);
}

proptest! {
    #[test]
    fn any_body_of_any_kind_is_read_or_refused(kind in 0u8..40, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = frame::sealed(kind, 0, &body);
        if let Ok((number, message)) = Message::decode(&frame) {
            prop_assert_eq!(number, 0);
            // What was read has one meaning: it reads back as itself.
            let again = message.encode(0);
            let (_, same) = Message::decode(&again).unwrap();
            prop_assert_eq!(same, message);
        }
    }
}

#[test]
fn who_steps_down_for_a_newer_reign_does_not_say_that_it_began_with_nothing() {
    let entry = |term, promoted| WireEntry { term, branch: 7, start: 1, last: 9, promoted };
    let says = |term, lineage: &[WireEntry], primary: &str| {
        let fenced = Fenced { term, lineage: lineage.to_vec(), primary: primary.to_owned() };
        fenced.reign_given_up().is_some()
    };
    assert!(says(16, &[entry(16, false)], ""));
    assert!(!says(33, &[entry(16, false)], ""), "it has heard of another reign");
    assert!(!says(16, &[entry(16, false)], "b"), "and of who reigns");
    assert!(!says(16, &[entry(16, true)], ""), "it was promoted");
    assert!(!says(33, &[entry(16, false), entry(33, false)], "") && !says(0, &[], ""));
}
