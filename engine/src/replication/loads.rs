//! What nodes say to each other of a load that only one of them does.
//!
//! Lives here: a replica's request as its primary keeps it. Not here: its bytes (see `message`), who gets the lease (see
//! `cache::load::sharing`), what a replica does meanwhile (see `cache::load::desk`).
//!
//! ```text
//!   replica ── LoadAsk ──> primary: logs LendLoad            primary ── LoadAnswer ──> replica: loads
//!   replica ── LoadDone ──> primary: logs the Put, if the lease still stands, else nothing or EndLoad
//! ```
//! A lease stands from its record on until the next record of its key, or a flush; and no longer than it says.

use std::collections::VecDeque;

use super::message::{LoadAnswer, LoadAsk, LoadDone, LoadVerdict, Loaded};

/// Questions that a replica has out or waits behind; who asks beyond that loads for itself.
pub(crate) const LOADS_ASKED_MAX: usize = 1024;

/// Answers that wait for one replica; one that asks on is cut off.
pub(crate) const ANSWERS_MAX: usize = 2 * LOADS_ASKED_MAX;

/// For how long others wait for a load, in milliseconds: ten minutes.
pub(crate) const LEASE_MS_MAX: u64 = 600_000;

/// A primary's side towards one replica: what that asks, and what it is to be told.
///
/// `answers` has at most [`ANSWERS_MAX`] entries.
#[derive(Debug)]
pub(crate) struct Lending {
    /// Whether records that say who loads a key may be shipped to it.
    pub(crate) is_known: bool,
    is_open: bool,
    request: Option<LoadRequest>,
    answers: VecDeque<LoadAnswer>,
}

impl Lending {
    /// Towards a replica that knows of loads, or not, by a node that says who loads, or not.
    pub(crate) fn new(is_known: bool, lends: bool) -> Lending {
        let is_open = is_known && lends;
        let answers = is_open.then_some(LoadAnswer { id: 0, verdict: LoadVerdict::Open });
        Lending { is_known, is_open, request: None, answers: answers.into_iter().collect() }
    }

    /// Takes a question; false if none may be asked.
    pub(super) fn asked(&mut self, ask: &LoadAsk<'_>) -> bool {
        let may_ask = self.is_open && self.answers.len() < ANSWERS_MAX;
        if may_ask {
            self.request = Some(LoadRequest::ask(ask));
        }
        may_ask
    }

    /// Takes what came of a load; false if nothing of the kind can have been granted.
    pub(super) fn told(&mut self, done: &LoadDone<'_>) -> bool {
        if self.is_open {
            self.request = Some(LoadRequest::done(done));
        }
        self.is_open
    }

    /// What the frame before asked or told: taken after each frame.
    pub(crate) fn take_request(&mut self) -> Option<LoadRequest> {
        self.request.take()
    }

    pub(crate) fn answer(&mut self, answer: LoadAnswer) {
        self.answers.push_back(answer);
    }

    pub(super) fn next_answer(&mut self) -> Option<LoadAnswer> {
        self.answers.pop_front()
    }
}

/// What a replica asked or told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadRequest {
    Ask(Question),
    Done { lease: u64, key: Box<[u8]>, yielded: Yield },
}

/// May this node load it?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) key: Box<[u8]>,
    pub(crate) lease_ms: u64,
    /// The version of the item that is to be loaded anew.
    pub(crate) replaces: Option<u64>,
    pub(crate) needs_value: bool,
}

/// What a load came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Yield {
    Value {
        value: bytes::Bytes,
        flags: u32,
        expires_at_ms: u64,
    },
    Absence {
        expires_at_ms: u64,
    },
    /// Nothing to store.
    Nothing,
}

impl LoadRequest {
    pub(crate) fn ask(ask: &LoadAsk<'_>) -> LoadRequest {
        let LoadAsk { id, key, lease_ms, replaces, needs_value } = *ask;
        LoadRequest::Ask(Question { id, key: key.into(), lease_ms, replaces, needs_value })
    }

    pub(crate) fn done(done: &LoadDone<'_>) -> LoadRequest {
        let yielded = match done.loaded {
            Loaded::Value { value, flags, expires_at_ms } => {
                Yield::Value { value: bytes::Bytes::copy_from_slice(value), flags, expires_at_ms }
            }
            Loaded::Absence { expires_at_ms } => Yield::Absence { expires_at_ms },
            Loaded::Nothing => Yield::Nothing,
        };
        LoadRequest::Done { lease: done.lease, key: done.key.into(), yielded }
    }
}

impl Question {
    pub(crate) fn as_message(&self) -> LoadAsk<'_> {
        let Question { id, lease_ms, replaces, needs_value, .. } = *self;
        LoadAsk { id, key: &self.key, lease_ms, replaces, needs_value }
    }
}

impl Yield {
    pub(crate) fn as_message(&self) -> Loaded<'_> {
        match self {
            Yield::Value { value, flags, expires_at_ms } => {
                Loaded::Value { value, flags: *flags, expires_at_ms: *expires_at_ms }
            }
            Yield::Absence { expires_at_ms } => Loaded::Absence { expires_at_ms: *expires_at_ms },
            Yield::Nothing => Loaded::Nothing,
        }
    }

    /// Bytes of its value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Yield::Value { value, .. } => value.len(),
            Yield::Absence { .. } | Yield::Nothing => 0,
        }
    }
}
