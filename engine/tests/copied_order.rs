//! A node that was copied while writes went on evicts what its primary evicts, and goes on so when it is promoted.

use std::collections::BTreeSet;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{Cache, Config, Expiry, LinkState, ReplicationConfig, Replicator};

const MEMORY_BYTES: usize = 8 << 20;
const REQUESTS: u32 = 40_000;

/// How often the two nodes of the pair have a turn.
const REQUESTS_A_TURN: u32 = 512;

/// The nodes that serve the same requests: a pair, and one that never fails.
struct Stage {
    primary: Cache,
    spare: Cache,
    never_failed: Cache,
    shipping: Replicator,
    following: Option<Replicator>,
    is_promoted: bool,
    random: u64,
}

impl Stage {
    fn new(network: &MemoryNetwork, shards: usize) -> Stage {
        let config = || {
            Config::new().memory_bytes_max(MEMORY_BYTES).item_bytes_max(64 << 10).hash_seed(7).shards(shards)
        };
        let primary = Cache::new(config().replication(ReplicationConfig::primary())).unwrap();
        let spare = Cache::new(config().replication(ReplicationConfig::replica_of("a"))).unwrap();
        let shipping = Replicator::new(&primary, network.transport("a")).unwrap();
        let never_failed = Cache::new(config()).unwrap();
        Stage { primary, spare, never_failed, shipping, following: None, is_promoted: false, random: 1 }
    }

    /// Reads keys, the first ones more often, and stores each that is missed, in the size that is its own.
    fn play(&mut self, requests: u32) {
        for request in 0..requests {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let part = (self.random >> 40) as f64 / f64::from(1 << 24);
            let number = (part * part * part * 8_000.0) as u64;
            let value = vec![7; 50 + (number.wrapping_mul(2_654_435_761) % 12_000) as usize];
            let pair = if self.is_promoted { &self.spare } else { &self.primary };
            for cache in [pair, &self.never_failed] {
                if cache.read(number.to_le_bytes(), |_| ()).unwrap().is_none() {
                    cache.set(number.to_le_bytes(), &value, Expiry::Never).unwrap();
                }
            }
            if request % REQUESTS_A_TURN == 0 && !self.is_promoted {
                self.carry();
            }
        }
    }

    fn carry(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        self.shipping.poll(&mut cx);
        if let Some(following) = &mut self.following {
            following.poll(&mut cx);
        }
    }
}

/// A pair whose spare has just been copied while requests went on, and how many items it has or lacks beside the other.
fn copied(network: &MemoryNetwork, shards: usize) -> (Stage, usize) {
    let mut stage = Stage::new(network, shards);
    stage.play(REQUESTS);
    stage.following = Replicator::new(&stage.spare, network.transport("b"));
    let mut requests = 0;
    while stage.spare.status().link != LinkState::Streaming {
        stage.play(REQUESTS_A_TURN);
        requests += REQUESTS_A_TURN;
    }
    assert!(requests > 1_000, "the copy takes {requests} requests");
    (0..100).for_each(|_| stage.carry());
    let differ = differences(&stage);
    (stage, differ)
}

fn differences(stage: &Stage) -> usize {
    let (held, wanted) = (keys(&stage.spare), keys(&stage.never_failed));
    assert!(wanted.len() > 1_000 && stage.never_failed.stats().evictions > 10_000, "little was evicted");
    held.symmetric_difference(&wanted).count()
}

fn keys(cache: &Cache) -> BTreeSet<Vec<u8>> {
    cache.inspect().items.into_iter().map(|item| item.0).collect()
}

#[test]
fn a_node_copied_under_load_and_promoted_evicts_what_one_that_never_failed_does() {
    for network in [MemoryNetwork::immediate(), MemoryNetwork::immediate().with_channels_apart()] {
        let (mut stage, differ) = copied(&network, 1);
        assert_eq!(differ, 0, "copied");
        stage.spare.promote(true).unwrap();
        stage.is_promoted = true;
        for moment in 1..=20 {
            stage.play(REQUESTS / 20);
            assert_eq!(differences(&stage), 0, "promoted, {moment}");
        }
    }
}

/// A page that is free goes to whichever shard asks first, so that some difference is left.
#[test]
fn each_shard_of_a_copied_node_has_its_share_of_the_memory() {
    let (_, differ) = copied(&MemoryNetwork::immediate(), 8);
    assert!(differ <= 60, "copied: {differ}, and some 250 where each evicts by itself");
}
