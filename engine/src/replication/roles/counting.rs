//! Who counts where a promotion needs the word of others: a node that came up with nothing does not before a primary counts it.
//!
//! Lives here: how many others a promotion asks, which replicas a primary believes, how a replica's replica gets to be
//! counted, or its parent.
//! Not here: asking (see `driver::campaign`), counting acks (see `acks`), what such a node holds (see `beginning`).

use super::{Hello, LinkState, Roles};

/// How many leases a node grants a primary that it visits for its parent's sake, for each ack that a write waits for. It is asked
/// for four a second: so it is there for a second, in which the primary looks who has granted one, and others may come as well.
const VOUCHES_EACH: u8 = 4;

impl Roles {
    /// How many positions a promotion has to read so that one of them is that of a node with every acknowledged write: of R
    /// other nodes and N acks R − N + 1, this node's own among them. 1 in async, which promises nothing.
    pub(crate) fn positions_needed(&self) -> u8 {
        let others = self.configured_others().len() as u8;
        if self.acks_needed == 0 { 1 } else { others.saturating_sub(self.acks_needed) + 1 }
    }

    /// Whether an attached replica that remembers nothing of what it may have promised counts: where no promotion needs
    /// promises, or if it can't have made one that counted, for in this group's first reign only this node counts anybody, and
    /// has not counted it before. One that comes back by another slot looks new: so no more are believed than there are others.
    pub(crate) fn believes_forgetful(&mut self, slot: u8, is_first_reign: bool) -> bool {
        let is_new = self.counted_slots & 1 << slot == 0;
        let is_one_of_all = (self.counted_slots.count_ones() as usize) < self.configured_others().len();
        self.has_counted(slot);
        self.positions_needed() == 1 || (is_first_reign && is_new && is_one_of_all)
    }

    /// The replica of this slot counts, and so may promise: should it lose its memory it is not believed again.
    pub(crate) fn has_counted(&mut self, slot: u8) {
        self.counted_slots |= 1 << slot;
    }

    /// The primary far above that this replica's replica has to follow for a while, where promotions ask others. So that it is
    /// counted, if it came up with nothing: it counts in none before. So that its parent is, if that did: a primary counts it
    /// once others have granted a lease, and there may be none but this node.
    pub(crate) fn primary_to_visit(&self) -> Option<&str> {
        let is_due = self.has_to_visit()
            && self.level
            && self.link == LinkState::Streaming
            && self.positions_needed() > 1;
        self.cascade.primary.as_deref().filter(|_| is_due)
    }

    /// The parent has taken this node: if it was another one when it did last, it has lost its memory.
    pub(super) fn parent_took(&mut self, node: u128) {
        if self.cascade.parent_changed(node) {
            self.cascade.vouches = VOUCHES_EACH.saturating_mul(self.acks_needed);
        }
    }

    /// Whether a visit of the primary has not done yet what it is for.
    pub(crate) fn has_to_visit(&self) -> bool {
        self.forgot || self.cascade.vouches > 0
    }

    /// The primary was visited for long and asked for no lease, as one does by whose ack mode nobody need be counted: for a parent's
    /// sake this node does not go there for ever.
    pub(crate) fn visited_in_vain(&mut self) {
        self.cascade.vouches = self.cascade.vouches.saturating_sub(1);
    }

    /// The primary has asked for a lease, as it does of those only that count, and was granted it.
    pub(crate) fn granted_lease(&mut self) {
        self.forgot = false;
        self.cascade.vouches = self.cascade.vouches.saturating_sub(1);
    }

    /// This node's listener has heard this and refused it: it may be this node that dialled, by an address of its own.
    pub(crate) fn heard(&mut self, hello: &Hello) {
        let is_own = (hello.node, hello.incarnation) == (self.node, self.incarnation());
        self.heard_itself = self.heard_itself.saturating_add(is_own.into());
    }

