//! Going back to a point that this node shares with its new primary, by dropping what it wrote alone.
//!
//! Lives here: which keys go, and when the position moves. Not here: who decides that, and to which point (see
//! `replication::{primary, replica}`).
//!
//! ```text
//!   new primary   ........ e | gap | its own branch ...
//!   this node     ........ e, put a, delete b, touch c          drops a, b and c, and stands at e
//! ```
//! A cache may always miss. So nothing is put back as it was at e: each key that this node's own log names behind e is
//! dropped, whatever happened to it, and the new primary is asked for those keys afterwards. All other items are as they
//! were at e. Marks that were set behind e stay: they only say what was read.

use crate::mutation::{Mutation, Version};
use crate::replication::log::{Entry, LogRead, entries};
use crate::replication::position::{Position, Seq};
use crate::replication::record;
use crate::storage::Cause;

use super::apply::OutOfStep;
use super::{Group, Inner};

/// Bytes of the log that are looked at in one piece.
const PIECE_BYTES: usize = 256 << 10;

/// Hashes of dropped keys that are kept to ask the primary for them (8 bytes each); of more, the newest.
const HASHES_MAX: usize = 64 << 10;

/// What a roll-back dropped.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Items that were there and are gone.
    pub(crate) items: u64,
    /// The hashes of the keys that the log named, once each, the newest last; at most [`HASHES_MAX`].
    pub(crate) hashes: Vec<u64>,
}

impl Inner {
    /// Drops each key that this node's log names behind `to`, then forgets that part of the log and stands at `to`. The
    /// caller holds the gate, so nothing is applied and nobody is promoted meanwhile; until the last key is gone the
    /// position stays where it was. An error leaves misses, and the position as it was.
    pub(crate) fn roll_back(&self, group: &Group, to: Position) -> Result<Dropped, OutOfStep> {
        let mut cursor = {
            let log = group.log.lock();
            if to.seq < log.undo_floor() {
                return Err(OutOfStep);
            }
            log.cursor_at(to).ok_or(OutOfStep)?
        };
        let mut dropped = Dropped::default();
        loop {
            let read = group.log.lock().read(&mut cursor, PIECE_BYTES, Seq::MAX);
            match read {
                LogRead::Records { bytes, .. } => self.drop_named(&bytes, &mut dropped)?,
                LogRead::NewBranch(_) => {}
                LogRead::AtEnd => break,
                LogRead::Overtaken => return Err(OutOfStep),
            }
        }
        dropped.forget_older();
        if group.log.lock().truncate_to(to) { Ok(dropped) } else { Err(OutOfStep) }
    }

    fn drop_named(&self, bytes: &[u8], dropped: &mut Dropped) -> Result<(), OutOfStep> {
        for entry in entries(bytes) {
            let Entry::Record(bytes) = entry.ok_or(OutOfStep)? else { continue };
            match record::decode(bytes).map_err(|_| OutOfStep)? {
                Mutation::Put { key, .. } | Mutation::Touch { key, .. } | Mutation::Delete { key } => {
                    self.drop_key(key, dropped);
                }
                // Only where a simulation has broken the floor of what can be undone.
                Mutation::Flush | Mutation::FlushAt { .. } | Mutation::FlushPrefix { .. } => {}
                // Nothing was stored by these. Who had the lease before is the new primary's to say.
                Mutation::LendLoad { key, .. } | Mutation::EndLoad { key } => {
                    self.note_lease_end(&mut self.cell(self.hasher.hash(key)).lock(), key);
                }
            }
        }
        if dropped.hashes.len() > 2 * HASHES_MAX {
            dropped.forget_older();
        }
        Ok(())
    }

    fn drop_key(&self, key: &[u8], dropped: &mut Dropped) {
        let hash = self.hasher.hash(key);
        let mut cell = self.cell(hash).lock();
        // Who loads it may have read its source when this node reigned.
        self.overtake_loads(&mut cell, key, Version(u64::MAX));
        if let Some(id) = cell.shard.find(hash, key) {
            cell.shard.remove(hash, id, Cause::Removed);
            dropped.items += 1;
        }
        dropped.hashes.push(hash);
    }
}

impl Dropped {
    /// Keeps the newest mention of each hash, and of those the newest.
    fn forget_older(&mut self) {
        let mut seen = std::collections::HashSet::with_capacity(self.hashes.len());
        let mut newest: Vec<u64> =
            self.hashes.iter().rev().copied().filter(|hash| seen.insert(*hash)).collect();
        newest.truncate(HASHES_MAX);
        newest.reverse();
        self.hashes = newest;
    }
}

#[cfg(test)]
mod tests;
