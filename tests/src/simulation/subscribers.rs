//! Subscribers: indexes of their own, kept in step by the change stream of a node.
//!
//! Lives here: what they do (take changes, stall, go through the cache, resume here or at another node) and what must hold:
//! no mutation is left out without a word, and who has taken all changes has all that its node holds.

use std::collections::BTreeMap;

use hotspare::{
    Cache, Change, Cursor, Effect, Inspection, NoChange, Position, ReadError, Restart, Subscription, Version,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::loaders::Silent;
use super::oracle::Oracle;
use super::summary::add_each;

/// How many there are.
const SUBSCRIBERS: usize = 4;

/// Value, flags, expiry (0 never), version.
type State = (Vec<u8>, u32, u64, u64);

/// What all of them were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Changes, restarts included.
    pub changes: u64,
    /// Items that a node was given beside its log.
    pub fills: u64,
    /// How often they resumed where they were without a word.
    pub resumed: u64,
    /// How often they were told to start again: at the beginning, at another cache, overtaken, rolled back, copied.
    pub restarts: [u64; 5],
}

impl Told {
    /// Adds what those of another run were told.
    pub fn add(&mut self, other: &Told) {
        self.changes += other.changes;
        self.fills += other.fills;
        self.resumed += other.resumed;
        add_each(&mut self.restarts, &other.restarts);
    }
}

struct Subscriber {
    node: usize,
    changes: Subscription,
    position: Option<Position>,
    index: BTreeMap<Vec<u8>, State>,
    /// Where it goes on through the cache since it was told to start again.
    scan: Option<Cursor>,
}

/// All of them. They have random numbers of their own, so that the rest of a run is what it would be without them.
pub struct Subscribers {
    random: StdRng,
    all: Vec<Subscriber>,
    /// What they were told so far.
    pub told: Told,
    silent: Silent,
}

fn subscribe(node: usize, cache: &Cache, position: Option<Position>) -> Subscriber {
    let changes = cache.subscribe(position).expect("a node of a group has a log");
    Subscriber { node, changes, position, index: BTreeMap::new(), scan: None }
}

impl Subscribers {
    /// None yet: they come as the run goes on.
    pub fn new(seed: u64, silent: Silent) -> Subscribers {
        Subscribers { random: StdRng::seed_from_u64(!seed), all: Vec::new(), told: Told::default(), silent }
    }

    /// One of them does something, mostly.
    pub fn step(&mut self, nodes: &[Cache]) {
        if self.all.len() < SUBSCRIBERS {
            let node = self.random.random_range(0..nodes.len());
            self.all.push(subscribe(node, &nodes[node], None));
        }
        let index = self.random.random_range(0..self.all.len());
        match self.random.random_range(0..100) {
            0..15 => self.take(index, nodes, 1),
            15..25 => self.take(index, nodes, 20),
            25..35 => {
                let subscriber = &mut self.all[index];
                subscriber.scan_some(&nodes[subscriber.node], 5);
            }
            35..36 => self.resume(index, nodes, false),
            36 => self.resume(index, nodes, true),
            _ => {}
        }
    }

    /// It goes on from its last position with a new subscription, here or elsewhere; one in the middle of a scan begins anew.
    fn resume(&mut self, index: usize, nodes: &[Cache], elsewhere: bool) {
        let node = if elsewhere { self.random.random_range(0..nodes.len()) } else { self.all[index].node };
        let is_whole = self.all[index].scan.is_none();
        let position = self.all[index].position.filter(|_| is_whole);
        // As it would be kept in a file.
        let position = position.map(|position| position.to_string().parse().expect("it was just written"));
        let kept = std::mem::take(&mut self.all[index].index);
        self.all[index] = Subscriber { index: kept, ..subscribe(node, &nodes[node], position) };
        self.told.resumed += u64::from(position.is_some());
    }

    fn take(&mut self, index: usize, nodes: &[Cache], changes_max: usize) {
        for _ in 0..changes_max {
            let subscriber = &mut self.all[index];
            match subscriber.changes.try_next() {
                Ok(change) => {
                    self.told.changes += 1;
                    self.told.fills += u64::from(subscriber.position == Some(change.position));
                    if let Effect::Restart(why) = change.effect {
                        self.told.restarts[place_of(why)] += 1;
                    }
                    subscriber.apply(change, &nodes[subscriber.node], &self.silent);
                }
                Err(NoChange::Yet) => return,
                // The node lost its memory; the one in its place has another life.
                Err(NoChange::Closed) => return self.resume(index, nodes, false),
            }
        }
    }

