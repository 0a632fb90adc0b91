//! Counters and gauges of a cache, as one snapshot.
//!
//! Lives here: the public snapshot. Not here: replication's figures (see `replication::Status`).

/// What a cache has done since it was made, and what it holds. Counters are summed over the shards one by one, so
/// a snapshot taken under load is not of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Live items, dead ones that nobody has met yet included.
    pub items: u64,
    /// Bytes of these items: header, key and value.
    pub item_bytes: u64,
    /// Bytes held now: pages of items and of the index.
    pub memory_bytes: u64,
    /// The hard limit of `memory_bytes`.
    pub memory_bytes_max: u64,
    /// Bytes of `memory_bytes` that are values whose items have gone, while somebody still sends them
    /// ([`PinnedValue`](crate::PinnedValue)).
    pub pinned_bytes: u64,
    /// Bytes of `memory_bytes` that are the index.
    pub index_bytes: u64,
    /// Reads that found a live item.
    pub get_hits: u64,
    /// Reads that found none, the two below included.
    pub get_misses: u64,
    /// Reads that found an expired item.
    pub get_expired: u64,
    /// Reads that found an item older than the last flush.
    pub get_flushed: u64,
    /// Reads of a typed cache that found bytes of another encoding: misses.
    pub get_undecodable: u64,
    /// Stores that succeeded.
    pub stores: u64,
    /// Live items that left for want of memory.
    pub evictions: u64,
    /// Those of them that were never read.
    pub evicted_unfetched: u64,
    /// Expired items removed that were never read.
    pub expired_unfetched: u64,
    /// Dead items whose memory was used again.
    pub reclaimed: u64,
    /// Items refused because they are above the item limit.
    pub store_too_large: u64,
    /// Items refused for want of memory.
    pub store_no_memory: u64,
    /// Pages that went from one size class to another.
    pub pages_moved: u64,
    /// Into how many parts, each with its own lock, the cache is divided.
    pub shards: u64,
}
