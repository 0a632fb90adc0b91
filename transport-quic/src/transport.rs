//! Dialling and accepting over QUIC.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hotspare::transport::{Link, LinkError, Transport};
use hotspare_tls::{Credentials, server_name};
use quinn::{Connection, Endpoint, Incoming, SendStream, ServerConfig};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{self, HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX};
use crate::link::{Opened, QuicLink};
use crate::runtime::{Spawner, Task, look_up, within};
use crate::stream::failure;
use crate::{Options, StartError};

/// What the stream that a dialler opens begins with: that it carries all frames, but for those with a channel of their own.
/// It also shows the listener that there is a stream before the first frame has come.
const ALL_FRAMES: u8 = 1;

const SILENT: &str = "nothing answered over QUIC (UDP) in time; if that node runs, look at its --replication-listen, whether both \
    have the same --transport, and whether UDP gets through";

/// Where links are dialled from: an end of QUIC for each family of addresses that this machine has.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    pub(crate) v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    credentials: Credentials,
    spawner: Spawner,
}

const ANY_V4: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);
const ANY_V6: (Ipv6Addr, u16) = (Ipv6Addr::UNSPECIFIED, 0);

impl Dialler {
    fn new(credentials: Credentials, spawner: Spawner) -> std::io::Result<Dialler> {
        let (v4, v6) = (spawner.bind(ANY_V4.into(), None), spawner.bind(ANY_V6.into(), None));
        if let (Err(_), Err(why)) = (&v4, &v6) {
            return Err(std::io::Error::new(why.kind(), why.to_string()));
        }
        Ok(Dialler { v4: v4.ok(), v6: v6.ok(), credentials, spawner })
    }

    pub(crate) fn rebind(&self) -> std::io::Result<()> {
        let ends = [(&self.v4, ANY_V4.into()), (&self.v6, ANY_V6.into())];
        ends.into_iter()
            .filter_map(|(endpoint, any)| Some((endpoint.as_ref()?, any)))
            .try_for_each(|(endpoint, any)| self.spawner.rebind(endpoint, any))
    }

    async fn dial(self, address: String) -> Result<Opened, LinkError> {
        let unreachable = |why: String| LinkError::Unreachable(why);
        let name = server_name(&address).map_err(unreachable)?;
        let resolved = look_up(&address).await.map_err(|why| unreachable(why.to_string()))?;
        let resolved = resolved.ok_or_else(|| unreachable("the name has no address".to_owned()))?;
        let endpoint = if resolved.is_ipv6() { &self.v6 } else { &self.v4 };
        let endpoint =
            endpoint.as_ref().ok_or_else(|| unreachable("this machine has no such address".to_owned()))?;
        let config = limits::client(&self.credentials).map_err(|why| unreachable(why.to_string()))?;
        let connecting = endpoint
            .connect_with(config, resolved, &name.to_str())
            .map_err(|why| unreachable(why.to_string()))?;
        let connection = connecting.await.map_err(|why| failure(&why))?;
        let (mut send, recv) = connection.open_bi().await.map_err(|why| failure(&why))?;
        send.write_all(&[ALL_FRAMES]).await.map_err(|why| LinkError::Broken(why.to_string()))?;
        Ok(Opened { connection, send, recv, bulk: None })
    }
}

pub(crate) struct QuicTransport {
    pub(crate) listen_address: Option<SocketAddr>,
    pub(crate) dialler: Dialler,
    listener: Option<Endpoint>,
    accepted: Receiver<(Opened, OwnedSemaphorePermit)>,
    _accepting: Option<Task<()>>,
    frame_bytes_max: usize,
    spawner: Spawner,
}

