//! Where a subscriber stands, as a value to keep.

use std::fmt;
use std::str::FromStr;

use crate::replication::log::Cuts;
use crate::replication::position::{Branch, Position as InHistory, Seq};

/// A place between two changes of one cache: all before it was told.
///
/// As text (`Display` and `FromStr`) it may be kept anywhere. It is good for the cache that gave it, as long as that
/// lives: what another node of the group holds, and what a cache holds after a restart, may differ by what was evicted,
/// so there the stream says [`Restart::OtherCache`](super::Restart::OtherCache) before it goes on without a gap.
///
/// It names a branch of the group's history, which is random and known to the group's nodes only: without a replication
/// secret, who knows it can have a node believe a higher term. Keep it where you would keep such a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub(super) branch: u128,
    pub(super) seq: Seq,
    /// Which cache, in which life.
    pub(super) cache: u64,
    /// How often it had been copied anew or rolled back.
    pub(super) cuts: Cuts,
}

impl Position {
    pub(super) fn in_history(self) -> InHistory {
        InHistory { branch: Branch(self.branch), seq: self.seq }
    }

    /// The number of the last mutation before it: of two positions of one cache without an
    /// [`Effect::Restart`](super::Effect::Restart) in between, the later has the higher one.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cuts { restarts, truncations } = self.cuts;
        write!(f, "{:x}.{:x}.{:x}.{restarts:x}.{truncations:x}", self.branch, self.seq, self.cache)
    }
}

/// A text that is no [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionError;

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the position of a subscription: five hexadecimal numbers with points between them")
    }
}

impl std::error::Error for PositionError {}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let parts: Vec<&str> = text.splitn(6, '.').collect();
        let [branch, seq, cache, restarts, truncations] = parts[..] else { return Err(PositionError) };
        let digits_only = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !parts.iter().all(digits_only) {
            return Err(PositionError);
        }
        Ok(Position {
            branch: u128::from_str_radix(branch, 16).map_err(|_| PositionError)?,
            seq: u64::from_str_radix(seq, 16).map_err(|_| PositionError)?,
            cache: u64::from_str_radix(cache, 16).map_err(|_| PositionError)?,
            cuts: Cuts {
                restarts: u32::from_str_radix(restarts, 16).map_err(|_| PositionError)?,
                truncations: u32::from_str_radix(truncations, 16).map_err(|_| PositionError)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written_and_other_text_is_refused() {
        let position = Position {
            branch: u128::MAX - 1,
            seq: 44,
            cache: u64::MAX,
            cuts: Cuts { restarts: 3, truncations: 0 },
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        let too_long = format!("{}.0.0.0.0", "f".repeat(33));
        for wrong in [
            "",
            "1",
            "1.2.3.4",
            "1.2.3.4.5.6",
            "1.2.3.4.x",
            "1..3.4.5",
            "+1.2.3.4.5",
            "1.2.3.4.-5",
            &too_long,
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(PositionError), "{wrong}");
        }
    }
}
