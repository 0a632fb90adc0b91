//! A promotion that asks first. Where a write is acknowledged by fewer replicas than there are, one replica alone can't know
//! that it has every such write. And a node that holds nothing is not to reign while a peer answers that holds
//! the group's items.
//!
//! Lives here: asking, and catching up. Not here: when that is needed (see `roles`), what becomes of the node (see
//! `cache::role_changes`).
//!
//! ```text
//!   Asking ──(enough answer)──> Promising ──(enough promise)──> CatchingUp ──> promoted
//!   Inquiring ──(all have answered or failed, or the time is over; nobody holds anything)──> promoted
//!   Confronting ──(a primary of another history can't be reached)──> promoted
//! ```
//! `Promising` is gone through twice where more than one other has to promise: what each has promised must hold at one moment.
//!
//! With R other nodes and N acks each write lies on N + 1 of R + 1 nodes, so among any R − N + 1 is one that has it.
//! Nothing changes while the first question is out, so a promotion that can't succeed disturbs nobody. Then this node
//! follows nobody any more, and so does each that promises: it acknowledges nothing and grants no lease by an older
//! term. So what they hold then is all that was ever acknowledged, and an old primary among them reigns no longer.

use crate::cache::Promotion;
use crate::replication::PromoteError;
use crate::replication::hello::{Hello, Purpose};
use crate::replication::message::{Message, RejectCode, Standing, from_wire};
use crate::replication::position::{Lineage, Position, Term};
use crate::replication::replica::ReplicaSession;
use crate::replication::roles::{Candidacy, Holder};

use super::Turn;
use super::announce::{Answer, Call, introduction};
use super::peer::Peer;
use super::upstream::Attached;

/// Tries after which a peer that can't be reached counts as one that holds nothing.
const FAILURES_MAX: u32 = 2;

#[derive(Default)]
pub(crate) struct Campaign {
    stage: Stage,
    /// When it is given up.
    until_ms: u64,
    calls: Vec<Call>,
    answers: Vec<(String, Standing)>,
    epoch: u64,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Inquiring,
    Confronting,
    Asking,
    Promising {
        /// What this node believed and followed before it promised itself.
        before: (Term, Option<String>),
        /// Who had promised when all were asked last, each in its life.
        held: Vec<u128>,
    },
    CatchingUp {
        from: Box<Attached>,
        to: Position,
    },
}

impl Campaign {
    pub(crate) fn deadline_ms(&self) -> u64 {
        let calls = self.calls.iter().map(Call::deadline_ms);
        match &self.stage {
            Stage::Idle => u64::MAX,
            Stage::CatchingUp { from, .. } => from.deadline_ms().min(self.until_ms),
            _ => calls.min().unwrap_or(u64::MAX).min(self.until_ms),
        }
    }

    pub(crate) fn turn(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let (candidacy, epoch, is_follower) = {
            let roles = turn.group.roles.lock();
            (roles.candidacy, roles.epoch, roles.is_follower())
        };
        let Some(candidacy) = candidacy else {
            *self = Campaign::default();
            return false;
        };
        if matches!(self.stage, Stage::Idle) {
            let stage = match candidacy {
                Candidacy { is_empty: true, .. } => Stage::Inquiring,
                Candidacy { has_rival: true, .. } => Stage::Confronting,
                Candidacy { .. } => Stage::Asking,
            };
            self.begin(turn, stage, epoch);
            self.until_ms = candidacy.until_ms;
        } else if epoch != self.epoch || !is_follower {
            return self.end(turn, Err(PromoteError::Overruled));
        }
        if matches!(self.stage, Stage::Inquiring) {
            return self.inquire(turn, candidacy);
        }
        if matches!(self.stage, Stage::Confronting) {
            return self.confront(turn, candidacy);
        }
        // Of a node that lost its memory the own position counts for nothing.
        let (answered, needed) =
            (self.answered(), candidacy.needed + u8::from(turn.group.roles.lock().forgot));
        if turn.now.local_ms >= candidacy.until_ms {
            return self.end(turn, Err(PromoteError::NotEnoughPositions { answered, needed }));
        }
        if let Stage::CatchingUp { from, to } = &mut self.stage {
            let to = *to;
            let ended = from.turn(turn, epoch, &mut None).err();
            if turn.group.log.lock().lineage().contains(to) {
                return self.win(turn);
            }
            if let Some(why) = ended {
                tracing::warn!(why = why.describe(), "could not catch up from the node that holds most");
                return self.end(turn, Err(PromoteError::NotCaughtUp));
            }
            return false;
        }
        self.call(turn);
        if self.answered() < needed {
            return false;
        }
        match self.stage {
            Stage::Asking if !turn.group.roles.lock().has_data => {
                return self.end(turn, Err(PromoteError::NotPromotable("in the middle of a full copy")));
            }
            Stage::Asking => self.promise(turn, candidacy),
            _ if needed > 2 && self.holding() < needed => self.ask_again(turn),
            _ => self.catch_up(turn),
        }
        true
    }

