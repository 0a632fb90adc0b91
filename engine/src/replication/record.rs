//! A mutation's bytes: what the log keeps is what the wire carries.
//!
//! Lives here: encoding and decoding of one [`Mutation`]. Not here: many of them in a frame (see `message`).
//! Kinds are only ever added behind the last one; the golden test pins the bytes of each.

use serde::{Deserialize, Serialize};

use crate::mutation::{KEY_BYTES_MAX, Marks, Mutation, Version};

/// What a record adds to key and value, at most.
pub(crate) const RECORD_HEAD_BYTES: usize = 64;

#[derive(Serialize, Deserialize)]
enum Record<'a> {
    Put {
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        flags: u32,
        expires_at_ms: u64,
        /// A client's own CAS: a field of its own, since the version is always the log's.
        client_cas: Option<u64>,
        marks: u8,
    },
    Touch {
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        version: u64,
        expires_at_ms: u64,
    },
    Delete {
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
    },
    Flush,
    FlushAt {
        at_ms: u64,
    },
    FlushPrefix {
        #[serde(borrow, with = "serde_bytes")]
        prefix: &'a [u8],
    },
    LendLoad {
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        node: u128,
        until_ms: u64,
        is_primarys: bool,
    },
    EndLoad {
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
    },
}

/// What a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One item: dropping that key undoes it. A put, a touch or a delete.
    Item,
    /// Who loads a key; no item. Nodes of an older version don't know these records.
    Load,
    /// More than one item: a flush of any kind.
    Many,
}

/// Looks at the kind only, since it is asked of each record that is appended.
#[inline]
pub(crate) fn scope_of(bytes: &[u8]) -> Scope {
    match bytes.first() {
        Some(0..=2) => Scope::Item,
        Some(6..=7) => Scope::Load,
        _ => Scope::Many,
    }
}

/// A record that no node of this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRecord;

/// Appends the bytes of `mutation` to `out`.
#[inline]
pub(crate) fn encode(mutation: &Mutation<'_>, out: &mut Vec<u8>) {
    match *mutation {
        Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas: None } => {
            encode_put(key, value, flags, expires_at_ms, marks, out);
        }
        ref other => encode_by_serde(other, out),
    }
}

/// The bytes that [`encode_by_serde`] gives for a put, in a third of the instructions: nearly every record is one.
fn encode_put(key: &[u8], value: &[u8], flags: u32, expires_at_ms: u64, marks: Marks, out: &mut Vec<u8>) {
    const KIND: u8 = 0;
    const NO_CLIENT_CAS: u8 = 0;
    out.reserve(key.len() + value.len() + 40);
    // Most lengths are one byte each, and most items have neither flags nor an expiry: fewer pieces take fewer instructions.
    if key.len() <= SHORT_MAX {
        out.extend_from_slice(&[KIND, key.len() as u8]);
    } else {
        out.push(KIND);
        push_varint(key.len() as u64, out);
    }
    out.extend_from_slice(key);
    push_varint(value.len() as u64, out);
    out.extend_from_slice(value);
    if u64::from(flags) | expires_at_ms == 0 {
        return out.extend_from_slice(&[0, 0, NO_CLIENT_CAS, marks.0]);
    }
    push_varint(u64::from(flags), out);
    push_varint(expires_at_ms, out);
    out.extend_from_slice(&[NO_CLIENT_CAS, marks.0]);
}

/// The longest key and value whose length takes one byte.
const SHORT_MAX: usize = 0x7f;

/// Whether both lengths take one byte.
#[inline(always)]
pub(crate) fn is_short(key: &[u8], value: &[u8]) -> bool {
    key.len().max(value.len()) <= SHORT_MAX
}

