//! An operator who errs: promotes the wrong node, one that nobody can follow, or has the primary follow.
//!
//! Lives here: what becomes of processes then, and what the operator is told. Not here: every order of events (the engine's
//! own tests, the simulation).

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

const LIMIT: Duration = Duration::from_secs(20);

/// A spare at this address, which knows another node besides its primary.
fn spare(own: SocketAddr, of: SocketAddr, peer: SocketAddr) -> Server {
    let [own, of, peer] = [own, of, peer].map(|address| address.to_string());
    let arguments =
        ["-p", "0", "-m", "16", "--replication-listen", &own, "--replica-of", &of, "--peer", &peer];
    Server::start(crate::BINARY, &[&arguments[..], &["--admin", crate::ANY_PORT]].concat())
}

fn wait_role(of: SocketAddr, role: &str) {
    wait::wait_until(role, LIMIT, || {
        admin::status(of).is_some_and(|status| admin::says(&status, "role", role))
    });
}

fn wait_warned(of: SocketAddr, words: &str) {
    wait::wait_until(words, LIMIT, || {
        let status = admin::status(of).unwrap_or_default();
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains(words)))
    });
}

#[test]
fn an_empty_spare_is_not_promoted_beside_one_that_is_warm() {
    let [first, second, third] = [ports::local(), ports::local(), ports::local()];
    let mut primary = crate::primary(16, &first.to_string());
    let mut warm = spare(second, first, third);
    admin::wait_streaming(warm.admin());
    assert_eq!(Wire::connect(primary.clients()).ask("set k 0 0 1\r\nv\r\n"), "STORED");
    wait::wait_until("the item", LIMIT, || crate::wire::stat(warm.clients(), "curr_items") == 1);
    primary.kill_9();
    // The wrong one: it came after the primary's death.
    let mut empty = spare(third, first, second);
    let (code, said) = admin::post(empty.admin(), "/promote").unwrap();
    assert_eq!(code, 409, "{said}");
    assert!(
        said.contains(&format!("{second} does, up to seq")) && said.contains("promote that one"),
        "{said}"
    );
    assert!(admin::says(&admin::status(empty.admin()).unwrap(), "role", "replica"));

    let (code, said) = admin::post(warm.admin(), "/promote").unwrap();
    assert_eq!(code, 200, "{said}");
    admin::wait_streaming(empty.admin());
    assert_eq!(Wire::connect(warm.clients()).ask("get k\r\n"), "VALUE k 0 1");
    wait::wait_until("the item", LIMIT, || crate::wire::stat(empty.clients(), "curr_items") == 1);
}

#[test]
fn of_nodes_that_are_all_empty_any_is_promoted() {
    let [first, second, gone] = [ports::local(), ports::local(), ports::local()];
    let (mut one, mut other) = (spare(first, gone, second), spare(second, gone, first));
    let (code, said) = admin::post(one.admin(), "/promote").unwrap();
    assert_eq!(code, 200, "{said}");
    admin::wait_streaming(other.admin());
    // Forced is forced.
    let (code, said) = admin::post(other.admin(), "/promote?force=1").unwrap();
    assert_eq!(code, 200, "{said}");
    wait_role(one.admin(), "replica");
}

#[test]
fn nodes_of_which_none_reigns_say_how_a_group_begins() {
    let [first, second] = [ports::local(), ports::local()];
    let begin = |own: SocketAddr, peer: SocketAddr| {
        let [own, peer] = [own, peer].map(|address| address.to_string());
        let arguments = ["-p", "0", "-m", "16", "--replication-listen", &own, "--peer", &peer];
        Server::start(crate::BINARY, &[&arguments[..], &["--admin", crate::ANY_PORT]].concat())
    };
    let (mut one, mut other) = (begin(first, second), begin(second, first));
    for node in [&mut one, &mut other] {
        node.wait_said("no node that it knows is the primary");
        wait_warned(node.admin(), "--bootstrap at its first start");
    }
    let (code, said) = admin::post(one.admin(), "/promote").unwrap();
    assert_eq!(code, 200, "{said}");
    admin::wait_streaming(other.admin());
    for node in [&mut one, &mut other] {
        let status = admin::status(node.admin()).expect("a status");
        assert_eq!(status["warnings"], serde_json::json!([]), "{status}");
    }
    // Who holds items waits for no group to begin, and is not told so.
    one.kill_9();
    wait::wait_until("the link's end", LIMIT, || {
        admin::status(other.admin()).is_some_and(|status| admin::says(&status, "link", "connecting"))
    });
    std::thread::sleep(Duration::from_secs(2));
    let status = admin::status(other.admin()).expect("a status");
    assert_eq!(status["warnings"], serde_json::json!([]), "{status}");
}

