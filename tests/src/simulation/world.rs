//! The nodes of a simulated group, the network between them, their clients, and what these ask for.
//!
//! Not here: what goes wrong (see `faults`), what must hold (see `checks` and `oracle`).

use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::{Channel, MemoryNetwork};
use hotspare::{
    AckMode, Attributes, Cache, Config, Expiry, LinkState, MEMORY_BYTES_MIN, Next, ReplicationConfig,
    Replicator, Role, WriteError,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::checks::is_whole;
use super::clients::{Clients, Life};
use super::clocks::Clocks;
use super::loaders::Loaders;
use super::oracle::{Concern, Oracle};
use super::readers::Readers;
use super::subscribers::Subscribers;
use super::wire::{Lacks, SharedNotes, Wire};
use super::{KEYS, NAMES, Setting, Summary};

const MEMORY_BYTES: usize = 2 << 20;

pub(super) struct Node {
    pub(super) life: Life,
    /// Since which moment it has held items, in one history, and since when it asks others whether it may be promoted.
    pub(super) holds_since: Option<u64>,
    pub(super) asks_since: Option<u64>,
    pub(super) cache: Cache,
    pub(super) replicator: Option<Replicator>,
    /// What its clock has shown, since it was last copied anew.
    pub(super) shown: (u32, u64),
    /// For how many steps it is stopped yet.
    pub(super) stopped: usize,
    /// Whether it gets to run but rarely.
    is_slow: bool,
    lacks: Lacks,
}

pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) clients: Clients,
    pub(super) random: StdRng,
    pub(super) clocks: Clocks,
    pub(super) network: MemoryNetwork,
    pub(super) nodes: Vec<Node>,
    pub(super) incarnations: u64,
    pub(super) log_bytes: usize,
    pub(super) oracle: Oracle,
    pub(super) subscribers: Subscribers,
    pub(super) readers: Readers,
    pub(super) loaders: Loaders,
    /// For a node in one of its lives, and the place in history of a node that it met: in which life it met that one.
    pub(super) met: HashMap<(Life, u64), Life>,
    /// Rises with each turn of any node.
    pub(super) moment: u64,
    /// No more faults.
    pub(super) heals: bool,
    pub(super) summary: Summary,
    pub(super) notes: SharedNotes,
}

/// A slow node runs once in so many times that another does.
const SLOW_ONE_IN: u32 = 12;

/// Of so many turns one is followed by all that the driver wants at once; between the others other nodes have theirs.
const RESTS_ONE_IN: u64 = 32;

/// Turns at once until a driver is at rest, at most: no run was seen to need more than three.
const TURNS_MAX: usize = 6;

/// Keys and bytes of a value where memory is too small for them.
const EVICTING: (u32, usize) = (150, 24_000);

