//! What clients saw of each key in strict, held against the promise that it is linearizable, misses apart.
//!
//! Lives here: each key's history, as long as it matters. Not here: what makes one sound (see `linearizable`), what may be
//! lost (see `judge`).
//!
//! Every hit counts, whichever node gave it: in strict a node that is no primary any more shows nothing. So the nodes of
//! such a run answer no reads as replicas.

use super::history::{Found, Key, Outcome, Read, Write};
use crate::linearizable::{self, Operation};

/// Rests after which a write of which nobody knows can't happen any more: whoever had it has ended or answered by then.
const RESTS_KEPT: u64 = 3;

/// 1. What was settled at the last rest is the only answered write from before it that is known.
#[derive(Debug)]
pub(super) struct Registers {
    /// Operations, and the rest before which each was noted.
    keys: Vec<Vec<(u64, Operation)>>,
    rests: u64,
}

impl Registers {
    /// For `keys` keys.
    pub(super) fn new(keys: usize) -> Registers {
        Registers { keys: vec![Vec::new(); keys], rests: 0 }
    }

    /// Takes note of a write. One that was refused did not happen.
    pub(super) fn wrote(&mut self, write: &Write) {
        let end = match write.outcome {
            Outcome::Acknowledged => Some(write.ended),
            Outcome::Unknown => None,
            Outcome::Refused => return,
        };
        let value = write.counter.into();
        self.note(write.key, Operation { begin: write.began, end, value, is_read: false });
    }

    /// Takes note of a read. A miss says nothing.
    pub(super) fn read(&mut self, read: &Read) {
        if let Found::Value { counter, .. } = read.found {
            let value = counter.into();
            let end = Some(read.ended);
            self.note(read.key, Operation { begin: read.began, end, value, is_read: true });
        }
    }

    fn note(&mut self, key: Key, operation: Operation) {
        self.keys[key].push((self.rests, operation));
    }

    /// What of all that could not have been, in words; and forgets what no longer matters, since all rest and `settled` was
    /// read then.
    pub(super) fn check(&mut self, settled: &[Read]) -> Vec<String> {
        self.rests += 1;
        let mut complaints = Vec::new();
        for (key, history) in self.keys.iter_mut().enumerate() {
            let operations: Vec<Operation> = history.iter().map(|(_, operation)| *operation).collect();
            if let Err(why) = linearizable::check(&operations) {
                complaints.push(format!("not linearizable: key {key}: {why}"));
                history.clear();
            }
        }
        for read in settled {
            let Found::Value { counter, .. } = read.found else { continue };
            let rests = self.rests;
            self.keys[read.key].retain(|(noted, operation)| {
                let is_open = operation.end.is_none() && noted + RESTS_KEPT > rests;
                !operation.is_read && (is_open || operation.value == u64::from(counter))
            });
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Kind, Place};
    use super::*;

    fn wrote(counter: u32, began: u64, outcome: Outcome) -> Write {
        let ended = began + 5;
        let (kind, version) = (Kind::Set, counter.into());
        Write { key: 0, counter, kind, outcome, began, ended, version, above: 0, below: 0, reign: 0 }
    }

    fn hit(counter: u32, began: u64) -> Read {
        let found = Found::Value { counter, version: counter.into() };
        Read { key: 0, began, ended: began + 5, found, place: Place::Node(0) }
    }

    #[test]
    fn an_old_value_is_found_also_after_a_rest_and_an_unknown_write_may_come_late() {
        let mut registers = Registers::new(1);
        registers.wrote(&wrote(1, 0, Outcome::Acknowledged));
        registers.wrote(&wrote(2, 10, Outcome::Acknowledged));
        registers.wrote(&wrote(3, 20, Outcome::Unknown));
        registers.wrote(&wrote(4, 30, Outcome::Refused));
        let settled = hit(2, 40);
        registers.read(&settled);
        assert_eq!(registers.check(&[settled]), [""; 0]);
        registers.read(&hit(3, 50));
        assert_eq!(registers.check(&[]), [""; 0]);
        registers.read(&hit(2, 60));
        assert_eq!(registers.check(&[]).len(), 1, "3 was there before");
        registers.wrote(&wrote(5, 70, Outcome::Acknowledged));
        registers.read(&hit(4, 80));
        assert_eq!(registers.check(&[]).len(), 1, "4 was refused");
    }
}
