//! The product from outside: server processes, a stock client, raw sockets, signals.
//!
//! Lives here: how every test starts its servers. Not here: what crates promise each on its own.

mod acks;
mod authentication;
mod bad_input;
mod bench;
mod cascade;
mod command_line;
mod crowd;
mod daemon;
mod datagrams;
mod empty_primary;
mod encrypted_replication;
mod encryption;
mod erring_operator;
mod failover;
mod large_values;
mod limits;
mod listeners;
mod loads;
mod managed;
mod metrics;
mod operators;
mod promotion;
mod quarantine;
mod semantics;
mod shutdown;
mod stock_client;
mod strict;
mod warm;
mod wire;

use std::net::SocketAddr;

use tests::process::Server;

/// The server as a program.
const BINARY: &str = env!("CARGO_BIN_EXE_hotspare-under-test");
/// Any free port of the loopback.
const ANY_PORT: &str = "127.0.0.1:0";

/// A server that replicates nothing.
fn standalone(megabytes: usize) -> Server {
    Server::start(BINARY, &["-p", "0", "-m", &megabytes.to_string()])
}

/// A primary that accepts replicas at `replication`.
fn primary(megabytes: usize, replication: &str) -> Server {
    let memory = megabytes.to_string();
    let arguments = ["-p", "0", "-m", &memory, "--replication-listen", replication, "--admin", ANY_PORT];
    Server::start(BINARY, &arguments)
}

/// A replica of the node that accepts replicas at `of`.
fn replica(megabytes: usize, of: SocketAddr) -> Server {
    let (memory, of) = (megabytes.to_string(), of.to_string());
    let arguments = ["-p", "0", "-m", &memory, "--replica-of", &of];
    let more = ["--replication-listen", ANY_PORT, "--admin", ANY_PORT];
    Server::start(BINARY, &[&arguments[..], &more[..]].concat())
}
