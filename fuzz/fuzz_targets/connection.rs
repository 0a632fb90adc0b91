//! A client's whole connection: what it says, nearly right in all three dialects, comes in pieces; answers, items,
//! counters and the end must be those of the same bytes in one piece.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hotspare_server::fuzzing::check_connection(data);
});
