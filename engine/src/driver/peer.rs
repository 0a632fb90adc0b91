//! One link to a peer, with what is being sent over it: on the live channel, unless another is named.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::replication::message::Message;
use crate::replication::transport::{Channel, Link, LinkCaps, LinkError, PeerIdentity};

/// Frames taken from one peer in one turn, so that none starves the others.
pub(crate) const FRAMES_PER_TURN_MAX: usize = 64;

/// How long a peer may take to say who it is, in milliseconds.
pub(crate) const HELLO_TIMEOUT_MS: u64 = 2_000;

/// A link whose outcomes are plain values.
pub(crate) struct Peer {
    link: Box<dyn Link>,
}

/// What came from a peer.
pub(crate) enum Received {
    Frame(Bytes),
    Nothing,
    /// The link is over; why, unless it was closed in an orderly way.
    Ended(Option<LinkError>),
}

impl Peer {
    pub(crate) fn new(link: Box<dyn Link>) -> Peer {
        Peer { link }
    }

    pub(crate) fn identity(&self) -> &PeerIdentity {
        self.link.peer()
    }

    /// What this end may send on.
    pub(crate) fn caps(&self) -> LinkCaps {
        self.link.caps()
    }

    pub(crate) fn receive(&mut self, cx: &mut Context<'_>) -> Received {
        self.receive_on(Channel::Live, cx)
    }

    pub(crate) fn receive_on(&mut self, channel: Channel, cx: &mut Context<'_>) -> Received {
        match self.link.poll_recv(channel, cx) {
            Poll::Pending => Received::Nothing,
            Poll::Ready(Ok(Some(frame))) => Received::Frame(frame),
            Poll::Ready(Ok(None)) => Received::Ended(None),
            Poll::Ready(Err(error)) => Received::Ended(Some(error)),
        }
    }

    /// Whether a frame may be sent now.
    pub(crate) fn is_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        self.is_ready_on(Channel::Live, cx)
    }

    pub(crate) fn is_ready_on(&mut self, channel: Channel, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        match self.link.poll_ready(channel, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(result) => result.map(|()| true),
        }
    }

    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.send_on(Channel::Live, frame)
    }

    pub(crate) fn send_on(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        self.link.send(channel, frame)
    }

    /// Pushes out what was sent; whether all of it has gone.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        match self.link.poll_flush(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(result) => result.map(|()| true),
        }
    }

    /// Sends a last frame, as far as that goes without waiting.
    pub(crate) fn say_last(&mut self, frame: Bytes, cx: &mut Context<'_>) {
        // The link closes next, whatever comes of this.
        if matches!(self.is_ready(cx), Ok(true)) && self.send(frame).is_ok() {
            let _ = self.flush(cx);
        }
    }

    /// Sends one message as the answer to a `Hello`, frame number 0.
    pub(crate) fn answer(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        self.say_last(message.encode(0), cx);
    }
}
