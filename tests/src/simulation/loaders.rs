//! Clients that read through, on any node, and what logs say of their loads.
//!
//! Lives here: P15: what a load stores is no older than any write before it; P16: a key is lent to one node at a time; and
//! that nobody waits for ever. Not here: what a node's items must be (see `oracle`), which is told of each value stored.
//!
//! Its source answers when the simulation says so, and each value names its load: so what is stored tells when it was
//! loaded, whatever the engine believes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hotspare::{Cache, Inspection, LoadPolicy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::Life;
use super::oracle::{Concern, Oracle};

/// Callers at a time.
const CALLS_MAX: usize = 8;

/// What a load's value begins with.
const MARK: &[u8] = b"load ";

/// Branches and seqs of records that change no item, and of which no subscriber is told.
pub type Silent = Arc<Mutex<HashSet<(u128, u64)>>>;

/// A load that has begun.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// How many mutations had been answered then.
    begun: usize,
    may_end: bool,
}

#[derive(Debug, Default)]
struct Source {
    loads: BTreeMap<u64, Load>,
    answered: usize,
}

struct Call {
    life: Life,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// Who loads a key, as the log of one branch says.
#[derive(Debug)]
struct Lent {
    node: u128,
    until_ms: u64,
}

/// All of them. They have random numbers of their own, as subscribers have.
pub struct Loaders {
    random: StdRng,
    source: Arc<Mutex<Source>>,
    calls: Vec<Call>,
    lent: HashMap<u128, HashMap<Vec<u8>, Lent>>,
    noted: HashMap<u128, u64>,
    seen: HashMap<Life, u64>,
    /// Places in a history at which no item changes.
    pub silent: Silent,
    /// Loads begun, stored, and leases in logs.
    pub done: [u64; 3],
}

/// A record, as far as loads go.
enum Record {
    Put { key: Vec<u8>, value: Vec<u8>, flags: u32, expires_at_ms: u64 },
    Change(Concern),
    Lend { key: Vec<u8>, node: u128, until_ms: u64 },
    End { key: Vec<u8> },
}

/// Takes numbers and strings off a record's bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> u128 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first().expect("the log's records are whole");
            self.0 = rest;
            number |= u128::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.number() as usize;
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    fn record(mut self) -> Option<Record> {
        Some(match self.number() {
            0 => Record::Put {
                key: self.bytes(),
                value: self.bytes(),
                flags: self.number() as u32,
                expires_at_ms: self.number() as u64,
            },
            1 | 2 => Record::Change(Concern::Key(self.bytes())),
            3 => Record::Change(Concern::All),
            5 => Record::Change(Concern::Prefix(self.bytes())),
            6 => Record::Lend { key: self.bytes(), node: self.number(), until_ms: self.number() as u64 },
            7 => Record::End { key: self.bytes() },
            _ => return None,
        })
    }
}

impl Loaders {
    /// Nobody wants anything yet.
    pub fn new(seed: u64) -> Loaders {
        Loaders {
            random: StdRng::seed_from_u64(seed ^ 0x10ad_0f2e_ade2),
            source: Arc::default(),
            calls: Vec::new(),
            lent: HashMap::new(),
            noted: HashMap::new(),
            seen: HashMap::new(),
            silent: Silent::default(),
            done: [0; 3],
        }
    }

    /// Whether nobody waits.
    pub fn are_answered(&self) -> bool {
        self.calls.is_empty()
    }

    /// One of them does something; `oracle` tells how much was written by now.
    pub fn step(&mut self, nodes: &[(Life, Cache)], oracle: &Oracle) {
        self.source.lock().unwrap().answered = oracle.answered();
        self.calls.retain(|call| nodes.iter().any(|(life, _)| *life == call.life));
        match self.random.random_range(0..100) {
            0..12 if self.calls.len() < CALLS_MAX && !nodes.is_empty() => self.call(nodes),
            12..40 if !self.calls.is_empty() => {
                let number = self.random.random_range(0..self.calls.len());
                self.poll(number);
            }
            40..50 => {
                let mut source = self.source.lock().unwrap();
                let running: Vec<u64> = source.loads.keys().copied().collect();
                if !running.is_empty() {
                    let number = running[self.random.random_range(0..running.len())];
                    source.loads.get_mut(&number).expect("it runs").may_end = true;
                }
            }
            50..52 if !self.calls.is_empty() => {
                let number = self.random.random_range(0..self.calls.len());
                self.calls.swap_remove(number);
            }
            _ => {}
        }
    }

    /// The source answers everybody, and everybody looks.
    ///
    /// # Errors
    /// As [`Loaders::note`].
    pub fn finish(&mut self, nodes: &[(Life, Cache)], oracle: &mut Oracle) -> Result<(), String> {
        self.note(nodes, oracle)?;
        self.source.lock().unwrap().loads.values_mut().for_each(|load| load.may_end = true);
        self.calls.retain(|call| nodes.iter().any(|(life, _)| *life == call.life));
        for number in (0..self.calls.len()).rev() {
            self.source.lock().unwrap().answered = oracle.answered();
            self.poll(number);
            self.note(nodes, oracle)?;
        }
        Ok(())
    }

