//! Storage: one lock's worth of cache, and its parts.
//!
//! Lives here: [`Shard`], the page pool that all shards share, and the words of their interface.
//! Not here: the clock, the log (see `cache`); storage knows nothing of replication.
//!
//! ```text
//!   Shard ──┬─ shard    find, read, mark, commit, remove          (what a caller sees)
//!           ├─ room     reserve: evict, compact, take pages       (who leaves; `policy` has the numbers)
//!           ├─ trade    the most common set, in one go
//!           ├─ overwrite   a key that is stored anew in its item's place
//!           ├─ unfinished   values that come piece by piece
//!           ├─ pinned   values that are sent piece by piece
//!           ├─ sweep    dead items leave, a few looks a write (`due` says on which pages)
//!           ├─ walk     walks from cold to hot while writers go on
//!           ├─ lru      the order                                 (two queues over all size classes)
//!           ├─ index    hash -> item, the writer's side
//!           ├─ item     header, key, value
//!           ├─ cuts     from which classes an item's chunks come
//!           ├─ accounting   times of access and sums by class, for operators
//!           └─ slabs    chunks of one size on each page           (allocator: where an item lives)
//!   Table ────┬─ table    hash -> item, the readers' side          (without the shard's lock)
//!             └─ line     one cache line with its own lock; `latch` is the lock, a shard's, too (`shard_lock`)
//!   PagePool ─┬─ pages    the hard limit of items and index together
//!             ├─ memory   references and addresses; the unsafe reads and writes
//!             └─ mapping  the system calls
//! ```
//! The only `unsafe` code of the engine is here: in `memory` and `mapping`, and where `item`, `slabs`, `shard`,
//! `table`, `trade`, `overwrite`, `unfinished` and `pinned` state why they may read or write an item's bytes, and `shard_lock` what it promises.
#![allow(unsafe_code, reason = "items are read where they lie, while other threads use other items")]

mod accounting;
mod cuts;
mod departures;
mod due;
mod expiry;
mod floors;
mod hasher;
mod index;
mod item;
mod latch;
mod line;
mod lru;
mod mapping;
mod memory;
mod overwrite;
mod pages;
mod passes;
mod pinned;
mod policy;
mod room;
mod scan;
mod shard;
mod shard_lock;
mod slabs;
mod sweep;
mod table;
mod trade;
mod unfinished;
mod walk;

pub(crate) use accounting::{ClassHeld, whole_seconds};
pub(crate) use cuts::SizeClasses;
pub use departures::{Cause, Event};
pub(crate) use departures::{Departures, is_waiting};
pub(crate) use expiry::{Moment, Now};
pub(crate) use floors::Floors;
pub use floors::{PREFIX_BYTES_MAX, PREFIXES_MAX};
pub use hasher::KeyHash;
pub(crate) use hasher::{KeyHasher, OneSeed, SeedId};
pub use item::Value;
pub(crate) use item::{Footprint, item_bytes};
pub(crate) use memory::prefetch_to_write;
pub(crate) use overwrite::Room;
pub(crate) use pages::PagePool;
pub use pinned::PinnedValue;
pub(crate) use policy::Policy;
pub(crate) use room::ReserveError;
pub(crate) use shard::{ItemId, Place, Shard};
pub(crate) use shard_lock::{ShardGuard, ShardMutex};
pub(crate) use slabs::ClassCounts;
#[cfg(test)]
pub(crate) use sweep::LOOKS_A_WRITE;
pub(crate) use table::{Ahead, FetchedLine, HeldItem, Look, NotedItem, Tables};
pub(crate) use unfinished::Unfinished;
pub(crate) use walk::{WalkId, WalkStep};

use crate::mutation::{Marks, Version};

/// What an item carries besides key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) version: Version,
    pub(crate) flags: u32,
    /// 0 is never. Kept exactly up to 2^44 - 1 (the year 2527); a later one is stored as that.
    pub(crate) expires_at_ms: u64,
    pub(crate) marks: Marks,
    /// What a client gave as CAS, in the place of the version.
    pub(crate) client_cas: Option<u64>,
}

impl Meta {
    /// Of an item that is about to be stored.
    #[inline]
    pub(crate) fn new(flags: u32, expires_at_ms: u64) -> Meta {
        Meta { version: Version(0), flags, expires_at_ms, marks: Marks::default(), client_cas: None }
    }

    /// As a change of the value leaves it: neither stale nor won, and with the log's version for CAS.
    pub(crate) fn of_changed(self) -> Meta {
        Meta { marks: self.marks.of_changed(), client_cas: None, ..self }
    }

    /// Without what meta commands say of the item.
    #[cfg(test)]
    pub(crate) fn without_state(self) -> Meta {
        Meta { marks: self.marks.without_state(), client_cas: None, ..self }
    }

    /// What clients see as CAS.
    pub(crate) fn cas(&self) -> u64 {
        self.client_cas.unwrap_or(self.version.0)
    }
}
