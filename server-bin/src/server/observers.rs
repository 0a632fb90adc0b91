//! Those who look on while commands are executed: `stats detail`, and whoever watches.
//!
//! Lives here: the one question that each command asks, whether anybody looks. Not here: what they make of what they
//! see (see `prefixes`, `watch`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hotspare::{Attributes, Cause, Config, Event, Expiry};
use hotspare_memcached::classic::Direction;

use super::Shared;
use super::commands::Executor;
use super::prefixes::Prefixes;
use super::registry::Address;
use super::watch::{CONNEVENTS, DELETIONS, EVICTIONS, FETCHERS, MUTATIONS, Watchers};

/// `stats detail` is on; a bit that no kind of watching has.
const DETAIL: u8 = 1 << 7;

/// A storage command that was executed.
pub(crate) struct SeenStore<'a> {
    pub(crate) command: &'a str,
    /// memcached's word for what became of it.
    pub(crate) status: &'a str,
    pub(crate) value_bytes: usize,
    pub(crate) attributes: Attributes,
}

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
    /// A configuration whose cache keeps what operators ask for ([`Config::accounting`]), counts CAS as memcached does (rule C1) and tells `watch evictions`. It costs a load for each item that leaves while nobody
    /// watches. It takes the place of another [`Config::on_departure`].
    pub fn of_cache(&self, config: Config) -> Config {
        let observers = self.0.clone();
        config
            .accounting(true)
            .versions_in_order(true)
            .on_departure_while(self.0.evictions_wanted.clone(), move |event| observers.saw_departure(&event))
    }
}

impl Observers {
    /// Whether anybody wants to see anything of these.
    #[inline]
    fn wants(&self, any_of: u8) -> bool {
        self.wanted.load(Ordering::Relaxed) & any_of != 0
    }

    /// Whether anybody wants to know of keys that are asked for.
    #[inline]
    pub(super) fn wants_gets(&self) -> bool {
        self.wants(DETAIL | FETCHERS)
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

    fn saw_departure(&self, event: &Event) {
        if event.cause == Cause::Evicted && self.wants(EVICTIONS) {
            let fetch = if event.is_fetched { "yes" } else { "no" };
            let ttl = event.expires_at_ms.map_or(-1, remaining_s);
            let (class, bytes) = (event.class + 1, event.value.len());
            let la =
                event.accessed_s.map_or(0, |moment_s| (unix_ms() / 1000).saturating_sub(moment_s.into()));
            let rest = format_args!("fetch={fetch} ttl={ttl} la={la} clsid={class} size={bytes}");
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

/// Seconds from now to a moment in milliseconds.
fn remaining_s(moment_ms: u64) -> i64 {
    i64::try_from(u128::from(moment_ms).saturating_sub(unix_ms()).div_ceil(1000)).unwrap_or(i64::MAX)
}

fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

/// What commands tell. Each asks first whether anybody wants to know.
impl Executor<'_> {
    /// A key was asked for; with the value's length and the item's class, if there is one.
    #[inline]
    pub(crate) fn saw_get(&self, key: &[u8], found: Option<(usize, usize)>) {
        if self.shared.operator.observers.wants_gets() {
            self.look_at_get(key, found);
        }
    }

    #[cold]
    fn look_at_get(&self, key: &[u8], found: Option<(usize, usize)>) {
        let observers = &self.shared.operator.observers;
        if observers.is_detail_on() {
            observers.prefixes.count(key, |counts| {
                counts.gets += 1;
                counts.hits += u64::from(found.is_some());
            });
        }
        let status = if found.is_some() { "found" } else { "not_found" };
        let (size, class) = found.map_or((0, 0), |(bytes, class)| (bytes, class + 1));
        let rest = format_args!("status={status} clsid={class} cfd={} size={size}", self.descriptor);
        observers.watchers.tell(FETCHERS, "item_get", Some(key), rest);
    }

    /// A storage command was executed.
    #[inline]
    pub(crate) fn saw_store(&self, key: &[u8], seen: SeenStore<'_>) {
        if self.shared.operator.observers.wants(DETAIL | MUTATIONS) {
            self.look_at_store(key, &seen);
        }
    }

    /// A value was refused before it came whole.
    pub(crate) fn saw_too_large(&self, key: &[u8], command: &str) {
        let attributes = Expiry::Never.into();
        self.saw_store(key, SeenStore { command, status: "too_large", value_bytes: 0, attributes });
    }

    #[cold]
    fn look_at_store(&self, key: &[u8], seen: &SeenStore<'_>) {
        let Shared { operator, cache, .. } = self.shared;
        if operator.observers.is_detail_on() {
            operator.observers.prefixes.count(key, |counts| counts.sets += 1);
        }
        let SeenStore { command, status, value_bytes, attributes } = *seen;
        let (class, ttl) =
            (cache.class_of(key.len(), value_bytes, attributes) + 1, self.lifetime_s(attributes));
        let descriptor = self.descriptor;
        let rest = format_args!(
            "status={status} cmd={command} ttl={ttl} clsid={class} cfd={descriptor} size={value_bytes}"
        );
        operator.observers.watchers.tell(MUTATIONS, "item_store", Some(key), rest);
    }

    /// Seconds to live; 0 is for ever, as memcached writes it.
    fn lifetime_s(&self, attributes: Attributes) -> u64 {
        match attributes.expiry {
            Expiry::Never => 0,
            Expiry::After(lifetime) => lifetime.as_secs(),
            Expiry::At(moment) => moment.saturating_sub(self.shared.cache.now_ms()).div_ceil(1000),
        }
    }

    /// A counter was changed.
    #[inline]
    pub(crate) fn saw_count(&self, key: &[u8], direction: Direction, number: u64) {
        if self.shared.operator.observers.wants(MUTATIONS) {
            let command = if direction == Direction::Up { "incr" } else { "decr" };
            let (size, class) = (number.to_string().len(), self.shared.cache.class_found() + 1);
            let descriptor = self.descriptor;
            let rest = format_args!("status=stored cmd={command} clsid={class} cfd={descriptor} size={size}");
            self.shared.operator.observers.watchers.tell(MUTATIONS, "item_store", Some(key), rest);
        }
    }

    /// A deletion was executed; whether there was such an item.
    #[inline]
    pub(crate) fn saw_delete(&self, key: &[u8], was_there: bool) {
        if self.shared.operator.observers.wants(DETAIL | DELETIONS) {
            self.look_at_delete(key, was_there);
        }
    }

    #[cold]
    fn look_at_delete(&self, key: &[u8], was_there: bool) {
        let observers = &self.shared.operator.observers;
        if observers.is_detail_on() {
            observers.prefixes.count(key, |counts| counts.deletes += 1);
        }
        if was_there {
            let (class, descriptor) = (self.shared.cache.class_found() + 1, self.descriptor);
            let rest = format_args!("cmd=delete clsid={class} cfd={descriptor}");
            observers.watchers.tell(DELETIONS, "deleted", Some(key), rest);
        }
    }
}

/// `rip=… rport=… transport=… [reason=…] cfd=…`, from an address as `stats conns` writes it.
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
            Address::Udp(_) => f.write_str("rip=unknown rport=0 transport=udp")?,
            Address::Unix(_) => f.write_str("rip=unix rport=0 transport=local")?,
        }
        if !self.reason.is_empty() {
            write!(f, " reason={}", self.reason)?;
        }
        write!(f, " cfd={}", self.descriptor)
    }
}
