//! Plain sets: one that came alone, or several in a row.
//!
//! Lives here: what they do and what is answered, with what can be done once for several done once. Not here: which sets are plain (see
//! `hotspare_memcached::classic::plain_set`), any other store (see `commands`).

use hotspare::{Attributes, Put, SetBatch, WriteError};
use hotspare_memcached::classic::{Response, Store};

use super::commands::{Executor, answer, store_status};
use super::observers::SeenStore;
use super::requests::Command;

/// The class of the set before, and of what shape that was.
struct KnownClass {
    shape: (usize, usize, Attributes),
    class: usize,
}

impl Executor<'_> {
    /// What is stored by a set.
    #[inline]
    pub(crate) fn put_of<'a>(&self, store: &Store<'a>) -> Put<'a> {
        Put { key: store.key, value: store.data, attributes: self.attributes_of(store) }
    }

    /// Carries out a set, and answers it.
    pub(crate) fn set(&self, put: &Put<'_>, noreply: bool, out: &mut Vec<u8>) {
        self.counters.requests.count(Command::Set);
        match self.shared.cache.set(put.key, put.value, put.attributes) {
            Ok(_) => self.note_set(put, noreply, &mut None, out),
            Err(error) => self.note_failed_set(put, noreply, error, out),
        }
    }

    /// Carries out sets and answers them, until the output is full; gives how many.
    pub(crate) fn set_each(
        &self,
        batch: &SetBatch<'_, '_>,
        is_noreply: impl Fn(usize) -> bool,
        output_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let (mut done, mut class) = (0, None);
        batch.store(|at, put, stored| {
            match stored {
                Ok(_) => self.note_set(put, is_noreply(at), &mut class, out),
                Err(error) => self.note_failed_set(put, is_noreply(at), error, out),
            }
            done = at + 1;
            self.goes_on(out, output_bytes_max)
        });
        self.counters.requests.count_several(Command::Set, done);
        done
    }

    /// Counts a set that was carried out, shows it to whoever looks on, and answers.
    #[inline]
    fn note_set(&self, put: &Put<'_>, noreply: bool, known: &mut Option<KnownClass>, out: &mut Vec<u8>) {
        let Put { key, value, attributes } = *put;
        let shape = (key.len(), value.len(), attributes);
        let class = match known {
            Some(known) if known.shape == shape => known.class,
            _ => {
                let class = self.shared.cache.class_of(key.len(), value.len(), attributes);
                known.insert(KnownClass { shape, class }).class
            }
        };
        self.counters.class(class).cmd_set.add(1);
        let (command, status) = ("set", "stored");
        self.saw_store(key, SeenStore { command, status, value_bytes: value.len(), attributes });
        if !noreply {
            Response::Stored.encode(out);
        }
    }

    #[cold]
    fn note_failed_set(&self, put: &Put<'_>, noreply: bool, error: WriteError, out: &mut Vec<u8>) {
        let outcome = Err(error);
        let (command, status) = ("set", store_status(&outcome));
        let Put { key, value, attributes } = *put;
        self.saw_store(key, SeenStore { command, status, value_bytes: value.len(), attributes });
        answer(out, noreply, outcome);
    }
}
