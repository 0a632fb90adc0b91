//! What a node reads out of its items for its replicas, while writers go on.
//!
//! Lives here: the walk of a full copy, marks, single items. Not here: when they are sent (see `replication::primary`),
//! applying them (see `apply`).
//!
//! Under one shard's lock it handles at most [`WALK_STEP_ITEMS_MAX`] items, and copies at most 128 KiB. A value above
//! [`VALUE_BYTES_MAX`] is copied behind that, as a reader would: its line's lock keeps its bytes where they are. It holds up
//! who changes one of the few keys in that line, or evicts this item; but such a writer has its shard locked, so the
//! shard's other writers wait with it until the value is copied. That is one value, of at most the largest item that is
//! allowed (1 MiB unless configured), and what they wait for each client that reads it, too. All others wait for one step of
//! each replica that is copied, however large the cache and its values.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::replication::install::{Flushes, InstallSource, Item, ItemsAt};
use crate::replication::position::Seq;
use crate::storage::{ItemId, Moment, Shard, WalkId, WalkStep};

use super::Inner;

/// Items that one step of a walk looks at while it holds a shard's lock.
const WALK_STEP_ITEMS_MAX: usize = 512;

/// Larger values are copied with no shard locked.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Steps of a walk in one call, so that a call's time is bounded where it finds nothing to send.
const WALK_STEPS_MAX: usize = 16;

/// Reads every item of a cache for one replica, shard by shard, from cold to hot, while writers go on.
pub(crate) struct InstallReader {
    inner: Arc<Inner>,
    shard: usize,
    walk: Option<WalkId>,
}

impl InstallReader {
    pub(crate) fn new(inner: Arc<Inner>) -> InstallReader {
        InstallReader { inner, shard: 0, walk: None }
    }

    fn end_walk(&mut self) {
        if let Some(walk) = self.walk.take() {
            self.inner.shards[self.shard].lock().shard.walk_end(walk);
        }
    }

    /// Visits the next items under one shard's lock, about `bytes_max` bytes of them, then says at which seq that
    /// was; `None` behind the last shard.
    fn step(&mut self, bytes_max: usize, visit: impl FnMut(&Shard, ItemId)) -> Option<Seq> {
        let inner = self.inner.clone();
        let mut cell = inner.shards.get(self.shard)?.lock();
        if self.walk.is_none() {
            self.walk = cell.shard.walk_begin().ok();
        }
        let at_seq = last_seq(&inner);
        // Where every place for a walk is taken, the next call tries again.
        let Some(walk) = self.walk else { return Some(at_seq) };
        if cell.shard.walk_step(walk, WALK_STEP_ITEMS_MAX, bytes_max, visit) != WalkStep::More {
            cell.shard.walk_end(walk);
            self.walk = None;
            self.shard += 1;
        }
        Some(at_seq)
    }
}

fn last_seq(inner: &Inner) -> Seq {
    inner.group.as_ref().map_or(0, |group| group.log.lock().last_seq())
}

impl Drop for InstallReader {
    fn drop(&mut self) {
        self.end_walk();
    }
}

impl InstallSource for InstallReader {
    fn next_items(&mut self, bytes_max: usize, item_bytes_max: usize) -> Option<ItemsAt> {
        let mut at = ItemsAt::default();
        for _ in 0..WALK_STEPS_MAX {
            let inner = self.inner.clone();
            let as_of_ms = inner.sent_as_of_ms();
            let moment = Moment { clock: &as_of_ms, floors: &inner.floors };
            let mut items = Vec::new();
            at.at_seq = self.step(bytes_max, |shard, id| {
                let item_bytes = shard.key(id).len() + shard.value(id).len();
                if !shard.is_dead(id, moment) && item_bytes <= item_bytes_max {
                    items.push(copy_small(shard, id));
                }
            })?;
            let items: Vec<Item> = items.into_iter().filter_map(|part| inner.complete(part)).collect();
            if !items.is_empty() {
                at.items = items;
                return Some(at);
            }
        }
        Some(at)
    }

    fn next_marked(&mut self, hashes_max: usize) -> Option<Vec<u64>> {
        let mut hashes = Vec::new();
        for _ in 0..WALK_STEPS_MAX {
            let stepped = self.step(usize::MAX, |shard, id| {
                if shard.meta(id).marks.hits() > 0 {
                    hashes.push(shard.hash(id));
                }
            });
            if stepped.is_none() && hashes.is_empty() {
                return None;
            }
            if stepped.is_none() || hashes.len() + WALK_STEP_ITEMS_MAX > hashes_max {
                break;
            }
        }
        Some(hashes)
    }

    fn by_hash(&mut self, hash: u64, item_bytes_max: usize) -> Option<ItemsAt> {
        let cell = self.inner.cell(hash).lock();
        let id = cell.shard.find_by_hash(hash)?;
        let item_bytes = cell.shard.key(id).len() + cell.shard.value(id).len();
        let as_of_ms = self.inner.sent_as_of_ms();
        let moment = Moment { clock: &as_of_ms, floors: &self.inner.floors };
        if cell.shard.is_dead(id, moment) || item_bytes > item_bytes_max {
            return None;
        }
        let at_seq = last_seq(&self.inner);
        let part = copy_small(&cell.shard, id);
        drop(cell);
        Some(ItemsAt { at_seq, items: vec![self.inner.complete(part)?] })
    }

