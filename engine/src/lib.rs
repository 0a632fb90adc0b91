//! Hotspare: an embeddable, replicated in-memory cache engine.
//!
//! It exists for one moment: a cache node dies, and nobody notices, since the spare has the same items, in the same
//! order of recency.
//!
//! **Goals**: bytes by key with a hard memory limit, expiry, versions; a warm copy on other nodes over any transport;
//! fail-over without a burst of misses. **Non-goals**: durability, queries, consensus: it is a cache, so a miss is
//! always allowed, a stale hit is not, except inside the loss window that asynchronous replication states.
//!
//! ```
//! use hotspare::{Cache, Config, Expiry};
//! let cache = Cache::new(Config::new().memory_bytes_max(8 << 20))?;
//! cache.set("greeting", "hello", Expiry::Never)?;
//! assert_eq!(&cache.get("greeting")?.unwrap().value[..], b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To replicate, give the [`Config`] a [`ReplicationConfig`] and run a [`Replicator`] over a [`transport`]; the
//! transport crates do that in one call.
//!
//! **Feature** `serde` (default): replication, saving and restoring, and [`Typed`]: all that needs serde. Without it this is a cache of bytes in
//! one process.
#![cfg_attr(
    not(feature = "serde"),
    allow(dead_code, unused_imports, reason = "some of the storage is there for replication only")
)]

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}

#[doc = include_str!("../docs/coming_from.md")]
pub mod coming_from {}

mod cache;
mod clock;
mod config;
#[cfg(feature = "serde")]
mod driver;
mod error;
mod mutation;
#[cfg(feature = "serde")]
mod replication;
mod serving;
mod stats;
mod storage;
#[cfg(feature = "serde")]
mod typed;

#[cfg(feature = "serde")]
pub use cache::{
    Applied, Change, Damage, Effect, NoChange, Position, PositionError, Restart, RestoreError, Restored,
    SaveError, SubscribeError, Subscription,
};
pub use cache::{
    Cache, ClassAges, ClassStats, Cursor, Deletion, Entries, Histogram, Item, ItemDetails, ItemRef,
    ItemState, KeyAhead, Latencies, Lease, LoadError, LoadPolicy, Lookup, Put, SetBatch, Swap, Update,
    Updated, Value, ValueWriter, Waiting,
};
#[cfg(feature = "serde")]
#[doc(hidden)]
pub use cache::{InspectedItem, InspectedPart, Inspection};
pub use clock::{Clock, ManualClock, Millis, SystemClock};
pub use config::{Config, Eviction, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
#[cfg(feature = "serde")]
pub use config::{LOG_BYTES_MIN, ReplicationConfig};
#[cfg(feature = "serde")]
pub use driver::{Next, Replicator};
pub use error::{ConfigError, CounterError, ReadError, WriteError};
pub use mutation::{Attributes, Expiry, KEY_BYTES_MAX, Version};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use replication::Bug;
#[cfg(feature = "serde")]
pub use replication::transport;
#[cfg(feature = "serde")]
pub use replication::{
    ACK_REPLICAS_MAX, AckMode, AckModeError, Acknowledgement, LeaseState, LeaseStatus, LinkState,
    PromoteError, ReplicaStatus, Role, Status, Warning, Written,
};
pub use stats::Stats;
pub use storage::{Cause, Event, KeyHash, PREFIX_BYTES_MAX, PREFIXES_MAX, PinnedValue};
#[cfg(feature = "serde")]
pub use typed::{Typed, TypedError};

/// The text of counters, for who counts inside [`Cache::update`].
pub mod counter {
    pub use crate::cache::arithmetic::{parse, text};
}

/// Entry points for fuzzing what comes from other nodes.
#[cfg(feature = "serde")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::driver::hostile::{Reached, talk_to_a_node};
    pub use crate::replication::{decode_bodies, decode_frames};
}
