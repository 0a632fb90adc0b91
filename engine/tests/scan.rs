//! A scan visits what stays exactly once, whatever comes and goes and however the index grows and shrinks meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use hotspare::{Cache, Config, Cursor, Deletion, Expiry, ItemState, ReadError, Update, Updated};
use proptest::prelude::*;

fn cache() -> Cache {
    Cache::new(Config::new().memory_bytes_max(64 << 20).shards(4)).unwrap()
}

fn scanned(cache: &Cache, cursor: Cursor, prefix: &str) -> (Option<Cursor>, Vec<String>) {
    let mut keys = Vec::new();
    let next = cache
        .scan_from(cursor, prefix, 7, |item| keys.push(String::from_utf8(item.key.to_vec()).unwrap()))
        .unwrap();
    (next, keys)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_stays_is_visited_once_while_the_rest_comes_and_goes(
        stable in 0..3_000_u32,
        changes in prop::collection::vec((any::<bool>(), 0..40_000_u32, 1..20_000_u32), 1..12),
        every in 1..60_usize,
    ) {
        let cache = cache();
        for number in 0..stable {
            cache.set(format!("stays:{number}"), "v", Expiry::Never).unwrap();
        }
        let mut changes = changes.into_iter();
        let mut times = BTreeMap::<String, u32>::new();
        let (mut next, mut steps) = (Some(Cursor::START), 0);
        while let Some(cursor) = next {
            let (after, keys) = scanned(&cache, cursor, "stays:");
            next = after;
            keys.into_iter().for_each(|key| *times.entry(key).or_default() += 1);
            steps += 1;
            if steps % every == 0 && let Some((stored, first, count)) = changes.next() {
                for number in first..first + count {
                    if stored {
                        cache.set(format!("passes:{number}"), "v", Expiry::Never).unwrap();
                    } else {
                        cache.delete(format!("passes:{number}")).unwrap();
                    }
                }
            }
        }
        cache.check_invariants();
        prop_assert_eq!(times.len(), stable as usize);
        prop_assert!(times.values().all(|times| *times == 1), "{:?}", times.iter().find(|(_, times)| **times != 1));
    }
}

#[test]
fn prefix_narrows_a_scan_and_dead_items_are_left_out() {
    let cache = cache();
    for number in 0..500 {
        cache.set(format!("user:{number}"), number.to_string(), Expiry::Never).unwrap();
        cache.set(format!("page:{number}"), "x", Expiry::Never).unwrap();
    }
    cache.set("user:dead", "x", Expiry::At(1)).unwrap();
    let found: BTreeMap<Vec<u8>, Vec<u8>> = cache
        .scan("user:")
        .map(|entry| entry.map(|(key, item)| (key.to_vec(), item.value.to_vec())).unwrap())
        .collect();
    assert_eq!(found.len(), 500);
    assert_eq!(found[&b"user:77"[..]], b"77");
    assert_eq!(cache.iter().count(), 1_000);
    assert_eq!(cache.stats().get_hits, 0, "visiting is not reading");
    cache.invalidate_prefix("user:").unwrap();
    assert_eq!(cache.scan("user:").count(), 0);
    assert_eq!(cache.iter().count(), 500);
}

#[test]
fn iterator_goes_on_from_its_cursor_and_leaves_nothing_out() {
    let cache = cache();
    for number in 0..2_000 {
        cache.set(format!("k{number}"), "v", Expiry::Never).unwrap();
    }
    let mut entries = cache.iter();
    let mut seen: BTreeSet<Vec<u8>> =
        entries.by_ref().take(777).map(|entry| entry.unwrap().0.to_vec()).collect();
    let cursor = entries.cursor().unwrap();
    drop(entries);
    seen.extend(cache.iter().from_cursor(cursor).map(|entry| entry.unwrap().0.to_vec()));
    assert_eq!(seen.len(), 2_000);
}

#[test]
fn foreign_cursors_are_refused() {
    let (one, other) = (cache(), cache());
    for cache in [&one, &other] {
        for number in 0..100 {
            cache.set(format!("k{number}"), "v", Expiry::Never).unwrap();
        }
    }
    let (cursor, _) = scanned(&one, Cursor::START, "");
    assert_eq!(other.scan_from(cursor.unwrap(), "", 1, |_| ()).unwrap_err(), ReadError::ForeignCursor);
    for number in [1, 77, u64::MAX, 1 << 40, u64::MAX - (0xff << 32)] {
        assert_eq!(one.scan_from(Cursor(number), "", 1, |_| ()).unwrap_err(), ReadError::ForeignCursor);
    }
}

#[test]
fn visitor_that_calls_the_cache_is_refused() {
    let cache = cache();
    cache.set("a", "1", Expiry::Never).unwrap();
    let mut inner = None;
    cache.scan_from(Cursor::START, "", 10, |_| inner = Some(cache.get("a"))).unwrap();
    assert_eq!(inner, Some(Err(ReadError::InsideRead)));
}

#[test]
fn retain_removes_what_the_condition_does_not_keep() {
    let cache = cache();
    for number in 0..5_000_u32 {
        cache.set(format!("k{number}"), number.to_string(), Expiry::Never).unwrap();
    }
    let is_even = |value: &[u8]| value.last().is_some_and(|digit| digit % 2 == 0);
    let removed = cache.retain(|item| is_even(&item.value.to_vec())).unwrap();
    assert_eq!(removed, 2_500);
    assert_eq!(cache.iter().count(), 2_500);
    assert!(cache.get("k2").unwrap().is_some() && cache.get("k3").unwrap().is_none());
}

