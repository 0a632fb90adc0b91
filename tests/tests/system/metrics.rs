//! What an operator sees from outside: `/metrics`, the log and its slow requests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::process::Server;
use tests::{admin, wait};

use crate::wire::{Wire, stat};

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A family's type, and its samples by name and labels as written.
type Families = BTreeMap<String, (String, BTreeMap<String, f64>)>;

/// Reads the text format (version 0.0.4) as strictly as Prometheus does.
fn parse(text: &str) -> Families {
    let mut families = Families::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{name} is helped twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "{name} has no help");
            let known = families.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
            assert!(known.is_none(), "{name} comes in two places");
            current = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
            check_labels(labels);
            let (kind, samples) = families.get_mut(&current).expect("a type before its samples");
            let suffix = name.strip_prefix(&current[..]).unwrap_or_else(|| panic!("{line} in {current}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let value: f64 = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
    }
    families
}

/// `{name="text",...}` with its escapes, or nothing.
fn check_labels(labels: &str) {
    let Some(inner) = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return assert_eq!(labels, "");
    };
    let mut rest = inner;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("name=\"");
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{labels}"
        );
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().expect("the value's end") {
                (_, '\\') => assert!(matches!(letters.next(), Some((_, '\\' | '"' | 'n'))), "{labels}"),
                (at, '"') => break at,
                _ => {}
            }
        };
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or_else(|| {
            assert_eq!(rest, "", "{labels}");
            rest
        });
    }
}

fn scrape(address: SocketAddr) -> (String, Families) {
    let (code, body) = admin::get(address, "/metrics").expect("an answer");
    assert_eq!(code, 200);
    let families = parse(&body);
    (body, families)
}

/// The value of a series, its name and labels as written.
fn value(families: &Families, series: &str) -> f64 {
    let found = families.values().find_map(|(_, samples)| samples.get(series));
    *found.unwrap_or_else(|| panic!("no {series}"))
}

/// Prometheus's own check, where it is installed.
fn check_by_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return println!("promtool is not installed: only our own parser has looked");
    };
    use std::io::Write as _;
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    // 3 is for what its linter would name otherwise.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn metrics_count_requests_by_command_whatever_their_dialect() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "--admin", crate::ANY_PORT]);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set a 0 0 1\r\n1\r\n"), "STORED");
    assert_eq!(wire.ask("get missing also-missing\r\n"), "END");
    assert_eq!(wire.ask("gat 0 missing\r\n"), "END");
    assert_eq!(wire.ask("incr a 1\r\n"), "2");
    assert_eq!(wire.ask("decr a 1\r\n"), "1");
    assert_eq!(wire.ask("touch a 0\r\n"), "TOUCHED");
    assert_eq!(wire.ask("cas a 0 0 1 1\r\n1\r\n"), "EXISTS");
    assert_eq!(wire.ask("mg a\r\n"), "HD");
    assert_eq!(wire.ask("mn\r\n"), "MN");
    assert_eq!(wire.ask("delete a\r\n"), "DELETED");
    assert_eq!(wire.ask("nonsense\r\n"), "ERROR");
    let mut binary = Wire::connect(server.clients());
    let mut get = vec![0x80, 0x00, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    get.resize(24, 0);
    binary.send([&get[..], b"a"].concat());
    let _ = binary.up_to(24);
    let (text, families) = scrape(server.admin());
    check_by_promtool(&text);
    for (command, count) in [
        ("get", 2.0),
        ("gat", 1.0),
        ("set", 1.0),
        ("cas", 1.0),
        ("add", 0.0),
        ("incr", 1.0),
        ("decr", 1.0),
        ("touch", 1.0),
        ("mg", 1.0),
        ("ms", 0.0),
        ("mn", 1.0),
        ("delete", 1.0),
        ("other", 0.0),
    ] {
        let series = format!("hotspare_requests_total{{command=\"{command}\"}}");
        assert_eq!(value(&families, &series), count, "{command}");
    }
    assert_eq!(value(&families, "hotspare_role{role=\"standalone\"}"), 1.0);
    assert!(value(&families, "hotspare_memory_kind_bytes{kind=\"index\"}") > 0.0);
    assert_eq!(value(&families, "hotspare_memory_kind_bytes{kind=\"log\"}"), 0.0);
    assert!(families["hotspare_turn_duration_seconds"].0 == "histogram");
}

