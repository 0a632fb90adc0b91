//! A glance at requests that wait in a buffer: which keys they are about, for whoever fetches memory ahead.
//!
//! A guess that costs little: nothing is checked, and what it says of malformed requests may be wrong. So nothing but
//! speed may depend on it.

use crate::binary::{HEADER_BYTES, REQUEST_MAGIC};
use crate::classic::{key_of_plain_get, number};
use crate::scan::graphic_bytes;

/// At most so many requests are looked at: as many as a processor can have misses under way for.
pub const AHEAD_MAX: usize = 16;

/// What the first requests of a buffer are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead<'a> {
    keys: [&'a [u8]; AHEAD_MAX],
    len: usize,
    /// How many bytes those requests take.
    pub bytes: usize,
}

impl<'a> Ahead<'a> {
    /// A key of each request, the first of a get with many.
    pub fn keys(&self) -> &[&'a [u8]] {
        &self.keys[..self.len]
    }

    fn push(&mut self, key: &'a [u8], bytes: usize) {
        self.keys[self.len] = key;
        self.len += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Looks at the requests that a buffer begins with, until one is not whole or has no key.
///
/// ```
/// let ahead = hotspare_memcached::keys_ahead(b"get a\r\nset b 0 0 3\r\nget\r\nmg c v\r\nget");
/// assert_eq!(ahead.keys(), [b"a", b"b", b"c"]);
/// assert_eq!(ahead.bytes, 33);
/// ```
pub fn keys_ahead(buffer: &[u8]) -> Ahead<'_> {
    let mut ahead = Ahead::default();
    while ahead.len < AHEAD_MAX
        && let Some(rest) = buffer.get(ahead.bytes..)
        && let Some((key, bytes)) = glance(rest)
    {
        ahead.push(key, bytes);
    }
    ahead
}

/// The key of the request at the beginning, and the bytes of it.
fn glance(buffer: &[u8]) -> Option<(&[u8], usize)> {
    if *buffer.first()? == REQUEST_MAGIC {
        let header = buffer.first_chunk::<HEADER_BYTES>()?;
        let key_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let key_at = HEADER_BYTES + usize::from(header[4]);
        return Some((buffer.get(key_at..key_at + key_bytes)?, HEADER_BYTES + body_bytes));
    }
    if let Some(key) = key_of_plain_get(buffer) {
        return Some((key, b"get ".len() + key.len() + b"\r\n".len()));
    }
    let mut rest = buffer;
    // How many words after the key the value's length comes, for requests that have a value.
    let length_at = match next_word(&mut rest)? {
        b"get" | b"gets" | b"mg" | b"md" | b"ma" | b"delete" | b"incr" | b"decr" | b"touch" => None,
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => Some(2),
        b"ms" => Some(0),
        _ => return None,
    };
    let key = next_word(&mut rest)?;
    let value_bytes = match length_at {
        None => 0,
        Some(words_between) => {
            for _ in 0..words_between {
                next_word(&mut rest)?;
            }
            usize::try_from(number::unsigned(next_word(&mut rest)?)?).ok()?.saturating_add(2)
        }
    };
    let line_bytes = buffer.len() - rest.len() + memchr::memchr(b'\n', rest)? + 1;
    Some((key, line_bytes.saturating_add(value_bytes)))
}

/// Takes the next word off its line.
#[inline]
fn next_word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    while let [b' ', behind @ ..] = rest {
        *rest = behind;
    }
    let (word, behind) = rest.split_at(graphic_bytes(rest));
    *rest = behind;
    (!word.is_empty()).then_some(word)
}
