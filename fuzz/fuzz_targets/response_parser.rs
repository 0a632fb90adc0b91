//! Responses of any bytes, in all three protocols: the parsers never panic, never name more bytes than there are, never
//! ask for more than their limits, judge a part of an answer as the whole of it or ask for more, and what an answer says
//! is what it encodes to again.
//!
//! The first byte chooses the protocol and the second how the rest is cut; each byte behind them may stand for a word
//! that answers are made of.
#![no_main]

use hotspare_memcached::{ParsedResponse, binary, classic, meta};
use libfuzzer_sys::fuzz_target;

/// A value that an answer may have, in bytes: low, so that some are above it.
const VALUE_BYTES_MAX: usize = 600;

/// What answers are made of, spelled by the bytes from 0x80 on.
const WORDS: [&str; 48] = [
    "VALUE ",
    "END\r\n",
    "STORED\r\n",
    "NOT_STORED\r\n",
    "EXISTS\r\n",
    "NOT_FOUND\r\n",
    "DELETED\r\n",
    "TOUCHED\r\n",
    "OK\r\n",
    "RESET\r\n",
    "VERSION ",
    "STAT ",
    "ERROR\r\n",
    "CLIENT_ERROR ",
    "SERVER_ERROR ",
    "VA ",
    "HD",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN\r\n",
    "ME ",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    " ",
    " ",
    "key",
    "0",
    "1",
    "2",
    "3",
    "12",
    "599",
    "601",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "-1",
    " f1",
    " c2",
    " t-1",
    " W",
    " k",
    " O1",
    " b",
];

fuzz_target!(|data: &[u8]| {
    let [protocol, cutting, rest @ ..] = data else { return };
    match protocol % 4 {
        0 => check(&spelled(rest), *cutting, classic_response),
        1 => check(&spelled(rest), *cutting, meta_response),
        2 => check(&packets(rest), *cutting, binary_response),
        _ => {
            check(rest, *cutting, classic_response);
            check(rest, *cutting, meta_response);
            check(rest, *cutting, binary_response);
        }
    }
});

/// What one answer came to: how many bytes it is and what it encodes to again, or how many bytes are needed.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Whole { consumed: usize, again: Vec<u8> },
    Part { bytes_needed: usize },
    Wrong,
}

fn judged<R>(parsed: ParsedResponse<R>, encode: impl FnOnce(R, &mut Vec<u8>)) -> Judged {
    match parsed {
        ParsedResponse::Complete { response, consumed } => {
            let mut again = Vec::new();
            encode(response, &mut again);
            Judged::Whole { consumed, again }
        }
        ParsedResponse::Incomplete { bytes_needed } => Judged::Part { bytes_needed },
        ParsedResponse::Invalid => Judged::Wrong,
    }
}

fn classic_response(buffer: &[u8]) -> Judged {
    let limits = classic::Limits { value_bytes_max: VALUE_BYTES_MAX, ..classic::Limits::default() };
    judged(classic::parse_response(buffer, &limits), |response, out| response.encode(out))
}

fn meta_response(buffer: &[u8]) -> Judged {
    let limits = classic::Limits { value_bytes_max: VALUE_BYTES_MAX, ..classic::Limits::default() };
    judged(meta::parse_response(buffer, &limits), |response, out| response.encode(out))
}

fn binary_response(buffer: &[u8]) -> Judged {
    let limits = binary::Limits { value_bytes_max: VALUE_BYTES_MAX, ..binary::Limits::default() };
    judged(binary::parse_response(buffer, &limits), |response, out| response.encode(out))
}

/// More than a line, or a header with the longest key and extras, and a value with its line's end.
const ANSWER_BYTES_MAX: usize = 2_048 + binary::HEADER_BYTES + 255 + 65_535 + VALUE_BYTES_MAX + 2;

fn check(bytes: &[u8], cutting: u8, parse: fn(&[u8]) -> Judged) {
    let mut rest = bytes;
    loop {
        let whole = parse(rest);
        let end = match &whole {
            Judged::Whole { consumed, again } => {
                assert!((1..=rest.len()).contains(consumed), "{consumed} of {}", rest.len());
                let Judged::Whole { consumed: all, again: same } = parse(again) else {
                    panic!("{} is no answer any more", again.escape_ascii());
                };
                assert_eq!((all, &same), (again.len(), again), "from {}", rest[..*consumed].escape_ascii());
                *consumed
            }
            Judged::Part { bytes_needed } => {
                assert!(*bytes_needed > rest.len() && *bytes_needed <= ANSWER_BYTES_MAX, "{bytes_needed}");
                rest.len()
            }
            Judged::Wrong => rest.len(),
        };
        in_pieces(&rest[..end], cutting, &whole, parse);
        match whole {
            Judged::Whole { consumed, .. } => rest = &rest[consumed..],
            Judged::Part { .. } | Judged::Wrong => return,
        }
    }
}

/// As a client reads: it looks again when as many bytes have come as it was told, and here at other places, too.
fn in_pieces(bytes: &[u8], cutting: u8, whole: &Judged, parse: fn(&[u8]) -> Judged) {
    let step = 1 + usize::from(cutting) % 40 + bytes.len() / 200;
    for cut in (0..bytes.len()).step_by(step) {
        match parse(&bytes[..cut]) {
            Judged::Part { bytes_needed } => {
                assert!(bytes_needed > cut && bytes_needed <= ANSWER_BYTES_MAX, "{bytes_needed} at {cut}");
                let has_all = matches!(whole, Judged::Whole { consumed, .. } if bytes_needed > *consumed);
                assert!(!has_all, "it waits for {bytes_needed} of {} at {cut}", bytes.len());
            }
            judged => assert_eq!(judged, *whole, "cut at {cut}: {}", bytes.escape_ascii()),
        }
    }
}

fn spelled(bytes: &[u8]) -> Vec<u8> {
    let spell = |byte: &u8| match byte {
        0x80.. => WORDS[usize::from(*byte & 0x7f) % WORDS.len()].as_bytes().to_vec(),
        // Long lines, without long inputs.
        0x01..0x05 => vec![b'x'; usize::from(*byte) * 513],
        plain => vec![*plain],
    };
    bytes.iter().flat_map(spell).collect()
}

/// Packets whose lengths are right, mostly.
fn packets(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for packet in bytes.chunks(24) {
        let [lengths, wrong, opcode, status, fill, rest @ ..] = packet else { return out };
        let extras = vec![*fill; usize::from(lengths % 7)];
        let key = vec![*fill; usize::from(lengths / 7)];
        let value = rest.repeat(1 + usize::from(wrong & 31));
        let status = binary::Status(u16::from(*status));
        let response = binary::Response {
            opcode: *opcode,
            status,
            opaque: 7,
            cas: u64::from(*fill),
            extras: &extras,
            key: &key,
            value: &value,
        };
        let start = out.len();
        response.encode(&mut out);
        if *wrong >= 0xf0 {
            out[start + usize::from(wrong & 15)] ^= fill;
        }
    }
    out
}
