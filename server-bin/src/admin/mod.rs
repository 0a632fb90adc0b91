//! The operator's HTTP: health, status, metrics, promote, follow.
//!
//! Lives here: accepting, a few threads, time-outs. Not here: reading a request (see `http`), what is answered (see
//! `routes`, `metrics`).

mod http;
mod metrics;
mod routes;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
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
    pub(crate) counters: Box<dyn Fn() -> CountersSnapshot + Send + Sync>,
}

/// A running admin server; it lives as long as the process.
pub(crate) struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// Binds, then answers on threads of its own.
    pub(crate) fn start(
        address: SocketAddr,
        token: Option<Vec<u8>>,
        cache: Cache,
        counters: impl Fn() -> CountersSnapshot + Send + Sync + 'static,
    ) -> std::io::Result<Admin> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let context = Arc::new(Context { cache, token, counters: Box::new(counters) });
        let (sender, sockets) = bounded::<TcpStream>(THREADS);
        for index in 0..THREADS {
            let (context, sockets) = (context.clone(), sockets.clone());
            std::thread::Builder::new()
                .name(format!("hotspare-admin-{index}"))
                .spawn(move || answer_all(&context, &sockets))?;
        }
        std::thread::Builder::new().name("hotspare-admin".to_owned()).spawn(move || {
            for socket in listener.incoming() {
                match socket {
                    // With every thread and place taken the socket closes: the client may try again.
                    Ok(socket) => drop(sender.try_send(socket)),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        })?;
        Ok(Admin { address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer_all(context: &Context, sockets: &Receiver<TcpStream>) {
    while let Ok(mut socket) = sockets.recv() {
        let timed = socket.set_write_timeout(Some(TIMEOUT)).is_ok();
        if !timed {
            continue;
        }
        let answer = match http::read_request(&mut socket, TIMEOUT) {
            Ok(request) => routes::answer(context, &request),
            Err(Some(answer)) => answer,
            Err(None) => continue,
        };
        write(&mut socket, &answer);
    }
}

fn write(socket: &mut TcpStream, answer: &Answer) {
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    // A client that does not take its answer has left.
    let _ = socket.write_all(&[head.as_bytes(), answer.body.as_bytes()].concat());
}
