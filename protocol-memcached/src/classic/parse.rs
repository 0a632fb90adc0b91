//! Bytes to requests: one line, and for storage commands the data block behind it.
//!
//! The caller keeps unconsumed bytes and calls again with more. A line's end is looked for from its start each time. That
//! is cheap up to `line_bytes_max`; in a get's longer line the caller should look for it in what is new, and then call.

use super::Limits;
use super::number;
use super::operator::OperatorCommand;
use super::request::{Direction, Request, Store, StoreCommand};
use super::response::ErrorReply;
use super::token::Tokens;
use crate::line::{LineEnd, line_end};
use crate::scan::graphic_bytes;

/// The largest stated length of a value (rule F9).
pub(crate) const STATED_BYTES_MAX: u64 = (1 << 31) - 3;

/// What the buffer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request, in the first `consumed` bytes.
    Complete {
        /// The request.
        request: Request<'a>,
        /// Bytes to take off the buffer.
        consumed: usize,
    },
    /// The line of a storage command with a large value ([`Limits::large_bytes_min`]), in the first `consumed` bytes.
    Head {
        /// The request, its value left out.
        store: Store<'a>,
        /// Bytes to take off the buffer.
        consumed: usize,
        /// The length of the value behind those, in bytes; a line end follows it, which is the caller's to check (rules S2, Z3).
        value_bytes: usize,
    },
    /// Less than a request: try again with at least so many bytes from the same start.
    Incomplete {
        /// Bytes needed in all, more than there are.
        bytes_needed: usize,
    },
    /// An error to answer; the connection goes on.
    Invalid {
        /// What to answer; `None` where `noreply` suppresses it (rule F10).
        reply: Option<ErrorReply>,
        /// Bytes to take off the buffer.
        consumed: usize,
        /// Bytes behind those to throw away as they come (rule S3).
        skip: u64,
    },
    /// Not to be answered: close (rules F3, F6).
    Close,
}

/// Parses what the buffer begins with. Executes nothing, allocates nothing.
#[inline]
pub fn parse_request<'a>(buffer: &'a [u8], limits: &Limits) -> Parsed<'a> {
    if let Some((_, consumed)) = plain_get(buffer, limits) {
        // With the space before it, as where the line is taken apart word by word.
        let keys = Tokens::new(&buffer[PLAIN_GET.len() - 1..consumed - 2]);
        return complete(Request::Get { with_cas: false, keys }, consumed);
    }
    parse_line(buffer, limits)
}

/// The key of the request that the buffer begins with, and the bytes that the request takes, if it is the most common one:
/// `get KEY`. What is not as plain as that is left to [`parse_request`].
///
/// ```
/// use hotspare_memcached::classic::{Limits, plain_get};
/// assert_eq!(plain_get(b"get a\r\nget b\r\n", &Limits::default()), Some((&b"a"[..], 7)));
/// assert_eq!(plain_get(b"get a b\r\n", &Limits::default()), None);
/// ```
#[inline]
pub fn plain_get<'a>(buffer: &'a [u8], limits: &Limits) -> Option<(&'a [u8], usize)> {
    let key = key_of_plain_get(buffer)?;
    let consumed = PLAIN_GET.len() + key.len() + 2;
    let is_short = key.len() <= limits.key_bytes_max && consumed <= limits.line_bytes_max;
    is_short.then_some((key, consumed))
}

const PLAIN_GET: &[u8] = b"get ";

/// The key of the most common request, `get KEY`, if that is what the buffer begins with and it is as plain as that.
#[inline]
fn key_of_plain_get(buffer: &[u8]) -> Option<&[u8]> {
    let line = buffer.strip_prefix(PLAIN_GET)?;
    let (key, behind) = line.split_at(graphic_bytes(line));
    (!key.is_empty() && behind.starts_with(b"\r\n")).then_some(key)
}

