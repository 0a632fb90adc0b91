//! The test kit: what the tests of the whole product share.
//!
//! Lives here: servers and nodes as processes, their administration, requests to replay, what to measure, and the house
//! rules.
//! Not here: the tests themselves, nor anything that the product runs.

pub mod admin;
pub mod chaos;
pub mod differential;
pub mod hit_ratio;
pub mod linearizable;
pub mod nodes;
pub mod ports;
pub mod process;
pub mod simulation;
pub mod soak;
pub mod tidy;
pub mod wait;
pub mod workload;
