//! What changes in a cache: versions, expiry, marks, and the effect of one write.
//!
//! Lives here: the words that storage and replication share, so that neither needs the other.
//! Not here: their bytes on the wire (see `replication::record`), how they are carried out (see `cache`).

use std::fmt;
use std::time::Duration;

use crate::clock::Millis;

/// The longest key that is stored, in bytes. (The memcached protocol stops at 250, rule L1.)
pub const KEY_BYTES_MAX: usize = 1024;

/// How many low bits of a version are the sequence number; the rest is the term.
pub(crate) const SEQ_BITS: u32 = 44;

/// The version of an item: a number that each successful store takes anew and that never comes back.
///
/// It is what memcached calls the CAS unique (rules C1 to C3). On a cache without peers it counts up for each key (see
/// [`Config::versions_in_order`](crate::Config::versions_in_order)); in a
/// group it is the primary's term shifted left by 44 bits, plus the place in the replication log, so that a
/// version that was read before a fail-over never matches another value after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    pub(crate) fn new(term: u32, seq: u64) -> Version {
        debug_assert!(seq < 1 << SEQ_BITS);
        Version(u64::from(term) << SEQ_BITS | seq)
    }

    /// Of the next record of the same term.
    pub(crate) fn next(self) -> Version {
        Version(self.0 + 1)
    }

    pub(crate) fn term(self) -> u32 {
        (self.0 >> SEQ_BITS) as u32
    }

    pub(crate) fn seq(self) -> u64 {
        self.0 & ((1 << SEQ_BITS) - 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When an item dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expiry {
    /// It does not expire.
    #[default]
    Never,
    /// So long after the write; zero is dead at once.
    After(Duration),
    /// At a moment of the cache's clock, in milliseconds since the Unix epoch; one that has passed is dead at once.
    At(Millis),
}

impl Expiry {
    /// The moment as it is stored: milliseconds since the Unix epoch, 0 for never.
    pub(crate) fn deadline_ms(self, now_ms: impl FnOnce() -> Millis) -> Millis {
        match self {
            Expiry::Never => 0,
            Expiry::After(lifetime) => {
                let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
                now_ms().saturating_add(lifetime_ms).max(1)
            }
            Expiry::At(moment) => moment.max(1),
        }
    }
}

impl From<Duration> for Expiry {
    fn from(lifetime: Duration) -> Self {
        Expiry::After(lifetime)
    }
}

/// What an item carries besides key and value.
///
/// ```
/// use hotspare::{Attributes, Expiry};
/// use std::time::Duration;
/// let minute: Attributes = Duration::from_secs(60).into();
/// assert_eq!(minute.expiry, Expiry::After(Duration::from_secs(60)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Opaque to the cache; memcached clients keep the value's type in it (rule L2). Default 0.
    pub flags: u32,
    /// When the item dies. Default never.
    pub expiry: Expiry,
}

impl Attributes {
    pub(crate) const NONE: Attributes = Attributes { flags: 0, expiry: Expiry::Never };

    #[inline(always)]
    pub(crate) fn are_none(&self) -> bool {
        self.flags == 0 && matches!(self.expiry, Expiry::Never)
    }
}

impl From<Expiry> for Attributes {
    fn from(expiry: Expiry) -> Self {
        Attributes { flags: 0, expiry }
    }
}

impl From<Duration> for Attributes {
    fn from(lifetime: Duration) -> Self {
        Expiry::After(lifetime).into()
    }
}

/// What the eviction pass did with the coldest item of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It has used a hit up and went to the hot end of the main queue.
    Kept,
    /// It is small, and went from probation to the main queue, where it begins with a hit.
    KeptAsSmall,
    /// It was evicted.
    Evicted,
}

/// What happened to an item since it was stored, and whether it is one at all: five bits in its header. Two more, for
/// what meta commands say of it, lie elsewhere, and only a store changes them.
///
/// ```text
///   | binary key: 1 | token sent: 1 | stale: 1 | absence: 1 | in main: 1 | fetched: 1 | hits: 2 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks(pub(crate) u8);

impl Marks {
    const HITS: u8 = 3;
    const FETCHED: u8 = 4;
    const MAIN: u8 = 8;
    const ABSENCE: u8 = 16;
    const STALE: u8 = 32;
    const TOKEN_SENT: u8 = 64;
    const BINARY_KEY: u8 = 128;
    /// What only a store changes.
    const STATE: u8 = Marks::STALE | Marks::TOKEN_SENT | Marks::BINARY_KEY;

    /// As a store with this state begins.
    pub(crate) fn of_state(is_stale: bool, is_token_sent: bool, is_key_binary: bool) -> Marks {
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        Marks(
            bit(is_stale, Marks::STALE)
                | bit(is_token_sent, Marks::TOKEN_SENT)
                | bit(is_key_binary, Marks::BINARY_KEY),
        )
    }

    /// Those that only a store changes.
    pub(crate) fn state(self) -> Marks {
        Marks(self.0 & Marks::STATE)
    }

    pub(crate) fn has_state(self) -> bool {
        self.state().0 != 0
    }

    /// Without those.
    #[cfg(test)]
    pub(crate) fn without_state(self) -> Marks {
        Marks(self.0 & !Marks::STATE)
    }

