//! What differs in the classic commands, and in lines that are none.

use std::collections::BTreeSet;

use super::reading::{
    BAD_LINE, LINE_BYTES_MAX, Reading, StoreFault, is_harmless, our_answers, their_answers,
};
use super::{After, Exchange, Known, Proof, Proven, Silent, when};

/// From here on a value may lie in pieces here, in bytes.
pub(super) const CONTIGUOUS_BYTES_MIN: usize = 16 << 10;

pub(super) const KNOWN: &[Known] = &[
    Known {
        rule: "F4",
        what: "a line below four bytes is a bad line, not an unknown name",
        sees: |it, request| {
            let count = count_differing_lines(it, "ERROR", "CLIENT_ERROR bad command line format");
            when(count.is_some_and(|count| count == request.count_short_lines()), After::Same)
        },
    },
    Known {
        rule: "F5",
        what: "a line with too few words is a bad line, not an unknown name",
        sees: too_few_words,
    },
    Known {
        rule: "F4, F5",
        what: "lines behind an unknown name are commands, and the bad ones among them are told so",
        sees: |it, request| {
            let theirs = format!("ERROR\n{}", their_answers(request.rest));
            let ours = format!("ERROR\n{}", our_answers(request.rest));
            when(!request.has_known_name() && is_harmless(request.rest) && it.is(&theirs, &ours), After::Same)
        },
    },
    Known {
        rule: "F5",
        what: "a gat of no key is a bad line before its lifetime is looked at",
        sees: |it, request| {
            let is_theirs = matches!(it.theirs, "CLIENT_ERROR invalid exptime argument\n" | "END\n");
            let has_no_key =
                request.name().starts_with(b"gat") && request.is_get() && request.words.len() == 2;
            when(has_no_key && is_theirs && it.ours == BAD_LINE, After::Same)
        },
    },
    Known {
        rule: "F10",
        what: "a length that is none is told in spite of noreply",
        sees: length_with_noreply,
    },
    Known {
        rule: "F7",
        what: "a number has no sign and no carriage return behind it",
        sees: |it, request| {
            let is_refused = it.ours == refusal(request);
            let is_cut = request.stated_bytes().is_none() && is_refused_and_closed(it, request);
            when(request.has_nearly_a_number() && (is_refused || is_cut), After::Parted)
        },
    },
    Known {
        rule: "F9",
        what: "a length beyond 31 bits is a bad line, not what is left of it in 32 bits",
        sees: |it, request| {
            let is_ours = it.ours == refused_with_commands(request) || is_refused_and_closed(it, request);
            when(request.has_wrapped_length() && is_ours, After::Parted)
        },
    },
    Known { rule: "S3", what: "the data block goes with a bad line", sees: bad_store },
    Known {
        rule: "L2",
        what: "flags beyond 32 bits are a bad line, not what is left of them in 32 bits",
        sees: |it, request| {
            let is_long = request.store_fault() == Some(StoreFault::LongFlags);
            when(is_long && it.ours == skipped_block(request), After::Parted)
        },
    },
    Known {
        rule: "X3",
        what: "a lifetime has 64 bits, and one beyond them is the longest",
        sees: |it, request| {
            let is_refused = match request.name() {
                b"touch" | b"gat" | b"gats" | b"flush_all" => {
                    it.theirs == "CLIENT_ERROR invalid exptime argument\n"
                }
                _ => is_refused_and_read_on(it, request, if request.is_noreply() { "" } else { BAD_LINE }),
            };
            let is_alike = request.is_get() && hits(it.theirs) == hits(it.ours);
            let is_it = is_refused && takes_lifetime(it, request) || is_alike;
            when(!request.is_meta() && request.has_long_lifetime() && is_it, After::Parted)
        },
    },
    Known {
        rule: "F2",
        what: "a name with a space before it is unknown",
        sees: |it, request| {
            let ours = format!("ERROR\n{}", our_answers(request.rest));
            when(it.request.starts_with(b" ") && it.ours == ours, After::Parted)
        },
    },
    Known {
        rule: "F6",
        what: "a gat may have any number of keys, however it comes",
        sees: |it, request| {
            let is_long = request.is_get() && it.request.len() > LINE_BYTES_MAX;
            when(is_long && it.theirs == "<closed>" && it.ours.ends_with("END\n"), After::Parted)
        },
    },
    Known {
        rule: "F6",
        what: "a line is too long by its own bytes, also one that has come whole",
        sees: |it, request| when(request.is_too_long_line() && it.ours == "<closed>", After::Parted),
    },
    Known {
        rule: "L3",
        what: "an item counts with the engine's header, not memcached's: a value just below the limit has bad ends told",
        sees: |it, request| {
            let is_near =
                request.stated_bytes().is_some_and(|bytes| bytes < 1 << 20 && bytes + 400 > 1 << 20);
            let is_theirs = it.theirs.starts_with("SERVER_ERROR object too large for cache\n");
            when(is_near && is_theirs && it.ours.starts_with("CLIENT_ERROR bad data chunk\n"), After::Parted)
        },
    },
    Known {
        rule: "A3",
        what: "a value in pieces is no number, and the engine's pieces are smaller than memcached's",
        sees: |it, request| {
            let has_grown = it.before.iter().any(|before| before.len() > CONTIGUOUS_BYTES_MIN);
            let is_refused = it.ours == "CLIENT_ERROR cannot increment or decrement non-numeric value\n";
            let is_counted =
                it.theirs.starts_with("HD") || it.theirs.starts_with("VA ") || starts_with_digit(it.theirs);
            when(request.counts().is_some() && has_grown && is_refused && is_counted, After::Parted)
        },
    },
    Known {
        rule: "A3",
        what: "a number above 2^63 is one; memcached looks for a sign behind it, in what was there before",
        sees: |it, request| {
            let is_theirs = it.theirs == "CLIENT_ERROR cannot increment or decrement non-numeric value\n";
            let number =
                it.ours.lines().next_back().and_then(|line| line.trim_end_matches("\\r\\n").parse().ok());
            let is_counted = number.is_some() || it.ours.is_empty() || it.ours.starts_with("HD");
            let (delta, is_down) = request.counts()?;
            let of = Proven::HoldsLargeNumber { delta, is_down, told: number };
            when(is_theirs && is_counted, After::PartedIf(Proof { key: request.key()?, of }))
        },
    },
];

