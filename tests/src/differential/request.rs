//! Requests as parts, since keys and CAS values are known only when they are sent.

/// How long each rendered key is, in bytes.
pub(super) const KEY_BYTES: usize = 10;
/// From here on a request is large, in bytes.
const LARGE_BYTES: usize = 16 << 10;

/// The most that is sent behind a request for the length that it states: any CAS that a server has given, taken for a
/// length, is below.
const FILLER_BYTES_MAX: usize = 1 << 20;

/// A piece of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// One of the conversation's keys.
    Key(u8),
    /// The same in base64.
    EncodedKey(u8),
    /// In decimal the CAS that the key has on this server when the step begins, and so much more.
    Cas(u8, i64),
    /// The same in eight bytes.
    CasBytes(u8, i64),
}

impl Part {
    /// These bytes.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Part {
        Part::Bytes(bytes.as_ref().to_vec())
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
        let bytes = |part: &Part| if let Part::Bytes(bytes) = part { bytes.len() } else { 0 };
        self.parts.iter().map(bytes).sum::<usize>() < LARGE_BYTES
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
    pub(super) fn render(&self, number: u64, cas_of: impl Fn(u8) -> u64, out: &mut Vec<u8>) {
        let start = out.len();
        self.render_parts(number, cas_of, out);
        let missing = missing_bytes(&out[start..]).min(FILLER_BYTES_MAX);
        out.resize(out.len() + missing, b'f');
    }

    /// Whether it states a length that is taken for one and is far from what it has: no filler would do.
    pub(super) fn states_too_much(&self) -> bool {
        let mut bytes = Vec::new();
        self.render_parts(0, |_| 0, &mut bytes);
        missing_bytes(&bytes) > FILLER_BYTES_MAX
    }

    fn render_parts(&self, number: u64, cas_of: impl Fn(u8) -> u64, out: &mut Vec<u8>) {
        for part in &self.parts {
            let moved = |key: u8, by: i64| cas_of(key).saturating_add_signed(by);
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Key(key) => out.extend_from_slice(&key_bytes(number, *key)),
                Part::EncodedKey(key) => base64(&key_bytes(number, *key), out),
                Part::Cas(key, by) => out.extend_from_slice(moved(*key, *by).to_string().as_bytes()),
                Part::CasBytes(key, by) => out.extend_from_slice(&moved(*key, *by).to_be_bytes()),
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
}

/// Steps over one connection.
pub type Conversation = Vec<Step>;

/// A key of conversation `number`.
pub(super) fn key_bytes(number: u64, key: u8) -> [u8; KEY_BYTES] {
    let mut bytes = *b"k0-0000000";
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
