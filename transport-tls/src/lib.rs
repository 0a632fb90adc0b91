//! TLS for Hotspare: the certificates by which the nodes of a group know each other, and encrypted sockets.
//!
//! Lives here: what `hotspare-tcp`, `hotspare-quic` and the server would each write again. Not here: when a node needs
//! TLS (each transport's), who listens for clients (the server's).
//!
//! | file | concept |
//! |---|---|
//! | `advice` | what an operator should look at when a handshake has failed |
//! | `credentials` | a node's certificate, whom it believes, how a peer is named |
//! | `issue` | making an authority and certificates (feature `issue`) |
//! | `pem` | certificates and keys in files |
//! | `socket` | plain bytes over an encrypted socket that never blocks |

pub mod advice;
mod credentials;
#[cfg(feature = "issue")]
pub mod issue;
pub mod pem;
mod socket;

pub use credentials::{ALPN, Credentials, peer_certificate, server_name};
pub use socket::TlsSocket;
