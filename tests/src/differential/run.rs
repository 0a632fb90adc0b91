//! Conversations with both servers, step by step, and the shortest one that shows a difference.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::known::{After, Proof, Proven};
use super::mask::{mask, shown};
use super::peer::{End, Peer};
use super::request::{Age, Conversation, Request, Step, key_bytes};
use super::{Dialect, conversation, known};

/// How long an answer may be silent before its fence counts as swallowed.
const SILENCE: Duration = Duration::from_millis(250);
/// How long one server may take when the other has answered.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a conversation is tried again with something left out.
const TRIES_MAX: usize = 60;
/// What a CAS of an absent key is taken for: no server has given it yet.
const CAS_OF_NOTHING: u64 = 8_000_000_000_000_000_000;
/// A server's first CAS values are below those that requests give (rule M6); they are used up before.
const FIRST_CAS_VALUES: usize = 64;

/// The two servers.
#[derive(Debug, Clone)]
pub struct Pair {
    /// memcached's unix socket.
    pub theirs: PathBuf,
    /// Ours.
    pub ours: PathBuf,
}

/// One difference, in the shortest conversation that shows it.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The conversation's number.
    pub number: u64,
    /// What was said before it.
    pub before: Vec<String>,
    /// The request.
    pub request: String,
    /// memcached's answer, masked.
    pub theirs: String,
    /// Our answer, masked.
    pub ours: String,
}

/// Where a run begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The first conversation's number.
    pub first: u64,
    /// Commands to send.
    pub commands: usize,
    /// Differences after which it ends.
    pub differences: usize,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Commands sent to each server.
    pub commands: usize,
    /// Conversations held.
    pub conversations: u64,
    /// Differences that are meant, by rule and words, with their number.
    pub known: BTreeMap<(&'static str, &'static str), usize>,
    /// The others.
    pub differences: Vec<Difference>,
    /// Steps that swallowed their fence: each costs a wait.
    pub silences: usize,
    /// Differences that did not show again: of the machine, not of the servers.
    pub unrepeated: Vec<Difference>,
}

/// Sends commands within `bounds`, in the conversations of `seed`.
///
/// # Errors
/// A server can't be reached.
pub fn run(pair: &Pair, dialect: Dialect, seed: u64, bounds: Bounds) -> io::Result<Summary> {
    let mut talk = Talk { pair, dialect, next: 0 };
    talk.use_up_first_cas_values()?;
    let mut summary = Summary::default();
    for number in bounds.first.. {
        if summary.commands >= bounds.commands || summary.differences.len() >= bounds.differences {
            break;
        }
        let said = conversation(dialect, seed, number);
        summary.conversations += 1;
        summary.commands += said.iter().map(|step| step.requests.len()).sum::<usize>();
        let held = talk.hold(&said)?;
        for known in held.known {
            *summary.known.entry(known).or_default() += 1;
        }
        summary.silences += held.silences;
        if let Some(difference) = held.difference {
            match talk.shrink(said)? {
                Some(shortest) => summary.differences.push(Difference { number, ..shortest }),
                None => summary.unrepeated.push(Difference { number, ..difference }),
            }
        }
    }
    Ok(summary)
}

/// What a conversation came to.
#[derive(Default)]
struct Held {
    known: Vec<(&'static str, &'static str)>,
    /// Steps whose fence was never answered.
    silences: usize,
    /// The first difference that is not meant: it ends the conversation.
    difference: Option<Difference>,
    /// What the last step's difference is if it is not proven to be meant.
    unproven: Option<Difference>,
    /// The requests, as memcached had them.
    said: Vec<Rc<[u8]>>,
}

/// What a step's answers came to.
enum Verdict {
    /// The same, or what differs is meant and leaves the servers with the same items.
    Same,
    /// From here on the servers may hold different items.
    Parted,
    /// The answer to the request at `place` is what is meant if memcached's item shows it.
    ToProve { place: usize, proof: Proof, parts: bool },
    /// A difference that is not meant.
    Differs(Difference),
}

/// The CAS values that one server has told.
#[derive(Default)]
struct CasValues(HashMap<(u8, Age), u64>);

