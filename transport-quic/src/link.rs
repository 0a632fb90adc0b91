//! One QUIC connection that carries frames.
//!
//! Lives here: bounded output, cutting input into frames, saying goodbye. Not here: accepting and dialling (see
//! `transport`), what frames mean (the engine's).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hotspare::transport::{FrameSplitter, Link, LinkError, PeerIdentity};
use hotspare_tls::advice::advice_on_alert;
use hotspare_tls::peer_certificate;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use rustls::pki_types::CertificateDer;

use crate::limits::UNSENT_BYTES_MAX;
use crate::runtime::{Spawner, Task, within};

/// Bytes read in one go.
const READ_BYTES: usize = 64 << 10;

/// How long what was sent before the end may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The reason of an end that is nobody's fault.
const CLOSED: VarInt = VarInt::from_u32(0);

/// A connection with its stream, both ends known to each other.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

enum State {
    Dialling(Task<Result<Opened, LinkError>>),
    Open(Opened),
    Failed(LinkError),
}

/// 1. `unsent_bytes` is the sum of `unsent`'s lengths.
pub(crate) struct QuicLink {
    state: State,
    peer: PeerIdentity,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    splitter: FrameSplitter,
    read_buffer: Box<[u8]>,
    /// Whether the peer has said its last.
    has_ended: bool,
    spawner: Spawner,
}

impl QuicLink {
    pub(crate) fn dialled(
        dialling: Task<Result<Opened, LinkError>>,
        address: &str,
        frame_bytes_max: usize,
        spawner: Spawner,
    ) -> QuicLink {
        QuicLink::new(State::Dialling(dialling), PeerIdentity::unproven(address), frame_bytes_max, spawner)
    }

    pub(crate) fn accepted(opened: Opened, frame_bytes_max: usize, spawner: Spawner) -> QuicLink {
        let address = opened.connection.remote_address().to_string();
        let peer = PeerIdentity::unproven(address);
        let mut link = QuicLink::new(State::Open(opened), peer, frame_bytes_max, spawner);
        link.learn_peer();
        link
    }

    fn new(state: State, peer: PeerIdentity, frame_bytes_max: usize, spawner: Spawner) -> QuicLink {
        QuicLink {
            state,
            peer,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            splitter: FrameSplitter::new(frame_bytes_max),
            read_buffer: vec![0; READ_BYTES].into(),
            has_ended: false,
            spawner,
        }
    }

    fn learn_peer(&mut self) {
        let State::Open(opened) = &self.state else { return };
        let chain = opened.connection.peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        self.peer.certificate = chain.and_then(|chain| peer_certificate(&chain));
        self.peer.proven = self.peer.certificate.is_some();
    }

    fn fail<T>(&mut self, why: LinkError) -> Result<T, LinkError> {
        self.state = State::Failed(why.clone());
        Err(why)
    }

    /// The stream, once there is one.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if let State::Dialling(dialling) = &mut self.state {
            let stopped = || Err(LinkError::Broken("this node stops".to_owned()));
            match ready!(Pin::new(dialling).poll(cx)).unwrap_or_else(stopped) {
                Ok(opened) => {
                    self.state = State::Open(opened);
                    self.learn_peer();
                }
                Err(why) => self.state = State::Failed(why),
            }
        }
        match &self.state {
            State::Failed(why) => Poll::Ready(Err(why.clone())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Hands over what the connection takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let State::Open(opened) = &mut self.state else { return Poll::Ready(Ok(())) };
        while let Some(front) = self.unsent.front_mut() {
            match ready!(Pin::new(&mut opened.send).poll_write(cx, front)) {
                Ok(count) => {
                    self.unsent_bytes -= count;
                    front.advance(count);
                    if front.is_empty() {
                        self.unsent.pop_front();
                    }
                }
                Err(why) => return Poll::Ready(self.fail(write_failure(&why))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            match self.splitter.next_frame() {
                Ok(Some(frame)) => return Poll::Ready(Ok(Some(frame))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(self.fail(LinkError::Frame(error))),
            }
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            let State::Open(opened) = &mut self.state else { return Poll::Ready(Ok(None)) };
            match ready!(opened.recv.poll_read(cx, &mut self.read_buffer)) {
                Ok(0) if self.splitter.is_mid_frame() => {
                    return Poll::Ready(self.fail(LinkError::Broken("a frame was cut short".to_owned())));
                }
                Ok(0) => self.has_ended = true,
                Ok(count) => self.splitter.push(&self.read_buffer[..count]),
                Err(why) => return Poll::Ready(self.fail(read_failure(&why))),
            }
        }
    }
}

impl Link for QuicLink {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_open(cx))?;
        if self.unsent_bytes >= UNSENT_BYTES_MAX {
            match self.poll_write(cx) {
                Poll::Pending if self.unsent_bytes >= UNSENT_BYTES_MAX => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(result) => result?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        if let State::Failed(why) = &self.state {
            return Err(why.clone());
        }
        self.unsent_bytes += frame.len();
        self.unsent.push_back(frame);
        Ok(())
    }

    /// What the connection holds by then still arrives if the link is dropped, unless the peer takes over a second.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        ready!(self.poll_open(cx))?;
        self.poll_write(cx)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        ready!(self.poll_open(cx))?;
        self.poll_frame(cx)
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        let closed = State::Failed(LinkError::Broken("it was closed".to_owned()));
        let State::Open(Opened { connection, mut send, recv }) = std::mem::replace(&mut self.state, closed)
        else {
            return;
        };
        drop(recv);
        // An end that was told already is as good.
        let _ = send.finish();
        self.spawner.detach(async move {
            // Until all has arrived, or the peer wants no more.
            within(LAST_WORDS, send.stopped()).await;
            connection.close(CLOSED, b"closed");
        });
    }
}

/// Why a connection ended, in the engine's words.
pub(crate) fn failure(why: &ConnectionError) -> LinkError {
    let code = match why {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        ConnectionError::VersionMismatch => return LinkError::Handshake(why.to_string()),
        _ => return LinkError::Broken(why.to_string()),
    };
    // The codes from 0x100 on are TLS alerts.
    match u8::try_from(code & 0xff) {
        Ok(alert) if code >> 8 == 1 => LinkError::Handshake(match advice_on_alert(alert.into()) {
            Some(advice) => format!("{why}: {advice}"),
            None => why.to_string(),
        }),
        _ => LinkError::Broken(why.to_string()),
    }
}

fn write_failure(why: &WriteError) -> LinkError {
    match why {
        WriteError::ConnectionLost(why) => failure(why),
        _ => LinkError::Broken(why.to_string()),
    }
}

fn read_failure(why: &ReadError) -> LinkError {
    match why {
        ReadError::ConnectionLost(why) => failure(why),
        _ => LinkError::Broken(why.to_string()),
    }
}
