//! Nanoseconds a set where items expire: steady streams of writes of new keys, in one run, in time of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare::{Cache, Config, Expiry, ManualClock};

#[derive(Parser)]
struct Args {
    /// The memory of each cache, in MiB.
    #[arg(long, default_value_t = 256)]
    memory_mib: usize,
    /// How many items are alive at a time.
    #[arg(long, default_value_t = 600_000)]
    live: u64,
    /// Sets that are timed, in batches.
    #[arg(long, default_value_t = 4_000_000)]
    sets: u64,
}

const BATCH: u64 = 1_000;
const VALUE: [u8; 100] = [7; 100];
/// Of the longest lifetime, in each workload.
const LIFETIME_MS_MAX: u64 = 1_000_000;

/// Numbers without any pattern, the same in each run.
struct Numbers(u64);

impl Numbers {
    /// From 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A lifetime for each item, and how long it is on average, as parts of the longest.
struct Workload {
    name: &'static str,
    lifetime: fn(&mut Numbers) -> Option<f64>,
    mean: f64,
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "no expiry", lifetime: |_| None, mean: 1.0 },
    Workload { name: "one lifetime", lifetime: |_| Some(1.0), mean: 1.0 },
    Workload { name: "uniform", lifetime: |numbers| Some(numbers.next()), mean: 0.5 },
    // From a millionth of the longest on: the mean of that is 1 / ln 1000000.
    Workload {
        name: "any order",
        lifetime: |numbers| Some(1e6_f64.powf(numbers.next() - 1.0)),
        mean: 0.0724,
    },
];

fn measure(workload: &Workload, args: &Args) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let config = Config::new().memory_bytes_max(args.memory_mib << 20).hash_seed(1).clock(clock.clone());
    let cache = Cache::new(config).expect("the configuration is sound");
    let mut numbers = Numbers(7);
    let sets_a_ms = args.live as f64 / (workload.mean * LIFETIME_MS_MAX as f64);
    let warm_up = (2.0 * sets_a_ms * LIFETIME_MS_MAX as f64) as u64;
    let (mut times, mut number, mut passed_ms) = (Vec::new(), 0_u64, 0);
    while number < warm_up + args.sets {
        let expiries: Vec<Expiry> = (0..BATCH)
            .map(|_| match (workload.lifetime)(&mut numbers) {
                None => Expiry::Never,
                Some(part) => {
                    Expiry::After(Duration::from_millis(1 + (part * LIFETIME_MS_MAX as f64) as u64))
                }
            })
            .collect();
        let begin = Instant::now();
        for expiry in expiries {
            number += 1;
            cache.set(number.to_le_bytes(), VALUE, expiry).expect("it fits");
        }
        if number > warm_up {
            times.push(begin.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        let now_ms = (number as f64 / sets_a_ms) as u64;
        clock.advance_ms(now_ms - passed_ms);
        passed_ms = now_ms;
    }
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let stats = cache.stats();
    let live = cache.iter().count() as f64;
    println!(
        "{:<14}{:>10.0}{mean:>10.0}{:>12}{:>12.2}",
        workload.name,
        times[times.len() / 2],
        stats.items,
        (stats.items as f64 - live) / stats.items as f64 * 100.0
    );
}

fn main() {
    let args = Args::parse();
    println!("{:<14}{:>10}{:>10}{:>12}{:>12}", "lifetimes", "median ns", "mean ns", "items", "dead %");
    for workload in &WORKLOADS {
        measure(workload, &args);
    }
}
