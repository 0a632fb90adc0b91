//! The demonstration's picture for a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Figures, Ratios};

const BAR_WIDTH: usize = 40;
const ROWS_MAX: usize = 24;

/// A bar on standard error while requests are played.
pub(crate) struct Progress {
    requests: u64,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(requests: u64, shown: bool) -> Progress {
        Progress { requests, shown }
    }

    pub(crate) fn show(&mut self, played: u64) {
        if self.shown {
            let filled = (played * BAR_WIDTH as u64 / self.requests.max(1)) as usize;
            let (done, left) = ("#".repeat(filled), ".".repeat(BAR_WIDTH.saturating_sub(filled)));
            eprint!("\r[{done}{left}] {played} of {} requests", self.requests);
            // A terminal that is gone misses nothing.
            let _ = std::io::stderr().flush();
        }
    }

    pub(crate) fn end(&mut self) {
        if self.shown {
            eprintln!();
        }
    }
}

/// The figures as text: a bar for each window, then the sums.
pub(crate) fn draw(figures: &Figures) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "hit ratio in windows of {} requests; # the pair, | the node that never failed, o the one that came back empty\n",
        figures.window_requests
    );
    let killed_after = (figures.killed_at_request / figures.window_requests) as usize;
    let step = figures.windows.len().div_ceil(ROWS_MAX).max(1);
    for (row, windows) in figures.windows.chunks(step).enumerate() {
        let first = row * step;
        if (first..first + windows.len()).contains(&killed_after) {
            let _ = writeln!(
                out,
                "{:>9}  -- the primary is killed, the spare promoted --",
                figures.killed_at_request
            );
        }
        let last = windows[windows.len() - 1];
        let at = (first + windows.len()) as u64 * figures.window_requests;
        let _ = writeln!(out, "{at:>9}  {}  {:5.1} %", bar(&last), last.hotspare);
    }
    let Figures { hit_ratio_before: before, hit_ratio_after: after, worst_window_dip_points: dips, .. } =
        figures;
    let _ = writeln!(out, "\n{:<24}{:>10}{:>10}{:>22}", "", "before", "after", "worst window");
    let rows = [
        ("hotspare", before.hotspare, after.hotspare, Some(dips.hotspare)),
        ("never failed", before.never_failed, after.never_failed, None),
        ("came back empty", before.came_back_empty, after.came_back_empty, Some(dips.came_back_empty)),
    ];
    for (name, before, after, dip) in rows {
        let dip = dip.map_or(String::new(), |points| format!("-{points:.2} points"));
        let _ = writeln!(out, "{name:<24}{before:>8.2} %{after:>8.2} %{dip:>22}");
    }
    let _ = writeln!(
        out,
        "\n{} requests, {:.1} MB of memory for {:.1} MB of items, {:.2} evictions a set\n\
         promoted in {:.1} ms; {} answered writes lost; {} wrong values",
        figures.requests,
        figures.capacity_bytes as f64 / 1e6,
        figures.distinct_bytes as f64 / 1e6,
        figures.evictions_per_set,
        figures.promote_ms,
        figures.writes_lost,
        figures.wrong_values
    );
    if figures.value_factor > 1 {
        let _ = writeln!(
            out,
            "values were enlarged {} times, since the smallest cache is 1 MiB",
            figures.value_factor
        );
    }
    if let Some(warning) = &figures.warning {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn bar(window: &Ratios) -> String {
    let column = |percent: f64| ((percent / 100.0 * BAR_WIDTH as f64) as usize).min(BAR_WIDTH - 1);
    let mut cells = vec!['.'; BAR_WIDTH];
    cells[..=column(window.hotspare)].fill('#');
    cells[column(window.came_back_empty)] = 'o';
    cells[column(window.never_failed)] = '|';
    cells.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_marks_all_three_nodes() {
        let bar = bar(&Ratios { hotspare: 50.0, never_failed: 100.0, came_back_empty: 0.0 });
        assert_eq!(bar.chars().count(), BAR_WIDTH);
        assert!(bar.starts_with("o#") && bar.ends_with(".|"));
    }
}
