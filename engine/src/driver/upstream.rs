//! The primary that this node follows, or looks for.
//!
//! A follower asks the node that it was named, then every peer it knows, until one is primary. A pause between
//! rounds grows from 50 ms to 1 s; after three full copies that failed it is a quarantine's.

use std::collections::BTreeMap;

use crate::replication::bug::Bug;
use crate::replication::hello::Purpose;
use crate::replication::message::{ByeReason, RejectCode};
use crate::replication::position::Branch;
use crate::replication::replica::ReplicaSession;
use crate::replication::session::SessionEnd;
use crate::replication::transport::Channel;
use crate::replication::{LinkState, Warning, hello::Hello};

use super::announce::{Answer, Call, introduction};
use super::peer::{FRAMES_PER_TURN_MAX, Peer, Received};
use super::store::CacheStore;
use super::{Turn, fenced_notice, heed_fence};

const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 1_000;

/// For how long at most a replica's replica visits the primary to be counted, and how long it waits for the next visit.
const VISIT_MS: u64 = 10_000;

/// Of how many nodes it is kept what the log was told.
const TOLD_MAX: usize = 32;

#[derive(Default)]
pub(crate) struct Upstream {
    attached: Option<Attached>,
    /// Whom to ask in this round, the next one last.
    round: Vec<String>,
    /// Who was asked in it: nodes that name each other as the primary are not asked in turn without a pause.
    asked: Vec<String>,
    /// What the log was last told of each node that did not serve this one.
    told: BTreeMap<String, String>,
    next_dial_ms: u64,
    pause_ms: u64,
    epoch: u64,
    clock_set_at_ms: Option<u64>,
    /// It follows the primary itself, to be counted; or is to, from `visit_ends_ms` on.
    visits: bool,
    visit_ends_ms: u64,
    /// This node follows nobody for now, as it asks whether it may be promoted: nothing is due.
    rests: bool,
    /// The primary is asked whether it answers, before this node leaves its parent to visit it.
    knock: Option<Call>,
}

/// What came of reading a channel.
#[derive(PartialEq, Eq)]
enum Taken {
    Frame,
    Nothing,
    /// This node has another role by now, and the session is over.
    Overruled,
}

/// A node that this one is served by.
pub(crate) struct Attached {
    peer: Peer,
    session: ReplicaSession,
    address: String,
    /// It is no primary: this node gets what it lacks, and then reigns itself.
    is_for_promotion: bool,
    /// Whether its link has taken a frame.
    connected: bool,
    /// Its link took nothing when something was last to be sent, and wakes the task when it does.
    is_stuck: bool,
}

impl Upstream {
    pub(crate) fn deadline_ms(&self) -> u64 {
        match &self.attached {
            _ if self.rests => u64::MAX,
            Some(attached) => {
                let knock_ms = self.knock.as_ref().map_or(u64::MAX, Call::deadline_ms);
                attached.deadline_ms().min(knock_ms)
            }
            None => self.next_dial_ms,
        }
    }

    pub(crate) fn turn(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let (epoch, follows) = {
            let roles = turn.group.roles.lock();
            (roles.epoch, roles.is_follower() && !roles.has_promised_itself())
        };
        if epoch != self.epoch {
            if self.attached.is_some() {
                turn.group.desk.link_ended(turn.now.local_ms);
            }
            *self = Upstream { epoch, clock_set_at_ms: self.clock_set_at_ms, ..Upstream::default() };
        }
        self.rests = !follows;
        if !follows {
            self.next_dial_ms = u64::MAX;
            return false;
        }
        if self.attached.is_none() && self.next_dial_ms == u64::MAX {
            // It had promised itself to nobody else, and was not promoted.
            self.next_dial_ms = turn.now.local_ms;
        }
        if self.attached.is_none() && turn.now.local_ms >= self.next_dial_ms {
            self.dial(turn);
        }
        let Some(attached) = &mut self.attached else { return false };
        match attached.turn(turn, self.epoch, &mut self.clock_set_at_ms) {
            Ok(progressed) => {
                if attached.session.is_attached() {
                    self.pause_ms = 0;
                    self.told.clear();
                    turn.group.roles.lock().cascade.found(&attached.address);
                    return self.visit(turn) || progressed;
                }
                progressed
            }
            Err(end) => {
                self.end(turn, end);
                true
            }
        }
    }

