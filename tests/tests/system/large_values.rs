//! Values that are large beside the memory: they go into the cache as they come, and count as items do.
//!
//! Lives here: what the process holds meanwhile, and whom that costs. Not here: one connection's bytes (see the server's own
//! tests).

use std::time::Duration;

use tests::process::Server;
use tests::wait;

use crate::wire::{self, Wire};

const MIB: usize = 1 << 20;
/// What the process has beside `-m`: its program, its threads, and what its connections hold.
const BESIDE: usize = 24 * MIB;
/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A line that stores so many bytes, without them.
fn set(key: &str, value_bytes: usize) -> String {
    format!("set {key} 0 0 {value_bytes}\r\n")
}

/// Bytes that tell where in the value they are.
fn pattern(value_bytes: usize) -> Vec<u8> {
    // Of a length that no chunk has.
    let block: Vec<u8> = (0..100_003).map(|at: usize| (at / 255 + at) as u8).collect();
    let mut value = block.repeat(value_bytes / block.len() + 1);
    value.truncate(value_bytes);
    value
}

fn lines_to_end(wire: &mut Wire) -> Vec<String> {
    std::iter::repeat_with(|| wire.line()).take_while(|line| line != "END").collect()
}

fn is_below(server: &Server, bytes_max: usize) {
    let peak = server.peak_bytes().expect("a process that runs") as usize;
    assert!(peak < bytes_max, "{} MiB of {}", peak / MIB, bytes_max / MIB);
}

#[test]
fn a_value_of_half_of_the_memory_is_never_there_twice() {
    let value = pattern(256 * MIB - 4096);
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "512", "-I", "256m"]);
    let mut wire = Wire::connect(server.clients());
    wire.send(set("film", value.len()));
    wire.send(&value);
    wire.send("\r\n");
    assert_eq!(wire.line(), "STORED");
    // By less than the value and a little: it lies where it came to lie.
    is_below(&server, value.len() + BESIDE);
    // Over it, and over all that there was.
    for _ in 0..2 {
        wire.send(set("film", value.len()));
        wire.send(&value);
        wire.send("\r\n");
        assert_eq!(wire.line(), "STORED");
    }
    is_below(&server, 512 * MIB + BESIDE);
    wire.send("get film\r\n");
    assert_eq!(wire.line(), format!("VALUE film 0 {}", value.len()));
    assert!(wire.up_to(value.len() + 2).starts_with(&value), "it is what was sent");
    assert_eq!(wire.line(), "END");
}

#[test]
fn slow_clients_with_half_of_a_large_value_hold_half_of_the_memory_and_others_are_served() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-I", "8m"]);
    let address = server.clients();
    let half = pattern(4 * MIB);
    let mut slow: Vec<Wire> = (0..24)
        .map(|number| {
            let mut wire = Wire::connect(address);
            wire.send(set(&format!("slow-{number}"), 8 * MIB - 4096));
            wire.send(&half);
            wire
        })
        .collect();
    wire::assert_serves(address);
    let mut other = Wire::connect(address);
    for number in 0..200 {
        other.send(set(&format!("other-{number}"), 100_000));
        other.send(vec![b'x'; 100_000]);
        other.send("\r\n");
        assert_eq!(other.line(), "STORED");
    }
    other.send("get other-199\r\n");
    assert_eq!(other.line(), "VALUE other-199 0 100000");
    other.up_to(100_002);
    assert_eq!(other.line(), "END");
    is_below(&server, 64 * MIB + BESIDE);
    // Eight have room; the others are told when their values have come.
    let rest = &pattern(8 * MIB - 4096)[4 * MIB..];
    let answers: Vec<String> = slow
        .iter_mut()
        .map(|wire| {
            wire.send(rest);
            wire.send("\r\n");
            wire.line()
        })
        .collect();
    let stored = answers.iter().filter(|answer| *answer == "STORED").count();
    let refused =
        answers.iter().filter(|answer| *answer == "SERVER_ERROR out of memory storing object").count();
    assert!(stored >= 1 && stored + refused == slow.len(), "{answers:?}");
    is_below(&server, 64 * MIB + BESIDE);
    drop(slow);
    wire::assert_serves(address);
}

#[test]
fn what_a_client_leaves_behind_is_free_again() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-I", "30m"]);
    let address = server.clients();
    for _ in 0..20 {
        let mut wire = Wire::connect(address);
        wire.send(set("k", 30 * MIB - 4096));
        wire.send(pattern(20 * MIB));
        drop(wire);
    }
    let value = pattern(30 * MIB - 4096);
    let mut wire = Wire::connect(address);
    wait::wait_until("room", LIMIT, || {
        wire.send(set("k", value.len()));
        wire.send(&value);
        wire.send("\r\n");
        wire.line() == "STORED"
    });
    is_below(&server, 64 * MIB + BESIDE);
}

#[test]
fn clients_that_do_not_read_a_large_value_cost_no_copy_of_it_and_get_it_as_it_was() {
    const READERS: usize = 4;
    let value = pattern(64 * MIB - 4096);
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "200", "-I", "64m"]);
    let address = server.clients();
    let mut wire = Wire::connect(address);
    wire.send(set("film", value.len()));
    wire.send(&value);
    wire.send("\r\n");
    assert_eq!(wire.line(), "STORED");
    let requests = ["get film\r\n", "mg film v\r\n", "get absent film\r\n", "gat 0 film\r\n"];
    let mut readers: Vec<Wire> = (0..READERS).map(|_| Wire::connect(address)).collect();
    readers.iter_mut().zip(requests).for_each(|(reader, request)| reader.send(request));
    wait::wait_until("all are answered, and nobody reads", LIMIT, || {
        wire.send("stats conns\r\n");
        let lines = lines_to_end(&mut wire);
        lines.iter().filter(|line| line.ends_with("conn_mwrite")).count() == READERS
    });
    is_below(&server, value.len() + BESIDE);
    wire.send("delete film\r\n");
    assert_eq!(wire.line(), "DELETED");
    // Its memory is not used again before all have it.
    for number in 0..40 {
        wire.send(set(&format!("other-{number}"), 5_000_000));
        wire.send(vec![b'x'; 5_000_000]);
        wire.send("\r\n");
        assert_eq!(wire.line(), "STORED");
    }
    is_below(&server, 200 * MIB + BESIDE);
    for (reader, request) in readers.iter_mut().zip(requests) {
        reader.line();
        assert!(reader.up_to(value.len() + 2).starts_with(&value), "{request:?}: it is what was asked for");
    }
    is_below(&server, 200 * MIB + BESIDE);
}
