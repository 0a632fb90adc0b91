//! Scans: visiting a shard's items by the place of their hash, line by line, with nothing kept between two steps.
//!
//! Lives here: the order of a scan. Not here: walks from cold to hot, which need a marker (see `walk`).
//!
//! A position is the low 32 bits of a hash, read backwards. A home line holds what has the same low bits, so in this order
//! it is one stretch, and a split or a merge only cuts stretches in two or joins them: what lies behind a position stays
//! behind it, whatever the index does between two steps. An item that stays is visited once.
//!
//! ```text
//!   low bits of the hash:   …000   …100   …010   …110   …001   …101   …011   …111
//!   four lines:            |   line 0    |    line 2   |    line 1   |    line 3   |
//!   five lines:            |line 0|line 4|    line 2   |    line 1   |    line 3   |
//! ```

use super::shard::{ItemId, Shard};

impl Shard {
    /// Visits the items of one line, as far as they lie at or behind the position; dead ones included. Gives the
    /// position where to go on, `None` at the end.
    pub(crate) fn scan_line(&self, position: u32, mut visit: impl FnMut(&Shard, ItemId)) -> Option<u32> {
        let chunks = &mut Vec::new();
        let end = self.index.line_at(position, |chunk| chunks.push(chunk))?;
        for chunk in chunks {
            if position_of(self.hash_of(*chunk)) >= position {
                visit(self, (*chunk).into());
            }
        }
        u32::try_from(end).ok()
    }
}

/// Where a hash lies in a scan.
pub(super) fn position_of(hash: u64) -> u32 {
    (hash as u32).reverse_bits()
}
