//! Requests that came together: each is taken apart once, before the first of them is executed, so that what they are about
//! is fetched from memory for all of them at once.
//!
//! Lives here: where one ends and the next begins. Not here: what is done with them (see `connection`).

use hotspare_memcached::classic::{self, Limits, Request, Store};
use hotspare_memcached::{binary, meta};

use crate::server::commands::AHEAD_MAX;

/// A request, or why there is none.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    Classic(classic::Parsed<'a>),
    Meta(meta::Parsed<'a>),
    /// Taken apart when its turn comes, which costs little.
    Binary,
    /// The input goes on with a large value, whose request was begun.
    RestOfValue,
    /// From a client that has to say first who it is.
    BeforeGate,
}

impl<'a> Asked<'a> {
    /// What text begins with.
    #[inline]
    pub(super) fn in_text(input: &'a [u8], limits: &Limits) -> Asked<'a> {
        match meta::is_meta(input) {
            true => Asked::Meta(meta::parse_request(input, limits)),
            false => Asked::Classic(classic::parse_request(input, limits)),
        }
    }

    /// The key that it is about, of several the first, and the bytes that it takes, where the next request follows right
    /// behind.
    #[inline]
    pub(super) fn key_and_bytes(&self) -> Option<(&'a [u8], usize)> {
        match self {
            Asked::Classic(classic::Parsed::Complete { request, consumed }) => {
                let key = match request {
                    Request::Get { keys, .. } | Request::GetAndTouch { keys, .. } => keys.iter().next()?,
                    Request::Store(Store { key, .. })
                    | Request::Delete { key, .. }
                    | Request::Count { key, .. }
                    | Request::Touch { key, .. } => key,
                    _ => return None,
                };
                Some((key, *consumed))
            }
            Asked::Meta(meta::Parsed::Complete { request, consumed }) => {
                Some((request.target()?.key.text(), *consumed))
            }
            _ => None,
        }
    }
}

/// Several requests in a row; the last may be anything, also one that has not come whole.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    asked: [Option<Asked<'a>>; AHEAD_MAX],
    len: usize,
    keys: [&'a [u8]; AHEAD_MAX],
    keys_len: usize,
}

impl<'a> Batch<'a> {
    /// `first`, which is about this key, and what `ask` takes apart behind it.
    #[inline]
    pub(super) fn read(
        first: Asked<'a>,
        key: &'a [u8],
        mut input: &'a [u8],
        ask: impl Fn(&'a [u8]) -> Asked<'a>,
    ) -> Batch<'a> {
        let asked = [const { None }; AHEAD_MAX];
        let mut batch = Batch { asked, len: 1, keys: [&[]; AHEAD_MAX], keys_len: 1 };
        (batch.asked[0], batch.keys[0]) = (Some(first), key);
        while batch.len < AHEAD_MAX && !input.is_empty() {
            let asked = batch.asked[batch.len].insert(ask(input));
            batch.len += 1;
            let Some((key, bytes)) = asked.key_and_bytes() else { break };
            batch.keys[batch.keys_len] = key;
            batch.keys_len += 1;
            input = input.get(bytes..).unwrap_or_default();
        }
        batch
    }

    pub(super) fn asked(&self) -> impl Iterator<Item = &Asked<'a>> {
        self.asked[..self.len].iter().flatten()
    }

    /// A key of each request that has one.
    pub(super) fn keys(&self) -> &[&'a [u8]] {
        &self.keys[..self.keys_len]
    }
}

/// The keys of the first binary requests of the input, and the bytes that these take: a guess, since each may state any
/// length.
pub(super) fn binary_keys<'a>(input: &'a [u8], keys: &mut [&'a [u8]; AHEAD_MAX]) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0_usize);
    while count < AHEAD_MAX
        && let Some((key, more)) = input.get(bytes..).and_then(binary::key_ahead)
    {
        keys[count] = key;
        count += 1;
        bytes = bytes.saturating_add(more);
    }
    (count, bytes)
}
