//! A text request as the rules read it: its words, its data block, and what each side makes of what is left over.
//!
//! Written from the specification and not with our parser, whose mistakes it is to find.

/// The most bytes that a line may have (rule F6).
pub(super) const LINE_BYTES_MAX: usize = 2048;
/// The longest key, in bytes (rule L1).
const KEY_BYTES_MAX: usize = 250;
/// The largest length to state (rule F9).
const STATED_BYTES_MAX: u64 = (1 << 31) - 3;

pub(super) const BAD_LINE: &str = "CLIENT_ERROR bad command line format\n";

/// Every name that either server knows.
const NAMES: &[&[u8]] = &[
    b"get",
    b"gets",
    b"gat",
    b"gats",
    b"set",
    b"add",
    b"replace",
    b"append",
    b"prepend",
    b"cas",
    b"delete",
    b"incr",
    b"decr",
    b"touch",
    b"flush_all",
    b"verbosity",
    b"version",
    b"quit",
    b"stats",
    b"shutdown",
    b"mg",
    b"ms",
    b"md",
    b"ma",
    b"me",
    b"mn",
    b"bget",
    b"watch",
    b"lru",
    b"lru_crawler",
    b"slabs",
    b"cache_memlimit",
    b"refresh_certs",
    b"extstore",
    b"misbehave",
    b"debugtime",
];

/// One request.
pub(super) struct Reading<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// The words of the first line.
    pub(super) words: Vec<&'a [u8]>,
    /// What comes behind the first line: the data block, or further lines.
    pub(super) rest: &'a [u8],
    /// The first line's length, with its end.
    line_bytes: usize,
}

/// The words of a line without its end.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

impl<'a> Reading<'a> {
    pub(super) fn of(request: &'a [u8]) -> Reading<'a> {
        let line = lines(request).next().unwrap_or_default();
        Reading {
            bytes: request,
            words: words(without_end(line)).collect(),
            rest: &request[line.len()..],
            line_bytes: line.len(),
        }
    }

    pub(super) fn name(&self) -> &'a [u8] {
        self.word(0)
    }

    pub(super) fn has_known_name(&self) -> bool {
        NAMES.contains(&self.name())
    }

