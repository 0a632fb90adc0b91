//! Requests: what a client asks for, and the bytes that ask for it.

use super::{Direction, Header, REQUEST_MAGIC};

/// One request. Keys and values borrow from the buffer that was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What to do.
    pub command: Command<'a>,
    /// Whether the usual outcome is not to be answered (rule B7). Commands without a quiet form ignore it.
    pub quiet: bool,
    /// The client's mark, which the response repeats.
    pub opaque: u32,
    /// The CAS that the item must have; 0 for any (rule B5).
    pub cas: u64,
}

/// What to do (rule B2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Get, GetK; with an expiry GAT, GATK.
    Get {
        /// The key.
        key: &'a [u8],
        /// Whether the response repeats the key.
        with_key: bool,
        /// The new expiry, if it is to have one.
        touch: Option<u32>,
    },
    /// Touch.
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry.
        expiry: u32,
    },
    /// Set, Add, Replace with the whole value.
    Store {
        /// Which of the three.
        mode: StoreMode,
        /// The key.
        key: &'a [u8],
        /// The client's flags (rule L2).
        flags: u32,
        /// The expiry, unsigned (rule B6).
        expiry: u32,
        /// The value.
        value: &'a [u8],
    },
    /// Append, Prepend with the whole value.
    Extend {
        /// Which of the two.
        side: Side,
        /// The key.
        key: &'a [u8],
        /// What is added.
        value: &'a [u8],
    },
    /// One of the two above with a value over the limit: its bytes are to be thrown away as they come (rule L3).
    TooLarge {
        /// Set, Add or Replace; else Append or Prepend.
        mode: Result<StoreMode, Side>,
        /// The key.
        key: &'a [u8],
        /// The value's length, which is what is to be thrown away, in bytes.
        bytes: u32,
    },
    /// Delete.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Incr, Decr.
    Count {
        /// Which of the two.
        direction: Direction,
        /// The key.
        key: &'a [u8],
        /// By how much.
        delta: u64,
        /// What an absent counter begins with.
        initial: u64,
        /// The expiry of a counter that begins; [`Command::NEVER_CREATE`] has it not begin (rule B6).
        expiry: u32,
    },
    /// Flush.
    Flush {
        /// When; absent is now.
        expiry: Option<u32>,
    },
    /// Noop.
    Noop,
    /// Version.
    Version,
    /// Quit.
    Quit,
    /// Stat.
    Stat {
        /// Which statistics; empty for the general ones.
        key: &'a [u8],
    },
    /// SASL list.
    LoginMechanisms,
    /// SASL auth.
    LoginStart {
        /// The mechanism.
        mechanism: &'a [u8],
        /// The client's first message.
        message: &'a [u8],
    },
    /// SASL step.
    LoginStep {
        /// The mechanism.
        mechanism: &'a [u8],
        /// The client's next message.
        message: &'a [u8],
    },
    /// An opcode that means nothing, whose body is to be thrown away as it comes.
    Unknown {
        /// The opcode.
        opcode: u8,
        /// The body's length, in bytes.
        bytes: u32,
    },
}

/// Which of the commands that store a whole value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Stores, whatever is there.
    Set,
    /// Stores if the key is absent.
    Add,
    /// Stores if the key is present.
    Replace,
}

/// Where a value is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Behind it: Append.
    Back,
    /// Before it: Prepend.
    Front,
}

/// Whether a request of this opcode is heard before a login: LIST_MECHS, AUTH, STEP, VERSION (rule Q2).
pub fn may_come_before_login(opcode: u8) -> bool {
    matches!(opcode, 0x0b | 0x20..=0x22)
}

