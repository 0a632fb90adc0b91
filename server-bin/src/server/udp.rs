//! UDP (rule U1): each datagram is a connection of its own, which ends with it.
//!
//! ```text
//!   request: id(2) sequence(2) datagrams(2) 0(2), then requests as over TCP
//!   answer:  id(2) 0, 1, ..    datagrams(2) 0(2), then at most 1392 bytes of the answer
//! ```
//! Lives here: the sockets, their thread, the header. Not here: what a request does (see `connection`, `commands`).
//!
//! Who asks may not be who gets the answer: a datagram's sender can be forged. So what has no sense is not answered, an
//! answer has the bound of a connection's output, and what takes many turns over TCP is refused.
//!
//! All datagrams are answered by one thread, one after the other. In semi-sync and strict it waits for a write's acks, or for
//! their time-out, before it takes the next datagram, whoever sent it: an answer that had to be kept meanwhile would be
//! memory that any forged sender could ask for. So over UDP there is one such write at a time; what comes faster waits in the
//! socket's buffer, and is dropped by the system when that is full, as UDP may be.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Type};

use super::Shared;
use super::commands::Executor;
use super::connection::Connection;
use super::counters::Counters;
use super::listener::ServerError;
use super::registry::{Address, Peer};
use crate::settings::Settings;

const WAKER: Token = Token(usize::MAX);

const HEADER_BYTES: usize = 8;

/// Rule U1: what passes most networks in one piece.
const DATAGRAM_BYTES_MAX: usize = 1400;

/// No datagram is longer.
const RECEIVED_BYTES_MAX: usize = 1 << 16;

/// How long an answer may wait for room in the network; the rest of it is lost then.
const SEND_WAIT: Duration = Duration::from_millis(100);

/// The sockets of the settings' addresses for UDP.
pub(crate) fn bind(settings: &Settings) -> Result<Vec<UdpSocket>, ServerError> {
    let one = |address: &SocketAddr| bind_one(*address).map_err(|why| ServerError::Udp(*address, why));
    settings.udp_addresses.iter().map(one).collect()
}

/// What `stats conns` says of the sockets.
pub(crate) fn peers(sockets: &[UdpSocket], now_ms: u64) -> impl Iterator<Item = Peer> {
    sockets
        .iter()
        .map(move |socket| Peer::listener(socket.as_raw_fd(), Address::Udp(socket.local_addr().ok()), now_ms))
}

fn bind_one(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        // As with TCP: each family has its own socket.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// The thread that answers datagrams. Dropping it closes the sockets.
pub(crate) struct Answering {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// `None` if there are no sockets. The thread is the only writer of the counters behind the workers'.
    pub(crate) fn spawn(
        mut sockets: Vec<UdpSocket>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Option<Answering>> {
        if sockets.is_empty() {
            return Ok(None);
        }
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        for (index, socket) in sockets.iter_mut().enumerate() {
            poll.registry().register(socket, Token(index), Interest::READABLE)?;
        }
        let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut answerer = Answerer {
            sockets,
            counters: shared.counters.udp.clone(),
            shared,
            stop: stop.clone(),
            received: vec![0; RECEIVED_BYTES_MAX],
        };
        let thread =
            std::thread::Builder::new().name("hotspare-udp".to_owned()).spawn(move || answerer.run(poll))?;
        Ok(Some(Answering { addresses, stop, waker, thread: Some(thread) }))
    }

    /// Where datagrams are answered, with the ports that were taken.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // If the poller is gone the thread is, too.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Answerer {
    sockets: Vec<UdpSocket>,
    shared: Arc<Shared>,
    counters: Arc<CachePadded<Counters>>,
    stop: Arc<AtomicBool>,
    received: Vec<u8>,
}

impl Answerer {
    fn run(&mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(16);
        while !self.stop.load(Ordering::Acquire) {
            if let Err(why) = poll.poll(&mut events, None)
                && why.kind() != ErrorKind::Interrupted
            {
                panic!("the poller of UDP failed: {why}");
            }
            // One of each in turn: a flood at one address silences no other.
            let mut had_one = true;
            while had_one && !self.stop.load(Ordering::Acquire) {
                had_one =
                    (0..self.sockets.len()).fold(false, |had_one, index| self.take_one(index) | had_one);
            }
        }
    }

    /// Answers a datagram, if one waits at this socket; false if none does.
    fn take_one(&mut self, index: usize) -> bool {
        let socket = &self.sockets[index];
        let (count, sender) = match socket.recv_from(&mut self.received) {
            Ok(received) => received,
            // Others are about datagrams that were sent: a receiver that is gone.
            Err(why) => return why.kind() != ErrorKind::WouldBlock,
        };
        self.counters.bytes_read.add(count as u64);
        let descriptor = socket.as_raw_fd();
        let mut executor = Executor::new(&self.shared, &self.counters, descriptor);
        let Some((id, answer)) = answer(&self.received[..count], &mut executor) else { return true };
        let end = Instant::now() + SEND_WAIT;
        for datagram in datagrams(id, &answer) {
            if self.stop.load(Ordering::Acquire) || !send(socket, &datagram, sender, end) {
                break;
            }
            self.counters.bytes_written.add(datagram.len() as u64);
        }
        true
    }
}

/// Whether the network took it in time.
fn send(socket: &UdpSocket, datagram: &[u8], receiver: SocketAddr, end: Instant) -> bool {
    loop {
        match socket.send_to(datagram, receiver) {
            Ok(_) => return true,
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let Ok(left) = Timespec::try_from(left) else { return false };
                let mut room = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
                if !matches!(poll(&mut room, Some(&left)), Ok(1..)) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// A datagram's id and its whole answer; none if it is no request, or asks for no answer.
fn answer(datagram: &[u8], executor: &mut Executor<'_>) -> Option<(u16, Vec<u8>)> {
    let (header, requests) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let id = u16::from_be_bytes([header[0], header[1]]);
    // Rule U1: a request in several datagrams is dropped.
    if header[4..6] != [0, 1] || requests.is_empty() {
        return None;
    }
    executor.shared.cache.begin_round();
    let answer = Connection::of_datagram(&executor.shared.settings).answer_at_once(requests, executor);
    (!answer.is_empty()).then_some((id, answer))
}

/// The answer in pieces, each with its header.
fn datagrams(id: u16, answer: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let pieces = answer.chunks(DATAGRAM_BYTES_MAX - HEADER_BYTES);
    // Settings with UDP allow no item, and a connection no output, that comes near the number's end.
    let count = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
    (0..count).zip(pieces).map(move |(sequence, piece)| {
        let header = [id, sequence, count, 0].map(u16::to_be_bytes);
        [header.as_flattened(), piece].concat()
    })
}
