//! Bugs that a simulation puts back, to show that its checks find them.
//!
//! Lives here: their names. Each is one branch at the place that it breaks. Without the feature `testing` no cache has any,
//! and the compiler drops the branches.

/// A bug of replication, put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "testing"), expect(dead_code, unreachable_pub))]
pub enum Bug {
    /// What was sent to a replica counts as applied.
    SentCountsAsApplied,
    /// A node that comes back ahead rolls back although it was flushed meanwhile.
    RollBackOverFlushes,
    /// A deletion of a key that the primary does not hold is not logged.
    UnloggedAbsentDelete,
    /// A replica's position moves over a frame's last record before that has been applied.
    PositionBeforeApply,
    /// A heartbeat takes a seq.
    HeartbeatTakesSeq,
    /// A version is the seq alone, and a promoted node begins right behind its position.
    CasReused,
    /// A replica takes frames of a term that has passed, from a primary that ships to it whatever term it has seen.
    LowerTerm,
    /// A promotion mints a term that another slot's may have.
    SharedTerm,
    /// A chunk of items goes late, and is applied over what the log has said since.
    LateChunk,
    /// Each chunk that comes beside the log has the replica forget what the log has changed, also behind the chunk's moment.
    WindowForgotten,
    /// A full copy that was cut short is taken for complete, and goes on from the log.
    UnfinishedInstall,
    /// Records are shipped and appended without a look at the branch that they belong to.
    AppendWithoutBranch,
    /// A promotion asks nobody.
    PromotionUnasked,
    /// A node that was promoted with nothing may replace what others hold.
    EmptiesOthers,
    /// Subscribers are not told to start again.
    RestartsHidden,
    /// What a replica has loaded is stored whatever its lease is.
    FillUnchecked,
    /// A lease is given although another node has one.
    LoadLentTwice,
    /// A lease of a load is logged while a replica reads along that does not know such records.
    LentToOld,
    /// Whether a frame's checksum is right does not matter.
    ChecksumIgnored,
    /// A frame that comes a second time is taken a second time.
    RepeatsTaken,
    /// A node of an older version, which can't say whether it remembers what it has promised, counts as one that does.
    SilentRemembers,
    /// A driver has its next turn at once for as long as a peer that dialled has not said who it is.
    WaitsByTurning,
    /// Replicas are told of no read.
    ReadsUntold,
}

/// The bugs that a node has: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bugs {
    #[cfg(feature = "testing")]
    pub(crate) put_back: Option<Bug>,
}

impl Bugs {
    /// Whether this bug was put back.
    #[inline]
    pub(crate) fn has(self, bug: Bug) -> bool {
        #[cfg(feature = "testing")]
        return self.put_back == Some(bug);
        #[cfg(not(feature = "testing"))]
        {
            let _ = bug;
            false
        }
    }
}
