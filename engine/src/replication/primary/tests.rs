//! Which plan a replica is given.

use super::*;
use crate::replication::hello::Purpose;
use crate::replication::loads::{ANSWERS_MAX, LoadRequest};
use crate::replication::message::{Ack, LoadAnswer, LoadVerdict};
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
        takes_apart: true,
        knows_loads: true,
        follows_evictions: true,
        forgot: false,
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

/// One item, and then none.
#[derive(Default)]
struct OneItem(bool);

impl InstallSource for OneItem {
    fn next_items(&mut self, _bytes_max: usize, _item_bytes_max: usize) -> Option<ItemsAt> {
        let item = crate::replication::install::Item {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            flags: 0,
            expires_at_ms: 0,
            marks: crate::mutation::Marks(0),
            version: crate::mutation::Version(1),
            client_cas: None,
        };
        (!std::mem::replace(&mut self.0, true)).then(|| ItemsAt {
            at_seq: 19,
            items: vec![item],
            ..ItemsAt::default()
        })
    }

    fn next_marked(&mut self, _hashes_max: usize) -> Option<Vec<u64>> {
        None
    }

    fn by_hash(&mut self, _hash: u64, _item_bytes_max: usize) -> Option<ItemsAt> {
        None
    }

    fn begin_copy(&mut self, _: bool) {
        self.0 = false;
    }

    fn end_copy(&mut self, _slot: u8) {}

    fn flushes(&self) -> crate::replication::install::Flushes {
        crate::replication::install::Flushes::default()
    }
}

const NOW: Now = Now { local_ms: 0, group_ms: 0, lease_ms: None };

/// A session with a replica of this kind over a link of that one, and what it says on each channel until nothing is left.
fn said(takes_apart: bool, caps: LinkCaps, hints: usize) -> [Vec<Bytes>; 3] {
    let log = Mutex::new(promoted(64 << 10, 4));
    let end = log.lock().last_seq();
    let position = if hints > 0 { log.lock().position() } else { None };
    let hello = Hello { takes_apart, position, lineage: log.lock().lineage().clone(), ..ahead(None) };
    let grant = Grant {
        node: 1,
        slot: 1,
        hash_seed: 0,
        frame_bytes_max: 1 << 20,
        peers: Vec::new(),
        caps,
        lends_loads: false,
        bugs: Bugs::default(),
    };
    let mut source = OneItem::default();
    let mut session = PrimarySession::new(&hello, &log, &mut source, grant, NOW);
    session.queue_hints(end, &vec![u64::MAX; hints]);
    for _ in 0..3 {
        // Behind the seq at which the item was read.
        log.lock().append(PUT);
    }
    let mut said = [const { Vec::new() }; 3];
    while let Some(frame) = session.poll_frame(&log, &mut source, &[], NOW).unwrap() {
        said[0].push(frame);
    }
    while let Some(frame) = session.poll_bulk(&mut source) {
        said[1].push(frame);
    }
    while let Some(frame) = session.poll_hint(&log, &mut source) {
        said[2].push(frame);
    }
    said
}

fn kinds(frames: &[Bytes]) -> Vec<u8> {
    frames.iter().map(|frame| frame[8]).collect()
}

#[test]
fn a_copy_goes_beside_the_log_only_where_link_and_replica_can() {
    use crate::replication::frame::Kind::*;
    let bulk = LinkCaps { bulk: true, hint_bytes_max: None };
    for (takes_apart, caps) in [(false, bulk), (true, LinkCaps::default()), (false, LinkCaps::default())] {
        let [live, bulk, _] = said(takes_apart, caps, 0);
        let chunk_at = kinds(&live).iter().position(|kind| *kind == Chunk as u8);
        assert!(chunk_at.is_some() && kinds(&live).contains(&(InstallEnd as u8)), "an older node's copy");
        assert!(!kinds(&live).contains(&(Apart as u8)) && bulk.is_empty(), "which knows no other");
    }
    let [live, bulk, _] = said(true, bulk, 0);
    assert_eq!(kinds(&live), [HelloOk as u8, InstallBegin as u8, Apart as u8, Heartbeat as u8, Append as u8]);
    assert_eq!(kinds(&bulk), [Apart as u8, Chunk as u8, InstallEnd as u8]);
    for frames in [live, bulk] {
        let numbers = frames.iter().map(|frame| frame[12]).collect::<Vec<u8>>();
        assert_eq!(numbers, (0..frames.len() as u8).collect::<Vec<u8>>(), "each channel has its own");
    }
}

