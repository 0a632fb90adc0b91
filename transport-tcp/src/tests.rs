//! Two nodes over real sockets: streaming, a secret, garbage, a hand-made hostile peer.

use std::io::{Read, Write};
use std::net::TcpStream;

use hotspare::{Config, Expiry, LinkState, ReplicationConfig, Role};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

fn primary(options: Options) -> (Cache, Node) {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let node = Node::start(&cache, options.listen(loopback())).unwrap();
    (cache, node)
}

fn replica(of: &Node, options: Options) -> (Cache, Node) {
    let address = of.listen_address().unwrap().to_string();
    let cache = Cache::new(Config::new().replication(ReplicationConfig::replica_of(address))).unwrap();
    let node = Node::start(&cache, options.listen(loopback())).unwrap();
    (cache, node)
}

#[test]
fn a_killed_primary_is_replaced_and_the_old_one_would_be_fenced() {
    let (old, old_node) = primary(Options::new());
    for index in 0..2_000u32 {
        old.set(index.to_le_bytes(), index.to_string(), Expiry::Never).unwrap();
    }
    let (spare, _spare_node) = replica(&old_node, Options::new());
    wait("streaming", || spare.status().link == LinkState::Streaming);
    for index in 2_000..4_000u32 {
        old.set(index.to_le_bytes(), index.to_string(), Expiry::Never).unwrap();
    }
    wait("level", || spare.status().seq == old.status().seq);
    spare.promote(false).unwrap();
    for index in 0..4_000u32 {
        assert_eq!(spare.get(index.to_le_bytes()).unwrap().unwrap().value, index.to_string());
    }
    wait("the old primary follows", || {
        let status = old.status();
        status.role == Role::Replica && status.link == LinkState::Streaming
    });
    assert!(old.set("k", "v", Expiry::Never).is_err(), "a replica's handle refuses writes");
    spare.set("k", "v", Expiry::Never).unwrap();
    wait("the old one has the new write", || old.status().seq == spare.status().seq);
}

#[test]
fn replicas_with_the_default_slot_find_slots_of_their_own() {
    let (_old, node) = primary(Options::new());
    let replicas: Vec<_> = (0..3).map(|_| replica(&node, Options::new())).collect();
    wait("all attached", || replicas.iter().all(|(cache, _)| cache.status().link == LinkState::Streaming));
    let slots: std::collections::HashSet<u8> =
        replicas.iter().map(|(cache, _)| cache.status().slot).collect();
    assert_eq!(slots.len(), 3);
}

#[test]
fn a_secret_is_needed_off_loopback_and_must_match() {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let open = Options::new().listen("0.0.0.0:0".parse().unwrap());
    assert!(matches!(Node::start(&cache, open), Err(StartError::SecretNeeded(_))));
    let (old, node) = primary(Options::new().secret("one"));
    let (right, _right_node) = replica(&node, Options::new().secret("one"));
    wait("attached", || right.status().link == LinkState::Streaming);
    for options in [Options::new(), Options::new().secret("two")] {
        let (wrong, _wrong_node) = replica(&node, options);
        wait("refused", || wrong.status().last_error.is_some_and(|error| error.contains("secret")));
        assert_eq!(wrong.status().link, LinkState::Connecting);
    }
    assert_eq!(old.status().role, Role::Primary);
}

#[test]
fn garbage_on_the_replication_port_closes_that_connection_only() {
    let (cache, node) = primary(Options::new());
    let (spare, _spare_node) = replica(&node, Options::new());
    let preamble = [&b"HSPR\x01\0\0\0"[..], &[7; 32]].concat();
    let attacks: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100], &[&preamble[..], &[0xff; 64]].concat(), &preamble[..20]];
    for attack in attacks {
        let mut socket = TcpStream::connect(node.listen_address().unwrap()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(attack).unwrap();
        let mut rest = Vec::new();
        // Closed in an orderly way or reset: both are an end, and it comes well before the time-out.
        let began = Instant::now();
        let _ = socket.read_to_end(&mut rest);
        assert!(began.elapsed() < DEADLINE, "the connection was closed");
    }
    cache.set("k", "v", Expiry::Never).unwrap();
    wait("still replicating", || spare.status().seq == cache.status().seq);
}

#[test]
fn a_shutdown_drains_what_replicas_lack() {
    let (old, node) = primary(Options::new());
    let (spare, _spare_node) = replica(&node, Options::new());
    wait("streaming", || spare.status().link == LinkState::Streaming);
    for index in 0..20_000u32 {
        old.set(index.to_le_bytes(), "v", Expiry::Never).unwrap();
    }
    node.shutdown(Duration::from_secs(10));
    assert_eq!(spare.status().seq, old.status().seq);
}
