//! Who is let in: ASCII authentication (rules Q1, Q2, Z5).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::process::Server;
use tests::wait;

use crate::wire::Wire;

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The exit code for a command line that makes no sense (EX_USAGE).
const EXIT_USAGE: i32 = 64;

/// A file of users, in a folder that goes with the value.
fn users(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    fs::write(&file, text).expect("a file");
    (folder, file)
}

fn server(file: &Path, more: &[&str]) -> Server {
    let file = file.to_str().expect("a plain path");
    Server::spawn(crate::BINARY, &[&["-p", "0", "-m", "16", "-Y", file], more].concat())
}

fn log_in(wire: &mut Wire, token: &str) -> String {
    wire.ask(&format!("set any 0 0 {}\r\n{token}\r\n", token.len()))
}

/// A number of `stats`, asked over a connection that is in.
fn stat(wire: &mut Wire, name: &str) -> String {
    wire.send("stats\r\n");
    let prefix = format!("STAT {name} ");
    let lines: Vec<String> = std::iter::from_fn(|| Some(wire.line()).filter(|line| line != "END")).collect();
    lines.iter().find_map(|line| line.strip_prefix(&prefix)).expect("a number").to_owned()
}

#[test]
fn q1_nothing_works_before_a_set_with_user_and_password_and_everything_after() {
    let (_folder, file) = users("ann:other\nbob:secret");
    let mut server = server(&file, &[]);
    let mut wire = Wire::connect(server.clients());
    for request in [
        "get a\r\n",
        "version\r\n",
        "quit\r\n",
        "flush_all\r\n",
        "mg a v\r\n",
        "add a 0 0 1\r\n",
        "stats\r\n",
    ] {
        assert_eq!(wire.ask(request), "CLIENT_ERROR unauthenticated", "{request:?}");
    }
    assert_eq!(log_in(&mut wire, "bob wrong"), "CLIENT_ERROR authentication failure");
    assert_eq!(log_in(&mut wire, "bobsecret"), "CLIENT_ERROR bad authentication token format");
    // Z5: the connection stays.
    assert_eq!(wire.ask("set a 0 0 2147483646\r\n"), "CLIENT_ERROR auth token too long");
    assert_eq!(log_in(&mut wire, "bob secret"), "STORED");
    assert_eq!(wire.ask("get any\r\n"), "END", "the token was not stored");
    assert_eq!(wire.ask("set a 0 0 1\r\n1\r\n"), "STORED");
    assert_eq!(wire.ask("get a\r\n"), "VALUE a 0 1");
    assert_eq!((wire.line(), wire.line()), ("1".to_owned(), "END".to_owned()));
    assert_eq!(
        (stat(&mut wire, "auth_cmds"), stat(&mut wire, "auth_errors")),
        ("2".to_owned(), "1".to_owned())
    );
    let mut another = Wire::connect(server.clients());
    assert_eq!(another.ask("get a\r\n"), "CLIENT_ERROR unauthenticated", "one's key opens no other's door");
}

#[test]
fn q1_a_token_in_pieces_and_what_comes_behind_it_at_once_are_answered() {
    let (_folder, file) = users("bob:secret\n");
    let mut server = server(&file, &[]);
    let mut wire = Wire::connect(server.clients());
    wire.trickle(b"set a 0 0 10\r\nbob secret\r\nget a\r\n");
    assert_eq!((wire.line(), wire.line()), ("STORED".to_owned(), "END".to_owned()));
    let mut wire = Wire::connect(server.clients());
    wire.send("get a\r\nset a 0 0 10\r\nbob secret\r\nversion\r\n");
    assert_eq!((wire.line(), wire.line()), ("CLIENT_ERROR unauthenticated".to_owned(), "STORED".to_owned()));
    assert!(wire.line().starts_with("VERSION "));
}

#[test]
fn q1_a_short_line_and_endless_junk_are_closed_upon() {
    let (_folder, file) = users("bob:secret\n");
    let mut server = server(&file, &[]);
    for junk in [b"get\r\n".to_vec(), vec![b'x'; 2100], [&[0x80][..], &[0; 23]].concat()] {
        let mut wire = Wire::connect(server.clients());
        wire.send_anyhow(&junk);
        assert!(wire.is_closed());
    }
}

#[test]
fn sighup_reads_the_users_again_and_a_file_without_sense_changes_nothing() {
    let (_folder, file) = users("bob:old\n");
    let mut server = server(&file, &[]);
    let mut inside = Wire::connect(server.clients());
    assert_eq!(log_in(&mut inside, "bob old"), "STORED");
    fs::write(&file, "bob:new\n").expect("a file");
    server.signal(Signal::HUP);
    server.wait_said("files were read again");
    assert_eq!(
        log_in(&mut Wire::connect(server.clients()), "bob old"),
        "CLIENT_ERROR authentication failure"
    );
    assert_eq!(log_in(&mut Wire::connect(server.clients()), "bob new"), "STORED");
    fs::write(&file, "nonsense\n").expect("a file");
    server.signal(Signal::HUP);
    wait::wait_until("a complaint", LIMIT, || {
        server.said().iter().any(|line| line.contains("user:password"))
    });
    assert_eq!(log_in(&mut Wire::connect(server.clients()), "bob new"), "STORED");
    assert_eq!(inside.ask("get a\r\n"), "END", "who is in stays in");
}

/// The status of a SASL PLAIN login over a new connection.
fn log_in_by_sasl(server: &mut Server, password: &str) -> u16 {
    let message = format!("\0bob\0{password}");
    let body = [b"PLAIN", message.as_bytes()].concat();
    let mut request = vec![0; 24];
    (request[0], request[1], request[3], request[11]) =
        (0x80, 0x21, 5, u8::try_from(body.len()).expect("a short body"));
    request.extend(body);
    let mut wire = Wire::connect(server.clients());
    wire.send(request);
    let answer = wire.up_to(24);
    u16::from_be_bytes([answer[6], answer[7]])
}

#[test]
fn q2_sighup_reads_the_passwords_of_sasl_again() {
    let (_folder, file) = users("bob:old\n");
    let path = file.to_str().expect("a plain path");
    let arguments = ["-p", "0", "-m", "16", "-S", "--sasl-password-file", path];
    let mut server = Server::spawn(crate::BINARY, &arguments);
    assert_eq!(log_in_by_sasl(&mut server, "old"), 0);
    fs::write(&file, "bob:new\n").expect("a file");
    server.signal(Signal::HUP);
    server.wait_said("files were read again");
    assert_eq!((log_in_by_sasl(&mut server, "old"), log_in_by_sasl(&mut server, "new")), (0x20, 0));
}

#[test]
fn a_server_that_could_not_check_anybody_does_not_start() {
    let (_folder, file) = users("bob:secret\n");
    let (_another, malformed) = users("bob\n");
    let missing = file.with_file_name("missing");
    for (file, more, words) in
        [(&file, &["-U", "11211"][..], "UDP"), (&malformed, &[], "user:password"), (&missing, &[], "missing")]
    {
        let mut server = server(file, more);
        assert_eq!(server.wait_exit(LIMIT), Some(EXIT_USAGE), "{:#?}", server.said());
        assert!(server.said().iter().any(|line| line.contains(words)), "{:#?}", server.said());
    }
}
