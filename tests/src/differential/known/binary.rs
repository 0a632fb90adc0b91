//! What differs in binary packets.

use super::classic::CONTIGUOUS_BYTES_MIN;
use super::{After, Exchange, Known, Proof, Proven, Silent, when};

pub(super) const KNOWN: &[Known] = &[
    Known {
        rule: "B4",
        what: "a touch or stat with a body behind its key has wrong lengths: invalid arguments, not a miss",
        sees: |it, _| {
            let is_touch = matches!(it.request.get(1), Some(0x10 | 0x1c..=0x1e | 0x23 | 0x24));
            let has_body = value_bytes(it).is_some_and(|bytes| bytes > 0);
            when(
                is_touch && has_body && it.theirs.ends_with("<closed>") && is_refused(it, "04"),
                After::Parted,
            )
        },
    },
    Known {
        rule: "B4",
        what: "a bad packet's error comes before the connection is closed",
        sees: |it, _| {
            when(it.theirs == "<closed>" && (is_refused(it, "04") || is_refused(it, "81")), After::Parted)
        },
    },
    Known {
        rule: "B8",
        what: "the table of connections is there in packets, too",
        sees: |it, _| {
            let is_asked = it.request.get(1) == Some(&0x10) && it.request.get(24..) == Some(b"conns");
            let is_table = it.ours.starts_with("81 stat *\n81 op=10 type=0 status=0000 ")
                && it.ours.lines().count() == 2;
            when(is_asked && it.theirs.contains(" status=0001 ") && is_table, After::Same)
        },
    },
    Known {
        rule: "G5",
        what: "the engine's classes are listed before they hold anything",
        sees: |it, _| {
            let is_asked = it.request.get(1) == Some(&0x10)
                && key_of(it.request).is_some_and(|key| matches!(&key[..], b"items" | b"slabs"));
            when(is_asked && it.ours == format!("81 stat *\n{}", it.theirs), After::Same)
        },
    },
    Known {
        rule: "L3",
        what: "an item counts with the engine's header, not memcached's: a value just below the limit is stored",
        sees: |it, _| {
            let is_near = value_bytes(it).is_some_and(|bytes| bytes < 1 << 20 && bytes + 400 > 1 << 20);
            let opcode = it.request.get(1)?;
            let is_theirs = it.theirs.starts_with(&format!("81 op={opcode:02x} type=0 status=0003 "));
            let outcomes = ["00", "01", "02", "05"];
            let is_told = outcomes
                .iter()
                .any(|status| it.ours.starts_with(&format!("81 op={opcode:02x} type=0 status=00{status} ")));
            let is_quiet = it.ours.is_empty() || it.ours == "<closed>";
            when(is_near && is_theirs && (is_told || is_quiet), After::Parted)
        },
    },
    Known {
        rule: "A3",
        what: "a value in pieces is no number, and the engine's pieces are smaller than memcached's",
        sees: |it, _| {
            let has_grown = it.before.iter().any(|before| before.len() > CONTIGUOUS_BYTES_MIN);
            let is_count = matches!(it.request.get(1), Some(0x05 | 0x06 | 0x15 | 0x16));
            let is_refused = it.ours.contains(" status=0006 ") && it.ours.lines().count() == 1;
            let is_counted = it.theirs.is_empty() || it.theirs.contains(" status=0000 ");
            when(is_count && has_grown && is_refused && is_counted, After::Parted)
        },
    },
    Known {
        rule: "A3",
        what: "a number above 2^63 is one; memcached looks for a sign behind it, in what was there before",
        sees: |it, _| {
            let opcode = it.request.get(1).filter(|opcode| matches!(opcode, 0x05 | 0x06 | 0x15 | 0x16))?;
            let delta = u64::from_be_bytes(*it.request.get(24..)?.first_chunk()?);
            let is_down = matches!(opcode, 0x06 | 0x16);
            let is_number =
                it.ours.starts_with(&format!("81 op={opcode:02x} type=0 status=0000 ")) || it.ours.is_empty();
            let is_theirs = it.theirs.contains(" status=0006 ") && it.theirs.lines().count() == 1;
            let of = Proven::HoldsLargeNumber { delta, is_down, told: told_number(it.ours) };
            when(is_theirs && is_number, After::PartedIf(Proof { key: key_of(it.request)?, of }))
        },
    },
];

