//! A line of the index: one cache line with its own lock, twelve tags and twelve references.
//!
//! Lives here: the line, its guard, comparing twelve tags at once. Not here: how its lock works (see `latch`), which
//! line (see `index`).
//!
//! ```text
//!   0                 12      13            16                                      64
//!   | 12 tags, 8 bits | latch | overflow 24 | 12 references, 32 bits                |    (tag 0: the slot is empty)
//!
//!   latch:     | changes, modulo 128: 7 bits | locked: 1 |
//!   overflow:  | kinds: 6 bits | number: 18 |
//! ```
//! A tag is of one of six kinds. A line that goes on elsewhere keeps a bit for each kind that may be found there, so
//! that a miss rarely has to look.
//! Slots behind the entries of a chain's last line have the tag 0, and may hold ghosts: two 16-bit fingerprints each, of
//! items that were evicted; the newest in the last slot. An entry that needs the slot takes the oldest two's place. So
//! ghosts cost neither memory nor a cache line: about as many as there are items.
//!
//! A line is changed by whoever has locked both the shard and the line, and read by whoever has locked either. All its
//! parts are atomics, so a look without a lock is defined; it is right if the latch was unlocked before and is the
//! same afterwards. (If a line changes 128 times meanwhile the look may miss an entry: a miss is always allowed.)
//!
//! Why a lock of our own: it is one byte in the line that a read fetches anyway; its count of changes lets a miss do
//! without locking, and a hit lock just what it has looked at; it is unlocked by a plain store (a library's byte-sized
//! mutex needs a second locked instruction to look for parked threads); and a line page can be given back to the
//! system while its locks are held, since zero is "unlocked" and nobody sleeps in a queue for it. Who waits spins, then
//! yields, then sleeps for short: a line is held for one lookup and the reader's closure.

#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi8};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

use super::latch::Latch;

pub(super) const SLOTS: usize = 12;
/// What the 18 bits of an overflow number reach.
pub(super) const OVERFLOW_MAX: u32 = (1 << 18) - 1;

#[repr(C, align(64))]
pub(super) struct Line {
    tags: [AtomicU8; SLOTS],
    latch: Latch,
    /// The kinds in the low six bits, then the number's two lowest.
    overflow_high: AtomicU8,
    overflow_low: AtomicU16,
    references: [AtomicU32; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64);

/// A line that this thread has locked.
pub(super) struct LineGuard<'a> {
    line: &'a Line,
    /// The latch as it will be when the guard is dropped.
    latch: u8,
}

impl Drop for LineGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.line.latch.unlock(self.latch);
    }
}

impl<'a> LineGuard<'a> {
    #[inline]
    pub(super) fn line(&self) -> &'a Line {
        self.line
    }

    /// The line, to be changed: whoever looks at it meanwhile looks again.
    pub(super) fn changing(&mut self) -> &'a Line {
        self.latch = <Latch>::changing(self.latch);
        self.line
    }
}

impl Line {
    /// What the latch is now, if nobody has it locked: for [`Line::is_still`] and [`Line::lock_as`].
    #[inline]
    pub(super) fn glance(&self) -> Option<u8> {
        self.latch.glance()
    }

    /// Whether what was read since this glance is the line as it was then.
    #[inline]
    pub(super) fn is_still(&self, glance: u8) -> bool {
        self.latch.is_still(glance)
    }

