//! Responses: what a server answers, both ways.
//!
//! A server appends a response piece by piece, since it finds a value's flags while it holds the item: a status,
//! flags, the line's end, a value. A client parses whole ones.

use super::key::{Key, KeyBuffer, encode_stored_key};
use crate::classic::{Limits, Tokens, number};
use crate::line::answer_line;

/// How a command went (rule M1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `HD`: done.
    Ok,
    /// `EN`: a miss.
    Miss,
    /// `NF`: there is no such item.
    NotFound,
    /// `NS`: not stored.
    NotStored,
    /// `EX`: the item has another CAS.
    Exists,
}

const STATUSES: [(&[u8], Status); 5] = [
    (b"HD", Status::Ok),
    (b"EN", Status::Miss),
    (b"NF", Status::NotFound),
    (b"NS", Status::NotStored),
    (b"EX", Status::Exists),
];

/// Errors that the parser finds, with memcached's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorReply {
    /// An unknown command (rule F3).
    Error,
    /// Too few words, a key too long, a bad length (rules F4, F5).
    BadLine,
    /// The data block does not end where it should (rule D10).
    BadDataChunk,
    /// A letter that no meta command knows (rule M2).
    InvalidFlag,
    /// A letter twice (rule M2).
    DuplicateFlag,
    /// Any bad flag of `ma` (rules M2, D12).
    InvalidOrDuplicateFlag,
    /// Too many words (rule L6).
    TooManyFlags,
    /// An opaque token that is too long (rule L6).
    OpaqueTooLong,
    /// An argument that is no number (rule X3).
    BadToken,
    /// A counter's first number that is none (`J`).
    BadInitial,
    /// A counter's step that is no number (`D`).
    BadDelta,
    /// A key that is no base64 (rule M3).
    KeyDoesNotDecode,
    /// A mode of no letter or several.
    BadModeLength,
    /// A mode that `ms` does not have (rule D8).
    InvalidStoreMode,
    /// A mode that `ma` does not have (rule D12).
    InvalidCountMode,
}

impl ErrorReply {
    /// The answer without its line end.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorReply::Error => "ERROR",
            ErrorReply::BadLine => "CLIENT_ERROR bad command line format",
            ErrorReply::BadDataChunk => "CLIENT_ERROR bad data chunk",
            ErrorReply::InvalidFlag => "CLIENT_ERROR invalid flag",
            ErrorReply::DuplicateFlag => "CLIENT_ERROR duplicate flag",
            ErrorReply::InvalidOrDuplicateFlag => "CLIENT_ERROR invalid or duplicate flag",
            ErrorReply::TooManyFlags => "CLIENT_ERROR options flags are too long",
            ErrorReply::OpaqueTooLong => "CLIENT_ERROR opaque token too long",
            ErrorReply::BadToken => "CLIENT_ERROR bad token in command line format",
            ErrorReply::BadInitial => "CLIENT_ERROR invalid numeric initial value",
            ErrorReply::BadDelta => "CLIENT_ERROR invalid numeric delta value",
            ErrorReply::KeyDoesNotDecode => "CLIENT_ERROR error decoding key",
            ErrorReply::BadModeLength => "CLIENT_ERROR incorrect length for M token",
            ErrorReply::InvalidStoreMode => "CLIENT_ERROR invalid mode for ms M token",
            ErrorReply::InvalidCountMode => "CLIENT_ERROR invalid mode for ma M token",
        }
    }

    /// Appends the answer.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_str().as_bytes());
        end_line(out);
    }
}

/// Appends a status; flags and [`end_line`] follow.
pub fn encode_status(status: Status, out: &mut Vec<u8>) {
    let name = STATUSES.iter().find(|(_, known)| *known == status).map_or(&b""[..], |(name, _)| name);
    out.extend_from_slice(name);
}

/// Appends `VA <bytes>`; flags, [`end_line`], the value and another line end follow.
pub fn encode_value_status(bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"VA ");
    number::write(bytes as u64, out);
}

/// Appends a flag as it is.
pub fn encode_flag(word: &[u8], out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(word);
}

/// Appends a flag with a number.
pub fn encode_number_flag(letter: u8, number: u64, out: &mut Vec<u8>) {
    encode_flag(&[letter], out);
    number::write(number, out);
}

