//! W-TinyLFU: a window of 1 % under LRU, a main cache under segmented LRU, and between them a sketch of how often each
//! key was wanted (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017).
//!
//! Lives here: the policy with a window of one size, and its sketch. Not here: a window that adapts, a doorkeeper.
//!
//! ```text
//!   new --> [ window 1 % ] --candidate--> (wanted more often than the victims?) --> [ probation | protected 80 % ]
//! ```
//! The paper knows no sizes. As in moka, a candidate must be wanted more often than all the victims together that would
//! make room for it; for items of one size that is the paper's rule.

use Segment::{Probation, Protected, Window};

use super::list::{Links, List};
use super::{Policy, entries};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Segment {
    Window,
    Probation,
    Protected,
}

/// 1. The lists' bytes are at most `window_bytes_max + main_bytes_max`, which is the capacity.
/// 2. Protected ones have at most `protected_bytes_max`.
/// 3. A key is in the list that `place` names, and in no other.
pub struct TinyLfu {
    window_bytes_max: u64,
    main_bytes_max: u64,
    protected_bytes_max: u64,
    links: Links,
    /// By segment.
    lists: [List; 3],
    sizes: Vec<u32>,
    place: Vec<Option<Segment>>,
    sketch: Sketch,
}

impl TinyLfu {
    pub fn new(capacity: u64, sizes: &[u32]) -> TinyLfu {
        let window_bytes_max = (capacity / 100).max(1).min(capacity);
        let main_bytes_max = capacity - window_bytes_max;
        TinyLfu {
            window_bytes_max,
            main_bytes_max,
            protected_bytes_max: main_bytes_max * 80 / 100,
            links: Links::new(sizes.len()),
            lists: Default::default(),
            sizes: sizes.to_vec(),
            place: vec![None; sizes.len()],
            sketch: Sketch::new(entries(capacity, sizes)),
        }
    }

    fn bytes(&self, segment: Segment) -> u64 {
        self.lists[segment as usize].bytes
    }

    fn coldest(&self, segment: Segment) -> Option<u32> {
        self.lists[segment as usize].coldest()
    }

    /// Takes the key out of its list, if it is in one, and puts it at the hot end of another or of the same.
    fn send(&mut self, key: u32, to: Option<Segment>) {
        let size = self.sizes[key as usize];
        if let Some(from) = std::mem::replace(&mut self.place[key as usize], to) {
            self.lists[from as usize].remove(&mut self.links, key, size);
        }
        if let Some(to) = to {
            self.lists[to as usize].push_hot(&mut self.links, key, size);
        }
    }

    fn hit(&mut self, key: u32, segment: Segment) {
        self.send(key, Some(if segment == Window { Window } else { Protected }));
        while self.bytes(Protected) > self.protected_bytes_max {
            let coldest = self.coldest(Protected).expect("it has bytes");
            self.send(coldest, Some(Probation));
        }
    }

    /// A candidate from the window, or one too large for it, against those whose turn in the main cache it is.
    fn admit_or_drop(&mut self, candidate: u32) {
        let size = u64::from(self.sizes[candidate as usize]);
        if size > self.main_bytes_max {
            return self.send(candidate, None);
        }
        let wanted = u32::from(self.sketch.count(candidate));
        let mut free = self.main_bytes_max - self.bytes(Probation) - self.bytes(Protected);
        let mut victims = Vec::new();
        let mut victims_wanted = 0;
        let (mut probation, mut protected) = (self.coldest(Probation), self.coldest(Protected));
        while free < size {
            let victim = probation.or(protected).expect("the candidate is no larger than the main cache");
            victims_wanted += u32::from(self.sketch.count(victim));
            if victims_wanted >= wanted {
                return self.send(candidate, None);
            }
            free += u64::from(self.sizes[victim as usize]);
            victims.push(victim);
            if probation.is_some() {
                probation = self.links.hotter(victim);
            } else {
                protected = self.links.hotter(victim);
            }
        }
        for victim in victims {
            self.send(victim, None);
        }
        self.send(candidate, Some(Probation));
    }
}

impl Policy for TinyLfu {
    fn request(&mut self, key: u32, size: u32) -> bool {
        self.sketch.add(key);
        if let Some(segment) = self.place[key as usize] {
            self.hit(key, segment);
            return true;
        }
        if u64::from(size) > self.window_bytes_max {
            // Through the window it would only push everything else out.
            self.admit_or_drop(key);
            return false;
        }
        self.send(key, Some(Window));
        while self.bytes(Window) > self.window_bytes_max {
            let coldest = self.coldest(Window).expect("it has bytes");
            self.admit_or_drop(coldest);
        }
        false
    }
}

const ROWS: usize = 4;
const COUNT_MAX: u8 = 15;
/// Requests an entry of the capacity after which all counts are halved.
const SAMPLE: u64 = 10;

/// A count-min sketch whose counts age. A count takes 4 bits in a real cache; here it has a byte and stops at 15.
struct Sketch {
    rows: [Vec<u8>; ROWS],
    added: u64,
    added_max: u64,
}

