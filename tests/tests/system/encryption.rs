//! TLS: `-Z`, its suboptions, and what it must not change.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tests::process::Server;
use tests::wait;

use crate::wire::{self, Wire};

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The exit code for a command line that makes no sense (EX_USAGE).
const EXIT_USAGE: i32 = 64;

/// A certificate that vouches for itself, and its key, in one PEM file.
struct Identity {
    pem: String,
}

impl Identity {
    fn new() -> Identity {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        Identity { pem: made.cert.pem() + &made.signing_key.serialize_pem() }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")
    }
}

/// A folder with the server's identity in `server.pem`.
fn folder_of(identity: &Identity) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("server.pem");
    fs::write(&file, &identity.pem).expect("a file");
    (folder, file)
}

fn server(file: &Path, words: &str, more: &[&str]) -> Server {
    let words = format!("ssl_chain_cert={}{words}", file.display());
    Server::spawn(crate::BINARY, &[&["-p0", "-m64", "-Z", "-o", &words], more].concat())
}

/// An encrypted connection that trusts only `trusted`.
struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn connect(address: SocketAddr, trusted: &Identity, own: Option<&Identity>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.pem.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![own.certificate()], key).expect("an identity")
            }
        };
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let socket = TcpStream::connect_timeout(&address, LIMIT).expect("a connection");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Client(BufReader::new(StreamOwned::new(session, socket)))
    }

    fn try_ask(&mut self, request: &str) -> std::io::Result<String> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn ask(&mut self, request: &str) -> String {
        self.try_ask(request).unwrap_or_else(|why| panic!("{request:?}: {why}"))
    }
}

#[test]
fn q2_an_encrypted_port_serves_who_speaks_tls_and_a_notls_port_who_does_not() {
    let identity = Identity::new();
    let (_folder, file) = folder_of(&identity);
    let server = server(&file, "", &["-l", "127.0.0.1,notls:127.0.0.2"]);
    let places: Vec<SocketAddr> =
        server.all_clients(2).iter().map(|place| place.parse().expect("an address")).collect();
    let mut client = Client::connect(places[0], &identity, None);
    assert_eq!(client.ask("set a 0 0 5\r\nhello\r\n"), "STORED");
    assert_eq!(client.ask("get a\r\n"), "VALUE a 0 5");
    assert_eq!((client.ask(""), client.ask("")), ("hello".to_owned(), "END".to_owned()));
    let mut plain = Wire::connect(places[0]);
    plain.send_anyhow(b"version\r\n");
    assert!(!plain.up_to(100).starts_with(b"VERSION"), "no plain word on an encrypted port");
    wire::assert_serves(places[1]);
}

#[test]
fn large_values_come_whole_through_tls_however_slowly_they_are_read() {
    const VALUE_BYTES: usize = 700_000;
    const GETS: usize = 20;
    let identity = Identity::new();
    let (_folder, file) = folder_of(&identity);
    let mut server = server(&file, "", &[]);
    let mut client = Client::connect(server.clients(), &identity, None);
    let value: String = (0..VALUE_BYTES).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    assert_eq!(client.ask(&format!("set a 0 0 {VALUE_BYTES}\r\n{value}\r\n")), "STORED");
    // All asked for before anything is read: far more than any buffer on the way holds. `quit` must wait for it.
    client.0.get_mut().write_all(format!("{}quit\r\n", "get a\r\n".repeat(GETS)).as_bytes()).expect("sent");
    let answer = format!("VALUE a 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\n");
    for _ in 0..GETS {
        let mut got = vec![0; answer.len()];
        client.0.read_exact(&mut got).expect("an answer");
        assert!(got == answer.as_bytes(), "another answer");
    }
    assert_eq!(client.0.read(&mut [0]).expect("an orderly end, not a cut"), 0);
}

