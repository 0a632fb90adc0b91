//! Reading through: a value that is not there is loaded, once for all who want it.
//!
//! Lives here: `get_or_load` in its forms, and [`Lookup`] beneath them. Not here: single flight itself (see `flight`),
//! one load for a whole group (see `sharing`), lifetimes (see `policy`).

#[cfg(not(feature = "serde"))]
mod alone;
#[cfg(feature = "serde")]
mod desk;
mod flight;
#[cfg(feature = "serde")]
mod leases;
mod policy;
#[cfg(feature = "serde")]
mod sharing;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{ReadError, WriteError};
use crate::mutation::{Attributes, Expiry, Marks, Version};
use crate::storage::Meta;

#[cfg(not(feature = "serde"))]
pub(crate) use alone::LoadLeases;
#[cfg(feature = "serde")]
pub(crate) use desk::Desk;
pub(crate) use flight::Flights;
use flight::{Arrival, Flight, Outcome};
pub use flight::{Lease, Waiting};
#[cfg(feature = "serde")]
pub(crate) use leases::{LoadLease, LoadLeases};
pub use policy::LoadPolicy;
#[cfg(feature = "serde")]
pub(crate) use sharing::Lent;

use super::{Cache, Group, Inner};

/// Why there is no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader failed. All who waited for it share its error.
    Loader(Arc<E>),
    /// The key's length is out of range, or the call came from inside a read.
    Cache(ReadError),
    /// A typed key or value can't be encoded, or does not decode again; the message is postcard's or serde's.
    Encode(String),
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Loader(error) => write!(f, "the value could not be loaded: {error}"),
            LoadError::Cache(error) => error.fmt(f),
            LoadError::Encode(message) => write!(f, "key or value can't be encoded: {message}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Loader(error) => Some(&**error),
            LoadError::Cache(error) => Some(error),
            LoadError::Encode(_) => None,
        }
    }
}

impl<E> From<ReadError> for LoadError<E> {
    fn from(error: ReadError) -> Self {
        LoadError::Cache(error)
    }
}

/// What is known of a key, and who is to load it.
#[derive(Debug)]
pub enum Lookup {
    /// The value is there; `None` if it is known that the source has none.
    Found(Option<Bytes>),
    /// A value is there that should be loaded anew, by whoever holds the lease; others see it as found. Use the value,
    /// and move the lease to a thread or task that loads (stale-while-revalidate).
    Due(Bytes, Lease),
    /// Nothing is there: load it.
    Absent(Lease),
    /// Nothing is there, and somebody else loads it.
    Loading(Waiting),
    /// Nothing is there, and this very thread is loading it already: a loader asked for its own key.
    Recursive,
}

/// What a load stores.
enum Store<'a> {
    Value(&'a Bytes, Attributes),
    Absence(Expiry),
}

/// What a load is wanted for.
struct Wanted<'a> {
    key: &'a [u8],
    policy: LoadPolicy,
    /// The version of the value that is there, and due.
    replaces: Option<Version>,
    /// Whether a replica asks its primary for the right to load: whoever does waits for the answer.
    asks: bool,
}

/// Where a load takes place.
enum Place {
    /// On this node, at once.
    Here,
    /// Perhaps on another one: the flight waits for the group.
    #[cfg_attr(not(feature = "serde"), expect(dead_code, reason = "there is no other node"))]
    Elsewhere,
    /// On another one, while the value that is there will do.
    #[cfg_attr(not(feature = "serde"), expect(dead_code, reason = "there is no other node"))]
    Refreshed,
}

/// What is stored under a key.
enum Look {
    Value { value: Bytes, version: Version, expires_at_ms: u64 },
    Absence,
    Nothing,
}

/// What one who wants a value does next.
enum Step {
    Answer(Option<Bytes>),
    Failed(Arc<dyn std::any::Any + Send + Sync>),
    /// Load, for all with a lease; if that fails there may be a value that will do.
    Load(Option<Lease>, Option<Bytes>),
    /// Wait for another load; if another node does it there may be a value that will do.
    Wait(Waiting, Option<Bytes>),
    Again,
}

