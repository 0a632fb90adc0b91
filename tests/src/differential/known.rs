//! What differs from memcached 1.6.18 on purpose. The specification follows 1.6.45, and wins.

use super::Dialect;

/// One request, or several without a no-op between them, and what was answered.
pub(super) struct Exchange<'a> {
    pub(super) request: &'a [u8],
    /// What was requested before, over the same connection.
    pub(super) before: &'a [Vec<u8>],
    /// memcached's answer, masked.
    pub(super) theirs: &'a str,
    /// Ours, masked.
    pub(super) ours: &'a str,
}

/// A difference that is meant.
pub(super) struct Known {
    /// The rule of the specification that says so.
    pub(super) rule: &'static str,
    /// What differs.
    pub(super) what: &'static str,
    dialects: &'static [Dialect],
    matches: fn(&Exchange<'_>) -> bool,
}

const TEXT: &[Dialect] = &[Dialect::Classic, Dialect::Meta];
const META: &[Dialect] = &[Dialect::Meta];
const BINARY: &[Dialect] = &[Dialect::Binary];

const STORES: [&[u8]; 7] = [b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"ms"];

const BAD_LINE: &str = "CLIENT_ERROR bad command line format";

/// All of them.
const KNOWN: &[Known] = &[
    Known {
        rule: "F4, F5",
        what: "a line below four bytes, or with too few words, is a bad line, not an unknown name",
        dialects: TEXT,
        matches: |it| {
            it.only_differs_in("ERROR", BAD_LINE)
                || it.only_differs_in("MN", BAD_LINE)
                || it.only_differs_in("CLIENT_ERROR invalid exptime argument", BAD_LINE)
        },
    },
    Known {
        rule: "F5",
        what: "more words than a command needs do no harm",
        dialects: TEXT,
        matches: |it| it.has_too_many_words() && it.theirs.starts_with("ERROR"),
    },
    Known {
        rule: "F7",
        what: "an unsigned number is digits only, without a sign or a carriage return behind it",
        dialects: TEXT,
        matches: |it| {
            it.ours.lines().any(|line| line.starts_with("CLIENT_ERROR"))
                && it.all_words().any(is_nearly_a_number)
        },
    },
    Known {
        rule: "F9",
        what: "a length below 0 or from 2^31-2 on is a bad line, whose data block is not skipped",
        dialects: TEXT,
        matches: |it| it.is_store() && it.ours.starts_with(BAD_LINE) && it.has_bad_length(),
    },
    Known {
        rule: "S3",
        what: "the data block goes with a bad line, and is not taken for commands",
        dialects: TEXT,
        matches: |it| {
            it.has_store()
                && (it.theirs_has_more_errors()
                    || it.ours.ends_with("<silence>") && !it.ours.starts_with("VA"))
        },
    },
    Known {
        rule: "L2",
        what: "flags beyond 32 bits are refused, not cut",
        dialects: TEXT,
        matches: |it| it.has_store() && it.ours.contains(BAD_LINE) && it.all_words().any(is_beyond_32_bits),
    },
    Known {
        rule: "L3",
        what: "a value that is too large is refused before all of it has come",
        dialects: &[Dialect::Classic, Dialect::Meta, Dialect::Binary],
        matches: |it| {
            it.theirs.ends_with("<silence>") && it.ours.contains("too large")
                || it.ours.contains("Too large.")
        },
    },
    Known {
        rule: "B4",
        what: "what was answered before a bad packet still comes",
        dialects: BINARY,
        matches: |it| {
            it.theirs.ends_with("<closed>") && it.ours.ends_with("<closed>") && has_prefix(it.ours, it.theirs)
        },
    },
    Known {
        rule: "B2",
        what: "the body of an unknown command is skipped, and nothing behind it",
        dialects: BINARY,
        matches: |it| {
            it.ours.contains("Unknown command")
                && (it.theirs.ends_with("<closed>") || it.theirs.ends_with("<silence>"))
        },
    },
    Known {
        rule: "M2",
        what: "each command accepts the flags of all, and those that came after 1.6.18 (E, x, s of ms, any of me)",
        dialects: META,
        matches: |it| it.theirs.contains("CLIENT_ERROR invalid") && it.has_later_flag(),
    },
    Known {
        rule: "M2",
        what: "only ma has one word for a flag that is unknown and one that is repeated",
        dialects: META,
        matches: |it| it.theirs.contains("invalid or duplicate flag") && it.ours.contains(" flag"),
    },
    Known {
        rule: "M3",
        what: "OPEN, the rule wants what memcached does: an item does not remember that its key came in base64",
        dialects: META,
        matches: |it| {
            it.before.iter().any(|request| has_word(request, b"b"))
                && (it.theirs.contains(" b\n") || it.theirs.starts_with("ME "))
        },
    },
    Known {
        rule: "M5",
        what: "ma q hides a number that it made (N)",
        dialects: META,
        matches: |it| {
            it.lines().any(|line| line.starts_with(b"ma ") && has_word(line, b"q"))
                && it.theirs.len() > it.ours.len()
        },
    },
    Known {
        rule: "M2, Z6",
        what: "me reads its flags, and refuses those that are wrong",
        dialects: META,
        matches: |it| it.lines().any(|line| line.starts_with(b"me ")) && it.ours.contains("CLIENT_ERROR"),
    },
    Known {
        rule: "M7",
        what: "the engine keeps no times of access, so me tells no la",
        dialects: META,
        matches: |it| it.theirs.replace(" la=*", "") == it.ours,
    },
    Known {
        rule: "D8",
        what: "ms tells the size (s)",
        dialects: META,
        matches: |it| it.is_store() && it.has_later_flag() && without_size(it.ours) == it.theirs,
    },
    Known {
        rule: "R2",
        what: "a key that is too long discards what its own get gathered, not the answers to what came before",
        dialects: TEXT,
        matches: |it| {
            it.theirs.trim_end().ends_with(BAD_LINE)
                && it.ours.trim_end().ends_with(BAD_LINE)
                && it.has_get_of_a_long_key()
        },
    },
    Known {
        rule: "X3",
        what: "lifetimes have 64 bits",
        dialects: TEXT,
        matches: |it| it.before.iter().map(Vec::as_slice).chain([it.request]).any(has_long_lifetime),
    },
];

/// The known difference that this is.
pub(super) fn find(dialect: Dialect, exchange: &Exchange<'_>) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.dialects.contains(&dialect) && (known.matches)(exchange))
}

impl<'a> Exchange<'a> {
    fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.request.split_inclusive(|byte| *byte == b'\n')
    }

