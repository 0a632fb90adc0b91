//! Promotions that ask others first: where a write waits for fewer replicas than there are, and of a node that holds nothing.
//! Who is asked, what is caught up with, what is refused.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Acknowledgement, Cache, Config, Expiry, LeaseState, LinkState, ManualClock, PromoteError,
    ReplicationConfig, Replicator, Role, Warning,
};

/// The last one joins no group by itself.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NODES: usize = 3;

/// Three nodes that name each other, the first of them the primary; a write waits for one of the others.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    mode: AckMode,
    /// Nodes that are named and never there.
    absent: &'static [&'static str],
    nodes: Vec<(Cache, Replicator)>,
}

impl Group {
    fn new(mode: AckMode) -> Group {
        Group::with_absent(mode, &[])
    }

    fn with_absent(mode: AckMode, absent: &'static [&'static str]) -> Group {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::immediate());
        let mut group = Group { clock, network, mode, absent, nodes: Vec::new() };
        for index in 0..NODES {
            let node = group.boot(index, index == 0);
            group.nodes.push(node);
        }
        // They are there while the group is begun, and say that they hold nothing.
        let others = Config::new().replication(ReplicationConfig::follower());
        let replicator =
            |name| Replicator::new(&Cache::new(others.clone()).unwrap(), group.network.transport(name));
        let mut others: Vec<_> = absent.iter().map(|name| replicator(*name).unwrap()).collect();
        for _ in 0..10 {
            group.run(&[0, 1, 2], 5);
            others.iter_mut().for_each(|other| {
                other.poll(&mut Context::from_waker(Waker::noop()));
            });
        }
        absent.iter().for_each(|name| group.network.remove(name));
        group.run(&[0, 1, 2], 500);
        group
    }

    fn boot(&self, index: usize, is_first: bool) -> (Cache, Replicator) {
        self.boot_as(
            index,
            if is_first { ReplicationConfig::primary() } else { ReplicationConfig::follower() },
        )
    }

    fn boot_as(&self, index: usize, begins: ReplicationConfig) -> (Cache, Replicator) {
        let others = NAMES[..NODES].iter().chain(self.absent).filter(|name| **name != NAMES[index]);
        let config = others.fold(begins, |config, name| config.peer(*name));
        let config = config.slot(index as u8).ack(self.mode).random_seed(self.clock_ms() + index as u64);
        let config = Config::new().memory_bytes_max(32 << 20).clock(self.clock.clone()).replication(config);
        let cache = Cache::new(config).unwrap();
        let replicator = Replicator::new(&cache, self.network.transport(NAMES[index])).unwrap();
        (cache, replicator)
    }

    /// A node loses its memory, and comes back as a follower.
    fn forget(&mut self, index: usize) -> Cache {
        self.network.remove(NAMES[index]);
        self.nodes[index] = self.boot(index, false);
        self.cache(index)
    }

    /// What comes of a promotion that asks others, with these nodes driven meanwhile; and after how many milliseconds of the
    /// group's own the node reigned, if it does.
    fn promote(&mut self, index: usize, driven: &[usize]) -> (Result<u32, PromoteError>, Option<u64>) {
        let (cache, begun) = (self.cache(index), self.clock_ms());
        if let Err(why) = cache.begin_promotion(false) {
            return (Err(why), None);
        }
        let mut reigned = None;
        let outcome = std::thread::scope(|scope| {
            let asked = scope.spawn(|| cache.promote(false));
            while !asked.is_finished() {
                let reigns = self.role(index) == Role::Primary;
                reigned = reigned.or(reigns.then(|| self.clock_ms() - begun));
                self.run(driven, 5);
                // The other thread looks once a millisecond.
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            asked.join().unwrap()
        });
        let reigns = self.role(index) == Role::Primary;
        (outcome, reigned.or(reigns.then(|| self.clock_ms() - begun)))
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
    let (refused, _) = group.promote(2, &[0, 1, 2]);
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
fn a_promotion_that_nobody_promises_leaves_all_as_it_was() {
    let mut group = Group::new(SEMI_SYNC);
    group.write_with(&[0, 1, 2], "v");
    let (term, cache) = (group.cache(0).status().term, group.cache(2));
    group.set_apart(2, 0, true);
    cache.begin_promotion(false).unwrap();
    while cache.status().term == term {
        group.run(&[1, 2], 5);
    }
    // The other one has answered, and hears no more.
    group.set_apart(2, 1, true);
    group.run(&[0, 1, 2], 2_500);
    group.set_apart(2, 0, false);
    group.run(&[0, 1, 2], 3_000);
    assert_eq!((group.role(0), cache.status().term), (Role::Primary, term));
    assert_eq!((cache.status().link, cache.status().primary.as_deref()), (LinkState::Streaming, Some("a")));
    assert_eq!(group.cache(0).status().level_replicas, 2);
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

#[test]
fn a_node_that_holds_nothing_is_not_promoted_beside_one_that_does() {
    for mode in [AckMode::Async, AckMode::SemiSync { replicas: 2 }, SEMI_SYNC, STRICT] {
        let mut group = Group::new(mode);
        group.write_with(&[0, 1, 2], "v");
        let held = group.cache(1).status().seq;
        group.network.remove("a");
        let empty = group.forget(2);
        let (refused, _) = group.promote(2, &[1, 2]);
        assert_eq!(refused, Err(PromoteError::PeerHolds { address: "b".to_owned(), seq: held }), "{mode}");
        assert!(refused.unwrap_err().to_string().contains("b does, up to seq"));
        assert_eq!((group.role(1), group.role(2), empty.status().term), (Role::Replica, Role::Replica, 0));
        if mode.replicas() == 1 {
            // The one that holds them can't know that it has all of them.
            continue;
        }
        // It is promoted as ever, and the empty one is copied from it.
        assert!(group.promote(1, &[1, 2]).0.is_ok(), "{mode}");
        group.run(&[1, 2], 3_000);
        assert_eq!((empty.status().link, empty.stats().items), (LinkState::Streaming, 1), "{mode}");
    }
}

#[test]
fn a_node_that_holds_part_of_a_copy_is_not_promoted_beside_one_that_holds_all() {
    let mut group = Group::new(AckMode::Async);
    for number in 0..20_000 {
        group.cache(0).set(format!("key{number}"), [1; 500], Expiry::Never).unwrap();
    }
    group.run(&[0, 1], 500);
    let partial = group.forget(2);
    while partial.stats().items == 0 {
        group.run(&[0, 1, 2], 5);
    }
    // At once: nobody is driven meanwhile, so the copy does not get on.
    let refused = partial.begin_promotion(false);
    assert_eq!(refused, Err(PromoteError::NotPromotable("in the middle of a full copy")));
    group.network.remove("a");
    group.run(&[1, 2], 100);
    let held = group.cache(1).status().seq;
    let (refused, _) = group.promote(2, &[1, 2]);
    assert_eq!(refused, Err(PromoteError::PeerHolds { address: "b".to_owned(), seq: held }));
    // Alone it reigns with what it has.
    group.network.remove("b");
    assert!(group.promote(2, &[2]).0.is_ok());
    assert!(partial.stats().items > 0);
}

#[test]
fn where_nobody_holds_anything_a_plain_promotion_works_at_once() {
    let mut group = Group::new(AckMode::Async);
    (0..3).for_each(|index| drop(group.forget(index)));
    let (promoted, ms) = group.promote(1, &[0, 1, 2]);
    assert!(promoted.is_ok() && ms.is_some_and(|ms| ms < 200), "{promoted:?} in {ms:?} ms");
    group.run(&[0, 1, 2], 2_000);
    assert_eq!(group.cache(1).status().level_replicas, 2);
    // Nobody is there at all, or nobody answers.
    group.network.remove("b");
    let _ = (group.forget(0), group.forget(2));
    let (promoted, ms) = group.promote(0, &[0]);
    assert!(
        promoted.is_ok() && ms.is_some_and(|ms| (100..=1_200).contains(&ms)),
        "{promoted:?} in {ms:?} ms"
    );
}

/// Two of three nodes, the second of which was promoted with nothing while it could not reach the first, which holds an item.
fn promoted_apart() -> Group {
    let mut group = Group::new(AckMode::Async);
    group.write_with(&[0], "v");
    group.network.remove("c");
    group.forget(1);
    group.set_apart(0, 1, true);
    assert!(group.promote(1, &[0, 1]).0.is_ok());
    group.cache(1).set("other", "w", Expiry::Never).unwrap();
    group.set_apart(0, 1, false);
    group.run(&[0, 1], 5_000);
    group
}

#[test]
fn a_node_promoted_with_nothing_never_empties_others_that_come_back() {
    let mut group = promoted_apart();
    // Its term is the higher one, so it reigns; but what the other holds stays there.
    let old = group.cache(0);
    assert_eq!((group.role(0), group.role(1), old.stats().items), (Role::Fenced, Role::Primary, 1));
    assert!(old.status().warnings.contains(&Warning::CopyRefused { address: "b".to_owned() }), "{old:?}");
    let held_more = Warning::HeldMore { address: "a".to_owned(), seqs: 1 };
    assert!(group.cache(1).status().warnings.contains(&held_more), "{:?}", group.cache(1).status());
    assert!(group.promote(0, &[0, 1]).0.is_ok());
    group.run(&[0, 1], 5_000);
    assert_eq!((group.role(0), group.role(1)), (Role::Primary, Role::Replica));
    assert_eq!(group.cache(1).stats().items, 1, "it was copied anew");
    assert_eq!(group.value(0), Some(b"v".to_vec()));
}

#[test]
fn force_has_a_node_promoted_with_nothing_replace_what_others_hold() {
    let mut group = promoted_apart();
    let before = group.cache(1).status().term;
    let term = group.cache(1).promote(true).unwrap();
    assert!(term > before);
    group.run(&[0, 1], 70_000);
    assert_eq!((group.role(0), group.role(1)), (Role::Replica, Role::Primary));
    assert_eq!((group.cache(0).stats().items, group.value(1)), (1, None));
    assert_eq!(group.cache(1).promote(true), Ok(term), "once is enough");
}

#[test]
fn who_is_promoted_says_which_writes_another_node_had_alone_and_whom_it_could_not_tell() {
    let mut group = Group::new(AckMode::Async);
    group.write_with(&[0, 1, 2], "old");
    group.set_apart(0, 2, true);
    for value in ["new", "newer"] {
        group.cache(0).set("k", value, Expiry::Never).unwrap();
        group.run(&[0, 1], 20);
    }
    group.network.remove("a");
    group.cache(2).promote(false).unwrap();
    group.run(&[1, 2], 1_000);
    let warnings = group.cache(2).status().warnings;
    let held_more = Warning::HeldMore { address: "b".to_owned(), seqs: 2 };
    assert_eq!(warnings, [Warning::Untold { addresses: vec!["a".to_owned()] }, held_more]);
    assert_eq!(group.cache(1).status().warnings, [], "it has gone back, and follows");
}

#[test]
fn a_primary_that_is_told_to_follow_goes_on_unless_it_is_forced() {
    let mut group = Group::new(AckMode::Async);
    let term = group.cache(0).status().term;
    for (address, refusal) in [
        ("a", PromoteError::OwnAddress),
        ("b", PromoteError::Reigns { term, replicas: 2 }),
        ("", PromoteError::BadAddress),
    ] {
        assert_eq!(group.cache(0).follow(address, false), Err(refusal));
    }
    assert_eq!(group.cache(0).follow("a", true), Err(PromoteError::OwnAddress), "there is nobody to follow");
    assert_eq!(group.cache(1).follow("b", false), Err(PromoteError::OwnAddress));
    group.write_with(&[0, 1, 2], "v");
    group.cache(0).follow("b", true).unwrap();
    assert_eq!(group.role(0), Role::Fenced);
    // One that has begun empty, and that nobody uses yet, may be told where it belongs.
    let bare = ReplicationConfig::primary().slot(5);
    let bare = Cache::new(Config::new().memory_bytes_max(16 << 20).replication(bare)).unwrap();
    assert_eq!(bare.follow("b", false), Ok(()));
}

#[test]
fn a_hand_over_asks_the_others_too_so_one_that_promised_somebody_else_meanwhile_is_not_overruled() {
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::new(mode);
        group.write_with(&[0, 1, 2], "old");
        // b lags a bit, so the role is offered to c, which is slow to take it.
        group.network.set_blocked("a", "b", true);
        group.write_with(&[0, 2], "newer");
        group.cache(0).begin_hand_over(std::time::Duration::from_millis(500)).unwrap();
        group.run(&[0], 20);
        assert!(group.role(0) != Role::Primary && group.role(2) == Role::Replica, "{mode}");
        group.network.set_blocked("a", "b", false);
        // Meanwhile b is promoted, with a's promise, and acknowledges a write; c does not hear of it.
        group.network.set_blocked("b", "c", true);
        let (promoted, _) = group.promote(1, &[0, 1]);
        promoted.unwrap();
        group.run(&[0, 1], 2_500);
        let cache = group.cache(1);
        let (stored, written) = cache.track(|| cache.set("k", "newest", Expiry::Never));
        stored.unwrap();
        group.run(&[0, 1], 20);
        assert_eq!(cache.acknowledged(written.unwrap()), Acknowledgement::Replicated { by: 1 }, "{mode}");
        // Now c reads what it was told.
        group.run(&[0, 1, 2], 500);
        group.network.set_blocked("b", "c", false);
        group.run(&[0, 1, 2], 6_000);
        let primary = (0..3).find(|index| group.role(*index) == Role::Primary).unwrap();
        assert_eq!(group.value(primary), Some(b"newest".to_vec()), "{mode}: {} reigns", NAMES[primary]);
    }
}

#[test]
fn a_hand_over_in_a_group_with_more_nodes_than_acks_loses_nothing_and_needs_as_many_as_would_have_to_answer()
{
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::with_absent(mode, &["d"]);
        group.write_with(&[0, 1, 2], "v");
        // Of four nodes two are left: the one that took over would ask in vain, and nobody would reign.
        group.network.remove("c");
        group.run(&[0, 1], 2_500);
        group.cache(0).begin_hand_over(std::time::Duration::from_millis(100)).unwrap();
        group.run(&[0, 1], 300);
        assert_eq!((group.role(0), group.role(1)), (Role::Primary, Role::Replica), "{mode}");
        group.write_with(&[0, 1], "w");
        group.forget(2);
        group.run(&[0, 1, 2], 3_000);
        group.cache(0).begin_hand_over(std::time::Duration::from_millis(500)).unwrap();
        group.run(&[0, 1, 2], 1_000);
        let primary = (1..3).find(|index| group.role(*index) == Role::Primary).expect("it was handed over");
        group.run(&[0, 1, 2], 2_000);
        assert_eq!(group.value(primary), Some(b"w".to_vec()), "{mode}");
    }
}

#[test]
fn a_replica_that_is_told_to_follow_a_dead_address_says_so_until_somebody_answers_there() {
    let mut group = Group::new(AckMode::Async);
    group.network.remove("c");
    let unheard = Warning::NotFound { address: "c".to_owned() };
    group.cache(1).follow("c", false).unwrap();
    group.run(&[0, 1], 2_000);
    let status = group.cache(1).status();
    assert_eq!(
        (status.link, status.primary.as_deref()),
        (LinkState::Streaming, Some("a")),
        "it goes on at the primary"
    );
    assert!(status.warnings.contains(&unheard), "{status:?}");
    // It is back, as a replica: that is an answer.
    group.forget(2);
    group.cache(1).follow("c", false).unwrap();
    group.run(&[0, 1, 2], 2_000);
    let status = group.cache(1).status();
    assert_eq!((status.link, status.warnings), (LinkState::Streaming, Vec::new()));
}

/// The order of things that lost what was acknowledged: a node acknowledges, forgets, and is copied by a replica that lacks it.
#[test]
fn a_node_that_forgot_and_was_copied_by_a_stale_replica_is_no_position() {
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::new(mode);
        group.write_with(&[0, 1, 2], "old");
        // b takes its link for a living one for two seconds, and hears nothing.
        group.network.set_blocked("a", "b", true);
        group.write_with(&[0, 2], "new");
        group.network.remove("c");
        group.nodes[2] = group.boot_as(2, ReplicationConfig::replica_of("b").cascade());
        group.run(&[1, 2], 400);
        let status = group.cache(2).status();
        assert_eq!((status.depth, status.installs), (2, 1), "a replica's replica");
        group.network.remove("a");
        let (refused, _) = group.promote(1, &[1, 2]);
        assert_eq!(refused, Err(PromoteError::NotEnoughPositions { answered: 1, needed: 2 }), "{mode}");
    }
}

