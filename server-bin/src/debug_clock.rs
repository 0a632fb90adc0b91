//! A clock that can be advanced, so that expiry can be tested without waiting (rule Z11).
//!
//! Lives here: the clock of a server that is started with `--debug-time`. Not here: the command (see `server`).

use std::sync::atomic::{AtomicU64, Ordering};

use hotspare::{Clock, Millis, SystemClock};

/// The system's clock, ahead by what it was told.
#[derive(Debug, Default)]
pub struct DebugClock {
    system: SystemClock,
    ahead_ms: AtomicU64,
}

impl DebugClock {
    /// From now on it is so much later.
    pub fn advance(&self, seconds: u64) {
        self.ahead_ms.fetch_add(seconds.saturating_mul(1000), Ordering::Relaxed);
    }
}

impl Clock for DebugClock {
    fn now_ms(&self) -> Millis {
        self.system.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }
}
