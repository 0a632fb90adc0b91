//! What every transport must do, as one suite of tests: order, ends, push-back, channels, sizes, strangers, leaks.
//!
//! Lives here: the claims, each a function, and [`run`], which checks them all. Not here: the transports; each calls
//! this from its own tests with a [`Subject`], and so can one that you write:
//!
//! ```
//! use hotspare::transport::{MemoryNetwork, Transport, conformance};
//!
//! struct Memory(MemoryNetwork, usize);
//! impl conformance::Subject for Memory {
//!     fn open(&mut self) -> Box<dyn Transport> {
//!         self.1 += 1;
//!         Box::new(self.0.transport(&format!("node-{}", self.1)))
//!     }
//!     fn rest(&mut self) {}
//!     fn nobody(&mut self) -> String {
//!         "nobody".to_owned()
//!     }
//!     fn open_links(&mut self, _address: &str) -> usize {
//!         self.0.links()
//!     }
//! }
//! conformance::run(&mut Memory(MemoryNetwork::immediate(), 0));
//! ```
//!
//! Nothing here reads a clock: a claim fails after [`RESTS_MAX`] rests, and a rest is as long as the subject makes it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::frame::{self, HEADER_BYTES, Kind};
use super::transport::{Channel, Link, LinkError, Transport};

/// How many times a claim rests before it fails. With rests of a millisecond, that is 20 seconds.
pub const RESTS_MAX: usize = 20_000;

/// How many links one after the other must leave nothing behind.
const RECONNECTS: usize = 100;

/// The body of the frames that fill a link, in bytes.
const FILLER_BYTES: usize = 64 << 10;

/// What a link and the system beneath it may take of a peer that does not read, in bytes.
const UNREAD_BYTES_MAX: usize = 64 << 20;

/// A transport under test, with what its tests can do and a user can't.
pub trait Subject {
    /// A transport that listens at an address of its own.
    fn open(&mut self) -> Box<dyn Transport>;

    /// Lets a millisecond pass, and whatever the transport needs run meanwhile.
    fn rest(&mut self);

    /// An address at which nobody listens.
    fn nobody(&mut self) -> String;

    /// How many links to and from the node at `address` this process has, those included that nobody holds any more.
    fn open_links(&mut self, address: &str) -> usize;

    /// The longest frame that its transports take, header included, in bytes; `None` if frames are never bytes.
    fn frame_bytes_max(&self) -> Option<usize> {
        None
    }

    /// Talks to the node at `address` as something that is no node, in `attack` ways, and hangs up. Gives `false`
    /// when there is no such way. The default knows none.
    fn attack(&mut self, _address: &str, _attack: usize) -> bool {
        false
    }

    /// Whether its links prove who the peer is.
    fn proves_peers(&self) -> bool {
        true
    }

    /// What the subject of a peer's certificate is, on the dialler's and on the listener's side.
    fn certificate_subject(&self) -> Option<String> {
        None
    }
}

/// Checks every claim.
///
/// # Panics
/// At the first that does not hold.
pub fn run(subject: &mut dyn Subject) {
    frames_arrive_whole_and_in_order_both_ways_at_once(subject);
    the_longest_frame_passes_and_a_longer_one_ends_the_link(subject);
    what_was_sent_before_the_end_arrives_and_then_the_end(subject);
    whoever_goes_first_the_other_notices(subject);
    a_peer_that_does_not_read_pushes_back(subject);
    a_channel_that_nobody_reads_holds_up_no_other(subject);
    a_hint_arrives_whole_or_not_at_all(subject);
    nothing_comes_on_a_channel_that_a_link_lacks(subject);
    a_dial_to_nobody_fails(subject);
    a_peer_is_who_it_proved_to_be(subject);
    strangers_are_refused_and_harm_nobody(subject);
    links_leave_nothing_behind(subject);
}

/// A frame of `body_bytes`, with a number and bytes of its own.
fn numbered(number: u32, body_bytes: usize) -> Bytes {
    frame::encode(Kind::Hints, number, |body| {
        body.extend((0..body_bytes).map(|at| (at as u32).wrapping_add(number) as u8));
    })
}

