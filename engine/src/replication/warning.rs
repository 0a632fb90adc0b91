//! What an operator should look at, and what was noticed of other nodes to say so.
//!
//! Lives here: the words, what a reign or its end has brought up, and the judgement of ack modes. Not here: who notices (see
//! `driver`), what a node knows of its own part (see `roles`).

use std::fmt;

use super::acks::AckMode;
use super::lease::LeaseState;
use super::position::{Lineage, Seq, Term};
use super::roles::PEERS_MAX;
use super::status::{Role, Status};

/// Something about a node's part in its group that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// This node does not listen for replication, so nobody can follow it once it is promoted, and an old primary that it
    /// fences serves nothing.
    NoListener,
    /// This node was told to follow one that has not answered; meanwhile it follows whichever node that it knows is primary.
    NotFound {
        /// Where it was told that one listens for replication.
        address: String,
    },
    /// This node came up with nothing, and has met one that holds the group's items: it serves nothing for that one's sake.
    CameUpEmpty {
        /// Where that one listens for replication, or dialled from.
        address: String,
        /// The sequence number of the last mutation that it had heard of.
        seq: u64,
        /// Whether it listens for replication: else it can't be followed.
        listens: bool,
    },
    /// The primary of this node came up with nothing, and serves nothing for the sake of what this node holds.
    PrimaryForgot {
        /// Where that one listens for replication.
        address: String,
    },
    /// This node holds nothing, and of the nodes that it knows none reigns.
    NobodyReigns {
        /// What an operator types to promote this node, if it was told
        /// ([`ReplicationConfig::promote_command`](crate::ReplicationConfig::promote_command)).
        command: Option<String>,
    },
    /// This node was the primary and is no longer, and there is none that it knows where to follow.
    NobodyToFollow {
        /// The newest term that it has believed.
        term: u32,
        /// Whether one reigns that does not listen for replication.
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
    /// A node held writes that this one lacks, from before this one was promoted or until that one heard of it; it drops them as it
    /// follows.
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
    /// This primary refuses writes, since too few replicas are level for its ack mode.
    WritesRefused {
        /// What a write waits for.
        mode: AckMode,
        /// How many replicas are attached.
        attached: usize,
        /// How many of them are level.
        level: u8,
        /// How many of them came up with nothing, and do not count before others have confirmed them.
        uncounted: usize,
        /// Whether reads are misses as well, for want of a lease.
        reads_miss: bool,
    },
    /// This primary refuses writes, since each attached replica lacks more of them than its budget says.
    OverBudget {
        /// How many replicas are attached.
        attached: usize,
    },
    /// Values were stored here that replicas can't be sent: there their keys are absent.
    OversizedRecords {
        /// How many, since this node started.
        records: u64,
        /// The largest item that replicas can be sent, in bytes.
        item_bytes_max: u64,
        /// The size of a log that carries every item, in bytes; `None` if a frame carries no more, whatever the log.
        sufficient_log_bytes: Option<u64>,
    },
    /// Another node of the group goes by another ack mode.
    AckModesDiffer {
        /// What a write waits for here.
        ours: AckMode,
        /// What it waits for there.
        theirs: AckMode,
        /// Where the other node listens for replication, or dialled from; "the primary" if that is not known.
        address: String,
    },
}

impl Warning {
    /// Whether it tells of something that has happened, and lasts no longer: it stays until the node's role changes.
    pub fn is_past(&self) -> bool {
        matches!(self, Warning::HeldMore { .. } | Warning::OversizedRecords { .. })
    }

    /// That a peer goes by another mode; `None` if it does not.
    pub(crate) fn of_modes(ours: AckMode, theirs: AckMode, address: &str) -> Option<Warning> {
        let address = address.to_owned();
        (ours != theirs).then_some(Warning::AckModesDiffer { ours, theirs, address })
    }

    /// What is wrong with ack modes, as far as this status tells. It says what is so now: whether that lasts, only asking
    /// again tells.
    pub(crate) fn of_acks(status: &Status) -> Vec<Warning> {
        let (ours, level) = (status.ack_mode, status.level_replicas);
        let is_short = status.role == Role::Primary && level < ours.replicas();
        let refused = is_short.then(|| Warning::WritesRefused {
            mode: ours,
            attached: status.replicas.len(),
            level,
            uncounted: status.replicas.iter().filter(|replica| !replica.counts).count(),
            reads_miss: status.lease.state == LeaseState::Over,
        });
        let is_over = status.role == Role::Primary && status.within_budget == Some(false);
        let over = is_over.then_some(Warning::OverBudget { attached: status.replicas.len() });
        let replicas = status.replicas.iter().map(|replica| (&*replica.address, replica.ack_mode));
        let above = status.primary.as_deref().unwrap_or("the primary");
        let modes = replicas.chain([(above, status.primary_ack_mode)]);
        let differ = modes.filter_map(|(address, theirs)| Warning::of_modes(ours, theirs?, address));
        refused.into_iter().chain(over).chain(differ).collect()
    }
}

