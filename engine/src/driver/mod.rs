//! The driver: runs sessions over links against one cache. The only place where the three meet.
//!
//! Lives here: the [`Replicator`], which accepts, dials, ships and follows. Not here: what a session says (see
//! `replication`), what a link is made of (a transport's).
//!
//! | file | concept |
//! |---|---|
//! | `incoming` | peers that dialled and have not been judged |
//! | `downstream` | replicas that this node ships to |
//! | `upstream` | the primary that this node follows, or looks for |
//! | `announce` | telling peers who reigns |
//! | `campaign` | a promotion that asks first |
//! | `store` | what a replica's session does to the cache |
//! | `shortage` | telling the log that writes are refused for want of replicas |
//! | `pace` | collecting between turns |
//! | `peer` | one link |
//! | `hostile` | a peer that says anything, for fuzzing |

mod announce;
mod campaign;
mod downstream;
pub(crate) mod hostile;
mod incoming;
mod pace;
mod peer;
mod shortage;
mod store;
mod upstream;

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use slab::Slab;

use crate::cache::{Cache, Group, INQUIRY_WITHIN};
use crate::clock::Millis;
use crate::replication::bug::Bug;
use crate::replication::lease::reached_by;
use crate::replication::position::Seq;
use crate::replication::primary::{Now, PrimarySession};
use crate::replication::risk::Risk;
use crate::replication::roles::{PEERS_MAX, Roles};
use crate::replication::transport::Transport;
use crate::replication::{AckMode, LinkState, Role, Warning, admission};

use announce::Announcer;
use campaign::Campaign;
use downstream::Downstream;
use incoming::Incoming;
use pace::{LINGER, LINGER_WITHIN_BUDGET, Pace};
use shortage::Shortage;
use upstream::Upstream;

/// Peers that may be between dialling and their first frame.
const INCOMING_MAX: usize = 64;

/// How often the driver looks by itself while the link of a replica that is behind takes nothing, in milliseconds.
const STALLED_LOOK_MS: u64 = 5;

/// How often the driver looks by itself while the link of a replica that is being copied takes nothing, in milliseconds.
const COPY_LOOK_MS: u64 = 1;

/// How often queued hints are collected while replicas are attached, in milliseconds.
const HINT_INTERVAL_MS: u64 = 5;

/// How often leases of loads that have run out are forgotten, in milliseconds.
const LOAD_LEASES_INTERVAL_MS: u64 = 500;

/// When to poll a [`Replicator`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// Behind about as long as [`Replicator::linger`] says: writes are coming, and nobody will wake the task for them.
    Soon,
    /// At this moment of the cache's own clock, or when the waker is called.
    At(Millis),
}

/// Replicates one cache over one transport, driven by polls, without a runtime.
///
/// Poll it from a thread or a task: [`Replicator::poll`] does what can be done now and says when to come back; the
/// waker of its context is called when a link or a writer has something sooner. One replicator a cache.
///
/// ```
/// use hotspare::transport::MemoryNetwork;
/// use hotspare::{Cache, Config, Expiry, ReplicationConfig, Replicator};
/// use std::task::{Context, Waker};
///
/// let network = MemoryNetwork::immediate();
/// let primary = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
/// let replica = Cache::new(Config::new().replication(ReplicationConfig::replica_of("a").replica_reads(true)))?;
/// let mut nodes = [
///     Replicator::new(&primary, network.transport("a")).unwrap(),
///     Replicator::new(&replica, network.transport("b")).unwrap(),
/// ];
/// primary.set("k", "v", Expiry::Never)?;
/// let mut cx = Context::from_waker(Waker::noop());
/// for _ in 0..100 {
///     nodes.iter_mut().for_each(|node| {
///         node.poll(&mut cx);
///     });
/// }
/// assert_eq!(&replica.get("k")?.unwrap().value[..], b"v");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replicator {
    cache: Cache,
    transport: Box<dyn Transport>,
    incoming: Slab<Incoming>,
    downstream: Slab<Downstream>,
    upstream: Upstream,
    announcer: Announcer,
    campaign: Campaign,
    shortage: Shortage,
    /// Where the log ended at which moment, in the history of this number.
    ends: Option<(u64, Risk)>,
    pace: Pace,
    /// See [`Replicator::may_linger`].
    may_linger: bool,
    /// Whether this node follows a primary whose clients wait for acks.
    is_awaited: bool,
    hints_due_ms: Millis,
    load_leases_due_ms: Millis,
    /// The epoch and the link's state that were last told to whoever waits.
    standing: (u64, LinkState),
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicator").field("replicas", &self.downstream.len()).finish_non_exhaustive()
    }
}

