//! Clients that read from any node what was written at a version, or later.
//!
//! Lives here: P13 of the replication design: a read behind `Applied::Reached` shows nothing older. Not here: what a node's
//! items must be otherwise (see `oracle`).

use std::collections::VecDeque;

use hotspare::{Applied, Cache, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::oracle::Concern;

/// How many of the newest writes are waited for.
const WRITES: usize = 16;

/// All of them. They have random numbers of their own, as subscribers have.
pub struct Readers {
    random: StdRng,
    written: VecDeque<(Version, Concern)>,
    is_over: bool,
    /// Reads that waited, how many found an item, and how often a node said that it will never have a write.
    pub waited: [u64; 3],
}

impl Readers {
    /// They have read nothing yet.
    pub fn new(seed: u64) -> Readers {
        let random = StdRng::seed_from_u64(seed ^ 0x5eed_0f2e_ade2);
        Readers { random, written: VecDeque::new(), is_over: false, waited: [0; 3] }
    }

    /// A primary answered a write that changed the items it concerns.
    pub fn wrote(&mut self, version: Version, concern: Concern) {
        if self.written.len() == WRITES {
            self.written.pop_front();
        }
        self.written.push_back((version, concern));
    }

    /// Somebody began the group anew: from now on a version may mean two things.
    pub fn stop(&mut self) {
        self.is_over = true;
    }

    /// One of them reads at some node, if that has what it waits for.
    ///
    /// # Errors
    /// What it was shown that is older, in words.
    pub fn step(&mut self, nodes: &[Cache]) -> Result<(), String> {
        if self.is_over || self.written.is_empty() || self.random.random_range(0..3) != 0 {
            return Ok(());
        }
        let (version, concern) = &self.written[self.random.random_range(0..self.written.len())];
        let cache = &nodes[self.random.random_range(0..nodes.len())];
        match cache.applied(*version) {
            Applied::Reached => {}
            Applied::Diverged => {
                self.waited[2] += 1;
                return Ok(());
            }
            _ => return Ok(()),
        }
        let number = self.random.random_range(0..super::KEYS);
        let (key, oldest) = match concern {
            Concern::Key(key) => (key.clone(), *version),
            Concern::Prefix(prefix) => {
                let longer = [prefix.as_slice(), (number % 10).to_string().as_bytes()].concat();
                (if number % 2 == 0 { prefix.clone() } else { longer }, Version(version.0 + 1))
            }
            Concern::All => (format!("key{number}").into_bytes(), Version(version.0 + 1)),
        };
        // A fenced node refuses.
        let Ok(read) = cache.peek(&key, |item| item.version) else { return Ok(()) };
        self.waited[0] += 1;
        self.waited[1] += u64::from(read.is_some());
        match read.filter(|shown| *shown < oldest) {
            None => Ok(()),
            Some(shown) => {
                Err(format!("{} is shown at {shown:?} behind {version:?} ({concern:?})", key.escape_ascii()))
            }
        }
    }
}
