//! The buffers of connections, and those that a worker lends: a connection that is quiet needs none.

use std::mem;

use super::Connection;
use super::input::Input;

/// The largest buffer that is kept for the connections of a worker.
pub(super) const SHARED_BYTES_MAX: usize = 4 << 20;

/// What a worker's spare connection keeps, beside the buffers that are lent.
const RESTING_BYTES_MAX: usize = 64 << 10;

/// Buffers that the connections of a worker use in turn.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(super) input: Input,
    pub(super) output: Vec<u8>,
}

impl Connection {
    /// Takes the worker's buffers for those it has none of.
    pub(crate) fn borrow(&mut self, buffers: &mut Buffers) {
        if self.input.capacity() == 0 {
            mem::swap(&mut self.input, &mut buffers.input);
        }
        if self.output.capacity() == 0 {
            mem::swap(&mut self.output, &mut buffers.output);
        }
    }

    /// Of a quiet connection: keeps buffers of the common size for the next turn, which is another client's, and leaves larger
    /// ones to the worker.
    #[inline]
    pub(crate) fn rest(&mut self, buffers: &mut Buffers) {
        if self.buffer_bytes() > RESTING_BYTES_MAX {
            self.give_back(buffers);
        }
    }

    /// Leaves the buffers to the worker, and keeps what has to stay in one that fits: a quiet connection has none.
    pub(crate) fn give_back(&mut self, buffers: &mut Buffers) {
        if let Some(spare) = self.input.give_memory(self.parsed) {
            self.parsed = 0;
            if is_worth_keeping(spare.capacity(), buffers.input.capacity()) {
                buffers.input = spare;
            }
        }
        let sent = self.sent;
        keep_rest(&mut self.output, &mut self.sent, &mut buffers.output);
        if let Some(pinned) = &mut self.pinned {
            pinned.moved_up(sent - self.sent);
        }
    }
}

/// Whether a buffer of this capacity is to take the place of one that is shared.
fn is_worth_keeping(capacity: usize, shared_capacity: usize) -> bool {
    capacity > shared_capacity && capacity <= SHARED_BYTES_MAX
}

/// Has `own` hold no more than what follows `done`; the memory it does not need becomes `shared`, or goes.
fn keep_rest(own: &mut Vec<u8>, done: &mut usize, shared: &mut Vec<u8>) {
    let rest_bytes = own.len() - *done;
    if rest_bytes > 0 && rest_bytes >= own.capacity() / 2 {
        return;
    }
    if rest_bytes > SHARED_BYTES_MAX {
        // Moved within its buffer: a large value is never there once more for it.
        own.drain(..mem::take(done));
        return own.shrink_to_fit();
    }
    let rest = own[*done..].to_vec();
    *done = 0;
    let mut spare = mem::replace(own, rest);
    if is_worth_keeping(spare.capacity(), shared.capacity()) {
        spare.clear();
        *shared = spare;
    }
}
