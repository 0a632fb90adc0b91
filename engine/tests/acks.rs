//! Acknowledgements: what is refused, what is waited for, and what a change of primary makes of it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{
    AckMode, Acknowledgement, Cache, Config, Expiry, LinkState, ManualClock, Next, PromoteError,
    ReplicationConfig, Replicator, Role, Version, Warning, WriteError, Written,
};

/// A primary and followers over a network in memory, on a clock of their own.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: Vec<(Cache, Replicator)>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Group {
    fn new(first: ReplicationConfig, followers: usize) -> Group {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let mut group = Group { clock, network: MemoryNetwork::immediate(), nodes: Vec::new() };
        group.add(first);
        for _ in 0..followers {
            group.add(ReplicationConfig::replica_of("a"));
        }
        group.run(100);
        group
    }

    fn add(&mut self, config: ReplicationConfig) {
        let index = self.nodes.len();
        let config = config.replica_reads(true).random_seed(index as u64 + 1).slot(index as u8);
        let config = Config::new().memory_bytes_max(32 << 20).clock(self.clock.clone()).replication(config);
        let cache = Cache::new(config).unwrap();
        let replicator = Replicator::new(&cache, self.network.transport(NAMES[index])).unwrap();
        self.nodes.push((cache, replicator));
    }

    fn cache(&self, index: usize) -> &Cache {
        &self.nodes[index].0
    }

    fn poll(&mut self, index: usize) {
        self.nodes[index].1.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.clock.advance_ms(5);
            (0..self.nodes.len()).for_each(|index| self.poll(index));
        }
    }

    /// Only the primary gets turns: its replicas hang.
    fn run_primary(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.clock.advance_ms(5);
            self.poll(0);
        }
    }

    fn write(&self, index: usize, value: &str) -> Written {
        let cache = self.cache(index);
        let (stored, written) = cache.track(|| cache.set("k", value, Expiry::Never));
        stored.unwrap();
        written.unwrap()
    }
}

fn semi_sync(replicas: u8) -> ReplicationConfig {
    ReplicationConfig::primary().ack(AckMode::SemiSync { replicas })
}

#[test]
fn a_write_counts_once_as_many_replicas_have_applied_it_as_were_asked_for() {
    let mut group = Group::new(semi_sync(2), 2);
    let written = group.write(0, "v");
    assert_eq!(group.cache(0).acknowledged(written), Acknowledgement::Unknown { acked: 0 });
    for _ in 0..4 {
        group.poll(0);
        group.poll(1);
    }
    group.poll(0);
    assert_eq!(group.cache(0).acknowledged(written), Acknowledgement::Unknown { acked: 1 });
    assert_eq!(&group.cache(1).get("k").unwrap().unwrap().value[..], b"v", "what is acknowledged is there");
    group.run(5);
    assert_eq!(group.cache(0).acknowledged(written), Acknowledgement::Replicated { by: 2 });
}

#[test]
fn nothing_is_written_without_enough_level_replicas_until_an_operator_lowers_the_number() {
    let mut group = Group::new(semi_sync(2), 1);
    let cache = group.cache(0).clone();
    let short = Err(WriteError::NotEnoughReplicas { level: 1, needed: 2 });
    let before = cache.status().seq;
    assert_eq!(cache.set("k", "v", Expiry::Never).map(|_| ()), short);
    assert_eq!(cache.delete("k").map(|_| ()), short);
    assert_eq!(cache.flush(), short);
    assert_eq!((cache.status().seq, cache.get("k")), (before, Ok(None)), "it reads, and nothing was changed");
    assert!(cache.status().ready);
    cache.set_ack_mode(AckMode::SemiSync { replicas: 1 }).unwrap();
    let written = group.write(0, "v");
    group.run(5);
    assert_eq!(cache.acknowledged(written), Acknowledgement::Replicated { by: 1 });
    assert_eq!(cache.status().ack_mode.to_string(), "semi-sync:1");
}

