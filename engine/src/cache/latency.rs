//! How long reads and writes take: histograms, off unless asked for.
//!
//! Lives here: counting durations, and what is read off the counts. Not here: reading the clock (see `clock`).
//!
//! Eight buckets for each power of two of nanoseconds, so a bucket is at most an eighth wide.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::Stopwatch;

/// Sub-buckets of a power of two, as a number of bits.
const SUB_BITS: u32 = 3;
/// Durations from 2^40 ns (18 minutes) on fall into the last bucket.
const POWER_MAX: u32 = 40;
const BUCKETS: usize = ((POWER_MAX - SUB_BITS + 1) as usize) << SUB_BITS;

/// How long the operations of a cache took, since it was made or its statistics were reset: see
/// [`Config::latency_histograms`](crate::Config::latency_histograms).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// Reads: one for each `get`, `read`, and for each whole `get_many` or `read_many`; closures included.
    pub reads: Histogram,
    /// Writes of one key: sets, deletions, counters and all the others.
    pub writes: Histogram,
}

/// How often operations took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64]>,
}

impl Histogram {
    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time within which this part of all operations was done (0.99: the 99th percentile), at most an eighth too
    /// long; zero if none was counted.
    pub fn quantile(&self, part: f64) -> Duration {
        let count = self.count();
        if count == 0 {
            return Duration::ZERO;
        }
        let wanted = ((count as f64 * part.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let is_enough = |bucket: &usize| {
            seen += self.counts[*bucket];
            seen >= wanted
        };
        let bucket = (0..BUCKETS).find(is_enough).unwrap_or(BUCKETS - 1);
        Duration::from_nanos(last_ns_of(bucket))
    }

    /// Each bucket that is not empty: the longest duration in it, and how many operations.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (Duration::from_nanos(last_ns_of(bucket)), *count))
    }
}

/// What is counted into.
pub(super) struct LatencyCounters {
    reads: Box<[AtomicU64]>,
    writes: Box<[AtomicU64]>,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    Read,
    Write,
}

impl LatencyCounters {
    pub(super) fn new() -> LatencyCounters {
        let counts = || (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        LatencyCounters { reads: counts(), writes: counts() }
    }

    /// Runs it and counts how long it took.
    pub(super) fn time<R>(&self, timed: Timed, run: impl FnOnce() -> R) -> R {
        let stopwatch = Stopwatch::start();
        let result = run();
        let counts = if timed == Timed::Read { &self.reads } else { &self.writes };
        counts[bucket_of(stopwatch.elapsed_ns())].fetch_add(1, Relaxed);
        result
    }

    pub(super) fn latencies(&self) -> Latencies {
        let histogram = |counts: &[AtomicU64]| Histogram {
            counts: counts.iter().map(|count| count.load(Relaxed)).collect(),
        };
        Latencies { reads: histogram(&self.reads), writes: histogram(&self.writes) }
    }

    pub(super) fn reset(&self) {
        self.reads.iter().chain(&self.writes).for_each(|count| count.store(0, Relaxed));
    }
}

fn bucket_of(ns: u64) -> usize {
    let power = ns.max(1).ilog2();
    if power < SUB_BITS {
        return ns as usize;
    }
    if power > POWER_MAX - 1 {
        return BUCKETS - 1;
    }
    let within = (ns >> (power - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    ((power - SUB_BITS + 1) as usize) << SUB_BITS | within
}

/// The longest duration of a bucket.
fn last_ns_of(bucket: usize) -> u64 {
    let (row, within) = ((bucket >> SUB_BITS) as u32, (bucket & ((1 << SUB_BITS) - 1)) as u64);
    if row == 0 { within } else { (((1 << SUB_BITS) + within + 1) << (row - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_lies_in_a_bucket_at_most_an_eighth_wide() {
        let mut before = 0;
        for ns in (0..10_000).chain((14..40).map(|power| 1 << power)).chain([(1 << 40) - 1]) {
            let bucket = bucket_of(ns);
            let last = last_ns_of(bucket);
            assert!(bucket >= before && last >= ns && last - ns <= ns / 8, "{ns} in {bucket} up to {last}");
            before = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert!((0..BUCKETS).all(|bucket| bucket_of(last_ns_of(bucket)) == bucket));
    }

    #[test]
    fn quantiles_are_read_off_the_counts() {
        let counters = LatencyCounters::new();
        assert_eq!(counters.latencies().reads.quantile(0.5), Duration::ZERO);
        for ns in 1..=1_000 {
            counters.reads[bucket_of(ns)].fetch_add(1, Relaxed);
        }
        let reads = counters.latencies().reads;
        assert_eq!(reads.count(), 1_000);
        for (part, ns) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let found = reads.quantile(part).as_nanos() as u64;
            assert!(found >= ns && found <= ns + ns / 8 + 1, "{part}: {found}");
        }
        assert_eq!(reads.buckets().map(|(_, count)| count).sum::<u64>(), 1_000);
        counters.reset();
        assert_eq!(counters.latencies().reads.count(), 0);
    }
}
