//! The operators' commands that change how the server works.
//!
//! Lives here: which command is which, the memory limit (rule G3), the log's level (rule G1), a clock for tests (rule
//! Z11). Not here: going through the items (see `crawler`), what is not changed by anybody (see `tuning`).

use std::sync::atomic::Ordering;

use hotspare_memcached::classic::{OperatorCommand, Tokens};

use super::Shared;
use super::commands::{Executor, Flow, Progress};
use super::operator::VERBOSITY_MAX;

/// Rule G3, in megabytes.
const LIMIT_MIN: u64 = 8;
const LIMIT_MAX: u64 = 1_000_000_000;

/// By how much the limit is lowered in one turn: what then leaves must not keep the worker's other clients waiting.
const LIMIT_STEP_BYTES: usize = 16 << 20;

/// A year, in seconds: what `debugtime` advances the clock by at most, in one step.
const ADVANCE_SECONDS_MAX: u64 = 366 * 24 * 3600;

impl Executor<'_> {
    /// Executes a command of operators. `output_bytes_max` is the output's length above which an answer stops.
    pub(super) fn operate(
        &mut self,
        command: OperatorCommand,
        words: Tokens<'_>,
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Flow {
        let begun = out.len();
        let flow = match command {
            OperatorCommand::CacheMemlimit => self.limit_memory(words, out),
            OperatorCommand::Watch => self.watch(words, progress, out),
            OperatorCommand::LruCrawler => self.crawl(words, progress, output_bytes_max, out),
            OperatorCommand::Slabs => next(out, self.slabs(words)),
            OperatorCommand::Lru => next(out, self.lru(words)),
            OperatorCommand::DebugTime => next(out, self.advance_clock(words)),
        };
        if takes_noreply(command, words) && words.iter().last() == Some(b"noreply") {
            out.truncate(begun);
        }
        flow
    }

    /// `cache_memlimit` (rule G3): up at once, down in steps.
    fn limit_memory(&self, arguments: Tokens<'_>, out: &mut Vec<u8>) -> Flow {
        let mut words = arguments.iter();
        let megabytes = words.next().and_then(number);
        let text: &[u8] = match megabytes {
            // One word more is passed over, as memcached does.
            _ if words.nth(1).is_some() => b"ERROR",
            None => b"ERROR",
            Some(..LIMIT_MIN) => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
            Some(megabytes) if megabytes > LIMIT_MAX => {
                b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes"
            }
            Some(megabytes) => match self.step_to_limit((megabytes << 20) as usize) {
                Some(true) => b"OK",
                Some(false) => return Flow::Again,
                None => b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust",
            },
        };
        line(out, text);
        Flow::Next
    }

    /// Whether the limit is reached; `None` if it can't be.
    fn step_to_limit(&self, bytes: usize) -> Option<bool> {
        let Shared { cache, settings, .. } = self.shared;
        if settings.item_bytes_max > bytes / 2 {
            return None;
        }
        let next = (cache.stats().memory_bytes_max as usize).saturating_sub(LIMIT_STEP_BYTES).max(bytes);
        cache.resize(next).ok()?;
        Some(next == bytes)
    }

    /// `debugtime` (rule Z11): only a server that was started for it has a clock that can be advanced.
    fn advance_clock(&self, words: Tokens<'_>) -> &'static [u8] {
        let Some(clock) = &self.shared.settings.debug_clock else { return b"ERROR" };
        let mut words = words.iter();
        match (words.next().map(number), words.next()) {
            (Some(Some(seconds)), None) if seconds <= ADVANCE_SECONDS_MAX => {
                clock.advance(seconds);
                // What this round accesses from here on it accesses then.
                self.shared.cache.begin_round();
                b"OK"
            }
            _ => b"CLIENT_ERROR bad command line format",
        }
    }

    /// `verbosity` (rule G1).
    pub(super) fn set_verbosity(&self, level: u64) {
        let level = level.min(VERBOSITY_MAX.into()) as u8;
        self.shared.operator.verbosity.store(level, Ordering::Relaxed);
        crate::log::set_verbosity(level);
    }
}

/// Whether `noreply` behind a command means that (rule F10). It stays among the words: where memcached wants another
/// word, it is that one; and dumps, crawls and moves of pages do not know it.
fn takes_noreply(command: OperatorCommand, words: Tokens<'_>) -> bool {
    match command {
        OperatorCommand::CacheMemlimit => words.iter().nth(2).is_none(),
        OperatorCommand::Watch | OperatorCommand::Lru => true,
        OperatorCommand::Slabs => words.iter().next() == Some(b"automove") && words.iter().nth(1).is_some(),
        OperatorCommand::LruCrawler | OperatorCommand::DebugTime => false,
    }
}

/// A number of digits only (rule F7).
pub(super) fn number(word: &[u8]) -> Option<u64> {
    let is_plain = word.iter().all(u8::is_ascii_digit);
    is_plain.then(|| std::str::from_utf8(word).ok()?.parse().ok()).flatten()
}

fn next(out: &mut Vec<u8>, text: &[u8]) -> Flow {
    line(out, text);
    Flow::Next
}

/// Appends a line.
pub(super) fn line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}
