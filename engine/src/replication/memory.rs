//! A transport in memory, whose links a test cuts, stalls, delays and reorders: for simulations and embedders' own tests.
//!
//! Lives here: the network that links nodes of one process. Time is the simulation's: frames move when it says so.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::transport::{Channel, Link, LinkCaps, LinkError, PeerIdentity, Transport};

/// Frames that one channel of a direction holds before it pushes back, or loses hints.
const FRAMES_IN_FLIGHT_MAX: usize = 64;

/// The longest hint where channels are apart, about what a datagram takes.
const HINT_BYTES_MAX: usize = 1_200;

/// Nodes of one process, each under a name, and the links between them. Every peer counts as proven, unless
/// the network is [without proof](MemoryNetwork::without_proof).
///
/// A link's frames wait in flight until [`deliver`](MemoryNetwork::deliver) moves them, so that a simulation
/// decides what arrives when. [`MemoryNetwork::immediate`] makes one that delivers at once. Where its channels are
/// apart, a simulation decides that for each; else all frames of a link are on one, as over TCP.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<Network>>,
}

#[derive(Debug, Default)]
struct Network {
    immediate: bool,
    channels_apart: bool,
    without_proof: bool,
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
    lanes: [Lane; Channel::ALL.len()],
    closed: bool,
    cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One channel of a direction.
#[derive(Debug, Default)]
struct Lane {
    in_flight: VecDeque<Bytes>,
    arrived: VecDeque<Bytes>,
}

impl Lane {
    fn is_full(&self) -> bool {
        self.in_flight.len() + self.arrived.len() >= FRAMES_IN_FLIGHT_MAX
    }
}

impl Direction {
    fn lane(&mut self, channel: Channel) -> &mut Lane {
        &mut self.lanes[channel as usize]
    }

    /// Whether its reader has seen all that will ever come.
    fn has_ended(&self) -> bool {
        let [live, ..] = &self.lanes;
        self.closed && live.in_flight.is_empty() && live.arrived.is_empty()
    }

    fn frames_in_flight(&self) -> usize {
        self.lanes.iter().map(|lane| lane.in_flight.len()).sum()
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

    /// The same, with each link's channels apart.
    pub fn with_channels_apart(self) -> MemoryNetwork {
        self.state.lock().channels_apart = true;
        self
    }

    /// The same, whose peers prove nothing: as over TCP on a loopback, with neither certificates nor a secret.
    pub fn without_proof(self) -> MemoryNetwork {
        self.state.lock().without_proof = true;
        self
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
            .map(|((link, _), direction)| {
                (*link, direction.from.clone(), direction.to.clone(), direction.frames_in_flight())
            })
            .filter(|(.., frames)| *frames > 0)
            .collect();
        busy.sort();
        busy
    }

    /// Moves one frame of a link from `from` to the other end; whether there was one that may pass.
    pub fn deliver(&self, link: u64, from: &str) -> bool {
        Channel::ALL.into_iter().any(|channel| self.deliver_on(link, from, channel))
    }

    /// [`MemoryNetwork::deliver`], of one channel.
    pub fn deliver_on(&self, link: u64, from: &str, channel: Channel) -> bool {
        self.take_from_flight(link, from, channel, 0, |lane, frame| lane.arrived.push_back(frame))
    }

    /// Moves the hint behind `skipped` others to the other end before them; whether there was one that may pass.
    pub fn deliver_hint(&self, link: u64, from: &str, skipped: usize) -> bool {
        self.take_from_flight(link, from, Channel::Hint, skipped, |lane, frame| lane.arrived.push_back(frame))
    }

    /// Loses the oldest hint in flight; whether there was one.
    pub fn lose_hint(&self, link: u64, from: &str) -> bool {
        self.take_from_flight(link, from, Channel::Hint, 0, |_, _| ())
    }

    fn take_from_flight(
        &self,
        link: u64,
        from: &str,
        channel: Channel,
        index: usize,
        take: impl FnOnce(&mut Lane, Bytes),
    ) -> bool {
        let mut state = self.state.lock();
        let Network { directions, blocked, .. } = &mut *state;
        let found = directions.iter_mut().find(|((id, _), direction)| *id == link && direction.from == from);
        let Some((_, direction)) = found else { return false };
        if blocked.contains(&(direction.from.clone(), direction.to.clone())) {
            return false;
        }
        let lane = direction.lane(channel);
        let Some(frame) = lane.in_flight.remove(index) else { return false };
        take(lane, frame);
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
            direction.lanes.iter_mut().for_each(|lane| lane.in_flight.clear());
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
        let channels_apart = state.channels_apart;
        let without_proof = state.without_proof;
        let link = |is_dialler, peer: &str| MemoryLink {
            id,
            is_dialler,
            channels_apart,
            peer: PeerIdentity { proven: !without_proof, ..PeerIdentity::unproven(peer) },
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
    channels_apart: bool,
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

    fn caps(&self) -> LinkCaps {
        match self.channels_apart {
            true => LinkCaps { bulk: true, hint_bytes_max: Some(HINT_BYTES_MAX) },
            false => LinkCaps::default(),
        }
    }

    fn poll_ready(&mut self, channel: Channel, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.with_direction(false, |direction, _| direction.has_ended()) {
            return Poll::Ready(Err(LinkError::Broken("the peer has gone".to_owned())));
        }
        self.with_direction(true, |direction, _| {
            if direction.cut || direction.closed {
                return Poll::Ready(Err(cut()));
            }
            if !direction.lane(channel).is_full() {
                return Poll::Ready(Ok(()));
            }
            direction.writer = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    fn send(&mut self, channel: Channel, frame: Bytes) -> Result<(), LinkError> {
        self.with_direction(true, |direction, immediate| {
            if direction.cut || direction.closed {
                return Err(cut());
            }
            let lane = direction.lane(channel);
            let is_lost = channel == Channel::Hint && (lane.is_full() || frame.len() > HINT_BYTES_MAX);
            match immediate {
                _ if is_lost => {}
                true => {
                    lane.arrived.push_back(frame);
                    direction.reader.take().into_iter().for_each(Waker::wake);
                }
                false => lane.in_flight.push_back(frame),
            }
            Ok(())
        })
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv(
        &mut self,
        channel: Channel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, LinkError>> {
        self.with_direction(false, |direction, _| {
            if let Some(frame) = direction.lane(channel).arrived.pop_front() {
                direction.writer.take().into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(Some(frame)));
            }
            if direction.cut {
                return Poll::Ready(Err(cut()));
            }
            if channel == Channel::Live && direction.has_ended() {
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
        for network in [MemoryNetwork::immediate, MemoryNetwork::new] {
            conformance::run(&mut Memory { network: network(), nodes: 0 });
            conformance::run(&mut Memory { network: network().with_channels_apart(), nodes: 0 });
        }
    }
}
