//! The binary dialect: what each of its requests does to the cache, and what is answered (rules B1 to B8).
//!
//! Lives here: requests to `Cache` calls, outcomes to statuses. Not here: parsing, buffers, passwords (see `users`).

use hotspare::{
    Attributes, Expiry, ItemRef, Swap, Update, Updated, ValueWriter, Version, WriteError, counter,
};
use hotspare_memcached::binary::{
    Command, Direction, HEADER_BYTES, Limits, Parsed, REQUEST_MAGIC, Request, Response, Side, Status,
    StoreMode, may_come_before_login, parse_request,
};
use hotspare_memcached::classic::{self, ParsedResponse, Tokens};

use super::commands::{Executor, VERSION, is_no_room, is_plainly_no_number, write_error};
use super::given::{Given, begun};
use super::login::{Login, read_plain};
use super::observers::SeenStore;
use super::requests;
use super::stats;
use crate::settings::Protocol;

/// The longest name of a SASL mechanism, in bytes, as memcached's.
const MECHANISM_BYTES_MAX: usize = 32;

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// There is less than a request: so many bytes are needed from the same start.
    Incomplete { bytes_needed: usize },
    /// A request is done: `consumed` bytes go, then `skip` more as they come; or the connection closes.
    Done { consumed: usize, skip: u64, close: bool },
    /// Behind so many bytes a large value comes, to be written here.
    Large { consumed: usize, value: ValueWriter },
}

/// The dialect of a connection whose first byte this is (rule B1).
pub(crate) fn protocol_of(first: u8) -> Protocol {
    if first == REQUEST_MAGIC { Protocol::Binary } else { Protocol::Ascii }
}

/// What a quiet request would be answered if it were not: an error takes its place.
pub(crate) fn quiet_success(request: &[u8]) -> Option<Vec<u8>> {
    let header = request.first_chunk::<HEADER_BYTES>()?;
    let opaque = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let response =
        Response { opcode: header[1], status: Status::OK, opaque, cas: 0, extras: b"", key: b"", value: b"" };
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    response.encode(&mut bytes);
    Some(bytes)
}

/// Carries out the request that the input begins with.
pub(crate) fn step(input: &[u8], login: &mut Login, executor: &mut Executor<'_>, out: &mut Vec<u8>) -> Step {
    let close = Step::Done { consumed: 0, skip: 0, close: true };
    let limits = limits_of(login, executor);
    let (opcode, opaque, parsed) = match parse_request(input, &limits) {
        Parsed::Incomplete { bytes_needed } => return Step::Incomplete { bytes_needed },
        Parsed::Close => return close,
        Parsed::Invalid { status, opcode, opaque } => (opcode, opaque, Err(status)),
        Parsed::Complete { request, consumed } => (request.opcode(), request.opaque, Ok((request, consumed))),
        Parsed::Head { request, consumed, value_bytes } => {
            return Step::Large { consumed, value: executor.begin_binary_store(&request, value_bytes) };
        }
    };
    let quiet = parsed.is_ok_and(|(request, _)| request.quiet);
    let answer = Answer { opcode, opaque, quiet, shows_cas: executor.shared.settings.cas_enabled };
    if login.bars(may_come_before_login(opcode)) && parsed != Err(Status::UNKNOWN_COMMAND) {
        answer.error(Status::LOGIN_FAILED, out);
        return close;
    }
    match parsed {
        Err(status) => {
            answer.error(status, out);
            close
        }
        Ok((request, consumed)) => {
            let after = executor.execute_binary(&request, answer, login, out);
            Step::Done { consumed, skip: after.skip, close: after.close }
        }
    }
}

fn limits_of(login: &Login, executor: &Executor<'_>) -> Limits {
    let settings = &executor.shared.settings;
    // Who is not logged in has no value taken: it is refused when its head has come.
    let value_bytes_max = if login.bars(false) { 0 } else { settings.item_bytes_max.saturating_sub(1) };
    Limits { value_bytes_max, large_bytes_min: settings.large_value_bytes_min, ..Limits::default() }
}

/// A large value has come whole, behind this head.
pub(crate) fn finish_store(
    head: &[u8],
    value: ValueWriter,
    login: &Login,
    executor: &mut Executor<'_>,
    out: &mut Vec<u8>,
) {
    let Parsed::Head { request, .. } = parse_request(head, &limits_of(login, executor)) else {
        unreachable!("as it was before")
    };
    let shows_cas = executor.shared.settings.cas_enabled;
    let answer = Answer { opcode: request.opcode(), opaque: request.opaque, quiet: request.quiet, shows_cas };
    executor.counters.requests.count(counted_as(&request));
    executor.binary_put(&request, value, answer, out);
}

