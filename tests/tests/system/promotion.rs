//! Promotions that ask: three processes where a write waits for one of two spares.
//!
//! Lives here: what an operator is told, and that nothing acknowledged is lost. Not here: who is asked and when it is
//! refused (the engine's own tests), every order of events (see the simulation).

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

const LIMIT: Duration = Duration::from_secs(20);

fn start(mode: &str, own: SocketAddr, others: [SocketAddr; 2], first: bool) -> Server {
    let (own, others) = (own.to_string(), others.map(|other| other.to_string()));
    let mut arguments = vec!["-p", "0", "-m", "64", "--ack", mode, "--ack-timeout-ms", "2000"];
    arguments.extend(["--admin", crate::ANY_PORT, "--replication-listen", &own]);
    others.iter().for_each(|other| arguments.extend(["--peer", other]));
    if first {
        arguments.push("--bootstrap");
    }
    Server::start(crate::BINARY, &arguments)
}

fn wait_for(what: &str, admin: SocketAddr, field: &str, value: impl Into<serde_json::Value>) {
    let value = value.into();
    wait::wait_until(what, LIMIT, || admin::status(admin).is_some_and(|status| status[field] == value));
}

#[test]
fn a_spare_that_lacks_an_acknowledged_write_gets_it_before_it_reigns() {
    for mode in ["semi-sync:1", "strict:1"] {
        let [a, b, c] = [ports::local(), ports::local(), ports::local()];
        let mut first = start(mode, a, [b, c], true);
        let (mut second, mut third) = (start(mode, b, [a, c], false), start(mode, c, [a, b], false));
        wait_for("both spares", first.admin(), "level_replicas", 2);
        let mut wire = Wire::connect(first.clients());
        assert_eq!(wire.ask("set k 0 0 3\r\nold\r\n"), "STORED");
        // The third one sleeps and hears of nothing; then it is the one that is promoted.
        third.pause();
        assert_eq!(wire.ask("set k 0 0 3\r\nnew\r\n"), "STORED");
        let third_admin = third.admin();
        first.kill_9();
        third.signal(Signal::CONT);
        admin::promote(third_admin);
        let mut wire = Wire::connect(third.clients());
        wait::wait_until("a hit", LIMIT, || wire.ask("get k\r\n") != "END");
        assert_eq!((wire.line(), wire.line()), ("new".into(), "END".into()), "{mode}");
        wait_for("its replica", third_admin, "level_replicas", 1);
        wait::wait_until("a write", LIMIT, || wire.ask("set k 0 0 1\r\nx\r\n") == "STORED");
        // Alone it can't know what the other has.
        third.kill_9();
        let (code, said) = admin::post(second.admin(), "/promote").unwrap();
        assert_eq!(code, 409, "{said}");
        assert!(said.contains("1 of 2 nodes that have to said what they hold"), "{said}");
        let (code, said) = admin::post(second.admin(), "/promote?force=1").unwrap();
        assert_eq!(code, 200, "{said}");
    }
}
