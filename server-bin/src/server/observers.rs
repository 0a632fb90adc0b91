//! Those who look on while commands are executed: `stats detail`, and whoever watches.
//!
//! Lives here: the one question that each command asks, whether anybody looks. Not here: what they make of what they
//! see (see `prefixes`, `watch`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use hotspare::{Cause, Config, Event};

use super::prefixes::Prefixes;
use super::registry::Address;
use super::watch::{CONNEVENTS, DELETIONS, EVICTIONS, FETCHERS, MUTATIONS, Watchers};

/// `stats detail` is on; a bit that no kind of watching has.
const DETAIL: u8 = 1 << 7;

/// Who looks on. A command costs one load while nobody does.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// What anybody wants to see.
    wanted: AtomicU8,
    /// Whether that has evictions among it: the cache asks before it keeps one for us.
    evictions_wanted: Arc<AtomicBool>,
    pub(crate) prefixes: Prefixes,
    pub(super) watchers: Watchers,
}

/// Who watches a server; made before the server's cache is, which tells it what is evicted.
#[derive(Debug, Clone, Default)]
pub struct Observation(pub(super) Arc<Observers>);

impl Observation {
    /// A configuration whose cache tells `watch evictions`. It costs a load for each item that leaves while nobody
    /// watches. It takes the place of another [`Config::on_departure`].
    pub fn of_cache(&self, config: Config) -> Config {
        let observers = self.0.clone();
        config
            .on_departure_while(self.0.evictions_wanted.clone(), move |event| observers.saw_departure(&event))
    }
}

impl Observers {
    /// Whether anybody wants to see anything of these.
    #[inline]
    fn wants(&self, any_of: u8) -> bool {
        self.wanted.load(Ordering::Relaxed) & any_of != 0
    }

    pub(crate) fn set_detail(&self, on: bool) {
        match on {
            true => self.wanted.fetch_or(DETAIL, Ordering::Relaxed),
            false => self.wanted.fetch_and(!DETAIL, Ordering::Relaxed),
        };
    }

    pub(crate) fn is_detail_on(&self) -> bool {
        self.wants(DETAIL)
    }

    /// What is watched from now on; called with the list of watchers held, so that the last word is the newest.
    pub(super) fn set_watched(&self, kinds: u8) {
        self.wanted.fetch_and(kinds | DETAIL, Ordering::Relaxed);
        self.wanted.fetch_or(kinds, Ordering::Relaxed);
        self.evictions_wanted.store(kinds & EVICTIONS != 0, Ordering::Relaxed);
    }

    /// A key was asked for; with the length of its value, if there is one.
    #[inline]
    pub(crate) fn saw_get(&self, key: &[u8], value_bytes: Option<usize>) {
        if self.wants(DETAIL | FETCHERS) {
            self.look_at_get(key, value_bytes);
        }
    }

    #[cold]
    fn look_at_get(&self, key: &[u8], value_bytes: Option<usize>) {
        if self.is_detail_on() {
            self.prefixes.count(key, |counts| {
                counts.gets += 1;
                counts.hits += u64::from(value_bytes.is_some());
            });
        }
        let status = if value_bytes.is_some() { "found" } else { "not_found" };
        let rest = format_args!("status={status} size={}", value_bytes.unwrap_or(0));
        self.watchers.tell(FETCHERS, "item_get", Some(key), rest);
    }

    /// A storage command was executed.
    #[inline]
    pub(crate) fn saw_store(&self, key: &[u8], command: &str, status: &str, value_bytes: usize) {
        if self.wants(DETAIL | MUTATIONS) {
            self.look_at_store(key, command, status, value_bytes);
        }
    }

    #[cold]
    fn look_at_store(&self, key: &[u8], command: &str, status: &str, value_bytes: usize) {
        if self.is_detail_on() {
            self.prefixes.count(key, |counts| counts.sets += 1);
        }
        let rest = format_args!("status={status} cmd={command} size={value_bytes}");
        self.watchers.tell(MUTATIONS, "item_store", Some(key), rest);
    }

    /// A counter was changed.
    #[inline]
    pub(crate) fn saw_count(&self, key: &[u8], command: &str, number: u64) {
        if self.wants(MUTATIONS) {
            let size = number.to_string().len();
            let rest = format_args!("status=stored cmd={command} size={size}");
            self.watchers.tell(MUTATIONS, "item_store", Some(key), rest);
        }
    }

    /// A deletion was executed; whether there was such an item.
    #[inline]
    pub(crate) fn saw_delete(&self, key: &[u8], was_there: bool) {
        if self.wants(DETAIL | DELETIONS) {
            self.look_at_delete(key, was_there);
        }
    }

    #[cold]
    fn look_at_delete(&self, key: &[u8], was_there: bool) {
        if self.is_detail_on() {
            self.prefixes.count(key, |counts| counts.deletes += 1);
        }
        if was_there {
            self.watchers.tell(DELETIONS, "deleted", Some(key), "cmd=delete");
        }
    }

    fn saw_departure(&self, event: &Event) {
        if event.cause == Cause::Evicted && self.wants(EVICTIONS) {
            let rest = format_args!("size={}", event.value.len());
            self.watchers.tell(EVICTIONS, "eviction", Some(&event.key), rest);
        }
    }

    /// A client came.
    pub(crate) fn saw_connect(&self, address: &Address, descriptor: i32) {
        if self.wants(CONNEVENTS) {
            self.watchers.tell(
                CONNEVENTS,
                "conn_new",
                None,
                ConnectionLine { address, reason: "", descriptor },
            );
        }
    }

    /// A client went.
    pub(crate) fn saw_close(&self, address: &Address, descriptor: i32, reason: &str) {
        if self.wants(CONNEVENTS) {
            self.watchers.tell(
                CONNEVENTS,
                "conn_close",
                None,
                ConnectionLine { address, reason, descriptor },
            );
        }
    }
}

/// `rip=… rport=… transport=… [reason=…] cfd=…`.
struct ConnectionLine<'a> {
    address: &'a Address,
    reason: &'a str,
    descriptor: i32,
}

impl std::fmt::Display for ConnectionLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Address::Tcp(Some(address)) => {
                write!(f, "rip={} rport={} transport=tcp", address.ip(), address.port())?;
            }
            Address::Tcp(None) => f.write_str("rip=unknown rport=0 transport=tcp")?,
            Address::Unix(_) => f.write_str("rip=unix rport=0 transport=unix")?,
        }
        if !self.reason.is_empty() {
            write!(f, " reason={}", self.reason)?;
        }
        write!(f, " cfd={}", self.descriptor)
    }
}