/// What a turn came to.
#[derive(Default)]
struct Progress {
    /// Replicas were sent something, or sent something.
    shipped: bool,
    /// There may be more to do at once.
    has_more: bool,
}

/// What a part of the driver needs of the rest for one turn.
struct Turn<'a, 'c> {
    cache: &'a Cache,
    group: &'a Group,
    transport: &'a mut dyn Transport,
    now: Now,
    cx: &'a mut Context<'c>,
}

impl Drop for Replicator {
    /// Nobody asks or answers any more: who waits for another node's load goes on alone.
    fn drop(&mut self) {
        if let Some(group) = &self.cache.inner.group {
            group.roles.lock().is_driven = false;
            group.desk.close(group);
            group.sleepers.wake();
        }
    }
}

impl Replicator {
    /// A replicator of `cache`; `None` if the cache was made without replication.
    pub fn new(cache: &Cache, transport: impl Transport + 'static) -> Option<Replicator> {
        let group = cache.inner.group.as_ref()?;
        {
            let mut roles = group.roles.lock();
            if let Some(address) = transport.local_address() {
                roles.set_own_address(address);
            }
            roles.is_driven = true;
            if roles.founds() {
                let until_ms = cache.inner.local_now_ms().saturating_add(INQUIRY_WITHIN.as_millis() as u64);
                roles.candidacy = Some(roles.founding(until_ms));
            }
            if roles.own_address().is_none() {
                tracing::warn!("{}", Warning::NoListener);
            }
        }
        Some(Replicator {
            cache: cache.clone(),
            transport: Box::new(transport),
            incoming: Slab::new(),
            downstream: Slab::new(),
            upstream: Upstream::default(),
            announcer: Announcer::default(),
            campaign: Campaign::default(),
            shortage: Shortage::default(),
            ends: None,
            pace: Pace::default(),
            may_linger: false,
            is_awaited: false,
            hints_due_ms: 0,
            load_leases_due_ms: 0,
            standing: (0, LinkState::None),
        })
    }

    /// How long whoever polls sleeps at [`Next::Soon`] at most, and collects writes meanwhile: about a millisecond, or half of one with a budget
    /// ([`ReplicationConfig::max_unacked_ms`](crate::ReplicationConfig::max_unacked_ms), or in bytes). More is shipped at less
    /// cost, and is at risk for longer.
    pub fn linger(&self) -> Duration {
        match self.cache.inner.group.as_ref() {
            Some(group) if group.config.has_budget() => LINGER_WITHIN_BUDGET,
            _ => LINGER,
        }
    }

    /// Whether whoever polls may leave the links alone for as long as [`Replicator::linger`] says, though the last poll said
    /// [`Next::At`]: this node follows a primary that ships piece after piece and waits for no ack. Who sleeps meanwhile, instead
    /// of waiting for the link, takes more at once, and need not be woken for each piece, which costs the primary's system more
    /// than to send it. The waker is to end that sleep: somebody here asks for something.
    pub fn may_linger(&self) -> bool {
        self.may_linger
    }

