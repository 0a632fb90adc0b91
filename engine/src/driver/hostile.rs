//! A peer that says anything, on any channel, to a whole node: for fuzzing, and for a test that runs some of it.
//!
//! Lives here: what the peer says, told by bytes, and the turns of the node between it. What must hold: the node does not
//! panic, its structures stay sound, and nothing that the peer can say makes it hold more than it is allowed to.
//!
//! A peer that never says what fits is turned away by its first frame. So besides frames of any kind and body there are
//! those that fit the moment, with numbers off by a few.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::cache::InstallReader;
use crate::mutation::{Marks, Mutation, Version};
use crate::replication::frame;
use crate::replication::hello::{Hello, Purpose};
use crate::replication::install::InstallSource;
use crate::replication::message::*;
use crate::replication::position::{Branch, Lineage, Seq, Term};
use crate::replication::record;
use crate::replication::session::FrameNumbers;
use crate::replication::transport::{Channel, Link, MemoryNetwork, MemoryTransport, Transport};
use crate::{Cache, Config, Expiry, ManualClock, ReplicationConfig};

use super::Replicator;

/// What a peer got a node to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Full copies and resumptions that the node began, in either role.
    pub attached: u64,
    /// Items that it holds at the end.
    pub items: u64,
    /// Whether it streams.
    pub streams: bool,
}

/// Has a node follow a peer, or ship to one, that says what `data` tells.
///
/// # Panics
/// The node does, or its storage breaks an invariant.
pub fn talk_to_a_node(data: &[u8]) -> Reached {
    let [head, script @ ..] = data else { return Reached::default() };
    let mut peer = Peer::new(head & 1 == 0, head & 2 == 0);
    let mut script = Script(script);
    peer.poll();
    while let Some(step) = script.byte() {
        peer.take_step(step, &mut script);
        peer.poll();
    }
    peer.cache.check_invariants();
    check_items(&peer.cache);
    let status = peer.cache.status();
    assert!(status.log_bytes <= status.log_bytes_max);
    Reached {
        attached: status.installs + status.catch_ups + status.roll_backs,
        items: peer.cache.stats().items,
        streams: status.link == crate::LinkState::Streaming,
    }
}

/// A remembered absence is a miss to every read, and passes, whatever the peer said of it.
fn check_items(cache: &Cache) {
    let mut reader = InstallReader::new(cache.inner.clone());
    while let Some(at) = reader.next_items(usize::MAX, usize::MAX) {
        for item in at.items.iter().filter(|item| item.marks.is_absence()) {
            assert!(item.value.is_empty() && item.expires_at_ms != 0, "{item:?}");
            assert_eq!(cache.get(&item.key).ok().flatten(), None, "{item:?}");
        }
    }
}

/// Bytes that decide; nothing at their end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> u64 {
        self.byte().map_or(0, u64::from)
    }

    fn bytes(&mut self, max: usize) -> &'a [u8] {
        let count = (self.number() as usize % max).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    /// A number near this one.
    fn near(&mut self, number: u64) -> u64 {
        match self.number() {
            step @ 0..200 => number.wrapping_add(step % 4),
            step => number.wrapping_sub(step % 8),
        }
    }

    fn channel(&mut self) -> Channel {
        Channel::ALL[self.number() as usize % Channel::ALL.len()]
    }
}

struct Peer {
    is_primary: bool,
    cache: Cache,
    node: Replicator,
    clock: Arc<ManualClock>,
    transport: MemoryTransport,
    link: Option<Box<dyn Link>>,
    numbers: FrameNumbers,
    lineage: Lineage,
    copies: u32,
}

impl Peer {
    fn new(is_primary: bool, channels_apart: bool) -> Peer {
        let network = MemoryNetwork::immediate();
        let network = if channels_apart { network.with_channels_apart() } else { network };
        let clock = Arc::new(ManualClock::new(1_000_000));
        let replication = match is_primary {
            true => ReplicationConfig::replica_of("peer").replica_reads(true),
            false => ReplicationConfig::primary(),
        };
        let replication = replication.random_seed(1).log_bytes_max(16 << 10).frame_bytes_max(64 << 10);
        let config = Config::new().memory_bytes_max(2 << 20).clock(clock.clone()).hash_seed(1);
        let cache = Cache::new(config.replication(replication)).expect("it is sound");
        for number in 0..if is_primary { 0_u32 } else { 100 } {
            cache.set(number.to_le_bytes(), "value", Expiry::Never).expect("a primary takes writes");
        }
        let transport = network.transport("peer");
        let node = Replicator::new(&cache, network.transport("node")).expect("it has replication");
        let mut lineage = Lineage::default();
        lineage.mint(Term(16), Branch(5), 3, true);
        let (numbers, copies) = (FrameNumbers::default(), 0);
        Peer { is_primary, cache, node, clock, transport, link: None, numbers, lineage, copies }
    }

