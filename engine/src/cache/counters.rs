//! What reads count, striped over threads, so that two threads' reads do not write one cache line.
//!
//! Lives here: the stripes, and the thread's place in them. Not here: what writes count (see `ShardCell`).

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::stats::Stats;

/// Stripes that belong to one thread each, while it lives.
const STRIPES: usize = 64;
/// Stripes that all threads beyond those share, each thread always one of them. So they pay for a locked instruction, and
/// seldom wait for each other; and a cache has 16 KiB of stripes, however many threads there are.
const SHARED_STRIPES: usize = 64;
/// The first of those that are shared.
const SHARED: usize = STRIPES;
/// Before the thread's first read.
const NONE: usize = STRIPES + SHARED_STRIPES;
/// While the thread reads an item in place.
const READING: usize = NONE + 1;

/// One bit for each stripe that a living thread has, for all caches together.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Threads that share a stripe, so far: each takes the next one.
static SHARERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The thread's stripe: its own, or a shared one, or `NONE`; or `READING`.
    static HERE: Cell<usize> = const { Cell::new(NONE) };
    /// Gives the thread's stripe back when the thread ends.
    static RETURN: Return = const { Return };
}

struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let stripe = HERE.replace(SHARED);
        if stripe < STRIPES {
            // Release: who takes the stripe next sees what this thread has counted.
            TAKEN.fetch_and(!(1 << stripe), Release);
        }
    }
}

#[cold]
fn join() -> usize {
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
        Err(_) => SHARED + SHARERS.fetch_add(1, Relaxed) % SHARED_STRIPES,
    };
    set_here(stripe);
    stripe
}

#[inline]
pub(crate) fn is_inside_read() -> bool {
    HERE.get() == READING
}

/// Where this thread counts: a stripe of its own, or a shared one.
#[derive(Clone, Copy)]
pub(super) struct HereStripe<const IS_OWN: bool>(usize);

/// Inlined, as `LocalKey::set` is not always: 14 instructions each.
#[inline(always)]
fn set_here(here: usize) {
    HERE.with(|place| place.set(here));
}

impl HereStripe<true> {
    /// `None` inside a read, before the thread's first one, and where it shares a stripe.
    #[inline]
    pub(super) fn own() -> Option<HereStripe<true>> {
        let here = HERE.get();
        (here < STRIPES).then_some(HereStripe(here))
    }
}

impl HereStripe<false> {
    /// `None` inside a read, before the thread's first one, and where it has a stripe of its own.
    pub(super) fn shared() -> Option<HereStripe<false>> {
        let here = HERE.get();
        (SHARED..NONE).contains(&here).then_some(HereStripe(here))
    }
}

/// Says that the thread is inside a read for as long as a reader runs, a panic in it included.
pub(super) struct ReadingHere {
    before: usize,
}

impl ReadingHere {
    #[inline]
    pub(super) fn enter() -> ReadingHere {
        ReadingHere { before: HERE.replace(READING) }
    }

    /// On a thread with this stripe.
    #[inline]
    pub(super) fn enter_from<const IS_OWN: bool>(stripe: HereStripe<IS_OWN>) -> ReadingHere {
        set_here(READING);
        ReadingHere { before: stripe.0 }
    }
}

impl Drop for ReadingHere {
    #[inline]
    fn drop(&mut self) {
        set_here(self.before);
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
    #[inline]
    fn count(&self, outcome: ReadOutcome) -> &AtomicU64 {
        match outcome {
            ReadOutcome::Hit => &self.hits,
            ReadOutcome::Miss => &self.misses,
            ReadOutcome::Expired => &self.expired,
            ReadOutcome::Flushed => &self.flushed,
            ReadOutcome::Undecodable => &self.undecodable,
        }
    }

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

pub(super) struct ReadCounters(Box<[Stripe; STRIPES + SHARED_STRIPES]>);

impl ReadCounters {
    pub(super) fn new() -> ReadCounters {
        ReadCounters(Box::new(std::array::from_fn(|_| Stripe::default())))
    }

    #[inline(never)]
    pub(super) fn count(&self, outcome: ReadOutcome) {
        let stripe = match HERE.get() {
            READING => SHARED,
            NONE => join(),
            stripe => stripe,
        };
        self.0[stripe].count(outcome).fetch_add(1, Relaxed);
    }

    #[inline]
    pub(super) fn count_at<const IS_OWN: bool>(&self, stripe: HereStripe<IS_OWN>, outcome: ReadOutcome) {
        let count = self.0[stripe.0].count(outcome);
        if !IS_OWN {
            count.fetch_add(1, Relaxed);
            return;
        }
        // Nobody else adds to this stripe, so no locked instruction is needed. (A reset at this very moment may
        // be undone for this count.)
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        for stripe in self.0.iter() {
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
        for stripe in self.0.iter() {
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
    fn threads_beyond_the_stripes_share_more_than_one_of_them() {
        let counters = ReadCounters::new();
        let threads = STRIPES + 16;
        let barrier = std::sync::Barrier::new(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    counters.count(ReadOutcome::Miss);
                    barrier.wait();
                    assert_ne!(HereStripe::own().is_some(), HereStripe::shared().is_some());
                    if let Some(stripe) = HereStripe::shared() {
                        counters.count_at(stripe, ReadOutcome::Hit);
                    }
                });
            }
        });
        let sharers = counters.0.iter().filter(|stripe| stripe.hits.load(Relaxed) > 0).count();
        // Other tests' threads take stripes meanwhile, so two of these may have the same one.
        assert!(sharers > 1, "{sharers}");
        let mut stats = Stats::default();
        counters.add_to(&mut stats);
        assert!(stats.get_hits >= 16 && stats.get_misses == threads as u64);
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
