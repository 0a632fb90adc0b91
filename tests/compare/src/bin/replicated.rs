//! What a replica costs its primary, itself and the network: servers as processes, the primary on the first core, replica and
//! generator on the second.
//!
//! CPU times are those of whole processes by the scheduler's count; a node that replicates nothing, a primary with a replica,
//! and redis in both ways, take turns in each round, and the medians of the rounds count. System calls are counted by
//! perf, if that may, in a slice of its own. Catching up is timed from when the link is there again until the replica has everything.

use std::io::{self, Error, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use hotspare_compare::served::median;
use hotspare_compare::served::pair::{OTHER_CORE, Pair, standing};
use hotspare_compare::served::process::{Chosen, Family, Program, Server, pin_to_core};
use hotspare_compare::served::relay::Relay;
use hotspare_compare::served::workload::{SMALL, Slice, WORKLOADS, Workload, ask, fill_with, run};
use hotspare_server::bench::load::Load;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', default_value = "cpu,catch-up,cut,stall")]
    only: Vec<Part>,
    /// Only these workloads' CPU.
    #[arg(long, value_delimiter = ',', default_value = "W1,W4,W11", value_parser = RATIOS_MAX.map(|(name, _)| name))]
    workloads: Vec<String>,
    /// Requests a second, whatever the answers do, in place of as many as go: a server that sleeps between requests pays more for
    /// each, so only at the same rate is it the replica alone that makes the difference.
    #[arg(long, default_value_t = 0)]
    rate: usize,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of one slice.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CPU and system calls a request, with a replica and without.
    Cpu,
    /// 200 000 sets that a replica has missed.
    CatchUp,
    /// Bytes that are sent after a cut of ten seconds.
    Cut,
    /// Memory of a primary whose replica is stopped.
    Stall,
}

/// What is measured, by its name, and how much more CPU a primary with a replica may take for it.
const RATIOS_MAX: [(&str, f64); 3] = [("W1", 1.04), ("W4", 1.05), ("W11", 1.10)];

/// Of a replica's CPU, for a set that comes pipelined.
const REPLICA_US_MAX: f64 = 0.8;

const MISSED_SETS: u64 = 200_000;
const CATCH_UP_SECONDS_MAX: f64 = 0.2;

const CUT: Duration = Duration::from_secs(10);
/// Sets a second meanwhile.
const CUT_RATE: usize = 20_000;
const SENT_RATIO_MAX: f64 = 1.05;

/// Holds what a replica misses here.
const LARGE_LOG: [&str; 2] = ["--log-bytes", "536870912"];

const STALL_LOG_MIB: u64 = 64;
/// How long a replica stands still: longer than until its primary gives it up.
const STALL: Duration = Duration::from_secs(4);
/// What a primary may keep for a replica beyond the log: a link's unsent bytes, a frame of records, and as much for the copy that
/// is made of it.
const STALL_WINDOW_MIB: u64 = 1;

fn workload(name: &str) -> Workload {
    *WORKLOADS.iter().find(|workload| workload.name == name).expect("a workload of ours")
}

/// Whether a figure keeps its bar, in words.
fn verdict(figure: f64, bar: f64) -> String {
    format!("{} {bar:.2}", if figure <= bar { "within" } else { "ABOVE" })
}

/// What a slice cost.
struct Cost {
    slice: Slice,
    /// Microseconds a request: the primary's process, what of that is the thread that ships, and the replica's process.
    primary: f64,
    shipping: f64,
    replica: f64,
}

fn cost(pair: &Pair, workload: Workload, time: Duration) -> io::Result<Cost> {
    let replica = |pair: &Pair| pair.replica.as_ref().map_or(Ok(Duration::ZERO), Server::cpu);
    let shipping = |pair: &Pair| pair.primary.cpu_of("hotspare-tcp");
    let before = [pair.primary.cpu()?, shipping(pair)?, replica(pair)?];
    let slice = run(&pair.primary, workload, time)?;
    // What is still to be shipped is part of the cost.
    pair.settle()?;
    let after = [pair.primary.cpu()?, shipping(pair)?, replica(pair)?];
    let [primary, shipping, replica] =
        [0, 1, 2].map(|at| (after[at] - before[at]).as_secs_f64() * 1e6 / slice.requests as f64);
    Ok(Cost { slice, primary, shipping, replica })
}

/// System calls of the primary's process a request; `None` where perf is missing or may not count them.
fn system_calls(pair: &Pair, workload: Workload, time: Duration) -> io::Result<Option<f64>> {
    let watched = pair.primary.id().to_string();
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &watched]);
    let Ok(mut perf) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    else {
        return Ok(None);
    };
    // It says nothing when it has begun.
    std::thread::sleep(Duration::from_millis(200));
    let slice = run(&pair.primary, workload, time)?;
    Command::new("kill").args(["-INT", &perf.id().to_string()]).status()?;
    let mut text = String::new();
    if let Some(said) = &mut perf.stderr {
        said.read_to_string(&mut text)?;
    }
    perf.wait()?;
    let count = text.lines().find_map(|line| line.split(',').next()?.parse::<f64>().ok());
    Ok(count.map(|count| count / slice.requests as f64))
}

