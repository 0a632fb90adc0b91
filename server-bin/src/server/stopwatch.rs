//! Which turns are timed, and the slow log.
//!
//! Lives here: one turn in about 16 is timed, each of its requests too; with `--slow-log-ms` all are, and what took longer
//! is logged. Not here: the histograms (see `requests`).
//!
//! A request's time is that of its execution: from its first byte being looked at to its answer lying in the output buffer, or
//! to the system having taken it of a value that is sent in the same call.
//! A turn's is from its socket being ready to the answers having been handed to the system. Neither has the network in it,
//! nor how long a ready socket waited for other connections' turns.
//!
//! A timed turn is never one that was read ahead (see `event_loop`), so in a crowd it takes some tenths of a microsecond more than most
//! others; and with `--slow-log-ms` nothing is read ahead.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::counters::Counters;
use super::registry::Address;
use super::requests::Command;

/// The mean distance of two timed turns.
const TURNS_A_SAMPLE: u32 = 16;

/// The most slow requests of one turn that are told one by one; all are counted.
const NOTES_MAX: usize = 4;

/// Lines of the slow log in a second.
const LINES_A_SECOND: u32 = 10;

/// Bytes of a key that the slow log shows.
const KEY_BYTES_SHOWN: usize = 64;

/// A worker's choice of turns.
#[derive(Debug)]
pub(crate) struct Sampler {
    turns_left: u32,
    state: u32,
}

impl Sampler {
    /// Workers with other seeds choose other turns.
    pub(crate) fn new(seed: u32) -> Sampler {
        Sampler { turns_left: 1, state: seed }
    }

    /// Whether the turn that comes so many turns on, 1 being the next, is timed, as far as that is known.
    #[inline]
    pub(crate) fn takes_in(&self, turns: u32) -> bool {
        self.turns_left == turns
    }

    /// Whether this turn is timed. The distances vary, so that connections that take turns are all met.
    #[inline]
    pub(crate) fn takes(&mut self) -> bool {
        self.turns_left -= 1;
        if self.turns_left > 0 {
            return false;
        }
        // Numerical Recipes' generator; its high bits are the good ones.
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.turns_left = 1 + (self.state >> 16) % (2 * TURNS_A_SAMPLE - 1);
        true
    }
}

/// Times a turn's requests.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    slow_after: Option<Duration>,
    slow: Vec<SlowRequest>,
}

/// A request for the slow log.
#[derive(Debug)]
struct SlowRequest {
    command: &'static str,
    key: String,
    request_bytes: usize,
    answer_bytes: usize,
    time: Duration,
}

impl Stopwatch {
    pub(crate) fn new(slow_after_ms: Option<u64>) -> Stopwatch {
        Stopwatch { slow_after: slow_after_ms.map(Duration::from_millis), slow: Vec::new() }
    }

    /// A request was executed, or a piece of it, in this time; `is_whole` with its last piece.
    pub(crate) fn note(
        &mut self,
        time: Duration,
        is_whole: bool,
        request: &[u8],
        (request_bytes, answer_bytes): (usize, usize),
        counters: &Counters,
    ) {
        let command = counters.requests.newest();
        if is_whole {
            counters.requests.add_time(command, time);
        }
        if self.slow_after.is_none_or(|bound| time < bound) {
            return;
        }
        counters.slow_requests.add(1);
        if self.slow.len() < NOTES_MAX {
            let key = shown(key_of(request, command));
            let command = command.as_str();
            self.slow.push(SlowRequest { command, key, request_bytes, answer_bytes, time });
        }
    }

    /// Logs what was slow in the turn of this client.
    #[inline]
    pub(crate) fn tell(&mut self, peer: &Address, log: &SlowLog) {
        for request in self.slow.drain(..) {
            log.tell(peer, &request);
        }
    }
}

/// The slow log: at most so many lines a second.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    second: Mutex<Option<Second>>,
}

#[derive(Debug, Clone, Copy)]
struct Second {
    begun: Instant,
    lines: u32,
    left_out: u64,
}