    /// Lets the node do what it can, and hears none of what it says.
    fn poll(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            self.node.poll(&mut cx);
            if let Poll::Ready(link) = self.transport.poll_accept(&mut cx) {
                (self.link, self.numbers, self.copies) = (Some(link), FrameNumbers::default(), 0);
            }
            let Some(link) = &mut self.link else { continue };
            while let Poll::Ready(received) = link.poll_recv(Channel::Live, &mut cx) {
                if !matches!(received, Ok(Some(_))) {
                    self.link = None;
                    break;
                }
            }
        }
    }

    fn send(&mut self, channel: Channel, frame: Bytes) {
        let Some(link) = &mut self.link else { return };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(())) = link.poll_ready(channel, &mut cx) {
            // A link that has ended is noticed at the next poll.
            let _ = link.send(channel, frame);
        }
    }

    fn say(&mut self, channel: Channel, message: &Message<'_>) {
        let frame = self.numbers.encode_on(channel, message);
        self.send(channel, frame);
    }

    fn take_step(&mut self, step: u8, script: &mut Script<'_>) {
        match step % 16 {
            0 => self.clock.advance_ms(script.number() * 4),
            1 => {
                let (channel, kind, body) =
                    (script.channel(), step / 16 + (script.number() as u8 % 25), script.bytes(64));
                let number = u32::from_le_bytes(
                    self.numbers.encode_on(channel, &BYE)[12..16].try_into().expect("four"),
                );
                self.send(channel, frame::sealed(kind, number, body).into());
            }
            2 => {
                let (channel, bytes) = (script.channel(), script.bytes(64));
                self.send(channel, Bytes::copy_from_slice(bytes));
            }
            _ if self.is_primary => self.reign(step % 16, script),
            _ => self.follow(step % 16, script),
        }
    }

    /// Where the node stands, if it took this peer's history.
    fn applied(&self) -> Seq {
        let ours = self.lineage.entries()[0].start;
        self.cache.status().seq.max(ours - 1)
    }

    /// What a primary says.
    fn reign(&mut self, step: u8, script: &mut Script<'_>) {
        let applied = self.applied();
        match step {
            3 | 4 => self.say(Channel::Live, &Message::HelloOk(self.answer(script))),
            5 => {
                let begin = InstallBegin {
                    lineage: to_wire(&self.lineage),
                    flush_floor: script.number(),
                    flush_at_ms: 0,
                    prefix_floors: vec![PrefixFloor {
                        prefix: script.bytes(8).to_vec(),
                        floor: script.number(),
                    }],
                };
                self.say(Channel::Live, &Message::InstallBegin(begin));
            }
            6 => {
                self.copies = script.near(u64::from(self.copies)) as u32;
                let (apart, channel) = (Message::Apart(Apart { copy: self.copies }), script.channel());
                self.say(channel, &apart);
            }
            7..=9 => self.append(applied, script),
            10 | 11 => {
                let channel = script.channel();
                let at_seq = script.near(applied);
                let kind = if script.number() < 200 { ChunkKind::Install } else { ChunkKind::Refill };
                let item = ChunkItem {
                    key: script.bytes(8),
                    value: script.bytes(64),
                    flags: 1,
                    expires_at_ms: script.number() * 5_000,
                    client_cas: None,
                    marks: script.number() as u8,
                    version: (16 << 44) ^ script.near(applied),
                };
                self.say(channel, &Message::Chunk(Chunk { at_seq, kind, items: vec![item] }));
            }
            12 => {
                let (channel, seq) = (script.channel(), script.near(applied));
                self.say(channel, &Message::InstallEnd(InstallEnd { seq }));
            }
            13 => {
                let (channel, at_seq) = (script.channel(), script.near(applied));
                self.say(channel, &Message::Hints(Hints { at_seq, hashes: vec![script.number()] }));
            }
            14 => {
                let heartbeat = Heartbeat {
                    term: 16,
                    last_seq: script.near(applied),
                    clock_ms: 1_000_000,
                    peers: Vec::new(),
                };
                self.say(Channel::Live, &Message::Heartbeat(heartbeat));
            }
            _ => {
                let entry = WireEntry {
                    term: 33,
                    branch: 6,
                    start: script.near(applied + 1),
                    last: 0,
                    promoted: true,
                };
                self.say(Channel::Live, &Message::Lineage(entry));
            }
        }
    }

    fn answer(&self, script: &mut Script<'_>) -> HelloOk {
        let plan = match script.number() {
            0..200 => Plan::Install,
            200..230 => Plan::Resume,
            seq => Plan::RollBack { branch: 5, seq },
        };
        HelloOk {
            lineage: to_wire(&self.lineage),
            plan,
            node: 9,
            slot: 0,
            hash_seed: 7,
            clock_ms: 1_000_000,
            frame_bytes_max: 64 << 10,
            peers: Vec::new(),
        }
    }

    fn append(&mut self, applied: Seq, script: &mut Script<'_>) {
        let mut records = Vec::new();
        for _ in 0..script.number() % 8 {
            let (kind, key) = (script.number(), script.bytes(8));
            // All but hits and reads, in any combination.
            let marks = Marks(kind as u8 & !7);
            let version = Version((16 << 44) ^ script.near(applied));
            let mutation = match kind % 8 {
                kind @ 0..3 => {
                    let value = if kind == 0 { key } else { b"" };
                    let expires_at_ms = if kind == 2 { 1_500_000 } else { 0 };
                    Mutation::Put { key, value, flags: 0, expires_at_ms, marks, client_cas: None }
                }
                3 => Mutation::Touch { key, version, expires_at_ms: script.number() * 5_000 },
                4 => Mutation::Delete { key },
                5 => Mutation::Flush,
                6 => Mutation::FlushPrefix { prefix: key },
                _ => Mutation::FlushAt { at_ms: 1_000_000 + kind },
            };
            let mut record = Vec::new();
            record::encode(&mutation, &mut record);
            records.extend_from_slice(&(record.len() as u32).to_le_bytes());
            records.extend_from_slice(&record);
        }
        records.extend_from_slice(script.bytes(4));
        let append = Append {
            term: 16,
            branch: 5,
            prev_seq: script.near(applied),
            clock_ms: 1_000_000,
            records: &records,
        };
        self.say(Channel::Live, &Message::Append(append));
    }

    /// What a replica says.
    fn follow(&mut self, step: u8, script: &mut Script<'_>) {
        let seq = script.near(self.cache.status().seq);
        let message = match step {
            3..=5 => {
                (self.link, self.numbers) = (self.transport.dial("node").ok(), FrameNumbers::default());
                Message::Hello(Box::new(self.introduction(script)))
            }
            6..=8 => Message::Ack(Ack { applied: seq, received: seq, incarnation: 3 }),
            9 | 10 => Message::Want(Want { hashes: vec![script.number(); script.number() as usize] }),
            11 => Message::Lease(Lease { asked_ms: script.number() }),
            12 => Message::Bye(Bye { reason: ByeReason::RefusedInstall }),
            _ => {
                let term = script.near(16) as u32;
                Message::Fenced(Fenced { term, lineage: to_wire(&self.lineage), primary: String::new() })
            }
        };
        let channel = if script.number() < 200 { Channel::Live } else { script.channel() };
        self.say(channel, &message);
    }

    fn group(&self) -> u128 {
        self.cache.inner.group.as_ref().map_or(0, |group| group.roles.lock().group)
    }

    fn introduction(&self, script: &mut Script<'_>) -> Hello {
        let purposes = [
            Purpose::Follow,
            Purpose::Follow,
            Purpose::Announce,
            Purpose::Ask,
            Purpose::Promise,
            Purpose::CatchUp,
        ];
        Hello {
            version: frame::VERSION,
            purpose: purposes[script.number() as usize % purposes.len()],
            group: if script.number() < 240 { self.group() } else { 1 },
            node: 9,
            incarnation: 3,
            slot: script.byte().unwrap_or(2) % 16,
            term_seen: Term(0),
            position: self.lineage.position().filter(|_| script.number() > 200),
            lineage: Lineage::default(),
            undo_floor: Some(0),
            grants_leases: true,
            frame_bytes_max: 64 << 10,
            clock_ms: 0,
            address: String::new(),
            cascades: script.number() > 200,
            takes_apart: script.number() < 200,
            knows_loads: script.number() < 200,
            follows_evictions: script.number() < 200,
            forgot: false,
            ack_mode: None,
            slot_is_free: script.number() < 200,
        }
    }
}

