//! Requests of any bytes: the parsers never panic, and they always get on or ask for more.
#![no_main]

use hotspare_memcached::classic::{self, Limits, Parsed};
use hotspare_memcached::meta;
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
    let mut rest = data;
    while let meta::Parsed::Complete { consumed, .. } | meta::Parsed::Invalid { consumed, .. } =
        meta::parse_request(rest, &limits)
    {
        assert!(consumed > 0 && consumed <= rest.len());
        rest = &rest[consumed..];
    }
});
