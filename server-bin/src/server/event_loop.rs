//! A worker: one thread, one poller, many connections.
//!
//! Lives here: readiness, fairness between connections, time-outs of idle clients and slow requests. Not here: a connection's buffers (see
//! `connection`), commands.
//!
//! The poller is edge-triggered: a connection that stops before its socket has nothing left stays on the ready
//! list, and is given another turn after the others had theirs.
//!
//! Of connections that are ready together each is read [`READ_LEAD`] turns before its own: so the line of the index and the item
//! that its first request needs are fetched while others have their turns.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::utils::CachePadded;
use hotspare::KeyAhead;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use slab::Slab;

use super::Shared;
use super::accepting::{Accepted, Accepting};
use super::commands::Executor;
use super::connection::{Buffers, Connection, Quiet, Turn, Unfinished};
use super::counters::Counters;
use super::registry::{Peer, State};
use super::stopwatch::{Sampler, Stopwatch};
use super::tls::CountedSocket;
use crate::settings::Settings;

const WAKER: Token = Token(usize::MAX);
const LISTENERS: Token = Token(usize::MAX - 1);

/// How often idle connections and slow requests are looked for.
const SCAN: Duration = Duration::from_millis(500);

/// How long a stopping worker tries to send what is ready.
const STOP_FLUSH: Duration = Duration::from_millis(100);

/// How many turns before its own a connection is read. After the first of them the line of its key has come, after the second the item.
const READ_LEAD: usize = 2;

/// So many connections are read at their turn, once one has sent a long pipeline: the keys of those are fetched ahead by themselves, and
/// they are best read at their turn, for then their bytes lie in the nearest cache still. (In `tests/compare`, `served --only W4n` shows it.)
const READ_AT_TURN: u32 = 32;

/// A client's socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<CountedSocket>),
}

