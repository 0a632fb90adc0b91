//! The rules as tables, and round trips as properties.

use proptest::prelude::*;

use super::response::FIXED;
use super::*;

fn parse(text: &[u8]) -> Parsed<'_> {
    parse_request(text, &Limits::default())
}

proptest! {
    #[test]
    fn r2_a_key_too_long_is_found_wherever_it_stands(
        words in proptest::collection::vec((0..4_usize, prop_oneof![1..5_usize, 240..260_usize]), 0..9),
        end in 0..3_usize,
    ) {
        let mut line = "get ".to_owned();
        for (spaces, bytes) in &words {
            line += &" ".repeat(1 + spaces);
            line += &"k".repeat(*bytes);
        }
        line += &(" ".repeat(end) + "\r\n");
        let are_keys = !words.is_empty() && words.iter().all(|(_, bytes)| *bytes <= 250);
        match parse(line.as_bytes()) {
            Parsed::Complete { request: Request::Get { mut keys, .. }, consumed } => {
                prop_assert!(are_keys && consumed == line.len());
                let mut room = [&b""[..]; 9];
                let count = keys.take_words(&mut room);
                let lengths: Vec<usize> = room[..count].iter().map(|key| key.len()).collect();
                prop_assert_eq!(lengths, words.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>());
            }
            Parsed::Invalid { reply: Some(ErrorReply::BadLine), consumed, .. } => {
                prop_assert!(!are_keys && consumed == line.len());
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn r1_a_value_of_any_length_has_its_header() {
    for bytes in (0..1100).chain([9_999, 10_000, usize::from(u16::MAX)]) {
        for (flags, cas) in [(0, None), (7, None), (0, Some(3))] {
            let mut out = b"x".to_vec();
            encode_value_header(b"key", flags, bytes, cas, &mut out);
            let cas = cas.map_or(String::new(), |cas: u64| format!(" {cas}"));
            let expected = format!("xVALUE key {flags} {bytes}{cas}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
    for key_bytes in 1..=250 {
        let key: String = ('!'..='~').cycle().take(key_bytes).collect();
        let mut out = Vec::new();
        encode_value_header(key.as_bytes(), 0, key_bytes * 4, None, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("VALUE {key} 0 {}\r\n", key_bytes * 4));
    }
}

fn reply(text: &[u8]) -> (&'static str, usize, u64) {
    match parse(text) {
        Parsed::Invalid { reply, consumed, skip } => (reply.map_or("", ErrorReply::as_str), consumed, skip),
        other => panic!("{other:?}"),
    }
}

const BAD_LINE: &str = "CLIENT_ERROR bad command line format";

#[test]
fn f1_to_f5_lines_that_are_no_request() {
    let long_key = [b"get ", &[b'k'; 251][..], b"\r\n"].concat();
    let cases: [(&[u8], &str); 14] = [
        (b"nonsense\r\n", "ERROR"),
        (b"GET a\r\n", "ERROR"),
        (b" get a\r\n", "ERROR"),
        (b"get\ta\r\n", "ERROR"),
        (b"\r\n", BAD_LINE),
        (b" \r\n", BAD_LINE),
        (b"get\r\n", BAD_LINE),
        (b"get \r\n", BAD_LINE),
        (b"set a 0 0\r\n", BAD_LINE),
        (b"set a 0 0 x\r\n", BAD_LINE),
        (b"set a 0 0 -1\r\n", BAD_LINE),
        (b"incr a\r\n", BAD_LINE),
        (b"gat 0\r\n", BAD_LINE),
        (&long_key, BAD_LINE),
    ];
    for (line, error) in cases {
        assert_eq!(reply(line), (error, line.len(), 0), "{}", line.escape_ascii());
    }
}

#[test]
fn f1_a_bare_newline_ends_a_line() {
    assert_eq!(parse(b"version\nx"), Parsed::Complete { request: Request::Version, consumed: 8 });
}

#[test]
fn g1_words_behind_version_and_quit_mean_nothing() {
    for (line, request) in [
        (&b"version foo bar\r\n"[..], Request::Version),
        (b"version noreply\r\n", Request::Version),
        (b"quit foo bar\r\n", Request::Quit),
    ] {
        assert_eq!(parse(line), Parsed::Complete { request, consumed: line.len() });
    }
}

#[test]
fn f10_noreply_hides_the_errors_of_verbosity() {
    assert_eq!(reply(b"verbosity noreply\r\n").0, "");
    assert_eq!(reply(b"verbosity foo noreply\r\n").0, "");
    // As with the other commands: words beyond that one make it an unknown command.
    assert_eq!(reply(b"verbosity 0 noreply noreply\r\n").0, "ERROR");
}

#[test]
fn f3_a_line_that_begins_as_binary_is_an_unknown_name_as_any() {
    assert_eq!(reply(b"\x80hello\r\n").0, "ERROR");
    assert_eq!(reply(b"\x80\r\n").0, "CLIENT_ERROR bad command line format");
    assert_eq!(parse(&[0x80, 0, 0]), Parsed::Incomplete { bytes_needed: 4 });
}

#[test]
fn f3_f6_strays_are_closed_without_a_reply() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Close);
    assert_eq!(parse(&[b'a'; 2048]), Parsed::Close);
    assert_eq!(parse(&[b'a'; 2047]), Parsed::Incomplete { bytes_needed: 2048 });
    let long_get = [b"get ".to_vec(), b"key ".repeat(10_000)].concat();
    assert!(matches!(parse(&long_get), Parsed::Incomplete { .. }));
    assert_eq!(parse(&[b"get ".to_vec(), b"key ".repeat(300_000)].concat()), Parsed::Close);
}

#[test]
fn f6_a_gat_s_line_has_the_bound_of_a_get_s() {
    for name in ["get ", "gets ", "gat 0 ", "gats 0 "] {
        let line = |keys| [name.as_bytes(), &b"key ".repeat(keys)[..]].concat();
        assert!(matches!(parse(&line(10_000)), Parsed::Incomplete { .. }), "{name}");
        let whole = [&line(10_000)[..], b"\r\n"].concat();
        assert!(
            matches!(parse(&whole), Parsed::Complete { consumed, .. } if consumed == whole.len()),
            "{name}"
        );
        assert_eq!(parse(&line(300_000)), Parsed::Close, "{name}");
        assert_eq!(parse(&[&line(300_000)[..], b"\r\n"].concat()), Parsed::Close, "{name}");
    }
}

#[test]
fn f6_a_line_too_long_is_closed_upon_whether_or_not_its_end_has_come() {
    let line = [b"delete ".to_vec(), vec![b'k'; 2040], b"\n".to_vec()].concat();
    assert!(matches!(parse(&line), Parsed::Invalid { consumed: 2048, .. }), "the longest line");
    let line = [b"delete ".to_vec(), vec![b'k'; 2041], b"\n".to_vec()].concat();
    assert_eq!((parse(&line[..2048]), parse(&line)), (Parsed::Close, Parsed::Close));
    for name in ["get", "gets", "gat 0", "gats 0", "  get"] {
        let line = [name.as_bytes(), &b" key".repeat(1000), b"\r\n"].concat();
        assert!(matches!(parse(&line[..2048]), Parsed::Incomplete { bytes_needed: 2049 }), "{name}");
        assert!(matches!(parse(&line), Parsed::Complete { .. } | Parsed::Invalid { .. }), "{name}");
    }
    let answer = [&b"VERSION "[..], &[b'x'; 2048], b"\r\n"].concat();
    for bytes in [&answer[..2048], &answer] {
        assert_eq!(parse_response(bytes, &Limits::default()), ParsedResponse::Invalid);
    }
}

#[test]
fn s2_s3_what_is_skipped_with_a_bad_store() {
    let long = [b"set ", &[b'k'; 251][..], b" 0 0 5\r\n"].concat();
    assert_eq!(reply(&long), (BAD_LINE, long.len(), 7));
    assert_eq!(reply(b"set a x 0 5\r\n"), (BAD_LINE, 13, 7));
    assert_eq!(reply(b"set a 4294967296 0 5\r\n"), (BAD_LINE, 22, 7));
    assert_eq!(reply(b"cas a 0 0 5\r\n"), (BAD_LINE, 13, 7));
    assert_eq!(reply(b"cas a 0 0 5 x noreply\r\n"), ("", 23, 7));
    assert_eq!(reply(b"set a 0 0 2\r\nabXY"), ("CLIENT_ERROR bad data chunk", 17, 0));
    assert_eq!(reply(b"set a 0 0 2 noreply\r\nabc\r\n"), ("", 25, 0));
}

#[test]
fn l3_a_value_above_the_limit_is_named_and_skipped() {
    let Parsed::Complete { request, consumed } = parse(b"set a 1 2 2000000 noreply\r\nabc") else { panic!() };
    let command = StoreCommand::Set;
    let skip = 2_000_002;
    assert_eq!(request, Request::StoreTooLarge { command, key: b"a", bytes: 2_000_000, noreply: true, skip });
    assert_eq!(consumed, 27);
    assert_eq!(reply(b"set a 0 0 2147483646\r\n").0, BAD_LINE);
}

#[test]
fn the_line_of_a_large_value_is_enough_unless_it_is_too_large() {
    let limits = Limits { large_bytes_min: 1000, value_bytes_max: 2000, ..Limits::default() };
    let parse = |text| parse_request(text, &limits);
    let line = b"cas a 7 9 1000 5 noreply\r\n";
    let store =
        Store { command: StoreCommand::Cas(5), key: b"a", flags: 7, exptime: 9, data: b"", noreply: true };
    let head = Parsed::Head { store, consumed: line.len(), value_bytes: 1000 };
    assert_eq!(parse(line), head);
    let whole = [&line[..], &[b'v'; 1000], b"\r\n"].concat();
    assert_eq!(parse(&whole), head, "whether or not the value has come");
    assert_eq!(parse(&line[..line.len() - 1]), Parsed::Incomplete { bytes_needed: line.len() });
    assert_eq!(parse(b"set a 0 0 999\r\n"), Parsed::Incomplete { bytes_needed: 15 + 999 + 2 });
    let too_large = parse(b"set a 0 0 2001\r\n");
    assert!(matches!(too_large, Parsed::Complete { request: Request::StoreTooLarge { .. }, .. }));
    assert!(matches!(parse(b"set a x 0 1000\r\n"), Parsed::Invalid { skip: 1002, .. }));
}

#[test]
fn f7_storage_numbers_tolerate_a_plus() {
    let Parsed::Complete { request: Request::Store(store), .. } = parse(b"set a +7 +9 0\r\n\r\n") else {
        panic!()
    };
    assert_eq!((store.flags, store.exptime), (7, 9));
}

#[test]
fn z2_a_delete_takes_a_zero_and_nothing_else() {
    for (line, noreply) in
        [(&b"delete k\r\n"[..], false), (b"delete k 0\r\n", false), (b"delete k 0 noreply\r\n", true)]
    {
        let Parsed::Complete { request, .. } = parse(line) else { panic!() };
        assert_eq!(request, Request::Delete { key: b"k", noreply });
    }
    assert!(reply(b"delete k 5\r\n").0.starts_with(BAD_LINE));
    assert!(reply(b"delete k 0 0\r\n").0.starts_with(BAD_LINE));
}

#[test]
fn a2_x3_bad_numbers_have_their_own_words() {
    assert_eq!(reply(b"incr a x\r\n").0, "CLIENT_ERROR invalid numeric delta argument");
    assert_eq!(reply(b"incr a -1\r\n").0, "CLIENT_ERROR invalid numeric delta argument");
    assert_eq!(reply(b"touch a x\r\n").0, "CLIENT_ERROR invalid exptime argument");
    assert_eq!(reply(b"gat x a\r\n").0, "CLIENT_ERROR invalid exptime argument");
    assert_eq!(reply(b"flush_all x\r\n").0, "CLIENT_ERROR invalid exptime argument");
    assert_eq!(reply(b"verbosity\r\n").0, BAD_LINE);
}

#[test]
fn g3_g7_g8_g9_commands_of_operators_are_known_by_their_whole_name() {
    let names: [&[u8]; 6] = [b"cache_memlimit", b"lru_crawler", b"watch", b"slabs", b"lru", b"debugtime"];
    for name in names {
        let line = [name, b" a  1 noreply\r\n"].concat();
        let Parsed::Complete { request: Request::Operate { command, arguments }, .. } = parse(&line) else {
            panic!("{}", line.escape_ascii())
        };
        assert_eq!(command.name(), name);
        assert_eq!(arguments.iter().collect::<Vec<_>>(), [&b"a"[..], b"1", b"noreply"]);
    }
    assert_eq!(reply(b"lru_crawl all\r\n").0, "ERROR");
    assert_eq!(reply(b"watches\r\n").0, "ERROR");
}

#[test]
fn f3_a_name_alone_may_be_http() {
    assert_eq!(parse(b"HTTP/1.1\r\n"), Parsed::Close);
    assert_eq!(parse(b"foo bar HTTP/1.0\r\n"), Parsed::Close);
    assert_eq!(reply(b"HTTP/1.1 x\r\n").0, "ERROR");
}

#[test]
fn f5_bget_is_a_get() {
    let get = Request::Get { with_cas: false, keys: Keys::new(b" a b") };
    assert_eq!(parse(b"bget a b\r\n"), Parsed::Complete { request: get, consumed: 10 });
    assert_eq!(reply(b"bget\r\n").0, BAD_LINE);
}

#[test]
fn f7_flags_and_lifetimes_of_a_store_may_begin_with_white_space_and_a_plus() {
    let stored = |line: &[u8]| match parse(&[line, b"\r\nx\r\n"].concat()) {
        Parsed::Complete { request: Request::Store(store), .. } => Some((store.flags, store.exptime)),
        _ => None,
    };
    assert_eq!(stored(b"set a \t+5 \x0b-7 1"), Some((5, -7)));
    assert_eq!(stored(b"set a 5 +7 1"), Some((5, 7)));
    for line in
        [&b"set a 5\t 0 1"[..], b"set a +-5 0 1", b"set a 0 +-7 1", b"set a 0 7\t 1", b"set a ++5 0 1"]
    {
        assert_eq!(stored(line), None, "{}", line.escape_ascii());
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0x21u8..0x7f, 1..250)
        .prop_filter("a word of the protocol", |key| key != b"noreply" && !key.starts_with(b"HTTP/"))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".to_owned()),
        "[0-9]{1,3}",
        "[0-9]{9,12}",
        "[+-]?[0-9]{0,2}",
        any::<u32>().prop_map(|number| number.to_string())
    ]
}

fn command() -> impl Strategy<Value = StoreCommand> {
    prop_oneof![
        Just(StoreCommand::Set),
        Just(StoreCommand::Add),
        Just(StoreCommand::Replace),
        Just(StoreCommand::Append),
        Just(StoreCommand::Prepend),
        any::<u64>().prop_map(StoreCommand::Cas),
    ]
}

proptest! {
    #[test]
    fn a_request_reads_back_however_it_is_cut(
        kind in 0u8..13, key in key(), other in key(), data in value(), command in command(), flags: u32,
        exptime: i64, number: u64, noreply: bool, with_cas: bool,
    ) {
        let keys = [&key[..], b" ", &other].concat();
        let keys = Keys::new(&keys);
        let exptime = exptime.max(-i64::MAX);
        let request = match kind {
            0 => Request::Get { with_cas, keys },
            1 => Request::GetAndTouch { with_cas, exptime, keys },
            2 => Request::Delete { key: &key, noreply },
            3 => Request::Count { direction: Direction::Down, key: &key, delta: number, noreply },
            4 => Request::Touch { key: &key, exptime, noreply },
            5 => Request::FlushAll { exptime: with_cas.then_some(exptime), noreply },
            6 => Request::Version,
            7 => Request::Verbosity { level: number, noreply },
            8 => Request::Stats { arguments: keys },
            9 => Request::Operate { command: OperatorCommand::LruCrawler, arguments: keys },
            _ => Request::Store(Store { command, key: &key, flags, exptime, data: &data, noreply }),
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let whole = parse_request(&bytes, &Limits::default());
        match (request, whole) {
            // Words keep the spaces around them: compare what they spell.
            (Request::Get { .. } | Request::GetAndTouch { .. } | Request::Stats { .. } | Request::Operate { .. }, Parsed::Complete { request: read, consumed }) => {
                let mut again = Vec::new();
                read.encode(&mut again);
                prop_assert_eq!(&again, &bytes);
                prop_assert_eq!(consumed, bytes.len());
            }
            (request, whole) => prop_assert_eq!(whole, Parsed::Complete { request, consumed: bytes.len() }),
        }
        for cut in 0..bytes.len() {
            match parse_request(&bytes[..cut], &Limits::default()) {
                Parsed::Incomplete { bytes_needed } => prop_assert!(bytes_needed > cut && bytes_needed <= bytes.len()),
                other => prop_assert!(false, "cut at {}: {:?}", cut, other),
            }
        }
    }

    #[test]
    fn a_plain_set_is_what_the_whole_parser_makes_of_it(
        key in prop_oneof![key(), prop::collection::vec(0x1cu8..0x24, 0..4), prop::collection::vec(0x21u8..0x7f, 248..253)],
        flags in number_text(), exptime in number_text(), stated in prop::option::of(number_text()),
        data in value(), space in " {1,2}", behind in " ?(noreply)? ?", end in "\r?\n?", rest in value(),
    ) {
        let stated = stated.unwrap_or_else(|| data.len().to_string());
        let words = [flags, exptime, stated].join(&space);
        let line = [b"set ", &key[..], b" ", words.as_bytes(), behind.as_bytes(), b"\r\n"].concat();
        let bytes = [&line[..], &data, end.as_bytes(), &rest].concat();
        for limits in [
            Limits::default(),
            Limits { large_bytes_min: 100, ..Limits::default() },
            Limits { value_bytes_max: 100, ..Limits::default() },
            Limits { line_bytes_max: line.len() - 1, ..Limits::default() },
        ] {
            if let Some((store, consumed)) = plain_set(&bytes, &limits) {
                prop_assert_eq!(parse_request(&bytes, &limits), Parsed::Complete { request: Request::Store(store), consumed });
            }
        }
    }

    #[test]
    fn the_most_common_sets_are_plain(key in key(), data in value(), flags: u32, exptime in 0i64..10_000_000_000, noreply: bool) {
        let store = Store { command: StoreCommand::Set, key: &key, flags, exptime, data: &data, noreply };
        let mut bytes = Vec::new();
        Request::Store(store).encode(&mut bytes);
        prop_assert_eq!(plain_set(&bytes, &Limits::default()), Some((store, bytes.len())));
        for cut in 0..bytes.len() {
            prop_assert_eq!(plain_set(&bytes[..cut], &Limits::default()), None);
        }
    }

    #[test]
    fn any_bytes_are_judged_within_the_buffer(bytes in prop::collection::vec(any::<u8>(), 0..400), line: bool) {
        let bytes = if line { [b"set a 0 0 3 ".to_vec(), bytes].concat() } else { bytes };
        match parse(&bytes) {
            Parsed::Complete { consumed, .. } | Parsed::Invalid { consumed, .. } => {
                prop_assert!((1..=bytes.len()).contains(&consumed));
            }
            Parsed::Incomplete { bytes_needed } => prop_assert!(bytes_needed > bytes.len()),
            Parsed::Head { .. } => prop_assert!(false, "no value is large unless the limits say so"),
            Parsed::Close => {}
        }
        let _ = parse_response(&bytes, &Limits::default());
    }

    #[test]
    fn a_response_reads_back_however_it_is_cut(kind in 0u8..8, key in key(), data in value(), flags: u32, number: u64, cas: Option<u64>) {
        let response = match kind {
            0 | 1 => Response::Value { key: &key, flags, cas, data: &data },
            2 => Response::Number(number),
            3 => Response::Version(&key),
            4 => Response::Stat { name: &key, value: &key },
            5 => Response::ServerError(&key),
            6 => Response::ClientError(&key),
            _ => FIXED[number as usize % FIXED.len()],
        };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let limits = Limits::default();
        prop_assert_eq!(parse_response(&bytes, &limits), ParsedResponse::Complete { response, consumed: bytes.len() });
        for cut in 0..bytes.len() {
            let cut = parse_response(&bytes[..cut], &limits);
            let is_incomplete = matches!(cut, ParsedResponse::Incomplete { .. });
            prop_assert!(is_incomplete);
        }
    }
}
