//! A node's certificate, whom it believes, and how a peer is named.
//!
//! One authority makes a group: whoever shows a certificate of it is let in, so it should sign nothing else. Both ends
//! show one, by TLS 1.3 only. The dialler also checks that the certificate is for the host that it dialled. Nothing is
//! resumed: each link proves itself anew.
//!
//! Credentials can be replaced while links use them: those go on, and the next ones begin with the new.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use hotspare::transport::PeerCertificate;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use crate::pem;

/// What replication is called in the TLS handshake.
pub const ALPN: &[u8] = b"hotspare/1";

/// The longest subject that is shown, in characters.
const SUBJECT_CHARACTERS_MAX: usize = 200;

/// What a node shows to its peers, and whom it believes. All clones are one: what replaces one replaces all.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where they were read from, if from files: authority, certificate, key.
    files: Option<Arc<[PathBuf; 3]>>,
    current: Arc<RwLock<Current>>,
}

/// What is in use.
#[derive(Debug, Clone)]
struct Current {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    own: CertificateDer<'static>,
}

impl Credentials {
    /// Reads PEM files: the group's authority, this node's certificate (with what lies between the two, if anything),
    /// and its private key.
    ///
    /// # Errors
    /// A file can't be read, the key is not the certificate's, or the authority has not signed that; the text names the files.
    pub fn read(authority: &Path, certificate: &Path, key: &Path) -> Result<Credentials, String> {
        let named = |why| {
            format!("{} with {} and {}: {why}", certificate.display(), key.display(), authority.display())
        };
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|why| format!("{}: {why}", path.display()));
        let files = [absolute(authority)?, absolute(certificate)?, absolute(key)?];
        let read =
            Credentials::new(pem::authorities(authority)?, pem::certificates(certificate)?, pem::key(key)?)
                .map_err(named)?;
        Ok(Credentials { files: Some(files.into()), ..read })
    }

    /// Reads the files again that these came from, for links to come. Links that are there go on, also with a peer whom
    /// the new authority would not let in.
    ///
    /// # Errors
    /// As [`Credentials::read`], or they were made from texts; then all stays as it was.
    pub fn reload(&self) -> Result<(), String> {
        let Some([authority, certificate, key]) = self.files.as_deref() else {
            return Err("these certificates were not read from files".to_owned());
        };
        self.replace(&Credentials::read(authority, certificate, key)?);
        Ok(())
    }

    /// Uses what the others are now from the next link on, on this node and wherever these credentials were cloned to.
    pub fn replace(&self, with: &Credentials) {
        let new = with.current();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same from PEM texts, wherever they are kept.
    ///
    /// # Errors
    /// A text is none of the kind, the key is not the certificate's, or the authority has not signed that.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Credentials, String> {
        let certificates = |text: &str| -> Result<Vec<CertificateDer<'static>>, String> {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|why| why.to_string())
        };
        let mut authorities = RootCertStore::empty();
        for authority in certificates(authority)? {
            authorities.add(authority).map_err(|why| why.to_string())?;
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|why| why.to_string())?;
        Credentials::new(authorities, certificates(certificate)?, key)
    }

    fn new(
        authorities: RootCertStore,
        chain: Vec<CertificateDer<'static>>,
        secret: PrivateKeyDer<'static>,
    ) -> Result<Credentials, String> {
        let authorities = Arc::new(authorities);
        let provider = Arc::new(ring::default_provider());
        let unfit = |why: rustls::Error| match why {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            other => other.to_string(),
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone())
            .build()
            .map_err(|why| why.to_string())?;
        check_signed(&*verifier, &chain)?;
        let own = chain.first().ok_or("there is no certificate")?.clone();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), secret.clone_key())
            .map_err(unfit)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_root_certificates(authorities)
            .with_client_auth_cert(chain, secret)
            .map_err(unfit)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        let current = Current { client: Arc::new(client), server: Arc::new(server), own };
        Ok(Credentials { files: None, current: Arc::new(RwLock::new(current)) })
    }

    /// Whether this node's own certificate, as it is now, is for the host of `HOST:PORT`: else no peer that dials it there
    /// believes it.
    pub fn is_for(&self, address: &str) -> bool {
        let own = self.current().own;
        match (ParsedCertificate::try_from(&own), server_name(address)) {
            (Ok(own), Ok(name)) => verify_server_name(&own, &name).is_ok(),
            _ => false,
        }
    }

    /// For the end that dials, as it is now: ask anew for each link.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current().client
    }

    /// For the end that accepts, as it is now: ask anew for each link.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current().server
    }
}