    /// Of those that have promised, this node among them, how many had done so when all were asked before, and have lived
    /// since.
    fn holding(&self) -> u8 {
        let Stage::Promising { held, .. } = &self.stage else { return 0 };
        let holds = |standing: &Standing| standing.has_data && held.contains(&standing.node);
        1 + self.answers.iter().filter(|(_, standing)| holds(standing)).count() as u8
    }

    /// Asks all once more whether they hold to their promises. One that crashed while others were yet to be asked has forgotten
    /// its own, and may have acknowledged writes of the old primary since, which counts it again by the leases of those others.
    fn ask_again(&mut self, turn: &Turn<'_, '_>) {
        let Stage::Promising { before, .. } = std::mem::take(&mut self.stage) else { return };
        let held = self.answers.iter().map(|(_, standing)| standing.node).collect();
        self.begin(turn, Stage::Promising { before, held }, self.epoch);
    }

    /// Asks whether somebody holds what this node does not; if nobody says so it is promoted.
    fn inquire(&mut self, turn: &mut Turn<'_, '_>, candidacy: Candidacy) -> bool {
        self.call(turn);
        let is_over = turn.now.local_ms >= candidacy.until_ms;
        if !is_over && self.calls.iter().any(|call| call.failures() < FAILURES_MAX) {
            return false;
        }
        let is_empty = turn.group.log.lock().lineage().newest().is_none();
        let rank = |standing: &Standing| {
            let newest = standing.lineage.last().map_or((0, 0), |newest| (newest.term, newest.last));
            (standing.has_data, newest)
        };
        // Part of a copy is more than nothing, too.
        let holds = |standing: &Standing| standing.has_data || (is_empty && !standing.lineage.is_empty());
        let holders = self.answers.iter().filter(|(_, standing)| holds(standing));
        if let Some((address, standing)) = holders.max_by_key(|(_, standing)| rank(standing)) {
            let (address, (_, (_, seq))) = (address.clone(), rank(standing));
            let mut roles = turn.group.roles.lock();
            if roles.founds() {
                roles.note_holder(&address, true, seq);
            }
            drop(roles);
            return self.end(turn, Err(PromoteError::PeerHolds { address, seq }));
        }
        let holder = turn.group.roles.lock().holder().cloned();
        let has_answered = |address: &str| self.answers.iter().any(|(known, _)| known == address);
        if let Some(Holder { address, seq, .. }) = holder.filter(|holder| !has_answered(&holder.address)) {
            return self.end(turn, Err(PromoteError::PeerHeld { address, seq }));
        }
        let (answered, needed) = (1 + self.answers.len() as u8, candidacy.needed);
        if answered < needed && turn.group.roles.lock().founds() {
            // Nobody waits for it: it asks on.
            return false;
        }
        if answered < needed {
            // What was acknowledged may lie on those that did not answer.
            return self.end(turn, Err(PromoteError::NotEnoughPositions { answered, needed }));
        }
        self.take_up_term(turn);
        if turn.group.roles.lock().founds() {
            // Those that have answered are told as well: one of them may have begun the group at the same moment.
            let outcome = turn.cache.promote_as(Promotion::Founding);
            return self.end(turn, outcome.map(|_| ()));
        }
        let unreached = self.calls.iter().map(|call| call.address()).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            unreached,
            "promoting a node that holds nothing: of the nodes that answered none does"
        );
        let outcome = turn.cache.promote_as(Promotion::Asked);
        self.end(turn, outcome.map(|_| ()))
    }

    /// Whether the primary of another history is still there, which does not believe what this node says: its refusal, too,
    /// is an answer.
    fn confront(&mut self, turn: &mut Turn<'_, '_>, candidacy: Candidacy) -> bool {
        let Some(address) = self.calls.first().map(|call| call.address().to_owned()) else {
            let outcome = turn.cache.promote_as(Promotion::Asked);
            return self.end(turn, outcome.map(|_| ()));
        };
        self.call(turn);
        if self.calls.is_empty() {
            return self.end(turn, Err(PromoteError::Rival { address }));
        }
        let is_over = turn.now.local_ms >= candidacy.until_ms;
        if !is_over && self.calls.iter().any(|call| call.failures() < FAILURES_MAX) {
            return false;
        }
        let outcome = turn.cache.promote_as(Promotion::Asked);
        self.end(turn, outcome.map(|_| ()))
    }

    /// A node that forgot should not mint a term again that others remember.
    fn take_up_term(&self, turn: &Turn<'_, '_>) {
        let mut roles = turn.group.roles.lock();
        let ours = roles.term_seen;
        let seen = self.answers.iter().map(|(_, standing)| Term(standing.term_seen));
        let highest = seen.filter(|term| !term.is_too_far_above(ours)).max().unwrap_or_default();
        roles.term_seen = ours.max(highest);
    }

    /// This node, and each other that answered and holds something.
    fn answered(&self) -> u8 {
        1 + self.answers.iter().filter(|(_, standing)| standing.has_data).count() as u8
    }

    fn begin(&mut self, turn: &Turn<'_, '_>, stage: Stage, epoch: u64) {
        let others = {
            let roles = turn.group.roles.lock();
            match stage {
                Stage::Inquiring => roles.known_others(),
                Stage::Confronting => roles.noticed.rival_to_ask().into_iter().map(str::to_owned).collect(),
                _ => roles.configured_others(),
            }
        };
        let calls = others.into_iter().map(|address| Call::new(address, turn.now.local_ms)).collect();
        *self = Campaign { stage, until_ms: self.until_ms, calls, answers: Vec::new(), epoch };
    }

    fn call(&mut self, turn: &mut Turn<'_, '_>) {
        let promises = matches!(self.stage, Stage::Promising { .. });
        let confronts = matches!(self.stage, Stage::Confronting);
        let purpose = if promises { Purpose::Promise } else { Purpose::Ask };
        let inquires = matches!(self.stage, Stage::Inquiring);
        let say = |turn: &Turn<'_, '_>| match introduction(turn, purpose) {
            // What it began by itself is nothing of the group's, and proves nothing.
            Message::Hello(hello) if inquires => Message::Hello(Box::new(Hello { position: None, ..*hello })),
            other => other,
        };
        let answers = &mut self.answers;
        self.calls.retain_mut(|call| {
            let hear = |turn: &mut Turn<'_, '_>, address: &str, message: &Message<'_>, _proven: bool| {
                let standing = match message {
                    Message::Standing(standing) => standing,
                    Message::Reject(reject) if reject.code == RejectCode::SameNode => {
                        turn.group.roles.lock().met_itself_at(address);
                        return Answer::Heard;
                    }
                    Message::Reject(_) if confronts => return Answer::Heard,
                    _ => return Answer::Failed,
                };
                let term = turn.group.roles.lock().term_seen.0;
                let is_known = answers.iter().any(|(_, known)| known.node == standing.node);
                let counts = !promises || standing.term_seen == term;
                if counts && !is_known && from_wire(standing.lineage.clone()).is_ok() {
                    answers.push((address.to_owned(), standing.clone()));
                }
                Answer::Heard
            };
            match call.turn(turn, say, hear) {
                Answer::Heard => false,
                Answer::None => true,
                Answer::Failed => {
                    call.try_later(turn.now.local_ms);
                    true
                }
            }
        });
    }

    /// Follows nobody any more, as of a term that none of them has seen, and asks them to do the same.
    fn promise(&mut self, turn: &mut Turn<'_, '_>, candidacy: Candidacy) {
        let _gate = turn.group.gate.lock();
        let (epoch, term) = {
            let roles = turn.group.roles.lock();
            let seen = self.answers.iter().map(|(_, standing)| Term(standing.term_seen));
            let highest = seen.chain([roles.term_seen]).max().unwrap_or_default();
            (roles.epoch, highest.next_for(roles.slot).filter(|term| !term.is_too_far_above(roles.term_seen)))
        };
        let Some(term) = term.filter(|_| epoch == self.epoch) else { return };
        let before = {
            let roles = turn.group.roles.lock();
            (roles.term_seen, roles.upstream_address())
        };
        turn.cache.inner.step_down(turn.group, term, None);
        let epoch = {
            let mut roles = turn.group.roles.lock();
            // The word of anybody else would have ended it.
            (roles.candidacy, roles.candidacy_refused) = (Some(candidacy), None);
            roles.epoch
        };
        self.begin(turn, Stage::Promising { before, held: Vec::new() }, epoch);
    }

    /// Gets what the one that holds most has and this node lacks.
    fn catch_up(&mut self, turn: &mut Turn<'_, '_>) {
        let lineages = self
            .answers
            .iter()
            .filter(|(_, standing)| standing.has_data)
            .filter_map(|(address, standing)| Some((address, from_wire(standing.lineage.clone()).ok()?)));
        let rank =
            |lineage: &Lineage| (lineage.term(), lineage.position().map_or(0, |position| position.seq));
        let best = lineages.max_by_key(|(_, lineage)| rank(lineage));
        let ours = turn.group.log.lock().lineage().clone();
        let to = best.filter(|(_, theirs)| rank(theirs) > rank(&ours));
        let Some((address, to)) =
            to.and_then(|(address, theirs)| Some((address.clone(), theirs.position()?)))
        else {
            self.win(turn);
            return;
        };
        match turn.transport.dial(&address) {
            Ok(link) => {
                let hello = super::upstream::hello(turn, Purpose::CatchUp);
                let session =
                    ReplicaSession::new(hello, turn.group.config.bugs, turn.now.local_ms).refusing_copies();
                tracing::info!(from = address, seq = to.seq, "catching up before this node reigns");
                let from = Box::new(Attached::new(Peer::new(link), session, address, true));
                self.stage = Stage::CatchingUp { from, to };
            }
            Err(why) => {
                tracing::warn!(peer = address, %why, "could not catch up from the node that holds most");
                self.end(turn, Err(PromoteError::NotCaughtUp));
            }
        }
    }

    fn win(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let over_in_ms =
            self.answers.iter().map(|(_, standing)| standing.lease_over_in_ms).max().unwrap_or(0);
        // A peer that says more than there can be delays nobody for long.
        let over_in_ms = over_in_ms.min(crate::replication::lease::LEASE_WAIT_MS);
        let from_ms = turn.cache.inner.lease_now_ms() + over_in_ms;
        let epoch = self.epoch;
        let outcome = turn.cache.promote_as(Promotion::Elected { from_ms, epoch });
        self.end(turn, outcome.map(|_| ()))
    }

    fn end(&mut self, turn: &mut Turn<'_, '_>, outcome: Result<(), PromoteError>) -> bool {
        if let Err(why) = &outcome {
            tracing::warn!(%why, "not promoted");
        }
        let ended = std::mem::take(self);
        let mut roles = turn.group.roles.lock();
        roles.candidacy = None;
        if let Stage::Promising { before: (term, upstream), held } = ended.stage
            && outcome.is_err()
            && held.is_empty()
            && ended.answers.is_empty()
            && roles.epoch == ended.epoch
        {
            // Nobody has promised anything that is known of, so this node owes nobody its own promise, and with that it would
            // fence the primary that it goes back to.
            roles.take_promise_back(term, upstream);
        }
        roles.candidacy_refused = outcome.err();
        roles.forgo_founding();
        true
    }
}