    /// Locks the line if it is as it was at this glance.
    #[inline]
    pub(super) fn lock_as(&self, glance: u8) -> Option<LineGuard<'_>> {
        // Made only when the line is locked: dropping a guard unlocks.
        self.latch.lock_as(glance).then(|| LineGuard { line: self, latch: glance })
    }

    #[inline]
    pub(super) fn lock(&self) -> LineGuard<'_> {
        let latch = self.latch.lock();
        LineGuard { line: self, latch }
    }

    /// In a chain: the next overflow line's number + 1. In the free list: the same. 0 is none.
    #[inline]
    pub(super) fn overflow(&self) -> u32 {
        self.link() >> (8 + KINDS)
    }

    /// The four bytes from the latch on, the latch lowest.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn link(&self) -> u32 {
        let link: u32;
        // SAFETY: the line is 64 bytes long and aligned, and latch and overflow are the four from byte 12 on. Others may lock
        // meanwhile: the load stands for one relaxed load of each atomic, as in `tags`. (Two loads and their parts took 4
        // instructions more.)
        unsafe {
            std::arch::asm!(
                "mov {link:e}, dword ptr [{line} + 12]",
                link = lateout(reg) link,
                line = in(reg) std::ptr::from_ref(self),
                options(nostack, preserves_flags, readonly)
            );
        }
        link
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn link(&self) -> u32 {
        u32::from(self.overflow_high.load(Relaxed)) << 8 | u32::from(self.overflow_low.load(Relaxed)) << 16
    }

    /// Whether no line follows.
    #[inline(always)]
    pub(super) fn is_last(&self) -> bool {
        self.overflow() == 0
    }

    /// Whether entries of this tag may be in the lines that follow.
    #[inline]
    pub(super) fn goes_on_for(&self, tag: u8) -> bool {
        self.overflow_high.load(Relaxed) & kind(tag) != 0
    }

    /// Another successor; the kinds that are found there are none until they are added.
    pub(super) fn set_overflow(&self, number: u32) {
        self.set_overflow_for(number, 0);
    }

    /// Another successor, where entries of these kinds are.
    #[inline]
    pub(super) fn set_overflow_for(&self, number: u32, kinds: u8) {
        debug_assert!(number <= OVERFLOW_MAX && kinds >> KINDS == 0);
        self.overflow_high.store((number << KINDS) as u8 | kinds, Relaxed);
        self.overflow_low.store((number >> (8 - KINDS)) as u16, Relaxed);
    }

    /// The kinds of the tags in the first `len` slots.
    #[inline]
    pub(super) fn kinds_of_first(&self, len: usize) -> u8 {
        self.tags[..len].iter().fold(0, |kinds, tag| kinds | kind(tag.load(Relaxed)))
    }

    /// An entry of this tag is in one of the lines that follow.
    pub(super) fn add_kind(&self, tag: u8) {
        self.overflow_high.store(self.overflow_high.load(Relaxed) | kind(tag), Relaxed);
    }

    #[inline]
    pub(super) fn reference(&self, slot: usize) -> u32 {
        self.references[slot].load(Relaxed)
    }

    /// Which of these slots has this reference.
    #[inline]
    pub(super) fn slot_of(&self, mut slots: u32, reference: u32) -> Option<usize> {
        while slots != 0 {
            let slot = slots.trailing_zeros() as usize;
            if self.references.get(slot)?.load(Relaxed) == reference {
                return Some(slot);
            }
            slots &= slots - 1;
        }
        None
    }

    #[inline]
    pub(super) fn set_reference(&self, slot: usize, reference: u32) {
        self.references[slot].store(reference, Relaxed);
    }

    #[inline]
    pub(super) fn tag(&self, slot: usize) -> u8 {
        self.tags[slot].load(Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, slot: usize, tag: u8, reference: u32) {
        self.tags[slot].store(tag, Relaxed);
        self.set_reference(slot, reference);
    }

    /// No entries and no successor.
    pub(super) fn wipe(&self) {
        self.set_overflow(0);
        self.tags.iter().for_each(|tag| tag.store(0, Relaxed));
        self.references.iter().for_each(|reference| reference.store(0, Relaxed));
    }

    /// Remembers that an item with this fingerprint was evicted; forgets the oldest ghost for it, if there are
    /// `ghosts_max` or no slot is left. For whoever has locked both shard and line.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    pub(super) fn add_ghost(&self, len: usize, ghosts_max: usize, fingerprint: u16) {
        use std::arch::x86_64::{
            _mm_and_si128, _mm_andnot_si128, _mm_bslli_si128, _mm_bsrli_si128, _mm_insert_epi16,
            _mm_load_si128, _mm_loadu_si128, _mm_or_si128,
        };
        /// Behind the middle all bits are set.
        static MASKS: [u16; 48] = {
            let mut masks = [u16::MAX; 48];
            let mut at = 0;
            while at < 24 {
                masks[at] = 0;
                at += 1;
            }
            masks
        };
        let kept = ghosts_max.min(2 * (SLOTS - len));
        debug_assert!(kept <= 24);
        let halves: *const __m128i = self.references.as_ptr().cast();
        // SAFETY: every x86-64 processor has SSE2. The references are three times 16 bytes and aligned to 16; `kept` is at
        // most 24, so eight masks are read within the 48. Only the caller may write the references, so nothing is written during
        // the plain loads; others may read meanwhile: each store stands for four relaxed stores. (A loop took 40
        // instructions more.)
        unsafe {
            let mask = |at: usize| _mm_loadu_si128(MASKS.as_ptr().add(8 * at + kept).cast());
            let put = |at: usize, old: __m128i, new: __m128i| {
                let mask = mask(at);
                let mixed = _mm_or_si128(_mm_and_si128(mask, new), _mm_andnot_si128(mask, old));
                std::arch::asm!(
                    "movdqa xmmword ptr [{to}], {mixed}",
                    to = in(reg) halves.add(at),
                    mixed = in(xmm_reg) mixed,
                    options(nostack, preserves_flags)
                );
            };
            let high = _mm_load_si128(halves.add(2));
            put(2, high, _mm_insert_epi16::<7>(_mm_bsrli_si128::<2>(high), i32::from(fingerprint)));
            if kept > 8 {
                let middle = _mm_load_si128(halves.add(1));
                put(1, middle, _mm_or_si128(_mm_bsrli_si128::<2>(middle), _mm_bslli_si128::<14>(high)));
                if kept > 16 {
                    let low = _mm_load_si128(halves);
                    put(0, low, _mm_or_si128(_mm_bsrli_si128::<2>(low), _mm_bslli_si128::<14>(middle)));
                }
            }
        }
        if !kept.is_multiple_of(2) {
            // The half that shares its slot with the oldest is nobody's.
            let slot = (23 - kept) / 2;
            self.set_reference(slot, self.reference(slot) & 0xffff_0000);
        }
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    pub(super) fn add_ghost(&self, len: usize, ghosts_max: usize, fingerprint: u16) {
        self.add_ghost_by_slots(len, ghosts_max, fingerprint);
    }

    /// [`Line::add_ghost`], a slot at a time.
    #[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
    fn add_ghost_by_slots(&self, len: usize, ghosts_max: usize, fingerprint: u16) {
        let (free, mut carried) = (SLOTS - len, u32::from(fingerprint) << 16);
        let pairs = free.min(ghosts_max / 2);
        for reference in self.references[SLOTS - pairs..].iter().rev() {
            let before = reference.load(Relaxed);
            reference.store(carried | before >> 16, Relaxed);
            carried = before << 16;
        }
        if pairs < free && !ghosts_max.is_multiple_of(2) {
            self.set_reference(SLOTS - 1 - pairs, carried);
        }
    }

    /// The fingerprints of the ghosts behind the `len` entries, oldest first, 0 where one was taken. For whoever has locked
    /// the shard.
    pub(super) fn ghosts(&self, len: usize) -> impl Iterator<Item = u16> + '_ {
        let halves = |slot: usize| [self.reference(slot) as u16, (self.reference(slot) >> 16) as u16];
        (len..SLOTS).flat_map(halves).skip_while(|fingerprint| *fingerprint == 0)
    }

    /// Has these ghosts, newest first, behind the `len` entries, and no others. For whoever has locked both shard and line.
    pub(super) fn set_ghosts(&self, len: usize, mut fingerprints: impl Iterator<Item = u16>) {
        for slot in (len..SLOTS).rev() {
            let [newer, older] = [(); 2].map(|()| u32::from(fingerprints.next().unwrap_or(0)));
            self.set_reference(slot, newer << 16 | older);
        }
    }

    /// Forgets the ghost of this fingerprint, if there is one behind the `len` entries; whether there was. For whoever
    /// has locked both shard and line.
    #[inline(always)]
    pub(super) fn take_ghost(&self, len: usize, fingerprint: u16) -> bool {
        let halves = self.halves_with(fingerprint) >> (2 * len) << (2 * len);
        if halves == 0 {
            return false;
        }
        // The newest of two equal ones would lie higher; which of them goes makes no difference.
        let half = halves.trailing_zeros() as usize;
        let kept = if half.is_multiple_of(2) { 0xffff_0000 } else { 0xffff };
        self.set_reference(half / 2, self.reference(half / 2) & kept);
        true
    }

    /// Bit `2 s` is set if the low half of reference `s` is this, bit `2 s + 1` if the high half is. For whoever has
    /// locked both shard and line.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn halves_with(&self, half: u16) -> u32 {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        let references = self.references.as_ptr();
        // SAFETY: every x86-64 processor has SSE2. The references are three times 16 bytes and aligned to 16. The caller is
        // the only one who may write them, so nothing is written during these plain loads.
        unsafe {
            let wanted = _mm_set1_epi16(half as i16);
            let equal = |at: usize| _mm_cmpeq_epi16(_mm_load_si128(references.add(4 * at).cast()), wanted);
            let low = _mm_movemask_epi8(_mm_packs_epi16(equal(0), equal(1))) as u32;
            let high = _mm_movemask_epi8(_mm_packs_epi16(equal(2), _mm_setzero_si128())) as u32;
            low | high << 16
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn halves_with(&self, half: u16) -> u32 {
        let bits = |slot: usize| {
            let reference = self.reference(slot);
            u32::from(reference as u16 == half) | u32::from((reference >> 16) as u16 == half) << 1
        };
        (0..SLOTS).map(|slot| bits(slot) << (2 * slot)).fold(0, |all, slot| all | slot)
    }

    /// How many slots are used; they come first.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tags().len()
    }

    /// Bit `s` is set for each slot `s` with this tag; no bit from [`SLOTS`] on.
    #[inline]
    pub(super) fn slots_with(&self, tag: u8) -> u32 {
        self.tags().slots_with(tag)
    }

    /// All tags, as they are now.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    pub(super) fn tags(&self) -> Tags {
        let tags: __m128i;
        // SAFETY: every x86-64 processor has SSE2. The line is aligned to 64 bytes and begins with the tags; what is read
        // besides, the latch and the overflow, does not count. Others may write meanwhile: the load stands for one relaxed
        // load of each atomic, and the processor gives each of those whole. (Three loads put together took 6 instructions more.)
        unsafe {
            std::arch::asm!(
                "movdqa {tags}, xmmword ptr [{line}]",
                tags = lateout(xmm_reg) tags,
                line = in(reg) std::ptr::from_ref(self),
                options(nostack, preserves_flags, readonly)
            );
        }
        Tags(tags)
    }

    /// All tags, as they are now.
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    pub(super) fn tags(&self) -> Tags {
        Tags(std::array::from_fn(|slot| self.tag(slot)))
    }
}

