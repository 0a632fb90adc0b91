//! One loader for the group: who of all nodes loads a key, by leases in the log.
//!
//! Lives here: giving, ending and checking leases. Not here: their table (see `leases`), how a replica waits (see `desk`),
//! what is said between nodes (see `replication::loads`).
//!
//! ```text
//!   primary:  LendLoad ──> Put (it was loaded), EndLoad (it was not), any other write, a flush, or its time: over
//! ```
//! The primary alone gives leases, under the key's shard's lock, and logs them; every node has what the log says in its
//! table, so that a promoted one goes on from there. A lease is over with the next record of its key: so what was loaded
//! under one that still stands is no older than anything that was written.
//!
//! Where an `EndLoad` can't be logged, since a replica is attached that does not know these records (an older version), the
//! lease is left to its time (ten seconds, unless the policy says otherwise): who waits for that load waits so long, and then
//! loads. Nothing old comes of it, and no new lease is given while such a replica is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::clock::Millis;
use crate::mutation::{Marks, Mutation, Version};
use crate::replication::bug::Bug;
use crate::replication::loads::{LEASE_MS_MAX, Question, Yield};
use crate::replication::message::{LoadAnswer, LoadVerdict};
use crate::storage::Meta;

use super::super::write::{Locked, Refusal};
use super::super::{Group, Inner, ShardCell, is_inside_read};
use super::flight::{Flight, Then, forget_if_unwanted};
use super::{LoadLease, LoadLeases, Place, Store, Wanted};

/// How long an item may take that the primary says it has, in milliseconds.
const PRESENT_WITHIN_MS: u64 = 500;

/// What the clocks of two nodes may be apart when a lease is over, in milliseconds.
const MARGIN_MS: u64 = 20;

/// What a node that asks is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lent {
    Granted { lease: Version, until_ms: Millis },
    Held { until_ms: Millis },
    Present { version: Version },
    Refused,
}

impl Lent {
    pub(crate) fn verdict(self) -> LoadVerdict {
        match self {
            Lent::Granted { lease, until_ms } => LoadVerdict::Granted { lease: lease.0, until_ms },
            Lent::Held { until_ms } => LoadVerdict::Held { until_ms },
            Lent::Present { .. } => LoadVerdict::Present,
            Lent::Refused => LoadVerdict::Refused,
        }
    }
}

/// The table, and what it does to writers: they look for loads only while there are any.
impl Inner {
    fn change_leases<R>(&self, cell: &mut ShardCell, change: impl FnOnce(&mut LoadLeases) -> R) -> R {
        let before = cell.load_leases.len();
        let result = change(&mut cell.load_leases);
        let after = cell.load_leases.len();
        if after > before {
            self.flights_under_way.fetch_add(after - before, Ordering::SeqCst);
        } else {
            self.flights_under_way.fetch_sub(before - after, Ordering::SeqCst);
        }
        result
    }

    fn wake_later(&self, woken: Vec<Waker>) {
        if let Some(group) = &self.group {
            group.sleepers.wake_later(woken);
        }
    }

    /// The key was written to, under this version or a lower one: who loads it may have read its source before. A replica asks for
    /// each record, and nearly always there is nothing.
    #[inline]
    pub(crate) fn overtake_loads(&self, cell: &mut ShardCell, key: &[u8], by: Version) {
        if !cell.flights.is_empty() || cell.load_leases.len() > 0 {
            self.overtake_those(cell, key, by);
        }
    }

    #[cold]
    fn overtake_those(&self, cell: &mut ShardCell, key: &[u8], by: Version) {
        let woken = cell.flights.overtake(key, by);
        self.wake_later(woken);
        self.change_leases(cell, |leases| leases.remove(key, by));
    }

    /// Another history is taken, under another hash.
    pub(crate) fn forget_loads(&self, cell: &mut ShardCell) {
        let woken = cell.flights.overtake_all();
        self.wake_later(woken);
        self.change_leases(cell, LoadLeases::clear);
    }

    /// Forgets leases that have run out.
    pub(crate) fn forget_load_leases(&self) {
        if self.flights_under_way.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now_ms = self.now_ms();
        for cell in &self.shards {
            self.change_leases(&mut cell.lock(), |leases| leases.forget_over(now_ms));
        }
    }

