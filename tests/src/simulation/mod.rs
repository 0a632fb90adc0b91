//! A whole group in one thread, on virtual time, from one seed.
//!
//! Lives here: the world (up to four nodes, a network, a clock), what may happen in it, and the run. Not here: what must
//! hold (see `oracle`).
//!
//! Faults: links cut, directions blocked, nodes crashed with their memory lost and restarted (as followers, or as
//! a primary that forgot), promotions at any moment, logs of a few kilobytes. The same seed gives the same run.

pub mod clients;
pub mod clocks;
pub mod linearizable;
pub mod loaders;
pub mod oracle;
pub mod readers;
mod reborn;
pub mod registers;
pub mod scenarios;
pub mod subscribers;

use std::task::{Context, Waker};
use std::time::Duration;

use hotspare::transport::{Channel, MemoryNetwork};
use hotspare::{
    AckMode, Attributes, Bug, Cache, Config, Expiry, LinkState, ReplicationConfig, Replicator, Role, Status,
    WriteError,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use clients::{Clients, Life};
use clocks::Clocks;
use loaders::Loaders;
use oracle::{Concern, Oracle};
use readers::Readers;
use subscribers::{Subscribers, Told};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: u32 = 40;
const MEMORY_BYTES: usize = 2 << 20;

/// How far clocks of a group may differ: drift while links are cut, and the time that frames take.
const CLOCKS_APART_MAX_MS: u64 = 30_000;

/// Steps with faults, then rounds without any in which all must come to rest.
const STEPS: usize = 3_000;
const HEALING_ROUNDS_MAX: usize = 4_000;

/// What a run did, so that a test can see that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Mutations that a primary answered.
    pub mutations: u64,
    /// Changes of primary.
    pub promotions: u64,
    /// Nodes that hold nothing and were to be promoted; and those that were.
    pub empty_candidates: [u64; 2],
    /// Promotions of nodes that had come up with nothing beside the group's items: asked for, and refused at once.
    pub outranked: [u64; 2],
    /// Replicas that their primary handed its role to.
    pub handovers: u64,
    /// Nodes that had a replica below a replica attached at some look.
    pub cascades: u64,
    /// Nodes that lost their memory.
    pub crashes: u64,
    /// How often the log waited for a part of a full copy.
    pub log_waits: u64,
    /// Hints that were lost.
    pub hints_lost: u64,
    /// Links cut.
    pub cuts: u64,
    /// Writes that clients were told are replicated.
    pub acknowledged: u64,
    /// Writes refused for want of replicas.
    pub refused: u64,
    /// Full copies that replicas began.
    pub installs: u64,
    /// Resumptions from the log.
    pub catch_ups: u64,
    /// Nodes that came back ahead and dropped what they had alone.
    pub roll_backs: u64,
    /// Items that they dropped.
    pub rolled_back_keys: u64,
    /// What subscribers were told.
    pub told: Told,
    /// Reads that waited for a version, how many found an item, and versions that a node will never have.
    pub waited: [u64; 3],
    /// Loads begun and stored, and leases in logs.
    pub loads: [u64; 3],
    /// The state of all nodes at the end, as one number.
    pub fingerprint: u64,
}

/// What a group is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Two to four.
    pub nodes: usize,
    /// Whether the nodes begin as a chain, each a replica of the one before it.
    pub chain: bool,
    /// Whether each write waits until every other node has it.
    pub semi_sync: bool,
    /// Whether reads do, too, and a primary needs a lease.
    pub strict: bool,
    /// Whether each node has a clock of its own, as `skewed_clocks` says.
    pub drifts: bool,
    /// Whether one ack less is enough: then a promotion has to ask others.
    pub fewer_acks: bool,
    /// Whether an operator promotes nodes that hold nothing, too.
    pub errs: bool,
    /// Whether nodes know only the first one, which comes up again as a primary whenever it has crashed, and peers prove nothing;
    /// an operator promotes whomever he likes, without force.
    pub reborn: bool,
    /// A bug that every node has.
    pub bug: Option<Bug>,
    /// Whether full copies and hints have channels of their own, which reorder against the log; hints are lost, too.
    pub channels_apart: bool,
    /// Whether the nodes' clocks are up to an hour off when they start, and run 5 % too fast or slow.
    pub skewed_clocks: bool,
    /// Whether clients read through.
    pub loads: bool,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            nodes: 3,
            chain: false,
            semi_sync: false,
            strict: false,
            drifts: false,
            fewer_acks: false,
            errs: false,
            reborn: false,
            bug: None,
            channels_apart: false,
            skewed_clocks: false,
            loads: false,
        }
    }
}

