//! Changes of role: promote, follow, step down; and an operator's word that another node is gone.
//!
//! Lives here: what a change does to the log, the roles and what clients get, in the one safe order.
//! Not here: what makes a node change (operators; `driver` on what peers say).
//!
//! Each change holds the gate, so that nothing is applied meanwhile. A node that stops serving passes through every
//! shard's lock before the change is done: each write has either finished under the old role or is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::{Deadline, Stopwatch};
use crate::replication::bug::Bug;
use crate::replication::position::Term;
use crate::replication::roles::Candidacy;
use crate::replication::{PromoteError, Role};
use crate::serving::Serving;

use super::{Cache, Group, Inner, attention, is_inside_read};

/// How long a promotion asks others.
const PROMOTION_WITHIN: Duration = Duration::from_secs(2);

/// How long a node that holds nothing asks whether another one does, where not all answer.
pub(crate) const INQUIRY_WITHIN: Duration = Duration::from_secs(1);

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// The longest address of a node.
const ADDRESS_BYTES_MAX: usize = 256;

/// Why a node becomes the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promotion {
    /// Somebody asked for it.
    Asked,
    /// It was to begin the group, and nobody who answered holds any of it.
    Founding,
    /// Somebody asked for it, and enough others have promised in this epoch to follow nobody else: none of the leases that
    /// they granted counts any more from this moment on.
    Elected { from_ms: u64, epoch: u64 },
    /// An operator overrules what speaks against it.
    Forced,
    /// The primary before has told it to take over, and reigns no longer.
    HandedOver,
}

impl Cache {
    /// Makes this node the primary, under a new term and branch, and gives the term. A primary stays what it is.
    ///
    /// It waits for no peer unless fewer replicas acknowledge a write than there are other nodes: then as many are asked as it
    /// must know of so that no acknowledged write is lost, for at most two seconds, by a
    /// [`Replicator`](crate::Replicator) that another thread drives. Other writes of the old primary that have not arrived are
    /// lost; the status says how many another node had ([`Warning::HeldMore`](crate::Warning::HeldMore)), if one answers. The
    /// replicator tells every known peer, which fences the old primary.
    ///
    /// A node that holds nothing of the group's (it is empty, in the middle of a full copy, or began a group of its own that
    /// nobody has joined) asks all nodes that it knows whether they do, for at most a second, if it has a replicator. Where
    /// none says so it is promoted; but who holds items all the same is not copied over by it, unless it is forced.
    ///
    /// In strict it answers only once no lease counts any more that it has granted to the old primary, about a second after
    /// it last heard of it ([`Status::lease`](crate::Status::lease)).
    ///
    /// # Errors
    /// [`PromoteError::NotPromotable`] on an empty node, or one in the middle of a full copy, while its primary is
    /// there; in strict on each node that is not [promotable](crate::Status::promotable). [`PromoteError::PeerHolds`] on
    /// one that holds nothing of the group's, where another one answers that does; [`PromoteError::PeerHeld`] where it has met
    /// one that did, which can't be asked now; [`PromoteError::Rival`] where a primary of another history would reign on.
    /// [`PromoteError::NotEnoughPositions`], [`PromoteError::NotCaughtUp`] or [`PromoteError::Overruled`] where others are
    /// asked. `force` overrules all of it, and waits for no lease; on a primary it only gives the right to replace what others
    /// hold, where that is not there yet. What has arrived of an unfinished copy stays.
    pub fn promote(&self, force: bool) -> Result<u32, PromoteError> {
        let (begun, until) = (self.begin_promotion(force)?, Deadline::after(PROMOTION_WITHIN * 2));
        if let Some(term) = begun {
            return Ok(term);
        }
        loop {
            std::thread::sleep(LOOK);
            let group = self.inner.group_to_change()?;
            let mut roles = group.roles.lock();
            if roles.role() == Role::Primary {
                return Ok(roles.term_seen.0);
            }
            if roles.candidacy.is_none() || until.has_passed() {
                // Whoever is told no must not find it promoted later.
                roles.candidacy = None;
                let why = roles.candidacy_refused.take();
                drop(roles);
                group.doorbell.ring();
                return Err(why.unwrap_or(PromoteError::Overruled));
            }
        }
    }

    /// As [`Cache::promote`], without waiting: `None` if others have to be asked first, which the
    /// [`Replicator`](crate::Replicator) does; the status tells when this node reigns.
    ///
    /// # Errors
    /// As there.
    pub fn begin_promotion(&self, force: bool) -> Result<Option<u32>, PromoteError> {
        let group = self.inner.group_to_change()?;
        let gate = group.gate.lock();
        let asked = match force || group.config.bugs.has(Bug::PromotionUnasked) {
            true => None,
            false => self.candidacy(group)?,
        };
        let Some(candidacy) = asked else {
            drop(gate);
            let promotion = if force { Promotion::Forced } else { Promotion::Asked };
            return self.promote_as(promotion).map(Some);
        };
        {
            let mut roles = group.roles.lock();
            roles.candidacy.get_or_insert(candidacy);
            roles.candidacy_refused = None;
        }
        drop(gate);
        group.doorbell.ring();
        Ok(None)
    }

