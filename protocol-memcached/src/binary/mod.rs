//! The binary protocol (rules B1 to B8), deprecated by memcached and still spoken by clients.
//!
//! | file | concept |
//! |---|---|
//! | `request` | requests, and their bytes |
//! | `parse` | bytes to requests |
//! | `response` | responses, both ways |
//!
//! ```text
//!   0     1      2    3    4      5    6    7    8       12     16        24
//!   +-----+------+---------+------+----+---------+-------+------+---------+--------+-----+-------+
//!   |magic|opcode|key bytes|extras|type|status   |body   |opaque|CAS      | extras | key | value |
//!   +-----+------+---------+------+----+---------+-------+------+---------+--------+-----+-------+
//!                                                          body = extras + key + value
//! ```

mod parse;
mod request;
mod response;

pub use parse::{Parsed, key_ahead, parse_request};
pub use request::{Command, Request, Side, StoreMode, may_come_before_login};
pub use response::{ParsedResponse, Response, Status, parse_response, response_head};

pub use crate::classic::Direction;

/// The first byte of each request (rule B1).
pub const REQUEST_MAGIC: u8 = 0x80;

/// The first byte of each response.
pub const RESPONSE_MAGIC: u8 = 0x81;

/// The header's length, in bytes.
pub const HEADER_BYTES: usize = 24;

/// Bounds on what is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes. Default 250 (rule L1).
    pub key_bytes_max: usize,
    /// The longest value that is taken whole; a longer one is to be skipped, in bytes. Default 1 MiB (rule L3).
    pub value_bytes_max: usize,
    /// The longest message of an authentication, in bytes. Default 16 KiB.
    pub login_bytes_max: usize,
    /// From this length on a value is the caller's to take as it comes, in bytes: only the head before it is parsed. Default
    /// `usize::MAX`, no value.
    pub large_bytes_min: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 250,
            value_bytes_max: 1 << 20,
            login_bytes_max: 16 << 10,
            large_bytes_min: usize::MAX,
        }
    }
}

/// What every packet begins with, but for its magic. The data type is of no use and reads as 0.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    opcode: u8,
    key_bytes: u16,
    extras_bytes: u8,
    /// A response's status; reserved in a request.
    status: u16,
    body_bytes: u32,
    opaque: u32,
    cas: u64,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Header {
        let [_, opcode, k0, k1, extras_bytes, _, s0, s1, b0, b1, b2, b3, o0, o1, o2, o3, cas @ ..] = *bytes;
        Header {
            opcode,
            key_bytes: u16::from_be_bytes([k0, k1]),
            extras_bytes,
            status: u16::from_be_bytes([s0, s1]),
            body_bytes: u32::from_be_bytes([b0, b1, b2, b3]),
            opaque: u32::from_be_bytes([o0, o1, o2, o3]),
            cas: u64::from_be_bytes(cas),
        }
    }

    fn write(&self, magic: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&[magic, self.opcode]);
        out.extend_from_slice(&self.key_bytes.to_be_bytes());
        out.extend_from_slice(&[self.extras_bytes, 0]);
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&self.body_bytes.to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.cas.to_be_bytes());
    }

    /// What the body holds behind extras and key; `None` if those are longer than the body.
    fn value_bytes(&self) -> Option<usize> {
        let head_bytes = u32::from(self.key_bytes) + u32::from(self.extras_bytes);
        self.body_bytes.checked_sub(head_bytes).map(|bytes| bytes as usize)
    }
}

#[cfg(test)]
mod tests;
