//! What a node's links do to its frames: those of an older version, and those of a wire that spoils some.
//!
//! Lives here: today's engine behind links that hide what an older version had yet to learn, and P17: nobody is sent what
//! it never said it knows; frames that arrive cut short, with a bit flipped, or twice, and P14: none of them is taken, so
//! that nothing more of that link is read. Not here: what is delivered when (see `faults`), and that no node's state differs
//! from what its primary logged (see `checks` and `oracle`).
//!
//! No older version was ever released. So one is made of what `Hello` may leave out: each tag behind the twelfth names
//! something that nodes learnt later, with the frames and records that only its name allows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use hotspare::transport::{
    Channel, FrameError, HEADER_BYTES, Link, LinkCaps, LinkError, PeerIdentity, Transport,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The frame that begins each side's talk, and the one that carries records.
const HELLO: u8 = 1;
const APPEND: u8 = 4;

/// Entries of the log without a seq, by their length, as kinds of records that no record has: what an eviction pass did, and
/// that a shard is whole. A hint is one that every version knows.
const UNNUMBERED: u8 = 0x80;
const HINT_BYTES: u8 = 8;
const PASS: u8 = UNNUMBERED | 9;
const WHOLE_SHARD: u8 = UNNUMBERED | 13;

/// What nodes learnt: the tag that names it, the kinds of frames and of records that come with it.
const LESSONS: [(u8, &[u8], &[u8]); 9] = [
    // To roll back, to cascade, to lease, to load for the group.
    (13, &[], &[]),
    (14, &[19], &[]),
    (15, &[17], &[]),
    (16, &[20, 21, 22], &[6, 7]),
    // To take a full copy beside the log, to tell its ack mode, to take another slot.
    (19, &[24], &[]),
    (28, &[28], &[]),
    (29, &[], &[]),
    // To follow another node's evictions, to say that it forgot what it had promised.
    (30, &[30], &[PASS, WHOLE_SHARD]),
    (31, &[], &[]),
];

/// One of this many frames is spoilt on its way.
const SPOILT_ONE_IN: u32 = 400;

/// What the wires of a group have to tell.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The first property that a wire saw broken, in words.
    pub(super) broken: Option<String>,
    /// Frames that were spoilt.
    pub(super) spoilt: u64,
}

/// The same for all wires of a group.
pub(super) type SharedNotes = Arc<Mutex<Notes>>;

/// Which lessons a node has yet to learn, a bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lacks(u16);

impl Lacks {
    /// Any of them, each by chance.
    pub(super) fn some(random: &mut StdRng) -> Lacks {
        Lacks(random.random_range(0..1 << LESSONS.len()))
    }

    /// Whether this node may be asked to load for the group.
    pub(super) fn knows_loads(self) -> bool {
        !self.lessons().any(|(tag, ..)| *tag == 16)
    }

    fn lessons(self) -> impl Iterator<Item = &'static (u8, &'static [u8], &'static [u8])> {
        LESSONS
            .iter()
            .enumerate()
            .filter(move |(index, _)| self.0 & 1 << index != 0)
            .map(|(_, lesson)| lesson)
    }

    /// The same `Hello` without the tags that this version does not know.
    fn without_tags(self, frame: &Bytes) -> Bytes {
        let (header, mut body) = frame.split_at(HEADER_BYTES);
        let mut known = header.to_vec();
        while let [tag, low, high, ..] = *body {
            let (entry, rest) = body.split_at(3 + usize::from(u16::from_le_bytes([low, high])));
            if !self.lessons().any(|(unknown, ..)| *unknown == tag) {
                known.extend_from_slice(entry);
            }
            body = rest;
        }
        let length = (known.len() - HEADER_BYTES) as u32;
        known[0..4].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&known[8..]);
        known[4..8].copy_from_slice(&checksum.to_le_bytes());
        known.into()
    }

    /// What of a frame this version does not know, in words.
    fn unknown_in(self, frame: &[u8]) -> Option<String> {
        let kind = frame[8];
        if self.lessons().any(|(_, kinds, _)| kinds.contains(&kind)) {
            return Some(format!("a frame of kind {kind}"));
        }
        if kind != APPEND {
            return None;
        }
        let unknown = |record: &u8| self.lessons().any(|(.., records)| records.contains(record));
        let record = kinds_of_records(&frame[HEADER_BYTES..]).into_iter().find(unknown);
        record.map(|record| format!("a record of kind {record}"))
    }
}

