//! Reading through: one load for all who want a key, whatever happens to whoever loads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use hotspare::{
    Cache, Clock, Config, Expiry, LoadError, LoadPolicy, Lookup, ManualClock, ReadError, ReplicationConfig,
    Update, Waiting,
};

type Failure = std::io::Error;

const MINUTE: Duration = Duration::from_secs(60);

fn cache() -> (Cache, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    (Cache::new(Config::new().memory_bytes_max(8 << 20).clock(clock.clone())).unwrap(), clock)
}

/// Polls by hand: the least of executors.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>, woken: &Arc<Count>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(woken.clone())))
}

#[test]
fn of_many_threads_one_loads_and_all_have_its_value() {
    let (cache, _) = cache();
    let (loads, barrier) = (AtomicUsize::new(0), Barrier::new(16));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                barrier.wait();
                let value = cache
                    .get_or_load("k", MINUTE, || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        // Long enough for the others to come and wait; none has to for the test to hold.
                        let_others_run();
                        Ok::<_, Failure>("value")
                    })
                    .unwrap();
                assert_eq!(&value[..], b"value");
            });
        }
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"value");
}

#[test]
fn many_keys_under_load_are_loaded_once_each() {
    let (cache, _) = cache();
    let loads: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for thread in 0..8_usize {
            let (cache, loads) = (&cache, &loads);
            scope.spawn(move || {
                for step in 0..4_000 {
                    let number = (step * 31 + thread * 7) % 64;
                    let value = cache
                        .get_or_load(format!("k{number}"), LoadPolicy::forever(), || {
                            loads[number].fetch_add(1, Ordering::SeqCst);
                            Ok::<_, Failure>(number.to_string())
                        })
                        .unwrap();
                    assert_eq!(value, number.to_string());
                }
            });
        }
    });
    assert!(loads.iter().all(|loads| loads.load(Ordering::SeqCst) == 1));
}

/// A thread that wants `k` and waits: `begun` says when the leader has its lease.
fn waiter(cache: &Cache, value: &'static str) -> thread::JoinHandle<Result<Vec<u8>, String>> {
    let cache = cache.clone();
    thread::spawn(move || {
        let loaded = cache.get_or_load("k", MINUTE, || Ok::<_, Failure>(value));
        loaded.map(|value| value.to_vec()).map_err(|error| error.to_string())
    })
}

/// Makes it likely that other threads have come to where they wait; no test needs it to hold.
fn let_others_run() {
    (0..1_000).for_each(|_| thread::yield_now());
}

fn lease(cache: &Cache, key: &str, policy: impl Into<LoadPolicy>) -> hotspare::Lease {
    match cache.lookup(key, policy).unwrap() {
        Lookup::Absent(lease) | Lookup::Due(_, lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn panicking_loader_hands_over_to_one_who_waits() {
    let (cache, _) = cache();
    let mut waiting = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        cache.get_or_load("k", MINUTE, || -> Result<&str, Failure> {
            let Lookup::Loading(other) =
                thread::scope(|scope| scope.spawn(|| cache.lookup("k", MINUTE).unwrap()).join().unwrap())
            else {
                panic!("somebody loads")
            };
            waiting = Some(other);
            panic!("the loader fails badly")
        })
    }));
    assert!(panicked.is_err());
    let waiting = waiting.unwrap();
    assert!(matches!(cache.lookup("k", MINUTE).unwrap(), Lookup::Loading(_)), "it fell to the one who waits");
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    assert!(matches!(poll(pin!(waiting), &woken), Poll::Ready(None)), "who only waits gives the lead up");
    assert_eq!(cache.get_or_load("k", MINUTE, || Ok::<_, Failure>("next")).unwrap(), "next");
}

#[test]
fn threads_that_wait_take_over_when_a_lease_is_dropped() {
    let (cache, _) = cache();
    let lease = lease(&cache, "k", MINUTE);
    let others: Vec<_> = (0..4).map(|_| waiter(&cache, "second")).collect();
    let_others_run();
    drop(lease);
    for other in others {
        assert_eq!(other.join().unwrap().unwrap(), b"second");
    }
}

