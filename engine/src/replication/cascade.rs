//! Replicas of replicas: where a node stands below its primary, and which child it takes.
//!
//! Lives here: the path from the primary down to a node, and the verdict on a peer that would follow a replica. Not here:
//! shipping, which is a primary's (see `primary`): a replica's log is its primary's, record for record.
//!
//! ```text
//!   primary ──> replica ──> replica ──> ...          at most DEPTH_MAX links below the primary
//!   path:        [primary]   [primary, replica]
//! ```
//! A path comes from above, with the attachment and then whenever it changes, so that a loop or a chain that grew too long
//! after the fact is found as well. A node asks to be a replica's child; without that a replica sends it to the primary.

use super::hello::{ADDRESS_BYTES_MAX, Hello};
use super::message::{RejectCode, Relay};
use super::position::{Lineage, Term};
use super::roles::Roles;
use super::session::SessionEnd;
use super::status::LinkState;

/// Links between a node and its primary, at most.
pub(crate) const DEPTH_MAX: usize = 4;

/// For how long a node that was told to follow a replica looks for that one only, before it asks everybody it knows.
const PARENT_PATIENCE_MS: u64 = 10_000;

/// A node's place in the tree below its primary.
#[derive(Debug, Default)]
pub(crate) struct Cascade {
    /// The node that this one follows even while that is a replica.
    parent: Option<String>,
    /// Its identity when it took this node last.
    parent_node: Option<u128>,
    /// How many leases this node has yet to grant the primary itself, so that its parent is counted, which has lost its memory.
    pub(crate) vouches: u8,
    /// Since when the parent has not taken this node.
    orphaned_since_ms: Option<u64>,
    /// The nodes above, the primary first; empty while none is known.
    path: Vec<u128>,
    /// Where the primary listens, if it is not the node that is followed.
    pub(crate) primary: Option<String>,
    /// Who took this node last, by which term, and how often one has: for simulations.
    pub(crate) taken: Option<(u128, Term)>,
    pub(crate) times_taken: u64,
}

impl Cascade {
    pub(crate) fn new(parent: Option<String>) -> Cascade {
        Cascade { parent, ..Cascade::default() }
    }

    /// Whom to ask first.
    pub(crate) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// Follows another node, replica or not, from now on.
    pub(crate) fn set_parent(&mut self, address: &str) {
        self.parent = Some(address.to_owned());
        self.parent_node = None;
        self.orphaned_since_ms = None;
    }

    /// The parent has taken this node. Whether it was somebody else when it did last, as one is that has lost its memory.
    pub(crate) fn parent_changed(&mut self, node: u128) -> bool {
        self.parent_node.replace(node).is_some_and(|before| before != node)
    }

    /// Begins to look for the parent, if there is one.
    pub(crate) fn look_for_parent(&mut self, now_ms: u64) {
        if self.parent.is_some() {
            self.orphaned_since_ms.get_or_insert(now_ms);
        }
    }

    /// Whether nobody but the parent is asked yet.
    pub(crate) fn waits_for_parent(&self, now_ms: u64) -> bool {
        self.orphaned_since_ms.is_some_and(|since_ms| now_ms < since_ms + PARENT_PATIENCE_MS)
    }

    /// A node has taken this one, by a term of which it was no later than now.
    pub(crate) fn was_taken(&mut self, by: u128, term: Term) {
        self.taken = Some((by, term));
        self.times_taken += 1;
    }

    /// A node has taken this one.
    pub(crate) fn found(&mut self, address: &str) {
        if self.is_parent(address) {
            self.orphaned_since_ms = None;
        }
    }

    /// Whether this address is that of the node whose child this one would be.
    pub(crate) fn is_parent(&self, address: &str) -> bool {
        self.parent.as_deref() == Some(address)
    }

    /// Links between this node and its primary; 0 while none is known.
    pub(crate) fn depth(&self) -> usize {
        self.path.len()
    }

    /// Follows this primary itself.
    pub(crate) fn below_primary(&mut self, primary: u128) {
        self.path = vec![primary];
        self.primary = None;
    }

    /// Knows of nobody above.
    pub(crate) fn forget_path(&mut self) {
        self.path.clear();
        self.primary = None;
    }

    /// Takes what the parent tells of the nodes above.
    ///
    /// # Errors
    /// The node is above itself, or too far down.
    pub(crate) fn take(&mut self, relay: &Relay, node: u128) -> Result<(), SessionEnd> {
        self.forget_path();
        if relay.path.contains(&node) {
            return Err(SessionEnd::Loop);
        }
        if relay.path.len() > DEPTH_MAX {
            return Err(SessionEnd::TooDeep);
        }
        self.path.clone_from(&relay.path);
        self.primary =
            Some(relay.primary.clone()).filter(|address| (1..=ADDRESS_BYTES_MAX).contains(&address.len()));
        Ok(())
    }
}

/// In a path, a node of which nothing is known yet.
const UNKNOWN: u128 = 0;

/// What a node tells its children; its parent's word of what has settled, if it is a replica.
pub(crate) fn relay(roles: &Roles, settled_seq: u64, settled_ms: u64) -> Relay {
    let mut path = roles.cascade.path.clone();
    // Somebody is above a replica, even while it isn't known who: only a primary is the beginning of a path.
    let is_lost = roles.is_follower() && path.is_empty();
    if is_lost {
        path.push(UNKNOWN);
    }
    path.push(roles.node);
    let primary = roles.primary_address().unwrap_or_default();
    let level = !is_lost && (!roles.is_follower() || roles.level);
    // What its own heartbeats settle is later than what settled when it was a replica.
    let settled_ms = if roles.is_follower() { settled_ms } else { 0 };
    Relay { path, primary, level, settled_seq, settled_ms }
}

