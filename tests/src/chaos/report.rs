//! What a run comes to, for people and for programs.

use serde_json::{Value, json};

use super::Options;
use super::judge::Tally;

/// How often each thing was done.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) cycles: u64,
    pub(super) kills_of_primary: u64,
    pub(super) kills_of_replica: u64,
    pub(super) pauses: u64,
    pub(super) cuts: u64,
    pub(super) deaf_ways: u64,
    pub(super) delays: u64,
    pub(super) hand_overs: u64,
    pub(super) refused_hand_overs: u64,
    pub(super) restarts: u64,
    pub(super) warm_restarts: u64,
    pub(super) empty_returns: u64,
    pub(super) promotions: u64,
    /// Cycles that began with a link that did not go through a proxy, so that its network had no faults.
    pub(super) straight_links: u64,
}

/// What a run has found.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) seed: u64,
    pub(super) ack: String,
    pub(super) judged_as: String,
    pub(super) replicas: usize,
    pub(super) seconds: f64,
    pub(super) counts: Counts,
    pub(super) tally: Tally,
    pub(super) statuses: u64,
    pub(super) overruled: u64,
    /// Writes and milliseconds.
    pub(super) exported_max: (u64, u64),
    pub(super) convergence_ms_max: u64,
    pub(super) split_brain_ms_max: u64,
    pub(super) hand_over_ms_max: f64,
    pub(super) resident_mib_max: u64,
    pub(super) complaints: Vec<String>,
    pub(super) more_complaints: u64,
}

impl Report {
    /// Of a run that has not begun.
    pub(super) fn new(options: &Options) -> Report {
        Report {
            seed: options.seed,
            ack: options.ack_words(),
            judged_as: options.judge_as.word().to_owned(),
            replicas: options.replicas,
            seconds: 0.0,
            counts: Counts::default(),
            tally: Tally::default(),
            statuses: 0,
            overruled: 0,
            exported_max: (0, 0),
            convergence_ms_max: 0,
            split_brain_ms_max: 0,
            hand_over_ms_max: 0.0,
            resident_mib_max: 0,
            complaints: Vec::new(),
            more_complaints: 0,
        }
    }

    /// What was promised and not held, in words; empty is good.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// How many acknowledged writes were lost.
    pub fn lost(&self) -> u64 {
        self.tally.lost
    }

    fn rows(&self) -> Vec<(&'static str, Value)> {
        let (counts, tally) = (&self.counts, &self.tally);
        vec![
            ("seed", json!(self.seed)),
            ("ack", json!(self.ack)),
            ("judged_as", json!(self.judged_as)),
            ("replicas", json!(self.replicas)),
            ("seconds", json!(self.seconds.round())),
            ("cycles", json!(counts.cycles)),
            ("kills", json!(counts.kills_of_primary + counts.kills_of_replica)),
            ("kills_of_the_primary", json!(counts.kills_of_primary)),
            ("kills_of_a_replica", json!(counts.kills_of_replica)),
            ("pauses", json!(counts.pauses)),
            ("cuts", json!(counts.cuts)),
            ("deaf_ways", json!(counts.deaf_ways)),
            ("slow_networks", json!(counts.delays)),
            ("hand_overs", json!(counts.hand_overs)),
            ("hand_overs_refused", json!(counts.refused_hand_overs)),
            ("restarts", json!(counts.restarts)),
            ("warm_restarts", json!(counts.warm_restarts)),
            ("empty_returns", json!(counts.empty_returns)),
            ("promotions", json!(counts.promotions)),
            ("promotions_of_a_node_not_level", json!(self.overruled)),
            ("cycles_with_a_straight_link", json!(counts.straight_links)),
            (
                "requests",
                json!(tally.acknowledged + tally.unknown + tally.refused + tally.hits + tally.misses),
            ),
            ("acknowledged_writes", json!(tally.acknowledged)),
            ("unknown_writes", json!(tally.unknown)),
            ("of_them_taken_by_an_empty_node", json!(tally.written_to_empty)),
            ("refused_writes", json!(tally.refused)),
            ("hits", json!(tally.hits)),
            ("misses", json!(tally.misses)),
            ("lost_writes", json!(tally.lost)),
            ("lost_at_once_max", json!(tally.lost_at_once_max)),
            ("of_them_in_split_brain", json!(tally.split_brain_writes)),
            ("exported_risk_writes_max", json!(self.exported_max.0)),
            ("exported_risk_ms_max", json!(self.exported_max.1)),
            ("exported_ms_too_young_max", json!(tally.told_too_young_ms.1)),
            ("exported_ms_too_young_after_a_cut_max", json!(tally.told_too_young_ms.0)),
            ("keys_not_linearizable", json!(self.count("not linearizable"))),
            ("stale_hits_explained", json!(tally.stale_explained)),
            ("stale_hits_unexplained", json!(self.count("a stale hit"))),
            ("stale_hits_on_an_old_primary_or_replica", json!(tally.stale_elsewhere)),
            ("split_brain_ms_max", json!(self.split_brain_ms_max)),
            ("hand_over_pause_ms_max", json!(self.hand_over_ms_max)),
            ("convergence_ms_max", json!(self.convergence_ms_max)),
            ("resident_mib_max", json!(self.resident_mib_max)),
            ("statuses_read", json!(self.statuses)),
            ("broken_promises", json!(self.complaints.len() as u64 + self.more_complaints)),
        ]
    }

    fn count(&self, beginning: &str) -> usize {
        self.complaints.iter().filter(|text| text.contains(beginning)).count()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let lines = self.rows().into_iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{:<40}{value}", name.replace('_', " "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let mut fields: serde_json::Map<String, Value> =
            self.rows().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        fields.insert("complaints".to_owned(), json!(self.complaints));
        Value::Object(fields)
    }
}
