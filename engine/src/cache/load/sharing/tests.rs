//! What a primary makes of peers that ask and tell whatever they like.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::replication::loads::LoadRequest;
use crate::{Cache, Config, Expiry, ManualClock, ReplicationConfig};

const PEER: u128 = 77;

struct Primary {
    cache: Cache,
    clock: Arc<ManualClock>,
}

impl Primary {
    fn new() -> Primary {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let config = Config::new().memory_bytes_max(8 << 20).item_bytes_max(64 << 10).clock(clock.clone());
        let cache = Cache::new(config.replication(ReplicationConfig::primary())).unwrap();
        Primary { cache, clock }
    }

    fn group(&self) -> &Group {
        self.cache.inner.group.as_ref().unwrap()
    }

    fn ask(&self, node: u128, key: &str, lease_ms: u64) -> Lent {
        let question =
            Question { id: 1, key: key.as_bytes().into(), lease_ms, replaces: None, needs_value: true };
        self.cache.inner.lend_load(self.group(), node, &question)
    }

    fn grant(&self, node: u128, key: &str) -> Version {
        match self.ask(node, key, 5_000) {
            Lent::Granted { lease, .. } => lease,
            other => panic!("{other:?}"),
        }
    }

    fn hand_in(&self, node: u128, lease: Version, key: &str, value_bytes: usize) {
        let value = vec![b'v'; value_bytes].into();
        let yielded = Yield::Value { value, flags: 0, expires_at_ms: 0 };
        self.cache.inner.take_load(self.group(), node, lease, key.as_bytes(), &yielded);
    }

    fn holds(&self, key: &str) -> bool {
        self.cache.get(key).unwrap().is_some()
    }

    fn leases(&self) -> usize {
        self.cache.inner.shards.iter().map(|cell| cell.lock().load_leases.len()).sum()
    }

    fn is_under_way(&self) -> bool {
        self.cache.inner.flights_under_way.load(Ordering::SeqCst) > 0
    }
}

#[test]
fn what_is_told_without_a_lease_or_by_another_nodes_is_not_stored_and_logs_nothing() {
    let primary = Primary::new();
    let lease = primary.grant(PEER, "k");
    let before = primary.cache.status();
    for (node, lease, key) in [
        (PEER + 1, lease, "k"),
        (PEER, Version(lease.0 + 1), "k"),
        (PEER, Version(0), "k"),
        (PEER, lease, "other"),
        (PEER, lease, ""),
    ] {
        primary.hand_in(node, lease, key, 10);
    }
    let after = primary.cache.status();
    assert_eq!((after.seq, after.loads_refused), (before.seq, 5));
    assert!(!primary.holds("k") && !primary.holds("other"));
    primary.hand_in(PEER, lease, "k", 10);
    assert!(primary.holds("k") && !primary.is_under_way());
    primary.cache.delete("k").unwrap();
    primary.hand_in(PEER, lease, "k", 10);
    assert!(!primary.holds("k"), "a lease is good for once");
}

#[test]
fn a_lease_is_one_nodes_until_it_is_over() {
    let primary = Primary::new();
    let first = primary.grant(PEER, "k");
    assert_eq!(primary.ask(PEER + 1, "k", 9_000), Lent::Held { until_ms: 1_005_000 });
    let second = primary.grant(PEER, "k");
    primary.hand_in(PEER, first, "k", 10);
    assert!(second > first && !primary.holds("k"), "it asked again: what it loaded before is over");
    primary.clock.advance_ms(5_000);
    primary.hand_in(PEER, second, "k", 10);
    assert!(!primary.holds("k"), "it came too late");
    let third = primary.grant(PEER + 1, "k");
    primary.cache.flush().unwrap();
    assert!(matches!(primary.ask(PEER, "k", 1), Lent::Granted { .. }), "a flush ends it");
    primary.hand_in(PEER + 1, third, "k", 10);
    assert!(!primary.holds("k"));
    primary.cache.set("k", "v", Expiry::Never).unwrap();
    assert!(matches!(primary.ask(PEER, "k", 1), Lent::Present { .. }));
}

#[test]
fn what_is_too_large_is_not_stored_and_ends_the_lease() {
    let primary = Primary::new();
    let lease = primary.grant(PEER, "k");
    primary.hand_in(PEER, lease, "k", 100 << 10);
    assert!(!primary.holds("k") && primary.leases() == 0);
    primary.grant(PEER + 1, "k");
}

#[test]
fn a_peer_that_asks_for_everything_fills_the_table_and_no_more() {
    let primary = Primary::new();
    let mut refused = 0;
    for number in 0..20_000_u64 {
        // However long it wants it.
        refused += u64::from(primary.ask(PEER, &format!("key{number}"), u64::MAX) == Lent::Refused);
    }
    let bytes_max = super::super::leases::LEASES_BYTES_MAX;
    assert!(refused > 10_000 && primary.leases() * 128 <= bytes_max, "{refused} refused");
    let load = || Ok::<_, std::io::Error>("v");
    for key in ["fresh", "fresher"] {
        primary.cache.get_or_load(key, Duration::from_secs(9), load).unwrap();
        assert!(primary.holds(key), "it loads without one");
    }
    primary.clock.advance_ms(LEASE_MS_MAX);
    primary.cache.inner.forget_load_leases();
    assert_eq!((primary.leases(), primary.is_under_way()), (0, false), "for ten minutes at most");
}

