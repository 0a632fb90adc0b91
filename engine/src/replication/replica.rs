//! The replica's end of a stream.
//!
//! Lives here: checking that each frame fits what this node holds, and what is answered. Not here: applying (see
//! `cache::apply`), whom to dial (see `driver`).
//!
//! ```text
//!   Hello sent ──> AwaitingAnswer ──> [ Installing ──> ] Streaming ──> ended
//!                        └──(rolled back, within the answer's turn)──^
//! ```
//! Drain contract: after each `handle_frame`, and at each deadline, call `poll_frame` until it gives none.

use std::collections::VecDeque;

use bytes::Bytes;

use super::acks::AckMode;
use super::apart::{ApartCopy, PartIs};
use super::bug::{Bug, Bugs};
use super::hello::Hello;
use super::message::{
    Ack, Append, Bye, ByeReason, Chunk, ChunkKind, Fenced, Ghosts, Heartbeat, HelloOk, Hints, InstallBegin,
    Lease, LoadAnswer, Message, Plan, Relay, Want, WireEntry, from_wire,
};
use super::position::{Branch, Lineage, LineageEntry, Position, Seq, Term};
use super::session::{DEAD_AFTER_MS, FrameNumbers, HEARTBEAT_MS, SessionEnd};
use super::transport::Channel;
use super::window::{RECORDS_MAX, Window};

/// Hashes in one `Want`; more unmatched hints are forgotten.
const WANT_MAX: usize = 512;

/// Frames of hints that came before the records that they speak of; more are forgotten.
const HINTS_HELD_MAX: usize = 16;

