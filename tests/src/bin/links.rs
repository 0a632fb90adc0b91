//! What shipping a set costs the primary, by transport.
//!
//! `cargo run -p tests --release --bin links` has a primary set at an even rate, sixteen sets at a time, with a replica in
//! a process of its own over each transport in turn, and without one. Printed: processor time of the primary's whole
//! process for each set, and its ratio to TCP with TLS. Rounds are interleaved, and medians taken.

use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare::{Cache, Expiry, ReplicationConfig};
use tests::nodes::{Certificates, Failure, Node, Replica, ReplicaArgs, Transport};

#[derive(Parser)]
struct Args {
    /// Sets of each measurement.
    #[arg(long, default_value_t = 1_000_000)]
    sets: u32,
    /// Sets a second.
    #[arg(long, default_value_t = 250_000)]
    rate: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Measurements of each transport.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[command(flatten)]
    replica: ReplicaArgs,
    #[arg(long, hide = true)]
    transport: Option<Transport>,
}

/// Keys that are set, over and over.
const KEYS: u32 = 100_000;

/// Sets in one go, as a client pipelines them.
const BATCH: u32 = 16;

const TRANSPORTS: [Option<Transport>; 4] =
    [None, Some(Transport::Tcp), Some(Transport::Tls), Some(Transport::Quic)];

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let (Some(primary), Some(transport)) = (&args.replica.replica_of, args.transport) {
        return args.replica.be_replica(primary, transport);
    }
    let certificates = Certificates::make()?;
    let mut all = [const { Vec::new() }; TRANSPORTS.len()];
    for round in 1..=args.rounds {
        for (nanos, transport) in all.iter_mut().zip(TRANSPORTS) {
            let measured = measure(&args, transport, &certificates)?;
            println!("round {round}: {:>10}: {measured:.0} ns a set", name(transport));
            nanos.push(measured);
        }
    }
    let medians = all.map(|mut nanos| {
        nanos.sort_by(f64::total_cmp);
        nanos[nanos.len() / 2]
    });
    for (median, transport) in medians.into_iter().zip(TRANSPORTS) {
        println!("{:>10}: {median:.0} ns a set, {:.2} of TCP with TLS", name(transport), median / medians[2]);
    }
    Ok(())
}

fn name(transport: Option<Transport>) -> &'static str {
    transport.map_or("no replica", Transport::name)
}

/// Processor time of this process for each set, in nanoseconds.
fn measure(args: &Args, transport: Option<Transport>, certificates: &Certificates) -> Result<f64, Failure> {
    let cache = Cache::new(args.replica.config(ReplicationConfig::primary()))?;
    let Some(transport) = transport else { return set_all(&cache, args) };
    let node = Node::start(&cache, transport, certificates.folder(), "primary", true)?;
    let address = node.listen_address().ok_or("it listens")?;
    let mut replica = Replica::start(&args.replica, transport, certificates, address)?;
    replica.join();
    replica.line();
    let nanos = set_all(&cache, args)?;
    let status = cache.status();
    if status.installs != 1 || status.replicas.len() != 1 {
        return Err(format!("the replica did not keep up: {status:?}").into());
    }
    node.shutdown();
    replica.end();
    Ok(nanos)
}

fn set_all(cache: &Cache, args: &Args) -> Result<f64, Failure> {
    let value = vec![b'v'; args.value_bytes];
    let pause = Duration::from_secs(1) * BATCH / args.rate.max(1);
    let (before, mut due) = (cpu_nanos()?, Instant::now());
    for number in 0..args.sets {
        if number % BATCH == 0 {
            due += pause;
            // Shorter ones are made up for later: who sleeps for less than this sleeps for longer.
            let early = due.saturating_duration_since(Instant::now());
            if early > Duration::from_micros(200) {
                thread::sleep(early);
            }
        }
        cache.set((number % KEYS).to_le_bytes(), &value, Expiry::Never)?;
    }
    // What is still to be shipped is part of the cost.
    while cache.status().replicas.iter().any(|replica| replica.lag_seqs > 0) {
        thread::sleep(Duration::from_millis(1));
    }
    Ok((cpu_nanos()? - before) as f64 / f64::from(args.sets))
}

/// Processor time of all threads of this process so far, in nanoseconds.
fn cpu_nanos() -> Result<u64, Failure> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos: u64 = text.split_whitespace().next().ok_or("a number")?.parse()?;
        sum += nanos;
    }
    Ok(sum)
}