/// Whether a replica takes a peer as its child; else why not.
pub(crate) fn may_take(hello: &Hello, roles: &Roles, lineage: &Lineage) -> Result<(), RejectCode> {
    let cascade = &roles.cascade;
    if !hello.cascades {
        return Err(RejectCode::NotPrimary);
    }
    if !hello.reads_all_entries() {
        // Its records are the primary's, whatever the child knows.
        return Err(RejectCode::UnsupportedVersion);
    }
    if hello.slot == roles.slot {
        return Err(RejectCode::DuplicateSlot);
    }
    if cascade.path.contains(&hello.node) {
        return Err(RejectCode::Loop);
    }
    if roles.link != LinkState::Streaming || !roles.has_data || cascade.path.is_empty() {
        return Err(RejectCode::Unattached);
    }
    if cascade.depth() >= DEPTH_MAX {
        return Err(RejectCode::TooDeep);
    }
    // It has heard more of this history than this node, which will: nothing has to be rolled back for that.
    let is_ahead = lineage
        .position()
        .zip(hello.position)
        .is_some_and(|(ours, theirs)| ours.branch == theirs.branch && theirs.seq > ours.seq);
    if is_ahead || hello.term_seen > lineage.term() {
        return Err(RejectCode::Behind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReplicationConfig;
    use crate::replication::hello::Purpose;
    use crate::replication::position::Branch;

    /// A replica (node 2, slot 1) below these nodes, at the end of branch 7, and its history.
    fn replica(path: &[u128]) -> (Roles, Lineage) {
        let mut roles = Roles::new(&ReplicationConfig::replica_of("a").node(2).random_seed(1));
        roles.link = LinkState::Streaming;
        roles.has_data = true;
        roles.cascade.path = path.to_vec();
        let mut lineage = Lineage::default();
        lineage.mint(Term(16), Branch(7), 0, true);
        (roles, lineage)
    }

    fn child(roles: &Roles, lineage: &Lineage) -> Hello {
        let mut peer = Roles::new(&ReplicationConfig::replica_of("b").node(3).slot(3).random_seed(2));
        peer.group = roles.group;
        peer.has_data = true;
        let hello = peer.hello(Purpose::Follow, lineage, lineage.position(), 1 << 20, 0);
        Hello { cascades: true, ..hello }
    }

    #[test]
    fn only_who_asks_for_it_becomes_a_replicas_child() {
        let (roles, lineage) = replica(&[1]);
        let asks = child(&roles, &lineage);
        assert_eq!(may_take(&asks, &roles, &lineage), Ok(()));
        let old = Hello { knows_loads: false, ..asks.clone() };
        assert_eq!(may_take(&old, &roles, &lineage), Err(RejectCode::UnsupportedVersion));
        let strays = Hello { cascades: false, ..asks };
        assert_eq!(may_take(&strays, &roles, &lineage), Err(RejectCode::NotPrimary));
    }

    #[test]
    fn the_fifth_link_and_a_loop_are_refused() {
        let (deep, lineage) = replica(&[1, 10, 11]);
        let asks = child(&deep, &lineage);
        assert_eq!(may_take(&asks, &deep, &lineage), Ok(()), "this would be the fourth");
        let (deeper, _) = replica(&[1, 10, 11, 12]);
        assert_eq!(may_take(&asks, &deeper, &lineage), Err(RejectCode::TooDeep));
        let (below, _) = replica(&[1, 3]);
        assert_eq!(may_take(&asks, &below, &lineage), Err(RejectCode::Loop));
    }

    #[test]
    fn a_chain_that_closes_or_grows_above_a_node_ends_its_link() {
        let mut cascade = Cascade::default();
        let told = |path: &[u128]| Relay {
            path: path.to_vec(),
            primary: "p".to_owned(),
            level: true,
            settled_seq: 0,
            settled_ms: 0,
        };
        assert_eq!(cascade.take(&told(&[1, 2, 3, 4]), 9), Ok(()));
        assert_eq!((cascade.depth(), cascade.primary.as_deref()), (4, Some("p")));
        assert_eq!(cascade.take(&told(&[1, 2, 3, 4, 5]), 9), Err(SessionEnd::TooDeep));
        assert_eq!(cascade.depth(), 0, "nobody becomes its child by a path that has passed");
        assert_eq!(cascade.take(&told(&[1, 9, 3]), 9), Err(SessionEnd::Loop));
    }

    #[test]
    fn a_replica_without_a_primary_or_behind_the_peer_sends_it_away_for_a_while() {
        let (mut roles, mut lineage) = replica(&[1]);
        let level = child(&roles, &lineage);
        let before = lineage.clone();
        lineage.advance();
        let ahead = child(&roles, &lineage);
        assert_eq!(may_take(&ahead, &roles, &before), Err(RejectCode::Behind));
        let newer = Hello { term_seen: Term(33), ..level.clone() };
        assert_eq!(may_take(&newer, &roles, &lineage), Err(RejectCode::Behind));
        assert_eq!(may_take(&level, &roles, &lineage), Ok(()));
        roles.link = LinkState::Connecting;
        assert_eq!(may_take(&level, &roles, &lineage), Err(RejectCode::Unattached));
    }
}
