//! Where a node stands in the group's history: terms, branches, the lineage, a position.
//!
//! Lives here: minting terms and branches, and finding the last point that two histories share.
//! Not here: the mutations themselves (see `log`), who may mint (see `roles`).
//!
//! ```text
//!   branch A, term 16        branch B, term 33
//!   start ........ last | gap | start ........ last
//! ```
//! The same (branch, seq) means the same prefix of history on every node.

use crate::mutation::{SEQ_BITS, Version};

/// The place of a mutation in the log.
pub(crate) type Seq = u64;

/// The highest seq before a primary must mint a new term: half of what fits, so that a gap never wraps.
pub(crate) const SEQ_MAX: Seq = 1 << (SEQ_BITS - 1);

/// The longest lineage that is kept and accepted.
pub(crate) const LINEAGE_MAX: usize = 32;

/// The largest jump of rounds that is believed.
pub(crate) const ROUND_JUMP_MAX: u32 = 1024;

/// The widest random gap between the last seq of a branch and the first of the next, in front of which a node that forgot a
/// reign may have written by the same term: so wide that all of them together, one for each round, leave a quarter of the seqs.
const GAP_MAX: u64 = 1 << 26;

/// Likewise in front of the first branch of all: a founder that forgets its group begins it again by the same term, and what it
/// wrote before may still be held. Of two reigns of a billion writes one in some 2000 overlaps.
const FIRST_GAP_MAX: u64 = SEQ_MAX / 2;

/// A primary's reign: `round * 16 + slot`, 20 bits. 0 is the term of a node that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Term(pub(crate) u32);

impl Term {
    /// The highest term; versions hold 20 bits of it.
    pub(crate) const MAX: Term = Term((1 << 20) - 1);

    pub(crate) fn round(self) -> u32 {
        self.0 / 16
    }

    /// The first term above `self` that a node of this slot may mint.
    pub(crate) fn next_for(self, slot: u8) -> Option<Term> {
        let term = Term((self.round() + 1) * 16 + u32::from(slot));
        (term <= Term::MAX).then_some(term)
    }

    /// Whether a peer's term is so far ahead of ours that it is an error or an attack.
    pub(crate) fn is_too_far_above(self, ours: Term) -> bool {
        self > Term::MAX || self.round() > ours.round() + ROUND_JUMP_MAX
    }
}

/// A random name for one stretch of history: minted at each promotion and at each start as primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Branch(pub(crate) u128);

/// One entry of the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineageEntry {
    pub(crate) term: Term,
    pub(crate) branch: Branch,
    /// The first seq that the branch may use.
    pub(crate) start: Seq,
    /// The last seq that it has used, `start - 1` before the first. Grows for the newest entry only.
    pub(crate) last: Seq,
    /// Whether a promotion minted it; else the start of a new group did.
    pub(crate) promoted: bool,
}

/// The last seq of a branch that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) branch: Branch,
    pub(crate) seq: Seq,
}

/// A node's history, oldest branch first.
///
/// 1. At most [`LINEAGE_MAX`] entries; the oldest leave first.
/// 2. Terms rise strictly; `entries[i].last < entries[i + 1].start`.
/// 3. `start - 1 <= last` in each entry, and no seq is above `SEQ_MAX` plus a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    entries: Vec<LineageEntry>,
}

impl Lineage {
    /// Takes entries from a peer; `None` if they break an invariant.
    pub(crate) fn from_entries(entries: Vec<LineageEntry>) -> Option<Lineage> {
        let in_range = |entry: &LineageEntry| {
            entry.term <= Term::MAX
                && entry.start >= 1
                && entry.start <= entry.last.saturating_add(1)
                && entry.last < SEQ_MAX + 2 * GAP_MAX
        };
        let ascending =
            entries.windows(2).all(|pair| pair[0].term < pair[1].term && pair[0].last < pair[1].start);
        (entries.len() <= LINEAGE_MAX && entries.iter().all(in_range) && ascending)
            .then_some(Lineage { entries })
    }

    pub(crate) fn entries(&self) -> &[LineageEntry] {
        &self.entries
    }

    pub(crate) fn newest(&self) -> Option<&LineageEntry> {
        self.entries.last()
    }

    /// The term of the newest branch, 0 without one.
    pub(crate) fn term(&self) -> Term {
        self.newest().map_or(Term::default(), |entry| entry.term)
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.newest().map(|entry| Position { branch: entry.branch, seq: entry.last })
    }

    pub(crate) fn find(&self, branch: Branch) -> Option<&LineageEntry> {
        self.entries.iter().find(|entry| entry.branch == branch)
    }

    /// Whether any branch is in both histories: proof that the other node belongs to this one's group, since a
    /// branch's name is random and told to followers only.
    pub(crate) fn shares_branch_with(&self, other: &Lineage) -> bool {
        self.entries.iter().any(|entry| other.find(entry.branch).is_some())
    }

