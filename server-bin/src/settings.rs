//! What the memcached side of the server is told at start, already checked.
//!
//! Lives here: the plain data that `args` makes and `listener`, `connection`, `commands` and `stats` read.
//! Not here: flags and their parsing (see `args`), the cache's own limits (see `hotspare::Config`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hotspare_tls::Credentials;

use crate::debug_clock::DebugClock;
use crate::users::Users;

/// Settings of the memcached listeners and connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// TCP addresses to accept clients at; port 0 takes a free one. None with UDP alone (`-p 0 -U PORT`). Default
    /// 127.0.0.1:11211.
    pub addresses: Vec<SocketAddr>,
    /// Addresses to answer datagrams at (`-U`); port 0 takes a free one. Default none.
    pub udp_addresses: Vec<SocketAddr>,
    /// A unix socket to accept clients at instead of TCP (`-s`). Default none.
    pub unix_socket: Option<PathBuf>,
    /// Who may connect to the unix socket, as a file mode (`-a`). Default 0700: this user.
    pub unix_socket_mode: u32,
    /// Connections that may wait to be accepted, for each address (`-b`). Default 1024; the system may allow fewer.
    pub backlog: i32,
    /// Who is let in after a `set` with name and password (`-Y`). Default none: everybody is.
    pub ascii_users: Option<Users>,
    /// TLS of the TCP listeners (`-Z`). Default none.
    pub tls: Option<TlsSettings>,
    /// What replication shows to its peers, if it is encrypted; read again together with the clients' certificates. Default
    /// none.
    pub replication_credentials: Option<Credentials>,
    /// Addresses of `addresses` that stay without it (`-l notls:ADDR`).
    pub plain_addresses: Vec<SocketAddr>,
    /// Worker threads (`-t`). Default 4, as memcached's.
    pub threads: usize,
    /// Client connections at once (`-c`); one more is refused with rule L7's line. Default 1024.
    pub connections_max: usize,
    /// The largest item, header and key included, in bytes (`-I`). Default 1 MiB.
    pub item_bytes_max: usize,
    /// Values from this length on go into the cache's memory as they come, in bytes; shorter ones are collected before. Default
    /// 64 KiB, which no flag changes: the system calls for so much cost far more than the way it takes.
    pub large_value_bytes_min: usize,
    /// Values from this length on are sent from where they lie in the cache, however slowly, in bytes; shorter ones are copied, and
    /// with them what is unsent stays within its bound. Default 256 KiB, which no flag changes.
    pub pinned_value_bytes_min: usize,
    /// Memory for items and index, in bytes (`-m`), as `stats` reports it. Default 64 MiB.
    pub memory_bytes_max: usize,
    /// Whether a connection above that is refused; else it waits to be accepted (`-o no_maxconns_fast`). Default yes.
    pub refuses_when_full: bool,
    /// A request that takes longer to come whole ends its connection (`-o request_timeout`). Default 60 seconds;
    /// 0: never.
    pub request_timeout_ms: u64,
    /// A request may take longer by the time its bytes take at this rate (`-o request_rate`). Default 4096; 0: no longer.
    pub request_bytes_per_second_min: u64,
    /// A connection that sends nothing for so long is closed (`-o idle_timeout`). Default 0: never.
    pub idle_timeout_ms: u64,
    /// Whether the `shutdown` command is obeyed (`-A`). Default no.
    pub shutdown_command: bool,
    /// Whether a full cache evicts (`-M` says no). Default yes.
    pub evict: bool,
    /// Whether the items' keys may be listed (`-X` says no). Default yes.
    pub dump_enabled: bool,
    /// Whether clients see each item's CAS unique; else all read 0 (`-C`, rule C3). Default yes.
    pub cas_enabled: bool,
    /// Whether `flush_all` is obeyed (`-F` says no). Default yes.
    pub flush_enabled: bool,
    /// Whether `watch` is obeyed (`-W` says no). Default yes.
    pub watch_enabled: bool,
    /// What ends the part of a key that `stats detail` counts by (`-D`), one byte. Default a colon.
    pub prefix_delimiter: u8,
    /// Whether `stats detail` is on from the start (`-D`). Default no.
    pub detail_enabled: bool,
    /// Whether `lru_crawler` crawls and dumps before anybody enables it (`-o no_lru_crawler` says no). Default yes.
    pub lru_crawler: bool,
    /// What was given that only `stats settings` tells, by its name there: memcached's settings that have no effect on this
    /// engine, and file names. Default none.
    pub told: BTreeMap<&'static str, String>,
    /// What waits for one who watches, at most, in bytes; what is above is lost, and counted (`-o watcher_logbuf_size`).
    /// Default 256 KiB.
    pub watcher_queue_bytes_max: usize,
    /// Whether `stats sizes` counts items by their size (`-o track_sizes`), which goes through all of them. Default no.
    pub track_sizes: bool,
    /// The cache's clock, if the `debugtime` command may advance it (`--debug-time`). Default none.
    pub debug_clock: Option<Arc<DebugClock>>,
    /// A request that takes so many milliseconds is logged (`--slow-log-ms`). Default none: no request is timed for it.
    pub slow_log_ms: Option<u64>,
    /// How talkative the log is (`-v`). Default 0.
    pub verbosity: u8,
    /// The protocol that clients speak (`-B`). Default auto.
    pub protocol: Protocol,
    /// How long a reply waits for its acknowledgements in semi-sync and strict, in milliseconds (`--ack-timeout-ms`). Default 50.
    pub ack_timeout_ms: u64,
    /// Who may log in by SASL (`-S`); without any nobody has to. Default none.
    pub sasl_users: Option<Users>,
}

