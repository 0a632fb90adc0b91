//! The memcached side of the server: listeners, connections, commands.
//!
//! ```text
//!   listener ──sockets──> accepting ─────> event_loop ──bytes──> connection ──requests──> commands ──> Cache
//!                         (first worker)   (-t workers)          (buffers, held)         meta, stats
//!   udp ──────────────────────────────────datagrams────────────────┘
//! ```
//!
//! Lives here: starting and stopping all of it. Not here: flags (see `args`), the life of the process (see `run`).

mod accepting;
mod administration;
mod auth;
mod binary;
mod commands;
mod connection;
mod counters;
mod crawler;
pub(crate) mod cuts;
mod event_loop;
mod given;
mod held;
mod listener;
mod login;
mod meta;
mod observers;
mod operator;
mod outgoing;
mod prefixes;
mod registry;
mod requests;
mod sets;
mod stats;
mod stopwatch;
mod tls;
mod tuning;
mod udp;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::{Receiver, bounded};
use hotspare::Cache;
use hotspare_memcached::classic::ShutdownMode;
use hotspare_tls::Credentials;

use crate::settings::Settings;
use crate::users::Users;
use accepting::Accepting;
use counters::AllCounters;
use event_loop::WorkerHandle;
use operator::Operator;
use registry::Peer;
use tls::Certificates;
use udp::Answering;

pub use counters::CountersSnapshot;
pub use listener::ServerError;
pub use observers::Observation;
pub use requests::RequestsSnapshot;
pub(crate) use requests::{HistogramSnapshot, bound_ns};

/// What every part of a running server shares.
pub(crate) struct Shared {
    pub(crate) cache: Cache,
    pub(crate) settings: Settings,
    /// None: nothing is encrypted.
    pub(crate) certificates: Option<Certificates>,
    pub(crate) counters: AllCounters,
    pub(crate) operator: Operator,
    pub(crate) started: Instant,
    /// The cache's clock at the start, in milliseconds: an absolute expiry at or before it is in the past (rule X2).
    pub(crate) started_at_ms: u64,
    pub(crate) on_shutdown_command: Box<dyn Fn(ShutdownMode) + Send + Sync>,
}

impl Shared {
    /// Reads the certificates again, the clients' and replication's, each on its own: what can't be used leaves what it was
    /// before in use. `None` where there are none.
    fn reload_certificates(&self) -> Option<Result<(), String>> {
        let clients = self.certificates.as_ref().map(Certificates::reload);
        let replication = self.settings.replication_credentials.as_ref().map(Credentials::reload);
        [clients, replication].into_iter().flatten().reduce(both)
    }
}

