//! What each request does to the cache, and what is answered.
//!
//! Lives here: requests to `Cache` calls, outcomes to memcached's words. Not here: parsing, buffers, statistics'
//! names (see `stats`).

use std::io::{IoSlice, Write};
use std::iter;
use std::ops::ControlFlow;
use std::time::Duration;

use hotspare::{
    Attributes, CounterError, Expiry, ItemRef, ReadError, Swap, ValueWriter, Version, WriteError,
};
use hotspare_memcached::binary::Side;
use hotspare_memcached::classic::{
    Direction, ErrorReply, Keys, Lifetime, Limits, Parsed, Request, Response, ShutdownMode, Store,
    StoreCommand, Tokens, encode_value_header, lifetime, parse_request,
};

use super::administration::number;
use super::counters::{ClassCounters, Counters};
use super::crawler::Dump;
use super::given::{Given, begun};
use super::observers::SeenStore;
use super::outgoing::Outgoing;
use super::requests::Command;
use super::watch::Watch;
use super::{Shared, stats};

/// What `version` answers: clients read three numbers from it and choose features by them, so it begins with the
/// memcached release whose commands are spoken.
pub(crate) const VERSION: &str = concat!("1.6.45-hotspare-", env!("CARGO_PKG_VERSION"));

/// The longest text of an error line, below rule F8's kilobyte.
const ERROR_TEXT_BYTES_MAX: usize = 900;

/// Values from this length on are sent from where they lie, in bytes: for shorter ones a copy costs less than the
/// system call that it takes to send each by itself.
const SENT_DIRECTLY_BYTES_MIN: usize = 16 << 10;

/// Parts of an answer that one system call sends, of a value in more pieces the first ones.
const PARTS_MAX: usize = 64;

/// So many keys are looked up at once: as many as a processor can have misses under way for.
pub(super) const AHEAD_MAX: usize = 16;

/// What `-F` has answered.
const FLUSH_REFUSED: Response<'static> = Response::ClientError(b"flush_all not allowed");

/// Executes requests for one worker.
pub(crate) struct Executor<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) counters: &'a Counters,
    /// Of the client's socket: memcached's name for a connection.
    pub(crate) descriptor: i32,
    /// A large value that was found, for whoever sends it.
    pub(crate) outgoing: Outgoing,
}

/// How far a get or a dump has come whose answer did not fit.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    keys_answered: usize,
    /// A dump whose next piece is due.
    pub(super) dump: Option<Dump>,
    /// Whether the client has answers to come of requests before this one.
    pub(super) is_pipelined: bool,
}

impl Progress {
    pub(super) fn is_at_start(&self) -> bool {
        self.keys_answered == 0 && self.dump.is_none()
    }
}

/// What a request counts as.
#[inline]
fn command_of(request: &Request<'_>) -> Command {
    match request {
        Request::Get { .. } => Command::Get,
        Request::GetAndTouch { .. } => Command::GetAndTouch,
        Request::Store(Store { command, .. }) | Request::StoreTooLarge { command, .. } => match command {
            StoreCommand::Set => Command::Set,
            StoreCommand::Add => Command::Add,
            StoreCommand::Replace => Command::Replace,
            StoreCommand::Append => Command::Append,
            StoreCommand::Prepend => Command::Prepend,
            StoreCommand::Cas(_) => Command::Cas,
        },
        Request::Delete { .. } => Command::Delete,
        Request::Count { direction: Direction::Up, .. } => Command::Incr,
        Request::Count { direction: Direction::Down, .. } => Command::Decr,
        Request::Touch { .. } => Command::Touch,
        Request::FlushAll { .. } => Command::FlushAll,
        Request::Stats { .. } => Command::Stats,
        _ => Command::Other,
    }
}

/// What the connection does next.
pub(crate) enum Flow {
    /// The next request.
    Next,
    /// So many bytes are thrown away first.
    Skip(u64),
    /// What was answered is sent, then the connection closes.
    Close,
    /// The same request once more, when what is unsent has gone.
    OutputFull,
    /// The same request once more, when the other connections had their turn.
    Again,
    /// No more requests: the client watches from now on (rule G8).
    Watch(Watch),
}

type Answer = Response<'static>;

