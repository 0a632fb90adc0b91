//! TLS of the clients: certificates from files, and a socket that reads and writes plain bytes over an encrypted one.
//!
//! Lives here: `-Z` and its suboptions, reading the files again. Not here: which listeners are encrypted (see
//! `listener`).

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

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
    pub(crate) fn accept(&self, socket: TcpStream) -> std::io::Result<TlsSocket> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).config.clone();
        let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
        Ok(TlsSocket { socket, session, counts: self.counts.clone(), is_counted: false })
    }
}

fn read(settings: &TlsSettings) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions = if settings.only_newest_version { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let chain = certificates(&settings.chain_file)?;
    let key_file = settings.key_file.as_deref().unwrap_or(&settings.chain_file);
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|why| format!("can't read the key in {}: {why}", key_file.display()))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|why| why.to_string())?;
    let builder = match (settings.verify_clients, &settings.authorities_file) {
        (VerifyClients::Never, _) => builder.with_no_client_auth(),
        (_, None) => return Err("verifying clients needs ssl_ca_cert".to_owned()),
        (verify, Some(file)) => {
            let mut authorities = RootCertStore::empty();
            for authority in certificates(file)? {
                authorities.add(authority).map_err(|why| format!("{}: {why}", file.display()))?;
            }
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

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |why| format!("can't read the certificates in {}: {why}", file.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("no certificate in {}", file.display()));
    }
    Ok(found)
}

/// An encrypted socket. What it takes it may still hold: `flush` says whether it has gone.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    pub(crate) socket: TcpStream,
    session: ServerConnection,
    counts: Arc<HandshakeCounts>,
    /// Whether its handshake has come to its end.
    is_counted: bool,
}

impl TlsSocket {
    /// Whether the client has still to show that it speaks TLS.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Takes what has come of the other side's records.
    fn process(&mut self) -> Result<(), rustls::Error> {
        let counts = &self.counts;
        let was_handshaking = self.session.is_handshaking();
        if let Err(why) = self.session.process_new_packets() {
            let count = if was_handshaking { &counts.handshake_errors } else { &counts.protocol_errors };
            count.fetch_add(1, Ordering::Relaxed);
            return Err(why);
        }
        if !self.is_counted && !self.session.is_handshaking() {
            self.is_counted = true;
            let is_new = self.session.handshake_kind() != Some(HandshakeKind::Resumed);
            counts.new_sessions.fetch_add(u64::from(is_new), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends what is encrypted; `WouldBlock` if the socket does not take all of it now.
    fn send(&mut self) -> std::io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Sends, where what does not go now may go later.
    fn send_some(&mut self) -> std::io::Result<()> {
        match self.send() {
            Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}

impl Read for TlsSocket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.send_some()?;
            match self.session.reader().read(buffer) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            // The session sees the end of the stream, too, and its reader tells an orderly one.
            self.session.read_tls(&mut self.socket)?;
            if let Err(why) = self.process() {
                // The client is told why, if it listens.
                let _ = self.send();
                return Err(std::io::Error::new(ErrorKind::InvalidData, why));
            }
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // The session's buffer is bounded: a slow reader fills it, and then its socket blocks here.
        let taken = self.session.writer().write(bytes)?;
        match self.send() {
            Err(why) if why.kind() != ErrorKind::WouldBlock || taken == 0 => Err(why),
            _ if taken == 0 && !bytes.is_empty() => self.session.writer().write(bytes),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send()
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        // So that the client can tell the end from a cut; who does not take it now may think what it likes.
        self.session.send_close_notify();
        let _ = self.send();
    }
}
