//! What goes wrong in a cycle: drawn from the seed, carried out on the group.
//!
//! Lives here: the faults, and what an operator does about each. Not here: waiting until all is well (see `group`).

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;

use super::group::{Group, term_in};
use super::node::{Start, Stop};
use super::proxy::Direction;
use super::report::Counts;
use crate::{admin, wait};

/// How long a process hangs, or a way is deaf, in milliseconds.
const HANGS_MS: (f64, f64) = (50.0, 3_000.0);
/// How long an old primary that wakes may take until it knows that it is none.
const FENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long a hand-over may take to show.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How long a replica may take to notice that its primary's link is cut.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// How a killed primary comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// After the promotion, knowing its peers.
    Peers,
    /// After the promotion, told whom to follow.
    Following,
    /// Before anybody was promoted, by its first command line: an empty primary.
    Empty,
}

/// One fault. `which` picks a replica.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    KillPrimary {
        returns: Return,
        /// What is on its way in the network is lost as well.
        loses_in_flight: bool,
        /// The promotion waits until the link is known to be broken.
        waits: bool,
    },
    KillPrimaryWhileReplicaHangs {
        which: usize,
        hangs: Duration,
        loses_in_flight: bool,
    },
    KillReplica {
        which: usize,
        down: Duration,
        /// How long after its start it is killed again.
        again: Option<Duration>,
    },
    PausePrimary {
        hangs: Duration,
    },
    PausePrimaryAndPromote {
        before: Duration,
        hangs: Duration,
    },
    PauseReplica {
        which: usize,
        hangs: Duration,
    },
    Cut {
        which: usize,
        after_bytes: Vec<i64>,
    },
    Deaf {
        which: usize,
        up: bool,
        hangs: Duration,
    },
    HandOver,
    RestartReplica {
        which: usize,
        warm: bool,
    },
    RestartPrimary {
        warm: bool,
    },
}

/// What a cycle leaves to be told besides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    pub(super) split_brain: Duration,
    pub(super) hand_over_ms: f64,
}

fn time(random: &mut StdRng, (least, most): (f64, f64)) -> Duration {
    let share: f64 = random.random();
    Duration::from_secs_f64(least * (most / least).powf(share) / 1_000.0)
}

/// The fault of the next cycle.
pub(super) fn draw(random: &mut StdRng) -> Fault {
    let hangs = time(random, HANGS_MS);
    let which = random.random_range(0..16);
    let loses_in_flight = random.random();
    match random.random_range(0..100) {
        0..30 => {
            let returns = match random.random_range(0..5) {
                0..2 => Return::Peers,
                2..4 => Return::Following,
                _ => Return::Empty,
            };
            Fault::KillPrimary { returns, loses_in_flight, waits: random.random() }
        }
        30..42 => {
            let hangs = time(random, (20.0, 400.0));
            Fault::KillPrimaryWhileReplicaHangs { which, hangs, loses_in_flight }
        }
        42..54 => {
            let again = random.random_ratio(1, 3).then(|| time(random, (1.0, 300.0)));
            Fault::KillReplica { which, down: time(random, (1.0, 1_000.0)), again }
        }
        54..60 => Fault::PausePrimary { hangs },
        60..70 => Fault::PausePrimaryAndPromote { before: time(random, (5.0, 1_000.0)), hangs },
        70..75 => Fault::PauseReplica { which, hangs },
        75..83 => {
            let count = random.random_range(1..=4);
            Fault::Cut { which, after_bytes: (0..count).map(|_| random.random_range(0..20_000)).collect() }
        }
        83..89 => Fault::Deaf { which, up: random.random(), hangs },
        89..94 => Fault::HandOver,
        94..97 => Fault::RestartReplica { which, warm: random.random() },
        _ => Fault::RestartPrimary { warm: random.random() },
    }
}

impl Fault {
    /// Has it happen, with all that an operator does about it. Traffic flows.
    pub(super) fn carry_out(&self, group: &mut Group, counts: &mut Counts) -> Result<Measured, String> {
        let mut measured = Measured::default();
        let replicas = group.replicas();
        let replica = |which: usize| replicas[which % replicas.len()];
        match self {
            Fault::KillPrimary { returns, loses_in_flight, waits } => {
                kill_primary(group, counts, *returns, *loses_in_flight, *waits)?;
            }
            Fault::KillPrimaryWhileReplicaHangs { which, hangs, loses_in_flight } => {
                let replica = replica(*which);
                group.nodes[replica].pause();
                counts.pauses += 1;
                wait::pause(*hangs);
                let old = kill(group, counts, *loses_in_flight);
                group.nodes[replica].wake();
                promote(group, counts, &replicas)?;
                group.start_node(old, &Start::Peers);
            }
            Fault::KillReplica { which, down, again } => {
                kill_replica(group, counts, replica(*which), *down, *again);
            }
            Fault::PausePrimary { hangs } => {
                counts.pauses += 1;
                hang(group, group.primary, *hangs);
            }
            Fault::PausePrimaryAndPromote { before, hangs } => {
                measured.split_brain = promote_beside_hanging(group, counts, *before, *hangs)?;
            }
            Fault::PauseReplica { which, hangs } => {
                counts.pauses += 1;
                hang(group, replica(*which), *hangs);
            }
            Fault::Cut { which, after_bytes } => {
                let proxy = group.proxy(replica(*which), group.primary);
                let before = proxy.cuts();
                for bytes in after_bytes {
                    proxy.cut_after(*bytes);
                    wait::pause(Duration::from_millis(100));
                }
                counts.cuts += proxy.cuts() - before;
            }
            Fault::Deaf { which, up, hangs } => {
                let direction = if *up { Direction::Up } else { Direction::Down };
                let proxy = group.proxy(replica(*which), group.primary);
                proxy.set_deaf(direction, true);
                wait::pause(*hangs);
                proxy.set_deaf(direction, false);
                counts.deaf_ways += 1;
            }
            Fault::HandOver => measured.hand_over_ms = hand_over(group, counts)?,
            Fault::RestartReplica { which, warm } => {
                let replica = replica(*which);
                group.nodes[replica].stop(stop(*warm, counts))?;
                group.start_node(replica, &Start::Peers);
            }
            Fault::RestartPrimary { warm } => {
                let old = group.primary;
                group.nodes[old].stop(stop(*warm, counts))?;
                promote(group, counts, &replicas)?;
                group.start_node(old, &Start::Peers);
            }
        }
        Ok(measured)
    }
}

