//! What a client says: commands that are nearly right, and noise, spelled by a fuzzer's bytes.
//!
//! Each byte chooses: a dialect's command, its key, its numbers, what is wrong with it. So a few bytes go deep, and a
//! change of one byte changes one thing.

use hotspare_memcached::binary::REQUEST_MAGIC;

use super::ITEM_BYTES_MAX;
use crate::settings::Protocol;

/// A script grows no longer than this and one command more.
const SCRIPT_BYTES_MAX: usize = 256 << 10;

/// How the server is set.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) protocol: Protocol,
    pub(super) asks_for_user: bool,
    pub(super) asks_for_sasl: bool,
    pub(super) evicts: bool,
    pub(super) dumps: bool,
}

/// What a client sends, how it is cut, and whether the client then closes its side.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) ways: Ways,
    pub(super) bytes: Vec<u8>,
    pub(super) cutting: u16,
    pub(super) ends: bool,
}

impl Script {
    pub(super) fn read(bytes: &[u8]) -> Script {
        let mut input = Input(bytes);
        let (settings, manner) = (input.byte(), input.byte());
        let mut ways = Ways {
            protocol: match settings & 7 {
                0 => Protocol::Ascii,
                1 => Protocol::Binary,
                _ => Protocol::Auto,
            },
            asks_for_user: settings & 0x38 == 0x38,
            asks_for_sasl: settings & 0x38 == 0x30,
            evicts: settings & 0x40 == 0,
            dumps: settings & 0x80 == 0,
        };
        let mut writer = Writer { input, out: Vec::new(), is_binary: manner & 3 == 1 || settings & 7 == 1 };
        let cutting = u16::from_le_bytes([writer.input.byte(), writer.input.byte()]);
        if ways.asks_for_user && manner & 4 == 0 {
            writer.name_user();
        }
        if ways.asks_for_sasl && manner & 4 == 0 {
            writer.packet(0x21, b"", b"PLAIN", b"\0bob\0secret");
        }
        while !writer.input.0.is_empty() && writer.out.len() < SCRIPT_BYTES_MAX {
            writer.say();
        }
        let bytes = writer.out;
        // These are refused behind unsent answers, which depends on when those go.
        ways.dumps &= !bytes.windows(4).any(|word| word == b"dump");
        Script { ways, bytes, cutting, ends: manner & 8 != 0 }
    }
}

/// What is left of the fuzzer's bytes; zeroes behind its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }
}

/// One of the choices between bars.
fn pick(choices: &'static str, number: usize) -> &'static str {
    let count = choices.split('|').count();
    choices.split('|').nth(number % count).unwrap_or_default()
}

struct Writer<'a> {
    input: Input<'a>,
    out: Vec<u8>,
    is_binary: bool,
}

/// Words that stand where a number should.
const NUMBERS: &str = "\
    0|1|2|3|5|7|10|18|30|100|-1|-5|2592000|2592001|1000100|4294967295|4294967296|\
    18446744073709551615|18446744073709551616|x|+1|1x||00";

/// What ends a line, mostly well.
const LINE_ENDS: [&[u8]; 8] = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\n", b" \r\n", b"\r\r\n", b""];

const META_FLAGS: &str = "\
    v|q|k|b|s|t|c|f|h|l|u|x|I|Oabc|O12345678901234567890123456789012|F7|T30|T-1|N10|R30|\
    C1|C2|C3|E9|J5|D2|MA|MS|MD|ME|M|q";

const OPERATORS: &str = "\
    version|verbosity 1|verbosity|stats|stats items|stats slabs|stats settings|stats sizes|\
    stats reset|stats detail on|stats detail dump|stats detail off|stats cachedump 1 5|stats conns|\
    stats nonsense|flush_all|flush_all 10|flush_all -1 noreply|flush_all x|cache_memlimit 8|\
    cache_memlimit 9|cache_memlimit 1|lru_crawler crawl all|lru_crawler disable|lru_crawler tocrawl 5|\
    slabs reassign 1 2|slabs automove 1|lru tune 10 25 0.1 2.0|shutdown|quit|refresh_certs|\
    GET / HTTP/1.1";

const OPCODES: [u8; 40] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11,
    0x12, 0x13, 0x14, 0x15, 0x16, 0x18, 0x19, 0x1a, 0x1c, 0x1d, 0x1e, 0x20, 0x21, 0x22, 0x23, 0x24, 0x01,
    0x01, 0x11, 0x00, 0x1b, 0x07, 0x17,
];

