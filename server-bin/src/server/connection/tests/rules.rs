//! Rules that are about more than one reply: memory, uniques, counts, races, slow readers.

use std::sync::atomic::{AtomicBool, Ordering};

use super::meta::converse;
use super::*;

/// What the server answers to all at once, with each line's end as `|`.
fn talk(shared: &Shared, input: &str) -> String {
    converse(shared, input, 1 << 20)
}

#[test]
fn l4_without_memory_the_value_is_skipped_and_refused() {
    let config = Config::new().memory_bytes_max(1 << 20).item_bytes_max(300 << 10).evict(false);
    let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
    let value = "v".repeat(200_000);
    let sets: String = (0..8).map(|number| format!("set k{number} 0 0 {}|{value}|", value.len())).collect();
    let answers = talk(&shared, &format!("{sets}get nothing|"));
    assert!(answers.starts_with("STORED|"), "{answers}");
    assert!(answers.ends_with("SERVER_ERROR out of memory storing object|END|"), "{answers}");
}

#[test]
fn c3_a_used_unique_matches_nothing_again_and_no_two_keys_share_one() {
    let shared = shared();
    let answers = talk(&shared, "set a 0 0 1|1|set b 0 0 1|1|gets a b|");
    let uniques: Vec<&str> = answers
        .split('|')
        .filter(|line| line.starts_with("VALUE"))
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(uniques.len(), 2);
    assert_ne!(uniques[0], uniques[1]);
    let unique = uniques[0];
    let cas = format!("cas a 0 0 1 {unique}|2|");
    assert_eq!(talk(&shared, &format!("{cas}{cas}")), "STORED|EXISTS|");
    assert_eq!(talk(&shared, &format!("delete a|set a 0 0 1|3|{cas}")), "DELETED|STORED|EXISTS|");
}

#[test]
fn c3_without_uniques_all_read_0_in_every_protocol() {
    let shared =
        Shared { settings: Settings { cas_enabled: false, ..Settings::default() }, ..super::shared() };
    let answers =
        talk(&shared, "set a 0 0 1|1|gets a|mg a c|ms a 1 c|2|ma n N0 c|cas a 0 0 1 0|3|cas a 0 0 1 1|3|");
    assert_eq!(answers, "STORED|VALUE a 0 1 0|1|END|HD c0|HD c0|HD c0|EXISTS|EXISTS|");
    assert!(talk(&shared, "lru_crawler metadump all|").contains(" cas=0 "));
    let get = [&[0x80, 0, 0, 1][..], &[0; 7], &[1], &[0; 12], b"a"].concat();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(&get, 1 << 20);
    run(&shared, &mut connection, &mut socket);
    assert_eq!(socket.output[16..24], [0; 8], "{}", socket.output.escape_ascii());
    assert!(socket.output.ends_with(b"2"));
}

#[test]
fn r4_a_get_counts_each_key_and_a_gat_counts_as_a_touch() {
    let shared = shared();
    talk(&shared, "set a 0 0 1|1|get a b a|gets a|gat 0 a b|touch a 0|");
    let stats = talk(&shared, "stats|");
    for (name, count) in [
        ("cmd_get", 4),
        ("get_hits", 3),
        ("get_misses", 1),
        ("cmd_touch", 3),
        ("touch_hits", 2),
        ("touch_misses", 1),
    ] {
        assert!(stats.contains(&format!("|STAT {name} {count}|")), "{name} is not {count}: {stats}");
    }
}

#[test]
fn t2_documents_that_are_wrong_are_not_followed() {
    let shared = shared();
    let answers = talk(&shared, "ms a 1 F4294967295|1|mg a f|md a|md a|ms b 1|1|lru_crawler metadump all|");
    assert!(answers.starts_with("HD|HD f4294967295|HD|NF|HD|"), "{answers}");
    assert!(talk(&shared, "lru_crawler metadump all|").starts_with("OK|key=b "), "its OK of 1.6.43");
}

#[test]
fn t3_an_incr_that_races_a_delete_brings_nothing_back() {
    let shared = shared();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                shared.cache.incr("n", 1).unwrap();
            }
        });
        for _ in 0..20_000 {
            shared.cache.set("n", "5", hotspare::Expiry::Never).unwrap();
            assert!(shared.cache.delete("n").unwrap());
            assert_eq!(shared.cache.get("n").unwrap(), None);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn t3_a_stale_item_is_won_without_n_and_a_get_needs_no_flag() {
    let shared = shared();
    let answers = talk(&shared, "ms a 1|1|mg a|md a I|mg a v|mg a v|");
    assert_eq!(answers, "HD|HD|HD|VA 1 X W|1|VA 1 Z X|1|");
}

#[test]
fn z4_a_slow_reader_gets_the_whole_old_value() {
    let shared = shared();
    let old = vec![b'o'; 500_000];
    shared.cache.set("a", &old, hotspare::Expiry::Never).unwrap();
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(b"get a\r\n", 100);
    socket.room = 1000;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    shared.cache.delete("a").unwrap();
    shared.cache.set("a", vec![b'n'; 500_000], hotspare::Expiry::Never).unwrap();
    socket.room = usize::MAX;
    assert_eq!(run(&shared, &mut connection, &mut socket), Turn::Waiting);
    let expected = [&b"VALUE a 0 500000\r\n"[..], &old, b"\r\nEND\r\n"].concat();
    assert!(socket.output == expected, "{} bytes", socket.output.len());
}