/// What a session does to its node. Each call is done when it returns: a position moves only after its records are
/// applied.
pub(crate) trait ReplicaStore {
    /// The last mutation held; `None` without data and in the middle of an install.
    fn position(&self) -> Option<Position>;
    /// The seq of the last record applied, in the middle of an install too.
    fn applied(&self) -> Seq;
    /// The highest term believed.
    fn term_seen(&self) -> Term;
    /// Whether there are any items.
    fn holds_items(&self) -> bool;
    /// The history held.
    fn lineage(&self) -> Lineage;
    /// A primary took this node as its replica.
    fn attached(&mut self, ok: &HelloOk, term: Term);
    /// Drops each key that the log names behind this position, then stands there; gives the hashes of those keys, the
    /// last ones where they are many.
    fn roll_back(&mut self, to: Position) -> Result<Vec<u64>, SessionEnd>;
    /// Whether a full copy that is about to begin counts as one that failed, since the one before was made a moment ago.
    fn is_copied_again(&mut self) -> bool;
    /// Drops a part of what is held, for a full copy; whether nothing is left. None of it is claimed or shown any more.
    fn clear_some(&mut self) -> bool;
    /// Nothing is held; what follows is a full copy.
    fn begin_install(&mut self, begin: &InstallBegin, hash_seed: u64) -> Result<(), SessionEnd>;
    /// The full copy is complete.
    fn end_install(&mut self);
    /// The group's hash of a key.
    fn hash(&self, key: &[u8]) -> u64;
    /// The log waits for a chunk of a full copy.
    fn log_waits(&mut self);
    /// Applies items that are what the primary had at this node's position.
    fn apply_chunk(&mut self, chunk: &Chunk<'_>) -> Result<(), SessionEnd>;
    /// Takes over what a shard of the primary's remembers of evicted items.
    fn apply_ghosts(&mut self, ghosts: &Ghosts) -> Result<(), SessionEnd>;
    /// Applies records and marks that follow this node's position; gives the hashes of marked items that are not here.
    fn apply_append(&mut self, append: &Append<'_>) -> Result<Vec<u64>, SessionEnd>;
    /// Goes on in the primary's next branch.
    fn follow_branch(&mut self, entry: LineageEntry);
    /// Marks items as read; gives back the hashes that are not here.
    fn apply_hints(&mut self, hashes: &[u64]) -> Vec<u64>;
    /// The primary's clock, as it stood when a frame left.
    fn set_clock(&mut self, clock_ms: u64);
    /// All that the primary did before this moment of its clock has been applied.
    fn settle(&mut self, clock_ms: u64);
    /// Addresses of the group's other nodes.
    fn learn_peers(&mut self, peers: &[String]);
    /// Where the sender stands below its primary.
    fn relayed(&mut self, relay: &Relay) -> Result<(), SessionEnd>;
    /// This node follows the primary, which may answer for some time to come.
    fn grant_lease(&mut self);
    /// What a write waits for at the sender.
    fn mode_told(&mut self, mode: AckMode);
    /// Whether this node has all that its primary told of.
    fn set_level(&mut self, level: bool);
    /// The primary answers whether this node is to load something.
    fn load_answered(&mut self, answer: LoadAnswer);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingAnswer,
    Installing,
    Streaming,
}

/// Whom the frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Above {
    /// The primary: this node takes nobody else's.
    Primary,
    /// Any node that has what the primary has, or has not (until it says so).
    Node { reigns: bool, level: bool },
}

/// 1. `primary_last` is the highest seq that the primary has told of.
/// 2. Nothing is applied before the answer, nor from a term below the highest seen.
/// 3. `to_settle` is a seq that has not been applied, and the primary's clock when its log ended there.
pub(crate) struct ReplicaSession {
    numbers: FrameNumbers,
    hello: Option<Bytes>,
    state: State,
    bugs: Bugs,
    incarnation: u64,
    hash_seed: u64,
    primary_last: Seq,
    to_settle: Option<(Seq, u64)>,
    acked: Seq,
    /// What the primary asked for a lease by, to be given back.
    lease: Option<Lease>,
    /// What a write waits for at this node, and what the other one was told of that; whether it wants to know.
    mode: Option<AckMode>,
    told_mode: Option<AckMode>,
    tells_mode: bool,
    refuses_copies: bool,
    wanted: Vec<u64>,
    /// Keys that a roll-back has dropped and the primary may have: asked for bit by bit.
    dropped: Vec<u64>,
    above: Above,
    /// A full copy that is to begin, once what is held has been dropped.
    beginning: Option<InstallBegin>,
    /// A full copy that comes on the bulk channel.
    apart: ApartCopy,
    window_records_max: usize,
    /// Hints that were faster than the log.
    early_hints: VecDeque<Hints>,
    heard_at_ms: u64,
    /// The primary's clock as it was stated last.
    stated_ms: u64,
    ack_due_ms: u64,
}

impl ReplicaSession {
    /// A session that begins with this `Hello`.
    pub(crate) fn new(hello: Hello, bugs: Bugs, now_ms: u64) -> ReplicaSession {
        let mut numbers = FrameNumbers::new(bugs);
        let (incarnation, mode) = (hello.incarnation, hello.ack_mode);
        let above = match hello.cascades {
            true => Above::Node { reigns: false, level: false },
            false => Above::Primary,
        };
        let hello = numbers.encode(&Message::Hello(Box::new(hello)));
        ReplicaSession {
            numbers,
            hello: Some(hello),
            state: State::AwaitingAnswer,
            bugs,
            incarnation,
            hash_seed: 0,
            primary_last: 0,
            to_settle: None,
            acked: 0,
            lease: None,
            mode,
            told_mode: mode,
            tells_mode: false,
            refuses_copies: false,
            wanted: Vec::new(),
            dropped: Vec::new(),
            above,
            beginning: None,
            apart: ApartCopy::default(),
            window_records_max: RECORDS_MAX,
            early_hints: VecDeque::new(),
            heard_at_ms: now_ms,
            stated_ms: 0,
            ack_due_ms: u64::MAX,
        }
    }

    /// One that ends where it would be copied anew.
    pub(crate) fn refusing_copies(self) -> ReplicaSession {
        ReplicaSession { refuses_copies: true, ..self }
    }

    /// One that notes so many records beside a full copy, instead of [`RECORDS_MAX`].
    pub(crate) fn with_window(self, records_max: usize) -> ReplicaSession {
        ReplicaSession { window_records_max: records_max, ..self }
    }

