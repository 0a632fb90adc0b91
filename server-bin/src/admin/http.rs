//! One HTTP request, read with bounds, and one answer.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// What routes look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) host: Option<String>,
    /// Whether it comes from a web page.
    pub(crate) origin: bool,
    /// Whether it has another mark of a browser; an old one sends a form without an origin.
    pub(crate) browser: bool,
    pub(crate) bearer: Option<Vec<u8>>,
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer { status, content_type: "text/plain; charset=utf-8", body: body.into() + "\n" }
    }
}

/// Reads a head, within the time in all; `Err(None)` if the client left.
pub(crate) fn read_request(socket: &mut TcpStream, within: Duration) -> Result<Request, Option<Answer>> {
    let end = Instant::now() + within;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return Err(Some(Answer::text("408 Request Timeout", "the request did not come in time")));
        }
        match socket.read(&mut piece) {
            Ok(0) => return Err(None),
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                return Err(Some(Answer::text("408 Request Timeout", "the request did not come in time")));
            }
        }
        if let Some(outcome) = parse(&head) {
            return outcome.map_err(Some);
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(Some(Answer::text(
                "431 Request Header Fields Too Large",
                "the request's head is too long",
            )));
        }
    }
}

/// A request, an error, or `None` until more has come.
fn parse(head: &[u8]) -> Option<Result<Request, Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(why) => return Some(Err(Answer::text("400 Bad Request", why.to_string()))),
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    for header in parsed.headers.iter() {
        match &*header.name.to_ascii_lowercase() {
            "host" if request.host.is_some() => {
                return Some(Err(Answer::text("400 Bad Request", "the request has two hosts")));
            }
            "host" => request.host = Some(String::from_utf8_lossy(header.value).into_owned()),
            "origin" => request.origin = true,
            "referer" | "cookie" | "sec-fetch-site" | "sec-fetch-mode" => request.browser = true,
            "authorization" => request.bearer = bearer(header.value),
            _ => {}
        }
    }
    Some(Ok(request))
}

/// The token in an `Authorization` header; the scheme's name may have any case.
fn bearer(header: &[u8]) -> Option<Vec<u8>> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii().to_vec())
}

impl Request {
    /// The value of a query's field, percent-decoded; `None` if it is absent or malformed.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let raw = self.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        let mut bytes = Vec::new();
        let mut rest = raw.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                plain => plain,
            });
        }
        String::from_utf8(bytes).ok()
    }

    /// Whether the host that the client meant is an address or this machine: a page that was led here by a name of
    /// its own (DNS rebinding) has that name in it.
    pub(crate) fn host_is_plain(&self) -> bool {
        let Some(host) = &self.host else { return true };
        let name = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_whole() {
        let head =
            b"POST /follow?address=a%3A1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nAuthorization: Bearer x\r\n\r\n";
        let request = parse(head).unwrap().unwrap();
        assert_eq!((&*request.method, &*request.path), ("POST", "/follow"));
        assert_eq!(request.field("address").as_deref(), Some("a:1"));
        assert_eq!(request.bearer.as_deref(), Some(&b"x"[..]));
        assert!(request.host_is_plain() && !request.origin && !request.browser);
        for cut in 0..head.len() {
            assert_eq!(parse(&head[..cut]), None);
        }
    }

    #[test]
    fn marks_of_a_browser_and_the_token_are_seen_in_any_case() {
        let read = |header: &str| parse(format!("GET / HTTP/1.1\r\n{header}\r\n\r\n").as_bytes()).unwrap();
        assert!(read("oRIGIN: null").unwrap().origin);
        for header in ["Referer: http://a/", "Cookie: a=b", "Sec-Fetch-Site: none", "sec-fetch-mode: cors"] {
            assert!(read(header).unwrap().browser, "{header}");
        }
        assert_eq!(read("authorization: bearer  x").unwrap().bearer.as_deref(), Some(&b"x"[..]));
        for header in ["Authorization: x", "Authorization: Basic x", "Authorization: Bearer"] {
            assert_eq!(read(header).unwrap().bearer, None, "{header}");
        }
        assert!(read("Host: localhost\r\nHost: evil.example").is_err());
    }

    #[test]
    fn malformed_heads_and_escapes_are_refused() {
        assert!(parse(b"\0\0\0\0").unwrap().is_err());
        for query in ["address=%", "address=%zz", "address=%ff", "other=1"] {
            assert_eq!(Request { query: query.to_owned(), ..Request::default() }.field("address"), None);
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_plain_hosts() {
        let plain =
            |host: &str| Request { host: Some(host.to_owned()), ..Request::default() }.host_is_plain();
        assert!(plain("localhost:80") && plain("[::1]:80") && plain("10.0.0.1"));
        assert!(!plain("evil.example:80") && !plain(""));
    }
}
