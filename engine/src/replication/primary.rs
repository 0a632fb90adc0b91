//! The primary's end of a stream: one session for each replica.
//!
//! Lives here: which frame goes next. Not here: links (see `transport`), items (see `install`), who may attach (see
//! `admission`).
//!
//! ```text
//!   Hello ──> [ Installing ──(every item sent)──> ] Streaming ──> ended      (a roll-back is the replica's, at once)
//!                  ^───────(the log overtook it)───────┘
//! ```
//! Drain contract: after each `handle_frame`, and whenever the log grew or a deadline came, call `poll_frame` until
//! it gives none, sending each frame before the next call; likewise `poll_bulk` and `poll_hint` where the link has such
//! channels.
//!
//! On the live channel a chunk of items goes exactly at its moment in the log: with a chunk waiting, the log is shipped up
//! to the chunk's seq and no further until the chunk has gone. On the bulk channel the parts of a full copy go as they are
//! read, beside the log; what has changed meanwhile is the replica's to see (see `apart`).

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::acks::AckMode;
use super::bug::{Bug, Bugs};
use super::frame::{HEADER_BYTES, Kind};
use super::hello::Hello;
use super::install::{InstallSource, ItemsAt};
use super::loads::Lending;
use super::log::{Log, LogCursor, LogRead};
use super::message::{
    Apart, Append, Bye, ByeReason, ChunkKind, Handover, Heartbeat, HelloOk, Hints, InstallBegin, InstallEnd,
    Lease, Message, Plan, PrefixFloor, Relay, to_wire,
};
use super::position::{Position, Seq};
use super::risk::{LogEnd, Risk};
use super::session::{DEAD_AFTER_MS, FrameNumbers, HEARTBEAT_MS, SessionEnd};
use super::status::LinkState;
use super::transport::{Channel, LinkCaps};

/// Bytes of items in one chunk, about.
pub(crate) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Bytes of records in one frame, unless a single record is larger.
const APPEND_BYTES_MAX: usize = 256 << 10;

/// Hints that wait for one replica (8 bytes each); the oldest are dropped.
const HINTS_QUEUED_MAX: usize = 64 << 10;

/// Hints in one frame.
const HINTS_PER_FRAME_MAX: usize = 4096;

/// Bytes of a frame of hints beside the hashes, at most, and of a hash.
const HINTS_HEAD_BYTES: usize = HEADER_BYTES + 15;
const HINT_BYTES: usize = 10;

/// Hashes that a replica may ask for at once; more are dropped.
const WANTED_MAX: usize = 4096;

/// A level replica was heard of within so many milliseconds, and lacks no write that is older: two heartbeats.
const LEVEL_WITHIN_MS: u64 = 2 * HEARTBEAT_MS;

/// How often the log may overtake an install before the session gives up.
const OVERTAKEN_MAX: u32 = 3;

/// What a replica is told when it attaches.
pub(crate) struct Grant {
    pub(crate) node: u128,
    pub(crate) slot: u8,
    pub(crate) hash_seed: u64,
    pub(crate) frame_bytes_max: usize,
    pub(crate) peers: Vec<String>,
    /// The channels of its link.
    pub(crate) caps: LinkCaps,
    /// Whether this node is the primary, which says who loads a key.
    pub(crate) lends_loads: bool,
    pub(crate) bugs: Bugs,
}

/// The time of a poll: this node's clock for time-outs, the group's for expiry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) local_ms: u64,
    pub(crate) group_ms: u64,
    /// The clock of leases, where replicas are asked for them.
    pub(crate) lease_ms: Option<u64>,
}

/// What goes on channels beside the live one.
struct Beside {
    /// Whether full copies do, and how many have begun there.
    ships_copies: bool,
    copies: u32,
    /// The bulk channel has not been told of the newest.
    is_newest_due: bool,
    /// What the hint channel takes, where there is one.
    hint_bytes_max: Option<usize>,
}

impl Beside {
    fn new(hello: &Hello, caps: LinkCaps) -> Beside {
        let ships_copies = hello.takes_apart && caps.bulk;
        Beside { ships_copies, copies: 0, is_newest_due: false, hint_bytes_max: caps.hint_bytes_max }
    }
}

