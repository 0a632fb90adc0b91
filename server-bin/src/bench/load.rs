//! The generator: one thread, many connections, each with one batch of requests on the way.
//!
//! Lives here: filling a server, one slice of a load, and what it came to. Not here: the bytes (see `requests`, `answers`).
//!
//! The generator shall be idle as little as possible: then the server never waits for it, and its CPU time is that of
//! a busy server. [`Outcome::busy`] says how much it was. Nothing is waited for longer than the patience it was given.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::os::unix::net::UnixStream as BlockingUnix;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::answers::{Awaited, Tally};
use super::popularity;
use super::requests::{Dialect, key};

/// How many requests are made up beforehand, and repeated.
const ORDER_REQUESTS: usize = 1 << 20;

/// Zipf's exponent of the keys' popularity.
const POPULARITY: f64 = 0.99;

/// Sets of one batch while filling.
const FILL_BATCH: usize = 500;

/// How often somebody who looks on is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Where clients connect.
#[derive(Debug, Clone)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

/// Keys with values of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// What the keys begin with, so that populations can lie side by side.
    pub prefix: char,
    /// How many keys there are, of 32 bytes each.
    pub keys: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Seconds from its set until a key leaves the server by itself; 0 is never.
    pub lifetime_s: u32,
}

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How requests are spelled.
    pub dialect: Dialect,
    /// Connections, each with one batch on the way.
    pub connections: usize,
    /// Requests of one batch.
    pub pipeline: usize,
    /// Keys of a get.
    pub keys: usize,
    /// How many of a hundred requests are sets.
    pub sets: usize,
    /// Whether all sets of a batch but the last are quiet.
    pub quiet: bool,
    /// What is asked for.
    pub population: Population,
    /// A new connection for each batch, one after the other.
    pub connects: bool,
    /// Requests a second, as an open stream; 0 is as many as go.
    pub rate: usize,
}

/// What takes longer counts as this: ten minutes, in nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// What a slice of a load came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What the answers said; nothing where bytes were counted only.
    pub tally: Tally,
    /// What the server said when it first refused something, in its words.
    pub refusal: Option<String>,
    /// Nanoseconds from a batch's being due to its last answer, three digits exact.
    pub latencies: Histogram<u64>,
    /// The generator's own CPU time, as a part of the time.
    pub busy: f64,
}

impl Outcome {
    /// The time within which so many of a hundred batches were answered, in microseconds.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1000.0
    }

    /// Requests a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// One load on one server.
#[derive(Debug)]
pub struct Generator {
    address: Address,
    maker: Maker,
    patience: Duration,
}

/// Is told of how long it has been running, and of how many batches were answered.
pub type Watcher<'a> = &'a mut dyn FnMut(Duration, u64);

impl Generator {
    /// Whoever `counts_only` promises that every key is there and every set will do: answers are then known by their
    /// length, which costs the least. `patience` is how long a server may be silent.
    pub fn new(address: Address, load: Load, counts_only: bool, patience: Duration) -> Generator {
        Generator { address, maker: Maker::new(load, counts_only), patience }
    }

    /// Asks one batch in peace and looks at what comes, values where they were promised.
    ///
    /// # Errors
    /// The server can't be reached, is silent, or answers something else.
    pub fn check(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        let mut awaited = Awaited::nothing(self.maker.load.dialect, false);
        self.maker.batch(&mut out, &mut awaited);
        Blocking::connect(&self.address, self.patience)?.exchange(&out, &mut awaited)?;
        let tally = awaited.take_tally();
        if self.maker.counts_only && (tally.misses > 0 || tally.refused > 0) {
            return Err(Error::other(format!("the server misses or refuses: {tally:?}")));
        }
        Ok(())
    }

    /// Asks so many batches on one connection, one after the other: the same bytes each time, for whoever counts what they
    /// cost.
    ///
    /// # Errors
    /// The server can't be reached, is silent, or answers something else.
    pub fn ask(&mut self, batches: u64) -> io::Result<()> {
        let mut stream = Blocking::connect(&self.address, self.patience)?;
        let (mut out, mut awaited) = (Vec::new(), self.maker.nothing_awaited());
        for _ in 0..batches {
            out.clear();
            self.maker.batch(&mut out, &mut awaited);
            stream.exchange(&out, &mut awaited)?;
        }
        Ok(())
    }

