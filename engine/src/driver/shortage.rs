//! Telling the log that a primary refuses writes for want of replicas, and when it takes them again.
//!
//! Lives here: since when, and what was said. Not here: refusing (see `roles`), what a status says (see `warning`).

use crate::clock::Millis;
use crate::replication::{Status, Warning};

/// How long writes have been refused when it is told: a replica that comes back at once is no news.
const TOLD_AFTER_MS: u64 = 1_000;

/// 1. `is_told` implies `since_ms`.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    since_ms: Option<Millis>,
    is_told: bool,
}

impl Shortage {
    /// When it wants to look again.
    pub(crate) fn deadline_ms(&self) -> Millis {
        let waiting = self.since_ms.filter(|_| !self.is_told);
        waiting.map_or(Millis::MAX, |since_ms| since_ms + TOLD_AFTER_MS)
    }

    /// Notes how it is now; the status is asked for only when there is something to tell.
    pub(crate) fn note(&mut self, is_short: bool, now_ms: Millis, status: impl FnOnce() -> Status) {
        if !is_short {
            if std::mem::take(&mut self.is_told) {
                tracing::info!("enough replicas are level: writes are taken again");
            }
            self.since_ms = None;
            return;
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        if !self.is_told && now_ms >= since_ms + TOLD_AFTER_MS {
            self.is_told = true;
            // Unlike modes were told of when the replica attached.
            let warnings = status().warnings;
            for refused in warnings.iter().filter(|warning| matches!(warning, Warning::WritesRefused { .. }))
            {
                tracing::warn!("{refused}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_once_when_it_has_lasted() {
        let mut shortage = Shortage::default();
        let mut told = 0;
        let mut note = |is_short, now_ms| {
            shortage.note(is_short, now_ms, || {
                told += 1;
                Status::standalone()
            });
            (shortage.deadline_ms(), told)
        };
        assert_eq!(note(false, 0), (Millis::MAX, 0));
        assert_eq!(note(true, 10), (1_010, 0));
        assert_eq!(note(true, 1_009), (1_010, 0));
        assert_eq!(note(false, 1_010), (Millis::MAX, 0));
        assert_eq!(note(true, 2_000), (3_000, 0));
        assert_eq!(note(true, 3_000), (Millis::MAX, 1));
        assert_eq!(note(true, 9_000), (Millis::MAX, 1));
        assert_eq!(note(false, 9_001), (Millis::MAX, 1));
    }
}
