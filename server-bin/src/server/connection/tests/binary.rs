//! Binary connections, byte for byte: rules B1 to B8 and Q2. The packets are made by hand, not by our encoder.

use super::*;
use crate::users::Users;

const OPAQUE: u32 = 0xdead_beef;
const NOT_FOUND: (u16, &str) = (0x01, "Not found");
const EXISTS: (u16, &str) = (0x02, "Data exists for key.");
const INVALID: (u16, &str) = (0x04, "Invalid arguments");
const NOT_STORED: (u16, &str) = (0x05, "Not stored.");
const LOGIN_FAILED: (u16, &str) = (0x20, "Auth failure.");
const UNKNOWN: (u16, &str) = (0x81, "Unknown command");

fn packet(magic: u8, opcode: u8, status: u16, cas: u64, [extras, key, value]: [&[u8]; 3]) -> Vec<u8> {
    let body_bytes = (extras.len() + key.len() + value.len()) as u32;
    let mut bytes = vec![magic, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0]);
    bytes.extend(status.to_be_bytes());
    bytes.extend(body_bytes.to_be_bytes());
    bytes.extend(OPAQUE.to_be_bytes());
    bytes.extend(cas.to_be_bytes());
    [&bytes, extras, key, value].concat()
}

fn ask(opcode: u8, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    ask_cas(opcode, 0, extras, key, value)
}

fn ask_cas(opcode: u8, cas: u64, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    packet(0x80, opcode, 0, cas, [extras, key.as_bytes(), value])
}

fn told(opcode: u8, cas: u64, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    packet(0x81, opcode, 0, cas, [extras, key.as_bytes(), value])
}

fn error(opcode: u8, (status, text): (u16, &str)) -> Vec<u8> {
    packet(0x81, opcode, status, 0, [b"", b"", text.as_bytes()])
}

fn set(opcode: u8, key: &str, value: &[u8]) -> Vec<u8> {
    ask(opcode, b"\0\0\0\x05\0\0\0\0", key, value)
}

/// Delta, initial, expiry.
fn count(delta: u64, initial: u64, expiry: u32) -> Vec<u8> {
    [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &expiry.to_be_bytes()].concat()
}

fn with(settings: Settings) -> Shared {
    Shared { settings, ..shared() }
}

fn exchange(shared: &Shared, input: &[u8], piece_bytes: usize) -> (Turn, Vec<u8>) {
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(input, piece_bytes);
    let turn = run(shared, &mut connection, &mut socket);
    (turn, socket.output)
}

/// Each request with its answer, on one connection of an empty cache, however the bytes are cut.
#[track_caller]
fn check(settings: &Settings, turn: Turn, pairs: &[(Vec<u8>, Vec<u8>)]) {
    let input = pairs.iter().flat_map(|(request, _)| request.clone()).collect::<Vec<_>>();
    let expected = pairs.iter().flat_map(|(_, response)| response.clone()).collect::<Vec<_>>();
    for piece_bytes in [1, 23, 25, 4096] {
        let (ended, output) = exchange(&with(settings.clone()), &input, piece_bytes);
        assert_eq!(output.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(ended, turn);
    }
}

#[track_caller]
fn answers(pairs: &[(Vec<u8>, Vec<u8>)]) {
    check(&Settings::default(), Turn::Waiting, pairs);
}

#[track_caller]
fn closes(pairs: &[(Vec<u8>, Vec<u8>)]) {
    let behind = (ask(0x0a, b"", "", b""), Vec::new());
    check(&Settings::default(), Turn::Closed, &[pairs, &[behind]].concat());
}

#[test]
fn b1_the_first_byte_chooses_unless_it_is_forced() {
    let noop = (ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b""));
    let text = (b"get a\r\n".to_vec(), b"END\r\n".to_vec());
    let of = |protocol| Settings { protocol, ..Settings::default() };
    answers(std::slice::from_ref(&noop));
    answers(std::slice::from_ref(&text));
    check(&of(Protocol::Binary), Turn::Waiting, std::slice::from_ref(&noop));
    check(&of(Protocol::Ascii), Turn::Waiting, std::slice::from_ref(&text));
    check(&of(Protocol::Binary), Turn::Closed, &[(text.0.clone(), Vec::new())]);
    // In text it is the beginning of a line, whose name nobody knows.
    let line = ([&ask(0x00, b"", "a", b"")[..], b"\r\n"].concat(), b"ERROR\r\n".to_vec());
    check(&of(Protocol::Ascii), Turn::Waiting, std::slice::from_ref(&line));
    answers(&[text.clone(), line, text.clone()]);
    closes(&[noop, (text.0, Vec::new())]);
}

