//! What replication asks of a transport: frames to a peer, each channel in its order, without naming a runtime.
//!
//! Lives here: the traits, and what they promise. Not here: any implementation (see `memory` for the one in memory
//! and the transport crates for real ones), frames' contents, reconnecting (the driver's).
//!
//! A transport is driven by polls with a [`Context`], so that it works from a plain thread as from any async
//! runtime. Every poll that returns `Pending` has arranged for the context's waker to be called.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;

#[cfg(any(test, feature = "testing"))]
pub use super::conformance;
pub use super::frame::{FrameError, FrameSplitter, HEADER_BYTES};
pub use super::memory::{MemoryNetwork, MemoryTransport};

/// Who is at the other end, as far as the transport knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its address, for logs and status.
    pub address: String,
    /// Whether it proved that it belongs to the group (a shared secret, a certificate).
    pub proven: bool,
    /// The certificate by which it did, if it was by one.
    pub certificate: Option<PeerCertificate>,
}

impl PeerIdentity {
    /// A peer of which no more is known than its address.
    pub fn unproven(address: impl Into<String>) -> PeerIdentity {
        PeerIdentity { address: address.into(), proven: false, certificate: None }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        match &self.certificate {
            Some(certificate) => write!(f, " ({certificate})"),
            None => Ok(()),
        }
    }
}

/// What a log says of a peer's certificate. The transport has checked it against the group's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its subject, as in `CN=cache-1`; shown, never compared.
    pub subject: String,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
}

impl fmt::Display for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, sha256 ", self.subject)?;
        self.fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The address can't be reached, or is none.
    Unreachable(String),
    /// The peer is no Hotspare node, or failed to prove itself.
    Handshake(String),
    /// The bytes that came are no frame.
    Frame(FrameError),
    /// The link broke.
    Broken(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Unreachable(why) => write!(f, "unreachable: {why}"),
            LinkError::Handshake(why) => write!(f, "handshake failed: {why}"),
            LinkError::Frame(error) => error.fmt(f),
            LinkError::Broken(why) => write!(f, "link broken: {why}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// What a frame travels on. A channel that nobody reads, or that is full, holds up no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// New writes, and all that is on no other channel: whole and in order. Every link has it.
    Live,
    /// Full copies: whole and in order among themselves. It yields to `Live` where the two share a path.
    Bulk,
    /// Hints: each frame arrives whole or not at all, and may overtake others.
    Hint,
}

impl Channel {
    /// Every channel there is, the most urgent first.
    pub const ALL: [Channel; 3] = [Channel::Live, Channel::Bulk, Channel::Hint];
}

/// Which channels one end of a link may send on, beside [`Channel::Live`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCaps {
    /// Whether [`Channel::Bulk`] is one of its own.
    pub bulk: bool,
    /// The longest frame that [`Channel::Hint`] takes now, header included, in bytes; `None` without such a channel.
    pub hint_bytes_max: Option<usize>,
}

impl LinkCaps {
    /// Whether frames may be sent on this channel.
    pub fn has(self, channel: Channel) -> bool {
        match channel {
            Channel::Live => true,
            Channel::Bulk => self.bulk,
            Channel::Hint => self.hint_bytes_max.is_some(),
        }
    }
}

/// Frames to and from one peer, until the link ends. It may still be connecting.
///
/// One with nothing but [`Channel::Live`] need not look at the channels it is given, except that nothing ever comes on
/// another: nobody sends on a channel that [`Link::caps`] does not name.
pub trait Link: Send {
    /// Who is at the other end. For a link that was dialled it is proven once the first frame has come.
    fn peer(&self) -> &PeerIdentity;

    /// What this end may send on, once the first frame has come. A change of the path may change the longest hint.
    /// Default: `Live` alone.
    fn caps(&self) -> LinkCaps {
        LinkCaps::default()
    }

    /// Ready when another frame may be sent on this channel: a slow peer pushes back here, and the link's own buffer is
    /// bounded. Hints too may be made to wait for room, and are lost where they were sent nevertheless.
    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// Takes a frame to send. Only after `poll_ready` was ready, once for each.
    ///
    /// # Errors
    /// The link has ended.
    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError>;

    /// Ready when everything sent has left this process.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;

    /// The next frame of this channel; `None` when the peer closed between two frames, which is told on
    /// [`Channel::Live`] only.
    fn poll_recv(&mut self, channel: Channel, cx: &mut Context<'_>)
    -> Poll<Result<Option<Bytes>, LinkError>>;
}

/// Where links come from. Dropping a link closes it.
pub trait Transport: Send {
    /// Begins to connect; the link reports a failure when it is polled.
    ///
    /// # Errors
    /// The address can't even be tried.
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError>;

    /// The next link from a peer that dialled. `Pending` for ever on a transport that does not listen.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>>;

    /// Where peers dial this node, if it listens.
    fn local_address(&self) -> Option<String>;
}
