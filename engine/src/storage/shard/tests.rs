//! Claims about a shard, one each.

use std::sync::LazyLock;

use super::super::*;
use super::*;
use crate::mutation::{Pass, Version};
use crate::storage::Tables;
use crate::storage::walk::TooManyWalks;

const NOW_MS: u64 = 1_000;
static FLOORS: LazyLock<Floors> = LazyLock::new(Floors::new);

fn now() -> Moment<'static> {
    Moment { clock: &NOW_MS, floors: &FLOORS }
}

const PLAIN: Meta =
    Meta { version: Version(1), flags: 0, expires_at_ms: 0, marks: Marks(0), client_cas: None };

const LRU: Policy =
    Policy { probation_per_mille: 300, hits_max: 1, decay_tenths: 20, small: 0, tries_in_drought: false };

fn shard(memory_bytes: usize) -> Shard {
    lone(PagePool::new(memory_bytes, 1).unwrap(), true)
}

fn lone(pool: std::sync::Arc<PagePool>, evict: bool) -> Shard {
    let tables = Tables::new(&pool);
    Shard::new(pool, tables, 0, evict, LRU, KeyHasher::new(5, None))
}

fn try_put(
    shard: &mut Shard,
    key: &[u8],
    value: &[u8],
    meta: Meta,
    place: Place,
) -> Result<(), ReserveError> {
    let footprint = Footprint::of(key.len(), value.len(), &meta);
    let hash = shard.hasher.hash(key);
    let reservation = shard.reserve(hash, footprint, now())?;
    shard.commit(reservation, hash, key, value, meta, place, |_| meta.version);
    Ok(())
}

/// As a set does it; whether it was a trade.
fn put(shard: &mut Shard, key: &str, value: &[u8]) -> bool {
    let hash = shard.hasher.hash(key.as_bytes());
    let at = shard.index.look_ahead(hash);
    if shard.trade(at, key.as_bytes(), value, 0, |_| PLAIN.version).is_some() {
        return true;
    }
    try_put(shard, key.as_bytes(), value, PLAIN, Place::New).unwrap();
    false
}

fn find(shard: &Shard, key: &str) -> Option<ItemId> {
    shard.find(shard.hasher.hash(key.as_bytes()), key.as_bytes())
}

fn keys(shard: &Shard) -> Vec<String> {
    let items = shard.lru.check_invariants(shard.memory()).0;
    items.into_iter().map(|first| String::from_utf8(shard.view().key(first).to_vec()).unwrap()).collect()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 131 + at / 251 + seed) as u8).collect()
}

/// Stores values of this size until a fixed amount was written, and says what part of the limit is keys and values.
fn fill(shard: &mut Shard, phase: &str, sizes: &[usize], bytes: usize) -> f64 {
    let (mut written, mut number) = (0, 0_usize);
    while written < bytes {
        let size = sizes[number.wrapping_mul(0x9e37_79b9) % 1_000_003 % sizes.len()];
        put(shard, &format!("{phase}-{number:08}"), &pattern(size, number));
        written += size;
        number += 1;
    }
    shard.check_invariants();
    let payload: usize = keys_and_values(shard);
    payload as f64 / shard.pool.memory_bytes_max() as f64
}

fn keys_and_values(shard: &Shard) -> usize {
    let items = shard.lru.check_invariants(shard.memory()).0.into_iter().map(ItemId::from);
    items.map(|id| shard.key(id).len() + shard.value(id).len()).sum()
}

#[test]
fn oldest_item_leaves_first_whatever_its_class() {
    let mut shard = shard(1 << 20);
    let sizes = [60, 900, 10_000, 3_000, 100_000, 20];
    for number in 0..5_000_usize {
        put(&mut shard, &format!("{number}"), &pattern(sizes[number % 6], number));
        let first: usize = keys(&shard)[0].parse().unwrap();
        let expected: Vec<String> = (first..=number).map(|number| number.to_string()).collect();
        if number % 97 == 0 {
            assert_eq!(keys(&shard), expected);
            shard.check_invariants();
        }
    }
    assert!(shard.counters().evictions > 1_000);
}

