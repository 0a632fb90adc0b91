//! What shipping a set costs the primary, by transport.
//!
//! `cargo run -p tests --release --bin links` has a primary set at an even rate, sixteen sets at a time, with a replica in
//! a process of its own over each transport in turn, and without one. Printed: processor time of the primary's whole
//! process for each set, its ratio to TCP with TLS, what it is over that without a replica, and the replica's own time for each
//! set. Rounds are interleaved, and medians taken.

use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare::{Cache, Expiry, ReplicationConfig};
use tests::nodes::{Certificates, Failure, Node, Replica, ReplicaArgs, Transport, cpu_nanos};

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
        for (spent, transport) in all.iter_mut().zip(TRANSPORTS) {
            let measured = measure(&args, transport, &certificates)?;
            let Spent { primary, replica } = measured;
            println!("round {round}: {:>10}: {primary:.0} ns a set, replica {replica:.0}", name(transport));
            spent.push(measured);
        }
    }
    let median = |of: fn(&Spent) -> f64| {
        all.each_ref().map(|rounds| {
            let mut nanos: Vec<f64> = rounds.iter().map(of).collect();
            nanos.sort_by(f64::total_cmp);
            nanos[nanos.len() / 2]
        })
    };
    let (primary, replica) = (median(|spent| spent.primary), median(|spent| spent.replica));
    for (at, transport) in TRANSPORTS.into_iter().enumerate() {
        let (of_tls, beyond) = (primary[at] / primary[2], primary[at] - primary[0]);
        println!(
            "{:>10}: {:.0} ns a set, {of_tls:.2} of TCP with TLS, {beyond:.0} beyond no replica; replica {:.0} ns a set",
            name(transport),
            primary[at],
            replica[at]
        );
    }
    Ok(())
}

/// Nanoseconds of processor time for each set.
struct Spent {
    primary: f64,
    /// 0 without one.
    replica: f64,
}

fn name(transport: Option<Transport>) -> &'static str {
    transport.map_or("no replica", Transport::name)
}

fn measure(args: &Args, transport: Option<Transport>, certificates: &Certificates) -> Result<Spent, Failure> {
    let cache = Cache::new(args.replica.config(ReplicationConfig::primary()))?;
    let Some(transport) = transport else {
        return Ok(Spent { primary: set_all(&cache, args)?, replica: 0.0 });
    };
    let node = Node::start(&cache, transport, certificates.folder(), "primary", true)?;
    let address = node.listen_address().ok_or("it listens")?;
    let mut replica = Replica::start(&args.replica, transport, certificates, address)?;
    replica.join();
    replica.line();
    let before = replica.cpu_nanos()?;
    let primary = set_all(&cache, args)?;
    let of_replica = (replica.cpu_nanos()? - before) as f64 / f64::from(args.sets);
    let status = cache.status();
    if status.installs != 1 || status.replicas.len() != 1 {
        return Err(format!("the replica did not keep up: {status:?}").into());
    }
    node.shutdown();
    replica.end();
    Ok(Spent { primary, replica: of_replica })
}

/// Processor time of this process for each set, in nanoseconds.
fn set_all(cache: &Cache, args: &Args) -> Result<f64, Failure> {
    let value = vec![b'v'; args.value_bytes];
    let pause = Duration::from_secs(1) * BATCH / args.rate.max(1);
    let (before, mut due) = (cpu_nanos("self")?, Instant::now());
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
    Ok((cpu_nanos("self")? - before) as f64 / f64::from(args.sets))
}
