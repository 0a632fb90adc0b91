//! Runs of each kind of group, and each seed that has found something; `HOTSPARE_SEEDS` says how many (default 300),
//! `HOTSPARE_FIRST_SEED` where to begin.
//!
//! Tests of the library and not beside it: these would have all programs of the package built, which takes minutes.

use std::ops::Range;
use std::panic::catch_unwind;

use super::scenarios::{
    cascade_acks, chain, erring, evictions, founders, in_shards, mixed, reborn, registers_of, semi_sync,
    skewed, spoilt, stalls, strict_chain, three_nodes, with_loads,
};
use super::{Setting, Summary, forgetful, registers, run, run_with};
use hotspare::Bug;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seeds that were asked for.
fn seeds() -> Range<u64> {
    one_seed_in(1)
}

/// The first of them, one for each so many: for groups that take so many times as long.
fn one_seed_in(times: u64) -> Range<u64> {
    let first = number("HOTSPARE_FIRST_SEED", 1);
    first..first + number("HOTSPARE_SEEDS", 300).div_ceil(times)
}

/// Runs a kind of group from each seed; what was done in all runs together.
fn over(seeds: Range<u64>, setting: impl Fn(u64) -> Setting) -> Summary {
    let mut total = Summary::default();
    for seed in seeds {
        println!("seed {seed}");
        total.add(&run_with(seed, setting(seed)));
    }
    println!("{total:?}");
    total
}

