//! Two nodes over real sockets: streaming, a secret, garbage, a hand-made hostile peer.

use std::io::{Read, Write};
use std::net::TcpStream;

use hotspare::{Config, Expiry, LinkState, ReplicationConfig, Role};

use rustls::pki_types::pem::PemObject;

use super::*;
use crate::conformance::credentials;
use crate::transport::{LINK, LISTENER};
use hotspare::transport::Transport;

const DEADLINE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn primary(options: Options) -> (Cache, Node) {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let node = Node::start(&cache, options.listen(loopback())).unwrap();
    (cache, node)
}

fn replica(of: &Node, options: Options) -> (Cache, Node) {
    let address = of.listen_address().unwrap().to_string();
    let cache = Cache::new(Config::new().replication(ReplicationConfig::replica_of(address))).unwrap();
    let node = Node::start(&cache, options.listen(loopback())).unwrap();
    (cache, node)
}

#[test]
fn a_killed_primary_is_replaced_and_the_old_one_would_be_fenced() {
    let (old, old_node) = primary(Options::new());
    for index in 0..2_000u32 {
        old.set(index.to_le_bytes(), index.to_string(), Expiry::Never).unwrap();
    }
    let (spare, _spare_node) = replica(&old_node, Options::new());
    wait("streaming", || spare.status().link == LinkState::Streaming);
    for index in 2_000..4_000u32 {
        old.set(index.to_le_bytes(), index.to_string(), Expiry::Never).unwrap();
    }
    wait("level", || spare.status().seq == old.status().seq);
    spare.promote(false).unwrap();
    for index in 0..4_000u32 {
        assert_eq!(spare.get(index.to_le_bytes()).unwrap().unwrap().value, index.to_string());
    }
    wait("the old primary follows", || {
        let status = old.status();
        status.role == Role::Replica && status.link == LinkState::Streaming
    });
    assert!(old.set("k", "v", Expiry::Never).is_err(), "a replica's handle refuses writes");
    spare.set("k", "v", Expiry::Never).unwrap();
    wait("the old one has the new write", || old.status().seq == spare.status().seq);
}

#[test]
fn replicas_with_the_default_slot_find_slots_of_their_own() {
    let (_old, node) = primary(Options::new());
    let replicas: Vec<_> = (0..3).map(|_| replica(&node, Options::new())).collect();
    wait("all attached", || replicas.iter().all(|(cache, _)| cache.status().link == LinkState::Streaming));
    let slots: std::collections::HashSet<u8> =
        replicas.iter().map(|(cache, _)| cache.status().slot).collect();
    assert_eq!(slots.len(), 3);
}

#[test]
fn a_secret_is_needed_off_loopback_and_must_match() {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let open = Options::new().listen("0.0.0.0:0".parse().unwrap());
    assert!(matches!(Node::start(&cache, open), Err(StartError::SecretNeeded(_))));
    let (old, node) = primary(Options::new().secret("one"));
    let (right, _right_node) = replica(&node, Options::new().secret("one"));
    wait("attached", || right.status().link == LinkState::Streaming);
    for options in [Options::new(), Options::new().secret("two")] {
        let (wrong, _wrong_node) = replica(&node, options);
        wait("refused", || wrong.status().last_error.is_some_and(|error| error.contains("secret")));
        assert_eq!(wrong.status().link, LinkState::Connecting);
    }
    assert_eq!(old.status().role, Role::Primary);
}

/// Waits until the replica was refused with these words.
fn wait_refused(spare: &Cache, words: &str) {
    let end = Instant::now() + DEADLINE;
    while !spare.status().last_error.is_some_and(|error| error.contains(words)) {
        assert!(Instant::now() < end, "{words}: {:?}", spare.status().last_error);
        std::thread::yield_now();
    }
    assert_eq!(spare.status().link, LinkState::Connecting);
}

#[test]
fn only_certificates_of_the_groups_authority_get_in() {
    let [ours, theirs] = credentials(["cache-1", "cache-2"]);
    let [strangers] = credentials(["cache-1"]);
    let (old, node) = primary(Options::new().tls(ours));
    let (right, _right_node) = replica(&node, Options::new().tls(theirs.clone()));
    wait("attached", || right.status().link == LinkState::Streaming);
    let (wrong, _wrong_node) = replica(&node, Options::new().tls(strangers));
    wait_refused(&wrong, "invalid peer certificate");
    let (plain, _plain_node) = replica(&node, Options::new());
    wait_refused(&plain, "handshake failed");
    let (doubtful, _doubtful_node) = replica(&node, Options::new().tls(theirs).secret("s"));
    wait_refused(&doubtful, "it has no replication secret");
    old.set("k", "v", Expiry::Never).unwrap();
    wait("still replicating", || right.status().seq == old.status().seq);
    assert_eq!(old.status().replicas.len(), 1);
}