impl<'a> Executor<'a> {
    #[inline]
    pub(crate) fn new(shared: &'a Shared, counters: &'a Counters, descriptor: i32) -> Executor<'a> {
        let outgoing = Outgoing::new(shared.settings.pinned_value_bytes_min);
        Executor { shared, counters, descriptor, outgoing }
    }
}

impl Executor<'_> {
    /// Executes one request. `output_bytes_max` is the output's length above which a get stops between two keys.
    pub(crate) fn execute(
        &mut self,
        request: &Request<'_>,
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Flow {
        if progress.is_at_start() {
            self.counters.requests.count(command_of(request));
        }
        match *request {
            Request::Get { with_cas, keys } => {
                return self.get(keys, with_cas, None, progress, output_bytes_max, out);
            }
            Request::GetAndTouch { with_cas, exptime, keys } => {
                return self.get(keys, with_cas, Some(exptime), progress, output_bytes_max, out);
            }
            Request::Store(store) => self.store(&store, store.data, out),
            Request::StoreTooLarge { command, key, noreply, skip, .. } => {
                self.refuse_too_large(command, key, noreply, out);
                return Flow::Skip(skip);
            }
            Request::Delete { key, noreply } => self.delete(key, noreply, out),
            Request::Count { direction, key, delta, noreply } => {
                self.count(direction, key, delta, noreply, out);
            }
            Request::Touch { key, exptime, noreply } => self.touch(key, exptime, noreply, out),
            Request::FlushAll { exptime, noreply } => self.flush_all(exptime, noreply, out),
            Request::RefreshCertificates { noreply } => self.refresh_certificates(noreply, out),
            Request::Version => Response::Version(VERSION.as_bytes()).encode(out),
            Request::Verbosity { level, noreply } => {
                self.set_verbosity(level);
                reply(out, noreply, Response::Ok);
            }
            Request::Quit => return Flow::Close,
            Request::Stats { arguments } => {
                if let Some(flow) = self.cachedump(arguments, progress, output_bytes_max, out) {
                    return flow;
                }
                stats::write(self.shared, self.descriptor, arguments, out);
            }
            Request::Operate { command, arguments } => {
                return self.operate(command, arguments, progress, output_bytes_max, out);
            }
            Request::Shutdown { .. } if !self.shared.settings.shutdown_command => {
                out.extend_from_slice(b"SERVER_ERROR: shutdown not enabled\r\n");
            }
            Request::Shutdown { arguments } => match ShutdownMode::read(arguments) {
                Some(mode) => {
                    (self.shared.on_shutdown_command)(mode);
                    return Flow::Close;
                }
                None => Response::ClientError(b"invalid shutdown mode").encode(out),
            },
        }
        Flow::Next
    }

    fn refresh_certificates(&self, noreply: bool, out: &mut Vec<u8>) {
        match self.shared.reload_certificates() {
            Some(Ok(())) => reply(out, noreply, Response::Ok),
            Some(Err(why)) => server_error(out, &why),
            // In memcached's words, which are no error of the protocol.
            None => out.extend_from_slice(b"Error TLS not enabled\r\n"),
        }
    }

    pub(super) fn expiry(&self, exptime: i64) -> Expiry {
        match lifetime(exptime) {
            Lifetime::Never => Expiry::Never,
            // Rule X2: the Unix epoch is as dead as any moment before the start.
            Lifetime::AlreadyExpired => Expiry::At(1),
            Lifetime::Seconds(seconds) => Expiry::After(Duration::from_secs(seconds)),
            Lifetime::UnixTime(seconds) => match seconds.saturating_mul(1000) {
                moment if moment <= self.shared.started_at_ms => Expiry::At(1),
                moment => Expiry::At(moment),
            },
        }
    }

    /// The values of the keys, from where the last try stopped (rules R1, R3).
    fn get(
        &mut self,
        keys: Keys<'_>,
        with_cas: bool,
        exptime: Option<i64>,
        progress: &mut Progress,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut rest = keys;
        rest.skip_words(progress.keys_answered);
        let mut batch = [&[][..]; AHEAD_MAX];
        loop {
            let count = rest.take_words(&mut batch);
            let batch = &batch[..count];
            if batch.is_empty() {
                break;
            }
            if self.goes_on(out, output_bytes_max).is_break() {
                return Flow::OutputFull;
            }
            let answered = match exptime {
                None => self.read_batch(batch, with_cas, output_bytes_max, out),
                Some(exptime) => {
                    self.touch_batch(batch, self.expiry(exptime), with_cas, output_bytes_max, out)
                }
            };
            match answered {
                Ok(answered) => {
                    progress.keys_answered += answered;
                    if answered < batch.len() {
                        return Flow::OutputFull;
                    }
                }
                Err(text) => {
                    // A node that serves no reads says so once, instead of the END that would mean a miss.
                    server_error(out, &text);
                    *progress = Progress::default();
                    return Flow::Next;
                }
            }
        }
        *progress = Progress::default();
        Response::End.encode(out);
        Flow::Next
    }

    /// Answers keys until the output is full; gives how many, at least one.
    #[inline]
    fn read_batch(
        &self,
        keys: &[&[u8]],
        with_cas: bool,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let (cache, settings) = (&self.shared.cache, &self.shared.settings);
        // By reference: it is large, and a copy of it would be made.
        let tell = |item: &ItemRef<'_>, out: &mut Vec<u8>| {
            self.write_value(item, with_cas.then(|| settings.shown_cas(item.cas())), out)
        };
        if let [key] = keys {
            let found = cache.read(key, |item| tell(&item, out)).map_err(read_error)?;
            self.note_read(key, found, false);
            return Ok(1);
        }
        let mut found = [None; AHEAD_MAX];
        let mut answered = 0;
        let read = cache.read_while(keys, |at, item| {
            found[at] = item.as_ref().map(|item| tell(item, out));
            answered = at + 1;
            self.goes_on(out, output_bytes_max)
        });
        self.note_reads(&keys[..answered], &found);
        read.map(|()| answered).map_err(read_error)
    }

    /// Whether a further key is to be answered, behind what is in `out`.
    #[inline]
    pub(super) fn goes_on(&self, out: &[u8], output_bytes_max: usize) -> ControlFlow<()> {
        if out.len() > output_bytes_max || self.outgoing.is_full() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Answers gets of one key each, until the output is full or a read is refused; gives how many.
    pub(super) fn get_each(&self, keys: &[&[u8]], output_bytes_max: usize, out: &mut Vec<u8>) -> usize {
        let mut found = [None; AHEAD_MAX];
        let mut answered = 0;
        let read = self.shared.cache.read_while(keys, |at, item| {
            found[at] = item.as_ref().map(|item| self.write_value(item, None, out));
            Response::End.encode(out);
            answered = at + 1;
            self.goes_on(out, output_bytes_max)
        });
        // Who is refused asks once more, alone, and is told why.
        let _ = read;
        self.counters.requests.count_several(Command::Get, answered);
        self.note_reads(&keys[..answered], &found);
        answered
    }

    /// Answers a get of one key behind which nothing has come, into an empty output. A value is sent from where it lies from some
    /// length on, as far as the socket takes it at once; only the rest is copied, or a larger one pinned. Gives how many bytes have
    /// gone.
    #[inline]
    pub(crate) fn get_directly(&self, key: &[u8], socket: &mut impl Write, out: &mut Vec<u8>) -> usize {
        self.counters.requests.count(Command::Get);
        let mut sent = 0;
        let answer = |item: ItemRef<'_>| {
            if item.value.len() < SENT_DIRECTLY_BYTES_MIN {
                let told = self.write_value(&item, None, out);
                Response::End.encode(out);
                return told;
            }
            encode_value_header(item.key, item.flags, item.value.len(), None, out);
            match self.outgoing.pin(&item.value, out) {
                true => out.extend_from_slice(VALUE_END),
                false => sent = send_value(&item, socket, out),
            }
            self.counters.bytes_written.add(sent as u64);
            (item.value.len(), item.value.class())
        };
        match self.shared.cache.read(key, answer) {
            Ok(found) => {
                self.note_read(key, found, false);
                if found.is_none() {
                    Response::End.encode(out);
                }
            }
            Err(error) => server_error(out, &read_error(error)),
        }
        sent
    }

    /// As [`Executor::read_batch`], and gives what it finds another expiry.
    fn touch_batch(
        &self,
        keys: &[&[u8]],
        expiry: Expiry,
        with_cas: bool,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let (cache, settings) = (&self.shared.cache, &self.shared.settings);
        if keys.len() > 1 {
            cache.prefetch(keys);
        }
        for (at, key) in keys.iter().enumerate() {
            if out.len() > output_bytes_max || self.outgoing.is_full() {
                return Ok(at);
            }
            let tell = |item: ItemRef<'_>| {
                self.write_value(&item, with_cas.then(|| settings.shown_cas(item.cas())), out)
            };
            let found = cache.read_and_touch(key, expiry, tell).map_err(write_error)?;
            self.note_read(key, found, true);
        }
        Ok(keys.len())
    }

    /// Gives the value's length and its item's class.
    #[inline]
    fn write_value(&self, item: &ItemRef<'_>, cas: Option<u64>, out: &mut Vec<u8>) -> (usize, usize) {
        encode_value_header(item.key, item.flags, item.value.len(), cas, out);
        self.outgoing.append(&item.value, out);
        out.extend_from_slice(b"\r\n");
        (item.value.len(), item.value.class())
    }

    /// A key was asked for and answered; with the value's length and its item's class, if there is one.
    #[inline]
    pub(super) fn note_read(&self, key: &[u8], found: Option<(usize, usize)>, touched: bool) {
        self.count_read(found.map(|(_, class)| class), touched);
        self.saw_get(key, found);
    }

    /// [`Executor::note_read`] of several keys of gets, all at once.
    #[inline]
    fn note_reads(&self, keys: &[&[u8]], found: &[Option<(usize, usize)>]) {
        if self.shared.operator.observers.wants_gets() {
            for (key, found) in keys.iter().zip(found) {
                self.saw_get(key, *found);
            }
        }
        let (counters, found) = (self.counters, &found[..keys.len()]);
        let mut hits = 0;
        // Most often all of one class.
        for of_one_class in found.chunk_by(|one, next| is_same_class(*one, *next)) {
            if let Some(Some((_, class))) = of_one_class.first() {
                counters.class(*class).get_hits.add(of_one_class.len() as u64);
                hits += of_one_class.len();
            }
        }
        counters.cmd_get.add(keys.len() as u64);
        counters.get_misses.add((keys.len() - hits) as u64);
    }

    /// `class`: of what was found.
    pub(super) fn count_read(&self, class: Option<usize>, touched: bool) {
        let counters = self.counters;
        let (all, misses) = match touched {
            false => (&counters.cmd_get, &counters.get_misses),
            true => (&counters.cmd_touch, &counters.touch_misses),
        };
        all.add(1);
        match class.map(|class| counters.class(class)) {
            Some(class) => if touched { &class.touch_hits } else { &class.get_hits }.add(1),
            None => misses.add(1),
        }
    }

    /// A store that was carried out or not, as the key's presence said; under the class of what was given. One that
    /// failed counts elsewhere.
    pub(super) fn count_store(&self, key: &[u8], value_bytes: usize, attributes: Attributes) {
        let class = self.shared.cache.class_of(key.len(), value_bytes, attributes);
        self.counters.class(class).cmd_set.add(1);
    }

    /// A refused request whose data block came along, with the wrong end, counts as a store as memcached has it.
    #[cold]
    pub(super) fn count_bad_block(&self, refused: &[u8]) {
        let Some(line_end) = refused.iter().position(|byte| *byte == b'\n') else { return };
        if line_end + 1 < refused.len() {
            self.count_refused_line(&refused[..line_end]);
        }
    }

    /// A line that is refused, and what to answer. memcached counts a `flush_all` and says whether it is allowed (rule G2) before
    /// it looks at the argument.
    #[cold]
    pub(super) fn refuse_line(&self, refused: &[u8], reply: Option<ErrorReply>, out: &mut Vec<u8>) {
        self.count_bad_block(refused);
        if refused.starts_with(b"flush_all ") && reply != Some(ErrorReply::Error) {
            self.counters.cmd_flush.add(1);
            if reply.is_some() && !self.shared.settings.flush_enabled {
                return FLUSH_REFUSED.encode(out);
            }
        }
        if let Some(reply) = reply {
            reply.encode(out);
        }
    }

    /// [`Executor::count_bad_block`] of a request with this line.
    pub(super) fn count_refused_line(&self, line: &[u8]) {
        let mut words = Tokens::new(line.trim_ascii_end()).iter();
        let (name, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let bytes = if name == b"ms" { words.next() } else { words.nth(2) };
        let bytes = bytes.and_then(number).map_or(0, |bytes| bytes as usize);
        let class = self.shared.cache.class_of(key.len(), bytes, Expiry::Never);
        self.counters.class(class).cmd_set.add(1);
    }

    /// The counters of the class of what the last write found.
    pub(super) fn class_found(&self) -> &ClassCounters {
        self.counters.class(self.shared.cache.class_found())
    }

    /// Begins to store the large value that comes behind this request.
    pub(crate) fn begin_store(&self, store: &Store<'_>, value_bytes: usize) -> ValueWriter {
        begun(self.shared.cache.begin_value(store.key, value_bytes, self.attributes_of(store)))
    }

    /// A large value has come whole; none if not the right bytes stood behind it.
    pub(crate) fn finish_store(
        &mut self,
        head: &[u8],
        value: Option<ValueWriter>,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) {
        let Parsed::Head { store, .. } = parse_request(head, limits) else {
            unreachable!("as it was before")
        };
        match value {
            Some(value) => {
                self.counters.requests.count(command_of(&Request::Store(store)));
                self.store(&store, value, out);
            }
            None => {
                self.count_refused_line(head);
                if !store.noreply {
                    ErrorReply::BadDataChunk.encode(out);
                }
            }
        }
    }

    pub(super) fn attributes_of(&self, store: &Store<'_>) -> Attributes {
        Attributes { flags: store.flags, expiry: self.expiry(store.exptime) }
    }

    fn store(&mut self, store: &Store<'_>, data: impl Given, out: &mut Vec<u8>) {
        let cache = &self.shared.cache;
        let (Store { command, key, .. }, value_bytes) = (*store, data.bytes());
        let attributes = self.attributes_of(store);
        let if_stored = |version: Option<Version>| match version {
            Some(_) => Response::Stored,
            None => Response::NotStored,
        };
        let outcome = match command {
            StoreCommand::Set => data.set(cache, key, attributes).map(|_| Response::Stored),
            StoreCommand::Add => data.add(cache, key, attributes).map(if_stored),
            StoreCommand::Replace => data.replace(cache, key, attributes).map(if_stored),
            StoreCommand::Append => {
                data.in_one_piece(|data| self.extend(Side::Back, key, data)).map(if_stored)
            }
            StoreCommand::Prepend => {
                data.in_one_piece(|data| self.extend(Side::Front, key, data)).map(if_stored)
            }
            StoreCommand::Cas(cas) => self.compare_and_swap(key, cas, data, attributes),
        };
        if outcome.is_ok() {
            self.count_store(key, value_bytes, attributes);
        }
        let (command, status) = (command.name(), store_status(&outcome));
        self.saw_store(key, SeenStore { command, status, value_bytes, attributes });
        answer(out, store.noreply, outcome);
    }

    /// Adds to a value. One that would grow too large, or find no room, is not stored and stays as it was, as in memcached: what
    /// does not fit by itself alone is an error (rule L3).
    pub(super) fn extend(&self, side: Side, key: &[u8], added: &[u8]) -> Result<Option<Version>, WriteError> {
        let cache = &self.shared.cache;
        let extended = match side {
            Side::Back => cache.append(key, added),
            Side::Front => cache.prepend(key, added),
        };
        match extended {
            Err(error) if is_no_room(&error) => cache.check_value_bytes(key, added.len()).map(|()| None),
            other => other,
        }
    }

    fn compare_and_swap(
        &self,
        key: &[u8],
        cas: u64,
        data: impl Given,
        attributes: Attributes,
    ) -> Result<Answer, WriteError> {
        let swap = data.swap(&self.shared.cache, key, Version(cas), attributes)?;
        let (counter, response) = match swap {
            Swap::Stored(_) => (&self.class_found().cas_hits, Response::Stored),
            Swap::Exists => (&self.class_found().cas_badval, Response::Exists),
            Swap::NotFound => (&self.counters.cas_misses, Response::NotFound),
        };
        counter.add(1);
        Ok(response)
    }

    /// Rules L3 and L5: a set that fails takes the old item with it.
    fn refuse_too_large(&mut self, command: StoreCommand, key: &[u8], noreply: bool, out: &mut Vec<u8>) {
        self.counters.store_too_large.add(1);
        self.saw_too_large(key, command.name());
        let removed = match command {
            StoreCommand::Set => self.shared.cache.delete(key).map(|_| ()),
            _ => Ok(()),
        };
        let error = removed.err().unwrap_or(ABOVE_ITEM_SIZE);
        answer(out, noreply, Err(error));
    }

    fn delete(&mut self, key: &[u8], noreply: bool, out: &mut Vec<u8>) {
        let outcome = self.shared.cache.delete(key).map(|found| {
            self.saw_delete(key, found);
            let (counter, response) = match found {
                true => (&self.class_found().delete_hits, Response::Deleted),
                false => (&self.counters.delete_misses, Response::NotFound),
            };
            counter.add(1);
            response
        });
        answer(out, noreply, outcome);
    }

    fn count(&mut self, direction: Direction, key: &[u8], delta: u64, noreply: bool, out: &mut Vec<u8>) {
        let cache = &self.shared.cache;
        let outcome = match direction {
            Direction::Up => cache.incr(key, delta),
            Direction::Down => cache.decr(key, delta),
        };
        match outcome {
            Ok(Some(number)) => {
                self.count_count(direction, Some(cache.class_found()));
                self.saw_count(key, direction, number);
                reply(out, noreply, Response::Number(number));
            }
            Ok(None) => {
                self.count_count(direction, None);
                reply(out, noreply, Response::NotFound);
            }
            Err(CounterError::Write(error)) => answer(out, noreply, Err(error)),
            Err(_) => {
                let text = b"cannot increment or decrement non-numeric value";
                reply(out, noreply, Response::ClientError(text));
            }
        }
    }

    /// `class`: of what was counted up or down; `None` where nothing was.
    pub(super) fn count_count(&self, direction: Direction, class: Option<usize>) {
        let counters = self.counters;
        match (direction, class.map(|class| counters.class(class))) {
            (Direction::Up, Some(class)) => &class.incr_hits,
            (Direction::Up, None) => &counters.incr_misses,
            (Direction::Down, Some(class)) => &class.decr_hits,
            (Direction::Down, None) => &counters.decr_misses,
        }
        .add(1);
    }

    fn touch(&mut self, key: &[u8], exptime: i64, noreply: bool, out: &mut Vec<u8>) {
        let outcome = self.shared.cache.touch(key, self.expiry(exptime)).map(|found| {
            self.count_read(found.then(|| self.shared.cache.class_found()), true);
            if found { Response::Touched } else { Response::NotFound }
        });
        answer(out, noreply, outcome);
    }

    /// Rule G2: absent or not positive is now.
    fn flush_all(&mut self, exptime: Option<i64>, noreply: bool, out: &mut Vec<u8>) {
        self.counters.cmd_flush.add(1);
        if !self.shared.settings.flush_enabled {
            return reply(out, noreply, FLUSH_REFUSED);
        }
        let outcome = match exptime {
            Some(exptime) if exptime > 0 => self.shared.cache.flush_at(self.expiry(exptime)),
            _ => self.shared.cache.flush(),
        };
        answer(out, noreply, outcome.map(|()| Response::Ok));
    }
}

