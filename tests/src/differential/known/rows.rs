//! What differs of several requests in a row, and of a connection that ends: memcached takes back what it has not sent.

use std::rc::Rc;

use super::binary::key_of;
use super::reading::{BAD_LINE, LINE_BYTES_MAX, Reading, is_harmless, lines};
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
            let refused = lines(it.request).filter(|line| is_refused(line)).count();
            let is_lacking = refused > 0 && lacks_lines_before_a_bad_line(it, refused);
            when(!it.row.is_empty() && is_lacking, After::Same)
        },
    },
    Known {
        rule: "F3, F6",
        what: "a line that is too long or HTTP closes, and what was answered before still comes",
        sees: |it, _| {
            let closes = |line: &[u8]| line.len() > LINE_BYTES_MAX || is_http(line);
            when(lines(it.request).any(closes) && is_cut_off(it), After::Parted)
        },
    },
    Known {
        rule: "B4",
        what: "a bad packet closes, and what was answered before still comes",
        sees: |it, _| {
            let is_several = !it.row.is_empty() || super::binary::has_surplus(it);
            when(is_several && it.request.first() == Some(&0x80) && is_cut_off(it), After::Parted)
        },
    },
    Known {
        rule: "A3",
        what: "a number above 2^63 is one; memcached looks for a sign behind it, in what was there before",
        sees: |it, _| when(super::binary::refuses_large_number(it), After::Parted),
    },
    Known {
        rule: "A5",
        what: "a number is counted in place, padded and with its marks; memcached makes it anew while an answer, or its own
            maintenance, holds the item",
        sees: |it, request| {
            let is_counted = reads_and_counts(it.row) || was_counted(it, request);
            when(is_counted && settled(it.theirs) == settled(it.ours), After::Parted)
        },
    },
    Known {
        rule: "A5",
        what: "what is appended to a number that was counted in place stands behind its padding, so it counts on; memcached's, made
            anew, has no padding",
        sees: |it, request| {
            let is_counted = has_counted(it.row) || was_counted(it, request);
            let all = it.before.iter().chain(it.row).map(|request| &request[..]);
            let is_appended = all.chain([it.request]).any(appends);
            when(is_counted && is_appended && refuses_first(it), After::Parted)
        },
    },
];

/// Whether a request appends to an item.
fn appends(request: &[u8]) -> bool {
    match request {
        [0x80, opcode, ..] => matches!(opcode, 0x0e | 0x19),
        _ => request.starts_with(b"append ") || (request.starts_with(b"ms ") && request.contains(&b'M')),
    }
}

/// Whether the first line that differs is memcached's, of a value that is no number.
fn refuses_first(it: &Exchange<'_>) -> bool {
    let is_refusal = |line: &str| {
        line.contains(" status=0006 ")
            || line == "CLIENT_ERROR cannot increment or decrement non-numeric value"
    };
    let ours: Vec<&str> = it.ours.lines().collect();
    let first = it.theirs.lines().enumerate().find(|(at, line)| ours.get(*at) != Some(line));
    first.is_some_and(|(at, line)| is_refusal(line) && !ours.get(at).is_some_and(|line| is_refusal(line)))
}

/// Whether a number is counted in the row behind something that is answered with an item: memcached then makes the number
/// anew, without padding and without marks.
pub(super) fn reads_and_counts(row: &[Rc<[u8]>]) -> bool {
    let reads = |request: &Rc<[u8]>| match request[..] {
        [0x80, opcode, ..] => matches!(opcode, 0x00 | 0x09 | 0x0c | 0x0d | 0x1d | 0x1e | 0x23 | 0x24),
        _ => Reading::of(request).is_get() || request.starts_with(b"mg "),
    };
    let first = row.iter().position(reads);
    first.is_some_and(|first| has_counted(&row[first..]))
}

/// Whether memcached leaves out what it had not sent when it came to a refused get, and nothing else: so often at most as gets are
/// refused. (Tables that only one of the servers fills, of its classes, are not compared: rule G5.)
fn lacks_lines_before_a_bad_line(it: &Exchange<'_>, refused: usize) -> bool {
    let lines = |answer: &'_ str| -> Vec<String> {
        answer.lines().filter(|line| *line != "STAT *").map(str::to_owned).collect()
    };
    fewest_left_out(&lines(it.theirs), &lines(it.ours)).is_some_and(|left_out| left_out <= refused)
}

