//! A replica whose full copies fail: real processes, and a link between them that is cut in the middle of each copy.
//!
//! Lives here: what an operator and a fail-over manager are told, and that it ends. Not here: the pauses (the engine's own
//! tests).

use std::time::Duration;

use tests::chaos::proxy::Proxy;
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

const LIMIT: Duration = Duration::from_secs(30);
/// The primary's items, of 10 000 bytes each.
const ITEMS: u64 = 300;
/// What passes of each copy.
const CUT_AFTER_BYTES: i64 = 100_000;

#[test]
fn a_replica_whose_copies_are_cut_is_quarantined_and_not_promotable_until_one_gets_through() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    let mut wire = Wire::connect(primary.clients());
    for key in 0..ITEMS {
        assert_eq!(wire.ask(&format!("set key-{key} 0 0 10000\r\n{}\r\n", "x".repeat(10_000))), "STORED");
    }
    let proxy = Proxy::start(ports::local(), primary.replication()).unwrap();
    proxy.cut_after(CUT_AFTER_BYTES);
    // It does not listen: else its primary would tell it another way than the proxy's.
    let by = proxy.address().to_string();
    let arguments = ["-p", "0", "-m", "16", "--replica-of", &by, "--admin", crate::ANY_PORT];
    let mut replica = Server::start(crate::BINARY, &arguments);
    let of = replica.admin();
    let status = || admin::status(of).unwrap_or_default();
    wait::wait_until("a quarantine", LIMIT, || {
        proxy.cut_after(CUT_AFTER_BYTES);
        status()["quarantined"] == true
    });
    let told = status();
    assert!(told["copy_failures"].as_u64().is_some_and(|failures| failures >= 3), "{told}");
    assert!(told["copy_pause_ms"].as_u64().is_some_and(|pause_ms| pause_ms >= 500), "{told}");
    assert!(told["promotable_reason"].as_str().is_some_and(|why| why.starts_with("quarantined")), "{told}");
    assert!(told["last_error"].is_string(), "{told}");
    assert_eq!(admin::get(of, "/promotable").unwrap().0, 503);
    assert_eq!(admin::post(of, "/promote").unwrap().0, 409);
    assert!(admin::get(of, "/metrics").unwrap().1.contains("hotspare_quarantined 1\n"));
    replica.wait_said("quarantine: full copies fail one after the other");
    assert_eq!(wire.ask("set key-0 0 0 1\r\ny\r\n"), "STORED", "the primary goes on");

    proxy.cut_after(i64::MAX);
    admin::wait_streaming(of);
    let told = status();
    assert_eq!((&told["quarantined"], &told["copy_failures"]), (&false.into(), &0.into()), "{told}");
    assert_eq!(crate::wire::stat(replica.clients(), "curr_items"), ITEMS);
    wait::wait_until("a promotable node", LIMIT, || admin::get(of, "/promotable").unwrap().0 == 200);
}
