//! The rules as tables, and round trips as properties.

use proptest::prelude::*;

use super::*;
use crate::classic::{Limits, Tokens};

fn parse(text: &[u8]) -> Parsed<'_> {
    parse_request(text, &Limits::default())
}

fn reply(text: &[u8]) -> (&'static str, u64) {
    match parse(text) {
        Parsed::Invalid { reply, skip, .. } => (reply.as_str(), skip),
        other => panic!("{}: {other:?}", text.escape_ascii()),
    }
}

const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const INVALID: &str = "CLIENT_ERROR invalid flag";
const DUPLICATE: &str = "CLIENT_ERROR duplicate flag";
const EITHER: &str = "CLIENT_ERROR invalid or duplicate flag";
const BAD_TOKEN: &str = "CLIENT_ERROR bad token in command line format";
const BAD_KEY: &str = "CLIENT_ERROR error decoding key";

#[test]
fn f3_only_whole_names_in_lower_case_are_meta() {
    for yes in [&b"mg k\r\n"[..], b"ms k 2\r\n", b"md k\n", b"ma k", b"mn\r\n", b"me k", b"mg\r\n"] {
        assert!(is_meta(yes), "{}", yes.escape_ascii());
    }
    for no in [&b"mg"[..], b"mx k\r\n", b"mgx k\r\n", b"MG k\r\n", b" mg k\r\n", b"mg\tk\r\n", b"m", b""] {
        assert!(!is_meta(no), "{}", no.escape_ascii());
    }
}

#[test]
fn f4_f5_too_few_words_or_no_length_skip_nothing() {
    let long = [b"mg ", &[b'k'; 251][..], b"\r\n"].concat();
    let lines = [
        "mg\r\n",
        "ms k\r\n",
        "ms k x\r\n",
        "ms k -1\r\n",
        "ms k 2147483646\r\n",
        "md \r\n",
        "ma\r\n",
        "me\r\n",
    ];
    for line in lines.iter().map(|line| line.as_bytes()).chain([&long[..], b"mn\n", b"mg\n"]) {
        assert_eq!(reply(line), (BAD_LINE, 0), "{}", line.escape_ascii());
    }
}

#[test]
fn m2_z6_bad_flags_and_their_words() {
    let cases: [(&[u8], &str); 14] = [
        (b"mg k !\r\n", INVALID),
        (b"mg k S\r\n", INVALID),
        (b"mg k \xff\r\n", INVALID),
        (b"mg k v v\r\n", DUPLICATE),
        (b"mg k v v !\r\n", INVALID),
        (b"mg k P P\r\n", DUPLICATE),
        (b"md k q q\r\n", DUPLICATE),
        (b"me k ! q\r\n", INVALID),
        (b"ma k v v\r\n", EITHER),
        (b"ma k !\r\n", EITHER),
        (b"ma k Dx\r\n", EITHER),
        (b"ma k J-1\r\n", EITHER),
        (b"ma k D18446744073709551616\r\n", EITHER),
        (b"ma Zm9 b\r\n", EITHER),
    ];
    for (line, error) in cases {
        assert_eq!(reply(line), (error, 0), "{}", line.escape_ascii());
    }
}

#[test]
fn m2_every_letter_of_any_command_is_accepted_by_all() {
    for name in ["mg k", "md k", "ma k", "me k", "ms k 0"] {
        for word in [
            "c", "f", "h", "k", "l", "s", "t", "v", "u", "q", "x", "I", "Phint", "L1", "Oabc", "F7", "C9",
            "J1", "D2", "E3", "N4", "T-5", "R6",
        ] {
            let line = format!("{name} {word}\r\n\r\n");
            assert!(matches!(parse(line.as_bytes()), Parsed::Complete { .. }), "{line}");
        }
    }
}

#[test]
fn d8_d10_the_data_block_goes_with_a_bad_ms_line() {
    let long = [b"ms ", &[b'k'; 251][..], b" 5\r\n"].concat();
    assert_eq!(reply(&long), (BAD_LINE, 7));
    assert_eq!(reply(b"ms k 5 MX\r\n"), ("CLIENT_ERROR invalid mode for ms M token", 7));
    assert_eq!(reply(b"ms k 5 Ms\r\n"), ("CLIENT_ERROR invalid mode for ms M token", 7));
    assert_eq!(reply(b"ms k 5 M\r\n"), ("CLIENT_ERROR incorrect length for M token", 7));
    assert_eq!(reply(b"ms k 5 !\r\n"), (INVALID, 7));
    assert_eq!(reply(b"ms k 5 Tx\r\n"), (BAD_TOKEN, 7));
    assert_eq!(reply(b"ms k 5 Fx\r\n"), (BAD_LINE, 7));
    assert_eq!(reply(b"ms Zm9 5 b\r\n"), (BAD_KEY, 7));
    assert_eq!(reply(b"ms k 2 q\r\nabXY"), ("CLIENT_ERROR bad data chunk", 0));
}

