//! The demonstration: a primary dies in the middle of a request stream, its spare takes over, and the hit ratio is
//! shown beside a node that never failed and one that came back empty.
//!
//! Lives here: the course of it. Not here: the nodes (see `stage`), the requests (see `stream`, `trace`), the picture (see
//! `chart`).
//!
//! What is killed is a node inside this process: its replication thread and its cache are dropped without a word to
//! the spare. The system tests do the same to real processes with SIGKILL.

mod chart;
mod stage;
pub mod stream;
pub mod trace;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hotspare::ReplicationConfig;
use serde::Serialize;

pub use crate::args::DemoOptions;
use stage::{Stage, fill_value};
use stream::GeneratedStream;
use trace::{Request, TraceError, TraceReader};

/// Bytes of a value whose size the trace does not give.
const VALUE_BYTES: u32 = 200;

/// What an item takes beside key and value, about: header and its share of the index.
const ITEM_OVERHEAD_BYTES: u64 = 40;

/// Requests in a window, or a tenth of the stream where that is less.
const WINDOW_REQUESTS_MAX: u64 = 20_000;

/// The most memory that one of the four nodes takes; a larger working set is held to a smaller share.
const CAPACITY_BYTES_MAX: u64 = 256 << 20;

/// How far values are enlarged at most, and what a larger one counts in the working set: the default item limit.
const ENLARGED_BYTES_MAX: u64 = 64 << 10;
const ITEM_BYTES_MAX: u64 = 1 << 20;

/// The most distinct keys that are counted, at about 100 bytes each.
const DISTINCT_KEYS_MAX: usize = 8_000_000;

/// Runs the demonstration and prints its figures; the exit code says whether it could.
pub fn run(options: &DemoOptions) -> ExitCode {
    let source = match &options.trace {
        Some(path) => Source::Trace(path.clone()),
        None => Source::Generated,
    };
    let style = match (options.json, std::io::stderr().is_terminal()) {
        (true, _) => chart::ProgressStyle::Silent,
        (false, true) => chart::ProgressStyle::Bar,
        (false, false) => chart::ProgressStyle::Lines,
    };
    match play_showing(&source, &Course::default(), style) {
        Ok(figures) if options.json => {
            crate::print(&serde_json::to_string_pretty(&figures).expect("figures are plain data"));
            ExitCode::SUCCESS
        }
        Ok(figures) => {
            crate::print(&chart::draw(&figures));
            ExitCode::SUCCESS
        }
        Err(why) => {
            crate::say(&why);
            ExitCode::FAILURE
        }
    }
}

/// Where the requests come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The generated stream.
    Generated,
    /// A trace file.
    Trace(PathBuf),
}

/// How much memory each node has for items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// One part in so many of what all distinct keys with their values take, between 1 and 256 MiB; values are enlarged
    /// where that is too little.
    OneIn(u64),
    /// So many bytes.
    Bytes(u64),
}

/// When the spare joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// Before the first request.
    AtStart,
    /// After a quarter of them: it is copied while they go on. Should it not be done when the primary is to be killed, they
    /// wait for it.
    AtQuarter,
}

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Memory of each node.
    pub capacity: Capacity,
    /// Bytes of each value; `None`: what the trace says, or 200 where it says nothing.
    pub value_bytes: Option<u32>,
    /// When the spare joins.
    pub joins: Joins,
    /// The hash seed of all nodes: another one makes another run of the same requests.
    pub seed: u64,
    /// Whether each node has a hash seed of its own instead, made from it.
    pub seeds_apart: bool,
    /// How fast requests come.
    pub pace: Pace,
    /// Whether they wait for a spare that is [`BEHIND_WRITES_MAX`] writes behind, and the kill for one that is behind at all. Then
    /// what is seen does not depend on how much of the processor the spare gets.
    pub waits_for_spare: bool,
    /// What is to be different about the pair's replication.
    pub adjust: fn(ReplicationConfig) -> ReplicationConfig,
}

/// How many writes a spare may be behind where requests wait for it: about a millisecond's at 200 000 requests a second.
pub const BEHIND_WRITES_MAX: u64 = 256;

/// How fast requests come at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Requests a second.
    pub requests: u32,
    /// Bytes of their values a second.
    pub value_bytes: u32,
}

impl Pace {
    /// As fast as this machine can.
    pub const UNBOUNDED: Pace = Pace { requests: u32::MAX, value_bytes: u32::MAX };

