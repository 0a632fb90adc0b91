//! What comes out of an image is what went in, and whatever is not as it was written makes no cache.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::blocks::{BLOCK_BYTES_MAX, BlockReader, BlockWriter};
use super::head::Head;
use super::*;
use crate::clock::{Clock, ManualClock, Millis};
use crate::error::ConfigError;
use crate::storage::WalkStep;
use crate::{Cache, Config, Expiry, ItemState, LoadPolicy, Lookup, ReplicationConfig, Update, Version};

const START_MS: u64 = 1_000_000;

fn config(clock: &Arc<ManualClock>, shards: usize) -> Config {
    Config::new().memory_bytes_max(64 << 20).shards(shards).clock(clock.clone())
}

fn saved(cache: &Cache) -> Vec<u8> {
    let mut image = Vec::new();
    cache.save_to(&mut image).unwrap();
    image
}

fn restored(clock: &Arc<ManualClock>, shards: usize, image: &[u8]) -> Cache {
    let (cache, counts) = Cache::restore_from(config(clock, shards), image).unwrap();
    cache.check_invariants();
    assert_eq!(counts.left_out, 0);
    cache
}

type Entry = (Vec<u8>, Vec<u8>, Meta);

/// All live items of each shard with all that they carry, in the order of eviction.
fn contents(cache: &Cache) -> Vec<Vec<Entry>> {
    let of_shard = |cell: &crate::storage::ShardMutex<crate::cache::ShardCell>| {
        let (mut cell, mut found) = (cell.lock(), Vec::new());
        let moment = cache.inner.moment();
        let walk = cell.shard.walk_begin().unwrap();
        let step = cell.shard.walk_step(walk, usize::MAX, usize::MAX, |shard, id| {
            if !shard.is_dead(id, moment) {
                found.push((shard.key(id).to_vec(), shard.value(id).to_vec(), shard.meta(id)));
            }
        });
        assert_eq!(step, WalkStep::AtHotEnd);
        cell.shard.walk_end(walk);
        found
    };
    cache.inner.shards.iter().map(|cell| of_shard(cell)).collect()
}

