//! The soak test: one server under abuse for a long time, judged by what it keeps, loses and says.
//!
//! Rounds of abuse (thousands of connections of every bad kind, memory at its limit) with a quiet moment after each: what
//! the server holds in a quiet moment must not grow from one to the next. A polite client asks all the while. At the end
//! the server runs out of file descriptors, and recovers. [`abuser`] are the connections, [`probe`] is the polite client,
//! [`values`] judges answers.

pub mod abuser;
pub mod probe;
pub mod values;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::process::Server;
use abuser::{Abuser, Tally};
use probe::Latencies;

/// Rounds of abuse. What is kept for good (buffers of threads, tables) is there after the second.
const ROUNDS: u32 = 6;
/// The server's limit for items and index, in MiB: small, so that it is full within seconds.
const MEMORY_MEBIBYTES: u64 = 64;
/// Descriptors that connections don't need: standard streams, log, listeners, the test's own.
const DESCRIPTORS_BESIDE: u64 = 200;
/// Growth from the second quiet moment to the last that is noise: what the allocator keeps of ever other peaks, in bytes.
/// Tens of thousands of connections come and go meanwhile: one kibibyte lost for each is more.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
/// How long a server may take to notice that all have gone.
const QUIET_LIMIT: Duration = Duration::from_secs(20);
/// Connections that ask a server without descriptors.
const WITHOUT_DESCRIPTORS: usize = 50;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// For how long, about.
    pub time: Duration,
    /// Abusive connections at once.
    pub connections: usize,
    /// Makes the same abusers again (what they meet differs).
    pub seed: u64,
}

/// What a server holds in a quiet moment.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Report {
    /// What came of the abusers.
    pub tally: Tally,
    /// The polite client's latencies before all abuse, and under it.
    pub idle: Latencies,
    /// The same under abuse.
    pub abused: Latencies,
    /// What was held after each round.
    pub held: Vec<Held>,
    /// Items that left for others.
    pub evictions: u64,
}

/// Soaks a server of `binary`.
///
/// # Errors
/// The first promise that was broken, in words.
pub fn run(binary: &str, plan: &Plan) -> Result<Report, String> {
    allow_descriptors(2 * plan.connections as u64 + DESCRIPTORS_BESIDE)?;
    // An abuser that has gone may still have its place when the next one comes.
    let places = (2 * plan.connections + WITHOUT_DESCRIPTORS).to_string();
    let memory = MEMORY_MEBIBYTES.to_string();
    let mut server = Server::start(binary, &["-p", "0", "-m", &memory, "-c", &places, "-b", "4096"]);
    let address = server.clients();
    let part = plan.time / (ROUNDS + 1);
    let (idle, _) = beside_a_probe(address, || {
        thread::sleep(part);
        Ok(())
    })?;
    let before = held(&server)?;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut report = Report {
        tally: Tally::default(),
        idle,
        abused: Latencies::default(),
        held: Vec::new(),
        evictions: 0,
    };
    for _ in 0..ROUNDS {
        let tally = &mut report.tally;
        let (latencies, ()) =
            beside_a_probe(address, || abuse(address, plan.connections, part, &mut rng, tally))?;
        report.abused = report.abused.join(latencies);
        await_quiet(address)?;
        report.held.push(held(&server)?);
    }
    report.evictions = stat(address, "evictions")?;
    judge_growth(before, &report)?;
    without_descriptors(&server, address)?;
    server.terminate();
    match server.wait_exit(QUIET_LIMIT) {
        Some(0) => Ok(report),
        code => Err(format!("the server ended with {code:?}: {:#?}", server.said())),
    }
}

/// Raises this process's limit of descriptors, which its server inherits.
fn allow_descriptors(count: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < count) {
        return Err(format!("{count} file descriptors are needed, and `ulimit -Hn` is {:?}", limit.maximum));
    }
    let current = limit.current.map(|current| current.max(count));
    setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum }).map_err(|why| why.to_string())
}

/// Does `work` while a polite client asks.
fn beside_a_probe<T>(
    server: SocketAddr,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(Latencies, T), String> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let probe = scope.spawn(|| probe::run(server, &ends));
        let done = work();
        ends.store(true, Ordering::Relaxed);
        let latencies = probe.join().map_err(|_| "the polite client panicked")?;
        // What the abusers met explains what the polite one did.
        let done = done?;
        Ok((latencies?, done))
    })
}

