//! Replication with certificates, over TCP and over QUIC, from the command that makes them to the fail-over.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::process::Server;
use tests::{admin, wait};

use crate::wire::{self, Wire};

/// How many items the replica has to take over.
const ITEMS: usize = 2_000;
/// How long something that must happen may take.
const LIMIT: Duration = Duration::from_secs(20);
const TRANSPORTS: [&str; 2] = ["tcp", "quic"];

/// Certificates for two nodes, made by the product itself.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let shown = folder.path().display().to_string();
    let mut maker = Server::spawn(crate::BINARY, &["cert", &shown, "--names", "cache-1,cache-2"]);
    assert_eq!(maker.wait_exit(LIMIT), Some(0), "{:#?}", maker.said());
    folder
}

/// The flags of a node that shows the certificate `name`.
fn flags(folder: &Path, transport: &str, name: &str) -> Vec<String> {
    let flag = |flag: &str, file: String| {
        [format!("--replication-tls-{flag}"), folder.join(file).display().to_string()]
    };
    [
        flag("ca", "ca.pem".to_owned()),
        flag("cert", format!("{name}.pem")),
        flag("key", format!("{name}.key")),
        ["--transport".to_owned(), transport.to_owned()],
    ]
    .concat()
}

fn node(flags: &[String], more: &[&str]) -> Server {
    let mut arguments = vec!["-p", "0", "-m", "16", "--admin", crate::ANY_PORT];
    arguments.extend(["--replication-listen", crate::ANY_PORT]);
    arguments.extend(flags.iter().map(String::as_str));
    arguments.extend(more);
    Server::start(crate::BINARY, &arguments)
}

fn replica(flags: &[String], of: &mut Server) -> Server {
    node(flags, &["--replica-of", &of.replication().to_string()])
}

#[test]
fn a_killed_primary_is_replaced_over_encrypted_transports_and_follows_when_it_comes_back() {
    for transport in TRANSPORTS {
        let folder = certificates();
        let [one, other] = ["cache-1", "cache-2"].map(|name| flags(folder.path(), transport, name));
        let mut primary = node(&one, &[]);
        let mut spare = replica(&other, &mut primary);
        admin::wait_streaming(spare.admin());
        primary.wait_said("CN=cache-2");
        let mut client = Wire::connect(primary.clients());
        for key in 0..ITEMS {
            assert_eq!(client.ask(&format!("set key-{key} 0 0 4\r\n{key:04}\r\n")), "STORED");
        }
        wait::wait_until("all items on the spare", LIMIT, || {
            wire::stat(spare.clients(), "curr_items") == ITEMS as u64
        });

        primary.kill_9();
        admin::promote(spare.admin());
        let mut client = Wire::connect(spare.clients());
        for key in 0..ITEMS {
            assert_eq!(client.ask(&format!("get key-{key}\r\n")), format!("VALUE key-{key} 0 4"));
            assert_eq!((client.line(), client.line()), (format!("{key:04}"), "END".to_owned()));
        }
        assert_eq!(client.ask("set after 0 0 2\r\nok\r\n"), "STORED");
        let mut returned = replica(&one, &mut spare);
        admin::wait_streaming(returned.admin());
        wait::wait_until("all items on the one that came back", LIMIT, || {
            wire::stat(returned.clients(), "curr_items") == ITEMS as u64 + 1
        });
        spare.terminate();
        assert_eq!(spare.wait_exit(LIMIT), Some(0), "{:#?}", spare.said());
    }
}

#[test]
fn a_node_with_certificates_of_another_authority_is_not_let_in() {
    for transport in TRANSPORTS {
        let (ours, theirs) = (certificates(), certificates());
        let mut primary = node(&flags(ours.path(), transport, "cache-1"), &[]);
        let stranger = replica(&flags(theirs.path(), transport, "cache-2"), &mut primary);
        stranger.wait_said("invalid peer certificate");
        let mut member = replica(&flags(ours.path(), transport, "cache-2"), &mut primary);
        admin::wait_streaming(member.admin());
    }
}

#[test]
fn certificates_are_never_made_over_others() {
    let folder = certificates();
    let key = folder.path().join("cache-1.key");
    let before = std::fs::read(&key).expect("a key");
    let shown = folder.path().display().to_string();
    let mut maker = Server::spawn(crate::BINARY, &["cert", &shown, "--names", "cache-1,cache-2"]);
    assert_eq!(maker.wait_exit(LIMIT), Some(1), "{:#?}", maker.said());
    assert_eq!(std::fs::read(&key).expect("the same key"), before);
}

/// Puts the files of `cache-1` and their authority from one folder into another.
fn renew(into: &Path, from: &Path) {
    for file in ["ca.pem", "cache-1.pem", "cache-1.key"] {
        std::fs::copy(from.join(file), into.join(file)).expect("a file");
    }
}

