//! Why a cache was not saved, and why an image was refused.

use std::fmt;
use std::io;

use crate::error::ConfigError;

/// Why a cache was not saved. What was written so far is no image: it would be refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum SaveError {
    /// Nothing can be written there.
    Io(io::Error),
    /// Items were written, or the node's part in its group changed, while it was being saved.
    Changed,
    /// This replica has no items yet, or only some of them: it is in the middle of a full copy.
    NotWhole,
    /// As many walks through the items as are possible at once are under way; try again later.
    Busy,
    /// The call came from inside a closure that reads an item; it would deadlock.
    InsideRead,
}

/// Why an image was refused. No cache was made of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// Nothing can be read from there.
    Io(io::Error),
    /// It does not begin as an image does.
    NoImage,
    /// It was written by another version of this library.
    OtherFormat {
        /// Its format.
        format: u32,
        /// The one that this version reads.
        format_known: u32,
    },
    /// It is not as it was written.
    Damaged(Damage),
    /// It is of a node of another group.
    OtherGroup,
    /// It is of a cache without replication, and this node is to follow others, which it knows nothing of.
    NoHistory,
    /// It is of a replica, or of a primary that had lost its role, and this cache is to be without replication: what
    /// it holds may be old.
    WasNoPrimary,
    /// The cache itself can't be made.
    Config(ConfigError),
}

/// What is wrong with an image that is not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// It ends too early.
    CutShort,
    /// Bytes have changed, are missing, or are not in their place.
    Checksum,
    /// Something stands behind its end.
    Surplus,
    /// What it says can't be.
    Nonsense(&'static str),
}

impl From<Damage> for RestoreError {
    fn from(damage: Damage) -> Self {
        RestoreError::Damaged(damage)
    }
}

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        SaveError::Io(error)
    }
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaveError::Io(error) => write!(f, "it can't be written: {error}"),
            SaveError::Changed => write!(f, "the cache changed while it was being saved; stop writing first"),
            SaveError::NotWhole => write!(f, "this replica does not have all items yet"),
            SaveError::Busy => write!(f, "too many full copies are under way; try again later"),
            SaveError::InsideRead => write!(f, "the cache was called from inside a read of an item"),
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Io(error) => write!(f, "it can't be read: {error}"),
            RestoreError::NoImage => write!(f, "it is no saved cache"),
            RestoreError::OtherFormat { format, format_known } => {
                write!(f, "its format is {format}, and this version reads {format_known} only")
            }
            RestoreError::Damaged(damage) => write!(f, "it is damaged: {damage}"),
            RestoreError::OtherGroup => write!(f, "it is of another group"),
            RestoreError::NoHistory => {
                write!(f, "it was saved without replication, and this node follows others")
            }
            RestoreError::WasNoPrimary => {
                write!(f, "it was saved by a replica, and this node is to be alone: its items may be old")
            }
            RestoreError::Config(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::CutShort => write!(f, "it ends too early"),
            Damage::Checksum => write!(f, "a checksum is wrong"),
            Damage::Surplus => write!(f, "something stands behind its end"),
            Damage::Nonsense(what) => write!(f, "{what} makes no sense"),
        }
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let SaveError::Io(error) = self { Some(error) } else { None }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RestoreError::Io(error) => Some(error),
            RestoreError::Config(error) => Some(error),
            _ => None,
        }
    }
}
