//! A node that can do nothing sleeps: whoever polls it when it says so does not turn in circles.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::{Channel, MemoryNetwork};
use hotspare::{AckMode, Cache, Config, Expiry, LinkState, ManualClock, Next, ReplicationConfig, Replicator};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Nodes on a network in memory that holds 64 frames of each link, and on one clock.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: Vec<(Cache, Replicator)>,
}

impl Group {
    /// A primary and its replicas, attached.
    fn new(nodes: usize, ack: AckMode) -> Group {
        Group::on(MemoryNetwork::new(), nodes, ack)
    }

    fn on(network: MemoryNetwork, nodes: usize, ack: AckMode) -> Group {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let boot = |index: usize| {
            let begins = match index {
                0 => ReplicationConfig::primary(),
                _ => ReplicationConfig::follower(),
            };
            let others = NAMES[..nodes].iter().filter(|name| **name != NAMES[index]);
            let config = others.fold(begins, |config, name| config.peer(*name));
            let config = config.slot(index as u8).random_seed(index as u64 + 1).ack(ack).replica_reads(true);
            let config =
                Config::new().memory_bytes_max(8 << 20).clock(clock.clone()).hash_seed(1).replication(config);
            let cache = Cache::new(config).unwrap();
            let replicator = Replicator::new(&cache, network.transport(NAMES[index])).unwrap();
            (cache, replicator)
        };
        let mut group = Group { nodes: (0..nodes).map(boot).collect(), clock: clock.clone(), network };
        for _ in 0..200 {
            for index in 0..nodes {
                group.poll(index);
            }
            group.network.deliver_all();
            group.clock.advance_ms(20);
        }
        assert_eq!(group.nodes[0].0.status().replicas.len(), nodes - 1, "all are attached");
        group
    }

