//! Hit ratios of memcached and of our engine at the same memory limit: `-m M` and `memory_bytes_max` of M MiB.
//!
//! Both get the same requests in the same order: up to 64 gets, then a set for each of them that missed. Such a batch
//! ends before a key that is already in it, so that a get always comes after the set that its key's last miss caused.
//!
//! How to read it: our limit holds items and index together; `-m` limits memcached's item pages only, its hash table
//! comes on top, and so does a first page of 1 MiB for each size class, which is much where sizes differ and `-m` is
//! small. So "held" says what each takes at the end: pages and hash table of memcached, pages and index of ours;
//! `--as-held` compares at that. Pages that stay with small items count for many hits and few bytes; so the hits by
//! bytes are there too. memcached moves items between its queues, and pages between size classes, in threads of its own
//! by the clock, and a replay is over in seconds: `--pause-ms` gives it time.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use hotspare::{Cache, Config, Eviction, Expiry};
use hotspare_compare::memcached::Memcached;
use hotspare_compare::trace::Trace;

/// Values of a trace without sizes.
const VALUE_BYTES: u32 = 200;
const BATCH: usize = 64;
const TRACES: [&str; 2] = ["arc-OLTP", "cloudphysics-sized"];

/// A trace as a client of memcached would send it.
struct Requests {
    keys: Vec<String>,
    /// By key.
    value_bytes: Vec<u32>,
    /// By request.
    numbers: Vec<u32>,
    /// Of `numbers`.
    batches: Vec<Range<usize>>,
}

/// Batches of at most [`BATCH`] requests, none with a key twice.
fn batches(numbers: &[u32], keys: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut batch_of = vec![usize::MAX; keys];
    let mut start = 0;
    for (at, key) in numbers.iter().enumerate() {
        if at - start == BATCH || batch_of[*key as usize] == batches.len() {
            batches.push(start..at);
            start = at;
        }
        batch_of[*key as usize] = batches.len();
    }
    batches.push(start..numbers.len());
    batches
}

impl Requests {
    fn new(trace: Trace) -> Requests {
        // 16 characters that differ all over, as the keys of the other comparisons do, and that the protocol allows.
        let key = |number: usize| format!("{:016x}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let is_sized = trace.is_sized;
        Requests {
            keys: (0..trace.sizes.len()).map(key).collect(),
            value_bytes: trace.sizes.iter().map(|size| if is_sized { *size } else { VALUE_BYTES }).collect(),
            batches: batches(&trace.requests, trace.sizes.len()),
            numbers: trace.requests,
        }
    }

    /// Keys and values of all that is ever stored.
    fn distinct_bytes(&self) -> usize {
        let values: usize = self.value_bytes.iter().map(|bytes| *bytes as usize).sum();
        values + self.keys.iter().map(String::len).sum::<usize>()
    }

    fn item<'a>(&'a self, number: u32, zeros: &'a [u8]) -> (&'a str, &'a [u8]) {
        (&self.keys[number as usize], &zeros[..self.value_bytes[number as usize] as usize])
    }
}

/// What came of a replay.
struct Outcome {
    /// Percent of the requests.
    hits: f64,
    /// Percent of the bytes of values that were asked for.
    byte_hits: f64,
    /// Stores refused for want of memory.
    refused: u64,
    /// At the end of the replay.
    items: u64,
    /// Pages of items, and the index or hash table.
    held_bytes: u64,
}

/// What is replayed against.
trait Server {
    fn get_all(&mut self, requests: &Requests, numbers: &[u32]) -> io::Result<Vec<bool>>;
    /// How many it refused.
    fn set_all(&mut self, requests: &Requests, numbers: &[u32], zeros: &[u8]) -> io::Result<u64>;
    /// Items, and the bytes they and the index take.
    fn held(&mut self) -> io::Result<(u64, u64)>;
}

fn replay(server: &mut impl Server, requests: &Requests, pause: Duration) -> io::Result<Outcome> {
    let zeros = vec![0; requests.value_bytes.iter().max().map_or(0, |bytes| *bytes as usize)];
    let bytes = |numbers: &[u32]| -> u64 {
        numbers.iter().map(|number| u64::from(requests.value_bytes[*number as usize])).sum()
    };
    let (mut hits, mut byte_hits, mut refused) = (0, 0, 0);
    for batch in &requests.batches {
        let numbers = &requests.numbers[batch.clone()];
        std::thread::sleep(pause);
        let is_hit = server.get_all(requests, numbers)?;
        let missed = numbers.iter().zip(&is_hit).filter(|(_, is_hit)| !**is_hit);
        let missed: Vec<u32> = missed.map(|(number, _)| *number).collect();
        refused += server.set_all(requests, &missed, &zeros)?;
        hits += numbers.len() - missed.len();
        byte_hits += bytes(numbers) - bytes(&missed);
    }
    let (items, held_bytes) = server.held()?;
    let hits = 100.0 * hits as f64 / requests.numbers.len() as f64;
    let byte_hits = 100.0 * byte_hits as f64 / bytes(&requests.numbers) as f64;
    Ok(Outcome { hits, byte_hits, refused, items, held_bytes })
}

