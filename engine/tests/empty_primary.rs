//! A primary that lost its memory and comes up again as a primary, without certificates or a secret: nobody's items are
//! replaced or hidden by it, whoever meets whom first, and two never reign at once.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Cache, Config, Expiry, LinkState, ManualClock, PromoteError, ReplicationConfig, Replicator,
    Role, Warning, WriteError,
};

/// Nodes by their number here: the primary, its spare, and those that join late.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: Vec<Option<(Cache, Replicator)>>,
}

impl Group {
    /// A primary that was told of nobody, and its spare, which holds an item.
    fn with_spare() -> Group {
        let (clock, network) = (ManualClock::new(1_000_000), MemoryNetwork::immediate().without_proof());
        let mut group = Group { clock: Arc::new(clock), network, nodes: vec![None, None, None, None] };
        group.boot(0, ReplicationConfig::primary());
        group.boot(1, ReplicationConfig::replica_of("a"));
        group.run(100);
        group.cache(0).set("k", "v", Expiry::Never).unwrap();
        group.run(10_000);
        assert_eq!(group.items(1), 1);
        group
    }

    fn boot(&mut self, index: usize, config: ReplicationConfig) {
        self.boot_by(index as u8, index, config);
    }

    fn boot_by(&mut self, slot: u8, index: usize, config: ReplicationConfig) {
        self.network.remove(NAMES[index]);
        self.nodes[index] = None;
        let seed = hotspare::Clock::now_ms(&*self.clock) + index as u64;
        let config = config.slot(slot).random_seed(seed);
        let config = Config::new().memory_bytes_max(32 << 20).clock(self.clock.clone()).replication(config);
        let cache = Cache::new(config).unwrap();
        let replicator = Replicator::new(&cache, self.network.transport(NAMES[index])).unwrap();
        self.nodes[index] = Some((cache, replicator));
    }

    fn kill(&mut self, index: usize) {
        self.network.remove(NAMES[index]);
        self.nodes[index] = None;
    }

    fn cache(&self, index: usize) -> Cache {
        self.nodes[index].as_ref().unwrap().0.clone()
    }

    fn items(&self, index: usize) -> u64 {
        self.cache(index).stats().items
    }

    fn role(&self, index: usize) -> Role {
        self.cache(index).status().role
    }

    fn warns(&self, index: usize, of: impl Fn(&Warning) -> bool) -> bool {
        self.cache(index).status().warnings.iter().any(of)
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for (_, replicator) in self.nodes.iter_mut().flatten() {
                replicator.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    fn set_apart(&self, one: usize, other: usize, apart: bool) {
        self.network.set_apart(NAMES[one], NAMES[other], apart);
        self.network.cut(NAMES[one], NAMES[other]);
    }

    fn promote(&mut self, index: usize) -> Result<u32, PromoteError> {
        let cache = self.cache(index);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| cache.promote(false));
            while !asked.is_finished() {
                self.run(5);
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            asked.join().unwrap()
        })
    }

    /// The spare is promoted; then all others have what it has.
    fn ends_well(&mut self) {
        assert!(self.promote(1).is_ok());
        self.run(20_000);
        for index in (0..NAMES.len()).filter(|index| self.nodes[*index].is_some()) {
            let role = if index == 1 { Role::Primary } else { Role::Replica };
            let status = self.cache(index).status();
            assert_eq!((status.role, self.items(index)), (role, 1), "{}: {status:?}", NAMES[index]);
            assert!(status.warnings.iter().all(Warning::is_past), "{status:?}");
        }
    }
}

/// The old primary was killed and comes up again by its old command line; the spare finds it.
fn restarted() -> Group {
    let mut group = Group::with_spare();
    group.boot(0, ReplicationConfig::primary());
    group.run(2_000);
    assert_eq!((group.role(0), group.items(1)), (Role::Fenced, 1));
    group
}

