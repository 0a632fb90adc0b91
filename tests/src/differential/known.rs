//! What differs from memcached 1.6.18 on purpose. The specification follows 1.6.45, and wins.
//!
//! Each entry says it of one request and both answers, so that nothing else hides behind it.

use super::Dialect;
use super::request::stated_bytes;

/// One request, and what was answered.
pub(super) struct Exchange<'a> {
    pub(super) request: &'a [u8],
    /// Whether it is one request; else several in a row.
    pub(super) is_alone: bool,
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
    /// Whether the servers hold different items from here on, or read different requests.
    pub(super) is_last: bool,
    dialects: &'static [Dialect],
    matches: fn(&Exchange<'_>) -> bool,
}

const TEXT: &[Dialect] = &[Dialect::Classic, Dialect::Meta];
const META: &[Dialect] = &[Dialect::Meta];
const BINARY: &[Dialect] = &[Dialect::Binary];

const BAD_LINE: &str = "CLIENT_ERROR bad command line format";

/// All of them.
const KNOWN: &[Known] = &[
    Known {
        rule: "F4, F5",
        what: "a line below four bytes, or with too few words, is a bad line, not an unknown name",
        is_last: false,
        dialects: TEXT,
        matches: |it| {
            (it.has_too_few_words() || it.lines().chain([it.surplus()]).any(|line| line.len() < 4))
                && it.only_differs_in("ERROR", BAD_LINE)
        },
    },
    Known {
        rule: "F10",
        what: "a length that is none is told in spite of noreply",
        is_last: true,
        dialects: TEXT,
        matches: |it| {
            it.words().last() == Some(&&b"noreply"[..])
                && stated_bytes(it.lines().next().unwrap_or_default()).is_none()
                && it.ours == format!("{BAD_LINE}\n{}", it.theirs)
        },
    },
    Known {
        rule: "F5, S3",
        what: "a store with too few words, or a cas without its number, is a bad line, not an unknown name",
        is_last: true,
        dialects: TEXT,
        matches: |it| {
            let words = it.words().len();
            it.theirs.starts_with("ERROR")
                && it.ours.starts_with(BAD_LINE)
                && match it.name() {
                    b"set" | b"add" | b"replace" | b"append" | b"prepend" => words < 6,
                    b"cas" => words < 7,
                    _ => false,
                }
        },
    },
    Known {
        rule: "F5",
        what: "a gat of no key is a bad line before its lifetime is looked at",
        is_last: false,
        dialects: TEXT,
        matches: |it| {
            it.has_too_few_words()
                && it.name().starts_with(b"gat")
                && (it.only_differs_in("CLIENT_ERROR invalid exptime argument", BAD_LINE)
                    || it.only_differs_in("END", BAD_LINE))
        },
    },
    Known {
        rule: "F7",
        what: "an unsigned number is digits only, without a sign or a carriage return behind it",
        is_last: true,
        dialects: TEXT,
        matches: |it| {
            it.ours.starts_with("CLIENT_ERROR")
                && !it.theirs.starts_with(it.ours)
                && it.words().into_iter().skip(1).any(is_nearly_a_number)
        },
    },
    Known {
        rule: "F9",
        what: "a negative length, or one of 2^31-2 and more, is a bad line",
        is_last: false,
        dialects: TEXT,
        matches: |it| it.has_bad_length() && it.only_differs_in("CLIENT_ERROR bad data chunk", BAD_LINE),
    },
    Known {
        rule: "S3, L2",
        what: "the data block goes with a bad line, and flags beyond 32 bits make one",
        is_last: true,
        dialects: TEXT,
        matches: |it| {
            it.is_bad_store()
                && (it.ours == format!("{BAD_LINE}\n") || it.ours.is_empty() || it.is_meta_error())
                && it.theirs != it.ours
        },
    },
    Known {
        rule: "M2",
        what: "each command accepts the flags of all, and those that came after 1.6.18 (E, x, s of ms, any of me)",
        is_last: true,
        dialects: META,
        matches: |it| it.theirs.contains("CLIENT_ERROR invalid") && it.has_later_flag(),
    },
    Known {
        rule: "M2, Z6",
        what: "only ma has one word for a flag that is unknown and one that is repeated",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.name() != b"ma"
                && (it.only_differs_in("CLIENT_ERROR invalid or duplicate flag", "CLIENT_ERROR invalid flag")
                    || it.only_differs_in(
                        "CLIENT_ERROR invalid or duplicate flag",
                        "CLIENT_ERROR duplicate flag",
                    ))
        },
    },
    Known {
        rule: "M2, Z6",
        what: "me reads its flags, and refuses those that are wrong",
        is_last: false,
        dialects: META,
        matches: |it| it.name() == b"me" && it.is_meta_error() && !it.theirs.contains("ERROR"),
    },
    Known {
        rule: "M5",
        what: "ma q hides success, also with the number (v) or a new item (N)",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.name() == b"ma"
                && it.words().iter().skip(2).any(|word| word[0] == b'q')
                && it.ours.is_empty()
                && (it.theirs.starts_with("HD") || it.theirs.starts_with("VA "))
        },
    },
    Known {
        rule: "M7",
        what: "the engine keeps no times of access, so me tells no la",
        is_last: false,
        dialects: META,
        matches: |it| it.name() == b"me" && it.theirs != it.ours && it.theirs.replace(" la=*", "") == it.ours,
    },
    Known {
        rule: "D8",
        what: "ms tells the size (s)",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.name() == b"ms"
                && it.words().contains(&&b"s"[..])
                && it.theirs != it.ours
                && without_size(it.ours) == it.theirs
        },
    },
    Known {
        rule: "X3",
        what: "a lifetime or CAS of a meta command that is no number is a bad token",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.name().len() == 2
                && it.words().iter().skip(2).any(|word| {
                    matches!(word[0], b'T' | b'N' | b'R' | b'C' | b'E')
                        && (word.len() == 1 || !word[1..].iter().all(u8::is_ascii_digit))
                })
                && it.only_differs_in(
                    "CLIENT_ERROR invalid or duplicate flag",
                    "CLIENT_ERROR bad token in command line format",
                )
        },
    },
    Known {
        rule: "X3",
        what: "lifetimes have 64 bits",
        is_last: true,
        dialects: TEXT,
        matches: |it| it.has_long_lifetime(),
    },
    Known {
        rule: "X1",
        what: "an item that is dead when it is made has no time to live",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.words().iter().any(|word| matches!(word[0], b'N' | b'T') && word[1..].starts_with(b"-"))
                && it.ours.contains(" t0")
                && without_ttl(it.ours) == without_ttl(it.theirs)
        },
    },
    Known {
        rule: "M3",
        what: "an item that mg N makes remembers that its key came in base64",
        is_last: true,
        dialects: META,
        matches: |it| {
            it.name() == b"mg"
                && it.words().contains(&&b"b"[..])
                && it.words().iter().any(|word| word[0] == b'N')
                && it.ours.lines().next().is_some_and(|line| line.contains(" b ") && line.ends_with(" W"))
                && it.theirs.lines().next().is_some_and(|line| line.ends_with(" W"))
        },
    },
    Known {
        rule: "M3",
        what: "md and ma tell a key that can't be decoded",
        is_last: false,
        dialects: META,
        matches: |it| {
            it.words().contains(&&b"b"[..])
                && it.only_differs_in(
                    "CLIENT_ERROR invalid or duplicate flag",
                    "CLIENT_ERROR error decoding key",
                )
        },
    },
    Known {
        rule: "D8",
        what: "ms N makes the item that it was to append to",
        is_last: true,
        dialects: META,
        matches: |it| {
            it.name() == b"ms"
                && it.words().iter().skip(3).any(|word| word[0] == b'N')
                && it.theirs.starts_with("NS")
                && (it.ours.starts_with("HD") || it.ours.is_empty())
        },
    },
    Known {
        rule: "A5",
        what: "a number that got shorter is padded, which memcached leaves out while an answer holds the item",
        is_last: true,
        dialects: &[Dialect::Classic, Dialect::Meta, Dialect::Binary],
        matches: |it| unpadded(it.theirs) == unpadded(it.ours),
    },
    Known {
        rule: "R2",
        what: "a key that is too long discards what its own get gathered, not the answers to what came before",
        is_last: false,
        dialects: TEXT,
        matches: |it| {
            !it.is_alone
                && it.theirs.contains(BAD_LINE)
                && it.ours.contains(BAD_LINE)
                && it.lines().any(is_get_of_a_long_key)
        },
    },
    Known {
        rule: "R2",
        what: "OPEN: a gat with a key that is too long touches nothing; memcached touches those before it",
        is_last: true,
        dialects: TEXT,
        matches: |it| it.lines().any(|line| line.starts_with(b"gat") && is_get_of_a_long_key(line)),
    },
    Known {
        rule: "F6",
        what: "a line that is too long closes, and what was answered before still comes",
        is_last: true,
        dialects: TEXT,
        matches: |it| {
            it.theirs.ends_with("<closed>")
                && it.ours.ends_with("<closed>")
                && it.ours.starts_with(it.theirs.trim_end_matches("<closed>"))
                && it.lines().any(|line| line.len() > 2048)
        },
    },
    Known {
        rule: "B4",
        what: "a touch with a body behind its key has wrong lengths: invalid arguments, not a miss",
        is_last: true,
        dialects: BINARY,
        matches: |it| {
            matches!(it.request.get(1), Some(0x1c..=0x1e | 0x23 | 0x24))
                && it.theirs.ends_with("<closed>")
                && it.ours.contains(" status=0004 ")
                && it.ours.ends_with("<closed>")
        },
    },
    Known {
        rule: "B4",
        what: "a bad packet's error, and what was answered before it, come before the connection is closed",
        is_last: true,
        dialects: BINARY,
        matches: |it| {
            it.theirs.ends_with("<closed>")
                && it.ours.ends_with("<closed>")
                && it.ours.starts_with(it.theirs.trim_end_matches("<closed>"))
        },
    },
];