/// What a request counts as; a set with a CAS to compare is memcached's `cas`.
fn counted_as(request: &Request<'_>) -> requests::Command {
    use requests::Command as Counted;
    match request.command {
        Command::Get { touch: None, .. } => Counted::Get,
        Command::Get { touch: Some(_), .. } => Counted::GetAndTouch,
        Command::Touch { .. } => Counted::Touch,
        Command::Store { mode, .. } | Command::TooLarge { mode: Ok(mode), .. } => match mode {
            _ if request.cas != 0 => Counted::Cas,
            StoreMode::Set => Counted::Set,
            StoreMode::Add => Counted::Add,
            StoreMode::Replace => Counted::Replace,
        },
        Command::Extend { side, .. } | Command::TooLarge { mode: Err(side), .. } => match side {
            Side::Back => Counted::Append,
            Side::Front => Counted::Prepend,
        },
        Command::Delete { .. } => Counted::Delete,
        Command::Count { direction: Direction::Up, .. } => Counted::Incr,
        Command::Count { direction: Direction::Down, .. } => Counted::Decr,
        Command::Flush { .. } => Counted::FlushAll,
        Command::Stat { .. } => Counted::Stats,
        _ => Counted::Other,
    }
}

/// What comes behind a request.
#[derive(Debug, Clone, Copy, Default)]
struct After {
    skip: u64,
    close: bool,
}

/// What every response repeats of its request, and whether success is to be told.
#[derive(Debug, Clone, Copy)]
struct Answer {
    opcode: u8,
    opaque: u32,
    quiet: bool,
    /// Whether clients see CAS uniques (rule C3).
    shows_cas: bool,
}

impl Answer {
    fn response<'a>(&self, status: Status, value: &'a [u8]) -> Response<'a> {
        let Answer { opcode, opaque, .. } = *self;
        Response { opcode, status, opaque, cas: 0, extras: b"", key: b"", value }
    }

    /// Success, unless the request was quiet.
    fn success(&self, cas: Version, value: &[u8], out: &mut Vec<u8>) {
        if !self.quiet {
            Response { cas: self.shown(cas.0), ..self.response(Status::OK, value) }.encode(out);
        }
    }

    fn shown(&self, cas: u64) -> u64 {
        if self.shows_cas { cas } else { 0 }
    }

    /// An error is always told (rule B7).
    fn error(&self, status: Status, out: &mut Vec<u8>) {
        self.response(status, status.text().as_bytes()).encode(out);
    }

    /// What the cache refused: what memcached has no status for says why.
    fn refused(&self, error: &WriteError, out: &mut Vec<u8>) {
        match error {
            WriteError::ItemTooLarge { .. } => self.error(Status::TOO_LARGE, out),
            WriteError::OutOfMemory { .. } => self.error(Status::OUT_OF_MEMORY, out),
            other => self.unavailable(&write_error(other.clone()), out),
        }
    }

    fn unavailable(&self, why: &str, out: &mut Vec<u8>) {
        self.response(Status::TEMPORARY_FAILURE, why.as_bytes()).encode(out);
    }

    /// The outcome of a change: its version, or the status that says why not.
    fn outcome(&self, outcome: Result<Result<Version, Status>, WriteError>, out: &mut Vec<u8>) {
        match outcome {
            Ok(Ok(version)) => self.success(version, b"", out),
            Ok(Err(status)) => self.error(status, out),
            Err(error) => self.refused(&error, out),
        }
    }
}

