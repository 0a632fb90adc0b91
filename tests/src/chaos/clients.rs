//! The clients: writers that follow each promotion, readers, and one that goes on talking to the old primary.
//!
//! Lives here: what each of them asks, and how it writes down what it was told. Not here: what may be told (see `judge`).

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::connection::{self, Connection, Got, Written};
use super::directory::{Directory, Seat, Traffic};
use super::history::{Clock, Found, Journal, Key, Kind, Moment, Outcome, Place, Read, Write};
use super::history::{counter_in, name_of, value_of};
use crate::wait;

/// Clients that write, and then check what they wrote.
pub(super) const WRITERS: usize = 4;
/// Clients that only read.
const READERS: usize = 2;
/// All clients; the last one talks to the old primary.
pub(super) const CLIENTS: usize = WRITERS + READERS + 1;
/// Keys of each client that writes.
pub(super) const KEYS_EACH: usize = 64;
/// Keys that are written under load.
pub(super) const KEYS: usize = (WRITERS + 1) * KEYS_EACH;
/// How long a client waits for any step.
const PATIENCE: Duration = Duration::from_millis(300);
/// The most requests that are sent at once.
const BATCH_MAX: usize = 8;
/// How long a client thinks between two batches, at most.
const THINK_MAX_US: u64 = 2_000;
/// How long it waits when a node refuses, or nobody is there.
const REFUSED: Duration = Duration::from_millis(5);

/// What the clients leave for the judge while they rest.
pub(super) type Ledger = Arc<Mutex<Vec<Journal>>>;

/// Whom a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The primary; writes.
    Writer(usize),
    /// The primary; reads.
    Reader,
    /// Whoever was primary before; writes and reads.
    Obstinate,
}

struct Client {
    part: Part,
    directory: Arc<Directory>,
    clock: Clock,
    random: StdRng,
    seat: Option<Seat>,
    connection: Option<Connection>,
    /// Of its own keys, how often each was written.
    counters: Vec<u32>,
    /// How many of its keys it has still to read on a new primary before it writes there.
    to_check: usize,
    /// The newest version that it was told.
    seen: u64,
    /// Deletes whose upper bound is not known yet.
    open_deletes: Vec<usize>,
    journal: Journal,
}

/// Starts all of them; they rest until traffic flows.
pub(super) fn start(
    directory: &Arc<Directory>,
    clock: Clock,
    seed: u64,
    ledger: &Ledger,
) -> Vec<JoinHandle<()>> {
    let writers = (0..WRITERS).map(Part::Writer);
    let parts = writers.chain([Part::Reader; READERS]).chain([Part::Obstinate]);
    parts
        .enumerate()
        .map(|(number, part)| {
            let mut client = Client {
                part,
                directory: Arc::clone(directory),
                clock,
                random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
                seat: None,
                connection: None,
                counters: vec![0; KEYS_EACH],
                to_check: 0,
                seen: 0,
                open_deletes: Vec::new(),
                journal: Journal::default(),
            };
            let ledger = Arc::clone(ledger);
            thread::spawn(move || client.run(&ledger))
        })
        .collect()
}

impl Client {
    fn run(&mut self, ledger: &Ledger) {
        loop {
            match self.directory.traffic() {
                Traffic::Ends => return,
                Traffic::Rests => {
                    self.open_deletes.clear();
                    ledger.lock().expect("no panic while held").push(std::mem::take(&mut self.journal));
                    self.directory.nap();
                }
                Traffic::Flows => {
                    if !self.turn() {
                        wait::pause(REFUSED);
                    }
                    wait::pause(Duration::from_micros(self.random.random_range(0..=THINK_MAX_US)));
                }
            }
        }
    }

    /// One batch; whether anybody answered it.
    fn turn(&mut self) -> bool {
        // Taken before the directory is read: what was acknowledged by then was so by this reign, or an earlier one.
        let began = self.clock.now();
        if !self.take_seat() {
            return false;
        }
        let answered = match self.part {
            Part::Writer(_) if self.to_check > 0 => self.check(began),
            Part::Writer(_) => self.write(began),
            Part::Reader => self.read(began),
            Part::Obstinate if self.random.random() => self.write(began),
            Part::Obstinate => self.read(began),
        };
        if answered.is_err() {
            self.connection = None;
        }
        answered.unwrap_or(false)
    }

    /// Goes to whom it should ask; whether it has a connection.
    fn take_seat(&mut self) -> bool {
        let seat = match self.part {
            Part::Obstinate => self.directory.previous(),
            _ => self.directory.primary(),
        };
        if self.seat.map(|seat| seat.reign) != seat.map(|seat| seat.reign) {
            self.connection = None;
            self.to_check = KEYS_EACH;
        }
        self.seat = seat;
        let Some(seat) = seat else { return false };
        if self.connection.is_none() {
            self.connection = Connection::open(seat.address, PATIENCE).ok();
        }
        self.connection.is_some()
    }

    /// Where an answer that has just come is from. If another reigns by now the node may have become anything meanwhile,
    /// also a new process at the same address.
    fn place(&self, seat: Seat) -> Place {
        match self.part {
            Part::Writer(_) | Part::Reader if self.directory.primary() == Some(seat) => {
                Place::Primary(seat.reign)
            }
            _ => Place::Node(seat.node),
        }
    }

