//! A replica that promised to follow a new primary, lost its memory, and finds the old one, which has not heard of the new reign.
//!
//! Lives here: that one walk, by nodes of whichever versions the seed deals out; that by this replica's word nothing is
//! acknowledged which the new primary lacks (P4). Not here: older versions (see `wire`). Runs where all is by chance meet this too
//! seldom: none of 30 000 did.

use hotspare::{Acknowledgement, Expiry, Role};

use super::world::World;
use super::{NAMES, Setting};

/// The old primary, the new one, and the replica of both.
const OLD: usize = 0;
const NEW: usize = 1;
const REPLICA: usize = 2;

/// Time passes so, in a round.
const ROUND_MS: u64 = 5;

/// Runs one seed; whether the walk was gone to its end. Panics where P4 does not hold.
pub(super) fn run(seed: u64, setting: Setting) -> bool {
    let mut world = World::new(seed, setting);
    rounds(&mut world, 400);
    set_apart(&mut world, OLD, NEW, true);
    set_apart(&mut world, OLD, REPLICA, true);
    let asks = world.nodes[NEW].cache.begin_promotion(false).is_ok();
    rounds(&mut world, 500);
    if !asks || world.nodes[NEW].cache.status().role != Role::Primary {
        return false;
    }
    set_apart(&mut world, NEW, REPLICA, true);
    set_apart(&mut world, OLD, REPLICA, false);
    world.restart(REPLICA, world.follower(REPLICA));
    rounds(&mut world, 300);
    // Now it knows the old primary's term, as one that remembers does.
    world.network.cut(NAMES[OLD], NAMES[REPLICA]);
    rounds(&mut world, 300);
    let old = world.nodes[OLD].cache.clone();
    assert!(old.status().role == Role::Primary && old.status().replicas.len() == 1, "seed {seed}");
    let (stored, written) = old.track(|| old.set("key", "value", Expiry::Never));
    rounds(&mut world, 100);
    let is_acknowledged = written
        .is_some_and(|written| matches!(old.acknowledged(written), Acknowledgement::Replicated { .. }));
    assert!(
        !is_acknowledged,
        "P4: seed {seed}: the new primary lacks what the old one acknowledged by a replica that forgot its promise: {stored:?}"
    );
    true
}

fn set_apart(world: &mut World, one: usize, other: usize, apart: bool) {
    world.network.set_apart(NAMES[one], NAMES[other], apart);
    world.network.cut(NAMES[one], NAMES[other]);
}

fn rounds(world: &mut World, count: usize) {
    for _ in 0..count {
        (0..world.setting.nodes).for_each(|index| world.poll(index));
        world.network.deliver_all();
        world.clocks.advance_ms(ROUND_MS);
    }
}
