//! Numbers of bytes on the command line, as memcached's `-I` has them.

/// A number of bytes, or of kilobytes, megabytes or gigabytes (of 1024 each) by a letter behind it.
pub(super) fn byte_count(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| "give a number of bytes, or with k, m or g behind it, such as 32m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_stands_for_1024_times_as_much_in_either_case() {
        for (text, bytes) in [("0", 0), ("65536", 65536), ("1k", 1 << 10), ("32m", 32 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(byte_count(text), Ok(bytes), "{text}");
            assert_eq!(byte_count(&text.to_uppercase()), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_above_all_numbers_is_refused() {
        for text in
            ["", "k", "-1", "-1k", "1.5m", "1kb", "1 k", "32mm", "m32", "32\u{212a}", "18446744073709551615k"]
        {
            assert!(byte_count(text).unwrap_err().contains("32m"), "{text}");
        }
    }
}
