//! In the place of `group` where the engine is built without replication: a group that can't exist.

use crate::config::Config;
use crate::error::WriteError;
use crate::mutation::{Marks, Mutation, Version};
use crate::serving::Serving;
use crate::storage::{Meta, Value};

/// There is none.
pub(crate) enum Group {}

impl Group {
    pub(super) fn new(_config: &Config, _shard_count: usize) -> Option<Group> {
        None
    }

    /// Runs this.
    pub(super) fn tracking<R>(run: impl FnOnce() -> R) -> R {
        run()
    }

    pub(super) fn last_written() -> Version {
        Version(0)
    }

    pub(super) fn serving(&self) -> Serving {
        match *self {}
    }

    pub(super) fn primary_address(&self) -> Option<String> {
        match *self {}
    }

    pub(super) fn item_bytes_max(&self) -> usize {
        match *self {}
    }

    pub(super) fn configured_item_bytes_max(&self) -> usize {
        match *self {}
    }

    pub(super) fn may_show(&self, _version: Version, _lease_now_ms: impl FnOnce() -> u64) -> bool {
        match *self {}
    }

    pub(super) fn check_lease(&self, _lease_now_ms: u64) -> Result<(), WriteError> {
        match *self {}
    }

    pub(super) fn shortage(&self) -> WriteError {
        match *self {}
    }

    pub(super) fn next_version(&self) -> Version {
        match *self {}
    }

    pub(super) fn append(&self, _mutation: &Mutation<'_>, _scratch: &mut Vec<u8>) -> Version {
        match *self {}
    }

    pub(super) fn append_in_pieces(
        &self,
        _key: &[u8],
        _value: Value<'_>,
        _meta: Meta,
        _scratch: &mut Vec<u8>,
    ) -> Version {
        match *self {}
    }

    pub(super) fn append_plain(&self, _key: &[u8], _value: &[u8], _marks: Marks) -> Version {
        match *self {}
    }

    pub(super) fn log_passes(&self, _shard: &mut crate::storage::Shard) {
        match *self {}
    }

    pub(super) fn leaves_absent_deletes_out(&self) -> bool {
        match *self {}
    }

    pub(super) fn ring(&self) {
        match *self {}
    }

    pub(super) fn too_stale_ms(&self, _now_ms: crate::clock::Millis) -> Option<u64> {
        match *self {}
    }

    pub(super) fn wake_subscribers(&self) {
        match *self {}
    }

    pub(super) fn tell_mark(&self, _shard: usize, _hash: u64) {
        match *self {}
    }
}
