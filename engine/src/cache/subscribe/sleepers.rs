//! Who waits for the next change, and how a writer wakes them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use slab::Slab;

/// 1. A subscription sets `is_any_asleep` and then looks at the log, under the log's lock; a writer appends under that lock
///    and then looks at `is_any_asleep`. So no change is slept through, and a writer pays a load while nobody sleeps.
/// 2. Wakers are called and dropped with nothing locked.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    is_any_asleep: AtomicBool,
    /// A place for each subscription.
    wakers: Mutex<Slab<Option<Waker>>>,
}

impl Sleepers {
    pub(super) fn enter(&self) -> usize {
        self.wakers.lock().insert(None)
    }

    pub(super) fn leave(&self, place: usize) {
        let left = self.wakers.lock().remove(place);
        drop(left);
    }

    /// Calls the waker once, at the next change. The caller looks for one after this.
    pub(super) fn sleep(&self, place: usize, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        let known = wakers[place].as_ref().is_some_and(|known| known.will_wake(waker));
        let replaced = if known { None } else { wakers[place].replace(waker.clone()) };
        self.is_any_asleep.store(true, Ordering::SeqCst);
        drop(wakers);
        drop(replaced);
    }

    /// Something has changed: all look again.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.is_any_asleep.load(Ordering::Relaxed) {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        if !self.is_any_asleep.swap(false, Ordering::SeqCst) {
            return;
        }
        let woken: Vec<Waker> = self.wakers.lock().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        woken.into_iter().for_each(Waker::wake);
    }
}
