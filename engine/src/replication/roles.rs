//! What this node is in its group, and whom it knows.
//!
//! Lives here: the role and all that changes with it, as plain data behind the roles' lock, and this node's
//! randomness. Not here: what a peer's first frame does to it (see `admission`), the log (see `log`), what an operator is told
//! of it (see `telling`).
//!
//! ```text
//!   bootstrap ──> Primary ──(a higher, proven term; follow)──> Fenced ──(resumes or installs)──> Replica
//!   follower  ──> Replica ──(promote)──> Primary                  └────────(promote)──> Primary
//!   restored  ──> Fenced ──(it was the primary, none is configured, and nobody else reigns)──> Primary
//! ```

use super::acks::AckMode;
use super::bug::{Bug, Bugs};
use super::cascade::Cascade;
use super::hello::{ADDRESS_BYTES_MAX, Hello, Purpose};

use super::position::{Branch, Lineage, Position, Seq, Term};
use super::quarantine::Quarantine;

use super::status::{LinkState, PromoteError, ReplicaStatus, Role};
use super::warning::Noticed;

use super::frame;
use super::message::{Plan, RejectCode};
use crate::config::{ReplicationConfig, Start};
use crate::error::WriteError;
use crate::serving::Serving;

mod beginning;
mod counting;
mod peers;
mod telling;

pub(crate) use beginning::Holder;

/// Addresses of other nodes that are kept; more are ignored.
pub(crate) const PEERS_MAX: usize = 16;

/// A promotion that asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidacy {
    /// How many positions it has to read, this node's among them.
    pub(crate) needed: u8,
    /// This node holds nothing of the group's, so whoever does speaks against it.
    pub(crate) is_empty: bool,
    /// A primary of another history, which would not believe this node's term, was met, and is asked whether it is there.
    pub(crate) has_rival: bool,
    /// When it is given up, on this node's own clock.
    pub(crate) until_ms: u64,
}