    /// Does all that can be done now.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        let cache = self.cache.clone();
        let Some(group) = cache.inner.group.as_ref() else { return Next::At(Millis::MAX) };
        self.may_linger = false;
        group.doorbell.begin_turn();
        // Replicas wait for this flush, and it may be that nobody asks the primary for anything.
        cache.inner.settle_flush();
        let now = Now {
            local_ms: cache.inner.local_now_ms(),
            group_ms: cache.inner.renew_round(),
            lease_ms: needs_leases(group).then(|| cache.inner.lease_now_ms()),
        };
        let progress = self.run_parts(&cache, group, now, cx);
        self.publish(&cache, group, now);
        self.attend_to_loads(&cache, group, now);
        cache.inner.tell_events();
        // Where clients wait for acks, here or at the node that this one follows, lingering would cost them more than waking
        // costs the writers.
        let lingers = group.acks.needed() == 0 && !self.is_awaited;
        if progress.shipped || progress.has_more {
            self.pace.note_shipped();
            // Where it lingers, what has come in since is for the next large piece.
            if progress.has_more || !lingers {
                return Next::Now;
            }
        }
        if lingers && self.downstream.iter_mut().any(|(_, replica)| replica.copy_waits(cx)) {
            // Its link wakes the task as soon as it takes more: who sleeps meanwhile, as for writes, lets it run dry.
            return Next::At(self.deadline_ms(now).min(now.local_ms + COPY_LOOK_MS));
        }
        if lingers && !self.downstream.is_empty() && self.pace.ships() {
            return Next::Soon;
        }
        if group.doorbell.arm(cx.waker()) {
            // Somebody asked for something since this turn began: a load, another role.
            group.doorbell.disarm();
            return Next::Now;
        }
        let end = group.log.lock().last_seq();
        let mut is_any_behind = false;
        for (_, replica) in self.downstream.iter_mut().filter(|(_, replica)| replica.is_behind(end)) {
            is_any_behind = true;
            if replica.can_send(cx) {
                // A write came between the last look and the arming.
                group.doorbell.disarm();
                return if lingers { Next::Soon } else { Next::Now };
            }
        }
        if is_any_behind {
            // Its link pushes back, and will wake the task; writers need not, each time, meanwhile.
            group.doorbell.disarm();
            return Next::At(self.deadline_ms(now).min(now.local_ms + STALLED_LOOK_MS));
        }
        // Nobody waits for an answer from the primary, and who has replicas of its own collects for those already.
        let is_unhurried = self.downstream.is_empty() && group.desk.deadline_ms().is_none();
        self.may_linger = is_unhurried && self.pace.follows();
        Next::At(self.deadline_ms(now))
    }

    /// Whether each attached replica has applied all that was written.
    pub fn is_drained(&self) -> bool {
        let Some(group) = &self.cache.inner.group else { return true };
        let end = group.log.lock().last_seq();
        self.downstream.iter().all(|(_, replica)| replica.has_applied(end))
    }

    /// Tells every peer that this node goes, as far as that goes without waiting.
    pub fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        for (_, replica) in &mut self.downstream {
            replica.say_goodbye(cx);
        }
        self.downstream.clear();
    }

    fn run_parts(&mut self, cache: &Cache, group: &Group, now: Now, cx: &mut Context<'_>) -> Progress {
        let mut turn = Turn { cache, group, transport: &mut *self.transport, now, cx };
        let mut progress = Progress::default();
        group.roles.lock().settle(now.local_ms);
        while self.incoming.len() < INCOMING_MAX {
            let Poll::Ready(link) = turn.transport.poll_accept(turn.cx) else { break };
            self.incoming.insert(Incoming::new(link, now.local_ms));
            progress.has_more = true;
        }
        let mut taken: Vec<usize> =
            self.downstream.iter().map(|(_, replica)| usize::from(replica.slot())).collect();
        self.incoming.retain(|_, incoming| match incoming.turn(&mut turn, &taken) {
            incoming::Outcome::Waiting => true,
            incoming::Outcome::Done => false,
            incoming::Outcome::Attached(mut replica) => {
                if let Some((_, noted)) = &self.ends {
                    replica.session_mut().take_up_ends(noted, now);
                }
                taken.push(usize::from(replica.slot()));
                self.downstream.insert(*replica);
                progress.has_more = true;
                false
            }
        });
        progress.has_more |= group.config.bugs.has(Bug::WaitsByTurning) && !self.incoming.is_empty();
        if now.local_ms >= self.hints_due_ms {
            self.hints_due_ms = now.local_ms + HINT_INTERVAL_MS;
            hand_out_hints(&turn, &mut self.downstream);
        }
        let (epoch, role, history) = {
            let roles = group.roles.lock();
            (roles.epoch, roles.role(), roles.history())
        };
        self.downstream.retain(|_, replica| match replica.turn(&mut turn, role, history, epoch) {
            downstream::Outcome::Goes { progressed, has_more } => {
                progress.shipped |= progressed;
                progress.has_more |= has_more;
                true
            }
            downstream::Outcome::Ended => false,
        });
        progress.has_more |= hand_over(&mut turn, &mut self.downstream, epoch);
        progress.has_more |= self.upstream.turn(&mut turn);
        progress.has_more |= self.announcer.turn(&mut turn);
        progress.has_more |= self.campaign.turn(&mut turn);
        progress
    }

    /// Tells the others how the replicas stand: status, writers, and whoever waits for acknowledgements.
    fn publish(&mut self, cache: &Cache, group: &Group, now: Now) {
        let end = {
            let mut log = group.log.lock();
            log.has_old_reader =
                self.downstream.iter().any(|(_, replica)| !replica.session().lending.is_known);
            log.end(now.local_ms)
        };
        self.downstream.iter_mut().for_each(|(_, replica)| replica.note_end(end));
        group.has_replicas.store(!self.downstream.is_empty(), Ordering::Relaxed);
        let mut roles = group.roles.lock();
        match &mut self.ends {
            Some((history, noted)) if *history == roles.history() => noted.note(end, 0),
            ends => *ends = Some((roles.history(), Risk::new(end))),
        }
        roles.replicas_noted = (end.seq, now.local_ms);
        roles.replicas.clear();
        roles.replicas.extend(self.downstream.iter().map(|(_, replica)| replica.status(end.seq, now)));
        let standing = (roles.epoch, roles.link);
        let mode_above = roles.primary_mode.filter(|_| roles.role() == Role::Replica);
        self.is_awaited = mode_above.is_some_and(|mode| mode != AckMode::Async);
        let streams = roles.link == LinkState::Streaming;
        self.pace.note_followed(end, streams && mode_above == Some(AckMode::Async));
        count_in(&mut self.downstream, group, &mut roles);
        let reign = self.downstream.iter().filter(|(_, replica)| replica.is_of_reign(standing.0));
        let sessions: Vec<_> = reign.map(|(_, replica)| replica.session()).collect();
        let level = sessions.iter().filter(|session| session.is_level(now)).count() as u8;
        let afforded =
            |session: &&PrimarySession| session.has_been_level() && group.affords(session.risk(), now);
        roles.set_replicas_standing(level, sessions.iter().any(afforded));
        let reigns = roles.role() == Role::Primary;
        let acked = sessions.iter().filter(|_| reigns);
        let applied: Vec<Seq> = acked.filter_map(|session| session.holds()).collect();
        if group.lease.is_strict() && reigns {
            let needed = group.acks.needed();
            let asked = sessions.iter().filter_map(|session| session.granted_ms());
            group.lease.renew(reached_by(needed, asked), reached_by(needed, applied.iter().copied()));
        }
        let is_short = reigns && level < roles.acks_needed;
        let is_news = roles.serving() != cache.inner.serving();
        drop(roles);
        if is_news {
            let _gate = group.gate.lock();
            cache.inner.publish_serving(group);
        }
        group.acks.publish(&applied);
        self.shortage.note(is_short, now.local_ms, || cache.status());
        if standing != self.standing {
            // Who waits for a write of a reign that has ended must look whether it survived.
            self.standing = standing;
            group.acks.wake_all();
            group.desk.set_standing(group, reigns, standing.1, now.local_ms);
        }
    }

    /// Nobody waits for another node's load longer than that may take.
    fn attend_to_loads(&mut self, cache: &Cache, group: &Group, now: Now) {
        group.desk.expire(group, now.local_ms);
        if now.local_ms >= self.load_leases_due_ms {
            self.load_leases_due_ms = now.local_ms + LOAD_LEASES_INTERVAL_MS;
            cache.inner.forget_load_leases();
        }
    }

    /// Until when writes pause for a hand-over: also with nobody attached any more that has to be noticed.
    fn hands_over_until_ms(&self) -> Option<Millis> {
        self.cache.inner.group.as_ref()?.roles.lock().hands_over_until_ms
    }

    fn deadline_ms(&self, now: Now) -> Millis {
        let incoming = self.incoming.iter().map(|(_, incoming)| incoming.deadline_ms());
        let downstream = self.downstream.iter().map(|(_, replica)| replica.deadline_ms());
        let hints = (!self.downstream.is_empty()).then_some(now.local_ms + HINT_INTERVAL_MS);
        incoming
            .chain(downstream)
            .chain(hints)
            .chain(self.hands_over_until_ms())
            .chain([self.upstream.deadline_ms(), self.announcer.deadline_ms(), self.campaign.deadline_ms()])
            .chain([self.shortage.deadline_ms()])
            .chain(self.cache.inner.group.as_ref().and_then(|group| group.desk.deadline_ms()))
            .min()
            .unwrap_or(Millis::MAX)
    }
}