fn without_marks(cache: &Cache) -> Vec<Entry> {
    let unmarked = |(key, value, meta)| (key, value, Meta { marks: Marks::default(), ..meta });
    let mut entries: Vec<Entry> = contents(cache).into_iter().flatten().map(unmarked).collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

fn store_with(state: ItemState) -> Update {
    let attributes = crate::Attributes { flags: 3, expiry: Expiry::Never };
    Update::StoreWith { value: "stated".into(), attributes, state }
}

#[derive(Debug, Clone)]
enum Op {
    Set { key: u8, value_bytes: usize, flags: u32, lifetime_ms: Option<u64> },
    State { key: u8, client_cas: Option<u64>, is_stale: bool },
    Get { key: u8 },
    Touch { key: u8, lifetime_ms: u64 },
    Delete { key: u8 },
    Absent { key: u8 },
    FlushPrefix { tens: u8 },
    Flush,
    FlushAt { in_ms: u64 },
    Pass { ms: u64 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..100_u8;
    let one = prop_oneof![
        20 => (key.clone(), prop_oneof![0..300_usize, Just(9_000), Just(200_000)], prop_oneof![Just(0), any::<u32>()],
               prop::option::of(1..5_000_u64))
            .prop_map(|(key, value_bytes, flags, lifetime_ms)| Op::Set { key, value_bytes, flags, lifetime_ms }),
        4 => (key.clone(), any::<Option<u64>>(), any::<bool>())
            .prop_map(|(key, client_cas, is_stale)| Op::State { key, client_cas, is_stale }),
        20 => key.clone().prop_map(|key| Op::Get { key }),
        3 => (key.clone(), 1..5_000_u64).prop_map(|(key, lifetime_ms)| Op::Touch { key, lifetime_ms }),
        3 => key.clone().prop_map(|key| Op::Delete { key }),
        2 => key.prop_map(|key| Op::Absent { key }),
        2 => (0..10_u8).prop_map(|tens| Op::FlushPrefix { tens }),
        1 => Just(Op::Flush),
        1 => (1..4_000_u64).prop_map(|in_ms| Op::FlushAt { in_ms }),
        3 => (1..500_u64).prop_map(|ms| Op::Pass { ms }),
    ];
    prop::collection::vec(one, 0..200)
}

fn key_text(key: u8) -> String {
    format!("{:02}", key)
}

fn run(cache: &Cache, clock: &ManualClock, op: &Op) {
    let after = |ms: &u64| Expiry::After(Duration::from_millis(*ms));
    match op {
        Op::Set { key, value_bytes, flags, lifetime_ms } => {
            let expiry = lifetime_ms.as_ref().map_or(Expiry::Never, after);
            let attributes = crate::Attributes { flags: *flags, expiry };
            cache.set(key_text(*key), vec![*key; *value_bytes], attributes).unwrap();
        }
        Op::State { key, client_cas, is_stale } => {
            let is_key_binary = *is_stale == client_cas.is_some();
            let state = ItemState {
                client_cas: *client_cas,
                is_stale: *is_stale,
                is_key_binary,
                ..ItemState::default()
            };
            cache.update(key_text(*key), |_| store_with(state)).unwrap();
        }
        Op::Get { key } => drop(cache.get(key_text(*key)).unwrap()),
        Op::Touch { key, lifetime_ms } => drop(cache.touch(key_text(*key), after(lifetime_ms)).unwrap()),
        Op::Delete { key } => drop(cache.delete(key_text(*key)).unwrap()),
        Op::Absent { key } => remember_absence(cache, &key_text(*key)),
        Op::FlushPrefix { tens } => cache.invalidate_prefix(tens.to_string()).unwrap(),
        Op::Flush => cache.flush().unwrap(),
        Op::FlushAt { in_ms } => cache.flush_at(after(in_ms)).unwrap(),
        Op::Pass { ms } => clock.advance_ms(*ms),
    }
}

fn remember_absence(cache: &Cache, key: &str) {
    let policy = LoadPolicy::fresh_for(Duration::from_secs(2)).absent_for(Duration::from_secs(2));
    if let Lookup::Absent(lease) = cache.lookup(key, policy).unwrap() {
        lease.fill_absent();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]

    #[test]
    fn a_restored_cache_holds_what_was_saved_in_the_same_order(ops in ops(), later in ops(), away_ms in 0..3_000_u64) {
        let clock = Arc::new(ManualClock::new(START_MS));
        let cache = Cache::new(config(&clock, 4)).unwrap();
        ops.iter().for_each(|op| run(&cache, &clock, op));
        let image = saved(&cache);
        clock.advance_ms(away_ms);
        let next = restored(&clock, 4, &image);
        prop_assert_eq!(contents(&next), contents(&cache));
        // And it goes on as the first one would: versions, floors and appointments are the same. (Which queue a new item
        // begins in may depend on a dead one that is still there.)
        for op in &later {
            run(&cache, &clock, op);
            run(&next, &clock, op);
        }
        prop_assert_eq!(without_marks(&next), without_marks(&cache));
    }

    #[test]
    fn what_makes_no_sense_makes_no_panic(
        kind in 0..4_u8,
        marks: u8,
        key_bytes in prop_oneof![0..40_u16, any::<u16>()],
        value_bytes in prop_oneof![0..400_u64, any::<u64>()],
        version in prop_oneof![0..9_u64, any::<u64>()],
        expires_at_ms: u64,
        rest in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let meta = Meta { marks: Marks(marks), version: Version(version), ..Meta::new(0, expires_at_ms) };
        let mut item = Vec::new();
        ItemFields { meta, key_bytes, value_bytes, accessed_s: version as u32 }.encode(&mut item);
        item[0] = kind;
        item.extend(rest);
        let clock = Arc::new(ManualClock::new(START_MS));
        if let Ok((cache, _)) = Cache::restore_from(config(&clock, 1), image_of(&head(), &item).as_slice()) {
            cache.check_invariants();
        }
    }

    #[test]
    fn a_beginning_that_makes_no_sense_makes_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::decode(&bytes);
        let mut lying = head().encode();
        for (at, byte) in bytes.iter().take(lying.len()).enumerate().filter(|(_, byte)| **byte < 128) {
            lying[at] = *byte;
        }
        let _ = Head::decode(&lying);
    }
}

fn head() -> Head {
    Head {
        last_version: 5,
        hash_seed: 1,
        clock_ms: START_MS,
        wall_ms: START_MS,
        flush_at_ms: 0,
        flush_floor: 0,
        prefix_floors: Vec::new(),
        membership: None,
    }
}

/// A sound image of this head and whatever stands behind it.
fn image_of(head: &Head, behind: &[u8]) -> Vec<u8> {
    let (mut image, head) = (Vec::new(), head.encode());
    let mut out = BlockWriter::begin(&mut image).unwrap();
    out.put(&(head.len() as u32).to_le_bytes()).unwrap();
    out.put(&head).unwrap();
    out.put(behind).unwrap();
    out.finish().unwrap();
    image
}

fn refusal(image: &[u8]) -> RestoreError {
    let clock = Arc::new(ManualClock::new(START_MS));
    Cache::restore_from(config(&clock, 1), image).expect_err("it is not as it was written")
}

fn damage(image: &[u8]) -> Damage {
    match refusal(image) {
        RestoreError::Damaged(damage) => damage,
        other => panic!("{other}"),
    }
}

/// A small image with an item of each kind.
fn sample() -> Vec<u8> {
    let clock = Arc::new(ManualClock::new(START_MS));
    let cache = Cache::new(config(&clock, 1)).unwrap();
    cache.set("plain", "value", Expiry::Never).unwrap();
    cache.set("short", "lived", Duration::from_secs(9)).unwrap();
    let state = ItemState { client_cas: Some(7), ..ItemState::default() };
    cache.update("stated", |_| store_with(state)).unwrap();
    cache.invalidate_prefix("gone").unwrap();
    saved(&cache)
}

#[test]
fn every_flipped_bit_is_found() {
    let image = sample();
    assert!(Cache::restore_from(Config::new(), image.as_slice()).is_ok());
    for bit in 0..image.len() * 8 {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = refusal(&flipped);
        assert_eq!(matches!(refused, RestoreError::NoImage), bit < 64, "bit {bit}: {refused}");
    }
}

#[test]
fn every_cut_and_every_surplus_is_found() {
    let image = sample();
    for length in 0..image.len() {
        let cut = refusal(&image[..length]);
        let expected = length < 8 && matches!(cut, RestoreError::NoImage)
            || matches!(cut, RestoreError::Damaged(Damage::CutShort));
        assert!(expected, "{length}: {cut}");
    }
    assert_eq!(damage(&[&image[..], &[0]].concat()), Damage::Surplus);
    assert_eq!(damage(&image_of(&head(), &[END, 0, 0, 0, 0, 0, 0, 0, 0, 9])), Damage::Surplus);
}

#[test]
fn blocks_in_another_order_missing_twice_or_of_another_image_are_found() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let image = |letter: u8| {
        let cache = Cache::new(config(&clock, 1).hash_seed(1)).unwrap();
        cache.set("k", vec![letter; 5 * BLOCK_BYTES_MAX], Expiry::Never).unwrap();
        saved(&cache)
    };
    let (one, other) = (image(1), image(2));
    let block = |image: &[u8], number: usize| {
        let begin = 16 + number * (BLOCK_BYTES_MAX + 8);
        image[begin..(begin + BLOCK_BYTES_MAX + 8).min(image.len())].to_vec()
    };
    let put_together = |blocks: &[Vec<u8>]| [one[..16].to_vec(), blocks.concat()].concat();
    let blocks: Vec<Vec<u8>> = (0..6).map(|number| block(&one, number)).collect();
    assert!(Cache::restore_from(config(&clock, 1), put_together(&blocks).as_slice()).is_ok());
    let mut swapped = blocks.clone();
    swapped.swap(2, 3);
    let mut without = blocks.clone();
    without.remove(2);
    let mut twice = blocks.clone();
    twice.insert(2, blocks[2].clone());
    let mut spliced = blocks.clone();
    spliced[3] = block(&other, 3);
    let ended = blocks[..5].to_vec();
    // Blocks of equal bytes are told apart by their places only.
    for (number, bad) in [swapped, without, twice, spliced].iter().enumerate() {
        assert_eq!(damage(&put_together(bad)), Damage::Checksum, "{number}");
    }
    assert_eq!(damage(&put_together(&ended)), Damage::CutShort);
}

