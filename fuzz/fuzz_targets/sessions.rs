//! Replication sessions: a whole node stands whatever a peer says, on whatever channel, as its primary or as its replica.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hotspare::fuzzing::talk_to_a_node(data);
});
