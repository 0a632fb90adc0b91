//! The generator: one thread, many connections, each with one batch of requests on the way.
//!
//! Lives here: filling a server, one slice of a workload, and what it cost. Not here: the bytes (see `requests`).
//!
//! The generator shall be idle as little as possible: then the server never waits for it, and its CPU time is that of
//! a busy server. [`Slice::busy`] says how much it was.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::os::unix::net::UnixStream as BlockingUnix;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::process::{Address, Server};
use super::requests::{Dialect, Family, key};
use super::{HUGE, KEYS, LARGE, VALUE_BYTES};
use crate::workload;

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    /// For servers of memcached's family.
    pub dialect: Dialect,
    /// Whether redis is measured too; the dialect is its own then.
    pub redis: bool,
    pub unix: bool,
    pub connections: usize,
    /// Requests of one batch.
    pub pipeline: usize,
    /// Keys of a get.
    pub keys: usize,
    /// How many of a hundred requests are sets.
    pub sets: usize,
    /// Whether all sets of a batch but the last are quiet.
    pub quiet: bool,
    /// What values: `k`, `l` or `h` of [`super`].
    pub kind: char,
    /// A new connection for each request.
    pub connects: bool,
    /// Requests a second, as an open stream; 0 is as many as go.
    pub rate: usize,
}

/// What a slice of a workload came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slice {
    /// Microseconds of the server's CPU a request.
    pub cpu_us: f64,
    /// Requests a second.
    pub per_second: f64,
    /// Of a batch, in microseconds.
    pub p99_us: f64,
    /// As `p99_us`.
    pub p999_us: f64,
    /// The generator's own CPU time, as a part of the time.
    pub busy: f64,
}

