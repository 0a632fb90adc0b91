//! Who is connected, for `stats conns` (rule G5).
//!
//! Lives here: one entry for each open connection, made and removed by its worker. Not here: connections (see
//! `connection`), listeners.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One end of a connection, shown as memcached names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `None`: the system did not say.
    Tcp(Option<SocketAddr>),
    /// With a path if it is ours.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(Some(address)) if address.is_ipv6() => write!(f, "tcp6:{address}"),
            Address::Tcp(Some(address)) => write!(f, "tcp:{address}"),
            Address::Tcp(None) => f.write_str("tcp:unknown"),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix"),
        }
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its file descriptor, memcached's name for a connection.
    pub(crate) descriptor: i32,
    /// The client.
    pub(crate) address: Address,
    /// Where it was accepted.
    listen_address: Address,
    /// When it last had something to do, on the cache's clock, in milliseconds.
    pub(crate) active_at_ms: AtomicU64,
    pub(crate) is_watching: AtomicBool,
}

impl Peer {
    /// One that came now.
    pub(crate) fn new(descriptor: i32, address: Address, listen_address: Address, now_ms: u64) -> Peer {
        let (active_at_ms, is_watching) = (now_ms.into(), AtomicBool::new(false));
        Peer { descriptor, address, listen_address, active_at_ms, is_watching }
    }
}

/// All open connections, by descriptor.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    peers: Mutex<BTreeMap<i32, Arc<Peer>>>,
}

impl Registry {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Peer>>> {
        // Nothing panics while it is held, and a map is sound after anything.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, peer: Arc<Peer>) {
        self.peers().insert(peer.descriptor, peer);
    }

    /// To be called before the socket is closed: its descriptor is another's afterwards.
    pub(crate) fn remove(&self, peer: &Peer) {
        self.peers().remove(&peer.descriptor);
    }

    /// `stats conns`: names and values, in order.
    pub(crate) fn lines(&self, now_ms: u64) -> Vec<(String, String)> {
        let peers = self.peers();
        let lines = peers.values().flat_map(|peer| {
            let state = if peer.is_watching.load(Ordering::Relaxed) { "conn_watch" } else { "conn_read" };
            let idle_ms = now_ms.saturating_sub(peer.active_at_ms.load(Ordering::Relaxed));
            let name = |name: &str| format!("{}:{name}", peer.descriptor);
            [
                (name("addr"), peer.address.to_string()),
                (name("listen_addr"), peer.listen_address.to_string()),
                (name("state"), state.to_owned()),
                (name("secs_since_last_cmd"), (idle_ms / 1000).to_string()),
            ]
        });
        lines.collect()
    }
}
