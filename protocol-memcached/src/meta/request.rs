//! Requests: what a client asks for, and the bytes that ask for it.

use super::flags::Flags;
use super::key::Key;
pub use crate::classic::Direction;
use crate::classic::number;

/// One request. Keys, flags and values borrow from the buffer that was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// `mg` (rule D1).
    Get(Target<'a>),
    /// `ms` with its whole value (rule D8).
    Store {
        /// What to store under.
        target: Target<'a>,
        /// How; the same as the flag `M` says.
        mode: StoreMode,
        /// The value.
        data: &'a [u8],
    },
    /// `ms` with a value above the limit: its bytes are to be thrown away as they come (rules D10, L3).
    StoreTooLarge {
        /// What to store under.
        target: Target<'a>,
        /// The stated length of the value, in bytes.
        bytes: u64,
        /// Bytes to throw away behind the line: value and line end.
        skip: u64,
    },
    /// `md` (rule D11).
    Delete(Target<'a>),
    /// `ma` (rule D12).
    Count {
        /// Which counter.
        target: Target<'a>,
        /// Which way; the same as the flag `M` says.
        direction: Direction,
    },
    /// `me` (rule M7).
    Debug(Target<'a>),
    /// `mn` (rule M7).
    Noop,
}

impl<'a> Request<'a> {
    /// What it is about; none of a value that is too large, of which bytes are to come that are no request, and of `mn`.
    pub fn target(&self) -> Option<&Target<'a>> {
        match self {
            Request::Get(target) | Request::Delete(target) | Request::Debug(target) => Some(target),
            Request::Store { target, .. } | Request::Count { target, .. } => Some(target),
            Request::StoreTooLarge { .. } | Request::Noop => None,
        }
    }
}

/// A key and the flags behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The flags.
    pub flags: Flags<'a>,
}

/// How `ms` stores (rule D8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Whatever is there.
    Set,
    /// If the key is absent.
    Add,
    /// Behind the value.
    Append,
    /// Before the value.
    Prepend,
    /// If the key is present.
    Replace,
}

impl StoreMode {
    /// The mode that a letter names; none is set.
    pub(super) fn named(letter: Option<u8>) -> Option<StoreMode> {
        Some(match letter {
            None | Some(b'S') => StoreMode::Set,
            Some(b'E') => StoreMode::Add,
            Some(b'A') => StoreMode::Append,
            Some(b'P') => StoreMode::Prepend,
            Some(b'R') => StoreMode::Replace,
            Some(_) => return None,
        })
    }
}

impl<'a> Target<'a> {
    /// A key's text and the flags in these words; the flag `b` says that the text is base64.
    ///
    /// # Errors
    /// The flags are none (see [`Flags::new`]), or the key does not decode.
    pub fn new(key: &'a [u8], flags: &'a [u8]) -> Result<Target<'a>, super::ErrorReply> {
        let flags = Flags::new(flags)?;
        let key = Key::new(key, flags.has(b'b')).ok_or(super::ErrorReply::KeyDoesNotDecode)?;
        Ok(Target { key, flags })
    }

    fn encode(&self, name: &[u8], bytes: Option<u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(name);
        out.push(b' ');
        out.extend_from_slice(self.key.text());
        if let Some(bytes) = bytes {
            out.push(b' ');
            number::write(bytes, out);
        }
        for flag in self.flags.iter() {
            out.push(b' ');
            out.extend_from_slice(flag.word);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Request<'_> {
    /// Appends the bytes that a client sends. A `StoreTooLarge` is its line without the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Get(target) => target.encode(b"mg", None, out),
            Request::Store { target, data, .. } => {
                target.encode(b"ms", Some(data.len() as u64), out);
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Request::StoreTooLarge { target, bytes, .. } => target.encode(b"ms", Some(*bytes), out),
            Request::Delete(target) => target.encode(b"md", None, out),
            Request::Count { target, .. } => target.encode(b"ma", None, out),
            Request::Debug(target) => target.encode(b"me", None, out),
            Request::Noop => out.extend_from_slice(b"mn\r\n"),
        }
    }
}
