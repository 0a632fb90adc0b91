//! `watch` (rule G8): what happens in the server, line by line, to those who asked for it.
//!
//! Each watcher has a queue of bounded size that any thread appends to and the watcher's worker empties. A queue that is
//! full loses lines; its reader learns how many.
//!
//! Lives here: the words, the lines, the queues. Not here: whether anybody watches (see `observers`), the socket (see
//! `connection`).

use std::fmt::{self, Display};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hotspare_memcached::classic::Tokens;
use mio::Waker;

use super::Shared;
use super::administration::line;
use super::commands::{Executor, Flow, Progress};
use super::crawler::write_uri_encoded;
use super::observers::Observers;

/// Kinds of events, each a bit.
pub(super) const FETCHERS: u8 = 1;
pub(super) const MUTATIONS: u8 = 2;
pub(super) const EVICTIONS: u8 = 4;
pub(super) const CONNEVENTS: u8 = 8;
pub(super) const DELETIONS: u8 = 16;

/// memcached's bound.
const WATCHERS_MAX: usize = 20;

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: Mutex<Vec<Arc<Watcher>>>,
    last_gid: AtomicU64,
    lines_queued: AtomicU64,
    lines_skipped: AtomicU64,
}

/// For `stats`.
pub(super) struct WatcherCounts {
    pub(super) watchers: u64,
    pub(super) queued: u64,
    pub(super) skipped: u64,
}

/// One who watches.
pub(super) struct Watcher {
    kinds: u8,
    /// The queue's bound, in bytes.
    queue_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Wakes the worker that has the connection.
    waker: OnceLock<Arc<Waker>>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    skipped: u64,
    /// Whether the worker has been woken since it last came by.
    is_told: bool,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held, and what they hold is sound after anything.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    fn push(&self, text: &[u8]) -> bool {
        let mut queue = lock(&self.queue);
        if queue.bytes.len() + text.len() > self.queue_bytes_max {
            queue.skipped += 1;
            return false;
        }
        queue.bytes.extend_from_slice(text);
        if !std::mem::replace(&mut queue.is_told, true)
            && let Some(waker) = self.waker.get()
        {
            // If the poller is gone the connection is, too.
            let _ = waker.wake();
        }
        true
    }
}

impl Watchers {
    /// What any of them wants.
    fn kinds(list: &[Arc<Watcher>]) -> u8 {
        list.iter().fold(0, |kinds, watcher| kinds | watcher.kinds)
    }

    pub(super) fn counts(&self) -> WatcherCounts {
        WatcherCounts {
            watchers: lock(&self.list).len() as u64,
            queued: self.lines_queued.load(Ordering::Relaxed),
            skipped: self.lines_skipped.load(Ordering::Relaxed),
        }
    }

    /// Tells those who want this kind. `rest` is what stands behind the key.
    #[cold]
    pub(super) fn tell(&self, kind: u8, name: &str, key: Option<&[u8]>, rest: impl Display) {
        let list = lock(&self.list);
        if list.iter().all(|watcher| watcher.kinds & kind == 0) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let gid = self.last_gid.fetch_add(1, Ordering::Relaxed) + 1;
        let mut text = Vec::with_capacity(160);
        // Writing to a vector can't fail.
        let _ = write!(text, "ts={}.{:06} gid={gid} type={name}", now.as_secs(), now.subsec_micros());
        if let Some(key) = key {
            text.extend_from_slice(b" key=");
            write_uri_encoded(key, &mut text);
        }
        let _ = writeln!(text, " {rest}");
        for watcher in list.iter().filter(|watcher| watcher.kinds & kind != 0) {
            let count = if watcher.push(&text) { &self.lines_queued } else { &self.lines_skipped };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection's part in it: it ends the watch when it is dropped.
pub(crate) struct Watch {
    watcher: Arc<Watcher>,
    observers: Arc<Observers>,
}

impl Watch {
    /// `None` if there are too many already.
    fn begin(observers: &Arc<Observers>, kinds: u8, queue_bytes_max: usize) -> Option<Watch> {
        let watcher =
            Arc::new(Watcher { kinds, queue_bytes_max, queue: Mutex::default(), waker: OnceLock::new() });
        let mut list = lock(&observers.watchers.list);
        if list.len() >= WATCHERS_MAX {
            return None;
        }
        list.push(watcher.clone());
        observers.set_watched(Watchers::kinds(&list));
        Some(Watch { watcher, observers: observers.clone() })
    }

    /// Who wakes the worker that has the connection. What came before has woken nobody.
    pub(super) fn set_waker(&self, waker: &Arc<Waker>) {
        // A connection stays with its worker.
        let _ = self.watcher.waker.set(waker.clone());
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        let queue = lock(&self.watcher.queue);
        queue.bytes.is_empty() && queue.skipped == 0
    }

    /// Moves what is queued to the connection's output.
    pub(super) fn take(&self, out: &mut Vec<u8>) {
        let mut queue = lock(&self.watcher.queue);
        out.append(&mut queue.bytes);
        let skipped = std::mem::take(&mut queue.skipped);
        if skipped > 0 {
            // Writing to a vector can't fail.
            let _ = writeln!(out, "skipped={skipped}");
        }
        queue.is_told = false;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut list = lock(&self.observers.watchers.list);
        list.retain(|other| !Arc::ptr_eq(other, &self.watcher));
        self.observers.set_watched(Watchers::kinds(&list));
    }
}

impl Executor<'_> {
    /// `watch` (rule G8).
    pub(super) fn watch(&self, words: Tokens<'_>, progress: &mut Progress, out: &mut Vec<u8>) -> Flow {
        let text: &[u8] = if !self.shared.settings.watch_enabled {
            b"CLIENT_ERROR watch commands not allowed"
        } else if progress.is_pipelined {
            b"ERROR cannot pipeline other commands before watch"
        } else {
            let Shared { operator, settings, .. } = self.shared;
            let begin = |kinds| Watch::begin(&operator.observers, kinds, settings.watcher_queue_bytes_max);
            match kinds(words).map(begin) {
                Some(Some(watch)) => {
                    line(out, b"OK");
                    return Flow::Watch(watch);
                }
                Some(None) => b"WATCHER_TOO_MANY log watcher limit reached",
                None => b"ERROR",
            }
        };
        line(out, text);
        Flow::Next
    }
}

/// The kinds that the words name; without words, fetchers. A proxy's kinds are known, and nothing of them happens here.
fn kinds(words: Tokens<'_>) -> Option<u8> {
    if words.iter().next().is_none() {
        return Some(FETCHERS);
    }
    words.iter().try_fold(0, |kinds, word| {
        Some(
            kinds
                | match word {
                    b"fetchers" => FETCHERS,
                    b"mutations" => MUTATIONS,
                    b"evictions" => EVICTIONS,
                    b"connevents" => CONNEVENTS,
                    b"deletions" => DELETIONS,
                    b"proxyreqs" | b"proxyevents" | b"proxyuser" => 0,
                    _ => return None,
                },
        )
    })
}
