//! Accepting: what the first worker does beside its own clients.
//!
//! Lives here: handing sockets to the workers in turn, the connection limit (rule L7), the pause when descriptors run out.
//! Not here: binding (see `listener`).
//!
//! A thread of its own would be woken for each connection and then wake a worker: on one core that is two switches more.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Shared;
use super::event_loop::{Socket, WorkerHandle};
use super::listener::Bound;
use super::registry::{Address, Peer};

/// How long accepting rests when there is no room for a connection.
const PAUSE: Duration = Duration::from_millis(20);

/// Sockets that are taken before clients get their turns again.
const ACCEPTED_AT_ONCE_MAX: usize = 64;

/// What a refused client may have sent already, at most.
const REFUSED_BYTES_MAX: usize = 64 << 10;

/// A client that came.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: Peer,
}

/// The listeners, and whose turn it is. Dropping it closes them.
pub(super) struct Accepting {
    bound: Bound,
    /// See [`Bound::listen_addresses`].
    listen_addresses: Vec<Option<Arc<Address>>>,
    /// Where the newest client was accepted: most come to the same address, and share it.
    newest_listen_address: Arc<Address>,
    shared: Arc<Shared>,
    /// All workers but the one that accepts.
    others: Vec<WorkerHandle>,
    /// Whose turn it is: the accepting worker's own after all others'.
    turn: usize,
    /// The listener that the next call begins with.
    first_listener: usize,
    /// Since when there is no room, and when that is looked at again.
    paused: Option<(Instant, Instant)>,
    /// Whether more sockets may wait, though no event will say so.
    has_more: bool,
    /// Dropped with the listeners, and behind them: somebody waits for that.
    _open: Sender<()>,
}

impl Accepting {
    /// Hands sockets to the other workers and to the one that accepts; `open` is dropped behind the listeners.
    pub(super) fn new(
        bound: Bound,
        shared: Arc<Shared>,
        others: Vec<WorkerHandle>,
        open: Sender<()>,
    ) -> Accepting {
        Accepting {
            listen_addresses: bound.listen_addresses(),
            newest_listen_address: Arc::new(Address::Tcp(None)),
            bound,
            shared,
            others,
            turn: 0,
            first_listener: 0,
            paused: None,
            has_more: false,
            _open: open,
        }
    }