#[test]
fn cancelled_future_hands_over_and_the_next_one_is_woken() {
    let (cache, _) = cache();
    let (woken_a, woken_b) = (Arc::new(Count(AtomicUsize::new(0))), Arc::new(Count(AtomicUsize::new(0))));
    let never = std::future::pending::<Result<&str, Failure>>();
    let mut first = Box::pin(cache.get_or_load_async("k", MINUTE, never));
    assert!(poll(first.as_mut(), &woken_a).is_pending());
    let second = cache.get_or_load_async("k", MINUTE, async { Ok::<_, Failure>("second") });
    let third = cache.get_or_load_async("k", MINUTE, async { Ok::<_, Failure>("third") });
    let (mut second, mut third) = (Box::pin(second), Box::pin(third));
    assert!(poll(second.as_mut(), &woken_b).is_pending());
    assert!(poll(third.as_mut(), &woken_b).is_pending());
    drop(first);
    assert!(woken_b.0.load(Ordering::SeqCst) >= 1, "somebody was told");
    // The one that was polled first when the lead fell free is dropped as well: the last one loads.
    drop(second);
    let Poll::Ready(Ok(value)) = poll(third.as_mut(), &woken_b) else { panic!("it loads") };
    assert_eq!(value, "third");
}

#[test]
fn waiting_future_is_woken_when_the_value_is_there() {
    let (cache, _) = cache();
    let lease = lease(&cache, "k", MINUTE);
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let unused = async { Err::<&str, _>(Failure::other("it must not be asked")) };
    let mut second = Box::pin(cache.get_or_load_async("k", MINUTE, unused));
    assert!(poll(second.as_mut(), &woken).is_pending());
    lease.fill("loaded");
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Ok(value)) = poll(second.as_mut(), &woken) else { panic!("the value is there") };
    assert_eq!(value, "loaded");
}

#[test]
fn error_is_shared_by_those_who_wait_and_forgotten_after() {
    let (cache, _) = cache();
    let lease = lease(&cache, "k", MINUTE);
    let other = waiter(&cache, "unused");
    let_others_run();
    lease.fail(Arc::new(Failure::other("no database")));
    match other.join().unwrap() {
        Err(error) => assert!(error.contains("no database"), "{error}"),
        // It came after the failure, and loaded by itself.
        Ok(value) => assert_eq!(value, b"unused"),
    }
    assert_eq!(cache.get_or_load("k2", MINUTE, || Ok::<_, Failure>("v")).unwrap(), "v");
    let failed = cache.get_or_load("k3", MINUTE, || Err::<&str, _>(Failure::other("no")));
    assert!(matches!(failed, Err(LoadError::Loader(_))));
    assert!(cache.get_or_load("k3", MINUTE, || Ok::<_, Failure>("yes")).is_ok(), "an error is not kept");
}

#[test]
fn write_during_a_load_wins_over_what_was_loaded() {
    let (cache, _) = cache();
    for (number, write) in [
        (|cache: &Cache| assert!(!cache.delete("k0").unwrap())) as fn(&Cache),
        |cache| assert!(cache.set("k1", "new", Expiry::Never).is_ok()),
        |cache| cache.flush().unwrap(),
        |cache| cache.invalidate_prefix("k").unwrap(),
        |cache| {
            cache.set("k4", "new", Expiry::Never).unwrap();
            cache.delete("k4").unwrap();
        },
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{number}");
        let lease = lease(&cache, &key, MINUTE);
        write(&cache);
        assert_eq!(lease.fill("old"), "old", "who asked before has it");
        let stored = cache.get(&key).unwrap().map(|item| item.value);
        assert_ne!(stored.as_deref(), Some(&b"old"[..]), "{key}");
    }
}

