//! Where a word ends.
//!
//! Words here are some dozens of bytes long: what a search by a library costs before it begins would be most of its cost. Sixteen
//! bytes are asked at once whether there is an end among them, which compilers turn into three instructions over a vector
//! register; where it lies in them is looked for eight at a time.

/// Eight times this byte.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// How many bytes come before the first of those that `is_end` and `ends` choose, which must choose alike: `ends` is given
/// eight bytes, the first lowest, and gives back a word whose lowest set bit lies in the first chosen one of them.
#[inline(always)]
fn bytes_before(text: &[u8], is_end: impl Fn(u8) -> bool, ends: impl Fn(u64) -> u64) -> usize {
    // Without a way out of the loop in its middle: so it is one comparison of all sixteen.
    let has_end = |sixteen: &[u8; 16]| sixteen.iter().fold(false, |has_end, byte| has_end | is_end(*byte));
    let first_of = |eight: &[u8; 8]| match ends(u64::from_le_bytes(*eight)) {
        0 => None,
        found => Some(found.trailing_zeros() as usize / 8),
    };
    let mut rest = text;
    while let Some((sixteen, behind)) = rest.split_first_chunk::<16>() {
        if has_end(sixteen) {
            let [low, high] = sixteen.as_chunks::<8>().0 else { unreachable!("twice eight are sixteen") };
            let first = first_of(low).or_else(|| Some(8 + first_of(high)?)).unwrap_or(16);
            return text.len() - rest.len() + first;
        }
        rest = behind;
    }
    let begin = text.len() - rest.len();
    if let Some(first) = rest.first_chunk::<8>().and_then(first_of) {
        return begin + first;
    }
    // The last eight once more, as far as they were looked at: none of those is an end.
    match text.last_chunk::<8>() {
        Some(eight) => first_of(eight).map_or(text.len(), |first| text.len() - 8 + first),
        None => text.iter().position(|byte| is_end(*byte)).unwrap_or(text.len()),
    }
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
