//! UDP (rule U1): one datagram asks, numbered ones answer, and what has no sense gets none.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, wait};

use crate::wire::Wire;

/// How long what must come may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A request's header: the id, and that it is all in one datagram.
fn header(id: u16) -> Vec<u8> {
    [id, 0, 1, 0].map(u16::to_be_bytes).concat()
}

struct Client {
    socket: UdpSocket,
}

impl Client {
    fn new(server: &Server) -> Client {
        let line = server.wait_said("answering datagrams on ");
        let (_, address) = line.split_once("answering datagrams on ").expect("the words");
        let address: SocketAddr = address.parse().expect("an address");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(address).expect("an address");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
        Client { socket }
    }

    fn send(&self, header: &[u8], request: &[u8]) {
        self.socket.send(&[header, request].concat()).expect("a datagram sent");
    }

    /// The next datagram: id, sequence, number of datagrams, zero; and what it brings.
    fn datagram(&self) -> ([u16; 4], Vec<u8>) {
        let mut bytes = vec![0; 1 << 16];
        let count = self.socket.recv(&mut bytes).expect("a datagram");
        assert!((8..=1400).contains(&count), "{count} bytes");
        let field = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        ([field(0), field(2), field(4), field(6)], bytes[8..count].to_vec())
    }

    /// The whole answer to the request of this id.
    fn answer(&self, id: u16) -> Vec<u8> {
        let ([_, _, count, _], mut answer) = self.datagram_of(id, 0);
        for sequence in 1..count {
            let (head, more) = self.datagram_of(id, sequence);
            assert_eq!(head[2], count);
            answer.extend_from_slice(&more);
        }
        answer
    }

    fn datagram_of(&self, id: u16, sequence: u16) -> ([u16; 4], Vec<u8>) {
        let (head, piece) = self.datagram();
        assert_eq!((head[0], head[1], head[3]), (id, sequence, 0), "{}", piece.escape_ascii());
        (head, piece)
    }

    fn ask(&self, request: &[u8]) -> String {
        self.send(&header(7), request);
        self.answer(7).escape_ascii().to_string()
    }
}

fn start(more: &[&str]) -> Server {
    Server::start(crate::BINARY, &[&["-m", "64", "-p", "-1", "-U", "-1"], more].concat())
}

#[test]
fn u1_all_three_protocols_answer_over_udp_what_they_answer_over_tcp() {
    let mut server = start(&[]);
    let client = Client::new(&server);
    assert_eq!(client.ask(b"set a 5 0 3\r\nabc\r\n"), r"STORED\r\n");
    assert_eq!(client.ask(b"mg a v f\r\n"), r"VA 3 f5\r\nabc\r\n");
    assert_eq!(
        client.ask(b"get a b a\r\nmn\r\n"),
        r"VALUE a 5 3\r\nabc\r\nVALUE a 5 3\r\nabc\r\nEND\r\nMN\r\n"
    );
    assert_eq!(client.ask(b"bogus\r\n"), r"ERROR\r\n");
    let get = [&b"\x80\x00\0\x01\0\0\0\0\0\0\0\x01"[..], b"tell", &[0; 8], b"a"].concat();
    client.send(&header(9), &get);
    let answer = client.answer(9);
    assert_eq!((answer[0], &answer[12..16], &answer[24..]), (0x81, &b"tell"[..], &b"\0\0\0\x05abc"[..]));
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("get a\r\n"), "VALUE a 5 3");
    assert_eq!((wire.line(), wire.line()), ("abc".to_owned(), "END".to_owned()));
}

#[test]
fn u1_a_long_answer_comes_in_numbered_datagrams_of_at_most_1400_bytes() {
    let mut server = start(&[]);
    let value: String = (0..9_000).map(|number| char::from(b'a' + (number % 26) as u8)).collect();
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask(&format!("set long 0 0 9000\r\n{value}\r\n")), "STORED");
    let client = Client::new(&server);
    client.send(&header(65535), b"get long\r\n");
    let answer = client.answer(65535);
    assert_eq!(String::from_utf8(answer).expect("text"), format!("VALUE long 0 9000\r\n{value}\r\nEND\r\n"));
    // Exactly full: 1392 bytes go behind one header, one byte more needs another.
    for (value_bytes, datagrams) in [(1392 - 26, 1), (1393 - 26, 2)] {
        let value = "x".repeat(value_bytes);
        assert_eq!(wire.ask(&format!("set full 0 0 {value_bytes}\r\n{value}\r\n")), "STORED");
        client.send(&header(1), b"get full\r\n");
        assert_eq!(client.datagram().0, [1, 0, datagrams, 0]);
        (1..datagrams).for_each(|_| assert_eq!(client.datagram().1, b"\n"));
    }
}

