//! The frame: 16 bytes of header, frozen for ever, and a body.
//!
//! Lives here: the header's layout and its checks, and cutting a byte stream into frames for stream transports.
//! Not here: what the bodies mean (see `message`, `hello`).
//!
//! ```text
//!   0        4        8     9      10        12             16
//!   | length | crc32c | kind | flags | version | frame number | body ...
//! ```
//! Little-endian. `length` counts the body. The checksum covers bytes 8 to the end.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::bug::{Bug, Bugs};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;

/// The protocol version that this build writes.
pub(crate) const VERSION: u16 = 1;

/// What a frame is. Numbers are never used again; 12 is kept for credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    HelloOk = 2,
    Reject = 3,
    Append = 4,
    Ack = 5,
    Heartbeat = 6,
    InstallBegin = 7,
    Chunk = 8,
    InstallEnd = 9,
    Hints = 10,
    Want = 11,
    Lineage = 13,
    Handover = 14,
    Fenced = 15,
    Bye = 16,
    Lease = 17,
    Standing = 18,
    Relay = 19,
    LoadAsk = 20,
    LoadAnswer = 21,
    LoadDone = 22,
    Apart = 24,
    Mode = 28,
    Ghosts = 30,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Hello,
            HelloOk,
            Reject,
            Append,
            Ack,
            Heartbeat,
            InstallBegin,
            Chunk,
            InstallEnd,
            Hints,
            Want,
            Lineage,
        ]
        .into_iter()
        .chain([
            Handover, Fenced, Bye, Lease, Standing, Relay, LoadAsk, LoadAnswer, LoadDone, Apart, Mode, Ghosts,
        ])
        .find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are no frame. The link that carried them is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The stated length is above what was agreed; nothing was allocated for it.
    TooLong {
        /// Stated length of header and body, in bytes.
        bytes: u64,
        /// The most that is taken, in bytes.
        bytes_max: usize,
    },
    /// Fewer bytes than the header states, or more.
    WrongLength,
    /// The checksum does not match.
    Corrupt,
    /// A kind that this version does not know.
    UnknownKind(u8),
    /// A frame was lost, repeated or reordered.
    OutOfOrder {
        /// The number that should have come.
        expected: u32,
        /// The number that came.
        got: u32,
    },
    /// The body does not have the shape of its kind.
    BadBody,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes, above the limit of {bytes_max}")
            }
            FrameError::WrongLength => write!(f, "a frame cut short"),
            FrameError::Corrupt => write!(f, "a frame with a wrong checksum"),
            FrameError::UnknownKind(kind) => write!(f, "a frame of unknown kind {kind}"),
            FrameError::OutOfOrder { expected, got } => {
                write!(f, "frame {got} came where {expected} should have")
            }
            FrameError::BadBody => write!(f, "a frame with a malformed body"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Writes one frame around a body that `write_body` appends.
pub(crate) fn encode(kind: Kind, number: u32, write_body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = begin(0);
    write_body(&mut frame);
    finish(kind, number, frame)
}

/// The beginning of a frame, with room for a body of so many bytes; the body is appended, then the frame finished.
pub(crate) fn begin(body_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body_bytes);
    frame.resize(HEADER_BYTES, 0);
    frame
}

/// The whole frame that was begun.
pub(crate) fn finish(kind: Kind, number: u32, mut frame: Vec<u8>) -> Bytes {
    seal(kind as u8, number, &mut frame);
    frame.into()
}

/// A frame of any kind and body, with the right length and checksum: what a hostile peer can send.
pub(crate) fn sealed(kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = [&[0; HEADER_BYTES], body].concat();
    seal(kind, number, &mut frame);
    frame
}

fn seal(kind: u8, number: u32, frame: &mut [u8]) {
    let body_bytes =
        u32::try_from(frame.len() - HEADER_BYTES).expect("bodies are bounded by frame_bytes_max");
    frame[0..4].copy_from_slice(&body_bytes.to_le_bytes());
    frame[8] = kind;
    frame[10..12].copy_from_slice(&VERSION.to_le_bytes());
    frame[12..16].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// A frame whose header and checksum are right.
#[derive(Debug)]
pub(crate) struct RawFrame<'a> {
    pub(crate) kind: Kind,
    pub(crate) number: u32,
    pub(crate) body: &'a [u8],
}

/// Checks a whole frame.
pub(crate) fn decode(frame: &[u8], bugs: Bugs) -> Result<RawFrame<'_>, FrameError> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::WrongLength);
    };
    let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if field(0) as usize != body.len() {
        return Err(FrameError::WrongLength);
    }
    if field(4) != crc32c::crc32c(&frame[8..]) && !bugs.has(Bug::ChecksumIgnored) {
        return Err(FrameError::Corrupt);
    }
    let kind = Kind::from_byte(header[8]).ok_or(FrameError::UnknownKind(header[8]))?;
    Ok(RawFrame { kind, number: field(12), body })
}

/// Cuts a byte stream into frames, for transports over streams.
///
/// Feed it what was read with [`push`](FrameSplitter::push), then take frames until there is none.
///
/// ```
/// use hotspare::transport::FrameSplitter;
/// let mut splitter = FrameSplitter::new(1 << 20);
/// splitter.push(&u32::MAX.to_le_bytes());
/// assert!(splitter.next_frame().is_err(), "a length of 2^32 - 1 is refused before anything is allocated");
/// ```
#[derive(Debug)]
pub struct FrameSplitter {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl FrameSplitter {
    /// A splitter that refuses frames above `frame_bytes_max` bytes, header included.
    pub fn new(frame_bytes_max: usize) -> FrameSplitter {
        FrameSplitter { buffer: BytesMut::new(), frame_bytes_max }
    }

    /// Adds bytes that were read. The caller pushes no more than one read buffer between two
    /// [`next_frame`](FrameSplitter::next_frame) runs, which bounds the memory to a frame and a buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as the first four bytes of a frame say so.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let bytes = u64::from(u32::from_le_bytes(*length)) + HEADER_BYTES as u64;
        if bytes > self.frame_bytes_max as u64 {
            return Err(FrameError::TooLong { bytes, bytes_max: self.frame_bytes_max });
        }
        let bytes = bytes as usize;
        if self.buffer.len() < bytes {
            return Ok(None);
        }
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }

    /// Whether a frame has begun and not ended: a link that closes now was cut.
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_its_golden_bytes() {
        let frame = encode(Kind::Ack, 7, |body| body.extend_from_slice(b"ab"));
        assert_eq!(frame[..4], [2, 0, 0, 0]);
        assert_eq!(frame[8..], [5, 0, 1, 0, 7, 0, 0, 0, b'a', b'b']);
        assert_eq!(frame[4..8], crc32c::crc32c(&frame[8..]).to_le_bytes());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let frame = encode(Kind::Append, 1, |body| body.extend_from_slice(b"body"));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, Bugs::default()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_stream_is_cut_at_the_same_places_however_it_arrives() {
        let stream: Vec<u8> =
            (0..5).flat_map(|n| encode(Kind::Hints, n, |body| body.resize(16 + n as usize * 9, 1))).collect();
        for step in [1, 3, 16, 1000] {
            let mut splitter = FrameSplitter::new(1000);
            let mut numbers = Vec::new();
            for piece in stream.chunks(step) {
                splitter.push(piece);
                while let Some(frame) = splitter.next_frame().unwrap() {
                    numbers.push(decode(&frame, Bugs::default()).unwrap().number);
                }
            }
            assert_eq!(numbers, [0, 1, 2, 3, 4]);
            assert!(!splitter.is_mid_frame());
        }
    }
}
