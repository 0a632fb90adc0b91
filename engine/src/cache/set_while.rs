//! Sets of many keys, whose lines and items are fetched ahead of time.
//!
//! Lives here: in which order, when each is fetched, and that each key is hashed once. Not here: how one of them is stored
//! (see `write`).

use std::ops::ControlFlow;

use crate::error::WriteError;
use crate::mutation::{Attributes, Version};
use crate::storage::{FetchedLine, OneSeed};

use super::read::BATCH;
use super::{Cache, Inner};

/// What [`Cache::set_while`] stores.
///
/// ```
/// use hotspare::{Expiry, Put};
/// let put = Put { key: b"a", value: b"1", attributes: Expiry::Never.into() };
/// assert_eq!(Put::default().attributes, put.attributes);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Put<'a> {
    /// Under which key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// What it carries besides.
    pub attributes: Attributes,
}

impl AsRef<[u8]> for Put<'_> {
    fn as_ref(&self) -> &[u8] {
        self.key
    }
}

impl Cache {
    /// Stores many items, each as [`Cache::set`] does and in this order, in less time: the processor fetches what the next ones
    /// touch while one is stored. The closure is told the place of each and what became of it, and may break off: those
    /// behind are not stored.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Put};
    /// # use std::ops::ControlFlow;
    /// # let cache = Cache::new(Config::new())?;
    /// let puts = [("a", "1"), ("b", "2")].map(|(key, value)| Put {
    ///     key: key.as_bytes(),
    ///     value: value.as_bytes(),
    ///     ..Put::default()
    /// });
    /// cache.set_while(&puts, |at, stored| {
    ///     assert!(stored.is_ok(), "{at}");
    ///     ControlFlow::Continue(())
    /// });
    /// assert!(cache.contains("a")? && cache.contains("b")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_while(
        &self,
        puts: &[Put<'_>],
        told: impl FnMut(usize, Result<Version, WriteError>) -> ControlFlow<()>,
    ) {
        self.inner.set_while(puts, told);
    }

    /// An empty batch of items to be stored together, for whoever does not have all of them at once.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Put};
    /// # use std::ops::ControlFlow;
    /// # let cache = Cache::new(Config::new())?;
    /// let mut batch = cache.set_batch();
    /// for line in "a=1 b=2".split(' ') {
    ///     let (key, value) = line.split_at(1);
    ///     batch.push(Put { key: key.as_bytes(), value: value.as_bytes(), ..Put::default() });
    /// }
    /// batch.store(|_, _, stored| if stored.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
    /// assert_eq!(&*cache.get("b")?.unwrap().value, b"=2");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn set_batch<'a>(&self) -> SetBatch<'_, 'a> {
        self.inner.set_batch()
    }
}

/// How many sets later a line is looked into that was asked for: by then it has come from memory.
const LINE_LEAD: usize = 6;

/// How many sets before its own the neighbours of an item are asked for: it leaves its place between them.
const NEIGHBOUR_LEAD: usize = 2;

