//! Values that come piece by piece.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::config::{Config, ReplicationConfig};
use crate::{Effect, Role};

const PAGE_BYTES: usize = 4 << 10;

fn config() -> Config {
    Config::new().memory_bytes_max(1 << 20).item_bytes_max(300 << 10).shards(1)
}

/// Its pages are all counted, and each structure is sound.
fn check(cache: &Cache) {
    cache.check_invariants();
    let pages = |shard: &crate::storage::Shard| shard.page_count();
    let held = cache.inner.shards.iter().map(|cell| pages(&cell.lock().shard)).sum();
    cache.inner.pool.check_invariants(held);
}

fn unfinished_pages(cache: &Cache) -> usize {
    cache.inner.pool.unfinished_pages()
}

/// Bytes that tell where in the value they are.
fn pattern(bytes: usize, salt: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 + at + salt) as u8).collect()
}

fn write_in_pieces(writer: &mut ValueWriter, value: &[u8], piece_bytes: usize) {
    value.chunks(piece_bytes.max(1)).for_each(|piece| writer.write(piece).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_that_came_in_pieces_is_the_item_that_a_set_stores(
        value_bytes in prop_oneof![0..6 * PAGE_BYTES, PAGE_BYTES - 80..PAGE_BYTES + 20, 2 * PAGE_BYTES - 90..2 * PAGE_BYTES],
        piece_bytes in 1..3 * PAGE_BYTES,
        key_bytes in 1..300_usize,
        flags in prop_oneof![Just(0_u32), any::<u32>()],
        expires in any::<bool>(),
        accounting in any::<bool>(),
    ) {
        let config = config().hash_seed(7).accounting(accounting).clock(Arc::new(ManualClock::new(1_000_000)));
        let (written, set) = (Cache::new(config.clone()).unwrap(), Cache::new(config).unwrap());
        let (key, value) = (vec![b'k'; key_bytes], pattern(value_bytes, 3));
        let expiry = if expires { Expiry::After(Duration::from_secs(60)) } else { Expiry::Never };
        let attributes = Attributes { flags, expiry };
        let mut writer = written.begin_value(&key, value_bytes, attributes);
        write_in_pieces(&mut writer, &value, piece_bytes);
        prop_assert!(!written.contains(&key).unwrap());
        check(&written);
        let version = writer.set().unwrap();
        prop_assert_eq!(version, set.set(&key, &value, attributes).unwrap());
        check(&written);
        prop_assert_eq!(unfinished_pages(&written), 0);
        prop_assert_eq!(written.get(&key).unwrap(), set.get(&key).unwrap());
        // A short value in a page of its own has room for an expiry, used or not.
        if expires || value_bytes > PAGE_BYTES {
            prop_assert_eq!(written.details(&key).unwrap(), set.details(&key).unwrap());
            let sums = |cache: &Cache| (cache.stats().item_bytes, cache.class_stats());
            prop_assert_eq!(sums(&written), sums(&set));
        }
        prop_assert!(written.delete(&key).unwrap());
        check(&written);
    }

    #[test]
    fn unfinished_values_disturb_nothing_and_nothing_disturbs_them(ops in prop::collection::vec(any::<(u8, u8, u16)>(), 1..200)) {
        let cache = Cache::new(config().shards(2)).unwrap();
        let (mut writers, mut model) = (Vec::<(u8, Vec<u8>, ValueWriter)>::new(), HashMap::<u8, Vec<u8>>::new());
        for (at, (op, key, number)) in ops.into_iter().enumerate() {
            let (key, name) = (key % 8, [key % 8]);
            let value_bytes = usize::from(number) * 3;
            match op % 16 {
                0..3 if writers.len() < 6 => {
                    let writer = cache.begin_value(name, value_bytes, Expiry::Never);
                    writers.push((key, pattern(value_bytes, at), writer));
                }
                0..8 if !writers.is_empty() => {
                    let place = usize::from(number) % writers.len();
                    let (_, value, writer) = &mut writers[place];
                    let from = value.len() - writer.missing_bytes();
                    let piece = &value[from..value.len().min(from + usize::from(number))];
                    // It may be refused for want of memory.
                    let _ = writer.write(piece);
                }
                8..11 if !writers.is_empty() => {
                    let (key, value, writer) = writers.swap_remove(usize::from(number) % writers.len());
                    match writer.set() {
                        Ok(_) => drop(model.insert(key, value)),
                        Err(WriteError::OutOfMemory { .. }) => drop(model.remove(&key)),
                        Err(WriteError::ValueLength { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                11 if !writers.is_empty() => drop(writers.swap_remove(usize::from(number) % writers.len())),
                12 => cache.resize((1 << 20) + usize::from(number) * 16).unwrap(),
                13 => {
                    cache.delete(name).unwrap();
                    model.remove(&key);
                }
                14 if number % 16 == 0 => {
                    cache.flush().unwrap();
                    model.clear();
                }
                _ => {
                    let value = pattern(value_bytes / 4, at);
                    cache.set(name, &value, Expiry::Never).unwrap();
                    model.insert(key, value);
                }
            }
            check(&cache);
            for key in 0..8 {
                // What was evicted is a miss; nothing else is one, nor another value.
                let found = cache.peek([key], |item| item.value.to_vec()).unwrap();
                prop_assert!(found.is_none() || found.as_ref() == model.get(&key));
            }
        }
        drop(writers);
        check(&cache);
        prop_assert_eq!(unfinished_pages(&cache), 0);
    }
}

#[test]
fn all_unfinished_values_together_hold_half_of_the_memory_and_no_more() {
    let cache = Cache::new(config().shards(4)).unwrap();
    let pages_max = (1 << 20) / PAGE_BYTES / 2;
    let mut writers: Vec<ValueWriter> =
        (0..20).map(|number| cache.begin_value(format!("slow-{number}"), 200 << 10, Expiry::Never)).collect();
    let half = pattern(100 << 10, 1);
    let refused = writers.iter_mut().filter_map(|writer| writer.write(&half).err()).count();
    assert!(refused >= 15, "{refused} of 20 times 100 KiB are refused");
    assert!((pages_max / 2..=pages_max).contains(&unfinished_pages(&cache)), "{}", unfinished_pages(&cache));
    for number in 0..1000 {
        cache.set(format!("other-{number}"), pattern(1000, number), Expiry::Never).unwrap();
        check(&cache);
    }
    assert!(cache.stats().items > 300, "the other half is the items': {}", cache.stats().items);
    assert!(cache.stats().memory_bytes <= 1 << 20);
    drop(writers);
    assert_eq!(unfinished_pages(&cache), 0);
    check(&cache);
}

#[test]
fn an_announced_length_alone_costs_nothing() {
    let cache = Cache::new(config()).unwrap();
    let before = cache.stats();
    let mut writer = cache.begin_value("k", 250 << 10, Expiry::Never);
    assert_eq!(cache.stats(), before);
    writer.write(b"v").unwrap();
    assert_eq!(unfinished_pages(&cache), 1);
}

#[test]
fn the_largest_item_fits_beside_nothing_else() {
    let cache = Cache::new(config().item_bytes_max(512 << 10)).unwrap();
    let value = pattern((512 << 10) - 100, 1);
    for _ in 0..3 {
        let mut writer = cache.begin_value("k", value.len(), Expiry::Never);
        write_in_pieces(&mut writer, &value, 10_000);
        writer.set().unwrap();
        check(&cache);
    }
    assert_eq!(cache.get("k").unwrap().unwrap().value, value);
}

#[test]
fn l5_a_set_without_memory_takes_the_older_item_along_and_a_value_dropped_midway_does_not() {
    let cache = Cache::new(config().evict(false)).unwrap();
    cache.set("k", "old", Expiry::Never).unwrap();
    let value = pattern(200 << 10, 1);
    for number in 0..4 {
        let _ = cache.set(format!("{number}"), &value, Expiry::Never);
    }
    let begin = || {
        let mut writer = cache.begin_value("k", value.len(), Expiry::Never);
        let refused = value.chunks(1 << 10).find_map(|piece| writer.write(piece).err());
        assert!(matches!(refused, Some(WriteError::OutOfMemory { bytes }) if bytes > value.len()));
        let missing = writer.missing_bytes();
        value[value.len() - missing..].chunks(1 << 10).for_each(|piece| drop(writer.write(piece)));
        assert_eq!(
            (writer.missing_bytes(), unfinished_pages(&cache)),
            (0, 0),
            "what it had is given back at once"
        );
        writer
    };
    drop(begin());
    assert!(matches!(begin().replace(), Err(WriteError::OutOfMemory { .. })));
    assert_eq!(begin().add(), Ok(None), "what is present is told before what is missing");
    assert!(cache.contains("k").unwrap());
    let failures = cache.stats().store_no_memory;
    assert!(matches!(begin().set(), Err(WriteError::OutOfMemory { .. })));
    assert!(!cache.contains("k").unwrap());
    assert_eq!(cache.stats().store_no_memory, failures + 1);
    check(&cache);
}

#[test]
fn what_is_wrong_is_said_when_it_is_written_and_when_it_is_stored() {
    let cache = Cache::new(config()).unwrap();
    cache.set("k", "old", Expiry::Never).unwrap();
    let too_large = |error: &WriteError| matches!(error, WriteError::ItemTooLarge { .. });
    let mut writer = cache.begin_value("k", 300 << 10, Expiry::Never);
    assert!(writer.write(b"v").is_err_and(|error| too_large(&error)));
    assert!(
        cache.begin_value("k", usize::MAX, Expiry::Never).write(b"v").is_err_and(|error| too_large(&error))
    );
    let mut writer = cache.begin_value("", 3, Expiry::Never);
    assert!(matches!(writer.write(b"abc"), Err(WriteError::KeyLength { bytes: 0, .. })));
    assert!(matches!(writer.set(), Err(WriteError::KeyLength { bytes: 0, .. })));
    let mut writer = cache.begin_value("k", 3, Expiry::Never);
    writer.write(b"ab").unwrap();
    assert_eq!(writer.set(), Err(WriteError::ValueLength { bytes: 2, announced: 3 }));
    let mut writer = cache.begin_value("k", 3, Expiry::Never);
    assert_eq!(writer.write(b"abcd"), Err(WriteError::ValueLength { bytes: 4, announced: 3 }));
    assert_eq!(writer.set(), Err(WriteError::ValueLength { bytes: 4, announced: 3 }));
    assert_eq!(cache.get("k").unwrap().unwrap().value, "old");
    let mut writer = cache.begin_value("l", 3, Expiry::Never);
    let inside = cache.read("k", |_| writer.write(b"abc")).unwrap();
    assert_eq!((inside, writer.missing_bytes()), (Some(Err(WriteError::InsideRead)), 3));
}

#[test]
fn conditions_are_those_of_whole_values() {
    let cache = Cache::new(config()).unwrap();
    let value = pattern(3 * PAGE_BYTES, 1);
    let begin = || {
        let mut writer = cache.begin_value_with_state("k", value.len(), Expiry::Never);
        writer.write(&value).unwrap();
        writer
    };
    assert_eq!(begin().replace(), Ok(None));
    let version = begin().add().unwrap().unwrap();
    assert_eq!(begin().add(), Ok(None));
    assert_eq!(begin().compare_and_swap(Version(version.0 + 1)), Ok(Swap::Exists));
    let Swap::Stored(version) = begin().compare_and_swap(version).unwrap() else { panic!() };
    assert!(begin().replace().unwrap().unwrap() > version);
    assert_eq!(begin().into_value(), Ok(value.clone()));
    let state = ItemState { client_cas: Some(77), is_stale: true, ..ItemState::default() };
    assert_eq!(begin().set_if(|item| item.is_none().then_some((Expiry::Never, state))), Ok(None));
    begin().set_if(|item| item.is_some().then_some((Expiry::At(u64::MAX), state))).unwrap().unwrap();
    let found =
        cache.read("k", |item| (item.state, item.expires_at_ms.is_some(), item.value == value[..])).unwrap();
    assert_eq!(found, Some((state, true, true)));
    check(&cache);
}

#[test]
fn a_lower_limit_takes_from_unfinished_values_what_is_too_much() {
    let cache = Cache::new(config().memory_bytes_max(4 << 20)).unwrap();
    let mut writers: Vec<ValueWriter> =
        (0..6).map(|number| cache.begin_value([number], 290 << 10, Expiry::Never)).collect();
    let parts = [280, 100, 100, 100, 100, 100].map(|kib| pattern(kib << 10, 1));
    writers.iter_mut().zip(&parts).for_each(|(writer, part)| writer.write(part).unwrap());
    cache.resize(1 << 20).unwrap();
    check(&cache);
    assert!(unfinished_pages(&cache) * PAGE_BYTES <= 512 << 10);
    let refused: Vec<bool> = writers.iter_mut().map(|writer| writer.write(b"").is_err()).collect();
    assert!(refused[0] && refused.iter().filter(|refused| !**refused).count() >= 3, "{refused:?}");
    assert!(cache.stats().memory_bytes <= 1 << 20);
}

#[test]
fn a_node_that_reigns_no_longer_gives_unfinished_values_up() {
    let cache = Cache::new(config().replication(ReplicationConfig::primary())).unwrap();
    let mut writer = cache.begin_value("k", 200 << 10, Expiry::Never);
    writer.write(&pattern(100 << 10, 1)).unwrap();
    assert!(unfinished_pages(&cache) > 0);
    cache.follow("elsewhere:1", true).unwrap();
    assert_eq!((cache.status().role == Role::Primary, unfinished_pages(&cache)), (false, 0));
    assert!(writer.write(&pattern(100 << 10, 1)).is_err());
    assert!(writer.set().is_err());
    check(&cache);
}

#[test]
fn the_log_gets_the_value_or_a_deletion_if_it_is_too_large_for_that() {
    let config = config().item_bytes_max(500 << 10).memory_bytes_max(2 << 20);
    let group = ReplicationConfig::primary().log_bytes_max(1 << 20);
    let cache = Cache::new(config.replication(group)).unwrap();
    let mut changes = cache.subscribe(None).unwrap();
    for value_bytes in [100 << 10, 400 << 10] {
        let value = pattern(value_bytes, 1);
        let mut writer = cache.begin_value("k", value_bytes, Attributes { flags: 7, expiry: Expiry::Never });
        write_in_pieces(&mut writer, &value, 5000);
        let version = writer.set().unwrap();
        let change = loop {
            let change = changes.try_next().unwrap();
            if change.version == version {
                break change;
            }
        };
        match change.effect {
            Effect::Put { value: told, flags, .. } => assert_eq!((&told[..], flags), (&value[..], 7)),
            Effect::Delete { .. } => assert_eq!(value_bytes, 400 << 10),
            other => panic!("{other:?}"),
        }
        assert_eq!(cache.get("k").unwrap().unwrap().value, value);
    }
    assert_eq!(cache.status().oversized_records, 1);
}

#[test]
fn a_value_that_may_goes_on_outside_of_the_cache_when_there_is_no_page_for_it() {
    type Store = fn(ValueWriter) -> bool;
    let ways: [Store; 4] = [
        |writer| writer.set().is_ok(),
        |writer| writer.replace().unwrap().is_some(),
        |writer| writer.set_if(|_| Some((Expiry::Never, ItemState::default()))).unwrap().is_some(),
        |writer| writer.into_value().unwrap() == pattern(100_000, 1),
    ];
    for store in ways {
        let cache = Cache::new(config()).unwrap();
        cache.set("k", "old", Expiry::Never).unwrap();
        let value = pattern(100_000, 1);
        let mut refused = cache.begin_value("k", value.len(), Expiry::Never);
        let mut taken = cache.begin_value("k", value.len(), Expiry::Never).or_on_heap();
        refused.write(&value[..50_000]).unwrap();
        taken.write(&value[..50_000]).unwrap();
        assert_eq!(taken.heap_bytes(), 0);
        let mut fillers = Vec::new();
        let mut fill = || {
            let mut filler = cache.begin_value("filler", 100, Expiry::Never);
            while filler.write(&[1]).is_ok() {
                fillers.push(filler);
                filler = cache.begin_value("filler", 100, Expiry::Never);
            }
        };
        fill();
        assert!(matches!(refused.write(&value[50_000..]), Err(WriteError::OutOfMemory { .. })));
        // What that one gave back is somebody's again.
        fill();
        taken.write(&value[50_000..]).unwrap();
        assert!(taken.heap_bytes() >= value.len());
        check(&cache);
        assert!(store(taken));
        check(&cache);
        let kept = cache.get("k").unwrap().unwrap().value;
        assert!(kept == value[..] || kept == b"old"[..]);
    }
}
