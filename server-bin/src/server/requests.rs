//! How many requests of each command there were, and how long a sample of them took.
//!
//! Lives here: the commands' names, one worker's counts of them, and its histograms. Not here: when a turn is timed (see
//! `stopwatch`), how the sums are written (see `admin::metrics`).
//!
//! As in `counters`, each number has one writer, so counting costs a load and a store; a request that is not timed costs
//! nothing more.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::counters::Counter;

macro_rules! commands {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A command, whatever dialect it came in: the binary ones count under their classic names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Command {
            $($name,)*
        }

        impl Command {
            pub(crate) const ALL: &[Command] = &[$(Command::$name,)*];

            /// Its word on the wire.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Command::$name => $text,)*
                }
            }
        }
    };
}

commands! {
    Get = "get",
    GetAndTouch = "gat",
    Set = "set",
    Add = "add",
    Replace = "replace",
    Append = "append",
    Prepend = "prepend",
    Cas = "cas",
    Delete = "delete",
    Incr = "incr",
    Decr = "decr",
    Touch = "touch",
    MetaGet = "mg",
    MetaSet = "ms",
    MetaDelete = "md",
    MetaArithmetic = "ma",
    MetaDebug = "me",
    MetaNoop = "mn",
    FlushAll = "flush_all",
    Stats = "stats",
    Other = "other",
}

const COMMANDS: usize = Command::ALL.len();

/// Buckets of a histogram; the last has no bound.
pub(crate) const BUCKETS: usize = 22;

/// The first bucket's bound is 2 to this power, in nanoseconds: 256. Each bound is twice the one before; the last is 268 ms.
const FIRST_BOUND_LOG: u32 = 8;

/// The bound of a bucket, in nanoseconds; none of the last.
pub(crate) fn bound_ns(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then(|| 1 << (FIRST_BOUND_LOG + bucket as u32))
}

/// The first bucket whose bound a time does not exceed.
fn bucket_of(ns: u64) -> usize {
    let log = ns.saturating_sub(1).checked_ilog2().map_or(0, |log| log + 1);
    (log.saturating_sub(FIRST_BOUND_LOG) as usize).min(BUCKETS - 1)
}

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Histogram {
    pub(crate) fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].add(1);
        self.sum_ns.add(ns);
    }

    fn add_to(&self, sum: &mut HistogramSnapshot) {
        for (bucket, sum) in self.buckets.iter().zip(&mut sum.buckets) {
            *sum += bucket.get();
        }
        sum.sum_ns += self.sum_ns.get();
    }

    fn reset(&self) {
        self.buckets.iter().for_each(Counter::reset);
        self.sum_ns.reset();
    }
}

/// What one worker counted.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    counts: [Counter; COMMANDS],
    newest: AtomicU8,
    times: [Histogram; COMMANDS],
    /// Of whole turns: what has come is read, executed and answered.
    pub(crate) turns: Histogram,
}

impl Requests {
    /// A request of this command is about to be executed.
    #[inline]
    pub(crate) fn count(&self, command: Command) {
        self.counts[command as usize].add(1);
        self.newest.store(command as u8, Ordering::Relaxed);
    }

    /// So many requests of this command were executed.
    #[inline]
    pub(crate) fn count_several(&self, command: Command, requests: usize) {
        self.counts[command as usize].add(requests as u64);
        self.newest.store(command as u8, Ordering::Relaxed);
    }

    /// Forgets what was counted last: what is not counted is of no command.
    pub(crate) fn forget_newest(&self) {
        self.newest.store(Command::Other as u8, Ordering::Relaxed);
    }

    /// The command that was counted last.
    pub(crate) fn newest(&self) -> Command {
        Command::ALL[usize::from(self.newest.load(Ordering::Relaxed))]
    }

    pub(crate) fn add_time(&self, command: Command, time: Duration) {
        self.times[command as usize].add(time);
    }

    pub(crate) fn add_to(&self, sum: &mut RequestsSnapshot) {
        for (count, sum) in self.counts.iter().zip(&mut sum.counts) {
            *sum += count.get();
        }
        for (times, sum) in self.times.iter().zip(&mut sum.times) {
            times.add_to(sum);
        }
        self.turns.add_to(&mut sum.turns);
    }

    pub(crate) fn reset(&self) {
        self.counts.iter().for_each(Counter::reset);
        self.times.iter().for_each(Histogram::reset);
        self.turns.reset();
    }
}

/// Times of one kind, of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HistogramSnapshot {
    /// How many took no longer than [`bound_ns`] and longer than the bucket before.
    pub(crate) buckets: [u64; BUCKETS],
    pub(crate) sum_ns: u64,
}

impl HistogramSnapshot {
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Requests by command, and sampled times, of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestsSnapshot {
    counts: [u64; COMMANDS],
    times: [HistogramSnapshot; COMMANDS],
    pub(crate) turns: HistogramSnapshot,
}

impl RequestsSnapshot {
    /// Each command's word, its requests, and the times of a sample of them.
    pub(crate) fn by_command(&self) -> impl Iterator<Item = (&'static str, u64, &HistogramSnapshot)> {
        let numbers = self.counts.iter().zip(&self.times);
        Command::ALL.iter().zip(numbers).map(|(command, (count, times))| (command.as_str(), *count, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_is_not_below_it() {
        for (ns, bucket) in [(0, 0), (1, 0), (256, 0), (257, 1), (512, 1), (513, 2), (1 << 28, 20)] {
            assert_eq!(bucket_of(ns), bucket, "{ns} ns");
            assert!(bound_ns(bucket).is_some_and(|bound| ns <= bound), "{ns} ns");
        }
        assert_eq!((bucket_of((1 << 28) + 1), bucket_of(u64::MAX)), (21, 21));
        assert_eq!(bound_ns(21), None);
    }

    #[test]
    fn a_reset_leaves_nothing() {
        let requests = Requests::default();
        requests.count(Command::Cas);
        assert_eq!(requests.newest(), Command::Cas);
        requests.add_time(Command::Cas, Duration::from_micros(3));
        requests.turns.add(Duration::from_secs(3));
        let mut sum = RequestsSnapshot::default();
        requests.add_to(&mut sum);
        let (_, count, times) = sum.by_command().find(|(word, ..)| *word == "cas").unwrap();
        assert_eq!((count, times.count(), times.sum_ns, sum.turns.buckets[BUCKETS - 1]), (1, 1, 3_000, 1));
        requests.reset();
        let mut sum = RequestsSnapshot::default();
        requests.add_to(&mut sum);
        assert_eq!(sum, RequestsSnapshot::default());
    }
}
