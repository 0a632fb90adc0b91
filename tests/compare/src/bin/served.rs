//! Servers beside each other under the same load: CPU microseconds of the server a request, requests a second, and the
//! slowest answers, as ratios to a peer.
//!
//! The servers run on the first core with one thread, the generator on the second; the rounds of a workload are
//! interleaved, and the medians count. Judge by CPU where the generator is busy (its share of the time is printed);
//! where it is not, the server slept between requests, and its CPU a request is another thing.

use std::io;
use std::time::Duration;

use clap::Parser;
use hotspare_compare::served::median;
use hotspare_compare::served::process::{Chosen, Server, pin_to_core};
use hotspare_compare::served::workload::{Slice, WORKLOADS, Workload, fill, run};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Only these workloads, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one slice.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Threads of each server; with more than one they have both cores.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Runs a workload on all servers in turn, and prints its lines; the last server is what the others are compared with.
fn measure(workload: Workload, servers: &[&Server], args: &Args) -> io::Result<()> {
    let mut slices: Vec<Vec<Slice>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.rounds {
        for (server, slices) in servers.iter().zip(&mut slices) {
            let slice = run(server, workload, Duration::from_secs_f64(args.seconds))?;
            // The first round warms up.
            if round > 0 {
                slices.push(slice);
            }
        }
    }
    let column = |slices: &[Slice], field: fn(&Slice) -> f64| median(slices.iter().map(field).collect());
    let peer = slices.last().expect("there is a server");
    for (server, own) in servers.iter().zip(&slices) {
        let (cpu, speed) = (column(own, |slice| slice.cpu_us), column(own, |slice| slice.per_second));
        println!(
            "{:4} {:30} {:10} cpu {cpu:8.2} us ({:4.2})  {speed:9.0}/s ({:4.2})  p99 {:7.0} us  p99.9 {:7.0} us  generator {:3.0} %",
            workload.name,
            workload.what,
            server.name,
            cpu / column(peer, |slice| slice.cpu_us),
            speed / column(peer, |slice| slice.per_second),
            column(own, |slice| slice.p99_us),
            column(own, |slice| slice.p999_us),
            column(own, |slice| slice.busy) * 100.0,
        );
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if args.threads == 1 {
        pin_to_core(1);
    }
    let workloads: Vec<Workload> = WORKLOADS
        .into_iter()
        .filter(|workload| args.only.is_empty() || args.only.iter().any(|name| name == workload.name))
        .collect();
    let mut servers = Vec::new();
    for unix in [false, true] {
        if !workloads.iter().any(|workload| workload.unix == unix) {
            continue;
        }
        for program in args.chosen.programs(args.threads, 20_000) {
            match Server::start(&program, unix, (args.threads == 1).then_some(0)) {
                Ok(server) => {
                    fill(&server)?;
                    println!("{}: {} MiB resident when filled", server.name, server.resident_kib()? / 1024);
                    servers.push((unix, server));
                }
                Err(why) => println!("{} is left out: {why}", program.name),
            }
        }
    }
    println!("in parentheses: the ratio to the last line of the workload");
    for workload in workloads {
        let chosen: Vec<&Server> = servers
            .iter()
            .filter(|(unix, server)| *unix == workload.unix && workload.is_for(server.family, &server.name))
            .map(|(_, server)| server)
            .collect();
        if !chosen.is_empty() {
            measure(workload, &chosen, &args)?;
        }
    }
    Ok(())
}