    /// What has to be asked before this node may be promoted: by one that holds nothing whether anybody does; by one that
    /// may lack what was acknowledged, who has most. `None` if nothing.
    fn candidacy(&self, group: &Group) -> Result<Option<Candidacy>, PromoteError> {
        let roles = group.roles.lock();
        let (needed, is_empty) = (roles.positions_needed(), roles.lacks_groups_items());
        let until_ms = |within: Duration| self.local_now_ms().saturating_add(within.as_millis() as u64);
        if !roles.is_follower() || (is_empty && roles.has_primary()) {
            return Ok(None);
        }
        let can_ask = roles.is_driven && !roles.known_others().is_empty();
        if is_empty && let Some(holder) = roles.holder().filter(|holder| !can_ask || !holder.listens) {
            return Err(PromoteError::PeerHeld { address: holder.address.clone(), seq: holder.seq });
        }
        if is_empty && can_ask {
            return Ok(Some(Candidacy {
                needed: roles.answers_needed_by_empty(),
                is_empty,
                has_rival: false,
                until_ms: until_ms(INQUIRY_WITHIN),
            }));
        }
        if needed == 1 {
            let has_rival = roles.is_driven && roles.noticed.rival_to_ask().is_some();
            let until_ms = until_ms(INQUIRY_WITHIN);
            return Ok(has_rival.then_some(Candidacy { needed, is_empty, has_rival, until_ms }));
        }
        if !roles.has_data {
            return Err(PromoteError::NotPromotable("empty, or in the middle of a full copy"));
        }
        if roles.is_strict {
            roles.promotable().map_err(PromoteError::NotPromotable)?;
        }
        Ok(Some(Candidacy {
            needed,
            is_empty: false,
            has_rival: false,
            until_ms: until_ms(PROMOTION_WITHIN),
        }))
    }

    /// The primary before has told this node to take over, which has all that was acknowledged then. Where others may have
    /// promised somebody else to follow it meanwhile, and acknowledge its writes, they are asked first all the same.
    pub(crate) fn take_over(&self) -> Result<(), PromoteError> {
        let must_ask = {
            let group = self.inner.group_to_change()?;
            let roles = group.roles.lock();
            roles.positions_needed() > 1
        };
        match must_ask {
            true => self.begin_promotion(false).map(|_| ()),
            false => self.promote_as(Promotion::HandedOver).map(|_| ()),
        }
    }

    pub(crate) fn promote_as(&self, promotion: Promotion) -> Result<u32, PromoteError> {
        let force = promotion == Promotion::Forced;
        let group = self.inner.group_to_change()?;
        let gate = group.gate.lock();
        let mut roles = group.roles.lock();
        if roles.role() == Role::Primary {
            drop(roles);
            if force {
                self.inner.entitle(group);
            }
            return Ok(group.roles.lock().term_seen.0);
        }
        if !force && roles.has_primary() && !roles.has_data {
            let why = if roles.installing { "in the middle of a full copy" } else { "empty" };
            return Err(PromoteError::NotPromotable(why));
        }
        if let Promotion::Elected { epoch, .. } = promotion
            && roles.epoch != epoch
        {
            return Err(PromoteError::Overruled);
        }
        if !force && roles.is_strict && promotion != Promotion::Founding {
            roles.promotable().map_err(PromoteError::NotPromotable)?;
        }
        let mut log = group.log.lock();
        let held = log.last_seq();
        let (term, branch, random) = match promotion {
            Promotion::Elected { .. } => {
                roles.mint_promised(log.lineage().term()).ok_or(PromoteError::Overruled)?
            }
            _ => roles.mint(log.lineage().term()).ok_or(PromoteError::TermsExhausted)?,
        };
        let was_installing = roles.installing;
        // Part of a copy is the group's as well; but one that holds nothing replaces nobody's items unless it was forced.
        let begins_anew = roles.lacks_groups_items() && !was_installing;
        log.mint(term, branch, random, force || !begins_anew || group.config.bugs.has(Bug::EmptiesOthers));
        let is_pair = roles.peers().len() <= 1;
        roles.become_primary(term);
        roles.began_empty = begins_anew && !force;
        if promotion == Promotion::Founding {
            roles.begin_young();
        }
        group.acks.clear();
        group.lease.begin(match promotion {
            Promotion::Asked => group.lease.granted_is_over_ms(),
            Promotion::Elected { from_ms, .. } => from_ms.max(group.lease.granted_is_over_ms()),
            // The operator says that the old primary is gone; or it said that it reigns no longer.
            Promotion::Forced | Promotion::HandedOver | Promotion::Founding => self.inner.lease_now_ms(),
        });
        if force || (is_pair && promotion != Promotion::Founding) {
            // The one other node has reigned, and can't be promoted before it has all that this one has.
            group.lease.do_without(held);
        }
        drop(log);
        drop(roles);
        if was_installing {
            self.inner.end_install();
        }
        if promotion != Promotion::HandedOver {
            self.inner.end_loads_of_primary(group);
        }
        self.inner.publish_serving(group);
        drop(gate);
        group.doorbell.ring();
        match promotion {
            Promotion::Founding => {
                tracing::info!(term = term.0, "this node begins its group: no other holds any of it")
            }
            _ => tracing::info!(term = term.0, "promoted: this node is the primary now"),
        }
        Ok(term.0)
    }