#[test]
fn who_asks_after_a_write_does_not_wait_for_an_older_load() {
    let (cache, _) = cache();
    let old = lease(&cache, "k", MINUTE);
    cache.delete("k").unwrap();
    assert_eq!(cache.get_or_load("k", MINUTE, || Ok::<_, Failure>("new")).unwrap(), "new");
    old.fill("old");
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"new");
    let old = lease(&cache, "other", MINUTE);
    cache.flush().unwrap();
    assert_eq!(cache.get_or_load("other", MINUTE, || Ok::<_, Failure>("new")).unwrap(), "new");
    old.fill("old");
    assert_eq!(&cache.get("other").unwrap().unwrap().value[..], b"new");
}

#[test]
fn stale_value_is_served_while_one_loads_and_when_the_load_fails() {
    let (cache, clock) = cache();
    let policy = LoadPolicy::fresh_for(Duration::from_secs(10)).stale_for(Duration::from_secs(5));
    assert_eq!(cache.get_or_load("k", policy, || Ok::<_, Failure>("1")).unwrap(), "1");
    clock.advance_ms(9_999);
    assert!(matches!(cache.lookup("k", policy).unwrap(), Lookup::Found(Some(_))), "fresh");
    clock.advance_ms(1);
    let Lookup::Due(stale, lease) = cache.lookup("k", policy).unwrap() else { panic!("stale") };
    assert_eq!(stale, "1");
    assert!(matches!(cache.lookup("k", policy).unwrap(), Lookup::Found(Some(_))), "only one loads");
    drop(lease);
    let failed = cache.get_or_load("k", policy, || Err::<&str, _>(Failure::other("down")));
    assert_eq!(failed.unwrap(), "1", "a stale value is better than an error");
    assert_eq!(cache.get_or_load("k", policy, || Ok::<_, Failure>("2")).unwrap(), "2");
    clock.advance_ms(15_000);
    assert!(matches!(cache.lookup("k", policy).unwrap(), Lookup::Absent(_)), "gone");
}

#[test]
fn nobody_waits_for_a_load_that_is_spawned() {
    let (cache, clock) = cache();
    let policy = LoadPolicy::fresh_for(Duration::from_secs(10)).stale_for(Duration::from_secs(5));
    let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    let mut ask = |value: &'static str| {
        let load = move || if value == "down" { Err(Failure::other(value)) } else { Ok(value) };
        cache.get_or_revalidate("k", policy, load, |job| jobs.push(job)).unwrap()
    };
    assert_eq!(ask("1"), "1", "nothing was there");
    assert_eq!(ask("unused"), "1");
    clock.advance_ms(10_000);
    assert_eq!((ask("down"), ask("unused")), ("1".into(), "1".into()), "stale, and one loads");
    clock.advance_ms(10);
    jobs.pop().unwrap()();
    assert!(jobs.is_empty());
    let mut ask = |value: &'static str| {
        cache.get_or_revalidate("k", policy, move || Ok::<_, Failure>(value), |job| jobs.push(job)).unwrap()
    };
    assert_eq!(ask("2"), "1", "the load that failed is tried again");
    jobs.pop().unwrap()();
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"2");
}

#[test]
fn refresh_begins_before_the_value_is_stale() {
    let (cache, clock) = cache();
    let policy = LoadPolicy::fresh_for(Duration::from_secs(10)).refresh_ahead(Duration::from_secs(2));
    cache.get_or_load("k", policy, || Ok::<_, Failure>("1")).unwrap();
    clock.advance_ms(7_999);
    assert!(matches!(cache.lookup("k", policy).unwrap(), Lookup::Found(Some(_))));
    clock.advance_ms(1);
    assert_eq!(cache.get_or_load("k", policy, || Ok::<_, Failure>("2")).unwrap(), "2");
    clock.advance_ms(7_000);
    assert_eq!(&cache.get("k").unwrap().unwrap().value[..], b"2", "its lifetime began anew");
}

