//! What differs in the commands of operators.

use super::reading::{BAD_LINE, Reading, decoded};
use super::{After, Exchange, Known, when};

pub(super) const KNOWN: &[Known] = &[
    Known {
        rule: "G4",
        what: "that shutdown is not enabled is an error of the protocol",
        sees: |it, request| {
            let is_it = it.is("ERROR: shutdown not enabled\n", "SERVER_ERROR: shutdown not enabled\n");
            when(request.name() == b"shutdown" && is_it, After::Same)
        },
    },
    Known {
        rule: "G7",
        what: "lru_crawler enable is OK, also where it is enabled",
        sees: |it, request| {
            let is_it = it.is("ERROR failed to start lru crawler thread\n", "OK\n");
            when(request.words == [&b"lru_crawler"[..], b"enable"] && is_it, After::Same)
        },
    },
    Known {
        rule: "G7",
        what: "a crawl is done when it is answered, so that none is ever refused for another one",
        sees: |it, request| {
            let is_crawl = matches!(request.words[..], [b"lru_crawler", b"crawl" | b"metadump", _]);
            let is_busy = it.theirs == "BUSY currently processing crawler request\n";
            let is_answer =
                matches!(it.ours, "OK\n" | "BADCLASS invalid class id\n" | "NOTSTARTED no items to crawl\n");
            when(is_crawl && is_busy && is_answer, After::Same)
        },
    },
    Known {
        rule: "G7, G8",
        what: "an answer that is not sent yet is a pipeline, also where memcached sends it at once",
        sees: |it, request| {
            let ours = match (request.name(), request.word(1)) {
                (b"lru_crawler", b"metadump") => "ERROR cannot pipeline other commands before metadump\n",
                (b"watch", _) => "ERROR cannot pipeline other commands before watch\n",
                _ => return None,
            };
            let is_refused = matches!(
                it.theirs,
                "ERROR\n" | "BADCLASS invalid class id\n" | "NOTSTARTED no items to crawl\n"
            );
            let is_dump = it.theirs.trim_end_matches("<silence>").ends_with("END\n");
            let is_watch = request.name() == b"watch" && it.theirs == "OK\n<silence>";
            when((is_refused || is_dump || is_watch) && it.ours == ours, After::Parted)
        },
    },
    Known {
        rule: "G9",
        what: "the classes are the engine's own, and no page is moved by hand",
        sees: |it, request| {
            let is_move =
                request.name() == b"slabs" && request.word(1) == b"reassign" && request.words.len() == 4;
            let is_answer = |answer: &Exchange<'_>| {
                let of_engine =
                    ["NOSPARE source class has no spare pages\n", "BADCLASS invalid src or dst class id\n"];
                let of_memcached = ["OK\n", "BUSY currently processing reassign request\n"];
                of_engine.contains(&answer.ours)
                    && of_engine.iter().chain(&of_memcached).any(|known| *known == answer.theirs)
            };
            when(is_move && is_answer(it), After::Same)
        },
    },
    Known {
        rule: "G7",
        what: "mgdump came after 1.6.18",
        sees: |it, request| {
            let is_it =
                request.name() == b"lru_crawler" && request.word(1) == b"mgdump" && request.words.len() == 3;
            let is_answer = matches!(
                it.ours,
                "BADCLASS invalid class id\n"
                    | "NOTSTARTED no items to crawl\n"
                    | "ERROR cannot pipeline other commands before mgdump\n"
            );
            when(is_it && it.theirs == "ERROR\n" && (is_answer || is_mgdump(it)), After::Same)
        },
    },
    Known { rule: "G7", what: "a metadump begins with OK, and its order is the engine's", sees: metadump },
    Known {
        rule: "G5",
        what: "the engine's classes are listed before they hold anything",
        sees: |it, request| {
            let is_it = request.name() == b"stats" && matches!(request.word(1), b"items" | b"slabs");
            when(is_it && it.is("END\n", "STAT *\nEND\n"), After::Same)
        },
    },
    Known {
        rule: "G5",
        what: "stats sizes goes through the items, and its switches' answers end with END",
        sees: |it, request| {
            let is_it = request.name() == b"stats" && request.word(1).starts_with(b"sizes");
            let is_table = |answer: &str| matches!(answer, "STAT *\nEND\n" | "STAT *\n" | "END\n");
            when(is_it && is_table(it.theirs) && is_table(it.ours) && it.ours.ends_with("END\n"), After::Same)
        },
    },
    Known {
        rule: "G3",
        what: "a limit beyond 32 bits is too large, not what is left of it in 32 bits",
        sees: |it, request| {
            let megabytes = str::from_utf8(request.word(1)).ok().and_then(|word| word.parse::<u64>().ok())?;
            let is_it = request.name() == b"cache_memlimit" && megabytes > u64::from(u32::MAX);
            when(
                is_it && it.ours == "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\n",
                After::Same,
            )
        },
    },
    Known {
        rule: "G9",
        what: "the engine tunes itself",
        sees: |it, request| {
            let is_tuning =
                request.name() == b"lru" && matches!(request.word(1), b"tune" | b"temp_ttl" | b"mode");
            let is_refused =
                it.ours.starts_with("ERROR this engine ") || it.ours.starts_with("ERROR the order of this");
            when(is_tuning && it.theirs == "OK\n" && is_refused, After::Same)
        },
    },
    Known {
        rule: "F7",
        what: "a class beyond 32 bits is no number, not what is left of it in 32 bits",
        sees: |it, request| {
            let is_long = |word: &[u8]| {
                let number = str::from_utf8(word).ok().and_then(|text| text.parse::<i128>().ok());
                number.is_some_and(|number| i32::try_from(number).is_err())
            };
            let is_move = request.name() == b"slabs" && request.word(1) == b"reassign";
            let is_it = is_move && (is_long(request.word(2)) || is_long(request.word(3)));
            when(is_it && it.ours == BAD_LINE, After::Same)
        },
    },
    Known {
        rule: "F7",
        what: "a number has no sign, nor white space",
        sees: |it, request| {
            let ours = match request.name() {
                b"cache_memlimit" => "ERROR\n",
                b"slabs" | b"lru_crawler" => BAD_LINE,
                _ => return None,
            };
            when(request.has_nearly_a_number() && it.ours == ours, After::Same)
        },
    },
];