#[test]
fn b2_each_opcode_does_its_work() {
    let flags = b"\0\0\0\x05";
    let soon = b"\0\0\0\x64";
    answers(&[
        (set(0x01, "a", b"b"), told(0x01, 1, b"", "", b"")),
        (ask(0x00, b"", "a", b""), told(0x00, 1, flags, "", b"b")),
        (ask(0x0c, b"", "a", b""), told(0x0c, 1, flags, "a", b"b")),
        (ask(0x0e, b"", "a", b"c"), told(0x0e, 2, b"", "", b"")),
        (ask(0x0f, b"", "a", b"a"), told(0x0f, 3, b"", "", b"")),
        (ask(0x1d, soon, "a", b""), told(0x1d, 3, flags, "", b"abc")),
        (ask(0x23, soon, "a", b""), told(0x23, 3, flags, "a", b"abc")),
        (ask(0x1c, soon, "a", b""), told(0x1c, 3, flags, "", b"")),
        // Three touches and a deletion took a number each from the counter that versions come from.
        (set(0x03, "a", b"d"), told(0x03, 7, b"", "", b"")),
        (ask(0x04, b"", "a", b""), told(0x04, 0, b"", "", b"")),
        (set(0x02, "a", b"e"), told(0x02, 9, b"", "", b"")),
        (ask(0x08, b"", "", b""), told(0x08, 0, b"", "", b"")),
        (ask(0x00, b"", "a", b""), error(0x00, NOT_FOUND)),
        (ask(0x0b, b"", "", b""), told(0x0b, 0, b"", "", super::super::super::commands::VERSION.as_bytes())),
        (ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b"")),
    ]);
    closes(&[(ask(0x07, b"", "", b""), told(0x07, 0, b"", "", b""))]);
}

#[test]
fn b2_unknown_opcodes_have_their_body_skipped() {
    let body = vec![0x80; 10_000];
    answers(&[
        (ask(0x1b, b"\0\0\0\x01", "", b""), error(0x1b, UNKNOWN)),
        (ask(0x99, b"", "key", &body), error(0x99, UNKNOWN)),
        (ask(0x20, b"", "", b""), error(0x20, UNKNOWN)),
        (ask(0x21, b"", "PLAIN", b"\0a\0b"), error(0x21, UNKNOWN)),
        (ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b"")),
    ]);
}

#[test]
fn b3_each_failure_has_its_status_and_text() {
    let settings = Settings { item_bytes_max: 4096, ..Settings::default() };
    let number = (0x06, "Non-numeric server-side value for incr or decr");
    let pairs = [
        (ask(0x00, b"", "none", b""), error(0x00, NOT_FOUND)),
        (set(0x11, "a", b"text"), Vec::new()),
        (set(0x02, "a", b""), error(0x02, EXISTS)),
        (set(0x01, "a", &[0; 5000]), error(0x01, (0x03, "Too large."))),
        (ask(0x00, b"", "a", b""), error(0x00, NOT_FOUND)),
        (ask(0x0e, b"", "a", b"x"), error(0x0e, NOT_STORED)),
        (set(0x11, "a", b"text"), Vec::new()),
        (ask(0x05, &count(1, 0, 0), "a", b""), error(0x05, number)),
    ];
    check(&settings, Turn::Waiting, &pairs);
}

