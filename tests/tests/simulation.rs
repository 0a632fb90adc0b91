//! Seeded simulations of a whole group; `HOTSPARE_SEEDS` says how many (default 300), `HOTSPARE_FIRST_SEED` where to begin.

use std::panic::catch_unwind;

use tests::simulation::{Setting, run, run_with};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_property_holds_whatever_fails_and_all_nodes_agree_in_the_end() {
    let first = number("HOTSPARE_FIRST_SEED", 1);
    let mut total = tests::simulation::Summary::default();
    for seed in first..first + number("HOTSPARE_SEEDS", 300) {
        println!("seed {seed}");
        let summary = run(seed);
        total.mutations += summary.mutations;
        total.promotions += summary.promotions;
        total.crashes += summary.crashes;
        total.cuts += summary.cuts;
        total.installs += summary.installs;
        total.catch_ups += summary.catch_ups;
        total.roll_backs += summary.roll_backs;
        total.rolled_back_keys += summary.rolled_back_keys;
    }
    println!("{total:?}");
    assert!(total.mutations > 0 && total.promotions > 0 && total.crashes > 0, "nothing happened: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0, "nobody joined: {total:?}");
    assert!(total.roll_backs > 0 && total.rolled_back_keys > 0, "nobody came back ahead: {total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(7), run(7));
}

/// An old primary sweeps an item; the new one, whose clock is behind, touches it in time; the old one rolls back to a
/// point before both and lacks it.
#[test]
fn seed_2078_an_item_swept_before_a_roll_back_is_a_miss() {
    run(2078);
}

#[test]
fn every_property_holds_in_a_chain_of_replicas() {
    let first = number("HOTSPARE_FIRST_SEED", 1);
    let mut total = tests::simulation::Summary::default();
    for seed in first..first + number("HOTSPARE_SEEDS", 300) {
        println!("seed {seed}");
        let nodes = 3 + (seed % 2) as usize;
        let summary = run_with(seed, Setting { nodes, chain: true, ..Setting::default() });
        total.cascades += summary.cascades;
        total.promotions += summary.promotions;
        total.installs += summary.installs;
        total.catch_ups += summary.catch_ups;
        total.roll_backs += summary.roll_backs;
    }
    println!("{total:?}");
    assert!(total.cascades > 0 && total.promotions > 0, "no chain: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0 && total.roll_backs > 0, "nobody joined: {total:?}");
}

/// A replica took an item for dead by its own clock, while a touch that kept it alive was on its way, and left it out of
/// its own replica's copy.
#[test]
fn seed_986_a_replica_ships_what_has_expired_until_no_touch_can_be_on_its_way() {
    run_with(986, Setting { nodes: 3, chain: true, ..Setting::default() });
}

/// Two nodes and three, in turn; each write waits for all others.
fn semi_sync(seed: u64) -> Setting {
    Setting { nodes: 2 + (seed % 2) as usize, semi_sync: true, ..Setting::default() }
}

#[test]
fn no_acknowledged_write_is_lost_while_one_of_its_holders_lives_on() {
    let first = number("HOTSPARE_FIRST_SEED", 1);
    let mut total = tests::simulation::Summary::default();
    for seed in first..first + number("HOTSPARE_SEEDS", 300) {
        println!("seed {seed}");
        let summary = run_with(seed, semi_sync(seed));
        total.mutations += summary.mutations;
        total.acknowledged += summary.acknowledged;
        total.refused += summary.refused;
        total.handovers += summary.handovers;
        total.promotions += summary.promotions;
        total.crashes += summary.crashes;
    }
    println!("{total:?}");
    assert!(
        total.acknowledged > 0 && total.refused > 0 && total.handovers > 0,
        "nothing happened: {total:?}"
    );
}

#[test]
fn a_primary_that_counts_what_it_sent_as_applied_is_found() {
    let is_found = |seed: &u64| {
        let setting = Setting { counts_sent_as_applied: true, ..semi_sync(*seed) };
        let found = catch_unwind(|| run_with(*seed, setting));
        let text = found.err().and_then(|why| why.downcast::<String>().ok());
        text.is_some_and(|text| text.starts_with("P4"))
    };
    let found = (1..=100).find(is_found);
    println!("found by seed {found:?}");
    assert!(found.is_some(), "100 seeds did not find it");
}

#[test]
fn a_roll_back_across_a_flush_is_found() {
    let is_found = |seed: &u64| {
        let setting = Setting { rolls_back_over_flushes: true, ..Setting::default() };
        let found = catch_unwind(|| run_with(*seed, setting));
        let text = found.err().and_then(|why| why.downcast::<String>().ok());
        text.is_some_and(|text| text.starts_with("P2/P3/P7") || text.starts_with("P3"))
    };
    let found = (1..=500).find(is_found);
    println!("found by seed {found:?}");
    assert!(found.is_some(), "500 seeds did not find it");
}
