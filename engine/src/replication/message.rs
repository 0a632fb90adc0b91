//! The bodies of all frames but `Hello`: postcard, and one function each way.
//!
//! Lives here: the shapes on the wire. Not here: the header (see `frame`), what a session does with them.
//! Enums grow at their end only, and a golden test pins each body's bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::acks::AckMode;
use super::bug::Bugs;
use super::frame::{self, FrameError, Kind};
use super::hello::Hello;
use super::log::{Entry, entries};
use super::position::{Branch, Lineage, LineageEntry, Position, Seq, Term};

/// Any frame, read.
#[derive(Debug, PartialEq)]
pub(crate) enum Message<'a> {
    Hello(Box<Hello>),
    HelloOk(HelloOk),
    Reject(Reject),
    Append(Append<'a>),
    Ack(Ack),
    Heartbeat(Heartbeat),
    InstallBegin(InstallBegin),
    Chunk(Chunk<'a>),
    InstallEnd(InstallEnd),
    Hints(Hints),
    Want(Want),
    Lineage(WireEntry),
    Fenced(Fenced),
    Bye(Bye),
    Handover(Handover),
    Lease(Lease),
    Standing(Standing),
    Relay(Relay),
    Mode(Mode),
    Apart(Apart),
    Ghosts(Ghosts),
    LoadAsk(LoadAsk<'a>),
    LoadAnswer(LoadAnswer),
    LoadDone(LoadDone<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    pub(crate) term: u32,
    pub(crate) branch: u128,
    pub(crate) start: Seq,
    pub(crate) last: Seq,
    pub(crate) promoted: bool,
}

/// The listener takes the dialler as its replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HelloOk {
    pub(crate) lineage: Vec<WireEntry>,
    pub(crate) plan: Plan,
    pub(crate) node: u128,
    pub(crate) slot: u8,
    /// The seed of the group's key hash: hints speak in hashes.
    pub(crate) hash_seed: u64,
    pub(crate) clock_ms: u64,
    pub(crate) frame_bytes_max: u32,
    /// Where the group's other nodes listen, as far as the listener knows.
    pub(crate) peers: Vec<String>,
}

/// What follows a `HelloOk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Plan {
    /// The log from behind the replica's position on.
    Resume,
    /// A full copy; the replica drops what it has.
    Install,
    /// The log from this position on, once the replica has dropped each key that its own log names behind it. Only for one
    /// that named an `undo_floor` at or below it.
    RollBack { branch: u128, seq: Seq },
}

/// The listener refuses the dialler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reject {
    pub(crate) code: RejectCode,
    /// Whom to ask instead, empty if unknown.
    pub(crate) primary: String,
    pub(crate) retry_after_ms: u32,
}

/// Why a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RejectCode {
    UnsupportedVersion,
    WrongGroup,
    SameNode,
    DuplicateSlot,
    NotPrimary,
    TermTooFar,
    UnprovenTerm,
    TooManyPeers,
    StaleTerm,
    Loop,
    TooDeep,
    Unattached,
    Behind,
}

impl RejectCode {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            RejectCode::UnsupportedVersion => {
                "it speaks another version of the protocol; upgrade the older node"
            }
            RejectCode::WrongGroup => "it belongs to another group; check --group on both",
            RejectCode::SameNode => "it has this node's own identity; a node can't follow itself",
            RejectCode::DuplicateSlot => "another node has its slot; give each node its own --node-slot",
            RejectCode::NotPrimary => "it is not a primary",
            RejectCode::TermTooFar => "its term is too far ahead to be believed",
            RejectCode::UnprovenTerm => "it claims a higher term but proves no common history",
            RejectCode::TooManyPeers => "too many peers are attached",
            RejectCode::StaleTerm => "its term has passed",
            RejectCode::Loop => "it follows this node itself: replicas may not follow each other in a circle",
            RejectCode::TooDeep => {
                "it is 4 links below its primary, and there are at most 4; follow a node nearer to it"
            }
            RejectCode::Unattached => "it is a replica that has no primary at the moment",
            RejectCode::Behind => "it is a replica that has not heard as much as this node yet",
        }
    }
}

