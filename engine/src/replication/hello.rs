//! The first frame of each side: who a node is and where it stands, as a list of (tag, bytes).
//!
//! Lives here: the one body that every version can read, for ever: unknown tags are skipped.
//! Not here: what the listener answers (see `primary`), who is believed (see `admission`).
//!
//! ```text
//!   tag u8 | length u16 | bytes ... | tag u8 | ...
//! ```

use super::acks::AckMode;
use super::bug::{Bug, Bugs};
use super::frame::FrameError;
use super::message::Mode;
use super::position::{Branch, LINEAGE_MAX, Lineage, LineageEntry, Position, Seq, Term};

/// The longest address that a node may name.
pub(crate) const ADDRESS_BYTES_MAX: usize = 256;

const ENTRY_BYTES: usize = 37;

/// What the dialling node wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To follow, if the listener is a primary.
    Follow,
    /// To say that it is the primary now.
    Announce,
    /// To hear where the listener stands: the dialler may be promoted.
    Ask,
    /// Likewise, and that the listener follows nobody below the dialler's term any more.
    Promise,
    /// To get what it lacks from one that has promised.
    CatchUp,
}

const PURPOSES: [Purpose; 5] =
    [Purpose::Follow, Purpose::Announce, Purpose::Ask, Purpose::Promise, Purpose::CatchUp];

/// Who a node is and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    pub(crate) purpose: Purpose,
    pub(crate) group: u128,
    pub(crate) node: u128,
    pub(crate) incarnation: u64,
    pub(crate) slot: u8,
    pub(crate) term_seen: Term,
    pub(crate) lineage: Lineage,
    /// The last mutation held; `None` for an empty node and in the middle of an install.
    pub(crate) position: Option<Position>,
    /// The lowest seq that this node can roll back to by dropping keys; `None` from a node that has nothing, or does not
    /// know how.
    pub(crate) undo_floor: Option<Seq>,
    /// Whether it answers a `Lease`.
    pub(crate) grants_leases: bool,
    pub(crate) frame_bytes_max: u32,
    pub(crate) clock_ms: u64,
    /// Where this node listens for replication, empty if it does not.
    pub(crate) address: String,
    /// Whether it would follow the listener even if that is a replica.
    pub(crate) cascades: bool,
    /// What a write waits for at this node; `None` from one that does not know how to tell, nor to be told.
    pub(crate) ack_mode: Option<AckMode>,
    /// Whether it takes another slot by itself if this one is taken.
    pub(crate) slot_is_free: bool,
    /// Whether it takes a full copy on a channel beside the log.
    pub(crate) takes_apart: bool,
    /// Whether it knows the records that say who loads a key.
    pub(crate) knows_loads: bool,
    /// Whether it knows the log's entries that say what an eviction pass did.
    pub(crate) follows_evictions: bool,
    /// Whether it came up with nothing, and no primary has counted it since: what it acknowledged or promised before is not in
    /// what it holds now, wherever that came from. One that does not know to say so may have forgotten.
    pub(crate) forgot: bool,
}

const VERSION: u8 = 1;
const PURPOSE: u8 = 2;
const GROUP: u8 = 3;
const NODE: u8 = 4;
const INCARNATION: u8 = 5;
const SLOT: u8 = 6;
const TERM_SEEN: u8 = 7;
const LINEAGE: u8 = 8;
const POSITION: u8 = 9;
const FRAME_BYTES_MAX: u8 = 10;
const CLOCK: u8 = 11;
const ADDRESS: u8 = 12;
const UNDO_FLOOR: u8 = 13;
const CASCADES: u8 = 14;
const GRANTS_LEASES: u8 = 15;
const ACK_MODE: u8 = 28;
const SLOT_IS_FREE: u8 = 29;
const TAKES_APART: u8 = 19;
const KNOWS_LOADS: u8 = 16;
const FOLLOWS_EVICTIONS: u8 = 30;
const FORGOT: u8 = 31;

