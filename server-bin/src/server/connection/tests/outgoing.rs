//! Large values on their way out.

use super::*;

const VALUE_BYTES: usize = 3_000_000;

fn value() -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| (at % 251 + at / 4099) as u8).collect()
}

fn binary_get(opcode: u8) -> Vec<u8> {
    let extras: &[u8] = if opcode == 0x1d { &[0; 4] } else { b"" };
    let body_bytes = (extras.len() + b"big".len()) as u8;
    let mut packet = vec![0x80, opcode, 0, 3, extras.len() as u8, 0, 0, 0, 0, 0, 0, body_bytes];
    packet.extend([0; 12]);
    [&packet, extras, b"big"].concat()
}

/// Each way to ask for a value; behind it comes another request.
fn requests() -> Vec<Vec<u8>> {
    let text = [
        "get big",
        "gets big",
        "get small big small big",
        "gat 0 big",
        "gats 0 small big big",
        "mg big v",
        "mg big s v c k",
    ];
    let mut requests: Vec<_> =
        text.iter().map(|line| format!("{line}\r\nget small\r\n").into_bytes()).collect();
    requests.push(b"get big\r\n".to_vec());
    requests.push(b"mn\r\nget big\r\nget big\r\nmg big v\r\n".to_vec());
    requests.extend([0x00, 0x0c, 0x1d].map(|opcode| [binary_get(opcode), binary_get(opcode)].concat()));
    requests
}

fn filled() -> Shared {
    let config = Config::new().memory_bytes_max(64 << 20).item_bytes_max(8 << 20);
    let mut shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
    shared.settings.item_bytes_max = 8 << 20;
    shared.cache.set("big", value(), Expiry::Never).unwrap();
    shared.cache.set("small", "tiny", Expiry::Never).unwrap();
    shared
}

/// What is answered to a client that takes `room` bytes at first, and the rest when `meanwhile` has happened.
fn answer(
    shared: &Shared,
    request: &[u8],
    directly: bool,
    room: usize,
    meanwhile: impl FnOnce(&Connection),
) -> Vec<u8> {
    let mut connection = Connection::new(&shared.settings);
    connection.set_sends_directly(directly);
    let mut socket = socket(request, 1 << 20);
    socket.room = room;
    assert_eq!(run(shared, &mut connection, &mut socket), Turn::Waiting);
    connection.give_back(&mut Buffers::default());
    meanwhile(&connection);
    for room in [1, 70_000, usize::MAX] {
        socket.room = room;
        assert_eq!(run(shared, &mut connection, &mut socket), Turn::Waiting);
        connection.give_back(&mut Buffers::default());
    }
    assert!(connection.is_at_rest() && connection.pinned.is_none());
    socket.output
}

#[test]
fn a_client_that_does_not_read_gets_its_value_as_of_its_get_and_holds_no_copy() {
    let rooms = [0, 10, 24, 60, 5_000, 2_500_000];
    for request in requests() {
        for directly in [false, true] {
            let shared = filled();
            let expected = answer(&shared, &request, directly, usize::MAX, |_| ());
            assert!(expected.len() > VALUE_BYTES);
            for room in rooms {
                let found = answer(&shared, &request, directly, room, |connection| {
                    let bytes = connection.buffer_bytes();
                    assert!(connection.pinned.is_some() && bytes < 70_000, "{bytes} bytes");
                });
                assert!(found == expected, "{} with room for {room}", request.escape_ascii());
            }
        }
    }
}

#[test]
fn a_value_under_way_is_the_one_that_was_asked_for_whatever_becomes_of_its_key() {
    type Change = fn(&Cache);
    let changes: [(&str, Change); 5] = [
        ("overwritten", |cache| assert!(cache.set("big", vec![b'-'; VALUE_BYTES], Expiry::Never).is_ok())),
        ("deleted", |cache| assert!(cache.delete("big").unwrap())),
        ("flushed", |cache| cache.flush().unwrap()),
        ("evicted", |_| ()),
        ("in a smaller cache", |cache| cache.resize(32 << 20).unwrap()),
    ];
    for request in [b"get big\r\n".to_vec(), b"mg big v\r\n".to_vec(), binary_get(0)] {
        for (what, change) in changes {
            let shared = filled();
            let expected = answer(&shared, &request, true, usize::MAX, |_| ());
            let found = answer(&shared, &request, true, 300_000, |_| {
                change(&shared.cache);
                // All of the memory is used for others.
                for number in 0..2_000 {
                    let key = format!("{number}");
                    shared.cache.set(&key, vec![b'#'; 50_000], Expiry::Never).unwrap();
                    // What is read is worth more than what was.
                    shared.cache.read(&key, |_| ()).unwrap();
                    shared.cache.read(&key, |_| ()).unwrap();
                }
                assert!(shared.cache.get("big").unwrap().is_none() || what == "overwritten");
                let stats = shared.cache.stats();
                assert!(stats.memory_bytes <= stats.memory_bytes_max);
                shared.cache.check_invariants();
            });
            assert!(found == expected, "{what}: {}", request.escape_ascii());
            assert_eq!(shared.cache.stats().pinned_bytes, 0);
        }
    }
}