/// Bytes in front of the records of an [`Append`], at most: numbers of 32, 128 and three times 64 bits, seven bits a byte.
const APPEND_HEAD_BYTES_MAX: usize = 5 + 19 + 3 * 10;

/// Records in order, from behind `prev_seq` of the branch on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append<'a> {
    pub(crate) term: u32,
    pub(crate) branch: u128,
    pub(crate) prev_seq: Seq,
    pub(crate) clock_ms: u64,
    /// Each record behind its length, as the log keeps them.
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) records: &'a [u8],
}

impl Append<'_> {
    /// A frame up to its records, with room for so many bytes of them: whoever has them in pieces puts them there, and then
    /// finishes the frame.
    pub(crate) fn begin_frame(term: Term, prev: Position, clock_ms: u64, record_bytes: usize) -> Vec<u8> {
        let frame = frame::begin(APPEND_HEAD_BYTES_MAX + record_bytes);
        let head = (term.0, prev.branch.0, prev.seq, clock_ms, record_bytes);
        postcard::to_extend(&head, frame).expect("a vector takes any number of bytes")
    }

    /// As postcard has it, but with the records, of which there may be many, copied in one piece.
    fn encode(&self, number: u32) -> Bytes {
        let mut frame = Append::begin_frame(Term(self.term), self.prev(), self.clock_ms, self.records.len());
        frame.extend_from_slice(self.records);
        frame::finish(Kind::Append, number, frame)
    }
}

/// How far the replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ack {
    pub(crate) applied: Seq,
    pub(crate) received: Seq,
    pub(crate) incarnation: u64,
}

/// The primary is alive, and this is how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) term: u32,
    pub(crate) last_seq: Seq,
    pub(crate) clock_ms: u64,
    pub(crate) peers: Vec<String>,
}

/// A full copy begins; what the log says from there on comes between its chunks, or beside them (see [`Apart`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstallBegin {
    /// The history up to the install's start.
    pub(crate) lineage: Vec<WireEntry>,
    /// Items of an older version are dead.
    pub(crate) flush_floor: u64,
    /// A pending flush, 0 for none.
    pub(crate) flush_at_ms: u64,
    /// At most 256 of at most 128 bytes each.
    pub(crate) prefix_floors: Vec<PrefixFloor>,
}

/// Items whose key begins so and whose version is older are dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrefixFloor {
    #[serde(with = "serde_bytes")]
    pub(crate) prefix: Vec<u8>,
    pub(crate) floor: u64,
}

/// Items as they were at `at_seq`, to be applied exactly there; or later, but for those that the log has changed since.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk<'a> {
    pub(crate) at_seq: Seq,
    pub(crate) kind: ChunkKind,
    #[serde(borrow)]
    pub(crate) items: Vec<ChunkItem<'a>>,
}

/// Why a chunk was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ChunkKind {
    /// Part of a full copy, from cold to hot.
    Install,
    /// What a `Want` asked for.
    Refill,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkItem<'a> {
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) key: &'a [u8],
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) value: &'a [u8],
    pub(crate) flags: u32,
    pub(crate) expires_at_ms: u64,
    pub(crate) client_cas: Option<u64>,
    pub(crate) marks: u8,
    pub(crate) version: u64,
}

/// The primary reigns no longer, and wrote nothing after `seq`: the replica, which has applied it, is to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) seq: Seq,
}

/// Where a node stands, for one that may be promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Another one after each start ([`Roles::life`](super::roles::Roles::life)).
    pub(crate) node: u128,
    /// It follows nobody of a lower term.
    pub(crate) term_seen: u32,
    pub(crate) lineage: Vec<WireEntry>,
    /// Whether it holds all of that history: it is not empty, nor in the middle of a full copy.
    pub(crate) has_data: bool,
    /// In how many milliseconds no lease counts any more that it has granted.
    pub(crate) lease_over_in_ms: u64,
}

