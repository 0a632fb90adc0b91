//! Waiting for something to become so, with a bound.
//!
//! Lives here: the only sleep of the test kit.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks at `probe` until it gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// Looks at `probe` until it is true; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) {
    wait_for(what, limit, || probe().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_handed_out() {
        let mut left = 3;
        let value = wait_for("a countdown", Duration::from_secs(5), || {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!(value, "done");
    }

    #[test]
    #[should_panic(expected = "in vain: a miracle")]
    fn the_bound_holds() {
        wait_until("a miracle", Duration::from_millis(20), || false);
    }
}
