//! Requests: what a client asks for, and the bytes that ask for it.

use super::number;
use super::operator::OperatorCommand;
use super::token::{Keys, Tokens};

/// One request. Keys and values borrow from the buffer that was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// `get`, or `gets` with the CAS (rule R1).
    Get {
        /// Whether each value's CAS is wanted.
        with_cas: bool,
        /// At least one key.
        keys: Keys<'a>,
    },
    /// `gat`, or `gats` with the CAS (rule R3).
    GetAndTouch {
        /// Whether each value's CAS is wanted.
        with_cas: bool,
        /// The new expiry; see [`lifetime`].
        exptime: i64,
        /// At least one key.
        keys: Keys<'a>,
    },
    /// A storage command with its whole value (rule S1).
    Store(Store<'a>),
    /// A storage command whose value is above the limit: its bytes are to be thrown away as they come (rule L3).
    StoreTooLarge {
        /// Which storage command.
        command: StoreCommand,
        /// The key.
        key: &'a [u8],
        /// The stated length of the value, in bytes.
        bytes: u64,
        /// Whether no reply is wanted.
        noreply: bool,
        /// Bytes to throw away behind the line: value and line end.
        skip: u64,
    },
    /// `delete` (rule A1).
    Delete {
        /// The key.
        key: &'a [u8],
        /// Whether no reply is wanted.
        noreply: bool,
    },
    /// `incr` or `decr` (rule A2).
    Count {
        /// Which of the two.
        direction: Direction,
        /// The key.
        key: &'a [u8],
        /// By how much.
        delta: u64,
        /// Whether no reply is wanted.
        noreply: bool,
    },
    /// `touch` (rule A6).
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry; see [`lifetime`].
        exptime: i64,
        /// Whether no reply is wanted.
        noreply: bool,
    },
    /// `flush_all` (rule G2).
    FlushAll {
        /// When; absent is now.
        exptime: Option<i64>,
        /// Whether no reply is wanted.
        noreply: bool,
    },
    /// `version` (rule G1).
    Version,
    /// `verbosity` (rule G1).
    Verbosity {
        /// The wanted level.
        level: u64,
        /// Whether no reply is wanted.
        noreply: bool,
    },
    /// `quit` (rule G1).
    Quit,
    /// `refresh_certs` (rule G6).
    RefreshCertificates {
        /// Whether no reply is wanted but an error.
        noreply: bool,
    },
    /// `stats` (rule G5).
    Stats {
        /// The words behind it.
        arguments: Tokens<'a>,
    },
    /// A command of operators: the server reads its words, `noreply` among them (rules G3, G7 to G9).
    Operate {
        /// Which.
        command: OperatorCommand,
        /// The words behind it.
        arguments: Tokens<'a>,
    },
    /// `shutdown` (rule G4).
    Shutdown {
        /// The words behind it: see [`ShutdownMode::read`].
        arguments: Tokens<'a>,
    },
}

/// A storage command with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// Which storage command.
    pub command: StoreCommand,
    /// The key.
    pub key: &'a [u8],
    /// The client's flags (rule L2).
    pub flags: u32,
    /// The expiry; see [`lifetime`].
    pub exptime: i64,
    /// The value.
    pub data: &'a [u8],
    /// Whether no reply is wanted.
    pub noreply: bool,
}

/// Which storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCommand {
    /// Stores, whatever is there.
    Set,
    /// Stores if the key is absent.
    Add,
    /// Stores if the key is present.
    Replace,
    /// Adds behind the value.
    Append,
    /// Adds before the value.
    Prepend,
    /// Stores if the item still has this CAS (rule C2).
    Cas(u64),
}

/// Which way a counter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `incr`.
    Up,
    /// `decr`.
    Down,
}

/// How to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// At once.
    Now,
    /// As SIGUSR1 does.
    Graceful,
}

impl ShutdownMode {
    /// What the words behind `shutdown` ask for; `None` for words that mean nothing (rule G4).
    pub fn read(arguments: Tokens<'_>) -> Option<ShutdownMode> {
        let mut words = arguments.iter();
        match (words.next(), words.next()) {
            (None, _) => Some(ShutdownMode::Now),
            (Some(b"graceful"), None) => Some(ShutdownMode::Graceful),
            _ => None,
        }
    }
}

/// What an exptime means (rules X1, X2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It does not expire.
    Never,
    /// It is dead at once.
    AlreadyExpired,
    /// So many seconds from now.
    Seconds(u64),
    /// At this second since the Unix epoch.
    UnixTime(u64),
}

/// The longest exptime that counts from now: 30 days, in seconds (rule X1).
const RELATIVE_SECONDS_MAX: u64 = 2_592_000;

