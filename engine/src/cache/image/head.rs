//! The beginning of an image: all that a cache knows besides its items.
//!
//! Lives here: its bytes, and every check that needs nothing else. Not here: taking it up (see `restore`).

use serde::{Deserialize, Serialize};

use crate::mutation::Version;
use crate::replication::message::{PrefixFloor, WireEntry, from_wire};
use crate::replication::position::{Lineage, Term};
use crate::storage::{PREFIX_BYTES_MAX, PREFIXES_MAX};

use super::error::Damage;

/// The longest head: 256 prefixes, 32 branches and 16 addresses take less than 50 KiB.
pub(super) const HEAD_BYTES_MAX: u32 = 256 << 10;
/// Moments and deadlines are kept up to here (the year 2527).
const MOMENT_MS_MAX: u64 = 1 << 44;
/// Above it, a standalone cache could run out of versions.
const STANDALONE_VERSION_MAX: u64 = u64::MAX - (1 << 43);

/// All that a cache knows besides its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The version of the last change.
    pub(super) last_version: u64,
    pub(super) hash_seed: u64,
    /// The clock by which items expire, and the wall clock at the same moment.
    pub(super) clock_ms: u64,
    pub(super) wall_ms: u64,
    /// A pending flush, 0 for none.
    pub(super) flush_at_ms: u64,
    pub(super) flush_floor: u64,
    pub(super) prefix_floors: Vec<PrefixFloor>,
    pub(super) membership: Option<Membership>,
}

/// A node's part in its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    pub(super) group: u128,
    pub(super) node: u128,
    /// Whether it was the primary, and not fenced.
    pub(super) reigned: bool,
    /// Whether it was a primary that began empty and had no replica yet.
    pub(super) young: bool,
    pub(super) term_seen: u32,
    /// Its position is the end of the last entry.
    pub(super) lineage: Vec<WireEntry>,
    pub(super) peers: Vec<String>,
}

impl Membership {
    pub(super) fn lineage(&self) -> Result<Lineage, Damage> {
        let lineage = from_wire(self.lineage.clone()).map_err(|_| Damage::Nonsense("its history"))?;
        let is_sound =
            lineage.newest().is_some() && (lineage.term().0..=Term::MAX.0).contains(&self.term_seen);
        if is_sound { Ok(lineage) } else { Err(Damage::Nonsense("its term")) }
    }
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, Vec::new()).expect("a vector takes any number of bytes")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Head, Damage> {
        match postcard::take_from_bytes::<Head>(bytes) {
            Ok((head, [])) => head.check().map(|()| head),
            _ => Err(Damage::Nonsense("its beginning")),
        }
    }

    fn check(&self) -> Result<(), Damage> {
        if self.clock_ms >= MOMENT_MS_MAX || self.wall_ms >= MOMENT_MS_MAX {
            return Err(Damage::Nonsense("its clock"));
        }
        let last = match &self.membership {
            None => Version(STANDALONE_VERSION_MAX),
            Some(member) => {
                let lineage = member.lineage()?;
                let seq = lineage.position().map_or(0, |position| position.seq);
                Version::new(lineage.term().0, seq)
            }
        };
        let is_last =
            if self.membership.is_some() { self.last_version == last.0 } else { self.last_version <= last.0 };
        if !is_last {
            return Err(Damage::Nonsense("its last version"));
        }
        // A flush raises its floor before it takes its version, the next one.
        let floor_max = self.last_version + 1;
        let prefix_is_sound = |entry: &PrefixFloor| {
            (1..=PREFIX_BYTES_MAX).contains(&entry.prefix.len()) && entry.floor <= floor_max
        };
        let floors_are_sound = self.flush_floor <= floor_max
            && self.prefix_floors.len() <= PREFIXES_MAX
            && self.prefix_floors.iter().all(prefix_is_sound);
        if floors_are_sound { Ok(()) } else { Err(Damage::Nonsense("a flush of it")) }
    }
}
