//! What differs in the meta commands.

use super::reading::{BAD_LINE, Reading, decoded, our_answers, their_answers};
use super::{After, Exchange, Known, Proof, Proven, Silent, when};

const INVALID: &str = "CLIENT_ERROR invalid flag\n";
const INVALID_OR_DUPLICATE: &str = "CLIENT_ERROR invalid or duplicate flag\n";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag\n";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format\n";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key\n";

/// The letters of any meta command (rule M2).
const LETTERS: &[u8] = b"bcfhklstvuqxOFCMJDIENTRPL";
/// Those that came after 1.6.18.
const LATER_LETTERS: &[u8] = b"Ex";
/// The longest opaque token with its letter, in bytes (rule L6).
const OPAQUE_BYTES_MAX: usize = 32;
/// The most words of a line (rule L6).
const WORDS_MAX: usize = 20;

pub(super) const KNOWN: &[Known] = &[
    Known {
        rule: "M2",
        what: "the flags E and x came after 1.6.18",
        sees: |it, request| {
            let is_later = |word: &&[u8]| LATER_LETTERS.contains(&word[0]);
            let is_unknown = matches!(first_line(it.theirs), INVALID | INVALID_OR_DUPLICATE);
            let is_refused = matches!(first_line(it.ours), INVALID | INVALID_OR_DUPLICATE)
                && !request.flags().iter().any(|word| !LETTERS.contains(&word[0]));
            when(request.flags().iter().any(is_later) && is_unknown && !is_refused, After::Parted)
        },
    },
    Known {
        rule: "M2, Z6",
        what: "only ma has one word for a flag that is unknown and one that is repeated; an unknown one is told first",
        sees: |it, request| {
            let is_unknown = request.flags().iter().any(|word| !LETTERS.contains(&word[0]));
            let ours = match () {
                _ if request.name() == b"ma" => return None,
                _ if is_unknown => INVALID,
                _ if request.has_repeated_flag() => DUPLICATE,
                _ => return None,
            };
            let theirs = if request.name() == b"md" { INVALID_OR_DUPLICATE } else { DUPLICATE };
            let (theirs_behind, ours_behind) = answers_behind(request);
            when(it.is(&format!("{theirs}{theirs_behind}"), &format!("{ours}{ours_behind}")), After::Same)
        },
    },
    Known {
        rule: "M2",
        what: "me reads its flags, and refuses those that are wrong",
        sees: |it, request| {
            let is_theirs = it.theirs.starts_with("ME ") || matches!(it.theirs, "EN\n" | BAD_LINE);
            let is_wrong = request.flags().iter().any(|word| !LETTERS.contains(&word[0]));
            let ours = match () {
                _ if is_wrong => INVALID,
                _ if request.has_repeated_flag() => DUPLICATE,
                _ => flag_fault(request)?,
            };
            when(request.name() == b"me" && is_theirs && it.ours == ours, After::Same)
        },
    },
    Known {
        rule: "M2",
        what: "me takes b wherever it stands, and overlooks what is behind the letter",
        sees: |it, request| {
            let has_b = request.name() == b"me" && request.flag(b'b').is_some() && request.word(2) != b"b";
            when(has_b && [it.theirs, it.ours].iter().all(|answer| is_debug_line(answer)), After::Same)
        },
    },
    Known {
        rule: "M2",
        what: "md says what is wrong with an argument or a key, as mg does",
        sees: |it, request| {
            let is_it = request.name() == b"md" && it.theirs == INVALID_OR_DUPLICATE;
            when(is_it && it.ours == flag_fault(request)?, After::Same)
        },
    },
    Known {
        rule: "M3",
        what: "a key that does not decode is told if no argument is bad",
        sees: |it, request| {
            let ours = fault_of(request, request.flags().iter().filter(|word| word[0] != b'b'))?;
            let (theirs_behind, ours_behind) = answers_behind(request);
            let is_it = it.is(&format!("{BAD_KEY}{theirs_behind}"), &format!("{ours}{ours_behind}"));
            when(is_it && !is_base64(request.word(1)), After::Same)
        },
    },
    Known {
        rule: "M3",
        what: "what has anything but base64's own digits, and padding at its end, is no base64",
        sees: |it, request| {
            let passes_over = request.flag(b'b').is_some() && !is_base64(request.word(1));
            let fault = if request.name() == b"ma" { INVALID_OR_DUPLICATE } else { flag_fault(request)? };
            let ours = format!("{fault}{}", our_answers(request.surplus()));
            when(passes_over && request.is_meta() && !is_refused(it.theirs) && it.ours == ours, After::Parted)
        },
    },
    Known {
        rule: "L6",
        what: "20 words are not too many, and 21 are told in the same words by all",
        sees: too_many_words,
    },
    Known {
        rule: "M5",
        what: "ma q hides success, also that of a new item (N)",
        sees: |it, request| {
            let is_quiet =
                request.name() == b"ma" && request.flag(b'q').is_some() && request.flag(b'N').is_some();
            let is_success = it.theirs.starts_with("HD") || it.theirs.starts_with("VA ");
            when(is_quiet && it.ours.is_empty() && is_success, After::Same)
        },
    },
    Known {
        rule: "D8",
        what: "ms tells the size (s)",
        sees: |it, request| {
            let is_asked = request.name() == b"ms" && request.flag(b's').is_some();
            let theirs = told_by_both(it, request);
            let (their_head, our_head) = (first_line(&theirs), first_line(it.ours));
            let is_head = without(our_head, "s") == without(their_head, "");
            let surplus = request.surplus();
            let is_rest = it.ours[our_head.len()..] == our_answers(surplus)
                && theirs[their_head.len()..] == their_answers(surplus);
            when(is_asked && is_head && is_rest, After::Same)
        },
    },
    Known { rule: "X1", what: "an item that is dead when it is made has no time to live", sees: dead_ttl },
    Known { rule: "X3", what: "a lifetime of a meta command has 64 bits", sees: long_lifetime },
    Known {
        rule: "L2",
        what: "flags beyond 32 bits are a bad line, not what is left of them in 32 bits",
        sees: |it, request| {
            let is_long = request.flag(b'F').is_some_and(|word| {
                let number = str::from_utf8(&word[1..]).ok().and_then(|text| text.parse::<u64>().ok());
                number.is_some_and(|number| number > u64::from(u32::MAX))
            });
            let told = if request.name() == b"ma" { INVALID_OR_DUPLICATE } else { BAD_LINE };
            when(is_long && it.ours == format!("{told}{}", our_answers(request.surplus())), After::Parted)
        },
    },
    Known {
        rule: "L6",
        what: "an opaque that is too long is told before anything is done",
        sees: |it, request| {
            let ours = format!("CLIENT_ERROR opaque token too long\n{}", our_answers(request.surplus()));
            when(has_long_opaque(request) && it.ours == ours, After::Parted)
        },
    },
    Known { rule: "D12", what: "ma T gives its time to live also to a number that grows", sees: lost_ttl },
    Known {
        rule: "D7",
        what: "mg tells opaque and key of a miss",
        sees: |it, request| {
            let is_told = request.flag(b'O').or(request.flag(b'k')).is_some();
            let is_miss = it.theirs == "EN\n" && it.ours == format!("EN{}\n", echo(request));
            when(request.name() == b"mg" && is_told && is_miss, After::Same)
        },
    },
    Known {
        rule: "M3",
        what: "an item that mg N makes remembers that its key came in base64",
        sees: |it, request| {
            let is_asked = request.flag(b'b').is_some() && request.flag(b'k').is_some();
            let is_made = request.name() == b"mg" && request.flag(b'N').is_some() && is_won(it.theirs);
            when(is_asked && is_made && told_by_both(it, request) == decoded_keys(it.ours)?, After::Parted)
        },
    },
    Known {
        rule: "M3",
        what: "an item that grows remembers that its key came in base64",
        sees: |it, request| {
            let has_grown = it.before.iter().any(|before| {
                let before = Reading::of(before);
                matches!(before.name(), b"append" | b"prepend" | b"incr" | b"decr" | b"ma")
                    || matches!(before.flag(b'M'), Some(b"MA" | b"MP"))
            });
            let is_told = request.name() == b"me" || request.flag(b'k').is_some();
            when(has_grown && is_told && told_by_both(it, request) == decoded_keys(it.ours)?, After::Same)
        },
    },
    Known {
        rule: "D8",
        what: "ms N makes the item that it was to append to",
        sees: |it, request| {
            let appends = matches!(request.flag(b'M'), Some(b"MA" | b"MP"));
            let is_it = request.name() == b"ms" && appends && request.flag(b'N').is_some();
            let is_made = match request.flag(b'q') {
                Some(_) => it.ours.is_empty(),
                None => it.ours.starts_with("HD"),
            };
            when(is_it && it.theirs.starts_with("NS") && is_made, After::Parted)
        },
    },
    Known {
        rule: "D2",
        what: "mg C withholds the value that the client has",
        sees: |it, request| {
            let cas = request.flag(b'C').and_then(|word| str::from_utf8(&word[1..]).ok()?.parse().ok())?;
            let theirs = told_by_both(it, request);
            let (head, _value) = theirs.split_once('\n')?;
            let mut flags = head.strip_prefix("VA ")?.splitn(2, ' ').skip(1);
            let ours = flags.next().map_or("HD\n".to_owned(), |flags| format!("HD {flags}\n"));
            let proof = Proof { key: request.key()?, of: Proven::HasCas(cas) };
            // An item that is given a dead time to live shows nothing any more.
            let is_dead = request.flag(b'T').is_some_and(|word| is_dead_lifetime(&word[1..]));
            let after = if is_dead { After::Parted } else { After::SameIf(proof) };
            when(request.name() == b"mg" && it.ours == ours, after)
        },
    },
];

