//! The model: what two shards on one tiny pool should hold, in which order, after any operations.
//!
//! Lives here: `Op`, `Model`, and the runs over them. The model predicts the order of eviction exactly: it is told
//! how many items have left, and says which.

use crate::storage::room::Reservation;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::super::*;
use super::ItemId;
use crate::storage::SizeClasses;
use crate::storage::Tables;

const KEYS: u16 = 40;
const SIZES: [usize; 12] = [0, 1, 7, 40, 100, 333, 1_000, 1_400, 4_060, 5_000, 13_000, 40_000];

const POLICY: Policy =
    Policy { probation_per_mille: 200, hits_max: 2, decay_tenths: 15, small: 3, tries_in_drought: true };

#[derive(Debug, Clone, Copy)]
enum Op {
    Put { key: u16, size: usize, lifetime_ms: u64, place: Place },
    Reserve { size: usize },
    Remove { key: u16 },
    Mark { key: u16 },
    Raise { key: u16 },
    Expire { key: u16, lifetime_ms: u64 },
    Advance { by_ms: u64 },
    Flush,
    FlushPrefix { first: u8 },
    Surrender { shard: usize, pages: usize },
    SweepABit { shard: usize },
    SweepAllDue { shard: usize, looks: usize },
    WalkBegin { shard: usize },
    WalkStep { items: usize, bytes: usize },
    WalkEnd,
    Install { shard: usize, on: bool },
    Clear { shard: usize },
    Begin { key: u16, size: usize, lifetime_ms: u64 },
    Write { which: usize, bytes: usize },
    Finish { which: usize },
    Abandon { which: usize },
    Pin { key: u16 },
    Unpin { which: usize },
    Resize { bytes: usize },
}

mod pieces;
use pieces::Pieces;

struct Expected {
    value: Vec<u8>,
    meta: Meta,
    /// Header, key and value.
    bytes: usize,
    accessed_s: u32,
}

/// One shard's items from cold to hot, on probation and in the main queue; `None` is an install marker.
#[derive(Default)]
struct Order([Vec<Option<u16>>; 2]);

impl Order {
    fn remove(&mut self, key: u16) {
        self.0.iter_mut().for_each(|queue| queue.retain(|entry| *entry != Some(key)));
    }

    fn push(&mut self, key: u16, place: Place, is_main: bool) {
        let queue = &mut self.0[usize::from(is_main)];
        let marker = queue.iter().position(Option::is_none);
        let at = if place == Place::Install { marker } else { None };
        queue.insert(at.unwrap_or(queue.len()), Some(key));
    }

    fn install(&mut self, on: bool) {
        for queue in &mut self.0 {
            queue.retain(Option::is_some);
            queue.extend(on.then_some(None));
        }
    }

    fn queue(&self, is_main: bool) -> Vec<u16> {
        self.0[usize::from(is_main)].iter().flatten().copied().collect()
    }

    fn keys(&self) -> Vec<u16> {
        [self.queue(false), self.queue(true)].concat()
    }
}

struct Walking {
    shard: usize,
    id: WalkId,
    visited: HashSet<u16>,
    /// Stored since the walk began: it may miss them.
    excused: HashSet<u16>,
}

pub(super) struct Model {
    pool: std::sync::Arc<PagePool>,
    hasher: KeyHasher,
    tables: Tables,
    shards: Vec<Shard>,
    items: HashMap<u16, Expected>,
    orders: Vec<Order>,
    owed_bytes: [u64; 2],
    /// How many were evicted or reclaimed.
    left: [u64; 2],
    walking: Option<Walking>,
    now_ms: u64,
    floors: Floors,
    flush_floor: Version,
    /// By the first byte of the key.
    prefix_floors: HashMap<u8, Version>,
    last_version: u64,
    trades: usize,
    overwrites: usize,
    size_classes: SizeClasses,
    pieces: Pieces,
    memory_bytes_most: usize,
}

