//! One load for all who want a key: threads, tasks, a loader that is cancelled, a value that is stale.
//!
//! `cargo run --release -p hotspare --example single_flight`

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use hotspare::{Cache, Config, LoadPolicy, Lookup, ManualClock};

const MINUTE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let cache = Cache::new(Config::new().clock(clock.clone()))?;
    threads(&cache);
    tasks(&cache);
    cancelled_loader_hands_over(&cache);
    stale_while_revalidate(&cache, &clock)
}

/// 64 threads at once: one of them asks the database, the others wait for it.
fn threads(cache: &Cache) {
    let (queries, start) = (AtomicUsize::new(0), Barrier::new(64));
    let want = || {
        start.wait();
        cache.get_or_load("by threads", MINUTE, || {
            queries.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50)); // a slow database
            Ok::<_, io::Error>("value")
        })
    };
    thread::scope(|scope| {
        let wanting: Vec<_> = (0..64).map(|_| scope.spawn(want)).collect();
        for one in wanting {
            assert_eq!(one.join().expect("no loader panics").expect("the database is up"), "value");
        }
    });
    let queries = queries.into_inner();
    println!("64 threads, {queries} query");
    assert_eq!(queries, 1);
}

/// 64 tasks on one thread: while one of them awaits the database, the others await it.
fn tasks(cache: &Cache) {
    let queries = AtomicUsize::new(0);
    let want = async || {
        let load = async {
            queries.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(query("value").await)
        };
        let value = cache.get_or_load_async("by tasks", MINUTE, load).await.expect("the database is up");
        assert_eq!(value, "value");
    };
    run((0..64).map(|_| Box::pin(want()) as Task<'_>).collect());
    let queries = queries.into_inner();
    println!("64 tasks, {queries} query");
    assert_eq!(queries, 1);
}

/// A request is cancelled while it loads, as when its client goes away: who waited for it loads instead.
fn cancelled_loader_hands_over(cache: &Cache) {
    let mut context = Context::from_waker(Waker::noop());
    let never = std::future::pending::<io::Result<&str>>();
    let mut cancelled = Box::pin(cache.get_or_load_async("handed over", MINUTE, never));
    assert!(cancelled.as_mut().poll(&mut context).is_pending(), "it loads");

    let load = async { Ok::<_, io::Error>(query("of the second").await) };
    let mut second = Box::pin(cache.get_or_load_async("handed over", MINUTE, load));
    assert!(second.as_mut().poll(&mut context).is_pending(), "it waits");

    drop(cancelled);
    run(vec![Box::pin(async {
        let value = second.await.expect("the database is up");
        println!("the first task was cancelled; the value is {:?}", String::from_utf8_lossy(&value));
        assert_eq!(value, "of the second");
    })]);
}

/// A value that is no longer fresh is handed out at once, while a thread loads a new one.
fn stale_while_revalidate(cache: &Cache, clock: &ManualClock) -> Result<(), Box<dyn Error>> {
    let policy = LoadPolicy::fresh_for(MINUTE).stale_for(10 * MINUTE);
    cache.get_or_load("page", policy, || Ok::<_, io::Error>("old"))?;
    clock.advance_ms(61_000);

    let slow = Arc::new(Barrier::new(2)); // the database answers when all requests have been answered
    let mut loading = None;
    for request in 1..=3 {
        let page = match cache.lookup("page", policy)? {
            // Fresh; or stale, while somebody else loads it already.
            Lookup::Found(page) => page,
            // Stale, and it falls to this request to have it loaded: in the background, by moving the lease.
            Lookup::Due(stale, lease) => {
                assert!(loading.is_none(), "one request has it loaded");
                let slow = slow.clone();
                loading = Some(thread::spawn(move || {
                    slow.wait();
                    lease.fill("new")
                }));
                Some(stale)
            }
            Lookup::Absent(lease) => Some(lease.fill("new")),
            Lookup::Loading(waiting) => waiting.wait(),
            Lookup::Recursive => None,
        };
        let page = page.ok_or("there is a page")?;
        println!("request {request} is answered at once: {:?}", String::from_utf8_lossy(&page));
        assert_eq!(page, "old", "nobody waits for the load");
    }
    let loading = loading.ok_or("nobody has it loaded")?;
    slow.wait();
    loading.join().expect("the load does not panic");
    let page = cache.get("page")?.ok_or("there is a page")?.value;
    println!("and when the load has ended: {:?}", String::from_utf8_lossy(&page));
    assert_eq!(page, "new");
    Ok(())
}

/// A slow database: another thread answers, after a while.
async fn query(answer: &'static str) -> &'static str {
    let (send, receive) = mpsc::channel();
    let mut asked = false;
    std::future::poll_fn(move |context| {
        if !std::mem::replace(&mut asked, true) {
            let (send, waker) = (send.clone(), context.waker().clone());
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                send.send(answer).expect("nobody cancels it");
                waker.wake();
            });
        }
        receive.try_recv().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The least of executors: polls all its tasks whenever one of them is woken, and sleeps in between.
fn run(mut tasks: Vec<Task<'_>>) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        if tasks.is_empty() {
            return;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
