//! A range of addresses from the system: reserved whole, backed by memory where it is touched.
//!
//! Lives here: the three system calls. Not here: what lies where in the range (see `memory`).

use std::ptr::NonNull;

/// The size of a huge page; where it is another, advice about it does nothing.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Whether the system may put huge pages under a mapping that asks for them. Where that can't be read it may.
pub(super) fn has_huge_pages() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    !setting.is_ok_and(|setting| setting.contains("[never]"))
}

/// A range of zeroed memory that is given back when this is dropped.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a `Mapping` is the only owner of its range, and its methods only make system calls on it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use super::*;
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    impl Mapping {
        /// `None` if the system has no such range. The range begins at a multiple of a huge page.
        pub(in crate::storage) fn reserve(bytes: usize) -> Option<Mapping> {
            let padded = bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?.checked_add(HUGE_PAGE_BYTES)?;
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new private mapping, at an address that the system chooses.
            let start = unsafe {
                mmap_anonymous(std::ptr::null_mut(), padded, ProtFlags::READ | ProtFlags::WRITE, flags)
            };
            let start: *mut u8 = start.ok()?.cast();
            let before = start.align_offset(HUGE_PAGE_BYTES);
            let kept = padded - HUGE_PAGE_BYTES;
            let (front, back) = (before, HUGE_PAGE_BYTES - before);
            // SAFETY: both ends belong to the mapping above and nothing refers to them. A failure leaves unused
            // addresses behind, no memory.
            unsafe {
                if front > 0 {
                    let _ = munmap(start.cast(), front);
                }
                if back > 0 {
                    let _ = munmap(start.add(front + kept).cast(), back);
                }
                Some(Mapping { base: NonNull::new(start.add(front))?, bytes: kept })
            }
        }

        /// Gives the memory behind a part of the range back to the system. `false` where it can't be done: then
        /// the part keeps its memory and its content.
        pub(in crate::storage) fn release(&self, at: usize, bytes: usize) -> bool {
            let system_page_bytes = rustix::param::page_size();
            if !at.is_multiple_of(system_page_bytes) || !bytes.is_multiple_of(system_page_bytes) {
                return false;
            }
            debug_assert!(at + bytes <= self.bytes);
            // SAFETY: the part lies within the range and its owner has given it up: its bytes may become zero.
            unsafe { madvise(self.base.add(at).as_ptr().cast(), bytes, Advice::LinuxDontNeed).is_ok() }
        }

        /// Asks for huge pages under so many bytes from there on, in whole huge pages.
        pub(in crate::storage) fn advise_huge(&self, at: usize, bytes: usize) {
            let begin = at.next_multiple_of(HUGE_PAGE_BYTES);
            let end = (at + bytes) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            debug_assert!(end <= self.bytes);
            if begin < end {
                // SAFETY: advice on the owner's range that changes no content. Without huge pages it just fails.
                let _ = unsafe {
                    madvise(self.base.add(begin).as_ptr().cast(), end - begin, Advice::LinuxHugepage)
                };
            }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the whole range, which nothing refers to any more.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

/// Where the calls above do not exist the allocator gives zeroed memory, as a rule without touching it.
#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    /// Enough for the lines of the index; a larger reservation would be memory on some systems.
    const ALIGNMENT: usize = 4 << 10;
    const RESERVE_BYTES_MAX: usize = 1 << 30;

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, ALIGNMENT).ok()
    }

    impl Mapping {
        pub(in crate::storage) fn reserve(bytes: usize) -> Option<Mapping> {
            let layout = layout(bytes).filter(|layout| layout.size() <= RESERVE_BYTES_MAX)?;
            // SAFETY: the layout's size is not zero.
            let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some(Mapping { base, bytes })
        }

        pub(in crate::storage) fn release(&self, _at: usize, _bytes: usize) -> bool {
            false
        }

        pub(in crate::storage) fn advise_huge(&self, _at: usize, _bytes: usize) {}
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            let layout = layout(self.bytes).expect("it was allocated with this layout");
            // SAFETY: allocated above with the same layout.
            unsafe { dealloc(self.base.as_ptr(), layout) };
        }
    }
}
