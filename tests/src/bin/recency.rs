//! How warm a spare is when its primary dies: the hit ratio after the kill beside a node that never failed.
//!
//! `cargo run -p tests --release --bin recency -- TRACE...` plays each trace (`KEY [VALUE_SIZE]` a line, gzip if it ends in
//! `.gz`) through a pair over TCP: with a tenth of the distinct bytes, and with 8 MiB and values of 200 bytes; with a spare
//! from the start, and with one that joins after a quarter of the requests. The primary is killed at half. Printed is the worst
//! window after it, in points below the node that never failed: the median of the rounds, each with another hash seed. Requests
//! come as fast as a network lets them (`--rate`, `--megabytes`).
//!
//! It measures how much a spare knows of what is hot, not how fast it is: requests wait for a spare that is
//! 256 writes behind, and the kill for one that is behind at all. So it says the same on a busy machine as on a quiet one;
//! `--unpaced` lets a spare fall behind for want of processor time. `--without-marks` has nobody told of reads: then it fails.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use hotspare::{Bug, ReplicationConfig};
use hotspare_server::demo::{self, Capacity, Course, Figures, Joins, Pace, Ratios, Source};

/// The bar: points in the worst window, on traces of at least so many requests.
const DIP_POINTS_MAX: f64 = 0.2;
const JUDGED_REQUESTS_MIN: u64 = 100_000;

#[derive(Parser)]
struct Args {
    /// Request traces.
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// Rounds of each, by hash seeds from 1 on.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Give each node a hash seed of its own, as processes have.
    #[arg(long)]
    seeds_apart: bool,
    /// Requests a second; 0: as fast as this machine can, then a spare may fall behind.
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// Megabytes of their values a second, if there is a rate.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=4000))]
    megabytes: u32,
    /// Wait for no spare.
    #[arg(long)]
    unpaced: bool,
    /// Have nobody told of reads, to see that this is found.
    #[arg(long)]
    without_marks: bool,
    /// Print how far below the other node each window lies, of each round.
    #[arg(long)]
    windows: bool,
}

/// The memory of each node and its name in the table.
fn capacities() -> [(&'static str, Capacity, Option<u32>); 2] {
    [("a tenth", Capacity::OneIn(10), None), ("8 MiB, 200 B", Capacity::Bytes(8 << 20), Some(200))]
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!(
        "| trace | memory | spare joins | dip, points (rounds) | empty node's | writes lost | joined in requests |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut is_within = true;
    for trace in &args.traces {
        match rows(&args, trace) {
            Ok(within) => is_within &= within,
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        }
    }
    let verdict = if is_within { "within" } else { "NOT within" };
    println!("\n{verdict} {DIP_POINTS_MAX} points on each trace of at least {JUDGED_REQUESTS_MIN} requests");
    if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a trace's rows; whether those that count keep within the bar.
fn rows(args: &Args, trace: &Path) -> Result<bool, String> {
    let name = trace.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap_or_default();
    let mut is_within = true;
    let pace = match args.rate {
        0 => Pace::UNBOUNDED,
        requests => Pace { requests, value_bytes: args.megabytes * 1_000_000 },
    };
    let adjust: fn(ReplicationConfig) -> ReplicationConfig = match args.without_marks {
        true => |replication| replication.bug(Bug::ReadsUntold),
        false => |replication| replication,
    };
    for (memory, capacity, value_bytes) in capacities() {
        for (when, joins) in [("at the start", Joins::AtStart), ("at a quarter", Joins::AtQuarter)] {
            let rounds = (1..=args.rounds).map(|seed| {
                let (seeds_apart, waits_for_spare) = (args.seeds_apart, !args.unpaced);
                let course =
                    Course { capacity, value_bytes, joins, seed, seeds_apart, pace, waits_for_spare, adjust };
                demo::play(&Source::Trace(trace.to_owned()), &course)
            });
            let rounds: Vec<Figures> = rounds.collect::<Result<_, _>>()?;
            if let Some(wrong) = rounds.iter().find(|figures| figures.wrong_values > 0) {
                return Err(format!("{name}: {} wrong values", wrong.wrong_values));
            }
            let dip = median(&rounds, |figures| figures.worst_window_dip_points.hotspare);
            let is_judged = rounds.iter().all(|figures| figures.requests >= JUDGED_REQUESTS_MIN);
            is_within &= dip <= DIP_POINTS_MAX || !is_judged;
            print_row(name, memory, when, dip, &rounds);
            if args.windows {
                rounds.iter().for_each(print_windows);
            }
        }
    }
    Ok(is_within)
}

fn print_row(name: &str, memory: &str, when: &str, dip: f64, rounds: &[Figures]) {
    let each: Vec<String> =
        rounds.iter().map(|figures| format!("{:.2}", figures.worst_window_dip_points.hotspare)).collect();
    let empty = median(rounds, |figures| figures.worst_window_dip_points.came_back_empty);
    let lost = median(rounds, |figures| figures.writes_lost as f64);
    let joined = median(rounds, |figures| figures.spare_ready_at_request as f64);
    let share = rounds[0].evictions_per_set;
    let note = if share < 0.1 { format!(" (only {share:.2} evictions a set)") } else { String::new() };
    println!(
        "| {name} | {memory}{note} | {when} | {dip:.2} ({}) | {empty:.2} | {lost:.0} | {joined:.0} |",
        each.join(" ")
    );
}

/// From the first request on, a bar where the primary was killed.
fn print_windows(figures: &Figures) {
    let killed = (figures.killed_at_request / figures.window_requests) as usize;
    let below = |window: &Ratios| format!("{:+.2}", window.never_failed - window.hotspare);
    let [before, after] = [&figures.windows[..killed], &figures.windows[killed..]]
        .map(|windows| windows.iter().map(below).collect::<Vec<_>>().join(" "));
    println!("    {before} | {after}");
}

fn median(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut sorted: Vec<f64> = rounds.iter().map(figure).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