    /// A word of the first line; empty where there are not so many.
    pub(super) fn word(&self, place: usize) -> &'a [u8] {
        self.words.get(place).copied().unwrap_or_default()
    }

    pub(super) fn is_noreply(&self) -> bool {
        self.words.len() > 1 && self.words.last() == Some(&&b"noreply"[..])
    }

    pub(super) fn is_classic_store(&self) -> bool {
        matches!(self.name(), b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas")
    }

    pub(super) fn is_get(&self) -> bool {
        matches!(self.name(), b"get" | b"gets" | b"gat" | b"gats")
    }

    /// `mg ms md ma me`.
    pub(super) fn is_meta(&self) -> bool {
        matches!(self.name(), b"mg" | b"ms" | b"md" | b"ma" | b"me")
    }

    pub(super) fn has_long_key(&self) -> bool {
        self.word(1).len() > KEY_BYTES_MAX
    }

    /// The key as it is stored.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        match self.is_meta() && self.flag(b'b').is_some() {
            true => decoded(self.word(1)),
            false => Some(self.word(1).to_vec()),
        }
    }

    /// By how much a number is to be counted, and whether down.
    pub(super) fn counts(&self) -> Option<(u64, bool)> {
        let delta = match self.name() {
            b"incr" | b"decr" => self.word(2),
            b"ma" => self.flag(b'D').map_or(&b"1"[..], |word| &word[1..]),
            _ => return None,
        };
        let is_down = self.name() == b"decr" || matches!(self.flag(b'M'), Some(b"MD" | b"M-"));
        Some((unsigned(delta)?, is_down))
    }

    /// The keys that it is about.
    pub(super) fn subjects(&self) -> Vec<Vec<u8>> {
        match self.is_get() {
            true => self.keys().iter().map(|key| key.to_vec()).collect(),
            false => self.key().into_iter().collect(),
        }
    }

    /// The keys of a get or gat.
    pub(super) fn keys(&self) -> &[&'a [u8]] {
        let from = if self.name().starts_with(b"gat") { 2 } else { 1 };
        self.words.get(from..).unwrap_or_default()
    }

    /// A meta command's flags.
    pub(super) fn flags(&self) -> &[&'a [u8]] {
        let from = if self.name() == b"ms" { 3 } else { 2 };
        self.words.get(from..).filter(|_| self.is_meta()).unwrap_or_default()
    }

    /// The word of the flag with this letter.
    pub(super) fn flag(&self, letter: u8) -> Option<&'a [u8]> {
        self.flags().iter().find(|word| word[0] == letter).copied()
    }

    /// Whether a letter stands there twice.
    pub(super) fn has_repeated_flag(&self) -> bool {
        let flags = self.flags();
        flags.iter().enumerate().any(|(place, word)| flags[..place].iter().any(|known| known[0] == word[0]))
    }

    /// Fewer words than rule F5 wants.
    pub(super) fn has_too_few_words(&self) -> bool {
        let least = match self.name() {
            b"get" | b"gets" | b"bget" | b"delete" | b"mg" | b"md" | b"ma" | b"me" | b"verbosity" => 2,
            b"incr" | b"decr" | b"touch" | b"gat" | b"gats" | b"ms" => 3,
            _ if self.is_classic_store() => 5,
            _ => 0,
        };
        self.words.len() < least
    }

    /// More words than memcached takes: no rule speaks of it, and we do the same.
    pub(super) fn has_too_many_words(&self) -> bool {
        let most = match self.name() {
            b"cas" => 7,
            b"incr" | b"decr" | b"touch" | b"delete" => 4,
            b"flush_all" | b"verbosity" => 3,
            _ if self.is_classic_store() => 6,
            _ => usize::MAX,
        };
        self.words.len() > most
    }

    /// The word that states a storage command's length.
    fn stated_word(&self) -> Option<&'a [u8]> {
        let place = if self.name() == b"ms" { 2 } else { 4 };
        let is_store = self.is_classic_store() || self.name() == b"ms";
        self.words.get(place).filter(|_| is_store).copied()
    }

    /// The length that a storage command states, if it is one (rules F7, F9).
    pub(super) fn stated_bytes(&self) -> Option<usize> {
        let stated = unsigned(self.stated_word()?)?;
        (stated <= STATED_BYTES_MAX).then_some(stated as usize)
    }

    /// What memcached 1.6.18 takes the length for: it cuts 64 bits down to 32 (rule F9).
    pub(super) fn has_wrapped_length(&self) -> bool {
        let number = self.stated_word().and_then(|word| {
            // White space may stand behind it.
            let end = word.iter().rposition(|byte| !is_space(byte)).map_or(0, |at| at + 1);
            str::from_utf8(&word[..end]).ok()?.parse::<i64>().ok()
        });
        number.is_some_and(|number| number as i32 >= 0 && !(0..=STATED_BYTES_MAX as i64).contains(&number))
    }

    /// What comes behind the data block; all behind the line if that is none.
    pub(super) fn surplus(&self) -> &'a [u8] {
        let is_store = !self.has_too_few_words() && !self.has_too_many_words();
        let block = self.stated_bytes().filter(|_| is_store).map_or(0, |stated| stated + 2);
        self.rest.get(block..).unwrap_or_default()
    }

    /// Whether a line behind the first is so long that it closes the connection (rule F6), if it is read as one.
    pub(super) fn has_long_line_behind(&self) -> bool {
        lines(self.rest).any(|line| line.len() > LINE_BYTES_MAX)
    }

    /// A line above its bound: a get's has a larger one (rule F6).
    pub(super) fn is_too_long_line(&self) -> bool {
        self.line_bytes > LINE_BYTES_MAX && !self.is_get()
    }

    /// How many lines that are read as commands are shorter than rule F4 wants.
    pub(super) fn count_short_lines(&self) -> usize {
        let is_short = |line: &&[u8]| line.len() < 4;
        usize::from(self.line_bytes < 4) + lines(self.surplus()).filter(is_short).count()
    }

    /// A classic storage command with a bad number or key behind a readable length (rule S3). `None` for the first is
    /// flags that memcached 1.6.18 cuts down to 32 bits (rule L2).
    pub(super) fn store_fault(&self) -> Option<StoreFault> {
        let is_store = self.is_classic_store() && self.words.len() >= 5 && !self.has_too_many_words();
        self.stated_bytes().filter(|_| is_store)?;
        let has_cas = self.words.len() > 5 && unsigned(self.word(5)).is_some();
        let flags = without_plus(self.word(2));
        match () {
            _ if self.name() == b"cas" && self.words.len() == 5 => Some(StoreFault::NoCas),
            _ if self.has_long_key() => Some(StoreFault::Other),
            _ if !is_signed(without_plus(self.word(3))) => Some(StoreFault::Other),
            _ if unsigned(flags).is_none() => Some(StoreFault::Other),
            _ if self.name() == b"cas" && !has_cas => Some(StoreFault::Other),
            _ if unsigned(flags).is_some_and(|flags| u32::try_from(flags).is_err()) => {
                Some(StoreFault::LongFlags)
            }
            _ => None,
        }
    }

    /// The words that have to be numbers with the digits alone, or with `-` before them if `true` (rule F7).
    fn numbers(&self) -> Vec<(&'a [u8], bool)> {
        match self.name() {
            b"incr" | b"decr" => vec![(self.word(2), false)],
            b"verbosity" | b"cache_memlimit" => vec![(self.word(1), false)],
            b"slabs" => vec![(self.word(2), true), (self.word(3), true)],
            b"lru_crawler" => vec![(self.word(2), false)],
            b"touch" => vec![(self.word(2), true)],
            b"gat" | b"gats" | b"flush_all" => vec![(self.word(1), true)],
            b"cas" => vec![(self.word(4), false), (self.word(5), false)],
            _ if self.is_classic_store() => vec![(self.word(4), false)],
            b"ms" => vec![(self.word(2), false)],
            _ => Vec::new(),
        }
    }

    /// The letter of the last flag whose argument is nearly a number (rule F7).
    pub(super) fn nearly_a_number_flag(&self) -> Option<u8> {
        let is_nearly = |word: &&&[u8]| match word[0] {
            b'T' | b'N' | b'R' => is_nearly_a_number(&word[1..], true),
            b'C' | b'J' | b'D' => is_nearly_a_number(&word[1..], false),
            b'F' => word[1..].first() != Some(&b'+') && is_nearly_a_number(&word[1..], false),
            _ => false,
        };
        self.flags().iter().rfind(is_nearly).map(|word| word[0])
    }

    /// Whether a number has a sign, or a carriage return behind it, that memcached's C library overlooks (rule F7).
    /// Flags and lifetimes of the classic storage commands too, but for what may stand before them.
    pub(super) fn has_nearly_a_number(&self) -> bool {
        let is_nearly = |(word, is_signed): &(&[u8], bool)| is_nearly_a_number(word, *is_signed);
        self.numbers().iter().any(is_nearly)
            || self.nearly_a_number_flag().is_some()
            || self.is_classic_store()
                && (is_nearly_a_number(without_plus(self.word(2)), false)
                    || is_nearly_a_number(without_plus(self.word(3)), true))
    }

    /// Whether a lifetime does not fit 32 bits (rule X3).
    pub(super) fn has_long_lifetime(&self) -> bool {
        let is_long = |word: &[u8]| {
            let number = str::from_utf8(word).ok().and_then(|text| text.parse::<i128>().ok());
            number.is_some_and(|number| i32::try_from(number).is_err())
        };
        match self.name() {
            b"touch" => is_long(self.word(2)),
            b"gat" | b"gats" | b"flush_all" => is_long(self.word(1)),
            _ if self.is_classic_store() => is_long(self.word(3)),
            _ => self.flags().iter().any(|word| matches!(word[0], b'T' | b'N' | b'R') && is_long(&word[1..])),
        }
    }
}

