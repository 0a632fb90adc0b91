//! Strict acknowledgements: what a primary answers within its lease, outside of it, and after a promotion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Acknowledgement, Cache, Clock, Config, Expiry, LeaseState, LoadPolicy, ManualClock,
    PromoteError, ReplicationConfig, Replicator, Role, Update, Updated, WriteError,
};

/// A clock that stands still while the machine sleeps, and one that goes on.
#[derive(Debug)]
struct SleepingClock {
    awake: Arc<ManualClock>,
    asleep_ms: AtomicU64,
}

impl Clock for SleepingClock {
    fn now_ms(&self) -> u64 {
        self.awake.now_ms()
    }

    fn lease_ms(&self) -> u64 {
        self.awake.now_ms() + self.asleep_ms.load(Ordering::Relaxed)
    }
}

struct Node {
    cache: Cache,
    replicator: Replicator,
    clock: Arc<SleepingClock>,
}

/// Nodes that name each other, the first of them the primary.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: Vec<Node>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Group {
    fn new(count: usize) -> Group {
        let mode = AckMode::Strict { replicas: count as u8 - 1 };
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mut group = Group { clock, network: MemoryNetwork::immediate(), nodes: Vec::new() };
        for (index, own) in NAMES.iter().enumerate().take(count) {
            let begins = match index {
                0 => ReplicationConfig::primary(),
                _ => ReplicationConfig::follower(),
            };
            let others = NAMES.iter().take(count).filter(|name| name != &own);
            let config = others.fold(begins, |config, name| config.peer(*name)).slot(index as u8);
            let config = config.ack(mode).replica_reads(true).random_seed(index as u64 + 1);
            let awake = group.clock.clone();
            let clock = Arc::new(SleepingClock { awake, asleep_ms: AtomicU64::new(0) });
            let config = Config::new().memory_bytes_max(32 << 20).clock(clock.clone()).replication(config);
            let cache = Cache::new(config).unwrap();
            let replicator = Replicator::new(&cache, group.network.transport(own)).unwrap();
            group.nodes.push(Node { cache, replicator, clock });
        }
        group.run(&[0, 1, 2][..count], 500);
        group
    }

    fn cache(&self, index: usize) -> Cache {
        self.nodes[index].cache.clone()
    }

    /// So many milliseconds, in which only some nodes get turns.
    fn run(&mut self, indices: &[usize], ms: u64) {
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for index in indices {
                self.nodes[*index].replicator.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    fn store(&mut self, index: usize, value: &str) {
        self.cache(index).set("k", value, Expiry::Never).unwrap();
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.run(&all, 50);
    }

    fn value(&self, index: usize) -> Option<Vec<u8>> {
        self.cache(index).get("k").unwrap().map(|item| item.value.to_vec())
    }

    fn lease(&self, index: usize) -> LeaseState {
        self.cache(index).status().lease.state
    }
}

#[test]
fn what_is_not_acknowledged_is_a_miss_or_is_read_with_a_token_to_wait_for() {
    let mut group = Group::new(2);
    let cache = group.cache(0);
    group.store(0, "old");
    let (old, token) = cache.track(|| cache.get("k"));
    assert!(old.unwrap().is_some() && token.is_none(), "what is acknowledged is waited for by nobody");
    cache.set("k", "new", Expiry::Never).unwrap();
    assert_eq!(group.value(0), None);
    let (new, token) = cache.track(|| cache.get("k"));
    assert_eq!(&new.unwrap().unwrap().value[..], b"new");
    let token = token.expect("it saw what is not acknowledged");
    assert_eq!(cache.acknowledged(token), Acknowledgement::Unknown { acked: 0 });
    // Neither does an operation tell, by failing, what is there.
    let (added, token_of_add) = cache.track(|| cache.add("k", "other", Expiry::Never));
    assert_eq!((added, token_of_add), (Ok(None), Some(token)));
    assert_eq!(cache.status().lease.unacked_misses, 1);
    group.run(&[0, 1], 20);
    assert_eq!(cache.acknowledged(token), Acknowledgement::Replicated { by: 1 });
    assert_eq!(group.value(0), Some(b"new".to_vec()));
}

#[test]
fn a_primary_whose_replicas_do_not_answer_misses_and_refuses_within_a_second() {
    let mut group = Group::new(3);
    let cache = group.cache(0);
    group.store(0, "v");
    assert_eq!(group.lease(0), LeaseState::Held);
    group.run(&[0, 1], 700);
    assert_eq!(group.value(0), Some(b"v".to_vec()), "c may have lost a frame");
    group.run(&[0, 1], 500);
    assert_eq!((group.value(0), group.lease(0)), (None, LeaseState::Over));
    let short = WriteError::NotEnoughReplicas { level: 1, needed: 2 };
    assert_eq!(cache.set("k", "w", Expiry::Never), Err(short));
    assert_eq!((cache.status().lease.misses, cache.status().lease.remaining_ms), (1, 0));
    group.run(&[0, 1, 2], 600);
    assert_eq!((group.value(0), group.lease(0)), (Some(b"v".to_vec()), LeaseState::Held));
}

#[test]
fn a_machine_that_was_suspended_wakes_outside_of_its_lease() {
    let mut group = Group::new(2);
    let cache = group.cache(0);
    group.store(0, "v");
    assert_eq!(group.value(0), Some(b"v".to_vec()));
    // Nothing but the clock that counts suspension has moved.
    group.nodes[0].clock.asleep_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(group.value(0), None);
    assert_eq!(cache.set("k", "w", Expiry::Never), Err(WriteError::NoLease));
    assert_eq!(cache.incr("k", 1).unwrap_err().to_string(), WriteError::NoLease.to_string());
    assert_eq!(cache.flush(), Err(WriteError::NoLease));
    group.run(&[0, 1], 300);
    assert_eq!(group.value(0), Some(b"v".to_vec()));
}

#[test]
fn a_load_without_a_lease_loads_and_stores_nothing() {
    let group = Group::new(2);
    let cache = group.cache(0);
    cache.set("k", "v", Expiry::Never).unwrap();
    let load = || cache.get_or_load("k", LoadPolicy::forever(), || Ok::<_, std::io::Error>("loaded"));
    assert_eq!(&load().unwrap()[..], b"v", "what was just stored is not loaded again");
    group.nodes[0].clock.asleep_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(&load().unwrap()[..], b"loaded");
}

#[test]
fn a_promoted_node_waits_for_the_lease_that_it_granted_and_a_pair_does_without_one_of_its_own() {
    let mut group = Group::new(2);
    group.store(0, "v");
    group.network.cut("a", "b");
    group.cache(1).promote(false).unwrap();
    assert_eq!((group.lease(1), group.value(1)), (LeaseState::Waiting, None));
    assert_eq!(group.value(0), Some(b"v".to_vec()), "the old primary does not know yet, and may answer");
    group.network.set_apart("a", "b", true);
    let mut answered_ms = 0;
    while group.value(1).is_none() {
        assert!(answered_ms < 2_000);
        group.run(&[0, 1], 5);
        answered_ms += 5;
        assert!(group.value(0).is_none() || group.value(1).is_none(), "one of the two at a time");
    }
    assert_eq!((group.lease(0), group.lease(1)), (LeaseState::Over, LeaseState::Unneeded));
    assert!(matches!(group.cache(1).set("k", "w", Expiry::Never), Err(WriteError::NotEnoughReplicas { .. })));
    group.network.set_apart("a", "b", false);
    group.run(&[0, 1], 1_500);
    assert_eq!((group.cache(0).status().role, group.lease(1)), (Role::Replica, LeaseState::Held));
    group.store(1, "w");
    assert_eq!(group.value(1), Some(b"w".to_vec()));
    // Now the replica may be promoted, so its primary can't do without it.
    group.run(&[1], 1_200);
    assert_eq!((group.lease(1), group.value(1)), (LeaseState::Over, None));
}

#[test]
fn in_a_larger_group_a_promoted_node_shows_nothing_before_others_have_it() {
    let mut group = Group::new(3);
    group.store(0, "v");
    group.network.remove("a");
    group.cache(1).promote(false).unwrap();
    group.run(&[1], 2_000);
    assert_eq!((group.lease(1), group.value(1)), (LeaseState::Over, None));
    group.cache(1).set_ack_mode(AckMode::Strict { replicas: 1 }).unwrap();
    group.run(&[1, 2], 1_500);
    assert_eq!((group.lease(1), group.value(1)), (LeaseState::Held, Some(b"v".to_vec())));
}

#[test]
fn a_node_that_another_one_replaced_is_not_promoted_unless_forced() {
    let mut group = Group::new(2);
    group.store(0, "v");
    group.cache(1).promote(false).unwrap();
    group.cache(0).follow("b", true).unwrap();
    assert!(matches!(group.cache(0).promote(false), Err(PromoteError::NotPromotable(_))));
    group.cache(0).promote(true).unwrap();
    assert_eq!((group.lease(0), group.value(0)), (LeaseState::Unneeded, Some(b"v".to_vec())));
}

#[test]
fn a_replica_that_takes_over_waits_for_no_lease() {
    let mut group = Group::new(2);
    group.store(0, "v");
    group.cache(0).begin_hand_over(std::time::Duration::from_millis(500)).unwrap();
    group.run(&[0, 1], 20);
    assert_eq!((group.cache(1).status().role, group.value(1)), (Role::Primary, Some(b"v".to_vec())));
}

#[test]
fn an_operation_that_writes_nothing_tells_nothing_when_the_machine_slept_behind_its_look() {
    for is_there in [true, false] {
        let mut group = Group::new(2);
        let cache = group.cache(0);
        if is_there {
            group.store(0, "v");
        }
        let clock = group.nodes[0].clock.clone();
        let sleep = || clock.asleep_ms.fetch_add(1_000, Ordering::Relaxed);
        let (kept, token) = cache.track(|| {
            cache.update("k", |item| {
                assert_eq!(item.is_some(), is_there);
                // The lease held when the operation began, and another node may have been promoted by now.
                sleep();
                Update::Keep
            })
        });
        assert_eq!(kept, Err(WriteError::NoLease), "an item: {is_there}, {token:?}");
        group.run(&[0, 1], 300);
        // What was written is done, and its answer waits for replicas, which follow this primary or do not acknowledge it.
        let stored = cache.update("k", |_| {
            sleep();
            Update::Replace("w".into())
        });
        assert!(matches!(stored, Ok(Updated::Stored(_))), "{stored:?}");
    }
}
