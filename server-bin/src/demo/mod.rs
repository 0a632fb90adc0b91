//! The demonstration: a primary dies in the middle of a request stream, its spare takes over, and the hit ratio is
//! shown beside a node that never failed and one that came back empty.
//!
//! Lives here: the course of it. Not here: the requests (see `stream`, `trace`), the picture (see `chart`).
//!
//! What is killed is a node inside this process: its replication thread and its cache are dropped without a word to
//! the spare. The system tests do the same to real processes with SIGKILL.

mod chart;
pub mod stream;
pub mod trace;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hotspare::{Cache, Config, Expiry, LinkState, ReplicationConfig};
use hotspare_tcp::{Node, Options};
use serde::Serialize;

pub use crate::args::DemoOptions;
use stream::GeneratedStream;
use trace::{Request, TraceError, TraceReader};

/// Bytes of a value whose size the trace does not give.
const VALUE_BYTES: u32 = 200;

/// What an item takes beside key and value, about: header and its share of the index.
const ITEM_OVERHEAD_BYTES: u64 = 40;

/// Requests in a window, or a tenth of the stream where that is less.
const WINDOW_REQUESTS_MAX: u64 = 20_000;

/// The share of the working set that the caches hold: one part in so many.
const CAPACITY_DIVISOR: u64 = 4;

/// The most memory that one of the four nodes takes; a larger working set is held to a smaller share.
const CAPACITY_BYTES_MAX: u64 = 256 << 20;

/// How far values are enlarged at most, and what a larger one counts in the working set: the default item limit.
const ENLARGED_BYTES_MAX: u64 = 64 << 10;
const ITEM_BYTES_MAX: u64 = 1 << 20;

/// The most distinct keys that are counted, at about 100 bytes each.
const DISTINCT_KEYS_MAX: usize = 8_000_000;