/// At how few bad lines what comes before is to be left out of our answer, so that it is theirs; none if that does not do it. What is
/// left out may have bad lines of its own.
fn fewest_left_out(theirs: &[String], ours: &[String]) -> Option<usize> {
    // Of our first lines, by how many of theirs they come to.
    let mut fewest = vec![vec![None; theirs.len() + 1]; ours.len() + 1];
    fewest[0][0] = Some(0);
    for our in 1..=ours.len() {
        for their in 1..=theirs.len() {
            if ours[our - 1] != theirs[their - 1] {
                continue;
            }
            let is_bad_line = theirs[their - 1] == BAD_LINE.trim_end();
            let before = if is_bad_line { 0..our - 1 } else { 0..0 };
            let with_gap = before.filter_map(|end| fewest[end][their - 1]).min().map(|gaps: usize| gaps + 1);
            fewest[our][their] = fewest[our - 1][their - 1].into_iter().chain(with_gap).min();
        }
    }
    fewest[ours.len()][theirs.len()]
}

/// Whether anything counts.
fn has_counted(requests: &[Rc<[u8]>]) -> bool {
    requests.iter().any(|request| {
        [&b"incr "[..], b"decr ", b"ma "].iter().any(|name| request.starts_with(name))
            || matches!(request.get(..2), Some([0x80, 0x05 | 0x06 | 0x15 | 0x16]))
    })
}

/// Whether both close, and memcached leaves out the end of what we answer.
fn is_cut_off(it: &Exchange<'_>) -> bool {
    let (Some(theirs), Some(ours)) = (it.theirs.strip_suffix("<closed>"), it.ours.strip_suffix("<closed>"))
    else {
        return false;
    };
    ours.starts_with(theirs)
}

/// Whether a number was counted before under a key of the request.
fn was_counted(it: &Exchange<'_>, request: &Reading<'_>) -> bool {
    let is_packet = |bytes: &[u8]| bytes.first() == Some(&0x80);
    let subjects: Vec<Vec<u8>> = match it.row {
        [] if is_packet(it.request) => key_of(it.request).into_iter().collect(),
        [] => request.subjects(),
        row if is_packet(it.request) => row.iter().filter_map(|request| key_of(request)).collect(),
        row => row.iter().flat_map(|request| Reading::of(request).subjects()).collect(),
    };
    let counts = |before: &&Rc<[u8]>| has_counted(std::slice::from_ref(*before));
    let key = |before: &Rc<[u8]>| if is_packet(before) { key_of(before) } else { Reading::of(before).key() };
    it.before.iter().filter(counts).filter_map(key).any(|key| subjects.contains(&key))
}

/// Whether the line ends the connection since it is HTTP (rule F3).
fn is_http(line: &[u8]) -> bool {
    let request = Reading::of(line);
    request.words.last().is_some_and(|word| word.starts_with(b"HTTP/")) && is_harmless(line)
}

/// The answer without what a number that is made anew loses: the spaces behind it, the lengths that count them, and
/// the item's marks.
fn settled(answer: &str) -> String {
    let is_mark = |word: &str| {
        matches!(word, "h0" | "h1" | "W" | "X" | "Z" | "b" | "la=*") || word.starts_with("fetch=")
    };
    let is_length = |word: &str| word.strip_prefix('s').is_some_and(|bytes| bytes.parse::<u64>().is_ok());
    let mut settled = String::new();
    let mut lines = answer.lines();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let left_out = match words[0] {
            // Its length, or the key, which was in base64.
            "VALUE" => 3,
            "VA" | "ME" => 1,
            _ => usize::MAX,
        };
        let is_flagged = matches!(words[0], "VA" | "HD" | "ME");
        let is_kept = |(place, word): &(usize, &str)| {
            let is_lost = is_mark(word) || is_length(word) || word.starts_with('k');
            *place != left_out && !(is_flagged && *place > 0 && is_lost)
        };
        match line.rsplit_once(" value=").filter(|_| line.starts_with("81 op=")) {
            Some((head, value)) => settled.push_str(&format!("{head} value={}", without_padding(value))),
            None => {
                let words: Vec<_> =
                    words.iter().copied().enumerate().filter(is_kept).map(|(_, word)| word).collect();
                settled.push_str(&words.join(" "));
            }
        }
        settled.push('\n');
        if matches!(words[0], "VALUE" | "VA") {
            settled.push_str(&without_padding(lines.next().unwrap_or_default()));
            settled.push('\n');
        }
    }
    settled
}

