//! The log's memory.
//!
//! Lives here: bytes that are appended at one end and forgotten at the other. Not here: what they say (see `entry`).

use std::collections::VecDeque;

use super::LENGTH_BYTES;

/// Bytes in fixed pieces, as one long string that grows at the end and is forgotten from the front.
///
/// 1. `start <= end`, both counted from the first byte ever written.
/// 2. `pieces[i]` holds bytes from `(start / piece_bytes + i) * piece_bytes` on; `piece_bytes` is a power of two.
#[derive(Debug)]
pub(super) struct ByteRing {
    pieces: VecDeque<Box<[u8]>>,
    spare: Option<Box<[u8]>>,
    pub(super) piece_bytes: usize,
    piece_shift: u32,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl ByteRing {
    pub(super) fn new(piece_bytes: usize) -> ByteRing {
        assert!(piece_bytes.is_power_of_two());
        let piece_shift = piece_bytes.ilog2();
        ByteRing { pieces: VecDeque::new(), spare: None, piece_bytes, piece_shift, start: 0, end: 0 }
    }

    /// Where in its piece a byte lies.
    fn within(&self, at: u64) -> usize {
        at as usize & (self.piece_bytes - 1)
    }

    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let within = self.within(self.end);
        let is_inside = within != 0 && within + bytes.len() <= self.piece_bytes;
        match self.pieces.back_mut() {
            Some(piece) if is_inside => {
                piece[within..within + bytes.len()].copy_from_slice(bytes);
                self.end += bytes.len() as u64;
            }
            _ => self.append_over_pieces(bytes),
        }
    }

    /// The next `count` bytes, to be written, where they end at [`ByteRing::piece_end`] or before.
    #[inline(always)]
    pub(super) fn append_in_place(&mut self, count: usize) -> &mut [u8] {
        let within = self.within(self.end);
        self.end += count as u64;
        let piece = self.pieces.back_mut().expect("the newest piece has room");
        &mut piece[within..within + count]
    }

    /// Where the next byte will lie, if the newest piece has room.
    #[inline]
    pub(super) fn end_address(&self) -> *const u8 {
        let piece = self.pieces.back().map_or(std::ptr::null(), |piece| piece.as_ptr());
        piece.wrapping_add(self.within(self.end))
    }

    /// Where the newest piece ends.
    pub(super) fn piece_end(&self) -> u64 {
        self.end.next_multiple_of(self.piece_bytes as u64)
    }

    #[inline(never)]
    fn append_over_pieces(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.within(self.end);
            if within == 0 || self.pieces.is_empty() {
                let fresh = self.spare.take().unwrap_or_else(|| vec![0; self.piece_bytes].into());
                self.pieces.push_back(fresh);
            }
            let piece = self.pieces.back_mut().expect("a piece was just added");
            let count = bytes.len().min(self.piece_bytes - within);
            piece[within..within + count].copy_from_slice(&bytes[..count]);
            self.end += count as u64;
            bytes = &bytes[count..];
        }
    }

    /// Appends `count` bytes from `at` on to `out`.
    pub(super) fn copy_to(&self, mut at: u64, mut count: usize, out: &mut Vec<u8>) {
        let first_piece = self.start >> self.piece_shift;
        while count > 0 {
            let piece = &self.pieces[((at >> self.piece_shift) - first_piece) as usize];
            let within = self.within(at);
            let part = count.min(self.piece_bytes - within);
            out.extend_from_slice(&piece[within..within + part]);
            at += part as u64;
            count -= part;
        }
    }

    pub(super) fn forget(&mut self, count: u64) {
        let before = self.start >> self.piece_shift;
        self.start += count;
        for _ in before..self.start >> self.piece_shift {
            self.spare = self.pieces.pop_front();
        }
    }

    /// Forgets from the end all behind `end`.
    pub(super) fn truncate(&mut self, end: u64) {
        assert!(self.start <= end && end <= self.end);
        let first_piece = self.start >> self.piece_shift;
        self.pieces.truncate((end.div_ceil(self.piece_bytes as u64) - first_piece) as usize);
        self.end = end;
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.start = 0;
        self.end = 0;
    }

    #[inline]
    pub(super) fn length_at(&self, at: u64) -> u32 {
        let piece = &self.pieces[((at >> self.piece_shift) - (self.start >> self.piece_shift)) as usize];
        match piece[self.within(at)..].first_chunk() {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => self.length_over_pieces(at),
        }
    }

    #[inline(never)]
    fn length_over_pieces(&self, at: u64) -> u32 {
        let mut bytes = Vec::with_capacity(LENGTH_BYTES);
        self.copy_to(at, LENGTH_BYTES, &mut bytes);
        u32::from_le_bytes(bytes.try_into().expect("four bytes were copied"))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.pieces.len() + usize::from(self.spare.is_some())) * self.piece_bytes
    }
}
