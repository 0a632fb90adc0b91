//! `mg`: a read that may touch, make, and hand out the token to recache (rules D1 to D7).

use std::ops::ControlFlow;

use bytes::Bytes;
use hotspare::{Attributes, Expiry, ItemRef, ItemState, Update, Updated, WriteError};
use hotspare_memcached::classic::{Lifetime, lifetime};
use hotspare_memcached::meta::{Status, Target, encode_flag, encode_status, encode_value_status, end_line};

use super::super::commands::{AHEAD_MAX, Executor};
use super::super::requests::Command;
use super::{Facts, Failure, KEY_BUFFER, encode_flags, expiry_of};

/// What `mg` tells of an item.
const LETTERS: &[u8] = b"cfhlst";

/// What a look at an item came to.
enum Look {
    /// It is answered, with a value of this length.
    Answered { bytes: usize, class: usize },
    /// Its token is to be had: that needs a write.
    TokenFree {
        /// Whether it was read before this look.
        is_fetched: bool,
        /// Seconds since it was accessed before this look.
        unread_s: u64,
    },
}

/// One with flags that change nothing (see `hotspare_memcached::meta::plain_get`).
#[derive(Clone, Copy)]
pub(crate) struct PlainGet<'a>(pub(crate) Target<'a>);

impl AsRef<[u8]> for PlainGet<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0.key.text()
    }
}

/// One `mg` under way.
struct Get<'a> {
    target: &'a Target<'a>,
    key: &'a [u8],
    /// Seconds that the item had to live before `T`, where that is asked for (rule D3).
    ttl_before_s: Option<Option<u64>>,
    /// A replica can't hand out tokens.
    may_win: bool,
}

