//! Requests of any bytes: the parser never panics, and it always gets on or asks for more.
#![no_main]

use hotspare_memcached::classic::{self, Limits, Parsed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let mut rest = data;
    while let Parsed::Complete { consumed, .. } | Parsed::Invalid { consumed, .. } =
        classic::parse_request(rest, &limits)
    {
        assert!(consumed > 0 && consumed <= rest.len());
        rest = &rest[consumed..];
    }
});
