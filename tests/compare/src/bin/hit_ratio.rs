//! Hit ratios on traces: reference policies and candidates side by side, at 1, 5, 10 and 25 % of the distinct bytes.
//!
//! `hit_ratio FILE...`, or without arguments every trace in the folder that HOTSPARE_TRACES names.

use std::path::{Path, PathBuf};

use hotspare_compare::policies::adaptive::{Queues, Shape};
use hotspare_compare::policies::recency::{Kind, Recency};
use hotspare_compare::policies::s3fifo::S3Fifo;
use hotspare_compare::policies::{Policy, belady};
use hotspare_compare::trace::Trace;

const PERCENTS: [u64; 4] = [1, 5, 10, 25];

type Make = Box<dyn Fn(u64, &[u32]) -> Box<dyn Policy>>;

fn columns() -> Vec<(String, Make)> {
    fn column<P: Policy + 'static>(name: &str, make: impl Fn(u64, &[u32]) -> P + 'static) -> (String, Make) {
        (name.to_owned(), Box::new(move |capacity, sizes| Box::new(make(capacity, sizes))))
    }
    let recency = |name, kind| column(name, move |capacity, sizes| Recency::new(kind, capacity, sizes));
    let queues = |name, shape| column(name, move |capacity, sizes| Queues::new(shape, capacity, sizes));
    let base = Shape {
        probation: 100,
        hits_to_promote: 1,
        hits_max: 1,
        ghost: 100,
        adapts: false,
        main_ghosts: false,
        least: 10,
        most: 900,
        decay: 0,
    };
    let mut all = vec![recency("lru", Kind::Lru), recency("clock", Kind::Clock), column("s3fifo", S3Fifo::new)];
    if let Ok(grid) = std::env::var("GRID") {
        for line in grid.split(';').filter(|line| !line.is_empty()) {
            let v: Vec<u64> = line.split(',').map(|word| word.parse().unwrap()).collect();
            let shape = Shape {
                probation: v[0],
                hits_to_promote: v[1] as u8,
                hits_max: v[2] as u8,
                ghost: v[3],
                adapts: v[4] == 1,
                main_ghosts: v[5] == 1,
                least: v[6],
                most: v[7],
                decay: v[8],
            };
            all.push(queues(line, shape));
        }
    } else {
        all.push(queues("mark", base));
    }
    all
}

fn traces() -> Vec<PathBuf> {
    let named: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    if !named.is_empty() {
        return named;
    }
    let folder = std::env::var("HOTSPARE_TRACES").expect("name trace files, or a folder in HOTSPARE_TRACES");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|path| path.to_string_lossy().ends_with(".txt.gz"))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().trim_end_matches(".txt.gz").to_owned()
}

fn main() {
    let columns = columns();
    print!("{:20} {:>5}", "trace", "size");
    columns.iter().for_each(|(name, _)| print!(" {name:>8}"));
    println!(" {:>8}", "optimum");
    let mut totals = vec![0.0; columns.len() + 1];
    let files = traces();
    for path in &files {
        let trace = Trace::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut sums = vec![0.0; columns.len() + 1];
        for percent in PERCENTS {
            let capacity = (trace.distinct_bytes() * percent / 100).max(1);
            let mut ratios = Vec::new();
            for (_, make) in &columns {
                let mut cache = make(capacity, &trace.sizes);
                let hits =
                    trace.requests.iter().filter(|key| cache.request(**key, trace.sizes[**key as usize])).count();
                ratios.push(100.0 * hits as f64 / trace.requests.len() as f64);
            }
            let best = belady::hits(&trace.requests, &trace.sizes, capacity);
            ratios.push(100.0 * best as f64 / trace.requests.len() as f64);
            if std::env::var("HOTSPARE_EACH_SIZE").is_ok() {
                print!("{:20} {percent:>4}%", name(path));
                ratios.iter().for_each(|ratio| print!(" {ratio:>8.2}"));
                println!();
            }
            sums.iter_mut().zip(&ratios).for_each(|(sum, ratio)| *sum += ratio / PERCENTS.len() as f64);
        }
        print!("{:20} {:>5}", name(path), "mean");
        sums.iter().for_each(|mean| print!(" {mean:>8.2}"));
        println!();
        totals.iter_mut().zip(&sums).for_each(|(total, mean)| *total += mean / files.len() as f64);
    }
    print!("{:20} {:>5}", "all", "mean");
    totals.iter().for_each(|mean| print!(" {mean:>8.2}"));
    println!();
}
