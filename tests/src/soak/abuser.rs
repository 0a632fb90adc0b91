//! One connection after another of the kinds that wear a server out, one step whenever it is due.
//!
//! Lives here: what an abuser says, how it reads, when it goes. Not here: how many there are (see [`super`]).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use socket2::{Domain, Socket, Type};

use super::values;

/// How long a server may give no sign to a connection that waits for one.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// The largest value that is sent: memcached's largest item by default, less header and key.
const HUGE_BYTES: usize = (1 << 20) - 200;
/// What a slow reader takes at a step.
const SIP_BYTES: usize = 8 << 10;
/// What others take at a step.
const GULP_BYTES: usize = 256 << 10;
/// An abuser's socket buffers, each.
const BUFFER_BYTES: usize = 64 << 10;
/// How many different keys there are.
const KEYS: u32 = 400_000;
/// How many large values there are for slow readers.
const LARGE_KEYS: u32 = 200;
/// The bytes of each.
const LARGE_BYTES: usize = 100_000;

/// What an abuser is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Sends batches of sets and gets, and judges every answer.
    Polite,
    /// Sends a part of a set, waits, and then sends the rest or goes.
    HalfWritten,
    /// Asks for far more than it reads.
    SlowReader,
    /// Goes without a look at its answers.
    Rude,
    /// Sets and gets a value as large as may be.
    Huge,
    /// Sends what is no request.
    Garbage,
    /// Only is there.
    Idle,
}

/// What came of all abusers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Connections that were made.
    pub connections: u64,
    /// Batches of which every answer was judged to be right.
    pub judged: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
}

/// A life under way.
#[derive(Debug)]
struct Life {
    kind: Kind,
    stream: TcpStream,
    /// What is still to be sent, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// What was read and is judged at its end; of what isn't judged, what came last.
    input: Vec<u8>,
    /// What is sent after the pause.
    rest: Vec<u8>,
    pause_ends: Instant,
    /// When it goes, whatever happened, if it isn't one that waits for its answers.
    ends: Instant,
    /// How many more batches it sends.
    batches: u32,
    last_sign: Instant,
}

/// A place for one connection after another.
#[derive(Debug, Default)]
pub struct Abuser {
    life: Option<Life>,
}

impl Abuser {
    /// A step of the connection that is here, or a new one; gives when to come again.
    ///
    /// # Errors
    /// The server answered wrongly, closed a connection that had done nothing wrong, or gave no sign for 20 s.
    pub fn step(
        &mut self,
        server: SocketAddr,
        rng: &mut StdRng,
        tally: &mut Tally,
    ) -> Result<Duration, String> {
        let now = Instant::now();
        match &mut self.life {
            None => {
                self.life = Some(Life::begin(server, rng, now)?);
                tally.connections += 1;
            }
            Some(life) => {
                let goes = life.step(rng, tally, now).map_err(|why| format!("{:?}: {why}", life.kind))?;
                if goes {
                    self.life = None;
                }
            }
        }
        Ok(Duration::from_millis(rng.random_range(5..60)))
    }
}

/// A socket of small buffers: with the system's own, thousands of slow readers on one machine use up all memory that
/// its TCP may have, and packets are dropped that have nothing to do with them.
fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.connect(&server.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn key(rng: &mut StdRng) -> String {
    format!("key-{}", rng.random_range(0..KEYS))
}

fn set(key: &str, bytes: usize) -> Vec<u8> {
    let mut request = format!("set {key} 0 0 {bytes}\r\n").into_bytes();
    request.extend(values::of(key, bytes));
    request.extend(b"\r\n");
    request
}

fn batch(rng: &mut StdRng) -> Vec<u8> {
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(1..=16) {
        let key = key(rng);
        match rng.random_range(0..3) {
            0 => requests.extend(format!("get {key}\r\n").bytes()),
            _ => requests.extend(set(&key, rng.random_range(10..4000))),
        }
    }
    requests.extend(b"mn\r\n");
    requests
}

fn large_gets(rng: &mut StdRng) -> Vec<u8> {
    let mut requests = Vec::new();
    for _ in 0..rng.random_range(20..200) {
        let key = format!("large-{}", rng.random_range(0..LARGE_KEYS));
        if rng.random_range(0..20) == 0 {
            requests.extend(set(&key, LARGE_BYTES));
        }
        requests.extend(format!("get {key}\r\n").bytes());
    }
    requests
}

fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(1..20_000)];
    rng.fill(&mut bytes[..]);
    match rng.random_range(0..4) {
        // A line without an end.
        0 => bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26),
        // Frames of the binary protocol, or what begins as one.
        1 => bytes[0] = 0x80,
        2 => bytes.splice(0..0, b"get ".iter().copied()).for_each(drop),
        _ => {}
    }
    bytes
}