/// 1. `cursor` is behind the last record that was sent.
/// 2. `pending` is at or ahead of the cursor, and nothing beyond it is sent before it.
/// 3. `queued_hints` counts the hashes in `hints` and is at most [`HINTS_QUEUED_MAX`].
/// 4. Where `beside.ships_copies`, no part of a full copy is ever `pending`.
pub(crate) struct PrimarySession {
    pub(crate) node: u128,
    pub(crate) slot: u8,
    pub(crate) address: String,
    numbers: FrameNumbers,
    frame_bytes_max: usize,
    state: LinkState,
    plan: Plan,
    opening: VecDeque<Bytes>,
    cursor: LogCursor,
    pending: Option<(ChunkKind, ItemsAt)>,
    all_items_sent: bool,
    beside: Beside,
    sweeping: bool,
    hints: VecDeque<(Seq, Vec<u64>)>,
    queued_hints: usize,
    wanted: VecDeque<u64>,
    applied: Seq,
    last_copy: LastCopy,
    /// What it has to have applied to be level for the first time.
    level_from: Seq,
    risk: Risk,
    bugs: Bugs,
    /// Only for a chunk that is to go late: a bug put back.
    is_chunk_due: bool,
    /// Whether writes and leases may count on it. One that has lost its memory may have promised somebody else not to follow
    /// this primary (see [`PrimarySession::may_count`]).
    counts: bool,
    attached_ms: u64,
    modes: Modes,
    grants_leases: bool,
    asks_for_lease: bool,
    /// When it was last asked for a lease, and when it was for the last one that it has granted.
    asked_ms: u64,
    granted_ms: Option<u64>,
    heard_at_ms: u64,
    heartbeat_due_ms: u64,
    overtaken: u32,
    /// What a replica that would follow a replica is told of this node.
    relay: Option<Relay>,
    relay_due: bool,
    pub(crate) lending: Lending,
}

/// The last full copy that a replica was sent; nothing of it where there was none.
#[derive(Default)]
struct LastCopy {
    /// Where the log ended when it began: the replica is not said to lack what was written before.
    began_at: Seq,
    /// What the replica says of less is of before the copy, for which it dropped that.
    acks_from: Seq,
}

/// What a write waits for on either side.
#[derive(Debug, Default)]
struct Modes {
    /// At the replica, if it said so; then it wants to be told, too.
    theirs: Option<AckMode>,
    ours: Option<AckMode>,
    told: Option<AckMode>,
}

impl Modes {
    /// What the replica is to be told, once.
    fn take_news(&mut self) -> Option<AckMode> {
        let news = self.ours.filter(|_| self.theirs.is_some() && self.ours != self.told)?;
        self.told = Some(news);
        Some(news)
    }
}

