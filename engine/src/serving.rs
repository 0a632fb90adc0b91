//! What a node answers its clients.
//!
//! Lives here: the word that `cache` and `replication` share. Not here: which role gives which (see
//! `replication::roles`).

/// What a node answers its clients, as one byte that is read under the shard's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Serving {
    /// Reads and writes.
    All = 0,
    /// Reads only: a replica that was told to answer them.
    Reads = 1,
    /// Nothing: a replica.
    Replica = 2,
    /// Nothing: a primary that another one replaced.
    Fenced = 3,
}
