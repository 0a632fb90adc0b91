//! A connection's turn: its bytes come from a socket and go there, as far as the socket gives and takes now.
//!
//! Lives here: when a connection reads, executes and writes, and when it lets others go on. Not here: what the bytes
//! do (see `connection`), the socket's readiness (see `event_loop`).

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use hotspare::AckMode;
use hotspare_memcached::classic::{plain_get, plain_set};
use hotspare_memcached::first_key;

use super::{Connection, Stop};
use crate::server::commands::Executor;
use crate::server::counters::Counters;
use crate::server::watch::Watch;
use crate::settings::Protocol;

/// Bytes that one connection may take in one turn before the others have theirs.
const TURN_BYTES_MAX: usize = 256 << 10;

/// What is not longer is not taken for a pipeline before its turn.
const SHORT_PIPELINE_BYTES: usize = 512;

/// How often one turn goes on with a request whose answer filled the output, and went whole.
const FULL_OUTPUTS_A_TURN: usize = 16;

/// How often one turn sends to a watcher what was seen meanwhile.
const WATCH_ROUNDS_A_TURN: usize = 4;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The socket has nothing more to give, or takes nothing more: its next event, or that of a held reply, brings the next turn.
    Waiting,
    /// There is more to do at once.
    MoreToDo,
    /// It is over.
    Closed,
}

impl Connection {
    /// Whether a read that does not fill its room has emptied the socket, so that what comes later brings an event.
    pub(crate) fn set_short_read_is_last(&mut self, is_last: bool) {
        self.short_read_is_last = is_last;
    }

    /// Whether what is written to the socket goes to the system as it is: then large values go there from where they lie.
    pub(crate) fn set_sends_directly(&mut self, directly: bool) {
        self.sends_directly = directly;
    }

    /// Whether there is nothing to execute or to release, as at most turns' beginning.
    #[inline]
    fn is_idle(&self) -> bool {
        self.parsed == self.input.len() && self.held.is_empty() && self.watch.is_none()
    }

    /// Executes what has come. A get of one key alone may send its answer.
    fn execute_to(&mut self, socket: &mut impl Write, executor: &mut Executor<'_>) -> Stop {
        if let Some(first) = self.input.get(self.parsed) {
            self.settle_protocol(*first);
        }
        if self.may_answer_directly(executor) && self.execute_alone(socket, executor) {
            return Stop::InputUsed;
        }
        self.execute(executor)
    }

    /// Executes the plain get or set behind which nothing has come; false if that is not what has come.
    fn execute_alone(&mut self, socket: &mut impl Write, executor: &Executor<'_>) -> bool {
        let input = &self.input[self.parsed..];
        let (limits, out) = (&self.limits, &mut self.output);
        let begun;
        let sent = if let Some((key, bytes)) = plain_get(input, limits) {
            if bytes < input.len() {
                return false;
            }
            begun = self.stopwatch.is_some().then(Instant::now);
            executor.get_directly(key, socket, out) + executor.outgoing.bytes()
        } else if let Some((store, bytes)) = plain_set(input, limits)
            && bytes == input.len()
        {
            begun = self.stopwatch.is_some().then(Instant::now);
            executor.set(&executor.put_of(&store), store.noreply, out);
            0
        } else {
            return false;
        };
        if let (Some(stopwatch), Some(begun)) = (&mut self.stopwatch, begun) {
            let sizes = (input.len(), sent + self.output.len());
            stopwatch.note(begun.elapsed(), true, input, sizes, executor.counters);
        }
        self.parsed = self.input.len();
        self.bytes_needed = 1;
        self.requests_done += 1;
        self.take_outgoing(executor);
        true
    }

    /// Whether nothing stands between a request and its answer's way out.
    fn may_answer_directly(&self, executor: &Executor<'_>) -> bool {
        self.sends_directly
            && self.protocol == Protocol::Ascii
            && self.output.is_empty()
            && self.skip == 0
            && self.incoming.is_none()
            && self.progress.is_at_start()
            && self.gate.is_open()
            && self.watch.is_none()
            && !self.closing
            && self.held.is_empty()
            && executor.shared.cache.ack_mode() == AckMode::Async
    }