pub(super) const SILENT: &[Silent] = &[
    Silent {
        rule: "M3",
        what: "an item that mg N or ma N makes remembers that its key came in base64",
        sees: |request| {
            let makes = matches!(request.name(), b"mg" | b"ma") && request.flag(b'N').is_some();
            makes && request.flag(b'b').is_some()
        },
    },
    Silent {
        rule: "R2",
        what: "a get that is refused for a long key has read nothing; memcached has read the keys before it",
        sees: |request| {
            request.is_get()
                && request.keys().iter().position(|key| key.len() > 250).is_some_and(|place| place > 0)
        },
    },
    Silent {
        rule: "L6",
        what: "an opaque that is too long is told before anything is done",
        sees: |request| has_long_opaque(request) && matches!(request.name(), b"mg" | b"ma"),
    },
];

fn first_line(answer: &str) -> &str {
    answer.find('\n').map_or(answer, |at| &answer[..=at])
}

/// Our answer with the key as it is stored, where it tells one in base64.
fn decoded_keys(answer: &str) -> Option<String> {
    let (head, value) = answer.split_once('\n')?;
    let words: Vec<&str> = head.split(' ').collect();
    let place = match words[0] {
        "ME" => 1,
        _ => words.iter().skip(1).position(|word| word.starts_with('k'))? + 1,
    };
    let letters = usize::from(words[0] != "ME");
    let key = decoded(&words[place].as_bytes()[letters..])?.escape_ascii().to_string();
    let mut told: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    told[place].truncate(letters);
    told[place].push_str(&key);
    if letters == 1 {
        // The mark behind it says that it is encoded.
        (told.get(place + 1).map(String::as_str) == Some("b")).then(|| told.remove(place + 1))?;
    }
    Some(told.join(" ") + "\n" + value)
}