/// Whether replicas are asked for leases: in strict, and where a promotion needs promises, so that this primary knows who
/// has made none. By nobody else: a replica that may itself be stale counts nobody.
fn needs_leases(group: &Group) -> bool {
    let is_strict = group.lease.is_strict();
    if !is_strict && group.acks.needed() == 0 {
        return false;
    }
    let roles = group.roles.lock();
    roles.role() == Role::Primary && (is_strict || roles.positions_needed() > 1)
}

/// Has replicas count that have lost their memory, once that can't matter: as many others as the mode asks for have followed
/// this primary since, so there is no promotion that relies on a promise forgotten before.
fn count_in(downstream: &mut Slab<Downstream>, group: &Group, roles: &mut Roles) {
    let trusts_all = std::mem::take(&mut roles.trusts_attached);
    let epoch = roles.epoch;
    let waiting: Vec<(usize, u8, u64)> = downstream
        .iter()
        .filter(|(_, replica)| replica.is_of_reign(epoch) && replica.session().may_count())
        .map(|(index, replica)| (index, replica.slot(), replica.session().attached_ms()))
        .collect();
    for (index, slot, attached_ms) in waiting {
        let is_first_reign = matches!(group.log.lock().lineage().entries(), [only] if !only.promoted);
        let since = |granted_ms: u64| granted_ms > attached_ms;
        let sessions = downstream.iter().filter(|(_, replica)| replica.is_of_reign(epoch));
        let confirmed = sessions.filter(|(_, replica)| replica.session().granted_ms().is_some_and(since));
        let is_confirmed = confirmed.count() >= usize::from(group.acks.needed());
        // Asked in any case: it notes whom it was asked for.
        if roles.believes_forgetful(slot, is_first_reign) || trusts_all || is_confirmed {
            downstream[index].session_mut().count();
        }
    }
}