    /// How far this history goes, by no branch's name: for a peer that has proven nothing.
    pub(crate) fn outline(&self) -> Lineage {
        let newest = self.newest().map(|newest| LineageEntry { branch: Branch(0), ..*newest });
        Lineage { entries: newest.into_iter().collect() }
    }

    /// Whether `position` lies in this history: what was there is here.
    pub(crate) fn contains(&self, position: Position) -> bool {
        self.find(position.branch).is_some_and(|entry| position.seq <= entry.last)
    }

    /// The lowest seq of a position behind which comes no seq below `first`, over gaps and empty branches.
    pub(crate) fn seq_before(&self, first: Seq) -> Seq {
        let used = self.entries.iter().filter(|entry| entry.start <= entry.last && entry.start < first);
        used.map(|entry| entry.last.min(first - 1)).max().unwrap_or(0)
    }

    /// Whether the mutation of this version lies in this history.
    pub(crate) fn contains_version(&self, version: Version) -> bool {
        let (term, seq) = (Term(version.term()), version.seq());
        // A node that forgot a reign of its own can begin another of the same term: behind a gap.
        self.entries.iter().any(|entry| entry.term == term && (entry.start..=entry.last).contains(&seq))
    }

    /// Whether this history has gone on past a version that it does not hold, so that it never will: by a later term, in
    /// a term that has ended, or from a later seq on.
    pub(crate) fn has_passed(&self, version: Version) -> bool {
        let place = (Term(version.term()), version.seq());
        !self.contains_version(version)
            && self.newest().is_some_and(|newest| (newest.term, newest.start) > place)
    }

    /// The last point that two histories share: in their latest common branch, as far as both have it.
    pub(crate) fn last_shared_with(&self, other: &Lineage) -> Option<Position> {
        self.entries.iter().rev().find_map(|ours| {
            let theirs = other.find(ours.branch)?;
            Some(Position { branch: ours.branch, seq: ours.last.min(theirs.last) })
        })
    }