/// 1. `epoch` rises with every change of role or of the node to follow; a link made in an older epoch closes.
/// 2. `installing` implies `!has_data`: no position is claimed before an install ends.
/// 3. `unanswered` and `gone` are empty unless the role is `Primary`.
#[derive(Debug)]
pub(crate) struct Roles {
    role: Role,
    pub(crate) node: u128,
    pub(crate) slot: u8,
    slot_is_given: bool,
    pub(crate) group: u128,
    incarnation: u64,
    random: Random,
    pub(crate) bugs: Bugs,
    replica_reads: bool,
    /// The highest term that this node has believed.
    pub(crate) term_seen: Term,
    pub(crate) epoch: u64,
    /// Whom an operator has named since this node's role changed last, until it has answered.
    told: Option<String>,
    /// Whom to follow: the node that was named by the operator or by the primary itself.
    upstream: Option<String>,
    peers: Vec<String>,
    /// Those of them that the node which this one follows has named last: one that it names no longer was forgotten there.
    named_by_upstream: Vec<String>,
    /// Where it stands among replicas of replicas.
    pub(crate) cascade: Cascade,
    /// Full copies that failed.
    quarantine: Quarantine,
    /// Rises whenever this node leaves the history that it holds: what it ships to its own replicas ends there.
    histories: u64,
    own_address: Option<String>,
    /// What an operator types to promote this node.
    promote_command: Option<String>,
    pub(crate) has_data: bool,
    pub(crate) installing: bool,
    /// Whether some of what it held before a full copy may be there yet. Implies `installing`.
    clears: bool,
    /// Whether this follower had all that its primary had told of.
    pub(crate) level: bool,
    pub(crate) link: LinkState,
    /// How many replicas have to be level for a write to be taken.
    pub(crate) acks_needed: u8,
    /// Whether this primary answers within a lease only.
    pub(crate) is_strict: bool,
    /// How many attached replicas are level.
    level_replicas: u8,
    /// Whether a replica is within the budget of what may be lost, or there is no budget.
    within_budget: bool,
    has_budget: bool,
    /// What a write waits for at the node that this one follows, if it said so.
    pub(crate) primary_mode: Option<AckMode>,
    /// Until when, on this node's own clock, writes pause for a replica that is to take over.
    pub(crate) hands_over_until_ms: Option<u64>,
    /// A primary that began empty, and that nobody who held anything has joined: it has nothing that others lack. Of a
    /// replica: it was copied from one that has stepped down as such.
    pub(crate) young: bool,
    /// Until when, by this node's clock, a primary that was young still yields; only nodes that came with nothing have
    /// joined it. A node that has stepped down so far remembers it.
    settles_ms: Option<u64>,
    /// It came up with nothing, and met a node that holds the group's items.
    holder: Option<Holder>,
    /// It is to begin the group, once each node that it knows was asked whether it holds any of it.
    founds: bool,
    /// It was promoted with nothing of the group's, and nobody has followed it since.
    pub(crate) began_empty: bool,
    /// It was the primary when it was saved, and nobody was named whom to follow: it reigns on once each node that it
    /// knows of was asked and none reigns. Only while the role is `Fenced`.
    claims: bool,
    /// Slots whose replicas have counted in this reign; bit by bit.
    counted_slots: u16,
    /// It came up with nothing, and no primary has counted it since: what it held or promised before is not in what it holds.
    pub(crate) forgot: bool,
    /// An operator has set the mode: whoever is attached counts.
    pub(crate) trusts_attached: bool,
    /// Addresses of other nodes that an operator named.
    configured: Vec<String>,
    /// Own first frames that came to this node's own listener, and of which whoever dialled has not been told yet.
    heard_itself: u32,
    /// This follower is to be promoted once enough others have answered.
    pub(crate) candidacy: Option<Candidacy>,
    /// Why the last candidacy came to nothing.
    pub(crate) candidacy_refused: Option<PromoteError>,
    /// Peers that have not heard of this primary's term yet.
    unanswered: Vec<String>,
    /// Replicas of this reign that are gone: whoever comes back there is to hear who reigns.
    gone: Vec<String>,
    pub(crate) replicas: Vec<ReplicaStatus>,
    /// Where the log ended when `replicas` was noted, and when that was by this node's own clock.
    pub(crate) replicas_noted: (Seq, u64),
    pub(crate) installs: u64,
    pub(crate) catch_ups: u64,
    pub(crate) roll_backs: u64,
    pub(crate) rolled_back_keys: u64,
    pub(crate) log_waits: u64,
    pub(crate) rejects: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) noticed: Noticed,
    /// Whether a replicator runs; it has said by then where it listens.
    pub(crate) is_driven: bool,
}

impl Roles {
    pub(crate) fn new(config: &ReplicationConfig) -> Roles {
        let mut random = Random { seeded: config.random_seed };
        let (role, link) = match config.start {
            Start::Primary => (Role::Primary, LinkState::None),
            Start::Follower => (Role::Replica, LinkState::Connecting),
        };
        let has_budget = config.has_budget();
        let mut roles = Roles {
            role,
            node: config.node.unwrap_or_else(|| random.u128()),
            slot: config.slot,
            slot_is_given: config.slot_is_given,
            group: group_id(&config.group),
            incarnation: random.u64(),
            random,
            bugs: config.bugs,
            replica_reads: config.replica_reads,
            term_seen: Term::default(),
            epoch: 0,
            told: None,
            upstream: config.upstream.first().cloned(),
            peers: Vec::new(),
            named_by_upstream: Vec::new(),
            cascade: Cascade::new(config.upstream.first().filter(|_| config.cascades).cloned()),
            quarantine: Quarantine::default(),
            histories: 0,
            own_address: config.advertised.clone(),
            promote_command: config.promote_command.clone(),
            has_data: false,
            installing: false,
            clears: false,
            level: false,
            link,
            acks_needed: config.ack_mode.replicas(),
            is_strict: config.ack_mode.is_strict(),
            level_replicas: 0,
            within_budget: !has_budget,
            has_budget,
            primary_mode: None,
            hands_over_until_ms: None,
            young: false,
            settles_ms: None,
            holder: None,
            founds: false,
            began_empty: false,
            claims: false,
            counted_slots: 0,
            forgot: true,
            trusts_attached: false,
            configured: Vec::new(),
            heard_itself: 0,
            candidacy: None,
            candidacy_refused: None,
            unanswered: Vec::new(),
            gone: Vec::new(),
            replicas: Vec::new(),
            replicas_noted: (0, 0),
            installs: 0,
            catch_ups: 0,
            roll_backs: 0,
            rolled_back_keys: 0,
            log_waits: 0,
            rejects: 0,
            last_error: None,
            noticed: Noticed::default(),
            is_driven: false,
        };
        roles.learn_configured(config);
        roles
    }

