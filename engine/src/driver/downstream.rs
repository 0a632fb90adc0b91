//! A replica that this node, a primary or a replica itself, ships to.

use std::sync::atomic::Ordering;

use crate::cache::{Group, InstallReader, Lent};
use crate::mutation::Version;
use crate::replication::cascade;
use crate::replication::hello::{Hello, Purpose};
use crate::replication::loads::LoadRequest;
use crate::replication::message::{ByeReason, LoadAnswer, Message, Relay};
use crate::replication::position::Seq;
use crate::replication::primary::{Now, PrimarySession};
use crate::replication::risk::LogEnd;
use crate::replication::session::SessionEnd;
use crate::replication::transport::Channel;
use crate::replication::{LinkState, ReplicaStatus, Role};

use super::peer::{FRAMES_PER_TURN_MAX, Peer, Received};
use super::{Turn, heed_fence, parting_notice};

pub(crate) struct Downstream {
    peer: Peer,
    session: PrimarySession,
    reader: InstallReader,
    /// The epoch of the reign that took it.
    epoch: u64,
    /// The history that it is sent, by its number.
    history: u64,
    /// This node is no primary: it helps one that is to be promoted.
    helps: bool,
    /// It held nothing when it attached.
    came_with_nothing: bool,
    /// Its link took nothing on the live channel when something was last to be sent there, and wakes the task when it does.
    is_stuck: bool,
}

pub(crate) enum Outcome {
    /// Whether frames came or went, and whether there is more to do at once.
    Goes {
        progressed: bool,
        has_more: bool,
    },
    Ended,
}

impl Downstream {
    pub(crate) fn new(
        peer: Peer,
        session: PrimarySession,
        reader: InstallReader,
        epoch: u64,
        history: u64,
        hello: &Hello,
    ) -> Downstream {
        let (helps, came_with_nothing) = (hello.purpose == Purpose::CatchUp, hello.position.is_none());
        Downstream { peer, session, reader, epoch, history, helps, came_with_nothing, is_stuck: false }
    }

    pub(crate) fn slot(&self) -> u8 {
        self.session.slot
    }

    pub(crate) fn queue_hints(&mut self, at_seq: Seq, hashes: &[u64]) {
        self.session.queue_hints(at_seq, hashes);
    }

    pub(crate) fn is_behind(&self, end: Seq) -> bool {
        self.session.cursor().position.seq < end
    }

    /// Whether the link takes a frame now; if not, it wakes the task when it does.
    pub(crate) fn can_send(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        !matches!(self.peer.is_ready(cx), Ok(false))
    }

    pub(crate) fn has_applied(&self, end: Seq) -> bool {
        self.session.applied() >= end && self.session.state() == LinkState::Streaming
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        // What is due can't be said before the link takes it; only silence ends it meanwhile.
        if self.is_stuck { self.session.dead_at_ms() } else { self.session.deadline_ms() }
    }

    pub(crate) fn session(&self) -> &PrimarySession {
        &self.session
    }

    pub(crate) fn session_mut(&mut self) -> &mut PrimarySession {
        &mut self.session
    }

