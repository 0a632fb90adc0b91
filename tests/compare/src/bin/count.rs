//! One workload on one cache, so many operations: for counting instructions (see `instructions.sh`).

use std::hint::black_box;

use clap::Parser;
use hotspare_compare::caches::*;
use hotspare_compare::workload;

const KEYS: usize = 20_000;
const REQUESTS: usize = 80_000;
/// More operations than these of a miss or an evicting set are not possible.
const NEW_KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];

#[derive(Parser)]
struct Args {
    /// hotspare, hotspare+log, hotspare+replica (both nodes' instructions), quick_cache or scc.
    cache: String,
    /// hit, miss, set (which evicts), overwrite, get-many (eight keys an operation).
    workload: String,
    /// How many operations behind the set-up.
    #[arg(long, default_value_t = 100_000)]
    ops: usize,
}

fn run<C: Compared>(args: &Args) {
    // Room for a tenth of the keys where sets evict.
    let evicting = args.workload == "set";
    let cache = C::with_entries(if evicting { 200_000 } else { KEYS * 2 });
    let keys = workload::keys(if evicting { 400_000 } else { KEYS as u64 });
    keys.iter().for_each(|key| cache.set(key, &VALUE));
    let zipf: Vec<[u8; 16]> =
        workload::zipf(KEYS, REQUESTS, 0.99, 5).iter().map(|index| keys[*index as usize]).collect();
    let absent = workload::keys(NEW_KEYS + (1 << 20)).split_off(1 << 20);
    let requests = || zipf.iter().cycle().take(args.ops);
    let mut sum = 0;
    match args.workload.as_str() {
        "hit" => requests().for_each(|key| sum += cache.read(key, |value| u64::from(value[0])).unwrap()),
        "miss" => {
            absent[..args.ops].iter().for_each(|key| sum += u64::from(cache.read(key, |_| ()).is_some()))
        }
        "set" => absent[..args.ops].iter().for_each(|key| cache.set(key, &VALUE)),
        "overwrite" => requests().for_each(|key| cache.set(key, &VALUE)),
        "get-many" => zipf.chunks_exact(8).cycle().take(args.ops).for_each(|keys| {
            sum += cache.read_eight(std::array::from_fn(|at| &keys[at][..]));
        }),
        other => panic!("no workload {other}"),
    }
    black_box(sum);
}

fn main() {
    let args = Args::parse();
    match args.cache.as_str() {
        "hotspare" => run::<Hotspare>(&args),
        #[cfg(feature = "group")]
        "hotspare+log" => run::<HotspareWithLog>(&args),
        #[cfg(feature = "group")]
        "hotspare+replica" => run::<hotspare_compare::replica::HotspareWithReplica>(&args),
        "quick_cache" => run::<QuickCache>(&args),
        "scc" => run::<Scc>(&args),
        other => panic!("no cache {other}"),
    }
}
