//! What each meta command does to the cache, and what is answered.
//!
//! Lives here: requests to `Cache` calls, outcomes to memcached's codes. Not here: parsing (see
//! `hotspare_memcached::meta`), the classic commands (see `commands`).
//!
//! What is one step for a client is one step here: a condition and what it guards run inside one `Cache::update`.
//! A win token is kept with the item, which is stored anew for it with the CAS that clients know.

mod count;
mod get;
mod store;

use hotspare::{Expiry, ItemRef, ReadError, ValueWriter, WriteError};
use hotspare_memcached::classic::Limits;
use hotspare_memcached::meta::{
    ErrorReply, Flags, KeyBuffer, Parsed, Request, Status, Target, encode_flag, encode_key_flag,
    encode_number_flag, encode_status, encode_stored_key, encode_stored_key_flag, encode_ttl_flag, end_line,
    parse_request,
};

use super::commands::{ABOVE_ITEM_SIZE, Executor, read_error, server_error, write_error};
use super::requests::Command;
pub(crate) use get::PlainGet;

/// What the connection does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// So many bytes are done with; so many behind them are thrown away.
    Done { consumed: usize, skip: u64 },
    /// So many bytes are needed in all.
    Incomplete { bytes_needed: usize },
    /// Behind so many bytes a large value comes, to be written here.
    Large { consumed: usize, value: ValueWriter },
    /// It is over.
    Close,
}

/// Room for a decoded key.
const KEY_BUFFER: KeyBuffer = [0; 250];

/// What an answer may tell of an item.
#[derive(Debug, Clone, Copy)]
struct Facts {
    cas: u64,
    client_flags: u32,
    /// Whether it was read before this command.
    is_fetched: bool,
    /// Seconds since it was accessed before this command.
    unread_s: u64,
    /// Whether the item was stored under an encoded key (rule M3).
    is_key_binary: bool,
    bytes: usize,
    /// Time to live, in seconds; `None` is for ever.
    ttl_s: Option<u64>,
}