/// How many bytes [`write_plain_put`] writes; `IS_SHORT` is [`is_short`].
#[inline(always)]
pub(crate) fn plain_put_bytes<const IS_SHORT: bool>(key: &[u8], value: &[u8]) -> usize {
    debug_assert_eq!(IS_SHORT, is_short(key, value));
    let varint_bytes = |length: usize| (usize::BITS - (length | 1).leading_zeros()).div_ceil(7) as usize;
    let lengths = if IS_SHORT { 2 } else { varint_bytes(key.len()) + varint_bytes(value.len()) };
    1 + lengths + key.len() + value.len() + PLAIN_END_BYTES
}

/// What follows the value: flags, expiry, whether a client gave a CAS, marks.
const PLAIN_END_BYTES: usize = 4;

/// Writes what [`encode`] gives for a put of an item that has nothing but key and value; `out` is as long as that.
#[inline(always)]
pub(crate) fn write_plain_put<const IS_SHORT: bool>(key: &[u8], value: &[u8], marks: Marks, out: &mut [u8]) {
    if IS_SHORT {
        let (head, rest) = out.split_at_mut(2 + key.len());
        head[0] = 0;
        head[1] = key.len() as u8;
        copy_short(key, &mut head[2..]);
        rest[0] = value.len() as u8;
        let (place, end) = rest[1..].split_at_mut(value.len());
        copy_short(value, place);
        *end.first_chunk_mut().expect(LONG_ENOUGH) = [0, 0, 0, marks.0];
        return;
    }
    let (kind, mut rest) = out.split_first_mut().expect(LONG_ENOUGH);
    *kind = 0;
    for bytes in [key, value] {
        rest = write_varint(bytes.len(), rest);
        let (place, behind) = rest.split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        rest = behind;
    }
    *rest.first_chunk_mut().expect(LONG_ENOUGH) = [0, 0, 0, marks.0];
}

const LONG_ENOUGH: &str = "the caller has asked how many bytes it takes";

/// [`push_varint`] into what is there; gives the rest.
fn write_varint(mut number: usize, mut out: &mut [u8]) -> &mut [u8] {
    loop {
        let (byte, rest) = out.split_first_mut().expect(LONG_ENOUGH);
        out = rest;
        if number <= SHORT_MAX {
            *byte = number as u8;
            return out;
        }
        *byte = number as u8 | 0x80;
        number >>= 7;
    }
}

/// Copies to a place of the same length, without a call where it is few bytes.
#[inline(always)]
fn copy_short(from: &[u8], to: &mut [u8]) {
    match from.len() {
        // The longer ones first: they have more to lose.
        33.. => match from.len() {
            33..=64 => copy_ends::<32>(from, to),
            65..=128 => copy_ends::<64>(from, to),
            _ => to.copy_from_slice(from),
        },
        17.. => copy_ends::<16>(from, to),
        8.. => copy_ends::<8>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first `N` and the last `N` bytes, which are all.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(first), Some(place)) = (from.first_chunk::<N>(), to.first_chunk_mut()) {
        *place = *first;
    }
    if let (Some(last), Some(place)) = (from.last_chunk::<N>(), to.last_chunk_mut()) {
        *place = *last;
    }
}

/// A number as postcard writes it: seven bits a byte, the lowest first, the highest bit set where more follow.
#[inline]
fn push_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn encode_by_serde(mutation: &Mutation<'_>, out: &mut Vec<u8>) {
    let record = match *mutation {
        Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas } => {
            Record::Put { key, value, flags, expires_at_ms, client_cas, marks: marks.0 }
        }
        Mutation::Touch { key, version, expires_at_ms } => {
            Record::Touch { key, version: version.0, expires_at_ms }
        }
        Mutation::Delete { key } => Record::Delete { key },
        Mutation::Flush => Record::Flush,
        Mutation::FlushAt { at_ms } => Record::FlushAt { at_ms },
        Mutation::FlushPrefix { prefix } => Record::FlushPrefix { prefix },
        Mutation::LendLoad { key, node, until_ms, is_primarys } => {
            Record::LendLoad { key, node, until_ms, is_primarys }
        }
        Mutation::EndLoad { key } => Record::EndLoad { key },
    };
    let buffer = std::mem::take(out);
    *out = postcard::to_extend(&record, buffer).expect("a vector takes any number of bytes");
}