#[test]
fn an_empty_primary_that_its_spare_has_fenced_is_not_promoted_over_it() {
    let mut group = restarted();
    let held = group.cache(1).status().seq;
    let warned = Warning::CameUpEmpty { address: "b".to_owned(), seq: held, listens: true };
    assert_eq!(group.cache(0).status().warnings, [warned]);
    assert!(group.warns(1, |warning| *warning == Warning::PrimaryForgot { address: "a".to_owned() }));
    assert!(group.cache(0).status().promotable.unwrap_err().contains("came up with nothing"));
    assert_eq!(group.promote(0), Err(PromoteError::PeerHolds { address: "b".to_owned(), seq: held }));
    // Nor while it can't be asked.
    group.set_apart(0, 1, true);
    assert_eq!(group.promote(0), Err(PromoteError::PeerHeld { address: "b".to_owned(), seq: held }));
    group.set_apart(0, 1, false);
    assert_eq!((group.role(0), group.role(1)), (Role::Fenced, Role::Replica));
    group.ends_well();
}

#[test]
fn a_spare_that_forgot_as_well_stands_in_nobodys_way() {
    let mut group = restarted();
    group.boot(1, ReplicationConfig::replica_of("a"));
    group.run(500);
    assert!(group.promote(0).is_ok());
    group.run(5_000);
    assert_eq!(group.cache(1).status().link, LinkState::Streaming);
}

#[test]
fn a_spare_that_is_gone_for_good_is_overruled_by_force() {
    let mut group = restarted();
    group.kill(1);
    assert!(matches!(group.promote(0), Err(PromoteError::PeerHeld { .. })));
    assert!(group.cache(0).promote(true).is_ok());
}

/// The old primary comes up empty, and an empty node finds it before the spare does.
fn joined_by_an_empty_one() -> Group {
    let mut group = Group::with_spare();
    group.set_apart(0, 1, true);
    group.boot(0, ReplicationConfig::primary());
    group.boot(2, ReplicationConfig::replica_of("a"));
    group.run(500);
    assert_eq!((group.role(0), group.cache(2).status().link), (Role::Primary, LinkState::Streaming));
    group
}

#[test]
fn a_spare_that_finds_its_empty_primary_second_fences_it_all_the_same() {
    let mut group = joined_by_an_empty_one();
    group.cache(0).set("other", "w", Expiry::Never).unwrap();
    group.set_apart(0, 1, false);
    group.run(2_000);
    assert_eq!((group.role(0), group.role(2), group.items(1)), (Role::Fenced, Role::Replica, 1));
    assert!(group.warns(1, |warning| matches!(warning, Warning::PrimaryForgot { .. })));
    for index in [0, 2] {
        assert!(group.cache(index).status().promotable.is_err());
        assert!(group.promote(index).is_err(), "{index}");
    }
    group.ends_well();
}

#[test]
fn who_was_copied_of_an_empty_primary_replaces_nobodys_items_when_it_is_promoted() {
    let mut group = joined_by_an_empty_one();
    group.set_apart(0, 1, false);
    group.run(2_000);
    // It can ask nobody, and so it reigns; but it has no right to what the spare holds.
    group.kill(0);
    group.set_apart(1, 2, true);
    assert!(group.promote(2).is_ok());
    group.set_apart(1, 2, false);
    group.cache(1).follow("c", false).unwrap();
    group.run(5_000);
    assert_eq!((group.role(2), group.role(1), group.items(1)), (Role::Primary, Role::Replica, 1));
    assert!(group.warns(1, |warning| matches!(warning, Warning::CopyRefused { .. })));
}

#[test]
fn a_spare_that_comes_when_its_primary_has_begun_anew_keeps_its_items_and_does_not_reign_beside_it() {
    let mut group = joined_by_an_empty_one();
    group.run(10_000);
    group.set_apart(0, 1, false);
    group.run(2_000);
    assert_eq!((group.role(0), group.role(1), group.items(1)), (Role::Primary, Role::Replica, 1));
    let refused = Warning::CopyRefused { address: "a".to_owned() };
    assert!(group.warns(1, |warning| *warning == refused));
    assert_eq!(group.promote(1), Err(PromoteError::Rival { address: "a".to_owned() }));
    assert_eq!((group.role(0), group.role(1)), (Role::Primary, Role::Replica));
    // Once that one is gone nothing speaks against it.
    group.kill(0);
    assert!(group.promote(1).is_ok());
    assert_eq!(group.items(1), 1);
}

