//! A line of the index: one cache line with its own lock, twelve tags and twelve references.
//!
//! Lives here: the line, its lock, comparing twelve tags at once. Not here: which line (see `index`).
//!
//! ```text
//!   0      1            4                16                                       64
//!   | lock | overflow 24 | 12 tags, 8 bits | 12 references, 32 bits                |     (tag 0: the slot is empty)
//! ```
//! A line is changed by whoever has locked both the shard and the line, and read by whoever has locked either. All its
//! parts are atomics, so a peek without a lock (to prefetch) is defined, if perhaps wrong.
//!
//! Why a lock of our own: it is one byte in the line that a read fetches anyway, it is unlocked by a plain store (a
//! library's byte-sized mutex needs a second locked instruction to look for parked threads), and a line page can be
//! given back to the system while its locks are held, since zero is "unlocked" and nobody sleeps in a queue for it.
//! Who waits spins, then yields, then sleeps for short: a line is held for one lookup and the reader's closure.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};
use std::time::Duration;

pub(super) const SLOTS: usize = 12;
/// What the 24 bits of an overflow number reach.
pub(super) const OVERFLOW_MAX: u32 = (1 << 24) - 1;

const UNLOCKED: u8 = 0;
const LOCKED: u8 = 1;
/// Rounds of waiting after which a thread yields, and after which it sleeps.
const SPINS: u32 = 64;
const YIELDS: u32 = 1024;

#[repr(C, align(64))]
pub(super) struct Line {
    lock: AtomicU8,
    overflow_high: AtomicU8,
    overflow_low: AtomicU16,
    tags: [AtomicU32; SLOTS / 4],
    references: [AtomicU32; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64);

/// A line that this thread has locked.
pub(super) struct LineGuard<'a>(&'a Line);

impl Drop for LineGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.lock.store(UNLOCKED, Release);
    }
}

impl<'a> LineGuard<'a> {
    #[inline]
    pub(super) fn line(&self) -> &'a Line {
        self.0
    }
}

impl Line {
    #[inline]
    pub(super) fn lock(&self) -> LineGuard<'_> {
        if self.lock.swap(LOCKED, Acquire) != UNLOCKED {
            self.wait();
        }
        LineGuard(self)
    }

    #[cold]
    fn wait(&self) {
        let mut rounds = 0_u32;
        loop {
            while self.lock.load(Relaxed) != UNLOCKED {
                rounds = rounds.saturating_add(1);
                match rounds {
                    0..SPINS => std::hint::spin_loop(),
                    SPINS..YIELDS => std::thread::yield_now(),
                    _ => std::thread::sleep(Duration::from_micros(50)),
                }
            }
            if self.lock.swap(LOCKED, Acquire) == UNLOCKED {
                return;
            }
        }
    }

    /// In a chain: the next overflow line's number + 1. In the free list: the same. 0 is none.
    #[inline]
    pub(super) fn overflow(&self) -> u32 {
        u32::from(self.overflow_high.load(Relaxed)) << 16 | u32::from(self.overflow_low.load(Relaxed))
    }

    pub(super) fn set_overflow(&self, number: u32) {
        debug_assert!(number <= OVERFLOW_MAX);
        self.overflow_high.store((number >> 16) as u8, Relaxed);
        self.overflow_low.store(number as u16, Relaxed);
    }

    #[inline]
    pub(super) fn reference(&self, slot: usize) -> u32 {
        self.references[slot].load(Relaxed)
    }

    pub(super) fn set_reference(&self, slot: usize, reference: u32) {
        self.references[slot].store(reference, Relaxed);
    }

    pub(super) fn tag(&self, slot: usize) -> u8 {
        (self.tags[slot / 4].load(Relaxed) >> (slot % 4 * 8)) as u8
    }

    pub(super) fn set(&self, slot: usize, tag: u8, reference: u32) {
        let (word, shift) = (&self.tags[slot / 4], slot % 4 * 8);
        word.store(word.load(Relaxed) & !(0xff << shift) | u32::from(tag) << shift, Relaxed);
        self.set_reference(slot, reference);
    }

    /// No entries and no successor.
    pub(super) fn wipe(&self) {
        self.set_overflow(0);
        self.tags.iter().for_each(|word| word.store(0, Relaxed));
        self.references.iter().for_each(|reference| reference.store(0, Relaxed));
    }

    /// How many slots are used; they come first.
    pub(super) fn len(&self) -> usize {
        (self.slots_with(0).trailing_zeros() as usize).min(SLOTS)
    }

    /// The slot of this reference.
    pub(super) fn position(&self, reference: u32) -> Option<usize> {
        self.references.iter().position(|other| other.load(Relaxed) == reference)
    }

    /// Bit `s` is set for each slot `s` with this tag; no bit from [`SLOTS`] on.
    #[inline]
    pub(super) fn slots_with(&self, tag: u8) -> u32 {
        let [a, b, c] = [0, 1, 2].map(|word: usize| self.tags[word].load(Relaxed));
        equal_bytes([a, b, c], tag)
    }
}

/// SSE2 is part of x86-64: one comparison and one mask.
#[cfg(target_arch = "x86_64")]
#[inline]
fn equal_bytes(words: [u32; 3], byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi32, _mm_set1_epi8};
    // SAFETY: every x86-64 processor has SSE2, and no memory is accessed.
    unsafe {
        let tags = _mm_set_epi32(0, words[2] as i32, words[1] as i32, words[0] as i32);
        _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(byte as i8))) as u32 & ((1 << SLOTS) - 1)
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn equal_bytes(words: [u32; 3], byte: u8) -> u32 {
    let mut slots = 0;
    for (number, word) in words.into_iter().enumerate() {
        for (at, tag) in word.to_le_bytes().into_iter().enumerate() {
            slots |= u32::from(tag == byte) << (number * 4 + at);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Line {
        // SAFETY: the memory of line pages begins as zeroes; this is the claim that the test below checks.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn zeroes_are_an_empty_unlocked_line() {
        let line = empty();
        assert_eq!((line.len(), line.overflow()), (0, 0));
        let guard = line.lock();
        assert_eq!(line.lock.load(Relaxed), LOCKED);
        drop(guard);
        assert_eq!(line.lock.load(Relaxed), UNLOCKED);
    }

    #[test]
    fn lock_keeps_others_out() {
        let line = empty();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let _guard = line.lock();
                        line.set_reference(0, line.reference(0) + 1);
                    }
                });
            }
        });
        assert_eq!(line.reference(0), 80_000, "an addition in two steps loses none");
    }

    #[test]
    fn each_slot_matches_its_own_tag_only() {
        let line = empty();
        for (slot, tag) in [1, 2, 3, 128, 129, 255, 1].into_iter().enumerate() {
            line.set(slot, tag, slot as u32 + 1);
        }
        assert_eq!(line.slots_with(1), 0b100_0001);
        assert_eq!(line.slots_with(2), 0b10);
        assert_eq!(line.slots_with(129), 0b1_0000);
        assert_eq!(line.slots_with(255), 0b10_0000);
        assert_eq!(line.slots_with(7), 0);
        assert_eq!((line.len(), line.position(4)), (7, Some(3)));
    }

    #[test]
    fn overflow_number_keeps_24_bits() {
        let line = empty();
        for number in [0, 1, 0xffff, 0x1_0000, OVERFLOW_MAX] {
            line.set_overflow(number);
            assert_eq!(line.overflow(), number);
        }
    }
}
