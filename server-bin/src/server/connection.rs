//! One client's connection: its buffers, and when it reads, executes and writes.
//!
//! Lives here: bounded memory for a client that sends without reading or reads slowly. Not here: the socket's
//! readiness (see `event_loop`), what a request does (see `commands`).
//!
//! ```text
//!   socket ──> input ──parse──> execute ──> output ──> socket
//! ```
//! All requests that have come are executed into one output buffer, which is sent once. With more than
//! [`UNSENT_BYTES_MAX`] unsent nothing more is executed and nothing more is read.

use std::io::{ErrorKind, Read, Write};

use hotspare_memcached::classic::{Limits, Parsed, parse_request};
use hotspare_memcached::meta::is_meta;

use super::auth::{Gate, Look};
use super::binary;
use super::commands::{Executor, Flow, Progress};
use super::counters::Counters;
use super::login::Login;
use super::meta::Step;
use super::watch::Watch;
use crate::settings::{Protocol, Settings};

/// Unsent bytes above which a connection stops executing; one value more may be added.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Bytes that one connection may take in one turn before the others have theirs.
const TURN_BYTES_MAX: usize = 256 << 10;

/// How often one turn sends to a watcher what was seen meanwhile.
const WATCH_ROUNDS_A_TURN: usize = 4;

/// The least room that is made for reading.
const READ_BYTES_MIN: usize = 4 << 10;

/// Room for reading where a client sends a lot.
const READ_BYTES: usize = 16 << 10;

/// An empty buffer above this is given back.
const BUFFER_BYTES_KEPT: usize = 32 << 10;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The socket has nothing more to give, or takes nothing more: its next event brings the next turn.
    Waiting,
    /// There is more to do at once.
    MoreToDo,
    /// It is over.
    Closed,
}

/// A request of which a part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// How many requests were done before it: tells it from another one.
    pub(crate) ordinal: u64,
    /// The bytes it is known to have, or still to have if they are thrown away.
    pub(crate) bytes: u64,
}

/// What became of one request.
enum Ran {
    /// It was executed, or refused.
    Done,
    /// It has not come whole: so many bytes, from its first on, before it is worth another look.
    NeedsMore { bytes: usize },
    /// It waits until what is unsent has gone, or others have had a turn.
    Stopped,
}

/// 1. `input[parsed..]` has come and is not executed; `output[sent..]` is to be sent.
/// 2. With `skip > 0` there is no unparsed input: those bytes are thrown away as they come.
/// 3. `progress` belongs to the request at `input[parsed..]`.
pub(crate) struct Connection {
    input: Vec<u8>,
    parsed: usize,
    output: Vec<u8>,
    sent: usize,
    skip: u64,
    /// Input needed before parsing is worth another try.
    bytes_needed: usize,
    progress: Progress,
    limits: Limits,
    /// Whether a long request waits for its next turn.
    is_yielding: bool,
    /// The client watches, and sends no more requests.
    watch: Option<Watch>,
    /// Auto until the first byte has come.
    protocol: Protocol,
    login: Login,
    gate: Gate,
    requests_done: u64,
    peer_closed: bool,
    closing: bool,
}

impl Connection {
    pub(crate) fn new(settings: &Settings) -> Connection {
        Connection {
            input: Vec::new(),
            parsed: 0,
            output: Vec::new(),
            sent: 0,
            skip: 0,
            bytes_needed: 1,
            progress: Progress::default(),
            // An item is more than its value (rule L3), so one as long as the limit never fits.
            limits: Limits {
                value_bytes_max: settings.item_bytes_max.saturating_sub(1),
                ..Limits::default()
            },
            is_yielding: false,
            watch: None,
            protocol: settings.protocol,
            login: Login::new(settings),
            gate: Gate::new(settings.auth_file.is_none()),
            requests_done: 0,
            peer_closed: false,
            closing: false,
        }
    }