    /// As a change of the value leaves them, which nobody has read yet: how the key was given stays.
    pub(crate) fn of_changed(self) -> Marks {
        Marks(self.0 & !(Marks::STALE | Marks::TOKEN_SENT | Marks::FETCHED))
    }

    pub(crate) fn is_key_binary(self) -> bool {
        self.0 & Marks::BINARY_KEY != 0
    }

    pub(crate) fn is_stale(self) -> bool {
        self.0 & Marks::STALE != 0
    }

    pub(crate) fn is_token_sent(self) -> bool {
        self.0 & Marks::TOKEN_SENT != 0
    }

    /// Of an item without a value: the source was asked and has none. It always has an expiry.
    pub(crate) fn absence() -> Marks {
        Marks(Marks::ABSENCE)
    }

    pub(crate) fn is_absence(self) -> bool {
        self.0 & Marks::ABSENCE != 0
    }

    /// Whether an item may have these marks beside the rest of it. An absence that never expires, or that has anything
    /// which only a store with a value gives, was made up: reads would show it as a value.
    pub(crate) fn fit(
        self,
        value_bytes: u64,
        flags: u32,
        expires_at_ms: Millis,
        client_cas: Option<u64>,
    ) -> bool {
        let is_bare = value_bytes == 0 && flags == 0 && client_cas.is_none() && !self.has_state();
        !self.is_absence() || (is_bare && expires_at_ms != 0)
    }

    /// What the eviction pass goes by, as `other` has it. What the item is stays.
    pub(crate) fn in_order_of(self, other: Marks) -> Marks {
        const ORDER: u8 = Marks::HITS | Marks::FETCHED | Marks::MAIN;
        Marks(self.0 & !ORDER | other.0 & ORDER)
    }

    /// Hits since the eviction pass last came by, up to the policy's most: each gets it another round.
    pub(crate) fn hits(self) -> u8 {
        self.0 & Marks::HITS
    }

    /// What an item on probation that was not hit has not.
    pub(crate) const MAIN_OR_HIT: Marks = Marks(Marks::MAIN | Marks::HITS);

    /// One hit more.
    #[inline]
    pub(crate) fn hit(self, hits_max: u8) -> Marks {
        if self.hits() < hits_max { Marks(self.0 + 1) } else { self }
    }

    /// One hit more, by a read.
    #[inline]
    pub(crate) fn read(self, hits_max: u8) -> Marks {
        Marks(self.hit(hits_max).0 | Marks::FETCHED)
    }

    /// From which marks on a read has nothing to write: where it is kept when items were accessed there are none.
    pub(crate) fn read_enough(hits_max: u8, is_accounting: bool) -> u8 {
        if is_accounting { u8::MAX } else { Marks::FETCHED | hits_max }
    }

    /// Whether another read changes nothing, `enough` being what [`Marks::read_enough`] has said.
    #[inline]
    pub(crate) fn are_enough(self, enough: u8) -> bool {
        self.0 & (Marks::FETCHED | Marks::HITS) >= enough
    }

    /// One hit less; there is one.
    pub(crate) fn without_hit(self) -> Marks {
        debug_assert!(self.hits() > 0);
        Marks(self.0 - 1)
    }

    /// Whether it was read at least once since it was stored.
    pub(crate) fn is_fetched(self) -> bool {
        self.0 & Marks::FETCHED != 0
    }

    /// Whether it is in the main queue; else it is on probation.
    pub(crate) fn is_main(self) -> bool {
        self.0 & Marks::MAIN != 0
    }

    pub(crate) fn in_main(self) -> Marks {
        Marks(self.0 | Marks::MAIN)
    }

    pub(crate) fn without_hits(self) -> Marks {
        Marks(self.0 & !Marks::HITS)
    }
}

/// The effect of one write, as it goes to the log and to replicas: never the command, always the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation<'a> {
    /// The key has this value now.
    Put {
        key: &'a [u8],
        value: &'a [u8],
        flags: u32,
        /// 0 is never.
        expires_at_ms: Millis,
        marks: Marks,
        /// What a client gave as CAS, in the place of the version.
        client_cas: Option<u64>,
    },
    /// The key expires at another moment, if it still has this version.
    Touch { key: &'a [u8], version: Version, expires_at_ms: Millis },
    /// The key is absent now. Logged for an absent key too: a replica may hold what its primary evicted.
    Delete { key: &'a [u8] },
    /// All items of an older version are absent now.
    Flush,
    /// A `Flush` will follow at this moment; it replaces an earlier appointment.
    FlushAt { at_ms: Millis },
    /// All items of an older version whose key begins so are absent now.
    FlushPrefix { prefix: &'a [u8] },
    /// This node alone of the group loads the key's value, until this moment at most; no item changes.
    LendLoad {
        key: &'a [u8],
        node: u128,
        until_ms: Millis,
        /// Whether it is the primary that has logged this.
        is_primarys: bool,
    },
    /// Nobody loads the key's value any more, and none was stored; no item changes.
    EndLoad { key: &'a [u8] },
}

impl<'a> Mutation<'a> {
    /// Whose value this is about, unless it is about many.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Mutation::Put { key, .. }
            | Mutation::Touch { key, .. }
            | Mutation::Delete { key }
            | Mutation::LendLoad { key, .. }
            | Mutation::EndLoad { key } => Some(key),
            Mutation::Flush | Mutation::FlushAt { .. } | Mutation::FlushPrefix { .. } => None,
        }
    }
}
