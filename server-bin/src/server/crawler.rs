//! Going through the items for operators: `lru_crawler` (rule G7) and `stats cachedump` (rule G5).
//!
//! A dump goes on by a cursor, one step of the engine's scan at a time: it locks one shard for some hundred looks, fills
//! the output up to the connection's bound, and gives the worker's other connections their turn after each piece. So
//! it costs a cursor, however large the cache and however slow the reader; any number may be under way, and none is ever
//! refused as busy.
//!
//! Lives here: the words, the dumps, their lines. Not here: scanning and sweeping (see the engine).

use std::io::Write as _;
use std::sync::atomic::Ordering;

use hotspare::{Cursor, ItemDetails, ItemRef, ReadError};
use hotspare_memcached::classic::Tokens;

use super::administration::{line, number};
use super::commands::{Executor, Flow, Progress, server_error};

/// Rule G7, in microseconds.
const SLEEP_MAX: u64 = 1_000_000;

/// Places that one turn of a crawl looks at.
const LOOKS_A_TURN: usize = 2048;

/// One turn of a dump: steps of the scan, and about what it adds to the output, in bytes.
const STEPS_A_TURN: usize = 8;
const DUMP_BYTES_A_TURN: usize = 64 << 10;

/// After so many bytes `stats cachedump` ends, as memcached's does.
const CACHEDUMP_BYTES_MAX: u64 = 2 << 20;

/// More classes than the engine ever has.
const CLASSES_MAX: u64 = 128;

/// A set of size classes, each a bit.
type Classes = u128;

/// How each item is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Metadump,
    Mgdump,
    Cachedump,
}

/// A dump that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dump {
    format: Format,
    classes: Classes,
    cursor: Cursor,
    items_left: u64,
    bytes_left: u64,
}

/// Which items are meant.
enum Choice {
    /// These classes; whether one of them has a page.
    Classes(Classes, bool),
    BadClass,
}

