//! Operators' commands over a connection.

use super::*;
use hotspare_memcached::classic::ShutdownMode;
use std::sync::Arc;

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
pub(super) fn ask(shared: &Shared, request: &str) -> String {
    Client::new(shared).ask(shared, request)
}

/// The value of a statistic in an answer.
pub(super) fn stat<'a>(answer: &'a str, name: &str) -> &'a str {
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

/// Sum of what lines `STAT ...:NAME N` tell.
fn sum_of(answer: &str, name: &str) -> u64 {
    let end = format!(":{name}");
    let rows = answer.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
    rows.filter(|(row, _)| row.ends_with(&end)).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn g5_figures_of_the_classes_add_up_to_those_of_stats() {
    let config = Config::new().memory_bytes_max(2 << 20).item_bytes_max(500_000);
    let config = Observation::default().of_cache(config);
    let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
    for number in 0..3000 {
        let (key, bytes) = (format!("k{number}"), number * 7 % 2500 + 1);
        let text = "7".repeat(bytes);
        let stored = format!("set {key} {} {} {bytes}\r\n{text}\r\n", number % 2, number % 3 * 100);
        let read = format!("get {key} k{} nothing\r\ngat 0 {key}\r\ntouch {key} 9\r\n", number / 2);
        let others = format!("add {key} 0 0 1\r\n1\r\nappend {key} 0 0 1\r\n1\r\nreplace no 0 0 1\r\n1\r\n");
        let swaps = format!("cas {key} 0 0 1 1\r\n1\r\ncas no 0 0 1 1\r\n1\r\n");
        let meta = format!("mg {key} v T9\r\nmg {key}\r\nms {key} 2 T30\r\n41\r\nmg {key} R60\r\n");
        let counts =
            format!("incr {key} 1\r\ndecr {key} 1\r\nma {key} MD\r\nma {key} c\r\nma v{number} N0\r\n");
        let kept = format!("set kept{number} 0 {} {bytes}\r\n{text}\r\n", number % 2 * 1_000);
        let last = if number % 5 == 0 { format!("delete {key}\r\nmd v{number}\r\n") } else { String::new() };
        ask(&shared, &[stored, read, others, swaps, meta, counts, kept, last].concat());
    }
    ask(&shared, "set x 0 0 1\r\n1\r\nms x 1 C1\r\n1\r\nms huge 499990\r\n");
    let cas = ask(&shared, "gets x\r\n").split(' ').nth(4).unwrap().split('\r').next().unwrap().to_owned();
    ask(&shared, &format!("cas x 0 0 1 {cas}\r\n2\r\n"));
    for opcode in [0x00, 0x05, 0x06, 0x1c, 0x1d, 0x04] {
        // Get, incr, decr, touch, get and touch, delete of `x`.
        let extras = match opcode {
            0x05 | 0x06 => vec![0; 20],
            0x1c | 0x1d => vec![0; 4],
            _ => Vec::new(),
        };
        let mut request =
            vec![0x80, opcode, 0, 1, extras.len() as u8, 0, 0, 0, 0, 0, 0, extras.len() as u8 + 1];
        request.extend([0; 12]);
        request.extend(extras);
        request.push(b'x');
        let mut connection = Connection::new(&shared.settings);
        run(&shared, &mut connection, &mut socket(&request, 1 << 20));
    }
    let [all, slabs, items] = ["", " slabs", " items"].map(|word| ask(&shared, &format!("stats{word}\r\n")));
    for name in [
        "get_hits",
        "cmd_set",
        "delete_hits",
        "incr_hits",
        "decr_hits",
        "cas_hits",
        "cas_badval",
        "touch_hits",
    ] {
        assert_eq!(sum_of(&slabs, name).to_string(), stat(&all, name), "{name}");
        assert_ne!(stat(&all, name), "0", "{name}");
    }
    let pairs = [
        ("evicted", "evictions"),
        ("evicted_unfetched", "evicted_unfetched"),
        ("expired_unfetched", "expired_unfetched"),
        ("reclaimed", "reclaimed"),
        ("outofmemory", "store_no_memory"),
        ("number", "curr_items"),
        ("mem_requested", "bytes"),
    ];
    for (name, sum) in pairs {
        assert_eq!(sum_of(&items, name).to_string(), stat(&all, sum), "{name}");
    }
    assert_ne!(stat(&all, "evictions"), "0");
    assert_eq!(sum_of(&items, "number_hot") + sum_of(&items, "number_warm"), sum_of(&items, "number"));
    for name in ["evicted_nonzero", "number_hot", "number_warm"] {
        assert_ne!(sum_of(&items, name), 0, "{name}");
    }
    ask(&shared, "stats reset\r\n");
    assert_eq!(sum_of(&ask(&shared, "stats slabs\r\n"), "get_hits"), 0);
}

#[test]
fn g5_ages_tell_for_how_long_nobody_has_accessed_an_item() {
    let clock = Arc::new(hotspare::ManualClock::new(1_000_000_000));
    // By other seeds a key may look like one that was evicted, and begins in the main queue.
    let config = Config::new().memory_bytes_max(2 << 20).clock(clock.clone()).hash_seed(11);
    let shared = Shared { cache: Cache::new(Observation::default().of_cache(config)).unwrap(), ..shared() };
    ask(&shared, "set a 0 0 1\r\nx\r\nset b 0 0 1\r\nx\r\n");
    clock.advance_ms(40_000);
    ask(&shared, "get b\r\n");
    clock.advance_ms(5_000);
    let row = |name: &str| {
        let items = ask(&shared, "stats items\r\n");
        ["number", "age_hot", "age_warm", "age", name].map(|name| sum_of(&items, name))
    };
    assert_eq!(row("evicted_time"), [2, 45, 0, 45, 0]);
    ask(&shared, "delete a\r\n");
    assert_eq!(row("mem_requested"), [1, 5, 0, 5, 22]);
    // `b` was hit, so it is warm once eviction comes by.
    for number in 0..3_000 {
        clock.advance_ms(1_000);
        ask(&shared, &format!("set k{number:04} 0 9000000 1000\r\n{}\r\n", "x".repeat(1_000)));
    }
    let [number, age_hot, age_warm, age, evicted_time] = row("evicted_time");
    // `b` has a class of its own, so these sums are of one queue each.
    assert_eq!((age_warm, age), (3_005, age_hot + 3_005));
    assert!(number > 1_000 && age_hot.abs_diff(number) < 30, "one stored each second: {age_hot} of {number}");
    assert!(evicted_time.abs_diff(age_hot) < 30, "{evicted_time} {age_hot}");
    let all = ask(&shared, "stats\r\n");
    assert_eq!(row("evicted_nonzero")[4].to_string(), stat(&all, "evictions"));
}

#[test]
fn g5_a_hit_counts_under_the_class_of_its_item() {
    let shared = shared();
    ask(&shared, &format!("set a 0 0 1\r\n1\r\nset b 0 0 900\r\n{}\r\n", "1".repeat(900)));
    let class = |key: &str| shared.cache.details(key).unwrap().unwrap().class + 1;
    let (small, large) = (class("a"), class("b"));
    ask(&shared, "get a a b\r\nget a\r\ntouch b 9\r\nincr a 1\r\ndelete b\r\n");
    let slabs = ask(&shared, "stats slabs\r\n");
    for (class, name, count) in [
        (small, "get_hits", "3"),
        (large, "get_hits", "1"),
        (small, "cmd_set", "1"),
        (large, "cmd_set", "1"),
        (small, "incr_hits", "1"),
        (large, "touch_hits", "1"),
        (small, "touch_hits", "0"),
        (large, "delete_hits", "1"),
    ] {
        assert_eq!(stat(&slabs, &format!("{class}:{name}")), count, "{name} of {class}");
    }
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
    for word in ["set", "item", "settingss", "resets", "conn", "detai on", "sizes_"] {
        assert_eq!(ask(&shared, &format!("stats {word}\r\n")), "ERROR\r\n", "{word}");
    }
    assert_eq!(ask(&shared, "stats sizes\r\n"), "STAT sizes_status disabled\r\nEND\r\n");
    for word in ["conns", "items", "slabs", "settings", "replication", "engine"] {
        assert!(ask(&shared, &format!("stats {word}\r\n")).ends_with("END\r\n"), "{word}");
    }
}

#[test]
fn g5_z9_track_sizes_lets_stats_sizes_count_items_in_steps_of_32_bytes() {
    let mut shared = shared();
    let settings = Settings { track_sizes: true, ..Settings::default() };
    shared.operator = Operator::new(&settings, Observation::default());
    assert_eq!(ask(&shared, "stats sizes\r\n"), "END\r\n");
    for (name, value_bytes) in [("a", 1), ("b", 1), ("c", 5000)] {
        shared.cache.set(name, vec![0; value_bytes], hotspare::Expiry::Never).unwrap();
    }
    let step_of = |key: &str| shared.cache.details(key).unwrap().unwrap().bytes.div_ceil(32) * 32;
    let expected = format!("STAT {} 2\r\nSTAT {} 1\r\nEND\r\n", step_of("a"), step_of("c"));
    assert_eq!(ask(&shared, "stats sizes\r\n"), expected);
    assert!(step_of("a") < step_of("c"));
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "track_sizes"), "yes");
}