impl Writer<'_> {
    fn say(&mut self) {
        match self.input.byte() % 32 {
            0..7 if self.is_binary => self.request(),
            7..20 if self.is_binary => self.store_packet(),
            20..24 if self.is_binary => self.request(),
            0..7 => self.store(),
            7..10 => self.get(),
            10..13 => self.change(),
            13..18 => self.meta_store(),
            18..23 => self.meta(),
            23 => self.long_line(),
            24 | 25 => self.operate(),
            26 => self.noise(),
            27 => self.name_user(),
            28 => self.is_binary = !self.is_binary,
            29 => self.spoil(),
            30 => self.out.extend_from_slice(b"mn\r\n"),
            _ => self.request(),
        }
    }

    fn word(&mut self, word: &[u8]) {
        self.out.extend_from_slice(word);
        self.out.push(b' ');
    }

    fn key(&mut self) -> Vec<u8> {
        match self.input.byte() {
            hot @ 0..200 => vec![b'a' + hot % 6],
            200..210 => b"p:q".to_vec(),
            210..220 => b"YWI=".to_vec(),
            220..230 => vec![b'k'; 250],
            230..236 => vec![b'k'; 251],
            236..238 => vec![b'k'; 600],
            _ => self.input.take(3).to_vec(),
        }
    }

    fn number(&mut self) -> &'static str {
        match self.input.byte() {
            small @ 0..180 => pick(NUMBERS, usize::from(small) % 8),
            other => pick(NUMBERS, usize::from(other)),
        }
    }

    fn noreply(&mut self) {
        let words: [&[u8]; 6] = [b"", b"", b"", b"noreply", b" noreply ", b"noreply x"];
        let word = self.input.one_of(&words);
        self.out.extend_from_slice(word);
    }

    fn end_line(&mut self) {
        let end = self.input.one_of(&LINE_ENDS);
        self.out.extend_from_slice(end);
    }

    /// A value: short, a number, around the length of large ones, large, around the limit, or far above it.
    fn value(&mut self) -> Vec<u8> {
        let kind = self.input.byte();
        let byte = self.input.byte();
        match kind {
            0..120 => self.input.take(usize::from(byte) % 20).to_vec(),
            120..160 => byte.to_string().into_bytes(),
            160..180 => vec![byte; usize::from(byte) * 8],
            180..200 => vec![byte; usize::from(byte) * 48],
            200..230 => vec![byte; ITEM_BYTES_MAX - 128 + usize::from(byte)],
            230..240 => vec![byte; 40_000],
            // Commands in a value are none.
            _ => b"get a\r\nquit\r\n".repeat(usize::from(byte) % 400),
        }
    }

    /// A stated length, mostly right, and a data block.
    fn length_of(&mut self, value: &[u8]) -> Vec<u8> {
        let length = value.len();
        match self.input.byte() {
            0..230 => length.to_string().into_bytes(),
            230..236 => (length + 1).to_string().into_bytes(),
            236..242 => length.saturating_sub(1).to_string().into_bytes(),
            242..245 => b"2147483645".to_vec(),
            245..248 => b"2147483646".to_vec(),
            _ => self.number().as_bytes().to_vec(),
        }
    }

    fn block(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
        self.end_line();
    }

    fn store(&mut self) {
        let names: [&[u8]; 6] = [b"set", b"add", b"replace", b"append", b"prepend", b"cas"];
        let name = self.input.one_of(&names);
        let (key, value) = (self.key(), self.value());
        let length = self.length_of(&value);
        self.word(name);
        self.word(&key);
        for _ in 0..2 {
            let number = self.number();
            self.word(number.as_bytes());
        }
        self.word(&length);
        if name == b"cas" {
            let number = self.number();
            self.word(number.as_bytes());
        }
        self.noreply();
        self.end_line();
        self.block(&value);
    }

    fn get(&mut self) {
        let names: [&[u8]; 4] = [b"get", b"gets", b"gat", b"gats"];
        let (name, start) = (self.input.one_of(&names), self.out.len());
        self.word(name);
        if name.starts_with(b"gat") {
            let number = self.number();
            self.word(number.as_bytes());
        }
        for _ in 0..self.input.byte() % 8 {
            let key = self.key();
            self.word(&key);
        }
        self.end_line();
        if self.input.byte() >= 240 {
            // More answers than may be unsent.
            let again = self.out[start..].repeat(usize::from(self.input.byte()));
            self.out.extend(again);
        }
    }

    fn change(&mut self) {
        let names: [&[u8]; 4] = [b"delete", b"incr", b"decr", b"touch"];
        let name = self.input.one_of(&names);
        let key = self.key();
        self.word(name);
        self.word(&key);
        if name != b"delete" || self.input.byte() < 40 {
            let number = self.number();
            self.word(number.as_bytes());
        }
        self.noreply();
        self.end_line();
    }

    fn meta_flags(&mut self) {
        for _ in 0..self.input.byte() % 7 {
            let flag = pick(META_FLAGS, self.input.byte().into());
            self.word(flag.as_bytes());
        }
        self.end_line();
    }

    fn meta_store(&mut self) {
        let (key, value) = (self.key(), self.value());
        let length = self.length_of(&value);
        self.word(b"ms");
        self.word(&key);
        self.word(&length);
        self.meta_flags();
        self.block(&value);
    }

    fn meta(&mut self) {
        let names: [&[u8]; 6] = [b"mg", b"md", b"ma", b"me", b"mn", b"mz"];
        let name = self.input.one_of(&names);
        let key = self.key();
        self.word(name);
        self.word(&key);
        self.meta_flags();
    }

    /// Around the bound of lines, with an end or without.
    fn long_line(&mut self) {
        let starts: [&[u8]; 10] = [
            b"get ",
            b"gets a ",
            b"gat 0 ",
            b"mg ",
            b"set ",
            b"  get ",
            b"bogus",
            b"delete a ",
            b"\x80",
            b"stats ",
        ];
        let start = self.input.one_of(&starts);
        let (fill, words) = (self.input.byte(), self.input.byte());
        let bytes = match words {
            0..200 => 2_040 + usize::from(words) % 20,
            _ => 500 + usize::from(words) * 30,
        };
        self.out.extend_from_slice(start);
        let fill = if matches!(fill, b'\n' | b'\r') { b'x' } else { fill };
        let unit = [fill, fill, if fill & 1 == 0 { b' ' } else { fill }];
        self.out.extend(unit.iter().cycle().take(bytes - start.len()));
        self.end_line();
    }

    fn operate(&mut self) {
        let line = pick(OPERATORS, self.input.byte().into());
        self.out.extend_from_slice(line.as_bytes());
        self.end_line();
    }

    fn noise(&mut self) {
        let bytes = usize::from(self.input.byte()) % 24;
        self.out.extend_from_slice(self.input.take(bytes));
    }

    fn name_user(&mut self) {
        let blocks: [&[u8]; 4] = [b"bob secret", b"ann other", b"bob wrong", b"nobody"];
        let block = self.input.one_of(&blocks);
        let line = format!("set x 0 0 {}\r\n", block.len());
        self.out.extend_from_slice(line.as_bytes());
        self.block(block);
    }

    /// Changes or takes away a byte of what was said last.
    fn spoil(&mut self) {
        let back = usize::from(self.input.byte());
        let byte = self.input.byte();
        let Some(at) = self.out.len().checked_sub(back + 1) else { return };
        match byte & 1 {
            0 => self.out[at] ^= byte,
            _ => drop(self.out.remove(at)),
        }
    }

    /// A binary request, with a body that its opcode goes with, mostly.
    fn request(&mut self) {
        let opcode = self.input.one_of(&OPCODES);
        let key = self.key();
        let extras: &[u8] = match opcode {
            0x05 | 0x06 | 0x15 | 0x16 => &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0],
            0x1c..=0x1e | 0x23 | 0x24 => &[0, 0, 0, 9],
            0x08 | 0x18 if key == b"a" => &[0, 0, 0, 9],
            0x01..=0x03 | 0x11..=0x13 => &[0, 0, 0, 1, 0, 0, 0, 0],
            _ => b"",
        };
        let no_key = matches!(opcode, 0x07 | 0x08 | 0x0a | 0x0b | 0x17 | 0x18 | 0x20);
        let key = match opcode {
            _ if no_key => Vec::new(),
            0x10 if key.len() == 1 => b"items".to_vec(),
            0x21 | 0x22 => b"PLAIN".to_vec(),
            _ => key,
        };
        let value: &[u8] = match opcode {
            0x21 | 0x22 => self.input.one_of(&[&b"\0bob\0secret"[..], b"\0bob\0wrong", b""]),
            0x1b | 0x0e | 0x0f => self.input.take(5),
            _ => b"",
        };
        self.packet(opcode, extras, &key, value);
    }

    fn store_packet(&mut self) {
        let opcode = self.input.one_of(&[0x01, 0x02, 0x03, 0x11, 0x12, 0x13, 0x0e, 0x0f, 0x19, 0x1a]);
        let (key, value) = (self.key(), self.value());
        let number = self.input.byte() & 3;
        let extras: &[u8] = if opcode & 0x0f >= 0x09 { b"" } else { &[0, 0, 0, 7, 0, 0, 0, number] };
        self.packet(opcode, extras, &key, &value);
    }

    fn packet(&mut self, opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) {
        let (wrong, cas, opaque) = (self.input.byte(), self.input.byte(), self.input.byte());
        let mut key_bytes = key.len() as u16;
        let mut extras_bytes = extras.len() as u8;
        let mut body_bytes = (extras.len() + key.len() + value.len()) as u32;
        match wrong {
            250 => key_bytes = key_bytes.wrapping_add(1),
            251 => extras_bytes = extras_bytes.wrapping_sub(1),
            252 => body_bytes = body_bytes.wrapping_add(1),
            253 => body_bytes = body_bytes.wrapping_sub(1),
            254 => body_bytes = 1 << 31,
            _ => {}
        }
        self.out.extend_from_slice(&[REQUEST_MAGIC, opcode]);
        self.out.extend_from_slice(&key_bytes.to_be_bytes());
        self.out.extend_from_slice(&[extras_bytes, 0, 0, 0]);
        self.out.extend_from_slice(&body_bytes.to_be_bytes());
        self.out.extend_from_slice(&[opaque; 4]);
        self.out.extend_from_slice(&u64::from(cas.saturating_sub(200)).to_be_bytes());
        for part in [extras, key, value] {
            self.out.extend_from_slice(part);
        }
    }
}