/// The spare dials the old primary, again and again, since nobody can dial the spare.
#[test]
fn a_spare_that_does_not_listen_fences_the_old_primary_whenever_that_comes_back() {
    let listens = ports::local();
    let mut old = crate::primary(16, &listens.to_string());
    let of = listens.to_string();
    let arguments = ["-p", "0", "-m", "16", "--replica-of", &of, "--admin", crate::ANY_PORT];
    let mut deaf = Server::start(crate::BINARY, &arguments);
    deaf.wait_said("this node has no --replication-listen");
    admin::wait_streaming(deaf.admin());
    assert_eq!(Wire::connect(old.clients()).ask("set k 0 0 1\r\nv\r\n"), "STORED");
    wait::wait_until("the item", LIMIT, || crate::wire::stat(deaf.clients(), "curr_items") == 1);
    old.kill_9();
    let (code, said) = admin::post(deaf.admin(), "/promote").unwrap();
    assert!(code == 200 && said.contains("nobody can follow it") && said.contains("not yet told"), "{said}");

    for _ in 0..2 {
        let mut back = crate::primary(16, &listens.to_string());
        wait_role(back.admin(), "fenced");
        let answer = Wire::connect(back.clients()).ask("set k 0 0 1\r\nw\r\n");
        assert!(answer.starts_with("SERVER_ERROR"), "{answer}");
        wait_warned(back.admin(), "without --replication-listen reigns by term");
        back.wait_said("it can't be followed");
        back.kill_9();
    }
    assert_eq!(Wire::connect(deaf.clients()).ask("get k\r\n"), "VALUE k 0 1");
}

#[test]
fn a_primary_does_not_follow_by_mistake() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    let own = primary.replication();
    let mut replica = crate::replica(16, own);
    admin::wait_streaming(replica.admin());
    assert_eq!(Wire::connect(primary.clients()).ask("set k 0 0 1\r\nv\r\n"), "STORED");
    let follow =
        |of: SocketAddr, address: String| admin::post(of, &format!("/follow?address={address}")).unwrap();
    for address in [own.to_string(), format!("{own}&force=1")] {
        let (code, said) = follow(primary.admin(), address);
        assert!(code == 409 && said.contains("this node's own address"), "{said}");
    }
    let (code, said) = follow(primary.admin(), "127.0.0.1:1".to_owned());
    assert!(code == 409 && said.contains("1 replicas") && said.contains("hand over"), "{said}");
    assert_eq!(Wire::connect(primary.clients()).ask("get k\r\n"), "VALUE k 0 1", "it goes on");
    let (code, said) = follow(primary.admin(), "127.0.0.1:1&force=1".to_owned());
    assert_eq!(code, 200, "{said}");
    wait_role(primary.admin(), "fenced");
}

/// Two histories on one loopback, without a secret: neither believes the other, and both say so.
#[test]
fn two_primaries_of_a_group_say_so() {
    let listens = ports::local();
    let mut stray = crate::replica(16, listens);
    let stray_admin = stray.admin();
    let (code, said) = admin::post(stray_admin, "/promote").unwrap();
    assert_eq!(code, 200, "{said}");
    // Meanwhile the other one becomes more than a beginner, which would yield.
    stray.pause();
    let of = listens.to_string();
    let node = |flag: &str| {
        let arguments =
            ["-p", "0", "-m", "16", "--ack", "semi-sync:1", "--admin", crate::ANY_PORT, flag, &of];
        Server::start(crate::BINARY, &arguments)
    };
    // One whose writes are acknowledged by a replica gives them up for nobody.
    let mut primary = node("--replication-listen");
    let mut replica = node("--replica-of");
    admin::wait_streaming(replica.admin());
    // It has something to lose.
    assert_eq!(Wire::connect(primary.clients()).ask("set k 0 0 1\r\nx\r\n"), "STORED");
    stray.signal(Signal::CONT);
    let warned = format!("{} says that it is the primary as well", stray.replication());
    wait_warned(primary.admin(), &warned);
    wait_warned(stray_admin, "not yet told that this node is the primary");
    let reigns = |of| admin::says(&admin::status(of).unwrap(), "role", "primary");
    assert!(reigns(primary.admin()) && reigns(stray_admin));
    // An operator decides.
    let (code, said) =
        admin::post(primary.admin(), &format!("/follow?address={}&force=1", stray.replication())).unwrap();
    assert_eq!(code, 200, "{said}");
    wait_role(primary.admin(), "fenced");
}

/// One command at a node; whether it went well, and all that it printed.
fn told(admin: SocketAddr, command: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(crate::BINARY)
        .args(command)
        .args(["--admin", &admin.to_string()])
        .output()
        .expect("the program");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_node_that_is_gone_for_good_is_forgotten_by_those_who_outlive_it() {
    let mut old = crate::primary(16, crate::ANY_PORT);
    let gone = old.replication();
    let mut spares = [1, 2].map(|_| crate::replica(16, gone));
    spares.iter_mut().for_each(|spare| admin::wait_streaming(spare.admin()));
    let [first, second] = &mut spares;
    old.kill_9();
    admin::promote(first.admin());
    let untold = format!("not yet told that this node is the primary: {gone}");
    wait_warned(first.admin(), &untold);
    admin::wait_streaming(second.admin());
    // Whoever is there is not forgotten, and nor is who never was.
    let attached = second.replication().to_string();
    let (went_well, said) = told(first.admin(), &["forget", &attached]);
    assert!(!went_well && said.contains("is attached"), "{said}");
    let (went_well, said) = told(first.admin(), &["forget", "127.0.0.1:1"]);
    assert!(!went_well && said.contains("knows no peer"), "{said}");
    let (went_well, said) = told(first.admin(), &["forget", &gone.to_string()]);
    assert!(went_well && said.contains(&gone.to_string()) && !said.contains("not yet told"), "{said}");
    // The other one hears of that with a heartbeat, of which there are four a second.
    std::thread::sleep(Duration::from_secs(1));
    let next = first.replication();
    first.kill_9();
    admin::promote(second.admin());
    wait_warned(second.admin(), &format!("not yet told that this node is the primary: {next};"));
}