#[test]
fn what_is_no_image_or_another_format_is_told_apart_from_damage() {
    assert!(matches!(refusal(b""), RestoreError::NoImage));
    assert!(matches!(refusal(b"root:x:0:0:root:/root:/bin/bash"), RestoreError::NoImage));
    let mut newer = sample();
    newer[8] = 3;
    let crc = crc32c::crc32c(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(refusal(&newer), RestoreError::OtherFormat { format: 3, format_known: 2 }));
}

#[test]
fn sound_checksums_do_not_make_sense_of_nonsense() {
    type Change = fn(&mut ItemFields);
    let item = |change: Change| {
        let meta = Meta { version: Version(5), ..Meta::new(0, 0) };
        let mut fields = ItemFields { meta, key_bytes: 1, value_bytes: 2, accessed_s: 0 };
        change(&mut fields);
        let mut bytes = Vec::new();
        fields.encode(&mut bytes);
        [&bytes[..], b"kvv", &[END], &1_u64.to_le_bytes()].concat()
    };
    assert!(Cache::restore_from(Config::new(), image_of(&head(), &item(|_| ())).as_slice()).is_ok());
    let cases: [(Change, Damage); 6] = [
        (|item| item.meta.version = Version(6), Damage::Nonsense("an item's version")),
        (|item| item.meta.marks = Marks::absence(), Damage::Nonsense("an item's marks")),
        (
            |item| (item.meta.marks, item.meta.expires_at_ms) = (Marks::absence(), u64::MAX),
            Damage::Nonsense("an item's marks"),
        ),
        (|item| item.key_bytes = 0, Damage::Nonsense("a key's length")),
        (|item| item.key_bytes = 1025, Damage::Nonsense("a key's length")),
        (|item| item.value_bytes = u64::MAX, Damage::CutShort),
    ];
    for (change, expected) in cases {
        assert_eq!(damage(&image_of(&head(), &item(change))), expected);
    }
    let count = [&[END][..], &1_u64.to_le_bytes()].concat();
    assert_eq!(damage(&image_of(&head(), &count)), Damage::Nonsense("the number of its items"));
    let heads = [
        Head { clock_ms: u64::MAX, ..head() },
        Head { last_version: u64::MAX, ..head() },
        Head { flush_floor: 7, ..head() },
    ];
    for bad in heads {
        assert!(matches!(damage(&image_of(&bad, &[END])), Damage::Nonsense(_)), "{bad:?}");
    }
}

