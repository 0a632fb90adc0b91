//! The change stream: every mutation in order, without a gap or with a word to start again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{
    Attributes, Cache, Change, Config, Effect, Expiry, ManualClock, NoChange, Position, ReplicationConfig,
    Replicator, Restart, Role, SubscribeError, Subscription,
};

fn primary(log_bytes_max: usize) -> Cache {
    let replication = ReplicationConfig::primary().log_bytes_max(log_bytes_max);
    Cache::new(Config::new().memory_bytes_max(8 << 20).replication(replication)).unwrap()
}

fn drain(changes: &mut Subscription) -> Vec<Change> {
    std::iter::from_fn(|| changes.try_next().ok()).collect()
}

fn restart_of(changes: &mut Subscription) -> Restart {
    match changes.try_next().unwrap().effect {
        Effect::Restart(why) => why,
        other => panic!("{other:?}"),
    }
}

/// What changes come to: key to version and value.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index(BTreeMap<Vec<u8>, (u64, Vec<u8>)>);

impl Index {
    fn of(cache: &Cache) -> Index {
        let items = cache.iter().map(|entry| entry.unwrap());
        Index(items.map(|(key, item)| (key.to_vec(), (item.version.0, item.value.to_vec()))).collect())
    }

    fn apply(&mut self, change: Change, cache: &Cache) {
        match change.effect {
            Effect::Put { key, value, .. } => {
                self.0.insert(key.to_vec(), (change.version.0, value.to_vec()));
            }
            Effect::Delete { key } => drop(self.0.remove(&key[..])),
            Effect::Flush => self.0.clear(),
            Effect::FlushPrefix { prefix } => self.0.retain(|key, _| !key.starts_with(&prefix)),
            Effect::Restart(_) => *self = Index::of(cache),
            _ => {}
        }
    }
}

#[test]
fn each_mutation_is_told_as_its_result_in_order() {
    let cache = primary(1 << 20);
    let mut changes = cache.subscribe(None).unwrap();
    assert_eq!(restart_of(&mut changes), Restart::Beginning);
    let attributes = Attributes { flags: 7, expiry: Expiry::At(u64::MAX) };
    let first = cache.set("n", "1", attributes).unwrap();
    cache.get("n").unwrap();
    cache.incr("n", 4).unwrap();
    cache.touch("n", Expiry::Never).unwrap();
    cache.delete("absent").unwrap();
    cache.flush_at(Expiry::After(Duration::from_secs(1_000))).unwrap();
    cache.invalidate_prefix("user:").unwrap();
    cache.flush().unwrap();
    let told = drain(&mut changes);
    let key = bytes::Bytes::from("n");
    let put = |value: &str| Effect::Put {
        key: key.clone(),
        value: value.to_owned().into(),
        flags: 7,
        expires_at_ms: Some(u64::MAX),
    };
    let effects: Vec<_> = told.iter().map(|change| change.effect.clone()).collect();
    let expected = [
        put("1"),
        put("5"),
        Effect::Touch { key: key.clone(), item: told[1].version, expires_at_ms: None },
        Effect::Delete { key: "absent".into() },
        Effect::FlushPrefix { prefix: "user:".into() },
        Effect::Flush,
    ];
    assert_eq!(effects, expected);
    assert_eq!(told[0].version, first);
    let seqs: Vec<u64> = told.iter().map(|change| change.position.seq() - told[0].position.seq()).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 5, 6], "an appointment for a flush changes nothing yet");
    // From each position on it is the same again.
    for (index, change) in told.iter().enumerate() {
        let kept: Position = change.position.to_string().parse().unwrap();
        assert_eq!(drain(&mut cache.subscribe(kept).unwrap()), told[index + 1..]);
    }
}