/// A value's line without the value, and what follows it.
fn split_value<'a>(answer: &'a [u8], value: &[u8]) -> (&'a [u8], &'a [u8]) {
    let line_bytes = answer.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (line, behind) = answer.split_at(line_bytes);
    assert!(line.starts_with(b"VA "), "{}", line.escape_ascii());
    assert!(behind.starts_with(value), "{}", line.escape_ascii());
    (line, behind[value.len()..].strip_prefix(b"\r\n").unwrap())
}

#[test]
fn a_large_value_is_answered_once_however_its_token_is_got() {
    let value = &value()[..700_000];
    let config = || Config::new().memory_bytes_max(16 << 20).item_bytes_max(2 << 20);
    let mut tokens = Vec::new();
    // The first has no memory for the item with its token; the others have to get it from other shards.
    for config in [config().evict(false), config().shards(2), config().shards(16)] {
        let mut shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
        shared.settings.item_bytes_max = 2 << 20;
        for round in 0..10 {
            let set = [format!("ms big{round} {} T10\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
            let is_stored = answer(&shared, &set, true, usize::MAX, |_| ()) == b"HD\r\n";
            if !is_stored {
                break;
            }
            for number in 0..4000 {
                let _ = shared.cache.set(format!("{round}-{number}"), [b'x'; 5000], Expiry::Never);
                shared.cache.read(format!("big{round}"), |_| ()).unwrap();
            }
            let get = format!("mg big{round} v R30\r\nmg big{round} v\r\nmn\r\n");
            for directly in [true, false] {
                let found = answer(&shared, get.as_bytes(), directly, 100_000, |_| ());
                if found == b"EN\r\nEN\r\nMN\r\n" {
                    continue;
                }
                let (line, rest) = split_value(&found, value);
                tokens.push(line.ends_with(b" W\r\n"));
                assert_eq!(split_value(rest, value).1, b"MN\r\n");
            }
        }
    }
    assert!(tokens.contains(&true) && tokens.contains(&false), "{tokens:?}");
}

#[test]
fn values_beyond_what_may_be_pinned_are_copied() {
    let shared = filled();
    let others: Vec<_> = (0..6).map(|number| format!("other-{number}")).collect();
    for key in &others {
        shared.cache.set(key, value(), Expiry::Never).unwrap();
    }
    let pin = |key: &String| shared.cache.read(key, |item| item.value.pin()).unwrap().unwrap();
    let pinned: Vec<_> = others.iter().map_while(pin).collect();
    assert_eq!(pinned.len(), 5, "a quarter of 64 MiB");
    for request in requests() {
        let expected = answer(&shared, &request, true, usize::MAX, |_| ());
        let found = answer(&shared, &request, true, 9, |connection| assert!(connection.pinned.is_none()));
        assert!(found == expected, "{}", request.escape_ascii());
    }
}

#[test]
fn a_value_of_a_mebibyte_is_stored_though_slow_clients_have_all_that_unfinished_values_may() {
    let shared = filled();
    let mut slow = Vec::new();
    while slow.last_mut().is_none_or(|writer: &mut hotspare::ValueWriter| writer.missing_bytes() > 0) {
        let mut writer = shared.cache.begin_value("slow", 7 << 20, Expiry::Never);
        if writer.write(&vec![b's'; 6 << 20]).is_err() {
            break;
        }
        slow.push(writer);
    }
    // What is left for others goes page by page.
    let mut last = shared.cache.begin_value("slow", 7 << 20, Expiry::Never);
    while last.write(&[b's'; 4096]).is_ok() {}
    drop(last);
    let value = &value()[..(1 << 20) - 100];
    let mut filling = shared.cache.begin_value("slow", 7 << 20, Expiry::Never);
    while shared.cache.begin_value("k", 1 << 20, Expiry::Never).write(value).is_ok() {
        filling.write(&[b's'; 65_536]).unwrap();
    }
    let mut packet = vec![0x80, 0x01, 0, 3, 8, 0, 0, 0];
    packet.extend((8 + 3 + value.len() as u32).to_be_bytes());
    packet.extend([0; 12 + 8]);
    let text = |line: String| [line.as_bytes(), value, b"\r\n"].concat();
    for (request, begin) in [
        (text(format!("set new 0 0 {}\r\n", value.len())), &b"STORED\r\n"[..]),
        (text(format!("ms new {} T90\r\n", value.len())), b"HD\r\n"),
        ([&packet, &b"new"[..], value].concat(), b"\x81\x01\0\0\0\0\0\0"),
    ] {
        shared.cache.delete("new").unwrap();
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(&request, 50_000);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert!(socket.output.starts_with(begin), "{}", socket.output.escape_ascii());
        assert!(shared.cache.get("new").unwrap().unwrap().value == value);
    }
    // A larger one is refused, as before.
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&[&b"set new 0 0 2000000\r\n"[..], &[b'x'; 2_000_000], b"\r\n"].concat(), 50_000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(socket.output, b"SERVER_ERROR out of memory storing object\r\n");
    assert_eq!(slow.len(), 5);
}
