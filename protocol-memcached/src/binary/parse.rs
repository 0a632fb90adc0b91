//! Bytes to requests: one header, and the body behind it.
//!
//! Everything that a header alone gives away is judged from the header, before any of the body has come.

use super::request::{Command, Request, Side, StoreMode};
use super::response::Status;
use super::{Direction, HEADER_BYTES, Header, Limits, REQUEST_MAGIC};

/// The longest body (rule B4).
const BODY_BYTES_MAX: u32 = 1 << 30;

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
    /// The head of a request with a large value ([`Limits::large_bytes_min`]), in the first `consumed` bytes.
    Head {
        /// The request, its value left out.
        request: Request<'a>,
        /// Bytes to take off the buffer.
        consumed: usize,
        /// The length of the value behind those, in bytes; nothing follows it.
        value_bytes: usize,
    },
    /// Less than a request: try again with at least so many bytes from the same start.
    Incomplete {
        /// Bytes needed in all, more than there are.
        bytes_needed: usize,
    },
    /// An error to answer, quiet or not; then close (rule B4).
    Invalid {
        /// What to answer.
        status: Status,
        /// The request's opcode.
        opcode: u8,
        /// The request's mark.
        opaque: u32,
    },
    /// Not of this protocol: close without an answer (rule B4).
    Close,
}

/// A glance at the request that the buffer begins with, for whoever fetches memory ahead: its key, and the bytes that it says
/// it takes. Nothing is checked: of what is no request it may be wrong, and a length may be any that four bytes can state.
#[inline]
pub fn key_ahead(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let header = Header::read(buffer.first_chunk::<HEADER_BYTES>()?);
    let key_at = HEADER_BYTES + usize::from(header.extras_bytes);
    let key = buffer.get(key_at..key_at + usize::from(header.key_bytes))?;
    Some((key, HEADER_BYTES + header.body_bytes as usize))
}

/// Parses what the buffer begins with. Executes nothing, allocates nothing.
pub fn parse_request<'a>(buffer: &'a [u8], limits: &Limits) -> Parsed<'a> {
    if buffer.first().is_some_and(|magic| *magic != REQUEST_MAGIC) {
        return Parsed::Close;
    }
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Parsed::Incomplete { bytes_needed: HEADER_BYTES };
    };
    let header = Header::read(header);
    let Header { opcode, opaque, cas, .. } = header;
    let invalid = |status| Parsed::Invalid { status, opcode, opaque };
    let Some(value_bytes) = header.value_bytes() else { return invalid(Status::UNKNOWN_COMMAND) };
    let is_key_long = usize::from(header.key_bytes) > limits.key_bytes_max;
    if is_key_long || header.body_bytes > BODY_BYTES_MAX {
        return invalid(Status::INVALID);
    }
    let Some(kind) = Kind::of(opcode) else {
        let command = Command::Unknown { opcode, bytes: header.body_bytes };
        let request = Request { command, quiet: false, opaque, cas };
        return Parsed::Complete { request, consumed: HEADER_BYTES };
    };
    if !kind.fits(&header, value_bytes, limits) {
        return invalid(Status::INVALID);
    }
    let is_store = matches!(kind, Kind::Store(_) | Kind::Extend(_));
    let is_too_large = is_store && value_bytes > limits.value_bytes_max;
    let is_large = is_store && value_bytes >= limits.large_bytes_min;
    let taken_bytes = if is_too_large || is_large { 0 } else { value_bytes };
    let consumed = HEADER_BYTES + header.body_bytes as usize - value_bytes + taken_bytes;
    let Some(body) = buffer.get(HEADER_BYTES..consumed) else {
        return Parsed::Incomplete { bytes_needed: consumed };
    };
    let (extras, rest) = body.split_at(usize::from(header.extras_bytes));
    let (key, value) = rest.split_at(usize::from(header.key_bytes));
    let command = match kind {
        Kind::Store(mode) if is_too_large => {
            Command::TooLarge { mode: Ok(mode), key, bytes: value_bytes as u32 }
        }
        Kind::Extend(side) if is_too_large => {
            Command::TooLarge { mode: Err(side), key, bytes: value_bytes as u32 }
        }
        kind => kind.command(extras, key, value),
    };
    let request = Request { command, quiet: is_quiet(opcode), opaque, cas };
    match is_large && !is_too_large {
        true => Parsed::Head { request, consumed, value_bytes },
        false => Parsed::Complete { request, consumed },
    }
}