/// Gives a beginning, then fails.
struct Failing(std::io::Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(std::io::Error::other("the disk is gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_disk_that_fails_is_no_damage() {
    let image = sample();
    let begun = std::io::Cursor::new(image[..image.len() - 9].to_vec());
    let refused = Cache::restore_from(Config::new(), Failing(begun)).expect_err("no cache");
    assert!(matches!(refused, RestoreError::Io(_)), "{refused}");
    let mut reader = BlockReader::begin(image.as_slice()).unwrap();
    assert!(matches!(reader.skip(1 << 40), Err(RestoreError::Damaged(Damage::CutShort))));
}

#[test]
fn versions_go_on_above_the_saved_ones_with_and_without_a_group() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let alone = Cache::new(config(&clock, 1)).unwrap();
    alone.set("k", "v", Expiry::Never).unwrap();
    alone.delete("k").unwrap();
    let image = saved(&alone);
    let deletion = alone.inner.last_version.get();
    assert!(restored(&clock, 1, &image).set("k", "v", Expiry::Never).unwrap() > deletion);
    // Replication is turned on: the group's versions are above.
    let in_group = || config(&clock, 1).replication(ReplicationConfig::primary().slot(2));
    let (primary, _) = Cache::restore_from(in_group(), image.as_slice()).unwrap();
    let first = primary.set("k", "v", Expiry::Never).unwrap();
    assert!(first > deletion);
    // A primary that knows nobody reigns on at once, by another term and branch.
    let (again, _) = Cache::restore_from(in_group(), saved(&primary).as_slice()).unwrap();
    assert_eq!(again.get("k").unwrap().unwrap().version, first);
    let second = again.set("k", "w", Expiry::Never).unwrap();
    assert!(second.0 >> 44 > first.0 >> 44);
    let [before, after] = [&primary, &again].map(|cache| cache.inspect().lineage);
    assert_eq!((after.len(), after[0]), (2, before[0]));
    assert_ne!(after[1].1, before[0].1, "a branch of its own");
    // And off again.
    let third = restored(&clock, 1, &saved(&again)).set("k", "x", Expiry::Never).unwrap();
    assert!(third > second);
}

#[test]
fn an_image_is_for_its_own_group_and_role_only() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let restore = |replication: Option<ReplicationConfig>, image: &[u8]| {
        let config = config(&clock, 1);
        let config = match replication {
            None => config,
            Some(replication) => config.replication(replication),
        };
        Cache::restore_from(config, image).map(|(cache, _)| cache)
    };
    let primary = Cache::new(config(&clock, 1).replication(ReplicationConfig::primary())).unwrap();
    primary.set("k", "old", Expiry::Never).unwrap();
    let image = saved(&primary);
    let other = ReplicationConfig::primary().group("other");
    assert!(matches!(restore(Some(other), &image), Err(RestoreError::OtherGroup)));
    let follower = ReplicationConfig::replica_of("b");
    assert!(matches!(restore(Some(follower.clone()), &sample()), Err(RestoreError::NoHistory)));
    let slot = restore(Some(ReplicationConfig::primary().slot(99)), &image);
    assert!(matches!(slot, Err(RestoreError::Config(ConfigError::SlotTooLarge { .. }))));
    // One that is told of others follows, and serves nothing that may be old.
    for told in [follower, ReplicationConfig::primary().peer("b")] {
        let cache = restore(Some(told.replica_reads(true)), &image).unwrap();
        assert!(cache.get("k").is_err() && cache.set("k", "v", Expiry::Never).is_err());
        let image = saved(&cache);
        assert!(matches!(restore(None, &image), Err(RestoreError::WasNoPrimary)));
        let waiting = restore(Some(ReplicationConfig::primary()), &image).unwrap();
        assert!(waiting.get("k").is_err(), "it was no primary, and is none by itself");
        waiting.promote(false).unwrap();
        assert_eq!(&waiting.get("k").unwrap().unwrap().value[..], b"old");
    }
}