#[test]
fn three_mebibytes_of_large_values_leave_oldest_first() {
    let mut shard = shard(3 << 20);
    for number in 0..101 {
        put(&mut shard, &number.to_string(), &pattern(66_560, number));
    }
    shard.check_invariants();
    let left = keys(&shard);
    assert!(left.len() >= 43, "{} of 47 possible items", left.len());
    assert_eq!(left, (101 - left.len()..101).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn item_read_on_probation_goes_to_the_main_queue_and_leaves_when_it_is_not_read_there() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "read", &[1; 5_000]);
    let id = find(&shard, "read").unwrap();
    let hash = shard.hash(id);
    assert!(shard.mark(hash, id, |marks| marks.read(1)));
    assert!(!shard.mark(hash, id, |marks| marks.read(1)));
    for number in 0..250 {
        put(&mut shard, &number.to_string(), &[0; 5_000]);
    }
    assert!(find(&shard, "0").is_none());
    let marks = shard.meta(find(&shard, "read").expect("it was read")).marks;
    assert!(marks.is_main() && marks.hits() == 0 && marks.is_fetched());
    // A scan passes through probation for ever; the main queue gives way when others are promoted.
    for number in 250..900 {
        put(&mut shard, &number.to_string(), &[0; 5_000]);
        let id = find(&shard, &number.to_string()).unwrap();
        shard.mark(shard.hash(id), id, |marks| marks.read(1));
    }
    assert!(find(&shard, "read").is_none());
    shard.check_invariants();
}

#[test]
fn item_evicted_unread_and_stored_again_begins_in_the_main_queue() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "back", &[1; 5_000]);
    for number in 0..220 {
        put(&mut shard, &number.to_string(), &[0; 5_000]);
    }
    assert!(find(&shard, "back").is_none());
    put(&mut shard, "back", &[1; 5_000]);
    put(&mut shard, "never seen", &[1; 5_000]);
    let is_main = |key| shard.meta(find(&shard, key).unwrap()).marks.is_main();
    assert!(is_main("back") && !is_main("never seen"));
}

#[test]
fn scan_leaves_what_is_read_again_and_again() {
    let mut shard = shard(1 << 20);
    for round in 0..40 {
        for number in 0..30 {
            let key = format!("often {number}");
            match find(&shard, &key) {
                Some(id) => _ = shard.mark(shard.hash(id), id, |marks| marks.read(1)),
                None => _ = put(&mut shard, &key, &[1; 5_000]),
            }
        }
        for number in 0..100 {
            put(&mut shard, &format!("once {round} {number}"), &[0; 5_000]);
        }
    }
    let left = (0..30).filter(|number| find(&shard, &format!("often {number}")).is_some()).count();
    assert_eq!(left, 30, "a scan of three caches a round passes through probation");
}

#[test]
fn store_ends_though_every_item_is_marked() {
    let mut shard = shard(1 << 20);
    for number in 0..20_000 {
        put(&mut shard, &number.to_string(), &[0; 100]);
        let id = find(&shard, &number.to_string()).unwrap();
        shard.mark(shard.hash(id), id, |marks| marks.hit(3));
    }
    shard.check_invariants();
}

#[test]
fn chained_value_comes_back_at_each_boundary_size() {
    let mut shard = shard(1 << 20);
    let edges = (1..=512).map(|eighth| eighth * 512).chain([0, 300_000, 500_000]);
    for edge in edges {
        for size in edge - edge.min(70)..=edge + 2 {
            let value = pattern(size, size);
            let key = "k".repeat(1 + size % 1024);
            put(&mut shard, &key, &value);
            let found = shard.value(find(&shard, &key).unwrap());
            assert_eq!(found.len(), size);
            assert!(found.pieces().flatten().eq(&value), "{size}");
            assert!(found.to_vec() == value, "{size}");
            assert_eq!(
                found.as_slice().is_some(),
                found.pieces().count() == 1 || found.pieces().skip(1).all(<[u8]>::is_empty)
            );
        }
        shard.check_invariants();
    }
}

