//! What both ends say before the first frame: a magic, a nonce, and a proof of the shared secret.
//!
//! ```text
//!   dialler                                        listener
//!   "HSPR" 1 mode 0 0 nonce[32]        ──>
//!                          <──        "HSPR" 1 mode 0 0 nonce[32] [tag[32]]
//!   [tag[32]]                          ──>
//! ```
//! The mode is 1 with a secret, 0 without; both must have the same. A tag is HMAC-SHA-256 under the secret over who
//! speaks and both nonces, so that neither side's tag serves as the other's, nor for another link. The frames that
//! follow are neither encrypted nor signed by it: across machines use certificates as well, or a network that you
//! trust. With certificates all this goes through TLS.
//!
//! Lives here: the bytes, as a pure state machine. Not here: sockets (see `link`).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const MAGIC: [u8; 4] = *b"HSPR";
const VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = 40;
const NONCE_AT: usize = 8;
const TAG_BYTES: usize = 32;

/// The first byte of a TLS record: a greeting, or an alert.
const TLS_FIRST_BYTES: [u8; 2] = [0x16, 0x15];

const OTHER_SECRET: &str =
    "it has another replication secret; the file of --replication-secret-file has to hold the same on both";

const SPEAKS_TLS: &str = "it speaks TLS and this node does not; give this node --replication-tls-cert, -key and -ca as well, or \
    start that one without them";

/// Which end of a link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Listener,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Side::Dialler => b'D',
            Side::Listener => b'L',
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Await {
    Preamble,
    Tag,
    Nothing,
}

/// One end's handshake. Feed it what comes with [`Handshake::take`], send what [`Handshake::take_output`] gives.
#[derive(Debug)]
pub(crate) struct Handshake {
    side: Side,
    secret: Option<Vec<u8>>,
    nonce: [u8; 32],
    peer_nonce: [u8; 32],
    awaiting: Await,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Handshake {
    pub(crate) fn new(side: Side, secret: Option<Vec<u8>>, nonce: [u8; 32]) -> Handshake {
        let mut handshake = Handshake {
            side,
            secret,
            nonce,
            peer_nonce: [0; 32],
            awaiting: Await::Preamble,
            input: Vec::new(),
            output: Vec::new(),
        };
        if side == Side::Dialler {
            handshake.say_preamble();
        }
        handshake
    }

    pub(crate) fn is_done(&self) -> bool {
        self.awaiting == Await::Nothing
    }

    /// Whether the peer proved that it has the secret.
    pub(crate) fn proves_peer(&self) -> bool {
        self.is_done() && self.secret.is_some()
    }

    /// How many more bytes this end can use: no byte of a frame is taken.
    pub(crate) fn bytes_wanted(&self) -> usize {
        let whole = match self.awaiting {
            Await::Preamble => PREAMBLE_BYTES,
            Await::Tag => TAG_BYTES,
            Await::Nothing => 0,
        };
        whole - self.input.len()
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes at most [`Handshake::bytes_wanted`] bytes; an error says why the peer is not one.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.input.extend_from_slice(bytes);
        if self.awaiting == Await::Preamble && !MAGIC.starts_with(&self.input[..self.input.len().min(4)]) {
            return Err(self.misunderstood());
        }
        if self.bytes_wanted() > 0 {
            return Ok(());
        }
        let input = std::mem::take(&mut self.input);
        match self.awaiting {
            Await::Preamble => self.take_preamble(&input),
            Await::Tag => self.take_tag(&input),
            Await::Nothing => Ok(()),
        }
    }

    /// Why what came can't be a preamble.
    fn misunderstood(&mut self) -> &'static str {
        match (self.side, TLS_FIRST_BYTES.contains(&self.input[0])) {
            (Side::Listener, true) => {
                // By that it sees that this node has no TLS.
                self.say_preamble();
                SPEAKS_TLS
            }
            (Side::Dialler, true) => SPEAKS_TLS,
            (Side::Dialler, false) => {
                "it does not speak this protocol; is that the address of its --replication-listen?"
            }
            (Side::Listener, false) => "it does not speak this protocol",
        }
    }

