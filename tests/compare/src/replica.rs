//! Hotspare with a replica in the same thread, on links of memory and a clock that stands still: what both nodes do for a set,
//! system calls apart, the same each time.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator};

use crate::caches::Compared;

/// How many sets come together: those of 200 us at 100 000 a second.
const SETS_A_TURN: u32 = 20;

/// Bytes that an entry of 16 + 100 bytes takes, with a margin, so that none is evicted.
const BYTES_PER_ENTRY: usize = 160;

/// A primary whose replica is shipped each [`SETS_A_TURN`] sets.
pub struct HotspareWithReplica {
    primary: Cache,
    group: Mutex<Group>,
}

struct Group {
    sets: u32,
    nodes: [Replicator; 2],
}

impl Group {
    fn turn(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        // The log goes, is applied and acknowledged, and the ack is taken.
        let [primary, replica] = &mut self.nodes;
        primary.poll(&mut cx);
        replica.poll(&mut cx);
        primary.poll(&mut cx);
    }
}

impl Compared for HotspareWithReplica {
    const NAME: &'static str = "hotspare+replica";
    const IS_PEER: bool = false;

    fn with_entries(entries: usize) -> HotspareWithReplica {
        let bytes = (entries * BYTES_PER_ENTRY).max(32 << 20);
        let clock = Arc::new(ManualClock::new(1_000));
        let cache = |group| {
            let config =
                Config::new().memory_bytes_max(bytes).hash_seed(7).clock(clock.clone()).replication(group);
            Cache::new(config).unwrap()
        };
        let (primary, replica) =
            (cache(ReplicationConfig::primary()), cache(ReplicationConfig::replica_of("a")));
        let network = MemoryNetwork::immediate();
        let nodes = [(&primary, "a"), (&replica, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut group = Group { sets: 0, nodes };
        while replica.status().link != LinkState::Streaming {
            group.turn();
        }
        HotspareWithReplica { primary, group: Mutex::new(group) }
    }

    fn read<R>(&self, key: &[u8], reader: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.primary.read(key, |item| reader(item.value.as_slice().unwrap())).unwrap()
    }

    fn set(&self, key: &[u8], value: &[u8]) {
        self.primary.set(key, value, Expiry::Never).unwrap();
        let mut group = self.group.lock().unwrap();
        group.sets += 1;
        if group.sets.is_multiple_of(SETS_A_TURN) {
            group.turn();
        }
    }
}
