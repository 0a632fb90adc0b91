//! A whole group in one thread, on virtual time, from one seed.
//!
//! Lives here: what a group is like, and one run of it. Not here: what the run did (see `summary`), its nodes and clients (see `world`), what
//! goes wrong (see `faults`), what must hold (see `checks` and `oracle`), the kinds of group (see `scenarios`).
//!
//! Faults: links cut, directions blocked, nodes crashed with their memory lost and restarted (as followers, or as
//! a primary that forgot), promotions at any moment, logs of a few kilobytes; where the setting says so nodes that are
//! stopped and go on, slow ones, too little memory, older versions, frames spoilt. The same seed gives the same run.

mod checks;
pub mod clients;
pub mod clocks;
mod faults;
#[cfg(test)]
mod forgetful;
pub mod loaders;
pub mod oracle;
pub mod readers;
mod reborn;
pub mod registers;
pub mod scenarios;
#[cfg(test)]
mod seeds;
pub mod subscribers;
mod summary;
mod wire;
mod world;

use hotspare::Bug;

pub use summary::Summary;
use world::World;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: u32 = 40;

/// Steps with faults.
const STEPS: usize = 3_000;

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
    /// Whether leases are counted by a clock that stands still while the machine is suspended: a mistake of an embedder's.
    pub leases_stand_still: bool,
    /// Whether one ack less is enough: then a promotion has to ask others.
    pub fewer_acks: bool,
    /// Whether an operator promotes nodes that hold nothing, too.
    pub errs: bool,
    /// Whether nodes know only the first one, which comes up again as a primary whenever it has crashed, and peers prove nothing;
    /// an operator promotes whomever he likes, without force.
    pub reborn: bool,
    /// Whether every node comes up as a primary that names all others, each time.
    pub founds: bool,
    /// Whether peers prove nothing.
    pub unproven: bool,
    /// A bug that every node has.
    pub bug: Option<Bug>,
    /// Whether full copies and hints have channels of their own, which reorder against the log; hints are lost, too.
    pub channels_apart: bool,
    /// Whether the nodes' clocks are up to an hour off when they start, and run 5 % too fast or slow.
    pub skewed_clocks: bool,
    /// Whether clients read through.
    pub loads: bool,
    /// Whether nodes are stopped for a while and go on, and some are slow all the time.
    pub stalls: bool,
    /// Whether the memory is too small for what is written.
    pub evicts: bool,
    /// Into how many parts each cache is divided.
    pub shards: usize,
    /// Whether nodes are of older versions, each of another one in each of its lives.
    pub mixed: bool,
    /// Whether frames arrive cut short, with a bit flipped, or twice.
    pub spoils: bool,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            nodes: 3,
            chain: false,
            semi_sync: false,
            strict: false,
            drifts: false,
            leases_stand_still: false,
            fewer_acks: false,
            errs: false,
            reborn: false,
            founds: false,
            unproven: false,
            bug: None,
            channels_apart: false,
            skewed_clocks: false,
            loads: false,
            stalls: false,
            evicts: false,
            shards: 1,
            mixed: false,
            spoils: false,
        }
    }
}

/// Runs one seed; panics with the seed and the property that does not hold.
pub fn run(seed: u64) -> Summary {
    run_with(seed, Setting::default())
}

/// [`run`], for another kind of group.
pub fn run_with(seed: u64, setting: Setting) -> Summary {
    let mut world = World::new(seed, setting);
    for step in 0..STEPS {
        world.stall();
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
    world.summary.spoilt = world.notes.lock().unwrap().spoilt;
    world.summary.told = world.subscribers.told;
    world.summary
}
