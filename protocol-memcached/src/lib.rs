//! The memcached protocol from both sides: requests and responses, parsed and encoded, never executed.
//!
//! A server parses requests and encodes responses; a client does the reverse; both use this source. Parsing borrows
//! from the buffer and allocates nothing: the classic text protocol, the meta commands, and the binary protocol.
//!
//! Lives here: bytes to values and back. Not here: sockets, the cache, what a command does.
//!
//! ```
//! use hotspare_memcached::classic::{Limits, Parsed, Request, parse_request};
//! let Parsed::Complete { request, consumed } = parse_request(b"get a b\r\nrest", &Limits::default()) else {
//!     panic!("the line is whole");
//! };
//! let Request::Get { keys, .. } = request else { panic!("it is a get") };
//! assert_eq!(keys.iter().collect::<Vec<_>>(), [b"a", b"b"]);
//! assert_eq!(consumed, 9);
//! ```

pub mod binary;
pub mod classic;
mod first_key;
mod line;
pub mod meta;
mod scan;

pub use first_key::first_key;

/// What a client's buffer begins with, whichever protocol it speaks: `R` is that protocol's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedResponse<R> {
    /// An answer, in the first `consumed` bytes.
    Complete {
        /// The answer.
        response: R,
        /// Bytes to take off the buffer.
        consumed: usize,
    },
    /// Less than an answer: try again with at least so many bytes from the same start.
    Incomplete {
        /// Bytes needed in all, more than there are.
        bytes_needed: usize,
    },
    /// No answer of this protocol: the connection is of no use any more.
    Invalid,
}