impl PrimarySession {
    /// Answers a replica that may attach: from the log if it holds all that follows, or all that follows a point to which
    /// the replica can roll back; else with a full copy. The log of a primary always has a position.
    pub(crate) fn new(
        hello: &Hello,
        log: &Mutex<Log>,
        source: &mut dyn InstallSource,
        grant: Grant,
        now: Now,
    ) -> Self {
        let (lineage, end, plan, resumed) = {
            let log = log.lock();
            let (planned, resumed) = plan_for(hello, &log);
            let forgets_branches = grant.bugs.has(Bug::AppendWithoutBranch);
            let is_roll_back = matches!(planned, Plan::RollBack { .. });
            let plan = if is_roll_back && forgets_branches { Plan::Resume } else { planned };
            let end = log.cursor_at_end().expect("a primary has minted a branch");
            (log.lineage().clone(), end, plan, resumed)
        };
        let frame_bytes_max = grant.frame_bytes_max.min(hello.frame_bytes_max as usize).max(64 << 10);
        let mut session = PrimarySession {
            node: hello.node,
            slot: hello.slot,
            address: hello.address.clone(),
            numbers: FrameNumbers::new(grant.bugs),
            frame_bytes_max,
            state: LinkState::Streaming,
            plan,
            opening: VecDeque::new(),
            cursor: resumed.unwrap_or(end),
            pending: None,
            all_items_sent: false,
            beside: Beside::new(hello, grant.caps),
            sweeping: resumed.is_some(),
            hints: VecDeque::new(),
            queued_hints: 0,
            wanted: VecDeque::new(),
            applied: resumed.map_or(0, |cursor| cursor.position.seq),
            last_copy: LastCopy::default(),
            level_from: end.position.seq,
            risk: Risk::new(resumed.unwrap_or(end).as_end(now.local_ms)),
            bugs: grant.bugs,
            is_chunk_due: false,
            counts: hello.remembers(),
            attached_ms: now.lease_ms.unwrap_or(0),
            modes: Modes { theirs: hello.ack_mode, ..Modes::default() },
            grants_leases: hello.grants_leases,
            asks_for_lease: false,
            asked_ms: 0,
            granted_ms: None,
            heard_at_ms: now.local_ms,
            heartbeat_due_ms: now.local_ms,
            overtaken: 0,
            relay: hello.cascades.then(Relay::default),
            relay_due: false,
            lending: Lending::new(hello.reads_all_entries(), grant.lends_loads),
        };
        let ok = HelloOk {
            lineage: to_wire(&lineage),
            plan,
            node: grant.node,
            slot: grant.slot,
            hash_seed: grant.hash_seed,
            clock_ms: now.group_ms,
            frame_bytes_max: frame_bytes_max as u32,
            peers: grant.peers,
        };
        session.open_with(&Message::HelloOk(ok));
        if resumed.is_none() {
            session.begin_install(log, source);
        }
        session
    }

    /// The frame numbers go on from the peer's `Hello`, which whoever accepted the link has read.
    pub(crate) fn numbers_mut(&mut self) -> &mut FrameNumbers {
        &mut self.numbers
    }

    /// Says this before anything else.
    fn open_with(&mut self, message: &Message<'_>) {
        let frame = self.numbers.encode(message);
        self.opening.push_back(frame);
    }

    fn begin_install(&mut self, log: &Mutex<Log>, source: &mut dyn InstallSource) {
        source.begin_copy(self.lending.is_known);
        let (cursor, lineage) = {
            let log = log.lock();
            (log.cursor_at_end().expect("a primary has minted a branch"), to_wire(log.lineage()))
        };
        // Behind the cursor: one that comes in between is told twice; the other way round it would not be told at all.
        let flushes = source.flushes();
        self.state = LinkState::Installing;
        self.applied = 0;
        self.last_copy = LastCopy { began_at: cursor.position.seq, acks_from: Seq::MAX };
        self.cursor = cursor;
        self.pending = None;
        self.all_items_sent = false;
        self.sweeping = false;
        let prefix_floors = flushes.prefix_floors.into_iter();
        let begin = InstallBegin {
            lineage,
            flush_floor: flushes.floor.0,
            flush_at_ms: flushes.at_ms,
            prefix_floors: prefix_floors
                .map(|(prefix, floor)| PrefixFloor { prefix: prefix.into_vec(), floor: floor.0 })
                .collect(),
        };
        self.open_with(&Message::InstallBegin(begin));
        if self.beside.ships_copies {
            self.beside.copies += 1;
            self.beside.is_newest_due = true;
            self.open_with(&Message::Apart(Apart { copy: self.beside.copies }));
        }
    }

    /// Whether the replica is to be told where this node stands.
    pub(crate) fn wants_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Where this node stands now. It is told at once if it has changed, and behind each heartbeat.
    pub(crate) fn set_relay(&mut self, relay: Relay) {
        let Some(known) = &mut self.relay else { return };
        self.relay_due |=
            (&relay.path, &relay.primary, relay.level) != (&known.path, &known.primary, known.level);
        *known = relay;
    }

    /// What the replica was told when it attached.
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    pub(crate) fn state(&self) -> LinkState {
        self.state
    }

    /// The last seq that the replica has said to have applied.
    pub(crate) fn applied(&self) -> Seq {
        self.applied
    }

    /// How many of the changes up to this one it has not acknowledged, of those that came behind the beginning of its full copy.
    pub(crate) fn lag_seqs(&self, end: Seq) -> u64 {
        end.saturating_sub(self.applied.max(self.last_copy.began_at))
    }

