//! Those who look on while commands are executed: `stats detail`, and whoever watches.
//!
//! Lives here: the one question that each command asks, whether anybody looks. Not here: what they make of what they
//! see (see `prefixes`).

use std::sync::atomic::{AtomicU8, Ordering};

use super::prefixes::Prefixes;

/// `stats detail` is on.
const DETAIL: u8 = 1 << 7;

/// Who looks on. A command costs one load while nobody does.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// What anybody wants to see.
    wanted: AtomicU8,
    pub(crate) prefixes: Prefixes,
}

impl Observers {
    /// Whether anybody wants to see anything of these.
    #[inline]
    fn wants(&self, any_of: u8) -> bool {
        self.wanted.load(Ordering::Relaxed) & any_of != 0
    }

    pub(crate) fn set_detail(&self, on: bool) {
        match on {
            true => self.wanted.fetch_or(DETAIL, Ordering::Relaxed),
            false => self.wanted.fetch_and(!DETAIL, Ordering::Relaxed),
        };
    }

    pub(crate) fn is_detail_on(&self) -> bool {
        self.wants(DETAIL)
    }

    /// A key was asked for; with the length of its value, if there is one.
    #[inline]
    pub(crate) fn saw_get(&self, key: &[u8], value_bytes: Option<usize>) {
        if self.wants(DETAIL) {
            self.prefixes.count(key, |counts| {
                counts.gets += 1;
                counts.hits += u64::from(value_bytes.is_some());
            });
        }
    }

    /// A storage command was executed.
    #[inline]
    pub(crate) fn saw_store(&self, key: &[u8]) {
        if self.wants(DETAIL) {
            self.prefixes.count(key, |counts| counts.sets += 1);
        }
    }

    /// A deletion was executed.
    #[inline]
    pub(crate) fn saw_delete(&self, key: &[u8]) {
        if self.wants(DETAIL) {
            self.prefixes.count(key, |counts| counts.deletes += 1);
        }
    }
}
