//! A connection's socket, plain or encrypted.

use std::io::{IoSlice, Read, Result, Write};

use hotspare::transport::PeerCertificate;
use hotspare_tls::{TlsSocket, peer_certificate};
use mio::net::TcpStream;

pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsSocket<TcpStream>>),
}

impl Socket {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(stream) => stream,
            Socket::Tls(tls) => &tls.socket,
        }
    }

    /// What the peer showed, once its handshake is done.
    pub(crate) fn peer_certificate(&self) -> Option<PeerCertificate> {
        match self {
            Socket::Tls(tls) if !tls.is_handshaking() => peer_certificate(tls.session().peer_certificates()?),
            _ => None,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Socket::Plain(stream) => stream.read(buffer),
            Socket::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        match self {
            Socket::Plain(stream) => stream.write_vectored(slices),
            Socket::Tls(tls) => tls.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Socket::Plain(stream) => stream.flush(),
            Socket::Tls(tls) => tls.flush(),
        }
    }
}
