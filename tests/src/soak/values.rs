//! Values that tell whose they are, so that an answer can be judged whenever it comes.

/// A value of `bytes` bytes that only `key` can have.
pub fn of(key: &str, bytes: usize) -> Vec<u8> {
    let pattern = format!("{key}:{bytes}|");
    pattern.bytes().cycle().take(bytes).collect()
}

/// Whether `value` is one of `key`'s.
pub fn is_of(key: &str, value: &[u8]) -> bool {
    let pattern = format!("{key}:{}|", value.len());
    value.chunks(pattern.len()).all(|chunk| *chunk == pattern.as_bytes()[..chunk.len()])
}

/// What is wrong with `answers`, the replies to sets and gets up to the `MN` at their end; `Ok` if each is `STORED`, or
/// a value of the key that it names. With `may_want_memory` a set may be refused for want of memory.
///
/// # Errors
/// The first answer that is neither, shortened.
pub fn judge(mut answers: &[u8], may_want_memory: bool) -> Result<(), String> {
    loop {
        let end = answers.windows(2).position(|pair| pair == b"\r\n").ok_or("an answer without an end")?;
        let line = String::from_utf8_lossy(&answers[..end]).into_owned();
        answers = &answers[end + 2..];
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["MN"] => return if answers.is_empty() { Ok(()) } else { Err("more than was asked for".into()) },
            ["STORED" | "END" | "DELETED" | "NOT_FOUND"] => {}
            ["SERVER_ERROR", "out", "of", "memory", "storing", "object"] if may_want_memory => {}
            ["VALUE", key, _, bytes] => {
                let bytes: usize = bytes.parse().map_err(|_| line.clone())?;
                let value = answers.get(..bytes).ok_or("a value that is cut")?;
                if !is_of(key, value) {
                    return Err(format!("a wrong value of {bytes} bytes for {key}"));
                }
                answers = answers.get(bytes + 2..).ok_or("a value without an end")?;
            }
            _ => return Err(line.chars().take(100).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right_or_named() {
        let value = String::from_utf8(of("a", 7)).expect("ASCII");
        assert_eq!(value, "a:7|a:7");
        let answer = |value: &str| format!("STORED\r\nVALUE a 0 {}\r\n{value}\r\nEND\r\nMN\r\n", value.len());
        let judged = |answers: &[u8]| judge(answers, false);
        assert_eq!(judged(answer(&value).as_bytes()), Ok(()));
        assert!(judged(answer("a:7|b:7").as_bytes()).is_err());
        assert!(judged(answer(&value[..6]).as_bytes()).is_err());
        let refused = b"SERVER_ERROR out of memory storing object\r\nMN\r\n";
        assert!(judged(refused).is_err() && judge(refused, true).is_ok());
        assert!(judge(b"SERVER_ERROR out of memory\r\nMN\r\n", true).is_err());
        assert!(judged(b"MN\r\nMN\r\n").is_err());
        assert!(judged(b"STORED\r\n").is_err());
    }
}
