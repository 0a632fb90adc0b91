//! The promise of the product: the primary dies, the spare goes on, and the application hardly notices.
//!
//! Lives here: one walk through death, promotion, and the return of the dead, for each workload.

use std::collections::HashSet;
use std::time::Duration;

use memcache::Client;
use tests::hit_ratio::HitRatio;
use tests::process::Server;
use tests::workload::{self, Workload};
use tests::{admin, wait};

use crate::stock_client::{self, Flagged};

/// The traces replayed when they are at hand.
const TRACES: &[&str] = &["cache2k-orm-busy.txt.gz", "arc-OLTP.txt.gz"];
/// How many of their requests.
const TRACE_REQUESTS: usize = 200_000;
/// How many requests of the synthetic stream.
const SYNTHETIC_REQUESTS: usize = 120_000;
/// By how many times the working set is larger than the caches.
const OVERLOAD: usize = 3;
/// By how many points the worst window may fall below the node that never failed.
const DIP_POINTS_MAX: f64 = 1.0;
/// How long before the kill the special keys are written, in requests: replication has no business lagging so far.
const SPECIALS_AHEAD: usize = 2_000;
/// How many keys are compared after the dead one's return.
const SAMPLED_KEYS: usize = 500;
/// How many of them may be gone all the same, in percent: each node evicts for itself.
const SAMPLED_MISSING_PERCENT_MAX: usize = 2;
/// Seconds that stored values live: longer than any test.
const LONG_SECONDS: u32 = 3_600;

/// Sizes chosen so that the caches hold a third of the working set.
struct Plan {
    megabytes: usize,
    value_bytes: usize,
}

impl Plan {
    fn of(workload: &Workload) -> Plan {
        let distinct = workload.distinct();
        let megabytes = if distinct < 40_000 { 2 } else { 4 };
        let value_bytes = (OVERLOAD * (megabytes << 20)).div_ceil(distinct);
        let keys: HashSet<&String> = workload.keys.iter().collect();
        let working_set: usize =
            keys.iter().map(|key| key.len() + workload::value_of(key, value_bytes).len()).sum();
        assert!(working_set > 2 * (megabytes << 20), "{}: {working_set} bytes fit too well", workload.name);
        Plan { megabytes, value_bytes }
    }
}

/// One get, and the set that follows a miss; whether it hit. Every value read must be its key's.
fn cache_aside(client: &Client, key: &str, value_bytes: usize) -> bool {
    let value = workload::value_of(key, value_bytes);
    let flags = workload::flags_of(key);
    if let Some(found) = stock_client::get(client, key) {
        assert!(found == (value, flags), "{key}: a wrong value or wrong flags");
        return true;
    }
    client.set(key, Flagged { value: &value, flags }, LONG_SECONDS).expect("a set that is accepted");
    false
}

/// A stream replayed against the pair and, in step, against a node that never fails.
struct Replay<'a> {
    plan: &'a Plan,
    reference: Client,
    reference_ratio: HitRatio,
    pair_ratio: HitRatio,
    pair_sets: u64,
}

impl Replay<'_> {
    fn run(&mut self, pair: &Client, keys: &[String]) {
        for key in keys {
            let hit = cache_aside(pair, key, self.plan.value_bytes);
            self.pair_sets += u64::from(!hit);
            self.pair_ratio.count(hit);
            self.reference_ratio.count(cache_aside(&self.reference, key, self.plan.value_bytes));
        }
    }
}

#[test]
fn a_killed_primary_costs_no_wrong_value_and_no_point_of_hit_ratio() {
    for workload in workload::workloads(TRACES, TRACE_REQUESTS, SYNTHETIC_REQUESTS) {
        fail_over(&workload);
    }
}