    /// The words of the first line.
    fn words(&self) -> Vec<&'a [u8]> {
        let line = self.lines().next().unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect()
    }

    /// Whether the answers are the same but for lines that are `theirs` there and `ours` here.
    fn only_differs_in(&self, theirs: &str, ours: &str) -> bool {
        self.theirs.lines().count() == self.ours.lines().count()
            && self
                .theirs
                .lines()
                .zip(self.ours.lines())
                .all(|(their, our)| their == our || (their, our) == (theirs, ours))
    }

    fn is_store(&self) -> bool {
        self.words().first().is_some_and(|name| STORES.contains(name))
    }

    fn has_store(&self) -> bool {
        self.lines().any(|line| STORES.iter().any(|name| line.starts_with(name)))
    }

    fn has_get_of_a_long_key(&self) -> bool {
        self.lines().any(|line| {
            line.starts_with(b"get") && line.split(|byte| *byte == b' ').any(|word| word.len() > 250)
        })
    }

    /// The words of all lines.
    fn all_words(&self) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines().map(|line| line.strip_suffix(b"\n").unwrap_or(line));
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.flat_map(|line| line.split(|byte| *byte == b' '))
    }

    /// Whether a flag is there that memcached 1.6.18 did not have for the command, or had not at all.
    fn has_later_flag(&self) -> bool {
        self.lines().any(|line| {
            let known: &[u8] = match line.get(..3) {
                Some(b"mg ") => b"bcfhklOqstvuENTRC",
                Some(b"ms ") => b"bcCFIkOqTM",
                Some(b"md ") => b"bCIkOqT",
                Some(b"ma ") => b"bNJDTMqtcvkOC",
                _ => return false,
            };
            let words = line.trim_ascii_end().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            words.skip(2).any(|word| word[0].is_ascii_alphabetic() && !known.contains(&word[0]))
        })
    }

    fn has_bad_length(&self) -> bool {
        let words = self.words();
        let place = if words.first() == Some(&&b"ms"[..]) { 2 } else { 4 };
        let number = words.get(place).and_then(|word| str::from_utf8(word).ok()?.parse::<i128>().ok());
        number.is_none_or(|number| !(0..(1 << 31) - 2).contains(&number))
    }

    /// Whether memcached answered as we did, and with further errors among it, to what we skipped.
    fn theirs_has_more_errors(&self) -> bool {
        // Where much was to be skipped, our fence went with it.
        let mut ours = self.ours.trim_end_matches("<silence>").lines().peekable();
        for their in self.theirs.lines() {
            let is_same =
                ours.peek().is_some_and(|our| *our == their || (their, *our) == ("ERROR", BAD_LINE));
            if is_same {
                ours.next();
            } else if their != "ERROR" {
                return false;
            }
        }
        ours.next().is_none()
    }

    /// Whether the first line has more words than its command can use.
    fn has_too_many_words(&self) -> bool {
        let words = self.words();
        let most = match words.first().copied().unwrap_or_default() {
            b"set" | b"add" | b"replace" | b"append" | b"prepend" => 6,
            b"cas" => 7,
            b"incr" | b"decr" | b"touch" => 4,
            b"flush_all" | b"verbosity" => 3,
            _ => return false,
        };
        words.len() > most || (words.len() == most && words.last() != Some(&&b"noreply"[..]))
    }
}