    fn poll(&mut self, index: usize) -> Next {
        self.nodes[index].1.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls a node until it rests: whether it may linger then.
    fn rests_and_may_linger(&mut self, index: usize) -> bool {
        let rests = (0..64).any(|_| matches!(self.poll(index), Next::At(_)));
        assert!(rests, "it comes to rest");
        self.nodes[index].1.may_linger()
    }

    /// Gives the primary something, and the network's links what it ships.
    fn set_and_ship(&mut self) {
        self.nodes[0].0.set("k", "v", Expiry::Never).unwrap();
        self.poll(0);
        self.network.deliver_all();
    }

    /// Polls a node for so long, as often as it says; how often that was.
    fn turns_within(&mut self, index: usize, ms: u64) -> u64 {
        let (cache, begun_ms) = (self.nodes[index].0.clone(), self.nodes[index].0.local_now_ms());
        let mut turns = 0;
        loop {
            let passed_ms = cache.local_now_ms() - begun_ms;
            if passed_ms >= ms || turns >= 10_000 {
                return turns;
            }
            turns += 1;
            let sleeps_ms = match self.poll(index) {
                Next::At(moment) => moment.saturating_sub(cache.local_now_ms()).min(ms - passed_ms),
                Next::Soon => u64::from(turns % 2 == 0),
                Next::Now => 0,
            };
            self.clock.advance_ms(sleeps_ms);
        }
    }
}

#[test]
fn a_primary_whose_replica_takes_nothing_more_sleeps_and_gives_it_up_in_time() {
    let mut group = Group::new(2, AckMode::Async);
    let cache = group.nodes[0].0.clone();
    // The replica is stopped, and what its link holds fills up.
    for _ in 0..100 {
        cache.set("k", "v", Expiry::Never).unwrap();
        group.poll(0);
    }
    let turns = group.turns_within(0, 1_500);
    assert!(turns <= 500, "{turns} turns in 1.5 s");
    assert_eq!(cache.status().replicas.len(), 1, "it may come back yet");
    let turns = group.turns_within(0, 1_000);
    assert!(turns <= 500, "{turns} turns in 1 s");
    assert_eq!(cache.status().replicas.len(), 0, "it was silent for 2 s");
}

#[test]
fn a_node_that_asks_before_its_promotion_sleeps_between_its_turns() {
    // Of two others one acknowledges, so a promotion asks.
    let mut group = Group::new(3, AckMode::SemiSync { replicas: 1 });
    let replica = group.nodes[1].0.clone();
    // The two others hang. It looks for its primary again, which lets it wait for an answer.
    while replica.status().link == LinkState::Streaming {
        group.clock.advance_ms(50);
        group.poll(1);
    }
    group.turns_within(1, 1_500);
    assert!(matches!(replica.begin_promotion(false), Ok(None)), "it asks");
    let turns = group.turns_within(1, 1_900);
    assert!(turns <= 500, "{turns} turns in 1.9 s");
    group.turns_within(1, 200);
    assert_eq!(replica.status().link, LinkState::Connecting);
}

#[test]
fn a_replica_whose_primary_takes_nothing_for_a_moment_sleeps_and_keeps_its_link() {
    let mut group = Group::new(2, AckMode::Async);
    let (primary, replica) = (group.nodes[0].0.clone(), group.nodes[1].0.clone());
    let attached = |primary: &Cache| primary.status().installs + primary.status().catch_ups;
    let before = attached(&primary);
    // The primary reads nothing, and what the link holds of the replica's acks fills up; then it is stopped.
    group.network.set_blocked("b", "a", true);
    for _ in 0..100 {
        primary.set("k", "v", Expiry::Never).unwrap();
        group.poll(0);
        group.network.deliver_all();
        group.poll(1);
    }
    let turns = group.turns_within(1, 1_500);
    assert!(turns <= 500, "{turns} turns in 1.5 s");
    assert_eq!(replica.status().link, LinkState::Streaming, "it was silent for 1.5 s");
    group.network.set_blocked("b", "a", false);
    for _ in 0..100 {
        group.network.deliver_all();
        (0..2).for_each(|index| _ = group.poll(index));
        group.clock.advance_ms(10);
    }
    assert_eq!((attached(&primary), primary.status().replicas.len()), (before, 1), "the link is the same");
    assert_eq!(primary.status().replicas[0].lag_seqs, 0);

    let turns = group.turns_within(1, 2_050);
    assert!(turns <= 500, "{turns} turns in 2 s");
    assert_eq!(replica.status().link, LinkState::Connecting, "it was silent for 2 s");
}

#[test]
fn a_primary_that_sweeps_marks_while_its_replica_takes_no_hints_sleeps() {
    let mut group = Group::on(MemoryNetwork::new().with_channels_apart(), 2, AckMode::Async);
    let (primary, replica) = (group.nodes[0].0.clone(), group.nodes[1].0.clone());
    for number in 0..30_000_u32 {
        primary.set(number.to_le_bytes(), "v", Expiry::Never).unwrap();
    }
    let carry = |group: &mut Group, turns: usize| {
        for _ in 0..turns {
            (0..2).for_each(|index| _ = group.poll(index));
            for (link, from, _, frames) in group.network.in_flight() {
                (0..frames).for_each(|_| _ = group.network.deliver_on(link, &from, Channel::Live));
            }
            group.clock.advance_ms(5);
        }
    };
    carry(&mut group, 200);
    group.network.cut("a", "b");
    group.poll(0);
    (0..30_000_u32).for_each(|number| assert!(primary.get(number.to_le_bytes()).unwrap().is_some()));
    carry(&mut group, 100);
    assert_eq!((replica.status().link, replica.status().catch_ups), (LinkState::Streaming, 1));
    let turns = group.turns_within(0, 1_500);
    assert!(turns <= 500, "{turns} turns in 1.5 s");
}

/// A primary was given values, and its replica has applied them: whether that one may linger.
fn may_linger_behind_sets(ack: AckMode, sets: usize) -> (Group, bool) {
    let mut group = Group::new(2, ack);
    group.clock.advance_ms(20);
    group.poll(1);
    assert!(!group.nodes[1].1.may_linger(), "nothing has come");
    let cache = group.nodes[0].0.clone();
    for _ in 0..sets {
        cache.set("k", vec![1; 8 << 10], Expiry::Never).unwrap();
    }
    for _ in 0..8 {
        group.poll(0);
    }
    group.network.deliver_all();
    let may_linger = group.rests_and_may_linger(1);
    assert_eq!(group.nodes[1].0.status().seq, cache.status().seq, "it has applied them");
    (group, may_linger)
}

#[test]
fn a_replica_lingers_where_it_pays() {
    let (mut group, may_linger) = may_linger_behind_sets(AckMode::Async, 1);
    assert!(may_linger, "its primary's system need not wake it");
    for _ in 0..20 {
        group.set_and_ship();
        assert!(group.rests_and_may_linger(1), "each rest brought something");
    }
    assert!(!group.rests_and_may_linger(1), "nothing has come");
    let lingers = (0..100).filter(|_| {
        // Each piece comes behind a rest in which none came.
        group.set_and_ship();
        let lingers = group.rests_and_may_linger(1);
        assert!(!group.rests_and_may_linger(1));
        lingers
    });
    assert_eq!(lingers.count(), 11, "pieces are rare: one in nine is waited for in vain");
}

#[test]
fn a_replica_that_catches_up_must_not_linger() {
    let (_, may_linger) = may_linger_behind_sets(AckMode::Async, 64);
    assert!(!may_linger, "its primary waits for room on the link");
}

#[test]
fn a_replica_must_not_linger_where_clients_wait_for_its_ack() {
    let (_, may_linger) = may_linger_behind_sets(AckMode::SemiSync { replicas: 1 }, 1);
    assert!(!may_linger);
}

#[test]
fn a_replica_must_not_linger_while_it_waits_for_an_answer() {
    let (mut group, may_linger) = may_linger_behind_sets(AckMode::Async, 1);
    assert!(may_linger);
    let replica = group.nodes[1].0.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let loaded = replica.get_or_load("absent", Duration::from_secs(60), || Ok::<_, ()>("v"));
            assert!(loaded.is_ok());
        });
        // The clock stands, so only the question that is asked can end it.
        let ends = (0..5_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            matches!(group.poll(1), Next::At(_)) && !group.nodes[1].1.may_linger()
        });
        // Whoever waits for another node goes on alone.
        group.nodes.clear();
        assert!(ends, "an answer is waited for");
    });
}