#[test]
fn a_large_value_is_sent_through_tls_from_where_it_lies_as_it_was_asked_for() {
    const VALUE_BYTES: usize = 9_000_000;
    let identity = Identity::new();
    let (_folder, file) = folder_of(&identity);
    let mut server = server(&file, "", &["-I", "10m"]);
    let address = server.clients();
    let (mut other, mut slow) =
        (Client::connect(address, &identity, None), Client::connect(address, &identity, None));
    let value: String =
        (0..VALUE_BYTES).map(|at| char::from(b'a' + (at % 23 + at / 4099 % 3) as u8)).collect();
    assert_eq!(other.ask(&format!("set a 0 0 {VALUE_BYTES}\r\n{value}\r\n")), "STORED");
    // Nothing of it is read before its item has gone, and its memory was wanted for others.
    slow.0.get_mut().write_all(b"get a\r\nmn\r\n").expect("sent");
    let waits = |client: &mut Client| {
        let _ = client.ask("stats conns\r\n");
        let lines = std::iter::repeat_with(|| client.ask("")).take_while(|line| line != "END");
        lines.filter(|line| line.ends_with("conn_mwrite")).count() > 0
    };
    wait::wait_until("the answer, which nobody reads", LIMIT, || waits(&mut other));
    assert_eq!(other.ask("delete a\r\n"), "DELETED");
    for number in 0..30 {
        let filler = "-".repeat(4_000_000);
        assert_eq!(other.ask(&format!("set {number} 0 0 4000000\r\n{filler}\r\n")), "STORED");
    }
    let engine = |client: &mut Client, name: &str| {
        let mut found = client.ask("stats engine\r\n");
        let lines = std::iter::repeat_with(|| client.ask("")).take_while(|line| line != "END");
        for line in lines {
            if line.starts_with(&format!("STAT {name} ")) {
                found = line;
            }
        }
        found.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).expect("a number")
    };
    let pinned = engine(&mut other, "pinned_bytes");
    assert!(pinned > VALUE_BYTES / 2, "{pinned} bytes of the value stay in the cache's memory");
    let answer = format!("VALUE a 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\nMN\r\n");
    let mut got = vec![0; answer.len()];
    for piece in got.chunks_mut(700_001) {
        slow.0.read_exact(piece).expect("an answer");
    }
    assert!(got == answer.as_bytes(), "another answer");
    wait::wait_until("its memory is free", LIMIT, || engine(&mut other, "pinned_bytes") == 0);
}