fn has_word(line: &[u8], word: &[u8]) -> bool {
    line.split(|byte| byte.is_ascii_whitespace()).any(|other| other == word)
}

/// Whether the answer begins like the other one, but for how that ended.
fn has_prefix(answer: &str, other: &str) -> bool {
    answer.starts_with(other.trim_end_matches("<closed>"))
}

/// A status line without the size that it tells.
fn without_size(answer: &str) -> String {
    let is_size = |word: &&str| word.starts_with('s') && word[1..].bytes().all(|byte| byte.is_ascii_digit());
    let line =
        |line: &str| line.split(' ').filter(|word| !is_size(word)).collect::<Vec<_>>().join(" ") + "\n";
    answer.lines().map(line).collect()
}

/// `+1`, `-0`, `1\r`, also behind a flag's letter.
fn is_nearly_a_number(word: &[u8]) -> bool {
    let word = match word.split_first() {
        Some((letter, rest)) if letter.is_ascii_uppercase() => rest,
        _ => word,
    };
    let digits = word.strip_prefix(b"+").or(word.strip_prefix(b"-")).unwrap_or(word);
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    digits.len() < word.len() && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether a lifetime does not fit 32 bits.
fn has_long_lifetime(request: &[u8]) -> bool {
    request.split(|byte| *byte == b'\n').any(|line| {
        let words: Vec<&[u8]> =
            line.trim_ascii_end().split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        let name = words.first().copied().unwrap_or_default();
        let place = match name {
            b"touch" => 2,
            b"gat" | b"gats" | b"flush_all" => 1,
            _ => 3,
        };
        let classic = words.get(place).is_some_and(|word| is_beyond_32_bits(word));
        let is_flag =
            |word: &&[u8]| name.starts_with(b"m") && matches!(word.first(), Some(b'T' | b'N' | b'R'));
        classic || words.iter().any(|word| is_flag(word) && is_beyond_32_bits(&word[1..]))
    })
}

fn is_beyond_32_bits(word: &[u8]) -> bool {
    let number = str::from_utf8(word).ok().and_then(|text| text.parse::<i128>().ok());
    number.is_some_and(|number| i32::try_from(number).is_err())
}
