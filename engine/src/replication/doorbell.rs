//! How writers wake whoever ships the log, without a system call for each write.
//!
//! Lives here: the doorbell. The driver arms it before it sleeps; the first write rings it and disarms it. A write is seen by
//! the log's end; whoever has other work for the driver uses a ring that is remembered while the bell is not armed.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use parking_lot::Mutex;

/// 1. The waker is called at most once for each time that the bell is armed.
/// 2. Whoever arms looks for work afterwards, at the log's end under its lock, so that no write between the look and the arming is
///    missed.
/// 3. A ring that is no write's and came since the driver's turn began is told to whoever arms.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    armed: AtomicBool,
    rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Doorbell {
    /// Wakes the driver if it sleeps, or has it take another turn before it does.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // Pairs with the fence in `arm`: either this sees the bell armed, or the driver sees the work.
        fence(Ordering::SeqCst);
        self.ring_for_record();
    }

    /// Wakes the driver if it sleeps, for a record that this thread has put into the log. A load when it does not.
    ///
    /// It needs no fence: whoever arms looks at the log's end behind the arming and under the log's lock. Either that sees the
    /// record, or the record was appended behind that look; then the lock has brought the arming along.
    #[inline]
    pub(crate) fn ring_for_record(&self) {
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

    /// Arms the bell. The caller then looks at the log's end once more before it sleeps, and takes another turn if this says
    /// that there is other work.
    #[must_use]
    pub(crate) fn arm(&self, waker: &Waker) -> bool {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
        drop(slot);
        self.armed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.rung.load(Ordering::Relaxed)
    }

    /// A turn begins, which sees to all that was rung for.
    pub(crate) fn begin_turn(&self) {
        self.disarm();
        // Acquires what whoever rang has left for the driver.
        self.rung.swap(false, Ordering::AcqRel);
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
        bell.begin_turn();
        assert!(!bell.arm(&count.clone().into()));
        bell.ring();
        bell.ring_for_record();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        bell.begin_turn();
        assert!(!bell.arm(&count.clone().into()));
        bell.disarm();
        bell.ring();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn whoever_arms_is_told_what_was_rung_for_since_the_turn_began() {
        let bell = Doorbell::default();
        bell.begin_turn();
        bell.ring_for_record();
        assert!(!bell.arm(Waker::noop()), "a record is seen by the log's end");
        bell.begin_turn();
        bell.ring();
        assert!(bell.arm(Waker::noop()));
        bell.begin_turn();
        assert!(!bell.arm(Waker::noop()), "once");
    }
}
