//! Accepting: one thread that takes sockets and hands them to the workers in turn.
//!
//! Lives here: binding, the connection limit (rule L7), what happens when descriptors run out.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token, Waker};

use super::Shared;
use super::event_loop::{Socket, WorkerHandle};
use crate::settings::Settings;

const WAKER: Token = Token(usize::MAX);

/// How long accepting rests when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// A TCP address can't be listened at.
    Listen(SocketAddr, std::io::Error),
    /// A unix socket can't be listened at.
    ListenUnix(PathBuf, std::io::Error),
    /// The system refused a thread or a poller.
    System(std::io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Listen(address, why) => write!(f, "can't listen on {address}: {why}"),
            ServerError::ListenUnix(path, why) => write!(f, "can't listen on {}: {why}", path.display()),
            ServerError::System(why) => write!(f, "can't start serving: {why}"),
        }
    }
}

impl std::error::Error for ServerError {}

/// Sockets that listen.
pub(crate) struct Bound {
    tcp: Vec<TcpListener>,
    unix: Option<(UnixListener, PathBuf)>,
}

impl Bound {
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.unix {
            // It may have been removed by hand: then there is nothing to tidy.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Binds what the settings name.
pub(crate) fn bind(settings: &Settings) -> Result<Bound, ServerError> {
    if let Some(path) = &settings.unix_socket {
        let listener = bind_unix(path).map_err(|why| ServerError::ListenUnix(path.clone(), why))?;
        return Ok(Bound { tcp: Vec::new(), unix: Some((listener, path.clone())) });
    }
    let bind_one =
        |address: &SocketAddr| TcpListener::bind(*address).map_err(|why| ServerError::Listen(*address, why));
    let tcp = settings.addresses.iter().map(bind_one).collect::<Result<_, _>>()?;
    Ok(Bound { tcp, unix: None })
}

/// A socket file that a killed server left is replaced; any other file is not.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
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
        let mut accepting = Accepting { bound, shared, workers, next_worker: 0 };
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
}

impl Accepting {
    fn run(&mut self, mut poll: Poll, stop: &AtomicBool) {
        let mut events = Events::with_capacity(64);
        let mut resting = false;
        while !stop.load(Ordering::Acquire) {
            let timeout = resting.then_some(PAUSE);
            if let Err(why) = poll.poll(&mut events, timeout)
                && why.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%why, "accepting failed; no new connections");
                return;
            }
            resting = !self.accept_all(stop);
        }
    }

    /// Takes every socket that waits; false if the system has no room for another now.
    fn accept_all(&mut self, stop: &AtomicBool) -> bool {
        for index in 0..self.bound.tcp.len() + usize::from(self.bound.unix.is_some()) {
            while !stop.load(Ordering::Acquire) {
                let accepted = match &self.bound.unix {
                    Some((listener, _)) => listener.accept().map(|(socket, _)| Socket::Unix(socket)),
                    None => self.bound.tcp[index].accept().map(|(socket, _)| {
                        // Latency matters more than packets; a system that refuses is as good.
                        let _ = socket.set_nodelay(true);
                        Socket::Tcp(socket)
                    }),
                };
                match accepted {
                    Ok(socket) => self.take(socket),
                    Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                    Err(why)
                        if matches!(why.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                    Err(why) => {
                        tracing::warn!(%why, "can't accept a connection");
                        return false;
                    }
                }
            }
        }
        true
    }

    fn take(&mut self, mut socket: Socket) {
        let counters = &self.shared.counters;
        let open = counters.curr_connections.fetch_add(1, Ordering::AcqRel);
        if open >= self.shared.settings.connections_max as u64 {
            counters.curr_connections.fetch_sub(1, Ordering::AcqRel);
            counters.rejected_connections.fetch_add(1, Ordering::Relaxed);
            // A fresh socket takes a line; if it does not, closing says as much.
            let _ = socket.write(b"ERROR Too many open connections\r\n");
            return;
        }
        counters.total_connections.fetch_add(1, Ordering::Relaxed);
        self.workers[self.next_worker].hand_over(socket);
        self.next_worker = (self.next_worker + 1) % self.workers.len();
    }
}
