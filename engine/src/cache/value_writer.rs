//! Values that come piece by piece, as those of slow clients do, into the cache's own memory.
//!
//! Lives here: [`ValueWriter`], what all of them together may hold, and when they lose it. Not here: how pages are filled and
//! become an item (see `storage::unfinished`), the conditions of each store (see `write`).
//!
//! ```text
//!   begin_value ──> write, write, … ──> set, add, replace, compare_and_swap, set_if: an item      (or dropped: nothing)
//! ```
//! Until it is stored a value is in no index: no read, scan, image or replica meets it. A page is taken when the first byte
//! for it has come, never for a length that was announced. **Lock order**: behind a shard's lock come the list of writers,
//! then one writer's lock, then the pool's and the log's.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::error::WriteError;
use crate::mutation::{Attributes, Expiry, KEY_BYTES_MAX, Version};
use crate::storage::{Footprint, Meta, Unfinished, item_bytes};

use super::conditional::meta_with_state;
use super::write::{Locked, Refusal};
use super::{Cache, Inner, ItemRef, ItemState, ShardCell, Swap, is_inside_read};

/// Writers that hold a part of a value, or may.
#[derive(Default)]
pub(crate) struct Writers(Mutex<Vec<Arc<Mutex<Held>>>>);

/// What a writer holds.
struct Held {
    value: Option<Unfinished>,
    /// What has come, once there was no page for it.
    on_heap: Option<Vec<u8>>,
    /// Whether it goes there instead of being refused.
    may_leave: bool,
    /// Why the value will not be stored.
    refusal: Option<WriteError>,
}

impl Held {
    /// Gives up what has come.
    fn refuse(&mut self, why: WriteError) {
        (self.value, self.on_heap) = (None, None);
        self.refusal.get_or_insert(why);
    }

    /// Gives its pages back; whether what has come goes on elsewhere.
    fn leave_pages(&mut self) -> bool {
        if let Some(value) = self.value.take()
            && self.may_leave
        {
            self.on_heap = Some(value.pieces().collect::<Vec<_>>().concat());
        }
        self.on_heap.is_some()
    }
}

/// A value that comes piece by piece, by [`Cache::begin_value`]. What has come lies in the cache's own memory and is stored
/// from there, without a copy; dropped, it leaves nothing.
///
/// It is not in the cache before it is stored: until then reads find what was there before, and a flush or a full copy does
/// not touch it. All such values of a cache together hold at most half of
/// [`Config::memory_bytes_max`](crate::Config::memory_bytes_max) (or one item of
/// [`Config::item_bytes_max`](crate::Config::item_bytes_max), if that is more), and other items leave for them as they grow. A
/// value that would go beyond that is refused, as one is for which no memory is left, and gives back what it had
/// ([`ValueWriter::or_on_heap`] says otherwise). So does one when this node stops being a primary, and one that a lower
/// [`Cache::resize`] has no room for.
///
/// Whoever is refused may go on writing, to find out about the end of what comes: nothing is kept of it, and storing it gives
/// the error.
pub struct ValueWriter {
    inner: Arc<Inner>,
    key: Box<[u8]>,
    value_bytes: usize,
    written_bytes: usize,
    attributes: Attributes,
    has_state: bool,
    footprint: Option<Footprint>,
    held: Arc<Mutex<Held>>,
}

impl std::fmt::Debug for ValueWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueWriter")
            .field("value_bytes", &self.value_bytes)
            .field("written_bytes", &self.written_bytes)
            .finish_non_exhaustive()
    }
}

impl Drop for ValueWriter {
    fn drop(&mut self) {
        let mut writers = self.inner.writers.0.lock();
        if let Some(at) = writers.iter().position(|held| Arc::ptr_eq(held, &self.held)) {
            writers.swap_remove(at);
        }
    }
}