/// What [`decode_by_serde`] gives for a put of an item that has nothing but key and value, in a third of the instructions; `None`
/// if it is anything else, or longer.
#[inline]
fn decode_plain_put(bytes: &[u8]) -> Option<Mutation<'_>> {
    const SHORT: u8 = SHORT_MAX as u8;
    let [0, key_bytes @ ..=SHORT, rest @ ..] = bytes else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_bytes))?;
    let (value_bytes, rest) = match *rest {
        [low @ ..=SHORT, ref rest @ ..] => (usize::from(low), rest),
        [low, high @ ..=SHORT, ref rest @ ..] => (usize::from(low & SHORT) | usize::from(high) << 7, rest),
        _ => return None,
    };
    let (value, end) = rest.split_at_checked(value_bytes)?;
    let [0, 0, 0, marks] = *end else { return None };
    Some(Mutation::Put { key, value, flags: 0, expires_at_ms: 0, marks: Marks(marks), client_cas: None })
}

/// Reads one mutation, which must fill `bytes` exactly.
pub(crate) fn decode(bytes: &[u8]) -> Result<Mutation<'_>, BadRecord> {
    let mutation = match decode_plain_put(bytes) {
        Some(put) => put,
        None => decode_by_serde(bytes)?,
    };
    if mutation.key().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        return Err(BadRecord);
    }
    match mutation {
        Mutation::Put { value, flags, expires_at_ms, marks, client_cas, .. }
            if !marks.fit(value.len() as u64, flags, expires_at_ms, client_cas) =>
        {
            Err(BadRecord)
        }
        Mutation::FlushPrefix { prefix } if prefix.is_empty() || prefix.len() > KEY_BYTES_MAX => {
            Err(BadRecord)
        }
        sound => Ok(sound),
    }
}