/// A value without the spaces behind digits.
fn without_padding(value: &str) -> String {
    let mut kept = String::new();
    for letter in value.chars() {
        if letter != ' ' || !kept.ends_with(|last: char| last.is_ascii_digit()) {
            kept.push(letter);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_a_number_that_was_padded_before_more_was_appended_counts_on() {
        let packet = |opcode: u8| -> Rc<[u8]> {
            let mut packet = vec![0x80, opcode, 0, 1];
            packet.extend([0; 20]);
            packet.push(b'k');
            Rc::from(packet)
        };
        let refusal = "81 op=15 type=0 status=0006 opaque=a cas=0\n";
        let is_known = |before: &[Rc<[u8]>], row: &[Rc<[u8]>], theirs: &str, ours: &str| {
            let request = row.concat();
            let it = Exchange { request: &request, before, theirs, ours, row };
            KNOWN
                .iter()
                .filter(|known| known.what.starts_with("what is appended"))
                .any(|known| (known.sees)(&it, &Reading::of(&request)).is_some())
        };
        let (count, append, get) = (packet(0x15), packet(0x19), packet(0x00));
        let row = [append.clone(), count.clone()];
        let (counted, appended) = ([count.clone()], [append.clone()]);
        assert!(is_known(&counted, &row, refusal, ""));
        assert!(!is_known(&counted, &row, "", refusal), "we refuse no more than memcached");
        assert!(!is_known(&counted, &[get.clone(), count.clone()], refusal, ""), "nothing was appended");
        assert!(!is_known(&appended, &[get.clone(), append], refusal, ""), "nothing was counted");
    }

    #[test]
    fn t5_a_count_that_memcached_refuses_in_a_row_is_known_where_our_answer_shows_the_large_number() {
        let is_known = |opcode: u8, delta: u64, told: u64| {
            let mut packet = vec![0; 24];
            (packet[1], packet[15]) = (opcode, b'a');
            packet.extend([delta, 5].map(u64::to_be_bytes).concat());
            packet.extend([0; 4]);
            let head = |status| {
                format!("81 op=0a\n81 op={opcode:02x} type=0 status={status} opaque=\\x00\\x00\\x00a cas=")
            };
            let theirs =
                head("0006") + "0 extras= key= value=Non-numeric server-side value for incr or decr\n";
            let ours =
                format!("{}* extras= key= value={}\n", head("0000"), told.to_be_bytes().escape_ascii());
            let row = [Rc::from(packet)];
            let it = Exchange { request: b"", before: &[], theirs: &theirs, ours: &ours, row: &row };
            super::super::binary::refuses_large_number(&it)
        };
        assert!(is_known(0x06, 7, u64::MAX - 7) && is_known(0x05, 1, 0) && is_known(0x05, 5, u64::MAX));
        assert!(!is_known(0x06, 7, 100) && !is_known(0x05, 1, 101), "other numbers are no excuse");
        assert!(!is_known(0x06, u64::MAX, 0), "it may have stopped there");
        assert!(
            is_known(0x05, 7, 4) && !is_known(0x05, 7, 5),
            "what begins with the request's number was not there"
        );
    }

    #[test]
    fn t5_what_memcached_takes_back_ends_with_a_bad_line_and_may_hold_one() {
        let fewest = |theirs: &str, ours: &str| {
            let lines = |text: &str| -> Vec<String> {
                text.split(' ').map(|word| word.replace("BAD", BAD_LINE.trim_end())).collect()
            };
            fewest_left_out(&lines(theirs), &lines(ours))
        };
        assert_eq!(fewest("A BAD END", "A BAD END"), Some(0));
        assert_eq!(fewest("BAD END", "A B BAD END"), Some(1));
        assert_eq!(fewest("A BAD END", "A B BAD END"), Some(1), "what had been sent stays");
        assert_eq!(fewest("BAD END", "BAD BAD END"), Some(1), "a bad line is taken back as any other");
        assert_eq!(fewest("BAD X BAD", "A BAD X Y BAD"), Some(2));
        assert_eq!(fewest("BAD", "BAD END"), None, "nothing is taken back behind one");
        assert_eq!(fewest("A END", "A B END"), None);
        assert_eq!(fewest("A BAD", "BAD"), None);
    }
}
