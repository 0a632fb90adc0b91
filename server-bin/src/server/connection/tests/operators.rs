//! Operators' commands over a connection.

use super::*;

/// A connection that is kept between questions.
pub(super) struct Client {
    connection: Connection,
}

impl Client {
    pub(super) fn new(shared: &Shared) -> Client {
        Client { connection: Connection::new(&shared.settings) }
    }

    /// Sends, and gives all that comes back.
    pub(super) fn ask(&mut self, shared: &Shared, request: &str) -> String {
        let mut socket = socket(request.as_bytes(), 1000);
        assert_eq!(run(shared, &mut self.connection, &mut socket), Turn::Waiting, "{request:?}");
        String::from_utf8(socket.output).unwrap()
    }
}

/// One request of a fresh client.
fn ask(shared: &Shared, request: &str) -> String {
    Client::new(shared).ask(shared, request)
}

/// The value of a statistic in an answer.
fn stat<'a>(answer: &'a str, name: &str) -> &'a str {
    let line =
        answer.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[test]
fn g5_stats_slabs_and_items_tell_the_engines_classes() {
    let shared = shared();
    for number in 0..300 {
        shared.cache.set(format!("k{number}"), vec![0; 100], hotspare::Expiry::Never).unwrap();
    }
    let classes = shared.cache.class_stats();
    let index = classes.iter().position(|class| class.pages > 0).unwrap();
    let slabs = ask(&shared, "stats slabs\r\n");
    let name = |name: &str| format!("{}:{name}", index + 1);
    assert_eq!(stat(&slabs, &name("chunk_size")), classes[index].chunk_bytes.to_string());
    assert_eq!(stat(&slabs, &name("used_chunks")), classes[index].used_chunks().to_string());
    assert_eq!(stat(&slabs, "total_malloced"), shared.cache.stats().memory_bytes.to_string());
    assert_ne!(stat(&slabs, "active_slabs"), "0");
    let items = ask(&shared, "stats items\r\n");
    let number = stat(&items, &format!("items:{}:number", index + 1));
    assert_eq!(number, classes[index].used_chunks().to_string());
    assert!(items.ends_with("END\r\n"));
}

#[test]
fn g5_stats_detail_counts_by_prefix_while_it_is_on() {
    let shared = shared();
    assert_eq!(ask(&shared, "stats detail\r\n"), "CLIENT_ERROR usage: stats detail on|off|dump\r\n");
    ask(&shared, "set user:0 0 0 1\r\nx\r\n");
    assert_eq!(ask(&shared, "stats detail on\r\n"), "OK\r\n");
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "detail_enabled"), "yes");
    ask(
        &shared,
        "set user:1 0 0 1\r\nx\r\nget user:1 user:2 page:1 nothing\r\ndelete user:1\r\nset b 0 0 1\r\nx\r\n",
    );
    let dump = "PREFIX page get 1 hit 0 set 0 del 0\r\nPREFIX user get 2 hit 1 set 1 del 1\r\nEND\r\n";
    assert_eq!(ask(&shared, "stats detail dump\r\n"), dump);
    assert_eq!(
        ask(&shared, "stats detail off\r\nget user:1\r\nstats detail dump\r\n"),
        format!("OK\r\nEND\r\n{dump}")
    );
    assert_eq!(ask(&shared, "stats reset\r\nstats detail dump\r\n"), "RESET\r\nEND\r\n");
}

#[test]
fn g5_x_refuses_detail() {
    let mut shared = shared();
    shared.settings.dump_enabled = false;
    assert_eq!(ask(&shared, "stats detail on\r\n"), "CLIENT_ERROR stats detail not allowed\r\n");
}

#[test]
fn t1_stats_subcommands_are_whole_words() {
    let shared = shared();
    for word in ["set", "item", "settingss", "reset now", "conn", "detai on", "sizes_"] {
        assert_eq!(ask(&shared, &format!("stats {word}\r\n")), "ERROR\r\n", "{word}");
    }
    assert_eq!(ask(&shared, "stats sizes\r\n"), "STAT sizes_status disabled\r\nEND\r\n");
    for word in ["conns", "items", "slabs", "settings", "replication", "engine"] {
        assert!(ask(&shared, &format!("stats {word}\r\n")).ends_with("END\r\n"), "{word}");
    }
}