#[test]
fn x3_m6_arguments_that_are_no_numbers() {
    for word in ["Tx", "T", "Nx", "R", "Cx", "C-1", "E", "Ex"] {
        assert_eq!(reply(format!("mg k {word}\r\n").as_bytes()), (BAD_TOKEN, 0), "{word}");
    }
    assert_eq!(reply(b"mg k F4294967296\r\n"), (BAD_LINE, 0));
}

#[test]
fn l6_words_and_opaque_tokens_are_bounded() {
    let many = ["mg k", &" v".repeat(18), "\r\n"].concat();
    assert_eq!(reply(many.as_bytes()).0, DUPLICATE);
    let many = ["mg k", &" v".repeat(19), "\r\n"].concat();
    assert_eq!(reply(many.as_bytes()).0, "CLIENT_ERROR options flags are too long");
    let opaque = |bytes: usize| format!("mg k q O{}\r\n", "x".repeat(bytes));
    assert!(matches!(parse(opaque(31).as_bytes()), Parsed::Complete { .. }));
    for name in ["mg k", "md k", "ma k", "ms k 0"] {
        let line = format!("{name} O{}\r\n", "x".repeat(32));
        assert_eq!(reply(line.as_bytes()).0, "CLIENT_ERROR opaque token too long", "{name}");
    }
}

#[test]
fn f6_a_line_too_long_is_closed_upon_whether_or_not_its_end_has_come() {
    let line = [b"mg ".to_vec(), vec![b'k'; 3000], b"\r\n".to_vec()].concat();
    assert_eq!(parse(&line), Parsed::Close);
    let answer = [b"HD O".to_vec(), vec![b'k'; 3000], b"\r\n".to_vec()].concat();
    for bytes in [&answer[..2048], &answer] {
        assert_eq!(parse_response(bytes, &Limits::default()), ParsedResponse::Invalid);
    }
    assert_eq!(parse(&line[..2047]), Parsed::Incomplete { bytes_needed: 2048 });
    assert_eq!(parse(&line[..2048]), Parsed::Close);
}

#[test]
fn m3_keys_decode_and_encode() {
    for (text, bytes) in
        [(&b"Zm9v"[..], &b"foo"[..]), (b"Zm8=", b"fo"), (b"Zg==", b"f"), (b"+/+/", b"\xfb\xff\xbf")]
    {
        let key = Key::new(text, true).unwrap();
        assert_eq!(key.bytes(&mut [0; 250]), bytes);
        let mut out = Vec::new();
        key.encode(&mut out);
        assert_eq!(out, text);
    }
    for bad in [&b"Zm9"[..], b"Z===", b"====", b"Zm9v!", b"Zm9-", b"Zg==Zg==", b"=m9v", b""] {
        assert_eq!(Key::new(bad, true), None, "{}", bad.escape_ascii());
    }
    assert_eq!(Key::new(b"Zm9", false).unwrap().bytes(&mut [0; 250]), b"Zm9");
    assert_eq!(reply(b"mg Zm9 b\r\n").0, BAD_KEY);
}

#[test]
fn l1_m3_an_encoded_key_has_250_characters_at_most() {
    for (repeats, is_sound) in [(62, true), (63, false)] {
        let line = ["mg ", &"QUFB".repeat(repeats), " b\r\n"].concat();
        match parse(line.as_bytes()) {
            Parsed::Complete { .. } => assert!(is_sound),
            _ => assert_eq!((is_sound, reply(line.as_bytes()).0), (false, BAD_LINE)),
        }
    }
}

#[test]
fn l3_d10_a_value_above_the_limit_is_named_and_skipped() {
    let Parsed::Complete { request, consumed } = parse(b"ms k 2000000 q\r\nabc") else { panic!() };
    let Request::StoreTooLarge { target, bytes, skip } = request else { panic!() };
    assert_eq!((target.key.text(), bytes, skip, consumed), (&b"k"[..], 2_000_000, 2_000_002, 16));
}

