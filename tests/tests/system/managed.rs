//! A node under a service manager and a fail-over manager: what it tells the one, and how it obeys the other.
//!
//! Lives here: systemd's notify protocol, `hotspare keepalived` with a FIFO of ours. Not here: real keepalived, which has
//! tests of its own (`tests/field`).

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tests::process::{START_LIMIT, Server};
use tests::{admin, wait};

/// How long a change of role may take, the helper's grace of 3 s included.
const LIMIT: Duration = Duration::from_secs(15);

fn hear(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    let count = socket.recv(&mut bytes).expect("a message to the service manager");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn service_manager_hears_when_the_server_serves_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(START_LIMIT)).unwrap();
    let mut command = Command::new(crate::BINARY);
    command.args(["-p", "0", "-m", "8"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let mut server = Server::spawn_command(&mut command);
    assert_eq!(hear(&socket), "READY=1\n");
    TcpStream::connect(server.clients()).expect("who is ready serves");
    for _ in 0..3 {
        assert_eq!(hear(&socket), "WATCHDOG=1\n");
    }
    server.terminate();
    wait::wait_until("its goodbye", LIMIT, || match &*hear(&socket) {
        "STOPPING=1\n" => true,
        other => {
            assert_eq!(other, "WATCHDOG=1\n");
            false
        }
    });
    assert_eq!(server.wait_exit(LIMIT), Some(0));
}

#[test]
fn server_serves_where_the_service_manager_can_not_be_told() {
    let mut command = Command::new(crate::BINARY);
    command.args(["-p", "0", "-m", "8"]).env("NOTIFY_SOCKET", "/nowhere/at/all");
    let mut server = Server::spawn_command(&mut command);
    TcpStream::connect(server.clients()).unwrap();
    server.wait_said("can't be told");
}

fn helper(fifo: &Path, of: SocketAddr, other: SocketAddr) -> Server {
    let (of, other) = (of.to_string(), other.to_string());
    let fifo = fifo.to_str().expect("a plain path");
    Server::spawn(crate::BINARY, &["keepalived", "--fifo", fifo, "--admin", &of, "--other", &other])
}

fn make_fifo(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // As keepalived opens it: it waits for no reader, and what it writes stays there.
    File::options().read(true).write(true).open(path).unwrap()
}

fn wait_role(of: SocketAddr, role: &str) {
    wait::wait_until(role, LIMIT, || {
        admin::status(of).is_some_and(|status| admin::says(&status, "role", role))
    });
}

#[test]
fn node_reigns_while_keepalived_says_master_and_steps_down_when_it_has_lost_all_contact() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let mut old = crate::primary(8, crate::ANY_PORT);
    let mut spare = crate::replica(8, old.replication());
    let of = spare.admin();
    admin::wait_streaming(of);
    wait::wait_until("a level spare", LIMIT, || {
        admin::get(of, "/promotable").is_ok_and(|(code, _)| code == 200)
    });
    let helper = helper(&fifo, of, old.replication());
    helper.wait_said("can't read");
    let mut keepalived = make_fifo(&fifo);
    keepalived
        .write_all(b"\n\xff\xfe\nGROUP \"hotspare\" MASTER 100\nINSTANCE \"hotspare\" MASTER 1e9\n")
        .unwrap();
    keepalived.write_all(&[b'x'; 9000]).unwrap();
    keepalived.write_all(b"\nINSTANCE \"hotspare\" BACKUP 100\n").unwrap();
    helper.wait_said("BACKUP 100");
    assert_eq!(helper.said().iter().filter(|line| line.contains("ignored a line")).count(), 5);
    assert!(admin::says(&admin::status(of).unwrap(), "role", "replica"), "nothing of that promotes");

    keepalived.write_all(b"INSTANCE \"hotspare\" MASTER 100\n").unwrap();
    wait_role(of, "primary");
    helper.wait_said("promoted the node");
    wait_role(old.admin(), "replica");

    // With a replica it stays what it is; without one nobody else could tell it that it was replaced.
    keepalived.write_all(b"INSTANCE \"hotspare\" BACKUP 100\n").unwrap();
    helper.wait_said("BACKUP 100");
    old.kill_9();
    wait_role(of, "fenced");
    helper.wait_said("stepped down");

    // keepalived was started anew, and made another FIFO. A fenced node is not promoted by itself.
    drop(keepalived);
    std::fs::remove_file(&fifo).unwrap();
    let mut keepalived = make_fifo(&fifo);
    keepalived.write_all(b"INSTANCE \"hotspare\" MASTER 100\n").unwrap();
    helper.wait_said("may not be promoted: fenced");
    assert!(admin::says(&admin::status(of).unwrap(), "role", "fenced"));
    // What an operator decides is taken as it is.
    admin::promote(of);
    helper.wait_said("the node is the primary");
}

#[test]
fn promotable_is_told_by_the_exit_code() {
    let mut primary = crate::primary(8, crate::ANY_PORT);
    let ask = |of: SocketAddr| {
        let mut asked = Server::spawn(crate::BINARY, &["promotable", "--admin", &of.to_string()]);
        asked.wait_exit(LIMIT)
    };
    assert_eq!(ask(primary.admin()), Some(0));
    let nowhere = primary.replication();
    primary.kill_9();
    assert_eq!(ask(primary.admin()), Some(1));
    let mut empty = crate::replica(8, nowhere);
    assert_eq!(ask(empty.admin()), Some(1));
}
