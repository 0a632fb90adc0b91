//! What a subscription tells.

use bytes::Bytes;

use crate::mutation::{Mutation, Version};
use crate::replication::record;

use super::position::Position;

/// One step of a [`Subscription`](super::Subscription).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Give this to [`Cache::subscribe`](crate::Cache::subscribe) to go on behind this change.
    pub position: Position,
    /// The version that the mutation took; of an [`Effect::Put`], the item's. Of an [`Effect::Restart`], that of the last
    /// mutation before it.
    pub version: Version,
    /// What it did.
    pub effect: Effect,
}

/// What a change did. It is the result, never the command: an `incr` is told as an [`Effect::Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The key has this value now.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// What the writer gave.
        flags: u32,
        /// When it expires, in milliseconds since the Unix epoch on the cache's clock; `None` is never. That it expired
        /// is not told.
        expires_at_ms: Option<u64>,
    },
    /// The item expires at another moment. Its value and version stay.
    Touch {
        /// The key.
        key: Bytes,
        /// The version of the item that was touched; it is passed over where the key has another one.
        item: Version,
        /// As in [`Effect::Put`].
        expires_at_ms: Option<u64>,
    },
    /// The key is absent now. Told also of a key that was absent already, and in the place of a value above a quarter of
    /// the log, which is not in it.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Every key is absent now.
    Flush,
    /// Every key that begins so is absent now.
    FlushPrefix {
        /// The prefix.
        prefix: Bytes,
    },
    /// Start again from here: forget what the changes so far came to, and go through the cache
    /// ([`Cache::iter`](crate::Cache::iter)). What it shows from now on, and the changes that follow, come to its content.
    Restart(Restart),
}

/// Why a subscriber starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// It named no position to go on from.
    Beginning,
    /// Its position is another cache's, or of an earlier process, in the same history. No mutation was missed: those
    /// behind the position follow. But that cache may have evicted what this one holds.
    OtherCache,
    /// It was too slow: the log has forgotten what follows its position.
    Overtaken,
    /// The cache rolled back, since another node was promoted before that had all: what this one wrote alone is gone. Or
    /// the position lies in no history of this cache.
    RolledBack,
    /// This node was copied anew from its primary.
    Copied,
}

/// What a record of the log comes to; `None` for one that changes no item.
pub(super) fn effect_of(bytes: &[u8]) -> Option<Effect> {
    let copy = Bytes::copy_from_slice;
    let moment = |expires_at_ms: u64| (expires_at_ms != 0).then_some(expires_at_ms);
    match record::decode(bytes).expect("a record of the own log was encoded or decoded here before") {
        Mutation::Put { key, marks, .. } if marks.is_absence() => Some(Effect::Delete { key: copy(key) }),
        Mutation::Put { key, value, flags, expires_at_ms, .. } => Some(Effect::Put {
            key: copy(key),
            value: copy(value),
            flags,
            expires_at_ms: moment(expires_at_ms),
        }),
        Mutation::Touch { key, version, expires_at_ms } => {
            Some(Effect::Touch { key: copy(key), item: version, expires_at_ms: moment(expires_at_ms) })
        }
        Mutation::Delete { key } => Some(Effect::Delete { key: copy(key) }),
        Mutation::Flush => Some(Effect::Flush),
        Mutation::FlushPrefix { prefix } => Some(Effect::FlushPrefix { prefix: copy(prefix) }),
        // The flush itself follows when it is due.
        Mutation::FlushAt { .. } => None,
        // No item changed.
        Mutation::LendLoad { .. } | Mutation::EndLoad { .. } => None,
    }
}
