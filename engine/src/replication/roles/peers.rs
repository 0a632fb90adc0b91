//! Which other nodes are known, and which of them have yet to hear who reigns.
//!
//! Lives here: learning and forgetting addresses. Not here: telling them (see `driver::announce`), which of them count where a
//! promotion asks (see `counting`).

use super::{ADDRESS_BYTES_MAX, PEERS_MAX, Role, Roles};

impl Roles {
    pub(crate) fn learn_peer(&mut self, address: &str) {
        let known =
            self.peers.iter().any(|peer| peer == address) || self.own_address.as_deref() == Some(address);
        let sound = !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
        if sound && !known && self.peers.len() < PEERS_MAX {
            self.peers.push(address.to_owned());
        }
    }

    /// Learns the peers that the node which this one follows knows, and forgets those that were forgotten there since it
    /// attached.
    pub(crate) fn learn_peers_of_upstream(&mut self, named: &[String]) {
        named.iter().for_each(|address| self.learn_peer(address));
        let mut before = std::mem::take(&mut self.named_by_upstream);
        before.retain(|address| !named.contains(address));
        self.peers.retain(|peer| !before.contains(peer));
        self.named_by_upstream = self.peers.iter().filter(|peer| named.contains(peer)).cloned().collect();
    }

    /// Forgets an address that turned out to be this node's own, or that an operator says nobody lives at any more. How many
    /// others a promotion asks stays as the configuration says. Whether it was known.
    pub(crate) fn forget_peer(&mut self, address: &str) -> bool {
        let known = self.peers.len();
        self.peers.retain(|peer| peer != address);
        self.upstream = self.upstream.take().filter(|upstream| upstream != address);
        self.has_heard_of_reign(address);
        self.peers.len() < known
    }

    /// Who is still to hear that this node reigns.
    pub(crate) fn to_tell(&self) -> Vec<String> {
        self.unheard().cloned().collect()
    }

    fn unheard(&self) -> impl Iterator<Item = &String> {
        self.unanswered.iter().chain(&self.gone)
    }

    /// Whether this primary says to whoever lives at `address` that it reigns: a peer that has not heard, or has and is not
    /// attached.
    pub(crate) fn is_to_hear(&self, address: &str) -> bool {
        let is_peer = self.peers.iter().any(|peer| peer == address);
        let is_attached = self.replicas.iter().any(|replica| replica.address == address);
        self.unheard().any(|peer| peer == address) || (is_peer && !is_attached)
    }

    /// Whoever lives at `address` knows that this node reigns.
    pub(crate) fn has_heard_of_reign(&mut self, address: &str) {
        self.unanswered.retain(|peer| peer != address);
        self.gone.retain(|peer| peer != address);
    }

    /// A replica that listens at `address` is gone: when it comes back it must hear who reigns.
    pub(crate) fn tell_again(&mut self, address: &str) {
        let known = self.peers.iter().any(|peer| peer == address);
        if self.role == Role::Primary && known && !self.to_tell().iter().any(|peer| peer == address) {
            self.gone.push(address.to_owned());
        }
    }
}
