//! What reads count, striped over threads, so that two threads' reads do not write one cache line.
//!
//! Lives here: the stripes, and the thread's place in them. Not here: what writes count (see `ShardCell`).

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::stats::Stats;

/// Stripes that belong to one thread each; threads beyond so many share one more.
const STRIPES: usize = 64;
const SHARED: usize = STRIPES;
const NONE: usize = usize::MAX;

/// One bit for each stripe that a living thread has, for all caches together.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// What a thread keeps of its own.
struct Here {
    /// Whether it is inside a closure that reads an item in place.
    reading: Cell<bool>,
    /// Its stripe: its own, or `SHARED`, or `NONE` before its first read.
    stripe: Cell<usize>,
}

thread_local! {
    static HERE: Here = const { Here { reading: Cell::new(false), stripe: Cell::new(NONE) } };
    /// Gives the thread's stripe back when the thread ends.
    static RETURN: Return = const { Return };
}

struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        HERE.with(|here| {
            let stripe = here.stripe.replace(SHARED);
            if stripe < STRIPES {
                // Release: who takes the stripe next sees what this thread has counted.
                TAKEN.fetch_and(!(1 << stripe), Release);
            }
        });
    }
}

#[cold]
fn join(here: &Here) -> usize {
    let taken = TAKEN.fetch_update(Acquire, Relaxed, |taken| {
        let free = (!taken).trailing_zeros();
        (free < STRIPES as u32).then(|| taken | 1 << free)
    });
    // A thread that is ending can't be told of its end any more.
    let stripe = match taken {
        Ok(before) => match RETURN.try_with(|_| ()) {
            Ok(()) => (!before).trailing_zeros() as usize,
            Err(_) => {
                TAKEN.fetch_and(!(1 << (!before).trailing_zeros()), Release);
                SHARED
            }
        },
        Err(_) => SHARED,
    };
    here.stripe.set(stripe);
    stripe
}

pub(crate) fn is_inside_read() -> bool {
    HERE.with(|here| here.reading.get())
}

/// Sets the thread's flag for as long as a reader runs, a panic in it included.
pub(super) struct ReadingHere;

impl ReadingHere {
    #[inline]
    pub(super) fn enter() -> ReadingHere {
        HERE.with(|here| here.reading.set(true));
        ReadingHere
    }
}

impl Drop for ReadingHere {
    #[inline]
    fn drop(&mut self) {
        HERE.with(|here| here.reading.set(false));
    }
}

/// One stripe: a pair of cache lines, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
    expired: AtomicU64,
    flushed: AtomicU64,
    undecodable: AtomicU64,
}

impl Stripe {
    fn counts(&self) -> [&AtomicU64; 5] {
        [&self.hits, &self.misses, &self.expired, &self.flushed, &self.undecodable]
    }
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    Hit,
    Miss,
    Expired,
    Flushed,
    /// It was counted as a hit before it turned out not to decode.
    Undecodable,
}

pub(super) struct ReadCounters(Box<[Stripe]>);

impl ReadCounters {
    pub(super) fn new() -> ReadCounters {
        ReadCounters((0..=SHARED).map(|_| Stripe::default()).collect())
    }

    #[inline]
    pub(super) fn count(&self, outcome: ReadOutcome) {
        let number = HERE.with(|here| match here.stripe.get() {
            NONE => join(here),
            stripe => stripe,
        });
        let stripe = &self.0[number];
        let count = match outcome {
            ReadOutcome::Hit => &stripe.hits,
            ReadOutcome::Miss => &stripe.misses,
            ReadOutcome::Expired => &stripe.expired,
            ReadOutcome::Flushed => &stripe.flushed,
            ReadOutcome::Undecodable => &stripe.undecodable,
        };
        if number == SHARED {
            count.fetch_add(1, Relaxed);
        } else {
            // Nobody else adds to this stripe, so no locked instruction is needed. (A reset at this very moment may
            // be undone for this count.)
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        for stripe in &self.0 {
            let [hits, misses, expired, flushed, undecodable] =
                stripe.counts().map(|count| count.load(Relaxed));
            // Another thread may have counted one and not yet the other.
            stats.get_hits += hits.saturating_sub(undecodable);
            stats.get_misses += misses + expired + flushed + undecodable;
            stats.get_undecodable += undecodable;
            stats.get_expired += expired;
            stats.get_flushed += flushed;
        }
    }

    pub(super) fn reset(&self) {
        for stripe in &self.0 {
            for count in stripe.counts() {
                count.store(0, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_read_is_lost_with_more_threads_than_stripes() {
        let counters = ReadCounters::new();
        let barrier = std::sync::Barrier::new(STRIPES + 8);
        std::thread::scope(|scope| {
            for _ in 0..STRIPES + 8 {
                scope.spawn(|| {
                    barrier.wait();
                    (0..1_000).for_each(|_| counters.count(ReadOutcome::Hit));
                    barrier.wait();
                });
            }
        });
        let mut stats = Stats::default();
        counters.add_to(&mut stats);
        assert_eq!(stats.get_hits, 1_000 * (STRIPES as u64 + 8));
    }

    #[test]
    fn stripe_of_a_thread_that_ended_is_used_again() {
        let counters = ReadCounters::new();
        for _ in 0..10 * STRIPES {
            std::thread::scope(|scope| {
                scope.spawn(|| counters.count(ReadOutcome::Miss));
            });
        }
        let used = counters.0[..STRIPES].iter().filter(|stripe| stripe.misses.load(Relaxed) > 0).count();
        assert!(used > 0 && counters.0[SHARED].misses.load(Relaxed) < 10 * STRIPES as u64);
        let mut stats = Stats::default();
        counters.add_to(&mut stats);
        assert_eq!(stats.get_misses, 10 * STRIPES as u64);
    }
}