    /// Whether nothing was ever written in this history: whoever holds it has items only of an image, or of part of a copy. A
    /// full lineage may have forgotten.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.entries.len() < LINEAGE_MAX && self.entries.iter().all(|entry| entry.last < entry.start)
    }

    /// How many mutations of another history are not in this one, as far as that one names its branches.
    pub(crate) fn lacks_of(&self, other: &Lineage) -> Seq {
        let lacking = other.entries.iter().map(|theirs| {
            let before = self.find(theirs.branch).map_or(theirs.start - 1, |ours| ours.last);
            theirs.last.saturating_sub(before)
        });
        lacking.sum()
    }

    /// Forgets what came behind `position`, which lies in this history.
    pub(crate) fn truncate_to(&mut self, position: Position) {
        assert!(self.contains(position), "only what was there can be gone back to");
        while let Some(newest) = self.entries.last_mut() {
            if newest.branch == position.branch {
                newest.last = position.seq;
                return;
            }
            self.entries.pop();
        }
    }

    /// Adds a branch that begins after a random gap behind the newest one. `random` is the gap's source.
    pub(crate) fn mint(&mut self, term: Term, branch: Branch, random: u64, promoted: bool) -> LineageEntry {
        let (last, gap_max) = self.newest().map_or((0, FIRST_GAP_MAX), |entry| (entry.last, GAP_MAX));
        // Seqs rise for ever within a lineage, whatever the term: a group ends at SEQ_MAX (8.8e12 mutations, of which its first
        // branch may begin at half).
        let start = last + 2 + random % gap_max;
        self.push(LineageEntry { term, branch, start, last: start - 1, promoted })
    }

    /// Adds the next branch of a history that is being followed.
    pub(crate) fn push(&mut self, entry: LineageEntry) -> LineageEntry {
        assert!(self.newest().is_none_or(|newest| newest.term < entry.term && newest.last < entry.start));
        if self.entries.len() == LINEAGE_MAX {
            self.entries.remove(0);
        }
        self.entries.push(entry);
        entry
    }

    /// Takes the next seq of the newest branch.
    pub(crate) fn advance(&mut self) -> (Seq, Version) {
        let entry = self.entries.last_mut().expect("a log that is written has a branch");
        entry.last += 1;
        (entry.last, Version::new(entry.term.0, entry.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u32, branch: u128, start: Seq, last: Seq) -> LineageEntry {
        LineageEntry { term: Term(term), branch: Branch(branch), start, last, promoted: true }
    }

    #[test]
    fn two_slots_never_mint_the_same_term() {
        let seen = Term(33);
        let minted: Vec<Term> = (0..16).filter_map(|slot| seen.next_for(slot)).collect();
        assert!(minted.iter().all(|term| *term > seen));
        let distinct: std::collections::HashSet<_> = minted.iter().collect();
        assert_eq!(distinct.len(), 16);
        assert_eq!(Term::MAX.next_for(0), None);
    }

    #[test]
    fn a_term_1025_rounds_ahead_is_too_far() {
        assert!(!Term(16 * 1025).is_too_far_above(Term(16)));
        assert!(Term(16 * 1026).is_too_far_above(Term(16)));
        assert!(Term(u32::MAX).is_too_far_above(Term::MAX));
    }

    #[test]
    fn a_position_past_the_end_of_an_old_branch_is_not_contained() {
        let lineage = Lineage::from_entries(vec![entry(16, 1, 1, 100), entry(33, 2, 150, 200)]).unwrap();
        assert!(lineage.contains(Position { branch: Branch(1), seq: 100 }));
        assert!(!lineage.contains(Position { branch: Branch(1), seq: 101 }));
        assert!(!lineage.contains(Position { branch: Branch(3), seq: 1 }));
    }

    #[test]
    fn histories_part_where_the_shorter_one_ends_in_their_latest_common_branch() {
        let of = |entries: &[LineageEntry]| Lineage::from_entries(entries.to_vec()).unwrap();
        let old = of(&[entry(16, 1, 1, 120)]);
        let new = of(&[entry(16, 1, 1, 100), entry(33, 2, 150, 200)]);
        let e = Position { branch: Branch(1), seq: 100 };
        assert_eq!((old.last_shared_with(&new), new.last_shared_with(&old)), (Some(e), Some(e)));
        let other = of(&[entry(16, 1, 1, 100), entry(33, 2, 150, 170), entry(48, 4, 180, 180)]);
        assert_eq!(new.last_shared_with(&other), Some(Position { branch: Branch(2), seq: 170 }));
        assert_eq!(new.last_shared_with(&of(&[entry(16, 9, 1, 100)])), None);
    }

    #[test]
    fn a_history_cut_back_ends_there_and_goes_on_from_there() {
        let mut lineage = Lineage::from_entries(vec![entry(16, 1, 1, 100), entry(33, 2, 150, 200)]).unwrap();
        let e = Position { branch: Branch(1), seq: 60 };
        lineage.truncate_to(e);
        assert_eq!(lineage.position(), Some(e));
        assert!(
            !lineage.contains_version(Version::new(16, 61)) && lineage.contains_version(Version::new(16, 60))
        );
        assert_eq!(lineage.push(entry(49, 3, 61, 60)).start, 61);
    }

    #[test]
    fn the_seq_before_one_lies_over_gaps_and_empty_branches() {
        let lineage =
            Lineage::from_entries(vec![entry(16, 1, 5, 100), entry(33, 2, 150, 149), entry(49, 3, 170, 180)])
                .unwrap();
        let before = [5, 6, 101, 150, 170, 171, 181].map(|first| lineage.seq_before(first));
        assert_eq!(before, [0, 5, 100, 100, 100, 170, 180]);
    }

    #[test]
    fn hostile_lineages_are_refused() {
        assert!(Lineage::from_entries(vec![entry(33, 1, 1, 100), entry(16, 2, 150, 200)]).is_none());
        assert!(Lineage::from_entries(vec![entry(16, 1, 1, 100), entry(33, 2, 100, 200)]).is_none());
        assert!(Lineage::from_entries(vec![entry(16, 1, 0, 100)]).is_none());
        assert!(Lineage::from_entries(vec![entry(16, 1, 1, u64::MAX)]).is_none());
        assert!(Lineage::from_entries(vec![entry(1 << 20, 1, 1, 1)]).is_none());
    }

    #[test]
    fn a_version_is_held_to_come_or_passed() {
        let lineage = Lineage::from_entries(vec![entry(16, 1, 5, 100), entry(48, 2, 150, 149)]).unwrap();
        let standing = |term, seq| {
            let version = Version::new(term, seq);
            (lineage.contains_version(version), lineage.has_passed(version))
        };
        assert_eq!((standing(16, 100), standing(16, 101)), ((true, false), (false, true)));
        assert_eq!((standing(48, 150), standing(64, 150)), ((false, false), (false, false)));
        assert_eq!(standing(33, 120), (false, true), "a reign that this history never saw");
        assert_eq!(standing(16, 4), (false, true), "an earlier reign of that term, which was forgotten");
        assert_eq!(standing(48, 149), (false, true), "likewise");
    }

    #[test]
    fn a_minted_branch_begins_behind_a_gap() {
        let mut lineage = Lineage::from_entries(vec![entry(16, 1, 1, 100)]).unwrap();
        let minted = lineage.mint(Term(33), Branch(2), 7, true);
        assert_eq!(minted.start, 109);
        assert_eq!(lineage.advance(), (109, Version::new(33, 109)));
    }

    /// A founder that forgot mints the same term once more.
    #[test]
    fn two_first_branches_of_a_million_writes_each_have_no_seq_in_common() {
        let first = |random| Lineage::default().mint(Term(16), Branch(1), random, false).start;
        // What a generator of random numbers gives, 64 bits each.
        let mut starts: Vec<Seq> =
            (1..100).map(|n: u64| first(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] > 1_000_000), "{starts:?}");
        assert!(first(u64::MAX) < SEQ_MAX / 2 + 2 && first(0) == 2);
    }
}
