//! Plain bytes over an encrypted socket that never blocks.

use std::io::{ErrorKind, IoSlice, Read, Write};

use rustls::Connection;

/// An encrypted socket. What it takes it may still hold: `flush` says whether it has gone.
#[derive(Debug)]
pub struct TlsSocket<S: Read + Write> {
    /// The socket beneath, for its poller.
    pub socket: S,
    session: Connection,
}

impl<S: Read + Write> TlsSocket<S> {
    /// A session that is to begin over a socket.
    pub fn new(socket: S, session: impl Into<Connection>) -> TlsSocket<S> {
        TlsSocket { socket, session: session.into() }
    }

    /// Whether the peer has still to show that it speaks TLS.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// The session: what the peer has shown.
    pub fn session(&self) -> &Connection {
        &self.session
    }

    /// Sends what is encrypted; `WouldBlock` if the socket does not take all of it now.
    fn send(&mut self) -> std::io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Sends, where what does not go now may go later.
    fn send_some(&mut self) -> std::io::Result<()> {
        match self.send() {
            Err(why) if why.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}

impl<S: Read + Write> Read for TlsSocket<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.send_some()?;
            match self.session.reader().read(buffer) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            // The session sees the end of the stream, too, and its reader tells an orderly one.
            self.session.read_tls(&mut self.socket)?;
            if let Err(why) = self.session.process_new_packets() {
                // The peer is told why, if it listens.
                let _ = self.send();
                return Err(std::io::Error::new(ErrorKind::InvalidData, why));
            }
        }
    }
}

impl<S: Read + Write> Write for TlsSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        // The session's buffer is bounded: a slow reader fills it, and then its socket blocks here.
        let taken = self.session.writer().write_vectored(slices)?;
        let wants_more = slices.iter().any(|slice| !slice.is_empty());
        match self.send() {
            Err(why) if why.kind() != ErrorKind::WouldBlock || taken == 0 => Err(why),
            _ if taken == 0 && wants_more => self.session.writer().write_vectored(slices),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send()
    }
}

impl<S: Read + Write> Drop for TlsSocket<S> {
    fn drop(&mut self) {
        // So that the peer can tell the end from a cut; who does not take it now may think what it likes.
        self.session.send_close_notify();
        let _ = self.send();
    }
}