/// What a node says to a TLS client that shows `certificate`, or none.
fn greet(node: &Node, ca: rustls::RootCertStore, own: Option<[&str; 2]>) -> std::io::Result<usize> {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_root_certificates(ca);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some([certificate, key]) => {
            let chain =
                vec![rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let session = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(node.listen_address().unwrap()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = rustls::StreamOwned::new(session, socket);
    stream.write_all(&[&b"HSPR\x01\0\0\0"[..], &[7; 32]].concat())?;
    stream.read(&mut [0; 100])
}

#[test]
fn a_listener_talks_to_nobody_without_a_certificate_of_its_authority() {
    let authority = hotspare_tls::issue::Authority::new("ours").unwrap();
    let stranger = hotspare_tls::issue::Authority::new("ours").unwrap();
    let own = authority.issue("cache-1", &[]).unwrap();
    let text = authority.pem().certificate;
    let credentials = Credentials::from_pem(&text, &own.certificate, &own.key).unwrap();
    let (_cache, node) = primary(Options::new().tls(credentials));
    let ca = || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes()).unwrap()).unwrap();
        roots
    };
    assert!(greet(&node, ca(), Some([&own.certificate, &own.key])).unwrap() > 0, "a member is answered");
    let other = stranger.issue("cache-1", &[]).unwrap();
    let why = greet(&node, ca(), Some([&other.certificate, &other.key])).unwrap_err().to_string();
    assert!(why.contains("alert"), "{why}");
    let why = greet(&node, ca(), None).unwrap_err().to_string();
    assert!(why.contains("CertificateRequired"), "{why}");
}

#[test]
fn garbage_on_the_replication_port_closes_that_connection_only() {
    let [certificates] = credentials(["cache-1"]);
    for options in [Options::new(), Options::new().tls(certificates)] {
        withstand_garbage(&options);
    }
}

fn withstand_garbage(options: &Options) {
    let (cache, node) = primary(options.clone());
    let (spare, _spare_node) = replica(&node, options.clone());
    let preamble = [&b"HSPR\x01\0\0\0"[..], &[7; 32]].concat();
    // The last two begin, one of them TLS, and say no more.
    let attacks: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 100],
        &[&preamble[..], &[0xff; 64]].concat(),
        &preamble[..20],
        &[22, 3, 1, 0, 200, 1, 0, 0, 196],
    ];
    for attack in attacks {
        let mut socket = TcpStream::connect(node.listen_address().unwrap()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(attack).unwrap();
        let mut rest = Vec::new();
        // Closed in an orderly way or reset: both are an end, and it comes well before the time-out.
        let began = Instant::now();
        let _ = socket.read_to_end(&mut rest);
        assert!(began.elapsed() < DEADLINE, "the connection was closed");
    }
    cache.set("k", "v", Expiry::Never).unwrap();
    wait("still replicating", || spare.status().seq == cache.status().seq);
}

#[test]
fn a_shutdown_drains_what_replicas_lack() {
    let (old, node) = primary(Options::new());
    let (spare, _spare_node) = replica(&node, Options::new());
    wait("streaming", || spare.status().link == LinkState::Streaming);
    for index in 0..20_000u32 {
        old.set(index.to_le_bytes(), "v", Expiry::Never).unwrap();
    }
    node.shutdown(Duration::from_secs(10));
    assert_eq!(spare.status().seq, old.status().seq);
}

#[test]
fn a_listener_is_asked_when_the_poller_has_told_of_it_and_not_for_what_links_bring() {
    let (arrivals, poll) = (Arrivals::default(), Poll::new().unwrap());
    let (options, registry) = (Options::new().listen(loopback()), poll.registry().try_clone().unwrap());
    let mut transport = TcpTransport::open(options, 1 << 20, registry, arrivals.clone()).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let address = transport.listen_address.unwrap();
    let mut accepts = || transport.poll_accept(&mut cx).is_ready();
    assert!(!accepts());
    let _caller = TcpStream::connect(address).unwrap();
    arrivals.note(LINK);
    assert!(!accepts(), "somebody waits, of whom the poller will tell");
    arrivals.note(LISTENER);
    assert!(accepts() && !accepts());
}
