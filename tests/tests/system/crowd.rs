//! Many connections that are ready at the same moment: a worker reads some of them ahead of their turns, and each is to be answered
//! as if it were alone.
//!
//! Not here: how the bytes of one connection are cut (see the server's own `cuts`).

use std::time::Duration;

use rustix::process::Signal;
use tests::process::Server;
use tests::wait;

use crate::wire::{Wire, stat};
use crate::{ANY_PORT, BINARY};

/// So many connections are ready together.
const CROWD: usize = 48;
const ROUNDS: usize = 12;

/// What a connection does in one round, all at once, and what it is told. With its number in all that it says.
fn part(number: usize, round: usize) -> (String, String) {
    let (key, before) = (format!("k{number}"), format!("v{number}-{}", round.wrapping_sub(1)));
    let value = format!("v{number}-{round}");
    let (set, found) = (format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()), |value: &str| {
        format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
    });
    match (number + round) % 6 {
        0 => (set, "STORED\r\n".into()),
        1 => (format!("{set}get {key}\r\n"), format!("STORED\r\n{}", found(&value))),
        // Two sets and two gets in a row each, as which they are taken together.
        2 => (
            format!("{set}{set}get {key}\r\nget {key}\r\n"),
            format!("STORED\r\nSTORED\r\n{0}{0}", found(&value)),
        ),
        3 => (format!("get {key}-none\r\n{set}"), "END\r\nSTORED\r\n".into()),
        4 => (
            format!("bogus\r\n{set}mg {key} v\r\n"),
            format!("ERROR\r\nSTORED\r\nVA {}\r\n{value}\r\n", value.len()),
        ),
        _ => (
            format!("get {key}\r\n{set}"),
            format!("{}STORED\r\n", if round == 0 { "END\r\n".to_owned() } else { found(&before) }),
        ),
    }
}

/// Has all that `tell` says reach a server that is stopped, so that it finds all of it at once.
fn at_once(server: &Server, tell: impl FnOnce()) {
    server.pause();
    tell();
    server.signal(Signal::CONT);
}

#[test]
fn each_of_a_crowd_is_answered_as_if_it_were_alone() {
    for more in [&[][..], &["--slow-log-ms", "1000"]] {
        let mut server =
            Server::start(BINARY, &[&["-p", "0", "-m", "64", "-t", "1", "--admin", ANY_PORT], more].concat());
        let address = server.clients();
        let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(address)).collect();
        for round in 0..ROUNDS {
            let parts: Vec<_> = (0..CROWD).map(|number| part(number, round)).collect();
            // In every third round some requests come in two halves, each of which finds the worker in another round.
            let cut = |number: usize, asked: &str| {
                if (number + round).is_multiple_of(3) { asked.len() / 2 } else { asked.len() }
            };
            at_once(&server, || {
                for (number, (wire, (asked, _))) in crowd.iter_mut().zip(&parts).enumerate() {
                    wire.send(&asked[..cut(number, asked)]);
                }
            });
            wait::pause(Duration::from_millis(5));
            at_once(&server, || {
                for (number, (wire, (asked, _))) in crowd.iter_mut().zip(&parts).enumerate() {
                    wire.send(&asked[cut(number, asked)..]);
                }
            });
            for (number, (wire, (asked, expected))) in crowd.iter_mut().zip(&parts).enumerate() {
                let told = String::from_utf8(wire.up_to(expected.len())).unwrap();
                assert_eq!(told, *expected, "{number} in round {round} asked {asked:?}");
            }
        }
    }
}

#[test]
fn those_of_a_crowd_who_leave_are_answered_first_and_leave_nothing_behind() {
    let mut server = Server::start(BINARY, &["-p", "0", "-m", "64", "-t", "1"]);
    let address = server.clients();
    for round in 0..6 {
        let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(address)).collect();
        let set = |number: usize| format!("set k{number} 0 0 1\r\n{round}\r\n");
        at_once(&server, || {
            for (number, wire) in crowd.iter_mut().enumerate() {
                match (number + round) % 6 {
                    0 => wire.send(set(number)),
                    1 => {
                        wire.send(set(number));
                        wire.finish();
                    }
                    2 => wire.send(format!("{}quit\r\n", set(number))),
                    3 => wire.finish(),
                    4 => {
                        wire.send("get k");
                        wire.finish();
                    }
                    // Only what is short is read ahead on.
                    _ => wire.send(vec![b'x'; if round % 2 == 0 { 500 } else { 4000 }]),
                }
            }
        });
        for (number, wire) in crowd.iter_mut().enumerate() {
            let case = (number + round) % 6;
            if case < 3 {
                assert_eq!(wire.up_to(8), b"STORED\r\n", "{number} in round {round}");
            }
            if case == 0 {
                assert_eq!(wire.ask(&format!("get k{number}\r\n")), format!("VALUE k{number} 0 1"));
            } else if case < 5 {
                assert!(wire.is_closed(), "{number} in round {round}");
            }
        }
        drop(crowd);
        // The one that asks is left.
        wait::wait_until("all to be gone", Duration::from_secs(10), || {
            stat(address, "curr_connections") == 1
        });
    }
}
