//! A full copy that comes on a channel beside the log: what waits for what, on the replica.
//!
//! Lives here: which frame is due, and which of the two channels is read. Not here: applying (see `replica`), which items
//! of a chunk still count (see `window`).
//!
//! - A chunk, or the end of the copy, that is ahead of the log waits for the log.
//! - Records for which the window has no room wait for the next chunk, or for the copy's end. That says by its own moment
//!   what the window may forget, whether it is due or not: so never do both wait at once.
//! - While something waits its channel is not read, so one frame of each is all that is kept.

use bytes::Bytes;

use super::message::Apart;
use super::position::Seq;
use super::session::SessionEnd;
use super::window::Window;

/// 1. `window` is there while copy `begun` is under way on the bulk channel.
/// 2. A part waits only while `window` is there and `reached == begun`.
/// 3. `reached <= begun + 1`: the bulk channel is read no further than to the next copy's beginning.
#[derive(Debug, Default)]
pub(crate) struct ApartCopy {
    /// The copy of which the live channel has told.
    begun: u32,
    /// The copy of which the bulk channel has.
    reached: u32,
    window: Option<Window>,
    part: Option<(Seq, Bytes)>,
    records: Option<(usize, Bytes)>,
}

/// What becomes of a part of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartIs {
    Due,
    /// Kept until the log is there.
    Waiting,
    /// Of a copy that was given up.
    Stale,
}

impl ApartCopy {
    /// Another full copy begins, by whatever channel.
    pub(crate) fn give_up(&mut self) {
        (self.window, self.part) = (None, None);
    }

    /// The live channel says that the copy which has just begun comes apart.
    pub(crate) fn begin(&mut self, apart: Apart, window: Window) -> Result<(), SessionEnd> {
        if self.window.is_some() || self.begun.checked_add(1) != Some(apart.copy) {
            return Err(SessionEnd::Unexpected("copy on the live channel"));
        }
        self.begun = apart.copy;
        self.window = Some(window);
        Ok(())
    }

    /// The bulk channel goes on with this copy.
    pub(crate) fn reach(&mut self, apart: Apart) -> Result<(), SessionEnd> {
        if self.reached.checked_add(1) != Some(apart.copy) {
            return Err(SessionEnd::Unexpected("copy on the bulk channel"));
        }
        self.reached = apart.copy;
        if self.reached > self.begun {
            self.forget_changes();
        }
        Ok(())
    }

    /// Nothing of this copy is on its way any more, so nothing of it can be late: records wait for it no longer.
    fn forget_changes(&mut self) {
        if let Some(window) = &mut self.window {
            window.raise(Seq::MAX);
        }
    }

    /// The copy is complete.
    pub(crate) fn end(&mut self) {
        self.give_up();
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.window.is_some()
    }

    pub(crate) fn takes_bulk(&self) -> bool {
        self.window.is_some() && self.part.is_none() && self.reached <= self.begun
    }

    pub(crate) fn takes_live(&self) -> bool {
        self.records.is_none()
    }

    pub(crate) fn window(&mut self) -> Option<&mut Window> {
        self.window.as_mut()
    }

    /// Items as of `at_seq`: none on their way are of an earlier moment.
    pub(crate) fn take_chunk(
        &mut self,
        at_seq: Seq,
        applied: Seq,
        frame: &Bytes,
    ) -> Result<PartIs, SessionEnd> {
        if self.reached == self.begun
            && let Some(window) = &mut self.window
        {
            if at_seq < window.floor() {
                return Err(SessionEnd::OutOfStep);
            }
            window.raise(at_seq);
        }
        self.take_part(at_seq, applied, frame)
    }

    /// The copy is complete once the log stands at `at_seq`.
    pub(crate) fn take_end(
        &mut self,
        at_seq: Seq,
        applied: Seq,
        frame: &Bytes,
    ) -> Result<PartIs, SessionEnd> {
        let part = self.take_part(at_seq, applied, frame)?;
        if part == PartIs::Waiting {
            self.forget_changes();
        }
        Ok(part)
    }

    fn take_part(&mut self, at_seq: Seq, applied: Seq, frame: &Bytes) -> Result<PartIs, SessionEnd> {
        if self.window.is_none() || self.part.is_some() || self.reached > self.begun {
            return Err(SessionEnd::Unexpected("part of a copy"));
        }
        if self.reached < self.begun {
            return Ok(PartIs::Stale);
        }
        if at_seq <= applied {
            return Ok(PartIs::Due);
        }
        self.part = Some((at_seq, frame.clone()));
        Ok(PartIs::Waiting)
    }

    /// The part that waited for the log to stand here.
    pub(crate) fn part_due(&mut self, applied: Seq) -> Option<Bytes> {
        self.part.take_if(|(at_seq, _)| *at_seq <= applied).map(|(_, frame)| frame)
    }

    /// Whether so many records may be applied now; else their frame is kept until they may.
    pub(crate) fn admits(&mut self, records: usize, frame: &Bytes) -> Result<bool, SessionEnd> {
        let Some(window) = &self.window else { return Ok(true) };
        if !Window::may_be(records) {
            return Err(SessionEnd::Unexpected("number of records in a frame"));
        }
        let admits = window.has_room_for(records);
        if !admits {
            self.records = Some((records, frame.clone()));
        }
        Ok(admits)
    }

