//! Clients that read and write a few keys at whoever says that it is the primary, and remember what they saw and when.
//!
//! Lives here: those clients, and a run of a group that is promoted, paused, cut, crashed and handed over meanwhile, on
//! clocks of its nodes' own. Not here: what makes a history sound (see `linearizable`).

use hotspare::{AckMode, Acknowledgement, Expiry, Role, Written};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::Life;
use super::world::World;
use super::{NAMES, Setting};
use crate::linearizable::{self, Moment, Operation};

/// Few, so that clients meet.
const KEYS: usize = 3;
const STEPS: usize = 8_000;

/// Steps without any answer after which an operator begins the group anew.
const IDLE_STEPS_MAX: usize = 1_500;

/// So many pauses are no suspension of the whole machine, which is longer: up to five seconds, and who is promoted
/// meanwhile waits one for the lease to end.
const SUSPENSIONS_ONE_IN: u32 = 6;
const SUSPENDED_STEPS_MAX: usize = 2_000;

/// For how long a client waits for acks, in steps.
const PATIENCE_STEPS: u64 = 150;

/// What a run did, so that a test can see that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Reads that found something.
    pub hits: u64,
    /// Reads that were answered later than they were asked for.
    pub held_reads: u64,
    /// Writes that were answered.
    pub writes: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
    /// Nodes promoted at once.
    pub promotions: u64,
    /// Nodes that were handed over to, or promoted once enough others had answered.
    pub promotions_in_turn: u64,
    /// Nodes that slept with requests waiting for them.
    pub pauses: u64,
    /// Of them, those whose whole machine was suspended: their clocks stood still, but for that of leases.
    pub suspensions: u64,
    /// Reads that were misses for want of a lease.
    pub lease_misses: u64,
    /// Hits by a node that was promoted and needs no lease yet.
    pub hits_without_lease: u64,
    /// Groups that an operator had to begin anew.
    pub groups: u64,
}

