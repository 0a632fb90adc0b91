//! What a connection waits for, and what came of it.
//!
//! Lives here: two ways to know when a batch is answered. Where every key is known to be there, bytes are counted, which costs
//! the generator least; where a server may miss or refuse, each answer's head is read and its value skipped. Not here:
//! sockets (see `load`).

use std::collections::VecDeque;
use std::mem;

use super::requests::Dialect;

/// The longest head of an answer: a classic value's line with a key of 250 bytes, or an error's text, fits well.
const HEAD_BYTES_MAX: usize = 2048;

/// Bytes of what a server said that an error shows.
const SHOWN_BYTES: usize = 240;

const BINARY_HEADER_BYTES: usize = 24;

/// What the answers said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys found.
    pub hits: u64,
    /// Keys not found.
    pub misses: u64,
    /// Requests that the server could not carry out, such as for want of memory.
    pub refused: u64,
}

/// An answer that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Of a get: so many keys may still have a value. redis tells first how many there are.
    Values { left: usize, has_begun: bool },
    /// Of a set.
    Stored,
}

/// The answers to a batch that have not come.
#[derive(Debug)]
pub(super) enum Awaited {
    Bytes(usize),
    Answers(Parser),
}

impl Awaited {
    /// Nothing yet; `counts` bytes only, or reads heads.
    pub(super) fn nothing(dialect: Dialect, counts: bool) -> Awaited {
        if counts { Awaited::Bytes(0) } else { Awaited::Answers(Parser::new(dialect)) }
    }

    /// A get of so many keys was sent; `bytes` answer it if all are found.
    pub(super) fn expect_get(&mut self, keys: usize, bytes: usize) {
        match self {
            Awaited::Bytes(due) => *due += bytes,
            Awaited::Answers(parser) => {
                let has_begun = parser.dialect != Dialect::Redis || keys == 1;
                parser.due.push_back(Due::Values { left: keys, has_begun });
            }
        }
    }

    /// A set was sent; `bytes` answer it, none a quiet one.
    pub(super) fn expect_set(&mut self, bytes: usize) {
        match self {
            Awaited::Bytes(due) => *due += bytes,
            Awaited::Answers(_) if bytes == 0 => {}
            Awaited::Answers(parser) => parser.due.push_back(Due::Stored),
        }
    }

    /// Whether all has come.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Awaited::Bytes(due) => *due == 0,
            Awaited::Answers(parser) => parser.due.is_empty() && parser.skip == 0,
        }
    }

    /// These bytes came; says what is wrong with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Awaited::Bytes(due) if bytes.len() > *due => Err(too_much(bytes)),
            Awaited::Bytes(due) => {
                *due -= bytes.len();
                Ok(())
            }
            Awaited::Answers(parser) => parser.take(bytes),
        }
    }

    /// What was told since the last time.
    pub(super) fn take_tally(&mut self) -> Tally {
        match self {
            Awaited::Bytes(_) => Tally::default(),
            Awaited::Answers(parser) => mem::take(&mut parser.tally),
        }
    }

    /// What the server said when it first refused something, in its words.
    pub(super) fn take_refusal(&mut self) -> Option<String> {
        match self {
            Awaited::Bytes(_) => None,
            Awaited::Answers(parser) => parser.refusal.take(),
        }
    }
}

/// Reads answers as they come, however they are cut.
///
/// 1. `carry` is the beginning of a head, below [`HEAD_BYTES_MAX`]; with `skip > 0` it is empty.
#[derive(Debug)]
pub(super) struct Parser {
    dialect: Dialect,
    due: VecDeque<Due>,
    carry: Vec<u8>,
    /// Bytes of a value that are to come and say nothing.
    skip: usize,
    tally: Tally,
    refusal: Option<String>,
}

/// What a head says.
enum Head {
    /// A value of so many bytes, line ends included, comes behind it.
    Hit(usize),
    Miss,
    /// The last of a get's values has come.
    End,
    /// redis will give so many values.
    Values(usize),
    Stored,
    Refused(usize),
}

