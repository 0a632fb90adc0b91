//! The meta commands: `mg ms md ma mn me`. The rules cited are those of the memcached specification that this project
//! follows.
//!
//! | file | concept |
//! |---|---|
//! | `request` | requests, and their bytes |
//! | `parse` | bytes to requests |
//! | `plain_get` | the same for the most common read alone |
//! | `flags` | the letters behind the key, one set for all commands |
//! | `key`, `base64` | keys, as text or encoded |
//! | `response` | responses, both ways |
//!
//! ```
//! use hotspare_memcached::classic::Limits;
//! use hotspare_memcached::meta::{Parsed, Request, is_meta, parse_request};
//! let input = b"mg a v t Oxyz\r\nrest";
//! assert!(is_meta(input));
//! let Parsed::Complete { request: Request::Get(target), consumed } = parse_request(input, &Limits::default()) else {
//!     panic!("it is a whole mg");
//! };
//! assert!(target.flags.has(b'v') && !target.flags.has(b'q'));
//! assert_eq!(consumed, 15);
//! ```

mod base64;
mod flags;
mod key;
mod parse;
mod plain_get;
mod request;
mod response;

pub use flags::{Flag, Flags};
pub use key::{Key, KeyBuffer, encode_stored_key};
pub use parse::{Parsed, is_meta, parse_request};
pub use plain_get::plain_get;
pub use request::{Direction, Request, StoreMode, Target};
pub use response::{
    ErrorReply, ParsedResponse, Response, Status, encode_flag, encode_key_flag, encode_number_flag,
    encode_status, encode_stored_key_flag, encode_ttl_flag, encode_value_status, end_line, parse_response,
};

#[cfg(test)]
mod tests;
