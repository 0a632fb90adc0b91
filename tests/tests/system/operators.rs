//! Operators' commands at a running server: what one connection sees of others.

use std::time::Duration;

use tests::process::Server;
use tests::wait;

use crate::wire::Wire;

/// The lines of an answer, up to its last.
fn lines(wire: &mut Wire, request: &str, last: &str) -> Vec<String> {
    wire.send(request);
    std::iter::from_fn(|| Some(wire.line())).take_while(|line| line != last).collect()
}

#[test]
fn g8_a_watcher_is_told_of_others_as_it_happens() {
    let mut server = crate::standalone(16);
    let mut watcher = Wire::connect(server.clients());
    assert_eq!(watcher.ask("watch fetchers connevents deletions\r\n"), "OK");
    let mut next = |expected: &str| {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.extend(watcher.up_to(1));
        }
        let line = String::from_utf8(line).expect("text");
        assert!(line.starts_with("ts=") && line.contains(expected), "{line}");
        line
    };
    let mut other = Wire::connect(server.clients());
    assert_eq!(other.ask("get a\r\n"), "END");
    let new = next("type=conn_new rip=127.0.0.1 rport=");
    next("type=item_get key=a status=not_found");
    // Each event wakes the watcher anew.
    assert_eq!(other.ask("set a 0 0 1\r\nx\r\n"), "STORED");
    assert_eq!(other.ask("delete a\r\n"), "DELETED");
    next("type=deleted key=a cmd=delete");
    other.send("quit\r\n");
    let close = next("type=conn_close rip=127.0.0.1 rport=");
    let of = |line: &str, name: &str| {
        line.split(name).nth(1).and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
    };
    assert_eq!(of(&new, "rport="), of(&close, "rport="));
    assert!(close.contains("reason=normal"), "{close}");
}

#[test]
fn g5_stats_conns_lists_who_is_connected_until_they_go() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    let other = Wire::connect(server.clients());
    let listen_address = format!("listen_addr tcp:{}", server.clients());
    let mut watcher = Wire::connect(server.clients());
    assert_eq!(watcher.ask("watch\r\n"), "OK");
    let count = |lines: &[String], text: &str| lines.iter().filter(|line| line.ends_with(text)).count();
    wait::wait_until("three connections", Duration::from_secs(5), || {
        let lines = lines(&mut wire, "stats conns\r\n", "END");
        count(&lines, &listen_address) == 3 && count(&lines, ":state conn_watch") == 1
    });
    drop((other, watcher));
    wait::wait_until("one connection", Duration::from_secs(5), || {
        let lines = lines(&mut wire, "stats conns\r\n", "END");
        lines.len() == 4
            && count(&lines, ":state conn_read") == 1
            && count(&lines, "secs_since_last_cmd 0") == 1
    });
}

#[test]
fn g7_a_dump_leaves_other_clients_of_the_same_worker_alone() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-t", "1"]);
    let mut filler = Wire::connect(server.clients());
    let items: String = (0..100_000).map(|key| format!("set key-{key} 0 0 1 noreply\r\nx\r\n")).collect();
    filler.send(items);
    assert_eq!(filler.ask("get nothing\r\n"), "END");
    let mut dumping = Wire::connect(server.clients());
    assert_eq!(dumping.ask("lru_crawler metadump all\r\n"), "OK");
    // It reads no further for now.
    for _ in 0..100 {
        assert_eq!(filler.ask("get nothing\r\n"), "END");
    }
    let mut text = Vec::new();
    while !text.ends_with(b"END\r\n") {
        text.extend(dumping.piece());
    }
    assert_eq!(text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"key=")).count(), 100_000);
}

#[test]
fn g4_shutdown_with_a_ends_the_server_with_0_both_ways() {
    for request in ["shutdown\r\n", "shutdown graceful\r\n"] {
        let mut server = Server::start(crate::BINARY, &["-p", "0", "-A"]);
        let mut wire = Wire::connect(server.clients());
        wire.send(request);
        assert!(wire.is_closed());
        assert_eq!(server.wait_exit(Duration::from_secs(2)), Some(0), "{:#?}", server.said());
    }
}
