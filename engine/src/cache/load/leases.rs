//! Which node of the group loads which key: what the log has said of a shard's keys, beside the items.
//!
//! Lives here: the table. Not here: who gets a lease, and what ends one (see `sharing`).

use std::collections::HashMap;

use crate::clock::Millis;
use crate::mutation::Version;

/// Bytes that all shards' tables may take together, keys included. Who wants a lease beyond that loads for itself.
pub(crate) const LEASES_BYTES_MAX: usize = 1 << 20;

/// What an entry is charged besides its key.
const ENTRY_BYTES: usize = 128;

/// The right of one node to load one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadLease {
    pub(crate) node: u128,
    /// Of the record that gave it.
    pub(crate) version: Version,
    /// It counts until then, on the group's clock.
    pub(crate) until_ms: Millis,
    /// Whether the primary gave it to itself.
    pub(crate) is_primarys: bool,
}

/// 1. `bytes` is what the entries are charged, at most `bytes_max`.
/// 2. An entry is what the newest record of its key says: any other record of the key has removed it.
#[derive(Debug)]
pub(crate) struct LoadLeases {
    by_key: HashMap<Box<[u8]>, LoadLease>,
    bytes: usize,
    bytes_max: usize,
}

impl LoadLeases {
    /// The table of one of so many shards.
    pub(crate) fn new(shard_count: usize) -> LoadLeases {
        // Even the smallest takes three of the longest keys.
        let bytes_max = (LEASES_BYTES_MAX / shard_count).max(4 << 10);
        LoadLeases { by_key: HashMap::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<LoadLease> {
        self.by_key.get(key).copied()
    }

    /// The keys of those that are meant.
    pub(crate) fn keys(&self, is_meant: impl Fn(&LoadLease) -> bool) -> Vec<Box<[u8]>> {
        self.by_key.iter().filter(|(_, lease)| is_meant(lease)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether there is room for one of this key; those that are over leave for it.
    pub(crate) fn make_room(&mut self, key: &[u8], now_ms: Millis) -> bool {
        let known = self.by_key.get(key).map_or(0, |_| charge(key));
        if self.bytes - known + charge(key) > self.bytes_max {
            self.forget_over(now_ms);
        }
        let known = self.by_key.get(key).map_or(0, |_| charge(key));
        self.bytes - known + charge(key) <= self.bytes_max
    }

    /// Takes one in; where there is no room for it, only the one before leaves.
    pub(crate) fn insert(&mut self, key: &[u8], lease: LoadLease, now_ms: Millis) {
        self.remove(key, Version(u64::MAX));
        if self.make_room(key, now_ms) {
            self.bytes += charge(key);
            self.by_key.insert(key.into(), lease);
        }
    }

    /// The key was written to, by a record of this version: a lease that was given before is over.
    pub(crate) fn remove(&mut self, key: &[u8], by: Version) {
        if self.by_key.get(key).is_some_and(|lease| lease.version < by) {
            self.by_key.remove(key);
            self.bytes -= charge(key);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.bytes = 0;
    }

    /// Forgets those whose time is over.
    pub(crate) fn forget_over(&mut self, now_ms: Millis) {
        self.by_key.retain(|_, lease| lease.until_ms > now_ms);
        self.bytes = self.by_key.keys().map(|key| charge(key)).sum();
    }
}

fn charge(key: &[u8]) -> usize {
    key.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: u64, until_ms: Millis) -> LoadLease {
        LoadLease { node: 1, version: Version(version), until_ms, is_primarys: false }
    }

    #[test]
    fn the_table_stays_within_its_bytes_and_takes_more_once_leases_are_over() {
        let mut leases = LoadLeases::new(64);
        for number in 0..10_000_u64 {
            leases.insert(format!("key{number}").as_bytes(), lease(number, 100), 50);
            assert!(leases.bytes <= LEASES_BYTES_MAX / 64);
            assert_eq!(leases.bytes, leases.by_key.keys().map(|key| charge(key)).sum::<usize>());
        }
        assert!(leases.len() > 100 && leases.get(b"key0").is_some() && leases.get(b"key9999").is_none());
        assert!(!leases.make_room(b"other", 99) && leases.make_room(b"key0", 99));
        assert!(leases.make_room(b"other", 100) && leases.len() == 0);
    }

    #[test]
    fn only_what_came_behind_a_lease_ends_it() {
        let mut leases = LoadLeases::new(1);
        leases.insert(b"k", lease(7, 100), 0);
        leases.remove(b"k", Version(7));
        assert_eq!(leases.get(b"k"), Some(lease(7, 100)));
        leases.remove(b"k", Version(8));
        assert_eq!((leases.get(b"k"), leases.bytes), (None, 0));
    }
}
