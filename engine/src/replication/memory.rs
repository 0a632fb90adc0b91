//! A transport in memory, whose links a test cuts, stalls and delays: for simulations and embedders' own tests.
//!
//! Lives here: the network that links nodes of one process. Time is the simulation's: frames move when it says so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::transport::{Link, LinkError, PeerIdentity, Transport};

/// Frames that one direction of a link holds before it pushes back.
const FRAMES_IN_FLIGHT_MAX: usize = 64;

/// Nodes of one process, each under a name, and the links between them. Every peer counts as proven.
///
/// A link's frames wait in flight until [`deliver`](MemoryNetwork::deliver) moves them, so that a simulation
/// decides what arrives when. [`MemoryNetwork::immediate`] makes one that delivers at once.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<Network>>,
}

#[derive(Debug, Default)]
struct Network {
    immediate: bool,
    next_link: u64,
    directions: HashMap<(u64, bool), Direction>,
    arriving: HashMap<String, VecDeque<MemoryLink>>,
    listening: HashMap<String, Option<Waker>>,
    blocked: HashSet<(String, String)>,
}

/// What goes from one end of a link to the other.
#[derive(Debug, Default)]
struct Direction {
    from: String,
    to: String,
    in_flight: VecDeque<Bytes>,
    arrived: VecDeque<Bytes>,
    closed: bool,
    cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Direction {
    /// Whether its reader has seen all that will ever come.
    fn has_ended(&self) -> bool {
        self.closed && self.in_flight.is_empty() && self.arrived.is_empty()
    }

    fn wake_both(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl MemoryNetwork {
    /// A network on which frames move only when they are delivered.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// A network on which frames arrive at once.
    pub fn immediate() -> MemoryNetwork {
        let network = MemoryNetwork::default();
        network.state.lock().immediate = true;
        network
    }

    /// A node's way into the network, under `name`.
    pub fn transport(&self, name: &str) -> MemoryTransport {
        self.state.lock().listening.insert(name.to_owned(), None);
        MemoryTransport { name: name.to_owned(), network: self.clone() }
    }

    /// Names each direction of a link that has frames in flight: link, from, to, how many frames. In a fixed order.
    pub fn in_flight(&self) -> Vec<(u64, String, String, usize)> {
        let state = self.state.lock();
        let mut busy: Vec<_> = state
            .directions
            .iter()
            .filter(|(_, direction)| !direction.in_flight.is_empty())
            .map(|((link, _), direction)| {
                (*link, direction.from.clone(), direction.to.clone(), direction.in_flight.len())
            })
            .collect();
        busy.sort();
        busy
    }

    /// Moves one frame of a link from `from` to the other end; whether there was one that may pass.
    pub fn deliver(&self, link: u64, from: &str) -> bool {
        let mut state = self.state.lock();
        let Network { directions, blocked, .. } = &mut *state;
        let found = directions.iter_mut().find(|((id, _), direction)| *id == link && direction.from == from);
        let Some((_, direction)) = found else { return false };
        if blocked.contains(&(direction.from.clone(), direction.to.clone())) {
            return false;
        }
        let Some(frame) = direction.in_flight.pop_front() else { return false };
        direction.arrived.push_back(frame);
        direction.wake_both();
        true
    }

    /// Moves every frame that is in flight now, of every link, as far as it may pass.
    pub fn deliver_all(&self) {
        for (link, from, _, frames) in self.in_flight() {
            for _ in 0..frames {
                self.deliver(link, &from);
            }
        }
    }

    /// How many links have an end that is still held.
    pub fn links(&self) -> usize {
        self.state.lock().directions.len() / 2
    }

    /// Blocks or frees everything from one node to another; frames wait meanwhile.
    pub fn set_blocked(&self, from: &str, to: &str, blocked: bool) {
        let pair = (from.to_owned(), to.to_owned());
        let mut state = self.state.lock();
        if blocked {
            state.blocked.insert(pair);
        } else {
            state.blocked.remove(&pair);
        }
    }

    /// [`MemoryNetwork::set_blocked`] both ways.
    pub fn set_apart(&self, one: &str, other: &str, apart: bool) {
        self.set_blocked(one, other, apart);
        self.set_blocked(other, one, apart);
    }

    /// Cuts every link between two nodes; frames in flight are lost.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_where(|direction| {
            (direction.from == one && direction.to == other)
                || (direction.from == other && direction.to == one)
        });
    }

    /// Takes a node off the network: its links are cut and nobody reaches it until it has a transport again.
    pub fn remove(&self, name: &str) {
        self.cut_where(|direction| direction.from == name || direction.to == name);
        let unaccepted = {
            let mut state = self.state.lock();
            state.listening.remove(name);
            state.arriving.remove(name)
        };
        // A link locks the network when it drops.
        drop(unaccepted);
    }

    fn cut_where(&self, matches: impl Fn(&Direction) -> bool) {
        let mut state = self.state.lock();
        for direction in state.directions.values_mut().filter(|direction| matches(direction)) {
            direction.in_flight.clear();
            direction.cut = true;
            direction.wake_both();
        }
    }
}

