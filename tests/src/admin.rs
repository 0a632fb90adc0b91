//! A small HTTP client for the administration port.
//!
//! Lives here: one request over one connection, with timeouts, and what `/status` is read for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::wait;

/// How long any one step of a request may take.
const STEP_LIMIT: Duration = Duration::from_secs(5);
/// How long a replica may take to stream.
const STREAM_LIMIT: Duration = Duration::from_secs(20);

/// How long a promotion may be refused.
const PROMOTE_LIMIT: Duration = Duration::from_secs(5);

/// Status code and body.
pub type Reply = (u16, String);

/// `GET path`.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Reply> {
    request(address, "GET", path)
}

/// `POST path` without a body.
pub fn post(address: SocketAddr, path: &str) -> io::Result<Reply> {
    request(address, "POST", path)
}

fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, STEP_LIMIT)?;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.set_write_timeout(Some(STEP_LIMIT))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    parse(&String::from_utf8_lossy(&reply)).ok_or_else(|| io::Error::other("not an HTTP reply"))
}

fn parse(reply: &str) -> Option<Reply> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// `/status`, parsed; `None` while it can't be had.
pub fn status(address: SocketAddr) -> Option<Value> {
    let (code, body) = get(address, "/status").ok()?;
    if code != 200 {
        return None;
    }
    serde_json::from_str(&body).ok()
}

/// Whether `value` has, at any depth, a field `name` whose text is `text`, whatever the case.
pub fn says(value: &Value, name: &str, text: &str) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(field, inner)| {
            let hit = field == name && inner.as_str().is_some_and(|found| found.eq_ignore_ascii_case(text));
            hit || says(inner, name, text)
        }),
        Value::Array(entries) => entries.iter().any(|entry| says(entry, name, text)),
        _ => false,
    }
}

/// Waits until the replica at `address` reports its link as streaming.
pub fn wait_streaming(address: SocketAddr) {
    wait::wait_until("a streaming link", STREAM_LIMIT, || {
        status(address).is_some_and(|status| says(&status, "link", "streaming"))
    });
}

/// Promotes the node at `address`, which may need a moment to notice that its primary is gone.
pub fn promote(address: SocketAddr) {
    let mut last = None;
    let deadline = Instant::now() + PROMOTE_LIMIT;
    wait::wait_until("a promotion", PROMOTE_LIMIT * 2, || {
        last = post(address, "/promote").ok();
        let promoted = last.as_ref().is_some_and(|(code, _)| *code == 200);
        assert!(promoted || Instant::now() < deadline, "/promote: {last:?}");
        promoted
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_body_are_read() {
        let reply = parse("HTTP/1.1 409 Conflict\r\nA: b\r\n\r\nno\n").unwrap();
        assert_eq!(reply, (409, "no\n".to_owned()));
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn a_field_is_found_at_any_depth() {
        let status = serde_json::json!({"role": "replica", "replica": {"link": "Streaming"}});
        assert!(says(&status, "link", "streaming"));
        assert!(!says(&status, "link", "down"));
    }
}
