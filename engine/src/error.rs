//! What can go wrong, sorted by the operation that says it, with the numbers in it.
//!
//! Lives here: one error enum for each kind of public operation.
//! Not here: why a peer was refused (see `replication`).

use std::fmt;

/// A [`Config`](crate::Config) that can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// `memory_bytes_max` is below what one page a size class in use needs.
    MemoryTooSmall {
        /// What was asked for, in bytes.
        bytes: usize,
        /// The least that works, in bytes.
        bytes_min: usize,
    },
    /// `memory_bytes_max` is above what 32-bit item references reach.
    MemoryTooLarge {
        /// What was asked for, in bytes.
        bytes: usize,
        /// The most that works, in bytes.
        bytes_max: usize,
    },
    /// `item_bytes_max` is above half of `memory_bytes_max`.
    ItemTooLarge {
        /// What was asked for, in bytes.
        bytes: usize,
        /// The most that works with this memory, in bytes.
        bytes_max: usize,
    },
    /// `log_bytes_max` is below the least log that a replica can follow.
    LogTooSmall {
        /// What was asked for, in bytes.
        bytes: usize,
        /// The least that works, in bytes.
        bytes_min: usize,
    },
    /// The system gives no range of addresses of this size; a limit on the process's address space is the usual cause.
    NoAddressSpace {
        /// What was asked for, in bytes.
        bytes: usize,
    },
    /// `slot` is above 15.
    SlotTooLarge {
        /// What was asked for.
        slot: u8,
    },
    /// A replica that follows a replica has to name it, and needs a slot of its own.
    CascadeUnnamed,
    /// A budget of what replicas may lack is 0: no write would ever be taken.
    BudgetZero,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::MemoryTooSmall { bytes, bytes_min } => {
                write!(f, "a memory limit of {bytes} bytes is too small; give at least {bytes_min}")
            }
            ConfigError::MemoryTooLarge { bytes, bytes_max } => {
                write!(f, "a memory limit of {bytes} bytes is too large; give at most {bytes_max}")
            }
            ConfigError::ItemTooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "an item limit of {bytes} bytes is above half of the memory; give at most {bytes_max}"
                )
            }
            ConfigError::LogTooSmall { bytes, bytes_min } => {
                write!(f, "a replication log of {bytes} bytes is too small; give at least {bytes_min}")
            }
            ConfigError::NoAddressSpace { bytes } => {
                write!(
                    f,
                    "the system gives no {bytes} bytes of addresses; raise the limit of the process's address \
                     space (ulimit -v) or give a smaller memory limit"
                )
            }
            ConfigError::SlotTooLarge { slot } => {
                write!(f, "node slot {slot} is out of range; give 0 to 15, unique in the group")
            }
            ConfigError::CascadeUnnamed => write!(
                f,
                "a replica that follows a replica names the node to follow, and needs a slot that was given"
            ),
            ConfigError::BudgetZero => {
                write!(f, "a budget of 0 would refuse every write; give at least 1, or leave it out for none")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why a read was refused. An absent or expired key is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The key is empty or too long.
    KeyLength {
        /// Its length, in bytes.
        bytes: usize,
        /// The most that is stored, in bytes.
        bytes_max: usize,
    },
    /// The call came from inside a closure that reads an item; it would deadlock.
    InsideRead,
    /// The cursor is another cache's, or this one was copied anew since: begin again at the start.
    ForeignCursor,
    /// This node is a replica that was not told to answer reads.
    Replica {
        /// Where the primary listens for replication, if it is known.
        primary: Option<String>,
    },
    /// This replica was told to answer no read when its items may be older than so much, and they may.
    Stale {
        /// How long ago it certainly had all that its primary had, in milliseconds.
        behind_ms: u64,
        /// Where the primary listens for replication, if it is known.
        primary: Option<String>,
    },
    /// This node was a primary, and is not any more: another one took over, and this one has not caught up yet; or it came up with
    /// nothing, and another one holds the group's items.
    Fenced {
        /// Where the new primary listens for replication, if there is one and it is known.
        primary: Option<String>,
    },
}

