//! What a node says of itself: its role, its position, its peers, and why a change of role was refused.

use std::fmt;

use super::acks::AckMode;
use super::lease::LeaseStatus;
use super::warning::Warning;

/// What a node is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// No peers are configured: no log is kept.
    Standalone,
    /// Takes writes and ships them.
    Primary,
    /// Follows a primary.
    Replica,
    /// Was a primary; another took over. Answers nothing until it has caught up as a replica.
    Fenced,
}

impl Role {
    /// One lower-case word, as `/status` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Standalone => "standalone",
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Fenced => "fenced",
        }
    }
}

/// How a follower stands to its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// Not a follower.
    None,
    /// No link; dialling.
    Connecting,
    /// A full copy is on its way.
    Installing,
    /// The log arrives as it is written.
    Streaming,
}

impl LinkState {
    /// One lower-case word, as `/status` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::None => "none",
            LinkState::Connecting => "connecting",
            LinkState::Installing => "installing",
            LinkState::Streaming => "streaming",
        }
    }
}

/// One replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Its identity.
    pub node: u128,
    /// The address it is reached at for replication, if it named one, else where it dialled from.
    pub address: String,
    /// Whether it installs or streams.
    pub state: LinkState,
    /// The last sequence number that it has applied.
    pub applied_seq: u64,
    /// Mutations that it has not acknowledged: what would be lost if the primary died now and it were promoted. In the middle of
    /// a full copy those since that began.
    pub lag_seqs: u64,
    /// Bytes of the log that it has not acknowledged, or somewhat more.
    pub lag_bytes: u64,
    /// The age in milliseconds of the oldest mutation that it has not acknowledged, or somewhat more; 0 while it has all.
    pub lag_ms: u64,
    /// What a write would wait for there if it were promoted; `None` from a version that does not say.
    pub ack_mode: Option<AckMode>,
    /// Whether writes may count on it, once it is level. One that came up with nothing may have promised something and forgotten it:
    /// where a write waits for fewer replicas than there are other nodes, it counts once others have confirmed it, or an operator
    /// has ([`Cache::set_ack_mode`](crate::Cache::set_ack_mode)).
    pub counts: bool,
}

/// A node's role, position and peers: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What the node is.
    pub role: Role,
    /// The newest term that it serves or follows; 0 before the first.
    pub term: u32,
    /// The sequence number of the last mutation that it holds.
    pub seq: u64,
    /// The group's name.
    pub group: String,
    /// Its identity.
    pub node: u128,
    /// Its slot.
    pub slot: u8,
    /// Where the primary listens for replication, if this is a follower and it is known.
    pub primary: Option<String>,
    /// Links between a follower and its primary, 1 to 4; 0 on a primary, and while none is known.
    pub depth: u8,
    /// How a follower stands to its primary.
    pub link: LinkState,
    /// How long ago, in milliseconds, a replica certainly had all that its primary had; `None` on any other node, and until its
    /// primary has told it of a moment. An idle primary tells of one four times a second.
    pub staleness_ms: Option<u64>,
    /// Whether it may take traffic.
    pub ready: bool,
    /// Whether a fail-over manager may promote it; else why not.
    pub promotable: Result<(), &'static str>,
    /// Whether full copies failed at least three times one after the other and this node, which holds nothing whole or lags
    /// behind, tries again after pauses only. It ends when one succeeds, or at [`Cache::follow`](crate::Cache::follow).
    pub quarantined: bool,
    /// Full copies that failed one after the other, or were complete and did not last a minute because the primary's log no
    /// longer held what follows, or that this node refused because it holds more.
    pub copy_failures: u32,
    /// How long this node waits between them now, in milliseconds; 0 until three have failed.
    pub copy_pause_ms: u64,
    /// Each attached replica.
    pub replicas: Vec<ReplicaStatus>,
    /// How many of them are level: they stream, were heard of within 500 ms, and lack no write that is older.
    pub level_replicas: u8,
    /// Whether a replica lacks no more than the budget says
    /// ([`ReplicationConfig::max_unacked_ms`](crate::ReplicationConfig::max_unacked_ms), or in bytes): a primary above it refuses
    /// writes. `None` without a budget.
    pub within_budget: Option<bool>,
    /// What a write waits for.
    pub ack_mode: AckMode,
    /// What a write waits for at the node that this one follows, if it has said so.
    pub primary_ack_mode: Option<AckMode>,
    /// Whether a strict primary answers.
    pub lease: LeaseStatus,
    /// Bytes of the log that are kept now.
    pub log_bytes: u64,
    /// The hard limit of `log_bytes`.
    pub log_bytes_max: u64,
    /// Full copies begun, as a primary or as a replica.
    pub installs: u64,
    /// Resumptions from the log, as a primary or as a replica.
    pub catch_ups: u64,
    /// Replicas that came back ahead of their primary and dropped what it lacks instead of being copied anew, as a primary
    /// or as a replica.
    pub roll_backs: u64,
    /// Items that this node has dropped so.
    pub rolled_back_keys: u64,
    /// How often records waited for a part of a full copy beside which they came (QUIC): so many keys had changed meanwhile
    /// that this node could note no more of them.
    pub log_waits: u64,
    /// Records that were too large for the log and went in as deletions.
    pub oversized_records: u64,
    /// As a primary: how often one node was to load a key for all; leases in the log.
    pub loads_lent: u64,
    /// As a primary: what replicas had loaded and was stored here.
    pub loads_taken: u64,
    /// As a primary: what replicas had loaded and was not stored: their lease was over, or the key was written to meanwhile.
    pub loads_refused: u64,
    /// Peers refused.
    pub rejects: u64,
    /// The last thing that went wrong with a peer, in words.
    pub last_error: Option<String>,
    /// What an operator should look at in this node's part of the group; empty while all is well. Each is displayed as a line
    /// that says what to do.
    pub warnings: Vec<Warning>,
}

