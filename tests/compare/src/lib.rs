//! Hotspare beside other caches: what they have in common, so that one loop measures all.

pub mod caches;
pub mod engine;
pub mod memcached;
pub mod peers;
pub mod policies;
pub mod served;
pub mod summary;
pub mod trace;
pub mod workload;
