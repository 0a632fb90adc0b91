//! Clients that wait for acknowledgements, and what they were promised.
//!
//! Lives here: P4 of the replication design. Not here: what a node's items must be (see `oracle`): a write that lies in
//! a node's history is there, evicted or overwritten by a later one, which `oracle` checks of every node.

use std::collections::HashSet;

use hotspare::{Acknowledgement, Cache, Inspection, Written};

/// A node in one life: it loses its memory between two.
pub type Life = u64;

/// A write whose answer is due.
#[derive(Debug)]
struct Pending {
    life: Life,
    written: Written,
    branch: u128,
    seq: u64,
}

/// A write that was acknowledged.
#[derive(Debug)]
struct Promise {
    branch: u128,
    seq: u64,
    /// Who held it then.
    holders: Vec<Life>,
}

/// What all clients of a group wait for and know.
#[derive(Debug, Default)]
pub struct Clients {
    pending: Vec<Pending>,
    promises: Vec<Promise>,
    /// Writes acknowledged so far.
    pub acknowledged: u64,
    /// Writes that are known to be lost, and were never acknowledged.
    pub diverged: u64,
}

fn holds(inspection: &Inspection, branch: u128, seq: u64) -> bool {
    inspection.lineage.iter().any(|entry| entry.1 == branch && seq <= entry.3)
}

impl Clients {
    /// A client wrote at a primary, and waits.
    pub fn wrote(&mut self, life: Life, cache: &Cache, written: Written) {
        let inspection = cache.inspect();
        let Some((_, branch, _, seq)) = inspection.lineage.last().copied() else { return };
        self.pending.push(Pending { life, written, branch, seq });
    }

    /// Answers whoever can be answered. Who waits at a node that has died hears nothing.
    pub fn answer(&mut self, nodes: &[(Life, Cache)]) {
        let pending = std::mem::take(&mut self.pending);
        for waits in pending {
            let Some((_, cache)) = nodes.iter().find(|(life, _)| *life == waits.life) else { continue };
            match cache.acknowledged(waits.written) {
                Acknowledgement::Unknown { .. } => self.pending.push(waits),
                Acknowledgement::Diverged => self.diverged += 1,
                Acknowledgement::Replicated { .. } => {
                    self.acknowledged += 1;
                    let (branch, seq) = (waits.branch, waits.seq);
                    let holding = nodes.iter().filter(|(_, cache)| holds(&cache.inspect(), branch, seq));
                    let holders = holding.map(|(life, _)| *life).collect();
                    self.promises.push(Promise { branch, seq, holders });
                }
            }
        }
    }

    /// P4: a promoted node's history holds every acknowledged write of which a holder lives on.
    ///
    /// # Errors
    /// What it lacks, in words.
    pub fn check_promoted(&mut self, inspection: &Inspection, alive: &[Life]) -> Result<(), String> {
        let alive: HashSet<&Life> = alive.iter().collect();
        // What no node holds any more can't come back, nor be asked for later.
        self.promises.retain(|promise| promise.holders.iter().any(|life| alive.contains(life)));
        match self.promises.iter().find(|promise| !holds(inspection, promise.branch, promise.seq)) {
            None => Ok(()),
            Some(Promise { branch, seq, holders }) => Err(format!(
                "seq {seq} of branch {branch:x} was acknowledged when {holders:?} of {alive:?} held it"
            )),
        }
    }
}
