//! A replica whose full copies fail again and again, or do not last: it waits longer and longer, and says so.
//!
//! Lives here: counting, pauses, when it ends. Not here: what counts as a failure (see `driver::upstream`), what is told
//! (see `roles`).
//!
//! ```text
//!   fine ──(a copy failed, 1st, 2nd)──> counting ──(3rd)──> quarantined: pauses of 1, 2, 4 ... 60 s, each a quarter
//!    ^──────(a copy was complete, or the log was enough; an operator's word; a change of role)──┘   more or less
//! ```
//! A replica that is too slow falls out of the log as soon as it was copied. So a copy that was complete counts as failed all the
//! same, on top of those before it, if within [`LASTS_MS`] the log no longer holds what follows.

/// Full copies that may fail one after the other.
const FAILURES_MAX: u32 = 3;

/// The first pause, and the longest one, in milliseconds.
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;

/// How long a copy has to last to be none that failed, in milliseconds: then no more are made than by the longest pause.
const LASTS_MS: u64 = PAUSE_MAX_MS;

/// 1. `pause_ms` is 0 unless at least [`FAILURES_MAX`] copies have failed one after the other.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    failures: u32,
    pause_ms: u64,
    complete: Option<Complete>,
}

/// The last copy was complete at this moment, and so many had failed before it.
#[derive(Debug, Clone, Copy)]
struct Complete {
    failures: u32,
    at_ms: u64,
}

impl Quarantine {
    /// A full copy has failed. If that makes a quarantine, or one goes on: how long to wait before the next one, in
    /// milliseconds. Replicas that fail together spread by `random`.
    pub(crate) fn copy_failed(&mut self, random: u64) -> Option<u64> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES_MAX {
            return None;
        }
        let doublings = (self.failures - FAILURES_MAX).min(16);
        let pause_ms = (PAUSE_MIN_MS << doublings).min(PAUSE_MAX_MS);
        self.pause_ms = pause_ms * 3 / 4 + random % (pause_ms / 2 + 1);
        Some(self.pause_ms)
    }

    /// A copy is complete: it is over, for now at least.
    pub(crate) fn copy_complete(&mut self, now_ms: u64) {
        let complete = Some(Complete { failures: self.failures, at_ms: now_ms });
        *self = Quarantine { complete, ..Quarantine::default() };
    }

    /// The log was enough.
    pub(crate) fn caught_up(&mut self) {
        (self.failures, self.pause_ms) = (0, 0);
    }

    /// This node is to be copied: whether it was a moment ago, and the copy is to count as failed.
    pub(crate) fn is_copied_again(&mut self, now_ms: u64) -> bool {
        let complete = self.complete.take();
        let lost = complete.filter(|complete| now_ms.saturating_sub(complete.at_ms) < LASTS_MS);
        self.failures = self.failures.max(lost.map_or(0, |complete| complete.failures));
        lost.is_some()
    }

    /// This node is to begin anew.
    pub(crate) fn end(&mut self) {
        *self = Quarantine::default();
    }

    pub(crate) fn is_on(&self) -> bool {
        self.pause_ms > 0
    }

    /// Copies that failed one after the other.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The present pause in milliseconds; 0 outside.
    pub(crate) fn pause_ms(&self) -> u64 {
        self.pause_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_failure_begins_it_and_pauses_grow_to_a_minute() {
        let mut quarantine = Quarantine::default();
        let pauses: Vec<_> = (0..11).map(|_| quarantine.copy_failed(0)).collect();
        assert_eq!(pauses[..4], [None, None, Some(750), Some(1_500)]);
        assert_eq!((pauses[9], pauses[10]), (Some(45_000), Some(45_000)));
        assert!(quarantine.is_on() && quarantine.failures() == 11);
        quarantine.end();
        assert!(!quarantine.is_on() && quarantine.copy_failed(0).is_none(), "it begins anew");
    }

    #[test]
    fn a_copy_that_does_not_last_has_failed_and_one_that_lasts_begins_anew() {
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.is_copied_again(0), "the first");
        for round in 0..3 {
            quarantine.copy_complete(round * LASTS_MS);
            assert_eq!((quarantine.failures(), quarantine.is_on()), (0, false));
            assert!(quarantine.is_copied_again((round + 1) * LASTS_MS - 1));
            assert_eq!(quarantine.copy_failed(0).is_some(), round == 2);
            assert!(!quarantine.is_copied_again(0), "once");
        }
        quarantine.copy_complete(0);
        quarantine.caught_up();
        assert!(!quarantine.is_copied_again(LASTS_MS) && quarantine.copy_failed(0).is_none());
    }

    #[test]
    fn pauses_are_spread_by_a_quarter_either_way() {
        let pause = |random| {
            let mut quarantine = Quarantine { failures: FAILURES_MAX + 5, ..Quarantine::default() };
            quarantine.copy_failed(random).unwrap()
        };
        assert_eq!((pause(0), pause(30_000)), (45_000, 75_000));
        assert!((0..100_000_u64).step_by(997).all(|random| (45_000..=75_000).contains(&pause(random))));
    }
}
