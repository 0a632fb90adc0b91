//! What of the model comes and goes piece by piece: unfinished values, and pinned ones.

use super::*;
use crate::storage::{PinnedValue, Unfinished};

/// The largest item, for the bound on unfinished values.
const ITEM_BYTES_MAX: usize = 41_000;
/// Values that are unfinished, and those that are pinned, at one time.
const COUNT_MAX: usize = 4;

/// A value of which a part has come.
pub(super) struct Coming {
    key: u16,
    lifetime_ms: u64,
    flags: u32,
    unfinished: Unfinished,
    value: Vec<u8>,
    written: usize,
}

/// Values on their ways, in no order.
#[derive(Default)]
pub(super) struct Pieces {
    coming: Vec<Coming>,
    /// What each was when it was pinned.
    pinned: Vec<(PinnedValue, Vec<u8>)>,
    pub(super) finished: usize,
    pub(super) refused: usize,
    pub(super) left_pages_max: usize,
}

impl Model {
    pub(super) fn apply_to_pieces(&mut self, op: Op) {
        match op {
            Op::Begin { key, size, lifetime_ms } if self.pieces.coming.len() < COUNT_MAX => {
                self.begin(key, SIZES[size], lifetime_ms);
            }
            Op::Write { which, bytes } => self.write(which, bytes),
            Op::Finish { which } => self.finish(which),
            Op::Abandon { which } => drop(self.take(which)),
            Op::Pin { key } if self.pieces.pinned.len() < COUNT_MAX => self.pin(key),
            Op::Unpin { which } if which < self.pieces.pinned.len() => {
                self.pieces.pinned.swap_remove(which);
            }
            _ => {}
        }
    }

    fn take(&mut self, which: usize) -> Option<Coming> {
        let coming = &mut self.pieces.coming;
        (which < coming.len()).then(|| coming.swap_remove(which))
    }

    fn begin(&mut self, key: u16, size: usize, lifetime_ms: u64) {
        self.last_version += 1;
        let nonce = self.last_version;
        let flags = nonce as u32 % 2;
        let footprint = Footprint::of_unfinished(key_of(key).len(), size, flags != 0, false);
        let unfinished = Unfinished::new(&self.pool, &self.size_classes, footprint);
        let value = (0..size).map(|at| (at as u64 * 29 + nonce * 5 + (at >> 8) as u64) as u8).collect();
        self.pieces.coming.push(Coming { key, lifetime_ms, flags, unfinished, value, written: 0 });
    }

    /// The next bytes of a value; it is given up where there is no page for them.
    fn write(&mut self, which: usize, bytes: usize) {
        let Some(mut coming) = self.take(which) else { return };
        let end = coming.value.len().min(coming.written + bytes);
        while coming.written < end {
            coming.written += coming.unfinished.fill(&coming.value[coming.written..end]);
            if coming.written < end && !self.spare_page(&mut coming) {
                self.pieces.refused += 1;
                return;
            }
        }
        self.pieces.coming.push(coming);
    }

    fn spare_page(&mut self, coming: &mut Coming) -> bool {
        let pages_max = self.pool.unfinished_pages_max(ITEM_BYTES_MAX);
        let home = Model::shard_of(coming.key);
        for (shard, keeps_half) in [(home, true), (1 - home, true), (home, false), (1 - home, false)] {
            let moment = Moment { clock: &self.now_ms, floors: &self.floors };
            let spared = self.shards[shard].spare_page(&mut coming.unfinished, keeps_half, pages_max, moment);
            self.follow_evictions(shard);
            match spared {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => {
                    assert_eq!(self.pool.unfinished_pages(), pages_max, "refused below the bound");
                    return false;
                }
            }
        }
        assert!(self.items.is_empty(), "no page, though items could leave");
        false
    }

    fn finish(&mut self, which: usize) {
        let Some(mut coming) = self.take(which) else { return };
        if coming.written < coming.value.len() {
            return self.pieces.coming.push(coming);
        }
        let (key, bytes) = (coming.key, key_of(coming.key));
        let (shard, hash) = (Model::shard_of(key), self.hasher.hash(&bytes));
        let expires_at_ms = if coming.lifetime_ms == 0 { 0 } else { self.now_ms + coming.lifetime_ms };
        self.last_version += 1;
        let version = Version(self.last_version);
        let meta = Meta { version, ..Meta::new(coming.flags, expires_at_ms) };
        let is_stored = match coming.unfinished.small_value().map(<[u8]>::to_vec) {
            Some(small) => {
                assert!(small == coming.value, "what has come");
                let footprint = Footprint::of(bytes.len(), small.len(), &meta);
                let reservation = self.reserve(shard, hash, footprint);
                reservation.is_some_and(|reservation| {
                    self.shards[shard]
                        .commit(reservation, hash, &bytes, &small, meta, Place::New, |_| version);
                    true
                })
            }
            None => {
                let rest = self.with_help(shard, |model| {
                    let moment = Moment { clock: &model.now_ms, floors: &model.floors };
                    model.shards[shard].reserve_rest(&coming.unfinished, hash, moment)
                });
                rest.is_some_and(|rest| {
                    let unfinished = &mut coming.unfinished;
                    self.shards[shard].commit_unfinished(unfinished, rest, hash, &bytes, meta, |_, value| {
                        assert!(value == coming.value[..], "what is told of it");
                        version
                    });
                    true
                })
            }
        };
        if is_stored {
            self.pieces.finished += 1;
            self.was_stored(key, coming.value, meta, Place::New);
        } else {
            self.pieces.refused += 1;
        }
    }

    fn pin(&mut self, key: u16) {
        let bytes = key_of(key);
        let held = self.tables.at(Model::shard_of(key)).find(self.hasher.hash(&bytes), &bytes);
        let pinned = held.and_then(|held| held.parts().2.pin());
        if let Some(pinned) = pinned {
            self.pieces.pinned.push((pinned, self.items[&key].value.clone()));
        }
    }

    /// Bytes that no item can have.
    pub(super) fn bytes_beside_items(&self) -> usize {
        self.pool.unfinished_pages() * self.pool.page_bytes() + self.pool.pinned_bytes()
    }

    pub(super) fn check_pieces(&mut self) {
        for coming in &self.pieces.coming {
            let come = coming.unfinished.pieces().collect::<Vec<_>>().concat();
            assert!(come == coming.value[..coming.written], "what has come of a value");
        }
        for (pinned, value) in &self.pieces.pinned {
            assert_eq!(pinned.len(), value.len());
            let pieces = pinned.pieces_from(0).collect::<Vec<_>>().concat();
            assert!(pieces == *value, "a pinned value stays as it was");
            let at = value.len() / 3;
            assert!(value[at..].starts_with(pinned.piece(at)) && pinned.piece(value.len()).is_empty());
        }
        let pages: usize = self.pieces.coming.iter().map(|coming| coming.unfinished.page_count()).sum();
        assert_eq!(pages, self.pool.unfinished_pages(), "pages of unfinished values");
        let left_pages = self.pool.pinned_bytes() / self.pool.page_bytes();
        self.pieces.left_pages_max = self.pieces.left_pages_max.max(left_pages);
    }
}