pub(super) const SILENT: &[Silent] = &[
    Silent { rule: "X3", what: "a lifetime has 64 bits", sees: |request| request.has_long_lifetime() },
    Silent {
        rule: "F7",
        what: "a number has no sign and no carriage return behind it, not even with noreply",
        sees: |request| request.has_nearly_a_number(),
    },
    Silent {
        rule: "L2",
        what: "flags beyond 32 bits are a bad line, not even with noreply",
        sees: |request| request.store_fault() == Some(StoreFault::LongFlags),
    },
    Silent {
        rule: "R2",
        what: "a gat that is refused for a long key touches nothing; memcached touches the keys before it",
        sees: |request| {
            let place = request.keys().iter().position(|key| key.len() > 250);
            request.name().starts_with(b"gat") && place.is_some_and(|place| place > 0)
        },
    },
    Silent {
        rule: "G2",
        what: "what a flush has hidden stays hidden; with memcached it comes back when a later flush is ordered",
        sees: |request| {
            request.name() == b"flush_all"
                && !matches!(request.word(1), b"" | b"noreply" | b"0")
                && !request.word(1).starts_with(b"-")
        },
    },
];

/// How many lines are `theirs` there and `ours` here, if the others are the same.
fn count_differing_lines(it: &Exchange<'_>, theirs: &str, ours: &str) -> Option<usize> {
    if it.theirs.lines().count() != it.ours.lines().count() {
        return None;
    }
    let differing: Vec<_> =
        it.theirs.lines().zip(it.ours.lines()).filter(|(their, our)| their != our).collect();
    differing.iter().all(|pair| *pair == (theirs, ours)).then_some(differing.len())
}

/// Rule F5: what follows the line are commands, on both sides.
fn too_few_words(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let theirs = format!("ERROR\n{}", their_answers(request.rest));
    let ours = format!("{BAD_LINE}{}", our_answers(request.rest));
    // A cas without its number has enough words for the rule, and too few for 1.6.18 to look at the others.
    let is_short_cas =
        request.name() == b"cas" && request.words.len() == 5 && request.stated_bytes().is_none();
    let is_short = request.has_too_few_words() || is_short_cas;
    when(is_short && is_harmless(request.rest) && it.is(&theirs, &ours), After::Same)
}

/// Rule F10: the length is looked at before `noreply`.
fn length_with_noreply(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let is_bad = request.is_classic_store() && request.is_noreply() && request.stated_bytes().is_none();
    if !is_bad || !is_harmless(request.rest) || request.has_wrapped_length() || request.has_nearly_a_number()
    {
        return None;
    }
    when(it.is(&their_answers(request.rest), &refused_with_commands(request)), After::Same)
}

/// Rule S3.
fn bad_store(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    let is_bad_ms = request.name() == b"ms" && request.has_long_key() && request.stated_bytes().is_some();
    let first = match request.store_fault() {
        _ if is_bad_ms => BAD_LINE,
        Some(StoreFault::LongFlags) | None => return None,
        Some(StoreFault::NoCas) => "ERROR\n",
        Some(StoreFault::Other) if request.is_noreply() => "",
        Some(StoreFault::Other) => BAD_LINE,
    };
    let is_ours = match is_harmless(request.surplus()) {
        true => it.ours == skipped_block(request),
        // What stands behind may be a request that is answered by what is stored.
        false => request.is_noreply() || it.ours.starts_with(BAD_LINE),
    };
    if !is_ours {
        return None;
    }
    let after = if is_harmless(request.rest) { After::Same } else { After::Parted };
    when(is_refused_and_read_on(it, request, first), after)
}

