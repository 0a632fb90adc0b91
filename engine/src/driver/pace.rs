//! When the driver collects: it sleeps a while between its turns, and does more in each of them.
//!
//! Lives here: since when something was shipped or followed, and how much. Not here: what else makes the next turn due (see
//! [`super::Replicator::poll`]).
//!
//! A primary collects writes, and writers need not wake it for each. A replica collects what is shipped: it does not wait for
//! the link, so the primary's system need not wake it for each piece either.

use std::time::Duration;

use crate::clock::Millis;
use crate::replication::risk::LogEnd;

/// How long who drives collects between two turns, where nobody waits for acks (the first design said 200 µs: why this
/// is more is in ARCHITECTURE.md). The system adds some 50 µs.
pub(super) const LINGER: Duration = Duration::from_micros(450);

/// How long the driver goes on collecting after the last time that there was something.
const LINGER_MS: u64 = 2;

/// What a replica takes without a rest when it goes on at once: it is catching up, and its primary waits for room on the link.
const FEED_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Pace {
    shipped_at_ms: Millis,
    followed_at_ms: Millis,
    /// Where the log ended behind the last turn.
    log_bytes: u64,
    /// What was followed since the last rest.
    fed_bytes: u64,
}

impl Pace {
    pub(super) fn note_shipped(&mut self, now_ms: Millis) {
        self.shipped_at_ms = now_ms;
    }

    /// Behind a turn, which left the log ending here. `unhurried` says that what was added had been shipped to this node, and
    /// that no client waits for its ack.
    pub(super) fn note_followed(&mut self, end: LogEnd, unhurried: bool) {
        let grown = end.bytes.saturating_sub(std::mem::replace(&mut self.log_bytes, end.bytes));
        if unhurried && grown > 0 {
            self.followed_at_ms = end.at_ms;
            self.fed_bytes += grown;
        }
    }

    /// Whether the next piece is soon to be shipped.
    pub(super) fn ships(&self, now_ms: Millis) -> bool {
        now_ms < self.shipped_at_ms + LINGER_MS
    }

    /// Whether the next piece is soon to come, and can wait for it.
    pub(super) fn follows(&mut self, now_ms: Millis) -> bool {
        let is_small = std::mem::take(&mut self.fed_bytes) <= FEED_BYTES_MAX;
        is_small && now_ms < self.followed_at_ms + LINGER_MS
    }
}
