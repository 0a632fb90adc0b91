//! The server as a process: started on free ports, watched through what it says, killed when dropped.
//!
//! Lives here: starting, signals, exit codes. Not here: what one says to it (see [`crate::admin`] and the tests).

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long a server may take to listen.
pub const START_LIMIT: Duration = Duration::from_secs(10);
/// How long what it said last may be on its way after its end.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// A server process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Server {
    /// Starts `binary` with `arguments`; it may still refuse to run.
    pub fn spawn(binary: &str, arguments: &[&str]) -> Server {
        Server::spawn_command(Command::new(binary).args(arguments))
    }

    /// Starts a command of one's own making, whose standard streams are then the kit's.
    pub fn spawn_command(command: &mut Command) -> Server {
        let mut child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("a piped stderr"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&said);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("no panic while held").push(line);
            }
        });
        Server { child, said, reader }
    }

    /// Starts `binary` with `arguments` and waits until it listens for clients.
    pub fn start(binary: &str, arguments: &[&str]) -> Server {
        let mut server = Server::spawn(binary, arguments);
        server.announced("listening for clients on ");
        server
    }

    /// Where it accepts clients.
    pub fn clients(&mut self) -> SocketAddr {
        self.announced("listening for clients on ")
    }

    /// Where it accepts replicas.
    pub fn replication(&mut self) -> SocketAddr {
        self.announced("listening for replication on ")
    }

    /// Where it answers administration.
    pub fn admin(&mut self) -> SocketAddr {
        self.announced("admin on ")
    }

    /// The address said after `mark`, waited for up to [`START_LIMIT`].
    fn announced(&mut self, mark: &str) -> SocketAddr {
        let deadline = Instant::now() + START_LIMIT;
        wait::wait_for(mark, START_LIMIT * 2, || {
            if let Some(address) = self.said().iter().find_map(|line| address_after(line, mark)) {
                return Some(address);
            }
            let gone = self.has_ended();
            assert!(!gone && Instant::now() < deadline, "no `{mark}` (gone: {gone}): {:#?}", self.said());
            None
        })
    }

    /// The `count` places at which it accepts clients, as it names them.
    pub fn all_clients(&self, count: usize) -> Vec<String> {
        let named =
            |line: &String| line.split_once("listening for clients on ").map(|(_, place)| place.to_owned());
        wait::wait_for("all client addresses", START_LIMIT, || {
            let places: Vec<String> = self.said().iter().filter_map(named).collect();
            (places.len() >= count).then_some(places)
        })
    }

    /// Waits for a line with `words` in it, and gives it.
    pub fn wait_said(&self, words: &str) -> String {
        wait::wait_for(words, START_LIMIT, || self.said().into_iter().find(|line| line.contains(words)))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every line it has written to stderr so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no panic while held").clone()
    }

    /// SIGKILL, and waits for its end: it gets no chance to say goodbye.
    pub fn kill_9(&mut self) {
        self.child.kill().expect("a signal to send");
        self.child.wait().expect("an end");
    }

    /// SIGTERM: asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id that fits");
        kill_process(Pid::from_raw(id).expect("an id above 0"), signal).expect("a signal to send");
    }

    /// SIGSTOP: has it hang, and waits until all its threads do.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.id());
        wait::wait_until("a stopped process", START_LIMIT, || {
            let mut tasks = fs::read_dir(&tasks).expect("its threads");
            tasks.all(|task| {
                let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat")));
                stat.is_ok_and(|stat| stat.contains(") T "))
            })
        });
    }

    /// The memory that it has resident, in bytes; `None` if it has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.memory_bytes("VmRSS:")
    }

    /// The most memory that it had resident so far, in bytes; `None` if it has ended.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    }

    /// Whether it has ended by itself or by a signal.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child to ask").is_some()
    }

    /// Waits for its end and gives its exit code; `None` when a signal ended it.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let status =
            wait::wait_for("the server's end", limit, || self.child.try_wait().expect("a child to ask"));
        // Its last words: the reader ends with the pipe, unless a child of the server's holds it open.
        wait::wait_until("the server's last words", LAST_WORDS_LIMIT, || self.reader.is_finished());
        status.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server said: {:#?}", self.said());
        }
    }
}

/// The address in `line` after `mark`.
fn address_after(line: &str, mark: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(mark)?;
    rest.split([' ', ',', '"']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_the_middle_of_a_line() {
        let line = "12:00 INFO hotspare: listening for clients on 127.0.0.1:4711 (tcp)";
        assert_eq!(
            address_after(line, "listening for clients on "),
            Some(SocketAddr::from(([127, 0, 0, 1], 4711)))
        );
        assert_eq!(address_after(line, "admin on "), None);
    }
}