    /// Waits, once that is worth a sleep, until so many requests with so many bytes are due.
    fn wait(self, began: Instant, requests: u64, value_bytes: u64) {
        let [by_requests, by_bytes] = [(requests, self.requests), (value_bytes, self.value_bytes)]
            .map(|(count, a_second)| count as f64 / f64::from(a_second.max(1)));
        let due = Duration::from_secs_f64(by_requests.max(by_bytes));
        let early = due.saturating_sub(began.elapsed());
        if self != Pace::UNBOUNDED && early > Duration::from_millis(1) {
            std::thread::sleep(early);
        }
    }
}

impl Default for Course {
    /// A quarter of the working set, and a spare from the start.
    fn default() -> Course {
        Course {
            capacity: Capacity::OneIn(4),
            value_bytes: None,
            joins: Joins::AtStart,
            seed: 1,
            seeds_apart: false,
            pace: Pace::UNBOUNDED,
            waits_for_spare: false,
            adjust: |replication| replication,
        }
    }
}

impl Course {
    fn value_bytes(&self, request: &Request) -> u32 {
        self.value_bytes.or(request.value_bytes).unwrap_or(VALUE_BYTES)
    }
}

type Requests = Box<dyn Iterator<Item = Result<Request, TraceError>>>;

impl Source {
    fn requests(&self) -> Result<Requests, TraceError> {
        match self {
            Source::Generated => Ok(Box::new(GeneratedStream::new(1).map(Ok))),
            Source::Trace(path) => Ok(Box::new(TraceReader::open(path)?)),
        }
    }
}

/// What the first pass over the requests finds.
struct WorkingSet {
    requests: u64,
    distinct_bytes: u64,
    /// By how much values are enlarged so that a quarter of them fills the smallest cache.
    value_factor: u64,
}

/// A hit ratio of each node, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// The pair: the primary until it is killed, then its spare.
    pub hotspare: f64,
    /// A node that never failed.
    pub never_failed: f64,
    /// A node that was killed at the same moment and came back empty.
    pub came_back_empty: f64,
}

/// How far below the node that never failed the worst window after the kill lies, in percentage points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Dips {
    /// The pair.
    pub hotspare: f64,
    /// The node that came back empty.
    pub came_back_empty: f64,
}

/// All that the demonstration measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Requests played.
    pub requests: u64,
    /// Requests in a window.
    pub window_requests: u64,
    /// Each node's memory limit, in bytes.
    pub capacity_bytes: u64,
    /// What all distinct keys with their values would take, in bytes.
    pub distinct_bytes: u64,
    /// By how much values were enlarged, since the smallest cache would have held more than half of them; 1 is not.
    pub value_factor: u64,
    /// Evictions for each set: the least of the node that never failed, and of the primary and its spare until the
    /// kill.
    pub evictions_per_set: f64,
    /// Values read that were not what had been stored.
    pub wrong_values: u64,
    /// Before which request the spare was found to have everything; the kill's, if that had to wait for it.
    pub spare_ready_at_request: u64,
    /// Before which request the primary was killed.
    pub killed_at_request: u64,
    /// Writes that the primary had answered and the spare had not received.
    pub writes_lost: u64,
    /// From the kill to the spare's first answer as a primary, in milliseconds.
    pub promote_ms: f64,
    /// Hit ratios of all windows before the kill.
    pub hit_ratio_before: Ratios,
    /// Hit ratios of all windows after it.
    pub hit_ratio_after: Ratios,
    /// The worst window after it.
    pub worst_window_dip_points: Dips,
    /// The hit ratios, window by window.
    pub windows: Vec<Ratios>,
    /// What makes these figures mean less than they seem to, if anything does.
    pub warning: Option<String>,
}

fn survey(source: &Source, course: &Course) -> Result<WorkingSet, TraceError> {
    let mut sizes: HashMap<Box<[u8]>, u32> = HashMap::new();
    let mut requests = 0;
    for request in source.requests()? {
        let request = request?;
        requests += 1;
        let value_bytes = course.value_bytes(&request);
        sizes.insert(request.key, value_bytes);
        if sizes.len() > DISTINCT_KEYS_MAX {
            return Err(TraceError::TooManyKeys { keys_max: DISTINCT_KEYS_MAX });
        }
    }
    if requests < 100 {
        return Err(TraceError::TooShort { requests });
    }
    let bytes_with = |factor: u64| -> u64 {
        sizes
            .iter()
            .map(|(key, value)| {
                key.len() as u64 + enlarged(*value, factor).min(ITEM_BYTES_MAX) + ITEM_OVERHEAD_BYTES
            })
            .sum()
    };
    let enough = match course.capacity {
        Capacity::OneIn(parts) => parts * hotspare::MEMORY_BYTES_MIN as u64,
        Capacity::Bytes(_) => 0,
    };
    let mut value_factor = 1;
    while bytes_with(value_factor) < enough && value_factor < 1 << 20 {
        value_factor *= 2;
    }
    Ok(WorkingSet { requests, distinct_bytes: bytes_with(value_factor), value_factor })
}