/// Whether ours is a whole mgdump: each key once, as it would be asked for, and only keys that this conversation has named.
fn is_mgdump(it: &Exchange<'_>) -> bool {
    let Some(lines) = it.ours.strip_prefix("OK\n").and_then(|rest| rest.strip_suffix("EN\n")) else {
        return false;
    };
    let named: Vec<Vec<u8>> = it.before.iter().flat_map(|before| Reading::of(before).subjects()).collect();
    let mut keys: Vec<Option<Vec<u8>>> = lines
        .lines()
        .map(|line| match *line.split(' ').collect::<Vec<_>>() {
            ["mg", key] => Some(key.as_bytes().to_vec()),
            ["mg", key, "b"] => decoded(key.as_bytes()),
            _ => None,
        })
        .collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    keys.len() == count && keys.iter().flatten().filter(|key| named.contains(key)).count() == count
}

/// Rule G7. Behind its dump 1.6.18 reads what has come already only once more comes.
fn metadump(it: &Exchange<'_>, request: &Reading<'_>) -> Option<After> {
    if request.name() != b"lru_crawler" || request.word(1) != b"metadump" || request.words.len() != 3 {
        return None;
    }
    let theirs = it.theirs.strip_suffix("<silence>").unwrap_or(it.theirs);
    let sorted = |answer: &str| {
        let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let is_same = match request.word(2) {
        b"all" | b"hash" => it.ours.strip_prefix("OK\n").is_some_and(|ours| sorted(ours) == sorted(theirs)),
        // The classes are the engine's own.
        _ => {
            let refusals = ["NOTSTARTED no items to crawl\n", "BADCLASS invalid class id\n"];
            let is_answer = |answer: &str| answer.ends_with("END\n") || refusals.contains(&answer);
            is_answer(theirs) && is_answer(it.ours)
        }
    };
    when(is_same, After::Parted)
}
