//! The bytes of requests, and how many bytes answer them.
//!
//! Where every key that is asked for is there and its value's length is known, an answer's length is known beforehand; how
//! answers are awaited otherwise is in `answers`.

/// How a request is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// memcached's text commands.
    #[default]
    Classic,
    /// `mg` with the value and an opaque, `ms`.
    Meta,
    /// memcached's binary protocol.
    Binary,
    /// redis' own protocol.
    Redis,
}

/// A key of 32 bytes: which kind of value it has, and its number.
pub fn key(kind: char, number: usize) -> [u8; 32] {
    let text = format!("{kind}{:031}", (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    text.as_bytes().try_into().expect("it is padded to 32 characters")
}

fn decimal_len(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Without an allocation: the generator has to be faster than the server.
fn decimal(number: usize, out: &mut Vec<u8>) {
    let mut power = 10_usize.pow(decimal_len(number) as u32 - 1);
    while power > 0 {
        out.push(b'0' + (number / power % 10) as u8);
        power /= 10;
    }
}

impl Dialect {
    /// Asks for keys in one request; gives the length of the answer, if all have values of `value_bytes`. The binary
    /// and the meta dialect have one key a request.
    pub fn get(self, keys: &[&[u8]], value_bytes: usize, out: &mut Vec<u8>) -> usize {
        let digits = decimal_len(value_bytes);
        match self {
            Dialect::Classic => {
                out.extend_from_slice(b"get");
                for key in keys {
                    out.push(b' ');
                    out.extend_from_slice(key);
                }
                out.extend_from_slice(b"\r\n");
                let values = keys.iter().map(|key| 6 + key.len() + 3 + digits + 2 + value_bytes + 2);
                values.sum::<usize>() + 5
            }
            Dialect::Meta => {
                out.extend_from_slice(b"mg ");
                out.extend_from_slice(keys[0]);
                out.extend_from_slice(b" v Oabc\r\n");
                3 + digits + 5 + 2 + value_bytes + 2
            }
            Dialect::Binary => {
                binary_header(0x00, keys[0].len(), 0, keys[0].len(), out);
                out.extend_from_slice(keys[0]);
                24 + 4 + value_bytes
            }
            Dialect::Redis => {
                let command: &[u8] = if keys.len() == 1 { b"$3\r\nGET\r\n" } else { b"$4\r\nMGET\r\n" };
                out.push(b'*');
                decimal(keys.len() + 1, out);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(command);
                keys.iter().for_each(|key| bulk(key, out));
                let head = if keys.len() == 1 { 0 } else { 1 + decimal_len(keys.len()) + 2 };
                head + keys.len() * (1 + digits + 2 + value_bytes + 2)
            }
        }
    }

    /// Stores for so many seconds, 0 for ever; gives the length of the answer, 0 for a quiet one.
    pub fn set(self, key: &[u8], value: &[u8], lifetime_s: u32, quiet: bool, out: &mut Vec<u8>) -> usize {
        match self {
            Dialect::Classic => {
                out.extend_from_slice(b"set ");
                out.extend_from_slice(key);
                out.extend_from_slice(b" 0 ");
                decimal(lifetime_s as usize, out);
                out.push(b' ');
                decimal(value.len(), out);
                out.extend_from_slice(if quiet { &b" noreply\r\n"[..] } else { b"\r\n" });
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
                if quiet { 0 } else { 8 }
            }
            Dialect::Meta => {
                out.extend_from_slice(b"ms ");
                out.extend_from_slice(key);
                out.push(b' ');
                decimal(value.len(), out);
                if lifetime_s > 0 {
                    out.extend_from_slice(b" T");
                    decimal(lifetime_s as usize, out);
                }
                out.extend_from_slice(if quiet { &b" q\r\n"[..] } else { b"\r\n" });
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
                if quiet { 0 } else { 4 }
            }
            Dialect::Binary => {
                let opcode = if quiet { 0x11 } else { 0x01 };
                binary_header(opcode, key.len(), 8, 8 + key.len() + value.len(), out);
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&lifetime_s.to_be_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
                if quiet { 0 } else { 24 }
            }
            // It has no quiet set.
            Dialect::Redis => {
                out.extend_from_slice(if lifetime_s > 0 { b"*5" } else { b"*3" });
                out.extend_from_slice(b"\r\n$3\r\nSET\r\n");
                bulk(key, out);
                bulk(value, out);
                if lifetime_s > 0 {
                    bulk(b"EX", out);
                    bulk(lifetime_s.to_string().as_bytes(), out);
                }
                5
            }
        }
    }
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    decimal(bytes.len(), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn binary_header(opcode: u8, key_bytes: usize, extras_bytes: u8, body_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80, opcode]);
    out.extend_from_slice(&(key_bytes as u16).to_be_bytes());
    out.extend_from_slice(&[extras_bytes, 0, 0, 0]);
    out.extend_from_slice(&(body_bytes as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spelled_as_the_protocols_have_them() {
        let text = |dialect: Dialect, keys: &[&[u8]]| {
            let mut out = Vec::new();
            let due = dialect.get(keys, 100, &mut out);
            (String::from_utf8(out).unwrap(), due)
        };
        assert_eq!(text(Dialect::Classic, &[b"a", b"b"]), ("get a b\r\n".to_owned(), 2 * (15 + 100 + 2) + 5));
        assert_eq!(text(Dialect::Meta, &[b"a"]), ("mg a v Oabc\r\n".to_owned(), 13 + 102));
        assert_eq!(text(Dialect::Redis, &[b"a"]), ("*2\r\n$3\r\nGET\r\n$1\r\na\r\n".to_owned(), 108));
        let mut out = Vec::new();
        assert_eq!(Dialect::Classic.set(b"k", b"0123456789", 0, true, &mut out), 0);
        assert_eq!(out, b"set k 0 0 10 noreply\r\n0123456789\r\n");
        let lived = |dialect: Dialect| {
            let mut out = Vec::new();
            dialect.set(b"k", b"v", 600, false, &mut out);
            out.escape_ascii().to_string()
        };
        assert_eq!(lived(Dialect::Classic), r"set k 0 600 1\r\nv\r\n");
        assert_eq!(lived(Dialect::Meta), r"ms k 1 T600\r\nv\r\n");
        assert!(lived(Dialect::Binary).ends_with(r"\x00\x00\x00\x00\x00\x00\x02Xkv"));
        assert!(lived(Dialect::Redis).ends_with(r"v\r\n$2\r\nEX\r\n$3\r\n600\r\n"));
        assert_eq!(key('k', 0).len(), 32);
        assert_ne!(key('k', 0), key('k', 1));
    }
}