fn key_of(key: u16) -> Vec<u8> {
    let padding = if key.is_multiple_of(7) { 900 } else { usize::from(key % 5) * 9 };
    [&key.to_le_bytes()[..], &vec![b'k'; padding]].concat()
}

fn number_of(key: &[u8]) -> u16 {
    u16::from_le_bytes([key[0], key[1]])
}

impl Model {
    fn new(memory_bytes: usize) -> Model {
        Model::with_accounting(memory_bytes, false)
    }

    fn with_accounting(memory_bytes: usize, is_accounting: bool) -> Model {
        let pool = PagePool::with_accounting(memory_bytes, 2, is_accounting).unwrap();
        let hasher = KeyHasher::new(11, None);
        let tables = Tables::new(&pool);
        let shard = |at| Shard::new(pool.clone(), tables.clone(), at, true, POLICY, hasher.clone());
        Model {
            shards: (0..2).map(shard).collect(),
            tables,
            hasher,
            items: HashMap::new(),
            orders: vec![Order::default(), Order::default()],
            owed_bytes: [0; 2],
            left: [0; 2],
            walking: None,
            now_ms: 1_000,
            floors: Floors::new(),
            flush_floor: Version(0),
            prefix_floors: HashMap::new(),
            last_version: 0,
            trades: 0,
            overwrites: 0,
            size_classes: SizeClasses::new(&pool),
            pieces: Pieces::default(),
            memory_bytes_most: memory_bytes,
            pool,
        }
    }

    fn shard_of(key: u16) -> usize {
        usize::from(key % 2)
    }