#[test]
fn g5_sizes_enable_and_disable_switch_stats_sizes() {
    let mut shared = shared();
    let (on, off) = ("STAT sizes_status enabled\r\nEND\r\n", "STAT sizes_status disabled\r\nEND\r\n");
    assert_eq!(ask(&shared, "stats sizes\r\nstats sizes_disable\r\n"), [off, off].concat());
    assert_eq!(ask(&shared, "stats sizes_enable\r\nstats sizes\r\n"), format!("{on}END\r\n"));
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "track_sizes"), "yes");
    assert_eq!(ask(&shared, "stats sizes_disable\r\nstats sizes\r\n"), [off, off].concat());
    // A forged datagram could start the walk.
    shared.settings.udp_addresses.push(([127, 0, 0, 1], 11211).into());
    assert!(
        ask(&shared, "stats sizes_enable\r\n").starts_with("STAT sizes_status error\r\nSTAT sizes_error ")
    );
    assert_eq!(ask(&shared, "stats sizes\r\n"), off);
}

#[test]
fn u1_stats_settings_name_the_udp_port() {
    let mut shared = shared();
    shared.settings.udp_addresses = vec!["127.0.0.1:7".parse().unwrap()];
    let answer = ask(&shared, "stats settings\r\n");
    assert_eq!((stat(&answer, "udpport"), stat(&answer, "num_threads_per_udp")), ("7", "1"));
}

