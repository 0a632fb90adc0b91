//! TCP, plain and encrypted, keeps what every transport promises.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use hotspare::transport::Transport;
use hotspare::transport::conformance::{self, Subject};
use hotspare_tls::issue::Authority;
use mio::Poll;

use crate::transport::{Arrivals, LINK, LISTENER, TcpTransport};
use crate::{Credentials, Options};

const FRAME_BYTES_MAX: usize = 1 << 20;

/// Certificates of one group, one for each name.
pub(crate) fn credentials<const COUNT: usize>(names: [&str; COUNT]) -> [Credentials; COUNT] {
    let authority = Authority::new("a group").unwrap();
    names.map(|name| {
        let issued = authority.issue(name, &[]).unwrap();
        Credentials::from_pem(&authority.pem().certificate, &issued.certificate, &issued.key).unwrap()
    })
}

#[derive(Default)]
struct Tcp {
    options: Options,
    /// The sockets' registry must outlive them; nobody polls it: the suite looks by itself.
    polls: Vec<Poll>,
    arrivals: Arrivals,
}

impl Subject for Tcp {
    fn open(&mut self) -> Box<dyn Transport> {
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        self.polls.push(poll);
        let options = self.options.clone().listen("127.0.0.1:0".parse().unwrap());
        Box::new(TcpTransport::open(options, FRAME_BYTES_MAX, registry, self.arrivals.clone()).unwrap())
    }

    fn rest(&mut self) {
        [LINK, LISTENER].into_iter().for_each(|token| self.arrivals.note(token));
        std::thread::sleep(Duration::from_millis(1));
    }

    fn nobody(&mut self) -> String {
        // Nobody listens any more at a port that was free a moment ago.
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn open_links(&mut self, address: &str) -> usize {
        let port = format!(":{:04X}", address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let held = |line: &&str| {
            // Local address, remote address, state (0A listens), and an inode while somebody holds the socket.
            let words: Vec<&str> = line.split_whitespace().collect();
            let at_port = words[1].ends_with(&port) || words[2].ends_with(&port);
            at_port && words[3] != "0A" && words[9] != "0"
        };
        table.lines().skip(1).filter(held).count()
    }

    fn frame_bytes_max(&self) -> Option<usize> {
        Some(FRAME_BYTES_MAX)
    }

    fn attack(&mut self, address: &str, attack: usize) -> bool {
        let preamble = [&b"HSPR\x01\0\0\0"[..], &[7; 32]].concat();
        // A TLS record that says it is a ClientHello, and is not.
        let hello = [&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[0xee; 194]].concat();
        let attacks: [&[u8]; 7] = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 100_000],
            &preamble[..20],
            &[&preamble[..], &[0xff; 64]].concat(),
            &[&preamble[..], &[10, 0, 0, 0, 1]].concat(),
            &hello,
        ];
        let Some(bytes) = attacks.get(attack) else { return false };
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // It may be closed before all has gone; and what it answers is for the transport's own tests.
        let _ = socket.write_all(bytes).and_then(|()| socket.read(&mut [0; 100]));
        true
    }

    fn proves_peers(&self) -> bool {
        self.options.secret.is_some() || self.options.tls.is_some()
    }

    fn certificate_subject(&self) -> Option<String> {
        self.options.tls.as_ref().map(|_| "CN=cache-1".to_owned())
    }
}

#[test]
fn plain_tcp_keeps_the_promises_of_a_transport() {
    conformance::run(&mut Tcp::default());
}

#[test]
fn tcp_with_a_secret_keeps_the_promises_of_a_transport() {
    conformance::run(&mut Tcp { options: Options::new().secret("s"), ..Tcp::default() });
}

#[test]
fn tcp_with_tls_keeps_the_promises_of_a_transport() {
    let [certificates] = credentials(["cache-1"]);
    conformance::run(&mut Tcp { options: Options::new().tls(certificates), ..Tcp::default() });
}