    /// Whether writes may count on it, once it is level.
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }

    pub(crate) fn cursor(&self) -> &LogCursor {
        &self.cursor
    }

    /// The seq up to which it holds this primary's history; `None` in the middle of a full copy.
    pub(crate) fn holds(&self) -> Option<Seq> {
        let seq =
            if self.bugs.has(Bug::SentCountsAsApplied) { self.cursor.position.seq } else { self.applied };
        (self.state == LinkState::Streaming && self.counts).then_some(seq)
    }

    /// When it was asked for the last lease that it has granted, on the clock of leases.
    pub(crate) fn granted_ms(&self) -> Option<u64> {
        self.granted_ms.filter(|_| self.counts)
    }

    /// Whether it has all that was written before it attached, and does not count yet.
    pub(crate) fn may_count(&self) -> bool {
        !self.counts && self.has_been_level()
    }

    /// It counts from now on.
    pub(crate) fn count(&mut self) {
        self.counts = true;
    }

    /// When it attached, on the clock of leases.
    pub(crate) fn attached_ms(&self) -> u64 {
        self.attached_ms
    }

    /// Notes where the log ends now, for what the replica lacks.
    pub(crate) fn note_end(&mut self, end: LogEnd) {
        self.risk.note(end, self.applied);
    }

    /// Takes up what was noted before it attached: it goes on from the log, and may have lacked for long what it lacks.
    pub(crate) fn take_up_ends(&mut self, noted: &Risk, now: Now) {
        if self.state == LinkState::Streaming {
            self.risk = noted.going_on(self.cursor.as_end(now.local_ms));
        }
    }

    pub(crate) fn risk(&self) -> &Risk {
        &self.risk
    }

    /// Whether it has had everything at some moment since it attached or was copied.
    pub(crate) fn has_been_level(&self) -> bool {
        self.state == LinkState::Streaming && self.applied >= self.level_from
    }

    /// Whether a write may count on this replica: it has been level, was heard of lately, and lacks no old write.
    pub(crate) fn is_level(&self, now: Now) -> bool {
        self.counts
            && self.has_been_level()
            && now.local_ms.saturating_sub(self.heard_at_ms) <= LEVEL_WITHIN_MS
            && self.risk.lag_ms(now.local_ms) <= LEVEL_WITHIN_MS
    }

    /// When `poll_frame` must be called although nothing has happened.
    pub(crate) fn deadline_ms(&self) -> u64 {
        self.heartbeat_due_ms.min(self.dead_at_ms())
    }

    /// When the session ends unless the replica is heard of before.
    pub(crate) fn dead_at_ms(&self) -> u64 {
        self.heard_at_ms + DEAD_AFTER_MS
    }

    /// Where the full copy that is under way goes.
    pub(crate) fn copy_channel(&self) -> Channel {
        if self.beside.ships_copies && self.state == LinkState::Installing {
            Channel::Bulk
        } else {
            Channel::Live
        }
    }

    /// Where what is read out next goes: the marks of a sweep go as hints.
    pub(crate) fn walk_channel(&self) -> Channel {
        if !self.has_items_to_read() && self.hints_per_datagram() > 0 {
            Channel::Hint
        } else {
            self.copy_channel()
        }
    }

    /// Whether a full copy or a sweep still has something to read out.
    pub(crate) fn has_background_work(&self) -> bool {
        self.sweeping || self.has_items_to_read()
    }

    fn has_items_to_read(&self) -> bool {
        self.state == LinkState::Installing || !self.wanted.is_empty()
    }

    /// Takes hashes of items that were just read.
    pub(crate) fn queue_hints(&mut self, at_seq: Seq, hashes: &[u64]) {
        for batch in hashes.chunks(HINTS_PER_FRAME_MAX) {
            self.queued_hints += batch.len();
            self.hints.push_back((at_seq, batch.to_vec()));
        }
        while self.queued_hints > HINTS_QUEUED_MAX {
            let dropped = self.hints.pop_front().map_or(0, |(_, batch)| batch.len());
            self.queued_hints -= dropped;
        }
    }

    /// What a write waits for at the replica, if it said so.
    pub(crate) fn mode(&self) -> Option<AckMode> {
        self.modes.theirs
    }

    /// What a write waits for at this node, for a replica that wants to know.
    pub(crate) fn set_mode(&mut self, mode: AckMode) {
        self.modes.ours = Some(mode);
    }

    /// Takes a frame from the replica.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], now: Now) -> Result<(), SessionEnd> {
        let message = self.numbers.decode(frame)?;
        self.heard_at_ms = now.local_ms;
        match message {
            Message::Ack(ack) if ack.applied <= self.cursor.position.seq => {
                if ack.applied >= self.last_copy.acks_from {
                    self.applied = ack.applied;
                }
                Ok(())
            }
            Message::Ack(_) => Err(SessionEnd::Unexpected("ack of what was never sent")),
            Message::Lease(lease) if lease.asked_ms <= self.asked_ms => {
                self.granted_ms = self.granted_ms.max(Some(lease.asked_ms));
                Ok(())
            }
            Message::Mode(mode) => {
                self.modes.theirs = Some(mode.into());
                Ok(())
            }
            Message::Want(want) => {
                let room = WANTED_MAX - self.wanted.len();
                self.wanted.extend(want.hashes.into_iter().take(room));
                Ok(())
            }
            Message::LoadAsk(ask) if self.lending.asked(&ask) => Ok(()),
            Message::LoadDone(done) if self.lending.told(&done) => Ok(()),
            Message::Fenced(fenced) => Err(SessionEnd::Fenced(fenced)),
            Message::Bye(bye) => Err(SessionEnd::Bye(bye.reason)),
            _ => Err(SessionEnd::Unexpected("frame from a replica")),
        }
    }

    /// The replica lacks an item that it was sent, or will be: it is sent once more.
    pub(crate) fn send_again(&mut self, hash: u64, seq: Seq) {
        if seq <= self.cursor.position.seq && self.wanted.len() < WANTED_MAX {
            self.wanted.push_back(hash);
        }
    }

    /// The next frame to send, if there is one now.
    pub(crate) fn poll_frame(
        &mut self,
        log: &Mutex<Log>,
        source: &mut dyn InstallSource,
        peers: &[String],
        now: Now,
    ) -> Result<Option<Bytes>, SessionEnd> {
        if now.local_ms >= self.dead_at_ms() {
            return Err(SessionEnd::Silent);
        }
        if let Some(frame) = self.opening.pop_front() {
            return Ok(Some(frame));
        }
        if let Some(mode) = self.modes.take_news() {
            return Ok(Some(self.numbers.encode(&Message::Mode(mode.into()))));
        }
        if let Some(relay) = self.relay.as_ref().filter(|_| self.relay_due) {
            self.relay_due = false;
            return Ok(Some(self.numbers.encode(&Message::Relay(relay.clone()))));
        }
        if now.local_ms >= self.heartbeat_due_ms {
            self.relay_due = self.relay.is_some();
            self.is_chunk_due = true;
            return Ok(Some(self.heartbeat(log, peers, now)));
        }
        if let Some(asked_ms) = now.lease_ms.filter(|_| self.asks_for_lease && self.counts) {
            (self.asks_for_lease, self.asked_ms) = (false, asked_ms);
            return Ok(Some(self.numbers.encode(&Message::Lease(Lease { asked_ms }))));
        }
        if let Some(answer) = self.lending.next_answer() {
            return Ok(Some(self.numbers.encode(&Message::LoadAnswer(answer))));
        }
        self.fill_pending(source);
        if let Some(frame) = self.pending_if_due() {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.next_records(log, source, now)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.pending_if_due() {
            return Ok(Some(frame));
        }
        if self.state == LinkState::Installing
            && !self.beside.ships_copies
            && self.all_items_sent
            && self.pending.is_none()
        {
            return Ok(Some(self.end_install(Channel::Live)));
        }
        Ok(match self.hints_per_datagram() {
            0 => self.next_hints(Channel::Live, HINTS_PER_FRAME_MAX, log, source),
            _ => None,
        })
    }

    /// The next frame for the bulk channel, if there is one now.
    pub(crate) fn poll_bulk(&mut self, source: &mut dyn InstallSource) -> Option<Bytes> {
        if !self.beside.ships_copies || self.state != LinkState::Installing {
            return None;
        }
        if std::mem::take(&mut self.beside.is_newest_due) {
            let apart = Message::Apart(Apart { copy: self.beside.copies });
            return Some(self.numbers.encode_on(Channel::Bulk, &apart));
        }
        match source.next_items(CHUNK_BYTES_MAX, self.frame_bytes_max / 2) {
            Some(items) if items.is_empty() => None,
            Some(items) => {
                let chunk = items.as_message(ChunkKind::Install);
                Some(self.numbers.encode_on(Channel::Bulk, &chunk))
            }
            None => {
                source.end_copy(self.slot);
                self.all_items_sent = true;
                Some(self.end_install(Channel::Bulk))
            }
        }
    }

    /// The next frame for the hint channel, if there is one now.
    pub(crate) fn poll_hint(&mut self, log: &Mutex<Log>, source: &mut dyn InstallSource) -> Option<Bytes> {
        match self.hints_per_datagram() {
            0 => None,
            hashes_max => self.next_hints(Channel::Hint, hashes_max, log, source),
        }
    }

    /// How many hints a frame of their own channel takes now; 0 where there is none, or its path is too narrow.
    fn hints_per_datagram(&self) -> usize {
        let bytes = self.beside.hint_bytes_max.unwrap_or(0).saturating_sub(HINTS_HEAD_BYTES);
        (bytes / HINT_BYTES).min(HINTS_PER_FRAME_MAX)
    }

    /// Takes note of what the link's path allows now.
    pub(crate) fn set_hint_bytes_max(&mut self, bytes_max: Option<usize>) {
        self.beside.hint_bytes_max = bytes_max;
    }

    fn heartbeat(&mut self, log: &Mutex<Log>, peers: &[String], now: Now) -> Bytes {
        self.heartbeat_due_ms = now.local_ms + HEARTBEAT_MS;
        self.asks_for_lease = self.grants_leases;
        let (term, last_seq) = {
            #[cfg_attr(not(feature = "testing"), expect(unused_mut))]
            let mut log = log.lock();
            #[cfg(feature = "testing")]
            if self.bugs.has(Bug::HeartbeatTakesSeq) {
                log.skip_seq();
            }
            (log.lineage().term().0, log.last_seq())
        };
        let peers = peers.to_vec();
        self.numbers.encode(&Message::Heartbeat(Heartbeat { term, last_seq, clock_ms: now.group_ms, peers }))
    }

    /// Reads items out: the next part of a full copy, or one that the replica asked for.
    fn fill_pending(&mut self, source: &mut dyn InstallSource) {
        if self.pending.is_some() {
            return;
        }
        let item_bytes_max = self.frame_bytes_max / 2;
        if self.state == LinkState::Installing && !self.all_items_sent {
            if self.beside.ships_copies {
                return;
            }
            match source.next_items(CHUNK_BYTES_MAX, item_bytes_max) {
                Some(items) if items.is_empty() => {}
                Some(items) => self.pending = Some((ChunkKind::Install, items)),
                None => {
                    source.end_copy(self.slot);
                    self.all_items_sent = true;
                }
            }
            return;
        }
        while let Some(hash) = self.wanted.pop_front() {
            if let Some(items) = source.by_hash(hash, item_bytes_max) {
                self.pending = Some((ChunkKind::Refill, items));
                return;
            }
        }
    }

    fn pending_if_due(&mut self) -> Option<Bytes> {
        let due = match self.bugs.has(Bug::LateChunk) {
            // One for each heartbeat, whatever has gone since.
            true => std::mem::take(&mut self.is_chunk_due),
            false => self.pending.as_ref().is_some_and(|(_, items)| self.cursor.is_at(items.log_end())),
        };
        if !due {
            return None;
        }
        let (kind, items) = self.pending.take()?;
        Some(self.numbers.encode(&items.as_message(kind)))
    }

    fn next_records(
        &mut self,
        log: &Mutex<Log>,
        source: &mut dyn InstallSource,
        now: Now,
    ) -> Result<Option<Bytes>, SessionEnd> {
        let waits_for = self.pending.as_ref().filter(|_| !self.bugs.has(Bug::LateChunk));
        let everything = LogEnd { seq: Seq::MAX, bytes: u64::MAX, at_ms: 0 };
        let until = waits_for.map_or(everything, |(_, items)| items.log_end());
        let bytes_max = APPEND_BYTES_MAX.min(self.frame_bytes_max / 2);
        let read = log.lock().read_behind(&mut self.cursor, bytes_max, until, |term, prev, bytes| {
            Append::begin_frame(term, prev, now.group_ms, bytes)
        });
        match read {
            LogRead::Records { bytes: frame, .. } => Ok(Some(self.numbers.finish(Kind::Append, frame))),
            LogRead::NewBranch(entry) => Ok(Some(self.numbers.encode(&Message::Lineage(entry.into())))),
            LogRead::AtEnd => Ok(None),
            LogRead::Overtaken if self.overtaken < OVERTAKEN_MAX => {
                self.overtaken += 1;
                self.begin_install(log, source);
                Ok(self.opening.pop_front())
            }
            LogRead::Overtaken => Err(SessionEnd::Overtaken),
        }
    }

    fn end_install(&mut self, channel: Channel) -> Bytes {
        self.state = LinkState::Streaming;
        self.overtaken = 0;
        let seq = self.cursor.position.seq;
        (self.last_copy.acks_from, self.level_from) = (seq, seq);
        let end = Message::InstallEnd(InstallEnd { seq });
        self.numbers.encode_on(channel, &end)
    }

    /// Hints whose items the replica has been sent; while a sweep runs, the marks that it finds.
    fn next_hints(
        &mut self,
        channel: Channel,
        hashes_max: usize,
        log: &Mutex<Log>,
        source: &mut dyn InstallSource,
    ) -> Option<Bytes> {
        if self.state == LinkState::Installing {
            return None;
        }
        if self.sweeping && self.hints.is_empty() {
            match source.next_marked(HINTS_PER_FRAME_MAX) {
                Some(hashes) => {
                    let at_seq = log.lock().last_seq();
                    self.queue_hints(at_seq, &hashes);
                }
                None => self.sweeping = false,
            }
        }
        let due = self.hints.front().is_some_and(|(at_seq, _)| *at_seq <= self.cursor.position.seq);
        if !due {
            return None;
        }
        let (at_seq, mut hashes) = self.hints.pop_front()?;
        if hashes.len() > hashes_max {
            self.hints.push_front((at_seq, hashes.split_off(hashes_max)));
        }
        self.queued_hints -= hashes.len();
        Some(self.numbers.encode_on(channel, &Message::Hints(Hints { at_seq, hashes })))
    }

    /// The last frame to the replica that takes over.
    pub(crate) fn handover(&mut self) -> Bytes {
        self.numbers.encode(&Message::Handover(Handover { seq: self.applied }))
    }

    /// The last frame of a session that ends on purpose.
    pub(crate) fn bye(&mut self, reason: ByeReason) -> Bytes {
        self.numbers.encode(&Message::Bye(Bye { reason }))
    }
}

/// How a replica gets level, and from where in the log on; `None` for a full copy.
fn plan_for(hello: &Hello, log: &Log) -> (Plan, Option<LogCursor>) {
    let Some(position) = hello.position else { return (Plan::Install, None) };
    let knows = |at: Position| hello.reads_all_entries() || log.is_plain_behind(at.seq);
    if let Some(cursor) = log.cursor_at(position).filter(|_| knows(position)) {
        return (Plan::Resume, Some(cursor));
    }
    let shared = log.lineage().last_shared_with(&hello.lineage);
    let in_reach = |to: &Position| hello.undo_floor.is_some_and(|floor| floor <= to.seq);
    match shared.filter(in_reach).filter(|to| knows(*to)).and_then(|to| log.cursor_at(to)) {
        Some(cursor) => {
            let Position { branch, seq } = cursor.position;
            (Plan::RollBack { branch: branch.0, seq }, Some(cursor))
        }
        None => (Plan::Install, None),
    }
}

#[cfg(test)]
mod tests;
