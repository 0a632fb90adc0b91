//! What differs from memcached 1.6.18 on purpose. The specification follows 1.6.45, and wins.
//!
//! Each entry says of one request what memcached answered and what the rule wants of us, as exactly as the request tells
//! it: where an answer of ours follows from the request alone, it has to be that one, so nothing else hides behind it.
//!
//! | file | concept |
//! |---|---|
//! | `reading` | a text request as the rules read it |
//! | `classic`, `meta`, `binary` | the differences in each dialect |
//! | `rows` | those of several requests in a row, and of a connection that ends |

mod binary;
mod classic;
mod meta;
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
    /// Whether it is one request; else several in a row.
    pub(super) is_alone: bool,
}

/// What the servers hold once they have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The same.
    Same,
    /// Maybe different items; or they read different requests from here on.
    Parted,
}

/// A difference that is meant.
#[derive(Debug)]
pub(super) struct Found {
    /// The rule of the specification that says so.
    pub(super) rule: &'static str,
    pub(super) what: &'static str,
    pub(super) after: After,
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
        _ if !exchange.is_alone => &[rows::KNOWN],
        Dialect::Binary => &[binary::KNOWN, rows::KNOWN],
        Dialect::Classic => &[classic::KNOWN, rows::KNOWN],
        Dialect::Meta => &[classic::KNOWN, meta::KNOWN, rows::KNOWN],
    };
    let found = tables.iter().copied().flatten().find_map(|known| {
        let after = (known.sees)(exchange, &reading)?;
        Some(Found { rule: known.rule, what: known.what, after })
    });
    let parts = || parts_silently(dialect, exchange.request).filter(|_| exchange.is_alone);
    match found {
        Some(found) if found.after == After::Same && parts().is_some() => {
            Some(Found { after: After::Parted, ..found })
        }
        None if exchange.theirs == exchange.ours => parts(),
        found => found,
    }
}

/// The known difference that a request leaves behind, whatever is answered.
pub(super) fn parts_silently(dialect: Dialect, request: &[u8]) -> Option<Found> {
    let tables: &[&[Silent]] = match dialect {
        Dialect::Binary => &[binary::SILENT],
        Dialect::Classic => &[classic::SILENT],
        Dialect::Meta => &[classic::SILENT, meta::SILENT],
    };
    let reading = Reading::of(request);
    let silent = tables.iter().copied().flatten().find(|silent| (silent.sees)(&reading))?;
    Some(Found { rule: silent.rule, what: silent.what, after: After::Parted })
}
