//! Values that go into the cache as they come.

use super::*;

const VALUE_BYTES: usize = 300_000;

fn value() -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| (at % 249) as u8).collect()
}

/// What is answered, however the bytes are cut.
#[track_caller]
fn answer(shared: &Shared, input: &[u8]) -> String {
    let of = |piece_bytes| {
        shared.cache.set("k", "old", Expiry::Never).unwrap();
        shared.cache.delete("absent").unwrap();
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(input, piece_bytes);
        assert_eq!(run(shared, &mut connection, &mut socket), Turn::Waiting);
        assert!(connection.is_at_rest() && connection.unfinished().is_none());
        assert!(connection.input.capacity() <= 4 * PIECE_BYTES, "{} bytes", connection.input.capacity());
        if socket.output.first() == Some(&0x81) {
            // The CAS is another one each time.
            socket.output[16..24].fill(0);
        }
        socket.output.escape_ascii().to_string()
    };
    let [whole, pieces] = [1 << 20, 4_999].map(of);
    assert_eq!(whole, pieces);
    whole
}

fn request(head: &str, value: &[u8], end: &str) -> Vec<u8> {
    [head.as_bytes(), value, end.as_bytes()].concat()
}

fn stored(shared: &Shared, key: &str) -> Option<Vec<u8>> {
    shared.cache.get(key).unwrap().map(|item| item.value.to_vec())
}

#[test]
fn s1_c2_each_storage_command_takes_a_large_value() {
    let (shared, value) = (shared(), value());
    let lines = [
        ("set k 7 0 300000", "STORED", true),
        ("set k 7 0 300000 noreply", "", true),
        ("add k 7 0 300000", "NOT_STORED", false),
        ("add absent 7 0 300000", "STORED", true),
        ("replace k 7 0 300000", "STORED", true),
        ("replace absent 7 0 300000", "NOT_STORED", false),
        ("cas k 7 0 300000 1", "EXISTS", false),
        ("cas absent 7 0 300000 1", "NOT_FOUND", false),
        ("ms k 300000 F7", "HD", true),
        ("ms k 300000 F7 q", "", true),
        ("ms k 300000 F7 ME", "NS", false),
        ("ms k 300000 F7 MR E5000 c", "HD c5000", true),
        ("ms k 300000 F7 C1", "EX", false),
        ("ms absent 300000 F7 MR", "NS", false),
    ];
    for (line, answered, is_stored) in lines {
        let expected = if answered.is_empty() { String::new() } else { format!("{answered}\\r\\n") };
        assert_eq!(answer(&shared, &request(&format!("{line}\r\n"), &value, "\r\n")), expected, "{line}");
        let key = if line.contains("absent") { "absent" } else { "k" };
        assert_eq!(stored(&shared, key).is_some_and(|found| found == value), is_stored, "{line}");
        if is_stored {
            assert_eq!(shared.cache.get(key).unwrap().unwrap().flags, 7, "{line}");
        }
    }
}

#[test]
fn s1_a_large_value_is_added_to_another_one() {
    let (shared, value) = (shared(), value());
    for (line, answered) in [("append k 0 0 300000", "STORED"), ("ms k 300000 MA", "HD")] {
        assert_eq!(
            answer(&shared, &request(&format!("{line}\r\n"), &value, "\r\n")),
            format!("{answered}\\r\\n")
        );
        assert!(stored(&shared, "k").unwrap() == [b"old", &value[..]].concat(), "{line}");
    }
    for (line, answered) in [("prepend k 0 0 300000", "STORED"), ("ms k 300000 MP s", "HD s300003")] {
        assert_eq!(
            answer(&shared, &request(&format!("{line}\r\n"), &value, "\r\n")),
            format!("{answered}\\r\\n")
        );
        assert!(stored(&shared, "k").unwrap() == [&value[..], b"old"].concat(), "{line}");
    }
    let absent = answer(&shared, &request("append absent 0 0 300000\r\n", &value, "\r\n"));
    assert_eq!(absent, "NOT_STORED\\r\\n");
}

#[test]
fn b2_binary_stores_take_a_large_value() {
    let (shared, value) = (shared(), value());
    let store = |opcode: u8, key: &str| {
        let extras: &[u8] = if opcode & 0x0f >= 0x0e { b"" } else { b"\0\0\0\x05\0\0\0\0" };
        let body_bytes = (extras.len() + key.len() + value.len()) as u32;
        let mut packet = vec![0x80, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
        packet.extend(body_bytes.to_be_bytes());
        packet.extend([0; 12]);
        [&packet, extras, key.as_bytes(), &value[..]].concat()
    };
    let status = |answer: &str| {
        answer
            .contains("Data exists")
            .then_some("exists")
            .or(answer.contains("Not found").then_some("not found"))
    };
    let found = answer(&shared, &store(0x01, "k"));
    assert_eq!((status(&found), stored(&shared, "k").unwrap() == value), (None, true));
    assert_eq!(answer(&shared, &store(0x11, "k")), "", "a quiet one");
    assert_eq!(status(&answer(&shared, &store(0x02, "k"))), Some("exists"));
    assert_eq!(status(&answer(&shared, &store(0x03, "absent"))), Some("not found"));
    answer(&shared, &store(0x0e, "k"));
    assert!(stored(&shared, "k").unwrap() == [b"old", &value[..]].concat());
}

#[test]
fn s2_a_bad_end_of_a_large_value_leaves_what_was_there_and_what_follows_is_a_command() {
    let (shared, value) = (shared(), value());
    let bad = "CLIENT_ERROR bad data chunk\\r\\n";
    for line in ["set k 0 0 300000", "ms k 300000 q"] {
        let input = request(&format!("{line}\r\n"), &value, "xymn\r\n");
        assert_eq!(answer(&shared, &input), format!("{bad}MN\\r\\n"), "{line}");
        assert_eq!(stored(&shared, "k").unwrap(), b"old");
    }
    let input = request("set k 0 0 300000 noreply\r\n", &value, "\nxmn\r\n");
    assert_eq!(answer(&shared, &input), "MN\\r\\n");
    assert_eq!(shared.counters.snapshot().cmd_set, 6, "as memcached counts");
}

#[test]
fn a_client_that_goes_in_the_middle_leaves_the_older_item() {
    let shared = shared();
    shared.cache.set("k", "old", Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&request("set k 0 0 300000\r\n", &value()[..200_000], ""), 60_000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(connection.unfinished().unwrap().bytes, 300_020);
    assert_eq!((connection.state(), connection.is_at_rest()), (State::TakingData, false));
    let mut buffers = Buffers::default();
    connection.give_back(&mut buffers);
    assert!(connection.buffer_bytes() < 1000, "what has come is the cache's: {}", connection.buffer_bytes());
    drop(connection);
    assert_eq!(stored(&shared, "k").unwrap(), b"old");
    shared.cache.check_invariants();
}

#[test]
fn a_value_below_the_bound_is_collected_and_one_at_it_is_not() {
    let shared = shared();
    let bound = shared.settings.large_value_bytes_min;
    for (value_bytes, is_large) in [(bound - 1, false), (bound, true)] {
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(format!("set k 0 0 {value_bytes}\r\nabc").as_bytes(), 60_000);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert_eq!(connection.incoming.is_some(), is_large);
    }
}