#[test]
fn each_phase_of_other_sizes_stores_as_well_as_a_fresh_cache() {
    let bytes = 4 << 20;
    let mut old = shard(bytes);
    for (phase, size) in [("a", 100), ("b", 4 << 10), ("c", 200 << 10), ("d", 100), ("e", 20), ("f", 4 << 10)]
    {
        let reused = fill(&mut old, phase, &[size], 3 * bytes);
        let fresh = fill(&mut shard(bytes), phase, &[size], 3 * bytes);
        println!(
            "values of {size}: keys and values are {fresh:.3} of a fresh cache, {reused:.3} of a used one"
        );
        assert!(reused >= 0.98 * fresh, "phase {phase}: {reused} against {fresh}");
        let left = keys(&old).iter().filter(|key| !key.starts_with(phase)).count();
        assert!(left * 100 <= old.item_count(), "{left} items of other sizes are left");
    }
}

#[test]
fn mixed_sizes_use_most_of_the_limit() {
    let sizes: Vec<usize> = (0..4_000).map(|number| 100 + number).collect();
    let mut one = shard(8 << 20);
    let used = fill(&mut one, "m", &sizes, 40 << 20);
    println!("mixed sizes of 100 B to 4 KiB in 8 MiB: {used:.3}");
    assert!(used >= 0.85, "{used}");
    let mut tiny = shard(1 << 20);
    let used = fill(&mut tiny, "m", &sizes, 10 << 20);
    println!("mixed sizes of 100 B to 4 KiB in 1 MiB: {used:.3}");
    assert!(used >= 0.75, "{used}");
}

#[test]
fn half_mebibyte_values_fill_at_least_90_percent_of_64_mebibytes() {
    let pool = PagePool::new(64 << 20, 8).unwrap();
    let (hasher, tables) = (KeyHasher::new(1, None), Tables::new(&pool));
    let shard = |at| Shard::new(pool.clone(), tables.clone(), at, true, LRU, hasher.clone());
    let mut shards: Vec<Shard> = (0..8).map(shard).collect();
    for number in 0..1_000_usize {
        let key = number.to_string();
        let home = hasher.hash(key.as_bytes()) as usize % 8;
        for _ in 0..4 {
            let result =
                try_put(&mut shards[home], key.as_bytes(), &pattern(512 << 10, number), PLAIN, Place::New);
            let Err(ReserveError::Shortage { mut pages }) = result else {
                assert_eq!(result, Ok(()));
                break;
            };
            for other in (1..8).map(|step| (home + step) % 8) {
                pages = pages.saturating_sub(shards[other].surrender_pages(pages, now()));
            }
        }
        assert!(find(&shards[home], &key).is_some());
    }
    let values: usize = shards.iter().map(|shard| shard.item_count() * (512 << 10)).sum();
    println!("512 KiB values in 64 MiB: {:.3}", values as f64 / (64 << 20) as f64);
    assert!(values as f64 >= 0.9 * (64 << 20) as f64);
    pool.check_invariants(shards.iter().map(Shard::page_count).sum());
}

#[test]
fn moved_items_keep_contents_and_order() {
    let mut shard = shard(1 << 20);
    for number in 0..1_600_usize {
        put(&mut shard, &format!("{number:04}"), &pattern(450, number));
    }
    let kept: Vec<String> = (0..1_600).filter(|number| number % 3 == 0).map(|n| format!("{n:04}")).collect();
    for number in (0..1_600).filter(|number| number % 3 != 0) {
        let key = format!("{number:04}");
        let id = find(&shard, &key).unwrap();
        shard.remove(shard.hasher.hash(key.as_bytes()), id, Cause::Removed);
    }
    put(&mut shard, "large", &pattern(500_000, 1));
    assert!(shard.counters().pages_moved > 10, "{:?}", shard.counters());
    assert_eq!(shard.counters().evictions, 0);
    shard.check_invariants();
    assert_eq!(&keys(&shard)[..kept.len()], &kept);
    for key in &kept {
        let value = shard.value(find(&shard, key).unwrap()).to_vec();
        assert!(value == pattern(450, key.parse().unwrap()));
    }
}

