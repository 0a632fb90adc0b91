//! Responses: what a server answers, both ways.

use super::{Limits, number};
use crate::line::answer_line;

/// One answer, or one line of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// A value of a get (rule R1).
    Value {
        /// The key.
        key: &'a [u8],
        /// The client's flags.
        flags: u32,
        /// The CAS, if it was asked for.
        cas: Option<u64>,
        /// The value.
        data: &'a [u8],
    },
    /// The end of a get or of statistics.
    End,
    /// Stored.
    Stored,
    /// Not stored: the condition did not hold.
    NotStored,
    /// The item has another CAS.
    Exists,
    /// No such item.
    NotFound,
    /// Deleted.
    Deleted,
    /// Given another expiry.
    Touched,
    /// Done.
    Ok,
    /// Statistics set to zero.
    Reset,
    /// The new value of a counter.
    Number(u64),
    /// The server's version.
    Version(&'a [u8]),
    /// One statistic.
    Stat {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The command is not known.
    Error,
    /// The request was wrong.
    ClientError(&'a [u8]),
    /// The server can't do it.
    ServerError(&'a [u8]),
}

/// Errors that the parser finds, with memcached's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorReply {
    /// An unknown command (rule F3).
    Error,
    /// Too few words, a bad number, a key too long (rules F4, F5, S3).
    BadLine,
    /// More behind a delete than `0` (rule Z2).
    BadDelete,
    /// The data block does not end where it should (rule S2).
    BadDataChunk,
    /// An expiry that is no number (rule X3).
    InvalidExptime,
    /// A delta that is no unsigned number (rule A2).
    InvalidDelta,
}

impl ErrorReply {
    /// The answer without its line end.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorReply::Error => "ERROR",
            ErrorReply::BadLine => "CLIENT_ERROR bad command line format",
            ErrorReply::BadDelete => "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]",
            ErrorReply::BadDataChunk => "CLIENT_ERROR bad data chunk",
            ErrorReply::InvalidExptime => "CLIENT_ERROR invalid exptime argument",
            ErrorReply::InvalidDelta => "CLIENT_ERROR invalid numeric delta argument",
        }
    }

    /// Appends the answer.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `VALUE <key> <flags> <bytes>[ <cas>]`; the value and a line end follow (rule R1).
#[inline]
pub fn encode_value_header(key: &[u8], flags: u32, bytes: usize, cas: Option<u64>, out: &mut Vec<u8>) {
    if flags != 0 || bytes > SHORT_BYTES_MAX || cas.is_some() {
        return encode_any_value_header(key, flags, bytes, cas, out);
    }
    let (Some(first), Some(last)) = (key.first_chunk::<16>(), key.last_chunk::<16>()) else {
        return encode_short_value_header(key, bytes, out);
    };
    // As many bytes each time, of which some go again: room for that many is made at once, and copies into it need no call.
    const ROOM: usize = 6 + COPIED_KEY_BYTES_MAX + 8;
    if key.len() > COPIED_KEY_BYTES_MAX || out.capacity() - out.len() < ROOM {
        return encode_short_value_header(key, bytes, out);
    }
    let (begin, behind_key_at, (behind_key, len)) = (out.len(), 6 + key.len(), short_behind_key(bytes));
    out.extend_from_slice(&[0; ROOM]);
    let room = out.last_chunk_mut::<ROOM>().expect("it was just put there");
    room[..6].copy_from_slice(b"VALUE ");
    room[6..6 + 16].copy_from_slice(first);
    room[behind_key_at - 16..behind_key_at].copy_from_slice(last);
    room[behind_key_at..behind_key_at + 8].copy_from_slice(&behind_key);
    out.truncate(begin + behind_key_at + len);
}

/// [`encode_value_header`] without flags and CAS, of at most 999 bytes.
#[inline(never)]
fn encode_short_value_header(key: &[u8], bytes: usize, out: &mut Vec<u8>) {
    let (behind_key, len) = short_behind_key(bytes);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.extend_from_slice(&behind_key[..len]);
}

/// The longest value whose length has three digits.
const SHORT_BYTES_MAX: usize = 999;

/// The longest key that its first and its last sixteen bytes cover.
const COPIED_KEY_BYTES_MAX: usize = 32;

/// The numbers below 100, each as the two bytes of its digits.
const TWO_DIGITS: [u16; 100] = {
    let mut all = [0; 100];
    let mut number = 0;
    while number < 100 {
        all[number] = u16::from_le_bytes([b'0' + number as u8 / 10, b'0' + number as u8 % 10]);
        number += 1;
    }
    all
};

/// What stands between key and value where flags are 0 and the length has at most three digits, and how long that is.
#[inline]
fn short_behind_key(bytes: usize) -> ([u8; 8], usize) {
    let (hundreds, rest) = (bytes / 100, bytes % 100);
    // The text's first byte is a word's lowest.
    let digits = (b'0' as usize + hundreds) as u64 | u64::from(TWO_DIGITS[rest]) << 8;
    let line_end = u64::from(b'\r') | u64::from(b'\n') << 8;
    let zeros = usize::from(bytes < 100) + usize::from(bytes < 10);
    let from_digits = (digits | line_end << 24) >> (8 * zeros);
    ((u64::from_le_bytes(*b" 0 \0\0\0\0\0") | from_digits << 24).to_le_bytes(), 8 - zeros)
}

/// [`encode_value_header`] of any value.
fn encode_any_value_header(key: &[u8], flags: u32, bytes: usize, cas: Option<u64>, out: &mut Vec<u8>) {
    // Three numbers, a space before each, and the line's end; written from its end on.
    let mut behind_key = [b' '; 3 * (1 + number::DIGITS_MAX) + 2];
    let end = behind_key.len() - 2;
    behind_key[end..].copy_from_slice(b"\r\n");
    let mut at = end;
    if let Some(cas) = cas {
        at = number::write_before(cas, &mut behind_key, at) - 1;
    }
    at = number::write_before(bytes as u64, &mut behind_key, at) - 1;
    at = number::write_before(u64::from(flags), &mut behind_key, at) - 1;
    out.reserve(6 + key.len() + behind_key.len());
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.extend_from_slice(&behind_key[at..]);
}

impl Response<'_> {
    /// Appends the bytes that a server sends.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Response::Value { key, flags, cas, data } => {
                encode_value_header(key, flags, data.len(), cas, out);
                out.extend_from_slice(data);
            }
            Response::Number(number) => number::write(number, out),
            Response::Version(text) => extend(out, &[b"VERSION ", text]),
            Response::Stat { name, value } => extend(out, &[b"STAT ", name, b" ", value]),
            Response::ClientError(text) => extend(out, &[b"CLIENT_ERROR ", text]),
            Response::ServerError(text) => extend(out, &[b"SERVER_ERROR ", text]),
            fixed => return out.extend_from_slice(fixed.fixed_line()),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The line of an answer that is always the same one; of others nothing.
    #[inline]
    fn fixed_line(&self) -> &'static [u8] {
        match self {
            Response::End => b"END\r\n",
            Response::Stored => b"STORED\r\n",
            Response::NotStored => b"NOT_STORED\r\n",
            Response::Exists => b"EXISTS\r\n",
            Response::NotFound => b"NOT_FOUND\r\n",
            Response::Deleted => b"DELETED\r\n",
            Response::Touched => b"TOUCHED\r\n",
            Response::Ok => b"OK\r\n",
            Response::Reset => b"RESET\r\n",
            Response::Error => b"ERROR\r\n",
            _ => b"",
        }
    }
}

