//! Reading through and following changes under the runtimes that people use, and under none: one load, and a cancelled
//! one is handed over; each change, in order.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use hotspare::{Cache, Config, Effect, Expiry, LoadError, ReplicationConfig, Subscription};

type Failure = std::io::Error;

const MINUTE: Duration = Duration::from_secs(60);
const TASKS: usize = 64;

fn cache() -> Cache {
    Cache::new(Config::new().memory_bytes_max(8 << 20)).unwrap()
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap()
}

/// Gives the others a turn, under any runtime.
async fn let_others_run() {
    let mut turns = 100;
    std::future::poll_fn(|context| {
        turns -= 1;
        if turns == 0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Wants `k` with a load that takes a while, and counts it.
async fn want(cache: Cache, loads: Arc<AtomicUsize>) -> Bytes {
    let load = async {
        loads.fetch_add(1, Ordering::SeqCst);
        let_others_run().await;
        Ok::<_, Failure>("value")
    };
    cache.get_or_load_async("k", MINUTE, load).await.unwrap()
}

/// Wants `k` and never gets an answer; tells when it is loading.
async fn want_forever(cache: Cache, begun: mpsc::Sender<()>) {
    let load = async {
        begun.send(()).unwrap();
        std::future::pending::<Result<&str, Failure>>().await
    };
    let _ = cache.get_or_load_async("k", MINUTE, load).await;
}

/// Polls a future once, which has to wait.
async fn begin_to_wait(mut future: Pin<&mut impl Future>) {
    let is_pending = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending()));
    assert!(is_pending.await, "it waits for the other's load");
}

/// Wants `k` while another one loads it, cancels that one, and gets what it loads itself.
async fn take_over(cache: &Cache, cancel: impl AsyncFnOnce()) {
    let load = async {
        let_others_run().await;
        Ok::<_, Failure>("taken over")
    };
    let mut waiting = pin!(cache.get_or_load_async("k", MINUTE, load));
    begin_to_wait(waiting.as_mut()).await;
    cancel().await;
    assert_eq!(waiting.await.unwrap(), "taken over");
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"taken over");
}

/// The least of executors.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn of_many_tokio_tasks_one_loads() {
    let (cache, loads, runtime) = (cache(), Arc::new(AtomicUsize::new(0)), tokio());
    let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(want(cache.clone(), loads.clone()))).collect();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), "value");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn of_many_smol_tasks_one_loads() {
    let (cache, loads) = (cache(), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..TASKS).map(|_| smol::spawn(want(cache.clone(), loads.clone()))).collect();
    for task in tasks {
        assert_eq!(smol::block_on(task), "value");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn of_threads_without_a_runtime_and_of_both_runtimes_one_loads() {
    let (cache, loads, runtime) = (cache(), Arc::new(AtomicUsize::new(0)), tokio());
    let want_here = || want(cache.clone(), loads.clone());
    thread::scope(|scope| {
        let bare: Vec<_> = (0..8).map(|_| scope.spawn(|| block_on(want_here()))).collect();
        let blocking: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Failure>("value")
                    };
                    cache.get_or_load("k", MINUTE, load).unwrap()
                })
            })
            .collect();
        let on_tokio: Vec<_> = (0..8).map(|_| runtime.spawn(want_here())).collect();
        let on_smol: Vec<_> = (0..8).map(|_| smol::spawn(want_here())).collect();
        for thread in bare.into_iter().chain(blocking) {
            assert_eq!(thread.join().unwrap(), "value");
        }
        on_tokio.into_iter().for_each(|task| assert_eq!(runtime.block_on(task).unwrap(), "value"));
        on_smol.into_iter().for_each(|task| assert_eq!(smol::block_on(task), "value"));
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn aborted_tokio_task_hands_over() {
    let (cache, runtime) = (cache(), tokio());
    let (begun, has_begun) = mpsc::channel();
    let first = runtime.spawn(want_forever(cache.clone(), begun));
    has_begun.recv().unwrap();
    let second = runtime.spawn({
        let cache = cache.clone();
        async move {
            take_over(&cache, async || {
                first.abort();
                assert!(first.await.unwrap_err().is_cancelled());
            })
            .await;
        }
    });
    runtime.block_on(second).unwrap();
}