impl Cache {
    /// The value under `key`; one that is not there is loaded and stored. Of all threads and tasks that want the same
    /// key only one loads, the others wait for it and get what it got, its error included. If the loader panics, the
    /// next of them loads.
    ///
    /// ```
    /// # use hotspare::{Cache, Config};
    /// use std::time::Duration;
    /// # let cache = Cache::new(Config::new())?;
    /// let user = cache.get_or_load("user:7", Duration::from_secs(60), || {
    ///     Ok::<_, std::io::Error>("Ada") // the database's answer
    /// })?;
    /// assert_eq!(&user[..], b"Ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// What was loaded is not stored if the key was written to meanwhile. Who waited for a loader whose error is of
    /// another type than its own asks its own loader.
    ///
    /// In a group one node loads for all: the primary, or a replica that answers reads
    /// ([`ReplicationConfig::replica_reads`](crate::ReplicationConfig::replica_reads)), which hands what it got to the
    /// primary to be stored. The others wait until it comes by the log; if the node that loads fails, gives up, dies or takes
    /// longer than [`LoadPolicy::lease_for`], one of them loads. Errors stay on their node. A replica that has lost its
    /// primary, or follows another replica, loads by itself and stores nothing; who waits already when the link ends, waits
    /// for at most 3 s more. That takes a [`Replicator`](crate::Replicator) which another thread or task drives.
    ///
    /// A loader that asks for its own key on the same thread loads by itself; two that ask for
    /// each other's keys on two threads wait for ever.
    ///
    /// # Errors
    /// The loader's own, or the key's length is out of range, or the call came from inside a read.
    pub fn get_or_load<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        policy: impl Into<LoadPolicy>,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<Bytes, LoadError<E>> {
        let load = || load().map(Some);
        let value = self.load_blocking(key.as_ref(), policy.into().without_absences(), load)?;
        Ok(value.expect("absences were not accepted"))
    }

    /// As [`Cache::get_or_load`], for a source that may have no value; with [`LoadPolicy::absent_for`] that is remembered
    /// as well. To all other operations a remembered absence is a miss.
    ///
    /// ```
    /// # use hotspare::{Cache, Config, LoadPolicy};
    /// use std::time::Duration;
    /// # let cache = Cache::new(Config::new())?;
    /// let policy = LoadPolicy::fresh_for(Duration::from_secs(60)).absent_for(Duration::from_secs(5));
    /// let mut asked = 0;
    /// for _ in 0..3 {
    ///     let nobody = cache.get_or_load_optional("user:0", policy, || {
    ///         asked += 1;
    ///         Ok::<Option<String>, std::io::Error>(None)
    ///     })?;
    ///     assert_eq!(nobody, None);
    /// }
    /// assert_eq!(asked, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub fn get_or_load_optional<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        policy: impl Into<LoadPolicy>,
        load: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Bytes>, LoadError<E>> {
        self.load_blocking(key.as_ref(), policy.into(), load)
    }