#[test]
fn b3_l3_l5_values_above_the_limit_are_skipped_and_take_the_old_item_along() {
    let too_large = (0x03, "Too large.");
    let large = vec![0x80; 3_000_000];
    let mut pairs = vec![(set(0x11, "a", b"old"), Vec::new())];
    for opcode in [0x02, 0x03, 0x0e, 0x1a, 0x13] {
        let request = if matches!(opcode, 0x0e | 0x1a) {
            ask(opcode, b"", "a", &large)
        } else {
            set(opcode, "a", &large)
        };
        pairs.push((request, error(opcode, too_large)));
    }
    pairs.push((ask(0x00, b"", "a", b""), told(0x00, 1, b"\0\0\0\x05", "", b"old")));
    pairs.push((set(0x11, "a", &large), error(0x11, too_large)));
    pairs.push((ask(0x00, b"", "a", b""), error(0x00, NOT_FOUND)));
    let input = pairs.iter().flat_map(|(request, _)| request.clone()).collect::<Vec<_>>();
    let expected = pairs.iter().flat_map(|(_, response)| response.clone()).collect::<Vec<_>>();
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&input, 50_000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(socket.output.escape_ascii().to_string(), expected.escape_ascii().to_string());
    connection.give_back(&mut Buffers::default());
    assert_eq!(connection.input.capacity(), 0);
}

#[test]
fn b4_wrong_lengths_are_answered_and_close() {
    let long = "k".repeat(251);
    for request in [
        ask(0x00, b"", "", b""),
        ask(0x00, b"", &long, b""),
        ask(0x09, b"", "a", b"surplus"),
        ask(0x01, b"\0\0\0\0", "a", b"v"),
        ask(0x05, &[0; 8], "a", b""),
        ask(0x08, b"\0\0", "", b""),
        ask(0x0a, b"", "a", b""),
        ask(0x1c, b"", "a", b""),
    ] {
        let opcode = request[1];
        closes(&[(request, error(opcode, INVALID))]);
    }
    let mut head_beyond_body = ask(0x00, b"", "abc", b"");
    head_beyond_body[11] = 2;
    closes(&[(head_beyond_body, error(0x00, UNKNOWN))]);
    let mut huge = set(0x01, "a", b"");
    huge[8..12].copy_from_slice(&0x4000_0001u32.to_be_bytes());
    closes(&[(huge, error(0x01, INVALID))]);
    closes(&[(ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b"")), (b"\x81".to_vec(), Vec::new())]);
}

#[test]
fn b4_a_flush_takes_an_expiry() {
    answers(&[
        (set(0x11, "a", b"1"), Vec::new()),
        (ask(0x08, b"\0\0\x0e\x10", "", b""), told(0x08, 0, b"", "", b"")),
        (ask(0x00, b"", "a", b""), told(0x00, 1, b"\0\0\0\x05", "", b"1")),
        (ask(0x08, b"\0\0\0\0", "", b""), told(0x08, 0, b"", "", b"")),
        (ask(0x00, b"", "a", b""), error(0x00, NOT_FOUND)),
    ]);
}

#[test]
fn g2_f_refuses_a_flush_over_binary_too() {
    let settings = Settings { flush_enabled: false, ..Settings::default() };
    let pairs = [
        (set(0x11, "a", b"1"), Vec::new()),
        (ask(0x08, b"", "", b""), error(0x08, LOGIN_FAILED)),
        // Errors are never quiet.
        (ask(0x18, b"", "", b""), error(0x18, LOGIN_FAILED)),
        (ask(0x00, b"", "a", b""), told(0x00, 1, b"\0\0\0\x05", "", b"1")),
    ];
    check(&settings, Turn::Waiting, &pairs);
}