/// How long the spare may take to attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

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
    match play(&source, style) {
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
enum Source {
    Generated,
    Trace(PathBuf),
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

fn survey(source: &Source) -> Result<WorkingSet, TraceError> {
    let mut sizes: HashMap<Box<[u8]>, u32> = HashMap::new();
    let mut requests = 0;
    for request in source.requests()? {
        let request = request?;
        requests += 1;
        sizes.insert(request.key, request.value_bytes.unwrap_or(VALUE_BYTES));
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
    let enough = CAPACITY_DIVISOR * hotspare::MEMORY_BYTES_MIN as u64;
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

/// The four caches that see the same requests.
struct Stage {
    primary: Option<(Cache, Node)>,
    spare: (Cache, Node),
    promoted: bool,
    never_failed: Cache,
    came_back_empty: Cache,
    config: Config,
    item_bytes_max: usize,
    /// Evictions for each set before the kill: the lesser of the primary's and its spare's.
    evictions_per_set: f64,
    wrong_values: u64,
    /// Counts of hits, in the order of [`Ratios`].
    hits: [u64; 3],
}

impl Stage {
    fn set(capacity_bytes: u64) -> Result<Stage, String> {
        let item_bytes_max = (1 << 20).min(capacity_bytes as usize / 2);
        let config = Config::new()
            .hash_seed(1)
            .memory_bytes_max(capacity_bytes as usize)
            .item_bytes_max(item_bytes_max);
        let cache = |config: Config| Cache::new(config).map_err(|why| why.to_string());
        let loopback = "127.0.0.1:0".parse().map_err(|_| "no loopback address".to_owned())?;
        let node = |cache: &Cache| {
            Node::start(cache, Options::new().listen(loopback)).map_err(|why| why.to_string())
        };
        let primary = cache(config.clone().replication(ReplicationConfig::primary()))?;
        let primary_node = node(&primary)?;
        let address = primary_node.listen_address().map(|address| address.to_string()).unwrap_or_default();
        let spare = cache(config.clone().replication(ReplicationConfig::replica_of(address)))?;
        let spare_node = node(&spare)?;
        let end = Instant::now() + ATTACH_TIMEOUT;
        while spare.status().link != LinkState::Streaming {
            if Instant::now() > end {
                return Err(format!("the spare did not attach: {:?}", spare.status().last_error));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Stage {
            primary: Some((primary, primary_node)),
            spare: (spare, spare_node),
            promoted: false,
            never_failed: cache(config.clone())?,
            came_back_empty: cache(config.clone())?,
            config,
            item_bytes_max,
            evictions_per_set: 0.0,
            wrong_values: 0,
            hits: [0; 3],
        })
    }

    fn request(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let pair = match &self.primary {
            Some((primary, _)) => primary,
            None => &self.spare.0,
        };
        for (index, cache) in [pair, &self.never_failed, &self.came_back_empty].into_iter().enumerate() {
            match cache.read(key, |item| is_value_of(key, value, &item.value)) {
                Ok(Some(right)) => {
                    self.hits[index] += 1;
                    self.wrong_values += u64::from(!right);
                }
                Ok(None) => match cache.set(key, value, Expiry::Never) {
                    // A value above the limit is not cached, on any of them.
                    Ok(_) | Err(hotspare::WriteError::ItemTooLarge { .. }) => {}
                    Err(why) => return Err(why.to_string()),
                },
                Err(why) => return Err(why.to_string()),
            }
        }
        Ok(())
    }

    /// Kills the primary without warning and promotes the spare; how many writes were lost, and how long it took.
    fn fail_over(&mut self) -> Result<(u64, Duration), String> {
        let Some((primary, node)) = self.primary.take() else { return Err("it is dead already".to_owned()) };
        let (stats, spare) = (primary.stats(), self.spare.0.stats());
        let evictions = stats.evictions.min(spare.evictions);
        self.evictions_per_set = evictions as f64 / stats.stores.max(1) as f64;
        let written = primary.status().seq;
        let killed = Instant::now();
        drop(node);
        drop(primary);
        let held = self.spare.0.status().seq;
        self.spare.0.promote(false).map_err(|why| why.to_string())?;
        self.promoted = true;
        let took = killed.elapsed();
        self.came_back_empty = Cache::new(self.config.clone()).map_err(|why| why.to_string())?;
        Ok((written.saturating_sub(held), took))
    }

    /// The hit ratios since the last call, over so many requests.
    fn take_ratios(&mut self, requests: u64) -> Ratios {
        let percent = |hits: u64| 100.0 * hits as f64 / requests.max(1) as f64;
        let [hotspare, never_failed, came_back_empty] = std::mem::take(&mut self.hits).map(percent);
        Ratios { hotspare, never_failed, came_back_empty }
    }
}

/// Whether a stored value is the key's. A trace may give a key another size each time: then it is another length of
/// the same bytes.
fn is_value_of(key: &[u8], expected: &[u8], stored: &hotspare::Value<'_>) -> bool {
    if stored.len() <= expected.len() {
        return stored.pieces().flatten().eq(&expected[..stored.len()]);
    }
    let mut longer = Vec::new();
    fill_value(key, stored.len(), &mut longer);
    stored.pieces().flatten().eq(&longer)
}

/// A value that can be told from every other key's.
fn fill_value(key: &[u8], bytes: usize, value: &mut Vec<u8>) {
    let mut state = key.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    value.clear();
    while value.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes);
}

fn play(source: &Source, progress: chart::ProgressStyle) -> Result<Figures, String> {
    let words = |why: TraceError| why.to_string();
    let set = survey(source).map_err(words)?;
    let share = set.distinct_bytes / CAPACITY_DIVISOR;
    let capacity_bytes = share.clamp(hotspare::MEMORY_BYTES_MIN as u64, CAPACITY_BYTES_MAX);
    let window_requests = WINDOW_REQUESTS_MAX.min(set.requests / 10);
    // The kill comes at a window's border, so that no window mixes before and after.
    let killed_at_request = set.requests / 2 / window_requests * window_requests;
    let mut stage = Stage::set(capacity_bytes)?;
    let mut progress = chart::Progress::new(set.requests, progress);
    let mut windows = Vec::new();
    let mut value = Vec::new();
    let mut failed_over = (0, Duration::ZERO);
    let mut played = 0;
    for request in source.requests().map_err(words)? {
        let request = request.map_err(words)?;
        if played == killed_at_request {
            failed_over = stage.fail_over()?;
        }
        // One byte above the item limit is as uncacheable as many.
        let bytes = enlarged(request.value_bytes.unwrap_or(VALUE_BYTES), set.value_factor)
            .min(stage.item_bytes_max as u64 + 1);
        fill_value(&request.key, bytes as usize, &mut value);
        stage.request(&request.key, &value)?;
        played += 1;
        if played % window_requests == 0 {
            windows.push(stage.take_ratios(window_requests));
            progress.show(played);
        }
    }
    progress.end();
    let (writes_lost, promote_time) = failed_over;
    let stats = stage.never_failed.stats();
    let evictions_per_set =
        (stats.evictions as f64 / stats.stores.max(1) as f64).min(stage.evictions_per_set);
    let (before, after) = windows.split_at((killed_at_request / window_requests) as usize);
    Ok(Figures {
        requests: played,
        window_requests,
        capacity_bytes,
        distinct_bytes: set.distinct_bytes,
        value_factor: set.value_factor,
        evictions_per_set,
        wrong_values: stage.wrong_values,
        killed_at_request,
        writes_lost,
        promote_ms: promote_time.as_secs_f64() * 1e3,
        hit_ratio_before: mean(before),
        hit_ratio_after: mean(after),
        worst_window_dip_points: worst(after),
        warning: (evictions_per_set < 0.1).then(|| {
            format!("only {evictions_per_set:.3} evictions a set: too few for the figures to mean much")
        }),
        windows,
    })
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
        let figures = play(&Source::Trace(file), chart::ProgressStyle::Silent).unwrap();
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
            let figures = play(&Source::Trace(file), chart::ProgressStyle::Silent).unwrap();
            assert_eq!((figures.requests, figures.wrong_values), (2_000, 0), "{name}");
            assert!(figures.capacity_bytes <= CAPACITY_BYTES_MAX, "{name}");
            // In so short a run of small values the spare may not come to evict in time: either is honest.
            assert!(figures.warning.is_some() || name == "empty", "{name}: {figures:?}");
        }
    }

    #[test]
    fn a_trace_that_is_not_there_or_too_short_is_named() {
        let missing =
            play(&Source::Trace(PathBuf::from("/nonexistent/trace.gz")), chart::ProgressStyle::Silent)
                .unwrap_err();
        assert!(missing.contains("/nonexistent/trace.gz"), "{missing}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("short.txt");
        std::fs::write(&file, "a\nb\n").unwrap();
        assert!(play(&Source::Trace(file), chart::ProgressStyle::Silent).unwrap_err().contains("2 requests"));
    }
}
