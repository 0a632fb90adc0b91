//! When a write counts as replicated: the modes, the outcomes, and who waits.
//!
//! Lives here: how far each attached replica is, as those who wait for it see it. Not here: how that is found out (see
//! `primary`), who may write (see `roles`), what a position is (see `position`).
//!
//! A write pays nothing for this: whoever wants to know asks afterwards, for a place in the log at or behind its own.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;

use parking_lot::{Condvar, Mutex};

use super::position::Seq;
use crate::clock::Deadline;
use crate::mutation::Version;

/// The most replicas that a mode may ask for: as many as a primary ships to.
pub const ACK_REPLICAS_MAX: u8 = 15;

/// What a write waits for before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AckMode {
    /// For nothing. What is not replicated when the primary dies is lost; the status says how much that is.
    #[default]
    Async,
    /// For so many replicas to have applied it, 1 to [`ACK_REPLICAS_MAX`]. With fewer level ones writes are refused.
    /// It never turns itself into async.
    SemiSync {
        /// How many.
        replicas: u8,
    },
    /// As [`AckMode::SemiSync`], and besides nothing is answered that depends on what so many replicas have not applied, nor
    /// by a primary that so many replicas have not heard of within a second: then a read is a miss and a write is refused.
    /// Operations on a key are linearizable at the primary, misses apart, through each promotion that is not forced. Scans
    /// and loads show what is there.
    Strict {
        /// How many.
        replicas: u8,
    },
}

impl AckMode {
    /// How many replicas have to apply a write; 0 in async.
    pub fn replicas(self) -> u8 {
        match self {
            AckMode::Async => 0,
            AckMode::SemiSync { replicas } | AckMode::Strict { replicas } => replicas,
        }
    }

    /// Whether reads wait, too, and need a lease.
    pub fn is_strict(self) -> bool {
        matches!(self, AckMode::Strict { .. })
    }

    /// Semi-sync for so many replicas; 0 is async. More than [`ACK_REPLICAS_MAX`] count as that.
    pub fn of(replicas: u8) -> AckMode {
        match replicas {
            0 => AckMode::Async,
            replicas => AckMode::SemiSync { replicas: replicas.min(ACK_REPLICAS_MAX) },
        }
    }

    /// The same within bounds: no replica is [`AckMode::Async`], and there are at most [`ACK_REPLICAS_MAX`].
    pub(crate) fn bounded(self) -> AckMode {
        match (self, AckMode::of(self.replicas())) {
            (AckMode::Strict { .. }, AckMode::SemiSync { replicas }) => AckMode::Strict { replicas },
            (_, mode) => mode,
        }
    }
}

impl fmt::Display for AckMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckMode::Async => write!(f, "async"),
            AckMode::SemiSync { replicas } => write!(f, "semi-sync:{replicas}"),
            AckMode::Strict { replicas } => write!(f, "strict:{replicas}"),
        }
    }
}

impl FromStr for AckMode {
    type Err = AckModeError;

    /// Reads `async`, `semi-sync:N` or `strict:N`.
    fn from_str(text: &str) -> Result<AckMode, AckModeError> {
        let (word, number) = text.split_once(':').unwrap_or((text, ""));
        match (word, number.parse()) {
            ("async", _) if text == word => Ok(AckMode::Async),
            ("semi-sync", Ok(replicas @ 1..=ACK_REPLICAS_MAX)) => Ok(AckMode::SemiSync { replicas }),
            ("strict", Ok(replicas @ 1..=ACK_REPLICAS_MAX)) => Ok(AckMode::Strict { replicas }),
            _ => Err(AckModeError::Unknown),
        }
    }
}

/// Why a text names no [`AckMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckModeError {
    /// It is none of them.
    Unknown,
}

impl fmt::Display for AckModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckModeError::Unknown => {
                write!(f, "give async, or semi-sync:N or strict:N with N from 1 to {ACK_REPLICAS_MAX}")
            }
        }
    }
}

impl std::error::Error for AckModeError {}

/// What one thread wrote on one node up to some moment, to wait for. Made by [`Cache::track`](crate::Cache::track).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The last one's. Its term is one node's in one reign, so it names the place in one history.
    pub(crate) version: Version,
}