#[test]
fn no_record_of_a_load_is_logged_while_somebody_reads_who_does_not_know_it() {
    let primary = Primary::new();
    let lease = primary.grant(PEER, "k");
    primary.group().log.lock().has_old_reader = true;
    let before = primary.cache.status().seq;
    assert_eq!(primary.ask(PEER, "other", 1_000), Lent::Refused);
    primary.cache.inner.end_loads(primary.group(), |_| true);
    assert_eq!(primary.cache.status().seq, before);
    primary.hand_in(PEER, lease, "k", 10);
    assert!(primary.holds("k"), "what was stored by it is an ordinary record");
}

#[test]
fn the_table_goes_with_a_roll_back_and_a_new_history() {
    let primary = Primary::new();
    let group = primary.group();
    let kept = primary.grant(PEER, "kept");
    let to = group.log.lock().position().unwrap();
    primary.grant(PEER, "k");
    primary.cache.inner.roll_back(group, to).unwrap();
    let cell = |key: &str| primary.cache.inner.cell(primary.cache.inner.hasher.hash(key.as_bytes())).lock();
    assert!(cell("k").load_leases.get(b"k").is_none());
    assert_eq!(cell("kept").load_leases.get(b"kept").map(|lease| lease.version), Some(kept));
    for cell in &primary.cache.inner.shards {
        primary.cache.inner.forget_loads(&mut cell.lock());
    }
    assert!(primary.leases() == 0 && !primary.is_under_way());
}

/// One that streams from a primary which may be asked, without a driver.
fn replica() -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let config = Config::new().memory_bytes_max(8 << 20).clock(clock.clone());
    let replication = ReplicationConfig::replica_of("a").replica_reads(true);
    let cache = Cache::new(config.replication(replication)).unwrap();
    let group = cache.inner.group.as_ref().unwrap();
    group.desk.set_standing(group, false, crate::LinkState::Streaming, 0);
    group.desk.open(0);
    (cache, clock)
}

#[test]
fn flights_that_waited_for_the_group_leave_the_table_with_the_last_who_wanted_them() {
    let (replica, clock) = replica();
    let group = replica.inner.group.as_ref().unwrap();
    let flights = || replica.inner.shards.iter().map(|cell| cell.lock().flights.len()).sum::<usize>();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for number in 0..300 {
        let key = format!("key{number}");
        let load = async { Ok::<_, std::io::Error>("v") };
        let mut caller = Box::pin(replica.get_or_load_async(&key, Duration::from_secs(9), load));
        assert!(caller.as_mut().poll(&mut cx).is_pending() && flights() == 1, "{key}");
        let sent = || group.desk.next_message(|_| ()).is_some();
        match number % 4 {
            // Given up before anything came, with the question asked or not.
            0 => {}
            1 => assert!(sent()),
            // What others load ended, and its time was over.
            2 => {
                let hash = replica.inner.hasher.hash(key.as_bytes());
                replica.inner.note_lease_end(&mut replica.inner.cell(hash).lock(), key.as_bytes());
            }
            _ => {
                clock.advance_ms(super::super::desk::ANSWER_WITHIN_MS);
                group.desk.expire(group, replica.inner.local_now_ms());
            }
        }
        drop(caller);
        assert_eq!(flights(), 0, "{key}");
        assert!(!sent(), "nobody asks for what nobody wants");
    }
    assert_eq!(replica.inner.flights_under_way.load(Ordering::SeqCst), 0);
}

#[test]
fn a_right_to_load_that_comes_when_nobody_wants_it_is_given_back() {
    let (replica, _) = replica();
    let group = replica.inner.group.as_ref().unwrap();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let load = async { Ok::<_, std::io::Error>("v") };
    let mut caller = Box::pin(replica.get_or_load_async("k", Duration::from_secs(9), load));
    assert!(caller.as_mut().poll(&mut cx).is_pending());
    let asked = group.desk.next_message(|message| match message {
        crate::replication::message::Message::LoadAsk(ask) => ask.id,
        _ => panic!("no question"),
    });
    drop(caller);
    let verdict = LoadVerdict::Granted { lease: 7, until_ms: 1_005_000 };
    replica.inner.load_answered(group, LoadAnswer { id: asked.unwrap(), verdict });
    let back = group.desk.next_message(|message| match message {
        crate::replication::message::Message::LoadDone(done) => (done.lease, done.key.to_vec()),
        _ => panic!("no lease"),
    });
    assert_eq!(back, Some((7, b"k".to_vec())));
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let question =
        Question { id: 7, key: b"k"[..].into(), lease_ms: 9, replaces: Some(3), needs_value: false };
    assert_eq!(LoadRequest::ask(&question.as_message()), LoadRequest::Ask(question));
    let yields = [
        Yield::Value { value: "v".into(), flags: 1, expires_at_ms: 2 },
        Yield::Absence { expires_at_ms: 5 },
        Yield::Nothing,
    ];
    for yielded in yields {
        let done =
            crate::replication::message::LoadDone { lease: 4, key: b"k", loaded: yielded.as_message() };
        let expected = LoadRequest::Done { lease: 4, key: b"k"[..].into(), yielded: yielded.clone() };
        assert_eq!(LoadRequest::done(&done), expected);
    }
}