    /// Asks for so long.
    ///
    /// # Errors
    /// A connection broke, the server is silent, or an answer is not what it must be.
    pub fn run(&mut self, time: Duration, watcher: Watcher<'_>) -> io::Result<Outcome> {
        let (outcome, ended) = self.run_until_it_breaks(time, watcher);
        ended.map(|()| outcome)
    }

    /// Asks for so long, or until that fails: what was measured by then, and why it ended early, if it did (the errors of
    /// [`Generator::run`]).
    pub fn run_until_it_breaks(&mut self, time: Duration, watcher: Watcher<'_>) -> (Outcome, io::Result<()>) {
        let (cpu, begun) = (own_cpu(), Instant::now());
        let mut course = Course::new(time, watcher);
        let ended = match (self.maker.load.connects, self.maker.load.rate) {
            (true, _) => self.connect_each(&mut course),
            (false, 0) => self.saturate(&mut course),
            (false, rate) => self.keep_rate(rate, &mut course),
        };
        let elapsed = begun.elapsed();
        let outcome = Outcome {
            requests: course.batches * self.maker.load.pipeline as u64,
            elapsed,
            tally: course.tally,
            refusal: course.refusal,
            latencies: course.latencies,
            busy: own_cpu().saturating_sub(cpu).as_secs_f64() / elapsed.as_secs_f64(),
        };
        (outcome, ended)
    }

    /// The next batch as soon as the last is answered.
    fn saturate(&mut self, course: &mut Course<'_>) -> io::Result<()> {
        let (mut poll, mut connections) = self.connect_all()?;
        let (mut events, mut room) = (Events::with_capacity(1024), vec![0; 1 << 20]);
        for connection in &mut connections {
            connection.begin(&mut self.maker, Instant::now())?;
        }
        loop {
            poll_once(&mut poll, &mut events, self.patience)?;
            if events.is_empty() {
                return Err(self.is_silent(&connections));
            }
            for event in &events {
                let connection = &mut connections[event.token().0];
                if connection.go_on(&mut room)? {
                    let now = Instant::now();
                    course.answered(connection, now);
                    if now >= course.end {
                        return self.refuse_silence(&connections, now);
                    }
                    connection.begin(&mut self.maker, now)?;
                }
            }
            // One that sends and never ends is as good as silent.
            if Instant::now() > course.end + self.patience {
                return Err(self.is_silent(&connections));
            }
        }
    }

    /// So many requests a second, whatever the answers do: a batch that has to wait for its connection counts from when it
    /// was due.
    fn keep_rate(&mut self, rate: usize, course: &mut Course<'_>) -> io::Result<()> {
        let (mut poll, mut connections) = self.connect_all()?;
        let (mut events, mut room) = (Events::with_capacity(1024), vec![0; 1 << 20]);
        let mut idle: Vec<usize> = (0..connections.len()).collect();
        let step = Duration::from_secs_f64(self.maker.load.pipeline as f64 / rate as f64);
        let (start, mut begun) = (Instant::now(), 0_u32);
        let mut heard = start;
        loop {
            let now = Instant::now();
            if now >= course.end {
                return self.refuse_silence(&connections, now);
            }
            if idle.len() < connections.len() && now - heard > self.patience {
                return Err(self.is_silent(&connections));
            }
            while start + step * begun <= Instant::now()
                && let Some(number) = idle.pop()
            {
                connections[number].begin(&mut self.maker, start + step * begun)?;
                begun += 1;
            }
            poll_once(&mut poll, &mut events, Duration::ZERO)?;
            for event in &events {
                let connection = &mut connections[event.token().0];
                if !connection.awaited.is_over() && connection.go_on(&mut room)? {
                    heard = Instant::now();
                    course.answered(connection, heard);
                    idle.push(event.token().0);
                }
            }
            if events.is_empty() && idle.len() == connections.len() {
                heard = now;
            }
        }
    }

