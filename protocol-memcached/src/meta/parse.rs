//! Bytes to requests: one line, and for `ms` the data block behind it.
//!
//! The caller keeps unconsumed bytes and calls again with more, as with the classic commands. A caller that serves
//! both asks [`is_meta`] first.

use super::flags::Flags;
use super::key::Key;
use super::request::{Direction, Request, StoreMode, Target};
use super::response::ErrorReply;
use crate::classic::{Limits, STATED_BYTES_MAX, Tokens, number};
use crate::line::{LineEnd, line_end};

/// The most words of a line, name and key included (rule L6).
const WORDS_MAX: usize = 20;

/// What the buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request, in the first `consumed` bytes.
    Complete {
        /// The request.
        request: Request<'a>,
        /// Bytes to take off the buffer.
        consumed: usize,
    },
    /// The line of an `ms` with a large value ([`Limits::large_bytes_min`]), in the first `consumed` bytes.
    Head {
        /// What to store under.
        target: Target<'a>,
        /// How; the same as the flag `M` says.
        mode: StoreMode,
        /// Bytes to take off the buffer.
        consumed: usize,
        /// The length of the value behind those, in bytes; a line end follows it, which is the caller's to check (rules S2, Z3).
        value_bytes: usize,
    },
    /// Less than a request: try again with at least so many bytes from the same start.
    Incomplete {
        /// Bytes needed in all, more than there are.
        bytes_needed: usize,
    },
    /// An error to answer, whatever the flags say (rule M4); the connection goes on.
    Invalid {
        /// What to answer.
        reply: ErrorReply,
        /// Bytes to take off the buffer.
        consumed: usize,
        /// Bytes behind those to throw away as they come (rules D8, S3).
        skip: u64,
    },
    /// A line without an end: close (rule F6).
    Close,
}

/// Whether the buffer begins with the whole name of a meta command.
pub fn is_meta(buffer: &[u8]) -> bool {
    matches!(buffer, [b'm', b'g' | b's' | b'd' | b'a' | b'n' | b'e', b' ' | b'\r' | b'\n', ..])
}

/// Parses what the buffer begins with. Executes nothing, allocates nothing.
pub fn parse_request<'a>(buffer: &'a [u8], limits: &Limits) -> Parsed<'a> {
    let line_end = match line_end(buffer, limits.line_bytes_max) {
        LineEnd::At(line_end) => line_end,
        LineEnd::Open { bytes_needed } => return Parsed::Incomplete { bytes_needed },
        LineEnd::TooLong => return Parsed::Close,
    };
    let consumed = line_end + 1;
    let line = &buffer[..line_end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = Tokens::new(line);
    let name = words.next_word().unwrap_or_default();
    // Rule F4; and a name that no word follows is one too few, except for mn (rule F5).
    if consumed < 4 {
        return invalid(ErrorReply::BadLine, consumed, 0);
    }
    match name {
        b"mn" => Parsed::Complete { request: Request::Noop, consumed },
        b"ms" => parse_store(buffer, words, consumed, limits),
        b"mg" | b"md" | b"ma" | b"me" => match parse_line(name, words, limits) {
            Ok(request) => Parsed::Complete { request, consumed },
            Err(reply) => invalid(reply, consumed, 0),
        },
        _ => invalid(ErrorReply::Error, consumed, 0),
    }
}

fn invalid<'a>(reply: ErrorReply, consumed: usize, skip: u64) -> Parsed<'a> {
    Parsed::Invalid { reply, consumed, skip }
}

/// A command of one line.
fn parse_line<'a>(name: &[u8], mut words: Tokens<'a>, limits: &Limits) -> Result<Request<'a>, ErrorReply> {
    let key = words.next_word().ok_or(ErrorReply::BadLine)?;
    if key.len() > limits.key_bytes_max {
        return Err(ErrorReply::BadLine);
    }
    check_count(words, 2)?;
    if name == b"ma" {
        // Whatever is wrong with its flags has one name (rules M2, D12).
        let target = parse_target(key, words).map_err(|_| ErrorReply::InvalidOrDuplicateFlag)?;
        let direction = match target.flags.mode() {
            None | Some(b'I' | b'+') => Direction::Up,
            Some(b'D' | b'-') => Direction::Down,
            Some(_) => return Err(ErrorReply::InvalidCountMode),
        };
        target.flags.check_opaque()?;
        return Ok(Request::Count { target, direction });
    }
    let target = parse_target(key, words)?;
    target.flags.check_opaque()?;
    Ok(match name {
        b"mg" => Request::Get(target),
        b"md" => Request::Delete(target),
        _ => Request::Debug(target),
    })
}

/// Rule L6; `taken` words were taken off.
fn check_count(words: Tokens<'_>, taken: usize) -> Result<(), ErrorReply> {
    // A word and the space before it are two bytes at least: most lines are too short for too many.
    match words.bytes() / 2 + taken > WORDS_MAX && words.iter().count() + taken > WORDS_MAX {
        true => Err(ErrorReply::TooManyFlags),
        false => Ok(()),
    }
}

fn parse_target<'a>(key: &'a [u8], words: Tokens<'a>) -> Result<Target<'a>, ErrorReply> {
    let flags = Flags::of(words)?;
    let key = Key::new(key, flags.has(b'b')).ok_or(ErrorReply::KeyDoesNotDecode)?;
    Ok(Target { key, flags })
}

/// `ms <key> <datalen> <flag>*`: once the length is readable, the data block goes with whatever is wrong.
fn parse_store<'a>(
    buffer: &'a [u8],
    mut words: Tokens<'a>,
    line_bytes: usize,
    limits: &Limits,
) -> Parsed<'a> {
    let (Some(key), Some(bytes)) = (words.next_word(), words.next_word()) else {
        return invalid(ErrorReply::BadLine, line_bytes, 0);
    };
    let bytes = match number::unsigned(bytes) {
        Some(bytes) if bytes <= STATED_BYTES_MAX => bytes,
        _ => return invalid(ErrorReply::BadLine, line_bytes, 0),
    };
    let (target, mode) = match parse_store_target(key, words, limits) {
        Ok(sound) => sound,
        Err(reply) => return invalid(reply, line_bytes, bytes + 2),
    };
    if bytes > limits.value_bytes_max as u64 {
        let request = Request::StoreTooLarge { target, bytes, skip: bytes + 2 };
        return Parsed::Complete { request, consumed: line_bytes };
    }
    let value_bytes = bytes as usize;
    if value_bytes >= limits.large_bytes_min {
        return Parsed::Head { target, mode, consumed: line_bytes, value_bytes };
    }
    let consumed = line_bytes + value_bytes + 2;
    let Some(block) = buffer.get(line_bytes..consumed) else {
        return Parsed::Incomplete { bytes_needed: consumed };
    };
    match block.strip_suffix(b"\r\n") {
        Some(data) => Parsed::Complete { request: Request::Store { target, mode, data }, consumed },
        None => invalid(ErrorReply::BadDataChunk, consumed, 0),
    }
}

fn parse_store_target<'a>(
    key: &'a [u8],
    words: Tokens<'a>,
    limits: &Limits,
) -> Result<(Target<'a>, StoreMode), ErrorReply> {
    if key.len() > limits.key_bytes_max {
        return Err(ErrorReply::BadLine);
    }
    check_count(words, 3)?;
    let target = parse_target(key, words)?;
    let mode = StoreMode::named(target.flags.mode()).ok_or(ErrorReply::InvalidStoreMode)?;
    target.flags.check_opaque()?;
    Ok((target, mode))
}
