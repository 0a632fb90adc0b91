//! Clients that wait for acknowledgements, and what they were promised.
//!
//! Lives here: P4 of the replication design. Not here: what a node's items must be (see `oracle`): a write that lies in
//! a node's history is there, evicted or overwritten by a later one, which `oracle` checks of every node.

use hotspare::{Acknowledgement, Cache, Inspection, Role, Written};

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

fn is_in_history(inspection: &Inspection, branch: u128, seq: u64) -> bool {
    inspection.lineage.iter().any(|entry| entry.1 == branch && seq <= entry.3)
}

/// Whether a node has a write now. One in the middle of a full copy has emptied itself for it.
fn holds(cache: &Cache, branch: u128, seq: u64) -> bool {
    let status = cache.status();
    let is_whole = status.ready || status.role == Role::Fenced;
    is_whole && is_in_history(&cache.inspect(), branch, seq)
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
                    let holding = nodes.iter().filter(|(_, cache)| holds(cache, branch, seq));
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
    pub fn check_promoted(&mut self, promoted: &Cache, nodes: &[(Life, Cache)]) -> Result<(), String> {
        // What no node holds any more can't come back, nor be asked for later.
        self.promises.retain(|Promise { branch, seq, holders }| {
            nodes.iter().any(|(life, cache)| holders.contains(life) && holds(cache, *branch, *seq))
        });
        let inspection = promoted.inspect();
        let lost = |promise: &&Promise| !is_in_history(&inspection, promise.branch, promise.seq);
        match self.promises.iter().find(lost) {
            None => Ok(()),
            Some(Promise { branch, seq, holders }) => {
                Err(format!("seq {seq} of branch {branch:x} was acknowledged when {holders:?} held it"))
            }
        }
    }
}