/// A line's tags at one time. (On x86-64 a register: its last four bytes are no tags.)
#[derive(Clone, Copy)]
pub(super) struct Tags(
    #[cfg(all(target_arch = "x86_64", not(miri)))] __m128i,
    #[cfg(not(all(target_arch = "x86_64", not(miri))))] [u8; SLOTS],
);

impl Tags {
    /// Bit `s` is set for each slot `s` with this tag; no bit from [`SLOTS`] on.
    #[inline]
    pub(super) fn slots_with(self, tag: u8) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: every x86-64 processor has SSE2, and no memory is accessed.
        let equal = unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, _mm_set1_epi8(tag as i8))) } as u32;
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let equal = (0..SLOTS).fold(0, |equal, slot| equal | u32::from(self.0[slot] == tag) << slot);
        equal & ((1 << SLOTS) - 1)
    }

    /// How many slots are used; they come first.
    #[inline]
    pub(super) fn len(self) -> usize {
        (self.slots_with(0) | 1 << SLOTS).trailing_zeros() as usize
    }
}

/// How many kinds of tags there are.
const KINDS: u32 = 6;

/// The bit of a tag's kind.
#[inline]
fn kind(tag: u8) -> u8 {
    1 << ((u32::from(tag) * KINDS) >> 8)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::{Acquire, Release};

    use super::*;

    fn empty() -> Line {
        // SAFETY: the memory of line pages begins as zeroes; this is the claim that the test below checks.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn zeroes_are_an_empty_unlocked_line() {
        let line = empty();
        assert_eq!((line.len(), line.overflow()), (0, 0));
        let glance = line.glance().unwrap();
        let guard = line.lock();
        assert!(line.glance().is_none() && line.lock_as(glance).is_none() && !line.is_still(glance));
        drop(guard);
        assert!(line.is_still(glance), "a lock without a change leaves no trace");
        line.lock().changing();
        assert!(!line.is_still(glance) && line.lock_as(glance).is_none());
    }

    #[test]
    fn a_look_that_holds_never_saw_half_a_change() {
        let line = empty();
        let done = AtomicU8::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while done.load(Acquire) == 0 {
                    number += 1;
                    let mut guard = line.lock();
                    let line = guard.changing();
                    line.set_reference(3, number);
                    line.set_reference(9, number);
                }
            });
            let (mut looks, mut torn) = (0, 0);
            while looks < 20_000 {
                let Some(glance) = line.glance() else { continue };
                let seen = (line.reference(3), line.reference(9));
                if line.is_still(glance) {
                    torn += u32::from(seen.0 != seen.1);
                    looks += 1;
                }
            }
            // Before anything panics, or the writer would go on for ever.
            done.store(1, Release);
            assert_eq!(torn, 0);
        });
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
        assert_eq!(line.len(), 7);
    }

    fn take_ghost(line: &Line, fingerprint: u16) -> bool {
        line.take_ghost(line.len(), fingerprint)
    }

    #[test]
    fn ghosts_are_found_once_and_the_oldest_give_way() {
        let line = empty();
        (0..9).for_each(|slot| line.set(slot, 5, 70 + slot as u32));
        assert!(!take_ghost(&line, 1));
        (1..=7).for_each(|fingerprint| line.add_ghost(line.len(), 9, fingerprint));
        assert!(!take_ghost(&line, 1), "three slots hold six ghosts");
        assert!(take_ghost(&line, 4) && !take_ghost(&line, 4));
        line.set(9, 6, 80);
        assert!(!take_ghost(&line, 2) && !take_ghost(&line, 3), "an entry took the place of the two oldest");
        assert!([5, 6, 7].into_iter().all(|fingerprint| take_ghost(&line, fingerprint)));
        assert_eq!((line.len(), line.reference(8)), (10, 78));
    }

    #[test]
    fn ghosts_move_up_in_one_go_as_a_slot_at_a_time() {
        for len in 0..=SLOTS {
            for ghosts_max in 1..30 {
                let (line, other) = (empty(), empty());
                for line in [&line, &other] {
                    (0..SLOTS).for_each(|slot| {
                        line.set_reference(slot, 0x9e37_79b9_u32.wrapping_mul(slot as u32 + 7))
                    });
                }
                for fingerprint in 1..40_u16 {
                    line.add_ghost(len, ghosts_max, fingerprint << 8 | 3);
                    other.add_ghost_by_slots(len, ghosts_max, fingerprint << 8 | 3);
                    let references =
                        |line: &Line| (0..SLOTS).map(|slot| line.reference(slot)).collect::<Vec<_>>();
                    assert_eq!(references(&line), references(&other), "{len} entries, {ghosts_max} ghosts");
                }
            }
        }
    }

    #[test]
    fn overflow_number_keeps_18_bits_beside_the_kinds() {
        let line = empty();
        for number in [0, 1, 0xffff, 0x1_0000, OVERFLOW_MAX] {
            line.set_overflow(number);
            assert!((1..=255).all(|tag| !line.goes_on_for(tag)));
            line.add_kind(200);
            assert_eq!(line.overflow(), number);
            assert!(line.goes_on_for(200) && !line.goes_on_for(1));
        }
    }
}