impl Executor<'_> {
    /// Executes what the input begins with: a meta command.
    pub(crate) fn execute_meta(&mut self, parsed: &Parsed<'_>, input: &[u8], out: &mut Vec<u8>) -> Step {
        match parsed {
            Parsed::Complete { request, consumed } => {
                self.counters.cmd_meta.add(1);
                self.counters.requests.count(command_of(request));
                let start = out.len();
                let skip = self.execute_meta_request(request, out).unwrap_or_else(|error| {
                    out.truncate(start);
                    fail(error, out);
                    0
                });
                Step::Done { consumed: *consumed, skip }
            }
            Parsed::Invalid { reply, consumed, skip } => {
                self.count_bad_block(&input[..*consumed]);
                reply.encode(out);
                Step::Done { consumed: *consumed, skip: *skip }
            }
            Parsed::Head { target, consumed, value_bytes, .. } => {
                Step::Large { consumed: *consumed, value: self.begin_meta_store(target, *value_bytes) }
            }
            Parsed::Incomplete { bytes_needed } => Step::Incomplete { bytes_needed: *bytes_needed },
            Parsed::Close => Step::Close,
        }
    }

    /// A large value has come whole; none if not the right bytes stood behind it.
    pub(crate) fn finish_meta_store(
        &mut self,
        head: &[u8],
        value: Option<ValueWriter>,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) {
        let Parsed::Head { target, mode, .. } = parse_request(head, limits) else {
            unreachable!("as it was before")
        };
        let Some(value) = value else {
            self.count_refused_line(head);
            return ErrorReply::BadDataChunk.encode(out);
        };
        self.counters.cmd_meta.add(1);
        self.counters.requests.count(Command::MetaSet);
        let start = out.len();
        if let Err(error) = self.meta_store(&target, mode, value, out) {
            out.truncate(start);
            fail(error.into(), out);
        }
    }

    /// Bytes to throw away behind the request.
    fn execute_meta_request(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Result<u64, Failure> {
        match request {
            Request::Get(target) => self.meta_get(target, out)?,
            Request::Store { target, mode, data } => self.meta_store(target, *mode, *data, out)?,
            Request::StoreTooLarge { target, skip, .. } => {
                self.counters.store_too_large.add(1);
                fail(self.drop_overwritten(target, ABOVE_ITEM_SIZE).into(), out);
                return Ok(*skip);
            }
            Request::Delete(target) => self.meta_delete(target, out)?,
            Request::Count { target, direction } => self.meta_count(target, *direction, out)?,
            Request::Debug(target) => self.meta_debug(target, out)?,
            // Rule M7: all that was answered before is sent with this, in the same turn.
            Request::Noop => out.extend_from_slice(b"MN\r\n"),
        }
        Ok(0)
    }

    /// A status line, with what it tells of the item; in a quiet command the boring one is left out (rule M5).
    fn meta_status(
        target: &Target<'_>,
        status: Status,
        boring: Status,
        facts: Option<(&[u8], &Facts)>,
        out: &mut Vec<u8>,
    ) {
        if target.flags.has(b'q') && status == boring {
            return;
        }
        encode_status(status, out);
        encode_flags(target, facts, out);
        end_line(out);
    }

    /// Time to live, in seconds, begun ones counted whole: what was just given 30 seconds has 30.
    fn ttl_s(&self, expires_at_ms: Option<u64>) -> Option<u64> {
        expires_at_ms.map(|moment| moment.saturating_sub(self.shared.cache.now_ms()).div_ceil(1000))
    }

    /// Of what depends on the time only what the request asks for: that costs a look at the clock each.
    fn facts(&self, target: &Target<'_>, item: &ItemRef<'_>) -> Facts {
        let (has_age, has_ttl) = (target.flags.has(b'l'), target.flags.has(b't'));
        Facts {
            unread_s: if has_age { self.unread_s(item) } else { 0 },
            ttl_s: if has_ttl { self.ttl_s(item.expires_at_ms) } else { None },
            ..self.timeless_facts(item)
        }
    }

    fn timeless_facts(&self, item: &ItemRef<'_>) -> Facts {
        Facts {
            cas: self.shared.settings.shown_cas(item.cas()),
            client_flags: item.flags,
            is_fetched: item.is_fetched,
            unread_s: 0,
            is_key_binary: item.state.is_key_binary,
            bytes: item.value.len(),
            ttl_s: None,
        }
    }

    /// Counts the item as read that this command has stored anew. What was done is answered as done, also where the node has
    /// stepped down in between and takes no reads any more: then nothing but the count is lost.
    fn count_as_read(&self, key: &[u8]) {
        let _ = self.shared.cache.read(key, |_| ());
    }

    /// Seconds since the item was last accessed; 0 where the cache does not keep that.
    fn unread_s(&self, item: &ItemRef<'_>) -> u64 {
        let now_s = self.shared.cache.now_ms() / 1000;
        item.accessed_s.map_or(0, |accessed_s| now_s.saturating_sub(accessed_s))
    }

    /// The moment that an expiry means now.
    fn expires_at_ms(&self, expiry: Expiry) -> Option<u64> {
        match expiry {
            Expiry::Never => None,
            Expiry::At(moment) => Some(moment),
            Expiry::After(lifetime) => {
                let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
                Some(self.shared.cache.now_ms().saturating_add(lifetime_ms))
            }
        }
    }

    /// Rule M7.
    fn meta_debug(&self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let cache = &self.shared.cache;
        let facts = |item: ItemRef<'_>| Facts {
            unread_s: self.unread_s(&item),
            ttl_s: self.ttl_s(item.expires_at_ms),
            ..self.timeless_facts(&item)
        };
        let found = cache.peek(key, facts)?.zip(cache.details(key)?);
        let Some((facts, details)) = found else {
            encode_status(Status::Miss, out);
            end_line(out);
            return Ok(());
        };
        let ttl = facts.ttl_s.map_or("-1".to_owned(), |seconds| seconds.to_string());
        let fetch = if facts.is_fetched { "yes" } else { "no" };
        let (class, size) = (details.class + 1, details.bytes);
        out.extend_from_slice(b"ME ");
        encode_stored_key(key, facts.is_key_binary, out);
        let (la, cas) = (facts.unread_s, facts.cas);
        let text = format!(" exp={ttl} la={la} cas={cas} fetch={fetch} cls={class} size={size}\r\n");
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// What a request counts as.
fn command_of(request: &Request<'_>) -> Command {
    match request {
        Request::Get(_) => Command::MetaGet,
        Request::Store { .. } | Request::StoreTooLarge { .. } => Command::MetaSet,
        Request::Delete(_) => Command::MetaDelete,
        Request::Count { .. } => Command::MetaArithmetic,
        Request::Debug(_) => Command::MetaDebug,
        Request::Noop => Command::MetaNoop,
    }
}

/// Appends the flags that the request asks back, in its order (rule M1). Of an item those in `letters` are told.
fn encode_flags(target: &Target<'_>, facts: Option<(&[u8], &Facts)>, out: &mut Vec<u8>) {
    for flag in target.flags.iter() {
        match (flag.letter, facts) {
            (b'O', _) => encode_flag(flag.word, out),
            (b'k', Some((_, facts))) => {
                encode_stored_key_flag(target.key.bytes(&mut KEY_BUFFER.clone()), facts.is_key_binary, out);
            }
            (b'k', None) => encode_key_flag(target.key, out),
            (letter, Some((letters, facts))) if letters.contains(&letter) => facts.encode(letter, out),
            _ => {}
        }
    }
}

impl Facts {
    fn encode(&self, letter: u8, out: &mut Vec<u8>) {
        match letter {
            b'c' => encode_number_flag(b'c', self.cas, out),
            b'f' => encode_number_flag(b'f', u64::from(self.client_flags), out),
            b'h' => encode_number_flag(b'h', u64::from(self.is_fetched), out),
            b'l' => encode_number_flag(b'l', self.unread_s, out),
            b's' => encode_number_flag(b's', self.bytes as u64, out),
            b't' => encode_ttl_flag(self.ttl_s, out),
            _ => {}
        }
    }
}

/// Whether the CAS to compare with, if there is one, is the item's; 0 is nobody's (rule C2).
fn is_cas_right(flags: &Flags<'_>, item: &ItemRef<'_>) -> bool {
    flags.compare_cas().is_none_or(|cas| cas != 0 && cas == item.cas())
}

/// [`is_cas_right`] for `ma` and for growing a value, where memcached takes 0 for no comparison (rules D9, D12).
fn is_cas_right_unless_0(flags: &Flags<'_>, item: &ItemRef<'_>) -> bool {
    flags.compare_cas() == Some(0) || is_cas_right(flags, item)
}

/// The expiry that an item has.
fn expiry_of(item: &ItemRef<'_>) -> Expiry {
    item.expires_at_ms.map_or(Expiry::Never, Expiry::At)
}

/// Why a command was refused: a node that answers no reads says so in the same words as to `get`.
enum Failure {
    Read(ReadError),
    Write(WriteError),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Read(error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::Write(error)
    }
}

/// Errors are never quiet (rule M4).
fn fail(error: Failure, out: &mut Vec<u8>) {
    match error {
        Failure::Read(ReadError::KeyLength { .. }) | Failure::Write(WriteError::KeyLength { .. }) => {
            ErrorReply::BadLine.encode(out);
        }
        Failure::Read(error) => server_error(out, &read_error(error)),
        Failure::Write(error) => server_error(out, &write_error(error)),
    }
}
