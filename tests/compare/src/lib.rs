//! Hotspare beside other caches: what they have in common, so that one loop measures all.

pub mod caches;
pub mod engine;
pub mod memcached;
pub mod peers;
pub mod policies;
// The file of the server's own, so that a build without one has it, too.
#[path = "../../../server-bin/src/bench/popularity.rs"]
pub mod popularity;
#[cfg(feature = "group")]
pub mod replica;
#[cfg(feature = "group")]
pub mod served;
pub mod summary;
pub mod trace;
pub mod workload;