#[test]
fn absence_is_remembered_for_its_own_time_and_is_a_miss_to_all_else() {
    let (cache, clock) = cache();
    let policy = LoadPolicy::fresh_for(MINUTE).absent_for(Duration::from_secs(3));
    let absent = || Ok::<Option<&str>, Failure>(None);
    assert_eq!(cache.get_or_load_optional("k", policy, absent).unwrap(), None);
    let unused = || Err::<Option<&str>, _>(Failure::other("it must not be asked"));
    assert_eq!(cache.get_or_load_optional("k", policy, unused).unwrap(), None);
    assert_eq!(cache.get("k").unwrap(), None);
    assert!(!cache.touch("k", Expiry::Never).unwrap());
    assert_eq!(cache.replace("k", "v", Expiry::Never), Ok(None));
    assert_eq!(cache.incr("k", 1).unwrap(), None);
    assert_eq!(cache.iter().count(), 0);
    assert!(!cache.delete("k").unwrap());
    assert!(matches!(cache.lookup("k", policy).unwrap(), Lookup::Absent(_)), "the deletion forgot it");
    assert_eq!(cache.get_or_load_optional("k", policy, absent).unwrap(), None);
    clock.advance_ms(3_000);
    assert_eq!(
        cache.get_or_load_optional("k", policy, || Ok::<_, Failure>(Some("v"))).unwrap().unwrap(),
        "v"
    );
    cache.get_or_load_optional("add", policy, absent).unwrap();
    assert!(cache.add("add", "v", Expiry::Never).unwrap().is_some());
    cache.get_or_load_optional("needed", policy, absent).unwrap();
    assert_eq!(cache.get_or_load("needed", policy, || Ok::<_, Failure>("v")).unwrap(), "v");
    assert_eq!(&cache.get("needed").unwrap().unwrap().value[..], b"v");
    cache.check_invariants();
}

#[test]
fn loader_that_asks_for_its_own_key_does_not_wait_for_itself() {
    let (cache, _) = cache();
    let value = cache
        .get_or_load("k", MINUTE, || {
            let inner = cache.get_or_load("k", MINUTE, || Ok::<_, Failure>("inner"))?;
            Ok::<_, LoadError<Failure>>([&inner[..], b" and outer"].concat())
        })
        .unwrap();
    assert_eq!(value, "inner and outer");
}

#[test]
fn replica_loads_and_stores_nothing() {
    let replication = ReplicationConfig::follower().replica_reads(true);
    let cache = Cache::new(Config::new().replication(replication)).unwrap();
    for number in 0..2 {
        let value = cache.get_or_load("k", MINUTE, || Ok::<_, Failure>(number.to_string())).unwrap();
        assert_eq!(value, number.to_string());
    }
    assert_eq!(cache.stats().items, 0);
}

#[test]
fn wrong_keys_and_calls_inside_a_read_are_refused() {
    let (cache, _) = cache();
    let unused = || Ok::<_, Failure>("v");
    let refused = cache.get_or_load("", MINUTE, unused);
    assert!(matches!(refused, Err(LoadError::Cache(ReadError::KeyLength { .. }))));
    cache.set("k", "v", Expiry::Never).unwrap();
    let inside = cache.read("k", |_| cache.get_or_load("other", MINUTE, unused).is_err());
    assert_eq!(inside, Ok(Some(true)));
}

#[test]
fn lease_may_be_filled_by_another_thread() {
    let (cache, _) = cache();
    let lease = lease(&cache, "k", MINUTE);
    let Lookup::Loading(waiting) = cache.lookup("k", MINUTE).unwrap() else { panic!("somebody loads") };
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(lease.fill("v")).unwrap());
    assert_eq!(waiting.wait().unwrap(), "v");
    assert_eq!(receive.recv().unwrap(), "v");
    assert!(cache.get("k").unwrap().is_some());
}

#[test]
fn value_that_expired_while_it_was_refreshed_is_stored() {
    let (cache, clock) = cache();
    let policy = LoadPolicy::fresh_for(MINUTE).refresh_ahead(Duration::from_secs(5));
    cache.get_or_load("k", policy, || Ok::<_, Failure>("1")).unwrap();
    clock.advance_ms(57_000);
    let Lookup::Due(old, lease) = cache.lookup("k", policy).unwrap() else { panic!("it is not due") };
    assert_eq!(old, "1");
    clock.advance_ms(10_000);
    lease.fill("2");
    assert_eq!(&cache.get("k").unwrap().expect("nobody wrote to the key meanwhile").value[..], b"2");
}

