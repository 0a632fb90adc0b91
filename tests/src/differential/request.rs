//! Requests as parts, since keys and CAS values are known only when they are sent.

/// How long each rendered key is, in bytes.
pub(super) const KEY_BYTES: usize = 10;
/// From here on a request is large, in bytes.
const LARGE_BYTES: usize = 16 << 10;

/// The most that is sent behind a request for the length that it states: any CAS that a server has given, taken for a
/// length, is below.
const FILLER_BYTES_MAX: usize = 1 << 20;

/// What is sent for it: lines that are no commands, and not too long (rule F6), should they be read as such.
const FILLER: &[u8] = b"ffffffffffffffffffffffffffffff\n";

/// A piece of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// One of the conversation's keys.
    Key(u8),
    /// The same in base64.
    EncodedKey(u8),
    /// In decimal a CAS that the key has on this server, or had.
    Cas(u8, Age),
    /// The same in eight bytes.
    CasBytes(u8, Age),
}

/// Which CAS of a key: it means the same on both servers, as no number made from it would. Each server counts in its own
/// way, so that the CAS below one key's may be another key's on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Age {
    /// What the key has when the step begins.
    Now,
    /// What it had when it was asked for before, if that was another one.
    Before,
}

impl Part {
    /// These bytes.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Part {
        Part::Bytes(bytes.as_ref().to_vec())
    }

    /// How long it is where that is known before it is sent, in bytes; else 0.
    pub(super) fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Key(_) => KEY_BYTES,
            Part::EncodedKey(_) | Part::Cas(..) | Part::CasBytes(..) => 0,
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Its parts.
    pub parts: Vec<Part>,
}

impl Request {
    /// Whether neither it nor its answer is worth thinking about.
    pub(super) fn is_small(&self) -> bool {
        self.parts.iter().map(Part::len).sum::<usize>() < LARGE_BYTES
    }

    /// The keys whose CAS is needed.
    pub(super) fn keys_for_cas(&self) -> impl Iterator<Item = u8> {
        self.parts.iter().filter_map(|part| match part {
            Part::Cas(key, _) | Part::CasBytes(key, _) => Some(*key),
            _ => None,
        })
    }

    /// Its bytes in conversation `number`, with the CAS values that `cas_of` knows, and behind them what the length
    /// that it states wants more: so it never takes from what is sent next.
    pub(super) fn render(&self, number: u64, cas_of: impl Fn(u8, Age) -> u64, out: &mut Vec<u8>) {
        let start = out.len();
        self.render_parts(number, cas_of, out);
        let missing = missing_bytes(&out[start..]).min(FILLER_BYTES_MAX);
        out.extend(FILLER.iter().cycle().take(missing));
        // Not the beginning of a line that the next request ends.
        let is_packet = matches!(out.get(start), Some(0x80 | 0x81));
        if !is_packet && out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
    }

    /// Whether it states a length that is taken for one and is far from what it has: no filler would do.
    pub(super) fn states_too_much(&self) -> bool {
        let mut bytes = Vec::new();
        self.render_parts(0, |_, _| 0, &mut bytes);
        missing_bytes(&bytes) > FILLER_BYTES_MAX
    }

    fn render_parts(&self, number: u64, cas_of: impl Fn(u8, Age) -> u64, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Key(key) => out.extend_from_slice(&key_bytes(number, *key)),
                Part::EncodedKey(key) => base64(&key_bytes(number, *key), out),
                Part::Cas(key, age) => out.extend_from_slice(cas_of(*key, *age).to_string().as_bytes()),
                Part::CasBytes(key, age) => out.extend_from_slice(&cas_of(*key, *age).to_be_bytes()),
            }
        }
    }
}

/// How many bytes are to come behind a storage command's text for the length that it states.
fn missing_bytes(request: &[u8]) -> usize {
    let Some(line_bytes) = request.iter().position(|byte| *byte == b'\n').map(|at| at + 1) else { return 0 };
    let stated = stated_bytes(&request[..line_bytes]);
    stated.map_or(0, |stated| (stated + 2).saturating_sub(request.len() - line_bytes))
}

/// The length that the line of a storage command states, if it is one that servers take (rule F9).
pub(super) fn stated_bytes(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let place = match words.next()? {
        _ if line.starts_with(b" ") => return None,
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => 3,
        b"ms" => 1,
        _ => return None,
    };
    let word = words.nth(place)?;
    // memcached reads `+5` and `5\r` as 5.
    let digits = word.strip_prefix(b"+").unwrap_or(word).trim_ascii();
    let stated: usize = str::from_utf8(digits).ok()?.parse().ok()?;
    (stated <= (1 << 31) - 3).then_some(stated)
}

/// Requests that are sent at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The requests.
    pub requests: Vec<Request>,
    /// Whether a no-op stands between them, which tells the answers apart.
    pub is_separated: bool,
    /// Where the step is cut into pieces that are sent one by one, in thousandths of its length, ascending.
    pub cuts: Vec<u16>,
}

/// Steps over one connection.
pub type Conversation = Vec<Step>;

/// A key of conversation `number`.
pub(super) fn key_bytes(number: u64, key: u8) -> [u8; KEY_BYTES] {
    let mut bytes = *b"k0x0000000";
    bytes[1] = b'0' + key % 10;
    let mut rest = number;
    for place in bytes[3..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { letter } else { b'=' });
        }
    }
}
