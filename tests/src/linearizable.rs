//! Whether what clients saw of one key could have been, had each operation happened at one moment between its begin and
//! its end.
//!
//! Lives here: the check of one register's history. Not here: who writes and reads (see `simulation::registers` and `chaos`).
//!
//! Each write has a value of its own, so a read names the write that it saw, and a history falls into clusters: a write and
//! its reads. By Gibbons and Korach (Testing Shared Memories, SIAM J. Comput. 26, 1997) it is linearizable if no read ends
//! before its write begins, and the clusters' zones fit. A cluster's value must have been there from its first end to its last
//! begin; where that end comes first, all the time between (a forward zone), else at some moment between (a backward
//! one). Two forward zones must not overlap, and no backward zone may lie inside a forward one.
//!
//! A miss is always legal and says nothing: it is no part of a history. A deletion is a write that nobody reads. A write of
//! which nobody knows whether it happened never ends, and did not happen if nobody read it.

use std::collections::BTreeMap;
use std::fmt;

/// A moment: events of a run are counted.
pub type Moment = u64;

/// One operation on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// When it was asked for.
    pub begin: Moment,
    /// When it was answered; `None` if it never was, or by an answer that says that nobody knows.
    pub end: Option<Moment>,
    /// The write that it did or saw: each has a number of its own.
    pub value: u64,
    /// Whether it is a read, which was answered.
    pub is_read: bool,
}

/// A cluster's value was there from `from` to `to` if `is_forward`, else at some moment between.
#[derive(Debug, Clone, Copy)]
struct Zone {
    from: Moment,
    to: Moment,
    is_forward: bool,
    value: u64,
}

/// Whether the history of one key is linearizable.
///
/// # Errors
/// Which values contradict each other, and when.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, (Vec<Operation>, Vec<Operation>)> = BTreeMap::new();
    for operation in history {
        let (writes, reads) = clusters.entry(operation.value).or_default();
        if operation.is_read { reads } else { writes }.push(*operation);
    }
    let mut zones = Vec::new();
    for (value, (writes, reads)) in clusters {
        let [write] = writes[..] else {
            return Err(format!("value {value} was read and written {} times", writes.len()));
        };
        if let Some(read) = reads.iter().find(|read| read.end.is_some_and(|end| end < write.begin)) {
            return Err(format!("{read:?} read what {write:?} had yet to write"));
        }
        let all = || reads.iter().chain([&write]);
        // Nobody knows whether it happened, and nobody saw it.
        let Some(first_end) = all().filter_map(|operation| operation.end).min() else { continue };
        let last_begin = all().map(|operation| operation.begin).max().unwrap_or(write.begin);
        let is_forward = first_end < last_begin;
        let (from, to) = if is_forward { (first_end, last_begin) } else { (last_begin, first_end) };
        zones.push(Zone { from, to, is_forward, value });
    }
    compare(&zones)
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let always = if self.is_forward { "all the time" } else { "at some moment" };
        write!(f, "value {} ({always} between {} and {})", self.value, self.from, self.to)
    }
}

fn compare(zones: &[Zone]) -> Result<(), String> {
    let mut forward: Vec<&Zone> = zones.iter().filter(|zone| zone.is_forward).collect();
    forward.sort_by_key(|zone| zone.from);
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].from < pair[0].to) {
        return Err(format!("{} and {} were there at the same time", pair[0], pair[1]));
    }
    for zone in zones.iter().filter(|zone| !zone.is_forward) {
        let before = forward.partition_point(|other| other.from < zone.from);
        if let Some(other) =
            before.checked_sub(1).map(|index| forward[index]).filter(|other| zone.to < other.to)
        {
            return Err(format!("{zone} was there while {other} was, too"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(value: u64, begin: Moment, end: Option<Moment>) -> Operation {
        Operation { begin, end, value, is_read: false }
    }

    fn read(value: u64, begin: Moment, end: Moment) -> Operation {
        Operation { begin, end: Some(end), value, is_read: true }
    }

    #[test]
    fn an_old_value_after_a_new_one_is_found() {
        let (one, two) = (write(1, 0, Some(1)), write(2, 2, Some(3)));
        assert_eq!(check(&[one, two, read(2, 4, 5)]), Ok(()));
        assert!(check(&[one, two, read(1, 4, 5)]).is_err());
        assert!(check(&[one, two, read(2, 4, 5), read(1, 6, 7)]).is_err());
        let deleted = write(3, 8, Some(9));
        assert!(check(&[one, two, deleted, read(2, 10, 11)]).is_err());
    }

    #[test]
    fn a_write_that_nobody_knows_of_may_happen_late_but_not_twice() {
        let (one, unknown) = (write(1, 0, Some(1)), write(2, 2, None));
        assert_eq!(check(&[one, unknown, read(1, 10, 11), read(2, 20, 21)]), Ok(()));
        assert!(check(&[one, unknown, read(2, 10, 11), read(1, 20, 21)]).is_err());
        assert!(check(&[one, unknown, read(2, 0, 1)]).is_err(), "not before it was asked for");
        assert!(check(&[one, read(9, 2, 3)]).is_err(), "nobody wrote it");
    }

    /// Tries each order.
    fn is_linearizable(history: &[Operation]) -> bool {
        fn goes_on(left: &[Operation], value: Option<u64>) -> bool {
            if left.iter().all(|operation| operation.end.is_none()) {
                return true;
            }
            (0..left.len()).any(|index| {
                let next = left[index];
                let is_first = left.iter().all(|other| other.end.is_none_or(|end| end >= next.begin));
                let fits = !next.is_read || value == Some(next.value);
                let rest: Vec<_> = [&left[..index], &left[index + 1..]].concat();
                is_first && fits && goes_on(&rest, Some(next.value))
            })
        }
        goes_on(history, None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn it_finds_what_trying_every_order_finds(
            shapes in prop::collection::vec((0u64..4, 0u64..12, 1u64..8, any::<bool>()), 1..7),
        ) {
            // Each moment once: an end and a begin at the same would leave open which came first.
            let mut history: Vec<Operation> = Vec::new();
            for (index, (value, begin, length, is_known)) in shapes.into_iter().enumerate() {
                let is_read = history.iter().any(|other| other.value == value);
                let begin = begin * 100 + 2 * index as u64;
                let end = (is_known || is_read).then_some(begin + length * 100 + 1);
                history.push(Operation { begin, end, value, is_read });
            }
            prop_assert_eq!(check(&history).is_ok(), is_linearizable(&history), "{:?}", history);
        }
    }
}
