//! Servers under load: what they cost in CPU and time, whoever made them.
//!
//! Lives here: the words of the measurement. `process` starts a server and reads what the kernel counts of it; the generator
//! is the one of `hotspare bench`.

pub mod process;
pub mod workload;
