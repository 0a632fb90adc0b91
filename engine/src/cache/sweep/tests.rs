//! Claims about the sweep, one each; time stands still but for what a test says.

use std::sync::Arc;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::mutation::Expiry;
use crate::storage::LOOKS_A_WRITE;
use crate::{Config, Cursor};

/// Numbers without any pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from((self.0 >> 11) << 11) * u128::from(bound)) >> 64) as u64
    }

    /// From 1 to `max`, each order of magnitude as likely as the others.
    fn of_any_size(&mut self, max: u64) -> u64 {
        let bits = f64::from(self.below(1 << 20) as u32) / f64::from(1 << 20);
        (max as f64).powf(bits).max(1.0) as u64
    }
}

/// A steady stream of writes: so many in a second, each with a lifetime (0 is none) and a size.
struct Workload {
    memory_bytes: usize,
    writes_a_second: u64,
    warm_up_ms: u64,
    lifetime_ms: fn(&mut Numbers) -> u64,
    value_bytes: fn(&mut Numbers) -> usize,
}

const ALIKE: Workload = Workload {
    memory_bytes: 16 << 20,
    writes_a_second: 1_000,
    warm_up_ms: 61_000,
    lifetime_ms: |_| 60_000,
    value_bytes: |_| 120,
};

/// What a workload came to, once it was warm.
#[derive(Debug, Default)]
struct Measured {
    /// Of 1000 bytes of items, those of dead ones: on average, and at most.
    dead_per_mille: f64,
    dead_per_mille_max: f64,
    looks_a_write: f64,
    evictions_a_write: f64,
    memory_used_percent: u64,
}

fn looks(cache: &Cache) -> u64 {
    cache.inner.shards.iter().map(|cell| cell.lock().shard.sweep_looks()).sum()
}

fn live_items(cache: &Cache) -> u64 {
    let (mut next, mut count) = (Some(Cursor::START), 0);
    while let Some(cursor) = next {
        next = cache.scan_from(cursor, [], 1 << 20, |_| count += 1).unwrap();
    }
    count
}

fn live_bytes(cache: &Cache) -> u64 {
    let (mut next, mut bytes) = (Some(Cursor::START), 0);
    while let Some(cursor) = next {
        next = cache
            .scan_from(cursor, [], 1 << 20, |item| {
                let header = if item.expires_at_ms.is_some() { 28 } else { 20 };
                bytes += header + item.key.len() as u64 + item.value.len() as u64;
            })
            .unwrap();
    }
    bytes
}

fn cache(memory_bytes: usize) -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let config = Config::new().memory_bytes_max(memory_bytes).item_bytes_max(64 << 10).shards(1);
    (Cache::new(config.hash_seed(1).clock(clock.clone())).unwrap(), clock)
}

fn run(name: &str, workload: &Workload) -> Measured {
    const SAMPLES: u64 = 60;
    let (cache, clock) = cache(workload.memory_bytes);
    let mut numbers = Numbers(7);
    let value = vec![7; 4_000];
    let (mut written, mut measured, mut samples) = (0, Measured::default(), 0);
    let mut before = (0, 0, 0);
    for ms in 0..2 * workload.warm_up_ms {
        clock.advance_ms(1);
        let due = (ms + 1) * workload.writes_a_second / 1_000;
        while written < due {
            let looks_before = looks(&cache);
            let expiry = match (workload.lifetime_ms)(&mut numbers) {
                0 => Expiry::Never,
                lifetime_ms => Expiry::After(std::time::Duration::from_millis(lifetime_ms)),
            };
            cache
                .set(format!("key:{written:012}"), &value[..(workload.value_bytes)(&mut numbers)], expiry)
                .unwrap();
            assert!(looks(&cache) - looks_before <= LOOKS_A_WRITE as u64, "one write looks too often");
            written += 1;
        }
        if ms == workload.warm_up_ms {
            before = (written, looks(&cache), cache.stats().evictions);
        }
        if ms > workload.warm_up_ms && ms % (workload.warm_up_ms / SAMPLES) == 0 {
            let bytes = cache.stats().item_bytes;
            let dead = (bytes - live_bytes(&cache)) as f64 * 1000.0 / bytes as f64;
            measured.dead_per_mille += dead;
            measured.dead_per_mille_max = measured.dead_per_mille_max.max(dead);
            samples += 1;
        }
    }
    cache.check_invariants();
    let stats = cache.stats();
    let writes = (written - before.0) as f64;
    measured.dead_per_mille /= f64::from(samples);
    measured.looks_a_write = (looks(&cache) - before.1) as f64 / writes;
    measured.evictions_a_write = (stats.evictions - before.2) as f64 / writes;
    measured.memory_used_percent = stats.memory_bytes * 100 / stats.memory_bytes_max;
    println!("{name}: {measured:?}");
    measured
}

