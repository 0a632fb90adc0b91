//! Replies that wait for acknowledgements, over a pair whose replica answers when the test lets it.

use std::sync::Arc;
use std::task::{Context, Waker};

use hotspare::transport::MemoryNetwork;
use hotspare::{AckMode, ManualClock, ReplicationConfig, Replicator};

use super::*;

/// A server on the primary of a pair.
struct Pair {
    shared: Shared,
    clock: Arc<ManualClock>,
    nodes: [Replicator; 2],
}

impl Pair {
    fn new() -> Pair {
        let clock = Arc::new(ManualClock::new(1_000_000));
        let network = MemoryNetwork::immediate();
        let cache = |config| {
            Cache::new(Config::new().memory_bytes_max(16 << 20).clock(clock.clone()).replication(config))
                .unwrap()
        };
        let primary = cache(ReplicationConfig::primary().ack(AckMode::SemiSync { replicas: 1 }));
        let spare = cache(ReplicationConfig::replica_of("a"));
        let nodes = [
            Replicator::new(&primary, network.transport("a")).unwrap(),
            Replicator::new(&spare, network.transport("b")).unwrap(),
        ];
        let mut shared = Shared { cache: primary, ..shared() };
        // Longer than any test: nothing here depends on how fast the machine is.
        shared.settings.ack_timeout_ms = 600_000;
        let mut pair = Pair { shared, clock, nodes };
        pair.acknowledge();
        pair
    }

    /// Has the replica apply everything.
    fn acknowledge(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            self.clock.advance_ms(5);
            self.nodes.iter_mut().for_each(|node| {
                node.poll(&mut cx);
            });
        }
    }

    /// What has been answered after `input`, before and after the acks.
    fn ask(&mut self, input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut connection = Connection::new(&self.shared.settings);
        let mut socket = socket(input, 1 << 20);
        run(&self.shared, &mut connection, &mut socket);
        let before = socket.output.clone();
        self.acknowledge();
        run(&self.shared, &mut connection, &mut socket);
        (before, socket.output)
    }

    /// What has been answered after so many turns, without acks; then nothing is under way.
    fn answered(&self, turns: usize, input: &[u8]) -> Vec<u8> {
        let mut connection = Connection::new(&self.shared.settings);
        let mut socket = socket(input, 1 << 20);
        for _ in 0..turns {
            run(&self.shared, &mut connection, &mut socket);
        }
        assert!(connection.is_at_rest());
        socket.output
    }
}

#[test]
fn whatever_writes_waits_and_whatever_only_reads_does_not() {
    let mut pair = Pair::new();
    let writes: [&[u8]; 17] = [
        b"set n 0 0 1\r\n5\r\n",
        b"add new 0 0 1\r\n5\r\n",
        b"replace n 0 0 1\r\n6\r\n",
        b"append n 0 0 1\r\n0\r\n",
        b"prepend n 0 0 1\r\n1\r\n",
        b"incr n 1\r\n",
        b"decr n 1\r\n",
        b"touch n 100\r\n",
        b"gat 100 n\r\n",
        b"delete new\r\n",
        b"delete nothing\r\n",
        b"ms n 1\r\n7\r\n",
        b"ma n\r\n",
        b"mg n T100 v\r\n",
        b"mg vivified N100\r\n",
        b"md vivified\r\n",
        b"flush_all\r\n",
    ];
    for write in writes {
        let (before, after) = pair.ask(write);
        assert!(before.is_empty() && !after.is_empty(), "{}", write.escape_ascii());
        assert!(!after.starts_with(b"SERVER_ERROR"), "{}", after.escape_ascii());
    }
    pair.ask(b"set n 0 0 1\r\n5\r\n");
    let reads: [&[u8]; 7] = [
        b"get n\r\n",
        b"gets n x\r\n",
        b"mg n v\r\n",
        b"mn\r\n",
        b"version\r\n",
        b"stats\r\n",
        b"add n 0 0 1\r\n9\r\n",
    ];
    for read in reads {
        let (before, after) = pair.ask(read);
        assert!(!before.is_empty() && before == after, "{}", read.escape_ascii());
    }
}

#[test]
fn a_large_value_that_came_in_pieces_waits_too() {
    let mut pair = Pair::new();
    let value: Vec<u8> = (0..100_000).map(|at| (at % 251) as u8).collect();
    for (line, answered) in [("set k 7 0 100000", "STORED\r\n"), ("ms k 100000 F7 q", "MN\r\n")] {
        let (before, after) = pair.ask(&[line.as_bytes(), b"\r\n", &value, b"\r\nmn\r\n"].concat());
        assert!(before.is_empty(), "{line}: {}", before.escape_ascii());
        assert!(after.starts_with(answered.as_bytes()), "{line}: {}", after.escape_ascii());
    }
}