impl Hello {
    /// Appends the tag list to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put(out, VERSION, &self.version.to_le_bytes());
        let purpose = PURPOSES.iter().position(|purpose| *purpose == self.purpose).unwrap_or(0);
        put(out, PURPOSE, &[purpose as u8]);
        put(out, GROUP, &self.group.to_le_bytes());
        put(out, NODE, &self.node.to_le_bytes());
        put(out, INCARNATION, &self.incarnation.to_le_bytes());
        put(out, SLOT, &[self.slot]);
        put(out, TERM_SEEN, &self.term_seen.0.to_le_bytes());
        let mut entries = Vec::with_capacity(ENTRY_BYTES * self.lineage.entries().len());
        for entry in self.lineage.entries() {
            put_entry(&mut entries, entry);
        }
        put(out, LINEAGE, &entries);
        if let Some(position) = self.position {
            let bytes = [&position.branch.0.to_le_bytes()[..], &position.seq.to_le_bytes()].concat();
            put(out, POSITION, &bytes);
        }
        if let Some(seq) = self.undo_floor {
            put(out, UNDO_FLOOR, &seq.to_le_bytes());
        }
        if self.grants_leases {
            put(out, GRANTS_LEASES, &[1]);
        }
        put(out, FRAME_BYTES_MAX, &self.frame_bytes_max.to_le_bytes());
        put(out, CLOCK, &self.clock_ms.to_le_bytes());
        put(out, ADDRESS, self.address.as_bytes());
        if self.cascades {
            put(out, CASCADES, &[1]);
        }
        if let Some(mode) = self.ack_mode {
            put(out, ACK_MODE, &[mode.is_strict().into(), mode.replicas()]);
        }
        if self.slot_is_free {
            put(out, SLOT_IS_FREE, &[1]);
        }
        if self.takes_apart {
            put(out, TAKES_APART, &[1]);
        }
        if self.knows_loads {
            put(out, KNOWS_LOADS, &[1]);
        }
        if self.follows_evictions {
            put(out, FOLLOWS_EVICTIONS, &[1]);
        }
        put(out, FORGOT, &[self.forgot.into()]);
    }

    /// Whether it knows what it has promised, so that writes and leases may count on it at once.
    pub(crate) fn remembers(&self) -> bool {
        self.term_seen > Term::default() && !self.forgot
    }

    /// Whether it can read whatever this version's log may hold.
    pub(crate) fn reads_all_entries(&self) -> bool {
        self.knows_loads && self.follows_evictions
    }

    /// Reads a tag list. A tag that is missing has its zero (and whoever does not say that it remembers may have forgotten), one
    /// that is unknown is skipped, the last of two counts.
    pub(crate) fn decode(mut bytes: &[u8], bugs: Bugs) -> Result<Hello, FrameError> {
        let mut hello = Hello {
            version: 0,
            purpose: Purpose::Follow,
            group: 0,
            node: 0,
            incarnation: 0,
            slot: 0,
            term_seen: Term(0),
            lineage: Lineage::default(),
            position: None,
            undo_floor: None,
            grants_leases: false,
            frame_bytes_max: 0,
            clock_ms: 0,
            address: String::new(),
            cascades: false,
            ack_mode: None,
            slot_is_free: false,
            takes_apart: false,
            knows_loads: false,
            follows_evictions: false,
            forgot: !bugs.has(Bug::SilentRemembers),
        };
        while !bytes.is_empty() {
            let ([tag, low, high], rest) = bytes.split_first_chunk::<3>().ok_or(FrameError::BadBody)?;
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let (value, rest) = rest.split_at_checked(length).ok_or(FrameError::BadBody)?;
            hello.take(*tag, value).ok_or(FrameError::BadBody)?;
            bytes = rest;
        }
        Ok(hello)
    }

    fn take(&mut self, tag: u8, value: &[u8]) -> Option<()> {
        match tag {
            VERSION => self.version = u16::from_le_bytes(value.try_into().ok()?),
            PURPOSE => {
                let number = usize::from(*value.first()?);
                self.purpose = PURPOSES.get(number).copied().unwrap_or(Purpose::Follow);
            }
            GROUP => self.group = u128::from_le_bytes(value.try_into().ok()?),
            NODE => self.node = u128::from_le_bytes(value.try_into().ok()?),
            INCARNATION => self.incarnation = u64::from_le_bytes(value.try_into().ok()?),
            SLOT => self.slot = *value.first().filter(|slot| **slot < 16)?,
            TERM_SEEN => self.term_seen = Term(u32::from_le_bytes(value.try_into().ok()?)),
            LINEAGE => self.lineage = take_lineage(value)?,
            POSITION => {
                let (branch, seq) = value.split_first_chunk::<16>()?;
                let branch = Branch(u128::from_le_bytes(*branch));
                self.position = Some(Position { branch, seq: u64::from_le_bytes(seq.try_into().ok()?) });
            }
            UNDO_FLOOR => self.undo_floor = Some(u64::from_le_bytes(value.try_into().ok()?)),
            GRANTS_LEASES => self.grants_leases = value == [1],
            FRAME_BYTES_MAX => self.frame_bytes_max = u32::from_le_bytes(value.try_into().ok()?),
            CLOCK => self.clock_ms = u64::from_le_bytes(value.try_into().ok()?),
            ADDRESS if value.len() > ADDRESS_BYTES_MAX => return None,
            ADDRESS => self.address = String::from_utf8(value.to_vec()).ok()?,
            CASCADES => self.cascades = value == [1],
            ACK_MODE => {
                let [strict, replicas] = *value.first_chunk()?;
                self.ack_mode = Some(Mode { strict: strict == 1, replicas }.into());
            }
            SLOT_IS_FREE => self.slot_is_free = value == [1],
            TAKES_APART => self.takes_apart = value == [1],
            KNOWS_LOADS => self.knows_loads = value == [1],
            FOLLOWS_EVICTIONS => self.follows_evictions = value == [1],
            FORGOT => self.forgot = value != [0],
            _ => {}
        }
        Some(())
    }
}

