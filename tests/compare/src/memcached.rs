//! A memcached of our own on this machine, spoken to in its text protocol with many requests on the way at once.
//!
//! Lives here: starting and stopping the process, `get` and `set`, `stats`. Not here: what is asked (see
//! `bin/memcached`).

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Memcached {
    /// Dropped with the connection, and so ended.
    _process: Process,
    replies: Replies<BufReader<TcpStream>>,
    /// Requests not sent yet.
    requests: Vec<u8>,
}

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Memcached {
    /// With `-m memory_mib` and its defaults for all else.
    ///
    /// # Errors
    /// `NotFound` where memcached isn't installed; others where it doesn't start.
    pub fn start(memory_mib: usize) -> io::Result<Memcached> {
        // A port that is free now is free a moment later too, on a machine that does nothing else.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-U", "0", "-p", &port.to_string(), "-m", &memory_mib.to_string()]);
        // Run by root it insists on a user to become; run by another it ignores this.
        command.args(["-u", "nobody"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process(command.spawn()?);
        let begin = Instant::now();
        let stream = loop {
            if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                break stream;
            }
            if let Some(status) = process.0.try_wait()? {
                return Err(Error::other(format!("memcached ended at once: {status}")));
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::TimedOut, "memcached doesn't listen"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let replies = Replies(BufReader::with_capacity(1 << 20, stream));
        Ok(Memcached { _process: process, replies, requests: Vec::new() })
    }

    fn send(&mut self) -> io::Result<()> {
        let mut stream = self.replies.0.get_ref();
        stream.write_all(&self.requests)?;
        self.requests.clear();
        Ok(())
    }

    /// A `get` for each key, all sent before the first reply is read; whether each hit.
    ///
    /// # Errors
    /// The connection broke, or a reply is none that `get` has.
    pub fn get_all<'a>(&mut self, keys: impl Iterator<Item = &'a str>) -> io::Result<Vec<bool>> {
        let mut count = 0;
        for key in keys {
            write!(self.requests, "get {key}\r\n")?;
            count += 1;
        }
        self.send()?;
        (0..count).map(|_| self.replies.is_hit()).collect()
    }

    /// A `set` for each pair, all sent before the first reply is read; how many it refused for want of memory.
    ///
    /// # Errors
    /// The connection broke, or a reply is none that `set` has.
    pub fn set_all<'a>(&mut self, items: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<u64> {
        let mut count = 0;
        for (key, value) in items {
            write!(self.requests, "set {key} 0 0 {}\r\n", value.len())?;
            self.requests.extend_from_slice(value);
            self.requests.extend_from_slice(b"\r\n");
            count += 1;
        }
        self.send()?;
        (0..count).map(|_| self.replies.is_stored().map(|is_stored| u64::from(!is_stored))).sum()
    }

    /// One figure of `stats` or, with an argument, of `stats slabs` and its like; 0 where there is none of that name.
    ///
    /// # Errors
    /// The connection broke.
    pub fn stat(&mut self, of: &str, name: &str) -> io::Result<u64> {
        write!(self.requests, "stats{of}\r\n")?;
        self.send()?;
        let mut figure = 0;
        loop {
            let line = self.replies.line()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["STAT", word, number] if word == name => figure = number.parse().unwrap_or(0),
                ["STAT", ..] => {}
                ["END"] => return Ok(figure),
                _ => return Err(unexpected(&line)),
            }
        }
    }
}

fn unexpected(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("memcached says {line:?}"))
}

/// Replies one after the other, as they come.
struct Replies<R>(R);

impl<R: BufRead> Replies<R> {
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// The reply to a `get` of one key. A value is read to its end, for the next reply comes after it.
    fn is_hit(&mut self) -> io::Result<bool> {
        let line = self.line()?;
        if line == "END" {
            return Ok(false);
        }
        let words: Vec<&str> = line.split(' ').collect();
        let ["VALUE", _key, _flags, len] = words[..] else { return Err(unexpected(&line)) };
        let len: u64 = len.parse().map_err(|_| unexpected(&line))?;
        io::copy(&mut (&mut self.0).take(len + 2), &mut io::sink())?;
        let end = self.line()?;
        if end == "END" { Ok(true) } else { Err(unexpected(&end)) }
    }

    /// The reply to a `set`; `false` where no memory could be had for it.
    fn is_stored(&mut self) -> io::Result<bool> {
        let line = self.line()?;
        match line.as_str() {
            "STORED" => Ok(true),
            "SERVER_ERROR out of memory storing object" => Ok(false),
            _ => Err(unexpected(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart_whatever_bytes_a_value_has() {
        let text: &[u8] = b"VALUE a 0 5\r\nEND\r\n\r\nEND\r\nEND\r\nVALUE b 0 0\r\n\r\nEND\r\nSTORED\r\n\
            SERVER_ERROR out of memory storing object\r\nERROR\r\n";
        let mut replies = Replies(text);
        assert!(replies.is_hit().unwrap());
        assert!(!replies.is_hit().unwrap());
        assert!(replies.is_hit().unwrap());
        assert!(replies.is_stored().unwrap());
        assert!(!replies.is_stored().unwrap());
        assert_eq!(replies.is_stored().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(replies.is_hit().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
