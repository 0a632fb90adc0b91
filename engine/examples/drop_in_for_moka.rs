//! The little program that a user of moka has, on this cache; each comment names the call of moka's that stood there.
//!
//! `cargo run --release -p hotspare --example drop_in_for_moka`

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotspare::{Attributes, Cache, Cause, Config, Eviction, Expiry, LoadPolicy, ManualClock, Update};

const MINUTE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    // A clock that stands still until it is told to move: only so that this example need not wait a minute.
    let clock = Arc::new(ManualClock::new(1_000_000));
    // Cache::builder().max_capacity(..).weigher(..).eviction_policy(..).build(): the limit is in bytes, and holds for
    // keys, values, headers and the index together, so there is nothing to weigh.
    let config = Config::new().memory_bytes_max(8 << 20).eviction(Eviction::Lru).clock(clock.clone());
    // eviction_listener(f): told of each item that leaves, whatever the cause.
    let evicted = Arc::new(AtomicU64::new(0));
    let count = evicted.clone();
    let config = config.on_departure(move |event| {
        count.fetch_add(u64::from(event.cause == Cause::Evicted), Ordering::Relaxed);
    });
    // cache.clone(): another handle to the same cache, here as well.
    let cache = Cache::new(config)?;

    insert_and_get(&cache, &clock)?;
    load(&cache)?;
    change(&cache)?;
    iterate(&cache)?;
    invalidate(&cache)?;
    fill_beyond_the_limit(&cache)?;
    let evicted = evicted.load(Ordering::Relaxed);
    println!("eviction_listener: told of {evicted} evictions");
    assert_eq!(evicted, cache.stats().evictions);
    Ok(())
}

fn insert_and_get(cache: &Cache, clock: &ManualClock) -> Result<(), Box<dyn Error>> {
    // insert(key, value): keys and values are bytes, copied in and copied out. For types of your own: `Typed`.
    cache.set("motd", "hello", Expiry::Never)?;
    // time_to_live(..) and expire_after(..): each item has its own expiry, given where it is stored.
    cache.set("session", "Ada", MINUTE)?;
    // get(&key) -> Option<V>
    let session = cache.get("session")?.ok_or("it was just stored")?;
    assert_eq!(&session.value[..], b"Ada");
    // get(&key) where the value is only looked at: here without a copy.
    let length = cache.read("session", |item| item.value.len())?;
    // contains_key(&key): this counts as a read.
    let is_there = cache.read("motd", |_| ())?.is_some();
    assert_eq!((length, is_there), (Some(3), true));
    clock.advance_ms(60_000);
    assert!(cache.get("session")?.is_none(), "its minute is over");
    println!("insert, get: an item lived for its own minute, another one has no end");
    Ok(())
}

fn load(cache: &Cache) -> Result<(), Box<dyn Error>> {
    let mut queries = 0;
    for _ in 0..3 {
        // get_with(key, init): one load, however many threads ask. From a future: `get_or_load_async`.
        let page = cache.get_or_load("page:1", MINUTE, || {
            queries += 1;
            Ok::<_, Infallible>("<h1>1</h1>")
        })?;
        assert_eq!(&page[..], b"<h1>1</h1>");
    }
    // try_get_with(key, init): the error is the loader's, in an Arc, for all who waited; it is not kept.
    let failed = cache.get_or_load("page:2", MINUTE, || Err::<&str, _>(std::io::Error::other("no database")));
    assert!(failed.is_err() && cache.get("page:2")?.is_none());
    // optionally_get_with(key, init): that there is none can be kept, too, for a time of its own.
    let policy = LoadPolicy::fresh_for(MINUTE).absent_for(Duration::from_secs(5));
    for _ in 0..3 {
        let none = cache.get_or_load_optional("page:404", policy, || {
            queries += 1;
            Ok::<Option<&str>, Infallible>(None)
        })?;
        assert_eq!(none, None);
    }
    assert_eq!(queries, 2);
    println!(
        "get_with, optionally_get_with: 6 requests, {queries} queries; try_get_with: an error is not kept"
    );
    Ok(())
}

fn change(cache: &Cache) -> Result<(), Box<dyn Error>> {
    // entry(key).or_insert(value)
    assert!(cache.add("motd", "another", Expiry::Never)?.is_none(), "the first one stays");
    // entry(key).and_compute_with(f): one step that nothing comes between.
    for _ in 0..3 {
        cache.update("visitors", |item| {
            let mut names = item.map(|item| item.value.to_vec()).unwrap_or_default();
            names.extend_from_slice(b"x");
            Update::Store { value: names.into(), attributes: Attributes::default() }
        })?;
    }
    // remove(&key) -> Option<V>: read, then delete that very version.
    let visitors = cache.get("visitors")?.ok_or("it was just stored")?;
    cache.compare_and_delete("visitors", visitors.version)?;
    assert_eq!(&visitors.value[..], b"xxx");
    println!("entry: or_insert left what was there, and_compute_with lost no update");
    Ok(())
}

fn iterate(cache: &Cache) -> Result<(), Box<dyn Error>> {
    // iter(): others may store and remove meanwhile. `scan("page:")` gives only the keys that begin so.
    let mut keys = Vec::new();
    for entry in cache.iter() {
        let (key, _item) = entry?;
        keys.push(String::from_utf8(key.to_vec())?);
    }
    keys.sort();
    assert_eq!(keys, ["motd", "page:1"]);
    println!("iter: {keys:?}");
    Ok(())
}

fn invalidate(cache: &Cache) -> Result<(), Box<dyn Error>> {
    for number in 0..1_000 {
        cache.set(format!("user:{number}"), format!("profile of {number}"), MINUTE)?;
    }
    // invalidate(&key)
    assert!(cache.delete("user:7")?);
    // invalidate_entries_if(predicate): done when the call returns.
    let removed = cache.retain(|item| !item.key.ends_with(b"5"))?;
    assert_eq!(removed, 100);
    // The same for all keys that begin alike takes constant time.
    cache.invalidate_prefix("user:")?;
    assert!(cache.get("user:8")?.is_none() && cache.get("motd")?.is_some());
    // invalidate_all()
    cache.flush()?;
    assert!(cache.get("motd")?.is_none());
    println!(
        "invalidate, invalidate_entries_if, invalidate_all: {removed} of 1000 by a condition, then the rest"
    );
    Ok(())
}

fn fill_beyond_the_limit(cache: &Cache) -> Result<(), Box<dyn Error>> {
    for number in 0..100_000 {
        cache.set(format!("item:{number}"), [b'x'; 200], Expiry::Never)?;
    }
    // run_pending_tasks() has no counterpart: each call does its own share, and the limit holds at every moment.
    let stats = cache.stats();
    // entry_count(), weighted_size(), policy().max_capacity()
    println!(
        "entry_count {}, weighted_size {} of {}",
        stats.items, stats.memory_bytes, stats.memory_bytes_max
    );
    assert!(stats.memory_bytes <= stats.memory_bytes_max && stats.evictions > 0);
    assert!(stats.items > 20_000, "the memory is used for items");
    assert!(cache.get("item:99999")?.is_some(), "the newest item is there");
    Ok(())
}