impl Socket {
    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
            Socket::Tls(socket) => socket.inner.socket.shutdown(Shutdown::Write),
        }
    }

    fn is_encrypted(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }

    /// Has the poller tell of what is of interest from now on, and of what is there now.
    fn watch(&mut self, registry: &Registry, token: Token, interest: Interest) -> std::io::Result<()> {
        match self {
            Socket::Tcp(socket) => registry.reregister(socket, token, interest),
            Socket::Unix(socket) => registry.reregister(socket, token, interest),
            Socket::Tls(tls) => registry.reregister(&mut tls.inner.socket, token, interest),
        }
    }

    /// Whether the client has still to show that it speaks TLS.
    fn is_handshaking(&self) -> bool {
        matches!(self, Socket::Tls(socket) if socket.inner.is_handshaking())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tls(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tls(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write_vectored(slices),
            Socket::Unix(socket) => socket.write_vectored(slices),
            Socket::Tls(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
            Socket::Tls(socket) => socket.flush(),
        }
    }
}

/// How others reach a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    accepted: Sender<Accepted>,
    stop: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    stop_accepting: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl WorkerHandle {
    /// Gives the worker a socket. The connection limit bounds how many wait.
    pub(crate) fn hand_over(&self, accepted: Accepted) {
        // A worker that is gone takes no more sockets: the socket closes.
        if self.accepted.send(accepted).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Has the worker drop its listeners, if it has any.
    pub(crate) fn stop_accepting(&self) {
        self.stop_accepting.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
    }

    /// Lets connections finish what they have begun, then closes them.
    pub(crate) fn drain(&self) {
        self.drain.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
    }
}

/// Starts the worker of this index; one is given the listeners.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    mut accepting: Option<Accepting>,
) -> std::io::Result<(WorkerHandle, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    if let Some(accepting) = &mut accepting {
        accepting.register(poll.registry(), LISTENERS)?;
    }
    let (sender, accepted) = unbounded();
    let handle = WorkerHandle {
        accepted: sender,
        stop: Arc::default(),
        drain: Arc::default(),
        stop_accepting: Arc::default(),
        waker: waker.clone(),
    };
    let counters = shared.counters.workers[index].clone();
    let mut worker = Worker {
        poll,
        accepting,
        accepted,
        stop: handle.stop.clone(),
        drain: handle.drain.clone(),
        stop_accepting: handle.stop_accepting.clone(),
        is_draining: false,
        clients: Slab::new(),
        ready: Vec::new(),
        turns: Vec::new(),
        begun: Instant::now(),
        round_ms: 0,
        now_ms: shared.cache.now_ms(),
        own: Vec::new(),
        buffers: Buffers::default(),
        spares: Vec::new(),
        acks_waker: Arc::new(Rouse(waker.clone())).into(),
        waker,
        watching: Vec::new(),
        holding: Vec::new(),
        next_scan: Instant::now() + SCAN,
        awaits_requests: false,
        read_at_turn: 0,
        sampler: Sampler::new(index as u32),
        stopwatch: Some(Box::new(Stopwatch::new(shared.settings.slow_log_ms))),
        shared,
        counters,
    };
    let thread =
        std::thread::Builder::new().name(format!("hotspare-worker-{index}")).spawn(move || worker.run())?;
    Ok((handle, thread))
}

/// Wakes a worker from wherever acknowledgements come.
struct Rouse(Arc<Waker>);

impl Wake for Rouse {
    fn wake(self: Arc<Self>) {
        // A poller that is gone needs no waking.
        let _ = self.0.wake();
    }
}

struct Client {
    socket: Socket,
    /// What neither side has done with; none of a plain connection where there is nothing, as there is between most turns.
    busy: Option<Box<Connection>>,
    /// What is kept where `busy` is none.
    quiet: Quiet,
    peer: Arc<Peer>,
    /// In milliseconds from the worker's beginning.
    last_active_ms: u64,
    is_ready: bool,
    /// Whether the client has said that it sends no more, or the socket is broken.
    has_ended: bool,
    /// Whether the poller tells of room to write.
    awaits_room: bool,
    /// Whether it is among those whose replies wait.
    is_holding: bool,
    /// Whether it is among those that watch.
    is_watching: bool,
    /// The unfinished request that the last scan found, and when one found it first.
    awaited: Option<Box<(Unfinished, Instant)>>,
}

impl Client {
    /// What the client owes the rest of: a request, or before all of them the handshake.
    fn unfinished(&self) -> Option<Unfinished> {
        let handshake = Unfinished { ordinal: u64::MAX, bytes: 0 };
        if self.socket.is_handshaking() { Some(handshake) } else { self.busy.as_ref()?.unfinished() }
    }

    /// Whether neither side owes the other anything, as far as it was read.
    fn is_at_rest(&self) -> bool {
        self.busy.as_ref().is_none_or(|connection| connection.is_at_rest())
    }

    /// What its buffers took when they were last counted, in bytes.
    fn counted_bytes(&self) -> usize {
        self.busy.as_ref().map_or(0, |connection| connection.counted_bytes)
    }

    /// Counts what its buffers take, in bytes.
    fn count_bytes(&mut self) -> usize {
        self.busy.as_mut().map_or(0, |connection| {
            connection.counted_bytes = connection.buffer_bytes();
            connection.counted_bytes
        })
    }

    /// Has the poller tell of room from the first time on that something stays unsent.
    fn watch_writability(&mut self, token: Token, registry: &Registry) -> std::io::Result<()> {
        if self.awaits_room || self.busy.as_ref().is_none_or(|connection| connection.unsent().is_empty()) {
            return Ok(());
        }
        self.awaits_room = true;
        self.socket.watch(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether the request that is unfinished now has been for too long.
    fn is_slow(&mut self, settings: &Settings, now: Instant) -> bool {
        let Some(found) = self.unfinished() else {
            self.awaited = None;
            return false;
        };
        let (known, since) = match self.awaited.as_deref() {
            Some((known, since)) if known.ordinal == found.ordinal => (*known, *since),
            _ => (found, now),
        };
        let bytes = known.bytes.max(found.bytes);
        self.awaited = Some(Box::new((Unfinished { bytes, ..found }, since)));
        let extra_ms = match settings.request_bytes_per_second_min {
            0 => 0,
            rate => bytes.saturating_mul(1000) / rate,
        };
        now - since > Duration::from_millis(settings.request_timeout_ms.saturating_add(extra_ms))
    }
}

/// A client's connection with all that it needs to be read from: its own, or one of the spare ones.
#[expect(clippy::vec_box, reason = "as `Worker::spares`")]
fn begin(
    spares: &mut Vec<Box<Connection>>,
    client: &mut Client,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Box<Connection> {
    let mut connection = match client.busy.take() {
        Some(connection) => connection,
        None => {
            let mut spare = spares.pop().unwrap_or_else(|| Connection::boxed(&shared.settings));
            spare.resume(client.quiet);
            spare.counted_bytes = 0;
            spare
        }
    };
    let is_plain = !client.socket.is_encrypted();
    connection.set_short_read_is_last(is_plain && !client.has_ended);
    connection.set_sends_directly(is_plain);
    connection.borrow(buffers);
    connection
}

fn ms_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

struct Worker {
    poll: Poll,
    /// One worker has the listeners.
    accepting: Option<Accepting>,
    accepted: Receiver<Accepted>,
    stop: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    stop_accepting: Arc<AtomicBool>,
    is_draining: bool,
    clients: Slab<Client>,
    ready: Vec<usize>,
    /// Room for those whose turn it is, empty between the rounds.
    turns: Vec<usize>,
    begun: Instant,
    /// When this round began, by two clocks, which are read once for all of its turns: milliseconds from the worker's
    /// beginning, read only where idle clients are looked for, and the cache's, which is the moment of its accesses too.
    round_ms: u64,
    now_ms: u64,
    /// Room for the accepting worker's share, empty between its accepts.
    own: Vec<Accepted>,
    buffers: Buffers,
    /// What quiet clients have their turns with: one, and one for each that is read ahead.
    #[expect(clippy::vec_box, reason = "a client that becomes busy keeps its own, by the pointer alone")]
    spares: Vec<Box<Connection>>,
    /// What wakes this worker: the others' way to its watchers.
    waker: Arc<Waker>,
    /// The clients that watch.
    watching: Vec<usize>,
    /// The clients whose replies wait for acknowledgements.
    holding: Vec<usize>,
    /// Has this worker look at them.
    acks_waker: std::task::Waker,
    next_scan: Instant,
    /// Whether a request may be unfinished: then the next scan can't wait for an event.
    awaits_requests: bool,
    /// So many connections more are not read ahead.
    read_at_turn: u32,
    sampler: Sampler,
    /// Lent to the connection whose turn is timed.
    stopwatch: Option<Box<Stopwatch>>,
    shared: Arc<Shared>,
    counters: Arc<CachePadded<Counters>>,
}

impl Worker {
    fn run(&mut self) {
        let shared = self.shared.clone();
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Acquire) {
            let first_due = self.look_at_held();
            let timeout = if self.ready.is_empty() { self.sleep(first_due) } else { Some(Duration::ZERO) };
            if let Err(why) = self.poll.poll(&mut events, timeout)
                && why.kind() != ErrorKind::Interrupted
            {
                // The descriptor is this program's own: only a fault of it can make it useless.
                panic!("a worker's poller failed: {why}");
            }
            for event in &events {
                match event.token() {
                    WAKER => {
                        self.take_accepted();
                        self.make_watching_ready();
                        self.begin_draining();
                    }
                    LISTENERS => self.accept(),
                    Token(key) => {
                        if let Some(client) = self.clients.get_mut(key) {
                            client.has_ended |= event.is_read_closed() || event.is_error();
                        }
                        self.make_ready(key);
                    }
                }
            }
            if self.accepting.as_ref().and_then(Accepting::due).is_some_and(|due| due <= Instant::now()) {
                self.accept();
            }
            self.now_ms = self.shared.cache.begin_round();
            if self.shared.settings.idle_timeout_ms > 0 {
                self.round_ms = ms_since(self.begun);
            }
            let mut turns = std::mem::replace(&mut self.ready, std::mem::take(&mut self.turns));
            self.run_turns(&shared, &turns);
            turns.clear();
            self.turns = turns;
            self.scan();
        }
        self.flush_all();
    }

    fn sleep(&self, first_due: Option<Instant>) -> Option<Duration> {
        let scan = (self.shared.settings.idle_timeout_ms > 0 || self.awaits_requests).then_some(SCAN);
        let due = first_due.into_iter().chain(self.accepting.as_ref().and_then(Accepting::due)).min();
        let due = due.map(|due| due.saturating_duration_since(Instant::now()));
        scan.into_iter().chain(due).min()
    }

    /// Gives a turn to the clients of which a held reply need not wait any more; when the next one's time is over.
    fn look_at_held(&mut self) -> Option<Instant> {
        if self.holding.is_empty() {
            return None;
        }
        let cache = &self.shared.cache;
        // Before the look: an ack that comes behind it wakes this worker.
        cache.wake_on_acknowledgement(&self.acks_waker);
        let now = Instant::now();
        let (clients, ready) = (&mut self.clients, &mut self.ready);
        let mut first_due = None;
        self.holding.retain(|key| {
            let Some(client) = clients.get_mut(*key) else { return false };
            let Some(connection) = &client.busy else {
                client.is_holding = false;
                return false;
            };
            client.is_holding = !connection.held().is_empty();
            if connection.is_held_due(cache, now) && !std::mem::replace(&mut client.is_ready, true) {
                ready.push(*key);
            }
            first_due = first_due.into_iter().chain(connection.held_due()).min();
            client.is_holding
        });
        first_due
    }

    /// Takes the clients that wait at the listeners, and keeps its share of them.
    fn accept(&mut self) {
        let Some(accepting) = &mut self.accepting else { return };
        if self.stop_accepting.load(Ordering::Acquire) {
            self.accepting = None;
            return;
        }
        let mut own = std::mem::take(&mut self.own);
        accepting.accept(|accepted| own.push(accepted));
        own.drain(..).for_each(|accepted| self.take(accepted));
        self.own = own;
    }

    /// Takes the clients that the accepting worker gave it.
    fn take_accepted(&mut self) {
        if self.stop_accepting.load(Ordering::Acquire) {
            self.accepting = None;
        }
        while let Ok(accepted) = self.accepted.try_recv() {
            self.take(accepted);
        }
    }

    fn take(&mut self, accepted: Accepted) {
        let Accepted { mut socket, peer } = accepted;
        let entry = self.clients.vacant_entry();
        let token = Token(entry.key());
        // A plain socket is asked about room only once it lacked some: a client at a unix socket that reads makes room,
        // and each time would be an event. An encrypted one may have to write in order to read.
        let interest = match socket.is_encrypted() {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        // What has come already is told at once.
        let registered = match &mut socket {
            Socket::Tcp(socket) => self.poll.registry().register(socket, token, interest),
            Socket::Unix(socket) => self.poll.registry().register(socket, token, interest),
            Socket::Tls(tls) => self.poll.registry().register(&mut tls.inner.socket, token, interest),
        };
        if let Err(why) = registered {
            tracing::warn!(%why, "can't watch a connection");
            self.shared.counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let (peer, last_active_ms) = (Arc::new(peer), ms_since(self.begun));
        self.shared.operator.registry.add(peer.clone());
        self.shared.operator.observers.saw_connect(&peer.address, peer.descriptor);
        entry.insert(Client {
            awaits_room: socket.is_encrypted(),
            socket,
            busy: None,
            quiet: Quiet::new(&self.shared.settings),
            peer,
            last_active_ms,
            is_ready: false,
            has_ended: false,
            is_holding: false,
            is_watching: false,
            awaited: None,
        });
        if self.is_draining {
            self.make_ready(token.0);
        }
    }

    fn make_watching_ready(&mut self) {
        for at in 0..self.watching.len() {
            self.make_ready(self.watching[at]);
        }
    }

    /// What the sockets hold is read before they close.
    fn begin_draining(&mut self) {
        if self.drain.load(Ordering::Acquire) && !self.is_draining {
            self.is_draining = true;
            let all: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
            all.into_iter().for_each(|key| self.make_ready(key));
        }
    }

    fn make_ready(&mut self, key: usize) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.is_ready
        {
            client.is_ready = true;
            self.ready.push(key);
        }
    }

    /// Gives a turn to each of these clients.
    fn run_turns(&mut self, shared: &Shared, turns: &[usize]) {
        // By the turn, modulo their length.
        let mut aheads = [None; READ_LEAD];
        for (at, key) in turns.iter().enumerate() {
            aheads[at % READ_LEAD] =
                turns.get(at + READ_LEAD).and_then(|later| self.read_ahead(shared, *later));
            if let Some(next) = &aheads[(at + 1) % READ_LEAD] {
                next.prefetch_item();
            }
            self.run_turn(*key);
        }
    }

    /// Reads from a client whose turn is [`READ_LEAD`] turns after the next one, if it is a plain one and nothing is known of it yet; the
    /// key that it asks for.
    fn read_ahead<'s>(&mut self, shared: &'s Shared, key: usize) -> Option<KeyAhead<'s>> {
        if self.read_at_turn > 0 {
            self.read_at_turn -= 1;
            return None;
        }
        let client = self.clients.get_mut(key)?;
        // A turn that is timed is timed with its read.
        let is_timed = shared.settings.slow_log_ms.is_some() || self.sampler.takes_in(1 + READ_LEAD as u32);
        let is_plain = client.busy.is_none() && !client.socket.is_encrypted() && !client.quiet.is_binary();
        // What a closing connection sends until its turn is not left unread.
        if !is_plain || is_timed || self.is_draining {
            return None;
        }
        let mut connection = begin(&mut self.spares, client, &mut self.buffers, shared);
        let wanted = connection.read_ahead(&mut client.socket, &self.counters);
        let ahead = wanted.map(|wanted| shared.cache.look_ahead(wanted));
        if connection.has_pipeline_ahead() {
            self.read_at_turn = READ_AT_TURN;
        }
        client.busy = Some(connection);
        ahead
    }

    fn run_turn(&mut self, key: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_ready = false;
        client.peer.note_activity(self.now_ms);
        client.last_active_ms = self.round_ms;
        let mut turn = self.give_turn(key);
        let client = &mut self.clients[key];
        if client.busy.is_none() && turn == Turn::Waiting && !self.is_draining {
            // As it is with most.
            return;
        }
        if let Err(why) = client.watch_writability(Token(key), self.poll.registry()) {
            tracing::warn!(%why, "can't watch a connection");
            turn = Turn::Closed;
        }
        client.peer.set_state(client.busy.as_ref().map_or(State::Reading, |connection| connection.state()));
        self.list_if_it_waits(key);
        let client = &self.clients[key];
        match turn {
            Turn::Waiting if self.is_draining && client.is_at_rest() => self.close(key, "normal"),
            Turn::Waiting => {
                let limited = self.shared.settings.request_timeout_ms > 0;
                self.awaits_requests |= limited && client.unfinished().is_some();
            }
            Turn::MoreToDo => {
                self.counters.conn_yields.add(1);
                self.make_ready(key);
            }
            Turn::Closed => {
                let is_refused = client.busy.as_ref().is_some_and(|connection| connection.is_refused());
                self.close(key, if is_refused { "error" } else { "normal" });
            }
        }
    }

    /// Notes who watches from now on, and whose replies wait.
    fn list_if_it_waits(&mut self, key: usize) {
        let client = &mut self.clients[key];
        let Some(connection) = &client.busy else { return };
        if let Some(watch) = connection.watch()
            && !std::mem::replace(&mut client.is_watching, true)
        {
            watch.set_waker(&self.waker);
            self.watching.push(key);
            // What was seen before the waker was there has woken nobody.
            if !std::mem::replace(&mut client.is_ready, true) {
                self.ready.push(key);
            }
        }
        if !connection.held().is_empty() && !std::mem::replace(&mut client.is_holding, true) {
            self.holding.push(key);
        }
    }

    /// Has the connection read, execute and write, with buffers of the worker's, and with its stopwatch in some turns.
    fn give_turn(&mut self, key: usize) -> Turn {
        let client = &mut self.clients[key];
        let descriptor = client.peer.descriptor;
        let mut executor = Executor::new(&self.shared, &self.counters, descriptor);
        let kept_bytes = client.counted_bytes();
        let is_plain = !client.socket.is_encrypted();
        let mut connection = begin(&mut self.spares, client, &mut self.buffers, &self.shared);
        let is_timed = (self.sampler.takes() && !connection.was_read_ahead())
            || self.shared.settings.slow_log_ms.is_some();
        let begun = is_timed.then(Instant::now);
        connection.stopwatch = if is_timed { self.stopwatch.take() } else { None };
        let turn = connection.turn(&mut client.socket, &mut executor);
        if let (Some(begun), Some(mut stopwatch)) = (begun, connection.stopwatch.take()) {
            self.counters.requests.turns.add(begun.elapsed());
            stopwatch.tell(&client.peer.address, &self.shared.operator.slow_log);
            self.stopwatch = Some(stopwatch);
        }
        // An encrypted one may have bytes on their way that it knows nothing of; and its session is far larger than it is.
        match connection.quiet() {
            Some(quiet) if is_plain => {
                (client.quiet, client.awaited) = (quiet, None);
                client.peer.set_state(State::Reading);
                connection.rest(&mut self.buffers);
                if self.spares.len() <= READ_LEAD {
                    self.spares.push(connection);
                }
            }
            _ => {
                connection.give_back(&mut self.buffers);
                client.busy = Some(connection);
            }
        }
        let keeps_bytes = client.count_bytes();
        self.count_buffers(kept_bytes, keeps_bytes);
        turn
    }

    /// What a connection keeps between its turns has changed.
    #[inline]
    fn count_buffers(&self, kept_bytes: usize, keeps_bytes: usize) {
        if keeps_bytes != kept_bytes {
            let others_bytes = self.counters.buffer_bytes.get().saturating_sub(kept_bytes as u64);
            self.counters.buffer_bytes.set(others_bytes + keeps_bytes as u64);
        }
    }

    fn close(&mut self, key: usize, reason: &str) {
        let client = &self.clients[key];
        let peer = &client.peer;
        self.shared.operator.registry.remove(peer);
        self.shared.operator.observers.saw_close(&peer.address, peer.descriptor, reason);
        self.watching.retain(|watching| *watching != key);
        if client.is_holding {
            self.holding.retain(|holding| *holding != key);
        }
        self.count_buffers(client.counted_bytes(), 0);
        self.clients.remove(key);
        self.shared.counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Closes connections that are idle, or whose request does not come.
    fn scan(&mut self) {
        let settings = &self.shared.settings;
        let idle_timeout_ms = settings.idle_timeout_ms;
        if idle_timeout_ms == 0 && !self.awaits_requests {
            return;
        }
        let now = Instant::now();
        if now < self.next_scan {
            return;
        }
        self.next_scan = now + SCAN;
        let alive_ms = ms_since(self.begun);
        let (mut idle, mut slow) = (Vec::new(), Vec::new());
        let mut awaits_requests = false;
        for (key, client) in &mut self.clients {
            if settings.request_timeout_ms > 0 && client.is_slow(settings, now) {
                slow.push(key);
            } else if idle_timeout_ms > 0
                && alive_ms.saturating_sub(client.last_active_ms) > idle_timeout_ms
                && !client.is_watching
            {
                idle.push(key);
            }
            awaits_requests |= client.awaited.is_some();
        }
        self.awaits_requests = awaits_requests;
        self.counters.idle_kicks.add(idle.len() as u64);
        self.counters.slow_request_kicks.add(slow.len() as u64);
        idle.into_iter().for_each(|key| self.close(key, "idle_timeout"));
        slow.into_iter().for_each(|key| self.close(key, "slow_request"));
    }

    /// Before the end: what is ready to be sent is sent, as far as clients take it in a moment.
    fn flush_all(&mut self) {
        let end = Instant::now() + STOP_FLUSH;
        loop {
            let (counters, cache) = (&self.counters, &self.shared.cache);
            let pending = self.clients.iter_mut().filter_map(|(_, client)| {
                let connection = client.busy.as_mut()?;
                // What was acknowledged behind a large value.
                connection.release_held(cache);
                let is_blocked = connection
                    .flush(&mut client.socket, counters)
                    .is_err_and(|why| why.kind() == ErrorKind::WouldBlock);
                (is_blocked || connection.is_held_due(cache, Instant::now())).then_some(())
            });
            if pending.count() == 0 || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::registry::Address;

    /// What `docs/what-is-bounded.md` says: the client's place, its entry in the list of all, and that list's reference.
    #[test]
    fn a_quiet_client_has_no_more_than_its_place_and_its_entry() {
        // With the counts of references, and a word of the allocator's.
        let entry = size_of::<Peer>() + 3 * size_of::<usize>();
        let sum = size_of::<Client>() + entry + size_of::<Arc<Peer>>();
        assert!(sum <= 176, "{sum} bytes, an entry {entry} of them, an address {}", size_of::<Address>());
    }
}