    /// The lease of a key, if it still counts.
    fn standing_lease(&self, cell: &ShardCell, key: &[u8]) -> Option<LoadLease> {
        let lease = cell.load_leases.get(key)?;
        let is_over = lease.until_ms <= self.now_ms() || self.floors.is_flushed(lease.version, || key);
        (!is_over).then_some(lease)
    }

    /// What a record of the log says: this node loads the key. The caller applies it, under the key's shard's lock.
    pub(crate) fn note_lease(&self, cell: &mut ShardCell, key: &[u8], lease: LoadLease) {
        let now_ms = self.now_ms();
        self.change_leases(cell, |leases| leases.insert(key, lease, now_ms));
    }

    /// What a record of the log says: nobody loads the key any more.
    pub(crate) fn note_lease_end(&self, cell: &mut ShardCell, key: &[u8]) {
        self.change_leases(cell, |leases| leases.remove(key, Version(u64::MAX)));
        let woken = cell.flights.look_again(key);
        self.wake_later(woken);
    }
}

/// Who wants to load on this node.
impl Inner {
    /// Says where a load takes place that is about to begin: called with the key's shard locked, before the flight is in
    /// its table.
    pub(super) fn place_load(
        &self,
        cell: &mut ShardCell,
        flight: &Arc<Flight>,
        wanted: &Wanted<'_>,
    ) -> Place {
        let Some(group) = &self.group else { return Place::Here };
        let reigns = self.serving().reigns();
        let has_others = group.has_replicas.load(Ordering::Relaxed) || cell.load_leases.len() > 0;
        let takes_part = if reigns { has_others } else { wanted.asks && self.read_refusal().is_none() };
        if !takes_part {
            return Place::Here;
        }
        let node = group.roles.lock().node;
        let others = self.standing_lease(cell, wanted.key).filter(|lease| lease.node != node);
        let placed = match others {
            Some(_) if flight.is_refresh => return Place::Refreshed,
            Some(lease) if reigns || group.desk.is_streaming() => {
                let question = (!reigns).then(|| question_of(wanted));
                let until_ms = self.local_moment_ms(lease.until_ms);
                group.desk.watch(flight, question, until_ms, Then::LookAgain)
            }
            Some(_) => false,
            None if reigns => {
                let lease_ms = wanted.policy.lease_ms();
                if let Some((lease, _)) = self.lend(group, cell, wanted.key, node, lease_ms, true) {
                    flight.set_lease(lease);
                }
                false
            }
            None => group.desk.ask(flight, question_of(wanted), self.local_now_ms()),
        };
        if placed {
            // The driver sends what is asked, and ends the wait in time.
            group.doorbell.ring();
            return Place::Elsewhere;
        }
        Place::Here
    }

    /// A moment of the group's clock on this node's own, and a bit more.
    fn local_moment_ms(&self, moment_ms: Millis) -> Millis {
        let left_ms = moment_ms.saturating_sub(self.now_ms()).min(LEASE_MS_MAX);
        self.local_now_ms() + left_ms + MARGIN_MS
    }

    /// What was loaded under another node's lease goes to the primary; false if it is this node's to store.
    pub(super) fn hand_in(&self, key: &[u8], flight: &Flight, store: &Store<'_>) -> bool {
        let Some(group) = self.group.as_ref().filter(|_| !self.serving().reigns()) else { return false };
        if is_inside_read() {
            return false;
        }
        let Some(lease) = flight.take_lease() else { return false };
        let yielded = match store {
            Store::Value(value, attributes) => Yield::Value {
                value: (*value).clone(),
                flags: attributes.flags,
                expires_at_ms: attributes.expiry.deadline_ms(|| self.now_ms()),
            },
            Store::Absence(expiry) => Yield::Absence { expires_at_ms: expiry.deadline_ms(|| self.now_ms()) },
        };
        group.desk.hand_in(lease, key, yielded, self.local_now_ms());
        group.doorbell.ring();
        true
    }

    /// Nothing came of a load: whoever of the group wants it may load it. Called with the key's shard locked.
    pub(super) fn give_lease_back(&self, cell: &mut ShardCell, key: &[u8], flight: &Flight) {
        let Some(group) = &self.group else { return };
        let Some(lease) = flight.take_lease() else { return };
        if !self.serving().reigns() {
            group.desk.hand_in(lease, key, Yield::Nothing, self.local_now_ms());
            group.doorbell.ring();
        } else if cell.load_leases.get(key).is_some_and(|known| known.version == lease) {
            self.end_load(group, cell, key);
        }
    }