    fn dial(&mut self, turn: &mut Turn<'_, '_>) {
        if self.round.is_empty() {
            self.begin_round(turn);
        }
        let Some(address) = self.round.pop() else {
            // Nobody is known yet: somebody must dial this node or an operator name one.
            self.next_dial_ms = turn.now.local_ms + PAUSE_MAX_MS;
            turn.cache.inner.reign_on(turn.group);
            return;
        };
        self.asked.push(address.clone());
        match turn.transport.dial(&address) {
            Ok(link) => {
                let hello = hello(turn, Purpose::Follow);
                let cascades = turn.group.roles.lock().cascade.is_parent(&address);
                let hello = Hello { cascades, ..hello };
                let session = ReplicaSession::new(hello, turn.group.config.bugs, turn.now.local_ms)
                    .with_window(turn.group.config.window_records_max);
                self.attached = Some(Attached::new(Peer::new(link), session, address, false));
            }
            Err(error) => {
                self.note(turn, &address, &error.to_string());
                self.schedule(turn);
            }
        }
    }

    /// Begins or ends a visit of the primary, if it is time; whether it was.
    fn visit(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let is_over = turn.now.local_ms >= self.visit_ends_ms;
        let (primary, has_to, epoch) = {
            let roles = turn.group.roles.lock();
            (roles.primary_to_visit().map(str::to_owned), roles.has_to_visit(), roles.epoch)
        };
        if primary.is_none() {
            self.knock = None;
        }
        let round = match primary {
            Some(primary) if is_over && self.is_answered(turn, &primary) => vec![primary],
            None if self.visits && (is_over || !has_to) => Vec::new(),
            _ => return false,
        };
        self.knock = None;
        let mut roles = turn.group.roles.lock();
        if roles.epoch != epoch {
            return false;
        }
        roles.link = LinkState::Connecting;
        if has_to && round.is_empty() {
            roles.visited_in_vain();
        }
        drop(roles);
        self.visits = !round.is_empty();
        // One that did what it was for needs no pause before the next, which has another reason.
        self.visit_ends_ms = turn.now.local_ms + if has_to { VISIT_MS } else { 0 };
        (self.round, self.attached, self.next_dial_ms) = (round, None, turn.now.local_ms);
        turn.group.desk.link_ended(turn.now.local_ms);
        true
    }

    /// Whether the primary answers now, whatever it says: one that hangs must not keep this node from its parent.
    fn is_answered(&mut self, turn: &mut Turn<'_, '_>, primary: &str) -> bool {
        let known = self.knock.take().filter(|knock| knock.address() == primary);
        let mut knock = known.unwrap_or_else(|| Call::new(primary.to_owned(), turn.now.local_ms));
        match knock.turn(turn, |turn| introduction(turn, Purpose::Ask), |_, _, _, _| Answer::Heard) {
            Answer::Heard => return true,
            Answer::None => self.knock = Some(knock),
            Answer::Failed => self.visit_ends_ms = turn.now.local_ms + VISIT_MS,
        }
        false
    }

