//! Servers under load: what they cost in CPU and time, whoever made them.
//!
//! Lives here: the words of the measurement. `process` starts a server and reads what the kernel counts of it, `pair` gives it
//! a replica, `relay` is a network between the two; the generator is the one of `hotspare bench`.

pub mod pair;
pub mod process;
pub mod relay;
pub mod workload;

/// The one in the middle; not a number if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
