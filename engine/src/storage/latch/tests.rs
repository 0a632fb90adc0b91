//! The latch, and the way a reader goes through it, under every schedule and every outcome of the memory model.
//!
//! Lives here: loom's byte, claims about one latch, and a copy in small of what `table` and `index` do with two. The
//! copy is there because a table lies in mapped memory, which loom can't follow: [`Lines::find`] is `Table::find`,
//! [`Lines::lock`] is `Table::lock`, [`Lines::move_to`] is `Index::split` and `Index::merge`, [`Lines::add_page`] and
//! [`Lines::publish`] are what they are called after. Who changes one of those changes it here too.
//!
//! They are built by `RUSTFLAGS="--cfg loom" cargo test -p hotspare --release --lib latch`.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8 as LoomByte, AtomicU32, fence};
use loom::thread;

use super::*;

impl Byte for LoomByte {
    fn load(&self, order: Ordering) -> u8 {
        LoomByte::load(self, order)
    }

    fn store(&self, byte: u8, order: Ordering) {
        LoomByte::store(self, byte, order);
    }

    fn exchange(&self, before: u8, after: u8, order: Ordering) -> bool {
        self.compare_exchange(before, after, order, Relaxed).is_ok()
    }

    fn fence(order: Ordering) {
        fence(order);
    }

    /// Another thread must run before this one can get on.
    fn wait(_: u32) {
        thread::yield_now();
    }
}

type LoomLatch = Latch<LoomByte>;

fn unlocked() -> LoomLatch {
    Latch(LoomByte::new(0))
}

/// Runs under every schedule with at most three switches that no thread asked for: where more are allowed, what is
/// found was found before, and a run takes hours. LOOM_MAX_PREEMPTIONS sets another bound.
fn explore(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(run);
}

/// Counts in two steps under the lock; loom panics if two threads are in here at once, or one does not see what
/// the other did.
struct Counter {
    latch: LoomLatch,
    count: UnsafeCell<u32>,
}

// SAFETY: the count is used by whoever has locked the latch; this is the claim that the tests check.
unsafe impl Sync for Counter {}

impl Counter {
    fn new() -> Counter {
        Counter { latch: unlocked(), count: UnsafeCell::new(0) }
    }

    /// One more, with the latch locked; unlocks it.
    fn count_locked(&self, locked: u8) {
        let unlocked = LoomLatch::changing(locked);
        let before = self.count.with(|count| {
            // SAFETY: as for `Sync`; loom panics where it does not hold.
            unsafe { *count }
        });
        self.count.with_mut(|count| {
            // SAFETY: as for `Sync`; loom panics where it does not hold.
            unsafe { *count = before + 1 }
        });
        self.latch.unlock(unlocked);
    }

    fn count(&self) {
        self.count_locked(self.latch.lock());
    }

    fn total(&self) -> u32 {
        let locked = self.latch.lock();
        let total = self.count.with(|count| {
            // SAFETY: as for `Sync`; loom panics where it does not hold.
            unsafe { *count }
        });
        self.latch.unlock(locked);
        total
    }
}

#[test]
fn lock_keeps_another_out() {
    explore(|| {
        let counter = Arc::new(Counter::new());
        let other = counter.clone();
        let other = thread::spawn(move || {
            other.count();
            other.count();
        });
        counter.count();
        counter.count();
        other.join().unwrap();
        assert_eq!(counter.total(), 4);
    });
}

/// A lock without a change leaves the latch as it was, so a glance from before it may still be locked.
#[test]
fn what_another_read_under_its_lock_is_read_before_a_change() {
    explore(|| {
        let counter = Arc::new(Counter::new());
        let reader = counter.clone();
        let reader = thread::spawn(move || reader.total());
        counter.count();
        assert!(reader.join().unwrap() <= 1);
    });
}