    /// Connects, asks, reads the answer and closes, one after the other.
    fn connect_each(&mut self, course: &mut Course<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        let mut number = 0;
        loop {
            out.clear();
            let mut awaited = self.maker.nothing_awaited();
            self.maker.batch(&mut out, &mut awaited);
            let begun = Instant::now();
            let mut stream = Blocking::connect_from(number, &self.address, self.patience)?;
            stream.exchange(&out, &mut awaited)?;
            drop(stream);
            let now = Instant::now();
            course.note(now - begun, &mut awaited, now);
            number += 1;
            if now >= course.end {
                return Ok(());
            }
        }
    }

    fn connect_all(&self) -> io::Result<(Poll, Vec<Connection>)> {
        let poll = Poll::new()?;
        let connections = (0..self.maker.load.connections).map(|number| {
            let mut stream = Stream::connect(&self.address, self.patience)?;
            let (token, interest) = (Token(number), Interest::READABLE | Interest::WRITABLE);
            match &mut stream {
                Stream::Tcp(stream) => poll.registry().register(stream, token, interest)?,
                Stream::Unix(stream) => poll.registry().register(stream, token, interest)?,
            }
            let awaited = self.maker.nothing_awaited();
            Ok(Connection {
                stream,
                out: Vec::new(),
                sent: 0,
                awaited,
                begun: Instant::now(),
                was_answered: false,
            })
        });
        let connections: io::Result<Vec<Connection>> = connections.collect();
        Ok((poll, connections?))
    }

    /// Whether some connection has waited for too long, while others did well.
    fn refuse_silence(&self, connections: &[Connection], now: Instant) -> io::Result<()> {
        let is_stuck = |connection: &Connection| {
            !connection.awaited.is_over() && now.saturating_duration_since(connection.begun) > self.patience
        };
        if connections.iter().any(is_stuck) { Err(self.is_silent(connections)) } else { Ok(()) }
    }

    fn is_silent(&self, connections: &[Connection]) -> Error {
        let unheard = connections
            .iter()
            .filter(|connection| !connection.was_answered && !connection.awaited.is_over())
            .count();
        match unheard {
            0 => silence(self.patience),
            all if all == connections.len() => silence(self.patience),
            some => {
                let all = connections.len();
                let what = format!("{}, {some} of {all} connections not once", silence(self.patience));
                Error::new(ErrorKind::TimedOut, format!("{what}{PERHAPS_TOO_MANY}"))
            }
        }
    }
}

/// What is told behind an error of a connection that was never answered.
const PERHAPS_TOO_MANY: &str = ": perhaps the server takes fewer connections at once; give fewer by -c, or allow it more (memcached's -c)";

fn silence(patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    Error::new(ErrorKind::TimedOut, format!("the server did not answer within {seconds} seconds"))
}

fn poll_once(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        // What was there is told by the next one.
        Err(why) if why.kind() == ErrorKind::Interrupted => poll.poll(events, Some(timeout)),
        other => other,
    }
}

/// CPU time of this thread.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A run's measurements, and who looks on.
struct Course<'a> {
    begun: Instant,
    end: Instant,
    batches: u64,
    tally: Tally,
    refusal: Option<String>,
    latencies: Histogram<u64>,
    watcher: Watcher<'a>,
    told: Instant,
}