    /// As [`Cache::get_or_load`], but nobody waits while a value is there: one that is stale, or due to be refreshed, is
    /// returned at once, and the load is given to `spawn`, to be run elsewhere (stale-while-revalidate).
    ///
    /// ```
    /// # use hotspare::{Cache, Config, LoadPolicy};
    /// use std::time::Duration;
    /// # let cache = Cache::new(Config::new())?;
    /// let policy = LoadPolicy::fresh_for(Duration::from_secs(60)).stale_for(Duration::from_secs(600));
    /// let query = || Ok::<_, std::io::Error>("Ada");
    /// let name = cache.get_or_revalidate("user:7", policy, query, |load| {
    ///     std::thread::spawn(load);
    /// })?;
    /// assert_eq!(&name[..], b"Ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]. An error of a load that was spawned is logged.
    pub fn get_or_revalidate<V: Into<Bytes>, E: fmt::Display + Send + Sync + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        policy: impl Into<LoadPolicy>,
        load: impl FnOnce() -> Result<V, E> + Send + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>),
    ) -> Result<Bytes, LoadError<E>> {
        let (key, policy) = (key.as_ref(), policy.into().without_absences());
        match self.begin(key, policy)? {
            Step::Load(Some(lease), Some(value)) => {
                spawn(Box::new(move || load_anew(lease, load)));
                Ok(value)
            }
            Step::Wait(waiting, Some(value)) => {
                spawn(Box::new(move || {
                    if let Arrival::Lead(lease) = waiting.arrive() {
                        load_anew(lease, load);
                    }
                }));
                Ok(value)
            }
            step => {
                let value = self.load_from(step, key, policy, || load().map(Some))?;
                Ok(value.expect("absences were not accepted"))
            }
        }
    }

    /// As [`Cache::get_or_load`], from a future: it needs no runtime and works under any. The future is polled only if
    /// the value is to be loaded; if it is dropped in the middle, the next of those who wait loads. One that asks for
    /// its own key waits for itself for ever: a future has no thread by which that could be seen.
    ///
    /// ```
    /// # use hotspare::{Cache, Config};
    /// # use std::time::Duration;
    /// async fn name(cache: &Cache) -> String {
    ///     let load = async { Ok::<_, std::io::Error>("Ada") };
    ///     let name = cache.get_or_load_async("user:7", Duration::from_secs(60), load).await.unwrap();
    ///     String::from_utf8(name.to_vec()).unwrap()
    /// }
    /// # let _ = name;
    /// ```
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load_async<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        policy: impl Into<LoadPolicy>,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<Bytes, LoadError<E>> {
        let load = async { load.await.map(Some) };
        let value = self.load_awaiting(key.as_ref(), policy.into().without_absences(), load).await?;
        Ok(value.expect("absences were not accepted"))
    }

    /// As [`Cache::get_or_load_optional`], from a future.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load_optional_async<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: impl AsRef<[u8]>,
        policy: impl Into<LoadPolicy>,
        load: impl Future<Output = Result<Option<V>, E>>,
    ) -> Result<Option<Bytes>, LoadError<E>> {
        self.load_awaiting(key.as_ref(), policy.into(), load).await
    }

    /// What is known of a key, and who is to load it: the step beneath [`Cache::get_or_load`], for those who load in
    /// the background. See [`Lookup`].
    ///
    /// ```
    /// # use hotspare::{Cache, Config, LoadPolicy, Lookup};
    /// use std::time::Duration;
    /// # let cache = Cache::new(Config::new())?;
    /// let policy = LoadPolicy::fresh_for(Duration::from_secs(60)).stale_for(Duration::from_secs(600));
    /// let load = || "Ada";
    /// let name = match cache.lookup("user:7", policy)? {
    ///     Lookup::Found(name) => name,
    ///     Lookup::Due(stale, lease) => {
    ///         std::thread::spawn(move || lease.fill(load()));
    ///         Some(stale)
    ///     }
    ///     Lookup::Absent(lease) => Some(lease.fill(load())),
    ///     Lookup::Loading(waiting) => waiting.wait(),
    ///     Lookup::Recursive => None,
    /// };
    /// assert_eq!(name.unwrap(), "Ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// On a primary with replicas it takes the group's lease; on a replica it asks nobody, and what is filled there is not
    /// stored.
    ///
    /// # Errors
    /// The key's length is out of range, or the call came from inside a read.
    pub fn lookup(&self, key: impl AsRef<[u8]>, policy: impl Into<LoadPolicy>) -> Result<Lookup, ReadError> {
        Ok(self.seek(key.as_ref(), policy.into(), false)?.0)
    }

    /// [`Cache::lookup`]; a replica asks its primary if it is to. Besides a [`Lookup::Loading`] comes the value that is there
    /// and due.
    fn seek(&self, key: &[u8], policy: LoadPolicy, asks: bool) -> Result<(Lookup, Option<Bytes>), ReadError> {
        self.inner.check_read(key)?;
        loop {
            let seed = self.inner.hasher.seed();
            let hash = self.inner.hasher.hash(key);
            let due = match self.inner.look(hash, key) {
                Look::Value { value, version, expires_at_ms } => {
                    if !policy.is_due(expires_at_ms, || self.inner.now_ms()) {
                        return Ok((Lookup::Found(Some(value)), None));
                    }
                    Some((value, version))
                }
                Look::Absence if policy.accepts_absences() => return Ok((Lookup::Found(None), None)),
                Look::Absence | Look::Nothing => None,
            };
            let mut cell = self.inner.cell(hash).lock();
            if self.inner.hasher.seed() != seed {
                continue;
            }
            let under_way = cell.flights.get(key).filter(|flight| !flight.is_over());
            // One that a flush overtook loads what may be flushed: it goes on for those who wait already.
            let under_way = under_way.filter(|flight| !self.inner.floors.is_flushed(flight.begun, || key));
            match (under_way.cloned(), due) {
                (Some(_), Some((value, _))) => return Ok((Lookup::Found(Some(value)), None)),
                (Some(flight), None) => {
                    let waiting = Waiting::join(self, key, hash, flight, policy);
                    return Ok((waiting.map_or(Lookup::Recursive, Lookup::Loading), None));
                }
                (None, None) if self.inner.is_stored(&cell, hash, key, policy) => continue,
                (None, Some((_, version))) if self.inner.is_replaced(&cell, hash, key, version) => continue,
                (None, due) => {
                    let last = Version(self.inner.next_version().0.saturating_sub(1));
                    let flight = Flight::new(last, due.is_some());
                    let replaces = due.as_ref().map(|(_, version)| *version);
                    let wanted = Wanted { key, policy, replaces, asks };
                    let value = due.map(|(value, _)| value);
                    let place = self.inner.place_load(&mut cell, &flight, &wanted);
                    if let Place::Refreshed = place {
                        return Ok((Lookup::Found(value), None));
                    }
                    cell.flights.insert(key, flight.clone());
                    if let Place::Elsewhere = place {
                        let waiting = Waiting::join(self, key, hash, flight, policy);
                        return Ok((waiting.map_or(Lookup::Recursive, Lookup::Loading), value));
                    }
                    let lease = Lease::new(self, key, hash, flight, policy, replaces);
                    let lookup = match value {
                        Some(value) => Lookup::Due(value, lease),
                        None => Lookup::Absent(lease),
                    };
                    return Ok((lookup, None));
                }
            }
        }
    }

    fn begin(&self, key: &[u8], policy: LoadPolicy) -> Result<Step, ReadError> {
        Ok(match self.seek(key, policy, true)? {
            (Lookup::Found(value), _) => Step::Answer(value),
            (Lookup::Due(value, lease), _) => Step::Load(Some(lease), Some(value)),
            (Lookup::Absent(lease), _) => Step::Load(Some(lease), None),
            (Lookup::Loading(waiting), fallback) => Step::Wait(waiting, fallback),
            (Lookup::Recursive, _) => Step::Load(None, None),
        })
    }

    fn load_blocking<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        policy: LoadPolicy,
        load: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Bytes>, LoadError<E>> {
        self.load_from(Step::Again, key, policy, load)
    }

    fn load_from<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        mut step: Step,
        key: &[u8],
        policy: LoadPolicy,
        load: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Bytes>, LoadError<E>> {
        loop {
            step = match step {
                Step::Again => self.begin(key, policy)?,
                Step::Wait(waiting, fallback) => arrived(waiting.arrive(), policy, fallback),
                Step::Load(lease, fallback) => {
                    let lease = lease.map(Lease::on_this_thread);
                    return loaded(lease, fallback, load());
                }
                Step::Answer(value) => return Ok(value),
                Step::Failed(error) => match error.downcast() {
                    Ok(error) => return Err(LoadError::Loader(error)),
                    // Another kind of loader's error: ask our own.
                    Err(_) => Step::Again,
                },
            }
        }
    }

    async fn load_awaiting<V: Into<Bytes>, E: Send + Sync + 'static>(
        &self,
        key: &[u8],
        policy: LoadPolicy,
        load: impl Future<Output = Result<Option<V>, E>>,
    ) -> Result<Option<Bytes>, LoadError<E>> {
        let mut step = Step::Again;
        loop {
            step = match step {
                Step::Again => self.begin(key, policy)?,
                Step::Wait(mut waiting, fallback) => {
                    let arrival = std::future::poll_fn(|context| waiting.poll_arrival(context)).await;
                    arrived(arrival, policy, fallback)
                }
                Step::Load(lease, fallback) => return loaded(lease, fallback, load.await),
                Step::Answer(value) => return Ok(value),
                Step::Failed(error) => match error.downcast() {
                    Ok(error) => return Err(LoadError::Loader(error)),
                    Err(_) => Step::Again,
                },
            }
        }
    }
}