#[test]
fn every_property_holds_whatever_fails_and_all_nodes_agree_in_the_end() {
    let total = over(seeds(), three_nodes);
    assert!(total.mutations > 0 && total.promotions > 0 && total.crashes > 0, "nothing happened: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0, "nobody joined: {total:?}");
    assert!(total.roll_backs > 0 && total.rolled_back_keys > 0, "nobody came back ahead: {total:?}");
    assert!(total.waited.iter().all(|count| *count > 0), "nobody waited: {total:?}");
    assert!(total.log_waits > 0 && total.hints_lost > 0, "no channels apart: {total:?}");
    let told = total.told;
    assert!(told.changes > 0 && told.fills > 0 && told.resumed > 0, "nobody subscribed: {total:?}");
    assert!(told.restarts.iter().all(|restarts| *restarts > 0), "some restart was never told: {total:?}");
}

/// A node that is copied is cleared and filled a part at a time, with the log beside it and whatever fails in between.
#[test]
fn every_property_holds_where_caches_are_in_parts() {
    let total = over(one_seed_in(2), in_shards);
    assert!(total.mutations > 0 && total.crashes > 0 && total.installs > 0, "nothing happened: {total:?}");
    assert!(total.roll_backs > 0 && total.log_waits > 0, "nobody came back, or was copied apart: {total:?}");
}

/// P10: what a node holds is gone on by its history, or replaced by one that a promotion of the group's items began.
#[test]
fn a_node_promoted_with_nothing_empties_nobody() {
    let candidates = over(seeds(), erring).empty_candidates;
    assert!(candidates[1] > 0 && candidates[0] > candidates[1], "nobody erred: {candidates:?}");
}

/// P18: a node that came up with nothing is not promoted over one that it has met and that holds the group's items.
#[test]
fn a_primary_that_comes_up_empty_neither_empties_nor_overrules_its_spares() {
    let outranked = over(seeds(), reborn).outranked;
    // Mostly they ask first, so few are refused at once.
    assert!(outranked[0] > 0, "nobody was outranked: {outranked:?}");
}

/// A spare that had said that it holds nothing, since it had lost its memory, was copied again before its answer was read.
#[test]
fn seed_200217_a_spare_that_was_reborn_since_it_was_met_outranks_nobody_by_what_it_says() {
    run_with(200_217, reborn(200_217));
}

/// One that was asked whether it holds anything was told of a reign that had ended with its primary's life: it asks others
/// meanwhile, and reads that later. The judge took what the primary said then for what it was by now.
#[test]
fn seed_206028_what_a_primary_said_in_a_life_that_has_ended_is_judged_by_what_it_was_then() {
    for seed in [206_028, 311_184] {
        run_with(seed, reborn(seed));
    }
}

/// Of three primaries that nobody followed two told of each other, and the simulation's operator looked at the third alone.
#[test]
fn seed_310445_of_any_two_primaries_that_say_of_each_other_that_they_reign_one_is_told_to_follow() {
    run_with(310_445, reborn(310_445));
}

/// An old primary had answered who reigns, and lost its memory before it was attached: its answer was read when it had come up as a
/// primary again, and nobody told it any more. Another node had done the same, so three reigned and none knew of another.
#[test]
fn seed_7419152_who_lost_its_memory_since_it_answered_is_told_again_who_reigns() {
    run_with(7_419_152, reborn(7_419_152));
}

/// Also where several come up at the same moment: P9 says that one reigns in the end, and the others follow it.
#[test]
fn of_nodes_that_all_come_up_as_primaries_one_stays_and_nobody_who_holds_items_is_emptied() {
    let total = over(seeds(), founders);
    assert!(total.crashes > 0 && total.installs > 0 && total.mutations > 0, "nothing happened: {total:?}");
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
    let total = over(seeds(), chain);
    assert!(total.cascades > 0 && total.promotions > 0, "no chain: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0 && total.roll_backs > 0, "nobody joined: {total:?}");
}

/// A replica took an item for dead by its own clock, while a touch that kept it alive was on its way, and left it out of
/// its own replica's copy.
#[test]
fn seed_1821_a_roll_back_forgets_where_the_records_of_the_branch_that_was_cut_off_lay() {
    run_with(1821, semi_sync(1821));
}

#[test]
fn seed_2454_a_copy_of_nothing_brings_its_primarys_clock_too() {
    run_with(2454, skewed(2454));
}

#[test]
fn seed_986_a_replica_ships_what_has_expired_until_no_touch_can_be_on_its_way() {
    run_with(986, chain(986));
}

#[test]
fn no_acknowledged_write_is_lost_while_one_of_its_holders_lives_on() {
    let total = over(seeds(), semi_sync);
    assert!(
        total.acknowledged > 0 && total.refused > 0 && total.handovers > 0,
        "nothing happened: {total:?}"
    );
}

/// Which seed finds a bug that was put back, and by what. Each found must be a property that does not hold, not a panic of
/// the engine's own.
fn is_found(bug: Bug, seeds_max: u64, setting: impl Fn(u64) -> Setting) {
    is_found_by(bug, seeds_max, setting, |seed, setting| {
        run_with(seed, setting);
    });
}

/// The same, by runs of another kind.
fn is_found_by(bug: Bug, seeds_max: u64, setting: impl Fn(u64) -> Setting, run: fn(u64, Setting)) {
    let found = (1..=seeds_max).find_map(|seed| {
        let setting = Setting { bug: Some(bug), ..setting(seed) };
        let why = catch_unwind(|| run(seed, setting)).err()?;
        let text = why.downcast_ref::<String>().cloned().unwrap_or_default();
        Some((seed, text))
    });
    let Some((seed, text)) = found else { panic!("{bug:?}: {seeds_max} seeds did not find it") };
    let line =
        text.lines().next().unwrap_or_default().trim_start_matches("assertion `left == right` failed: ");
    println!("{bug:?}: found by {seed} seeds: {line:.120}");
    let is_property =
        line.strip_prefix('P').is_some_and(|rest| rest.starts_with(|one: char| one.is_ascii_digit()));
    assert!(is_property, "{bug:?}: seed {seed} failed otherwise: {text}");
}

fn in_order(_seed: u64) -> Setting {
    Setting::default()
}

#[test]
fn a_primary_that_counts_what_it_sent_as_applied_is_found() {
    is_found(Bug::SentCountsAsApplied, 100, semi_sync);
}

#[test]
fn a_roll_back_across_a_flush_is_found() {
    is_found(Bug::RollBackOverFlushes, 500, in_order);
}

#[test]
fn an_unlogged_deletion_of_an_absent_key_is_found() {
    is_found(Bug::UnloggedAbsentDelete, 3_000, in_order);
}

#[test]
fn a_position_that_moves_before_its_record_is_applied_is_found() {
    is_found(Bug::PositionBeforeApply, 100, in_order);
}

#[test]
fn a_heartbeat_that_takes_a_seq_is_found() {
    is_found(Bug::HeartbeatTakesSeq, 100, in_order);
}

#[test]
fn a_version_that_comes_again_after_a_fail_over_is_found() {
    is_found(Bug::CasReused, 500, in_order);
}

#[test]
fn a_frame_taken_from_a_lower_term_is_found() {
    is_found(Bug::LowerTerm, 1_000, in_order);
}

#[test]
fn a_driver_that_turns_in_circles_while_it_waits_is_found() {
    is_found(Bug::WaitsByTurning, 100, in_order);
}

#[test]
fn two_promotions_by_one_term_are_found() {
    is_found(Bug::SharedTerm, 500, in_order);
}

#[test]
fn a_late_chunk_over_a_newer_deletion_is_found() {
    is_found(Bug::LateChunk, 500, in_order);
}

/// Full copies and hints on channels of their own.
fn channels_apart(_seed: u64) -> Setting {
    Setting { channels_apart: true, ..Setting::default() }
}

#[test]
fn a_late_chunk_of_another_channel_over_a_newer_deletion_is_found() {
    is_found(Bug::LateChunk, 500, channels_apart);
}

#[test]
fn a_window_that_forgets_what_came_behind_a_chunk_is_found() {
    is_found(Bug::WindowForgotten, 1_000, channels_apart);
}

#[test]
fn a_full_copy_that_is_resumed_unfinished_is_found() {
    is_found(Bug::UnfinishedInstall, 500, in_order);
}

#[test]
fn records_appended_without_a_look_at_their_branch_are_found() {
    is_found(Bug::AppendWithoutBranch, 500, in_order);
}

#[test]
fn strict_is_linearizable_for_each_key_misses_apart() {
    let mut totals = [registers::Seen::default(); 3];
    for seed in seeds() {
        match registers::run(seed, registers_of(seed, false, true)) {
            Ok(seen) => totals[(seed % 3) as usize].add(&seen),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    for total in &totals {
        println!("{total:?}");
        assert!(total.hits > 0 && total.held_reads > 0 && total.writes > 0 && total.unknown > 0, "{total:?}");
        assert!(total.pauses > 0 && total.lease_misses > 0, "nothing happened: {total:?}");
    }
    let [pairs, all, fewer] = totals;
    assert!(pairs.hits_without_lease > 0 && pairs.promotions > 0 && all.promotions > 0, "{totals:?}");
    assert!(fewer.promotions == 0 && fewer.promotions_in_turn > 0, "{fewer:?}");
}

#[test]
fn async_and_semi_sync_are_not_linearizable() {
    for (name, semi_sync) in [("async", false), ("semi-sync", true)] {
        is_seen(name, 100, |seed| registers_of(seed, semi_sync, false));
    }
}

#[test]
fn a_promotion_that_asks_nobody_is_found() {
    // One group in three has fewer acks; in the others a promotion never asks.
    is_seen("asks nobody", 300, |seed| Setting {
        bug: Some(Bug::PromotionUnasked),
        ..registers_of(seed, false, true)
    });
}

#[test]
fn a_node_promoted_with_nothing_that_empties_others_is_found() {
    is_found(Bug::EmptiesOthers, 100, erring);
}

#[test]
fn a_change_stream_with_a_gap_and_no_word_of_it_is_found() {
    let is_found = |seed: &u64| {
        let setting = Setting { bug: Some(Bug::RestartsHidden), ..Setting::default() };
        let found = catch_unwind(|| run_with(*seed, setting));
        let text = found.err().and_then(|why| why.downcast::<String>().ok());
        text.is_some_and(|text| text.starts_with("subscribers") || text.contains("leave a mutation out"))
    };
    let found = (1..=100).find(is_found);
    println!("found by seed {found:?}");
    assert!(found.is_some(), "100 seeds did not find it");
}

#[test]
fn nothing_expired_returns_and_nothing_dies_early_whatever_clocks_do() {
    let total = over(seeds(), skewed);
    assert!(total.mutations > 0 && total.installs > 0 && total.roll_backs > 0, "nothing happened: {total:?}");
    assert!(total.waited.iter().all(|count| *count > 0), "nobody waited: {total:?}");
}

#[test]
fn what_is_loaded_is_never_stored_over_a_newer_write_and_a_key_is_lent_to_one_node() {
    let total = over(seeds(), with_loads);
    assert!(total.mutations > 0 && total.promotions > 0 && total.crashes > 0, "nothing happened: {total:?}");
    assert!(total.loads.iter().all(|count| *count > 0), "nobody loaded: {total:?}");
}

/// A load that a flush had overtaken, and another one of the same key had replaced, was stored when a full copy made the node
/// forget the flush and a promotion had it write again.
#[test]
fn seed_3091_what_a_flush_overtook_is_not_stored_once_the_flush_is_forgotten() {
    run_with(3091, with_loads(3091));
}

#[test]
fn a_load_that_is_stored_without_a_look_at_its_lease_is_found() {
    is_found(Bug::FillUnchecked, 500, with_loads);
}

#[test]
fn a_key_that_is_lent_to_two_nodes_is_found() {
    is_found(Bug::LoadLentTwice, 500, with_loads);
}

#[test]
fn no_acknowledged_write_is_lost_in_a_chain_where_a_promotion_asks() {
    let total = over(seeds(), cascade_acks);
    assert!(total.cascades > 0 && total.acknowledged > 0 && total.refused > 0, "nothing happened: {total:?}");
    assert!(total.handovers > 0 && total.crashes > 0, "nobody was promoted: {total:?}");
}

#[test]
fn a_primary_of_a_chain_that_counts_what_it_sent_as_applied_is_found() {
    is_found(Bug::SentCountsAsApplied, 300, cascade_acks);
}

#[test]
fn strict_is_linearizable_with_replicas_of_replicas() {
    let mut total = registers::Seen::default();
    for seed in seeds() {
        let seen = registers::run(seed, strict_chain(seed));
        total.add(&seen.unwrap_or_else(|why| panic!("seed {seed}: {why}")));
    }
    println!("{total:?}");
    assert!(total.hits > 0 && total.held_reads > 0 && total.writes > 0, "{total:?}");
    assert!(total.promotions_in_turn > 0 && total.suspensions > 0 && total.lease_misses > 0, "{total:?}");
}

/// A node that had lost its memory was copied from a stale primary, and its position counted in a promotion by both: what
/// it had acknowledged before it crashed was gone.
#[test]
fn seed_1228_a_node_that_forgot_and_was_not_counted_since_is_no_position() {
    registers::run(1228, strict_chain(1228)).unwrap();
}

#[test]
fn seed_33_a_node_that_forgot_and_was_copied_by_a_stale_replica_is_no_position() {
    registers::run(33, strict_chain(33)).unwrap();
}

#[test]
fn seed_10108_a_node_that_forgot_and_was_copied_by_a_stale_replica_is_no_position() {
    registers::run(10108, strict_chain(10108)).unwrap();
}

/// A founder that forgot its group began it again by the same term, and used a version a second time.
#[test]
fn seed_1809_a_group_that_is_begun_twice_has_no_version_twice() {
    run_with(1809, stalls(1809));
}

/// Which seed shows a history that is not linearizable.
fn is_seen(what: &str, seeds_max: u64, setting: impl Fn(u64) -> Setting) {
    let found = (1..=seeds_max).find(|seed| registers::run(*seed, setting(*seed)).is_err());
    println!("{what}: found by seed {found:?}");
    assert!(found.is_some(), "{what}: {seeds_max} seeds did not find it");
}

#[test]
fn a_promotion_in_a_chain_that_asks_nobody_is_found() {
    is_seen("asks nobody", 300, |seed| Setting { bug: Some(Bug::PromotionUnasked), ..strict_chain(seed) });
}

/// What `Clock::lease_ms` is for.
#[test]
fn leases_by_a_clock_that_stands_still_while_the_machine_is_suspended_are_found() {
    is_seen("leases stand still", 3000, |seed| Setting {
        leases_stand_still: true,
        ..registers_of(seed, false, true)
    });
}

#[test]
fn every_property_holds_where_nodes_are_stopped_and_go_on_and_some_are_slow() {
    let total = over(seeds(), stalls);
    assert!(
        total.pauses > 0 && total.promotions > 0 && total.acknowledged > 0,
        "nothing happened: {total:?}"
    );
    assert!(total.installs > 0 && total.roll_backs > 0, "nobody joined: {total:?}");
}

#[test]
fn a_frame_of_a_lower_term_from_a_primary_that_was_stopped_is_found() {
    is_found(Bug::LowerTerm, 3_000, stalls);
}

#[test]
fn nothing_stale_is_held_where_memory_is_too_small() {
    // A full cache takes ten times as long to look at.
    let total = over(one_seed_in(10), evictions);
    assert!(total.evicted > 0 && total.promotions > 0, "nothing happened: {total:?}");
    assert!(total.installs > 0 && total.catch_ups > 0 && total.roll_backs > 0, "nobody joined: {total:?}");
}

/// A replica holds what its primary evicted.
#[test]
fn an_unlogged_deletion_of_an_evicted_key_is_found() {
    is_found(Bug::UnloggedAbsentDelete, 300, evictions);
}

#[test]
fn nodes_of_older_versions_get_nothing_that_they_do_not_know() {
    let total = over(seeds(), mixed);
    assert!(
        total.old_lives > 0 && total.promotions > 0 && total.acknowledged > 0,
        "nothing happened: {total:?}"
    );
    assert!(total.installs > 0 && total.roll_backs > 0, "nobody joined: {total:?}");
    assert!(total.loads.iter().all(|count| *count > 0), "nobody loaded: {total:?}");
}

#[test]
fn a_lease_of_a_load_that_is_logged_for_an_older_version_is_found() {
    is_found(Bug::LentToOld, 300, mixed);
}

/// Three nodes of any version, where each write waits for one replica.
fn mixed_pairs(_seed: u64) -> Setting {
    Setting { mixed: true, semi_sync: true, fewer_acks: true, ..Setting::default() }
}

#[test]
fn whichever_version_a_replica_is_of_that_forgot_its_promise_nothing_is_acknowledged_by_its_word() {
    let walks = 100;
    let done = (1..=walks).filter(|seed| forgetful::run(*seed, mixed_pairs(*seed))).count();
    // Not every version can be counted, or promoted.
    assert!(done >= 10, "{done} of {walks} came to their end");
}

#[test]
fn a_replica_of_an_older_version_that_counts_as_one_that_remembers_is_found() {
    is_found_by(Bug::SilentRemembers, 100, mixed_pairs, |seed, setting| {
        forgetful::run(seed, setting);
    });
}

#[test]
fn frames_that_are_spoilt_on_their_way_change_nothing() {
    let total = over(seeds(), spoilt);
    assert!(total.spoilt > 0 && total.catch_ups > 0 && total.acknowledged > 0, "nothing happened: {total:?}");
}

#[test]
fn a_frame_that_is_taken_whatever_its_checksum_is_found() {
    is_found(Bug::ChecksumIgnored, 300, spoilt);
}

#[test]
fn a_frame_that_is_taken_twice_is_found() {
    is_found(Bug::RepeatsTaken, 300, spoilt);
}
