//! What goes wrong in a simulated group, step by step, and what operators do about it; then nothing goes wrong any more.
//!
//! Not here: what must hold meanwhile and in the end (see `checks`).

use std::time::Duration;

use hotspare::{LinkState, ReplicationConfig, Role, Warning};
use rand::RngExt;

use super::world::{Node, World};
use super::{NAMES, Setting};

/// Rounds without any fault in which all must come to rest.
const HEALING_ROUNDS_MAX: usize = 4_000;

/// In one of so many steps a node is stopped, and for how long at most: about 4 ms pass in a step.
const STOPS_ONE_IN: u32 = 200;
const STOPPED_STEPS_MAX: usize = 1_000;

impl World {
    pub(super) fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..300 => self.client_write(),
            300..400 => self.client_read(),
            400..700 => {
                let node = self.any_node();
                if self.runs(node) {
                    self.poll(node);
                }
            }
            700..940 => self.deliver_some(),
            940..980 => self.clocks.advance_ms(self.random.random_range(1..200)),
            980..985 => self.cut(),
            985..991 => self.block(),
            991..994 => self.crash(),
            994..996 => self.hand_over(),
            _ => self.promote_somebody(),
        }
    }

    /// Nodes that are stopped go on by and by, and at times another one is stopped.
    pub(super) fn stall(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.stopped = node.stopped.saturating_sub(1));
        if self.setting.stalls && self.one_in(STOPS_ONE_IN) {
            let index = self.any_node();
            self.nodes[index].stopped = self.random.random_range(10..STOPPED_STEPS_MAX);
            self.summary.pauses += 1;
        }
    }

    pub(super) fn cut(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        self.network.cut(NAMES[one], NAMES[other]);
        self.summary.cuts += 1;
    }

    pub(super) fn block(&mut self) {
        let (one, other) = (self.any_node(), self.any_node());
        let blocked = self.one_in(3);
        self.network.set_blocked(NAMES[one], NAMES[other], blocked);
    }

    /// Memory lost; the node comes back at once, mostly as a follower, at times as a primary that forgot.
    pub(super) fn crash(&mut self) {
        let index = self.any_node();
        let was_primary = self.nodes[index].cache.status().role == Role::Primary;
        // A group that promises something has nobody begin it a second time.
        let Setting { semi_sync, skewed_clocks, .. } = self.setting;
        let forgot = was_primary && self.one_in(2) && !semi_sync && !skewed_clocks;
        let forgot = if self.setting.reborn { index == 0 } else { forgot || self.setting.founds };
        if forgot {
            self.readers.stop();
        }
        let begins = if forgot { ReplicationConfig::primary() } else { self.follower(index) };
        self.restart(index, begins);
        self.summary.crashes += 1;
    }

    pub(super) fn restart(&mut self, index: usize, begins: ReplicationConfig) {
        self.network.remove(NAMES[index]);
        self.nodes[index].replicator = None;
        self.clocks.restart(index);
        self.nodes[index] = self.boot(index, begins);
        self.oracle.forget_node(index);
    }

    pub(super) fn hand_over(&mut self) {
        let index = self.any_node();
        if self.nodes[index].stopped > 0 {
            return;
        }
        // Refused by a node that is no primary, or has no level replica.
        let _ = self.nodes[index].cache.begin_hand_over(Duration::from_millis(500));
    }

    pub(super) fn promote_somebody(&mut self) {
        let index = self.any_node();
        let cache = self.nodes[index].cache.clone();
        let status = cache.status();
        if self.nodes[index].stopped > 0 {
            return;
        }
        if self.setting.reborn || self.setting.founds {
            return self.promote_unforced(index, &status);
        }
        if self.setting.errs && status.role == Role::Replica && status.seq == 0 {
            // Asked for or refused; a poll may find it promoted.
            assert!(!matches!(cache.begin_promotion(false), Ok(Some(_))), "it asked nobody");
            self.summary.empty_candidates[0] += 1;
            return;
        }
        if status.role == Role::Replica && status.promotable.is_ok() {
            self.oracle.set_newest_ms(self.newest_ms("before a promotion"));
            self.oracle.check_node(index, &cache.inspect(), "before a promotion");
            let begun = cache.begin_promotion(false).expect("it is promotable");
            if begun.is_none() {
                // It asks others first; a poll may find it promoted.
                return;
            }
            self.oracle.check_node(index, &cache.inspect(), "P7, after a promotion");
            self.note_promotion(index);
            self.check_promises(index);
            self.summary.promotions += 1;
        }
    }

    /// No more faults: P9 says that all nodes stream again within a bound.
    pub(super) fn heal(&mut self, seed: u64) {
        self.heals = true;
        self.nodes.iter_mut().for_each(|node| node.stopped = 0);
        for one in self.names() {
            for other in self.names() {
                self.network.set_blocked(one, other, false);
            }
        }
        for round in 0..HEALING_ROUNDS_MAX {
            (0..self.setting.nodes).for_each(|index| self.poll(index));
            self.network.deliver_all();
            self.clocks.advance_ms(20);
            self.finish_loads().unwrap_or_else(|why| panic!("{why}; seed {seed}, healing"));
            if round % 500 == 499 {
                self.promote_best();
            }
            if round % 1_000 == 999 {
                self.restart_stranded();
                self.end_rivalry();
            }
            if self.is_at_rest() && self.loaders.are_answered() {
                return;
            }
        }
        let states: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        panic!("P9: seed {seed}: not at rest after {HEALING_ROUNDS_MAX} rounds: {states:#?}");
    }

    /// What an operator does when nobody reigns: the node that holds most takes over.
    pub(super) fn promote_best(&mut self) {
        let reigns = |node: &Node| node.cache.status().role == Role::Primary;
        if self.nodes.iter().any(reigns) {
            return;
        }
        let best = self.nodes.iter().enumerate().max_by_key(|(_, node)| {
            let inspection = node.cache.inspect();
            let status = node.cache.status();
            let whole = status.ready || status.role == Role::Fenced;
            (whole, inspection.lineage.last().map(|(term, _, _, last)| (*term, *last)))
        });
        if let Some((index, node)) = best {
            if !(node.cache.status().ready || node.cache.status().role == Role::Fenced) {
                self.oracle.allow_misses();
            }
            node.cache.promote(true).expect("force overrules");
            self.summary.promotions += 1;
            self.note_promotion(index);
            self.check_promises(index);
        }
    }

    /// What an operator does with a node that believes a term whose other holders are all gone, while somebody else
    /// reigns: its status says so, and a restart makes it forget. So does one for a primary that nobody follows, beside
    /// one that has followers: without a secret neither can tell the other's term from an invented one.
    pub(super) fn restart_stranded(&mut self) {
        let statuses: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        let followed = statuses.iter().filter(|status| !status.replicas.is_empty());
        let followed_term = followed.map(|status| status.term).max().unwrap_or(0);
        for (index, status) in statuses.into_iter().enumerate() {
            let is_cut_off = status.role != Role::Primary && status.link == LinkState::Connecting;
            let is_left = status.role == Role::Primary
                && status.replicas.is_empty()
                && followed_term > 0
                && status.term != followed_term;
            if is_cut_off || is_left {
                self.restart(index, self.follower(index));
            }
        }
    }

    /// What an operator does with primaries that say of each other that they reign, and that nobody follows: of two the one
    /// that has the newer term stays, and the other is told to follow it, as the warning says.
    pub(super) fn end_rivalry(&mut self) {
        let statuses: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        if statuses.iter().any(|status| !status.replicas.is_empty()) {
            return;
        }
        let names = |of: usize, other: usize| {
            let is_it = |warning: &Warning| matches!(warning, Warning::Rival { address, .. } if address == NAMES[other]);
            statuses[of].warnings.iter().any(is_it)
        };
        for (index, status) in statuses.iter().enumerate().filter(|(_, status)| status.role == Role::Primary)
        {
            let above = statuses.iter().enumerate().filter(|(other, above)| {
                above.role == Role::Primary
                    && above.term > status.term
                    && (names(index, *other) || names(*other, index))
            });
            if let Some((stays, _)) = above.max_by_key(|(_, above)| above.term) {
                self.nodes[index].cache.follow(NAMES[stays], true).expect("force overrules");
            }
        }
    }
}
