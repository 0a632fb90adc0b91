//! A primary in this process and replicas as processes of their own, over any transport: for measurements.
//!
//! Lives here: starting a node by the name of its transport, replicas that are told what to do by lines. Not here: what is
//! measured (see the programs `install` and `links`).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use hotspare::{Cache, Config, LinkState, ReplicationConfig};
use hotspare_tls::Credentials;
use hotspare_tls::issue::Authority;

/// Whatever goes wrong.
pub type Failure = Box<dyn std::error::Error>;

/// How nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// TCP, in the clear.
    Tcp,
    /// TCP with TLS, certificates on both sides.
    Tls,
    /// QUIC, certificates on both sides.
    Quic,
}

impl Transport {
    /// Its name, as a program is given it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Quic => "quic",
        }
    }
}

/// A group's certificates in a folder, which goes with this.
#[derive(Debug)]
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// For two nodes, `primary` and `replica`.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn make() -> Result<Certificates, Failure> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("a group")?;
        std::fs::write(folder.path().join("authority"), authority.pem().certificate)?;
        for name in ["primary", "replica"] {
            let issued = authority.issue(name, &[])?;
            std::fs::write(folder.path().join(name), issued.certificate)?;
            std::fs::write(folder.path().join(format!("{name}-key")), issued.key)?;
        }
        Ok(Certificates(folder))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}

/// A node at work.
#[derive(Debug)]
pub enum Node {
    /// Over TCP, with or without TLS.
    Tcp(hotspare_tcp::Node),
    /// Over QUIC.
    Quic(Box<hotspare_quic::Node>),
}

impl Node {
    /// Starts to replicate `cache`, with the certificates of `name` in this folder.
    ///
    /// # Errors
    /// A certificate can't be read, or the node does not start.
    pub fn start(
        cache: &Cache,
        transport: Transport,
        folder: &Path,
        name: &str,
        listens: bool,
    ) -> Result<Node, Failure> {
        let address: Option<SocketAddr> = if listens { Some("127.0.0.1:0".parse()?) } else { None };
        let file = |name: String| folder.join(name);
        let credentials =
            || Credentials::read(&file("authority".into()), &file(name.into()), &file(format!("{name}-key")));
        if transport == Transport::Quic {
            let options = hotspare_quic::Options::new(credentials()?);
            let options = address.into_iter().fold(options, hotspare_quic::Options::listen);
            return Ok(Node::Quic(Box::new(hotspare_quic::Node::start(cache, options)?)));
        }
        let options = hotspare_tcp::Options::new();
        let options = if transport == Transport::Tls { options.tls(credentials()?) } else { options };
        let options = address.into_iter().fold(options, hotspare_tcp::Options::listen);
        Ok(Node::Tcp(hotspare_tcp::Node::start(cache, options)?))
    }

    /// Where replicas dial it.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        match self {
            Node::Tcp(node) => node.listen_address(),
            Node::Quic(node) => node.listen_address(),
        }
    }

    /// Stops at once.
    pub fn shutdown(self) {
        match self {
            Node::Tcp(node) => node.shutdown(Duration::ZERO),
            Node::Quic(node) => node.shutdown(Duration::ZERO),
        }
    }
}

/// What a replica's process is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplicaArgs {
    /// Be a replica of this address: what the processes that this program starts are.
    #[arg(long, hide = true)]
    pub replica_of: Option<String>,
    /// Where that process finds certificates.
    #[arg(long, hide = true, default_value = ".")]
    pub certificates: PathBuf,
    /// Copy replicas on one channel with the log, as older versions do.
    #[arg(long)]
    pub one_channel: bool,
    /// Memory of each node in megabytes.
    #[arg(long, default_value_t = 512)]
    pub memory: usize,
}

impl ReplicaArgs {
    /// A node's configuration.
    pub fn config(&self, replication: ReplicationConfig) -> Config {
        Config::new().memory_bytes_max(self.memory << 20).replication(replication)
    }

    /// Says when it is there, waits for a line, joins, says how many items it has when it has everything, and ends with
    /// its input.
    ///
    /// # Errors
    /// The node does not start.
    pub fn be_replica(&self, primary: &str, transport: Transport) -> Result<(), Failure> {
        let replication = ReplicationConfig::replica_of(primary);
        let replication = if self.one_channel { replication.one_channel() } else { replication };
        let cache = Cache::new(self.config(replication))?;
        let mut lines = std::io::stdin().lines();
        println!("there");
        lines.next();
        let node = Node::start(&cache, transport, &self.certificates, "replica", false)?;
        while cache.status().link != LinkState::Streaming {
            thread::sleep(Duration::from_millis(1));
        }
        println!("{}", cache.stats().items);
        lines.next();
        node.shutdown();
        Ok(())
    }
}

/// A replica in a process of its own.
#[derive(Debug)]
pub struct Replica {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Replica {
    /// Starts this program as a replica, which waits to be told to join.
    ///
    /// # Errors
    /// The process does not start.
    pub fn start(
        args: &ReplicaArgs,
        transport: Transport,
        certificates: &Certificates,
        primary: SocketAddr,
    ) -> Result<Replica, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--replica-of", &primary.to_string(), "--memory", &args.memory.to_string()])
            .args(["--transport", transport.name(), "--certificates"])
            .arg(certificates.folder())
            .args(args.one_channel.then_some("--one-channel"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(process.stdout.take().ok_or("a pipe")?);
        let mut replica = Replica { process, said };
        replica.line();
        Ok(replica)
    }

    /// Tells it to join.
    pub fn join(&mut self) {
        let input = self.process.stdin.as_mut().expect("a pipe");
        input.write_all(b"\n").expect("it reads");
    }

    /// What it says next.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }

    /// Its processor time so far, in nanoseconds (see [`cpu_nanos`]).
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_nanos(&self) -> Result<u64, Failure> {
        cpu_nanos(&self.process.id().to_string())
    }

    /// Waits until it has ended.
    pub fn end(mut self) {
        drop(self.process.stdin.take());
        self.process.wait().expect("it ends");
    }
}

/// Processor time of all threads of a process so far, in nanoseconds, by the scheduler's own count: `process` is its number,
/// or `self`.
///
/// # Errors
/// There is no such process.
pub fn cpu_nanos(process: &str) -> Result<u64, Failure> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos: u64 = text.split_whitespace().next().ok_or("a number")?.parse()?;
        sum += nanos;
    }
    Ok(sum)
}
