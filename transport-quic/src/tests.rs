//! Two nodes over real sockets: a fail-over, a changed address, strangers that say nothing, other runtimes.

use std::net::UdpSocket;

use hotspare::{Config, Expiry, LinkState, ReplicationConfig, Role};

use super::*;
use crate::conformance::group;
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};

const DEADLINE: Duration = Duration::from_secs(30);

/// At the least. To an address that changes once a millisecond nothing is sent in time: QUIC first makes sure of an address,
/// and it is gone by then. The link is taken to be dead after two seconds of that, and rightly.
const BETWEEN_MOVES: Duration = Duration::from_millis(10);

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn listening(credentials: &Credentials) -> Options {
    Options::new(credentials.clone()).listen("127.0.0.1:0".parse().unwrap())
}

fn primary(credentials: &Credentials) -> (Cache, Node) {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let node = Node::start(&cache, listening(credentials)).unwrap();
    (cache, node)
}

fn replica(of: &Node, credentials: &Credentials) -> (Cache, Node) {
    let address = of.listen_address().unwrap().to_string();
    let cache = Cache::new(Config::new().replication(ReplicationConfig::replica_of(address))).unwrap();
    let node = Node::start(&cache, listening(credentials)).unwrap();
    (cache, node)
}

fn write(cache: &Cache, indexes: std::ops::Range<u32>) {
    for index in indexes {
        cache.set(index.to_le_bytes(), index.to_string(), Expiry::Never).unwrap();
    }
}

fn walk_through_a_fail_over() {
    let (_, [one, other]) = group(["cache-1", "cache-2"]);
    let (old, old_node) = primary(&one);
    write(&old, 0..2_000);
    let (spare, spare_node) = replica(&old_node, &other);
    wait("streaming", || spare.status().link == LinkState::Streaming);
    write(&old, 2_000..4_000);
    wait("level", || spare.status().seq == old.status().seq);
    spare.promote(false).unwrap();
    for index in 0..4_000u32 {
        assert_eq!(spare.get(index.to_le_bytes()).unwrap().unwrap().value, index.to_string());
    }
    wait("the old primary follows", || {
        let status = old.status();
        status.role == Role::Replica && status.link == LinkState::Streaming
    });
    write(&spare, 0..20_000);
    spare_node.shutdown(Duration::from_secs(10));
    assert_eq!(spare.status().seq, old.status().seq, "a shutdown drains");
}

#[test]
fn a_program_without_a_runtime_fails_over() {
    walk_through_a_fail_over();
}

#[test]
fn a_program_inside_a_runtime_fails_over() {
    for mut builder in
        [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()]
    {
        builder.enable_all().build().unwrap().block_on(async { walk_through_a_fail_over() });
    }
}

#[test]
fn a_changed_address_keeps_the_session() {
    let (_, [one, other]) = group(["cache-1", "cache-2"]);
    let (old, old_node) = primary(&one);
    write(&old, 0..100);
    let (spare, spare_node) = replica(&old_node, &other);
    wait("streaming", || spare.status().link == LinkState::Streaming);
    let port = |node: &Node| node.dialler.v4.as_ref().unwrap().local_addr().unwrap().port();
    for round in 1..4 {
        let before = port(&spare_node);
        spare_node.rebind().unwrap();
        assert_ne!(port(&spare_node), before);
        write(&old, 0..1_000 * round);
        wait("level by the new address", || spare.status().seq == old.status().seq);
        assert_eq!(spare.status().link, LinkState::Streaming);
    }
    let status = old.status();
    assert_eq!(status.installs + status.catch_ups, 1, "one session, all the time: {status:?}");
}