#[test]
fn u1_what_is_no_request_of_one_datagram_is_not_answered() {
    let server = start(&[]);
    let client = Client::new(&server);
    let in_two = [3, 0, 2, 0].map(u16::to_be_bytes).concat();
    let in_none = [3, 0, 0, 0].map(u16::to_be_bytes).concat();
    let silent: [(&[u8], &[u8]); 9] = [
        (b"", b""),
        (b"", b"1234567"),
        (&header(3), b""),
        (&in_two, b"version\r\n"),
        (&in_none, b"version\r\n"),
        (&header(3), b"get a"),
        (&header(3), b"set a 0 0 10\r\n12345"),
        (&header(3), b"\x80"),
        (&header(3), b"set a 0 0 1 noreply\r\n1\r\nquit\r\nversion\r\n"),
    ];
    for (head, request) in silent {
        client.send(head, request);
    }
    // Each datagram begins anew, and an answer to one of those would have come before this one's.
    assert_eq!(client.ask(b"get a\r\n"), r"VALUE a 0 1\r\n1\r\nEND\r\n");
}

#[test]
fn u1_a_small_question_has_no_unbounded_answer_or_work() {
    let mut server = start(&["-I", "1m"]);
    let mut wire = Wire::connect(server.clients());
    let value = "x".repeat(400_000);
    assert_eq!(wire.ask(&format!("set big 0 0 400000\r\n{value}\r\n")), "STORED");
    let client = Client::new(&server);
    let too_long = r"SERVER_ERROR the answer is too long for UDP\r\n";
    assert_eq!(client.ask(b"get big big big big\r\n"), too_long);
    assert_eq!(client.ask(&b"mg big v\r\n".repeat(4)), too_long);
    let turns = [
        "watch\r\n",
        "lru_crawler metadump all\r\n",
        "lru_crawler mgdump all\r\n",
        "stats cachedump 1 0\r\n",
        "cache_memlimit 8\r\n",
    ];
    for request in turns {
        assert_eq!(client.ask(request.as_bytes()), r"SERVER_ERROR not over UDP\r\n", "{request}");
    }
    assert_eq!(wire.ask("watch\r\n"), "OK", "it goes over TCP");
}

#[test]
fn z8_the_port_file_names_the_udp_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ports");
    let mut command = Command::new(crate::BINARY);
    command.args(["-m", "16", "-p", "-1", "-U", "-1"]).env("MEMCACHED_PORT_FILENAME", &file);
    let mut server = Server::spawn_command(&mut command);
    let text = wait::wait_for("the port file", LIMIT, || fs::read_to_string(&file).ok());
    let port = Client::new(&server).socket.peer_addr().expect("a peer").port();
    assert_eq!(text, format!("TCP INET: {}\nUDP INET: {port}\n", server.clients().port()));
}

/// An answer over UDP waits for its acks, too, and for no longer than other answers do.
#[test]
fn u1_an_answer_says_whether_the_write_is_replicated() {
    let group = ["--ack", "semi-sync:1", "--replication-listen", crate::ANY_PORT, "--admin", crate::ANY_PORT];
    let mut primary = start(&[&group[..], &["--ack-timeout-ms", "300"]].concat());
    let of = primary.replication().to_string();
    let replica = Server::start(
        crate::BINARY,
        &[&["-m", "64", "-p", "0"], &group[..], &["--replica-of", &of]].concat(),
    );
    let address = primary.admin();
    wait::wait_until("a level replica", LIMIT, || {
        admin::status(address).is_some_and(|status| status["level_replicas"] == 1)
    });
    let client = Client::new(&primary);
    assert_eq!(client.ask(b"set a 0 0 1\r\n1\r\nget a\r\n"), "STORED\\r\\nVALUE a 0 1\\r\\n1\\r\\nEND\\r\\n");
    replica.pause();
    assert_eq!(client.ask(b"set a 0 0 1\r\n2\r\n"), "SERVER_ERROR replication timeout\\r\\n");
    replica.signal(Signal::CONT);
}
