//! What a replica's session does to the cache.

use std::sync::atomic::Ordering;

use crate::cache::{Group, Inner};
use crate::replication::message::{Append, Chunk, Ghosts, HelloOk, InstallBegin, LoadAnswer, Relay};
use crate::replication::position::{Lineage, LineageEntry, Position, Seq, Term};
use crate::replication::replica::ReplicaStore;
use crate::replication::session::SessionEnd;
use crate::replication::{AckMode, Warning};

/// How far the group's clock is let back in one millisecond of this node's: 1/8. It stands still for so long meanwhile.
const SLEW_DIVISOR: u64 = 8;

/// Time that counts for that, at most, however long nobody has stated a clock: 64 ms are let back at once.
const SLEW_OVER_MS: u64 = 512;

/// A cache under its gate, for the time of one frame.
pub(crate) struct CacheStore<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) group: &'a Group,
    /// The address that was dialled.
    pub(crate) address: &'a str,
    /// Whether this is no primary's session, but one before this node reigns: its role and terms stay what they are.
    pub(crate) is_for_promotion: bool,
    /// When the clock was last set, on this node's clock.
    pub(crate) clock_set_at_ms: &'a mut Option<u64>,
}

impl ReplicaStore for CacheStore<'_> {
    fn position(&self) -> Option<Position> {
        let has_data = self.group.roles.lock().has_data;
        self.group.log.lock().position().filter(|_| has_data)
    }

    fn applied(&self) -> Seq {
        self.group.log.lock().last_seq()
    }

    fn term_seen(&self) -> Term {
        match self.is_for_promotion {
            true => self.group.log.lock().lineage().term(),
            false => self.group.roles.lock().term_seen,
        }
    }

    fn holds_items(&self) -> bool {
        self.inner.shards.iter().any(|cell| cell.lock().shard.item_count() > 0)
    }

    fn lineage(&self) -> Lineage {
        self.group.log.lock().lineage().clone()
    }

    fn attached(&mut self, ok: &HelloOk, term: Term) {
        if self.is_for_promotion {
            return;
        }
        self.group.desk.attached(ok.frame_bytes_max);
        self.group.roles.lock().attached_to(self.address, ok.node, term, ok.plan);
        self.inner.publish_serving(self.group);
        // What another primary did, and by which clock, says nothing of this one.
        self.group.settled_ms.store(0, Ordering::Relaxed);
        tracing::info!(primary = self.address, term = term.0, plan = ?ok.plan, "attached to the primary");
    }

    fn roll_back(&mut self, to: Position) -> Result<Vec<u64>, SessionEnd> {
        self.group.roles.lock().leave_history();
        let dropped = self.inner.roll_back(self.group, to).map_err(|_| SessionEnd::OutOfStep)?;
        self.group.roles.lock().rolled_back_keys += dropped.items;
        tracing::warn!(
            primary = self.address,
            items = dropped.items,
            seq = to.seq,
            "dropped what this node wrote alone: another node was promoted"
        );
        Ok(dropped.hashes)
    }

    fn is_copied_again(&mut self) -> bool {
        self.group.roles.lock().is_copied_again(self.inner.local_now_ms())
    }

    fn clear_some(&mut self) -> bool {
        self.group.roles.lock().begin_clearing();
        self.inner.publish_serving(self.group);
        self.inner.clear_some()
    }

    fn begin_install(&mut self, begin: &InstallBegin, hash_seed: u64) -> Result<(), SessionEnd> {
        *self.clock_set_at_ms = None;
        self.inner.begin_install(self.group, begin, hash_seed).map_err(|_| SessionEnd::OutOfStep)?;
        self.group.roles.lock().end_clearing();
        self.inner.publish_serving(self.group);
        Ok(())
    }

    fn end_install(&mut self) {
        self.inner.end_install();
        self.group.roles.lock().copy_complete(self.inner.local_now_ms());
        tracing::info!(primary = self.address, "full copy complete");
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.inner.hasher.hash(key)
    }

    fn log_waits(&mut self) {
        self.group.roles.lock().log_waits += 1;
    }

    fn apply_chunk(&mut self, chunk: &Chunk<'_>) -> Result<(), SessionEnd> {
        self.inner.apply_chunk(self.group, chunk.kind, &chunk.items).map_err(|_| SessionEnd::OutOfStep)
    }

    fn apply_ghosts(&mut self, ghosts: &Ghosts) -> Result<(), SessionEnd> {
        self.inner.apply_ghosts(ghosts).map_err(|_| SessionEnd::OutOfStep)
    }

    fn apply_append(&mut self, append: &Append<'_>) -> Result<Vec<u64>, SessionEnd> {
        self.inner.apply_append(self.group, append).map_err(|_| SessionEnd::OutOfStep)
    }

    fn follow_branch(&mut self, entry: LineageEntry) {
        self.group.log.lock().follow_branch(entry);
        let mut roles = self.group.roles.lock();
        roles.term_seen = roles.term_seen.max(entry.term);
    }

    fn apply_hints(&mut self, hashes: &[u64]) -> Vec<u64> {
        let (held, missing): (Vec<u64>, Vec<u64>) =
            hashes.iter().partition(|hash| self.inner.hint_by_hash(**hash));
        self.inner.pass_hints_on(&held);
        missing
    }

    /// Follows the primary's clock: forward at once, since a stated time is never ahead of the true one; back only
    /// by slewing, so that time never goes backwards and nothing un-expires.
    fn set_clock(&mut self, clock_ms: u64) {
        let local_ms = self.inner.local_now_ms();
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let stated = signed(clock_ms) - signed(local_ms);
        let current = self.inner.clock_offset_ms();
        let Some(set_at_ms) = self.clock_set_at_ms.replace(local_ms) else {
            return match self.group.roles.lock().has_data {
                true => self.inner.set_clock_offset_ms(stated.max(current)),
                // With nothing held there is nothing to come back: a clock of its own is worth nothing.
                false => self.inner.adopt_clock_offset_ms(stated),
            };
        };
        let allowance = (local_ms.saturating_sub(set_at_ms).min(SLEW_OVER_MS) / SLEW_DIVISOR) as i64;
        self.inner.set_clock_offset_ms(stated.max(current - allowance));
        if allowance == 0 && stated < current {
            // Too little time has passed to slew by a whole millisecond: let it gather.
            *self.clock_set_at_ms = Some(set_at_ms);
        }
    }

    fn grant_lease(&mut self) {
        if !self.is_for_promotion {
            self.group.lease.grant(self.inner.lease_now_ms());
            self.group.roles.lock().granted_lease();
        }
    }

    fn settle(&mut self, clock_ms: u64) {
        if !self.is_for_promotion {
            // Behind what was applied.
            self.group.settled_ms.store(clock_ms, Ordering::Release);
        }
    }

    fn learn_peers(&mut self, peers: &[String]) {
        self.group.roles.lock().learn_peers_of_upstream(peers);
    }

    fn relayed(&mut self, relay: &Relay) -> Result<(), SessionEnd> {
        let mut roles = self.group.roles.lock();
        let node = roles.node;
        roles.cascade.take(relay, node)
    }

    fn mode_told(&mut self, mode: AckMode) {
        let mut roles = self.group.roles.lock();
        if self.is_for_promotion || roles.primary_mode.replace(mode) == Some(mode) {
            return;
        }
        if let Some(warning) = Warning::of_modes(roles.ack_mode(), mode, self.address) {
            tracing::warn!("{warning}");
        }
    }

    fn set_level(&mut self, level: bool) {
        if !self.is_for_promotion {
            self.group.roles.lock().level = level;
        }
    }

    fn load_answered(&mut self, answer: LoadAnswer) {
        if !self.is_for_promotion {
            self.inner.load_answered(self.group, answer);
        }
    }
}
