//! Replication frames of any bytes: decoding never panics and never reserves what was only announced.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hotspare::fuzzing::decode_frames(data);
});