    /// Has the poller tell of new connections, all by one token.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        for listener in &mut self.bound.tcp {
            registry.register(listener, token, Interest::READABLE)?;
        }
        match &mut self.bound.unix {
            Some((listener, _)) => registry.register(listener, token, Interest::READABLE),
            None => Ok(()),
        }
    }

    /// When there is something to do without an event.
    pub(super) fn due(&self) -> Option<Instant> {
        match (self.paused, self.has_more) {
            (Some((_, again_at)), _) => Some(again_at),
            (None, true) => Some(Instant::now()),
            (None, false) => None,
        }
    }

    /// Takes what waits, or a part of it; the accepting worker's own share is given to `keep`.
    pub(super) fn accept(&mut self, keep: impl FnMut(Accepted)) {
        self.has_more = false;
        match self.accept_some(keep) {
            Ok(()) => self.go_on(),
            Err(why) => self.pause(&why),
        }
    }

    fn pause(&mut self, why: &std::io::Error) {
        let now = Instant::now();
        let since = self.paused.map_or(now, |(since, _)| since);
        if self.paused.is_none() {
            tracing::warn!(%why, "can't accept connections; they wait");
            self.shared.counters.accepting_conns.store(false, Ordering::Relaxed);
            self.shared.counters.listen_disabled_num.fetch_add(1, Ordering::Relaxed);
        }
        self.paused = Some((since, now + PAUSE));
    }

    fn go_on(&mut self) {
        if let Some((since, _)) = self.paused.take() {
            tracing::info!("accepting connections again");
            let paused_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.shared.counters.accepting_conns.store(true, Ordering::Relaxed);
            self.shared.counters.time_in_listen_disabled_us.fetch_add(paused_us, Ordering::Relaxed);
        }
    }

    fn encrypt(&self, index: usize, socket: TcpStream) -> std::io::Result<Socket> {
        let address = self.shared.settings.addresses.get(index);
        let is_plain = address.is_some_and(|address| self.shared.settings.plain_addresses.contains(address));
        match &self.shared.certificates {
            Some(certificates) if !is_plain => Ok(Socket::Tls(Box::new(certificates.accept(socket)?))),
            _ => Ok(Socket::Tcp(socket)),
        }
    }

    fn is_full(&self) -> bool {
        let open = self.shared.counters.curr_connections.load(Ordering::Acquire);
        open >= self.shared.settings.connections_max as u64
    }

    /// An error if there is no room for another now.
    fn accept_some(&mut self, mut keep: impl FnMut(Accepted)) -> std::io::Result<()> {
        let mut room = ACCEPTED_AT_ONCE_MAX;
        let listeners = self.bound.tcp.len() + usize::from(self.bound.unix.is_some());
        // Each call begins with another one: a flood at one silences no other.
        let first = self.first_listener;
        self.first_listener = (first + 1) % listeners.max(1);
        for index in (first..listeners).chain(0..first) {
            loop {
                if room == 0 {
                    self.has_more = true;
                    return Ok(());
                }
                if !self.shared.settings.refuses_when_full && self.is_full() {
                    return Err(std::io::Error::other("all places are taken (-c)"));
                }
                match self.accept_one(index) {
                    Ok(accepted) => self.hand_out(accepted, &mut keep),
                    Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                    Err(why)
                        if matches!(why.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    Err(why) => return Err(why),
                }
                room -= 1;
            }
        }
        Ok(())
    }

    fn accept_one(&mut self, index: usize) -> std::io::Result<Accepted> {
        let now_ms = self.shared.cache.now_ms();
        if let Some((listener, _)) = &self.bound.unix {
            let (socket, _) = listener.accept()?;
            let listen_address = self.listen_address(index, || None);
            let peer = Peer::new(socket.as_raw_fd(), Address::Unix(None), listen_address, now_ms);
            return Ok(Accepted { socket: Socket::Unix(socket), peer });
        }
        let (socket, address) = self.bound.tcp[index].accept()?;
        let listen_address = self.listen_address(index, || socket.local_addr().ok());
        let peer = Peer::new(socket.as_raw_fd(), Address::Tcp(Some(address)), listen_address, now_ms);
        Ok(Accepted { socket: self.encrypt(index, socket)?, peer })
    }

    /// Where a client of this listener was accepted; `ask` asks its socket.
    fn listen_address(&mut self, index: usize, ask: impl FnOnce() -> Option<SocketAddr>) -> Arc<Address> {
        if let Some(address) = &self.listen_addresses[index] {
            return address.clone();
        }
        let address = Address::Tcp(ask());
        if *self.newest_listen_address != address {
            self.newest_listen_address = Arc::new(address);
        }
        self.newest_listen_address.clone()
    }

    fn hand_out(&mut self, accepted: Accepted, keep: &mut impl FnMut(Accepted)) {
        let counters = &self.shared.counters;
        let open = counters.curr_connections.fetch_add(1, Ordering::AcqRel);
        if open >= self.shared.settings.connections_max as u64 {
            counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
            counters.rejected_connections.fetch_add(1, Ordering::Relaxed);
            refuse(accepted.socket);
            return;
        }
        counters.total_connections.fetch_add(1, Ordering::Relaxed);
        match self.others.get(self.turn) {
            Some(other) => other.hand_over(accepted),
            None => keep(accepted),
        }
        self.turn = (self.turn + 1) % (self.others.len() + 1);
    }
}

/// Rule L7.
fn refuse(mut socket: Socket) {
    if let Socket::Tls(_) = socket {
        // It can't read a line before a handshake, and that costs more than a refusal should.
        return;
    }
    // A fresh socket takes a line; if it does not, closing says as much.
    let _ = socket.write(b"ERROR Too many open connections\r\n");
    let _ = socket.finish();
    // A socket that is closed with something unread resets, and the client may never see the line.
    let mut unread = [0; 4096];
    for _ in 0..REFUSED_BYTES_MAX / unread.len() {
        if !matches!(socket.read(&mut unread), Ok(1..)) {
            break;
        }
    }
}
