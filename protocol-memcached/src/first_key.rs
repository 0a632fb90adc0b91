//! Which key a text command is about, before it is parsed: for whoever fetches ahead what it will need.

use crate::classic::Limits;
use crate::scan::graphic_bytes;

/// The key of the `get`, `set`, `mg` or `ms` that the buffer begins with, as far as it has come; none of other commands. Nothing else is
/// checked, so it is a guess.
///
/// ```
/// use hotspare_memcached::first_key;
/// assert_eq!(first_key(b"get key another\r\n"), Some(&b"key"[..]));
/// assert_eq!(first_key(b"ms key 3"), Some(&b"key"[..]));
/// assert_eq!((first_key(b"version\r\n"), first_key(b"get \r\n"), first_key(&[])), (None, None, None));
/// ```
#[inline]
pub fn first_key(buffer: &[u8]) -> Option<&[u8]> {
    let ([b'g' | b's', b'e', b't', b' ', rest @ ..] | [b'm', b'g' | b's', b' ', rest @ ..]) = buffer else {
        return None;
    };
    // Of what is longer than any key nothing is stored.
    let window = &rest[..rest.len().min(Limits::default().key_bytes_max + 1)];
    let key = &window[..graphic_bytes(window)];
    (!key.is_empty()).then_some(key)
}
