//! What reads count, striped over threads, so that two threads' reads do not write one cache line.
//!
//! Lives here: the stripes, and the thread's place in them. Not here: what writes count (see `ShardCell`).

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::stats::Stats;

/// Stripes; threads beyond so many share.
const STRIPES: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// What a thread keeps of its own.
struct Here {
    /// Whether it is inside a closure that reads an item in place.
    reading: Cell<bool>,
    /// Its stripe + 1; 0 before its first read.
    stripe: Cell<usize>,
}

thread_local! {
    static HERE: Here = const { Here { reading: Cell::new(false), stripe: Cell::new(0) } };
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
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    Hit,
    Miss,
    Expired,
    Flushed,
}

pub(super) struct ReadCounters(Box<[Stripe]>);

impl ReadCounters {
    pub(super) fn new() -> ReadCounters {
        ReadCounters((0..STRIPES).map(|_| Stripe::default()).collect())
    }

    #[inline]
    pub(super) fn count(&self, outcome: ReadOutcome) {
        let stripe = HERE.with(|here| match here.stripe.get() {
            0 => join(here),
            stripe => stripe,
        });
        let stripe = &self.0[(stripe - 1) % STRIPES];
        match outcome {
            ReadOutcome::Hit => &stripe.hits,
            ReadOutcome::Miss => &stripe.misses,
            ReadOutcome::Expired => &stripe.expired,
            ReadOutcome::Flushed => &stripe.flushed,
        }
        .fetch_add(1, Relaxed);
    }

    pub(super) fn add_to(&self, stats: &mut Stats) {
        for stripe in &self.0 {
            let [hits, misses, expired, flushed] =
                [&stripe.hits, &stripe.misses, &stripe.expired, &stripe.flushed]
                    .map(|count| count.load(Relaxed));
            stats.get_hits += hits;
            stats.get_misses += misses + expired + flushed;
            stats.get_expired += expired;
            stats.get_flushed += flushed;
        }
    }

    pub(super) fn reset(&self) {
        for stripe in &self.0 {
            for count in [&stripe.hits, &stripe.misses, &stripe.expired, &stripe.flushed] {
                count.store(0, Relaxed);
            }
        }
    }
}

#[cold]
fn join(here: &Here) -> usize {
    let stripe = THREADS.fetch_add(1, Relaxed) % STRIPES + 1;
    here.stripe.set(stripe);
    stripe
}
