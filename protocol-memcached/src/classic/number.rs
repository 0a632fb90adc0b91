//! Numbers as the protocol writes them (rule F7).

/// Digits only, no sign; overflow is no number.
pub(crate) fn unsigned(token: &[u8]) -> Option<u64> {
    /// As many nines fit 64 bits.
    const DIGITS_THAT_FIT: usize = 19;
    if token.is_empty() {
        return None;
    }
    if token.len() <= DIGITS_THAT_FIT {
        let mut number = 0;
        for byte in token {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + u64::from(digit);
        }
        return Some(number);
    }
    token.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Digits behind an optional `-`; what does not fit 64 bits becomes the nearest that does, since a client that asks
/// for a moment so far away means for ever (rule X3 takes 64 bits where memcached takes 32).
pub(crate) fn signed(token: &[u8]) -> Option<i64> {
    let (negative, digits) = match token.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, token),
    };
    let magnitude = match unsigned(digits) {
        Some(number) => i64::try_from(number).unwrap_or(i64::MAX),
        None if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) => return None,
        None => i64::MAX,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Like [`signed`], with white space and a `+` allowed before it: the expiry of storage commands (rule F7).
pub(crate) fn signed_leniently(token: &[u8]) -> Option<i64> {
    signed(without_plus(token))
}

/// Flags: 32 bits, white space and a `+` allowed before them (rules F7, L2).
pub(crate) fn flags(token: &[u8]) -> Option<u32> {
    unsigned(without_plus(token)).and_then(|number| u32::try_from(number).ok())
}

/// Without what the C library passes over before a number, but for the `-`.
fn without_plus(token: &[u8]) -> &[u8] {
    if token.first().is_some_and(u8::is_ascii_digit) {
        return token;
    }
    let is_space = |byte: &u8| matches!(byte, b'\t' | b'\r' | 0x0b | 0x0c);
    let from = token.iter().position(|byte| !is_space(byte)).unwrap_or(token.len());
    match &token[from..] {
        [b'+', digits @ ..] if !digits.starts_with(b"-") => digits,
        other => other,
    }
}

/// The most digits of a number of 64 bits.
pub(crate) const DIGITS_MAX: usize = 20;

/// Appends a decimal number.
#[inline]
pub(crate) fn write(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; DIGITS_MAX];
    let at = write_before(number, &mut digits, DIGITS_MAX);
    out.extend_from_slice(&digits[at..]);
}

/// Writes a decimal number so that it ends before `end`, where there must be room for it; gives where it begins.
#[inline]
pub(crate) fn write_before(number: u64, room: &mut [u8], end: usize) -> usize {
    let (mut at, mut rest) = (end, number);
    loop {
        at -= 1;
        room[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return at;
        }
    }
}

/// Appends a decimal number with its sign.
pub(crate) fn write_signed(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    write(number.unsigned_abs(), out);
}
