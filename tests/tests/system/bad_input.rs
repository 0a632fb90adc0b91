//! What nobody should send or say at start: refused, and the server goes on for everyone else.
//!
//! Lives here: garbage on both ports, peers that do not belong, and command lines that make no sense.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::process::Server;
use tests::{admin, wait};

use crate::wire::{self, Wire};

/// The exit code for a command line that makes no sense (EX_USAGE).
const EXIT_USAGE: i32 = 64;
/// The exit code for what the system refuses (EX_OSERR).
const EXIT_SYSTEM: i32 = 71;
/// How long a stranger is watched for not being let in.
const WATCHED: Duration = Duration::from_secs(1);
/// How long a refused start may take.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// Seeded bytes without meaning.
fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random()).collect()
}

/// Sends each of `messages` over a connection of its own and hangs up; then the clients must be served as before.
fn hurt(server: &mut Server, port: SocketAddr, messages: &[Vec<u8>]) {
    for message in messages {
        let mut wire = Wire::connect(port);
        wire.send_anyhow(message);
        drop(wire);
        wire::assert_serves(server.clients());
    }
}

#[test]
fn garbage_on_the_client_port_harms_nobody() {
    let mut server = crate::standalone(16);
    let port = server.clients();
    let mut messages: Vec<Vec<u8>> = (0..20).map(|seed| random_bytes(seed, 3_000)).collect();
    // A binary header that announces 4 GiB, a block that never comes, and lines without an end.
    messages.push([&[0x80, 0x01, 0xff, 0xff][..], &[0xff; 20]].concat());
    messages.push(b"set a 0 0 2147483645\r\nshort".to_vec());
    messages.push(vec![b' '; 100_000]);
    messages.push(b"get ".repeat(50_000));
    hurt(&mut server, port, &messages);
}

#[test]
fn garbage_on_the_replication_port_harms_nobody() {
    let mut server = crate::primary(16, crate::ANY_PORT);
    let port = server.replication();
    let mut messages: Vec<Vec<u8>> = (100..120).map(|seed| random_bytes(seed, 3_000)).collect();
    // Nothing but the largest lengths, a stranger's protocol, one byte, nothing at all.
    messages.push(vec![0xff; 4_096]);
    messages.push(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
    messages.push(vec![0]);
    messages.push(Vec::new());
    hurt(&mut server, port, &messages);
}

#[test]
fn a_replication_peer_that_says_nothing_keeps_nobody_waiting() {
    let mut server = crate::primary(16, crate::ANY_PORT);
    let mut silent: Vec<Wire> = (0..8).map(|_| Wire::connect(server.replication())).collect();
    silent.iter_mut().for_each(|wire| wire.send_anyhow(&[1]));
    silent.iter_mut().for_each(Wire::finish);
    let mut replica = crate::replica(16, server.replication());
    admin::wait_streaming(replica.admin());
    wire::assert_serves(server.clients());
}

/// A replica with `more` arguments never streams from `primary`, which goes on.
fn assert_kept_out(primary: &mut Server, more: &[&str]) {
    let of = primary.replication().to_string();
    let arguments = ["-p", "0", "-m", "16", "--replica-of", &of, "--admin", crate::ANY_PORT];
    let mut stranger = Server::start(crate::BINARY, &[&arguments[..], more].concat());
    let status = stranger.admin();
    let until = Instant::now() + WATCHED;
    wait::wait_until("the end of the watch", WATCHED * 2, || {
        let found = admin::status(status);
        let streams = found.as_ref().is_some_and(|status| admin::says(status, "link", "streaming"));
        assert!(!streams, "a stranger was let in: {found:?}");
        Instant::now() >= until
    });
    wire::assert_serves(primary.clients());
}

#[test]
fn a_replica_of_another_group_is_kept_out() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    assert_kept_out(&mut primary, &["--group", "another"]);
}

#[test]
fn a_replica_with_another_secret_or_none_is_kept_out() {
    let secret = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("a secret written");
        file
    };
    let (right, wrong) =
        (secret("the right secret, long enough\n"), secret("a wrong secret, also long enough\n"));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().expect("a plain path").to_owned();
    let arguments = ["-p", "0", "-m", "16", "--replication-listen", crate::ANY_PORT];
    let more = ["--admin", crate::ANY_PORT, "--replication-secret-file", &path(&right)];
    let mut primary = Server::start(crate::BINARY, &[&arguments[..], &more[..]].concat());
    assert_kept_out(&mut primary, &["--replication-secret-file", &path(&wrong)]);
    assert_kept_out(&mut primary, &[]);
    let of = primary.replication().to_string();
    let arguments = ["-p", "0", "-m", "16", "--replica-of", &of, "--admin", crate::ANY_PORT];
    let mut friend = Server::start(
        crate::BINARY,
        &[&arguments[..], &["--replication-secret-file", &path(&right)]].concat(),
    );
    admin::wait_streaming(friend.admin());
}

#[test]
fn a_command_line_without_sense_ends_with_64_and_says_why() {
    for arguments in
        [&["--frobnicate"][..], &["-p", "many"], &["-m", "0"], &["-p", "0", "--replica-of", "nowhere"]]
    {
        let mut server = Server::spawn(crate::BINARY, arguments);
        assert_eq!(server.wait_exit(REFUSAL_LIMIT), Some(EXIT_USAGE), "{arguments:?}: {:#?}", server.said());
        assert!(!server.said().is_empty(), "{arguments:?} was refused without a word");
    }
}

#[test]
fn a_port_in_use_ends_with_71_and_names_the_port() {
    let mut first = crate::standalone(16);
    let port = first.clients().port().to_string();
    let mut second = Server::spawn(crate::BINARY, &["-p", &port, "-m", "16"]);
    assert_eq!(second.wait_exit(REFUSAL_LIMIT), Some(EXIT_SYSTEM), "{:#?}", second.said());
    assert!(second.said().iter().any(|line| line.contains(&port)), "{:#?}", second.said());
    wire::assert_serves(first.clients());
}