impl Seen {
    /// Adds another run.
    pub fn add(&mut self, other: &Seen) {
        self.hits += other.hits;
        self.held_reads += other.held_reads;
        self.writes += other.writes;
        self.unknown += other.unknown;
        self.promotions += other.promotions;
        self.promotions_in_turn += other.promotions_in_turn;
        self.pauses += other.pauses;
        self.suspensions += other.suspensions;
        self.lease_misses += other.lease_misses;
        self.hits_without_lease += other.hits_without_lease;
        self.groups += other.groups;
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
enum Request {
    Read { key: usize },
    Write { key: usize, value: u64 },
    Delete { key: usize, value: u64 },
}

/// A request that was executed, and whose answer is due.
struct Waiting {
    life: Life,
    written: Written,
    key: usize,
    /// Its end is the moment at which the client gives up.
    operation: Operation,
    is_held: bool,
}

struct Registers {
    world: World,
    step: usize,
    now: Moment,
    values: u64,
    histories: [Vec<Operation>; KEYS],
    waiting: Vec<Waiting>,
    /// Of each node: until which step it sleeps, and what was asked of it meanwhile.
    asleep: Vec<(usize, Vec<(Moment, Request)>)>,
    answered_at: usize,
    /// Numbers beside the world's, which come as they always came.
    suspensions: StdRng,
    seen: Seen,
}

/// Runs one seed.
///
/// # Errors
/// What clients saw of a key is not linearizable.
pub fn run(seed: u64, setting: Setting) -> Result<Seen, String> {
    let mut registers = Registers {
        world: World::new(seed, setting),
        step: 0,
        now: 0,
        values: 0,
        histories: Default::default(),
        waiting: Vec::new(),
        asleep: (0..setting.nodes).map(|_| (0, Vec::new())).collect(),
        answered_at: 0,
        suspensions: StdRng::seed_from_u64(seed ^ 0x5059),
        seen: Seen::default(),
    };
    for step in 0..STEPS {
        registers.step = step;
        registers.take_a_step();
        registers.answer();
        if step > registers.answered_at + IDLE_STEPS_MAX {
            registers.check()?;
            registers.begin_anew();
        }
    }
    registers.check()?;
    registers.count_misses();
    Ok(registers.seen)
}

impl Registers {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn take_a_step(&mut self) {
        match self.world.random.random_range(0..1000) {
            0..400 => self.ask(),
            400..620 => {
                let node = self.world.any_node();
                if self.is_awake(node) {
                    let was = self.world.summary.handovers;
                    self.world.poll(node);
                    self.seen.promotions_in_turn += self.world.summary.handovers - was;
                }
            }
            620..900 => self.world.deliver_some(),
            900..965 => self.world.clocks.advance_ms(self.world.random.random_range(1..80)),
            965..972 => self.world.cut(),
            972..976 => self.world.block(),
            976..984 => self.isolate(),
            984 => self.crash(),
            985..987 => self.world.hand_over(),
            987..992 => self.pause(),
            _ => self.promote(),
        }
    }

    /// Any node that says that it is the primary, and did so before it fell asleep.
    fn ask(&mut self) {
        let node = self.world.any_node();
        if self.world.nodes[node].cache.status().role != Role::Primary {
            return;
        }
        let key = self.world.random.random_range(0..KEYS);
        self.values += 1;
        let value = self.values;
        let request = match self.world.random.random_range(0..20) {
            0..11 => Request::Read { key },
            11..19 => Request::Write { key, value },
            _ => Request::Delete { key, value },
        };
        let begin = self.tick();
        if self.is_awake(node) {
            self.execute(node, begin, request);
        } else {
            self.asleep[node].1.push((begin, request));
        }
    }

    /// A node that wakes executes what has come first of all.
    fn is_awake(&mut self, node: usize) -> bool {
        if self.asleep[node].0 > self.step {
            return false;
        }
        self.world.clocks.of(node).suspend(false);
        let requests = std::mem::take(&mut self.asleep[node].1);
        self.seen.pauses += u64::from(!requests.is_empty());
        for (begin, request) in requests {
            self.execute(node, begin, request);
        }
        true
    }

    fn execute(&mut self, node: usize, begin: Moment, request: Request) {
        let (life, cache) = (self.world.nodes[node].life, self.world.nodes[node].cache.clone());
        let name = |key: usize| format!("register{key}");
        let ((key, value), written) = match request {
            Request::Read { key } => {
                let (read, token) = cache.track(|| cache.get(name(key)));
                let Some(item) = read.ok().flatten() else { return };
                let value = std::str::from_utf8(&item.value).ok().and_then(|text| text.parse().ok());
                self.seen.hits += 1;
                let is_unneeded = cache.status().lease.state == hotspare::LeaseState::Unneeded;
                self.seen.hits_without_lease += u64::from(is_unneeded);
                ((key, value.expect("only numbers are written")), token)
            }
            Request::Write { key, value } => {
                let (stored, token) = cache.track(|| cache.set(name(key), value.to_string(), Expiry::Never));
                if stored.is_err() {
                    return;
                }
                ((key, value), token)
            }
            Request::Delete { key, value } => {
                let (deleted, token) = cache.track(|| cache.delete(name(key)));
                if deleted.is_err() {
                    return;
                }
                ((key, value), token)
            }
        };
        let is_read = matches!(request, Request::Read { .. });
        let operation = Operation { begin, end: None, value, is_read };
        let at_once = cache.ack_mode() == AckMode::Async;
        match written {
            Some(written) if !at_once => {
                let operation = Operation { end: Some(self.step as u64 + PATIENCE_STEPS), ..operation };
                self.waiting.push(Waiting { life, written, key, operation, is_held: false });
            }
            _ => self.note(key, operation),
        }
    }

    fn note(&mut self, key: usize, operation: Operation) {
        let end = self.tick();
        self.seen.writes += u64::from(!operation.is_read);
        self.answered_at = self.step;
        self.histories[key].push(Operation { end: Some(end), ..operation });
    }

    /// Answers whoever can be answered. Who waits at a node that sleeps waits on; at one that died, for ever.
    fn answer(&mut self) {
        let step = self.step;
        for mut waits in std::mem::take(&mut self.waiting) {
            let nodes = &self.world.nodes;
            let node = nodes.iter().position(|node| node.life == waits.life);
            let is_asleep = node.is_some_and(|node| self.asleep[node].0 > step);
            let outcome = node.map(|node| nodes[node].cache.acknowledged(waits.written));
            match outcome {
                _ if is_asleep => self.waiting.push(waits),
                Some(Acknowledgement::Replicated { .. }) => {
                    self.seen.held_reads += u64::from(waits.operation.is_read && waits.is_held);
                    self.note(waits.key, waits.operation);
                }
                Some(Acknowledgement::Unknown { .. })
                    if waits.operation.end.is_some_and(|until| step as u64 <= until) =>
                {
                    waits.is_held = true;
                    self.waiting.push(waits);
                }
                // A read that is answered by an error saw nothing; a write may have happened, or happen yet.
                _ if waits.operation.is_read => {}
                _ => {
                    self.seen.unknown += 1;
                    self.histories[waits.key].push(Operation { end: None, ..waits.operation });
                }
            }
        }
    }

    /// What clients have seen so far; a write that waits may happen yet.
    fn check(&mut self) -> Result<(), String> {
        for waits in self.waiting.drain(..).filter(|waits| !waits.operation.is_read) {
            self.histories[waits.key].push(Operation { end: None, ..waits.operation });
        }
        for (key, history) in self.histories.iter().enumerate() {
            linearizable::check(history).map_err(|why| format!("register{key}: {why}"))?;
        }
        Ok(())
    }

    /// Nobody is left who may be promoted: an operator begins a new group, of which clients know nothing.
    fn begin_anew(&mut self) {
        self.count_misses();
        let seed = self.world.random.random();
        self.world = World::new(seed, self.world.setting);
        self.histories = Default::default();
        self.asleep.iter_mut().for_each(|asleep| *asleep = (0, Vec::new()));
        self.answered_at = self.step;
        self.seen.groups += 1;
    }

    fn count_misses(&mut self) {
        let misses = self.world.nodes.iter().map(|node| node.cache.status().lease.misses);
        self.seen.lease_misses += misses.sum::<u64>();
    }

    fn crash(&mut self) {
        let node = self.world.any_node();
        let follower = self.world.follower(node);
        self.world.restart(node, follower);
        self.asleep[node] = (0, Vec::new());
    }

    /// Cuts one node off from all others, or makes the network whole again.
    fn isolate(&mut self) {
        let (apart, cuts_off) = (NAMES[self.world.any_node()], !self.world.one_in(3));
        let names = self.world.names();
        for (one, other) in names.iter().flat_map(|one| names.iter().map(move |other| (one, other))) {
            let blocked = cuts_off && (*one == apart) != (*other == apart);
            self.world.network.set_blocked(one, other, blocked);
        }
    }

    fn pause(&mut self) {
        let node = self.world.any_node();
        self.asleep[node].0 = self.step + self.world.random.random_range(10..400);
        if self.suspensions.random_range(0..SUSPENSIONS_ONE_IN) == 0 {
            self.seen.suspensions += 1;
            self.asleep[node].0 = self.step + self.suspensions.random_range(400..SUSPENDED_STEPS_MAX);
            self.world.clocks.of(node).suspend(true);
        }
    }

    /// What a fail-over manager does: any node that may be promoted is, whatever the primary does.
    fn promote(&mut self) {
        let node = self.world.any_node();
        let cache = self.world.nodes[node].cache.clone();
        let status = cache.status();
        if status.role == Role::Replica && status.promotable.is_ok() && self.is_awake(node) {
            self.seen.promotions += u64::from(matches!(cache.begin_promotion(false), Ok(Some(_))));
        }
    }
}