impl<'a> Course<'a> {
    fn new(time: Duration, watcher: Watcher<'a>) -> Course<'a> {
        let begun = Instant::now();
        // With a stated end: a histogram that grows by itself does not do so for values that it would have to cut.
        let latencies =
            Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("a range and digits that are allowed");
        let (end, tally) = (begun + time, Tally::default());
        Course { begun, end, batches: 0, tally, refusal: None, latencies, watcher, told: begun }
    }

    fn answered(&mut self, connection: &mut Connection, now: Instant) {
        connection.was_answered = true;
        self.note(now.saturating_duration_since(connection.begun), &mut connection.awaited, now);
    }

    fn note(&mut self, time: Duration, answers: &mut Awaited, now: Instant) {
        let tally = answers.take_tally();
        if tally.refused > 0 && self.refusal.is_none() {
            self.refusal = answers.take_refusal();
        }
        self.batches += 1;
        self.tally.hits += tally.hits;
        self.tally.misses += tally.misses;
        self.tally.refused += tally.refused;
        // It grows by itself as far as there are nanoseconds in 64 bits.
        self.latencies.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        if now.saturating_duration_since(self.told) >= TELL_EVERY {
            self.told = now;
            (self.watcher)(now - self.begun, self.batches);
        }
    }
}

/// Makes batches.
#[derive(Debug)]
struct Maker {
    load: Load,
    counts_only: bool,
    keys: Vec<[u8; 32]>,
    value: Vec<u8>,
    order: Vec<u32>,
    at: usize,
    requests: usize,
}

impl Maker {
    fn new(load: Load, counts_only: bool) -> Maker {
        let Population { prefix, keys, value_bytes, .. } = load.population;
        Maker {
            load,
            counts_only,
            keys: (0..keys).map(|number| key(prefix, number)).collect(),
            value: vec![b'v'; value_bytes],
            order: popularity::zipf(keys, ORDER_REQUESTS, POPULARITY, 9),
            at: 0,
            requests: 0,
        }
    }

    fn nothing_awaited(&self) -> Awaited {
        Awaited::nothing(self.load.dialect, self.counts_only)
    }

    fn next_key(&mut self) -> usize {
        self.at += 1;
        self.order[self.at % self.order.len()] as usize
    }

    /// One batch.
    fn batch(&mut self, out: &mut Vec<u8>, awaited: &mut Awaited) {
        let dialect = self.load.dialect;
        for step in 0..self.load.pipeline {
            self.requests += 1;
            // Spread evenly: 7 has no divisor in common with 100.
            let is_set = self.requests * 7 % 100 < self.load.sets;
            if is_set {
                let key = self.next_key();
                let quiet = self.load.quiet && step + 1 < self.load.pipeline;
                let lifetime_s = self.load.population.lifetime_s;
                awaited.expect_set(dialect.set(&self.keys[key], &self.value, lifetime_s, quiet, out));
            } else if self.load.keys == 1 {
                let key = self.next_key();
                awaited.expect_get(1, dialect.get(&[&self.keys[key]], self.value.len(), out));
            } else {
                let numbers: Vec<usize> = (0..self.load.keys).map(|_| self.next_key()).collect();
                let keys: Vec<&[u8]> = numbers.iter().map(|number| &self.keys[*number][..]).collect();
                awaited.expect_get(keys.len(), dialect.get(&keys, self.value.len(), out));
            }
        }
    }
}

/// Stores every key of a population. `watcher` is told of how many there are so far.
///
/// # Errors
/// The server can't be reached, is silent, refuses, or answers something else.
pub fn fill(
    address: &Address,
    dialect: Dialect,
    population: Population,
    patience: Duration,
    watcher: &mut dyn FnMut(usize),
) -> io::Result<()> {
    let mut stream = Blocking::connect(address, patience)?;
    let value = vec![b'v'; population.value_bytes];
    let batch = ((1 << 20) / (population.value_bytes + 100) + 1).min(FILL_BATCH);
    let mut next = 0;
    while next < population.keys {
        let end = (next + batch).min(population.keys);
        let mut out = Vec::new();
        let mut awaited = Awaited::nothing(dialect, false);
        for number in next..end {
            let key = key(population.prefix, number);
            awaited.expect_set(dialect.set(&key, &value, population.lifetime_s, false, &mut out));
        }
        stream.exchange(&out, &mut awaited)?;
        if awaited.take_tally().refused > 0 {
            let said = awaited.take_refusal().unwrap_or_default();
            return Err(Error::other(format!("the server refused a set: {said}")));
        }
        next = end;
        watcher(next);
    }
    Ok(())
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(address: &Address, patience: Duration) -> io::Result<Stream> {
        Ok(match Blocking::connect(address, patience)?.stream {
            Either::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Tcp(TcpStream::from_std(stream))
            }
            Either::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Unix(UnixStream::from_std(stream))
            }
        })
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(room),
            Stream::Unix(stream) => stream.read(room),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

struct Connection {
    stream: Stream,
    out: Vec<u8>,
    sent: usize,
    awaited: Awaited,
    begun: Instant,
    was_answered: bool,
}

impl Connection {
    fn begin(&mut self, maker: &mut Maker, at: Instant) -> io::Result<()> {
        self.out.clear();
        self.sent = 0;
        maker.batch(&mut self.out, &mut self.awaited);
        self.begun = at;
        self.send()
    }

