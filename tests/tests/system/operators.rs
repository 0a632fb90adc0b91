//! Operators' commands at a running server: what one connection sees of others.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
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
    let mut stranger = Wire::connect(server.clients());
    next("type=conn_new");
    stranger.send("GET / HTTP/1.1\r\n");
    assert!(next("type=conn_close").contains("reason=error"));
}

#[test]
fn g8_lines_name_the_connection_as_stats_conns_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let path = path.to_str().expect("a plain path");
    let server = Server::spawn(crate::BINARY, &["-m", "16", "-s", path]);
    server.all_clients(1);
    let connect = || BufReader::new(UnixStream::connect(path).expect("a server"));
    let ask = |client: &mut BufReader<UnixStream>, request: &str| {
        client.get_mut().write_all(request.as_bytes()).expect("bytes sent");
        let mut line = String::new();
        client.read_line(&mut line).expect("a line");
        line
    };
    let mut watcher = connect();
    assert_eq!(ask(&mut watcher, "watch fetchers mutations connevents\n"), "OK\r\n");
    let mut client = connect();
    let new = ask(&mut watcher, "");
    assert!(new.contains(" rip=unix rport=0 transport=local cfd="), "{new}");
    assert_eq!(ask(&mut client, "set a 0 60 1\r\nx\r\n"), "STORED\r\n");
    let stored = ask(&mut watcher, "");
    assert!(stored.contains("type=item_store key=a status=stored cmd=set ttl=60 clsid="), "{stored}");
    let descriptor = |line: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix("cfd=")).expect("a descriptor").to_owned()
    };
    assert_eq!(descriptor(&new), descriptor(&stored));
    let mut conns = vec![ask(&mut client, "stats conns\r\n")];
    while conns.last().is_some_and(|line| line != "END\r\n") {
        conns.push(ask(&mut client, ""));
    }
    assert!(conns.contains(&format!("STAT {}:state conn_parse_cmd\r\n", descriptor(&stored))), "{conns:?}");
    assert!(conns.iter().any(|line| line.ends_with(&format!(":addr unix:{path}\r\n"))), "{conns:?}");
}

#[test]
fn g5_stats_conns_lists_who_is_connected_until_they_go() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    let mut other = Wire::connect(server.clients());
    let listen_address = format!("listen_addr tcp:{}", server.clients());
    let mut watcher = Wire::connect(server.clients());
    assert_eq!(watcher.ask("watch\r\n"), "OK");
    let count = |lines: &[String], text: &str| lines.iter().filter(|line| line.ends_with(text)).count();
    wait::wait_until("three connections", Duration::from_secs(5), || {
        let lines = lines(&mut wire, "stats conns\r\n", "END");
        count(&lines, &listen_address) == 3 && count(&lines, ":state conn_watch") == 1
    });
    // Who asks, the one that is idle, the one that listens.
    let now = lines(&mut wire, "stats conns\r\n", "END");
    for state in ["conn_parse_cmd", "conn_read", "conn_listening"] {
        assert_eq!(count(&now, &format!(":state {state}")), 1, "{now:?}");
    }
    assert_eq!(count(&now, &format!(":addr tcp:{}", server.clients())), 1, "{now:?}");
    for (half_a_request, state) in
        [("set a 0 0 5\r\n", "conn_nread"), ("abcde\r\nset a 0 0 2000000\r\n", "conn_swallow")]
    {
        other.send(half_a_request);
        wait::wait_until(state, Duration::from_secs(5), || {
            count(&lines(&mut wire, "stats conns\r\n", "END"), &format!(":state {state}")) == 1
        });
    }
    drop((other, watcher));
    wait::wait_until("one connection", Duration::from_secs(5), || {
        let lines = lines(&mut wire, "stats conns\r\n", "END");
        // A listener has a line less.
        lines.len() == 7
            && count(&lines, ":state conn_parse_cmd") == 1
            && count(&lines, "secs_since_last_cmd 0") >= 1
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

#[test]
fn l8_g5_stats_settings_tell_what_was_given() {
    let flags = "-p 0 -m 20 -c 77 -b 555 -a 0711 -f 1.5 -n 96 -R 7 -t 3 -D / -I 2m -o \
                 no_maxconns_fast,no_lru_crawler,hashpower=20,slab_chunk_max=16,worker_logbuf_size=8,idle_timeout=9";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let mut server = Server::start(crate::BINARY, &flags);
    let mut wire = Wire::connect(server.clients());
    let told = lines(&mut wire, "stats settings\r\n", "END");
    let expected = [
        "maxbytes 20971520",
        "maxconns 77",
        "tcp_backlog 555",
        "umask 711",
        "growth_factor 1.50",
        "chunk_size 96",
        "reqs_per_event 7",
        "num_threads 3",
        "stat_key_prefix /",
        "detail_enabled yes",
        "item_size_max 2097152",
        "maxconns_fast no",
        "lru_crawler no",
        "hashpower_init 20",
        "slab_chunk_max 16384",
        "worker_logbuf_size 8192",
        "idle_timeout 9",
        "ssl_enabled no",
        "memory_file (null)",
    ];
    for row in expected {
        assert!(told.contains(&format!("STAT {row}")), "{row} is missing: {told:#?}");
    }
    // What they say is so.
    assert_eq!(wire.ask("lru_crawler crawl all\r\n"), "CLIENT_ERROR lru crawler disabled");
    assert_eq!(wire.ask("set a/b 0 0 1\r\nx\r\n"), "STORED");
    assert_eq!(wire.ask("stats detail dump\r\n"), "PREFIX a get 0 hit 0 set 1 del 0");
}

#[test]
fn z11_an_access_behind_debugtime_is_of_the_new_time_however_few_rounds_the_server_makes_of_it() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-t", "1", "--debug-time"]);
    let mut wire = Wire::connect(server.clients());
    // At once: what comes together is executed in one round, whose moment is read once.
    wire.send("set a 0 500 1\r\nx\r\ndebugtime 100\r\nget a\r\ndebugtime 7\r\nmg a l t\r\ndebugtime 400\r\nmg a l\r\n");
    for line in ["STORED", "OK", "VALUE a 0 1", "x", "END", "OK"] {
        assert_eq!(wire.line(), line);
    }
    let line = wire.line();
    // A second may begin in between.
    assert!(["HD l7 t393", "HD l8 t392", "HD l7 t392", "HD l8 t393"].contains(&line.as_str()), "{line}");
    assert_eq!((wire.line(), wire.line()), ("OK".to_owned(), "EN".to_owned()));
}
