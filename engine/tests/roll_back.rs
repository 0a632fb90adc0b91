//! An old primary that comes back ahead of the new one drops what it wrote alone, and is not copied anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Cause, Config, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator, Role};

/// Keys that both have when the primary is cut off, and those that it writes alone.
const COMMON: usize = 500;
const EXTRA: usize = 1_000;

/// A primary `a` and its spare `b`, in one thread.
struct Pair {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    old: Cache,
    new: Cache,
    replicators: [Replicator; 2],
    /// Items of `a` that a listener was told are removed.
    removed: Arc<AtomicU64>,
}

impl Pair {
    fn new(log_bytes_max: usize) -> Pair {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        let removed = Arc::new(AtomicU64::new(0));
        let told = removed.clone();
        let node = |replication: ReplicationConfig| {
            let replication = replication.replica_reads(true).log_bytes_max(log_bytes_max);
            Config::new().memory_bytes_max(8 << 20).clock(clock.clone()).replication(replication)
        };
        let old = node(ReplicationConfig::primary().peer("b")).on_departure(move |event| {
            told.fetch_add(u64::from(event.cause == Cause::Removed), Ordering::Relaxed);
        });
        let old = Cache::new(old).unwrap();
        let new = Cache::new(node(ReplicationConfig::replica_of("a"))).unwrap();
        let replicators = [(&old, "a"), (&new, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut pair = Pair { clock, network, old, new, replicators, removed };
        // It asks its peer before it begins the group.
        pair.run_ms(500, |_| ());
        for number in 0..COMMON {
            pair.old.set(format!("common{number}"), [1; 50], Expiry::Never).unwrap();
        }
        pair.run_ms(2_000, |_| ());
        assert_eq!(pair.old.status().seq, pair.new.status().seq, "it is level");
        pair
    }

    fn run_ms(&mut self, ms: u64, look: impl Fn(&Pair)) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for index in 0..2 {
                self.replicators[index].poll(&mut cx);
                look(self);
            }
            self.network.deliver_all();
        }
    }

    fn set_apart(&self, apart: bool) {
        self.network.set_apart("a", "b", apart);
        self.network.cut("a", "b");
    }

    /// The primary is cut off and goes on, the spare is promoted and goes on, then they see each other again.
    fn part_and_meet(&mut self, alone: impl Fn(&Cache)) {
        self.set_apart(true);
        for number in 0..EXTRA {
            self.old.set(format!("extra{number}"), [2; 50], Expiry::Never).unwrap();
        }
        alone(&self.old);
        self.new.promote(false).unwrap();
        for number in 0..100 {
            self.new.set(format!("new{number}"), [3; 50], Expiry::Never).unwrap();
        }
        self.run_ms(3_000, |_| ());
        assert_eq!(self.old.status().role, Role::Primary, "nobody could tell it");
        self.set_apart(false);
        self.run_ms(10_000, |pair| {
            let old = &pair.old;
            if old.status().role == Role::Replica && old.status().ready {
                assert!(old.get("extra0").unwrap().is_none(), "a dropped item was read");
                assert!(old.get(format!("extra{}", EXTRA - 1)).unwrap().is_none());
            }
        });
        let status = self.old.status();
        assert_eq!((status.role, status.link), (Role::Replica, LinkState::Streaming), "{status:?}");
        assert_eq!(status.promotable, Ok(()));
        assert_eq!((status.seq, status.term), (self.new.status().seq, self.new.status().term));
    }

    fn assert_equal(&self) {
        let (old, new) = (self.old.inspect(), self.new.inspect());
        assert_eq!(old.items.len(), new.items.len());
        assert!(old.items == new.items && old.lineage == new.lineage);
        self.old.check_invariants();
    }
}

