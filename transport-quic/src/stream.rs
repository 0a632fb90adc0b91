//! One stream of a connection that carries frames: bounded output, cutting input into frames.
//!
//! Not here: which channel a stream is for (see `link`), who opens it (see `transport`).

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hotspare::transport::{FrameSplitter, LinkError};
use hotspare_tls::advice::advice_on_alert;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};

use crate::limits::UNSENT_BYTES_MAX;

/// 1. `unsent_bytes` is the sum of `unsent`'s lengths.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) stream: SendStream,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
}

impl Outgoing {
    pub(crate) fn new(stream: SendStream) -> Outgoing {
        Outgoing { stream, unsent: VecDeque::new(), unsent_bytes: 0 }
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.unsent_bytes += bytes.len();
        self.unsent.push_back(bytes);
    }

    /// Ready when it takes another frame.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.unsent_bytes < UNSENT_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write(cx) {
            Poll::Pending if self.unsent_bytes < UNSENT_BYTES_MAX => Poll::Ready(Ok(())),
            written => written,
        }
    }

    /// Hands over what the connection takes; ready when that was all.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while let Some(front) = self.unsent.front_mut() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, front));
            let count = count.map_err(|why| write_failure(&why))?;
            self.unsent_bytes -= count;
            front.advance(count);
            if front.is_empty() {
                self.unsent.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    splitter: FrameSplitter,
    /// Whether the peer has said its last.
    has_ended: bool,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream, frame_bytes_max: usize) -> Incoming {
        Incoming { stream, splitter: FrameSplitter::new(frame_bytes_max), has_ended: false }
    }

    /// The next frame; `None` at an end between two frames. What is read goes by way of `buffer`.
    pub(crate) fn poll_frame(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        loop {
            if let Some(frame) = self.splitter.next_frame().map_err(LinkError::Frame)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            let count = ready!(self.stream.poll_read(cx, buffer)).map_err(|why| read_failure(&why))?;
            match count {
                0 if self.splitter.is_mid_frame() => {
                    return Poll::Ready(Err(LinkError::Broken("a frame was cut short".to_owned())));
                }
                0 => self.has_ended = true,
                count => self.splitter.push(&buffer[..count]),
            }
        }
    }
}

/// Why a connection ended, in the engine's words.
pub(crate) fn failure(why: &ConnectionError) -> LinkError {
    let code = match why {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        ConnectionError::VersionMismatch => return LinkError::Handshake(why.to_string()),
        _ => return LinkError::Broken(why.to_string()),
    };
    // The codes from 0x100 on are TLS alerts.
    match u8::try_from(code & 0xff) {
        Ok(alert) if code >> 8 == 1 => LinkError::Handshake(match advice_on_alert(alert.into()) {
            Some(advice) => format!("{why}: {advice}"),
            None => why.to_string(),
        }),
        _ => LinkError::Broken(why.to_string()),
    }
}

fn write_failure(why: &WriteError) -> LinkError {
    match why {
        WriteError::ConnectionLost(why) => failure(why),
        _ => LinkError::Broken(why.to_string()),
    }
}

fn read_failure(why: &ReadError) -> LinkError {
    match why {
        ReadError::ConnectionLost(why) => failure(why),
        _ => LinkError::Broken(why.to_string()),
    }
}
