//! Responses: what a server answers, both ways.

use super::{HEADER_BYTES, Header, Limits, RESPONSE_MAGIC};

/// How a request ended (rule B3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const OK: Status = Status(0x00);
    /// The key is absent.
    pub const NOT_FOUND: Status = Status(0x01);
    /// The key is present, or has another CAS.
    pub const EXISTS: Status = Status(0x02);
    /// The item is above the limit.
    pub const TOO_LARGE: Status = Status(0x03);
    /// The request is malformed.
    pub const INVALID: Status = Status(0x04);
    /// There was nothing to add to.
    pub const NOT_STORED: Status = Status(0x05);
    /// The stored value is no number.
    pub const NOT_A_NUMBER: Status = Status(0x06);
    /// Not logged in, or the login failed.
    pub const LOGIN_FAILED: Status = Status(0x20);
    /// The login needs another message.
    pub const LOGIN_CONTINUES: Status = Status(0x21);
    /// There is no such command.
    pub const UNKNOWN_COMMAND: Status = Status(0x81);
    /// No memory.
    pub const OUT_OF_MEMORY: Status = Status(0x82);
    /// Not now or not here; memcached has the number but never sends it.
    pub const TEMPORARY_FAILURE: Status = Status(0x86);

    /// The text that an error has as its body.
    pub fn text(self) -> &'static str {
        match self {
            Status::NOT_FOUND => "Not found",
            Status::EXISTS => "Data exists for key.",
            Status::TOO_LARGE => "Too large.",
            Status::INVALID => "Invalid arguments",
            Status::NOT_STORED => "Not stored.",
            Status::NOT_A_NUMBER => "Non-numeric server-side value for incr or decr",
            Status::LOGIN_FAILED => "Auth failure.",
            Status::UNKNOWN_COMMAND => "Unknown command",
            Status::OUT_OF_MEMORY => "Out of memory",
            Status::TEMPORARY_FAILURE => "Temporary failure",
            _ => "",
        }
    }
}

/// One response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The request's opcode.
    pub opcode: u8,
    /// How it ended.
    pub status: Status,
    /// The request's mark.
    pub opaque: u32,
    /// The item's CAS, or 0.
    pub cas: u64,
    /// The flags of a value, 4 bytes, or nothing; at most 255 bytes.
    pub extras: &'a [u8],
    /// The key where it was asked for, a statistic's name; at most 65,535 bytes.
    pub key: &'a [u8],
    /// The value, or an error's text.
    pub value: &'a [u8],
}

impl Response<'_> {
    /// Appends the response's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(self.value.len(), out);
        out.extend_from_slice(self.value);
    }

    /// Appends everything before a value of so many bytes, which the caller appends; `value` does not count.
    pub fn encode_head(&self, value_bytes: usize, out: &mut Vec<u8>) {
        let header = Header {
            opcode: self.opcode,
            key_bytes: self.key.len() as u16,
            extras_bytes: self.extras.len() as u8,
            status: self.status.0,
            body_bytes: (self.extras.len() + self.key.len() + value_bytes) as u32,
            opaque: self.opaque,
            cas: self.cas,
        };
        header.write(RESPONSE_MAGIC, out);
        out.extend_from_slice(self.extras);
        out.extend_from_slice(self.key);
    }
}

/// What a client's buffer begins with.
pub type ParsedResponse<'a> = crate::ParsedResponse<Response<'a>>;

/// What the header alone says of the response that the bytes begin with, its body left out: of one whose value lies elsewhere.
/// `None` if the header is not whole.
pub fn response_head(bytes: &[u8]) -> Option<Response<'static>> {
    let header = Header::read(bytes.first_chunk()?);
    let Header { opcode, opaque, cas, .. } = header;
    Some(Response { opcode, status: Status(header.status), opaque, cas, extras: b"", key: b"", value: b"" })
}

/// Parses what a client's buffer begins with.
pub fn parse_response<'a>(buffer: &'a [u8], limits: &Limits) -> ParsedResponse<'a> {
    if buffer.first().is_some_and(|magic| *magic != RESPONSE_MAGIC) {
        return ParsedResponse::Invalid;
    }
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return ParsedResponse::Incomplete { bytes_needed: HEADER_BYTES };
    };
    let header = Header::read(header);
    if header.value_bytes().is_none_or(|bytes| bytes > limits.value_bytes_max) {
        return ParsedResponse::Invalid;
    }
    let consumed = HEADER_BYTES + header.body_bytes as usize;
    let Some(body) = buffer.get(HEADER_BYTES..consumed) else {
        return ParsedResponse::Incomplete { bytes_needed: consumed };
    };
    let (extras, rest) = body.split_at(usize::from(header.extras_bytes));
    let (key, value) = rest.split_at(usize::from(header.key_bytes));
    let Header { opcode, opaque, cas, .. } = header;
    let response = Response { opcode, status: Status(header.status), opaque, cas, extras, key, value };
    ParsedResponse::Complete { response, consumed }
}