#[test]
fn an_empty_replica_and_a_cache_that_changes_are_not_saved() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let replica = Cache::new(config(&clock, 1).replication(ReplicationConfig::replica_of("a"))).unwrap();
    assert!(matches!(replica.save_to(Vec::new()), Err(SaveError::NotWhole)));

    struct Writing<'a>(&'a Cache, Vec<u8>);
    impl std::io::Write for Writing<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.set("late", "v", Expiry::Never).unwrap();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let cache = Cache::new(config(&clock, 4)).unwrap();
    let mut out = Writing(&cache, Vec::new());
    assert!(matches!(cache.save_to(&mut out), Err(SaveError::Changed)));
    refusal(&out.1);
    assert!(matches!(
        cache.read("late", |_| cache.save_to(Vec::new())),
        Ok(Some(Err(SaveError::InsideRead)))
    ));
}

#[test]
fn both_queues_of_a_full_cache_keep_their_order_and_their_hits() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let full = Config::new().memory_bytes_max(2 << 20).item_bytes_max(1 << 20).clock(clock.clone());
    let cache = Cache::new(full).unwrap();
    for number in 0..20_000 {
        cache.set(number.to_string(), [1; 100], Expiry::Never).unwrap();
        for read in [number / 2, number / 3, number % 50] {
            cache.get(read.to_string()).unwrap();
        }
    }
    let before = contents(&cache);
    let is_main = |(_, _, meta): &&Entry| meta.marks.is_main();
    let in_main = before[0].iter().filter(is_main).count();
    assert!(in_main > 100 && in_main < before[0].len(), "{in_main} of {}", before[0].len());
    assert_eq!(contents(&restored(&clock, 1, &saved(&cache))), before);
}