fn assert_dead_below_one_percent(name: &str, workload: &Workload) -> Measured {
    let measured = run(name, workload);
    assert!(measured.dead_per_mille_max < 10.0, "{name}: {measured:?}");
    measured
}

#[test]
fn dead_stay_below_one_percent_where_lifetimes_are_alike() {
    let measured = assert_dead_below_one_percent("alike", &ALIKE);
    assert!(measured.looks_a_write < 8.0, "pages are looked at when they are dead: {measured:?}");
}

#[test]
fn dead_stay_below_one_percent_where_each_lifetime_is_another() {
    let lifetime_ms = |numbers: &mut Numbers| 1 + numbers.below(100_000);
    let workload = Workload { warm_up_ms: 100_000, lifetime_ms, ..ALIKE };
    let measured = assert_dead_below_one_percent("uniform", &workload);
    assert!(measured.looks_a_write < 15.0, "the soonest are listed: {measured:?}");
}

#[test]
fn dead_stay_below_one_percent_where_lifetimes_are_of_any_order() {
    let lifetime_ms = |numbers: &mut Numbers| numbers.of_any_size(600_000);
    let workload = Workload { warm_up_ms: 300_000, lifetime_ms, ..ALIKE };
    let measured = assert_dead_below_one_percent("any order", &workload);
    assert!(measured.looks_a_write < 15.0, "the soonest are listed: {measured:?}");
}

#[test]
fn dead_stay_below_one_percent_beside_items_that_never_expire() {
    let lifetime_ms = |numbers: &mut Numbers| numbers.below(2) * 30_000;
    let workload = Workload { warm_up_ms: 150_000, lifetime_ms, ..ALIKE };
    let measured = assert_dead_below_one_percent("half never", &workload);
    assert!(measured.evictions_a_write > 0.1, "the cache is full: {measured:?}");
}

#[test]
fn dead_stay_below_one_percent_in_items_of_many_sizes() {
    let value_bytes = |numbers: &mut Numbers| numbers.of_any_size(4_000) as usize;
    let workload = Workload { memory_bytes: 32 << 20, writes_a_second: 600, value_bytes, ..ALIKE };
    assert_dead_below_one_percent("many sizes", &workload);
}

#[test]
fn dead_stay_below_one_percent_in_a_full_cache_of_mixed_lifetimes() {
    let lifetime_ms = |numbers: &mut Numbers| 1 + numbers.below(300_000);
    let workload = Workload { warm_up_ms: 200_000, lifetime_ms, ..ALIKE };
    let measured = assert_dead_below_one_percent("full", &workload);
    assert!(measured.evictions_a_write > 0.1, "the cache is full: {measured:?}");
}

#[test]
fn cache_without_expiries_never_sweeps() {
    let measured = run("never", &Workload { lifetime_ms: |_| 0, ..ALIKE });
    assert_eq!(measured.looks_a_write, 0.0);
}

#[test]
fn items_that_are_touched_all_the_time_do_not_hide_the_dead() {
    let (cache, clock) = cache(16 << 20);
    let mut numbers = Numbers(5);
    for step in 0..600_000_u64 {
        clock.advance_ms(u64::from(step % 2 == 0));
        let lifetime = Expiry::After(std::time::Duration::from_millis(1 + numbers.below(40_000)));
        let key = format!("key:{:06}", numbers.below(60_000));
        if !cache.touch(&key, lifetime).unwrap() {
            cache.set(&key, [7; 100], lifetime).unwrap();
        }
    }
    let (items, live) = (cache.stats().items, live_items(&cache));
    assert!((items - live) * 100 < items, "{} of {items} are dead", items - live);
    cache.check_invariants();
}

fn fill(cache: &Cache, prefix: &str, count: u64) {
    for number in 0..count {
        cache.set(format!("{prefix}:{number}"), [7; 100], Expiry::Never).unwrap();
    }
}

