//! The differential test as a program: the same seeded requests to memcached and to our server, answers compared.
//!
//! `cargo run --release -p tests --bin differential -- --seed 1 --commands 10000`, with our server built beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use tests::differential::{Bounds, Dialect, Difference, Pair, Summary, run};
use tests::wait;

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Sends the same random commands to memcached and to hotspare and compares what they answer.
#[derive(Debug, Parser)]
struct Arguments {
    /// Begins the stream of commands; the same seed sends the same commands. Default: a random one, which is told.
    #[arg(long)]
    seed: Option<u64>,
    /// How many commands of each dialect.
    #[arg(long, default_value_t = 10_000)]
    commands: usize,
    /// The first conversation's number, as a difference tells it.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// After how many differences of a dialect it ends.
    #[arg(long, default_value_t = 8)]
    differences: usize,
    /// `classic`, `meta` or `binary`. Default: all.
    #[arg(long)]
    dialect: Option<String>,
    /// memcached's program.
    #[arg(long, default_value = "memcached")]
    memcached: PathBuf,
    /// Our server's program. Default: `hotspare` beside this program.
    #[arg(long)]
    server: Option<PathBuf>,
}

/// A server process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, arguments: &[&str], socket: &Path) -> std::io::Result<Running> {
    let mut command = Command::new(program);
    command.args(arguments).arg("-s").arg(socket).stdin(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn()?);
    wait::wait_until("the server's socket", START_LIMIT, || {
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    });
    Ok(running)
}

fn is_installed(program: &Path) -> bool {
    Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn print_difference(difference: &Difference, dialect: Dialect, seed: u64) {
    let number = difference.number;
    println!("\n{}: --seed {seed} --first {number} --dialect {} shows it", dialect.name(), dialect.name());
    for request in &difference.before {
        println!("  before:    {request}");
    }
    println!("  request:   {}", difference.request);
    println!("  memcached: {}", shown(&difference.theirs));
    println!("  hotspare:  {}", shown(&difference.ours));
}

/// An answer's first lines.
fn shown(answer: &str) -> String {
    const LINES_MAX: usize = 12;
    let lines: Vec<&str> = answer.lines().collect();
    let more = lines.len().saturating_sub(LINES_MAX);
    let end = if more > 0 { format!("\n             ... {more} lines more") } else { String::new() };
    lines[..lines.len() - more].join("\n             ") + &end
}

fn print_summary(summary: &Summary, dialect: Dialect, seed: u64) {
    for difference in &summary.differences {
        print_difference(difference, dialect, seed);
    }
    for difference in &summary.unrepeated {
        println!("\nnot seen again, so not counted:");
        print_difference(difference, dialect, seed);
    }
    let (commands, conversations) = (summary.commands, summary.conversations);
    let differences = summary.differences.len();
    println!(
        "{}: seed {seed}, {commands} commands in {conversations} conversations, {differences} differences",
        dialect.name()
    );
    if summary.silences > 0 {
        println!("  {} steps were not answered to their end", summary.silences);
    }
    for ((rule, what), count) in &summary.known {
        println!("  on purpose, rule {rule}: {what} ({count} times)");
    }
}

/// Runs one dialect on servers of its own; how many differences there were.
fn run_dialect(arguments: &Arguments, server: &Path, dialect: Dialect, seed: u64) -> std::io::Result<usize> {
    let folder = tempfile::tempdir()?;
    let pair = Pair { theirs: folder.path().join("memcached"), ours: folder.path().join("hotspare") };
    let _theirs = start(&arguments.memcached, &["-u", "root", "-m", "1024", "-t", "1"], &pair.theirs)?;
    let _ours = start(server, &["-m", "1024", "-t", "1"], &pair.ours)?;
    let Arguments { first, commands, differences, .. } = *arguments;
    let bounds = Bounds { first, commands, differences };
    let summary = run(&pair, dialect, seed, bounds)?;
    print_summary(&summary, dialect, seed);
    Ok(summary.differences.len())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !is_installed(&arguments.memcached) {
        println!("skipped: {} is not installed (Debian has it in memcached)", arguments.memcached.display());
        return ExitCode::SUCCESS;
    }
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("hotspare"));
    let Some(server) = arguments.server.clone().or(beside).filter(|server| server.exists()) else {
        println!("no hotspare beside this program: build it, or name one with --server");
        return ExitCode::FAILURE;
    };
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut differences = 0;
    for (name, dialect) in Dialect::ALL {
        if arguments.dialect.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        match run_dialect(&arguments, &server, dialect, seed) {
            Ok(count) => differences += count,
            Err(error) => {
                println!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