/// The known difference that this is: an entry may hold of equal answers too, where what the servers hold differs.
pub(super) fn find(dialect: Dialect, exchange: &Exchange<'_>) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        known.dialects.contains(&dialect)
            && (exchange.theirs != exchange.ours || (known.is_last && matches!(known.rule, "X3" | "R2")))
            && (exchange.is_alone || matches!(known.rule, "R2" | "B4" | "F6" | "A5" | "X3"))
            && (known.matches)(exchange)
    })
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

    fn name(&self) -> &'a [u8] {
        self.words().first().copied().unwrap_or_default()
    }

    /// Whether the answers are the same but for lines that are `theirs` there and `ours` here.
    fn only_differs_in(&self, theirs: &str, ours: &str) -> bool {
        self.theirs != self.ours
            && self.theirs.lines().count() == self.ours.lines().count()
            && self
                .theirs
                .lines()
                .zip(self.ours.lines())
                .all(|(their, our)| their == our || (their, our) == (theirs, ours))
    }

    /// What comes behind the block that the first line states.
    fn surplus(&self) -> &'a [u8] {
        let line = self.lines().next().unwrap_or_default();
        let block = stated_bytes(line).map_or(0, |stated| stated + 2);
        self.request.get(line.len() + block..).unwrap_or_default()
    }

    fn has_bad_length(&self) -> bool {
        let place = if self.name() == b"ms" { 2 } else { 4 };
        let number = self.words().get(place).and_then(|word| str::from_utf8(word).ok()?.parse::<i128>().ok());
        number.is_some_and(|number| !(0..(1 << 31) - 2).contains(&number))
    }

    /// Fewer than rule F5 wants.
    fn has_too_few_words(&self) -> bool {
        let least = match self.name() {
            b"get" | b"gets" | b"delete" | b"mg" | b"md" | b"ma" | b"me" => 2,
            b"incr" | b"decr" | b"touch" | b"gat" | b"gats" | b"ms" => 3,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => 5,
            _ => 0,
        };
        self.words().len() < least
    }

    fn is_meta_error(&self) -> bool {
        self.ours.starts_with("CLIENT_ERROR") && self.ours.lines().count() == 1 && self.name().len() == 2
    }

    /// A storage command that states its length well and something else badly, by our reading.
    fn is_bad_store(&self) -> bool {
        stated_bytes(self.lines().next().unwrap_or_default()).is_some()
    }

    /// Whether a lifetime does not fit 32 bits.
    fn has_long_lifetime(&self) -> bool {
        self.lines().any(|line| Exchange { request: line, ..*self }.has_long_lifetime_first())
    }

    fn has_long_lifetime_first(&self) -> bool {
        let words = self.words();
        let place = match self.name() {
            b"touch" => 2,
            b"gat" | b"gats" | b"flush_all" => 1,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => 3,
            b"mg" | b"ms" | b"md" | b"ma" => {
                let is_lifetime = |word: &&&[u8]| matches!(word[0], b'T' | b'N' | b'R');
                return words.iter().skip(2).filter(is_lifetime).any(|word| is_beyond_32_bits(&word[1..]));
            }
            _ => return false,
        };
        words.get(place).is_some_and(|word| is_beyond_32_bits(word))
    }

    /// Whether a flag is there that memcached 1.6.18 did not have for the command, or had not at all.
    fn has_later_flag(&self) -> bool {
        self.lines().any(|line| {
            let known: &[u8] = match line.get(..3) {
                Some(b"mg ") => b"bcfhklOqstvuNTRC",
                Some(b"ms ") => b"bcCFIkOqTM",
                Some(b"md ") => b"bCIkOqT",
                Some(b"ma ") => b"bNJDTMqtcvkOC",
                _ => return false,
            };
            let words = line.trim_ascii_end().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            words.skip(2).any(|word| word[0].is_ascii_alphabetic() && !known.contains(&word[0]))
        })
    }
}