impl Cache {
    /// Begins to store a value of `value_bytes` that is there in pieces, or still to come: for large ones, so that they are
    /// never there twice. Nothing is taken or checked yet: memory is taken as the pieces come, and what is wrong with key or
    /// length is said when the value is written or stored.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// let mut value = cache.begin_value("film", 200_000, Expiry::Never);
    /// value.write(&[1; 150_000])?;
    /// assert!(!cache.contains("film")?);
    /// value.write(&[2; 50_000])?;
    /// value.set()?;
    /// assert_eq!(cache.get("film")?.unwrap().value.len(), 200_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_value(
        &self,
        key: impl AsRef<[u8]>,
        value_bytes: usize,
        attributes: impl Into<Attributes>,
    ) -> ValueWriter {
        ValueWriter::new(&self.inner, key.as_ref(), value_bytes, attributes.into(), false)
    }

    /// As [`Cache::begin_value`], of an item that may get an [`ItemState`] when it is stored, by [`ValueWriter::set_if`]: twelve
    /// bytes more.
    pub fn begin_value_with_state(
        &self,
        key: impl AsRef<[u8]>,
        value_bytes: usize,
        attributes: impl Into<Attributes>,
    ) -> ValueWriter {
        ValueWriter::new(&self.inner, key.as_ref(), value_bytes, attributes.into(), true)
    }
}

impl ValueWriter {
    fn new(
        inner: &Arc<Inner>,
        key: &[u8],
        value_bytes: usize,
        attributes: Attributes,
        has_state: bool,
    ) -> ValueWriter {
        let refusal = inner.refusal_of(key, value_bytes);
        let has_flags = attributes.flags != 0;
        let footprint =
            refusal.is_none().then(|| Footprint::of_unfinished(key.len(), value_bytes, has_flags, has_state));
        let value = footprint.map(|footprint| Unfinished::new(&inner.pool, &inner.size_classes, footprint));
        let held = Arc::new(Mutex::new(Held { value, on_heap: None, may_leave: false, refusal }));
        inner.writers.0.lock().push(held.clone());
        ValueWriter {
            inner: inner.clone(),
            key: key.into(),
            value_bytes,
            written_bytes: 0,
            attributes,
            has_state,
            footprint,
            held,
        }
    }

    /// How long the whole value is, in bytes, as it was announced.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// How many bytes are still to be written.
    pub fn missing_bytes(&self) -> usize {
        self.value_bytes - self.written_bytes
    }

    /// Has it go on outside of the cache's memory, on the program's own heap, when there is no page for it beside other
    /// unfinished values; there it takes up to twice its own length. For values that are short enough for the program to hold as many of
    /// them as come at one time: they are not refused because others are slow.
    #[must_use]
    pub fn or_on_heap(self) -> ValueWriter {
        self.held.lock().may_leave = true;
        self
    }

