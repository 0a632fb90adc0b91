//! A primary that died and came back empty must not empty its replica.
//!
//! Lives here: the walk from the kill to the promotion, after which the empty one follows.

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
