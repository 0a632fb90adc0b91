//! `ms` and `md`: storing, deleting, and marking as stale (rules D8 to D11).

use bytes::Bytes;
use hotspare::{Attributes, Expiry, ItemRef, ItemState, Update, Updated, ValueWriter, Version, WriteError};
use hotspare_memcached::binary::Side;
use hotspare_memcached::meta::{Flags, Status, StoreMode, Target};

use super::super::commands::{Executor, is_no_room};
use super::super::given::{Given, begun};
use super::super::observers::SeenStore;
use super::{Facts, KEY_BUFFER, expiry_of, is_cas_right, is_cas_right_unless_0};

/// What `ms` tells of an item.
const LETTERS: &[u8] = b"cs";

/// What a store came to; the CAS is 0 if nothing was stored (rule D8).
struct Stored {
    status: Status,
    cas: u64,
    bytes: usize,
}

impl Executor<'_> {
    /// Begins to store the large value that comes behind this request.
    pub(super) fn begin_meta_store(&self, target: &Target<'_>, value_bytes: usize) -> ValueWriter {
        let mut buffer = KEY_BUFFER;
        let (cache, flags) = (&self.shared.cache, &target.flags);
        let (key, attributes) = (target.key.bytes(&mut buffer), self.attributes(flags));
        begun(match flags.new_cas().is_some() || flags.has(b'b') || flags.has(b'I') {
            true => cache.begin_value_with_state(key, value_bytes, attributes),
            false => cache.begin_value(key, value_bytes, attributes),
        })
    }

    pub(super) fn meta_store(
        &self,
        target: &Target<'_>,
        mode: StoreMode,
        data: impl Given,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let flags = &target.flags;
        let value_bytes = data.bytes();
        let stored = match is_plain(flags, mode) {
            true => self.store_plainly(key, flags, mode, data),
            false if is_extension(mode) => {
                data.in_one_piece(|added| self.extend_with(key, flags, mode, added))
            }
            false => self.store_with(key, flags, mode, data),
        };
        let status = status_word(stored.as_ref().map(|stored| stored.status));
        let (command, attributes) = (command_word(mode, flags), self.attributes(flags));
        self.saw_store(key, SeenStore { command, status, value_bytes, attributes });
        let stored = stored.map_err(|error| self.drop_overwritten(target, error))?;
        self.count_store(key, value_bytes, attributes);
        if flags.compare_cas().is_some() && matches!(mode, StoreMode::Set | StoreMode::Replace) {
            self.count_cas(stored.status);
        }
        let facts = Facts {
            cas: stored.cas,
            client_flags: 0,
            is_fetched: false,
            unread_s: 0,
            is_key_binary: target.key.is_binary(),
            bytes: stored.bytes,
            ttl_s: None,
        };
        Self::meta_status(target, stored.status, Status::Ok, Some((LETTERS, &facts)), out);
        Ok(())
    }

    fn count_cas(&self, status: Status) {
        match status {
            Status::Ok => &self.class_found().cas_hits,
            Status::NotFound => &self.counters.cas_misses,
            _ => &self.class_found().cas_badval,
        }
        .add(1);
    }

    /// Rule L5: an overwrite with what does not fit by itself takes the old item with it, in any mode of `ms`. The error to answer.
    pub(super) fn drop_overwritten(&self, target: &Target<'_>, error: WriteError) -> WriteError {
        if !is_no_room(&error) {
            return error;
        }
        let mut buffer = KEY_BUFFER;
        let deleted = self.shared.cache.delete(target.key.bytes(&mut buffer));
        deleted.err().unwrap_or(error)
    }

    /// The common cases, which the cache has calls for.
    fn store_plainly(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        mode: StoreMode,
        data: impl Given,
    ) -> Result<Stored, WriteError> {
        let (cache, attributes, bytes) = (&self.shared.cache, self.attributes(flags), data.bytes());
        let version = match mode {
            StoreMode::Set => data.set(cache, key, attributes).map(Some),
            StoreMode::Add => data.add(cache, key, attributes),
            StoreMode::Replace => data.replace(cache, key, attributes),
            StoreMode::Append => data.in_one_piece(|data| self.extend(Side::Back, key, data)),
            StoreMode::Prepend => data.in_one_piece(|data| self.extend(Side::Front, key, data)),
        }?;
        Ok(Stored {
            status: if version.is_some() { Status::Ok } else { Status::NotStored },
            cas: version.map_or(0, |version| self.shared.settings.shown_cas(version.0)),
            bytes,
        })
    }

    fn attributes(&self, flags: &Flags<'_>) -> Attributes {
        Attributes {
            flags: flags.client_flags().unwrap_or_default(),
            expiry: self.expiry(flags.ttl().unwrap_or_default()),
        }
    }

    /// Stores a whole value.
    fn store_with(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        mode: StoreMode,
        data: impl Given,
    ) -> Result<Stored, WriteError> {
        let (mut status, bytes) = (Status::Ok, data.bytes());
        let stored = data.store_if(&self.shared.cache, key, |item| {
            let decided = self.decide(item.as_ref(), flags, mode);
            status = decided.err().unwrap_or(Status::Ok);
            decided.ok()
        })?;
        Ok(Stored { status, cas: self.cas_of(flags, stored), bytes })
    }

    /// Adds to a value, or stores it where there is none.
    fn extend_with(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        mode: StoreMode,
        added: &[u8],
    ) -> Result<Stored, WriteError> {
        self.shared.cache.check_value_bytes(key, added.len())?;
        let (mut status, mut bytes, mut grows) = (Status::Ok, added.len(), false);
        let updated = self.shared.cache.update(key, |item| match self.decide(item.as_ref(), flags, mode) {
            Ok((attributes, state)) => {
                let value = extended(item.as_ref(), mode, added);
                (status, bytes, grows) = (Status::Ok, value.len(), item.is_some());
                Update::StoreWith { value, attributes, state }
            }
            Err(refusal) => {
                (status, bytes) = (refusal, added.len());
                Update::Keep
            }
        });
        let stored = match updated {
            Ok(Updated::Stored(version)) => Some(version),
            Ok(_) => None,
            // As in `Executor::extend`.
            Err(error) if grows && is_no_room(&error) => {
                (status, bytes) = (Status::NotStored, added.len());
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Stored { status, cas: self.cas_of(flags, stored), bytes })
    }

    fn cas_of(&self, flags: &Flags<'_>, stored: Option<Version>) -> u64 {
        stored.map_or(0, |version| self.shared.settings.shown_cas(flags.new_cas().unwrap_or(version.0)))
    }

    /// With what the value is stored (rules D8, D9).
    fn decide(
        &self,
        item: Option<&ItemRef<'_>>,
        flags: &Flags<'_>,
        mode: StoreMode,
    ) -> Result<(Attributes, ItemState), Status> {
        match item {
            Some(item) => self.decide_over(item, flags, mode),
            None => self.decide_new(flags, mode),
        }
    }

    /// What is stored under an absent key (rules D8, D9).
    fn decide_new(&self, flags: &Flags<'_>, mode: StoreMode) -> Result<(Attributes, ItemState), Status> {
        let attributes = self.attributes(flags);
        let attributes = match mode {
            StoreMode::Set | StoreMode::Replace if flags.compare_cas().is_some() => {
                return Err(Status::NotFound);
            }
            StoreMode::Set | StoreMode::Add => attributes,
            StoreMode::Replace => return Err(Status::NotStored),
            StoreMode::Append | StoreMode::Prepend => {
                let vivify_ttl = flags.vivify_ttl().ok_or(Status::NotStored)?;
                Attributes { expiry: self.expiry(vivify_ttl), ..attributes }
            }
        };
        Ok((attributes, fresh_state(flags)))
    }

    /// What is stored over an item (rules D8, D9).
    fn decide_over(
        &self,
        item: &ItemRef<'_>,
        flags: &Flags<'_>,
        mode: StoreMode,
    ) -> Result<(Attributes, ItemState), Status> {
        let attributes = self.attributes(flags);
        let fresh = fresh_state(flags);
        if mode == StoreMode::Add {
            // Whatever its CAS is (rule D9).
            return Err(Status::NotStored);
        }
        if is_extension(mode) {
            if !is_cas_right_unless_0(flags, item) {
                return Err(Status::Exists);
            }
            let state = ItemState { is_key_binary: item.state.is_key_binary, ..fresh };
            return Ok((Attributes { flags: item.flags, expiry: expiry_of(item) }, state));
        }
        if !is_cas_right(flags, item) {
            // 0 is nobody's CAS, not an old one (rule C2).
            let is_older = flags.compare_cas().is_some_and(|cas| cas != 0 && cas < item.cas());
            if !flags.has(b'I') || !is_older {
                return Err(Status::Exists);
            }
            // Somebody changed or marked the item since this client read it: its value is kept, but as a stale one.
            let state = ItemState { is_stale: true, is_token_sent: item.state.is_token_sent, ..fresh };
            return Ok((Attributes { expiry: expiry_of(item), ..attributes }, state));
        }
        Ok((attributes, fresh))
    }

    pub(super) fn meta_delete(&self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let flags = &target.flags;
        let is_plain = !flags.has(b'I') && !flags.has(b'x') && flags.compare_cas().is_none();
        let status = match is_plain {
            true if self.shared.cache.delete(key)? => Status::Ok,
            true => Status::NotFound,
            false => self.delete_with(key, flags)?,
        };
        // An item that is marked or emptied is still there, and one with another CAS was not found, as memcached counts.
        let is_removed = status == Status::Ok && !flags.has(b'I') && !flags.has(b'x');
        self.saw_delete(key, is_removed);
        if is_removed {
            self.class_found().delete_hits.add(1);
        } else if status != Status::Ok {
            self.counters.delete_misses.add(1);
        }
        Self::meta_status(target, status, Status::Ok, None, out);
        Ok(())
    }

    /// Deletes on a condition, or leaves a stale or empty item (rule D11).
    fn delete_with(&self, key: &[u8], flags: &Flags<'_>) -> Result<Status, WriteError> {
        let mut status = Status::Ok;
        let mut stays_fetched = false;
        self.shared.cache.update(key, |item| {
            stays_fetched = false;
            let Some(item) = item else {
                status = Status::NotFound;
                return Update::Keep;
            };
            if !is_cas_right(flags, &item) {
                status = Status::Exists;
                return Update::Keep;
            }
            status = Status::Ok;
            let (marks_stale, empties) = (flags.has(b'I'), flags.has(b'x'));
            if !marks_stale && !empties {
                return Update::Remove;
            }
            let expiry = match flags.ttl() {
                Some(ttl) => self.expiry(ttl),
                None if empties => Expiry::Never,
                None => expiry_of(&item),
            };
            let (value, client_flags) = match empties {
                true => (Bytes::new(), flags.client_flags().unwrap_or_default()),
                false => (item.value.to_vec().into(), item.flags),
            };
            stays_fetched = item.is_fetched && !empties;
            let kept_cas = (!marks_stale).then(|| item.cas());
            Update::StoreWith {
                value,
                attributes: Attributes { flags: client_flags, expiry },
                state: ItemState {
                    client_cas: flags.new_cas().or(kept_cas),
                    is_stale: marks_stale,
                    is_token_sent: false,
                    is_key_binary: item.state.is_key_binary,
                },
            }
        })?;
        if stays_fetched {
            // The item is kept, and that it was read; what was stored anew counts as unread.
            self.count_as_read(key);
        }
        Ok(status)
    }
}