    /// When `poll_frame` must be called although nothing has happened.
    pub(crate) fn deadline_ms(&self) -> u64 {
        self.ack_due_ms.min(self.dead_at_ms())
    }

    /// When the session ends unless the other one is heard of before.
    pub(crate) fn dead_at_ms(&self) -> u64 {
        self.heard_at_ms + DEAD_AFTER_MS
    }

    /// Whether a primary has taken this node.
    pub(crate) fn is_attached(&self) -> bool {
        self.state != State::AwaitingAnswer
    }

    /// Whether a full copy was promised or has begun, and is not complete.
    pub(crate) fn is_installing(&self) -> bool {
        self.state == State::Installing
    }

    /// Whether the next frame of this channel is to be read. Only a frame of another channel changes that.
    pub(crate) fn takes(&self, channel: Channel) -> bool {
        match channel {
            _ if self.is_clearing() => false,
            Channel::Live => self.apart.takes_live(),
            Channel::Bulk => self.apart.takes_bulk(),
            Channel::Hint => self.is_attached(),
        }
    }

    /// Whether this node still holds some of what a full copy is to replace, and [`ReplicaSession::clear_on`] is to be called.
    pub(crate) fn is_clearing(&self) -> bool {
        self.beginning.is_some()
    }

    /// Drops some more of that. No channel is read meanwhile, so nobody is silent.
    pub(crate) fn clear_on(&mut self, store: &mut dyn ReplicaStore, now_ms: u64) -> Result<(), SessionEnd> {
        self.heard_at_ms = now_ms;
        let Some(begin) = self.beginning.take() else { return Ok(()) };
        if !store.clear_some() {
            self.beginning = Some(begin);
            return Ok(());
        }
        store.begin_install(&begin, self.hash_seed)?;
        // Of nothing that it held anything is left to come back: a short copy may be over before a clock is stated again.
        store.set_clock(self.stated_ms);
        Ok(())
    }

    /// Takes a frame from the primary, of a channel that is to be read.
    pub(crate) fn handle_frame(
        &mut self,
        channel: Channel,
        frame: &Bytes,
        store: &mut dyn ReplicaStore,
        now_ms: u64,
    ) -> Result<(), SessionEnd> {
        if !self.takes(channel) {
            return Err(SessionEnd::Unexpected("frame of this channel"));
        }
        let Some(message) = self.numbers.decode_on(channel, frame)? else { return Ok(()) };
        self.heard_at_ms = now_ms;
        match channel {
            Channel::Live => self.handle_live(message, frame, store, now_ms)?,
            Channel::Bulk => self.handle_bulk(message, frame, store, now_ms)?,
            Channel::Hint => self.handle_hint(message, store)?,
        }
        self.go_on(store, now_ms)
    }

    /// Does what has waited for the frame that was just taken.
    fn go_on(&mut self, store: &mut dyn ReplicaStore, now_ms: u64) -> Result<(), SessionEnd> {
        loop {
            if let Some(frame) = self.apart.part_due(store.applied()) {
                let (_, message) = Message::decode(&frame)?;
                self.handle_bulk(message, &frame, store, now_ms)?;
            } else if let Some(frame) = self.apart.records_due() {
                let (_, message) = Message::decode(&frame)?;
                self.handle_live(message, &frame, store, now_ms)?;
            } else {
                break;
            }
        }
        while self.early_hints.front().is_some_and(|hints| hints.at_seq <= store.applied()) {
            if let Some(hints) = self.early_hints.pop_front() {
                self.handle_hints(&hints, store)?;
            }
        }
        Ok(())
    }

