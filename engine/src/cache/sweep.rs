//! Sweeping when there is time: what writes do a bit at a time, done at once.
//!
//! Lives here: going over the shards. Not here: what is looked at (see `storage::sweep`).

use std::sync::atomic::Ordering;

use super::{Cache, Inner, ShardCell, is_inside_read};

/// How many looks are made while one shard is locked.
const LOOKS_A_LOCK: usize = 512;

impl Cache {
    /// Looks for items that have expired or were flushed and frees their memory: at most `looks_max` places where one
    /// may lie. Returns how many it looked at; 0 means that there is nothing to do by now.
    ///
    /// Nobody has to call this: each write does a bit of it. It is for whoever has time to spare, while nothing is
    /// written. A replica sweeps as its primary's writes arrive; there this does nothing, as from inside a read.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("motd", "hello", Expiry::Never)?;
    /// cache.flush()?;
    /// while cache.sweep(1000) > 0 {}
    /// assert_eq!(cache.stats().items, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sweep(&self, looks_max: usize) -> usize {
        self.inner.sweep(looks_max)
    }
}

impl Inner {
    /// A write's share, once it is done. Called by a primary only: what a replica sweeps is in `apply`.
    #[inline]
    pub(super) fn sweep_a_bit(&self, cell: &mut ShardCell) {
        if cell.shard.is_sweep_wanted(&self.floors) {
            self.sweep_some(cell);
        }
    }

    #[cold]
    fn sweep_some(&self, cell: &mut ShardCell) {
        cell.shard.sweep_a_bit(self.moment());
    }

    fn sweep(&self, looks_max: usize) -> usize {
        if is_inside_read() {
            return 0;
        }
        self.settle_flush();
        let (mut looks, mut idle_shards) = (0, 0);
        // Where the call before left off, so that small budgets come round to every shard.
        while looks < looks_max && idle_shards < self.shards.len() {
            let turn = self.sweep_turn.load(Ordering::Relaxed) % self.shards.len();
            let mut cell = self.shards[turn].lock();
            if !self.serving().reigns() {
                break;
            }
            let here_max = (looks_max - looks).min(LOOKS_A_LOCK);
            let here = cell.shard.sweep_all_due(here_max, self.moment());
            drop(cell);
            self.tell_events();
            looks += here;
            idle_shards = if here == 0 { idle_shards + 1 } else { 0 };
            // Another one next: whoever waits for this one would rarely find it free in between.
            self.sweep_turn.store(turn + 1, Ordering::Relaxed);
        }
        looks
    }
}

#[cfg(test)]
mod tests;