/// Whether a value's length alone says that it is no number (rule A3), which memcached tells before a CAS that differs: an
/// empty one, and one that memcached keeps in chunks.
pub(super) fn is_plainly_no_number(value_bytes: usize) -> bool {
    const CHUNK_BYTES_MAX: usize = 512 << 10;
    value_bytes == 0 || value_bytes > CHUNK_BYTES_MAX
}

/// Makes room for a value and what stands behind it. A large one's room is taken exactly: an output that doubled for the
/// last few bytes would count as half empty once some of it is sent.
#[inline]
pub(super) fn reserve_for(value_bytes: usize, out: &mut Vec<u8>) {
    const LARGE_BYTES: usize = 1 << 20;
    const BEHIND_BYTES: usize = 64;
    if value_bytes >= LARGE_BYTES {
        out.reserve_exact(value_bytes + BEHIND_BYTES);
    }
}

/// Whether both keys were found, as items of one class, or neither.
#[inline]
fn is_same_class(one: Option<(usize, usize)>, next: Option<(usize, usize)>) -> bool {
    one.map(|(_, class)| class) == next.map(|(_, class)| class)
}

/// What stands behind the value in the answer to a get of one key.
const VALUE_END: &[u8] = b"\r\nEND\r\n";

/// Sends the whole answer to a get of one key, of which `out` has the header and nothing else; gives how many bytes have gone, and
/// leaves the others in `out`. A socket that takes nothing, or is broken, leaves all: whoever flushes `out` learns why.
#[inline(never)]
fn send_value(item: &ItemRef<'_>, socket: &mut impl Write, out: &mut Vec<u8>) -> usize {
    let mut parts = [IoSlice::new(b""); PARTS_MAX];
    let answer = iter::once(&out[..]).chain(item.value.pieces()).chain([VALUE_END]);
    let count = parts.iter_mut().zip(answer).map(|(part, bytes)| *part = IoSlice::new(bytes)).count();
    let sent = socket.write_vectored(&parts[..count]).unwrap_or(0);
    let mut gone = sent.saturating_sub(out.len());
    out.drain(..sent.min(out.len()));
    out.reserve_exact((item.value.len() + VALUE_END.len()).saturating_sub(gone));
    for bytes in item.value.pieces().chain([VALUE_END]) {
        let rest = bytes.get(gone..).unwrap_or_default();
        gone -= bytes.len() - rest.len();
        out.extend_from_slice(rest);
    }
    sent
}

