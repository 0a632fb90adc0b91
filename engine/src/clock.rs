//! Time: the only file of the engine that reads a clock.
//!
//! Lives here: the [`Clock`] trait, the system's coarse clock, a clock for tests.
//! Not here: the offset of a replica to its primary's clock (see `cache`), what an expiry means (see `mutation`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch on a clock that never goes backwards.
pub type Millis = u64;

/// A source of time that never goes backwards.
///
/// Expiry needs milliseconds since the Unix epoch, but must not jump when the wall clock is stepped. An
/// implementation anchors once to the wall clock and goes on with a monotonic clock.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch; each call returns at least what an earlier one returned.
    fn now_ms(&self) -> Millis;

    /// Milliseconds since the Unix epoch on the wall clock, which may have been stepped since: by it a cache that is
    /// [restored](crate::Cache::restore_from) knows how much time has passed. Default: as [`Clock::now_ms`].
    fn wall_ms(&self) -> Millis {
        self.now_ms()
    }

    /// Milliseconds since any moment, on a clock that never goes backwards and goes on while the machine is suspended: a
    /// lease ([`AckMode::Strict`](crate::AckMode::Strict)) must be over when its holder wakes. It may be 5 % fast or slow.
    /// Default: as [`Clock::now_ms`].
    fn lease_ms(&self) -> Millis {
        self.now_ms()
    }
}

/// The system's clock: anchored once to the wall clock, then monotonic.
///
/// On Linux it reads the kernel's coarse monotonic clock (steps of 1 to 4 ms, a few nanoseconds a read).
#[derive(Debug)]
pub struct SystemClock {
    wall_at_start_ms: u64,
    monotonic_at_start_ms: u64,
}

impl SystemClock {
    /// Anchors a clock to the wall clock of this moment.
    pub fn new() -> SystemClock {
        SystemClock { wall_at_start_ms: wall_ms(), monotonic_at_start_ms: monotonic_ms() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> Millis {
        self.wall_at_start_ms + monotonic_ms().saturating_sub(self.monotonic_at_start_ms)
    }

    fn wall_ms(&self) -> Millis {
        wall_ms()
    }

    fn lease_ms(&self) -> Millis {
        boot_ms()
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(target_os = "linux")]
fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Goes on while the machine is suspended, unlike the monotonic clock; about 25 ns.
#[cfg(target_os = "linux")]
fn boot_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn boot_ms() -> u64 {
    monotonic_ms()
}

#[cfg(not(target_os = "linux"))]
fn monotonic_ms() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// When a wait is over. By the system's time whatever clock a cache has: a thread that waits is not simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(std::time::Instant);

impl Deadline {
    /// So long from now; a time beyond what the system counts is a day.
    pub(crate) fn after(timeout: std::time::Duration) -> Deadline {
        let now = std::time::Instant::now();
        Deadline(now.checked_add(timeout).unwrap_or_else(|| now + std::time::Duration::from_secs(24 * 3600)))
    }

    pub(crate) fn has_passed(self) -> bool {
        std::time::Instant::now() >= self.0
    }

    /// What is left of it.
    pub(crate) fn remaining(self) -> std::time::Duration {
        self.0.saturating_duration_since(std::time::Instant::now())
    }

    pub(crate) fn instant(self) -> std::time::Instant {
        self.0
    }
}

/// Measures how long something takes: for statistics, not for what is stored.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is told to move: for tests and simulations.
///
/// ```
/// use hotspare::{Clock, ManualClock};
/// let clock = ManualClock::new(1_000);
/// clock.advance_ms(500);
/// assert_eq!(clock.now_ms(), 1_500);
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that reads `now_ms`.
    pub fn new(now_ms: Millis) -> ManualClock {
        ManualClock { now_ms: AtomicU64::new(now_ms) }
    }

    /// Moves the clock forward.
    pub fn advance_ms(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> Millis {
        self.now_ms.load(Ordering::SeqCst)
    }
}