/// So many of them, in words.
fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

impl Warning {
    fn write_of_nobody(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NobodyToFollow { term, no_listener: true } => write!(
                f,
                "fenced: a node without --replication-listen reigns by term {term}, which can't be followed: this node serves \
                 nothing until that one is started anew with it"
            ),
            Warning::NobodyToFollow { term, no_listener: false } => write!(
                f,
                "fenced: this node stepped down at term {term}, and knows no primary: if one reigns, name it (follow); if none \
                 does, promote the node that holds most"
            ),
            Warning::NobodyReigns { command } => write!(
                f,
                "this node holds nothing, and no node that it knows is the primary: if one holds the group's items, promote that \
                 one; if none does, begin the group on one node: promote it{}, or give it --bootstrap at its first start",
                command.as_ref().map_or(String::new(), |command| format!(" (this one: {command})"))
            ),
            Warning::NotFound { address } => write!(
                f,
                "told to follow {address}, where no node has answered yet: this one looks there and at the others that it knows, and \
                 follows whichever is primary"
            ),
            _ => Ok(()),
        }
    }

    fn write_of_acks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::WritesRefused { mode, attached, level, uncounted, reads_miss } => {
                write!(
                    f,
                    "writes are refused{}: the ack mode {mode} needs {}, and of {attached} attached {level} {} level; ",
                    if *reads_miss { ", and reads are misses" } else { "" },
                    count(mode.replicas().into(), "level replica"),
                    if *level == 1 { "is" } else { "are" }
                )?;
                match uncounted {
                    0 => write!(f, "attach more, or set another mode (hotspare ack MODE)"),
                    _ => write!(
                        f,
                        "{uncounted} came up with nothing and count once other nodes have confirmed that; if those are gone, \
                         hotspare ack {mode} at this node counts whoever is attached"
                    ),
                }
            }
            Warning::OverBudget { attached } => write!(
                f,
                "writes are refused: of {} none lacks as little as the budget says (--max-unacked-ms, --max-unacked-bytes); attach \
                 one, or lift the budget until the next start (hotspare ack async)",
                count(*attached as u64, "attached replica")
            ),
            Warning::AckModesDiffer { ours, theirs, address } => write!(
                f,
                "the ack mode here is {ours}, and {theirs} at {address}: whoever is promoted goes by its own; give every node the \
                 same --ack"
            ),
            _ => Ok(()),
        }
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
            Warning::CameUpEmpty { address, seq, listens: true } => write!(
                f,
                "this node came up with nothing and serves nothing: {address} holds the group's items, up to seq {seq}; \
                 promote that one, and this one follows it"
            ),
            Warning::CameUpEmpty { address, seq, listens: false } => write!(
                f,
                "this node came up with nothing and serves nothing: a node without --replication-listen, seen at {address}, \
                 holds the group's items, up to seq {seq}; promote that one; to be followed it has to listen"
            ),
            Warning::PrimaryForgot { address } => write!(
                f,
                "the primary at {address} came up with nothing and serves nothing, so that what this node holds stays: promote \
                 this node"
            ),
            Warning::Untold { addresses } => write!(
                f,
                "not yet told that this node is the primary: {}; an old primary there may still reign. If {} gone for good: \
                 hotspare forget {}",
                addresses.join(", "),
                if addresses.len() == 1 { "that one is" } else { "one of them is" },
                if let [only] = &addresses[..] { only } else { "ADDRESS" },
            ),
            Warning::Rival { address, term } => write!(
                f,
                "{address} says that it is the primary as well, by term {term}; have one of the two follow the other (follow --force)"
            ),
            Warning::HeldMore { address, seqs } => write!(
                f,
                "{address} held {} that this node lacks: from before this node was promoted, or taken before that one heard of it; as it follows \
                 it drops {}",
                count(*seqs, "write"),
                if *seqs == 1 { "it" } else { "them" }
            ),
            Warning::CopyRefused { address } => write!(
                f,
                "the primary at {address} has a history of its own and not what this node holds, which keeps it; have that one \
                 follow this node (follow --force) and promote this one, or promote that one by force, and this node's items \
                 are replaced"
            ),
            Warning::OversizedRecords { records, item_bytes_max, sufficient_log_bytes } => write!(
                f,
                "{} too large to be sent to replicas, which lack them, at least until they are read: an item may have \
                 {item_bytes_max} bytes; {}",
                match records {
                    1 => "a value was".to_owned(),
                    more => format!("{more} values were"),
                },
                match sufficient_log_bytes {
                    Some(bytes) =>
                        format!("raise --log-bytes to {bytes}, or lower the largest item (-I) to that"),
                    None => "lower the largest item (-I) to that".to_owned(),
                }
            ),
            Warning::NobodyToFollow { .. } | Warning::NobodyReigns { .. } | Warning::NotFound { .. } => {
                self.write_of_nobody(f)
            }
            Warning::WritesRefused { .. } | Warning::OverBudget { .. } | Warning::AckModesDiffer { .. } => {
                self.write_of_acks(f)
            }
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
    /// The primary of which this node refuses to be copied, and whether both have proven who they are.
    copy_refused: Option<(String, bool)>,
    /// The primary that came up with nothing.
    pub(crate) forgot: Option<String>,
    /// All nodes that this one knows were asked, and none that answered reigns.
    pub(crate) nobody_reigns: bool,
}