    /// The primary's word on what this node has asked.
    pub(crate) fn load_answered(&self, group: &Group, answer: LoadAnswer) {
        let now_ms = self.local_now_ms();
        if answer.verdict == LoadVerdict::Open {
            return group.desk.open(now_ms);
        }
        let Some((flight, question)) = group.desk.take(answer.id) else {
            // It is no answer to anything.
            return;
        };
        let key = question.key.clone();
        let wait = |until_ms, then| {
            if flight.is_refresh {
                // Who asked has a value meanwhile.
                return group.sleepers.wake_later(flight.look_again());
            }
            if !group.desk.watch(&flight, Some(question), until_ms, then) {
                self.release(group, &flight, &key, None);
            }
        };
        match answer.verdict {
            LoadVerdict::Granted { lease, .. } => self.release(group, &flight, &key, Some(Version(lease))),
            LoadVerdict::Held { until_ms } => {
                wait(self.local_moment_ms(until_ms), Then::LookAgain);
            }
            LoadVerdict::Present => wait(now_ms + PRESENT_WITHIN_MS, Then::Load),
            LoadVerdict::Refused | LoadVerdict::Open => self.release(group, &flight, &key, None),
        }
    }

    /// This node is to load; a lease that nobody here wants any more is given back.
    fn release(&self, group: &Group, flight: &Arc<Flight>, key: &[u8], lease: Option<Version>) {
        match (flight.release(lease), lease) {
            (Ok(woken), _) => {
                group.sleepers.wake_later(woken);
                forget_if_unwanted(self, self.hasher.hash(key), key, flight);
            }
            (Err(_), Some(lease)) => {
                group.desk.hand_in(lease, key, Yield::Nothing, self.local_now_ms());
            }
            (Err(_), None) => {}
        }
    }
}

fn question_of(wanted: &Wanted<'_>) -> Question {
    Question {
        id: 0,
        key: wanted.key.into(),
        lease_ms: wanted.policy.lease_ms(),
        replaces: wanted.replaces.map(|version| version.0),
        needs_value: !wanted.policy.accepts_absences(),
    }
}

/// What a primary does.
impl Inner {
    /// Answers a node that asks whether it is to load.
    pub(crate) fn lend_load(&self, group: &Group, node: u128, question: &Question) -> Lent {
        let lent = self.mutate(&question.key, |locked| Ok(self.lend_locked(group, node, question, locked)));
        lent.unwrap_or(Lent::Refused)
    }

    fn lend_locked(&self, group: &Group, node: u128, question: &Question, locked: &mut Locked<'_>) -> Lent {
        let stored = locked.find_stored().map(|(_, meta)| meta);
        let stored = stored.filter(|meta| !(question.needs_value && meta.marks.is_absence()));
        if let Some(meta) = stored.filter(|meta| Some(meta.version.0) != question.replaces) {
            return Lent::Present { version: meta.version };
        }
        let key = &question.key;
        let others = self.standing_lease(&locked.cell, key).filter(|lease| lease.node != node);
        if let Some(lease) = others.filter(|_| !group.config.bugs.has(Bug::LoadLentTwice)) {
            return Lent::Held { until_ms: lease.until_ms };
        }
        // This node may be loading it since before there was anybody to tell.
        let own = locked.cell.flights.get(key).filter(|flight| {
            flight.is_loading() && flight.lease().is_none() && !self.floors.is_flushed(flight.begun, || key)
        });
        if let Some(flight) = own.cloned() {
            let own_node = group.roles.lock().node;
            let lent = self.lend(group, &mut locked.cell, key, own_node, question.lease_ms, true);
            return lent.map_or(Lent::Refused, |(lease, until_ms)| {
                flight.set_lease(lease);
                Lent::Held { until_ms }
            });
        }
        match self.lend(group, &mut locked.cell, key, node, question.lease_ms, false) {
            Some((lease, until_ms)) => Lent::Granted { lease, until_ms },
            None => Lent::Refused,
        }
    }