#[test]
fn b5_a_cas_must_match_and_a_change_tells_the_new_one() {
    let set_cas = |opcode, cas, key| ask_cas(opcode, cas, &[0; 8], key, b"5");
    answers(&[
        (set_cas(0x01, 9, "a"), error(0x01, NOT_FOUND)),
        (set_cas(0x02, 9, "a"), error(0x02, NOT_FOUND)),
        (set_cas(0x03, 9, "a"), error(0x03, NOT_FOUND)),
        (ask_cas(0x0e, 9, b"", "a", b"0"), error(0x0e, NOT_STORED)),
        (ask_cas(0x04, 9, b"", "a", b""), error(0x04, NOT_FOUND)),
        (set_cas(0x03, 0, "a"), error(0x03, NOT_FOUND)),
        (ask(0x0f, b"", "a", b"0"), error(0x0f, NOT_STORED)),
        (set_cas(0x01, 0, "a"), told(0x01, 1, b"", "", b"")),
        (set_cas(0x02, 0, "a"), error(0x02, EXISTS)),
        (set_cas(0x01, 9, "a"), error(0x01, EXISTS)),
        (set_cas(0x01, 1, "a"), told(0x01, 2, b"", "", b"")),
        (set_cas(0x02, 2, "a"), told(0x02, 3, b"", "", b"")),
        (set_cas(0x03, 3, "a"), told(0x03, 4, b"", "", b"")),
        (ask_cas(0x0e, 3, b"", "a", b"0"), error(0x0e, EXISTS)),
        (ask_cas(0x0e, 4, b"", "a", b"0"), told(0x0e, 5, b"", "", b"")),
        (ask_cas(0x0f, 5, b"", "a", b"1"), told(0x0f, 6, b"", "", b"")),
        (ask_cas(0x05, 5, &count(1, 0, 0), "a", b""), error(0x05, EXISTS)),
        (ask_cas(0x05, 6, &count(1, 0, 0), "a", b""), told(0x05, 7, b"", "", &151u64.to_be_bytes())),
        (ask_cas(0x04, 6, b"", "a", b""), error(0x04, EXISTS)),
        (ask_cas(0x04, 7, b"", "a", b""), told(0x04, 0, b"", "", b"")),
    ]);
}

#[test]
fn b5_m6_a_cas_that_a_client_gave_is_compared_by_every_command() {
    let shared = shared();
    let given = |value: &[u8]| {
        let answer = super::operators::ask(&shared, "ms k 1 E77\r\n1\r\nmg k c\r\n");
        assert_eq!(answer, "HD\r\nHD c77\r\n", "{}", value.escape_ascii());
    };
    let status = |request: &[u8]| exchange(&shared, request, 1 << 20).1[7];
    let cases = [
        (0x0e, &b""[..], &b"2"[..]),
        (0x0f, b"", b"2"),
        (0x05, &count(1, 0, 0), b""),
        (0x06, &count(1, 0, 0), b""),
        (0x01, &[0; 8], b"2"),
        (0x04, b"", b""),
    ];
    for (opcode, extras, value) in cases {
        given(value);
        assert_eq!(status(&ask_cas(opcode, 78, extras, "k", value)), 2, "opcode {opcode}: another");
        assert_eq!(status(&ask_cas(opcode, 77, extras, "k", value)), 0, "opcode {opcode}: its own");
    }
}

#[test]
fn b6_z7_an_absent_counter_begins_with_its_initial_value() {
    let no_flags = b"\0\0\0\0";
    answers(&[
        (ask(0x05, &count(1, 7, u32::MAX), "n", b""), error(0x05, NOT_FOUND)),
        (ask(0x06, &count(1, 7, u32::MAX), "n", b""), error(0x06, NOT_FOUND)),
        (ask(0x05, &count(1, 12, 0), "n", b""), told(0x05, 1, b"", "", &12u64.to_be_bytes())),
        (ask(0x00, b"", "n", b""), told(0x00, 1, no_flags, "", b"12")),
        (ask(0x06, &count(3, 0, 0), "n", b""), told(0x06, 2, b"", "", &9u64.to_be_bytes())),
        (ask(0x00, b"", "n", b""), told(0x00, 2, no_flags, "", b"9 ")),
        (ask(0x06, &count(100, 0, 0), "n", b""), told(0x06, 3, b"", "", &0u64.to_be_bytes())),
        (ask(0x05, &count(u64::MAX, 0, 0), "n", b""), told(0x05, 4, b"", "", &u64::MAX.to_be_bytes())),
        (ask(0x05, &count(2, 0, 0), "n", b""), told(0x05, 5, b"", "", &1u64.to_be_bytes())),
        (ask(0x05, &count(1, u64::MAX, 0), "m", b""), told(0x05, 6, b"", "", &u64::MAX.to_be_bytes())),
        (ask(0x00, b"", "m", b""), told(0x00, 6, no_flags, "", b"18446744073709551615")),
    ]);
}

