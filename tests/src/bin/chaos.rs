//! The chaos test as a program: a primary and its replicas as processes, killed, paused and cut off under load.
//!
//! `cargo run --release -p tests --bin chaos -- --kills 200 --ack semi-sync`

use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use tests::chaos::{self, Mode, Options, SERVES};

/// A mode, and the acks that a write waits for if that is said.
#[derive(Debug, Clone, Copy)]
struct Ack {
    mode: Mode,
    acks: Option<u8>,
}

impl FromStr for Ack {
    type Err = String;

    fn from_str(text: &str) -> Result<Ack, String> {
        let (word, acks) = match text.split_once(':') {
            Some((word, acks)) => (word, Some(acks.parse().map_err(|_| format!("{acks} is no number"))?)),
            None => (text, None),
        };
        let mode = match (word, acks) {
            ("async", None) => Mode::Async,
            ("semi-sync", _) => Mode::SemiSync,
            ("strict", _) => Mode::Strict,
            _ => return Err("one of async, semi-sync, semi-sync:N, strict, strict:N".to_owned()),
        };
        Ok(Ack { mode, acks })
    }
}

/// Kills processes of a group under load and holds the group to what its ack mode promises. Exit code 1 tells of a broken
/// promise.
#[derive(Debug, Parser)]
struct Arguments {
    /// Ends after so many kills (SIGKILL); pauses, cuts and restarts come in between.
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// Draws the faults. Default: a random one, which is told.
    #[arg(long)]
    seed: Option<u64>,
    /// What the nodes are told, and by which promise they are judged: `async`, `semi-sync`, `strict`. Behind a colon the
    /// acks that a write waits for; default: as many as there are replicas.
    #[arg(long, value_name = "MODE[:N]", default_value = "semi-sync")]
    ack: Ack,
    /// Nodes beside the primary.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    replicas: u8,
    /// Prints the figures as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Another server than the one that this program was built with.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Shows that the judge finds losses: judges by another mode's promise.
    #[arg(long, value_name = "MODE")]
    judge_as: Option<Ack>,
    /// Shows the same: promotes the replica that has least.
    #[arg(long)]
    promote_lowest: bool,
    /// Ends after so many broken promises.
    #[arg(long, default_value_t = 1)]
    complaints: u64,
}

fn options(arguments: &Arguments) -> std::io::Result<Options> {
    Ok(Options {
        program: arguments.server.clone().map_or_else(std::env::current_exe, Ok)?,
        seed: arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        kills: arguments.kills,
        replicas: arguments.replicas.into(),
        ack: arguments.ack.mode,
        acks: arguments.ack.acks.unwrap_or(arguments.replicas).into(),
        judge_as: arguments.judge_as.unwrap_or(arguments.ack).mode,
        promote_lowest: arguments.promote_lowest,
        complaints_max: arguments.complaints,
    })
}

fn main() -> ExitCode {
    if std::env::var_os(SERVES).is_some() {
        return hotspare_server::main();
    }
    let arguments = Arguments::parse();
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("this program does not find itself: {why}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("seed {}", options.seed);
    let report = match panic::catch_unwind(|| chaos::run(&options)) {
        Ok(Ok(report)) => report,
        Ok(Err(why)) => {
            eprintln!("seed {}: {why}", options.seed);
            return ExitCode::FAILURE;
        }
        Err(_) => {
            eprintln!("seed {}: the test itself failed", options.seed);
            return ExitCode::FAILURE;
        }
    };
    match arguments.json {
        true => println!("{:#}", report.json()),
        false => println!("{}", report.table()),
    }
    for complaint in report.complaints() {
        eprintln!("broken promise: {complaint}");
    }
    if report.complaints().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
