//! Where clients get in: the words of `-l`, `-p`, `-U` and `-a`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU16;

use super::Refusal;

/// The addresses that the words of `-l` name, each once, and those of them with `notls:` before; those without a port get
/// `port`.
pub(super) fn addresses(words: &[String], port: u16) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), Refusal> {
    if words.is_empty() {
        return Ok((vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)], Vec::new()));
    }
    let words = words.iter().flat_map(|word| word.split(';')).filter(|word| !word.is_empty());
    let (mut found, mut plain) = (Vec::new(), Vec::new());
    for word in words {
        let (word, is_plain) = word.strip_prefix("notls:").map_or((word, false), |word| (word, true));
        for address in of_word(word, port)? {
            // Port 0 is another port each time, but a name that stands for one address twice is a mistake then, too.
            if !found.contains(&address) {
                found.push(address);
                if is_plain {
                    plain.push(address);
                }
            } else if plain.contains(&address) != is_plain {
                return Err(
                    format!("-l {word}: {address} is given with notls: and without; give it once").into()
                );
            }
        }
    }
    if found.is_empty() {
        // A variable that a script has not set: clients elsewhere would knock in vain.
        return Err("-l names no address: give an IP address or a host, or leave -l out for 127.0.0.1"
            .to_owned()
            .into());
    }
    Ok((found, plain))
}

/// The addresses of one word: an IP address, `[v6]`, or a host's name, each with a port behind it or without.
fn of_word(word: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    let shape = || match word.strip_prefix("unix:") {
        Some(path) => format!("-l {word}: a unix socket goes with -s {path}, instead of TCP"),
        None => format!("-l {word}: give an IP address or a host, or either with :PORT"),
    };
    if let Ok(alone) = word.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(alone, port)]);
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, digits)) if !word.ends_with(']') => (host, digits.parse().map_err(|_| shape())?),
        _ => (word, port),
    };
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(shape)?;
        return Ok(vec![SocketAddr::new(IpAddr::V6(inner.parse().map_err(|_| shape())?), port)]);
    }
    if host.is_empty() || host.contains(':') {
        return Err(shape().into());
    }
    let host = match host {
        // Some systems know it by an address of each family, one of which they don't have.
        "localhost" => "127.0.0.1",
        // memcached's word for all of them.
        "*" => "0.0.0.0",
        _ => host,
    };
    (host, port)
        .to_socket_addrs()
        .map(Iterator::collect)
        .map_err(|why| Refusal::Host(format!("-l {word}: {why}")))
}

/// The word of `-p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TcpPort {
    /// -1: a free one.
    Any,
    /// None beside `-U`, else a free one: a server that nobody can reach is nobody's wish.
    Zero,
    Given(NonZeroU16),
}

impl TcpPort {
    /// The port as the system takes it.
    pub(super) fn number(self) -> u16 {
        if let TcpPort::Given(port) = self { port.get() } else { 0 }
    }
}

/// A TCP port as memcached takes it.
pub(super) fn tcp_port(text: &str) -> Result<TcpPort, String> {
    if text == "-1" {
        return Ok(TcpPort::Any);
    }
    let port: u16 = text.parse().map_err(|_| "give 1 to 65535, or -1 for a free port".to_owned())?;
    Ok(NonZeroU16::new(port).map_or(TcpPort::Zero, TcpPort::Given))
}

/// The word of `-U`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UdpPort {
    Off,
    Any,
    Given(NonZeroU16),
}

impl fmt::Display for UdpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UdpPort::Off => f.write_str("0"),
            UdpPort::Any => f.write_str("-1"),
            UdpPort::Given(port) => port.fmt(f),
        }
    }
}

impl UdpPort {
    /// The port as the system takes it; `None` if there is to be none.
    pub(super) fn number(self) -> Option<u16> {
        match self {
            UdpPort::Off => None,
            UdpPort::Any => Some(0),
            UdpPort::Given(port) => Some(port.get()),
        }
    }

    /// This port at each of the hosts, once.
    pub(super) fn at(self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in addresses {
            if self != UdpPort::Off && found.iter().all(|other| other.ip() != address.ip()) {
                found.push(SocketAddr::new(address.ip(), self.number().unwrap_or(0)));
            }
        }
        found
    }
}

/// A UDP port as memcached takes it: 0 is off, -1 a free one.
pub(super) fn udp_port(text: &str) -> Result<UdpPort, String> {
    if text == "-1" {
        return Ok(UdpPort::Any);
    }
    let port: u16 =
        text.parse().map_err(|_| "give 1 to 65535, 0 for none, or -1 for a free port".to_owned())?;
    Ok(NonZeroU16::new(port).map_or(UdpPort::Off, UdpPort::Given))
}

/// An octal file mode of three digits.
pub(super) fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "give an octal file mode, 0 to 777".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        addresses(&words, 5).unwrap().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_shape_of_an_address_is_read() {
        assert_eq!(read(&[]), ["127.0.0.1:5"]);
        assert_eq!(read(&["1.2.3.4", "1.2.3.4:6"]), ["1.2.3.4:5", "1.2.3.4:6"]);
        assert_eq!(read(&["::1", "[::2]", "[::3]:6"]), ["[::1]:5", "[::2]:5", "[::3]:6"]);
        assert_eq!(read(&["localhost", "localhost:6"]), ["127.0.0.1:5", "127.0.0.1:6"]);
        assert_eq!(read(&["*", "*:6"]), ["0.0.0.0:5", "0.0.0.0:6"]);
    }

    #[test]
    fn an_address_given_twice_is_listened_at_once() {
        assert_eq!(read(&["127.0.0.1", "localhost:5", ""]), ["127.0.0.1:5"]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for nothing in ["", ";"] {
            let Err(Refusal::Message(why)) = addresses(&[nothing.to_owned()], 5) else { panic!("{nothing}") };
            assert!(why.starts_with("-l names no address: give"), "{why}");
        }
        for word in ["[::1", "::1]:7", "a:b:7", "1.2.3.4:70000", ":7", "[x]:7", "1.2.3.4:"] {
            let Err(Refusal::Message(why)) = addresses(&[word.to_owned()], 5) else { panic!("{word}") };
            assert!(why.starts_with(&format!("-l {word}: ")), "{why}");
        }
        let unknown = addresses(&["999.1.1.1".to_owned()], 5);
        assert!(matches!(unknown, Err(Refusal::Host(_))), "the flag is right, and there is no such host");
    }
}
