//! Who is connected, for `stats conns` (rule G5).
//!
//! Lives here: one entry for each open connection, made and removed by its worker, and for each listener. Not here:
//! connections (see `connection`), listening (see `listener`, `udp`).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One end of a connection, shown as memcached names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `None`: the system did not say.
    Tcp(Option<SocketAddr>),
    Udp(Option<SocketAddr>),
    /// With a path if it is ours.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = if matches!(self, Address::Udp(_)) { "udp" } else { "tcp" };
        match self {
            Address::Tcp(Some(address)) | Address::Udp(Some(address)) => {
                write!(f, "{transport}{}:{address}", if address.is_ipv6() { "6" } else { "" })
            }
            Address::Tcp(None) | Address::Udp(None) => write!(f, "{transport}:unknown"),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix"),
        }
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// A request, or the rest of its line.
    Reading,
    /// The rest of a data block.
    TakingData,
    /// The end of a data block that is thrown away.
    Swallowing,
    /// The client, to take what is unsent.
    Writing,
    /// Something to be seen.
    Watching,
    /// Clients.
    Listening,
}

impl State {
    /// memcached's word.
    fn as_str(state: u8) -> &'static str {
        match state {
            state if state == State::TakingData as u8 => "conn_nread",
            state if state == State::Swallowing as u8 => "conn_swallow",
            state if state == State::Writing as u8 => "conn_mwrite",
            state if state == State::Watching as u8 => "conn_watch",
            state if state == State::Listening as u8 => "conn_listening",
            _ => "conn_read",
        }
    }
}

/// What is known of one connection, or of a socket that listens.
///
/// Its worker writes to it in turns only, and then no more than has changed: entries lie side by side, and those of another
/// worker's clients, which it reads in each turn, in the same cache line.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its file descriptor, memcached's name for a connection.
    pub(crate) descriptor: i32,
    /// The client; where it listens, of a listener.
    pub(crate) address: Address,
    /// Where it was accepted; `None` of a listener.
    listen_address: Option<Arc<Address>>,
    /// When it last had something to do, on the cache's clock, in seconds.
    active_at_s: AtomicU32,
    /// A [`State`].
    state: AtomicU8,
}

impl Peer {
    /// One that came now.
    pub(crate) fn new(descriptor: i32, address: Address, listen_address: Arc<Address>, now_ms: u64) -> Peer {
        Peer::known(descriptor, address, Some(listen_address), State::Reading, now_ms)
    }

    /// A socket that listens, or answers datagrams.
    pub(crate) fn listener(descriptor: i32, address: Address, now_ms: u64) -> Peer {
        let state = if matches!(address, Address::Udp(_)) { State::Reading } else { State::Listening };
        Peer::known(descriptor, address, None, state, now_ms)
    }

    fn known(
        descriptor: i32,
        address: Address,
        listen_address: Option<Arc<Address>>,
        state: State,
        now_ms: u64,
    ) -> Peer {
        let (active_at_s, state) = (whole_seconds(now_ms).into(), (state as u8).into());
        Peer { descriptor, address, listen_address, active_at_s, state }
    }

    /// It has something to do now.
    #[inline]
    pub(crate) fn note_activity(&self, now_ms: u64) {
        let now_s = whole_seconds(now_ms);
        if self.active_at_s.load(Ordering::Relaxed) != now_s {
            self.active_at_s.store(now_s, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn set_state(&self, state: State) {
        if self.state.load(Ordering::Relaxed) != state as u8 {
            self.state.store(state as u8, Ordering::Relaxed);
        }
    }
}

/// Fits until 2106, as the items' own seconds do.
fn whole_seconds(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1000).unwrap_or(u32::MAX)
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Each at the place of its descriptor: the system gives the lowest that is free, so few places are empty.
    peers: Mutex<Vec<Option<Arc<Peer>>>>,
}

impl Registry {
    fn peers(&self) -> MutexGuard<'_, Vec<Option<Arc<Peer>>>> {
        // Nothing panics while it is held, and a list is sound after anything.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, peer: Arc<Peer>) {
        // A descriptor is never negative.
        let place = peer.descriptor as usize;
        let mut peers = self.peers();
        if peers.len() <= place {
            peers.resize(place + 1, None);
        }
        peers[place] = Some(peer);
    }

    /// To be called before the socket is closed: its descriptor is another's afterwards.
    pub(crate) fn remove(&self, peer: &Peer) {
        if let Some(place) = self.peers().get_mut(peer.descriptor as usize) {
            *place = None;
        }
    }

    /// `stats conns`: names and values, in order. `asking` is the connection that wants to know.
    pub(crate) fn lines(&self, asking: i32, now_ms: u64) -> Vec<(String, String)> {
        let peers = self.peers();
        let lines = peers.iter().flatten().flat_map(|peer| {
            let state = match peer.descriptor == asking {
                true => "conn_parse_cmd",
                false => State::as_str(peer.state.load(Ordering::Relaxed)),
            };
            let idle_s = whole_seconds(now_ms).saturating_sub(peer.active_at_s.load(Ordering::Relaxed));
            let is_udp = matches!(peer.address, Address::Udp(_));
            let rows = [
                ("UDP", is_udp.then(|| "UDP".to_owned())),
                ("addr", Some(peer.address.to_string())),
                ("listen_addr", peer.listen_address.as_ref().map(|address| address.to_string())),
                ("state", Some(state.to_owned())),
                ("secs_since_last_cmd", Some(idle_s.to_string())),
            ];
            let descriptor = peer.descriptor;
            rows.into_iter().filter_map(move |(name, text)| Some((format!("{descriptor}:{name}"), text?)))
        });
        lines.collect()
    }
}
