//! Ports that stay free until a test takes them, and again after it has let them go.
//!
//! A port that the system chose (`:0`) may be given to anybody else between its end and the next start there: another
//! test's server, or a connection going out. What must come back at its address takes one from here.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that may be taken: above what services are registered at by habit.
const FIRST: u16 = 10_000;
/// Where the system's own choices begin when it doesn't say (Linux's default).
const EPHEMERAL: u16 = 32_768;

/// A port that the system gives to nobody by itself, and that nobody listens at on any address now. Each call gives
/// another one.
///
/// # Panics
/// None is left below the ports that the system chooses from.
pub fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let first_chosen = range.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let count = first_chosen.unwrap_or(EPHEMERAL).saturating_sub(FIRST);
    assert!(count > 0, "the system chooses its ports from {FIRST} on: none is left for tests");
    // Test programs that run side by side begin at different ones.
    let from = u32::from(count) * (std::process::id() % 64) / 64;
    (0..count)
        .map(|_| {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            FIRST + u16::try_from((from + step) % u32::from(count)).expect("below a count of ports")
        })
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .expect("a free port below those that the system chooses from")
}

/// An address of this machine's loopback with such a port.
pub fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_one_that_is_taken_is_passed_over() {
        let first = port();
        let second = port();
        assert_ne!(first, second);
        // What comes next is taken before it is asked for, here or by somebody else.
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, second + 1));
        assert_ne!(port(), second + 1);
    }
}
