//! What a listener makes of a peer's first frame.
//!
//! Lives here: one pure function from what both nodes are to a verdict. Not here: carrying it out (see `driver`).
//!
//! The rule against impostors and strays: a higher term is believed only from a peer that proved itself, whether by
//! the transport or by naming a branch that only this node's own followers can know, or by a node that has nothing
//! to lose.

use super::bug::Bug;
use super::cascade;
use super::frame::VERSION;
use super::hello::{Hello, Purpose};
use super::message::RejectCode;
use super::position::{Lineage, Term};
use super::roles::Roles;
use super::status::Role;

/// What to do with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ship it the log.
    Attach,
    /// Reign by a term above its own, then ship it the log: both nodes forgot, and this one began anew.
    Outgrow,
    /// Refuse, with the reason.
    Reject(RejectCode),
    /// It is a primary by a newer term: follow it, and confirm.
    Follow,
    /// It follows a newer term, so this node reigns no longer; who does is not known.
    StepDown,
    /// It is the primary that this node knows of: confirm.
    AlreadyKnown,
    /// It believes itself primary by a term that has passed: tell it.
    Fence,
    /// It may be promoted: tell it where this node stands.
    Stand,
    /// Likewise, but it has proven nothing: by no branch's name.
    Outline,
    /// Likewise, once this node follows nobody below its term.
    Promise,
    /// Ship it the log, though this node is no primary.
    Help,
}

/// Whether `theirs` may be believed to be a term of this group.
pub(crate) fn is_proven(peer_is_proven: bool, roles: &Roles, ours: &Lineage, theirs: &Lineage) -> bool {
    let nothing_to_lose = roles.is_follower() && !roles.has_data && roles.term_seen == Term::default();
    peer_is_proven || ours.shares_branch_with(theirs) || nothing_to_lose
}

/// Judges a peer that dialled.
pub(crate) fn judge(hello: &Hello, peer_is_proven: bool, roles: &Roles, lineage: &Lineage) -> Verdict {
    if hello.version != VERSION {
        return Verdict::Reject(RejectCode::UnsupportedVersion);
    }
    if hello.group != roles.group {
        return Verdict::Reject(RejectCode::WrongGroup);
    }
    if hello.node == roles.node {
        return Verdict::Reject(RejectCode::SameNode);
    }
    // An announcement needs no slot: the announcer has minted its term already.
    if hello.slot == roles.slot && hello.purpose == Purpose::Follow && roles.role() == Role::Primary {
        return Verdict::Reject(RejectCode::DuplicateSlot);
    }
    let ours = roles.term_seen;
    if hello.term_seen > Term::MAX || (ours > Term::default() && hello.term_seen.is_too_far_above(ours)) {
        return Verdict::Reject(RejectCode::TermTooFar);
    }
    let proven = is_proven(peer_is_proven, roles, lineage, &hello.lineage);
    match hello.purpose {
        Purpose::Announce => judge_announcement(hello, proven, roles),
        Purpose::Follow => judge_follower(hello, proven, roles, lineage),
        // One that holds nothing can name no branch. It hears no more than that others would lose something by it.
        Purpose::Ask if !proven && hello.position.is_none() => Verdict::Outline,
        Purpose::Ask | Purpose::Promise | Purpose::CatchUp if !proven => {
            Verdict::Reject(RejectCode::UnprovenTerm)
        }
        Purpose::Ask => Verdict::Stand,
        Purpose::Promise if hello.term_seen > roles.term_seen => Verdict::Promise,
        Purpose::Promise => Verdict::Stand,
        // It has promised that to the dialler, and so its log stands still.
        Purpose::CatchUp if roles.is_follower() && roles.has_data && hello.term_seen == roles.term_seen => {
            Verdict::Help
        }
        Purpose::CatchUp => Verdict::Reject(RejectCode::NotPrimary),
    }
}

fn judge_announcement(hello: &Hello, proven: bool, roles: &Roles) -> Verdict {
    // A primary's highest term is its own. It may name no address: then it fences, and can't be followed.
    if hello.lineage.term() != hello.term_seen {
        return Verdict::Reject(RejectCode::UnprovenTerm);
    }
    match hello.term_seen.cmp(&roles.term_seen) {
        std::cmp::Ordering::Less => Verdict::Fence,
        std::cmp::Ordering::Equal if roles.is_follower() => Verdict::AlreadyKnown,
        std::cmp::Ordering::Equal => Verdict::Reject(RejectCode::DuplicateSlot),
        std::cmp::Ordering::Greater if proven || roles.yields() => Verdict::Follow,
        std::cmp::Ordering::Greater => Verdict::Reject(RejectCode::UnprovenTerm),
    }
}