#[test]
fn hints_go_as_datagrams_that_the_path_takes_else_with_the_log() {
    let hints = crate::replication::frame::Kind::Hints as u8;
    let wide = LinkCaps { bulk: true, hint_bytes_max: Some(1_200) };
    let [live, _, hinted] = said(true, wide, 1_000);
    assert!(!kinds(&live).contains(&hints) && kinds(&hinted) == [hints].repeat(9));
    assert!(hinted.iter().all(|frame| frame.len() <= 1_200), "the worst hashes fit");
    for caps in [LinkCaps::default(), LinkCaps { bulk: true, hint_bytes_max: Some(40) }] {
        let [live, _, hinted] = said(true, caps, 1_000);
        assert!(kinds(&live).contains(&hints) && hinted.is_empty(), "{caps:?}");
    }
}

/// A session with a replica that has had everything, and the log it reads.
fn streaming(lends_loads: bool, knows_loads: bool) -> (PrimarySession, Mutex<Log>) {
    let log = promoted(64 << 10, 10);
    let position = log.position();
    attached(&Hello { position, knows_loads, ..ahead(None) }, log, lends_loads)
}

fn attached(hello: &Hello, log: Log, lends_loads: bool) -> (PrimarySession, Mutex<Log>) {
    let grant = Grant {
        node: 1,
        slot: 0,
        hash_seed: 1,
        frame_bytes_max: 1 << 20,
        peers: Vec::new(),
        caps: LinkCaps::default(),
        lends_loads,
        bugs: Bugs::default(),
    };
    let log = Mutex::new(log);
    let now = Now { local_ms: 0, group_ms: 0, lease_ms: None };
    let mut session = PrimarySession::new(hello, &log, &mut NoItems, grant, now);
    session.numbers_mut().skip_one_in();
    (session, log)
}

struct NoItems;

impl InstallSource for NoItems {
    fn next_items(&mut self, _: usize, _: usize) -> Option<ItemsAt> {
        None
    }
    fn next_marked(&mut self, _: usize) -> Option<Vec<u64>> {
        None
    }
    fn by_hash(&mut self, _: u64, _: usize) -> Option<ItemsAt> {
        None
    }
    fn begin_copy(&mut self, _: bool) {}
    fn end_copy(&mut self, _: u8) {}
    fn flushes(&self) -> crate::replication::install::Flushes {
        crate::replication::install::Flushes::default()
    }
}

/// What the session says next, by kind.
fn told(session: &mut PrimarySession, log: &Mutex<Log>) -> Vec<String> {
    let now = Now { local_ms: 0, group_ms: 0, lease_ms: None };
    let frames = std::iter::from_fn(|| session.poll_frame(log, &mut NoItems, &[], now).unwrap());
    frames.map(|frame| format!("{:?}", Message::decode(&frame).unwrap().1)).collect()
}

#[test]
fn only_a_primary_may_be_asked_and_only_by_one_that_knows_how() {
    let now = Now { local_ms: 0, group_ms: 0, lease_ms: None };
    for (lends, knows) in [(true, true), (true, false), (false, true)] {
        let (mut session, log) = streaming(lends, knows);
        let is_open = told(&mut session, &log).iter().any(|frame| frame.contains("verdict: Open"));
        assert_eq!(is_open, lends && knows);
        let ask = LoadRequest::Ask(crate::replication::loads::Question {
            id: 1,
            key: b"k"[..].into(),
            lease_ms: 5,
            replaces: None,
            needs_value: true,
        });
        let LoadRequest::Ask(question) = &ask else { unreachable!() };
        let frame = Message::LoadAsk(question.as_message()).encode(1);
        let taken = session.handle_frame(&frame, now);
        assert_eq!(taken.is_ok(), lends && knows);
        assert_eq!(session.lending.take_request().as_ref(), is_open.then_some(&ask));
    }
}

#[test]
fn who_asks_on_without_taking_answers_is_cut_off() {
    let now = Now { local_ms: 0, group_ms: 0, lease_ms: None };
    let (mut session, _log) = streaming(true, true);
    let question = crate::replication::message::LoadAsk {
        id: 1,
        key: b"k",
        lease_ms: 5,
        replaces: None,
        needs_value: true,
    };
    let end = (1..10_000).find_map(|number| {
        let ended = session.handle_frame(&Message::LoadAsk(question).encode(number), now).err();
        if session.lending.take_request().is_some() {
            session.lending.answer(LoadAnswer { id: 1, verdict: LoadVerdict::Refused });
        }
        ended
    });
    assert_eq!(end, Some(SessionEnd::Unexpected("frame from a replica")));
    assert!(std::iter::from_fn(|| session.lending.next_answer()).count() <= ANSWERS_MAX);
}

