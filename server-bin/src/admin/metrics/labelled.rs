//! The metrics with labels: requests by command, their times, memory by kind, the role, resyncs, the replicas.
//!
//! Lives here: the format of what has labels. Not here: the plain numbers (see `metrics`).

use std::fmt::Write;

use hotspare::{LeaseState, Role, Stats, Status};

use crate::server::{CountersSnapshot, HistogramSnapshot, RequestsSnapshot, bound_ns};

const LEASES: [LeaseState; 5] =
    [LeaseState::None, LeaseState::Waiting, LeaseState::Held, LeaseState::Unneeded, LeaseState::Over];

const ROLES: [Role; 4] = [Role::Standalone, Role::Primary, Role::Replica, Role::Fenced];

/// All of them, in Prometheus's text format.
pub(super) fn text(stats: &Stats, status: &Status, server: &CountersSnapshot) -> String {
    let mut page = Page::default();
    requests(&server.requests, &mut page);
    memory(stats, status, server, &mut page);
    page.begin("role", "gauge", "1 for the role that the node has.");
    for role in ROLES {
        page.sample("role", &[("role", role.as_str())], u64::from(status.role == role));
    }
    page.begin("lease", "gauge", "1 for how a strict primary stands to its lease.");
    for state in LEASES {
        page.sample("lease", &[("state", state.as_str())], u64::from(status.lease.state == state));
    }
    page.begin("resyncs_total", "counter", "Resumptions from the log, and full copies begun.");
    page.sample("resyncs_total", &[("kind", "catch_up")], status.catch_ups);
    page.sample("resyncs_total", &[("kind", "install")], status.installs);
    replicas(status, &mut page);
    if let Some(ms) = status.staleness_ms {
        page.begin("staleness_ms", "gauge", "Milliseconds since this replica had all that its primary had.");
        page.sample("staleness_ms", &[], ms);
    }
    page.out
}

fn requests(requests: &RequestsSnapshot, page: &mut Page) {
    page.begin("requests_total", "counter", "Requests by command; a get of many keys is one.");
    for (command, count, _) in requests.by_command() {
        page.sample("requests_total", &[("command", command)], count);
    }
    let help = "Seconds of a sampled request's execution, without the network; of about 1 in 16, of all with a slow log.";
    page.begin("request_duration_seconds", "histogram", help);
    for (command, _, times) in requests.by_command().filter(|(_, _, times)| times.count() > 0) {
        page.histogram("request_duration_seconds", &[("command", command)], times);
    }
    let help = "Seconds of a sampled turn of a connection: what has come is read, executed and answered.";
    page.begin("turn_duration_seconds", "histogram", help);
    page.histogram("turn_duration_seconds", &[], &requests.turns);
}

fn memory(stats: &Stats, status: &Status, server: &CountersSnapshot, page: &mut Page) {
    let kinds = [
        ("items", stats.memory_bytes.saturating_sub(stats.index_bytes + stats.pinned_bytes)),
        ("pinned", stats.pinned_bytes),
        ("index", stats.index_bytes),
        ("log", status.log_bytes),
        ("buffers", server.buffer_bytes),
    ];
    let help = "Bytes held: pages of items, values whose items have gone while clients still read them, index, replication \
                log, and what connections keep between their turns.";
    page.begin("memory_kind_bytes", "gauge", help);
    for (kind, bytes) in kinds {
        page.sample("memory_kind_bytes", &[("kind", kind)], bytes);
    }
}

fn replicas(status: &Status, page: &mut Page) {
    if status.replicas.is_empty() {
        return;
    }
    page.begin("replica_info", "gauge", "1 for each replica attached: who, where, and how far.");
    for replica in &status.replicas {
        let node = format!("{:032x}", replica.node);
        let state = replica.state.as_str();
        let labels = [("node", &node[..]), ("address", &replica.address), ("state", state)];
        page.sample("replica_info", &labels, 1);
    }
}

/// What is written so far. Writing to a string can't fail.
#[derive(Default)]
struct Page {
    out: String,
}

impl Page {
    /// Begins a family.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.out, "# HELP hotspare_{name} {help}\n# TYPE hotspare_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.out, "hotspare_{name}");
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{before}{label}=\"{}\"", escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], times: &HistogramSnapshot) {
        let mut count = 0;
        for (bucket, in_bucket) in times.buckets.iter().enumerate() {
            count += in_bucket;
            let bound = bound_ns(bucket).map_or("+Inf".to_owned(), |ns| seconds(ns).to_string());
            self.sample(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(times.sum_ns));
        self.sample(&format!("{name}_count"), labels, count);
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A label's text, as the format has it: an address is another node's word.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_can_hold_anything() {
        let mut page = Page::default();
        page.sample("x", &[("a", "1\"2\\3\n4"), ("b", "")], 7);
        assert_eq!(page.out, "hotspare_x{a=\"1\\\"2\\\\3\\n4\",b=\"\"} 7\n");
    }

    #[test]
    fn a_histogram_counts_upwards() {
        let mut times = HistogramSnapshot { sum_ns: 1_500, ..HistogramSnapshot::default() };
        (times.buckets[0], times.buckets[2], times.buckets[21]) = (1, 2, 4);
        let mut page = Page::default();
        page.histogram("t_seconds", &[("command", "get")], &times);
        for line in [
            "hotspare_t_seconds_bucket{command=\"get\",le=\"0.000000256\"} 1\n",
            "hotspare_t_seconds_bucket{command=\"get\",le=\"0.000001024\"} 3\n",
            "hotspare_t_seconds_bucket{command=\"get\",le=\"0.268435456\"} 3\n",
            "hotspare_t_seconds_bucket{command=\"get\",le=\"+Inf\"} 7\n",
            "hotspare_t_seconds_sum{command=\"get\"} 0.0000015\n",
            "hotspare_t_seconds_count{command=\"get\"} 7\n",
        ] {
            assert!(page.out.contains(line), "{line}{}", page.out);
        }
    }
}
