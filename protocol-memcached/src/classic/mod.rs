//! The classic text protocol. The rules cited are those of the memcached specification that this project follows.
//!
//! | file | concept |
//! |---|---|
//! | `request` | requests, and their bytes |
//! | `parse` | bytes to requests |
//! | `plain_set` | the same for the most common store alone |
//! | `response` | responses, both ways |
//! | `operator` | the commands of operators, by name only |
//! | `number`, `token` | words and numbers of a line |

pub(crate) mod number;
mod operator;
mod parse;
mod plain_set;
mod request;
mod response;
mod token;

pub use operator::OperatorCommand;
pub(crate) use parse::STATED_BYTES_MAX;
pub use parse::{Parsed, parse_request, plain_get};
pub use plain_set::plain_set;
pub use request::{Direction, Lifetime, Request, ShutdownMode, Store, StoreCommand, lifetime};
pub use response::{ErrorReply, ParsedResponse, Response, encode_value_header, parse_response};
pub use token::{Keys, Tokens};

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes. Default 250 (rule L1).
    pub key_bytes_max: usize,
    /// The longest value that is taken whole; a longer one is to be skipped, in bytes. Default 1 MiB (rule L3).
    pub value_bytes_max: usize,
    /// The longest line, in bytes, other than a get's or gat's. Default 2048 (rule F6).
    pub line_bytes_max: usize,
    /// The longest line of a get or gat, in bytes. Default 1 MiB; memcached has no bound (rule F6).
    pub get_line_bytes_max: usize,
    /// From this length on a value is the caller's to take as it comes, in bytes: only the head before it is parsed. Default
    /// `usize::MAX`, no value.
    pub large_bytes_min: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 250,
            value_bytes_max: 1 << 20,
            line_bytes_max: 2048,
            get_line_bytes_max: 1 << 20,
            large_bytes_min: usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
