//! A generated request stream: popular keys that drift, and scans between them.
//!
//! The popularity is Zipf's with exponent 0.9; every 1 000 requests the popular keys move on by a few, as a day's
//! do; every 50 000 requests a scan of 2 000 keys comes by that nobody asks for again.

use super::trace::Request;

/// Requests in a stream.
const REQUESTS: u64 = 600_000;

/// Keys that are popular to some degree.
const KEYS: usize = 60_000;

const ZIPF_EXPONENT: f64 = 0.9;
const DRIFT_EVERY: u64 = 1_000;
const DRIFT_KEYS: u64 = 20;
const SCAN_EVERY: u64 = 50_000;
const SCAN_KEYS: u64 = 2_000;

/// The same requests for the same seed.
#[derive(Debug, Clone)]
pub struct GeneratedStream {
    state: u64,
    played: u64,
    /// `cumulative[i]` is the share of requests for the `i + 1` most popular keys.
    cumulative: Vec<f64>,
}

impl GeneratedStream {
    /// A stream of 600 000 requests.
    pub fn new(seed: u64) -> GeneratedStream {
        let weights = (1..=KEYS).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT));
        let mut cumulative: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = cumulative.last().copied().unwrap_or(1.0);
        cumulative.iter_mut().for_each(|sum| *sum /= total);
        GeneratedStream { state: seed, played: 0, cumulative }
    }

    /// A number in 0..1 (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
    fn next_fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Iterator for GeneratedStream {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.played == REQUESTS {
            return None;
        }
        let played = self.played;
        self.played += 1;
        let into_scan = played % SCAN_EVERY;
        let key = if played >= SCAN_EVERY && into_scan < SCAN_KEYS {
            format!("scan:{}:{into_scan}", played / SCAN_EVERY)
        } else {
            let fraction = self.next_fraction();
            let rank = self.cumulative.partition_point(|share| *share < fraction) as u64;
            // A rank's key changes with time: the drift. The multiplier, odd, spreads neighbours over the keys.
            let key = (rank.wrapping_mul(40_503) + played / DRIFT_EVERY * DRIFT_KEYS) % (KEYS as u64 * 2);
            format!("key:{key}")
        };
        Some(Request { key: key.into_bytes().into(), value_bytes: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests_and_another_gives_others() {
        let keys =
            |seed| GeneratedStream::new(seed).take(1_000).map(|request| request.key).collect::<Vec<_>>();
        assert_eq!(keys(1), keys(1));
        assert_ne!(keys(1), keys(2));
        assert_eq!(GeneratedStream::new(1).count() as u64, REQUESTS);
    }
}