    /// Begins to hand this primary's role over to a replica: from now on writes are refused
    /// ([`WriteError::HandingOver`](crate::WriteError::HandingOver)) until a level replica has everything and is told to take
    /// over, or `within` has passed and this node goes on as before. Once the replica was told this node reigns no longer.
    /// No write that was answered is lost.
    ///
    /// # Errors
    /// [`PromoteError::NotPrimary`], [`PromoteError::NobodyLevel`], or the cache was made without replication.
    pub fn begin_hand_over(&self, within: Duration) -> Result<(), PromoteError> {
        let group = self.inner.group_to_change()?;
        let _gate = group.gate.lock();
        {
            let mut roles = group.roles.lock();
            if roles.role() != Role::Primary {
                return Err(PromoteError::NotPrimary { primary: roles.primary_address() });
            }
            if !roles.has_level_replica() {
                return Err(PromoteError::NobodyLevel);
            }
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            roles.hands_over_until_ms = Some(self.local_now_ms().saturating_add(within_ms));
        }
        // Behind this each write is in the log, or is refused.
        self.inner.publish_serving(group);
        group.doorbell.ring();
        Ok(())
    }

    /// [`Cache::begin_hand_over`], and waits until the replica reigns; for how long nobody took writes. Needs a
    /// [`Replicator`](crate::Replicator) that is driven by another thread.
    ///
    /// # Errors
    /// As there; [`PromoteError::NotTakenOver`] if it did not come to that within twice `within`.
    pub fn hand_over(&self, within: Duration) -> Result<Duration, PromoteError> {
        let (pause, until) = (Stopwatch::start(), Deadline::after(within.saturating_mul(2)));
        let term = self.status().term;
        self.begin_hand_over(within)?;
        loop {
            let status = self.status();
            if status.role != Role::Primary && status.term > term {
                return Ok(Duration::from_nanos(pause.elapsed_ns()));
            }
            let serving = self.inner.serving();
            let goes_on = status.role == Role::Primary && matches!(serving, Serving::All | Serving::Leased);
            if goes_on || until.has_passed() {
                return Err(PromoteError::NotTakenOver);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes this node a follower of the node that listens for replication at `primary`. What it holds is kept if the other
    /// has all of it. A primary refuses, unless it began empty, holds nothing and has no replica: with `force` it stops
    /// serving at once, and serves nothing until it follows.
    ///
    /// # Errors
    /// [`PromoteError::Reigns`]; the address is none, or this node's own; the cache was made without replication.
    pub fn follow(&self, primary: &str, force: bool) -> Result<(), PromoteError> {
        let group = self.inner.group_to_change()?;
        if primary.is_empty() || primary.len() > ADDRESS_BYTES_MAX {
            return Err(PromoteError::BadAddress);
        }
        let _gate = group.gate.lock();
        // Before the roles are locked: a writer asks for them with its shard locked.
        let holds_nothing = self.stats().items == 0;
        {
            let roles = group.roles.lock();
            if roles.own_address() == Some(primary) {
                return Err(PromoteError::OwnAddress);
            }
            let is_bare = roles.young && roles.replicas.is_empty() && holds_nothing;
            if !force && roles.role() == Role::Primary && !is_bare {
                let (term, replicas) = (roles.term_seen.0, roles.replicas.len());
                return Err(PromoteError::Reigns { term, replicas });
            }
        }
        if group.config.cascades {
            group.roles.lock().cascade.set_parent(primary);
        }
        self.inner.step_down(group, Term::default(), Some(primary.to_owned()));
        group.roles.lock().was_told(primary);
        tracing::info!(primary, "told to follow");
        Ok(())
    }

    /// Forgets a node that is gone for good: a primary tells it no longer who reigns, nor warns that it was not told
    /// ([`Warning::Untold`](crate::Warning::Untold)), and the replicas that are attached forget it as well. It is learned anew if it
    /// calls or is named again. How many nodes a promotion asks ([`ReplicationConfig::peer`](crate::ReplicationConfig::peer))
    /// stays as configured.
    ///
    /// A node that is there all the same, and was the primary, is not fenced until it hears of a newer one by itself.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, PromoteError, ReplicationConfig};
    /// let cache = Cache::new(Config::new().replication(ReplicationConfig::primary().peer("10.0.0.2:11219")))?;
    /// cache.forget_peer("10.0.0.2:11219").expect("it is known");
    /// assert_eq!(cache.forget_peer("10.0.0.2:11219"), Err(PromoteError::NoPeer));
    /// # Ok::<(), hotspare::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Nobody is known there, or whoever is there is attached; the cache was made without replication.
    pub fn forget_peer(&self, address: &str) -> Result<(), PromoteError> {
        let group = self.inner.group_to_change()?;
        let _gate = group.gate.lock();
        let mut roles = group.roles.lock();
        let follows = roles.has_primary() && roles.upstream_address().as_deref() == Some(address);
        if follows || roles.replicas.iter().any(|replica| replica.address == address) {
            return Err(PromoteError::Attached);
        }
        if !roles.forget_peer(address) {
            return Err(PromoteError::NoPeer);
        }
        tracing::info!(address, "a peer was forgotten");
        Ok(())
    }
}

impl Inner {
    pub(super) fn group_to_change(&self) -> Result<&Group, PromoteError> {
        let group = self.group.as_ref().ok_or(PromoteError::Standalone)?;
        if is_inside_read() { Err(PromoteError::InsideRead) } else { Ok(group) }
    }

    /// An operator has promoted by force a node that reigns already: if no promotion of the group's items minted its branch,
    /// it gets one that may replace what others hold. The caller holds the gate.
    fn entitle(&self, group: &Group) {
        let mut roles = group.roles.lock();
        let mut log = group.log.lock();
        if log.lineage().newest().is_some_and(|newest| newest.promoted) {
            return;
        }
        let Some((term, branch, random)) = roles.mint(log.lineage().term()) else { return };
        log.mint(term, branch, random, true);
        roles.reign_by(term);
        drop(log);
        drop(roles);
        group.doorbell.ring();
        tracing::warn!(
            term = term.0,
            "promoted by force: what others hold is replaced by what this primary holds"
        );
    }

    /// Reigns on by a term above one that was seen; no promotion, so it gives no right to replace anybody's items. The
    /// caller holds the gate.
    pub(crate) fn outgrow(&self, group: &Group, seen: Term) {
        let mut roles = group.roles.lock();
        if let Some((term, branch, random)) = roles.mint(seen) {
            group.log.lock().mint(term, branch, random, false);
            roles.term_seen = term;
        }
    }

    /// A restored primary reigns on if it still claims that, under a term and branch of its own; no promotion, so it gives
    /// no right to replace anybody's items.
    pub(crate) fn reign_on(&self, group: &Group) {
        let _gate = group.gate.lock();
        let mut roles = group.roles.lock();
        if !roles.claims() {
            return;
        }
        let mut log = group.log.lock();
        let Some((term, branch, random)) = roles.mint(log.lineage().term()) else {
            roles.forgo_claim();
            return tracing::error!("the restored primary has used all terms up: begin a new group");
        };
        log.mint(term, branch, random, false);
        drop(log);
        let young = roles.young;
        roles.become_primary(term);
        group.lease.begin(group.lease.granted_is_over_ms());
        roles.young = young;
        drop(roles);
        self.publish_serving(group);
        group.doorbell.ring();
        tracing::info!(term = term.0, "restored: this node is the primary, as before");
    }

    /// Stops serving, for a newer term or at an operator's word. The caller holds the gate.
    pub(crate) fn step_down(&self, group: &Group, term: Term, upstream: Option<String>) {
        {
            let mut roles = group.roles.lock();
            roles.step_down(term, upstream);
            group.lease.begin(0);
        }
        group.acks.clear();
        self.publish_serving(group);
        group.doorbell.ring();
    }

    /// Makes what clients get follow the role.
    pub(crate) fn publish_serving(&self, group: &Group) {
        let serving = group.roles.lock().serving();
        let before = self.serving.swap(serving as u8, Ordering::AcqRel);
        // The gate is held, so no other change of role comes in between.
        match serving {
            Serving::All => self.attention.fetch_and(!attention::SERVING, Ordering::AcqRel),
            _ => self.attention.fetch_or(attention::SERVING, Ordering::AcqRel),
        };
        if Serving::from(before).reigns() {
            for cell in &self.shards {
                drop(cell.lock());
            }
        }
        if !serving.reigns()
            && let Err(why) = self.check_writable()
        {
            self.refuse_unfinished(&why);
        }
    }
}