#[test]
fn b6_expiries_are_unsigned() {
    // What would be -2 is a moment in the year 2106, and 1 January 1970 plus 31 days has long passed.
    answers(&[
        (ask(0x11, b"\0\0\0\0\xff\xff\xff\xfe", "a", b"1"), Vec::new()),
        (ask(0x00, b"", "a", b""), told(0x00, 1, b"\0\0\0\0", "", b"1")),
    ]);
    let past = 31 * 86_400u32;
    let shared = Shared { started_at_ms: u64::from(past) * 1000, ..shared() };
    let extras = [&[0; 4][..], &past.to_be_bytes()].concat();
    let input = [ask(0x11, &extras, "a", b"1"), ask(0x00, b"", "a", b"")].concat();
    assert_eq!(exchange(&shared, &input, 100).1, error(0x00, NOT_FOUND));
}

#[test]
fn b7_quiet_gets_hide_misses_and_quiet_changes_hide_success_but_never_errors() {
    let flags = b"\0\0\0\x05";
    let getk_miss = packet(0x81, 0x0c, 0x01, 0, [b"", b"none", b""]);
    answers(&[
        (ask(0x09, b"", "none", b""), Vec::new()),
        (ask(0x0d, b"", "none", b""), Vec::new()),
        (ask(0x1e, &[0; 4], "none", b""), Vec::new()),
        (ask(0x24, &[0; 4], "none", b""), Vec::new()),
        (ask(0x0c, b"", "none", b""), getk_miss),
        (set(0x11, "a", b"b"), Vec::new()),
        (set(0x12, "a", b"b"), error(0x12, EXISTS)),
        (set(0x12, "n", b"1"), Vec::new()),
        (set(0x13, "none", b"b"), error(0x13, NOT_FOUND)),
        (set(0x13, "a", b"b"), Vec::new()),
        (ask(0x19, b"", "a", b"c"), Vec::new()),
        (ask(0x1a, b"", "a", b"a"), Vec::new()),
        (ask(0x19, b"", "none", b"c"), error(0x19, NOT_STORED)),
        (ask(0x15, &count(1, 0, 0), "n", b""), Vec::new()),
        (ask(0x16, &count(1, 0, u32::MAX), "none", b""), error(0x16, NOT_FOUND)),
        (ask(0x09, b"", "a", b""), told(0x09, 5, flags, "", b"abc")),
        (ask(0x0d, b"", "a", b""), told(0x0d, 5, flags, "a", b"abc")),
        (ask(0x1e, &[0; 4], "a", b""), told(0x1e, 5, flags, "", b"abc")),
        (ask(0x24, &[0; 4], "a", b""), told(0x24, 5, flags, "a", b"abc")),
        (ask(0x14, b"", "a", b""), Vec::new()),
        (ask(0x14, b"", "a", b""), error(0x14, NOT_FOUND)),
        (ask(0x18, b"", "", b""), Vec::new()),
        (ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b"")),
    ]);
    closes(&[(ask(0x09, b"", "none", b""), Vec::new()), (ask(0x17, b"", "", b""), Vec::new())]);
}

#[test]
fn a3_b5_a_value_that_can_be_no_number_is_told_before_a_wrong_cas() {
    let not_a_number = (0x06, "Non-numeric server-side value for incr or decr");
    let incr = |cas| ask_cas(0x05, cas, &count(1, 0, 0), "a", b"");
    answers(&[
        (set(0x01, "a", b""), told(0x01, 1, b"", "", b"")),
        (incr(77), error(0x05, not_a_number)),
        (set(0x01, "a", b"1"), told(0x01, 2, b"", "", b"")),
        (incr(77), error(0x05, EXISTS)),
        (set(0x01, "a", &vec![b'1'; (512 << 10) + 1]), told(0x01, 3, b"", "", b"")),
        (incr(77), error(0x05, not_a_number)),
    ]);
}

