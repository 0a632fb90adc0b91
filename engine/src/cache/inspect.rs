//! A look at everything that a cache holds, for tests and simulations.

use crate::replication::log::{Entry, LogRead, entries};

use super::Cache;

/// Key, value, flags, expiry (0 never), version.
#[doc(hidden)]
pub type InspectedItem = (Vec<u8>, Vec<u8>, u32, u64, u64);

/// What a cache holds, as plain data that two nodes can be compared by.
#[doc(hidden)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Live items, sorted by key.
    pub items: Vec<InspectedItem>,
    /// Retained records: branch, seq, bytes; in order.
    pub records: Vec<(u128, u64, Vec<u8>)>,
    /// The history: term, branch, first seq, last seq.
    pub lineage: Vec<(u32, u128, u64, u64)>,
    /// The group's clock.
    pub now_ms: u64,
    /// How many full copies it has begun to take.
    pub copies: u32,
}

/// What a node does in its group, beside what its status tells.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InspectedPart {
    /// Which node took this one as its replica last, and by which term.
    pub taken: Option<(u128, u32)>,
    /// How often one has.
    pub times_taken: u64,
    /// Whether it asks others, to be promoted.
    pub asks: bool,
}

impl Cache {
    /// What this node does in its group. For tests.
    #[doc(hidden)]
    pub fn inspect_part(&self) -> InspectedPart {
        let Some(group) = &self.inner.group else { return InspectedPart::default() };
        let roles = group.roles.lock();
        InspectedPart {
            taken: roles.cascade.taken.map(|(node, term)| (node, term.0)),
            times_taken: roles.cascade.times_taken,
            asks: roles.candidacy.is_some(),
        }
    }

    /// Copies out all that the cache holds. For tests: it locks one shard after the other for long.
    #[doc(hidden)]
    pub fn inspect(&self) -> Inspection {
        let mut inspection = Inspection { now_ms: self.now_ms(), ..Inspection::default() };
        let mut reader = super::InstallReader::new(self.inner.clone());
        while let Some(at) =
            crate::replication::install::InstallSource::next_items(&mut reader, usize::MAX, usize::MAX)
        {
            // A replica gives its own replicas what has expired, since it may be touched yet.
            let now_ms = inspection.now_ms;
            inspection.items.extend(
                at.items
                    .into_iter()
                    .filter(|item| item.expires_at_ms == 0 || item.expires_at_ms > now_ms)
                    .map(|item| (item.key, item.value, item.flags, item.expires_at_ms, item.version.0)),
            );
        }
        inspection.items.sort();
        let Some(group) = &self.inner.group else { return inspection };
        let log = group.log.lock();
        inspection.copies = log.cuts().restarts;
        for entry in log.lineage().entries() {
            inspection.lineage.push((entry.term.0, entry.branch.0, entry.start, entry.last));
        }
        let Some(mut cursor) = log.cursor_at_start() else { return inspection };
        loop {
            match log.read(&mut cursor, usize::MAX, u64::MAX) {
                LogRead::Records { bytes, prev, .. } => {
                    let records = entries(&bytes).flatten().filter_map(|entry| match entry {
                        Entry::Record(record) => Some(record.to_vec()),
                        _ => None,
                    });
                    let numbered = (prev.seq + 1..).zip(records);
                    inspection.records.extend(numbered.map(|(seq, record)| (prev.branch.0, seq, record)));
                }
                LogRead::NewBranch(_) => {}
                LogRead::AtEnd | LogRead::Overtaken => return inspection,
            }
        }
    }
}