/// Which protocol a listener speaks (rule B1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What the first byte of each connection says.
    #[default]
    Auto,
    /// Text only.
    Ascii,
    /// Binary only.
    Binary,
}

impl Protocol {
    /// memcached's word in its statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Auto => "auto-negotiate",
            Protocol::Ascii => "ascii",
            Protocol::Binary => "binary",
        }
    }
}

/// Certificates, and what clients have to show.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The server's certificate and those that vouch for it, in PEM (`ssl_chain_cert`).
    pub chain_file: PathBuf,
    /// Its private key, in PEM (`ssl_key`). Default: in the same file.
    pub key_file: Option<PathBuf>,
    /// Who vouches for clients, in PEM (`ssl_ca_cert`).
    pub authorities_file: Option<PathBuf>,
    /// Whether clients have to show a certificate (`ssl_verify_mode`).
    pub verify_clients: VerifyClients,
    /// Whether TLS 1.2 is refused (`ssl_min_version=3`).
    pub only_newest_version: bool,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyClients {
    /// None is asked for.
    #[default]
    Never,
    /// One is asked for, if there is somebody to vouch for it; who has one must have a good one.
    IfGiven,
    /// Nobody is let in without a good one.
    Always,
}

impl Settings {
    /// The default of `large_value_bytes_min`, in bytes.
    pub const LARGE_VALUE_BYTES_MIN: usize = 64 << 10;

    /// The default of `pinned_value_bytes_min`, in bytes.
    pub const PINNED_VALUE_BYTES_MIN: usize = 256 << 10;

    /// What clients see of a CAS unique (rule C3).
    pub(crate) fn shown_cas(&self, cas: u64) -> u64 {
        if self.cas_enabled { cas } else { 0 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 11211))],
            udp_addresses: Vec::new(),
            unix_socket: None,
            unix_socket_mode: 0o700,
            backlog: 1024,
            ascii_users: None,
            tls: None,
            replication_credentials: None,
            plain_addresses: Vec::new(),
            threads: 4,
            connections_max: 1024,
            refuses_when_full: true,
            request_timeout_ms: 60_000,
            request_bytes_per_second_min: 4096,
            item_bytes_max: 1 << 20,
            large_value_bytes_min: Settings::LARGE_VALUE_BYTES_MIN,
            pinned_value_bytes_min: Settings::PINNED_VALUE_BYTES_MIN,
            memory_bytes_max: 64 << 20,
            idle_timeout_ms: 0,
            shutdown_command: false,
            evict: true,
            dump_enabled: true,
            cas_enabled: true,
            flush_enabled: true,
            watch_enabled: true,
            prefix_delimiter: b':',
            detail_enabled: false,
            lru_crawler: true,
            told: BTreeMap::new(),
            watcher_queue_bytes_max: 256 << 10,
            track_sizes: false,
            debug_clock: None,
            slow_log_ms: None,
            verbosity: 0,
            protocol: Protocol::Auto,
            ack_timeout_ms: 50,
            sasl_users: None,
        }
    }
}
