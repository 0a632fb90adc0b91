//! What the group promised, held against what clients were told.
//!
//! Lives here: for each read, whether it may show what it shows; for each acknowledged write that is gone, whether it may be.
//! Not here: where it was written down (see `history`), what nodes export (see `exported`).
//!
//! A version is a place in the one log of a history, and clients are told the versions of their sets. So a hit is *stale* if
//! an acknowledged write of a newer version had ended before the read began. On a primary that is right only if a change
//! of reign in between has lost that write; and it may have lost only what lies behind
//! - what the promoted node held when it was promoted,
//! - what the old primary had exported as applied by that node shortly before its death, and
//! - whatever of the old history was seen afterwards: what is lost is the end of a history, and has no holes.
//!
//! In strict every hit has to fit, besides, into one order of all that happened to its key (see `registers`), and a miss
//! while traffic flows says nothing.
//!
//! In semi-sync with as many acks as replicas, and through a hand-over, nothing acknowledged may be lost at all. A miss is
//! always allowed by the rule of caches; here nothing is evicted, so one that nothing explains counts as a loss.

use std::collections::BTreeSet;

use super::Mode;
use super::exported::{Exported, Watch};
use super::history::{Found, Journal, Key, Kind, Moment, Outcome, Place, Read, Write, seq_of, term_of};
use super::registers::Registers;

/// How many cycles a write is remembered after it was overtaken: a value older than that is never seen again.
const CYCLES_KEPT: usize = 3;
/// By how much an exported age may be too young: the engine's clock goes in steps of up to 4 ms, and is read twice.
const TOO_YOUNG_MS_MAX: u64 = 8;
/// The most complaints that are kept: the first ones tell the most.
const COMPLAINTS_MAX: usize = 5;

/// One node's time as primary.
#[derive(Debug, Clone)]
pub(super) struct Reign {
    pub(super) term: u64,
    pub(super) begun: Moment,
    /// By a hand-over, or the very first: nothing may be lost.
    pub(super) planned: bool,
    /// What its node said that it held before it was promoted.
    pub(super) held_seq: u64,
    /// What the primary before had said of it last.
    pub(super) exported: Option<Exported>,
    /// The newest seq of an older reign that was seen in this one.
    pub(super) survived_seq: u64,
}

impl Reign {
    /// Up to here nothing of earlier reigns may be lost.
    fn safe_seq(&self) -> u64 {
        let exported = self.exported.map_or(0, |exported| exported.applied_seq);
        self.held_seq.max(exported).max(self.survived_seq)
    }
}

/// What is counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) refused: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Reads on a node that was primary, or had been: hits that show less than was acknowledged elsewhere.
    pub(super) stale_elsewhere: u64,
    /// Hits on a primary that show less than was acknowledged before, where that write was lost as the mode states.
    pub(super) stale_explained: u64,
    /// Acknowledged by a process that came back empty, before it met anybody; part of `unknown`.
    pub(super) written_to_empty: u64,
    pub(super) lost: u64,
    pub(super) lost_at_once_max: u64,
    /// Acknowledged by the old primary after another was promoted; part of `lost`.
    pub(super) split_brain_writes: u64,
    /// By how many milliseconds an exported age was too young, at most: of any write, and of those that were written while
    /// the replica was attached. An age counts from the attaching.
    pub(super) told_too_young_ms: (u64, u64),
}

#[derive(Debug, Clone)]
struct Remembered {
    write: Write,
    cycle: usize,
    lost_in: Option<usize>,
}

/// 1. The writes of a key are in the order in which its one writer sent them: by counter.
#[derive(Debug)]
pub(super) struct Judge {
    keys: Vec<Vec<Remembered>>,
    loses_nothing: bool,
    /// In strict: what clients saw, besides.
    registers: Option<Registers>,
    cycle: usize,
    pub(super) tally: Tally,
    pub(super) complaints: Vec<String>,
    /// Complaints beyond those that are kept.
    pub(super) more_complaints: u64,
    /// Found lost since the last count: key and index.
    newly_lost: Vec<(Key, usize)>,
}

/// What a lost write is judged by.
enum Verdict {
    /// It must be there.
    Held,
    /// It may be lost, by the change to this reign.
    MayBeLost(usize),
}