#[test]
fn a_binary_write_waits_too_and_what_is_answered_behind_a_quiet_one_waits_for_it() {
    let mut pair = Pair::new();
    let set =
        |opcode: u8| [&[0x80, opcode, 0, 1, 8, 0, 0, 0, 0, 0, 0, 10][..], &[0; 12], &[0; 8], b"kv"].concat();
    let (before, after) = pair.ask(&set(0x01));
    assert_eq!((before.len(), after.len()), (0, 24));
    let noop = [&[0x80, 0x0a][..], &[0; 22]].concat();
    let (before, after) = pair.ask(&[set(0x11), noop].concat());
    assert_eq!((before.len(), after.len()), (0, 24), "SetQ has no answer; Noop's says that it is done");
    let (before, after) = pair.ask(b"ms k 1 q\r\nv\r\nmd k q\r\nmn\r\n");
    assert_eq!((&before[..], &after[..]), (&b""[..], &b"MN\r\n"[..]));
    let (before, after) = pair.ask(b"set k 0 0 1 noreply\r\nv\r\nget k\r\n");
    assert!(before.starts_with(b"VALUE") && before == after);
}

#[test]
fn a_quiet_write_whose_acks_do_not_come_is_answered_with_an_error() {
    let mut pair = Pair::new();
    pair.shared.settings.ack_timeout_ms = 0;
    let set_quietly = [&[0x80, 0x11, 0, 1, 8, 0, 0, 0, 0, 0, 0, 10][..], &[7; 4], &[0; 16], b"kv"].concat();
    let noop = [&[0x80, 0x0a][..], &[0; 22]].concat();
    let output = pair.answered(2, &[set_quietly, noop].concat());
    assert_eq!(output[..16], [0x81, 0x11, 0, 0, 0, 0, 0, 0x86, 0, 0, 0, 19, 7, 7, 7, 7]);
    assert_eq!(&output[24..43], b"replication timeout");
    assert_eq!(output[43..45], [0x81, 0x0a]);
    let large = [b"ms k 100000 q\r\n", &[b'v'; 100_000][..], b"\r\nmn\r\n"].concat();
    assert_eq!(pair.answered(2, &large), b"SERVER_ERROR replication timeout\r\nMN\r\n");
    let output = pair.answered(2, b"ms k 1 q\r\nv\r\nmn\r\n");
    assert_eq!(output, b"SERVER_ERROR replication timeout\r\nMN\r\n");
    assert_eq!(pair.answered(2, b"set k 0 0 1 noreply\r\nv\r\nmn\r\n"), b"MN\r\n");
}

#[test]
fn a_client_that_pipelines_while_the_replica_hangs_is_executed_up_to_a_bound_and_loses_no_answer() {
    let mut pair = Pair::new();
    let mut connection = Connection::new(&pair.shared.settings);
    let requests = 30_000;
    let mut socket = socket(&b"set k 0 0 1\r\nv\r\n".repeat(requests), 1 << 20);
    assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(socket.output.is_empty() && connection.held().is_full());
    assert!(!socket.input.is_empty(), "reading has stopped");
    let written = pair.shared.cache.stats().stores;
    assert!(written < requests as u64 / 2 && connection.buffer_bytes() < 2 << 20, "{written}");
    assert_eq!(connection.unfinished(), None, "it is not the client that lets anybody wait");
    let mut turns = 0;
    while socket.output.len() < requests * b"STORED\r\n".len() {
        pair.acknowledge();
        assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
        turns += 1;
        assert!(turns < requests, "{} bytes answered", socket.output.len());
    }
    assert_eq!(socket.output, b"STORED\r\n".repeat(requests));
    assert!(connection.is_at_rest());
}

#[test]
fn a_connection_that_ends_waits_for_its_last_acks() {
    for (end, ends) in [(&b"quit\r\n"[..], false), (b"", true)] {
        let mut pair = Pair::new();
        let mut connection = Connection::new(&pair.shared.settings);
        let mut socket = socket(&[b"set k 0 0 1\r\nv\r\n", end].concat(), 1 << 20);
        socket.ends = ends;
        assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
        pair.acknowledge();
        assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Closed);
        assert_eq!(socket.output, b"STORED\r\n");
    }
}

#[test]
fn who_watches_behind_a_write_is_told_of_it_first() {
    let mut pair = Pair::new();
    let (before, after) = pair.ask(b"set k 0 0 1\r\nv\r\nwatch mutations\r\n");
    assert!(before.is_empty());
    assert!(after.starts_with(b"STORED\r\nOK\r\n"), "{}", after.escape_ascii());
}

