//! The rules as tables, and round trips as properties.

use proptest::prelude::*;

use super::*;

/// A packet with any lengths in its header, true or not.
fn packet(opcode: u8, extras: &[u8], key: &[u8], body_bytes: u32) -> Vec<u8> {
    let header = Header {
        opcode,
        key_bytes: key.len() as u16,
        extras_bytes: extras.len() as u8,
        body_bytes,
        opaque: 7,
        ..Header::default()
    };
    let mut bytes = Vec::new();
    header.write(REQUEST_MAGIC, &mut bytes);
    [&bytes, extras, key].concat()
}

fn invalid(status: Status, opcode: u8) -> Parsed<'static> {
    Parsed::Invalid { status, opcode, opaque: 7 }
}

#[test]
fn b1_the_header_is_24_bytes_in_network_order() {
    let request = Request {
        command: Command::Store { mode: StoreMode::Set, key: b"Hello", flags: 1, expiry: 2, value: b"World" },
        quiet: false,
        opaque: 0x0a0b_0c0d,
        cas: 0x0102_0304_0506_0708,
    };
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    let expected = b"\x80\x01\0\x05\x08\0\0\0\0\0\0\x12\x0a\x0b\x0c\x0d\x01\x02\x03\x04\x05\x06\x07\x08\
        \0\0\0\x01\0\0\0\x02HelloWorld";
    assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[test]
fn b2_exactly_the_listed_opcodes_are_known() {
    for opcode in 0..=u8::MAX {
        let known = matches!(opcode, 0x00..=0x1a | 0x1c..=0x1e | 0x20..=0x24);
        let bytes = packet(opcode, b"", b"", 1000);
        match parse_request(&bytes, &Limits::default()) {
            Parsed::Complete { request, consumed: HEADER_BYTES } => {
                assert!(!known, "{opcode:#x}");
                assert_eq!(request.command, Command::Unknown { opcode, bytes: 1000 }, "its body is skipped");
            }
            other => assert!(known, "{opcode:#x}: {other:?}"),
        }
    }
}

#[test]
fn b3_each_status_has_its_text() {
    let texts = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x20, 0x81, 0x82].map(|status| Status(status).text());
    let expected = [
        "Not found",
        "Data exists for key.",
        "Too large.",
        "Invalid arguments",
        "Not stored.",
        "Non-numeric server-side value for incr or decr",
        "Auth failure.",
        "Unknown command",
        "Out of memory",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn b4_wrong_lengths_are_invalid_arguments() {
    let long = [b'k'; 251];
    let cases: [(u8, &[u8], &[u8], u32); 19] = [
        (0x00, b"", b"", 0),
        (0x00, b"", b"k", 2),
        (0x00, b"abcd", b"k", 5),
        (0x00, b"", &long, 251),
        (0x01, b"abcd", b"k", 5),
        (0x01, b"abcdefgh", b"", 8),
        (0x01, b"abcdefgh", b"k", (1 << 30) + 1),
        (0x05, b"abcdefgh", b"k", 9),
        (0x07, b"", b"k", 1),
        (0x08, b"ab", b"", 2),
        (0x0a, b"", b"", 1),
        (0x0b, b"", b"k", 1),
        (0x0e, b"abcd", b"k", 9),
        (0x1c, b"", b"k", 1),
        (0x1d, b"abcd", b"", 4),
        (0x21, b"", b"PLAIN", 5 + (16 << 10) + 1),
        (0x1b, b"", &long, 251),
        (0xff, b"", &long, 1000),
        (0x30, b"", b"k", (1 << 30) + 1),
    ];
    for (opcode, extras, key, body_bytes) in cases {
        let bytes = packet(opcode, extras, key, body_bytes);
        let parsed = parse_request(&bytes, &Limits::default());
        assert_eq!(parsed, invalid(Status::INVALID, opcode), "{opcode:#x} {body_bytes}");
    }
}

#[test]
fn b4_a_head_longer_than_the_body_is_an_unknown_command_and_bad_magic_closes() {
    let bytes = packet(0x00, b"", b"key", 2);
    assert_eq!(parse_request(&bytes, &Limits::default()), invalid(Status::UNKNOWN_COMMAND, 0));
    let bytes = packet(0x30, b"", &[b'k'; 251], 2);
    assert_eq!(parse_request(&bytes, &Limits::default()), invalid(Status::UNKNOWN_COMMAND, 0x30));
    assert_eq!(parse_request(&[0x81], &Limits::default()), Parsed::Close);
    assert_eq!(parse_request(b"get a\r\n", &Limits::default()), Parsed::Close);
}

#[test]
fn l3_a_value_above_the_limit_is_named_and_skipped() {
    let bytes = packet(0x11, &[0; 8], b"k", 9 + 2_000_000);
    let Parsed::Complete { request, consumed } = parse_request(&bytes, &Limits::default()) else { panic!() };
    let command = Command::TooLarge { mode: Ok(StoreMode::Set), key: b"k", bytes: 2_000_000 };
    assert_eq!((request.command, request.quiet, consumed), (command, true, bytes.len()));
    let bytes = packet(0x0f, b"", b"k", 1 + 2_000_000);
    let Parsed::Complete { request, .. } = parse_request(&bytes, &Limits::default()) else { panic!() };
    assert_eq!(request.command, Command::TooLarge { mode: Err(Side::Front), key: b"k", bytes: 2_000_000 });
}

#[test]
fn the_head_of_a_large_value_is_enough_unless_it_is_too_large() {
    let limits = Limits { large_bytes_min: 1000, value_bytes_max: 2000, ..Limits::default() };
    let bytes = packet(0x01, &[0; 8], b"k", 9 + 1000);
    let command = Command::Store { mode: StoreMode::Set, key: b"k", flags: 0, expiry: 0, value: b"" };
    match parse_request(&bytes, &limits) {
        Parsed::Head { request, consumed, value_bytes: 1000 } => {
            assert_eq!((request.command, consumed), (command, bytes.len()));
        }
        other => panic!("{other:?}"),
    }
    let bytes = packet(0x0e, b"", b"k", 1 + 1000);
    assert!(matches!(parse_request(&bytes, &limits), Parsed::Head { .. }));
    let bytes = packet(0x01, &[0; 8], b"k", 9 + 999);
    assert_eq!(parse_request(&bytes, &limits), Parsed::Incomplete { bytes_needed: bytes.len() + 999 });
    let bytes = packet(0x01, &[0; 8], b"k", 9 + 2001);
    let Parsed::Complete { request, .. } = parse_request(&bytes, &limits) else { panic!() };
    assert!(matches!(request.command, Command::TooLarge { .. }));
    let bytes = packet(0x0d, b"", b"k", 1 + 1000);
    assert!(matches!(parse_request(&bytes, &limits), Parsed::Invalid { .. }), "a get has no value");
}

#[test]
fn q2_before_a_login_only_the_login_and_the_version_are_heard() {
    let open: Vec<u8> = (0..=u8::MAX).filter(|opcode| may_come_before_login(*opcode)).collect();
    assert_eq!(open, [0x0b, 0x20, 0x21, 0x22]);
}

fn bytes(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), lengths)
}