impl Judge {
    /// For `keys` keys, by the promise of `mode`.
    pub(super) fn new(keys: usize, mode: Mode) -> Judge {
        Judge {
            keys: vec![Vec::new(); keys],
            loses_nothing: mode != Mode::Async,
            registers: (mode == Mode::Strict).then(|| Registers::new(keys)),
            cycle: 0,
            tally: Tally::default(),
            complaints: Vec::new(),
            more_complaints: 0,
            newly_lost: Vec::new(),
        }
    }

    pub(super) fn complain(&mut self, text: String) {
        match self.complaints.len() < COMPLAINTS_MAX {
            true => self.complaints.push(text),
            false => self.more_complaints += 1,
        }
    }

    /// How often a promise was broken.
    pub(super) fn broken(&self) -> u64 {
        self.complaints.len() as u64 + self.more_complaints
    }

    /// Judges what happened since the last time. At rest: `reads` ends with one of each key on the primary.
    pub(super) fn judge(
        &mut self,
        journals: Vec<Journal>,
        settled: Vec<Read>,
        reigns: &mut [Reign],
        watch: &Watch,
    ) {
        self.cycle += 1;
        let mut reads = Vec::new();
        for journal in journals {
            journal.writes.into_iter().for_each(|write| self.remember(write, reigns));
            journal.strange.into_iter().for_each(|text| self.complain(format!("strange answer: {text}")));
            reads.extend(journal.reads);
        }
        if self.registers.is_some() {
            self.judge_strictly(&reads, &settled);
            // Without a lease a miss says nothing; what was read at rest is held against what may be lost.
            reads.clear();
        }
        reads.extend(settled.iter().cloned());
        reads.iter().for_each(|read| note_survivor(read, reigns));
        for read in reads.iter().filter(|read| matches!(read.place, Place::Primary(_))) {
            self.judge_read(read, reigns);
        }
        for read in reads.iter().filter(|read| matches!(read.place, Place::Node(_))) {
            self.judge_elsewhere(read, reigns, watch);
        }
        self.judge_losses(reigns);
        self.forget(&settled);
    }

    fn judge_strictly(&mut self, reads: &[Read], settled: &[Read]) {
        for read in reads {
            match self.check_authenticity(read) {
                Some(_) => self.tally.hits += 1,
                None => self.tally.misses += u64::from(read.found == Found::Miss),
            }
        }
        let Some(registers) = &mut self.registers else { return };
        reads.iter().chain(settled).for_each(|read| registers.read(read));
        let complaints = registers.check(settled);
        complaints.into_iter().for_each(|text| self.complain(text));
    }

    fn remember(&mut self, mut write: Write, reigns: &[Reign]) {
        // The term is older than the reign that its client was told of: a new, empty process at the address of the old
        // primary took it, before it met anybody. What becomes of that is nobody's promise.
        if write.version != 0 && term_of(write.version) < reigns[write.reign].term {
            (write.outcome, write.version) = (Outcome::Unknown, 0);
            self.tally.written_to_empty += 1;
        }
        match write.outcome {
            Outcome::Acknowledged => self.tally.acknowledged += 1,
            Outcome::Unknown => self.tally.unknown += 1,
            Outcome::Refused => self.tally.refused += 1,
        }
        if let Some(registers) = &mut self.registers {
            registers.wrote(&write);
        }
        let (cycle, key) = (self.cycle, write.key);
        self.keys[key].push(Remembered { write, cycle, lost_in: None });
    }

    /// Whether what was read can be true at all; the version that it shows.
    fn check_authenticity(&mut self, read: &Read) -> Option<u64> {
        let (counter, version) = match &read.found {
            Found::Miss => return None,
            Found::Wrong(bytes) => {
                self.complain(format!("key {}: bytes that nobody wrote: {bytes}", read.key));
                return None;
            }
            Found::Value { counter, version } => (*counter, *version),
        };
        let remembered = &self.keys[read.key];
        let write = remembered.binary_search_by_key(&counter, |known| known.write.counter);
        let wrong = match write.map(|index| &remembered[index].write) {
            Err(_) => Some("a value of long ago, or of nobody"),
            Ok(write) if write.kind == Kind::Delete => Some("the value of a delete"),
            Ok(write) if write.outcome == Outcome::Refused => Some("a write that was refused"),
            Ok(write) if write.began > read.ended => Some("a write of the future"),
            Ok(write) if write.version != 0 && write.version != version => Some("another version"),
            Ok(_) => None,
        };
        if let Some(wrong) = wrong {
            self.complain(format!("key {} at {:?}: {wrong}: {:?}", read.key, read.place, read.found));
            return None;
        }
        Some(version)
    }

