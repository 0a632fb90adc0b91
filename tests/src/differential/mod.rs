//! The same random requests to memcached and to this server, and what they answer, side by side.
//!
//! | file | concept |
//! |---|---|
//! | `request` | requests with names in place of what differs from server to server, and their bytes |
//! | `text`, `operator`, `binary` | making them, of each dialect, sound and nearly sound |
//! | `peer` | a connection to one server |
//! | `mask` | taking out of answers what may differ: CAS values, times |
//! | `known` | what differs on purpose, by the rule of the specification that says so |
//! | `run` | conversations with both servers, and the shortest one that shows a difference |
//!
//! A *conversation* is one connection to each server and a few keys that no other conversation uses, so each can be
//! had again by itself, whatever came before.

//!
//! Shown to find what it should: broken on purpose in `server-bin` (`prepend` appends; `md I` empties; the binary add on a
//! present key says "not stored"), seed 1 told each of them after 132, 504 and 72 commands.

mod binary;
mod known;
mod mask;
mod operator;
mod peer;
mod request;
mod run;
mod text;

pub use request::{Age, Conversation, Part, Request, Step};
pub use run::{Bounds, Difference, Pair, Summary, run};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Which commands are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The text commands but for the meta ones.
    Classic,
    /// `mg ms md ma mn me`, with some classic ones between them.
    Meta,
    /// Binary packets.
    Binary,
}

impl Dialect {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Dialect); 3] =
        [("classic", Dialect::Classic), ("meta", Dialect::Meta), ("binary", Dialect::Binary)];

    /// Its name.
    pub fn name(self) -> &'static str {
        Dialect::ALL.iter().find(|(_, dialect)| *dialect == self).map_or("", |(name, _)| name)
    }
}

/// The conversation of a seed and a number: always the same one.
pub fn conversation(dialect: Dialect, seed: u64, number: u64) -> Conversation {
    let mut rng =
        StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let steps = rng.random_range(4..24);
    (0..steps).map(|_| step(dialect, &mut rng)).collect()
}

fn step(dialect: Dialect, rng: &mut StdRng) -> Step {
    let request = |rng: &mut StdRng| match dialect {
        Dialect::Binary => binary::request(rng),
        Dialect::Meta if rng.random_bool(0.85) => text::meta(rng),
        _ => text::classic(rng),
    };
    let mut requests = vec![request(rng)];
    while rng.random_bool(0.4) && requests.iter().all(Request::is_small) {
        requests.push(request(rng));
    }
    // One large value at most, at the end: answers to the others fit the socket's buffers.
    let mut cuts = Vec::new();
    if rng.random_bool(0.04) {
        cuts = (0..rng.random_range(1..4)).map(|_| rng.random_range(0..1000)).collect();
        cuts.sort_unstable();
    }
    Step { is_separated: rng.random_bool(0.8), requests, cuts }
}

#[cfg(test)]
mod tests;
