//! `/metrics`: gauges and counters in Prometheus's text format.

mod labelled;

use std::fmt::Write;

use hotspare::{Cache, ReplicaStatus, Role};

use crate::server::CountersSnapshot;

/// All metrics of a node.
pub(crate) fn write(cache: &Cache, server: &CountersSnapshot) -> String {
    let stats = cache.stats();
    let status = cache.status();
    let worst = |lag: fn(&hotspare::ReplicaStatus) -> u64| status.replicas.iter().map(lag).max().unwrap_or(0);
    let warnings = status.warnings.iter().filter(|warning| !warning.is_past()).count() as u64;
    let rows: [(&str, &str, &str, u64); 33] = [
        ("items", "gauge", "Items held.", stats.items),
        ("item_bytes", "gauge", "Bytes of items: header, key and value.", stats.item_bytes),
        ("memory_bytes", "gauge", "Bytes held for items and index.", stats.memory_bytes),
        ("memory_bytes_max", "gauge", "The limit of memory_bytes.", stats.memory_bytes_max),
        ("get_hits_total", "counter", "Reads that found an item.", stats.get_hits),
        ("get_misses_total", "counter", "Reads that found none.", stats.get_misses),
        ("stores_total", "counter", "Stores that succeeded.", stats.stores),
        ("evictions_total", "counter", "Live items that left for want of memory.", stats.evictions),
        ("connections", "gauge", "Client connections open.", server.curr_connections),
        ("connections_rejected_total", "counter", "Connections above -c.", server.rejected_connections),
        ("connections_idle_total", "counter", "Connections closed for being idle.", server.idle_kicks),
        (
            "connections_slow_total",
            "counter",
            "Connections closed for a request that did not come.",
            server.slow_request_kicks,
        ),
        ("slow_requests_total", "counter", "Requests above --slow-log-ms.", server.slow_requests),
        ("accepting_pauses_total", "counter", "Pauses of accepting.", server.listen_disabled_num),
        ("is_primary", "gauge", "1 on a primary.", u64::from(status.role == Role::Primary)),
        ("is_promotable", "gauge", "1 if the node may be promoted.", u64::from(status.promotable.is_ok())),
        (
            "quarantined",
            "gauge",
            "1 while full copies to this node fail and are put off.",
            status.quarantined.into(),
        ),
        ("copy_failures", "gauge", "Full copies failed one after the other.", status.copy_failures.into()),
        ("warnings", "gauge", "Things to look at now: /status names them.", warnings),
        ("term", "gauge", "The newest term seen.", u64::from(status.term)),
        ("seq", "gauge", "The last mutation held.", status.seq),
        ("replicas", "gauge", "Replicas attached.", status.replicas.len() as u64),
        ("ack_replicas", "gauge", "Replicas that a write waits for.", status.ack_mode.replicas().into()),
        ("level_replicas", "gauge", "Replicas that a write may count on.", status.level_replicas.into()),
        ("replica_lag_seqs", "gauge", "Unacknowledged mutations, worst replica.", worst(|one| one.lag_seqs)),
        ("replica_lag_bytes", "gauge", "Unacknowledged bytes, worst replica.", worst(|one| one.lag_bytes)),
        ("replica_lag_ms", "gauge", "Milliseconds behind, worst replica.", worst(|replica| replica.lag_ms)),
        ("log_bytes", "gauge", "Bytes of the replication log.", status.log_bytes),
        ("lease_remaining_ms", "gauge", "How long a strict primary may answer.", status.lease.remaining_ms),
        ("loads_lent_total", "counter", "Keys that one node was to load for all.", status.loads_lent),
        ("loads_taken_total", "counter", "What replicas had loaded and was stored.", status.loads_taken),
        ("loads_refused_total", "counter", "What replicas had loaded too late.", status.loads_refused),
        ("lease_misses_total", "counter", "Reads that missed for want of a lease.", status.lease.misses),
    ];
    let mut out = labelled::text(&stats, &status, server);
    for (name, kind, help, value) in rows {
        // Writing to a string can't fail.
        let _ = write!(
            out,
            "# HELP hotspare_{name} {help}\n# TYPE hotspare_{name} {kind}\nhotspare_{name} {value}\n"
        );
    }
    for (name, help, value) in RISKS {
        if !status.replicas.is_empty() {
            let _ = write!(out, "# HELP hotspare_{name} {help}\n# TYPE hotspare_{name} gauge\n");
        }
        for replica in &status.replicas {
            let label = format!("{:032x}", replica.node);
            let _ = writeln!(out, "hotspare_{name}{{node=\"{label}\"}} {}", value(replica));
        }
    }
    out
}

