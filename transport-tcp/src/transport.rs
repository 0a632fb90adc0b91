//! Dialling and accepting over TCP.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hotspare::transport::{Link, LinkError, Transport};
use hotspare_tls::{Credentials, TlsSocket, server_name};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustls::{ClientConnection, ServerConnection};

use crate::handshake::{Handshake, Side};
use crate::link::TcpLink;
use crate::socket::Socket;
use crate::{Options, StartError};

/// The sockets of all links have the same token: any event means that all of them are looked at.
pub(crate) const LINK: Token = Token(1);

/// The socket that others dial.
pub(crate) const LISTENER: Token = Token(2);

/// How often the poller has told of sockets. They are registered by edge: one that had nothing has nothing until the next
/// time, and is not asked before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    links: AtomicU64,
    listener: AtomicU64,
}

impl Arrivals {
    /// The poller has told of a socket with this token.
    pub(crate) fn note(&self, token: Token) {
        match token {
            LINK => self.0.links.fetch_add(1, Ordering::Relaxed),
            LISTENER => self.0.listener.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }

    /// Of links.
    pub(crate) fn links(&self) -> u64 {
        self.0.links.load(Ordering::Relaxed)
    }

    fn listener(&self) -> u64 {
        self.0.listener.load(Ordering::Relaxed)
    }
}

pub(crate) struct TcpTransport {
    registry: Arc<Registry>,
    arrivals: Arrivals,
    listener: Option<TcpListener>,
    /// The count of arrivals at which nobody was left who had dialled.
    drained_at: Option<u64>,
    pub(crate) listen_address: Option<SocketAddr>,
    secret: Option<Vec<u8>>,
    tls: Option<Credentials>,
    frame_bytes_max: usize,
}

impl TcpTransport {
    /// Listens, if the options say so; all sockets are registered.
    pub(crate) fn open(
        options: Options,
        frame_bytes_max: usize,
        registry: Registry,
        arrivals: Arrivals,
    ) -> Result<TcpTransport, StartError> {
        if options.secret.as_ref().is_some_and(Vec::is_empty) {
            return Err(StartError::SecretEmpty);
        }
        let mut transport = TcpTransport {
            registry: Arc::new(registry),
            arrivals,
            listener: None,
            drained_at: None,
            listen_address: None,
            secret: options.secret,
            tls: options.tls,
            frame_bytes_max,
        };
        let Some(address) = options.listen else { return Ok(transport) };
        if !transport.may_talk_to(&address) {
            return Err(StartError::SecretNeeded(address));
        }
        let refused = |why| StartError::Listen(address, why);
        let mut listener = TcpListener::bind(address).map_err(refused)?;
        transport
            .registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(StartError::System)?;
        transport.listen_address = Some(listener.local_addr().map_err(refused)?);
        transport.listener = Some(listener);
        Ok(transport)
    }

    /// Off the loopback, peers must have something to prove themselves by.
    fn may_talk_to(&self, address: &SocketAddr) -> bool {
        self.secret.is_some() || self.tls.is_some() || address.ip().is_loopback()
    }

    /// A socket to a peer, encrypted if there are certificates; `address` is what was dialled.
    fn socket(&self, stream: TcpStream, address: &str, side: Side) -> std::io::Result<Socket> {
        let Some(credentials) = &self.tls else { return Ok(Socket::Plain(stream)) };
        let session = match side {
            Side::Dialler => {
                let name = server_name(address).map_err(std::io::Error::other)?;
                ClientConnection::new(credentials.client(), name).map(rustls::Connection::from)
            }
            Side::Listener => ServerConnection::new(credentials.server()).map(rustls::Connection::from),
        };
        Ok(Socket::Tls(Box::new(TlsSocket::new(stream, session.map_err(std::io::Error::other)?))))
    }

    fn link(
        &self,
        mut stream: TcpStream,
        address: String,
        side: Side,
    ) -> Result<Box<dyn Link>, std::io::Error> {
        self.registry.register(&mut stream, LINK, Interest::READABLE | Interest::WRITABLE)?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| std::io::Error::other(error.to_string()))?;
        let handshake = Handshake::new(side, self.secret.clone(), nonce);
        let connected = side == Side::Listener;
        if connected {
            // Latency matters more than packets; a system that refuses is as good.
            let _ = stream.set_nodelay(true);
        }
        let socket = self.socket(stream, &address, side)?;
        let arrivals = self.arrivals.clone();
        Ok(Box::new(TcpLink::new(socket, address, connected, handshake, self.frame_bytes_max, arrivals)))
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
        if !self.may_talk_to(&resolved) {
            let why = "an address other than loopback needs a replication secret or certificates";
            return Err(LinkError::Unreachable(why.to_owned()));
        }
        let stream = TcpStream::connect(resolved).map_err(unreachable)?;
        self.link(stream, address.to_owned(), Side::Dialler).map_err(unreachable)
    }

    fn poll_accept(&mut self, _cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        let arrivals = self.arrivals.listener();
        if self.drained_at == Some(arrivals) {
            return Poll::Pending;
        }
        loop {
            let Some(listener) = &self.listener else { return Poll::Pending };
            match listener.accept() {
                Ok((stream, address)) => match self.link(stream, address.to_string(), Side::Listener) {
                    Ok(link) => return Poll::Ready(link),
                    Err(why) => tracing::warn!(%why, "dropped a replication connection"),
                },
                Err(why) if why.kind() == ErrorKind::WouldBlock => {
                    self.drained_at = Some(arrivals);
                    return Poll::Pending;
                }
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
