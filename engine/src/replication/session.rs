//! What both ends of a stream share: frame numbers, time-outs, and why a session ended.
//!
//! Not here: what is said (see `primary`, `replica`).

use bytes::Bytes;

use super::bug::{Bug, Bugs};
use super::frame::{self, FrameError, Kind};
use super::message::{ByeReason, Fenced, Message, RejectCode};
use super::transport::Channel;

/// How often each end says that it is alive, in milliseconds.
pub(crate) const HEARTBEAT_MS: u64 = 250;

/// How long a silent peer counts as alive, in milliseconds.
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
    /// Nothing answers there, or by another transport.
    NotConnected,
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
    /// This replica was copied from here a moment ago, and is to be again: it fell out of the log.
    FellBehind,
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
            SessionEnd::NotConnected => format!(
                "no link within {DEAD_AFTER_MS} ms: nothing there answers by this transport; is that the address of its \
                 --replication-listen (not of its clients), of another transport (--transport), or is it a firewall's doing?"
            ),
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
                "it has less than this node and would replace it: this one keeps what it holds; its warnings say what to do"
                    .to_owned()
            }
            SessionEnd::FellBehind => {
                "its log no longer holds what follows this node's last full copy: the link or this node is too slow for the \
                 writes; raise the log's size there"
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

/// Numbers frames in each direction and of each channel: one missing or repeated frame ends the session, but among hints.
#[derive(Debug, Default)]
pub(crate) struct FrameNumbers {
    next_out: [u32; Channel::ALL.len()],
    next_in: [u32; Channel::ALL.len()],
    bugs: Bugs,
}

impl FrameNumbers {
    /// Those of a node that has these bugs.
    pub(crate) fn new(bugs: Bugs) -> FrameNumbers {
        FrameNumbers { bugs, ..FrameNumbers::default() }
    }

    pub(crate) fn encode(&mut self, message: &Message<'_>) -> Bytes {
        self.encode_on(Channel::Live, message)
    }

    pub(crate) fn encode_on(&mut self, channel: Channel, message: &Message<'_>) -> Bytes {
        message.encode(self.take_next(channel))
    }

    /// The whole of a frame for the live channel that was begun.
    pub(crate) fn finish(&mut self, kind: Kind, frame: Vec<u8>) -> Bytes {
        frame::finish(kind, self.take_next(Channel::Live), frame)
    }

    fn take_next(&mut self, channel: Channel) -> u32 {
        let next = &mut self.next_out[channel as usize];
        std::mem::replace(next, next.wrapping_add(1))
    }

    /// Counts a frame that was read before this counter took over.
    pub(crate) fn skip_one_in(&mut self) {
        let [live, ..] = &mut self.next_in;
        *live = live.wrapping_add(1);
    }

    pub(crate) fn decode<'a>(&mut self, frame: &'a [u8]) -> Result<Message<'a>, FrameError> {
        let (got, message) = Message::decode_with(frame, self.bugs)?;
        self.count_in(Channel::Live, got)?;
        Ok(message)
    }

    /// [`FrameNumbers::decode`], of any channel; `None` for a hint that a later one has overtaken.
    pub(crate) fn decode_on<'a>(
        &mut self,
        channel: Channel,
        frame: &'a [u8],
    ) -> Result<Option<Message<'a>>, FrameError> {
        let (got, message) = Message::decode_with(frame, self.bugs)?;
        Ok(self.count_in(channel, got)?.then_some(message))
    }

    /// Whether the frame of this number is to be looked at.
    fn count_in(&mut self, channel: Channel, got: u32) -> Result<bool, FrameError> {
        let next = &mut self.next_in[channel as usize];
        let ahead = got.wrapping_sub(*next);
        match channel {
            Channel::Hint if ahead > u32::MAX / 2 => return Ok(false),
            _ if ahead == u32::MAX && self.bugs.has(Bug::RepeatsTaken) => {}
            Channel::Live | Channel::Bulk if ahead != 0 => {
                return Err(FrameError::OutOfOrder { expected: *next, got });
            }
            _ => *next = got.wrapping_add(1),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::message::Hints;

    fn hints(number: u32) -> Bytes {
        Message::Hints(Hints { at_seq: 0, hashes: Vec::new() }).encode(number)
    }

    #[test]
    fn each_channel_has_numbers_of_its_own_and_those_of_hints_only_grow() {
        let mut numbers = FrameNumbers::default();
        let mut takes = |channel, number| numbers.decode_on(channel, &hints(number)).map(|got| got.is_some());
        assert_eq!(takes(Channel::Live, 0), Ok(true));
        assert_eq!(takes(Channel::Bulk, 0), Ok(true), "not the live channel's");
        assert_eq!(takes(Channel::Bulk, 2), Err(FrameError::OutOfOrder { expected: 1, got: 2 }));
        assert_eq!(takes(Channel::Live, 0), Err(FrameError::OutOfOrder { expected: 1, got: 0 }));
        for (number, is_taken) in [(0, true), (7, true), (3, false), (7, false), (8, true)] {
            assert_eq!(takes(Channel::Hint, number), Ok(is_taken), "hint {number}");
        }
    }

    #[test]
    fn numbers_begin_again_behind_the_last() {
        let mut numbers =
            FrameNumbers { next_in: [u32::MAX; 3], next_out: [u32::MAX; 3], ..FrameNumbers::default() };
        for channel in Channel::ALL {
            for number in [u32::MAX, 0, 1] {
                assert_eq!(
                    numbers.encode_on(channel, &Message::Hints(Hints { at_seq: 0, hashes: Vec::new() })),
                    hints(number)
                );
                assert!(numbers.decode_on(channel, &hints(number)).unwrap().is_some());
            }
        }
    }
}