#[test]
fn a_replica_that_hangs_makes_writes_unknown_and_then_refused_and_never_async() {
    let mut group = Group::new(semi_sync(1), 1);
    let cache = group.cache(0).clone();
    let written = group.write(0, "v");
    group.run_primary(50);
    assert_eq!(cache.wait_acknowledged(written, Duration::ZERO), Acknowledgement::Unknown { acked: 0 });
    assert!(group.cache(0).status().replicas[0].lag_ms >= 245, "{:?}", cache.status().replicas);
    group.run_primary(60);
    let short = Err(WriteError::NotEnoughReplicas { level: 0, needed: 1 });
    assert_eq!(cache.set("k", "w", Expiry::Never).map(|_| ()), short);
    group.run(20);
    assert_eq!(cache.acknowledged(written), Acknowledgement::Replicated { by: 1 });
    assert!(cache.set("k", "w", Expiry::Never).is_ok());
}

#[test]
fn a_replica_in_the_middle_of_a_copy_does_not_count() {
    let mut group = Group::new(ReplicationConfig::primary(), 0);
    let cache = group.cache(0).clone();
    for number in 0..10_000 {
        cache.set(format!("key{number}"), vec![7; 1_000], Expiry::Never).unwrap();
    }
    cache.set_ack_mode(AckMode::SemiSync { replicas: 1 }).unwrap();
    group.add(ReplicationConfig::replica_of("a"));
    let mut installing = 0;
    while group.cache(1).status().link != LinkState::Streaming {
        group.run(1);
        if group.cache(1).status().link == LinkState::Installing {
            installing += 1;
            assert!(cache.set("k", "v", Expiry::Never).is_err());
        }
    }
    group.run(3);
    assert!(installing > 0 && cache.set("k", "v", Expiry::Never).is_ok());
}

#[test]
fn a_write_that_the_new_primary_lacks_has_diverged_and_one_that_it_has_is_replicated() {
    let mut group = Group::new(semi_sync(1), 1);
    let cache = group.cache(0).clone();
    let shipped = group.write(0, "shipped");
    for _ in 0..4 {
        group.poll(0);
        group.poll(1);
    }
    // The ack is on its way still.
    let lost = group.write(0, "lost");
    group.cache(1).promote(false).unwrap();
    group.cache(1).set_ack_mode(AckMode::Async).unwrap();
    group.run(200);
    assert_eq!(cache.status().link, LinkState::Streaming, "the old primary follows");
    assert!(matches!(cache.acknowledged(shipped), Acknowledgement::Replicated { .. }));
    assert_eq!(cache.acknowledged(lost), Acknowledgement::Diverged);
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"shipped");
}

#[test]
fn a_hand_over_waits_for_the_replica_swaps_the_roles_and_loses_nothing() {
    for config in [ReplicationConfig::primary(), semi_sync(1)] {
        let mut group = Group::new(config, 1);
        let (old, new) = (group.cache(0).clone(), group.cache(1).clone());
        for number in 0..500 {
            old.set(format!("key{number}"), vec![7; 1_000], Expiry::Never).unwrap();
        }
        let installs = old.status().installs;
        old.begin_hand_over(Duration::from_secs(1)).unwrap();
        assert_eq!(old.set("k", "late", Expiry::Never).map(|_| ()), Err(WriteError::HandingOver));
        assert!(old.get("key7").unwrap().is_some(), "reads go on");
        group.run(50);
        assert_eq!((old.status().role, new.status().role), (Role::Replica, Role::Primary));
        assert_eq!(old.status().installs, installs, "the old primary resumes");
        assert!((0..500).all(|number| new.contains(format!("key{number}")).unwrap()));
        let (stored, written) = new.track(|| new.set("k", "v", Expiry::Never));
        stored.unwrap();
        group.run(5);
        assert!(matches!(new.acknowledged(written.unwrap()), Acknowledgement::Replicated { .. }));
        assert_eq!(&old.get("k").unwrap().unwrap().value[..], b"v");
    }
}