impl Status {
    /// The status of a cache without replication.
    pub(crate) fn standalone() -> Status {
        Status {
            role: Role::Standalone,
            term: 0,
            seq: 0,
            group: String::new(),
            node: 0,
            slot: 0,
            primary: None,
            depth: 0,
            staleness_ms: None,
            link: LinkState::None,
            ready: true,
            promotable: Err("started without replication"),
            quarantined: false,
            copy_failures: 0,
            copy_pause_ms: 0,
            replicas: Vec::new(),
            level_replicas: 0,
            within_budget: None,
            ack_mode: AckMode::Async,
            primary_ack_mode: None,
            lease: LeaseStatus::NONE,
            log_bytes: 0,
            log_bytes_max: 0,
            installs: 0,
            catch_ups: 0,
            roll_backs: 0,
            rolled_back_keys: 0,
            log_waits: 0,
            oversized_records: 0,
            loads_lent: 0,
            loads_taken: 0,
            loads_refused: 0,
            rejects: 0,
            last_error: None,
            warnings: Vec::new(),
        }
    }
}

/// Why a change of role was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromoteError {
    /// This cache was made without replication.
    Standalone,
    /// This node holds nothing, or was in the middle of a full copy; `force` overrules it.
    NotPromotable(&'static str),
    /// The call came from inside a closure that reads an item; it would deadlock.
    InsideRead,
    /// This node holds nothing of the group's, and another one does; `force` overrules it, and then what that one holds is
    /// replaced.
    PeerHolds {
        /// Where the one that holds most listens for replication.
        address: String,
        /// The sequence number of the last mutation that it has heard of.
        seq: u64,
    },
    /// This node holds nothing of the group's, and another one did that it has met, which can't be asked now; `force`
    /// overrules it, and then what that one holds is replaced.
    PeerHeld {
        /// Where that one listens for replication, or dialled from.
        address: String,
        /// The sequence number of the last mutation that it had heard of.
        seq: u64,
    },
    /// A primary of another history answers at this address, from which this node refuses to be copied, and which would not
    /// believe this node's term: both would reign. `force` overrules it.
    Rival {
        /// Where it listens for replication.
        address: String,
    },
    /// The address is empty or longer than 256 bytes.
    BadAddress,
    /// The address is this node's own.
    OwnAddress,
    /// This node knows no peer at the address.
    NoPeer,
    /// The node at the address is attached to this one, or this one to it: it is there.
    Attached,
    /// This node is the primary, and would serve nobody any more; `force` overrules it.
    Reigns {
        /// The term by which it reigns.
        term: u32,
        /// How many replicas follow it.
        replicas: usize,
    },
    /// No level replica is there to take over, or this node is no primary.
    NobodyLevel,
    /// A hand-over was asked of a node that is no primary.
    NotPrimary {
        /// Where the primary listens for replication, if this node knows.
        primary: Option<String>,
    },
    /// Nobody took over in time. This node may be primary still, or nobody: look at the status of both.
    NotTakenOver,
    /// Too few other nodes answered for this one to know that it lacks no acknowledged write; `force` overrules it.
    NotEnoughPositions {
        /// How many answered, this node among them; those that hold something, unless this node holds nothing itself.
        answered: u8,
        /// How many have to.
        needed: u8,
    },
    /// The node that holds most could not be caught up from: promote that one, or try again.
    NotCaughtUp,
    /// Another promotion came in between.
    Overruled,
    /// No higher term can be minted.
    TermsExhausted,
}

