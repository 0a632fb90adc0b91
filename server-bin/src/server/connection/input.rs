//! What has come from a client, in a buffer that is made ready to be read into once, not for each read.
//!
//! ```text
//!   [ has come | room: zeros, or what came before ]
//! ```

use std::mem;
use std::ops::Deref;

/// 1. `end <= bytes.len()`: what lies behind `end` is never shown as having come.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    end: usize,
}

/// What has come.
impl Deref for Input {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

#[cfg(test)]
impl std::ops::DerefMut for Input {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.end]
    }
}

impl Input {
    /// The memory that it takes, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops so many of the first bytes.
    pub(crate) fn forget(&mut self, bytes: usize) {
        self.bytes.copy_within(bytes..self.end, 0);
        self.end -= bytes;
    }

    /// Room for so many bytes behind what has come.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.end + bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.end..end]
    }

    /// So many bytes were put into the room.
    pub(crate) fn came(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.bytes.len());
    }

    /// Keeps what follows the first `done` bytes, in no more memory than it needs, and gives the rest of the memory away; gives
    /// none where what stays takes half of it.
    pub(crate) fn give_memory(&mut self, done: usize) -> Option<Input> {
        let rest_bytes = self.end - done;
        if rest_bytes > 0 && rest_bytes >= self.capacity() / 2 {
            return None;
        }
        let rest = Input { bytes: self[done..].to_vec(), end: rest_bytes };
        let spare = mem::replace(self, rest);
        Some(Input { end: 0, ..spare })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_is_not_shown_again() {
        let mut input = Input::default();
        input.room(8).copy_from_slice(b"get key1");
        input.came(8);
        assert_eq!(*input, *b"get key1");
        let mut spare = input.give_memory(8).unwrap();
        assert_eq!((input.len(), input.capacity(), spare.len()), (0, 0, 0));
        spare.room(4)[..2].copy_from_slice(b"mn");
        spare.came(2);
        assert_eq!(*spare, *b"mn");
    }

    #[test]
    fn the_rest_moves_to_the_front_and_stays_where_it_takes_half_of_the_memory() {
        let mut input = Input::default();
        input.room(100)[..5].copy_from_slice(b"a\r\nge");
        input.came(5);
        input.forget(3);
        assert_eq!(*input, *b"ge");
        let spare = input.give_memory(0).unwrap();
        assert_eq!((&*input, input.capacity()), (&b"ge"[..], 2));
        assert!(spare.capacity() >= 100 && input.give_memory(0).is_none());
    }
}