fn fail_over(workload: &Workload) {
    let plan = Plan::of(workload);
    let mut never_failed = crate::standalone(plan.megabytes);
    let mut first = crate::primary(plan.megabytes, crate::ANY_PORT);
    let mut second = crate::replica(plan.megabytes, first.replication());
    admin::wait_streaming(second.admin());

    let window = (workload.keys.len() / 10).min(20_000);
    let mut replay = Replay {
        plan: &plan,
        reference: stock_client::connect(never_failed.clients()),
        reference_ratio: HitRatio::new(window),
        pair_ratio: HitRatio::new(window),
        pair_sets: 0,
    };
    let half = workload.keys.len() / 2;
    let client = stock_client::connect(first.clients());
    replay.run(&client, &workload.keys[..half - SPECIALS_AHEAD]);
    let old_token = write_specials(&client);
    replay.run(&client, &workload.keys[half - SPECIALS_AHEAD..half]);
    check_evictions(first.clients(), replay.pair_sets);

    first.kill_9();
    admin::promote(second.admin());
    let client = stock_client::connect(second.clients());
    check_specials(&client, old_token);
    replay.run(&client, &workload.keys[half..]);

    let dip = replay.pair_ratio.worst_dip_points(&replay.reference_ratio);
    let (pair, reference) = (replay.pair_ratio.percent(), replay.reference_ratio.percent());
    eprintln!(
        "{}: {pair:.2} % hits, never failed {reference:.2} %, worst dip {dip:.2} points",
        workload.name
    );
    assert!(dip <= DIP_POINTS_MAX, "{}: {dip:.2} points", workload.name);

    return_of_the_dead(&plan, &mut second, &client, &workload.keys);
}

/// Keys that are looked at after the kill; gives the CAS unique of one of them.
fn write_specials(client: &Client) -> u64 {
    client.set("special-cas", "before", 0).expect("a set");
    client.set("special-short", "soon gone", 2).expect("a set");
    client
        .set("special-long", Flagged { value: b"stays", flags: 4_000_000_000 }, LONG_SECONDS)
        .expect("a set");
    stock_client::token(client, "special-cas")
}

fn check_specials(client: &Client, old_token: u64) {
    assert_eq!(stock_client::get(client, "special-long"), Some((b"stays".to_vec(), 4_000_000_000)));
    assert_eq!(stock_client::token(client, "special-cas"), old_token, "the spare has the same CAS uniques");
    client.set("special-cas", "after", 0).expect("a set");
    assert_ne!(stock_client::token(client, "special-cas"), old_token, "a CAS unique was given twice");
    assert!(!client.cas("special-cas", "wrong", 0, old_token).expect("an answer to cas"));
    assert_eq!(client.get::<String>("special-cas").expect("an answer").as_deref(), Some("after"));
    wait::wait_until("an expiry set before the kill", Duration::from_secs(10), || {
        stock_client::get(client, "special-short").is_none()
    });
}

/// The caches must be under pressure, else the hit ratios say nothing.
fn check_evictions(server: std::net::SocketAddr, sets: u64) {
    let evictions = crate::wire::stat(server, "evictions");
    assert!(
        evictions * 10 >= sets,
        "{evictions} evictions for {sets} sets: the cache is too large for the test"
    );
}

/// The dead node comes back as a replica; once promoted in turn, it has what the other had.
fn return_of_the_dead(plan: &Plan, second: &mut Server, client: &Client, keys: &[String]) {
    let mut returned = crate::replica(plan.megabytes, second.replication());
    admin::wait_streaming(returned.admin());
    let recent: HashSet<&String> = keys[keys.len() - keys.len() / 10..].iter().collect();
    let held: Vec<_> = recent
        .into_iter()
        .filter_map(|key| stock_client::get(client, key).map(|found| (key, found)))
        .take(SAMPLED_KEYS)
        .collect();
    assert!(!held.is_empty(), "nothing to compare");
    second.terminate();
    second.wait_exit(Duration::from_secs(5));
    admin::promote(returned.admin());

    let client = stock_client::connect(returned.clients());
    let mut missing = 0;
    for (key, there) in &held {
        match stock_client::get(&client, key) {
            Some(here) => assert!(here == *there, "{key}: the nodes disagree"),
            None => missing += 1,
        }
    }
    let allowed = held.len() * SAMPLED_MISSING_PERCENT_MAX / 100;
    assert!(missing <= allowed, "{missing} of {} sampled keys are missing", held.len());
}
