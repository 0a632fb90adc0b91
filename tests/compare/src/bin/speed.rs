//! Nanoseconds an operation, all caches in one run: rounds in which each cache does a slice of each workload, the
//! median of the rounds, and its ratio to the best peer (the fastest that evicts and keeps its keys).

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare_compare::caches::*;
use hotspare_compare::workload;

const KEYS: usize = 1_000_000;
const VALUE: [u8; 100] = [7; 100];
const REQUESTS: usize = 4_000_000;

#[derive(Parser)]
struct Args {
    /// Rounds; each cache runs once in each.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Operations of a thread in one slice.
    #[arg(long, default_value_t = 400_000)]
    slice: usize,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only peers whose name contains this (and hotspare).
    #[arg(long, default_value = "")]
    peer: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Workload {
    HitUniform,
    HitZipf,
    Mix,
    SetEvicting,
    Miss,
    GetMany,
    GetCopied,
    /// All threads read one key: the worst that can happen to a lock.
    OneKey,
}

const WORKLOADS: [(Workload, &str); 8] = [
    (Workload::HitUniform, "hit-uniform"),
    (Workload::HitZipf, "hit-zipf"),
    (Workload::Mix, "mix-95-5-zipf"),
    (Workload::SetEvicting, "set-evicting"),
    (Workload::Miss, "miss"),
    (Workload::GetMany, "get-many-8"),
    (Workload::GetCopied, "get-copied"),
    (Workload::OneKey, "one-key"),
];

struct Input {
    keys: Vec<[u8; 16]>,
    absent: Vec<[u8; 16]>,
    uniform: Vec<u32>,
    zipf: Vec<u32>,
}

/// One thread's slice, which begins somewhere else in the sequence for each thread and round.
fn run<C: Compared>(cache: &C, workload: Workload, input: &Input, from: usize, count: usize) -> u64 {
    let sequence =
        if matches!(workload, Workload::HitZipf | Workload::Mix) { &input.zipf } else { &input.uniform };
    let index = |at: usize| sequence[(from + at) % REQUESTS] as usize;
    let ends = |value: &[u8]| u64::from(value[0]) + u64::from(value[value.len() - 1]);
    let mut sum = 0;
    match workload {
        Workload::HitUniform | Workload::HitZipf => {
            for at in 0..count {
                sum += cache.read(&input.keys[index(at)], ends).unwrap_or(0);
            }
        }
        Workload::Mix => {
            for at in 0..count {
                let key = &input.keys[index(at)];
                if at % 20 == 0 {
                    cache.set(key, &VALUE);
                } else {
                    sum += cache.read(key, ends).unwrap_or(0);
                }
            }
        }
        Workload::SetEvicting => {
            for at in 0..count {
                cache.set(&workload::key((from * 31 + at) as u64 + (1 << 32)), &VALUE);
            }
        }
        Workload::Miss => {
            for at in 0..count {
                sum += u64::from(cache.read(&input.absent[index(at)], ends).is_some());
            }
        }
        Workload::GetMany => {
            for at in (0..count).step_by(8) {
                sum += cache.read_eight(std::array::from_fn(|step| &input.keys[index(at + step)][..]));
            }
        }
        Workload::OneKey => {
            for _ in 0..count {
                sum += cache.read(&input.keys[0], ends).unwrap_or(0);
            }
        }
        Workload::GetCopied => {
            let mut buffer = [0_u8; 128];
            for at in 0..count {
                cache.read(&input.keys[index(at)], |value| buffer[..value.len()].copy_from_slice(value));
                sum += u64::from(buffer[50]);
            }
        }
    }
    sum
}

/// Nanoseconds an operation and thread.
fn measure<C: Compared>(
    cache: &C,
    workload: Workload,
    input: &Input,
    threads: usize,
    round: usize,
    count: usize,
) -> f64 {
    let barrier = Barrier::new(threads);
    let slices = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let from = (round * threads + thread) * 1_234_567 % REQUESTS;
                    barrier.wait();
                    let begin = Instant::now();
                    black_box(run(cache, workload, input, from, count));
                    begin.elapsed()
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<Duration>>()
    });
    let mean = slices.iter().sum::<Duration>() / threads as u32;
    mean.as_nanos() as f64 / count as f64
}

struct Column {
    name: &'static str,
    is_peer: bool,
    /// Of each round.
    times: Vec<f64>,
}

/// `measure` of a filled cache; arguments and result are its own.
type Measure = Box<dyn Fn(Workload, &Input, usize, usize, usize) -> f64>;

/// A cache that is measured: how to make it anew for a workload, and a slice of one.
struct Runner {
    name: &'static str,
    is_peer: bool,
    make: fn(Workload, &Input) -> Measure,
}

fn runner<C: Compared + 'static>() -> Runner {
    Runner {
        name: C::NAME,
        is_peer: C::IS_PEER,
        make: |workload, input| {
            let evicting = workload == Workload::SetEvicting;
            let cache = C::with_entries(if evicting { KEYS / 10 } else { KEYS + KEYS / 4 });
            let filled = if evicting { 2 * KEYS / 10 } else { KEYS };
            input.keys[..filled].iter().for_each(|key| cache.set(key, &VALUE));
            Box::new(move |workload, input, threads, round, count| {
                measure(&cache, workload, input, threads, round, count)
            })
        },
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    let args = Args::parse();
    let input = Input {
        keys: workload::keys(KEYS as u64),
        absent: (0..KEYS as u64).map(|number| workload::key(number + (1 << 40))).collect(),
        uniform: workload::uniform(KEYS, REQUESTS, 3),
        zipf: workload::zipf(KEYS, REQUESTS, 0.99, 5),
    };
    let runners: Vec<Runner> = [
        runner::<Hotspare>(),
        runner::<QuickCache>(),
        runner::<Scc>(),
        runner::<Foyer>(),
        runner::<Moka>(),
        runner::<Papaya>(),
        runner::<TinyUfo>(),
    ]
    .into_iter()
    .filter(|runner| runner.name == "hotspare" || runner.name.contains(&args.peer))
    .collect();
    println!(
        "{KEYS} keys of 16 bytes, values of {} bytes; nanoseconds an operation and thread, median of {} rounds",
        VALUE.len(),
        args.rounds
    );
    for (workload, workload_name) in WORKLOADS.into_iter().filter(|(_, name)| name.contains(&args.only)) {
        let caches: Vec<_> = runners.iter().map(|runner| (runner.make)(workload, &input)).collect();
        for threads in [1, 2] {
            let mut columns: Vec<Column> = runners
                .iter()
                .map(|runner| Column { name: runner.name, is_peer: runner.is_peer, times: Vec::new() })
                .collect();
            for round in 0..=args.rounds {
                for (column, cache) in columns.iter_mut().zip(&caches) {
                    let time = cache(workload, &input, threads, round, args.slice);
                    // The first round warms up.
                    if round > 0 {
                        column.times.push(time);
                    }
                }
            }
            let best = columns.iter().filter(|column| column.is_peer).map(|column| median(&column.times));
            let best = best.fold(f64::INFINITY, f64::min);
            print!("{workload_name:14} {threads} thread{}:", if threads == 1 { " " } else { "s" });
            for column in &columns {
                print!(
                    "  {} {:.0} ({:.2})",
                    column.name,
                    median(&column.times),
                    median(&column.times) / best
                );
            }
            println!();
        }
    }
}
