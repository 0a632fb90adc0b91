//! The kinds of group that are simulated, each a run from one seed.

use super::{Setting, registers, run_with};

/// A kind of group with its own faults and properties.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is called on a command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    run: fn(u64) -> Result<String, String>,
}

/// All of them.
pub const SCENARIOS: [Scenario; 17] = [
    Scenario {
        name: "async",
        what: "three nodes; whatever fails, every property holds and all agree in the end",
        run: |seed| Ok(format!("{:?}", run_with(seed, three_nodes(seed)))),
    },
    Scenario {
        name: "chain",
        what: "three and four nodes in a chain of replicas",
        run: |seed| Ok(format!("{:?}", run_with(seed, chain(seed)))),
    },
    Scenario {
        name: "erring",
        what: "three nodes, whose operator promotes those that hold nothing, too: nobody is emptied",
        run: |seed| Ok(format!("{:?}", run_with(seed, erring(seed)))),
    },
    Scenario {
        name: "reborn",
        what: "a primary that always comes up as one again, empty, and nodes that know only it: nobody is emptied or overruled",
        run: |seed| Ok(format!("{:?}", run_with(seed, reborn(seed)))),
    },
    Scenario {
        name: "founders",
        what: "every node comes up as a primary that names the others: one stays, and nobody who holds items is emptied",
        run: |seed| Ok(format!("{:?}", run_with(seed, founders(seed)))),
    },
    Scenario {
        name: "semi-sync",
        what: "acknowledged writes survive while one of their holders does",
        run: |seed| Ok(format!("{:?}", run_with(seed, semi_sync(seed)))),
    },
    Scenario {
        name: "strict",
        what: "what clients see of a key is linearizable, misses apart",
        run: |seed| registers::run(seed, registers_of(seed, false, true)).map(|seen| format!("{seen:?}")),
    },
    Scenario {
        name: "clocks",
        what: "nothing expired returns and nothing dies early, whatever clocks do",
        run: |seed| Ok(format!("{:?}", run_with(seed, skewed(seed)))),
    },
    Scenario {
        name: "loads",
        what: "clients read through: one loader for the group, and nothing is stored over a newer write",
        run: |seed| Ok(format!("{:?}", run_with(seed, with_loads(seed)))),
    },
    Scenario {
        name: "cascade-acks",
        what: "three and four nodes in a chain, each write waits for a replica of the primary's own",
        run: |seed| Ok(format!("{:?}", run_with(seed, cascade_acks(seed)))),
    },
    Scenario {
        name: "cascade-strict",
        what: "the same chain in strict: what clients see of a key is linearizable, misses apart",
        run: |seed| registers::run(seed, strict_chain(seed)).map(|seen| format!("{seen:?}")),
    },
    Scenario {
        name: "stalls",
        what: "nodes are stopped for a while and go on, and some apply slowly",
        run: |seed| Ok(format!("{:?}", run_with(seed, stalls(seed)))),
    },
    Scenario {
        name: "evictions",
        what: "memory is too small for what is written: a node lacks items, and holds none that is stale",
        run: |seed| Ok(format!("{:?}", run_with(seed, evictions(seed)))),
    },
    Scenario {
        name: "shards",
        what: "caches in four parts, copied and cleared one after the other, in groups of several kinds",
        run: |seed| Ok(format!("{:?}", run_with(seed, in_shards(seed)))),
    },
    Scenario {
        name: "mixed",
        what: "nodes of older versions among those of today, upgraded and set back: nobody is sent what it can't read",
        run: |seed| Ok(format!("{:?}", run_with(seed, mixed(seed)))),
    },
    Scenario {
        name: "spoilt",
        what: "frames cut short, with a bit flipped, or repeated change nothing",
        run: |seed| Ok(format!("{:?}", run_with(seed, spoilt(seed)))),
    },
    Scenario {
        name: "same",
        what: "the same seed gives the same run",
        run: |seed| match run_with(seed, three_nodes(seed)) == run_with(seed, three_nodes(seed)) {
            true => Ok("the same".to_owned()),
            false => Err("two runs differ".to_owned()),
        },
    },
];

impl Scenario {
    /// Runs one seed, and says what happened in it.
    ///
    /// # Errors
    /// What did not hold.
    ///
    /// # Panics
    /// Most properties that do not hold are told by a panic.
    pub fn run(&self, seed: u64) -> Result<String, String> {
        (self.run)(seed)
    }
}