/// A value's size after it was enlarged.
fn enlarged(value_bytes: u32, factor: u64) -> u64 {
    let value_bytes = u64::from(value_bytes);
    match factor {
        1 => value_bytes,
        _ => (value_bytes.max(1) * factor).min(ENLARGED_BYTES_MAX).max(value_bytes),
    }
}

/// Plays a course and says what came of it.
///
/// # Errors
/// A line: the source can't be read or is too short, or the spare did not attach within ten seconds.
pub fn play(source: &Source, course: &Course) -> Result<Figures, String> {
    play_showing(source, course, chart::ProgressStyle::Silent)
}

fn play_showing(source: &Source, course: &Course, style: chart::ProgressStyle) -> Result<Figures, String> {
    let words = |why: TraceError| why.to_string();
    let set = survey(source, course).map_err(words)?;
    let capacity_bytes = match course.capacity {
        Capacity::OneIn(parts) => {
            (set.distinct_bytes / parts).clamp(hotspare::MEMORY_BYTES_MIN as u64, CAPACITY_BYTES_MAX)
        }
        Capacity::Bytes(bytes) => bytes,
    };
    let mut run = Run::begin(&set, course, capacity_bytes)?;
    let mut progress = chart::Progress::new(set.requests, style);
    let mut value = Vec::new();
    let (began, mut value_bytes) = (Instant::now(), 0);
    for request in source.requests().map_err(words)? {
        let request = request.map_err(words)?;
        run.happens()?;
        // One byte above the item limit is as uncacheable as many.
        let bytes =
            enlarged(course.value_bytes(&request), set.value_factor).min(run.stage.item_bytes_max as u64 + 1);
        fill_value(&request.key, bytes as usize, &mut value);
        run.stage.request(&request.key, &value)?;
        run.played += 1;
        value_bytes += bytes;
        if run.played.is_multiple_of(32) {
            course.pace.wait(began, run.played, value_bytes);
            if course.waits_for_spare {
                run.stage.await_position(BEHIND_WRITES_MAX)?;
            }
        }
        if run.played % run.window_requests == 0 {
            run.windows.push(run.stage.take_ratios(run.window_requests));
            progress.show(run.played);
        }
    }
    progress.end();
    Ok(run.figures(&set, capacity_bytes))
}

/// A course under way.
struct Run {
    stage: Stage,
    window_requests: u64,
    /// Before which requests the spare joins and the primary dies. The kill comes at a window's border, so that no window
    /// mixes before and after.
    joins_at: u64,
    killed_at: u64,
    spare_ready_at: Option<u64>,
    played: u64,
    windows: Vec<Ratios>,
    failed_over: (u64, Duration),
    waits_for_spare: bool,
}

impl Run {
    fn begin(set: &WorkingSet, course: &Course, capacity_bytes: u64) -> Result<Run, String> {
        let window_requests = WINDOW_REQUESTS_MAX.min(set.requests / 10);
        let mut stage = Stage::set(capacity_bytes, course)?;
        let is_late = course.joins == Joins::AtQuarter;
        if !is_late {
            stage.start_spare()?;
            stage.await_spare()?;
        }
        Ok(Run {
            stage,
            window_requests,
            joins_at: if is_late { set.requests / 4 } else { 0 },
            killed_at: set.requests / 2 / window_requests * window_requests,
            spare_ready_at: (!is_late).then_some(0),
            played: 0,
            windows: Vec::new(),
            failed_over: (0, Duration::ZERO),
            waits_for_spare: course.waits_for_spare,
        })
    }

    /// What is due before the next request.
    fn happens(&mut self) -> Result<(), String> {
        if self.spare_ready_at.is_none() {
            if self.played == self.joins_at {
                self.stage.start_spare()?;
            }
            if self.played == self.killed_at {
                self.stage.await_spare()?;
            }
            let is_looked_at = self.played.is_multiple_of(64) || self.played == self.killed_at;
            if self.played >= self.joins_at && is_looked_at && self.stage.spare_streams() {
                self.spare_ready_at = Some(self.played);
            }
        }
        if self.played == self.killed_at {
            if self.waits_for_spare {
                self.stage.await_position(0)?;
            }
            self.failed_over = self.stage.fail_over()?;
        }
        Ok(())
    }

