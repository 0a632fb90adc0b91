//! Reading from a replica: how old its items may be, and waiting until it has what was written elsewhere.
//!
//! Lives here: the bound on staleness, and waiting for a version. Not here: whether a replica answers at all (see
//! `replication::roles`), how it learns what is settled (see `replication::replica`).

use std::future::Future;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::{Deadline, Millis};
use crate::mutation::Version;

use super::subscribe::Sleeper;
use super::{Cache, Group, is_inside_read};

/// Whether a node holds what was written at a version, or what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Applied {
    /// It does: a read shows nothing older. The key may be a miss.
    Reached,
    /// Not yet.
    Behind,
    /// It never will: another node reigns, and its history ends before that write.
    Diverged,
}

impl Group {
    /// How long ago this replica certainly had all that its primary had, if that is beyond the bound that was set.
    pub(super) fn too_stale_ms(&self, now_ms: Millis) -> Option<u64> {
        let bound_ms = self.config.replica_staleness_max_ms?;
        let behind_ms = now_ms.saturating_sub(self.settled_ms.load(Ordering::Acquire));
        (behind_ms > bound_ms).then_some(behind_ms)
    }

    /// The same, whatever the bound; `None` until its primary has told it of a moment.
    pub(super) fn stale_ms(&self, now_ms: Millis) -> Option<u64> {
        let settled_ms = self.settled_ms.load(Ordering::Acquire);
        (settled_ms > 0).then(|| now_ms.saturating_sub(settled_ms))
    }

    fn applied(&self, version: Version) -> Applied {
        let roles = self.roles.lock();
        if roles.installing {
            return Applied::Behind;
        }
        let log = self.log.lock();
        if log.lineage().contains_version(version) {
            Applied::Reached
        } else if log.lineage().has_passed(version) {
            Applied::Diverged
        } else {
            Applied::Behind
        }
    }
}

impl Cache {
    /// Whether this node holds what was written at this version, here or on another node of the group. Versions are those
    /// that writes and items have; a deletion's is [`Written::version`](crate::Written::version).
    ///
    /// ```
    /// # use hotspare::{Applied, Cache, Config, Expiry, ReplicationConfig};
    /// let cache = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
    /// let (deleted, written) = cache.track(|| cache.delete("k"));
    /// deleted?;
    /// // Elsewhere: not before the replica has it.
    /// assert_eq!(cache.applied(written.expect("it was written").version()), Applied::Reached);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn applied(&self, version: Version) -> Applied {
        match &self.inner.group {
            Some(group) => group.applied(version),
            None if version < self.inner.next_version() => Applied::Reached,
            None => Applied::Behind,
        }
    }

    /// Waits until this node holds what was written at this version, or never will, at most for so long. Inside a read of
    /// an item it does not wait. Needs a [`Replicator`](crate::Replicator) that is driven by another thread.
    ///
    /// A read behind [`Applied::Reached`] shows nothing older, as long as that write is not lost with a primary: ask again
    /// behind the read where that matters.
    pub fn wait_applied(&self, version: Version, timeout: Duration) -> Applied {
        let until = Deadline::after(timeout);
        let look = || Some(self.applied(version)).filter(|found| *found != Applied::Behind);
        let Some(group) = &self.inner.group else { return self.applied(version) };
        if let Some(found) = look() {
            return found;
        }
        let sleeper = Sleeper::new(&group.sleepers);
        let is_over = || until.has_passed() || is_inside_read();
        sleeper.wait(until, || look().or_else(|| is_over().then_some(Applied::Behind)))
    }

    /// Ready when this node holds what was written at this version, or never will. It names no runtime; a time-out is the
    /// caller's. Without replication it is ready at once.
    pub fn until_applied(&self, version: Version) -> impl Future<Output = Applied> + use<> {
        let cache = self.clone();
        let sleeper = self.inner.group.as_ref().map(|group| Sleeper::new(&group.sleepers));
        std::future::poll_fn(move |cx: &mut Context<'_>| {
            let Some(sleeper) = &sleeper else { return Poll::Ready(cache.applied(version)) };
            sleeper.sleep(cx.waker());
            match cache.applied(version) {
                Applied::Behind => Poll::Pending,
                found => Poll::Ready(found),
            }
        })
    }
}
