//! Operations of any kind on a small cache: what it gives back is what a map says was stored last under that key.
//!
//! Lives here: `Op` and how bytes become one, the `Model`, the rules. Not here: the order of eviction (the storage's
//! own model predicts it), replicas (the simulation), threads (`stress`).
//!
//! The rules:
//! 1. A hit is exactly what the model holds: value, flags, version, expiry. What is expired, flushed, deleted or was
//!    once reported as missing is no hit.
//! 2. A miss is always allowed, except where eviction is off: there it is right only if the model has nothing either.
//! 3. A version is given once, and each of a key is above all that the key had before; where versions are in order (on demand, and in
//!    a group) each is above all of any key.
//! 4. The storage's invariants hold, and the memory limit where eviction is on.
//! 5. A value that comes piece by piece is stored whole or not at all, and one that is pinned stays as it was.
//!
//! The first byte of an input chooses the settings, the rest spells operations. HOTSPARE_FUZZ_PRINT set to anything
//! prints them, to read what an artifact does.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use hotspare::{
    Attributes, Cache, Clock, Config, CounterError, Eviction, Expiry, Item, ManualClock, PinnedValue,
    ReplicationConfig, Swap, ValueWriter, Version, WriteError,
};
use libfuzzer_sys::fuzz_target;

/// Most operations share these, so that they meet.
const HOT_KEYS: u16 = 24;
/// Enough that one shard's index outgrows its first page of lines and shrinks again.
const KEYS: u16 = 2_048;
const MIB: usize = 1 << 20;
/// What one `Op::Fill` stores at most: twice the memory, so that no input takes long.
const FILL_BYTES_MAX: usize = 2 * MIB;
/// Below the largest value that is decoded: some are refused.
const ITEM_BYTES_MAX: usize = 36 << 10;
/// Values that come, and those that are pinned, at one time.
const PIECES_MAX: usize = 6;
/// More than any item's header.
const HEADER_BYTES_MAX: usize = 64;
/// Values up to this length lie in one piece, so that a counter is found in them.
const PIECE_BYTES_MIN: usize = 3_000;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Some(settings) = input.byte() else { return };
    let mut model = Model::new(settings);
    let mut number = 0;
    while let Some(op) = input.op() {
        if *PRINTS {
            println!("{op:?}");
        }
        model.apply(&op);
        number += 1;
        if number % 16 == 0 {
            model.check();
        }
    }
    model.check();
    model.settle_flush();
    let keys: Vec<u16> = (0..HOT_KEYS).chain(model.items.keys().copied()).collect();
    keys.into_iter().for_each(|key| model.get(key));
    model.check();
});

static PRINTS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HOTSPARE_FUZZ_PRINT").is_some());

#[derive(Debug)]
enum Op {
    Set {
        key: u16,
        value: Value,
        attributes: Attributes,
    },
    Add {
        key: u16,
        value: Value,
        attributes: Attributes,
    },
    Replace {
        key: u16,
        value: Value,
        attributes: Attributes,
    },
    Append {
        key: u16,
        value: Value,
    },
    Prepend {
        key: u16,
        value: Value,
    },
    CompareAndSwap {
        key: u16,
        versions_back: u64,
        value: Value,
        attributes: Attributes,
    },
    Delete {
        key: u16,
    },
    Touch {
        key: u16,
        expiry: Expiry,
    },
    Count {
        key: u16,
        is_up: bool,
        delta: u64,
    },
    Get {
        key: u16,
    },
    GetMany {
        keys: Vec<u16>,
    },
    /// Many sets or deletes in a row: the quickest way to a full cache, a large index, and back.
    Fill {
        first: u16,
        count: u16,
        value: Value,
    },
    Empty {
        first: u16,
        count: u16,
    },
    Flush,
    FlushAt {
        at: Expiry,
    },
    Resize {
        bytes: usize,
    },
    Advance {
        by_ms: u64,
    },
    /// A value of this length comes piece by piece from here on.
    Begin {
        key: u16,
        len: usize,
        attributes: Attributes,
    },
    Write {
        which: usize,
        bytes: usize,
    },
    /// By a set, an add, a replace, or not at all.
    Finish {
        which: usize,
        way: u8,
    },
    Pin {
        key: u16,
    },
    Unpin {
        which: usize,
    },
}

