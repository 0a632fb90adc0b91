//! The index: from a key's hash to the item's first chunk.
//!
//! Lives here: buckets of one cache line, overflow buckets, growing and shrinking one bucket at a time.
//! Not here: keys (the caller compares them and hashes them again for a split), the pages' account (see `room`).
//!
//! ```text
//!  bucket, 64 bytes:  | 12 tags of 1 byte | overflow u32 | 12 references u32 |     (tag 0: the slot is empty)
//!
//!  segments:   [ bucket 0 … n-1 ][ bucket n … 2n-1 ] …      a segment takes the place of one page
//!                  |
//!                  '-> overflow bucket -> overflow bucket    (segments of their own, a free list)
//! ```
//! Linear hashing: with `b` buckets an insertion that makes the load exceed [`LOAD_MAX`] entries a bucket splits one
//! bucket, number `b - 2^k`, into itself and bucket `b`; a removal that makes it fall below [`LOAD_MIN`] undoes one
//! split. So one operation moves the entries of one chain (about 11; `entries_moved_max` remembers the most), never
//! the table.

use super::slabs::ChunkRef;

const SLOTS: usize = 12;
const BUCKET_BYTES: usize = 64;
/// Entries a bucket above which the next insertion splits one.
const LOAD_MAX: usize = 8;
/// Entries a bucket below which the next removal merges two.
const LOAD_MIN: usize = 3;

#[derive(Clone)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; SLOTS],
    /// In a chain: the next overflow bucket's number + 1. In the free list: the same. 0 is none.
    overflow: u32,
    references: [u32; SLOTS],
}

const EMPTY: Bucket = Bucket { tags: [0; SLOTS], overflow: 0, references: [0; SLOTS] };

/// A bucket, by where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Home(usize),
    Overflow(usize),
}

/// 1. An entry lies in the chain of its home bucket, under its tag; `entries` counts them.
/// 2. In a chain only the last bucket has empty slots, and they are at its end; no overflow bucket is empty.
/// 3. Each overflow bucket is in one chain or in the free list.
/// 4. `bucket_count` is 0, or at least one segment's worth and at most what the segments hold.
pub(super) struct Index {
    buckets_per_segment: usize,
    segments: Vec<Box<[Bucket]>>,
    bucket_count: usize,
    overflow_segments: Vec<Box<[Bucket]>>,
    overflow_free_head: u32,
    overflow_free: usize,
    entries: usize,
    /// Entries on their way from one bucket to another; empty between operations, kept for its capacity.
    moving: Vec<(u8, u32)>,
    entries_moved_max: usize,
}

