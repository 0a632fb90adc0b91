//! Asking the processor for what operations on keys are about to touch, so that it comes from memory meanwhile.
//!
//! Lives here: for a program that says so itself. Not here: reads and sets of many keys, which ask by themselves (see
//! `read`, `set_while`).

use crate::storage::FetchedLine;

use super::read::BATCH;
use super::{Cache, Inner};

impl Cache {
    /// Has the processor fetch what operations on these keys are about to touch, all at once instead of one by one: for
    /// a program that knows its next keys and can't put them into one [`Cache::read_many`]. Nothing changes, whatever
    /// the keys are; for a single key it costs more than it gains.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// let keys = ["a", "b", "c"];
    /// cache.prefetch(&keys);
    /// for key in keys {
    ///     cache.set(key, "1", Expiry::Never)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefetch<K: AsRef<[u8]>>(&self, keys: &[K]) {
        self.inner.prefetch(keys);
    }

    /// Has the processor fetch the line of the index that has this key, if it is stored: the first of two steps, for a program
    /// that has something else to do (some hundred nanoseconds' worth) before it takes the second, [`KeyAhead::prefetch_item`], and
    /// again before it uses the key. Nothing changes.
    ///
    /// ```
    /// # use hotspare::{Cache, Config};
    /// # let cache = Cache::new(Config::new())?;
    /// let ahead = cache.look_ahead(b"a");
    /// // … something else …
    /// ahead.prefetch_item();
    /// // … something else …
    /// assert!(cache.get("a")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn look_ahead(&self, key: &[u8]) -> KeyAhead<'_> {
        KeyAhead(self.inner.prefetch_line(key))
    }
}

/// A key that is used soon. From [`Cache::look_ahead`].
#[derive(Clone, Copy)]
pub struct KeyAhead<'c>(Option<FetchedLine<'c>>);

impl KeyAhead<'_> {
    /// Has the processor fetch the key's item, if it is stored. Waits for the line of the index that was asked for before, if that
    /// has not come yet.
    #[inline]
    pub fn prefetch_item(&self) {
        if let Some(line) = &self.0 {
            line.prefetch_item();
        }
    }
}

impl Inner {
    /// Has the processor fetch the line of this key; none of an empty index.
    #[inline]
    pub(super) fn prefetch_line(&self, key: &[u8]) -> Option<FetchedLine<'_>> {
        let hash = self.hasher.hash_inline(key);
        self.tables.of(hash).prefetch_line(hash)
    }

    /// Has the processor fetch the lines and items of these keys.
    fn prefetch<K: AsRef<[u8]>>(&self, keys: &[K]) {
        for batch in keys.chunks(BATCH) {
            let mut lines = [None; BATCH];
            for (line, key) in lines.iter_mut().zip(batch) {
                *line = self.prefetch_line(key.as_ref());
            }
            lines.iter().flatten().for_each(|line| line.prefetch_item());
        }
    }
}
