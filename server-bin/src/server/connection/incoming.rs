//! A request with a large value, which goes into the cache as it comes.
//!
//! Lives here: the request's head, how far its value has come, what stands behind that, and that it is executed then. Not here: when a value is large
//! (see [`Settings::large_value_bytes_min`](crate::settings::Settings::large_value_bytes_min)), what is done when it is whole
//! (see `commands`, `meta`, `binary`).
//!
//! So however large values may be, a connection holds a piece of one only: the rest is the cache's, and counts as items do. Where
//! the cache has no page for it beside other such values, one of 1 MiB and less is the connection's after all.

use std::time::Duration;

use hotspare::ValueWriter;
use hotspare_memcached::meta::is_meta;

use super::{Connection, Ran};
use crate::server::binary;
use crate::server::commands::Executor;
use crate::settings::Protocol;

/// What stands behind a value in text (rules S2, Z3).
const LINE_END: [u8; 2] = *b"\r\n";

pub(super) struct Incoming {
    head: Vec<u8>,
    value: ValueWriter,
    /// What has come of the two bytes behind a value in text.
    behind: Vec<u8>,
    behind_bytes: usize,
    /// What its pieces took until now, by the stopwatch.
    pub(super) time: Duration,
}

impl Incoming {
    pub(super) fn in_text(head: &[u8], value: ValueWriter) -> Incoming {
        Incoming {
            head: head.to_vec(),
            value,
            behind: Vec::new(),
            behind_bytes: LINE_END.len(),
            time: Duration::ZERO,
        }
    }

    /// A value with nothing behind it.
    pub(super) fn in_packet(head: &[u8], value: ValueWriter) -> Incoming {
        Incoming { head: head.to_vec(), value, behind: Vec::new(), behind_bytes: 0, time: Duration::ZERO }
    }

    /// The request but for its value.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The length of the whole request.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.value.value_bytes() + self.behind_bytes
    }

    /// What has to come yet.
    pub(super) fn missing_bytes(&self) -> usize {
        self.value.missing_bytes() + self.behind_bytes - self.behind.len()
    }

    /// What it takes beside the value, in bytes.
    pub(super) fn buffer_bytes(&self) -> usize {
        size_of::<Incoming>() + self.head.capacity() + self.behind.capacity() + self.value.heap_bytes()
    }

    /// Takes what belongs to it; gives how many bytes that is.
    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let (value, rest) = input.split_at(input.len().min(self.value.missing_bytes()));
        if !value.is_empty() {
            // Why it is refused is said when it is stored: what comes goes the way of the value either way.
            let _ = self.value.write(value);
        }
        let behind = rest.len().min(self.behind_bytes - self.behind.len());
        self.behind.extend_from_slice(&rest[..behind]);
        value.len() + behind
    }

    /// The request's head and value; without the value if not the right bytes stand behind it.
    pub(super) fn finish(self) -> (Vec<u8>, Option<ValueWriter>) {
        let is_ended = self.behind == LINE_END[..self.behind_bytes];
        (self.head, is_ended.then_some(self.value))
    }
}

impl Connection {
    /// The input begins with the head of a request with a large value, of which a part may be there already.
    #[cold]
    pub(super) fn begin_incoming(
        &mut self,
        incoming: Incoming,
        input: &[u8],
        executor: &mut Executor<'_>,
    ) -> Ran {
        let (head, rest) = input.split_at(incoming.head().len());
        self.parsed += head.len();
        self.incoming = Some(Box::new(incoming));
        self.take_incoming(rest, executor)
    }

    /// Takes what has come of a large value, and executes its request if that is all of it.
    pub(super) fn take_incoming(&mut self, input: &[u8], executor: &mut Executor<'_>) -> Ran {
        let Some(mut incoming) = self.incoming.take() else { return Ran::Done };
        self.parsed += incoming.take(input);
        if incoming.missing_bytes() > 0 {
            self.incoming = Some(incoming);
            return Ran::NeedsMore { bytes: 1 };
        }
        let (head, value) = incoming.finish();
        match value {
            Some(value) if self.protocol == Protocol::Binary => {
                binary::finish_store(&head, value, &self.login, executor, &mut self.output);
            }
            value if is_meta(&head) => {
                executor.finish_meta_store(&head, value, &self.limits, &mut self.output);
            }
            value => executor.finish_store(&head, value, &self.limits, &mut self.output),
        }
        Ran::Done
    }
}