#[test]
fn a_remembered_absence_is_told_as_a_deletion_and_so_is_what_the_log_does_not_hold() {
    let cache = primary(8 << 10);
    let mut changes = cache.subscribe(None).unwrap();
    drain(&mut changes);
    let policy = hotspare::LoadPolicy::forever().absent_for(Duration::from_secs(60));
    let nothing = cache.get_or_load_optional("k", policy, || Ok::<Option<&str>, std::io::Error>(None));
    assert_eq!(nothing.unwrap(), None);
    assert_eq!(drain(&mut changes)[0].effect, Effect::Delete { key: "k".into() });
    cache.set("large", [0; 4 << 10], Expiry::Never).unwrap();
    assert_eq!(drain(&mut changes)[0].effect, Effect::Delete { key: "large".into() });
}

#[test]
fn who_is_too_slow_is_told_to_start_again_and_then_has_all() {
    let cache = primary(4 << 10);
    let mut changes = cache.subscribe(None).unwrap();
    let mut index = Index::default();
    let first = changes.try_next().unwrap();
    let early = first.position;
    index.apply(first, &cache);
    for round in 0..50 {
        for number in 0..round {
            cache.set(format!("key{number}"), format!("{round:0200}"), Expiry::Never).unwrap();
        }
        if round % 10 == 9 {
            let told = drain(&mut changes);
            assert_eq!(told[0].effect, Effect::Restart(Restart::Overtaken), "round {round}");
            told.into_iter().for_each(|change| index.apply(change, &cache));
            assert_eq!(index, Index::of(&cache));
        }
    }
    assert_eq!(restart_of(&mut cache.subscribe(early).unwrap()), Restart::Overtaken);
}

#[test]
fn a_cache_without_a_log_says_what_to_configure() {
    let cache = Cache::new(Config::new()).unwrap();
    let refused = cache.subscribe(None).unwrap_err();
    assert_eq!(refused, SubscribeError::NoLog);
    assert!(refused.to_string().contains("ReplicationConfig::primary()"));
}

#[test]
fn another_caches_position_is_told_as_such_and_nothing_behind_it_is_missed() {
    let mut pair = Pair::new(1 << 20);
    let mut changes = pair.nodes[0].subscribe(None).unwrap();
    drain(&mut changes);
    pair.nodes[0].set("a", "1", Expiry::Never).unwrap();
    let position = drain(&mut changes)[0].position;
    pair.nodes[0].set("b", "2", Expiry::Never).unwrap();
    pair.run_ms(1_000);
    let mut on_replica = pair.nodes[1].subscribe(position).unwrap();
    assert_eq!(restart_of(&mut on_replica), Restart::OtherCache);
    let told = drain(&mut on_replica);
    assert_eq!(told.len(), 1);
    assert!(matches!(&told[0].effect, Effect::Put { key, .. } if key == "b"));
    let foreign = primary(1 << 20);
    assert_eq!(restart_of(&mut foreign.subscribe(position).unwrap()), Restart::RolledBack);
}

#[test]
fn the_stream_ends_with_the_cache_and_a_time_out_is_one() {
    let cache = primary(1 << 20);
    let mut changes = cache.subscribe(None).unwrap();
    drain(&mut changes);
    assert_eq!(changes.next_within(Duration::from_millis(5)), Err(NoChange::Yet));
    let waiting = thread::spawn(move || changes.by_ref().count());
    cache.set("k", "v", Expiry::Never).unwrap();
    drop(cache);
    assert!(waiting.join().unwrap() <= 1);
    let cache = primary(1 << 20);
    let mut changes = cache.subscribe(None).unwrap();
    drop(cache);
    assert_eq!(changes.try_next(), Err(NoChange::Closed));
}

#[test]
fn inside_a_read_of_an_item_changes_are_given_and_nothing_waits() {
    let cache = primary(1 << 20);
    let mut changes = cache.subscribe(None).unwrap();
    cache.set("k", "v", Expiry::Never).unwrap();
    let told =
        cache.read("k", |_| (drain(&mut changes).len(), changes.next_within(Duration::MAX), changes.next()));
    assert_eq!(told.unwrap(), Some((2, Err(NoChange::Yet), None)));
}