fn put(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    let length = u16::try_from(value.len()).expect("lineage and addresses are bounded");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
}

fn put_entry(out: &mut Vec<u8>, entry: &LineageEntry) {
    out.extend_from_slice(&entry.term.0.to_le_bytes());
    out.extend_from_slice(&entry.branch.0.to_le_bytes());
    out.extend_from_slice(&entry.start.to_le_bytes());
    out.extend_from_slice(&entry.last.to_le_bytes());
    out.push(u8::from(entry.promoted));
}

fn take_lineage(bytes: &[u8]) -> Option<Lineage> {
    if !bytes.len().is_multiple_of(ENTRY_BYTES) || bytes.len() > ENTRY_BYTES * LINEAGE_MAX {
        return None;
    }
    let entry = |bytes: &[u8]| {
        Some(LineageEntry {
            term: Term(u32::from_le_bytes(bytes[0..4].try_into().ok()?)),
            branch: Branch(u128::from_le_bytes(bytes[4..20].try_into().ok()?)),
            start: u64::from_le_bytes(bytes[20..28].try_into().ok()?),
            last: u64::from_le_bytes(bytes[28..36].try_into().ok()?),
            promoted: bytes[36] == 1,
        })
    };
    Lineage::from_entries(bytes.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let mut lineage = Lineage::default();
        lineage.mint(Term(16), Branch(5), 0, false);
        lineage.mint(Term(33), Branch(6), 9, true);
        Hello {
            version: 1,
            purpose: Purpose::Announce,
            group: 1 << 100,
            node: 2,
            incarnation: 3,
            slot: 4,
            term_seen: Term(33),
            position: lineage.position(),
            lineage,
            undo_floor: Some(7),
            grants_leases: true,
            frame_bytes_max: 1 << 20,
            clock_ms: 99,
            address: "127.0.0.1:7001".to_owned(),
            cascades: true,
            ack_mode: Some(AckMode::Strict { replicas: 2 }),
            slot_is_free: true,
            takes_apart: true,
            knows_loads: true,
            follows_evictions: true,
            forgot: true,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded_and_unknown_tags_are_skipped() {
        let mut bytes = Vec::new();
        put(&mut bytes, 200, b"from the future");
        hello().encode(&mut bytes);
        put(&mut bytes, 201, b"");
        assert_eq!(Hello::decode(&bytes, Bugs::default()), Ok(hello()));
    }

    #[test]
    fn a_hello_cut_short_is_refused_unless_it_is_cut_between_tags() {
        let mut bytes = Vec::new();
        hello().encode(&mut bytes);
        let whole =
            (0..bytes.len()).filter(|cut| Hello::decode(&bytes[..*cut], Bugs::default()).is_ok()).count();
        assert_eq!(whole, 21, "nothing, and behind each of the twenty tags before the last");
    }

    #[test]
    fn who_does_not_know_to_say_that_it_forgot_is_not_counted_at_once() {
        let mut bytes = Vec::new();
        Hello { forgot: false, ..hello() }.encode(&mut bytes);
        assert!(Hello::decode(&bytes, Bugs::default()).unwrap().remembers());
        let older = bytes.len() - 4;
        assert_eq!(bytes[older], FORGOT);
        assert!(!Hello::decode(&bytes[..older], Bugs::default()).unwrap().remembers());
    }

    #[test]
    fn slots_above_15_and_endless_addresses_are_refused() {
        let mut bytes = Vec::new();
        put(&mut bytes, SLOT, &[16]);
        assert_eq!(Hello::decode(&bytes, Bugs::default()), Err(FrameError::BadBody));
        let mut bytes = Vec::new();
        put(&mut bytes, ADDRESS, &[b'a'; ADDRESS_BYTES_MAX + 1]);
        assert_eq!(Hello::decode(&bytes, Bugs::default()), Err(FrameError::BadBody));
    }
}