impl World {
    pub(super) fn new(seed: u64, setting: Setting) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let log_bytes = [4 << 10, 16 << 10, 64 << 10][random.random_range(0..3)];
        let log_bytes = if setting.evicts { 64 * log_bytes } else { log_bytes };
        let loaders = Loaders::new(seed);
        let mut world = World {
            setting,
            clients: Clients::default(),
            random,
            clocks: Clocks::new(seed, setting),
            network: match setting.channels_apart {
                true => MemoryNetwork::new().with_channels_apart(),
                false if setting.unproven => MemoryNetwork::new().without_proof(),
                false => MemoryNetwork::new(),
            },
            nodes: Vec::new(),
            incarnations: seed << 16,
            log_bytes,
            oracle: Oracle::default(),
            subscribers: Subscribers::new(seed, loaders.silent.clone()),
            readers: Readers::new(seed),
            loaders,
            met: HashMap::new(),
            moment: 0,
            heals: false,
            summary: Summary::default(),
            notes: SharedNotes::default(),
        };
        if setting.evicts {
            // What a node has evicted is a miss there; what it holds is checked.
            world.oracle.allow_misses();
        }
        for index in 0..setting.nodes {
            let begins = if index == 0 { ReplicationConfig::primary() } else { world.follower(index) };
            let node = world.boot(index, begins);
            world.nodes.push(node);
        }
        world
    }

    pub(super) fn names(&self) -> &'static [&'static str] {
        &NAMES[..self.setting.nodes]
    }

    /// A node that joins: in a chain below the one before it.
    pub(super) fn follower(&self, index: usize) -> ReplicationConfig {
        match self.setting.chain && index > 0 {
            true => ReplicationConfig::replica_of(NAMES[index - 1]).slot(index as u8).cascade(),
            false if self.setting.reborn && !self.heals => match index {
                0 => ReplicationConfig::primary(),
                _ => ReplicationConfig::replica_of(NAMES[0]),
            },
            false if self.setting.founds && !self.heals => ReplicationConfig::primary(),
            false => ReplicationConfig::follower(),
        }
    }

    pub(super) fn boot(&mut self, index: usize, begins: ReplicationConfig) -> Node {
        self.incarnations += 1;
        let names_others = !self.setting.reborn || self.heals;
        let others = self.names().iter().enumerate().filter(|(other, _)| names_others && *other != index);
        let replication = others.fold(begins, |config, (_, name)| config.peer(*name));
        let replication = replication
            .slot(index as u8)
            .replica_reads(true)
            .log_bytes_max(self.log_bytes)
            .random_seed(self.incarnations);
        let replicas = match self.setting {
            // A primary hears of those alone that follow it itself.
            Setting { chain: true, .. } => 1,
            Setting { nodes, fewer_acks, .. } => nodes as u8 - if fewer_acks { 2 } else { 1 },
        };
        let replication = match self.setting {
            Setting { strict: true, .. } => replication.ack(AckMode::Strict { replicas }),
            Setting { semi_sync: false, .. } => replication,
            Setting { .. } => replication.ack(AckMode::SemiSync { replicas }),
        };
        let replication = match self.setting.channels_apart {
            true => replication.window_records_max([1, 4, 1 << 16][self.random.random_range(0..3)]),
            false => replication,
        };
        let replication = match self.setting.bug {
            None => replication,
            Some(bug) => replication.bug(bug),
        };
        let config = match self.setting.evicts {
            true => Config::new().memory_bytes_max(MEMORY_BYTES_MIN).item_bytes_max(MEMORY_BYTES_MIN / 8),
            false => Config::new().memory_bytes_max(MEMORY_BYTES * self.setting.shards),
        };
        let config = config
            .clock(self.clocks.of(index))
            .hash_seed(self.incarnations)
            .replication(replication)
            .shards(self.setting.shards);
        let cache = Cache::new(config).expect("the configuration is sound");
        let is_slow = self.setting.stalls && self.one_in(3);
        let lacks = match self.setting.mixed && !self.one_in(3) {
            true => Lacks::some(&mut self.random),
            false => Lacks::default(),
        };
        self.summary.old_lives += u64::from(lacks != Lacks::default());
        let transport = self.network.transport(NAMES[index]);
        let replicator = match self.setting.mixed || self.setting.spoils {
            true => {
                let spoils = self.setting.spoils.then_some(self.incarnations);
                Replicator::new(&cache, Wire::new(transport, lacks, spoils, self.notes.clone()))
            }
            false => Replicator::new(&cache, transport),
        };
        let life = self.incarnations;
        Node {
            life,
            holds_since: None,
            asks_since: None,
            cache,
            replicator,
            shown: (0, 0),
            stopped: 0,
            is_slow,
            lacks,
        }
    }

    /// Whether a node runs now.
    pub(super) fn runs(&mut self, index: usize) -> bool {
        self.nodes[index].stopped == 0 && (!self.nodes[index].is_slow || self.one_in(SLOW_ONE_IN))
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.random.random_range(0..self.setting.nodes)
    }

    pub(super) fn caches(&self) -> Vec<Cache> {
        self.nodes.iter().map(|node| node.cache.clone()).collect()
    }

    pub(super) fn lives(&self) -> Vec<(Life, Cache)> {
        self.nodes.iter().map(|node| (node.life, node.cache.clone())).collect()
    }

    /// One turn of a node's driver, and now and then all that it wants to have at once.
    ///
    /// P19: it comes to rest within a bound, as long as nothing comes from outside and no time passes.
    pub(super) fn poll(&mut self, index: usize) {
        let mut next = self.turn(index);
        // Who holds back a chunk turns until the next one: what that does to the items is what is looked for there.
        let is_late = self.setting.bug == Some(hotspare::Bug::LateChunk);
        if is_late || !self.moment.is_multiple_of(RESTS_ONE_IN) {
            return;
        }
        let mut turns = 1;
        while next == Some(Next::Now) {
            assert!(turns < TURNS_MAX, "P19: {} wants more than {turns} turns at once", NAMES[index]);
            next = self.turn(index);
            turns += 1;
        }
    }

    /// What it wants next, if it is driven.
    fn turn(&mut self, index: usize) -> Option<Next> {
        let mut cx = Context::from_waker(Waker::noop());
        let before = self.nodes[index].cache.status();
        let part = self.nodes[index].cache.inspect_part();
        let was_primary = before.role == Role::Primary;
        let outranks = self.who_outranks(index, &before);
        // Only who looks for a primary may find that it is ahead of it.
        let looks = before.link == LinkState::Connecting;
        let inspected = looks.then(|| self.nodes[index].cache.inspect());
        let next = self.nodes[index].replicator.as_mut().map(|replicator| replicator.poll(&mut cx));
        if let Some(Next::At(moment)) = next {
            let now_ms = self.nodes[index].cache.local_now_ms();
            assert!(
                moment > now_ms,
                "P19: {} wants its next turn at {moment}, and it is {now_ms}",
                NAMES[index]
            );
        }
        let after = self.nodes[index].cache.status();
        self.note_holder(index, &after);
        self.check_attachment(index, (&before, part));
        self.note_moment(index, before.installs);
        if after.roll_backs > before.roll_backs
            && let Some(inspected) = inspected
        {
            self.oracle.note_roll_back(&inspected, &self.nodes[index].cache.inspect());
            self.summary.roll_backs += 1;
            self.summary.rolled_back_keys += after.rolled_back_keys - before.rolled_back_keys;
        }
        if !was_primary && self.nodes[index].cache.status().role == Role::Primary {
            assert!(
                outranks.is_none(),
                "P18: {} reigns, but holds nothing beside {outranks:?}",
                NAMES[index]
            );
            match before.seq {
                0 => self.summary.empty_candidates[1] += 1,
                _ => self.summary.handovers += 1,
            }
            if !is_whole(&before) && before.seq > 0 {
                // A full copy was begun while it asked, and cut.
                self.oracle.allow_misses();
            }
            self.note_promotion(index);
            self.check_promises(index);
        }
        next
    }

    pub(super) fn deliver_some(&mut self) {
        let busy = self.network.in_flight();
        if busy.is_empty() {
            return;
        }
        let (link, from, _, frames) = &busy[self.random.random_range(0..busy.len())];
        let count = self.random.random_range(1..=*frames);
        if self.setting.channels_apart {
            return self.deliver_of_one_channel(*link, from, count);
        }
        for _ in 0..count {
            self.network.deliver(*link, from);
        }
    }

    /// What the others have in flight meanwhile is overtaken.
    pub(super) fn deliver_of_one_channel(&mut self, link: u64, from: &str, count: usize) {
        let channel = Channel::ALL[self.random.random_range(0..Channel::ALL.len())];
        for _ in 0..count {
            let moved = match (channel, self.random.random_range(0..4)) {
                (Channel::Hint, 0) => {
                    let lost = self.network.lose_hint(link, from);
                    self.summary.hints_lost += u64::from(lost);
                    lost
                }
                (Channel::Hint, skipped) => self.network.deliver_hint(link, from, skipped - 1),
                _ => self.network.deliver_on(link, from, channel),
            };
            if !moved {
                self.network.deliver(link, from);
            }
        }
    }

    /// A change at any node: one that is no primary refuses it.
    pub(super) fn client_write(&mut self) {
        let mut index = self.any_node();
        if self.setting.evicts {
            // More is written than a cache holds.
            let reigns = |node: &Node| node.cache.status().role == Role::Primary;
            index = self.nodes.iter().position(reigns).unwrap_or(index);
        }
        if self.nodes[index].stopped > 0 {
            return;
        }
        let cache = self.nodes[index].cache.clone();
        if cache.status().role != Role::Primary {
            assert!(cache.set("k", "v", Expiry::Never).is_err(), "only a primary takes writes");
            return;
        }
        let before = cache.status().seq;
        if usize::from(cache.status().level_replicas) < usize::from(cache.ack_mode().replicas()) {
            let refused = cache.set("k", "v", Expiry::Never);
            assert!(
                matches!(refused, Err(WriteError::NotEnoughReplicas { .. } | WriteError::HandingOver)),
                "{refused:?}"
            );
            assert_eq!(cache.status().seq, before, "what is refused changes nothing");
            self.summary.refused += 1;
            return;
        }
        if cache.touch("k", Expiry::Never) == Err(WriteError::HandingOver) {
            return;
        }
        let before = cache.status().seq;
        let (concerns, written) = cache.track(|| self.write_something(&cache, before));
        if let (Some(concerns), Some(written)) = (concerns, written) {
            self.readers.wrote(written.version(), concerns);
        }
        if let Some(written) = written
            && self.setting.semi_sync
        {
            self.clients.wrote(self.nodes[index].life, &cache, written);
        }
    }

    /// Which items it gave another version, if it did.
    pub(super) fn write_something(&mut self, cache: &Cache, before: u64) -> Option<Concern> {
        let (keys, value_bytes) = if self.setting.evicts { EVICTING } else { (KEYS, 300) };
        let key = format!("key{}", self.random.random_range(0..keys)).into_bytes();
        let value = vec![self.random.random::<u8>(); self.random.random_range(0..value_bytes)];
        let expiry = match self.random.random_range(0..4) {
            0 => Expiry::After(Duration::from_millis(self.random.random_range(0..2_000))),
            _ => Expiry::Never,
        };
        let attributes = Attributes { flags: self.random.random_range(0..5), expiry };
        let mut concerns = Concern::Key(key.clone());
        // Without flushes a full cache stays full.
        let what = self.random.random_range(0..if self.setting.evicts { 98 } else { 100 });
        let is_deletion = (60..70).contains(&what);
        let done = match what {
            0..60 => cache.set(&key, &value, attributes).map(|_| ()),
            60..70 => cache.delete(&key).map(|_| ()),
            70..78 => cache.append(&key, b"+").map(|_| ()),
            78..88 => cache.touch(&key, expiry).map(|_| ()),
            88..92 => cache.add(&key, &value, attributes).map(|_| ()),
            92..98 => {
                let number = self.random.random_range(0..100u32).to_string();
                cache.set(&key, number, attributes).unwrap();
                self.oracle.note(cache, concerns.clone(), before);
                cache.incr(&key, 7).unwrap();
                Ok(())
            }
            98 => {
                let prefix = key[..key.len() - self.random.random_range(0..2)].to_vec();
                concerns = Concern::Prefix(prefix.clone());
                cache.invalidate_prefix(prefix)
            }
            _ => {
                concerns = Concern::All;
                cache.flush()
            }
        };
        done.expect("a primary takes writes");
        if is_deletion && let Concern::Key(key) = &concerns {
            // Whether or not it was there, and whether or not the log says so.
            self.oracle.note_deletion(cache, key);
        }
        if cache.status().seq != before || is_deletion {
            self.summary.mutations += 1;
            self.oracle.note(cache, concerns.clone(), before);
        }
        // Who touches an item leaves its version.
        (!(78..88).contains(&what)).then_some(concerns)
    }

    pub(super) fn client_read(&mut self) {
        let index = self.any_node();
        let key = format!("key{}", self.random.random_range(0..KEYS));
        // Replicas were told to answer; a fenced node refuses. Either way marks are all that changes.
        let _ = self.nodes[index].cache.get(key);
    }

    /// Somebody reads through; then all that this step has logged is looked at, before a subscriber is told of it.
    pub(super) fn step_loaders(&mut self) -> Result<(), String> {
        if !self.setting.loads {
            return Ok(());
        }
        let nodes = self.lives();
        self.loaders.note(&nodes, &mut self.oracle)?;
        // An older version reads through in its own way.
        let today = self.nodes.iter().filter(|node| node.lacks.knows_loads());
        let today: Vec<_> = today.map(|node| (node.life, node.cache.clone())).collect();
        self.loaders.step(&today, &self.oracle);
        self.loaders.note(&nodes, &mut self.oracle)
    }

    pub(super) fn finish_loads(&mut self) -> Result<(), String> {
        if !self.setting.loads {
            return Ok(());
        }
        let nodes = self.lives();
        self.loaders.finish(&nodes, &mut self.oracle)
    }

    pub(super) fn answer_clients(&mut self) {
        if self.setting.semi_sync {
            self.clients.answer(&self.lives());
            self.summary.acknowledged = self.clients.acknowledged;
        }
    }
}