#[test]
fn l8_stats_settings_has_memcacheds_defaults() {
    let answer = ask(&shared(), "stats settings\r\n");
    let expected = [
        ("maxbytes", "67108864"),
        ("maxconns", "1024"),
        ("tcpport", "11211"),
        ("udpport", "0"),
        ("num_threads_per_udp", "0"),
        ("watcher_logbuf_size", "262144"),
        ("track_sizes", "no"),
        ("num_threads", "4"),
        ("growth_factor", "1.25"),
        ("chunk_size", "48"),
        ("item_size_max", "1048576"),
        ("reqs_per_event", "20"),
        ("hot_lru_pct", "20"),
        ("warm_lru_pct", "40"),
        ("evictions", "on"),
        ("flush_enabled", "yes"),
        ("dump_enabled", "yes"),
        ("shutdown_command", "no"),
        ("client_flags_size", "4"),
    ];
    for (name, value) in expected {
        assert_eq!(stat(&answer, name), value, "{name}");
    }
}

#[test]
fn s2_g6_a_store_with_a_bad_data_block_counts_as_one() {
    let shared = shared();
    let bad = ["set a 0 0 1\r\nxyz", "add a 0 0 1 noreply\r\nxyz", "ms a 1\r\nxyz"];
    for (done, request) in bad.iter().enumerate() {
        ask(&shared, request);
        assert_eq!(stat(&ask(&shared, "stats\r\n"), "cmd_set"), (done + 1).to_string(), "{request}");
    }
    // Without a data block there was no store.
    ask(&shared, "set a 0 0 x\r\nset a 0 x 1\r\nx\r\nms a x\r\nms a 1 M!\r\nx\r\nbogus\r\n");
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "cmd_set"), "3");
    assert_eq!(sum_of(&ask(&shared, "stats slabs\r\n"), "cmd_set"), 3);
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
        ("cmd_set", "3"),
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
fn g2_f_refuses_flush_all_before_its_argument_is_looked_at() {
    let mut shared = shared();
    let lines = "flush_all x\r\nflush_all x y\r\nflush_all x noreply\r\nflush_all 1 2 3\r\n";
    let bad = "CLIENT_ERROR invalid exptime argument\r\n";
    assert_eq!(ask(&shared, lines), [bad, bad, "ERROR\r\n"].concat());
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "cmd_flush"), "3");
    shared.settings.flush_enabled = false;
    let refused = "CLIENT_ERROR flush_all not allowed\r\n";
    assert_eq!(ask(&shared, lines), [refused, refused, "ERROR\r\n"].concat());
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "cmd_flush"), "6");
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
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
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
    assert_eq!(answer, refused.repeat(3), "that it is not allowed is told first");
    shared.settings.shutdown_command = true;
    let answer = ask(&shared, "shutdown later\r\nshutdown graceful now\r\n");
    assert_eq!(answer, "CLIENT_ERROR invalid shutdown mode\r\n".repeat(2));
    let (told, tell) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    shared.on_shutdown_command = Box::new(move |mode| told.lock().unwrap().send(mode).unwrap());
    let cases = [("shutdown\r\n", ShutdownMode::Now), ("shutdown graceful\r\n", ShutdownMode::Graceful)];
    for (request, mode) in cases {
        let mut socket = socket(request.as_bytes(), 100);
        assert_eq!(run(&shared, &mut Connection::new(&shared.settings), &mut socket), Turn::Closed);
        assert_eq!(socket.output, b"");
        assert_eq!(tell.try_recv(), Ok(mode), "the server was told");
    }
}

