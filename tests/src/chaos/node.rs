//! One node of the group: its addresses, which outlive its processes, and how it is started and stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::Server;
use crate::{admin, ports};

/// Memory of a node: nothing is ever evicted here, so a miss has to be explained.
const MEGABYTES: u64 = 64;
/// What a process may have resident: its cache, its log (4 MiB), and what threads and buffers take.
pub(super) const RESIDENT_BYTES_MAX: u64 = (MEGABYTES + 4 + 60) << 20;
/// How long an orderly end may take: open requests are given 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How a process begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// As the first primary of its group.
    Bootstrap,
    /// It looks for the primary among its peers.
    Peers,
    /// It is told whom to follow.
    Following(SocketAddr),
}

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGTERM: it forgets everything.
    Cold,
    /// SIGUSR1: it saves its items for the next process.
    Warm,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) clients: SocketAddr,
    pub(super) replication: SocketAddr,
    pub(super) admin: SocketAddr,
    /// The ways to the others, each through a proxy.
    pub(super) peers: Vec<SocketAddr>,
    /// Whether it answers reads as a replica.
    pub(super) answers_as_replica: bool,
    memory_file: PathBuf,
    server: Option<Server>,
}

impl Node {
    pub(super) fn new(index: usize, folder: &Path) -> Node {
        Node {
            index,
            clients: ports::local(),
            replication: ports::local(),
            admin: ports::local(),
            peers: Vec::new(),
            answers_as_replica: true,
            memory_file: folder.join(format!("node-{index}")),
            server: None,
        }
    }

    /// Starts `program` as this node, and waits until it listens.
    pub(super) fn start(&mut self, program: &Path, ack: &str, how: &Start) {
        let mut command = Command::new(program);
        command.env(super::SERVES, "1").args(["-p", &self.clients.port().to_string()]);
        command.args(["-m", &MEGABYTES.to_string(), "-t", "2", "-e"]).arg(&self.memory_file);
        command.args(["--replication-listen", &self.replication.to_string()]);
        command.args(["--admin", &self.admin.to_string(), "--node-slot", &self.index.to_string()]);
        command.args(["--ack", ack, "--ack-timeout-ms", "100"]);
        if self.answers_as_replica {
            command.arg("--replica-reads");
        }
        for peer in &self.peers {
            command.args(["--peer", &peer.to_string()]);
        }
        match how {
            Start::Bootstrap => command.arg("--bootstrap"),
            Start::Peers => &mut command,
            Start::Following(primary) => command.args(["--replica-of", &primary.to_string()]),
        };
        let mut server = Server::spawn_command(&mut command);
        // Waits until it listens.
        server.clients();
        self.server = Some(server);
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("a node that runs")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.server().kill_9();
        self.server = None;
    }

    /// Has it hang.
    pub(super) fn pause(&mut self) {
        self.server().signal(Signal::STOP);
    }

    /// Has it go on.
    pub(super) fn wake(&mut self) {
        self.server().signal(Signal::CONT);
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(&mut self, how: Stop) -> Result<(), String> {
        match how {
            Stop::Cold => self.server().terminate(),
            Stop::Warm => self.server().signal(Signal::USR1),
        }
        let code = self.server().wait_exit(STOP_LIMIT);
        self.server = None;
        match code {
            Some(0) => Ok(()),
            other => Err(format!("node {} ended with {other:?} when asked to stop", self.index)),
        }
    }

    pub(super) fn status(&self) -> Option<Value> {
        admin::status(self.admin)
    }

    /// What is wrong with the process: it has ended by itself, or holds more memory than it may.
    pub(super) fn complaint(&mut self) -> Option<String> {
        let index = self.index;
        if self.server().has_ended() {
            return Some(format!("node {index} has ended by itself: {:#?}", self.last_words()));
        }
        let bytes = self.resident_bytes();
        (bytes > RESIDENT_BYTES_MAX).then(|| format!("node {index} holds {} MiB", bytes >> 20))
    }

    /// Memory that the process has resident.
    pub(super) fn resident_bytes(&mut self) -> u64 {
        self.server().resident_bytes().unwrap_or_default()
    }

    /// The end of what it said.
    pub(super) fn last_words(&self) -> Vec<String> {
        let Some(server) = &self.server else { return vec!["(not running)".to_owned()] };
        let said = server.said();
        said[said.len().saturating_sub(12)..].to_vec()
    }
}
