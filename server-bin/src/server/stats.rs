//! The `stats` command: memcached's names (rules G5, G6, Z12), and this server's own under `replication`, `engine`.
//!
//! A name whose notion does not exist here reads 0; names that monitors expect are never left out.
//!
//! Not here: the larger tables (see `settings`, `classes`), dumps that go through the items (see `crawler`).

mod classes;
mod settings;

use std::fmt::Display;
use std::sync::atomic::Ordering;

use hotspare::Stats;
use hotspare_memcached::classic::{Response, Tokens};

use super::Shared;
use super::commands::VERSION;
use super::counters::CountersSnapshot;
use super::tls::Certificates;
use crate::daemon::DESCRIPTORS_RESERVED;

/// Appends the answer of `stats` with these words behind it (whole words only, rule T1). Those that a table does not want
/// are passed over, as memcached does. `asking` is the connection that wants to know.
pub(crate) fn write(shared: &Shared, asking: i32, arguments: Tokens<'_>, out: &mut Vec<u8>) {
    let mut words = arguments.iter();
    let (first, second) = (words.next(), words.next());
    match (first, second) {
        (None, _) => general(shared, out),
        (Some(b"settings"), _) => settings::write(shared, out),
        (Some(b"reset"), _) => {
            shared.counters.reset();
            shared.cache.reset_stats();
            if let Some(certificates) = &shared.certificates {
                certificates.counts.reset();
            }
            shared.operator.reset();
            return Response::Reset.encode(out);
        }
        (Some(b"replication"), _) => replication(shared, out),
        (Some(b"engine"), _) => engine(shared, out),
        (Some(b"items"), _) => classes::write_items(shared, out),
        (Some(b"slabs"), _) => classes::write_slabs(shared, out),
        (Some(b"sizes"), _) if shared.operator.tracks_sizes.load(Ordering::Relaxed) => {
            return classes::write_sizes(&shared.cache, out);
        }
        (Some(word @ (b"sizes_enable" | b"sizes_disable")), _) => {
            track_sizes(shared, word == b"sizes_enable", out);
        }
        (Some(b"sizes"), _) => stat(out, "sizes_status", "disabled"),
        (Some(b"conns"), _) => {
            for (name, value) in shared.operator.registry.lines(asking, shared.cache.now_ms()) {
                stat(out, &name, value);
            }
        }
        (Some(b"detail"), second) => return detail(shared, second, out),
        _ => return Response::Error.encode(out),
    }
    Response::End.encode(out);
}

/// `stats sizes_enable` and `sizes_disable` (rule G5). With UDP it stays off, as `-o track_sizes` does.
fn track_sizes(shared: &Shared, is_wanted: bool, out: &mut Vec<u8>) {
    let why = match &shared.settings {
        settings if !settings.udp_addresses.is_empty() => Some("a_datagram_must_not_start_a_walk"),
        settings if !settings.dump_enabled => Some("walks_are_refused_by_X"),
        _ => None,
    };
    if let Some(why) = why.filter(|_| is_wanted) {
        stat(out, "sizes_status", "error");
        return stat(out, "sizes_error", why);
    }
    shared.operator.tracks_sizes.store(is_wanted, Ordering::Relaxed);
    stat(out, "sizes_status", if is_wanted { "enabled" } else { "disabled" });
}

/// `stats detail` (rule G5).
fn detail(shared: &Shared, word: Option<&[u8]>, out: &mut Vec<u8>) {
    let observers = &shared.operator.observers;
    if !shared.settings.dump_enabled {
        return Response::ClientError(b"stats detail not allowed").encode(out);
    }
    match word {
        Some(b"on" | b"off") => {
            observers.set_detail(word == Some(b"on"));
            Response::Ok.encode(out);
        }
        Some(b"dump") => {
            observers.prefixes.dump(out);
            Response::End.encode(out);
        }
        _ => Response::ClientError(b"usage: stats detail on|off|dump").encode(out),
    }
}

fn stat(out: &mut Vec<u8>, name: &str, value: impl Display) {
    Response::Stat { name: name.as_bytes(), value: value.to_string().as_bytes() }.encode(out);
}

/// User and system time of this process, as memcached writes times: seconds and microseconds.
fn processor_times() -> (String, String) {
    if let Some((user, system)) = processor_ticks() {
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let seconds = |time: u64| format!("{}.{:06}", time / ticks, time % ticks * 1_000_000 / ticks);
        return (seconds(user), seconds(system));
    }
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // One clock has both; it goes under user time.
    (format!("{}.{:06}", clock.tv_sec, clock.tv_nsec / 1000), "0.000000".to_owned())
}

