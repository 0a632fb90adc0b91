//! Classic and meta commands, at random: mostly sound, some nearly so.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::operator;
use super::request::{Age, KEY_BYTES, Part, Request};

/// Keys of a conversation: few, so that commands meet.
const KEYS: u8 = 4;

/// Numbers that are at some edge, or are none.
const ODD_NUMBERS: &[&str] = &[
    "-1",
    "+1000",
    "0",
    "00012",
    "-0",
    "18446744073709551615",
    "18446744073709551616",
    "4294967295",
    "4294967296",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "x",
    "1x",
    "1.5",
    "0x10",
    "99999999999999999999999",
    "-9223372036854775808",
    "9223372036854775808",
    "4294967294",
    "2147483646",
    "000000000000000000000000000500",
    "1e3",
    "\t7",
    "7\t",
    "--1",
    "noreply",
];
/// Lifetimes that nobody has to wait for.
const TTLS: &[&str] = &["0", "0", "0", "500", "10000", "2592000", "2147483000", "-1", "2592001"];
/// A CAS to give, and to compare with: below and above all that a server makes.
pub(super) const GIVEN_CAS: &[&str] = &["1", "5", "9000000000000000001", "9000000000000000005"];
/// Lines that are no command, or nearly one, or end the connection.
const STRAYS: &[&str] = &[
    "foo",
    "",
    "gett",
    "version x",
    "version noreply",
    "se",
    "incr",
    "cas",
    "get",
    "gets",
    "gat 0",
    "touch",
    "delete",
    " get k",
    "\tget k",
    "GET / HTTP/1.1",
    "foo bar HTTP/1.0",
    "get HTTP/1.1",
    "foo HTTP/1.1 x",
    "HTTP/1.1",
    "mn",
    "mn x",
    "mn q noreply",
    "mx k",
    "mgg k",
    "m k",
    "g",
    "ab",
    "x y",
    "bget",
    "quit",
    "quit now",
    "quit noreply",
    "verbosity",
    "verbosity x y z",
    "flush_all noreply",
    "flush_all x",
    "flush_all 0 noreply",
    "flush_all 0 1 2",
    "noreply",
    "set",
    "set noreply",
    "set k 0 0",
    "set k 0 0 noreply",
    "ms",
    "ms k",
    "mg",
    "md",
    "ma",
    "me",
    "decr k",
    "decr k noreply",
    "incr noreply 1",
    "touch k noreply",
    "delete noreply",
    "delete k noreply noreply",
    "gat noreply k",
];
const WORDS: &[&str] = &["noreply", "0", "5", "x", "q", "noreply noreply", "k0", "\t", "C1"];

pub(super) type Token = Vec<Part>;

pub(super) fn word(text: impl AsRef<[u8]>) -> Token {
    vec![Part::bytes(text)]
}

pub(super) fn pick<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices.choose(rng).copied().unwrap_or_default()
}

fn key(rng: &mut StdRng) -> Token {
    let key = Part::Key(rng.random_range(0..KEYS));
    match rng.random_range(0..100) {
        0..3 => vec![key, Part::Bytes(vec![b'l'; rng.random_range(249..253) - KEY_BYTES])],
        3..4 => vec![key, Part::bytes(pick(rng, &["\x01\x7f", "\t", "\u{fc}", "b", "\r"]))],
        _ => vec![key],
    }
}

pub(super) fn number(rng: &mut StdRng, sound: &[&str]) -> Token {
    let choices = if rng.random_bool(0.06) { ODD_NUMBERS } else { sound };
    word(pick(rng, choices))
}

/// A value: mostly short, often a number.
pub(super) fn value(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..1000) {
        0..350 => rng.random_range(0..2000u32).to_string().into_bytes(),
        350..400 => pick(
            rng,
            &[
                " 12",
                "12 ",
                "-1",
                "12a",
                "",
                "000000000000000000005",
                "18446744073709551615",
                "18446744073709551616",
                "9223372036854775807",
                "9223372036854775808",
                "1 2",
                "\t7",
            ],
        )
        .into(),
        400..900 => (0..rng.random_range(0..24)).map(|_| rng.random_range(b'a'..=b'z')).collect(),
        900..950 => {
            // Never spaces alone, nor digits and a zero byte: memcached 1.6.18 reads such a number past its end.
            let bytes = (0..rng.random_range(0..12)).map(|_| *b"\r\n \xff09".choose(rng).unwrap_or(&0));
            bytes.chain([b'x']).collect()
        }
        950..985 => b"m\0".repeat(rng.random_range(50..900)),
        985..996 => vec![b'L'; rng.random_range(20_000..600_000)],
        996..999 => vec![b'L'; 1 << 20],
        _ => vec![b'L'; 1_500_000],
    }
}

/// A line, and the data block behind it.
#[derive(Clone)]
pub(super) struct Line {
    tokens: Vec<Token>,
    block: Option<Vec<u8>>,
}

