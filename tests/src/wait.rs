//! Waiting for something to become so, with a bound.
//!
//! Lives here: the only sleep of the test kit.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks at `probe` until it gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    within(limit, probe).unwrap_or_else(|| panic!("waited {limit:?} in vain: {what}"))
}

/// Looks at `probe` until it gives a value; `None` after `limit`.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = probe();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(POLL);
    }
}

/// Lets time pass, where the time itself is what is tried out.
pub fn pause(time: Duration) {
    thread::sleep(time);
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