#[test]
fn with_less_memory_the_hotter_items_stay_and_too_large_ones_are_left_out() {
    let clock = Arc::new(ManualClock::new(START_MS));
    let cache = Cache::new(config(&clock, 8)).unwrap();
    for number in 0..20_000 {
        cache.set(format!("{number:05}"), [1; 500], Expiry::Never).unwrap();
    }
    cache.set("large", vec![1; 600_000], Expiry::Never).unwrap();
    let smaller = Config::new().memory_bytes_max(4 << 20).item_bytes_max(500_000).clock(clock.clone());
    let (next, counts) = Cache::restore_from(smaller, saved(&cache).as_slice()).unwrap();
    next.check_invariants();
    assert_eq!((counts.items + counts.left_out, counts.expired), (20_001, 0));
    assert!(!next.contains("large").unwrap());
    let kept: Vec<bool> = (0..20_000).map(|number| next.contains(format!("{number:05}")).unwrap()).collect();
    let of_hotter = kept[20_000 - counts.items as usize..].iter().filter(|kept| **kept).count();
    assert!(counts.items > 5_000 && of_hotter as u64 * 100 > counts.items * 95, "{of_hotter} of {counts:?}");
}

/// A clock that stands still beside a wall clock that somebody sets.
struct SetClock {
    now_ms: Millis,
    wall_ms: Millis,
}

impl Clock for SetClock {
    fn now_ms(&self) -> Millis {
        self.now_ms
    }
    fn wall_ms(&self) -> Millis {
        self.wall_ms
    }
}

#[test]
fn deadlines_survive_a_restart_whatever_the_wall_clock_did() {
    let image = |now_ms: Millis, wall_ms: Millis| {
        let clock = Arc::new(SetClock { now_ms, wall_ms });
        let cache = Cache::new(Config::new().clock(clock)).unwrap();
        cache.set("k", "v", Duration::from_secs(10)).unwrap();
        saved(&cache)
    };
    let later = |image: &[u8], now_ms: Millis| {
        let clock = Arc::new(SetClock { now_ms, wall_ms: now_ms });
        let (cache, _) = Cache::restore_from(Config::new().clock(clock), image).unwrap();
        (cache.contains("k").unwrap(), cache.now_ms())
    };
    let plain = image(1_000_000, 1_000_000);
    assert_eq!(later(&plain, 1_009_999), (true, 1_009_999));
    assert_eq!(later(&plain, 1_010_000), (false, 1_010_000));
    assert_eq!(later(&plain, 500_000), (true, 1_000_000), "set back meanwhile: time has not gone backwards");
    // Set an hour ahead while the process ran, whose clock did not follow: nothing dies early.
    let ahead = image(1_000_000, 4_600_000);
    assert_eq!(later(&ahead, 4_609_999), (true, 1_009_999));
    assert_eq!(later(&ahead, 4_610_000), (false, 1_010_000));
}
