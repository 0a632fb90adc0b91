//! What an operator should look at, and what was noticed of other nodes to say so.
//!
//! Lives here: the words, and what a reign or its end has brought up. Not here: who notices (see `driver`).

use std::fmt;

use super::position::{Lineage, Seq, Term};
use super::roles::PEERS_MAX;

/// Something about a node's part in its group that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// This node does not listen for replication, so nobody can follow it once it is promoted, and an old primary that it
    /// fences serves nothing.
    NoListener,
    /// This node was the primary, another one is, and there is none that it knows where to follow.
    NobodyToFollow {
        /// The newest term that it has believed.
        term: u32,
        /// Whether the one that reigns does not listen for replication.
        no_listener: bool,
    },
    /// Nodes that have not heard yet that this one is the primary: if an old primary is among them it may still reign.
    Untold {
        /// Where they listen for replication.
        addresses: Vec<String>,
    },
    /// Another node says that it is the primary as well.
    Rival {
        /// Where it listens for replication, or dialled from.
        address: String,
        /// The term by which it reigns.
        term: u32,
    },
    /// A node held more of the group's writes than this one when this one was promoted; whoever follows it drops them.
    HeldMore {
        /// Where it listens for replication.
        address: String,
        /// How many mutations, about.
        seqs: u64,
    },
    /// This node holds items, and refuses to have them replaced by what a primary holds that has none of them.
    CopyRefused {
        /// Where that primary listens for replication.
        address: String,
    },
}

impl Warning {
    /// Whether it tells of something that has happened, and lasts no longer: it stays until the node's role changes.
    pub fn is_past(&self) -> bool {
        matches!(self, Warning::HeldMore { .. })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NoListener => write!(
                f,
                "this node has no --replication-listen: once it is promoted nobody can follow it, and an old primary that \
                 it fences serves nothing"
            ),
            Warning::NobodyToFollow { term, no_listener: true } => write!(
                f,
                "fenced: a node without --replication-listen reigns by term {term}, which can't be followed: this node serves \
                 nothing until that one is started anew with it"
            ),
            Warning::NobodyToFollow { term, no_listener: false } => write!(
                f,
                "fenced: another node reigns by term {term}, or was to, and where is not known; name it (follow), or \
                 promote a node"
            ),
            Warning::Untold { addresses } => write!(
                f,
                "not yet told that this node is the primary: {}; an old primary there may still reign",
                addresses.join(", ")
            ),
            Warning::Rival { address, term } => write!(
                f,
                "{address} says that it is the primary as well, by term {term}; have one of the two follow the other (follow --force)"
            ),
            Warning::HeldMore { address, seqs } => write!(
                f,
                "{address} held {seqs} writes that this node lacked when it was promoted; whoever follows it drops them"
            ),
            Warning::CopyRefused { address } => write!(
                f,
                "the primary at {address} has less than this node, which keeps what it holds; promote this node, or \
                 promote that one by force"
            ),
        }
    }
}

/// What this node noticed of others since its role changed last. Each list is as long as the list of peers at most.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// The node that fenced this one does not listen.
    pub(crate) fenced_by_deaf: bool,
    rivals: Vec<(String, Term)>,
    held_more: Vec<(String, Seq)>,
    pub(crate) copy_refused: Option<String>,
}

impl Noticed {
    /// Another node reigns, by its own word.
    pub(crate) fn rival(&mut self, address: &str, term: Term) {
        note(&mut self.rivals, address, term);
    }

    /// It does not any more.
    pub(crate) fn no_rival(&mut self, address: &str) {
        self.rivals.retain(|(rival, _)| rival != address);
    }

    /// A peer named its history, to this primary of that one.
    pub(crate) fn history(&mut self, address: &str, ours: &Lineage, theirs: &Lineage) {
        let seqs = ours.lacks_of(theirs);
        if seqs > 0 && !self.held_more.iter().any(|(known, _)| known == address) {
            tracing::warn!(peer = address, seqs, "it held writes that this node lacked when it was promoted");
            note(&mut self.held_more, address, seqs);
        }
    }

    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let rivals = self
            .rivals
            .iter()
            .map(|(address, term)| Warning::Rival { address: address.clone(), term: term.0 });
        let held_more = self.held_more.iter();
        let held_more =
            held_more.map(|(address, seqs)| Warning::HeldMore { address: address.clone(), seqs: *seqs });
        let refused =
            self.copy_refused.iter().map(|address| Warning::CopyRefused { address: address.clone() });
        rivals.chain(held_more).chain(refused)
    }
}

/// The last word of each peer counts.
fn note<T>(list: &mut Vec<(String, T)>, address: &str, what: T) {
    list.retain(|(known, _)| known != address);
    if list.len() < PEERS_MAX {
        list.push((address.to_owned(), what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::position::Branch;

    #[test]
    fn each_peer_counts_once_and_there_are_no_more_of_them_than_peers() {
        let mut noticed = Noticed::default();
        for peer in 0..100 {
            noticed.rival(&format!("peer{}", peer % 20), Term(16 + peer));
        }
        assert_eq!(noticed.warnings().count(), PEERS_MAX);
        noticed.no_rival("peer15");
        assert_eq!(noticed.warnings().count(), PEERS_MAX - 1);
    }

    #[test]
    fn what_a_peer_held_beyond_the_common_point_is_counted() {
        let mut old = Lineage::default();
        old.mint(Term(16), Branch(1), 0, false);
        let mut new = old.clone();
        (0..7).for_each(|_| assert!(old.advance().0 > 0));
        (0..4).for_each(|_| assert!(new.advance().0 > 0));
        new.mint(Term(33), Branch(2), 9, true);
        assert_eq!(new.lacks_of(&old), 3);
        assert_eq!(old.lacks_of(&old), 0);
        old.mint(Term(50), Branch(3), 9, true);
        old.advance();
        assert_eq!(new.lacks_of(&old), 4, "a reign of its own besides");
        let mut noticed = Noticed::default();
        noticed.history("old", &new, &old);
        assert_eq!(
            noticed.warnings().collect::<Vec<_>>(),
            [Warning::HeldMore { address: "old".into(), seqs: 4 }]
        );
    }
}
