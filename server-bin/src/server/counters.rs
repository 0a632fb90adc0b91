//! What the server counts, each worker for itself, summed when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::requests::{Requests, RequestsSnapshot};

macro_rules! counters {
    (by_class { $($(#[$by_doc:meta])* $by_name:ident),* $(,)? } $($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What one worker counts for one size class (rule G5).
        #[derive(Debug, Default)]
        pub(crate) struct ClassCounters {
            $(pub(crate) $by_name: Counter,)*
        }

        /// The sum of all workers' counters of one class.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct ClassCountersSnapshot {
            $(pub(crate) $by_name: u64,)*
        }

        impl ClassCountersSnapshot {
            /// Names and figures.
            pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($by_name), self.$by_name)),*].into_iter()
            }
        }

        /// One worker's counters: written by that worker only, read by anybody.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            by_class: ByClass,
            pub(crate) requests: Requests,
            /// Bytes of connections' buffers, now.
            pub(crate) buffer_bytes: Counter,
        }

        /// The sum of all workers' counters.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CountersSnapshot {
            $($(#[$by_doc])* pub $by_name: u64,)*
            $($(#[$doc])* pub $name: u64,)*
            /// Requests by command, and how long they took.
            pub requests: RequestsSnapshot,
            /// Bytes of connections' buffers, now.
            pub buffer_bytes: u64,
            /// Connections open now.
            pub curr_connections: u64,
            /// Connections accepted since the start.
            pub total_connections: u64,
            /// Connections refused for want of a place (rule L7).
            pub rejected_connections: u64,
            /// How often accepting paused, for want of descriptors or of places.
            pub listen_disabled_num: u64,
            /// Microseconds for which accepting paused.
            pub time_in_listen_disabled_us: u64,
            /// Whether accepting goes on now.
            pub accepting_conns: bool,
        }

        impl Counters {
            fn add_to(&self, sum: &mut CountersSnapshot) {
                $(sum.$name += self.$name.get();)*
                for class in &self.by_class.0 {
                    $(sum.$by_name += class.$by_name.get();)*
                }
                self.requests.add_to(&mut sum.requests);
                sum.buffer_bytes += self.buffer_bytes.get();
            }

            fn add_class_to(&self, number: usize, sum: &mut ClassCountersSnapshot) {
                let class = self.class(number);
                $(sum.$by_name += class.$by_name.get();)*
            }

            fn reset(&self) {
                $(self.$name.reset();)*
                for class in &self.by_class.0 {
                    $(class.$by_name.reset();)*
                }
                self.requests.reset();
            }
        }
    };
}

counters! {
    by_class {
        /// Keys found by get and gets.
        get_hits,
        /// Storage commands.
        cmd_set,
        /// Deletions of a present key.
        delete_hits,
        /// `incr` of a present key.
        incr_hits,
        /// `decr` of a present key.
        decr_hits,
        /// `cas` that stored.
        cas_hits,
        /// `cas` with another CAS.
        cas_badval,
        /// Keys found by touch, gat and gats.
        touch_hits,
    }
    /// Keys asked for by get and gets (rule R4).
    cmd_get,
    /// Keys touched, by touch, gat and gats (rule R4).
    cmd_touch,
    /// `flush_all` commands.
    cmd_flush,
    /// Meta commands.
    cmd_meta,
    /// Keys not found by get and gets.
    get_misses,
    /// Keys not found by touch, gat and gats.
    touch_misses,
    /// Deletions of an absent key.
    delete_misses,
    /// `incr` of an absent key.
    incr_misses,
    /// `decr` of an absent key.
    decr_misses,
    /// `cas` of an absent key.
    cas_misses,
    /// Values above the limit, thrown away as they came (rule L3).
    store_too_large,
    /// Logins that were tried.
    auth_cmds,
    /// Logins that failed.
    auth_errors,
    /// Bytes that clients sent.
    bytes_read,
    /// Bytes sent to clients.
    bytes_written,
    /// Connections that had more to do than one turn allows.
    conn_yields,
    /// Connections closed for being idle (rule L7).
    idle_kicks,
    /// Connections closed because a request took too long to come.
    slow_request_kicks,
    /// Requests that took longer than the slow log's bound (`--slow-log-ms`).
    slow_requests,
}

/// How many size classes there can be: the engine's bound.
const CLASSES_MAX: usize = 128;

/// Each class's counters. The sums of `stats` are made of them, so that they can't differ.
#[derive(Debug)]
struct ByClass([ClassCounters; CLASSES_MAX]);

impl Default for ByClass {
    fn default() -> Self {
        ByClass(std::array::from_fn(|_| ClassCounters::default()))
    }
}

impl Counters {
    /// The counters of a class, by its place among [`hotspare::Cache::class_stats`].
    #[inline]
    pub(crate) fn class(&self, number: usize) -> &ClassCounters {
        &self.by_class.0[number % CLASSES_MAX]
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        // One writer: a load and a store are enough, and cost no locked instruction. A reset may be lost to it.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Takes a new value: a gauge.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// All counters of a server.
#[derive(Debug)]
pub(crate) struct AllCounters {
    pub(crate) workers: Vec<Arc<CachePadded<Counters>>>,
    /// Those of the thread that answers datagrams.
    pub(crate) udp: Arc<CachePadded<Counters>>,
    pub(crate) curr_connections: AtomicU64,
    pub(crate) total_connections: AtomicU64,
    pub(crate) rejected_connections: AtomicU64,
    pub(crate) listen_disabled_num: AtomicU64,
    pub(crate) time_in_listen_disabled_us: AtomicU64,
    pub(crate) accepting_conns: AtomicBool,
}

impl AllCounters {
    pub(crate) fn new(workers: usize) -> AllCounters {
        AllCounters {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            udp: Arc::default(),
            curr_connections: AtomicU64::new(0),
            total_connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            listen_disabled_num: AtomicU64::new(0),
            time_in_listen_disabled_us: AtomicU64::new(0),
            accepting_conns: AtomicBool::new(true),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().chain([&self.udp]).map(|counters| &***counters)
    }

    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        let mut sum = CountersSnapshot {
            curr_connections: self.curr_connections.load(Ordering::Relaxed),
            total_connections: self.total_connections.load(Ordering::Relaxed),
            rejected_connections: self.rejected_connections.load(Ordering::Relaxed),
            listen_disabled_num: self.listen_disabled_num.load(Ordering::Relaxed),
            time_in_listen_disabled_us: self.time_in_listen_disabled_us.load(Ordering::Relaxed),
            accepting_conns: self.accepting_conns.load(Ordering::Relaxed),
            ..CountersSnapshot::default()
        };
        self.all().for_each(|counters| counters.add_to(&mut sum));
        sum
    }

    /// The counters of a class, by its place among [`hotspare::Cache::class_stats`].
    pub(crate) fn class(&self, number: usize) -> ClassCountersSnapshot {
        let mut sum = ClassCountersSnapshot::default();
        self.all().for_each(|counters| counters.add_class_to(number, &mut sum));
        sum
    }

    /// Zeroes the counters; gauges stay (rule G6).
    pub(crate) fn reset(&self) {
        self.all().for_each(Counters::reset);
        self.total_connections.store(0, Ordering::Relaxed);
        self.rejected_connections.store(0, Ordering::Relaxed);
        self.listen_disabled_num.store(0, Ordering::Relaxed);
        self.time_in_listen_disabled_us.store(0, Ordering::Relaxed);
    }
}
