//! Waiting until what was written is replicated.
//!
//! Lives here: the public side of acknowledgements, and the one judgement of what became of a write. Not here: modes
//! and who waits (see `replication::acks`), refusing writes beforehand (see `write`).

use std::future::Future;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Deadline;
use crate::mutation::Version;
use crate::replication::{AckMode, Acknowledgement, LinkState, PromoteError, Role, Written};

use super::group::LAST_WRITTEN;
use super::{Cache, Group};

impl Cache {
    /// What a write waits for before it counts as done; [`AckMode::Async`] without replication.
    pub fn ack_mode(&self) -> AckMode {
        self.inner.group.as_ref().map_or(AckMode::Async, Group::ack_mode)
    }

    /// Sets another mode while the cache is in use; this node's own, replicas keep theirs. Who waits is judged by the new
    /// mode. From more replicas to fewer is an operator's decision: the cache never makes it by itself. [`AckMode::Async`] lifts the
    /// budget as well, if there is one ([`ReplicationConfig::max_unacked_ms`](crate::ReplicationConfig::max_unacked_ms), or in
    /// bytes), until the cache is made anew: else a lone survivor would refuse writes for want of a replica.
    ///
    /// # Errors
    /// The cache was made without replication, or the call came from inside a read.
    pub fn set_ack_mode(&self, mode: AckMode) -> Result<(), PromoteError> {
        let group = self.inner.group_to_change()?;
        let gate = group.gate.lock();
        let mode = mode.bounded();
        group.acks.set_needed(mode.replicas());
        {
            let mut roles = group.roles.lock();
            (roles.acks_needed, roles.is_strict) = (mode.replicas(), mode.is_strict());
            if mode == AckMode::Async {
                roles.lift_budget();
            }
            roles.trusts_attached = true;
            // What was granted and acknowledged was so by the mode before. The wait of a node just promoted stays.
            group.lease.begin_anew();
            group.lease.set_strict(mode.is_strict());
        }
        self.inner.item_bytes_max.store(group.item_bytes_max(), Ordering::Relaxed);
        self.inner.publish_serving(group);
        drop(gate);
        group.acks.wake_all();
        tracing::info!(%mode, "acknowledgements were set");
        Ok(())
    }

    /// Runs writes to this cache, on this thread, and gives a token to wait for all that they wrote; `None` if nothing was
    /// written, or nothing is replicated. An operation that changed nothing (an `add` whose key is present) writes
    /// nothing; a deletion writes even if the key was absent.
    ///
    /// In strict it names what reads saw besides: an item that is not acknowledged is shown inside of `track` only, and only
    /// to be answered once the token is; outside it is a miss. An operation that changed nothing waits for all that was written
    /// before it.
    ///
    /// A write that was refused beforehand says so itself
    /// ([`WriteError::NotEnoughReplicas`](crate::WriteError::NotEnoughReplicas)). Of the others
    /// [`Cache::wait_acknowledged`] and [`Cache::acknowledgement`] tell the rest.
    ///
    /// ```
    /// # use hotspare::{Acknowledgement, AckMode, Cache, Config, Expiry, ReplicationConfig, WriteError};
    /// # use std::time::Duration;
    /// let cache = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
    /// let (stored, written) = cache.track(|| cache.set("k", "v", Expiry::Never));
    /// stored?;
    /// let written = written.expect("a set writes");
    /// // In async nothing is waited for.
    /// let outcome = cache.wait_acknowledged(written, Duration::from_millis(50));
    /// assert_eq!(outcome, Acknowledgement::Replicated { by: 0 });
    /// // In semi-sync, without a replica, nothing is written in the first place.
    /// cache.set_ack_mode(AckMode::SemiSync { replicas: 1 })?;
    /// let refused = cache.set("k", "w", Expiry::Never);
    /// assert_eq!(refused, Err(WriteError::NotEnoughReplicas { level: 0, needed: 1 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn track<R>(&self, writes: impl FnOnce() -> R) -> (R, Option<Written>) {
        LAST_WRITTEN.set(0);
        let result = Group::tracking(writes);
        let version = Version(LAST_WRITTEN.get());
        (result, (version != Version(0)).then_some(Written { version }))
    }

    /// What has become of a write by now. [`Acknowledgement::Unknown`] may change yet.
    pub fn acknowledged(&self, written: Written) -> Acknowledgement {
        match &self.inner.group {
            Some(group) => judge(group, written.version),
            None => Acknowledgement::Replicated { by: 0 },
        }
    }

    /// Waits until as many replicas as the mode asks for have applied a write, at most for so long. Needs no runtime, only a
    /// [`Replicator`](crate::Replicator) that is driven by another thread.
    pub fn wait_acknowledged(&self, written: Written, timeout: Duration) -> Acknowledgement {
        let look = || self.acknowledged(written);
        match &self.inner.group {
            None => look(),
            Some(group) => group.acks.wait(Deadline::after(timeout), look),
        }
    }

    /// Looks what has become of a write; while that may change, the waker is called at the next change.
    pub fn poll_acknowledged(&self, written: Written, cx: &mut Context<'_>) -> Poll<Acknowledgement> {
        self.wake_on_acknowledgement(cx.waker());
        match self.acknowledged(written) {
            outcome if outcome.is_open() => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }

    /// Ready when as many replicas as the mode asks for have applied a write, or never will. It names no runtime; a
    /// time-out is the caller's: dropped before its end, the outcome is what [`Cache::acknowledged`] says.
    pub fn acknowledgement(&self, written: Written) -> impl Future<Output = Acknowledgement> + use<> {
        let cache = self.clone();
        std::future::poll_fn(move |cx| cache.poll_acknowledged(written, cx))
    }

    /// Has the waker called once, when any write may have been acknowledged. For whoever waits for many writes: register,
    /// then look at all of them.
    pub fn wake_on_acknowledgement(&self, waker: &Waker) {
        if let Some(group) = &self.inner.group {
            group.acks.register(waker);
        }
    }
}

fn judge(group: &Group, version: Version) -> Acknowledgement {
    let roles = group.roles.lock();
    let is_in_history = group.log.lock().lineage().contains_version(version);
    let by = group.acks.count(version.seq());
    match roles.role() {
        Role::Primary if !is_in_history => Acknowledgement::Diverged,
        Role::Primary if by >= group.acks.needed() => Acknowledgement::Replicated { by },
        // Following: this node's history is its new primary's, and this node is the one replica that it knows to have it.
        Role::Replica if roles.link == LinkState::Streaming => match is_in_history {
            true if group.acks.needed() <= 1 => Acknowledgement::Replicated { by: 1 },
            true => Acknowledgement::Unknown { acked: 1 },
            false => Acknowledgement::Diverged,
        },
        _ => Acknowledgement::Unknown { acked: by },
    }
}