/// Items to be stored together, as by [`Cache::set_while`], that become known one after the other: what the processor needs
/// for one is on its way while the next ones are found. From [`Cache::set_batch`].
pub struct SetBatch<'c, 'a> {
    inner: &'c Inner,
    /// What all hashes are under: with another one since they are not used.
    seed: OneSeed<'c>,
    puts: [Put<'a>; BATCH],
    hashes: [u64; BATCH],
    lines: [Option<FetchedLine<'c>>; BATCH],
    len: usize,
}

impl<'a> SetBatch<'_, 'a> {
    /// Adds an item behind the others; false, and nothing is added, if the batch is full.
    #[inline(always)]
    pub fn push(&mut self, put: Put<'a>) -> bool {
        let (inner, at) = (self.inner, self.len);
        let Some(place) = self.puts.get_mut(at) else { return false };
        *place = put;
        self.hashes[at] = self.seed.hash(put.key);
        self.lines[at] = inner.tables.of(self.hashes[at]).prefetch_line(self.hashes[at]);
        self.len += 1;
        if let Some(Some(line)) = at.checked_sub(LINE_LEAD).map(|at| self.lines[at]) {
            line.prefetch_to_replace();
        }
        true
    }

    /// Stores them, each as [`Cache::set`] does and in this order. The closure is told the place of each, what it is and what
    /// became of it, and may break off: those behind are not stored.
    #[inline]
    pub fn store(
        &self,
        mut told: impl FnMut(usize, &Put<'a>, Result<Version, WriteError>) -> ControlFlow<()>,
    ) {
        let SetBatch { inner, seed, len, .. } = *self;
        for line in self.lines[len.saturating_sub(LINE_LEAD)..len].iter().flatten() {
            line.prefetch_to_replace();
        }
        self.lines[..len.min(NEIGHBOUR_LEAD)].iter().flatten().for_each(|line| line.prefetch_neighbours());
        for (at, (put, hash)) in self.puts[..len].iter().zip(&self.hashes).enumerate() {
            if let Some(Some(line)) = self.lines[..len].get(at + NEIGHBOUR_LEAD) {
                line.prefetch_neighbours();
            }
            // Told in either branch: a result that both left in one place was copied whole from there, of which only the version
            // had just been written, and the copy waited until all stores before had reached the cache.
            let simply = match inner.is_special {
                true => None,
                false => inner.set_hashed((*hash, seed.id()), put.key, put.value, put.attributes),
            };
            let is_over = match simply {
                Some(version) => told(at, put, Ok(version)),
                None => told(at, put, inner.set_anyway(put.key, put.value, put.attributes)),
            };
            if is_over.is_break() {
                return;
            }
        }
    }
}

impl Inner {
    #[inline]
    fn set_batch<'a>(&self) -> SetBatch<'_, 'a> {
        SetBatch {
            inner: self,
            seed: self.hasher.one_seed(),
            puts: [Put::default(); BATCH],
            hashes: [0; BATCH],
            lines: [None; BATCH],
            len: 0,
        }
    }

    fn set_while<'a>(
        &self,
        puts: &[Put<'a>],
        mut told: impl FnMut(usize, Result<Version, WriteError>) -> ControlFlow<()>,
    ) {
        let mut begin = 0;
        let mut flow = ControlFlow::Continue(());
        for puts in puts.chunks(BATCH) {
            let mut batch = self.set_batch();
            puts.iter().for_each(|put| {
                batch.push(*put);
            });
            batch.store(|at, _, stored| {
                flow = told(begin + at, stored);
                flow
            });
            if flow.is_break() {
                return;
            }
            begin += BATCH;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::mutation::Expiry;
    use crate::storage::KeyHash;

    /// Keys of the same place and tag.
    struct Constant;

    impl KeyHash for Constant {
        fn hash(&self, _seed: u64, _key: &[u8]) -> u64 {
            7
        }
    }

    fn configs() -> [Config; 3] {
        let config = || Config::new().memory_bytes_max(4 << 20).item_bytes_max(1 << 10);
        [config(), config().key_hash(Arc::new(Constant)), config().latency_histograms(true)]
    }

    #[test]
    fn sets_of_many_keys_come_to_what_sets_one_by_one_come_to() {
        let (large, long_key) = (vec![7; 2 << 10], vec![b'k'; 2000]);
        let attributes = Attributes { flags: 5, expiry: Expiry::At(u64::MAX) };
        let mut puts: Vec<Put<'_>> = [&b"a"[..], b"b", b"a", b"", &long_key, b"c"]
            .into_iter()
            .map(|key| Put { key, value: key, attributes })
            .collect();
        puts.extend((0..200u8).map(|_| Put { key: b"d", value: b"1", ..Put::default() }));
        puts.push(Put { key: b"b", value: &large, ..Put::default() });
        puts.push(Put { key: b"c", value: b"2", ..Put::default() });
        for (many, one) in configs().into_iter().zip(configs()) {
            let (many, one) = (Cache::new(many).unwrap(), Cache::new(one).unwrap());
            let mut outcomes = Vec::new();
            many.set_while(&puts, |at, stored| {
                assert_eq!(at, outcomes.len());
                outcomes.push(stored);
                ControlFlow::Continue(())
            });
            let expected: Vec<_> =
                puts.iter().map(|put| one.set(put.key, put.value, put.attributes)).collect();
            assert_eq!(outcomes, expected);
            for key in ["a", "b", "c", "d"] {
                assert_eq!(many.get(key).unwrap(), one.get(key).unwrap(), "{key}");
            }
        }
    }

    #[test]
    fn who_breaks_off_has_the_others_not_stored() {
        let cache = Cache::new(Config::new()).unwrap();
        let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
        let puts: Vec<Put<'_>> =
            keys.iter().map(|key| Put { key: key.as_bytes(), ..Put::default() }).collect();
        cache.set_while(
            &puts,
            |at, _| if at == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
        );
        let stored = keys.iter().filter(|key| cache.contains(key).unwrap()).count();
        assert_eq!((stored, cache.contains("k20").unwrap()), (21, true));
    }

    #[test]
    fn a_batch_takes_so_many_and_says_of_each_what_it_is() {
        let cache = Cache::new(Config::new()).unwrap();
        let keys: Vec<String> = (0..2 * BATCH).map(|number| format!("k{number}")).collect();
        let mut batch = cache.set_batch();
        for (at, key) in keys.iter().map(String::as_bytes).enumerate() {
            assert_eq!(batch.push(Put { key, value: key, ..Put::default() }), at < BATCH);
        }
        let mut told = 0;
        batch.store(|at, put, stored| {
            assert_eq!((at, put.key, stored.is_ok()), (told, keys[at].as_bytes(), true));
            told += 1;
            ControlFlow::Continue(())
        });
        let stored = keys
            .iter()
            .filter(|key| cache.get(key).unwrap().is_some_and(|item| *item.value == *key.as_bytes()));
        assert_eq!((told, stored.count()), (BATCH, BATCH));
    }

    #[test]
    fn a_set_inside_a_read_is_refused_each() {
        let cache = Cache::new(Config::new()).unwrap();
        cache.set("a", "1", Expiry::Never).unwrap();
        let puts = [Put { key: b"b", ..Put::default() }; 3];
        let mut refused = 0;
        cache
            .read("a", |_| {
                cache.set_while(&puts, |_, stored| {
                    refused += usize::from(stored == Err(WriteError::InsideRead));
                    ControlFlow::Continue(())
                });
            })
            .unwrap();
        assert_eq!(refused, 3);
    }
}