/// Appends a time to live, in seconds; none is -1 (rule D1).
pub fn encode_ttl_flag(ttl_s: Option<u64>, out: &mut Vec<u8>) {
    match ttl_s {
        Some(seconds) => encode_number_flag(b't', seconds, out),
        None => encode_flag(b"t-1", out),
    }
}

/// Appends the key, and for a binary one a ` b` behind it (rule M3).
pub fn encode_key_flag(key: Key<'_>, out: &mut Vec<u8>) {
    let mut buffer: KeyBuffer = [0; 250];
    encode_stored_key_flag(key.bytes(&mut buffer), key.is_binary(), out);
}

/// Appends a key as it is stored; one that was given in base64 encoded again, and a ` b` behind it (rule M3).
pub fn encode_stored_key_flag(key: &[u8], is_binary: bool, out: &mut Vec<u8>) {
    encode_flag(b"k", out);
    encode_stored_key(key, is_binary, out);
    if is_binary {
        encode_flag(b"b", out);
    }
}

/// Appends a line's end.
pub fn end_line(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// A status without a value.
    Status {
        /// Which.
        status: Status,
        /// The flags that were asked for.
        flags: Tokens<'a>,
    },
    /// `VA`: a value.
    Value {
        /// The value.
        data: &'a [u8],
        /// The flags that were asked for.
        flags: Tokens<'a>,
    },
    /// `MN`.
    Noop,
    /// `ME`: what is known of an item.
    Debug {
        /// The key as it was asked for.
        key: &'a [u8],
        /// Words of the form `name=value`.
        facts: Tokens<'a>,
    },
    /// The command is not known.
    Error,
    /// The request was wrong.
    ClientError(&'a [u8]),
    /// The server can't do it.
    ServerError(&'a [u8]),
}

impl Response<'_> {
    /// Appends the bytes that a server sends.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Response::Status { status, flags } => {
                encode_status(status, out);
                flags.iter().for_each(|word| encode_flag(word, out));
            }
            Response::Value { data, flags } => {
                encode_value_status(data.len(), out);
                flags.iter().for_each(|word| encode_flag(word, out));
                end_line(out);
                out.extend_from_slice(data);
            }
            Response::Noop => out.extend_from_slice(b"MN"),
            Response::Debug { key, facts } => {
                out.extend_from_slice(b"ME");
                encode_flag(key, out);
                facts.iter().for_each(|word| encode_flag(word, out));
            }
            Response::Error => out.extend_from_slice(b"ERROR"),
            Response::ClientError(text) => [b"CLIENT_ERROR ", text].iter().for_each(|part| out.extend(*part)),
            Response::ServerError(text) => [b"SERVER_ERROR ", text].iter().for_each(|part| out.extend(*part)),
        }
        end_line(out);
    }
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
    if let Some(text) = line.strip_prefix(b"CLIENT_ERROR ") {
        return complete(Response::ClientError(text));
    }
    if let Some(text) = line.strip_prefix(b"SERVER_ERROR ") {
        return complete(Response::ServerError(text));
    }
    let mut words = Tokens::new(line);
    let name = words.next_word().unwrap_or_default();
    if let Some((_, status)) = STATUSES.iter().find(|(text, _)| *text == name) {
        return complete(Response::Status { status: *status, flags: words });
    }
    match name {
        b"VA" => parse_value(buffer, words, consumed, limits),
        b"ME" => match words.next_word() {
            Some(key) => complete(Response::Debug { key, facts: words }),
            None => ParsedResponse::Invalid,
        },
        b"MN" => complete(Response::Noop),
        b"ERROR" => complete(Response::Error),
        _ => ParsedResponse::Invalid,
    }
}

fn parse_value<'a>(
    buffer: &'a [u8],
    mut words: Tokens<'a>,
    at: usize,
    limits: &Limits,
) -> ParsedResponse<'a> {
    let bytes = match words.next_word().and_then(number::unsigned) {
        Some(bytes) if bytes <= limits.value_bytes_max as u64 => bytes as usize,
        _ => return ParsedResponse::Invalid,
    };
    let consumed = at + bytes + 2;
    let Some(block) = buffer.get(at..consumed) else {
        return ParsedResponse::Incomplete { bytes_needed: consumed };
    };
    match block.strip_suffix(b"\r\n") {
        Some(data) => ParsedResponse::Complete { response: Response::Value { data, flags: words }, consumed },
        None => ParsedResponse::Invalid,
    }
}