struct Node {
    life: Life,
    /// The newest life of any node when this one was polled last.
    polled_in: Life,
    cache: Cache,
    replicator: Option<Replicator>,
    /// What its clock has shown, since it was last copied anew.
    shown: (u32, u64),
}

struct World {
    setting: Setting,
    clients: Clients,
    random: StdRng,
    clocks: Clocks,
    network: MemoryNetwork,
    nodes: Vec<Node>,
    incarnations: u64,
    log_bytes: usize,
    oracle: Oracle,
    subscribers: Subscribers,
    readers: Readers,
    loaders: Loaders,
    /// No more faults.
    heals: bool,
    summary: Summary,
}

/// Runs one seed; panics with the seed and the property that does not hold.
pub fn run(seed: u64) -> Summary {
    run_with(seed, Setting::default())
}

/// [`run`], for another kind of group.
pub fn run_with(seed: u64, setting: Setting) -> Summary {
    let mut world = World::new(seed, setting);
    for step in 0..STEPS {
        world.step();
        world.step_loaders().unwrap_or_else(|why| panic!("{why}; seed {seed}, step {step}"));
        world.answer_clients();
        let caches = world.caches();
        world.subscribers.step(&caches);
        world.readers.step(&caches).unwrap_or_else(|why| panic!("P13: seed {seed}, step {step}: {why}"));
        if step % 16 == 0 {
            world.check(&format!("seed {seed}, step {step}"));
            world.check_subscribers(false, &format!("seed {seed}, step {step}"));
        }
    }
    world.heal(seed);
    world.check(&format!("seed {seed}, at rest"));
    world.check_rest(seed);
    world.check_subscribers(true, &format!("seed {seed}, at rest"));
    world.summary.waited = world.readers.waited;
    world.summary.loads = world.loaders.done;
    world.summary.told = world.subscribers.told;
    world.summary
}

/// Whether a node holds what its history says.
fn is_whole(status: &Status) -> bool {
    (status.ready || status.role == Role::Fenced) && status.seq > 0
}