fn parse_line<'a>(buffer: &'a [u8], limits: &Limits) -> Parsed<'a> {
    let end = match line_end(buffer, limits.line_bytes_max) {
        LineEnd::TooLong if may_be_long(buffer) => line_end(buffer, limits.get_line_bytes_max),
        end => end,
    };
    let line_end = match end {
        LineEnd::At(line_end) => line_end,
        LineEnd::Open { bytes_needed } => return Parsed::Incomplete { bytes_needed },
        LineEnd::TooLong => return Parsed::Close,
    };
    let consumed = line_end + 1;
    if consumed < 4 {
        return invalid(ErrorReply::BadLine, consumed, false);
    }
    let line = &buffer[..line_end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first() == Some(&b' ') {
        return invalid(ErrorReply::Error, consumed, false);
    }
    let mut words = Tokens::new(line);
    let name = words.next_word().unwrap_or_default();
    let parse = Line { buffer, consumed, limits };
    match name {
        // `bget` is an old name that memcached still knows, though no document does.
        b"get" | b"gets" | b"bget" => parse.get(words, name == b"gets"),
        b"gat" | b"gats" => parse.get_and_touch(words, name == b"gats"),
        b"set" => parse.store(words, StoreCommand::Set),
        b"add" => parse.store(words, StoreCommand::Add),
        b"replace" => parse.store(words, StoreCommand::Replace),
        b"append" => parse.store(words, StoreCommand::Append),
        b"prepend" => parse.store(words, StoreCommand::Prepend),
        b"cas" => parse.store(words, StoreCommand::Cas(0)),
        b"delete" => parse.delete(words),
        b"incr" => parse.count(words, Direction::Up),
        b"decr" => parse.count(words, Direction::Down),
        b"touch" => parse.touch(words),
        b"flush_all" => parse.flush_all(words),
        b"verbosity" => parse.verbosity(words),
        // Further words mean nothing to these, in memcached as here.
        b"version" => complete(Request::Version, consumed),
        b"quit" => complete(Request::Quit, consumed),
        b"refresh_certs" => {
            let noreply = words.take_noreply();
            complete(Request::RefreshCertificates { noreply }, consumed)
        }
        b"stats" => complete(Request::Stats { arguments: words }, consumed),
        b"shutdown" => complete(Request::Shutdown { arguments: words }, consumed),
        _ => parse.other(name, words),
    }
}

/// Whether the line has a larger bound: that of a get or gat, with any number of keys (rule F6).
fn may_be_long(buffer: &[u8]) -> bool {
    let spaces = buffer.iter().take(100).take_while(|byte| **byte == b' ').count();
    let names: [&[u8]; 4] = [b"get ", b"gets ", b"gat ", b"gats "];
    names.iter().any(|name| buffer[spaces..].starts_with(name))
}

/// Whether a browser or another stray speaks HTTP (rule F3): the last word, which may be the name, says so.
fn is_http(name: &[u8], words: Tokens<'_>) -> bool {
    words.iter().last().unwrap_or(name).starts_with(b"HTTP/")
}

/// Whether more than one word is left behind those that a command needs: one is taken for `noreply`, or passed over.
/// No rule speaks of it; memcached 1.6.18 takes such a line for an unknown command.
fn is_too_many(mut rest: Tokens<'_>, noreply: bool) -> bool {
    rest.next_word().is_some() && (noreply || rest.next_word().is_some())
}

