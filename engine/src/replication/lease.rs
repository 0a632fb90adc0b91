//! The right of a strict primary to answer, which its replicas renew (`strict:N`).
//!
//! Lives here: until when this node may answer, what it may show, and how long a promoted node waits. Not here: how stamps
//! travel (see `primary`, `replica`), what a refused read becomes (see `cache::read`).
//!
//! ```text
//!   primary ── Lease { its clock } ──> replica: "I follow you" ── the same ──> primary: so long from that clock on
//! ```
//! A replica that is promoted knows when it last said so. Each lease that counts on it is over [`LEASE_WAIT_MS`] later,
//! whatever became of the answer, for the stamp was older still. All times here are of one clock, this node's own, which
//! goes on while the process or the machine sleeps: whoever wakes finds its lease over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::position::Seq;
use crate::clock::Millis;

/// For how long a primary may answer, from the moment at which it asked for the lease on, in milliseconds: four
/// heartbeats, so that three may be lost.
pub(crate) const LEASE_MS: u64 = 1_000;

/// How long a promoted node waits, in milliseconds: a lease, where the old primary's clock is 5 % slow and this node's 5 %
/// fast (1 053 and 1 106), and the milliseconds that two clocks round down.
pub(crate) const LEASE_WAIT_MS: u64 = 1_120;

/// Needs no renewal.
const FOR_EVER: u64 = u64::MAX;

/// How a strict primary stands to its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseState {
    /// The mode is another one, or this node is no primary.
    None,
    /// It was just promoted, and waits until the one before can't answer any more.
    Waiting,
    /// It answers.
    Held,
    /// It answers without a lease: the one other node of its group has to follow it before it can be promoted.
    Unneeded,
    /// Too few replicas have answered lately: reads are misses, writes are refused.
    Over,
}

impl LeaseState {
    /// Its word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaseState::None => "none",
            LeaseState::Waiting => "waiting",
            LeaseState::Held => "held",
            LeaseState::Unneeded => "unneeded",
            LeaseState::Over => "over",
        }
    }
}

/// 1. What is stored here is of this node's present reign; whoever begins one or ends one holds the roles' lock, and so does
///    whoever renews.
/// 2. `acked` rises as long as a reign lasts: what was acknowledged once stays so.
#[derive(Debug)]
pub(crate) struct Lease {
    strict: AtomicBool,
    /// It answers from this moment on, and before that one.
    from_ms: AtomicU64,
    until_ms: AtomicU64,
    /// All up to here was acknowledged by as many replicas as the mode asks for.
    acked: AtomicU64,
    /// As a replica: when it last granted a lease, or began.
    granted_ms: AtomicU64,
    misses: AtomicU64,
    unacked_misses: AtomicU64,
}

impl Lease {
    pub(crate) fn new(strict: bool, now_ms: Millis) -> Lease {
        Lease {
            strict: AtomicBool::new(strict),
            from_ms: AtomicU64::new(0),
            until_ms: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            // Before this start it may have granted one.
            granted_ms: AtomicU64::new(now_ms),
            misses: AtomicU64::new(0),
            unacked_misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed)
    }

    pub(crate) fn set_strict(&self, strict: bool) {
        self.strict.store(strict, Ordering::Relaxed);
    }

    /// As a replica: grants the primary a lease now.
    pub(crate) fn grant(&self, now_ms: Millis) {
        self.granted_ms.store(now_ms, Ordering::Relaxed);
    }

    /// The moment at which no lease counts any more that this node has granted.
    pub(crate) fn granted_is_over_ms(&self) -> Millis {
        self.granted_ms.load(Ordering::Relaxed) + LEASE_WAIT_MS
    }

    /// A reign begins, or ends: it answers from this moment on, once it has a lease.
    pub(crate) fn begin(&self, from_ms: Millis) {
        self.until_ms.store(0, Ordering::Release);
        self.acked.store(0, Ordering::Release);
        self.from_ms.store(from_ms, Ordering::Release);
    }

    /// What was granted and acknowledged so far counts no more.
    pub(crate) fn begin_anew(&self) {
        self.begin(self.from_ms.load(Ordering::Acquire));
    }

    /// This reign needs no lease for now, and all up to `held` is as good as acknowledged: nobody can be promoted who
    /// does not have it.
    pub(crate) fn do_without(&self, held: Seq) {
        self.acked.store(held, Ordering::Release);
        self.until_ms.store(FOR_EVER, Ordering::Release);
    }

