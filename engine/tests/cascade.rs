//! Replicas of replicas: the same items at the same positions, whoever is promoted above them.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Cache, Config, Expiry, LinkState, ManualClock, Next, ReplicationConfig, Replicator, Role, Status,
};

const ITEMS: usize = 300;

/// Nodes in one thread; the first one begins as the primary.
struct Tree {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: Vec<(&'static str, Cache, Option<Replicator>)>,
    /// Takes what it is sent, and does nothing.
    hung: Option<&'static str>,
}

impl Tree {
    fn new() -> Tree {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mut tree = Tree { clock, network: MemoryNetwork::new(), nodes: Vec::new(), hung: None };
        tree.join("a", ReplicationConfig::primary());
        for number in 0..ITEMS {
            tree.set("a", &format!("key{number}"));
        }
        tree
    }

    fn join(&mut self, name: &'static str, replication: ReplicationConfig) {
        let replication = replication.slot(self.nodes.len() as u8).replica_reads(true);
        let config =
            Config::new().memory_bytes_max(8 << 20).clock(self.clock.clone()).replication(replication);
        let cache = Cache::new(config).unwrap();
        let replicator = Replicator::new(&cache, self.network.transport(name));
        self.nodes.push((name, cache, replicator));
    }

    /// A replica of `of`, replica or not.
    fn join_below(&mut self, name: &'static str, of: &str) {
        self.join(name, ReplicationConfig::replica_of(of).cascade());
        self.run_ms(2_000);
    }

    fn cache(&self, name: &str) -> &Cache {
        &self.nodes.iter().find(|node| node.0 == name).unwrap().1
    }

    fn status(&self, name: &str) -> Status {
        self.cache(name).status()
    }

    fn set(&self, on: &str, key: &str) {
        self.cache(on).set(key, key.repeat(3), Expiry::Never).unwrap();
    }

    fn kill(&mut self, name: &str) {
        self.network.remove(name);
        self.nodes.retain(|node| node.0 != name);
    }

    fn set_apart(&self, one: &str, other: &str, apart: bool) {
        self.network.set_apart(one, other, apart);
        self.network.cut(one, other);
    }

    fn run_ms(&mut self, ms: u64) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            let hung = self.hung;
            for (_, _, replicator) in self.nodes.iter_mut().filter(|node| Some(node.0) != hung) {
                replicator.iter_mut().for_each(|replicator| {
                    replicator.poll(&mut cx);
                });
            }
            self.network.deliver_all();
        }
    }

    fn assert_equal(&self) {
        let first = self.nodes[0].1.inspect();
        for (name, cache, _) in &self.nodes {
            let other = cache.inspect();
            assert_eq!(other.lineage, first.lineage, "{name}");
            assert_eq!(other.items.len(), first.items.len(), "{name}");
            assert!(other.items == first.items, "{name} holds other items");
            cache.check_invariants();
        }
    }
}

#[test]
fn four_links_below_the_primary_each_node_holds_the_same_and_a_fifth_is_refused_with_the_reason() {
    let mut tree = Tree::new();
    for (name, of) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d")] {
        tree.join_below(name, of);
    }
    tree.set("a", "late");
    tree.run_ms(100);
    tree.assert_equal();
    let depths: Vec<u8> = ["a", "b", "c", "d", "e"].map(|name| tree.status(name).depth).to_vec();
    assert_eq!(depths, [0, 1, 2, 3, 4]);
    assert_eq!(tree.status("a").replicas.len(), 1, "the primary ships once");
    assert_eq!(tree.status("e").primary.as_deref(), Some("a"), "whom a client should ask");
    assert_eq!(tree.status("e").promotable, Ok(()));

    tree.join_below("f", "e");
    let refused = tree.status("f");
    assert!(refused.last_error.as_ref().is_some_and(|why| why.contains("at most 4")), "{refused:?}");
    assert_eq!((refused.link, refused.installs), (LinkState::Connecting, 0));
}

#[test]
fn who_is_below_or_beside_a_promoted_replica_catches_up_and_is_not_copied_anew() {
    let mut tree = Tree::new();
    tree.join("b", ReplicationConfig::replica_of("a"));
    tree.join("sibling", ReplicationConfig::replica_of("a"));
    tree.run_ms(2_000);
    tree.join_below("c", "b");
    tree.join_below("d", "c");
    let copies = |tree: &Tree| ["sibling", "c", "d"].map(|name| tree.status(name).installs);
    let before = copies(&tree);
    assert_eq!((before, tree.status("d").depth), ([1, 2, 1], 3), "each its own, and c one that it sent");

    tree.kill("a");
    tree.cache("b").promote(false).unwrap();
    tree.set("b", "by the new primary");
    tree.run_ms(5_000);
    tree.assert_equal();
    assert_eq!(copies(&tree), before, "the log was enough");
    assert_eq!(
        (tree.status("c").depth, tree.status("d").depth),
        (1, 2),
        "they stay where they were told to be"
    );
    assert_eq!(tree.status("d").primary.as_deref(), Some("b"));

    // One at the end of a chain takes over, and those above it follow.
    tree.cache("d").promote(false).unwrap();
    tree.set("d", "by the last");
    tree.run_ms(20_000);
    tree.assert_equal();
    assert_eq!((tree.status("b").role, tree.status("d").role), (Role::Replica, Role::Primary));
    assert_eq!(copies(&tree), before);
}

