//! Reads: find, check that the item lives, mark it, run the reader in place.
//!
//! Lives here: what a hit does and counts. Not here: which item is evicted (see `storage`), what a hint does (see
//! `replication::hints`).

use std::sync::atomic::Ordering;

use crate::error::{ReadError, WriteError};
use crate::mutation::{Expiry, KEY_BYTES_MAX, Marks, Mutation};
use crate::replication::roles::Serving;
use crate::storage::{ItemId, Meta, Moment};

use super::{Group, Inner, ItemRef, READING, SHARD_HINTS_MAX, ShardCell, is_inside_read};

/// What a read leaves on an item.
const READ_MARKS: Marks = Marks(Marks::ACCESSED.0 | Marks::FETCHED.0);

/// Sets the thread's flag for as long as a reader runs, a panic in it included.
struct ReadingHere;

impl ReadingHere {
    fn enter() -> ReadingHere {
        READING.set(true);
        ReadingHere
    }
}

impl Drop for ReadingHere {
    fn drop(&mut self) {
        READING.set(false);
    }
}

impl Inner {
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        if Inner::is_key_length_wrong(key) {
            return Err(ReadError::KeyLength { bytes: key.len(), bytes_max: KEY_BYTES_MAX });
        }
        if is_inside_read() {
            return Err(ReadError::InsideRead);
        }
        self.settle_flush();
        let hash = self.hasher.hash(key);
        let mut cell = self.cell(hash).lock();
        match self.serving() {
            Serving::All | Serving::Reads => {}
            Serving::Replica => return Err(ReadError::Replica { primary: self.primary_address() }),
            Serving::Fenced => return Err(ReadError::Fenced { primary: self.primary_address() }),
        }
        // A replica leaves the dead where they are: a touch that its primary made in time may be on its way.
        let reclaim = self.serving() == Serving::All;
        let Some((id, meta)) = cell.find_to_read(hash, key, self.moment(), reclaim) else { return Ok(None) };
        cell.mark_item(id, hash, READ_MARKS, self.group.as_ref());
        Ok(Some(cell.run_reader(id, meta, reader)))
    }

    pub(crate) fn read_and_touch<R>(
        &self,
        key: &[u8],
        expiry: Expiry,
        reader: impl FnOnce(ItemRef<'_>) -> R,
    ) -> Result<Option<R>, WriteError> {
        let mut reader = Some(reader);
        self.mutate(key, |locked| {
            let Some((id, meta)) = locked.cell.find_to_read(locked.hash, key, locked.moment, true) else {
                return Ok(None);
            };
            let expires_at_ms = expiry.deadline_ms(locked.moment.now_ms);
            locked.log(&Mutation::Touch { key, version: meta.version, expires_at_ms });
            locked.cell.shard.set_expiry(id, expires_at_ms);
            locked.cell.mark_item(id, locked.hash, READ_MARKS, locked.inner.group.as_ref());
            let meta = Meta { expires_at_ms, ..meta };
            let reader = reader.take().expect("an attempt that needs no memory runs once");
            Ok(Some(locked.cell.run_reader(id, meta, reader)))
        })
    }
}

impl ShardCell {
    /// The live item, counted as a hit; an absent or dead one is counted as a miss. With `reclaim` a dead one goes.
    fn find_to_read(
        &mut self,
        hash: u64,
        key: &[u8],
        moment: Moment,
        reclaim: bool,
    ) -> Option<(ItemId, Meta)> {
        let Some(id) = self.shard.find(hash, key) else {
            self.counters.get_misses += 1;
            return None;
        };
        let meta = self.shard.meta(id);
        if self.shard.is_dead(id, moment) {
            self.counters.get_misses += 1;
            if meta.version < moment.flush_floor {
                self.counters.get_flushed += 1;
            } else {
                self.counters.get_expired += 1;
            }
            if reclaim {
                self.shard.remove(hash, id);
            }
            return None;
        }
        self.counters.get_hits += 1;
        Some((id, meta))
    }

    /// Sets marks; if the eviction pass had cleared them, replicas are told: at this place in the log, or by a hint
    /// where the log has its share of marks.
    pub(crate) fn mark_item(&mut self, id: ItemId, hash: u64, marks: Marks, group: Option<&Group>) {
        let was_clear = self.shard.mark(id, marks);
        let Some(group) = group.filter(|group| was_clear && group.has_replicas.load(Ordering::Relaxed))
        else {
            return;
        };
        if !group.log.lock().append_mark(hash) && self.hints.len() < SHARD_HINTS_MAX {
            self.hints.push(hash);
        }
    }

    fn run_reader<R>(&self, id: ItemId, meta: Meta, reader: impl FnOnce(ItemRef<'_>) -> R) -> R {
        let item = ItemRef {
            key: self.shard.key(id),
            value: self.shard.value(id),
            flags: meta.flags,
            version: meta.version,
            expires_at_ms: (meta.expires_at_ms != 0).then_some(meta.expires_at_ms),
        };
        let _reading = ReadingHere::enter();
        reader(item)
    }
}
