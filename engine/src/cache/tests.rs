//! The cache's operations, one claim a test; the rules are those of memcached's semantics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::replication::Role;

fn cache() -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let config = Config::new().memory_bytes_max(4 << 20).item_bytes_max(1 << 20).clock(clock.clone());
    (Cache::new(config).unwrap(), clock)
}

fn value(cache: &Cache, key: &str) -> Option<Vec<u8>> {
    cache.get(key).unwrap().map(|item| item.value.to_vec())
}

#[test]
fn c1_versions_of_a_standalone_cache_count_from_one() {
    let (cache, _) = cache();
    assert_eq!(cache.set("a", "1", Expiry::Never), Ok(Version(1)));
    assert_eq!(cache.set("b", "1", Expiry::Never), Ok(Version(2)));
    assert!(cache.touch("a", Expiry::Never).unwrap());
    assert_eq!(cache.get("a").unwrap().unwrap().version, Version(1), "a touch changes no version");
}

#[test]
fn l3_a_value_that_is_too_large_is_refused_before_its_key_is_looked_for() {
    let (cache, _) = cache();
    let large = vec![7; 1 << 20];
    let is_too_large = |error: WriteError| matches!(error, WriteError::ItemTooLarge { .. });
    assert!(is_too_large(cache.compare_and_swap("k", Version(1), &large, Expiry::Never).unwrap_err()));
    assert!(is_too_large(cache.replace("k", &large, Expiry::Never).unwrap_err()));
    let version = cache.set("k", "v", Expiry::Never).unwrap();
    assert!(is_too_large(cache.compare_and_swap("k", Version(99), &large, Expiry::Never).unwrap_err()));
    assert_eq!(cache.get("k").unwrap().unwrap().version, version, "and what is there stays");
}

#[test]
fn each_operation_is_timed_once_where_that_was_asked_for() {
    assert_eq!(cache().0.latencies(), None);
    let cache = Cache::new(Config::new().latency_histograms(true)).unwrap();
    cache.set("k", "v", Expiry::Never).unwrap();
    cache.delete("k").unwrap();
    cache.get("k").unwrap();
    cache.read("k", |_| ()).unwrap();
    cache.get_many(&["k", "l"]).unwrap();
    let latencies = cache.latencies().unwrap();
    assert_eq!((latencies.reads.count(), latencies.writes.count()), (3, 2));
    cache.set("k", "v", Expiry::Never).unwrap();
    cache.read("k", |_| std::thread::sleep(Duration::from_millis(2))).unwrap();
    assert!(cache.latencies().unwrap().reads.quantile(1.0) >= Duration::from_millis(2));
    cache.reset_stats();
    assert_eq!(cache.latencies().unwrap().writes.count(), 0);
}

#[test]
fn poor_hash_function_makes_no_answer_wrong() {
    struct Constant;
    impl crate::KeyHash for Constant {
        fn hash(&self, _: u64, key: &[u8]) -> u64 {
            u64::from(key[0] & 1)
        }
    }
    let cache = Cache::new(Config::new().memory_bytes_max(4 << 20).key_hash(Arc::new(Constant))).unwrap();
    for number in 0..2_000_u32 {
        cache.set(number.to_le_bytes(), number.to_string(), Expiry::Never).unwrap();
    }
    for number in 0..2_000_u32 {
        let found = cache.get(number.to_le_bytes()).unwrap().unwrap();
        assert_eq!(found.value, number.to_string());
    }
    cache.check_invariants();
}

/// All keys that begin with the same byte have one hash, in the shard of that number.
struct ByFirstByte;

impl crate::KeyHash for ByFirstByte {
    fn hash(&self, _seed: u64, key: &[u8]) -> u64 {
        u64::from(key[0]) << 40 | 7 << 32
    }
}

#[test]
fn a_shard_without_lines_finds_nothing_in_those_of_another() {
    let config = Config::new().memory_bytes_max(64 << 20).shards(2).key_hash(Arc::new(ByFirstByte));
    let cache = Cache::new(config).unwrap();
    let key = |shard: u8, number: u16| [&[shard][..], &number.to_be_bytes()].concat();
    for number in 0..100 {
        cache.set(key(0, number), "v", Expiry::Never).unwrap();
        assert_eq!(cache.read(key(1, number), |_| ()), Ok(None));
    }
    assert_eq!(cache.stats().items, 100);
    cache.set(key(1, 0), "v", Expiry::Never).unwrap();
    assert_eq!(cache.read(key(1, 0), |_| ()), Ok(Some(())));
    assert_eq!(cache.read(key(1, 1), |_| ()), Ok(None));
}