/// Whether memcached says `first`, and reads the data block as commands.
fn is_refused_and_read_on(it: &Exchange<'_>, request: &Reading<'_>, first: &str) -> bool {
    if is_harmless(request.rest) {
        return it.theirs == format!("{first}{}", their_answers(request.rest));
    }
    it.theirs.starts_with(first) || request.has_long_line_behind() && it.theirs == "<closed>"
}

/// Rule X3: whether our answer is one to a request whose lifetime is sound.
fn takes_lifetime(it: &Exchange<'_>, request: &Reading<'_>) -> bool {
    let quiet = |outcomes: &[&str]| match request.is_noreply() {
        true => it.ours.is_empty(),
        false => outcomes.contains(&it.ours),
    };
    match request.name() {
        b"flush_all" => quiet(&["OK\n"]),
        b"touch" if request.has_long_key() => quiet(&[BAD_LINE]),
        b"touch" => quiet(&["TOUCHED\n", "NOT_FOUND\n"]),
        b"gat" | b"gats" if request.keys().iter().any(|key| key.len() > 250) => it.ours == BAD_LINE,
        b"gat" | b"gats" => it.ours == "END\n" || it.ours.starts_with("VALUE ") && it.ours.ends_with("END\n"),
        _ if request.has_long_key() || request.store_fault().is_some() => it.ours == skipped_block(request),
        _ => {
            let surplus = our_answers(request.surplus());
            let outcomes = ["STORED\n", "NOT_STORED\n", "EXISTS\n", "NOT_FOUND\n"];
            let refusals = ["SERVER_ERROR object too large for cache\n", "CLIENT_ERROR bad data chunk\n"];
            let is_outcome = |outcome: &&str| it.ours == format!("{outcome}{surplus}");
            let is_told = !request.is_noreply() && outcomes.iter().chain(&refusals).any(is_outcome);
            let is_quiet = request.is_noreply() && it.ours == surplus;
            // What stands behind may be a request that is answered by what is stored.
            let is_followed =
                |outcome: &&str| !is_harmless(request.surplus()) && it.ours.starts_with(*outcome);
            is_told || is_quiet || outcomes.iter().chain(&refusals).any(is_followed)
        }
    }
}

/// What a get answers, each hit once: one that ends with its touch is a hit only once.
fn hits(answer: &str) -> BTreeSet<&str> {
    answer.split("VALUE ").map(|hit| hit.trim_end_matches("END\n")).collect()
}

/// A bad line whose data block is skipped.
fn skipped_block(request: &Reading<'_>) -> String {
    let told = if request.is_noreply() && request.is_classic_store() { "" } else { BAD_LINE };
    format!("{told}{}", our_answers(request.surplus()))
}

/// A bad line whose data block is read as commands.
fn refused_with_commands(request: &Reading<'_>) -> String {
    format!("{BAD_LINE}{}", our_answers(request.rest))
}

/// Whether our answer is a bad line, and the end: of a line in the data block that is too long (rules F5, F6).
fn is_refused_and_closed(it: &Exchange<'_>, request: &Reading<'_>) -> bool {
    request.has_long_line_behind() && it.ours.starts_with(BAD_LINE) && it.ours.ends_with("<closed>")
}

fn starts_with_digit(answer: &str) -> bool {
    answer.starts_with(|first: char| first.is_ascii_digit())
}

/// What the rules want said to a number that is nearly one.
fn refusal(request: &Reading<'_>) -> String {
    let quiet = |told: &str| if request.is_noreply() { String::new() } else { told.to_owned() };
    match request.name() {
        b"incr" | b"decr" => quiet("CLIENT_ERROR invalid numeric delta argument\n"),
        b"touch" | b"gat" | b"gats" | b"flush_all" => quiet("CLIENT_ERROR invalid exptime argument\n"),
        b"verbosity" => quiet(BAD_LINE),
        b"cache_memlimit" => quiet("ERROR\n"),
        b"slabs" | b"lru_crawler" => BAD_LINE.to_owned(),
        b"ma" => "CLIENT_ERROR invalid or duplicate flag\n".to_owned(),
        _ if request.is_classic_store() && request.stated_bytes().is_some() => skipped_block(request),
        _ if request.is_classic_store() || request.name() == b"ms" && request.stated_bytes().is_none() => {
            refused_with_commands(request)
        }
        _ => {
            let told = match request.nearly_a_number_flag() {
                Some(b'F') => BAD_LINE,
                Some(b'J') => "CLIENT_ERROR invalid numeric initial value\n",
                Some(b'D') => "CLIENT_ERROR invalid numeric delta value\n",
                _ => "CLIENT_ERROR bad token in command line format\n",
            };
            format!("{told}{}", our_answers(request.surplus()))
        }
    }
}
