//! Single flight: of all who want a key that is not there, one loads, the others wait for it.
//!
//! Lives here: who leads, who waits, what becomes of a load that a write overtook, handing over when a leader gives up.
//! Not here: what is read and stored (see `load`), for how long (see `policy`).
//!
//! ```text
//!            ┌──> Loading ──(leader filled it)──> Done: all waiters have the outcome
//!   join ────┤       │  ^
//!            │   (leader dropped its lease)
//!            │       v  │ (a waiter takes the lead)
//!            └──> Vacant ──(nobody waits)──> forgotten
//!                    ^
//!   in a group:  Elsewhere ──(another node's load has ended, or a write came)──> Done: all look again
//!                    └──(nobody waits)──> forgotten
//! ```
//! Whoever goes as the last takes the flight out of the table, unless somebody loads: so the table has no more entries than
//! there are leases and waiters.
//! Elsewhere waits for the group (see `sharing`): for the primary's word, or for another node's load. It falls vacant when
//! this node is to load. A flight that has the group's lease keeps that from one leader to the next.
//!
//! A shard's flights are guarded by its lock. A write to a key takes the key's flight out of the table and marks it:
//! what it loads may be older than the write, so it is handed to those who asked before, and is not stored; who asks
//! later begins a flight of his own. A flight's state is a leaf lock under the shard's.

use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;

use crate::clock::Millis;
use crate::mutation::Version;

use super::super::{Cache, Inner, ShardCell, is_inside_read};
use super::{LoadPolicy, Look, Store};

/// What a load came to, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The value; `None` if the source has none.
    Loaded(Option<Bytes>),
    /// The loader's error.
    Failed(Arc<dyn Any + Send + Sync>),
    /// Another node loads or has loaded it, or need not any more.
    LookAgain,
}

/// How often a thread that waits for the group looks by itself, in case that nobody drives the replicator.
const LOOK: Duration = Duration::from_millis(100);

/// What those who wait for the group do when that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "serde"), expect(dead_code, reason = "nobody waits for a group"))]
pub(super) enum Then {
    /// One of them loads.
    Load,
    LookAgain,
}

/// One load under way.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The cache's last version when it began: a later flush has a higher one.
    pub(super) begun: Version,
    /// Whether a value is there, which is loaded anew.
    pub(super) is_refresh: bool,
    /// The group's lease that this node loads it by; 0 for none.
    lease: AtomicU64,
    overtaken: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Who waits; a waiter that was not polled yet has no waker.
    waiters: Slab<Option<Waker>>,
}

#[derive(Debug)]
enum Phase {
    /// Somebody loads; a thread that loads synchronously must not wait for itself.
    Loading(Option<ThreadId>),
    /// The group is waited for, until this moment of the node's own clock at most.
    #[cfg_attr(not(feature = "serde"), expect(dead_code, reason = "there is no group"))]
    Elsewhere(Millis, Then),
    Vacant,
    Done(Outcome),
}

impl Flight {
    pub(super) fn new(begun: Version, is_refresh: bool) -> Arc<Flight> {
        let state = State { phase: Phase::Loading(None), waiters: Slab::new() };
        Arc::new(Flight {
            begun,
            is_refresh,
            lease: AtomicU64::new(0),
            overtaken: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Whether the key was written to since it began.
    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Acquire)
    }

    /// Changes the phase and wakes everybody.
    fn enter(&self, phase: Phase) {
        let wakers = self.state.lock().enter(phase);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The group's lease that this node loads it by.
    pub(super) fn lease(&self) -> Option<Version> {
        Some(Version(self.lease.load(Ordering::Acquire))).filter(|lease| *lease != Version(0))
    }

    /// Takes that lease out: it is given back, or used.
    pub(super) fn take_lease(&self) -> Option<Version> {
        Some(Version(self.lease.swap(0, Ordering::AcqRel))).filter(|lease| *lease != Version(0))
    }

    fn be_overtaken(&self) -> Vec<Waker> {
        self.overtaken.store(true, Ordering::Release);
        let mut state = self.state.lock();
        match state.phase {
            // Nobody here has begun to load: what was written is what they wait for.
            Phase::Elsewhere(..) => state.enter(Phase::Done(Outcome::LookAgain)),
            _ => Vec::new(),
        }
    }

    /// Whether nobody loads any more, nor will: it has not left the table yet.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        match state.phase {
            Phase::Done(_) => true,
            Phase::Vacant => state.waiters.is_empty(),
            Phase::Loading(_) | Phase::Elsewhere(..) => false,
        }
    }

