//! Warm restarts in a group: who resumes, who asks first, who waits; and that nothing old is ever answered.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, ManualClock, ReplicationConfig, Replicator, Role};

/// How often frames are carried.
const DELIVERY_MS: u64 = 10;
/// How long roles and links may take to settle.
const SETTLE_MS: u64 = 8_000;
const ITEMS: usize = 2_000;

struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    /// The nodes that live, by name.
    nodes: Vec<(&'static str, Cache, Replicator)>,
}

impl Group {
    fn new() -> Group {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        Group { clock, network, nodes: Vec::new() }
    }

    fn config(&self, replication: ReplicationConfig) -> Config {
        Config::new().memory_bytes_max(8 << 20).clock(self.clock.clone()).replication(replication)
    }

    fn start(&mut self, name: &'static str, replication: ReplicationConfig) -> Cache {
        let cache = Cache::new(self.config(replication)).unwrap();
        self.join(name, cache)
    }

    fn restore(&mut self, name: &'static str, replication: ReplicationConfig, image: &[u8]) -> Cache {
        let (cache, _) = Cache::restore_from(self.config(replication), image).unwrap();
        self.join(name, cache)
    }

    fn join(&mut self, name: &'static str, cache: Cache) -> Cache {
        let replicator = Replicator::new(&cache, self.network.transport(name)).unwrap();
        self.nodes.push((name, cache.clone(), replicator));
        cache
    }

    /// The node stops in order; gives its image.
    fn stop(&mut self, name: &str) -> Vec<u8> {
        let at = self.nodes.iter().position(|node| node.0 == name).unwrap();
        let (_, cache, mut replicator) = self.nodes.remove(at);
        replicator.say_goodbye(&mut Context::from_waker(Waker::noop()));
        drop(replicator);
        self.network.remove(name);
        let mut image = Vec::new();
        cache.save_to(&mut image).unwrap();
        image
    }

    fn carry(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for (_, _, replicator) in &mut self.nodes {
            replicator.poll(&mut cx);
        }
        self.network.deliver_all();
    }

    fn settle(&mut self) {
        for _ in 0..SETTLE_MS / DELIVERY_MS {
            self.clock.advance_ms(DELIVERY_MS);
            self.carry();
        }
    }
}

/// A primary `a` and its replica `b`, level, with items.
fn pair() -> (Group, Cache, Cache) {
    let mut group = Group::new();
    let primary = group.start("a", ReplicationConfig::primary());
    let replica = group.start("b", ReplicationConfig::replica_of("a"));
    for number in 0..ITEMS {
        primary.set(format!("k{number}"), "first", Expiry::Never).unwrap();
    }
    group.settle();
    assert_eq!(primary.status().seq, replica.status().seq);
    (group, primary, replica)
}

fn value(cache: &Cache, key: &str) -> Option<Vec<u8>> {
    cache.get(key).unwrap().map(|item| item.value.to_vec())
}

#[test]
fn replica_stays_attached_across_its_primarys_warm_restarts_without_a_full_copy() {
    let (mut group, primary, replica) = pair();
    let mut term = primary.status().term;
    for round in 1..=40_u64 {
        let image = group.stop("a");
        let primary = group.restore("a", ReplicationConfig::primary(), &image);
        assert!(primary.get("k1").is_err(), "before it has asked it serves nothing");
        group.settle();
        assert_eq!(primary.status().role, Role::Primary);
        assert!(primary.status().term > term);
        term = primary.status().term;
        primary.set("k1", round.to_string(), Expiry::Never).unwrap();
        group.settle();
        let status = replica.status();
        assert_eq!((status.installs, status.catch_ups), (1, round), "one full copy, at the very beginning");
        assert_eq!((status.seq, status.term), (primary.status().seq, term));
        assert_eq!(replica.inspect().items, primary.inspect().items);
    }
    replica.promote(true).unwrap();
    assert_eq!(replica.stats().items, ITEMS as u64);
}

#[test]
fn primary_whose_spare_was_promoted_meanwhile_follows_it_and_answers_nothing_old() {
    let (mut group, _, replica) = pair();
    let image = group.stop("a");
    replica.promote(false).unwrap();
    replica.set("k1", "second", Expiry::Never).unwrap();
    group.settle();
    let old = group.restore("a", ReplicationConfig::primary().replica_reads(true), &image);
    for _ in 0..SETTLE_MS / DELIVERY_MS {
        group.clock.advance_ms(DELIVERY_MS);
        group.carry();
        // A replica that answers reads may lag for the time of a frame; before it follows it answers nothing.
        let follows = old.status().seq == replica.status().seq;
        assert!(follows || old.get("k1").is_err() || old.status().role == Role::Replica);
        assert_ne!(old.status().role, Role::Primary);
    }
    assert_eq!((old.status().role, old.status().installs, old.status().catch_ups), (Role::Replica, 0, 1));
    assert_eq!(value(&old, "k1").unwrap(), b"second");
    assert_eq!(replica.status().role, Role::Primary);
}

#[test]
fn primary_that_was_ahead_of_the_promoted_spare_is_copied_anew() {
    let (mut group, primary, replica) = pair();
    group.network.remove("b");
    primary.set("k1", "never arrived", Expiry::Never).unwrap();
    let image = group.stop("a");
    replica.promote(true).unwrap();
    group.network.transport("b");
    let at = group.nodes.iter().position(|node| node.0 == "b").unwrap();
    group.nodes.remove(at);
    group.join("b", replica.clone());
    let old = group.restore("a", ReplicationConfig::primary().replica_reads(true), &image);
    group.settle();
    assert_eq!((old.status().role, old.status().installs), (Role::Replica, 1));
    assert_eq!(value(&old, "k1").unwrap(), b"first");
    assert_eq!(old.inspect().items, replica.inspect().items);
}

#[test]
fn replica_resumes_from_its_saved_position() {
    let (mut group, primary, replica) = pair();
    assert_eq!(replica.status().installs, 1);
    let image = group.stop("b");
    primary.set("k1", "second", Expiry::Never).unwrap();
    primary.delete("k2").unwrap();
    primary.flush_at(Expiry::At(u64::MAX >> 21)).unwrap();
    group.settle();
    let back = group.restore("b", ReplicationConfig::replica_of("a").replica_reads(true), &image);
    assert!(back.get("k1").is_err(), "what was overwritten meanwhile is not answered");
    group.settle();
    assert_eq!((back.status().installs, back.status().catch_ups), (0, 1));
    assert_eq!((value(&back, "k1").unwrap(), value(&back, "k2")), (b"second".to_vec(), None));
    assert_eq!(back.inspect().items, primary.inspect().items);
}

#[test]
fn with_peers_configured_nobody_reigns_until_somebody_is_promoted() {
    let (mut group, _, replica) = pair();
    let image = group.stop("a");
    let restored = group.restore("a", ReplicationConfig::primary().peer("b"), &image);
    group.settle();
    assert_eq!(restored.status().role, Role::Fenced);
    assert!(restored.get("k1").is_err());
    restored.promote(false).unwrap();
    group.settle();
    assert_eq!((replica.status().installs, replica.status().catch_ups), (1, 1));
    assert_eq!(value(&restored, "k1").unwrap(), b"first");
}

#[test]
fn primary_whose_spare_is_gone_reigns_on() {
    let (mut group, _, _) = pair();
    group.stop("b");
    let image = group.stop("a");
    let restored = group.restore("a", ReplicationConfig::primary(), &image);
    group.settle();
    assert_eq!(restored.status().role, Role::Primary);
    assert_eq!(value(&restored, "k1").unwrap(), b"first");
}
