//! Telling peers who reigns: a promoted node dials every peer it knows until each has answered, and again those that don't
//! follow it.

use crate::replication::Role;
use crate::replication::hello::Purpose;
use crate::replication::message::{Fenced, Message, RejectCode, from_wire};
use crate::replication::position::Term;
use crate::replication::session::FrameNumbers;

use super::peer::{HELLO_TIMEOUT_MS, Peer, Received};
use super::{Turn, heed_fence};

const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 1_000;

/// How often a primary says again that it reigns to who has answered and is not attached. That one may lose its memory and come
/// up as a primary that knows nobody, and no link ends by which this one would notice. Well below the time for which such a
/// primary yields.
const REMINDER_MS: u64 = 1_000;

#[derive(Default)]
pub(crate) struct Announcer {
    calls: Vec<Call>,
    epoch: u64,
}

/// One peer that has to hear of something, and answers once.
pub(crate) struct Call {
    address: String,
    link: Option<(Peer, FrameNumbers)>,
    said: bool,
    /// When to give up this try, or to begin the next one.
    deadline_ms: u64,
    pause_ms: u64,
    failures: u32,
}

/// What came of a call so far.
pub(crate) enum Answer {
    Heard,
    None,
    Failed,
}

impl Announcer {
    pub(crate) fn deadline_ms(&self) -> u64 {
        self.calls.iter().map(Call::deadline_ms).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn turn(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let (role, epoch, unanswered) = {
            let roles = turn.group.roles.lock();
            self.calls.retain(|call| roles.is_to_hear(&call.address));
            (roles.role(), roles.epoch, roles.to_tell())
        };
        if epoch != self.epoch || role != Role::Primary {
            self.calls.clear();
            self.epoch = epoch;
        }
        if role != Role::Primary {
            return false;
        }
        for address in unanswered {
            if !self.calls.iter().any(|call| call.address == address) {
                let deadline_ms = turn.now.local_ms;
                self.calls.push(Call::new(address, deadline_ms));
            }
        }
        let mut heard = Vec::new();
        for call in &mut self.calls {
            match call.turn(turn, |turn| introduction(turn, Purpose::Announce), hear) {
                Answer::Heard => {
                    heard.push(call.address.clone());
                    // Dropped in the next turn in which it is attached.
                    *call = Call::new(call.address.clone(), turn.now.local_ms + REMINDER_MS);
                }
                Answer::None => {}
                Answer::Failed => call.try_later(turn.now.local_ms),
            }
        }
        let progressed = !heard.is_empty();
        let mut roles = turn.group.roles.lock();
        heard.iter().for_each(|address| roles.has_heard_of_reign(address));
        progressed
    }
}

impl Call {
    /// A call to be made at this moment.
    pub(crate) fn new(address: String, at_ms: u64) -> Call {
        Call { address, link: None, said: false, deadline_ms: at_ms, pause_ms: 0, failures: 0 }
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Tries that came to nothing.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn try_later(&mut self, now_ms: u64) {
        self.link = None;
        self.failures = self.failures.saturating_add(1);
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        self.deadline_ms = now_ms + self.pause_ms;
    }

    /// Says what it has to say, and hears the answer.
    pub(crate) fn turn<'c>(
        &mut self,
        turn: &mut Turn<'_, 'c>,
        say: impl FnOnce(&Turn<'_, 'c>) -> Message<'static>,
        hear: impl FnOnce(&mut Turn<'_, 'c>, &str, &Message<'_>, bool) -> Answer,
    ) -> Answer {
        if self.link.is_none() {
            if turn.now.local_ms < self.deadline_ms {
                return Answer::None;
            }
            let Ok(link) = turn.transport.dial(&self.address) else { return Answer::Failed };
            self.link = Some((Peer::new(link), FrameNumbers::default()));
            self.said = false;
            self.deadline_ms = turn.now.local_ms + HELLO_TIMEOUT_MS;
        }
        let Some((peer, numbers)) = &mut self.link else { return Answer::Failed };
        if !self.said {
            match peer.is_ready(turn.cx) {
                Ok(false) => return self.still_waiting(turn),
                Err(_) => return Answer::Failed,
                Ok(true) => {}
            }
            let hello = say(turn);
            if peer.send(numbers.encode(&hello)).is_err() {
                return Answer::Failed;
            }
            self.said = true;
        }
        if peer.flush(turn.cx).is_err() {
            return Answer::Failed;
        }
        match peer.receive(turn.cx) {
            Received::Nothing => self.still_waiting(turn),
            Received::Ended(_) => Answer::Failed,
            Received::Frame(frame) => match numbers.decode(&frame) {
                Ok(message) => {
                    let proven = peer.identity().proven;
                    hear(turn, &self.address, &message, proven)
                }
                Err(_) => Answer::Failed,
            },
        }
    }

    fn still_waiting(&self, turn: &Turn<'_, '_>) -> Answer {
        if turn.now.local_ms >= self.deadline_ms { Answer::Failed } else { Answer::None }
    }
}

/// This node's first frame, for whoever answers once.
pub(crate) fn introduction(turn: &Turn<'_, '_>, purpose: Purpose) -> Message<'static> {
    let lineage = turn.group.log.lock().lineage().clone();
    let position = lineage.position();
    let frame_bytes_max = turn.group.config.frame_bytes_max;
    let roles = turn.group.roles.lock();
    let hello = roles.hello(purpose, &lineage, position, frame_bytes_max, turn.now.group_ms);
    Message::Hello(Box::new(hello))
}

/// What the answer to an announcement says of the peer: that it reigns by a newer term which can't be believed, or what it
/// held when it heard.
fn note_answer(turn: &Turn<'_, '_>, address: &str, fenced: &Fenced) {
    let mut roles = turn.group.roles.lock();
    if roles.role() != Role::Primary {
        return;
    }
    if Term(fenced.term) > roles.term_seen {
        if roles.noticed.rival(address, Term(fenced.term)) {
            tracing::error!(
                peer = address,
                term = fenced.term,
                "it knows a newer term, and proves no common history"
            );
        }
        return;
    }
    roles.noticed.no_rival(address);
    if let Ok(theirs) = from_wire(fenced.lineage.clone()) {
        roles.noticed.history(address, turn.group.log.lock().lineage(), &theirs);
    }
}

fn hear(turn: &mut Turn<'_, '_>, address: &str, message: &Message<'_>, proven: bool) -> Answer {
    match message {
        Message::Fenced(fenced) => {
            let ours = turn.group.roles.lock().term_seen;
            if Term(fenced.term) > ours {
                heed_fence(turn, fenced, proven);
            }
            note_answer(turn, address, fenced);
            Answer::Heard
        }
        Message::Reject(reject) if reject.code == RejectCode::SameNode => {
            turn.group.roles.lock().met_itself_at(address);
            Answer::Heard
        }
        Message::Reject(reject) => {
            turn.group.roles.lock().note_reject(address, reject.code);
            Answer::Failed
        }
        _ => Answer::Failed,
    }
}