impl World {
    fn new(seed: u64, setting: Setting) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let log_bytes = [4 << 10, 16 << 10, 64 << 10][random.random_range(0..3)];
        let loaders = Loaders::new(seed);
        let mut world = World {
            setting,
            clients: Clients::default(),
            random,
            clocks: Clocks::new(seed, setting.nodes, setting.skewed_clocks || setting.drifts),
            network: match setting.channels_apart {
                true => MemoryNetwork::new().with_channels_apart(),
                false if setting.reborn => MemoryNetwork::new().without_proof(),
                false => MemoryNetwork::new(),
            },
            nodes: Vec::new(),
            incarnations: seed << 16,
            log_bytes,
            oracle: Oracle::default(),
            subscribers: Subscribers::new(seed, loaders.silent.clone()),
            readers: Readers::new(seed),
            loaders,
            heals: false,
            summary: Summary::default(),
        };
        for index in 0..setting.nodes {
            let begins = if index == 0 { ReplicationConfig::primary() } else { world.follower(index) };
            let node = world.boot(index, begins);
            world.nodes.push(node);
        }
        world
    }

    fn names(&self) -> &'static [&'static str] {
        &NAMES[..self.setting.nodes]
    }

    /// A node that joins: in a chain below the one before it.
    fn follower(&self, index: usize) -> ReplicationConfig {
        match self.setting.chain && index > 0 {
            true => ReplicationConfig::replica_of(NAMES[index - 1]).slot(index as u8).cascade(),
            false if self.setting.reborn && !self.heals => match index {
                0 => ReplicationConfig::primary(),
                _ => ReplicationConfig::replica_of(NAMES[0]),
            },
            false => ReplicationConfig::follower(),
        }
    }

    fn boot(&mut self, index: usize, begins: ReplicationConfig) -> Node {
        self.incarnations += 1;
        let names_others = !self.setting.reborn || self.heals;
        let others = self.names().iter().enumerate().filter(|(other, _)| names_others && *other != index);
        let replication = others.fold(begins, |config, (_, name)| config.peer(*name));
        let replication = replication
            .slot(index as u8)
            .replica_reads(true)
            .log_bytes_max(self.log_bytes)
            .random_seed(self.incarnations);
        let replicas = self.setting.nodes as u8 - if self.setting.fewer_acks { 2 } else { 1 };
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
        let config = Config::new()
            .memory_bytes_max(MEMORY_BYTES)
            .clock(self.clocks.of(index))
            .hash_seed(self.incarnations)
            .replication(replication);
        let cache = Cache::new(config).expect("the configuration is sound");
        let replicator = Replicator::new(&cache, self.network.transport(NAMES[index]));
        Node { life: self.incarnations, polled_in: self.incarnations, cache, replicator, shown: (0, 0) }
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn any_node(&mut self) -> usize {
        self.random.random_range(0..self.setting.nodes)
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..300 => self.client_write(),
            300..400 => self.client_read(),
            400..700 => {
                let node = self.any_node();
                self.poll(node);
            }
            700..940 => self.deliver_some(),
            940..980 => self.clocks.advance_ms(self.random.random_range(1..200)),
            980..985 => self.cut(),
            985..991 => self.block(),
            991..994 => self.crash(),
            994..996 => self.hand_over(),
            _ => self.promote_somebody(),
        }
    }

    fn poll(&mut self, index: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        let before = self.nodes[index].cache.status();
        let was_primary = before.role == Role::Primary;
        let outranks = self.who_outranks(&before);
        // Only who looks for a primary may find that it is ahead of it.
        let looks = before.link == LinkState::Connecting;
        let inspected = looks.then(|| self.nodes[index].cache.inspect());
        if let Some(replicator) = &mut self.nodes[index].replicator {
            replicator.poll(&mut cx);
        }
        let after = self.nodes[index].cache.status();
        self.check_attachment(index, &before, &after);
        self.nodes[index].polled_in = self.incarnations;
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
                "P16: {} reigns, but holds nothing beside {outranks:?}",
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
    }

    fn deliver_some(&mut self) {
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
    fn deliver_of_one_channel(&mut self, link: u64, from: &str, count: usize) {
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
    fn client_write(&mut self) {
        let index = self.any_node();
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
    fn write_something(&mut self, cache: &Cache, before: u64) -> Option<Concern> {
        let key = format!("key{}", self.random.random_range(0..KEYS)).into_bytes();
        let value = vec![self.random.random::<u8>(); self.random.random_range(0..300)];
        let expiry = match self.random.random_range(0..4) {
            0 => Expiry::After(Duration::from_millis(self.random.random_range(0..2_000))),
            _ => Expiry::Never,
        };
        let attributes = Attributes { flags: self.random.random_range(0..5), expiry };
        let mut concerns = Concern::Key(key.clone());
        let what = self.random.random_range(0..100);
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

    /// Somebody reads through; then all that this step has logged is looked at, before a subscriber is told of it.
    fn step_loaders(&mut self) -> Result<(), String> {
        if !self.setting.loads {
            return Ok(());
        }
        let nodes = self.lives();
        self.loaders.note(&nodes, &mut self.oracle)?;
        self.loaders.step(&nodes, &self.oracle);
        self.loaders.note(&nodes, &mut self.oracle)
    }

    fn finish_loads(&mut self) -> Result<(), String> {
        if !self.setting.loads {
            return Ok(());
        }
        let nodes = self.lives();
        self.loaders.finish(&nodes, &mut self.oracle)
    }

    fn answer_clients(&mut self) {
        if self.setting.semi_sync {
            self.clients.answer(&self.lives());
            self.summary.acknowledged = self.clients.acknowledged;
        }
    }

    fn caches(&self) -> Vec<Cache> {
        self.nodes.iter().map(|node| node.cache.clone()).collect()
    }

    fn lives(&self) -> Vec<(Life, Cache)> {
        self.nodes.iter().map(|node| (node.life, node.cache.clone())).collect()
    }

    /// P4, of a node that was just promoted.
    fn check_promises(&mut self, index: usize) {
        let kept = self.clients.check_promoted(&self.nodes[index].cache, &self.lives());
        kept.unwrap_or_else(|why| panic!("P4: {} was promoted, but {why}", NAMES[index]));
    }

    /// P5: one promotion for each term, whoever is promoted at the same time.
    fn note_promotion(&mut self, index: usize) {
        let status = self.nodes[index].cache.status();
        let other = self.oracle.note_promotion(status.term, index);
        assert!(
            other.is_none(),
            "P5: {} and node {other:?} were promoted by term {}",
            NAMES[index],
            status.term
        );
    }

    /// P6: nobody follows a node of a term below the highest that it has seen. What a node reigns or follows by only rises.
    fn check_attachment(&self, index: usize, before: &Status, after: &Status) {
        let attached = |status: &Status| status.installs + status.catch_ups + status.roll_backs;
        // Whom a replica's replica follows its status does not say.
        if after.role != Role::Replica || attached(after) == attached(before) || after.depth != 1 {
            return;
        }
        let follows = self.nodes.iter().zip(NAMES).find(|(_, name)| after.primary.as_deref() == Some(*name));
        // What a node said in a life that has ended since may be read once.
        let lives_on = |(node, _): &(&Node, &str)| node.life <= self.nodes[index].polled_in;
        let Some(followed) = follows.filter(lives_on).map(|(node, _)| node.cache.status()) else { return };
        if attached(&followed) == 0 {
            // Nobody has attached to it in this life: what was read is of the one before. A node that asks others whether
            // they hold something reads its link to the primary later.
            return;
        }
        assert!(
            followed.role != Role::Primary || followed.term >= before.term,
            "P6: {} has seen term {} and follows a primary of term {}",
            NAMES[index],
            before.term,
            followed.term
        );
    }

    fn client_read(&mut self) {
        let index = self.any_node();
        let key = format!("key{}", self.random.random_range(0..KEYS));
        // Replicas were told to answer; a fenced node refuses. Either way marks are all that changes.
        let _ = self.nodes[index].cache.get(key);
    }

    fn cut(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        self.network.cut(NAMES[one], NAMES[other]);
        self.summary.cuts += 1;
    }

    fn block(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        let blocked = self.one_in(3);
        self.network.set_blocked(NAMES[one], NAMES[other], blocked);
    }

    /// Memory lost; the node comes back at once, mostly as a follower, at times as a primary that forgot.
    fn crash(&mut self) {
        let index = self.any_node();
        let was_primary = self.nodes[index].cache.status().role == Role::Primary;
        // A group that promises something has nobody begin it a second time.
        let forgot = was_primary && self.one_in(2) && !self.setting.semi_sync && !self.setting.skewed_clocks;
        let forgot = if self.setting.reborn { index == 0 } else { forgot };
        if forgot {
            self.readers.stop();
        }
        let begins = if forgot { ReplicationConfig::primary() } else { self.follower(index) };
        self.restart(index, begins);
        self.summary.crashes += 1;
    }

    fn restart(&mut self, index: usize, begins: ReplicationConfig) {
        self.network.remove(NAMES[index]);
        self.nodes[index].replicator = None;
        self.clocks.restart(index);
        self.nodes[index] = self.boot(index, begins);
        self.oracle.forget_node(index);
    }

    fn hand_over(&mut self) {
        let index = self.any_node();
        // Refused by a node that is no primary, or has no level replica.
        let _ = self.nodes[index].cache.begin_hand_over(Duration::from_millis(500));
    }

    fn promote_somebody(&mut self) {
        let index = self.any_node();
        let cache = self.nodes[index].cache.clone();
        let status = cache.status();
        if self.setting.reborn {
            return self.promote_unforced(index, &status);
        }
        if self.setting.errs && status.role == Role::Replica && status.seq == 0 {
            // Asked for or refused; a poll may find it promoted.
            assert!(!matches!(cache.begin_promotion(false), Ok(Some(_))), "it asked nobody");
            self.summary.empty_candidates[0] += 1;
            return;
        }
        if status.role == Role::Replica && status.promotable.is_ok() {
            self.oracle.set_newest_ms(self.newest_ms("before a promotion"));
            self.oracle.check_node(index, &cache.inspect(), "before a promotion");
            let begun = cache.begin_promotion(false).expect("it is promotable");
            if begun.is_none() {
                // It asks others first; a poll may find it promoted.
                return;
            }
            self.oracle.check_node(index, &cache.inspect(), "P7, after a promotion");
            self.note_promotion(index);
            self.check_promises(index);
            self.summary.promotions += 1;
        }
    }

    fn check(&mut self, when: &str) {
        self.oracle.set_newest_ms(self.newest_ms(when));
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let status = node.cache.status();
            assert!(status.log_bytes <= status.log_bytes_max, "P8: {when}, node {}", NAMES[index]);
            // For a while a path may name nodes in lives that have ended.
            assert!(status.depth <= 4, "{when}: node {} is {} links down", NAMES[index], status.depth);
            self.summary.cascades += u64::from(status.depth > 1);
            let inspection = node.cache.inspect();
            let (copies, shown_ms) = node.shown;
            let is_back = copies == inspection.copies && inspection.now_ms < shown_ms;
            assert!(!is_back, "P12: {when}: the clock of {} went back", NAMES[index]);
            // Empty, or in the middle of a full copy, it takes its primary's clock outright.
            let shown_ms = if is_whole(&status) { inspection.now_ms } else { 0 };
            node.shown = (inspection.copies, shown_ms);
            self.oracle.check_records(&inspection, when);
            self.oracle.check_history(index, &inspection, when);
            // A replica that answers reads is ready unless it is in the middle of an install.
            if !status.ready && status.role != Role::Fenced {
                self.oracle.forget_node(index);
                self.oracle.check_part(index, &inspection, when);
            } else {
                self.oracle.check_node(index, &inspection, when);
            }
        }
    }

    /// The clock that no node with a history is ahead of. Theirs are about the same, however wrong their own ones are (P12).
    fn newest_ms(&self, when: &str) -> u64 {
        let whole = self.nodes.iter().filter(|node| is_whole(&node.cache.status()));
        let shown: Vec<u64> = whole.map(|node| node.cache.now_ms()).collect();
        let (oldest, newest) = (shown.iter().min().copied(), shown.iter().max().copied());
        let apart_ms = newest.unwrap_or(0) - oldest.unwrap_or(0);
        assert!(apart_ms <= CLOCKS_APART_MAX_MS, "P12: {when}: the clocks are {apart_ms} ms apart");
        newest.unwrap_or(0)
    }

    /// Who has taken all changes has all that its node holds.
    fn check_subscribers(&mut self, all: bool, when: &str) {
        if self.setting.bug == Some(Bug::CasReused) {
            // They are told versions by term and seq: that these differ is not what is looked for.
            return;
        }
        let caches = self.caches();
        let kept = self.subscribers.check(&caches, all, &self.oracle);
        kept.unwrap_or_else(|why| panic!("subscribers: {when}: {why}"));
    }

    /// No more faults: P9 says that all nodes stream again within a bound.
    fn heal(&mut self, seed: u64) {
        self.heals = true;
        for one in self.names() {
            for other in self.names() {
                self.network.set_blocked(one, other, false);
            }
        }
        for round in 0..HEALING_ROUNDS_MAX {
            (0..self.setting.nodes).for_each(|index| self.poll(index));
            self.network.deliver_all();
            self.clocks.advance_ms(20);
            self.finish_loads().unwrap_or_else(|why| panic!("{why}; seed {seed}, healing"));
            if round % 500 == 499 {
                self.promote_best();
            }
            if round % 1_000 == 999 {
                self.restart_stranded();
            }
            if self.is_at_rest() && self.loaders.are_answered() {
                return;
            }
        }
        let states: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        panic!("P9: seed {seed}: not at rest after {HEALING_ROUNDS_MAX} rounds: {states:#?}");
    }

    /// What an operator does when nobody reigns: the node that holds most takes over.
    fn promote_best(&mut self) {
        let reigns = |node: &Node| node.cache.status().role == Role::Primary;
        if self.nodes.iter().any(reigns) {
            return;
        }
        let best = self.nodes.iter().enumerate().max_by_key(|(_, node)| {
            let inspection = node.cache.inspect();
            let status = node.cache.status();
            let whole = status.ready || status.role == Role::Fenced;
            (whole, inspection.lineage.last().map(|(term, _, _, last)| (*term, *last)))
        });
        if let Some((index, node)) = best {
            if !(node.cache.status().ready || node.cache.status().role == Role::Fenced) {
                self.oracle.allow_misses();
            }
            node.cache.promote(true).expect("force overrules");
            self.summary.promotions += 1;
            self.note_promotion(index);
            self.check_promises(index);
        }
    }

    /// What an operator does with a node that believes a term whose other holders are all gone, while somebody else
    /// reigns: its status says so, and a restart makes it forget. So does one for a primary that nobody follows, beside
    /// one that has followers: without a secret neither can tell the other's term from an invented one.
    fn restart_stranded(&mut self) {
        let statuses: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        let followed = statuses.iter().filter(|status| !status.replicas.is_empty());
        let followed_term = followed.map(|status| status.term).max().unwrap_or(0);
        for (index, status) in statuses.into_iter().enumerate() {
            let is_cut_off = status.role != Role::Primary && status.link == LinkState::Connecting;
            let is_left = status.role == Role::Primary
                && status.replicas.is_empty()
                && followed_term > 0
                && status.term != followed_term;
            if is_cut_off || is_left {
                self.restart(index, self.follower(index));
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let statuses: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        let primaries = statuses.iter().filter(|status| status.role == Role::Primary).count();
        let followers = statuses.iter().filter(|status| {
            status.role == Role::Replica && status.link == LinkState::Streaming && status.promotable.is_ok()
        });
        primaries == 1
            && followers.count() == self.setting.nodes - 1
            && statuses.iter().all(|status| status.seq == statuses[0].seq)
    }

    /// P3: at rest all nodes hold the same.
    fn check_rest(&mut self, seed: u64) {
        let mut all: Vec<_> = self.nodes.iter().map(|node| node.cache.inspect()).collect();
        // A follower's clock is behind its primary's by as long as frames took: an item may die a little later there.
        let newest_ms = all.iter().map(|inspection| inspection.now_ms).max().unwrap_or(0);
        for inspection in &mut all {
            inspection.items.retain(|item| item.3 == 0 || item.3 > newest_ms);
            // What a roll-back dropped is asked for again, but not for ever; each that is held is checked above.
            inspection.items.retain(|item| !self.oracle.may_be_dropped(&item.0, item.4));
        }
        for (index, inspection) in all.iter().enumerate() {
            // Where a node with half a copy reigned, others may hold more than it; each held key is checked above.
            let same = self.oracle.are_misses_allowed() || inspection.items == all[0].items;
            assert!(
                same,
                "P3: seed {seed}, node {} holds {} items by {:x?}, node {} {} by {:x?}",
                NAMES[index],
                inspection.items.len(),
                inspection.lineage,
                NAMES[0],
                all[0].items.len(),
                all[0].lineage
            );
            assert_eq!(inspection.lineage.last(), all[0].lineage.last(), "seed {seed}");
            self.nodes[index].cache.check_invariants();
            let status = self.nodes[index].cache.status();
            self.summary.installs += status.installs;
            self.summary.catch_ups += status.catch_ups;
            self.summary.log_waits += status.log_waits;
        }
        let bytes = format!("{:?}", all[0].items);
        self.summary.fingerprint = bytes.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
}