impl fmt::Display for PromoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PromoteError::Standalone => write!(f, "this node was started without replication"),
            PromoteError::NotPromotable(why) => {
                write!(f, "this node can't be promoted: {why}; force overrules it")
            }
            PromoteError::PeerHolds { address, seq } => write!(
                f,
                "this node holds nothing of the group's, and {address} does, up to seq {seq}: promote that one, or have \
                 this one follow it; force promotes this one all the same, and what the others hold is replaced"
            ),
            PromoteError::PeerHeld { address, seq } => write!(
                f,
                "this node came up with nothing, and {address} held the group's items when it was met, up to seq {seq}; it \
                 can't be asked now: promote that one; if it is gone for good, force promotes this one with nothing"
            ),
            PromoteError::Rival { address } => write!(
                f,
                "the primary at {address} has a history of its own and would reign on beside this node: have that one follow \
                 first (follow --force), or stop it; force promotes this one all the same"
            ),
            PromoteError::InsideRead => write!(f, "the cache was called from inside a read of an item"),
            PromoteError::BadAddress => write!(f, "an address has 1 to 256 bytes"),
            PromoteError::OwnAddress => {
                write!(f, "that is this node's own address; name the primary's, or promote this node")
            }
            PromoteError::NoPeer => {
                write!(f, "this node knows no peer of that address: name it as the warnings do")
            }
            PromoteError::Attached => {
                write!(f, "the node at that address is attached: stop it first, or leave it")
            }
            PromoteError::Reigns { term, replicas } => write!(
                f,
                "this node is the primary (term {term}, {replicas} replicas) and would serve nobody any more: hand over to a \
                 replica instead, or promote the other node, and this one follows it by itself; force has it follow all \
                 the same"
            ),
            PromoteError::NobodyLevel => write!(f, "no level replica is there to hand over to"),
            PromoteError::NotPrimary { primary } => {
                let primary = primary.as_deref().unwrap_or("a node that this one does not know");
                write!(f, "only the primary hands over, which is {primary}")
            }
            PromoteError::NotTakenOver => write!(
                f,
                "nobody took over in time; look at the status of both nodes, and promote one if neither reigns"
            ),
            PromoteError::NotEnoughPositions { answered, needed } => {
                write!(
                    f,
                    "{answered} of {needed} nodes that have to said what they hold, so that no acknowledged write is lost (one that lost its \
                     memory does not count before a primary has counted it again); force overrules it"
                )
            }
            PromoteError::NotCaughtUp => {
                write!(
                    f,
                    "the node that holds most could not be caught up from; promote that one, or try again"
                )
            }
            PromoteError::Overruled => {
                write!(f, "another promotion came in between; look at the status of all nodes")
            }
            PromoteError::TermsExhausted => write!(f, "the group has used up its terms; start a new group"),
        }
    }
}

impl std::error::Error for PromoteError {}