    /// Reads before its turn has come, which goes on with that. Gives the key of the first request, if one is seen at once: what it
    /// needs can be fetched meanwhile.
    pub(crate) fn read_ahead(&mut self, socket: &mut impl Read, counters: &Counters) -> Option<&[u8]> {
        // Whatever is wrong with the socket, the turn meets it.
        self.read(socket, counters).ok()?;
        if self.protocol == Protocol::Binary { None } else { first_key(&self.input[self.parsed..]) }
    }

    /// Whether something was read before the turn, which has not come yet.
    pub(crate) fn was_read_ahead(&self) -> bool {
        self.taken > 0
    }

    /// Whether what was read before the turn, which has not come yet, is long and more than one set.
    pub(crate) fn has_pipeline_ahead(&self) -> bool {
        let input = &self.input[self.parsed..];
        let is_one_set = || plain_set(input, &self.limits).is_some_and(|(_, bytes)| bytes == input.len());
        input.len() > SHORT_PIPELINE_BYTES && !is_one_set()
    }

    /// Reads, executes and writes until the socket or the turn's budget is used up.
    pub(crate) fn turn(&mut self, socket: &mut (impl Read + Write), executor: &mut Executor<'_>) -> Turn {
        let turn = self.take_turn(socket, executor);
        (self.taken, self.is_socket_empty) = (0, false);
        turn
    }

    fn take_turn(&mut self, socket: &mut (impl Read + Write), executor: &mut Executor<'_>) -> Turn {
        let mut full_outputs = 0;
        loop {
            let stop = if self.is_idle() { Stop::InputUsed } else { self.execute_to(socket, executor) };
            if self.watch().is_some() && stop != Stop::Holding {
                return self.turn_watching(socket, executor.counters);
            }
            let flushed = self.flush(socket, executor.counters);
            let has_all_gone = flushed.is_ok();
            match flushed {
                Ok(()) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    if self.is_output_full() || stop != Stop::InputUsed {
                        return Turn::Waiting;
                    }
                }
                Err(_) => return Turn::Closed,
            }
            if self.is_closing() || (self.peer_closed && stop == Stop::InputUsed) {
                return if has_all_gone && self.held().is_empty() { Turn::Closed } else { Turn::Waiting };
            }
            match stop {
                Stop::InputUsed => {}
                Stop::OutputFull if full_outputs < FULL_OUTPUTS_A_TURN => {
                    full_outputs += 1;
                    continue;
                }
                Stop::OutputFull => return Turn::MoreToDo,
                // Acks, or the end of their time, bring the next turn.
                Stop::Holding => return Turn::Waiting,
                Stop::Yields => return Turn::MoreToDo,
            }
            if self.taken >= TURN_BYTES_MAX {
                return Turn::MoreToDo;
            }
            if self.is_socket_empty {
                return Turn::Waiting;
            }
            match self.read(socket, executor.counters) {
                Ok(()) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Turn::Waiting,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Closed,
            }
        }
    }

    /// Reads once.
    fn read(&mut self, socket: &mut impl Read, counters: &Counters) -> std::io::Result<()> {
        let mut room_bytes = 0;
        let count = self.fill(|room| {
            room_bytes = room.len();
            socket.read(room)
        })?;
        self.peer_closed |= count == 0;
        self.is_socket_empty = count > 0 && self.short_read_is_last && count < room_bytes;
        self.taken += count;
        counters.bytes_read.add(count as u64);
        Ok(())
    }

    /// Sends what was seen; whatever the client says but its end is of no interest.
    fn turn_watching(&mut self, socket: &mut (impl Read + Write), counters: &Counters) -> Turn {
        for _ in 0..WATCH_ROUNDS_A_TURN {
            self.take_watched();
            let is_blocked = match self.flush(socket, counters) {
                Ok(()) => false,
                Err(why) if why.kind() == ErrorKind::WouldBlock => true,
                Err(_) => return Turn::Closed,
            };
            self.forget_input();
            match self.fill(|room| socket.read(room)) {
                Ok(0) => return Turn::Closed,
                Ok(count) => counters.bytes_read.add(count as u64),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    if is_blocked || self.watch().is_none_or(Watch::is_empty) {
                        return Turn::Waiting;
                    }
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Closed,
            }
        }
        Turn::MoreToDo
    }
}