    /// What it means that the peer closes now.
    pub(crate) fn closed(&self) -> &'static str {
        match (self.side, self.awaiting) {
            (Side::Listener, Await::Tag) => {
                "it closed the connection at this node's proof of the secret; the file of --replication-secret-file has to hold \
                 the same on both"
            }
            _ => "it closed the connection",
        }
    }

    fn say_preamble(&mut self) {
        self.output.extend_from_slice(&MAGIC);
        self.output.extend_from_slice(&[VERSION, u8::from(self.secret.is_some()), 0, 0]);
        self.output.extend_from_slice(&self.nonce);
    }

    fn take_preamble(&mut self, input: &[u8]) -> Result<(), &'static str> {
        self.peer_nonce.copy_from_slice(&input[NONCE_AT..]);
        if self.side == Side::Listener {
            self.say_preamble();
        }
        if input[4] != VERSION {
            return Err("it speaks another version of the handshake; upgrade the older node");
        }
        match (input[5] == 1, &self.secret) {
            (false, None) => {
                self.awaiting = Await::Nothing;
                return Ok(());
            }
            (true, None) => {
                return Err("it has a replication secret and this node has none; give this node \
                            --replication-secret-file as well");
            }
            (false, Some(_)) => {
                return Err("it has no replication secret and this node has one; give that node \
                            --replication-secret-file as well");
            }
            (true, Some(_)) => {}
        }
        if self.side == Side::Listener {
            self.output.extend_from_slice(&self.tag(Side::Listener));
        }
        self.awaiting = Await::Tag;
        Ok(())
    }

    fn take_tag(&mut self, input: &[u8]) -> Result<(), &'static str> {
        if !bool::from(self.tag(self.side.other()).ct_eq(input)) {
            return Err(OTHER_SECRET);
        }
        if self.side == Side::Dialler {
            self.output.extend_from_slice(&self.tag(Side::Dialler));
        }
        self.awaiting = Await::Nothing;
        Ok(())
    }

    fn tag(&self, speaker: Side) -> [u8; TAG_BYTES] {
        let secret = self.secret.as_deref().unwrap_or_default();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length serves");
        let (diallers, listeners) = match self.side {
            Side::Dialler => (&self.nonce, &self.peer_nonce),
            Side::Listener => (&self.peer_nonce, &self.nonce),
        };
        mac.update(&[speaker.byte()]);
        mac.update(diallers);
        mac.update(listeners);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dialler: Option<&str>, listener: Option<&str>) -> [Result<bool, &'static str>; 2] {
        let secret = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let mut ends = [
            Handshake::new(Side::Dialler, secret(dialler), [1; 32]),
            Handshake::new(Side::Listener, secret(listener), [2; 32]),
        ];
        let mut results = [Ok(()), Ok(())];
        for round in 0..6 {
            let (from, to) = (round % 2, 1 - round % 2);
            for byte in ends[from].take_output() {
                if results[to].is_ok() && ends[to].bytes_wanted() > 0 {
                    results[to] = ends[to].take(&[byte]);
                }
            }
        }
        [0, 1].map(|end| results[end].map(|()| ends[end].is_done()))
    }

    #[test]
    fn equal_secrets_and_no_secrets_get_through() {
        assert_eq!(run(None, None), [Ok(true), Ok(true)]);
        assert_eq!(run(Some("s"), Some("s")), [Ok(true), Ok(true)]);
    }

    #[test]
    fn unequal_secrets_are_refused_on_both_sides() {
        let [dialler, listener] = run(Some("s"), Some("t"));
        assert_eq!(dialler, Err(OTHER_SECRET));
        assert_eq!(listener, Ok(false));
        assert!(run(None, Some("t"))[1].is_err() && run(None, Some("t"))[0].is_err());
        assert!(run(Some("s"), None)[1].is_err() && run(Some("s"), None)[0].is_err());
    }

    #[test]
    fn a_listeners_tag_played_back_is_no_diallers_tag() {
        let mut listener = Handshake::new(Side::Listener, Some(b"s".to_vec()), [2; 32]);
        let mut preamble = b"HSPR\x01\x01\0\0".to_vec();
        preamble.extend([1; 32]);
        assert_eq!(listener.closed(), "it closed the connection");
        listener.take(&preamble).unwrap();
        assert!(listener.closed().contains("--replication-secret-file has to hold"), "{}", listener.closed());
        let answer = listener.take_output();
        assert_eq!(listener.take(&answer[PREAMBLE_BYTES..]), Err(OTHER_SECRET));
    }

    #[test]
    fn a_wrong_magic_is_noticed_at_its_first_byte() {
        let mut listener = Handshake::new(Side::Listener, None, [2; 32]);
        assert!(listener.take(b"G").is_err());
        assert!(listener.take_output().is_empty(), "a stranger is told nothing");
    }

    #[test]
    fn a_peer_that_speaks_tls_is_told_apart_and_shown_that_this_end_does_not() {
        for (side, first) in [(Side::Listener, 0x16), (Side::Dialler, 0x15)] {
            let mut end = Handshake::new(side, None, [2; 32]);
            assert_eq!(end.take(&[first, 3, 1]), Err(SPEAKS_TLS));
            assert_eq!(end.take_output().len(), PREAMBLE_BYTES);
        }
    }
}