/// What each side answers to what stands behind the request.
fn answers_behind(request: &Reading<'_>) -> (String, String) {
    (their_answers(request.surplus()), our_answers(request.surplus()))
}

fn is_debug_line(answer: &str) -> bool {
    answer == "EN\n" || answer.starts_with("ME ") && answer.lines().count() == 1
}

/// Whether the first line tells that the token was won.
fn is_won(answer: &str) -> bool {
    first_line(answer).trim_end().ends_with(" W")
}

fn has_long_opaque(request: &Reading<'_>) -> bool {
    request.flag(b'O').is_some_and(|word| word.len() > OPAQUE_BYTES_MAX)
}

/// What the rules say to the last argument that is none, or else to the key.
fn flag_fault(request: &Reading<'_>) -> Option<&'static str> {
    let is_of_key = |word: &&&[u8]| word[0] == b'b';
    let of_arguments = fault_of(request, request.flags().iter().filter(|word| !is_of_key(word)));
    of_arguments.or_else(|| fault_of(request, request.flags().iter().filter(is_of_key)))
}

fn fault_of<'a>(request: &Reading<'_>, flags: impl Iterator<Item = &'a &'a [u8]>) -> Option<&'static str> {
    let is_number = |word: &[u8], most: u64| {
        let number = str::from_utf8(word).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|text| text.parse::<u64>().ok()).is_some_and(|number| number <= most)
    };
    let is_signed = |word: &[u8]| {
        let digits = word.strip_prefix(b"-").unwrap_or(word);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    let mut fault = None;
    for word in flags {
        let argument = &word[1..];
        match word[0] {
            b'T' | b'N' | b'R' if !is_signed(argument) => fault = Some(BAD_TOKEN),
            b'C' | b'E' if !is_number(argument, u64::MAX) => fault = Some(BAD_TOKEN),
            b'J' if !is_number(argument, u64::MAX) => {
                fault = Some("CLIENT_ERROR invalid numeric initial value\n")
            }
            b'D' if !is_number(argument, u64::MAX) => {
                fault = Some("CLIENT_ERROR invalid numeric delta value\n")
            }
            b'F' if !is_number(argument, u32::MAX.into()) => fault = fault.or(Some(BAD_LINE)),
            b'M' if argument.len() != 1 => fault = Some("CLIENT_ERROR incorrect length for M token\n"),
            b'b' if !is_base64(request.word(1)) => fault = Some(BAD_KEY),
            _ => {}
        }
    }
    fault
}