#[test]
fn what_it_wrote_alone_is_dropped_and_all_else_stays_without_a_full_copy() {
    let mut pair = Pair::new(1 << 20);
    pair.part_and_meet(|old| {
        for number in 0..50 {
            old.set(format!("common{number}"), "other", Expiry::Never).unwrap();
        }
        for number in 50..60 {
            assert!(old.delete(format!("common{number}")).unwrap());
        }
        for number in 60..70 {
            assert!(old.touch(format!("common{number}"), Duration::from_secs(1_000)).unwrap());
        }
    });
    // The spare's copy at the beginning is the only one there ever was.
    let (old, new) = (pair.old.status(), pair.new.status());
    assert_eq!((old.installs, old.roll_backs, new.installs, new.roll_backs), (1, 1, 1, 1));
    assert_eq!(old.rolled_back_keys, (EXTRA + 50 + 10) as u64);
    assert_eq!(pair.removed.load(Ordering::Relaxed), old.rolled_back_keys + 10, "and its own ten deletes");
    // Those that both had, and that were dropped with its changes, were asked for again.
    pair.assert_equal();
    assert_eq!(pair.new.inspect().items.len(), COMMON + 100);
}

#[test]
fn a_flush_among_them_means_a_full_copy() {
    let flushes: [fn(&Cache); 3] = [
        |old| old.flush().unwrap(),
        |old| old.invalidate_prefix("common1").unwrap(),
        |old| old.flush_at(Expiry::After(Duration::from_secs(1_000))).unwrap(),
    ];
    for flush in flushes {
        let mut pair = Pair::new(1 << 20);
        pair.part_and_meet(flush);
        let status = pair.old.status();
        assert_eq!((status.installs, status.roll_backs, status.rolled_back_keys), (2, 0, 0));
        pair.assert_equal();
    }
}

#[test]
fn a_log_that_does_not_reach_back_so_far_means_a_full_copy() {
    let mut pair = Pair::new(32 << 10);
    // The spare falls out of the log by the first writes, and is copied a second time.
    assert_eq!(pair.old.status().installs, 2);
    pair.part_and_meet(|_| ());
    assert_eq!((pair.old.status().installs, pair.old.status().roll_backs), (3, 0));
    pair.assert_equal();
}

#[test]
fn one_promoted_before_it_has_caught_up_goes_on_from_the_common_point() {
    let mut pair = Pair::new(1 << 20);
    pair.set_apart(true);
    let common = pair.old.status().seq;
    for number in 0..EXTRA {
        pair.old.set(format!("extra{number}"), [2; 50], Expiry::Never).unwrap();
    }
    pair.new.promote(false).unwrap();
    pair.new.set("new", "3", Expiry::Never).unwrap();
    pair.set_apart(false);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2_000 {
        pair.clock.advance_ms(5);
        for index in 0..2 {
            pair.replicators[index].poll(&mut cx);
        }
        // One frame at a time: the answer rolls back, and nothing that follows it has come.
        let busy = pair.network.in_flight();
        if pair.old.status().roll_backs == 1 {
            break;
        }
        if let Some((link, from, ..)) = busy.first() {
            pair.network.deliver(*link, from);
        }
    }
    let status = pair.old.status();
    assert_eq!((status.roll_backs, status.rolled_back_keys), (1, EXTRA as u64));
    assert_eq!(status.seq, common);
    assert!(status.promotable.is_err(), "it is not level");
    let term = pair.old.promote(true).unwrap();
    assert!(term > pair.new.status().term);
    assert_eq!(pair.old.inspect().items.len(), COMMON);
    let lineage = pair.old.inspect().lineage;
    assert_eq!(lineage[lineage.len() - 2].3, common, "its branch follows the common point");
    assert!(pair.old.set("later", "4", Expiry::Never).is_ok());
    pair.run_ms(10_000, |_| ());
    assert_eq!(pair.new.status().role, Role::Replica);
    assert_eq!(pair.new.status().roll_backs, 2, "once as the primary, once itself");
    pair.assert_equal();
    assert!(pair.new.get("new").unwrap().is_none());
}