fn store_numbered(shared: &Shared, count: usize) {
    for number in 0..count {
        shared.cache.set(format!("key:{number}"), vec![0; number % 300], hotspare::Expiry::Never).unwrap();
    }
}

#[test]
fn g7_metadump_and_mgdump_name_every_live_item() {
    let shared = shared();
    assert_eq!(ask(&shared, "lru_crawler metadump all\r\n"), "NOTSTARTED no items to crawl\r\n");
    assert_eq!(ask(&shared, "lru_crawler metadump hash\r\n"), "OK\r\nEND\r\n");
    ask(&shared, "set a:b 7 0 3\r\nxyz\r\nset dead 0 -1 1\r\nx\r\nset c 0 1000 1\r\nx\r\nget a:b\r\n");
    shared.cache.set(b"\x01 \xff", "x", hotspare::Expiry::Never).unwrap();
    let dump = ask(&shared, "lru_crawler metadump all\r\n");
    let lines: Vec<&str> = dump.split('\n').collect();
    assert_eq!((lines[0], lines[4], lines[5]), ("OK\r", "END\r", ""), "{dump}");
    let of = |key: &str| lines.iter().find(|line| line.starts_with(&format!("key={key} "))).unwrap();
    let cas = shared.cache.get("a:b").unwrap().unwrap().version.0;
    let details = of("a%3Ab");
    let now_s = shared.cache.now_ms() / 1000;
    let near = (now_s - 5..=now_s).any(|la| {
        let start = format!("key=a%3Ab exp=-1 la={la} cas={cas} fetch=yes cls=");
        details.starts_with(&start) && details.ends_with(" flags=7 ")
    });
    assert!(near, "{details}");
    let near = (now_s - 5..=now_s).any(|la| of("c").contains(&format!(" exp={} la={la} ", la + 1000)));
    assert!(near && of("c").contains(" fetch=no "), "{}", of("c"));
    of("%01%20%FF");
    let mgdump = ask(&shared, "lru_crawler mgdump hash\r\n");
    let mut keys: Vec<&str> = mgdump.lines().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["EN", "OK", "mg ASD/ b", "mg a:b", "mg c"]);
}

