//! Replicas of replicas as processes: three links, a death at the top, a promotion in the middle.
//!
//! Lives here: that a chain holds what its primary holds, and goes on without copies. Not here: loops and depth (the
//! engine's tests), what faults do (the simulation).

use std::time::Duration;

use tests::process::Server;
use tests::{admin, wait};

use crate::wire::Wire;

const ITEMS: usize = 500;
/// How long the chain may take to have what its primary has.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

fn below(of: &mut Server, slot: &str) -> Server {
    let of = of.replication().to_string();
    let arguments =
        ["-p", "0", "-m", "16", "--replica-of", &of, "--cascade", "--node-slot", slot, "--replica-reads"];
    let more = ["--replication-listen", crate::ANY_PORT, "--admin", crate::ANY_PORT];
    let mut server = Server::start(crate::BINARY, &[&arguments[..], &more[..]].concat());
    admin::wait_streaming(server.admin());
    server
}

fn number(server: &mut Server, name: &str) -> u64 {
    let status = admin::status(server.admin()).expect("it answers");
    status[name].as_u64().expect("a number")
}

fn set(server: &mut Server, range: std::ops::Range<usize>) {
    let mut wire = Wire::connect(server.clients());
    for key in range {
        assert_eq!(wire.ask(&format!("set key-{key} 0 0 4\r\n{key:04}\r\n")), "STORED");
    }
}

fn wait_for_items(servers: &mut [Server], items: usize) {
    for server in servers {
        wait::wait_until("all items", SETTLE_LIMIT, || {
            crate::wire::stat(server.clients(), "curr_items") == items as u64
        });
    }
}

#[test]
fn a_chain_of_three_replicas_goes_on_below_the_one_that_is_promoted_and_copies_nothing() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    set(&mut primary, 0..ITEMS);
    let mut first = below(&mut primary, "1");
    let mut second = below(&mut first, "2");
    let mut third = below(&mut second, "3");
    assert_eq!((number(&mut third, "depth"), number(&mut third, "installs")), (3, 1));
    assert_eq!(
        admin::status(primary.admin()).expect("it answers")["replicas"].as_array().map(Vec::len),
        Some(1)
    );
    let replication = primary.replication().to_string();
    let refused = Wire::connect(third.clients()).ask("set key 0 0 1\r\nv\r\n");
    assert!(refused.contains(&replication), "a client is sent to the primary: {refused}");

    set(&mut primary, ITEMS..2 * ITEMS);
    let mut chain = [first, second, third];
    wait_for_items(&mut chain, 2 * ITEMS);
    primary.kill_9();
    let [first, ..] = &mut chain;
    admin::promote(first.admin());
    set(first, 2 * ITEMS..3 * ITEMS);
    wait_for_items(&mut chain, 3 * ITEMS);
    let [_, second, third] = &mut chain;
    assert_eq!((number(second, "depth"), number(third, "depth")), (1, 2));
    assert_eq!(number(third, "installs"), 1, "the log was enough");
    let value = Wire::connect(third.clients()).ask(&format!("get key-{}\r\n", 2 * ITEMS + 7));
    assert!(value.starts_with("VALUE"), "{value}");
}

/// The only direct replica of a primary loses its memory: nobody but the one below it can confirm that no promise was
/// forgotten that matters.
#[test]
fn the_end_of_a_chain_has_its_restarted_parent_counted() {
    let addresses = [(); 3].map(|()| tests::ports::local().to_string());
    let node = |slot: usize, above: &[&str]| {
        let own = slot.to_string();
        let mut arguments = vec!["-p", "0", "-m", "16", "--ack", "semi-sync:1", "--ack-timeout-ms", "500"];
        arguments.extend([
            "--node-slot",
            &own,
            "--replication-listen",
            &addresses[slot],
            "--admin",
            crate::ANY_PORT,
        ]);
        for (other, address) in addresses.iter().enumerate() {
            if other != slot {
                arguments.extend(["--peer", address]);
            }
        }
        arguments.extend(above);
        Server::start(crate::BINARY, &arguments)
    };
    let mut primary = node(0, &["--bootstrap"]);
    let mut middle = node(1, &["--replica-of", &addresses[0]]);
    let mut end = node(2, &["--replica-of", &addresses[1], "--cascade"]);
    // The first one begins the group once both have said that they hold nothing of it.
    admin::wait_streaming(middle.admin());
    admin::wait_streaming(end.admin());
    let mut wire = Wire::connect(primary.clients());
    let mut is_stored = || wire.ask("set key 0 0 1\r\nv\r\n") == "STORED";
    wait::wait_until("a first write", SETTLE_LIMIT, &mut is_stored);
    middle.kill_9();
    let mut middle = node(1, &["--replica-of", &addresses[0]]);
    wait::wait_until("a write that the restarted one acknowledges", SETTLE_LIMIT, &mut is_stored);
    // It goes back to where it was told to be.
    wait::wait_until("the end of the chain", SETTLE_LIMIT, || number(&mut end, "depth") == 2);
    let status = admin::status(primary.admin()).expect("it answers");
    assert_eq!(status["replicas"][0]["counts"], true, "{status}");
    assert_eq!(number(&mut middle, "depth"), 1);
    // And both are positions in a promotion again.
    primary.kill_9();
    let (code, said) = admin::post(middle.admin(), "/promote").expect("an answer");
    assert_eq!(code, 200, "{said}");
}