/// Two ends of one link, and the transports that they came from.
struct Pair {
    dialler: Box<dyn Link>,
    listener: Box<dyn Link>,
    _dialling: Box<dyn Transport>,
    listening: Box<dyn Transport>,
    address: String,
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Rests until `probe` gives something.
fn wait<T>(subject: &mut dyn Subject, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    for _ in 0..RESTS_MAX {
        if let Some(value) = probe() {
            return value;
        }
        subject.rest();
    }
    panic!("waited in vain: {what}")
}

/// A link over which a frame has gone each way.
fn pair(subject: &mut dyn Subject) -> Pair {
    let mut listening = subject.open();
    let mut dialling = subject.open();
    let address = listening.local_address().expect("a transport that listens");
    let (dialler, listener) = connect(subject, &mut *dialling, &mut *listening);
    Pair { dialler, listener, _dialling: dialling, listening, address }
}

fn connect(
    subject: &mut dyn Subject,
    dialling: &mut dyn Transport,
    listening: &mut dyn Transport,
) -> (Box<dyn Link>, Box<dyn Link>) {
    let address = listening.local_address().expect("a transport that listens");
    let mut dialler = dialling.dial(&address).expect("an address that can be tried");
    // The dialler speaks first, as the driver does; an end that is polled is an end that shakes hands.
    let mut said = false;
    let mut listener = wait(subject, "a link to accept", || {
        said = said || say(&mut *dialler, &numbered(0, 3));
        let _ = dialler.poll_flush(&mut context());
        match listening.poll_accept(&mut context()) {
            Poll::Ready(link) => Some(link),
            Poll::Pending => None,
        }
    });
    wait(subject, "the first frame", || {
        said = said || say(&mut *dialler, &numbered(0, 3));
        let _ = dialler.poll_flush(&mut context());
        received(&mut *listener).map(|frame| assert_eq!(frame, numbered(0, 3)))
    });
    send(subject, &mut *listener, numbered(1, 0));
    wait(subject, "the first answer", || {
        let _ = listener.poll_flush(&mut context());
        received(&mut *dialler).map(|frame| assert_eq!(frame, numbered(1, 0)))
    });
    (dialler, listener)
}

/// Whether the link took a frame.
fn say(link: &mut dyn Link, frame: &Bytes) -> bool {
    say_on(Channel::Live, link, frame)
}

fn say_on(channel: Channel, link: &mut dyn Link, frame: &Bytes) -> bool {
    match link.poll_ready(channel, &mut context()) {
        Poll::Pending => false,
        Poll::Ready(result) => {
            result.expect("a link that lives");
            link.send(channel, frame.clone()).expect("a link that lives");
            true
        }
    }
}

fn send(subject: &mut dyn Subject, link: &mut dyn Link, frame: Bytes) {
    wait(subject, "room for a frame", || {
        let _ = link.poll_flush(&mut context());
        say(link, &frame).then_some(())
    });
}

/// The next frame, if one is there.
fn received(link: &mut dyn Link) -> Option<Bytes> {
    received_on(Channel::Live, link)
}

fn received_on(channel: Channel, link: &mut dyn Link) -> Option<Bytes> {
    match link.poll_recv(channel, &mut context()) {
        Poll::Pending => None,
        Poll::Ready(Ok(Some(frame))) => Some(frame),
        Poll::Ready(end) => panic!("a frame was to come, and there was {end:?}"),
    }
}

/// Sends frames until the channel takes none, and goes on taking none; how many.
fn jam(subject: &mut dyn Subject, channel: Channel, link: &mut dyn Link) -> u32 {
    let mut sent = 0;
    // Full only if it stays so: what is on its way may make room once more.
    let mut full_for = 0;
    while full_for < 50 {
        let _ = link.poll_flush(&mut context());
        if say_on(channel, link, &numbered(sent, FILLER_BYTES)) {
            sent += 1;
            full_for = 0;
        } else {
            full_for += 1;
            subject.rest();
        }
        assert!((sent as usize) * FILLER_BYTES <= UNREAD_BYTES_MAX, "{sent} frames and no end");
    }
    sent
}

/// What a link ends with, whatever came before.
fn end(subject: &mut dyn Subject, link: &mut dyn Link) -> Option<LinkError> {
    wait(subject, "the end of a link", || {
        loop {
            match link.poll_recv(Channel::Live, &mut context()) {
                Poll::Pending => return None,
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None)) => return Some(None),
                Poll::Ready(Err(why)) => return Some(Some(why)),
            }
        }
    })
}

