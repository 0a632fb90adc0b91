//! What runs did.

use super::subscribers::Told;

/// What a run did, so that a test can see that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Mutations that a primary answered.
    pub mutations: u64,
    /// Changes of primary.
    pub promotions: u64,
    /// Nodes that hold nothing and were to be promoted; and those that were.
    pub empty_candidates: [u64; 2],
    /// Promotions of nodes that had come up with nothing beside the group's items: asked for, and refused at once.
    pub outranked: [u64; 2],
    /// Replicas that their primary handed its role to.
    pub handovers: u64,
    /// Nodes that had a replica below a replica attached at some look.
    pub cascades: u64,
    /// Nodes that lost their memory.
    pub crashes: u64,
    /// How often the log waited for a part of a full copy.
    pub log_waits: u64,
    /// Hints that were lost.
    pub hints_lost: u64,
    /// Links cut.
    pub cuts: u64,
    /// Writes that clients were told are replicated.
    pub acknowledged: u64,
    /// Writes refused for want of replicas.
    pub refused: u64,
    /// Full copies that replicas began.
    pub installs: u64,
    /// Resumptions from the log.
    pub catch_ups: u64,
    /// Nodes that came back ahead and dropped what they had alone.
    pub roll_backs: u64,
    /// Items that they dropped.
    pub rolled_back_keys: u64,
    /// Nodes that were stopped for a while.
    pub pauses: u64,
    /// Items that were evicted.
    pub evicted: u64,
    /// Lives of nodes of an older version.
    pub old_lives: u64,
    /// Frames that were spoilt on their way.
    pub spoilt: u64,
    /// What subscribers were told.
    pub told: Told,
    /// Reads that waited for a version, how many found an item, and versions that a node will never have.
    pub waited: [u64; 3],
    /// Loads begun and stored, and leases in logs.
    pub loads: [u64; 3],
    /// The state of all nodes at the end, as one number.
    pub fingerprint: u64,
}

impl Summary {
    /// Adds what another run did. Its state at the end is no sum: the fingerprint stays.
    pub fn add(&mut self, other: &Summary) {
        self.mutations += other.mutations;
        self.promotions += other.promotions;
        add_each(&mut self.empty_candidates, &other.empty_candidates);
        add_each(&mut self.outranked, &other.outranked);
        self.handovers += other.handovers;
        self.cascades += other.cascades;
        self.crashes += other.crashes;
        self.log_waits += other.log_waits;
        self.hints_lost += other.hints_lost;
        self.cuts += other.cuts;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.installs += other.installs;
        self.catch_ups += other.catch_ups;
        self.roll_backs += other.roll_backs;
        self.rolled_back_keys += other.rolled_back_keys;
        self.pauses += other.pauses;
        self.evicted += other.evicted;
        self.old_lives += other.old_lives;
        self.spoilt += other.spoilt;
        self.told.add(&other.told);
        add_each(&mut self.waited, &other.waited);
        add_each(&mut self.loads, &other.loads);
    }
}

/// Adds counts place by place.
pub(super) fn add_each<const N: usize>(total: &mut [u64; N], more: &[u64; N]) {
    total.iter_mut().zip(more).for_each(|(total, more)| *total += more);
}
