//! What is to be done with a node so that the machine with the virtual address has the primary.
//!
//! Lives here: one pure state machine; notices, views of the node and times in, deeds out. Not here: the FIFO (see
//! `fifo`), carrying a deed out (see `mod`).
//!
//! ```text
//!            MASTER                       BACKUP
//!   Idle ──────────────> Reign ────────────────────────> Yield
//!    ^                     │ FAULT, STOP                     │ not the primary any more, or gave up
//!    └─────────────────────┴────────────────────────────────┘
//! ```
//! `Reign` is a state to be kept, not an event: an old primary may be fenced by a peer while it has the address.
//!
//! A primary that has lost the address is fenced by the one that was promoted, and that needs no help. Only where no
//! link holds between the two (a cut in one direction) nobody can tell it: then it gives up by itself, if nobody
//! follows it. On a fault it never does: perhaps nobody else took over, and it has to go on.

use super::line::Notice;

/// How often a node is looked at that is, or is to become, the primary.
const LOOK_MS: u64 = 250;

/// The first pause after a promotion, and the longest. It doubles, so that two machines that both have the address
/// and hear each other's promotions do not take the reign from each other without end.
const PAUSE_MIN_MS: u64 = 250;
const PAUSE_MAX_MS: u64 = 30_000;

/// A reign that has held so long counts as undisputed: the next pause is the shortest again.
const UNDISPUTED_MS: u64 = 30_000;

/// How long a primary without the address waits to be fenced: a dead link is noticed after 2 s.
const GRACE_MS: u64 = 3_000;

/// Lower priorities heard further apart than this are not one contest. keepalived's longest usual interval is 1 s.
const CONTEST_GAP_MS: u64 = 2_500;

/// How long a node that gave up is left alone at most while keepalived still says that the address is here, and the
/// other machine is heard: a failing track script is believed after a few seconds. Once the other is heard no more it
/// has given way, since both hear each other again, and there is nothing to wait for.
const GAVE_UP_PAUSE_MS: u64 = 6_000;

/// What a look at the node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) is_primary: bool,
    /// Why it may not be promoted, if it may not.
    pub(crate) promotable: Result<(), String>,
    pub(crate) has_replica: bool,
}

/// What is to be done to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    Promote,
    /// Follow the other node.
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Idle,
    Reign,
    Yield,
}

/// 1. `due_ms` is `None` exactly while the duty is `Idle`.
/// 2. `reigns_since_ms`, `contest` and `gave_up_until_ms` are `None` unless the duty is `Reign`.
#[derive(Debug)]
pub(crate) struct Keeper {
    duty: Duty,
    /// Whether keepalived is there to say what holds.
    is_heard: bool,
    due_ms: Option<u64>,
    pause_ms: u64,
    /// The earliest moment of the next promotion.
    promotes_from_ms: u64,
    reigns_since_ms: Option<u64>,
    /// When another, of lower priority, was first and last heard.
    contest: Option<(u64, u64)>,
    /// When a node that gave up has been left alone for long enough.
    gave_up_until_ms: Option<u64>,
}

impl Keeper {
    pub(crate) fn new() -> Keeper {
        Keeper {
            duty: Duty::Idle,
            is_heard: true,
            due_ms: None,
            pause_ms: PAUSE_MIN_MS,
            promotes_from_ms: 0,
            reigns_since_ms: None,
            contest: None,
            gave_up_until_ms: None,
        }
    }

    /// When the node is to be looked at next, if at all.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Takes what keepalived says.
    pub(crate) fn handle_notice(&mut self, notice: Notice, now_ms: u64) {
        match (notice, self.duty) {
            (Notice::Master, Duty::Reign) => {}
            (Notice::Master, _) => {
                // A decision of its own: what was disputed before it makes no client wait.
                self.pause_ms = PAUSE_MIN_MS;
                self.promotes_from_ms = self.promotes_from_ms.min(now_ms + PAUSE_MIN_MS);
                self.turn_to(Duty::Reign, now_ms);
            }
            (Notice::Backup, Duty::Reign) => self.turn_to(Duty::Yield, now_ms + GRACE_MS),
            (Notice::Backup, _) => {}
            (Notice::Fault | Notice::Stop, _) => self.turn_to(Duty::Idle, now_ms),
            (Notice::LowerHeard, Duty::Reign) => {
                let first = match self.contest {
                    Some((first, last)) if now_ms.saturating_sub(last) <= CONTEST_GAP_MS => first,
                    _ => now_ms,
                };
                self.contest = Some((first, now_ms));
                self.leave_alone(now_ms);
            }
            (Notice::LowerHeard, _) => {}
        }
    }

    /// Takes whether keepalived is there. Of one that has ended the last word may be wrong by now: another machine takes over
    /// within two seconds, and the reign is not to be taken back from it.
    pub(crate) fn handle_heard(&mut self, is_heard: bool) {
        self.is_heard = is_heard;
    }

    fn turn_to(&mut self, duty: Duty, due_ms: u64) {
        self.duty = duty;
        self.due_ms = (duty != Duty::Idle).then_some(due_ms);
        self.reigns_since_ms = None;
        self.contest = None;
        self.gave_up_until_ms = None;
    }