impl Line {
    pub(super) fn of(name: &str, tokens: impl IntoIterator<Item = Token>) -> Line {
        Line { tokens: std::iter::once(word(name)).chain(tokens).collect(), block: None }
    }

    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// Breaks something.
    fn damage(&mut self, rng: &mut StdRng) {
        let place = rng.random_range(0..self.tokens.len());
        match rng.random_range(0..5) {
            0 => {
                self.tokens.remove(place);
            }
            1 => self.tokens.insert(place, self.tokens[place].clone()),
            2 => self.tokens.push(word(pick(rng, WORDS))),
            3 => self.tokens[place] = word(pick(rng, ODD_NUMBERS)),
            _ => {
                if let Some(Part::Bytes(name)) = self.tokens[0].first_mut() {
                    name.make_ascii_uppercase();
                }
            }
        }
    }

    /// Sound for the most part: one in a dozen is damaged.
    fn build(mut self, rng: &mut StdRng) -> Request {
        let sound = self.clone();
        if rng.random_bool(0.08) {
            self.damage(rng);
        }
        let has_lost_cas = self.has_lost_cas();
        let request = self.render(rng);
        // A megabyte that never comes: nobody waits for it.
        if has_lost_cas || request.states_too_much() { sound.render(rng) } else { request }
    }

    /// Whether a CAS stands where it is taken for something else: there it does not mean the same on both servers.
    fn has_lost_cas(&self) -> bool {
        let is_cas = |token: &Token| matches!(token[..], [Part::Cas(..)]);
        let name = [Part::bytes("cas")];
        let place = self.tokens.iter().position(is_cas);
        place.is_some_and(|place| place != 5 || self.tokens[0] != name)
    }

    fn render(self, rng: &mut StdRng) -> Request {
        let mut parts = Vec::new();
        for (place, token) in self.tokens.into_iter().enumerate() {
            if place > 0 {
                parts.push(Part::bytes(if rng.random_bool(0.01) { "  " } else { " " }));
            }
            parts.extend(token);
        }
        let ends = ["\r\n", "\n", " \r\n", "\r\r\n"];
        let end = if rng.random_bool(0.96) { ends[0] } else { pick(rng, &ends) };
        parts.push(Part::bytes(end));
        if let Some(block) = self.block {
            parts.push(Part::Bytes(block));
            let end =
                if rng.random_bool(0.98) { "\r\n" } else { pick(rng, &["\n", "x", "\r", "", "xx\r\n"]) };
            parts.push(Part::bytes(end));
        }
        Request { parts }
    }
}

/// The length to state for a value: sometimes not its own.
fn stated(rng: &mut StdRng, value: &[u8]) -> Token {
    let by = if rng.random_bool(0.03) { rng.random_range(-3..6) } else { 0 };
    let odd = rng.random_bool(0.01);
    word(if odd { pick(rng, ODD_NUMBERS).to_owned() } else { (value.len() as i64 + by).to_string() })
}

/// A classic command.
pub(super) fn classic(rng: &mut StdRng) -> Request {
    let mut line = match rng.random_range(0..100) {
        0..36 => store(rng),
        36..60 => {
            let name = pick(rng, &["get", "gets"]);
            let keys: Vec<Token> = (0..rng.random_range(1..6)).map(|_| key(rng)).collect();
            Line::of(name, keys)
        }
        60..66 => {
            let name = pick(rng, &["gat", "gats"]);
            let mut words = vec![number(rng, TTLS)];
            words.extend((0..rng.random_range(1..4)).map(|_| key(rng)));
            Line::of(name, words)
        }
        66..76 => Line::of("delete", [key(rng)]),
        76..90 => {
            let name = pick(rng, &["incr", "decr"]);
            let words = [key(rng), number(rng, &["1", "7", "100", "18446744073709551615"])];
            Line::of(name, words)
        }
        90..95 => Line::of("touch", [key(rng), number(rng, TTLS)]),
        95..96 => {
            let delays = ["", "0", "-1", "100000", "-2147483648", "2592001"];
            let words = Some(pick(rng, &delays)).filter(|delay| !delay.is_empty()).map(word);
            Line::of("flush_all", words)
        }
        96..97 => Line::of("verbosity", [number(rng, &["0", "1"])]),
        97..98 => operator::line(rng),
        98..99 => many_keys(rng),
        _ => Line::of(pick(rng, STRAYS), []),
    };
    let takes_noreply = !matches!(&line.tokens[0][0], Part::Bytes(name) if name.starts_with(b"g"));
    if takes_noreply && rng.random_bool(0.1) {
        line.tokens.push(word("noreply"));
    }
    line.build(rng)
}

/// A get of so many keys that memcached reads its line in several goes, or of so many that the line is a long one.
fn many_keys(rng: &mut StdRng) -> Line {
    let name = pick(rng, &["get", "gets", "bget"]);
    let most = if rng.random_bool(0.2) { 300 } else { 30 };
    let keys: Vec<Token> =
        (0..rng.random_range(1..most)).map(|_| vec![Part::Key(rng.random_range(0..KEYS))]).collect();
    let exptime = rng.random_bool(0.3).then(|| number(rng, TTLS));
    let name = if exptime.is_some() { pick(rng, &["gat", "gats"]) } else { name };
    Line::of(name, exptime.into_iter().chain(keys))
}

