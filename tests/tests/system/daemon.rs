//! How the process lives: in the background, with a pid file, as another user, and what signals do to it.
//!
//! Lives here: `-d`, `-P`, `-u`, `-k`, `-r`, `-h`, `-V`, SIGUSR1, rules Z8 and Z9. Not here: SIGTERM and replication (see
//! `shutdown`), SIGHUP (see `authentication`).

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process, test_kill_process};
use tests::process::Server;
use tests::{ports, wait};

use crate::wire::{self, Wire};

/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The exit codes for what makes no sense (EX_USAGE), no user (EX_NOUSER), and what the system refuses (EX_OSERR).
const EXIT_USAGE: i32 = 64;
const EXIT_USER: i32 = 67;
const EXIT_SYSTEM: i32 = 71;

/// Runs the program to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(crate::BINARY).args(arguments).output().expect("the program")
}

/// A process that is nobody's child, killed when dropped.
struct Background(Pid);

impl Background {
    fn of_pid_file(file: &Path) -> Background {
        let text = fs::read_to_string(file).expect("a pid file when -d returns");
        Background(Pid::from_raw(text.trim().parse().expect("a number")).expect("an id above 0"))
    }

    fn is_alive(&self) -> bool {
        // A zombie whose new parent does not look is as good as gone.
        let is_zombie = self.status("State:").is_none_or(|state| state.starts_with('Z'));
        test_kill_process(self.0).is_ok() && !is_zombie
    }

    fn status(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.as_raw_nonzero())).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It fails when it is gone already, which is what is wanted.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn d_returns_when_the_server_serves_in_the_background_and_p_holds_its_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let mut first =
        Server::spawn(crate::BINARY, &["-dp0", "-m16", "-P", file.to_str().expect("a plain path")]);
    assert_eq!(first.wait_exit(LIMIT), Some(0), "{:#?}", first.said());
    let second = Background::of_pid_file(&file);
    // At once: whoever started it need not try until it works.
    wire::assert_serves(first.all_clients(1)[0].parse::<SocketAddr>().expect("an address"));
    assert_ne!(second.0.as_raw_nonzero().get().unsigned_abs(), first.id());
    let session = rustix::process::getsid(Some(second.0)).expect("a session");
    assert_eq!(session, second.0, "a session of its own");
    let id = second.0.as_raw_nonzero();
    assert_eq!(fs::read_link(format!("/proc/{id}/cwd")).expect("a folder"), Path::new("/"));
    for stream in 0..3 {
        let place = fs::read_link(format!("/proc/{id}/fd/{stream}")).expect("a stream");
        assert_eq!(place, Path::new("/dev/null"), "stream {stream}");
    }
    kill_process(second.0, Signal::TERM).expect("a signal to send");
    wait::wait_until("the end", LIMIT, || !second.is_alive());
    assert!(!file.exists(), "the pid file goes with the process");
}

#[test]
fn d_says_what_is_wrong_where_it_was_started_with_the_servers_exit_code() {
    let mut taken = crate::standalone(16);
    let port = taken.clients().port().to_string();
    let output = run(&["-d", "-m", "16", "-p", &port]);
    assert_eq!(output.status.code(), Some(EXIT_SYSTEM));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port), "{output:?}");
    assert_eq!(run(&["-d", "-m", "0"]).status.code(), Some(EXIT_USAGE));
}

