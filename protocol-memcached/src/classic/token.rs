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

    /// Passes over so many words.
    pub fn skip_words(&mut self, words: usize) {
        for _ in 0..words {
            self.next_word();
        }
    }

    /// Takes as many words off as there is room for; gives how many those are.
    ///
    /// ```
    /// use hotspare_memcached::classic::Tokens;
    /// let (mut words, mut room) = (Tokens::new(b"a  bc d"), [&b""[..]; 2]);
    /// assert_eq!((words.take_words(&mut room), room), (2, [&b"a"[..], b"bc"]));
    /// assert_eq!((words.take_words(&mut room), room[0]), (1, &b"d"[..]));
    /// ```
    #[inline]
    pub fn take_words(&mut self, room: &mut [&'a [u8]]) -> usize {
        let mut taken = 0;
        while let Some(place) = room.get_mut(taken)
            && let Some(word) = self.next_word()
        {
            *place = word;
            taken += 1;
        }
        taken
    }

    /// Whether there is a word, and none is longer than this.
    pub(crate) fn are_words_within(self, bytes_max: usize) -> bool {
        let mut rest = self.line;
        rest.iter().any(|byte| *byte != b' ')
            && loop {
                // It begins where a word may.
                let Some(window) = rest.get(..=bytes_max) else { break true };
                match memchr::memrchr(b' ', window) {
                    // All words before this space are shorter than the window.
                    Some(space) => rest = &rest[space + 1..],
                    None => break false,
                }
            }
    }

    /// The bytes of the words that are left, and of the spaces around them.
    pub(crate) fn bytes(&self) -> usize {
        self.line.len()
    }

    /// Takes the first word off.
    #[inline(always)]
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
