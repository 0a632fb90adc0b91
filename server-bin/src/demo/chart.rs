//! The demonstration's picture for a terminal.

use std::fmt::Write as _;
use std::io::Write as _;

use super::{Figures, Ratios};

const BAR_WIDTH: usize = 40;
const ROWS_MAX: usize = 24;

/// How progress is shown on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressStyle {
    /// A bar that grows, for a terminal.
    Bar,
    /// A line for each tenth, for a log.
    Lines,
    /// Not at all.
    Silent,
}

/// What is shown while requests are played.
pub(crate) struct Progress {
    requests: u64,
    style: ProgressStyle,
    tenths: u64,
}

impl Progress {
    pub(crate) fn new(requests: u64, style: ProgressStyle) -> Progress {
        Progress { requests: requests.max(1), style, tenths: 0 }
    }

    pub(crate) fn show(&mut self, played: u64) {
        let mut out = std::io::stderr();
        // A terminal or a log that is gone misses nothing.
        let _ = match self.style {
            ProgressStyle::Bar => {
                let filled = (played * BAR_WIDTH as u64 / self.requests) as usize;
                let (done, left) = ("#".repeat(filled), ".".repeat(BAR_WIDTH.saturating_sub(filled)));
                write!(out, "\r[{done}{left}] {played} of {} requests", self.requests)
            }
            ProgressStyle::Lines if played * 10 / self.requests > self.tenths => {
                self.tenths = played * 10 / self.requests;
                writeln!(out, "{played} of {} requests", self.requests)
            }
            ProgressStyle::Lines | ProgressStyle::Silent => Ok(()),
        };
    }

    pub(crate) fn end(&mut self) {
        if self.style == ProgressStyle::Bar {
            let _ = writeln!(std::io::stderr());
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
    let (before, after) = figures.windows.split_at(killed_after.min(figures.windows.len()));
    let step = figures.windows.len().div_ceil(ROWS_MAX).max(1);
    draw_windows(&mut out, before, step, 0, figures.window_requests);
    let _ =
        writeln!(out, "{:>9}  -- the primary is killed, the spare promoted --", figures.killed_at_request);
    draw_windows(&mut out, after, step, figures.killed_at_request, figures.window_requests);
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

/// A bar for each `step` windows: the one of them where the empty node stands worst, so that none hides behind another.
fn draw_windows(out: &mut String, windows: &[Ratios], step: usize, first_request: u64, window_requests: u64) {
    let mut at = first_request;
    for group in windows.chunks(step) {
        at += group.len() as u64 * window_requests;
        let worst = group.iter().min_by(|a, b| a.came_back_empty.total_cmp(&b.came_back_empty));
        if let Some(window) = worst {
            let _ = writeln!(out, "{at:>9}  {}  {:5.1} %", bar(window), window.hotspare);
        }
    }
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
    fn the_worst_window_after_the_kill_is_drawn_though_it_shares_its_row() {
        let good = Ratios { hotspare: 50.0, never_failed: 50.0, came_back_empty: 50.0 };
        let bad = Ratios { came_back_empty: 0.0, ..good };
        let mut out = String::new();
        draw_windows(&mut out, &[bad, good, good], 2, 300, 10);
        let rows: Vec<&str> = out.lines().collect();
        assert!(rows[0].starts_with("      320  o") && rows[1].starts_with("      330  #"), "{out}");
    }

    #[test]
    fn a_bar_marks_all_three_nodes() {
        let bar = bar(&Ratios { hotspare: 50.0, never_failed: 100.0, came_back_empty: 0.0 });
        assert_eq!(bar.chars().count(), BAR_WIDTH);
        assert!(bar.starts_with("o#") && bar.ends_with(".|"));
    }
}
