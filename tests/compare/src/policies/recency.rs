//! One list: LRU, FIFO, CLOCK and SIEVE differ in what a hit does and where the hand looks.

use super::Policy;
use super::list::{Links, List};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Lru,
    Fifo,
    /// A hit marks; the pass sends marked ones to the hot end and takes the mark.
    Clock,
    Sieve,
}

pub struct Recency {
    kind: Kind,
    capacity: u64,
    links: Links,
    list: List,
    sizes: Vec<u32>,
    is_in: Vec<bool>,
    marked: Vec<bool>,
    hand: Option<u32>,
}

impl Recency {
    pub fn new(kind: Kind, capacity: u64, sizes: &[u32]) -> Recency {
        Recency {
            kind,
            capacity,
            links: Links::new(sizes.len()),
            list: List::default(),
            sizes: sizes.to_vec(),
            is_in: vec![false; sizes.len()],
            marked: vec![false; sizes.len()],
            hand: None,
        }
    }

    fn remove(&mut self, key: u32) {
        self.list.remove(&mut self.links, key, self.sizes[key as usize]);
        self.is_in[key as usize] = false;
    }

    fn evict(&mut self) {
        match self.kind {
            Kind::Lru | Kind::Fifo => self.remove(self.list.coldest().unwrap()),
            Kind::Clock => loop {
                let key = self.list.coldest().unwrap();
                if !std::mem::take(&mut self.marked[key as usize]) {
                    return self.remove(key);
                }
                let size = self.sizes[key as usize];
                self.list.remove(&mut self.links, key, size);
                self.list.push_hot(&mut self.links, key, size);
            },
            Kind::Sieve => {
                let mut key = self.hand.or(self.list.coldest()).unwrap();
                while std::mem::take(&mut self.marked[key as usize]) {
                    key = self.links.hotter(key).or(self.list.coldest()).unwrap();
                }
                self.hand = self.links.hotter(key);
                self.remove(key);
            }
        }
    }
}

impl Policy for Recency {
    fn request(&mut self, key: u32, size: u32) -> bool {
        if self.is_in[key as usize] {
            match self.kind {
                Kind::Fifo => {}
                Kind::Lru => {
                    self.list.remove(&mut self.links, key, size);
                    self.list.push_hot(&mut self.links, key, size);
                }
                Kind::Clock | Kind::Sieve => self.marked[key as usize] = true,
            }
            return true;
        }
        if u64::from(size) > self.capacity {
            return false;
        }
        while self.list.bytes + u64::from(size) > self.capacity {
            self.evict();
        }
        self.is_in[key as usize] = true;
        self.marked[key as usize] = false;
        self.list.push_hot(&mut self.links, key, size);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(kind: Kind, requests: &[u32]) -> Vec<bool> {
        let mut cache = Recency::new(kind, 3, &[1; 10]);
        requests.iter().map(|key| cache.request(*key, 1)).collect()
    }

    #[test]
    fn each_kind_does_what_its_paper_says() {
        // 0 1 2 fill it; 0 is read; 3 comes. LRU, CLOCK and SIEVE lose 1, FIFO loses 0.
        let requests = [0, 1, 2, 0, 3, 0, 1];
        let expected = |hit_0, hit_1| vec![false, false, false, true, false, hit_0, hit_1];
        assert_eq!(hits(Kind::Lru, &requests), expected(true, false));
        assert_eq!(hits(Kind::Clock, &requests), expected(true, false));
        assert_eq!(hits(Kind::Sieve, &requests), expected(true, false));
        assert_eq!(hits(Kind::Fifo, &requests), expected(false, false));
    }

    #[test]
    fn the_hand_of_sieve_stays_where_it_was() {
        // 0 is read, 3 evicts 1 and the hand rests on 2; 4 evicts 2 although 0 is older and unmarked now.
        let hits = hits(Kind::Sieve, &[0, 1, 2, 0, 3, 4, 0, 2]);
        assert_eq!(hits[6..], [true, false]);
    }
}
