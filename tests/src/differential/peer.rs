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

/// How long a server has for a piece before the next one comes.
const PAUSE: Duration = Duration::from_micros(300);

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
            // The no-op has the answers before it sent.
            _ => b"md separator Oseparator\r\nmn\r\n".to_vec(),
        }
    }

    /// The answer to [`Peer::separator`].
    pub(super) fn separator_answer(dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect::Binary => no_op_answer([0xfe, 0xce, 0, 0]),
            _ => b"NF Oseparator\r\nMN\r\n".to_vec(),
        }
    }

    /// Sends a step with a fence behind it, cut at `cuts` (thousandths of the step). A server that has closed is found
    /// out when its answer is read.
    pub(super) fn send(&mut self, step: &[u8], cuts: &[u16]) {
        let bytes = [step, &fence(self.dialect)].concat();
        let places = cuts.iter().map(|cut| step.len() * usize::from(*cut) / 1000);
        let places: Vec<usize> = places.chain([bytes.len()]).collect();
        if bytes.len() <= AT_ONCE_BYTES_MAX {
            let _ = send_pieces(&mut self.socket, &bytes, &places);
        } else if let Ok(mut socket) = self.socket.try_clone() {
            // The server may want its answers taken before it reads on.
            std::thread::spawn(move || send_pieces(&mut socket, &bytes, &places));
        }
    }

    /// Reads until the fence, the end, or until nothing has come for `patience`.
    pub(super) fn receive(&mut self, answer: &mut Vec<u8>, patience: Duration) -> std::io::Result<End> {
        let mut deadline = Instant::now() + patience;
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
                Ok(count) => {
                    answer.extend_from_slice(&piece[..count]);
                    deadline = Instant::now() + patience;
                }
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
        match self.dialect {
            Dialect::Binary => answer.strip_suffix(&no_op_answer(FENCE_OPAQUE)[..]).map(<[u8]>::len),
            _ => {
                let rest = answer.strip_suffix(b"NF Ofence\r\n")?;
                // The no-op may be the end of a line that was left open.
                Some(rest.strip_suffix(b"MN\r\n").unwrap_or(rest).len())
            }
        }
    }
}

/// What stands behind each step. Of lines a no-op, which has the answers before it sent, and one that is answered
/// as no request is.
fn fence(dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Binary => no_op(FENCE_OPAQUE),
        _ => b"mn\r\nmd fence Ofence\r\n".to_vec(),
    }
}

/// Sends the bytes up to each of these places, with a pause for the server to read them.
fn send_pieces(socket: &mut UnixStream, bytes: &[u8], places: &[usize]) -> std::io::Result<()> {
    let mut sent = 0;
    for place in places {
        if sent > 0 {
            std::thread::sleep(PAUSE);
        }
        socket.write_all(&bytes[sent..*place])?;
        sent = *place;
    }
    Ok(())
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