pub(super) const SILENT: &[Silent] = &[Silent {
    rule: "G2",
    what: "what a flush has hidden stays hidden; with memcached it comes back when a later flush is ordered",
    sees: |request| {
        let is_flush = matches!(request.bytes.get(1), Some(0x08 | 0x18));
        is_flush && request.bytes.get(24..28).is_some_and(|expiry| expiry != [0; 4])
    },
}];

/// The key of a packet.
pub(super) fn key_of(request: &[u8]) -> Option<Vec<u8>> {
    let header = request.first_chunk::<24>()?;
    let from = 24 + usize::from(header[4]);
    let bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Some(request.get(from..from + bytes)?.to_vec())
}

/// Bytes behind extras and key.
fn value_bytes(it: &Exchange<'_>) -> Option<u64> {
    let header = it.request.first_chunk::<24>()?;
    let body = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
    let key = u64::from(u16::from_be_bytes([header[2], header[3]]));
    body.checked_sub(u64::from(header[4]) + key)
}

/// Whether our whole answer is one packet with this status, and the end.
fn is_refused(it: &Exchange<'_>, status: &str) -> bool {
    let opcode = it.request.get(1).copied().unwrap_or_default();
    let head = format!("81 op={opcode:02x} type=0 status=00{status} ");
    it.ours.starts_with(&head) && it.ours.ends_with("\n<closed>") && it.ours.lines().count() == 2
}

/// Whether there is more than the packet says.
pub(super) fn has_surplus(it: &Exchange<'_>) -> bool {
    let bytes = it.request.first_chunk::<24>().map(|header| [header[8], header[9], header[10], header[11]]);
    bytes.is_some_and(|bytes| it.request.len() > 24 + u32::from_be_bytes(bytes) as usize)
}

/// Whether the first of a row's packets that differ are memcached's refusal to count, and ours to a count from a number above 2^63.
pub(super) fn refuses_large_number(it: &Exchange<'_>) -> bool {
    let Some((theirs, ours)) = it.theirs.lines().zip(it.ours.lines()).find(|(theirs, ours)| theirs != ours)
    else {
        return false;
    };
    let counted_from = |request: &[u8]| {
        let opcode = *request.get(1).filter(|opcode| matches!(opcode, 0x05 | 0x06))?;
        let opaque = request.get(12..16)?.escape_ascii();
        let delta = u64::from_be_bytes(*request.get(24..)?.first_chunk()?);
        let head = |status: &str| format!("81 op={opcode:02x} type=0 status={status} opaque={opaque} ");
        let told = told_number(ours)?;
        let is_refused = theirs.starts_with(&head("0006")) && ours.starts_with(&head("0000"));
        // What begins with the request's own number was not there.
        let begins = request.get(32..40).is_some_and(|initial| initial == told.to_be_bytes())
            && request.get(40..44).is_some_and(|expiry| expiry != [0xff; 4]);
        match opcode {
            _ if !is_refused || begins => None,
            0x05 => Some(told.wrapping_sub(delta)),
            // At 0 it may have stopped.
            _ => told.checked_add(delta).filter(|_| told > 0),
        }
    };
    it.row.iter().filter_map(|request| counted_from(request)).any(|number| number > i64::MAX as u64)
}

/// The number that an answer ends with.
fn told_number(answer: &str) -> Option<u64> {
    let (_, shown) = answer.trim_end().rsplit_once(" value=")?;
    let mut bytes = Vec::new();
    let mut rest = shown;
    while let Some(first) = rest.chars().next() {
        let (byte, taken) = match rest.strip_prefix('\\') {
            None => (first as u8, 1),
            Some(escape) if escape.starts_with('x') => (u8::from_str_radix(escape.get(1..3)?, 16).ok()?, 4),
            Some(escape) => (
                match escape.chars().next()? {
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    other => other as u8,
                },
                2,
            ),
        };
        bytes.push(byte);
        rest = rest.get(taken..)?;
    }
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