    /// From now on a replica may be level, and promoted: a lease is needed. Called before that replica hears of it.
    pub(crate) fn need_one(&self) {
        // The error is that there was one, or none already.
        let _ = self.until_ms.compare_exchange(FOR_EVER, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// As many replicas as the mode asks for have answered a stamp of `asked_ms` or a later one, and have applied `acked`.
    pub(crate) fn renew(&self, asked_ms: Option<Millis>, acked: Option<Seq>) {
        if let Some(asked_ms) = asked_ms
            && self.until_ms.load(Ordering::Acquire) != FOR_EVER
        {
            self.until_ms.fetch_max(asked_ms + LEASE_MS, Ordering::AcqRel);
        }
        self.acked.fetch_max(acked.unwrap_or(0), Ordering::AcqRel);
    }

    /// Whether this primary may answer now.
    pub(crate) fn is_held(&self, now_ms: Millis) -> bool {
        now_ms >= self.from_ms.load(Ordering::Acquire) && now_ms < self.until_ms.load(Ordering::Acquire)
    }

    /// Whether that which was written at this place may be shown.
    pub(crate) fn has_acked(&self, seq: Seq) -> bool {
        self.acked.load(Ordering::Acquire) >= seq
    }

    /// Counts a read that is a miss for want of a lease.
    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a read that is a miss since nobody waits for the acks of what it saw.
    pub(crate) fn count_unacked_miss(&self) {
        self.unacked_misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn status(&self, reigns: bool, now_ms: Millis) -> LeaseStatus {
        let (from_ms, until_ms) =
            (self.from_ms.load(Ordering::Acquire), self.until_ms.load(Ordering::Acquire));
        let state = match () {
            () if !reigns || !self.is_strict() => LeaseState::None,
            () if now_ms < from_ms => LeaseState::Waiting,
            () if until_ms == FOR_EVER => LeaseState::Unneeded,
            () if now_ms < until_ms => LeaseState::Held,
            () => LeaseState::Over,
        };
        LeaseStatus {
            state,
            remaining_ms: if state == LeaseState::Held { until_ms - now_ms } else { 0 },
            misses: self.misses.load(Ordering::Relaxed),
            unacked_misses: self.unacked_misses.load(Ordering::Relaxed),
        }
    }
}

/// The lease of a strict primary: one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// Whether it answers, else why not.
    pub state: LeaseState,
    /// For how long it answers if no replica says anything more, in milliseconds; 0 unless the lease is held.
    pub remaining_ms: u64,
    /// Reads that were misses for want of a lease, since the start.
    pub misses: u64,
    /// Reads outside of [`Cache::track`](crate::Cache::track) that were misses because what they saw was not acknowledged
    /// yet, since the start.
    pub unacked_misses: u64,
}

impl LeaseStatus {
    /// That of a node that needs none.
    pub(crate) const NONE: LeaseStatus =
        LeaseStatus { state: LeaseState::None, remaining_ms: 0, misses: 0, unacked_misses: 0 };
}

/// The `nth` largest of some numbers, counted from 1: what so many of them have reached.
pub(crate) fn reached_by(nth: u8, numbers: impl Iterator<Item = u64>) -> Option<u64> {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    numbers.get(usize::from(nth).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_its_time_is_and_counts_from_when_it_was_asked_for() {
        let lease = Lease::new(true, 0);
        assert!(!lease.is_held(5_000), "nobody granted one");
        lease.renew(Some(5_000), Some(7));
        assert!(lease.is_held(5_999) && !lease.is_held(6_000));
        lease.renew(Some(4_000), Some(6));
        assert!(lease.is_held(5_999) && lease.has_acked(7), "an older answer takes nothing back");
        lease.begin(5_500);
        assert!(!lease.is_held(5_999) && !lease.has_acked(7), "another reign");
    }

    #[test]
    fn a_promoted_node_waits_longer_than_the_slowest_clock_counts() {
        // Real milliseconds of a lease by a clock 5 % slow, and those in which one 5 % fast counts the wait.
        assert!(f64::from(LEASE_WAIT_MS as u32 - 2) / 1.05 >= f64::from(LEASE_MS as u32) / 0.95);
        let lease = Lease::new(true, 100);
        lease.grant(3_000);
        lease.begin(lease.granted_is_over_ms());
        lease.renew(Some(3_900), None);
        assert!(!lease.is_held(3_000 + LEASE_WAIT_MS - 1) && lease.is_held(3_000 + LEASE_WAIT_MS));
    }

    #[test]
    fn who_does_without_a_lease_needs_one_as_soon_as_a_replica_may_be_promoted() {
        let lease = Lease::new(true, 0);
        lease.begin(1_000);
        lease.do_without(9);
        assert!(!lease.is_held(999) && lease.is_held(1_000_000) && lease.has_acked(9));
        lease.renew(Some(1_500), None);
        assert!(lease.is_held(1_000_000), "a replica that is being copied changes nothing");
        lease.need_one();
        assert!(!lease.is_held(1_000));
        lease.renew(Some(2_000), None);
        lease.need_one();
        assert!(lease.is_held(2_500), "needing one does not end it");
    }

    #[test]
    fn so_many_have_reached_the_nth_largest() {
        let reached = |nth| reached_by(nth, [3, 9, 5].into_iter());
        assert_eq!(
            [reached(1), reached(2), reached(3), reached(4), reached(0)],
            [Some(9), Some(5), Some(3), None, None]
        );
    }
}
