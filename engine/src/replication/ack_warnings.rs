//! What an operator should know of a node's ack mode: that it can't be met now, or that others go by another one.
//!
//! Lives here: the judgement of one status, in words. Not here: the log of what happens (the driver's).

use super::acks::AckMode;
use super::lease::LeaseState;
use super::status::{Role, Status};

impl Status {
    /// All that an operator should look at, in words: [`Status::warnings`] and [`Status::ack_warnings`].
    pub fn warning_lines(&self) -> Vec<String> {
        self.warnings.iter().map(ToString::to_string).chain(self.ack_warnings()).collect()
    }

    /// What is wrong with ack modes as far as this node can tell, in words, each with what to do; empty if all is well. It says what is so now: whether that lasts, only asking again tells.
    pub fn ack_warnings(&self) -> Vec<String> {
        let refusal = (self.role == Role::Primary).then(|| self.refusal()).flatten();
        let replicas = self.replicas.iter().map(|replica| (&*replica.address, replica.ack_mode));
        let above = self.primary.as_deref().unwrap_or("the primary");
        let modes = replicas.chain([(above, self.primary_ack_mode)]);
        let others = modes.filter_map(|(address, mode)| mode_differs(self.ack_mode, mode?, address));
        refusal.into_iter().chain(others).collect()
    }

    /// Why this primary refuses writes, if that is for want of replicas.
    fn refusal(&self) -> Option<String> {
        let (mode, needed) = (self.ack_mode, self.ack_mode.replicas());
        (self.level_replicas < needed).then(|| {
            let reads = if self.lease.state == LeaseState::Over { ", and reads are misses" } else { "" };
            format!(
                "writes are refused{reads}: the ack mode {mode} needs {needed} level replicas, and of {} attached {} are \
                 level; attach more, or set another mode (hotspare ack MODE)",
                self.replicas.len(),
                self.level_replicas
            )
        })
    }
}

/// That a peer goes by another mode, in words; `None` if it does not.
pub(crate) fn mode_differs(ours: AckMode, theirs: AckMode, address: &str) -> Option<String> {
    (ours != theirs).then(|| {
        format!(
            "the ack mode here is {ours}, and {theirs} at {address}: whoever is promoted goes by its own; give every node the \
             same --ack"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_refuses_writes_and_unlike_modes_are_told_of_and_nothing_else() {
        let semi_sync = |replicas| AckMode::SemiSync { replicas };
        let primary = |mode| Status { role: Role::Primary, ack_mode: mode, ..Status::standalone() };
        assert_eq!(Status::standalone().ack_warnings(), Vec::<String>::new());
        assert_eq!(primary(AckMode::Async).ack_warnings(), Vec::<String>::new());
        let level = Status { level_replicas: 2, ..primary(semi_sync(2)) };
        assert_eq!(level.ack_warnings(), Vec::<String>::new());
        let short = Status { level_replicas: 1, ..primary(semi_sync(9)) }.ack_warnings();
        assert!(
            matches!(&*short, [only] if only.contains("semi-sync:9 needs 9 level replicas")),
            "{short:?}"
        );
        let replica = Status { role: Role::Replica, ack_mode: semi_sync(9), ..Status::standalone() };
        assert_eq!(replica.ack_warnings(), Vec::<String>::new());
        let strict = AckMode::Strict { replicas: 1 };
        let told = Status { primary_ack_mode: Some(strict), ..replica }.ack_warnings();
        assert!(
            matches!(&*told, [only] if only.contains("semi-sync:9, and strict:1 at the primary")),
            "{told:?}"
        );
    }
}