/// Whether the authority has signed a node's own certificate: else none of its peers would let it in. That it has run out is
/// theirs to say: clients are still to be served.
fn check_signed(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let Some((own, between)) = chain.split_first() else { return Err("there is no certificate".to_owned()) };
    match verifier.verify_client_cert(own, between, UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Err("the authority has not signed the certificate, so no peer would believe it".to_owned()),
        _ => Ok(()),
    }
}

/// The name that the certificate of the node at `HOST:PORT` must be for.
///
/// # Errors
/// No certificate can be for that host.
pub fn server_name(address: &str) -> Result<ServerName<'static>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| format!("no certificate can be for the host {bare}"))
}

/// What a log says of a peer, by the chain that it showed and that was verified.
pub fn peer_certificate(chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
    let own = chain.first()?;
    let subject = x509_parser::parse_x509_certificate(own)
        .map_or_else(|_| "unreadable".to_owned(), |(_, certificate)| certificate.subject().to_string());
    let subject = subject
        .chars()
        .take(SUBJECT_CHARACTERS_MAX)
        // It goes into logs.
        .map(|character| if character.is_control() { '?' } else { character })
        .collect();
    Some(PeerCertificate { subject, fingerprint: Sha256::digest(own).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_asked_for_is_the_host_that_was_dialled() {
        assert_eq!(
            server_name("cache-1.example:7400").unwrap(),
            ServerName::try_from("cache-1.example").unwrap()
        );
        assert_eq!(server_name("[::1]:7400").unwrap(), ServerName::try_from("::1").unwrap());
        assert!(server_name("a b:1").is_err());
    }

    #[test]
    fn a_certificate_is_for_the_hosts_that_it_names() {
        let hosts = ["10.0.0.1", "cache-1.example"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let pem = made.cert.pem();
        let credentials = Credentials::from_pem(&pem, &pem, &made.signing_key.serialize_pem()).unwrap();
        assert!(credentials.is_for("10.0.0.1:7001") && credentials.is_for("cache-1.example:7001"));
        assert!(!credentials.is_for("10.0.0.2:7001") && !credentials.is_for("[::1]:7001"));
    }

    #[test]
    fn a_subject_can_write_no_line_of_its_own_into_a_log() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        let name = format!("evil\nINFO all is well{}", "x".repeat(500));
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let made = parameters.self_signed(&key).unwrap();
        let seen = peer_certificate(&[made.der().clone()]).unwrap();
        assert!(seen.subject.starts_with("CN=evil?INFO") && seen.subject.len() == SUBJECT_CHARACTERS_MAX);
        assert_eq!(seen.fingerprint, <[u8; 32]>::from(Sha256::digest(made.der())));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let files = [".pem", ".key"].map(|end| folder.path().join(format!("{name}{end}")));
            std::fs::write(&files[0], made.cert.pem()).unwrap();
            std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
            files
        });
        assert!(Credentials::read(&one[0], &one[0], &one[1]).is_ok());
        let why = Credentials::read(&one[0], &one[0], &other[1]).unwrap_err();
        assert!(why.contains("one.pem") && why.contains("other.key"), "{why}");
        assert!(why.contains("the key is not the certificate's"), "{why}");
        let why = Credentials::read(&other[0], &one[0], &one[1]).unwrap_err();
        assert!(why.contains("other.pem") && why.contains("has not signed the certificate"), "{why}");
        assert!(Credentials::read(&one[0], &one[1], &one[1]).unwrap_err().contains("no certificate in"));
        assert!(Credentials::read(&one[0], &one[0], &one[0]).unwrap_err().contains("can't read the key"));
    }

    #[test]
    fn files_are_read_again_for_every_clone_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["pem", "key"].map(|end| folder.path().join(format!("one.{end}")));
        let write = || {
            let made = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
            std::fs::write(&files[0], made.cert.pem()).unwrap();
            std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
            made.cert.pem()
        };
        let first = write();
        let credentials = Credentials::read(&files[0], &files[0], &files[1]).unwrap();
        let (clone, before) = (credentials.clone(), credentials.server());
        assert!(Arc::ptr_eq(&clone.server(), &before));
        write();
        credentials.reload().unwrap();
        let after = clone.server();
        assert!(!Arc::ptr_eq(&after, &before), "the clone has the new ones, too");
        // The certificate of before, and the new one's key.
        std::fs::write(&files[0], first).unwrap();
        let why = clone.reload().unwrap_err();
        assert!(why.contains("one.pem"), "{why}");
        assert!(Arc::ptr_eq(&credentials.server(), &after));
        let texts = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        let (pem, key) = (texts.cert.pem(), texts.signing_key.serialize_pem());
        let from_texts = Credentials::from_pem(&pem, &pem, &key).unwrap();
        assert!(from_texts.reload().is_err());
        from_texts.replace(&clone);
        assert!(Arc::ptr_eq(&from_texts.server(), &after));
    }
}