#[test]
fn every_histogram_rises_to_its_count_and_a_sample_of_the_requests_is_in_it() {
    let mut server =
        Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-t", "1", "--admin", crate::ANY_PORT]);
    let mut wire = Wire::connect(server.clients());
    for _ in 0..1_000 {
        assert_eq!(wire.ask("get a\r\n"), "END");
    }
    let (_, families) = scrape(server.admin());
    let mut seen = 0;
    for (name, (kind, samples)) in &families {
        if kind != "histogram" {
            continue;
        }
        for (series, count) in
            samples.iter().filter(|(series, _)| series.starts_with(&format!("{name}_count")))
        {
            let labels = series[name.len() + "_count".len()..].trim_matches(['{', '}']).to_owned();
            let prefix = if labels.is_empty() { String::new() } else { format!("{labels},") };
            let bucket = format!("{name}_bucket{{{prefix}le=\"");
            let mut buckets: Vec<(f64, f64)> = samples
                .iter()
                .filter_map(|(series, count)| {
                    Some((series.strip_prefix(&bucket)?.trim_end_matches("\"}"), *count))
                })
                .map(|(bound, count)| (bound.parse().expect("a bound"), count))
                .collect();
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{series}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "turns, and the gets");
    let timed = value(&families, "hotspare_request_duration_seconds_count{command=\"get\"}");
    assert!((20.0..200.0).contains(&timed), "{timed} of 1 000 were timed");
}

#[test]
fn what_a_connection_keeps_is_counted_until_it_goes() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "--admin", crate::ANY_PORT]);
    let buffers = |server: &mut Server| {
        value(&scrape(server.admin()).1, "hotspare_memory_kind_bytes{kind=\"buffers\"}")
    };
    let mut wire = Wire::connect(server.clients());
    wire.send([&b"get"[..], &b" k".repeat(150_000)].concat());
    wait::wait_until("a half-written request is counted", Duration::from_secs(5), || {
        buffers(&mut server) >= 300_000.0
    });
    drop(wire);
    wait::wait_until("nothing is counted any more", Duration::from_secs(5), || buffers(&mut server) == 0.0);
}

#[test]
fn what_connections_keep_comes_back_to_nothing_however_they_were_used() {
    let mut server = Server::start(crate::BINARY, &["-p", "0", "-m", "64", "-I", "4m", "-t", "2"]);
    let address = server.clients();
    let large = vec![b'x'; 2_000_000];
    let set = |key: &str| [format!("set {key} 0 0 {}\r\n", large.len()).as_bytes(), &large, b"\r\n"].concat();
    let mut wires: Vec<Wire> = (0..12).map(|_| Wire::connect(address)).collect();
    for round in 0..6 {
        let (mut reader, mut asks) = (Wire::connect(address), Wire::connect(address));
        asks.send(set("large"));
        assert_eq!(asks.line(), "STORED");
        for (number, wire) in wires.iter_mut().enumerate() {
            // Half of a request of each kind, and answers that nobody reads yet.
            match number % 6 {
                0 => wire.send(b"get a"),
                1 => wire.send(&set("half")[..1_000_000]),
                2 => wire.send(&set("small")[..60_000]),
                3 => wire.send("get large large\r\nmg large v\r\nget large"),
                4 => wire.send([&b"get"[..], &b" k".repeat(100_000)].concat()),
                _ => wire.send("stats\r\n".repeat(500)),
            }
        }
        wait::wait_until("they keep something", LIMIT, || stat(address, "read_buf_bytes") > 500_000);
        reader.send("watch fetchers\r\nget a");
        assert_eq!(reader.line(), "OK");
        drop(reader);
        for (number, wire) in wires.iter_mut().enumerate() {
            match number % 6 {
                0 => wire.send("\r\nmn\r\n"),
                1 => wire.send([&set("half")[1_000_000..], b"mn\r\n"].concat()),
                2 => wire.send([&set("small")[60_000..], b"mn\r\n"].concat()),
                _ => wire.send("\r\nmn\r\n"),
            }
            while !wire.piece().ends_with(b"MN\r\n") {}
        }
        if round % 2 == 1 {
            // Half of them in the middle of a request.
            wires.iter_mut().step_by(2).for_each(|wire| wire.send(&set("half")[..100_000]));
            wires = (0..12).map(|_| Wire::connect(address)).collect();
        }
        wait::wait_until("nothing is kept", LIMIT, || stat(address, "read_buf_bytes") == 0);
    }
}