/// A value of which a part has come.
struct Coming {
    key: u16,
    attributes: Attributes,
    value: Vec<u8>,
    written: usize,
    writer: ValueWriter,
}

/// A value by what makes it, so that an operation is short when it is printed.
#[derive(Debug, Clone, Copy)]
enum Value {
    Bytes { len: usize },
    Number { number: u64, spaces: usize },
}

impl Value {
    fn len(self) -> usize {
        match self {
            Value::Bytes { len } => len,
            Value::Number { number, spaces } => number.to_string().len() + spaces,
        }
    }

    /// Values differ from one use to the next, so that an old one is never taken for a new one.
    fn bytes(self, nonce: u64) -> Vec<u8> {
        match self {
            Value::Bytes { len } => {
                (0..len as u64).map(|at| (at * 31 + nonce * 7 + (at >> 8)) as u8).collect()
            }
            Value::Number { number, spaces } => {
                let mut text = number.to_string().into_bytes();
                text.resize(text.len() + spaces, b' ');
                text
            }
        }
    }
}

/// What is left of the fuzzer's bytes.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pair(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn key(&mut self) -> Option<u16> {
        match self.byte()? {
            hot @ 0..208 => Some(u16::from(hot) % HOT_KEYS),
            _ => Some(self.pair()? % KEYS),
        }
    }

    fn value(&mut self) -> Option<Value> {
        let kind = self.byte()?;
        let len = |unit: usize, byte: u8| Value::Bytes { len: usize::from(byte) * unit };
        Some(match kind % 8 {
            0 => Value::Bytes { len: 0 },
            1 => len(1, self.byte()?),
            2 => len(16, self.byte()?),
            3..=5 => len(160, self.byte()?),
            6 => Value::Number { number: u64::from(self.byte()?), spaces: usize::from(kind >> 3) },
            _ => Value::Number { number: u64::MAX - u64::from(self.byte()?), spaces: 0 },
        })
    }

    fn expiry(&mut self) -> Option<Expiry> {
        let kind = self.byte()?;
        Some(match kind % 8 {
            0..=3 => Expiry::Never,
            4..=6 => Expiry::After(Duration::from_millis(u64::from(kind >> 3))),
            _ => Expiry::At(Model::BEGIN_MS + u64::from(self.byte()?)),
        })
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let expiry = self.expiry()?;
        let flags = match self.byte()? {
            odd if odd % 2 == 1 => 0xfeed_0000 | u32::from(odd),
            _ => 0,
        };
        Some(Attributes { flags, expiry })
    }

    fn place(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) % PIECES_MAX)
    }

    fn op(&mut self) -> Option<Op> {
        Some(match self.byte()? % 40 {
            0..=5 => Op::Set { key: self.key()?, value: self.value()?, attributes: self.attributes()? },
            6 | 7 => Op::Add { key: self.key()?, value: self.value()?, attributes: self.attributes()? },
            8 => Op::Replace { key: self.key()?, value: self.value()?, attributes: self.attributes()? },
            9 => Op::Append { key: self.key()?, value: self.value()? },
            10 => Op::Prepend { key: self.key()?, value: self.value()? },
            11 | 12 => Op::CompareAndSwap {
                key: self.key()?,
                versions_back: u64::from(self.byte()? % 2),
                value: self.value()?,
                attributes: self.attributes()?,
            },
            13 => Op::Delete { key: self.key()? },
            14 | 15 => Op::Touch { key: self.key()?, expiry: self.expiry()? },
            16 | 17 => {
                let (key, step) = (self.key()?, self.byte()?);
                let delta = if step >= 250 { u64::MAX - 3 } else { u64::from(step >> 1) };
                Op::Count { key, is_up: step % 2 == 0, delta }
            }
            18..=21 => Op::Get { key: self.key()? },
            22 => {
                let len = self.byte()? % 40;
                Op::GetMany { keys: (0..len).map(|_| self.key()).collect::<Option<_>>()? }
            }
            23 | 24 => {
                let (first, count, value) = (self.pair()?, self.byte()?, self.value()?);
                let count_max = FILL_BYTES_MAX / value.len().max(1);
                let count = count_max.min(usize::from(count) * 4) as u16;
                Op::Fill { first: first % KEYS, count, value }
            }
            25 => Op::Empty { first: self.pair()? % KEYS, count: u16::from(self.byte()?) * 4 },
            26 => Op::Flush,
            27 => Op::FlushAt { at: self.expiry()? },
            28 => Op::Resize { bytes: MIB - 4096 + usize::from(self.byte()?) * 16_384 },
            29..=31 => Op::Advance { by_ms: u64::from(self.byte()? % 64) },
            32 | 33 => Op::Begin {
                key: self.key()?,
                len: usize::from(self.byte()?) * 144,
                attributes: self.attributes()?,
            },
            34 | 35 => Op::Write { which: self.place()?, bytes: usize::from(self.byte()?) * 200 },
            36 | 37 => Op::Finish { which: self.place()?, way: self.byte()? % 4 },
            38 => Op::Pin { key: self.key()? },
            _ => Op::Unpin { which: self.place()? },
        })
    }
}