#[test]
fn g7_a_dump_of_classes_names_their_items_only() {
    let shared = shared();
    store_numbered(&shared, 2000);
    let count = |dump: &str| dump.lines().filter(|line| line.starts_with("key=")).count();
    let (mut sum, mut all) = (0, Vec::new());
    for class in 1..=shared.cache.class_stats().len() {
        let dump = ask(&shared, &format!("lru_crawler metadump {class}\r\n"));
        assert!(
            dump.lines()
                .filter(|line| line.starts_with("key="))
                .all(|line| line.contains(&format!(" cls={class} ")))
        );
        sum += count(&dump);
        all.push(class.to_string());
    }
    assert_eq!(sum, 2000);
    assert_eq!(count(&ask(&shared, &format!("lru_crawler metadump {}\r\n", all.join(",")))), 2000);
    for bad in ["0", "999", "x", "1,x", "-1"] {
        for command in ["metadump", "mgdump", "crawl"] {
            let answer = ask(&shared, &format!("lru_crawler {command} {bad}\r\n"));
            assert_eq!(answer, "BADCLASS invalid class id\r\n", "{command} {bad}");
        }
    }
}

#[test]
fn g7_a_dump_streams_as_the_client_reads_and_others_go_on() {
    let shared = shared();
    store_numbered(&shared, 60_000);
    let mut connection = Connection::new(&shared.settings);
    let mut dumping = socket(b"lru_crawler metadump all\r\nversion\r\n", 100);
    dumping.room = 0;
    assert_eq!(run(&shared, &mut connection, &mut dumping), Turn::Waiting);
    assert!(
        connection.output.len() < UNSENT_BYTES_MAX + (256 << 10),
        "{} bytes wait",
        connection.output.len()
    );
    // Another client, meanwhile, deletes and stores.
    ask(&shared, "delete key:7\r\nset later 0 0 1\r\nx\r\n");
    let mut executor = Executor::new(&shared, &shared.counters.workers[0], 0);
    let mut turns = 0;
    loop {
        dumping.room = 100_000;
        match connection.turn(&mut dumping, &mut executor) {
            Turn::MoreToDo => turns += 1,
            Turn::Waiting if dumping.output.ends_with(b"\r\n") && connection.unsent().is_empty() => break,
            Turn::Waiting => turns += 1,
            Turn::Closed => panic!("closed"),
        }
        assert!(connection.output.len() < 3 * UNSENT_BYTES_MAX);
    }
    assert!(turns > 50, "{turns} turns");
    let text = String::from_utf8(dumping.output).unwrap();
    assert!(
        text.ends_with(&format!("END\r\nVERSION {}\r\n", super::super::super::commands::VERSION)),
        "what came behind it is answered behind it"
    );
    let mut keys: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("key=")?.split(' ').next()).collect();
    let listed = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), listed, "no item is named twice");
    assert!(keys.len() >= 59_999);
}

#[test]
fn g7_dumps_refuse_pipelining_x_and_a_crawler_that_is_off() {
    let mut shared = shared();
    store_numbered(&shared, 1);
    for name in ["metadump", "mgdump"] {
        let refused = format!("END\r\nERROR cannot pipeline other commands before {name}\r\n");
        assert_eq!(ask(&shared, &format!("get x\r\nlru_crawler {name} all\r\n")), refused);
    }
    let off = "OK\r\nCLIENT_ERROR lru crawler disabled\r\nCLIENT_ERROR lru crawler disabled\r\n";
    assert_eq!(
        ask(&shared, "lru_crawler disable\r\nlru_crawler crawl all\r\nlru_crawler metadump all\r\n"),
        off
    );
    assert_eq!(stat(&ask(&shared, "stats settings\r\n"), "lru_crawler"), "no");
    assert_eq!(ask(&shared, "lru_crawler enable\r\nlru_crawler crawl all\r\n"), "OK\r\nOK\r\n");
    shared.settings.dump_enabled = false;
    assert_eq!(ask(&shared, "lru_crawler metadump all\r\n"), "ERROR metadump not allowed\r\n");
    assert_eq!(ask(&shared, "lru_crawler mgdump all\r\n"), "ERROR mgdump not allowed\r\n");
    assert_eq!(ask(&shared, "stats cachedump 1 0\r\n"), "CLIENT_ERROR stats cachedump not allowed\r\n");
}

