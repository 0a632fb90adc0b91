//! A primary that lost its memory and comes up as one again, and an operator who promotes whomever he likes, without force.
//!
//! Lives here: P18. Not here: that nobody is emptied by it (see `oracle`, P10).

use hotspare::{Role, Status, Warning};

use super::NAMES;
use super::checks::is_whole;
use super::world::World;

impl World {
    /// The node that holds items of the group and lives on, where this one has come up with nothing and has met it.
    pub(super) fn who_outranks(&self, status: &Status) -> Option<&'static str> {
        let holder = status.warnings.iter().find_map(|warning| match warning {
            Warning::CameUpEmpty { address, seq, .. } => Some((address, *seq)),
            _ => None,
        });
        let (address, seq) = holder?;
        let other = NAMES.iter().position(|name| name == address)?;
        let (theirs, items) = (self.nodes[other].cache.status().role, self.nodes[other].cache.stats().items);
        // Where it lost its memory since, and holds a newer history, that is not the one that was met.
        let lineage = self.nodes[other].cache.inspect().lineage;
        let is_met = lineage.iter().any(|(_, _, first, last)| (*first..=*last).contains(&seq));
        (theirs != Role::Primary && items > 0 && is_met).then_some(NAMES[other])
    }

    /// P18: without force no node that came up with nothing reigns over one that it has met and that holds the group's items.
    pub(super) fn promote_unforced(&mut self, index: usize, status: &Status) {
        if status.role == Role::Primary {
            return;
        }
        let outranks = self.who_outranks(status);
        let cache = self.nodes[index].cache.clone();
        let begun = cache.begin_promotion(false);
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