impl Life {
    fn begin(server: SocketAddr, rng: &mut StdRng, now: Instant) -> Result<Life, String> {
        let kind = match rng.random_range(0..100) {
            0..35 => Kind::Polite,
            35..50 => Kind::HalfWritten,
            50..65 => Kind::SlowReader,
            65..80 => Kind::Rude,
            80..85 => Kind::Huge,
            85..95 => Kind::Garbage,
            _ => Kind::Idle,
        };
        let stream = connect(server).map_err(|why| format!("no connection: {why}"))?;
        let mut rest = Vec::new();
        let output = match kind {
            Kind::Polite | Kind::Rude => batch(rng),
            Kind::HalfWritten => {
                let mut whole = set(&key(rng), rng.random_range(100..50_000));
                whole.extend(b"mn\r\n");
                rest = whole.split_off(rng.random_range(1..whole.len()));
                whole
            }
            Kind::SlowReader => large_gets(rng),
            Kind::Huge => {
                let key = format!("huge-{}", rng.random_range(0..100));
                let bytes = rng.random_range(HUGE_BYTES / 4..=HUGE_BYTES);
                [set(&key, bytes), format!("get {key}\r\ndelete {key}\r\nmn\r\n").into_bytes()].concat()
            }
            Kind::Garbage => garbage(rng),
            Kind::Idle => Vec::new(),
        };
        Ok(Life {
            kind,
            stream,
            output,
            sent: 0,
            input: Vec::new(),
            rest,
            pause_ends: now + Duration::from_millis(rng.random_range(50..3000)),
            ends: now + Duration::from_millis(rng.random_range(50..5000)),
            batches: rng.random_range(1..20),
            last_sign: now,
        })
    }

    /// Gives whether it is over.
    fn step(&mut self, rng: &mut StdRng, tally: &mut Tally, now: Instant) -> Result<bool, String> {
        let is_open = self.send(now) && self.read(tally, now)?;
        match self.kind {
            Kind::Rude => return Ok(self.sent == self.output.len() || !is_open),
            Kind::Garbage | Kind::Idle => return Ok(now >= self.ends || !is_open),
            _ if !is_open => return Err(self.was_closed()),
            Kind::SlowReader => {
                if self.sent == self.output.len() {
                    (self.output, self.sent) = (large_gets(rng), 0);
                }
                self.check_sign(now)?;
                return Ok(now >= self.ends);
            }
            Kind::Polite | Kind::HalfWritten | Kind::Huge => {}
        }
        if !self.rest.is_empty() {
            self.last_sign = now;
            if now < self.pause_ends {
                return Ok(false);
            }
            if rng.random_range(0..2) == 0 {
                return Ok(true);
            }
            self.output.append(&mut self.rest);
        }
        if !self.input.ends_with(b"MN\r\n") {
            self.check_sign(now)?;
            return Ok(false);
        }
        // A hundred huge values on their way are more than the half of the memory that may hold such.
        values::judge(&self.input, self.kind == Kind::Huge)?;
        tally.judged += 1;
        self.input.clear();
        self.batches -= 1;
        if self.kind == Kind::Polite && self.batches > 0 {
            (self.output, self.sent, self.last_sign) = (batch(rng), 0, now);
            return Ok(false);
        }
        Ok(true)
    }

    fn was_closed(&self) -> String {
        let last = &self.input[self.input.len().saturating_sub(100)..];
        let (sent, of) = (self.sent, self.output.len());
        format!(
            "closed by the server with {sent} of {of} bytes sent, after it said {:?}",
            String::from_utf8_lossy(last)
        )
    }

    fn check_sign(&self, now: Instant) -> Result<(), String> {
        if now - self.last_sign < STUCK_AFTER {
            return Ok(());
        }
        let (sent, of, read) = (self.sent, self.output.len(), self.input.len());
        Err(format!("stuck for {STUCK_AFTER:?}: {sent} of {of} bytes sent, {read} read since"))
    }

    /// Sends what the socket takes; `false` if the server has closed it.
    fn send(&mut self, now: Instant) -> bool {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            self.last_sign = now;
        }
        true
    }

    /// Reads a step's worth; `false` if the server has closed it.
    fn read(&mut self, tally: &mut Tally, now: Instant) -> Result<bool, String> {
        if matches!(self.kind, Kind::Rude | Kind::Idle) {
            return Ok(true);
        }
        let mut left = if self.kind == Kind::SlowReader { SIP_BYTES } else { GULP_BYTES };
        let mut buffer = [0; SIP_BYTES];
        while left > 0 {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(bytes) => {
                    left = left.saturating_sub(bytes);
                    tally.read_bytes += bytes as u64;
                    self.last_sign = now;
                    if matches!(self.kind, Kind::SlowReader | Kind::Garbage) {
                        self.input.clear();
                    }
                    self.input.extend(&buffer[..bytes]);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(why) => return Err(why.to_string()),
            }
        }
        Ok(true)
    }
}