fn frames_arrive_whole_and_in_order_both_ways_at_once(subject: &mut dyn Subject) {
    let mut pair = pair(subject);
    let frame = |number: usize| numbered(number as u32, [0, 1, 15, 16, 17, 1_400, 70_000][number % 7]);
    let count = 700;
    let mut sent = [0; 2];
    let mut got = [0; 2];
    wait(subject, "all frames of both directions", || {
        let mut ends = [&mut pair.dialler, &mut pair.listener];
        for (side, link) in ends.iter_mut().enumerate() {
            while sent[side] < count && say(&mut ***link, &frame(sent[side])) {
                sent[side] += 1;
            }
            let _ = link.poll_flush(&mut context());
            while let Some(arrived) = received(&mut ***link) {
                assert_eq!(arrived, frame(got[side]), "frame {} to side {side}", got[side]);
                got[side] += 1;
            }
        }
        (got == [count; 2]).then_some(())
    });
}

fn the_longest_frame_passes_and_a_longer_one_ends_the_link(subject: &mut dyn Subject) {
    let Some(bytes_max) = subject.frame_bytes_max() else { return };
    let mut pair = pair(subject);
    let longest = numbered(0, bytes_max - HEADER_BYTES);
    assert!(say(&mut *pair.dialler, &longest), "room on an idle link");
    wait(subject, "the longest frame", || {
        let _ = pair.dialler.poll_flush(&mut context());
        received(&mut *pair.listener).map(|frame| assert!(frame == longest, "the longest frame, as sent"))
    });
    let too_long = numbered(1, bytes_max - HEADER_BYTES + 1);
    send(subject, &mut *pair.dialler, too_long);
    let why = wait(subject, "the refusal of a frame that is too long", || {
        let _ = pair.dialler.poll_flush(&mut context());
        match pair.listener.poll_recv(Channel::Live, &mut context()) {
            Poll::Pending => None,
            Poll::Ready(result) => Some(result),
        }
    });
    assert!(matches!(why, Err(LinkError::Frame(_))), "{why:?}");
}

fn what_was_sent_before_the_end_arrives_and_then_the_end(subject: &mut dyn Subject) {
    let mut pair = pair(subject);
    for number in 0..20 {
        send(subject, &mut *pair.listener, numbered(number, 5_000));
    }
    wait(subject, "a flush", || match pair.listener.poll_flush(&mut context()) {
        Poll::Pending => None,
        Poll::Ready(result) => {
            result.expect("a link that lives");
            Some(())
        }
    });
    drop(pair.listener);
    for number in 0..20 {
        let frame = wait(subject, "a frame sent before the end", || received(&mut *pair.dialler));
        assert_eq!(frame, numbered(number, 5_000));
    }
    assert_eq!(end(subject, &mut *pair.dialler), None, "an end between two frames is none of an error");
}

fn whoever_goes_first_the_other_notices(subject: &mut dyn Subject) {
    for dialler_goes in [true, false] {
        let pair = pair(subject);
        let (gone, mut left) =
            if dialler_goes { (pair.dialler, pair.listener) } else { (pair.listener, pair.dialler) };
        drop(gone);
        assert_eq!(end(subject, &mut *left), None);
        // What is sent to nobody ends in an error, and not in a heap that grows.
        wait(subject, "an error for who goes on sending", || {
            let _ = left.poll_flush(&mut context());
            match left.poll_ready(Channel::Live, &mut context()) {
                Poll::Pending => None,
                Poll::Ready(Err(_)) => Some(()),
                Poll::Ready(Ok(())) => {
                    left.send(Channel::Live, numbered(0, FILLER_BYTES)).is_err().then_some(())
                }
            }
        });
    }
}

