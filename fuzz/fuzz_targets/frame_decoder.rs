//! Replication frames: decoding never panics and never reserves what was only announced.
//!
//! The first byte chooses: raw bytes, most of which end at a frame's checksum, or bodies of frames that are given the
//! right one, so that hellos, messages and records are reached; those must read back as themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| match data {
    [0..32, raw @ ..] => {
        hotspare::fuzzing::decode_frames(raw);
    }
    [_, pieces @ ..] => hotspare::fuzzing::decode_bodies(pieces),
    [] => {}
});
