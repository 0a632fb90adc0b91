//! The flags behind a key: one letter each, some with an argument glued to it (rule M1).
//!
//! One set for all commands: a letter that one of them knows the others accept and ignore (rule M2). The words stay
//! where they are, since answers repeat them in their order, and numbers are read from them when they are asked for: most requests
//! have none, and none carries room for all.

use crate::classic::{Tokens, number};

use super::response::ErrorReply;

/// The letters that some meta command knows, and `P` and `L`, which are for proxies (rule M2).
const LETTERS: u64 = {
    let (letters, mut all, mut at) = (b"bcfhklstvuqxOFCMJDIENTRPL", 0, 0);
    while at < letters.len() {
        all |= bit(letters[at]);
        at += 1;
    }
    all
};

/// The longest opaque token, its letter included, in bytes (rule L6).
pub(super) const OPAQUE_BYTES_MAX: usize = 32;

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag<'a> {
    /// Its letter.
    pub letter: u8,
    /// The whole word: the letter and its argument.
    pub word: &'a [u8],
}

/// The flags of a line, each letter at most once. Each number among them was found to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags<'a> {
    words: Tokens<'a>,
    /// Bit `letter - b'A'` for each letter that is there.
    present: u64,
}

/// The bit of a letter; none of what is no letter.
pub(super) const fn bit(letter: u8) -> u64 {
    match letter {
        b'A'..=b'z' => 1 << (letter - b'A'),
        _ => 0,
    }
}

impl<'a> Flags<'a> {
    /// The flags in these words, separated by spaces.
    ///
    /// # Errors
    /// A letter that no command knows, one letter twice, or an argument that is no number where one is needed.
    pub fn new(words: &'a [u8]) -> Result<Flags<'a>, ErrorReply> {
        Flags::of(Tokens::new(words))
    }

    /// Of words that begin with these letters, each once, and with none that takes a number.
    #[inline]
    pub(super) fn of_plain(words: Tokens<'a>, present: u64) -> Flags<'a> {
        Flags { words, present }
    }

    pub(super) fn of(words: Tokens<'a>) -> Result<Flags<'a>, ErrorReply> {
        let mut flags = Flags { words, present: 0 };
        let (mut is_repeated, mut fault) = (false, None);
        for flag in flags.iter() {
            let letter = bit(flag.letter);
            // Rule Z6: a letter that is unknown is told before one that is repeated.
            if LETTERS & letter == 0 {
                return Err(ErrorReply::InvalidFlag);
            }
            is_repeated |= flags.present & letter != 0;
            flags.present |= letter;
            // Of several faults memcached tells the last, and of client flags only if nothing else is wrong.
            match check_argument(flag) {
                Err(ErrorReply::BadLine) => fault = fault.or(Some(ErrorReply::BadLine)),
                Err(other) => fault = Some(other),
                Ok(()) => {}
            }
        }
        if is_repeated {
            return Err(ErrorReply::DuplicateFlag);
        }
        fault.map_or(Ok(flags), Err)
    }

    /// `T`: the time to live; see [`lifetime`](crate::classic::lifetime).
    pub fn ttl(&self) -> Option<i64> {
        self.argument(b'T').and_then(number::signed)
    }

    /// `N`: the time to live of an item that is made on a miss (rules D4, D8, D12).
    pub fn vivify_ttl(&self) -> Option<i64> {
        self.argument(b'N').and_then(number::signed)
    }

    /// `R`: an item with less time to live is to be fetched anew, in seconds (rule D5).
    pub fn recache_ttl(&self) -> Option<i64> {
        self.argument(b'R').and_then(number::signed)
    }

    /// `C`: the CAS to compare with (rule M6).
    pub fn compare_cas(&self) -> Option<u64> {
        self.argument(b'C').and_then(number::unsigned)
    }

    /// `E`: the CAS that the item is to get (rule M6).
    pub fn new_cas(&self) -> Option<u64> {
        self.argument(b'E').and_then(number::unsigned)
    }

    /// `F`: the client's flags.
    pub fn client_flags(&self) -> Option<u32> {
        self.argument(b'F').and_then(number::flags)
    }

    /// `J`: the number that a counter begins with (rule D12).
    pub fn initial(&self) -> Option<u64> {
        self.argument(b'J').and_then(number::unsigned)
    }

    /// `D`: by how much a counter goes (rule D12).
    pub fn delta(&self) -> Option<u64> {
        self.argument(b'D').and_then(number::unsigned)
    }

    /// `M`: the letter of a mode.
    pub fn mode(&self) -> Option<u8> {
        self.argument(b'M')?.first().copied()
    }

    /// What is glued to a letter, if that is there.
    #[inline]
    fn argument(&self, letter: u8) -> Option<&'a [u8]> {
        if !self.has(letter) {
            return None;
        }
        self.iter().find(|flag| flag.letter == letter).map(|flag| &flag.word[1..])
    }

    /// Whether the letter is there.
    #[inline]
    pub fn has(&self, letter: u8) -> bool {
        self.present & bit(letter) != 0
    }

    /// Each flag, in the request's order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Flag<'a>> + use<'a> {
        self.words.iter().map(|word| Flag { letter: word[0], word })
    }

    /// Whether one letter comes before another one that is there.
    pub fn is_before(&self, letter: u8, other: u8) -> bool {
        self.iter().take_while(|flag| flag.letter != other).any(|flag| flag.letter == letter)
    }

    /// The lifetime of an item that `N` makes: that of `N` or `T`, whichever comes last; and what `t` tells of it, which
    /// is what came before `t`, as memcached has it. `None` is no time to live yet.
    pub fn vivified_ttls(&self) -> (Option<i64>, Option<i64>) {
        let (mut ttl, mut told) = (None, None);
        for flag in self.iter() {
            match flag.letter {
                b'N' => ttl = self.vivify_ttl(),
                b'T' => ttl = self.ttl(),
                b't' => told = ttl,
                _ => {}
            }
        }
        (ttl, told)
    }

    /// Rule L6.
    pub(super) fn check_opaque(&self) -> Result<(), ErrorReply> {
        match self.has(b'O')
            && self.iter().any(|flag| flag.letter == b'O' && flag.word.len() > OPAQUE_BYTES_MAX)
        {
            true => Err(ErrorReply::OpaqueTooLong),
            false => Ok(()),
        }
    }
}

/// Whether a flag's argument is what its letter asks for.
#[inline]
fn check_argument(flag: Flag<'_>) -> Result<(), ErrorReply> {
    let argument = &flag.word[1..];
    let (is_sound, fault) = match flag.letter {
        b'T' | b'N' | b'R' => (number::signed(argument).is_some(), ErrorReply::BadToken),
        b'C' | b'E' => (number::unsigned(argument).is_some(), ErrorReply::BadToken),
        b'J' => (number::unsigned(argument).is_some(), ErrorReply::BadInitial),
        b'D' => (number::unsigned(argument).is_some(), ErrorReply::BadDelta),
        b'F' => (number::flags(argument).is_some(), ErrorReply::BadLine),
        b'M' => (argument.len() == 1, ErrorReply::BadModeLength),
        _ => return Ok(()),
    };
    if is_sound { Ok(()) } else { Err(fault) }
}
