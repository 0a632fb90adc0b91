//! The check that a connection does the same however its bytes are cut, coming and going; for tests and fuzzing.
//!
//! The same script is run three times on caches that begin alike. Once it comes whole, by [`Connection`]'s own functions;
//! once through [`Connection::turn`], at a socket that gives and takes pieces; once whole and with no value so large that it
//! goes into the cache as it comes, or is sent from where it lies there. Answers, items, counters, shutdowns and whether the
//! connection closed must be the same.
//!
//! Not compared: the values of statistics, which tell the time, and those of size classes: an item whose value went into the cache as it
//! came has room for an expiry, and may be of the next one. Not here: what is said (see `script`).

mod script;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hotspare::{Cache, Config, Cursor, ManualClock};
use hotspare_memcached::binary;

use super::Shared;
use super::commands::Executor;
use super::connection::{Connection, Stop, Turn};
use super::counters::{AllCounters, CountersSnapshot};
use super::observers::Observation;
use super::operator::Operator;
use crate::settings::Settings;
use crate::users::Users;
use script::{Script, Ways};

/// `-I` of the server that is asked: three of its cache's pages, and values above it are little work.
const ITEM_BYTES_MAX: usize = 12 << 10;

/// Values from this length on go into the cache as they come.
const LARGE_BYTES_MIN: usize = 1_000;

/// Values from this length on are sent from where they lie, if they have a page of their own.
const PINNED_BYTES_MIN: usize = 5_000;

/// `-m` of it: what a script stores may fill it.
const MEMORY_BYTES_MAX: usize = 2 << 20;

/// When the caches begin, in milliseconds since the Unix epoch.
const BEGIN_MS: u64 = 1_000_000_000;

/// What a connection's buffers may hold: a get's longest line doubled, an answer's bound and a value.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The opcode of binary statistics.
const STAT: u8 = 0x10;

/// Spells a script from bytes and checks it.
///
/// # Panics
/// The two runs differ.
pub fn check(bytes: &[u8]) {
    let script = Script::read(bytes);
    let whole = Run::new(&script, LARGE_BYTES_MIN, PINNED_BYTES_MIN).whole();
    let cut = Run::new(&script, LARGE_BYTES_MIN, PINNED_BYTES_MIN).in_pieces();
    let collected = Run::new(&script, usize::MAX, usize::MAX).whole();
    let text = shown(&script.bytes);
    assert_eq!(shown(&whole.answers), shown(&cut.answers), "{text}");
    assert_eq!(whole, cut, "{text}");
    assert_eq!(shown(&whole.answers), shown(&collected.answers), "{text}");
    assert_eq!(whole, collected, "{text}");
}

/// What is left of a run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<u8>,
    has_closed: bool,
    items: Vec<String>,
    counters: CountersSnapshot,
    shutdowns: u64,
}

/// A server with one connection, and what it is told.
struct Run<'a> {
    script: &'a Script,
    shared: Shared,
    shutdowns: Arc<AtomicU64>,
    connection: Connection,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, large_bytes_min: usize, pinned_bytes_min: usize) -> Run<'a> {
        let shutdowns = Arc::<AtomicU64>::default();
        let mut shared = shared(&script.ways, large_bytes_min, shutdowns.clone());
        shared.settings.pinned_value_bytes_min = pinned_bytes_min;
        let connection = Connection::new(&shared.settings);
        Run { script, shared, shutdowns, connection }
    }

    /// All bytes are there before any is executed, and all that is to be sent goes at once.
    fn whole(mut self) -> Outcome {
        let mut rest = &self.script.bytes[..];
        while !rest.is_empty() {
            // A copy from memory does not fail.
            let _ = self.connection.fill(|room| rest.read(room));
        }
        let mut answers = Vec::new();
        loop {
            let counters = &self.shared.counters.workers[0];
            let stop = self.connection.execute(&mut Executor::new(&self.shared, counters, 0));
            while !self.connection.unsent().is_empty() {
                answers.extend_from_slice(self.connection.unsent());
                self.connection.was_sent(self.connection.unsent().len());
            }
            if stop == Stop::InputUsed {
                let has_closed = self.connection.is_closing() || self.script.ends;
                return self.outcome(&answers, has_closed);
            }
        }
    }

    fn in_pieces(mut self) -> Outcome {
        let script = self.script;
        let mut socket = PieceSocket::new(script);
        self.connection.set_sends_directly(script.cutting & 8 == 0);
        // More turns than bytes and answers can take, each turned away a few times.
        let turns_max = 100_000 + script.bytes.len() * 1_000;
        for _ in 0..turns_max {
            let counters = &self.shared.counters.workers[0];
            // As a worker does where others have their turns meanwhile.
            if script.cutting & 16 == 0 && self.connection.quiet().is_some() {
                self.connection.read_ahead(&mut socket, counters);
            }
            let turn = self.connection.turn(&mut socket, &mut Executor::new(&self.shared, counters, 0));
            assert!(
                self.connection.buffer_bytes() <= BUFFER_BYTES_MAX,
                "{} bytes",
                self.connection.buffer_bytes()
            );
            let is_over = turn == Turn::Closed
                || turn == Turn::Waiting && socket.has_given_all() && self.connection.unsent().is_empty();
            if is_over {
                assert!(self.connection.unsent().is_empty(), "it closed before it had answered");
                return self.outcome(&socket.output, turn == Turn::Closed);
            }
        }
        panic!("it does not get on: {}", shown(&script.bytes));
    }

    fn outcome(&self, output: &[u8], has_closed: bool) -> Outcome {
        self.shared.cache.check_invariants();
        // What is counted of the bytes and turns themselves differs, and is meant to.
        let counters = CountersSnapshot {
            bytes_read: 0,
            bytes_written: 0,
            conn_yields: 0,
            ..self.shared.counters.snapshot()
        };
        let shutdowns = self.shutdowns.load(Ordering::Relaxed);
        Outcome { answers: masked(output), has_closed, items: items(&self.shared.cache), counters, shutdowns }
    }
}

