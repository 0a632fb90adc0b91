//! A cache becomes bytes.

use std::io::Write;
use std::sync::atomic::Ordering;

use crate::cache::{Cache, Inner, is_inside_read};
use crate::mutation::Version;
use crate::replication::Role;
use crate::replication::message::{PrefixFloor, to_wire};
use crate::replication::position::Lineage;
use crate::storage::{ItemId, Shard, ShardMutex, WalkId, WalkStep};

use super::blocks::{BLOCK_BYTES_MAX, BlockWriter};
use super::error::SaveError;
use super::head::{Head, Membership};
use super::{END, ItemFields};

/// In how many turns the shards are gone through: an item's place in the image is its place among all items, to about
/// so fine a part, so that a cache with other shards, or less memory, keeps the hotter ones.
const ROUNDS: usize = 64;
/// Items that one step looks at while it holds a shard's lock.
const STEP_ITEMS_MAX: usize = 512;

/// What must not change while a cache is being saved.
#[derive(PartialEq, Eq)]
struct Standing {
    last_version: Version,
    lineage: Lineage,
    epoch: u64,
    installs: u64,
}

impl Cache {
    /// Writes all that this cache holds, for [`Cache::restore_from`] in the next process: items with values, flags,
    /// expiries, versions and their order of recency; flushes; in a group, the place in its history. Gives the number of
    /// items.
    ///
    /// Nobody may write meanwhile, and a [`Replicator`](crate::Replicator) should have been shut down; reads may go on.
    /// It takes 64 KiB of memory, or the largest item if that is more.
    ///
    /// ```
    /// use hotspare::{Cache, Config, Expiry};
    ///
    /// let config = Config::new().memory_bytes_max(8 << 20);
    /// let cache = Cache::new(config.clone())?;
    /// let version = cache.set("k", "v", Expiry::Never)?;
    /// let mut image = Vec::new();
    /// assert_eq!(cache.save_to(&mut image)?, 1);
    ///
    /// let (next, restored) = Cache::restore_from(config, image.as_slice())?;
    /// assert_eq!(restored.items, 1);
    /// assert_eq!(next.get("k")?.unwrap().version, version);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// It can't be written, it was changed meanwhile, or this node has nothing whole: a replica that was never filled.
    pub fn save_to(&self, out: impl Write) -> Result<u64, SaveError> {
        if is_inside_read() {
            return Err(SaveError::InsideRead);
        }
        self.inner.settle_flush();
        let before = self.inner.standing()?;
        let mut out = BlockWriter::begin(out)?;
        let head = self.inner.head(&before).encode();
        out.put(&(head.len() as u32).to_le_bytes())?;
        out.put(&head)?;
        let items = Walks::begin(&self.inner)?.write_items(&mut out)?;
        if self.inner.standing()? != before {
            return Err(SaveError::Changed);
        }
        out.put(&[END])?;
        out.put(&items.to_le_bytes())?;
        out.finish()?;
        Ok(items)
    }
}

impl Inner {
    fn standing(&self) -> Result<Standing, SaveError> {
        let Some(group) = &self.group else {
            // What has these versions is stored once the shards' locks were taken; the next write, of whatever shard, then
            // changes the last version.
            let last_version = self.last_version.get();
            self.shards.iter().for_each(|cell| cell.lock().versions.give_up());
            return Ok(Standing { last_version, lineage: Lineage::default(), epoch: 0, installs: 0 });
        };
        let roles = group.roles.lock();
        let lineage = group.log.lock().lineage().clone();
        match lineage.newest() {
            Some(newest) if roles.has_data && !roles.installing => Ok(Standing {
                last_version: Version::new(newest.term.0, newest.last),
                lineage,
                epoch: roles.epoch,
                installs: roles.installs,
            }),
            _ => Err(SaveError::NotWhole),
        }
    }