impl Noticed {
    /// Another node reigns, by its own word; whether that is news.
    pub(crate) fn rival(&mut self, address: &str, term: Term) -> bool {
        let is_known = self.rivals.iter().any(|(known, by)| known == address && *by == term);
        note(&mut self.rivals, address, term);
        !is_known
    }

    /// It does not any more.
    pub(crate) fn no_rival(&mut self, address: &str) {
        self.rivals.retain(|(rival, _)| rival != address);
    }

    /// This node refuses to be copied from a primary.
    pub(crate) fn refuses_copy_of(&mut self, address: &str, is_proven: bool) {
        self.copy_refused = Some((address.to_owned(), is_proven));
    }

    /// This peer says that it is no primary.
    pub(crate) fn reigns_no_longer(&mut self, address: &str) {
        self.copy_refused = self.copy_refused.take().filter(|(refused, _)| refused != address);
    }

    /// A primary of another history to which this node can prove nothing: it would reign on beside it.
    pub(crate) fn rival_to_ask(&self) -> Option<&str> {
        self.copy_refused.as_ref().filter(|(_, is_proven)| !is_proven).map(|(address, _)| &**address)
    }

    /// A peer named its history, to this primary of that one.
    pub(crate) fn history(&mut self, address: &str, ours: &Lineage, theirs: &Lineage) {
        let seqs = ours.lacks_of(theirs);
        if seqs > 0 && !self.held_more.iter().any(|(known, _)| known == address) {
            tracing::warn!(peer = address, seqs, "it held writes that this node lacks");
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
            self.copy_refused.iter().map(|(address, _)| Warning::CopyRefused { address: address.clone() });
        let forgot = self.forgot.iter().map(|address| Warning::PrimaryForgot { address: address.clone() });
        rivals.chain(held_more).chain(refused).chain(forgot)
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
    fn a_primary_that_refuses_writes_and_unlike_modes_are_told_of_and_nothing_else() {
        let semi_sync = |replicas| AckMode::SemiSync { replicas };
        let primary = |mode| Status { role: Role::Primary, ack_mode: mode, ..Status::standalone() };
        let told = |status: &Status| -> Vec<String> {
            Warning::of_acks(status).iter().map(Warning::to_string).collect()
        };
        assert_eq!(told(&Status::standalone()), Vec::<String>::new());
        assert_eq!(told(&primary(AckMode::Async)), Vec::<String>::new());
        let level = Status { level_replicas: 2, ..primary(semi_sync(2)) };
        assert_eq!(told(&level), Vec::<String>::new());
        let short = told(&Status { level_replicas: 1, ..primary(semi_sync(9)) });
        assert!(
            matches!(&*short, [only] if only.contains("semi-sync:9 needs 9 level replicas, and of 0 attached 1 is level")),
            "{short:?}"
        );
        let over = told(&Status { within_budget: Some(false), ..primary(AckMode::Async) });
        assert!(matches!(&*over, [only] if only.contains("of 0 attached replicas none lacks")), "{over:?}");
        assert_eq!(
            told(&Status { within_budget: Some(true), ..primary(AckMode::Async) }),
            Vec::<String>::new()
        );
        let replica = Status { role: Role::Replica, ack_mode: semi_sync(9), ..Status::standalone() };
        assert_eq!(told(&Status { within_budget: Some(false), ..replica.clone() }), Vec::<String>::new());
        assert_eq!(told(&replica), Vec::<String>::new());
        let strict = AckMode::Strict { replicas: 1 };
        let unlike = told(&Status { primary_ack_mode: Some(strict), ..replica });
        assert!(
            matches!(&*unlike, [only] if only.contains("semi-sync:9, and strict:1 at the primary")),
            "{unlike:?}"
        );
    }

    #[test]
    fn one_write_is_no_writes() {
        let held = |seqs| Warning::HeldMore { address: "b".to_owned(), seqs }.to_string();
        assert!(held(1).contains("b held 1 write that") && held(1).ends_with("drops it"), "{}", held(1));
        assert!(held(2).contains("b held 2 writes that") && held(2).ends_with("drops them"), "{}", held(2));
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
