//! `ms` and `md`: storing, deleting, and marking as stale (rules D8 to D11).

use bytes::Bytes;
use hotspare::{Attributes, Expiry, ItemRef, ItemState, Update, Updated, WriteError};
use hotspare_memcached::meta::{Flags, Status, StoreMode, Target};

use super::super::commands::Executor;
use super::super::observers::SeenStore;
use super::{Facts, KEY_BUFFER, expiry_of, is_cas_right};

/// What `ms` tells of an item.
const LETTERS: &[u8] = b"cs";

/// What a store came to; the CAS is 0 if nothing was stored (rule D8).
struct Stored {
    status: Status,
    cas: u64,
    bytes: usize,
}

impl Executor<'_> {
    pub(super) fn meta_store(
        &self,
        target: &Target<'_>,
        mode: StoreMode,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let flags = &target.flags;
        let stored = match self.store_plainly(key, flags, mode, data) {
            Some(stored) => stored,
            None => self.store_with(key, flags, mode, data),
        };
        let status = status_word(stored.as_ref().map(|stored| stored.status));
        let (command, attributes) = (command_word(mode, flags), self.attributes(flags));
        self.saw_store(key, SeenStore { command, status, value_bytes: data.len(), attributes });
        let stored = stored.map_err(|error| self.drop_overwritten(target, error))?;
        self.count_store(key, data, attributes);
        if flags.compare_cas.is_some() && matches!(mode, StoreMode::Set | StoreMode::Replace) {
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

    /// Rule L5: an overwrite that fails takes the old item with it, in any mode of `ms`. The error to answer.
    pub(super) fn drop_overwritten(&self, target: &Target<'_>, error: WriteError) -> WriteError {
        match error {
            WriteError::ItemTooLarge { .. } | WriteError::OutOfMemory { .. } => {
                let mut buffer = KEY_BUFFER;
                let deleted = self.shared.cache.delete(target.key.bytes(&mut buffer));
                deleted.err().unwrap_or(error)
            }
            other => other,
        }
    }

    /// The common cases, which the cache has calls for; `None` where it is not so simple.
    fn store_plainly(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        mode: StoreMode,
        data: &[u8],
    ) -> Option<Result<Stored, WriteError>> {
        if flags.compare_cas.is_some() || flags.new_cas.is_some() {
            return None;
        }
        let cache = &self.shared.cache;
        let attributes = self.attributes(flags);
        let is_extension = matches!(mode, StoreMode::Append | StoreMode::Prepend);
        // That a key was given encoded is kept with the item (rule M3), and stays with one that grows.
        if flags.has(b'b') && !is_extension {
            return None;
        }
        if is_extension && (flags.vivify_ttl.is_some() || flags.has(b's')) {
            return None;
        }
        let version = match mode {
            StoreMode::Set => cache.set(key, data, attributes).map(Some),
            StoreMode::Add => cache.add(key, data, attributes),
            StoreMode::Replace => cache.replace(key, data, attributes),
            StoreMode::Append => cache.append(key, data),
            StoreMode::Prepend => cache.prepend(key, data),
        };
        Some(version.map(|version| Stored {
            status: if version.is_some() { Status::Ok } else { Status::NotStored },
            cas: version.map_or(0, |version| self.shared.settings.shown_cas(version.0)),
            bytes: data.len(),
        }))
    }

    fn attributes(&self, flags: &Flags<'_>) -> Attributes {
        Attributes {
            flags: flags.client_flags.unwrap_or_default(),
            expiry: self.expiry(flags.ttl.unwrap_or_default()),
        }
    }

    fn store_with(
        &self,
        key: &[u8],
        flags: &Flags<'_>,
        mode: StoreMode,
        data: &[u8],
    ) -> Result<Stored, WriteError> {
        let mut status = Status::Ok;
        let mut bytes = data.len();
        let updated = self.shared.cache.update(key, |item| {
            let decided = match item {
                Some(item) => self.store_over(&item, flags, mode, data),
                None => self.store_new(flags, mode, data),
            };
            match decided {
                Ok((value, attributes, state)) => {
                    (status, bytes) = (Status::Ok, value.len());
                    Update::StoreWith { value, attributes, state }
                }
                Err(refusal) => {
                    (status, bytes) = (refusal, data.len());
                    Update::Keep
                }
            }
        })?;
        let cas = match updated {
            Updated::Stored(version) => self.shared.settings.shown_cas(flags.new_cas.unwrap_or(version.0)),
            _ => 0,
        };
        Ok(Stored { status, cas, bytes })
    }

    /// What is stored under an absent key (rules D8, D9).
    fn store_new(
        &self,
        flags: &Flags<'_>,
        mode: StoreMode,
        data: &[u8],
    ) -> Result<(Bytes, Attributes, ItemState), Status> {
        let attributes = self.attributes(flags);
        let attributes = match mode {
            StoreMode::Set | StoreMode::Replace if flags.compare_cas.is_some() => {
                return Err(Status::NotFound);
            }
            StoreMode::Set | StoreMode::Add => attributes,
            StoreMode::Replace => return Err(Status::NotStored),
            StoreMode::Append | StoreMode::Prepend => {
                let vivify_ttl = flags.vivify_ttl.ok_or(Status::NotStored)?;
                Attributes { expiry: self.expiry(vivify_ttl), ..attributes }
            }
        };
        let state = fresh_state(flags);
        Ok((Bytes::copy_from_slice(data), attributes, state))
    }

    /// What is stored over an item (rules D8, D9).
    fn store_over(
        &self,
        item: &ItemRef<'_>,
        flags: &Flags<'_>,
        mode: StoreMode,
        data: &[u8],
    ) -> Result<(Bytes, Attributes, ItemState), Status> {
        let attributes = self.attributes(flags);
        let fresh = fresh_state(flags);
        let is_extension = matches!(mode, StoreMode::Append | StoreMode::Prepend);
        if mode == StoreMode::Add {
            // Whatever its CAS is (rule D9).
            return Err(Status::NotStored);
        }
        if !is_cas_right(flags, item) {
            // 0 is nobody's CAS, not an old one (rule C2).
            let is_older = flags.compare_cas.is_some_and(|cas| cas != 0 && cas < item.cas());
            if is_extension || !flags.has(b'I') || !is_older {
                return Err(Status::Exists);
            }
            // Somebody changed or marked the item since this client read it: its value is kept, but as a stale one.
            let state = ItemState { is_stale: true, is_token_sent: item.state.is_token_sent, ..fresh };
            let attributes = Attributes { expiry: expiry_of(item), ..attributes };
            return Ok((Bytes::copy_from_slice(data), attributes, state));
        }
        if !is_extension {
            return Ok((Bytes::copy_from_slice(data), attributes, fresh));
        }
        let mut value = Vec::with_capacity(item.value.len() + data.len());
        if mode == StoreMode::Prepend {
            value.extend_from_slice(data);
        }
        item.value.append_to(&mut value);
        if mode == StoreMode::Append {
            value.extend_from_slice(data);
        }
        let state = ItemState { is_key_binary: item.state.is_key_binary, ..fresh };
        Ok((value.into(), Attributes { flags: item.flags, expiry: expiry_of(item) }, state))
    }

    pub(super) fn meta_delete(&self, target: &Target<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut buffer = KEY_BUFFER;
        let key = target.key.bytes(&mut buffer);
        let flags = &target.flags;
        let is_plain = !flags.has(b'I') && !flags.has(b'x') && flags.compare_cas.is_none();
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
            let expiry = match flags.ttl {
                Some(ttl) => self.expiry(ttl),
                None if empties => Expiry::Never,
                None => expiry_of(&item),
            };
            let (value, client_flags) = match empties {
                true => (Bytes::new(), flags.client_flags.unwrap_or_default()),
                false => (item.value.to_vec().into(), item.flags),
            };
            stays_fetched = item.is_fetched && !empties;
            let kept_cas = (!marks_stale).then(|| item.cas());
            Update::StoreWith {
                value,
                attributes: Attributes { flags: client_flags, expiry },
                state: ItemState {
                    client_cas: flags.new_cas.or(kept_cas),
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

/// The state that an ordinary store gives.
fn fresh_state(flags: &Flags<'_>) -> ItemState {
    ItemState { client_cas: flags.new_cas, is_key_binary: flags.has(b'b'), ..ItemState::default() }
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
        StoreMode::Set | StoreMode::Replace if flags.compare_cas.is_some() => "cas",
        StoreMode::Set => "set",
        StoreMode::Add => "add",
        StoreMode::Append => "append",
        StoreMode::Prepend => "prepend",
        StoreMode::Replace => "replace",
    }
}