#[test]
fn dead_items_met_by_the_pass_are_counted_apart() {
    let mut shard = shard(1 << 20);
    for number in 0..100 {
        let meta = Meta { expires_at_ms: NOW_MS, ..PLAIN };
        try_put(&mut shard, format!("dead-{number}").as_bytes(), &[0; 5_000], meta, Place::New).unwrap();
    }
    assert!(shard.is_dead(find(&shard, "dead-0").unwrap(), now()), "dead when the deadline is now");
    for number in 0..160 {
        put(&mut shard, &number.to_string(), &[0; 5_000]);
    }
    let counters = shard.counters();
    assert_eq!((counters.evictions, counters.evicted_unfetched), (0, 0));
    assert!(counters.reclaimed > 50);
    assert_eq!(counters.expired_unfetched, counters.reclaimed);
    shard.reset_counters();
    assert_eq!(shard.counters(), Counters::default());
}

#[test]
fn without_eviction_a_full_shard_refuses_and_uses_dead_memory_again() {
    let mut shard = lone(PagePool::new(1 << 20, 1).unwrap(), false);
    let dying = Meta { expires_at_ms: 500, ..PLAIN };
    for number in 0..50 {
        try_put(&mut shard, format!("live-{number}").as_bytes(), &[0; 5_000], PLAIN, Place::New).unwrap();
    }
    for number in 0..50 {
        try_put(&mut shard, format!("dead-{number}").as_bytes(), &[0; 5_000], dying, Place::New).unwrap();
    }
    let stored = (0..).take_while(|number| {
        try_put(&mut shard, format!("more-{number}").as_bytes(), &[0; 5_000], PLAIN, Place::New).is_ok()
    });
    assert!(stored.count() > 100);
    let refused = try_put(&mut shard, b"one more", &[0; 5_000], PLAIN, Place::New);
    assert_eq!(refused, Err(ReserveError::OutOfMemory));
    assert!((0..50).all(|number| find(&shard, &format!("live-{number}")).is_some()));
    assert_eq!((shard.counters().evictions, shard.counters().reclaimed), (0, 50));
    shard.check_invariants();
}

#[test]
fn item_that_can_never_fit_evicts_nothing() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "stays", b"value");
    assert_eq!(
        shard.reserve(7, Footprint::new(5, 2 << 20, 0, 0), now()).unwrap_err(),
        ReserveError::OutOfMemory
    );
    assert!(find(&shard, "stays").is_some());
}

#[test]
fn item_of_half_the_memory_fits() {
    let mut shard = shard(1 << 20);
    fill(&mut shard, "small", &[50, 500], 2 << 20);
    put(&mut shard, "half", &pattern((1 << 19) - 100, 3));
    assert!(shard.value(find(&shard, "half").unwrap()).to_vec() == pattern((1 << 19) - 100, 3));
    shard.check_invariants();
}

#[test]
fn shard_without_pages_gets_them_from_another() {
    let pool = PagePool::new(1 << 20, 2).unwrap();
    let tables = Tables::new(&pool);
    let mut rich = Shard::new(pool.clone(), tables.clone(), 0, true, LRU, KeyHasher::new(1, None));
    let mut poor = Shard::new(pool.clone(), tables.clone(), 1, true, LRU, KeyHasher::new(1, None));
    fill(&mut rich, "rich", &[100, 3_000], 3 << 20);
    let shortage = try_put(&mut poor, b"key", &[7; 20_000], PLAIN, Place::New);
    let Err(ReserveError::Shortage { pages }) = shortage else { panic!("{shortage:?}") };
    assert_eq!(rich.surrender_pages(pages, now()), pages);
    try_put(&mut poor, b"key", &[7; 20_000], PLAIN, Place::New).unwrap();
    rich.check_invariants();
    poor.check_invariants();
    pool.check_invariants(rich.page_count() + poor.page_count());
    drop((rich, poor));
    pool.check_invariants(0);
}

#[test]
fn installed_items_keep_their_order_colder_than_new_stores() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "before", b"");
    shard.install_begin();
    let install = |shard: &mut Shard, key: &[u8]| try_put(shard, key, b"", PLAIN, Place::Install).unwrap();
    install(&mut shard, b"first");
    put(&mut shard, "new", b"");
    install(&mut shard, b"second");
    put(&mut shard, "newer", b"");
    install(&mut shard, b"third");
    assert_eq!(keys(&shard), ["before", "first", "second", "third", "new", "newer"]);
    shard.install_end();
    install(&mut shard, b"late");
    assert_eq!(keys(&shard).last().unwrap(), "late");
    shard.check_invariants();
}

