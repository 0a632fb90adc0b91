//! When an item is dead: expired, or older than the last flush.
//!
//! Lives here: the comparison. Not here: what a client's expiry means (see `mutation`), who removes a dead item
//! (the pass in `room`, or the caller that meets it).

use super::{Meta, Version};

/// What decides between dead and live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now_ms: u64,
    /// Items of an older version are dead.
    pub(crate) flush_floor: Version,
}

impl Moment {
    /// An item is dead from its deadline on, that millisecond included (rule X2).
    pub(super) fn is_expired(self, meta: Meta) -> bool {
        meta.expires_at_ms != 0 && meta.expires_at_ms <= self.now_ms
    }

    pub(crate) fn is_dead(self, meta: Meta) -> bool {
        self.is_expired(meta) || meta.version < self.flush_floor
    }
}
