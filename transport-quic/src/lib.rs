//! Hotspare's replication over QUIC: encrypted, with certificates on both sides, and links that outlive a changed address.
//!
//! Lives here: [`Node`], which listens, dials and ships, and its [`Options`]. The protocol is the engine's.
//!
//! | file | concept |
//! |---|---|
//! | `runtime` | the thread and the async runtime on it: the only file that names one |
//! | `limits` | windows, time-outs, how many may shake hands at once |
//! | `transport` | dialling and accepting |
//! | `link` | one connection that carries frames, by channel |
//! | `stream` | one stream of it |
//!
//! A node has a thread of its own with a runtime of its own on it. So it works alike in a program that has no runtime
//! and in one on tokio or any other, and no task of the program can hold up replication.
//!
//! **Two streams and datagrams.** New writes and all that concerns the link itself travel on one stream in their order. A
//! full copy has a stream of its own, which yields to that one: neither a lost packet of the copy nor a window that it has
//! filled holds up new writes, and the replica sorts out which items of the copy the log has changed meanwhile. Hints are
//! datagrams, which may be lost. With a node of a version before that, all frames share the first stream, as over TCP.
//!
//! ```
//! use hotspare::{Cache, Config, Expiry, ReplicationConfig};
//! use hotspare_quic::{Credentials, Node, Options};
//! # let authority = hotspare_tls::issue::Authority::new("a group")?;
//! # let (ca, node_1) = (authority.pem().certificate, authority.issue("cache-1", &[])?);
//! # let (certificate, key) = (node_1.certificate, node_1.key);
//!
//! // Made by `hotspare cert`; each node has a certificate of its own. `Credentials::read` takes files.
//! let credentials = Credentials::from_pem(&ca, &certificate, &key)?;
//! let primary = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
//! let node = Node::start(&primary, Options::new(credentials.clone()).listen("127.0.0.1:0".parse()?))?;
//!
//! let address = node.listen_address().unwrap().to_string();
//! let spare = Cache::new(Config::new().replication(ReplicationConfig::replica_of(address)))?;
//! let spare_node = Node::start(&spare, Options::new(credentials))?;
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

mod limits;
mod link;
mod runtime;
mod stream;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotspare::{Cache, Replicator};
pub use hotspare_tls::Credentials;

use runtime::{Control, Runtime};
use transport::{Dialler, QuicTransport};

/// How a node reaches its peers.
#[derive(Debug, Clone)]
pub struct Options {
    credentials: Credentials,
    listen: Option<SocketAddr>,
}

impl Options {
    /// Shows these credentials, dials its peers, and accepts none. [`Credentials::reload`] and [`Credentials::replace`] change
    /// them for links to come.
    pub fn new(credentials: Credentials) -> Options {
        Options { credentials, listen: None }
    }

    /// Accepts peers at this UDP address; port 0 takes a free one. Default: none.
    pub fn listen(mut self, address: SocketAddr) -> Options {
        self.listen = Some(address);
        self
    }
}

/// Why replication did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The cache was made without replication.
    Standalone,
    /// The address can't be listened at.
    Listen(SocketAddr, std::io::Error),
    /// The system refused a thread or a socket.
    System(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Standalone => write!(f, "the cache was made without replication"),
            StartError::Listen(address, why) => write!(f, "can't listen for replication on {address}: {why}"),
            StartError::System(why) => write!(f, "can't start replication: {why}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Listen(_, why) | StartError::System(why) => Some(why),
            StartError::Standalone => None,
        }
    }
}

/// Replication at work: one thread that accepts, dials and ships. Dropping it stops replication at once, as a crash
/// would; [`Node::shutdown`] drains first. Either waits for the thread, for a few milliseconds at least.
#[derive(Debug)]
pub struct Node {
    listen_address: Option<SocketAddr>,
    dialler: Dialler,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts to replicate `cache`.
    ///
    /// # Errors
    /// The cache has no replication, the address can't be listened at, or the system refuses.
    pub fn start(cache: &Cache, options: Options) -> Result<Node, StartError> {
        let frame_bytes_max = cache.frame_bytes_max().ok_or(StartError::Standalone)?;
        let runtime = Runtime::new().map_err(StartError::System)?;
        let transport = QuicTransport::open(options, frame_bytes_max, runtime.spawner())?;
        let listen_address = transport.listen_address;
        let dialler = transport.dialler.clone();
        let endpoints = transport.endpoints();
        let replicator = Replicator::new(cache, transport).ok_or(StartError::Standalone)?;
        let control = Arc::new(Control::default());
        let (cache, shared) = (cache.clone(), control.clone());
        let thread = std::thread::Builder::new()
            .name("hotspare-quic".to_owned())
            .spawn(move || runtime.run(&cache, replicator, &endpoints, &shared))
            .map_err(StartError::System)?;
        Ok(Node { listen_address, dialler, control, thread: Some(thread) })
    }

    /// Where it accepts peers.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.listen_address
    }

    /// Takes new local ports for the links that this node dialled, as after a change of its network. The links go on:
    /// the peers see the new address and check that it is still the same node.
    ///
    /// # Errors
    /// The system gives no socket; the links stay where they were.
    pub fn rebind(&self) -> std::io::Result<()> {
        self.dialler.rebind()
    }

    /// Ships what the attached replicas lack, for at most `drain`, says goodbye and stops.
    pub fn shutdown(self, drain: Duration) {
        self.control.drain(Instant::now() + drain);
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
