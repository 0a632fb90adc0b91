//! What a run over traces comes to: means over the sizes, the average over the traces, and how far our policies are from
//! the references.
//!
//! Lives here: which figures count together, and the table. Not here: where they come from (see `bin/hit_ratio`).
//!
//! Our engine has no figure where it can't be so small. A mean counts only the sizes at which every column of the run
//! has one, so that all columns are judged by the same; the table says of each trace how many sizes that are.

use std::fmt::{self, Display, Formatter};

/// One trace at one size.
pub struct Ratios {
    /// Capacity in percent of the trace's distinct bytes.
    pub percent: u64,
    /// By column: percent of the requests that hit.
    pub by_column: Vec<Option<f64>>,
}

struct TraceRatios {
    name: String,
    sizes: Vec<Ratios>,
}

/// The size at which a column is furthest below another.
#[derive(Debug, PartialEq)]
pub struct Shortfall {
    pub points: f64,
    pub percent: u64,
}

pub struct Summary {
    columns: Vec<String>,
    traces: Vec<TraceRatios>,
}

fn mean(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = figures.fold((0.0, 0), |(sum, count), figure| (sum + figure, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

impl TraceRatios {
    /// The sizes at which every column has a figure.
    fn shared(&self) -> impl Iterator<Item = &Ratios> {
        self.sizes.iter().filter(|ratios| ratios.by_column.iter().all(Option::is_some))
    }

    fn mean(&self, column: usize) -> Option<f64> {
        mean(self.shared().filter_map(|ratios| ratios.by_column[column]))
    }

    /// `None` where the column is nowhere below the other.
    fn shortfall(&self, column: usize, to: usize) -> Option<Shortfall> {
        let of_size = |ratios: &Ratios| {
            let points = ratios.by_column[to]? - ratios.by_column[column]?;
            (points > 0.0).then_some(Shortfall { points, percent: ratios.percent })
        };
        self.sizes.iter().filter_map(of_size).max_by(|one, other| one.points.total_cmp(&other.points))
    }
}

impl Summary {
    pub fn new(columns: Vec<String>) -> Summary {
        Summary { columns, traces: Vec::new() }
    }

    pub fn add(&mut self, trace: String, sizes: Vec<Ratios>) {
        assert!(sizes.iter().all(|ratios| ratios.by_column.len() == self.columns.len()));
        self.traces.push(TraceRatios { name: trace, sizes });
    }

    /// Over the traces' means, each trace counting once however long it is.
    fn average(&self, column: usize) -> Option<f64> {
        mean(self.traces.iter().filter_map(|trace| trace.mean(column)))
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    fn ours(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|column| self.columns[*column].starts_with("our-")).collect()
    }

    fn width(&self, column: usize) -> usize {
        self.columns[column].len().max(8)
    }

    fn write_means(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let all = 0..self.columns.len();
        write!(out, "{:20} {:>5}", "mean", "sizes")?;
        self.columns.iter().try_for_each(|name| write!(out, " {name:>8}"))?;
        writeln!(out)?;
        for trace in &self.traces {
            write!(out, "{:20} {:>2}/{:<2}", trace.name, trace.shared().count(), trace.sizes.len())?;
            all.clone().try_for_each(|column| write_figure(out, trace.mean(column), self.width(column)))?;
            writeln!(out)?;
        }
        write!(out, "{:20} {:5}", "average", "")?;
        all.clone().try_for_each(|column| write_figure(out, self.average(column), self.width(column)))?;
        writeln!(out)
    }

    /// A line a trace: for each of our columns the difference of its mean to a reference's, then its shortfall to LRU.
    fn write_ours(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let references: Vec<usize> = ["lru", "s3fifo"].iter().filter_map(|name| self.column(name)).collect();
        write!(out, "{:20}", "difference")?;
        for ours in self.ours() {
            for reference in &references {
                write!(out, " {:>17}", format!("{} to {}", self.columns[ours], self.columns[*reference]))?;
            }
            write!(out, " {:>15}", "worst to lru")?;
        }
        writeln!(out)?;
        let less = |one: Option<f64>, other: Option<f64>| Some(one? - other?);
        for trace in &self.traces {
            write!(out, "{:20}", trace.name)?;
            for ours in self.ours() {
                for reference in &references {
                    write_difference(out, less(trace.mean(ours), trace.mean(*reference)))?;
                }
                let shortfall = self.column("lru").and_then(|lru| trace.shortfall(ours, lru));
                write_shortfall(out, shortfall)?;
            }
            writeln!(out)?;
        }
        write!(out, "{:20}", "average, worst")?;
        for ours in self.ours() {
            for reference in &references {
                write_difference(out, less(self.average(ours), self.average(*reference)))?;
            }
            let of_trace =
                |trace: &TraceRatios| self.column("lru").and_then(|lru| trace.shortfall(ours, lru));
            let all = self.traces.iter().filter_map(of_trace);
            write_shortfall(out, all.max_by(|one, other| one.points.total_cmp(&other.points)))?;
        }
        writeln!(out)
    }
}

fn write_figure(out: &mut Formatter<'_>, figure: Option<f64>, width: usize) -> fmt::Result {
    match figure {
        Some(figure) => write!(out, " {figure:>width$.2}"),
        None => write!(out, " {:>width$}", "-"),
    }
}

fn write_difference(out: &mut Formatter<'_>, difference: Option<f64>) -> fmt::Result {
    match difference {
        Some(difference) => write!(out, " {difference:>+17.2}"),
        None => write!(out, " {:>17}", "-"),
    }
}

fn write_shortfall(out: &mut Formatter<'_>, shortfall: Option<Shortfall>) -> fmt::Result {
    let text = shortfall.map(|shortfall| format!("{:+.2} at {}%", -shortfall.points, shortfall.percent));
    write!(out, " {:>15}", text.as_deref().unwrap_or("none"))
}

impl Display for Summary {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        self.write_means(out)?;
        if !self.ours().is_empty() {
            writeln!(out)?;
            self.write_ours(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratios(percent: u64, by_column: [Option<f64>; 2]) -> Ratios {
        Ratios { percent, by_column: by_column.to_vec() }
    }

    fn summary() -> Summary {
        let mut summary = Summary::new(vec!["lru".to_owned(), "our-lru".to_owned()]);
        let sizes = [(1, [Some(2.0), None]), (5, [Some(10.0), Some(7.0)]), (10, [Some(20.0), Some(25.0)])];
        summary.add("one".to_owned(), sizes.map(|(percent, figures)| ratios(percent, figures)).into());
        summary.add("two".to_owned(), vec![ratios(1, [Some(40.0), Some(39.0)])]);
        summary
    }

    #[test]
    fn a_size_that_one_column_lacks_counts_for_no_column() {
        let summary = summary();
        assert_eq!(summary.traces[0].mean(0), Some(15.0));
        assert_eq!(summary.traces[0].mean(1), Some(16.0));
    }

    #[test]
    fn the_average_counts_each_trace_once() {
        assert_eq!(summary().average(0), Some(27.5));
        assert_eq!(summary().average(1), Some(27.5));
    }

    #[test]
    fn a_shortfall_is_that_of_the_worst_size_even_where_the_mean_is_ahead() {
        let summary = summary();
        assert_eq!(summary.traces[0].shortfall(1, 0), Some(Shortfall { points: 3.0, percent: 5 }));
        assert_eq!(summary.traces[1].shortfall(0, 1), None);
        let text = summary.to_string();
        assert_eq!(text.lines().last().unwrap().split_whitespace().last(), Some("5%"));
    }
}
