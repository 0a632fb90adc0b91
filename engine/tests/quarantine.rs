//! A replica whose full copies fail again and again waits longer and longer, says so, and is not promoted; it is over when one
//! succeeds, or when an operator says whom to follow.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator};

const LOG_BYTES: usize = 256 << 10;

struct Pair {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    primary: Cache,
    replica: Cache,
    replicators: [Replicator; 2],
    /// Whether each copy is cut off in the middle.
    cuts_copies: bool,
}

impl Pair {
    fn new() -> Pair {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        let node = |replication: ReplicationConfig| {
            let config = Config::new().memory_bytes_max(16 << 20).clock(clock.clone());
            Cache::new(config.replication(replication)).unwrap()
        };
        let primary = node(ReplicationConfig::primary().log_bytes_max(LOG_BYTES));
        let replica = node(ReplicationConfig::replica_of("a").random_seed(3));
        for number in 0..2_000 {
            primary.set(format!("key{number}"), [1; 500], Expiry::Never).unwrap();
        }
        let replicators = [(&primary, "a"), (&replica, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        Pair { clock, network, primary, replica, replicators, cuts_copies: true }
    }

    /// Writes more at once than the log holds, whenever the replica follows; how often that was.
    fn run_ms_too_fast(&mut self, ms: u64) -> u64 {
        let mut bursts = 0;
        for _ in 0..ms / 10 {
            self.run_ms(10);
            if self.replica.status().link == LinkState::Streaming {
                bursts += 1;
                self.burst();
            }
        }
        bursts
    }

    fn burst(&self) {
        for number in 0..2 * LOG_BYTES / 500 {
            self.primary.set(format!("key{number}"), [2; 500], Expiry::Never).unwrap();
        }
    }

    fn run_ms(&mut self, ms: u64) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 10 {
            self.clock.advance_ms(10);
            for replicator in &mut self.replicators {
                replicator.poll(&mut cx);
            }
            // A frame at a time, so that a copy takes several turns.
            for (link, from, _, _) in self.network.in_flight() {
                self.network.deliver(link, &from);
            }
            if self.cuts_copies && self.replica.status().link == LinkState::Installing {
                self.network.cut("a", "b");
            }
        }
    }

    fn copies_begun(&self) -> u64 {
        self.primary.status().installs
    }
}

#[test]
fn copies_that_fail_three_times_are_put_off_longer_and_longer_until_one_succeeds() {
    let mut pair = Pair::new();
    pair.run_ms(1_000);
    let status = pair.replica.status();
    assert!(status.quarantined && status.copy_failures >= 3, "{status:?}");
    assert!(status.promotable.is_err_and(|why| why.starts_with("quarantined")), "{status:?}");
    assert!(status.last_error.is_some(), "it says why");

    let mut begun = Vec::new();
    for _ in 0..4 {
        let before = pair.copies_begun();
        pair.run_ms(60_000);
        begun.push(pair.copies_begun() - before);
    }
    assert!(begun[0] >= 3, "pauses begin small: {begun:?}");
    assert!(begun[0] <= 8 && begun[3] <= 2, "no storm, and ever fewer: {begun:?}");
    assert!((45_000..=75_000).contains(&pair.replica.status().copy_pause_ms));

    pair.cuts_copies = false;
    pair.run_ms(90_000);
    let status = pair.replica.status();
    assert!(!status.quarantined && status.copy_failures == 0 && status.copy_pause_ms == 0, "{status:?}");
    assert_eq!((status.link, status.promotable), (LinkState::Streaming, Ok(())));
    assert_eq!(pair.replica.stats().items, 2_000);
}

#[test]
fn an_operator_ends_it_at_once() {
    let mut pair = Pair::new();
    pair.run_ms(100_000);
    assert!(pair.replica.status().copy_pause_ms > 20_000, "the next try is far");
    pair.cuts_copies = false;
    pair.replica.follow("a", false).unwrap();
    pair.run_ms(1_000);
    let status = pair.replica.status();
    assert_eq!((status.link, status.quarantined, status.copy_failures), (LinkState::Streaming, false, 0));
}

#[test]
fn a_cut_or_two_are_no_reason_to_wait() {
    let mut pair = Pair::new();
    while pair.replica.status().copy_failures < 2 {
        pair.run_ms(10);
    }
    pair.cuts_copies = false;
    pair.run_ms(1_000);
    assert_eq!(pair.replica.status().link, LinkState::Streaming);
}

/// It holds everything, and its primary nothing: that copy is refused at growing pauses too, but whoever watches for a node
/// to promote finds it.
#[test]
fn a_replica_that_refuses_an_empty_primary_stays_promotable() {
    let mut pair = Pair::new();
    pair.cuts_copies = false;
    pair.run_ms(2_000);
    pair.network.remove("a");
    let config = Config::new().memory_bytes_max(16 << 20).clock(pair.clock.clone());
    pair.primary = Cache::new(config.replication(ReplicationConfig::primary())).unwrap();
    pair.replicators[0] = Replicator::new(&pair.primary, pair.network.transport("a")).unwrap();
    pair.run_ms(20_000);
    let status = pair.replica.status();
    assert_eq!((status.quarantined, status.promotable), (false, Ok(())), "{status:?}");
    assert_eq!(pair.replica.stats().items, 2_000);
}

/// Each copy is complete, and the replica falls out of the log at once.
#[test]
fn a_replica_that_cannot_keep_up_with_the_log_is_copied_ever_more_rarely_until_it_does() {
    let mut pair = Pair::new();
    pair.cuts_copies = false;
    assert!(pair.run_ms_too_fast(5_000) >= 3, "copied at once as long as that may help");
    let status = pair.replica.status();
    assert!(status.quarantined && status.copy_failures >= 3 && status.copy_pause_ms > 0, "{status:?}");
    assert!(status.last_error.is_some() && status.promotable.is_err(), "{status:?}");
    let copies: Vec<_> = (0..4).map(|_| pair.run_ms_too_fast(60_000)).collect();
    assert!(copies[0] >= 2, "pauses begin small: {copies:?}");
    assert!(copies[0] <= 8 && copies[3] <= 2, "no storm, and ever fewer: {copies:?}");

    // The writes slow down: the next copy lasts.
    pair.run_ms(90_000);
    let status = pair.replica.status();
    assert_eq!((status.quarantined, status.copy_failures, status.copy_pause_ms), (false, 0, 0), "{status:?}");
    assert_eq!((status.link, pair.replica.stats().items), (LinkState::Streaming, 2_000));
    // What was before it does not count, once it has lasted.
    pair.run_ms(60_000);
    pair.burst();
    pair.run_ms(2_000);
    assert_eq!(pair.replica.status().link, LinkState::Streaming, "copied at once");
}
