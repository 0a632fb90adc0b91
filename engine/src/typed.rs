//! Caches of structs: keys and values by serde, as compact bytes.
//!
//! Lives here: [`Typed`], and how its keys and values are encoded. Not here: bytes by key (see `cache`).
//!
//! ```text
//!   key:    name | 0 | postcard of the key              value:  type version u16, little end first | postcard of the value
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, LoadError, LoadPolicy, Value};
use crate::error::{ReadError, WriteError};
use crate::mutation::{Attributes, Expiry, Version};

/// The longest name of a typed cache, in bytes.
const NAME_BYTES_MAX: usize = 64;
const TYPE_VERSION_BYTES: usize = 2;

/// A view of a [`Cache`] whose keys and values are types of serde's.
///
/// ```
/// use hotspare::{Cache, Config, Typed};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct User { name: String }
///
/// let cache = Cache::new(Config::new())?;
/// let users: Typed<u64, User> = Typed::new(&cache, "user", 1)?;
/// users.set(&7, &User { name: "Ada".to_owned() }, Duration::from_secs(60))?;
/// assert_eq!(users.get(&7)?.unwrap().name, "Ada");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Many views may share one cache under different names. A value that does not decode (written by other code under the
/// same name, or under another type version) is a miss, and counted in
/// [`Stats::get_undecodable`](crate::Stats::get_undecodable). Give the type version another number whenever the value's
/// type changes: postcard keeps no field names, so bytes of the old type could decode as something else.
pub struct Typed<K: ?Sized, V> {
    cache: Cache,
    prefix: Box<[u8]>,
    type_version: u16,
    types: PhantomData<fn(&K) -> V>,
}

impl<K: ?Sized, V> Clone for Typed<K, V> {
    fn clone(&self) -> Self {
        Typed {
            cache: self.cache.clone(),
            prefix: self.prefix.clone(),
            type_version: self.type_version,
            types: PhantomData,
        }
    }
}

impl<K: ?Sized, V> fmt::Debug for Typed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.prefix[..self.prefix.len() - 1];
        f.debug_struct("Typed")
            .field("name", &String::from_utf8_lossy(name))
            .field("type_version", &self.type_version)
            .finish_non_exhaustive()
    }
}

/// Why an operation of a typed cache was refused. What does not decode is no error, but a miss.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedError {
    /// The name is empty, too long, or has a zero byte.
    Name,
    /// The key or the value can't be encoded; the message is postcard's or serde's.
    Encode(String),
    /// The read was refused.
    Read(ReadError),
    /// The write was refused.
    Write(WriteError),
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypedError::Name => {
                write!(f, "a typed cache's name has 1 to {NAME_BYTES_MAX} bytes, none of them zero")
            }
            TypedError::Encode(message) => write!(f, "key or value can't be encoded: {message}"),
            TypedError::Read(error) => error.fmt(f),
            TypedError::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TypedError {}

impl From<ReadError> for TypedError {
    fn from(error: ReadError) -> Self {
        TypedError::Read(error)
    }
}

impl From<WriteError> for TypedError {
    fn from(error: WriteError) -> Self {
        TypedError::Write(error)
    }
}

impl From<postcard::Error> for TypedError {
    fn from(error: postcard::Error) -> Self {
        TypedError::Encode(error.to_string())
    }
}

impl<E> From<postcard::Error> for LoadError<E> {
    fn from(error: postcard::Error) -> Self {
        LoadError::Encode(error.to_string())
    }
}