#[test]
fn a_lock_as_glanced_keeps_others_out_and_fails_after_a_change() {
    explore(|| {
        let counter = Arc::new(Counter::new());
        let other = counter.clone();
        let other = thread::spawn(move || {
            other.count();
            other.count();
        });
        let mut counted = 0;
        if let Some(glance) = counter.latch.glance()
            && counter.latch.lock_as(glance)
        {
            assert_eq!(
                u32::from(glance / ONE_CHANGE),
                counter.count.with(|count| {
                    // SAFETY: as for `Sync`; loom panics where it does not hold.
                    unsafe { *count }
                })
            );
            counter.count_locked(glance);
            counted = 1;
        }
        other.join().unwrap();
        assert_eq!(counter.total(), 2 + counted);
    });
}

/// A writer changes two words, as often as said; `look` runs beside it on one or two readers.
fn with_a_writer_of_two_words(changes: u32, readers: usize, look: fn(&LoomLatch, &[AtomicU32; 2])) {
    explore(move || {
        let shared = Arc::new((unlocked(), [AtomicU32::new(0), AtomicU32::new(0)]));
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || look(&shared.0, &shared.1))
            })
            .collect();
        for number in 1..=changes {
            let locked = shared.0.lock();
            let unlocked = LoomLatch::changing(locked);
            shared.1[0].store(number, Relaxed);
            shared.1[1].store(number, Relaxed);
            shared.0.unlock(unlocked);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// What was read under a glance that holds is what was there at the glance, all of it.
fn look_without_lock(latch: &LoomLatch, words: &[AtomicU32; 2]) {
    if let Some(glance) = latch.glance() {
        let seen = [words[0].load(Relaxed), words[1].load(Relaxed)];
        if latch.is_still(glance) {
            assert_eq!(seen, [u32::from(glance / ONE_CHANGE); 2]);
        }
    }
}

/// What was read before the lock is right under the lock, if the glance could be locked.
fn look_then_lock(latch: &LoomLatch, words: &[AtomicU32; 2]) {
    if let Some(glance) = latch.glance() {
        let seen = words[0].load(Relaxed);
        if latch.lock_as(glance) {
            assert_eq!([seen, words[1].load(Relaxed)], [u32::from(glance / ONE_CHANGE); 2]);
            latch.unlock(glance);
        }
    }
}

#[test]
fn a_glance_that_is_still_never_saw_half_a_change() {
    with_a_writer_of_two_words(2, 1, look_without_lock);
}

#[test]
fn two_readers_without_a_lock_never_saw_half_a_change() {
    with_a_writer_of_two_words(1, 2, look_without_lock);
}

#[test]
fn a_glance_that_is_locked_never_saw_half_a_change() {
    with_a_writer_of_two_words(2, 1, look_then_lock);
}

/// Two home lines, the pages they lie on, and the state that says how many homes there are.
struct Lines {
    /// Count of homes in the lowest two bits, generation above: as `table::State`, in small.
    state: AtomicU32,
    /// Where each home is: the number of its line + 1. 0 is a page that was not added yet.
    directory: [AtomicU32; 2],
    /// Each has one slot for the entry that is looked for; 0 is an empty one.
    lines: [(LoomLatch, AtomicU32); 2],
    /// Whether line 0 has, besides, an entry with the same tag that stays there.
    has_namesake: bool,
}

const ENTRY: u32 = 7;
const ONE_GENERATION: u32 = 4;

impl Lines {
    /// The entry's hash leads to the last line there is.
    fn with_entry(homes: usize, has_namesake: bool) -> Lines {
        let line = |at: usize| (unlocked(), AtomicU32::new(if at + 1 == homes { ENTRY } else { 0 }));
        let page = |at: usize| AtomicU32::new(if at < homes { at as u32 + 1 } else { 0 });
        Lines {
            state: AtomicU32::new(homes as u32),
            directory: [page(0), page(1)],
            lines: [line(0), line(1)],
            has_namesake,
        }
    }

    fn state(&self) -> u32 {
        self.state.load(Acquire)
    }

    /// The last home's line, and whether a namesake is in it. There is a home.
    fn home(&self, state: u32) -> (&LoomLatch, &AtomicU32, bool) {
        let page = self.directory[(state % ONE_GENERATION) as usize - 1].load(Relaxed);
        assert_ne!(page, 0, "a page that is not there yet");
        let (latch, slot) = &self.lines[page as usize - 1];
        (latch, slot, page == 1 && self.has_namesake)
    }

    /// Whether the entry is found: with a lock where its tag is, without one where it is not.
    fn find(&self) -> bool {
        let state = self.state();
        if state % ONE_GENERATION == 0 {
            return false;
        }
        let (latch, slot, has_namesake) = self.home(state);
        if let Some(glance) = latch.glance() {
            let seen = slot.load(Relaxed);
            if seen == 0 && !has_namesake {
                if latch.is_still(glance) && self.state() == state {
                    return false;
                }
            } else if latch.lock_as(glance) {
                if self.state() == state {
                    assert_eq!(slot.load(Relaxed), seen, "a locked line changes");
                    latch.unlock(glance);
                    return seen == ENTRY;
                }
                latch.unlock(glance);
            }
        }
        let (latch, slot, locked) = self.lock();
        let is_found = slot.load(Relaxed) == ENTRY;
        latch.unlock(locked);
        is_found
    }

    fn lock(&self) -> (&LoomLatch, &AtomicU32, u8) {
        loop {
            let state = self.state();
            let (latch, slot, _) = self.home(state);
            let locked = latch.lock();
            if self.state() == state {
                return (latch, slot, locked);
            }
            latch.unlock(locked);
        }
    }

    fn add_page(&self, home: usize) {
        self.directory[home].store(home as u32 + 1, Relaxed);
    }

    fn publish(&self, homes: u32) {
        let generation = self.state() / ONE_GENERATION + 1;
        self.state.store(generation * ONE_GENERATION + homes, Release);
    }

    /// Splits to two homes, or merges to one.
    fn move_to(&self, homes: u32) {
        let locked = [self.lines[0].0.lock(), self.lines[1].0.lock()];
        let unlocked = locked.map(LoomLatch::changing);
        let (old, new) = if homes == 2 { (0, 1) } else { (1, 0) };
        let entry = self.lines[old].1.load(Relaxed);
        self.lines[old].1.store(0, Relaxed);
        self.publish(homes);
        self.lines[new].1.store(entry, Relaxed);
        self.lines[0].0.unlock(unlocked[0]);
        self.lines[1].0.unlock(unlocked[1]);
    }
}

fn entry_is_found_while(homes: usize, change: fn(&Lines)) {
    for has_namesake in [false, true] {
        explore(move || {
            let lines = Arc::new(Lines::with_entry(homes, has_namesake));
            let reader = lines.clone();
            let reader =
                thread::spawn(move || assert!(reader.find(), "an entry that was there all the time"));
            change(&lines);
            assert!(lines.find());
            reader.join().unwrap();
        });
    }
}

#[test]
fn an_entry_is_found_while_its_line_splits_onto_a_new_page() {
    entry_is_found_while(1, |lines| {
        lines.add_page(1);
        lines.move_to(2);
    });
}

#[test]
fn an_entry_is_found_while_its_line_merges() {
    entry_is_found_while(2, |lines| lines.move_to(1));
}

#[test]
fn an_entry_is_found_while_its_line_merges_and_splits_again() {
    entry_is_found_while(2, |lines| {
        lines.move_to(1);
        lines.move_to(2);
    });
}

#[test]
fn a_reader_of_an_empty_index_never_meets_a_page_that_is_not_there_yet() {
    explore(|| {
        let lines = Arc::new(Lines::with_entry(0, false));
        let reader = lines.clone();
        let reader = thread::spawn(move || assert!(!reader.find()));
        lines.add_page(0);
        lines.publish(1);
        reader.join().unwrap();
    });
}