fn judge_follower(hello: &Hello, proven: bool, roles: &Roles, lineage: &Lineage) -> Verdict {
    match roles.role() {
        Role::Primary => {}
        Role::Replica => {
            return cascade::may_take(hello, roles, lineage)
                .map_or_else(Verdict::Reject, |()| Verdict::Attach);
        }
        Role::Fenced | Role::Standalone => return Verdict::Reject(RejectCode::NotPrimary),
    }
    // A primary that began empty, and a peer that holds the group's items: this node is the one that forgot.
    let holds = hello.position.is_some() && !hello.lineage.is_unwritten();
    let forgot = roles.yields() && holds && !lineage.shares_branch_with(&hello.lineage);
    // This reign's term says nothing of what others hold, but for the slot in it or where it is above one that was heard of:
    // what counts is that the other one's would be above it.
    let next = hello.term_seen.next_for(hello.slot);
    if forgot && (hello.term_seen >= roles.term_seen || next.is_some_and(|next| next > roles.term_seen)) {
        return Verdict::StepDown;
    }
    match hello.term_seen > roles.term_seen && !roles.bugs.has(Bug::LowerTerm) {
        false => Verdict::Attach,
        true if roles.young && hello.position.is_none() => Verdict::Outgrow,
        true if proven => Verdict::StepDown,
        true => Verdict::Reject(RejectCode::UnprovenTerm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReplicationConfig;
    use crate::replication::position::{Branch, Position};

    fn lineage(entries: &[(u32, u128)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (term, branch) in entries {
            lineage.mint(Term(*term), Branch(*branch), 0, true);
            lineage.advance();
        }
        lineage
    }

    /// A primary of term 16 on branch 7, to which a replica has attached.
    fn primary() -> (Roles, Lineage) {
        let mut roles = Roles::new(&ReplicationConfig::primary().node(1).random_seed(1));
        roles.begin_as_primary();
        roles.young = false;
        (roles, lineage(&[(16, 7)]))
    }

    fn hello(roles: &Roles, purpose: Purpose, entries: &[(u32, u128)]) -> Hello {
        let lineage = lineage(entries);
        let mut peer = Roles::new(&ReplicationConfig::follower().node(2).slot(3).random_seed(2));
        peer.has_data = true;
        peer.term_seen = lineage.term();
        peer.set_own_address("peer".to_owned());
        peer.group = roles.group;
        peer.hello(purpose, &lineage, lineage.position(), 1 << 20, 0)
    }

    #[test]
    fn a_follower_of_this_term_or_an_older_one_is_attached() {
        let (roles, ours) = primary();
        assert_eq!(judge(&hello(&roles, Purpose::Follow, &[(16, 7)]), false, &roles, &ours), Verdict::Attach);
        assert_eq!(judge(&hello(&roles, Purpose::Follow, &[]), false, &roles, &ours), Verdict::Attach);
    }

    #[test]
    fn a_term_from_a_peer_that_has_proven_nothing_never_fences() {
        let (roles, ours) = primary();
        for purpose in [Purpose::Follow, Purpose::Announce] {
            let stray = hello(&roles, purpose, &[(35, 99)]);
            assert_eq!(judge(&stray, false, &roles, &ours), Verdict::Reject(RejectCode::UnprovenTerm));
        }
        let far = hello(&roles, Purpose::Announce, &[(16, 7), (16 * 2000, 99)]);
        assert_eq!(judge(&far, true, &roles, &ours), Verdict::Reject(RejectCode::TermTooFar));
    }

    #[test]
    fn a_promoted_follower_fences_and_is_followed() {
        let (roles, ours) = primary();
        let promoted = hello(&roles, Purpose::Announce, &[(16, 7), (35, 8)]);
        assert_eq!(judge(&promoted, false, &roles, &ours), Verdict::Follow);
        let its_follower = hello(&roles, Purpose::Follow, &[(16, 7), (35, 8)]);
        assert_eq!(judge(&its_follower, false, &roles, &ours), Verdict::StepDown);
        let by_secret = hello(&roles, Purpose::Announce, &[(35, 8)]);
        assert_eq!(judge(&by_secret, true, &roles, &ours), Verdict::Follow);
    }

    #[test]
    fn a_promoted_node_that_does_not_listen_fences_all_the_same() {
        let (roles, ours) = primary();
        let promoted = hello(&roles, Purpose::Announce, &[(16, 7), (35, 8)]);
        let deaf = Hello { address: String::new(), ..promoted };
        assert_eq!(judge(&deaf, false, &roles, &ours), Verdict::Follow);
    }

    #[test]
    fn who_holds_nothing_may_ask_unproven_and_hears_no_branch() {
        let (roles, ours) = primary();
        let mut asks = hello(&roles, Purpose::Ask, &[]);
        assert_eq!(judge(&asks, false, &roles, &ours), Verdict::Outline);
        assert_eq!(judge(&asks, true, &roles, &ours), Verdict::Stand);
        asks.purpose = Purpose::Promise;
        assert_eq!(judge(&asks, false, &roles, &ours), Verdict::Reject(RejectCode::UnprovenTerm));
        let stranger = hello(&roles, Purpose::Ask, &[(16, 99)]);
        assert_eq!(judge(&stranger, false, &roles, &ours), Verdict::Reject(RejectCode::UnprovenTerm));
        let told = ours.outline();
        assert_eq!(
            (told.position().map(|position| position.seq), told.term()),
            (ours.position().map(|position| position.seq), Term(16))
        );
        assert!(!told.shares_branch_with(&ours));
    }

    #[test]
    fn a_primary_that_began_empty_yields_to_whoever_holds_the_items() {
        let (mut roles, ours) = primary();
        roles.young = true;
        let holder = hello(&roles, Purpose::Follow, &[(16, 99)]);
        assert_eq!(judge(&holder, false, &roles, &ours), Verdict::StepDown);
        let mut unwritten = Lineage::default();
        unwritten.mint(Term(16), Branch(99), 0, false);
        let bare = Hello { lineage: unwritten, ..holder.clone() };
        assert_eq!(judge(&bare, false, &roles, &ours), Verdict::Attach, "it holds nothing either");
        let empty = Hello { position: None, ..holder };
        assert_eq!(judge(&empty, false, &roles, &ours), Verdict::Attach);
        let half_copied = Hello { term_seen: Term(50), ..empty };
        assert_eq!(judge(&half_copied, false, &roles, &ours), Verdict::Outgrow);
        roles.young = false;
        assert_eq!(judge(&half_copied, false, &roles, &ours), Verdict::Reject(RejectCode::UnprovenTerm));
    }

    #[test]
    fn a_founder_yields_whatever_slot_its_term_is_of_but_not_to_a_reign_before_one_that_it_has_heard_of() {
        let (mut roles, ours) = primary();
        (roles.young, roles.term_seen) = (true, Term(31));
        let holder = hello(&roles, Purpose::Follow, &[(16, 99)]);
        assert_eq!(judge(&holder, false, &roles, &ours), Verdict::StepDown);
        // It has outgrown term 33 by that of the third round.
        roles.term_seen = Term(48);
        assert_eq!(judge(&holder, false, &roles, &ours), Verdict::Attach);
    }

    #[test]
    fn an_announcement_of_a_passed_term_is_answered_with_the_newer_one() {
        let (mut roles, ours) = primary();
        roles.term_seen = Term(50);
        let late = hello(&roles, Purpose::Announce, &[(35, 8)]);
        assert_eq!(judge(&late, true, &roles, &ours), Verdict::Fence);
    }

    #[test]
    fn strangers_are_refused_with_the_reason() {
        let (roles, ours) = primary();
        let good = hello(&roles, Purpose::Follow, &[]);
        let cases = [
            (Hello { version: 9, ..good.clone() }, RejectCode::UnsupportedVersion),
            (Hello { group: 0, ..good.clone() }, RejectCode::WrongGroup),
            (Hello { node: 1, ..good.clone() }, RejectCode::SameNode),
            (Hello { slot: 0, ..good.clone() }, RejectCode::DuplicateSlot),
        ];
        for (bad, code) in cases {
            assert_eq!(judge(&bad, true, &roles, &ours), Verdict::Reject(code));
        }
        let position = Some(Position { branch: Branch(1), seq: 1 });
        let mut follower = Roles::new(&ReplicationConfig::follower().node(5).slot(5));
        follower.group = roles.group;
        let asks = Hello { position, ..good };
        assert_eq!(judge(&asks, true, &follower, &ours), Verdict::Reject(RejectCode::NotPrimary));
    }
}