#[test]
fn s1_add_and_replace_look_at_presence() {
    let (cache, _) = cache();
    assert_eq!(cache.replace("k", "v", Expiry::Never), Ok(None));
    assert!(cache.add("k", "v", Expiry::Never).unwrap().is_some());
    assert_eq!(cache.add("k", "w", Expiry::Never), Ok(None));
    assert!(cache.replace("k", "x", Expiry::Never).unwrap().is_some());
    assert_eq!(value(&cache, "k").unwrap(), b"x");
}

#[test]
fn s1_append_and_prepend_keep_flags_and_expiry() {
    let (cache, _) = cache();
    assert_eq!(cache.append("k", "v"), Ok(None));
    let attributes = Attributes { flags: 7, expiry: Expiry::After(Duration::from_secs(9)) };
    cache.set("k", "b", attributes).unwrap();
    cache.append("k", "c").unwrap();
    cache.prepend("k", "a").unwrap();
    let item = cache.get("k").unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags, item.expires_at_ms), (&b"abc"[..], 7, Some(1_009_000)));
}

#[test]
fn c2_a_swap_needs_the_version_that_is_there() {
    let (cache, _) = cache();
    assert_eq!(cache.compare_and_swap("k", Version(1), "v", Expiry::Never), Ok(Swap::NotFound));
    let version = cache.set("k", "v", Expiry::Never).unwrap();
    let Swap::Stored(next) = cache.compare_and_swap("k", version, "w", Expiry::Never).unwrap() else {
        panic!()
    };
    assert_eq!(cache.compare_and_swap("k", version, "x", Expiry::Never), Ok(Swap::Exists));
    assert!(next > version);
}

#[test]
fn a4_counters_wrap_stop_pad_and_refuse_text() {
    let (cache, _) = cache();
    assert_eq!(cache.incr("n", 1), Ok(None));
    cache.set("n", "10", Expiry::Never).unwrap();
    assert_eq!(cache.decr("n", 1), Ok(Some(9)));
    assert_eq!(value(&cache, "n").unwrap(), b"9 ");
    assert_eq!(cache.incr("n", u64::MAX), Ok(Some(8)));
    assert_eq!(cache.decr("n", 100), Ok(Some(0)));
    cache.set("t", "text", Expiry::Never).unwrap();
    assert_eq!(cache.incr("t", 1), Err(CounterError::NotANumber));
}

#[test]
fn x2_an_item_is_dead_at_its_deadline() {
    let (cache, clock) = cache();
    cache.set("k", "v", Duration::from_millis(500)).unwrap();
    clock.advance_ms(499);
    assert!(value(&cache, "k").is_some());
    clock.advance_ms(1);
    assert!(value(&cache, "k").is_none());
    assert!(cache.add("k", "w", Expiry::Never).unwrap().is_some(), "x4: the dead do not block add");
    assert_eq!(cache.stats().get_expired, 1);
}

#[test]
fn g2_a_flush_hides_what_was_there_and_nothing_later() {
    let (cache, clock) = cache();
    cache.set("old", "v", Expiry::Never).unwrap();
    cache.flush().unwrap();
    cache.set("new", "v", Expiry::Never).unwrap();
    assert_eq!((value(&cache, "old"), value(&cache, "new").is_some()), (None, true));
    assert_eq!(cache.incr("old", 1), Ok(None));
    cache.flush_at(Expiry::After(Duration::from_secs(5))).unwrap();
    cache.set("between", "v", Expiry::Never).unwrap();
    clock.advance_ms(4_999);
    assert!(value(&cache, "between").is_some());
    clock.advance_ms(1);
    assert_eq!((value(&cache, "new"), value(&cache, "between")), (None, None));
    cache.set("after", "v", Expiry::Never).unwrap();
    clock.advance_ms(10_000);
    assert!(value(&cache, "after").is_some(), "one appointment is kept once");
}

#[test]
fn g2_an_appointment_whose_moment_has_come_is_not_taken_back() {
    let (cache, clock) = cache();
    cache.set("k", "v", Expiry::Never).unwrap();
    cache.flush_at(Expiry::After(Duration::from_secs(5))).unwrap();
    clock.advance_ms(5_000);
    cache.flush_at(Expiry::Never).unwrap();
    assert_eq!(value(&cache, "k"), None);
}

#[test]
fn l5_a_failed_overwrite_removes_the_old_item_and_a_failed_append_does_not() {
    let (cache, _) = cache();
    cache.set("k", "old", Expiry::Never).unwrap();
    let huge = vec![0; 1 << 20];
    assert!(matches!(cache.append("k", &huge), Err(WriteError::ItemTooLarge { .. })));
    assert!(matches!(cache.add("j", &huge, Expiry::Never), Err(WriteError::ItemTooLarge { .. })));
    assert!(value(&cache, "k").is_some());
    assert!(matches!(cache.set("k", &huge, Expiry::Never), Err(WriteError::ItemTooLarge { .. })));
    assert!(value(&cache, "k").is_none());
}

