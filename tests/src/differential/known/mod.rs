//! What differs from memcached 1.6.18 on purpose. The specification follows 1.6.45, and wins.
//!
//! Each entry says of one request what memcached answered and what the rule wants of us, as exactly as the request tells
//! it: where an answer of ours follows from the request alone, it has to be that one, so nothing else hides behind it.
//!
//! | file | concept |
//! |---|---|
//! | `reading` | a text request as the rules read it |
//! | `classic`, `meta`, `binary` | the differences in each dialect |
//! | `operator` | those in the commands of operators |
//! | `rows` | those of several requests in a row, and of a connection that ends |

mod binary;
mod classic;
mod meta;
mod operator;
mod reading;
mod rows;

use std::rc::Rc;

use super::Dialect;
use reading::Reading;

/// One request, and what was answered.
pub(super) struct Exchange<'a> {
    /// As memcached had it.
    pub(super) request: &'a [u8],
    /// What was said before it.
    pub(super) before: &'a [Rc<[u8]>],
    /// memcached's answer, masked.
    pub(super) theirs: &'a str,
    /// Ours, masked.
    pub(super) ours: &'a str,
    /// The requests where it is several in a row, whose answers no no-op separates; empty for one.
    pub(super) row: &'a [Rc<[u8]>],
}

/// What the servers hold once they have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// The same.
    Same,
    /// Maybe different items; or they read different requests from here on.
    Parted,
    /// The same, if memcached's item proves that it is what it looks like.
    SameIf(Proof),
    /// Maybe different items, if memcached's item proves that it is what it looks like.
    PartedIf(Proof),
}

/// A difference that is meant.
#[derive(Debug)]
pub(super) struct Found {
    /// The rule of the specification that says so.
    pub(super) rule: &'static str,
    pub(super) what: &'static str,
    pub(super) after: After,
}

impl Proven {
    /// Whether a number above 2^63 shows it.
    pub(super) fn is_counted_from(self, before: u64) -> bool {
        let Proven::HoldsLargeNumber { delta, is_down, told } = self else { return false };
        let now = if is_down { before.saturating_sub(delta) } else { before.wrapping_add(delta) };
        before > i64::MAX as u64 && told.is_none_or(|told| told == now)
    }
}

/// What memcached's item shows behind a request that it did not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// The item's key.
    pub(super) key: Vec<u8>,
    /// What it shows.
    pub(super) of: Proven,
}

/// See [`Proof`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proven {
    /// Its value is a number above 2^63, from which `told`, if it was told, is counted up or down.
    HoldsLargeNumber {
        /// By how much.
        delta: u64,
        /// Whether down.
        is_down: bool,
        /// What we answered.
        told: Option<u64>,
    },
    /// It has this CAS.
    HasCas(u64),
}

/// A kind of difference.
struct Known {
    rule: &'static str,
    /// What differs.
    what: &'static str,
    /// Whether this is it.
    sees: fn(&Exchange<'_>, &Reading<'_>) -> Option<After>,
}

/// A kind of request that may leave the servers with different items though they answer alike.
struct Silent {
    rule: &'static str,
    what: &'static str,
    sees: fn(&Reading<'_>) -> bool,
}

impl Exchange<'_> {
    /// Both answers, each with its line ends.
    fn is(&self, theirs: &str, ours: &str) -> bool {
        self.theirs == theirs && self.ours == ours
    }
}

/// `after` if that is so.
fn when(is_so: bool, after: After) -> Option<After> {
    is_so.then_some(after)
}

/// The known difference that this is.
pub(super) fn find(dialect: Dialect, exchange: &Exchange<'_>) -> Option<Found> {
    let reading = Reading::of(exchange.request);
    let tables: &[&[Known]] = match dialect {
        _ if exchange.theirs == exchange.ours => &[],
        _ if !exchange.row.is_empty() => &[rows::KNOWN],
        Dialect::Binary => &[binary::KNOWN, rows::KNOWN],
        Dialect::Classic | Dialect::Meta => &[classic::KNOWN, operator::KNOWN, meta::KNOWN, rows::KNOWN],
    };
    let found = tables.iter().copied().flatten().find_map(|known| {
        let after = (known.sees)(exchange, &reading)?;
        Some(Found { rule: known.rule, what: known.what, after })
    });
    let parts = || parts_silently(dialect, exchange.request).filter(|_| exchange.row.is_empty());
    match found {
        Some(Found { rule, what, after: After::Same }) if parts().is_some() => {
            Some(Found { rule, what, after: After::Parted })
        }
        Some(Found { rule, what, after: After::SameIf(proof) }) if parts().is_some() => {
            Some(Found { rule, what, after: After::PartedIf(proof) })
        }
        None if exchange.theirs == exchange.ours => parts(),
        found => found,
    }
}

/// The known difference that a request leaves behind, whatever is answered.
pub(super) fn parts_silently(dialect: Dialect, request: &[u8]) -> Option<Found> {
    let tables: &[&[Silent]] = match dialect {
        Dialect::Binary => &[binary::SILENT],
        Dialect::Classic | Dialect::Meta => &[classic::SILENT, meta::SILENT],
    };
    let reading = Reading::of(request);
    let silent = tables.iter().copied().flatten().find(|silent| (silent.sees)(&reading))?;
    Some(Found { rule: silent.rule, what: silent.what, after: After::Parted })
}

/// Whether the servers may hold different items after requests in a row, though they answered alike.
pub(super) fn row_parts(dialect: Dialect, row: &[Rc<[u8]>]) -> bool {
    rows::reads_and_counts(row) || row.iter().any(|request| parts_silently(dialect, request).is_some())
}