#[test]
fn the_flushed_are_gone_after_a_bounded_number_of_writes() {
    let (cache, _) = cache(16 << 20);
    fill(&cache, "old", 50_000);
    cache.flush().unwrap();
    fill(&cache, "new", 6_000);
    let stats = cache.stats();
    assert_eq!(stats.items, 6_000);
    assert_eq!((stats.reclaimed, stats.evictions), (50_000, 0));
    cache.check_invariants();
}

#[test]
fn items_that_expire_all_at_once_are_gone_after_a_bounded_number_of_writes() {
    let (cache, clock) = cache(16 << 20);
    for number in 0..50_000 {
        let expiry = if number % 5 == 0 { Expiry::At(1_001_000) } else { Expiry::Never };
        cache.set(format!("key:{number}"), [7; 100], expiry).unwrap();
    }
    clock.advance_ms(1_000);
    // Each page has such items, so each is looked at once.
    fill(&cache, "new", 50_000 / (LOOKS_A_WRITE as u64 / 2));
    let dead = cache.stats().items - live_items(&cache);
    assert!(dead * 100 < cache.stats().items, "{dead} are dead");
}

#[test]
fn items_of_an_invalidated_prefix_are_gone_after_a_bounded_number_of_writes() {
    let (cache, _) = cache(16 << 20);
    for number in 0..25_000 {
        cache.set(format!("user:{number}"), [7; 100], Expiry::Never).unwrap();
        cache.set(format!("page:{number}"), [7; 100], Expiry::Never).unwrap();
    }
    cache.invalidate_prefix("user:").unwrap();
    fill(&cache, "new", 5_000);
    assert_eq!(cache.stats().items, 25_000 + 5_000);
    assert_eq!(live_items(&cache), 25_000 + 5_000);
    cache.check_invariants();
}

#[test]
fn prefixes_that_are_invalidated_all_the_time_do_not_keep_a_sweep_from_its_end() {
    let (cache, _) = cache(16 << 20);
    fill(&cache, "old", 50_000);
    cache.invalidate_prefix("old").unwrap();
    for number in 0..10_000 {
        cache.set(format!("new:{number}"), [7; 100], Expiry::Never).unwrap();
        cache.invalidate_prefix("other").unwrap();
    }
    assert_eq!(cache.stats().items, 10_000);
}

#[test]
fn expired_items_leave_before_live_ones_are_evicted() {
    let (cache, clock) = cache(4 << 20);
    let mut numbers = Numbers(3);
    let mut number = 0;
    while cache.stats().evictions == 0 {
        let expiry = if numbers.below(4) == 0 { Expiry::At(1_001_000) } else { Expiry::Never };
        cache.set(format!("key:{number:08}"), [7; 100], expiry).unwrap();
        number += 1;
    }
    let dead = number / 4;
    clock.advance_ms(1_000);
    for number in 0..dead * 8 / 10 {
        cache.set(format!("new:{number:08}"), [7; 100], Expiry::Never).unwrap();
    }
    let evictions = cache.stats().evictions;
    assert!(evictions < dead / 50, "{evictions} evictions beside {dead} dead items");
}

#[test]
fn idle_cache_is_swept_by_whoever_asks() {
    let (cache, clock) = cache(4 << 20);
    for number in 0..10_000 {
        cache.set(format!("key:{number}"), [7; 100], Expiry::At(1_001_000)).unwrap();
    }
    assert_eq!(cache.sweep(1_000), 0, "nothing is dead yet");
    clock.advance_ms(1_000);
    assert!((1..=100).contains(&cache.sweep(100)));
    while cache.sweep(1_000) > 0 {}
    assert_eq!(cache.stats().items, 0);
    assert_eq!(cache.stats().expired_unfetched, 10_000);
}

#[test]
fn an_item_that_is_stored_anew_with_a_shorter_life_is_swept_when_that_is_over() {
    let (cache, clock) = cache(4 << 20);
    let store = |number: u32, lifetime_ms: u64| {
        let expiry = Expiry::At(clock.now_ms() + lifetime_ms);
        cache.set(format!("key {number:04}").as_bytes(), [7; 100], expiry).unwrap();
    };
    (0..1000).for_each(|number| store(number, 1_000_000_000));
    (0..1000).for_each(|number| store(number, 10_000));
    assert_eq!(cache.stats().items, 1000);
    clock.advance_ms(10_001);
    cache.sweep(usize::MAX);
    assert_eq!(cache.stats().items, 0);
}
