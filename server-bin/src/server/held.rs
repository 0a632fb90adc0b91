//! Replies that wait until what they answer is replicated: of writes in semi-sync, and in strict of reads, too.
//!
//! Lives here: one connection's replies, in the order of its requests, and what is said when the time is over. Not here:
//! what a request wrote and how far replicas are (the cache knows), who wakes a connection (see `event_loop`).
//!
//! ```text
//!   execute ──> [ reply | reply of a write, until its acks | reply | ... ] ──> output
//! ```
//! A reply behind a waiting one waits, too, whatever it answers: a client reads them in order. So does one behind a quiet
//! write, whose client takes the next answer for its success. A large value waits where it lies in the cache (see `outgoing`), and
//! what stands behind it waits for it to go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hotspare::{Acknowledgement, Cache, Written};
use hotspare_memcached::binary::{Response, Status, response_head};

use super::commands::server_error;
use super::outgoing::{Outgoing, Pinned};

/// Replies that may wait on one connection; then nothing more is executed or read.
const REPLIES_MAX: usize = 4096;

/// Bytes of waiting replies, large values of the cache included, likewise; one value more may be added.
const BYTES_MAX: usize = 1 << 20;

/// What is said of a write whose acks did not come: it may have been replicated or not.
const TIMEOUT_TEXT: &str = "replication timeout";

/// What is said of a write that the group lost to a change of primary.
const DIVERGED_TEXT: &str = "replication diverged";

/// How errors are told on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Text,
    Binary,
}

#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    /// A large value that goes between them.
    pinned: Option<Box<Pinned>>,
    /// Not sent unless it fails.
    is_quiet: bool,
    /// The answer to the same request goes on in the next one.
    goes_on: bool,
    /// What it waits for, and until when; none if it waits only for those before it.
    waits: Option<(Written, Instant)>,
}

/// What was answered to one request, or to a part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// Where in the output it begins.
    pub(crate) begun: usize,
    /// What it waits for.
    pub(crate) written: Option<Written>,
    /// For how long.
    pub(crate) timeout: Duration,
    /// Whether there is more to answer to the same request.
    pub(crate) goes_on: bool,
}

/// 1. The first reply waits for acks, or for a large value before it to go; without one nothing is held.
/// 2. `bytes` is what the replies take in memory, `pinned_bytes` the length of their values that lie in the cache.
/// 3. With `drops_rest` nothing is held: the rest of the failed answer would be next. It is not made.
#[derive(Debug, Default)]
pub(crate) struct Held {
    replies: VecDeque<Reply>,
    bytes: usize,
    pinned_bytes: usize,
    /// An error was told in the place of one part of an answer: nothing more of it is.
    drops_rest: bool,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether it has to see what is answered: replies wait, or the rest of one is to be dropped.
    pub(crate) fn wants_answers(&self) -> bool {
        !self.is_empty() || self.drops_rest
    }

    /// Whether the request that is under way is not to be carried on, since it was answered with an error; asked once.
    pub(crate) fn takes_drop(&mut self) -> bool {
        std::mem::take(&mut self.drops_rest)
    }

    /// What the replies take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no more should be executed before some have gone.
    pub(crate) fn is_full(&self) -> bool {
        self.replies.len() >= REPLIES_MAX || self.bytes + self.pinned_bytes > BYTES_MAX
    }

    /// Takes the reply at the end of `output`, a large value of `outgoing` included, if it has to wait: its request wrote something
    /// (or saw what is not acknowledged), or others wait before it. If there is none, `quiet` says in whose place an error would be;
    /// of a request that wants none whatever happens, nothing.
    pub(crate) fn take(
        &mut self,
        output: &mut Vec<u8>,
        outgoing: &Outgoing,
        answered: Answered,
        quiet: impl FnOnce() -> Option<Vec<u8>>,
    ) {
        let Answered { begun, written, timeout, goes_on } = answered;
        debug_assert!(!self.drops_rest, "the rest is not carried out");
        if written.is_none() && (output.len() <= begun || self.is_empty()) {
            return;
        }
        let is_quiet = output.len() <= begun;
        let bytes = if is_quiet { quiet() } else { Some(output.split_off(begun)) };
        let Some(bytes) = bytes else { return };
        let pinned = outgoing.take().map(|mut pinned| {
            pinned.moved_up(begun);
            Box::new(pinned)
        });
        let waits = written.map(|written| (written, Instant::now() + timeout));
        let reply = Reply { bytes, pinned, is_quiet, goes_on, waits };
        self.bytes += reply.memory_bytes();
        self.pinned_bytes += reply.pinned_bytes();
        self.replies.push_back(reply);
    }

