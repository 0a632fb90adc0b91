//! A replica that is copied anew drops what it held bit by bit: its link lives on meanwhile, and nothing of it is shown.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator, Role};

const ITEMS: u64 = 20_000;
/// How long a turn takes: the turns in which all is dropped take more than a silent link lives.
const TURN_MS: u64 = 200;

struct Pair {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    primary: Cache,
    replica: Cache,
    replicators: [Replicator; 2],
}

impl Pair {
    /// A replica that is about to be copied anew: it holds all keys, with old values.
    fn new() -> Pair {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::immediate());
        let node = |replication: ReplicationConfig| {
            let config = Config::new().memory_bytes_max(32 << 20).clock(clock.clone());
            Cache::new(config.replication(replication)).unwrap()
        };
        let primary = node(ReplicationConfig::primary().log_bytes_max(256 << 10));
        let replica = node(ReplicationConfig::replica_of("a").replica_reads(true));
        let replicators = [(&primary, "a"), (&replica, "b")]
            .map(|(cache, name)| Replicator::new(cache, network.transport(name)).unwrap());
        let mut pair = Pair { clock, network, primary, replica, replicators };
        pair.store(1);
        (0..500).for_each(|_| pair.turn(10));
        assert_eq!(pair.replica.stats().items, ITEMS);
        pair.store(2);
        pair
    }

    fn store(&self, value: u8) {
        for number in 0..ITEMS {
            self.primary.set(number.to_le_bytes(), [value; 500], Expiry::Never).unwrap();
        }
    }

    fn turn(&mut self, ms: u64) {
        self.clock.advance_ms(ms);
        for replicator in &mut self.replicators {
            replicator.poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Keys of which the replica shows the value that was replaced.
    fn old_shown(&self) -> usize {
        let is_old = |number: &u64| {
            let shown = self.replica.get(number.to_le_bytes()).ok().flatten();
            shown.is_some_and(|item| item.value[0] == 1)
        };
        (0..ITEMS).filter(is_old).count()
    }

    /// Turns until the replica has dropped some of what it holds, but not all.
    fn begin_to_clear(&mut self) {
        while self.replica.stats().items == ITEMS {
            self.turn(TURN_MS);
        }
        assert!(
            self.replica.stats().items > ITEMS / 2 && self.replica.status().link == LinkState::Installing
        );
    }
}

#[test]
fn what_a_replica_held_before_a_copy_goes_bit_by_bit_and_is_not_shown_while_its_link_lives_on() {
    for is_cut in [false, true] {
        let mut pair = Pair::new();
        pair.begin_to_clear();
        if is_cut {
            pair.network.cut("a", "b");
        }
        let (mut turns, mut held) = (0, pair.replica.stats().items);
        while held > 0 {
            assert_eq!(pair.old_shown(), 0);
            pair.turn(TURN_MS);
            let status = pair.replica.status();
            assert!(status.promotable.is_err() && !status.ready, "{status:?}");
            let left = pair.replica.stats().items;
            assert!(left >= held || held - left <= ITEMS / 8, "{} items in one turn", held - left);
            if left > held || status.link == LinkState::Streaming {
                break;
            }
            (turns, held) = (turns + 1, left);
        }
        assert!(turns * TURN_MS > 2_000, "{turns} turns");
        assert_eq!(pair.primary.status().installs, if is_cut { 3 } else { 2 }, "the link has lived on");
        for _ in 0..500 {
            pair.turn(10);
            assert!(pair.replica.stats().memory_bytes <= 32 << 20);
        }
        assert_eq!((pair.replica.stats().items, pair.old_shown()), (ITEMS, 0));
        assert_eq!(pair.replica.status().promotable, Ok(()));
    }
}

#[test]
fn a_node_that_is_promoted_by_force_meanwhile_serves_what_it_holds_yet() {
    let mut pair = Pair::new();
    pair.begin_to_clear();
    pair.network.remove("a");
    let held = pair.replica.stats().items;
    pair.replica.promote(true).unwrap();
    (0..20).for_each(|_| pair.turn(TURN_MS));
    assert_eq!((pair.replica.status().role, pair.replica.stats().items), (Role::Primary, held));
    assert_eq!(pair.old_shown() as u64, held);
    pair.replica.set("k", "v", Expiry::Never).unwrap();
    assert!(pair.replica.get("k").unwrap().is_some());
}
