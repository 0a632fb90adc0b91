//! One loader for the group, over TCP: caches in threads for `get_or_load`, server processes for memcached's own token.
//!
//! Not here: every order of events (see the simulation), each way in which a load ends (the engine's own tests).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hotspare::{Cache, Config, ReplicationConfig};
use hotspare_tcp::{Node, Options};
use tests::process::Server;
use tests::{admin, ports, wait};

use crate::wire::Wire;

const LIMIT: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);

/// Three nodes of one group; the first is the primary.
fn group() -> Vec<(Cache, Node)> {
    let addresses = [ports::local(), ports::local(), ports::local()];
    let start = |number: usize| {
        let replication = match number {
            0 => ReplicationConfig::primary(),
            _ => ReplicationConfig::replica_of(addresses[0].to_string()).slot(number as u8),
        };
        let others = addresses.iter().filter(|address| **address != addresses[number]);
        let replication = others.fold(replication, |config, address| config.peer(address.to_string()));
        let config = Config::new().memory_bytes_max(8 << 20).replication(replication.replica_reads(true));
        let cache = Cache::new(config).unwrap();
        let node = Node::start(&cache, Options::new().listen(addresses[number])).unwrap();
        (cache, node)
    };
    let nodes: Vec<_> = (0..3).map(start).collect();
    wait::wait_until("two replicas", LIMIT, || nodes[0].0.status().level_replicas == 2);
    nodes
}

#[test]
fn three_hundred_misses_load_once_and_once_more_when_the_node_that_loads_is_gone() {
    for loads_first in [0, 1] {
        let mut nodes: Vec<_> = group().into_iter().map(|(cache, node)| (cache, Some(node))).collect();
        let (asked, answers) = (AtomicUsize::new(0), AtomicBool::new(false));
        let ask = |cache: &Cache| {
            let value = cache.get_or_load("k", MINUTE, || {
                let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
                wait::wait_until("the source's answer", LIMIT, || answers.load(Ordering::SeqCst));
                Ok::<_, std::io::Error>(format!("load {number}"))
            });
            String::from_utf8(value.unwrap().to_vec()).unwrap()
        };
        let caches: Vec<Cache> = nodes.iter().map(|(cache, _)| cache.clone()).collect();
        thread::scope(|scope| {
            let (asked, answers) = (&asked, &answers);
            let mut callers = vec![(loads_first, scope.spawn(|| ask(&caches[loads_first])))];
            wait::wait_until("the first to load", LIMIT, || asked.load(Ordering::SeqCst) == 1);
            for (number, cache) in caches.iter().enumerate() {
                let count = if number == loads_first { 99 } else { 100 };
                callers.extend((0..count).map(|_| (number, scope.spawn(|| ask(cache)))));
            }
            assert_eq!(callers.len(), 300);
            wait::pause(Duration::from_millis(300));
            assert_eq!(asked.load(Ordering::SeqCst), 1, "300 misses");
            // Its links are cut; what it was loading nobody hears of.
            nodes[loads_first].1.take().expect("it runs").shutdown(Duration::ZERO);
            if loads_first == 0 {
                wait::wait_until("a promotion", LIMIT, || caches[1].promote(false).is_ok());
            }
            wait::wait_until("another to load", LIMIT, || asked.load(Ordering::SeqCst) == 2);
            wait::pause(Duration::from_millis(300));
            answers.store(true, Ordering::SeqCst);
            for (number, caller) in callers {
                let told = caller.join().unwrap();
                assert_eq!(told, if number == loads_first { "load 1" } else { "load 2" }, "node {number}");
            }
            assert_eq!(asked.load(Ordering::SeqCst), 2, "one more, and no other");
        });
    }
}

fn pair() -> (Server, Server) {
    let own: SocketAddr = ports::local();
    let mut first = crate::primary(64, &own.to_string());
    let mut second = crate::replica(64, own);
    let (admin, spare) = (first.admin(), second.admin());
    admin::wait_streaming(spare);
    wait::wait_until("a level replica", LIMIT, || {
        admin::status(admin).is_some_and(|status| status["level_replicas"] == 1)
    });
    (first, second)
}

/// What one client after the other is told: who wins recaches, everybody else is told that somebody does.
fn flags(wire: &mut Wire, request: &str) -> String {
    let answer = wire.ask(&format!("{request}\r\n"));
    if answer.starts_with("VA") {
        wire.line();
    }
    answer.split_ascii_whitespace().filter(|word| ["W", "Z", "X"].contains(word)).collect()
}

#[test]
fn d4_d5_d6_a_token_that_was_won_stays_won_after_a_fail_over_and_a_new_one_is_won_once() {
    let (mut first, mut second) = pair();
    let mut wire = Wire::connect(first.clients());
    assert_eq!(wire.ask("ms ending 1 T20\r\nv\r\n"), "HD");
    assert_eq!(wire.ask("ms stale 1\r\nv\r\n"), "HD");
    assert_eq!(wire.ask("md stale I T60\r\n"), "HD");
    assert_eq!(wire.ask("ms untouched 1\r\nv\r\n"), "HD");
    assert_eq!(wire.ask("md untouched I T60\r\n"), "HD");
    let won = [("mg made s v N60", "W"), ("mg ending v R30", "W"), ("mg stale v", "XW")];
    for (request, told) in won {
        assert_eq!(
            flags(&mut wire, request).chars().filter(|c| told.contains(*c)).count(),
            told.len(),
            "{request}"
        );
        assert!(flags(&mut wire, request).contains('Z'), "{request}: told to one");
    }
    let end = admin::status(first.admin()).unwrap()["seq"].as_u64().unwrap();
    let spare = second.admin();
    wait::wait_until("the replica has all", LIMIT, || {
        admin::status(spare).is_some_and(|status| status["seq"].as_u64() == Some(end))
    });
    first.kill_9();
    admin::promote(spare);
    let mut clients: Vec<Wire> = (0..4).map(|_| Wire::connect(second.clients())).collect();
    for (request, _) in won {
        for wire in &mut clients {
            let told = flags(wire, request);
            assert!(told.contains('Z') && !told.contains('W'), "{request}: {told}");
        }
    }
    let winners = |clients: &mut [Wire], request| {
        clients.iter_mut().map(|wire| flags(wire, request)).filter(|told| told.contains('W')).count()
    };
    assert_eq!(winners(&mut clients, "mg untouched v"), 1, "a token that was not won yet");
    assert_eq!(winners(&mut clients, "mg anew s v N60"), 1);
    // Who had won before recaches on the new primary, and that ends it.
    assert_eq!(clients[0].ask("ms stale 3\r\nnew\r\n"), "HD");
    assert_eq!(flags(&mut clients[1], "mg stale v"), "");
}