    /// Whoever listens there has this node's identity. If it is this node, and not a copy that a restored image made, then that
    /// is no other node of the group, and a promotion does not wait for its word.
    pub(crate) fn met_itself_at(&mut self, address: &str) {
        self.forget_peer(address);
        let Some(left) = self.heard_itself.checked_sub(1) else { return };
        self.heard_itself = left;
        self.configured.retain(|other| other != address);
        let (of_most, of_all) = (self.positions_needed(), self.answers_needed_by_empty());
        if let Some(candidacy) = &mut self.candidacy {
            candidacy.needed = if candidacy.is_empty { of_all } else { of_most };
        }
    }

    /// This node in its present life, by which a candidate tells whether one that has promised it something still remembers.
    pub(crate) fn life(&self) -> u128 {
        self.node ^ u128::from(self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::AckMode;
    use super::*;
    use crate::config::ReplicationConfig;
    use crate::replication::hello::Purpose;
    use crate::replication::position::Lineage;

    #[test]
    fn only_an_address_of_its_own_is_no_other_node() {
        let config = ReplicationConfig::primary().node(1).peer("own").peer("b").ack(AckMode::of(1));
        let mut roles = Roles::new(&config);
        roles.candidacy = Some(roles.founding(0));
        let needed = |roles: &Roles| roles.candidacy.map(|candidacy| candidacy.needed);
        let own = roles.hello(Purpose::Ask, &Lineage::default(), None, 1, 0);
        roles.heard(&Hello { incarnation: own.incarnation ^ 1, ..own.clone() });
        roles.met_itself_at("own");
        assert_eq!(needed(&roles), Some(3), "a copy of it is another node");
        roles.heard(&own);
        roles.met_itself_at("own");
        assert_eq!((needed(&roles), roles.positions_needed()), (Some(2), 1));
        roles.met_itself_at("b");
        assert_eq!(needed(&roles), Some(2), "once for each time that it heard itself");
    }

    #[test]
    fn a_parent_that_came_back_as_somebody_else_is_vouched_for_but_not_for_ever() {
        let config =
            ReplicationConfig::replica_of("parent").cascade().slot(2).peer("top").ack(AckMode::of(1));
        let mut roles = Roles::new(&config);
        roles.forgot = false;
        for (node, has_to) in [(7, false), (7, false), (8, true)] {
            roles.parent_took(node);
            assert_eq!(roles.has_to_visit(), has_to, "{node}");
        }
        let mut left = 0;
        while roles.has_to_visit() {
            left += 1;
            if left % 2 == 0 { roles.granted_lease() } else { roles.visited_in_vain() }
        }
        assert_eq!(left, VOUCHES_EACH);
    }

    #[test]
    fn what_upstream_forgets_is_forgotten_and_what_it_never_named_is_not() {
        let mut roles = Roles::new(&ReplicationConfig::replica_of("up").peer("mine").node(1));
        let named = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let known = |roles: &Roles| {
            let mut known = roles.peers().to_vec();
            known.sort();
            known
        };
        roles.learn_peers_of_upstream(&named(&["a", "b", "mine"]));
        roles.learn_peers_of_upstream(&named(&["b", "c"]));
        assert_eq!(known(&roles), ["b", "c", "up"]);
        assert_eq!(roles.configured_others(), ["up", "mine"], "a promotion asks as many as before");
        roles.attached_to("other", 7, super::super::Term(2), super::super::Plan::Resume);
        roles.learn_peers_of_upstream(&named(&["c"]));
        assert_eq!(known(&roles), ["b", "c", "other", "up"], "another node may know fewer");
        assert!(roles.forget_peer("b") && !roles.forget_peer("b"));
    }

    #[test]
    fn each_slot_is_believed_once_and_no_more_of_them_than_there_are_others() {
        let config = ReplicationConfig::primary().node(1).peer("b").peer("c").ack(AckMode::of(1));
        let mut roles = Roles::new(&config);
        assert!(roles.believes_forgetful(1, true) && !roles.believes_forgetful(1, true));
        assert!(!roles.believes_forgetful(2, false) && !roles.believes_forgetful(2, true));
        assert!(!roles.believes_forgetful(3, true), "one of the two by another slot");
    }
}