    fn handle_live(
        &mut self,
        message: Message<'_>,
        frame: &Bytes,
        store: &mut dyn ReplicaStore,
        now_ms: u64,
    ) -> Result<(), SessionEnd> {
        match (self.state, message) {
            (State::AwaitingAnswer, Message::HelloOk(ok)) => self.handle_answer(&ok, store, now_ms),
            (State::AwaitingAnswer, Message::Reject(reject)) => {
                Err(SessionEnd::Rejected { code: reject.code, primary: reject.primary })
            }
            (_, Message::Fenced(fenced)) => Err(SessionEnd::Fenced(fenced)),
            (_, Message::Bye(bye)) => Err(SessionEnd::Bye(bye.reason)),
            (State::AwaitingAnswer, _) => Err(SessionEnd::Unexpected("frame before an answer")),
            (_, Message::Heartbeat(heartbeat)) => self.handle_heartbeat(&heartbeat, store),
            (_, Message::Relay(relay)) => self.handle_relay(&relay, store),
            (_, Message::InstallBegin(begin)) => self.handle_install_begin(begin, store, now_ms),
            (_, Message::Lease(lease)) => {
                store.grant_lease();
                self.lease = Some(lease);
                Ok(())
            }
            (_, Message::Mode(mode)) => {
                self.tells_mode = true;
                store.mode_told(mode.into());
                Ok(())
            }
            (_, Message::LoadAnswer(answer)) => {
                store.load_answered(answer);
                Ok(())
            }
            (_, Message::Append(append)) => self.handle_append(&append, frame, store),
            (_, Message::Lineage(entry)) => self.handle_branch(entry, store),
            (_, Message::Chunk(chunk)) => self.handle_chunk(&chunk, store),
            (State::Installing, Message::Ghosts(ghosts)) => store.apply_ghosts(&ghosts),
            (State::Installing, Message::Apart(apart)) => {
                self.apart.begin(apart, Window::new(store.applied(), self.window_records_max, self.bugs))
            }
            (State::Installing, Message::InstallEnd(end))
                if end.seq == store.applied() && !self.apart.is_under_way() =>
            {
                self.end_install(store, now_ms);
                Ok(())
            }
            (State::Streaming, Message::Handover(handover)) if handover.seq == store.applied() => {
                Err(SessionEnd::HandedOver)
            }
            (State::Streaming, Message::Hints(hints)) => self.handle_hints(&hints, store),
            // The primary has sent all of a copy that is still on its way.
            (State::Installing, Message::Hints(_)) if self.apart.is_under_way() => Ok(()),
            _ => Err(SessionEnd::Unexpected("frame from a primary")),
        }
    }

    fn handle_bulk(
        &mut self,
        message: Message<'_>,
        frame: &Bytes,
        store: &mut dyn ReplicaStore,
        now_ms: u64,
    ) -> Result<(), SessionEnd> {
        match message {
            Message::Apart(apart) => self.apart.reach(apart),
            // Of a copy that was given up they do no harm.
            Message::Ghosts(ghosts) => store.apply_ghosts(&ghosts),
            Message::Chunk(chunk) if chunk.kind == ChunkKind::Install => {
                match self.apart.take_chunk(chunk.at_seq, store.applied(), frame)? {
                    PartIs::Due => self.apply_late_chunk(chunk, store),
                    PartIs::Waiting | PartIs::Stale => Ok(()),
                }
            }
            Message::InstallEnd(end) => {
                if self.apart.take_end(end.seq, store.applied(), frame)? == PartIs::Due {
                    self.end_install(store, now_ms);
                }
                Ok(())
            }
            _ => Err(SessionEnd::Unexpected("frame on the bulk channel")),
        }
    }

    /// Hints that a channel of their own has carried: nothing of them is certain.
    fn handle_hint(&mut self, message: Message<'_>, store: &mut dyn ReplicaStore) -> Result<(), SessionEnd> {
        let Message::Hints(hints) = message else {
            return Err(SessionEnd::Unexpected("frame on the hint channel"));
        };
        if self.state != State::Streaming {
            return Ok(());
        }
        if hints.at_seq <= store.applied() {
            return self.handle_hints(&hints, store);
        }
        if self.early_hints.len() == HINTS_HELD_MAX {
            self.early_hints.pop_front();
        }
        self.early_hints.push_back(hints);
        Ok(())
    }

    fn end_install(&mut self, store: &mut dyn ReplicaStore, now_ms: u64) {
        self.apart.end();
        self.state = State::Streaming;
        store.end_install();
        self.update_level(store);
        self.ack_due_ms = now_ms;
    }

