//! Dialling and accepting over TCP.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::task::{Context, Poll};

use hotspare::transport::{Link, LinkError, Transport};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::handshake::{Handshake, Side};
use crate::link::TcpLink;

/// Every socket but the waker has the same token: any event means that all links are looked at.
pub(crate) const SOCKET: Token = Token(1);

pub(crate) struct TcpTransport {
    pub(crate) registry: Arc<Registry>,
    pub(crate) listener: Option<TcpListener>,
    pub(crate) listen_address: Option<SocketAddr>,
    pub(crate) secret: Option<Vec<u8>>,
    pub(crate) frame_bytes_max: usize,
}

impl TcpTransport {
    fn link(
        &self,
        mut stream: TcpStream,
        address: String,
        side: Side,
    ) -> Result<Box<dyn Link>, std::io::Error> {
        self.registry.register(&mut stream, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| std::io::Error::other(error.to_string()))?;
        let handshake = Handshake::new(side, self.secret.clone(), nonce);
        let connected = side == Side::Listener;
        if connected {
            // Latency matters more than packets; a system that refuses is as good.
            let _ = stream.set_nodelay(true);
        }
        Ok(Box::new(TcpLink::new(stream, address, connected, handshake, self.frame_bytes_max)))
    }
}

impl Transport for TcpTransport {
    /// An address is `HOST:PORT`; a name is looked up, which may block for as long as the system's resolver does.
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        let unreachable = |why: std::io::Error| LinkError::Unreachable(why.to_string());
        let resolved = address.to_socket_addrs().map_err(unreachable)?.next();
        let Some(resolved) = resolved else {
            return Err(LinkError::Unreachable("the name has no address".to_owned()));
        };
        if self.secret.is_none() && !resolved.ip().is_loopback() {
            let why = "an address other than loopback needs a replication secret";
            return Err(LinkError::Unreachable(why.to_owned()));
        }
        let stream = TcpStream::connect(resolved).map_err(unreachable)?;
        self.link(stream, address.to_owned(), Side::Dialler).map_err(unreachable)
    }

    fn poll_accept(&mut self, _cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        loop {
            let Some(listener) = &self.listener else { return Poll::Pending };
            match listener.accept() {
                Ok((stream, address)) => match self.link(stream, address.to_string(), Side::Listener) {
                    Ok(link) => return Poll::Ready(link),
                    Err(why) => tracing::warn!(%why, "dropped a replication connection"),
                },
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => {
                    // Out of descriptors, most likely: the next turn tries again.
                    tracing::warn!(%why, "can't accept a replication connection");
                    return Poll::Pending;
                }
            }
        }
    }

    fn local_address(&self) -> Option<String> {
        self.listen_address.map(|address| address.to_string())
    }
}
