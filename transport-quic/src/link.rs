//! One QUIC connection that carries frames: a stream for each channel, datagrams for hints.
//!
//! Lives here: which channel goes where, saying goodbye. Not here: accepting and dialling (see `transport`), the bytes of
//! a stream (see `stream`), what frames mean (the engine's).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hotspare::transport::{Channel, Link, LinkCaps, LinkError, PeerIdentity};
use hotspare_tls::peer_certificate;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;

use crate::runtime::{Spawner, Task, within};
use crate::stream::{Incoming, Outgoing, failure};

/// Bytes read in one go.
const READ_BYTES: usize = 64 << 10;

/// How long what was sent before the end may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The reason of an end that is nobody's fault.
const CLOSED: VarInt = VarInt::from_u32(0);

/// What the stream for full copies begins with.
const FULL_COPIES: u8 = 2;

/// How urgent full copies are; all else is at 0, and goes first.
const FULL_COPIES_PRIORITY: i32 = -1;

type Coming<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection with its stream, both ends known to each other.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// For full copies, if the peer takes such a stream: one that dialled, and is not older than these streams.
    pub(crate) bulk: Option<SendStream>,
}

enum State {
    Dialling(Task<Result<Opened, LinkError>>),
    Open(Box<Streams>),
    Failed(LinkError),
}

struct Streams {
    connection: Connection,
    live_out: Outgoing,
    live_in: Incoming,
    bulk_out: Option<Outgoing>,
    bulk_in: BulkIn,
    next_hint: Coming<Result<Bytes, ConnectionError>>,
    /// Waits for room among those that have yet to be sent.
    hint_out: Option<Coming<()>>,
}

/// Full copies from the peer.
enum BulkIn {
    Awaited(Coming<Result<RecvStream, LinkError>>),
    Open(Incoming),
    /// The link ends: that is told on the live channel, behind what has arrived there.
    Ended,
}

pub(crate) struct QuicLink {
    state: State,
    peer: PeerIdentity,
    frame_bytes_max: usize,
    read_buffer: Box<[u8]>,
    spawner: Spawner,
}

/// Where the path has become too narrow for it, or there are no datagrams, it is lost.
async fn send_hint(connection: Connection, frame: Bytes) {
    let _ = connection.send_datagram_wait(frame).await;
}

async fn next_hint(connection: Connection) -> Result<Bytes, ConnectionError> {
    connection.read_datagram().await
}

/// The stream on which the peer sends full copies, once it does.
async fn full_copies(connection: Connection) -> Result<RecvStream, LinkError> {
    let mut stream = connection.accept_uni().await.map_err(|why| failure(&why))?;
    let mut kind = [0];
    stream.read_exact(&mut kind).await.map_err(|why| LinkError::Broken(why.to_string()))?;
    match kind {
        [FULL_COPIES] => Ok(stream),
        [other] => Err(LinkError::Handshake(format!("it opened another stream, of unknown kind {other}"))),
    }
}

impl Streams {
    fn new(opened: Opened, frame_bytes_max: usize) -> Streams {
        let Opened { connection, send, recv, bulk } = opened;
        let bulk_out = bulk.map(|stream| {
            // It was opened a moment ago; if it is gone already so is the connection.
            let _ = stream.set_priority(FULL_COPIES_PRIORITY);
            let mut outgoing = Outgoing::new(stream);
            outgoing.push(Bytes::from_static(&[FULL_COPIES]));
            outgoing
        });
        Streams {
            live_out: Outgoing::new(send),
            live_in: Incoming::new(recv, frame_bytes_max),
            bulk_out,
            bulk_in: BulkIn::Awaited(Box::pin(full_copies(connection.clone()))),
            next_hint: Box::pin(next_hint(connection.clone())),
            hint_out: None,
            connection,
        }
    }

    fn outgoing(&mut self, channel: Channel) -> Option<&mut Outgoing> {
        match channel {
            Channel::Live => Some(&mut self.live_out),
            Channel::Bulk => self.bulk_out.as_mut(),
            Channel::Hint => None,
        }
    }

