//! When the driver collects: it sleeps a while between its turns, and does more in each of them.
//!
//! Lives here: whether something was shipped since the last rest, and how much was followed. Not here: what else makes the next turn due (see
//! [`super::Replicator::poll`]).
//!
//! A primary collects writes, and writers need not wake it for each. A replica collects what is shipped: it does not wait for
//! the link, so the primary's system need not wake it for each piece either.

use std::time::Duration;

use crate::replication::risk::LogEnd;

/// How long who drives collects between two turns, where nobody waits for acks (the first design said 200 µs: why this
/// is more is in ARCHITECTURE.md). The system adds some 50 µs.
pub(super) const LINGER: Duration = Duration::from_micros(950);

/// The same where writes are refused above a budget of what replicas lack.
pub(super) const LINGER_WITHIN_BUDGET: Duration = Duration::from_micros(450);

/// What a replica takes without a rest when it goes on at once: it is catching up, and its primary waits for room on the link. Not
/// more, though it rests for longer than it did: a replica of 500 MB a second that rests behind 512 KiB has its socket full, and now
/// and then falls out of a log of 4 MiB.
const FEED_BYTES_MAX: u64 = 256 << 10;

/// Behind a rest in which nothing came, a replica waits for the link so many times before it rests again: where pieces are rare, a
/// rest is a turn for nothing.
const PIECES_AWAITED: u8 = 8;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether something was shipped, or an ack came, since the last rest of a primary.
    has_shipped: bool,
    /// Where the log ended behind the last turn.
    log_bytes: u64,
    /// What was followed since the last rest.
    fed_bytes: u64,
    /// Whether a replica rested last, and nothing has come since.
    rests: bool,
    pieces_awaited: u8,
}

impl Pace {
    pub(super) fn note_shipped(&mut self) {
        self.has_shipped = true;
    }

    /// Behind a turn, which left the log ending here. `unhurried` says that this node follows a primary whose clients wait for no
    /// ack.
    pub(super) fn note_followed(&mut self, end: LogEnd, unhurried: bool) {
        let grown = end.bytes.saturating_sub(std::mem::replace(&mut self.log_bytes, end.bytes));
        self.fed_bytes = if unhurried { self.fed_bytes + grown } else { 0 };
    }

    /// Before a rest: whether the next piece is soon to be shipped.
    pub(super) fn ships(&mut self) -> bool {
        std::mem::take(&mut self.has_shipped)
    }

    /// Before a rest: whether the next piece is soon to come, and may be left in the link for a while.
    pub(super) fn follows(&mut self) -> bool {
        let fed_bytes = std::mem::take(&mut self.fed_bytes);
        let has_rested = std::mem::take(&mut self.rests);
        match fed_bytes {
            0 if has_rested => self.pieces_awaited = PIECES_AWAITED,
            0 => {}
            _ if has_rested || self.pieces_awaited == 0 => self.rests = fed_bytes <= FEED_BYTES_MAX,
            _ => self.pieces_awaited -= 1,
        }
        self.rests
    }
}