fn is_extension(mode: StoreMode) -> bool {
    matches!(mode, StoreMode::Append | StoreMode::Prepend)
}

/// Whether the cache has a call for it.
fn is_plain(flags: &Flags<'_>, mode: StoreMode) -> bool {
    if flags.compare_cas().is_some() || flags.new_cas().is_some() {
        return false;
    }
    match is_extension(mode) {
        true => flags.vivify_ttl().is_none() && !flags.has(b's'),
        // That a key was given encoded is kept with the item (rule M3), and stays with one that grows.
        false => !flags.has(b'b'),
    }
}

/// The item's value, if there is one, with more behind or before it.
fn extended(item: Option<&ItemRef<'_>>, mode: StoreMode, added: &[u8]) -> Bytes {
    let Some(item) = item else { return Bytes::copy_from_slice(added) };
    let mut value = Vec::with_capacity(item.value.len() + added.len());
    if mode == StoreMode::Prepend {
        value.extend_from_slice(added);
    }
    item.value.append_to(&mut value);
    if mode == StoreMode::Append {
        value.extend_from_slice(added);
    }
    value.into()
}

/// The state that an ordinary store gives.
fn fresh_state(flags: &Flags<'_>) -> ItemState {
    ItemState { client_cas: flags.new_cas(), is_key_binary: flags.has(b'b'), ..ItemState::default() }
}

/// What watchers are told of a store (rule G8).
fn status_word(stored: Result<Status, &WriteError>) -> &'static str {
    match stored {
        Ok(Status::Ok) => "stored",
        Ok(Status::Exists) => "exists",
        Ok(Status::NotFound) => "not_found",
        Err(WriteError::ItemTooLarge { .. }) => "too_large",
        Err(WriteError::OutOfMemory { .. }) => "no_memory",
        _ => "not_stored",
    }
}

/// The classic command that does the same.
fn command_word(mode: StoreMode, flags: &Flags<'_>) -> &'static str {
    match mode {
        StoreMode::Set | StoreMode::Replace if flags.compare_cas().is_some() => "cas",
        StoreMode::Set => "set",
        StoreMode::Add => "add",
        StoreMode::Append => "append",
        StoreMode::Prepend => "prepend",
        StoreMode::Replace => "replace",
    }
}