#[test]
fn g6_each_command_counts_under_its_own_name_and_reset_zeroes_it() {
    let shared = shared();
    ask(&shared, "set n 0 0 1\r\n1\r\nset big 0 0 3000000\r\n");
    let shared_after = "get n m\r\ngat 0 n m\r\ntouch n 0\r\ntouch m 0\r\nincr n 1\r\nincr m 1\r\ndecr n 1\r\n\
        decr m 1\r\ncas n 0 0 1 7\r\nx\r\ncas m 0 0 1 7\r\nx\r\nflush_all 1000\r\ndelete n\r\ndelete n\r\n";
    ask(&shared, shared_after);
    let stats = ask(&shared, "stats\r\n");
    let expected = [
        ("cmd_get", "2"),
        ("get_hits", "1"),
        ("get_misses", "1"),
        ("cmd_set", "4"),
        ("cmd_touch", "4"),
        ("touch_hits", "2"),
        ("touch_misses", "2"),
        ("incr_hits", "1"),
        ("incr_misses", "1"),
        ("decr_hits", "1"),
        ("decr_misses", "1"),
        ("cas_badval", "1"),
        ("cas_misses", "1"),
        ("delete_hits", "1"),
        ("delete_misses", "1"),
        ("cmd_flush", "1"),
        ("store_too_large", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(stat(&stats, name), value, "{name}");
    }
    assert_ne!(stat(&stats, "limit_maxbytes"), "0");
    ask(&shared, "set n 0 0 1\r\n1\r\nstats reset\r\n");
    let stats = ask(&shared, "stats\r\n");
    for (name, _) in expected {
        assert_eq!(stat(&stats, name), "0", "{name}");
    }
    assert_eq!(stat(&stats, "curr_items"), "1", "gauges stay");
}

#[test]
fn g1_verbosity_is_clamped_to_2() {
    let shared = shared();
    assert_eq!(
        ask(&shared, "verbosity 7\r\nverbosity 1 noreply\r\nverbosity x\r\n"),
        "OK\r\nCLIENT_ERROR bad command line format\r\n"
    );
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "verbosity"), "1");
    ask(&shared, "verbosity 99999\r\n");
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "verbosity"), "2");
}

#[test]
fn g2_f_refuses_flush_all_and_counts_it() {
    let mut shared = shared();
    shared.settings.flush_enabled = false;
    let answer = ask(&shared, "set a 0 0 1\r\nx\r\nflush_all\r\nflush_all 10 noreply\r\nget a\r\n");
    assert_eq!(answer, "STORED\r\nCLIENT_ERROR flush_all not allowed\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "cmd_flush"), "2");
}

#[test]
fn g3_cache_memlimit_goes_both_ways() {
    let shared = shared();
    for number in 0..60 {
        shared.cache.set(format!("k{number}"), vec![0; 900_000], hotspare::Expiry::Never).unwrap();
    }
    let before = shared.cache.stats().items;
    let cases = [
        ("", "ERROR"),
        (" x", "ERROR"),
        (" -8", "ERROR"),
        (" 7", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
        (" 1000000001", "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes"),
        (" 1000000000", "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
        (" 128", "OK"),
        (" 8", "OK"),
    ];
    for (argument, reply) in cases {
        assert_eq!(
            ask(&shared, &format!("cache_memlimit{argument}\r\n")),
            format!("{reply}\r\n"),
            "{argument}"
        );
    }
    let stats = shared.cache.stats();
    assert!(stats.memory_bytes <= 8 << 20 && stats.items < before, "{stats:?}");
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "limit_maxbytes"), (8 << 20).to_string());
    assert_eq!(ask(&shared, "cache_memlimit 32 noreply\r\n"), "");
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "maxbytes"), (32 << 20).to_string());
}

#[test]
fn g3_a_lower_limit_lets_other_connections_go_on_between_its_steps() {
    let shared = shared();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(b"cache_memlimit 8\r\n", 100);
    let mut executor = Executor { shared: &shared, counters: &shared.counters.workers[0] };
    let mut turns = 0;
    while connection.turn(&mut socket, &mut executor) == Turn::MoreToDo {
        assert_eq!(socket.output, b"", "nothing is answered before it is so");
        turns += 1;
    }
    assert_eq!((socket.output.as_slice(), turns), (&b"OK\r\n"[..], 3));
}

#[test]
fn g4_shutdown_needs_a_and_closes_without_a_reply() {
    let mut shared = shared();
    let answer = ask(&shared, "shutdown\r\nshutdown graceful\r\nshutdown later\r\n");
    let refused = "SERVER_ERROR: shutdown not enabled\r\n";
    assert_eq!(answer, format!("{refused}{refused}CLIENT_ERROR invalid shutdown mode\r\n"));
    shared.settings.shutdown_command = true;
    let (told, tell) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    shared.on_shutdown_command = Box::new(move || told.lock().unwrap().send(()).unwrap());
    for request in ["shutdown\r\n", "shutdown graceful\r\n"] {
        let mut socket = socket(request.as_bytes(), 100);
        assert_eq!(run(&shared, &mut Connection::new(&shared.settings), &mut socket), Turn::Closed);
        assert_eq!(socket.output, b"");
        tell.try_recv().expect("the server was told");
    }
}
