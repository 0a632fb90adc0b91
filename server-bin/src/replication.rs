//! The transport that carries replication: which one, and what it is started with.

use std::net::SocketAddr;
use std::time::Duration;

use hotspare::Cache;
use hotspare_tls::Credentials;

/// How this node reaches its peers.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Off the loopback it needs one of the two.
    Tcp {
        secret: Option<Vec<u8>>,
        credentials: Option<Credentials>,
    },
    Quic {
        credentials: Credentials,
    },
}

impl Transport {
    /// The certificates in use, if there are any.
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        match self {
            Transport::Tcp { credentials, .. } => credentials.as_ref(),
            Transport::Quic { credentials } => Some(credentials),
        }
    }

    /// Whether peers prove themselves, so that they may be on other machines.
    pub(crate) fn proves_peers(&self) -> bool {
        !matches!(self, Transport::Tcp { secret: None, credentials: None })
    }
}

/// Replication at work, over either transport.
#[derive(Debug)]
pub(crate) enum Node {
    Tcp(hotspare_tcp::Node),
    Quic(Box<hotspare_quic::Node>),
}

impl Node {
    pub(crate) fn start(
        cache: &Cache,
        listen: Option<SocketAddr>,
        transport: Transport,
    ) -> Result<Node, String> {
        match transport {
            Transport::Tcp { secret, credentials } => {
                let mut options = hotspare_tcp::Options::new();
                if let Some(address) = listen {
                    options = options.listen(address);
                }
                if let Some(secret) = secret {
                    options = options.secret(secret);
                }
                if let Some(credentials) = credentials {
                    options = options.tls(credentials);
                }
                hotspare_tcp::Node::start(cache, options).map(Node::Tcp).map_err(|why| why.to_string())
            }
            Transport::Quic { credentials } => {
                let mut options = hotspare_quic::Options::new(credentials);
                if let Some(address) = listen {
                    options = options.listen(address);
                }
                let node = hotspare_quic::Node::start(cache, options).map_err(|why| why.to_string())?;
                Ok(Node::Quic(Box::new(node)))
            }
        }
    }

    pub(crate) fn listen_address(&self) -> Option<SocketAddr> {
        match self {
            Node::Tcp(node) => node.listen_address(),
            Node::Quic(node) => node.listen_address(),
        }
    }

    pub(crate) fn shutdown(self, drain: Duration) {
        match self {
            Node::Tcp(node) => node.shutdown(drain),
            Node::Quic(node) => node.shutdown(drain),
        }
    }
}
