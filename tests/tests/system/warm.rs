//! Warm restarts: what `-e` keeps, when, for whom, and that nobody starts from a file twice.
//!
//! Lives here: one process after the other with the same file. Not here: what the file says (see the engine's tests).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::{Wire, stat};

/// How long an orderly end, or roles to settle, may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The exit code for what the system refuses (EX_OSERR).
const EXIT_SYSTEM: i32 = 71;
const ITEMS: usize = 3_000;

/// A folder and the memory file in it.
struct Place {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory");
        Place { folder, file }
    }

    fn server(&self, more: &[&str]) -> Server {
        let file = self.file.to_str().expect("a plain path");
        Server::start(crate::BINARY, &[&["-p", "0", "-m", "16", "-e", file], more].concat())
    }

    /// What lies in the folder.
    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).expect("a folder");
        let mut names: Vec<PathBuf> =
            entries.map(|entry| Path::new(&entry.expect("an entry").file_name()).to_owned()).collect();
        names.sort();
        names
    }
}

fn stop_gracefully(server: &mut Server) {
    server.signal(Signal::USR1);
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{:#?}", server.said());
}

fn fill(address: SocketAddr, value: &str) {
    let mut wire = Wire::connect(address);
    for key in 0..ITEMS {
        let bytes = value.len();
        wire.send(format!("set key-{key} {key} 0 {bytes} noreply\r\n{value}\r\n"));
    }
    assert_eq!(wire.ask("mn\r\n"), "MN");
}

/// The lines that answer a `gets` of a present key.
fn gets(address: SocketAddr, key: &str) -> (String, String) {
    let mut wire = Wire::connect(address);
    let head = wire.ask(&format!("gets {key}\r\n"));
    assert!(head.starts_with("VALUE "), "{key}: {head}");
    (head, wire.line())
}

fn is_there(address: SocketAddr, key: &str) -> bool {
    Wire::connect(address).ask(&format!("get {key}\r\n")) != "END"
}

#[test]
fn everything_is_there_after_sigusr1_and_a_start_and_the_file_serves_once() {
    let place = Place::new();
    let mut server = place.server(&[]);
    fill(server.clients(), "value");
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set short 0 2 1\r\nv\r\n"), "STORED");
    assert_eq!(wire.ask("set long 0 1000 1\r\nv\r\n"), "STORED");
    assert_eq!(wire.ask("ms stated 1 E77 F5\r\nv\r\n"), "HD");
    assert_eq!(wire.ask("delete key-7\r\n"), "DELETED");
    drop(wire);
    let before = gets(server.clients(), "key-2999");
    stop_gracefully(&mut server);
    server.wait_said(&format!("saved {} items to the memory file", ITEMS + 2));
    assert_eq!(place.names(), [Path::new("memory")]);

    let mut server = place.server(&[]);
    let address = server.clients();
    assert!(place.names().is_empty(), "it was removed before anybody was served");
    assert_eq!(gets(address, "key-2999"), before, "flags, value and CAS unique");
    assert_eq!(stat(address, "curr_items"), ITEMS as u64 + 2);
    assert!(!is_there(address, "key-7"));
    assert_eq!(gets(address, "stated").0, "VALUE stated 5 1 77");
    let left = Wire::connect(address).ask("mg long t\r\n");
    let left: u64 = left.strip_prefix("HD t").and_then(|seconds| seconds.parse().ok()).expect("a number");
    assert!((900..=1000).contains(&left), "{left} seconds left");
    wait::wait_until("the short life's end", LIMIT, || !is_there(address, "short"));
    let unique = |head: &str| head.rsplit(' ').next().expect("a word").parse::<u64>().expect("a number");
    assert_eq!(Wire::connect(address).ask("set new 0 0 1\r\nv\r\n"), "STORED");
    assert!(unique(&gets(address, "new").0) > ITEMS as u64 + 4, "above all that were given");

    server.kill_9();
    let mut server = place.server(&[]);
    server.wait_said("no memory file");
    assert_eq!(stat(server.clients(), "curr_items"), 0);
}

#[test]
fn g4_only_a_graceful_stop_saves_as_memcached_does() {
    for (request, saves) in [("shutdown graceful\r\n", true), ("shutdown\r\n", false)] {
        let place = Place::new();
        let mut server = place.server(&["-A"]);
        fill(server.clients(), "v");
        Wire::connect(server.clients()).send(request);
        assert_eq!(server.wait_exit(LIMIT), Some(0), "{:#?}", server.said());
        assert_eq!(place.file.exists(), saves, "{request}");
    }
    let place = Place::new();
    let mut server = place.server(&[]);
    server.terminate();
    assert_eq!(server.wait_exit(LIMIT), Some(0));
    assert!(place.names().is_empty(), "SIGTERM");
}

#[test]
fn damaged_file_is_refused_in_one_clear_line_and_the_server_starts_empty() {
    let place = Place::new();
    let mut server = place.server(&[]);
    fill(server.clients(), "value");
    stop_gracefully(&mut server);
    let sound = fs::read(&place.file).expect("a file");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 4;
    let cases: [(&[u8], &str); 4] = [
        (&flipped, "it is damaged: a checksum is wrong"),
        (&sound[..sound.len() - 1], "it is damaged: it ends too early"),
        (b"#!/bin/sh", "it is no saved cache"),
        (b"", "it is no saved cache"),
    ];
    for (bytes, why) in cases {
        fs::write(&place.file, bytes).expect("a file to write");
        let mut server = place.server(&[]);
        let line = server.wait_said("is refused");
        assert!(line.contains(why) && line.contains("starting empty"), "{line}");
        assert_eq!(stat(server.clients(), "curr_items"), 0);
        assert_eq!(place.names(), [Path::new("memory.refused")]);
    }
    fs::write(&place.file, &sound).expect("a file to write");
    assert_eq!(stat(place.server(&[]).clients(), "curr_items"), ITEMS as u64, "it was sound");
}

#[test]
fn a_start_that_fails_keeps_the_file_and_a_place_that_cannot_be_written_is_no_start() {
    let place = Place::new();
    let mut server = place.server(&[]);
    fill(server.clients(), "value");
    stop_gracefully(&mut server);
    let mut taken = crate::standalone(16);
    let (port, file) = (taken.clients().port().to_string(), place.file.to_str().expect("a plain path"));
    let mut failing = Server::spawn(crate::BINARY, &["-p", &port, "-m", "16", "-e", file]);
    assert_eq!(failing.wait_exit(LIMIT), Some(EXIT_SYSTEM), "{:#?}", failing.said());
    assert_eq!(place.names(), [Path::new("memory")]);
    assert_eq!(stat(place.server(&[]).clients(), "curr_items"), ITEMS as u64);
    let nowhere = place.folder.path().join("missing/memory");
    let nowhere = nowhere.to_str().expect("a plain path");
    let mut failing = Server::spawn(crate::BINARY, &["-p", "0", "-m", "16", "-e", nowhere]);
    assert_eq!(failing.wait_exit(LIMIT), Some(EXIT_SYSTEM), "{:#?}", failing.said());
    failing.wait_said("missing/memory");
}

/// How often a node was copied whole.
fn installs(address: SocketAddr) -> u64 {
    let status = admin::status(address).expect("a status");
    status["installs"].as_u64().expect("a number")
}

fn wait_all(server: &mut Server) {
    let address = server.clients();
    wait::wait_until("all items", LIMIT, || stat(address, "curr_items") == ITEMS as u64);
}

#[test]
fn replica_goes_on_without_a_full_copy_when_its_primary_or_it_itself_restarts_warm() {
    let (of_primary, of_replica) = (Place::new(), Place::new());
    let nodes = ["--replication-listen", crate::ANY_PORT, "--admin", crate::ANY_PORT];
    let listens = ports::local().to_string();
    let mut primary = of_primary.server(&["--replication-listen", &listens, "--admin", crate::ANY_PORT]);
    let clients = primary.clients();
    let of = ["--replica-of", &listens];
    let mut replica = of_replica.server(&[&nodes[..], &of].concat());
    admin::wait_streaming(replica.admin());
    fill(clients, "first");
    wait_all(&mut replica);
    assert_eq!(installs(replica.admin()), 1);

    stop_gracefully(&mut primary);
    let mut primary = of_primary.server(&["--replication-listen", &listens, "--admin", crate::ANY_PORT]);
    primary.wait_said("this node is the primary, as before");
    assert_eq!(gets(primary.clients(), "key-5").1, "first");
    assert_eq!(Wire::connect(primary.clients()).ask("set key-5 5 0 6\r\nsecond\r\n"), "STORED");
    replica.wait_said("plan=Resume");
    assert_eq!(installs(replica.admin()), 1, "none since the first");

    stop_gracefully(&mut replica);
    assert_eq!(Wire::connect(primary.clients()).ask("set key-6 6 0 6\r\nsecond\r\n"), "STORED");
    let mut replica = of_replica.server(&[&nodes[..], &of].concat());
    admin::wait_streaming(replica.admin());
    assert_eq!(installs(replica.admin()), 0);
    primary.terminate();
    assert_eq!(primary.wait_exit(LIMIT), Some(0));
    admin::promote(replica.admin());
    for key in ["key-5", "key-6"] {
        assert_eq!(gets(replica.clients(), key).1, "second");
    }
    assert_eq!(stat(replica.clients(), "curr_items"), ITEMS as u64);
}

#[test]
fn primary_whose_spare_was_promoted_meanwhile_answers_nothing_old() {
    let place = Place::new();
    let listens = ports::local().to_string();
    let mut primary = place.server(&["--replication-listen", &listens, "--admin", crate::ANY_PORT]);
    let mut replica = crate::replica(16, primary.replication());
    admin::wait_streaming(replica.admin());
    fill(primary.clients(), "old");
    wait_all(&mut replica);
    stop_gracefully(&mut primary);
    admin::promote(replica.admin());
    fill(replica.clients(), "new");
    let mut old = place.server(&["--replication-listen", &listens, "--admin", crate::ANY_PORT]);
    let mut wire = Wire::connect(old.clients());
    wait::wait_until("the old primary to follow", LIMIT, || {
        let answer = wire.ask("get key-5\r\n");
        assert!(answer.starts_with("SERVER_ERROR"), "{answer}");
        admin::status(old.admin()).is_some_and(|status| admin::says(&status, "link", "streaming"))
    });
    assert_eq!(installs(old.admin()), 0);
    replica.terminate();
    assert_eq!(replica.wait_exit(LIMIT), Some(0));
    admin::promote(old.admin());
    assert_eq!(gets(old.clients(), "key-5").1, "new");
}
