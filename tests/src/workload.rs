//! Requests to replay: real traces where they are at hand, else a seeded stream that behaves like one.
//!
//! Lives here: the trace reader, the synthetic stream, and the value that belongs to a key.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The folder of traces, when there is one.
pub const TRACES_VARIABLE: &str = "HOTSPARE_TRACES";
/// How many requests of a trace are replayed, when not the default.
pub const REQUESTS_VARIABLE: &str = "HOTSPARE_TRACE_REQUESTS";

/// A named list of keys in the order they are asked for.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The trace's file, or `synthetic`.
    pub name: String,
    /// The keys.
    pub keys: Vec<String>,
}

impl Workload {
    /// How many different keys it asks for.
    pub fn distinct(&self) -> usize {
        self.keys.iter().collect::<std::collections::HashSet<_>>().len()
    }
}

/// The traces `names` from the folder the environment names, their first `requests` (which the environment may
/// override); without a folder one synthetic stream of `fallback` requests.
pub fn workloads(names: &[&str], requests: usize, fallback: usize) -> Vec<Workload> {
    let Some(folder) = std::env::var_os(TRACES_VARIABLE).map(PathBuf::from) else {
        return vec![Workload { name: "synthetic".to_owned(), keys: drifting(fallback, 20_261) }];
    };
    let wanted =
        std::env::var(REQUESTS_VARIABLE).ok().map(|text| text.parse().expect("a number of requests"));
    let load = |name: &&str| {
        let path = folder.join(name);
        let keys = read_trace(&path, wanted.unwrap_or(requests));
        Workload { name: (*name).to_owned(), keys: keys.unwrap_or_else(|error| panic!("{path:?}: {error}")) }
    };
    names.iter().map(load).collect()
}

/// The keys of the first `requests` lines `KEY [VALUE_SIZE]` of a trace, plain or `.gz`.
pub fn read_trace(path: &Path, requests: usize) -> io::Result<Vec<String>> {
    let file = File::open(path)?;
    let plain: Box<dyn io::Read> = match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(GzDecoder::new(file)),
        false => Box::new(file),
    };
    let key =
        |line: io::Result<String>| line.map(|line| line.split(' ').next().unwrap_or_default().to_owned());
    BufReader::new(plain).lines().take(requests).map(key).collect()
}

/// How many keys are popular at one time.
const POPULAR_KEYS: usize = 12_000;
/// After how many requests the popularities move on by one key.
const DRIFT_REQUESTS: usize = 40;
/// One request in so many begins a scan of [`SCAN_KEYS`] keys never asked for again.
const SCAN_ODDS: u32 = 2_000;
/// The length of a scan.
const SCAN_KEYS: usize = 200;

/// A stream of `requests` keys: Zipf popularities (exponent 0.9) that drift, and scans in between.
pub fn drifting(requests: usize, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let cumulated = zipf_cumulated(POPULAR_KEYS, 0.9);
    let total = *cumulated.last().expect("at least one key");
    let mut keys = Vec::with_capacity(requests);
    let mut scanned = 0;
    while keys.len() < requests {
        if random.random_ratio(1, SCAN_ODDS) {
            keys.extend((scanned..scanned + SCAN_KEYS).map(|key| format!("scan-{key}")));
            scanned += SCAN_KEYS;
        }
        let point = random.random::<f64>() * total;
        let rank = cumulated.partition_point(|sum| *sum <= point).min(POPULAR_KEYS - 1);
        // The rank's key: spread over the ring, so that drift retires popular keys as often as others.
        let place = (rank * 7_919) % POPULAR_KEYS;
        let round = (place + keys.len() / DRIFT_REQUESTS) / POPULAR_KEYS;
        keys.push(format!("key-{place}-{round}"));
    }
    keys.truncate(requests);
    keys
}

/// The running sums of `1 / rank^exponent`.
fn zipf_cumulated(keys: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let weigh = |rank: usize| {
        sum += (rank as f64).powf(-exponent);
        sum
    };
    (1..=keys).map(weigh).collect()
}

/// The value that belongs to `key`: about `bytes` long, different for each key, and checked by [`value_of`] again.
pub fn value_of(key: &str, bytes: usize) -> Vec<u8> {
    let seed = fingerprint(key);
    // Half to one and a half times the mean, so that neighbours differ in size class.
    let length = bytes / 2 + (seed as usize % bytes.max(1));
    let mut random = StdRng::seed_from_u64(seed);
    let mut value = format!("{key}:").into_bytes();
    while value.len() < length {
        value.extend_from_slice(&random.random::<u64>().to_le_bytes());
    }
    value.truncate(length.max(key.len() + 1));
    value
}

/// The client flags that belong to `key`.
pub fn flags_of(key: &str) -> u32 {
    (fingerprint(key) >> 32) as u32
}

/// FNV-1a: the same on every run and machine.
fn fingerprint(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_packed_trace_is_read_up_to_the_limit_without_its_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt.gz");
        let mut packer =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        packer.write_all(b"a 10\nb\nc 3\n").unwrap();
        packer.finish().unwrap();
        assert_eq!(read_trace(&path, 2).unwrap(), ["a", "b"]);
    }

    #[test]
    fn the_synthetic_stream_repeats_for_a_seed_and_has_hot_keys_and_scans() {
        let keys = drifting(20_000, 1);
        assert_eq!(keys, drifting(20_000, 1));
        assert_ne!(keys, drifting(20_000, 2));
        assert!(keys.iter().any(|key| key.starts_with("scan-")));
        let distinct = Workload { name: String::new(), keys }.distinct();
        assert!((4_000..16_000).contains(&distinct), "{distinct}");
    }

    #[test]
    fn values_belong_to_their_keys() {
        assert_eq!(value_of("a", 100), value_of("a", 100));
        assert_ne!(value_of("a", 100), value_of("b", 100));
        assert!(value_of("a", 100).starts_with(b"a:"));
    }
}
