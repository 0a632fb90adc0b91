//! The bytes of an image: a mark, a format, then blocks that prove each other.
//!
//! Lives here: cutting a stream into checked blocks and putting it together again. Not here: what the stream says (see
//! `head` for its beginning, `image` for its items).
//!
//! ```text
//!   "HOTSPARE" 8 | format u32 | CRC32C of those u32 | block | block | ...                 (all little-endian)
//!   block: length u32, 1 to 65536 | CRC32C u32 | bytes
//! ```
//! The CRC of a block goes on from that of the block before, so a block that is missing, twice, elsewhere, or of another
//! image is found, too. Nothing of a block is given before its CRC was right.

use std::io::{ErrorKind, Read, Write};

use super::error::{Damage, RestoreError};

/// How the bytes are laid; another number is another layout.
const FORMAT: u32 = 2;
const MARK: [u8; 8] = *b"HOTSPARE";
/// The longest block's bytes; a reader and a writer hold one.
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;
/// A block's length and CRC.
const PREFIX_BYTES: usize = 8;

/// Writes a stream in blocks. Without [`BlockWriter::finish`] the end is missing.
pub(super) struct BlockWriter<W> {
    out: W,
    /// The block that is being filled, behind room for its prefix.
    block: Vec<u8>,
    crc: u32,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn begin(mut out: W) -> std::io::Result<BlockWriter<W>> {
        let mut beginning = Vec::with_capacity(MARK.len() + 8);
        beginning.extend_from_slice(&MARK);
        beginning.extend_from_slice(&FORMAT.to_le_bytes());
        let crc = crc32c::crc32c(&beginning);
        beginning.extend_from_slice(&crc.to_le_bytes());
        out.write_all(&beginning)?;
        Ok(BlockWriter { out, block: vec![0; PREFIX_BYTES], crc })
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let room = PREFIX_BYTES + BLOCK_BYTES_MAX - self.block.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(fits);
            bytes = rest;
            if self.block.len() == PREFIX_BYTES + BLOCK_BYTES_MAX {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes what is left and flushes.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        if self.block.len() > PREFIX_BYTES {
            self.write_block()?;
        }
        self.out.flush()
    }

    fn write_block(&mut self) -> std::io::Result<()> {
        let length = ((self.block.len() - PREFIX_BYTES) as u32).to_le_bytes();
        self.crc = block_crc(self.crc, length, &self.block[PREFIX_BYTES..]);
        self.block[..4].copy_from_slice(&length);
        self.block[4..PREFIX_BYTES].copy_from_slice(&self.crc.to_le_bytes());
        self.out.write_all(&self.block)?;
        self.block.truncate(PREFIX_BYTES);
        Ok(())
    }
}

/// Reads a stream of blocks.
pub(super) struct BlockReader<R> {
    source: R,
    block: Vec<u8>,
    /// How much of the block has been given.
    given: usize,
    crc: u32,
}

impl<R: Read> BlockReader<R> {
    pub(super) fn begin(mut source: R) -> Result<BlockReader<R>, RestoreError> {
        let mut mark = [0; MARK.len()];
        match source.read_exact(&mut mark) {
            Ok(()) if mark == MARK => {}
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(RestoreError::Io(error)),
            _ => return Err(RestoreError::NoImage),
        }
        let (format, stated) = (take_u32(&mut source)?, take_u32(&mut source)?);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&MARK), &format.to_le_bytes());
        if crc != stated {
            return Err(Damage::Checksum.into());
        }
        if format != FORMAT {
            return Err(RestoreError::OtherFormat { format, format_known: FORMAT });
        }
        Ok(BlockReader { source, block: Vec::new(), given: 0, crc })
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let mut bytes = [0; N];
        let mut filled = 0;
        self.each_piece(N as u64, |piece| {
            bytes[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        Ok(bytes)
    }

    /// Appends the next `count` bytes to `out`, which grows as they come: a count that is a lie costs nothing.
    pub(super) fn append_to(&mut self, out: &mut Vec<u8>, count: u64) -> Result<(), RestoreError> {
        self.each_piece(count, |piece| out.extend_from_slice(piece))
    }

    /// Passes over the next `count` bytes.
    pub(super) fn skip(&mut self, count: u64) -> Result<(), RestoreError> {
        self.each_piece(count, |_| ())
    }

    /// An error unless everything has been read.
    pub(super) fn finish(mut self) -> Result<(), RestoreError> {
        if self.given < self.block.len() {
            return Err(Damage::Surplus.into());
        }
        loop {
            match self.source.read(&mut [0]) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(Damage::Surplus.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(RestoreError::Io(error)),
            }
        }
    }

    fn each_piece(&mut self, mut count: u64, mut take: impl FnMut(&[u8])) -> Result<(), RestoreError> {
        while count > 0 {
            if self.given == self.block.len() {
                self.read_block()?;
            }
            let rest = &self.block[self.given..];
            let piece = &rest[..rest.len().min(usize::try_from(count).unwrap_or(usize::MAX))];
            take(piece);
            self.given += piece.len();
            count -= piece.len() as u64;
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<(), RestoreError> {
        let (length, stated) = (take_u32(&mut self.source)?, take_u32(&mut self.source)?);
        if length == 0 || length as usize > BLOCK_BYTES_MAX {
            return Err(Damage::Checksum.into());
        }
        self.block.resize(length as usize, 0);
        self.given = 0;
        self.source.read_exact(&mut self.block).map_err(cut_short)?;
        self.crc = block_crc(self.crc, length.to_le_bytes(), &self.block);
        if self.crc != stated {
            // Nothing of it may be given by a later call.
            self.block.clear();
            return Err(Damage::Checksum.into());
        }
        Ok(())
    }
}

fn block_crc(before: u32, length: [u8; 4], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &length), bytes)
}

fn take_u32(source: &mut impl Read) -> Result<u32, RestoreError> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes).map_err(cut_short)?;
    Ok(u32::from_le_bytes(bytes))
}

fn cut_short(error: std::io::Error) -> RestoreError {
    match error.kind() {
        ErrorKind::UnexpectedEof => Damage::CutShort.into(),
        _ => RestoreError::Io(error),
    }
}