/// A gauge's name, its help, and what it says of a replica.
type Risk = (&'static str, &'static str, fn(&ReplicaStatus) -> u64);

/// What each replica lacks: what is lost if the primary dies now and that one takes over. A node's identity is the label:
/// an address may hold what another node likes.
const RISKS: [Risk; 3] = [
    ("unacked_writes", "Writes that this replica has not acknowledged.", |replica| replica.lag_seqs),
    ("unacked_bytes", "Bytes of the log that it has not acknowledged.", |replica| replica.lag_bytes),
    ("unacked_ms", "Age of the oldest of them in milliseconds.", |replica| replica.lag_ms),
];

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use hotspare::transport::MemoryNetwork;
    use hotspare::{AckMode, Config, Expiry, ReplicationConfig, Replicator};

    use super::*;

    #[test]
    fn memory_of_values_whose_items_have_gone_is_told_apart() {
        let cache = Cache::new(Config::new().memory_bytes_max(16 << 20)).unwrap();
        cache.set("film", vec![b'x'; 900_000], Expiry::Never).unwrap();
        let pinned = cache.read("film", |item| item.value.pin()).unwrap().flatten().unwrap();
        let kind = |kind: &str| -> u64 {
            let text = write(&cache, &CountersSnapshot::default());
            let series = format!("hotspare_memory_kind_bytes{{kind=\"{kind}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
        };
        let before = kind("items");
        assert_eq!(kind("pinned"), 0, "it is an item's still");
        cache.delete("film").unwrap();
        assert!(kind("pinned") > 800_000 && kind("items") < before);
        assert_eq!(kind("pinned") + kind("items") + kind("index"), cache.stats().memory_bytes);
        drop(pinned);
        assert_eq!(kind("pinned"), 0);
    }

    #[test]
    fn each_replica_has_what_it_lacks_told() {
        let network = MemoryNetwork::immediate();
        let cache = |config| Cache::new(Config::new().replication(config)).unwrap();
        let primary = cache(ReplicationConfig::primary());
        let spare = cache(ReplicationConfig::replica_of("a").node(7));
        let mut first = Replicator::new(&primary, network.transport("a")).unwrap();
        let mut second = Replicator::new(&spare, network.transport("b")).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..50 {
            first.poll(&mut cx);
            second.poll(&mut cx);
        }
        primary.set("k", "v", Expiry::Never).unwrap();
        first.poll(&mut cx);
        let text = write(&primary, &CountersSnapshot::default());
        assert!(text.contains("hotspare_warnings 0\n"), "{text}");
        assert!(
            text.contains("hotspare_loads_lent_total 0\n") && !text.contains("hotspare_staleness_ms"),
            "{text}"
        );
        assert!(write(&spare, &CountersSnapshot::default()).contains("\nhotspare_staleness_ms "), "{text}");
        drop(second);
        network.remove("b");
        first.poll(&mut cx);
        primary.set_ack_mode(AckMode::of(1)).unwrap();
        let text_without = write(&primary, &CountersSnapshot::default());
        assert!(text_without.contains("hotspare_warnings 1\n"), "{:?}", primary.status().warnings);
        let line = format!("hotspare_unacked_writes{{node=\"{:032x}\"}} 1\n", 7);
        assert!(text.contains(&line) && text.contains("hotspare_unacked_ms{"), "{text}");
    }
}