fn command<'a>(kind: u8, key: &'a [u8], value: &'a [u8], [a, b]: [u32; 2], [c, d]: [u64; 2]) -> Command<'a> {
    let direction = if a & 1 == 0 { Direction::Up } else { Direction::Down };
    let side = if a & 1 == 0 { Side::Back } else { Side::Front };
    let mode = [StoreMode::Set, StoreMode::Add, StoreMode::Replace][a as usize % 3];
    match kind {
        0 => Command::Get { key, with_key: a & 1 == 0, touch: (a & 2 == 0).then_some(b) },
        1 => Command::Touch { key, expiry: b },
        2 => Command::Extend { side, key, value },
        3 => Command::Delete { key },
        4 => Command::Count { direction, key, delta: c, initial: d, expiry: b },
        5 => Command::Flush { expiry: (a & 1 == 0).then_some(b) },
        6 => Command::Noop,
        7 => Command::Version,
        8 => Command::Quit,
        9 => Command::Stat { key },
        10 => Command::LoginMechanisms,
        11 => Command::LoginStart { mechanism: key, message: value },
        12 => Command::LoginStep { mechanism: key, message: value },
        13 => Command::Unknown { opcode: 0x30 + a as u8 % 16, bytes: b % (1 << 30) },
        14 => Command::TooLarge { mode: Ok(mode), key, bytes: (2 << 20) + (b & 0xffff) },
        15 => Command::TooLarge { mode: Err(side), key, bytes: (2 << 20) + (b & 0xffff) },
        _ => Command::Store { mode, key, flags: a, expiry: b, value },
    }
}

