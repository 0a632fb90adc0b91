//! One TCP connection that carries frames.
//!
//! Lives here: connecting, the handshake, bounded output, cutting input into frames. Not here: accepting and dialling
//! (see `transport`), encryption (see `socket`), what frames mean (the engine's).

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hotspare::transport::{Channel, FrameSplitter, Link, LinkError, PeerIdentity};
use hotspare_tls::advice::advice;

use crate::handshake::Handshake;
use crate::socket::Socket;
use crate::transport::Arrivals;

/// Unsent bytes above which a link pushes back. One frame more may be taken.
const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Bytes read in one system call.
const READ_BYTES: usize = 64 << 10;

/// Pieces in one `writev`.
const SLICES_MAX: usize = 64;

/// 1. `unsent_bytes` is the sum of `unsent`'s lengths.
/// 2. No frame is taken or given before the handshake is done.
pub(crate) struct TcpLink {
    socket: Socket,
    peer: PeerIdentity,
    connected: bool,
    handshake: Handshake,
    /// Whether `peer` says all that will ever be known.
    is_known: bool,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    splitter: FrameSplitter,
    read_buffer: Box<[u8]>,
    arrivals: Arrivals,
    /// The count of arrivals at which the socket had nothing left.
    drained_at: Option<u64>,
    failure: Option<LinkError>,
}

impl TcpLink {
    pub(crate) fn new(
        socket: Socket,
        address: String,
        connected: bool,
        handshake: Handshake,
        frame_bytes_max: usize,
        arrivals: Arrivals,
    ) -> TcpLink {
        TcpLink {
            socket,
            peer: PeerIdentity::unproven(address),
            connected,
            handshake,
            is_known: false,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            splitter: FrameSplitter::new(frame_bytes_max),
            read_buffer: vec![0; READ_BYTES].into(),
            arrivals,
            drained_at: None,
            failure: None,
        }
    }

    /// Brings the link as far as it goes: connected, shaken hands. `Ok(true)` when frames may pass.
    fn advance(&mut self) -> Result<bool, LinkError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = self.try_advance();
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    fn try_advance(&mut self) -> Result<bool, LinkError> {
        if !self.connected {
            if let Some(error) = self.socket.tcp().take_error().unwrap_or_else(Some) {
                return Err(unreachable(&error));
            }
            match self.socket.tcp().peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::WouldBlock) => {
                    return Ok(false);
                }
                Err(error) => return Err(unreachable(&error)),
            }
            // Latency matters more than packets; a system that refuses is as good.
            let _ = self.socket.tcp().set_nodelay(true);
        }
        while !self.handshake.is_done() {
            self.queue_handshake();
            self.write()?;
            let wanted = self.handshake.bytes_wanted().min(self.read_buffer.len());
            match self.socket.read(&mut self.read_buffer[..wanted]) {
                Ok(0) => return Err(LinkError::Handshake(self.handshake.closed().to_owned())),
                Ok(count) => {
                    let taken = self.handshake.take(&self.read_buffer[..count]);
                    self.queue_handshake();
                    if let Err(why) = taken {
                        // Let the other end see this end's mode, so that its log says why, too. What it has said besides
                        // is taken first: a socket that closes on that would take this end's words along.
                        let _ = self.write();
                        let _ = self.socket.read(&mut self.read_buffer);
                        return Err(LinkError::Handshake(why.to_owned()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        if !self.is_known {
            // The last word of the handshake goes out at once: the other end waits for it.
            self.write()?;
            self.peer.certificate = self.socket.peer_certificate();
            self.peer.proven = self.handshake.proves_peer() || self.peer.certificate.is_some();
            self.is_known = true;
        }
        Ok(true)
    }

    fn queue_handshake(&mut self) {
        let output = self.handshake.take_output();
        if !output.is_empty() {
            self.unsent_bytes += output.len();
            self.unsent.push_back(output.into());
        }
    }

    /// Writes what the socket takes; whether everything has gone.
    fn write(&mut self) -> Result<bool, LinkError> {
        while self.unsent_bytes > 0 {
            let slices: Vec<IoSlice<'_>> =
                self.unsent.iter().take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
            match self.socket.write_vectored(&slices) {
                Ok(0) => return Err(LinkError::Broken("the socket takes nothing".to_owned())),
                Ok(count) => self.forget_sent(count),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        match self.socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }

    fn forget_sent(&mut self, mut count: usize) {
        self.unsent_bytes -= count;
        while count > 0 {
            let front = self.unsent.front_mut().expect("what was sent was queued");
            let part = count.min(front.len());
            front.advance(part);
            count -= part;
            if front.is_empty() {
                self.unsent.pop_front();
            }
        }
    }

    fn receive(&mut self) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            match self.splitter.next_frame() {
                Ok(Some(frame)) => return Poll::Ready(Ok(Some(frame))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(LinkError::Frame(error))),
            }
            let arrivals = self.arrivals.links();
            if self.drained_at == Some(arrivals) {
                return Poll::Pending;
            }
            match self.socket.read(&mut self.read_buffer) {
                Ok(0) if self.splitter.is_mid_frame() => {
                    return Poll::Ready(Err(LinkError::Broken("a frame was cut short".to_owned())));
                }
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(count) => self.splitter.push(&self.read_buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drained_at = Some(arrivals);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(broken(&error))),
            }
        }
    }
}

fn unreachable(error: &std::io::Error) -> LinkError {
    LinkError::Unreachable(match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "nothing listens there over TCP ({error}); if that node runs, look at its --replication-listen, and whether \
             both have the same --transport"
        ),
        _ => error.to_string(),
    })
}

fn broken(error: &std::io::Error) -> LinkError {
    match error.kind() {
        // TLS says so: a certificate, an alert, or no TLS at all.
        ErrorKind::InvalidData => {
            let why = error.get_ref().and_then(|why| why.downcast_ref::<rustls::Error>());
            LinkError::Handshake(match why.and_then(advice) {
                Some(advice) => format!("{error}: {advice}"),
                None => error.to_string(),
            })
        }
        _ => LinkError::Broken(error.to_string()),
    }
}

// The thread that polls these links polls all of them after every event of the poller with which each socket is
// registered, so no waker is kept.
impl Link for TcpLink {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn poll_ready(&mut self, _channel: Channel, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self.advance() {
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
            Ok(true) if self.unsent_bytes >= UNSENT_BYTES_MAX => match self.write() {
                Ok(_) if self.unsent_bytes >= UNSENT_BYTES_MAX => Poll::Pending,
                Ok(_) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(error)),
            },
            Ok(true) => Poll::Ready(Ok(())),
        }
    }

    fn send(&mut self, _channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        self.unsent_bytes += frame.len();
        self.unsent.push_back(frame);
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self.advance().and_then(|open| Ok(open && self.write()?)) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        if channel != Channel::Live {
            return Poll::Pending;
        }
        match self.advance() {
            Ok(true) => self.receive(),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
