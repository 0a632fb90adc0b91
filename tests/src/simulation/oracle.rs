//! What must hold in a simulated group, told from what primaries answered.
//!
//! Lives here: the properties P1 to P3, P5, P7, P10 and P11 of the replication design, as checks of one node at a time
//! against everything that was ever answered. Not here: faults (see `simulation`).
//!
//! The main check: a node's items are exactly what the answered mutations of its own history, up to its own position,
//! come to. From it follow P2 (a position claims nothing that was not applied), P3 (two nodes at one position agree)
//! and P7 (what a promotion loses lies behind the promoted node's position).

use std::collections::{BTreeMap, HashMap};

use hotspare::{Cache, Inspection};

/// Bits of a version that are the seq; the term lies above them.
const VERSION_SEQ_BITS: u32 = 44;

/// An item without its version's place: value, flags, expiry, version.
type State = (Vec<u8>, u32, u64, u64);

/// The effect of one answered mutation.
#[derive(Debug, Clone)]
struct Effect {
    branch: u128,
    seq: u64,
    concerns: Concern,
    state: Option<State>,
}

/// Which keys a mutation concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// One.
    Key(Vec<u8>),
    /// Those that begin so: the flush of a prefix.
    Prefix(Vec<u8>),
    /// Every key: a flush.
    All,
}

/// Everything that primaries answered, and everything that logs were seen to hold.
#[derive(Debug, Default)]
pub struct Oracle {
    effects: Vec<Effect>,
    records: HashMap<(u128, u64), Vec<u8>>,
    values: HashMap<(Vec<u8>, u64), (Vec<u8>, u32)>,
    /// Keys that a roll-back has dropped, and the version up to which they may be missing: it dropped what they were
    /// before as well, and who copies that node lacks it too.
    dropped: HashMap<Vec<u8>, u64>,
    histories: HashMap<usize, Vec<(u32, u128)>>,
    /// By term: which node was promoted by it.
    promotions: HashMap<u32, usize>,
    misses_allowed: bool,
    newest_ms: u64,
}

impl Oracle {
    /// Notes the effect of a mutation that `cache`, a primary, has just answered. `before` is the seq that the log
    /// stood at.
    pub fn note(&mut self, cache: &Cache, concerns: Concern, before: u64) {
        let inspection = cache.inspect();
        let Some((_, branch, _, last)) = inspection.lineage.last().copied() else { return };
        if last == before {
            return;
        }
        // An expired item is in the log like any other; what the node shows of it now is nothing.
        let is_meant = |key: &Vec<u8>| concerns == Concern::Key(key.clone());
        let state = inspection.items.into_iter().find(|item| is_meant(&item.0)).map(
            |(key, value, flags, expiry, version)| {
                self.values.insert((key, version), (value.clone(), flags));
                (value, flags, expiry, version)
            },
        );
        self.effects.push(Effect { branch, seq: last, concerns, state });
    }

    /// Notes that a primary was asked to delete a key, and answered: from its position on the key is gone.
    pub fn note_deletion(&mut self, cache: &Cache, key: &[u8]) {
        if let Some((_, branch, _, last)) = cache.inspect().lineage.last().copied() {
            let concerns = Concern::Key(key.to_vec());
            self.effects.push(Effect { branch, seq: last, concerns, state: None });
        }
    }

    /// How many mutations were answered.
    pub fn answered(&self) -> usize {
        self.effects.len()
    }

    /// Notes what a load has stored at this place of a history; `begun` is how many mutations had been answered when it
    /// began: a write of that history which was answered since makes it stale.
    ///
    /// # Errors
    /// That write, in words.
    pub fn note_load(
        &mut self,
        inspection: &Inspection,
        (branch, seq): (u128, u64),
        key: Vec<u8>,
        (value, flags, expires_at_ms): (Vec<u8>, u32, u64),
        begun: usize,
    ) -> Result<(), String> {
        let is_before = |effect: &&Effect| {
            let held = inspection.lineage.iter().find(|entry| entry.1 == effect.branch);
            held.is_some_and(|entry| effect.seq <= entry.3) && (effect.branch, effect.seq) != (branch, seq)
        };
        let concerns_it = |effect: &&Effect| match &effect.concerns {
            Concern::Key(other) => *other == key,
            Concern::Prefix(prefix) => key.starts_with(prefix),
            Concern::All => true,
        };
        let newer = self.effects[begun..].iter().filter(is_before).find(concerns_it);
        if let Some(newer) = newer {
            let key = key.escape_ascii();
            let lineage = &inspection.lineage;
            return Err(format!(
                "P15: a load stored {key} at seq {seq} of branch {branch}, and had begun before {newer:?}; the history is {lineage:?}"
            ));
        }
        let term = inspection.lineage.iter().find(|entry| entry.1 == branch).map_or(0, |entry| entry.0);
        let version = u64::from(term) << VERSION_SEQ_BITS | seq;
        self.values.insert((key.clone(), version), (value.clone(), flags));
        let state = Some((value, flags, expires_at_ms, version));
        self.effects.push(Effect { branch, seq, concerns: Concern::Key(key), state });
        Ok(())
    }

