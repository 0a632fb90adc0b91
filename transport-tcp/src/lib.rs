//! Hotspare's replication over TCP: one thread for a node, no async runtime.
//!
//! Lives here: [`Node`], which listens, dials and ships, and its [`Options`]. The protocol is the engine's.
//!
//! | file | concept |
//! |---|---|
//! | `handshake` | magic, nonces, the proof of a shared secret |
//! | `socket` | a socket, plain or encrypted |
//! | `link` | one connection that carries frames |
//! | `transport` | dialling and accepting |
//!
//! ```
//! use hotspare::{Cache, Config, Expiry, ReplicationConfig};
//! use hotspare_tcp::{Node, Options};
//!
//! let primary = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
//! let node = Node::start(&primary, Options::new().listen("127.0.0.1:0".parse()?))?;
//!
//! let address = node.listen_address().unwrap().to_string();
//! let spare = Cache::new(Config::new().replication(ReplicationConfig::replica_of(address)))?;
//! let spare_node = Node::start(&spare, Options::new())?;
//!
//! primary.set("k", "v", Expiry::Never)?;
//! while spare.status().seq < primary.status().seq {
//!     std::thread::yield_now();
//! }
//! drop((node, primary)); // the primary dies
//! spare.promote(false)?;
//! assert_eq!(&spare.get("k")?.unwrap().value[..], b"v");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

mod handshake;
mod link;
mod socket;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use hotspare::{Cache, Next, Replicator};
pub use hotspare_tls::Credentials;
use mio::{Events, Poll, Token};
use parking_lot::Mutex;

use transport::{Arrivals, TcpTransport};

const WAKER: Token = Token(0);

/// The longest sleep: a bound on what a missed event could cost.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How a node reaches its peers.
#[derive(Debug, Clone, Default)]
pub struct Options {
    listen: Option<SocketAddr>,
    secret: Option<Vec<u8>>,
    tls: Option<Credentials>,
}

impl Options {
    /// Dials its peers, accepts none, and has neither a secret nor certificates.
    pub fn new() -> Options {
        Options::default()
    }

    /// Accepts peers at this address; port 0 takes a free one. Default: none.
    pub fn listen(mut self, address: SocketAddr) -> Options {
        self.listen = Some(address);
        self
    }

    /// The secret that all nodes of the group share. Default: none; then, without certificates, only loopback
    /// addresses are listened at and dialled. It proves who a peer is; it encrypts nothing.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Options {
        self.secret = Some(secret.into());
        self
    }

    /// Encrypts every link, by TLS 1.3 with certificates on both sides. Default: none, frames travel in the clear. All
    /// nodes of the group must have some. [`Credentials::reload`] and [`Credentials::replace`] change them for links to come. A secret, if there is one, must match besides.
    pub fn tls(mut self, credentials: Credentials) -> Options {
        self.tls = Some(credentials);
        self
    }
}

/// Why replication did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The cache was made without replication.
    Standalone,
    /// An address other than loopback needs a secret or certificates.
    SecretNeeded(SocketAddr),
    /// The secret is empty.
    SecretEmpty,
    /// The address can't be listened at.
    Listen(SocketAddr, std::io::Error),
    /// The system refused a thread or a poller.
    System(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Standalone => write!(f, "the cache was made without replication"),
            StartError::SecretNeeded(address) => {
                let wanted = "give a secret, certificates, or a loopback address";
                write!(f, "can't listen for replication on {address}: {wanted}")
            }
            StartError::SecretEmpty => write!(f, "the replication secret is empty"),
            StartError::Listen(address, why) => write!(f, "can't listen for replication on {address}: {why}"),
            StartError::System(why) => write!(f, "can't start replication: {why}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(_, why) | StartError::System(why) => Some(why),
            _ => None,
        }
    }
}

/// Replication at work: one thread that accepts, dials and ships. Dropping it stops replication at once, as a crash
/// would; [`Node::shutdown`] drains first.
#[derive(Debug)]
pub struct Node {
    listen_address: Option<SocketAddr>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Control {
    stop: AtomicBool,
    /// Until when the thread may drain before it stops.
    drain_until: Mutex<Option<Instant>>,
    waker: mio::Waker,
    /// The thread itself, once it runs: it may sleep without looking at its poller.
    thread: OnceLock<Thread>,
}

impl Wake for Control {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A poller that is gone needs no waking.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Node {
    /// Starts to replicate `cache`.
    ///
    /// # Errors
    /// The cache has no replication, the address needs a secret or certificates or can't be listened at, or the system refuses.
    pub fn start(cache: &Cache, options: Options) -> Result<Node, StartError> {
        let frame_bytes_max = cache.frame_bytes_max().ok_or(StartError::Standalone)?;
        let poll = Poll::new().map_err(StartError::System)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(StartError::System)?;
        let registry = poll.registry().try_clone().map_err(StartError::System)?;
        let arrivals = Arrivals::default();
        let transport = TcpTransport::open(options, frame_bytes_max, registry, arrivals.clone())?;
        let listen_address = transport.listen_address;
        let replicator = Replicator::new(cache, transport).ok_or(StartError::Standalone)?;
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            drain_until: Mutex::new(None),
            waker,
            thread: OnceLock::new(),
        });
        let (cache, shared) = (cache.clone(), control.clone());
        let thread = std::thread::Builder::new()
            .name("hotspare-tcp".to_owned())
            .spawn(move || run(&cache, replicator, poll, &arrivals, &shared))
            .map_err(StartError::System)?;
        Ok(Node { listen_address, control, thread: Some(thread) })
    }

    /// Where it accepts peers.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.listen_address
    }

    /// Ships what the attached replicas lack, for at most `drain`, says goodbye and stops.
    pub fn shutdown(self, drain: Duration) {
        *self.control.drain_until.lock() = Some(Instant::now() + drain);
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Release);
        self.control.wake_by_ref();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

fn run(
    cache: &Cache,
    mut replicator: Replicator,
    mut poll: Poll,
    arrivals: &Arrivals,
    control: &Arc<Control>,
) {
    control.thread.get_or_init(std::thread::current);
    let waker = Waker::from(control.clone());
    let mut cx = Context::from_waker(&waker);
    let mut events = Events::with_capacity(64);
    loop {
        let next = replicator.poll(&mut cx);
        if control.stop.load(Ordering::Acquire) {
            let drain_until = *control.drain_until.lock();
            match drain_until {
                Some(until) if Instant::now() < until && !replicator.is_drained() => {}
                Some(_) => return replicator.say_goodbye(&mut cx),
                None => return,
            }
        }
        let timeout = match next {
            Next::Now => Duration::ZERO,
            Next::Soon => {
                std::thread::sleep(replicator.linger());
                Duration::ZERO
            }
            // While draining, acks bring the wake-up; the time-out bounds it.
            Next::At(_) if control.stop.load(Ordering::Acquire) => Duration::from_millis(1),
            // What comes meanwhile waits in the socket; whoever asks for something ends this.
            Next::At(_) if replicator.may_linger() => {
                std::thread::park_timeout(replicator.linger());
                Duration::ZERO
            }
            Next::At(moment) => {
                let now = cache.local_now_ms();
                Duration::from_millis(moment.saturating_sub(now)).min(SLEEP_MAX)
            }
        };
        if let Err(why) = poll.poll(&mut events, Some(timeout))
            && why.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(%why, "the replication poller failed; replication stops");
            return;
        }
        events.iter().for_each(|event| arrivals.note(event.token()));
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
