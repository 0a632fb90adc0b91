//! TLS of the clients: certificates from files, and what became of the handshakes.
//!
//! Lives here: `-Z` and its suboptions, reading the files again. Not here: which listeners are encrypted (see
//! `listener`), the encrypted socket (see `hotspare_tls`).

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hotspare_tls::{TlsSocket, pem};
use mio::net::TcpStream;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

use crate::settings::{TlsSettings, VerifyClients};

/// The certificates in use, replaced as a whole.
#[derive(Debug)]
pub(crate) struct Certificates {
    settings: TlsSettings,
    config: RwLock<Current>,
    pub(crate) counts: Arc<HandshakeCounts>,
}

/// What was read last, and when.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    read_at: Instant,
}

impl Current {
    fn read(settings: &TlsSettings) -> Result<Current, String> {
        Ok(Current { config: Arc::new(read(settings)?), read_at: Instant::now() })
    }
}

/// What encrypted connections came to (rule G6).
#[derive(Debug, Default)]
pub(crate) struct HandshakeCounts {
    /// What a client sent was no handshake, or none that could be agreed to.
    pub(crate) handshake_errors: AtomicU64,
    /// After a handshake, what came was no TLS.
    pub(crate) protocol_errors: AtomicU64,
    /// Handshakes that went on from no earlier session.
    pub(crate) new_sessions: AtomicU64,
}

impl HandshakeCounts {
    pub(crate) fn reset(&self) {
        for count in [&self.handshake_errors, &self.protocol_errors, &self.new_sessions] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Certificates {
    pub(crate) fn load(settings: &TlsSettings) -> Result<Certificates, String> {
        let config = RwLock::new(Current::read(settings)?);
        Ok(Certificates { settings: settings.clone(), config, counts: Arc::default() })
    }

    /// Reads the files again, for connections to come; if they can't be, all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let current = Current::read(&self.settings)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// How long ago the certificates in use were read.
    pub(crate) fn age(&self) -> Duration {
        self.config.read().unwrap_or_else(PoisonError::into_inner).read_at.elapsed()
    }

    /// The server's side of a connection that is to begin.
    pub(crate) fn accept(&self, socket: TcpStream) -> std::io::Result<CountedSocket> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).config.clone();
        let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
        Ok(CountedSocket {
            inner: TlsSocket::new(socket, session),
            counts: self.counts.clone(),
            is_counted: false,
        })
    }
}

fn read(settings: &TlsSettings) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions = if settings.only_newest_version { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let chain = pem::certificates(&settings.chain_file)?;
    let key_file = settings.key_file.as_deref().unwrap_or(&settings.chain_file);
    let key = pem::key(key_file)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|why| why.to_string())?;
    let builder = match (settings.verify_clients, &settings.authorities_file) {
        // With nobody to vouch for it, a certificate says nothing: none is asked for.
        (VerifyClients::Never, _) | (VerifyClients::IfGiven, None) => builder.with_no_client_auth(),
        (VerifyClients::Always, None) => return Err("verifying clients needs ssl_ca_cert".to_owned()),
        (verify, Some(file)) => {
            let authorities = pem::authorities(file)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
            let verifier =
                if verify == VerifyClients::IfGiven { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|why| format!("{}: {why}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain, key)
        .map_err(|why| format!("{} with {}: {why}", settings.chain_file.display(), key_file.display()))
}

/// An encrypted socket that counts how its handshake ends.
#[derive(Debug)]
pub(crate) struct CountedSocket {
    pub(crate) inner: TlsSocket<TcpStream>,
    counts: Arc<HandshakeCounts>,
    /// Whether its handshake has come to its end.
    is_counted: bool,
}

impl Read for CountedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer);
        let counts = &self.counts;
        // Only what came is judged so.
        if read.as_ref().is_err_and(|why| why.kind() == ErrorKind::InvalidData) {
            let count = if self.is_counted { &counts.protocol_errors } else { &counts.handshake_errors };
            count.fetch_add(1, Ordering::Relaxed);
        } else if !self.is_counted && !self.inner.is_handshaking() {
            self.is_counted = true;
            let is_new = self.inner.session().handshake_kind() != Some(HandshakeKind::Resumed);
            counts.new_sessions.fetch_add(u64::from(is_new), Ordering::Relaxed);
        }
        read
    }
}

impl Write for CountedSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        self.inner.write_vectored(slices)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