/// The first byte of each record in an `Append`'s body, and what lies between them but hints.
fn kinds_of_records(mut body: &[u8]) -> Vec<u8> {
    // Term, branch, seq, clock, and how many bytes the records are: numbers of seven bits a byte.
    for _ in 0..5 {
        let length = body.iter().position(|byte| byte & 0x80 == 0).expect("our own frames are whole") + 1;
        body = &body[length..];
    }
    let mut kinds = Vec::new();
    while let Some((length, behind)) = body.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        let (entry, rest) = behind.split_at((length & !(1 << 31)) as usize);
        // The highest bit tells of an entry without a seq.
        match entry.len() as u8 {
            _ if length & 1 << 31 == 0 => kinds.extend(entry.first()),
            HINT_BYTES => {}
            bytes => kinds.push(UNNUMBERED | bytes),
        }
        body = rest;
    }
    kinds
}

/// A node's way into the network, with what its links do.
pub(super) struct Wire<T> {
    transport: T,
    lacks: Lacks,
    /// The seeds of links that spoil frames.
    spoils: Option<StdRng>,
    notes: SharedNotes,
}

impl<T: Transport> Wire<T> {
    /// Links of a version that `lacks` this; they spoil frames if there is a seed for that.
    pub(super) fn new(transport: T, lacks: Lacks, spoils: Option<u64>, notes: SharedNotes) -> Wire<T> {
        Wire { transport, lacks, spoils: spoils.map(StdRng::seed_from_u64), notes }
    }

    fn wrap(&mut self, link: Box<dyn Link>) -> Box<dyn Link> {
        let spoils = self.spoils.as_mut().map(|random| StdRng::seed_from_u64(random.random()));
        let (lacks, notes) = (self.lacks, self.notes.clone());
        Box::new(WiredLink { link, lacks, spoils, notes, again: VecDeque::new(), spoilt: None })
    }
}

impl<T: Transport> Transport for Wire<T> {
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        let link = self.transport.dial(address)?;
        Ok(self.wrap(link))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        self.transport.poll_accept(cx).map(|link| self.wrap(link))
    }

    fn local_address(&self) -> Option<String> {
        self.transport.local_address()
    }
}

struct WiredLink {
    link: Box<dyn Link>,
    lacks: Lacks,
    spoils: Option<StdRng>,
    notes: SharedNotes,
    /// Frames that have come once.
    again: VecDeque<(Channel, Bytes)>,
    /// What was given to the node that it must not take.
    spoilt: Option<&'static str>,
}

impl WiredLink {
    fn note(&self, to_whom: &str, what: &str) {
        let words = format!("P17: {what} went {to_whom} a node that does not know it: {:?}", self.lacks);
        self.notes.lock().unwrap().broken.get_or_insert(words);
    }

    /// A frame as it arrives.
    fn spoilt(&mut self, channel: Channel, frame: Bytes) -> Bytes {
        let Some(random) = &mut self.spoils else { return frame };
        if random.random_range(0..SPOILT_ONE_IN) != 0 {
            return frame;
        }
        self.notes.lock().unwrap().spoilt += 1;
        let at = random.random_range(0..frame.len());
        match random.random_range(0..3) {
            0 => {
                self.spoilt = Some("was cut short");
                frame.slice(..at)
            }
            1 => {
                self.spoilt = Some("had a bit flipped");
                let mut bytes = frame.to_vec();
                bytes[at] ^= 1 << random.random_range(0..8);
                bytes.into()
            }
            _ => {
                self.again.push_back((channel, frame.clone()));
                frame
            }
        }
    }
}

impl Link for WiredLink {
    fn peer(&self) -> &PeerIdentity {
        self.link.peer()
    }

    fn caps(&self) -> LinkCaps {
        self.link.caps()
    }

    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_ready(channel, cx)
    }

    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        if frame[8] == HELLO {
            return self.link.send(channel, self.lacks.without_tags(&frame));
        }
        if let Some(what) = self.lacks.unknown_in(&frame) {
            self.note("out from", &what);
        }
        self.link.send(channel, frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_flush(cx)
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        if let Some(what) = self.spoilt {
            let words = format!("P14: a node read on behind a frame that {what}");
            self.notes.lock().unwrap().broken.get_or_insert(words);
        }
        if let Some(at) = self.again.iter().position(|(other, _)| *other == channel) {
            // A hint that comes again is dropped, and the link goes on.
            self.spoilt = (channel != Channel::Hint).then_some("had come before");
            return Poll::Ready(Ok(self.again.remove(at).map(|(_, frame)| frame)));
        }
        let frame = match self.link.poll_recv(channel, cx) {
            Poll::Ready(Ok(Some(frame))) => frame,
            other => return other,
        };
        if frame[8] == HELLO {
            let known = self.lacks.without_tags(&frame);
            return Poll::Ready(Ok(Some(self.spoilt(channel, known))));
        }
        if let Some(what) = self.lacks.unknown_in(&frame) {
            self.note("to", &what);
            return Poll::Ready(Err(LinkError::Frame(FrameError::UnknownKind(frame[8]))));
        }
        Poll::Ready(Ok(Some(self.spoilt(channel, frame))))
    }
}
