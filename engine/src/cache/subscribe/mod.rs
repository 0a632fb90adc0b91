//! The change stream: every mutation in order, without a gap or with a word to start again.
//!
//! Lives here: [`Subscription`]. Not here: what is told (see `change`), where one stands (see `position`), waking (see
//! `sleepers`), the log itself (see `replication::log`).
//!
//! ```text
//!   (due) ──a position to begin at, no full copy under way──> Restart told ──> reading the log, batch by batch
//!     ^                                                                            │
//!     └───────── overtaken, rolled back behind it, copied anew ────────────────────┘
//! ```
//! A subscription is a cursor into the log that replicas read as well, and one batch of records. The log never waits for
//! it, and a writer only looks whether anybody sleeps. A change is told once reads see it, or something newer: the log is
//! written under the key's shard's lock, so passing through that lock behind it is enough.

mod change;
mod position;
mod sleepers;

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use crate::clock::Deadline;
use crate::mutation::Version;
use crate::replication::bug::Bug;
use crate::replication::log::{Cuts, Entry, Log, LogCursor, LogRead, first_entry};
use crate::replication::position::{Position as InHistory, Seq};

use super::{Cache, Group, Inner, is_inside_read};

pub use change::{Change, Effect, Restart};
pub use position::{Position, PositionError};
pub(crate) use sleepers::{Sleeper, Sleepers};

/// Bytes of records that are taken from the log in one go, under its lock; one record may be larger.
const BATCH_BYTES: usize = 16 << 10;

/// A thread that had a change just now looks so often, so far apart, before it has a writer wake it.
const LINGER_LOOKS: u32 = 5;
const LINGER: Duration = Duration::from_micros(200);

/// Why there is nothing to subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The cache keeps no log of its changes.
    NoLog,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::NoLog => write!(
                f,
                "this cache keeps no log of its changes; give its Config a ReplicationConfig, which has one \
                 (ReplicationConfig::primary() for a cache on its own; it needs no Replicator)"
            ),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// Why there is no change to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChange {
    /// None has happened, or the node is in the middle of a full copy.
    Yet,
    /// Every handle of the cache is gone: there will be no more.
    Closed,
}

impl Cache {
    /// Tells every mutation of this cache from a position on, in order and without a gap; where it can't, it says
    /// [`Effect::Restart`] first, and goes on from there. `None` begins with such a restart. It works on a primary and on a
    /// replica, and goes on through changes of role.
    ///
    /// The index of one's own that it is for: at a restart forget it and take in what [`Cache::iter`] gives; apply each
    /// other change in order. Once there are no more changes it has all that the cache holds. It may have more: that
    /// items expire is in their [`Effect::Put`], that they are evicted in no mutation
    /// ([`Config::on_departure`](crate::Config::on_departure) tells both). On a replica going through the cache needs
    /// [`replica_reads`](crate::ReplicationConfig::replica_reads).
    ///
    /// A subscription takes 16 KiB, or the largest record, besides what it has given; nobody waits for it. One that falls
    /// behind by more than the log holds ([`log_bytes_max`](crate::ReplicationConfig::log_bytes_max)) is told to start
    /// again.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Effect, Expiry, ReplicationConfig};
    /// let cache = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
    /// let mut changes = cache.subscribe(None)?;
    /// assert!(matches!(changes.try_next()?.effect, Effect::Restart(_)));
    /// cache.set("k", "v", Expiry::Never)?;
    /// let change = changes.try_next()?;
    /// assert!(matches!(change.effect, Effect::Put { key, .. } if key == "k"));
    /// // Later, or in another task: the same from where that one was.
    /// let mut changes = cache.subscribe(Some(change.position))?;
    /// cache.delete("k")?;
    /// assert!(matches!(changes.try_next()?.effect, Effect::Delete { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The cache was made without a [`ReplicationConfig`](crate::ReplicationConfig): then it keeps no log. One on its own
    /// gets it by [`ReplicationConfig::primary`](crate::ReplicationConfig::primary), and needs no
    /// [`Replicator`](crate::Replicator).
    pub fn subscribe(&self, from: impl Into<Option<Position>>) -> Result<Subscription, SubscribeError> {
        let group = self.inner.group.as_ref().ok_or(SubscribeError::NoLog)?;
        let id = group.roles.lock().incarnation();
        let mut log = group.log.lock();
        log.fills.want();
        let cuts = log.cuts();
        let (standing, due) = begin(&log, id, from.into());
        drop(log);
        Ok(Subscription {
            cache: Arc::downgrade(&self.inner),
            sleeper: Arc::new(Sleeper::new(&group.sleepers)),
            id,
            cuts,
            standing,
            due,
            batch: Batch::default(),
            has_just_given: false,
        })
    }
}

