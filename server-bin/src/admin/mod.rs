//! The operator's HTTP: health, status, metrics, promote, follow.
//!
//! Lives here: accepting, a few threads, time-outs. Not here: reading a request (see `http`), what is answered (see
//! `routes`, `metrics`).

mod http;
mod metrics;
mod routes;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use hotspare::Cache;

use crate::server::CountersSnapshot;
use http::Answer;

/// Requests answered at once; as many may wait, more are dropped.
const THREADS: usize = 4;

/// How long a client may take to send its request, or to take the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What routes need.
pub(crate) struct Context {
    pub(crate) cache: Cache,
    pub(crate) token: Option<Vec<u8>>,
    /// Whether `/follow` refuses other machines, because the node has no replication secret.
    pub(crate) loopback_only: bool,
    pub(crate) counters: Box<dyn Fn() -> CountersSnapshot + Send + Sync>,
}

/// A running admin server. Dropping it closes its port; a request under way is still answered.
pub(crate) struct Admin {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Admin {
    /// Binds, then answers on threads of its own.
    pub(crate) fn start(
        address: SocketAddr,
        token: Option<Vec<u8>>,
        loopback_only: bool,
        cache: Cache,
        counters: impl Fn() -> CountersSnapshot + Send + Sync + 'static,
    ) -> std::io::Result<Admin> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let context = Arc::new(Context { cache, token, loopback_only, counters: Box::new(counters) });
        let (sender, sockets) = bounded::<TcpStream>(THREADS);
        for index in 0..THREADS {
            let (context, sockets) = (context.clone(), sockets.clone());
            std::thread::Builder::new()
                .name(format!("hotspare-admin-{index}"))
                .spawn(move || answer_all(&context, &sockets))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let acceptor = std::thread::Builder::new().name("hotspare-admin".to_owned()).spawn(move || {
            for socket in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                match socket {
                    // With every thread and place taken the socket closes: the client may try again.
                    Ok(socket) => drop(sender.try_send(socket)),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        })?;
        Ok(Admin { address, stop, acceptor: Some(acceptor) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The acceptor waits for a connection: this is one.
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let woken = TcpStream::connect_timeout(&address, TIMEOUT);
        if let (Ok(_), Some(acceptor)) = (woken, self.acceptor.take()) {
            // A panic of the acceptor has been reported by the panic hook already.
            let _ = acceptor.join();
        }
    }
}

fn answer_all(context: &Context, sockets: &Receiver<TcpStream>) {
    while let Ok(mut socket) = sockets.recv() {
        let timed = socket.set_write_timeout(Some(TIMEOUT)).is_ok();
        if !timed {
            continue;
        }
        let (answer, head_only) = match http::read_request(&mut socket, TIMEOUT) {
            Ok(request) => (routes::answer(context, &request), request.method == "HEAD"),
            Err(Some(answer)) => (answer, false),
            Err(None) => continue,
        };
        write(&mut socket, &answer, head_only);
    }
}

fn write(socket: &mut TcpStream, answer: &Answer, head_only: bool) {
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    // A client that does not take its answer has left.
    let body = if head_only { "" } else { &answer.body };
    let _ = socket.write_all(&[head.as_bytes(), body.as_bytes()].concat());
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use hotspare::Config;

    use super::*;

    #[test]
    fn a_dropped_admin_server_gives_its_port_back() {
        let cache = Cache::new(Config::new()).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::start(any, None, true, cache, CountersSnapshot::default).unwrap();
        let address = admin.address();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nalive\n"), "{answer}");
        drop(admin);
        assert!(TcpStream::connect(address).is_err(), "nothing listens any more");
    }
}