    /// Sends and takes what goes; whether the batch is answered.
    fn go_on(&mut self, room: &mut [u8]) -> io::Result<bool> {
        let gone_on = self.send().and_then(|()| self.receive(room));
        gone_on.map_err(|why| match self.was_answered {
            true => why,
            false => Error::new(why.kind(), format!("{why}{PERHAPS_TOO_MANY}")),
        })
    }

    /// Sends what the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Takes what has come; whether the batch is answered.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<bool> {
        while !self.awaited.is_over() {
            match self.stream.read(room) {
                Ok(0) => return Err(closed()),
                Ok(count) => self.awaited.take(&room[..count]).map_err(Error::other)?,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(true)
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")
}

enum Either {
    Tcp(BlockingStream),
    Unix(BlockingUnix),
}

/// A connection that is waited for, as long as the patience lasts.
struct Blocking {
    stream: Either,
    patience: Duration,
}

impl Blocking {
    fn connect(address: &Address, patience: Duration) -> io::Result<Blocking> {
        let stream = match address {
            Address::Tcp(at) => {
                let stream = BlockingStream::connect_timeout(at, patience)?;
                stream.set_nodelay(true)?;
                Either::Tcp(stream)
            }
            Address::Unix(path) => Either::Unix(BlockingUnix::connect(path)?),
        };
        Ok(Blocking { stream, patience })
    }

    /// To this machine from one of 200 addresses in turn: a closed connection keeps its port for a minute, and an address
    /// has 28 000.
    fn connect_from(number: usize, address: &Address, patience: Duration) -> io::Result<Blocking> {
        match address {
            Address::Tcp(to) if to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) => {
                let from = Ipv4Addr::new(127, 0, 1, 1 + (number % 200) as u8);
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&SocketAddr::from((from, 0)).into())?;
                socket.connect(&(*to).into())?;
                Ok(Blocking { stream: Either::Tcp(socket.into()), patience })
            }
            other => Blocking::connect(other, patience),
        }
    }

    /// Sends a batch and takes its answers.
    fn exchange(&mut self, out: &[u8], awaited: &mut Awaited) -> io::Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut sent = 0;
        while sent < out.len() {
            self.wait_until(deadline)?;
            let written = match &mut self.stream {
                Either::Tcp(stream) => stream.write(&out[sent..]),
                Either::Unix(stream) => stream.write(&out[sent..]),
            };
            sent += self.moved(written)?.unwrap_or(0);
        }
        let mut room = vec![0; 64 << 10];
        while !awaited.is_over() {
            self.wait_until(deadline)?;
            let read = match &mut self.stream {
                Either::Tcp(stream) => stream.read(&mut room),
                Either::Unix(stream) => stream.read(&mut room),
            };
            match self.moved(read)? {
                Some(0) => return Err(closed()),
                Some(count) => awaited.take(&room[..count]).map_err(Error::other)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Has the next read or write wait no longer than that.
    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silence(self.patience));
        }
        match &self.stream {
            Either::Tcp(stream) => {
                stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)))
            }
            Either::Unix(stream) => {
                stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)))
            }
        }
    }

    /// What was read or written; none if it has to be tried again.
    fn moved(&self, outcome: io::Result<usize>) -> io::Result<Option<usize>> {
        match outcome {
            Ok(count) => Ok(Some(count)),
            Err(why) if why.kind() == ErrorKind::Interrupted => Ok(None),
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(silence(self.patience))
            }
            Err(why) => Err(why),
        }
    }
}