/// Copies a node of 20 MB while it is written to, and looks at each item of the copy.
fn copy_beside_writes(one_channel: bool, moves: bool) {
    let (_, [one, other]) = group(["cache-1", "cache-2"]);
    let (old, old_node) = primary(&one);
    for index in 0..20_000_u32 {
        old.set(index.to_le_bytes(), vec![0; 1_000], Expiry::Never).unwrap();
    }
    let address = old_node.listen_address().unwrap().to_string();
    let replication = ReplicationConfig::replica_of(address).replica_reads(true);
    let replication = if one_channel { replication.one_channel() } else { replication };
    let spare = Cache::new(Config::new().replication(replication)).unwrap();
    let spare_node = Node::start(&spare, listening(&other)).unwrap();
    // An address that changes under a handshake makes it begin anew.
    wait("attached", || matches!(spare.status().link, LinkState::Installing | LinkState::Streaming));
    let end = Instant::now() + DEADLINE;
    let (mut moved, mut moved_count) = (Instant::now(), 0);
    for round in 0.. {
        write(&old, round % 20 * 1_000..round % 20 * 1_000 + 900);
        if round % 20 == 19 && spare.status().link == LinkState::Streaming {
            break;
        }
        let is_heard = || spare.status().staleness_ms.is_some_and(|ms| ms < 100);
        if moves && moved.elapsed() > BETWEEN_MOVES && is_heard() {
            spare_node.rebind().unwrap();
            moved = Instant::now();
            moved_count += 1;
        }
        assert!(Instant::now() < end, "{:?}", spare.status());
    }
    assert!(!moves || moved_count > 1, "moved {moved_count} times");
    // Overtaken by the writes, a copy begins again in the same session.
    wait("level", || {
        let status = spare.status();
        status.link == LinkState::Streaming && status.seq == old.status().seq
    });
    // A session that ends is told; writers that are faster than the link have it copied again, in the same one.
    assert_eq!((old.status().last_error, old.status().catch_ups), (None, 0), "one session, all the time");
    let read =
        |cache: &Cache, index: u32| cache.peek(index.to_le_bytes(), |item| item.value.to_vec()).unwrap();
    let differing: Vec<u32> =
        (0..20_000).filter(|index| read(&spare, *index) != read(&old, *index)).collect();
    assert!(differing.is_empty(), "{} differ: {:?}", differing.len(), &differing[..differing.len().min(20)]);
}

#[test]
fn a_full_copy_beside_new_writes_and_changed_addresses_holds_what_its_primary_holds() {
    copy_beside_writes(false, true);
}

#[test]
fn a_node_that_knows_one_stream_only_is_copied_over_that() {
    copy_beside_writes(true, false);
}

#[test]
fn a_node_of_another_group_is_refused_and_told_why() {
    let (_, [ours]) = group(["cache-1"]);
    let (_, [theirs]) = group(["cache-2"]);
    let (old, node) = primary(&ours);
    let (stranger, _stranger_node) = replica(&node, &theirs);
    wait("refused", || {
        stranger.status().last_error.is_some_and(|error| error.contains("invalid peer certificate"))
    });
    assert_eq!(stranger.status().link, LinkState::Connecting);
    assert!(old.status().replicas.is_empty());
}

/// The first packet of a connection, as quinn makes it.
fn first_packet(credentials: &Credentials) -> Vec<u8> {
    let trap = UdpSocket::bind("127.0.0.1:0").unwrap();
    let runtime = Runtime::new().unwrap();
    let endpoint = runtime.spawner().bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let config = limits::client(credentials).unwrap();
    runtime.block_on(async {
        let _connecting = endpoint.connect_with(config, trap.local_addr().unwrap(), "localhost").unwrap();
        trap.set_nonblocking(true).unwrap();
        let mut packet = vec![0; 2_000];
        loop {
            if let Ok((count, _)) = trap.recv_from(&mut packet) {
                packet.truncate(count);
                return packet;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

#[test]
fn strangers_that_begin_and_say_no_more_are_bounded_and_keep_nobody_out() {
    let (_, [ours, theirs]) = group(["cache-1", "cache-2"]);
    let (old, node) = primary(&ours);
    let packets: Vec<Vec<u8>> = (0..HANDSHAKES_MAX * 3).map(|_| first_packet(&theirs)).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in &packets {
        socket.send_to(packet, node.listen_address().unwrap()).unwrap();
    }
    // Those that were answered wait for their time-out meanwhile; who is real gets in beside them.
    let began = Instant::now();
    let (spare, _spare_node) = replica(&node, &theirs);
    wait("streaming", || spare.status().link == LinkState::Streaming);
    assert!(began.elapsed() < HANDSHAKE_TIMEOUT, "{:?}", began.elapsed());
    write(&old, 0..10);
    wait("level", || spare.status().seq == old.status().seq);
}