fn is_base64(word: &[u8]) -> bool {
    decoded(word).is_some()
}

/// The flags O and k, as they are told of a miss.
fn echo(request: &Reading<'_>) -> String {
    let key = request.word(1).escape_ascii().to_string();
    let tell = |word: &&[u8]| match word[0] {
        b'O' => Some(format!(" {}", word.escape_ascii())),
        b'k' => Some(format!(" k{key}{}", if request.flag(b'b').is_some() { " b" } else { "" })),
        _ => None,
    };
    request.flags().iter().filter_map(tell).collect()
}

/// An answer without the flags whose letter is one of these and whose argument is a number.
fn without(answer: &str, letters: &str) -> String {
    let is_kept = |word: &&str| {
        let argument = word.strip_prefix(|letter| letters.contains(letter));
        !argument.is_some_and(|argument| argument.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let line = |line: &str| line.split(' ').filter(is_kept).collect::<Vec<_>>().join(" ") + "\n";
    answer.lines().map(line).collect()
}

/// Rule X1: memcached tells a time to live that has wrapped.
fn dead_ttl(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let is_asked = request.flag(b't').is_some() && gives_dead_lifetime(request);
    when(is_asked && told_by_both(it, request) == it.ours, After::Same)
}

fn gives_dead_lifetime(request: &Reading<'_>) -> bool {
    request.flags().iter().any(|word| matches!(word[0], b'N' | b'T') && is_dead_lifetime(&word[1..]))
}

/// Their answer with `t0` in the place of a time to live that has wrapped.
fn told_by_both(it: &Exchange<'_>, request: &Reading<'_>) -> String {
    let has_dead_lifetime = gives_dead_lifetime(request);
    let is_wrapped = |word: &str| {
        let ttl = word.strip_prefix('t').and_then(|ttl| ttl.parse::<u64>().ok());
        has_dead_lifetime && ttl.is_some_and(|ttl| ttl > u64::from(u32::MAX / 2))
    };
    let (head, rest) = it.theirs.split_at(first_line(it.theirs).len());
    let words = head.trim_end_matches('\n').split(' ');
    let words: Vec<&str> = words.map(|word| if is_wrapped(word) { "t0" } else { word }).collect();
    let end = if head.ends_with('\n') { "\n" } else { "" };
    words.join(" ") + end + rest
}

/// Rule L6: 1.6.18 counts the end of the line as a word, has two texts, and reads the data block as commands.
fn too_many_words(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let count = request.words.len();
    let their_text = match request.name() {
        b"mg" => "CLIENT_ERROR options flags are too long\n",
        b"ms" | b"md" | b"ma" => "CLIENT_ERROR options flags too long\n",
        _ => return None,
    };
    let theirs = format!("{their_text}{}", their_answers(request.rest));
    let ours = match () {
        () if request.has_long_key() || request.name() == b"ms" && request.stated_bytes().is_none() => {
            BAD_LINE
        }
        () if count > WORDS_MAX => "CLIENT_ERROR options flags are too long\n",
        () => "",
    };
    let is_ours = match ours {
        "" => count == WORDS_MAX,
        ours => it.ours == format!("{ours}{}", our_answers(request.surplus())),
    };
    let is_theirs = it.theirs == theirs || request.has_long_line_behind() && it.theirs == "<closed>";
    when(is_theirs && is_ours, After::Parted)
}

/// Rule D12: where the text of a number grows, 1.6.18 gives the time to live to the item that it has just replaced.
fn lost_ttl(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let subjects = request.subjects();
    let given = it.before.iter().rev().map(|before| Reading::of(before)).find_map(|before| {
        let is_it = before.name() == b"ma" && before.key().is_some_and(|key| subjects.contains(&key));
        before.flag(b'T').filter(|_| is_it)
    })?;
    let is_so = if is_dead_lifetime(&given[1..]) {
        tells_a_miss(it, request)
    } else {
        let is_told = |word: &str| word.strip_prefix('t').is_some_and(|ttl| ttl.parse::<i64>().is_ok());
        let ours = first_line(it.ours).split_whitespace().find(|word| is_told(word))?;
        let theirs = told_by_both(it, request);
        let other = first_line(&theirs).split_whitespace().find(|word| is_told(word))?.to_owned();
        theirs.replacen(&other, ours, 1) == it.ours && ours == told_lifetime(&given[1..])
    };
    when(is_so, After::Parted)
}

/// Whether we answer by an item that is gone, and memcached by one that is there.
fn tells_a_miss(it: &Exchange<'_>, request: &Reading<'_>) -> bool {
    let begins = |answer: &str, words: &[&str]| words.iter().any(|word| answer.starts_with(word));
    let is_quiet = request.is_noreply() || request.flag(b'q').is_some();
    let (there, gone): (&[&str], &[&str]) = match request.name() {
        _ if is_quiet => return true,
        b"get" | b"gets" | b"gat" | b"gats" => return it.ours.len() < it.theirs.len(),
        b"mg" => (&["HD", "VA "], &["EN", "HD", "VA "]),
        b"me" => (&["ME "], &["EN"]),
        b"md" => (&["HD", "EX"], &["NF"]),
        b"ma" => (&["HD", "VA ", "EX", "CLIENT_ERROR cannot"], &["NF", "HD", "VA "]),
        b"ms" => (&["HD", "EX", "NS"], &["HD", "NF", "NS"]),
        b"add" => (&["NOT_STORED\n"], &["STORED\n"]),
        b"replace" | b"append" | b"prepend" => (&["STORED\n"], &["NOT_STORED\n"]),
        b"cas" => (&["STORED\n", "EXISTS\n"], &["NOT_FOUND\n"]),
        b"delete" => (&["DELETED\n"], &["NOT_FOUND\n"]),
        b"touch" => (&["TOUCHED\n"], &["NOT_FOUND\n"]),
        _ => {
            let is_number = it.theirs.starts_with(|first: char| first.is_ascii_digit());
            return (is_number || it.theirs.starts_with("CLIENT_ERROR cannot")) && it.ours == "NOT_FOUND\n";
        }
    };
    begins(it.theirs, there) && begins(it.ours, gone)
}

/// A lifetime as `t` tells it, masked.
fn told_lifetime(argument: &[u8]) -> String {
    match str::from_utf8(argument).ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => "t-1".to_owned(),
        Some(seconds) if seconds <= 2_592_000 => format!("t{}", (seconds + 50) / 100 * 100),
        _ => "t*long".to_owned(),
    }
}

fn is_refused(answer: &str) -> bool {
    matches!(first_line(answer), BAD_KEY | INVALID_OR_DUPLICATE)
}

/// Negative, or a moment that is long past.
fn is_dead_lifetime(argument: &[u8]) -> bool {
    argument.starts_with(b"-") && argument != b"-0" || argument == b"2592001"
}

/// Rule X3: what is told of the time to live, and whether it is short enough for the token, may differ.
fn long_lifetime(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    if !request.has_long_lifetime() {
        return None;
    }
    let is_refused = matches!(first_line(it.theirs), BAD_TOKEN | INVALID_OR_DUPLICATE);
    let told = |answer: &str| {
        let is_kept = |word: &&str| !word.starts_with('t') && *word != "W";
        answer
            .lines()
            .map(|line| line.split(' ').filter(is_kept).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let is_alike = told(&told_by_both(it, request)) == told(it.ours);
    let is_taken = !matches!(first_line(it.ours), BAD_TOKEN | INVALID_OR_DUPLICATE);
    when(is_alike || is_refused && is_taken, After::Parted)
}