#[test]
fn aborted_tokio_task_hands_over_to_one_of_many() {
    let (cache, loads, runtime) = (cache(), Arc::new(AtomicUsize::new(0)), tokio());
    let (begun, has_begun) = mpsc::channel();
    let first = runtime.spawn(want_forever(cache.clone(), begun));
    has_begun.recv().unwrap();
    let others: Vec<_> = (0..TASKS).map(|_| runtime.spawn(want(cache.clone(), loads.clone()))).collect();
    runtime.block_on(let_others_run());
    first.abort();
    for other in others {
        assert_eq!(runtime.block_on(other).unwrap(), "value");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn cancelled_smol_task_hands_over() {
    let cache = cache();
    let (begun, has_begun) = mpsc::channel();
    let first = smol::spawn(want_forever(cache.clone(), begun));
    has_begun.recv().unwrap();
    smol::block_on(take_over(&cache, async || assert!(first.cancel().await.is_none())));
}

#[test]
fn dropped_future_hands_over_without_a_runtime() {
    let cache = cache();
    let (begun, _has_begun) = mpsc::channel();
    let mut first = Box::pin(want_forever(cache.clone(), begun));
    block_on(async {
        begin_to_wait(first.as_mut()).await;
        take_over(&cache, async || drop(first)).await;
    });
}

#[test]
fn runtime_that_ends_in_the_middle_of_a_load_hands_over_to_a_thread() {
    let (cache, runtime) = (cache(), tokio());
    let (begun, has_begun) = mpsc::channel();
    runtime.spawn(want_forever(cache.clone(), begun));
    has_begun.recv().unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| cache.get_or_load("k", MINUTE, || Ok::<_, Failure>("by a thread")));
        // Likely to wait by then; the test holds if not.
        block_on(let_others_run());
        drop(runtime);
        assert_eq!(other.join().unwrap().unwrap(), "by a thread");
    });
}

#[test]
fn error_of_a_load_reaches_a_task_of_another_runtime() {
    let (cache, runtime) = (cache(), tokio());
    let (fail, failing) = mpsc::channel::<Failure>();
    let (begun, has_begun) = mpsc::channel();
    let first = runtime.spawn({
        let cache = cache.clone();
        async move {
            let load = async move {
                begun.send(()).unwrap();
                Err::<&str, _>(failing.recv().unwrap())
            };
            cache.get_or_load_async("k", MINUTE, load).await.map_err(|error| error.to_string())
        }
    });
    has_begun.recv().unwrap();
    smol::block_on(async {
        let unused = async { Ok::<_, Failure>("it must not be asked") };
        let mut second = pin!(cache.get_or_load_async("k", MINUTE, unused));
        begin_to_wait(second.as_mut()).await;
        fail.send(Failure::other("no database")).unwrap();
        let Err(LoadError::Loader(error)) = second.await else { panic!("the load failed") };
        assert_eq!(error.to_string(), "no database");
    });
    assert!(runtime.block_on(first).unwrap().unwrap_err().contains("no database"));
}

/// How many changes a task follows.
const CHANGES: u64 = 1_000;

fn cache_with_log() -> Cache {
    Cache::new(Config::new().memory_bytes_max(8 << 20).replication(ReplicationConfig::primary())).unwrap()
}

/// Follows changes until the last one, or the end of the cache.
async fn follow(mut changes: Subscription) -> u64 {
    let mut told = 0;
    while let Some(change) = changes.changed().await {
        if let Effect::Put { value, .. } = change.effect {
            assert_eq!(value, told.to_string());
            told += 1;
        }
        if told == CHANGES {
            break;
        }
    }
    told
}

fn write_all(cache: &Cache) {
    for number in 0..CHANGES {
        cache.set("k", number.to_string(), Expiry::Never).unwrap();
        if number % 50 == 0 {
            // Likely to be asleep by then; the test holds if not.
            block_on(let_others_run());
        }
    }
}

#[test]
fn changes_are_followed_under_tokio_smol_and_without_a_runtime() {
    let (cache, runtime) = (cache_with_log(), tokio());
    let changes = || cache.subscribe(None).unwrap();
    let on_tokio: Vec<_> = (0..4).map(|_| runtime.spawn(follow(changes()))).collect();
    let on_smol: Vec<_> = (0..4).map(|_| smol::spawn(follow(changes()))).collect();
    thread::scope(|scope| {
        let bare: Vec<_> = (0..2)
            .map(|_| {
                let changes = changes();
                scope.spawn(|| block_on(follow(changes)))
            })
            .collect();
        write_all(&cache);
        bare.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), CHANGES));
    });
    on_tokio.into_iter().for_each(|task| assert_eq!(runtime.block_on(task).unwrap(), CHANGES));
    on_smol.into_iter().for_each(|task| assert_eq!(smol::block_on(task), CHANGES));
}

#[test]
fn a_task_that_waits_for_changes_ends_with_the_cache() {
    let (cache, runtime) = (cache_with_log(), tokio());
    let task = runtime.spawn(follow(cache.subscribe(None).unwrap()));
    block_on(let_others_run());
    drop(cache);
    assert_eq!(runtime.block_on(task).unwrap(), 0);
}

#[test]
fn a_sleeping_subscriber_is_woken_once_however_much_is_written() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let cache = cache_with_log();
    let mut changes = cache.subscribe(None).unwrap();
    while changes.try_next().is_ok() {}
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    assert!(changes.poll_next(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    for _ in 0..100 {
        cache.set("k", "v", Expiry::Never).unwrap();
        cache.flush().unwrap();
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "it takes no changes, and costs writers nothing");
}