    /// Takes a look at the node, or that it could not be had, and says what to do.
    pub(crate) fn handle_view(&mut self, view: Option<&View>, now_ms: u64) -> Deed {
        self.due_ms = (self.duty != Duty::Idle).then_some(now_ms + LOOK_MS);
        let Some(view) = view else { return Deed::Nothing };
        match (self.duty, view.is_primary) {
            (Duty::Idle, _) => Deed::Nothing,
            (Duty::Reign, true) => self.keep_reign(view, now_ms),
            (Duty::Reign, false) => self.seek_reign(view, now_ms),
            (Duty::Yield, false) => {
                self.turn_to(Duty::Idle, now_ms);
                Deed::Nothing
            }
            // Who follows it is the other node: they hear each other, and the higher term will win.
            (Duty::Yield, true) if view.has_replica => Deed::Nothing,
            (Duty::Yield, true) => Deed::GiveUp,
        }
    }

    fn keep_reign(&mut self, view: &View, now_ms: u64) -> Deed {
        let since_ms = *self.reigns_since_ms.get_or_insert(now_ms);
        if now_ms - since_ms >= UNDISPUTED_MS {
            self.pause_ms = PAUSE_MIN_MS;
        }
        let contested = self.contest.is_some_and(|(first, last)| {
            last - first >= GRACE_MS && now_ms.saturating_sub(last) <= CONTEST_GAP_MS
        });
        // The other believes to be alone and was promoted since: it does not hear this machine, which hears it.
        if contested && !view.has_replica { Deed::GiveUp } else { Deed::Nothing }
    }