/// The primary asks a replica to confirm that it follows; the replica gives the same back. Only for one that said in its
/// `Hello` that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The primary's own clock when it asked, in milliseconds; it means nothing to others.
    pub(crate) asked_ms: u64,
}

/// Every item has been sent; the replica is complete once it has applied `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstallEnd {
    pub(crate) seq: Seq,
}

/// Hashes of keys that were read since the eviction pass last came by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hints {
    pub(crate) at_seq: Seq,
    pub(crate) hashes: Vec<u64>,
}

/// Hashes that were hinted and are not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Want {
    pub(crate) hashes: Vec<u64>,
}

/// A newer term exists, and this history proves it. Or the sender's own first reign has ended, since it began with nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fenced {
    pub(crate) term: u32,
    pub(crate) lineage: Vec<WireEntry>,
    /// Where the primary listens, empty if unknown.
    pub(crate) primary: String,
}

impl Fenced {
    /// The only reign of a sender that began it with nothing, and has stepped down for whoever holds the group's items: it names
    /// that reign's own term, where one that has heard of a newer reign names the newer one.
    pub(crate) fn reign_given_up(&self) -> Option<&WireEntry> {
        let [only] = &self.lineage[..] else { return None };
        let gave_up = !only.promoted && only.term == self.term && self.primary.is_empty();
        gave_up.then_some(only)
    }
}

/// Where a node stands that ships to a replica which would follow it even as a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relay {
    /// The nodes from the primary down to the sender.
    pub(crate) path: Vec<u128>,
    /// Where the primary listens; empty if that is the sender, or not known.
    pub(crate) primary: String,
    /// Whether the sender has all that it was told of.
    pub(crate) level: bool,
    /// All that the primary did before `settled_ms` lies at or before this seq; nothing is said if both are 0.
    pub(crate) settled_seq: Seq,
    pub(crate) settled_ms: u64,
}

/// What a write waits for at the sender: between two that have named theirs, so that each can say that they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mode {
    pub(crate) strict: bool,
    pub(crate) replicas: u8,
}

impl From<AckMode> for Mode {
    fn from(mode: AckMode) -> Self {
        Mode { strict: mode.is_strict(), replicas: mode.replicas() }
    }
}

impl From<Mode> for AckMode {
    fn from(Mode { strict, replicas }: Mode) -> Self {
        let mode = if strict { AckMode::Strict { replicas } } else { AckMode::of(replicas) };
        mode.bounded()
    }
}

/// The chunks of this full copy and its end travel on the bulk channel. Comes on the live channel behind the copy's
/// `InstallBegin`, and on the bulk channel before its first chunk: what is there before it belongs to a copy that was given
/// up. Only to one that said in its `Hello` that it takes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Apart {
    /// Which full copy of this session it is, from 1 on.
    pub(crate) copy: u32,
}

/// What a shard remembers of evicted items, so that those that come back are known again: part of a full copy, behind the
/// shard's items. Only to one that said in its `Hello` that it follows evictions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ghosts {
    pub(crate) shard: u16,
    /// How many there are: elsewhere than in as many shards it means nothing.
    pub(crate) shards: u16,
    /// How many lines the shard's index has, and the first of those that follow.
    pub(crate) lines: u32,
    pub(crate) first: u32,
    /// Of each line how many, and a fingerprint of 16 bits each, oldest first, 0 for none.
    #[serde(with = "serde_bytes")]
    pub(crate) fingerprints: Vec<u8>,
}

