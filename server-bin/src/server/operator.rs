//! What operators can change while the server runs, and what they can look at.
//!
//! Lives here: the state behind the operators' commands. Not here: the commands (see `commands`, `stats`).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::observers::{Observation, Observers};
use super::registry::Registry;
use super::stopwatch::SlowLog;
use crate::settings::Settings;

/// Rule G1.
pub(crate) const VERBOSITY_MAX: u8 = 2;

/// The state behind the operators' commands.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    pub(crate) observers: Arc<Observers>,
    pub(crate) registry: Registry,
    pub(crate) slow_log: SlowLog,
    /// As `verbosity` last set it (rule G1).
    pub(crate) verbosity: AtomicU8,
    /// Whether `lru_crawler disable`, or `-o no_lru_crawler` at first, was the last word on it.
    pub(crate) is_crawler_off: AtomicBool,
    /// Whether `stats sizes` goes through the items, as `stats sizes_enable` or `sizes_disable` last said.
    pub(crate) tracks_sizes: AtomicBool,
    /// Places that crawls have looked at.
    pub(crate) crawler_items_checked: AtomicU64,
    /// Items that were dead when crawls came by, by class.
    crawler_reclaimed: Mutex<Vec<u64>>,
}

impl Operator {
    /// As the flags have it at first.
    pub(crate) fn new(settings: &Settings, observation: Observation) -> Operator {
        let verbosity = settings.verbosity.min(VERBOSITY_MAX).into();
        let tracks_sizes = settings.track_sizes.into();
        let is_crawler_off = (!settings.lru_crawler).into();
        observation.0.set_detail(settings.detail_enabled);
        observation.0.prefixes.set_delimiter(settings.prefix_delimiter);
        Operator { verbosity, tracks_sizes, is_crawler_off, observers: observation.0, ..Operator::default() }
    }

    /// Dead items that crawls have removed, by class.
    pub(crate) fn crawler_reclaimed(&self) -> MutexGuard<'_, Vec<u64>> {
        // Nothing panics while it is held, and numbers are sound after anything.
        self.crawler_reclaimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeroes what is counted here.
    pub(crate) fn reset(&self) {
        self.observers.prefixes.clear();
        self.crawler_items_checked.store(0, Ordering::Relaxed);
        self.crawler_reclaimed().clear();
    }
}
