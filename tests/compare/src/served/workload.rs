//! A workload by its name, and a slice of it on one server.

use std::io;
use std::time::Duration;

use hotspare_server::bench::load::{self, Generator, Load, Population};
use hotspare_server::bench::requests::Dialect;

use super::process::{Family, Server};

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys of every server, 32 bytes each, with values of 100 bytes.
pub const SMALL: Population = Population { prefix: 'k', keys: 1_000_000, value_bytes: 100, lifetime_s: 0 };
/// Keys with values of 16 KiB.
pub const LARGE: Population = Population { prefix: 'l', keys: 10_000, value_bytes: 16 << 10, lifetime_s: 0 };
/// Keys with values of 512 KiB.
pub const HUGE: Population = Population { prefix: 'h', keys: 200, value_bytes: 512 << 10, lifetime_s: 0 };

/// What is asked, and of whom.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    /// Whether redis is measured too; the dialect is its own then.
    pub redis: bool,
    pub unix: bool,
    pub load: Load,
}

/// Gets, one at a time.
const LOAD: Load = Load {
    dialect: Dialect::Classic,
    connections: 50,
    pipeline: 1,
    keys: 1,
    sets: 0,
    quiet: false,
    population: SMALL,
    connects: false,
    rate: 0,
};

/// W1's mix.
const MIXED: Load = Load { sets: 10, ..LOAD };

/// 16 gets at once.
const PIPELINED: Load = Load { pipeline: 16, ..LOAD };

const fn workload(name: &'static str, what: &'static str, load: Load) -> Workload {
    Workload { name, what, redis: false, unix: false, load }
}

/// The rows of the comparison.
pub const WORKLOADS: [Workload; 14] = [
    workload("W1", "one at a time, 90/10", MIXED),
    workload("W1r", "W1 at 20 000 a second", Load { rate: 20_000, ..MIXED }),
    Workload { unix: true, ..workload("W1u", "W1 over a unix socket", MIXED) },
    Workload { redis: true, ..workload("W2", "gets, 16 pipelined", PIPELINED) },
    Workload { redis: true, ..workload("W3", "multi-get of 50", Load { keys: 50, ..LOAD }) },
    workload("W4", "sets, one at a time", Load { sets: 100, ..LOAD }),
    Workload {
        redis: true,
        ..workload("W4n", "sets, noreply, 16 pipelined", Load { sets: 100, quiet: true, ..PIPELINED })
    },
    workload("W5", "W1 on 1000 connections", Load { connections: 1000, ..MIXED }),
    workload("W6", "gets of 16 KiB", Load { population: LARGE, ..LOAD }),
    workload("W7", "gets of 512 KiB", Load { population: HUGE, ..LOAD }),
    Workload {
        redis: true,
        ..workload("W8", "mg with v and O, 16 pipelined", Load { dialect: Dialect::Meta, ..PIPELINED })
    },
    Workload {
        redis: true,
        ..workload("W9", "binary get, 16 pipelined", Load { dialect: Dialect::Binary, ..PIPELINED })
    },
    workload("W10", "connect, set, disconnect", Load { sets: 100, connects: true, ..LOAD }),
    Workload { redis: true, ..workload("W11", "sets, 16 pipelined", Load { sets: 100, ..PIPELINED }) },
];

impl Workload {
    /// Whether a server is measured with it: pipelines are compared with redis, since Debian's memcached sends each
    /// reply by itself.
    pub fn is_for(&self, family: Family, name: &str) -> bool {
        match family {
            Family::Redis => self.redis,
            Family::Memcached => !self.redis || name != "memcached",
        }
    }
}

/// What a slice of a workload came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slice {
    pub requests: u64,
    /// Microseconds of the server's CPU a request.
    pub cpu_us: f64,
    /// Requests a second.
    pub per_second: f64,
    /// Of a batch, in microseconds.
    pub p99_us: f64,
    /// As `p99_us`.
    pub p999_us: f64,
    /// The generator's own CPU time, as a part of the time.
    pub busy: f64,
}

/// Stores every key that workloads ask for.
///
/// # Errors
/// The connection broke, or the server refused.
pub fn fill(server: &Server) -> io::Result<()> {
    [SMALL, LARGE, HUGE].into_iter().try_for_each(|population| fill_with(server, population))
}

/// Stores the keys of one population.
///
/// # Errors
/// As [`fill`].
pub fn fill_with(server: &Server, population: Population) -> io::Result<()> {
    let dialect = if server.family == Family::Redis { Dialect::Redis } else { Dialect::Classic };
    load::fill(&server.address, dialect, population, PATIENCE, &mut |_| ()).map_err(|why| named(server, why))
}

/// Asks so many batches of a load, one after the other on one connection.
///
/// # Errors
/// As [`run`].
pub fn ask(server: &Server, load: Load, batches: u64) -> io::Result<()> {
    Generator::new(server.address.clone(), load, true, PATIENCE)
        .ask(batches)
        .map_err(|why| named(server, why))
}

/// One slice of a workload on one server.
///
/// # Errors
/// A connection broke, or an answer is not what it must be.
pub fn run(server: &Server, workload: Workload, time: Duration) -> io::Result<Slice> {
    let dialect = if server.family == Family::Redis { Dialect::Redis } else { workload.load.dialect };
    let load = Load { dialect, ..workload.load };
    let mut generator = Generator::new(server.address.clone(), load, true, PATIENCE);
    generator.check().map_err(|why| named(server, why))?;
    let cpu = server.cpu()?;
    let outcome = generator.run(time, &mut |_, _| ()).map_err(|why| named(server, why))?;
    Ok(Slice {
        requests: outcome.requests,
        cpu_us: (server.cpu()? - cpu).as_secs_f64() * 1e6 / outcome.requests as f64,
        per_second: outcome.per_second(),
        p99_us: outcome.percentile_us(99.0),
        p999_us: outcome.percentile_us(99.9),
        busy: outcome.busy,
    })
}

fn named(server: &Server, why: io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{}: {why}", server.name))
}