    fn begin_round(&mut self, turn: &Turn<'_, '_>) {
        self.visits = false;
        let mut roles = turn.group.roles.lock();
        let is_first = !self.asked.is_empty() && !std::mem::replace(&mut roles.noticed.nobody_reigns, true);
        if is_first {
            let nobody = |warning: &Warning| matches!(warning, Warning::NobodyReigns { .. });
            roles.warnings().into_iter().find(nobody).iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        roles.cascade.look_for_parent(turn.now.local_ms);
        let mut named: Vec<String> = roles.cascade.parent().map(str::to_owned).into_iter().collect();
        if !roles.cascade.waits_for_parent(turn.now.local_ms) {
            let others = roles.upstream_address().into_iter().chain(roles.peers().iter().cloned());
            for address in others {
                if !named.contains(&address) {
                    named.push(address);
                }
            }
        }
        named.reverse();
        self.round = named;
        self.asked.clear();
    }

    /// Ends the session and plans the next try.
    fn end(&mut self, turn: &mut Turn<'_, '_>, end: SessionEnd) {
        let Some(mut attached) = self.attached.take() else { return };
        self.knock = None;
        turn.group.desk.link_ended(turn.now.local_ms);
        let was_attached = attached.session.is_attached();
        if let Some(frame) = attached.session.last_words(&end, || fenced_notice(turn.group)) {
            attached.peer.say_last(frame, turn.cx);
        }
        if may_have_met_a_primary(&end) {
            turn.group.roles.lock().forgo_claim();
        }
        if end == SessionEnd::HandedOver {
            tracing::info!(primary = attached.address, "the primary hands over to this node");
            if let Err(why) = turn.cache.take_over() {
                self.note(turn, &attached.address, &why.to_string());
            }
        } else if has_yielded(turn, &attached.address, &end) {
            self.note(turn, &attached.address, "it came up with nothing, and serves nothing");
        } else if !self.moves_on(turn, &end) {
            self.note(turn, &attached.address, &end.describe());
        }
        match &end {
            SessionEnd::Fenced(fenced) => heed_fence(turn, fenced, attached.peer.identity().proven),
            SessionEnd::RefusedInstall => {
                let proven = attached.peer.identity().proven;
                turn.group.roles.lock().noticed.refuses_copy_of(&attached.address, proven);
            }
            SessionEnd::Rejected { code, primary } => self.rejected(turn, &attached.address, *code, primary),
            _ => {}
        }
        if turn.group.config.bugs.has(Bug::UnfinishedInstall) && attached.session.is_installing() {
            turn.group.roles.lock().set_installing(false);
        }
        if has_answered(&end) {
            turn.group.roles.lock().has_heard(&attached.address);
        }
        let quarantine_ms = self.judge_copy(turn, &attached, &end);
        let mut roles = turn.group.roles.lock();
        if roles.is_follower() {
            roles.link = LinkState::Connecting;
        }
        drop(roles);
        if was_attached {
            // The one it was is asked first, at once: most cuts are short.
            self.round.clear();
            self.asked.clear();
        }
        self.schedule(turn);
        // Where a copy was refused, others may be asked yet.
        if let Some(pause_ms) = quarantine_ms.filter(|_| self.round.is_empty()) {
            self.next_dial_ms = turn.now.local_ms + pause_ms;
        }
    }

    /// Counts a full copy that has failed; how long to wait before the next one, if that is longer than usual.
    fn judge_copy(&self, turn: &Turn<'_, '_>, attached: &Attached, end: &SessionEnd) -> Option<u64> {
        let failed = match end {
            SessionEnd::RefusedInstall | SessionEnd::FellBehind | SessionEnd::Bye(ByeReason::Overtaken) => {
                true
            }
            SessionEnd::Fenced(_) | SessionEnd::HandedOver => false,
            _ => attached.session.is_installing(),
        };
        if !failed {
            return None;
        }
        let (pause_ms, failures) = {
            let mut roles = turn.group.roles.lock();
            (roles.copy_failed()?, roles.copy_failures())
        };
        tracing::error!(
            primary = attached.address,
            failures,
            pause_ms,
            why = end.describe(),
            "quarantine: full copies fail one after the other; the next is tried after a pause, or when this node is told whom to follow"
        );
        Some(pause_ms)
    }

    fn rejected(&mut self, turn: &mut Turn<'_, '_>, address: &str, code: RejectCode, primary: &str) {
        let mut roles = turn.group.roles.lock();
        let waits_for_parent = roles.cascade.waits_for_parent(turn.now.local_ms);
        match code {
            RejectCode::SameNode => roles.met_itself_at(address),
            RejectCode::NotPrimary => roles.noticed.reigns_no_longer(address),
            _ => {}
        }
        match code {
            RejectCode::SameNode => {}
            RejectCode::NotPrimary if !primary.is_empty() && roles.own_address() != Some(primary) => {
                roles.learn_peer(primary);
                let is_due = self.round.iter().chain(&self.asked).any(|peer| peer == primary);
                if !waits_for_parent && !is_due {
                    self.round.push(primary.to_owned());
                }
            }
            RejectCode::NotPrimary | RejectCode::Unattached | RejectCode::Behind => {}
            RejectCode::DuplicateSlot if roles.move_to_next_slot() => {
                tracing::info!(slot = roles.slot, "the default slot is taken; trying the next");
                self.round.push(address.to_owned());
            }
            code => {
                roles.note_reject(address, code);
            }
        }
    }

    /// Whether it is refused for its slot alone, and tries again with another.
    fn moves_on(&self, turn: &Turn<'_, '_>, end: &SessionEnd) -> bool {
        let is_slot = matches!(end, SessionEnd::Rejected { code: RejectCode::DuplicateSlot, .. });
        is_slot && turn.group.roles.lock().may_move()
    }

    /// Tells why a node does not serve this one: the status at once, the log when it is another reason than the last one there.
    fn note(&mut self, turn: &Turn<'_, '_>, address: &str, why: &str) {
        turn.group.roles.lock().last_error = Some(format!("{address}: {why}"));
        if self.told.get(address).is_some_and(|told| told == why) {
            return;
        }
        tracing::warn!(peer = address, why, "not attached");
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(address.to_owned(), why.to_owned());
    }

    fn schedule(&mut self, turn: &Turn<'_, '_>) {
        let now_ms = turn.now.local_ms;
        if !self.round.is_empty() {
            self.next_dial_ms = now_ms + PAUSE_MIN_MS / 5;
            return;
        }
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        self.next_dial_ms = now_ms + self.pause_ms;
        // Everybody was asked once.
        turn.cache.inner.reign_on(turn.group);
    }
}

/// This node's first frame to one that is to serve it.
pub(crate) fn hello(turn: &Turn<'_, '_>, purpose: Purpose) -> Hello {
    let (lineage, undo_floor) = {
        let log = turn.group.log.lock();
        (log.lineage().clone(), log.undo_floor())
    };
    let position = lineage.position();
    let frame_bytes_max = turn.group.config.frame_bytes_max;
    let roles = turn.group.roles.lock();
    let hello = roles.hello(purpose, &lineage, position, frame_bytes_max, turn.now.group_ms);
    let takes_apart = turn.group.config.takes_copies_apart;
    Hello { undo_floor: hello.position.map(|_| undo_floor), takes_apart, ..hello }
}

/// Whether the primary, which began anew, has stepped down since it came up with nothing. A node that was copied from it then
/// knows that it holds none of the group's items either; one of another history holds them.
fn has_yielded(turn: &Turn<'_, '_>, address: &str, end: &SessionEnd) -> bool {
    let SessionEnd::Fenced(fenced) = end else { return false };
    let Some(only) = fenced.reign_given_up() else { return false };
    let is_shared = turn.group.log.lock().lineage().find(Branch(only.branch)).is_some();
    let mut roles = turn.group.roles.lock();
    match is_shared {
        true => roles.doubt_items(),
        false => roles.noticed.forgot = Some(address.to_owned()),
    }
    true
}

/// Whether somebody has answered there at all.
fn has_answered(end: &SessionEnd) -> bool {
    !matches!(end, SessionEnd::Link(_) | SessionEnd::Silent | SessionEnd::NotConnected)
}

/// Whether the node that was asked may reign, or know who does: all but one that can't be reached, or says that it does not.
fn may_have_met_a_primary(end: &SessionEnd) -> bool {
    use RejectCode::{NotPrimary, SameNode, WrongGroup};
    match end {
        SessionEnd::Link(_) | SessionEnd::Silent | SessionEnd::NotConnected => false,
        SessionEnd::Rejected { code, .. } => !matches!(code, NotPrimary | SameNode | WrongGroup),
        _ => true,
    }
}

impl Attached {
    pub(crate) fn new(
        peer: Peer,
        session: ReplicaSession,
        address: String,
        is_for_promotion: bool,
    ) -> Attached {
        Attached { peer, session, address, is_for_promotion, connected: false, is_stuck: false }
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        // What is due can't be said before the link takes it; only silence ends it meanwhile.
        if self.is_stuck { self.session.dead_at_ms() } else { self.session.deadline_ms() }
    }