/// A status line without the size that it tells.
fn without_size(answer: &str) -> String {
    let is_size = |word: &&str| word.starts_with('s') && word[1..].bytes().all(|byte| byte.is_ascii_digit());
    let line =
        |line: &str| line.split(' ').filter(|word| !is_size(word)).collect::<Vec<_>>().join(" ") + "\n";
    answer.lines().map(line).collect()
}

/// A status line without its time to live.
fn without_ttl(answer: &str) -> String {
    let words =
        |line: &str| line.split(' ').filter(|word| !word.starts_with('t')).collect::<Vec<_>>().join(" ");
    answer.lines().map(words).collect()
}

/// The answer without the spaces behind numbers, and the lengths that count them.
fn unpadded(answer: &str) -> String {
    let is_size = |word: &str| {
        word.trim_start_matches('s').bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty()
    };
    let line = |line: &str| {
        let is_head = ["VALUE ", "VA ", "HD "].iter().any(|head| line.starts_with(head));
        match is_head {
            true => line.split(' ').filter(|word| !is_size(word)).collect::<Vec<_>>().join(" "),
            false => line.trim_end_matches("\\r\\n").trim_end().to_owned(),
        }
    };
    answer.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_get_of_a_long_key(line: &[u8]) -> bool {
    [&b"get"[..], b"gat"].iter().any(|name| line.starts_with(name))
        && line.trim_ascii_end().split(|byte| *byte == b' ').any(|word| word.len() > 250)
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

fn is_beyond_32_bits(word: &[u8]) -> bool {
    let number = str::from_utf8(word).ok().and_then(|text| text.parse::<i128>().ok());
    number.is_some_and(|number| i32::try_from(number).is_err())
}