fn decode_by_serde(bytes: &[u8]) -> Result<Mutation<'_>, BadRecord> {
    let (record, rest) = postcard::take_from_bytes::<Record<'_>>(bytes).map_err(|_| BadRecord)?;
    if !rest.is_empty() {
        return Err(BadRecord);
    }
    Ok(match record {
        Record::Put { key, value, flags, expires_at_ms, client_cas, marks } => {
            Mutation::Put { key, value, flags, expires_at_ms, marks: Marks(marks), client_cas }
        }
        Record::Touch { key, version, expires_at_ms } => {
            Mutation::Touch { key, version: Version(version), expires_at_ms }
        }
        Record::Delete { key } => Mutation::Delete { key },
        Record::Flush => Mutation::Flush,
        Record::FlushAt { at_ms } => Mutation::FlushAt { at_ms },
        Record::FlushPrefix { prefix } => Mutation::FlushPrefix { prefix },
        Record::LendLoad { key, node, until_ms, is_primarys } => {
            Mutation::LendLoad { key, node, until_ms, is_primarys }
        }
        Record::EndLoad { key } => Mutation::EndLoad { key },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(mutation: &Mutation<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(mutation, &mut out);
        out
    }

    #[test]
    fn each_record_has_its_golden_bytes() {
        let put = Mutation::Put {
            key: b"k",
            value: b"vv",
            flags: 300,
            expires_at_ms: 5,
            marks: Marks(1),
            client_cas: None,
        };
        assert_eq!(bytes_of(&put), [0, 1, b'k', 2, b'v', b'v', 0xac, 2, 5, 0, 1]);
        let touch = Mutation::Touch { key: b"k", version: Version(129), expires_at_ms: 0 };
        assert_eq!(bytes_of(&touch), [1, 1, b'k', 0x81, 1, 0]);
        assert_eq!(bytes_of(&Mutation::Delete { key: b"kk" }), [2, 2, b'k', b'k']);
        assert_eq!(bytes_of(&Mutation::Flush), [3]);
        assert_eq!(bytes_of(&Mutation::FlushAt { at_ms: 7 }), [4, 7]);
        assert_eq!(bytes_of(&Mutation::FlushPrefix { prefix: b"u:" }), [5, 2, b'u', b':']);
        let lend = Mutation::LendLoad { key: b"k", node: 300, until_ms: 7, is_primarys: true };
        assert_eq!(bytes_of(&lend), [6, 1, b'k', 0xac, 2, 7, 1]);
        assert_eq!(bytes_of(&Mutation::EndLoad { key: b"kk" }), [7, 2, b'k', b'k']);
        let prefix = Mutation::FlushPrefix { prefix: b"k" };
        for (scope, mutations) in [
            (Scope::Item, [put, touch, Mutation::Delete { key: b"k" }]),
            (Scope::Load, [lend, Mutation::EndLoad { key: b"k" }, lend]),
            (Scope::Many, [Mutation::Flush, Mutation::FlushAt { at_ms: 7 }, prefix]),
        ] {
            assert!(mutations.iter().all(|mutation| scope_of(&bytes_of(mutation)) == scope), "{scope:?}");
        }
    }

    #[test]
    fn puts_are_written_as_serde_writes_them() {
        for size in [0, 1, 127, 128, 300, 16_383, 16_384, 70_000] {
            for number in [0, 1, 127, 128, u32::MAX] {
                let mutation = Mutation::Put {
                    key: &vec![7; size.clamp(1, KEY_BYTES_MAX)],
                    value: &vec![9; size],
                    flags: number,
                    expires_at_ms: u64::from(number) << 21,
                    marks: Marks(number as u8),
                    client_cas: None,
                };
                let mut by_serde = Vec::new();
                encode_by_serde(&mutation, &mut by_serde);
                assert_eq!(bytes_of(&mutation), by_serde);
            }
        }
    }

    #[test]
    fn plain_puts_are_written_in_place_as_they_are_encoded() {
        for key_bytes in [1, 7, 8, 16, 17, 127, 128, KEY_BYTES_MAX] {
            for value_bytes in (0..140).chain([300, 16_383, 16_384, 70_000]) {
                let key: Vec<u8> = (0..key_bytes).map(|at| at as u8).collect();
                let value: Vec<u8> = (0..value_bytes).map(|at| (at * 7) as u8 ^ 0x55).collect();
                let put = Mutation::Put {
                    key: &key,
                    value: &value,
                    flags: 0,
                    expires_at_ms: 0,
                    marks: Marks(9),
                    client_cas: None,
                };
                let mut out = Vec::new();
                if is_short(&key, &value) {
                    out.resize(plain_put_bytes::<true>(&key, &value), 0xee);
                    write_plain_put::<true>(&key, &value, Marks(9), &mut out);
                } else {
                    out.resize(plain_put_bytes::<false>(&key, &value), 0xee);
                    write_plain_put::<false>(&key, &value, Marks(9), &mut out);
                }
                assert_eq!(out, bytes_of(&put), "{key_bytes} and {value_bytes} bytes");
            }
        }
    }

    /// A few bytes of each place changed, cut short and drawn out: lengths that lie, numbers in more bytes than they need.
    #[test]
    fn puts_are_read_as_serde_reads_them_whatever_the_bytes_say() {
        let mut plain = 0;
        for (key_bytes, value_bytes) in
            [(1, 0), (1, 1), (3, 2), (127, 3), (128, 3), (2, 127), (2, 128), (2, 300)]
        {
            let put = bytes_of(&Mutation::Put {
                key: &vec![b'k'; key_bytes],
                value: &vec![b'v'; value_bytes],
                flags: 0,
                expires_at_ms: 0,
                marks: Marks(8),
                client_cas: None,
            });
            let mut check = |bytes: &[u8]| {
                if let Some(read) = decode_plain_put(bytes) {
                    assert_eq!(Ok(read), decode_by_serde(bytes), "{bytes:?}");
                    plain += 1;
                }
            };
            check(&put);
            for at in 0..put.len() {
                check(&put[..at]);
                for byte in [0, 1, 2, 3, 4, 0x7f, 0x80, 0x81, 0xff] {
                    let mut other = put.clone();
                    other[at] = byte;
                    check(&other);
                    other.insert(at, 0x80);
                    check(&other);
                    other[at] = 0;
                    check(&other);
                }
            }
        }
        assert!(plain > 1_000, "{plain}");
        let put = |key: &[u8], value: &[u8]| {
            let (client_cas, marks) = (None, Marks(8));
            bytes_of(&Mutation::Put { key, value, flags: 0, expires_at_ms: 0, marks, client_cas })
        };
        assert!(decode_plain_put(&put(&[b'k'; 127], &[b'v'; 16_383])).is_some());
        assert!(decode_plain_put(&put(&[b'k'; 128], b"v")).is_none());
        assert!(decode_plain_put(&put(b"k", &[b'v'; 16_384])).is_none());
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let put = Mutation::Put {
            key: b"key",
            value: &[0; 999],
            flags: 9,
            expires_at_ms: 1 << 40,
            marks: Marks(3),
            client_cas: Some(1 << 50),
        };
        assert_eq!(decode(&bytes_of(&put)), Ok(put));
        let lend = Mutation::LendLoad { key: b"k", node: 1 << 127, until_ms: 1 << 63, is_primarys: false };
        for other in [Mutation::Flush, lend, Mutation::EndLoad { key: b"k" }] {
            assert_eq!(decode(&bytes_of(&other)), Ok(other));
        }
    }

    #[test]
    fn an_absence_that_does_not_expire_or_has_more_than_a_key_is_refused() {
        let marks = Marks(Marks::absence().0 | Marks::default().in_main().read(3).0);
        let sound =
            Mutation::Put { key: b"k", value: b"", flags: 0, expires_at_ms: 5, marks, client_cas: None };
        assert_eq!(decode(&bytes_of(&sound)), Ok(sound));
        let stale = Marks(marks.0 | Marks::of_state(true, false, false).0);
        let sent = Marks(marks.0 | Marks::of_state(false, true, false).0);
        let binary = Marks(marks.0 | Marks::of_state(false, false, true).0);
        let Mutation::Put { key, value, flags, expires_at_ms, client_cas, .. } = sound else {
            unreachable!()
        };
        let bad = [
            Mutation::Put { key, value, flags, expires_at_ms: 0, marks, client_cas },
            Mutation::Put { key, value: b"v", flags, expires_at_ms, marks, client_cas },
            Mutation::Put { key, value, flags: 1, expires_at_ms, marks, client_cas },
            Mutation::Put { key, value, flags, expires_at_ms, marks, client_cas: Some(1) },
            Mutation::Put { key, value, flags, expires_at_ms, marks: stale, client_cas },
            Mutation::Put { key, value, flags, expires_at_ms, marks: sent, client_cas },
            Mutation::Put { key, value, flags, expires_at_ms, marks: binary, client_cas },
        ];
        for mutation in bad {
            assert_eq!(decode(&bytes_of(&mutation)), Err(BadRecord), "{mutation:?}");
        }
    }

    #[test]
    fn cut_short_surplus_and_empty_keys_are_refused() {
        let put = bytes_of(&Mutation::Put {
            key: b"k",
            value: b"v",
            flags: 0,
            expires_at_ms: 0,
            marks: Marks(0),
            client_cas: None,
        });
        for cut in 0..put.len() {
            assert_eq!(decode(&put[..cut]), Err(BadRecord));
        }
        assert_eq!(decode(&[put.as_slice(), &[0]].concat()), Err(BadRecord));
        assert_eq!(decode(&[2, 0]), Err(BadRecord));
        assert_eq!(decode(&[5, 0]), Err(BadRecord));
        assert_eq!(decode(&[6, 0, 1, 1, 0]), Err(BadRecord));
        assert_eq!(decode(&[7, 0]), Err(BadRecord));
        assert_eq!(decode(&[8]), Err(BadRecord));
    }
}
