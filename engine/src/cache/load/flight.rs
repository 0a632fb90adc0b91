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
//! ```
//! A shard's flights are guarded by its lock. A write to a key takes the key's flight out of the table and marks it:
//! what it loads may be older than the write, so it is handed to those who asked before, and is not stored; who asks
//! later begins a flight of his own. A flight's state is a leaf lock under the shard's.

use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;

use crate::mutation::Version;

use super::super::{Cache, is_inside_read};
use super::{LoadPolicy, Store};

/// What a load came to, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The value; `None` if the source has none.
    Loaded(Option<Bytes>),
    /// The loader's error.
    Failed(Arc<dyn Any + Send + Sync>),
}

/// One load under way.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The cache's last version when it began: a later flush has a higher one.
    pub(super) begun: Version,
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
    Vacant,
    Done(Outcome),
}

impl Flight {
    pub(super) fn new(begun: Version) -> Arc<Flight> {
        let state = State { phase: Phase::Loading(None), waiters: Slab::new() };
        Arc::new(Flight { begun, overtaken: AtomicBool::new(false), state: Mutex::new(state) })
    }

    /// Whether the key was written to since it began.
    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Acquire)
    }

    /// Changes the phase and wakes everybody.
    fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        state.phase = phase;
        let wakers: Vec<Waker> = state.waiters.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn is_vacant_and_unwanted(&self) -> bool {
        let state = self.state.lock();
        matches!(state.phase, Phase::Vacant) && state.waiters.is_empty()
    }

    /// Whether nobody loads any more, nor will: it has not left the table yet.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Done(_)) || self.is_vacant_and_unwanted()
    }
}

/// A shard's loads under way, by key.
#[derive(Debug, Default)]
pub(crate) struct Flights(HashMap<Box<[u8]>, Arc<Flight>>);

impl Flights {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Flight>> {
        self.0.get(key)
    }

    pub(super) fn insert(&mut self, key: &[u8], flight: Arc<Flight>) {
        self.0.insert(key.into(), flight);
    }

    /// The key was written to: what is being loaded may be older than that.
    #[cold]
    pub(crate) fn overtake(&mut self, key: &[u8]) {
        if let Some(flight) = self.0.remove(key) {
            flight.overtaken.store(true, Ordering::Release);
        }
    }

    /// Every key was.
    pub(crate) fn overtake_all(&mut self) {
        for (_, flight) in self.0.drain() {
            flight.overtaken.store(true, Ordering::Release);
        }
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
        if let Outcome::Loaded(value) = &outcome {
            let store = match value {
                Some(value) => Some(Store::Value(value, self.policy.attributes())),
                None => self.policy.absence().map(Store::Absence),
            };
            if let Some(store) = store {
                self.cache.inner.store_loaded(&self.key, &self.flight, self.replaces, store);
            }
        }
        with_flights(&self.cache, self.hash, |flights| flights.remove(&self.key, &self.flight));
        self.cache.inner.flights_under_way.fetch_sub(1, Ordering::SeqCst);
        self.flight.enter(Phase::Done(outcome));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        self.flight.enter(Phase::Vacant);
        forget_if_unwanted(&self.cache, self.hash, &self.key, &self.flight);
        self.cache.inner.flights_under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A flight without a leader and without anybody who waits is forgotten.
fn forget_if_unwanted(cache: &Cache, hash: u64, key: &[u8], flight: &Arc<Flight>) {
    with_flights(cache, hash, |flights| {
        if flight.is_vacant_and_unwanted() {
            flights.remove(key, flight);
        }
    });
}

/// Runs on the flights of a hash's shard. Inside a read no shard may be waited for: if this one is taken nothing is
/// done, and a flight that is over is removed by whoever wants or writes its key next.
fn with_flights(cache: &Cache, hash: u64, run: impl FnOnce(&mut Flights)) {
    let cell = cache.inner.cell(hash);
    let cell = if is_inside_read() { cell.try_lock() } else { Some(cell.lock()) };
    if let Some(mut cell) = cell {
        run(&mut cell.flights);
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
        if is_inside_read() { None } else { value_of(self.arrive()) }
    }

    /// Blocks this thread until the load has ended or fell to it.
    pub(super) fn arrive(mut self) -> Arrival {
        let waker = Waker::from(Arc::new(Parked(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll_arrival(&mut context) {
                Poll::Ready(arrival) => return arrival,
                Poll::Pending => thread::park(),
            }
        }
    }

    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.flight.state.lock();
        match &state.phase {
            Phase::Done(outcome) => return Poll::Ready(Arrival::Outcome(outcome.clone())),
            Phase::Vacant => {}
            Phase::Loading(_) => {
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
fn value_of(arrival: Arrival) -> Option<Bytes> {
    match arrival {
        Arrival::Outcome(Outcome::Loaded(value)) => value,
        Arrival::Outcome(Outcome::Failed(_)) | Arrival::Lead(_) => None,
    }
}

/// The value, as [`Waiting::wait`] gives it.
impl Future for Waiting {
    type Output = Option<Bytes>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_arrival(context).map(value_of)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waker = self.flight.state.lock().waiters.try_remove(self.slot);
        // With nothing locked: with a waker a task may go, and with it another one that waits.
        drop(waker);
        forget_if_unwanted(&self.cache, self.hash, &self.key, &self.flight);
    }
}

/// Wakes a thread that waits.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
