//! The group under test: its nodes, the network between them, who reigns, and whether all is well again.
//!
//! Lives here: promotion as an operator does it, waiting until all nodes stream, comparing their contents. Not here: what
//! goes wrong (see `faults`), what clients may be told (see `judge`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Options;
use super::clients::{KEYS, found_in, read_all};
use super::connection::{self, Connection};
use super::directory::{Directory, Seat};
use super::exported::{Exported, Watch};
use super::history::{Clock, Found, Key, Place, Read};
use super::judge::Reign;
use super::node::{Node, Start};
use super::proxy::Proxy;
use crate::{admin, ports, wait};

/// Keys that are written once, at the beginning, so that a full copy takes its time.
const FILLED_KEYS: usize = 4_000;
/// How often a part of them is written until each write is acknowledged.
const FILL_TRIES: usize = 10;
/// How long all nodes may take until they stream and are level.
pub(super) const CONVERGE_LIMIT: Duration = Duration::from_secs(30);
/// How long after that contents may differ: what a roll-back dropped is asked for with each heartbeat.
const COMPARE_LIMIT: Duration = Duration::from_secs(15);
/// How long a node may refuse to be promoted.
const PROMOTE_LIMIT: Duration = Duration::from_secs(10);
/// How long an operator waits for a node that says it may be promoted.
const PROMOTABLE_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a step on a connection of the test's own may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all links may take to go through the proxies.
const ROUTE_LIMIT: Duration = Duration::from_secs(3);
/// How many keys are asked for at once.
const READ_AT_ONCE: usize = 500;

pub(super) struct Group {
    pub(super) nodes: Vec<Node>,
    /// From node to node.
    pub(super) proxies: HashMap<(usize, usize), Proxy>,
    pub(super) primary: usize,
    pub(super) reigns: Vec<Reign>,
    pub(super) directory: Arc<Directory>,
    pub(super) watch: Watch,
    pub(super) clock: Clock,
    /// The most writes and milliseconds that a primary said to be at risk, shortly before another was promoted.
    pub(super) exported_max: (u64, u64),
    /// How often a node was promoted that said it should not be, since it lacked writes that it had been told of.
    pub(super) overruled: u64,
    program: PathBuf,
    ack: String,
    promotes_lowest: bool,
}

impl Group {
    /// A group whose first node reigns, with all others level.
    pub(super) fn start(options: &Options, folder: &Path, clock: Clock) -> Result<Group, String> {
        let mut nodes: Vec<Node> = (0..=options.replicas).map(|index| Node::new(index, folder)).collect();
        nodes.iter_mut().for_each(|node| node.answers_as_replica = options.replicas_answer());
        let mut proxies = HashMap::new();
        for from in 0..nodes.len() {
            for to in (0..nodes.len()).filter(|to| *to != from) {
                let proxy = Proxy::start(ports::local(), nodes[to].replication);
                let proxy = proxy.map_err(|why| format!("a proxy: {why}"))?;
                nodes[from].peers.push(proxy.address());
                proxies.insert((from, to), proxy);
            }
        }
        let admins: Vec<_> = nodes.iter().map(|node| node.admin).collect();
        let mut group = Group {
            nodes,
            proxies,
            primary: 0,
            reigns: Vec::new(),
            directory: Arc::new(Directory::new()),
            watch: Watch::start(&admins, clock),
            clock,
            exported_max: (0, 0),
            overruled: 0,
            program: options.program.clone(),
            ack: options.ack_words(),
            promotes_lowest: options.promote_lowest,
        };
        group.start_node(0, &Start::Bootstrap);
        for index in 1..group.nodes.len() {
            group.start_node(index, &Start::Peers);
        }
        // Where replicas acknowledge it asks all of them before it begins.
        let reigns = || group.nodes[0].status().filter(|status| admin::says(status, "role", "primary"));
        let status = wait::within(PROMOTE_LIMIT, reigns).ok_or("the first node does not begin the group")?;
        group.begin_reign(0, term_in(&status), true, 0, None);
        group.converge()?;
        group.fill()?;
        group.converge()?;
        Ok(group)
    }

    pub(super) fn start_node(&mut self, index: usize, how: &Start) {
        self.watch.forget(index);
        self.nodes[index].start(&self.program, &self.ack, how);
    }

