//! The most common store, `set KEY FLAGS EXPTIME BYTES`, taken apart in one pass.
//!
//! Lives here: that one, if it is there with its whole value and nothing is wrong with it. Not here: everything else, which
//! [`parse_request`](super::parse_request) does; a property compares the two.

use super::parse::STATED_BYTES_MAX;
use super::{Limits, Store, StoreCommand};
use crate::scan::graphic_bytes;

/// Numbers of more digits are left to the other parser, so that none overflows here: a moment in seconds has ten.
const DIGITS_MAX: usize = 10;

/// The `set` that the buffer begins with, and the bytes that it takes, if it is there with its whole value, one space between its words
/// and digits only in its numbers. What is not as plain as that is left to [`parse_request`](super::parse_request).
///
/// ```
/// use hotspare_memcached::classic::{Limits, plain_set};
/// let (store, bytes) = plain_set(b"set a 5 0 3 noreply\r\nabc\r\nget a\r\n", &Limits::default()).unwrap();
/// assert_eq!((store.key, store.flags, store.data, store.noreply, bytes), (&b"a"[..], 5, &b"abc"[..], true, 26));
/// assert_eq!(plain_set(b"set a 5 0 3\r\nab", &Limits::default()), None);
/// ```
#[inline]
pub fn plain_set<'a>(buffer: &'a [u8], limits: &Limits) -> Option<(Store<'a>, usize)> {
    let line = buffer.strip_prefix(b"set ")?;
    let (key, rest) = line.split_at(graphic_bytes(line));
    let (flags, exptime, rest) = match rest.strip_prefix(b" 0 0 ") {
        Some(rest) => (0, 0, rest),
        None => flags_and_exptime(rest)?,
    };
    let (bytes, rest) = number(rest)?;
    let (noreply, rest) = match rest.strip_prefix(b"\r\n") {
        Some(rest) => (false, rest),
        None => (true, rest.strip_prefix(b" noreply\r\n")?),
    };
    let line_bytes = buffer.len() - rest.len();
    let is_plain = !key.is_empty()
        && key.len() <= limits.key_bytes_max
        && line_bytes <= limits.line_bytes_max
        && bytes <= STATED_BYTES_MAX.min(limits.value_bytes_max as u64)
        && bytes < limits.large_bytes_min as u64;
    if !is_plain {
        return None;
    }
    let (data, behind) = rest.split_at_checked(bytes as usize)?;
    let store = Store { command: StoreCommand::Set, key, flags, exptime, data, noreply };
    behind.starts_with(b"\r\n").then_some((store, line_bytes + data.len() + 2))
}

/// ` FLAGS EXPTIME `, and what follows.
fn flags_and_exptime(text: &[u8]) -> Option<(u32, i64, &[u8])> {
    let (flags, rest) = number(text.strip_prefix(b" ")?)?;
    let (exptime, rest) = number(rest.strip_prefix(b" ")?)?;
    Some((u32::try_from(flags).ok()?, i64::try_from(exptime).ok()?, rest.strip_prefix(b" ")?))
}

/// The digits that the text begins with, if there are some and not too many, and what follows them.
#[inline]
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut digits) = (0, 0);
    for byte in text.iter().take(DIGITS_MAX + 1) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number * 10 + u64::from(digit);
        digits += 1;
    }
    (1..=DIGITS_MAX).contains(&digits).then(|| (number, &text[digits..]))
}