    fn figures(self, set: &WorkingSet, capacity_bytes: u64) -> Figures {
        let (writes_lost, promote_time) = self.failed_over;
        let evictions_per_set = self.stage.evictions_per_set();
        let (before, after) = self.windows.split_at((self.killed_at / self.window_requests) as usize);
        Figures {
            requests: self.played,
            window_requests: self.window_requests,
            capacity_bytes,
            distinct_bytes: set.distinct_bytes,
            value_factor: set.value_factor,
            evictions_per_set,
            wrong_values: self.stage.wrong_values,
            spare_ready_at_request: self.spare_ready_at.unwrap_or(self.killed_at),
            killed_at_request: self.killed_at,
            writes_lost,
            promote_ms: promote_time.as_secs_f64() * 1e3,
            hit_ratio_before: mean(before),
            hit_ratio_after: mean(after),
            worst_window_dip_points: worst(after),
            warning: (evictions_per_set < 0.1).then(|| {
                format!("only {evictions_per_set:.3} evictions a set: too few for the figures to mean much")
            }),
            windows: self.windows,
        }
    }
}

fn mean(windows: &[Ratios]) -> Ratios {
    let count = windows.len().max(1) as f64;
    let mean_of = |field: fn(&Ratios) -> f64| windows.iter().map(field).sum::<f64>() / count;
    Ratios {
        hotspare: mean_of(|window| window.hotspare),
        never_failed: mean_of(|window| window.never_failed),
        came_back_empty: mean_of(|window| window.came_back_empty),
    }
}

fn worst(windows: &[Ratios]) -> Dips {
    let worst_of = |field: fn(&Ratios) -> f64| {
        windows.iter().map(|window| window.never_failed - field(window)).fold(0.0, f64::max)
    };
    Dips {
        hotspare: worst_of(|window| window.hotspare),
        came_back_empty: worst_of(|window| window.came_back_empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_played_through_a_kill_without_a_wrong_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("small.txt");
        let lines: String = GeneratedStream::new(7)
            .take(60_000)
            .map(|request| format!("{}\n", request.key.escape_ascii()))
            .collect();
        std::fs::write(&file, lines).unwrap();
        let figures = play(&Source::Trace(file), &Course::default()).unwrap();
        assert_eq!((figures.requests, figures.wrong_values), (60_000, 0));
        assert_eq!((figures.killed_at_request, figures.windows.len()), (30_000, 10));
        assert!(figures.evictions_per_set >= 0.1, "{}", figures.evictions_per_set);
        let dips = figures.worst_window_dip_points;
        assert!(
            dips.came_back_empty > dips.hotspare + 1.0,
            "an empty node loses more than a warm one: {dips:?}"
        );
    }

    #[test]
    fn strange_sizes_neither_fail_nor_take_long() {
        let folder = tempfile::tempdir().unwrap();
        let huge: String = (0..2_000).map(|key| format!("{} 60000000\n", key % 900)).collect();
        let empty: String = (0..2_000).map(|key| format!("{} 0\n", key % 900)).collect();
        for (name, lines) in [("huge", huge), ("empty", empty), ("one", "k\n".repeat(2_000))] {
            let file = folder.path().join(name);
            std::fs::write(&file, lines).unwrap();
            let figures = play(&Source::Trace(file), &Course::default()).unwrap();
            assert_eq!((figures.requests, figures.wrong_values), (2_000, 0), "{name}");
            assert!(figures.capacity_bytes <= CAPACITY_BYTES_MAX, "{name}");
            // In so short a run of small values the spare may not come to evict in time: either is honest.
            assert!(figures.warning.is_some() || name == "empty", "{name}: {figures:?}");
        }
    }

    #[test]
    fn a_trace_that_is_not_there_or_too_short_is_named() {
        let missing =
            play(&Source::Trace(PathBuf::from("/nonexistent/trace.gz")), &Course::default()).unwrap_err();
        assert!(missing.contains("/nonexistent/trace.gz"), "{missing}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("short.txt");
        std::fs::write(&file, "a\nb\n").unwrap();
        assert!(play(&Source::Trace(file), &Course::default()).unwrap_err().contains("2 requests"));
    }
}