    /// Gives a lease and logs it; `None` where that can't be.
    fn lend(
        &self,
        group: &Group,
        cell: &mut ShardCell,
        key: &[u8],
        node: u128,
        lease_ms: u64,
        is_primarys: bool,
    ) -> Option<(Version, Millis)> {
        self.check_writable().ok()?;
        let now_ms = self.now_ms();
        if !self.change_leases(cell, |leases| leases.make_room(key, now_ms)) {
            return None;
        }
        let until_ms = now_ms.saturating_add(lease_ms.clamp(1, LEASE_MS_MAX));
        let record = Mutation::LendLoad { key, node, until_ms, is_primarys };
        let version = group.append_of_load(&record, &mut cell.scratch)?;
        self.note_lease(cell, key, LoadLease { node, version, until_ms, is_primarys });
        group.desk.lent.fetch_add(1, Ordering::Relaxed);
        group.ring();
        Some((version, until_ms))
    }

    /// Ends the lease of a key, if this node may write.
    fn end_load(&self, group: &Group, cell: &mut ShardCell, key: &[u8]) {
        if self.check_writable().is_ok() {
            self.end_load_as_primary(group, cell, key);
        }
    }

    fn end_load_as_primary(&self, group: &Group, cell: &mut ShardCell, key: &[u8]) {
        if group.append_of_load(&Mutation::EndLoad { key }, &mut cell.scratch).is_some() {
            self.note_lease_end(cell, key);
            group.ring();
        }
    }

    /// Ends all leases that are meant.
    pub(crate) fn end_loads(&self, group: &Group, is_meant: impl Fn(&LoadLease) -> bool) {
        self.end_all(&is_meant, |cell, key| self.end_load(group, cell, key));
    }

    /// A node that was promoted, and is about to serve: the one before is gone, and what that was loading.
    pub(crate) fn end_loads_of_primary(&self, group: &Group) {
        self.end_all(&|lease| lease.is_primarys, |cell, key| self.end_load_as_primary(group, cell, key));
    }

    fn end_all(&self, is_meant: &impl Fn(&LoadLease) -> bool, end: impl Fn(&mut ShardCell, &[u8])) {
        if self.flights_under_way.load(Ordering::SeqCst) == 0 {
            return;
        }
        for cell in &self.shards {
            let mut cell = cell.lock();
            for key in cell.load_leases.keys(is_meant) {
                end(&mut cell, &key);
            }
        }
    }

    /// Stores what a replica has loaded, if its lease still stands.
    pub(crate) fn take_load(&self, group: &Group, node: u128, lease: Version, key: &[u8], yielded: &Yield) {
        let is_known = |cell: &ShardCell| {
            let known = cell.load_leases.get(key);
            known.is_some_and(|known| known.version == lease && known.node == node)
        };
        let taken = self.mutate(key, |locked| {
            if group.config.bugs.has(Bug::FillUnchecked) {
                return store_yield(locked, yielded);
            }
            if !is_known(&locked.cell) {
                return Ok(false);
            }
            let stands = self.standing_lease(&locked.cell, key).is_some();
            if stands && store_yield(locked, yielded)? {
                return Ok(true);
            }
            self.end_load(group, &mut locked.cell, key);
            Ok(false)
        });
        if taken.is_err() {
            // There was no room for it, or the item is too large.
            let ended = self.mutate(key, |locked| {
                if is_known(&locked.cell) {
                    self.end_load(group, &mut locked.cell, key);
                }
                Ok(())
            });
            tracing::debug!(?taken, ?ended, "what a replica has loaded is not stored");
        }
        match (taken, yielded) {
            (Ok(true), _) => group.desk.taken.fetch_add(1, Ordering::Relaxed),
            (_, Yield::Nothing) => 0,
            _ => group.desk.refused.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Whether there was something to store.
fn store_yield(locked: &mut Locked<'_>, yielded: &Yield) -> Result<bool, Refusal> {
    match yielded {
        Yield::Value { value, flags, expires_at_ms } => {
            locked.put(value, Meta::new(*flags, *expires_at_ms)).map(|_| true)
        }
        // An absence always has an expiry.
        Yield::Nothing | Yield::Absence { expires_at_ms: 0 } => Ok(false),
        Yield::Absence { expires_at_ms } => {
            let meta = Meta { marks: Marks::absence(), ..Meta::new(0, *expires_at_ms) };
            locked.put(&[], meta).map(|_| true)
        }
    }
}

#[cfg(test)]
mod tests;
