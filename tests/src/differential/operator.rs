//! Commands of operators, at random: those that leave both servers as they were for the conversations to come, and those
//! that are refused.

use rand::RngExt;
use rand::rngs::StdRng;

use super::text::{Line, Token, number, pick, word};

/// Words that stand behind any of them, now and then.
const SURPLUS: &[&str] = &["noreply", "x", "1"];

/// What to watch. Seldom what there is, since a connection that watches answers nothing more, which costs a wait; and never
/// connections, which come and go as each server finds the time.
const WATCHES: [&str; 12] = [
    "nothing",
    "fetchers nothing",
    "fetcher",
    "noreply x",
    "fetchers fetcher",
    "connevent",
    "x",
    "mutation",
    "",
    "fetchers",
    "mutations",
    "evictions",
];

/// One command.
pub(super) fn line(rng: &mut StdRng) -> Line {
    let mut line = match rng.random_range(0..20) {
        0..7 => stats(rng),
        7..10 => crawler(rng),
        10..12 => slabs(rng),
        12..14 => lru(rng),
        14..16 => {
            let limits =
                ["1024", "1024", "7", "0", "1000000001", "4294967295", "4294967296", "-1", "x", "+1024"];
            Line::of("cache_memlimit", [word(pick(rng, &limits))])
        }
        16 => Line::of("shutdown", words(pick(rng, &["", "graceful", "now"]))),
        17 => Line::of("watch", words(pick(rng, &WATCHES))),
        18 => Line::of("refresh_certs", words(pick(rng, &["", "x", "noreply"]))),
        _ => Line::of(
            pick(rng, &["debugtime", "misbehave", "slabs", "lru", "lru_crawler", "cache_memlimit"]),
            words(pick(rng, &["", "1", "x y"])),
        ),
    };
    if rng.random_bool(0.1) {
        line.push(word(pick(rng, SURPLUS)));
    }
    line
}

fn words(text: &str) -> Vec<Token> {
    text.split(' ').filter(|text| !text.is_empty()).map(word).collect()
}

fn stats(rng: &mut StdRng) -> Line {
    let tables = [
        "",
        "settings",
        "items",
        "slabs",
        "sizes",
        "conns",
        "reset",
        "detail on",
        "detail off",
        "detail dump",
        "detail",
        "detail x",
        "nothing",
        "se",
        "item",
        "cachedump",
        "cachedump 1",
        "cachedump 0 0",
        "cachedump 200 1",
        "cachedump x 1",
        "cachedump 1 x",
        "cachedump -1 0",
        "sizes_enable",
        "sizes_disable",
    ];
    Line::of("stats", words(pick(rng, &tables)))
}

fn crawler(rng: &mut StdRng) -> Line {
    let sound = ["sleep 100", "tocrawl 0", "tocrawl 1000", "enable"];
    let odd = [
        "sleep 1000001",
        "sleep x",
        "sleep",
        "tocrawl x",
        "tocrawl -1",
        "tocrawl",
        "crawl",
        "crawl x",
        "crawl 0",
        "crawl 99999",
        "crawl all",
        "crawl -1",
        "metadump",
        "metadump x",
        "metadump 99999",
        "metadump all",
        "metadump hash",
        "metadump all all",
        "mgdump",
        "mgdump x",
        "mgdump all",
        "mgdump hash",
        "nothing",
        "",
        "en",
    ];
    let is_sound = rng.random_bool(0.3);
    Line::of("lru_crawler", words(pick(rng, if is_sound { &sound } else { &odd })))
}

fn slabs(rng: &mut StdRng) -> Line {
    if rng.random_bool(0.4) {
        let moves = ["0", "1", "2", "3", "x", "-1", "", "ratio 0.8", "ratio x", "ratio", "00", "1 2"];
        return Line::of("slabs", words(&format!("automove {}", pick(rng, &moves))));
    }
    let ends = [number(rng, &["1", "2", "-1"]), number(rng, &["1", "2", "99999"])];
    let count = rng.random_range(0..3);
    Line::of("slabs", std::iter::once(word("reassign")).chain(ends.into_iter().take(count.max(1))))
}

fn lru(rng: &mut StdRng) -> Line {
    let lines = [
        "mode segmented",
        "mode x",
        "mode",
        "mode segmented x",
        "temp_ttl -1",
        "temp_ttl x",
        "temp_ttl",
        "tune",
        "tune 10 20 0.1",
        "tune 50 50 0.1 2",
        "tune 10 20 0 2",
        "tune 10 20 0.1 -1",
        "tune x 20 0.1 2",
        "tune 10 20 x 2",
        "nothing",
        "",
    ];
    Line::of("lru", words(pick(rng, &lines)))
}
