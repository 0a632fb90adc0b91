//! Reading through in a group: one node loads for all, whoever dies meanwhile, and nothing old is stored.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hotspare::transport::{
    Channel, Link, LinkError, MemoryNetwork, MemoryTransport, PeerIdentity, Transport,
};
use hotspare::{
    Cache, Config, Expiry, LoadError, LoadPolicy, Lookup, ManualClock, Next, ReplicationConfig, Replicator,
    Role,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MINUTE: Duration = Duration::from_secs(60);

type Failure = std::io::Error;
type Answer = Result<Bytes, LoadError<Failure>>;

/// The source behind all nodes: who asks it waits until it may answer.
#[derive(Default)]
struct Source {
    asked: AtomicUsize,
    /// The nodes that asked, by number, one bit each.
    askers: AtomicUsize,
    answers: AtomicBool,
    fails: AtomicBool,
}

impl Source {
    fn load(self: &Arc<Source>, node: usize) -> impl Future<Output = Result<String, Failure>> + use<> {
        let source = self.clone();
        let mut number = 0;
        std::future::poll_fn(move |_| {
            if number == 0 {
                number = 1 + source.asked.fetch_add(1, Ordering::SeqCst);
                source.askers.fetch_or(1 << node, Ordering::SeqCst);
            }
            match source.answers.load(Ordering::SeqCst) {
                true if source.fails.swap(false, Ordering::SeqCst) => Poll::Ready(Err(Failure::other("no"))),
                true => Poll::Ready(Ok(format!("load {number}"))),
                false => Poll::Pending,
            }
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Node {
    cache: Cache,
    replicator: Option<Replicator>,
    callers: Vec<Pin<Box<dyn Future<Output = Answer>>>>,
    answers: Vec<Answer>,
}

/// Nodes in one thread, on a clock of their own; `a` begins as the primary.
struct Group {
    clock: Arc<ManualClock>,
    network: MemoryNetwork,
    source: Arc<Source>,
    nodes: Vec<Node>,
}

impl Group {
    fn new(count: usize) -> Group {
        Group::with(count, |_, config| config)
    }

    fn with(count: usize, change: impl Fn(usize, ReplicationConfig) -> ReplicationConfig) -> Group {
        let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::new());
        let node = |number: usize| {
            let replication = match number {
                0 => ReplicationConfig::primary(),
                _ => ReplicationConfig::replica_of("a").slot(number as u8),
            };
            let others = NAMES[..count].iter().filter(|name| **name != NAMES[number]);
            let replication = others.fold(replication, |config, name| config.peer(*name)).replica_reads(true);
            let config = Config::new().memory_bytes_max(8 << 20).clock(clock.clone());
            let cache = Cache::new(config.replication(change(number, replication))).unwrap();
            let replicator = Replicator::new(&cache, network.transport(NAMES[number]));
            Node { cache, replicator, callers: Vec::new(), answers: Vec::new() }
        };
        let nodes = (0..count).map(node).collect();
        let mut group = Group { clock: clock.clone(), network, source: Arc::default(), nodes };
        group.run_ms(3_000);
        group
    }

    fn cache(&self, node: usize) -> &Cache {
        &self.nodes[node].cache
    }

    /// So many callers more want the key on this node.
    fn ask(&mut self, node: usize, count: usize, policy: impl Into<LoadPolicy> + Copy) {
        for _ in 0..count {
            let (cache, load) = (self.cache(node).clone(), self.source.load(node));
            let policy = policy.into();
            let caller = async move { cache.get_or_load_async("k", policy, load).await };
            self.nodes[node].callers.push(Box::pin(caller));
        }
    }

    fn poll_callers(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for node in &mut self.nodes {
            let answers = &mut node.answers;
            node.callers.retain_mut(|caller| match caller.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => {
                    answers.push(answer);
                    false
                }
                Poll::Pending => true,
            });
        }
    }

    fn run_ms(&mut self, ms: u64) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..ms / 5 {
            self.clock.advance_ms(5);
            self.poll_callers();
            for replicator in self.nodes.iter_mut().filter_map(|node| node.replicator.as_mut()) {
                replicator.poll(&mut cx);
            }
            self.network.deliver_all();
        }
    }

    /// The node is gone, with all who asked there.
    fn kill(&mut self, node: usize) {
        self.network.remove(NAMES[node]);
        self.nodes[node].replicator = None;
        self.nodes[node].callers.clear();
    }

    fn answer(&mut self) {
        self.source.answers.store(true, Ordering::SeqCst);
        self.run_ms(1_000);
    }

    /// What the callers of a node were told: all the same.
    fn told(&self, node: usize) -> (usize, String) {
        let node = &self.nodes[node];
        assert!(node.callers.is_empty(), "{} still wait", node.callers.len());
        let texts = node.answers.iter().map(|answer| answer.as_ref().unwrap());
        let mut texts: Vec<String> = texts.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
        let count = texts.len();
        texts.dedup();
        assert_eq!(texts.len(), 1, "{texts:?}");
        (count, texts.remove(0))
    }

    fn held(&self, node: usize) -> Option<String> {
        let item = self.cache(node).get("k").unwrap()?;
        Some(String::from_utf8(item.value.to_vec()).unwrap())
    }

    fn asker(&self) -> usize {
        let askers = self.source.askers.load(Ordering::SeqCst);
        assert_eq!(askers.count_ones(), 1);
        askers.trailing_zeros() as usize
    }
}

#[test]
fn three_hundred_misses_on_three_nodes_load_once() {
    for first in 0..3 {
        let mut group = Group::new(3);
        group.ask(first, 1, MINUTE);
        group.run_ms(100);
        for node in 0..3 {
            group.ask(node, if node == first { 99 } else { 100 }, MINUTE);
        }
        group.run_ms(2_000);
        assert_eq!((group.source.asked(), group.asker()), (1, first), "the first that came loads");
        group.answer();
        for node in 0..3 {
            assert_eq!(group.told(node), (100, "load 1".to_owned()), "node {node}, {first} loaded");
            assert_eq!(group.held(node).as_deref(), Some("load 1"), "it is stored for all");
        }
        assert_eq!(group.source.asked(), 1);
    }
}

#[test]
fn all_at_once_they_load_once_too_and_a_hit_asks_nobody() {
    let mut group = Group::new(3);
    (0..3).for_each(|node| group.ask(node, 100, MINUTE));
    group.answer();
    assert_eq!(group.source.asked(), 1);
    let seqs: Vec<u64> = (0..3).map(|node| group.cache(node).status().seq).collect();
    (0..3).for_each(|node| group.ask(node, 10, MINUTE));
    group.poll_callers();
    assert!((0..3).all(|node| group.told(node) == (110, "load 1".to_owned())));
    assert_eq!(seqs, (0..3).map(|node| group.cache(node).status().seq).collect::<Vec<_>>());
}

#[test]
fn when_the_node_that_loads_dies_exactly_one_other_loads() {
    let mut group = Group::new(3);
    group.ask(1, 100, MINUTE);
    group.run_ms(100);
    group.ask(0, 100, MINUTE);
    group.ask(2, 100, MINUTE);
    group.run_ms(500);
    assert_eq!((group.source.asked(), group.asker()), (1, 1));
    group.kill(1);
    group.run_ms(1_000);
    assert_eq!(group.source.asked(), 2, "one more");
    group.answer();
    assert_eq!(group.source.asked(), 2);
    for node in [0, 2] {
        assert_eq!(group.told(node), (100, "load 2".to_owned()));
        assert_eq!(group.held(node).as_deref(), Some("load 2"));
    }
}

#[test]
fn when_a_primary_dies_that_loads_exactly_one_other_loads() {
    let mut group = Group::new(3);
    group.ask(0, 100, MINUTE);
    group.run_ms(100);
    group.ask(1, 100, MINUTE);
    group.ask(2, 100, MINUTE);
    group.run_ms(500);
    assert_eq!((group.source.asked(), group.asker()), (1, 0));
    group.kill(0);
    group.run_ms(500);
    assert_eq!(group.source.asked(), 1, "who waits already goes on waiting for another primary");
    group.cache(1).promote(false).unwrap();
    group.run_ms(1_500);
    assert_eq!(group.source.asked(), 2, "one more");
    group.answer();
    assert_eq!(group.source.asked(), 2);
    for node in [1, 2] {
        assert_eq!(group.told(node), (100, "load 2".to_owned()));
        assert_eq!(group.held(node).as_deref(), Some("load 2"));
    }
}

#[test]
fn when_the_primary_dies_and_a_replica_loads_nobody_loads_again() {
    let mut group = Group::new(3);
    group.ask(2, 100, MINUTE);
    group.run_ms(100);
    group.ask(1, 100, MINUTE);
    group.run_ms(500);
    assert_eq!((group.source.asked(), group.asker()), (1, 2));
    group.kill(0);
    group.run_ms(300);
    group.cache(1).promote(false).unwrap();
    group.run_ms(1_500);
    group.ask(1, 50, MINUTE);
    group.answer();
    assert_eq!(group.source.asked(), 1, "the lease was in the log");
    assert_eq!(group.told(1), (150, "load 1".to_owned()));
    assert_eq!(group.held(1).as_deref(), Some("load 1"), "stored by the new primary");
    assert_eq!(group.cache(1).status().loads_taken, 1);
}

#[test]
fn a_load_goes_on_over_a_hand_over() {
    let mut group = Group::new(3);
    group.ask(0, 10, MINUTE);
    group.run_ms(100);
    group.ask(1, 10, MINUTE);
    group.ask(2, 10, MINUTE);
    group.run_ms(200);
    group.cache(0).begin_hand_over(Duration::from_millis(500)).unwrap();
    group.run_ms(1_500);
    let primary = (0..3).find(|node| group.cache(*node).status().role == Role::Primary).unwrap();
    assert_ne!(primary, 0);
    group.answer();
    assert_eq!(group.source.asked(), 1);
    assert!((0..3).all(|node| group.told(node) == (10, "load 1".to_owned())));
    assert_eq!(group.cache(primary).status().loads_taken, 1, "it came from the one that reigned before");
}

#[test]
fn what_was_loaded_is_not_stored_over_anything_that_was_written_meanwhile() {
    type Write = fn(&Cache);
    let writes: [(&str, Write, Option<&str>); 6] = [
        ("delete", |cache| assert!(!cache.delete("k").unwrap()), None),
        ("set", |cache| assert!(cache.set("k", "new", Expiry::Never).is_ok()), Some("new")),
        (
            "set and delete",
            |cache| {
                cache.set("k", "new", Expiry::Never).unwrap();
                cache.delete("k").unwrap();
            },
            None,
        ),
        ("flush", |cache| cache.flush().unwrap(), None),
        ("prefix", |cache| cache.invalidate_prefix("k").unwrap(), None),
        (
            "incr",
            |cache| {
                cache.set("k", "7", Expiry::Never).unwrap();
                cache.incr("k", 1).unwrap();
            },
            Some("8"),
        ),
    ];
    for (what, write, left) in writes {
        // At once, so that the replica knows nothing of the write when it hands its load in; and after the log has told it.
        for told_ms in [0, 500] {
            let mut group = Group::new(3);
            group.ask(1, 5, MINUTE);
            group.run_ms(100);
            assert_eq!(group.source.asked(), 1);
            write(group.cache(0));
            group.run_ms(told_ms);
            group.answer();
            assert_eq!(group.told(1).1, "load 1", "who asked before has it");
            for node in 0..3 {
                assert_eq!(group.held(node).as_deref(), left, "{what}, node {node}");
            }
            let status = group.cache(0).status();
            assert_eq!((status.loads_refused, status.loads_taken), (1, 0), "{what}");
            if left.is_none() {
                group.ask(2, 5, MINUTE);
                group.run_ms(500);
                assert_eq!(group.told(2).1, "load 2", "{what}: nobody waits for what is over");
            }
        }
    }
}

#[test]
fn a_replica_without_a_primary_loads_by_itself_stores_nothing_and_waits_for_nobody() {
    let mut group = Group::new(2);
    group.network.set_apart("a", "b", true);
    group.run_ms(3_000);
    for number in 1..3 {
        group.source.answers.store(false, Ordering::SeqCst);
        group.ask(1, 10, MINUTE);
        group.poll_callers();
        assert_eq!(group.source.asked(), number, "once for all who ask, and at once");
        group.answer();
        assert!(group.nodes[1].callers.is_empty());
    }
    assert_eq!(group.held(1), None);
}

#[test]
fn a_link_that_falls_silent_or_is_cut_keeps_nobody_waiting() {
    // The question is lost and the link stays up; the link ends while another node loads.
    for is_cut in [false, true] {
        let mut group = Group::new(3);
        if is_cut {
            group.ask(0, 1, MINUTE);
            group.run_ms(100);
            group.ask(1, 5, MINUTE);
            group.run_ms(200);
            (0..3).filter(|node| *node != 1).for_each(|node| group.network.set_apart(NAMES[node], "b", true));
            group.network.cut("a", "b");
        } else {
            group.network.set_apart("a", "b", true);
            group.ask(1, 5, MINUTE);
        }
        let asked = group.source.asked();
        let within_ms = if is_cut { 3_000 } else { 500 };
        group.run_ms(within_ms - 100);
        assert_eq!(group.source.asked(), asked, "it may come back");
        group.run_ms(200);
        assert_eq!(group.source.asked(), asked + 1, "cut: {is_cut}: it loads for itself");
        group.answer();
        assert_eq!(group.told(1).0, 5);
        assert_eq!(group.held(1), None);
    }
}

#[test]
fn an_answer_that_comes_too_late_holds_nobody_up() {
    let mut group = Group::new(3);
    group.network.set_blocked("b", "a", true);
    group.ask(1, 1, MINUTE);
    group.run_ms(700);
    assert_eq!(group.source.asked(), 1, "it has asked in vain");
    group.network.set_blocked("b", "a", false);
    group.run_ms(500);
    assert_eq!(group.cache(0).status().loads_lent, 1, "the question came through");
    group.ask(2, 1, MINUTE);
    group.run_ms(100);
    assert_eq!(group.source.asked(), 2, "the lease was given back");
    group.answer();
    assert_eq!((group.held(2).as_deref(), group.held(1).as_deref()), (Some("load 2"), Some("load 2")));
}

#[test]
fn a_load_that_fails_or_is_given_up_falls_to_the_next() {
    let mut group = Group::new(3);
    group.ask(1, 2, MINUTE);
    group.run_ms(100);
    group.ask(2, 1, MINUTE);
    group.run_ms(100);
    assert_eq!(group.source.asked(), 1);
    drop(group.nodes[1].callers.remove(0));
    group.run_ms(100);
    assert_eq!((group.source.asked(), group.asker()), (2, 1), "to one on the same node first");
    group.nodes[1].callers.clear();
    group.run_ms(100);
    assert_eq!(group.source.asked(), 3, "then to another node");
    group.ask(0, 1, MINUTE);
    group.run_ms(100);
    group.source.fails.store(true, Ordering::SeqCst);
    group.answer();
    assert!(matches!(group.nodes[2].answers[..], [Err(LoadError::Loader(_))]), "its own error");
    assert_eq!((group.source.asked(), group.told(0).1.as_str()), (4, "load 4"));
}

#[test]
fn a_lease_runs_out_and_what_comes_later_is_not_stored() {
    let mut group = Group::new(3);
    let policy = LoadPolicy::fresh_for(MINUTE).lease_for(Duration::from_secs(2));
    group.ask(1, 1, policy);
    group.run_ms(100);
    group.ask(2, 1, policy);
    group.run_ms(1_500);
    assert_eq!(group.source.asked(), 1);
    group.run_ms(600);
    assert_eq!(group.source.asked(), 2, "the first takes too long");
    let (first, second) = (group.nodes[1].callers.remove(0), group.nodes[2].callers.remove(0));
    group.source.answers.store(true, Ordering::SeqCst);
    group.nodes[1].callers.push(first);
    group.run_ms(300);
    assert_eq!((group.told(1).1.as_str(), group.held(0)), ("load 1", None));
    assert_eq!(group.cache(0).status().loads_refused, 1);
    group.nodes[2].callers.push(second);
    group.run_ms(300);
    assert_eq!(group.held(0).as_deref(), Some("load 2"));
}

#[test]
fn one_of_all_nodes_refreshes_and_nobody_waits_meanwhile() {
    let mut group = Group::new(3);
    let policy = LoadPolicy::fresh_for(Duration::from_secs(10)).stale_for(MINUTE);
    group.source.answers.store(true, Ordering::SeqCst);
    group.ask(0, 1, policy);
    group.run_ms(1_000);
    assert_eq!(group.held(2).as_deref(), Some("load 1"));
    group.source.answers.store(false, Ordering::SeqCst);
    group.run_ms(10_000);
    group.ask(1, 1, policy);
    group.run_ms(100);
    assert_eq!(group.source.asked(), 2);
    for node in 0..3 {
        group.nodes[node].answers.clear();
        group.ask(node, 20, policy);
    }
    group.run_ms(50);
    for node in [0, 2] {
        assert_eq!(group.told(node), (20, "load 1".to_owned()), "the stale value");
    }
    group.answer();
    assert_eq!((group.source.asked(), group.held(2).as_deref()), (2, Some("load 2")));
}

#[test]
fn a_value_that_a_replica_has_lost_comes_from_the_primary_instead_of_the_source() {
    let mut group = Group::new(2);
    // By the time of its replica's question the primary has it.
    group.network.set_blocked("a", "b", true);
    group.cache(0).set("k", "written", Expiry::Never).unwrap();
    group.ask(1, 3, MINUTE);
    group.run_ms(100);
    group.network.set_blocked("a", "b", false);
    group.run_ms(100);
    assert_eq!((group.source.asked(), group.told(1).1.as_str()), (0, "written"));
}

#[test]
fn absences_are_shared_too_and_lookup_leads_on_the_primary() {
    let mut group = Group::new(2);
    let policy = LoadPolicy::fresh_for(MINUTE).absent_for(MINUTE);
    let (cache, asked) = (group.cache(1).clone(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let mut absent = Box::pin(async move {
        let load = async {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<Option<String>, Failure>(None)
        };
        cache.get_or_load_optional_async("nothing", policy, load).await.unwrap()
    });
    let mut cx = Context::from_waker(Waker::noop());
    assert!(absent.as_mut().poll(&mut cx).is_pending());
    group.run_ms(100);
    assert_eq!(absent.as_mut().poll(&mut cx), Poll::Ready(None));
    group.run_ms(100);
    for node in 0..2 {
        let known = group.cache(node).lookup("nothing", policy).unwrap();
        assert!(matches!(known, Lookup::Found(None)), "node {node}: {known:?}");
    }
    let Lookup::Absent(lease) = group.cache(0).lookup("k", MINUTE).unwrap() else { panic!("it is absent") };
    group.run_ms(100);
    group.ask(1, 5, MINUTE);
    group.run_ms(500);
    lease.fill("looked up");
    group.run_ms(100);
    assert_eq!((group.source.asked(), group.told(1).1.as_str()), (0, "looked up"));
}

#[test]
fn a_replica_of_a_replica_waits_for_a_load_that_it_knows_of_and_else_loads_by_itself() {
    let mut group = Group::with(3, |number, config| match number {
        2 => ReplicationConfig::replica_of("b").slot(2).cascade().replica_reads(true),
        _ => config,
    });
    assert_eq!(group.cache(2).status().depth, 2);
    group.ask(0, 1, MINUTE);
    group.run_ms(500);
    group.ask(2, 10, MINUTE);
    group.run_ms(500);
    assert_eq!(group.source.asked(), 1);
    group.answer();
    assert_eq!((group.source.asked(), group.told(2).1.as_str()), (1, "load 1"));
    group.cache(0).delete("k").unwrap();
    group.run_ms(500);
    group.nodes[2].answers.clear();
    group.source.answers.store(false, Ordering::SeqCst);
    group.ask(2, 10, MINUTE);
    group.poll_callers();
    assert_eq!(group.source.asked(), 2, "at once");
    group.answer();
    assert_eq!((group.source.asked(), group.told(2).1.as_str()), (2, "load 2"));
    assert_eq!(group.held(0), None, "nothing is stored");
}

#[test]
fn subscribers_see_the_load_and_nothing_of_its_lease() {
    let mut group = Group::new(2);
    let mut changes = group.cache(1).subscribe(None).unwrap();
    while changes.try_next().is_ok() {}
    group.ask(1, 5, MINUTE);
    group.answer();
    let told: Vec<_> = std::iter::from_fn(|| changes.try_next().ok()).collect();
    assert!(
        matches!(&told[..], [change] if matches!(&change.effect, hotspare::Effect::Put { key, .. } if key == "k")),
        "{told:?}"
    );
}

#[test]
fn a_cache_without_replicas_logs_no_lease() {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
    let before = cache.status().seq;
    cache.get_or_load("k", MINUTE, || Ok::<_, Failure>("v")).unwrap();
    assert_eq!((cache.status().seq, cache.status().loads_lent), (before + 1, 0), "the value alone");
}

/// What is done at the end of a turn of the driver, once each.
type Meddler = Arc<std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A transport whose links, when they have flushed, do something behind the driver's back.
struct Meddling(MemoryTransport, Meddler);

struct MeddlingLink(Box<dyn Link>, Meddler);

impl Transport for Meddling {
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        Ok(Box::new(MeddlingLink(self.0.dial(address)?, self.1.clone())))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        self.0.poll_accept(cx)
    }

    fn local_address(&self) -> Option<String> {
        self.0.local_address()
    }
}

impl Link for MeddlingLink {
    fn peer(&self) -> &PeerIdentity {
        self.0.peer()
    }

    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready(channel, cx)
    }

    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        self.0.send(channel, frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let flushed = self.0.poll_flush(cx);
        if let Some(meddle) = self.1.lock().unwrap().take() {
            meddle();
        }
        flushed
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.0.poll_recv(channel, cx)
    }
}

#[test]
fn a_question_or_an_operators_word_that_comes_while_the_driver_is_about_to_sleep_is_seen_at_once() {
    type Deed = fn(&Cache);
    let question: Deed = |cache| {
        let load = async { Ok::<_, Failure>("v") };
        let mut caller = Box::pin(cache.get_or_load_async("k", MINUTE, load));
        assert!(caller.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    };
    let promotion: Deed = |cache| {
        cache.promote(false).unwrap();
    };
    for deed in [question, promotion] {
        let mut group = Group::new(2);
        let meddler = Meddler::default();
        let transport = Meddling(group.network.transport(NAMES[1]), meddler.clone());
        group.nodes[1].replicator = None;
        group.nodes[1].replicator = Replicator::new(group.cache(1), transport);
        group.run_ms(1_000);
        let mut cx = Context::from_waker(Waker::noop());
        let Node { cache, replicator, .. } = group.nodes.pop().unwrap();
        let mut replicator = replicator.unwrap();
        while replicator.poll(&mut cx) == Next::Now {}
        *meddler.lock().unwrap() = Some(Box::new(move || deed(&cache)));
        assert_eq!(replicator.poll(&mut cx), Next::Now);
        assert!(meddler.lock().unwrap().is_none(), "it was done");
    }
}