/// What was stored last under a key.
struct Expected {
    value: Vec<u8>,
    flags: u32,
    version: Version,
    /// 0 is never.
    expires_at_ms: u64,
}

struct Model {
    cache: Cache,
    clock: Arc<ManualClock>,
    evicts: bool,
    /// What the cache may hold.
    items: BTreeMap<u16, Expected>,
    /// When the next flush is due; 0 is never.
    flush_at_ms: u64,
    versions: Versions,
    /// Counts the values made.
    nonce: u64,
    coming: Vec<Coming>,
    /// What each was when it was pinned.
    pinned: Vec<(PinnedValue, Vec<u8>)>,
}

fn key_of(key: u16) -> Vec<u8> {
    let padding = if key.is_multiple_of(11) { 900 } else { usize::from(key % 5) * 9 };
    [&key.to_le_bytes()[..], &vec![b'k'; padding]].concat()
}

/// What versions were given (rule 3).
#[derive(Default)]
struct Versions {
    in_order: bool,
    last: Version,
    of_keys: BTreeMap<u16, Version>,
    given: BTreeSet<Version>,
}

impl Versions {
    fn was_given(&mut self, key: u16, version: Version) {
        assert!(self.given.insert(version), "key {key}: {version:?} was given before");
        let before =
            if self.in_order { self.last } else { self.of_keys.get(&key).copied().unwrap_or_default() };
        assert!(version > before, "key {key}: {version:?} after {before:?}");
        self.of_keys.insert(key, version);
        self.last = version;
    }
}

impl Model {
    const BEGIN_MS: u64 = 1_000;

