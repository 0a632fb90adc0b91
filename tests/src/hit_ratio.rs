//! Hit ratios by window, and by how much the worst one falls below a node that never failed.
//!
//! Lives here: counting. Not here: the requests.

/// Hits counted by windows of as many requests.
#[derive(Debug, Clone)]
pub struct HitRatio {
    window: usize,
    hits: Vec<usize>,
    requests: usize,
}

impl HitRatio {
    /// Counts by windows of `window` requests; it must not be 0.
    pub fn new(window: usize) -> HitRatio {
        assert!(window > 0, "a window of no requests");
        HitRatio { window, hits: Vec::new(), requests: 0 }
    }

    /// Counts one request.
    pub fn count(&mut self, hit: bool) {
        if self.requests.is_multiple_of(self.window) {
            self.hits.push(0);
        }
        self.requests += 1;
        *self.hits.last_mut().expect("a window begun") += usize::from(hit);
    }

    /// Hits of all requests, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.hits.iter().sum::<usize>() as f64 / self.requests.max(1) as f64
    }

    /// The largest number of percentage points by which a full window of this falls below the same of `reference`.
    pub fn worst_dip_points(&self, reference: &HitRatio) -> f64 {
        let full = self.requests / self.window;
        let percent = |hits: usize| 100.0 * hits as f64 / self.window as f64;
        let pairs = self.hits.iter().zip(&reference.hits).take(full);
        pairs.map(|(mine, theirs)| percent(*theirs) - percent(*mine)).fold(f64::NEG_INFINITY, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(hits: &[bool]) -> HitRatio {
        let mut ratio = HitRatio::new(2);
        hits.iter().for_each(|hit| ratio.count(*hit));
        ratio
    }

    #[test]
    fn the_worst_window_counts_and_a_begun_one_does_not() {
        let steady = counted(&[true, true, true, true, true]);
        let dipped = counted(&[true, true, true, false, false]);
        assert_eq!(dipped.worst_dip_points(&steady), 50.0);
        assert_eq!(steady.worst_dip_points(&dipped), 0.0);
        assert_eq!(dipped.percent(), 60.0);
    }
}
