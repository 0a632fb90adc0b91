//! `hotspare bench` from outside: what it measures, and servers that do not behave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::ports;
use tests::process::Server;
use tests::wait::wait_until;

use crate::wire;

/// The longest that a run of these tests may take: a run that hangs shall not hang its test.
const LIMIT: Duration = Duration::from_secs(30);

/// Exit code, standard output and standard error of `hotspare bench` with these arguments.
fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(crate::BINARY);
    command.arg("bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("bench {arguments:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The JSON summary of a short run with these arguments behind the address.
fn measured(server: &str, arguments: &[&str]) -> serde_json::Value {
    let short = [server, "--json", "-t", "0.3", "-k", "2000", "-c", "5"];
    let (code, out, said) = bench(&[&short[..], arguments].concat());
    assert_eq!((code, &said[..]), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&out).expect("JSON")
}

#[test]
fn every_protocol_is_measured_and_the_server_has_seen_as_much() {
    let mut server = crate::standalone(64);
    let address = server.clients().to_string();
    for (protocol, counter) in [("classic", "cmd_get"), ("meta", "cmd_meta"), ("binary", "cmd_get")] {
        let before = wire::stat(server.clients(), counter);
        let summary = measured(&address, &["--protocol", protocol, "-d", "8", "--sets", "0"]);
        let requests = summary["requests"].as_u64().expect("a number");
        assert!(requests > 0 && requests.is_multiple_of(8), "{summary}");
        assert_eq!(summary["misses"], 0, "{summary}");
        assert!(summary["hits"].as_u64() >= Some(requests), "{summary}");
        let seen = wire::stat(server.clients(), counter) - before;
        assert!(seen >= requests, "{protocol}: {seen} of {requests}");
        let latency = |name: &str| summary["batch_latency_us"][name].as_f64().expect("a number");
        assert!(
            latency("p50") > 0.0 && latency("p50") <= latency("p99.9") && latency("p99.9") <= latency("max")
        );
    }
}

#[test]
fn a_server_without_room_shows_its_misses() {
    let mut server = crate::standalone(1);
    let summary = measured(&server.clients().to_string(), &["-b", "10000", "--sets", "0"]);
    let (hits, misses) = (summary["hits"].as_u64().unwrap(), summary["misses"].as_u64().unwrap());
    assert!(hits > 0 && misses > 0, "{summary}");
}

#[test]
fn multi_gets_a_rate_new_connections_and_a_unix_socket_are_measured_too() {
    let mut server = crate::standalone(64);
    let address = server.clients().to_string();
    let many = measured(&address, &["--keys-a-get", "10", "--sets", "0"]);
    assert!(many["hits"].as_u64().unwrap() >= 10 * many["requests"].as_u64().unwrap(), "{many}");
    let steady = measured(&address, &["-r", "1000", "-t", "1", "-d", "2"]);
    // No more than was due in the time that it took; on a busy machine it may be less.
    let due = 1_000.0 * steady["seconds"].as_f64().unwrap();
    let requests = steady["requests"].as_f64().unwrap();
    assert!(requests > 0.0 && requests <= due + 2.0 && steady["rate"] == 1_000, "{steady}");
    let before = wire::stat(server.clients(), "total_connections");
    let (code, out, _) = bench(&[&address, "--json", "-t", "0.3", "-k", "100", "--reconnect"]);
    let summary: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let connections = wire::stat(server.clients(), "total_connections") - before;
    assert_eq!(code, Some(0));
    assert!(connections > summary["requests"].as_u64().unwrap(), "{connections}: {summary}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let path = path.to_str().expect("a plain path");
    let server = Server::spawn(crate::BINARY, &["-s", path]);
    server.wait_said("listening for clients on ");
    assert!(measured(path, &[])["requests"].as_u64() > Some(0));
}

#[test]
fn the_summary_for_people_has_the_same_figures() {
    let mut server = crate::standalone(64);
    let (code, out, said) = bench(&[&server.clients().to_string(), "-t", "0.2", "-k", "100"]);
    assert_eq!((code, &said[..]), (Some(0), ""));
    for line in [
        "requests    ",
        "hits        100.00 % of ",
        "refused     0\n",
        "latency     p50 ",
        "generator   busy ",
        "left        up to 100 keys such as b",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

#[test]
fn a_server_that_refuses_writes_is_an_error() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "1", "-M"]);
    let (code, _, said) = bench(&[&server.clients().to_string(), "-b", "10000", "-t", "0.2"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("refused a set: SERVER_ERROR out of memory"), "{said}");
    // Filled as far as it goes, it refuses only later.
    let (code, out, said) =
        bench(&[&server.clients().to_string(), "-b", "10000", "-t", "0.2", "--no-fill", "--json"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(said.contains(" requests: SERVER_ERROR out of memory"), "{said}");
    let summary: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(summary["refused"].as_u64() > Some(0), "{summary}");
    assert!(
        summary["refusal"].as_str().is_some_and(|said| said.starts_with("SERVER_ERROR out of")),
        "{summary}"
    );
}

/// A server that treats each connection like this; the address and a handle that nobody waits for.
fn server_that(treats: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind(crate::ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || treats(socket));
        }
    });
    address
}

/// Answers each read of sets and gets as a server without items would, `answers` times.
fn behave(socket: &mut TcpStream, answers: usize) {
    let mut room = [0; 1 << 16];
    for _ in 0..answers {
        let count = socket.read(&mut room).unwrap_or(0);
        let requests = room[..count].windows(4).filter(|word| *word == b"get ").count();
        if count == 0 || socket.write_all(&b"END\r\n".repeat(requests)).is_err() {
            return;
        }
    }
}

/// Its name, what it does to a connection, and words of the error that it must give.
type Treatment = (&'static str, fn(TcpStream), &'static str);

fn drain(mut socket: TcpStream) {
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

#[test]
fn servers_that_do_not_behave_give_an_error_and_never_a_hang() {
    let treatments: [Treatment; 7] = [
        (
            "rubbish",
            |mut socket| drop(socket.write_all(b"220 mail ESMTP\r\n").map(|()| drain(socket))),
            "220 mail",
        ),
        ("no line's end", |mut socket| while socket.write_all(&[b'x'; 4096]).is_ok() {}, "something else"),
        ("closes", drop, ""),
        ("is silent", drain, "did not answer"),
        (
            "never reads",
            |socket| std::thread::sleep(LIMIT * 2 + socket.ttl().map_or(LIMIT, |_| LIMIT)),
            "did not answer",
        ),
        (
            "closes in the middle",
            |mut socket| {
                behave(&mut socket, 3);
            },
            "",
        ),
        (
            "falls silent in the middle",
            |mut socket| {
                behave(&mut socket, 3);
                drain(socket);
            },
            "did not answer",
        ),
    ];
    for (what, treats, words) in treatments {
        let address = server_that(treats).to_string();
        let common = ["-t", "5", "-c", "3", "--sets", "0", "--patience", "0.5"];
        for more in [&["--no-fill"][..], &["--no-fill", "-r", "100"], &["-k", "200000", "-b", "1000"]] {
            let (code, out, said) = bench(&[&[&address[..]], &common[..], more].concat());
            assert_eq!(code, Some(1), "{what} {more:?}: {said}");
            // What was measured before is told.
            let has_figures = what.contains("middle") && !more.contains(&"-k");
            assert_eq!(!out.is_empty(), has_figures, "{what} {more:?}: {out}");
            let told = said.starts_with(&format!("hotspare: bench {address}: "));
            // Filling meets the unexpected before the middle.
            let expects = !more.contains(&"-k") || !what.contains("middle");
            assert!(
                told && said.lines().count() == 1 && (!expects || said.contains(words)),
                "{what}: {said}"
            );
        }
    }
}

#[test]
fn what_was_measured_until_the_server_died_is_told_with_the_error() {
    for format in [&["--json"][..], &[]] {
        let mut server = crate::standalone(64);
        let address = server.clients().to_string();
        let killer = std::thread::spawn(move || {
            // Not before it is asked what is measured: filling takes some sets only.
            let clients = server.clients();
            wait_until("the server is asked", LIMIT, || wire::stat(clients, "cmd_get") > 1_000);
            server.kill_9();
        });
        let (code, out, said) = bench(&[&[&address[..], "-t", "20", "-k", "100"], format].concat());
        killer.join().expect("the server was asked");
        assert_eq!(code, Some(1), "{said}");
        let told = said.starts_with(&format!("hotspare: bench {address}: "));
        assert!(told && said.contains("the figures are of that time"), "{said}");
        if format.is_empty() {
            assert!(out.contains("requests    ") && out.contains("latency     p50 "), "{out}");
            continue;
        }
        let summary: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert!(summary["requests"].as_u64() >= Some(1_000), "{summary}");
        assert!(summary["seconds"].as_f64().is_some_and(|seconds| seconds < 20.0), "{summary}");
        let error = summary["error"].as_str().expect("an error");
        assert!(said.contains(error), "{said}: {summary}");
    }
    let mut server = crate::standalone(64);
    assert!(measured(&server.clients().to_string(), &[])["error"].is_null());
}

#[test]
fn more_connections_than_the_server_takes_are_named_as_the_cause() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-c", "10"]);
    let address = server.clients().to_string();
    for rate in [&[][..], &["-r", "1000"]] {
        let (code, _, said) = bench(&[&[&address[..], "-c", "50", "-t", "1", "-k", "100"], rate].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("perhaps the server takes fewer connections at once"), "{said}");
    }
    // One that lets some wait without a word, as memcached does.
    let listener = TcpListener::bind(crate::ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut unserved = Vec::new();
        for (number, mut socket) in listener.incoming().map_while(Result::ok).enumerate() {
            match number {
                // The first only has a look.
                ..3 => drop(std::thread::spawn(move || behave(&mut socket, usize::MAX))),
                _ => unserved.push(socket),
            }
        }
    });
    let quiet = ["-c", "3", "--sets", "0", "--no-fill", "-t", "1", "--patience", "0.5"];
    let (code, out, said) = bench(&[&[&address[..]], &quiet[..]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 of 3 connections not once: perhaps"), "{said}");
    assert!(out.contains("requests    "), "{out}");
}

#[test]
fn a_server_that_is_not_there_and_senseless_flags_are_named() {
    let nobody = ports::local();
    for server in [&nobody.to_string()[..], "/nonexistent/socket", "nonsense", "host.invalid:1"] {
        let (code, _, said) = bench(&[server, "--patience", "1"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(server), "{said}");
    }
    for flags in [
        &["-c", "0"][..],
        &["--sets", "101"],
        &["-t", "nan"],
        &["--patience", "-1"],
        &["--protocol", "meta", "--keys-a-get", "2"],
        &["--reconnect", "-r", "5"],
    ] {
        let (code, _, said) = bench(flags);
        assert_eq!(code, Some(64), "{flags:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn keys_leave_the_server_by_themselves_unless_they_are_to_stay() {
    for protocol in ["classic", "meta", "binary"] {
        for (keep, left) in [(&[][..], 0), (&["--keep"], 50)] {
            let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "--debug-time"]);
            let address = server.clients().to_string();
            let common = ["-k", "50", "-t", "0.2", "--protocol", protocol, "-c", "2", "--json"];
            let (code, out, said) = bench(&[&[&address[..]], &common[..], keep].concat());
            assert_eq!((code, &said[..]), (Some(0), ""));
            let summary: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            assert_eq!(summary["keys_expire_after_s"].is_null(), !keep.is_empty(), "{summary}");
            let mut client = wire::Wire::connect(server.clients());
            assert_eq!(wire::stat(server.clients(), "curr_items"), 50);
            assert_eq!(client.ask("debugtime 1000\r\n"), "OK");
            let key =
                String::from_utf8(hotspare_server::bench::requests::key('b', 0).to_vec()).expect("text");
            let found = client.ask(&format!("get {key}\r\n"));
            assert_eq!(found != "END", left > 0, "{protocol} {keep:?}: {found}");
        }
    }
}
