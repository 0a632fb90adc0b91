//! The candidates for our engine: a hit only marks; everything moves when something is evicted.

use std::collections::VecDeque;

use super::Policy;
use super::list::{Links, List};

/// What is tried.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Tenths of a percent of the capacity that the probation queue has.
    pub probation: u64,
    /// A marked item leaves probation to the main queue at this many hits.
    pub hits_to_promote: u8,
    /// The largest count of hits; 1 is a mark.
    pub hits_max: u8,
    /// In percent of the capacity.
    pub ghost: u64,
    /// Whether the probation queue's size follows where ghosts hit.
    pub adapts: bool,
    /// Whether items that the main queue evicted are remembered too.
    pub main_ghosts: bool,
    /// In tenths of a percent of the capacity: what an adapting probation queue has at least and at most.
    pub least: u64,
    pub most: u64,
    /// Bytes evicted from probation for which the main queue looks at one byte of its own; 0 is never.
    pub decay: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Out,
    Probation,
    Main,
}

pub struct Queues {
    shape: Shape,
    capacity: u64,
    probation_bytes: u64,
    links: Links,
    probation: List,
    main: List,
    sizes: Vec<u32>,
    place: Vec<Where>,
    hits: Vec<u8>,
    /// Evicted from probation, and from the main queue.
    ghosts: [Ghosts; 2],
    owed: u64,
}

#[derive(Default)]
struct Ghosts {
    queue: VecDeque<(u32, u32)>,
    bytes: u64,
    /// By key: the stamp of its entry in the queue, 0 for none.
    stamps: Vec<u32>,
    stamp: u32,
}

impl Ghosts {
    fn add(&mut self, key: u32, sizes: &[u32], bytes_max: u64) {
        self.stamp += 1;
        self.stamps[key as usize] = self.stamp;
        self.queue.push_back((key, self.stamp));
        self.bytes += u64::from(sizes[key as usize]);
        while self.bytes > bytes_max {
            let (oldest, stamp) = self.queue.pop_front().unwrap();
            self.bytes -= u64::from(sizes[oldest as usize]);
            if self.stamps[oldest as usize] == stamp {
                self.stamps[oldest as usize] = 0;
            }
        }
    }

    fn take(&mut self, key: u32) -> bool {
        std::mem::take(&mut self.stamps[key as usize]) != 0
    }
}

impl Queues {
    pub fn new(shape: Shape, capacity: u64, sizes: &[u32]) -> Queues {
        let ghosts = || Ghosts { stamps: vec![0; sizes.len()], ..Ghosts::default() };
        Queues {
            shape,
            capacity,
            probation_bytes: (capacity * shape.probation / 1000).max(1),
            links: Links::new(sizes.len()),
            probation: List::default(),
            main: List::default(),
            sizes: sizes.to_vec(),
            place: vec![Where::Out; sizes.len()],
            hits: vec![0; sizes.len()],
            ghosts: [ghosts(), ghosts()],
            owed: 0,
        }
    }

    fn evict(&mut self) {
        let from_probation = self.probation.bytes >= self.probation_bytes || self.main.len == 0;
        // So that the main queue goes round once while `decay` tenths of the capacity are evicted from probation.
        let cost = |key: u32| {
            u64::from(self.sizes[key as usize]) * self.shape.decay * (self.main.bytes + self.probation.bytes)
                / self.main.bytes.max(1)
                / 10
        };
        if let Some(cost) = self.main.coldest().map(cost)
            && self.shape.decay > 0
            && self.owed >= cost
        {
            self.owed -= cost;
            return self.look_at_main();
        }
        if from_probation { self.evict_probation() } else { self.evict_main() }
    }

    fn evict_probation(&mut self) {
        while let Some(key) = self.probation.coldest() {
            let size = self.sizes[key as usize];
            self.probation.remove(&mut self.links, key, size);
            if self.hits[key as usize] >= self.shape.hits_to_promote {
                self.hits[key as usize] = 0;
                self.place[key as usize] = Where::Main;
                self.main.push_hot(&mut self.links, key, size);
            } else {
                self.place[key as usize] = Where::Out;
                let bytes_max = self.capacity * self.shape.ghost / 100;
                self.owed += u64::from(size);
                return self.ghosts[0].add(key, &self.sizes, bytes_max);
            }
        }
    }

    /// The coldest of the main queue uses a hit up and goes round, or leaves.
    fn look_at_main(&mut self) {
        let Some(key) = self.main.coldest() else { return };
        let size = self.sizes[key as usize];
        self.main.remove(&mut self.links, key, size);
        if self.hits[key as usize] > 0 {
            self.hits[key as usize] -= 1;
            self.main.push_hot(&mut self.links, key, size);
        } else {
            self.place[key as usize] = Where::Out;
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.coldest() {
            let size = self.sizes[key as usize];
            self.main.remove(&mut self.links, key, size);
            if self.hits[key as usize] > 0 {
                self.hits[key as usize] -= 1;
                self.main.push_hot(&mut self.links, key, size);
            } else {
                self.place[key as usize] = Where::Out;
                let bytes_max = self.capacity * self.shape.ghost / 100;
                if self.shape.main_ghosts {
                    self.ghosts[1].add(key, &self.sizes, bytes_max);
                }
                return;
            }
        }
    }

    /// A ghost that hits says that its queue was too small.
    fn adapt(&mut self, of_probation: bool, size: u32) {
        if !self.shape.adapts {
            return;
        }
        let (small, large) =
            (self.capacity * self.shape.least / 1000 + 1, self.capacity * self.shape.most / 1000);
        let step = u64::from(size);
        self.probation_bytes = if of_probation {
            let weight = (self.ghosts[1].bytes / self.ghosts[0].bytes.max(1)).clamp(1, 20);
            (self.probation_bytes + step * weight).min(large)
        } else {
            let weight = (self.ghosts[0].bytes / self.ghosts[1].bytes.max(1)).clamp(1, 20);
            self.probation_bytes.saturating_sub(step * weight).max(small)
        };
    }
}

impl Policy for Queues {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.place[key as usize] != Where::Out {
            self.hits[key as usize] = (self.hits[key as usize] + 1).min(self.shape.hits_max);
            return true;
        }
        if u64::from(size) > self.capacity {
            return false;
        }
        let was_probation_ghost = self.ghosts[0].take(key);
        let was_main_ghost = self.ghosts[1].take(key);
        if was_probation_ghost || was_main_ghost {
            self.adapt(was_probation_ghost, size);
        }
        while self.probation.bytes + self.main.bytes + u64::from(size) > self.capacity {
            self.evict();
        }
        self.hits[key as usize] = 0;
        if was_probation_ghost {
            self.place[key as usize] = Where::Main;
            self.main.push_hot(&mut self.links, key, size);
        } else {
            self.place[key as usize] = Where::Probation;
            self.probation.push_hot(&mut self.links, key, size);
        }
        false
    }
}
