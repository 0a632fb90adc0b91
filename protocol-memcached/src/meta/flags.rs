//! The flags behind a key: one letter each, some with an argument glued to it (rule M1).
//!
//! One set for all commands: a letter that one of them knows the others accept and ignore (rule M2). The words stay
//! where they are, since answers repeat them in their order; the numbers among them are read once.

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
const OPAQUE_BYTES_MAX: usize = 32;

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag<'a> {
    /// Its letter.
    pub letter: u8,
    /// The whole word: the letter and its argument.
    pub word: &'a [u8],
}

/// The flags of a line, each letter at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags<'a> {
    words: Tokens<'a>,
    /// Bit `letter - b'A'` for each letter that is there.
    present: u64,
    /// `T`: the time to live; see [`lifetime`](crate::classic::lifetime).
    pub ttl: Option<i64>,
    /// `N`: the time to live of an item that is made on a miss (rules D4, D8, D12).
    pub vivify_ttl: Option<i64>,
    /// `R`: an item with less time to live is to be fetched anew, in seconds (rule D5).
    pub recache_ttl: Option<i64>,
    /// `C`: the CAS to compare with (rule M6).
    pub compare_cas: Option<u64>,
    /// `E`: the CAS that the item is to get (rule M6).
    pub new_cas: Option<u64>,
    /// `F`: the client's flags.
    pub client_flags: Option<u32>,
    /// `J`: the number that a counter begins with (rule D12).
    pub initial: Option<u64>,
    /// `D`: by how much a counter goes (rule D12).
    pub delta: Option<u64>,
    /// `M`: the letter of a mode.
    pub mode: Option<u8>,
}

const fn bit(letter: u8) -> u64 {
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

    pub(super) fn of(words: Tokens<'a>) -> Result<Flags<'a>, ErrorReply> {
        let mut flags = Flags {
            words,
            present: 0,
            ttl: None,
            vivify_ttl: None,
            recache_ttl: None,
            compare_cas: None,
            new_cas: None,
            client_flags: None,
            initial: None,
            delta: None,
            mode: None,
        };
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
            match flags.read_argument(flag) {
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

    fn read_argument(&mut self, flag: Flag<'a>) -> Result<(), ErrorReply> {
        let argument = &flag.word[1..];
        let signed = || number::signed(argument).map(Some).ok_or(ErrorReply::BadToken);
        let unsigned = |fault| number::unsigned(argument).map(Some).ok_or(fault);
        match flag.letter {
            b'T' => self.ttl = signed()?,
            b'N' => self.vivify_ttl = signed()?,
            b'R' => self.recache_ttl = signed()?,
            b'C' => self.compare_cas = unsigned(ErrorReply::BadToken)?,
            b'E' => self.new_cas = unsigned(ErrorReply::BadToken)?,
            b'J' => self.initial = unsigned(ErrorReply::BadInitial)?,
            b'D' => self.delta = unsigned(ErrorReply::BadDelta)?,
            b'F' => self.client_flags = Some(number::flags(argument).ok_or(ErrorReply::BadLine)?),
            b'M' => match argument {
                [mode] => self.mode = Some(*mode),
                _ => return Err(ErrorReply::BadModeLength),
            },
            _ => {}
        }
        Ok(())
    }

    /// Whether the letter is there.
    pub fn has(&self, letter: u8) -> bool {
        self.present & bit(letter) != 0
    }

    /// Each flag, in the request's order.
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
                b'N' => ttl = self.vivify_ttl,
                b'T' => ttl = self.ttl,
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
