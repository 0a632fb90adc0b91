//! The nodes' clocks: the same for all, or each wrong in its own way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hotspare::{Clock, Millis};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Setting;

/// When it all begins.
const START_MS: u64 = 1_000_000_000;

/// How far a clock is off when its node starts, at most: an hour.
const SKEW_MS: u64 = 3_600_000;

/// How much too fast or slow one runs, at most, in thousandths.
const DRIFT_PERMILLE: u64 = 50;

/// One in so many moves of time sets a wrong wall clock anew.
const WALL_STEPS_ONE_IN: u32 = 50;

/// What a machine has: the clock that stands still while the machine is suspended, the one that goes on, and the one on
/// the wall, which anybody may set.
#[derive(Debug)]
pub struct NodeClock {
    now_ms: AtomicU64,
    lease_ms: AtomicU64,
    wall_ms: AtomicU64,
    is_suspended: AtomicBool,
    leases_stand_still: bool,
}

impl NodeClock {
    fn new(now_ms: Millis, leases_stand_still: bool) -> NodeClock {
        let [now_ms, lease_ms, wall_ms] = [now_ms; 3].map(AtomicU64::new);
        NodeClock { now_ms, lease_ms, wall_ms, is_suspended: AtomicBool::new(false), leases_stand_still }
    }

    fn advance_ms(&self, by_ms: u64) {
        if !self.is_suspended.load(Ordering::SeqCst) {
            self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
        }
        self.lease_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// From now on the machine is suspended, or goes on.
    pub fn suspend(&self, is_suspended: bool) {
        self.is_suspended.store(is_suspended, Ordering::SeqCst);
    }
}

impl Clock for NodeClock {
    fn now_ms(&self) -> Millis {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> Millis {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn lease_ms(&self) -> Millis {
        match self.leases_stand_still {
            true => self.now_ms(),
            false => self.lease_ms.load(Ordering::SeqCst),
        }
    }
}

/// A clock for each node.
pub struct Clocks {
    random: StdRng,
    /// Beside the other numbers, which come as they always came.
    steps: StdRng,
    are_skewed: bool,
    leases_stand_still: bool,
    passed_ms: u64,
    nodes: Vec<(Arc<NodeClock>, u64)>,
}

impl Clocks {
    /// Clocks for the nodes of a group.
    pub fn new(seed: u64, setting: Setting) -> Clocks {
        let are_skewed = setting.skewed_clocks || setting.drifts;
        let random = StdRng::seed_from_u64(seed ^ 0xc10c);
        let steps = StdRng::seed_from_u64(seed ^ 0x57e9);
        let leases_stand_still = setting.leases_stand_still;
        let mut clocks =
            Clocks { random, steps, are_skewed, leases_stand_still, passed_ms: 0, nodes: Vec::new() };
        for _ in 0..setting.nodes {
            let node = clocks.anchored();
            clocks.nodes.push(node);
        }
        clocks
    }

    /// A clock as a starting node finds it, and how fast it runs.
    fn anchored(&mut self) -> (Arc<NodeClock>, u64) {
        let true_ms = START_MS + self.passed_ms;
        if !self.are_skewed {
            return (Arc::new(NodeClock::new(true_ms, self.leases_stand_still)), 1_000);
        }
        let shown_ms = self.random.random_range(true_ms - SKEW_MS..=true_ms + SKEW_MS);
        let rate = self.random.random_range(1_000 - DRIFT_PERMILLE..=1_000 + DRIFT_PERMILLE);
        (Arc::new(NodeClock::new(shown_ms, self.leases_stand_still)), rate)
    }

    /// A node starts again: its clock may have been set meanwhile.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = self.anchored();
    }

    /// The clock of a node.
    pub fn of(&self, node: usize) -> Arc<NodeClock> {
        self.nodes[node].0.clone()
    }

    /// Time passes.
    pub fn advance_ms(&mut self, ms: u64) {
        self.passed_ms += ms;
        for (clock, rate) in &self.nodes {
            // Whole milliseconds by chance, so that short steps drift as well.
            let exact = ms * rate;
            let up = if *rate == 1_000 { 0 } else { self.random.random_range(0..1_000) };
            clock.advance_ms((exact + up) / 1_000);
            if self.are_skewed && self.steps.random_range(0..WALL_STEPS_ONE_IN) == 0 {
                let true_ms = START_MS + self.passed_ms;
                let set_ms = self.steps.random_range(true_ms - SKEW_MS..=true_ms + SKEW_MS);
                clock.wall_ms.store(set_ms, Ordering::SeqCst);
            }
        }
    }
}