fn store(rng: &mut StdRng) -> Line {
    let name = pick(rng, &["set", "set", "set", "add", "replace", "append", "prepend", "cas", "cas"]);
    let value = value(rng);
    let flags = number(rng, &["0", "0", "5", "4294967295"]);
    let mut tokens = vec![key(rng), flags, number(rng, TTLS), stated(rng, &value)];
    if name == "cas" {
        tokens.push(vec![cas(rng)]);
    }
    Line { block: Some(value), ..Line::of(name, tokens) }
}

/// The CAS of some key: mostly as it is.
fn cas(rng: &mut StdRng) -> Part {
    match rng.random_bool(0.93) {
        true => Part::Cas(rng.random_range(0..KEYS), age(rng)),
        false => Part::bytes(pick(rng, &["0", "1", "x", "-1", "18446744073709551615"])),
    }
}

/// Mostly as it is.
pub(super) fn age(rng: &mut StdRng) -> Age {
    if rng.random_bool(0.8) { Age::Now } else { Age::Before }
}

/// A meta command.
pub(super) fn meta(rng: &mut StdRng) -> Request {
    let name = pick(rng, &["mg", "mg", "mg", "mg", "ms", "ms", "ms", "md", "md", "ma", "ma", "me"]);
    let is_encoded = rng.random_bool(0.15);
    let subject = rng.random_range(0..KEYS);
    let mut tokens = vec![match is_encoded {
        true if rng.random_bool(0.1) => word(odd_base64(rng)),
        // Sometimes the text itself is the key.
        true => vec![Part::EncodedKey(subject)],
        false => key(rng),
    }];
    let value = value(rng);
    if name == "ms" {
        tokens.push(stated(rng, &value));
    }
    if is_encoded && rng.random_bool(0.9) || rng.random_bool(0.01) {
        tokens.push(word("b"));
    }
    let most = if rng.random_bool(0.005) { 30 } else { 6 };
    for _ in 0..if name == "me" { rng.random_range(0..2) } else { rng.random_range(0..most) } {
        let flag = flag(rng, name, subject);
        let is_repeated = tokens[1..].iter().any(|known| first_byte(known) == first_byte(&flag));
        if !is_repeated || most > 6 || rng.random_bool(0.02) {
            tokens.push(flag);
        }
    }
    Line { block: (name == "ms").then_some(value), ..Line::of(name, tokens) }.build(rng)
}

/// Keys that are no base64, or hardly: of the wrong length, without their padding, or near the longest (rule L1).
fn odd_base64(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..3) {
        0 => {
            pick(rng, &["Zg=", "Zg", "Z", "=", "====", "Zg==Zg==", "Zh==", "Zm9=", "Zm9v\t", "Z!9v", "Zm9vZ"])
                .into()
        }
        1 => b"QUJD".repeat(rng.random_range(61..65)),
        _ => vec![b'A'; rng.random_range(246..254)],
    }
}

fn first_byte(token: &Token) -> Option<u8> {
    token.first().and_then(|part| if let Part::Bytes(bytes) = part { bytes.first().copied() } else { None })
}

/// A flag, mostly one that means something to the command.
fn flag(rng: &mut StdRng, name: &str, subject: u8) -> Token {
    if rng.random_bool(0.01) {
        return word(pick(
            rng,
            &[
                "!", "z", "S", "S5", "Z", "W", "\x01", "\u{fc}", "T", "C", "M", "MSS", "F", "J", "D", "N",
                "R", "bx", "vx", "kx", "qx",
            ],
        ));
    }
    let letters: &[u8] = match name {
        _ if rng.random_bool(0.03) => b"bcfhklqstvuxIOFCMTNRJDEPL",
        "mg" => b"cfhkqstvvvuONNTRRC",
        "ms" => b"ckqOFFTTICCMMMNsE",
        "md" => b"kqOICCTT",
        "ma" => b"kqvvctONNJDTMC",
        _ => b"q",
    };
    let letter = *letters.choose(rng).unwrap_or(&b'k');
    let mut token = vec![Part::Bytes(vec![letter])];
    match letter {
        b'T' | b'N' | b'R' => token.extend(number(rng, &["0", "500", "1000", "10000", "-1", "20000"])),
        b'C' if rng.random_bool(0.75) => {
            token.push(Part::Cas(subject, age(rng)));
        }
        b'C' | b'E' => token.extend(number(rng, GIVEN_CAS)),
        b'F' => token.extend(number(rng, &["0", "7", "4294967295"])),
        b'J' | b'D' => token.extend(number(rng, &["0", "10", "18446744073709551615"])),
        b'O' if rng.random_bool(0.1) => token.extend(word("o".repeat(rng.random_range(29..34)))),
        b'O' | b'P' | b'L' => token.extend(word(pick(rng, &["", "abc", "1", "\t"]))),
        b'M' if name == "ma" => token.extend(word(pick(rng, &["I", "D", "+", "-", "i", "incr", "x"]))),
        b'M' => token.extend(word(pick(rng, &["S", "E", "A", "P", "R", "s", "a", "X"]))),
        _ => {}
    }
    token
}
