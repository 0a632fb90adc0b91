//! What flushes have made dead: all items below one version, and those below another whose key has a prefix.
//!
//! Lives here: the floors, and the question whether an item lies below one. Not here: when a flush takes which version
//! (see `cache::write`), who removes what is dead (see `room` and `sweep`).
//!
//! An item at or above `highest` lies below no floor: that is one comparison, and the answer for all items stored since
//! the last flush. Only for older ones the prefixes are looked at, one binary search for each length of a prefix.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Version;

/// The longest prefix that can be invalidated, in bytes.
pub const PREFIX_BYTES_MAX: usize = 128;
/// How many prefixes, none within another, can have been invalidated since the last flush of everything.
pub const PREFIXES_MAX: usize = 256;

/// 1. `highest` is at least every floor that is in force; a floor comes into force before `highest` is raised to it.
/// 2. Of two prefixes of which one begins with the other, the longer has the higher floor.
/// 3. A prefix leaves after `all` was raised to its floor; so whoever asks looks at the prefixes first.
pub(crate) struct Floors {
    all: AtomicU64,
    highest: AtomicU64,
    prefixes: ArcSwap<Prefixes>,
    /// Held while `prefixes` are replaced.
    replacing: Mutex<()>,
}

#[derive(Debug, Clone, Default)]
struct Prefixes {
    /// Sorted by prefix.
    floors: Vec<(Box<[u8]>, Version)>,
    /// The lengths that occur, once each.
    lengths: Vec<usize>,
}

/// There are [`PREFIXES_MAX`] prefixes with a floor already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyPrefixes;

impl Prefixes {
    fn new(mut floors: Vec<(Box<[u8]>, Version)>) -> Prefixes {
        floors.sort();
        let mut lengths: Vec<usize> = floors.iter().map(|(prefix, _)| prefix.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Prefixes { floors, lengths }
    }

    fn floor(&self, prefix: &[u8]) -> Option<Version> {
        let at = self.floors.binary_search_by(|(other, _)| (**other).cmp(prefix)).ok()?;
        Some(self.floors[at].1)
    }
}

impl Floors {
    pub(crate) fn new() -> Floors {
        Floors {
            all: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            prefixes: ArcSwap::default(),
            replacing: Mutex::new(()),
        }
    }

    /// Whether an item of this version and key was flushed.
    #[inline]
    pub(crate) fn is_flushed<'k>(&self, version: Version, key: impl FnOnce() -> &'k [u8]) -> bool {
        version.0 < self.highest.load(Acquire) && self.is_below(version, key())
    }

    #[cold]
    fn is_below(&self, version: Version, key: &[u8]) -> bool {
        // The prefixes first: a floor that is gone from them was covered by `all` before.
        let prefixes = self.prefixes.load();
        if version < self.all() {
            return true;
        }
        let floor = |length: usize| key.get(..length).and_then(|prefix| prefixes.floor(prefix));
        prefixes.lengths.iter().any(|length| floor(*length).is_some_and(|floor| version < floor))
    }

    /// An item of this version or a newer one is not dead by any floor.
    #[inline]
    pub(crate) fn highest(&self) -> u64 {
        self.highest.load(Acquire)
    }

    /// Items of an older version are dead.
    pub(crate) fn all(&self) -> Version {
        Version(self.all.load(Acquire))
    }

    /// Everything older than this version is dead. Never lowers a floor.
    pub(crate) fn raise_all(&self, version: Version) {
        let _replacing = self.replacing.lock();
        self.all.fetch_max(version.0, AcqRel);
        let all = self.all();
        let left = self.prefixes.load().floors.iter().filter(|(_, floor)| *floor > all).cloned().collect();
        self.prefixes.store(Prefixes::new(left).into());
        self.highest.fetch_max(version.0, AcqRel);
    }