#[test]
fn acks_that_do_not_come_in_time_make_an_error_of_the_write_and_of_nothing_else() {
    let mut pair = Pair::new();
    pair.shared.settings.ack_timeout_ms = 0;
    let mut connection = Connection::new(&pair.shared.settings);
    let mut socket = socket(b"set k 0 0 1\r\nv\r\nget k\r\n", 1 << 20);
    for _ in 0..2 {
        run(&pair.shared, &mut connection, &mut socket);
    }
    let expected = b"SERVER_ERROR replication timeout\r\nVALUE k 0 1\r\nv\r\nEND\r\n";
    assert_eq!(socket.output.escape_ascii().to_string(), expected.escape_ascii().to_string());
    pair.shared.cache.promote(false).unwrap();
    pair.shared.cache.follow("b", true).unwrap();
    let (_, after) = pair.ask(b"set k 0 0 1\r\nv\r\n");
    assert!(after.starts_with(b"SERVER_ERROR this node is the primary no more"), "{}", after.escape_ascii());
}

/// A value that is sent from where it lies, its own for each key.
fn large(seed: usize) -> Vec<u8> {
    (0..300_000).map(|at| (at % 251 + at / 4099 + seed) as u8).collect()
}

/// A pair with two such values.
fn pair_with_large_values() -> Pair {
    let mut pair = Pair::new();
    for (key, seed) in [("one", 1), ("two", 2)] {
        pair.shared.cache.set(key, large(seed), Expiry::Never).unwrap();
    }
    pair.acknowledge();
    pair
}

#[test]
fn large_values_behind_a_waiting_write_wait_where_they_lie_and_come_as_they_were_asked_for() {
    let mut pair = pair_with_large_values();
    let input = b"set k 0 0 1\r\nv\r\nget one\r\nget k two one\r\nmg two v\r\nmn\r\n";
    let (one, two) = (&large(1)[..], &large(2)[..]);
    let expected = [
        b"STORED\r\nVALUE one 0 300000\r\n",
        one,
        b"\r\nEND\r\nVALUE k 0 1\r\nv\r\nVALUE two 0 300000\r\n",
        two,
        b"\r\nVALUE one 0 300000\r\n",
        one,
        b"\r\nEND\r\nVA 300000\r\n",
        two,
        b"\r\nMN\r\n",
    ]
    .concat();
    let mut connection = Connection::new(&pair.shared.settings);
    let mut socket = socket(input, 1 << 20);
    assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(socket.output.is_empty() && connection.pinned.is_none());
    let bytes = connection.buffer_bytes();
    assert!(bytes < 70_000, "{bytes} bytes: no copy");
    // What waits is what was asked for.
    pair.shared.cache.delete("one").unwrap();
    pair.shared.cache.set("two", vec![b'-'; 300_000], Expiry::Never).unwrap();
    assert!(pair.shared.cache.stats().pinned_bytes > 500_000);
    pair.acknowledge();
    let mut turns = 0;
    while socket.output.len() < expected.len() {
        socket.room = 50_000;
        assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
        connection.give_back(&mut Buffers::default());
        if connection.pinned.is_some() {
            // Only the socket's room brings the next turn: its worker sleeps until then.
            let now = Instant::now();
            assert_eq!(
                (connection.held_due(), connection.is_held_due(&pair.shared.cache, now)),
                (None, false)
            );
        }
        turns += 1;
        assert!(turns < 100, "{} bytes answered", socket.output.len());
    }
    assert!(socket.output == expected);
    assert!(connection.is_at_rest() && pair.shared.cache.stats().pinned_bytes == 0);
}

#[test]
fn large_values_that_wait_count_towards_the_bound_of_what_may_wait() {
    let mut pair = pair_with_large_values();
    let mut connection = Connection::new(&pair.shared.settings);
    let input = [&b"set k 0 0 1\r\nv\r\n"[..], &b"get one\r\n".repeat(100), b"quit\r\n"].concat();
    let mut socket = socket(&input, 1 << 20);
    assert_eq!(run(&pair.shared, &mut connection, &mut socket), Turn::Waiting);
    assert!(connection.held().is_full() && socket.output.is_empty());
    assert_eq!(pair.shared.counters.snapshot().cmd_get, 4, "a MiB and one value");
    let mut turn = Turn::Waiting;
    for _ in 0..200 {
        pair.acknowledge();
        turn = run(&pair.shared, &mut connection, &mut socket);
    }
    let answer = [b"VALUE one 0 300000\r\n", &large(1)[..], b"\r\nEND\r\n"].concat();
    assert!(socket.output == [b"STORED\r\n", &answer.repeat(100)[..]].concat());
    assert_eq!(turn, Turn::Closed);
}