#[test]
fn a_node_that_forgot_its_promise_is_not_counted_when_it_attaches_a_second_time() {
    let mut group = Group::new(SEMI_SYNC);
    group.write_with(&[0, 1, 2], "old");
    group.set_apart(0, 1, true);
    group.set_apart(0, 2, true);
    group.promote(1, &[1, 2]).0.unwrap();
    // c has promised b to follow it, and forgets that; then it finds the old primary.
    group.set_apart(1, 2, true);
    group.set_apart(0, 2, false);
    group.forget(2);
    group.run(&[0, 2], 1_000);
    assert_eq!(group.cache(2).status().link, LinkState::Streaming);
    group.network.cut("a", "c");
    group.run(&[0, 2], 1_000);
    let status = group.cache(0).status();
    assert_eq!(
        (status.replicas.len(), status.level_replicas),
        (1, 0),
        "it knows the term, but not what it promised"
    );
}

#[test]
fn the_last_of_a_chain_is_counted_by_its_primary_and_goes_back_to_its_parent() {
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::new(mode);
        for (index, parent) in [(1, "a"), (2, "b")] {
            group.network.remove(NAMES[index]);
            group.nodes[index] = group.boot_as(index, ReplicationConfig::replica_of(parent).cascade());
            group.run(&[0, 1, 2], 3_000);
        }
        let status = group.cache(2).status();
        assert_eq!((status.depth, status.link, status.installs), (2, LinkState::Streaming, 1), "{mode}");
        assert!(status.catch_ups >= 2, "it was at the primary, and is back: {status:?}");
        group.write_with(&[0, 1], "new");
        group.run(&[0, 1, 2], 500);
        assert_eq!(group.cache(0).status().replicas.len(), 1);
        group.network.remove("a");
        group.promote(1, &[1, 2]).0.unwrap();
    }
}

