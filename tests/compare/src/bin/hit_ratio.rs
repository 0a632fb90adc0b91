//! Hit ratios on traces: reference policies, peers, our engine and candidates side by side, at 1, 5, 10 and 25 % of the
//! distinct bytes.
//!
//! A figure is `-` where our engine can't be so small: it takes at least 1 MiB, and an item at most a quarter of it. What
//! then counts for the means, see `summary`.

use std::path::{Path, PathBuf};

use clap::Parser;
use hotspare::Eviction;
use hotspare_compare::engine::Engine;
use hotspare_compare::peers;
use hotspare_compare::policies::adaptive::{Queues, Shape};
use hotspare_compare::policies::recency::{Kind, Recency};
use hotspare_compare::policies::s3fifo::S3Fifo;
use hotspare_compare::policies::tinylfu::TinyLfu;
use hotspare_compare::policies::{Policy, belady};
use hotspare_compare::summary::{Ratios, Summary};
use hotspare_compare::trace::Trace;

const PERCENTS: [u64; 4] = [1, 5, 10, 25];

/// Hits of a whole trace at a capacity; `None` where the cache can't be so small.
type Replay = Box<dyn Fn(u64, &Trace) -> Option<u64>>;

struct Column {
    name: String,
    replay: Replay,
}

fn column<P: Policy>(name: &str, make: impl Fn(u64, &Trace) -> Option<P> + 'static) -> Column {
    let replay = move |capacity, trace: &Trace| {
        let mut cache = make(capacity, trace)?;
        let is_hit = |key: &&u32| cache.request(**key, trace.sizes[**key as usize]);
        Some(trace.requests.iter().filter(is_hit).count() as u64)
    };
    Column { name: name.to_owned(), replay: Box::new(replay) }
}

/// `--shape probation,hits_to_promote,hits_max,ghost,adapts,main_ghosts,least,most,decay`: a candidate (see `adaptive`).
fn shape(text: &str) -> Shape {
    let numbers: Vec<u64> = text.split(',').map(|word| word.parse().expect("nine numbers")).collect();
    let [probation, hits_to_promote, hits_max, ghost, adapts, main_ghosts, least, most, decay] = numbers[..]
    else {
        panic!("a shape has nine numbers, not {}", numbers.len())
    };
    Shape {
        probation,
        hits_to_promote: hits_to_promote as u8,
        hits_max: hits_max as u8,
        ghost,
        adapts: adapts == 1,
        main_ghosts: main_ghosts == 1,
        least,
        most,
        decay,
    }
}

/// In the order of the tables.
fn columns() -> Vec<Column> {
    let recency = |name, kind| {
        column(name, move |capacity, trace: &Trace| Some(Recency::new(kind, capacity, &trace.sizes)))
    };
    let engine = |name, eviction| {
        column(name, move |capacity, trace: &Trace| Engine::new(eviction, capacity, trace.is_sized))
    };
    let optimum = |capacity, trace: &Trace| Some(belady::hits(&trace.requests, &trace.sizes, capacity));
    vec![
        recency("lru", Kind::Lru),
        recency("fifo", Kind::Fifo),
        recency("clock", Kind::Clock),
        recency("sieve", Kind::Sieve),
        column("s3fifo", |capacity, trace| Some(S3Fifo::new(capacity, &trace.sizes))),
        column("tinylfu", |capacity, trace| Some(TinyLfu::new(capacity, &trace.sizes))),
        column("quick_cache", |capacity, trace| Some(peers::QuickCache::new(capacity, &trace.sizes))),
        column("moka", |capacity, _| Some(peers::Moka::new(capacity))),
        column("foyer", |capacity, _| Some(peers::Foyer::new(capacity))),
        engine("our-lru", Eviction::Lru),
        engine("our-s3", Eviction::S3Fifo),
        Column { name: "optimum".to_owned(), replay: Box::new(optimum) },
    ]
}

/// Those that `--only` names (all without it), and the candidates.
fn columns_of(args: &Args) -> Vec<Column> {
    let mut columns = columns();
    for wanted in &args.only {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert!(names.contains(&wanted.as_str()), "no column {wanted}; there are {}", names.join(", "));
    }
    columns.retain(|column| args.only.is_empty() || args.only.contains(&column.name));
    for text in &args.shape {
        let shape = shape(text);
        columns.push(column(text, move |capacity, trace| Some(Queues::new(shape, capacity, &trace.sizes))));
    }
    columns
}

fn traces(named: &[PathBuf]) -> Vec<PathBuf> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let folder = std::env::var("HOTSPARE_TRACES").expect("name trace files, or a folder in HOTSPARE_TRACES");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.to_string_lossy().ends_with(".txt.gz"))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().trim_end_matches(".txt.gz").to_owned()
}

#[derive(Parser)]
struct Args {
    /// Trace files; without any, all in the folder that HOTSPARE_TRACES names.
    files: Vec<PathBuf>,
    /// Only these columns, by their names in the table; so a run can be short.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A candidate as one more column; repeatable.
    #[arg(long)]
    shape: Vec<String>,
    /// Prints a line for each size, not just the table at the end.
    #[arg(long)]
    sizes: bool,
}

/// Percent of the requests that hit, by column.
fn ratios(columns: &[Column], trace: &Trace, percent: u64) -> Ratios {
    let capacity = (trace.distinct_bytes() * percent / 100).max(1);
    let ratio = |column: &Column| {
        let hits = (column.replay)(capacity, trace)?;
        Some(100.0 * hits as f64 / trace.requests.len() as f64)
    };
    Ratios { percent, by_column: columns.iter().map(ratio).collect() }
}

fn main() {
    let args = Args::parse();
    let columns = columns_of(&args);
    let mut summary = Summary::new(columns.iter().map(|column| column.name.clone()).collect());
    if args.sizes {
        print!("{:20} {:>5}", "trace", "size");
        columns.iter().for_each(|column| print!(" {:>8}", column.name));
        println!();
    }
    for path in traces(&args.files) {
        let trace = Trace::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // A run takes a minute; whoever waits sees where it is.
        eprintln!("{}", name(&path));
        let sizes: Vec<Ratios> = PERCENTS.map(|percent| ratios(&columns, &trace, percent)).into();
        if args.sizes {
            sizes.iter().for_each(|size| print_size(&name(&path), &columns, size));
        }
        summary.add(name(&path), sizes);
    }
    if args.sizes {
        println!();
    }
    print!("{summary}");
}

fn print_size(trace: &str, columns: &[Column], size: &Ratios) {
    print!("{trace:20} {:>4}%", size.percent);
    for (column, ratio) in columns.iter().zip(&size.by_column) {
        let width = column.name.len().max(8);
        print!(" {:>width$}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
    }
    println!();
}