    fn head(&self, standing: &Standing) -> Head {
        let membership = self.group.as_ref().map(|group| {
            let roles = group.roles.lock();
            Membership {
                group: roles.group,
                node: roles.node,
                reigned: roles.role() == Role::Primary,
                young: roles.young,
                term_seen: roles.term_seen.0,
                lineage: to_wire(&standing.lineage),
                peers: roles.peers().to_vec(),
            }
        });
        // Flushes are logged and carried out under this lock.
        let _first_shard = self.shards[0].lock();
        let prefixes = self.floors.prefixes().into_iter();
        Head {
            last_version: standing.last_version.0,
            hash_seed: self.hasher.seed(),
            clock_ms: self.now_ms(),
            wall_ms: self.clock.wall_ms(),
            flush_at_ms: self.flush_at_ms.load(Ordering::Acquire),
            flush_floor: self.floors.all().0,
            prefix_floors: prefixes
                .map(|(prefix, floor)| PrefixFloor { prefix: prefix.into_vec(), floor: floor.0 })
                .collect(),
            membership,
        }
    }
}

/// A walk in each shard, ended when this is dropped.
struct Walks<'a> {
    inner: &'a Inner,
    /// By shard; `None` behind its last item.
    walks: Vec<Option<WalkId>>,
    buffer: Vec<u8>,
    items: u64,
}

impl<'a> Walks<'a> {
    fn begin(inner: &'a Inner) -> Result<Walks<'a>, SaveError> {
        let mut begun = Walks { inner, walks: Vec::new(), buffer: Vec::new(), items: 0 };
        for cell in &inner.shards {
            let walk = cell.lock().shard.walk_begin().map_err(|_| SaveError::Busy)?;
            begun.walks.push(Some(walk));
        }
        Ok(begun)
    }

    fn write_items(mut self, out: &mut BlockWriter<impl Write>) -> Result<u64, SaveError> {
        let share = |cell: &crossbeam::utils::CachePadded<_>| items_of(cell).div_ceil(ROUNDS).max(1);
        let shares: Vec<usize> = self.inner.shards.iter().map(share).collect();
        while self.walks.iter().any(Option::is_some) {
            for (shard, share) in shares.iter().enumerate() {
                let mut left = *share;
                while left > 0 && self.walks[shard].is_some() {
                    left = left.saturating_sub(self.step(shard, left.min(STEP_ITEMS_MAX)));
                    out.put(&self.buffer)?;
                    self.buffer.clear();
                    // A large item is over: its memory need not wait for the next one.
                    self.buffer.shrink_to(2 * BLOCK_BYTES_MAX);
                }
            }
        }
        Ok(self.items)
    }

    /// Encodes the next items of a shard; how many were looked at.
    fn step(&mut self, shard: usize, items_max: usize) -> usize {
        let Some(walk) = self.walks[shard] else { return 0 };
        let (inner, buffer, items) = (self.inner, &mut self.buffer, &mut self.items);
        let moment = inner.moment();
        let mut looked_at = 0;
        let mut cell = inner.shards[shard].lock();
        let step = cell.shard.walk_step(walk, items_max, BLOCK_BYTES_MAX, |shard, id| {
            looked_at += 1;
            if !shard.is_dead(id, moment) {
                encode_item(shard, id, buffer);
                *items += 1;
            }
        });
        if step != WalkStep::More {
            cell.shard.walk_end(walk);
            self.walks[shard] = None;
        }
        looked_at
    }
}

impl Drop for Walks<'_> {
    fn drop(&mut self) {
        for (cell, walk) in self.inner.shards.iter().zip(&mut self.walks) {
            if let Some(walk) = walk.take() {
                cell.lock().shard.walk_end(walk);
            }
        }
    }
}

fn items_of(cell: &ShardMutex<crate::cache::ShardCell>) -> usize {
    cell.lock().shard.item_count()
}

fn encode_item(shard: &Shard, id: ItemId, out: &mut Vec<u8>) {
    let (key, value) = (shard.key(id), shard.value(id));
    let (key_bytes, value_bytes) = (key.len() as u16, value.len() as u64);
    let accessed_s = shard.accessed_s(id);
    ItemFields { meta: shard.meta(id), key_bytes, value_bytes, accessed_s }.encode(out);
    out.extend_from_slice(key);
    value.append_to(out);
}