#[test]
fn walks_beyond_the_most_are_refused_and_a_name_is_not_used_twice() {
    let mut shard = shard(1 << 20);
    put(&mut shard, "key", b"");
    let walks: Vec<WalkId> = std::iter::from_fn(|| shard.walk_begin().ok()).collect();
    assert_eq!(walks.len(), 32);
    assert_eq!(shard.walk_begin(), Err(TooManyWalks { walks_max: 32 }));
    shard.walk_end(walks[3]);
    let again = shard.walk_begin().unwrap();
    assert_eq!(shard.walk_step(walks[3], 9, 9, |_, _| panic!("ended")), WalkStep::Ended);
    let mut visits = 0;
    assert_eq!(shard.walk_step(again, 9, 999, |_, _| visits += 1), WalkStep::AtHotEnd);
    assert_eq!(visits, 1);
    shard.check_invariants();
}

#[test]
fn cleared_shard_gives_all_pages_back() {
    let mut shard = shard(1 << 20);
    fill(&mut shard, "x", &[10, 100, 1_000, 10_000], 2 << 20);
    shard.clear();
    shard.check_invariants();
    assert_eq!((shard.item_count(), shard.item_bytes(), shard.index_bytes()), (0, 0, 0));
    assert_eq!(shard.pool.pages_out(), 0);
    put(&mut shard, "key", b"value");
    shard.check_invariants();
}

#[test]
fn overhead_of_a_small_item_is_below_40_bytes() {
    for is_accounting in [false, true] {
        check_overhead(is_accounting);
    }
}

fn check_overhead(is_accounting: bool) {
    let bytes = 8 << 20;
    let mut shard = lone(PagePool::with_accounting(bytes, 1, is_accounting).unwrap(), true);
    fill(&mut shard, "0123456789", &[100], 3 * bytes);
    let overhead = bytes as f64 / shard.item_count() as f64 - 119.0;
    println!("overhead of an item with 19 + 100 bytes: {overhead:.1} bytes, index {}", shard.index_bytes());
    assert!(overhead < 40.0, "{overhead}");
}

#[test]
fn no_page_stays_in_hand_when_there_is_no_room_at_once() {
    let mut shard = shard(1 << 20);
    let mut refused = 0;
    for number in 0..200_000_usize {
        let key = format!("{number}");
        let value_bytes = if number / 5_000 % 2 == 0 { 50 } else { 3_000 };
        let footprint = Footprint::new(key.len(), value_bytes, 0, 0);
        match shard.reserve_at_once(number as u64, footprint, now()) {
            Some(reservation) => shard.cancel(reservation),
            None => {
                refused += 1;
                assert!(shard.in_hand.is_empty(), "shard 4: pages in hand");
            }
        }
        put(&mut shard, &key, &pattern(value_bytes, number));
    }
    assert!(refused > 0);
    shard.check_invariants();
}

/// What decides who leaves next, and who is left.
fn state(shard: &Shard) -> (Vec<String>, u64, u64, usize, String) {
    let pages = shard.page_count();
    (keys(shard), shard.owed_bytes, shard.evictions, pages, format!("{:?}", shard.drought))
}

#[test]
fn a_trade_leaves_what_a_reservation_and_a_commit_would() {
    let policies = [LRU, Policy { small: 8, tries_in_drought: true, hits_max: 3, ..LRU }];
    for (policy, sizes) in policies.into_iter().zip([&[100][..], &[100, 101, 40, 300]]) {
        let twin = || {
            let pool = PagePool::new(256 << 10, 1).unwrap();
            let tables = Tables::new(&pool);
            Shard::new(pool, tables, 0, true, policy, KeyHasher::new(5, None))
        };
        let (mut plain, mut general) = (twin(), twin());
        let mut trades = 0;
        for number in 0..20_000_usize {
            let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let (key, value) =
                (format!("key-{:05}", random % 9_000), pattern(sizes[random % sizes.len()], number));
            let evictions = plain.evictions;
            trades += usize::from(put(&mut plain, &key, &value) && plain.evictions > evictions);
            // Without an item that was looked ahead for no eviction is plain.
            general.ahead = 0;
            try_put(&mut general, key.as_bytes(), &value, PLAIN, Place::New).unwrap();
            let read = format!("key-{:05}", random / 9_000 % 2_000);
            for shard in [&mut plain, &mut general] {
                if let Some(id) = find(shard, &read) {
                    let hash = shard.hasher.hash(read.as_bytes());
                    shard.mark(hash, id, |marks| marks.read(policy.hits_max));
                }
            }
            if number % 100 == 0 {
                assert_eq!(state(&plain), state(&general), "after {number} stores");
                plain.check_invariants();
            }
        }
        assert_eq!(plain.class_sizes().collect::<Vec<_>>(), general.class_sizes().collect::<Vec<_>>());
        assert!(trades > 500, "{trades} of {}", plain.evictions);
    }
}