#[test]
fn g7_the_crawlers_words_are_read() {
    let shared = shared();
    let cases = [
        ("", "ERROR"),
        (" nonsense", "ERROR"),
        (" crawl", "ERROR"),
        (" metadump", "ERROR"),
        (" enable now", "ERROR"),
        (" crawl all", "NOTSTARTED no items to crawl"),
        (" sleep 1000000", "OK"),
        (" sleep 1000001", "CLIENT_ERROR sleep must be one second or less"),
        (" sleep x", "CLIENT_ERROR bad command line format"),
        (" tocrawl 0", "OK"),
        (" tocrawl x", "CLIENT_ERROR bad command line format"),
    ];
    for (words, reply) in cases {
        assert_eq!(ask(&shared, &format!("lru_crawler{words}\r\n")), format!("{reply}\r\n"), "{words}");
    }
}

#[test]
fn g7_a_crawl_removes_what_is_dead() {
    let shared = shared();
    store_numbered(&shared, 20_000);
    ask(&shared, "flush_all\r\nset a 0 0 1\r\nx\r\n");
    assert_eq!(ask(&shared, "lru_crawler crawl all\r\n"), "OK\r\n");
    let stats = ask(&shared, "stats\r\n");
    assert_eq!(stat(&stats, "curr_items"), "1");
    assert_ne!(stat(&stats, "crawler_items_checked"), "0");
    // The set swept a few.
    let crawled = sum_of(&ask(&shared, "stats items\r\n"), "crawler_reclaimed");
    assert_eq!(stat(&stats, "crawler_reclaimed"), crawled.to_string());
    assert!((19_900..=20_000).contains(&crawled), "{crawled}");
    assert_eq!(stat(&ask(&shared, "stats reset\r\nstats\r\n"), "crawler_reclaimed"), "0");
}

#[test]
fn g5_cachedump_lists_items_of_a_class_up_to_the_limit() {
    let shared = shared();
    ask(&shared, "set a 0 0 3\r\nxyz\r\n");
    let class = 1 + shared.cache.class_stats().iter().position(|class| class.pages > 0).unwrap();
    assert_eq!(ask(&shared, &format!("stats cachedump {class} 0\r\n")), "ITEM a [3 b; 0 s]\r\nEND\r\n");
    assert_eq!(ask(&shared, &format!("stats cachedump {} 0\r\n", class + 1)), "END\r\n");
    for key in 'b'..'h' {
        ask(&shared, &format!("set {key} 0 0 3\r\nxyz\r\n"));
    }
    let dump = ask(&shared, &format!("stats cachedump {class} 4\r\n"));
    assert_eq!(dump.lines().count(), 5, "{dump}");
    let cases = [
        ("", "CLIENT_ERROR bad command line"),
        (" 1", "CLIENT_ERROR bad command line"),
        (" x 1", "CLIENT_ERROR bad command line format"),
        (" 1 x", "CLIENT_ERROR bad command line format"),
        (" 999 1", "CLIENT_ERROR Illegal slab id"),
    ];
    for (words, reply) in cases {
        assert_eq!(ask(&shared, &format!("stats cachedump{words}\r\n")), format!("{reply}\r\n"), "{words}");
    }
}

