//! Where clients get in: several addresses, unix sockets, free ports.
//!
//! Lives here: `-l`, `-p`, `-s`, `-a`, and rule Z8's port file.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::process::Server;
use tests::{ports, wait};

use crate::wire;

/// The exit code for what the system refuses (EX_OSERR).
const EXIT_SYSTEM: i32 = 71;
/// How long an end or a reply may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A server at the unix socket `path`.
fn at_socket(path: &Path, more: &[&str]) -> Server {
    let path = path.to_str().expect("a plain path");
    Server::spawn(crate::BINARY, &[&["-m", "16", "-s", path], more].concat())
}

/// What the server at the unix socket answers to `version`.
fn version_at(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).expect("a server at the socket");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.write_all(b"version\r\nquit\r\n").expect("bytes sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn every_address_of_l_serves_repeated_or_after_a_comma() {
    let mut server = Server::start(
        crate::BINARY,
        &["-m", "16", "-p", "0", "-l", "127.0.0.1,127.0.0.2:0", "-l", "127.0.0.3"],
    );
    assert_eq!(server.clients().ip().to_string(), "127.0.0.1");
    let places: Vec<SocketAddr> =
        server.all_clients(3).iter().map(|place| place.parse().expect("an address")).collect();
    let hosts: Vec<String> = places.iter().map(|place| place.ip().to_string()).collect();
    assert_eq!(hosts, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    places.iter().for_each(|place| wire::assert_serves(*place));
}

#[test]
fn both_families_take_the_same_port() {
    if !has_ipv6() {
        return eprintln!("skipped: no IPv6 here");
    }
    let free = ports::port();
    let both = format!("0.0.0.0:{free},[::]:{free}");
    let server = Server::start(crate::BINARY, &["-m", "16", "-l", &both]);
    assert_eq!(server.all_clients(2), [format!("0.0.0.0:{free}"), format!("[::]:{free}")]);
    wire::assert_serves(SocketAddr::from(([127, 0, 0, 1], free)));
    wire::assert_serves(format!("[::1]:{free}").parse().expect("an address"));
}

#[test]
fn z8_the_port_file_names_the_ports_that_were_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ports");
    let mut command = Command::new(crate::BINARY);
    command.args(["-m", "16", "-p", "0", "-l", "127.0.0.1,127.0.0.2"]).env("MEMCACHED_PORT_FILENAME", &file);
    let server = Server::spawn_command(&mut command);
    // Complete when it appears: no try reads half of it.
    let text = wait::wait_for("the port file", LIMIT, || fs::read_to_string(&file).ok());
    let ports: Vec<u16> = server
        .all_clients(2)
        .iter()
        .map(|place| place.parse::<SocketAddr>().expect("an address").port())
        .collect();
    assert!(ports.iter().all(|port| *port > 0));
    assert_eq!(text, format!("TCP INET: {}\nTCP INET: {}\n", ports[0], ports[1]));
}

#[test]
fn a_unix_socket_serves_with_the_mode_of_a_and_is_removed_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    for (mode, expected) in [(&[][..], 0o700), (&["-a", "0666"], 0o666), (&["-a", "777"], 0o777)] {
        let path = folder.path().join("socket");
        let mut server = at_socket(&path, mode);
        server.wait_said("listening for clients on ");
        assert!(version_at(&path).starts_with("VERSION "));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, expected);
        assert_eq!(server.all_clients(1), [path.to_str().expect("a plain path")], "and no TCP beside it");
        server.terminate();
        assert_eq!(server.wait_exit(LIMIT), Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_file_that_a_killed_server_left_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let mut first = at_socket(&path, &[]);
    first.wait_said("listening for clients on ");
    first.kill_9();
    assert!(path.exists(), "nobody was left to remove it");
    let second = at_socket(&path, &[]);
    second.wait_said("listening for clients on ");
    assert!(version_at(&path).starts_with("VERSION "));
}

#[test]
fn a_socket_that_somebody_listens_at_is_not_taken_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let _first = UnixListener::bind(&path).expect("a socket");
    let mut second = at_socket(&path, &[]);
    assert_eq!(second.wait_exit(LIMIT), Some(EXIT_SYSTEM), "{:#?}", second.said());
    UnixStream::connect(&path).expect("the first listens as before");
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notes");
    fs::write(&path, "precious").expect("a file");
    let mut server = at_socket(&path, &[]);
    assert_eq!(server.wait_exit(LIMIT), Some(EXIT_SYSTEM), "{:#?}", server.said());
    assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
}
