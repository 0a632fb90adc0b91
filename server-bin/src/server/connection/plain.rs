//! Plain requests of one kind in a row: taken apart together, and executed as one operation on all of their keys.
//!
//! Lives here: gets of one key, sets and `mg`. Not here: what is not as plain as that, or comes otherwise (see `batch`), what is
//! done with them (see `commands`, `sets`, `meta`).

use hotspare_memcached::classic::{Limits, plain_get, plain_set};
use hotspare_memcached::meta;

use super::{Connection, UNSENT_BYTES_MAX};
use crate::server::commands::{AHEAD_MAX, Executor};
use crate::server::meta::PlainGet;
use crate::settings::Protocol;

impl Connection {
    /// Executes the plain requests of one kind that the input begins with, as one operation; false if there are none, or none could be
    /// executed so.
    pub(super) fn execute_plainly(&mut self, input: &[u8], executor: &mut Executor<'_>) -> bool {
        let is_plain = self.stopwatch.is_none() && self.gate.is_open() && self.progress.is_at_start();
        if !is_plain || self.protocol != Protocol::Ascii {
            return false;
        }
        let (done, bytes) = match input {
            [b'g', ..] => self.execute_gets(input, executor),
            [b's', ..] => self.execute_sets(input, executor),
            [b'm', ..] => self.execute_meta_gets(input, executor),
            _ => return false,
        };
        if done == 0 {
            return false;
        }
        self.parsed += bytes;
        self.bytes_needed = 1;
        self.requests_done += done as u64;
        true
    }

    /// How many were executed, and the bytes that these take.
    fn execute_gets(&mut self, input: &[u8], executor: &Executor<'_>) -> (usize, usize) {
        let gets = Gets::read(input, &self.limits);
        if gets.keys().len() < 2 {
            return (0, 0);
        }
        let answered = executor.get_each(gets.keys(), self.sent + UNSENT_BYTES_MAX, &mut self.output);
        (answered, gets.bytes(answered))
    }

    /// As [`Connection::execute_gets`]. Each is fetched ahead while those behind it are taken apart.
    fn execute_sets(&mut self, input: &[u8], executor: &Executor<'_>) -> (usize, usize) {
        let Some((first, bytes)) = plain_set(input, &self.limits) else { return (0, 0) };
        let put = executor.put_of(&first);
        if bytes == input.len() {
            executor.set(&put, first.noreply, &mut self.output);
            return (1, bytes);
        }
        let mut batch = executor.shared.cache.set_batch();
        let mut replies = Replies { noreplies: u16::from(first.noreply), ends: [bytes; AHEAD_MAX], len: 1 };
        batch.push(put);
        while replies.len < AHEAD_MAX
            && let at = replies.ends[replies.len - 1]
            && let Some((store, bytes)) = plain_set(&input[at..], &self.limits)
            && batch.push(executor.put_of(&store))
        {
            replies.noreplies |= u16::from(store.noreply) << replies.len;
            replies.ends[replies.len] = at + bytes;
            replies.len += 1;
        }
        let is_noreply = |at| replies.noreplies >> at & 1 != 0;
        let output_bytes_max = self.sent + UNSENT_BYTES_MAX;
        let done = executor.set_each(&batch, is_noreply, output_bytes_max, &mut self.output);
        (done, replies.ends[done - 1])
    }

    /// As [`Connection::execute_gets`].
    fn execute_meta_gets(&mut self, input: &[u8], executor: &Executor<'_>) -> (usize, usize) {
        let Some((target, bytes)) = meta::plain_get(input, &self.limits) else { return (0, 0) };
        if bytes == input.len() {
            return (0, 0);
        }
        let mut gets = [PlainGet(target); AHEAD_MAX];
        let (mut ends, mut len) = ([bytes; AHEAD_MAX], 1);
        while len < AHEAD_MAX
            && let at = ends[len - 1]
            && let Some((target, bytes)) = meta::plain_get(&input[at..], &self.limits)
        {
            (gets[len], ends[len]) = (PlainGet(target), at + bytes);
            len += 1;
        }
        let answered = executor.meta_get_each(&gets[..len], self.sent + UNSENT_BYTES_MAX, &mut self.output);
        (answered, answered.checked_sub(1).map_or(0, |last| ends[last]))
    }
}

/// Where sets in a row end, and which of them are answered.
struct Replies {
    /// A bit for each set that is not to be answered.
    noreplies: u16,
    /// Where each ends.
    ends: [usize; AHEAD_MAX],
    len: usize,
}

const _: () = assert!(AHEAD_MAX <= u16::BITS as usize);

/// The keys of gets in a row, of one key each.
#[derive(Debug)]
struct Gets<'a> {
    keys: [&'a [u8]; AHEAD_MAX],
    len: usize,
}

impl<'a> Gets<'a> {
    /// Those that the input begins with.
    #[inline]
    fn read(mut input: &'a [u8], limits: &Limits) -> Gets<'a> {
        let mut gets = Gets { keys: [&[]; AHEAD_MAX], len: 0 };
        while gets.len < AHEAD_MAX
            && let Some((key, bytes)) = plain_get(input, limits)
        {
            gets.keys[gets.len] = key;
            gets.len += 1;
            input = &input[bytes..];
        }
        gets
    }

    fn keys(&self) -> &[&'a [u8]] {
        &self.keys[..self.len]
    }

    /// The bytes that the first so many gets take.
    fn bytes(&self, gets: usize) -> usize {
        self.keys[..gets].iter().map(|key| b"get ".len() + key.len() + b"\r\n".len()).sum()
    }
}