/// Hands the marks that were set since the last time to every replica.
fn hand_out_hints(turn: &Turn<'_, '_>, downstream: &mut Slab<Downstream>) {
    let hashes = turn.cache.inner.take_hints();
    if hashes.is_empty() {
        return;
    }
    let at_seq = turn.group.log.lock().last_seq();
    for (_, replica) in downstream {
        replica.queue_hints(at_seq, &hashes);
    }
}

/// Tells a replica that has everything to take over, if this primary is to hand over; or gives that up in time.
fn hand_over(turn: &mut Turn<'_, '_>, downstream: &mut Slab<Downstream>, epoch: u64) -> bool {
    let Some(until_ms) = turn.group.roles.lock().hands_over_until_ms else { return false };
    let _gate = turn.group.gate.lock();
    if turn.group.roles.lock().epoch != epoch {
        return false;
    }
    if turn.now.local_ms >= until_ms {
        turn.group.roles.lock().hands_over_until_ms = None;
        turn.cache.inner.publish_serving(turn.group);
        tracing::warn!("no replica was level in time: this primary goes on");
        return true;
    }
    // The one that takes over asks the others, this node included; those that are not here would not answer, and the answer
    // of one in the middle of a copy does not count.
    let streams = |replica: &Downstream| {
        replica.is_of_reign(epoch) && replica.session().state() == LinkState::Streaming
    };
    let asked = 1 + downstream.iter().filter(|(_, replica)| streams(replica)).count();
    if asked < usize::from(turn.group.roles.lock().positions_needed()) {
        return false;
    }
    let end = turn.group.log.lock().last_seq();
    for (_, replica) in downstream {
        let Some(address) = replica.address().map(str::to_owned) else { continue };
        if replica.is_of_reign(epoch) && replica.has_applied(end) && replica.say_handover(turn.cx) {
            tracing::info!(replica = address, "handed over");
            let term = turn.group.roles.lock().term_seen;
            turn.cache.inner.step_down(turn.group, term, Some(address));
            return true;
        }
    }
    false
}

