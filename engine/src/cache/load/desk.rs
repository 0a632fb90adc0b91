//! What a replica's loads wait for: questions to the primary, and what was loaded on its way there.
//!
//! Lives here: which flights wait for the group, what is to be sent, and that no wait is endless. Not here: what a flight
//! is (see `flight`), who gets a lease (see `sharing`), the link (see `driver::upstream`).
//!
//! ```text
//!   ask ──> unsent ──(the link takes it)──> sent ──(LoadAnswer)──> taken out: load, or watch
//!             ^───────(the link ended)───────┘                      watch ──(its time is over)──> look again
//! ```
//! A leaf lock. All times are this node's own clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Millis;
use crate::mutation::Version;
use crate::replication::LinkState;
use crate::replication::loads::{LOADS_ASKED_MAX, Question, Yield};
use crate::replication::message::{LoadDone, Message};

use super::super::Group;
use super::flight::{Flight, Then};

/// How long the primary may take to answer, in milliseconds: two heartbeats. Then a node loads for itself.
pub(super) const ANSWER_WITHIN_MS: u64 = 500;

/// How long those who wait already go on waiting when the link to the primary ends, in milliseconds, for it or for
/// another primary: until a dead one is noticed, and a second.
const PATIENCE_MS: u64 = 3_000;

/// Bytes of loaded values that wait to be sent to the primary; what is beyond that is not stored.
const DONE_BYTES_MAX: usize = 8 << 20;

/// What a load on its way is charged besides key and value.
const DONE_BYTES: usize = 128;

/// A flight that waits for the group.
struct Waits {
    flight: Arc<Flight>,
    /// `None` if another node is known to load it.
    question: Option<Question>,
    /// Its answer is on its way: whatever becomes of the flight, a lease that it brings has to be given back.
    is_sent: bool,
    until_ms: Millis,
}

impl Waits {
    fn is_needed(&self) -> bool {
        self.is_sent || !self.flight.is_over()
    }
}

/// What a load came to.
struct Done {
    lease: Version,
    key: Box<[u8]>,
    yielded: Yield,
    /// Nobody wants it any more then.
    until_ms: Millis,
}

impl Done {
    fn charge(&self) -> usize {
        DONE_BYTES + self.key.len() + self.yielded.bytes()
    }
}

/// 1. `waiting` has at most [`LOADS_ASKED_MAX`] entries.
/// 2. `unsent` names questions of `waiting`, each once, and none that was sent over the present link.
/// 3. `done_bytes` is what `done` is charged, at most [`DONE_BYTES_MAX`].
#[derive(Default)]
struct State {
    /// The primary may be asked.
    is_open: bool,
    /// This node streams: what others load comes by the log.
    is_streaming: bool,
    /// The largest value that a frame takes.
    value_bytes_max: usize,
    last_id: u64,
    waiting: BTreeMap<u64, Waits>,
    unsent: VecDeque<u64>,
    done: VecDeque<Done>,
    done_bytes: usize,
}

/// Loads that one node does for the group.
#[derive(Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// As a primary: leases given.
    pub(super) lent: AtomicU64,
    /// As a primary: what replicas had loaded and was stored.
    pub(super) taken: AtomicU64,
    /// As a primary: what replicas had loaded and was not stored.
    pub(super) refused: AtomicU64,
}

impl Desk {
    /// One of a node whose frames have so many bytes at most.
    pub(crate) fn new(frame_bytes_max: usize) -> Desk {
        let desk = Desk::default();
        desk.state.lock().value_bytes_max = frame_bytes_max / 2;
        desk
    }

