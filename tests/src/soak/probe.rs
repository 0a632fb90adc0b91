//! One polite client that asks at a steady rate while others misbehave, and how long it waited.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::values;

/// Requests a second: few enough that they wait for the server and not for each other.
const REQUESTS_A_SECOND: u32 = 500;
/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(20);
/// The bytes of what it asks for.
const VALUE_BYTES: usize = 100;
/// The key that only it has.
const KEY: &str = "probe";

/// What the polite client's requests took, and how many found nothing.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    sorted_us: Vec<u32>,
    /// Gets of a key that is asked for all the time, and had been evicted all the same.
    pub misses: u64,
}

impl Latencies {
    /// The latency in microseconds that so many of a hundred requests had at most; 0 if there was none.
    pub fn percentile(&self, percent: f64) -> u32 {
        let rank = (self.sorted_us.len() as f64 * percent / 100.0).ceil() as usize;
        self.sorted_us.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.sorted_us.len()
    }

    /// Those of both.
    pub fn join(mut self, other: Latencies) -> Latencies {
        self.sorted_us.extend(other.sorted_us);
        self.sorted_us.sort_unstable();
        self.misses += other.misses;
        self
    }
}

/// Asks until `ends` is set.
///
/// # Errors
/// The server closed the connection, gave no answer for 20 s, or a wrong one.
pub fn run(server: SocketAddr, ends: &AtomicBool) -> Result<Latencies, String> {
    ask(server, ends).map_err(|why| format!("the polite client: {why}"))
}

fn ask(server: SocketAddr, ends: &AtomicBool) -> std::io::Result<Latencies> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut requests = stream;
    let value = values::of(KEY, VALUE_BYTES);
    let stored = [format!("set {KEY} 0 0 {VALUE_BYTES}\r\n").as_bytes(), &value, b"\r\n"].concat();
    let set = |requests: &mut TcpStream, answers: &mut BufReader<TcpStream>| {
        requests.write_all(&stored)?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        if line == "STORED\r\n" { Ok(()) } else { Err(std::io::Error::other(format!("{line:?} to a set"))) }
    };
    let expected = [format!("VALUE {KEY} 0 {VALUE_BYTES}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
    set(&mut requests, &mut answers)?;
    let (mut latencies, mut misses) = (Vec::new(), 0);
    let pace = Duration::from_secs(1) / REQUESTS_A_SECOND;
    let began = Instant::now();
    let mut line = String::new();
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let due = began + pace * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        requests.write_all(format!("get {KEY}\r\n").as_bytes())?;
        line.clear();
        answers.read_line(&mut line)?;
        latencies.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
        if line == "END\r\n" {
            misses += 1;
            set(&mut requests, &mut answers)?;
            continue;
        }
        let mut rest = vec![0; expected.len() - line.len()];
        answers.read_exact(&mut rest)?;
        if [line.as_bytes(), &rest].concat() != expected {
            return Err(std::io::Error::other(format!("{line:?}{:?}", String::from_utf8_lossy(&rest))));
        }
    }
    latencies.sort_unstable();
    Ok(Latencies { sorted_us: latencies, misses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted() {
        let of = |range: std::ops::RangeInclusive<u32>| Latencies { sorted_us: range.collect(), misses: 1 };
        let latencies = of(51..=100).join(of(1..=50));
        assert_eq!(latencies.misses, 2);
        assert_eq!(
            (latencies.count(), latencies.percentile(50.0), latencies.percentile(99.0)),
            (100, 50, 99)
        );
        assert_eq!((latencies.percentile(0.1), latencies.percentile(100.0)), (1, 100));
        assert_eq!(Latencies::default().percentile(99.0), 0);
    }
}