    /// The first of its own keys.
    fn own(&self) -> Key {
        match self.part {
            Part::Writer(number) => number * KEYS_EACH,
            _ => WRITERS * KEYS_EACH,
        }
    }

    /// Reads some of its own keys on a primary that is new to it.
    fn check(&mut self, began: Moment) -> io::Result<bool> {
        let last = self.own() + self.to_check;
        let first = last - self.to_check.min(2 * BATCH_MAX);
        let answered = self.ask_for(&(first..last).collect::<Vec<_>>(), began)?;
        if answered {
            self.to_check = first - self.own();
        }
        Ok(answered)
    }

    fn read(&mut self, began: Moment) -> io::Result<bool> {
        let count = self.random.random_range(1..=BATCH_MAX);
        let keys: Vec<Key> = (0..count).map(|_| self.random.random_range(0..KEYS)).collect();
        self.ask_for(&keys, began)
    }

    /// Reads keys and notes what is found; whether the node answered all of them.
    fn ask_for(&mut self, keys: &[Key], began: Moment) -> io::Result<bool> {
        let (Some(seat), Some(connection)) = (self.seat, self.connection.as_mut()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let found = read_all(connection, keys)?;
        let ended = self.clock.now();
        let place = self.place(seat);
        let mut answered = matches!(place, Place::Primary(_)) || self.part == Part::Obstinate;
        for (&key, got) in keys.iter().zip(found) {
            match found_in(key, got) {
                Ok(Some(found)) => self.journal.reads.push(Read { key, began, ended, found, place }),
                Ok(None) => answered = false,
                Err(strange) => self.journal.strange.push(strange),
            }
        }
        Ok(answered)
    }

    /// Writes a batch; whether nothing was refused.
    fn write(&mut self, began: Moment) -> io::Result<bool> {
        let (mut bytes, mut writes) = (Vec::new(), Vec::new());
        for _ in 0..self.random.random_range(1..=BATCH_MAX) {
            writes.push(self.next_write(&mut bytes, began));
        }
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut failed = connection.send(&bytes).err();
        let mut answered = true;
        for mut write in writes {
            if failed.is_none() {
                let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                match connection.written() {
                    Ok(answer) => answered &= self.note(&mut write, answer),
                    Err(why) => failed = Some(why),
                }
            }
            self.journal.writes.push(write);
        }
        failed.map_or(Ok(answered), Err)
    }

    /// The next write, of which nothing is known yet; its request goes to `bytes`.
    fn next_write(&mut self, bytes: &mut Vec<u8>, began: Moment) -> Write {
        let own = self.random.random_range(0..KEYS_EACH);
        let key = self.own() + own;
        self.counters[own] += 1;
        let counter = self.counters[own];
        // Sets tell their versions; who talks to an old primary says nothing that would have to be told by others.
        let deletes = self.part != Part::Obstinate && self.random.random_ratio(1, 8);
        let kind = if deletes { Kind::Delete } else { Kind::Set };
        match kind {
            Kind::Set => connection::set(bytes, &name_of(key), &value_of(key, counter)),
            Kind::Delete => connection::delete(bytes, &name_of(key)),
        }
        Write {
            key,
            counter,
            kind,
            outcome: Outcome::Unknown,
            began,
            ended: Moment::MAX,
            version: 0,
            above: 0,
            below: 0,
            reign: self.seat.map_or(0, |seat| seat.reign),
        }
    }

    /// Notes an answer; whether it was done.
    fn note(&mut self, write: &mut Write, answer: Written) -> bool {
        write.ended = self.clock.now();
        write.above = self.seen;
        match answer {
            Written::Done(version) if (version == 0) == (write.kind == Kind::Delete) => {
                write.outcome = Outcome::Acknowledged;
                write.version = version;
                match write.kind {
                    Kind::Delete => self.open_deletes.push(self.journal.writes.len()),
                    Kind::Set => self.bound_deletes(version),
                }
                true
            }
            Written::Refused => {
                write.outcome = Outcome::Refused;
                false
            }
            Written::Unknown => false,
            Written::Done(_) => {
                self.journal.strange.push("a version where none belongs, or none where one does".to_owned());
                false
            }
            Written::Strange(text) => {
                self.journal.strange.push(text);
                false
            }
        }
    }

    /// What this client was told now is newer than each of its deletes before.
    fn bound_deletes(&mut self, version: u64) {
        self.seen = version;
        for index in self.open_deletes.drain(..) {
            self.journal.writes[index].below = version;
        }
    }
}

/// Reads keys over a connection, all at once.
pub(super) fn read_all(connection: &mut Connection, keys: &[Key]) -> io::Result<Vec<Got>> {
    let mut bytes = Vec::new();
    keys.iter().for_each(|key| connection::get(&mut bytes, &name_of(*key)));
    connection.send(&bytes)?;
    keys.iter().map(|_| connection.got()).collect()
}

/// What an answer says of a key; `None` if the node answers no reads.
pub(super) fn found_in(key: Key, got: Got) -> Result<Option<Found>, String> {
    Ok(Some(match got {
        Got::Value(value, version) => match counter_in(key, &value) {
            Some(counter) => Found::Value { counter, version },
            None => Found::Wrong(String::from_utf8_lossy(&value).chars().take(60).collect()),
        },
        Got::Miss => Found::Miss,
        Got::Refused => return Ok(None),
        Got::Strange(text) => return Err(text),
    }))
}
