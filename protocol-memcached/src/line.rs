//! Where a line ends, within its bound.
//!
//! A line is too long by its own bytes, never by how many of them have come: else the same bytes would be judged by how a
//! network cut them.

use crate::ParsedResponse;

/// The end of the line that a buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// `\n` is at this place.
    At(usize),
    /// It has not come, and may: so many bytes are worth another look.
    Open { bytes_needed: usize },
    /// It is not within the bound, whatever else comes.
    TooLong,
}

/// Looks for the end of a line of at most `line_bytes_max` bytes, `\n` included.
pub(crate) fn line_end(buffer: &[u8], line_bytes_max: usize) -> LineEnd {
    let bytes = buffer.len().min(line_bytes_max);
    match memchr::memchr(b'\n', &buffer[..bytes]) {
        Some(at) => LineEnd::At(at),
        None if bytes == line_bytes_max => LineEnd::TooLong,
        None => LineEnd::Open { bytes_needed: buffer.len() + 1 },
    }
}

/// The line that an answer begins with, without its end, and how many bytes it takes with it; else what there is to say of the
/// answer.
pub(crate) fn answer_line<R>(
    buffer: &[u8],
    line_bytes_max: usize,
) -> Result<(&[u8], usize), ParsedResponse<R>> {
    match line_end(buffer, line_bytes_max) {
        LineEnd::At(end) => match buffer[..end].strip_suffix(b"\r") {
            Some(line) => Ok((line, end + 1)),
            None => Err(ParsedResponse::Invalid),
        },
        LineEnd::Open { bytes_needed } => Err(ParsedResponse::Incomplete { bytes_needed }),
        LineEnd::TooLong => Err(ParsedResponse::Invalid),
    }
}