    /// Ends it if nobody loads it and nobody waits for it; whether that is so.
    fn end_if_unwanted(&self) -> bool {
        let mut state = self.state.lock();
        let is_unwanted = state.waiters.is_empty() && !matches!(state.phase, Phase::Loading(_));
        if is_unwanted && !matches!(state.phase, Phase::Done(_)) {
            // Where the group was asked, a right to load that comes yet is given back.
            state.phase = Phase::Done(Outcome::LookAgain);
        }
        is_unwanted
    }
}

/// What the group does to a flight. Whoever is to be woken is given back, since the caller holds locks.
#[cfg(feature = "serde")]
impl Flight {
    /// Sets the lease that it is loaded by from its beginning on.
    pub(super) fn set_lease(&self, lease: Version) {
        self.lease.store(lease.0, Ordering::Release);
    }

    /// Whether this node loads it now.
    pub(super) fn is_loading(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Loading(_))
    }

    /// Waits for the group, from the beginning or on.
    pub(super) fn wait_until(&self, until_ms: Millis, then: Then) {
        let mut state = self.state.lock();
        let is_new = matches!(state.phase, Phase::Loading(None)) && state.waiters.is_empty();
        if is_new || matches!(state.phase, Phase::Elsewhere(..)) {
            state.phase = Phase::Elsewhere(until_ms, then);
        }
    }

    /// This node is to load it, by this lease of the group's if there is one; false if nobody waits for that any more.
    pub(super) fn release(&self, lease: Option<Version>) -> Result<Vec<Waker>, NotAwaited> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Elsewhere(..) => {
                self.lease.store(lease.map_or(0, |lease| lease.0), Ordering::Release);
                Ok(state.enter(Phase::Vacant))
            }
            _ => Err(NotAwaited),
        }
    }

    /// Those who wait for the group look again.
    pub(super) fn look_again(&self) -> Vec<Waker> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Elsewhere(..) => state.enter(Phase::Done(Outcome::LookAgain)),
            _ => Vec::new(),
        }
    }

    /// Ends a wait for the group whose time is over.
    pub(super) fn end_wait(&self, now_ms: Millis) -> Vec<Waker> {
        self.state.lock().end_wait(now_ms)
    }
}

/// The flight does not wait for the group.
#[cfg(feature = "serde")]
#[derive(Debug)]
pub(super) struct NotAwaited;

impl State {
    /// Changes the phase; gives back who is to be woken.
    fn enter(&mut self, phase: Phase) -> Vec<Waker> {
        self.phase = phase;
        self.waiters.iter_mut().filter_map(|(_, waker)| waker.take()).collect()
    }

    fn end_wait(&mut self, now_ms: Millis) -> Vec<Waker> {
        match self.phase {
            Phase::Elsewhere(until_ms, Then::Load) if until_ms <= now_ms => self.enter(Phase::Vacant),
            Phase::Elsewhere(until_ms, Then::LookAgain) if until_ms <= now_ms => {
                self.enter(Phase::Done(Outcome::LookAgain))
            }
            _ => Vec::new(),
        }
    }
}

/// A shard's loads under way, by key.
#[derive(Debug, Default)]
pub(crate) struct Flights(HashMap<Box<[u8]>, Arc<Flight>>);

impl Flights {
    #[cfg(all(test, feature = "serde"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(feature = "serde")]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Flight>> {
        self.0.get(key)
    }

    /// One that it takes the place of is over, or a flush overtook it: that must be known also when the flush is forgotten,
    /// with a full copy.
    pub(super) fn insert(&mut self, key: &[u8], flight: Arc<Flight>) {
        if let Some(before) = self.0.insert(key.into(), flight) {
            before.overtaken.store(true, Ordering::Release);
        }
    }

    /// The key was written to, under this version: what is being loaded may be older than that, unless the group's lease
    /// was given behind it. Gives back who is to be woken.
    pub(crate) fn overtake(&mut self, key: &[u8], by: Version) -> Vec<Waker> {
        let is_before = |flight: &Arc<Flight>| flight.lease().is_none_or(|lease| lease < by);
        match self.0.get(key).is_some_and(is_before) {
            true => self.0.remove(key).map(|flight| flight.be_overtaken()).unwrap_or_default(),
            false => Vec::new(),
        }
    }

    /// Every key was.
    pub(crate) fn overtake_all(&mut self) -> Vec<Waker> {
        self.0.drain().flat_map(|(_, flight)| flight.be_overtaken()).collect()
    }

    /// The group's lease of this key has ended: who waits for that looks again.
    #[cfg(feature = "serde")]
    pub(super) fn look_again(&self, key: &[u8]) -> Vec<Waker> {
        self.0.get(key).map(|flight| flight.look_again()).unwrap_or_default()
    }

    /// Forgets this flight, unless another one has its place.
    fn remove(&mut self, key: &[u8], flight: &Arc<Flight>) {
        if self.0.get(key).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            self.0.remove(key);
        }
    }
}