#[test]
fn q2_with_verify_mode_2_only_a_client_that_is_vouched_for_is_served() {
    let (identity, friend, stranger) = (Identity::new(), Identity::new(), Identity::new());
    let (folder, file) = folder_of(&identity);
    let authorities = folder.path().join("clients.pem");
    fs::write(&authorities, &friend.pem).expect("a file");
    let mut server = server(&file, &format!(",ssl_verify_mode=2,ssl_ca_cert={}", authorities.display()), &[]);
    let address = server.clients();
    assert!(Client::connect(address, &identity, Some(&friend)).ask("version\r\n").starts_with("VERSION "));
    for refused in [None, Some(&stranger)] {
        let answer = Client::connect(address, &identity, refused).try_ask("version\r\n");
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[test]
fn q2_verify_mode_1_without_anybody_who_vouches_lets_everybody_in() {
    let (identity, stranger) = (Identity::new(), Identity::new());
    let (_folder, file) = folder_of(&identity);
    let mut server = server(&file, ",ssl_verify_mode=1", &[]);
    for shown in [None, Some(&stranger)] {
        assert!(
            Client::connect(server.clients(), &identity, shown).ask("version\r\n").starts_with("VERSION ")
        );
    }
}

#[test]
fn sighup_shows_new_clients_the_new_certificate_and_keeps_the_old_connections() {
    let (before, after) = (Identity::new(), Identity::new());
    let (_folder, file) = folder_of(&before);
    let mut server = server(&file, "", &[]);
    let mut old = Client::connect(server.clients(), &before, None);
    assert!(old.ask("version\r\n").starts_with("VERSION "));
    fs::write(&file, &after.pem).expect("a file");
    server.signal(Signal::HUP);
    server.wait_said("files were read again");
    assert!(Client::connect(server.clients(), &after, None).ask("version\r\n").starts_with("VERSION "));
    assert!(Client::connect(server.clients(), &before, None).try_ask("version\r\n").is_err());
    assert!(old.ask("version\r\n").starts_with("VERSION "));
    fs::write(&file, "nonsense").expect("a file");
    server.signal(Signal::HUP);
    server.wait_said("what it held before stays in use");
    assert!(Client::connect(server.clients(), &after, None).ask("version\r\n").starts_with("VERSION "));
}

#[test]
fn g6_refresh_certs_reads_the_certificates_again_or_says_why_not() {
    let (before, after) = (Identity::new(), Identity::new());
    let (_folder, file) = folder_of(&before);
    let mut server = server(&file, "", &[]);
    let mut client = Client::connect(server.clients(), &before, None);
    fs::write(&file, &after.pem).expect("a file");
    assert_eq!(client.ask("refresh_certs\r\n"), "OK");
    assert!(Client::connect(server.clients(), &after, None).ask("version\r\n").starts_with("VERSION "));
    fs::write(&file, "nonsense").expect("a file");
    let answer = client.ask("refresh_certs\r\n");
    assert!(answer.starts_with("SERVER_ERROR no certificate in "), "{answer}");
    assert!(Client::connect(server.clients(), &after, None).ask("version\r\n").starts_with("VERSION "));
    let mut without = crate::standalone(16);
    assert_eq!(Wire::connect(without.clients()).ask("refresh_certs\r\n"), "Error TLS not enabled");
}

/// The lines of `stats`, asked over an encrypted connection.
fn stats(client: &mut Client) -> Vec<String> {
    let mut lines = vec![client.ask("stats\r\n")];
    while lines.last().is_some_and(|line| line != "END") {
        lines.push(client.ask(""));
    }
    lines
}

/// Waits until the statistics are these.
fn wait_stats(client: &mut Client, expected: &[(&str, &str)]) {
    wait::wait_until("the counts of TLS", LIMIT, || {
        let lines = stats(client);
        expected.iter().all(|(name, value)| lines.contains(&format!("STAT {name} {value}")))
    });
}

#[test]
fn g6_tls_tells_its_handshakes_errors_and_the_certificates_age() {
    let identity = Identity::new();
    let (_folder, file) = folder_of(&identity);
    let mut server = server(&file, "", &[]);
    let address = server.clients();
    let mut client = Client::connect(address, &identity, None);
    let fresh = [("ssl_handshake_errors", "0"), ("ssl_proto_errors", "0"), ("ssl_new_sessions", "1")];
    wait_stats(&mut client, &fresh);
    Wire::connect(address).send_anyhow(b"version\r\n");
    wait_stats(&mut client, &[("ssl_handshake_errors", "1"), ("ssl_proto_errors", "0")]);
    let mut second = Client::connect(address, &identity, None);
    assert!(second.ask("version\r\n").starts_with("VERSION "));
    wait_stats(&mut client, &[("ssl_new_sessions", "2")]);
    second.0.get_mut().sock.write_all(b"no record of TLS").expect("bytes sent");
    wait_stats(&mut client, &[("ssl_handshake_errors", "1"), ("ssl_proto_errors", "1")]);
    let is_new =
        |client: &mut Client| stats(client).contains(&"STAT time_since_server_cert_refresh 0".to_owned());
    wait::wait_until("certificates that are a second old", LIMIT, || !is_new(&mut client));
    wait::wait_until("certificates read just now", LIMIT, || {
        client.ask("refresh_certs\r\n") == "OK" && is_new(&mut client)
    });
}

#[test]
fn a_client_that_never_begins_the_handshake_is_closed() {
    let (_folder, file) = folder_of(&Identity::new());
    let mut server = server(&file, ",request_timeout=1,request_rate=0", &[]);
    let mut silent = Wire::connect(server.clients());
    // TLS says goodbye before it closes.
    assert!(silent.up_to(64).len() < 64);
    assert!(silent.is_closed());
}

#[test]
fn a_server_that_could_not_encrypt_does_not_start() {
    let (folder, file) = folder_of(&Identity::new());
    let missing = folder.path().join("missing.pem");
    for (file, words, named) in [
        (&missing, String::new(), "missing.pem"),
        (&file, format!(",ssl_key={}", missing.display()), "missing.pem"),
        (&file, ",ssl_verify_mode=2".to_owned(), "ssl_ca_cert"),
        (&file, ",ssl_frobnicate".to_owned(), "ssl_frobnicate"),
    ] {
        let mut server = server(file, &words, &[]);
        assert_eq!(server.wait_exit(LIMIT), Some(EXIT_USAGE), "{:#?}", server.said());
        assert!(server.said().iter().any(|line| line.contains(named)), "{:#?}", server.said());
    }
}