/// Where a subscription from this position stands, and what it has to be told first.
fn begin(log: &Log, id: u64, from: Option<Position>) -> (Option<Standing>, Option<Restart>) {
    let next_fill = log.fills.end();
    let Some(from) = from else {
        let standing = log.cursor_at_end().map(|cursor| Standing { cursor, next_fill });
        return (standing, Some(Restart::Beginning));
    };
    let at = from.in_history();
    let is_own = from.cache == id;
    if is_own && from.cuts != log.cuts() {
        return (None, Some(cut_since(from.cuts, log.cuts())));
    }
    if !log.lineage().contains(at) {
        return (None, Some(Restart::RolledBack));
    }
    let Some(cursor) = log.cursor_at(at) else { return (None, Some(Restart::Overtaken)) };
    if !is_own {
        return (Some(Standing { cursor, next_fill }), Some(Restart::OtherCache));
    }
    match log.fills.number_at(at.seq) {
        Some(next_fill) => (Some(Standing { cursor, next_fill }), None),
        None => (None, Some(Restart::Overtaken)),
    }
}

/// What happened to the log in between. A roll-back behind all that was told counts as well: who has gone through the cache
/// since has seen what is gone now.
fn cut_since(before: Cuts, now: Cuts) -> Restart {
    if before.restarts != now.restarts { Restart::Copied } else { Restart::RolledBack }
}

/// Every mutation of a cache in order, made by [`Cache::subscribe`].
///
/// Take changes without waiting ([`try_next`](Subscription::try_next)), with a time-out
/// ([`next_within`](Subscription::next_within)), as an iterator that waits, or in a task of any runtime
/// ([`poll_next`](Subscription::poll_next), [`changed`](Subscription::changed)). It does not keep the cache: once every
/// handle of that is gone the stream ends.
#[derive(Debug)]
pub struct Subscription {
    cache: Weak<Inner>,
    sleeper: Arc<Sleeper>,
    /// The cache's, in the positions that it gives.
    id: u64,
    /// The log's when `standing` was found.
    cuts: Cuts,
    /// `None` while a restart is due that goes on wherever the log ends by then.
    standing: Option<Standing>,
    due: Option<Restart>,
    batch: Batch,
    has_just_given: bool,
}

/// Behind what was read of the log, and of what came beside it.
#[derive(Debug, Clone, Copy)]
struct Standing {
    cursor: LogCursor,
    next_fill: u64,
}

/// Records of one branch, and how many bytes of them were told.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    told: usize,
    term: u32,
    at: InHistory,
}

impl Default for Batch {
    fn default() -> Batch {
        let at = InHistory { branch: crate::replication::position::Branch(0), seq: 0 };
        Batch { bytes: Vec::new(), told: 0, term: 0, at }
    }
}

impl Batch {
    /// The next record that changes an item, its place and version.
    fn next(&mut self) -> Option<(Effect, InHistory, Version)> {
        while self.told < self.bytes.len() {
            let (entry, rest) = first_entry(&self.bytes[self.told..]).expect("the log gives whole entries");
            self.told = self.bytes.len() - rest.len();
            let Entry::Record(record) = entry else { continue };
            self.at.seq += 1;
            if let Some(effect) = change::effect_of(record) {
                return Some((effect, self.at, Version::new(self.term, self.at.seq)));
            }
        }
        self.bytes = Vec::new();
        None
    }
}

/// What a look at the log has come to.
enum Look {
    /// The batch has something.
    Batch,
    /// An item that came beside the log.
    Fill(Effect, Version),
    /// The stream can't go on from where it stands.
    Broken(Restart),
    Nothing,
}

impl Subscription {
    /// The next change if there is one.
    ///
    /// # Errors
    /// There is none, yet or for ever.
    pub fn try_next(&mut self) -> Result<Change, NoChange> {
        let inner = self.cache.upgrade().ok_or(NoChange::Closed)?;
        let group = inner.group.as_ref().ok_or(NoChange::Closed)?;
        let change = self.look(&inner, group).ok_or(NoChange::Yet)?;
        self.has_just_given = true;
        Ok(change)
    }

