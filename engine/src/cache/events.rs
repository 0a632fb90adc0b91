//! Telling a listener what has left the cache, outside all locks and in order.
//!
//! Lives here: who tells, and when. Not here: what leaves (see `storage`).
//!
//! Events queue up under the shard's lock, so their order per key is the order of what happened. At the end of an
//! operation the thread that did it tells what waits, unless another thread is at it for that shard; that one looks
//! again before it goes. So the listener is called by one thread at a time for each shard, by threads that happen to
//! write, and what an operation caused has been told when it returns, or is being told by another thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::storage::{Departures, Event, is_waiting};

use super::Inner;

/// When so many wait in a shard, who causes more waits for the listener.
const WAITING_MAX: usize = 4096;

thread_local! {
    /// Whether this thread is inside the listener.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// What is called for each item that leaves, and whether it wants to be.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) wanted: Arc<AtomicBool>,
    pub(crate) tell: Arc<dyn Fn(Event) + Send + Sync>,
}

pub(super) struct Events {
    listener: Listener,
    shards: Box<[ShardEvents]>,
}

/// Who may want to know of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Nobody: its version comes from its shard's block.
    Nobody,
    /// At most a listener of what leaves, and versions are in order: as in the server's cache, where it has no peers.
    InOrder,
    /// A group, a listener.
    Anybody,
}

impl Watch {
    pub(super) fn of(has_group: bool, has_listener: bool, in_order: bool) -> Watch {
        match (has_group, has_listener, in_order) {
            (true, _, _) | (false, true, false) => Watch::Anybody,
            (false, _, true) => Watch::InOrder,
            (false, false, false) => Watch::Nobody,
        }
    }
}

struct ShardEvents {
    waiting: Arc<AtomicUsize>,
    /// Held by the thread that tells this shard's events.
    telling: Mutex<()>,
}

impl Events {
    pub(super) fn new(listener: Listener, shard_count: usize) -> Events {
        let shard = |_| ShardEvents { waiting: Arc::default(), telling: Mutex::new(()) };
        Events { listener, shards: (0..shard_count).map(shard).collect() }
    }

    /// A shard's queue.
    pub(super) fn departures(&self, shard: usize) -> Departures {
        Departures::new(self.shards[shard].waiting.clone(), self.listener.wanted.clone())
    }
}

impl ShardEvents {
    /// The turn to tell; `None` if another thread has it, and it is soon enough that it looks again.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let is_long = self.waiting.load(Ordering::Acquire) >= WAITING_MAX;
        // Inside the listener waiting would be for ever: this very thread has a turn.
        if is_long && !TELLING.get() { Some(self.telling.lock()) } else { self.telling.try_lock() }
    }
}

impl Inner {
    /// At the end of an operation, with nothing locked: tells what has left, and wakes who waits for changes.
    #[inline(always)]
    pub(crate) fn tell_events(&self) {
        if self.watch != Watch::Nobody {
            if let Some(group) = &self.group {
                group.wake_subscribers();
            }
            if self.events.is_some() {
                self.tell_listener();
            }
        }
    }

    #[inline]
    pub(super) fn tell_listener(&self) {
        if let Some(events) = &self.events
            && events.listener.wanted.load(Ordering::Relaxed)
        {
            self.tell_waiting(events);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_waiting(&self, events: &Events) {
        for (shard, waiting) in events.shards.iter().enumerate() {
            while is_waiting(&waiting.waiting) {
                let Some(_turn) = waiting.turn() else { break };
                let told = self.shards[shard].lock().shard.take_departures();
                for event in told {
                    tell(&events.listener, event);
                }
            }
        }
    }
}

/// A listener that panics loses this event only.
fn tell(listener: &Listener, event: Event) {
    let was_telling = TELLING.replace(true);
    if catch_unwind(AssertUnwindSafe(|| (listener.tell)(event))).is_err() {
        tracing::error!("the listener of the cache's events panicked");
    }
    TELLING.set(was_telling);
}
