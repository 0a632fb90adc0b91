//! A worker: one thread, one poller, many connections.
//!
//! Lives here: readiness, fairness between connections, idle time-outs. Not here: a connection's buffers (see
//! `connection`), commands.
//!
//! The poller is edge-triggered: a connection that stops before its socket has nothing left stays on the ready
//! list, and is given another turn after the others had theirs.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::utils::CachePadded;
use mio::net::{TcpStream, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::Shared;
use super::commands::Executor;
use super::connection::{Connection, Turn};
use super::counters::Counters;
use super::registry::Peer;

const WAKER: Token = Token(usize::MAX);

/// How often idle connections are looked for.
const IDLE_SCAN: Duration = Duration::from_millis(500);

/// How long a stopping worker tries to send what is ready.
const STOP_FLUSH: Duration = Duration::from_millis(100);

/// A client's socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write_vectored(slices),
            Socket::Unix(socket) => socket.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// What `stats conns` says of it.
    fn peer(&self, now_ms: u64) -> Peer {
        let tcp = |address: std::io::Result<SocketAddr>| match address {
            Ok(address) if address.is_ipv6() => format!("tcp6:{address}"),
            Ok(address) => format!("tcp:{address}"),
            Err(_) => "tcp:unknown".to_owned(),
        };
        let (descriptor, address, listen_address) = match self {
            Socket::Tcp(socket) => (socket.as_raw_fd(), tcp(socket.peer_addr()), tcp(socket.local_addr())),
            Socket::Unix(socket) => {
                let path =
                    socket.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
                let path = path.unwrap_or_default();
                (socket.as_raw_fd(), "unix".to_owned(), format!("unix:{}", path.display()))
            }
        };
        Peer {
            descriptor,
            address,
            listen_address,
            active_at_ms: now_ms.into(),
            is_watching: AtomicBool::new(false),
        }
    }
}

/// How others reach a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    sockets: Sender<Socket>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl WorkerHandle {
    /// Gives the worker a socket. The connection limit bounds how many wait.
    pub(crate) fn hand_over(&self, socket: Socket) {
        // A worker that is gone takes no more sockets: the socket closes.
        if self.sockets.send(socket).is_ok() {
            let _ = self.waker.wake();
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
    }
}

/// Starts the worker of this index.
pub(crate) fn spawn(index: usize, shared: Arc<Shared>) -> std::io::Result<(WorkerHandle, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (sender, sockets) = unbounded();
    let stop = Arc::new(AtomicBool::new(false));
    let handle = WorkerHandle { sockets: sender, stop: stop.clone(), waker: waker.clone() };
    let counters = shared.counters.workers[index].clone();
    let mut worker = Worker {
        poll,
        sockets,
        stop,
        clients: Slab::new(),
        ready: Vec::new(),
        waker,
        watching: Vec::new(),
        next_idle_scan: Instant::now() + IDLE_SCAN,
        shared,
        counters,
    };
    let thread =
        std::thread::Builder::new().name(format!("hotspare-worker-{index}")).spawn(move || worker.run())?;
    Ok((handle, thread))
}

struct Client {
    socket: Socket,
    connection: Connection,
    peer: Arc<Peer>,
    last_active: Instant,
    is_ready: bool,
}

struct Worker {
    poll: Poll,
    sockets: Receiver<Socket>,
    stop: Arc<AtomicBool>,
    clients: Slab<Client>,
    ready: Vec<usize>,
    /// What wakes this worker: the others' way to its watchers.
    waker: Arc<Waker>,
    /// The clients that watch.
    watching: Vec<usize>,
    next_idle_scan: Instant,
    shared: Arc<Shared>,
    counters: Arc<CachePadded<Counters>>,
}