#[test]
fn m6_b5_a_cas_that_a_client_gave_is_compared_in_packets_too() {
    let shared = with(Settings::default());
    let mut socket = socket(b"ms a 1 E77\r\n1\r\n", 100);
    run(&shared, &mut Connection::new(&shared.settings), &mut socket);
    let incr = ask_cas(0x05, 77, &count(1, 0, 0), "a", b"");
    let (_, answer) = exchange(&shared, &incr, 4096);
    assert_eq!(answer[6..8], [0, 0], "{}", answer.escape_ascii());
    let version = u64::from_be_bytes(answer[16..24].try_into().unwrap());
    let (_, answer) = exchange(&shared, &ask_cas(0x0e, version, b"", "a", b"0"), 4096);
    assert_eq!(answer[6..8], [0, 0], "{}", answer.escape_ascii());
    let (_, answer) = exchange(&shared, &ask_cas(0x0e, 77, b"", "a", b"0"), 4096);
    assert_eq!(answer, error(0x0e, EXISTS));
}

#[test]
fn b8_a_table_that_is_none_is_not_found() {
    let table = |key| (ask(0x10, b"", key, b""), error(0x10, NOT_FOUND));
    answers(&[table("nothing"), table("detail"), table("detail x")]);
}

#[test]
fn b8_statistics_come_a_packet_each_and_end_with_an_empty_one() {
    let shared = shared();
    let (_, output) = exchange(&shared, &ask(0x10, b"", "", b""), 100);
    let mut rest = &output[..];
    let mut names = Vec::new();
    while rest.len() > 24 {
        assert_eq!(rest[..2], [0x81, 0x10]);
        assert_eq!(rest[12..16], OPAQUE.to_be_bytes());
        let key_bytes = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let body_bytes = u32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        names.push(String::from_utf8(rest[24..24 + key_bytes].to_vec()).unwrap());
        assert!(body_bytes > key_bytes, "a statistic has a value");
        rest = &rest[24 + body_bytes..];
    }
    let expected: Vec<&str> = include_str!("../stats_names.txt").split_whitespace().collect();
    assert_eq!(names, expected);
    assert_eq!(rest, told(0x10, 0, b"", "", b""));
    answers(&[
        (ask(0x10, b"", "reset", b""), told(0x10, 0, b"", "", b"")),
        (
            ask(0x10, b"", "sizes", b""),
            [told(0x10, 0, b"", "sizes_status", b"disabled"), told(0x10, 0, b"", "", b"")].concat(),
        ),
        (ask(0x10, b"", "nonsense", b""), error(0x10, NOT_FOUND)),
    ]);
}

fn with_login() -> Settings {
    let users = Users::parse(b"ada:pass\nbob:word\n").unwrap();
    Settings { protocol: Protocol::Binary, sasl_users: Some(users), ..Settings::default() }
}

#[test]
fn q2_before_a_login_everything_else_fails_and_closes() {
    let version = super::super::super::commands::VERSION.as_bytes();
    for request in [
        ask(0x0a, b"", "", b""),
        ask(0x09, b"", "a", b""),
        set(0x11, "a", &[b'x'; 10_000]),
        ask(0x99, b"", "", b""),
        ask(0x00, b"", "", b""),
        ask(0x17, b"", "", b""),
    ] {
        let opcode = request[1];
        let pairs = [
            (ask(0x0b, b"", "", b""), told(0x0b, 0, b"", "", version)),
            (ask(0x20, b"", "", b""), told(0x20, 0, b"", "", b"PLAIN")),
            (request, error(opcode, LOGIN_FAILED)),
        ];
        check(&with_login(), Turn::Closed, &pairs);
    }
    check(&with_login(), Turn::Closed, &[(b"get a\r\n".to_vec(), Vec::new())]);
}

#[test]
fn q2_a_value_sent_before_a_login_takes_no_memory() {
    let shared = with(with_login());
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&set(0x01, "a", &vec![0; 900_000]), 1 << 20);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Closed);
    assert_eq!(socket.output, error(0x01, LOGIN_FAILED));
    assert!(connection.input.capacity() < 100_000);
}

