//! The lock of a shard: a latch, so that whoever leaves it doesn't wait for its stores.
//!
//! Lives here: the latch as the lock of a mutex. Not here: how it is taken and left (see `latch`), what it guards.
//!
//! Why a lock of our own: a mutex whose waiters sleep until they are woken is left by a locked instruction, since it has
//! to look for them, and that waits until all stores before it have reached the cache, those to the cold headers of the
//! list's items included. A latch is left by a plain store: a set returns while its stores are on their way (in
//! `tests/compare`, `speed --only set-evicting` and `served --only W4n` show it).
//!
//! The price: who waits looks again by itself, after some thousand looks every 50 us. A shard is held for one operation,
//! which takes a fraction of a microsecond; the few that take milliseconds (a shard is cleared, or counted) are those that
//! waiters sleep in. It is not fair: who leaves it and takes it again at once, time after time, keeps those out who sleep.
//! And it orders nothing but what it guards: that a miss without a lock is never older than a write that its thread has
//! done before rests on the locked exchange of a line's latch.

use parking_lot::lock_api::{self, GuardNoSend, RawMutex};

use super::latch::Latch;

/// What a free latch looks like: nobody counts changes here.
const FREE: u8 = 0;

pub(crate) struct ShardLock(Latch);

/// A mutex that is held for short.
pub(crate) type ShardMutex<T> = lock_api::Mutex<ShardLock, T>;
pub(crate) type ShardGuard<'a, T> = lock_api::MutexGuard<'a, ShardLock, T>;

// SAFETY: a latch that is locked is not locked again before it was unlocked, by an acquiring exchange of its byte and a
// releasing store; `tests/compare` shows what the lock buys, loom checks the latch.
unsafe impl RawMutex for ShardLock {
    const INIT: ShardLock = ShardLock(Latch::FREE);

    type GuardMarker = GuardNoSend;

    #[inline(always)]
    fn lock(&self) {
        self.0.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.lock_as(FREE)
    }

    // SAFETY: nothing is asked of the caller but what the trait asks: it has the lock.
    #[inline(always)]
    unsafe fn unlock(&self) {
        self.0.unlock(FREE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_long_gets_it_and_sees_what_was_done() {
        let count = ShardMutex::new(0_u64);
        assert!(count.try_lock().is_some());
        let held = count.lock();
        assert!(count.try_lock().is_none() && count.is_locked());
        std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..5000 {
                            // In two steps.
                            let mut count = count.lock();
                            let before = *count;
                            *count = std::hint::black_box(before) + 1;
                        }
                    })
                })
                .collect();
            // Until those who wait have gone to sleep.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(adders.iter().all(|adder| !adder.is_finished()));
            drop(held);
        });
        assert_eq!(count.into_inner(), 20_000);
    }

    #[test]
    fn a_panic_leaves_it_free() {
        let mutex = ShardMutex::new(());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = mutex.lock();
            panic!("while it is held");
        }));
        assert!(panicked.is_err() && !mutex.is_locked());
    }
}