impl Server for Memcached {
    fn get_all(&mut self, requests: &Requests, numbers: &[u32]) -> io::Result<Vec<bool>> {
        Memcached::get_all(self, numbers.iter().map(|number| requests.keys[*number as usize].as_str()))
    }

    fn set_all(&mut self, requests: &Requests, numbers: &[u32], zeros: &[u8]) -> io::Result<u64> {
        Memcached::set_all(self, numbers.iter().map(|number| requests.item(*number, zeros)))
    }

    fn held(&mut self) -> io::Result<(u64, u64)> {
        let bytes = self.stat(" slabs", "total_malloced")? + self.stat("", "hash_bytes")?;
        Ok((self.stat("", "curr_items")?, bytes))
    }
}

impl Server for Cache {
    fn get_all(&mut self, requests: &Requests, numbers: &[u32]) -> io::Result<Vec<bool>> {
        let is_hit = |number: &u32| self.read(requests.keys[*number as usize].as_bytes(), |_| ());
        numbers
            .iter()
            .map(|number| is_hit(number).map(|hit| hit.is_some()).map_err(io::Error::other))
            .collect()
    }

    fn set_all(&mut self, requests: &Requests, numbers: &[u32], zeros: &[u8]) -> io::Result<u64> {
        let mut refused = 0;
        for number in numbers {
            let (key, value) = requests.item(*number, zeros);
            refused += u64::from(self.set(key.as_bytes(), value, Expiry::Never).is_err());
        }
        Ok(refused)
    }

    fn held(&mut self) -> io::Result<(u64, u64)> {
        Ok((self.stats().items, self.stats().memory_bytes))
    }
}

fn engine(bytes: usize, eviction: Eviction) -> Cache {
    let config = Config::new().memory_bytes_max(bytes).eviction(eviction).hash_seed(11);
    Cache::new(config).expect("the settings are in range")
}

fn print_line(trace: &str, mib: usize, name: &str, outcome: &Outcome, to: Option<&Outcome>) {
    let Outcome { hits, byte_hits, refused, items, held_bytes } = outcome;
    let difference = to.map_or(String::new(), |to| format!("{:+.2}", hits - to.hits));
    let held = *held_bytes as f64 / f64::from(1 << 20);
    print!("{trace:20} {mib:>5} {name:10} {hits:>7.2} {difference:>10} {byte_hits:>11.2}");
    println!(" {items:>9} {held:>9.1} {refused:>8}");
}

fn compare(path: &Path, args: &Args) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(".txt.gz");
    let requests = Requests::new(Trace::read(path)?);
    for mib in &args.mib {
        if mib << 20 >= requests.distinct_bytes() {
            println!("{name:20} {mib:>5} skipped: all of it fits");
            continue;
        }
        let theirs = replay(&mut Memcached::start(*mib)?, &requests, Duration::from_millis(args.pause_ms))?;
        print_line(name, *mib, "memcached", &theirs, None);
        let bytes = if args.as_held { theirs.held_bytes as usize } else { mib << 20 };
        for (name_of_ours, eviction) in [("our-lru", Eviction::Lru), ("our-s3", Eviction::S3Fifo)] {
            let ours = replay(&mut engine(bytes, eviction), &requests, Duration::ZERO)?;
            print_line(name, *mib, name_of_ours, &ours, Some(&theirs));
        }
    }
    Ok(())
}

#[derive(Parser)]
struct Args {
    /// Trace files; without any, arc-OLTP and cloudphysics-sized in the folder that HOTSPARE_TRACES names.
    files: Vec<PathBuf>,
    /// Memory limits in MiB; those that hold a whole trace are skipped.
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64,256")]
    mib: Vec<usize>,
    /// Gives ours the bytes that memcached held at the end, not the limit that memcached was told.
    #[arg(long)]
    as_held: bool,
    /// Milliseconds before each batch for memcached, so that its threads get more of the time they have in service.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

fn traces(args: &Args) -> Vec<PathBuf> {
    if !args.files.is_empty() {
        return args.files.clone();
    }
    let folder = std::env::var("HOTSPARE_TRACES").expect("name trace files, or a folder in HOTSPARE_TRACES");
    TRACES.iter().map(|name| Path::new(&folder).join(format!("{name}.txt.gz"))).collect()
}

fn main() {
    let args = Args::parse();
    match Memcached::start(64) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return println!("skipped: memcached isn't installed");
        }
        Err(error) => return println!("skipped: memcached doesn't start: {error}"),
        Ok(_) => {}
    }
    print!("{:20} {:>5} {:10} {:>7} {:>10}", "trace", "MiB", "cache", "hits %", "difference");
    println!(" {:>11} {:>9} {:>9} {:>8}", "byte hits %", "items", "held MiB", "refused");
    for path in traces(&args) {
        compare(&path, &args).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_batch_has_a_key_twice_and_none_is_lost() {
        let mut numbers: Vec<u32> = (0..100).collect();
        numbers.extend([5, 6, 5, 5]);
        let batches = super::batches(&numbers, 100);
        assert_eq!(batches, [0..64, 64..102, 102..103, 103..104]);
    }
}
