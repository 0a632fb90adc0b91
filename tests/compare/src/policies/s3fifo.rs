//! S3-FIFO: a small queue of a tenth, a main queue with two bits of frequency, and a ghost queue of keys as many as fit
//! the main one (Yang et al., SOSP 2023).

use std::collections::VecDeque;

use super::Policy;
use super::list::{Links, List};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Out,
    Small,
    Main,
}

pub struct S3Fifo {
    capacity: u64,
    small_bytes: u64,
    links: Links,
    small: List,
    main: List,
    sizes: Vec<u32>,
    place: Vec<Where>,
    frequency: Vec<u8>,
    ghost: VecDeque<u32>,
    ghost_bytes: u64,
    /// How often the key is in the ghost queue.
    in_ghost: Vec<u32>,
}

impl S3Fifo {
    pub fn new(capacity: u64, sizes: &[u32]) -> S3Fifo {
        S3Fifo {
            capacity,
            small_bytes: (capacity / 10).max(1),
            links: Links::new(sizes.len()),
            small: List::default(),
            main: List::default(),
            sizes: sizes.to_vec(),
            place: vec![Where::Out; sizes.len()],
            frequency: vec![0; sizes.len()],
            ghost: VecDeque::new(),
            ghost_bytes: 0,
            in_ghost: vec![0; sizes.len()],
        }
    }

    fn remember(&mut self, key: u32) {
        self.ghost.push_back(key);
        self.in_ghost[key as usize] += 1;
        self.ghost_bytes += u64::from(self.sizes[key as usize]);
        while self.ghost_bytes > self.capacity - self.small_bytes {
            let oldest = self.ghost.pop_front().unwrap();
            self.in_ghost[oldest as usize] -= 1;
            self.ghost_bytes -= u64::from(self.sizes[oldest as usize]);
        }
    }

    fn evict(&mut self) {
        if self.small.bytes >= self.small_bytes || self.main.len == 0 {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some(key) = self.small.coldest() {
            let size = self.sizes[key as usize];
            self.small.remove(&mut self.links, key, size);
            if self.frequency[key as usize] > 1 {
                self.frequency[key as usize] = 0;
                self.place[key as usize] = Where::Main;
                self.main.push_hot(&mut self.links, key, size);
            } else {
                self.place[key as usize] = Where::Out;
                return self.remember(key);
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.coldest() {
            let size = self.sizes[key as usize];
            self.main.remove(&mut self.links, key, size);
            if self.frequency[key as usize] > 0 {
                self.frequency[key as usize] -= 1;
                self.main.push_hot(&mut self.links, key, size);
            } else {
                self.place[key as usize] = Where::Out;
                return;
            }
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.place[key as usize] != Where::Out {
            self.frequency[key as usize] = (self.frequency[key as usize] + 1).min(3);
            return true;
        }
        if u64::from(size) > self.capacity {
            return false;
        }
        while self.small.bytes + self.main.bytes + u64::from(size) > self.capacity {
            self.evict();
        }
        self.frequency[key as usize] = 0;
        if self.in_ghost[key as usize] > 0 {
            self.place[key as usize] = Where::Main;
            self.main.push_hot(&mut self.links, key, size);
        } else {
            self.place[key as usize] = Where::Small;
            self.small.push_hot(&mut self.links, key, size);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_back_from_the_ghost_queue_survives_a_scan() {
        let mut cache = S3Fifo::new(10, &[1; 100]);
        for key in (0..12).chain([0]) {
            assert!(!cache.request(key, 1));
        }
        for key in 20..40 {
            cache.request(key, 1);
        }
        assert!(cache.request(0, 1), "it is in the main queue");
        assert!(!cache.request(5, 1));
    }
}
