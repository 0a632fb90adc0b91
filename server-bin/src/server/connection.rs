//! One client's connection: bytes in, bytes out, wherever they come from and go.
//!
//! Lives here: its buffers, and bounded memory for a client that sends without reading or reads slowly. Not here: the
//! socket (see `turn`), what a request does (see `commands`).
//!
//! ```text
//!   fill ──> input ──parse──> execute ──> output ──> unsent, was_sent
//! ```
//! All requests that have come are executed into one output buffer, which is sent once. With more than
//! [`UNSENT_BYTES_MAX`] unsent nothing more is executed, and nothing more should be read. Nothing but the bytes counts:
//! how they are cut, coming or going, changes nothing of what is done and answered (`cuts` checks it).

mod batch;
mod buffers;
mod incoming;
mod input;
mod plain;
mod turn;
mod unsent;

use std::borrow::Cow;
use std::io::Read as _;
use std::mem;
use std::time::{Duration, Instant};

use hotspare::{AckMode, Cache};
use hotspare_memcached::binary::HEADER_BYTES;
use hotspare_memcached::classic::{Limits, Parsed, Request};
use hotspare_memcached::meta::is_meta;

use super::Shared;
use super::auth::{Gate, Look};
use super::binary;
use super::commands::{AHEAD_MAX, Executor, Flow, Progress, server_error};
use super::held::{Answered, Dialect, Held};
use super::login::Login;
use super::meta::Step;
use super::outgoing::Pinned;
use super::registry::State;
use super::stopwatch::Stopwatch;
use super::watch::Watch;
use crate::settings::{Protocol, Settings};
use batch::{Asked, Batch};
pub(crate) use buffers::Buffers;
use incoming::Incoming;
use input::Input;
pub(crate) use turn::Turn;

/// Unsent bytes above which a connection stops executing; one value more may be added.
const UNSENT_BYTES_MAX: usize = 256 << 10;

/// The least room that is made for reading.
const READ_BYTES: usize = 16 << 10;

/// The room that is made for a piece of a large value.
const PIECE_BYTES: usize = 64 << 10;

/// A request of which a part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// How many requests were done before it: tells it from another one.
    pub(crate) ordinal: u64,
    /// The bytes it is known to have, or still to have if they are thrown away.
    pub(crate) bytes: u64,
}

/// Why [`Connection::execute`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All that has come is executed, or nothing more will be: it is closing, or the client watches.
    InputUsed,
    /// Too much is unsent.
    OutputFull,
    /// Replies wait to be acknowledged: too many, or the client watches behind them.
    Holding,
    /// A long request lets others have a turn.
    Yields,
}

/// What became of one request.
enum Ran {
    /// It was executed, or refused.
    Done,
    /// It has not come whole: so many bytes, from its first on, before it is worth another look.
    NeedsMore { bytes: usize },
    /// It goes on when the reason has gone.
    Stopped(Stop),
}

/// What is kept of a connection while neither side owes the other anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    /// Auto until the first byte has come.
    protocol: Protocol,
    login: Login,
    gate: Gate,
}

impl Quiet {
    /// Of a client that has said nothing yet.
    pub(crate) fn new(settings: &Settings) -> Quiet {
        Quiet {
            protocol: settings.protocol,
            login: Login::new(settings),
            gate: Gate::new(settings.ascii_users.is_none()),
        }
    }

    pub(crate) fn is_binary(&self) -> bool {
        self.protocol == Protocol::Binary
    }
}

/// 1. `input[parsed..]` has come and is not executed; `output[sent..]` is to be sent, and `pinned` within it.
/// 2. With `skip > 0` there is no unparsed input: those bytes are thrown away as they come.
/// 3. `progress` belongs to the request at `input[parsed..]`.
/// 4. With `incoming` all input that is not parsed yet belongs to that value, as far as it goes.
/// 5. With `in_long_line` there is no line's end in the input, unless `bytes_needed` has come.
pub(crate) struct Connection {
    input: Input,
    parsed: usize,
    output: Vec<u8>,
    sent: usize,
    /// A large value that goes out within the output.
    pinned: Option<Box<Pinned>>,
    skip: u64,
    /// Input needed before parsing is worth another try.
    bytes_needed: usize,
    /// The input is the beginning of a get's line, above other lines' bound.
    in_long_line: bool,
    progress: Progress,
    /// A large value that goes into the cache as it comes.
    incoming: Option<Box<Incoming>>,
    limits: Limits,
    /// The client watches, and sends no more requests.
    watch: Option<Watch>,
    /// Replies that wait until what they answer is replicated.
    held: Held,
    /// Auto until the first byte has come.
    protocol: Protocol,
    login: Login,
    gate: Gate,
    /// Of all clients that had this connection in turn.
    requests_done: u64,
    /// What its buffers took when its worker last counted them: they may change between its turns.
    pub(crate) counted_bytes: usize,
    /// It has one turn.
    is_datagram: bool,
    /// Bytes that were read in this turn, or ahead of the next one.
    taken: usize,
    /// The last read has emptied the socket.
    is_socket_empty: bool,
    short_read_is_last: bool,
    sends_directly: bool,
    peer_closed: bool,
    closing: bool,
    /// It closes since what came was no request.
    is_refused: bool,
    /// Lent for a turn whose requests are timed.
    pub(crate) stopwatch: Option<Box<Stopwatch>>,
}

