//! Numbers on the command line: of bytes, as memcached's `-I` has them, of megabytes, and what is said of those that are none.

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

/// The megabytes of `-m`, where memcached passes over the letter of `64m`; with a g they are gigabytes.
pub(super) fn megabytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'm') => (&text[..text.len() - 1], 1),
        Some(b'g') => (&text[..text.len() - 1], 1 << 10),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| "give a number of megabytes, such as 64, or 64m or 2g".to_owned())
}

/// A refusal with what to give, where it only has the parser's words for a number that is none or out of range.
pub(super) fn in_plain_words(refusal: &str) -> String {
    const NO_NUMBERS: [&str; 2] = ["invalid digit found in string", "cannot parse integer from empty string"];
    let Some((what, why)) = refusal.rsplit_once(": ") else { return refusal.to_owned() };
    if NO_NUMBERS.contains(&why) {
        return format!("{what}: give a whole number");
    }
    if why == "number too large to fit in target type" {
        return format!("{what}: that is too large");
    }
    let range = why.split_once(" is not in ").and_then(|(_, range)| range.split_once("..="));
    // A bound that is the number type's alone is nobody's business.
    let is_of_type = |most: &str| [u32::MAX.to_string(), u64::MAX.to_string()].contains(&most.to_owned());
    match range {
        Some((least, most)) if is_of_type(most) => format!("{what}: give {least} or more"),
        Some((least, most)) => format!("{what}: give {least} to {most}"),
        None => refusal.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_may_have_the_letter_that_people_write() {
        for (text, number) in [("64", 64), ("0", 0), ("64m", 64), ("64M", 64), ("2g", 2048), ("1G", 1024)] {
            assert_eq!(megabytes(text), Ok(number), "{text}");
        }
        for text in ["", "m", "64k", "64mb", "64 m", "1.5g", "-1", "abc", "18446744073709551615g"] {
            assert!(megabytes(text).unwrap_err().contains("64m or 2g"), "{text}");
        }
    }

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