fn arrived(arrival: Arrival, policy: LoadPolicy, fallback: Option<Bytes>) -> Step {
    match arrival {
        Arrival::Outcome(Outcome::LookAgain) => {
            fallback.map_or(Step::Again, |value| Step::Answer(Some(value)))
        }
        Arrival::Outcome(Outcome::Loaded(None)) if !policy.accepts_absences() => Step::Again,
        Arrival::Outcome(Outcome::Loaded(value)) => Step::Answer(value),
        Arrival::Outcome(Outcome::Failed(error)) => Step::Failed(error),
        Arrival::Lead(lease) => Step::Load(Some(lease), fallback),
    }
}

/// Loads a value that is there and due, with nobody to give an error to.
fn load_anew<V: Into<Bytes>, E: fmt::Display + Send + Sync + 'static>(
    lease: Lease,
    load: impl FnOnce() -> Result<V, E>,
) {
    if let Err(error) = loaded(Some(lease), None, load().map(Some)) {
        tracing::warn!(%error, "a value could not be loaded anew");
    }
}

/// Gives the lease back with what was loaded.
fn loaded<V: Into<Bytes>, E: Send + Sync + 'static>(
    lease: Option<Lease>,
    fallback: Option<Bytes>,
    result: Result<Option<V>, E>,
) -> Result<Option<Bytes>, LoadError<E>> {
    match (result, lease) {
        (Ok(Some(value)), Some(lease)) => Ok(Some(lease.fill(value))),
        (Ok(Some(value)), None) => Ok(Some(value.into())),
        (Ok(None), lease) => {
            lease.into_iter().for_each(Lease::fill_absent);
            Ok(None)
        }
        (Err(error), lease) => {
            let error = Arc::new(error);
            lease.into_iter().for_each(|lease| lease.fail(error.clone()));
            match fallback {
                Some(value) => Ok(Some(value)),
                None => Err(LoadError::Loader(error)),
            }
        }
    }
}

