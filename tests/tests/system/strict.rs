//! Strict: what a primary answers that was stopped, and what reads wait for.
//!
//! Lives here: pairs of processes with `--ack strict:1`. Not here: what a lease is (the engine's own tests), whether all of
//! it is linearizable (see the simulation).

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, wait};

use crate::wire::{Wire, stat};

const LIMIT: Duration = Duration::from_secs(20);

const COMMON: [&str; 10] = [
    "-p",
    "0",
    "-m",
    "64",
    "--ack",
    "strict:1",
    "--replication-listen",
    crate::ANY_PORT,
    "--admin",
    crate::ANY_PORT,
];

fn pair(more: &[&str]) -> (Server, Server) {
    let mut first = Server::start(crate::BINARY, &[&COMMON[..], &["--bootstrap"], more].concat());
    let of = first.replication().to_string();
    let second = Server::start(crate::BINARY, &[&COMMON[..], &["--replica-of", &of], more].concat());
    let admin = first.admin();
    wait::wait_until("a level replica", LIMIT, || {
        admin::status(admin).is_some_and(|status| status["level_replicas"] == 1 && status["lease"] == "held")
    });
    (first, second)
}

fn lease(admin: SocketAddr) -> String {
    admin::status(admin).map_or(String::new(), |status| status["lease"].as_str().unwrap_or("").to_owned())
}

#[test]
fn a_primary_that_was_stopped_and_wakes_answers_nothing_old() {
    let (mut first, mut second) = pair(&[]);
    let mut wire = Wire::connect(first.clients());
    assert_eq!(wire.ask("set k 0 0 3\r\nold\r\n"), "STORED");
    assert_eq!(wire.ask("get k\r\n"), "VALUE k 0 3");
    assert_eq!((wire.line(), wire.line()), ("old".into(), "END".into()));
    first.pause();
    let second_admin = second.admin();
    admin::promote(second_admin);
    // These come while it sleeps, and are what it reads first when it wakes.
    wire.send("get k\r\nmg k v\r\nset k 0 0 1\r\nx\r\ngat 0 k\r\nincr k 1\r\n");
    let mut other = Wire::connect(second.clients());
    wait::wait_until("an answer of the promoted node", LIMIT, || lease(second_admin) == "unneeded");
    assert_eq!(other.ask("get k\r\n"), "VALUE k 0 3");
    assert_eq!((other.line(), other.line()), ("old".into(), "END".into()));
    let (code, said) = admin::post(second_admin, "/ack?mode=async").unwrap();
    assert_eq!(code, 200, "{said}");
    assert_eq!(other.ask("set k 0 0 3\r\nnew\r\n"), "STORED");
    first.signal(Signal::CONT);
    let answers: Vec<String> = (0..5).map(|_| wire.line()).collect();
    let refuses = |answer: &str| answer.starts_with("SERVER_ERROR ");
    // It may have heard of the other by then, and say so.
    assert!(answers[0] == "END" || refuses(&answers[0]), "{answers:?}");
    assert!(answers[1] == "EN" || refuses(&answers[1]), "{answers:?}");
    assert!(answers[2..].iter().all(|answer| refuses(answer)), "{answers:?}");
}

#[test]
fn what_is_not_acknowledged_is_shown_by_no_command_of_any_dialect() {
    let (mut first, second) = pair(&["--ack-timeout-ms", "300"]);
    let mut wires: Vec<Wire> = (0..5).map(|_| Wire::connect(first.clients())).collect();
    let mut binary = Wire::connect(first.clients());
    assert_eq!(wires[0].ask("set k 0 0 1\r\n1\r\n"), "STORED");
    second.pause();
    wires[0].send("set k 0 0 1\r\n2\r\n");
    wait::wait_until("the set", LIMIT, || stat(first.clients(), "cmd_set") == 2);
    for (wire, request) in
        wires[1..].iter_mut().zip(["get other k\r\n", "mg k v\r\n", "add k 0 0 1\r\n3\r\n", "gat 0 k\r\n"])
    {
        wire.send(request);
    }
    binary.send(b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02\x03\x04\0\0\0\0\0\0\0\0k");
    for wire in &mut wires {
        assert_eq!(wire.line(), "SERVER_ERROR replication timeout");
    }
    let failed = binary.up_to(24 + "replication timeout".len());
    assert_eq!((&failed[6..8], &failed[12..16]), (&b"\0\x86"[..], &b"\x01\x02\x03\x04"[..]));
    // A second later nothing at all is shown.
    let admin = first.admin();
    wait::wait_until("the end of the lease", LIMIT, || lease(admin) == "over");
    assert_eq!(wires[0].ask("get k\r\n"), "END");
    assert_eq!(wires[0].ask("add k 0 0 1\r\n3\r\n"), "SERVER_ERROR not enough replicas");
    assert!(stat_of_replication(&mut wires[0], "lease_misses") >= 1);
    second.signal(Signal::CONT);
    wait::wait_until("a lease", LIMIT, || lease(admin) == "held");
    wait::wait_until("a hit", LIMIT, || wires[0].ask("mg k v\r\n") == "VA 1" && wires[0].line() == "2");
    assert_eq!(stat(first.clients(), "evictions"), 0);
}

fn stat_of_replication(wire: &mut Wire, name: &str) -> u64 {
    let mut line = wire.ask("stats replication\r\n");
    let mut value = 0;
    while line != "END" {
        if let Some(text) = line.strip_prefix(&format!("STAT {name} ")) {
            value = text.parse().expect("a number");
        }
        line = wire.line();
    }
    value
}
