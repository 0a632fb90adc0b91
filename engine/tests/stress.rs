//! Eight threads on one small cache: every value that is read is one that was written under that key, whole, and the
//! versions that a thread sees of a key never go back, while items are evicted, moved, split over chunks, touched,
//! deleted, flushed, and the index grows and shrinks.
//!
//! The seed is printed; HOTSPARE_STRESS_MS sets how long it runs (default 1 500 milliseconds).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hotspare::{Cache, Config, Expiry};

const THREADS: u64 = 8;
const KEYS: u64 = 5_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn key(number: u64) -> Vec<u8> {
    let mut key = format!("key-{number}-").into_bytes();
    key.resize(key.len() + (number % 40) as usize, b'k');
    key
}

/// A value that says which key it belongs to and whose every byte follows from its first sixteen.
fn value(number: u64, nonce: u64, len: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend(nonce.to_le_bytes());
    let mut random = Random(nonce | 1);
    while value.len() < len {
        value.extend(random.next().to_le_bytes());
    }
    value
}

fn check(number: u64, read: &[u8]) {
    let word = |at: usize| u64::from_le_bytes(read[at..at + 8].try_into().unwrap());
    assert_eq!(word(0), number, "a value of another key");
    assert!(read == value(number, word(8), read.len()), "a value that is not whole");
}

fn length(random: &mut Random) -> usize {
    let multiple_of_eight = match random.below(20) {
        0 => 2 + random.below(10_000),
        1..4 => 2 + random.below(600),
        _ => 2 + random.below(30),
    };
    multiple_of_eight as usize * 8
}

fn work(cache: &Cache, thread: u64, stop: &AtomicBool, hits: &AtomicU64) {
    let mut random = Random(0x5eed_0000 + thread * 7_919 + 1);
    let mut seen: HashMap<u64, u64> = HashMap::new();
    let mut operations = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        operations += 1;
        // Some keys are wanted by all threads all the time.
        let number = if random.below(4) == 0 { random.below(16) } else { random.below(KEYS) };
        let key = key(number);
        match random.below(100) {
            0..60 => {
                let read = cache.read(&key, |item| {
                    assert_eq!(item.key, &key[..]);
                    check(number, &item.value.to_vec());
                    item.version.0
                });
                if let Some(version) = read.unwrap() {
                    let before = seen.insert(number, version).unwrap_or(0);
                    assert!(version >= before, "key {number}: version {version} after {before}");
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
            60..85 => {
                let stored =
                    cache.set(&key, value(number, random.next(), length(&mut random)), Expiry::Never);
                let version = stored.unwrap().0;
                let before = seen.insert(number, version).unwrap_or(0);
                assert!(version > before, "key {number}: stored as {version} after {before}");
            }
            85..90 => {
                cache.delete(&key).unwrap();
            }
            90..95 => {
                let lifetime = Duration::from_millis(random.below(200));
                cache.touch(&key, Expiry::After(lifetime)).unwrap();
            }
            95..99 => {
                // A read and a compare-and-swap by its version.
                if let Some(item) = cache.get(&key).unwrap() {
                    check(number, &item.value);
                    let new = value(number, random.next(), length(&mut random));
                    cache.compare_and_swap(&key, item.version, new, Expiry::Never).unwrap();
                }
            }
            _ if operations.is_multiple_of(5_000) => cache.flush().unwrap(),
            _ => {
                assert!(cache.stats().memory_bytes <= cache.stats().memory_bytes_max);
            }
        }
    }
}

/// Ends the threads, whether the test goes well or panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stress(memory_bytes: usize, shards: usize) {
    let millis = std::env::var("HOTSPARE_STRESS_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_500);
    let config =
        Config::new().memory_bytes_max(memory_bytes).item_bytes_max(256 << 10).shards(shards).hash_seed(42);
    let cache = Cache::new(config).unwrap();
    let (stop, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    let stop_here = &stop;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, stop, hits) = (&cache, &stop, &hits);
            scope.spawn(move || work(cache, thread, stop, hits));
        }
        let _stop_at_end = StopAtEnd(stop_here);
        let end = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
            cache.check_invariants();
        }
    });
    cache.check_invariants();
    let stats = cache.stats();
    println!("{stats:?}");
    assert!(stats.evictions > 0 && stats.pages_moved > 0 && hits.load(Ordering::Relaxed) > 100);
    // What is left is readable.
    for item in cache.inspect().items {
        let number = u64::from_le_bytes(item.1[..8].try_into().unwrap());
        assert_eq!(item.0, key(number));
        check(number, &item.1);
    }
}

#[test]
fn one_shard_serves_eight_threads() {
    stress(1 << 20, 1);
}

#[test]
fn four_shards_share_their_pages_under_eight_threads() {
    stress(4 << 20, 4);
}
