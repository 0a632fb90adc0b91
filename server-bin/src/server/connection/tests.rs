//! A connection over a socket made of plain buffers.

mod held;
mod large;
mod meta;
mod operators;
mod outgoing;
mod rules;
mod watchers;

use std::io::{ErrorKind, IoSlice, Read, Write};

use super::buffers::SHARED_BYTES_MAX;
use super::*;
use crate::server::Shared;
use crate::server::counters::AllCounters;
use crate::server::observers::Observation;
use crate::server::operator::Operator;
use hotspare::{Attributes, Cache, Config, Expiry};

mod binary;

/// Gives its input in pieces, then blocks or ends; takes at most `room` bytes of output.
struct FakeSocket {
    input: Vec<u8>,
    piece_bytes: usize,
    ends: bool,
    output: Vec<u8>,
    room: usize,
}

impl Read for FakeSocket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.input.is_empty() {
            return if self.ends { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = buffer.len().min(self.piece_bytes).min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for FakeSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> std::io::Result<usize> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        self.write(&whole)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn shared() -> Shared {
    let (settings, observation) = (Settings::default(), Observation::default());
    Shared {
        cache: Cache::new(observation.of_cache(Config::new().memory_bytes_max(64 << 20))).unwrap(),
        operator: Operator::new(&settings, observation),
        settings,
        certificates: None,
        counters: AllCounters::new(1),
        started: std::time::Instant::now(),
        started_at_ms: 0,
        on_shutdown_command: Box::new(|_| ()),
    }
}

fn run(shared: &Shared, connection: &mut Connection, socket: &mut FakeSocket) -> Turn {
    let mut executor = Executor::new(shared, &shared.counters.workers[0], 0);
    loop {
        // At some turns, so that both ways are gone.
        if connection.quiet().is_some() && !socket.input.len().is_multiple_of(3) {
            connection.read_ahead(socket, executor.counters);
        }
        let turn = connection.turn(socket, &mut executor);
        if turn != Turn::MoreToDo {
            return turn;
        }
    }
}

fn socket(input: &[u8], piece_bytes: usize) -> FakeSocket {
    FakeSocket { input: input.to_vec(), piece_bytes, ends: false, output: Vec::new(), room: usize::MAX }
}

#[test]
fn f8_pipelined_requests_are_answered_in_order_however_they_arrive() {
    let input = b"set a 5 0 3\r\nabc\r\nget a b a\r\nset b 0 0 9 noreply\r\n123456789\r\nbogus\r\ngets b\r\nquit\r\nget a\r\n";
    for piece_bytes in [1, 2, 7, 1000] {
        let shared = shared();
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(input, piece_bytes);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Closed);
        let expected = b"STORED\r\nVALUE a 5 3\r\nabc\r\nVALUE a 5 3\r\nabc\r\nEND\r\nERROR\r\nVALUE b 0 9 2\r\n123456789\r\nEND\r\n";
        assert_eq!(socket.output.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}

#[test]
fn a_client_that_does_not_read_is_not_executed_beyond_the_bound() {
    let shared = shared();
    shared.cache.set("big", vec![b'x'; 400_000], hotspare::Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let gets = [b"get".to_vec(), b" big".repeat(50), b"\r\n".to_vec()].concat().repeat(20);
    let mut socket = socket(&gets, 1 << 20);
    socket.room = 0;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(connection.output.len() < 2 * UNSENT_BYTES_MAX, "{} bytes wait", connection.output.len());
    socket.room = usize::MAX;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(socket.output.len(), 20 * (50 * (400_000 + b"VALUE big 0 400000\r\n\r\n".len()) + 5));
    assert_eq!(shared.counters.snapshot().get_hits, 1000, "each key was read once, whatever the stops");
}

#[test]
fn a_large_value_under_way_takes_its_own_length_and_less_as_it_goes() {
    let bytes = 20 << 20;
    let config = Config::new().memory_bytes_max(64 << 20).item_bytes_max(32 << 20);
    let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
    shared.cache.set("big", vec![b'x'; bytes], hotspare::Expiry::Never).unwrap();
    // With another one that is pinned this one is copied.
    shared.cache.set("other", vec![b'y'; bytes], hotspare::Expiry::Never).unwrap();
    let _other = shared.cache.read("other", |item| item.value.pin().unwrap()).unwrap();
    for request in ["get big\r\n", "mg big v\r\n"] {
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(request.as_bytes(), 1000);
        socket.room = 0;
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert!(connection.output.capacity() < bytes + 4096, "{} bytes", connection.output.capacity());
        for left in [9_000_000, 4_300_000] {
            socket.room = connection.unsent().len() - left;
            assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
            connection.give_back(&mut Buffers::default());
            assert_eq!((connection.unsent().len(), connection.output.capacity()), (left, left), "{request}");
        }
        socket.room = usize::MAX;
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        let end = &socket.output[socket.output.len() - 8..];
        assert!(matches!(end, b"x\r\nEND\r\n" | b"xxxxxx\r\n"), "{request}");
    }
}

#[test]
fn a_value_up_to_the_largest_comes_as_it_was_stored_however_many_pieces_it_lies_in() {
    let item_bytes_max = 32 << 20;
    let config = Config::new().memory_bytes_max(64 << 20).item_bytes_max(item_bytes_max);
    let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
    let header_and_key = 20 + b"big".len();
    // With pages of 8 KiB these take 2, 63, 128 and 4096 pieces; one system call sends 64 parts.
    for bytes in [16 << 10, 500_000, (1 << 20) - header_and_key, item_bytes_max - header_and_key] {
        let value: Vec<u8> = (0..bytes).map(|at| (at % 251 + at / 8192) as u8).collect();
        shared.cache.set("big", &value, Expiry::Never).unwrap();
        let answer = [format!("VALUE big 0 {bytes}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
        for room in [0, 10, 8_000, 300_000, 520_000, usize::MAX] {
            for directly in [true, false] {
                let mut connection = Connection::new(&shared.settings);
                (connection.protocol, connection.sends_directly) = (Protocol::Ascii, directly);
                let mut socket = socket(b"get big\r\n", 1000);
                socket.room = room;
                run(&shared, &mut connection, &mut socket);
                socket.room = usize::MAX;
                run(&shared, &mut connection, &mut socket);
                assert!(socket.output == answer, "{bytes} bytes, of which {room} went at first, {directly}");
            }
        }
    }
}

#[test]
fn u1_a_datagrams_one_answer_may_be_any_value() {
    let shared = shared();
    shared.cache.set("big", vec![b'x'; 400_000], hotspare::Expiry::Never).unwrap();
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    let mut ask =
        |requests: &[u8]| Connection::of_datagram(&shared.settings).answer_at_once(requests, &mut executor);
    let one = 400_000 + b"VALUE big 0 400000\r\n\r\n".len();
    assert_eq!(ask(b"get big\r\n").len(), one + b"END\r\n".len());
    assert_eq!(ask(b"get big big\r\n"), b"SERVER_ERROR the answer is too long for UDP\r\n");
    assert_eq!(ask(b"get big\r\nget big\r\n"), b"SERVER_ERROR the answer is too long for UDP\r\n");
}

#[test]
fn a_slow_steady_reader_takes_no_more_memory_than_the_bound() {
    let shared = shared();
    shared.cache.set("big", vec![b'x'; 400_000], hotspare::Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&b"get big\r\n".repeat(200), 1 << 20);
    for _ in 0..200 {
        socket.room = 500_000;
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert!(connection.output.len() < 4 * UNSENT_BYTES_MAX, "{} bytes are held", connection.output.len());
    }
    assert_eq!(socket.output.len(), 200 * (400_000 + b"VALUE big 0 400000\r\n\r\nEND\r\n".len()));
}

#[test]
fn l3_l5_a_value_above_the_limit_is_skipped_and_takes_the_old_item_along() {
    let shared = shared();
    shared.cache.set("a", "old", hotspare::Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let input =
        [b"set a 0 0 3000000\r\n".to_vec(), vec![b'\n'; 3_000_000], b"\r\nget a\r\n".to_vec()].concat();
    let mut socket = socket(&input, 50_000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert_eq!(socket.output, b"SERVER_ERROR object too large for cache\r\nEND\r\n");
    connection.give_back(&mut Buffers::default());
    assert_eq!(connection.input.capacity(), 0);
}

#[test]
fn a_half_closed_connection_is_answered_and_then_closed() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = FakeSocket { ends: true, ..socket(b"version\r\nget unfinished", 100) };
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Closed);
    assert!(socket.output.starts_with(b"VERSION 1.6.45"));
}

#[test]
fn a_large_value_is_sent_from_where_it_lies_and_the_same_bytes_come_however_little_the_socket_takes() {
    let shared = shared();
    let value: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
    shared.cache.set("big", &value, Attributes { flags: 7, ..Expiry::Never.into() }).unwrap();
    let whole = [b"VALUE big 7 700000\r\n", &value[..], b"\r\nEND\r\n"].concat();
    for room in [0, 1, 19, 20, 21, 70_000, 600_000, whole.len() - 8, whole.len() - 1, whole.len()] {
        let mut connection = Connection::new(&shared.settings);
        connection.set_sends_directly(true);
        // What comes first settles the dialect.
        let mut socket = socket(b"mn\r\n", 100);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        socket.output.clear();
        (socket.input, socket.room) = (b"get big\r\n".to_vec(), room);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert_eq!(connection.unsent_bytes(), whole.len() - room, "room for {room}");
        assert!(connection.buffer_bytes() < 100_000, "nothing is copied");
        socket.room = usize::MAX;
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
        assert!(socket.output == whole, "room for {room}");
    }
    let counted = shared.counters.snapshot();
    assert_eq!((counted.get_hits, counted.cmd_get), (10, 10));
}

#[test]
fn requests_that_come_together_are_answered_as_those_that_come_one_by_one() {
    let mut inputs = vec![
        // What is thrown away looks like requests, and is none.
        "get a|set a 0 0 2100|".to_owned() + &"get a|".repeat(300) + "|get a|mg a v|",
        "get a|set b x 0 7|get a|12|get b|".to_owned(),
        "set a 0 0 1 noreply|x|get a|get a b|get b|get a |get  a|gets a|mg a v|get a|".to_owned(),
        "get a|get a|set a 0 0 1|x|quit|get a|get a|".to_owned(),
        "get a|get a|\u{1}\u{2}|get a|get a|mn|get a".to_owned(),
    ];
    // Above what is looked at together, and an end that has not come.
    inputs.push("get a|".repeat(100) + "get");
    inputs.push("set a 0 0 1|y|get a|delete a|ms b 1 q|1|mg b v|incr b 1|touch b 0|".repeat(9) + "get b");
    inputs.push(
        "get a|".to_owned()
            + &"set a 5 0 1|x|set b 0 9 2 noreply|yz|".repeat(20)
            + "get a b|set a 0 0 1 noreply|xx|set",
    );
    inputs.push(
        "stats detail on|get a:1|set a:1 0 0 1|x|set a:2 7 0 0||get a:1|get a:2|stats detail dump|get b|"
            .to_owned(),
    );
    inputs.push(
        "ms a 1 F7|x|".to_owned()
            + &"mg a v O1|mg a|mg no k O2|mg a s c f k q|mg no q|mg a t|mg a v|mg a q|get a|".repeat(9)
            + "mg a",
    );
    inputs.push("set a 0 0 1|x|md a I|mg a v O1|mg a s O2|mg a v|mg b v N30|mg b v|ms YQ== 1 b|y|mg a k|mg a k v|get a|".to_owned());
    for input in inputs {
        let bytes = input.replace('|', "\r\n").into_bytes();
        let answers = [1, 7, 4096, 1 << 20].map(|piece_bytes| {
            let mut shared = shared();
            shared.settings.item_bytes_max = 1000;
            let mut connection = Connection::new(&shared.settings);
            let mut socket = socket(&bytes, piece_bytes);
            run(&shared, &mut connection, &mut socket);
            let counted = shared.counters.snapshot();
            let commands: Vec<_> = counted.requests.by_command().map(|(_, count, _)| count).collect();
            let reads = (counted.cmd_get, counted.get_hits, counted.get_misses);
            let others = (counted.cmd_set, counted.cmd_meta, counted.store_too_large);
            (socket.output, reads.0, reads, others, commands, connection.requests_done)
        });
        let start = &input[..input.len().min(60)];
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{start}");
        assert!(answers[0].1 > 1, "{start}");
    }
}

#[test]
fn keys_of_one_get_count_under_their_own_classes_and_as_misses() {
    let shared = shared();
    for (key, bytes) in [("s1", 10), ("s2", 10), ("large", 3000)] {
        shared.cache.set(key, vec![b'v'; bytes], Expiry::Never).unwrap();
    }
    let class = |key: &str| shared.cache.peek(key, |item| item.value.class()).unwrap().unwrap();
    let (small, large) = (class("s1"), class("large"));
    assert_ne!(small, large);
    let mut connection = Connection::new(&shared.settings);
    let mut socket =
        socket(b"get s1 s2 none large s1 none none\r\nget s1\r\nget none\r\nget large\r\n", 1000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    let counted = shared.counters.snapshot();
    assert_eq!((counted.cmd_get, counted.get_hits, counted.get_misses), (10, 6, 4));
    assert_eq!([small, large].map(|class| shared.counters.class(class).get_hits), [4, 2]);
    assert_eq!(counted.requests.by_command().find(|(word, ..)| *word == "get").unwrap().1, 4);
}

#[test]
fn sets_in_a_row_stop_where_the_output_is_full() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    connection.output = vec![b'x'; UNSENT_BYTES_MAX - 20];
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    let mut sets = &b"set a 0 0 1\r\nx\r\n".repeat(10)[..];
    connection.fill(|room| std::io::Read::read(&mut sets, room)).unwrap();
    assert_eq!(connection.execute(&mut executor), Stop::OutputFull);
    assert_eq!((connection.requests_done, shared.counters.snapshot().cmd_set), (3, 3));
    connection.was_sent(UNSENT_BYTES_MAX);
    assert_eq!(connection.execute(&mut executor), Stop::InputUsed);
    assert_eq!((connection.requests_done, shared.counters.snapshot().cmd_set), (10, 10));
}

#[test]
fn each_set_is_told_that_a_node_takes_no_writes_unless_it_wants_no_reply() {
    let config = Config::new().memory_bytes_max(16 << 20);
    let replica = config.replication(hotspare::ReplicationConfig::replica_of("nobody"));
    let shared = Shared { cache: Cache::new(replica).unwrap(), ..shared() };
    let mut connection = Connection::new(&shared.settings);
    let set = "set a 0 0 1\r\nx\r\n";
    let sets = [set, set, "set a 0 0 1 noreply\r\nx\r\n", set].concat();
    let mut socket = socket(sets.as_bytes(), 1000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    let text = String::from_utf8(socket.output).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("SERVER_ERROR ")), "{text}");
    assert_eq!(shared.counters.snapshot().cmd_set, 0);
}

#[test]
fn each_get_is_told_that_a_node_serves_no_reads() {
    let config = Config::new().memory_bytes_max(16 << 20);
    let replica = config.replication(hotspare::ReplicationConfig::replica_of("nobody"));
    let shared = Shared { cache: Cache::new(replica).unwrap(), ..shared() };
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(b"get a\r\nget b\r\nget c\r\n", 1000);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    let text = String::from_utf8(socket.output).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("SERVER_ERROR ")), "{text}");
}

#[test]
fn a_quiet_connection_hands_its_place_to_another_which_keeps_its_own_dialect_and_login() {
    let mut shared = shared();
    shared.settings.ascii_users = Some(crate::users::Users::parse(b"bob:secret").unwrap());
    let mut connection = Connection::new(&shared.settings);
    let stranger = Quiet::new(&shared.settings);
    let ask = |connection: &mut Connection, input: &[u8]| {
        let mut socket = socket(input, 1000);
        assert_eq!(run(&shared, connection, &mut socket), Turn::Waiting);
        socket.output
    };
    assert_eq!(ask(&mut connection, b"set a 0 0 10\r\nbob secret\r\n"), b"STORED\r\n");
    let bob = connection.quiet().unwrap();
    connection.resume(stranger);
    assert_eq!(ask(&mut connection, b"get a\r\n"), b"CLIENT_ERROR unauthenticated\r\n");
    let stranger = connection.quiet().unwrap();
    connection.resume(bob);
    assert_eq!(ask(&mut connection, b"get a\r\n"), b"END\r\n");
    // Who has begun something keeps the place.
    assert_eq!(ask(&mut connection, b"get"), b"");
    assert!(connection.quiet().is_none());
    assert_eq!(ask(&mut connection, b" a\r\n"), b"END\r\n");
    assert!(connection.quiet().is_some());
    connection.resume(stranger);
    assert_eq!(ask(&mut connection, b"get a\r\n"), b"CLIENT_ERROR unauthenticated\r\n");
}

/// What `docs/what-is-bounded.md` says of a connection's buffers.
#[test]
fn no_client_makes_a_connection_hold_more_than_the_sum_of_its_bounds() {
    let item_bytes = 4 << 20;
    let config = Config::new().memory_bytes_max(64 << 20).item_bytes_max(item_bytes);
    let settings = Settings { item_bytes_max: item_bytes, ..Settings::default() };
    let shared = Shared { cache: Cache::new(config).unwrap(), settings, ..shared() };
    shared.cache.set("big", vec![b'x'; item_bytes - 1000], Expiry::Never).unwrap();
    // Whatever the length of an item: a line may be longer than what is taken at once of a value.
    let input_max = 2 * (Limits::default().get_line_bytes_max + 2 * READ_BYTES);
    let value_max = 4 * PIECE_BYTES;
    let output_max = 2 * (UNSENT_BYTES_MAX + item_bytes) + (4 << 10);
    let unfinished_set = format!("set big 0 0 {}\r\n{}", item_bytes - 1000, "v".repeat(item_bytes - 1001));
    let abuses = [
        unfinished_set.clone(),
        format!("ms big {}\r\n{}", item_bytes - 1000, "v".repeat(item_bytes - 1001)),
        format!("set big 0 0 2000000000\r\n{}", "v".repeat(3 * item_bytes)),
        format!("get{}", " key".repeat(item_bytes / 2)),
        "get big\r\n".repeat(300),
        format!("get{}\r\n", " big".repeat(3000)),
        format!("mn\r\n{}{unfinished_set}", "mg big v\r\n".repeat(40)),
        format!("\u{1}{}", "x".repeat(2 * item_bytes)),
    ];
    for (number, abuse) in abuses.iter().enumerate() {
        for sends_directly in [false, true] {
            let mut connection = Connection::new(&shared.settings);
            connection.set_sends_directly(sends_directly);
            let mut socket = FakeSocket { room: 1000, ..socket(abuse.as_bytes(), 70_000) };
            let mut buffers = Buffers::default();
            for _ in 0..100 {
                connection.borrow(&mut buffers);
                run(&shared, &mut connection, &mut socket);
                connection.give_back(&mut buffers);
                let (input, output) = (connection.input.capacity(), connection.output.capacity());
                let input_max = if abuse.starts_with("get") { input_max } else { value_max };
                assert!(input <= input_max, "abuse {number}: {input} bytes of input");
                assert!(output <= output_max, "abuse {number}: {output} bytes of output");
                let shared = [buffers.input.capacity(), buffers.output.capacity()];
                assert!(shared.iter().all(|bytes| *bytes <= SHARED_BYTES_MAX), "abuse {number}: {shared:?}");
                socket.room = 100;
            }
        }
    }
}

#[test]
fn f6_the_end_of_a_long_get_is_looked_for_in_new_bytes_only() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    let mut feed = |connection: &mut Connection, bytes: &[u8]| {
        connection.fill(|room| (&mut { bytes }).read(room)).unwrap();
        connection.execute(&mut executor);
    };
    let line = [&b"get"[..], &b" key".repeat(1000)].concat();
    for byte in &line {
        feed(&mut connection, &[*byte]);
        assert_eq!(connection.bytes_needed, connection.input.len() + 1);
    }
    assert!(connection.in_long_line);
    // Were it looked at from its start, an end that did not come as new bytes would be found.
    connection.input[100] = b'\n';
    feed(&mut connection, b" key");
    assert!(connection.in_long_line && connection.unsent().is_empty());
    connection.input[100] = b' ';
    feed(&mut connection, b" key\r\nget a\r\nget b");
    assert_eq!(connection.unsent(), b"END\r\nEND\r\n");
    assert!(!connection.in_long_line);
    feed(&mut connection, b"\r\n");
    assert_eq!(connection.unsent(), b"END\r\nEND\r\nEND\r\n");
}

#[test]
fn q1_a_line_too_long_before_the_gate_closes_however_it_is_cut() {
    for piece_bytes in [1, 2048, 5000] {
        let mut shared = shared();
        shared.settings.ascii_users = Some(crate::users::Users::parse(b"bob:secret").unwrap());
        let mut connection = Connection::new(&shared.settings);
        let mut socket = socket(&[b'x'; 2049], piece_bytes);
        assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Closed, "pieces of {piece_bytes}");
    }
}

#[test]
fn a_stated_length_alone_takes_no_memory() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(b"set a 0 0 1000000\r\nabc", 100);
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(connection.input.capacity() < 100_000, "{} bytes", connection.input.capacity());
}

