//! Accepting: one thread that takes sockets and hands them to the workers in turn.
//!
//! Lives here: binding, the connection limit (rule L7), the pause when descriptors run out.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::fs::Mode;
use rustix::process::umask;
use socket2::{Domain, SockAddr, Type};

use super::Shared;
use super::event_loop::{Socket, WorkerHandle};
use crate::settings::Settings;

const WAKER: Token = Token(usize::MAX);

/// How long accepting rests when there is no room for a connection.
const PAUSE: Duration = Duration::from_millis(20);

/// What a refused client may have sent already, at most.
const REFUSED_BYTES_MAX: usize = 64 << 10;

/// Bytes that the system holds for a client that does not read, beyond what is on its way. Without a bound Linux grows
/// a socket's buffer to 4 MiB (`net.ipv4.tcp_wmem`): some hundred such clients use up what all connections of a machine may
/// have (`net.ipv4.tcp_mem`), and then packets of well-behaved ones are dropped (seen in the soak test).
const SYSTEM_UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Why the server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// A TCP address can't be listened at.
    Listen(SocketAddr, std::io::Error),
    /// Datagrams can't be taken at an address.
    Udp(SocketAddr, std::io::Error),
    /// A unix socket can't be listened at.
    ListenUnix(PathBuf, std::io::Error),
    /// The certificates can't be read, or have no sense.
    Certificates(String),
    /// The system refused a thread or a poller.
    System(std::io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Listen(address, why) => write!(f, "can't listen on {address}: {why}"),
            ServerError::Udp(address, why) => write!(f, "can't take datagrams at {address}: {why}"),
            ServerError::ListenUnix(path, why) => write!(f, "can't listen on {}: {why}", path.display()),
            ServerError::Certificates(why) => write!(f, "-Z: {why}"),
            ServerError::System(why) => write!(f, "can't start serving: {why}"),
        }
    }
}

impl std::error::Error for ServerError {}

/// Sockets that listen.
pub(crate) struct Bound {
    tcp: Vec<TcpListener>,
    unix: Option<(UnixListener, SocketFile)>,
}

/// The file of a unix socket, removed with this value.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server's socket may have taken its place since.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Who may not remove it any more leaves it: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Binds what the settings name.
pub(crate) fn bind(settings: &Settings) -> Result<Bound, ServerError> {
    if let Some(path) = &settings.unix_socket {
        let bound = bind_unix(path, settings).map_err(|why| ServerError::ListenUnix(path.clone(), why))?;
        return Ok(Bound { tcp: Vec::new(), unix: Some(bound) });
    }
    let bind_one = |address: &SocketAddr| {
        bind_tcp(*address, settings.backlog).map_err(|why| ServerError::Listen(*address, why))
    };
    let tcp = settings.addresses.iter().map(bind_one).collect::<Result<_, _>>()?;
    Ok(Bound { tcp, unix: None })
}

fn bind_tcp(address: SocketAddr, backlog: u16) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // Each family has its own socket, as memcached's: [::] and 0.0.0.0 go together.
        socket.set_only_v6(true)?;
    }
    // Rule Z8: connections of a server that stopped keep nobody from its port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Accepted sockets inherit it: who vanished without a word is found out in the end.
    socket.set_keepalive(true)?;
    // So is this. Where the system knows no such bound it has its own.
    let _ = socket.set_tcp_notsent_lowat(SYSTEM_UNSENT_BYTES_MAX);
    socket.listen(backlog.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A socket file that a killed server left is replaced; any other file is not.
fn bind_unix(path: &Path, settings: &Settings) -> std::io::Result<(UnixListener, SocketFile)> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(why) if why.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            // A server that is too busy to answer lives, too.
            _ => return Err(ErrorKind::AddrInUse.into()),
        }
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode is there from the socket's first moment.
    let before = umask(Mode::from_raw_mode(0o777 & !settings.unix_socket_mode));
    let bound = SockAddr::unix(path).and_then(|address| socket.bind(&address));
    umask(before);
    bound?;
    let file = SocketFile { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() };
    socket.listen(settings.backlog.into())?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into()), file))
}

/// The accepting thread. Dropping it closes the listeners at once.
pub(crate) struct Acceptor {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    pub(crate) fn spawn(
        mut bound: Bound,
        shared: Arc<Shared>,
        workers: Vec<WorkerHandle>,
    ) -> std::io::Result<Acceptor> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        for (index, listener) in bound.tcp.iter_mut().enumerate() {
            poll.registry().register(listener, Token(index), Interest::READABLE)?;
        }
        if let Some((listener, _)) = &mut bound.unix {
            poll.registry().register(listener, Token(0), Interest::READABLE)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut accepting = Accepting { bound, shared, workers, next_worker: 0, paused_since: None };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("hotspare-accept".to_owned())
            .spawn(move || accepting.run(poll, &stopped))?;
        Ok(Acceptor { stop, waker, thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Accepting {
    bound: Bound,
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    next_worker: usize,
    paused_since: Option<Instant>,
}

impl Accepting {
    fn run(&mut self, mut poll: Poll, stop: &AtomicBool) {
        let mut events = Events::with_capacity(64);
        while !stop.load(Ordering::Acquire) {
            let timeout = self.paused_since.map(|_| PAUSE);
            if let Err(why) = poll.poll(&mut events, timeout)
                && why.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%why, "accepting failed; no new connections");
                return;
            }
            match self.accept_all(stop) {
                Ok(()) => self.go_on(),
                Err(why) => self.pause(&why),
            }
        }
    }

    fn pause(&mut self, why: &std::io::Error) {
        if self.paused_since.is_none() {
            tracing::warn!(%why, "can't accept connections; they wait");
            self.paused_since = Some(Instant::now());
            self.shared.counters.accepting_conns.store(false, Ordering::Relaxed);
            self.shared.counters.listen_disabled_num.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn go_on(&mut self) {
        if let Some(since) = self.paused_since.take() {
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

    /// Takes every socket that waits; an error if there is no room for another now.
    fn accept_all(&mut self, stop: &AtomicBool) -> std::io::Result<()> {
        for index in 0..self.bound.tcp.len() + usize::from(self.bound.unix.is_some()) {
            while !stop.load(Ordering::Acquire) {
                if !self.shared.settings.refuses_when_full && self.is_full() {
                    return Err(std::io::Error::other("all places are taken (-c)"));
                }
                let accepted = match &self.bound.unix {
                    Some((listener, _)) => listener.accept().map(|(socket, _)| Socket::Unix(socket)),
                    None => self.bound.tcp[index].accept().and_then(|(socket, _)| {
                        // Latency matters more than packets; a system that refuses is as good.
                        let _ = socket.set_nodelay(true);
                        self.encrypt(index, socket)
                    }),
                };
                match accepted {
                    Ok(socket) => self.take(socket),
                    Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                    Err(why)
                        if matches!(why.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, socket: Socket) {
        let counters = &self.shared.counters;
        let open = counters.curr_connections.fetch_add(1, Ordering::AcqRel);
        if open >= self.shared.settings.connections_max as u64 {
            counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
            counters.rejected_connections.fetch_add(1, Ordering::Relaxed);
            refuse(socket);
            return;
        }
        counters.total_connections.fetch_add(1, Ordering::Relaxed);
        self.workers[self.next_worker].hand_over(socket);
        self.next_worker = (self.next_worker + 1) % self.workers.len();
    }
}

/// Rule L7.
fn refuse(mut socket: Socket) {
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
