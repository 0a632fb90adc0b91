//! The nodes' clocks: the same for all, or each wrong in its own way.

use std::sync::Arc;

use hotspare::ManualClock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// When it all begins.
const START_MS: u64 = 1_000_000_000;

/// How far a clock is off when its node starts, at most: an hour.
const SKEW_MS: u64 = 3_600_000;

/// How much too fast or slow one runs, at most, in thousandths.
const DRIFT_PERMILLE: u64 = 50;

/// A clock for each node.
pub struct Clocks {
    random: StdRng,
    are_skewed: bool,
    passed_ms: u64,
    nodes: Vec<(Arc<ManualClock>, u64)>,
}

impl Clocks {
    /// Clocks for so many nodes.
    pub fn new(seed: u64, nodes: usize, are_skewed: bool) -> Clocks {
        let random = StdRng::seed_from_u64(seed ^ 0xc10c);
        let mut clocks = Clocks { random, are_skewed, passed_ms: 0, nodes: Vec::new() };
        for _ in 0..nodes {
            let node = clocks.anchored();
            clocks.nodes.push(node);
        }
        clocks
    }

    /// A clock as a starting node finds it, and how fast it runs.
    fn anchored(&mut self) -> (Arc<ManualClock>, u64) {
        let true_ms = START_MS + self.passed_ms;
        if !self.are_skewed {
            return (Arc::new(ManualClock::new(true_ms)), 1_000);
        }
        let shown_ms = self.random.random_range(true_ms - SKEW_MS..=true_ms + SKEW_MS);
        let rate = self.random.random_range(1_000 - DRIFT_PERMILLE..=1_000 + DRIFT_PERMILLE);
        (Arc::new(ManualClock::new(shown_ms)), rate)
    }

    /// A node starts again: its clock may have been set meanwhile.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = self.anchored();
    }

    /// The clock of a node.
    pub fn of(&self, node: usize) -> Arc<ManualClock> {
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
        }
    }
}