/// A program's two ways, and what each slice of them cost.
struct Compared {
    name: String,
    ways: [Pair; 2],
}

impl Compared {
    fn start(program: &Program) -> io::Result<Compared> {
        let ways = [Pair::alone(program)?, Pair::start(program, &[])?];
        for pair in &ways {
            fill_with(&pair.primary, SMALL)?;
            pair.settle()?;
        }
        Ok(Compared { name: program.name.clone(), ways })
    }

    /// Prints what a workload's rounds came to.
    fn tell(&self, workload: Workload, costs: &[[Cost; 2]], bar: f64, args: &Args) -> io::Result<()> {
        let of = |way: usize, field: fn(&Cost) -> f64| {
            median(costs.iter().map(|round| field(&round[way])).collect())
        };
        let mut ratios: Vec<f64> =
            costs.iter().map(|[without, with]| with.primary / without.primary).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = median(ratios.clone());
        println!(
            "{:4} {:22} {:9} {:6.2} us alone, {:6.2} with a replica: {ratio:.3} ({:.3} to {:.3}), {}",
            workload.name,
            workload.what,
            self.name,
            of(0, |cost| cost.primary),
            of(1, |cost| cost.primary),
            ratios[0],
            ratios[ratios.len() - 1],
            verdict(ratio, bar),
        );
        println!(
            "     of which {:.2} us ship; {:.0} and {:.0} requests/s, the generator busy for {:.0} and {:.0} %; replica {:.2} us a request",
            of(1, |cost| cost.shipping),
            of(0, |cost| cost.slice.per_second),
            of(1, |cost| cost.slice.per_second),
            of(0, |cost| cost.slice.busy) * 100.0,
            of(1, |cost| cost.slice.busy) * 100.0,
            of(1, |cost| cost.replica),
        );
        let time = Duration::from_secs_f64(args.seconds);
        let calls = self.ways.iter().map(|pair| system_calls(pair, workload, time));
        match calls.collect::<io::Result<Option<Vec<f64>>>>()?.as_deref() {
            Some([without, with]) => {
                println!("     system calls a request: {without:.3} alone, {with:.3} with a replica")
            }
            _ => println!("     system calls are not counted: perf is missing or may not"),
        }
        if workload.name == "W11" {
            let replica = of(1, |cost| cost.replica);
            println!("     the replica's CPU a set: {replica:.2} us, {}", verdict(replica, REPLICA_US_MAX));
        }
        Ok(())
    }
}