    pub(crate) fn turn(
        &mut self,
        turn: &mut Turn<'_, '_>,
        epoch: u64,
        clock_set_at_ms: &mut Option<u64>,
    ) -> Result<bool, SessionEnd> {
        if self.session.is_clearing() {
            let cleared = self.with_store(turn, epoch, clock_set_at_ms, |session, store, now_ms| {
                session.clear_on(store, now_ms)
            })?;
            if cleared != Taken::Overruled {
                self.transmit(turn)?;
            }
            return Ok(true);
        }
        let mut taken = 0;
        while taken < FRAMES_PER_TURN_MAX {
            let before = taken;
            // One of each in turn, so that none holds up another.
            for channel in Channel::ALL {
                match self.take(channel, turn, epoch, clock_set_at_ms)? {
                    Taken::Frame => taken += 1,
                    Taken::Nothing => {}
                    Taken::Overruled => return Ok(true),
                }
            }
            if taken == before {
                break;
            }
        }
        Ok(self.transmit(turn)? || taken > 0)
    }

    /// Takes the next frame of a channel, if the session wants one and there is one.
    fn take(
        &mut self,
        channel: Channel,
        turn: &mut Turn<'_, '_>,
        epoch: u64,
        clock_set_at_ms: &mut Option<u64>,
    ) -> Result<Taken, SessionEnd> {
        if !self.session.takes(channel) {
            return Ok(Taken::Nothing);
        }
        let frame = match self.peer.receive_on(channel, turn.cx) {
            Received::Frame(frame) => frame,
            Received::Nothing => return Ok(Taken::Nothing),
            Received::Ended(why) => {
                let why = why.map_or_else(|| "it closed the link".to_owned(), |error| error.to_string());
                return Err(SessionEnd::Link(why));
            }
        };
        self.with_store(turn, epoch, clock_set_at_ms, |session, store, now_ms| {
            session.handle_frame(channel, &frame, store, now_ms)
        })
    }