/// Why a write was refused. Nothing was stored; where the doc of the operation says so, an older item went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is empty or too long.
    KeyLength {
        /// Its length, in bytes.
        bytes: usize,
        /// The most that is stored, in bytes.
        bytes_max: usize,
    },
    /// The item with its header is above `item_bytes_max`, or above what replicas can be sent where they have to acknowledge it.
    ItemTooLarge {
        /// Header, key and value, in bytes.
        bytes: usize,
        /// The most that is stored, in bytes.
        bytes_max: usize,
        /// Whether the limit is that of replication, below the configured one: see
        /// [`Config::sufficient_log_bytes`](crate::Config::sufficient_log_bytes).
        is_of_log: bool,
    },
    /// A value that comes in pieces has not come whole, or goes on beyond its end.
    ValueLength {
        /// What was given, in bytes.
        bytes: usize,
        /// What was announced, in bytes.
        announced: usize,
    },
    /// A prefix to be invalidated is empty or too long.
    PrefixLength {
        /// Its length, in bytes.
        bytes: usize,
        /// The most that works, in bytes.
        bytes_max: usize,
    },
    /// Too many different prefixes were invalidated since the last flush.
    TooManyPrefixes {
        /// How many work.
        prefixes_max: usize,
    },
    /// No memory, and eviction is off or did not yield enough.
    OutOfMemory {
        /// Header, key and value, in bytes.
        bytes: usize,
    },
    /// The call came from inside a closure that reads an item; it would deadlock.
    InsideRead,
    /// This cache was copied anew while it was gone through: begin again.
    ForeignCursor,
    /// This node is a replica: write to its primary.
    Replica {
        /// Where the primary listens for replication, if it is known.
        primary: Option<String>,
    },
    /// This node was a primary, and is not any more: write to the one that took over. There may be none yet, if this one came up with
    /// nothing and another one holds the group's items.
    Fenced {
        /// Where the new primary listens for replication, if there is one and it is known.
        primary: Option<String>,
    },
    /// Each write has to be acknowledged by replicas, and fewer are level. Nothing was changed.
    NotEnoughReplicas {
        /// How many are level.
        level: u8,
        /// How many have to be.
        needed: u8,
    },
    /// A strict primary that its replicas have not answered lately, or one that was just promoted and waits until the one before
    /// can't answer any more. Nothing was changed.
    NoLease,
    /// This primary is handing its role over to a replica. Nothing was changed; try again at the new primary.
    HandingOver,
    /// No replica is within the budget of what may be lost. Nothing was changed; try again later.
    RiskBudget,
}

/// Why an `incr` or `decr` was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CounterError {
    /// The stored value is not an unsigned 64-bit decimal (rule A3).
    NotANumber,
    /// The write itself was refused.
    Write(WriteError),
}

impl From<WriteError> for CounterError {
    fn from(error: WriteError) -> Self {
        CounterError::Write(error)
    }
}

fn at(primary: &Option<String>) -> String {
    match primary {
        Some(address) => format!("the primary listens for replicas at {address}"),
        None => "the primary is not known".to_owned(),
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::KeyLength { bytes, bytes_max } => {
                write!(f, "a key of {bytes} bytes; give 1 to {bytes_max}")
            }
            ReadError::InsideRead => write!(f, "the cache was called from inside a read of an item"),
            ReadError::ForeignCursor => {
                write!(f, "the cursor is not of this cache as it is now; begin the scan again")
            }
            ReadError::Replica { primary } => write!(f, "this replica answers no reads; {}", at(primary)),
            ReadError::Stale { behind_ms, primary } => {
                write!(f, "this replica may be {behind_ms} ms behind, which is too much; {}", at(primary))
            }
            ReadError::Fenced { primary } => write!(f, "this node is the primary no more; {}", at(primary)),
        }
    }
}

impl std::error::Error for ReadError {}

/// A step that reads before it writes was refused.
impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::KeyLength { bytes, bytes_max } => WriteError::KeyLength { bytes, bytes_max },
            ReadError::InsideRead => WriteError::InsideRead,
            ReadError::ForeignCursor => WriteError::ForeignCursor,
            ReadError::Replica { primary } | ReadError::Stale { primary, .. } => {
                WriteError::Replica { primary }
            }
            ReadError::Fenced { primary } => WriteError::Fenced { primary },
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::KeyLength { bytes, bytes_max } => {
                write!(f, "a key of {bytes} bytes; give 1 to {bytes_max}")
            }
            WriteError::ItemTooLarge { bytes, bytes_max, is_of_log: false } => {
                write!(f, "an item of {bytes} bytes is above the item limit of {bytes_max}")
            }
            WriteError::ItemTooLarge { bytes, bytes_max, is_of_log: true } => {
                write!(
                    f,
                    "an item of {bytes} bytes is above what the replication log carries: {bytes_max} bytes"
                )
            }
            WriteError::ValueLength { bytes, announced } => {
                write!(f, "{bytes} bytes of a value for which {announced} were announced")
            }
            WriteError::PrefixLength { bytes, bytes_max } => {
                write!(f, "a prefix of {bytes} bytes; give 1 to {bytes_max}, or flush everything")
            }
            WriteError::TooManyPrefixes { prefixes_max } => {
                write!(
                    f,
                    "{prefixes_max} prefixes were invalidated since the last flush; use fewer, or flush everything"
                )
            }
            WriteError::OutOfMemory { bytes } => write!(f, "no memory for an item of {bytes} bytes"),
            WriteError::InsideRead => write!(f, "the cache was called from inside a read of an item"),
            WriteError::ForeignCursor => write!(f, "the cache was copied anew meanwhile; begin again"),
            WriteError::Replica { primary } => write!(f, "this node is a replica; {}", at(primary)),
            WriteError::Fenced { primary } => write!(f, "this node is the primary no more; {}", at(primary)),
            WriteError::NotEnoughReplicas { level, needed } => {
                write!(f, "not enough replicas: {level} of {needed} are level")
            }
            WriteError::NoLease => {
                write!(f, "no lease: not enough replicas have answered lately; try again in a moment")
            }
            WriteError::HandingOver => write!(f, "this primary is handing over; try again in a moment"),
            WriteError::RiskBudget => write!(f, "no replica is within the budget of unreplicated writes"),
        }
    }
}

impl std::error::Error for WriteError {}

impl fmt::Display for CounterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CounterError::NotANumber => write!(f, "the stored value is not an unsigned decimal number"),
            CounterError::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CounterError {}