    /// The records that waited for room.
    pub(crate) fn records_due(&mut self) -> Option<Bytes> {
        let has_room =
            |records: usize| self.window.as_ref().is_none_or(|window| window.has_room_for(records));
        self.records.take_if(|(records, _)| has_room(*records)).map(|(_, frame)| frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::bug::Bugs;
    use crate::replication::message::Append;

    fn begun(copy: u32, records_max: usize) -> ApartCopy {
        let mut apart = ApartCopy::default();
        for copy in 1..=copy {
            apart.give_up();
            apart.begin(Apart { copy }, Window::new(10, records_max, Bugs::default())).unwrap();
        }
        apart
    }

    /// Applies puts of one key each behind `prev_seq`, if there is room for them.
    fn apply(apart: &mut ApartCopy, prev_seq: Seq, count: usize) -> bool {
        // A length and a put of the key `k` without a value.
        let records = [8, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 0, 0].repeat(count);
        let append = Append { term: 1, branch: 1, prev_seq, clock_ms: 0, records: &records };
        assert_eq!(append.count_records(), count);
        let admitted = apart.admits(count, &Bytes::new()).unwrap();
        if admitted {
            apart.window().unwrap().note(&append, |key| u64::from(key[0]));
        }
        admitted
    }

    const FRAME: Bytes = Bytes::from_static(b"a frame");

    #[test]
    fn a_part_ahead_of_the_log_waits_and_its_channel_is_not_read_meanwhile() {
        let mut apart = begun(1, 100);
        apart.reach(Apart { copy: 1 }).unwrap();
        assert_eq!(apart.take_chunk(12, 10, &FRAME), Ok(PartIs::Waiting));
        assert!(!apart.takes_bulk() && apart.takes_live());
        assert_eq!((apart.part_due(11), apart.part_due(12)), (None, Some(FRAME)));
        assert!(apart.takes_bulk());
        assert_eq!(apart.take_end(13, 12, &FRAME), Ok(PartIs::Waiting));
        assert_eq!(apart.part_due(13), Some(FRAME));
        assert_eq!(apart.take_end(13, 13, &FRAME), Ok(PartIs::Due));
        apart.end();
        assert!(!apart.takes_bulk() && !apart.is_under_way());
    }

    #[test]
    fn records_without_room_wait_for_the_next_chunk_even_if_that_waits_for_them() {
        let mut apart = begun(1, 4);
        apart.reach(Apart { copy: 1 }).unwrap();
        assert!(apply(&mut apart, 10, 3));
        assert!(!apply(&mut apart, 13, 2) && !apart.takes_live());
        assert_eq!(apart.records_due(), None);
        assert_eq!(apart.take_chunk(14, 13, &FRAME), Ok(PartIs::Waiting));
        assert!(apart.records_due().is_some(), "every chunk to come has what was noted");
        assert!(apart.takes_live() && apply(&mut apart, 13, 2));
        assert_eq!(apart.part_due(15), Some(FRAME));
    }

    #[test]
    fn records_without_room_do_not_wait_for_a_copy_of_which_nothing_is_on_its_way() {
        let mut apart = begun(1, 4);
        apart.reach(Apart { copy: 1 }).unwrap();
        assert!(apply(&mut apart, 10, 3) && !apply(&mut apart, 13, 2));
        assert_eq!(apart.take_end(18, 13, &FRAME), Ok(PartIs::Waiting));
        assert!(apart.records_due().is_some(), "its end waits for them");
        assert!(apply(&mut apart, 13, 2) && apply(&mut apart, 15, 3));
        assert_eq!(apart.part_due(18), Some(FRAME));

        let mut apart = begun(1, 4);
        apart.reach(Apart { copy: 1 }).unwrap();
        assert!(apply(&mut apart, 10, 3) && !apply(&mut apart, 13, 2));
        apart.reach(Apart { copy: 2 }).unwrap();
        assert!(!apart.takes_bulk(), "the next copy has begun there, and the log has yet to say so");
        assert!(apart.records_due().is_some() && apart.takes_live());
    }

    #[test]
    fn parts_of_a_copy_that_was_given_up_count_for_nothing_and_those_of_the_next_are_not_read_yet() {
        let mut apart = begun(2, 100);
        assert!(apart.takes_bulk());
        apart.reach(Apart { copy: 1 }).unwrap();
        assert_eq!(apart.take_chunk(3, 10, &FRAME), Ok(PartIs::Stale));
        assert_eq!(apart.take_end(10, 10, &FRAME), Ok(PartIs::Stale));
        apart.reach(Apart { copy: 2 }).unwrap();
        assert_eq!(apart.take_chunk(10, 10, &FRAME), Ok(PartIs::Due));
        apart.reach(Apart { copy: 3 }).unwrap();
        assert!(!apart.takes_bulk(), "the live channel has not told of it");
    }

    #[test]
    fn what_no_primary_sends_ends_the_session() {
        let apart = || {
            let mut apart = begun(1, 100);
            apart.reach(Apart { copy: 1 }).unwrap();
            apart
        };
        assert!(apart().reach(Apart { copy: 3 }).is_err() && apart().reach(Apart { copy: 1 }).is_err());
        assert!(apart().begin(Apart { copy: 2 }, Window::new(0, 1, Bugs::default())).is_err());
        assert!(begun(0, 1).take_chunk(1, 1, &FRAME).is_err(), "no copy is under way");
        assert_eq!(apart().take_chunk(9, 10, &FRAME), Err(SessionEnd::OutOfStep), "older than the copy");
        let mut forth = apart();
        assert_eq!(forth.take_chunk(11, 11, &FRAME), Ok(PartIs::Due));
        assert_eq!(forth.take_chunk(10, 11, &FRAME), Err(SessionEnd::OutOfStep), "back");
        assert!(apart().admits(1 << 20, &FRAME).is_err());
    }
}
