//! What a request costs a server, counted instead of timed: instructions in user space (callgrind) and system calls
//! (strace). Repeatable where times are not.
//!
//! Each workload is asked with N and with twice N batches on one connection, one batch after the other; the difference is
//! divided by the requests in N batches, so that start, filling and end don't count. One connection alone means that each batch
//! is a wake-up of its own: what a busier server shares between connections is counted whole here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Error};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare_compare::served::process::{Chosen, Family, Program, Server};
use hotspare_compare::served::workload::{WORKLOADS, Workload};
use hotspare_server::bench::load::{self, Generator, Load, Population};
use hotspare_server::bench::requests::Dialect;

/// How long a server may be silent; under valgrind it is fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// Places for connections. memcached sets its limit of descriptors to that, which valgrind takes only if it is the one that it
/// leaves itself: the system's without twelve.
fn places() -> io::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    hard.and_then(|hard| hard.checked_sub(12))
        .ok_or_else(|| Error::other("descriptors are not limited: see `ulimit -Hn`"))
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Only these workloads, by name.
    #[arg(long, value_delimiter = ',', default_value = "W1,W2,W3,W4,W4n,W6,W8,W9")]
    only: Vec<String>,
    /// Requests that are counted, about.
    #[arg(long, default_value_t = 16_000)]
    requests: u64,
    /// No system calls, which takes half of the time.
    #[arg(long)]
    instructions_only: bool,
    /// Where callgrind's profile of each workload's longer run goes, as FOLDER/SERVER-WORKLOAD.callgrind.
    #[arg(long)]
    profiles: Option<String>,
}

/// Who counts.
#[derive(Clone, Copy)]
enum Counter {
    Callgrind,
    Strace,
}

/// What was counted, by name.
type Counts = BTreeMap<String, u64>;

impl Counter {
    /// The program, to be started under it.
    fn around(self, program: &Program, log: &Path, profile: &str) -> Program {
        let log = log.display();
        let line = match self {
            Counter::Callgrind => format!(
                "valgrind --tool=callgrind --dump-instr=no --log-file={log} --callgrind-out-file={profile}"
            ),
            // The server is the child, so that it is the one who is told to end.
            Counter::Strace => format!("strace -D -c -f -o {log}"),
        };
        let mut around = Program::new(&program.name, program.family, &line);
        // Another user than the one who counts can't write down what was counted.
        let own = |word: &String| if word == "nobody" { "root".to_owned() } else { word.clone() };
        around.words.extend(program.words.iter().map(own));
        around
    }

    fn read(self, log: &Path) -> io::Result<Counts> {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(log)?;
            let counts = match self {
                Counter::Callgrind => callgrind_counts(&text),
                Counter::Strace => strace_counts(&text),
            };
            // strace writes when the server has ended already.
            match counts {
                Some(counts) => return Ok(counts),
                None if begun.elapsed() > PATIENCE => {
                    return Err(Error::other(format!("counted nothing: {text}")));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn callgrind_counts(text: &str) -> Option<Counts> {
    let (_, rest) = text.rsplit_once("Collected : ")?;
    let number = rest.split_whitespace().next()?.parse().ok()?;
    Some(Counts::from([("instructions".to_owned(), number)]))
}

/// The table that ends with a line `total`: the fourth column are the calls, the last the name.
fn strace_counts(text: &str) -> Option<Counts> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let counts: Counts =
        rows.filter_map(|words| Some(((*words.last()?).to_owned(), words.get(3)?.parse().ok()?))).collect();
    counts.contains_key("total").then_some(counts)
}

/// As the workload has it, with as few keys as are filled soon under valgrind.
fn reduced(load: Load) -> Load {
    let keys = match load.population.value_bytes {
        0..1000 => 20_000,
        1000..100_000 => 500,
        _ => 20,
    };
    Load { population: Population { keys, ..load.population }, ..load }
}

fn counted(
    counter: Counter,
    program: &Program,
    workload: Workload,
    batches: u64,
    args: &Args,
) -> io::Result<Counts> {
    let dialect = if program.family == Family::Redis { Dialect::Redis } else { workload.load.dialect };
    let load = Load { dialect, ..reduced(workload.load) };
    let folder = std::env::temp_dir();
    let log = folder.join(format!("hotspare-counts-{}.log", std::process::id()));
    fs::write(&log, "")?;
    let profile = match &args.profiles {
        Some(folder) => format!("{folder}/{}-{}.callgrind", program.name, workload.name),
        None => "/dev/null".to_owned(),
    };
    let server = Server::start(&counter.around(program, &log, &profile), workload.unix, None)?;
    let filling = if dialect == Dialect::Redis { dialect } else { Dialect::Classic };
    load::fill(&server.address, filling, load.population, PATIENCE, &mut |_| ())?;
    Generator::new(server.address.clone(), load, true, PATIENCE).ask(batches)?;
    server.end()?;
    let counts = counter.read(&log);
    fs::remove_file(&log)?;
    counts
}

/// What a request costs, by name.
fn a_request(
    counter: Counter,
    program: &Program,
    workload: Workload,
    args: &Args,
) -> io::Result<BTreeMap<String, f64>> {
    let pipeline = workload.load.pipeline as u64;
    let batches = (args.requests / pipeline / workload.load.keys as u64).max(100);
    let once = counted(counter, program, workload, batches, args)?;
    let twice = counted(counter, program, workload, 2 * batches, args)?;
    let cost = |(name, count): (String, u64)| {
        let more = count as f64 - once.get(&name).copied().unwrap_or(0) as f64;
        (name, more / (batches * pipeline) as f64)
    };
    Ok(twice.into_iter().map(cost).collect())
}

fn measure(program: &Program, workload: Workload, args: &Args) -> io::Result<()> {
    let instructions = a_request(Counter::Callgrind, program, workload, args)?;
    let instructions = instructions.get("instructions").copied().unwrap_or(f64::NAN);
    let mut line = format!(
        "{:4} {:30} {:10} {instructions:8.0} instructions",
        workload.name, workload.what, program.name
    );
    if !args.instructions_only {
        let calls = a_request(Counter::Strace, program, workload, args)?;
        line += &format!(", {:.3} system calls:", calls.get("total").copied().unwrap_or(f64::NAN));
        for (name, count) in calls.iter().filter(|(name, count)| *name != "total" && **count >= 0.001) {
            line += &format!(" {name} {count:.3}");
        }
    }
    println!("{line}");
    Ok(())
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let all = args.chosen.programs(1, places()?);
    for workload in
        WORKLOADS.into_iter().filter(|workload| args.only.iter().any(|name| name == workload.name))
    {
        for program in &all {
            if workload.is_for(program.family, &program.name) {
                measure(program, workload, &args)?;
            }
        }
    }
    Ok(())
}
