//! What an operator, or a fail-over manager, is told of a node's part in its group.
//!
//! Lives here: whether it may be promoted, what is wrong, the status. Not here: the words (see `warning`).

use super::Roles;
use crate::config::ReplicationConfig;
use crate::replication::status::{Role, Status};
use crate::replication::warning::Warning;

impl Roles {
    /// Whether a fail-over manager may promote this node; else why not.
    pub(crate) fn promotable(&self) -> Result<(), &'static str> {
        match self.role {
            Role::Primary => Ok(()),
            Role::Standalone => Err("started without replication"),
            Role::Replica | Role::Fenced if self.holder().is_some() => {
                Err("empty: it came up with nothing, and another node holds the group's items; see warnings")
            }
            Role::Fenced => {
                Err("fenced: it reigned before, another node may have since, and it has caught up with none")
            }
            Role::Replica if self.founds => Err("asking the other nodes whether they hold the group's items"),
            Role::Replica if self.is_quarantined() => {
                Err("quarantined: full copies of its primary failed again and again; see last_error")
            }
            Role::Replica if self.installing => Err("in the middle of a full copy"),
            Role::Replica if !self.has_data => Err("empty: it has followed no primary yet"),
            Role::Replica if self.young => Err(
                "its primary came up with nothing, and has stepped down for a node that holds the group's items",
            ),
            Role::Replica if !self.level => Err("not level: it lacks writes that its primary told of"),
            Role::Replica => Ok(()),
        }
    }

    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let no_listener = (self.is_driven && self.own_address.is_none()).then_some(Warning::NoListener);
        // Who follows it says so by that.
        let held = self.holder().filter(|_| self.upstream.is_none() && !self.noticed.fenced_by_deaf);
        let held = held.map(|holder| Warning::CameUpEmpty {
            address: holder.address.clone(),
            seq: holder.seq,
            listens: holder.listens,
        });
        let held_by_nobody = held.is_none();
        let is_lost = self.role == Role::Fenced && self.upstream.is_none() && !self.claims && held_by_nobody;
        let nobody = is_lost.then_some(Warning::NobodyToFollow {
            term: self.term_seen.0,
            no_listener: self.noticed.fenced_by_deaf,
        });
        let is_nothing = self.role == Role::Replica && !self.has_data && !self.founds && held_by_nobody;
        let unfounded = (is_nothing && self.noticed.nobody_reigns)
            .then(|| Warning::NobodyReigns { command: self.promote_command.clone() });
        let untold =
            (!self.unanswered.is_empty()).then(|| Warning::Untold { addresses: self.unanswered.clone() });
        let noticed = self.noticed.warnings();
        let told = self.told.iter().map(|address| Warning::NotFound { address: address.clone() });
        let of_reigns = held.into_iter().chain(nobody).chain(unfounded).chain(untold);
        no_listener.into_iter().chain(told).chain(of_reigns).chain(noticed).collect()
    }

    pub(crate) fn status(&self, config: &ReplicationConfig) -> Status {
        Status {
            role: self.role,
            term: self.term_seen.0,
            group: config.group.clone(),
            node: self.node,
            slot: self.slot,
            primary: self.primary_address(),
            depth: self.cascade.depth() as u8,
            link: self.link,
            ready: self.serving().answers_reads() && !self.installing,
            promotable: self.promotable(),
            quarantined: self.puts_copies_off(),
            copy_failures: self.quarantine.failures(),
            copy_pause_ms: self.quarantine.pause_ms(),
            replicas: self.replicas.clone(),
            level_replicas: self.level_replicas,
            within_budget: self.has_budget.then_some(self.within_budget),
            primary_ack_mode: self.primary_mode,
            installs: self.installs,
            catch_ups: self.catch_ups,
            roll_backs: self.roll_backs,
            rolled_back_keys: self.rolled_back_keys,
            log_waits: self.log_waits,
            rejects: self.rejects,
            last_error: self.last_error.clone(),
            warnings: self.warnings(),
            ..Status::standalone()
        }
    }
}
