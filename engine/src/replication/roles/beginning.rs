//! Whether what a node holds is the group's: of one that began with nothing, and may have forgotten a group of before.
//!
//! Lives here: when such a node asks before it reigns, to whom it yields and for how long, and what it remembers of that one.
//! Not here: who asks (see `driver::campaign`), whom a listener believes (see `admission`).

use super::{LinkState, Role, Roles, Seq};

/// A node that holds what this one came up without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Where it listens for replication, or dialled from.
    pub(crate) address: String,
    /// Whether it can be dialled there.
    pub(crate) listens: bool,
    /// The last mutation that it had heard of.
    pub(crate) seq: Seq,
}

/// How long a primary that began empty yields to whoever holds the group's items, in milliseconds from its first replica on,
/// if that one came with nothing: time for a spare that looks for its primary once a second at least to find it.
const SETTLES_MS: u64 = 5_000;

impl Roles {
    /// Whether this node begins a group, and has to ask others first: they may hold one that it has forgotten.
    pub(crate) fn is_to_ask(&self) -> bool {
        self.role == Role::Primary && !self.configured.is_empty()
    }

    /// Follows nobody and serves nothing until the others were asked.
    pub(crate) fn begin_asking(&mut self) {
        self.role = Role::Replica;
        self.link = LinkState::Connecting;
        self.founds = true;
    }

    /// Whether it is to begin the group once the others were asked.
    pub(crate) fn founds(&self) -> bool {
        self.founds
    }

    /// Whether it was told to follow, and not to begin a group.
    pub(crate) fn is_plain_follower(&self) -> bool {
        self.is_follower() && !self.founds
    }

    /// It has begun the group, or somebody else holds it.
    pub(crate) fn forgo_founding(&mut self) {
        self.founds = false;
    }

    /// This reign began with nothing, of a group that may be an older one: it yields to whoever holds that.
    pub(crate) fn begin_young(&mut self) {
        self.young = true;
        // They have been asked, and follow by themselves.
        self.unanswered.clear();
    }

    /// Another node has what this one has: what it holds is the group's.
    pub(crate) fn share_items(&mut self) {
        (self.young, self.began_empty) = (false, false);
        (self.settles_ms, self.holder) = (None, None);
    }

    /// A replica has all that this primary has. One that came with nothing says nothing of whose the group's items are: who
    /// holds them may be on its way. But where writes are acknowledged by replicas they are not to be given up any more.
    /// A replica's own replica has what that one has, which says nothing.
    pub(crate) fn is_joined(&mut self, came_with_nothing: bool, now_ms: u64) {
        if self.role != Role::Primary {
            return;
        }
        let may_settle = self.settles_ms.is_none_or(|settles_ms| now_ms >= settles_ms);
        if came_with_nothing && self.young && self.acks_needed == 0 {
            self.share_items();
            self.settles_ms = Some(now_ms.saturating_add(SETTLES_MS));
        } else if !came_with_nothing || may_settle {
            self.share_items();
        }
    }

    /// Whether this node began with nothing, and so lately that one which holds the group's items may come yet.
    pub(crate) fn yields(&self) -> bool {
        self.young || self.settles_ms.is_some()
    }

    /// Whether it has stepped down as one that came up with nothing.
    pub(crate) fn has_yielded(&self) -> bool {
        self.role == Role::Fenced && self.holder.is_some()
    }

    /// The primary of which this replica was copied came up with nothing, and has stepped down for one that holds the group's
    /// items: what this node has is not those.
    pub(crate) fn doubt_items(&mut self) {
        self.young = self.is_follower() && self.has_data;
    }

    /// Another node holds the group's items: if this one does not, it is not promoted before that one is heard of.
    pub(crate) fn note_holder(&mut self, address: &str, listens: bool, seq: Seq) {
        if self.yields() || self.lacks_groups_items() {
            let address = address.to_owned();
            self.holder = Some(Holder { address, listens, seq });
        }
    }

    /// Whom it met that holds the group's items, while this node holds none of them.
    pub(crate) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReplicationConfig;

    #[test]
    fn a_replica_of_its_own_does_not_undo_a_replicas_doubt() {
        let mut roles = Roles::new(&ReplicationConfig::follower().node(1).random_seed(1));
        roles.has_data = true;
        roles.doubt_items();
        roles.is_joined(true, 0);
        roles.is_joined(false, 0);
        assert!(roles.young);
    }
}
