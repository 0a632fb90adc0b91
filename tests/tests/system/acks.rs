//! Semi-sync: what is answered, what a kill costs, and what a replica that hangs costs.
//!
//! Lives here: pairs of processes with `--ack semi-sync:1`. Not here: the outcomes inside the engine (its own tests),
//! every order of events (see the simulation).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, wait};

use crate::wire::{Wire, stat};

/// How often the primary is killed.
const ROUNDS: usize = 5;
/// Clients that write meanwhile.
const WRITERS: usize = 3;
/// Keys of each, written over and over and deleted at times.
const KEYS: usize = 50;
/// Acknowledged writes after which the primary dies.
const WRITES_BEFORE_KILL: u64 = 2_000;
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

const COMMON: [&str; 10] = [
    "-p",
    "0",
    "-m",
    "64",
    "--ack",
    "semi-sync:1",
    "--replication-listen",
    crate::ANY_PORT,
    "--admin",
    crate::ANY_PORT,
];

fn primary(more: &[&str]) -> Server {
    Server::start(crate::BINARY, &[&COMMON[..], more].concat())
}

fn replica(of: SocketAddr) -> Server {
    Server::start(crate::BINARY, &[&COMMON[..], &["--replica-of", &of.to_string()]].concat())
}

fn wait_level(admin: SocketAddr, count: u64) {
    wait::wait_until("level replicas", LIMIT, || {
        admin::status(admin).is_some_and(|status| status["level_replicas"] == count)
    });
}

/// What one client knows of its keys: the number that it last had acknowledged, 0 for a deletion, and what it has tried
/// since.
#[derive(Default)]
struct Known {
    acknowledged: HashMap<String, u64>,
    tried: HashMap<String, Vec<u64>>,
}

fn has_lost_its_role(answer: &str) -> bool {
    ["SERVER_ERROR this node is the primary no more", "SERVER_ERROR this node is a replica"]
        .iter()
        .any(|words| answer.starts_with(words))
}

/// Writes numbers that only rise until the server is gone.
fn write_on(writer: usize, address: SocketAddr, first: u64, count: &AtomicU64, gone: &AtomicBool) -> Known {
    let mut known = Known::default();
    let mut wire = Wire::connect(address);
    for number in first.. {
        let key = format!("w{writer}-{}", number as usize % KEYS);
        let deletes = number % 7 == 0;
        let request = match deletes {
            true => format!("delete {key}\r\n"),
            false => format!("set {key} 0 0 {}\r\n{number}\r\n", number.to_string().len()),
        };
        let number = if deletes { 0 } else { number };
        known.tried.entry(key.clone()).or_default().push(number);
        match wire.ask_anyhow(&request).as_deref() {
            Some("STORED" | "DELETED" | "NOT_FOUND") => {
                known.acknowledged.insert(key.clone(), number);
                known.tried.remove(&key);
                count.fetch_add(1, Ordering::SeqCst);
            }
            // On a busy machine: then nobody knows, or nothing was written.
            Some("SERVER_ERROR replication timeout" | "SERVER_ERROR not enough replicas") => {}
            None if gone.load(Ordering::SeqCst) => return known,
            Some("SERVER_ERROR this primary is handing over; try again in a moment") => {}
            Some(other) if gone.load(Ordering::SeqCst) && has_lost_its_role(other) => return known,
            answer => panic!("{request:?}: {answer:?}"),
        }
    }
    known
}

/// Whether each key has what was acknowledged, or tried since; how many there are.
fn compare(wire: &mut Wire, known: &[Known]) -> usize {
    let mut compared = 0;
    for known in known {
        for (key, number) in &known.acknowledged {
            let found = value_at(wire, key);
            let tried = known.tried.get(key);
            let may_be = found == *number || tried.is_some_and(|tried| tried.contains(&found));
            assert!(may_be, "{key}: {found}, acknowledged {number}, tried since {tried:?}");
            compared += 1;
        }
    }
    compared
}

fn value_at(wire: &mut Wire, key: &str) -> u64 {
    match &*wire.ask(&format!("get {key}\r\n")) {
        "END" => 0,
        head => {
            assert!(head.starts_with("VALUE "), "{head}");
            let number = wire.line().parse().expect("a number");
            assert_eq!(wire.line(), "END");
            number
        }
    }
}

#[test]
fn not_one_acknowledged_write_is_lost_when_the_primary_is_killed() {
    let mut first = primary(&["--bootstrap"]);
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut second = replica(first.replication());
        wait_level(first.admin(), 1);
        let known = write_and_kill(&mut first, round as u64 * 1_000_000 + 1);
        admin::promote(second.admin());
        let mut wire = Wire::connect(second.clients());
        assert_eq!(wire.ask("set refused 0 0 1\r\nx\r\n"), "SERVER_ERROR not enough replicas");
        acknowledged += compare(&mut wire, &known);
        assert_eq!(stat(second.clients(), "evictions"), 0, "a miss must mean a loss here");
        first = second;
    }
    eprintln!("{ROUNDS} kills, {acknowledged} keys compared, none lost");
}