impl CasValues {
    fn learn(&mut self, key: u8, cas: u64) {
        let before = self.0.insert((key, Age::Now), cas).filter(|before| *before != cas);
        if let Some(before) = before {
            self.0.insert((key, Age::Before), before);
        }
    }

    fn of(&self, key: u8, age: Age) -> u64 {
        self.0.get(&(key, age)).copied().unwrap_or(CAS_OF_NOTHING)
    }
}

struct Talk<'a> {
    pair: &'a Pair,
    dialect: Dialect,
    /// Of the next conversation: its keys are its own.
    next: u64,
}

/// Both connections.
struct Peers {
    theirs: Peer,
    ours: Peer,
}

impl Talk<'_> {
    fn connect(&self) -> io::Result<Peers> {
        let theirs = Peer::connect(&self.pair.theirs, self.dialect)?;
        Ok(Peers { theirs, ours: Peer::connect(&self.pair.ours, self.dialect)? })
    }

    fn use_up_first_cas_values(&self) -> io::Result<()> {
        let mut peers = Talk { dialect: Dialect::Classic, ..*self }.connect()?;
        let sets = b"set first 0 0 1\r\nx\r\n".repeat(FIRST_CAS_VALUES);
        peers.exchange(&sets, &sets, &[]).map(drop)
    }

    /// Holds a conversation, up to the first difference that is not meant or after which the servers hold different
    /// items.
    fn hold(&mut self, said: &Conversation) -> io::Result<Held> {
        let number = self.next;
        self.next += 1;
        let mut peers = self.connect()?;
        let flush = flush(self.dialect);
        peers.exchange(&flush, &flush, &[])?;
        let mut cas = [CasValues::default(), CasValues::default()];
        let mut held = Held::default();
        for (at_step, step) in said.iter().enumerate() {
            self.learn_cas(&mut peers, step, number, &mut cas)?;
            let (theirs, requests) = self.render(step, number, &cas[0]);
            let (ours, _) = self.render(step, number, &cas[1]);
            let answers = peers.exchange(&theirs, &ours, &step.cuts)?;
            let ends = (answers.0.1, answers.1.1);
            held.silences += usize::from(ends.0 == End::Silence || ends.1 == End::Silence);
            let is_alone = step.is_separated || step.requests.len() == 1;
            let theirs = self.split(&answers.0, step.is_separated);
            let ours = self.split(&answers.1, step.is_separated);
            let pieces = if is_alone { requests.clone() } else { vec![requests.concat().into()] };
            let row = if is_alone { &[][..] } else { &requests[..] };
            let verdict = self.compare(&pieces, &theirs, &ours, row, &mut held);
            let parts = !is_alone && known::row_parts(self.dialect, &requests);
            held.said.extend(requests);
            match verdict {
                Verdict::Differs(difference) if is_alone => {
                    held.difference = Some(Difference { number, ..difference });
                    return Ok(held);
                }
                Verdict::Differs(difference) => {
                    return self.hold_separated(said, at_step, Difference { number, ..difference });
                }
                Verdict::ToProve { place, .. } if place + 1 < step.requests.len() => {
                    return self.hold_up_to(said, at_step, place);
                }
                Verdict::ToProve { proof, parts, .. } => {
                    if !self.is_proven(&mut peers, &proof)? {
                        let unproven = held.unproven.take();
                        held.difference = unproven.map(|difference| Difference { number, ..difference });
                        return Ok(held);
                    }
                    if parts {
                        return Ok(held);
                    }
                }
                Verdict::Same if parts => return Ok(held),
                Verdict::Parted => return Ok(held),
                Verdict::Same if ends != (End::Fence, End::Fence) => return Ok(held),
                Verdict::Same => {}
            }
        }
        Ok(held)
    }

    /// Compares the answers to each request of a step, or to all of it; notes the differences that are meant.
    fn compare(
        &self,
        requests: &[Rc<[u8]>],
        theirs: &[String],
        ours: &[String],
        row: &[Rc<[u8]>],
        held: &mut Held,
    ) -> Verdict {
        let mut before = held.said.clone();
        for place in 0..theirs.len().max(ours.len()) {
            let (theirs, ours) = (at(theirs, place), at(ours, place));
            let request = requests.get(place).or(requests.last()).map_or(&[][..], |request| &request[..]);
            let exchange = known::Exchange { request, before: &before, theirs: &theirs, ours: &ours, row };
            match known::find(self.dialect, &exchange) {
                None if theirs != ours => return Verdict::Differs(exchange.told()),
                None => {}
                Some(found) => {
                    held.known.push((found.rule, found.what));
                    let (proof, parts) = match found.after {
                        After::Same => (None, false),
                        After::Parted => (None, true),
                        After::SameIf(proof) => (Some(proof), false),
                        After::PartedIf(proof) => (Some(proof), true),
                    };
                    if let Some(proof) = proof {
                        held.unproven = Some(exchange.told());
                        return Verdict::ToProve { place, proof, parts };
                    }
                    if parts {
                        return Verdict::Parted;
                    }
                }
            }
            before.extend(requests.get(place).cloned());
        }
        Verdict::Same
    }

    /// Holds a conversation again, with no-ops in the step that differed: what is meant of a request is known by the
    /// request alone. Where nothing differs then, the difference is one of requests in a row.
    fn hold_separated(
        &mut self,
        said: &Conversation,
        at_step: usize,
        in_a_row: Difference,
    ) -> io::Result<Held> {
        let mut separated = said.clone();
        separated.truncate(at_step + 1);
        separated[at_step].is_separated = true;
        let held = self.hold(&separated)?;
        let is_same = held.known.is_empty() && held.difference.is_none();
        Ok(if is_same { Held { difference: Some(in_a_row), ..held } } else { held })
    }

    /// Holds a conversation again, up to one request of a step: what memcached holds behind it shows what was meant.
    fn hold_up_to(&mut self, said: &Conversation, at_step: usize, place: usize) -> io::Result<Held> {
        let mut shorter = said.clone();
        shorter.truncate(at_step + 1);
        shorter[at_step].requests.truncate(place + 1);
        self.hold(&shorter)
    }

    /// Asks both servers for the CAS values that the step needs.
    fn learn_cas(
        &self,
        peers: &mut Peers,
        step: &Step,
        number: u64,
        cas: &mut [CasValues; 2],
    ) -> io::Result<()> {
        for key in step.requests.iter().flat_map(Request::keys_for_cas).collect::<BTreeSet<u8>>() {
            let name = key_bytes(number, key);
            let question = self.question(&name);
            let (theirs, ours) = peers.exchange(&question, &question, &[])?;
            cas[0].learn(key, self.read_cas(&theirs.0));
            cas[1].learn(key, self.read_cas(&ours.0));
        }
        Ok(())
    }

    /// Asks for an item and its CAS.
    fn question(&self, key: &[u8]) -> Vec<u8> {
        match self.dialect {
            Dialect::Binary => {
                let mut packet = vec![0; 24];
                (packet[0], packet[3], packet[11]) = (0x80, key.len() as u8, key.len() as u8);
                [packet, key.to_vec()].concat()
            }
            _ => [b"gets ", key, b"\r\n"].concat(),
        }
    }

    /// Whether memcached's item shows that a difference is what it is taken for.
    fn is_proven(&self, peers: &mut Peers, proof: &Proof) -> io::Result<bool> {
        let question = self.question(&proof.key);
        let (theirs, _) = peers.exchange(&question, &question, &[])?;
        Ok(match proof.of {
            Proven::HasCas(cas) => self.read_cas(&theirs.0) == cas,
            Proven::HoldsLargeNumber { .. } => {
                let value = self.read_value(&theirs.0);
                let number = str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok());
                number.is_some_and(|number| proof.of.is_counted_from(number))
            }
        })
    }

    fn read_value<'b>(&self, answer: &'b [u8]) -> &'b [u8] {
        match self.dialect {
            Dialect::Binary => answer.get(28..).unwrap_or_default(),
            _ => answer
                .splitn(2, |byte| *byte == b'\n')
                .nth(1)
                .and_then(|rest| rest.strip_suffix(b"\r\nEND\r\n"))
                .unwrap_or_default(),
        }
    }

    fn read_cas(&self, answer: &[u8]) -> u64 {
        let cas = match self.dialect {
            Dialect::Binary => {
                answer.get(16..24).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
            }
            _ => {
                let line =
                    answer.split(|byte| *byte == b'\r').next().and_then(|line| str::from_utf8(line).ok());
                line.and_then(|line| line.split(' ').nth(4)?.parse().ok())
            }
        };
        cas.filter(|cas| *cas != 0).unwrap_or(CAS_OF_NOTHING)
    }

    /// The step's bytes, and each request's.
    fn render(&self, step: &Step, number: u64, cas: &CasValues) -> (Vec<u8>, Vec<Rc<[u8]>>) {
        let mut bytes = Vec::new();
        let mut requests = Vec::new();
        for (place, request) in step.requests.iter().enumerate() {
            if place > 0 && step.is_separated {
                bytes.extend_from_slice(&Peer::separator(self.dialect));
            }
            let start = bytes.len();
            request.render(number, |key, age| cas.of(key, age), &mut bytes);
            requests.push(bytes[start..].into());
        }
        (bytes, requests)
    }

    /// One masked answer a request, if no-ops stand between them.
    fn split(&self, answer: &(Vec<u8>, End), is_separated: bool) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut rest = &answer.0[..];
        let separator = Peer::separator_answer(self.dialect);
        while is_separated
            && let Some(at) = rest.windows(separator.len()).position(|bytes| bytes == separator)
        {
            pieces.push(mask(self.dialect, &rest[..at]));
            rest = &rest[at + separator.len()..];
        }
        let end = match answer.1 {
            End::Fence => "",
            End::Closed => "<closed>",
            End::Silence => "<silence>",
        };
        pieces.push(mask(self.dialect, rest) + end);
        pieces
    }

    /// Leaves out what it can while a difference stays; `None` if it does not show again.
    fn shrink(&mut self, mut said: Conversation) -> io::Result<Option<Difference>> {
        let Some(mut shown) = self.hold(&said)?.difference else { return Ok(None) };
        let mut tries = 0;
        let mut has_changed = true;
        while has_changed && tries < TRIES_MAX {
            has_changed = false;
            for step in (0..said.len()).rev() {
                for request in (0..said[step].requests.len()).rev() {
                    let mut shorter = said.clone();
                    shorter[step].requests.remove(request);
                    shorter.retain(|step| !step.requests.is_empty());
                    tries += 1;
                    if let Some(difference) = self.hold(&shorter)?.difference {
                        (said, shown, has_changed) = (shorter, difference, true);
                        break;
                    }
                }
                if has_changed {
                    break;
                }
            }
        }
        Ok(Some(shown))
    }
}