    fn find(&self, key: u16) -> Option<ItemId> {
        let bytes = key_of(key);
        self.shards[Model::shard_of(key)].find(self.hasher.hash(&bytes), &bytes)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { key, size, lifetime_ms, place } => self.put(key, SIZES[size], lifetime_ms, place),
            Op::Reserve { size } => {
                if let Some(reservation) = self.reserve(size % 2, 7, Footprint::new(20, SIZES[size], 0, 0)) {
                    self.shards[size % 2].cancel(reservation);
                }
            }
            Op::Remove { key } => {
                if let Some(id) = self.find(key) {
                    self.shards[Model::shard_of(key)].remove(
                        self.hasher.hash(&key_of(key)),
                        id,
                        Cause::Removed,
                    );
                    self.forget(key);
                }
            }
            Op::Mark { key } => self.mark(key),
            Op::Raise { key } => {
                if let Some(id) = self.find(key) {
                    self.shards[Model::shard_of(key)].raise(id);
                    self.raise(key);
                }
            }
            Op::Expire { key, lifetime_ms } => {
                if let Some(id) = self.find(key) {
                    self.expire(key, id, self.now_ms + lifetime_ms);
                }
            }
            Op::Advance { by_ms } => self.now_ms += by_ms,
            Op::Flush => {
                // Each flush has a version of its own, as each mutation has.
                self.last_version += 1;
                self.flush_floor = Version(self.last_version);
                self.floors.raise_all(self.flush_floor);
            }
            Op::FlushPrefix { first } => {
                self.last_version += 1;
                let floor = Version(self.last_version);
                self.prefix_floors.insert(first, floor);
                self.floors.raise_prefix(&[first], floor).unwrap();
            }
            Op::Surrender { shard, pages } => {
                let before = self.shards[shard].page_count();
                let surrendered = self.shards[shard]
                    .surrender_pages(pages, Moment { clock: &self.now_ms, floors: &self.floors });
                assert!(surrendered >= pages || self.shards[shard].item_count() == 0);
                assert!(before - self.shards[shard].page_count() >= surrendered);
                self.follow_evictions(shard);
            }
            Op::Clear { shard } => self.clear(shard),
            Op::SweepABit { .. } | Op::SweepAllDue { .. } => self.sweep(op),
            Op::Install { shard, on: true } => {
                self.shards[shard].install_begin();
                self.orders[shard].install(true);
            }
            Op::Install { shard, on: false } => {
                self.shards[shard].install_end();
                self.orders[shard].install(false);
            }
            Op::WalkBegin { .. } | Op::WalkStep { .. } | Op::WalkEnd => self.walk(op),
            Op::Resize { bytes } => self.resize(bytes),
            _ => self.apply_to_pieces(op),
        }
        self.check();
    }

    fn reserve(&mut self, shard: usize, hash: u64, footprint: Footprint) -> Option<Reservation> {
        self.with_help(shard, |model| {
            let moment = Moment { clock: &model.now_ms, floors: &model.floors };
            model.shards[shard].reserve(hash, footprint, moment)
        })
    }

    /// What a shard reserves, if need be with pages of the other one's.
    fn with_help<T>(
        &mut self,
        shard: usize,
        reserve: impl Fn(&mut Model) -> Result<T, ReserveError>,
    ) -> Option<T> {
        for _ in 0..3 {
            let reserved = reserve(self);
            self.follow_evictions(shard);
            match reserved {
                Ok(reservation) => return Some(reservation),
                Err(ReserveError::OutOfMemory) => return None,
                Err(ReserveError::Shortage { pages }) => {
                    assert!(pages > 0);
                    self.shards[1 - shard]
                        .surrender_pages(pages, Moment { clock: &self.now_ms, floors: &self.floors });
                    self.follow_evictions(1 - shard);
                }
            }
        }
        None
    }

    fn overwritable(
        &mut self,
        shard: usize,
        hash: u64,
        key: &[u8],
        footprint: Footprint,
        place: Place,
    ) -> Option<ItemId> {
        let moment = Moment { clock: &self.now_ms, floors: &self.floors };
        let shard = &mut self.shards[shard];
        if place == Place::Install { None } else { shard.overwritable(hash, key, footprint, moment) }
    }

    fn put(&mut self, key: u16, size: usize, lifetime_ms: u64, place: Place) {
        let (shard, bytes) = (Model::shard_of(key), key_of(key));
        let expires_at_ms = if lifetime_ms == 0 { 0 } else { self.now_ms + lifetime_ms };
        self.last_version += 1;
        let meta = Meta {
            version: Version(self.last_version),
            marks: Marks::of_state(
                self.last_version.is_multiple_of(5),
                self.last_version.is_multiple_of(10),
                self.last_version.is_multiple_of(7),
            ),
            client_cas: self.last_version.is_multiple_of(7).then_some(self.last_version << 33 | 1),
            ..Meta::new(self.last_version as u32 / 64 % 3, expires_at_ms)
        };
        let (footprint, hash) = (Footprint::of(bytes.len(), size, &meta), self.hasher.hash(&bytes));
        let version = Version(self.last_version);
        let value: Vec<u8> = (0..size).map(|at| (at as u64 * 31 + self.last_version * 7) as u8).collect();
        let is_bare = place == Place::New && footprint == Footprint::new(bytes.len(), size, 0, 0);
        let at = self.shards[shard].index.look_ahead(hash);
        let floor = self.floors.highest();
        let traded =
            if is_bare { self.shards[shard].trade(at, &bytes, &value, floor, |_| version) } else { None };
        if traded.is_some() {
            self.follow_evictions(shard);
            self.trades += 1;
        } else if let Some(item) = self.overwritable(shard, hash, &bytes, footprint, place) {
            self.shards[shard].overwrite(hash, item, &bytes, &value, meta, place, |_| version);
            self.overwrites += 1;
        } else if let Some(reservation) = self.reserve(shard, hash, footprint) {
            self.shards[shard].commit(reservation, hash, &bytes, &value, meta, place, |_| version);
        } else {
            let room = self.pool.memory_bytes_max().saturating_sub(self.bytes_beside_items());
            assert!(size * 3 > room || room < 12 * 4096, "{size} bytes found no room in {room}");
            return;
        }
        self.was_stored(key, value, meta, place);
    }

    /// Lower, the shards give pages back in turn, as the cache has them do.
    fn resize(&mut self, bytes: usize) {
        self.pool.set_memory_bytes_max(bytes.min(self.memory_bytes_most)).unwrap();
        self.shards.iter_mut().for_each(Shard::unsettle);
        let mut surrendered = 1;
        while surrendered > 0 && self.pool.excess_pages() > 0 {
            surrendered = 0;
            for shard in 0..2 {
                let pages = self.pool.excess_pages();
                let moment = Moment { clock: &self.now_ms, floors: &self.floors };
                surrendered += self.shards[shard].surrender_pages(pages, moment);
                self.follow_evictions(shard);
            }
        }
        assert!(self.pool.excess_pages() == 0 || self.items.is_empty(), "all that may leave has left");
    }

    /// A key has this item now, and no older one.
    fn was_stored(&mut self, key: u16, value: Vec<u8>, meta: Meta, place: Place) {
        let shard = Model::shard_of(key);
        // Which queue it begins in depends on ghosts and droughts, which the model does not know.
        let was_main = self.items.get(&key).is_some_and(|old| old.meta.marks.is_main());
        let id = self.find(key).expect("it was just stored");
        let marks = self.shards[shard].meta(id).marks;
        assert!(
            marks.is_main() || !was_main || place != Place::New,
            "what was in the main queue stays there"
        );
        assert!(place == Place::New || marks == meta.marks, "who names the queue gets it");
        let meta = Meta { marks, ..meta };
        // A number of the item's own, so that one that moves is seen to take its time along.
        let is_accounting = self.shards[shard].is_accounting();
        assert_eq!(
            self.shards[shard].accessed_s(id),
            if is_accounting { whole_seconds(self.now_ms) } else { 0 }
        );
        let accessed_s = if is_accounting { self.last_version as u32 } else { 0 };
        self.shards[shard].set_accessed(id, accessed_s);
        let counted = item::counted_bytes(self.shards[shard].memory(), id.chunk());
        self.forget(key);
        self.items.insert(key, Expected { value, meta, bytes: counted, accessed_s });
        self.orders[shard].push(key, place, marks.is_main());
        if let Some(walking) = &mut self.walking {
            walking.excused.insert(key);
        }
    }

    /// An item without room for an expiry is written anew at the hot end: that may evict, or be refused.
    fn expire(&mut self, key: u16, id: ItemId, expires_at_ms: u64) {
        let shard = Model::shard_of(key);
        let hash = self.hasher.hash(&key_of(key));
        let is_rewritten = !item::has_expiry_field(self.shards[shard].memory(), id.chunk());
        if is_rewritten {
            self.raise(key);
        }
        let done = self.shards[shard].set_expiry(
            hash,
            id,
            expires_at_ms,
            Moment { clock: &self.now_ms, floors: &self.floors },
        );
        assert!(done.is_ok() || is_rewritten);
        let before = Expected { value: self.items[&key].value.clone(), ..self.items[&key] };
        self.follow_evictions(shard);
        match done {
            Ok(id) => {
                let orders = &mut self.orders;
                let expected = self.items.entry(key).or_insert_with(|| {
                    // It left to make room for itself.
                    orders[shard].push(key, Place::Hot, before.meta.marks.is_main());
                    before
                });
                expected.meta.expires_at_ms = expires_at_ms;
                expected.bytes = item::counted_bytes(self.shards[shard].memory(), id.chunk());
                if is_rewritten {
                    // Behind what was promoted meanwhile.
                    self.raise(key);
                }
            }
            Err(ReserveError::Shortage { .. }) => {}
            Err(ReserveError::OutOfMemory) => panic!("a copy of an item fits"),
        }
    }

    fn mark(&mut self, key: u16) {
        let Some(id) = self.find(key) else { return };
        let marks = &mut self.items.get_mut(&key).unwrap().meta.marks;
        let before = *marks;
        *marks = marks.read(POLICY.hits_max);
        let hash = self.hasher.hash(&key_of(key));
        let is_hit = self.shards[Model::shard_of(key)].mark(hash, id, |marks| marks.read(POLICY.hits_max));
        assert_eq!(is_hit, before.hits() < POLICY.hits_max);
    }

    fn raise(&mut self, key: u16) {
        let is_main = self.items[&key].meta.marks.is_main();
        let order = &mut self.orders[Model::shard_of(key)];
        order.remove(key);
        order.push(key, Place::Hot, is_main);
    }

    fn forget(&mut self, key: u16) {
        self.items.remove(&key);
        self.orders[Model::shard_of(key)].remove(key);
        if let Some(walking) = &mut self.walking {
            walking.visited.remove(&key);
        }
    }

    fn clear(&mut self, shard: usize) {
        self.shards[shard].clear();
        self.owed_bytes[shard] = 0;
        for key in self.orders[shard].keys() {
            self.forget(key);
        }
        if let Some(walking) = self.walking.take_if(|walking| walking.shard == shard) {
            let step = self.shards[shard].walk_step(walking.id, 1, 1, |_, _| panic!("a walk after its end"));
            assert_eq!(step, WalkStep::Ended);
        }
    }

    fn follow_evictions(&mut self, shard: usize) {
        let counters = self.shards[shard].counters();
        while self.left[shard] < counters.evictions + counters.reclaimed {
            let bytes = |keys: Vec<u16>| -> usize { keys.iter().map(|key| self.items[key].bytes).sum() };
            let on_probation = bytes(self.orders[shard].queue(false));
            let all = on_probation + bytes(self.orders[shard].queue(true));
            let coldest = |is_main| self.orders[shard].queue(is_main).first().copied();
            let cost = coldest(true).map(|key| {
                let all_rounds = self.items[&key].bytes * POLICY.decay_tenths as usize * all;
                (all_rounds / ((all - on_probation) * 10)) as u64
            });
            let is_owed = cost.is_some_and(|cost| self.owed_bytes[shard] >= cost);
            self.owed_bytes[shard] -= if is_owed { cost.unwrap() } else { 0 };
            let from_main = is_owed || on_probation * 1000 < POLICY.probation_per_mille * all;
            let key = coldest(from_main).or(coldest(!from_main)).unwrap();
            let bytes = self.items[&key].bytes as u64;
            let items = self.orders[shard].keys().len();
            let is_dead = self.is_dead(key);
            let meta = &mut self.items.get_mut(&key).unwrap().meta;
            let is_main = meta.marks.is_main();
            let is_small = !is_main && bytes as usize * POLICY.small * items < all;
            if is_dead || (meta.marks.hits() == 0 && !is_small) {
                let is_evicted = !is_dead && !meta.marks.is_main();
                self.forget(key);
                self.left[shard] += 1;
                let is_main_empty = self.orders[shard].queue(true).is_empty();
                let owed = self.owed_bytes[shard] + if is_evicted { bytes } else { 0 };
                self.owed_bytes[shard] = if is_main_empty { 0 } else { owed };
                continue;
            }
            meta.marks = match is_main {
                true => meta.marks.without_hit(),
                false => POLICY.promoted(meta.marks, is_small),
            };
            self.raise(key);
        }
    }

    /// Whoever has left was dead; and after a sweep of everything none is left that was flushed.
    fn sweep(&mut self, op: Op) {
        let moment = Moment { clock: &self.now_ms, floors: &self.floors };
        let (shard, looks_max) = match op {
            Op::SweepABit { shard } => {
                if self.shards[shard].is_sweep_wanted(&self.floors) {
                    self.shards[shard].sweep_a_bit(moment);
                }
                (shard, 0)
            }
            Op::SweepAllDue { shard, looks } => {
                assert!(self.shards[shard].sweep_all_due(looks, moment) <= looks);
                (shard, looks)
            }
            _ => unreachable!("no other sweeps"),
        };
        let gone: Vec<u16> =
            self.orders[shard].keys().into_iter().filter(|key| self.find(*key).is_none()).collect();
        assert!(gone.iter().all(|key| self.is_dead(*key)), "a sweep takes the dead only");
        self.left[shard] += gone.len() as u64;
        gone.into_iter().for_each(|key| self.forget(key));
        let counters = self.shards[shard].counters();
        assert_eq!(self.left[shard], counters.evictions + counters.reclaimed, "the swept are counted");
        if looks_max == usize::MAX {
            let keys = self.orders[shard].keys();
            assert!(!keys.into_iter().any(|key| self.is_flushed(key)), "a flushed item was overlooked");
        }
    }

    fn is_flushed(&self, key: u16) -> bool {
        let version = self.items[&key].meta.version;
        let prefix_floor = self.prefix_floors.get(&(key as u8));
        version < self.flush_floor || prefix_floor.is_some_and(|floor| version < *floor)
    }

    fn is_dead(&self, key: u16) -> bool {
        let expires_at_ms = self.items[&key].meta.expires_at_ms;
        (expires_at_ms != 0 && expires_at_ms <= self.now_ms) || self.is_flushed(key)
    }

    fn walk(&mut self, op: Op) {
        match (op, &mut self.walking) {
            (Op::WalkBegin { shard }, None) => {
                let id = self.shards[shard].walk_begin().unwrap();
                let (visited, excused) = (HashSet::new(), HashSet::new());
                self.walking = Some(Walking { shard, id, visited, excused });
            }
            (Op::WalkStep { items, bytes }, Some(walking)) => {
                let mut seen = Vec::new();
                let shard = &mut self.shards[walking.shard];
                let step = shard
                    .walk_step(walking.id, items, bytes, |shard, id| seen.push(number_of(shard.key(id))));
                assert!(seen.len() <= items);
                let order = self.orders[walking.shard].keys();
                let places: Vec<_> =
                    seen.iter().map(|key| order.iter().position(|other| other == key).unwrap()).collect();
                assert!(places.windows(2).all(|pair| pair[0] + 1 == pair[1]), "cold to hot, none left out");
                walking.visited.extend(seen);
                if step == WalkStep::AtHotEnd {
                    let missed =
                        |key: &&u16| !walking.visited.contains(key) && !walking.excused.contains(key);
                    assert_eq!(order.iter().find(missed), None, "a walk missed an item");
                }
            }
            (Op::WalkEnd, Some(walking)) => {
                self.shards[walking.shard].walk_end(walking.id);
                self.walking = None;
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        self.check_pieces();
        let pages: usize = self.shards.iter().map(Shard::page_count).sum();
        self.pool.check_invariants(pages);
        let is_above = self.pool.excess_pages() > 0;
        assert!(self.pool.memory_bytes() <= self.pool.memory_bytes_max() || is_above);
        for ((shard, order), owed) in self.shards.iter().zip(&self.orders).zip(self.owed_bytes) {
            shard.check_invariants();
            assert_eq!(shard.owed_bytes, owed, "bytes owed to the main queue");
            assert!(shard.index_bytes() + shard.item_bytes() <= self.pool.memory_bytes());
            let listed: Vec<u16> = shard
                .lru
                .check_invariants(shard.memory())
                .0
                .into_iter()
                .map(|first| number_of(shard.view().key(first)))
                .collect();
            assert_eq!(listed, order.keys(), "the order from cold to hot");
        }
        for (key, expected) in &self.items {
            let id = self.find(*key).expect("an item that was not evicted is there");
            let shard = &self.shards[Model::shard_of(*key)];
            assert_eq!(shard.find_by_hash(shard.hash(id)), Some(id));
            assert_eq!((shard.meta(id), shard.accessed_s(id)), (expected.meta, expected.accessed_s));
            assert!(shard.key(id) == key_of(*key) && shard.value(id).to_vec() == expected.value);
            let held = self.tables.at(Model::shard_of(*key)).find(shard.hash(id), &key_of(*key)).unwrap();
            let (flags, expires_at_ms, value) = held.parts();
            let stated = held.meta_if_stated();
            assert_eq!(stated.is_some(), expected.meta != expected.meta.without_state());
            let seen = stated.unwrap_or(expected.meta);
            let seen = Meta { version: held.version(), flags, expires_at_ms, ..seen };
            assert_eq!((seen, held.expires_at_ms()), (expected.meta, expires_at_ms));
            assert_eq!(held.accessed_s(), expected.accessed_s);
            assert!(value.to_vec() == expected.value, "what a reader sees");
        }
    }
}

fn op_on_pieces() -> impl Strategy<Value = Op> {
    let key = 0..KEYS;
    let begin = (key.clone(), 5..SIZES.len(), prop_oneof![3 => Just(0), 1 => 1..50_u64])
        .prop_map(|(key, size, lifetime_ms)| Op::Begin { key, size, lifetime_ms });
    prop_oneof![
        3 => begin,
        6 => (0..4_usize, prop_oneof![0..9_000_usize, Just(usize::MAX >> 1)])
            .prop_map(|(which, bytes)| Op::Write { which, bytes }),
        3 => (0..4_usize).prop_map(|which| Op::Finish { which }),
        1 => (0..4_usize).prop_map(|which| Op::Abandon { which }),
        4 => key.prop_map(|key| Op::Pin { key }),
        2 => (0..4_usize).prop_map(|which| Op::Unpin { which }),
        1 => (40..64_usize).prop_map(|pages| Op::Resize { bytes: pages * 4096 }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS;
    let place = prop_oneof![4 => Just(Place::New), 1 => Just(Place::Hot), 1 => Just(Place::Install)];
    let lifetime_ms = prop_oneof![3 => Just(0), 1 => 1..50_u64];
    let put = (key.clone(), 0..SIZES.len(), lifetime_ms, place)
        .prop_map(|(key, size, lifetime_ms, place)| Op::Put { key, size, lifetime_ms, place });
    prop_oneof![
        20 => put,
        2 => (0..SIZES.len()).prop_map(|size| Op::Reserve { size }),
        3 => key.clone().prop_map(|key| Op::Remove { key }),
        4 => key.clone().prop_map(|key| Op::Mark { key }),
        1 => key.clone().prop_map(|key| Op::Raise { key }),
        1 => (key, 0..50_u64).prop_map(|(key, lifetime_ms)| Op::Expire { key, lifetime_ms }),
        1 => (0..30_u64).prop_map(|by_ms| Op::Advance { by_ms }),
        1 => (0..2_usize, 0..9_usize).prop_map(|(shard, pages)| Op::Surrender { shard, pages }),
        4 => (0..2_usize).prop_map(|shard| Op::SweepABit { shard }),
        1 => (0..2_usize, prop_oneof![0..99_usize, Just(usize::MAX)])
            .prop_map(|(shard, looks)| Op::SweepAllDue { shard, looks }),
        2 => (0..2_usize).prop_map(|shard| Op::WalkBegin { shard }),
        4 => (0..9_usize, 0..9_000_usize).prop_map(|(items, bytes)| Op::WalkStep { items, bytes }),
        1 => Just(Op::WalkEnd),
        1 => (0..2_usize, any::<bool>()).prop_map(|(shard, on)| Op::Install { shard, on }),
        1 => (0..KEYS as u8).prop_map(|first| Op::FlushPrefix { first }),
        1 => prop_oneof![3 => Just(Op::Flush), 1 => (0..2_usize).prop_map(|shard| Op::Clear { shard })],
        12 => op_on_pieces(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shards_hold_what_the_model_says_in_its_order(
        pages in 16..64_usize,
        is_accounting: bool,
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let mut model = Model::with_accounting(pages * 4096, is_accounting);
        for op in ops {
            model.apply(op);
        }
    }
}

#[test]
fn long_run_holds_what_the_model_says() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    let seed = [42; 32];
    println!("seed {seed:?}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let mut model = Model::new(48 * 4096);
    for _ in 0..15_000 {
        model.apply(op().new_tree(&mut runner).unwrap().current());
    }
    for shard in &model.shards {
        let counters = shard.counters();
        println!("{counters:?}");
        assert!(counters.evictions > 100 && counters.reclaimed > 100 && counters.pages_moved > 10);
    }
    let Pieces { finished, refused, left_pages_max, .. } = model.pieces;
    println!("{finished} values came in pieces, {refused} were refused, {left_pages_max} pages were left");
    assert!(finished > 100 && refused > 0 && left_pages_max > 4);
}

#[test]
fn long_run_of_items_of_one_size_trades_as_the_model_says() {
    let mut model = Model::new(6 * 4096);
    let mut random = 7_u64;
    for _ in 0..20_000 {
        random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        let key = ((random >> 40) % u64::from(KEYS)) as u16;
        model.apply(match random >> 60 {
            0 => Op::Mark { key },
            1 if random >> 56 & 7 == 0 => Op::Remove { key },
            2 if random >> 56 & 7 == 0 => Op::Flush,
            3 => Op::Advance { by_ms: 1 },
            4 => Op::SweepABit { shard: key as usize % 2 },
            _ => {
                let lifetime_ms =
                    if key / 2 % 3 == 2 { [40, 400_000][(random >> 33) as usize % 2] } else { 0 };
                let place = if key % 8 == 7 { Place::Hot } else { Place::New };
                Op::Put { key, size: 5, lifetime_ms, place }
            }
        });
    }
    let Model { trades, overwrites, .. } = model;
    println!("{trades} trades, {overwrites} items overwritten in place");
    assert!(trades > 100 && overwrites > 100);
}

/// Found by a run of the property above.
#[test]
fn an_item_written_anew_is_hotter_than_what_was_promoted_to_make_room_for_it() {
    let put = |(key, size)| Op::Put { key, size, lifetime_ms: 0, place: Place::New };
    let stored = [(0, 0); 6].into_iter().chain([
        (21, 0),
        (1, 7),
        (11, 8),
        (16, 0),
        (13, 0),
        (0, 5),
        (37, 10),
        (20, 7),
        (21, 4),
        (10, 0),
        (9, 0),
    ]);
    let mut model = Model::new(19 * 4096);
    stored.map(put).for_each(|op| model.apply(op));
    assert_eq!(model.orders[1].queue(true), [21]);
    model.apply(Op::Expire { key: 21, lifetime_ms: 0 });
    assert_eq!(model.orders[1].queue(true), [13, 21]);
}

/// Found by a run of the property above.
#[test]
fn a_flush_right_behind_a_half_swept_one_of_a_prefix_is_swept_for_as_well() {
    let mut model = Model::new(35 * 4096);
    model.apply(Op::Put { key: 19, size: 0, lifetime_ms: 0, place: Place::New });
    model.apply(Op::FlushPrefix { first: 0 });
    model.apply(Op::SweepAllDue { shard: 1, looks: 1 });
    model.apply(Op::Flush);
    model.apply(Op::SweepAllDue { shard: 1, looks: usize::MAX });
    assert!(model.items.is_empty());
}

/// Found by 46 000 runs of the property above.
#[test]
fn a_flushed_item_that_is_written_anew_on_a_page_that_was_swept_goes_all_the_same() {
    let put = |(key, size)| Op::Put { key, size, lifetime_ms: 0, place: Place::New };
    let mut model = Model::new(35 * 4096);
    [(7, 0), (0, 0), (0, 0), (5, 6)].map(put).into_iter().for_each(|op| model.apply(op));
    model.apply(Op::Flush);
    [(9, 9), (29, 9)].map(put).into_iter().for_each(|op| model.apply(op));
    model.apply(Op::SweepAllDue { shard: 1, looks: 1 });
    model.apply(Op::Expire { key: 5, lifetime_ms: 1 });
    model.apply(Op::SweepAllDue { shard: 1, looks: usize::MAX });
    assert!(!model.items.contains_key(&5));
}