#[test]
fn keys_of_a_wrong_length_are_refused_with_the_numbers() {
    let (cache, _) = cache();
    let long = vec![b'k'; KEY_BYTES_MAX + 1];
    assert_eq!(cache.get(&long), Err(ReadError::KeyLength { bytes: 1025, bytes_max: 1024 }));
    assert_eq!(cache.set("", "v", Expiry::Never), Err(WriteError::KeyLength { bytes: 0, bytes_max: 1024 }));
}

#[test]
fn calls_inside_a_read_are_refused_and_a_panic_there_poisons_nothing() {
    let (cache, _) = cache();
    cache.set("k", "v", Expiry::Never).unwrap();
    let inside = cache.clone();
    cache
        .read("k", |_| {
            assert_eq!(inside.get("k"), Err(ReadError::InsideRead));
            assert_eq!(inside.set("j", "v", Expiry::Never), Err(WriteError::InsideRead));
            assert_eq!(inside.flush(), Err(WriteError::InsideRead));
            assert_eq!(inside.stats().memory_bytes_max, 4 << 20);
            assert_eq!(inside.status().role, Role::Standalone);
        })
        .unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| cache.read("k", |_| panic!("the reader's own"))));
    assert!(outcome.is_err());
    assert_eq!(value(&cache, "k").unwrap(), b"v");
    cache.set("k", "w", Expiry::Never).unwrap();
}

#[test]
fn large_items_read_back_in_pieces() {
    let (cache, _) = cache();
    let big: Vec<u8> = (0..700_000u32).map(|index| (index % 251) as u8).collect();
    cache.set("big", &big, Expiry::Never).unwrap();
    let (pieces, joined) = cache
        .read("big", |item| {
            (item.value.pieces().count(), item.value.pieces().flatten().copied().collect::<Vec<u8>>())
        })
        .unwrap()
        .unwrap();
    assert!(pieces > 1 && joined == big);
}

#[test]
fn z10_below_16_mib_the_oldest_leave_first() {
    let cache = Cache::new(Config::new().memory_bytes_max(3 << 20)).unwrap();
    for index in 0..101 {
        cache.set(format!("key{index}"), vec![b'x'; 64 << 10], Expiry::Never).unwrap();
    }
    let present: Vec<bool> = (0..101).map(|index| value(&cache, &format!("key{index}")).is_some()).collect();
    let first = present.iter().position(|here| *here).unwrap();
    assert!(present[first..].iter().all(|here| *here), "all that is newer than a survivor survived");
    assert!(101 - first >= 35, "3 MiB hold at least 35 values of 64 KiB, not {}", 101 - first);
    assert_eq!(cache.stats().evictions, first as u64);
}

#[test]
fn without_eviction_a_full_cache_refuses_and_keeps_what_it_has() {
    let cache =
        Cache::new(Config::new().memory_bytes_max(1 << 20).item_bytes_max(256 << 10).evict(false)).unwrap();
    let mut stored = 0;
    while cache.set(format!("key{stored}"), vec![b'x'; 10_000], Expiry::Never).is_ok() {
        stored += 1;
    }
    assert!((50..105).contains(&stored), "{stored}");
    assert!((0..stored).all(|index| value(&cache, &format!("key{index}")).is_some()));
}

#[test]
fn the_byte_limit_holds_over_many_shards_and_sizes() {
    let cache = Cache::new(Config::new().memory_bytes_max(32 << 20)).unwrap();
    assert!(cache.stats().shards > 1);
    for index in 0..6000u32 {
        let size = [100, 5_000, 900_000, 40_000][index as usize / 16 % 4];
        cache.set(index.to_le_bytes(), vec![1; size], Expiry::Never).unwrap();
        let stats = cache.stats();
        assert!(stats.memory_bytes <= stats.memory_bytes_max);
    }
    let stats = cache.stats();
    assert!(stats.item_bytes > 24 << 20, "{} bytes live", stats.item_bytes);
    cache.check_invariants();
}