impl known::Exchange<'_> {
    fn told(&self) -> Difference {
        Difference {
            number: 0,
            before: self.before.iter().map(|request| shown(request)).collect(),
            request: shown(self.request),
            theirs: self.theirs.to_owned(),
            ours: self.ours.to_owned(),
        }
    }
}

/// Hides what other conversations left under keys that no conversation calls its own: a damaged line may have any word
/// for its key.
fn flush(dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Binary => [&[0x80, 0x08][..], &[0; 22]].concat(),
        _ => b"flush_all\r\n".to_vec(),
    }
}

fn at(answers: &[String], place: usize) -> String {
    answers.get(place).cloned().unwrap_or_else(|| "<nothing>".to_owned())
}

impl Peers {
    /// Sends to both, and waits for both: long only for the one that the other is ahead of.
    #[allow(clippy::type_complexity, reason = "one for each server")]
    fn exchange(
        &mut self,
        theirs: &[u8],
        ours: &[u8],
        cuts: &[u16],
    ) -> io::Result<((Vec<u8>, End), (Vec<u8>, End))> {
        self.theirs.send(theirs, cuts);
        self.ours.send(ours, cuts);
        let (mut their_bytes, mut our_bytes) = (Vec::new(), Vec::new());
        let mut their_end = self.theirs.receive(&mut their_bytes, SILENCE)?;
        let patience = if their_end == End::Silence { SILENCE } else { PATIENCE };
        let our_end = self.ours.receive(&mut our_bytes, patience)?;
        if their_end == End::Silence && our_end != End::Silence {
            their_end = self.theirs.receive(&mut their_bytes, PATIENCE)?;
        }
        Ok(((their_bytes, their_end), (our_bytes, our_end)))
    }
}