impl Sketch {
    /// Four counts an entry and row, as Caffeine has them.
    fn new(entries: usize) -> Sketch {
        let width = (4 * entries.max(16)).next_power_of_two();
        Sketch {
            rows: std::array::from_fn(|_| vec![0; width]),
            added: 0,
            added_max: SAMPLE * entries.max(16) as u64,
        }
    }

    fn position(&self, row: usize, key: u32) -> usize {
        const SEEDS: [u64; ROWS] =
            [0xc3a5_c85c_97cb_3127, 0xb492_b66f_be98_f273, 0x9ae1_6a3b_2f90_404f, 0xcbf2_9ce4_8422_2325];
        let mut hash = (u64::from(key) + 1).wrapping_mul(SEEDS[row]);
        hash = (hash ^ (hash >> 32)).wrapping_mul(SEEDS[row]);
        (hash >> 32) as usize & (self.rows[row].len() - 1)
    }

    /// At least the true count since the last halving, up to 15.
    fn count(&self, key: u32) -> u8 {
        (0..ROWS).map(|row| self.rows[row][self.position(row, key)]).min().expect("there are rows")
    }

    fn add(&mut self, key: u32) {
        for row in 0..ROWS {
            let at = self.position(row, key);
            let count = &mut self.rows[row][at];
            *count = (*count + 1).min(COUNT_MAX);
        }
        self.added += 1;
        if self.added >= self.added_max {
            self.rows.iter_mut().flatten().for_each(|count| *count /= 2);
            self.added /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Random;

    #[test]
    fn a_scan_pushes_out_nothing_that_is_wanted_more_often() {
        let mut cache = TinyLfu::new(100, &[1; 2000]);
        for _ in 0..3 {
            (0..90).for_each(|key| _ = cache.request(key, 1));
        }
        // Less than ten requests an entry in all, so that no count is halved on the way.
        (1000..1500).for_each(|key| _ = cache.request(key, 1));
        let hits = (0..90).filter(|key| cache.request(*key, 1)).count();
        assert_eq!(hits, 90);
    }

    #[test]
    fn yesterdays_favourites_give_way_once_counts_are_halved() {
        let mut cache = TinyLfu::new(100, &[1; 400]);
        for _ in 0..20 {
            (0..100).for_each(|key| _ = cache.request(key, 1));
        }
        assert!(!cache.request(200, 1) && !cache.request(201, 1), "each favourite is worth 15 of such");
        for _ in 0..40 {
            (200..300).for_each(|key| _ = cache.request(key, 1));
        }
        let hits = (200..300).filter(|key| cache.request(*key, 1)).count();
        assert!(hits >= 90, "{hits} of the new favourites are in");
    }

    #[test]
    fn a_large_candidate_must_outweigh_all_its_victims_together() {
        let mut sizes = vec![10; 50];
        sizes[40] = 50;
        let mut cache = TinyLfu::new(101, &sizes);
        for _ in 0..2 {
            (0..10).for_each(|key| _ = cache.request(key, 10));
        }
        // Five victims at two requests each are worth ten.
        for _ in 0..10 {
            assert!(!cache.request(40, 50));
        }
        assert!(!cache.request(40, 50), "the eleventh request admits it");
        assert!(cache.request(40, 50));
    }

    #[test]
    fn a_count_is_never_below_the_truth_and_stops_at_fifteen() {
        let mut sketch = Sketch::new(1000);
        for key in 0..400 {
            (0..=key % 20).for_each(|_| sketch.add(key));
        }
        for key in 0..400 {
            let truth = (key % 20 + 1).min(15) as u8;
            assert!((truth..=COUNT_MAX).contains(&sketch.count(key)), "key {key}");
        }
    }

    #[test]
    fn the_lists_hold_what_places_say_and_no_more_than_the_capacity() {
        let mut random = Random::new(5);
        let sizes: Vec<u32> = (0..300).map(|_| 1 + random.below(60) as u32).collect();
        for capacity in [1, 7, 100, 1500] {
            let mut cache = TinyLfu::new(capacity, &sizes);
            for _ in 0..5000 {
                let key = (random.below(300) * random.below(300) / 300) as u32;
                let was_in = cache.place[key as usize].is_some();
                assert_eq!(cache.request(key, sizes[key as usize]), was_in);
                for segment in [Window, Probation, Protected] {
                    let of_segment = (0..300).filter(|key| cache.place[*key] == Some(segment));
                    let bytes: u64 = of_segment.map(|key| u64::from(sizes[key])).sum();
                    assert_eq!(cache.bytes(segment), bytes, "{segment:?}");
                }
                assert!(cache.bytes(Window) <= cache.window_bytes_max);
                assert!(cache.bytes(Probation) + cache.bytes(Protected) <= cache.main_bytes_max);
                assert!(cache.bytes(Protected) <= cache.protected_bytes_max);
            }
        }
    }
}