#[test]
fn a_hand_over_to_a_replica_that_hangs_is_given_up_and_one_to_nobody_refused() {
    let mut group = Group::new(ReplicationConfig::primary(), 1);
    let cache = group.cache(0).clone();
    let of_replica = group.cache(1).begin_hand_over(Duration::from_secs(1));
    assert!(matches!(of_replica, Err(PromoteError::NotPrimary { primary: Some(_) })), "{of_replica:?}");
    cache.set("k", "v", Expiry::Never).unwrap();
    cache.begin_hand_over(Duration::from_millis(100)).unwrap();
    group.run_primary(10);
    assert_eq!(cache.delete("k"), Err(WriteError::HandingOver));
    group.run_primary(15);
    assert_eq!((cache.delete("k"), cache.status().role), (Ok(true), Role::Primary));
    group.run_primary(500);
    assert_eq!(cache.begin_hand_over(Duration::from_secs(1)), Err(PromoteError::NobodyLevel));
}

#[test]
fn a_hand_over_to_a_replica_that_died_is_given_up_in_time_by_who_polls_when_told_to() {
    let mut group = Group::new(ReplicationConfig::primary(), 1);
    let cache = group.cache(0).clone();
    cache.begin_hand_over(Duration::from_millis(100)).unwrap();
    group.nodes.truncate(1);
    let mut waited_ms = 0;
    while cache.delete("k").is_err() {
        let step_ms = match group.nodes[0].1.poll(&mut Context::from_waker(Waker::noop())) {
            Next::At(moment) => moment.saturating_sub(cache.local_now_ms()).min(10_000),
            Next::Now | Next::Soon => 0,
        };
        group.clock.advance_ms(step_ms);
        waited_ms += step_ms;
        assert!(waited_ms <= 100, "{waited_ms} ms");
    }
}

#[test]
fn a_future_is_woken_by_the_ack_and_a_thread_by_another_one() {
    let mut group = Group::new(semi_sync(1), 1);
    let cache = group.cache(0).clone();
    let written = group.write(0, "v");
    {
        let mut future = pin!(cache.acknowledgement(written));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(future.as_mut().poll(&mut cx), Poll::Pending);
        group.run(5);
        assert_eq!(future.as_mut().poll(&mut cx), Poll::Ready(Acknowledgement::Replicated { by: 1 }));
    }
    let written = group.write(0, "w");
    let waiting = std::thread::spawn({
        let cache = cache.clone();
        move || cache.wait_acknowledged(written, Duration::from_secs(60))
    });
    group.run(5);
    assert_eq!(waiting.join().unwrap(), Acknowledgement::Replicated { by: 1 });
}

#[test]
fn a_value_too_large_for_the_log_is_refused_where_it_has_to_be_acknowledged() {
    let config = ReplicationConfig::primary().log_bytes_max(64 << 10);
    let mut group = Group::new(config, 1);
    let cache = group.cache(0).clone();
    let large = vec![1; 32 << 10];
    cache.set("k", &large, Expiry::Never).unwrap();
    cache.set_ack_mode(AckMode::SemiSync { replicas: 1 }).unwrap();
    let of_log = |stored| matches!(stored, Err(WriteError::ItemTooLarge { is_of_log: true, bytes_max, .. }) if bytes_max == 16 << 10);
    assert!(of_log(cache.set("k", &large, Expiry::Never)));
    assert!(of_log(cache.begin_value("k", large.len(), Expiry::Never).write(&large).map(|()| Version(0))));
    assert_eq!(cache.get("k"), Ok(None), "a failed overwrite leaves nothing old");
    cache.set_ack_mode(AckMode::Async).unwrap();
    cache.set("k", &large, Expiry::Never).unwrap();
    group.run(5);
    let status = cache.status();
    assert_eq!(status.oversized_records, 2);
    let told: Vec<String> = status.warnings.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|warning| warning.contains("raise --log-bytes to 4194304")), "{told:?}");
}

