//! A server's process: started by any command line, pinned to a core, and what the kernel counts of it.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use hotspare_server::bench::load::Address;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// memcached's dialects, and its flags.
    Memcached,
    /// redis' protocol, and its flags.
    Redis,
}

impl Family {
    /// The flags that say where to listen.
    pub fn listening(self, address: &Address) -> Vec<String> {
        let words: &[&str] = match (self, address) {
            (Family::Memcached, Address::Tcp(_)) => &["-l", "127.0.0.1", "-U", "0", "-p", "{}"],
            (Family::Memcached, Address::Unix(_)) => &["-s", "{}"],
            (Family::Redis, Address::Tcp(_)) => &["--bind", "127.0.0.1", "--port", "{}"],
            (Family::Redis, Address::Unix(_)) => &["--port", "0", "--unixsocket", "{}"],
        };
        let place = match address {
            Address::Tcp(at) => at.port().to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        words.iter().map(|word| if *word == "{}" { place.clone() } else { (*word).to_owned() }).collect()
    }
}

/// A program that speaks one of the dialects.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    pub family: Family,
    /// The words of its command line, without those that say where it listens.
    pub words: Vec<String>,
}

impl Program {
    /// A program by its command line; `''` in it is an empty word.
    pub fn new(name: &str, family: Family, line: &str) -> Program {
        let words = line.split_whitespace().map(|word| if word == "''" { "" } else { word });
        Program { name: name.to_owned(), family, words: words.map(str::to_owned).collect() }
    }
}

/// Our server, whose binary is at `hotspare`, and the peers that anyone can install, with places for so many connections.
pub fn programs(hotspare: &str, threads: usize, connections: usize) -> Vec<Program> {
    let ours = format!("{hotspare} -m 1024 -c {connections} -t {threads}");
    let memcached = format!("memcached -u nobody -m 1024 -c {connections} -t {threads}");
    // Where nothing is to be kept a replica's copy is not either: it would stay in the folder as a file.
    let redis =
        format!("redis-server --save '' --appendonly no --rdb-del-sync-files yes --maxclients {connections}");
    vec![
        Program::new("hotspare", Family::Memcached, &ours),
        Program::new("memcached", Family::Memcached, &memcached),
        Program::new("redis", Family::Redis, &redis),
    ]
}

/// Which servers are compared.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// Our program.
    #[arg(long, default_value = "../../target/release/hotspare")]
    pub hotspare: String,
    /// More servers, each as NAME=COMMAND, of memcached's family: its flags say where to listen.
    #[arg(long)]
    pub server: Vec<String>,
    /// Only these servers, by name.
    #[arg(long, value_delimiter = ',')]
    pub names: Vec<String>,
}

impl Chosen {
    /// Their programs, with so many threads each and places for so many connections.
    pub fn programs(&self, threads: usize, connections: usize) -> Vec<Program> {
        let mut all = programs(&self.hotspare, threads, connections);
        for server in &self.server {
            if let Some((name, line)) = server.split_once('=') {
                all.push(Program::new(name, Family::Memcached, line));
            }
        }
        all.retain(|program| self.names.is_empty() || self.names.contains(&program.name));
        all
    }
}

/// A running server; ends with its owner.
pub struct Server {
    pub name: String,
    pub family: Family,
    pub address: Address,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Address::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

/// A port that is free now is free a moment later too, on a machine that does nothing else.
pub fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl Server {
    /// Starts the program, on one core if that is named, listening at a free port or at a unix socket.
    ///
    /// # Errors
    /// It isn't installed, or does not listen after a while.
    pub fn start(program: &Program, unix: bool, core: Option<usize>) -> io::Result<Server> {
        let address = match unix {
            false => Address::Tcp(free_port()?),
            true => {
                let name = format!("hotspare-compare-{}-{}.sock", std::process::id(), program.name);
                Address::Unix(std::env::temp_dir().join(name))
            }
        };
        let pinning = core.map(|core| ["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        let mut words: Vec<String> = pinning.into_iter().flatten().collect();
        words.extend(program.words.iter().cloned());
        words.extend(program.family.listening(&address));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let mut server =
            Server { name: program.name.clone(), family: program.family, address: address.clone(), child };
        let begin = Instant::now();
        while !is_listening(&address) {
            if let Some(status) = server.child.try_wait()? {
                return Err(Error::other(format!("{} ended at once: {status}", program.name)));
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::TimedOut, format!("{} does not listen", program.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It has not ended after a while.
    pub fn end(mut self) -> io::Result<()> {
        self.signal("TERM")?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::TimedOut, format!("{} does not end", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by its name, such as `STOP`.
    ///
    /// # Errors
    /// There is no program `kill`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().map(drop)
    }

    /// CPU time of all its threads so far, as the scheduler counts it.
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.cpu_of("")
    }

    /// CPU time so far of its threads whose names begin so.
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu_of(&self, name: &str) -> io::Result<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let folder = thread?.path();
            if fs::read_to_string(folder.join("comm"))?.starts_with(name) {
                let text = fs::read_to_string(folder.join("schedstat"))?;
                sum += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Resident memory in KiB, to the page: what `status` says is behind by some dozen pages a thread.
    ///
    /// # Errors
    /// The process has ended.
    pub fn resident_kib(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        Ok(line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0))
    }
}

/// Has this program run on one core, so that the servers have the other.
pub fn pin_to_core(core: usize) {
    let (pid, core) = (std::process::id().to_string(), core.to_string());
    let outcome = Command::new("taskset").args(["-apc", &core, &pid]).output();
    if !outcome.is_ok_and(|output| output.status.success()) {
        println!("taskset is missing or refuses: the generator runs anywhere");
    }
}

fn is_listening(address: &Address) -> bool {
    match address {
        Address::Tcp(at) => TcpStream::connect(at).is_ok(),
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    }
}
