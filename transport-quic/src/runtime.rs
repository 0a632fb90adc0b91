//! The thread of a node, and the async runtime on it: the only file that names one.
//!
//! Lives here: the loop that polls the replicator, tasks, time-outs, sockets. Not here: what a task does.

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hotspare::{Cache, Next, Replicator};
use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

/// The longest sleep: a bound on what a missed event could cost.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long last words may take to arrive when the node drains, and when it does not.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_IN_HASTE: Duration = Duration::from_millis(10);

/// What the handle of a node and its thread share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    /// Until when the thread may drain before it stops.
    drain_until: Mutex<Option<Instant>>,
    waker: Mutex<Option<Waker>>,
}

impl Control {
    pub(crate) fn drain(&self, until: Instant) {
        *self.drain_until.lock() = Some(until);
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}

/// A runtime on no thread yet.
#[derive(Debug)]
pub(crate) struct Runtime(tokio::runtime::Runtime);

/// Starts tasks, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(Handle);

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    /// `None` when the task was ended, or panicked.
    type Output = Option<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Option<T>> {
        pin!(&mut self.0).poll(cx).map(Result::ok)
    }
}

impl Spawner {
    /// Starts a task that is of use to whoever holds it.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Task(self.0.spawn(task))
    }

    /// Starts a task that ends by itself.
    pub(crate) fn detach(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(task));
    }

    /// An end of QUIC at a local address.
    pub(crate) fn bind(
        &self,
        address: SocketAddr,
        server: Option<ServerConfig>,
    ) -> std::io::Result<Endpoint> {
        let _context = self.0.enter();
        let socket = UdpSocket::bind(address)?;
        Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
    }

    /// Moves an end of QUIC to another local address.
    pub(crate) fn rebind(&self, endpoint: &Endpoint, address: SocketAddr) -> std::io::Result<()> {
        let _context = self.0.enter();
        endpoint.rebind(UdpSocket::bind(address)?)
    }
}

/// `None` if it takes longer.
pub(crate) async fn within<T>(limit: Duration, task: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, task).await.ok()
}

/// The first address of a name.
pub(crate) async fn look_up(address: &str) -> std::io::Result<Option<SocketAddr>> {
    Ok(tokio::net::lookup_host(address).await?.next())
}

impl Runtime {
    pub(crate) fn new() -> std::io::Result<Runtime> {
        Builder::new_current_thread().enable_all().build().map(Runtime)
    }

    pub(crate) fn spawner(&self) -> Spawner {
        Spawner(self.0.handle().clone())
    }

    /// Polls the replicator on this thread until it is told to stop.
    pub(crate) fn run(
        self,
        cache: &Cache,
        replicator: Replicator,
        endpoints: &[Endpoint],
        control: &Control,
    ) {
        self.0.block_on(async {
            let limit = if drive(cache, replicator, control).await { FAREWELL } else { FAREWELL_IN_HASTE };
            // Links that were dropped are still saying their last words.
            within(limit, async {
                for endpoint in endpoints {
                    endpoint.wait_idle().await;
                }
            })
            .await;
        });
        // A name that is being looked up is not waited for.
        self.0.shutdown_background();
    }

    /// Lets the tasks run for a while.
    #[cfg(test)]
    pub(crate) fn rest(&self, time: Duration) {
        self.block_on(async { tokio::time::sleep(time).await });
    }

    #[cfg(test)]
    pub(crate) fn block_on<T>(&self, task: impl Future<Output = T>) -> T {
        self.0.block_on(task)
    }
}

/// Until the node stops; whether it drained first.
async fn drive(cache: &Cache, mut replicator: Replicator, control: &Control) -> bool {
    loop {
        let next = poll_fn(|cx| {
            *control.waker.lock() = Some(cx.waker().clone());
            Poll::Ready(replicator.poll(cx))
        })
        .await;
        let stops = control.stop.load(Ordering::Acquire);
        if stops {
            let drain_until = *control.drain_until.lock();
            match drain_until {
                Some(until) if Instant::now() < until && !replicator.is_drained() => {}
                Some(_) => {
                    poll_fn(|cx| {
                        replicator.say_goodbye(cx);
                        Poll::Ready(())
                    })
                    .await;
                    return true;
                }
                None => return false,
            }
        }
        match next {
            Next::Now => tokio::task::yield_now().await,
            Next::Soon => {
                // All of this thread, which sends and acknowledges packets as well: they are fewer and fuller for it.
                std::thread::sleep(replicator.linger());
                tokio::task::yield_now().await;
            }
            // While draining, acks bring the wake-up; the time-out bounds it.
            Next::At(_) if stops => woken_or(Duration::from_millis(1)).await,
            Next::At(moment) => {
                let millis = moment.saturating_sub(cache.local_now_ms());
                woken_or(Duration::from_millis(millis).min(SLEEP_MAX)).await;
            }
        }
    }
}

/// Waits until anything wakes this task, for at most this long. A wake-up since its last poll counts.
async fn woken_or(limit: Duration) {
    let mut sleep = pin!(tokio::time::sleep(limit));
    let mut slept = false;
    poll_fn(|cx| match std::mem::replace(&mut slept, true) {
        true => Poll::Ready(()),
        false => sleep.as_mut().poll(cx),
    })
    .await;
}