    /// Until the last hint has gone on its way.
    fn poll_hint_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(hint) = &mut self.hint_out {
            ready!(hint.as_mut().poll(cx));
            self.hint_out = None;
        }
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let live = self.live_out.poll_write(cx)?;
        let bulk = self.bulk_out.as_mut().map_or(Poll::Ready(Ok(())), |bulk| bulk.poll_write(cx))?;
        match (live, bulk, self.poll_hint_out(cx)) {
            (Poll::Ready(()), Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn poll_frame(
        &mut self,
        channel: Channel,
        frame_bytes_max: usize,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        match channel {
            Channel::Live => self.live_in.poll_frame(buffer, cx),
            Channel::Bulk => match ready!(self.poll_bulk(frame_bytes_max, buffer, cx)) {
                Ok(Some(frame)) => Poll::Ready(Ok(Some(frame))),
                Err(wrong @ (LinkError::Frame(_) | LinkError::Handshake(_))) => Poll::Ready(Err(wrong)),
                Ok(None) | Err(_) => {
                    self.bulk_in = BulkIn::Ended;
                    Poll::Pending
                }
            },
            Channel::Hint => {
                let Ok(hint) = ready!(self.next_hint.as_mut().poll(cx)) else {
                    // As with full copies.
                    self.next_hint = Box::pin(std::future::pending());
                    return Poll::Pending;
                };
                self.next_hint = Box::pin(next_hint(self.connection.clone()));
                Poll::Ready(Ok(Some(hint)))
            }
        }
    }

    fn poll_bulk(
        &mut self,
        frame_bytes_max: usize,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        if let BulkIn::Awaited(stream) = &mut self.bulk_in {
            let stream = ready!(stream.as_mut().poll(cx))?;
            self.bulk_in = BulkIn::Open(Incoming::new(stream, frame_bytes_max));
        }
        match &mut self.bulk_in {
            BulkIn::Open(bulk) => bulk.poll_frame(buffer, cx),
            BulkIn::Awaited(_) | BulkIn::Ended => Poll::Pending,
        }
    }
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
        let state = State::Open(Box::new(Streams::new(opened, frame_bytes_max)));
        let mut link = QuicLink::new(state, peer, frame_bytes_max, spawner);
        link.learn_peer();
        link
    }

    fn new(state: State, peer: PeerIdentity, frame_bytes_max: usize, spawner: Spawner) -> QuicLink {
        QuicLink { state, peer, frame_bytes_max, read_buffer: vec![0; READ_BYTES].into(), spawner }
    }

    fn learn_peer(&mut self) {
        let State::Open(streams) = &self.state else { return };
        let chain = streams.connection.peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        self.peer.certificate = chain.and_then(|chain| peer_certificate(&chain));
        self.peer.proven = self.peer.certificate.is_some();
    }

    /// Runs what needs the streams, once there are any. An error ends the link.
    fn with_streams<T>(
        &mut self,
        cx: &mut Context<'_>,
        run: impl FnOnce(&mut Streams, &mut [u8], &mut Context<'_>) -> Poll<Result<T, LinkError>>,
    ) -> Poll<Result<T, LinkError>> {
        if let State::Dialling(dialling) = &mut self.state {
            let stopped = || Err(LinkError::Broken("this node stops".to_owned()));
            match ready!(Pin::new(dialling).poll(cx)).unwrap_or_else(stopped) {
                Ok(opened) => {
                    self.state = State::Open(Box::new(Streams::new(opened, self.frame_bytes_max)));
                    self.learn_peer();
                }
                Err(why) => self.state = State::Failed(why),
            }
        }
        let outcome = match &mut self.state {
            State::Open(streams) => ready!(run(streams, &mut self.read_buffer, cx)),
            State::Failed(why) => Err(why.clone()),
            State::Dialling(_) => return Poll::Pending,
        };
        if let Err(why) = &outcome {
            self.state = State::Failed(why.clone());
        }
        Poll::Ready(outcome)
    }
}

impl Link for QuicLink {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn caps(&self) -> LinkCaps {
        let mut caps = LinkCaps::default();
        if let State::Open(streams) = &self.state {
            caps.bulk = streams.bulk_out.is_some();
            caps.hint_bytes_max = streams.connection.max_datagram_size();
        }
        caps
    }

    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.with_streams(cx, |streams, _, cx| match streams.outgoing(channel) {
            Some(outgoing) => outgoing.poll_ready(cx),
            None => streams.poll_hint_out(cx).map(Ok),
        })
    }

    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        let streams = match &mut self.state {
            State::Open(streams) => streams,
            State::Failed(why) => return Err(why.clone()),
            State::Dialling(_) => return Err(LinkError::Broken("it is not connected yet".to_owned())),
        };
        match streams.outgoing(channel) {
            Some(outgoing) => outgoing.push(frame),
            None => streams.hint_out = Some(Box::pin(send_hint(streams.connection.clone(), frame))),
        }
        Ok(())
    }

    /// What the connection holds by then still arrives if the link is dropped, unless the peer takes over a second.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.with_streams(cx, |streams, _, cx| streams.poll_write(cx))
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        let frame_bytes_max = self.frame_bytes_max;
        self.with_streams(cx, |streams, buffer, cx| streams.poll_frame(channel, frame_bytes_max, buffer, cx))
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        let closed = State::Failed(LinkError::Broken("it was closed".to_owned()));
        let State::Open(streams) = std::mem::replace(&mut self.state, closed) else { return };
        let Streams { connection, mut live_out, live_in, bulk_out, .. } = *streams;
        drop((live_in, bulk_out));
        // An end that was told already is as good.
        let _ = live_out.stream.finish();
        self.spawner.detach(async move {
            // Until all has arrived, or the peer wants no more.
            within(LAST_WORDS, live_out.stream.stopped()).await;
            connection.close(CLOSED, b"closed");
        });
    }
}
