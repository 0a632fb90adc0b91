//! What would be lost if the primary died now: how much one replica lacks, and since when.
//!
//! Lives here: a few samples of where the log ended at which moment. Not here: who asks (see `primary`, `status`).
//!
//! A write carries no time. So the log's end is sampled at each of the driver's turns, and what a replica lacks is as
//! old as the newest sample that it has applied all of: never told younger or smaller than it is.

use std::collections::VecDeque;

use super::position::Seq;

/// Samples kept for one replica (24 bytes each); when there are more, every second one goes.
const SAMPLES_MAX: usize = 64;

/// Where the log ended at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogEnd {
    pub(crate) seq: Seq,
    /// Bytes of everything that was ever appended.
    pub(crate) bytes: u64,
    /// This node's own clock.
    pub(crate) at_ms: u64,
}

/// 1. `reached` is a sample of which the replica has applied everything, or its attaching.
/// 2. `samples` rise in seq, and all lie behind what the replica has applied.
#[derive(Debug, Clone)]
pub(crate) struct Risk {
    reached: LogEnd,
    samples: VecDeque<LogEnd>,
}

impl Risk {
    pub(crate) fn new(end: LogEnd) -> Risk {
        Risk { reached: end, samples: VecDeque::new() }
    }

    /// Of a replica that goes on from here, when nobody has noted anything of it: what it lacks is as old as the samples say that
    /// were taken before it came, or as the oldest of them.
    pub(crate) fn going_on(&self, from: LogEnd) -> Risk {
        let mut risk = self.clone();
        risk.note(self.samples.back().copied().unwrap_or(self.reached), from.seq);
        let known_at_ms = risk.reached.at_ms;
        risk.reached = LogEnd { at_ms: known_at_ms, ..from };
        risk
    }

    /// Notes where the log ends now, and how far the replica is.
    pub(crate) fn note(&mut self, end: LogEnd, applied: Seq) {
        match self.samples.back_mut() {
            Some(last) if last.seq == end.seq => *last = end,
            None if end.seq <= self.reached.seq => self.reached = end,
            _ => self.samples.push_back(end),
        }
        while self.samples.front().is_some_and(|sample| sample.seq <= applied) {
            self.reached = self.samples.pop_front().unwrap_or(self.reached);
        }
        if self.samples.len() > SAMPLES_MAX {
            // The newest is the last of an odd number, and stays.
            let mut nth = 0;
            self.samples.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
    }

    /// For how long the replica has lacked something, in milliseconds.
    pub(crate) fn lag_ms(&self, now_ms: u64) -> u64 {
        if self.samples.is_empty() { 0 } else { now_ms.saturating_sub(self.reached.at_ms) }
    }

    /// Bytes that it lacks.
    pub(crate) fn lag_bytes(&self) -> u64 {
        self.samples.back().map_or(0, |end| end.bytes - self.reached.bytes.min(end.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(seq: Seq, at_ms: u64) -> LogEnd {
        LogEnd { seq, bytes: seq * 10, at_ms }
    }

    #[test]
    fn a_replica_that_follows_closely_under_load_lags_by_little() {
        let mut risk = Risk::new(end(0, 0));
        for moment in 1..10_000 {
            risk.note(end(moment, moment), moment.saturating_sub(3));
        }
        assert!(risk.lag_ms(9_999) <= 4, "{}", risk.lag_ms(9_999));
        assert!(risk.lag_bytes() <= 40);
    }

    #[test]
    fn a_replica_that_stands_still_lags_by_all_the_time_since_in_bounded_memory() {
        let mut risk = Risk::new(end(5, 100));
        for moment in 101..10_000 {
            risk.note(end(moment, moment), 5);
        }
        assert_eq!((risk.lag_ms(10_000), risk.lag_bytes()), (9_900, (9_999 - 5) * 10));
        assert!(risk.samples.len() <= SAMPLES_MAX);
        risk.note(end(10_001, 10_001), 10_001);
        assert_eq!((risk.lag_ms(20_000), risk.lag_bytes()), (0, 0));
    }

    #[test]
    fn what_a_replica_lacked_before_it_came_back_is_as_old_as_it_is() {
        let mut all = Risk::new(end(0, 0));
        for moment in 1..=40 {
            all.note(end(moment, moment * 10), 0);
        }
        let risk = all.going_on(end(25, 1_000));
        assert_eq!((risk.lag_ms(1_000), risk.lag_bytes()), (750, 150));
        let level = all.going_on(end(40, 1_000));
        assert_eq!((level.lag_ms(1_000), level.lag_bytes()), (0, 0));
        // Never told younger than it is, however few samples are left.
        for moment in 41..10_000 {
            all.note(end(moment, moment * 10), 0);
        }
        let risk = all.going_on(end(5_000, 99_990));
        assert!((49_990..99_990).contains(&risk.lag_ms(99_990)), "{}", risk.lag_ms(99_990));
    }

    #[test]
    fn an_idle_log_ages_nobody() {
        let mut risk = Risk::new(end(5, 100));
        risk.note(end(5, 60_000), 5);
        risk.note(end(6, 60_005), 5);
        assert_eq!(risk.lag_ms(60_010), 10);
    }
}