impl Command<'_> {
    /// The expiry that keeps an absent counter absent (rule B6).
    pub const NEVER_CREATE: u32 = u32::MAX;

    /// The opcodes of the plain and of the quiet form.
    fn opcodes(&self) -> (u8, u8) {
        match self {
            Command::Get { with_key: false, touch: None, .. } => (0x00, 0x09),
            Command::Get { with_key: true, touch: None, .. } => (0x0c, 0x0d),
            Command::Get { with_key: false, touch: Some(_), .. } => (0x1d, 0x1e),
            Command::Get { with_key: true, touch: Some(_), .. } => (0x23, 0x24),
            Command::Touch { .. } => (0x1c, 0x1c),
            Command::Store { mode, .. } | Command::TooLarge { mode: Ok(mode), .. } => match mode {
                StoreMode::Set => (0x01, 0x11),
                StoreMode::Add => (0x02, 0x12),
                StoreMode::Replace => (0x03, 0x13),
            },
            Command::Extend { side, .. } | Command::TooLarge { mode: Err(side), .. } => match side {
                Side::Back => (0x0e, 0x19),
                Side::Front => (0x0f, 0x1a),
            },
            Command::Delete { .. } => (0x04, 0x14),
            Command::Count { direction: Direction::Up, .. } => (0x05, 0x15),
            Command::Count { direction: Direction::Down, .. } => (0x06, 0x16),
            Command::Quit => (0x07, 0x17),
            Command::Flush { .. } => (0x08, 0x18),
            Command::Noop => (0x0a, 0x0a),
            Command::Version => (0x0b, 0x0b),
            Command::Stat { .. } => (0x10, 0x10),
            Command::LoginMechanisms => (0x20, 0x20),
            Command::LoginStart { .. } => (0x21, 0x21),
            Command::LoginStep { .. } => (0x22, 0x22),
            Command::Unknown { opcode, .. } => (*opcode, *opcode),
        }
    }
}

impl Request<'_> {
    /// The opcode, which the response repeats.
    pub fn opcode(&self) -> u8 {
        let (plain, quiet) = self.command.opcodes();
        if self.quiet { quiet } else { plain }
    }

    /// Appends the request's bytes: of a value or body that is to be thrown away only what is before it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.command {
            Command::Get { key, touch, .. } => self.encode_packet(touch.as_slice(), key, b"", out),
            Command::Touch { key, expiry } => self.encode_packet(&[expiry], key, b"", out),
            Command::Store { key, flags, expiry, value, .. } => {
                self.encode_packet(&[flags, expiry], key, value, out);
            }
            Command::Extend { key, value, .. } => self.encode_packet(&[], key, value, out),
            Command::TooLarge { mode, key, bytes } => {
                let extras: &[u32] = if mode.is_ok() { &[0, 0] } else { &[] };
                self.encode_head(extras, key, bytes as usize, out);
            }
            Command::Delete { key } | Command::Stat { key } => self.encode_packet(&[], key, b"", out),
            Command::Count { key, delta, initial, expiry, .. } => {
                let halves = |number: u64| [(number >> 32) as u32, number as u32];
                let ([d0, d1], [i0, i1]) = (halves(delta), halves(initial));
                self.encode_packet(&[d0, d1, i0, i1, expiry], key, b"", out);
            }
            Command::Flush { expiry } => self.encode_packet(expiry.as_slice(), b"", b"", out),
            Command::Noop | Command::Version | Command::Quit | Command::LoginMechanisms => {
                self.encode_packet(&[], b"", b"", out);
            }
            Command::LoginStart { mechanism, message } | Command::LoginStep { mechanism, message } => {
                self.encode_packet(&[], mechanism, message, out);
            }
            Command::Unknown { bytes, .. } => self.encode_head(&[], b"", bytes as usize, out),
        }
    }

    fn encode_packet(&self, extras: &[u32], key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.encode_head(extras, key, value.len(), out);
        out.extend_from_slice(value);
    }

    fn encode_head(&self, extras: &[u32], key: &[u8], value_bytes: usize, out: &mut Vec<u8>) {
        let extras_bytes = 4 * extras.len();
        let header = Header {
            opcode: self.opcode(),
            key_bytes: key.len() as u16,
            extras_bytes: extras_bytes as u8,
            status: 0,
            body_bytes: (extras_bytes + key.len() + value_bytes) as u32,
            opaque: self.opaque,
            cas: self.cas,
        };
        header.write(REQUEST_MAGIC, out);
        extras.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        out.extend_from_slice(key);
    }
}