impl Connection {
    pub(crate) fn new(settings: &Settings) -> Connection {
        let Quiet { protocol, login, gate } = Quiet::new(settings);
        Connection {
            input: Input::default(),
            parsed: 0,
            output: Vec::new(),
            sent: 0,
            pinned: None,
            skip: 0,
            bytes_needed: 1,
            in_long_line: false,
            progress: Progress::default(),
            incoming: None,
            // An item is more than its value (rule L3), so one as long as the limit never fits.
            limits: Limits {
                value_bytes_max: settings.item_bytes_max.saturating_sub(1),
                large_bytes_min: settings.large_value_bytes_min,
                ..Limits::default()
            },
            watch: None,
            held: Held::default(),
            protocol,
            login,
            gate,
            requests_done: 0,
            counted_bytes: 0,
            is_datagram: false,
            taken: 0,
            is_socket_empty: false,
            short_read_is_last: false,
            sends_directly: false,
            peer_closed: false,
            closing: false,
            is_refused: false,
            stopwatch: None,
        }
    }

    #[cold]
    pub(crate) fn boxed(settings: &Settings) -> Box<Connection> {
        Box::new(Connection::new(settings))
    }

    /// One whose requests come in one datagram.
    pub(crate) fn of_datagram(settings: &Settings) -> Connection {
        Connection { is_datagram: true, ..Connection::new(settings) }
    }

    /// Executes the requests, of which the last may lack its end and is left out then, and gives the whole answer. Waits for
    /// acks where answers wait for them.
    pub(crate) fn answer_at_once(mut self, mut requests: &[u8], executor: &mut Executor<'_>) -> Vec<u8> {
        executor.outgoing.copy_all();
        // A slice can always be read.
        while !requests.is_empty() && self.fill(|room| requests.read(room)).is_ok() {}
        let mut stop = self.execute(executor);
        while stop == Stop::InputUsed && !self.held.is_empty() {
            self.held.wait(&executor.shared.cache);
            stop = self.execute(executor);
        }
        // Of the last request nothing is missing, however long its answer is.
        let is_whole = stop == Stop::OutputFull && self.parsed == self.input.len() && self.skip == 0;
        if stop != Stop::InputUsed && !is_whole {
            self.output.clear();
            if self.protocol != Protocol::Binary {
                server_error(&mut self.output, "the answer is too long for UDP");
            }
        }
        self.output
    }