    fn new(settings: u8) -> Model {
        let clock = Arc::new(ManualClock::new(Model::BEGIN_MS));
        let shards = 1 << (settings & 3).min(2);
        let evicts = settings & 0x1c != 0x1c;
        let mut config = Config::new()
            .memory_bytes_max(shards * MIB)
            .item_bytes_max(ITEM_BYTES_MAX)
            .shards(shards)
            .evict(evicts)
            .eviction(if settings & 0x20 == 0 { Eviction::Lru } else { Eviction::S3Fifo })
            .clock(clock.clone())
            .hash_seed(7);
        let in_group = settings & 0xc0 == 0xc0;
        let in_order = in_group || settings & 0xc0 == 0x80;
        config = config.versions_in_order(in_order);
        if in_group {
            let group = ReplicationConfig::primary().log_bytes_max(64 << 10).random_seed(7);
            config = config.replication(group);
        }
        let cache = Cache::new(config).expect("the settings are in range");
        // A cache is made with a megabyte a shard at least; so its shards compete for one.
        cache.resize(MIB).expect("a megabyte is enough");
        let versions = Versions { in_order, ..Versions::default() };
        Model { cache, clock, evicts, items: BTreeMap::new(), flush_at_ms: 0, versions, nonce: 0, coming: Vec::new(), pinned: Vec::new() }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Flush | Op::FlushAt { .. } | Op::Resize { .. } | Op::Advance { .. } => {}
            _ => self.settle_flush(),
        }
        match *op {
            Op::Set { key, value, attributes } => self.set(key, value, attributes),
            Op::Add { key, value, attributes } => self.add(key, value, attributes),
            Op::Replace { key, value, attributes } => self.replace(key, value, attributes),
            Op::Append { key, value } => self.extend(key, value, false),
            Op::Prepend { key, value } => self.extend(key, value, true),
            Op::CompareAndSwap { key, versions_back, value, attributes } => {
                self.compare_and_swap(key, versions_back, value, attributes);
            }
            Op::Delete { key } => self.delete(key),
            Op::Touch { key, expiry } => self.touch(key, expiry),
            Op::Count { key, is_up, delta } => self.count(key, is_up, delta),
            Op::Get { key } => self.get(key),
            Op::GetMany { ref keys } => {
                let names: Vec<_> = keys.iter().map(|key| key_of(*key)).collect();
                let read = self.cache.get_many(&names).expect("the keys are in range");
                assert_eq!(read.len(), keys.len());
                keys.iter().zip(read).for_each(|(key, item)| self.was_read(*key, item));
            }
            Op::Fill { first, count, value } => {
                let keys = (first..first + count).map(|key| key % KEYS);
                keys.for_each(|key| self.set(key, value, Attributes::default()));
            }
            Op::Empty { first, count } => {
                (first..first + count).map(|key| key % KEYS).for_each(|key| self.delete(key));
            }
            Op::Flush => {
                self.cache.flush().expect("a primary flushes");
                self.items.clear();
                self.flush_at_ms = 0;
            }
            Op::FlushAt { at } => {
                // An appointment whose moment has come can't be cancelled any more.
                self.settle_flush();
                self.cache.flush_at(at).expect("a primary makes appointments");
                self.flush_at_ms = self.deadline_ms(at);
            }
            Op::Resize { bytes } => {
                let is_done = self.cache.resize(bytes).is_ok();
                assert!(!is_done || bytes >= MIB, "{bytes} bytes are too few");
            }
            Op::Advance { by_ms } => self.clock.advance_ms(by_ms),
            Op::Begin { key, len, attributes } if self.coming.len() < PIECES_MAX => {
                let value = self.make(Value::Bytes { len });
                let writer = self.cache.begin_value(key_of(key), len, attributes);
                self.coming.push(Coming { key, attributes, value, written: 0, writer });
            }
            Op::Write { which, bytes } if which < self.coming.len() => self.write(which, bytes),
            Op::Finish { which, way } if which < self.coming.len() => self.finish(which, way),
            Op::Pin { key } if self.pinned.len() < PIECES_MAX => self.pin(key),
            Op::Unpin { which } if which < self.pinned.len() => drop(self.pinned.swap_remove(which)),
            Op::Begin { .. } | Op::Write { .. } | Op::Finish { .. } | Op::Pin { .. } | Op::Unpin { .. } => {}
        }
    }

    fn write(&mut self, which: usize, bytes: usize) {
        let Coming { value, written, writer, .. } = &mut self.coming[which];
        let end = value.len().min(*written + bytes);
        // Why it is refused is said again when it is stored.
        let _ = writer.write(&value[*written..end]);
        *written = end;
        assert_eq!(writer.missing_bytes(), value.len() - end);
    }

    fn finish(&mut self, which: usize, way: u8) {
        let Coming { key, attributes, value, written, writer } = self.coming.swap_remove(which);
        let stored = match way {
            0 => writer.set().map(Some),
            1 => writer.add(),
            2 => writer.replace(),
            _ => return,
        };
        match (stored, way) {
            (Ok(Some(version)), _) => {
                assert_eq!(written, value.len(), "a part was stored");
                match way {
                    1 => self.was_missing(key),
                    2 => drop(self.present(key)),
                    _ => {}
                }
                self.was_stored(key, value, attributes, version);
            }
            (Ok(None), 1) => drop(self.present(key)),
            (Ok(None), _) => self.was_missing(key),
            // Values that are unfinished together may be too many for the memory.
            (Err(WriteError::ValueLength { .. }), _) => assert!(written < value.len(), "a whole one was refused"),
            (Err(WriteError::OutOfMemory { .. }), 0) => drop(self.items.remove(&key)),
            (Err(WriteError::OutOfMemory { .. }), _) => {}
            (Err(other), _) => {
                self.may_be_refused(&other, key, value.len());
                if way == 0 {
                    self.items.remove(&key);
                }
            }
        }
    }

    /// What is read later is what it was.
    fn pin(&mut self, key: u16) {
        let read = self.cache.read(key_of(key), |item| item.value.pin()).expect("the key is in range");
        match read {
            Some(Some(pinned)) => {
                let value = self.present(key).value.clone();
                self.pinned.push((pinned, value));
            }
            Some(None) => drop(self.present(key)),
            None => self.was_missing(key),
        }
    }

    fn set(&mut self, key: u16, value: Value, attributes: Attributes) {
        let value = self.make(value);
        let stored = self.cache.set(key_of(key), &value, attributes);
        match stored {
            Ok(version) => self.was_stored(key, value, attributes, version),
            Err(refused) => {
                self.may_be_refused(&refused, key, value.len());
                // Rule L5: a set that fails leaves nothing stale.
                self.items.remove(&key);
            }
        }
    }

    fn add(&mut self, key: u16, value: Value, attributes: Attributes) {
        let value = self.make(value);
        match self.cache.add(key_of(key), &value, attributes) {
            Ok(Some(version)) => {
                self.was_missing(key);
                self.was_stored(key, value, attributes, version);
            }
            Ok(None) => drop(self.present(key)),
            Err(refused) => self.may_be_refused(&refused, key, value.len()),
        }
    }

    fn replace(&mut self, key: u16, value: Value, attributes: Attributes) {
        let value = self.make(value);
        match self.cache.replace(key_of(key), &value, attributes) {
            Ok(Some(version)) => {
                self.present(key);
                self.was_stored(key, value, attributes, version);
            }
            Ok(None) => self.was_missing(key),
            Err(refused) => self.may_be_refused(&refused, key, value.len()),
        }
    }

    fn extend(&mut self, key: u16, value: Value, is_before: bool) {
        let added = self.make(value);
        let done = match is_before {
            true => self.cache.prepend(key_of(key), &added),
            false => self.cache.append(key_of(key), &added),
        };
        match done {
            Ok(Some(version)) => {
                let old = self.present(key);
                let parts = if is_before { [&added, &old.value] } else { [&old.value, &added] };
                old.value = parts.map(Vec::as_slice).concat();
                self.was_changed(key, version);
            }
            Ok(None) => self.was_missing(key),
            Err(refused) => {
                let len = added.len() + self.items.get(&key).map_or(0, |old| old.value.len());
                self.may_be_refused(&refused, key, len);
            }
        }
    }

    fn compare_and_swap(&mut self, key: u16, versions_back: u64, value: Value, attributes: Attributes) {
        let value = self.make(value);
        let version = self.items.get(&key).map_or(self.versions.last, |item| item.version);
        let expected = Version(version.0.saturating_sub(versions_back));
        match self.cache.compare_and_swap(key_of(key), expected, &value, attributes) {
            Ok(Swap::Stored(version)) => {
                assert_eq!(self.present(key).version, expected, "swapped another version");
                self.was_stored(key, value, attributes, version);
            }
            Ok(Swap::Exists) => assert_ne!(self.present(key).version, expected, "refused the right version"),
            Ok(Swap::NotFound) => self.was_missing(key),
            Err(refused) => self.may_be_refused(&refused, key, value.len()),
        }
    }

    fn delete(&mut self, key: u16) {
        match self.cache.delete(key_of(key)).expect("a deletion needs no memory") {
            true => drop(self.present(key)),
            false => self.was_missing(key),
        }
        self.items.remove(&key);
    }

    fn touch(&mut self, key: u16, expiry: Expiry) {
        let expires_at_ms = self.deadline_ms(expiry);
        match self.cache.touch(key_of(key), expiry) {
            Ok(true) => self.present(key).expires_at_ms = expires_at_ms,
            Ok(false) => self.was_missing(key),
            // The item may need more room for an expiry.
            Err(refused) => self.may_be_refused(&refused, key, 0),
        }
    }

    fn count(&mut self, key: u16, is_up: bool, delta: u64) {
        let counted = match is_up {
            true => self.cache.incr(key_of(key), delta),
            false => self.cache.decr(key_of(key), delta),
        };
        match counted {
            Ok(Some(number)) => {
                let old = self.present(key);
                let before = parse(&old.value).expect("counted what is no number");
                let after = if is_up { before.wrapping_add(delta) } else { before.saturating_sub(delta) };
                assert_eq!(number, after, "{before} counted by {delta}");
                let mut text = number.to_string().into_bytes();
                text.resize(text.len().max(old.value.len()), b' ');
                old.value = text;
                // A counter does not say its version: it is what a read says, and above all before.
                let read = self.cache.get(key_of(key)).expect("the key is in range");
                match &read {
                    Some(item) => self.was_changed(key, item.version),
                    None => assert!(self.evicts, "a counter left"),
                }
                self.was_read(key, read);
            }
            Ok(None) => self.was_missing(key),
            Err(CounterError::NotANumber) => {
                let value = &self.present(key).value;
                assert!(parse(value).is_none() || value.len() > PIECE_BYTES_MIN, "refused a number");
            }
            Err(CounterError::Write(refused)) => self.may_be_refused(&refused, key, 20),
            Err(other) => panic!("{other}"),
        }
    }

    fn get(&mut self, key: u16) {
        self.settle_flush();
        let read = self.cache.get(key_of(key)).expect("the key is in range");
        self.was_read(key, read);
    }

    fn was_read(&mut self, key: u16, read: Option<Item>) {
        let Some(item) = read else { return self.was_missing(key) };
        let expected = self.present(key);
        assert!(item.value == expected.value, "key {key}: another value");
        assert_eq!(
            (item.flags, item.version, item.expires_at_ms.unwrap_or(0)),
            (expected.flags, expected.version, expected.expires_at_ms),
            "key {key}: flags, version, expiry"
        );
    }

    /// The cache says that the key is absent: then it stays so until it is stored again.
    fn was_missing(&mut self, key: u16) {
        let is_live = self.is_live(key);
        assert!(self.evicts || !is_live, "key {key} left though eviction is off");
        self.items.remove(&key);
    }

    /// The cache says that the key is present.
    fn present(&mut self, key: u16) -> &mut Expected {
        assert!(self.is_live(key), "key {key} should be absent");
        self.items.get_mut(&key).expect("it is live")
    }

    fn is_live(&self, key: u16) -> bool {
        let now_ms = self.clock.now_ms();
        self.items.get(&key).is_some_and(|item| item.expires_at_ms == 0 || item.expires_at_ms > now_ms)
    }

    fn was_stored(&mut self, key: u16, value: Vec<u8>, attributes: Attributes, version: Version) {
        let expires_at_ms = self.deadline_ms(attributes.expiry);
        self.items.insert(key, Expected { value, flags: attributes.flags, version, expires_at_ms });
        self.was_changed(key, version);
    }

    fn was_changed(&mut self, key: u16, version: Version) {
        self.versions.was_given(key, version);
        self.items.get_mut(&key).expect("what was changed is there").version = version;
    }

    /// Whether there is a reason for an error.
    fn may_be_refused(&self, refused: &WriteError, key: u16, value_bytes: usize) {
        let bytes = value_bytes + key_of(key).len();
        match refused {
            WriteError::ItemTooLarge { .. } => {
                assert!(bytes + HEADER_BYTES_MAX > ITEM_BYTES_MAX, "{refused}")
            }
            WriteError::OutOfMemory { .. } => {
                let is_held = !self.coming.is_empty() || !self.pinned.is_empty();
                assert!(!self.evicts || is_held, "{refused}");
            }
            other => panic!("{other}"),
        }
    }

    fn make(&mut self, value: Value) -> Vec<u8> {
        self.nonce += 1;
        value.bytes(self.nonce)
    }

    fn deadline_ms(&self, expiry: Expiry) -> u64 {
        match expiry {
            Expiry::Never => 0,
            Expiry::After(lifetime) => self.clock.now_ms() + lifetime.as_millis() as u64,
            Expiry::At(moment_ms) => moment_ms,
        }
    }

    fn settle_flush(&mut self) {
        if self.flush_at_ms != 0 && self.flush_at_ms <= self.clock.now_ms() {
            self.flush_at_ms = 0;
            self.items.clear();
        }
    }

    fn check(&self) {
        self.cache.check_invariants();
        let stats = self.cache.stats();
        let is_held = !self.coming.is_empty() || !self.pinned.is_empty();
        assert!(!self.evicts || is_held || stats.memory_bytes <= stats.memory_bytes_max, "{stats:?}");
        for (pinned, value) in &self.pinned {
            assert_eq!(pinned.len(), value.len());
            let mut rest = &value[..];
            let is_next = |piece: &[u8]| rest.split_off(..piece.len()).is_some_and(|found| found == piece);
            assert!(pinned.pieces_from(0).all(is_next) && rest.is_empty(), "a pinned value changed");
        }
    }
}

/// Rules A3 and Z1: spaces, digits, then the end or a space.
fn parse(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let ends_well = text.get(end).is_none_or(u8::is_ascii_whitespace);
    if ends_well { std::str::from_utf8(&text[..end]).ok()?.parse().ok() } else { None }
}