/// The same in the system's ticks, where it has such a file. (The name of the program, in brackets, may hold spaces.)
fn processor_ticks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Exactly the names of rule Z12, in its order.
fn general(shared: &Shared, out: &mut Vec<u8>) {
    let server = shared.counters.snapshot();
    let cache = shared.cache.stats();
    process(shared, &server, out);
    commands(&server, &cache, out);
    stat(out, "auth_cmds", server.auth_cmds);
    stat(out, "auth_errors", server.auth_errors);
    if shared.settings.idle_timeout_ms > 0 {
        stat(out, "idle_kicks", server.idle_kicks);
    }
    stat(out, "bytes_read", server.bytes_read);
    stat(out, "bytes_written", server.bytes_written);
    stat(out, "limit_maxbytes", cache.memory_bytes_max);
    stat(out, "accepting_conns", u8::from(server.accepting_conns));
    stat(out, "listen_disabled_num", server.listen_disabled_num);
    stat(out, "time_in_listen_disabled_us", server.time_in_listen_disabled_us);
    stat(out, "threads", shared.settings.threads);
    stat(out, "conn_yields", server.conn_yields);
    // As if the index were memcached's table of pointers, which is what its figure is used for: how large it has grown.
    stat(out, "hash_power_level", (cache.index_bytes / 8).checked_ilog2().unwrap_or(0));
    stat(out, "hash_bytes", cache.index_bytes);
    stat(out, "hash_is_expanding", 0);
    for name in ["rescues", "chunk_rescues", "inline_reclaim", "busy_items", "busy_deletes", "busy_nomem"] {
        stat(out, &format!("slab_reassign_{name}"), 0);
    }
    stat(out, "slab_reassign_last_busy_status", 0);
    stat(out, "slab_reassign_running", 0);
    stat(out, "slabs_moved", cache.pages_moved);
    stat(out, "malloc_fails", 0);
    let watchers = shared.operator.observers.watchers.counts();
    stat(out, "log_worker_dropped", 0);
    stat(out, "log_worker_written", watchers.queued);
    stat(out, "log_watcher_skipped", watchers.skipped);
    stat(out, "log_watcher_sent", watchers.queued);
    stat(out, "log_watchers", watchers.watchers);
    stat(out, "unexpected_napi_ids", 0);
    stat(out, "round_robin_fallback", 0);
    if let Some(certificates) = &shared.certificates {
        encryption(certificates, out);
    }
    stat(out, "bytes", cache.item_bytes);
    stat(out, "curr_items", cache.items);
    stat(out, "total_items", cache.stores);
    stat(out, "slab_global_page_pool", 0);
    stat(out, "expired_unfetched", cache.expired_unfetched);
    stat(out, "evicted_unfetched", cache.evicted_unfetched);
    stat(out, "evictions", cache.evictions);
    stat(out, "reclaimed", cache.reclaimed);
    stat(out, "crawler_reclaimed", shared.operator.crawler_reclaimed().iter().sum::<u64>());
    stat(out, "crawler_items_checked", shared.operator.crawler_items_checked.load(Ordering::Relaxed));
    stat(out, "lrutail_reflocked", 0);
}

/// What a memcached with TLS tells of it (rule G6).
fn encryption(certificates: &Certificates, out: &mut Vec<u8>) {
    let handshakes = &certificates.counts;
    stat(out, "ssl_handshake_errors", handshakes.handshake_errors.load(Ordering::Relaxed));
    stat(out, "ssl_proto_errors", handshakes.protocol_errors.load(Ordering::Relaxed));
    stat(out, "ssl_new_sessions", handshakes.new_sessions.load(Ordering::Relaxed));
    stat(out, "time_since_server_cert_refresh", certificates.age().as_secs());
}

fn process(shared: &Shared, server: &CountersSnapshot, out: &mut Vec<u8>) {
    let (user, system) = processor_times();
    stat(out, "pid", std::process::id());
    stat(out, "uptime", shared.started.elapsed().as_secs());
    stat(out, "time", shared.cache.now_ms() / 1000);
    stat(out, "version", VERSION);
    stat(out, "libevent", "none");
    stat(out, "pointer_size", usize::BITS);
    stat(out, "rusage_user", user);
    stat(out, "rusage_system", system);
    stat(out, "max_connections", shared.settings.connections_max);
    stat(out, "curr_connections", server.curr_connections);
    stat(out, "total_connections", server.total_connections);
    stat(out, "rejected_connections", server.rejected_connections);
    stat(out, "connection_structures", server.curr_connections);
    for name in ["obj_oom", "obj_count", "obj_bytes"] {
        stat(out, &format!("response_{name}"), 0);
    }
    stat(out, "read_buf_count", 0);
    stat(out, "read_buf_bytes", server.buffer_bytes);
    stat(out, "read_buf_bytes_free", 0);
    stat(out, "read_buf_oom", 0);
    stat(out, "reserved_fds", DESCRIPTORS_RESERVED);
}