impl Parser {
    fn new(dialect: Dialect) -> Parser {
        Parser {
            dialect,
            due: VecDeque::new(),
            carry: Vec::new(),
            skip: 0,
            tally: Tally::default(),
            refusal: None,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.carry.is_empty() {
            let used = self.advance(bytes)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            let mut carry = mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let used = self.advance(&carry)?;
            carry.drain(..used);
            self.carry = carry;
        }
        Ok(())
    }

    /// Gives how many bytes are done with.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            self.skip -= skipped;
            at += skipped;
            let rest = &bytes[at..];
            if rest.is_empty() {
                return Ok(at);
            }
            let Some(due) = self.due.front().copied() else { return Err(too_much(rest)) };
            let Some((head, length)) = read_head(self.dialect, rest)? else {
                return if rest.len() < HEAD_BYTES_MAX { Ok(at) } else { Err(rubbish(rest)) };
            };
            if matches!(head, Head::Refused(_)) && self.refusal.is_none() {
                self.refusal = Some(refusal(self.dialect, &rest[..length]));
            }
            at += length;
            self.settle(due, head).ok_or_else(|| rubbish(rest))?;
        }
    }

    /// Brings a head together with what was due; none if they don't fit.
    fn settle(&mut self, due: Due, head: Head) -> Option<()> {
        let has_end = self.dialect == Dialect::Classic;
        let values = |left| (left > 0 || has_end).then_some(Due::Values { left, has_begun: true });
        let next = match (due, head) {
            (_, Head::Refused(bytes)) => {
                self.tally.refused += 1;
                self.skip = bytes;
                None
            }
            (Due::Values { left, has_begun: true }, Head::Hit(bytes)) if left > 0 => {
                self.tally.hits += 1;
                self.skip = bytes;
                values(left - 1)
            }
            (Due::Values { left, has_begun: true }, Head::Miss) if !has_end => {
                self.tally.misses += 1;
                values(left - 1)
            }
            (Due::Values { left, .. }, Head::End) if has_end => {
                self.tally.misses += left as u64;
                None
            }
            (Due::Values { left, has_begun: false }, Head::Values(count)) if count == left => values(left),
            (Due::Stored, Head::Stored) => None,
            _ => return None,
        };
        match (next, self.due.front_mut()) {
            (Some(next), Some(front)) => *front = next,
            _ => drop(self.due.pop_front()),
        }
        Some(())
    }
}

/// The head that the bytes begin with and its length; none if it has not come whole.
fn read_head(dialect: Dialect, bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    if dialect == Dialect::Binary {
        return read_binary_head(bytes);
    }
    let Some(end) = bytes.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or_else(|| rubbish(bytes))?;
    let value = |digits: Option<&[u8]>| {
        let bytes = digits.and_then(number)?;
        Some(Head::Hit(bytes.checked_add(2)?))
    };
    let mut words = line.split(|byte| *byte == b' ');
    let first = words.next().unwrap_or_default();
    let head = match (dialect, first) {
        (Dialect::Classic, b"VALUE") => value(words.nth(2)),
        (Dialect::Classic, b"END") => Some(Head::End),
        (Dialect::Classic, b"STORED") | (Dialect::Meta, b"HD") | (Dialect::Redis, b"+OK") => {
            Some(Head::Stored)
        }
        (Dialect::Meta, b"VA") => value(words.next()),
        (Dialect::Meta, b"EN") | (Dialect::Redis, b"$-1") => Some(Head::Miss),
        (Dialect::Classic | Dialect::Meta, b"SERVER_ERROR") | (Dialect::Redis, b"-OOM") => {
            Some(Head::Refused(0))
        }
        (Dialect::Redis, [b'$', digits @ ..]) => value(Some(digits)),
        (Dialect::Redis, [b'*', digits @ ..]) => number(digits).map(Head::Values),
        _ => None,
    };
    head.map(|head| Some((head, end + 1))).ok_or_else(|| rubbish(bytes))
}