    /// Notes that a node was promoted by this term; another one that was as well.
    pub fn note_promotion(&mut self, term: u32, index: usize) -> Option<usize> {
        Some(*self.promotions.entry(term).or_insert(index)).filter(|known| *known != index)
    }

    /// The clock that no node is ahead of.
    pub fn set_newest_ms(&mut self, newest_ms: u64) {
        self.newest_ms = newest_ms;
    }

    /// From now on an item may be missing: a node with half a copy was made primary, since no other was left.
    pub fn allow_misses(&mut self) {
        self.misses_allowed = true;
    }

    /// Whether an item may be missing.
    pub fn are_misses_allowed(&self) -> bool {
        self.misses_allowed
    }

    /// A node has rolled back: each key that was changed in the part of its history that it left may be missing, as it was
    /// before that. So may one that had expired by this node's clock: as a primary it has swept it, while the other's
    /// clock was behind and let it be touched in time.
    pub fn note_roll_back(&mut self, before: &Inspection, after: &Inspection) {
        let last_in = |inspection: &Inspection, branch: u128| {
            inspection.lineage.iter().find(|entry| entry.1 == branch).map(|entry| entry.3)
        };
        let common = before.lineage.iter().rev().find(|entry| last_in(after, entry.1).is_some());
        let Some((term, branch, _, last)) = common.copied() else { return };
        let last_shared = last_in(after, branch).map_or(last, |theirs| theirs.min(last));
        let version = u64::from(term) << VERSION_SEQ_BITS | last_shared;
        for effect in &self.effects {
            let was_held = last_in(before, effect.branch).is_some_and(|last| effect.seq <= last);
            let is_shared = match effect.branch == branch {
                true => effect.seq <= last_shared,
                false => last_in(after, effect.branch).is_some(),
            };
            let Concern::Key(key) = &effect.concerns else { continue };
            let had_expired = effect.state.as_ref().filter(|state| state.2 != 0 && state.2 <= before.now_ms);
            let dropped = match (was_held, is_shared) {
                (true, false) => Some(version),
                (true, true) => had_expired.map(|state| state.3),
                (false, _) => None,
            };
            if let Some(version) = dropped {
                let up_to = self.dropped.entry(key.clone()).or_default();
                *up_to = version.max(*up_to);
            }
        }
    }

    /// Whether a roll-back has dropped this version of the key.
    pub fn may_be_dropped(&self, key: &[u8], version: u64) -> bool {
        self.dropped.get(key).is_some_and(|up_to| version <= *up_to)
    }

    /// Whether a node may lack this item although its history put it there.
    pub fn may_be_missing(&self, key: &[u8], expires_at_ms: u64, version: u64) -> bool {
        let may_be_dead = expires_at_ms != 0 && expires_at_ms <= self.newest_ms;
        self.misses_allowed || may_be_dead || self.may_be_dropped(key, version)
    }

    /// A node lost its memory: its history begins anew.
    pub fn forget_node(&mut self, index: usize) {
        self.histories.remove(&index);
    }

    /// P1: one record for each (branch, seq), everywhere and for ever, and no gap.
    pub fn check_records(&mut self, inspection: &Inspection, when: &str) {
        for (branch, seq, bytes) in &inspection.records {
            let known = self.records.entry((*branch, *seq)).or_insert_with(|| bytes.clone());
            assert_eq!(known, bytes, "P1: {when}: two records at seq {seq}");
        }
        for pair in inspection.records.windows(2) {
            let same_branch = pair[0].0 == pair[1].0;
            assert!(!same_branch || pair[1].1 == pair[0].1 + 1, "P1: {when}: a gap behind seq {}", pair[0].1);
        }
        // P11: one (key, version) is one value for ever.
        for (key, value, flags, _, version) in &inspection.items {
            let known = self.values.entry((key.clone(), *version)).or_insert_with(|| (value.clone(), *flags));
            assert_eq!(known, &(value.clone(), *flags), "P11: {when}: two values of one version");
        }
    }

    /// P10: while a node keeps its memory, its history goes on, or that of a node promoted by a higher term replaces
    /// it: nobody who merely forgot everything does. A history in which nothing was written is nothing to lose.
    pub fn check_history(&mut self, index: usize, inspection: &Inspection, when: &str) {
        let history: Vec<(u32, u128)> = inspection.lineage.iter().map(|entry| (entry.0, entry.1)).collect();
        let known = self.histories.entry(index).or_default();
        let goes_on = known.is_empty() || known.iter().any(|entry| history.contains(entry));
        let promoted_above = history.len() > 1 && history.last() > known.last();
        assert!(goes_on || promoted_above, "P10: {when}: node {index} went from {known:?} to {history:?}");
        let is_written = inspection.lineage.iter().any(|(_, _, first, last)| first <= last);
        *known = if is_written { history } else { Vec::new() };
    }

