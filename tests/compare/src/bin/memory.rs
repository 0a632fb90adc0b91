//! Bytes: what an entry costs beyond its key and value, what part of a full cache is keys and values, whether what
//! Hotspare reports is what the system says, and whether the limit holds while sizes change.
//!
//! Each measurement runs in a process of its own, so that no cache sees another's leftovers.

use std::process::Command;

use hotspare::{Cache, Config, Expiry};
use hotspare_compare::caches::*;
use hotspare_compare::workload;

const ENTRIES: usize = 2_000_000;
const VALUE: [u8; 100] = [7; 100];

/// Resident bytes of this process, as the kernel counts pages.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("this runs on Linux");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("there is a line of resident bytes");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

/// The most that was resident since the process began.
fn peak_resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("this runs on Linux");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("there is a line of the peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}

fn per_entry<C: Compared>() {
    let before = resident_bytes();
    // Room for the entries and a twentieth: a cache by count keeps them all.
    let cache = C::with_entries(ENTRIES + ENTRIES / 20);
    let mut kept = 0;
    (0..ENTRIES as u64).for_each(|number| cache.set(&workload::key(number), &VALUE));
    (0..ENTRIES as u64)
        .for_each(|number| kept += u64::from(cache.read(&workload::key(number), |_| ()).is_some()));
    let used = resident_bytes() - before;
    let overhead = used as f64 / kept as f64 - 116.0;
    println!(
        "{:14} {overhead:6.1} bytes an entry beyond its 116, {kept} of {ENTRIES} entries there",
        C::NAME
    );
}

fn made(megabytes: usize) -> Cache {
    Cache::new(Config::new().memory_bytes_max(megabytes << 20).item_bytes_max(4 << 20)).unwrap()
}

/// The key of this number in a phase.
fn phase_key(phase: u8, number: u64) -> [u8; 16] {
    let mut key = workload::key(number);
    key[0] = phase;
    key
}

/// Stores so many bytes of keys and values; gives how many items.
fn fill(cache: &Cache, phase: u8, value_bytes: usize, bytes: usize) -> u64 {
    let (value, items) = (vec![7; value_bytes], (bytes / (value_bytes + 16)).max(1) as u64);
    (0..items).for_each(|number| {
        cache.set(phase_key(phase, number), &value, Expiry::Never).unwrap();
    });
    items
}

/// Of the items with these keys, the keys and values that are there.
fn live_bytes<K: AsRef<[u8]>>(cache: &Cache, keys: impl Iterator<Item = K>) -> usize {
    let bytes = |key: K| cache.peek(&key, |item| item.key.len() + item.value.len()).unwrap();
    keys.filter_map(bytes).sum()
}

/// The lengths of values: all the same, or mixed.
#[derive(Clone, Copy)]
enum Lengths {
    All(usize),
    /// 20 B to 4 KiB, each octave as often as any other, by the item's number.
    Mixed,
}

impl Lengths {
    fn named(name: &str) -> Lengths {
        if name == "mixed" { Lengths::Mixed } else { Lengths::All(name.parse().expect("a length, or mixed")) }
    }

    fn of(self, number: u64) -> usize {
        match self {
            Lengths::All(bytes) => bytes,
            Lengths::Mixed => {
                let portion =
                    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
                (20.0 * (4096.0_f64 / 20.0).powf(portion)) as usize
            }
        }
    }
}

/// The key of this number, 16 bytes or any more.
fn long_key(number: u64, key_bytes: usize) -> Vec<u8> {
    let mut key = workload::key(number).to_vec();
    key.resize(key_bytes, b'k');
    key
}

/// What part of the limit is live keys and values, and how far the report is from the system's count.
fn share(megabytes: usize, key_bytes: usize, lengths: &str) {
    let (values, value) = (Lengths::named(lengths), vec![7; 512 << 10]);
    let before = resident_bytes();
    let (cache, limit) = (made(megabytes), megabytes << 20);
    let (mut numbers, mut written) = (0, 0);
    while written < 3 * limit {
        let bytes = values.of(numbers);
        cache.set(long_key(numbers, key_bytes), &value[..bytes], Expiry::Never).unwrap();
        (numbers, written) = (numbers + 1, written + key_bytes + bytes);
    }
    let stats = cache.stats();
    let resident = resident_bytes() - before;
    let live = live_bytes(&cache, (0..numbers).map(|number| long_key(number, key_bytes)));
    println!(
        "{megabytes:4} MiB, {key_bytes} B + {lengths:>6}: keys and values {:.3} of the limit; index {:.3}; \
         reported {:.3}, resident {:.3} of the limit; {:.1} B an entry besides key and value",
        live as f64 / limit as f64,
        stats.index_bytes as f64 / limit as f64,
        stats.memory_bytes as f64 / limit as f64,
        resident as f64 / limit as f64,
        (stats.memory_bytes as usize - live) as f64 / stats.items as f64,
    );
}

/// Small, large, small: one cache-full of each.
const PHASES: [usize; 5] = [100, 4 << 10, 200 << 10, 4 << 10, 100];

/// What part of the limit is the keys and values of each phase, when one cache-full of it was written.
fn phases(megabytes: usize) {
    let limit = megabytes << 20;
    let cache = made(megabytes);
    for (value_bytes, phase) in PHASES.into_iter().zip(1..) {
        let items = fill(&cache, phase, value_bytes, limit);
        let bytes = live_bytes(&cache, (0..items).map(|number| phase_key(phase, number)));
        println!(
            "{megabytes:4} MiB, one cache-full of values of {value_bytes:6}: {:.3} of the limit is theirs",
            bytes as f64 / limit as f64
        );
    }
}

/// The most that was resident over the same phases.
fn peak(megabytes: usize) {
    let before = resident_bytes();
    let cache = made(megabytes);
    for (value_bytes, phase) in PHASES.into_iter().zip(1..) {
        fill(&cache, phase, value_bytes, megabytes << 20);
    }
    let peak = (peak_resident_bytes() - before) as f64 / (megabytes << 20) as f64;
    println!("{megabytes:4} MiB, values of 100 B, 4 KiB, 200 KiB, 4 KiB, 100 B: peak {peak:.3} of the limit");
}

/// Key bytes and value bytes whose share of the memory is told.
const KINDS: [&str; 8] =
    ["16 20", "16 100", "32 100", "32 300", "16 mixed", "16 1024", "16 4096", "16 524288"];

/// One part, in a process of its own.
fn run(part: &str) {
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).args(part.split(' ')).status().unwrap();
    assert!(status.success(), "{part} failed");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            let parts = [
                "entry hotspare",
                "entry quick_cache",
                "entry scc",
                "entry foyer",
                "entry moka",
                "shares 64",
                "shares 512",
                "phases 64",
                "phases 256",
                "peak 64",
                "peak 256",
            ];
            parts.into_iter().for_each(run);
        }
        ["entry", "hotspare"] => per_entry::<Hotspare>(),
        ["entry", "quick_cache"] => per_entry::<QuickCache>(),
        ["entry", "scc"] => per_entry::<Scc>(),
        ["entry", "foyer"] => per_entry::<Foyer>(),
        ["entry", "moka"] => per_entry::<Moka>(),
        ["shares", megabytes] => KINDS.iter().for_each(|kind| run(&format!("share {megabytes} {kind}"))),
        ["share", megabytes, key_bytes, lengths] => {
            share(megabytes.parse().unwrap(), key_bytes.parse().unwrap(), lengths)
        }
        ["peak", megabytes] => peak(megabytes.parse().unwrap()),
        ["phases", megabytes] => phases(megabytes.parse().unwrap()),
        _ => panic!("call it without arguments, or with shares MEBIBYTES"),
    }
}
