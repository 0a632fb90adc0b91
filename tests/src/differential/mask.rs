//! What may differ in answers that say the same: CAS values that the servers gave, times to the second, versions, figures.

use super::Dialect;
use super::text::GIVEN_CAS;

/// The longest time that is counted from now (rule X1), in seconds.
const LIFETIME_MAX_S: u64 = 2_592_000;

/// The answer with `*` in place of what may differ, one line (or packet) a line.
pub(super) fn mask(dialect: Dialect, answer: &[u8]) -> String {
    match dialect {
        Dialect::Binary => packets(answer),
        _ => lines(answer),
    }
}

fn lines(mut answer: &[u8]) -> String {
    let mut masked = String::new();
    while !answer.is_empty() {
        let end = answer.iter().position(|byte| *byte == b'\n').map_or(answer.len(), |at| at + 1);
        let (line, rest) = answer.split_at(end);
        answer = rest;
        if let Some(table) = [&b"STAT "[..], b"ITEM ", b"PREFIX "].iter().find(|head| line.starts_with(head))
        {
            // Names and figures of a table are not compared here; that there is one is, for those that are never empty.
            if **table == *b"STAT " && !masked.ends_with("STAT *\n") {
                masked.push_str("STAT *\n");
            }
            continue;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
        let line_end = &line[text.len()..];
        let told: Vec<String> =
            words.iter().enumerate().map(|(place, word)| mask_word(&words, place, word)).collect();
        masked.push_str(told.join(" ").trim_end());
        if line_end != b"\r\n" {
            masked.push_str(&line_end.escape_ascii().to_string());
        }
        masked.push('\n');
        let value_bytes = match words[0] {
            b"VALUE" => words.get(3),
            b"VA" => words.get(1),
            _ => None,
        };
        if let Some(bytes) = value_bytes.and_then(|word| str::from_utf8(word).ok()?.parse::<usize>().ok()) {
            let (value, rest) = answer.split_at((bytes + 2).min(answer.len()));
            masked.push_str(&shown(value));
            masked.push('\n');
            answer = rest;
        }
    }
    masked
}

/// One word of a line, masked by what it means there.
fn mask_word(words: &[&[u8]], place: usize, word: &[u8]) -> String {
    let text = word.escape_ascii().to_string();
    let is_flag = place > 0 && matches!(words[0], b"HD" | b"VA" | b"EN" | b"NF" | b"NS" | b"EX");
    match (words[0], text.split_at_checked(1)) {
        (b"VALUE", _) if place == 4 => mask_cas(&text),
        (b"VERSION", _) if place == 1 => "*".to_owned(),
        // Not the key, which may end in the equals signs of base64.
        (b"ME", _) if place > 1 => match text.split_once('=') {
            Some(("cas", cas)) => format!("cas={}", mask_cas(cas)),
            Some(("exp", "-1") | ("fetch", _)) | None => text,
            Some(("la", seconds)) => format!("la={}", mask_age(seconds)),
            Some((name, _)) => format!("{name}=*"),
        },
        // A dump's line: its fields, but for the key and whether there is a time to live.
        (head, _) if head.starts_with(b"key=") && place > 0 => match text.split_once('=') {
            Some(("exp", "-1")) | None => text,
            Some(("flags" | "fetch", _)) => String::new(),
            Some((name, _)) => format!("{name}=*"),
        },
        (_, Some(("c", cas))) if is_flag => format!("c{}", mask_cas(cas)),
        (_, Some(("t", ttl))) if is_flag => format!("t{}", mask_ttl(ttl)),
        (_, Some(("l", seconds))) if is_flag => format!("l{}", mask_age(seconds)),
        _ => text,
    }
}

/// What a client gave, or 0, has to be told as it is.
fn mask_cas(cas: &str) -> String {
    let is_kept = cas == "0" || GIVEN_CAS.contains(&cas) || !cas.bytes().all(|byte| byte.is_ascii_digit());
    if is_kept { cas.to_owned() } else { "*".to_owned() }
}

/// For how long an item has not been accessed: no conversation takes so many seconds.
fn mask_age(seconds: &str) -> String {
    let is_recent = seconds.parse::<u64>().is_ok_and(|seconds| seconds < 100);
    if is_recent { "*".to_owned() } else { seconds.to_owned() }
}

/// To the nearest hundred seconds; a moment far away, whose distance falls on any second, only as such.
fn mask_ttl(ttl: &str) -> String {
    match ttl.parse::<u64>() {
        Ok(seconds) if seconds <= LIFETIME_MAX_S => ((seconds + 50) / 100 * 100).to_string(),
        Ok(seconds) if seconds <= u64::from(u32::MAX / 2) => "*long".to_owned(),
        _ => ttl.to_owned(),
    }
}

/// Bytes to read; long ones shortened.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 120;
    match bytes.get(SHOWN_BYTES..) {
        None | Some([]) => bytes.escape_ascii().to_string(),
        Some(rest) => {
            let sum = rest.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            let head = bytes[..SHOWN_BYTES].escape_ascii();
            format!("{head}... {} bytes more, with sum {sum:x}", rest.len())
        }
    }
}

fn packets(mut answer: &[u8]) -> String {
    let mut masked = String::new();
    while let Some(header) = answer.first_chunk::<24>() {
        let key_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let extras_bytes = usize::from(header[4]);
        let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let body = &answer[24..(24 + body_bytes).min(answer.len())];
        let (extras, rest) = body.split_at(extras_bytes.min(body.len()));
        let (key, value) = rest.split_at(key_bytes.min(rest.len()));
        answer = &answer[24 + body.len()..];
        if header[1] == 0x10 && !key.is_empty() {
            if !masked.ends_with("81 stat *\n") {
                masked.push_str("81 stat *\n");
            }
            continue;
        }
        let cas = if header[16..] == [0; 8] { "0" } else { "*" };
        let value = if header[1] == 0x0b && value.len() > 2 { "*".to_owned() } else { shown(value) };
        masked.push_str(&format!(
            "{:02x} op={:02x} type={} status={:02x}{:02x} opaque={} cas={cas} extras={} key={} value={value}\n",
            header[0],
            header[1],
            header[5],
            header[6],
            header[7],
            header[12..16].escape_ascii(),
            extras.escape_ascii(),
            key.escape_ascii(),
        ));
    }
    masked + &shown(answer)
}
