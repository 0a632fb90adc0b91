//! SIGTERM: an orderly end, in time, with nothing lost that was acknowledged.
//!
//! Lives here: rule Z8, and what the replica has afterwards.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tests::process::Server;
use tests::{admin, ports};

use crate::wire::Wire;

/// How long an orderly end may take.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How many writes are made just before the end.
const LAST_WRITES: usize = 1_000;

#[test]
fn sigterm_ends_with_0_in_time_and_frees_the_port() {
    let address = ports::local();
    let mut server = Server::start(crate::BINARY, &["-m", "16", "-l", &address.to_string()]);
    let _idle = Wire::connect(address);
    let began = Instant::now();
    server.terminate();
    assert_eq!(server.wait_exit(END_LIMIT), Some(0), "{:#?}", server.said());
    assert!(began.elapsed() < END_LIMIT);
    // Z8: a new server can take it at once, as servers do, with SO_REUSEADDR (which the standard library sets).
    TcpListener::bind(address).expect("a free port");
}

#[test]
fn writes_made_just_before_the_end_are_on_the_replica() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    let mut replica = crate::replica(16, primary.replication());
    admin::wait_streaming(replica.admin());

    let mut wire = Wire::connect(primary.clients());
    let writes: String = (0..LAST_WRITES).map(|key| format!("set key-{key} 0 0 4\r\n{key:04}\r\n")).collect();
    wire.send(writes);
    for _ in 0..LAST_WRITES {
        assert_eq!(wire.line(), "STORED");
    }
    primary.terminate();
    assert_eq!(primary.wait_exit(END_LIMIT), Some(0), "{:#?}", primary.said());

    admin::promote(replica.admin());
    let mut wire = Wire::connect(replica.clients());
    for key in 0..LAST_WRITES {
        assert_eq!(wire.ask(&format!("get key-{key}\r\n")), format!("VALUE key-{key} 0 4"));
        assert_eq!((wire.line(), wire.line()), (format!("{key:04}"), "END".to_owned()));
    }
}

#[test]
fn m3_a_replica_knows_which_keys_were_encoded_by_copy_and_by_log() {
    let mut primary = crate::primary(16, crate::ANY_PORT);
    let mut wire = Wire::connect(primary.clients());
    assert_eq!(wire.ask("ms Zm9v 2 b\r\nhi\r\n"), "HD");
    let mut replica = crate::replica(16, primary.replication());
    admin::wait_streaming(replica.admin());
    assert_eq!(wire.ask("ms YmFy 2 b\r\nhi\r\n"), "HD");
    assert_eq!(wire.ask("ms text 2\r\nhi\r\n"), "HD");
    primary.terminate();
    assert_eq!(primary.wait_exit(END_LIMIT), Some(0));
    admin::promote(replica.admin());
    let mut wire = Wire::connect(replica.clients());
    for (key, echoed) in [("foo", "kZm9v b"), ("bar", "kYmFy b"), ("text", "ktext")] {
        assert_eq!(wire.ask(&format!("mg {key} k\r\n")), format!("HD {echoed}"));
    }
}
