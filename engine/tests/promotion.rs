//! Promotions where a write waits for fewer replicas than there are: who is asked, what is caught up with, what is refused.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Acknowledgement, Cache, Config, Expiry, LeaseState, LinkState, ManualClock, PromoteError,
    ReplicationConfig, Replicator, Role,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes that name each other, the first of them the primary; a write waits for one of the others.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    mode: AckMode,
    nodes: Vec<(Cache, Replicator)>,
}

impl Group {
    fn new(mode: AckMode) -> Group {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::immediate());
        let mut group = Group { clock, network, mode, nodes: Vec::new() };
        for index in 0..NAMES.len() {
            let node = group.boot(index, index == 0);
            group.nodes.push(node);
        }
        group.run(&[0, 1, 2], 500);
        group
    }

    fn boot(&self, index: usize, is_first: bool) -> (Cache, Replicator) {
        let begins = if is_first { ReplicationConfig::primary() } else { ReplicationConfig::follower() };
        let others = NAMES.iter().filter(|name| **name != NAMES[index]);
        let config = others.fold(begins, |config, name| config.peer(*name));
        let config = config.slot(index as u8).ack(self.mode).random_seed(self.clock_ms() + index as u64);
        let config = Config::new().memory_bytes_max(32 << 20).clock(self.clock.clone()).replication(config);
        let cache = Cache::new(config).unwrap();
        let replicator = Replicator::new(&cache, self.network.transport(NAMES[index])).unwrap();
        (cache, replicator)
    }

    fn clock_ms(&self) -> u64 {
        hotspare::Clock::now_ms(&*self.clock)
    }

    fn cache(&self, index: usize) -> Cache {
        self.nodes[index].0.clone()
    }

    fn run(&mut self, indices: &[usize], ms: u64) {
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for index in indices {
                self.nodes[*index].1.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    /// Everything or nothing passes between two nodes.
    fn set_apart(&self, one: usize, other: usize, apart: bool) {
        self.network.set_apart(NAMES[one], NAMES[other], apart);
        self.network.cut(NAMES[one], NAMES[other]);
    }

    /// A write that is acknowledged by some of the nodes alone.
    fn write_with(&mut self, indices: &[usize], value: &str) {
        let cache = self.cache(0);
        let (stored, written) = cache.track(|| cache.set("k", value, Expiry::Never));
        stored.unwrap();
        self.run(indices, 20);
        let outcome = cache.acknowledged(written.unwrap());
        assert_eq!(outcome, Acknowledgement::Replicated { by: indices.len() as u8 - 1 });
    }

    fn value(&self, index: usize) -> Option<Vec<u8>> {
        self.cache(index).get("k").unwrap().map(|item| item.value.to_vec())
    }

    fn role(&self, index: usize) -> Role {
        self.cache(index).status().role
    }
}

const SEMI_SYNC: AckMode = AckMode::SemiSync { replicas: 1 };
const STRICT: AckMode = AckMode::Strict { replicas: 1 };

#[test]
fn a_promoted_node_first_gets_what_another_one_has_alone() {
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::new(mode);
        group.write_with(&[0, 1, 2], "old");
        // Only b hears of this; then the primary is gone.
        group.write_with(&[0, 1], "new");
        group.network.remove("a");
        assert_eq!(group.cache(2).begin_promotion(false), Ok(None), "it has to ask");
        assert_eq!(group.role(2), Role::Replica);
        group.run(&[1, 2], 2_500);
        assert_eq!(group.role(2), Role::Primary, "{mode}");
        assert_eq!(group.value(2), Some(b"new".to_vec()), "{mode}");
        assert_eq!((group.role(1), group.cache(2).status().level_replicas), (Role::Replica, 1));
    }
}

#[test]
fn too_few_answers_refuse_a_promotion_and_change_nothing() {
    let mut group = Group::new(SEMI_SYNC);
    group.write_with(&[0, 1, 2], "v");
    group.set_apart(2, 0, true);
    group.set_apart(2, 1, true);
    let cache = group.cache(2);
    assert_eq!(cache.begin_promotion(false), Ok(None));
    let before = cache.status().term;
    // Another thread drives the group, as a replicator's thread would, until the promotion is given up.
    let refused = std::thread::scope(|scope| {
        let asked = scope.spawn(|| cache.promote(false));
        while !asked.is_finished() {
            group.run(&[0, 1, 2], 5);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        asked.join().unwrap()
    });
    assert_eq!(refused, Err(PromoteError::NotEnoughPositions { answered: 1, needed: 2 }));
    assert!(refused.unwrap_err().to_string().contains("1 of 2 nodes"));
    assert_eq!((group.role(0), group.role(2), cache.status().term), (Role::Primary, Role::Replica, before));
    // And it goes on following as soon as it can.
    group.set_apart(2, 0, false);
    group.set_apart(2, 1, false);
    group.run(&[0, 1, 2], 5_000);
    assert_eq!(cache.status().link, LinkState::Streaming);
    // Force asks nobody.
    assert!(cache.promote(true).is_ok());
}

#[test]
fn an_old_primary_that_is_asked_reigns_no_longer() {
    let mut group = Group::new(SEMI_SYNC);
    group.write_with(&[0, 1], "new");
    group.set_apart(2, 1, true);
    assert_eq!(group.cache(2).begin_promotion(false), Ok(None));
    group.run(&[0, 2], 500);
    assert_eq!((group.role(0), group.role(2)), (Role::Replica, Role::Primary));
    assert_eq!(group.value(2), Some(b"new".to_vec()));
}

#[test]
fn a_node_that_forgot_what_it_promised_gives_an_old_primary_no_lease() {
    let mut group = Group::new(STRICT);
    group.write_with(&[0, 1, 2], "old");
    group.set_apart(0, 1, true);
    group.set_apart(0, 2, true);
    group.cache(2).begin_promotion(false).unwrap();
    group.run(&[0, 1, 2], 2_500);
    assert_eq!((group.role(0), group.role(2)), (Role::Primary, Role::Primary), "the old one has not heard");
    assert_eq!(group.cache(2).status().lease.state, LeaseState::Held);
    // The one that promised loses its memory, and finds the old primary only.
    group.network.remove("b");
    group.nodes[1] = group.boot(1, false);
    group.set_apart(0, 1, false);
    group.set_apart(1, 2, true);
    group.run(&[0, 1, 2], 3_000);
    let old = group.cache(0).status();
    assert_eq!((old.role, old.replicas.len()), (Role::Primary, 1));
    assert_eq!((old.level_replicas, old.lease.state, group.value(0)), (0, LeaseState::Over, None));
    // An operator who knows better says so.
    group.cache(0).set_ack_mode(STRICT).unwrap();
    group.run(&[0, 1], 1_000);
    assert_eq!(group.cache(0).status().lease.state, LeaseState::Held);
}

#[test]
fn a_replica_that_restarts_counts_once_another_has_followed_since() {
    let mut group = Group::new(STRICT);
    group.write_with(&[0, 1, 2], "v");
    group.network.remove("b");
    group.run(&[0, 2], 600);
    group.nodes[1] = group.boot(1, false);
    group.run(&[0, 1, 2], 1_500);
    assert_eq!(group.cache(0).status().level_replicas, 2);
    group.network.remove("c");
    group.run(&[0, 1], 1_500);
    group.write_with(&[0, 1], "w");
    assert_eq!(group.value(0), Some(b"w".to_vec()));
}