    fn poll(&mut self, number: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.calls[number].future.as_mut().poll(&mut cx).is_ready() {
            drop(self.calls.swap_remove(number));
        }
    }

    fn call(&mut self, nodes: &[(Life, Cache)]) {
        let (life, cache) = nodes[self.random.random_range(0..nodes.len())].clone();
        // Few keys, so that they meet.
        let key = format!("key{}", self.random.random_range(0..super::KEYS / 4));
        let policy = match self.random.random_range(0..3) {
            0 => LoadPolicy::forever(),
            1 => LoadPolicy::fresh_for(Duration::from_millis(self.random.random_range(1..3_000))),
            _ => LoadPolicy::fresh_for(Duration::from_millis(500)).stale_for(Duration::from_secs(2)),
        };
        let policy = policy.lease_for(Duration::from_millis(self.random.random_range(100..4_000)));
        let (source, mut number) = (self.source.clone(), None);
        let load = std::future::poll_fn(move |_| {
            let mut source = source.lock().unwrap();
            let number = *number.get_or_insert_with(|| {
                // Each number once: loads that are over stay known.
                let number = source.loads.keys().next_back().map_or(1, |last| last + 1);
                let load = Load { begun: source.answered, may_end: false };
                source.loads.insert(number, load);
                number
            });
            match source.loads[&number].may_end {
                true => Poll::Ready(Ok::<_, std::io::Error>([MARK, number.to_string().as_bytes()].concat())),
                false => Poll::Pending,
            }
        });
        self.calls.push(Call {
            life,
            future: Box::pin(async move {
                // A node that serves nothing refuses nothing either: it loads.
                let value = cache.get_or_load_async(key, policy, load).await;
                drop(value.expect("the source answers"));
            }),
        });
    }

    /// Reads on in each node's log, at the newest of its branch; tells the oracle of what loads have stored.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn note(&mut self, nodes: &[(Life, Cache)], oracle: &mut Oracle) -> Result<(), String> {
        self.done[0] = self.source.lock().unwrap().loads.len() as u64;
        for (life, cache) in nodes {
            let seq = cache.status().seq;
            if self.seen.insert(*life, seq) != Some(seq) {
                self.note_log(&cache.inspect(), oracle)?;
            }
        }
        Ok(())
    }

    fn note_log(&mut self, inspection: &Inspection, oracle: &mut Oracle) -> Result<(), String> {
        for (branch, seq, bytes) in &inspection.records {
            let noted = self.noted.entry(*branch).or_insert(0);
            if seq <= noted {
                continue;
            }
            *noted = *seq;
            let Some(record) = Reader(bytes).record() else { continue };
            self.note_record(inspection, (*branch, *seq), record, oracle)?;
        }
        Ok(())
    }

    fn note_record(
        &mut self,
        inspection: &Inspection,
        (branch, seq): (u128, u64),
        record: Record,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let lent = self.lent.entry(branch).or_default();
        match record {
            Record::Lend { key, node, until_ms } => {
                self.silent.lock().unwrap().insert((branch, seq));
                self.done[2] += 1;
                let before = lent.insert(key.clone(), Lent { node, until_ms });
                match before.filter(|before| before.node != node && before.until_ms > inspection.now_ms) {
                    Some(before) => Err(format!(
                        "P16: {} is lent to {node:x} at seq {seq}, and to {before:x?} already",
                        key.escape_ascii()
                    )),
                    None => Ok(()),
                }
            }
            Record::End { key } => {
                self.silent.lock().unwrap().insert((branch, seq));
                lent.remove(&key);
                Ok(())
            }
            Record::Change(Concern::Key(key)) => {
                lent.remove(&key);
                Ok(())
            }
            Record::Change(Concern::All) => {
                lent.clear();
                Ok(())
            }
            Record::Change(Concern::Prefix(prefix)) => {
                lent.retain(|key, _| !key.starts_with(&prefix));
                Ok(())
            }
            Record::Put { key, value, flags, expires_at_ms } => {
                lent.remove(&key);
                let Some(number) = value.strip_prefix(MARK) else { return Ok(()) };
                let digits: Vec<u8> = number.iter().copied().take_while(u8::is_ascii_digit).collect();
                if digits.len() < number.len() {
                    // Somebody has appended to it since.
                    return Ok(());
                }
                let number: u64 = String::from_utf8(digits).unwrap().parse().unwrap();
                let begun = self.source.lock().unwrap().loads[&number].begun;
                self.done[1] += 1;
                let state = (value, flags, expires_at_ms);
                oracle.note_load(inspection, (branch, seq), key, state, begun)
            }
        }
    }
}
