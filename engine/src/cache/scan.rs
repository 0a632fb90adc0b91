//! Going through all items: by a cursor that outlives anything, and an iterator over it.
//!
//! Lives here: the cursor, the iterator, removing by a condition. Not here: the order of a scan (see `storage::scan`).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::{ReadError, WriteError};
use crate::mutation::Version;
use crate::storage::{ItemId, Shard};

use super::{Cache, Inner, Item, ItemDetails, ItemRef, ItemState, is_inside_read};

/// How many items are copied, or looked at, while one shard is locked.
const BATCH_ITEMS: usize = 64;
const BATCH_LOOKS: usize = 512;
/// After so many bytes of items a batch ends.
const BATCH_BYTES: usize = 256 << 10;

/// Where a scan goes on: a number that may be kept, sent and used again later.
///
/// It stays good while items come and go and the cache grows. A cursor of a primary is good on its replicas too, if
/// they have as many shards, so a scan can go on after a fail-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cursor(
    /// `0` is the beginning; the rest is the cache's own.
    pub u64,
);

impl Cursor {
    /// Before the first item.
    pub const START: Cursor = Cursor(0);
}

/// What a cursor says.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    position: u32,
}

impl Place {
    /// 24 bits that tell the order of one scan from another's.
    fn check(inner: &Inner) -> u64 {
        let order = inner.hasher.seed() ^ (inner.shards.len() as u64) << 32;
        (order.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) | 1
    }

    fn of(inner: &Inner, cursor: Cursor) -> Result<Place, ReadError> {
        if cursor == Cursor::START {
            return Ok(Place { shard: 0, position: 0 });
        }
        let place = Place { shard: (cursor.0 >> 32 & 0xff) as usize, position: cursor.0 as u32 };
        if cursor.0 >> 40 != Place::check(inner) || place.shard >= inner.shards.len() {
            return Err(ReadError::ForeignCursor);
        }
        Ok(place)
    }

    fn cursor(self, inner: &Inner) -> Cursor {
        Cursor(Place::check(inner) << 40 | (self.shard as u64) << 32 | u64::from(self.position))
    }

    /// One line on; `None` behind the last shard.
    fn after(self, end: Option<u32>, inner: &Inner) -> Option<Place> {
        match end {
            Some(position) => Some(Place { position, ..self }),
            None if self.shard + 1 < inner.shards.len() => Some(Place { shard: self.shard + 1, position: 0 }),
            None => None,
        }
    }
}