impl Worker {
    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Acquire) {
            let timeout = if self.ready.is_empty() { self.sleep() } else { Some(Duration::ZERO) };
            if let Err(why) = self.poll.poll(&mut events, timeout)
                && why.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%why, "a worker's poller failed; its connections close");
                break;
            }
            for event in &events {
                if event.token() == WAKER {
                    self.take_sockets();
                    self.make_watching_ready();
                } else {
                    self.make_ready(event.token().0);
                }
            }
            let turns = std::mem::take(&mut self.ready);
            for key in turns {
                self.run_turn(key);
            }
            self.close_idle();
        }
        self.flush_all();
    }

    fn sleep(&self) -> Option<Duration> {
        (self.shared.settings.idle_timeout_ms > 0).then_some(IDLE_SCAN)
    }

    fn take_sockets(&mut self) {
        while let Ok(mut socket) = self.sockets.try_recv() {
            let entry = self.clients.vacant_entry();
            let token = Token(entry.key());
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = match &mut socket {
                Socket::Tcp(socket) => self.poll.registry().register(socket, token, interest),
                Socket::Unix(socket) => self.poll.registry().register(socket, token, interest),
            };
            if let Err(why) = registered {
                tracing::warn!(%why, "can't watch a connection");
                self.shared.counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let connection = Connection::new(&self.shared.settings);
            let peer = Arc::new(socket.peer(self.shared.cache.now_ms()));
            self.shared.operator.registry.add(peer.clone());
            self.shared.operator.observers.saw_connect(&peer.address, peer.descriptor);
            entry.insert(Client { socket, connection, peer, last_active: Instant::now(), is_ready: false });
            self.make_ready(token.0);
        }
    }

    fn make_watching_ready(&mut self) {
        for at in 0..self.watching.len() {
            self.make_ready(self.watching[at]);
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

    fn run_turn(&mut self, key: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_ready = false;
        client.peer.active_at_ms.store(self.shared.cache.now_ms(), Ordering::Relaxed);
        if self.shared.settings.idle_timeout_ms > 0 {
            client.last_active = Instant::now();
        }
        let mut executor = Executor { shared: &self.shared, counters: &self.counters };
        let turn = client.connection.turn(&mut client.socket, &mut executor);
        if let Some(watch) = client.connection.watch()
            && !client.peer.is_watching.swap(true, Ordering::Relaxed)
        {
            watch.set_waker(&self.waker);
            self.watching.push(key);
            // What was seen before the waker was there has woken nobody.
            self.make_ready(key);
        }
        match turn {
            Turn::Waiting => {}
            Turn::MoreToDo => {
                self.counters.conn_yields.add(1);
                self.make_ready(key);
            }
            Turn::Closed => self.close(key, "normal"),
        }
    }

    fn close(&mut self, key: usize, reason: &str) {
        let peer = &self.clients[key].peer;
        self.shared.operator.registry.remove(peer);
        self.shared.operator.observers.saw_close(&peer.address, peer.descriptor, reason);
        self.watching.retain(|watching| *watching != key);
        self.clients.remove(key);
        self.shared.counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
    }

    fn close_idle(&mut self) {
        let idle_timeout = Duration::from_millis(self.shared.settings.idle_timeout_ms);
        if idle_timeout.is_zero() || Instant::now() < self.next_idle_scan {
            return;
        }
        self.next_idle_scan = Instant::now() + IDLE_SCAN;
        let is_idle = |(key, client): (usize, &Client)| {
            let is_idle = client.last_active.elapsed() > idle_timeout && client.connection.watch().is_none();
            is_idle.then_some(key)
        };
        let idle: Vec<usize> = self.clients.iter().filter_map(is_idle).collect();
        for key in idle {
            self.counters.idle_kicks.add(1);
            self.close(key, "idle_timeout");
        }
    }

    /// Before the end: what is ready to be sent is sent, as far as clients take it in a moment.
    fn flush_all(&mut self) {
        let end = Instant::now() + STOP_FLUSH;
        loop {
            let counters = &self.counters;
            let pending = self.clients.iter_mut().filter_map(|(_, client)| {
                client
                    .connection
                    .flush(&mut client.socket, counters)
                    .err()
                    .filter(|why| why.kind() == ErrorKind::WouldBlock)
            });
            if pending.count() == 0 || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
