//! A network between a primary and its replica, that is cut when one likes, and counts.
//!
//! Lives here: a TCP relay of two threads a connection. What a replica sends, and what it is sent, passes as it is.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PIECE_BYTES: usize = 256 << 10;

/// What the threads share.
#[derive(Default)]
struct State {
    is_cut: AtomicBool,
    /// Bytes that the primary has sent.
    sent: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    /// When the last link came to be.
    linked: Mutex<Option<Instant>>,
}

/// A relay; goes on for as long as the program lives.
pub struct Relay {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// Passes what comes on to `target`.
    ///
    /// # Errors
    /// There is no port left.
    pub fn start(target: SocketAddr) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, state) = (listener.local_addr()?, Arc::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for replica in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || pass_on(replica, target, &shared));
            }
        });
        Ok(Relay { address, state })
    }

    /// Ends what is open, and lets nothing new pass until it is healed.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        for stream in lock(&self.state.open).drain(..) {
            // It fails only when it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        *lock(&self.state.linked) = None;
    }

    /// Lets links pass again.
    pub fn heal(&self) {
        self.state.is_cut.store(false, Ordering::SeqCst);
    }

    /// Bytes that the primary has sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Waits until there is a link, and says since when.
    ///
    /// # Errors
    /// There is none after so long.
    pub fn linked(&self, patience: Duration) -> io::Result<Instant> {
        let begun = Instant::now();
        loop {
            if let Some(moment) = *lock(&self.state.linked) {
                return Ok(moment);
            }
            if begun.elapsed() > patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the replica does not dial again"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass_on(replica: TcpStream, target: SocketAddr, state: &Arc<State>) {
    if state.is_cut.load(Ordering::SeqCst) {
        return;
    }
    let Ok(primary) = TcpStream::connect(target) else { return };
    let handles = [&replica, &primary].map(|stream| {
        stream.set_nodelay(true).ok()?;
        Some((stream.try_clone().ok()?, stream.try_clone().ok()?))
    });
    let [Some((to_replica, open_replica)), Some((to_primary, open_primary))] = handles else { return };
    lock(&state.open).extend([open_replica, open_primary]);
    *lock(&state.linked) = Some(Instant::now());
    let shared = state.clone();
    thread::spawn(move || pump(primary, to_replica, &shared.sent));
    pump(replica, to_primary, &AtomicU64::new(0));
}

/// Passes on until either end closes; then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count) = from.read(&mut piece) {
        if count == 0 || to.write_all(&piece[..count]).is_err() {
            break;
        }
        passed.fetch_add(count as u64, Ordering::SeqCst);
    }
    // They fail only when they are closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