#[test]
fn a_primary_that_knows_others_asks_them_before_it_takes_a_write() {
    let mut group = Group::with_spare();
    group.boot(0, ReplicationConfig::primary().peer("b"));
    let refused = group.cache(0).set("k", "w", Expiry::Never);
    assert!(matches!(refused, Err(WriteError::Replica { .. })), "{refused:?}");
    let held = group.cache(1).status().seq;
    group.run(3_000);
    assert_eq!((group.role(0), group.items(1)), (Role::Replica, 1), "what the spare holds is not given up");
    let warned = Warning::CameUpEmpty { address: "b".to_owned(), seq: held, listens: true };
    assert_eq!(group.cache(0).status().warnings, [warned]);
    assert_eq!(group.promote(0), Err(PromoteError::PeerHolds { address: "b".to_owned(), seq: held }));
    group.ends_well();
}

#[test]
fn a_primary_begins_its_group_once_nobody_whom_it_knows_holds_any_of_it() {
    for mode in [AckMode::Async, AckMode::SemiSync { replicas: 1 }, AckMode::Strict { replicas: 1 }] {
        let mut group = Group::with_spare();
        // One is empty, and the other can't be reached.
        group.boot(1, ReplicationConfig::replica_of("a").ack(mode));
        group.boot(0, ReplicationConfig::primary().ack(mode).peer("b").peer("c"));
        group.run(500);
        if mode == AckMode::Async {
            assert_eq!(group.role(0), Role::Primary);
            let untold = Warning::Untold { addresses: vec!["c".to_owned()] };
            assert_eq!(group.cache(0).status().warnings, [untold], "it has not heard of that one");
        } else {
            group.run(5_000);
            assert_eq!(group.role(0), Role::Replica, "{mode}: that one may hold what was acknowledged");
        }
        group.boot(2, ReplicationConfig::replica_of("a").ack(mode));
        group.run(4_000);
        let (primary, spare) = (group.cache(0).status(), group.cache(1).status());
        assert_eq!((spare.link, primary.level_replicas), (LinkState::Streaming, 2), "{mode}");
        assert!(primary.warnings.is_empty(), "{:?}", primary.warnings);
        assert_eq!(group.cache(0).set("k", "w", Expiry::Never).map(|_| ()), Ok(()), "{mode}");
    }
}

#[test]
fn where_replicas_acknowledge_one_that_answers_late_and_holds_items_is_not_passed_over() {
    let mode = AckMode::SemiSync { replicas: 1 };
    let mut group = Group::with_spare();
    group.set_apart(0, 1, true);
    group.boot(0, ReplicationConfig::primary().ack(mode).peer("b").peer("c"));
    group.boot(2, ReplicationConfig::replica_of("a").ack(mode));
    group.run(10_000);
    assert_eq!(group.role(0), Role::Replica);
    group.set_apart(0, 1, false);
    group.run(2_000);
    assert!(
        group.warns(0, |warning| matches!(warning, Warning::CameUpEmpty { address, .. } if address == "b"))
    );
    assert_eq!((group.role(0), group.items(1)), (Role::Replica, 1));
}

#[test]
fn a_primary_that_has_settled_yields_to_nobody_though_whoever_joined_it_is_gone() {
    let mut group = joined_by_an_empty_one();
    group.cache(0).set("other", "w", Expiry::Never).unwrap();
    group.kill(2);
    group.run(10_000);
    group.set_apart(0, 1, false);
    group.run(2_000);
    assert_eq!((group.role(0), group.items(0), group.items(1)), (Role::Primary, 1, 1));
}

#[test]
fn what_came_of_an_empty_primary_is_in_doubt_all_the_way_down_a_chain() {
    // In time, or when they ask next.
    for is_there in [true, false] {
        let mut group = joined_by_an_empty_one();
        group.cache(0).set("other", "w", Expiry::Never).unwrap();
        group.boot(3, ReplicationConfig::replica_of("c").cascade());
        group.run(500);
        let status = group.cache(3).status();
        assert_eq!((status.depth, status.promotable, group.items(3)), (2, Ok(()), 1));
        if !is_there {
            group.network.remove("d");
            group.set_apart(2, 3, true);
        }
        group.set_apart(0, 1, false);
        group.run(1_000);
        assert_eq!(group.role(0), Role::Fenced);
        group.set_apart(2, 3, false);
        group.run(4_000);
        let why = group.cache(3).status().promotable.unwrap_err();
        assert!(why.contains("came up with nothing"), "{is_there}: {why}");
        assert!(group.promote(3).is_err());
    }
}