fn write_and_kill(first: &mut Server, number: u64) -> Vec<Known> {
    let (count, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let address = first.clients();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (count, gone) = (count.clone(), gone.clone());
            thread::spawn(move || write_on(writer, address, number, &count, &gone))
        })
        .collect();
    wait::wait_until("acknowledged writes", LIMIT, || {
        count.load(Ordering::SeqCst) >= WRITES_BEFORE_KILL
            || writers.iter().any(|writer| writer.is_finished())
    });
    gone.store(true, Ordering::SeqCst);
    first.kill_9();
    writers.into_iter().map(|writer| writer.join().expect("a writer that saw nothing wrong")).collect()
}

#[test]
fn a_hand_over_under_load_loses_no_acknowledged_write_and_pauses_writes_for_a_moment() {
    let mut first = primary(&["--bootstrap"]);
    let mut second = replica(first.replication());
    wait_level(first.admin(), 1);
    let (count, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (address, count, gone) = (first.clients(), count.clone(), gone.clone());
            thread::spawn(move || write_on(writer, address, 1, &count, &gone))
        })
        .collect();
    wait::wait_until("acknowledged writes", LIMIT, || {
        count.load(Ordering::SeqCst) >= WRITES_BEFORE_KILL
            || writers.iter().any(|writer| writer.is_finished())
    });
    gone.store(true, Ordering::SeqCst);
    let (code, said) = admin::post(first.admin(), "/handover").unwrap();
    assert_eq!(code, 200, "{said}");
    let pause = serde_json::from_str::<serde_json::Value>(&said).unwrap()["pause_ms"].as_f64().unwrap();
    eprintln!("nobody took writes for {pause} ms");
    assert!(pause < 1_000.0, "{pause}");
    let known: Vec<Known> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    assert!(compare(&mut Wire::connect(second.clients()), &known) > 0);
    // The pair is whole again, the other way round.
    wait_level(second.admin(), 1);
    assert_eq!(Wire::connect(second.clients()).ask("set k 0 0 1\r\nx\r\n"), "STORED");
    assert!(
        Wire::connect(first.clients())
            .ask("set k 0 0 1\r\nx\r\n")
            .starts_with("SERVER_ERROR this node is a replica")
    );
}

#[test]
fn without_a_replica_a_write_is_refused_until_an_operator_says_otherwise() {
    let mut first = primary(&["--bootstrap"]);
    let mut wire = Wire::connect(first.clients());
    for write in ["set k 0 0 1\r\nx\r\n", "delete k\r\n", "touch k 0\r\n", "ms k 1\r\nx\r\n", "flush_all\r\n"]
    {
        assert_eq!(wire.ask(write), "SERVER_ERROR not enough replicas", "{write:?}");
    }
    assert_eq!(wire.ask("get k\r\n"), "END", "reads go on");
    let (code, said) = admin::post(first.admin(), "/ack?mode=async").unwrap();
    assert_eq!((code, said.contains("async")), (200, true), "{said}");
    assert_eq!(wire.ask("set k 0 0 1\r\nx\r\n"), "STORED");
}

#[test]
fn a_replica_that_hangs_costs_a_write_the_timeout_then_a_refusal_and_others_nothing() {
    let mut first = primary(&["--bootstrap", "--ack-timeout-ms", "1000"]);
    let second = replica(first.replication());
    wait_level(first.admin(), 1);
    let (mut wire, mut other) = (Wire::connect(first.clients()), Wire::connect(first.clients()));
    assert_eq!(wire.ask("set k 0 0 1\r\na\r\n"), "STORED");
    second.pause();
    let begun = Instant::now();
    // Replies stay in their order, whatever they answer; one that wants none has none.
    wire.send("set k 0 0 1\r\nb\r\nget k\r\nset q 0 0 1 noreply\r\nc\r\nversion\r\n");
    assert_eq!(other.ask("get k\r\n"), "VALUE k 0 1", "other clients go on");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(wire.line(), "SERVER_ERROR replication timeout");
    assert!(begun.elapsed() >= Duration::from_millis(1_000), "{:?}", begun.elapsed());
    assert_eq!((wire.line(), wire.line(), wire.line()), ("VALUE k 0 1".into(), "b".into(), "END".into()));
    assert!(wire.line().starts_with("VERSION "));
    let mut answer = String::new();
    wait::wait_until("a refusal", LIMIT, || {
        answer = wire.ask("set k 0 0 1\r\nd\r\n");
        assert!(answer.starts_with("SERVER_ERROR "), "{answer}");
        answer == "SERVER_ERROR not enough replicas"
    });
    second.signal(Signal::CONT);
    wait::wait_until("an acknowledged write", LIMIT, || wire.ask("set k 0 0 1\r\ne\r\n") == "STORED");
}