    /// What it takes on the program's own heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.held.lock().on_heap.as_ref().map_or(0, Vec::capacity)
    }

    /// Takes the next bytes of the value. Evicts where memory is wanted for them.
    ///
    /// # Errors
    /// The value will not be stored, and why: nothing is kept of it from here on. More bytes than are missing are none of it
    /// ([`WriteError::ValueLength`]). Inside a closure that reads an item nothing is taken, and nothing lost.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if is_inside_read() {
            return Err(WriteError::InsideRead);
        }
        if bytes.len() > self.missing_bytes() {
            let too_long = WriteError::ValueLength {
                bytes: self.written_bytes.saturating_add(bytes.len()),
                announced: self.value_bytes,
            };
            self.written_bytes = self.value_bytes;
            self.held.lock().refuse(too_long.clone());
            return Err(too_long);
        }
        self.written_bytes += bytes.len();
        let mut rest = bytes;
        loop {
            {
                let mut held = self.held.lock();
                match &mut *held {
                    Held { value: Some(value), .. } => rest = &rest[value.fill(rest)..],
                    Held { on_heap: Some(come), .. } => {
                        come.extend_from_slice(rest);
                        return Ok(());
                    }
                    Held { refusal, .. } => {
                        return Err(refusal.clone().unwrap_or_else(|| self.out_of_memory()));
                    }
                }
            }
            if rest.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.take_page() {
                let mut held = self.held.lock();
                let is_short = matches!(error, WriteError::OutOfMemory { .. });
                if !(is_short && held.leave_pages()) {
                    held.refuse(error);
                }
            }
        }
    }

    fn out_of_memory(&self) -> WriteError {
        WriteError::OutOfMemory { bytes: item_bytes(self.key.len(), self.value_bytes) }
    }

    /// One page more. The key's own shard gives it, as where it is stored at once, while that has half of its even share; then
    /// the others do in turn.
    fn take_page(&self) -> Result<(), WriteError> {
        let inner = &*self.inner;
        let (home, count) = (inner.shard_number(inner.hasher.hash(&self.key)), inner.shards.len());
        let turn = self.held.lock().value.as_ref().map_or(0, Unfinished::page_count);
        let others = (0..count - 1).map(|step| (home + 1 + (turn + step) % (count - 1)) % count);
        let shards = || std::iter::once(home).chain(others.clone());
        for keeps_half in [true, false] {
            for shard in shards() {
                if self.take_page_of(shard, keeps_half)? {
                    return Ok(());
                }
            }
        }
        Err(self.out_of_memory())
    }

    /// Whether a shard gave a page, or none is wanted any more.
    fn take_page_of(&self, shard: usize, keeps_half: bool) -> Result<bool, WriteError> {
        let inner = &*self.inner;
        let pages_max = inner.pool.unfinished_pages_max(inner.item_bytes_max.load(Ordering::Relaxed));
        let mut cell = inner.shards[shard].lock();
        // A change of role passes through this lock.
        if !inner.serving().reigns() {
            inner.check_writable()?;
        }
        let taken = {
            let mut held = self.held.lock();
            let Some(value) = &mut held.value else { return Ok(true) };
            cell.shard.spare_page(value, keeps_half, pages_max, inner.moment())
        };
        inner.log_passes(&mut cell);
        drop(cell);
        inner.tell_events();
        taken.map_err(|_| self.out_of_memory())
    }

    /// Stores it, whatever is there; as [`Cache::set`].
    ///
    /// # Errors
    /// As there, and what [`ValueWriter::write`] has said. [`WriteError::ValueLength`] if bytes are missing; then, too, an older
    /// item stays.
    pub fn set(self) -> Result<Version, WriteError> {
        self.inner.store_anyway(&self.key, self.value_bytes, |locked| self.put(locked))
    }

    /// Stores it if the key is absent; as [`Cache::add`].
    ///
    /// # Errors
    /// As [`ValueWriter::set`], but an older item stays.
    pub fn add(self) -> Result<Option<Version>, WriteError> {
        self.inner.store_if_absent(&self.key, self.value_bytes, |locked| self.put(locked))
    }

    /// Stores it if the key is present; as [`Cache::replace`].
    ///
    /// # Errors
    /// As [`ValueWriter::set`], but an older item stays.
    pub fn replace(self) -> Result<Option<Version>, WriteError> {
        self.inner.store_if_present(&self.key, self.value_bytes, |locked| self.put(locked))
    }

    /// Stores it if the item still has this version; as [`Cache::compare_and_swap`].
    ///
    /// # Errors
    /// As [`ValueWriter::set`], but an older item stays.
    pub fn compare_and_swap(self, expected: Version) -> Result<Swap, WriteError> {
        self.inner.store_if_unchanged(&self.key, expected, self.value_bytes, |locked| self.put(locked))
    }

    /// Stores it if the closure says so, which sees what is there and says when the new item expires and what is said of it;
    /// flags stay as they were given. `None` if it did not. A state is kept only of a value that was begun by
    /// [`Cache::begin_value_with_state`]. The closure runs as that of [`Cache::update`] does.
    ///
    /// # Errors
    /// As [`ValueWriter::set`], but an older item stays.
    pub fn set_if(
        self,
        mut decide: impl FnMut(Option<ItemRef<'_>>) -> Option<(Expiry, ItemState)>,
    ) -> Result<Option<Version>, WriteError> {
        self.inner.mutate(&self.key, |locked| {
            let Some((expiry, state)) = locked.decide(&mut decide) else { return Ok(None) };
            let state = if self.has_state { state } else { ItemState::default() };
            let meta = meta_with_state(locked, Attributes { expiry, ..self.attributes }, state);
            self.put_as(locked, meta).map(Some)
        })
    }

    /// A copy of the whole value instead of an item, on the program's own heap; what has come leaves the cache's memory.
    ///
    /// # Errors
    /// What [`ValueWriter::write`] has said, bytes are missing, or no write is possible now.
    pub fn into_value(self) -> Result<Vec<u8>, WriteError> {
        self.check_whole()?;
        self.inner.check_value_bytes(&self.key, self.value_bytes)?;
        let mut held = self.held.lock();
        if let Some(come) = held.on_heap.take() {
            return Ok(come);
        }
        let Some(unfinished) = &held.value else {
            return Err(held.refusal.clone().unwrap_or_else(|| self.out_of_memory()));
        };
        let mut value = Vec::with_capacity(self.value_bytes);
        unfinished.pieces().for_each(|piece| value.extend_from_slice(piece));
        Ok(value)
    }

    fn check_whole(&self) -> Result<(), WriteError> {
        match self.missing_bytes() {
            0 => Ok(()),
            _ => Err(WriteError::ValueLength { bytes: self.written_bytes, announced: self.value_bytes }),
        }
    }

    fn put(&self, locked: &mut Locked<'_>) -> Result<Version, Refusal> {
        let expires_at_ms = self.attributes.expiry.deadline_ms(|| locked.moment.now_ms());
        self.put_as(locked, Meta::new(self.attributes.flags, expires_at_ms))
    }

    fn put_as(&self, locked: &mut Locked<'_>, meta: Meta) -> Result<Version, Refusal> {
        self.check_whole()?;
        locked.check_item_bytes(self.value_bytes)?;
        let mut held = self.held.lock();
        let Held { value, on_heap, refusal, .. } = &mut *held;
        if let Some(come) = on_heap {
            return locked.put(come, meta);
        }
        let Some(value) = value else {
            locked.refused = self.footprint;
            return Err(refusal.clone().unwrap_or_else(|| self.out_of_memory()).into());
        };
        match value.small_value() {
            Some(small) => locked.put(small, meta),
            None => locked.put_unfinished(value, meta),
        }
    }
}

