//! The spare holds what its primary holds, though items expire all the time and both nodes are full.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, ManualClock, ReplicationConfig, Replicator};

const MEMORY_BYTES: usize = 8 << 20;
/// More keys than have room.
const KEYS: u64 = 400_000;
const REQUESTS_A_MS: u64 = 2;
const WARM_UP_MS: u64 = 150_000;
/// How often frames are carried.
const DELIVERY_MS: u64 = 10;

/// Numbers without any pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }

    /// Below `bound`, each order of magnitude as likely as the others: nearly what zipf gives.
    fn of_any_size(&mut self, bound: u64) -> u64 {
        let fraction = f64::from(self.below(1 << 30) as u32) / f64::from(1 << 30);
        (bound as f64).powf(fraction) as u64
    }
}

/// A primary and its replica, in one thread.
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
        let node = |replication: ReplicationConfig| {
            let config = Config::new().memory_bytes_max(MEMORY_BYTES).shards(4).hash_seed(1);
            Cache::new(config.clock(clock.clone()).replication(replication)).unwrap()
        };
        let primary = node(ReplicationConfig::primary());
        let replica = node(ReplicationConfig::replica_of("a"));
        let replicators = [(&primary, "a"), (&replica, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut pair = Pair { clock, network, primary, replica, replicators };
        pair.run_ms(2_000);
        assert_eq!(pair.primary.status().replicas.len(), 1, "it is attached");
        pair
    }

    fn carry(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            for replicator in &mut self.replicators {
                replicator.poll(&mut cx);
            }
            self.network.deliver_all();
        }
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms / DELIVERY_MS {
            self.clock.advance_ms(DELIVERY_MS);
            self.carry();
        }
    }

    /// What a client does that keeps what it had to fetch: of ten keys three have a lifetime, some of them a sliding one.
    fn request(&self, numbers: &mut Numbers) {
        let number = if numbers.below(4) == 0 { numbers.below(KEYS) } else { numbers.of_any_size(KEYS) };
        let key = format!("key:{number:08}");
        let lifetime = match number % 10 {
            0 => Expiry::After(Duration::from_secs(10)),
            1 => Expiry::After(Duration::from_millis(1 + numbers.below(30_000))),
            2 => Expiry::After(Duration::from_millis(10 * numbers.of_any_size(6_000))),
            _ => Expiry::Never,
        };
        if self.primary.get(&key).unwrap().is_none() {
            self.primary.set(&key, [7; 100], lifetime).unwrap();
        } else if number % 20 == 0 {
            self.primary.touch(&key, lifetime).unwrap();
        }
    }

    fn serve_ms(&mut self, ms: u64, numbers: &mut Numbers) {
        for step in 0..ms {
            self.clock.advance_ms(1);
            (0..REQUESTS_A_MS).for_each(|_| self.request(numbers));
            if step % DELIVERY_MS == 0 {
                self.carry();
            }
        }
    }
}

fn live_keys(cache: &Cache) -> HashSet<Vec<u8>> {
    cache.inspect().items.into_iter().map(|item| item.0).collect()
}

#[test]
fn a_promoted_spare_holds_what_its_primary_held() {
    let (mut pair, mut numbers) = (Pair::new(), Numbers(7));
    pair.serve_ms(WARM_UP_MS, &mut numbers);
    let evictions = pair.primary.stats().evictions;
    pair.serve_ms(WARM_UP_MS, &mut numbers);
    assert!(pair.primary.stats().evictions > evictions, "the primary is full");
    pair.carry();
    assert_eq!(pair.primary.status().seq, pair.replica.status().seq, "all has arrived");
    pair.replica.promote(false).unwrap();
    let (held, spared) = (live_keys(&pair.primary), live_keys(&pair.replica));
    let (lost, surplus) = (held.difference(&spared).count(), spared.difference(&held).count());
    let [primary, replica] = [&pair.primary, &pair.replica].map(Cache::stats);
    let counts = |stats: &hotspare::Stats| (stats.items, stats.evictions, stats.reclaimed);
    println!("primary {:?}, replica {:?} (items, evictions, reclaimed)", counts(&primary), counts(&replica));
    println!("{} live keys, {lost} lost, {surplus} more", held.len());
    pair.primary.check_invariants();
    pair.replica.check_invariants();
    assert!(lost * 100 <= held.len(), "{lost} of {} are lost", held.len());
    assert!(surplus * 100 <= held.len(), "{surplus} are there that the primary has not");
}