    /// When the first reply's time is over; none if nothing is held.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.replies.front()?.waits.map(|(_, due)| due)
    }

    /// Blocks until [`Held::release`] would release something, which is so when the first reply's time is over at the
    /// latest.
    pub(crate) fn wait(&self, cache: &Cache) {
        let waker = Arc::new(Unpark(thread::current())).into();
        while let Some(due) = self.due() {
            // Before the look: an ack that comes behind it unparks.
            cache.wake_on_acknowledgement(&waker);
            let now = Instant::now();
            if self.is_due(cache, now) {
                return;
            }
            thread::park_timeout(due - now);
        }
    }

    /// Whether [`Held::release`] would release something.
    pub(crate) fn is_due(&self, cache: &Cache, now: Instant) -> bool {
        let Some(first) = self.replies.front() else { return false };
        first.waits.is_none_or(|(written, due)| is_decided(cache.acknowledged(written)) || now >= due)
    }

    /// Moves to `output` what need not wait any more, and to `pinned` the large value in it. There is one such value at a time: what
    /// stands behind it waits for it to go, and is judged then, by the acks that have come meanwhile.
    pub(crate) fn release(
        &mut self,
        cache: &Cache,
        now: Instant,
        dialect: Dialect,
        output: &mut Vec<u8>,
        pinned: &mut Option<Box<Pinned>>,
    ) {
        while pinned.is_none()
            && let Some(first) = self.replies.front()
        {
            let text = match first.waits {
                _ if self.drops_rest => None,
                None => None,
                Some((written, due)) => match cache.acknowledged(written) {
                    Acknowledgement::Replicated { .. } => None,
                    Acknowledgement::Diverged => Some(DIVERGED_TEXT),
                    Acknowledgement::Unknown { .. } if now >= due => Some(TIMEOUT_TEXT),
                    Acknowledgement::Unknown { .. } => return,
                },
            };
            let Some(mut first) = self.replies.pop_front() else { return };
            self.bytes -= first.memory_bytes();
            self.pinned_bytes -= first.pinned_bytes();
            match text {
                _ if self.drops_rest => self.drops_rest = first.goes_on,
                None if first.is_quiet => {}
                None => {
                    *pinned = first.pinned.take();
                    if let Some(pinned) = pinned {
                        pinned.moved_back(output.len());
                    }
                    output.extend_from_slice(&first.bytes);
                }
                Some(text) => {
                    fail(&first.bytes, text, dialect, output);
                    self.drops_rest = first.goes_on;
                }
            }
        }
    }
}

impl Reply {
    /// What it takes beside the cache's pages.
    fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.pinned.as_ref().map_or(0, |pinned| pinned.heap_bytes())
    }

    /// What of it lies in the cache's pages.
    fn pinned_bytes(&self) -> usize {
        self.pinned.as_ref().map_or(0, |pinned| pinned.missing_bytes())
    }
}

/// Wakes a thread that waits for acks.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn is_decided(outcome: Acknowledgement) -> bool {
    !matches!(outcome, Acknowledgement::Unknown { .. })
}

/// An error in the place of a reply.
fn fail(reply: &[u8], text: &str, dialect: Dialect, output: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => server_error(output, text),
        Dialect::Binary => {
            if let Some(head) = response_head(reply) {
                let (status, value) = (Status::TEMPORARY_FAILURE, text.as_bytes());
                Response { status, cas: 0, value, ..head }.encode(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_place_of_a_binary_response_is_one_to_the_same_request() {
        let response = |status, value| {
            let mut bytes = Vec::new();
            Response { opcode: 5, status, opaque: 0x0102_0304, cas: 0, extras: b"", key: b"", value }
                .encode(&mut bytes);
            bytes
        };
        let mut output = Vec::new();
        fail(&response(Status::OK, b"12345678"), TIMEOUT_TEXT, Dialect::Binary, &mut output);
        assert_eq!(output, response(Status::TEMPORARY_FAILURE, TIMEOUT_TEXT.as_bytes()));
    }
}