#[test]
fn a_replica_that_does_not_know_the_records_of_loads_is_not_sent_any() {
    let mut log = promoted(64 << 10, 10);
    let before = log.position();
    log.append(&[7, 1, b'k']);
    log.append(PUT);
    let plan = |position, knows_loads| plan_for(&Hello { position, knows_loads, ..ahead(None) }, &log).0;
    assert_eq!((plan(before, true), plan(before, false)), (Plan::Resume, Plan::Install));
    assert_eq!(plan(log.position(), false), Plan::Resume, "they lie behind it");
}

#[test]
fn a_replica_that_is_being_copied_lacks_what_came_since_that_began_and_not_all_seqs_there_are() {
    let nothing_held = Hello { position: None, ..ahead(None) };
    let (session, log) = attached(&nothing_held, promoted(64 << 10, 10), false);
    assert_eq!((session.plan(), session.state()), (Plan::Install, LinkState::Installing));
    let began_at = log.lock().last_seq();
    assert_eq!((session.lag_seqs(began_at), session.lag_seqs(began_at + 3)), (0, 3));
    let held = Hello { position: log.lock().position(), ..ahead(None) };
    let (resumed, _) = attached(&held, promoted(64 << 10, 10), false);
    assert_eq!(resumed.lag_seqs(began_at + 3), 3, "and of one that goes on, what it does not hold");
}

/// It may have been copied by a replica that lacks what it had acknowledged itself.
#[test]
fn a_replica_that_forgot_may_count_once_it_has_all_that_was_written_before_it_attached() {
    let now = Now { local_ms: 0, group_ms: 0, lease_ms: None };
    let log = promoted(64 << 10, 10);
    let end = log.position().unwrap();
    let behind = Hello { position: Some(Position { seq: end.seq - 3, ..end }), forgot: true, ..ahead(None) };
    let (mut session, log) = attached(&behind, log, false);
    assert_eq!(session.plan(), Plan::Resume);
    told(&mut session, &log);
    for (number, seq) in [(1, end.seq - 1), (2, end.seq)] {
        assert!(!session.may_count(), "before {seq}");
        let ack = Message::Ack(Ack { applied: seq, received: seq, incarnation: 3 });
        session.handle_frame(&ack.encode(number), now).unwrap();
    }
    assert!(session.may_count() && session.holds().is_none());
    let (remembers, _) = attached(&Hello { forgot: false, ..behind }, promoted(64 << 10, 10), false);
    assert!(!remembers.may_count() && remembers.holds().is_some());
}

/// The log overtook it, so that it is copied anew: it drops what it had, and what it said of that may still be on its way.
#[test]
fn an_ack_of_what_a_replica_held_before_it_was_copied_anew_counts_for_nothing() {
    for late_behind_the_end in [false, true] {
        let log = promoted(4 << 10, 10);
        let position = log.position();
        let (mut session, log) = attached(&Hello { position, ..ahead(None) }, log, false);
        assert_eq!(session.plan(), Plan::Resume);
        session.set_hint_bytes_max(None);
        let said = |session: &mut PrimarySession| {
            session.poll_frame(&log, &mut NoItems, &[], NOW).unwrap().map(|frame| frame[8])
        };
        while said(&mut session).is_some() {}
        let held = position.unwrap().seq;
        let mut acks = [held, held + 1, held + 1_000].into_iter().zip(1..).map(|(applied, number)| {
            Message::Ack(Ack { applied, received: applied, incarnation: 3 }).encode(number)
        });
        for _ in 0..1_000 {
            log.lock().append(PUT);
        }
        assert_eq!(said(&mut session), Some(Kind::InstallBegin as u8));
        if !late_behind_the_end {
            session.handle_frame(&acks.next().unwrap(), NOW).unwrap();
        }
        assert!(std::iter::from_fn(|| said(&mut session)).any(|kind| kind == Kind::InstallEnd as u8));
        if late_behind_the_end {
            session.handle_frame(&acks.next().unwrap(), NOW).unwrap();
        }
        assert_eq!((session.applied(), session.holds().unwrap_or(0)), (0, 0), "{late_behind_the_end}");
        session.handle_frame(&acks.next().unwrap(), NOW).unwrap();
        assert_eq!(session.holds().unwrap_or(0), 0, "before the end of the copy");
        session.handle_frame(&acks.next().unwrap(), NOW).unwrap();
        assert_eq!(session.holds(), Some(held + 1_000));
    }
}
