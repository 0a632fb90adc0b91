//! Chaos: real processes under load that are killed, paused, cut off and handed over, and judged by what each mode promises.
//!
//! Lives here: one run, cycle by cycle. A cycle has clients write and read on whichever node is primary, lets one thing go
//! wrong (`faults`), waits until every node streams again, compares all keys on all nodes (`group`), and holds what
//! clients were told against what may be lost (`judge`) and, in strict, against what may be seen (`registers`). The
//! schedule comes from a seed; the processes' timing does not.
//! Not here: every order of events in virtual time (see `simulation`), a virtual address and keepalived (see `field`).

mod clients;
mod connection;
mod directory;
mod exported;
mod faults;
mod group;
mod history;
mod judge;
mod node;
pub mod proxy;
mod registers;
mod report;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use report::Report;

use crate::wait;
use clients::{CLIENTS, KEYS, Ledger};
use directory::Traffic;
use faults::Fault;
use group::Group;
use history::Clock;
use judge::Judge;
use report::Counts;

/// The variable that tells the test's own program that it is the server this time: so it kills what it was built with.
pub const SERVES: &str = "CHAOS_SERVES";

/// How often a cycle is told to whoever waits.
const TELL_EVERY: u64 = 20;

/// What a mode promises, and what is judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What was not replicated may be lost, as far as it was exported.
    Async,
    /// Nothing that was acknowledged may be lost.
    SemiSync,
    /// Nor may anything old be shown: what clients see of a key is linearizable, misses apart.
    Strict,
}

impl Mode {
    /// Its word, as on a command line.
    fn word(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::SemiSync => "semi-sync",
            Mode::Strict => "strict",
        }
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server. It is started with [`SERVES`] in its environment, so that it may be the test's own program.
    pub program: PathBuf,
    /// Draws the faults.
    pub seed: u64,
    /// Ends after so many kills.
    pub kills: u64,
    /// Nodes beside the primary, 1 or 2.
    pub replicas: usize,
    /// What the nodes are told.
    pub ack: Mode,
    /// Acks that a write waits for in semi-sync and strict.
    pub acks: usize,
    /// What they are judged by; something else than `ack` shows that the judge finds losses.
    pub judge_as: Mode,
    /// Promotes the replica with the lowest seq instead of the highest: the mistake that an operator can make.
    pub promote_lowest: bool,
    /// Ends after so many broken promises.
    pub complaints_max: u64,
}

impl Options {
    fn ack_words(&self) -> String {
        match self.ack {
            Mode::Async => "async".to_owned(),
            mode => format!("{}:{}", mode.word(), self.acks),
        }
    }

    /// Whether replicas answer reads, too: by those, what clients see is not linearizable in any mode.
    fn replicas_answer(&self) -> bool {
        self.ack != Mode::Strict && self.judge_as != Mode::Strict
    }
}

struct Run {
    group: Group,
    judge: Judge,
    ledger: Ledger,
    clients: Vec<JoinHandle<()>>,
    random: StdRng,
    counts: Counts,
    report: Report,
}

/// Runs until so many kills are done or a promise is broken.
///
/// # Errors
/// The group could not even be started.
pub fn run(options: &Options) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|why| format!("a folder: {why}"))?;
    let clock = Clock::start();
    let group = Group::start(options, folder.path(), clock)?;
    let ledger: Ledger = Arc::new(Mutex::new(Vec::new()));
    let clients = clients::start(&group.directory, clock, options.seed, &ledger);
    let mut run = Run {
        group,
        judge: Judge::new(KEYS, options.judge_as),
        ledger,
        clients,
        random: StdRng::seed_from_u64(options.seed),
        counts: Counts::default(),
        report: Report::new(options),
    };
    while run.kills() < options.kills && run.judge.broken() < options.complaints_max {
        let fault = faults::draw(&mut run.random);
        if let Err(why) = run.cycle(&fault) {
            let cycle = run.counts.cycles;
            run.judge.complain(format!("cycle {cycle}, {fault:?}: {why}\n{}", run.group.last_words()));
            break;
        }
        if run.counts.cycles.is_multiple_of(TELL_EVERY) {
            let (kills, lost) = (run.kills(), run.judge.tally.lost);
            eprintln!("cycle {}: {kills} kills, {lost} acknowledged writes lost", run.counts.cycles);
        }
    }
    Ok(run.end())
}

impl Run {
    fn kills(&self) -> u64 {
        self.counts.kills_of_primary + self.counts.kills_of_replica
    }

    /// Load, a fault, load, rest, and judgement.
    fn cycle(&mut self, fault: &Fault) -> Result<(), String> {
        self.counts.cycles += 1;
        let delay = match self.random.random_range(0..10) {
            0..4 => 0,
            4..8 => self.random.random_range(1..=5),
            _ => self.random.random_range(6..=20),
        };
        self.counts.delays += u64::from(delay > 0);
        let (before, after) = (self.random.random_range(100..400), self.random.random_range(50..250));
        self.group.proxies.values().for_each(|proxy| proxy.set_delay(Duration::from_millis(delay)));
        self.group.directory.set_traffic(Traffic::Flows);
        wait::pause(Duration::from_millis(before));
        let measured = fault.carry_out(&mut self.group, &mut self.counts);
        self.group.proxies.values().for_each(proxy::Proxy::heal);
        let measured = measured.and_then(|measured| Ok((measured, self.group.stream()?)));
        wait::pause(Duration::from_millis(after));
        self.group.directory.rest(CLIENTS)?;
        let (measured, streams_after) = measured?;
        let report = &mut self.report;
        report.split_brain_ms_max = report.split_brain_ms_max.max(measured.split_brain.as_millis() as u64);
        report.convergence_ms_max = report.convergence_ms_max.max(streams_after.as_millis() as u64);
        report.hand_over_ms_max = report.hand_over_ms_max.max(measured.hand_over_ms);
        self.settle(fault)
    }

    /// Waits until all is well, and judges.
    fn settle(&mut self, fault: &Fault) -> Result<(), String> {
        for node in &mut self.group.nodes {
            if let Some(complaint) = node.complaint() {
                return Err(complaint);
            }
            self.report.resident_mib_max = self.report.resident_mib_max.max(node.resident_bytes() >> 20);
        }
        self.group.converge()?;
        let settled = self.group.compare()?;
        let journals = std::mem::take(&mut *self.ledger.lock().expect("no panic while held"));
        let before = self.judge.complaints.len();
        self.judge.judge(journals, settled, &mut self.group.reigns, &self.group.watch);
        let cycle = self.counts.cycles;
        for complaint in &mut self.judge.complaints[before..] {
            *complaint = format!("cycle {cycle}, {fault:?}: {complaint}");
        }
        self.counts.straight_links += u64::from(!self.group.route());
        self.group.converge()
    }

    fn end(mut self) -> Report {
        self.group.directory.set_traffic(Traffic::Ends);
        self.clients.drain(..).for_each(|client| {
            if client.join().is_err() {
                self.judge.complain("a client of the test panicked".to_owned());
            }
        });
        Report {
            counts: self.counts,
            tally: self.judge.tally,
            exported_max: self.group.exported_max,
            overruled: self.group.overruled,
            statuses: self.group.watch.answers(),
            seconds: self.group.clock.now() as f64 / 1e9,
            complaints: self.judge.complaints,
            more_complaints: self.judge.more_complaints,
            ..self.report
        }
    }
}