/// Whatever is wrong with either.
fn both(one: Result<(), String>, other: Result<(), String>) -> Result<(), String> {
    match (one, other) {
        (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        (one, other) => one.and(other),
    }
}

/// A running server. Dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    /// Its other end goes with the listeners.
    listeners_closed: Option<Receiver<()>>,
    /// None also without UDP.
    answering: Option<Answering>,
    workers: Vec<(WorkerHandle, JoinHandle<()>)>,
    addresses: Vec<SocketAddr>,
    /// What `stats conns` says of the sockets that listen.
    listeners: Vec<Arc<Peer>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds every address, then serves. `on_shutdown_command` is called when a client sends `shutdown` and the
    /// settings allow it, and told how; it must not block.
    ///
    /// The program may use the cache meanwhile, as any client. It calls [`Cache::begin_round`] before its reads and sets if it cares
    /// that their items' ages are right.
    ///
    /// # Errors
    /// An address can't be bound, the certificates can't be read, or the system refuses threads.
    pub fn start(
        cache: Cache,
        settings: Settings,
        on_shutdown_command: impl Fn(ShutdownMode) + Send + Sync + 'static,
    ) -> Result<Server, ServerError> {
        Server::start_observed(cache, settings, Observation::default(), on_shutdown_command)
    }

    /// Like [`Server::start`], with the observation that the cache's configuration was given.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_observed(
        cache: Cache,
        settings: Settings,
        observation: Observation,
        on_shutdown_command: impl Fn(ShutdownMode) + Send + Sync + 'static,
    ) -> Result<Server, ServerError> {
        let certificates =
            settings.tls.as_ref().map(Certificates::load).transpose().map_err(ServerError::Certificates)?;
        let bound = listener::bind(&settings)?;
        let addresses = bound.addresses();
        let datagrams = udp::bind(&settings)?;
        let now_ms = cache.now_ms();
        let listeners: Vec<Arc<Peer>> =
            bound.peers(now_ms).into_iter().chain(udp::peers(&datagrams, now_ms)).map(Arc::new).collect();
        let threads = settings.threads.max(1);
        let shared = Arc::new(Shared {
            started_at_ms: now_ms,
            operator: Operator::new(&settings, observation),
            cache,
            settings,
            certificates,
            counters: AllCounters::new(threads),
            started: Instant::now(),
            on_shutdown_command: Box::new(on_shutdown_command),
        });
        listeners.iter().for_each(|peer| shared.operator.registry.add(peer.clone()));
        // Dropped if a part does not start, it stops those that did.
        let mut server = Server {
            shared,
            answering: None,
            workers: Vec::new(),
            listeners_closed: None,
            addresses,
            listeners,
        };
        let shared = &server.shared;
        let spawn = |index, accepting| event_loop::spawn(index, shared.clone(), accepting);
        for index in 1..threads {
            server.workers.push(spawn(index, None).map_err(ServerError::System)?);
        }
        let (open, closed) = bounded(0);
        server.listeners_closed = Some(closed);
        let others = server.workers.iter().map(|(handle, _)| handle.clone()).collect();
        let accepting = Accepting::new(bound, shared.clone(), others, open);
        server.workers.insert(0, spawn(0, Some(accepting)).map_err(ServerError::System)?);
        server.answering = Answering::spawn(datagrams, shared.clone()).map_err(ServerError::System)?;
        Ok(server)
    }

    /// The TCP addresses that are listened at, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses at which datagrams are answered, with the ports that were taken.
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        self.answering.as_ref().map_or(&[], Answering::addresses)
    }

    /// What has been counted since the start or the last reset.
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters.snapshot()
    }

    /// A way to the counters that outlives this handle's borrow, for the admin server.
    pub fn counters_source(&self) -> impl Fn() -> CountersSnapshot + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.counters.snapshot()
    }

    /// Reads again what was read from files at the start, each file on its own: the users of `-Y` and `-S`, the clients'
    /// certificates and replication's. Connections and links that are there go on.
    ///
    /// # Errors
    /// What can't be read, or has no sense; that stays as it was.
    pub fn reload(&self) -> Result<(), String> {
        let settings = &self.shared.settings;
        let users = [&settings.ascii_users, &settings.sasl_users]
            .map(|users| users.as_ref().map_or(Ok(()), Users::reload));
        let certificates = self.shared.reload_certificates().unwrap_or(Ok(()));
        users.into_iter().fold(certificates, both)
    }

    /// Closes the listeners; open connections go on.
    pub fn stop_listening(&mut self) {
        // Before they are closed: their descriptors are others' afterwards.
        self.listeners.drain(..).for_each(|peer| self.shared.operator.registry.remove(&peer));
        for (handle, _) in &self.workers {
            handle.stop_accepting();
        }
        if let Some(closed) = &self.listeners_closed {
            // Nothing is ever sent: this waits until the listeners are dropped.
            let _ = closed.recv();
        }
        self.answering = None;
    }

    /// Closes the listeners, and each connection as soon as it has no request half come and no answer half sent.
    /// Over TLS a record of which only a part has come is not a request half come: nobody can tell what is in it, so its
    /// connection closes as one whose bytes are still on their way.
    /// [`CountersSnapshot::curr_connections`] tells when all have gone.
    pub fn drain(&mut self) {
        self.stop_listening();
        for (handle, _) in &self.workers {
            handle.drain();
        }
    }

    /// Closes the listeners, sends what is ready to be sent, and stops.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.stop_listening();
        for (handle, _) in &self.workers {
            handle.stop();
        }
        for (_, thread) in self.workers.drain(..) {
            // A panic of a worker has been reported by the panic hook already; in the program `hotspare` it ends the process.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
