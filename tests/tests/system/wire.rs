//! A raw client connection: bytes in, bytes out, nothing understood on the way.
//!
//! Lives here: sending whole or byte by byte, and reading exactly what is expected.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a reply may take.
const REPLY_LIMIT: Duration = Duration::from_secs(5);

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Wire {
        let stream =
            TcpStream::connect_timeout(&address, REPLY_LIMIT).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(REPLY_LIMIT)).expect("a timeout");
        stream.set_write_timeout(Some(REPLY_LIMIT)).expect("a timeout");
        Wire { stream }
    }

    /// Sends `bytes` at once.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("bytes sent");
    }

    /// Sends `bytes` one by one; a server that has closed meanwhile is not an error.
    pub(crate) fn trickle(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    }

    /// Sends `bytes` as far as the server takes them.
    pub(crate) fn send_anyhow(&mut self, bytes: &[u8]) {
        // That the server hangs up on garbage is fine; what it says afterwards to others is the test.
        let _ = self.stream.write_all(bytes);
    }

    /// One reply line, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            let count = self.stream.read(&mut byte);
            assert!(matches!(count, Ok(1)), "{count:?} after {:?}", String::from_utf8_lossy(&line));
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// Sends `request` and gives the first line of its reply; `None` if the server is gone.
    pub(crate) fn ask_anyhow(&mut self, request: &str) -> Option<String> {
        self.stream.write_all(request.as_bytes()).ok()?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        Some(String::from_utf8(line).expect("text").trim_end().to_owned())
    }

    /// The same connection once more, to read from while another thread sends.
    pub(crate) fn split(&self) -> Wire {
        Wire { stream: self.stream.try_clone().expect("a second handle") }
    }

    /// Sends `request` and gives the first line of its reply.
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(request);
        self.line()
    }

    /// Up to `count` bytes: fewer when the server closes or says no more in time.
    pub(crate) fn up_to(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) | Err(_) => break,
                Ok(more) => filled += more,
            }
        }
        bytes.truncate(filled);
        bytes
    }

    /// What has come, at least one byte.
    pub(crate) fn piece(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        let count = self.stream.read(&mut bytes).expect("bytes in time");
        assert!(count > 0, "the server has closed");
        bytes.truncate(count);
        bytes
    }

    /// Whether the server has closed, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 64]) {
            Ok(count) => count == 0,
            Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
    }
}

/// The server at `address` stores and reads back.
pub(crate) fn assert_serves(address: SocketAddr) {
    let mut wire = Wire::connect(address);
    assert_eq!(wire.ask("set still-here 5 0 3\r\nyes\r\n"), "STORED");
    assert_eq!(wire.ask("get still-here\r\n"), "VALUE still-here 5 3");
    assert_eq!((wire.line(), wire.line()), ("yes".to_owned(), "END".to_owned()));
}

/// One number of `stats`. (The `memcache` crate's own `stats` stops at the first line.)
pub(crate) fn stat(address: SocketAddr, name: &str) -> u64 {
    let mut wire = Wire::connect(address);
    wire.send("stats\r\n");
    let prefix = format!("STAT {name} ");
    let mut found = None;
    loop {
        let line = wire.line();
        if line == "END" {
            return found.unwrap_or_else(|| panic!("no number is named {name}"));
        }
        found = line.strip_prefix(&prefix).and_then(|number| number.parse().ok()).or(found);
    }
}
