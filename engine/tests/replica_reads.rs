//! Reads on a replica: never older than a bound, nor than what was waited for.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{
    Applied, Cache, Config, Expiry, ManualClock, ReadError, ReplicationConfig, Replicator, Version,
};

const BOUND_MS: u64 = 700;

/// A primary `a` and a replica `b` that answers reads, in one thread.
struct Pair {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    primary: Cache,
    replica: Cache,
    replicators: [Replicator; 2],
}

impl Pair {
    fn new() -> Pair {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        let node = |node: ReplicationConfig| {
            let node = node.replica_reads(true).replica_staleness_max_ms(BOUND_MS);
            Cache::new(Config::new().memory_bytes_max(8 << 20).clock(clock.clone()).replication(node))
                .unwrap()
        };
        let primary = node(ReplicationConfig::primary().peer("b"));
        let replica = node(ReplicationConfig::replica_of("a"));
        let replicators = [(&primary, "a"), (&replica, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut pair = Pair { clock, network, primary, replica, replicators };
        pair.run_ms(2_000, |_| ());
        pair
    }

    fn run_ms(&mut self, ms: u64, look: impl Fn(&Pair)) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            for replicator in &mut self.replicators {
                replicator.poll(&mut cx);
            }
            self.network.deliver_all();
            look(self);
        }
    }

    fn set_apart(&self, apart: bool) {
        self.network.set_apart("a", "b", apart);
    }
}

fn is_stale(read: Result<impl Sized, ReadError>) -> bool {
    matches!(read, Err(ReadError::Stale { behind_ms, .. }) if behind_ms > BOUND_MS)
}

#[test]
fn a_replica_that_is_cut_off_answers_until_the_bound_and_again_when_it_has_caught_up() {
    let mut pair = Pair::new();
    pair.primary.set("k", "1", Expiry::Never).unwrap();
    pair.run_ms(1_000, |pair| assert!(pair.replica.get("k").is_ok(), "it is never stale while it is told"));
    pair.set_apart(true);
    pair.primary.set("k", "2", Expiry::Never).unwrap();
    pair.run_ms(BOUND_MS - 300, |pair| assert_eq!(&pair.replica.get("k").unwrap().unwrap().value[..], b"1"));
    pair.run_ms(400, |_| ());
    assert!(is_stale(pair.replica.get("k")) && is_stale(pair.replica.get_many(&["k"]).map(|_| ())));
    assert!(is_stale(pair.replica.iter().next().unwrap()));
    assert!(pair.replica.set("k", "3", Expiry::Never).is_err());
    // What can't be shown is loaded, and nobody waits for ever.
    let loaded = pair.replica.get_or_load("k", Duration::from_secs(9), || Ok::<_, std::io::Error>("loaded"));
    assert_eq!(loaded.unwrap(), "loaded");
    assert_eq!(&pair.primary.get("k").unwrap().unwrap().value[..], b"2", "the bound is a replica's");
    pair.set_apart(false);
    pair.run_ms(6_000, |pair| {
        if let Ok(Some(item)) = pair.replica.get("k") {
            assert_eq!(&item.value[..], b"2", "it answers, and has not caught up");
        }
    });
    assert_eq!(&pair.replica.get("k").unwrap().unwrap().value[..], b"2");
    pair.set_apart(true);
    pair.run_ms(5_000, |_| ());
    assert!(is_stale(pair.replica.get("k")));
    pair.replica.promote(true).unwrap();
    assert!(pair.replica.get("k").is_ok(), "a primary is what others are behind");
}

#[test]
fn a_version_is_waited_for_until_it_is_there_or_its_branch_has_ended() {
    let mut pair = Pair::new();
    let version = pair.primary.set("k", "1", Expiry::Never).unwrap();
    assert_eq!(
        (pair.primary.applied(version), pair.replica.applied(version)),
        (Applied::Reached, Applied::Behind)
    );
    assert_eq!(pair.replica.wait_applied(version, Duration::from_millis(5)), Applied::Behind);
    let replica = pair.replica.clone();
    let waiting = thread::spawn(move || {
        let found = replica.wait_applied(version, Duration::from_secs(60));
        (found, replica.get("k").unwrap().map(|item| item.value))
    });
    pair.run_ms(500, |_| ());
    assert_eq!(waiting.join().unwrap(), (Applied::Reached, Some("1".into())));
    // Written alone, and lost.
    pair.set_apart(true);
    let (_, lost) = pair.primary.track(|| pair.primary.delete("k"));
    let lost = lost.unwrap().version();
    assert_eq!(pair.replica.applied(lost), Applied::Behind);
    let replica = pair.replica.clone();
    let waiting = thread::spawn(move || replica.wait_applied(lost, Duration::from_secs(60)));
    pair.replica.promote(false).unwrap();
    pair.run_ms(100, |_| ());
    assert_eq!(waiting.join().unwrap(), Applied::Diverged);
    assert_eq!(pair.replica.applied(version), Applied::Reached);
    pair.network.cut("a", "b");
    pair.set_apart(false);
    pair.run_ms(5_000, |_| ());
    assert_eq!(pair.primary.applied(lost), Applied::Diverged, "it has rolled back");
    let mut future = std::pin::pin!(pair.primary.until_applied(Version(u64::MAX)));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn a_cache_on_its_own_has_what_it_wrote() {
    let cache = Cache::new(Config::new()).unwrap();
    let version = cache.set("k", "v", Expiry::Never).unwrap();
    assert_eq!(cache.applied(version), Applied::Reached);
    // Shards take versions in blocks.
    let later = Version(version.0 + 1_000);
    assert_eq!(cache.wait_applied(later, Duration::from_secs(60)), Applied::Behind);
}