    /// Runs what changes the cache.
    fn with_store(
        &mut self,
        turn: &Turn<'_, '_>,
        epoch: u64,
        clock_set_at_ms: &mut Option<u64>,
        run: impl FnOnce(&mut ReplicaSession, &mut CacheStore<'_>, u64) -> Result<(), SessionEnd>,
    ) -> Result<Taken, SessionEnd> {
        // The gate, and under it the epoch once more: a promotion meanwhile must not be written over.
        let _gate = turn.group.gate.lock();
        if turn.group.roles.lock().epoch != epoch {
            return Ok(Taken::Overruled);
        }
        let mut store = CacheStore {
            inner: &turn.cache.inner,
            group: turn.group,
            address: &self.address,
            is_for_promotion: self.is_for_promotion,
            clock_set_at_ms,
        };
        run(&mut self.session, &mut store, turn.now.local_ms)?;
        Ok(Taken::Frame)
    }

    fn transmit(&mut self, turn: &mut Turn<'_, '_>) -> Result<bool, SessionEnd> {
        let link_error =
            |error: crate::replication::transport::LinkError| SessionEnd::Link(error.to_string());
        let mut sent = false;
        loop {
            self.is_stuck = !self.peer.is_ready(turn.cx).map_err(link_error)?;
            if self.is_stuck {
                // Not connected yet, or pushed back: that alone is no reason to give it up, only its silence.
                if self.session.dead_at_ms() <= turn.now.local_ms {
                    return Err(if self.connected { SessionEnd::Silent } else { SessionEnd::NotConnected });
                }
                break;
            }
            self.connected = true;
            let applied = turn.group.log.lock().last_seq();
            self.session.set_mode(turn.group.roles.lock().ack_mode());
            let frame = match self.session.poll_frame(applied, turn.now.local_ms)? {
                Some(frame) => Some(frame),
                None if self.is_for_promotion => None,
                None => turn.group.desk.next_message(|message| self.session.encode_load(message)),
            };
            let Some(frame) = frame else { break };
            self.peer.send(frame).map_err(link_error)?;
            sent = true;
        }
        self.peer.flush(turn.cx).map_err(link_error)?;
        Ok(sent)
    }
}