    fn judge_read(&mut self, read: &Read, reigns: &[Reign]) {
        let Place::Primary(reign) = read.place else { return };
        if read.found == Found::Miss {
            self.tally.misses += 1;
            return self.judge_miss(read, reign, reigns);
        }
        let Some(version) = self.check_authenticity(read) else { return };
        self.tally.hits += 1;
        let newer: Vec<usize> = self.passed_over(read, version);
        if !newer.is_empty() {
            self.tally.stale_explained += 1;
        }
        for index in newer {
            self.lose(read, index, reign, reigns);
        }
    }

    /// The acknowledged writes that a hit of this version should have shown.
    fn passed_over(&self, read: &Read, version: u64) -> Vec<usize> {
        let is_newer = |write: &Write| match write.kind {
            Kind::Set => write.version > version,
            Kind::Delete => write.above >= version,
        };
        let known = self.keys[read.key].iter().enumerate();
        known
            .filter(|(_, known)| {
                let write = &known.write;
                write.outcome == Outcome::Acknowledged && write.ended < read.began && is_newer(write)
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// A miss is explained by a deletion, or by the loss of each set that was acknowledged before.
    fn judge_miss(&mut self, read: &Read, reign: usize, reigns: &[Reign]) {
        let known = &self.keys[read.key];
        let acknowledged_set = |known: &Remembered| {
            let write = &known.write;
            write.kind == Kind::Set && write.outcome == Outcome::Acknowledged && write.ended < read.began
        };
        let mut sets: Vec<usize> =
            (0..known.len()).filter(|index| acknowledged_set(&known[*index])).collect();
        sets.sort_by_key(|index| std::cmp::Reverse(known[*index].write.version));
        for index in sets {
            if self.may_be_deleted(read, index) || !self.lose(read, index, reign, reigns) {
                return;
            }
        }
    }

    /// Whether a delete may have come behind this set. One without an answer may have come at any time.
    fn may_be_deleted(&self, read: &Read, set: usize) -> bool {
        let known = &self.keys[read.key];
        known.iter().enumerate().any(|(index, known)| {
            let write = &known.write;
            let may_come_later = index > set || write.outcome == Outcome::Unknown;
            write.kind == Kind::Delete
                && write.outcome != Outcome::Refused
                && write.began <= read.ended
                && may_come_later
        })
    }

    /// An acknowledged write is not there; whether that is explained.
    fn lose(&mut self, read: &Read, index: usize, reign: usize, reigns: &[Reign]) -> bool {
        let known = &self.keys[read.key][index];
        match verdict(&known.write, reign, reigns) {
            Verdict::MayBeLost(by) => {
                if self.keys[read.key][index].lost_in.replace(by).is_none() {
                    self.newly_lost.push((read.key, index));
                }
                true
            }
            Verdict::Held => {
                let write = known.write.clone();
                let (what, safe) = match read.found {
                    Found::Miss => ("an acknowledged write is missing", "nothing has deleted it"),
                    _ => ("a stale hit", "it is not at the end of a history that was lost"),
                };
                self.complain(format!(
                    "{what}, and {safe}: reign {reign}, {read:?}, acknowledged before: {write:?}; this reign and the \
                     one before: {:?}",
                    &reigns[reign.saturating_sub(1)..=reign]
                ));
                false
            }
        }
    }

    /// A read on a node that was primary: split brain is part of what these modes state, but no lie is, and who follows the
    /// new primary shows nothing that was lost.
    fn judge_elsewhere(&mut self, read: &Read, reigns: &[Reign], watch: &Watch) {
        let Place::Node(node) = read.place else { return };
        let Some(version) = self.check_authenticity(read) else { return };
        self.tally.hits += 1;
        self.tally.stale_elsewhere += u64::from(!self.passed_over(read, version).is_empty());
        let known = &self.keys[read.key];
        let lost_in =
            known.iter().find(|known| known.write.version == version).and_then(|known| known.lost_in);
        let Some(by) = lost_in else { return };
        if watch.followed(node, reigns[by].term).is_some_and(|since| since < read.began) {
            self.complain(format!("node {node} follows, and still shows what was lost: {read:?}"));
        }
    }

    /// Whether what was lost in this cycle may be lost, all in all.
    fn judge_losses(&mut self, reigns: &[Reign]) {
        let mut lost_by_reign = vec![0; reigns.len()];
        for (key, index) in std::mem::take(&mut self.newly_lost) {
            let known = &self.keys[key][index];
            let (Some(by), write) = (known.lost_in, &known.write) else { continue };
            let reign = &reigns[by];
            lost_by_reign[by] += 1;
            self.tally.lost += 1;
            self.tally.split_brain_writes += u64::from(write.began > reign.begun);
            let exported = reign.exported.filter(|exported| write.ended < exported.asked);
            let too_young = exported.map_or(0, |exported| {
                ((exported.asked - write.ended) / 1_000_000).saturating_sub(exported.lacking_ms)
            });
            let lacked_before = exported.is_some_and(|exported| write.ended <= exported.attached);
            let (ever, since_attached) = &mut self.tally.told_too_young_ms;
            *ever = too_young.max(*ever);
            let too_young = if lacked_before { 0 } else { too_young };
            *since_attached = too_young.max(*since_attached);
            let too_young = (too_young > TOO_YOUNG_MS_MAX)
                .then(|| format!("{write:?} was lost, and told to be {too_young} ms younger: {reign:?}"));
            let lost = (self.loses_nothing || reign.planned)
                .then(|| format!("an acknowledged write is lost: {write:?}, by the change to {reign:?}"));
            too_young.into_iter().chain(lost).for_each(|text| self.complain(text));
        }
        let most = lost_by_reign.into_iter().max().unwrap_or_default();
        self.tally.lost_at_once_max = self.tally.lost_at_once_max.max(most);
    }

    /// Forgets what can't be seen any more. What each key has at rest stays.
    fn forget(&mut self, settled: &[Read]) {
        let held: BTreeSet<(Key, u32)> = settled
            .iter()
            .filter_map(|read| match read.found {
                Found::Value { counter, .. } => Some((read.key, counter)),
                _ => None,
            })
            .collect();
        let oldest = self.cycle.saturating_sub(CYCLES_KEPT);
        for (key, writes) in self.keys.iter_mut().enumerate() {
            writes.retain(|known| known.cycle > oldest || held.contains(&(key, known.write.counter)));
        }
    }
}

/// The newest reign that has minted this version.
fn reign_of(version: u64, reigns: &[Reign]) -> usize {
    reigns.iter().rposition(|reign| reign.term <= term_of(version)).unwrap_or_default()
}

/// What is seen of an older reign has survived each change since.
fn note_survivor(read: &Read, reigns: &mut [Reign]) {
    let (Place::Primary(reign), Found::Value { version, .. }) = (read.place, &read.found) else { return };
    let written_in = reign_of(*version, reigns);
    for later in reigns.iter_mut().take(reign + 1).skip(written_in + 1) {
        later.survived_seq = later.survived_seq.max(seq_of(*version));
    }
}

/// Whether a change of reign between a write and a read at `reign` may have lost the write.
fn verdict(write: &Write, reign: usize, reigns: &[Reign]) -> Verdict {
    let written_in = match write.kind {
        Kind::Set => reign_of(write.version, reigns),
        Kind::Delete => write.reign,
    };
    // The newest place at which it can be. What its client was told next, in the same reign, lies behind it.
    let at_most = match write.kind {
        Kind::Set => seq_of(write.version),
        Kind::Delete if write.below != 0 && reign_of(write.below, reigns) == written_in => {
            seq_of(write.below) - 1
        }
        Kind::Delete => u64::MAX,
    };
    let mut changes = written_in + 1..=reign;
    changes.find(|change| at_most > reigns[*change].safe_seq()).map_or(Verdict::Held, Verdict::MayBeLost)
}

#[cfg(test)]
#[path = "judge/tests.rs"]
mod tests;
