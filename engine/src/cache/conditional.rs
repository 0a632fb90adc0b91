//! Changes that depend on what is there: by version, by condition, by a closure.
//!
//! Lives here: each of them as one step under the key's shard lock. Not here: how a write goes (see `write`).

use bytes::Bytes;

use crate::error::WriteError;
use crate::mutation::{Attributes, Marks, Version};

use crate::storage::Meta;

use super::read::run_reader;
use super::write::Locked;
use super::{Cache, Item, ItemRef};

/// What a deletion by version did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The version matched; the item is gone.
    Deleted,
    /// The item has another version; it stays.
    Exists,
    /// There is no such item.
    NotFound,
}

/// What [`Cache::update`] is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Nothing.
    Keep,
    /// Store this value.
    Store {
        /// The value.
        value: Bytes,
        /// Flags and expiry.
        attributes: Attributes,
    },
    /// Store this value with the flags and the expiry that the item has; those of a new one if there is none.
    Replace(Bytes),
    /// Store this value and say more of it, as memcached's meta commands do.
    StoreWith {
        /// The value.
        value: Bytes,
        /// Flags and expiry.
        attributes: Attributes,
        /// What is said of it.
        state: ItemState,
    },
    /// Remove the item.
    Remove,
}

/// What memcached's meta commands say of an item (rules M6, D4 to D6, D11). An ordinary store clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemState {
    /// What a client gave as CAS. Then [`Cache::compare_and_swap`] and [`Cache::compare_and_delete`] compare with it
    /// instead of the version.
    pub client_cas: Option<u64>,
    /// Whether the value is out of date, and kept until somebody has a newer one.
    pub is_stale: bool,
    /// Whether somebody was told to recache it.
    pub is_token_sent: bool,
    /// Whether whoever stored the item gave its key encoded, and is to get it so (rule M3). Counting and extending leave it.
    pub is_key_binary: bool,
}

impl ItemState {
    pub(super) fn of(meta: Meta) -> ItemState {
        ItemState {
            client_cas: meta.client_cas,
            is_stale: meta.marks.is_stale(),
            is_token_sent: meta.marks.is_token_sent(),
            is_key_binary: meta.marks.is_key_binary(),
        }
    }
}

/// What [`Cache::update`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// Nothing was changed.
    Kept,
    /// The value was stored, under this version.
    Stored(Version),
    /// The item, if there was one, is gone.
    Removed,
}

impl Cache {
    /// Removes the item if it still has this version.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Deletion, Expiry};
    /// # let cache = Cache::new(Config::new())?;
    /// let first = cache.set("k", "1", Expiry::Never)?;
    /// let second = cache.set("k", "2", Expiry::Never)?;
    /// assert_eq!(cache.compare_and_delete("k", first)?, Deletion::Exists);
    /// assert_eq!(cache.compare_and_delete("k", second)?, Deletion::Deleted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The write was refused; the item stays.
    pub fn compare_and_delete(
        &self,
        key: impl AsRef<[u8]>,
        expected: Version,
    ) -> Result<Deletion, WriteError> {
        self.inner.mutate(key.as_ref(), |locked| match locked.find_live() {
            None => Ok(Deletion::NotFound),
            Some((_, meta)) if meta.cas() != expected.0 => Ok(Deletion::Exists),
            Some(_) => {
                locked.remove();
                Ok(Deletion::Deleted)
            }
        })
    }

    /// Whether a value of this length is one that may be stored under the key: what each store says before it looks at what is
    /// there, for an [`Cache::update`] whose closure may keep what it finds. An error counts as a refused store does.
    ///
    /// # Errors
    /// [`WriteError::ItemTooLarge`], or no write is possible now.
    pub fn check_value_bytes(&self, key: impl AsRef<[u8]>, value_bytes: usize) -> Result<(), WriteError> {
        self.inner.check_value_bytes(key.as_ref(), value_bytes)
    }