#[test]
fn a_pid_file_that_cannot_be_written_is_no_start() {
    let output = run(&["-p0", "-m16", "-P", "/nonexistent/pid"]);
    assert_eq!(output.status.code(), Some(EXIT_SYSTEM), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/pid"), "{output:?}");
}

#[test]
fn u_leaves_no_id_of_a_process_that_has_ended() {
    if !getuid().is_root() {
        return eprintln!("skipped: only root can become another");
    }
    let stopped = |mode: u32| {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("a mode");
        let file = folder.path().join("pid");
        let path = file.to_str().expect("a plain path");
        let mut server = Server::start(crate::BINARY, &["-p0", "-m16", "-u", "nobody", "-P", path]);
        server.clients();
        assert_eq!(fs::read_to_string(&file).expect("a pid file"), format!("{}\n", server.id()));
        server.terminate();
        assert_eq!(server.wait_exit(LIMIT), Some(0));
        fs::read_to_string(&file).ok()
    };
    assert_eq!(stopped(0o1777), None, "where everybody may remove his own, as in /tmp");
    assert_eq!(stopped(0o755).as_deref(), Some(""), "where only root may remove it");
}

#[test]
fn u_makes_every_thread_another_user_after_binding() {
    if !getuid().is_root() {
        return eprintln!("skipped: only root can become another");
    }
    let mut server = Server::start(crate::BINARY, &["-p0", "-m16", "-u", "nobody", "-t3"]);
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", server.id())).expect("a process") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("a status");
        for name in ["Uid:", "Gid:", "Groups:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            assert!(line.split_whitespace().all(|id| id != "0"), "{name} {line}");
        }
        threads += 1;
    }
    assert!(threads > 4, "the workers and the acceptor were looked at: {threads}");
    wire::assert_serves(server.clients());
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let path = socket.to_str().expect("a plain path");
    let at_socket = Server::spawn(crate::BINARY, &["-m16", "-u", "nobody", "-s", path]);
    at_socket.all_clients(1);
    assert_ne!(fs::metadata(&socket).expect("a socket").uid(), 0, "its owner may connect");
    let output = run(&["-p0", "-m16", "-u", "nobody-of-that-name"]);
    assert_eq!(output.status.code(), Some(EXIT_USER), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody-of-that-name"));
}

#[test]
fn k_and_r_do_what_they_say_or_warn() {
    let mut server = Server::start(crate::BINARY, &["-kr", "-p0", "-m16"]);
    let address = server.clients();
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", server.id())).expect("a process");
    let locked = read("status").lines().any(|line| line.starts_with("VmLck:") && !line.ends_with(" 0 kB"));
    let warned = |words: &str| server.said().iter().any(|line| line.contains("WARN") && line.contains(words));
    assert!(locked != warned("memory is not locked"), "{:#?}", server.said());
    let unlimited =
        read("limits").lines().any(|line| line.starts_with("Max core file size        unlimited"));
    assert!(unlimited != warned("core files stay limited"), "{:#?}", server.said());
    let mut wire = Wire::connect(address);
    wire.send(format!("set a 0 0 500000\r\n{}\r\n", "x".repeat(500_000)));
    assert_eq!(wire.line(), "STORED", "locked memory can grow");
}

#[test]
fn z9_help_names_what_is_supported_and_only_that() {
    let output = run(&["-h"]);
    let help = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "-p, --port",
        "-s, --unix-socket",
        "-Y, --auth-file",
        "-d, --daemon",
        "-P, --pidfile",
        "-u, --user",
        "-k, --lock-memory",
        "idle_timeout",
        "enable-ssl",
        "enable-sasl",
        "-D <CHAR>",
        "-i, --license",
    ] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    for word in ["proxy", "extstore", "in-background"] {
        assert!(!help.contains(word), "{word} is not supported:\n{help}");
    }
    let version = run(&["-V"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("hotspare {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn z9_a_suboption_that_nobody_knows_is_named_and_memcacheds_are_accepted() {
    let output = run(&["-p0", "-o", "modern,frobnicate=1"]);
    assert_eq!(output.status.code(), Some(EXIT_USAGE));
    assert!(String::from_utf8_lossy(&output.stderr).contains("frobnicate"), "{output:?}");
    let words = "modern,hashpower=20,slab_automove=1,lru_crawler,hot_lru_pct=10,worker_logbuf_size=8";
    let mut server = Server::start(crate::BINARY, &["-p0", "-m16", "-o", words]);
    wire::assert_serves(server.clients());
}

#[test]
fn sigusr1_lets_a_request_that_has_begun_come_to_its_end() {
    ends_gracefully(|server, _| server.signal(Signal::USR1));
}

#[test]
fn g4_shutdown_graceful_is_sigusr1() {
    ends_gracefully(|_, address| Wire::connect(address).send("shutdown graceful\r\n"));
}

/// Told to, a server lets a request that has begun come to its end.
fn ends_gracefully(tell: impl FnOnce(&Server, SocketAddr)) {
    let mut server = Server::start(crate::BINARY, &["-p0", "-m16", "-A"]);
    let address = server.clients();
    let (mut idle, mut begun) = (Wire::connect(address), Wire::connect(address));
    assert!(idle.ask("version\r\n").starts_with("VERSION "));
    // The first answer tells that the half request behind it has come, too.
    assert!(begun.ask("version\r\nset a 0 0 5\r\nab").starts_with("VERSION "));
    let began = Instant::now();
    tell(&server, address);
    assert!(idle.is_closed(), "who owes nothing is closed");
    assert!(TcpStream::connect(address).is_err(), "nobody new is let in");
    begun.send("cde\r\nget a\r\n");
    assert_eq!((begun.line(), begun.line()), ("STORED".to_owned(), "VALUE a 0 5".to_owned()));
    assert_eq!((begun.line(), begun.line()), ("abcde".to_owned(), "END".to_owned()));
    assert!(begun.is_closed());
    assert_eq!(server.wait_exit(LIMIT), Some(0), "{:#?}", server.said());
    assert!(began.elapsed() < LIMIT / 2, "nobody had to be waited for: {:?}", began.elapsed());
}

#[test]
fn z8_sigint_and_sigterm_stop_at_once_even_in_the_middle_of_requests_and_free_the_port() {
    let port = ports::port().to_string();
    for signal in [Signal::INT, Signal::TERM] {
        // The second one has the port that the first one closed connections at.
        let mut server = Server::start(crate::BINARY, &["-m16", "-p", &port]);
        let mut begun = Wire::connect(server.clients());
        assert!(begun.ask("version\r\nset a 0 0 5\r\nab").starts_with("VERSION "));
        let began = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait_exit(LIMIT), Some(0), "{:#?}", server.said());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