fn a_peer_that_does_not_read_pushes_back(subject: &mut dyn Subject) {
    let mut pair = pair(subject);
    let sent = jam(subject, Channel::Live, &mut *pair.dialler);
    for number in 0..sent {
        let frame = wait(subject, "a frame that had to wait", || {
            let _ = pair.dialler.poll_flush(&mut context());
            received(&mut *pair.listener)
        });
        assert!(frame == numbered(number, FILLER_BYTES), "frame {number}, as sent");
    }
    send(subject, &mut *pair.dialler, numbered(sent, 0));
    wait(subject, "a frame after the jam", || {
        let _ = pair.dialler.poll_flush(&mut context());
        received(&mut *pair.listener).map(|frame| assert_eq!(frame, numbered(sent, 0)))
    });
}

/// A pair, by who sends.
struct OneWay {
    from: Box<dyn Link>,
    to: Box<dyn Link>,
    _transports: [Box<dyn Transport>; 2],
}

/// A pair each way, of those whose sender has this channel.
fn senders_on(subject: &mut dyn Subject, channel: Channel) -> Vec<OneWay> {
    let mut senders = Vec::new();
    for dialler_sends in [true, false] {
        let Pair { dialler, listener, _dialling, listening, .. } = pair(subject);
        let (from, to) = if dialler_sends { (dialler, listener) } else { (listener, dialler) };
        if from.caps().has(channel) {
            senders.push(OneWay { from, to, _transports: [_dialling, listening] });
        }
    }
    senders
}

fn a_channel_that_nobody_reads_holds_up_no_other(subject: &mut dyn Subject) {
    for OneWay { mut from, mut to, _transports } in senders_on(subject, Channel::Bulk) {
        for (jammed, other) in [(Channel::Live, Channel::Bulk), (Channel::Bulk, Channel::Live)] {
            let stuck = jam(subject, jammed, &mut *from);
            let (mut sent, mut got, count) = (0, 0, stuck + 100);
            wait(subject, "frames beside a jam", || {
                while sent < count && say_on(other, &mut *from, &numbered(sent, FILLER_BYTES)) {
                    sent += 1;
                }
                let _ = from.poll_flush(&mut context());
                while let Some(frame) = received_on(other, &mut *to) {
                    assert!(frame == numbered(got, FILLER_BYTES), "{other:?} frame {got}, as sent");
                    got += 1;
                }
                (got == count).then_some(())
            });
            for number in 0..stuck {
                let frame = wait(subject, "a frame of the jam", || {
                    let _ = from.poll_flush(&mut context());
                    received_on(jammed, &mut *to)
                });
                assert!(frame == numbered(number, FILLER_BYTES), "{jammed:?} frame {number}, as sent");
            }
        }
    }
}

fn a_hint_arrives_whole_or_not_at_all(subject: &mut dyn Subject) {
    const COUNT: u32 = 500;
    for OneWay { mut from, mut to, _transports } in senders_on(subject, Channel::Hint) {
        let bytes_max = from.caps().hint_bytes_max.expect("it has the channel") - HEADER_BYTES;
        let sizes = [0, 1, bytes_max / 2, bytes_max];
        let hint = |number: u32| numbered(number, sizes[number as usize % sizes.len()]);
        let mut got = Vec::new();
        for number in 0..COUNT {
            assert!(say_on(Channel::Hint, &mut *from, &hint(number)), "hints are always taken");
            let _ = from.poll_flush(&mut context());
            subject.rest();
            while let Some(frame) = received_on(Channel::Hint, &mut *to) {
                got.push(frame);
            }
        }
        // One that is too long is lost, and no more than that.
        assert!(say_on(Channel::Hint, &mut *from, &numbered(COUNT, bytes_max + 1 + FILLER_BYTES)));
        send(subject, &mut *from, numbered(9, 100));
        wait(subject, "a frame beside hints", || {
            let _ = from.poll_flush(&mut context());
            received(&mut *to).map(|frame| assert_eq!(frame, numbered(9, 100)))
        });
        let whole: Vec<Bytes> = (0..COUNT).map(hint).collect();
        assert!(got.iter().all(|frame| whole.contains(frame)), "a hint that was never sent");
        assert!(got.len() <= COUNT as usize, "more hints than were sent");
        assert!(got.len() > COUNT as usize / 2, "{} of {COUNT} hints on an idle path", got.len());
    }
}