fn commands(server: &CountersSnapshot, cache: &Stats, out: &mut Vec<u8>) {
    let rows = [
        ("cmd_get", server.cmd_get),
        ("cmd_set", server.cmd_set),
        ("cmd_flush", server.cmd_flush),
        ("cmd_touch", server.cmd_touch),
        ("cmd_meta", server.cmd_meta),
        ("get_hits", server.get_hits),
        ("get_misses", server.get_misses),
        ("get_expired", cache.get_expired),
        ("get_flushed", cache.get_flushed),
        ("delete_misses", server.delete_misses),
        ("delete_hits", server.delete_hits),
        ("incr_misses", server.incr_misses),
        ("incr_hits", server.incr_hits),
        ("decr_misses", server.decr_misses),
        ("decr_hits", server.decr_hits),
        ("cas_misses", server.cas_misses),
        ("cas_hits", server.cas_hits),
        ("cas_badval", server.cas_badval),
        ("touch_hits", server.touch_hits),
        ("touch_misses", server.touch_misses),
        ("store_too_large", cache.store_too_large + server.store_too_large),
        ("store_no_memory", cache.store_no_memory),
    ];
    for (name, value) in rows {
        stat(out, name, value);
    }
}

fn replication(shared: &Shared, out: &mut Vec<u8>) {
    let status = shared.cache.status();
    stat(out, "role", status.role.as_str());
    stat(out, "term", status.term);
    stat(out, "seq", status.seq);
    stat(out, "group", &status.group);
    stat(out, "node", format!("{:032x}", status.node));
    stat(out, "slot", status.slot);
    stat(out, "primary", status.primary.as_deref().unwrap_or("-"));
    stat(out, "link", status.link.as_str());
    stat(out, "staleness_ms", status.staleness_ms.map_or("-".to_owned(), |ms| ms.to_string()));
    stat(out, "promotable", if status.promotable.is_ok() { "yes" } else { "no" });
    stat(out, "ack", status.ack_mode);
    stat(out, "ack_timeout_ms", shared.settings.ack_timeout_ms);
    stat(out, "lease", status.lease.state.as_str());
    stat(out, "lease_remaining_ms", status.lease.remaining_ms);
    stat(out, "lease_misses", status.lease.misses);
    stat(out, "replicas", status.replicas.len());
    stat(out, "level_replicas", status.level_replicas);
    stat(
        out,
        "within_budget",
        status.within_budget.map_or("-", |is_within| if is_within { "yes" } else { "no" }),
    );
    stat(out, "log_bytes", status.log_bytes);
    stat(out, "log_bytes_max", status.log_bytes_max);
    stat(out, "installs", status.installs);
    stat(out, "catch_ups", status.catch_ups);
    stat(out, "roll_backs", status.roll_backs);
    stat(out, "rolled_back_keys", status.rolled_back_keys);
    stat(out, "log_waits", status.log_waits);
    stat(out, "loads_lent", status.loads_lent);
    stat(out, "loads_taken", status.loads_taken);
    stat(out, "loads_refused", status.loads_refused);
    stat(out, "rejects", status.rejects);
    stat(out, "oversized_records", status.oversized_records);
    for (index, warning) in status.warnings.iter().enumerate() {
        stat(out, &format!("warning:{index}"), warning);
    }
    for (index, replica) in status.replicas.iter().enumerate() {
        stat(out, &format!("replica:{index}:address"), &replica.address);
        stat(out, &format!("replica:{index}:state"), replica.state.as_str());
        stat(out, &format!("replica:{index}:lag_seqs"), replica.lag_seqs);
        stat(out, &format!("replica:{index}:lag_bytes"), replica.lag_bytes);
        stat(out, &format!("replica:{index}:lag_ms"), replica.lag_ms);
    }
}

fn engine(shared: &Shared, out: &mut Vec<u8>) {
    let stats = shared.cache.stats();
    let rows = [
        ("items", stats.items),
        ("item_bytes", stats.item_bytes),
        ("memory_bytes", stats.memory_bytes),
        ("memory_bytes_max", stats.memory_bytes_max),
        ("index_bytes", stats.index_bytes),
        ("pinned_bytes", stats.pinned_bytes),
        ("get_hits", stats.get_hits),
        ("get_misses", stats.get_misses),
        ("stores", stats.stores),
        ("evictions", stats.evictions),
        ("reclaimed", stats.reclaimed),
        ("pages_moved", stats.pages_moved),
        ("shards", stats.shards),
    ];
    for (name, value) in rows {
        stat(out, name, value);
    }
}
