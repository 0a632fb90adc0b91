//! `hotspare bench`: any memcached server under load, and what came of it.
//!
//! Lives here: the command's course, progress, summary. `load` is the generator, `requests` are the bytes of each dialect,
//! `answers` what comes back, `popularity` which keys are wanted. `tests/compare` measures servers beside each other with the
//! same generator.

mod answers;
pub mod load;
pub mod popularity;
pub mod requests;

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::args::{BenchPlan, node_address};
pub use answers::Tally;
use load::{Address, Generator, Outcome, Population};

/// Above this part of the time the generator may be what limits the figures.
const BUSY_MAX: f64 = 0.9;

/// The percentiles that are told, and their names.
const PERCENTILES: [(f64, &str); 5] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"), (100.0, "max")];

/// Fills the server, asks, prints the summary. Exit code 1 if the server can't be measured to the end or has refused requests;
/// what was measured until then is printed all the same.
pub(crate) fn run(plan: &BenchPlan) -> ExitCode {
    let (outcome, ended) = match measure(plan) {
        Ok(measured) => measured,
        Err(why) => return fail(plan, &why.to_string()),
    };
    let why = ended.err().map(|why| why.to_string());
    if let (0, Some(why)) = (outcome.requests, &why) {
        return fail(plan, why);
    }
    crate::print(&match plan.json {
        true => json_summary(plan, &outcome, why.as_deref()),
        false => summary(plan, &outcome),
    });
    if outcome.tally.refused > 0 {
        let said = outcome.refusal.as_deref().unwrap_or_default();
        crate::say(&format!("{} refused {} requests: {said}", plan.server, outcome.tally.refused));
    }
    match why {
        Some(why) => {
            let seconds = outcome.elapsed.as_secs_f64();
            fail(plan, &format!("{why}, after {seconds:.1} s; the figures are of that time"))
        }
        None if outcome.tally.refused > 0 => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    }
}

fn fail(plan: &BenchPlan, why: &str) -> ExitCode {
    crate::say(&format!("bench {}: {why}", if plan.server.is_empty() { "\"\"" } else { &plan.server }));
    ExitCode::FAILURE
}

/// What was measured, and why that ended early, if it did.
fn measure(plan: &BenchPlan) -> std::io::Result<(Outcome, std::io::Result<()>)> {
    let address = find(&plan.server)?;
    let load = plan.load;
    if plan.fills {
        let bar = progress(load.population.keys as u64, "filling {bar:30} {pos}/{len} keys {msg}");
        let told = load::fill(&address, load.dialect, load.population, plan.patience, &mut |keys| {
            bar.set_position(keys as u64);
        });
        bar.finish_and_clear();
        told?;
    }
    let mut generator = Generator::new(address, load, false, plan.patience);
    generator.check()?;
    let bar = progress(plan.time.as_millis() as u64, "asking  {bar:30} {percent} % {msg}");
    let measured = generator.run_until_it_breaks(plan.time, &mut |elapsed: Duration, batches| {
        let per_second = (batches * load.pipeline as u64) as f64 / elapsed.as_secs_f64();
        bar.set_message(format!("{per_second:.0} requests a second"));
        bar.set_position(elapsed.as_millis() as u64);
    });
    bar.finish_and_clear();
    Ok(measured)
}

/// A path is a unix socket, all else a host and a port.
fn find(server: &str) -> std::io::Result<Address> {
    if server.contains('/') {
        return Ok(Address::Unix(Path::new(server).to_owned()));
    }
    if node_address(server).is_err() {
        return Err(std::io::Error::other(
            "give the server as HOST:PORT, such as 127.0.0.1:11211, or as the path of a unix socket, with a / in it",
        ));
    }
    let found = server.to_socket_addrs()?.next();
    found.map(Address::Tcp).ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// A bar on standard error, if that is a terminal; else nothing is written.
fn progress(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
}

/// The part of the keys asked for that was found; none if no key was.
fn hit_percent(tally: &Tally) -> Option<f64> {
    let asked = tally.hits + tally.misses;
    (asked > 0).then(|| tally.hits as f64 * 100.0 / asked as f64)
}

fn summary(plan: &BenchPlan, outcome: &Outcome) -> String {
    let (load, population) = (&plan.load, &plan.load.population);
    let seconds = outcome.elapsed.as_secs_f64();
    let hits = match hit_percent(&outcome.tally) {
        Some(percent) => format!("{percent:.2} % of {} keys", outcome.tally.hits + outcome.tally.misses),
        None => "no key was asked for".to_owned(),
    };
    let percentiles: Vec<String> = PERCENTILES
        .iter()
        .map(|(percent, name)| format!("{name} {:.0}", outcome.percentile_us(*percent)))
        .collect();
    let limit = if outcome.busy > BUSY_MAX { ": it may be what limits the figures" } else { "" };
    [
        format!(
            "{}: {} connections, {} pipelined, {} % sets, {} keys, values of {} bytes",
            plan.server, load.connections, load.pipeline, load.sets, population.keys, population.value_bytes
        ),
        format!("requests    {} in {seconds:.1} s, {:.0} a second", outcome.requests, outcome.per_second()),
        format!("hits        {hits}"),
        match &outcome.refusal {
            Some(said) => format!("refused     {}, first by: {said}", outcome.tally.refused),
            None => format!("refused     {}", outcome.tally.refused),
        },
        format!("latency     {} µs, a batch", percentiles.join(", ")),
        format!("generator   busy {:.0} % of the time{limit}", outcome.busy * 100.0),
        left_behind(population),
    ]
    .join("\n")
}

/// What the server holds now that it did not hold before.
fn left_behind(population: &Population) -> String {
    let Population { prefix, keys, lifetime_s, .. } = population;
    let first = String::from_utf8_lossy(&requests::key(*prefix, 0)).into_owned();
    let until = match lifetime_s {
        0 => "for good (--keep)".to_owned(),
        seconds => format!("until each expires, {seconds} s after its set (--keep: for good)"),
    };
    format!("left        up to {keys} keys such as {first} stay in the server, {until}")
}

/// With why it ended early, if it did.
fn json_summary(plan: &BenchPlan, outcome: &Outcome, error: Option<&str>) -> String {
    let (load, tally) = (&plan.load, &outcome.tally);
    let latency_us: serde_json::Map<String, serde_json::Value> = PERCENTILES
        .iter()
        .map(|(percent, name)| ((*name).to_owned(), json!(outcome.percentile_us(*percent))))
        .collect();
    let summary = json!({
        "server": plan.server,
        "connections": load.connections,
        "pipeline": load.pipeline,
        "keys_a_get": load.keys,
        "sets_percent": load.sets,
        "rate": load.rate,
        "keys": load.population.keys,
        "value_bytes": load.population.value_bytes,
        "requests": outcome.requests,
        "seconds": outcome.elapsed.as_secs_f64(),
        "requests_a_second": outcome.per_second(),
        "hits": tally.hits,
        "misses": tally.misses,
        "refused": tally.refused,
        "refusal": outcome.refusal,
        "error": error,
        "keys_expire_after_s": (load.population.lifetime_s > 0).then_some(load.population.lifetime_s),
        "batch_latency_us": latency_us,
        "generator_busy": outcome.busy,
    });
    format!("{summary:#}")
}