/// Rule B2's quiet forms.
fn is_quiet(opcode: u8) -> bool {
    matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
}

/// A command without what the body says of it.
#[derive(Clone, Copy)]
enum Kind {
    Get { with_key: bool, touch: bool },
    Touch,
    Store(StoreMode),
    Extend(Side),
    Delete,
    Count(Direction),
    Flush,
    Noop,
    Version,
    Quit,
    Stat,
    LoginMechanisms,
    LoginStart,
    LoginStep,
}

impl Kind {
    /// What an opcode means (rule B2).
    fn of(opcode: u8) -> Option<Kind> {
        Some(match opcode {
            0x00 | 0x09 => Kind::Get { with_key: false, touch: false },
            0x0c | 0x0d => Kind::Get { with_key: true, touch: false },
            0x1d | 0x1e => Kind::Get { with_key: false, touch: true },
            0x23 | 0x24 => Kind::Get { with_key: true, touch: true },
            0x1c => Kind::Touch,
            0x01 | 0x11 => Kind::Store(StoreMode::Set),
            0x02 | 0x12 => Kind::Store(StoreMode::Add),
            0x03 | 0x13 => Kind::Store(StoreMode::Replace),
            0x0e | 0x19 => Kind::Extend(Side::Back),
            0x0f | 0x1a => Kind::Extend(Side::Front),
            0x04 | 0x14 => Kind::Delete,
            0x05 | 0x15 => Kind::Count(Direction::Up),
            0x06 | 0x16 => Kind::Count(Direction::Down),
            0x07 | 0x17 => Kind::Quit,
            0x08 | 0x18 => Kind::Flush,
            0x0a => Kind::Noop,
            0x0b => Kind::Version,
            0x10 => Kind::Stat,
            0x20 => Kind::LoginMechanisms,
            0x21 => Kind::LoginStart,
            0x22 => Kind::LoginStep,
            _ => return None,
        })
    }

    /// Whether the lengths are those of the command, where they are those of any (rule B4).
    fn fits(self, header: &Header, value_bytes: usize, limits: &Limits) -> bool {
        let key_bytes = usize::from(header.key_bytes);
        let extras_fit = match self {
            Kind::Get { touch: true, .. } | Kind::Touch => header.extras_bytes == 4,
            Kind::Store(_) => header.extras_bytes == 8,
            Kind::Count(_) => header.extras_bytes == 20,
            Kind::Flush => matches!(header.extras_bytes, 0 | 4),
            _ => header.extras_bytes == 0,
        };
        let key_fits = match self {
            Kind::Flush | Kind::Noop | Kind::Version | Kind::Quit | Kind::LoginMechanisms => key_bytes == 0,
            Kind::Stat => true,
            _ => key_bytes > 0,
        };
        let value_fits = match self {
            Kind::Store(_) | Kind::Extend(_) => true,
            Kind::LoginStart | Kind::LoginStep => value_bytes <= limits.login_bytes_max,
            _ => value_bytes == 0,
        };
        extras_fit && key_fits && value_fits
    }

    /// The command, of parts whose lengths fit.
    fn command<'a>(self, extras: &[u8], key: &'a [u8], value: &'a [u8]) -> Command<'a> {
        let number = |at: usize| u32_at(extras, at);
        let long = |at: usize| u64::from(u32_at(extras, at)) << 32 | u64::from(u32_at(extras, at + 4));
        match self {
            Kind::Get { with_key, touch } => Command::Get { key, with_key, touch: touch.then(|| number(0)) },
            Kind::Touch => Command::Touch { key, expiry: number(0) },
            Kind::Store(mode) => Command::Store { mode, key, flags: number(0), expiry: number(4), value },
            Kind::Extend(side) => Command::Extend { side, key, value },
            Kind::Delete => Command::Delete { key },
            Kind::Count(direction) => {
                Command::Count { direction, key, delta: long(0), initial: long(8), expiry: number(16) }
            }
            Kind::Flush => Command::Flush { expiry: (!extras.is_empty()).then(|| number(0)) },
            Kind::Noop => Command::Noop,
            Kind::Version => Command::Version,
            Kind::Quit => Command::Quit,
            Kind::Stat => Command::Stat { key },
            Kind::LoginMechanisms => Command::LoginMechanisms,
            Kind::LoginStart => Command::LoginStart { mechanism: key, message: value },
            Kind::LoginStep => Command::LoginStep { mechanism: key, message: value },
        }
    }
}

/// The number at a place; 0 where there is none.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_be_bytes(*chunk))
}
