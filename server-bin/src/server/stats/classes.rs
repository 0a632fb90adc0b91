//! `stats items`, `stats slabs` and `stats sizes` (rule G5): the engine's size classes under memcached's names.
//!
//! A class is numbered from 1, as memcached does. An item may lie in several chunks: `stats items` and `mem_requested`
//! count it under the class that it begins in, the other rows of `stats slabs` count chunks. The engine's two queues go
//! under the names of memcached's segments that they are like: new items that have yet to be hit are hot, those that were
//! hit are warm. None is cold or temporary, and what belongs to moving between segments reads 0.

use std::collections::BTreeMap;

use hotspare::{Cache, ClassStats, Cursor};
use hotspare_memcached::classic::Response;

use super::stat;
use crate::server::Shared;
use crate::server::commands::server_error;
use crate::server::counters::ClassCountersSnapshot;

/// How far apart the sizes are that `stats sizes` counts items under, in bytes; memcached's.
const SIZE_STEP: usize = 32;

/// Names of `stats items` that have no meaning here, behind those that have one.
const ITEM_ZEROES: [&str; 10] = [
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "hits_to_hot",
    "hits_to_warm",
    "hits_to_cold",
    "hits_to_temp",
];

/// One class: its number, what it holds, what was counted of it.
struct Class {
    number: usize,
    held: ClassStats,
    counted: ClassCountersSnapshot,
}

/// The classes that have pages or of which something was counted.
fn in_use(shared: &Shared) -> Vec<Class> {
    let class = |(index, held)| Class { number: index + 1, held, counted: shared.counters.class(index) };
    let is_in_use = |class: &Class| {
        let ClassStats { chunk_bytes, chunks_per_page, .. } = class.held;
        let mut unused = ClassStats::default();
        (unused.chunk_bytes, unused.chunks_per_page) = (chunk_bytes, chunks_per_page);
        class.held != unused || class.counted != ClassCountersSnapshot::default()
    };
    shared.cache.class_stats().into_iter().enumerate().map(class).filter(is_in_use).collect()
}

pub(super) fn write_items(shared: &Shared, out: &mut Vec<u8>) {
    let crawled = shared.operator.crawler_reclaimed().clone();
    let ages = shared.cache.class_ages();
    for Class { number, held, .. } in in_use(shared) {
        let ages = ages.get(number - 1).copied().unwrap_or_default();
        let mut row = |name: &str, value: u64| stat(out, &format!("items:{number}:{name}"), value);
        row("number", held.items);
        row("number_hot", held.items - held.main_items);
        row("number_warm", held.main_items);
        row("number_cold", 0);
        row("age_hot", ages.on_probation_s);
        row("age_warm", ages.in_main_s);
        row("age", ages.on_probation_s.max(ages.in_main_s));
        row("mem_requested", held.item_bytes);
        row("evicted", held.evictions);
        row("evicted_nonzero", held.evicted_expiring);
        row("evicted_time", held.evicted_age_s);
        row("outofmemory", held.store_no_memory);
        row("tailrepairs", 0);
        row("reclaimed", held.reclaimed);
        row("expired_unfetched", held.expired_unfetched);
        row("evicted_unfetched", held.evicted_unfetched);
        row("evicted_active", 0);
        row("crawler_reclaimed", crawled.get(number - 1).copied().unwrap_or(0));
        ITEM_ZEROES.iter().for_each(|name| row(name, 0));
    }
}

pub(super) fn write_slabs(shared: &Shared, out: &mut Vec<u8>) {
    let classes = in_use(shared);
    for Class { number, held, counted } in &classes {
        let rows = [
            ("chunk_size", held.chunk_bytes),
            ("chunks_per_page", held.chunks_per_page),
            ("total_pages", held.pages),
            ("total_chunks", held.pages * held.chunks_per_page),
            ("used_chunks", held.used_chunks()),
            ("free_chunks", held.free_chunks),
            ("free_chunks_end", 0),
        ];
        for (name, value) in rows.into_iter().chain(counted.rows()) {
            stat(out, &format!("{number}:{name}"), value);
        }
    }
    stat(out, "active_slabs", classes.iter().filter(|class| class.held.pages > 0).count());
    stat(out, "total_malloced", shared.cache.stats().memory_bytes);
}

/// How many items there are up to each size, header and key included, from the step below it on. It goes through all
/// items at once, a shard's lock at a time.
pub(super) fn write_sizes(cache: &Cache, out: &mut Vec<u8>) {
    let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
    let mut next = Some(Cursor::START);
    while let Some(cursor) = next {
        let step = cache.scan_details(cursor, |_, details| {
            *counts.entry(details.bytes.next_multiple_of(SIZE_STEP)).or_default() += 1;
        });
        match step {
            Ok(cursor) => next = cursor,
            Err(why) => return server_error(out, &why.to_string()),
        }
    }
    for (bytes, count) in counts {
        stat(out, &bytes.to_string(), count);
    }
    Response::End.encode(out);
}
