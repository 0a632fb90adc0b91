//! `stats detail`: commands counted by the part of the key before its first colon, or what `-D` says (rule G5).
//!
//! Lives here: the table, of bounded size. Not here: whether anybody wants it (see `observers`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Prefixes beyond so many are not counted: a table of what clients name must end somewhere.
const PREFIXES_MAX: usize = 10_000;

/// What was done with the keys of one prefix.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) gets: u64,
    pub(crate) hits: u64,
    pub(crate) sets: u64,
    pub(crate) deletes: u64,
}

/// The counts by prefix.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// What ends a prefix. A key without it is not counted, as in memcached.
    delimiter: AtomicU8,
    table: Mutex<BTreeMap<Vec<u8>, Counts>>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Prefixes { delimiter: b':'.into(), table: Mutex::default() }
    }
}

impl Prefixes {
    fn table(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Counts>> {
        // Nothing panics while it is held; and counters are sound after anything.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_delimiter(&self, byte: u8) {
        self.delimiter.store(byte, Ordering::Relaxed);
    }

    /// Counts for the key's prefix.
    #[cold]
    pub(crate) fn count(&self, key: &[u8], count: impl FnOnce(&mut Counts)) {
        let delimiter = self.delimiter.load(Ordering::Relaxed);
        let Some(end) = key.iter().position(|byte| *byte == delimiter) else { return };
        let mut table = self.table();
        if let Some(counts) = table.get_mut(&key[..end]) {
            count(counts);
        } else if table.len() < PREFIXES_MAX {
            count(table.entry(key[..end].to_vec()).or_default());
        }
    }

    pub(crate) fn clear(&self) {
        self.table().clear();
    }

    /// Appends a line for each prefix.
    pub(crate) fn dump(&self, out: &mut Vec<u8>) {
        for (prefix, Counts { gets, hits, sets, deletes }) in self.table().iter() {
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            // Writing to a vector can't fail.
            let _ = write!(out, " get {gets} hit {hits} set {sets} del {deletes}\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g5_the_table_of_prefixes_is_bounded() {
        let prefixes = Prefixes::default();
        for number in 0..PREFIXES_MAX + 10 {
            prefixes.count(format!("{number}:x").as_bytes(), |counts| counts.sets += 1);
        }
        prefixes.count(b"0:y", |counts| counts.sets += 1);
        assert_eq!(prefixes.table().len(), PREFIXES_MAX);
        assert_eq!(prefixes.table()[&b"0"[..]].sets, 2);
    }
}