/// What a node answers to a peer whose term has passed, and says of itself to whom it may concern.
fn fenced_notice(group: &Group) -> crate::replication::message::Fenced {
    let (term, primary) = {
        let roles = group.roles.lock();
        let primary = match roles.role() {
            Role::Primary => roles.own_address().map(str::to_owned),
            _ => roles.primary_address(),
        };
        (roles.term_seen.0, primary.unwrap_or_default())
    };
    let lineage = crate::replication::message::to_wire(group.log.lock().lineage());
    crate::replication::message::Fenced { term, lineage, primary }
}

/// What a node that no longer ships says to whoever it shipped to. One that came up with nothing, and has stepped down for that,
/// names its own reign instead of a newer one and nobody who reigns; so does one that was copied from it. By that its replicas
/// know that they hold none of the group's items either.
fn parting_notice(group: &Group) -> crate::replication::message::Fenced {
    let notice = fenced_notice(group);
    let misleads = group.roles.lock().misleads();
    let term = if misleads { group.log.lock().lineage().term().0 } else { notice.term };
    let primary = if misleads { String::new() } else { notice.primary };
    crate::replication::message::Fenced { term, primary, ..notice }
}

/// Steps down if a peer's notice of a newer term can be believed. One that came up with nothing has nothing to lose by it, and
/// the peer may hold what it lacks.
fn heed_fence(turn: &mut Turn<'_, '_>, fenced: &crate::replication::message::Fenced, peer_is_proven: bool) {
    let Ok(theirs) = crate::replication::message::from_wire(fenced.lineage.clone()) else { return };
    let term = crate::replication::position::Term(fenced.term);
    let _gate = turn.group.gate.lock();
    let ours = turn.group.log.lock().lineage().clone();
    let (believed, yields) = {
        let roles = turn.group.roles.lock();
        let sound = term > roles.term_seen && !term.is_too_far_above(roles.term_seen);
        let yields = roles.yields() && theirs.newest().is_some() && !ours.shares_branch_with(&theirs);
        (sound && (yields || admission::is_proven(peer_is_proven, &roles, &ours, &theirs)), yields)
    };
    if believed {
        let upstream = (!fenced.primary.is_empty()).then(|| fenced.primary.clone());
        tracing::warn!(
            term = term.0,
            primary = fenced.primary,
            "fenced: another node is primary by a newer term"
        );
        turn.cache.inner.step_down(turn.group, term, upstream);
        if let Some(position) = theirs.position().filter(|_| yields && !fenced.primary.is_empty()) {
            turn.group.roles.lock().note_holder(&fenced.primary, true, position.seq);
        }
    }
}

const _: () = assert!(PEERS_MAX <= INCOMING_MAX);
