//! TLS of the clients: certificates from files.
//!
//! Lives here: `-Z` and its suboptions, reading the files again. Not here: which listeners are encrypted (see
//! `listener`), the encrypted socket (see `hotspare_tls`).

use std::sync::{Arc, PoisonError, RwLock};

use hotspare_tls::{TlsSocket, pem};
use mio::net::TcpStream;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};

use crate::settings::{TlsSettings, VerifyClients};

/// The certificates in use, replaced as a whole.
#[derive(Debug)]
pub(crate) struct Certificates {
    settings: TlsSettings,
    config: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    pub(crate) fn load(settings: &TlsSettings) -> Result<Certificates, String> {
        let config = RwLock::new(Arc::new(read(settings)?));
        Ok(Certificates { settings: settings.clone(), config })
    }

    /// Reads the files again, for connections to come; if they can't be, all stays as it was.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let config = Arc::new(read(&self.settings)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The server's side of a connection that is to begin.
    pub(crate) fn accept(&self, socket: TcpStream) -> std::io::Result<TlsSocket<TcpStream>> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
        Ok(TlsSocket::new(socket, session))
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
        (VerifyClients::Never, _) => builder.with_no_client_auth(),
        (_, None) => return Err("verifying clients needs ssl_ca_cert".to_owned()),
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