    fn learn_configured(&mut self, config: &ReplicationConfig) {
        for peer in config.upstream.iter().chain(&config.peers) {
            self.learn_peer(peer);
        }
        self.configured = self.peers.clone();
    }

    /// Random for each start of the node.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn is_follower(&self) -> bool {
        matches!(self.role, Role::Replica | Role::Fenced)
    }

    /// What clients get from this node.
    pub(crate) fn serving(&self) -> Serving {
        match self.role {
            Role::Primary if self.is_unguarded() => Serving::Unguarded,
            Role::Primary if self.is_strict => Serving::Leased,
            Role::Standalone | Role::Primary => Serving::All,
            Role::Replica if self.replica_reads && !self.clears => Serving::Reads,
            Role::Replica => Serving::Replica,
            Role::Fenced => Serving::Fenced,
        }
    }

    fn is_unguarded(&self) -> bool {
        self.level_replicas < self.acks_needed || !self.within_budget || self.hands_over_until_ms.is_some()
    }

    pub(crate) fn has_level_replica(&self) -> bool {
        self.level_replicas > 0
    }

    /// Why writes are refused for want of replicas. The reason may have gone since the write was refused.
    pub(crate) fn shortage(&self) -> WriteError {
        let lacks_replicas = self.level_replicas < self.acks_needed;
        let exceeds_budget = self.has_budget && !self.within_budget;
        let handing_over = self.hands_over_until_ms.is_some();
        match (self.acks_needed > 0, self.has_budget) {
            _ if handing_over => WriteError::HandingOver,
            (true, _) if lacks_replicas || !exceeds_budget => {
                WriteError::NotEnoughReplicas { level: self.level_replicas, needed: self.acks_needed }
            }
            (_, true) => WriteError::RiskBudget,
            (_, false) => WriteError::HandingOver,
        }
    }

    /// Notes how the attached replicas stand.
    pub(crate) fn set_replicas_standing(&mut self, level: u8, within_budget: bool) {
        self.level_replicas = level;
        self.within_budget = within_budget || !self.has_budget;
    }

    /// Writes are refused for what replicas lack no longer.
    pub(crate) fn lift_budget(&mut self) {
        (self.has_budget, self.within_budget) = (false, true);
    }

    /// The first reign of a new group.
    pub(crate) fn begin_as_primary(&mut self) -> (Term, Branch, u64) {
        let term = Term::default().next_for(self.slot).expect("the first round has a term for each slot");
        self.term_seen = term;
        self.young = true;
        self.has_data = true;
        (term, Branch(self.random.u128()), self.random.u64())
    }

    /// The next reign, this node's; `None` when terms are used up.
    pub(crate) fn mint(&mut self, held: Term) -> Option<(Term, Branch, u64)> {
        let slot = if self.bugs.has(Bug::SharedTerm) { 0 } else { self.slot };
        let term = self.term_seen.max(held).next_for(slot)?;
        Some((term, Branch(self.random.u128()), self.random.u64()))
    }

    /// The reign that others have promised this node, by the very term that they promised: whoever of them has promised
    /// somebody else since has seen a higher one, and does not follow. `None` if it is none of this node's.
    pub(crate) fn mint_promised(&mut self, held: Term) -> Option<(Term, Branch, u64)> {
        let term = self.term_seen;
        let slot = if self.bugs.has(Bug::SharedTerm) { 0 } else { self.slot };
        (term > held && term.0 % 16 == u32::from(slot))
            .then(|| (term, Branch(self.random.u128()), self.random.u64()))
    }

    /// Takes up what an earlier process of this node was. It serves nothing until a primary has taken it, or it reigns.
    pub(crate) fn restore(
        &mut self,
        config: &ReplicationConfig,
        node: u128,
        term_seen: u32,
        reigned: bool,
        young: bool,
    ) {
        self.role = Role::Fenced;
        self.node = config.node.unwrap_or(node);
        self.term_seen = Term(term_seen);
        self.link = LinkState::Connecting;
        self.has_data = true;
        self.young = young;
        self.founds = false;
        self.forgot = false;
        self.claims = reigned && config.upstream.is_empty() && config.peers.is_empty();
    }

    /// Whether it is to reign on once nobody else does.
    pub(crate) fn claims(&self) -> bool {
        self.claims
    }

    /// Whether it is to reign on, and there is nobody to ask.
    pub(crate) fn reigns_unasked(&self) -> bool {
        self.claims && self.peers.is_empty()
    }

    /// Somebody else may reign: it does not by itself.
    pub(crate) fn forgo_claim(&mut self) {
        self.claims = false;
    }

    /// Reigns from now on; every known peer is to be told.
    pub(crate) fn become_primary(&mut self, term: Term) {
        (self.claims, self.founds, self.settles_ms, self.holder) = (false, false, None, None);
        (self.candidacy, self.forgot) = (None, false);
        self.term_seen = term;
        self.role = Role::Primary;
        self.epoch += 1;
        self.has_data = true;
        (self.installing, self.clears) = (false, false);
        self.young = false;
        self.set_replicas_standing(0, false);
        self.link = LinkState::None;
        (self.unanswered, self.gone) = (self.peers.clone(), Vec::new());
        self.noticed = Noticed::default();
        (self.upstream, self.told) = (None, None);
        // It was of following somebody.
        (self.primary_mode, self.last_error) = (None, None);
        self.quarantine.end();
        self.cascade.forget_path();
    }

    /// A primary reigns by another term from now on; every known peer is to be told.
    pub(crate) fn reign_by(&mut self, term: Term) {
        self.term_seen = term;
        self.share_items();
        (self.unanswered, self.gone) = (self.peers.clone(), Vec::new());
    }

    /// Stops reigning, and follows `upstream` once it is known. A node that never reigned just follows.
    pub(crate) fn step_down(&mut self, term: Term, upstream: Option<String>) {
        // A peer may take this node for the primary that an earlier process of it was.
        let upstream = upstream.filter(|address| self.own_address.as_deref() != Some(address));
        if term > self.term_seen {
            // A newer reign is worth more than what an operator said before it.
            self.told = None;
        }
        self.term_seen = self.term_seen.max(term);
        (self.claims, self.founds) = (false, false);
        if self.candidacy.take().is_some() {
            self.candidacy_refused = Some(PromoteError::Overruled);
        }
        if self.role == Role::Primary {
            self.role = Role::Fenced;
            self.level = false;
        }
        self.epoch += 1;
        self.link = LinkState::Connecting;
        self.unanswered.clear();
        self.gone.clear();
        self.noticed = Noticed::default();
        self.replicas.clear();
        self.hands_over_until_ms = None;
        self.set_replicas_standing(0, false);
        if let Some(address) = &upstream {
            // Another primary, or an operator's word: the next copy may be the one that succeeds.
            self.quarantine.end();
            self.learn_peer(address);
        }
        self.upstream = upstream;
        self.cascade.forget_path();
    }

    /// An operator has this node follow that one.
    pub(crate) fn was_told(&mut self, address: &str) {
        self.told = Some(address.to_owned());
    }

    /// Whether an operator has named a node that has not answered yet: it is looked for first.
    pub(crate) fn looks_for_told(&self) -> bool {
        self.told.is_some()
    }

    /// Whoever listens there has answered, or is to be followed no more.
    pub(crate) fn has_heard(&mut self, address: &str) {
        self.told = self.told.take().filter(|told| told != address);
    }

    /// A primary has taken this node as its replica: it follows now, and what it had beyond that is gone or will be.
    pub(crate) fn attached_to(&mut self, address: &str, node: u128, term: Term, plan: Plan) {
        // A parent says next what is above it.
        match self.cascade.is_parent(address) {
            true => {
                self.cascade.forget_path();
                self.parent_took(node);
            }
            false => self.cascade.below_primary(node),
        }
        self.cascade.was_taken(node, term);
        self.role = Role::Replica;
        self.claims = false;
        self.term_seen = self.term_seen.max(term);
        self.upstream = Some(address.to_owned());
        self.learn_peer(address);
        self.named_by_upstream.clear();
        self.has_heard(address);
        self.level = false;
        (self.primary_mode, self.last_error) = (None, None);
        self.noticed = Noticed::default();
        // It is copied from the very one that it was to wait for.
        self.holder = self.holder.take().filter(|holder| holder.address != address);
        self.count(plan);
        if plan != Plan::Install {
            self.share_items();
            self.quarantine.caught_up();
            self.link = LinkState::Streaming;
        }
    }

    /// Notes how a replica gets level, this node or one of its own.
    pub(crate) fn count(&mut self, plan: Plan) {
        let counter = match plan {
            Plan::Install => &mut self.installs,
            Plan::Resume => &mut self.catch_ups,
            Plan::RollBack { .. } => &mut self.roll_backs,
        };
        *counter += 1;
    }

    pub(crate) fn set_installing(&mut self, installing: bool) {
        match installing {
            true => self.leave_history(),
            false => self.share_items(),
        }
        self.installing = installing;
        self.has_data = !installing;
        self.link = if installing { LinkState::Installing } else { LinkState::Streaming };
    }

    /// What this node holds is dropped, bit by bit, for a full copy: from now on it claims none of it and shows none of it.
    pub(crate) fn begin_clearing(&mut self) {
        if !self.clears || self.link != LinkState::Installing {
            self.clears = true;
            self.set_installing(true);
        }
    }

    /// All of that is gone.
    pub(crate) fn end_clearing(&mut self) {
        self.clears = false;
    }

    /// A full copy is complete.
    pub(crate) fn copy_complete(&mut self, now_ms: u64) {
        self.set_installing(false);
        self.quarantine.copy_complete(now_ms);
    }

    /// Whether a full copy that is about to begin counts as one that failed, since the one before was made a moment ago.
    pub(crate) fn is_copied_again(&mut self, now_ms: u64) -> bool {
        self.quarantine.is_copied_again(now_ms)
    }

    /// Addresses of the other nodes of the group, as far as an operator named them.
    pub(crate) fn configured_others(&self) -> Vec<String> {
        let is_other = |address: &&String| Some(address.as_str()) != self.own_address.as_deref();
        self.configured.iter().filter(is_other).cloned().collect()
    }

    /// Addresses of the other nodes of the group that this one has heard of, in whatever way.
    pub(crate) fn known_others(&self) -> Vec<String> {
        let is_other = |address: &&String| Some(address.as_str()) != self.own_address.as_deref();
        let mut others: Vec<String> = self.peers.iter().filter(is_other).cloned().collect();
        // There may have been no room for it among the peers.
        let holder = self.holder().filter(|holder| holder.listens).map(|holder| holder.address.clone());
        for address in self.upstream_address().into_iter().chain(holder) {
            if is_other(&&address) && !others.contains(&address) {
                others.push(address);
            }
        }
        others
    }

    /// Whether a primary is at hand: this node is attached to it, or would be if full copies of it did not fail.
    pub(crate) fn has_primary(&self) -> bool {
        matches!(self.link, LinkState::Installing | LinkState::Streaming) || self.is_quarantined()
    }

    /// Whether this node holds nothing of the group's that is whole: it is empty, in the middle of a full copy, or began a
    /// group of its own that nobody has joined.
    pub(crate) fn lacks_groups_items(&self) -> bool {
        !self.has_data || self.young || self.began_empty || self.holder.is_some()
    }

    /// Whether this node is to be promoted, and follows nobody meanwhile: its own term is above all that it follows.
    pub(crate) fn has_promised_itself(&self) -> bool {
        self.candidacy.is_some() && self.link == LinkState::Connecting
    }

    /// Its promise to itself came to nothing: it believes what it did before, and follows whom it did.
    pub(crate) fn take_promise_back(&mut self, term: Term, upstream: Option<String>) {
        self.term_seen = term;
        self.upstream = upstream;
    }

    /// The history that this node holds, by a number that changes when it leaves that.
    pub(crate) fn history(&self) -> u64 {
        self.histories
    }

    /// What this node holds is about to be cut back or replaced.
    pub(crate) fn leave_history(&mut self) {
        self.histories += 1;
    }

    /// The address of the node that this one follows, or looks for first.
    pub(crate) fn upstream_address(&self) -> Option<String> {
        if self.is_follower() { self.upstream.clone() } else { None }
    }

    /// A full copy has failed, or was one that this node must not take; how long to wait before the next one, if that is
    /// longer than usual.
    pub(crate) fn copy_failed(&mut self) -> Option<u64> {
        let random = self.random.u64();
        self.quarantine.copy_failed(random)
    }

    /// Full copies that failed one after the other.
    pub(crate) fn copy_failures(&self) -> u32 {
        self.quarantine.failures()
    }

    /// Whether copies fail again and again, and this node holds nothing whole meanwhile.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.puts_copies_off() && !self.has_data
    }

    /// Whether copies fail again and again, or do not last, and this node lacks what its primary has. One that refuses to be
    /// copied lacks nothing.
    pub(crate) fn puts_copies_off(&self) -> bool {
        self.quarantine.is_on() && self.is_follower() && !(self.has_data && self.level)
    }

    /// The address where the primary listens, as far as it is known, if this node is not it.
    pub(crate) fn primary_address(&self) -> Option<String> {
        self.upstream_address().map(|upstream| self.cascade.primary.clone().unwrap_or(upstream))
    }

    pub(crate) fn peers(&self) -> &[String] {
        &self.peers
    }

    pub(crate) fn own_address(&self) -> Option<&str> {
        self.own_address.as_deref()
    }

    /// Says where this node listens, unless the configuration has named another address.
    pub(crate) fn set_own_address(&mut self, address: String) {
        let own = self.own_address.get_or_insert(address).clone();
        self.forget_peer(&own);
    }

    /// Whether it takes another slot where its own is taken.
    pub(crate) fn may_move(&self) -> bool {
        !self.slot_is_given && self.is_follower()
    }

    /// A primary said that this follower's slot is taken: the next one, unless an operator gave it.
    pub(crate) fn move_to_next_slot(&mut self) -> bool {
        if !self.may_move() {
            return false;
        }
        self.slot = (self.slot + 1) % 16;
        true
    }

    /// Notes that a peer was refused, or refused this node; whether the last thing that went wrong was another one.
    pub(crate) fn note_reject(&mut self, peer: &str, code: RejectCode) -> bool {
        self.rejects += 1;
        let error = Some(format!("{peer}: {}", code.describe()));
        let is_news = self.last_error != error;
        self.last_error = error;
        is_news
    }

    /// This peer is attached: what went wrong with it has passed.
    pub(crate) fn forgive(&mut self, peer: &str) {
        let is_its = |error: &String| error.strip_prefix(peer).is_some_and(|rest| rest.starts_with(": "));
        if self.last_error.as_ref().is_some_and(is_its) {
            self.last_error = None;
        }
    }

    /// What a write waits for at this node.
    pub(crate) fn ack_mode(&self) -> AckMode {
        match (self.acks_needed, self.is_strict) {
            (replicas @ 1.., true) => AckMode::Strict { replicas },
            (replicas, _) => AckMode::of(replicas),
        }
    }

    /// This node's first frame on a link that it dialled.
    pub(crate) fn hello(
        &self,
        purpose: Purpose,
        lineage: &Lineage,
        position: Option<Position>,
        frame_bytes_max: usize,
        clock_ms: u64,
    ) -> Hello {
        Hello {
            version: frame::VERSION,
            purpose,
            group: self.group,
            node: self.node,
            incarnation: self.incarnation,
            slot: self.slot,
            term_seen: self.term_seen,
            lineage: lineage.clone(),
            position: position.filter(|_| self.has_data && !self.doubts()),
            undo_floor: None,
            grants_leases: true,
            frame_bytes_max: frame_bytes_max as u32,
            clock_ms,
            address: self.own_address.clone().unwrap_or_default(),
            cascades: false,
            ack_mode: Some(self.ack_mode()),
            slot_is_free: self.may_move(),
            takes_apart: false,
            knows_loads: true,
            follows_evictions: true,
            forgot: self.forgot,
        }
    }
}