fn shared(ways: &Ways, large_value_bytes_min: usize, shutdowns: Arc<AtomicU64>) -> Shared {
    let users = Users::parse(b"ann:other\nbob:secret").expect("lines of users");
    let settings = Settings {
        protocol: ways.protocol,
        item_bytes_max: ITEM_BYTES_MAX,
        large_value_bytes_min,
        memory_bytes_max: MEMORY_BYTES_MAX,
        ascii_users: if ways.asks_for_user { Some(users.clone()) } else { None },
        sasl_users: if ways.asks_for_sasl { Some(users) } else { None },
        shutdown_command: true,
        evict: ways.evicts,
        dump_enabled: ways.dumps,
        // What is refused behind unsent answers depends on when those go, and lines are told with the time.
        watch_enabled: false,
        ..Settings::default()
    };
    let observation = Observation::default();
    let config = Config::new()
        .memory_bytes_max(MEMORY_BYTES_MAX)
        .item_bytes_max(ITEM_BYTES_MAX)
        .shards(1)
        .evict(ways.evicts)
        .clock(Arc::new(ManualClock::new(BEGIN_MS)))
        .hash_seed(7);
    Shared {
        cache: Cache::new(observation.of_cache(config)).expect("the settings are in range"),
        operator: Operator::new(&settings, observation),
        settings,
        certificates: None,
        counters: AllCounters::new(1),
        started: std::time::Instant::now(),
        started_at_ms: BEGIN_MS,
        on_shutdown_command: Box::new(move |_| {
            shutdowns.fetch_add(1, Ordering::Relaxed);
        }),
    }
}

/// Every item, with all that a client can learn of it.
fn items(cache: &Cache) -> Vec<String> {
    let (mut items, mut next) = (Vec::new(), Some(Cursor::START));
    while let Some(cursor) = next {
        next = cache
            .scan_from(cursor, "", 1000, |item| {
                let (key, value) = (item.key.escape_ascii(), item.value.to_vec());
                let facts = (item.flags, item.cas(), item.expires_at_ms, item.is_fetched, item.state);
                items.push(format!("{key} {facts:?} {}", value.escape_ascii()));
            })
            .expect("a cache without a group answers");
    }
    items
}

/// Bytes to be read by people: a long run of one byte is counted.
fn shown(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|one, next| one == next);
    let show = |run: &[u8]| match run.len() {
        0..9 => run.escape_ascii().to_string(),
        count => format!("[{}*{count}]", run[..1].escape_ascii()),
    };
    runs.map(show).collect()
}

/// The answers without the values of statistics. A text's gate may have packets behind it.
fn masked(output: &[u8]) -> Vec<u8> {
    let limits = binary::Limits::default();
    let (mut masked, mut rest) = (Vec::new(), output);
    while !rest.is_empty() {
        let consumed = match binary::parse_response(rest, &limits) {
            binary::ParsedResponse::Complete { response, consumed } => {
                match response.opcode {
                    STAT if is_of_class(response.key) => {}
                    STAT => binary::Response { value: b"", ..response }.encode(&mut masked),
                    _ => response.encode(&mut masked),
                }
                consumed
            }
            _ => {
                let line = rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or(rest);
                match line.strip_prefix(b"STAT ") {
                    Some(row) if is_of_class(row) => {}
                    Some(row) => masked.extend(row.iter().take_while(|byte| **byte != b' ')),
                    None => masked.extend_from_slice(line),
                }
                line.len()
            }
        };
        rest = &rest[consumed..];
    }
    masked
}

/// Whether a statistic of this name is one of a size class, as `items:7:number` and `7:total_pages` are.
fn is_of_class(name: &[u8]) -> bool {
    name.strip_prefix(b"items:").unwrap_or(name).first().is_some_and(u8::is_ascii_digit)
}

/// A socket that gives and takes pieces, and now and then nothing.
struct PieceSocket<'a> {
    input: &'a [u8],
    ends: bool,
    output: Vec<u8>,
    piece_bytes_max: usize,
    random: u64,
}

impl<'a> PieceSocket<'a> {
    fn new(script: &'a Script) -> PieceSocket<'a> {
        // Long scripts in single bytes would take long.
        let piece_bytes_max = match script.cutting % 8 {
            0 if script.bytes.len() < 2_000 => 1,
            1 => 4,
            2 | 3 => 32,
            4 | 5 => 500,
            _ => 6_000,
        };
        let random = u64::from(script.cutting) << 1 | 1;
        PieceSocket { input: &script.bytes, ends: script.ends, output: Vec::new(), piece_bytes_max, random }
    }

    fn has_given_all(&self) -> bool {
        self.input.is_empty()
    }

    /// The length of the next piece; 0 is for nothing now.
    fn piece(&mut self) -> usize {
        // Knuth's MMIX generator; its high bits are good.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = (self.random >> 33) as usize;
        if high.is_multiple_of(5) { 0 } else { 1 + high / 5 % self.piece_bytes_max }
    }
}

impl Read for PieceSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.input.is_empty() && self.ends {
            return Ok(0);
        }
        let count = self.piece().min(buffer.len()).min(self.input.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.input.read(&mut buffer[..count])
    }
}

impl Write for PieceSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.piece().min(bytes.len());
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