/// Threads that write, and subscribers that block, that look now and then, and that begin late.
#[test]
fn whatever_threads_do_each_subscriber_comes_to_the_caches_content() {
    let cache = primary(256 << 10);
    let is_over = AtomicBool::new(false);
    let follow = |mut changes: Subscription, pause: bool| {
        let mut index = Index::default();
        let mut seen = 0;
        loop {
            // Looked at first: what was written before it is set is told behind it.
            let was_over = is_over.load(Ordering::SeqCst);
            match changes.next_within(Duration::from_millis(1)) {
                Ok(change) => {
                    if let Effect::Put { key, .. } = &change.effect {
                        let read = cache.get(key).unwrap();
                        assert!(
                            read.is_none_or(|item| item.version >= change.version),
                            "told before it is seen"
                        );
                    }
                    index.apply(change, &cache);
                    seen += 1;
                    if pause && seen % 500 == 0 {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
                Err(_) if was_over => return (index, seen),
                Err(_) => {}
            }
        }
    };
    let write = |thread: u32| {
        for number in 0..20_000u32 {
            let key = format!("key{}", number.wrapping_mul(2_654_435_761).rotate_left(thread) % 200);
            match number % 100 {
                0..80 => drop(cache.set(&key, format!("{thread} {number}"), Expiry::Never).unwrap()),
                80..99 => drop(cache.delete(&key).unwrap()),
                _ if number % 1_000 == 999 => cache.flush().unwrap(),
                _ => drop(cache.append(&key, "+").unwrap()),
            }
        }
    };
    thread::scope(|scope| {
        let follow = &follow;
        // Whenever its thread is given a turn: it stands before all that is written.
        let early = |pause| {
            let changes = cache.subscribe(None).unwrap();
            scope.spawn(move || follow(changes, pause))
        };
        let early = [false, false, true].map(early);
        let writing = [1, 2, 3].map(|thread| scope.spawn(move || write(thread)));
        // This one may come when all is written, and is told no more than to begin.
        let late = scope.spawn(|| follow(cache.subscribe(None).unwrap(), false));
        writing.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        for (thread, seen_min) in early.into_iter().map(|thread| (thread, 2)).chain([(late, 1)]) {
            let (index, seen) = thread.join().unwrap();
            assert!(seen >= seen_min, "{seen}");
            assert_eq!(index, Index::of(&cache));
        }
    });
}

#[test]
fn what_was_told_is_seen_by_every_read() {
    let cache = primary(1 << 20);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let following = scope.spawn(|| {
            let (mut changes, mut deletions) = (cache.subscribe(None).unwrap(), 0);
            while !is_over.load(Ordering::SeqCst) {
                let Ok(change) = changes.try_next() else { continue };
                let read = cache.get("k").unwrap();
                match change.effect {
                    Effect::Put { .. } => assert!(read.is_none_or(|item| item.version >= change.version)),
                    Effect::Delete { .. } => {
                        deletions += 1;
                        assert!(read.is_none_or(|item| item.version > change.version), "it is still there");
                    }
                    _ => {}
                }
            }
            deletions
        });
        for _ in 0..100_000 {
            cache.set("k", "v", Expiry::Never).unwrap();
            cache.delete("k").unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(following.join().unwrap() > 0);
    });
}

/// A primary `a` and its spare `b`, in one thread.
struct Pair {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    nodes: [Cache; 2],
    replicators: [Replicator; 2],
}

impl Pair {
    fn new(log_bytes_max: usize) -> Pair {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        let nodes =
            [ReplicationConfig::primary().peer("b"), ReplicationConfig::replica_of("a")].map(|node| {
                let node = node.replica_reads(true).log_bytes_max(log_bytes_max);
                Cache::new(Config::new().memory_bytes_max(8 << 20).clock(clock.clone()).replication(node))
                    .unwrap()
            });
        let replicators = [(&nodes[0], "a"), (&nodes[1], "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut pair = Pair { clock, network, nodes, replicators };
        pair.run_ms(1_000);
        pair
    }

    fn run_ms(&mut self, ms: u64) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for replicator in &mut self.replicators {
                replicator.poll(&mut cx);
            }
            self.network.deliver_all();
        }
    }

    fn set_apart(&self, apart: bool) {
        self.network.set_apart("a", "b", apart);
        self.network.cut("a", "b");
    }
}

/// A subscriber at each node that takes all changes now and then.
struct Followers([(Subscription, Index, Vec<Restart>); 2]);

impl Followers {
    fn of(pair: &Pair) -> Followers {
        Followers(
            [0, 1].map(|node| (pair.nodes[node].subscribe(None).unwrap(), Index::default(), Vec::new())),
        )
    }

    fn follow(&mut self, pair: &Pair) {
        for ((changes, index, restarts), cache) in self.0.iter_mut().zip(&pair.nodes) {
            for change in drain(changes) {
                if let Effect::Restart(why) = change.effect {
                    restarts.push(why);
                }
                index.apply(change, cache);
            }
            // A fenced node answers no reads.
            if cache.status().role != Role::Fenced {
                assert_eq!(*index, Index::of(cache));
            }
        }
    }

    fn take_restarts(&mut self) -> [Vec<Restart>; 2] {
        self.0.each_mut().map(|follower| std::mem::take(&mut follower.2))
    }
}

#[test]
fn a_promotion_is_passed_over_and_a_roll_back_and_a_full_copy_are_told() {
    for (log_bytes_max, why) in [(1 << 20, Restart::RolledBack), (16 << 10, Restart::Copied)] {
        let mut pair = Pair::new(log_bytes_max);
        let mut followers = Followers::of(&pair);
        for number in 0..100 {
            pair.nodes[0].set(format!("common{number}"), "1", Expiry::Never).unwrap();
        }
        pair.run_ms(1_000);
        followers.follow(&pair);
        assert_eq!(followers.take_restarts(), [[Restart::Beginning], [Restart::Beginning]]);
        pair.set_apart(true);
        pair.nodes[1].promote(false).unwrap();
        for number in 0..1_000 {
            pair.nodes[0].set(format!("common{number}"), "alone", Expiry::Never).unwrap();
        }
        pair.nodes[1].set("new", "2", Expiry::Never).unwrap();
        followers.follow(&pair);
        followers.take_restarts();
        pair.set_apart(false);
        pair.run_ms(10_000);
        assert_eq!(pair.nodes[0].status().role, Role::Replica);
        followers.follow(&pair);
        assert_eq!(followers.take_restarts(), [vec![why], vec![]]);
        // What the roll-back dropped has come back, beside the log.
        assert_eq!(followers.0[0].1, followers.0[1].1);
        assert_eq!(followers.0[0].1.0.len(), 101);
    }
}

#[test]
fn what_a_roll_back_dropped_is_told_when_it_comes_back() {
    let mut pair = Pair::new(1 << 20);
    let mut followers = Followers::of(&pair);
    pair.nodes[0].set("common", "1", Expiry::Never).unwrap();
    pair.run_ms(1_000);
    pair.set_apart(true);
    pair.nodes[1].promote(false).unwrap();
    pair.nodes[0].set("common", "alone", Expiry::Never).unwrap();
    pair.set_apart(false);
    let mut came_back = false;
    for _ in 0..500 {
        pair.run_ms(5);
        followers.follow(&pair);
        let was_dropped = pair.nodes[0].status().roll_backs == 1;
        came_back |= was_dropped && pair.nodes[0].get("common").is_ok_and(|item| item.is_none());
    }
    assert!(came_back, "it was gone for a while");
    assert_eq!(&pair.nodes[0].get("common").unwrap().unwrap().value[..], b"1");
    assert_eq!(followers.take_restarts()[0], [Restart::Beginning, Restart::RolledBack]);
}