impl QuicTransport {
    /// Listens, if the options say so.
    pub(crate) fn open(
        options: Options,
        frame_bytes_max: usize,
        spawner: Spawner,
    ) -> Result<QuicTransport, StartError> {
        let unfit = |why| StartError::System(std::io::Error::other(why));
        limits::client(&options.credentials).map_err(unfit)?;
        let dialler =
            Dialler::new(options.credentials.clone(), spawner.clone()).map_err(StartError::System)?;
        let (accepts, accepted) = channel(HANDSHAKES_MAX);
        let mut transport = QuicTransport {
            listen_address: None,
            dialler,
            listener: None,
            accepted,
            _accepting: None,
            frame_bytes_max,
            spawner: spawner.clone(),
        };
        let Some(address) = options.listen else { return Ok(transport) };
        let server = limits::server(&options.credentials).map_err(unfit)?;
        let refused = |why| StartError::Listen(address, why);
        let endpoint = spawner.bind(address, Some(server)).map_err(refused)?;
        transport.listen_address = Some(endpoint.local_addr().map_err(refused)?);
        let accepting = accept_all(endpoint.clone(), options.credentials, accepts, spawner.clone());
        transport._accepting = Some(spawner.spawn(accepting));
        transport.listener = Some(endpoint);
        Ok(transport)
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        [&self.listener, &self.dialler.v4, &self.dialler.v6].into_iter().flatten().cloned().collect()
    }
}

/// Shakes hands with whoever comes. Each holds a permit until the driver has taken its link, so there are never more than
/// [`HANDSHAKES_MAX`] of them.
async fn accept_all(
    endpoint: Endpoint,
    credentials: Credentials,
    accepts: Sender<(Opened, OwnedSemaphorePermit)>,
    spawner: Spawner,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let is_busy = HANDSHAKES_MAX - permits.available_permits() > HANDSHAKES_BEFORE_RETRY;
        if is_busy && !incoming.remote_address_validated() {
            // It fails only for who has been asked before, and that is checked above.
            let _ = incoming.retry();
            continue;
        }
        // The endpoint has those of its beginning; they may have been read again since.
        let config = match limits::server(&credentials) {
            Ok(config) => Arc::new(config),
            Err(why) => {
                tracing::error!(%why, "the certificates don't do for QUIC");
                incoming.refuse();
                continue;
            }
        };
        let accepts = accepts.clone();
        spawner.detach(async move {
            let peer = incoming.remote_address();
            let opened = match within(HANDSHAKE_TIMEOUT, shake_hands(incoming, config)).await {
                Some(Ok(opened)) => opened,
                Some(Err(why)) => return tracing::warn!(%peer, %why, "dropped a replication connection"),
                None => return tracing::warn!(%peer, "dropped: it did not finish its handshake in time"),
            };
            // Nobody takes it any more: the node stops.
            let _ = accepts.send((opened, permit)).await;
        });
    }
}

async fn shake_hands(incoming: Incoming, config: Arc<ServerConfig>) -> Result<Opened, LinkError> {
    let connection =
        incoming.accept_with(config).map_err(|why| failure(&why))?.await.map_err(|why| failure(&why))?;
    let (send, mut recv) = connection.accept_bi().await.map_err(|why| failure(&why))?;
    let mut kind = [0];
    recv.read_exact(&mut kind).await.map_err(|why| LinkError::Handshake(why.to_string()))?;
    match kind {
        [ALL_FRAMES] => {
            let bulk = open_uni_now(&connection);
            Ok(Opened { connection, send, recv, bulk })
        }
        [other] => Err(LinkError::Handshake(format!("it opened a stream of unknown kind {other}"))),
    }
}

/// A stream to the peer, if it takes one now: older nodes take none.
fn open_uni_now(connection: &Connection) -> Option<SendStream> {
    match pin!(connection.open_uni()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(stream) => stream.ok(),
        Poll::Pending => None,
    }
}

impl Transport for QuicTransport {
    /// An address is `HOST:PORT`; the peer's certificate must be for that host.
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        let dial = self.dialler.clone().dial(address.to_owned());
        let dialling = self.spawner.spawn(async move {
            let late = || Err(LinkError::Unreachable(SILENT.to_owned()));
            within(HANDSHAKE_TIMEOUT, dial).await.unwrap_or_else(late)
        });
        Ok(Box::new(QuicLink::dialled(dialling, address, self.frame_bytes_max, self.spawner.clone())))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        match self.accepted.poll_recv(cx) {
            Poll::Ready(Some((opened, _permit))) => {
                Poll::Ready(Box::new(QuicLink::accepted(opened, self.frame_bytes_max, self.spawner.clone())))
            }
            // It does not listen, and never will.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn local_address(&self) -> Option<String> {
        self.listen_address.map(|address| address.to_string())
    }
}