fn stop(warm: bool, counts: &mut Counts) -> Stop {
    counts.restarts += 1;
    counts.warm_restarts += u64::from(warm);
    if warm { Stop::Warm } else { Stop::Cold }
}

fn promote(group: &mut Group, counts: &mut Counts, candidates: &[usize]) -> Result<(), String> {
    counts.promotions += 1;
    group.promote(candidates)
}

fn hang(group: &mut Group, node: usize, time: Duration) {
    group.nodes[node].pause();
    wait::pause(time);
    group.nodes[node].wake();
}

/// Kills the primary; which node that was.
fn kill(group: &mut Group, counts: &mut Counts, loses_in_flight: bool) -> usize {
    let old = group.primary;
    group.nodes[old].kill();
    if loses_in_flight {
        group.replicas().into_iter().for_each(|replica| group.proxy(replica, old).cut_now());
    }
    counts.kills_of_primary += 1;
    old
}

/// Kills a replica, and perhaps the next process there as well, so long after its start.
fn kill_replica(
    group: &mut Group,
    counts: &mut Counts,
    replica: usize,
    down: Duration,
    again: Option<Duration>,
) {
    for up in [Some(Duration::ZERO), again].into_iter().flatten() {
        wait::pause(up);
        group.nodes[replica].kill();
        counts.kills_of_replica += 1;
        wait::pause(down);
        group.start_node(replica, &Start::Peers);
    }
}

fn kill_primary(
    group: &mut Group,
    counts: &mut Counts,
    returns: Return,
    loses_in_flight: bool,
    waits: bool,
) -> Result<(), String> {
    let replicas = group.replicas();
    let old = kill(group, counts, loses_in_flight);
    if returns == Return::Empty {
        // Clients are led elsewhere: what an empty primary is told before it meets anybody is nobody's promise.
        group.directory.close();
        counts.empty_returns += 1;
        group.start_node(old, &Start::Bootstrap);
    }
    if waits {
        let noticed =
            |index: &usize| group.nodes[*index].status().is_some_and(|status| status["link"] != "streaming");
        wait::within(NOTICE_LIMIT, || replicas.iter().all(noticed).then_some(()))
            .ok_or("a replica goes on streaming from a primary that was killed")?;
    }
    promote(group, counts, &replicas)?;
    match returns {
        Return::Peers => group.start_node(old, &Start::Peers),
        Return::Following => {
            let way = group.proxy(old, group.primary).address();
            group.start_node(old, &Start::Following(way));
        }
        Return::Empty => {}
    }
    Ok(())
}

/// A primary that hangs, a promotion, and its awakening; how long both reigned after that.
fn promote_beside_hanging(
    group: &mut Group,
    counts: &mut Counts,
    before: Duration,
    hangs: Duration,
) -> Result<Duration, String> {
    let (old, replicas) = (group.primary, group.replicas());
    counts.pauses += 1;
    group.nodes[old].pause();
    wait::pause(before);
    let promoted = promote(group, counts, &replicas);
    wait::pause(hangs.saturating_sub(before));
    group.nodes[old].wake();
    promoted?;
    let woken = std::time::Instant::now();
    wait::within(FENCE_LIMIT, || {
        let status = group.nodes[old].status()?;
        (status["role"] != "primary").then(|| woken.elapsed())
    })
    .ok_or_else(|| format!("node {old} still reigns {FENCE_LIMIT:?} after it woke beside another primary"))
}

/// A planned change; the pause in milliseconds.
fn hand_over(group: &mut Group, counts: &mut Counts) -> Result<f64, String> {
    let (old, old_term) = (group.primary, group.reigns.last().map_or(0, |reign| reign.term));
    let (code, said) =
        admin::post(group.nodes[old].admin, "/handover").map_err(|why| format!("/handover: {why}"))?;
    let answer: Value = serde_json::from_str(&said).unwrap_or_default();
    let reigns = |index: usize| {
        let status = group.nodes[index].status()?;
        (status["role"] == "primary").then(|| (index, term_in(&status)))
    };
    let found = wait::within(HAND_OVER_LIMIT, || {
        let all = (0..group.nodes.len()).filter_map(reigns);
        all.max_by_key(|(_, term)| *term).filter(|(_, term)| code != 200 || *term > old_term)
    });
    match found {
        Some((node, term)) if term > old_term => {
            counts.hand_overs += 1;
            group.begin_reign(node, term, true, 0, None);
        }
        Some(_) => counts.refused_hand_overs += 1,
        // The frame was lost: nobody reigns, and an operator decides.
        None if code != 200 => {
            counts.refused_hand_overs += 1;
            let all: Vec<usize> = (0..group.nodes.len()).collect();
            promote(group, counts, &all)?;
        }
        None => return Err(format!("/handover said {said}, and nobody reigns")),
    }
    Ok(answer["pause_ms"].as_f64().unwrap_or_default())
}
