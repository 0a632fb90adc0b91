//! QUIC keeps what every transport promises, also to strangers.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hotspare::transport::conformance::{self, Subject};
use hotspare::transport::{Channel, Transport};
use hotspare_tls::issue::Authority;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::limits::{self, HANDSHAKE_TIMEOUT};
use crate::runtime::{Runtime, within};
use crate::transport::QuicTransport;
use crate::{Credentials, Options};

const FRAME_BYTES_MAX: usize = 1 << 20;

/// A group's authority with one node's credentials for each name.
pub(crate) fn group<const COUNT: usize>(names: [&str; COUNT]) -> (Authority, [Credentials; COUNT]) {
    let authority = Authority::new("a group").unwrap();
    let credentials = names.map(|name| {
        let issued = authority.issue(name, &[]).unwrap();
        Credentials::from_pem(&authority.pem().certificate, &issued.certificate, &issued.key).unwrap()
    });
    (authority, credentials)
}

struct Quic {
    runtime: Runtime,
    authority: Authority,
    credentials: Credentials,
    endpoints: Vec<quinn::Endpoint>,
}

impl Quic {
    fn new() -> Quic {
        let (authority, [credentials]) = group(["cache-1"]);
        Quic { runtime: Runtime::new().unwrap(), authority, credentials, endpoints: Vec::new() }
    }

    /// Dials with a TLS configuration of its own; whether a stream could be used.
    fn is_let_in(&self, address: SocketAddr, tls: rustls::ClientConfig) -> bool {
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = self.runtime.spawner().bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        self.runtime.block_on(async {
            let connecting = endpoint.connect_with(config, address, "localhost").unwrap();
            let Ok(connection) = connecting.await else { return false };
            let Ok((mut send, mut recv)) = connection.open_bi().await else { return false };
            // The dialler's own view of the handshake comes first: what counts is whether the listener answers.
            let _ = send.write_all(&[9; 100]).await;
            let ended = within(Duration::from_secs(3), recv.read(&mut [0; 10])).await;
            assert!(ended.is_some(), "a stranger is told to go");
            matches!(ended, Some(Ok(Some(_))))
        })
    }

    /// Whether a member that proves itself and opens no stream is sent away in time.
    fn is_sent_away_for_silence(&self, address: SocketAddr) -> bool {
        let config = limits::client(&self.credentials).unwrap();
        let endpoint = self.runtime.spawner().bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        self.runtime.block_on(async {
            let connection = endpoint.connect_with(config, address, "localhost").unwrap().await.unwrap();
            within(HANDSHAKE_TIMEOUT * 2, connection.closed()).await.is_some()
        })
    }

    fn tls(&self) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let ca = self.authority.pem().certificate;
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
    }
}

impl Subject for Quic {
    fn open(&mut self) -> Box<dyn Transport> {
        let options = Options::new(self.credentials.clone()).listen("127.0.0.1:0".parse().unwrap());
        let transport = QuicTransport::open(options, FRAME_BYTES_MAX, self.runtime.spawner()).unwrap();
        self.endpoints.extend(transport.endpoints());
        Box::new(transport)
    }

    fn rest(&mut self) {
        self.runtime.rest(Duration::from_millis(1));
    }

    fn nobody(&mut self) -> String {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn open_links(&mut self, _address: &str) -> usize {
        self.endpoints.iter().map(quinn::Endpoint::open_connections).sum()
    }

    fn frame_bytes_max(&self) -> Option<usize> {
        Some(FRAME_BYTES_MAX)
    }

    fn attack(&mut self, address: &str, attack: usize) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let say = |bytes: &[u8]| {
            socket.send_to(bytes, address).unwrap();
        };
        match attack {
            0 => say(b""),
            1 => say(b"GET / HTTP/1.1\r\n\r\n"),
            2 => (0..=255).for_each(|byte| say(&[byte; 1_200])),
            // The long header of QUIC 1's first packet, and garbage behind it.
            3 => {
                say(&[&[0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x90][..], &[7; 1_182]]
                    .concat())
            }
            4 => {
                let mut without_certificate = self.tls().with_no_client_auth();
                without_certificate.alpn_protocols = vec![hotspare_tls::ALPN.to_vec()];
                assert!(!self.is_let_in(address, without_certificate), "no certificate");
            }
            5 => {
                let (_, [stranger]) = group(["cache-1"]);
                let mut config = (*stranger.client()).clone();
                config.dangerous().set_certificate_verifier(self.credentials_verifier());
                assert!(!self.is_let_in(address, config), "another authority");
            }
            6 => {
                let mut of_another_protocol = (*self.credentials.client()).clone();
                of_another_protocol.alpn_protocols = vec![b"h3".to_vec()];
                assert!(!self.is_let_in(address, of_another_protocol), "another protocol");
            }
            // A member that opens a stream of a kind that there is not.
            7 => assert!(!self.is_let_in(address, (*self.credentials.client()).clone())),
            8 => assert!(self.is_sent_away_for_silence(address)),
            _ => return false,
        }
        true
    }

    fn certificate_subject(&self) -> Option<String> {
        Some("CN=cache-1".to_owned())
    }
}

impl Quic {
    /// Who believes the group's authority, for a dialler that shows something else.
    fn credentials_verifier(&self) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
        let mut roots = RootCertStore::empty();
        let ca = self.authority.pem().certificate;
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
    }
}

#[test]
fn quic_keeps_the_promises_of_a_transport() {
    conformance::run(&mut Quic::new());
}

#[test]
fn hints_wait_for_room_among_those_that_have_yet_to_be_sent() {
    // Sixteen times as many bytes as there is room for.
    const HINTS: usize = 4_000;
    let mut quic = Quic::new();
    let (mut ours, mut theirs) = (quic.open(), quic.open());
    let mut cx = Context::from_waker(Waker::noop());
    let mut out = ours.dial(&theirs.local_address().unwrap()).unwrap();
    let mut into = None;
    let (mut sent, mut come, mut rests_in_vain) = (0, 0, 0);
    while rests_in_vain < 500 {
        quic.rest();
        rests_in_vain += 1;
        if let Poll::Ready(link) = theirs.poll_accept(&mut cx) {
            into = Some(link);
        }
        while sent < HINTS && matches!(out.poll_ready(Channel::Hint, &mut cx), Poll::Ready(Ok(()))) {
            out.send(Channel::Hint, vec![1; 1_000].into()).unwrap();
            (sent, rests_in_vain) = (sent + 1, 0);
        }
        let _ = out.poll_flush(&mut cx);
        while let Some(Poll::Ready(Ok(Some(hint)))) =
            into.as_mut().map(|link| link.poll_recv(Channel::Hint, &mut cx))
        {
            assert_eq!(hint.len(), 1_000);
            (come, rests_in_vain) = (come + 1, 0);
        }
    }
    assert_eq!(sent, HINTS);
    // Whatever the system loses: that is what hints may be.
    assert!(come > HINTS / 10 * 9, "{come} of {HINTS} have come");
}
