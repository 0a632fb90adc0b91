//! A primary that lost its memory and comes up as one again, and an operator who promotes whomever he likes, without force.
//!
//! Lives here: P18. Not here: that nobody is emptied by it (see `oracle`, P10).

use hotspare::{Role, Status, Warning};

use super::NAMES;
use super::checks::is_whole;
use super::world::World;

/// Whom a node says that it has met which holds what it came up without, and how far that one had got.
fn met(status: &Status) -> Option<(usize, u64)> {
    let (address, seq) = status.warnings.iter().find_map(|warning| match warning {
        Warning::CameUpEmpty { address, seq, .. } => Some((address, *seq)),
        _ => None,
    })?;
    Some((NAMES.iter().position(|name| name == address)?, seq))
}

impl World {
    /// The node that holds items of the group and lives on, where this one has come up with nothing and has met it.
    pub(super) fn who_outranks(&self, index: usize, status: &Status) -> Option<&'static str> {
        let (other, seq) = met(status)?;
        let (theirs, items) = (self.nodes[other].cache.status(), self.nodes[other].cache.stats().items);
        // Where it lost its memory since, and holds a newer history, that is not the one that was met. Where it was copied again
        // it may have been asked before that: then it has said in truth that it holds nothing.
        let lineage = self.nodes[other].cache.inspect().lineage;
        let met_in = self.met.get(&(self.nodes[index].life, seq));
        let asked = self.nodes[index].asks_since.unwrap_or(self.moment);
        let held_when_asked = self.nodes[other].holds_since.is_some_and(|since| since < asked);
        let is_met = lineage.iter().any(|(_, _, first, last)| (*first..=*last).contains(&seq))
            && (held_when_asked || met_in.is_none_or(|life| *life == self.nodes[other].life));
        // Of two that came up with nothing, and have yielded to each other, either may be promoted.
        let has_yielded = theirs.promotable.is_err_and(|why| why.contains("came up with nothing"));
        (theirs.role != Role::Primary && items > 0 && is_met && !has_yielded).then_some(NAMES[other])
    }

    /// Notes whom this node has met that holds what it came up without.
    pub(super) fn note_holder(&mut self, index: usize, status: &Status) {
        if let Some((other, seq)) = met(status) {
            let life = self.nodes[other].life;
            self.met.entry((self.nodes[index].life, seq)).or_insert(life);
        }
    }

    /// A node had its turn: since when it has held items, and asked others.
    pub(super) fn note_moment(&mut self, index: usize, installs_before: u64) {
        self.moment += 1;
        let (moment, node) = (self.moment, &mut self.nodes[index]);
        let status = node.cache.status();
        let holds = is_whole(&status) && node.cache.stats().items > 0;
        let since = node.holds_since.filter(|_| status.installs == installs_before).unwrap_or(moment);
        node.holds_since = holds.then_some(since);
        node.asks_since = node.cache.inspect_part().asks.then(|| node.asks_since.unwrap_or(moment));
    }

    /// P18: without force no node that came up with nothing reigns over one that it has met and that holds the group's items.
    pub(super) fn promote_unforced(&mut self, index: usize, status: &Status) {
        if status.role == Role::Primary {
            return;
        }
        let outranks = self.who_outranks(index, status);
        let cache = self.nodes[index].cache.clone();
        let begun = cache.begin_promotion(false);
        if cache.inspect_part().asks {
            self.nodes[index].asks_since.get_or_insert(self.moment);
        }
        self.summary.outranked[0] += u64::from(outranks.is_some());
        self.summary.outranked[1] += u64::from(outranks.is_some() && begun.is_err());
        if let Ok(Some(_)) = begun {
            assert!(
                outranks.is_none(),
                "P18: {} reigns, but holds nothing beside {outranks:?}",
                NAMES[index]
            );
            if !is_whole(status) {
                self.oracle.allow_misses();
            }
            self.note_promotion(index);
            self.summary.promotions += 1;
        }
    }
}
