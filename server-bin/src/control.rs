//! The commands `status`, `promotable`, `promote`, `follow`, `forget`, `handover` and `ack`: a small client of the admin server.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::args::{ControlKind, ControlRequest, NodeAdmin};

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Sends the command; prints the answer, or the reason on standard error with exit code 1.
pub(crate) fn run(request: &ControlRequest) -> ExitCode {
    let node = &request.node;
    let outcome = match &request.kind {
        ControlKind::Status { json } => call(node, "GET", "/status").map(|body| match json {
            true => body,
            false => table(&body),
        }),
        ControlKind::Promote { force } => {
            let path = if *force { "/promote?force=1" } else { "/promote" };
            call(node, "POST", path)
        }
        ControlKind::Handover => call(node, "POST", "/handover"),
        ControlKind::Forget { address } => {
            call(node, "POST", &format!("/forget?address={}", encode(address)))
        }
        ControlKind::Ack { mode } => call(node, "POST", &format!("/ack?mode={mode}")),
        ControlKind::Promotable => call(node, "GET", "/promotable"),
        ControlKind::Follow { address, force } => call(node, "POST", &follow_path(address, *force)),
    };
    match outcome {
        Ok(text) => {
            let tells_apart = matches!(
                request.kind,
                ControlKind::Ack { .. } | ControlKind::Follow { .. } | ControlKind::Forget { .. }
            );
            crate::print(&if tells_apart { without_warnings(&text) } else { text.clone() });
            if tells_apart {
                warnings(&text).iter().for_each(|warning| crate::say(&format!("warning: {warning}")));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            crate::say(&why);
            ExitCode::FAILURE
        }
    }
}

/// An answer whose warnings are told on standard error.
fn without_warnings(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::Object(mut answer)) => {
            answer.shift_remove("warnings");
            format!("{:#}\n", Value::Object(answer))
        }
        _ => json.to_owned(),
    }
}

/// The warnings in an answer.
fn warnings(json: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(json).unwrap_or_default();
    let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().filter_map(Value::as_str).map(printable).collect()
}

/// What to post so that a node follows the one at `address`.
pub(crate) fn follow_path(address: &str, force: bool) -> String {
    format!("/follow?address={}{}", encode(address), if force { "&force=1" } else { "" })
}

/// Percent-encodes what an address should not hold.
fn encode(address: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    address
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// One request to a node's admin server; the body of the answer, or why there is none, in words.
pub(crate) fn call(node: &NodeAdmin, method: &str, path: &str) -> Result<String, String> {
    let admin = &node.address;
    let unfound = |why: std::io::Error| format!("--admin {admin}: {why}");
    let address = admin.to_socket_addrs().map_err(unfound)?.next();
    let address = address.ok_or_else(|| format!("--admin {admin}: the name has no address"))?;
    let unreachable = |why: std::io::Error| {
        format!(
            "nothing answers at {admin} ({why}); a server answers there only if it was started with --admin {admin}, and another \
             address has to be named here by --admin, too"
        )
    };
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT).map_err(unreachable)?;
    let unanswered = |why: std::io::Error| match why.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{admin} gave no answer within {} seconds", TIMEOUT.as_secs())
        }
        _ => format!("{admin} gave no answer: {why}"),
    };
    socket.set_read_timeout(Some(TIMEOUT)).map_err(unanswered)?;
    socket.set_write_timeout(Some(TIMEOUT)).map_err(unanswered)?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n").into_bytes();
    if let Some(token) = &node.token {
        head.extend_from_slice(b"Authorization: Bearer ");
        head.extend_from_slice(token);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    socket.write_all(&head).map_err(unanswered)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(unanswered)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&answer) {
        Ok(httparse::Status::Complete(body_at)) => {
            let body = String::from_utf8_lossy(&answer[body_at..]).into_owned();
            match response.code {
                Some(200) => Ok(body),
                _ => Err(printable(body.trim_end())),
            }
        }
        _ => Err(format!("{admin} answers, but it is no admin port; name the server's --admin address")),
    }
}

/// Without control characters: an address or an error in a status may be another node's text, and a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The status for people.
fn table(json: &str) -> String {
    let Ok(Value::Object(status)) = serde_json::from_str(json) else { return json.to_owned() };
    let text = |value: &Value| match value {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = Vec::new();
    for (name, value) in &status {
        match value {
            Value::Array(list) => {
                // One line for each, named as one.
                let one = name.strip_suffix('s').unwrap_or(name);
                for element in list {
                    let shown = match element {
                        Value::Object(fields) => {
                            let field = |(name, value): (&String, &Value)| format!("{name} {}", text(value));
                            fields.iter().map(field).collect::<Vec<_>>().join(", ")
                        }
                        plain => text(plain),
                    };
                    lines.push(format!("{one:<20}{shown}"));
                }
            }
            value => lines.push(format!("{name:<20}{}", text(value))),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_a_table() {
        let json = r#"{"role":"primary","primary":null,"replicas":[{"address":"a:1","lag_seqs":2}],
            "warnings":["writes are refused","\u001b[2J"]}"#;
        let table = table(json);
        assert!(
            table.contains("warning             writes are refused\nwarning              [2J"),
            "{table}"
        );
        assert_eq!(warnings(json), ["writes are refused", " [2J"]);
        assert!(table.contains("role                primary"));
        assert!(table.contains("address a:1, lag_seqs 2"));
    }

    #[test]
    fn what_another_node_says_does_not_steer_the_terminal() {
        assert_eq!(table("{\"last_error\":\"\\u001b[2J\\u0007x\"}"), "last_error           [2J x");
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("127.0.0.1:7001"), "127.0.0.1:7001");
        assert_eq!(encode("a b&c"), "a%20b%26c");
    }
}