/// What is wrong with a storage command whose length can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreFault {
    /// Flags above 32 bits.
    LongFlags,
    /// A cas that ends before its number.
    NoCas,
    /// A key that is too long, or a number that is none.
    Other,
}

/// What base64 stands for; `None` if it is none (rule M3).
pub(super) fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let sextet = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let sextets: Option<Vec<u8>> = digits.iter().map(sextet).collect();
    let sextets =
        sextets.filter(|_| text.len().is_multiple_of(4) && digits.len() % 4 != 1 && !digits.is_empty())?;
    let bits = |group: &[u8]| {
        group.iter().fold(0u32, |bits, sextet| bits << 6 | u32::from(*sextet)) << (6 * (4 - group.len()))
    };
    Some(sextets.chunks(4).flat_map(|group| bits(group).to_be_bytes()[1..group.len()].to_vec()).collect())
}

/// Flags and lifetimes of storage commands may have white space and a `+` before them (rule F7).
fn without_plus(word: &[u8]) -> &[u8] {
    let from = word.iter().position(|byte| !is_space(byte)).unwrap_or(word.len());
    word[from..].strip_prefix(b"+").unwrap_or(&word[from..])
}

/// What the C library passes over before a number, but for the space.
fn is_space(byte: &u8) -> bool {
    matches!(byte, b'\t' | b'\r' | 0x0b | 0x0c)
}

