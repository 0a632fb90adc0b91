//! An index of one's own, kept in step with a cache: which keys carry which tag.
//!
//! `cargo run --release -p hotspare --example change_stream`

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hotspare::{Cache, Change, Config, Effect, Expiry, NoChange, ReadError, ReplicationConfig};

const NEVER: Expiry = Expiry::Never;

fn main() -> Result<(), Box<dyn Error>> {
    // The log that replicas follow is what a subscription reads, so a cache on its own needs one: here 64 KiB.
    let log = ReplicationConfig::primary().log_bytes_max(64 << 10);
    let cache = Cache::new(Config::new().replication(log))?;
    cache.set("page:1", "red blue", NEVER)?;

    let mut changes = cache.subscribe(None)?;
    let mut tags = Tags::default();
    // The first word is to start: the page that was there already is found by going through the cache.
    tags.catch_up(&cache, &mut changes)?;
    assert_eq!(tags.keys_of("blue"), ["page:1"]);

    cache.set("page:2", "blue", NEVER)?;
    cache.append("page:2", " green")?;
    cache.delete("page:1")?;
    tags.catch_up(&cache, &mut changes)?;
    assert_eq!(tags.keys_of("blue"), ["page:2"]);
    assert_eq!(tags.keys_of("green"), ["page:2"], "an append is told as what it came to");
    assert!(tags.keys_of("red").is_empty());

    // One that stalls while the log moves on is told so, and starts again; nobody waits for it.
    for number in 0..5_000 {
        cache.set(format!("page:{number}"), if number % 2 == 0 { "even" } else { "odd" }, NEVER)?;
    }
    let restarts = tags.restarts;
    tags.catch_up(&cache, &mut changes)?;
    assert_eq!(tags.restarts, restarts + 1);
    assert_eq!(tags.keys_of("odd").len(), 2_500);

    // A thread that waits for each change, while others write.
    let kept_in_step = thread::scope(|scope| {
        let following = scope.spawn(|| {
            while tags.keys_of("last").is_empty() {
                match changes.next_within(Duration::from_secs(10)) {
                    Ok(change) => tags.apply(&cache, change)?,
                    Err(NoChange::Yet) => return Err("nothing for ten seconds".into()),
                    Err(NoChange::Closed) => return Err("the cache is gone".into()),
                }
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(tags.keys_of("even").len())
        });
        for number in (0..5_000).step_by(4) {
            cache.set(format!("page:{number}"), "changed", NEVER)?;
        }
        cache.set("end", "last", NEVER)?;
        Ok::<_, Box<dyn Error>>(following.join().expect("it does not panic").map_err(|why| why.to_string())?)
    })?;
    assert_eq!(kept_in_step, 1_250);
    println!("{} keys by {} tags, {} restarts", tags.by_key.len(), tags.by_tag.len(), tags.restarts);
    Ok(())
}

/// Keys by the words of their values.
#[derive(Default)]
struct Tags {
    by_tag: BTreeMap<String, BTreeSet<Bytes>>,
    by_key: BTreeMap<Bytes, String>,
    restarts: u32,
}

impl Tags {
    fn catch_up(&mut self, cache: &Cache, changes: &mut hotspare::Subscription) -> Result<(), ReadError> {
        while let Ok(change) = changes.try_next() {
            self.apply(cache, change)?;
        }
        Ok(())
    }

    fn apply(&mut self, cache: &Cache, change: Change) -> Result<(), ReadError> {
        match change.effect {
            Effect::Put { key, value, .. } => self.put(key, &value),
            Effect::Delete { key } => self.remove(&key),
            Effect::Flush => self.forget_all(),
            Effect::FlushPrefix { prefix } => {
                let hit: Vec<Bytes> =
                    self.by_key.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                hit.iter().for_each(|key| self.remove(key));
            }
            Effect::Restart(_) => {
                self.restarts += 1;
                self.forget_all();
                for entry in cache.iter() {
                    let (key, item) = entry?;
                    self.put(key, &item.value);
                }
            }
            // A touch changes no tag.
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, key: Bytes, value: &[u8]) {
        self.remove(&key);
        let value = String::from_utf8_lossy(value).into_owned();
        for tag in value.split_whitespace() {
            self.by_tag.entry(tag.to_owned()).or_default().insert(key.clone());
        }
        self.by_key.insert(key, value);
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(value) = self.by_key.remove(key) else { return };
        for tag in value.split_whitespace() {
            if let Some(keys) = self.by_tag.get_mut(tag) {
                keys.remove(key);
            }
        }
        self.by_tag.retain(|_, keys| !keys.is_empty());
    }

    fn forget_all(&mut self) {
        (self.by_tag, self.by_key) = Default::default();
    }

    fn keys_of(&self, tag: &str) -> Vec<&str> {
        let keys = self.by_tag.get(tag).into_iter().flatten();
        keys.map(|key| std::str::from_utf8(key).expect("keys are text")).collect()
    }
}
