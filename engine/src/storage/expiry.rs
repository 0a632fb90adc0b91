//! When an item is dead: expired, or older than the last flush.
//!
//! Lives here: the comparison. Not here: what a client's expiry means (see `mutation`), who removes a dead item
//! (`sweep`, the pass in `room`, or the caller that meets it).

use super::accounting::whole_seconds;
use super::{Cause, Floors, Meta};
use crate::clock::Millis;

/// Tells the time when it is needed: most items do not expire, and a look at the clock costs as much as a hash.
pub(crate) trait Now {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> Millis;

    /// The second in which items are accessed now: of what is served in rounds, the round's.
    fn access_s(&self) -> u32 {
        whole_seconds(self.now_ms())
    }
}

/// What decides between dead and live.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) clock: &'a dyn Now,
    pub(crate) floors: &'a Floors,
}

impl Moment<'_> {
    pub(crate) fn now_ms(self) -> Millis {
        self.clock.now_ms()
    }

    pub(super) fn access_s(self) -> u32 {
        self.clock.access_s()
    }

    /// An item is dead from its deadline on, that millisecond included (rule X2).
    pub(super) fn is_expired(self, meta: Meta) -> bool {
        meta.expires_at_ms != 0 && meta.expires_at_ms <= self.now_ms()
    }

    /// Why an item that is dead is.
    pub(crate) fn cause_of_death(self, meta: Meta) -> Cause {
        if self.is_expired(meta) { Cause::Expired } else { Cause::Flushed }
    }

    /// The key is asked for only where flushes concern items of this age.
    #[inline]
    pub(crate) fn is_dead<'k>(self, meta: Meta, key: impl FnOnce() -> &'k [u8]) -> bool {
        self.floors.is_flushed(meta.version, key) || self.is_expired(meta)
    }
}

/// A moment that does not pass.
impl Now for Millis {
    fn now_ms(&self) -> Millis {
        *self
    }
}
