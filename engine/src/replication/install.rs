//! What a primary reads out of its items for one replica: a full copy, marks, single items.
//!
//! Lives here: the trait between a session and the cache. Not here: the walk itself (see `cache::copies`), when what
//! is sent (see `primary`).

use super::message::{Chunk, ChunkItem, ChunkKind, Ghosts, Message};
use super::position::Seq;
use super::risk::LogEnd;
use crate::mutation::{Marks, Version};

/// An item, copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) expires_at_ms: u64,
    pub(crate) marks: Marks,
    pub(crate) version: Version,
    pub(crate) client_cas: Option<u64>,
}

/// Items as they were when the log stood at `at_seq` and had so many bytes: noted under their shard's lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ItemsAt {
    pub(crate) at_seq: Seq,
    /// Where it ended: what lies between this record and the next came before the items or behind them.
    pub(crate) at_bytes: u64,
    pub(crate) items: Vec<Item>,
    /// Instead of items: what the shard remembers of others.
    pub(crate) ghosts: Option<Ghosts>,
}

impl ItemsAt {
    /// Where the log ended.
    pub(crate) fn log_end(&self) -> LogEnd {
        LogEnd { seq: self.at_seq, bytes: self.at_bytes, at_ms: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.ghosts.is_none()
    }

    /// As a frame says it.
    pub(crate) fn as_message(&self, kind: ChunkKind) -> Message<'_> {
        match &self.ghosts {
            Some(ghosts) => Message::Ghosts(ghosts.clone()),
            None => Message::Chunk(self.as_chunk(kind)),
        }
    }

    fn as_chunk(&self, kind: ChunkKind) -> Chunk<'_> {
        let as_chunk_item = |item| {
            let Item { key, value, flags, expires_at_ms, marks, version, client_cas }: &Item = item;
            ChunkItem {
                key,
                value,
                flags: *flags,
                expires_at_ms: *expires_at_ms,
                client_cas: *client_cas,
                marks: marks.0,
                version: version.0,
            }
        };
        let items = self.items.iter().map(as_chunk_item).collect();
        Chunk { at_seq: self.at_seq, kind, items }
    }
}

/// Where a session gets items from. Each call locks one shard at a time and returns soon.
pub(crate) trait InstallSource {
    /// The next items, about `bytes_max` bytes, those above `item_bytes_max` left out; possibly none of them yet.
    /// `None` when every item has been given.
    fn next_items(&mut self, bytes_max: usize, item_bytes_max: usize) -> Option<ItemsAt>;

    /// The hashes of the next items that were read since the eviction pass last came by; `None` at the end.
    fn next_marked(&mut self, hashes_max: usize) -> Option<Vec<u64>>;

    /// One live item by its key's hash.
    fn by_hash(&mut self, hash: u64, item_bytes_max: usize) -> Option<ItemsAt>;

    /// A full copy begins, or begins again. If the replica follows evictions the log says from now on what the eviction pass
    /// does, and ghosts are given, too.
    fn begin_copy(&mut self, follows_evictions: bool);

    /// All items were given: the log says of each shard that the replica in this slot has it whole.
    fn end_copy(&mut self, slot: u8);

    /// What flushes have made dead, and the pending one.
    fn flushes(&self) -> Flushes;
}

/// What flushes have made dead, and the pending one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flushes {
    /// Items of an older version are dead.
    pub(crate) floor: Version,
    /// Those of an older version whose key begins so are dead.
    pub(crate) prefix_floors: Vec<(Box<[u8]>, Version)>,
    /// When a flush is due; 0 for none.
    pub(crate) at_ms: u64,
}