fn complete(request: Request<'_>, consumed: usize) -> Parsed<'_> {
    Parsed::Complete { request, consumed }
}

fn invalid<'a>(reply: ErrorReply, consumed: usize, noreply: bool) -> Parsed<'a> {
    Parsed::Invalid { reply: (!noreply).then_some(reply), consumed, skip: 0 }
}

/// A whole line, with what is behind it.
struct Line<'a, 'l> {
    buffer: &'a [u8],
    consumed: usize,
    limits: &'l Limits,
}

impl<'a> Line<'a, '_> {
    fn complete(&self, request: Request<'a>) -> Parsed<'a> {
        complete(request, self.consumed)
    }

    fn invalid(&self, reply: ErrorReply, noreply: bool) -> Parsed<'a> {
        invalid(reply, self.consumed, noreply)
    }

    fn is_key(&self, word: &[u8]) -> bool {
        word.len() <= self.limits.key_bytes_max
    }

    /// The commands of operators, and names that are none.
    fn other(&self, name: &[u8], words: Tokens<'a>) -> Parsed<'a> {
        match OperatorCommand::named(name) {
            Some(command) => self.complete(Request::Operate { command, arguments: words }),
            None if is_http(name, words) => Parsed::Close,
            None => self.invalid(ErrorReply::Error, false),
        }
    }

    fn get(&self, keys: Tokens<'a>, with_cas: bool) -> Parsed<'a> {
        if self.are_keys(keys) {
            self.complete(Request::Get { with_cas, keys })
        } else {
            self.invalid(ErrorReply::BadLine, false)
        }
    }

    /// At least one key, and none too long (rules F5, R2).
    fn are_keys(&self, keys: Tokens<'_>) -> bool {
        keys.are_words_within(self.limits.key_bytes_max)
    }

    fn get_and_touch(&self, mut words: Tokens<'a>, with_cas: bool) -> Parsed<'a> {
        let Some(exptime) = words.next_word() else { return self.invalid(ErrorReply::BadLine, false) };
        if words.iter().next().is_none() {
            return self.invalid(ErrorReply::BadLine, false);
        }
        match number::signed(exptime) {
            None => self.invalid(ErrorReply::InvalidExptime, false),
            Some(exptime) if self.are_keys(words) => {
                self.complete(Request::GetAndTouch { with_cas, exptime, keys: words })
            }
            Some(_) => self.invalid(ErrorReply::BadLine, false),
        }
    }

    fn store(&self, mut words: Tokens<'a>, command: StoreCommand) -> Parsed<'a> {
        let noreply = words.take_noreply();
        let fields = (words.next_word(), words.next_word(), words.next_word(), words.next_word());
        let (Some(key), Some(flags), Some(exptime), Some(bytes)) = fields else {
            // Too few words: rule F10's word counts as one of them, then, and what follows are commands.
            return self.invalid(ErrorReply::BadLine, false);
        };
        let cas = if let StoreCommand::Cas(_) = command { words.next_word() } else { None };
        if is_too_many(words, noreply) {
            return self.invalid(ErrorReply::Error, false);
        }
        let bytes = match number::unsigned(bytes) {
            Some(bytes) if bytes <= STATED_BYTES_MAX => bytes,
            // An error found before noreply is recognised is sent (rule F10).
            _ => return self.invalid(ErrorReply::BadLine, false),
        };
        let command = match command {
            StoreCommand::Cas(_) => cas.and_then(number::unsigned).map(StoreCommand::Cas),
            other => Some(other),
        };
        let sound = (command, number::flags(flags), number::signed_leniently(exptime));
        let (Some(command), Some(flags), Some(exptime)) = sound else {
            return self.skip_block(bytes, noreply);
        };
        if !self.is_key(key) {
            return self.skip_block(bytes, noreply);
        }
        if bytes > self.limits.value_bytes_max as u64 {
            let skip = bytes + 2;
            return self.complete(Request::StoreTooLarge { command, key, bytes, noreply, skip });
        }
        self.with_block(bytes as usize, Store { command, key, flags, exptime, data: b"", noreply })
    }

    /// A bad line with a readable length: its data block goes with it (rule S3).
    fn skip_block(&self, bytes: u64, noreply: bool) -> Parsed<'a> {
        let reply = (!noreply).then_some(ErrorReply::BadLine);
        Parsed::Invalid { reply, consumed: self.consumed, skip: bytes + 2 }
    }

    #[cold]
    fn head(&self, value_bytes: usize, store: Store<'a>) -> Parsed<'a> {
        Parsed::Head { store, consumed: self.consumed, value_bytes }
    }

    /// Exactly `bytes` and two more, which must be the line's end (rules S2, Z3).
    fn with_block(&self, bytes: usize, store: Store<'a>) -> Parsed<'a> {
        if bytes >= self.limits.large_bytes_min {
            return self.head(bytes, store);
        }
        let consumed = self.consumed + bytes + 2;
        let Some(block) = self.buffer.get(self.consumed..consumed) else {
            return Parsed::Incomplete { bytes_needed: consumed };
        };
        match block.strip_suffix(b"\r\n") {
            Some(data) => complete(Request::Store(Store { data, ..store }), consumed),
            None => invalid(ErrorReply::BadDataChunk, consumed, store.noreply),
        }
    }

    /// `delete <key>`, with the `0` that old clients send behind it (rules A1, Z2).
    fn delete(&self, mut words: Tokens<'a>) -> Parsed<'a> {
        let Some(key) = words.next_word() else { return self.invalid(ErrorReply::BadLine, false) };
        let noreply = words.take_noreply();
        let old_time_argument = words.next_word();
        if old_time_argument.is_some() && is_too_many(words, noreply) {
            return self.invalid(ErrorReply::Error, false);
        }
        let surplus = words.next_word().is_some() || old_time_argument.is_some_and(|word| word != b"0");
        if surplus {
            return self.invalid(ErrorReply::BadDelete, noreply);
        }
        if !self.is_key(key) {
            return self.invalid(ErrorReply::BadLine, noreply);
        }
        self.complete(Request::Delete { key, noreply })
    }

    fn count(&self, mut words: Tokens<'a>, direction: Direction) -> Parsed<'a> {
        // It is the last word, even where it stands in place of the number (rule F10).
        let noreply = Tokens::take_noreply(&mut words.clone());
        let (Some(key), Some(delta)) = (words.next_word(), words.next_word()) else {
            return self.invalid(ErrorReply::BadLine, false);
        };
        if is_too_many(words, false) {
            return self.invalid(ErrorReply::Error, false);
        }
        if !self.is_key(key) {
            return self.invalid(ErrorReply::BadLine, noreply);
        }
        match number::unsigned(delta) {
            Some(delta) => self.complete(Request::Count { direction, key, delta, noreply }),
            None => self.invalid(ErrorReply::InvalidDelta, noreply),
        }
    }

    fn touch(&self, mut words: Tokens<'a>) -> Parsed<'a> {
        // It is the last word, even where it stands in place of the number (rule F10).
        let noreply = Tokens::take_noreply(&mut words.clone());
        let (Some(key), Some(exptime)) = (words.next_word(), words.next_word()) else {
            return self.invalid(ErrorReply::BadLine, false);
        };
        if is_too_many(words, false) {
            return self.invalid(ErrorReply::Error, false);
        }
        if !self.is_key(key) {
            return self.invalid(ErrorReply::BadLine, noreply);
        }
        match number::signed(exptime) {
            Some(exptime) => self.complete(Request::Touch { key, exptime, noreply }),
            None => self.invalid(ErrorReply::InvalidExptime, noreply),
        }
    }

    fn flush_all(&self, mut words: Tokens<'a>) -> Parsed<'a> {
        let noreply = words.take_noreply();
        let Some(exptime) = words.next_word() else {
            return self.complete(Request::FlushAll { exptime: None, noreply });
        };
        if is_too_many(words, noreply) {
            return self.invalid(ErrorReply::Error, false);
        }
        match number::signed(exptime) {
            Some(exptime) => self.complete(Request::FlushAll { exptime: Some(exptime), noreply }),
            None => self.invalid(ErrorReply::InvalidExptime, noreply),
        }
    }

    fn verbosity(&self, mut words: Tokens<'a>) -> Parsed<'a> {
        let noreply = words.take_noreply();
        let level = words.next_word();
        if level.is_some() && is_too_many(words, noreply) {
            return self.invalid(ErrorReply::Error, false);
        }
        match level.and_then(number::unsigned) {
            Some(level) => self.complete(Request::Verbosity { level, noreply }),
            None => self.invalid(ErrorReply::BadLine, noreply),
        }
    }
}
