//! For how long what was loaded is kept, and when it is loaded again.
//!
//! Lives here: [`LoadPolicy`], and what it says of an item that is there. Not here: who loads (see `flight`).
//!
//! ```text
//!   stored ─────────────────────────┬──────────────┬──────────────── gone
//!          fresh                    │ refresh ahead│ stale
//!                                   |<-refresh_ahead->|<-- stale_for -->|
//!          |<--------- fresh_for -------------------->|
//! ```
//! Nothing of it is stored: the item's expiry is the end of `stale_for`, and the rest is counted back from there.

use std::time::Duration;

use crate::clock::Millis;
use crate::mutation::{Attributes, Expiry};

/// For how long a loaded value is kept, and when it is loaded again: for [`Cache::get_or_load`](crate::Cache::get_or_load).
///
/// ```
/// use hotspare::LoadPolicy;
/// use std::time::Duration;
/// let policy = LoadPolicy::fresh_for(Duration::from_secs(60))
///     .refresh_ahead(Duration::from_secs(5))
///     .stale_for(Duration::from_secs(300))
///     .absent_for(Duration::from_secs(2));
/// let simple: LoadPolicy = Duration::from_secs(60).into();
/// # let _ = (policy, simple);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadPolicy {
    flags: u32,
    fresh_for: Option<Duration>,
    refresh_ahead: Duration,
    stale_for: Duration,
    absent_for: Duration,
    lease_for: Option<Duration>,
    /// Whether a remembered absence is no answer.
    needs_value: bool,
}

impl LoadPolicy {
    /// A loaded value is fresh until it is evicted.
    pub fn forever() -> LoadPolicy {
        LoadPolicy::default()
    }

    /// A loaded value is fresh for so long.
    pub fn fresh_for(lifetime: Duration) -> LoadPolicy {
        LoadPolicy { fresh_for: Some(lifetime), ..LoadPolicy::default() }
    }

    /// So long before a value stops being fresh one caller loads it anew, while the others get what is there. Default
    /// zero: a value is used to its end.
    pub fn refresh_ahead(mut self, by: Duration) -> LoadPolicy {
        self.refresh_ahead = by;
        self
    }

    /// For so long after it stopped being fresh a value is still handed out, while one caller loads it anew; and to
    /// that caller too if the load fails. Default zero. The item stays in memory for that time.
    pub fn stale_for(mut self, time: Duration) -> LoadPolicy {
        self.stale_for = time;
        self
    }

    /// For so long it is remembered that the source has no value. Default zero: each caller asks the source.
    pub fn absent_for(mut self, time: Duration) -> LoadPolicy {
        self.absent_for = time;
        self
    }

    /// The flags of a loaded item. Default 0.
    pub fn flags(mut self, flags: u32) -> LoadPolicy {
        self.flags = flags;
        self
    }

    /// For so long the other nodes of the group wait for this node's load; then one of them may load as well. What a replica
    /// has loaded by then is handed to those who asked it, and not stored; what the primary has is stored, unless the key was
    /// written meanwhile. Default 10 s, at most ten minutes. A node that dies is not waited for.
    pub fn lease_for(mut self, time: Duration) -> LoadPolicy {
        self.lease_for = Some(time);
        self
    }

    /// [`LoadPolicy::lease_for`], in milliseconds.
    pub(super) fn lease_ms(&self) -> u64 {
        let time = self.lease_for.unwrap_or(Duration::from_secs(10));
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    /// For a source that always has a value.
    pub(super) fn without_absences(self) -> LoadPolicy {
        LoadPolicy { needs_value: true, ..self }
    }

    pub(super) fn accepts_absences(&self) -> bool {
        !self.needs_value
    }

    /// What a loaded value is stored with.
    pub(super) fn attributes(&self) -> Attributes {
        let expiry = match self.fresh_for {
            None => Expiry::Never,
            Some(lifetime) => Expiry::After(lifetime.saturating_add(self.stale_for)),
        };
        Attributes { flags: self.flags, expiry }
    }

    /// For how long an absence is stored, if it is.
    pub(super) fn absence(&self) -> Option<Expiry> {
        (!self.absent_for.is_zero()).then_some(Expiry::After(self.absent_for))
    }

    /// Whether an item that expires then should be loaded anew, now.
    pub(super) fn is_due(&self, expires_at_ms: Millis, now_ms: impl FnOnce() -> Millis) -> bool {
        let early = self.stale_for.saturating_add(self.refresh_ahead).as_millis();
        expires_at_ms != 0 && early > 0 && u128::from(expires_at_ms.saturating_sub(now_ms())) <= early
    }
}

impl From<Duration> for LoadPolicy {
    fn from(lifetime: Duration) -> LoadPolicy {
        LoadPolicy::fresh_for(lifetime)
    }
}
