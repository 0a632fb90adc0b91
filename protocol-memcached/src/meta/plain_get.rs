//! The most common read, `mg KEY` with flags that only say what to tell, taken apart in one pass.
//!
//! Lives here: that one, if nothing is wrong with it. Not here: everything else, which
//! [`parse_request`](super::parse_request) does; a property compares the two.

use super::flags::{Flags, OPAQUE_BYTES_MAX, bit};
use super::key::Key;
use super::request::Target;
use crate::classic::{Limits, Tokens};
use crate::scan::graphic_bytes;

/// The letters that change nothing, and tell what does not depend on the time or on who read the item before.
const LETTERS: u64 = bit(b'v') | bit(b'k') | bit(b'f') | bit(b's') | bit(b'c') | bit(b'q') | bit(b'O');

/// The `mg` that the buffer begins with, and the bytes that it takes, if it is whole, has one space between its words and no other flags
/// than `v k f s c q O`. What is not as plain as that is left to [`parse_request`](super::parse_request).
///
/// ```
/// use hotspare_memcached::{classic::Limits, meta::plain_get};
/// let (target, bytes) = plain_get(b"mg a v Oxyz\r\nmg b\r\n", &Limits::default()).unwrap();
/// assert_eq!((target.key.text(), target.flags.has(b'v'), bytes), (&b"a"[..], true, 13));
/// assert_eq!(plain_get(b"mg a v T30\r\n", &Limits::default()), None);
/// ```
#[inline]
pub fn plain_get<'a>(buffer: &'a [u8], limits: &Limits) -> Option<(Target<'a>, usize)> {
    let line = buffer.strip_prefix(b"mg ")?;
    let (key, words) = line.split_at(graphic_bytes(line));
    let (mut present, mut rest) = (0, words);
    while let [b' ', letter, behind @ ..] = rest {
        let letter_bit = bit(*letter);
        if LETTERS & letter_bit == 0 || present & letter_bit != 0 {
            return None;
        }
        present |= letter_bit;
        rest = match letter {
            b'O' => &behind[opaque_bytes(behind)?..],
            _ => behind,
        };
    }
    let consumed = buffer.len() - rest.len() + 2;
    let is_plain = rest.starts_with(b"\r\n")
        && !key.is_empty()
        && key.len() <= limits.key_bytes_max
        && consumed <= limits.line_bytes_max;
    let flags = Flags::of_plain(Tokens::new(&words[..words.len() - rest.len()]), present);
    is_plain.then_some((Target { key: Key::of_text(key), flags }, consumed))
}

/// The length of an opaque token behind its letter, unless it is too long.
#[inline]
fn opaque_bytes(text: &[u8]) -> Option<usize> {
    let bytes = graphic_bytes(text);
    (bytes < OPAQUE_BYTES_MAX).then_some(bytes)
}