impl Cache {
    /// Visits the next items from a cursor on, those whose key begins with `prefix` (an empty one is all), about
    /// `items_max` of them, and gives the cursor where to go on; `None` at the end. Nothing is kept between two calls.
    ///
    /// An item that is there from the first call to the last is visited exactly once; one that comes or goes
    /// meanwhile may be. Visiting is not reading: marks and statistics stay. The closure runs while a shard is locked;
    /// calling a cache inside it is refused with an error.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Cursor, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// for number in 0..1000 {
    ///     cache.set(format!("user:{number}"), "x", Expiry::Never)?;
    /// }
    /// let (mut next, mut count) = (Some(Cursor::START), 0);
    /// while let Some(cursor) = next {
    ///     next = cache.scan_from(cursor, "user:", 100, |_| count += 1)?;
    /// }
    /// assert_eq!(count, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The cursor is another cache's, or of the time before a full copy; this node does not answer reads; or the call
    /// came from inside a read.
    pub fn scan_from(
        &self,
        cursor: Cursor,
        prefix: impl AsRef<[u8]>,
        items_max: usize,
        mut visitor: impl FnMut(ItemRef<'_>),
    ) -> Result<Option<Cursor>, ReadError> {
        let mut place = Some(Place::of(&self.inner, cursor)?);
        let mut left = items_max;
        while let Some(here) = place
            && left > 0
        {
            let batch =
                self.inner.scan_batch(here, prefix.as_ref(), left, &mut |item, _, _| visitor(item))?;
            place = batch.next;
            left -= batch.items.min(left);
        }
        Ok(place.map(|place| place.cursor(&self.inner)))
    }

    /// One step of a scan with what the storage knows of each item, for those who look after a cache: it locks one
    /// shard once and looks at some hundred items at most, so it may visit none and still not be at the end. Visiting
    /// is as in [`Cache::scan_from`].
    ///
    /// # Errors
    /// As [`Cache::scan_from`].
    pub fn scan_details(
        &self,
        cursor: Cursor,
        mut visitor: impl FnMut(ItemRef<'_>, ItemDetails),
    ) -> Result<Option<Cursor>, ReadError> {
        let here = Place::of(&self.inner, cursor)?;
        let batch = self.inner.scan_batch(here, &[], BATCH_ITEMS, &mut |item, shard, id| {
            visitor(item, ItemDetails::of(shard, id));
        })?;
        Ok(batch.next.map(|place| place.cursor(&self.inner)))
    }

    /// All items whose key begins with `prefix`, copied out a few at a time, in no order that means anything.
    ///
    /// # Errors
    /// Each item may be an error instead, as in [`Cache::scan_from`]; it is the last then.
    pub fn scan(&self, prefix: impl AsRef<[u8]>) -> Entries {
        Entries {
            cache: self.clone(),
            prefix: prefix.as_ref().to_vec(),
            copied: VecDeque::new(),
            cursor: Cursor::START,
            next: Some(Cursor::START),
        }
    }

    /// All items, copied out a few at a time: [`Cache::scan`] with an empty prefix.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("a", "1", Expiry::Never)?;
    /// for entry in cache.iter() {
    ///     let (key, item) = entry?;
    ///     assert_eq!((&key[..], &item.value[..]), (&b"a"[..], &b"1"[..]));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Entries {
        self.scan([])
    }

    /// Removes every item for which `keep` is false, a few at a time while others go on; how many. An item that is
    /// stored anew in between stays.
    ///
    /// # Errors
    /// A step was refused; what was removed before stays removed.
    pub fn retain(&self, mut keep: impl FnMut(ItemRef<'_>) -> bool) -> Result<u64, WriteError> {
        let (mut next, mut removed) = (Some(Cursor::START), 0);
        while let Some(cursor) = next {
            let mut leaving: Vec<(Vec<u8>, Version)> = Vec::new();
            next = self.scan_from(cursor, [], BATCH_ITEMS, |item| {
                if !keep(item) {
                    leaving.push((item.key.to_vec(), item.version));
                }
            })?;
            for (key, version) in leaving {
                removed += u64::from(self.compare_and_delete(key, version)? == super::Deletion::Deleted);
            }
        }
        Ok(removed)
    }
}

/// What one lock of a shard has come to.
struct Batch {
    items: usize,
    next: Option<Place>,
}

impl Inner {
    fn scan_batch(
        &self,
        mut place: Place,
        prefix: &[u8],
        items_max: usize,
        visitor: &mut impl FnMut(ItemRef<'_>, &Shard, ItemId),
    ) -> Result<Batch, ReadError> {
        if is_inside_read() {
            return Err(ReadError::InsideRead);
        }
        self.settle_flush();
        let (mut items, mut looks, mut bytes) = (0, 0, 0);
        let cell = self.shards[place.shard].lock();
        if let Some(refused) = self.read_refusal() {
            drop(cell);
            return Err(refused);
        }
        let moment = self.moment();
        loop {
            let end = cell.shard.scan_line(place.position, |shard, id| {
                looks += 1;
                let (key, meta) = (shard.key(id), shard.meta(id));
                if !key.starts_with(prefix) || meta.marks.is_absence() || moment.is_dead(meta, || key) {
                    return;
                }
                let value = shard.value(id);
                items += 1;
                bytes += key.len() + value.len();
                let expires_at_ms = (meta.expires_at_ms != 0).then_some(meta.expires_at_ms);
                let (is_fetched, state) = (meta.marks.is_fetched(), ItemState::of(meta));
                let (flags, version) = (meta.flags, meta.version);
                let accessed_s = self.shown_access(shard.accessed_s(id));
                let item =
                    ItemRef { key, value, flags, version, expires_at_ms, is_fetched, accessed_s, state };
                super::read::run_reader(item, |item| visitor(item, shard, id));
            });
            let next = place.after(end, self);
            let is_full = items >= items_max.min(BATCH_ITEMS) || looks >= BATCH_LOOKS || bytes >= BATCH_BYTES;
            match next {
                Some(next) if next.shard == place.shard && !is_full => place = next,
                next => return Ok(Batch { items, next }),
            }
        }
    }
}

/// All items of a scan, one after the other; made by [`Cache::scan`] and [`Cache::iter`].
#[derive(Debug)]
pub struct Entries {
    cache: Cache,
    prefix: Vec<u8>,
    copied: VecDeque<(Bytes, Item)>,
    /// Where the copied ones were found.
    cursor: Cursor,
    next: Option<Cursor>,
}

impl Entries {
    /// Where a new scan can go on: it leaves nothing out, and may give again the last few that this one gave. `None`
    /// at the end.
    pub fn cursor(&self) -> Option<Cursor> {
        if self.copied.is_empty() { self.next } else { Some(self.cursor) }
    }

    /// Goes on from a cursor of [`Entries::cursor`] or [`Cache::scan_from`].
    pub fn from_cursor(mut self, cursor: Cursor) -> Entries {
        (self.cursor, self.next) = (cursor, Some(cursor));
        self.copied.clear();
        self
    }
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Item), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.copied.is_empty() {
            self.cursor = self.next?;
            let copied = &mut self.copied;
            let stepped = self.cache.scan_from(self.cursor, &self.prefix, 1, |item| {
                copied.push_back((Bytes::copy_from_slice(item.key), item.to_item()));
            });
            match stepped {
                Ok(next) => self.next = next,
                Err(error) => {
                    self.next = None;
                    return Some(Err(error));
                }
            }
        }
        self.copied.pop_front().map(Ok)
    }
}