/// A third of the seeds have full copies and hints on channels of their own, as over QUIC.
fn is_apart(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

/// Three nodes, one of them primary.
pub fn three_nodes(seed: u64) -> Setting {
    Setting { channels_apart: is_apart(seed), ..Setting::default() }
}

/// Three nodes and four, in turn, each a replica of the one before it.
pub fn chain(seed: u64) -> Setting {
    let nodes = 3 + (seed % 2) as usize;
    Setting { nodes, chain: true, channels_apart: is_apart(seed), ..Setting::default() }
}

/// Three nodes, whose operator promotes those that hold nothing, too.
pub fn erring(_seed: u64) -> Setting {
    Setting { errs: true, ..Setting::default() }
}

/// Three nodes without certificates or a secret that know only the first, which always comes up as a primary.
pub fn reborn(_seed: u64) -> Setting {
    Setting { reborn: true, unproven: true, ..Setting::default() }
}

/// Two nodes and three, in turn, each of which comes up as a primary that names all others; half of them prove nothing.
pub fn founders(seed: u64) -> Setting {
    let (nodes, unproven) = (2 + (seed % 2) as usize, seed % 4 < 2);
    Setting { nodes, founds: true, unproven, ..Setting::default() }
}

/// Two nodes and three, in turn; each write waits for all others, or for one of two.
pub fn semi_sync(seed: u64) -> Setting {
    let fewer_acks = seed % 4 == 3;
    let (nodes, channels_apart) = (2 + (seed % 2) as usize, is_apart(seed));
    Setting { nodes, fewer_acks, semi_sync: true, channels_apart, ..Setting::default() }
}

/// Pairs, three nodes where each write waits for both others, and three where it waits for one; each on a clock of its own.
pub fn registers_of(seed: u64, semi_sync: bool, strict: bool) -> Setting {
    let nodes = if seed.is_multiple_of(3) { 2 } else { 3 };
    let (fewer_acks, channels_apart) = (seed % 3 == 2, seed.is_multiple_of(4));
    Setting { nodes, fewer_acks, semi_sync, strict, drifts: true, channels_apart, ..Setting::default() }
}

/// Three nodes whose clocks are off and run wrong.
pub fn skewed(seed: u64) -> Setting {
    Setting { skewed_clocks: true, channels_apart: is_apart(seed), ..Setting::default() }
}

/// Chains, groups that wait for acks, wrong clocks and plain ones, in turn: clients read through in all of them.
pub fn with_loads(seed: u64) -> Setting {
    let setting = match seed % 4 {
        0 => chain(seed),
        1 => semi_sync(seed),
        2 => skewed(seed),
        _ => Setting::default(),
    };
    Setting { loads: true, ..setting }
}

/// Three nodes and four, in turn, in a chain; a primary waits for one replica, as it has no more that follow it itself.
pub fn cascade_acks(seed: u64) -> Setting {
    Setting { semi_sync: true, fewer_acks: true, ..chain(seed) }
}

/// The same in strict, each node on a clock of its own.
pub fn strict_chain(seed: u64) -> Setting {
    Setting { strict: true, fewer_acks: true, drifts: true, ..chain(seed) }
}

/// Plain groups, chains, and groups that wait for acks, in turn, whose nodes are stopped, and some of them slow.
pub fn stalls(seed: u64) -> Setting {
    let setting = match seed % 3 {
        0 => three_nodes(seed),
        1 => chain(seed),
        _ => semi_sync(seed),
    };
    Setting { stalls: true, ..setting }
}

/// Three nodes that hold a part of what is written, and evict all the time.
pub fn evictions(seed: u64) -> Setting {
    Setting { evicts: true, ..three_nodes(seed) }
}

/// Plain groups, chains, groups that wait for acks, and those whose nodes are stopped, in turn, whose caches are in parts: a node
/// copied anew clears one in each of its turns, a copy goes through one after the other, and its log says of each when it is whole.
pub fn in_shards(seed: u64) -> Setting {
    let setting = match seed % 4 {
        0 => three_nodes(seed),
        1 => chain(seed),
        2 => semi_sync(seed),
        _ => stalls(seed),
    };
    Setting { shards: 4, ..setting }
}

/// Groups of several kinds whose nodes are of any version; some of their clients read through.
pub fn mixed(seed: u64) -> Setting {
    let setting = match seed % 8 {
        0 | 4 => three_nodes(seed),
        1 => semi_sync(seed),
        // Where one of two replicas is enough, it matters who has forgotten what it promised.
        5 => Setting { fewer_acks: true, ..semi_sync(seed) },
        _ => Setting { loads: true, ..three_nodes(seed) },
    };
    Setting { mixed: true, ..setting }
}

/// Plain groups, and groups that wait for acks, whose wires spoil frames.
pub fn spoilt(seed: u64) -> Setting {
    let setting = if seed.is_multiple_of(2) { three_nodes(seed) } else { semi_sync(seed) };
    Setting { spoils: true, ..setting }
}