const BYE: Message<'static> = Message::Bye(Bye { reason: ByeReason::OutOfStep });

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A replica is attached, copied beside the log, and streams: what the bytes mean is known here.
    fn whole_copy() -> Vec<u8> {
        let mut script = vec![0];
        script.extend_from_slice(&[3, 0]); // HelloOk, a full copy
        script.extend_from_slice(&[5, 0, 0, 0]); // InstallBegin without floors
        script.extend_from_slice(&[6, 1, 0]); // Apart on the live channel
        script.extend_from_slice(&[6, 0, 1]); // and on the bulk channel
        script.extend_from_slice(&[7, 1, 0, 1, b'a', 0, 0, 0]); // a put beside it
        script.extend_from_slice(&[10, 1, 201, 0, 1, b'a', 1, b'x', 0, 0, 201]); // a late chunk of that key
        script.extend_from_slice(&[10, 1, 0, 0, 1, b'b', 1, b'y', 0, 0, 0]); // and one of another
        script.extend_from_slice(&[12, 1, 0]); // InstallEnd on the bulk channel
        script
    }

    #[test]
    fn a_peer_that_says_what_fits_gets_a_replica_to_stream() {
        let reached = talk_to_a_node(&whole_copy());
        assert_eq!(reached, Reached { attached: 1, items: 2, streams: true });
        // A replica's Hello, and its Ack.
        let replica = [1, 3, 0, 0, 0, 2, 0, 0, 0, 0, 6, 0, 0];
        assert_eq!(talk_to_a_node(&replica).attached, 1, "a primary ships to who follows");
    }

    fn streaming() -> Peer {
        let copy = whole_copy();
        let mut peer = Peer::new(true, true);
        let mut script = Script(&copy[1..]);
        peer.poll();
        while let Some(step) = script.byte() {
            peer.take_step(step, &mut script);
            peer.poll();
        }
        assert_eq!(peer.cache.status().link, crate::LinkState::Streaming);
        peer
    }

    fn say_records(peer: &mut Peer, mutations: &[Mutation<'_>]) {
        let mut records = Vec::new();
        for mutation in mutations {
            let mut record = Vec::new();
            record::encode(mutation, &mut record);
            records.extend_from_slice(&(record.len() as u32).to_le_bytes());
            records.extend_from_slice(&record);
        }
        let prev_seq = peer.applied();
        let append = Append { term: 16, branch: 5, prev_seq, clock_ms: 1_000_000, records: &records };
        peer.say(Channel::Live, &Message::Append(append));
        peer.poll();
    }

    const fn absence(expires_at_ms: u64) -> Mutation<'static> {
        let (key, value) = (b"gone".as_slice(), b"".as_slice());
        Mutation::Put { key, value, flags: 0, expires_at_ms, marks: Marks(16), client_cas: None }
    }

    #[test]
    fn an_absence_for_ever_is_not_taken_and_never_shown_as_a_value() {
        let mut peer = streaming();
        say_records(&mut peer, &[absence(0)]);
        assert_eq!(peer.cache.get("gone").unwrap(), None);
        assert_ne!(peer.cache.status().link, crate::LinkState::Streaming, "the link ends");

        for kind in [ChunkKind::Install, ChunkKind::Refill] {
            let mut peer = streaming();
            let seq = peer.applied();
            let item = ChunkItem {
                key: b"gone",
                value: b"",
                flags: 0,
                expires_at_ms: 0,
                client_cas: None,
                marks: 16,
                version: (16 << 44) + seq,
            };
            let chunk = Chunk { at_seq: seq, kind, items: vec![item] };
            peer.say(Channel::Live, &Message::Chunk(chunk));
            peer.poll();
            assert_eq!(peer.cache.get("gone").unwrap(), None, "{kind:?}");
            assert_ne!(peer.cache.status().link, crate::LinkState::Streaming, "{kind:?}");
        }
    }

    #[test]
    fn an_absence_that_is_touched_for_ever_is_dropped() {
        let mut peer = streaming();
        say_records(&mut peer, &[absence(1_500_000)]);
        let items = peer.cache.stats().items;
        let version = Version((16 << 44) + peer.applied());
        say_records(&mut peer, &[Mutation::Touch { key: b"gone", version, expires_at_ms: 0 }]);
        assert_eq!(peer.cache.status().link, crate::LinkState::Streaming);
        assert_eq!((peer.cache.get("gone").unwrap(), peer.cache.stats().items), (None, items - 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn a_node_stands_whatever_a_peer_says(
            rest in prop::collection::vec(any::<u8>(), 0..600), kept in 0_usize..50, head in 0_u8..4
        ) {
            let copy = whole_copy();
            let begun = &copy[1..kept.min(copy.len()).max(1)];
            talk_to_a_node(&[&[head], begun, &rest].concat());
        }
    }
}