    fn handle_answer(
        &mut self,
        ok: &HelloOk,
        store: &mut dyn ReplicaStore,
        now_ms: u64,
    ) -> Result<(), SessionEnd> {
        let theirs = from_wire(ok.lineage.clone())?;
        let seen = store.term_seen();
        if theirs.term() < seen && !self.bugs.has(Bug::LowerTerm) {
            return Err(SessionEnd::StaleTerm);
        }
        let believable = seen == Term::default() || !theirs.term().is_too_far_above(seen);
        if !believable || theirs.newest().is_none() {
            return Err(SessionEnd::Unexpected("term in an answer"));
        }
        match ok.plan {
            Plan::Install if self.refuses_copies || !may_install(store, &theirs) => {
                return Err(SessionEnd::RefusedInstall);
            }
            Plan::Resume if self.bugs.has(Bug::AppendWithoutBranch) => {}
            Plan::Resume if !store.position().is_some_and(|position| theirs.contains(position)) => {
                return Err(SessionEnd::Unexpected("resumption"));
            }
            Plan::RollBack { branch, seq } => {
                self.roll_back(Position { branch: Branch(branch), seq }, &theirs, store)?;
            }
            Plan::Install | Plan::Resume => {}
        }
        self.state = if ok.plan == Plan::Install { State::Installing } else { State::Streaming };
        self.hash_seed = ok.hash_seed;
        self.primary_last = theirs.newest().map_or(0, |entry| entry.last);
        self.ack_due_ms = now_ms;
        store.attached(ok, theirs.term());
        store.learn_peers(&ok.peers);
        self.set_clock(ok.clock_ms, store);
        if self.state == State::Streaming {
            self.update_level(store);
        }
        Ok(())
    }

    /// Before this node says that it follows, and before anybody reads what it holds as a replica's.
    fn roll_back(
        &mut self,
        to: Position,
        theirs: &Lineage,
        store: &mut dyn ReplicaStore,
    ) -> Result<(), SessionEnd> {
        if store.position().is_none() || !theirs.contains(to) || !store.lineage().contains(to) {
            return Err(SessionEnd::Unexpected("roll-back"));
        }
        // What would be dropped is this node's alone: the right to that is the right to replace all.
        if !may_install(store, theirs) {
            return Err(SessionEnd::RefusedInstall);
        }
        self.dropped = store.roll_back(to)?;
        self.want_dropped();
        Ok(())
    }

    /// Asks for some more of what a roll-back has dropped: the primary may have an older or a newer value of it.
    fn want_dropped(&mut self) {
        let room = WANT_MAX - self.wanted.len();
        let kept = self.dropped.len().saturating_sub(room);
        self.wanted.extend(self.dropped.drain(kept..));
    }

    fn handle_heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        store: &mut dyn ReplicaStore,
    ) -> Result<(), SessionEnd> {
        if Term(heartbeat.term) < store.term_seen() && !self.bugs.has(Bug::LowerTerm) {
            return Err(SessionEnd::StaleTerm);
        }
        self.primary_last = heartbeat.last_seq;
        store.learn_peers(&heartbeat.peers);
        self.set_clock(heartbeat.clock_ms, store);
        // The end of a replica's log says nothing of its primary's.
        if matches!(self.above, Above::Primary | Above::Node { reigns: true, .. }) {
            self.note_settled(heartbeat.last_seq, heartbeat.clock_ms, store);
        }
        self.update_level(store);
        self.want_dropped();
        Ok(())
    }

    /// All that the primary did before this moment lies at or before this seq.
    fn note_settled(&mut self, seq: Seq, clock_ms: u64, store: &mut dyn ReplicaStore) {
        // One at a time: were each to take the place of the one before, a replica that lags would never settle any.
        self.to_settle.get_or_insert((seq, clock_ms));
        self.settle(store);
    }

    fn handle_relay(&mut self, relay: &Relay, store: &mut dyn ReplicaStore) -> Result<(), SessionEnd> {
        let Above::Node { .. } = self.above else { return Err(SessionEnd::Unexpected("relay")) };
        store.relayed(relay)?;
        self.above = Above::Node { reigns: relay.path.len() == 1, level: relay.level };
        if relay.settled_ms > 0 {
            self.note_settled(relay.settled_seq, relay.settled_ms, store);
        }
        self.update_level(store);
        Ok(())
    }