    /// P2, P3, P7: the node's items are what its history, up to its position, comes to.
    pub fn check_node(&self, index: usize, inspection: &Inspection, when: &str) {
        if let Err(why) = self.compare(inspection) {
            let history: Vec<_> =
                inspection.lineage.iter().map(|entry| (entry.0, entry.2, entry.3)).collect();
            panic!("P2/P3/P7: {when}: node {index}: {why}; its history is {history:?}");
        }
    }

    /// What a node holds in the middle of a full copy: some of what its history comes to, and nothing else.
    pub fn check_part(&self, index: usize, inspection: &Inspection, when: &str) {
        let expected = self.expected(inspection);
        for (key, value, flags, expiry, version) in &inspection.items {
            let state = (value.clone(), *flags, *expiry, *version);
            assert!(
                expected.get(&key[..]).is_some_and(|expected| **expected == state),
                "P3: {when}: node {index}, half copied: {} is {state:?} and should be {:?}",
                key.escape_ascii(),
                expected.get(&key[..])
            );
        }
    }

    /// What a node's history, up to its own position, comes to.
    fn expected(&self, inspection: &Inspection) -> BTreeMap<&[u8], &State> {
        let last_of: HashMap<u128, u64> = inspection.lineage.iter().map(|entry| (entry.1, entry.3)).collect();
        let mut expected: BTreeMap<&[u8], &State> = BTreeMap::new();
        for effect in &self.effects {
            if last_of.get(&effect.branch).is_none_or(|last| effect.seq > *last) {
                continue;
            }
            match (&effect.concerns, &effect.state) {
                (Concern::All, _) => expected.clear(),
                (Concern::Prefix(prefix), _) => expected.retain(|key, _| !key.starts_with(prefix)),
                (Concern::Key(key), None) => {
                    expected.remove(&key[..]);
                }
                (Concern::Key(key), Some(state)) => {
                    expected.insert(key, state);
                }
            }
        }
        expected.retain(|_, state| state.2 == 0 || state.2 > inspection.now_ms);
        expected
    }

    fn compare(&self, inspection: &Inspection) -> Result<(), String> {
        let expected = self.expected(inspection);
        let held: BTreeMap<&[u8], State> = inspection
            .items
            .iter()
            .map(|(key, value, flags, expiry, version)| {
                (&key[..], (value.clone(), *flags, *expiry, *version))
            })
            .collect();
        for (key, state) in &expected {
            // A follower's clock is behind by as long as frames took; who gave it the item may have seen it die.
            let may_be_missing = !held.contains_key(key) && self.may_be_missing(key, state.2, state.3);
            if held.get(key) != Some(*state) && !may_be_missing {
                return Err(format!("{} should be {state:?} and is {:?}", key.escape_ascii(), held.get(key)));
            }
        }
        match held.keys().find(|key| !expected.contains_key(*key)) {
            Some(key) => Err(format!("{} should be absent", key.escape_ascii())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotspare::{Config, Expiry, ReplicationConfig};

    fn written() -> (Oracle, Inspection) {
        let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
        let mut oracle = Oracle::default();
        for key in ["a", "b"] {
            let before = cache.status().seq;
            cache.set(key, "value", Expiry::Never).unwrap();
            oracle.note(&cache, Concern::Key(key.into()), before);
        }
        oracle.check_records(&cache.inspect(), "now");
        (oracle, cache.inspect())
    }

    #[test]
    fn a_lost_a_stale_and_a_surplus_item_are_found() {
        let (oracle, sound) = written();
        assert_eq!(oracle.compare(&sound), Ok(()));
        let mut lost = sound.clone();
        lost.items.pop();
        let mut stale = sound.clone();
        stale.items[0].1 = b"old".to_vec();
        let mut surplus = sound.clone();
        surplus.items.push((b"c".to_vec(), Vec::new(), 0, 0, 1));
        for wrong in [lost, stale, surplus] {
            assert!(oracle.compare(&wrong).is_err());
        }
    }

    #[test]
    #[should_panic(expected = "P1")]
    fn another_record_at_the_same_place_is_found() {
        let (mut oracle, mut inspection) = written();
        inspection.records[0].2.push(0);
        oracle.check_records(&inspection, "now");
    }

    #[test]
    #[should_panic(expected = "P11")]
    fn another_value_of_the_same_version_is_found() {
        let (mut oracle, mut inspection) = written();
        inspection.items[0].1 = b"other".to_vec();
        oracle.check_records(&inspection, "now");
    }
}