impl Written {
    /// The version of the last one, to wait for on another node ([`Cache::wait_applied`](crate::Cache::wait_applied)).
    pub fn version(self) -> Version {
        self.version
    }
}

/// What became of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// As many replicas as the mode asks for have applied it.
    Replicated {
        /// How many had when this was looked at.
        by: u8,
    },
    /// Not yet. After a time-out: it may survive the primary or not.
    Unknown {
        /// How many replicas have applied it.
        acked: u8,
    },
    /// Another node reigns, and its history ends before this write: it is lost.
    Diverged,
}

impl Acknowledgement {
    /// Whether waiting on may change it.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Acknowledgement::Unknown { .. })
    }
}

/// 1. `applied` are seqs of this node's own history, of replicas that its present reign ships to.
/// 2. Whoever waits registers first and looks afterwards, so that no ack in between is missed.
#[derive(Debug)]
pub(crate) struct Acks {
    needed: AtomicU8,
    waiting: Mutex<Waiting>,
    advanced: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    applied: Vec<Seq>,
    wakers: Vec<Waker>,
    /// How often something has changed.
    changes: u64,
}

impl Acks {
    pub(crate) fn new(mode: AckMode) -> Acks {
        Acks { needed: AtomicU8::new(mode.replicas()), waiting: Mutex::default(), advanced: Condvar::new() }
    }

    /// How many replicas have to apply a write before it is answered.
    pub(crate) fn needed(&self) -> u8 {
        self.needed.load(Ordering::Relaxed)
    }

    /// Sets it; the caller wakes whoever waits, with nothing locked.
    pub(crate) fn set_needed(&self, needed: u8) {
        self.needed.store(needed, Ordering::Relaxed);
    }

    /// A reign ends or begins: no replica counts.
    pub(crate) fn clear(&self) {
        self.waiting.lock().applied.clear();
    }

    /// How far the replicas of this reign are; wakes whoever waits if any of them moved. Called with nothing locked.
    pub(crate) fn publish(&self, applied: &[Seq]) {
        let mut waiting = self.waiting.lock();
        if waiting.applied != applied {
            waiting.applied.clear();
            waiting.applied.extend_from_slice(applied);
            drop(waiting);
            self.wake_all();
        }
    }

    /// How many replicas have applied this seq of this node's history.
    pub(crate) fn count(&self, seq: Seq) -> u8 {
        self.waiting.lock().applied.iter().filter(|applied| **applied >= seq).count() as u8
    }

    /// Has everybody who waits look again. Called with nothing locked.
    pub(crate) fn wake_all(&self) {
        let wakers = {
            let mut waiting = self.waiting.lock();
            waiting.changes += 1;
            std::mem::take(&mut waiting.wakers)
        };
        self.advanced.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Calls the waker once, when something has changed. The caller looks after this.
    pub(crate) fn register(&self, waker: &Waker) {
        let wakers = &mut self.waiting.lock().wakers;
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Waits until `look` finds something, or the time is over; what it found last.
    pub(crate) fn wait(&self, until: Deadline, look: impl Fn() -> Acknowledgement) -> Acknowledgement {
        loop {
            let seen = self.waiting.lock().changes;
            let found = look();
            if !found.is_open() || until.has_passed() {
                return found;
            }
            let mut waiting = self.waiting.lock();
            if waiting.changes == seen {
                self.advanced.wait_until(&mut waiting, until.instant());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        let strict = |replicas| AckMode::Strict { replicas };
        for mode in [AckMode::Async, AckMode::of(1), AckMode::of(15), strict(1), strict(15)] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let none = ["", "async:", "async:1", "semi-sync", "semi-sync:", "semi-sync:-1", "sync", "strict"];
        for wrong in none.into_iter().chain(["semi-sync:0", "semi-sync:16", "strict:0", "strict:16"]) {
            assert_eq!(wrong.parse::<AckMode>(), Err(AckModeError::Unknown), "{wrong}");
        }
        assert_eq!(strict(0).bounded(), AckMode::Async);
        assert_eq!(strict(99).bounded(), strict(15));
    }

    #[test]
    fn only_replicas_at_or_behind_a_seq_count_for_it() {
        let acks = Acks::new(AckMode::of(2));
        acks.publish(&[10, 20, 30]);
        assert_eq!((acks.count(10), acks.count(11), acks.count(31)), (3, 2, 0));
    }
}