    /// The next change; waits for it as long as `timeout`. Inside a read of an item it does not wait.
    ///
    /// A thread that takes changes as they come looks every 200 µs for a millisecond before it sleeps, so that it costs
    /// writers nothing while they write; a writer that finds it asleep wakes it.
    ///
    /// # Errors
    /// There was none in time, or there will be none for ever.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Change, NoChange> {
        let until = Deadline::after(timeout);
        let lingers = std::mem::take(&mut self.has_just_given);
        for _ in 0..if lingers { LINGER_LOOKS } else { 0 } {
            match self.try_next() {
                Err(NoChange::Yet) if !until.has_passed() && !is_inside_read() => thread::sleep(LINGER),
                found => return found,
            }
        }
        let sleeper = self.sleeper.clone();
        sleeper.wait(until, || match self.try_next() {
            Err(NoChange::Yet) if !until.has_passed() && !is_inside_read() => None,
            found => Some(found),
        })
    }

    /// The next change; the waker is called when there may be one. Ready with `None` once every handle of the cache is gone.
    /// It names no runtime.
    ///
    /// While changes come faster than the task takes them a writer pays nothing for it; a writer that finds it asleep
    /// calls its waker.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        match self.try_next() {
            Err(NoChange::Yet) => self.sleeper.sleep(cx.waker()),
            found => return Poll::Ready(found.ok()),
        }
        // One may have come before the waker was there.
        match self.try_next() {
            Err(NoChange::Yet) => Poll::Pending,
            found => Poll::Ready(found.ok()),
        }
    }

    /// The next change, in a task of any runtime; `None` once every handle of the cache is gone. Dropped before its end it
    /// has taken nothing.
    pub async fn changed(&mut self) -> Option<Change> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn look(&mut self, inner: &Inner, group: &Group) -> Option<Change> {
        loop {
            if let Some((effect, at, version)) = self.batch.next() {
                return Some(self.tell(inner, effect, at, version));
            }
            if self.due.is_some() {
                let (why, at, version) = self.restart(group)?;
                return Some(self.tell(inner, Effect::Restart(why), at, version));
            }
            match self.read(group) {
                Look::Batch => {}
                Look::Fill(effect, version) => {
                    let at = self.standing.map(|standing| standing.cursor.position)?;
                    return Some(self.tell(inner, effect, at, version));
                }
                Look::Broken(why) => {
                    (self.standing, self.due) = (None, Some(why));
                    if group.config.bugs.has(Bug::RestartsHidden) {
                        self.restart(group)?;
                    }
                }
                Look::Nothing => return None,
            }
        }
    }

    /// Finds a place to go on from, and says why there; `None` while there is none.
    fn restart(&mut self, group: &Group) -> Option<(Restart, InHistory, Version)> {
        let roles = group.roles.lock();
        if roles.installing {
            // What there is now is neither what was nor what will be.
            return None;
        }
        let log = group.log.lock();
        if log.cuts() != self.cuts && self.standing.take().is_some() {
            // It was to go on from where it began, and that is gone meanwhile.
            self.due = Some(cut_since(self.cuts, log.cuts()));
        }
        let standing = self.standing.or_else(|| {
            let (cursor, next_fill) = (log.cursor_at_end()?, log.fills.end());
            Some(Standing { cursor, next_fill })
        })?;
        self.cuts = log.cuts();
        self.standing = Some(standing);
        let at = standing.cursor.position;
        let term = log.lineage().find(at.branch).map_or(0, |entry| entry.term.0);
        Some((self.due.take()?, at, Version::new(term, at.seq)))
    }

    fn read(&mut self, group: &Group) -> Look {
        let log = group.log.lock();
        let Some(mut standing) = self.standing else { return Look::Broken(Restart::Beginning) };
        if log.cuts() != self.cuts {
            return Look::Broken(cut_since(self.cuts, log.cuts()));
        }
        let Ok(fill) = log.fills.get(standing.next_fill) else { return Look::Broken(Restart::Overtaken) };
        let seq_max = fill.map_or(Seq::MAX, |fill| fill.at_seq);
        let found = loop {
            match log.read(&mut standing.cursor, BATCH_BYTES, seq_max) {
                LogRead::Records { bytes, term, prev } => {
                    self.batch = Batch { bytes, told: 0, term: term.0, at: prev };
                    break Look::Batch;
                }
                LogRead::NewBranch(_) => {}
                LogRead::Overtaken => break Look::Broken(Restart::Overtaken),
                LogRead::AtEnd => {
                    let Some(fill) = fill else { break Look::Nothing };
                    standing.next_fill += 1;
                    match change::effect_of(&fill.record) {
                        Some(effect) => break Look::Fill(effect, fill.version),
                        None => break Look::Batch,
                    }
                }
            }
        };
        self.standing = Some(standing);
        found
    }

    /// Gives a change once reads see what it did.
    fn tell(&mut self, inner: &Inner, effect: Effect, at: InHistory, version: Version) -> Change {
        if !is_inside_read() {
            match &effect {
                Effect::Put { key, .. } | Effect::Touch { key, .. } | Effect::Delete { key } => {
                    drop(inner.cell(inner.hasher.hash(key)).lock());
                }
                Effect::Flush | Effect::FlushPrefix { .. } => drop(inner.shards[0].lock()),
                Effect::Restart(_) => inner.pass_all_shards(),
            }
        }
        let position = Position { branch: at.branch.0, seq: at.seq, cache: self.id, cuts: self.cuts };
        Change { position, version, effect }
    }
}

/// Waits for each change; ends once every handle of the cache is gone, and at once inside a read of an item if there is
/// none.
impl Iterator for Subscription {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            match self.next_within(Duration::MAX) {
                Ok(change) => return Some(change),
                Err(NoChange::Yet) if !is_inside_read() => {}
                Err(_) => return None,
            }
        }
    }
}

impl fmt::Display for NoChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoChange::Yet => write!(f, "there is no change yet"),
            NoChange::Closed => write!(f, "the cache is gone: there will be no more changes"),
        }
    }
}

impl std::error::Error for NoChange {}