/// Reads an exptime.
///
/// ```
/// use hotspare_memcached::classic::{Lifetime, lifetime};
/// assert_eq!(lifetime(0), Lifetime::Never);
/// assert_eq!(lifetime(2_592_000), Lifetime::Seconds(2_592_000));
/// assert_eq!(lifetime(2_592_001), Lifetime::UnixTime(2_592_001));
/// assert_eq!(lifetime(-1), Lifetime::AlreadyExpired);
/// ```
pub fn lifetime(exptime: i64) -> Lifetime {
    match u64::try_from(exptime) {
        Err(_) => Lifetime::AlreadyExpired,
        Ok(0) => Lifetime::Never,
        Ok(seconds) if seconds <= RELATIVE_SECONDS_MAX => Lifetime::Seconds(seconds),
        Ok(moment) => Lifetime::UnixTime(moment),
    }
}

impl StoreCommand {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            StoreCommand::Set => "set",
            StoreCommand::Add => "add",
            StoreCommand::Replace => "replace",
            StoreCommand::Append => "append",
            StoreCommand::Prepend => "prepend",
            StoreCommand::Cas(_) => "cas",
        }
    }
}

/// Appends a line of words, with `noreply` if wanted.
fn write_line(out: &mut Vec<u8>, words: &[&[u8]], noreply: bool) {
    for (index, word) in words.iter().filter(|word| !word.is_empty()).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    if noreply {
        out.extend_from_slice(b" noreply");
    }
    out.extend_from_slice(b"\r\n");
}

fn decimal(number: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(20);
    number::write(number, &mut text);
    text
}

fn signed_decimal(number: i64) -> Vec<u8> {
    let mut text = Vec::with_capacity(20);
    number::write_signed(number, &mut text);
    text
}

impl Request<'_> {
    /// Appends the bytes that a client sends. A `StoreTooLarge` is its line without the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Request::Get { with_cas, keys } => {
                out.extend_from_slice(if with_cas { b"gets" } else { b"get" });
                write_keys(out, keys);
            }
            Request::GetAndTouch { with_cas, exptime, keys } => {
                out.extend_from_slice(if with_cas { b"gats " } else { b"gat " });
                number::write_signed(exptime, out);
                write_keys(out, keys);
            }
            Request::Store(store) => {
                write_store_line(out, &store, store.data.len() as u64);
                out.extend_from_slice(store.data);
                out.extend_from_slice(b"\r\n");
            }
            Request::StoreTooLarge { command, key, bytes, noreply, .. } => {
                let store = Store { command, key, flags: 0, exptime: 0, data: b"", noreply };
                write_store_line(out, &store, bytes);
            }
            Request::Delete { key, noreply } => write_line(out, &[b"delete", key], noreply),
            Request::Count { direction, key, delta, noreply } => {
                let name: &[u8] = if direction == Direction::Up { b"incr" } else { b"decr" };
                write_line(out, &[name, key, &decimal(delta)], noreply);
            }
            Request::Touch { key, exptime, noreply } => {
                write_line(out, &[b"touch", key, &signed_decimal(exptime)], noreply);
            }
            Request::FlushAll { exptime, noreply } => {
                let exptime = exptime.map(signed_decimal).unwrap_or_default();
                write_line(out, &[b"flush_all", &exptime], noreply);
            }
            Request::Version => write_line(out, &[b"version"], false),
            Request::RefreshCertificates { noreply } => write_line(out, &[b"refresh_certs"], noreply),
            Request::Verbosity { level, noreply } => {
                write_line(out, &[b"verbosity", &decimal(level)], noreply);
            }
            Request::Quit => write_line(out, &[b"quit"], false),
            Request::Stats { arguments } => {
                out.extend_from_slice(b"stats");
                write_keys(out, arguments);
            }
            Request::Operate { command, arguments } => {
                out.extend_from_slice(command.name());
                write_keys(out, arguments);
            }
            Request::Shutdown { arguments } => {
                out.extend_from_slice(b"shutdown");
                write_keys(out, arguments);
            }
        }
    }
}

fn write_keys(out: &mut Vec<u8>, keys: Keys<'_>) {
    for key in keys.iter() {
        out.push(b' ');
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_store_line(out: &mut Vec<u8>, store: &Store<'_>, bytes: u64) {
    let cas = match store.command {
        StoreCommand::Cas(cas) => decimal(cas),
        _ => Vec::new(),
    };
    let flags = decimal(u64::from(store.flags));
    let exptime = signed_decimal(store.exptime);
    let name = store.command.name().as_bytes();
    write_line(out, &[name, store.key, &flags, &exptime, &decimal(bytes), &cas], store.noreply);
}