#[test]
fn a_store_in_place_leaves_what_a_reservation_and_a_commit_would() {
    let twin = || lone(PagePool::with_accounting(256 << 10, 1, true).unwrap(), true);
    let (mut in_place, mut general) = (twin(), twin());
    let (mut overwritten, mut not_overwritten) = (0, 0);
    for number in 0..20_000_usize {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let key = format!("key-{:05}", random % 1_500);
        let value = pattern([100, 104, 40, 5_000][random / 7 % 4], number);
        let meta = Meta {
            version: Version(number as u64 + 1),
            ..Meta::new((random / 3 % 3 / 2) as u32, [0, 0, 1 << 40][random / 11 % 3])
        };
        let place = if random % 10 == 9 { Place::Hot } else { Place::New };
        let (hash, footprint) =
            (general.hasher.hash(key.as_bytes()), Footprint::of(key.len(), value.len(), &meta));
        try_put(&mut general, key.as_bytes(), &value, meta, place).unwrap();
        match in_place.room_for(hash, key.as_bytes(), footprint, now()).unwrap() {
            Room::Item(item) => {
                let publish = |_| meta.version;
                in_place.overwrite(hash, item, key.as_bytes(), &value, meta, place, publish);
                overwritten += 1;
            }
            Room::Chunks(reservation) => {
                in_place.commit(reservation, hash, key.as_bytes(), &value, meta, place, |_| meta.version);
                not_overwritten += 1;
            }
        }
        let seen = |shard: &Shard| {
            let id = find(shard, &key).unwrap();
            (shard.meta(id), shard.value(id).to_vec(), shard.accessed_s(id))
        };
        assert_eq!(seen(&in_place), seen(&general), "{key} after {number} stores");
        for shard in [&mut in_place, &mut general] {
            if let Some(id) = find(shard, &format!("key-{:05}", random / 9_000 % 1_500)) {
                let hash = shard.hash(id);
                shard.mark(hash, id, |marks| marks.read(1));
            }
        }
        if number % 100 == 0 {
            assert_eq!(keys(&in_place), keys(&general), "after {number} stores");
            in_place.check_invariants();
        }
    }
    let held =
        |shard: &Shard| shard.class_sizes().map(|class| (class.held, class.counts)).collect::<Vec<_>>();
    assert_eq!(held(&in_place), held(&general));
    assert!(overwritten > 1_000 && not_overwritten > 5_000, "{overwritten}, {not_overwritten}");
}

#[test]
fn an_item_has_its_time_of_access_before_anybody_can_read_it() {
    let mut shard = lone(PagePool::with_accounting(256 << 10, 1, true).unwrap(), true);
    let memory = shard.memory().clone();
    let (key, value) = (b"key 0000".as_slice(), [0; 100]);
    let (hash, footprint) = (shard.hasher.hash(key), Footprint::new(key.len(), value.len(), 0, 0));
    let moment = |now_ms: &'static u64| Moment { clock: now_ms, floors: &FLOORS };
    let mut number = 0;
    while shard.evictions < 100 {
        let reservation = shard.reserve(hash, footprint, moment(&5_000)).unwrap();
        let first = reservation.first;
        number += 1;
        let key = format!("key {number:04}");
        let hash = shard.hasher.hash(key.as_bytes());
        shard.commit(reservation, hash, key.as_bytes(), &value, PLAIN, Place::New, |_| {
            assert_eq!(accounting::accessed_s(&memory, first), 5, "a commit");
            PLAIN.version
        });
    }
    let coldest = shard.lru.coldest(&memory, false).unwrap();
    shard.note_moment(moment(&9_000));
    let at = shard.index.look_ahead(hash);
    let version = |_| {
        assert_eq!(accounting::accessed_s(&memory, coldest), 9, "a trade");
        PLAIN.version
    };
    shard.trade(at, key, &value, 0, version).expect("the coldest gives way");
    assert_eq!(find(&shard, "key 0000").map(ItemId::chunk), Some(coldest));
}

