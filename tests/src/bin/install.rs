//! How long a full copy takes between two processes, and what it does to writers.
//!
//! `cargo run -p tests --release --bin install` fills a primary with a million items of 100 bytes, starts replicas as
//! processes of their own, each told to begin at the same moment, and copies to all of them over TCP, or over the transport
//! that `--transport` names. Meanwhile a thread of the primary goes on setting. Printed: seconds until each replica streams, and how long sets took before and meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hotspare::{Cache, Expiry, ReplicationConfig};
use tests::nodes::{Certificates, Failure, Node, Replica, ReplicaArgs, Transport};

#[derive(Parser)]
struct Args {
    /// Items that are copied.
    #[arg(long, default_value_t = 1_000_000)]
    items: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Replicas that join at once.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Copies one after the other, each to replicas that begin empty.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Sets a second that go on meanwhile.
    #[arg(long, default_value_t = 20_000)]
    sets: u32,
    /// How the nodes are linked.
    #[arg(long, default_value = "tcp")]
    transport: Transport,
    #[command(flatten)]
    replica: ReplicaArgs,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    match &args.replica.replica_of {
        Some(primary) => args.replica.be_replica(primary, args.transport),
        None => be_primary(&args),
    }
}

fn key(number: u32) -> [u8; 12] {
    let mut key = *b"key:00000000";
    let digits = format!("{number:08}");
    key[4..].copy_from_slice(digits.as_bytes());
    key
}

fn be_primary(args: &Args) -> Result<(), Failure> {
    let certificates = Certificates::make()?;
    let cache = Cache::new(args.replica.config(ReplicationConfig::primary()))?;
    let value = vec![b'v'; args.value_bytes];
    for number in 0..args.items {
        cache.set(key(number), &value, Expiry::Never)?;
    }
    let node = Node::start(&cache, args.transport, certificates.folder(), "primary", true)?;
    let address = node.listen_address().ok_or("it listens")?;
    let mut seconds = Vec::new();
    for round in 1..=args.rounds {
        let start = |_| Replica::start(&args.replica, args.transport, &certificates, address);
        let mut replicas = (0..args.replicas).map(start).collect::<Result<Vec<_>, _>>()?;
        let idle = while_setting(&cache, args, || thread::sleep(Duration::from_secs(1)));
        let (mut took, mut held) = (Vec::new(), Vec::new());
        let busy = while_setting(&cache, args, || {
            let begun = Instant::now();
            for replica in &mut replicas {
                replica.join();
            }
            for replica in &mut replicas {
                held.push(replica.line());
                took.push(begun.elapsed().as_secs_f64());
            }
        });
        let last = took.iter().copied().fold(0.0, f64::max);
        println!("round {round}: {last:.2} s until {} replicas held {held:?} items", replicas.len());
        println!("    sets before:    {idle}\n    sets meanwhile: {busy}");
        seconds.push(last);
        for replica in replicas {
            replica.end();
        }
    }
    seconds.sort_by(f64::total_cmp);
    println!("median {:.2} s, best {:.2} s", seconds[seconds.len() / 2], seconds[0]);
    node.shutdown();
    Ok(())
}

/// How long sets took, in microseconds.
struct Times(Vec<f64>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |part: f64| self.0[((self.0.len() - 1) as f64 * part) as usize];
        write!(f, "{} of them, p50 {:.1} us, ", self.0.len(), at(0.5))?;
        write!(f, "p99 {:.1} us, p99.9 {:.1} us, max {:.0} us", at(0.99), at(0.999), at(1.0))
    }
}

/// Runs `work` while a thread sets at an even rate; how long each set took by itself.
fn while_setting(cache: &Cache, args: &Args, work: impl FnOnce()) -> Times {
    let (is_over, cache, value) =
        (Arc::new(AtomicBool::new(false)), cache.clone(), vec![b'w'; args.value_bytes]);
    let (pause, items) = (Duration::from_secs(1) / args.sets.max(1), args.items);
    let over = is_over.clone();
    let setter = thread::spawn(move || {
        let (mut took, mut number, mut due) = (Vec::new(), 0_u32, Instant::now());
        while !over.load(Ordering::Relaxed) || took.is_empty() {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let begun = Instant::now();
            cache.set(key(number % items), &value, Expiry::Never).expect("a primary takes writes");
            took.push(begun.elapsed().as_secs_f64() * 1e6);
            due += pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        took.sort_by(f64::total_cmp);
        Times(took)
    });
    work();
    is_over.store(true, Ordering::Relaxed);
    setter.join().expect("no set fails")
}