impl Executor<'_> {
    pub(super) fn meta_get(&self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let ttl_before_s = self.ttl_before_s(target, key)?;
        let mut get = Get { target, key, ttl_before_s, may_win: true };
        // Once more only if another client came between a look and its write.
        loop {
            match self.look(&get, out)? {
                Some(Look::Answered { bytes, class }) => {
                    self.count_meta_get(&get, Some((bytes, class)));
                    return Ok(());
                }
                Some(Look::TokenFree { is_fetched, unread_s }) => {
                    match self.win(&get, is_fetched, unread_s, out) {
                        Ok(Some(found)) => {
                            self.count_meta_get(&get, Some(found));
                            return Ok(());
                        }
                        Ok(None) => {}
                        // The read itself can be answered; only nobody gets the token.
                        Err(_) => get.may_win = false,
                    }
                }
                None if self.vivify(&get, out)? => {
                    // What was made counts as found, as memcached has it.
                    let class = self.shared.cache.class_of(key.len(), 0, Expiry::Never);
                    self.count_meta_get(&get, Some((0, class)));
                    return Ok(());
                }
                None if target.flags.vivify_ttl().is_some() => {}
                None => {
                    self.count_meta_get(&get, None);
                    // Rule D7.
                    Self::meta_status(target, Status::Miss, Status::Miss, None, out);
                    return Ok(());
                }
            }
        }
    }

    /// Answers plain ones, at most [`AHEAD_MAX`], until the output is full, a read is refused, or one would win a token; gives how many.
    pub(crate) fn meta_get_each(
        &self,
        gets: &[PlainGet<'_>],
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let (mut found, mut answered) = ([None; AHEAD_MAX], 0);
        let read = self.shared.cache.read_while(gets, |at, item| {
            let PlainGet(target) = &gets[at];
            let get = Get { target, key: target.key.text(), ttl_before_s: None, may_win: true };
            match &item {
                Some(item) if self.is_token_free(&get, item) => return ControlFlow::Break(()),
                Some(item) => {
                    self.encode_hit(&get, item, self.facts(target, item), false, out);
                    found[at] = Some((item.value.len(), item.value.class()));
                }
                None => Self::meta_status(target, Status::Miss, Status::Miss, None, out),
            }
            answered = at + 1;
            self.goes_on(out, output_bytes_max)
        });
        // Who is refused, or wins, asks once more, alone.
        let _ = read;
        for (get, found) in gets[..answered].iter().zip(found) {
            self.note_read(get.as_ref(), found, false);
        }
        self.counters.cmd_meta.add(answered as u64);
        self.counters.requests.count_several(Command::MetaGet, answered);
        answered
    }

    /// `found`: the value's length, and its item's class.
    fn count_meta_get(&self, get: &Get<'_>, found: Option<(usize, usize)>) {
        // What was not found was not touched: memcached counts the miss of a get.
        let is_touched = get.target.flags.ttl().is_some() && found.is_some();
        self.count_read(found.map(|(_, class)| class), is_touched);
        self.saw_get(get.key, found);
    }

    /// Rule D3: `t` before `T` tells the old time to live, `R` before `T` compares with it.
    fn ttl_before_s(&self, target: &Target<'_>, key: &[u8]) -> Result<Option<Option<u64>>, Failure> {
        let flags = &target.flags;
        let is_asked = flags.ttl().is_some() && (flags.is_before(b't', b'T') || flags.is_before(b'R', b'T'));
        if !is_asked {
            return Ok(None);
        }
        Ok(self.shared.cache.peek(key, |item| self.ttl_s(item.expires_at_ms))?)
    }

    fn look(&self, get: &Get<'_>, out: &mut Vec<u8>) -> Result<Option<Look>, Failure> {
        let cache = &self.shared.cache;
        let look = |item: ItemRef<'_>| {
            let is_token_free = self.is_token_free(get, &item);
            // An item that `T` has ended is a hit once more, and nobody else can win its token (rules D3, X1).
            let has_ttl = get.target.flags.ttl().is_some();
            let is_over = has_ttl && item.expires_at_ms.is_some_and(|moment| moment <= cache.now_ms());
            if is_token_free && !is_over {
                return Look::TokenFree { is_fetched: item.is_fetched, unread_s: self.unread_s(&item) };
            }
            self.encode_hit(get, &item, self.facts(get.target, &item), is_token_free, out);
            Look::Answered { bytes: item.value.len(), class: item.value.class() }
        };
        let flags = &get.target.flags;
        Ok(match flags.ttl() {
            Some(ttl) if flags.has(b'u') => cache.peek_and_touch(get.key, self.expiry(ttl), look)?,
            Some(ttl) => cache.read_and_touch(get.key, self.expiry(ttl), look)?,
            None if flags.has(b'u') => cache.peek(get.key, look)?,
            None => cache.read(get.key, look)?,
        })
    }

    /// Whether this read is to get the token: nobody has it, and the item is stale or has too little time to live
    /// (rules D5, D6).
    fn is_token_free(&self, get: &Get<'_>, item: &ItemRef<'_>) -> bool {
        if !get.may_win || item.state.is_token_sent {
            return false;
        }
        let flags = &get.target.flags;
        let is_ending = || {
            let ttl_s = match get.ttl_before_s {
                Some(before) if flags.is_before(b'R', b'T') => before,
                _ => self.ttl_s(item.expires_at_ms),
            };
            let wanted_s = flags.recache_ttl().map(|seconds| match lifetime(seconds) {
                Lifetime::Never | Lifetime::AlreadyExpired => 0,
                Lifetime::Seconds(seconds) => seconds,
                Lifetime::UnixTime(moment) => moment.saturating_sub(self.shared.cache.now_ms() / 1000),
            });
            ttl_s.zip(wanted_s).is_some_and(|(left, wanted)| left < wanted)
        };
        item.state.is_stale || is_ending()
    }

    /// Takes the token, answers and gives the value's length and its item's class; `None` if somebody else was faster, or the item has gone.
    fn win(
        &self,
        get: &Get<'_>,
        is_fetched: bool,
        unread_s: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<(usize, usize)>, WriteError> {
        let start = out.len();
        let mut found = (0, 0);
        let cache = &self.shared.cache;
        let updated = cache.update(get.key, |item| {
            // Not the first time, if memory had to be got from other shards.
            self.outgoing.rewind(start, out);
            let Some(item) = item.filter(|item| self.is_token_free(get, item)) else { return Update::Keep };
            found = (item.value.len(), item.value.class());
            self.encode_hit(
                get,
                &item,
                Facts { is_fetched, unread_s, ..self.facts(get.target, &item) },
                true,
                out,
            );
            Update::StoreWith {
                value: item.value.to_vec().into(),
                attributes: Attributes { flags: item.flags, expiry: expiry_of(&item) },
                state: ItemState { client_cas: Some(item.cas()), is_token_sent: true, ..item.state },
            }
        });
        match updated {
            Ok(Updated::Stored(_)) => {
                if is_fetched || !get.target.flags.has(b'u') {
                    // What was stored anew counts as unread: this was a read.
                    self.count_as_read(get.key);
                }
                Ok(Some(found))
            }
            Ok(_) => Ok(None),
            Err(error) => {
                self.outgoing.rewind(start, out);
                Err(error)
            }
        }
    }

    /// Makes an empty item whose token this client has, and answers (rule D4); false if it was not asked to, or an
    /// item is there by now.
    fn vivify(&self, get: &Get<'_>, out: &mut Vec<u8>) -> Result<bool, WriteError> {
        let flags = &get.target.flags;
        let (Some(ttl), told_ttl) = flags.vivified_ttls() else { return Ok(false) };
        if flags.vivify_ttl().is_none() {
            return Ok(false);
        }
        let is_key_binary = get.target.key.is_binary();
        let expiry = self.expiry(ttl);
        let updated = self.shared.cache.update(get.key, |item| match item {
            Some(_) => Update::Keep,
            None => Update::StoreWith {
                value: Bytes::new(),
                attributes: expiry.into(),
                state: ItemState {
                    client_cas: flags.new_cas(),
                    is_token_sent: true,
                    is_key_binary,
                    ..ItemState::default()
                },
            },
        })?;
        let Updated::Stored(version) = updated else { return Ok(false) };
        if !flags.has(b'u') {
            // The next one finds it fetched: this was the first access.
            self.count_as_read(get.key);
        }
        let facts = Facts {
            cas: self.shared.settings.shown_cas(flags.new_cas().unwrap_or(version.0)),
            client_flags: 0,
            is_fetched: false,
            unread_s: 0,
            is_key_binary,
            bytes: 0,
            ttl_s: self.ttl_s(told_ttl.and_then(|ttl| self.expires_at_ms(self.expiry(ttl)))),
        };
        begin_hit(get.target, &facts, out);
        encode_flag(b"W", out);
        end_line(out);
        if is_value_wanted(get.target, &facts) {
            end_line(out);
        }
        Ok(true)
    }

    /// The whole answer to a hit.
    fn encode_hit(
        &self,
        get: &Get<'_>,
        item: &ItemRef<'_>,
        mut facts: Facts,
        has_won: bool,
        out: &mut Vec<u8>,
    ) {
        if let Some(before) = get.ttl_before_s
            && get.target.flags.is_before(b't', b'T')
        {
            facts.ttl_s = before;
        }
        begin_hit(get.target, &facts, out);
        // Rule D6.
        for (is_so, word) in [(item.state.is_token_sent, b"Z"), (item.state.is_stale, b"X"), (has_won, b"W")]
        {
            if is_so {
                encode_flag(word, out);
            }
        }
        end_line(out);
        if is_value_wanted(get.target, &facts) {
            self.outgoing.append(&item.value, out);
            end_line(out);
        }
    }
}

/// A value that the client has already is withheld (rule D2).
fn is_value_wanted(target: &Target<'_>, facts: &Facts) -> bool {
    target.flags.has(b'v') && target.flags.compare_cas() != Some(facts.cas)
}

fn begin_hit(target: &Target<'_>, facts: &Facts, out: &mut Vec<u8>) {
    match is_value_wanted(target, facts) {
        true => encode_value_status(facts.bytes, out),
        false => encode_status(Status::Ok, out),
    }
    encode_flags(target, Some((LETTERS, facts)), out);
}