fn read_binary_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    if bytes[0] != 0x81 {
        return Err(rubbish(bytes));
    }
    let Some(header) = bytes.get(..BINARY_HEADER_BYTES) else { return Ok(None) };
    let status = u16::from_be_bytes([header[6], header[7]]);
    let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let head = match (header[1], status) {
        (0x00, 0) => Head::Hit(body_bytes),
        (0x01, 0) if body_bytes == 0 => Head::Stored,
        // A miss has a text, which is nobody's value.
        (0x00, 1) => return Ok(with_body(Head::Miss, bytes, body_bytes)),
        // Out of memory, busy, temporary failure: it may be otherwise later. All else is a misunderstanding. What is said of
        // it is worth waiting for, unless it is endless.
        (_, 0x82 | 0x85 | 0x86) if body_bytes <= SHOWN_BYTES => {
            return Ok(with_body(Head::Refused(0), bytes, body_bytes));
        }
        (_, 0x82 | 0x85 | 0x86) => Head::Refused(body_bytes),
        _ => return Err(rubbish(bytes)),
    };
    Ok(Some((head, BINARY_HEADER_BYTES)))
}

/// A head with the body behind it; none until that has come.
fn with_body(head: Head, bytes: &[u8], body_bytes: usize) -> Option<(Head, usize)> {
    let length = BINARY_HEADER_BYTES + body_bytes;
    (bytes.len() >= length).then_some((head, length))
}