    fn restart(&mut self) {
        self.end_walk();
        self.shard = 0;
    }

    fn flushes(&self) -> Flushes {
        // Flushes are logged and carried out under this lock: one that is in the log already is seen here.
        let _first_shard = self.inner.shards[0].lock();
        Flushes {
            floor: self.inner.floors.all(),
            prefix_floors: self.inner.floors.prefixes(),
            at_ms: self.inner.flush_at_ms.load(Ordering::Acquire),
        }
    }
}

/// An item, and its hash if its value is yet to be copied.
type Part = (Item, Option<u64>);

impl Inner {
    /// Gives an item the large value that it had under its shard's lock; `None` if that is there no more. What was
    /// stored in its place is in the log.
    fn complete(&self, (item, lacking): Part) -> Option<Item> {
        let Some(hash) = lacking else { return Some(item) };
        let held = self.tables.of(hash).find(hash, &item.key)?;
        let (_, _, value) = held.parts();
        (held.version() == item.version).then(|| Item { value: value.to_vec(), ..item })
    }
}

fn copy_small(shard: &Shard, id: ItemId) -> Part {
    match shard.value(id).len() > VALUE_BYTES_MAX {
        true => (copy_with(shard, id, Vec::new()), Some(shard.hash(id))),
        false => (copy_out(shard, id), None),
    }
}

pub(super) fn copy_out(shard: &Shard, id: ItemId) -> Item {
    copy_with(shard, id, shard.value(id).to_vec())
}

fn copy_with(shard: &Shard, id: ItemId, value: Vec<u8>) -> Item {
    let meta = shard.meta(id);
    Item {
        key: shard.key(id).to_vec(),
        value,
        flags: meta.flags,
        expires_at_ms: meta.expires_at_ms,
        marks: meta.marks,
        version: meta.version,
        client_cas: meta.client_cas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::primary::CHUNK_BYTES_MAX;
    use crate::{Cache, Config, Expiry, ReplicationConfig};

    /// Steps a walk to its end: the most items and bytes that one lock saw, and all that were seen.
    fn walk(cache: &Cache) -> (usize, usize, usize) {
        let mut reader = InstallReader::new(cache.inner.clone());
        let (mut items_most, mut bytes_most, mut items_all) = (0, 0, 0);
        loop {
            let (mut items, mut bytes) = (0, 0);
            let stepped = reader.step(CHUNK_BYTES_MAX, |shard, id| {
                items += 1;
                bytes += shard.key(id).len() + shard.value(id).len();
            });
            items_most = items_most.max(items);
            bytes_most = bytes_most.max(bytes);
            items_all += items;
            if stepped.is_none() {
                return (items_most, bytes_most, items_all);
            }
        }
    }

    fn filled(items: usize, value_bytes: usize) -> Cache {
        let config = Config::new().memory_bytes_max(64 << 20).replication(ReplicationConfig::primary());
        let cache = Cache::new(config).unwrap();
        for number in 0..items {
            cache.set(format!("key{number}"), vec![1; value_bytes], Expiry::Never).unwrap();
        }
        cache
    }

    #[test]
    fn a_large_value_is_copied_with_no_shard_locked_and_left_out_if_it_was_replaced_meanwhile() {
        let cache = filled(0, 0);
        let large = VALUE_BYTES_MAX + 1;
        for key in ["kept", "replaced", "deleted", "emptied"] {
            cache.set(key, vec![1; large], Expiry::Never).unwrap();
        }
        let mut parts = Vec::new();
        for cell in &cache.inner.shards {
            let mut cell = cell.lock();
            let walk = cell.shard.walk_begin().unwrap();
            cell.shard.walk_step(walk, usize::MAX, usize::MAX, |shard, id| parts.push(copy_small(shard, id)));
        }
        assert!(parts.iter().all(|(item, lacking)| item.value.is_empty() && lacking.is_some()));
        cache.set("replaced", vec![2; large], Expiry::Never).unwrap();
        cache.set("emptied", "", Expiry::Never).unwrap();
        cache.delete("deleted").unwrap();
        let whole: Vec<Item> = parts.into_iter().filter_map(|part| cache.inner.complete(part)).collect();
        assert_eq!(whole.len(), 1);
        assert_eq!((&whole[0].key[..], &whole[0].value), (&b"kept"[..], &vec![1; large]));
    }

    #[test]
    fn under_one_lock_no_more_is_handled_than_the_stated_items_and_bytes() {
        let (items_most, bytes_most, items_all) = walk(&filled(50_000, 1));
        assert_eq!(
            (items_most, items_all),
            (WALK_STEP_ITEMS_MAX, 50_000),
            "small items: their number is the bound"
        );
        assert!(bytes_most < CHUNK_BYTES_MAX);

        let (items_most, bytes_most, items_all) = walk(&filled(2_000, 10_000));
        assert!(items_most <= CHUNK_BYTES_MAX / 10_000 + 1, "{items_most} items");
        assert!(bytes_most <= CHUNK_BYTES_MAX + 10_016, "{bytes_most} bytes");
        assert_eq!(items_all, 2_000);
    }
}
