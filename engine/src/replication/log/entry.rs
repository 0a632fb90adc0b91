//! What the log and an `Append` are made of, in bytes.
//!
//! Lives here: records and what lies between them without a seq, and reading them. Not here: where they are kept (see `log`).
//!
//! ```text
//!   length: 4 | record                          a change, with the next seq
//!   length with its highest bit set: 4 | body   a mark: hash; a pass: hash, its number; a whole shard: see `WholeShard`
//! ```

use super::LENGTH_BYTES;
use crate::mutation::Pass;

/// Set in the length of a mark.
pub(super) const MARK_BIT: u32 = 1 << 31;

/// Bytes of a mark: a hash.
pub(super) const MARK_BYTES: usize = 8;

/// By their numbers in the log.
const PASSES: [Pass; 3] = [Pass::Evicted, Pass::Kept, Pass::KeptAsSmall];

/// Bytes of what an eviction pass did: a hash, and the number of a pass.
const PASS_BYTES: usize = 9;

/// Bytes of a whole shard: the replica's slot, the shard, how many there are, what its main queue is owed.
const WHOLE_BYTES: usize = 13;

/// Bytes of an entry with this length word.
pub(super) fn entry_bytes(length: u32) -> u64 {
    LENGTH_BYTES as u64 + u64::from(length & !MARK_BIT)
}

/// What the log and an `Append` are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// A record's bytes.
    Record(&'a [u8]),
    /// The hash of a key that was read.
    Mark(u64),
    /// The eviction pass came by the item of this hash.
    Pass {
        hash: u64,
        pass: Pass,
    },
    Whole(WholeShard),
}

/// A replica that is being copied has been sent all of this shard, and evicts there by itself from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WholeShard {
    /// The replica's slot: for others it means nothing.
    pub(crate) slot: u8,
    pub(crate) shard: u16,
    /// How many shards there are: it means nothing either where there are others.
    pub(crate) shards: u16,
    /// What the shard's main queue is owed.
    pub(crate) owed_bytes: u64,
}

/// The body of an [`Entry::Pass`].
pub(super) fn pass_body(hash: u64, pass: Pass) -> [u8; PASS_BYTES] {
    let mut bytes = [0; PASS_BYTES];
    bytes[..MARK_BYTES].copy_from_slice(&hash.to_le_bytes());
    bytes[MARK_BYTES] = PASSES.iter().position(|one| *one == pass).expect("all are there") as u8;
    bytes
}

impl WholeShard {
    /// The body of its entry.
    pub(super) fn body(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WHOLE_BYTES);
        bytes.push(self.slot);
        bytes.extend_from_slice(&self.shard.to_le_bytes());
        bytes.extend_from_slice(&self.shards.to_le_bytes());
        bytes.extend_from_slice(&self.owed_bytes.to_le_bytes());
        bytes
    }
}

fn unnumbered(body: &[u8]) -> Option<Entry<'_>> {
    let (first, rest) = body.split_first_chunk::<MARK_BYTES>()?;
    match (rest, body.len()) {
        ([], _) => Some(Entry::Mark(u64::from_le_bytes(*first))),
        ([number], _) => {
            let pass = PASSES.get(usize::from(*number)).copied()?;
            Some(Entry::Pass { hash: u64::from_le_bytes(*first), pass })
        }
        (_, WHOLE_BYTES) => Some(Entry::Whole(WholeShard {
            slot: body[0],
            shard: u16::from_le_bytes(body[1..3].try_into().ok()?),
            shards: u16::from_le_bytes(body[3..5].try_into().ok()?),
            owed_bytes: u64::from_le_bytes(body[5..].try_into().ok()?),
        })),
        _ => None,
    }
}

/// The entries of an `Append`, one after the other; `None` where the bytes are malformed, as the last.
pub(crate) fn entries(bytes: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = first_entry(rest);
        rest = entry.map_or(&[], |(_, behind)| behind);
        Some(entry.map(|(entry, _)| entry))
    })
}

/// The first entry and what is behind it; `None` where the bytes are malformed.
pub(crate) fn first_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (length, behind) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_le_bytes(*length);
    let (body, behind) = behind.split_at_checked((length & !MARK_BIT) as usize)?;
    let entry = match length & MARK_BIT {
        0 => Entry::Record(body),
        _ => unnumbered(body)?,
    };
    Some((entry, behind))
}