/// The fenced primary names its spare as the primary, and the spare names that one.
#[test]
fn nodes_that_name_each_other_as_the_primary_are_asked_once_a_round() {
    let mut group = Group::with_spare();
    group.kill(0);
    group.boot(2, ReplicationConfig::replica_of("a"));
    group.run(2_000);
    group.boot(0, ReplicationConfig::primary());
    group.run(5_000);
    assert_eq!(group.role(0), Role::Fenced);
    let (mut answers, mut last) = (0, None);
    for _ in 0..2_000 {
        group.run(5);
        let heard = group.cache(2).status().last_error;
        answers += u32::from(heard != last);
        last = heard;
    }
    // A round a second, of three nodes at most.
    assert!((1..=33).contains(&answers), "{answers} answers in ten seconds");
    group.ends_well();
}

#[test]
fn a_spare_that_dies_is_no_old_primary_that_may_still_reign() {
    let mut group = Group::with_spare();
    group.kill(1);
    group.run(5_000);
    assert_eq!((group.role(0), group.cache(0).status().warnings), (Role::Primary, vec![]));
    // It comes back knowing nobody, and hears who reigns.
    group.boot(1, ReplicationConfig::follower());
    group.run(5_000);
    assert_eq!((group.role(0), group.role(1), group.items(1)), (Role::Primary, Role::Replica, 1));
}

/// The spare reigns, and the old primary is gone.
fn failed_over() -> Group {
    let mut group = Group::with_spare();
    group.kill(0);
    group.run(5_000);
    assert!(group.promote(1).is_ok());
    group.run(1_000);
    group
}

/// It was fenced, and refused for its slot; what the operator mends has it come up as a primary once more.
#[test]
fn an_old_primary_that_heard_who_reigns_and_could_not_follow_hears_it_again_when_it_comes_up_anew() {
    let mut group = failed_over();
    group.boot_by(1, 0, ReplicationConfig::primary());
    group.run(5_000);
    let status = group.cache(0).status();
    assert!(status.role == Role::Fenced && status.link == LinkState::Connecting, "{status:?}");
    group.boot(0, ReplicationConfig::primary());
    group.run(5_000);
    assert_eq!((group.role(0), group.items(0)), (Role::Replica, 1));
}

/// A primary sees no link of a replica's replica end.
#[test]
fn an_old_primary_that_followed_through_another_replica_hears_who_reigns_when_it_comes_up_anew() {
    let mut group = failed_over();
    group.boot(2, ReplicationConfig::replica_of("b"));
    group.run(2_000);
    group.boot(0, ReplicationConfig::replica_of("c").cascade());
    group.run(5_000);
    assert_eq!((group.cache(0).status().depth, group.items(0)), (2, 1));
    let links = group.cache(0).status().catch_ups + group.cache(0).status().installs;
    group.run(20_000);
    let status = group.cache(0).status();
    assert_eq!((status.depth, status.catch_ups + status.installs), (2, links), "it is left in peace");
    group.boot(0, ReplicationConfig::primary());
    group.run(5_000);
    assert_eq!((group.role(0), group.items(0)), (Role::Replica, 1));
}

#[test]
fn a_primary_that_began_alone_yields_to_one_that_it_could_not_ask_and_that_never_heard_of_it() {
    let mut group = Group::with_spare();
    group.kill(0);
    assert!(group.promote(1).is_ok());
    group.set_apart(1, 2, true);
    group.boot(2, ReplicationConfig::primary().peer("b"));
    group.run(3_000);
    assert_eq!((group.role(1), group.role(2)), (Role::Primary, Role::Primary));
    group.set_apart(1, 2, false);
    group.run(5_000);
    assert_eq!((group.role(1), group.role(2), group.items(2)), (Role::Primary, Role::Replica, 1));
}