/// So many abusers for so long; then all go at once.
fn abuse(
    server: SocketAddr,
    connections: usize,
    time: Duration,
    rng: &mut StdRng,
    tally: &mut Tally,
) -> Result<(), String> {
    let began = Instant::now();
    let mut abusers: Vec<Abuser> = (0..connections).map(|_| Abuser::default()).collect();
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> =
        (0..connections).map(|place| Reverse((began, place))).collect();
    while began.elapsed() < time {
        let Some(Reverse((when, place))) = due.pop() else { break };
        thread::sleep(when.saturating_duration_since(Instant::now()));
        let pause = abusers[place].step(server, rng, tally)?;
        due.push(Reverse((Instant::now() + pause, place)));
    }
    Ok(())
}

/// The number that `stats` gives `name`.
fn stat(server: SocketAddr, name: &str) -> Result<u64, String> {
    let ask = || -> std::io::Result<Option<u64>> {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(b"stats\r\nquit\r\n")?;
        let prefix = format!("STAT {name} ");
        for line in BufReader::new(stream).lines() {
            if let Some(number) = line?.strip_prefix(&prefix) {
                return Ok(number.parse().ok());
            }
        }
        Ok(None)
    };
    ask().map_err(|why| format!("stats: {why}"))?.ok_or_else(|| format!("stats has no {name}"))
}

/// Waits until the server knows of no connection but the one that asks.
fn await_quiet(server: SocketAddr) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let left = stat(server, "curr_connections")?;
        if left <= 1 {
            return Ok(());
        }
        if began.elapsed() > QUIET_LIMIT {
            return Err(format!("{left} connections are left {QUIET_LIMIT:?} after all have gone"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn held(server: &Server) -> Result<Held, String> {
    let open = fs::read_dir(format!("/proc/{}/fd", server.id())).map_err(|why| why.to_string())?;
    let resident_bytes = server.resident_bytes().ok_or("no resident memory is told")?;
    Ok(Held { resident_bytes, descriptors: open.count() as u64 })
}

fn judge_growth(before: Held, report: &Report) -> Result<(), String> {
    let [_, settled, .., last] = report.held[..] else { return Err("too few rounds".into()) };
    if report.evictions == 0 {
        return Err("memory was never at its limit".into());
    }
    // A pipe or a socket of the quiet moment itself may be open or not.
    if last.descriptors > before.descriptors + 2 {
        return Err(format!("{} descriptors at first, {} at the end", before.descriptors, last.descriptors));
    }
    if last.resident_bytes > settled.resident_bytes + GROWTH_BYTES_MAX {
        let all: Vec<u64> = report.held.iter().map(|held| held.resident_bytes >> 10).collect();
        return Err(format!("memory grows from round to round (KiB resident): {all:?}"));
    }
    Ok(())
}

/// Takes the server's descriptors away, lets more ask than it can serve, gives them back: all are served.
fn without_descriptors(server: &Server, address: SocketAddr) -> Result<(), String> {
    let id = i32::try_from(server.id()).ok().and_then(Pid::from_raw).ok_or("no process")?;
    let limit = |current| {
        let limit = Rlimit { current, maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(id), Resource::Nofile, limit).map_err(|why| why.to_string())
    };
    let before = limit(Some(held(server)?.descriptors + 5))?;
    let mut all = Vec::new();
    for _ in 0..WITHOUT_DESCRIPTORS {
        let mut stream = TcpStream::connect(address).map_err(|why| why.to_string())?;
        stream.set_read_timeout(Some(QUIET_LIMIT)).map_err(|why| why.to_string())?;
        stream.write_all(b"mn\r\n").map_err(|why| why.to_string())?;
        all.push(stream);
    }
    thread::sleep(Duration::from_millis(500));
    limit(before.current)?;
    let mut line = String::new();
    for (place, stream) in all.into_iter().enumerate() {
        line.clear();
        let told = BufReader::new(stream).read_line(&mut line);
        if told.is_err() || line != "MN\r\n" {
            return Err(format!("with descriptors again, client {place} was answered {line:?}, {told:?}"));
        }
    }
    if stat(address, "listen_disabled_num")? == 0 {
        return Err("the server never ran out of descriptors".into());
    }
    Ok(())
}
