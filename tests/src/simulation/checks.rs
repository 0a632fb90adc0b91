//! What must hold of a simulated group's nodes at each look, after each promotion, and at rest.
//!
//! Lives here: P4 to P6, P8, P9 and P12 of the replication design, and what is shown to the oracle. Not here: what a
//! node's items must be (see `oracle`).

use hotspare::{Bug, InspectedPart, LinkState, Role, Status};

use super::NAMES;
use super::world::World;

/// How far clocks of a group may differ: drift while links are cut, and the time that frames take.
const CLOCKS_APART_MAX_MS: u64 = 30_000;

/// Whether a node holds what its history says.
pub(super) fn is_whole(status: &Status) -> bool {
    (status.ready || status.role == Role::Fenced) && status.seq > 0
}

impl World {
    /// P4, of a node that was just promoted.
    pub(super) fn check_promises(&mut self, index: usize) {
        let kept = self.clients.check_promoted(&self.nodes[index].cache, &self.lives());
        kept.unwrap_or_else(|why| panic!("P4: {} was promoted, but {why}", NAMES[index]));
    }

    /// P5: one promotion for each term, whoever is promoted at the same time.
    pub(super) fn note_promotion(&mut self, index: usize) {
        let status = self.nodes[index].cache.status();
        let other = self.oracle.note_promotion(status.term, index);
        assert!(
            other.is_none(),
            "P5: {} and node {other:?} were promoted by term {}",
            NAMES[index],
            status.term
        );
    }

    /// P6: nobody follows a node of a term below the highest that it has seen. What a node reigns or follows by only rises.
    pub(super) fn check_attachment(&self, index: usize, before: (&Status, InspectedPart)) {
        let (status, part) = before;
        let now = self.nodes[index].cache.inspect_part();
        let Some((followed, term)) = now.taken.filter(|_| now.times_taken != part.times_taken) else {
            return;
        };
        assert!(
            term >= status.term,
            "P6: {} has seen term {} and follows a node of term {term}",
            NAMES[index],
            status.term
        );
        // What a node said in a life that has ended since may be read yet: in another life it is another node.
        let lives_on =
            self.nodes.iter().map(|node| node.cache.status()).find(|status| status.node == followed);
        let Some(above) = lives_on.filter(|above| above.role == Role::Primary) else { return };
        assert!(
            above.term >= term,
            "P6: {} follows a primary by term {term}, which reigns by {}",
            NAMES[index],
            above.term
        );
    }

    pub(super) fn check(&mut self, when: &str) {
        self.oracle.set_newest_ms(self.newest_ms(when));
        if let Some(why) = self.notes.lock().unwrap().broken.take() {
            panic!("{why}, {when}");
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let status = node.cache.status();
            assert!(status.log_bytes <= status.log_bytes_max, "P8: {when}, node {}", NAMES[index]);
            // For a while a path may name nodes in lives that have ended.
            assert!(status.depth <= 4, "{when}: node {} is {} links down", NAMES[index], status.depth);
            self.summary.cascades += u64::from(status.depth > 1);
            let inspection = node.cache.inspect();
            let (copies, shown_ms) = node.shown;
            let is_back = copies == inspection.copies && inspection.now_ms < shown_ms;
            assert!(!is_back, "P12: {when}: the clock of {} went back", NAMES[index]);
            // Empty, or in the middle of a full copy, it takes its primary's clock outright.
            let shown_ms = if is_whole(&status) { inspection.now_ms } else { 0 };
            node.shown = (inspection.copies, shown_ms);
            self.oracle.check_records(&inspection, when);
            self.oracle.check_history(index, &inspection, when);
            // A replica that answers reads is ready unless it is in the middle of an install.
            if !status.ready && status.role != Role::Fenced {
                self.oracle.forget_node(index);
                self.oracle.check_part(index, &inspection, when);
            } else {
                self.oracle.check_node(index, &inspection, when);
            }
        }
    }

    /// The clock that no node with a history is ahead of. Theirs are about the same, however wrong their own ones are (P12).
    pub(super) fn newest_ms(&self, when: &str) -> u64 {
        let whole = self.nodes.iter().filter(|node| is_whole(&node.cache.status()));
        let shown: Vec<u64> = whole.map(|node| node.cache.now_ms()).collect();
        let (oldest, newest) = (shown.iter().min().copied(), shown.iter().max().copied());
        let apart_ms = newest.unwrap_or(0) - oldest.unwrap_or(0);
        assert!(apart_ms <= CLOCKS_APART_MAX_MS, "P12: {when}: the clocks are {apart_ms} ms apart");
        newest.unwrap_or(0)
    }

    /// Who has taken all changes has all that its node holds.
    pub(super) fn check_subscribers(&mut self, all: bool, when: &str) {
        if self.setting.bug == Some(Bug::CasReused) {
            // They are told versions by term and seq: that these differ is not what is looked for.
            return;
        }
        let caches = self.caches();
        let kept = self.subscribers.check(&caches, all, &self.oracle);
        kept.unwrap_or_else(|why| panic!("subscribers: {when}: {why}"));
    }

    pub(super) fn is_at_rest(&self) -> bool {
        let statuses: Vec<_> = self.nodes.iter().map(|node| node.cache.status()).collect();
        let primaries = statuses.iter().filter(|status| status.role == Role::Primary).count();
        let followers = statuses.iter().filter(|status| {
            status.role == Role::Replica && status.link == LinkState::Streaming && status.promotable.is_ok()
        });
        primaries == 1
            && followers.count() == self.setting.nodes - 1
            && statuses.iter().all(|status| status.seq == statuses[0].seq)
    }

    /// P3: at rest all nodes hold the same.
    pub(super) fn check_rest(&mut self, seed: u64) {
        let mut all: Vec<_> = self.nodes.iter().map(|node| node.cache.inspect()).collect();
        // A follower's clock is behind its primary's by as long as frames took: an item may die a little later there.
        let newest_ms = all.iter().map(|inspection| inspection.now_ms).max().unwrap_or(0);
        for inspection in &mut all {
            inspection.items.retain(|item| item.3 == 0 || item.3 > newest_ms);
            // What a roll-back dropped is asked for again, but not for ever; each that is held is checked above.
            inspection.items.retain(|item| !self.oracle.may_be_dropped(&item.0, item.4));
        }
        for (index, inspection) in all.iter().enumerate() {
            // Where a node with half a copy reigned, others may hold more than it; each held key is checked above.
            let same = self.oracle.are_misses_allowed() || inspection.items == all[0].items;
            assert!(
                same,
                "P3: seed {seed}, node {} holds {} items by {:x?}, node {} {} by {:x?}",
                NAMES[index],
                inspection.items.len(),
                inspection.lineage,
                NAMES[0],
                all[0].items.len(),
                all[0].lineage
            );
            assert_eq!(inspection.lineage.last(), all[0].lineage.last(), "seed {seed}");
            self.nodes[index].cache.check_invariants();
            let status = self.nodes[index].cache.status();
            self.summary.evicted += self.nodes[index].cache.stats().evictions;
            self.summary.installs += status.installs;
            self.summary.catch_ups += status.catch_ups;
            self.summary.log_waits += status.log_waits;
        }
        let bytes = format!("{:?}", all[0].items);
        self.summary.fingerprint = bytes.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
}
