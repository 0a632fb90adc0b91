//! A client's connection: meta commands out, answers understood, every failure an ordinary outcome.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a node answered to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// Done; a set tells its version.
    Done(u64),
    /// Refused before anything was changed.
    Refused,
    /// Nobody knows.
    Unknown,
    /// An answer that no node should give.
    Strange(String),
}

/// What a node answered to a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Got {
    /// A value and its version.
    Value(Vec<u8>, u64),
    Miss,
    /// The node answers no reads.
    Refused,
    /// An answer that no node should give.
    Strange(String),
}

/// Errors by which a node says that nothing was changed.
const REFUSALS: [&str; 5] = [
    "SERVER_ERROR not enough replicas",
    "SERVER_ERROR this node is a replica",
    "SERVER_ERROR this node is the primary no more",
    "SERVER_ERROR this primary is handing over",
    "SERVER_ERROR no lease",
];
/// Errors by which it says that the write may survive or not.
const UNKNOWN: [&str; 2] = ["SERVER_ERROR replication timeout", "SERVER_ERROR replication diverged"];

/// One connection to one node.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; no step on the connection takes longer than `patience`.
    pub(super) fn open(address: SocketAddr, patience: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The answer to `ms KEY LENGTH c` or `md KEY`.
    pub(super) fn written(&mut self) -> io::Result<Written> {
        let line = self.line()?;
        let is = |words: &[&str]| words.iter().any(|words| line.starts_with(words));
        Ok(match &*line {
            "HD" | "NF" => Written::Done(0),
            _ if line.starts_with("HD c") => {
                line[4..].parse().map_or(Written::Strange(line.clone()), Written::Done)
            }
            _ if is(&REFUSALS) => Written::Refused,
            _ if is(&UNKNOWN) => Written::Unknown,
            _ => Written::Strange(line),
        })
    }

    /// The answer to `mg KEY v c`.
    pub(super) fn got(&mut self) -> io::Result<Got> {
        let line = self.line()?;
        if line == "EN" {
            return Ok(Got::Miss);
        }
        if line.starts_with("SERVER_ERROR ") {
            return Ok(Got::Refused);
        }
        let head = line.strip_prefix("VA ").and_then(|rest| rest.split_once(" c"));
        let Some((Ok(length), Ok(version))) = head.map(|(length, version)| (length.parse(), version.parse()))
        else {
            return Ok(Got::Strange(line));
        };
        let mut value: Vec<u8> = vec![0; length];
        self.stream.read_exact(&mut value)?;
        match self.line()?.is_empty() {
            true => Ok(Got::Value(value, version)),
            false => Ok(Got::Strange("a value of another length".to_owned())),
        }
    }
}

/// `ms`, whose answer has the version.
pub(super) fn set(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(format!("ms {key} {} c\r\n", value.len()).as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// `md`.
pub(super) fn delete(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(format!("md {key}\r\n").as_bytes());
}

/// `mg`, whose answer has value and version.
pub(super) fn get(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(format!("mg {key} v c\r\n").as_bytes());
}