/// One node's way into a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    name: String,
    network: MemoryNetwork,
}

impl Transport for MemoryTransport {
    fn dial(&mut self, address: &str) -> Result<Box<dyn Link>, LinkError> {
        let mut state = self.network.state.lock();
        let unreachable = state.blocked.contains(&(self.name.clone(), address.to_owned()));
        if !state.listening.contains_key(address) || unreachable {
            return Err(LinkError::Unreachable(format!("no node is named {address}")));
        }
        state.next_link += 1;
        let id = state.next_link;
        for is_dialler in [true, false] {
            let (from, to) = if is_dialler { (&*self.name, address) } else { (address, &*self.name) };
            let direction = Direction { from: from.to_owned(), to: to.to_owned(), ..Direction::default() };
            state.directions.insert((id, is_dialler), direction);
        }
        let link = |is_dialler, peer: &str| MemoryLink {
            id,
            is_dialler,
            peer: PeerIdentity { proven: true, ..PeerIdentity::unproven(peer) },
            network: self.network.clone(),
        };
        state.arriving.entry(address.to_owned()).or_default().push_back(link(false, &self.name));
        if let Some(waker) = state.listening.get_mut(address).and_then(Option::take) {
            waker.wake();
        }
        Ok(Box::new(link(true, address)))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Link>> {
        let mut state = self.network.state.lock();
        match state.arriving.get_mut(&self.name).and_then(VecDeque::pop_front) {
            Some(link) => Poll::Ready(Box::new(link)),
            None => {
                state.listening.insert(self.name.clone(), Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn local_address(&self) -> Option<String> {
        Some(self.name.clone())
    }
}

#[derive(Debug)]
struct MemoryLink {
    id: u64,
    is_dialler: bool,
    peer: PeerIdentity,
    network: MemoryNetwork,
}

fn cut() -> LinkError {
    LinkError::Broken("the link was cut".to_owned())
}

impl MemoryLink {
    fn with_direction<R>(&self, outgoing: bool, run: impl FnOnce(&mut Direction, bool) -> R) -> R {
        let mut state = self.network.state.lock();
        let immediate = state.immediate;
        run(state.directions.entry((self.id, self.is_dialler == outgoing)).or_default(), immediate)
    }
}

impl Link for MemoryLink {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.with_direction(false, |direction, _| direction.has_ended()) {
            return Poll::Ready(Err(LinkError::Broken("the peer has gone".to_owned())));
        }
        self.with_direction(true, |direction, _| {
            if direction.cut || direction.closed {
                return Poll::Ready(Err(cut()));
            }
            if direction.in_flight.len() + direction.arrived.len() < FRAMES_IN_FLIGHT_MAX {
                return Poll::Ready(Ok(()));
            }
            direction.writer = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.with_direction(true, |direction, immediate| {
            if direction.cut || direction.closed {
                return Err(cut());
            }
            if immediate {
                direction.arrived.push_back(frame);
                direction.reader.take().into_iter().for_each(Waker::wake);
            } else {
                direction.in_flight.push_back(frame);
            }
            Ok(())
        })
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.with_direction(false, |direction, _| {
            if let Some(frame) = direction.arrived.pop_front() {
                direction.writer.take().into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(Some(frame)));
            }
            if direction.cut {
                return Poll::Ready(Err(cut()));
            }
            if direction.closed && direction.in_flight.is_empty() {
                return Poll::Ready(Ok(None));
            }
            direction.reader = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let mut state = self.network.state.lock();
        let ends = [(self.id, true), (self.id, false)];
        let other_is_gone =
            state.directions.get(&(self.id, !self.is_dialler)).is_none_or(|direction| direction.closed);
        if other_is_gone {
            for end in ends {
                state.directions.remove(&end);
            }
            return;
        }
        for end in ends {
            if let Some(direction) = state.directions.get_mut(&end) {
                direction.closed |= end.1 == self.is_dialler;
                direction.wake_both();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::conformance::{self, Subject};

    struct Memory {
        network: MemoryNetwork,
        nodes: usize,
    }

    impl Subject for Memory {
        fn open(&mut self) -> Box<dyn Transport> {
            self.nodes += 1;
            Box::new(self.network.transport(&format!("node-{}", self.nodes)))
        }

        fn rest(&mut self) {
            for (link, from, _, frames) in self.network.in_flight() {
                (0..frames).for_each(|_| assert!(self.network.deliver(link, &from)));
            }
        }

        fn nobody(&mut self) -> String {
            "nobody".to_owned()
        }

        fn open_links(&mut self, _address: &str) -> usize {
            self.network.links()
        }
    }

    #[test]
    fn a_network_in_memory_keeps_the_promises_of_a_transport() {
        for network in [MemoryNetwork::immediate(), MemoryNetwork::new()] {
            conformance::run(&mut Memory { network, nodes: 0 });
        }
    }
}
