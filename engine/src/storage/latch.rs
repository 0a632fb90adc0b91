//! The latch of a line: a lock of one byte that counts the changes made under it.
//!
//! Lives here: taking and leaving the lock, a look without it, and the memory orderings of both. Not here: what the
//! line holds (see `line`), which line is right while lines split (see `table`).
//!
//! ```text
//!   | changes, modulo 128: 7 bits | locked: 1 |
//! ```
//! What the lock guards is read and written by relaxed atomics, so a look without it is defined; it is right if
//! the latch was unlocked before (a glance) and is the same afterwards.
//!
//! The latch is written over a [`Byte`], so that the tests can put the very same code on the atomics of a model
//! checker. The cache uses the standard library's.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use std::time::Duration;

const LOCKED: u8 = 1;
const ONE_CHANGE: u8 = 2;
/// Rounds of waiting after which a thread yields, and after which it sleeps.
const SPINS: u32 = 64;
const YIELDS: u32 = 1024;

/// An atomic byte, and what goes with it.
pub(super) trait Byte {
    fn load(&self, order: Ordering) -> u8;
    fn store(&self, byte: u8, order: Ordering);
    /// Whether `before` was there and `after` is now; a failure orders nothing.
    fn exchange(&self, before: u8, after: u8, order: Ordering) -> bool;
    fn fence(order: Ordering);
    /// Lets whoever holds the lock get on; `rounds` is how often it was called before.
    fn wait(rounds: u32);
}

impl Byte for AtomicU8 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u8 {
        AtomicU8::load(self, order)
    }

    #[inline(always)]
    fn store(&self, byte: u8, order: Ordering) {
        AtomicU8::store(self, byte, order);
    }

    #[inline(always)]
    fn exchange(&self, before: u8, after: u8, order: Ordering) -> bool {
        self.compare_exchange(before, after, order, Relaxed).is_ok()
    }

    #[inline(always)]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }

    #[inline(always)]
    fn wait(rounds: u32) {
        match rounds {
            0..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// Zero is unlocked. Who locks it keeps the byte that [`Latch::unlock`] is to leave behind.
#[repr(transparent)]
pub(super) struct Latch<B = AtomicU8>(B);

impl Latch {
    /// Nobody has it.
    #[expect(clippy::declare_interior_mutable_const, reason = "what a new latch begins with")]
    pub(super) const FREE: Latch = Latch(AtomicU8::new(0));
}

impl<B: Byte> Latch<B> {
    /// What the latch is now, if nobody has it locked: for [`Latch::is_still`] and [`Latch::lock_as`].
    #[inline]
    pub(super) fn glance(&self) -> Option<u8> {
        let latch = self.0.load(Acquire);
        (latch & LOCKED == 0).then_some(latch)
    }

    /// Whether what was read since this glance is as it was then.
    #[inline]
    pub(super) fn is_still(&self, glance: u8) -> bool {
        B::fence(Acquire);
        self.0.load(Relaxed) == glance
    }

    /// Locks if nothing was changed since this glance; whether it did. Then `glance` is what unlocks it.
    #[inline]
    pub(super) fn lock_as(&self, glance: u8) -> bool {
        self.0.exchange(glance, glance | LOCKED, Acquire)
    }

    /// Locks, and gives what unlocks it.
    #[inline]
    pub(super) fn lock(&self) -> u8 {
        match self.glance() {
            Some(glance) if self.lock_as(glance) => glance,
            _ => self.lock_slowly(),
        }
    }

    #[cold]
    fn lock_slowly(&self) -> u8 {
        let mut rounds = 0_u32;
        loop {
            if let Some(glance) = self.glance()
                && self.lock_as(glance)
            {
                return glance;
            }
            rounds = rounds.saturating_add(1);
            B::wait(rounds);
        }
    }

    /// Before changes by whoever has it locked: from what unlocks it, what will, so that whoever looks meanwhile
    /// looks again.
    #[inline]
    pub(super) fn changing(unlocked: u8) -> u8 {
        // The latch is seen as locked by whoever sees any of the changes.
        B::fence(Release);
        unlocked.wrapping_add(ONE_CHANGE)
    }

    #[inline]
    pub(super) fn unlock(&self, unlocked: u8) {
        self.0.store(unlocked, Release);
    }
}

#[cfg(all(test, loom))]
mod tests;
