//! Binary packets, at random: mostly sound, some nearly so.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::request::{KEY_BYTES, Part, Request};
use super::text;

const KEYS: u8 = 4;
/// Opcodes of rule B2 that act on a key, and a few others.
const OPCODES: &[u8] = &[
    0x00, 0x00, 0x01, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x09, 0x0a, 0x0c, 0x0d, 0x0e, 0x0f, 0x11,
    0x12, 0x13, 0x14, 0x15, 0x16, 0x19, 0x1a, 0x1c, 0x1d, 0x1e, 0x23, 0x24,
];
/// Opcodes that act on no key, some of which are nobody's (rule B2).
const RARE_OPCODES: &[u8] = &[
    0x07, 0x08, 0x08, 0x17, 0x18, 0x18, 0x0b, 0x0b, 0x10, 0x10, 0x10, 0x1b, 0x1f, 0x20, 0x21, 0x22, 0x25,
    0x30, 0x40, 0x7f, 0xff,
];
/// Tables of statistics (rule B8).
const TABLES: &[&str] = &[
    "",
    "settings",
    "items",
    "slabs",
    "sizes",
    "conns",
    "nothing",
    "detail",
    "detail on",
    "detail off",
    "reset",
];
const EXPIRIES: &[u32] = &[0, 0, 0, 500, 2_592_000, 2_147_483_000, 2_592_001, u32::MAX];

fn numbers(rng: &mut StdRng, opcode: u8) -> Vec<u8> {
    let expiry = *EXPIRIES.choose(rng).unwrap_or(&0);
    match opcode {
        0x01..=0x03 | 0x11..=0x13 => [rng.random_range(0..3u32), expiry].map(u32::to_be_bytes).concat(),
        0x05 | 0x06 | 0x15 | 0x16 => {
            let delta = *[1u64, 7, 1000, u64::MAX].choose(rng).unwrap_or(&1);
            let initial = *[0u64, 5, 1000, u64::MAX].choose(rng).unwrap_or(&1);
            [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &expiry.to_be_bytes()].concat()
        }
        0x1c | 0x1d | 0x1e | 0x23 | 0x24 => expiry.to_be_bytes().to_vec(),
        0x08 | 0x18 if rng.random_bool(0.5) => {
            [0u32, 100_000].choose(rng).unwrap_or(&0).to_be_bytes().to_vec()
        }
        _ => Vec::new(),
    }
}

/// Of unknown opcodes none: memcached 1.6.18 skips key and extras twice, and takes the next packet with them.
fn has_key(opcode: u8) -> bool {
    matches!(opcode, 0x00..=0x06 | 0x09 | 0x0c..=0x0f | 0x11..=0x16 | 0x19 | 0x1a | 0x1c..=0x1e | 0x23 | 0x24)
}

fn has_value(opcode: u8) -> bool {
    matches!(opcode, 0x01..=0x03 | 0x0e | 0x0f | 0x11..=0x13 | 0x19 | 0x1a)
}

/// One packet.
pub(super) fn request(rng: &mut StdRng) -> Request {
    let opcodes = if rng.random_bool(0.03) { RARE_OPCODES } else { OPCODES };
    let opcode = *opcodes.choose(rng).unwrap_or(&0);
    let mut extras = numbers(rng, opcode);
    let mut key = if has_key(opcode) { vec![Part::Key(rng.random_range(0..KEYS))] } else { Vec::new() };
    let mut key_bytes = key.len() * KEY_BYTES;
    let mut value = if has_value(opcode) { text::value(rng) } else { Vec::new() };
    let mut magic = 0x80;
    let mut stated_by = 0i64;
    match opcode {
        0x10 => {
            key = vec![Part::bytes(text::pick(rng, TABLES))];
            key_bytes = key.iter().map(Part::len).sum();
        }
        0x21 | 0x22 => {
            (key, key_bytes) = (vec![Part::bytes("PLAIN")], 5);
            value = b"\0name\0password".to_vec();
        }
        // Of opcodes that are nobody's only a value, see above.
        0x1b | 0x1f | 0x25.. => value = vec![b'v'; rng.random_range(0..40)],
        _ => {}
    }
    // Nearly sound: one length that does not fit, mostly the end of the connection.
    let is_unknown = matches!(opcode, 0x1b | 0x1f..=0x22 | 0x25..);
    match rng.random_range(0..1000) {
        _ if is_unknown => {}
        0..6 => extras.resize(rng.random_range(0..25), 0),
        6..9 => (key, key_bytes) = (Vec::new(), 0),
        9..14 => {
            let bytes = rng.random_range(249..253);
            key = vec![Part::Key(0), Part::Bytes(vec![b'l'; bytes - KEY_BYTES])];
            key_bytes = bytes;
        }
        14..17 => value.push(b'v'),
        17..19 => magic = 0x81,
        19..22 => stated_by = -(key_bytes as i64) - 1,
        22..24 => stated_by = -(rng.random_range(0..40)),
        24..26 => (key, key_bytes) = (vec![Part::Key(0)], KEY_BYTES),
        26..28 => {
            (key, key_bytes) = (vec![Part::Key(1), Part::bytes(b"\0 \n\xff")], KEY_BYTES + 4);
        }
        _ => {}
    }
    let cas = match rng.random_range(0..100) {
        0..15 => Part::CasBytes(rng.random_range(0..KEYS), text::age(rng)),
        _ => Part::Bytes(vec![0; 8]),
    };
    let body = (extras.len() + key_bytes + value.len()) as i64 + stated_by;
    let mut head = vec![magic, opcode];
    head.extend_from_slice(&(key_bytes as u16).to_be_bytes());
    // The data type and the virtual bucket mean nothing.
    let reserved = if rng.random_bool(0.02) { [1, 0, 7] } else { [0; 3] };
    head.push(extras.len() as u8);
    head.extend_from_slice(&reserved);
    head.extend_from_slice(&(body.max(0) as u32).to_be_bytes());
    head.extend_from_slice(&rng.random_range(0..1u32 << 16).to_be_bytes());
    let mut parts = vec![Part::Bytes(head), cas, Part::Bytes(extras)];
    parts.extend(key);
    parts.push(Part::Bytes(value));
    Request { parts }
}
