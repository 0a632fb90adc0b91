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
    /// Reads only: a primary whose acknowledgements ask for more replicas than it has.
    Unguarded = 4,
    /// Reads and writes, as far as its lease goes: a strict primary.
    Leased = 5,
}

impl Serving {
    /// Whether reads are answered.
    pub(crate) fn answers_reads(self) -> bool {
        matches!(self, Serving::All | Serving::Reads | Serving::Unguarded | Serving::Leased)
    }

    /// Whether this node is the one that says what the group holds.
    pub(crate) fn reigns(self) -> bool {
        matches!(self, Serving::All | Serving::Unguarded | Serving::Leased)
    }
}

impl From<u8> for Serving {
    fn from(byte: u8) -> Serving {
        use Serving::{All, Fenced, Leased, Reads, Replica, Unguarded};
        let all = [All, Reads, Replica, Fenced, Unguarded, Leased];
        all.into_iter().find(|serving| *serving as u8 == byte).unwrap_or(Serving::Fenced)
    }
}