/// The right, and the duty, to load one key: who holds it loads, everybody else waits.
///
/// Give it back by [`Lease::fill`], [`Lease::fill_absent`] or [`Lease::fail`]. Dropping it, also by a panic or by
/// cancelling the future that holds it, hands it to one of those who wait. It may be moved to another thread or task.
#[derive(Debug)]
pub struct Lease {
    cache: Cache,
    key: Box<[u8]>,
    hash: u64,
    flight: Arc<Flight>,
    policy: LoadPolicy,
    /// What it would replace: the version of a value that is there, `None` where there is none.
    pub(super) replaces: Option<Version>,
    is_settled: bool,
}

impl Lease {
    pub(super) fn new(
        cache: &Cache,
        key: &[u8],
        hash: u64,
        flight: Arc<Flight>,
        policy: LoadPolicy,
        replaces: Option<Version>,
    ) -> Lease {
        cache.inner.flights_under_way.fetch_add(1, Ordering::SeqCst);
        Lease { cache: cache.clone(), key: key.into(), hash, flight, policy, replaces, is_settled: false }
    }

    /// The key to be loaded.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Stores the value, as the policy says, and hands it to all who wait. It is not stored if the key was written to
    /// or flushed since the lease was given (what was loaded may be older), nor where this node takes no writes, nor
    /// inside a read.
    pub fn fill(mut self, value: impl Into<Bytes>) -> Bytes {
        let value = value.into();
        self.settle(Outcome::Loaded(Some(value.clone())));
        value
    }

    /// The source has no value: remembers that if the policy says so, and tells all who wait.
    pub fn fill_absent(mut self) {
        self.settle(Outcome::Loaded(None));
    }

