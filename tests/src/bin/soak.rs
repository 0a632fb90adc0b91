//! The soak test as a program: a server under abuse for minutes, judged by what it keeps, loses and says.
//!
//! `cargo run --release -p tests --bin soak -- --minutes 30`, with our server built beside it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::soak::{Plan, Report, run};

/// Abuses a server: thousands of connections that break off, read slowly, or send halves, giants and garbage.
#[derive(Debug, Parser)]
struct Arguments {
    /// For how long, about.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Abusive connections at once.
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Makes the same abusers again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fails as well if the polite client's 99th percentile is more than so many times the idle server's. For a machine
    /// that does nothing else.
    #[arg(long)]
    p99_times: Option<f64>,
    /// Our server's program. Default: `hotspare` beside this program.
    #[arg(long)]
    server: Option<PathBuf>,
}

fn print(report: &Report) {
    let tally = &report.tally;
    println!(
        "{} connections, {} batches judged, {:.1} GB read, {} items evicted",
        tally.connections,
        tally.judged,
        tally.read_bytes as f64 / 1e9,
        report.evictions
    );
    for (name, latencies) in [("idle", &report.idle), ("abused", &report.abused)] {
        let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| latencies.percentile(percent));
        let (count, misses) = (latencies.count(), latencies.misses);
        println!("polite client, {name}: p50 {p50} µs, p99 {p99}, p99.9 {p999}; {misses} misses of {count}");
    }
    let resident: Vec<String> = report
        .held
        .iter()
        .map(|held| format!("{:.1}", held.resident_bytes as f64 / (1 << 20) as f64))
        .collect();
    println!("MiB resident in the quiet moments: {}", resident.join(" "));
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let beside = || std::env::current_exe().map(|program| program.with_file_name("hotspare"));
    let server = match arguments.server.map_or_else(beside, Ok) {
        Ok(server) => server.to_string_lossy().into_owned(),
        Err(why) => {
            eprintln!("no server: {why}; name one with --server");
            return ExitCode::FAILURE;
        }
    };
    let Ok(time) = Duration::try_from_secs_f64(arguments.minutes * 60.0) else {
        eprintln!("--minutes {} is no time", arguments.minutes);
        return ExitCode::FAILURE;
    };
    let plan = Plan { time, connections: arguments.connections, seed: arguments.seed };
    match run(&server, &plan) {
        Ok(report) => {
            print(&report);
            let times =
                f64::from(report.abused.percentile(99.0)) / f64::from(report.idle.percentile(99.0).max(1));
            println!("p99 under abuse is {times:.1} times the idle one");
            match arguments.p99_times {
                Some(most) if times > most => {
                    eprintln!("soak: that is more than {most}");
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(why) => {
            eprintln!("soak: {why}");
            ExitCode::FAILURE
        }
    }
}
