//! What a roll-back drops, and what it leaves.

use super::*;
use crate::{Cache, Config, Expiry, ReplicationConfig};

fn position(cache: &Cache) -> Position {
    cache.inner.group.as_ref().unwrap().log.lock().position().unwrap()
}

fn primary(log_bytes_max: usize) -> Cache {
    let replication = ReplicationConfig::primary().log_bytes_max(log_bytes_max);
    Cache::new(Config::new().memory_bytes_max(8 << 20).replication(replication)).unwrap()
}

fn roll_back(cache: &Cache, to: Position) -> Result<Dropped, OutOfStep> {
    let group = cache.inner.group.as_ref().unwrap();
    let _gate = group.gate.lock();
    cache.inner.roll_back(group, to)
}

#[test]
fn each_key_named_behind_the_point_goes_and_no_other() {
    let cache = primary(1 << 20);
    for key in ["kept", "put", "touched", "deleted", "joined"] {
        cache.set(key, "old", Expiry::Never).unwrap();
    }
    let e = position(&cache);
    let before = cache.inspect();
    cache.set("put", "new", Expiry::Never).unwrap();
    cache.set("fresh", "new", Expiry::Never).unwrap();
    cache.touch("touched", std::time::Duration::from_secs(9)).unwrap();
    cache.delete("deleted").unwrap();
    cache.delete("never there").unwrap();
    cache.append("joined", "er").unwrap();
    assert!(cache.get("kept").unwrap().is_some(), "a read that leaves a mark");
    let dropped = roll_back(&cache, e).unwrap();
    assert_eq!((dropped.items, dropped.hashes.len()), (4, 6));
    assert_eq!(position(&cache), e);
    let after = cache.inspect();
    assert_eq!((&after.lineage, &after.records), (&before.lineage, &before.records));
    assert_eq!(after.items.iter().map(|item| &item.0[..]).collect::<Vec<_>>(), [b"kept"]);
    cache.check_invariants();
}

#[test]
fn a_flush_or_a_log_that_is_too_small_leaves_all_as_it_was() {
    let flushes: [fn(&Cache); 3] = [
        |cache| cache.flush().unwrap(),
        |cache| cache.invalidate_prefix("b").unwrap(),
        |cache| {
            for _ in 0..500 {
                cache.set("b", [7; 100], Expiry::Never).unwrap();
            }
        },
    ];
    for flush in flushes {
        let cache = primary(8 << 10);
        cache.set("a", "1", Expiry::Never).unwrap();
        let e = position(&cache);
        cache.set("c", "2", Expiry::Never).unwrap();
        flush(&cache);
        let (before, end) = (cache.inspect(), position(&cache));
        assert_eq!(roll_back(&cache, e).unwrap_err(), OutOfStep);
        assert_eq!((cache.inspect(), position(&cache)), (before, end));
        assert_eq!(roll_back(&cache, end).unwrap().items, 0, "where it stands it can always stand");
    }
}

#[test]
fn of_many_hashes_the_newest_are_kept_once_each() {
    let hashes: Vec<u64> = (0..HASHES_MAX as u64 + 10).chain([3, 3]).collect();
    let mut dropped = Dropped { items: 0, hashes };
    dropped.forget_older();
    assert_eq!(dropped.hashes.len(), HASHES_MAX);
    assert_eq!(dropped.hashes.last(), Some(&3));
    assert_eq!(dropped.hashes[0], 11);
}