    /// Nothing could be loaded: all who wait now have this error. The next caller tries again.
    pub fn fail<E: Send + Sync + 'static>(mut self, error: Arc<E>) {
        self.settle(Outcome::Failed(error));
    }

    /// Marks the thread that loads, so that it never waits for itself.
    pub(super) fn on_this_thread(self) -> Lease {
        self.flight.state.lock().phase = Phase::Loading(Some(thread::current().id()));
        self
    }

    fn settle(&mut self, outcome: Outcome) {
        self.is_settled = true;
        let inner = &self.cache.inner;
        if let Outcome::Loaded(value) = &outcome {
            let store = match value {
                Some(value) => Some(Store::Value(value, self.policy.attributes())),
                None => self.policy.absence().map(Store::Absence),
            };
            if let Some(store) = store
                && !inner.hand_in(&self.key, &self.flight, &store)
            {
                inner.store_loaded(&self.key, &self.flight, self.replaces, store);
            }
        }
        with_flights(inner, self.hash, |cell| {
            cell.flights.remove(&self.key, &self.flight);
            inner.give_lease_back(cell, &self.key, &self.flight);
        });
        inner.flights_under_way.fetch_sub(1, Ordering::SeqCst);
        self.flight.enter(Phase::Done(outcome));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        self.flight.enter(Phase::Vacant);
        forget_if_unwanted(&self.cache.inner, self.hash, &self.key, &self.flight);
        self.cache.inner.flights_under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A flight without a leader and without anybody who waits is forgotten, also one that has waited for the group.
pub(super) fn forget_if_unwanted(inner: &Inner, hash: u64, key: &[u8], flight: &Arc<Flight>) {
    with_flights(inner, hash, |cell| {
        if flight.end_if_unwanted() {
            cell.flights.remove(key, flight);
            inner.give_lease_back(cell, key, flight);
        }
    });
}

/// Runs on the flights of a hash's shard. Inside a read no shard may be waited for: if this one is taken nothing is
/// done, and a flight that is over is removed by whoever wants or writes its key next.
fn with_flights(inner: &Inner, hash: u64, run: impl FnOnce(&mut ShardCell)) {
    let cell = inner.cell(hash);
    let cell = if is_inside_read() { cell.try_lock() } else { Some(cell.lock()) };
    if let Some(mut cell) = cell {
        run(&mut cell);
    }
}

/// Somebody else loads the key: a future of what comes of it. It needs no runtime.
#[derive(Debug)]
pub struct Waiting {
    cache: Cache,
    key: Box<[u8]>,
    hash: u64,
    flight: Arc<Flight>,
    policy: LoadPolicy,
    slot: usize,
}

/// What waiting came to.
#[derive(Debug)]
pub(super) enum Arrival {
    Outcome(Outcome),
    /// The one who loaded gave up: load it yourself.
    Lead(Lease),
}

impl Waiting {
    /// Called with the shard locked, so that the flight is still in the table. `None` if this very thread loads.
    pub(super) fn join(
        cache: &Cache,
        key: &[u8],
        hash: u64,
        flight: Arc<Flight>,
        policy: LoadPolicy,
    ) -> Option<Waiting> {
        let mut state = flight.state.lock();
        if matches!(state.phase, Phase::Loading(Some(thread)) if thread == thread::current().id()) {
            return None;
        }
        let slot = state.waiters.insert(None);
        drop(state);
        Some(Waiting { cache: cache.clone(), key: key.into(), hash, flight, policy, slot })
    }

    /// Blocks this thread until the load has ended, and gives the value. `None` if the source has none, if the load
    /// failed, if the one who loaded gave up, or, at once, inside a read: what it has locked may be what the load needs.
    pub fn wait(self) -> Option<Bytes> {
        if is_inside_read() {
            return None;
        }
        let (cache, hash, key) = (self.cache.clone(), self.hash, self.key.clone());
        value_of(&cache, hash, &key, self.arrive())
    }

    /// Blocks this thread until the load has ended or fell to it.
    pub(super) fn arrive(mut self) -> Arrival {
        let waker = Waker::from(Arc::new(Parked(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll_arrival(&mut context) {
                Poll::Ready(arrival) => return arrival,
                Poll::Pending if self.is_elsewhere() => thread::park_timeout(LOOK),
                Poll::Pending => thread::park(),
            }
        }
    }

    fn is_elsewhere(&self) -> bool {
        matches!(self.flight.state.lock().phase, Phase::Elsewhere(..))
    }

    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.flight.state.lock();
        if let Phase::Elsewhere(..) = state.phase {
            let woken = state.end_wait(self.cache.inner.local_now_ms());
            drop(state);
            woken.into_iter().for_each(Waker::wake);
            state = self.flight.state.lock();
        }
        match &state.phase {
            Phase::Done(outcome) => return Poll::Ready(Arrival::Outcome(outcome.clone())),
            Phase::Vacant => {}
            Phase::Loading(_) | Phase::Elsewhere(..) => {
                let waker = &mut state.waiters[self.slot];
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    let before = waker.replace(context.waker().clone());
                    drop(state);
                    // With nothing locked, as in `drop`.
                    drop(before);
                }
                return Poll::Pending;
            }
        }
        state.phase = Phase::Loading(None);
        drop(state);
        let lease = Lease::new(&self.cache, &self.key, self.hash, self.flight.clone(), self.policy, None);
        Poll::Ready(Arrival::Lead(lease))
    }
}

/// A lease that fell to somebody who only waits is dropped, and so handed on.
fn value_of(cache: &Cache, hash: u64, key: &[u8], arrival: Arrival) -> Option<Bytes> {
    match arrival {
        Arrival::Outcome(Outcome::Loaded(value)) => value,
        // It came by the log, if it came.
        Arrival::Outcome(Outcome::LookAgain) => match cache.inner.look(hash, key) {
            Look::Value { value, .. } => Some(value),
            Look::Absence | Look::Nothing => None,
        },
        Arrival::Outcome(Outcome::Failed(_)) | Arrival::Lead(_) => None,
    }
}

/// The value, as [`Waiting::wait`] gives it.
impl Future for Waiting {
    type Output = Option<Bytes>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let arrival = std::task::ready!(self.poll_arrival(context));
        Poll::Ready(value_of(&self.cache, self.hash, &self.key, arrival))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waker = self.flight.state.lock().waiters.try_remove(self.slot);
        // With nothing locked: with a waker a task may go, and with it another one that waits.
        drop(waker);
        forget_if_unwanted(&self.cache.inner, self.hash, &self.key, &self.flight);
    }
}

/// Wakes a thread that waits.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