#[test]
fn replicas_are_told_one_by_one_and_resyncs_by_kind() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    let mut replica = crate::replica(16, primary.replication());
    admin::wait_streaming(replica.admin());
    let (text, families) = scrape(primary.admin());
    check_by_promtool(&text);
    assert_eq!(value(&families, "hotspare_role{role=\"primary\"}"), 1.0);
    assert_eq!(value(&families, "hotspare_resyncs_total{kind=\"install\"}"), 1.0);
    assert_eq!(value(&families, "hotspare_resyncs_total{kind=\"catch_up\"}"), 0.0);
    for family in ["replica_info", "unacked_writes", "unacked_bytes", "unacked_ms"] {
        let samples = &families[&format!("hotspare_{family}")].1;
        assert_eq!(samples.len(), 1, "{family}");
        assert!(samples.keys().all(|series| series.contains("{node=\"")), "{family}");
    }
    let (_, families) = scrape(replica.admin());
    assert_eq!(value(&families, "hotspare_role{role=\"replica\"}"), 1.0);
}

/// Stores more bytes than any processor copies in a millisecond.
fn ask_slowly(address: SocketAddr, key: &str) {
    let mut wire = Wire::connect(address);
    let bytes = 64 << 20;
    let head = format!("set {key} 0 0 {bytes}\r\n");
    wire.send([head.as_bytes(), &vec![b'v'; bytes], b"\r\n"].concat());
    assert_eq!(wire.line(), "STORED");
}

#[test]
fn a_slow_request_is_logged_as_json_with_its_command_key_and_peer() {
    let arguments =
        ["-p", "0", "-m", "512", "-I", "100m", "--admin", crate::ANY_PORT, "--log-format", "json"];
    let mut server = Server::spawn(crate::BINARY, &[&arguments[..], &["--slow-log-ms", "1"]].concat());
    server.wait_said("admin on ");
    for line in server.said() {
        let line: serde_json::Value = serde_json::from_str(&line).expect("each line is an object");
        assert_eq!(line["level"], "INFO");
    }
    ask_slowly(server.clients(), "a\x1b\"b");
    let line = server.wait_said("a slow request");
    let line: serde_json::Value = serde_json::from_str(&line).expect("an object");
    assert_eq!(line["command"], "set", "{line}");
    assert_eq!(line["key"], "a\\x1b\\\"b", "{line}");
    assert!(line["ms"].as_f64().is_some_and(|ms| ms >= 1.0), "{line}");
    assert!(line["request_bytes"].as_u64().is_some_and(|bytes| bytes > 64 << 20), "{line}");
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("tcp:127.0.0.1:")), "{line}");
    assert!(value(&scrape(server.admin()).1, "hotspare_slow_requests_total") >= 1.0);
}

#[test]
fn without_the_flag_nothing_is_slow() {
    let arguments = ["-p", "0", "-m", "512", "-I", "100m", "--admin", crate::ANY_PORT];
    let mut server = Server::start(crate::BINARY, &arguments);
    ask_slowly(server.clients(), "a");
    assert_eq!(value(&scrape(server.admin()).1, "hotspare_slow_requests_total"), 0.0);
    assert!(!server.said().iter().any(|line| line.contains("slow request")));
}
