//! The flags of `hotspare bench`, and what they come to.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::byte_count;
use crate::bench::load::{Load, Population};
use crate::bench::requests::Dialect;

/// How long keys live beyond the time that is measured, in seconds: filling comes before that, and takes minutes with millions
/// of keys.
const EXPIRY_MARGIN_S: u32 = 600;

/// How a server is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchOptions {
    /// The server: HOST:PORT, or the path of a unix socket
    #[arg(value_name = "SERVER", default_value = "127.0.0.1:11211")]
    server: String,
    /// Connections, each with one batch on the way
    #[arg(short = 'c', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Requests of one batch
    #[arg(short = 'd', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// Keys that there are, of 32 bytes each; some are wanted much more often than others (zipf 0.99)
    #[arg(short = 'k', long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    keys: u32,
    /// Keys of one get; more than one only with the classic protocol
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    keys_a_get: u32,
    /// Bytes of each value, also with k, m or g
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "100", value_parser = value_bytes)]
    value_bytes: usize,
    /// How many of a hundred requests are sets
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    sets: u32,
    /// How requests are spelled
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value_t)]
    protocol: BenchProtocol,
    /// For how long
    #[arg(short = 't', long, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Requests a second, whatever the answers do; default: as many as go
    #[arg(short = 'r', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Take a new connection for each batch, one after the other
    #[arg(long, conflicts_with_all = ["rate", "connections"])]
    reconnect: bool,
    /// Leave out the sets of all keys at the beginning
    #[arg(long)]
    no_fill: bool,
    /// Give up after so many seconds of silence
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    patience: f64,
    /// Store the keys for good; else each expires ten minutes after the planned end
    #[arg(long)]
    keep: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum BenchProtocol {
    /// get and set
    #[default]
    Classic,
    /// mg and ms
    Meta,
    Binary,
}

/// What is measured.
#[derive(Debug)]
pub(crate) struct BenchPlan {
    pub(crate) server: String,
    pub(crate) load: Load,
    pub(crate) time: Duration,
    pub(crate) patience: Duration,
    pub(crate) fills: bool,
    pub(crate) json: bool,
}

fn value_bytes(text: &str) -> Result<usize, String> {
    match byte_count(text)? {
        bytes @ 0..=0x4000_0000 => Ok(bytes),
        _ => Err("give at most 1g".to_owned()),
    }
}

/// From a thousandth to a day.
fn seconds(text: &str) -> Result<f64, String> {
    let given = text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    given.ok_or_else(|| "give seconds, 0.001 to 86400".to_owned())
}

impl BenchOptions {
    pub(super) fn plan(self) -> Result<BenchPlan, String> {
        let dialect = match self.protocol {
            BenchProtocol::Classic => Dialect::Classic,
            BenchProtocol::Meta => Dialect::Meta,
            BenchProtocol::Binary => Dialect::Binary,
        };
        if self.keys_a_get > 1 && dialect != Dialect::Classic {
            return Err("--keys-a-get: a meta or binary get has one key; use --pipeline".to_owned());
        }
        let load = Load {
            dialect,
            connections: self.connections as usize,
            pipeline: self.pipeline as usize,
            keys: self.keys_a_get as usize,
            sets: self.sets as usize,
            quiet: false,
            population: Population {
                prefix: 'b',
                keys: self.keys as usize,
                value_bytes: self.value_bytes,
                lifetime_s: if self.keep { 0 } else { self.seconds.ceil() as u32 + EXPIRY_MARGIN_S },
            },
            connects: self.reconnect,
            rate: self.rate.unwrap_or(0) as usize,
        };
        Ok(BenchPlan {
            server: self.server,
            load,
            time: Duration::from_secs_f64(self.seconds),
            patience: Duration::from_secs_f64(self.patience),
            fills: !self.no_fill,
            json: self.json,
        })
    }
}