    /// Leases given, loads of replicas stored, and refused, since the start.
    pub(crate) fn counted(&self) -> [u64; 3] {
        [&self.lent, &self.taken, &self.refused].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Has the flight wait for the primary's answer; false if nobody can be asked now.
    pub(super) fn ask(&self, flight: &Arc<Flight>, question: Question, now_ms: Millis) -> bool {
        let mut state = self.state.lock();
        if !(state.is_open && state.is_streaming && state.make_room()) {
            return false;
        }
        let until_ms = now_ms + ANSWER_WITHIN_MS;
        flight.wait_until(until_ms, Then::Load);
        let id = state.add(flight, Some(question), until_ms);
        state.unsent.push_back(id);
        true
    }

    /// Has the flight wait for another node's load; false if it can't be waited for. `question` is what to ask if the link
    /// ends meanwhile.
    pub(super) fn watch(
        &self,
        flight: &Arc<Flight>,
        question: Option<Question>,
        until_ms: Millis,
        then: Then,
    ) -> bool {
        let mut state = self.state.lock();
        if !state.make_room() {
            return false;
        }
        flight.wait_until(until_ms, then);
        state.add(flight, question, until_ms);
        true
    }

    /// Whether what others load comes here by the log.
    pub(super) fn is_streaming(&self) -> bool {
        self.state.lock().is_streaming
    }

    /// Takes the flight out that this answer is for.
    pub(super) fn take(&self, id: u64) -> Option<(Arc<Flight>, Question)> {
        let mut state = self.state.lock();
        let is_asked = state.waiting.get(&id).is_some_and(|waits| waits.question.is_some());
        let waits = if is_asked { state.waiting.remove(&id)? } else { return None };
        Some((waits.flight, waits.question?))
    }

    /// Takes what was loaded under a lease, to be sent to the primary. What is too large for that is not stored.
    pub(super) fn hand_in(&self, lease: Version, key: &[u8], yielded: Yield, now_ms: Millis) {
        let mut state = self.state.lock();
        let yielded = if yielded.bytes() > state.value_bytes_max { Yield::Nothing } else { yielded };
        let mut done = Done { lease, key: key.into(), yielded, until_ms: now_ms + PATIENCE_MS };
        if state.done_bytes + done.charge() > DONE_BYTES_MAX {
            done.yielded = Yield::Nothing;
        }
        // One that can't even be given back runs out.
        if state.done_bytes + done.charge() <= DONE_BYTES_MAX {
            state.done_bytes += done.charge();
            state.done.push_back(done);
        }
    }

    /// A primary has taken this node; frames may have so many bytes.
    pub(crate) fn attached(&self, frame_bytes_max: u32) {
        let mut state = self.state.lock();
        state.is_open = false;
        state.value_bytes_max = frame_bytes_max as usize / 2;
    }

    /// The primary may be asked from now on; who waited for another one's answer asks it.
    pub(super) fn open(&self, now_ms: Millis) {
        let mut state = self.state.lock();
        state.is_open = true;
        let State { waiting, unsent, .. } = &mut *state;
        unsent.clear();
        for (id, waits) in waiting.iter_mut().filter(|(_, waits)| waits.question.is_some()) {
            waits.is_sent = false;
            waits.until_ms = now_ms + ANSWER_WITHIN_MS;
            waits.flight.wait_until(waits.until_ms, Then::Load);
            unsent.push_back(*id);
        }
    }

    /// The link to the primary ended. Who waits goes on waiting for a while, for another primary or the same.
    pub(crate) fn link_ended(&self, now_ms: Millis) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_open) {
            state.be_patient(now_ms);
        }
    }

    /// What this node is, and how it stands to its primary.
    pub(crate) fn set_standing(&self, group: &Group, reigns: bool, link: LinkState, now_ms: Millis) {
        if reigns {
            // They look again, and this node lends to itself.
            return self.close(group);
        }
        let mut state = self.state.lock();
        let was_streaming = std::mem::replace(&mut state.is_streaming, link == LinkState::Streaming);
        if was_streaming && !state.is_streaming {
            state.be_patient(now_ms);
        }
    }

    /// Nobody is asked any more.
    pub(crate) fn close(&self, group: &Group) {
        let waiting = {
            let mut state = self.state.lock();
            let value_bytes_max = state.value_bytes_max;
            let last_id = state.last_id;
            std::mem::replace(&mut *state, State { value_bytes_max, last_id, ..State::default() }).waiting
        };
        for waits in waiting.into_values() {
            group.sleepers.wake_later(waits.flight.look_again());
        }
    }

    /// The next thing to say to the primary, if it may be said.
    pub(crate) fn next_message<R>(&self, encode: impl FnOnce(&Message<'_>) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if !(state.is_open && state.is_streaming) {
            return None;
        }
        if let Some(done) = state.done.pop_front() {
            state.done_bytes -= done.charge();
            let loaded = done.yielded.as_message();
            return Some(encode(&Message::LoadDone(LoadDone {
                lease: done.lease.0,
                key: &done.key,
                loaded,
            })));
        }
        while let Some(id) = state.unsent.pop_front() {
            let Some(waits) = state.waiting.get_mut(&id) else { continue };
            if waits.flight.is_over() {
                state.waiting.remove(&id);
                continue;
            }
            let Some(question) = &waits.question else { continue };
            waits.is_sent = true;
            let ask = crate::replication::message::LoadAsk { id, ..question.as_message() };
            return Some(encode(&Message::LoadAsk(ask)));
        }
        None
    }

    /// When [`Desk::expire`] has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<Millis> {
        let state = self.state.lock();
        let done = state.done.front().map(|done| done.until_ms);
        state.waiting.values().map(|waits| waits.until_ms).chain(done).min()
    }

    /// Ends each wait whose time is over.
    pub(crate) fn expire(&self, group: &Group, now_ms: Millis) {
        let mut over = Vec::new();
        {
            let mut state = self.state.lock();
            if state.waiting.is_empty() && state.done.is_empty() {
                return;
            }
            state.waiting.retain(|_, waits| {
                if waits.until_ms <= now_ms {
                    over.push(waits.flight.clone());
                    // Until the answer comes or the link ends.
                    waits.until_ms = Millis::MAX;
                    return waits.is_sent;
                }
                waits.is_needed()
            });
            while state.done.front().is_some_and(|done| done.until_ms <= now_ms) {
                let done = state.done.pop_front().expect("there is one");
                state.done_bytes -= done.charge();
            }
        }
        for flight in over {
            group.sleepers.wake_later(flight.end_wait(now_ms));
        }
    }
}

impl State {
    fn add(&mut self, flight: &Arc<Flight>, question: Option<Question>, until_ms: Millis) -> u64 {
        self.last_id += 1;
        let waits = Waits { flight: flight.clone(), question, is_sent: false, until_ms };
        self.waiting.insert(self.last_id, waits);
        self.last_id
    }

    /// Whether one more may wait; those that need not any more leave for it.
    fn make_room(&mut self) -> bool {
        if self.waiting.len() >= LOADS_ASKED_MAX {
            self.waiting.retain(|_, waits| waits.is_needed());
            let waiting = &self.waiting;
            self.unsent.retain(|id| waiting.contains_key(id));
        }
        self.waiting.len() < LOADS_ASKED_MAX
    }

    fn be_patient(&mut self, now_ms: Millis) {
        self.unsent.clear();
        self.waiting.retain(|_, waits| !waits.flight.is_over());
        for waits in self.waiting.values_mut() {
            waits.is_sent = false;
            waits.until_ms = now_ms + PATIENCE_MS;
            waits.flight.wait_until(waits.until_ms, Then::LookAgain);
        }
    }
}