impl Executor<'_> {
    /// `lru_crawler` (rule G7).
    pub(super) fn crawl(
        &mut self,
        arguments: Tokens<'_>,
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Flow {
        if progress.dump.is_some() {
            return self.go_on(progress, output_bytes_max, out);
        }
        let operator = &self.shared.operator;
        let mut words = arguments.iter();
        let text: &[u8] = match (words.next(), words.next(), words.next()) {
            (Some(word @ (b"enable" | b"disable")), None, _) => {
                operator.is_crawler_off.store(word == b"disable", Ordering::Relaxed);
                b"OK"
            }
            (Some(b"sleep"), Some(word), None) => match number(word) {
                // Nobody waits for a crawl here: there is nothing to sleep between.
                Some(..=SLEEP_MAX) => b"OK",
                Some(_) => b"CLIENT_ERROR sleep must be one second or less",
                None => b"CLIENT_ERROR bad command line format",
            },
            (Some(b"tocrawl"), Some(word), None) => match number(word) {
                Some(_) => b"OK",
                None => b"CLIENT_ERROR bad command line format",
            },
            (Some(b"crawl" | b"metadump" | b"mgdump"), Some(_), None)
                if operator.is_crawler_off.load(Ordering::Relaxed) =>
            {
                b"CLIENT_ERROR lru crawler disabled"
            }
            (Some(b"crawl"), Some(classes), None) => return self.sweep(classes, out),
            (Some(b"metadump"), Some(classes), None) => {
                return self.begin(Format::Metadump, classes, progress, output_bytes_max, out);
            }
            (Some(b"mgdump"), Some(classes), None) => {
                return self.begin(Format::Mgdump, classes, progress, output_bytes_max, out);
            }
            _ => b"ERROR",
        };
        line(out, text);
        Flow::Next
    }

    /// `crawl`: dead items leave, whatever their class; answered when it is done.
    fn sweep(&self, classes: &[u8], out: &mut Vec<u8>) -> Flow {
        let text: &[u8] = match self.choice(classes) {
            Choice::BadClass => b"BADCLASS invalid class id",
            Choice::Classes(_, false) => b"NOTSTARTED no items to crawl",
            Choice::Classes(_, true) => {
                let looks = self.sweep_and_count();
                self.shared.operator.crawler_items_checked.fetch_add(looks as u64, Ordering::Relaxed);
                if looks >= LOOKS_A_TURN {
                    return Flow::Again;
                }
                b"OK"
            }
        };
        line(out, text);
        Flow::Next
    }

    /// One turn of a crawl; gives the places looked at. What writes remove at the same moment counts, too.
    fn sweep_and_count(&self) -> usize {
        let reclaimed = || self.shared.cache.class_stats().into_iter().map(|class| class.reclaimed);
        let before = reclaimed();
        let looks = self.shared.cache.sweep(LOOKS_A_TURN);
        let mut counts = self.shared.operator.crawler_reclaimed();
        for (index, (before, after)) in before.zip(reclaimed()).enumerate() {
            if index == counts.len() {
                counts.push(0);
            }
            counts[index] += after.saturating_sub(before);
        }
        looks
    }

    fn begin(
        &self,
        format: Format,
        classes: &[u8],
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Flow {
        let name = if format == Format::Mgdump { "mgdump" } else { "metadump" };
        let text = if !self.shared.settings.dump_enabled {
            format!("ERROR {name} not allowed")
        } else if progress.is_pipelined {
            format!("ERROR cannot pipeline other commands before {name}")
        } else {
            match self.choice(classes) {
                Choice::BadClass => "BADCLASS invalid class id".to_owned(),
                Choice::Classes(_, false) if classes != b"hash" => "NOTSTARTED no items to crawl".to_owned(),
                Choice::Classes(classes, _) => {
                    line(out, b"OK");
                    progress.dump = Some(Dump {
                        format,
                        classes,
                        cursor: Cursor::START,
                        items_left: u64::MAX,
                        bytes_left: u64::MAX,
                    });
                    return self.go_on(progress, output_bytes_max, out);
                }
            }
        };
        line(out, text.as_bytes());
        Flow::Next
    }

    /// `stats cachedump <class> <limit>` (rule G5); `None` if the words are others.
    pub(super) fn cachedump(
        &mut self,
        arguments: Tokens<'_>,
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let mut words = arguments.iter();
        if words.next() != Some(b"cachedump") {
            return None;
        }
        if progress.dump.is_some() {
            return Some(self.go_on(progress, output_bytes_max, out));
        }
        let (class, limit) = (words.next(), words.next());
        let text: &[u8] = match (class.map(number), limit.map(number)) {
            _ if !self.shared.settings.dump_enabled => b"CLIENT_ERROR stats cachedump not allowed",
            (None, _) | (_, None) => b"CLIENT_ERROR bad command line",
            (Some(Some(class)), _) if class >= CLASSES_MAX => b"CLIENT_ERROR Illegal slab id",
            (Some(Some(class)), Some(Some(limit))) => {
                progress.dump = Some(Dump {
                    format: Format::Cachedump,
                    classes: class.checked_sub(1).map_or(0, |index| 1 << index),
                    cursor: Cursor::START,
                    items_left: if limit == 0 { u64::MAX } else { limit },
                    bytes_left: CACHEDUMP_BYTES_MAX,
                });
                return Some(self.go_on(progress, output_bytes_max, out));
            }
            _ => b"CLIENT_ERROR bad command line format",
        };
        line(out, text);
        Some(Flow::Next)
    }

    /// What `all`, `hash` or numbers between commas mean. Classes count from 1.
    fn choice(&self, words: &[u8]) -> Choice {
        let classes = self.shared.cache.class_stats();
        let mut chosen: Classes = 0;
        if matches!(words, b"all" | b"hash") {
            chosen = Classes::MAX;
        } else {
            for word in words.split(|byte| *byte == b',').filter(|word| !word.is_empty()) {
                match number(word) {
                    Some(class @ 1..) if class <= classes.len() as u64 => chosen |= 1 << (class - 1),
                    _ => return Choice::BadClass,
                }
            }
        }
        let is_held =
            |(index, class): (usize, &hotspare::ClassStats)| chosen >> index & 1 == 1 && class.pages > 0;
        Choice::Classes(chosen, classes.iter().enumerate().any(is_held))
    }

    /// The next piece of a dump, and its end.
    fn go_on(&self, progress: &mut Progress, output_bytes_max: usize, out: &mut Vec<u8>) -> Flow {
        let Some(mut dump) = progress.dump else { return Flow::Next };
        let turn_bytes_max = out.len() + DUMP_BYTES_A_TURN;
        let mut next = Ok(Some(dump.cursor));
        for _ in 0..STEPS_A_TURN {
            if out.len() > output_bytes_max {
                progress.dump = Some(dump);
                return Flow::OutputFull;
            }
            next = self.step(&mut dump, out);
            match next {
                Ok(Some(cursor)) if out.len() < turn_bytes_max => dump.cursor = cursor,
                _ => break,
            }
        }
        match next {
            Ok(Some(cursor)) => {
                dump.cursor = cursor;
                progress.dump = Some(dump);
                Flow::Again
            }
            Ok(None) => {
                *progress = Progress::default();
                line(out, if dump.format == Format::Mgdump { b"EN" } else { b"END" });
                Flow::Next
            }
            Err(why) => {
                *progress = Progress::default();
                server_error(out, &why.to_string());
                Flow::Next
            }
        }
    }

    fn step(&self, dump: &mut Dump, out: &mut Vec<u8>) -> Result<Option<Cursor>, ReadError> {
        let Dump { format, classes, cursor, .. } = *dump;
        let next = self.shared.cache.scan_details(cursor, |item, details| {
            if classes >> details.class & 1 == 0 || dump.items_left == 0 || dump.bytes_left == 0 {
                return;
            }
            let begun = out.len();
            let cas = self.shared.settings.shown_cas(item.cas());
            write_item(format, &item, cas, details, out);
            dump.items_left -= 1;
            dump.bytes_left = dump.bytes_left.saturating_sub((out.len() - begun) as u64);
        })?;
        Ok(next.filter(|_| dump.items_left > 0 && dump.bytes_left > 0))
    }
}

fn write_item(format: Format, item: &ItemRef<'_>, shown_cas: u64, details: ItemDetails, out: &mut Vec<u8>) {
    let seconds = item.expires_at_ms.map(|moment| moment / 1000);
    // Writing to a vector can't fail.
    let _ = match format {
        Format::Metadump => {
            out.extend_from_slice(b"key=");
            write_uri_encoded(item.key, out);
            match seconds {
                Some(seconds) => write!(out, " exp={seconds}"),
                None => write!(out, " exp=-1"),
            }
            .and_then(|()| {
                let fetched = if details.is_fetched { "yes" } else { "no" };
                let (cas, class, bytes) = (shown_cas, details.class + 1, details.bytes);
                let (flags, la) = (item.flags, item.accessed_s.unwrap_or(0));
                writeln!(out, " la={la} cas={cas} fetch={fetched} cls={class} size={bytes} flags={flags} ")
            })
        }
        Format::Mgdump => {
            out.extend_from_slice(b"mg ");
            if is_text(item.key) && !item.state.is_key_binary {
                out.extend_from_slice(item.key);
            } else {
                write_base64(item.key, out);
                out.extend_from_slice(b" b");
            }
            write!(out, "\r\n")
        }
        Format::Cachedump => {
            out.extend_from_slice(b"ITEM ");
            out.extend_from_slice(item.key);
            write!(out, " [{} b; {} s]\r\n", item.value.len(), seconds.unwrap_or(0))
        }
    };
}

/// Whether a key can stand in a line as it is.
fn is_text(key: &[u8]) -> bool {
    !key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
}

/// Everything but letters, digits and `-._~` as `%XX`.
pub(super) fn write_uri_encoded(key: &[u8], out: &mut Vec<u8>) {
    for byte in key {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => {
                // Writing to a vector can't fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_there = digit <= three.len();
            out.push(if is_there { DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_keys_are_written_so_that_they_read_back() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let mut out = Vec::new();
            write_base64(bytes.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
        let mut out = Vec::new();
        write_uri_encoded(b"a-b_c.d~e:f/g h\xff", &mut out);
        assert_eq!(out, b"a-b_c.d~e%3Af%2Fg%20h%FF");
    }
}
