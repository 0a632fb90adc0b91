//! What one client may take from the others: places, time, descriptors.
//!
//! Lives here: rule L7, slow requests, half-closed sockets, a server without descriptors.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::process::Server;
use tests::wait;

use crate::wire::{self, Wire};

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(10);
/// What memcached says to one connection too many.
const FULL: &str = "ERROR Too many open connections";

fn server(more: &[&str]) -> Server {
    Server::start(crate::BINARY, &[&["-p", "0", "-m", "16"], more].concat())
}

/// A number of `stats`, asked over an open connection.
fn stat(wire: &mut Wire, name: &str) -> u64 {
    wire.send("stats\r\n");
    let prefix = format!("STAT {name} ");
    let lines: Vec<String> = std::iter::from_fn(|| Some(wire.line()).filter(|line| line != "END")).collect();
    let number = lines.iter().find_map(|line| line.strip_prefix(&prefix));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number is named {name}"))
}

fn is_served(wire: &mut Wire) -> bool {
    wire.ask("version\r\n").starts_with("VERSION ")
}

#[test]
fn l7_one_connection_too_many_gets_the_line_and_a_place_that_is_freed_is_given_again() {
    let mut server = server(&["-c", "2"]);
    let mut first = Wire::connect(server.clients());
    let mut second = Wire::connect(server.clients());
    assert!(is_served(&mut first) && is_served(&mut second));
    for refused in 1..=20 {
        let mut third = Wire::connect(server.clients());
        // What it says at once does not cost it the line.
        third.send_anyhow(b"get a\r\n");
        assert_eq!(third.line(), FULL);
        assert!(third.is_closed());
        assert_eq!(stat(&mut first, "rejected_connections"), refused);
    }
    drop(second);
    wait::wait_until("a place", LIMIT, || stat(&mut first, "curr_connections") == 1);
    assert!(is_served(&mut Wire::connect(server.clients())));
}

#[test]
fn with_no_maxconns_fast_a_connection_too_many_waits_for_its_turn() {
    let mut server = server(&["-c", "1", "-o", "no_maxconns_fast"]);
    let mut first = Wire::connect(server.clients());
    assert!(is_served(&mut first));
    let mut second = Wire::connect(server.clients());
    second.send("version\r\n");
    wait::wait_until("a pause", LIMIT, || stat(&mut first, "listen_disabled_num") == 1);
    assert_eq!(stat(&mut first, "accepting_conns"), 0);
    drop(first);
    assert!(second.line().starts_with("VERSION "));
    assert_eq!(stat(&mut second, "rejected_connections"), 0);
}

#[test]
fn l7_an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut server = server(&["-o", "idle_timeout=2"]);
    let (mut idle, mut busy) = (Wire::connect(server.clients()), Wire::connect(server.clients()));
    assert!(is_served(&mut idle));
    wait::wait_until("a kick", LIMIT, || stat(&mut busy, "idle_kicks") == 1);
    assert!(idle.is_closed());
    assert!(is_served(&mut busy));
}

/// What a process has for itself in memory, in bytes, to the page.
fn anonymous_bytes(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.id())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a sum");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") << 10
}

/// What `docs/what-is-bounded.md` says of a connection's fixed part, with half as much again for pages and tables that are
/// not full.
#[test]
fn an_idle_connection_takes_less_than_300_bytes() {
    const CONNECTIONS: u64 = 400;
    let mut server = server(&["-t", "1"]);
    let address = server.clients();
    let quiet = |count| -> Vec<Wire> {
        let mut wires: Vec<Wire> = (0..count).map(|_| Wire::connect(address)).collect();
        assert!(wires.iter_mut().all(is_served));
        wires
    };
    let first = quiet(10);
    let before = anonymous_bytes(&server);
    let others = quiet(CONNECTIONS);
    let each = (anonymous_bytes(&server) - before) / CONNECTIONS;
    assert!(each < 300, "{each} bytes");
    drop((first, others));
}

