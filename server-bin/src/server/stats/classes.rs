//! `stats items`, `stats slabs` and `stats sizes` (rule G5): the engine's size classes under memcached's names.
//!
//! A class is numbered from 1, as memcached does. The engine keeps hits, ages and evictions for all classes together, so
//! here they read 0. An item may lie in several chunks; `number` counts chunks in use.

use std::collections::BTreeMap;

use hotspare::{Cache, ClassStats, Cursor};
use hotspare_memcached::classic::Response;

use super::stat;
use crate::server::commands::server_error;

/// How far apart the sizes are that `stats sizes` counts items under, in bytes; memcached's.
const SIZE_STEP: usize = 32;

/// Names of `stats items` that have no meaning for one class here.
const ITEM_ZEROES: [&str; 27] = [
    "number_hot",
    "number_warm",
    "number_cold",
    "age_hot",
    "age_warm",
    "age",
    "mem_requested",
    "evicted",
    "evicted_nonzero",
    "evicted_time",
    "outofmemory",
    "tailrepairs",
    "reclaimed",
    "expired_unfetched",
    "evicted_unfetched",
    "evicted_active",
    "crawler_reclaimed",
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

/// Names of `stats slabs` that have no meaning for one class here.
const SLAB_ZEROES: [&str; 8] =
    ["get_hits", "cmd_set", "delete_hits", "incr_hits", "decr_hits", "cas_hits", "cas_badval", "touch_hits"];

/// The classes that have pages, with their numbers.
fn in_use(cache: &Cache) -> Vec<(usize, ClassStats)> {
    let classes = cache.class_stats().into_iter().enumerate();
    classes.map(|(index, class)| (index + 1, class)).filter(|(_, class)| class.pages > 0).collect()
}

pub(super) fn write_items(cache: &Cache, out: &mut Vec<u8>) {
    for (number, class) in in_use(cache) {
        stat(out, &format!("items:{number}:number"), class.used_chunks());
        for name in ITEM_ZEROES {
            stat(out, &format!("items:{number}:{name}"), 0);
        }
    }
}

pub(super) fn write_slabs(cache: &Cache, out: &mut Vec<u8>) {
    let classes = in_use(cache);
    for (number, class) in &classes {
        let rows = [
            ("chunk_size", class.chunk_bytes),
            ("chunks_per_page", class.chunks_per_page),
            ("total_pages", class.pages),
            ("total_chunks", class.pages * class.chunks_per_page),
            ("used_chunks", class.used_chunks()),
            ("free_chunks", class.free_chunks),
            ("free_chunks_end", 0),
        ];
        for (name, value) in rows {
            stat(out, &format!("{number}:{name}"), value);
        }
        for name in SLAB_ZEROES {
            stat(out, &format!("{number}:{name}"), 0);
        }
    }
    stat(out, "active_slabs", classes.len());
    stat(out, "total_malloced", cache.stats().memory_bytes);
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
