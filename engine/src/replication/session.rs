//! What both ends of a stream share: frame numbers, time-outs, and why a session ended.
//!
//! Not here: what is said (see `primary`, `replica`).

use bytes::Bytes;

use super::frame::FrameError;
use super::message::{ByeReason, Fenced, Message, RejectCode};

/// How often each end says that it is alive, in milliseconds (design §5).
pub(crate) const HEARTBEAT_MS: u64 = 250;

/// How long a silent peer counts as alive, in milliseconds (design §5).
pub(crate) const DEAD_AFTER_MS: u64 = 2_000;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The link ended, in the transport's words.
    Link(String),
    /// Nothing came for [`DEAD_AFTER_MS`].
    Silent,
    /// A frame was malformed or out of order.
    Frame(FrameError),
    /// A frame that has no place in this state.
    Unexpected(&'static str),
    /// Records that do not follow what the replica holds.
    OutOfStep,
    /// The log forgot what the replica needs, three times.
    Overtaken,
    /// The peer closed on purpose.
    Bye(ByeReason),
    /// The peer refused this node, and named a primary if it knows one.
    Rejected { code: RejectCode, primary: String },
    /// The primary handed its role over to this node.
    HandedOver,
    /// The peer knows a newer term.
    Fenced(Fenced),
    /// This replica holds items that a full copy from this peer would destroy without right.
    RefusedInstall,
    /// The peer's term is below the one that this node has seen.
    StaleTerm,
    /// The peer follows this node, over others or not.
    Loop,
    /// The peer is too far below its primary to have replicas.
    TooDeep,
}

impl SessionEnd {
    /// In words, for logs and status.
    pub(crate) fn describe(&self) -> String {
        match self {
            SessionEnd::Link(why) => why.clone(),
            SessionEnd::Silent => format!("silent for {DEAD_AFTER_MS} ms"),
            SessionEnd::Frame(error) => error.to_string(),
            SessionEnd::Unexpected(what) => format!("an unexpected {what}"),
            SessionEnd::OutOfStep => "records that do not follow".to_owned(),
            SessionEnd::Overtaken => "the log is too small for this link; raise its size".to_owned(),
            SessionEnd::Bye(ByeReason::ShuttingDown) => "it shuts down".to_owned(),
            SessionEnd::Bye(ByeReason::Demoted) => "it is no longer primary".to_owned(),
            SessionEnd::Bye(ByeReason::RefusedInstall) => "it refused a full copy from this node".to_owned(),
            SessionEnd::Bye(ByeReason::Overtaken) => "its log is too small for this link; raise its size".to_owned(),
            SessionEnd::Bye(ByeReason::OutOfStep) => "it lost step".to_owned(),
            SessionEnd::Rejected { code, .. } => code.describe().to_owned(),
            SessionEnd::HandedOver => "it handed its role over to this node".to_owned(),
            SessionEnd::Fenced(_) => "it knows a newer term".to_owned(),
            SessionEnd::RefusedInstall => {
                "it has less than this node and would replace it; promote this node, or restart it to start anew"
                    .to_owned()
            }
            SessionEnd::StaleTerm => RejectCode::StaleTerm.describe().to_owned(),
            SessionEnd::Loop => RejectCode::Loop.describe().to_owned(),
            SessionEnd::TooDeep => RejectCode::TooDeep.describe().to_owned(),
        }
    }
}

impl From<FrameError> for SessionEnd {
    fn from(error: FrameError) -> Self {
        SessionEnd::Frame(error)
    }
}

/// Numbers frames in each direction: one missing or repeated frame ends the session.
#[derive(Debug, Default)]
pub(crate) struct FrameNumbers {
    next_out: u32,
    next_in: u32,
}

impl FrameNumbers {
    pub(crate) fn encode(&mut self, message: &Message<'_>) -> Bytes {
        let number = self.next_out;
        self.next_out = number.wrapping_add(1);
        message.encode(number)
    }

    /// Counts a frame that was read before this counter took over.
    pub(crate) fn skip_one_in(&mut self) {
        self.next_in = self.next_in.wrapping_add(1);
    }

    pub(crate) fn decode<'a>(&mut self, frame: &'a [u8]) -> Result<Message<'a>, FrameError> {
        let (got, message) = Message::decode(frame)?;
        if got != self.next_in {
            return Err(FrameError::OutOfOrder { expected: self.next_in, got });
        }
        self.next_in = got.wrapping_add(1);
        Ok(message)
    }
}