    /// The request that the client owes the rest of. None while the client lets answers lie, for then nothing is read.
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        let has_begun = self.skip > 0 || self.parsed < self.input.len();
        let bytes = self.skip.max(self.bytes_needed as u64);
        (has_begun && self.unsent() == 0).then_some(Unfinished { ordinal: self.requests_done, bytes })
    }

    /// Whether neither side owes the other anything, as far as it was read.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.skip == 0 && self.parsed == self.input.len() && self.unsent() == 0
    }

    /// Reads, executes and writes until the socket or the turn's budget is used up.
    pub(crate) fn turn(&mut self, socket: &mut (impl Read + Write), executor: &mut Executor<'_>) -> Turn {
        let mut taken = 0;
        loop {
            let executed_all = self.execute(executor);
            if self.watch.is_some() {
                return self.turn_watching(socket, executor.counters);
            }
            let flushed = self.flush(socket, executor.counters);
            let has_all_gone = flushed.is_ok();
            match flushed {
                Ok(()) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    if self.unsent() > UNSENT_BYTES_MAX || !executed_all {
                        return Turn::Waiting;
                    }
                }
                Err(_) => return Turn::Closed,
            }
            if self.closing || (self.peer_closed && executed_all) {
                return if has_all_gone { Turn::Closed } else { Turn::Waiting };
            }
            if !executed_all {
                if self.is_yielding {
                    return Turn::MoreToDo;
                }
                continue;
            }
            if taken >= TURN_BYTES_MAX {
                return Turn::MoreToDo;
            }
            match self.read(socket) {
                Ok(0) => self.peer_closed = true,
                Ok(count) => {
                    executor.counters.bytes_read.add(count as u64);
                    taken += count;
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    self.shrink();
                    return Turn::Waiting;
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Closed,
            }
        }
    }

    /// Sends what was seen; whatever the client says but its end is of no interest.
    fn turn_watching(&mut self, socket: &mut (impl Read + Write), counters: &Counters) -> Turn {
        for _ in 0..WATCH_ROUNDS_A_TURN {
            if self.unsent() == 0
                && let Some(watch) = &self.watch
            {
                watch.take(&mut self.output);
            }
            let is_blocked = match self.flush(socket, counters) {
                Ok(()) => false,
                Err(why) if why.kind() == ErrorKind::WouldBlock => true,
                Err(_) => return Turn::Closed,
            };
            (self.parsed, self.bytes_needed) = (self.input.len(), 1);
            match self.read(socket) {
                Ok(0) => return Turn::Closed,
                Ok(count) => counters.bytes_read.add(count as u64),
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    if is_blocked || self.watch.as_ref().is_none_or(Watch::is_empty) {
                        return Turn::Waiting;
                    }
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::Closed,
            }
        }
        Turn::MoreToDo
    }

    /// The watch, if the client watches.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Reads once, into room for what is known to come.
    fn read(&mut self, socket: &mut impl Read) -> std::io::Result<usize> {
        if self.parsed > 0 {
            self.input.drain(..self.parsed);
            self.parsed = 0;
        }
        let have = self.input.len();
        let known = self.bytes_needed.saturating_sub(have);
        let room = if have == 0 && self.skip == 0 { READ_BYTES_MIN } else { READ_BYTES };
        // A large value's room is taken as its bytes come, doubling: a stated length alone costs nothing.
        let room = known.clamp(room, READ_BYTES.max(have));
        self.input.resize(have + room, 0);
        let result = socket.read(&mut self.input[have..]);
        self.input.truncate(have + result.as_ref().map_or(0, |count| *count));
        result
    }

    /// Executes what has come; false if it stopped because too much is unsent, or to let others have a turn.
    fn execute(&mut self, executor: &mut Executor<'_>) -> bool {
        self.is_yielding = false;
        while !self.closing && self.watch.is_none() {
            if self.unsent() > UNSENT_BYTES_MAX {
                return false;
            }
            if self.sent > self.unsent() {
                // A steady slow reader never lets the buffer run empty: what has gone must not stay in it.
                self.output.drain(..self.sent);
                self.sent = 0;
            }
            let thrown = self.skip.min((self.input.len() - self.parsed) as u64);
            self.parsed += thrown as usize;
            self.skip -= thrown;
            let input = &self.input[self.parsed..];
            if self.skip > 0 || input.is_empty() || input.len() < self.bytes_needed {
                return true;
            }
            match self.execute_one(executor) {
                Ran::Done => {
                    self.bytes_needed = 1;
                    self.requests_done += 1;
                }
                Ran::NeedsMore { bytes } => {
                    self.bytes_needed = bytes;
                    return true;
                }
                Ran::Stopped => return false,
            }
        }
        true
    }

    /// Executes what the input begins with, in the dialect that it is in; there is some.
    fn execute_one(&mut self, executor: &mut Executor<'_>) -> Ran {
        let input = &self.input[self.parsed..];
        if !self.gate.is_open() {
            return self.look_at_gate(executor);
        }
        if self.protocol == Protocol::Auto {
            self.protocol = binary::protocol_of(input[0]);
        }
        if self.protocol == Protocol::Binary {
            return self.execute_binary(executor);
        }
        if !is_meta(input) {
            return self.execute_classic(executor);
        }
        match executor.execute_meta(input, &self.limits, &mut self.output) {
            Step::Done { consumed, skip } => {
                self.parsed += consumed;
                self.skip = skip;
                Ran::Done
            }
            Step::Incomplete { bytes_needed } => Ran::NeedsMore { bytes: bytes_needed },
            Step::Close => {
                self.closing = true;
                Ran::Done
            }
        }
    }

    fn execute_classic(&mut self, executor: &mut Executor<'_>) -> Ran {
        match parse_request(&self.input[self.parsed..], &self.limits) {
            Parsed::Complete { request, consumed } => {
                let bound = self.sent + UNSENT_BYTES_MAX;
                self.progress.is_pipelined = self.output.len() > self.sent;
                match executor.execute(&request, &mut self.progress, bound, &mut self.output) {
                    Flow::Next => {}
                    Flow::Skip(bytes) => self.skip = bytes,
                    Flow::Close => self.closing = true,
                    Flow::OutputFull => return Ran::Stopped,
                    Flow::Again => {
                        self.is_yielding = true;
                        return Ran::Stopped;
                    }
                    Flow::Watch(watch) => self.watch = Some(watch),
                }
                self.parsed += consumed;
            }
            Parsed::Invalid { reply, consumed, skip } => {
                if let Some(reply) = reply {
                    reply.encode(&mut self.output);
                }
                self.skip = skip;
                self.parsed += consumed;
            }
            Parsed::Incomplete { bytes_needed } => return Ran::NeedsMore { bytes: bytes_needed },
            Parsed::Close => self.closing = true,
        }
        Ran::Done
    }

    /// Before the gate.
    fn look_at_gate(&mut self, executor: &Executor<'_>) -> Ran {
        let input = &self.input[self.parsed..];
        let users = executor.shared.users.as_ref();
        match users.map_or(Look::Close, |users| self.gate.look(input, users, executor.counters)) {
            Look::Answered { consumed, reply } => {
                self.output.extend_from_slice(reply.as_bytes());
                self.parsed += consumed;
            }
            Look::Incomplete { bytes_needed } => return Ran::NeedsMore { bytes: bytes_needed },
            Look::Close => self.closing = true,
        }
        Ran::Done
    }

    fn execute_binary(&mut self, executor: &mut Executor<'_>) -> Ran {
        match binary::step(&self.input[self.parsed..], &mut self.login, executor, &mut self.output) {
            binary::Step::Incomplete { bytes_needed } => Ran::NeedsMore { bytes: bytes_needed },
            binary::Step::Done { consumed, skip, close } => {
                self.parsed += consumed;
                self.skip = skip;
                self.closing = close;
                Ran::Done
            }
        }
    }

    /// Sends what is to be sent; `WouldBlock` if the socket does not take all of it now.
    pub(crate) fn flush(&mut self, socket: &mut impl Write, counters: &Counters) -> std::io::Result<()> {
        while self.unsent() > 0 {
            match socket.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    counters.bytes_written.add(count as u64);
                    self.sent += count;
                }
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        self.output.clear();
        self.sent = 0;
        // An encrypted socket may hold some of it still.
        socket.flush()
    }

    /// Gives memory back that a quiet connection does not need.
    fn shrink(&mut self) {
        if self.parsed == self.input.len() {
            self.input.clear();
            self.parsed = 0;
            if self.input.capacity() > BUFFER_BYTES_KEPT {
                self.input = Vec::new();
            }
        }
        if self.output.is_empty() && self.output.capacity() > BUFFER_BYTES_KEPT {
            self.output = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests;
