//! What clients did and were told: the only ground on which nodes are judged.
//!
//! Lives here: keys, the values that tell on themselves, and the records of writes and reads.

use std::time::Instant;

/// Nanoseconds since the run began.
pub(super) type Moment = u64;

/// Bits of a version that are the seq; the term lies above them.
const VERSION_SEQ_BITS: u32 = 44;

/// The seq of a version: a write's place in the log. It only rises along one history, also through changes of term.
pub(super) fn seq_of(version: u64) -> u64 {
    version & ((1 << VERSION_SEQ_BITS) - 1)
}

/// The term of a version.
pub(super) fn term_of(version: u64) -> u64 {
    version >> VERSION_SEQ_BITS
}

/// The run's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> Moment {
        self.0.elapsed().as_nanos() as Moment
    }
}

/// A key by its number; each has one writer.
pub(super) type Key = usize;

/// The key's name.
pub(super) fn name_of(key: Key) -> String {
    format!("chaos-{key}")
}

/// The value of the `counter`th write to a key: it names both, and its length depends on them.
pub(super) fn value_of(key: Key, counter: u32) -> Vec<u8> {
    let filler = (key * 31 + counter as usize * 17) % 600;
    format!("{} {counter} {}", name_of(key), "x".repeat(filler)).into_bytes()
}

/// Which write to `key` left this value; `None` if none did.
pub(super) fn counter_in(key: Key, value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    let counter = text.split(' ').nth(1)?.parse().ok()?;
    (value_of(key, counter) == value).then_some(counter)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Set,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    /// No answer, or one that says so: it may show up at any time, or never.
    Unknown,
    /// Answered that nothing was changed.
    Refused,
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: Key,
    /// Rises with each write to the key.
    pub(super) counter: u32,
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    pub(super) began: Moment,
    pub(super) ended: Moment,
    /// Of an acknowledged set; 0 otherwise.
    pub(super) version: u64,
    /// A version that is surely older: what the same client was told before.
    pub(super) above: u64,
    /// One that is surely newer: what it was told next; 0 if nothing was.
    pub(super) below: u64,
    /// The reign that the client wrote to.
    pub(super) reign: usize,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Miss,
    Value {
        counter: u32,
        version: u64,
    },
    /// Bytes that nobody ever wrote.
    Wrong(String),
}

/// Where something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the primary of that reign.
    Primary(usize),
    /// On a node by its number, whatever it is by now.
    Node(usize),
}

/// One read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) key: Key,
    pub(super) began: Moment,
    pub(super) ended: Moment,
    pub(super) found: Found,
    pub(super) place: Place,
}

/// What one client did.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
    /// Answers that no node should give.
    pub(super) strange: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_key_and_its_number_and_nothing_else_passes() {
        let mut value = value_of(7, 12);
        assert_eq!(counter_in(7, &value), Some(12));
        assert_eq!(counter_in(8, &value), None);
        value.pop();
        assert_eq!(counter_in(7, &value), None);
    }
}