fn reply(out: &mut Vec<u8>, noreply: bool, response: Response<'_>) {
    if !noreply {
        response.encode(out);
    }
}

/// Answers an outcome; `noreply` suppresses errors, too (rule F10).
pub(super) fn answer(out: &mut Vec<u8>, noreply: bool, outcome: Result<Answer, WriteError>) {
    match outcome {
        Ok(response) => reply(out, noreply, response),
        Err(_) if noreply => {}
        Err(WriteError::KeyLength { .. }) => Response::ClientError(b"bad command line format").encode(out),
        Err(error) => server_error(out, &write_error(error)),
    }
}

/// memcached's word for what became of a store (rule G8).
pub(super) fn store_status(outcome: &Result<Answer, WriteError>) -> &'static str {
    match outcome {
        Ok(Response::Stored) => "stored",
        Ok(Response::Exists) => "exists",
        Ok(Response::NotFound) => "not_found",
        Err(WriteError::ItemTooLarge { .. }) => "too_large",
        Err(WriteError::OutOfMemory { .. }) => "no_memory",
        _ => "not_stored",
    }
}

/// That a value is longer than -I allows, which is known before the cache is asked.
pub(super) const ABOVE_ITEM_SIZE: WriteError =
    WriteError::ItemTooLarge { bytes: 0, bytes_max: 0, is_of_log: false };

/// Whether the item was refused for its size, or for what the cache holds already (rules L3 to L5).
pub(super) fn is_no_room(error: &WriteError) -> bool {
    matches!(error, WriteError::ItemTooLarge { .. } | WriteError::OutOfMemory { .. })
}

/// What a text reply says; where memcached has words for it, these come first.
pub(super) fn write_error(error: WriteError) -> String {
    match error {
        WriteError::ItemTooLarge { bytes_max, is_of_log: true, .. } => {
            format!("object too large for cache: replicas can be sent {bytes_max} bytes (--log-bytes)")
        }
        WriteError::ItemTooLarge { .. } => "object too large for cache".to_owned(),
        WriteError::OutOfMemory { .. } => "out of memory storing object".to_owned(),
        WriteError::NotEnoughReplicas { .. } => "not enough replicas".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn read_error(error: ReadError) -> String {
    error.to_string()
}

/// One line: an address that a peer named may hold anything.
pub(super) fn server_error(out: &mut Vec<u8>, text: &str) {
    let mut line: Vec<u8> =
        text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }).collect();
    line.truncate(ERROR_TEXT_BYTES_MAX);
    Response::ServerError(&line).encode(out);
}