/// A replica asks whether it is to load a key's value. Only to a primary that has said [`LoadVerdict::Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadAsk<'a> {
    /// The replica's own number for this question, above 0.
    pub(crate) id: u64,
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) key: &'a [u8],
    /// For how long the others are to wait for it, in milliseconds.
    pub(crate) lease_ms: u64,
    /// The version of the item that is to be loaded anew.
    pub(crate) replaces: Option<u64>,
    /// Whether a remembered absence is as good as nothing.
    pub(crate) needs_value: bool,
}

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadAnswer {
    pub(crate) id: u64,
    pub(crate) verdict: LoadVerdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LoadVerdict {
    /// No answer yet: this primary may be asked from now on (`id` is 0).
    Open,
    /// Load it; nobody else does until this moment of the group's clock. The record that says so has this version.
    Granted { lease: u64, until_ms: u64 },
    /// Another node loads it, until this moment of the group's clock at most.
    Held { until_ms: u64 },
    /// The primary has a value, which comes by the log or as a chunk.
    Present,
    /// Load it for yourself; it can't be stored now.
    Refused,
}

/// What a replica's load came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadDone<'a> {
    /// What it was granted by.
    pub(crate) lease: u64,
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) key: &'a [u8],
    #[serde(borrow)]
    pub(crate) loaded: Loaded<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Loaded<'a> {
    /// To be stored.
    Value {
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        flags: u32,
        expires_at_ms: u64,
    },
    /// The source has none; that is to be remembered until then.
    Absence { expires_at_ms: u64 },
    /// Nothing to be stored: somebody else may load.
    Nothing,
}

/// The link closes on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bye {
    pub(crate) reason: ByeReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ByeReason {
    ShuttingDown,
    Demoted,
    RefusedInstall,
    Overtaken,
    OutOfStep,
}

impl Message<'_> {
    /// The whole frame.
    pub(crate) fn encode(&self, number: u32) -> Bytes {
        match self {
            Message::Hello(hello) => frame::encode(Kind::Hello, number, |out| hello.encode(out)),
            Message::HelloOk(body) => encode_body(Kind::HelloOk, number, body),
            Message::Reject(body) => encode_body(Kind::Reject, number, body),
            Message::Append(body) => body.encode(number),
            Message::Ack(body) => encode_body(Kind::Ack, number, body),
            Message::Heartbeat(body) => encode_body(Kind::Heartbeat, number, body),
            Message::InstallBegin(body) => encode_body(Kind::InstallBegin, number, body),
            Message::Chunk(body) => encode_body(Kind::Chunk, number, body),
            Message::InstallEnd(body) => encode_body(Kind::InstallEnd, number, body),
            Message::Hints(body) => encode_body(Kind::Hints, number, body),
            Message::Want(body) => encode_body(Kind::Want, number, body),
            Message::Lineage(body) => encode_body(Kind::Lineage, number, body),
            Message::Fenced(body) => encode_body(Kind::Fenced, number, body),
            Message::Bye(body) => encode_body(Kind::Bye, number, body),
            Message::Handover(body) => encode_body(Kind::Handover, number, body),
            Message::Lease(body) => encode_body(Kind::Lease, number, body),
            Message::Standing(body) => encode_body(Kind::Standing, number, body),
            Message::Relay(body) => encode_body(Kind::Relay, number, body),
            Message::Mode(body) => encode_body(Kind::Mode, number, body),
            Message::Apart(body) => encode_body(Kind::Apart, number, body),
            Message::Ghosts(body) => encode_body(Kind::Ghosts, number, body),
            Message::LoadAsk(body) => encode_body(Kind::LoadAsk, number, body),
            Message::LoadAnswer(body) => encode_body(Kind::LoadAnswer, number, body),
            Message::LoadDone(body) => encode_body(Kind::LoadDone, number, body),
        }
    }

    /// Reads a whole frame and gives its number besides.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(u32, Message<'_>), FrameError> {
        Message::decode_with(bytes, Bugs::default())
    }

    /// The same, by a node that has these bugs.
    pub(crate) fn decode_with(bytes: &[u8], bugs: Bugs) -> Result<(u32, Message<'_>), FrameError> {
        let raw = frame::decode(bytes, bugs)?;
        let message = match raw.kind {
            Kind::Hello => Message::Hello(Box::new(Hello::decode(raw.body, bugs)?)),
            Kind::HelloOk => Message::HelloOk(decode_body(raw.body)?),
            Kind::Reject => Message::Reject(decode_body(raw.body)?),
            Kind::Append => Message::Append(decode_body(raw.body)?),
            Kind::Ack => Message::Ack(decode_body(raw.body)?),
            Kind::Heartbeat => Message::Heartbeat(decode_body(raw.body)?),
            Kind::InstallBegin => Message::InstallBegin(decode_body(raw.body)?),
            Kind::Chunk => Message::Chunk(decode_body(raw.body)?),
            Kind::InstallEnd => Message::InstallEnd(decode_body(raw.body)?),
            Kind::Hints => Message::Hints(decode_body(raw.body)?),
            Kind::Want => Message::Want(decode_body(raw.body)?),
            Kind::Lineage => Message::Lineage(decode_body(raw.body)?),
            Kind::Fenced => Message::Fenced(decode_body(raw.body)?),
            Kind::Bye => Message::Bye(decode_body(raw.body)?),
            Kind::Handover => Message::Handover(decode_body(raw.body)?),
            Kind::Lease => Message::Lease(decode_body(raw.body)?),
            Kind::Standing => Message::Standing(decode_body(raw.body)?),
            Kind::Relay => Message::Relay(decode_body(raw.body)?),
            Kind::Mode => Message::Mode(decode_body(raw.body)?),
            Kind::Apart => Message::Apart(decode_body(raw.body)?),
            Kind::Ghosts => Message::Ghosts(decode_body(raw.body)?),
            Kind::LoadAsk => Message::LoadAsk(decode_body(raw.body)?),
            Kind::LoadAnswer => Message::LoadAnswer(decode_body(raw.body)?),
            Kind::LoadDone => Message::LoadDone(decode_body(raw.body)?),
        };
        Ok((raw.number, message))
    }
}

