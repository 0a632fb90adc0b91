//! Who waits for the next change, and how a writer wakes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

use parking_lot::Mutex;
use slab::Slab;

use crate::clock::Deadline;

/// 1. A subscription sets `is_any_asleep` and then looks at the log, under the log's lock; a writer appends under that lock
///    and then looks at `is_any_asleep`. So no change is slept through, and a writer pays a load while nobody sleeps.
/// 2. Wakers are called and dropped with nothing locked.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    is_any_asleep: AtomicBool,
    /// A place for each subscription.
    wakers: Mutex<Slab<Option<Waker>>>,
    /// Others that are to be woken, as soon as nothing is locked.
    left: Mutex<Vec<Waker>>,
}

/// A place among them.
#[derive(Debug)]
pub(crate) struct Sleeper {
    all: Arc<Sleepers>,
    place: usize,
}

impl Sleeper {
    pub(crate) fn new(all: &Arc<Sleepers>) -> Sleeper {
        Sleeper { all: all.clone(), place: all.wakers.lock().insert(None) }
    }

    /// Calls the waker once, at the next change. The caller looks for one after this.
    pub(crate) fn sleep(&self, waker: &Waker) {
        let mut wakers = self.all.wakers.lock();
        let known = wakers[self.place].as_ref().is_some_and(|known| known.will_wake(waker));
        let replaced = if known { None } else { wakers[self.place].replace(waker.clone()) };
        self.all.is_any_asleep.store(true, Ordering::SeqCst);
        drop(wakers);
        drop(replaced);
    }

    /// Looks at each change, until it finds something. Only `look` knows that the time is over.
    pub(crate) fn wait<T>(&self, until: Deadline, mut look: impl FnMut() -> Option<T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            self.sleep(&waker);
            match look() {
                Some(found) => return found,
                None => thread::park_timeout(until.remaining()),
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let left = self.all.wakers.lock().remove(self.place);
        drop(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Sleepers {
    /// Something has changed: all look again.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.is_any_asleep.load(Ordering::Relaxed) {
            self.wake_all();
        }
    }

    /// Has the next [`Sleepers::wake`] wake these: for whoever holds locks now, and calls it behind them.
    pub(crate) fn wake_later(&self, wakers: Vec<Waker>) {
        if !wakers.is_empty() {
            self.left.lock().extend(wakers);
            self.is_any_asleep.store(true, Ordering::SeqCst);
        }
    }

    #[cold]
    fn wake_all(&self) {
        if !self.is_any_asleep.swap(false, Ordering::SeqCst) {
            return;
        }
        let woken: Vec<Waker> = self.wakers.lock().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        let left = std::mem::take(&mut *self.left.lock());
        woken.into_iter().chain(left).for_each(Waker::wake);
    }
}
