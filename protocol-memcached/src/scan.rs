//! Where a word ends, looked for eight bytes at a time.
//!
//! Words here are some dozens of bytes long: what a search over vector registers costs before it begins would be most of
//! its cost.

/// Eight times this byte.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// How many bytes come before the first of those that `is_end` and `ends` choose, which must choose alike: `ends` is given
/// eight bytes, the first lowest, and gives back a word whose lowest set bit lies in the first chosen one of them.
#[inline(always)]
fn bytes_before(text: &[u8], is_end: impl Fn(u8) -> bool, ends: impl Fn(u64) -> u64) -> usize {
    for (at, eight) in text.as_chunks::<8>().0.iter().enumerate() {
        let found = ends(u64::from_le_bytes(*eight));
        if found != 0 {
            return 8 * at + found.trailing_zeros() as usize / 8;
        }
    }
    // The last eight once more, as far as they were looked at: none of those is an end.
    if let Some(eight) = text.last_chunk::<8>() {
        let found = ends(u64::from_le_bytes(*eight));
        return if found == 0 { text.len() } else { text.len() - 8 + found.trailing_zeros() as usize / 8 };
    }
    text.iter().position(|byte| is_end(*byte)).unwrap_or(text.len())
}

/// How many bytes come before the first space.
#[inline]
pub(crate) fn word_bytes(text: &[u8]) -> usize {
    let ends = |eight: u64| {
        let differs = eight ^ repeated(b' ');
        // A byte that is zero borrows; above the lowest of them others may be marked, too.
        differs.wrapping_sub(repeated(1)) & !differs & repeated(0x80)
    };
    bytes_before(text, |byte| byte == b' ', ends)
}

/// How many bytes come before the first space or control character.
#[inline]
pub(crate) fn graphic_bytes(text: &[u8]) -> usize {
    let ends = |eight: u64| eight.wrapping_sub(repeated(b' ' + 1)) & !eight & repeated(0x80);
    bytes_before(text, |byte| byte <= b' ', ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ends_are_where_a_look_at_each_byte_finds_them(
            text in proptest::collection::vec(
                prop_oneof![Just(b' '), Just(b'\r'), Just(0x21), Just(0x80), Just(0xa0), any::<u8>()], 0..40,
            ),
        ) {
            let first = |is_end: fn(&u8) -> bool| text.iter().position(is_end).unwrap_or(text.len());
            prop_assert_eq!(word_bytes(&text), first(|byte| *byte == b' '));
            prop_assert_eq!(graphic_bytes(&text), first(|byte| *byte <= b' '));
        }

        #[test]
        fn ends_of_long_words_are_found(word in proptest::collection::vec(0x21_u8.., 0..70), rest in "[ \r]?.{0,9}") {
            let text = [&word[..], rest.as_bytes()].concat();
            let first = |is_end: fn(&u8) -> bool| text.iter().position(is_end).unwrap_or(text.len());
            prop_assert_eq!(word_bytes(&text), first(|byte| *byte == b' '));
            prop_assert_eq!(graphic_bytes(&text), first(|byte| *byte <= b' '));
        }
    }
}
