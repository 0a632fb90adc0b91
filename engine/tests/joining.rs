//! Ten replicas join at once: the primary's memory stays bounded, its writers go on, and each replica gets everything.
//!
//! One test in a process of its own, since the allocator's count is the process's.

use std::alloc::System;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hotspare::transport::{
    Channel, Link, LinkError, MemoryNetwork, MemoryTransport, PeerIdentity, Transport,
};
use hotspare::{Cache, Config, Expiry, LinkState, ManualClock, ReplicationConfig, Replicator};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REPLICAS: usize = 10;
const ITEMS: usize = 20_000;
const VALUE_BYTES: usize = 300;
const FRAME_BYTES_MAX: usize = 64 << 10;
/// Frames that a link holds: as many as the documentation of `Config` counts.
const FRAMES_HELD: usize = 2;
/// What `Config` states for a replica: three frames and a mebibyte.
const REPLICA_BYTES_MAX: usize = 3 * FRAME_BYTES_MAX + (1 << 20);

fn allocated_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A transport whose links take few frames a turn, as those over sockets do.
struct Narrow {
    inner: MemoryTransport,
    rooms: Arc<Rooms>,
}

/// How many frames each link has taken since the last turn.
#[derive(Default)]
struct Rooms(Mutex<Vec<Arc<AtomicUsize>>>);

impl Rooms {
    fn add(&self) -> Arc<AtomicUsize> {
        let taken = Arc::new(AtomicUsize::new(0));
        self.0.lock().unwrap().push(taken.clone());
        taken
    }

    fn clear(&self) {
        self.0.lock().unwrap().iter().for_each(|taken| taken.store(0, Ordering::Relaxed));
    }
}

struct NarrowLink {
    inner: Box<dyn Link>,
    taken: Arc<AtomicUsize>,
}

impl Transport for Narrow {
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        self.inner.dial(address)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        self.inner
            .poll_accept(cx)
            .map(|inner| Box::new(NarrowLink { inner, taken: self.rooms.add() }) as Box<dyn Link>)
    }

    fn local_address(&self) -> Option<String> {
        self.inner.local_address()
    }
}

impl Link for NarrowLink {
    fn peer(&self) -> &PeerIdentity {
        self.inner.peer()
    }

    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        match self.taken.load(Ordering::Relaxed) < FRAMES_HELD {
            true => self.inner.poll_ready(channel, cx),
            false => Poll::Pending,
        }
    }

    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.inner.send(channel, frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.inner.poll_recv(channel, cx)
    }
}

fn node(clock: &Arc<ManualClock>, replication: ReplicationConfig) -> Cache {
    let replication =
        replication.frame_bytes_max(FRAME_BYTES_MAX).log_bytes_max(256 << 10).replica_reads(true);
    let config = Config::new().memory_bytes_max(32 << 20).item_bytes_max(16 << 10).clock(clock.clone());
    Cache::new(config.replication(replication)).unwrap()
}

#[test]
fn ten_replicas_that_join_at_once_cost_bounded_memory_and_hold_everything_while_writers_go_on() {
    let (clock, network) = (Arc::new(ManualClock::new(1_000_000)), MemoryNetwork::immediate());
    let rooms = Arc::new(Rooms::default());
    let primary = node(&clock, ReplicationConfig::primary());
    for number in 0..ITEMS {
        primary.set(format!("key{number}"), [7; VALUE_BYTES], Expiry::Never).unwrap();
    }
    let transport = Narrow { inner: network.transport("primary"), rooms: rooms.clone() };
    let mut shipper = Replicator::new(&primary, transport).unwrap();
    let replicas: Vec<Cache> = (0..REPLICAS)
        .map(|slot| node(&clock, ReplicationConfig::replica_of("primary").slot(slot as u8 + 1)))
        .collect();
    let mut followers: Vec<Replicator> = (0..REPLICAS)
        .map(|index| {
            Replicator::new(&replicas[index], network.transport(&format!("replica{index}"))).unwrap()
        })
        .collect();

    let mut cx = Context::from_waker(Waker::noop());
    let before = allocated_bytes();
    let (mut most_grown, mut most_installing, mut rounds, mut written) = (0, 0, 0, 0);
    while !replicas.iter().all(|replica| replica.status().link == LinkState::Streaming) {
        rounds += 1;
        assert!(rounds < 20_000, "they never end: {:?}", replicas[0].status());
        clock.advance_ms(1);
        primary.set(format!("key{}", written % ITEMS), [8; VALUE_BYTES], Expiry::Never).unwrap();
        written += 7;
        rooms.clear();
        // All that ten sessions hold and their links have taken, before any replica has read of it.
        let grown = allocated_bytes();
        shipper.poll(&mut cx);
        most_grown = most_grown.max(allocated_bytes().saturating_sub(grown));
        followers.iter_mut().for_each(|follower| {
            follower.poll(&mut cx);
        });
        let installing =
            primary.status().replicas.iter().filter(|one| one.state == LinkState::Installing).count();
        most_installing = most_installing.max(installing);
    }
    println!(
        "{rounds} turns, {most_installing} at once; the primary's turn took {most_grown} bytes, all {}",
        allocated_bytes().saturating_sub(before)
    );
    assert_eq!(most_installing, REPLICAS, "they are copied side by side");
    assert!(most_grown <= REPLICAS * REPLICA_BYTES_MAX, "{most_grown} bytes for ten copies in one turn");
    let copy_bytes = ITEMS * VALUE_BYTES;
    assert!(most_grown < REPLICAS * copy_bytes / 8, "no copy is held as a whole");

    for _ in 0..1_000 {
        clock.advance_ms(1);
        rooms.clear();
        shipper.poll(&mut cx);
        followers.iter_mut().for_each(|follower| {
            follower.poll(&mut cx);
        });
    }
    let original = primary.inspect();
    assert_eq!(original.items.len(), ITEMS, "the memory is large enough for all");
    for replica in &replicas {
        let copy = replica.inspect();
        assert!(copy.items == original.items && copy.lineage == original.lineage);
        assert_eq!((replica.status().installs, replica.status().promotable), (1, Ok(())));
    }
    // The log is kept up to its cap by each node; beyond that nothing stays of ten copies.
    let stays = allocated_bytes().saturating_sub(before);
    assert!(stays <= REPLICAS * (REPLICA_BYTES_MAX + (512 << 10)), "{stays} bytes stay");
}