#[test]
fn the_line_of_a_large_value_is_enough_unless_it_is_too_large() {
    let limits = Limits { large_bytes_min: 1000, value_bytes_max: 2000, ..Limits::default() };
    let parse = |text| parse_request(text, &limits);
    let Parsed::Head { target, mode, consumed, value_bytes } = parse(b"ms k 1000 MA q\r\nabc") else {
        panic!()
    };
    let told = (target.key.text(), target.flags.has(b'q'), mode, consumed, value_bytes);
    assert_eq!(told, (&b"k"[..], true, StoreMode::Append, 16, 1000));
    assert_eq!(parse(b"ms k 999\r\n"), Parsed::Incomplete { bytes_needed: 10 + 999 + 2 });
    let too_large = parse(b"ms k 2001\r\n");
    assert!(matches!(too_large, Parsed::Complete { request: Request::StoreTooLarge { .. }, .. }));
    assert!(matches!(parse(b"ms k 1000 !\r\n"), Parsed::Invalid { skip: 1002, .. }));
}

fn key() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let text = prop::collection::vec(0x21u8..0x7f, 1..250).prop_map(|text| (text, false));
    let binary = prop::collection::vec(any::<u8>(), 1..180).prop_map(|bytes| {
        let mut text = Vec::new();
        base64::encode(&bytes, &mut text);
        (text, true)
    });
    prop_oneof![text, binary]
}

/// Some flags, each at most once, in some order.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let number = |letter: &'static str| any::<u64>().prop_map(move |number| format!("{letter}{number}"));
    let choices: Vec<BoxedStrategy<String>> = vec![
        Just("v q k".to_owned()).boxed(),
        Just("s t c f".to_owned()).boxed(),
        Just("h l u x I".to_owned()).boxed(),
        "O[!-~]{0,31}".boxed(),
        any::<u32>().prop_map(|number| format!("F{number}")).boxed(),
        any::<i64>()
            .prop_map(|number| format!("T{} N{}", number.max(-i64::MAX), number.max(-i64::MAX)))
            .boxed(),
        number("C").boxed(),
        number("E").boxed(),
        number("R").boxed(),
        (any::<u64>(), any::<u64>()).prop_map(|(seed, delta)| format!("J{seed} D{delta}")).boxed(),
    ];
    (choices, prop::collection::vec(any::<u16>(), 10)).prop_map(|(words, order)| {
        let mut ordered: Vec<_> = order.into_iter().zip(words).filter(|(place, _)| place % 2 == 0).collect();
        ordered.sort();
        ordered.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(" ").into_bytes()
    })
}

