//! How writers wake whoever ships the log, without a system call for each write.
//!
//! Lives here: the doorbell. The driver arms it before it sleeps; the first write rings it and disarms it.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use parking_lot::Mutex;

/// 1. The waker is called at most once for each time that the bell is armed.
/// 2. Whoever arms looks for work afterwards, so that no write between the look and the arming is missed.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    armed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Doorbell {
    /// Wakes the driver if it sleeps. A load when it does not.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `arm`: either this sees the bell armed, or the driver sees the work.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            let waker = self.waker.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Arms the bell. The caller then looks for work once more before it sleeps.
    pub(crate) fn arm(&self, waker: &Waker) {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        drop(slot);
        self.armed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Takes the arming back: the driver is awake.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn an_armed_bell_wakes_once_and_a_disarmed_one_never() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let bell = Doorbell::default();
        bell.ring();
        bell.arm(&count.clone().into());
        bell.ring();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        bell.arm(&count.clone().into());
        bell.disarm();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