    /// Removes the item if it is there and the condition holds; whether it was removed. The condition runs while the
    /// item's shard is locked, as the closure of [`Cache::update`] does.
    ///
    /// # Errors
    /// The write was refused; the item stays.
    pub fn remove_if(
        &self,
        key: impl AsRef<[u8]>,
        mut condition: impl FnMut(ItemRef<'_>) -> bool,
    ) -> Result<bool, WriteError> {
        let updated = self.update(key, |item| match item {
            Some(item) if condition(item) => Update::Remove,
            _ => Update::Keep,
        })?;
        Ok(updated == Updated::Removed)
    }

    /// Removes the item and gives it back; `None` if it was not there.
    ///
    /// # Errors
    /// The write was refused; the item stays.
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, WriteError> {
        let mut taken = None;
        self.update(key, |item| {
            taken = item.map(|item| item.to_item());
            if taken.is_some() { Update::Remove } else { Update::Keep }
        })?;
        Ok(taken)
    }

    /// Changes an item in one step that nothing comes between: the closure sees what is there and says what is to be.
    /// It runs while the key's shard is locked, so keep it short; calling a cache inside it is refused with an error.
    /// It may run again if the memory for its value has to be asked of other shards.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, Expiry, Update};
    /// # let cache = Cache::new(Config::new())?;
    /// cache.set("visits", "ada", Expiry::Never)?;
    /// cache.update("visits", |item| {
    ///     let mut names = item.map(|item| item.value.to_vec()).unwrap_or_default();
    ///     names.extend_from_slice(b",grace");
    ///     Update::Replace(names.into())
    /// })?;
    /// assert_eq!(&cache.get("visits")?.unwrap().value[..], b"ada,grace");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The write was refused; an older item stays.
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<ItemRef<'_>>) -> Update,
    ) -> Result<Updated, WriteError> {
        self.inner.mutate(key.as_ref(), |locked| {
            let decided = locked.decide(&mut change);
            match decided {
                Update::Keep => Ok(Updated::Kept),
                Update::Store { value, attributes } => {
                    locked.put_attributes(&value, attributes).map(Updated::Stored)
                }
                Update::Replace(value) => {
                    let present = locked.find_live();
                    let (flags, expires_at_ms) =
                        present.map_or((0, 0), |(_, meta)| (meta.flags, meta.expires_at_ms));
                    locked.put(&value, Meta::new(flags, expires_at_ms)).map(Updated::Stored)
                }
                Update::StoreWith { value, attributes, state } => {
                    let meta = meta_with_state(locked, attributes, state);
                    locked.put(&value, meta).map(Updated::Stored)
                }
                Update::Remove => {
                    locked.remove();
                    Ok(Updated::Removed)
                }
            }
        })
    }
}

/// What an item that is about to be stored carries besides key and value.
pub(super) fn meta_with_state(locked: &Locked<'_>, attributes: Attributes, state: ItemState) -> Meta {
    let expires_at_ms = attributes.expiry.deadline_ms(|| locked.moment.now_ms());
    Meta {
        marks: Marks::of_state(state.is_stale, state.is_token_sent, state.is_key_binary),
        client_cas: state.client_cas,
        ..Meta::new(attributes.flags, expires_at_ms)
    }
}

impl Locked<'_> {
    /// Shows a closure what is there.
    pub(super) fn decide<R>(&mut self, change: &mut impl FnMut(Option<ItemRef<'_>>) -> R) -> R {
        let Some((id, meta)) = self.find_live() else { return run_reader(None, change) };
        let item = ItemRef {
            key: self.key,
            value: self.cell.shard.value(id),
            flags: meta.flags,
            version: meta.version,
            expires_at_ms: (meta.expires_at_ms != 0).then_some(meta.expires_at_ms),
            is_fetched: meta.marks.is_fetched(),
            accessed_s: self.inner.shown_access(self.cell.shard.accessed_s(id)),
            state: ItemState::of(meta),
        };
        run_reader(Some(item), change)
    }
}
