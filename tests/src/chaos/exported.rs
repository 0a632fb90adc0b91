//! What nodes say of themselves all the while: who reigns, and what would be lost now.
//!
//! Lives here: one thread a node that asks `/status` over and over, and what is kept of the answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::history::{Clock, Moment};
use crate::{admin, wait};

/// How often a primary is asked: what it says of the risk shortly before its death counts.
const PRIMARY_PAUSE: Duration = Duration::from_millis(3);
/// How often another is asked.
const OTHER_PAUSE: Duration = Duration::from_millis(20);

/// What a primary said about one replica.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Exported {
    /// When it was asked.
    pub(super) asked: Moment,
    pub(super) applied_seq: u64,
    /// Writes that the replica lacked.
    pub(super) lacking: u64,
    /// For how long it had lacked any, in milliseconds; of what it lacked already when it attached again, since then.
    pub(super) lacking_ms: u64,
    /// By when the primary's replicas had attached, the last one of them.
    pub(super) attached: Moment,
}

#[derive(Debug, Default)]
struct Notes {
    /// By term and replica: the last that was said.
    exported: HashMap<(u64, String), Exported>,
    /// By node and term: when it was first known to follow or to serve that term.
    followed: HashMap<(usize, u64), Moment>,
    /// By node: how often replicas have attached to it, and when that was known.
    attached: HashMap<usize, (u64, Moment)>,
    answers: u64,
}

/// All that nodes said.
#[derive(Debug)]
pub(super) struct Watch {
    notes: Arc<Mutex<Notes>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Asks the nodes at these administration addresses until it is dropped.
    pub(super) fn start(admins: &[SocketAddr], clock: Clock) -> Watch {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let threads = admins
            .iter()
            .enumerate()
            .map(|(node, &address)| {
                let (notes, ends) = (Arc::clone(&notes), Arc::clone(&ends));
                thread::spawn(move || {
                    while !ends.load(Ordering::SeqCst) {
                        let asked = clock.now();
                        let status = admin::status(address);
                        let reigns = status.as_ref().is_some_and(|status| status["role"] == "primary");
                        if let Some(status) = status {
                            let mut notes = notes.lock().expect("no panic while held");
                            notes.take(node, asked, clock.now(), &status);
                        }
                        wait::pause(if reigns { PRIMARY_PAUSE } else { OTHER_PAUSE });
                    }
                })
            })
            .collect();
        Watch { notes, ends, threads }
    }

    /// The last that the primary of `term` said of a replica.
    pub(super) fn exported(&self, term: u64, replica: &str) -> Option<Exported> {
        let notes = self.notes.lock().expect("no panic while held");
        notes.exported.get(&(term, replica.to_owned())).copied()
    }

    /// When a node was first known to follow or to serve `term`, or one above it.
    pub(super) fn followed(&self, node: usize, term: u64) -> Option<Moment> {
        let notes = self.notes.lock().expect("no panic while held");
        let above = notes.followed.iter().filter(|((who, seen), _)| *who == node && *seen >= term);
        above.map(|(_, moment)| *moment).min()
    }

    /// A node lost its memory: what it follows is not known.
    pub(super) fn forget(&self, node: usize) {
        self.notes.lock().expect("no panic while held").followed.retain(|(who, _), _| *who != node);
    }

    /// How often any node answered.
    pub(super) fn answers(&self) -> u64 {
        self.notes.lock().expect("no panic while held").answers
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Notes {
    fn take(&mut self, node: usize, asked: Moment, answered: Moment, status: &Value) {
        self.answers += 1;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let term = number(&status["term"]);
        let leads_or_follows = status["role"] == "primary" || status["link"] == "streaming";
        if leads_or_follows {
            self.followed.entry((node, term)).or_insert(answered);
        }
        if status["role"] != "primary" {
            return;
        }
        let times = number(&status["catch_ups"]) + number(&status["installs"]);
        let known = self.attached.entry(node).or_insert((times, answered));
        if known.0 != times {
            *known = (times, answered);
        }
        let attached = known.1;
        for replica in status["replicas"].as_array().into_iter().flatten() {
            if replica["state"] != "streaming" {
                continue;
            }
            let applied_seq = number(&replica["applied_seq"]);
            let lacking = number(&status["seq"]).saturating_sub(applied_seq);
            let lacking_ms = number(&replica["lag_ms"]);
            let name = replica["node"].as_str().unwrap_or_default().to_owned();
            self.exported
                .insert((term, name), Exported { asked, applied_seq, lacking, lacking_ms, attached });
        }
    }
}