impl Inner {
    /// Reads as `get` does, and tells a remembered absence from nothing. A node that does not answer reads has nothing.
    fn look(&self, hash: u64, key: &[u8]) -> Look {
        let look = |item: super::ItemRef<'_>, is_absence| match is_absence {
            true => Look::Absence,
            false => Look::Value {
                value: item.value.to_vec().into(),
                version: item.version,
                expires_at_ms: item.expires_at_ms.unwrap_or(0),
            },
        };
        // A node that refuses reads has nothing to show. Who loads gets what is not acknowledged, too: were it a miss, each
        // value that was just loaded would be loaded again.
        Group::tracking(|| self.read_any(hash, key, look)).ok().flatten().unwrap_or(Look::Nothing)
    }

    /// Whether something has been stored since the key was looked at, on a node that shows what it has.
    fn is_stored(&self, cell: &super::ShardCell, hash: u64, key: &[u8], policy: LoadPolicy) -> bool {
        let serving = self.serving();
        if self.read_refusal().is_some() {
            return false;
        }
        let Some(id) = cell.shard.find(hash, key) else { return false };
        let is_shown = || self.may_show(cell.shard.meta(id).version);
        if serving.reigns() && !Group::tracking(is_shown) {
            return false;
        }
        let is_absence = cell.shard.meta(id).marks.is_absence();
        !cell.shard.is_dead(id, self.moment()) && (policy.accepts_absences() || !is_absence)
    }

    /// Whether another value has been stored since one of this version was looked at.
    fn is_replaced(&self, cell: &super::ShardCell, hash: u64, key: &[u8], version: Version) -> bool {
        cell.shard.find(hash, key).is_some_and(|id| cell.shard.meta(id).version != version)
    }

    /// Stores what was loaded, unless the key was written to since the load began.
    fn store_loaded(&self, key: &[u8], flight: &Flight, replaces: Option<Version>, store: Store<'_>) {
        let stored: Result<(), WriteError> = self.mutate(key, |locked| {
            let present = locked.find_live().map(|(_, meta)| meta.version);
            let is_older = flight.is_overtaken() || self.floors.is_flushed(flight.begun, || key);
            // What it would replace may have expired or been evicted meanwhile.
            if is_older || present.is_some() && present != replaces {
                return Ok(());
            }
            match store {
                Store::Value(value, attributes) => locked.put_attributes(value, attributes).map(|_| ()),
                Store::Absence(expiry) => {
                    let expires_at_ms = expiry.deadline_ms(|| locked.moment.now_ms());
                    let meta = Meta { marks: Marks::absence(), ..Meta::new(0, expires_at_ms) };
                    locked.put(&[], meta).map(|_| ())
                }
            }
        });
        if let Err(error) = stored {
            tracing::debug!(%error, "what was loaded is not stored");
        }
    }
}
