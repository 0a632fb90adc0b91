//! Appointments for a flush, across a group.
#![cfg(feature = "serde")]

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, ManualClock, ReplicationConfig, Replicator};

#[test]
fn replica_sees_the_flush_of_a_primary_that_nobody_asks() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let cache = |replication| {
        let config = Config::new().memory_bytes_max(4 << 20).clock(clock.clone());
        Cache::new(config.replication(replication)).unwrap()
    };
    let network = MemoryNetwork::immediate();
    let primary = cache(ReplicationConfig::primary());
    let replica = cache(ReplicationConfig::replica_of("a").replica_reads(true));
    let mut nodes = [
        Replicator::new(&primary, network.transport("a")).unwrap(),
        Replicator::new(&replica, network.transport("b")).unwrap(),
    ];
    let mut run = |rounds| {
        for _ in 0..rounds {
            clock.advance_ms(1);
            for node in &mut nodes {
                node.poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    };
    primary.set("k", "v", Expiry::Never).unwrap();
    primary.flush_at(Expiry::After(Duration::from_secs(1))).unwrap();
    run(100);
    assert!(replica.get("k").unwrap().is_some());
    run(1_000);
    assert_eq!(replica.get("k").unwrap(), None, "its moment has come");
}
