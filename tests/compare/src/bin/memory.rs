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

fn fill(cache: &Cache, phase: u8, value_bytes: usize, bytes: usize) {
    let value = vec![7; value_bytes];
    for number in 0..(bytes / (value_bytes + 16)).max(1) as u64 {
        let mut key = workload::key(number);
        key[0] = phase;
        cache.set(key, &value, Expiry::Never).unwrap();
    }
}

/// What part of the limit is live keys and values, and how far the report is from the system's count.
fn share(megabytes: usize, value_bytes: usize) {
    let before = resident_bytes();
    let cache = made(megabytes);
    fill(&cache, 1, value_bytes, 3 * (megabytes << 20));
    let stats = cache.stats();
    let limit = megabytes << 20;
    let live = stats.items as usize * (value_bytes + 16);
    let resident = resident_bytes() - before;
    println!(
        "{megabytes:4} MiB, values of {value_bytes:6}: keys and values {:.3} of the limit; index {:.3}; \
         reported {:.3}, resident {:.3} of the limit",
        live as f64 / limit as f64,
        stats.index_bytes as f64 / limit as f64,
        stats.memory_bytes as f64 / limit as f64,
        resident as f64 / limit as f64,
    );
}

/// Small, large, small: one cache-full of each.
const PHASES: [usize; 5] = [100, 4 << 10, 200 << 10, 4 << 10, 100];

/// What part of the limit is the keys and values of each phase, when one cache-full of it was written.
fn phases(megabytes: usize) {
    let limit = megabytes << 20;
    let cache = made(megabytes);
    for (value_bytes, phase) in PHASES.into_iter().zip(1..) {
        fill(&cache, phase, value_bytes, limit);
        let theirs = cache.inspect().items.into_iter().filter(|item| item.0[0] == phase);
        let bytes: usize = theirs.map(|item| item.0.len() + item.1.len()).sum();
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
                "share 64 100",
                "share 64 20",
                "share 64 4096",
                "share 64 524288",
                "share 512 100",
                "share 512 20",
                "share 512 4096",
                "share 512 524288",
                "phases 64",
                "phases 256",
                "peak 64",
                "peak 256",
            ];
            for part in parts {
                let program = std::env::current_exe().unwrap();
                let status = Command::new(program).args(part.split(' ')).status().unwrap();
                assert!(status.success(), "{part} failed");
            }
        }
        ["entry", "hotspare"] => per_entry::<Hotspare>(),
        ["entry", "quick_cache"] => per_entry::<QuickCache>(),
        ["entry", "scc"] => per_entry::<Scc>(),
        ["entry", "foyer"] => per_entry::<Foyer>(),
        ["entry", "moka"] => per_entry::<Moka>(),
        ["share", megabytes, value_bytes] => share(megabytes.parse().unwrap(), value_bytes.parse().unwrap()),
        ["peak", megabytes] => peak(megabytes.parse().unwrap()),
        ["phases", megabytes] => phases(megabytes.parse().unwrap()),
        _ => panic!("call it without arguments"),
    }
}
