//! Simulations of whole groups, each from one seed, as many as you like.
//!
//! `cargo run -p tests --release --bin sim -- --seeds N` runs N seeds of every scenario and prints each seed that fails, with the
//! command that repeats it. `--scenario NAME --first-seed S --seeds 1 --verbose` is one run, and tells what happened in it.

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use tests::simulation::scenarios::{SCENARIOS, Scenario};

#[derive(Parser)]
struct Args {
    /// Seeds of each scenario.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this scenario.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(SCENARIOS.map(|scenario| scenario.name)))]
    scenario: Option<String>,
    /// Runs at a time; default: one for each core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print what happened in each run.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut failures = 0;
    let chosen =
        SCENARIOS.iter().filter(|scenario| args.scenario.as_deref().is_none_or(|name| name == scenario.name));
    for scenario in chosen {
        let began = Instant::now();
        let failed = run_all(scenario, &args);
        failures += failed;
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{}: {} seeds from {}, {failed} failed, {seconds:.1} s ({})",
            scenario.name, args.seeds, args.first_seed, scenario.what
        );
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all seeds of a scenario; how many failed.
fn run_all(scenario: &Scenario, args: &Args) -> u64 {
    let jobs = args.jobs.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= args.seeds {
                    break;
                }
                let seed = args.first_seed.wrapping_add(index);
                // What did not hold is printed by the panic itself.
                let done = panic::catch_unwind(AssertUnwindSafe(|| scenario.run(seed)))
                    .unwrap_or_else(|_| Err("see above".to_owned()));
                match done {
                    Ok(what) if args.verbose => println!("{}: seed {seed}: {what}", scenario.name),
                    Ok(_) => {}
                    Err(why) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{}: seed {seed} FAILED: {why}", scenario.name);
                        println!(
                            "    again: cargo run -p tests --release --bin sim -- --scenario {} --first-seed {seed} --seeds 1",
                            scenario.name
                        );
                    }
                }
            });
        }
    });
    failed.into_inner()
}
