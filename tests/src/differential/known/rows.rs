//! What differs of several requests in a row, and of a connection that ends: memcached takes back what it has not sent.

use super::classic::has_counted;
use super::reading::{BAD_LINE, LINE_BYTES_MAX, Reading, lines};
use super::{After, Exchange, Known, when};

pub(super) const KNOWN: &[Known] = &[
    Known {
        rule: "R2",
        what: "a key that is too long discards what its own get gathered, not the answers to what came before",
        sees: |it, _| {
            let is_refused = |line: &[u8]| {
                let request = Reading::of(line);
                request.is_get() && request.keys().iter().any(|key| key.len() > 250)
            };
            when(
                !it.is_alone && lines(it.request).any(is_refused) && lacks_lines_before_a_bad_line(it),
                After::Same,
            )
        },
    },
    Known {
        rule: "F6",
        what: "a line that is too long closes, and what was answered before still comes",
        sees: |it, _| {
            let has_long_line = lines(it.request).any(|line| line.len() > LINE_BYTES_MAX);
            when(has_long_line && is_cut_off(it), After::Parted)
        },
    },
    Known {
        rule: "B4",
        what: "a bad packet closes, and what was answered before still comes",
        sees: |it, _| {
            let is_several = !it.is_alone || super::binary::has_surplus(it);
            when(is_several && it.request.first() == Some(&0x80) && is_cut_off(it), After::Parted)
        },
    },
    Known {
        rule: "A5",
        what: "a number that got shorter is padded, which memcached leaves out while an answer holds the item",
        sees: |it, _| {
            let counts = has_counted(it.before) || has_counted(&[it.request.into()]) || !it.is_alone;
            when(counts && unpadded(it.theirs) == unpadded(it.ours), After::Parted)
        },
    },
];

/// Whether memcached leaves out answers before a bad line, and nothing else.
fn lacks_lines_before_a_bad_line(it: &Exchange<'_>) -> bool {
    let mut theirs = it.theirs.lines().rev().peekable();
    let mut is_bad_line = false;
    for line in it.ours.lines().rev() {
        if theirs.peek() == Some(&line) {
            theirs.next();
            is_bad_line = line == BAD_LINE.trim_end();
        } else if !is_bad_line {
            return false;
        }
    }
    theirs.next().is_none()
}

/// Whether both close, and memcached leaves out the end of what we answer.
fn is_cut_off(it: &Exchange<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (it.theirs.strip_suffix("<closed>"), it.ours.strip_suffix("<closed>"))
    else {
        return false;
    };
    ours.starts_with(theirs)
}

/// The answer without the spaces behind values that are numbers, and without the lengths that count them.
fn unpadded(answer: &str) -> String {
    let mut unpadded = String::new();
    let mut lines = answer.lines();
    while let Some(line) = lines.next() {
        let is_value = ["VALUE ", "VA "].iter().any(|head| line.starts_with(head));
        let value = is_value.then(|| lines.next()).flatten();
        let digits =
            value.and_then(|value| value.strip_suffix("\\r\\n")).map(|value| value.trim_end_matches(' '));
        match (digits, value) {
            (Some(digits), Some(value)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let bytes = (value.len() - "\\r\\n".len()).to_string();
                let is_kept = |word: &&str| *word != bytes && *word != format!("s{bytes}");
                let words: Vec<_> = line.split(' ').filter(is_kept).collect();
                unpadded.push_str(&format!("{}\n{digits}\n", words.join(" ")));
            }
            (_, value) => unpadded.push_str(&format!("{line}\n{}\n", value.unwrap_or_default())),
        }
    }
    unpadded
}
