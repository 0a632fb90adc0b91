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
pub mod meta;