impl SlowLog {
    /// Whether there may be a line now; if so, how many were left out before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        // Nothing panics while it is held.
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = second.map_or(0, |second| second.left_out);
        let this = match &mut *second {
            Some(this) if now.saturating_duration_since(this.begun) < Duration::from_secs(1) => this,
            other => other.insert(Second { begun: now, lines: 0, left_out }),
        };
        if this.lines == LINES_A_SECOND {
            this.left_out += 1;
            return None;
        }
        this.lines += 1;
        Some(std::mem::take(&mut this.left_out))
    }

    fn tell(&self, peer: &Address, request: &SlowRequest) {
        if let Some(left_out) = self.admit(Instant::now()) {
            let SlowRequest { command, key, request_bytes, answer_bytes, time } = request;
            let ms = time.as_micros() as f64 / 1000.0;
            tracing::warn!(
                target: "slow",
                command, key, request_bytes, answer_bytes, ms, %peer, left_out, "a slow request"
            );
        }
    }
}

/// The key that a request names first, if it names one.
fn key_of(request: &[u8], command: Command) -> &[u8] {
    const HEADER_BYTES: usize = 24;
    if request.first() == Some(&hotspare_memcached::binary::REQUEST_MAGIC) && request.len() >= HEADER_BYTES {
        let key_bytes = usize::from(u16::from_be_bytes([request[2], request[3]]));
        let start = HEADER_BYTES + usize::from(request[4]);
        return request.get(start..start + key_bytes).unwrap_or_default();
    }
    if matches!(command, Command::MetaNoop | Command::FlushAll | Command::Stats | Command::Other) {
        return b"";
    }
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    // The exptime comes before the keys of gat.
    words.nth(if command == Command::GetAndTouch { 2 } else { 1 }).unwrap_or_default()
}

/// A key as text that no log and no terminal obeys, cut at 64 of its bytes.
fn shown(key: &[u8]) -> String {
    let mut text = key[..key.len().min(KEY_BYTES_SHOWN)].escape_ascii().to_string();
    if key.len() > KEY_BYTES_SHOWN {
        // Writing to a string can't fail.
        let _ = write!(text, "... ({} bytes)", key.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_turn_in_sixteen_is_timed_and_no_connection_of_a_round_is_left_out() {
        let mut sampler = Sampler::new(3);
        let mut met = [0; 16];
        for turn in 0..160_000 {
            met[turn % 16] += u32::from(sampler.takes());
        }
        let timed: u32 = met.iter().sum();
        assert!((9_500..10_500).contains(&timed), "{timed}");
        assert!(met.iter().all(|count| *count > 400), "{met:?}");
    }

    #[test]
    fn what_was_left_out_is_told_with_the_next_line() {
        let (log, start) = (SlowLog::default(), Instant::now());
        for _ in 0..LINES_A_SECOND {
            assert_eq!(log.admit(start), Some(0));
        }
        assert_eq!(log.admit(start + Duration::from_millis(999)), None);
        assert_eq!(log.admit(start + Duration::from_millis(999)), None);
        assert_eq!(log.admit(start + Duration::from_secs(1)), Some(2));
        assert_eq!(log.admit(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn the_key_is_found_in_every_dialect_and_shown_harmlessly() {
        assert_eq!(key_of(b"set k 0 0 1\r\nv\r\n", Command::Set), b"k");
        assert_eq!(key_of(b"gat 10 k1 k2\r\n", Command::GetAndTouch), b"k1");
        assert_eq!(key_of(b"mn\r\n", Command::MetaNoop), b"");
        assert_eq!(key_of(b"get", Command::Get), b"");
        let mut binary = vec![0x80, 0x01, 0, 3, 8, 0, 0, 0];
        binary.resize(24 + 8, 0);
        assert_eq!(key_of(&binary, Command::Set), b"", "a key that has not come");
        binary.extend_from_slice(b"key and value");
        assert_eq!(key_of(&binary, Command::Set), b"key");
        assert_eq!(shown(b"\x1b[2J\"\xff"), "\\x1b[2J\\\"\\xff");
        let long = shown(&[b'k'; 250]);
        assert_eq!(long, format!("{}... (250 bytes)", "k".repeat(64)));
    }

    #[test]
    fn only_what_took_as_long_as_the_bound_is_slow_and_all_of_it_is_counted() {
        let counters = Counters::default();
        let mut stopwatch = Stopwatch::new(Some(5));
        stopwatch.note(Duration::from_micros(4999), true, b"get k\r\n", (7, 5), &counters);
        assert!(stopwatch.slow.is_empty());
        for _ in 0..9 {
            counters.requests.count(Command::Get);
            stopwatch.note(Duration::from_millis(5), true, b"get k\r\n", (7, 5), &counters);
        }
        assert_eq!((stopwatch.slow.len(), counters.slow_requests.get()), (NOTES_MAX, 9));
        assert_eq!((stopwatch.slow[0].command, &stopwatch.slow[0].key[..]), ("get", "k"));
    }
}
