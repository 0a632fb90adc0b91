//! A large value on its way out: it is sent from where it lies in the cache, however slowly its client reads.
//!
//! Lives here: which values go that way, what an executor found for one, and where it stands among what a connection has to
//! send. Not here: how a value stays while its key gets another one (see [`PinnedValue`]), the socket (see `connection`).
//!
//! ```text
//!   output:   … VALUE k 0 9000000\r\n | \r\nEND\r\n
//!                                     ^ at: the value goes between
//! ```
//! A connection sends one such value at most, since nothing more is executed behind it until it has gone. Those whose answers wait
//! for acks wait with them (see `held`).

use std::cell::{Cell, RefCell};
use std::io::IoSlice;

use hotspare::{PinnedValue, Value};

/// Parts that one system call sends.
const PARTS_MAX: usize = 64;

/// Where an executor puts the values that it answers with.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Values from this length on are pinned.
    bytes_min: usize,
    /// What is answered goes into datagrams, and has to be whole.
    is_copied: Cell<bool>,
    found: RefCell<Option<Pinned>>,
}

impl Outgoing {
    pub(super) fn new(bytes_min: usize) -> Outgoing {
        Outgoing { bytes_min, is_copied: Cell::new(false), found: RefCell::new(None) }
    }

    /// Puts a value behind what is in `out`: itself, or a note of where it goes.
    #[inline]
    pub(super) fn append(&self, value: &Value<'_>, out: &mut Vec<u8>) {
        if !self.pin(value, out) {
            super::commands::reserve_for(value.len(), out);
            value.append_to(out);
        }
    }

    /// Whether a value was pinned, to be sent behind what is in `out`.
    #[inline]
    pub(super) fn pin(&self, value: &Value<'_>, out: &[u8]) -> bool {
        value.len() >= self.bytes_min && self.pin_large(value, out)
    }

    #[cold]
    fn pin_large(&self, value: &Value<'_>, out: &[u8]) -> bool {
        if self.is_copied.get() || self.is_full() {
            return false;
        }
        let pinned = value.pin().map(|value| Pinned { at: out.len(), value, sent: 0 });
        self.found.replace(pinned);
        self.is_full()
    }

    /// Whether nothing more is to be answered before the value has gone.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().is_some()
    }

    /// What the value that was found has to send.
    pub(super) fn bytes(&self) -> usize {
        self.found.borrow().as_ref().map_or(0, |pinned| pinned.value.len())
    }

    /// Takes back what was answered from here on, a large value included.
    pub(super) fn rewind(&self, start: usize, out: &mut Vec<u8>) {
        out.truncate(start);
        if self.found.borrow().as_ref().is_some_and(|pinned| pinned.at > start) {
            self.found.take();
        }
    }

    pub(super) fn take(&self) -> Option<Pinned> {
        self.found.take()
    }

    /// Has all values copied from here on.
    pub(super) fn copy_all(&self) {
        self.is_copied.set(true);
    }
}

/// A value that is sent between the bytes of an output.
#[derive(Debug)]
pub(super) struct Pinned {
    at: usize,
    value: PinnedValue,
    sent: usize,
}

impl Pinned {
    /// What it takes beside the cache's pages.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Pinned>() + self.value.heap_bytes()
    }

    /// What of it is unsent.
    pub(super) fn missing_bytes(&self) -> usize {
        self.value.len() - self.sent
    }

    /// What is to be sent next, of an output of which `sent` bytes have gone.
    pub(super) fn next<'a>(&'a self, output: &'a [u8], sent: usize) -> &'a [u8] {
        if sent < self.at { &output[sent..self.at] } else { self.value.piece(self.sent) }
    }

    /// Gives `send` what is to be sent, in order, as far as one call takes it.
    pub(super) fn send<R>(&self, output: &[u8], sent: usize, send: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let mut parts = [IoSlice::new(b""); PARTS_MAX];
        let before = &output[sent.min(self.at)..self.at];
        let all =
            std::iter::once(before).chain(self.value.pieces_from(self.sent)).chain([&output[self.at..]]);
        let all = all.filter(|part| !part.is_empty());
        let count = parts.iter_mut().zip(all).map(|(part, bytes)| *part = IoSlice::new(bytes)).count();
        send(&parts[..count])
    }

    /// So many bytes have gone; gives how many of them were the output's.
    pub(super) fn was_sent(&mut self, bytes: usize, sent: usize) -> usize {
        let before = bytes.min(self.at.saturating_sub(sent));
        let of_value = (bytes - before).min(self.missing_bytes());
        self.sent += of_value;
        bytes - of_value
    }

    /// The output lost its first bytes, which had gone, or are another's.
    pub(super) fn moved_up(&mut self, bytes: usize) {
        self.at -= bytes;
    }

    /// The output got so many bytes in front.
    pub(super) fn moved_back(&mut self, bytes: usize) {
        self.at += bytes;
    }
}
