//! The words of a line: separated by one or more spaces, and by nothing else (rule F2).

use crate::scan::word_bytes;

/// Words, found as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a> {
    line: &'a [u8],
}

/// The keys of a get: as many as the line has, each checked when the line was parsed (rule R2).
pub type Keys<'a> = Tokens<'a>;

impl<'a> Tokens<'a> {
    /// The words of a line without its end.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        Tokens { line }
    }

    /// Each word, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let mut rest = *self;
        std::iter::from_fn(move || rest.next_word())
    }

    /// The bytes of the words that are left, and of the spaces around them.
    pub(crate) fn bytes(&self) -> usize {
        self.line.len()
    }

    /// Takes the first word off.
    #[inline]
    pub(crate) fn next_word(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.line {
            self.line = rest;
        }
        let (word, rest) = self.line.split_at(word_bytes(self.line));
        self.line = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Takes a last word `noreply` off; whether it was there (rule F10).
    pub(crate) fn take_noreply(&mut self) -> bool {
        let end = self.line.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        match self.line[..end].strip_suffix(b"noreply") {
            Some(before) if before.is_empty() || before.ends_with(b" ") => {
                self.line = before;
                true
            }
            _ => false,
        }
    }
}