#[test]
fn g9_slabs_and_lru_are_read_and_answered_for_what_is_so() {
    let shared = shared();
    let cases = [
        ("slabs reassign 1 2", "NOSPARE source class has no spare pages"),
        ("slabs reassign -1 2", "NOSPARE source class has no spare pages"),
        ("slabs reassign 3 3", "SAME src and dst class are identical"),
        ("slabs reassign 0 3", "BADCLASS invalid src or dst class id"),
        ("slabs reassign 1 999", "BADCLASS invalid src or dst class id"),
        ("slabs reassign 1 -1", "BADCLASS invalid src or dst class id"),
        ("slabs reassign +1 2", "CLIENT_ERROR bad command line format"),
        ("slabs reassign 1 2 noreply", "ERROR"),
        ("slabs reassign x 1", "CLIENT_ERROR bad command line format"),
        ("slabs reassign 1", "ERROR"),
        ("slabs automove 0", "OK"),
        ("slabs automove 1", "OK"),
        ("slabs automove 2", "OK"),
        ("slabs automove 3", "ERROR"),
        ("slabs automove x", "CLIENT_ERROR bad command line format"),
        ("slabs automove", "ERROR"),
        ("slabs automove 1 2", "OK"),
        ("slabs automove ratio 0.8", "OK"),
        ("slabs automove ratio x", "ERROR"),
        ("slabs", "ERROR"),
        ("lru mode segmented", "OK"),
        ("lru mode flat", "ERROR the order of this engine has no flat mode"),
        ("lru mode other", "ERROR"),
        ("lru tune 20 40 0.2 2.0", "ERROR this engine tunes itself"),
        ("lru tune 50 40 0.2 2.0", "ERROR hot and warm pcts must not exceed 80"),
        ("lru tune 20 40 0 2.0", "ERROR hot/warm age factors must be greater than 0"),
        ("lru tune 20 x 0.2 2.0", "ERROR"),
        ("lru mode segmented x", "OK"),
        ("lru temp_ttl -1", "OK"),
        ("lru temp_ttl 60", "ERROR this engine has no queue for short lifetimes"),
        ("lru temp_ttl x", "ERROR"),
        ("lru", "ERROR"),
    ];
    for (request, reply) in cases {
        assert_eq!(ask(&shared, &format!("{request}\r\n")), format!("{reply}\r\n"), "{request}");
        let takes_noreply = request.starts_with("lru") || request.starts_with("slabs automove");
        let quiet = ask(&shared, &format!("{request} noreply\r\n"));
        assert_eq!(quiet.is_empty(), takes_noreply, "{request} noreply: {quiet}");
    }
}

#[test]
fn f10_operators_commands_that_know_no_noreply_take_it_for_a_word() {
    let shared = shared();
    let cases = [
        ("lru_crawler crawl all noreply", "ERROR|"),
        ("lru_crawler enable noreply", "ERROR|"),
        ("slabs automove noreply", ""),
        ("cache_memlimit noreply", ""),
        ("cache_memlimit 64 x", "OK|"),
        ("cache_memlimit 64 x noreply", "ERROR|"),
        ("watch noreply", ""),
        ("lru noreply", ""),
        ("refresh_certs noreply", "Error TLS not enabled|"),
        ("stats reset noreply", "RESET|"),
        ("stats sizes x", "STAT sizes_status disabled|END|"),
    ];
    for (request, reply) in cases {
        let answer = ask(&shared, &format!("{request}\r\n")).replace("\r\n", "|");
        assert_eq!(answer, reply, "{request}");
    }
}

#[test]
fn z11_debugtime_advances_the_clock_of_a_server_that_was_started_for_it() {
    let mut shared = shared();
    assert_eq!(ask(&shared, "debugtime 10\r\n"), "ERROR\r\n");
    let clock = std::sync::Arc::new(crate::debug_clock::DebugClock::default());
    shared.cache = Cache::new(Config::new().clock(clock.clone())).unwrap();
    shared.settings.debug_clock = Some(clock);
    ask(&shared, "set a 0 100 1\r\nx\r\n");
    assert_eq!(ask(&shared, "debugtime 90\r\nget a\r\n"), "OK\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(ask(&shared, "debugtime 11\r\nget a\r\n"), "OK\r\nEND\r\n");
    for words in ["", " x", " -1", " 1 2", " 99999999999"] {
        assert_eq!(
            ask(&shared, &format!("debugtime{words}\r\n")),
            "CLIENT_ERROR bad command line format\r\n"
        );
    }
}
