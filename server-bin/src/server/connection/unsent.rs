//! What a connection has to send: its output, with a large value in between that lies in the cache.
//!
//! Lives here: what goes next, what has gone, when that is too much. Not here: how such a value stays (see `outgoing`).

use std::io::{ErrorKind, Write};

use super::{Connection, Stop, UNSENT_BYTES_MAX};
use crate::server::commands::Executor;
use crate::server::counters::Counters;

impl Connection {
    /// What is to be sent next, in one piece; empty if that is all.
    #[inline]
    pub(crate) fn unsent(&self) -> &[u8] {
        match &self.pinned {
            None => &self.output[self.sent..],
            Some(pinned) => pinned.next(&self.output, self.sent),
        }
    }

    /// Whether so much is unsent that nothing more is executed.
    #[inline]
    pub(super) fn is_output_full(&self) -> bool {
        self.pinned.is_some() || self.output.len() - self.sent > UNSENT_BYTES_MAX
    }

    /// What has to go before a further request is executed, if anything.
    #[inline]
    pub(super) fn stop_for_output(&mut self, executor: &Executor<'_>) -> Option<Stop> {
        if self.is_output_full() || executor.outgoing.is_full() {
            return Some(Stop::OutputFull);
        }
        if self.held.is_full() {
            return Some(Stop::Holding);
        }
        if self.sent > self.unsent().len() {
            // A steady slow reader never lets the buffer run empty: what has gone must not stay in it.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        None
    }

    /// Takes over the large value that was found, if one was.
    #[inline]
    pub(super) fn take_outgoing(&mut self, executor: &Executor<'_>) {
        if executor.outgoing.is_full() {
            self.pinned = executor.outgoing.take().map(Box::new);
        }
    }

    /// So many bytes have gone, of what was to be sent.
    #[inline]
    pub(crate) fn was_sent(&mut self, bytes: usize) {
        self.sent += if self.pinned.is_none() { bytes } else { self.was_sent_around(bytes) };
        if self.sent == self.output.len() && self.pinned.is_none() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// [`Connection::was_sent`] with a large value; gives how many bytes of the output have gone.
    #[cold]
    fn was_sent_around(&mut self, bytes: usize) -> usize {
        let Some(pinned) = &mut self.pinned else { return bytes };
        let of_output = pinned.was_sent(bytes, self.sent);
        if pinned.missing_bytes() == 0 {
            self.pinned = None;
        }
        of_output
    }

    /// Sends what is to be sent; `WouldBlock` if the socket does not take all of it now.
    pub(crate) fn flush(&mut self, socket: &mut impl Write, counters: &Counters) -> std::io::Result<()> {
        while !self.unsent().is_empty() {
            let written = match &self.pinned {
                None => socket.write(&self.output[self.sent..]),
                Some(pinned) => pinned.send(&self.output, self.sent, |parts| socket.write_vectored(parts)),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    counters.bytes_written.add(count as u64);
                    self.was_sent(count);
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        // An encrypted socket may hold some of it still.
        socket.flush()
    }
}