#[test]
fn q2_plain_logs_in_at_once_or_in_two_steps() {
    let noop = (ask(0x0a, b"", "", b""), told(0x0a, 0, b"", "", b""));
    let welcome = |opcode| told(opcode, 0, b"", "", b"Authenticated");
    let at_once = (ask(0x21, b"", "PLAIN", b"\0bob\0word"), welcome(0x21));
    check(&with_login(), Turn::Waiting, &[at_once.clone(), noop.clone()]);
    let begin = (ask(0x21, b"", "PLAIN", b""), packet(0x81, 0x21, 0x21, 0, [b"", b"", b""]));
    let step = (ask(0x22, b"", "PLAIN", b"ada\0ada\0pass"), welcome(0x22));
    check(&with_login(), Turn::Waiting, &[begin, step, noop.clone()]);
    // A later login that fails takes the earlier one along.
    let wrong = (ask(0x21, b"", "PLAIN", b"\0bob\0wrong"), error(0x21, LOGIN_FAILED));
    check(&with_login(), Turn::Closed, &[at_once, wrong, (noop.0, error(0x0a, LOGIN_FAILED))]);
}

#[test]
fn q2_failed_logins_are_counted_and_may_be_tried_again() {
    let failures: [(u8, &str, &[u8]); 7] = [
        (0x21, "PLAIN", b"\0ada\0wrong"),
        (0x21, "PLAIN", b"\0ada\0word"),
        (0x21, "PLAIN", b"bob\0ada\0pass"),
        (0x21, "PLAIN", b"ada"),
        (0x21, "CRAM-MD5", b"\0ada\0pass"),
        (0x21, "CRAM-MD5", b""),
        (0x22, "PLAIN", b"\0ada\0pass"),
    ];
    let tries = failures.map(|(opcode, mechanism, message)| ask(opcode, b"", mechanism, message)).concat();
    let right = ask(0x21, b"", "PLAIN", b"\0ada\0pass");
    let shared = with(with_login());
    let (turn, output) = exchange(&shared, &[tries, right].concat(), 1000);
    let refusals = failures.map(|(opcode, ..)| error(opcode, LOGIN_FAILED)).concat();
    assert_eq!(output, [refusals, told(0x21, 0, b"", "", b"Authenticated")].concat());
    assert_eq!(turn, Turn::Waiting);
    let counters = shared.counters.snapshot();
    assert_eq!((counters.auth_cmds, counters.auth_errors), (8, 7));
}

#[test]
fn a_binary_client_that_does_not_read_is_not_executed_beyond_the_bound() {
    let shared = shared();
    shared.cache.set("big", vec![b'x'; 400_000], hotspare::Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&ask(0x00, b"", "big", b"").repeat(500), 1 << 20);
    socket.room = 0;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(connection.output.len() < 2 * UNSENT_BYTES_MAX, "{} bytes wait", connection.output.len());
    for _ in 0..100 {
        socket.room = 500_000;
        run(&shared, &mut connection, &mut socket);
        assert!(connection.output.len() < 4 * UNSENT_BYTES_MAX, "{} bytes are held", connection.output.len());
    }
    socket.room = usize::MAX;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(socket.output.len(), 500 * (24 + 4 + 400_000));
    assert_eq!(shared.counters.snapshot().get_hits, 500);
}

/// As memcached: what is sent fits, and with what is there it does not, so that stays.
#[test]
fn b5_what_would_grow_too_large_is_not_stored_and_stays() {
    let half = vec![b'x'; 600_000];
    let pairs = [0x0e, 0x0f]
        .into_iter()
        .flat_map(|opcode| [0, 1].map(|cas| (ask_cas(opcode, cas, b"", "a", &half), opcode)));
    let shared = shared();
    let (_, stored) = exchange(&shared, &set(0x01, "a", &half), 1 << 16);
    assert_eq!(stored, told(0x01, 1, b"", "", b""));
    for (request, opcode) in pairs {
        let (_, answer) = exchange(&shared, &request, 1 << 16);
        assert_eq!(answer.escape_ascii().to_string(), error(opcode, NOT_STORED).escape_ascii().to_string());
    }
    let (_, there) = exchange(&shared, &ask(0x00, b"", "a", b""), 1 << 16);
    assert_eq!(there, told(0x00, 1, b"\0\0\0\x05", "", &half));
}