impl Index {
    pub(super) fn new(page_bytes: usize) -> Index {
        Index {
            buckets_per_segment: page_bytes / BUCKET_BYTES,
            segments: Vec::new(),
            bucket_count: 0,
            overflow_segments: Vec::new(),
            overflow_free_head: 0,
            overflow_free: 0,
            entries: 0,
            moving: Vec::new(),
            entries_moved_max: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Segments; each stands for one page.
    pub(super) fn page_count(&self) -> usize {
        self.segments.len() + self.overflow_segments.len()
    }

    /// How many entries the largest split or merge has moved.
    #[cfg(test)]
    pub(super) fn entries_moved_max(&self) -> usize {
        self.entries_moved_max
    }

    /// The entry of this hash that `is_match` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_match: impl FnMut(ChunkRef) -> bool) -> Option<ChunkRef> {
        if self.bucket_count == 0 {
            return None;
        }
        let tag = tag(hash);
        let mut bucket = self.bucket(Place::Home(self.home(hash)));
        loop {
            let mut matches = bucket.slots_with(tag);
            while matches != 0 {
                let reference = bucket.references[first_slot(matches)];
                if let Some(chunk) = ChunkRef::from_link(reference)
                    && is_match(chunk)
                {
                    return Some(chunk);
                }
                matches &= matches - 1;
            }
            if bucket.overflow == 0 {
                return None;
            }
            bucket = self.bucket(Place::Overflow(bucket.overflow as usize - 1));
        }
    }

    /// How many pages the next insertion wants: the first segment, a free overflow bucket, room to split.
    pub(super) fn pages_wanted(&self) -> usize {
        let home = usize::from(self.wants_segment());
        home + usize::from(self.overflow_free == 0)
    }

    /// Adds the segment that is wanted most. The caller has given up a page for it.
    pub(super) fn add_segment(&mut self) {
        let segment = vec![EMPTY; self.buckets_per_segment].into_boxed_slice();
        if self.wants_segment() {
            self.segments.push(segment);
            self.bucket_count = self.bucket_count.max(self.buckets_per_segment);
        } else {
            let first = self.overflow_segments.len() * self.buckets_per_segment;
            self.overflow_segments.push(segment);
            for number in (first..first + self.buckets_per_segment).rev() {
                self.free_overflow(number);
            }
        }
    }

    fn wants_segment(&self) -> bool {
        let is_full = self.bucket_count == self.segments.len() * self.buckets_per_segment;
        is_full && self.entries >= self.bucket_count * LOAD_MAX
    }

    /// Adds an entry; [`Index::pages_wanted`] is 0. May split one bucket.
    pub(super) fn insert(&mut self, hash: u64, chunk: ChunkRef, hash_of: impl Fn(ChunkRef) -> u64) {
        let home = self.home(hash);
        self.append(home, tag(hash), chunk.get());
        self.entries += 1;
        let has_room = self.bucket_count < self.segments.len() * self.buckets_per_segment;
        if self.entries > self.bucket_count * LOAD_MAX && has_room {
            self.split(hash_of);
        }
    }

    /// An entry's item has moved.
    pub(super) fn replace(&mut self, hash: u64, old: ChunkRef, new: ChunkRef) {
        let (place, slot) = self.locate(hash, old);
        self.bucket_mut(place).references[slot] = new.get();
    }

    /// Removes an entry; may merge two buckets. Returns how many pages became free.
    pub(super) fn remove(&mut self, hash: u64, chunk: ChunkRef) -> usize {
        let (place, slot) = self.locate(hash, chunk);
        let last = self.take_last(self.home(hash));
        if last.1 != chunk.get() {
            let bucket = self.bucket_mut(place);
            (bucket.tags[slot], bucket.references[slot]) = last;
        }
        self.entries -= 1;
        let is_sparse = self.entries < self.bucket_count * LOAD_MIN;
        // Two buckets joined may need one overflow bucket more, and one must stay for the next insertion.
        if is_sparse && self.bucket_count > self.buckets_per_segment && self.overflow_free >= 2 {
            return self.merge();
        }
        0
    }

    /// Gives up all segments; returns how many pages became free.
    pub(super) fn clear(&mut self) -> usize {
        let pages = self.page_count();
        *self = Index::new(self.buckets_per_segment * BUCKET_BYTES);
        pages
    }

    fn split(&mut self, hash_of: impl Fn(ChunkRef) -> u64) {
        let new = self.bucket_count;
        let old = new - (1 << new.ilog2());
        self.take_chain(old);
        self.bucket_count += 1;
        let mut moving = std::mem::take(&mut self.moving);
        for (tag, reference) in moving.drain(..) {
            let hash = hash_of(ChunkRef::from_link(reference).expect("an entry refers to an item"));
            let home = self.home(hash);
            debug_assert!(home == old || home == new);
            self.append(home, tag, reference);
        }
        self.moving = moving;
    }

    fn merge(&mut self) -> usize {
        let gone = self.bucket_count - 1;
        let into = gone - (1 << gone.ilog2());
        self.take_chain(gone);
        self.bucket_count -= 1;
        let mut moving = std::mem::take(&mut self.moving);
        for (tag, reference) in moving.drain(..) {
            self.append(into, tag, reference);
        }
        self.moving = moving;
        if self.bucket_count <= (self.segments.len() - 1) * self.buckets_per_segment {
            self.segments.pop();
            return 1;
        }
        0
    }

    /// Empties a chain into `moving` and frees its overflow buckets.
    fn take_chain(&mut self, home: usize) {
        let mut place = Place::Home(home);
        loop {
            let bucket = std::mem::replace(self.bucket_mut(place), EMPTY);
            let used = bucket.len();
            self.moving.extend(bucket.tags.into_iter().zip(bucket.references).take(used));
            if let Place::Overflow(number) = place {
                self.free_overflow(number);
            }
            if bucket.overflow == 0 {
                break;
            }
            place = Place::Overflow(bucket.overflow as usize - 1);
        }
        self.entries_moved_max = self.entries_moved_max.max(self.moving.len());
    }

    fn append(&mut self, home: usize, tag: u8, reference: u32) {
        let mut place = self.last_of_chain(home).1;
        if self.bucket(place).len() == SLOTS {
            let number = self.overflow_free_head as usize;
            assert_ne!(number, 0, "an insertion was prepared with a free overflow bucket");
            let next_free = std::mem::take(&mut self.bucket_mut(Place::Overflow(number - 1)).overflow);
            self.overflow_free_head = next_free;
            self.overflow_free -= 1;
            self.bucket_mut(place).overflow = number as u32;
            place = Place::Overflow(number - 1);
        }
        let bucket = self.bucket_mut(place);
        let slot = bucket.len();
        (bucket.tags[slot], bucket.references[slot]) = (tag, reference);
    }

    /// Takes the last entry out of a chain that is not empty.
    fn take_last(&mut self, home: usize) -> (u8, u32) {
        let (before_last, last) = self.last_of_chain(home);
        let bucket = self.bucket_mut(last);
        let slot = bucket.len() - 1;
        let entry = (bucket.tags[slot], bucket.references[slot]);
        (bucket.tags[slot], bucket.references[slot]) = (0, 0);
        if let Place::Overflow(number) = last
            && slot == 0
        {
            self.bucket_mut(before_last).overflow = 0;
            self.free_overflow(number);
        }
        entry
    }

    /// The last bucket of a chain, and the one before it (itself if there is only one).
    fn last_of_chain(&self, home: usize) -> (Place, Place) {
        let (mut before, mut place) = (Place::Home(home), Place::Home(home));
        loop {
            match self.bucket(place).overflow {
                0 => return (before, place),
                next => (before, place) = (place, Place::Overflow(next as usize - 1)),
            }
        }
    }

    fn locate(&self, hash: u64, chunk: ChunkRef) -> (Place, usize) {
        let mut place = Place::Home(self.home(hash));
        loop {
            let bucket = self.bucket(place);
            if let Some(slot) = bucket.references.iter().position(|reference| *reference == chunk.get()) {
                return (place, slot);
            }
            assert_ne!(bucket.overflow, 0, "the item is indexed under the hash of its key");
            place = Place::Overflow(bucket.overflow as usize - 1);
        }
    }

    fn free_overflow(&mut self, number: usize) {
        let head = self.overflow_free_head;
        *self.bucket_mut(Place::Overflow(number)) = Bucket { overflow: head, ..EMPTY };
        self.overflow_free_head = number as u32 + 1;
        self.overflow_free += 1;
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        let mask = self.bucket_count.next_power_of_two() - 1;
        let number = (mix(hash) >> 32) as usize & mask;
        if number < self.bucket_count { number } else { number & (mask >> 1) }
    }

    #[inline]
    fn bucket(&self, place: Place) -> &Bucket {
        let per_segment = self.buckets_per_segment;
        // Both are powers of two, but only a shift is cheap: a division would cost more than the probe.
        let (shift, mask) = (per_segment.trailing_zeros(), per_segment - 1);
        match place {
            Place::Home(number) => &self.segments[number >> shift][number & mask],
            Place::Overflow(number) => &self.overflow_segments[number >> shift][number & mask],
        }
    }

    fn bucket_mut(&mut self, place: Place) -> &mut Bucket {
        let (shift, mask) = (self.buckets_per_segment.trailing_zeros(), self.buckets_per_segment - 1);
        match place {
            Place::Home(number) => &mut self.segments[number >> shift][number & mask],
            Place::Overflow(number) => &mut self.overflow_segments[number >> shift][number & mask],
        }
    }

    /// Panics with the number of a broken invariant.
    pub(super) fn check_invariants(&self, hash_of: impl Fn(ChunkRef) -> u64) {
        let (mut entries, mut chained) = (0, 0);
        for home in 0..self.bucket_count {
            let mut place = Place::Home(home);
            loop {
                let bucket = self.bucket(place);
                let used = bucket.len();
                assert!(bucket.tags[used..].iter().all(|tag| *tag == 0), "index 2: holes in bucket {home}");
                assert!(place == Place::Home(home) || used > 0, "index 2: empty overflow bucket");
                assert!(bucket.overflow == 0 || used == SLOTS, "index 2: a bucket with room has a successor");
                for slot in 0..used {
                    let chunk =
                        ChunkRef::from_link(bucket.references[slot]).expect("index 1: empty reference");
                    let hash = hash_of(chunk);
                    assert_eq!(
                        (self.home(hash), tag(hash)),
                        (home, bucket.tags[slot]),
                        "index 1: wrong bucket"
                    );
                }
                entries += used;
                if bucket.overflow == 0 {
                    break;
                }
                chained += 1;
                place = Place::Overflow(bucket.overflow as usize - 1);
            }
        }
        assert_eq!(entries, self.entries, "index 1: count of entries");
        let (mut free, mut head) = (0, self.overflow_free_head);
        while head != 0 && free <= self.overflow_free {
            free += 1;
            head = self.bucket(Place::Overflow(head as usize - 1)).overflow;
        }
        assert_eq!(free, self.overflow_free, "index 3: free list");
        assert_eq!(
            free + chained,
            self.overflow_segments.len() * self.buckets_per_segment,
            "index 3: lost bucket"
        );
        let room = self.segments.len() * self.buckets_per_segment;
        let in_last = room.saturating_sub(self.buckets_per_segment);
        assert!(
            self.bucket_count <= room && self.bucket_count >= self.buckets_per_segment.min(room),
            "index 4"
        );
        assert!(self.segments.len() <= 1 || self.bucket_count >= in_last, "index 4: empty segment");
        assert!(self.moving.is_empty(), "index: entries on their way");
    }
}

impl Bucket {
    /// One bit (the lowest byte's highest is slot 0) for each slot with this tag.
    #[inline]
    fn slots_with(&self, tag: u8) -> u128 {
        let mut bytes = [0; 16];
        bytes[..SLOTS].copy_from_slice(&self.tags);
        let differences = u128::from_le_bytes(bytes) ^ (LOW_BITS * u128::from(tag));
        let zero_in_low_seven = (differences & !HIGH_BITS) + !HIGH_BITS;
        // The four bytes behind the tags differ from every tag, as no tag is 0.
        !(zero_in_low_seven | differences | !HIGH_BITS)
    }

    /// How many slots are used; they come first.
    fn len(&self) -> usize {
        self.tags.iter().position(|tag| *tag == 0).unwrap_or(SLOTS)
    }
}

const LOW_BITS: u128 = u128::from_le_bytes([0x01; 16]);
const HIGH_BITS: u128 = u128::from_le_bytes([0x80; 16]);

#[inline]
fn first_slot(matches: u128) -> usize {
    matches.trailing_zeros() as usize / 8
}

/// Spreads the hash once more, so that bucket and tag do not depend on which bits chose the shard.
#[inline]
fn mix(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline]
fn tag(hash: u64) -> u8 {
    ((mix(hash) >> 24) as u8).max(1)
}

#[cfg(test)]
mod tests;