/// Random numbers: the system's, or a seeded sequence for simulations.
#[derive(Debug)]
struct Random {
    seeded: Option<u64>,
}

impl Random {
    fn u64(&mut self) -> u64 {
        match &mut self.seeded {
            None => getrandom::u64().expect("the system gives random numbers"),
            Some(state) => {
                // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
        }
    }

    fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }
}

/// The number of a group's name: 128-bit FNV-1a.
pub(crate) fn group_id(name: &str) -> u128 {
    name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_steps_down_is_no_candidate_any_more_and_whoever_asked_is_told() {
        let mut roles = Roles::new(&ReplicationConfig::follower().node(1).random_seed(1));
        roles.candidacy = Some(Candidacy { needed: 2, is_empty: false, has_rival: false, until_ms: 9 });
        roles.step_down(Term(33), Some("b".to_owned()));
        assert!(!roles.has_promised_itself() && roles.candidacy.is_none());
        assert_eq!(roles.candidacy_refused, Some(PromoteError::Overruled));
    }

    #[test]
    fn a_write_is_told_of_a_budget_only_where_there_is_one() {
        let semi_sync = ReplicationConfig::primary().ack(AckMode::of(1));
        let budget = ReplicationConfig::primary().max_unacked_ms(10);
        // In the middle: a replica became level between the refusal and the question why.
        let lacks = |level| WriteError::NotEnoughReplicas { level, needed: 1 };
        for (config, level, within, told) in [
            (semi_sync.clone(), 0, true, lacks(0)),
            (semi_sync.clone(), 1, true, lacks(1)),
            (ReplicationConfig::primary(), 1, true, WriteError::HandingOver),
            (budget.clone(), 0, true, WriteError::RiskBudget),
            (budget, 0, false, WriteError::RiskBudget),
            (semi_sync.clone().max_unacked_ms(10), 1, false, WriteError::RiskBudget),
            (semi_sync.max_unacked_ms(10), 0, false, lacks(0)),
        ] {
            let mut roles = Roles::new(&config);
            roles.set_replicas_standing(level, within);
            assert_eq!(roles.shortage(), told, "{config:?}");
        }
    }
}
