//! A value that is to be stored: bytes that have come with their request, or one that was written into the cache as it came.
//!
//! Lives here: each way of storing, for either. Not here: which values are taken as they come (see
//! `connection::incoming`).

use bytes::Bytes;
use hotspare::{
    Attributes, Cache, ItemRef, ItemState, Swap, Update, Updated, ValueWriter, Version, WriteError,
};

/// Values up to this length are never refused because others come slowly, in bytes: memcached takes them on any server, and a
/// connection may hold as much of any other request.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A large value as it is begun.
pub(super) fn begun(value: ValueWriter) -> ValueWriter {
    if value.value_bytes() <= KEPT_BYTES_MAX { value.or_on_heap() } else { value }
}

/// Stored under the key and with the attributes that it was begun with, if it was written as it came.
pub(super) trait Given: Sized {
    /// The value's length, in bytes.
    fn bytes(&self) -> usize;

    fn set(self, cache: &Cache, key: &[u8], attributes: Attributes) -> Result<Version, WriteError>;

    fn add(self, cache: &Cache, key: &[u8], attributes: Attributes) -> Result<Option<Version>, WriteError>;

    fn replace(
        self,
        cache: &Cache,
        key: &[u8],
        attributes: Attributes,
    ) -> Result<Option<Version>, WriteError>;

    fn swap(
        self,
        cache: &Cache,
        key: &[u8],
        expected: Version,
        attributes: Attributes,
    ) -> Result<Swap, WriteError>;

    /// Stores it if `decide` says with what.
    fn store_if(
        self,
        cache: &Cache,
        key: &[u8],
        decide: impl FnMut(Option<ItemRef<'_>>) -> Option<(Attributes, ItemState)>,
    ) -> Result<Option<Version>, WriteError>;

    /// Runs this on the value in one piece, for what is added to another value.
    fn in_one_piece<R>(self, run: impl FnOnce(&[u8]) -> Result<R, WriteError>) -> Result<R, WriteError>;
}

impl Given for &[u8] {
    #[inline]
    fn bytes(&self) -> usize {
        self.len()
    }

    #[inline]
    fn set(self, cache: &Cache, key: &[u8], attributes: Attributes) -> Result<Version, WriteError> {
        cache.set(key, self, attributes)
    }

    fn add(self, cache: &Cache, key: &[u8], attributes: Attributes) -> Result<Option<Version>, WriteError> {
        cache.add(key, self, attributes)
    }

    fn replace(
        self,
        cache: &Cache,
        key: &[u8],
        attributes: Attributes,
    ) -> Result<Option<Version>, WriteError> {
        cache.replace(key, self, attributes)
    }

    fn swap(
        self,
        cache: &Cache,
        key: &[u8],
        expected: Version,
        attributes: Attributes,
    ) -> Result<Swap, WriteError> {
        cache.compare_and_swap(key, expected, self, attributes)
    }

    fn store_if(
        self,
        cache: &Cache,
        key: &[u8],
        mut decide: impl FnMut(Option<ItemRef<'_>>) -> Option<(Attributes, ItemState)>,
    ) -> Result<Option<Version>, WriteError> {
        let updated = cache.update(key, |item| match decide(item) {
            Some((attributes, state)) => {
                Update::StoreWith { value: Bytes::copy_from_slice(self), attributes, state }
            }
            None => Update::Keep,
        })?;
        Ok(match updated {
            Updated::Stored(version) => Some(version),
            Updated::Kept | Updated::Removed => None,
        })
    }

    #[inline]
    fn in_one_piece<R>(self, run: impl FnOnce(&[u8]) -> Result<R, WriteError>) -> Result<R, WriteError> {
        run(self)
    }
}

impl Given for ValueWriter {
    fn bytes(&self) -> usize {
        self.value_bytes()
    }

    fn set(self, _cache: &Cache, _key: &[u8], _attributes: Attributes) -> Result<Version, WriteError> {
        ValueWriter::set(self)
    }

    fn add(
        self,
        _cache: &Cache,
        _key: &[u8],
        _attributes: Attributes,
    ) -> Result<Option<Version>, WriteError> {
        ValueWriter::add(self)
    }

    fn replace(
        self,
        _cache: &Cache,
        _key: &[u8],
        _attributes: Attributes,
    ) -> Result<Option<Version>, WriteError> {
        ValueWriter::replace(self)
    }

    fn swap(
        self,
        _cache: &Cache,
        _key: &[u8],
        expected: Version,
        _attributes: Attributes,
    ) -> Result<Swap, WriteError> {
        self.compare_and_swap(expected)
    }

    fn store_if(
        self,
        _cache: &Cache,
        _key: &[u8],
        mut decide: impl FnMut(Option<ItemRef<'_>>) -> Option<(Attributes, ItemState)>,
    ) -> Result<Option<Version>, WriteError> {
        self.set_if(|item| decide(item).map(|(attributes, state)| (attributes.expiry, state)))
    }

    fn in_one_piece<R>(self, run: impl FnOnce(&[u8]) -> Result<R, WriteError>) -> Result<R, WriteError> {
        run(&self.into_value()?)
    }
}