/// Answers that are one fixed line.
pub(super) const FIXED: [Response<'static>; 10] = [
    Response::End,
    Response::Stored,
    Response::NotStored,
    Response::Exists,
    Response::NotFound,
    Response::Deleted,
    Response::Touched,
    Response::Ok,
    Response::Reset,
    Response::Error,
];

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What a client's buffer begins with.
pub type ParsedResponse<'a> = crate::ParsedResponse<Response<'a>>;

/// Parses what a client's buffer begins with.
pub fn parse_response<'a>(buffer: &'a [u8], limits: &Limits) -> ParsedResponse<'a> {
    let (line, consumed) = match answer_line(buffer, limits.line_bytes_max) {
        Ok(found) => found,
        Err(otherwise) => return otherwise,
    };
    let complete = |response| ParsedResponse::Complete { response, consumed };
    if let Some(response) = FIXED.into_iter().find(|response| *response.fixed_line() == buffer[..consumed]) {
        return complete(response);
    }
    if let Some(header) = line.strip_prefix(b"VALUE ") {
        return parse_value(buffer, header, consumed, limits);
    }
    if let Some(text) = line.strip_prefix(b"VERSION ") {
        return complete(Response::Version(text));
    }
    if let Some(text) = line.strip_prefix(b"CLIENT_ERROR ") {
        return complete(Response::ClientError(text));
    }
    if let Some(text) = line.strip_prefix(b"SERVER_ERROR ") {
        return complete(Response::ServerError(text));
    }
    if let Some(rest) = line.strip_prefix(b"STAT ") {
        let space = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        let value = rest.get(space + 1..).unwrap_or_default();
        return complete(Response::Stat { name: &rest[..space], value });
    }
    number::unsigned(line).map_or(ParsedResponse::Invalid, |number| complete(Response::Number(number)))
}

fn parse_value<'a>(buffer: &'a [u8], header: &'a [u8], at: usize, limits: &Limits) -> ParsedResponse<'a> {
    let mut words = header.split(|byte| *byte == b' ');
    let key = words.next().unwrap_or_default();
    let flags = words.next().and_then(number::flags);
    let bytes = words.next().and_then(number::unsigned);
    let cas = words.next().map(number::unsigned);
    let (Some(flags), Some(bytes)) = (flags, bytes) else { return ParsedResponse::Invalid };
    if cas == Some(None) || words.next().is_some() || bytes > limits.value_bytes_max as u64 {
        return ParsedResponse::Invalid;
    }
    let consumed = at + bytes as usize + 2;
    match buffer.get(at..consumed) {
        None => ParsedResponse::Incomplete { bytes_needed: consumed },
        Some(block) => match block.strip_suffix(b"\r\n") {
            Some(data) => {
                let response = Response::Value { key, flags, cas: cas.flatten(), data };
                ParsedResponse::Complete { response, consumed }
            }
            None => ParsedResponse::Invalid,
        },
    }
}
