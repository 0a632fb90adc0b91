//! A network between two nodes that can be slow, cut and deaf on one side.
//!
//! Lives here: a TCP proxy at a fixed address, two threads for each connection. Not here: when it does what (see
//! `faults`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::wait;

/// How long a node may take to accept what the proxy passes on.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// How often a direction that is deaf, or has nothing to pass on, looks whether that has changed.
const LOOK: Duration = Duration::from_millis(5);
/// No cut is wanted.
const NEVER: i64 = i64::MAX;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who dialled: a replica's acks.
    Up,
    /// To who dialled: the log.
    Down,
}

/// 1. What a connection passes on is a prefix of what came in, whatever happens to it.
#[derive(Debug, Default)]
struct State {
    delay_us: AtomicU64,
    deaf: [AtomicBool; 2],
    /// Bytes that go down before the next connection is cut.
    bytes_to_cut: AtomicI64,
    cuts: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// A proxy for one node's way to another.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Listens at `address` for as long as the program lives, and passes on to `target`.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(address: SocketAddr, target: SocketAddr) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind(address)?;
        let state = Arc::new(State { bytes_to_cut: AtomicI64::new(NEVER), ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || pass_on(stream, target, &shared));
            }
        });
        Ok(Proxy { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long each piece is on its way, in each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.state.delay_us.store(delay.as_micros() as u64, Ordering::SeqCst);
    }

    /// Whether what goes one way arrives.
    pub fn set_deaf(&self, direction: Direction, deaf: bool) {
        self.state.deaf[direction as usize].store(deaf, Ordering::SeqCst);
    }

    /// Cuts the connection when so many more bytes have gone down, wherever that is in a frame.
    pub fn cut_after(&self, bytes: i64) {
        self.state.bytes_to_cut.store(bytes, Ordering::SeqCst);
    }

    /// Cuts every connection now; what is on its way is lost.
    pub fn cut_now(&self) {
        for stream in self.state.open.lock().expect("no panic while held").drain(..) {
            // It fails only when it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// A network without faults again.
    pub fn heal(&self) {
        self.set_delay(Duration::ZERO);
        self.set_deaf(Direction::Up, false);
        self.set_deaf(Direction::Down, false);
        self.cut_after(NEVER);
    }

    /// How many connections were cut in mid-stream.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

fn pass_on(dialler: TcpStream, target: SocketAddr, state: &Arc<State>) {
    let Ok(node) = TcpStream::connect_timeout(&target, DIAL_LIMIT) else { return };
    let both = [&dialler, &node];
    let handles = both.map(|stream| {
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(LOOK)).ok()?;
        stream.try_clone().ok()
    });
    let [Some(from_dialler), Some(from_node)] = handles else { return };
    {
        let mut open = state.open.lock().expect("no panic while held");
        open.retain(|stream| stream.peer_addr().is_ok());
        open.extend(both.iter().filter_map(|stream| stream.try_clone().ok()));
    }
    let shared = Arc::clone(state);
    let up = thread::spawn(move || pump(from_dialler, node, Direction::Up, &shared));
    pump(from_node, dialler, Direction::Down, state);
    let _ = up.join();
}

/// Passes on until either end closes, or a cut is due; then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, state: &State) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        wait::pause(Duration::from_micros(state.delay_us.load(Ordering::SeqCst)));
        while state.deaf[direction as usize].load(Ordering::SeqCst) {
            if to.peer_addr().is_err() || is_closed(&to) {
                return;
            }
            wait::pause(LOOK);
        }
        let allowed = match direction {
            Direction::Up => count,
            Direction::Down => state.before_cut(count),
        };
        if to.write_all(&piece[..allowed]).is_err() || allowed < count {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Whether a stream was shut down under our hands.
fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(0))
}

impl State {
    /// How many of `count` bytes may pass: all of them unless a cut falls among them.
    fn before_cut(&self, count: usize) -> usize {
        let wanted = self.bytes_to_cut.load(Ordering::SeqCst);
        if wanted == NEVER {
            return count;
        }
        let length = count as i64;
        if wanted >= length {
            self.bytes_to_cut.store(wanted - length, Ordering::SeqCst);
            return count;
        }
        self.bytes_to_cut.store(NEVER, Ordering::SeqCst);
        self.cuts.fetch_add(1, Ordering::SeqCst);
        wanted as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;

    /// A connection through a proxy, and its other end.
    fn pair() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(ports::local(), listener.local_addr().unwrap()).unwrap();
        let dialler = TcpStream::connect(proxy.address()).unwrap();
        let (node, _) = listener.accept().unwrap();
        for stream in [&dialler, &node] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        (proxy, dialler, node)
    }

    #[test]
    fn a_cut_lets_exactly_so_many_bytes_pass() {
        let (proxy, mut dialler, mut node) = pair();
        proxy.cut_after(5);
        node.write_all(b"abcdefgh").unwrap();
        let mut came = Vec::new();
        dialler.read_to_end(&mut came).unwrap();
        assert_eq!((&came[..], proxy.cuts()), (&b"abcde"[..], 1));
    }

    #[test]
    fn one_way_is_deaf_and_the_other_is_not_and_nothing_is_lost_when_it_heals() {
        let (proxy, mut dialler, mut node) = pair();
        proxy.set_deaf(Direction::Down, true);
        node.write_all(b"late").unwrap();
        dialler.write_all(b"up").unwrap();
        let mut came = [0; 2];
        node.read_exact(&mut came).unwrap();
        dialler.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(dialler.read(&mut [0; 8]).is_err(), "it was deaf");
        proxy.heal();
        dialler.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut came = [0; 4];
        dialler.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"late");
    }
}
