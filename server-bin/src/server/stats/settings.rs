//! `stats settings` (rules G5, L8): memcached's names, with this server's values.
//!
//! What has no effect on this engine is told as it was given, or as memcached has it by default: monitors compare.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::{Shared, stat};
use crate::settings::VerifyClients;

fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

pub(super) fn write(shared: &Shared, out: &mut Vec<u8>) {
    listening(shared, out);
    workers(shared, out);
    storage(shared, out);
    queues(shared, out);
    encryption(shared, out);
    stat(out, "num_napi_ids", told(shared, "num_napi_ids", "(null)"));
    stat(out, "memory_file", told(shared, "memory_file", "(null)"));
    stat(out, "client_flags_size", 4);
}

/// What was given for a setting that only this tells, or memcached's default.
fn told<'a>(shared: &'a Shared, name: &str, default: &'a str) -> &'a str {
    shared.settings.told.get(name).map_or(default, String::as_str)
}

fn listening(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    let port = settings.addresses.first().map_or(0, |address| address.port());
    stat(out, "maxbytes", shared.cache.stats().memory_bytes_max);
    stat(out, "maxconns", settings.connections_max);
    stat(out, "tcpport", if settings.unix_socket.is_some() { 0 } else { port });
    stat(out, "udpport", settings.udp_addresses.first().map_or(0, |address| address.port()));
    stat(out, "inter", told(shared, "inter", "127.0.0.1"));
    stat(out, "verbosity", shared.operator.verbosity.load(Ordering::Relaxed));
    stat(out, "oldest", 0);
    stat(out, "evictions", if settings.evict { "on" } else { "off" });
    let socket = settings.unix_socket.as_ref().map_or("NULL".to_owned(), |path| path.display().to_string());
    stat(out, "domain_socket", socket);
    stat(out, "umask", format_args!("{:o}", settings.unix_socket_mode));
    stat(out, "shutdown_command", yes_no(settings.shutdown_command));
}

fn workers(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    stat(out, "growth_factor", told(shared, "growth_factor", "1.25"));
    stat(out, "chunk_size", told(shared, "chunk_size", "48"));
    stat(out, "num_threads", settings.threads);
    stat(out, "num_threads_per_udp", u8::from(!settings.udp_addresses.is_empty()));
    stat(out, "stat_key_prefix", char::from(settings.prefix_delimiter));
    stat(out, "detail_enabled", yes_no(shared.operator.observers.is_detail_on()));
    stat(out, "reqs_per_event", told(shared, "reqs_per_event", "20"));
    stat(out, "cas_enabled", yes_no(settings.cas_enabled));
    stat(out, "tcp_backlog", settings.backlog);
    stat(out, "binding_protocol", settings.protocol.as_str());
    stat(out, "auth_enabled_sasl", yes_no(settings.sasl_users.is_some()));
    stat(out, "auth_enabled_ascii", told(shared, "auth_enabled_ascii", "no"));
    stat(out, "item_size_max", settings.item_bytes_max);
    stat(out, "maxconns_fast", yes_no(settings.refuses_when_full));
}

fn storage(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    let mut row = |name: &str, default: &str| stat(out, name, told(shared, name, default));
    row("hashpower_init", "0");
    // Pages go where they are wanted, and dead items leave with the writes: none of it waits for a command.
    row("slab_reassign", "yes");
    row("slab_automove", "1");
    row("slab_automove_ratio", "0.80");
    row("slab_automove_window", "30");
    row("slab_chunk_max", "524288");
    stat(out, "lru_crawler", yes_no(!shared.operator.is_crawler_off.load(Ordering::Relaxed)));
    let mut row = |name: &str, default: &str| stat(out, name, told(shared, name, default));
    row("lru_crawler_sleep", "100");
    row("lru_crawler_tocrawl", "0");
    row("tail_repair_time", "0");
    stat(out, "flush_enabled", yes_no(settings.flush_enabled));
    stat(out, "dump_enabled", yes_no(settings.dump_enabled));
    let mut row = |name: &str, default: &str| stat(out, name, told(shared, name, default));
    row("hash_algorithm", "murmur3");
    row("lru_maintainer_thread", "no");
    row("lru_segmented", "yes");
    row("hot_lru_pct", "20");
    row("warm_lru_pct", "40");
    row("hot_max_factor", "0.20");
    row("warm_max_factor", "2.00");
    row("temp_lru", "no");
    row("temporary_ttl", "61");
}

fn queues(shared: &Shared, out: &mut Vec<u8>) {
    let settings = &shared.settings;
    stat(out, "idle_timeout", settings.idle_timeout_ms / 1000);
    stat(out, "watcher_logbuf_size", settings.watcher_queue_bytes_max);
    stat(out, "worker_logbuf_size", told(shared, "worker_logbuf_size", "65536"));
    stat(out, "read_buf_mem_limit", told(shared, "read_buf_mem_limit", "0"));
    stat(out, "track_sizes", yes_no(shared.operator.tracks_sizes.load(Ordering::Relaxed)));
    stat(out, "inline_ascii_response", "no");
    stat(out, "watch_enabled", yes_no(settings.watch_enabled));
}

/// As a memcached that was built with TLS.
fn encryption(shared: &Shared, out: &mut Vec<u8>) {
    let tls = shared.settings.tls.as_ref();
    let path =
        |file: Option<&PathBuf>, none: &str| file.map_or(none.to_owned(), |file| file.display().to_string());
    let verify = tls.map_or(VerifyClients::Never, |tls| tls.verify_clients);
    let newest = tls.is_some_and(|tls| tls.only_newest_version);
    let rows: [(&str, &dyn Display); 11] = [
        ("ssl_enabled", &yes_no(tls.is_some())),
        ("ssl_chain_cert", &path(tls.map(|tls| &tls.chain_file), "(null)")),
        ("ssl_key", &path(tls.and_then(|tls| tls.key_file.as_ref()), "(null)")),
        // OpenSSL's bits for these.
        (
            "ssl_verify_mode",
            &match verify {
                VerifyClients::Never => 0,
                VerifyClients::IfGiven => 1,
                VerifyClients::Always => 3,
            },
        ),
        ("ssl_keyformat", &1),
        ("ssl_ciphers", &"NULL"),
        ("ssl_ca_cert", &path(tls.and_then(|tls| tls.authorities_file.as_ref()), "NULL")),
        ("ssl_wbuf_size", &told(shared, "ssl_wbuf_size", "16384")),
        ("ssl_session_cache", &told(shared, "ssl_session_cache", "no")),
        ("ssl_kernel_tls", &"no"),
        ("ssl_min_version", &if newest { "tlsv1.3" } else { "tlsv1.2" }),
    ];
    for (name, value) in rows {
        stat(out, name, value);
    }
}