#[test]
fn an_item_that_a_copy_brings_again_goes_where_the_copy_has_got_to_with_its_marks() {
    let mut shard = shard(1 << 20);
    shard.install_begin();
    for key in ["early", "kept", "new"] {
        put(&mut shard, key, b"");
    }
    try_put(&mut shard, b"first", b"", PLAIN, Place::Install).unwrap();
    let main = Marks(0).hit(1).in_main();
    for (key, marks) in [("early", Marks::absence()), ("kept", main)] {
        let id = find(&shard, key).unwrap();
        shard.install_again(shard.hash(id), id, marks);
    }
    let early = shard.meta(find(&shard, "early").unwrap()).marks;
    assert_eq!(early, Marks(0), "a value that is here is none, whatever a copy says");
    assert_eq!(keys(&shard), ["first", "early", "new", "kept"]);
    assert_eq!(shard.meta(find(&shard, "kept").unwrap()).marks, main);
    shard.check_invariants();
}

#[test]
fn a_shard_follows_the_pass_of_another_until_it_is_whole() {
    let mut shard = shard(1 << 20);
    shard.install_begin();
    for key in ["a", "b", "c"] {
        try_put(&mut shard, key.as_bytes(), b"", PLAIN, Place::Install).unwrap();
    }
    let hash = |key: &str| KeyHasher::new(5, None).hash(key.as_bytes());
    shard.follow_pass(hash("a"), Pass::Kept);
    shard.follow_pass(hash("b"), Pass::Evicted);
    shard.follow_pass(hash("never here"), Pass::Evicted);
    assert_eq!(keys(&shard), ["c", "a"]);
    shard.follow_pass(hash("a"), Pass::Kept);
    assert_eq!(shard.meta(find(&shard, "a").unwrap()).marks.hits(), 0, "a mark was lost on its way");
    shard.follow_pass(hash("c"), Pass::KeptAsSmall);
    assert_eq!(shard.meta(find(&shard, "c").unwrap()).marks, Marks(0).hit(1).in_main());
    shard.end_following(77);
    shard.follow_pass(hash("c"), Pass::Evicted);
    assert_eq!((keys(&shard), shard.owed_bytes()), (vec!["a".to_owned(), "c".to_owned()], 77));
    put(&mut shard, "b", b"");
    assert!(shard.meta(find(&shard, "b").unwrap()).marks.is_main(), "it came back soon after it was evicted");
    shard.check_invariants();
}

#[test]
fn ghosts_are_taken_over_and_malformed_ones_refused() {
    let mut one = shard(1 << 20);
    for number in 0..30_000 {
        put(&mut one, &format!("key{number}"), &[0; 40]);
    }
    let (mut bytes, first) = (Vec::new(), 3);
    let (lines, next) = one.copy_ghosts(first, usize::MAX, &mut bytes);
    assert_eq!(next, None);
    assert!(bytes.len() > 4_000, "{}", bytes.len());
    // A shard with more lines, one with fewer, and one with none.
    for items in [30_000, 1_000, 0] {
        let mut other = shard(1 << 20);
        for number in 0..items {
            put(&mut other, &format!("key{number}"), &[0; 40]);
        }
        assert!(other.remember_ghosts(first, lines, &bytes));
        assert!(
            !other.remember_ghosts(usize::MAX - 1, lines, &[0, 0, 0, 200, 1]),
            "more than there are bytes"
        );
        assert!(other.remember_ghosts(first, 7, &[[255].as_slice(), &[1; 510]].concat()));
        other.check_invariants();
    }
    let (mut part, mut parts, mut at) = (Vec::new(), Vec::new(), Some(first));
    while let Some(line) = at {
        part.clear();
        at = one.copy_ghosts(line, 100, &mut part).1;
        assert!(part.len() < 200);
        parts.extend_from_slice(&part);
    }
    assert_eq!(parts, bytes);
}