    /// Some of them, or all, take all changes and finish their scan; then each must have all that its node holds.
    ///
    /// # Errors
    /// What one lacks or has, in words.
    pub fn check(&mut self, nodes: &[Cache], all: bool, oracle: &Oracle) -> Result<(), String> {
        for index in 0..self.all.len() {
            if !all && self.random.random_range(0..4) != 0 {
                continue;
            }
            self.take(index, nodes, usize::MAX);
            // Once more: it may have taken a new subscription.
            self.take(index, nodes, usize::MAX);
            let subscriber = &mut self.all[index];
            let cache = &nodes[subscriber.node];
            subscriber.scan_some(cache, usize::MAX);
            if subscriber.scan.is_some() || subscriber.position.is_none() || is_copying(cache) {
                continue;
            }
            let (node, held) = (subscriber.node, cache.inspect());
            if held.lineage.is_empty() {
                // It has followed nobody yet: there is no place to start again from.
                continue;
            }
            compare(&subscriber.index, &held, oracle).map_err(|why| format!("node {node}: {why}"))?;
        }
        Ok(())
    }
}

fn is_copying(cache: &Cache) -> bool {
    let status = cache.status();
    !status.ready && status.role != hotspare::Role::Fenced
}

fn place_of(why: Restart) -> usize {
    match why {
        Restart::Beginning => 0,
        Restart::OtherCache => 1,
        Restart::Overtaken => 2,
        Restart::RolledBack => 3,
        Restart::Copied => 4,
        _ => unreachable!("there are five"),
    }
}

impl Subscriber {
    fn apply(&mut self, change: Change, cache: &Cache, silent: &Silent) {
        let Change { position, version: Version(version), effect, .. } = change;
        if let Some(before) = self.position
            && !matches!(effect, Effect::Restart(_))
        {
            assert_no_gap(before.seq(), position.seq(), cache, silent);
        }
        self.position = Some(position);
        match effect {
            Effect::Put { key, value, flags, expires_at_ms } => {
                let state = (value.to_vec(), flags, expires_at_ms.unwrap_or(0), version);
                self.index.insert(key.to_vec(), state);
            }
            Effect::Touch { key, item: Version(item), expires_at_ms } => {
                if let Some(state) = self.index.get_mut(&key[..]).filter(|state| state.3 == item) {
                    state.2 = expires_at_ms.unwrap_or(0);
                }
            }
            Effect::Delete { key } => drop(self.index.remove(&key[..])),
            Effect::Flush => self.index.clear(),
            Effect::FlushPrefix { prefix } => self.index.retain(|key, _| !key.starts_with(&prefix)),
            Effect::Restart(_) => {
                self.index.clear();
                self.scan = Some(Cursor::START);
            }
            _ => unreachable!("the model knows every effect"),
        }
    }

    fn scan_some(&mut self, cache: &Cache, items_max: usize) {
        let Some(cursor) = self.scan else { return };
        let index = &mut self.index;
        let scanned = cache.scan_from(cursor, [], items_max, |item| {
            let state = (item.value.to_vec(), item.flags, item.expires_at_ms.unwrap_or(0), item.version.0);
            let known = index.get(item.key).map_or(0, |known| known.3);
            if known <= state.3 {
                index.insert(item.key.to_vec(), state);
            }
        });
        match scanned {
            Ok(next) => self.scan = next,
            Err(ReadError::ForeignCursor) => self.scan = Some(Cursor::START),
            // It will answer reads again.
            Err(_) => {}
        }
    }
}

/// Between two changes lies no mutation of the node's history.
fn assert_no_gap(before: u64, seq: u64, cache: &Cache, silent: &Silent) {
    if seq <= before + 1 {
        assert!(seq >= before, "changes go backwards, from seq {before} to {seq}");
        return;
    }
    let lineage = cache.inspect().lineage;
    let silent = silent.lock().unwrap();
    // By branches, which use few of all seqs.
    let mut used = lineage.iter().flat_map(|(_, branch, start, last)| {
        (*start.max(&(before + 1))..=*last.min(&(seq - 1))).map(move |left| (*branch, left))
    });
    let left_out = used.find(|place| !silent.contains(place)).map(|(_, left)| left);
    assert_eq!(left_out, None, "changes leave a mutation out, between seq {before} and {seq}");
}

fn shown(state: Option<&State>) -> String {
    state.map_or("nothing".to_owned(), |(value, flags, expiry, version)| {
        format!("{} x {:?}, flags {flags}, expiry {expiry}, version {version:x}", value.len(), value.first())
    })
}

/// Whether an index that is up to date has all that the node holds, and nothing else that has no reason.
fn compare(index: &BTreeMap<Vec<u8>, State>, held: &Inspection, oracle: &Oracle) -> Result<(), String> {
    for (key, value, flags, expiry, version) in &held.items {
        let state = (value.clone(), *flags, *expiry, *version);
        if index.get(key) != Some(&state) {
            let known = index.get(key);
            return Err(format!(
                "{} is {}, a subscriber has {}",
                key.escape_ascii(),
                shown(Some(&state)),
                shown(known)
            ));
        }
    }
    let is_held = |key: &Vec<u8>| held.items.binary_search_by(|item| item.0.cmp(key)).is_ok();
    let surplus =
        index.iter().find(|(key, state)| !is_held(key) && !oracle.may_be_missing(key, state.2, state.3));
    match surplus {
        None => Ok(()),
        Some((key, state)) => {
            Err(format!("{} is gone, a subscriber has {}", key.escape_ascii(), shown(Some(state))))
        }
    }
}
