//! Items that have left a shard, for a listener: kept in the order in which they left until they are told.
//!
//! Lives here: the queue under the shard's lock. Not here: telling them (see `cache::events`).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bytes::Bytes;

use super::Version;

/// Why an item left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// There was no memory for it any more.
    Evicted,
    /// Its lifetime had passed.
    Expired,
    /// It was older than a flush of everything or of its prefix.
    Flushed,
    /// Another value was stored under its key.
    Replaced,
    /// It was deleted.
    Removed,
}

/// An item that has left the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Why it left.
    pub cause: Cause,
    /// Its key.
    pub key: Bytes,
    /// The value that it had.
    pub value: Bytes,
    /// Its flags.
    pub flags: u32,
    /// The version that it had.
    pub version: Version,
    /// Whether it was read since it was stored.
    pub is_fetched: bool,
    /// Until when it had to live, in milliseconds of Unix time; `None`: for ever.
    pub expires_at_ms: Option<u64>,
    /// The class that it began in: its place among [`Cache::class_stats`](crate::Cache::class_stats).
    pub class: usize,
    /// When it was last accessed, in seconds of Unix time, where the cache keeps that
    /// ([`Config::accounting`](crate::Config::accounting)).
    pub accessed_s: Option<u64>,
}

/// What a shard keeps for the listener. `waiting` is told to all, so that it can be looked at without the lock.
pub(crate) struct Departures {
    events: Vec<Event>,
    /// How many wait in `events`.
    waiting: Arc<AtomicUsize>,
    /// Whether anybody wants to hear of more.
    wanted: Arc<AtomicBool>,
}

impl Departures {
    pub(crate) fn new(waiting: Arc<AtomicUsize>, wanted: Arc<AtomicBool>) -> Departures {
        Departures { events: Vec::new(), waiting, wanted }
    }

    #[inline]
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
        self.waiting.fetch_add(1, SeqCst);
    }

    /// Takes all that wait.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        self.waiting.store(0, Release);
        std::mem::take(&mut self.events)
    }
}

/// Whether events wait.
pub(crate) fn is_waiting(waiting: &AtomicUsize) -> bool {
    waiting.load(Acquire) > 0
}