fn measure_cpu(programs: &[Program], args: &Args) -> io::Result<()> {
    let mut compared = Vec::new();
    for program in programs {
        match Compared::start(program) {
            Ok(one) => compared.push(one),
            Err(why) if program.family == Family::Memcached => return Err(why),
            Err(why) => println!("{} is left out: {why}", program.name),
        }
    }
    for (name, bar) in RATIOS_MAX {
        if !args.workloads.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut workload = workload(name);
        workload.load.rate = args.rate;
        let mut costs: Vec<Vec<[Cost; 2]>> = compared.iter().map(|_| Vec::new()).collect();
        for round in 0..=args.rounds {
            for (one, costs) in compared.iter().zip(&mut costs) {
                let time = Duration::from_secs_f64(args.seconds);
                let [without, with] = &one.ways;
                // Each goes first in every other round.
                let cost = match round % 2 {
                    0 => [cost(without, workload, time)?, cost(with, workload, time)?],
                    _ => {
                        let with = cost(with, workload, time)?;
                        [cost(without, workload, time)?, with]
                    }
                };
                // The first round warms up.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        for (one, costs) in compared.iter().zip(&costs) {
            one.tell(workload, costs, bar, args)?;
        }
    }
    Ok(())
}

/// What a cut link's replica cost to catch up.
struct CaughtUp {
    seconds: f64,
    sent: u64,
    /// By how much the log grew meanwhile.
    logged: u64,
    sets: u64,
}

/// Cuts the link, has `write` make sets, heals the link, and waits until the replica has everything.
fn catch_up(
    pair: &Pair,
    relay: &Relay,
    write: impl FnOnce(&Server) -> io::Result<()>,
) -> io::Result<CaughtUp> {
    let Some(replica) = &pair.replica else { return Err(Error::other("no replica")) };
    pair.settle()?;
    let before = (standing(&pair.primary)?, standing(replica)?.number("installs"));
    relay.cut();
    let sent = relay.sent();
    write(&pair.primary)?;
    relay.heal();
    let linked = relay.linked(Duration::from_secs(10))?;
    pair.settle()?;
    let (seconds, sent) = (linked.elapsed().as_secs_f64(), relay.sent() - sent);
    let after = (standing(&pair.primary)?, standing(replica)?.number("installs"));
    if after.1 != before.1 {
        return Err(Error::other("the replica was copied anew"));
    }
    let by = |name| after.0.number(name) - before.0.number(name);
    Ok(CaughtUp { seconds, sent, logged: by("log_bytes"), sets: by("seq") })
}

fn tell_bytes(caught_up: &CaughtUp) {
    let CaughtUp { sent, logged, sets, .. } = caught_up;
    let ratio = *sent as f64 / *logged as f64;
    let payload = (sets * (32 + SMALL.value_bytes as u64)) as f64;
    println!(
        "     {:.1} MB sent for {sets} sets, {:.1} MB in the log: {ratio:.4}, {}; {:.3} of keys and values",
        *sent as f64 / 1e6,
        *logged as f64 / 1e6,
        verdict(ratio, SENT_RATIO_MAX),
        *sent as f64 / payload,
    );
}

fn measure_catch_up(program: &Program, args: &Args) -> io::Result<()> {
    let (pair, relay) = Pair::relayed(program, &LARGE_LOG)?;
    fill_with(&pair.primary, SMALL)?;
    let load = workload("W11").load;
    let mut seconds = Vec::new();
    // More would not fit into the log beside what was filled.
    for round in 0..args.rounds.min(9) {
        let batches = MISSED_SETS / load.pipeline as u64;
        let caught_up = catch_up(&pair, &relay, |primary| ask(primary, load, batches))?;
        println!("catch-up {round}: {:.3} s", caught_up.seconds);
        tell_bytes(&caught_up);
        seconds.push(caught_up.seconds);
    }
    let middle = median(seconds);
    println!(
        "catch-up of {MISSED_SETS} sets: median {middle:.3} s, {}",
        verdict(middle, CATCH_UP_SECONDS_MAX)
    );
    Ok(())
}

fn measure_cut(program: &Program) -> io::Result<()> {
    let (pair, relay) = Pair::relayed(program, &LARGE_LOG)?;
    fill_with(&pair.primary, SMALL)?;
    let load = Load { rate: CUT_RATE, ..workload("W4").load };
    let sets = Workload { load, ..workload("W4") };
    let caught_up = catch_up(&pair, &relay, |primary| run(primary, sets, CUT).map(drop))?;
    println!("after a cut of {} s under {CUT_RATE} sets a second: {:.3} s", CUT.as_secs(), caught_up.seconds);
    tell_bytes(&caught_up);
    Ok(())
}

fn measure_stall(program: &Program) -> io::Result<()> {
    let log_bytes = (STALL_LOG_MIB << 20).to_string();
    let pair = Pair::start(program, &["--log-bytes", &log_bytes])?;
    // More than the log holds, so that what grows from now on is not the log.
    fill_with(&pair.primary, SMALL)?;
    let sets = workload("W11");
    run(&pair.primary, sets, Duration::from_secs(2))?;
    pair.settle()?;
    let before = pair.primary.resident_kib()?;
    let Some(replica) = &pair.replica else { return Err(Error::other("no replica")) };
    replica.signal("STOP")?;
    let (begun, mut most) = (Instant::now(), before);
    while begun.elapsed() < STALL {
        run(&pair.primary, sets, Duration::from_millis(200))?;
        most = most.max(pair.primary.resident_kib()?);
    }
    replica.signal("CONT")?;
    pair.settle()?;
    let grown = (most - before) as f64 / 1024.0;
    println!(
        "a replica stopped for {} s: the primary's {} MiB grew by {grown:.2} MiB, its log of {STALL_LOG_MIB} MiB being full; {} MiB",
        STALL.as_secs(),
        before >> 10,
        verdict(grown, STALL_WINDOW_MIB as f64),
    );
    Ok(())
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    pin_to_core(OTHER_CORE);
    let mut all = args.chosen.programs(1, 1000);
    all.retain(|program| program.name != "memcached");
    if args.only.contains(&Part::Cpu) {
        measure_cpu(&all, &args)?;
    }
    let Some(ours) = all.iter().find(|program| program.name == "hotspare") else { return Ok(()) };
    if args.only.contains(&Part::CatchUp) {
        measure_catch_up(ours, &args)?;
    }
    if args.only.contains(&Part::Cut) {
        measure_cut(ours)?;
    }
    if args.only.contains(&Part::Stall) {
        measure_stall(ours)?;
    }
    Ok(())
}
