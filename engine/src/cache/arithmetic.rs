//! Counters kept as text: the arithmetic of `incr` and `decr` (rules A2 to A5, Z1).

/// Which way a counter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Adds, modulo 2^64.
    Up,
    /// Subtracts, down to 0.
    Down,
}

/// The number that a stored value spells: spaces, digits, then the end or a space. `None` if it spells none.
pub fn parse(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii_start();
    let length = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let ends_well = digits.get(length).is_none_or(u8::is_ascii_whitespace);
    if length == 0 || !ends_well {
        return None;
    }
    digits[..length]
        .iter()
        .try_fold(0u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// The number after the step.
pub(crate) fn step(number: u64, direction: Direction, delta: u64) -> u64 {
    match direction {
        Direction::Up => number.wrapping_add(delta),
        Direction::Down => number.saturating_sub(delta),
    }
}

/// The text to store: the number, padded with spaces to the length that was there (rule A5).
pub fn text(number: u64, old_bytes: usize) -> Vec<u8> {
    let mut text = number.to_string().into_bytes();
    if text.len() < old_bytes {
        text.resize(old_bytes, b' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_z1_what_counts_as_a_number() {
        assert_eq!(parse(b"12"), Some(12));
        assert_eq!(parse(b" 12"), Some(12));
        assert_eq!(parse(b"12 "), Some(12));
        assert_eq!(parse(b"000000000000000000005"), Some(5));
        assert_eq!(parse(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b" ", b"-1", b"12a", b"a", b"18446744073709551616", b"1\0"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a4_a5_steps_wrap_stop_and_pad() {
        assert_eq!(step(u64::MAX, Direction::Up, 2), 1);
        assert_eq!(step(5, Direction::Down, 6), 0);
        assert_eq!(text(9, 2), b"9 ");
        assert_eq!(text(100, 2), b"100");
    }
}