fn encode_body<T: Serialize>(kind: Kind, number: u32, body: &T) -> Bytes {
    frame::encode(kind, number, |out| {
        let buffer = std::mem::take(out);
        *out = postcard::to_extend(body, buffer).expect("a vector takes any number of bytes");
    })
}

fn decode_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::BadBody),
    }
}

impl From<LineageEntry> for WireEntry {
    fn from(entry: LineageEntry) -> Self {
        WireEntry {
            term: entry.term.0,
            branch: entry.branch.0,
            start: entry.start,
            last: entry.last,
            promoted: entry.promoted,
        }
    }
}

impl From<WireEntry> for LineageEntry {
    fn from(entry: WireEntry) -> Self {
        LineageEntry {
            term: Term(entry.term),
            branch: Branch(entry.branch),
            start: entry.start,
            last: entry.last,
            promoted: entry.promoted,
        }
    }
}

/// A history as it goes onto the wire.
pub(crate) fn to_wire(lineage: &Lineage) -> Vec<WireEntry> {
    lineage.entries().iter().map(|entry| WireEntry::from(*entry)).collect()
}

/// A history from the wire; an error if it breaks an invariant.
pub(crate) fn from_wire(entries: Vec<WireEntry>) -> Result<Lineage, FrameError> {
    Lineage::from_entries(entries.into_iter().map(LineageEntry::from).collect()).ok_or(FrameError::BadBody)
}

impl Append<'_> {
    pub(crate) fn prev(&self) -> Position {
        Position { branch: Branch(self.branch), seq: self.prev_seq }
    }

    /// How many records it has, marks not counted.
    pub(crate) fn count_records(&self) -> usize {
        entries(self.records).filter(|entry| matches!(entry, Some(Entry::Record(_)))).count()
    }
}

#[cfg(test)]
mod tests;