    /// The request that the client owes the rest of. None while the client lets answers lie, for then nothing is read.
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        let has_begun = self.skip > 0 || self.parsed < self.input.len() || self.incoming.is_some();
        (has_begun && self.unsent().is_empty() && self.held.is_empty()).then(|| self.begun())
    }

    /// [`Connection::unfinished`] where there is one.
    #[cold]
    fn begun(&self) -> Unfinished {
        let incoming = self.incoming.as_ref().map_or(0, |incoming| incoming.bytes());
        let bytes = self.skip.max(self.bytes_needed.max(incoming) as u64);
        Unfinished { ordinal: self.requests_done, bytes }
    }

    /// Whether neither side owes the other anything, as far as it was read.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_silent = self.unsent().is_empty() && self.held.is_empty();
        self.skip == 0 && self.incoming.is_none() && self.parsed == self.input.len() && is_silent
    }

    /// What is left to be kept of it, if that is all: then it may [`resume`](Connection::resume) as any other quiet one.
    #[inline]
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        let Connection { protocol, login, gate, .. } = *self;
        let is_over = self.closing || self.peer_closed;
        (self.is_at_rest() && self.watch.is_none() && !is_over).then_some(Quiet { protocol, login, gate })
    }

    /// Goes on as a connection that was quiet, which this one has to be too.
    #[inline]
    pub(crate) fn resume(&mut self, quiet: Quiet) {
        debug_assert!(self.quiet().is_some() && self.progress.is_at_start() && self.bytes_needed == 1);
        (self.protocol, self.login, self.gate) = (quiet.protocol, quiet.login, quiet.gate);
    }

    /// Whether it closes as soon as what is unsent or held has gone.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether it closes since what came was no request.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// What it waits for between its turns.
    pub(crate) fn state(&self) -> State {
        if self.watch.is_some() {
            State::Watching
        } else if !self.unsent().is_empty() {
            State::Writing
        } else if self.skip > 0 {
            State::Swallowing
        } else if self.parsed < self.input.len() || self.incoming.is_some() {
            self.state_within_request()
        } else {
            State::Reading
        }
    }

    /// A part of a request has come.
    #[cold]
    fn state_within_request(&self) -> State {
        let input = &self.input[self.parsed..];
        let is_line_whole = match self.protocol {
            Protocol::Binary => input.len() >= HEADER_BYTES,
            Protocol::Auto | Protocol::Ascii => {
                input[..input.len().min(self.limits.line_bytes_max)].contains(&b'\n')
            }
        };
        if self.incoming.is_some() || is_line_whole { State::TakingData } else { State::Reading }
    }

    /// All that is to be sent, in bytes.
    #[cfg(test)]
    fn unsent_bytes(&self) -> usize {
        let pinned = self.pinned.as_ref().map_or(0, |pinned| pinned.missing_bytes());
        self.output.len() - self.sent + pinned
    }

    /// What its buffers take, in bytes.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let incoming = self.incoming.as_ref().map_or(0, |incoming| incoming.buffer_bytes());
        let pinned = self.pinned.as_ref().map_or(0, |pinned| pinned.heap_bytes());
        self.input.capacity() + self.output.capacity() + self.held.bytes() + incoming + pinned
    }

    /// The replies that wait until what they answer is replicated. While there are any, [`Connection::execute`] is to be
    /// called when the first is due.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// When the time of the first of them is over; none while it waits for a large value to go, which is the socket's business.
    pub(crate) fn held_due(&self) -> Option<Instant> {
        if self.pinned.is_none() { self.held.due() } else { None }
    }

    /// Whether a turn would let the first of them go.
    pub(crate) fn is_held_due(&self, cache: &Cache, now: Instant) -> bool {
        self.pinned.is_none() && self.held.is_due(cache, now)
    }

    /// The watch, if the client watches.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// Moves what was seen to the output of a client that watches, once the last of it has gone.
    fn take_watched(&mut self) {
        if self.unsent().is_empty()
            && let Some(watch) = &self.watch
        {
            watch.take(&mut self.output);
        }
    }

    /// Takes what `read` puts into the room it is given, and says how many bytes that is; the room fits what is known
    /// to come.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        if self.parsed > 0 {
            self.input.forget(self.parsed);
            self.parsed = 0;
        }
        let have = self.input.len();
        let known = self.bytes_needed.saturating_sub(have);
        // A value's room is taken as its bytes come, doubling: a stated length alone costs nothing.
        let room = match &self.incoming {
            None => known.clamp(READ_BYTES, READ_BYTES.max(have)),
            Some(incoming) => incoming.missing_bytes().clamp(READ_BYTES, PIECE_BYTES),
        };
        let result = read(self.input.room(room));
        self.input.came(result.as_ref().map_or(0, |count| *count));
        if self.in_long_line {
            self.wait_for_line_end(have);
        }
        result
    }

    /// Looks for the end of a long line in what has come behind the first `known` bytes only: the parser looks from the
    /// line's first byte on, which for a line that comes byte by byte would cost its length squared.
    fn wait_for_line_end(&mut self, known: usize) {
        let has_end = self.input[known..].contains(&b'\n');
        if has_end || self.input.len() >= self.limits.get_line_bytes_max {
            self.in_long_line = false;
        } else {
            self.bytes_needed = self.input.len() + 1;
        }
    }

    /// Whether a classic request that is not whole is a get's line, longer than others may be.
    fn is_in_long_line(&self, input: &[u8], bytes_needed: usize) -> bool {
        bytes_needed > self.limits.line_bytes_max
            && bytes_needed == input.len() + 1
            && !input.contains(&b'\n')
    }

    /// Throws away what has come.
    fn forget_input(&mut self) {
        (self.parsed, self.bytes_needed) = (self.input.len(), 1);
    }

    /// Executes what has come.
    pub(crate) fn execute(&mut self, executor: &mut Executor<'_>) -> Stop {
        self.release_held(&executor.shared.cache);
        // Requests are taken apart where they lie, and stay there while they are executed.
        let input = mem::take(&mut self.input);
        let stop = self.execute_input(&input, executor);
        self.input = input;
        self.take_outgoing(executor);
        stop
    }

    /// Executes all that has come, and is not executed yet.
    fn execute_input(&mut self, all: &[u8], executor: &mut Executor<'_>) -> Stop {
        let waits_for_acks = self.held.wants_answers() || executor.shared.cache.ack_mode() != AckMode::Async;
        // The first is executed as it is.
        let mut looked_to = self.parsed + 1;
        while !self.closing && self.watch.is_none() {
            if let Some(stop) = self.stop_for_output(executor) {
                return stop;
            }
            let thrown = self.skip.min((all.len() - self.parsed) as u64);
            self.parsed += thrown as usize;
            self.skip -= thrown;
            let input = &all[self.parsed..];
            if self.skip > 0 || input.is_empty() || input.len() < self.bytes_needed {
                return Stop::InputUsed;
            }
            if self.incoming.is_some() {
                let ran = self.execute_one(&Asked::RestOfValue, input, waits_for_acks, executor);
                if let Some(stop) = self.stop_after(ran) {
                    return stop;
                }
                continue;
            }
            self.settle_protocol(input[0]);
            if !waits_for_acks && self.execute_plainly(input, executor) {
                continue;
            }
            let limits = self.limits;
            let first = self.ask(input, &limits);
            if matches!(first, Asked::Binary) && self.parsed >= looked_to {
                looked_to = self.parsed.saturating_add(fetch_binary(input, &executor.shared.cache));
            }
            let stop = match first.key_and_bytes() {
                Some((key, bytes)) if bytes < input.len() => {
                    let batch = Batch::read(first, key, &input[bytes..], |rest| self.ask(rest, &limits));
                    self.execute_batch(&batch, all, waits_for_acks, executor)
                }
                _ => {
                    let ran = self.execute_one(&first, input, waits_for_acks, executor);
                    self.stop_after(ran)
                }
            };
            if let Some(stop) = stop {
                return stop;
            }
        }
        if self.watch.is_some() && !self.held.is_empty() { Stop::Holding } else { Stop::InputUsed }
    }

    /// Why nothing more is executed behind a request, if that is so.
    #[inline]
    fn stop_after(&mut self, ran: Ran) -> Option<Stop> {
        match ran {
            Ran::Done => {
                self.bytes_needed = 1;
                self.requests_done += 1;
                None
            }
            Ran::NeedsMore { bytes } => {
                self.bytes_needed = bytes;
                Some(Stop::InputUsed)
            }
            Ran::Stopped(stop) => Some(stop),
        }
    }

    /// Executes requests that lie where the input begins. Behind the last alone may be bytes that are thrown away, or nothing any
    /// more.
    fn execute_batch(
        &mut self,
        batch: &Batch<'_>,
        all: &[u8],
        waits_for_acks: bool,
        executor: &mut Executor<'_>,
    ) -> Option<Stop> {
        if batch.keys().len() > 1 {
            executor.shared.cache.prefetch(batch.keys());
        }
        for (index, asked) in batch.asked().enumerate() {
            if index > 0
                && let Some(stop) = self.stop_for_output(executor)
            {
                return Some(stop);
            }
            let ran = self.execute_one(asked, &all[self.parsed..], waits_for_acks, executor);
            if let Some(stop) = self.stop_after(ran) {
                return Some(stop);
            }
        }
        None
    }

    /// Takes apart what the input begins with.
    #[inline]
    fn ask<'a>(&self, input: &'a [u8], limits: &Limits) -> Asked<'a> {
        if !self.gate.is_open() {
            return Asked::BeforeGate;
        }
        match self.protocol {
            Protocol::Binary => Asked::Binary,
            Protocol::Auto | Protocol::Ascii => Asked::in_text(input, limits),
        }
    }

    /// The first byte that comes behind the gate says which dialect the client speaks.
    #[inline]
    fn settle_protocol(&mut self, first: u8) {
        if self.protocol == Protocol::Auto && self.gate.is_open() {
            self.protocol = binary::protocol_of(first);
        }
    }

    /// Moves replies to the output that are acknowledged by now, or never will be.
    pub(super) fn release_held(&mut self, cache: &Cache) {
        if !self.held.is_empty() {
            let dialect = match self.protocol {
                Protocol::Binary => Dialect::Binary,
                Protocol::Auto | Protocol::Ascii => Dialect::Text,
            };
            self.held.release(cache, Instant::now(), dialect, &mut self.output, &mut self.pinned);
        }
    }

    /// Executes one request, with which the input begins.
    #[inline]
    fn execute_one(
        &mut self,
        asked: &Asked<'_>,
        input: &[u8],
        waits_for_acks: bool,
        executor: &mut Executor<'_>,
    ) -> Ran {
        match self.stopwatch {
            None if waits_for_acks => self.execute_held(asked, input, executor),
            None => self.execute_asked(asked, input, executor),
            Some(_) => self.execute_timed(asked, input, waits_for_acks, executor),
        }
    }

    /// What tells which request is executed, where the input begins: of a large value that is under way its head.
    fn request<'a>(&self, input: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.incoming {
            Some(incoming) => Cow::Owned(incoming.head().to_vec()),
            None => Cow::Borrowed(input),
        }
    }

    /// Executes one request, and holds its reply if it has to wait.
    fn execute_held(&mut self, asked: &Asked<'_>, input: &[u8], executor: &mut Executor<'_>) -> Ran {
        if self.held.takes_drop()
            && let Asked::Classic(Parsed::Complete { consumed, .. }) = asked
        {
            // Nobody is told of the rest: of a line of 500 000 keys it would be as many pieces.
            self.progress = Progress::default();
            self.parsed += consumed;
            return Ran::Done;
        }
        let Shared { cache, settings, .. } = executor.shared;
        let begun = self.output.len();
        let request = self.request(input);
        let (ran, written) = cache.track(|| self.execute_asked(asked, input, executor));
        let timeout = Duration::from_millis(settings.ack_timeout_ms);
        let goes_on = matches!(ran, Ran::Stopped(_));
        let quiet = || match self.protocol {
            Protocol::Binary => binary::quiet_success(&request),
            // An error of a quiet meta command is told; `noreply` wants to hear nothing.
            Protocol::Auto | Protocol::Ascii => is_meta(&request).then(Vec::new),
        };
        let answered = Answered { begun, written, timeout, goes_on };
        self.held.take(&mut self.output, &executor.outgoing, answered, quiet);
        ran
    }

    /// Executes one request by the stopwatch. Taking it apart is not in its time, nor are acks that its reply waits for.
    #[cold]
    fn execute_timed(
        &mut self,
        asked: &Asked<'_>,
        input: &[u8],
        waits_for_acks: bool,
        executor: &mut Executor<'_>,
    ) -> Ran {
        executor.counters.requests.forget_newest();
        let (from, output_bytes, begun) = (self.parsed, self.output.len(), Instant::now());
        let request = self.request(input);
        let large = self.incoming.as_ref().map(|incoming| (incoming.bytes(), incoming.time));
        let ran = match waits_for_acks {
            true => self.execute_held(asked, input, executor),
            false => self.execute_asked(asked, input, executor),
        };
        let time = begun.elapsed() + large.map_or(Duration::ZERO, |(_, until_now)| until_now);
        if let Some(incoming) = &mut self.incoming {
            incoming.time = time;
        }
        if let Some(stopwatch) = &mut self.stopwatch
            && !matches!(ran, Ran::NeedsMore { .. })
        {
            let is_whole = matches!(ran, Ran::Done);
            let here_bytes = if is_whole { self.parsed - from } else { input.len() };
            let request_bytes = large.map_or(here_bytes, |(bytes, _)| bytes);
            let answer_bytes = self.output.len().saturating_sub(output_bytes) + executor.outgoing.bytes();
            stopwatch.note(time, is_whole, &request, (request_bytes, answer_bytes), executor.counters);
        }
        ran
    }

    #[inline]
    fn execute_asked(&mut self, asked: &Asked<'_>, input: &[u8], executor: &mut Executor<'_>) -> Ran {
        match asked {
            Asked::Classic(parsed) => self.execute_classic(parsed, input, executor),
            Asked::Meta(parsed) => match executor.execute_meta(parsed, input, &mut self.output) {
                Step::Done { consumed, skip } => {
                    self.parsed += consumed;
                    self.skip = skip;
                    Ran::Done
                }
                Step::Incomplete { bytes_needed } => Ran::NeedsMore { bytes: bytes_needed },
                Step::Large { consumed, value } => {
                    self.begin_incoming(Incoming::in_text(&input[..consumed], value), input, executor)
                }
                Step::Close => self.refuse(),
            },
            Asked::Binary => self.execute_binary(input, executor),
            Asked::BeforeGate => self.look_at_gate(input, executor),
            Asked::RestOfValue => self.take_incoming(input, executor),
        }
    }

    /// What came is no request, nor will be.
    fn refuse(&mut self) -> Ran {
        (self.closing, self.is_refused) = (true, true);
        Ran::Done
    }

    #[inline]
    fn execute_classic(&mut self, parsed: &Parsed<'_>, input: &[u8], executor: &mut Executor<'_>) -> Ran {
        match parsed {
            Parsed::Complete { request, consumed } if self.is_datagram && takes_turns(request) => {
                server_error(&mut self.output, "not over UDP");
                self.parsed += consumed;
            }
            Parsed::Complete { request, consumed } => {
                let bound = self.sent + UNSENT_BYTES_MAX;
                self.progress.is_pipelined = self.output.len() > self.sent;
                match executor.execute(request, &mut self.progress, bound, &mut self.output) {
                    Flow::Next => {}
                    Flow::Skip(bytes) => self.skip = bytes,
                    Flow::Close => self.closing = true,
                    Flow::OutputFull => return Ran::Stopped(Stop::OutputFull),
                    Flow::Again => return Ran::Stopped(Stop::Yields),
                    Flow::Watch(watch) => self.watch = Some(watch),
                }
                self.parsed += consumed;
            }
            Parsed::Invalid { reply, consumed, skip } => {
                executor.refuse_line(&input[..*consumed], *reply, &mut self.output);
                self.skip = *skip;
                self.parsed += consumed;
            }
            Parsed::Head { store, consumed, value_bytes } => {
                let value = executor.begin_store(store, *value_bytes);
                return self.begin_incoming(Incoming::in_text(&input[..*consumed], value), input, executor);
            }
            Parsed::Incomplete { bytes_needed } => {
                self.in_long_line = self.is_in_long_line(input, *bytes_needed);
                return Ran::NeedsMore { bytes: *bytes_needed };
            }
            Parsed::Close => return self.refuse(),
        }
        Ran::Done
    }

    /// Before the gate.
    fn look_at_gate(&mut self, input: &[u8], executor: &Executor<'_>) -> Ran {
        let users = executor.shared.settings.ascii_users.as_ref();
        match users.map_or(Look::Close, |users| self.gate.look(input, users, executor.counters)) {
            Look::Answered { consumed, reply } => {
                self.output.extend_from_slice(reply.as_bytes());
                self.parsed += consumed;
            }
            Look::Incomplete { bytes_needed } => return Ran::NeedsMore { bytes: bytes_needed },
            Look::Close => return self.refuse(),
        }
        Ran::Done
    }

    fn execute_binary(&mut self, input: &[u8], executor: &mut Executor<'_>) -> Ran {
        match binary::step(input, &mut self.login, executor, &mut self.output) {
            binary::Step::Incomplete { bytes_needed } => Ran::NeedsMore { bytes: bytes_needed },
            binary::Step::Large { consumed, value } => {
                self.begin_incoming(Incoming::in_packet(&input[..consumed], value), input, executor)
            }
            binary::Step::Done { consumed, skip, close } => {
                self.parsed += consumed;
                self.skip = skip;
                self.closing = close;
                Ran::Done
            }
        }
    }
}

/// Has what the next binary requests are about fetched, and gives how many bytes they take; one at least.
#[inline(never)]
fn fetch_binary(input: &[u8], cache: &Cache) -> usize {
    let mut keys = [&[][..]; AHEAD_MAX];
    let (count, bytes) = batch::binary_keys(input, &mut keys);
    if count > 1 {
        cache.prefetch(&keys[..count]);
    }
    bytes.max(1)
}

/// Whether a request goes through the items, or works on after its answer: over TCP others have their turns meanwhile.
fn takes_turns(request: &Request<'_>) -> bool {
    match request {
        Request::Operate { .. } => true,
        Request::Stats { arguments } => arguments.iter().next() == Some(b"cachedump"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