    fn handle_install_begin(
        &mut self,
        begin: InstallBegin,
        store: &mut dyn ReplicaStore,
        now_ms: u64,
    ) -> Result<(), SessionEnd> {
        let theirs = from_wire(begin.lineage.clone())?;
        if theirs.term() < store.term_seen() && !self.bugs.has(Bug::LowerTerm) {
            return Err(SessionEnd::StaleTerm);
        }
        if self.refuses_copies || theirs.newest().is_none() || !may_install(store, &theirs) {
            return Err(SessionEnd::RefusedInstall);
        }
        store.set_level(false);
        if store.is_copied_again() {
            return Err(SessionEnd::FellBehind);
        }
        self.state = State::Installing;
        self.wanted.clear();
        self.dropped.clear();
        self.apart.give_up();
        self.early_hints.clear();
        self.beginning = Some(begin);
        self.clear_on(store, now_ms)
    }

    fn set_clock(&mut self, clock_ms: u64, store: &mut dyn ReplicaStore) {
        self.stated_ms = clock_ms;
        store.set_clock(clock_ms);
    }

    fn handle_append(
        &mut self,
        append: &Append<'_>,
        frame: &Bytes,
        store: &mut dyn ReplicaStore,
    ) -> Result<(), SessionEnd> {
        if self.apart.is_under_way() && !self.apart.admits(append.count_records(), frame)? {
            store.log_waits();
            return Ok(());
        }
        // The term and branch must be those of this node's own history, which never falls below `term_seen`
        // except while a resumed replica is led through the branches that it missed.
        let missing = store.apply_append(append)?;
        self.want(missing);
        if let Some(window) = self.apart.window() {
            window.note(append, |key| store.hash(key));
        }
        self.set_clock(append.clock_ms, store);
        self.primary_last = self.primary_last.max(store.applied());
        self.settle(store);
        self.update_level(store);
        Ok(())
    }

    fn handle_branch(&mut self, entry: WireEntry, store: &mut dyn ReplicaStore) -> Result<(), SessionEnd> {
        let lineage = store.lineage();
        let entry = LineageEntry::from(entry);
        let entry = LineageEntry { last: entry.start.saturating_sub(1), ..entry };
        let mut extended = lineage.entries().to_vec();
        extended.push(entry);
        if extended.len() > super::position::LINEAGE_MAX {
            extended.remove(0);
        }
        let follows = Lineage::from_entries(extended).is_some();
        if !follows || entry.term.is_too_far_above(lineage.term()) {
            return Err(SessionEnd::OutOfStep);
        }
        store.follow_branch(entry);
        Ok(())
    }

    fn handle_chunk(&mut self, chunk: &Chunk<'_>, store: &mut dyn ReplicaStore) -> Result<(), SessionEnd> {
        if self.apart.is_under_way() && chunk.kind == ChunkKind::Install {
            return Err(SessionEnd::Unexpected("part of a copy on the live channel"));
        }
        // An item is exact at one seq only: later, what the log said since would be undone.
        if chunk.at_seq != store.applied() && !self.bugs.has(Bug::LateChunk) {
            return Err(SessionEnd::OutOfStep);
        }
        store.apply_chunk(chunk)
    }

    /// Items of a moment that may have passed, without those that the log has changed since.
    fn apply_late_chunk(
        &mut self,
        mut chunk: Chunk<'_>,
        store: &mut dyn ReplicaStore,
    ) -> Result<(), SessionEnd> {
        let Some(window) = self.apart.window() else { return Ok(()) };
        let read = window.sift(&mut chunk, |key| store.hash(key));
        store.apply_chunk(&chunk)?;
        store.apply_hints(&read);
        Ok(())
    }

    fn handle_hints(&mut self, hints: &Hints, store: &mut dyn ReplicaStore) -> Result<(), SessionEnd> {
        if hints.at_seq > store.applied() {
            return Err(SessionEnd::OutOfStep);
        }
        let missing = store.apply_hints(&hints.hashes);
        self.want(missing);
        Ok(())
    }