#[test]
fn z12_bare_stats_has_every_name_in_order() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(b"stats\r\nstats se\r\nstats reset\r\n", 100);
    run(&shared, &mut connection, &mut socket);
    let text = String::from_utf8(socket.output).unwrap();
    let names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split(' ').next()).collect();
    let expected: Vec<&str> = include_str!("stats_names.txt").split_whitespace().collect();
    assert_eq!(names, expected);
    assert!(text.ends_with("END\r\nERROR\r\nRESET\r\n"), "t1: sub-commands are whole words");
}

/// Takes everything and says, until it is let go, that it has not gone yet.
struct HoldingSocket {
    inner: FakeSocket,
    holds: bool,
}

impl Read for HoldingSocket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl Write for HoldingSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.holds { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

#[test]
fn a_connection_does_not_close_before_its_socket_has_let_the_last_answer_go() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let inner = FakeSocket {
        input: b"get a\r\nquit\r\n".to_vec(),
        piece_bytes: 100,
        ends: true,
        output: Vec::new(),
        room: usize::MAX,
    };
    let mut socket = HoldingSocket { inner, holds: true };
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    assert_eq!(connection.turn(&mut socket, &mut executor), Turn::Waiting);
    assert_eq!(socket.inner.output, b"END\r\n");
    socket.holds = false;
    assert_eq!(connection.turn(&mut socket, &mut executor), Turn::Closed);
}