impl Locked<'_> {
    /// Stores under a new version a value that has come whole; that of `meta` does not matter.
    fn put_unfinished(&mut self, value: &mut Unfinished, meta: Meta) -> Result<Version, Refusal> {
        let Locked { inner, key, hash, moment, .. } = *self;
        let rest = match self.cell.shard.reserve_rest(value, hash, moment) {
            Ok(rest) => rest,
            Err(error) => return Err(self.no_room(value.footprint(), value.item_bytes(), error)),
        };
        self.overtake_loads();
        inner.log_passes(&mut self.cell);
        let ShardCell { shard, scratch, next_version, versions, .. } = &mut *self.cell;
        let version = shard.commit_unfinished(value, rest, hash, key, meta, |marks, value| {
            let Some(group) = &inner.group else {
                return versions.give(next_version, &inner.last_version, inner.floors.highest());
            };
            next_version.count_store();
            group.append_in_pieces(key, value, Meta { marks, ..meta }, scratch)
        });
        inner.ring();
        Ok(version)
    }
}

impl Inner {
    /// Why a value of this length can't be stored under the key, if that is clear from the start.
    fn refusal_of(&self, key: &[u8], value_bytes: usize) -> Option<WriteError> {
        if Inner::is_key_length_wrong(key) {
            return Some(WriteError::KeyLength { bytes: key.len(), bytes_max: KEY_BYTES_MAX });
        }
        let bytes = item_bytes(key.len(), value_bytes);
        if bytes > self.item_bytes_max.load(Ordering::Relaxed) {
            return Some(self.too_large(bytes));
        }
        u32::try_from(value_bytes).is_err().then_some(WriteError::OutOfMemory { bytes })
    }

    /// All values that have not come whole are given up.
    pub(super) fn refuse_unfinished(&self, why: &WriteError) {
        let writers = self.writers.0.lock();
        writers.iter().for_each(|held| held.lock().refuse(why.clone()));
    }

    /// As many values that have not come whole are given up as are too many for the memory there is now, the largest first.
    pub(super) fn fit_unfinished(&self) {
        let pages_max = self.pool.unfinished_pages_max(self.item_bytes_max.load(Ordering::Relaxed));
        let writers = self.writers.0.lock();
        let pages = |held: &&Arc<Mutex<Held>>| held.lock().value.as_ref().map_or(0, Unfinished::page_count);
        let mut held: Vec<_> = writers.iter().collect();
        held.sort_by_cached_key(|held| Reverse(pages(held)));
        for held in held {
            if self.pool.unfinished_pages() <= pages_max {
                return;
            }
            // Why is said where nothing else is: there is no memory for it.
            held.lock().leave_pages();
        }
    }
}

#[cfg(test)]
mod tests;