#[test]
fn threads_that_swap_lose_no_update() {
    let cache = Cache::new(Config::new().memory_bytes_max(32 << 20)).unwrap();
    cache.set("n", "0", Expiry::Never).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    cache.incr("n", 1).unwrap();
                    loop {
                        let item = cache.get("n").unwrap().unwrap();
                        let number: u64 = std::str::from_utf8(&item.value).unwrap().trim().parse().unwrap();
                        let next = (number + 1).to_string();
                        if let Swap::Stored(_) =
                            cache.compare_and_swap("n", item.version, next, Expiry::Never).unwrap()
                        {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(cache.incr("n", 0).unwrap(), Some(16_000));
}

#[test]
fn many_are_read_in_the_order_of_their_keys() {
    let (cache, _) = cache();
    for number in (0..100).step_by(3) {
        cache.set(format!("key {number}"), format!("value {number}"), Expiry::Never).unwrap();
    }
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let items = cache.get_many(&keys).unwrap();
    assert_eq!(items.len(), 100);
    for (number, item) in items.into_iter().enumerate() {
        let expected = (number % 3 == 0).then(|| format!("value {number}").into_bytes());
        assert_eq!(item.map(|item| item.value.to_vec()), expected);
    }
    let mut places = Vec::new();
    cache.read_many(&keys, |at, item| places.push((at, item.is_some()))).unwrap();
    assert!(places.iter().enumerate().all(|(at, place)| *place == (at, at % 3 == 0)));
    assert!(matches!(cache.get_many(&["fine", ""]), Err(ReadError::KeyLength { bytes: 0, .. })));
}

#[test]
fn resized_cache_evicts_down_to_its_limit_and_grows_again() {
    let cache = Cache::new(Config::new().memory_bytes_max(32 << 20)).unwrap();
    let fill = |from: usize| {
        for number in from..from + 80_000 {
            cache.set(number.to_string(), vec![7; 500], Expiry::Never).unwrap();
        }
        cache.check_invariants();
        cache.stats()
    };
    let before = fill(0);
    assert!(before.memory_bytes > 31 << 20);
    cache.resize(8 << 20).unwrap();
    let small = cache.stats();
    assert!(small.memory_bytes <= 8 << 20 && small.memory_bytes_max == 8 << 20, "{small:?}");
    assert!(small.items > before.items / 5, "{} of {} items are left", small.items, before.items);
    let refilled = fill(100_000);
    assert!(refilled.memory_bytes <= 8 << 20 && refilled.items * 9 > small.items * 8, "{refilled:?}");
    cache.resize(64 << 20).unwrap();
    let grown = fill(200_000);
    assert!(grown.items > before.items && grown.memory_bytes <= 64 << 20, "{grown:?}");
    assert_eq!(
        cache.resize(1 << 30),
        Err(ConfigError::MemoryTooLarge { bytes: 1 << 30, bytes_max: 128 << 20 })
    );
    assert!(matches!(cache.resize(1_000), Err(ConfigError::MemoryTooSmall { .. })));
    assert!(matches!(cache.resize(1 << 20), Err(ConfigError::ItemTooLarge { .. })));
}

/// A clock that does something when it is looked at next.
#[derive(Default)]
struct Interrupting {
    clock: ManualClock,
    interruption: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Clock for Interrupting {
    fn now_ms(&self) -> Millis {
        let interruption = self.interruption.lock().take();
        interruption.into_iter().for_each(|interruption| interruption());
        self.clock.now_ms()
    }
}

#[test]
fn g2_who_comes_late_to_an_appointment_hides_nothing_that_was_stored_since() {
    let clock = Arc::new(Interrupting::default());
    let cache = Cache::new(Config::new().memory_bytes_max(4 << 20).clock(clock.clone())).unwrap();
    cache.set("old", "1", Expiry::Never).unwrap();
    cache.flush_at(Expiry::After(Duration::from_secs(1))).unwrap();
    clock.clock.advance_ms(2_000);
    let other = cache.clone();
    *clock.interruption.lock() = Some(Box::new(move || {
        assert_eq!(value(&other, "old"), None);
        other.set("new", "2", Expiry::Never).unwrap();
    }));
    assert_eq!(value(&cache, "old"), None);
    assert_eq!(value(&cache, "new").as_deref(), Some(&b"2"[..]));
}

#[test]
fn g2_keeping_one_appointment_does_not_cancel_the_next() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let config = Config::new().memory_bytes_max(64 << 20).shards(64).clock(clock.clone());
    let cache = Cache::new(config).unwrap();
    let barrier = std::sync::Barrier::new(2);
    for _ in 0..10_000 {
        cache.flush_at(Expiry::After(Duration::from_millis(1))).unwrap();
        clock.advance_ms(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                cache.get("k").unwrap();
            });
            barrier.wait();
            cache.flush_at(Expiry::After(Duration::from_secs(1_000))).unwrap();
        });
        assert_ne!(cache.inner.flush_at_ms.load(Ordering::SeqCst), 0, "the next appointment is gone");
    }
}