#[test]
fn what_is_rolled_back_above_is_rolled_back_below() {
    let mut tree = Tree::new();
    tree.join("spare", ReplicationConfig::replica_of("a"));
    tree.join_below("b", "a");
    tree.join_below("c", "b");
    for name in ["a", "b", "c"] {
        tree.set_apart("spare", name, true);
    }
    for number in 0..50 {
        tree.set("a", &format!("alone{number}"));
    }
    tree.run_ms(100);
    assert!(tree.cache("c").get("alone7").unwrap().is_some());
    tree.cache("spare").promote(false).unwrap();
    tree.set("spare", "elsewhere");
    for name in ["a", "b", "c"] {
        tree.set_apart("spare", name, false);
    }
    tree.run_ms(20_000);
    tree.assert_equal();
    for name in ["a", "b", "c"] {
        assert!(tree.cache(name).get("alone7").unwrap().is_none(), "{name}");
        let status = tree.status(name);
        assert_eq!((status.link, status.promotable), (LinkState::Streaming, Ok(())), "{name}");
        assert!(status.roll_backs > 0, "{name} dropped what it had alone: {status:?}");
    }
    assert_eq!(tree.status("c").installs, 1, "and was not copied for it");
}

#[test]
fn replicas_that_are_told_to_follow_each_other_form_no_circle_and_find_the_primary() {
    let mut tree = Tree::new();
    tree.join("x", ReplicationConfig::replica_of("y").peer("a").cascade());
    tree.join("y", ReplicationConfig::replica_of("x").peer("a").cascade());
    tree.run_ms(9_000);
    let status = tree.status("x");
    assert_eq!(status.link, LinkState::Connecting, "each waits for the other");
    assert!(status.last_error.is_some_and(|why| why.contains("no primary")), "and says so");
    tree.run_ms(10_000);
    for name in ["x", "y"] {
        assert_eq!(tree.status(name).link, LinkState::Streaming, "{:?}", tree.status(name));
    }
    tree.assert_equal();

    // A node can't be put below its own replica either.
    tree.join_below("z", "y");
    assert_eq!(tree.status("z").link, LinkState::Streaming);
    tree.cache("y").follow("z", false).unwrap();
    tree.run_ms(3_000);
    let status = tree.status("y");
    let why = status.last_error.unwrap_or_default();
    assert!(why.contains("circle"), "{why}");
    tree.run_ms(20_000);
    tree.assert_equal();
    assert!(["x", "y", "z"].iter().all(|name| tree.status(name).link == LinkState::Streaming));
}

#[test]
fn a_replica_that_asks_for_nothing_special_is_sent_to_the_primary() {
    let mut tree = Tree::new();
    tree.join("b", ReplicationConfig::replica_of("a"));
    tree.run_ms(1_000);
    tree.join("c", ReplicationConfig::replica_of("b"));
    tree.run_ms(2_000);
    assert_eq!((tree.status("a").replicas.len(), tree.status("c").depth), (2, 1));
}

/// One that came up with nothing visits the primary to be counted, where promotions ask.
#[test]
fn a_primary_that_hangs_keeps_no_replicas_replica_from_its_parent() {
    let mut tree = Tree::new();
    tree.join("b", ReplicationConfig::replica_of("a"));
    tree.run_ms(1_000);
    tree.hung = Some("a");
    let mode = AckMode::SemiSync { replicas: 1 };
    tree.join("c", ReplicationConfig::replica_of("b").peer("a").ack(mode).cascade());
    tree.run_ms(200);
    for _ in 0..120 {
        tree.run_ms(10);
        let status = tree.status("c");
        assert_eq!((status.link, status.depth), (LinkState::Streaming, 2), "{status:?}");
    }
    tree.hung = None;
    let mut visits = 0;
    for _ in 0..200 {
        tree.run_ms(100);
        visits += u32::from(tree.status("c").depth == 1);
    }
    assert!(visits > 0, "it is counted once the primary answers");
    assert_eq!((tree.status("c").link, tree.status("c").depth), (LinkState::Streaming, 2));
}

#[test]
fn a_node_in_between_collects_nothing_while_clients_further_up_wait_for_its_acks() {
    for (mode, collects) in [(AckMode::Async, true), (AckMode::SemiSync { replicas: 1 }, false)] {
        let mut tree = Tree::new();
        tree.join_below("b", "a");
        tree.join_below("c", "b");
        // Each node's mode is its own.
        tree.cache("a").set_ack_mode(mode).unwrap();
        tree.run_ms(2_000);
        assert_eq!(tree.status("b").primary_ack_mode, Some(mode));
        let mut cx = Context::from_waker(Waker::noop());
        let mut has_collected = false;
        for number in 0..20 {
            tree.set("a", &format!("new{number}"));
            for _ in 0..8 {
                for (name, _, replicator) in &mut tree.nodes {
                    let next = replicator.as_mut().unwrap().poll(&mut cx);
                    has_collected |= *name == "b" && next == Next::Soon;
                }
                tree.network.deliver_all();
            }
        }
        assert_eq!(tree.status("c").seq, tree.status("a").seq, "all have all");
        assert_eq!(has_collected, collects, "{mode:?}");
    }
}
