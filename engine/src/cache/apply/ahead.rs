//! What is applied next, read ahead: the processor fetches the items that it concerns meanwhile.
//!
//! Lives here: reading entries some way in front of the one that is applied. Not here: applying them.

use std::collections::VecDeque;

use super::super::Inner;
use super::super::write::prefetch_cell;
use super::OutOfStep;
use crate::mutation::{Mutation, Pass};
use crate::replication::log::{Entry, WholeShard, entries};
use crate::replication::record;
use crate::storage::FetchedLine;

/// How many entries are read in front of the one that is applied.
const AHEAD: usize = 8;

/// How many entries before it is applied the items are looked up that an entry may concern: by then the index's line, which was
/// asked for when the entry was read, has come from memory.
const ITEM_AHEAD: usize = 4;

/// How many entries before it is applied the neighbours of its item are asked for, which it leaves for its new place in the list.
const NEIGHBOURS_AHEAD: usize = 1;

/// An [`Entry`] of the log, as whoever applies it wants it.
pub(super) enum Read<'a> {
    Record {
        mutation: Mutation<'a>,
        /// Of its key; 0 if it has none.
        hash: u64,
        bytes: &'a [u8],
    },
    Mark(u64),
    Pass {
        hash: u64,
        pass: Pass,
    },
    Whole(WholeShard),
}

impl Inner {
    /// The entries of an `Append`, in order; [`OutOfStep`] for one that can't be read, at its place.
    pub(super) fn read_ahead<'a>(
        &'a self,
        records: &'a [u8],
    ) -> impl Iterator<Item = Result<Read<'a>, OutOfStep>> {
        let mut read = entries(records).map(|entry| self.read_entry(entry.ok_or(OutOfStep)?));
        let mut queue: VecDeque<Result<(Read<'a>, Option<FetchedLine<'a>>), OutOfStep>> =
            VecDeque::with_capacity(AHEAD);
        std::iter::from_fn(move || {
            // Once it is full one is wanted at a time, so `extend` costs more than it saves.
            while queue.len() < AHEAD
                && let Some(entry) = read.next()
            {
                queue.push_back(entry);
            }
            if let Some(Ok((_, Some(line)))) = queue.get(ITEM_AHEAD) {
                line.prefetch_to_replace();
            }
            if let Some(Ok((_, Some(line)))) = queue.get(NEIGHBOURS_AHEAD) {
                line.prefetch_neighbours();
            }
            Some(queue.pop_front()?.map(|(read, _)| read))
        })
    }

    fn read_entry<'a>(&self, entry: Entry<'a>) -> Result<(Read<'a>, Option<FetchedLine<'_>>), OutOfStep> {
        let (read, hash) = match entry {
            Entry::Record(bytes) => {
                let mutation = record::decode(bytes).map_err(|_| OutOfStep)?;
                let hash = mutation.key().map(|key| self.hasher.hash(key));
                (Read::Record { mutation, hash: hash.unwrap_or(0), bytes }, hash)
            }
            Entry::Mark(hash) => (Read::Mark(hash), Some(hash)),
            Entry::Pass { hash, pass } => (Read::Pass { hash, pass }, None),
            Entry::Whole(whole) => (Read::Whole(whole), None),
        };
        Ok((read, hash.and_then(|hash| self.prefetch_for_apply(hash))))
    }

    /// Tells the processor that an item of this hash is about to be stored or changed; the line that may name it.
    fn prefetch_for_apply(&self, hash: u64) -> Option<FetchedLine<'_>> {
        prefetch_cell(self.cell(hash));
        self.tables.of(hash).prefetch_line(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::Marks;
    use crate::{Cache, Config};

    /// An entry that puts the key of this number.
    fn put(number: u32) -> Vec<u8> {
        let (key, marks) = (number.to_le_bytes(), Marks::default());
        let put =
            Mutation::Put { key: &key, value: b"v", flags: 0, expires_at_ms: 0, marks, client_cas: None };
        let mut record = Vec::new();
        record::encode(&put, &mut record);
        [&(record.len() as u32).to_le_bytes(), &record[..]].concat()
    }

    #[test]
    fn entries_come_in_order_and_what_cannot_be_read_comes_at_its_place() {
        let cache = Cache::new(Config::new().memory_bytes_max(8 << 20)).unwrap();
        // Present and absent ones, as far as the look ahead finds any.
        cache.set(1_u32.to_le_bytes(), "old", crate::Expiry::Never).unwrap();
        for count in [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD] {
            let mut bytes: Vec<u8> = (0..count as u32).flat_map(put).collect();
            bytes.extend([2, 0, 0, 0, 0xff, 0xff]);
            let mut read = cache.inner.read_ahead(&bytes);
            for number in 0..count as u32 {
                let key = number.to_le_bytes();
                let Some(Ok(Read::Record { mutation, hash, bytes })) = read.next() else {
                    panic!("{number} of {count} is a record");
                };
                assert_eq!(mutation.key(), Some(&key[..]));
                assert_eq!(hash, cache.inner.hasher.hash(&key));
                assert_eq!(bytes, &put(number)[4..]);
            }
            assert!(matches!(read.next(), Some(Err(OutOfStep))), "behind {count} comes what can't be read");
        }
    }
}