/// What a refusal says.
fn refusal(dialect: Dialect, answer: &[u8]) -> String {
    match (dialect, answer) {
        (Dialect::Binary, [_, _, _, _, _, _, high, low, ..]) => {
            let text = shown(&answer[BINARY_HEADER_BYTES..]);
            format!("status 0x{:02x} {text}", u16::from_be_bytes([*high, *low])).trim_end().to_owned()
        }
        _ => shown(answer.trim_ascii_end()),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

fn shown(bytes: &[u8]) -> String {
    let cut = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{cut}", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii())
}

fn rubbish(bytes: &[u8]) -> String {
    format!("the server answers something else: {}", shown(bytes))
}

fn too_much(bytes: &[u8]) -> String {
    format!("the server answers more than was asked: {}", shown(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers to a get of so many keys and a set, in one piece and byte by byte.
    fn taken(dialect: Dialect, keys: usize, bytes: &[u8]) -> Result<(bool, Tally), String> {
        let outcomes = [bytes.len(), 1].map(|piece_bytes| {
            let mut awaited = Awaited::nothing(dialect, false);
            awaited.expect_get(keys, 0);
            awaited.expect_set(1);
            bytes.chunks(piece_bytes).try_for_each(|piece| awaited.take(piece))?;
            Ok::<_, String>((awaited.is_over(), awaited.take_tally()))
        });
        let [whole, pieces] = outcomes;
        assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}");
        if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
            assert_eq!(whole, pieces);
        }
        whole
    }

    fn binary(opcode: u8, status: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0x81, opcode, 0, 0, 0, 0, 0, status, 0, 0, 0, body.len() as u8];
        out.resize(24, 0);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn hits_misses_and_refusals_are_told_apart_in_every_dialect() {
        let tally = |hits, misses, refused| Ok((true, Tally { hits, misses, refused }));
        let classic = |text: &str| taken(Dialect::Classic, 3, text.as_bytes());
        assert_eq!(classic("VALUE a 0 4\r\nEND\r\r\nVALUE b 7 0\r\n\r\nEND\r\nSTORED\r\n"), tally(2, 1, 0));
        assert_eq!(classic("END\r\nSERVER_ERROR out of memory\r\n"), tally(0, 3, 1));
        let meta = |text: &str| taken(Dialect::Meta, 1, text.as_bytes());
        assert_eq!(meta("VA 2 Oabc\r\n\r\n\r\nHD\r\n"), tally(1, 0, 0));
        assert_eq!(meta("EN\r\nHD\r\n"), tally(0, 1, 0));
        let redis = |keys, text: &str| taken(Dialect::Redis, keys, text.as_bytes());
        assert_eq!(redis(2, "*2\r\n$1\r\nx\r\n$-1\r\n+OK\r\n"), tally(1, 1, 0));
        assert_eq!(redis(1, "$-1\r\n-OOM command not allowed\r\n"), tally(0, 1, 1));
        let both = |get: Vec<u8>, set: Vec<u8>| taken(Dialect::Binary, 1, &[get, set].concat());
        assert_eq!(both(binary(0, 0, b"\0\0\0\0v"), binary(1, 0, b"")), tally(1, 0, 0));
        assert_eq!(both(binary(0, 1, b"Not found"), binary(1, 0x82, b"Out of memory")), tally(0, 1, 1));
    }

    #[test]
    fn the_first_refusal_is_told_in_the_servers_words_however_it_is_cut() {
        let classic = &b"SERVER_ERROR not enough replicas\r\nSERVER_ERROR other\r\n"[..];
        let binary = |text: &[u8]| [binary(1, 0x86, text), binary(1, 0x82, b"other")].concat();
        let endless = [b'x'; SHOWN_BYTES + 1];
        for (dialect, answers, words) in [
            (Dialect::Classic, classic.to_vec(), "SERVER_ERROR not enough replicas"),
            (Dialect::Meta, classic.to_vec(), "SERVER_ERROR not enough replicas"),
            (Dialect::Redis, b"-OOM no\r\n-OOM other\r\n".to_vec(), "-OOM no"),
            (Dialect::Binary, binary(b"Temporary failure"), "status 0x86 Temporary failure"),
            (Dialect::Binary, binary(&endless), "status 0x86"),
        ] {
            for piece_bytes in [1, answers.len()] {
                let mut awaited = Awaited::nothing(dialect, false);
                awaited.expect_set(1);
                awaited.expect_set(1);
                answers.chunks(piece_bytes).for_each(|piece| awaited.take(piece).unwrap());
                assert!(awaited.is_over());
                assert_eq!(awaited.take_tally().refused, 2);
                assert_eq!(awaited.take_refusal().as_deref(), Some(words));
            }
        }
    }

    #[test]
    fn rubbish_is_an_error_and_never_waited_for() {
        for (dialect, text) in [
            (Dialect::Classic, &b"HTTP/1.1 400 Bad Request\r\n"[..]),
            (Dialect::Classic, b"ERROR\r\n"),
            (Dialect::Classic, b"STORED\r\n"),
            (Dialect::Classic, b"VALUE a 0 -1\r\n"),
            (Dialect::Classic, b"VALUE a 0 99999999999999999999999\r\n"),
            (Dialect::Classic, b"VALUE a 0 18446744073709551615\r\n"),
            (Dialect::Classic, b"VALUE a 0 0\r\n\r\nVALUE a 0 0\r\n\r\n"),
            (Dialect::Classic, b"END\n"),
            (Dialect::Classic, b"END\r\nSTORED\r\nSTORED\r\n"),
            (Dialect::Classic, &[b'x'; HEAD_BYTES_MAX]),
            (Dialect::Meta, b"HD\r\n"),
            (Dialect::Meta, b"VA\r\n"),
            (Dialect::Redis, b"*3\r\n"),
            (Dialect::Redis, b"-ERR unknown command\r\n"),
            (Dialect::Binary, b"ERROR\r\n"),
            (Dialect::Binary, &binary(0x01, 0, b"")),
            (Dialect::Binary, &binary(0x00, 0x20, b"Auth failure")),
        ] {
            let outcome = taken(dialect, 1, text);
            assert!(outcome.is_err(), "{dialect:?} {}: {outcome:?}", text.escape_ascii());
        }
    }

    #[test]
    fn counted_bytes_are_over_when_as_many_have_come() {
        let mut awaited = Awaited::nothing(Dialect::Classic, true);
        awaited.expect_get(1, 5);
        awaited.expect_set(8);
        assert_eq!(awaited.take(&[0; 12]), Ok(()));
        assert!(!awaited.is_over());
        assert!(awaited.take(&[0; 2]).is_err());
        assert_eq!(awaited.take(&[0; 1]), Ok(()));
        assert!(awaited.is_over());
    }
}
