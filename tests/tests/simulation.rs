//! Seeded simulations of a whole group; `HOTSPARE_SEEDS` says how many (default 300), `HOTSPARE_FIRST_SEED` where to begin.

use tests::simulation::run;

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
    }
    println!("{total:?}");
    assert!(total.mutations > 0 && total.promotions > 0 && total.crashes > 0, "nothing happened: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0, "nobody joined: {total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(7), run(7));
}