/// Digits alone.
fn unsigned(word: &[u8]) -> Option<u64> {
    let is_digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    str::from_utf8(word).ok().filter(|_| is_digits)?.parse().ok()
}

fn is_signed(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// `+1`, `-0`, `1\r`, `\t1`: white space but for the space, a sign, digits; behind them nothing, or white space and
/// anything.
fn is_nearly_a_number(word: &[u8], is_signed: bool) -> bool {
    let from = word.iter().position(|byte| !is_space(byte)).unwrap_or(word.len());
    let (sign, digits) = match word[from..].split_first() {
        Some((sign @ (b'+' | b'-'), digits)) => (Some(*sign), digits),
        _ => (None, &word[from..]),
    };
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends_well = digits.get(length).is_none_or(is_space);
    let is_zero = digits[..length].iter().all(|byte| *byte == b'0');
    // Without a sign that it may have, a negative number is one only where it is 0.
    let is_taken = is_signed || sign != Some(b'-') || is_zero;
    let is_sound = from == 0 && length == digits.len() && (sign.is_none() || is_signed && sign == Some(b'-'));
    length > 0 && ends_well && is_taken && !is_sound
}

/// Whether these lines, read as commands, are unknown ones, or names alone that want more: then they change nothing.
pub(super) fn is_harmless(rest: &[u8]) -> bool {
    lines(rest).all(|line| {
        let name = words(without_end(line)).next().unwrap_or_default();
        let is_known = NAMES.contains(&name) && !is_bare(line);
        line.len() <= LINE_BYTES_MAX && line.ends_with(b"\n") && !is_known
    })
}

/// A name alone that wants more words.
fn is_bare(line: &[u8]) -> bool {
    let request = Reading::of(line);
    request.words.len() == 1 && !line.starts_with(b" ") && request.has_too_few_words()
}

/// What memcached answers to harmless lines.
pub(super) fn their_answers(rest: &[u8]) -> String {
    let answer = |line| if is_bare(line) && Reading::of(line).name() == b"me" { BAD_LINE } else { "ERROR\n" };
    lines(rest).map(answer).collect()
}

/// What the rules want answered to harmless lines (rules F3 to F5).
pub(super) fn our_answers(rest: &[u8]) -> String {
    lines(rest).map(|line| if line.len() < 4 || is_bare(line) { BAD_LINE } else { "ERROR\n" }).collect()
}