/// Of four nodes three have to promise. One of them crashes before the last is asked; by the leases of that one the old primary
/// counts it again, and has it acknowledge a write.
#[test]
fn a_promise_that_is_forgotten_before_the_last_one_is_made_counts_for_nothing() {
    for mode in [SEMI_SYNC, STRICT] {
        let mut group = Group::with_absent(mode, &["d"]);
        let last = group.boot(3, false);
        group.nodes.push(last);
        group.run(&[0, 1, 2, 3], 1_500);
        group.write_with(&[0, 1, 2, 3], "old");
        group.set_apart(0, 1, true);
        let term = group.cache(1).status().term;
        assert_eq!(group.cache(1).begin_promotion(false), Ok(None));
        group.run(&[1], 5);
        while group.cache(1).status().term == term {
            group.run(&[2, 3, 1], 5);
        }
        group.network.set_blocked("b", "d", true);
        group.set_apart(0, 2, true);
        group.run(&[1, 2, 1], 5);
        assert!(group.cache(2).status().term > term, "it has promised");
        group.set_apart(1, 2, true);
        group.forget(2);
        group.set_apart(0, 2, false);
        group.run(&[0, 2, 3], 700);
        group.write_with(&[0, 2], "new");
        group.network.remove("a");
        group.set_apart(1, 2, false);
        group.network.set_blocked("b", "d", false);
        group.network.deliver_all();
        group.run(&[1, 2, 3], 1_000);
        assert_eq!(group.role(1), Role::Primary, "{mode}");
        group.run(&[1, 2, 3], 2_000);
        assert_eq!(group.value(1), Some(b"new".to_vec()), "{mode}");
    }
}