    /// All nodes but the primary.
    pub(super) fn replicas(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| *index != self.primary).collect()
    }

    pub(super) fn proxy(&self, from: usize, to: usize) -> &Proxy {
        &self.proxies[&(from, to)]
    }

    /// Makes one of `candidates` primary, by the operator's rule: of those that may be promoted the one with the highest
    /// seq. Clients are told.
    pub(super) fn promote(&mut self, candidates: &[usize]) -> Result<(), String> {
        let old_term = self.reigns.last().map_or(0, |reign| reign.term);
        let mut promotable = self.promotable(candidates);
        promotable.sort_by_key(|(seq, index, _)| (*seq, *index));
        let chosen = if self.promotes_lowest { promotable.first() } else { promotable.last() };
        let Some((seq, index, status)) = chosen.cloned() else {
            return Err(format!("none of {candidates:?} may be promoted"));
        };
        let answer = wait::within(PROMOTE_LIMIT, || {
            let (code, body) = admin::post(self.nodes[index].admin, "/promote").ok()?;
            (code == 200).then(|| serde_json::from_str::<Value>(&body).ok())?
        });
        let answer = answer.ok_or_else(|| format!("node {index} refuses to be promoted"))?;
        let exported = self.watch.exported(old_term, status["node"].as_str().unwrap_or_default());
        if let Some(Exported { lacking, lacking_ms, .. }) = exported {
            self.exported_max = (self.exported_max.0.max(lacking), self.exported_max.1.max(lacking_ms));
        }
        self.begin_reign(index, term_in(&answer), false, seq, exported);
        Ok(())
    }

    /// Those that may be promoted, with their seqs. If there are none but some that lack writes of which they were told, it
    /// is those: a manager would wait for the dead primary, and an operator does not.
    fn promotable(&mut self, candidates: &[usize]) -> Vec<(u64, usize, Value)> {
        let taken = |accepts: fn(&Value) -> bool| -> Vec<(u64, usize, Value)> {
            let seen = candidates.iter().filter_map(|index| {
                let status = wait::within(PROMOTABLE_LIMIT, || self.nodes[*index].status().filter(accepts))?;
                Some((status["seq"].as_u64()?, *index, status))
            });
            seen.collect()
        };
        let promotable = taken(|status| status["promotable"] == true);
        if !promotable.is_empty() {
            return promotable;
        }
        let not_level = taken(|status| {
            let reason = status["promotable_reason"].as_str();
            reason.is_some_and(|reason| reason.starts_with("not level"))
        });
        self.overruled += u64::from(!not_level.is_empty());
        not_level
    }

    /// From now on `node` reigns; clients are told.
    pub(super) fn begin_reign(
        &mut self,
        node: usize,
        term: u64,
        planned: bool,
        held_seq: u64,
        exported: Option<Exported>,
    ) {
        self.primary = node;
        let begun = self.clock.now();
        let address = self.nodes[node].clients;
        self.reigns.push(Reign { term, begun, planned, held_seq, exported, survived_seq: 0 });
        self.directory.announce(Seat { reign: self.reigns.len() - 1, node, address });
    }

    /// Has each replica talk to its primary through a proxy, and waits until it does: a follower that hears of its primary
    /// from the primary itself goes straight. Whether all do in the end.
    pub(super) fn route(&self) -> bool {
        let routed = wait::within(ROUTE_LIMIT, || {
            let straight: Vec<(usize, String)> = self
                .replicas()
                .into_iter()
                .map(|from| (from, self.proxy(from, self.primary).address().to_string()))
                .filter(|(from, way)| {
                    let status = self.nodes[*from].status();
                    !status.is_some_and(|status| status["primary"] == **way && status["link"] == "streaming")
                })
                .collect();
            for (from, way) in &straight {
                let status = self.nodes[*from].status();
                if status.is_some_and(|status| status["primary"] != **way) {
                    // Where it fails it is said once more.
                    let _ = admin::post(self.nodes[*from].admin, &format!("/follow?address={way}"));
                }
            }
            straight.is_empty().then_some(())
        });
        routed.is_some()
    }

    /// Waits until every other node streams from the primary; how long that took. Traffic may flow.
    pub(super) fn stream(&self) -> Result<Duration, String> {
        self.wait_settled(false)
    }

    /// Waits until every other node has all that the primary has, as well. Traffic rests, or that is never so.
    pub(super) fn converge(&self) -> Result<(), String> {
        self.wait_settled(true).map(|_| ())
    }

    fn wait_settled(&self, at_rest: bool) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut missing = String::new();
        wait::within(CONVERGE_LIMIT, || {
            missing = self.unsettled(at_rest)?;
            missing.is_empty().then_some(())
        })
        .map(|()| begun.elapsed())
        .ok_or_else(|| format!("no convergence within {CONVERGE_LIMIT:?}: {missing}"))
    }

    /// What is not yet as it should be; empty when all is. `None` while a node does not answer.
    fn unsettled(&self, at_rest: bool) -> Option<String> {
        let primary = self.nodes[self.primary].status()?;
        let mut missing = Vec::new();
        if primary["role"] != "primary" {
            missing.push(format!("node {} should reign: {primary}", self.primary));
        }
        for index in self.replicas() {
            let status = self.nodes[index].status()?;
            let follows = status["role"] == "replica" && status["link"] == "streaming";
            let lags = at_rest && status["seq"] != primary["seq"];
            if !follows || status["term"] != primary["term"] || lags {
                missing.push(format!("node {index} should follow: {status}"));
            }
        }
        if matches!(primary["lease"].as_str(), Some("waiting" | "over")) {
            missing.push(format!("no lease: {}", primary["lease"]));
        }
        if at_rest && primary["level_replicas"] != self.nodes.len() - 1 {
            missing.push(format!("level replicas: {}", primary["level_replicas"]));
        }
        Some(missing.join("; "))
    }

    /// Compares all keys on all nodes that answer reads: each has the same version and the same bytes everywhere. Gives
    /// what the primary has, as reads.
    pub(super) fn compare(&self) -> Result<Vec<Read>, String> {
        let mut difference = String::new();
        let found = wait::within(COMPARE_LIMIT, || {
            let begun = self.clock.now();
            let of_primary = self.contents(self.primary).ok()?;
            for index in self.replicas().into_iter().filter(|index| self.nodes[*index].answers_as_replica) {
                let theirs = self.contents(index);
                difference = match &theirs {
                    Ok(theirs) => difference_of(&of_primary, theirs, index),
                    Err(why) => format!("node {index}: {why}"),
                };
                if !difference.is_empty() {
                    return None;
                }
            }
            Some((begun, of_primary))
        });
        let (began, contents) = found.ok_or_else(|| format!("contents differ: {difference}"))?;
        let (ended, reign) = (self.clock.now(), self.reigns.len() - 1);
        let reads = contents.into_iter().take(KEYS).enumerate().map(|(key, found)| Read {
            key,
            began,
            ended,
            found,
            place: Place::Primary(reign),
        });
        Ok(reads.collect())
    }

    /// Every key on one node: those under load, then those that were filled in.
    fn contents(&self, index: usize) -> Result<Vec<Found>, String> {
        let wrong = |why: std::io::Error| why.to_string();
        let mut connection = Connection::open(self.nodes[index].clients, PATIENCE).map_err(wrong)?;
        let keys: Vec<Key> = (0..KEYS + FILLED_KEYS).collect();
        let mut contents = Vec::new();
        for some in keys.chunks(READ_AT_ONCE) {
            let got = read_all(&mut connection, some).map_err(wrong)?;
            for (&key, got) in some.iter().zip(got) {
                let found = found_in(key, got)?.ok_or("answers no reads")?;
                let is_filled = key >= KEYS;
                if is_filled && !matches!(found, Found::Value { .. }) {
                    return Err(format!("a key that was written once is {found:?}"));
                }
                contents.push(found);
            }
        }
        Ok(contents)
    }

    fn fill(&self) -> Result<(), String> {
        let wrong = |why: std::io::Error| format!("filling: {why}");
        let mut connection = Connection::open(self.nodes[self.primary].clients, PATIENCE).map_err(wrong)?;
        for some in (KEYS..KEYS + FILLED_KEYS).collect::<Vec<_>>().chunks(READ_AT_ONCE / 10) {
            let mut bytes = Vec::new();
            for &key in some {
                connection::set(&mut bytes, &super::history::name_of(key), &super::history::value_of(key, 0));
            }
            // On a busy machine an ack may come too late: the same once more.
            let mut answers = Vec::new();
            for _ in 0..FILL_TRIES {
                connection.send(&bytes).map_err(wrong)?;
                let told: std::io::Result<Vec<_>> = some.iter().map(|_| connection.written()).collect();
                answers = told.map_err(wrong)?;
                answers.retain(|answer| !matches!(answer, connection::Written::Done(_)));
                if answers.is_empty() {
                    break;
                }
            }
            if let Some(answer) = answers.first() {
                return Err(format!("filling: {answer:?}"));
            }
        }
        Ok(())
    }

    /// What each node said last, for whoever looks for the reason.
    pub(super) fn last_words(&self) -> String {
        let words = self.nodes.iter().map(|node| {
            format!("node {} at {} said:\n  {}", node.index, node.replication, node.last_words().join("\n  "))
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

/// The first key on which another node differs.
fn difference_of(ours: &[Found], theirs: &[Found], index: usize) -> String {
    let mut differing = ours.iter().zip(theirs).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
    let Some((key, (ours, theirs))) = differing.next() else { return String::new() };
    let more = differing.count();
    format!(
        "key {key} is {ours:?} on the primary and {theirs:?} on node {index}, and {more} more keys differ"
    )
}

pub(super) fn term_in(status: &Value) -> u64 {
    status["term"].as_u64().unwrap_or_default()
}
