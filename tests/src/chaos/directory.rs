//! Who is primary, as clients are told, and whether they may go on: what a fail-over manager is to an application.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::wait;

/// How long a client may take to come to rest: its patience, and what a busy machine adds.
const REST_LIMIT: Duration = Duration::from_secs(20);
/// How long a client that rests sleeps.
const NAP: Duration = Duration::from_millis(1);

/// A node as a client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    /// The reign's number: 0, 1, 2 from the beginning of the run.
    pub(super) reign: usize,
    pub(super) node: usize,
    pub(super) address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    Flows,
    Rests,
    Ends,
}

/// 1. `primary` changes only after the node there was promoted, so whoever reads it later than another client's answer from
///    a reign sees that reign or a later one.
#[derive(Debug)]
pub(super) struct Directory {
    primary: Mutex<Option<Seat>>,
    /// Who reigned before, for a client that has not heard of the change.
    previous: Mutex<Option<Seat>>,
    traffic: Mutex<Traffic>,
    resting: AtomicUsize,
}

impl Directory {
    /// Nobody reigns and nobody asks yet.
    pub(super) fn new() -> Directory {
        Directory {
            primary: Mutex::new(None),
            previous: Mutex::new(None),
            traffic: Mutex::new(Traffic::Rests),
            resting: AtomicUsize::new(0),
        }
    }

    pub(super) fn primary(&self) -> Option<Seat> {
        *self.primary.lock().expect("no panic while held")
    }

    pub(super) fn previous(&self) -> Option<Seat> {
        *self.previous.lock().expect("no panic while held")
    }

    /// A new reign; the last one's node becomes the one that a slow client goes on talking to.
    pub(super) fn announce(&self, seat: Seat) {
        let before = self.primary.lock().expect("no panic while held").replace(seat);
        if before.is_some() {
            *self.previous.lock().expect("no panic while held") = before;
        }
    }

    /// Nobody is asked for a while.
    pub(super) fn close(&self) {
        *self.previous.lock().expect("no panic while held") = None;
        *self.primary.lock().expect("no panic while held") = None;
    }

    pub(super) fn traffic(&self) -> Traffic {
        *self.traffic.lock().expect("no panic while held")
    }

    pub(super) fn set_traffic(&self, traffic: Traffic) {
        *self.traffic.lock().expect("no panic while held") = traffic;
    }

    /// Has all `clients` rest, with nothing asked that is not answered or given up.
    pub(super) fn rest(&self, clients: usize) -> Result<(), String> {
        self.set_traffic(Traffic::Rests);
        wait::within(REST_LIMIT, || (self.resting.load(Ordering::SeqCst) == clients).then_some(()))
            .ok_or_else(|| "a client of the test does not come to rest".to_owned())
    }

    /// A client's side of [`Directory::rest`].
    pub(super) fn nap(&self) {
        self.resting.fetch_add(1, Ordering::SeqCst);
        while self.traffic() == Traffic::Rests {
            wait::pause(NAP);
        }
        self.resting.fetch_sub(1, Ordering::SeqCst);
    }
}
