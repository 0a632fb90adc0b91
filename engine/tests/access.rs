//! Claims about what a cache with accounting keeps of its items: when they were last accessed, what each class holds.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{
    Cache, ClassStats, Config, Cursor, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator, Update,
};

const START_S: u64 = 1_000;

fn config(clock: &Arc<ManualClock>) -> Config {
    Config::new().memory_bytes_max(8 << 20).shards(1).clock(clock.clone()).accounting(true)
}

fn cache() -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START_S * 1000));
    (Cache::new(config(&clock)).unwrap(), clock)
}

/// Something that is done with the key `k`.
type Named = (&'static str, fn(&Cache));

fn now_s(cache: &Cache) -> u64 {
    cache.now_ms() / 1000
}

/// When it was last accessed, as somebody sees who does not access it.
fn accessed_s(cache: &Cache, key: &str) -> u64 {
    cache.peek(key, |item| item.accessed_s).unwrap().expect("it is there").expect("it is kept")
}

/// A plain item, one that expires, and one in several chunks.
fn store_some(cache: &Cache) -> [&'static str; 3] {
    cache.set("plain", "v", Expiry::Never).unwrap();
    cache.set("expiring", "v", Duration::from_secs(900)).unwrap();
    cache.set("large", vec![7; 300_000], Expiry::Never).unwrap();
    ["plain", "expiring", "large"]
}

#[test]
fn d1_a_read_shows_when_the_access_before_it_was() {
    let (cache, clock) = cache();
    let keys = store_some(&cache);
    let read = |key: &str| cache.read(key, |item| item.accessed_s).unwrap().unwrap().unwrap();
    clock.advance_ms(10_000);
    for key in keys {
        assert_eq!(accessed_s(&cache, key), START_S, "a look is no access");
        assert_eq!(read(key), START_S, "storing was one");
        assert_eq!((read(key), accessed_s(&cache, key)), (START_S + 10, START_S + 10));
    }
    // Often enough for eviction, which wants to know no more.
    for _ in 0..5 {
        clock.advance_ms(1_000);
        keys.iter().for_each(|key| assert_eq!(read(key), now_s(&cache) - 1));
    }
    clock.advance_ms(7_000);
    cache.read_many(&keys, |_, item| assert_eq!(item.unwrap().accessed_s, Some(START_S + 15))).unwrap();
    assert_eq!(accessed_s(&cache, "large"), START_S + 22);
    assert!(cache.get("large").unwrap().unwrap().value == vec![7; 300_000], "the time lies beside the value");
}

#[test]
fn what_counts_as_an_access_is_what_clients_do_and_not_what_operators_do() {
    let (cache, clock) = cache();
    cache.set("k", "1", Expiry::Never).unwrap();
    let accesses: [Named; 9] = [
        ("get", |cache| assert!(cache.get("k").unwrap().is_some())),
        ("touch without room for an expiry", |cache| {
            assert!(cache.touch("k", Duration::from_secs(900)).unwrap())
        }),
        ("touch", |cache| assert!(cache.touch("k", Duration::from_secs(800)).unwrap())),
        ("add", |cache| assert_eq!(cache.add("k", "1", Expiry::Never).unwrap(), None)),
        ("incr", |cache| assert_eq!(cache.incr("k", 1).unwrap(), Some(2))),
        ("append", |cache| assert!(cache.append("k", "0").unwrap().is_some())),
        ("set", |cache| assert!(cache.set("k", "1", Expiry::Never).is_ok())),
        ("replace", |cache| assert!(cache.replace("k", "1", Expiry::Never).unwrap().is_some())),
        ("update", |cache| {
            cache.update("k", |_| Update::Replace("1".into())).unwrap();
        }),
    ];
    for (name, access) in accesses {
        clock.advance_ms(1_000);
        access(&cache);
        assert_eq!(accessed_s(&cache, "k"), now_s(&cache), "{name}");
    }
    let before = now_s(&cache);
    let looks: [Named; 6] = [
        ("contains", |cache| assert!(cache.contains("k").unwrap())),
        ("details", |cache| assert!(cache.details("k").unwrap().is_some())),
        ("scan", |cache| assert!(cache.scan_details(Cursor::START, |_, _| ()).is_ok())),
        ("update that keeps", |cache| {
            cache.update("k", |_| Update::Keep).unwrap();
        }),
        ("peek_and_touch without room for an expiry", |cache| {
            assert!(cache.peek_and_touch("k", Duration::from_secs(900), |_| ()).unwrap().is_some());
        }),
        ("peek_and_touch", |cache| {
            assert!(cache.peek_and_touch("k", Duration::from_secs(800), |_| ()).unwrap().is_some());
        }),
    ];
    for (name, look) in looks {
        clock.advance_ms(1_000);
        look(&cache);
        assert_eq!(accessed_s(&cache, "k"), before, "{name}");
    }
}

/// A round goes on for as long as its program sleeps, and so says nothing of what others send meanwhile.
#[test]
fn what_is_stored_is_accessed_in_the_round_and_what_a_primary_sends_when_it_comes() {
    let clock = Arc::new(ManualClock::new(START_S * 1000));
    let network = MemoryNetwork::immediate();
    let follows = ReplicationConfig::replica_of("a").replica_reads(true);
    let [primary, replica] = [ReplicationConfig::primary(), follows]
        .map(|group| Cache::new(config(&clock).replication(group)).unwrap());
    let mut nodes = [(&primary, "a"), (&replica, "b")]
        .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
    let mut turn = || {
        nodes.iter_mut().for_each(|node| {
            node.poll(&mut Context::from_waker(Waker::noop()));
        });
    };
    while replica.status().link != LinkState::Streaming {
        turn();
    }
    for cache in [&primary, &replica] {
        cache.begin_round();
    }
    clock.advance_ms(1_000);
    primary.set("k", "v", Expiry::Never).unwrap();
    assert_eq!(accessed_s(&primary, "k"), START_S, "no round has begun since");
    let is_there = (0..1_000).any(|_| {
        turn();
        replica.peek("k", |_| ()).unwrap().is_some()
    });
    assert!(is_there);
    assert_eq!(accessed_s(&replica, "k"), START_S + 1);
}

#[test]
fn without_accounting_nothing_is_kept_and_an_item_takes_no_byte_more() {
    let clock = Arc::new(ManualClock::new(START_S * 1000));
    let without = Cache::new(config(&clock).accounting(false)).unwrap();
    // A chunk of the smallest size is 24 bytes, of which 20 are the header.
    without.set("k", "123", Expiry::Never).unwrap();
    assert_eq!(without.details("k").unwrap().unwrap().class, 0);
    assert_eq!(without.read("k", |item| item.accessed_s).unwrap(), Some(None));
    assert_eq!(without.class_ages().iter().map(|ages| ages.on_probation_s).sum::<u64>(), 0);
    let (with, _) = cache();
    with.set("k", "123", Expiry::Never).unwrap();
    assert_eq!(with.class_stats()[1].items, 1, "four bytes more");
    assert_eq!(with.stats().item_bytes, without.stats().item_bytes, "which do not count as the item's");
}

#[test]
fn times_of_access_survive_eviction_around_them_and_a_restart() {
    let (cache, clock) = cache();
    for number in 0..40_000_usize {
        cache.set(format!("{number}"), vec![7; number * 37 % 3_000], Expiry::Never).unwrap();
        clock.advance_ms(10);
    }
    assert!(cache.stats().evictions > 10_000 && cache.stats().pages_moved > 10);
    let times = |cache: &Cache| {
        let mut times = Vec::new();
        let mut next = Some(Cursor::START);
        while let Some(cursor) = next {
            next = cache
                .scan_details(cursor, |item, _| times.push((item.key.to_vec(), item.accessed_s.unwrap())))
                .unwrap();
        }
        times.sort();
        times
    };
    let before = times(&cache);
    for (key, accessed_s) in &before {
        let number: u64 = std::str::from_utf8(key).unwrap().parse().unwrap();
        assert_eq!(*accessed_s, START_S + number / 100);
    }
    let mut image = Vec::new();
    cache.save_to(&mut image).unwrap();
    let (next, _) = Cache::restore_from(config(&clock), image.as_slice()).unwrap();
    assert!(times(&next) == before);
    let without = Cache::restore_from(config(&clock).accounting(false), image.as_slice()).unwrap().0;
    assert_eq!(without.stats().items, before.len() as u64);
    // And what did not keep any says that all were accessed when they came.
    let mut image = Vec::new();
    without.save_to(&mut image).unwrap();
    clock.advance_ms(5_000);
    let (third, _) = Cache::restore_from(config(&clock), image.as_slice()).unwrap();
    assert!(times(&third).iter().all(|(_, accessed_s)| *accessed_s == now_s(&third)));
}

#[test]
fn g5_classes_know_their_items_their_bytes_and_how_long_they_have_lain() {
    let (cache, clock) = cache();
    for number in 0..500_usize {
        cache.set(format!("key-{number}"), vec![7; number * 11], Expiry::Never).unwrap();
    }
    let sum = |of: fn(&ClassStats) -> u64| cache.class_stats().iter().map(of).sum::<u64>();
    assert_eq!((sum(|class| class.items), sum(|class| class.item_bytes)), (500, cache.stats().item_bytes));
    assert_eq!(sum(|class| class.main_items), 0);
    clock.advance_ms(30_000);
    (0..500).filter(|number| number % 7 > 0).for_each(|number| {
        cache.get(format!("key-{number}")).unwrap();
    });
    clock.advance_ms(5_000);
    for (class, ages) in cache.class_stats().iter().zip(cache.class_ages()) {
        let expected = if class.items == 0 { 0..=0 } else { 5..=35 };
        assert!(expected.contains(&ages.on_probation_s) && ages.in_main_s == 0, "{class:?} {ages:?}");
    }
    assert_eq!(cache.class_ages().iter().map(|ages| ages.on_probation_s).max(), Some(35));
    (0..500).for_each(|number| assert!(cache.delete(format!("key-{number}")).unwrap()));
    assert_eq!((sum(|class| class.items), sum(|class| class.item_bytes)), (0, 0));
    assert_eq!(cache.class_ages().iter().map(|ages| ages.on_probation_s).max(), Some(0));
}

#[test]
fn g5_evictions_tell_how_long_the_last_one_had_lain_and_how_many_would_have_expired() {
    let clock = Arc::new(ManualClock::new(START_S * 1000));
    let told: Arc<Mutex<Vec<Option<u64>>>> = Arc::default();
    let seen = told.clone();
    let cache =
        Cache::new(config(&clock).on_departure(move |event| seen.lock().unwrap().push(event.accessed_s)))
            .unwrap();
    for number in 0..10_000_u64 {
        let expiry = if number % 2 == 0 { Expiry::After(Duration::from_secs(90_000)) } else { Expiry::Never };
        cache.set(format!("key-{number:05}"), [7; 1_000], expiry).unwrap();
        clock.advance_ms(1_000);
    }
    let stats = cache.class_stats();
    let evicted: u64 = stats.iter().map(|class| class.evictions).sum();
    let expiring: u64 = stats.iter().map(|class| class.evicted_expiring).sum();
    assert!(evicted > 1_000 && expiring.abs_diff(evicted / 2) < 2, "{expiring} of {evicted}");
    let oldest = cache.class_ages().iter().map(|ages| ages.on_probation_s.max(ages.in_main_s)).max().unwrap();
    let last = stats.iter().map(|class| class.evicted_age_s).max().unwrap();
    assert!(last > 1_000 && last.abs_diff(oldest) < 30, "evicted after {last} s, beside some of {oldest} s");
    assert_eq!(told.lock().unwrap()[..3], [Some(START_S), Some(START_S + 1), Some(START_S + 2)]);
    // The same where nobody listens: most evictions go another way then.
    let quiet = Cache::new(config(&clock)).unwrap();
    for number in 0..10_000_u64 {
        quiet.set(format!("key-{number:05}"), [7; 1_000], Expiry::Never).unwrap();
        clock.advance_ms(1_000);
    }
    let last_quiet = quiet.class_stats().iter().map(|class| class.evicted_age_s).max().unwrap();
    assert!(last_quiet.abs_diff(last) < 300, "{last_quiet} and {last} s");
    let held: u64 = quiet.class_stats().iter().map(|class| class.items).sum();
    assert_eq!(held, quiet.stats().items);
}