fn nothing_comes_on_a_channel_that_a_link_lacks(subject: &mut dyn Subject) {
    let mut pair = pair(subject);
    let lacking = [(pair.dialler.caps(), true), (pair.listener.caps(), false)];
    for (caps, dialler_sends) in lacking {
        for channel in Channel::ALL.into_iter().filter(|channel| !caps.has(*channel)) {
            let Pair { dialler, listener, .. } = &mut pair;
            let (from, to) = if dialler_sends { (dialler, listener) } else { (listener, dialler) };
            send(subject, &mut **from, numbered(1, 10));
            wait(subject, "a frame on the live channel", || {
                let _ = from.poll_flush(&mut context());
                assert_eq!(received_on(channel, &mut **to), None, "{channel:?}");
                received(&mut **to).map(|frame| assert_eq!(frame, numbered(1, 10)))
            });
        }
    }
}

fn a_dial_to_nobody_fails(subject: &mut dyn Subject) {
    let mut transport = subject.open();
    let address = subject.nobody();
    let Ok(mut link) = transport.dial(&address) else { return };
    let why = end(subject, &mut *link);
    assert!(matches!(why, Some(LinkError::Unreachable(_))), "{why:?}");
    assert!(
        matches!(link.poll_ready(Channel::Live, &mut context()), Poll::Ready(Err(_))),
        "it stays an error"
    );
}

fn a_peer_is_who_it_proved_to_be(subject: &mut dyn Subject) {
    let pair = pair(subject);
    assert_eq!(pair.dialler.peer().address, pair.address, "the one that was dialled");
    assert!(!pair.listener.peer().address.is_empty());
    for link in [&pair.dialler, &pair.listener] {
        assert_eq!(link.peer().proven, subject.proves_peers());
        let subject_named = link.peer().certificate.as_ref().map(|certificate| certificate.subject.clone());
        assert_eq!(subject_named, subject.certificate_subject());
    }
}

fn strangers_are_refused_and_harm_nobody(subject: &mut dyn Subject) {
    let mut pair = pair(subject);
    let mut attack = 0;
    let mut accepted: Vec<Box<dyn Link>> = Vec::new();
    while subject.attack(&pair.address, attack) {
        // Whether a stranger gets as far as a link differs; no frame of one is ever seen.
        for _ in 0..100 {
            if let Poll::Ready(link) = pair.listening.poll_accept(&mut context()) {
                accepted.push(link);
            }
            accepted.retain_mut(|link| match link.poll_recv(Channel::Live, &mut context()) {
                Poll::Ready(Ok(Some(frame))) => panic!("attack {attack} got a frame in: {frame:?}"),
                Poll::Ready(_) => false,
                Poll::Pending => true,
            });
            subject.rest();
        }
        attack += 1;
    }
    for mut link in accepted {
        let _ = end(subject, &mut *link);
    }
    send(subject, &mut *pair.dialler, numbered(7, 100));
    wait(subject, "a frame beside the attacks", || {
        let _ = pair.dialler.poll_flush(&mut context());
        received(&mut *pair.listener).map(|frame| assert_eq!(frame, numbered(7, 100)))
    });
    let mut dialling = subject.open();
    drop(connect(subject, &mut *dialling, &mut *pair.listening));
}

fn links_leave_nothing_behind(subject: &mut dyn Subject) {
    let (mut listening, mut dialling) = (subject.open(), subject.open());
    let address = listening.local_address().expect("a transport that listens");
    for round in 0..RECONNECTS {
        let (dialler, listener) = connect(subject, &mut *dialling, &mut *listening);
        if round == 0 {
            assert!(subject.open_links(&address) > 0, "a link that is held is counted");
        }
        drop((dialler, listener));
    }
    for _ in 0..RESTS_MAX {
        if subject.open_links(&address) == 0 {
            return;
        }
        subject.rest();
    }
    panic!("{} of {RECONNECTS} links are still there", subject.open_links(&address));
}
