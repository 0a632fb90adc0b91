//! `stats settings` (rules G5, L8): memcached's names, with this server's values.

use std::sync::atomic::Ordering;

use super::{Shared, stat};

fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

pub(super) fn write(shared: &Shared, out: &mut Vec<u8>) {
    listening(shared, out);
    workers(shared, out);
    storage(shared, out);
}

fn listening(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    let port = settings.addresses.first().map_or(0, |address| address.port());
    let inter: Vec<String> = settings.addresses.iter().map(|address| address.ip().to_string()).collect();
    stat(out, "maxbytes", shared.cache.stats().memory_bytes_max);
    stat(out, "maxconns", settings.connections_max);
    stat(out, "tcpport", if settings.unix_socket.is_some() { 0 } else { port });
    stat(out, "udpport", settings.udp_addresses.first().map_or(0, |address| address.port()));
    stat(out, "inter", inter.join(","));
    stat(out, "verbosity", shared.operator.verbosity.load(Ordering::Relaxed));
    stat(out, "oldest", 0);
    stat(out, "evictions", if settings.evict { "on" } else { "off" });
    let socket = settings.unix_socket.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string());
    stat(out, "domain_socket", socket);
    stat(out, "umask", 700);
    stat(out, "shutdown_command", yes_no(settings.shutdown_command));
}

fn workers(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    // Rule L8's figures, where the engine has its own and nobody can set them: monitors compare with memcached's.
    stat(out, "growth_factor", "1.25");
    stat(out, "chunk_size", 48);
    stat(out, "num_threads", settings.threads);
    stat(out, "num_threads_per_udp", u8::from(!settings.udp_addresses.is_empty()));
    stat(out, "stat_key_prefix", ":");
    stat(out, "detail_enabled", yes_no(shared.operator.observers.is_detail_on()));
    stat(out, "reqs_per_event", 20);
    stat(out, "cas_enabled", yes_no(settings.cas_enabled));
    stat(out, "tcp_backlog", 1024);
    stat(out, "auth_enabled_sasl", if settings.sasl_users.is_some() { "yes" } else { "no" });
    stat(out, "auth_enabled_ascii", if settings.ascii_users.is_some() { "yes" } else { "no" });
    if settings.tls.is_some() {
        stat(out, "ssl_enabled", "yes");
    }
    stat(out, "item_size_max", settings.item_bytes_max);
    stat(out, "maxconns_fast", "yes");
    stat(out, "binding_protocol", settings.protocol.as_str());
    stat(out, "idle_timeout", settings.idle_timeout_ms / 1000);
    stat(out, "client_flags_size", 4);
}

fn storage(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    stat(out, "hashpower_init", 0);
    // Pages go where they are wanted, and dead items leave with the writes: none of it waits for a command.
    stat(out, "slab_reassign", "yes");
    stat(out, "slab_automove", 1);
    for name in ["automove_ratio", "automove_window", "automove_freeratio", "chunk_max"] {
        stat(out, &format!("slab_{name}"), 0);
    }
    stat(out, "lru_crawler", yes_no(!shared.operator.is_crawler_off.load(Ordering::Relaxed)));
    stat(out, "lru_crawler_sleep", 0);
    stat(out, "lru_crawler_tocrawl", 0);
    stat(out, "tail_repair_time", 0);
    stat(out, "flush_enabled", yes_no(settings.flush_enabled));
    stat(out, "dump_enabled", yes_no(settings.dump_enabled));
    stat(out, "hash_algorithm", "own");
    stat(out, "lru_maintainer_thread", "no");
    stat(out, "lru_segmented", "yes");
    stat(out, "hot_lru_pct", 20);
    stat(out, "warm_lru_pct", 40);
    stat(out, "hot_max_factor", "0.20");
    stat(out, "warm_max_factor", "2.00");
    stat(out, "temp_lru", "no");
    stat(out, "temporary_ttl", 0);
    stat(out, "watcher_logbuf_size", settings.watcher_queue_bytes_max);
    stat(out, "worker_logbuf_size", 0);
    stat(out, "read_buf_mem_limit", 0);
    stat(out, "track_sizes", yes_no(shared.operator.tracks_sizes.load(Ordering::Relaxed)));
    stat(out, "inline_ascii_response", "no");
    stat(out, "watch_enabled", yes_no(settings.watch_enabled));
}
