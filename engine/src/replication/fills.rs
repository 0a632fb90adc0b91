//! Items that a replica shows although no record of its log put them there: what it had lost or dropped and asked its
//! primary for, and what was touched in time but had expired here by then.
//!
//! Lives here: the newest of them, for those who follow this node's changes (see `cache::subscribe`): such an item is a
//! change of what the node shows, although it is none of the group's. Not here: asking for them (see `replica`).
//!
//! Nothing is kept before the first subscription; who resumes from before what was not kept starts again.

use std::collections::VecDeque;

use super::position::Seq;
use crate::mutation::Version;

/// Bytes of records that are kept; the oldest leave first.
pub(crate) const FILLS_BYTES_MAX: usize = 256 << 10;

/// What an entry is charged besides its record.
const ENTRY_BYTES: usize = size_of::<Fill>();

/// An item that was stored when the log stood at `at_seq`.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    pub(crate) at_seq: Seq,
    pub(crate) version: Version,
    /// The item as a record that puts it.
    pub(crate) record: Box<[u8]>,
}

/// 1. `kept[i]` has the number `first + i`; numbers rise for ever.
/// 2. `bytes` is what `kept` is charged, at most [`FILLS_BYTES_MAX`].
/// 3. `forgotten_through` is the highest seq of the present history at which one came that is not kept.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    is_wanted: bool,
    kept: VecDeque<Fill>,
    first: u64,
    bytes: usize,
    forgotten_through: Option<Seq>,
}

/// The number that a reader wants next is of one that was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forgotten;

impl Fills {
    /// From now on they are kept.
    pub(crate) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// One came; `record` is asked for only if somebody may read it.
    pub(crate) fn note(&mut self, at_seq: Seq, version: Version, record: impl FnOnce() -> Vec<u8>) {
        if !self.is_wanted {
            self.forgotten_through = self.forgotten_through.max(Some(at_seq));
            return;
        }
        let record = record().into_boxed_slice();
        self.bytes += ENTRY_BYTES + record.len();
        self.kept.push_back(Fill { at_seq, version, record });
        while self.bytes > FILLS_BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        self.first += 1;
        self.bytes -= ENTRY_BYTES + oldest.record.len();
        self.forgotten_through = self.forgotten_through.max(Some(oldest.at_seq));
    }

    /// The history changed under them: who stood in the one before starts again (see [`Cuts`](super::log::Cuts)), and finds
    /// what they were in the cache. So nobody lacks them, whatever seqs come next.
    pub(crate) fn forget_all(&mut self) {
        while !self.kept.is_empty() {
            self.forget_oldest();
        }
        self.forgotten_through = None;
    }

    /// The number of the next one to come.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// The number from which on a reader that stands at `seq` reads; `None` if it may lack some that were forgotten.
    pub(crate) fn number_at(&self, seq: Seq) -> Option<u64> {
        if self.forgotten_through.is_some_and(|through| seq <= through) {
            return None;
        }
        let before = self.kept.partition_point(|fill| fill.at_seq < seq);
        Some(self.first + before as u64)
    }

    /// The one with this number, `None` if it has not come yet.
    pub(crate) fn get(&self, number: u64) -> Result<Option<&Fill>, Forgotten> {
        let index = number.checked_sub(self.first).ok_or(Forgotten)?;
        Ok(usize::try_from(index).ok().and_then(|index| self.kept.get(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(fills: &mut Fills, at_seq: Seq, bytes: usize) {
        fills.note(at_seq, Version(at_seq), || vec![7; bytes]);
    }

    #[test]
    fn what_came_before_anybody_wanted_it_is_known_to_be_missing() {
        let mut fills = Fills::default();
        note(&mut fills, 5, 10);
        fills.want();
        assert_eq!((fills.number_at(5), fills.number_at(6)), (None, Some(0)));
        note(&mut fills, 8, 10);
        assert_eq!((fills.number_at(6), fills.number_at(8), fills.number_at(9)), (Some(0), Some(0), Some(1)));
        assert_eq!(fills.get(0).unwrap().map(|fill| fill.at_seq), Some(8));
        assert!(fills.get(1).unwrap().is_none());
    }

    #[test]
    fn they_stay_below_their_bound_and_a_reader_that_was_too_slow_is_told() {
        let mut fills = Fills::default();
        fills.want();
        for seq in 1..=1_000 {
            note(&mut fills, seq, 1_000);
            assert!(fills.bytes <= FILLS_BYTES_MAX);
            assert_eq!(fills.bytes, fills.kept.iter().map(|fill| ENTRY_BYTES + fill.record.len()).sum());
        }
        assert_eq!((fills.get(0).unwrap_err(), fills.end()), (Forgotten, 1_000));
        assert!(fills.get(999).unwrap().is_some() && fills.number_at(500).is_none());
        note(&mut fills, 1_001, 2 * FILLS_BYTES_MAX);
        assert_eq!(fills.get(1_000).unwrap_err(), Forgotten, "one that is too large is forgotten at once");
        fills.forget_all();
        assert_eq!((fills.bytes, fills.end()), (0, 1_001));
        assert_eq!(fills.number_at(5), Some(1_001), "of the history that follows nothing is missing");
    }
}
