//! Replication: the log, the sessions that ship and follow it, roles, and the trait for transports.
//!
//! Lives here: pure state machines and data. No clock, no sockets, no threads: time and randomness are arguments.
//! Not here: running a session over a link against a cache (see `driver`), the items (see `storage`).
//!
//! | file | concept |
//! |---|---|
//! | `position` | terms, branches, the lineage, a position in it |
//! | `log`, `record` | the newest mutations, encoded, and one mutation's bytes |
//! | `frame`, `hello`, `message` | the bytes between two nodes |
//! | `admission` | what a listener makes of a peer's first frame |
//! | `primary`, `replica` | the two ends of a stream |
//! | `session` | what both ends share: frame numbers, time-outs, why a session ended |
//! | `cascade` | replicas of replicas: a node's path down from its primary |
//! | `quarantine` | a replica whose full copies fail again and again |
//! | `install` | what a primary reads out of its items |
//! | `apart`, `window` | a full copy beside the log: what waits for what, and what was changed meanwhile |
//! | `fills` | what a replica was given beside the log |
//! | `loads` | what a replica asks and tells of a load that only one node does |
//! | `roles` | what this node is, and whom it knows |
//! | `warning` | what an operator should look at |
//! | `acks`, `risk` | when a write counts as replicated; what is not yet |
//! | `bug` | bugs that a simulation puts back (feature `testing`) |
//! | `lease` | until when a strict primary answers, and what |
//! | `status` | what a node says of itself, and why a change of role was refused |
//! | `doorbell` | how a writer wakes whoever ships the log |
//! | `transport`, `memory` | the trait, and a network in memory |
//! | `conformance` | what every transport must do, as tests (feature `testing`) |

pub(crate) mod acks;
pub(crate) mod admission;
pub(crate) mod apart;
pub(crate) mod bug;
pub(crate) mod cascade;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub(crate) mod doorbell;
pub(crate) mod fills;
pub(crate) mod frame;
pub(crate) mod hello;
pub(crate) mod install;
pub(crate) mod lease;
pub(crate) mod loads;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod position;
pub(crate) mod primary;
pub(crate) mod quarantine;
pub(crate) mod record;
pub(crate) mod replica;
pub(crate) mod risk;
pub(crate) mod roles;
pub(crate) mod session;
mod status;
pub mod transport;
pub(crate) mod warning;
pub(crate) mod window;

pub use acks::{ACK_REPLICAS_MAX, AckMode, AckModeError, Acknowledgement, Written};
#[cfg(feature = "testing")]
pub use bug::Bug;
pub use lease::{LeaseState, LeaseStatus};
pub use status::{LinkState, PromoteError, ReplicaStatus, Role, Status};
pub use warning::Warning;

/// Makes frames of pieces and reads them as [`decode_frames`] does. A piece is a body's length in two bytes, a kind, and
/// the body; length and checksum of its frame are right, so that each body is reached. What was read must have one
/// meaning: it is written and read again.
///
/// # Panics
/// A message reads back as another, or a stream of frames is cut otherwise than it was put together.
#[doc(hidden)]
pub fn decode_bodies(mut pieces: &[u8]) {
    let (mut stream, mut sound, mut is_sound) = (Vec::new(), 0, true);
    while let [low, high, kind, rest @ ..] = pieces {
        let bytes = usize::from(u16::from_le_bytes([*low, *high]) % 1024).min(rest.len());
        let (body, rest) = rest.split_at(bytes);
        pieces = rest;
        let frame = frame::sealed(*kind % 30, sound, body);
        stream.extend_from_slice(&frame);
        is_sound &= match message::Message::decode(&frame) {
            Ok((number, message)) => {
                let again = message.encode(number);
                let reads_same = message::Message::decode(&again).is_ok_and(|read| read == (number, message));
                assert!(reads_same, "{} reads back as another", frame.escape_ascii());
                true
            }
            Err(_) => false,
        };
        sound += u32::from(is_sound);
    }
    assert!(decode_frames(&stream) <= sound as usize);
}

/// Cuts a byte stream into frames and reads each with its records, as a node does with what a peer sends; how many
/// were sound before the first that was not.
#[doc(hidden)]
pub fn decode_frames(stream: &[u8]) -> usize {
    let mut splitter = frame::FrameSplitter::new(1 << 20);
    splitter.push(stream);
    let mut sound = 0;
    while let Ok(Some(bytes)) = splitter.next_frame() {
        match message::Message::decode(&bytes) {
            Ok((_, message::Message::Append(append))) => {
                let is_sound = |entry: Option<log::Entry<'_>>| match entry {
                    Some(log::Entry::Record(record)) => record::decode(record).is_ok(),
                    Some(_) => true,
                    None => false,
                };
                if !log::entries(append.records).all(is_sound) {
                    return sound;
                }
            }
            Ok(_) => {}
            Err(_) => return sound,
        }
        sound += 1;
    }
    sound
}
