//! What a listener is told: each item that leaves, once, with its cause, in order per key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hotspare::{Cache, Cause, Config, Event, Expiry, ManualClock, Version};

type Seen = Arc<Mutex<Vec<Event>>>;

fn listening(bytes: usize) -> (Cache, Seen, Arc<ManualClock>) {
    let (seen, clock) = (Seen::default(), Arc::new(ManualClock::new(1_000_000)));
    let told = seen.clone();
    let config = Config::new()
        .memory_bytes_max(bytes)
        .item_bytes_max(bytes / 4)
        .clock(clock.clone())
        .on_departure(move |event| told.lock().unwrap().push(event));
    (Cache::new(config).unwrap(), seen, clock)
}

fn causes(seen: &Seen) -> Vec<(String, Cause)> {
    let text = |event: Event| (String::from_utf8(event.key.to_vec()).unwrap(), event.cause);
    std::mem::take(&mut *seen.lock().unwrap()).into_iter().map(text).collect()
}

fn one(key: &str, cause: Cause) -> Vec<(String, Cause)> {
    vec![(key.to_owned(), cause)]
}

#[test]
fn each_way_to_leave_has_its_cause() {
    let (cache, seen, clock) = listening(4 << 20);
    let first = cache.set("k", "1", hotspare::Attributes { flags: 7, expiry: Expiry::Never }).unwrap();
    assert!(causes(&seen).is_empty());
    cache.set("k", "2", Expiry::Never).unwrap();
    let replaced = seen.lock().unwrap().pop().unwrap();
    assert_eq!((replaced.cause, &replaced.value[..], replaced.flags), (Cause::Replaced, &b"1"[..], 7));
    assert_eq!(replaced.version, first);
    assert_eq!((replaced.is_fetched, replaced.expires_at_ms), (false, None));
    cache.append("k", "3").unwrap();
    assert_eq!(causes(&seen), one("k", Cause::Replaced));
    cache.delete("k").unwrap();
    assert_eq!(causes(&seen), one("k", Cause::Removed));
    cache.delete("k").unwrap();
    assert!(causes(&seen).is_empty(), "nothing was there");
    cache.set("short", "1", Duration::from_secs(1)).unwrap();
    clock.advance_ms(1_000);
    assert_eq!(cache.get("short").unwrap(), None);
    assert_eq!(seen.lock().unwrap()[0].expires_at_ms, Some(1_001_000));
    assert_eq!(causes(&seen), one("short", Cause::Expired));
    let class = cache.class_of("read".len(), 1000, Expiry::Never);
    cache.set("read", vec![1; 1000], Expiry::Never).unwrap();
    cache.get("read").unwrap();
    cache.delete("read").unwrap();
    let removed = seen.lock().unwrap().pop().unwrap();
    assert_eq!((removed.is_fetched, removed.class), (true, class));
    cache.set("flushed", "1", Expiry::Never).unwrap();
    cache.flush().unwrap();
    assert_eq!(cache.get("flushed").unwrap(), None);
    assert_eq!(causes(&seen), one("flushed", Cause::Flushed));
    cache.set("user:1", "1", Expiry::Never).unwrap();
    cache.invalidate_prefix("user:").unwrap();
    cache.set("user:1", "2", Expiry::Never).unwrap();
    assert_eq!(causes(&seen).len(), 1);
}

#[test]
fn touch_that_writes_an_item_anew_is_no_departure() {
    let (cache, seen, _) = listening(4 << 20);
    cache.set("k", "1", Expiry::Never).unwrap();
    assert!(cache.touch("k", Duration::from_secs(9)).unwrap());
    assert!(cache.touch("k", Expiry::Never).unwrap());
    assert!(causes(&seen).is_empty());
}

#[test]
fn what_was_stored_is_either_there_or_was_told_of_once() {
    let (cache, seen, _) = listening(1 << 20);
    let mut stored = HashMap::new();
    for number in 0..60_000_u32 {
        let key = format!("k{}", number % 20_000);
        let version = cache.set(&key, vec![7; (number % 300) as usize], Expiry::Never).unwrap();
        stored.insert(version, key);
    }
    let evictions = cache.stats().evictions;
    let events = std::mem::take(&mut *seen.lock().unwrap());
    let evicted = events.iter().filter(|event| event.cause == Cause::Evicted).count();
    assert_eq!(evicted as u64, evictions);
    for event in events {
        assert_eq!(stored.remove(&event.version).unwrap().as_bytes(), &event.key[..], "told once");
    }
    for (version, key) in stored {
        assert_eq!(cache.get(&key).unwrap().unwrap().version, version, "the rest is there");
    }
}

#[test]
fn threads_are_told_of_in_order_for_each_key_and_nothing_is_lost() {
    let newest: Arc<Mutex<HashMap<Vec<u8>, Version>>> = Arc::default();
    let count = Arc::new(AtomicUsize::new(0));
    let (order, counted) = (newest.clone(), count.clone());
    let config = Config::new().memory_bytes_max(64 << 20).on_departure(move |event| {
        counted.fetch_add(1, Ordering::SeqCst);
        let before = order.lock().unwrap().insert(event.key.to_vec(), event.version);
        assert!(before.is_none_or(|before| before < event.version), "{event:?} behind {before:?}");
    });
    let cache = Cache::new(config).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..20_000 {
                    cache.set(format!("k{}", number % 7), "value", Expiry::Never).unwrap();
                }
            });
        }
    });
    // Each of 80 000 values was replaced, but for the last of each of 7 keys; a panic above would lose one.
    assert_eq!(count.load(Ordering::SeqCst), 80_000 - 7);
    assert_eq!(newest.lock().unwrap().len(), 7);
}

#[test]
fn listener_may_use_the_cache_and_may_panic() {
    let cell: Arc<OnceLock<Cache>> = Arc::default();
    let inner = cell.clone();
    let config = Config::new().memory_bytes_max(4 << 20).on_departure(move |event| {
        let cache = inner.get().unwrap();
        match &event.key[..] {
            b"copied" => drop(cache.set("copy", &event.value, Expiry::Never)),
            b"panics" => panic!("a listener's bug"),
            _ => {}
        }
    });
    let cache = Cache::new(config).unwrap();
    cell.set(cache.clone()).unwrap();
    for key in ["copied", "panics", "copied"] {
        cache.set(key, "old", Expiry::Never).unwrap();
        cache.set(key, "new", Expiry::Never).unwrap();
    }
    assert_eq!(&cache.get("copy").unwrap().unwrap().value[..], b"old");
    cache.check_invariants();
}

#[test]
fn a_listener_that_wants_nothing_is_told_nothing() {
    let (told, wanted) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let events = told.clone();
    let config =
        Config::new().on_departure_while(wanted.clone(), move |event| events.lock().unwrap().push(event));
    let cache = Cache::new(config).unwrap();
    for is_wanted in [false, true, false] {
        wanted.store(is_wanted, Ordering::Relaxed);
        cache.set("k", "v", Expiry::Never).unwrap();
        cache.delete("k").unwrap();
    }
    assert_eq!(told.lock().unwrap().len(), 1);
}
