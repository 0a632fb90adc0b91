//! Where a line ends, within its bound.
//!
//! A line is too long by its own bytes, never by how many of them have come: else the same bytes would be judged by how a
//! network cut them.

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