    /// Every item whose key begins with `prefix` and that is older than this version is dead.
    pub(crate) fn raise_prefix(&self, prefix: &[u8], version: Version) -> Result<(), TooManyPrefixes> {
        let _replacing = self.replacing.lock();
        let mut left = self.prefixes.load().floors.clone();
        let covers = |(other, floor): &(Box<[u8]>, Version)| prefix.starts_with(other) && *floor >= version;
        if version <= self.all() || left.iter().any(covers) {
            return Ok(());
        }
        left.retain(|(other, floor)| !(other.starts_with(prefix) && *floor <= version));
        if left.len() == PREFIXES_MAX {
            return Err(TooManyPrefixes);
        }
        left.push((prefix.into(), version));
        self.prefixes.store(Prefixes::new(left).into());
        self.highest.fetch_max(version.0, AcqRel);
        Ok(())
    }

    /// The prefixes and their floors.
    pub(crate) fn prefixes(&self) -> Vec<(Box<[u8]>, Version)> {
        self.prefixes.load().floors.clone()
    }

    /// The floors of another history, once every shard is empty.
    pub(crate) fn restart(&self, all: Version, prefixes: impl Iterator<Item = (Box<[u8]>, Version)>) {
        let _replacing = self.replacing.lock();
        let prefixes = Prefixes::new(prefixes.take(PREFIXES_MAX).collect());
        let highest = prefixes.floors.iter().map(|(_, floor)| *floor).fold(all, Version::max);
        self.all.store(all.0, Release);
        self.prefixes.store(prefixes.into());
        self.highest.store(highest.0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_flushed(floors: &Floors, version: u64, key: &'static str) -> bool {
        floors.is_flushed(Version(version), || key.as_bytes())
    }

    #[test]
    fn prefix_floor_concerns_older_items_of_its_prefix_only() {
        let floors = Floors::new();
        floors.raise_prefix(b"user:", Version(10)).unwrap();
        assert!(is_flushed(&floors, 9, "user:1") && is_flushed(&floors, 9, "user:"));
        assert!(!is_flushed(&floors, 10, "user:1"), "stored since");
        assert!(!is_flushed(&floors, 9, "user") && !is_flushed(&floors, 9, "page:1"));
        floors.raise_all(Version(20));
        assert!(is_flushed(&floors, 19, "page:1") && !is_flushed(&floors, 20, "user:1"));
        assert!(floors.prefixes().is_empty(), "what a flush covers is forgotten");
    }

    #[test]
    fn shorter_prefix_takes_the_place_of_older_ones_within_it() {
        let floors = Floors::new();
        for number in 0..PREFIXES_MAX {
            floors.raise_prefix(format!("a{number:03}").as_bytes(), Version(5)).unwrap();
        }
        assert_eq!(floors.raise_prefix(b"b", Version(6)), Err(TooManyPrefixes));
        assert!(!is_flushed(&floors, 4, "b"));
        floors.raise_prefix(b"a", Version(7)).unwrap();
        assert_eq!(floors.prefixes().len(), 1);
        floors.raise_prefix(b"a001", Version(6)).unwrap();
        assert_eq!(floors.prefixes().len(), 1, "covered already");
        floors.raise_prefix(b"a001", Version(9)).unwrap();
        assert!(is_flushed(&floors, 8, "a001x") && !is_flushed(&floors, 8, "a002x"));
        floors.raise_prefix(b"b", Version(9)).unwrap();
        assert_eq!(floors.prefixes().len(), 3);
    }

    #[test]
    fn older_floor_never_replaces_a_newer_one() {
        let floors = Floors::new();
        floors.raise_prefix(b"a", Version(9)).unwrap();
        floors.raise_prefix(b"a", Version(4)).unwrap();
        floors.raise_all(Version(3));
        assert!(is_flushed(&floors, 8, "a1") && is_flushed(&floors, 2, "b"));
    }

    #[test]
    fn item_below_a_prefix_floor_stays_dead_while_a_flush_takes_the_floor_over() {
        let floors = Floors::new();
        let (dead, done) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..100_000_u64 {
                    floors.raise_prefix(b"user:", Version(2 * round)).unwrap();
                    dead.store(2 * round - 1, Release);
                    floors.raise_all(Version(2 * round + 1));
                }
                done.store(1, Release);
            });
            while done.load(Acquire) == 0 {
                let version = dead.load(Acquire);
                assert!(version == 0 || is_flushed(&floors, version, "user:1"), "{version} came back");
            }
        });
    }
}