#[test]
fn a_client_that_pipelines_gets_every_answer_in_order() {
    let mut first = primary(&["--bootstrap"]);
    let _second = replica(first.replication());
    wait_level(first.admin(), 1);
    let mut wire = Wire::connect(first.clients());
    let mut reader = wire.split();
    let requests = 3_000;
    let sender = thread::spawn(move || {
        for number in 0..requests {
            wire.send(format!("set k 0 0 5\r\n{number:05}\r\nget k\r\n"));
        }
        wire
    });
    // On a busy machine an ack may come too late, and a replica may not be heard of for a while: then the answer says so, in
    // its place.
    let (mut held, mut stored) = (None, 0);
    for number in 0..requests {
        match reader.line().as_str() {
            "STORED" => (held, stored) = (Some(number), stored + 1),
            "SERVER_ERROR replication timeout" => held = Some(number),
            "SERVER_ERROR not enough replicas" => {}
            other => panic!("{number}: {other}"),
        }
        if let Some(held) = held {
            assert_eq!(reader.line(), "VALUE k 0 5", "{number}");
            assert_eq!(reader.line(), format!("{held:05}"), "{number}");
        }
        assert_eq!(reader.line(), "END", "{number}");
    }
    assert!(stored > 0);
    sender.join().unwrap();
}

#[test]
fn large_values_that_wait_for_acks_are_in_no_connection_s_memory_and_come_as_they_were_asked_for() {
    const VALUE_BYTES: usize = 900_000;
    let mut first = primary(&["--bootstrap", "--ack-timeout-ms", "60000"]);
    let second = replica(first.replication());
    wait_level(first.admin(), 1);
    let address = first.clients();
    let value: Vec<u8> = (0..VALUE_BYTES).map(|at| (at % 251 + at / 4099) as u8).collect();
    let set = |key: &str, value: &[u8]| {
        [format!("set {key} 0 0 {VALUE_BYTES}\r\n").as_bytes(), value, b"\r\n"].concat()
    };
    let mut wires: Vec<Wire> = (0..8).map(|_| Wire::connect(address)).collect();
    wires[0].send(set("film", &value));
    assert_eq!(wires[0].line(), "STORED");
    second.pause();
    for wire in &mut wires {
        wire.send("set k 0 0 1\r\nx\r\nget film\r\nmg film v\r\nmn\r\n");
    }
    wait::wait_until("all are executed as far as they may be", LIMIT, || stat(address, "get_hits") >= 8);
    let kept = stat(address, "read_buf_bytes");
    assert!(kept < 8 * 100_000, "{kept} bytes, of {} if all had a copy", 8 * VALUE_BYTES);
    second.signal(Signal::CONT);
    for wire in &mut wires {
        assert_eq!(wire.line(), "STORED");
    }
    // Written again, and again, while the readers have yet to begin.
    let mut other = Wire::connect(address);
    wait_level(first.admin(), 1);
    for _ in 0..3 {
        other.send(set("film", &vec![b'-'; VALUE_BYTES]));
        assert_eq!(other.line(), "STORED");
    }
    for wire in &mut wires {
        assert_eq!(wire.line(), format!("VALUE film 0 {VALUE_BYTES}"));
        assert!(wire.up_to(VALUE_BYTES + 2).starts_with(&value), "it is what was asked for");
        assert_eq!(wire.line(), "END");
        assert_eq!(wire.line(), format!("VA {VALUE_BYTES}"));
        wire.up_to(VALUE_BYTES + 2);
        assert_eq!(wire.line(), "MN");
    }
    wait::wait_until("nothing is kept", LIMIT, || stat(address, "read_buf_bytes") == 0);
}

#[test]
fn a_binary_client_is_told_by_a_status_of_its_own_request() {
    let mut first = primary(&["--bootstrap"]);
    let second = replica(first.replication());
    wait_level(first.admin(), 1);
    let mut wire = Wire::connect(first.clients());
    let set =
        b"\x80\x01\x00\x01\x08\x00\x00\x00\x00\x00\x00\x0a\x01\x02\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0kv";
    wire.send(set);
    let stored = wire.up_to(24);
    assert_eq!(
        (&stored[..2], &stored[6..8], &stored[12..16]),
        (&b"\x81\x01"[..], &b"\0\0"[..], &b"\x01\x02\x03\x04"[..])
    );
    second.pause();
    wire.send(set);
    let failed = wire.up_to(24 + "replication timeout".len());
    assert_eq!((&failed[6..8], &failed[12..16]), (&b"\0\x86"[..], &b"\x01\x02\x03\x04"[..]));
    assert_eq!(&failed[24..], b"replication timeout");
    second.signal(Signal::CONT);
}