#[test]
fn sighup_shows_new_peers_the_new_certificates_and_keeps_the_links_that_are_there() {
    for transport in TRANSPORTS {
        let (folder, old, new) = (certificates(), certificates(), certificates());
        renew(folder.path(), old.path());
        let mut primary = node(&flags(folder.path(), transport, "cache-1"), &[]);
        let mut first = replica(&flags(old.path(), transport, "cache-2"), &mut primary);
        admin::wait_streaming(first.admin());
        std::fs::write(folder.path().join("cache-1.key"), "nonsense").expect("a file");
        primary.signal(Signal::HUP);
        let said = primary.wait_said("what it held before stays in use");
        assert!(said.contains("cache-1.key"), "{said}");
        let mut second = replica(&flags(old.path(), transport, "cache-2"), &mut primary);
        admin::wait_streaming(second.admin());

        renew(folder.path(), new.path());
        primary.signal(Signal::HUP);
        primary.wait_said("files were read again");
        let mut third = replica(&flags(new.path(), transport, "cache-2"), &mut primary);
        admin::wait_streaming(third.admin());
        let stranger = replica(&flags(old.path(), transport, "cache-2"), &mut primary);
        stranger.wait_said("the same --replication-tls-ca");
        assert_eq!(Wire::connect(primary.clients()).ask("set k 0 0 1\r\nx\r\n"), "STORED");
        for node in [&mut first, &mut second, &mut third] {
            wait::wait_until("the write", LIMIT, || wire::stat(node.clients(), "curr_items") == 1);
        }
        let status = admin::status(first.admin()).expect("a status");
        assert_eq!(status["installs"].as_u64().zip(status["catch_ups"].as_u64()), Some((1, 0)), "{status}");
    }
}

#[test]
fn a_node_that_dials_shows_its_new_certificate_too() {
    for transport in TRANSPORTS {
        let (folder, old, new) = (certificates(), certificates(), certificates());
        renew(folder.path(), old.path());
        let mut primary = node(&flags(new.path(), transport, "cache-2"), &[]);
        let mut spare = replica(&flags(folder.path(), transport, "cache-1"), &mut primary);
        spare.wait_said("the same --replication-tls-ca");
        renew(folder.path(), new.path());
        assert_eq!(Wire::connect(spare.clients()).ask("refresh_certs\r\n"), "OK");
        admin::wait_streaming(spare.admin());
    }
}

#[test]
fn nodes_that_are_started_unlike_each_other_say_which_flag_is_wrong_and_where() {
    let folder = certificates();
    let encrypted = |name| flags(folder.path(), "tcp", name);
    let (over_quic, plain) = (flags(folder.path(), "quic", "cache-2"), Vec::new());
    let mismatches: [(&[String], &[String], &str, &str); 4] = [
        (
            &encrypted("cache-1"),
            &plain,
            "does not speak TLS and this node does; give that node",
            "give this node --replication-tls-cert",
        ),
        (
            &plain,
            &encrypted("cache-2"),
            "give this node --replication-tls-cert",
            "does not speak TLS and this node does; give that node",
        ),
        (&encrypted("cache-1"), &over_quic, "", "over QUIC (UDP)"),
        (&over_quic, &encrypted("cache-1"), "", "nothing listens there over TCP"),
    ];
    for (listens, dials, listener_says, dialler_says) in mismatches {
        let mut primary = node(listens, &[]);
        let mut spare = replica(dials, &mut primary);
        spare.wait_said(dialler_says);
        primary.wait_said(listener_says);
        let told = admin::status(spare.admin()).expect("a status")["last_error"].to_string();
        assert!(told.contains(dialler_says) && told.contains("--"), "{told}");
    }
}

/// As a memcached does whose client port was given: it waits for a command.
#[test]
fn a_follower_of_one_that_takes_links_and_says_nothing_says_what_may_be_wrong() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("an address").to_string();
    let mut follower = node(&[], &["--replica-of", &at]);
    let admin = follower.admin();
    wait::wait_until("the reason", LIMIT, || {
        let status = admin::status(admin).unwrap_or_default();
        status["last_error"].as_str().is_some_and(|why| why.contains("(not of its clients)"))
    });
}

/// Nobody dials it before it is promoted: then it would be too late.
#[test]
fn a_certificate_that_is_not_for_where_its_node_listens_is_warned_of_at_the_start() {
    let folder = certificates();
    let flags = flags(folder.path(), "tcp", "cache-1");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let listening = |address: &str| {
        let more = ["-p", "0", "-m", "16", "--replication-listen", address];
        Server::start(crate::BINARY, &[&more[..], &flags].concat())
    };
    assert!(
        listening("127.0.0.2:0").wait_said("--replication-tls-cert is not for 127.0.0.2").contains(" WARN ")
    );
    let fits = listening("127.0.0.1:0");
    fits.wait_said("listening for replication");
    assert!(!fits.said().iter().any(|line| line.contains("--replication-tls-cert")), "{:#?}", fits.said());
}