impl<K: Serialize + ?Sized, V: Serialize + DeserializeOwned> Typed<K, V> {
    /// The view of this name, with values of this version of their type.
    ///
    /// # Errors
    /// [`TypedError::Name`].
    pub fn new(cache: &Cache, name: &str, type_version: u16) -> Result<Typed<K, V>, TypedError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            return Err(TypedError::Name);
        }
        let prefix = [name.as_bytes(), &[0]].concat().into();
        Ok(Typed { cache: cache.clone(), prefix, type_version, types: PhantomData })
    }

    /// The cache beneath.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The value under `key`; `None` if it is absent, expired, flushed, or does not decode.
    ///
    /// # Errors
    /// The key can't be encoded or is too long as bytes, or the read was refused.
    pub fn get(&self, key: &K) -> Result<Option<V>, TypedError> {
        let key = self.key(key)?;
        let decoded = self.cache.read(&key, |item| self.decode_value(item.value))?;
        Ok(decoded.and_then(|decoded| self.or_count(decoded)))
    }

    /// Stores, whatever is there.
    ///
    /// # Errors
    /// Key or value can't be encoded, or the write was refused.
    pub fn set(&self, key: &K, value: &V, attributes: impl Into<Attributes>) -> Result<Version, TypedError> {
        Ok(self.cache.set(self.key(key)?, self.encode(value)?, attributes)?)
    }

    /// Stores if the key is absent; `None` if it is present.
    ///
    /// # Errors
    /// As [`Typed::set`].
    pub fn add(
        &self,
        key: &K,
        value: &V,
        attributes: impl Into<Attributes>,
    ) -> Result<Option<Version>, TypedError> {
        Ok(self.cache.add(self.key(key)?, self.encode(value)?, attributes)?)
    }

    /// Reads many values, in the order of the keys: see [`Cache::get_many`].
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub fn get_many<'k>(&self, keys: impl IntoIterator<Item = &'k K>) -> Result<Vec<Option<V>>, TypedError>
    where
        K: 'k,
    {
        let keys = keys.into_iter().map(|key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
        let mut values = Vec::with_capacity(keys.len());
        self.cache.read_many(&keys, |_, item| {
            values.push(item.map(|item| self.decode_value(item.value)));
        })?;
        Ok(values.into_iter().map(|value| value.and_then(|decoded| self.or_count(decoded))).collect())
    }

    /// Gives the value another expiry; whether the key was present.
    ///
    /// # Errors
    /// The key can't be encoded, or the write was refused.
    pub fn touch(&self, key: &K, expiry: impl Into<Expiry>) -> Result<bool, TypedError> {
        Ok(self.cache.touch(self.key(key)?, expiry)?)
    }

    /// Removes; whether the key was present.
    ///
    /// # Errors
    /// The key can't be encoded, or the write was refused.
    pub fn delete(&self, key: &K) -> Result<bool, TypedError> {
        Ok(self.cache.delete(self.key(key)?)?)
    }

    /// Makes every value of this view absent, in constant time: see [`Cache::invalidate_prefix`].
    ///
    /// # Errors
    /// The write was refused, or too many prefixes were invalidated.
    pub fn clear(&self) -> Result<(), TypedError> {
        Ok(self.cache.invalidate_prefix(&self.prefix)?)
    }

    /// The value under `key`; one that is not there, or does not decode, is loaded, once for all who want it: see
    /// [`Cache::get_or_load`].
    ///
    /// # Errors
    /// The loader's own, or the key or the loaded value can't be encoded, or the cache refused the key.
    pub fn get_or_load<E: Send + Sync + 'static>(
        &self,
        key: &K,
        policy: impl Into<LoadPolicy>,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, LoadError<E>> {
        let (key, policy, mut load) = (self.key(key)?, policy.into(), Some(load));
        let mut failed = None;
        // The second time what did not decode is gone; on a node that takes no writes it is not, and is loaded aside.
        for _ in 0..2 {
            let bytes = self.cache.get_or_load(&key, policy, || {
                let load = load.take().expect("what was loaded ends this");
                let loaded = load().map_err(|error| Loading::loader(error, &mut failed))?;
                Ok::<_, Loading<E>>(self.encode(&loaded)?)
            });
            match self.decode(&bytes.map_err(Loading::unwrapped)?) {
                Some(value) => return Ok(value),
                None => self.drop_undecodable(&key),
            }
            if load.is_none() {
                break;
            }
        }
        match load {
            Some(load) => load().map_err(|error| LoadError::Loader(Arc::new(error))),
            None => Err(undecodable(failed)),
        }
    }

    /// As [`Typed::get_or_load`], from a future: see [`Cache::get_or_load_async`].
    ///
    /// # Errors
    /// As [`Typed::get_or_load`].
    pub async fn get_or_load_async<E: Send + Sync + 'static>(
        &self,
        key: &K,
        policy: impl Into<LoadPolicy>,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, LoadError<E>> {
        let (key, policy) = (self.key(key)?, policy.into());
        let mut load = std::pin::pin!(load);
        for _ in 0..2 {
            let (mut was_loaded, mut failed) = (false, None);
            let bytes = self.cache.get_or_load_async(&key, policy, async {
                was_loaded = true;
                let loaded = load.as_mut().await.map_err(|error| Loading::loader(error, &mut failed))?;
                Ok::<_, Loading<E>>(self.encode(&loaded)?)
            });
            match self.decode(&bytes.await.map_err(Loading::unwrapped)?) {
                Some(value) => return Ok(value),
                None if was_loaded => return Err(undecodable(failed)),
                None => self.drop_undecodable(&key),
            }
        }
        load.await.map_err(|error| LoadError::Loader(Arc::new(error)))
    }

    fn key(&self, key: &K) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(key, self.prefix.to_vec())
    }

    fn encode(&self, value: &V) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(value, self.type_version.to_le_bytes().to_vec())
    }

    fn decode_value(&self, value: Value<'_>) -> Option<V> {
        match value.as_slice() {
            Some(bytes) => self.decode(bytes),
            None => self.decode(&value.to_vec()),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<V> {
        let (type_version, encoded) = bytes.split_at_checked(TYPE_VERSION_BYTES)?;
        if type_version != self.type_version.to_le_bytes() {
            return None;
        }
        let (value, rest) = postcard::take_from_bytes(encoded).ok()?;
        rest.is_empty().then_some(value)
    }

    fn or_count(&self, decoded: Option<V>) -> Option<V> {
        if decoded.is_none() {
            self.cache.count_undecodable();
        }
        decoded
    }

    /// A value of another encoding makes room for one of ours.
    fn drop_undecodable(&self, key: &[u8]) {
        self.cache.count_undecodable();
        // Where it can't be removed it stays a miss.
        let is_undecodable = |item: crate::cache::ItemRef<'_>| self.decode(&item.value.to_vec()).is_none();
        let _ = self.cache.remove_if(key, is_undecodable);
    }
}

/// Of bytes that were had from a load, or in its place because it failed.
fn undecodable<E>(failed: Option<Arc<E>>) -> LoadError<E> {
    match failed {
        Some(error) => LoadError::Loader(error),
        None => LoadError::Encode("what was encoded does not decode".to_owned()),
    }
}

/// Why a load of ours failed, on its way through the cache's.
enum Loading<E> {
    Loader(Arc<E>),
    Encode(String),
}

impl<E> From<postcard::Error> for Loading<E> {
    fn from(error: postcard::Error) -> Self {
        Loading::Encode(error.to_string())
    }
}

impl<E> Loading<E> {
    /// Keeps the error besides: the cache may have a stale value instead, and that may not decode.
    fn loader(error: E, failed: &mut Option<Arc<E>>) -> Loading<E> {
        Loading::Loader(failed.insert(Arc::new(error)).clone())
    }

    fn unwrapped(error: LoadError<Loading<E>>) -> LoadError<E> {
        match error {
            LoadError::Cache(error) => LoadError::Cache(error),
            LoadError::Encode(message) => LoadError::Encode(message),
            LoadError::Loader(error) => match &*error {
                Loading::Loader(error) => LoadError::Loader(error.clone()),
                Loading::Encode(message) => LoadError::Encode(message.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