    pub(crate) fn is_of_reign(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    pub(crate) fn note_end(&mut self, end: LogEnd) {
        self.session.note_end(end);
    }

    pub(crate) fn status(&self, end: Seq, now: Now) -> ReplicaStatus {
        let named = &self.session.address;
        ReplicaStatus {
            node: self.session.node,
            address: if named.is_empty() { self.peer.identity().address.clone() } else { named.clone() },
            state: self.session.state(),
            applied_seq: self.session.applied(),
            lag_seqs: self.session.lag_seqs(end),
            lag_bytes: self.session.risk().lag_bytes(),
            lag_ms: self.session.risk().lag_ms(now.local_ms),
            ack_mode: self.session.mode(),
            counts: self.session.counts(),
        }
    }

    /// Where it listens for replication; `None` if it did not say.
    pub(crate) fn address(&self) -> Option<&str> {
        Some(&*self.session.address).filter(|address| !address.is_empty())
    }

    /// Tells it to take over, if the link takes that now.
    pub(crate) fn say_handover(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        if !matches!(self.peer.is_ready(cx), Ok(true)) {
            return false;
        }
        let frame = self.session.handover();
        self.peer.send(frame).is_ok() && self.peer.flush(cx).is_ok()
    }

    pub(crate) fn say_goodbye(&mut self, cx: &mut std::task::Context<'_>) {
        let bye = self.session.bye(ByeReason::ShuttingDown);
        self.peer.say_last(bye, cx);
    }

    /// `history` is the number of the history that this node holds: what it shipped ends when it rolls back or is copied anew.
    pub(crate) fn turn(&mut self, turn: &mut Turn<'_, '_>, role: Role, history: u64, epoch: u64) -> Outcome {
        // Who follows somebody again helps nobody: what it serves from may be rolled back or copied over.
        let stands_still = turn.group.roles.lock().link == LinkState::Connecting;
        let ships = match role {
            Role::Primary => !self.helps,
            Role::Replica => !self.helps || stands_still,
            Role::Fenced | Role::Standalone => self.helps && stands_still,
        };
        if !ships || self.history != history || self.epoch != epoch {
            let notice = parting_notice(turn.group);
            let frame = self.session.numbers_mut().encode(&Message::Fenced(notice));
            self.peer.say_last(frame, turn.cx);
            return Outcome::Ended;
        }
        self.session.set_mode(turn.group.roles.lock().ack_mode());
        if self.session.wants_relay() {
            self.session.set_relay(standing(turn.group));
        }
        let before = self.session.state();
        let outcome = self.receive(turn).and_then(|received| Ok((received, self.transmit(turn)?)));
        if before == LinkState::Installing && self.session.state() == LinkState::Streaming {
            tracing::info!(replica = self.name(), "full copy sent");
        }
        if self.session.state() == LinkState::Streaming {
            turn.group.roles.lock().is_joined(self.came_with_nothing, turn.now.local_ms);
        }
        match outcome {
            Ok((received, sent)) => {
                let is_cut_short = received.max(sent) >= FRAMES_PER_TURN_MAX;
                // A walk that found nothing to send in this turn goes on in the next.
                let has_more = is_cut_short || self.has_walk_to_go_on(turn);
                Outcome::Goes { progressed: received + sent > 0, has_more }
            }
            Err(end) => {
                self.end(turn, &end);
                Outcome::Ended
            }
        }
    }

    fn name(&self) -> &str {
        if self.session.address.is_empty() { &self.peer.identity().address } else { &self.session.address }
    }

    /// How many frames came.
    fn receive(&mut self, turn: &mut Turn<'_, '_>) -> Result<usize, SessionEnd> {
        let mut received = 0;
        while received < FRAMES_PER_TURN_MAX {
            match self.peer.receive(turn.cx) {
                Received::Frame(frame) => {
                    self.session.handle_frame(&frame, turn.now)?;
                    if let Some(request) = self.session.lending.take_request() {
                        self.serve_load(turn, request);
                    }
                    received += 1;
                }
                Received::Nothing => break,
                Received::Ended(why) => return Err(broken(why)),
            }
        }
        Ok(received)
    }

    /// Answers a replica that asks whether it is to load something, or takes what it has loaded.
    fn serve_load(&mut self, turn: &Turn<'_, '_>, request: LoadRequest) {
        let inner = &turn.cache.inner;
        match request {
            LoadRequest::Ask(question) => {
                let lent = inner.lend_load(turn.group, self.session.node, &question);
                if let Lent::Present { version } = lent {
                    self.session.send_again(inner.hasher.hash(&question.key), version.seq());
                }
                self.session.lending.answer(LoadAnswer { id: question.id, verdict: lent.verdict() });
            }
            LoadRequest::Done { lease, key, yielded } => {
                inner.take_load(turn.group, self.session.node, Version(lease), &key, &yielded);
            }
        }
    }

    /// How many frames went.
    fn transmit(&mut self, turn: &mut Turn<'_, '_>) -> Result<usize, SessionEnd> {
        if turn.now.local_ms >= self.session.dead_at_ms() {
            // Also where the link takes no frame.
            return Err(SessionEnd::Silent);
        }
        self.is_stuck = false;
        let peers = turn.group.roles.lock().peers().to_vec();
        let caps = self.peer.caps();
        self.session.set_hint_bytes_max(caps.hint_bytes_max);
        let mut sent = 0;
        while sent < FRAMES_PER_TURN_MAX {
            let before = sent;
            // One of each in turn, so that none holds up another.
            for channel in Channel::ALL.into_iter().filter(|channel| caps.has(*channel)) {
                sent += usize::from(self.send_next(channel, turn, &peers)?);
            }
            if sent == before {
                break;
            }
        }
        self.peer.flush(turn.cx).map_err(|error| broken(Some(error)))?;
        Ok(sent)
    }

    /// Sends what this channel has next; whether there was something that it takes now.
    fn send_next(
        &mut self,
        channel: Channel,
        turn: &mut Turn<'_, '_>,
        peers: &[String],
    ) -> Result<bool, SessionEnd> {
        if !self.peer.is_ready_on(channel, turn.cx).map_err(|error| broken(Some(error)))? {
            self.is_stuck |= channel == Channel::Live;
            return Ok(false);
        }
        let log = &turn.group.log;
        let frame = match channel {
            Channel::Live => self.session.poll_frame(log, &mut self.reader, peers, turn.now)?,
            Channel::Bulk => self.session.poll_bulk(&mut self.reader),
            Channel::Hint => self.session.poll_hint(log, &mut self.reader),
        };
        let Some(frame) = frame else { return Ok(false) };
        if self.session.state() == LinkState::Streaming {
            turn.group.lease.need_one();
        }
        self.peer.send_on(channel, frame).map_err(|error| broken(Some(error)))?;
        Ok(true)
    }

    /// Whether a full copy on a channel of its own waits for its link, which then wakes the task.
    pub(crate) fn copy_waits(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let channel = self.session.copy_channel();
        channel == Channel::Bulk && matches!(self.peer.is_ready_on(channel, cx), Ok(false))
    }

    fn has_walk_to_go_on(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let channel = self.session.walk_channel();
        self.session.has_background_work() && matches!(self.peer.is_ready_on(channel, turn.cx), Ok(true))
    }

    fn end(&mut self, turn: &mut Turn<'_, '_>, end: &SessionEnd) {
        tracing::warn!(replica = self.name(), why = end.describe(), "a replica's link ended");
        // Whatever it was loading, another node may load now.
        turn.cache.inner.end_loads(turn.group, |lease| lease.node == self.session.node);
        match end {
            SessionEnd::Fenced(fenced) => heed_fence(turn, fenced, self.peer.identity().proven),
            SessionEnd::Overtaken => {
                let bye = self.session.bye(ByeReason::Overtaken);
                self.peer.say_last(bye, turn.cx);
            }
            _ => {}
        }
        let mut roles = turn.group.roles.lock();
        roles.tell_again(&self.session.address);
        roles.last_error = Some(format!("{}: {}", self.name(), end.describe()));
    }
}

/// Where this node stands, for a replica that would follow it even as a replica.
fn standing(group: &Group) -> Relay {
    // The moment first: what had settled by then lies before the end that is read after it.
    let settled_ms = group.settled_ms.load(Ordering::Relaxed);
    let seq = group.log.lock().last_seq();
    cascade::relay(&group.roles.lock(), seq, settled_ms)
}

fn broken(why: Option<crate::replication::transport::LinkError>) -> SessionEnd {
    SessionEnd::Link(why.map_or_else(|| "it closed the link".to_owned(), |error| error.to_string()))
}