impl Executor<'_> {
    fn execute_binary(
        &mut self,
        request: &Request<'_>,
        answer: Answer,
        login: &mut Login,
        out: &mut Vec<u8>,
    ) -> After {
        let mut after = After::default();
        let no_version = Version(0);
        self.counters.requests.count(counted_as(request));
        match request.command {
            Command::Get { key, with_key, touch } => self.binary_get(key, with_key, touch, answer, out),
            Command::Touch { key, expiry } => self.binary_touch(key, expiry, answer, out),
            Command::Store { value, .. } | Command::Extend { value, .. } => {
                self.binary_put(request, value, answer, out);
            }
            Command::TooLarge { mode, key, bytes } => {
                self.binary_too_large(mode, key, answer, out);
                after.skip = u64::from(bytes);
            }
            Command::Delete { key } => answer.outcome(self.binary_delete(key, request.cas), out),
            Command::Count { .. } => self.binary_count(request, answer, out),
            Command::Flush { expiry } => {
                self.counters.cmd_flush.add(1);
                if !self.shared.settings.flush_enabled {
                    // Rule G2; the status that memcached has for it.
                    answer.error(Status::LOGIN_FAILED, out);
                    return after;
                }
                let outcome = self.binary_flush(expiry).map(|()| Ok(no_version));
                answer.outcome(outcome, out);
            }
            Command::Noop => answer.success(no_version, b"", out),
            Command::Version => answer.success(no_version, VERSION.as_bytes(), out),
            Command::Quit => {
                answer.success(no_version, b"", out);
                after.close = true;
            }
            Command::Stat { key } => self.binary_stat(key, answer, out),
            Command::LoginMechanisms | Command::LoginStart { .. } | Command::LoginStep { .. } => {
                self.log_in(request.command, answer, login, out);
            }
            Command::Unknown { bytes, .. } => {
                answer.error(Status::UNKNOWN_COMMAND, out);
                after.skip = u64::from(bytes);
            }
        }
        after
    }

    /// Quiet forms hide a miss, not a hit (rule B7).
    fn binary_get(
        &mut self,
        key: &[u8],
        with_key: bool,
        touch: Option<u32>,
        answer: Answer,
        out: &mut Vec<u8>,
    ) {
        let told_key = if with_key { key } else { b"" };
        let tell = |item: ItemRef<'_>| {
            let extras = item.flags.to_be_bytes();
            let head = answer.response(Status::OK, b"");
            Response { cas: answer.shown(item.cas()), extras: &extras, key: told_key, ..head }
                .encode_head(item.value.len(), out);
            self.outgoing.append(&item.value, out);
            (item.value.len(), item.value.class())
        };
        let cache = &self.shared.cache;
        let found = match touch {
            None => cache.read(key, tell).map_err(|error| error.to_string()),
            Some(expiry) => {
                cache.read_and_touch(key, self.expiry(expiry.into()), tell).map_err(|error| error.to_string())
            }
        };
        match found {
            Err(why) => return answer.unavailable(&why, out),
            Ok(Some(_)) => {}
            Ok(None) if answer.quiet => {}
            Ok(None) if with_key => {
                Response { key, ..answer.response(Status::NOT_FOUND, b"") }.encode(out);
            }
            Ok(None) => answer.error(Status::NOT_FOUND, out),
        }
        let found = found.ok().flatten();
        self.count_read(found.map(|(_, class)| class), touch.is_some());
        self.saw_get(key, found);
    }

    /// Begins to store the large value that comes behind this request.
    fn begin_binary_store(&self, request: &Request<'_>, value_bytes: usize) -> ValueWriter {
        let (key, attributes) = match request.command {
            Command::Store { key, flags, expiry, .. } => {
                (key, Attributes { flags, expiry: self.expiry(expiry.into()) })
            }
            Command::Extend { key, .. } => (key, Expiry::Never.into()),
            _ => unreachable!("only these have a large value"),
        };
        begun(self.shared.cache.begin_value(key, value_bytes, attributes))
    }

    fn binary_put(&mut self, request: &Request<'_>, value: impl Given, answer: Answer, out: &mut Vec<u8>) {
        let value_bytes = value.bytes();
        let (key, attributes, outcome) = match request.command {
            Command::Store { mode, key, flags, expiry, .. } => {
                let attributes = Attributes { flags, expiry: self.expiry(expiry.into()) };
                (key, attributes, self.binary_store(mode, key, value, attributes, request.cas))
            }
            Command::Extend { side, key, .. } => {
                let outcome = value.in_one_piece(|added| self.binary_extend(side, key, added, request.cas));
                (key, Expiry::Never.into(), outcome)
            }
            _ => unreachable!("only these have a value"),
        };
        self.note_store(request, key, value_bytes, attributes, &outcome);
        answer.outcome(outcome, out);
    }

    fn binary_touch(&mut self, key: &[u8], expiry: u32, answer: Answer, out: &mut Vec<u8>) {
        let tell = |item: ItemRef<'_>| (item.flags.to_be_bytes(), item.cas(), item.value.class());
        let found = match self.shared.cache.read_and_touch(key, self.expiry(expiry.into()), tell) {
            Err(error) => return answer.refused(&error, out),
            Ok(found) => found,
        };
        self.count_read(found.map(|(.., class)| class), true);
        match found {
            // The flags come along, as memcached has it.
            Some((flags, cas, _)) => {
                Response { cas: answer.shown(cas), extras: &flags, ..answer.response(Status::OK, b"") }
                    .encode(out);
            }
            None => answer.error(Status::NOT_FOUND, out),
        }
    }

    /// Rule B5: with a CAS all three are a compare-and-swap.
    fn binary_store(
        &mut self,
        mode: StoreMode,
        key: &[u8],
        value: impl Given,
        attributes: Attributes,
        cas: u64,
    ) -> Result<Result<Version, Status>, WriteError> {
        let cache = &self.shared.cache;
        if cas != 0 {
            let swap = value.swap(cache, key, Version(cas), attributes)?;
            let (counter, outcome) = match swap {
                Swap::Stored(version) => (&self.class_found().cas_hits, Ok(version)),
                Swap::Exists => (&self.class_found().cas_badval, Err(Status::EXISTS)),
                Swap::NotFound => (&self.counters.cas_misses, Err(Status::NOT_FOUND)),
            };
            counter.add(1);
            return Ok(outcome);
        }
        Ok(match mode {
            StoreMode::Set => Ok(value.set(cache, key, attributes)?),
            StoreMode::Add => value.add(cache, key, attributes)?.ok_or(Status::EXISTS),
            StoreMode::Replace => value.replace(cache, key, attributes)?.ok_or(Status::NOT_FOUND),
        })
    }

    /// Counts a store, and tells it to those who look on.
    fn note_store(
        &self,
        request: &Request<'_>,
        key: &[u8],
        value_bytes: usize,
        attributes: Attributes,
        outcome: &Result<Result<Version, Status>, WriteError>,
    ) {
        if outcome.is_ok() {
            self.count_store(key, value_bytes, attributes);
        }
        let status = match outcome {
            Ok(Ok(_)) => "stored",
            Ok(Err(_)) if request.cas == 0 => "not_stored",
            Ok(Err(status)) if *status == Status::EXISTS => "exists",
            Ok(Err(_)) => "not_found",
            Err(WriteError::OutOfMemory { .. }) => "no_memory",
            Err(_) => "too_large",
        };
        let command = counted_as(request).as_str();
        self.saw_store(key, SeenStore { command, status, value_bytes, attributes });
    }

    fn binary_extend(
        &mut self,
        side: Side,
        key: &[u8],
        added: &[u8],
        cas: u64,
    ) -> Result<Result<Version, Status>, WriteError> {
        let cache = &self.shared.cache;
        if cas == 0 {
            return Ok(self.extend(side, key, added)?.ok_or(Status::NOT_STORED));
        }
        cache.check_value_bytes(key, added.len())?;
        let mut refusal = Status::NOT_STORED;
        let updated = cache.update(key, |item| match item {
            None => Update::Keep,
            Some(item) if item.cas() != cas => {
                refusal = Status::EXISTS;
                Update::Keep
            }
            Some(item) => {
                let mut whole = Vec::with_capacity(item.value.len() + added.len());
                if side == Side::Front {
                    whole.extend_from_slice(added);
                }
                item.value.append_to(&mut whole);
                if side == Side::Back {
                    whole.extend_from_slice(added);
                }
                Update::Replace(whole.into())
            }
        });
        Ok(match updated {
            Ok(Updated::Stored(version)) => Ok(version),
            Ok(Updated::Kept | Updated::Removed) => Err(refusal),
            // As in `Executor::extend`: what was sent fits.
            Err(error) if is_no_room(&error) => Err(Status::NOT_STORED),
            Err(error) => return Err(error),
        })
    }

    /// Rules L3 and L5: a set that fails takes the old item with it.
    fn binary_too_large(
        &mut self,
        mode: Result<StoreMode, Side>,
        key: &[u8],
        answer: Answer,
        out: &mut Vec<u8>,
    ) {
        self.counters.store_too_large.add(1);
        let removed = match mode {
            Ok(StoreMode::Set) => self.shared.cache.delete(key).map(|_| ()),
            _ => Ok(()),
        };
        match removed {
            Ok(()) => answer.error(Status::TOO_LARGE, out),
            Err(error) => answer.refused(&error, out),
        }
    }

    fn binary_delete(&mut self, key: &[u8], cas: u64) -> Result<Result<Version, Status>, WriteError> {
        let cache = &self.shared.cache;
        let deletion = match cas {
            0 if cache.delete(key)? => hotspare::Deletion::Deleted,
            0 => hotspare::Deletion::NotFound,
            cas => cache.compare_and_delete(key, Version(cas))?,
        };
        Ok(match deletion {
            hotspare::Deletion::Deleted => {
                self.class_found().delete_hits.add(1);
                self.saw_delete(key, true);
                Ok(Version(0))
            }
            hotspare::Deletion::Exists => Err(Status::EXISTS),
            hotspare::Deletion::NotFound => {
                self.counters.delete_misses.add(1);
                self.saw_delete(key, false);
                Err(Status::NOT_FOUND)
            }
        })
    }

    /// Rules B5, B6, Z7, and A3 to A5 for the text.
    fn binary_count(&mut self, request: &Request<'_>, answer: Answer, out: &mut Vec<u8>) {
        let Command::Count { direction, key, delta, initial, expiry } = request.command else { return };
        let attributes = self.expiry(expiry.into()).into();
        let mut class = None;
        let mut outcome = Err(Status::NOT_FOUND);
        let updated = self.shared.cache.update(key, |item| {
            class = item.map(|item| item.value.class());
            let text = match item {
                None if expiry == Command::NEVER_CREATE => return Update::Keep,
                None => {
                    outcome = Ok(initial);
                    return Update::Store { value: counter::text(initial, 0).into(), attributes };
                }
                Some(item)
                    if request.cas != 0
                        && item.cas() != request.cas
                        && !is_plainly_no_number(item.value.len()) =>
                {
                    outcome = Err(Status::EXISTS);
                    return Update::Keep;
                }
                Some(item) => item.value,
            };
            let Some(number) = text.as_slice().and_then(counter::parse) else {
                outcome = Err(Status::NOT_A_NUMBER);
                return Update::Keep;
            };
            let number = match direction {
                Direction::Up => number.wrapping_add(delta),
                Direction::Down => number.saturating_sub(delta),
            };
            outcome = Ok(number);
            Update::Replace(counter::text(number, text.len()).into())
        });
        match (updated, outcome) {
            (Err(error), _) => answer.refused(&error, out),
            (Ok(Updated::Stored(version)), Ok(number)) => {
                if class.is_some() {
                    self.count_count(direction, class);
                }
                self.saw_count(key, direction, number);
                answer.success(version, &number.to_be_bytes(), out);
            }
            (Ok(_), outcome) => {
                if class.is_none() {
                    self.count_count(direction, None);
                }
                answer.error(outcome.err().unwrap_or(Status::NOT_FOUND), out);
            }
        }
    }

    fn binary_flush(&mut self, expiry: Option<u32>) -> Result<(), WriteError> {
        match expiry {
            Some(expiry) if expiry > 0 => self.shared.cache.flush_at(self.expiry(expiry.into())),
            _ => self.shared.cache.flush(),
        }
    }

    /// The classic answer, one packet a line (rule B8).
    fn binary_stat(&mut self, key: &[u8], answer: Answer, out: &mut Vec<u8>) {
        let mut lines = Vec::new();
        stats::write(self.shared, self.descriptor, Tokens::new(key), &mut lines);
        let limits = classic::Limits::default();
        let mut rest = &lines[..];
        while let ParsedResponse::Complete { response, consumed } = classic::parse_response(rest, &limits) {
            rest = &rest[consumed..];
            match response {
                classic::Response::Stat { name, value } => {
                    Response { key: name, ..answer.response(Status::OK, value) }.encode(out);
                }
                classic::Response::Error | classic::Response::ClientError(_) => {
                    return answer.error(Status::NOT_FOUND, out);
                }
                _ => break,
            }
        }
        answer.success(Version(0), b"", out);
    }

    /// SASL PLAIN (rule Q2).
    fn log_in(&mut self, command: Command<'_>, answer: Answer, login: &mut Login, out: &mut Vec<u8>) {
        let Some(users) = &self.shared.settings.sasl_users else {
            return answer.error(Status::UNKNOWN_COMMAND, out);
        };
        let (mechanism, message, may_go_on) = match command {
            Command::LoginStart { mechanism, message } => (mechanism, message, true),
            Command::LoginStep { mechanism, message } => (mechanism, message, *login == Login::Begun),
            _ => return answer.success(Version(0), b"PLAIN", out),
        };
        if mechanism.len() > MECHANISM_BYTES_MAX {
            return answer.error(Status::INVALID, out);
        }
        let is_plain = mechanism == b"PLAIN" && may_go_on;
        let is_start = matches!(command, Command::LoginStart { .. });
        if is_plain && is_start && message.is_empty() {
            *login = Login::Begun;
            return answer.response(Status::LOGIN_CONTINUES, b"").encode(out);
        }
        let named = if is_plain { read_plain(message) } else { None };
        if login.try_password(users, named, self.counters) {
            answer.success(Version(0), b"Authenticated", out);
        } else {
            answer.error(Status::LOGIN_FAILED, out);
        }
    }
}
