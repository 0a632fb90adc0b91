//! A connection to one server: what is sent, and the whole of what is answered.
//!
//! Behind each step goes a *fence*, whose answer can't be mistaken: what came before it is the whole answer. No request
//! swallows it, since behind one that states more bytes than it has come as many more (see `request`); should a server
//! do so all the same, the answer is whole when nothing has come for a while.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Dialect;

/// A no-op's mark that no request has.
const FENCE_OPAQUE: [u8; 4] = [0xfe, 0xce, 0xfe, 0xce];

/// What fits a socket's buffer in any case, in bytes.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With the fence.
    Fence,
    /// The server closed.
    Closed,
    /// The fence was swallowed.
    Silence,
}

pub(super) struct Peer {
    socket: UnixStream,
    dialect: Dialect,
}

impl Peer {
    pub(super) fn connect(socket: &Path, dialect: Dialect) -> std::io::Result<Peer> {
        Ok(Peer { socket: UnixStream::connect(socket)?, dialect })
    }

    /// A no-op whose answer tells two answers apart.
    pub(super) fn separator(dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect::Binary => no_op([0xfe, 0xce, 0, 0]),
            _ => b"mn\r\n".to_vec(),
        }
    }

    /// The answer to [`Peer::separator`].
    pub(super) fn separator_answer(dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect::Binary => no_op_answer([0xfe, 0xce, 0, 0]),
            _ => b"MN\r\n".to_vec(),
        }
    }

    /// Sends a step with a fence behind it. A server that has closed is found out when its answer is read.
    pub(super) fn send(&mut self, step: &[u8]) {
        let fence = match self.dialect {
            Dialect::Binary => no_op(FENCE_OPAQUE),
            // The first line may be the end of a line that was left open; no request asks for versions in a row.
            _ => b"mn\r\nversion\r\nversion\r\nversion\r\nmn\r\n".to_vec(),
        };
        let bytes = [step, &fence].concat();
        if bytes.len() <= AT_ONCE_BYTES_MAX {
            let _ = self.socket.write_all(&bytes);
        } else if let Ok(mut socket) = self.socket.try_clone() {
            // The server may want its answers taken before it reads on.
            std::thread::spawn(move || socket.write_all(&bytes));
        }
    }

    /// Reads until the fence, the end, or `patience` is over.
    pub(super) fn receive(&mut self, answer: &mut Vec<u8>, patience: Duration) -> std::io::Result<End> {
        let deadline = Instant::now() + patience;
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(bytes) = self.before_fence(answer) {
                answer.truncate(bytes);
                return Ok(End::Fence);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Silence);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(&mut piece) {
                Ok(0) => return Ok(End::Closed),
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(why) if why.kind() == ErrorKind::ConnectionReset => return Ok(End::Closed),
                Err(why)
                    if matches!(
                        why.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(why) => return Err(why),
            }
        }
    }

    fn before_fence(&self, answer: &[u8]) -> Option<usize> {
        if self.dialect == Dialect::Binary {
            return answer.strip_suffix(&no_op_answer(FENCE_OPAQUE)[..]).map(<[u8]>::len);
        }
        let mut rest = answer.strip_suffix(b"MN\r\n")?;
        for _ in 0..3 {
            let text = rest.strip_suffix(b"\r\n")?;
            let line = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            rest = text[line..].starts_with(b"VERSION ").then_some(&rest[..line])?;
        }
        Some(rest.strip_suffix(b"MN\r\n").unwrap_or(rest).len())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends a write that nobody reads; fails only when it is closed already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn no_op(opaque: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 24];
    packet[..2].copy_from_slice(&[0x80, 0x0a]);
    packet[12..16].copy_from_slice(&opaque);
    packet
}

fn no_op_answer(opaque: [u8; 4]) -> Vec<u8> {
    let mut packet = no_op(opaque);
    packet[0] = 0x81;
    packet
}
