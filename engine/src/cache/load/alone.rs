//! In the place of `leases` and `sharing` where the engine is built without replication: there is no other node.

use std::sync::Arc;

use crate::mutation::Version;

use super::super::{Inner, ShardCell};
use super::flight::Flight;
use super::{Place, Store, Wanted};

/// There are none.
#[derive(Debug)]
pub(crate) struct LoadLeases;

impl LoadLeases {
    pub(crate) fn new(_shard_count: usize) -> LoadLeases {
        LoadLeases
    }
}

impl Inner {
    pub(super) fn place_load(&self, _: &mut ShardCell, _: &Arc<Flight>, _: &Wanted<'_>) -> Place {
        Place::Here
    }

    pub(super) fn hand_in(&self, _: &[u8], _: &Flight, _: &Store<'_>) -> bool {
        false
    }

    pub(super) fn give_lease_back(&self, _: &mut ShardCell, _: &[u8], _: &Flight) {}

    #[cold]
    pub(crate) fn overtake_loads(&self, cell: &mut ShardCell, key: &[u8], by: Version) {
        cell.flights.overtake(key, by);
    }
}
