//! The group's clock on one node: its own clock and an offset, and it never goes back.
//!
//! Lives here: reading it from any thread while one thread changes the offset. Not here: whose clock it follows, and how fast
//! it may be let back (see `driver::store`).
//!
//! ```text
//!   lower:  offset marked ──> floor raised to what the clock shows ──> lower offset, no mark
//! ```
//! While the mark is there whoever reads the clock raises the floor himself to what he gives. So nobody who reads behind it
//! is given less, however long the changing thread was held up between two of these steps.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::{Clock, Millis};

/// Beyond this no clock can be ahead of another; a hostile peer may state any.
const OFFSET_MS_MAX: i64 = i64::MAX >> 2;

/// The lowest bit of the offset: it is about to be lowered.
const MARK: i64 = 1;

/// What the group's clock is ahead of this node's own. One thread at a time changes it: the holder of the gate.
#[derive(Debug, Default)]
pub(super) struct GroupClock {
    /// In milliseconds, times two, and [`MARK`].
    offset: AtomicI64,
    /// What the clock had shown when the offset was last lowered: it stands still until it is there again.
    floor_ms: AtomicU64,
}

impl GroupClock {
    #[inline]
    pub(super) fn now_ms(&self, own: &dyn Clock) -> Millis {
        // Whoever sees a lowered offset sees the floor that was raised before it.
        let offset = self.offset.load(Ordering::Acquire);
        let now_ms = own.now_ms().saturating_add_signed(offset >> 1);
        // Unchanged and without a mark: a floor that is raised from now on is no lower than this.
        if offset & MARK == 0 && self.offset.load(Ordering::Acquire) == offset {
            return now_ms.max(self.floor_ms.load(Ordering::Relaxed));
        }
        self.now_while_it_changes_ms(own)
    }

    #[cold]
    fn now_while_it_changes_ms(&self, own: &dyn Clock) -> Millis {
        let offset = self.offset.load(Ordering::Acquire);
        self.raise_floor(own.now_ms().saturating_add_signed(offset >> 1))
    }

    /// Gives the floor, which is no lower than this from now on.
    fn raise_floor(&self, now_ms: Millis) -> Millis {
        self.floor_ms.fetch_max(now_ms, Ordering::AcqRel).max(now_ms)
    }

    pub(super) fn offset_ms(&self) -> i64 {
        self.offset.load(Ordering::Relaxed) >> 1
    }

    /// Takes another clock outright, forward or back: for a node that holds nothing.
    pub(super) fn adopt_offset_ms(&self, offset_ms: i64) {
        self.floor_ms.store(0, Ordering::Relaxed);
        self.store(offset_ms);
    }

    /// With a lower offset the clock stands still for as long as that takes back.
    pub(super) fn set_offset_ms(&self, offset_ms: i64, own: &dyn Clock) {
        if offset_ms < self.offset_ms() {
            self.offset.fetch_or(MARK, Ordering::AcqRel);
            self.now_while_it_changes_ms(own);
        }
        self.store(offset_ms);
    }

    fn store(&self, offset_ms: i64) {
        self.offset.store(offset_ms.clamp(-OFFSET_MS_MAX, OFFSET_MS_MAX) << 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A clock that does something once, between being read and giving what it has read: as a thread that is held up there.
    #[derive(Default)]
    struct HeldUp {
        now_ms: AtomicU64,
        meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Clock for HeldUp {
        fn now_ms(&self) -> Millis {
            let now_ms = self.now_ms.load(Ordering::SeqCst);
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile();
            }
            now_ms
        }
    }

    #[test]
    fn it_does_not_go_back_for_who_read_it_while_whoever_lowers_it_was_held_up() {
        let (own, clock) = (Arc::new(HeldUp::default()), Arc::new(GroupClock::default()));
        own.now_ms.store(1_000, Ordering::SeqCst);
        clock.adopt_offset_ms(500);
        let seen_ms = Arc::new(AtomicU64::new(0));
        *own.meanwhile.lock().unwrap() = Some(Box::new({
            let (own, clock, seen_ms) = (own.clone(), clock.clone(), seen_ms.clone());
            move || {
                own.now_ms.store(1_040, Ordering::SeqCst);
                seen_ms.store(clock.now_ms(&*own), Ordering::SeqCst);
            }
        }));
        clock.set_offset_ms(436, &*own);
        assert_eq!((seen_ms.load(Ordering::SeqCst), clock.now_ms(&*own)), (1_540, 1_540));
        own.now_ms.store(1_100, Ordering::SeqCst);
        assert_eq!(clock.now_ms(&*own), 1_540, "it stands still");
        own.now_ms.store(1_105, Ordering::SeqCst);
        assert_eq!((clock.now_ms(&*own), clock.offset_ms()), (1_541, 436));
    }

    #[test]
    fn a_reader_who_is_overtaken_by_a_lower_offset_does_not_go_back_either() {
        let (own, clock) = (Arc::new(HeldUp::default()), Arc::new(GroupClock::default()));
        own.now_ms.store(1_000, Ordering::SeqCst);
        clock.adopt_offset_ms(500);
        *own.meanwhile.lock().unwrap() = Some(Box::new({
            let (own, clock) = (own.clone(), clock.clone());
            move || clock.set_offset_ms(436, &*own)
        }));
        let seen_ms = clock.now_ms(&*own);
        assert!(seen_ms >= 1_500 && clock.now_ms(&*own) >= seen_ms, "{seen_ms}");
    }

    #[test]
    fn no_offset_that_a_peer_may_state_overflows() {
        let own = HeldUp::default();
        own.now_ms.store(1_000, Ordering::SeqCst);
        let clock = GroupClock::default();
        for offset_ms in [i64::MAX, i64::MIN, i64::MIN + 1, 0] {
            clock.adopt_offset_ms(offset_ms);
            clock.set_offset_ms(offset_ms.saturating_sub(1), &own);
            assert_eq!(clock.offset_ms().signum(), offset_ms.saturating_sub(1).signum());
            clock.now_ms(&own);
        }
    }
}