proptest! {
    #[test]
    fn b2_a_request_reads_back_however_it_is_cut(
        kind in 0u8..20, key in bytes(1..251), value in bytes(0..300), small: [u32; 2], large: [u64; 2], opaque: u32,
        cas: u64, quiet: bool,
    ) {
        let command = command(kind, &key, &value, small, large);
        let mut request = Request { command, quiet: false, opaque, cas };
        let plain = request.opcode();
        request.quiet = quiet;
        // What has no quiet form reads back as not quiet.
        request.quiet = request.opcode() != plain;
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let limits = Limits::default();
        let whole = parse_request(&bytes, &limits);
        prop_assert_eq!(whole, Parsed::Complete { request, consumed: bytes.len() });
        for cut in 0..bytes.len() {
            match parse_request(&bytes[..cut], &limits) {
                Parsed::Incomplete { bytes_needed } => prop_assert!(bytes_needed > cut && bytes_needed <= bytes.len()),
                other => prop_assert!(false, "cut at {}: {:?}", cut, other),
            }
        }
    }

    #[test]
    fn b4_any_bytes_are_judged_alike_however_they_are_cut(tail in bytes(0..400), opcode in 0u8..0x28, key in 0u16..260, extras in 0u8..24, body in 0u32..600) {
        let mut bytes = Vec::new();
        let header = Header { opcode, key_bytes: key, extras_bytes: extras, body_bytes: body, ..Header::default() };
        header.write(REQUEST_MAGIC, &mut bytes);
        bytes.extend_from_slice(&tail);
        let limits = Limits::default();
        let whole = parse_request(&bytes, &limits);
        match whole {
            Parsed::Complete { consumed, .. } => prop_assert!((HEADER_BYTES..=bytes.len()).contains(&consumed)),
            Parsed::Incomplete { bytes_needed } => {
                prop_assert!(bytes_needed > bytes.len());
                prop_assert!(bytes_needed <= HEADER_BYTES + 255 + 250 + limits.value_bytes_max);
            }
            Parsed::Invalid { .. } => {}
            Parsed::Head { .. } => prop_assert!(false, "no value is large unless the limits say so"),
            Parsed::Close => prop_assert!(false, "the magic is right"),
        }
        for cut in 0..bytes.len() {
            let part = parse_request(&bytes[..cut], &limits);
            prop_assert!(part == whole || matches!(part, Parsed::Incomplete { .. }), "cut at {}: {:?}", cut, part);
        }
    }

    #[test]
    fn hostile_bytes_never_ask_for_more_than_the_limits(bytes in bytes(0..100), magic: bool) {
        let first: &[u8] = if magic { &[REQUEST_MAGIC] } else { &[RESPONSE_MAGIC] };
        let bytes = [first, &bytes].concat();
        let limits = Limits::default();
        if let Parsed::Incomplete { bytes_needed } = parse_request(&bytes, &limits) {
            prop_assert!(bytes_needed > bytes.len() && bytes_needed <= HEADER_BYTES + 255 + 250 + limits.value_bytes_max);
        }
        if let ParsedResponse::Incomplete { bytes_needed } = parse_response(&bytes, &limits) {
            prop_assert!(bytes_needed > bytes.len() && bytes_needed <= HEADER_BYTES + 255 + 65_535 + limits.value_bytes_max);
        }
    }

    #[test]
    fn b3_a_response_reads_back_however_it_is_cut(
        opcode: u8, status: u16, opaque: u32, cas: u64, extras in bytes(0..256), key in bytes(0..300), value in bytes(0..300),
    ) {
        let response =
            Response { opcode, status: Status(status), opaque, cas, extras: &extras, key: &key, value: &value };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let limits = Limits::default();
        prop_assert_eq!(parse_response(&bytes, &limits), ParsedResponse::Complete { response, consumed: bytes.len() });
        for cut in 0..bytes.len() {
            let part = parse_response(&bytes[..cut], &limits);
            let is_incomplete = matches!(part, ParsedResponse::Incomplete { .. });
            prop_assert!(is_incomplete);
        }
    }
}

#[test]
fn a_glance_finds_the_key_and_the_end_that_the_head_states() {
    let request = Request {
        command: Command::Store { mode: StoreMode::Set, key: b"Hello", flags: 1, expiry: 2, value: b"World" },
        quiet: false,
        opaque: 0,
        cas: 0,
    };
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    // Its value need not be there.
    assert_eq!(key_ahead(&bytes[..bytes.len() - 5]), Some((&b"Hello"[..], bytes.len())));
    assert_eq!(key_ahead(&bytes[..bytes.len() - 6]), None, "its key lacks a byte");
    assert_eq!(key_ahead(&bytes[..HEADER_BYTES - 1]), None);
    let boundless = packet(1, b"", b"k", u32::MAX);
    assert_eq!(key_ahead(&boundless), Some((&b"k"[..], HEADER_BYTES + u32::MAX as usize)));
}