#[test]
fn a_request_that_does_not_come_in_time_ends_its_connection_and_no_other() {
    let mut server = server(&["-o", "request_timeout=1,request_rate=1000"]);
    let address = server.clients();
    let (mut quiet, mut large) = (Wire::connect(address), Wire::connect(address));
    assert!(is_served(&mut quiet));
    // Its hundred thousand bytes have a hundred seconds more.
    large.send("set large 0 0 100000\r\n");
    let mut slow: Vec<Wire> = (0..2).map(|_| Wire::connect(address)).collect();
    slow[0].send("set a 0 0 10\r\nabc");
    slow[1].send("get a");
    let began = Instant::now();
    for wire in &mut slow {
        assert!(wire.is_closed());
    }
    assert!(began.elapsed() >= Duration::from_millis(500), "it had a second");
    assert!(is_served(&mut quiet), "who owes nothing may be quiet");
    large.send(vec![b'x'; 100_000]);
    large.send("\r\n");
    assert_eq!(large.line(), "STORED");
    wire::assert_serves(address);
}

#[test]
fn a_request_that_drips_in_ends_its_connection_all_the_same() {
    let mut server = server(&["-o", "request_timeout=1,request_rate=0"]);
    let mut wire = Wire::connect(server.clients());
    wire.send("set a 0 0 1000\r\n");
    // Too large: its bytes are thrown away, but they, too, have to come.
    let mut thrown = Wire::connect(server.clients());
    assert_eq!(thrown.ask("set a 0 0 2000000\r\n"), "SERVER_ERROR object too large for cache");
    // A line that grows is one request all the time.
    let mut line = Wire::connect(server.clients());
    line.send("get ");
    let began = Instant::now();
    wait::wait_until("the end of a drip", LIMIT, || {
        wire.send_anyhow(b"x");
        thrown.send_anyhow(b"x");
        line.send_anyhow(b"x");
        began.elapsed() > Duration::from_millis(2500)
    });
    // They were closed while they dripped, not for having stopped.
    let ended = Instant::now();
    assert!(wire.is_closed() && thrown.is_closed() && line.is_closed());
    assert!(ended.elapsed() < Duration::from_millis(500), "{:?}", ended.elapsed());
}

#[test]
fn a_client_that_will_send_no_more_gets_all_its_answers() {
    const VALUE_BYTES: usize = 500_000;
    let mut server = server(&[]);
    let mut wire = Wire::connect(server.clients());
    wire.send(format!("set a 0 0 {VALUE_BYTES}\r\n{}\r\n", "x".repeat(VALUE_BYTES)));
    assert_eq!(wire.line(), "STORED");
    wire.send("get a\r\n".repeat(20));
    wire.finish();
    let answer = format!("VALUE a 0 {VALUE_BYTES}\r\n").len() + VALUE_BYTES + "\r\nEND\r\n".len();
    assert_eq!(wire.up_to(20 * answer + 1).len(), 20 * answer);
    assert!(wire.is_closed());
}

/// Allows the server so many descriptors beyond those it has open; gives the limit before.
fn allow_more_descriptors(server: &Server, more: u64) -> Rlimit {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.id())).expect("a process").count() as u64;
    limit_descriptors(server, |before| Rlimit { current: Some(open + more), maximum: before.maximum })
}

fn limit_descriptors(server: &Server, change: impl Fn(Rlimit) -> Rlimit) -> Rlimit {
    let id = Pid::from_raw(i32::try_from(server.id()).expect("an id that fits")).expect("an id above 0");
    let before = rustix::process::getrlimit(Resource::Nofile);
    prlimit(Some(id), Resource::Nofile, change(before)).expect("a limit to set")
}

#[test]
fn a_server_without_descriptors_pauses_accepting_and_recovers() {
    let mut server = server(&[]);
    let address: SocketAddr = server.clients();
    let mut first = Wire::connect(address);
    assert!(is_served(&mut first));
    let before = allow_more_descriptors(&server, 2);
    let mut more: Vec<Wire> = (0..6).map(|_| Wire::connect(address)).collect();
    more.iter_mut().for_each(|wire| wire.send("version\r\n"));
    wait::wait_until("a pause", LIMIT, || stat(&mut first, "listen_disabled_num") == 1);
    assert_eq!(stat(&mut first, "accepting_conns"), 0);
    assert!(stat(&mut first, "curr_connections") < 7);
    limit_descriptors(&server, |_| before);
    for wire in &mut more {
        assert!(wire.line().starts_with("VERSION "));
    }
    // The last connection is served a moment before accepting finds no further one.
    wait::wait_until("the pause's end", LIMIT, || stat(&mut first, "accepting_conns") == 1);
    assert!(stat(&mut first, "time_in_listen_disabled_us") > 0);
}