#[test]
fn conditional_changes_look_at_what_is_there() {
    let cache = cache();
    assert_eq!(cache.compare_and_delete("k", hotspare::Version(1)).unwrap(), Deletion::NotFound);
    let old = cache.set("k", "1", Expiry::Never).unwrap();
    let new = cache.set("k", "2", Expiry::Never).unwrap();
    assert_eq!(cache.compare_and_delete("k", old).unwrap(), Deletion::Exists);
    assert!(!cache.remove_if("k", |item| item.value == *b"1").unwrap());
    assert!(!cache.remove_if("absent", |_| true).unwrap());
    assert_eq!(
        cache
            .update("k", |item| {
                assert_eq!(item.unwrap().version, new);
                Update::Keep
            })
            .unwrap(),
        Updated::Kept
    );
    let Updated::Stored(version) = cache
        .update("k", |item| Update::Store {
            value: [&item.unwrap().value.to_vec()[..], b"3"].concat().into(),
            attributes: Expiry::Never.into(),
        })
        .unwrap()
    else {
        panic!("it stores")
    };
    let item = cache.get("k").unwrap().unwrap();
    assert_eq!((item.version, &item.value[..]), (version, &b"23"[..]));
    assert!(cache.remove_if("k", |item| item.value == *b"23").unwrap());
    assert_eq!(cache.get("k").unwrap(), None);
    cache.set("k", "1", hotspare::Attributes { flags: 7, expiry: Expiry::At(4_000_000_000_000) }).unwrap();
    cache.update("k", |_| Update::Replace("2".into())).unwrap();
    assert!(cache.contains("k").unwrap() && !cache.contains("other").unwrap());
    assert_eq!(cache.stats().get_hits, 1, "looking is not reading");
    let taken = cache.take("k").unwrap().unwrap();
    assert_eq!((&taken.value[..], taken.flags, taken.expires_at_ms), (&b"2"[..], 7, Some(4_000_000_000_000)));
    assert_eq!((cache.take("k").unwrap(), cache.contains("k").unwrap()), (None, false));
}

#[test]
fn threads_that_update_in_one_step_lose_nothing() {
    let cache = cache();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    cache
                        .update("sum", |item| {
                            let sum: u32 = item.map_or(0, |item| {
                                String::from_utf8(item.value.to_vec()).unwrap().parse().unwrap()
                            });
                            Update::Store {
                                value: (sum + 1).to_string().into(),
                                attributes: Expiry::Never.into(),
                            }
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(&cache.get("sum").unwrap().unwrap().value[..], b"8000");
}

#[test]
fn m6_what_meta_commands_say_of_an_item_stays_until_an_ordinary_store() {
    let cache = cache();
    let state =
        ItemState { client_cas: Some(1 << 60), is_stale: true, is_token_sent: true, is_key_binary: true };
    let attributes = hotspare::Attributes { flags: 7, expiry: Expiry::At(4_000_000_000_000) };
    let store = |state| cache.update("k", |_| Update::StoreWith { value: "1".into(), attributes, state });
    store(state).unwrap();
    let seen = cache
        .peek("k", |item| (item.state, item.cas(), item.flags, item.is_fetched, item.value.to_vec()))
        .unwrap()
        .unwrap();
    assert_eq!(seen, (state, 1 << 60, 7, false, b"1".to_vec()));
    assert_eq!(cache.read("k", |item| item.is_fetched), Ok(Some(false)), "as it was before");
    assert_eq!(cache.read("k", |item| item.is_fetched), Ok(Some(true)));
    assert!(cache.touch("k", Expiry::Never).unwrap());
    assert_eq!(cache.peek("k", |item| item.state), Ok(Some(state)), "a touch is no store");
    assert_eq!(cache.compare_and_delete("k", hotspare::Version(3)).unwrap(), Deletion::Exists);
    let swapped = cache.compare_and_swap("k", hotspare::Version(1 << 60), "2", Expiry::Never).unwrap();
    let hotspare::Swap::Stored(version) = swapped else { panic!("the client's CAS counts") };
    assert_eq!(cache.peek("k", |item| (item.state, item.cas())), Ok(Some((ItemState::default(), version.0))));
    store(state).unwrap();
    cache.append("k", "+").unwrap();
    let extended = ItemState { is_key_binary: true, ..ItemState::default() };
    assert_eq!(cache.peek("k", |item| item.state), Ok(Some(extended)), "M3: it is the same key");
    assert_eq!(cache.stats().get_hits, 3, "two reads and a touch; peeking is neither");
    for cas in [None, Some(9)] {
        for value_bytes in [0, 4_093, 4_094, 100_000] {
            let value = vec![b'x'; value_bytes];
            let state = ItemState { client_cas: cas, is_stale: true, ..ItemState::default() };
            let put = || Update::StoreWith { value: value.clone().into(), attributes, state };
            cache.update("k", |_| put()).unwrap();
            let seen = cache.get("k").unwrap().unwrap();
            assert_eq!((seen.value.as_ref(), seen.flags), (&value[..], 7));
            assert_eq!(cache.peek("k", |item| item.state), Ok(Some(state)));
        }
    }
    cache.check_invariants();
}