    fn seek_reign(&mut self, view: &View, now_ms: u64) -> Deed {
        self.reigns_since_ms = None;
        if view.promotable.is_err() || !self.is_heard || now_ms < self.promotes_from_ms {
            return Deed::Nothing;
        }
        self.promotes_from_ms = now_ms + self.pause_ms;
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MAX_MS);
        Deed::Promote
    }

    /// The node follows the other one now. keepalived is to see that it can't be promoted, and to take the address away;
    /// if it does not, because both hear each other again, the node is made the primary after all.
    pub(crate) fn handle_gave_up(&mut self, now_ms: u64) {
        if self.duty == Duty::Yield {
            return self.turn_to(Duty::Idle, now_ms);
        }
        self.contest = None;
        self.reigns_since_ms = None;
        self.gave_up_until_ms = Some(now_ms + GAVE_UP_PAUSE_MS);
        self.leave_alone(now_ms);
    }

    /// Puts the promotion of a node that gave up off: the other machine was heard just now.
    fn leave_alone(&mut self, now_ms: u64) {
        if let Some(until_ms) = self.gave_up_until_ms {
            self.promotes_from_ms = self.promotes_from_ms.max(until_ms.min(now_ms + CONTEST_GAP_MS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: View = View { is_primary: true, promotable: Ok(()), has_replica: false };
    const SPARE: View = View { is_primary: false, promotable: Ok(()), has_replica: false };

    fn empty() -> View {
        View { promotable: Err("empty".to_owned()), ..SPARE }
    }

    fn master_at(now_ms: u64) -> Keeper {
        let mut keeper = Keeper::new();
        keeper.handle_notice(Notice::Master, now_ms);
        assert_eq!(keeper.due_ms(), Some(now_ms));
        keeper
    }

    #[test]
    fn a_spare_is_promoted_at_once_and_an_empty_node_only_when_it_may_be() {
        assert_eq!(master_at(5).handle_view(Some(&SPARE), 5), Deed::Promote);
        let mut keeper = master_at(0);
        assert_eq!(keeper.handle_view(None, 0), Deed::Nothing);
        assert_eq!(keeper.handle_view(Some(&empty()), 250), Deed::Nothing);
        assert_eq!(keeper.handle_view(Some(&SPARE), 500), Deed::Promote);
        assert_eq!(keeper.handle_view(Some(&PRIMARY), 750), Deed::Nothing);
        assert_eq!(keeper.due_ms(), Some(1000), "it goes on looking");
    }

    #[test]
    fn promotions_that_do_not_last_come_at_growing_pauses() {
        let mut keeper = master_at(0);
        let looks = (0..4 * 60 * 60).map(|look| look * LOOK_MS);
        let promotions = looks.filter(|now| keeper.handle_view(Some(&SPARE), *now) == Deed::Promote).count();
        assert!((7 + 110..=8 + 120).contains(&promotions), "{promotions} in an hour");
        let mut at = 3_600_000;
        for _ in 0..=UNDISPUTED_MS / LOOK_MS {
            at += LOOK_MS;
            assert_eq!(keeper.handle_view(Some(&PRIMARY), at), Deed::Nothing);
        }
        assert_eq!(keeper.handle_view(Some(&SPARE), at), Deed::Promote);
        assert_eq!(
            keeper.handle_view(Some(&SPARE), at + PAUSE_MIN_MS),
            Deed::Promote,
            "the pause is short again"
        );
    }

    #[test]
    fn a_new_decision_of_keepalived_s_waits_for_no_dispute_before_it() {
        for between in [Notice::Fault, Notice::Backup, Notice::Stop] {
            let mut keeper = master_at(0);
            let promotions =
                (0..40_000).filter(|now| keeper.handle_view(Some(&SPARE), *now) == Deed::Promote);
            assert_eq!(promotions.count(), 8);
            assert_eq!(keeper.handle_view(Some(&SPARE), 40_000), Deed::Nothing, "disputed");
            keeper.handle_notice(between, 40_000);
            keeper.handle_notice(Notice::Master, 40_010);
            assert_eq!(keeper.handle_view(Some(&SPARE), 40_010), Deed::Nothing, "no two at once");
            assert_eq!(keeper.handle_view(Some(&SPARE), 40_010 + PAUSE_MIN_MS), Deed::Promote);
        }
    }

    #[test]
    fn the_word_of_a_keepalived_that_has_ended_promotes_nobody() {
        let mut keeper = master_at(0);
        assert_eq!(keeper.handle_view(Some(&PRIMARY), 0), Deed::Nothing);
        keeper.handle_heard(false);
        assert_eq!(keeper.handle_view(Some(&SPARE), 1_000), Deed::Nothing, "another one took over");
        keeper.handle_heard(true);
        assert_eq!(keeper.handle_view(Some(&SPARE), 1_250), Deed::Promote, "it had only made its FIFO anew");
    }

    #[test]
    fn a_node_is_left_alone_on_a_fault_at_the_start_and_when_keepalived_stops() {
        for notice in [Notice::Fault, Notice::Stop] {
            let mut keeper = master_at(0);
            keeper.handle_notice(notice, 10);
            assert_eq!((keeper.due_ms(), keeper.handle_view(Some(&PRIMARY), 10_000)), (None, Deed::Nothing));
        }
        let mut keeper = Keeper::new();
        keeper.handle_notice(Notice::Backup, 0);
        assert_eq!((keeper.due_ms(), keeper.handle_view(Some(&PRIMARY), 10_000)), (None, Deed::Nothing));
    }

    #[test]
    fn a_primary_without_the_address_gives_up_only_after_the_grace_and_if_nobody_follows_it() {
        let mut keeper = master_at(0);
        keeper.handle_notice(Notice::Backup, 100);
        assert_eq!(keeper.due_ms(), Some(100 + GRACE_MS));
        let followed = View { has_replica: true, ..PRIMARY };
        assert_eq!(keeper.handle_view(Some(&followed), 3_100), Deed::Nothing);
        assert_eq!(keeper.handle_view(Some(&PRIMARY), 3_350), Deed::GiveUp);
        keeper.handle_gave_up(3_350);
        assert_eq!(keeper.due_ms(), None);
        let mut fenced = master_at(0);
        fenced.handle_notice(Notice::Backup, 100);
        assert_eq!(fenced.handle_view(Some(&SPARE), 3_100), Deed::Nothing);
        assert_eq!(fenced.due_ms(), None);
    }

    #[test]
    fn a_contest_of_seconds_is_given_up_by_who_hears_it_and_a_short_one_is_not() {
        let contested = |until_ms: u64, view: &View| {
            let mut keeper = master_at(0);
            for now_ms in (1_000..=until_ms).step_by(500) {
                keeper.handle_notice(Notice::LowerHeard, now_ms);
            }
            keeper.handle_view(Some(view), until_ms)
        };
        assert_eq!(contested(3_500, &PRIMARY), Deed::Nothing);
        assert_eq!(contested(4_000, &PRIMARY), Deed::GiveUp);
        assert_eq!(contested(4_000, &View { has_replica: true, ..PRIMARY }), Deed::Nothing);
        let mut twice = master_at(0);
        twice.handle_notice(Notice::LowerHeard, 1_000);
        twice.handle_notice(Notice::LowerHeard, 60_000);
        assert_eq!(twice.handle_view(Some(&PRIMARY), 60_001), Deed::Nothing, "two contests, not a long one");
    }

    #[test]
    fn a_node_that_gave_up_waits_while_the_other_is_heard_and_no_longer() {
        let mut insists = master_at(0);
        insists.handle_gave_up(4_000);
        for now_ms in (4_250..10_000).step_by(250) {
            insists.handle_notice(Notice::LowerHeard, now_ms);
            assert_eq!(
                insists.handle_view(Some(&SPARE), now_ms),
                Deed::Nothing,
                "the script has time to fail"
            );
        }
        assert_eq!(insists.handle_view(Some(&SPARE), 10_000), Deed::Promote, "keepalived insists");
        let mut healed = master_at(0);
        healed.handle_gave_up(4_000);
        healed.handle_notice(Notice::LowerHeard, 4_400);
        let until_ms = 4_400 + CONTEST_GAP_MS;
        assert_eq!(healed.handle_view(Some(&SPARE), until_ms - 1), Deed::Nothing);
        assert_eq!(
            healed.handle_view(Some(&empty()), until_ms),
            Deed::Nothing,
            "it has not reached the other"
        );
        assert_eq!(healed.handle_view(Some(&SPARE), until_ms), Deed::Promote, "the other has given way");
    }
}
