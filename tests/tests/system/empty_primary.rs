//! A primary that died and came back empty must not empty its replica.
//!
//! Lives here: the walk from the kill to the promotion, after which the empty one follows; and the operator who promotes the
//! empty one instead.

use std::time::Duration;

use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

/// How many items the replica has to keep.
const ITEMS: usize = 500;
/// How long the roles may take to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// How many of the items a node has.
fn items_on(server: &mut Server) -> usize {
    let mut wire = Wire::connect(server.clients());
    let has = |key: &usize| {
        let found = wire.ask(&format!("get key-{key}\r\n")) != "END";
        if found {
            assert_eq!((wire.line(), wire.line()), (format!("{key:04}"), "END".to_owned()));
        }
        found
    };
    (0..ITEMS).filter(has).count()
}

#[test]
fn a_primary_that_comes_back_empty_does_not_empty_its_replica_and_follows_it_once_promoted() {
    let peers = ports::local();
    let mut primary = crate::primary(16, &peers.to_string());
    let mut replica = crate::replica(16, peers);
    admin::wait_streaming(replica.admin());
    let mut wire = Wire::connect(primary.clients());
    for key in 0..ITEMS {
        assert_eq!(wire.ask(&format!("set key-{key} 0 0 4\r\n{key:04}\r\n")), "STORED");
    }
    wait::wait_until("all items on the replica", SETTLE_LIMIT, || {
        crate::wire::stat(replica.clients(), "curr_items") == ITEMS as u64
    });

    primary.kill_9();
    let mut restarted = crate::primary(16, &peers.to_string());
    wait::wait_until("the replica to meet the empty one", SETTLE_LIMIT, || {
        admin::status(replica.admin()).is_some_and(|status| !admin::says(&status, "link", "streaming"))
    });
    assert_eq!(crate::wire::stat(replica.clients(), "curr_items"), ITEMS as u64);
    // It yields, and nobody reigns yet.
    wait::wait_until("the empty one to step down", SETTLE_LIMIT, || {
        admin::status(restarted.admin()).is_some_and(|status| admin::says(&status, "role", "fenced"))
    });
    assert_eq!(
        Wire::connect(restarted.clients()).ask("get key-1\r\n"),
        "SERVER_ERROR this node is the primary no more; the primary is not known"
    );
    admin::promote(replica.admin());
    assert_eq!(items_on(&mut replica), ITEMS);

    wait::wait_until("the restarted one to follow", SETTLE_LIMIT, || {
        let status = admin::status(restarted.admin());
        status.is_some_and(|status| {
            admin::says(&status, "role", "replica") && admin::says(&status, "link", "streaming")
        })
    });
    replica.terminate();
    assert_eq!(replica.wait_exit(Duration::from_secs(5)), Some(0));
    admin::promote(restarted.admin());
    assert_eq!(items_on(&mut restarted), ITEMS);
}

/// A primary with one item, its spare, and where the primary listens; then the primary is killed.
fn killed(spare: &[&str]) -> (std::net::SocketAddr, Server) {
    let listens = ports::local();
    let mut primary = crate::primary(16, &listens.to_string());
    let of = listens.to_string();
    let arguments = ["-p", "0", "-m", "16", "--replica-of", &of, "--admin", crate::ANY_PORT];
    let mut spare = Server::start(crate::BINARY, &[&arguments[..], spare].concat());
    admin::wait_streaming(spare.admin());
    assert_eq!(Wire::connect(primary.clients()).ask("set k 0 0 1\r\nv\r\n"), "STORED");
    wait::wait_until("the item", SETTLE_LIMIT, || crate::wire::stat(spare.clients(), "curr_items") == 1);
    primary.kill_9();
    (listens, spare)
}

fn wait_warned(of: std::net::SocketAddr, words: &str) {
    wait::wait_until(words, SETTLE_LIMIT, || {
        let status = admin::status(of).unwrap_or_default();
        status["warnings"].as_array().is_some_and(|all| all.iter().any(|one| one.to_string().contains(words)))
    });
}

#[test]
fn an_empty_primary_is_not_promoted_over_a_spare_that_it_cannot_even_ask() {
    let (listens, mut spare) = killed(&[]);
    let mut empty = crate::primary(16, &listens.to_string());
    wait_warned(
        empty.admin(),
        "this node came up with nothing and serves nothing: a node without --replication-listen",
    );
    wait_warned(spare.admin(), "came up with nothing and serves nothing, so that what this node holds stays");
    let (code, said) = admin::post(empty.admin(), "/promote").unwrap();
    assert!(code == 409 && said.contains("promote that one") && said.contains("force"), "{said}");
    assert_eq!(admin::post(spare.admin(), "/promote").unwrap().0, 200);
    assert_eq!(Wire::connect(spare.clients()).ask("get k\r\n"), "VALUE k 0 1");
    // A word is a word.
    assert_eq!(admin::post(empty.admin(), "/promote?force=1").unwrap().0, 200);
}

#[test]
fn a_primary_that_names_its_spare_takes_no_write_before_it_has_asked_it() {
    let own = ports::local();
    let (listens, mut spare) = killed(&["--replication-listen", &own.to_string()]);
    let (listens, other) = (listens.to_string(), own.to_string());
    let arguments =
        ["-p", "0", "-m", "16", "--replication-listen", &listens, "--bootstrap", "--peer", &other];
    let mut empty = Server::start(crate::BINARY, &[&arguments[..], &["--admin", crate::ANY_PORT]].concat());
    let answer = Wire::connect(empty.clients()).ask("set k 0 0 1\r\nw\r\n");
    assert!(answer.starts_with("SERVER_ERROR"), "{answer}");
    wait_warned(empty.admin(), &format!("{other} holds the group's items"));
    let (code, said) = admin::post(empty.admin(), "/promote").unwrap();
    assert!(code == 409 && said.contains(&format!("{other} does, up to seq")), "{said}");
    assert_eq!(admin::post(spare.admin(), "/promote").unwrap().0, 200);
    admin::wait_streaming(empty.admin());
    assert_eq!(crate::wire::stat(empty.clients(), "curr_items"), 1);

    // Where nobody holds anything it begins the group.
    spare.kill_9();
    empty.kill_9();
    let mut first = Server::start(crate::BINARY, &[&arguments[..], &["--admin", crate::ANY_PORT]].concat());
    wait::wait_until("a primary", SETTLE_LIMIT, || {
        admin::status(first.admin()).is_some_and(|status| admin::says(&status, "role", "primary"))
    });
    assert_eq!(Wire::connect(first.clients()).ask("set k 0 0 1\r\nw\r\n"), "STORED");
}
