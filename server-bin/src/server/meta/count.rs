//! `ma`: counters (rule D12).

use hotspare::{Attributes, CounterError, ItemRef, ItemState, Update, Updated, WriteError};
use hotspare_memcached::classic::{Direction, Response};
use hotspare_memcached::meta::{Flags, Status, Target, encode_status, encode_value_status, end_line};

use super::super::commands::{Executor, is_plainly_no_number};
use super::{Facts, KEY_BUFFER, encode_flags, expiry_of, is_cas_right_unless_0};

/// What `ma` tells of an item.
const LETTERS: &[u8] = b"ct";

/// What a count came to.
enum Counted {
    /// This is the number now.
    Number {
        number: u64,
        /// The CAS, where it is known: where it was asked for.
        cas: u64,
        expires_at_ms: Option<u64>,
        /// The class of the item that was there.
        class: Option<usize>,
    },
    /// Nothing was changed.
    Refused(Status),
    /// The value is no number (rule A3).
    NotANumber,
}

impl Executor<'_> {
    pub(super) fn meta_count(
        &self,
        target: &Target<'_>,
        direction: Direction,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let counted = match self.count_plainly(key, &target.flags, direction)? {
            Some(counted) => counted,
            None => self.count_with(key, &target.flags, direction)?,
        };
        match counted {
            Counted::Number { number, cas, expires_at_ms, class } => {
                // What was made is neither found nor missed, as memcached has it.
                if class.is_some() {
                    self.count_count(direction, class);
                }
                self.saw_count(key, direction, number);
                let ttl_s = self.ttl_s(expires_at_ms);
                let is_key_binary = target.key.is_binary();
                let facts = Facts {
                    cas,
                    client_flags: 0,
                    is_fetched: false,
                    unread_s: 0,
                    is_key_binary,
                    bytes: 0,
                    ttl_s,
                };
                encode_number(target, number, class.is_none(), &facts, out);
            }
            Counted::Refused(status) => {
                if status == Status::NotFound {
                    self.count_count(direction, None);
                }
                Self::meta_status(target, status, Status::Ok, None, out);
            }
            Counted::NotANumber => {
                Response::ClientError(b"cannot increment or decrement non-numeric value").encode(out);
            }
        }
        Ok(())
    }

    /// A hit without conditions, of which only the number is wanted: the cache has a call for it, which keeps what
    /// it knows of the item's use. `None` where it is not so simple.
    fn count_plainly(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        direction: Direction,
    ) -> Result<Option<Counted>, WriteError> {
        if b"CETct".iter().any(|letter| flags.has(*letter)) {
            return Ok(None);
        }
        let delta = flags.delta().unwrap_or(1);
        let counted = match direction {
            Direction::Up => self.shared.cache.incr(key, delta),
            Direction::Down => self.shared.cache.decr(key, delta),
        };
        match counted {
            Ok(Some(number)) => {
                let class = Some(self.shared.cache.class_found());
                Ok(Some(Counted::Number { number, cas: 0, expires_at_ms: None, class }))
            }
            Ok(None) if flags.vivify_ttl().is_some() => Ok(None),
            Ok(None) => Ok(Some(Counted::Refused(Status::NotFound))),
            Err(CounterError::Write(error)) => Err(error),
            Err(_) => Ok(Some(Counted::NotANumber)),
        }
    }

    fn count_with(&self, key: &[u8], flags: &Flags<'_>, direction: Direction) -> Result<Counted, WriteError> {
        let mut counted = Counted::NotANumber;
        // As with mg: `t` before `T` tells the old time to live (rule D3).
        let tells_old_ttl = flags.is_before(b't', b'T') && flags.has(b'T');
        let mut was_fetched = false;
        let updated = self.shared.cache.update(key, |item| {
            let (number, old_bytes, attributes) = match self.decide_count(item, flags, direction) {
                Ok(decided) => decided,
                Err(refusal) => {
                    counted = refusal;
                    return Update::Keep;
                }
            };
            let expires_at_ms = match item {
                Some(item) if tells_old_ttl => item.expires_at_ms,
                None => flags.vivified_ttls().1.and_then(|ttl| self.expires_at_ms(self.expiry(ttl))),
                _ => self.expires_at_ms(attributes.expiry),
            };
            let class = item.map(|item| item.value.class());
            counted = Counted::Number { number, cas: 0, expires_at_ms, class };
            // Rule A5: padded to the length that was there.
            let value = format!("{number:<old_bytes$}");
            // As memcached has it, a number written in place leaves the item's marks; one that grows is an item anew.
            let is_in_place = value.len() == old_bytes;
            was_fetched = item.is_some_and(|item| is_in_place && item.is_fetched);
            let is_key_binary = item.map_or(flags.has(b'b'), |item| item.state.is_key_binary);
            let marks = item.filter(|_| is_in_place).map_or(ItemState::default(), |item| item.state);
            let state = ItemState { client_cas: flags.new_cas(), is_key_binary, ..marks };
            Update::StoreWith { value: value.into(), attributes, state }
        })?;
        if was_fetched {
            // What was stored anew counts as unread.
            self.count_as_read(key);
        }
        if let (Updated::Stored(version), Counted::Number { cas, .. }) = (updated, &mut counted) {
            *cas = self.shared.settings.shown_cas(flags.new_cas().unwrap_or(version.0));
        }
        Ok(counted)
    }

    /// The number to store, the length that it is padded to, and flags and expiry with it.
    fn decide_count(
        &self,
        item: Option<ItemRef<'_>>,
        flags: &Flags<'_>,
        direction: Direction,
    ) -> Result<(u64, usize, Attributes), Counted> {
        let Some(item) = item else {
            flags.vivify_ttl().ok_or(Counted::Refused(Status::NotFound))?;
            let ttl = flags.vivified_ttls().0.unwrap_or_default();
            return Ok((flags.initial().unwrap_or_default(), 0, self.expiry(ttl).into()));
        };
        if is_plainly_no_number(item.value.len()) {
            return Err(Counted::NotANumber);
        }
        if !is_cas_right_unless_0(flags, &item) {
            return Err(Counted::Refused(Status::Exists));
        }
        let number = item.value.as_slice().and_then(parse_number).ok_or(Counted::NotANumber)?;
        let delta = flags.delta().unwrap_or(1);
        let number = match direction {
            Direction::Up => number.wrapping_add(delta),
            Direction::Down => number.saturating_sub(delta),
        };
        let expiry = flags.ttl().map_or(expiry_of(&item), |ttl| self.expiry(ttl));
        Ok((number, item.value.len(), Attributes { flags: item.flags, expiry }))
    }
}

/// The number that a value spells, as the engine's own counters read it: spaces, digits, then the end or a space
/// (rules A3, Z1).
fn parse_number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_start();
    let length = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let ends_well = digits.get(length).is_none_or(u8::is_ascii_whitespace);
    let number = std::str::from_utf8(&digits[..length]).ok()?.parse().ok();
    number.filter(|_| ends_well)
}

/// A number that was counted is the boring answer of `ma` (rule M5), one that was made is not.
fn encode_number(target: &Target<'_>, number: u64, is_made: bool, facts: &Facts, out: &mut Vec<u8>) {
    if target.flags.has(b'q') && !is_made {
        return;
    }
    let text = number.to_string();
    let has_value = target.flags.has(b'v');
    match has_value {
        true => encode_value_status(text.len(), out),
        false => encode_status(Status::Ok, out),
    }
    encode_flags(target, Some((LETTERS, facts)), out);
    end_line(out);
    if has_value {
        out.extend_from_slice(text.as_bytes());
        end_line(out);
    }
}