#[test]
fn an_answer_in_parts_whose_acks_do_not_come_is_one_error() {
    let mut pair = pair_with_large_values();
    pair.shared.cache.set("small", "tiny", Expiry::Never).unwrap();
    pair.shared.settings.ack_timeout_ms = 0;
    for keys in ["one", "one two", "small one two small", "one one two two"] {
        let input = format!("gat 100 {keys}\r\nmn\r\nget small\r\n");
        let output = pair.answered(4, input.as_bytes());
        let expected = b"SERVER_ERROR replication timeout\r\nMN\r\nVALUE small 0 4\r\ntiny\r\nEND\r\n";
        assert_eq!(
            output[..output.len().min(200)].escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
    let touch =
        [&[0x80, 0x1d, 0, 3, 4, 0, 0, 0, 0, 0, 0, 7][..], &[9; 4], &[0; 8], &[0, 0, 0, 9], b"one"].concat();
    let output = pair.answered(4, &touch);
    assert_eq!(output[..16], [0x81, 0x1d, 0, 0, 0, 0, 0, 0x86, 0, 0, 0, 19, 9, 9, 9, 9]);
    assert_eq!(&output[24..], b"replication timeout");
    assert_eq!(pair.shared.cache.stats().pinned_bytes, 0);
}

#[test]
fn nothing_is_carried_out_of_a_request_behind_the_part_that_failed() {
    let mut pair = pair_with_large_values();
    pair.shared.cache.set("small", "tiny", Expiry::Never).unwrap();
    pair.shared.settings.ack_timeout_ms = 0;
    let mut connection = Connection::new(&pair.shared.settings);
    let input = format!("gat 100{} small\r\nmn\r\n", " one".repeat(50_000));
    let mut socket = socket(input.as_bytes(), 1 << 20);
    // A turn each for what fills the output, its error, and the rest.
    for _ in 0..4 {
        run(&pair.shared, &mut connection, &mut socket);
    }
    assert_eq!(socket.output.escape_ascii().to_string(), r"SERVER_ERROR replication timeout\r\nMN\r\n");
    assert!(connection.is_at_rest());
    let expires = pair.shared.cache.peek("small", |item| item.expires_at_ms).unwrap();
    assert_eq!(expires, Some(None), "not touched");
    // The second part fails, and what stands behind the request is answered.
    pair.shared.settings.ack_timeout_ms = 600_000;
    let mut connection = Connection::new(&pair.shared.settings);
    let mut socket = super::socket(b"gat 100 one two\r\nmn\r\n", 1 << 20);
    run(&pair.shared, &mut connection, &mut socket);
    assert!(socket.output.is_empty());
    pair.acknowledge();
    run(&pair.shared, &mut connection, &mut socket);
    assert!(socket.output.ends_with(b"\r\nEND\r\nMN\r\n"), "both were acknowledged");
}

#[test]
fn a_request_of_many_large_values_lets_others_have_their_turns() {
    let mut shared = shared();
    shared.cache = Cache::new(Config::new().memory_bytes_max(16 << 20)).unwrap();
    shared.cache.set("k", large(1), Expiry::Never).unwrap();
    let input = format!("get{}\r\nmn\r\n", " k".repeat(100));
    let (mut connection, mut turns) = (Connection::new(&shared.settings), 1);
    let mut socket = socket(input.as_bytes(), usize::MAX);
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    while connection.turn(&mut socket, &mut executor) == Turn::MoreToDo {
        turns += 1;
    }
    assert!((5..20).contains(&turns), "{turns} turns");
    let value = [b"VALUE k 0 300000\r\n", &large(1)[..], b"\r\n"].concat();
    assert!(socket.output == [&value.repeat(100)[..], b"END\r\nMN\r\n"].concat());
}

#[test]
fn a_replica_that_answers_no_reads_says_why_in_every_dialect_alike() {
    let configs = [
        ReplicationConfig::replica_of("a"),
        ReplicationConfig::replica_of("a").replica_reads(true).replica_staleness_max_ms(100),
    ];
    let mut reasons = Vec::new();
    for config in configs {
        let config = Config::new().memory_bytes_max(16 << 20).replication(config);
        let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
        let ask = |request: &str| {
            let mut socket = socket(request.as_bytes(), 1 << 20);
            run(&shared, &mut Connection::new(&shared.settings), &mut socket);
            // How far it is behind may change from one to the next.
            String::from_utf8(socket.output).unwrap().replace(|letter: char| letter.is_ascii_digit(), "")
        };
        let reason = ask("get k\r\n");
        assert!(reason.starts_with("SERVER_ERROR this replica "), "{reason}");
        for request in ["gets k", "get k l", "mg k v", "mg k c t Oq", "me k", "mg k v q"] {
            assert_eq!(ask(&format!("{request}\r\n")), reason, "{request}");
        }
        reasons.push(reason);
    }
    assert_ne!(reasons[0], reasons[1]);
}