    /// Asks for items that were read on the primary and are not here. In the middle of an install they may come yet.
    fn want(&mut self, missing: Vec<u64>) {
        if self.state == State::Streaming {
            let room = WANT_MAX - self.wanted.len();
            self.wanted.extend(missing.into_iter().take(room));
        }
    }

    fn settle(&mut self, store: &mut dyn ReplicaStore) {
        if let Some((_, clock_ms)) = self.to_settle.take_if(|(seq, _)| store.applied() >= *seq) {
            store.settle(clock_ms);
        }
    }

    fn update_level(&mut self, store: &mut dyn ReplicaStore) {
        let all_told = self.state == State::Streaming && store.applied() >= self.primary_last;
        store.set_level(all_told && !matches!(self.above, Above::Node { level: false, .. }));
    }

    /// What a write waits for at this node now: the other one is told if it is not what `Hello` said.
    pub(crate) fn set_mode(&mut self, mode: AckMode) {
        self.mode = Some(mode);
    }

    /// The next frame to send, if there is one now.
    pub(crate) fn poll_frame(&mut self, applied: Seq, now_ms: u64) -> Result<Option<Bytes>, SessionEnd> {
        if now_ms >= self.dead_at_ms() {
            return Err(SessionEnd::Silent);
        }
        if let Some(hello) = self.hello.take() {
            return Ok(Some(hello));
        }
        if self.state == State::AwaitingAnswer {
            return Ok(None);
        }
        if let Some(lease) = self.lease.take() {
            return Ok(Some(self.numbers.encode(&Message::Lease(lease))));
        }
        if let Some(mode) = self.mode.filter(|_| self.tells_mode && self.mode != self.told_mode) {
            self.told_mode = Some(mode);
            return Ok(Some(self.numbers.encode(&Message::Mode(mode.into()))));
        }
        if !self.wanted.is_empty() {
            let hashes = std::mem::take(&mut self.wanted);
            return Ok(Some(self.numbers.encode(&Message::Want(Want { hashes }))));
        }
        // In the middle of an install no position is claimed: what was held before is of another history.
        let applied = if self.state == State::Installing { 0 } else { applied };
        if applied != self.acked || now_ms >= self.ack_due_ms {
            self.acked = applied;
            self.ack_due_ms = now_ms + HEARTBEAT_MS;
            let ack = Ack { applied, received: applied, incarnation: self.incarnation };
            return Ok(Some(self.numbers.encode(&Message::Ack(ack))));
        }
        Ok(None)
    }

    /// What this node has to say of a load, once nothing else is to be sent.
    pub(crate) fn encode_load(&mut self, message: &Message<'_>) -> Bytes {
        self.numbers.encode(message)
    }

    /// The last frame of a session that this side ends, if the reason is worth telling.
    pub(crate) fn last_words(&mut self, end: &SessionEnd, fenced: impl FnOnce() -> Fenced) -> Option<Bytes> {
        let message = match end {
            SessionEnd::StaleTerm => Message::Fenced(fenced()),
            SessionEnd::RefusedInstall | SessionEnd::FellBehind => {
                Message::Bye(Bye { reason: ByeReason::RefusedInstall })
            }
            SessionEnd::OutOfStep => Message::Bye(Bye { reason: ByeReason::OutOfStep }),
            _ => return None,
        };
        Some(self.numbers.encode(&message))
    }
}

/// Whether a full copy from a node with this history may replace what this node holds: it holds nothing (a history in
/// which nothing was written has items only where they come from an image, or from part of a copy), or the other has all of
/// it, or the other reigns by a promotion under a newer term. So a primary that forgot everything never wipes its
/// replicas (P10).
fn may_install(store: &dyn ReplicaStore, theirs: &Lineage) -> bool {
    let Some(position) = store.position() else { return true };
    let promoted_above =
        theirs.newest().is_some_and(|newest| newest.promoted && newest.term > store.lineage().term());
    theirs.contains(position) || promoted_above || (store.lineage().is_unwritten() && !store.holds_items())
}
