//! The check by chance; the fuzz target `connection` goes further.

use proptest::prelude::*;

use super::check;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_connection_does_the_same_however_its_bytes_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes);
    }
}