proptest! {
    #[test]
    fn a_request_reads_back_however_it_is_cut(
        kind in 0u8..7, (key, is_binary) in key(), mut flags in words(), data in prop::collection::vec(any::<u8>(), 0..200),
        mode in prop::sample::select(&b"SEAPR"[..]),
    ) {
        if is_binary {
            flags.extend_from_slice(b" b");
        }
        if kind < 3 {
            flags.extend_from_slice(&[b' ', b'M', mode]);
        }
        prop_assume!(Tokens::new(&flags).iter().count() <= 17);
        let target = Target::new(&key, &flags).unwrap();
        let request = match kind {
            0..3 => Request::Store { target, mode: StoreMode::named(Some(mode)).unwrap(), data: &data },
            3 => Request::Get(target),
            4 => Request::Delete(target),
            5 => Request::Count { target, direction: Direction::Up },
            _ => Request::Debug(target),
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        prop_assert!(is_meta(&bytes));
        let Parsed::Complete { request: read, consumed } = parse(&bytes) else {
            panic!("{}: {:?}", bytes.escape_ascii(), parse(&bytes))
        };
        prop_assert_eq!(consumed, bytes.len());
        let mut again = Vec::new();
        read.encode(&mut again);
        prop_assert_eq!(&again, &bytes);
        if let (Request::Store { data: read, mode: read_mode, target: read_target }, Request::Store { data, mode, target }) = (read, request) {
            prop_assert_eq!((read, read_mode, read_target.key), (data, mode, target.key));
            prop_assert_eq!((read_target.flags.ttl(), read_target.flags.compare_cas()), (target.flags.ttl(), target.flags.compare_cas()));
        }
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Parsed::Incomplete { bytes_needed } => prop_assert!(bytes_needed > cut && bytes_needed <= bytes.len()),
                other => prop_assert!(false, "cut at {}: {:?}", cut, other),
            }
        }
    }

    #[test]
    fn a_plain_get_is_what_the_whole_parser_makes_of_it(
        key in "[!-~]{0,4}|[!-~]{248,252}", words in "( {1,2}[vkfscqOtbT][!-~]{0,2}){0,3}|( [vkfscq]){0,8}( O[!-~]{0,32})?",
        end in "\r?\n?", rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let line = ["mg ", &key, &words, &end].concat();
        let bytes = [line.as_bytes(), &rest].concat();
        for limits in [Limits::default(), Limits { line_bytes_max: line.len() - 1, ..Limits::default() }] {
            if let Some((target, consumed)) = plain_get(&bytes, &limits) {
                prop_assert_eq!(parse_request(&bytes, &limits), Parsed::Complete { request: Request::Get(target), consumed });
            }
        }
    }

    #[test]
    fn the_most_common_gets_are_plain((key, is_binary) in key(), opaque in "[!-~]{0,31}", order in any::<u64>()) {
        let opaque = format!("O{opaque}");
        let letters = ["v", "k", "f", "s", "c", "q", &opaque].into_iter().enumerate();
        let words: String =
            letters.filter(|(at, _)| order >> at & 1 != 0).map(|(_, word)| format!(" {word}")).collect();
        let line = [b"mg ", &key[..], words.as_bytes(), b"\r\n"].concat();
        let is_plain = plain_get(&line, &Limits::default()).is_some_and(|(_, consumed)| consumed == line.len());
        prop_assert!(is_plain || is_binary);
        for cut in 0..line.len() {
            prop_assert_eq!(plain_get(&line[..cut], &Limits::default()), None);
        }
    }

    #[test]
    fn any_bytes_are_judged_within_the_buffer(
        start in prop::sample::select(&["", "mg ", "ms k 3 ", "ms ", "md k ", "ma k ", "me k ", "mn ", "VA 3 ", "ME "][..]),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b" \r\nbqkvTCMNEFDJRO019=-"[..])], 0..200),
    ) {
        let bytes = [start.as_bytes(), &bytes].concat();
        match parse(&bytes) {
            Parsed::Complete { consumed, .. } | Parsed::Invalid { consumed, .. } => {
                prop_assert!((1..=bytes.len()).contains(&consumed));
            }
            Parsed::Incomplete { bytes_needed } => prop_assert!(bytes_needed > bytes.len()),
            Parsed::Head { .. } => prop_assert!(false, "no value is large unless the limits say so"),
            Parsed::Close => {}
        }
        if let ParsedResponse::Complete { consumed, .. } = parse_response(&bytes, &Limits::default()) {
            prop_assert!((1..=bytes.len()).contains(&consumed));
        }
    }

    #[test]
    fn base64_reads_back(bytes in prop::collection::vec(any::<u8>(), 1..187)) {
        let mut text = Vec::new();
        base64::encode(&bytes, &mut text);
        let mut buffer = [0; 250];
        prop_assert_eq!(Key::new(&text, true).unwrap().bytes(&mut buffer), &bytes[..]);
    }

    #[test]
    fn a_response_reads_back_however_it_is_cut(
        kind in 0u8..10, (key, _) in key(), flags in words(), data in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let flags = Tokens::new(&flags);
        let status = |status| Response::Status { status, flags };
        let response = match kind {
            0 => status(Status::Ok),
            1 => status(Status::Miss),
            2 => status(Status::NotFound),
            3 => status(Status::NotStored),
            4 => status(Status::Exists),
            5 => Response::Noop,
            6 => Response::Debug { key: &key, facts: flags },
            7 => Response::ServerError(&key),
            8 => Response::ClientError(&key),
            _ => Response::Value { data: &data, flags },
        };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let limits = Limits::default();
        let ParsedResponse::Complete { response: read, consumed } = parse_response(&bytes, &limits) else { panic!() };
        prop_assert_eq!(consumed, bytes.len());
        let mut again = Vec::new();
        read.encode(&mut again);
        prop_assert_eq!(&again, &bytes);
        for cut in 0..bytes.len() {
            let is_incomplete = matches!(parse_response(&bytes[..cut], &limits), ParsedResponse::Incomplete { .. });
            prop_assert!(is_incomplete);
        }
    }
}