#[test]
fn above_the_budget_writes_are_refused_until_a_replica_has_caught_up() {
    let config = ReplicationConfig::primary().max_unacked_ms(100).max_unacked_bytes(10_000);
    let mut group = Group::new(config, 1);
    let cache = group.cache(0).clone();
    for _ in 0..100 {
        cache.set("k", vec![0; 1_000], Expiry::Never).unwrap();
    }
    group.run_primary(1);
    assert_eq!(cache.set("k", "v", Expiry::Never).map(|_| ()), Err(WriteError::RiskBudget));
    group.run(5);
    cache.set("k", "v", Expiry::Never).unwrap();
    group.run_primary(15);
    cache.set("k", "v", Expiry::Never).unwrap();
    group.run_primary(15);
    assert_eq!(cache.set("k", "v", Expiry::Never).map(|_| ()), Err(WriteError::RiskBudget));

    // Its last replica is gone for good: an operator is told, and decides.
    let told =
        |cache: &Cache| cache.status().warnings.iter().any(|one| matches!(one, Warning::OverBudget { .. }));
    assert_eq!((cache.status().within_budget, told(&cache)), (Some(false), true));
    cache.set_ack_mode(AckMode::Async).unwrap();
    for _ in 0..10 {
        cache.set("k", vec![0; 5_000], Expiry::Never).unwrap();
        group.run_primary(15);
    }
    assert_eq!((cache.status().within_budget, told(&cache)), (None, false));
}

#[test]
fn what_is_at_risk_is_told_as_of_now_also_while_the_driver_sleeps() {
    let mut group = Group::new(ReplicationConfig::primary(), 1);
    let told = |group: &Group| {
        let replica = group.cache(0).status().replicas[0].clone();
        (replica.lag_seqs, replica.lag_ms)
    };
    assert_eq!(told(&group), (0, 0));
    group.write(0, "v");
    group.clock.advance_ms(200);
    let (seqs, ms) = told(&group);
    assert_eq!(seqs, 1);
    assert!((200..=205).contains(&ms), "{ms}");
    group.run_primary(2);
    group.clock.advance_ms(200);
    assert!((410..=420).contains(&told(&group).1), "{:?}", told(&group));
    group.run(2);
    assert_eq!(told(&group), (0, 0));
}

#[test]
fn what_a_replica_lacked_before_it_came_back_is_told_as_old_as_it_is() {
    let mut group = Group::new(ReplicationConfig::primary(), 1);
    group.network.set_apart("a", "b", true);
    group.network.cut("a", "b");
    group.run(5);
    group.write(0, "v");
    group.run_primary(600);
    group.network.set_apart("a", "b", false);
    while group.cache(0).status().replicas.is_empty() {
        group.clock.advance_ms(5);
        group.poll(1);
        group.poll(0);
    }
    let replica = group.cache(0).status().replicas.remove(0);
    assert_eq!((replica.state, replica.lag_seqs), (LinkState::Streaming, 1));
    assert!((3_000..4_500).contains(&replica.lag_ms), "{replica:?}");
    group.run(5);
    assert_eq!(group.cache(0).status().replicas[0].lag_ms, 0);
}

#[test]
fn writes_are_collected_for_less_time_where_a_budget_says_what_may_be_lacking() {
    let linger = |config| Group::new(config, 1).nodes[0].1.linger();
    let free = linger(ReplicationConfig::primary());
    assert!(free < Duration::from_millis(1));
    assert!(linger(ReplicationConfig::primary().max_unacked_ms(5)) < free);
    assert!(linger(ReplicationConfig::primary().max_unacked_bytes(1 << 20)) < free);
}
