//! What an operator reads: what commands answer, what a status warns of, what the log says of a mistake.
//!
//! Not here: flags that are refused at the start (see `args` in the server), nodes with unlike transports (see
//! `encrypted_replication`).

use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the program to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(crate::BINARY).args(arguments).output().expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a server's log that are no mere information.
fn complaints(server: &Server) -> Vec<String> {
    let is_complaint = |line: &String| line.contains(" WARN ") || line.contains(" ERROR ");
    server.said().into_iter().filter(is_complaint).collect()
}

#[test]
fn a_command_that_finds_no_admin_server_says_how_to_get_one() {
    let nobody = ports::local().to_string();
    for command in [&["status"][..], &["promotable"], &["handover"], &["ack", "async"]] {
        let output = run(&[command, &["--admin", &nobody]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("only if it was started with --admin {nobody}")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let mut server = crate::standalone(16);
    let output = run(&["status", "--admin", &server.clients().to_string()]);
    assert!(text(&output.stderr).contains("no admin port; name the server's --admin"), "{output:?}");
}

#[test]
fn the_help_of_status_explains_its_lines() {
    let help = text(&run(&["status", "--help"]).stdout);
    for words in
        ["What the lines mean:", "- ready: whether", "- quarantined: whether", "unneeded (it answers without"]
    {
        assert!(help.contains(words), "{words}: {help}");
    }
}

#[test]
fn the_walk_of_the_readme_is_clean() {
    let address = ports::local().to_string();
    let mut first = crate::primary(16, &address);
    let mut second = crate::replica(16, first.replication());
    admin::wait_streaming(second.admin());
    assert_eq!(Wire::connect(first.clients()).ask("set k 0 0 1\r\nv\r\n"), "STORED");
    assert_eq!((complaints(&first), complaints(&second)), (Vec::new(), Vec::new()));
    first.kill_9();
    admin::promote(second.admin());
    let before = complaints(&second).len();
    let of = second.replication().to_string();
    let flags = ["-p", "0", "-m", "16", "--replica-of", &of, "--replication-listen", &address];
    let mut returned = Server::start(crate::BINARY, &[&flags[..], &["--admin", crate::ANY_PORT]].concat());
    admin::wait_streaming(returned.admin());
    for node in [&mut second, &mut returned] {
        wait::wait_until("nothing to complain of", LIMIT, || {
            let status = admin::status(node.admin()).expect("a status");
            status["last_error"].is_null()
                && status["warnings"] == serde_json::json!([])
                && status["rejects"] == 0
        });
    }
    assert_eq!(complaints(&returned), Vec::<String>::new());
    assert_eq!(complaints(&second).len(), before, "{:#?}", second.said());
    returned.wait_said("the default slot is taken; trying the next");
}

#[test]
fn a_primary_forgets_what_went_wrong_with_a_replica_that_is_back() {
    let mut first = crate::primary(16, crate::ANY_PORT);
    let address = ports::local().to_string();
    let of = first.replication().to_string();
    let spare = || {
        let flags = ["-p", "0", "-m", "16", "--replica-of", &of, "--replication-listen", &address];
        let server = Server::start(crate::BINARY, &flags);
        server.wait_said("attached to the primary");
        server
    };
    spare().kill_9();
    let last_error =
        |first: &mut Server| admin::status(first.admin()).expect("a status")["last_error"].clone();
    wait::wait_until("an error", LIMIT, || last_error(&mut first).to_string().contains(&address));
    let _spare = spare();
    wait::wait_until("no error", LIMIT, || last_error(&mut first).is_null());
}

#[test]
fn an_ack_mode_that_no_replica_can_meet_is_warned_of_where_it_is_given() {
    let mut first = crate::primary(16, crate::ANY_PORT);
    let mut second = crate::replica(16, first.replication());
    admin::wait_streaming(second.admin());
    let at = first.admin().to_string();
    let output = run(&["ack", "semi-sync:9", "--admin", &at]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let words = "the ack mode semi-sync:9 needs 9 level replicas";
    assert!(
        text(&output.stderr).contains(words) && !text(&output.stdout).contains(words),
        "once: {output:?}"
    );
    let shown = text(&run(&["status", "--admin", &at]).stdout);
    assert!(shown.lines().any(|line| line.starts_with("warning ") && line.contains(words)), "{shown}");
    assert!(first.wait_said(words).contains(" WARN "));
    let output = run(&["ack", "async", "--admin", &at]);
    assert_eq!(text(&output.stderr), "");
    first.wait_said("writes are taken again");
    let status = admin::status(first.admin()).expect("a status");
    assert_eq!(status["warnings"], serde_json::json!([]), "{status}");

    let flags = ["-p", "0", "-m", "16", "--replication-listen", crate::ANY_PORT, "--ack", "semi-sync:9"];
    let alone = Server::start(crate::BINARY, &flags);
    assert!(alone.wait_said(words).contains(" WARN "));
}

#[test]
fn a_node_that_finds_no_primary_says_the_command_that_promotes_it() {
    let (nobody, admin_at) = (ports::local().to_string(), ports::local().to_string());
    let flags = ["-p", "0", "-m", "16", "--peer", &nobody, "--replication-listen", crate::ANY_PORT];
    let mut node = Server::start(crate::BINARY, &[&flags[..], &["--admin", &admin_at]].concat());
    let command = format!("(this one: hotspare promote --admin {admin_at})");
    assert!(node.wait_said("this node holds nothing").contains(&command), "{:#?}", node.said());
    let status = admin::status(node.admin()).expect("a status");
    assert!(status["warnings"].to_string().contains(&command), "{status}");
    let arguments: Vec<&str> = command[1..command.len() - 1].split(' ').skip(3).collect();
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");

    let without = Server::start(crate::BINARY, &flags);
    assert!(without.wait_said("this node holds nothing").contains("has to be started with: --admin ADDRESS"));
}

#[test]
fn a_strict_primary_and_its_async_replica_both_warn_until_they_agree() {
    let flags = ["-p", "0", "-m", "16", "--replication-listen", crate::ANY_PORT, "--admin", crate::ANY_PORT];
    let mut first = Server::start(crate::BINARY, &[&flags[..], &["--ack", "strict:1"]].concat());
    let mut second = crate::replica(16, first.replication());
    assert!(first.wait_said("the ack mode here is strict:1, and async at").contains(" WARN "));
    assert!(second.wait_said("the ack mode here is async, and strict:1 at").contains(" WARN "));
    let differs = |node: &mut Server| {
        admin::status(node.admin()).expect("a status")["warnings"]
            .to_string()
            .contains("the ack mode here is")
    };
    assert!(differs(&mut first) && differs(&mut second));
    let output = run(&["ack", "strict:1", "--admin", &second.admin().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    wait::wait_until("both agree", LIMIT, || !differs(&mut first) && !differs(&mut second));
}

#[test]
fn g4_a_shutdown_that_is_refused_names_the_flag_and_a_graceful_stop_what_it_loses() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("shutdown\r\n"), "SERVER_ERROR: shutdown not enabled");
    assert_eq!(wire.ask("set k 0 0 1\r\nv\r\n"), "STORED");
    drop(wire);
    server.signal(Signal::USR1);
    assert_eq!(server.wait_exit(LIMIT), Some(0));
    let said = server.said().into_iter().find(|line| line.contains("without -e FILE nothing is saved"));
    assert!(
        said.is_some_and(|line| line.contains(" WARN ") && line.contains("the 1 items")),
        "{:#?}",
        server.said()
    );
}

#[test]
fn certificates_for_one_more_node_are_made_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = folder.path().display().to_string();
    let first = run(&["cert", &shown, "--names", "cache-1/10.0.0.1"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let authority = std::fs::read(folder.path().join("ca.pem")).expect("an authority");
    let more = run(&["cert", &shown, "--names", "cache-3/10.0.0.3"]);
    assert_eq!(more.status.code(), Some(0), "{more:?}");
    assert!(folder.path().join("cache-3.key").exists());
    assert_eq!(std::fs::read(folder.path().join("ca.pem")).expect("the same"), authority);
    let again = run(&["cert", &shown, "--names", "cache-3/10.0.0.3"]);
    assert!(text(&again.stderr).contains("cache-3.pem is there already"), "{again:?}");
}

#[test]
fn a_node_that_can_t_follow_says_why() {
    let mut server = crate::primary(16, crate::ANY_PORT);
    let (clients, admin) = (server.clients().to_string(), server.admin().to_string());
    let nobody = ports::local().to_string();
    for (address, why) in [
        (&nobody, "nothing listens there"),
        // A memcached port waits for a line's end; that it speaks no replication is known later only.
        (&clients, "nothing was heard from there within a second; hotspare status tells"),
    ] {
        let answer = run(&["follow", address, "--force", "--admin", &admin]);
        let said = text(&answer.stderr);
        assert!(answer.status.success() && said.contains("where no node has answered yet"), "{said}");
        let told =
            |line: &str| line.starts_with(&format!("hotspare: warning: {address}: ")) && line.contains(why);
        assert!(said.lines().any(told), "{why}: {said}");
    }
}

#[test]
fn a_start_that_fails_names_the_flag() {
    let mut server = crate::primary(16, crate::ANY_PORT);
    let (clients, replication) = (server.clients(), server.replication().to_string());
    let (port, admin) = (clients.port().to_string(), server.admin().to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("precious");
    std::fs::write(&file, "mine, and nobody else's").expect("a file");
    let path = file.to_str().expect("a plain path");
    for (flags, words) in [
        (&["-p", &*port][..], "-p and -l say where"),
        (&["-p", "0", "--replication-listen", &replication], "can't listen for replication on"),
        (&["-p", "0", "--admin", &admin], "can't listen for admin on"),
        (&["-s", path], "a file that is no socket is there"),
        (
            &["-p", "0", "--replication-listen", "127.0.0.1:0", "--log-bytes", "5"],
            "'--log-bytes <SIZE>': give 4k to 32g",
        ),
        (&["-p", "0", "--replica-of", "7400"], "--replica-of 7400: give HOST:PORT"),
        (
            &[
                "-p",
                "0",
                "--replication-listen",
                "0.0.0.0:7400",
                "--bootstrap",
                "--replication-secret-file",
                path,
            ],
            "--replication-listen 0.0.0.0:7400: the other nodes are told this address",
        ),
        (&["-p", "0", "--peer", "7400"], "--peer 7400: give HOST:PORT"),
        (&["-p", "0", "--ack-timeout-ms", "9"], "--ack-timeout-ms does nothing without replication"),
        (&["-p", "0", "--transport", "tcp"], "--transport does nothing without replication"),
    ] {
        let mut refused = Server::spawn(crate::BINARY, flags);
        let code = refused.wait_exit(LIMIT);
        assert!(matches!(code, Some(64 | 71)), "{flags:?}: {code:?}");
        let last = refused.said().pop().unwrap_or_default();
        assert!(last.starts_with("hotspare: ") && last.contains(words), "{words}: {last}");
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"mine, and nobody else's");
}

#[test]
fn a_host_that_nobody_knows_ends_with_the_systems_exit_code_as_with_memcached() {
    for host in ["999.1.1.1", "nobody.invalid"] {
        let mut refused = Server::spawn(crate::BINARY, &["-l", host]);
        assert_eq!(refused.wait_exit(LIMIT), Some(71), "{host}");
        let last = refused.said().pop().unwrap_or_default();
        assert!(last.starts_with(&format!("hotspare: -l {host}: ")), "{last}");
    }
}

#[test]
fn items_that_replicas_can_t_be_sent_are_warned_of_at_the_start_and_where_they_are_refused() {
    let flags = ["-p", "0", "-m", "16", "--replication-listen", crate::ANY_PORT, "--admin", crate::ANY_PORT];
    let with = |more: &[&str]| Server::start(crate::BINARY, &[&flags[..], more].concat());
    assert_eq!(
        complaints(&with(&["-I", "1m"])),
        Vec::<String>::new(),
        "the default log carries the default item"
    );
    let warned = with(&["-I", "2m"]).wait_said("can be sent");
    let sufficient =
        warned.rsplit_once("--log-bytes ").and_then(|(_, words)| words.split_once(' ')).unwrap().0;
    assert!(warned.contains(" WARN ") && warned.contains("-I allows items of 2097152 bytes"), "{warned}");
    assert_eq!(complaints(&with(&["-I", "2m", "--log-bytes", sufficient])), Vec::<String>::new());

    let mut first = with(&["--log-bytes", "256k"]);
    let mut second = crate::replica(16, first.replication());
    admin::wait_streaming(second.admin());
    let set = format!("set k 0 0 100000\r\n{}\r\n", "x".repeat(100_000));
    let mut wire = Wire::connect(first.clients());
    assert_eq!(wire.ask(&set), "STORED", "nobody waits for an ack");
    run(&["ack", "semi-sync:1", "--admin", &first.admin().to_string()]);
    let refusal = "SERVER_ERROR object too large for cache: replicas can be sent ";
    let said = wire.ask(&set);
    assert!(said.starts_with(refusal) && said.ends_with(" bytes (--log-bytes)"), "{said}");
    let beyond_all = format!("set k 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000));
    assert_eq!(wire.ask(&beyond_all), "SERVER_ERROR object too large for cache");
}