/// A clock that does something at one of the looks at it.
#[derive(Default)]
struct Interrupting {
    clock: ManualClock,
    looks_before: AtomicUsize,
    interruption: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Clock for Interrupting {
    fn now_ms(&self) -> u64 {
        let looks_before = self.looks_before.fetch_sub(1, Ordering::SeqCst);
        let interruption = (looks_before == 0).then(|| self.interruption.lock().unwrap().take());
        if let Some(interruption) = interruption.flatten() {
            interruption();
        }
        self.clock.now_ms()
    }
}

#[test]
fn value_that_was_refreshed_between_look_and_lock_is_not_loaded_again() {
    let clock = Arc::new(Interrupting::default());
    let cache = Cache::new(Config::new().memory_bytes_max(8 << 20).clock(clock.clone())).unwrap();
    let policy = LoadPolicy::fresh_for(MINUTE).refresh_ahead(Duration::from_secs(5));
    cache.get_or_load("k", policy, || Ok::<_, Failure>("1")).unwrap();
    clock.clock.advance_ms(57_000);
    // The first look at the clock asks whether the item lives, the second one whether it is due.
    let other = cache.clone();
    *clock.interruption.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(other.get_or_load("k", policy, || Ok::<_, Failure>("2")).unwrap(), "2");
    }));
    clock.looks_before.store(1, Ordering::SeqCst);
    let value = cache.get_or_load("k", policy, || -> Result<&str, Failure> { panic!("a second load") });
    assert!(clock.interruption.lock().unwrap().is_none(), "it was interrupted");
    assert_eq!(value.unwrap(), "2");
}

/// Fails instead of waiting for ever.
fn ends(run: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        run();
        let _ = done.send(());
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("it ends");
}

#[test]
fn lease_and_waiting_given_up_inside_a_read_lock_nobody_out() {
    let (cache, _) = cache();
    let inside = cache.clone();
    ends(move || {
        let mut lease = Some(lease(&inside, "filled", MINUTE));
        let mut dropped = Some(self::lease(&inside, "dropped", MINUTE));
        let Lookup::Loading(waiting) = inside.lookup("dropped", MINUTE).unwrap() else { panic!() };
        let mut waiting = Some(waiting);
        // The shard is locked in there.
        for key in ["filled", "dropped"] {
            inside
                .update(key, |_| {
                    lease.take().map(|lease| lease.fill("not stored"));
                    assert_eq!(waiting.take().and_then(Waiting::wait), None);
                    drop(dropped.take());
                    Update::Keep
                })
                .unwrap();
        }
    });
    for key in ["filled", "dropped"] {
        assert_eq!(cache.get(key).unwrap(), None);
        lease(&cache, key, MINUTE).fill("anew");
        assert_eq!(&cache.get(key).unwrap().unwrap().value[..], b"anew");
    }
}

/// A waker that keeps somebody waiting alive, as that of a task does.
struct Keeps {
    _waiting: Waiting,
}

impl Wake for Keeps {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn waker_that_holds_another_who_waits_may_go_with_the_first() {
    ends(|| {
        let (cache, _) = cache();
        let _lease = lease(&cache, "k", MINUTE);
        let waiting = || match cache.lookup("k", MINUTE).unwrap() {
            Lookup::Loading(waiting) => waiting,
            other => panic!("{other:?}"),
        };
        let mut first = waiting();
        let mut poll = |waker: Waker| pin!(&mut first).poll(&mut Context::from_waker(&waker)).is_pending();
        assert!(poll(Waker::from(Arc::new(Keeps { _waiting: waiting() }))));
        assert!(poll(Waker::noop().clone()), "another one takes its place");
        assert!(poll(Waker::from(Arc::new(Keeps { _waiting: waiting() }))));
        drop(first);
    });
}
