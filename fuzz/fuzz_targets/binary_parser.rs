//! Binary requests and responses of any bytes: the parsers never panic, they always get on or ask for a bounded more,
//! and what a request's bytes say is what it encodes to again.
#![no_main]

use hotspare_memcached::binary::{self, Limits, Parsed, ParsedResponse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    let bytes_needed_max = binary::HEADER_BYTES + 255 + 65_535 + limits.value_bytes_max;
    let mut rest = data;
    loop {
        match binary::parse_request(rest, &limits) {
            Parsed::Complete { request, consumed } => {
                assert!(consumed >= binary::HEADER_BYTES && consumed <= rest.len());
                let mut again = Vec::new();
                request.encode(&mut again);
                match binary::parse_request(&again, &limits) {
                    Parsed::Complete { request: read, .. } => assert_eq!(read, request),
                    other => panic!("{request:?} became {other:?}"),
                }
                rest = &rest[consumed..];
            }
            Parsed::Incomplete { bytes_needed } => {
                assert!(bytes_needed > rest.len() && bytes_needed <= bytes_needed_max);
                break;
            }
            Parsed::Head { .. } => panic!("by default no value is large"),
            Parsed::Invalid { .. } | Parsed::Close => break,
        }
    }
    match binary::parse_response(data, &limits) {
        ParsedResponse::Complete { consumed, .. } => assert!(consumed <= data.len()),
        ParsedResponse::Incomplete { bytes_needed } => {
            assert!(bytes_needed > data.len() && bytes_needed <= bytes_needed_max);
        }
        ParsedResponse::Invalid => {}
    }
});