/// The term that a founder begins with says nothing but its slot.
#[test]
fn items_of_an_image_are_not_wiped_though_nothing_was_written_since() {
    let mut group = Group::with_spare();
    // The primary begins anew with what another cache had, and its spare as well: nothing is written since.
    let mut image = Vec::new();
    let clock = group.clock.clone();
    let config = Config::new().memory_bytes_max(32 << 20).clock(clock);
    let alone = Cache::new(config.clone()).unwrap();
    alone.set("k", "v", Expiry::Never).unwrap();
    alone.save_to(&mut image).unwrap();
    group.kill(0);
    group.kill(1);
    let config = config.replication(ReplicationConfig::primary().slot(0).random_seed(77));
    let (cache, restored) = Cache::restore_from(config, image.as_slice()).unwrap();
    assert_eq!(restored.items, 1);
    let replicator = Replicator::new(&cache, group.network.transport(NAMES[0])).unwrap();
    group.nodes[0] = Some((cache, replicator));
    group.boot(1, ReplicationConfig::replica_of("a"));
    group.run(1000);
    assert_eq!((group.items(0), group.items(1)), (1, 1));
    group.boot(0, ReplicationConfig::primary());
    group.run(20_000);
    assert_eq!(group.items(1), 1, "{:?}", group.cache(1).status());
}

#[test]
fn a_founder_of_a_higher_slot_yields_to_a_spare_that_can_prove_nothing() {
    let mut group = Group::with_spare();
    group.boot_by(7, 0, ReplicationConfig::primary());
    group.run(5_000);
    assert_eq!((group.role(0), group.role(1), group.items(1)), (Role::Fenced, Role::Replica, 1));
    assert!(
        group.warns(0, |warning| matches!(warning, Warning::CameUpEmpty { address, .. } if address == "b"))
    );
    group.ends_well();
}

/// Each was asked by the other, and answered that it holds nothing, before either reigned.
#[test]
fn of_two_founders_that_come_up_at_once_one_follows_the_other() {
    let mut group = Group::with_spare();
    group.kill(0);
    group.kill(1);
    group.boot(0, ReplicationConfig::primary().peer("b"));
    group.boot(1, ReplicationConfig::primary().peer("a"));
    group.run(5_000);
    let roles = [group.role(0), group.role(1)];
    let primary = roles.iter().position(|role| *role == Role::Primary).unwrap();
    assert_eq!(roles[1 - primary], Role::Replica);
    assert_eq!(group.cache(1 - primary).status().link, LinkState::Streaming);
    group.cache(primary).set("new", "v", Expiry::Never).unwrap();
    group.run(100);
    assert_eq!(group.items(1 - primary), 1);
}

#[test]
fn a_primary_that_is_named_its_own_other_address_waits_for_no_answer_from_there() {
    for mode in [AckMode::SemiSync { replicas: 1 }, AckMode::Strict { replicas: 1 }] {
        let mut group = Group::with_spare();
        group.boot(1, ReplicationConfig::replica_of("a").ack(mode));
        let named = ReplicationConfig::primary().ack(mode).advertised("a.other").peer("a").peer("b");
        group.boot(0, named);
        group.run(5_000);
        let status = group.cache(0).status();
        assert_eq!((status.role, status.level_replicas), (Role::Primary, 1), "{mode}: {status:?}");
        assert_eq!(group.cache(0).set("k", "w", Expiry::Never).map(|_| ()), Ok(()), "{mode}");
    }
}

#[test]
fn a_spare_that_is_named_its_own_other_address_is_promoted_without_an_answer_from_there() {
    let mode = AckMode::SemiSync { replicas: 1 };
    let mut group = Group::with_spare();
    group.boot(1, ReplicationConfig::replica_of("a").ack(mode).advertised("b.other").peer("b"));
    group.boot(0, ReplicationConfig::primary().ack(mode).peer("b"));
    group.run(5_000);
    group.kill(0);
    group.run(5_000);
    assert!(group.promote(1).is_ok());
}
