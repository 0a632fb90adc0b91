//! Replication with certificates, over TCP and over QUIC, from the command that makes them to the fail-over.

use std::path::Path;
use std::time::Duration;

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