/// How many values there are of a kind, and their size.
pub fn population(kind: char) -> (usize, usize) {
    match kind {
        'l' => LARGE,
        'h' => HUGE,
        _ => (KEYS, VALUE_BYTES),
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(address: &Address) -> io::Result<Stream> {
        Ok(match address {
            Address::Tcp(port) => {
                let stream = BlockingStream::connect((Ipv4Addr::LOCALHOST, *port))?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Stream::Tcp(TcpStream::from_std(stream))
            }
            Address::Unix(path) => {
                let stream = BlockingUnix::connect(path)?;
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
    /// Bytes of answers to come.
    due: usize,
    begun: Instant,
}

impl Connection {
    /// Sends what the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Makes batches.
struct Maker {
    workload: Workload,
    dialect: Dialect,
    keys: Vec<[u8; 32]>,
    value: Vec<u8>,
    order: Vec<u32>,
    at: usize,
    requests: usize,
}

impl Maker {
    fn new(workload: Workload, family: Family) -> Maker {
        let (count, value_bytes) = population(workload.kind);
        Maker {
            workload,
            dialect: if family == Family::Redis { Dialect::Redis } else { workload.dialect },
            keys: (0..count).map(|number| key(workload.kind, number)).collect(),
            value: vec![b'v'; value_bytes],
            order: workload::zipf(count, 1 << 20, 0.99, 9),
            at: 0,
            requests: 0,
        }
    }

    fn next_key(&mut self) -> usize {
        self.at += 1;
        self.order[self.at % self.order.len()] as usize
    }

    /// One batch; gives the bytes that answer it.
    fn batch(&mut self, out: &mut Vec<u8>) -> usize {
        let mut due = 0;
        for step in 0..self.workload.pipeline {
            self.requests += 1;
            // Spread evenly: 7 has no divisor in common with 100.
            let is_set = self.requests * 7 % 100 < self.workload.sets;
            if is_set {
                let key = self.next_key();
                let quiet = self.workload.quiet && step + 1 < self.workload.pipeline;
                due += self.dialect.set(&self.keys[key], &self.value, quiet, out);
            } else if self.workload.keys == 1 {
                let key = self.next_key();
                due += self.dialect.get(&[&self.keys[key]], self.value.len(), out);
            } else {
                let numbers: Vec<usize> = (0..self.workload.keys).map(|_| self.next_key()).collect();
                let keys: Vec<&[u8]> = numbers.iter().map(|number| &self.keys[*number][..]).collect();
                due += self.dialect.get(&keys, self.value.len(), out);
            }
        }
        due
    }
}

/// Stores every key that workloads ask for.
///
/// # Errors
/// The connection broke, or the server refused.
pub fn fill(server: &Server) -> io::Result<()> {
    let dialect = if server.family == Family::Redis { Dialect::Redis } else { Dialect::Classic };
    let expected: &[u8] = if server.family == Family::Redis { b"+OK\r\n" } else { b"STORED\r\n" };
    let mut stream = blocking(&server.address)?;
    for kind in ['k', 'l', 'h'] {
        let (count, value_bytes) = population(kind);
        let value = vec![b'v'; value_bytes];
        let batch = (1 << 20) / (value_bytes + 100) + 1;
        let mut next = 0;
        while next < count {
            let end = (next + batch.min(500)).min(count);
            let mut out = Vec::new();
            let due: usize =
                (next..end).map(|number| dialect.set(&key(kind, number), &value, false, &mut out)).sum();
            stream.write_all(&out)?;
            let mut answers = vec![0; due];
            stream.read_exact(&mut answers)?;
            if answers.chunks(expected.len()).any(|answer| answer != expected) {
                return Err(Error::other(format!("{} refused a set", server.name)));
            }
            next = end;
        }
    }
    Ok(())
}

/// A blocking connection, of either kind.
trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

fn blocking(address: &Address) -> io::Result<Box<dyn Both>> {
    Ok(match address {
        Address::Tcp(port) => {
            let stream = BlockingStream::connect((Ipv4Addr::LOCALHOST, *port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(BlockingUnix::connect(path)?),
    })
}

/// One slice of a workload on one server.
///
/// # Errors
/// A connection broke, or an answer is not what it must be.
pub fn run(server: &Server, workload: Workload, time: Duration) -> io::Result<Slice> {
    let mut maker = Maker::new(workload, server.family);
    check(server, &mut maker)?;
    let mut latencies = Vec::with_capacity(1 << 20);
    let (cpu, own, begun) = (server.cpu()?, own_cpu()?, Instant::now());
    let batches = match (workload.connects, workload.rate) {
        (true, _) => connect_each(server, &mut maker, time, &mut latencies)?,
        (false, 0) => saturate(server, &mut maker, time, &mut latencies)?,
        (false, rate) => keep_rate(server, &mut maker, time, rate, &mut latencies)?,
    };
    let elapsed = begun.elapsed();
    let requests = (batches * workload.pipeline) as f64;
    latencies.sort_unstable();
    let quantile = |part: f64| {
        let at = (latencies.len() as f64 * part) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    };
    Ok(Slice {
        cpu_us: (server.cpu()? - cpu).as_secs_f64() * 1e6 / requests,
        per_second: requests / elapsed.as_secs_f64(),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        busy: (own_cpu()? - own).as_secs_f64() / elapsed.as_secs_f64(),
    })
}

/// Asks one batch in peace and looks at what comes: as many bytes as foreseen, and values where there must be some.
fn check(server: &Server, maker: &mut Maker) -> io::Result<()> {
    let mut out = Vec::new();
    let due = maker.batch(&mut out);
    let mut stream = blocking(&server.address)?;
    stream.write_all(&out)?;
    let mut answers = vec![0; due];
    stream.read_exact(&mut answers)?;
    let is_refused = [&b"ERROR"[..], b"-ERR", b"\r\nEN\r\n"]
        .iter()
        .any(|word| answers.windows(word.len()).any(|window| window == *word));
    let gets_values = maker.workload.sets == 0;
    if is_refused || (gets_values && due < maker.value.len()) {
        return Err(Error::other(format!("{} answers something else", server.name)));
    }
    Ok(())
}

/// CPU time of this process's one thread at work.
fn own_cpu() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(Duration::from_nanos(ns))
}

fn connect_all(server: &Server, maker: &Maker, poll: &Poll) -> io::Result<Vec<Connection>> {
    (0..maker.workload.connections)
        .map(|number| {
            let mut stream = Stream::connect(&server.address)?;
            let (token, interest) = (Token(number), Interest::READABLE | Interest::WRITABLE);
            match &mut stream {
                Stream::Tcp(stream) => poll.registry().register(stream, token, interest)?,
                Stream::Unix(stream) => poll.registry().register(stream, token, interest)?,
            }
            Ok(Connection { stream, out: Vec::new(), sent: 0, due: 0, begun: Instant::now() })
        })
        .collect()
}

/// Takes what has come; whether the batch is answered.
fn receive(connection: &mut Connection, room: &mut [u8]) -> io::Result<bool> {
    while connection.due > 0 {
        match connection.stream.read(room) {
            Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")),
            Ok(count) if count > connection.due => {
                return Err(Error::other("the server answers more than was asked"));
            }
            Ok(count) => connection.due -= count,
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(why) => return Err(why),
        }
    }
    Ok(true)
}

fn begin(connection: &mut Connection, maker: &mut Maker, at: Instant) -> io::Result<()> {
    connection.out.clear();
    connection.sent = 0;
    connection.due = maker.batch(&mut connection.out);
    connection.begun = at;
    connection.send()
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

/// The next batch as soon as the last is answered.
fn saturate(
    server: &Server,
    maker: &mut Maker,
    time: Duration,
    latencies: &mut Vec<u32>,
) -> io::Result<usize> {
    let mut poll = Poll::new()?;
    let mut connections = connect_all(server, maker, &poll)?;
    let (mut events, mut room) = (Events::with_capacity(1024), vec![0; 1 << 20]);
    let end = Instant::now() + time;
    for connection in &mut connections {
        begin(connection, maker, Instant::now())?;
    }
    let mut batches = 0;
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() {
            return Err(Error::new(ErrorKind::TimedOut, format!("{} does not answer", server.name)));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            connection.send()?;
            if receive(connection, &mut room)? {
                let now = Instant::now();
                batches += 1;
                latencies.push(nanoseconds(now - connection.begun));
                if now >= end {
                    return Ok(batches);
                }
                begin(connection, maker, now)?;
            }
        }
    }
}

/// So many batches a second, whatever the answers do: one that has to wait for its connection counts from when it
/// was due.
fn keep_rate(
    server: &Server,
    maker: &mut Maker,
    time: Duration,
    rate: usize,
    latencies: &mut Vec<u32>,
) -> io::Result<usize> {
    let mut poll = Poll::new()?;
    let mut connections = connect_all(server, maker, &poll)?;
    let (mut events, mut room) = (Events::with_capacity(1024), vec![0; 1 << 20]);
    let mut idle: Vec<usize> = (0..connections.len()).collect();
    let (start, step) = (Instant::now(), Duration::from_secs(1) / rate as u32);
    let (mut batches, mut begun) = (0, 0_u32);
    while start.elapsed() < time {
        while start + step * begun <= Instant::now()
            && let Some(number) = idle.pop()
        {
            begin(&mut connections[number], maker, start + step * begun)?;
            begun += 1;
        }
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            let connection = &mut connections[event.token().0];
            if connection.due > 0 {
                connection.send()?;
                if receive(connection, &mut room)? {
                    batches += 1;
                    latencies.push(nanoseconds(connection.begun.elapsed()));
                    idle.push(event.token().0);
                }
            }
        }
    }
    Ok(batches)
}

/// A connection from one of 200 addresses in turn: a closed one keeps its port for a minute, and an address has 28 000.
fn connect_from(number: usize, to: SocketAddr) -> io::Result<BlockingStream> {
    let from = Ipv4Addr::new(127, 0, 1, 1 + (number % 200) as u8);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Connects, asks, reads the answer and closes, one after the other.
fn connect_each(
    server: &Server,
    maker: &mut Maker,
    time: Duration,
    latencies: &mut Vec<u32>,
) -> io::Result<usize> {
    let Address::Tcp(port) = &server.address else { return Err(Error::other("only over TCP")) };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
    let (mut out, mut answer) = (Vec::new(), Vec::new());
    let end = Instant::now() + time;
    let mut batches = 0;
    while Instant::now() < end {
        out.clear();
        let due = maker.batch(&mut out);
        answer.resize(due, 0);
        let begun = Instant::now();
        let mut stream = connect_from(batches, address)?;
        stream.write_all(&out)?;
        stream.read_exact(&mut answer)?;
        drop(stream);
        latencies.push(nanoseconds(begun.elapsed()));
        batches += 1;
    }
    Ok(batches)
}
