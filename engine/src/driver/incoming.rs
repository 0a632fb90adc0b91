//! A peer that dialled and has not said who it is.

use crate::cache::InstallReader;
use crate::replication::admission::{self, Verdict};
use crate::replication::hello::{Hello, Purpose};
use crate::replication::message::{Message, Reject, RejectCode, Standing, to_wire};
use crate::replication::position::Lineage;
use crate::replication::primary::{Grant, PrimarySession};
use crate::replication::session::FrameNumbers;
use crate::replication::transport::{Link, LinkError};
use crate::replication::{Role, Warning};

use super::downstream::Downstream;
use super::peer::{HELLO_TIMEOUT_MS, Peer, Received};
use super::{Turn, fenced_notice, parting_notice};

/// Replicas that one primary ships to.
const REPLICAS_MAX: usize = 15;

/// When a refused peer should come back, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

pub(crate) struct Incoming {
    peer: Option<Peer>,
    deadline_ms: u64,
}

pub(crate) enum Outcome {
    Waiting,
    Done,
    Attached(Box<Downstream>),
}

impl Incoming {
    pub(crate) fn new(link: Box<dyn Link>, now_ms: u64) -> Incoming {
        Incoming { peer: Some(Peer::new(link)), deadline_ms: now_ms + HELLO_TIMEOUT_MS }
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    pub(crate) fn turn(&mut self, turn: &mut Turn<'_, '_>, slots_taken: &[usize]) -> Outcome {
        let Some(mut peer) = self.peer.take() else { return Outcome::Done };
        let frame = match peer.receive(turn.cx) {
            Received::Frame(frame) => frame,
            Received::Nothing if turn.now.local_ms < self.deadline_ms => {
                self.peer = Some(peer);
                return Outcome::Waiting;
            }
            Received::Nothing => {
                tracing::warn!(peer = %peer.identity(), "closed: it did not say who it is in time");
                return Outcome::Done;
            }
            Received::Ended(why) => {
                match why {
                    // Who hears elsewhere whom to follow, or dies, leaves so before it has said anything.
                    None | Some(LinkError::Broken(_)) => {
                        tracing::debug!(peer = %peer.identity(), "a link ended before its first frame");
                    }
                    Some(why) => tracing::warn!(peer = %peer.identity(), %why, "closed a replication link"),
                }
                return Outcome::Done;
            }
        };
        let mut numbers = FrameNumbers::new(turn.group.config.bugs);
        match numbers.decode(&frame) {
            Ok(Message::Hello(hello)) => judge(peer, &hello, turn, slots_taken),
            Ok(_) => {
                tracing::warn!(peer = %peer.identity(), "closed: its first frame is no Hello");
                Outcome::Done
            }
            Err(why) => {
                tracing::warn!(peer = %peer.identity(), %why, "closed a replication link");
                Outcome::Done
            }
        }
    }
}

fn judge(mut peer: Peer, hello: &Hello, turn: &mut Turn<'_, '_>, slots_taken: &[usize]) -> Outcome {
    // The gate: the verdict and what follows from it are one step.
    let gate = turn.group.gate.lock();
    let verdict = {
        let lineage = turn.group.log.lock().lineage().clone();
        admission::judge(hello, peer.identity().proven, &turn.group.roles.lock(), &lineage)
    };
    let verdict = match verdict {
        Verdict::Attach | Verdict::Outgrow | Verdict::Help if slots_taken.len() >= REPLICAS_MAX => {
            Verdict::Reject(RejectCode::TooManyPeers)
        }
        Verdict::Attach | Verdict::Outgrow | Verdict::Help
            if slots_taken.contains(&usize::from(hello.slot)) =>
        {
            Verdict::Reject(RejectCode::DuplicateSlot)
        }
        other => other,
    };
    match verdict {
        Verdict::Attach | Verdict::Help => {
            drop(gate);
            return attach(peer, hello, turn);
        }
        Verdict::Stand | Verdict::Outline | Verdict::Promise => {
            tell_standing(&mut peer, hello, verdict, turn)
        }
        Verdict::Outgrow => {
            turn.cache.inner.outgrow(turn.group, hello.term_seen);
            drop(gate);
            return attach(peer, hello, turn);
        }
        Verdict::Follow => {
            follow(hello, turn);
            if hello.lineage.newest().is_some_and(|newest| newest.promoted) {
                note_holder(&peer, hello, turn);
            }
            peer.answer(&Message::Fenced(fenced_notice(turn.group)), turn.cx);
        }
        Verdict::AlreadyKnown => confirm(&mut peer, hello, turn),
        Verdict::StepDown => step_down(&mut peer, hello, turn),
        Verdict::Fence => {
            note_rival(&peer, hello, turn);
            peer.answer(&Message::Fenced(fenced_notice(turn.group)), turn.cx);
        }
        Verdict::Reject(code) => {
            turn.group.roles.lock().heard(hello);
            note_rival(&peer, hello, turn);
            refuse(&mut peer, hello, code, turn);
        }
    }
    Outcome::Done
}

/// A replica of a newer reign has dialled, or one that holds what this primary came up without.
fn step_down(peer: &mut Peer, hello: &Hello, turn: &mut Turn<'_, '_>) {
    turn.cache.inner.step_down(turn.group, hello.term_seen, None);
    turn.group.roles.lock().learn_peer(&hello.address);
    note_holder(peer, hello, turn);
    let has_yielded = turn.group.roles.lock().holder().is_some();
    let (peer_named, term) = (named(&peer.identity().address, hello), hello.term_seen.0);
    match has_yielded {
        true => tracing::error!(
            peer = peer_named,
            "this primary came up with nothing, and serves nothing from now on: a node holds the group's items; promote that one"
        ),
        // The primary of that reign says so itself, a moment later.
        false => tracing::warn!(
            peer = peer_named,
            term,
            "fenced: a replica follows a newer reign than this node's"
        ),
    }
    match has_yielded {
        // It names what this node began, by which the other one can tell why.
        true => peer.answer(&Message::Fenced(parting_notice(turn.group)), turn.cx),
        false => reject(peer, RejectCode::NotPrimary, turn),
    }
}

/// It reigns by a newer term: follows it, if it says where it listens.
fn follow(hello: &Hello, turn: &mut Turn<'_, '_>) {
    let (term, address) = (hello.term_seen, &hello.address);
    if address.is_empty() {
        tracing::error!(
            term = term.0,
            "fenced: another node is primary now, and without --replication-listen it can't be followed"
        );
        turn.cache.inner.step_down(turn.group, term, None);
        turn.group.roles.lock().noticed.fenced_by_deaf = true;
        return;
    }
    if turn.group.roles.lock().role() == Role::Primary {
        tracing::warn!(primary = address, term = term.0, "another node is primary now: following it");
    } else {
        tracing::info!(primary = address, term = term.0, "told who is primary now: following it");
    }
    turn.cache.inner.step_down(turn.group, term, Some(address.clone()));
}

/// A peer of another history, which holds the group's items if this node came up with nothing.
fn note_holder(peer: &Peer, hello: &Hello, turn: &Turn<'_, '_>) {
    let is_shared = turn.group.log.lock().lineage().shares_branch_with(&hello.lineage);
    if let Some(position) = hello.position.filter(|_| !is_shared) {
        let name = named(&peer.identity().address, hello);
        turn.group.roles.lock().note_holder(name, !hello.address.is_empty(), position.seq);
    }
}

/// A peer that announces itself to a primary and is not followed reigns as well, until it hears better.
fn note_rival(peer: &Peer, hello: &Hello, turn: &Turn<'_, '_>) {
    let mut roles = turn.group.roles.lock();
    let is_of_group = hello.group == roles.group && hello.node != roles.node;
    if roles.role() != Role::Primary || hello.purpose != Purpose::Announce || !is_of_group {
        return;
    }
    if roles.noticed.rival(named(&peer.identity().address, hello), hello.term_seen) {
        tracing::error!(peer = %peer.identity(), term = hello.term_seen.0, "it says that it is the primary as well");
    }
}

/// It is the primary that this node knows of; by this address from now on.
fn confirm(peer: &mut Peer, hello: &Hello, turn: &mut Turn<'_, '_>) {
    let mut roles = turn.group.roles.lock();
    roles.learn_peer(&hello.address);
    let is_followed = hello.address.is_empty()
        || roles.primary_address().as_deref() == Some(&*hello.address)
        || roles.cascade.is_parent(&hello.address)
        || roles.looks_for_told();
    let term = roles.term_seen;
    drop(roles);
    if !is_followed {
        turn.cache.inner.step_down(turn.group, term, Some(hello.address.clone()));
    }
    peer.answer(&Message::Fenced(fenced_notice(turn.group)), turn.cx);
}

/// Tells one that may be promoted where this node stands, and first follows nobody below its term if it asks for that.
fn tell_standing(peer: &mut Peer, hello: &Hello, verdict: Verdict, turn: &mut Turn<'_, '_>) {
    if verdict == Verdict::Promise {
        let (address, term) = (&hello.address, hello.term_seen);
        tracing::warn!(peer = address, term = term.0, "another node is to be promoted: following nobody");
        turn.cache.inner.step_down(turn.group, term, None);
    }
    let mut standing = standing(turn, |lineage| match verdict {
        Verdict::Outline => lineage.outline(),
        _ => lineage.clone(),
    });
    // Who asks for a place in the group's history, and not whether there is any, counts on what this node held before.
    standing.has_data &= hello.position.is_none() || !turn.group.roles.lock().forgot;
    peer.answer(&Message::Standing(standing), turn.cx);
}

/// Where this node stands, with what of its history is to be told.
fn standing(turn: &Turn<'_, '_>, told: impl FnOnce(&Lineage) -> Lineage) -> Standing {
    let now_ms = turn.cache.inner.lease_now_ms();
    let roles = turn.group.roles.lock();
    Standing {
        node: roles.life(),
        term_seen: roles.term_seen.0,
        lineage: to_wire(&told(turn.group.log.lock().lineage())),
        has_data: roles.has_data && !roles.installing && !roles.has_yielded(),
        lease_over_in_ms: turn.group.lease.granted_is_over_ms().saturating_sub(now_ms),
    }
}

/// Refuses a peer, and notes that unless it is the ordinary way of finding the primary.
fn refuse(peer: &mut Peer, hello: &Hello, code: RejectCode, turn: &mut Turn<'_, '_>) {
    if hello.purpose == Purpose::Follow && was_misled(hello, turn) {
        return peer.answer(&Message::Fenced(parting_notice(turn.group)), turn.cx);
    }
    match code {
        RejectCode::NotPrimary => turn.group.roles.lock().learn_peer(&hello.address),
        RejectCode::DuplicateSlot if hello.slot_is_free => {
            tracing::info!(peer = %peer.identity(), slot = hello.slot, "a peer's default slot is taken; it tries another");
        }
        // For a while only.
        RejectCode::Unattached | RejectCode::Behind => {}
        code => {
            // One that comes again every second for the same reason has been told of.
            if turn.group.roles.lock().note_reject(named(&peer.identity().address, hello), code) {
                tracing::warn!(peer = %peer.identity(), why = code.describe(), "refused a peer");
            }
        }
    }
    reject(peer, code, turn);
}

/// Whether a peer claims to hold items that it has from this node, which came up with nothing, or was copied from such a one. Once
/// it has heard that it claims nothing any more.
fn was_misled(hello: &Hello, turn: &Turn<'_, '_>) -> bool {
    let misleads = turn.group.roles.lock().misleads();
    misleads && hello.position.is_some() && turn.group.log.lock().lineage().shares_branch_with(&hello.lineage)
}

fn reject(peer: &mut Peer, code: RejectCode, turn: &mut Turn<'_, '_>) {
    // Who was copied from this node, which came up with nothing, has to know whom to ask.
    let primary = {
        let roles = turn.group.roles.lock();
        let holder = roles.holder().filter(|holder| holder.listens).map(|holder| holder.address.clone());
        roles.primary_address().or(holder).unwrap_or_default()
    };
    peer.answer(&Message::Reject(Reject { code, primary, retry_after_ms: RETRY_AFTER_MS }), turn.cx);
}

/// How a peer is named to operators: where it listens, if it said so, or where it dialled from.
fn named<'a>(dialled_from: &'a str, hello: &'a Hello) -> &'a str {
    if hello.address.is_empty() { dialled_from } else { &hello.address }
}

fn attach(peer: Peer, hello: &Hello, turn: &mut Turn<'_, '_>) -> Outcome {
    let name = named(&peer.identity().address, hello).to_owned();
    let (grant, epoch, history) = {
        let mut roles = turn.group.roles.lock();
        roles.learn_peer(&hello.address);
        roles.forgive(&name);
        if roles.role() == Role::Primary {
            roles.noticed.no_rival(&name);
            if hello.remembers() {
                roles.has_counted(hello.slot);
            }
            roles.noticed.history(&name, turn.group.log.lock().lineage(), &hello.lineage);
        }
        let grant = Grant {
            node: roles.node,
            slot: roles.slot,
            hash_seed: turn.cache.inner.hasher.seed(),
            frame_bytes_max: turn.group.config.frame_bytes_max,
            peers: roles.peers().to_vec(),
            caps: peer.caps(),
            lends_loads: roles.role() == Role::Primary && hello.purpose == Purpose::Follow,
            bugs: turn.group.config.bugs,
        };
        (grant, roles.epoch, roles.history())
    };
    if !hello.reads_all_entries() {
        // Before the plan is made: behind it no record comes that this replica can't read.
        turn.group.log.lock().has_old_reader = true;
    }
    let mut reader = InstallReader::new(turn.cache.inner.clone());
    let mut session = PrimarySession::new(hello, &turn.group.log, &mut reader, grant, turn.now);
    session.numbers_mut().skip_one_in();
    turn.group.roles.lock().count(session.plan());
    tracing::info!(
        replica = name,
        peer = %peer.identity(),
        plan = ?session.plan(),
        "a replica attached"
    );
    let differs = hello.ack_mode.and_then(|theirs| Warning::of_modes(turn.group.ack_mode(), theirs, &name));
    if let Some(warning) = differs {
        tracing::warn!("{warning}");
    }
    Outcome::Attached(Box::new(Downstream::new(peer, session, reader, epoch, history, hello)))
}
