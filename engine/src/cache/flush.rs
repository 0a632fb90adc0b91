//! Changes that concern every key, or all of a prefix: flushes, at once and by appointment.
//!
//! Lives here: what they hide, in which order they are logged and carried out. Not here: the floors that hide items (see
//! `storage::floors`).

use std::sync::atomic::Ordering;

use crate::error::WriteError;
use crate::mutation::{Expiry, Mutation, Version};
use crate::storage::{PREFIX_BYTES_MAX, PREFIXES_MAX};

use super::{Inner, attention, is_inside_read};

impl Inner {
    pub(crate) fn invalidate_prefix(&self, prefix: &[u8]) -> Result<(), WriteError> {
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
            return Err(WriteError::PrefixLength { bytes: prefix.len(), bytes_max: PREFIX_BYTES_MAX });
        }
        self.change_all(&Mutation::FlushPrefix { prefix })
    }

    pub(crate) fn flush(&self) -> Result<(), WriteError> {
        self.change_all(&Mutation::Flush)
    }

    pub(crate) fn flush_at(&self, at: Expiry) -> Result<(), WriteError> {
        // An appointment whose moment has come is kept, before another takes its place.
        if !is_inside_read() {
            self.settle_flush();
        }
        let at_ms = at.deadline_ms(|| self.now_ms());
        self.change_all(&Mutation::FlushAt { at_ms })
    }

    /// A change that concerns every key: logged and carried out under the first shard's lock, so that a change of
    /// role, which passes through every shard's lock, is before or behind it.
    fn change_all(&self, mutation: &Mutation<'_>) -> Result<(), WriteError> {
        if is_inside_read() {
            return Err(WriteError::InsideRead);
        }
        self.settle_flush();
        self.check_writable()?;
        self.hide_what_is_present(mutation)?;
        let cell = self.shards[0].lock();
        self.check_writable()?;
        let version = self.log(mutation, &mut Vec::new());
        self.carry_out_for_all(mutation, version);
        drop(cell);
        self.ring();
        self.tell_events();
        Ok(())
    }

    /// The version that the next change will have, or an earlier one.
    pub(super) fn next_version(&self) -> Version {
        match &self.group {
            None => self.last_version.get().next(),
            Some(group) => group.next_version(),
        }
    }

    /// Before a flush takes its version: hides all that it concerns, then passes through every shard's lock. An
    /// `incr` or `append` that has read an old value is then either done, with a version below the flush's, or
    /// finds nothing: it can't carry a flushed value over the flush.
    fn hide_what_is_present(&self, mutation: &Mutation<'_>) -> Result<(), WriteError> {
        let next = self.next_version();
        match mutation {
            Mutation::Flush => self.floors.raise_all(next),
            Mutation::FlushPrefix { prefix } => {
                let too_many = |_| WriteError::TooManyPrefixes { prefixes_max: PREFIXES_MAX };
                self.floors.raise_prefix(prefix, next).map_err(too_many)?;
            }
            _ => return Ok(()),
        }
        self.pass_all_shards();
        Ok(())
    }

    /// Waits until every change that was under way is done.
    pub(super) fn pass_all_shards(&self) {
        for cell in &self.shards {
            drop(cell.lock());
        }
    }

    /// What a flush and an appointment for one do, on a primary and on a replica.
    pub(crate) fn carry_out_for_all(&self, mutation: &Mutation<'_>, version: Version) {
        match mutation {
            Mutation::Flush => {
                self.floors.raise_all(version);
                self.set_flush_at(0);
            }
            Mutation::FlushPrefix { prefix } => {
                if self.floors.raise_prefix(prefix, version).is_err() {
                    // A node that remembers other prefixes forgets everything instead: a miss is always allowed.
                    self.floors.raise_all(version);
                }
            }
            Mutation::FlushAt { at_ms } => self.set_flush_at(*at_ms),
            _ => unreachable!("only these concern more than a key"),
        }
    }

    /// Makes an appointment for a flush, or cancels it with 0, and has reads attend to it.
    pub(crate) fn set_flush_at(&self, at_ms: u64) {
        self.flush_at_ms.store(at_ms, Ordering::SeqCst);
        if at_ms == 0 {
            self.attention.fetch_and(!attention::FLUSH, Ordering::SeqCst);
        }
        // Looked at again: another thread may have made an appointment just before the bit was cleared.
        if self.flush_at_ms.load(Ordering::SeqCst) != 0 {
            self.attention.fetch_or(attention::FLUSH, Ordering::SeqCst);
        }
    }

    /// Keeps the appointment of a `FlushAt`, before the first operation behind its moment. A replica waits for its
    /// primary's `Flush` instead.
    #[inline]
    pub(crate) fn settle_flush(&self) {
        if self.attention.load(Ordering::Acquire) & attention::FLUSH != 0 {
            self.settle_appointment();
        }
    }

    #[cold]
    fn settle_appointment(&self) {
        let at_ms = self.flush_at_ms.load(Ordering::Acquire);
        if at_ms == 0 || self.now_ms() < at_ms {
            return;
        }
        // Appointments change under the first shard's lock: who comes late, after others have kept it or made another
        // one, must not hide what was stored since, nor cancel the other. A node that lost its role leaves the
        // appointment to the new primary.
        let is_still_due = || self.serving().reigns() && self.flush_at_ms.load(Ordering::Acquire) == at_ms;
        let cell = self.shards[0].lock();
        if !is_still_due() {
            return;
        }
        self.floors.raise_all(self.next_version());
        drop(cell);
        self.pass_all_shards();
        let cell = self.shards[0].lock();
        if !is_still_due() {
            return;
        }
        let version = self.log(&Mutation::Flush, &mut Vec::new());
        self.carry_out_for_all(&Mutation::Flush, version);
        drop(cell);
        self.ring();
        self.tell_events();
    }
}
