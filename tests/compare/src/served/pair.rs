//! A primary with a replica, each a process on a core of its own.
//!
//! Lives here: starting the two, hotspare's or redis', and what they say of how far they are.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hotspare_server::bench::load::Address;

use super::process::{Family, Program, Server, free_port};
use super::relay::Relay;

/// How long a replica may take to have everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The primary's core, and the one of replica and generator.
pub const PRIMARY_CORE: usize = 0;
pub const OTHER_CORE: usize = 1;

/// A primary with what follows it: nobody, or a replica.
pub struct Pair {
    pub primary: Server,
    pub replica: Option<Server>,
}

/// What a node says of itself: name and value.
pub struct Standing(Vec<(String, String)>);

impl Standing {
    /// 0 where there is no such number.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Empty where there is no such name.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find_map(|(own, value)| (own == name).then_some(&**value)).unwrap_or("")
    }
}

/// What a node says of its replication.
///
/// # Errors
/// It can't be asked.
pub fn standing(server: &Server) -> io::Result<Standing> {
    let Address::Tcp(address) = &server.address else { return Err(Error::other("not over TCP")) };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (words, last) = match server.family {
        Family::Memcached => ("stats replication\r\n", "END"),
        // What the section ends with.
        Family::Redis => ("INFO replication\r\n", "repl_backlog_histlen"),
    };
    stream.write_all(words.as_bytes())?;
    let mut rows = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let row = match server.family {
            Family::Memcached => line.strip_prefix("STAT ").and_then(|row| row.split_once(' ')),
            Family::Redis => line.split_once(':'),
        };
        rows.extend(row.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if line.starts_with(last) {
            return Ok(Standing(rows));
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}

impl Pair {
    /// A node that replicates nothing.
    ///
    /// # Errors
    /// It does not start.
    pub fn alone(program: &Program) -> io::Result<Pair> {
        Ok(Pair { primary: Server::start(program, false, Some(PRIMARY_CORE))?, replica: None })
    }

    /// A primary with a replica that has everything. `flags` are the primary's own.
    ///
    /// # Errors
    /// One of them does not start, or the replica does not come to stream.
    pub fn start(program: &Program, flags: &[&str]) -> io::Result<Pair> {
        let (pair, _) = Pair::linked_by(program, flags, |address| Ok((address, ())))?;
        Ok(pair)
    }

    /// The same, over a relay.
    ///
    /// # Errors
    /// As [`Pair::start`].
    pub fn relayed(program: &Program, flags: &[&str]) -> io::Result<(Pair, Relay)> {
        Pair::linked_by(program, flags, |address| {
            let relay = Relay::start(address)?;
            Ok((relay.address, relay))
        })
    }

    fn linked_by<T>(
        program: &Program,
        flags: &[&str],
        way: impl FnOnce(SocketAddr) -> io::Result<(SocketAddr, T)>,
    ) -> io::Result<(Pair, T)> {
        let mut primary = program.clone();
        primary.words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let listen = free_port()?;
        if program.family == Family::Memcached {
            primary.words.extend(["--replication-listen".to_owned(), listen.to_string()]);
        }
        primary.name += "+replica";
        let primary = Server::start(&primary, false, Some(PRIMARY_CORE))?;
        let (address, way) = match (program.family, &primary.address) {
            (Family::Redis, Address::Tcp(address)) => way(*address)?,
            _ => way(listen)?,
        };
        let mut replica = program.clone();
        replica.words.extend(match program.family {
            Family::Memcached => vec!["--replica-of".to_owned(), address.to_string()],
            Family::Redis => {
                vec!["--replicaof".to_owned(), address.ip().to_string(), address.port().to_string()]
            }
        });
        replica.name += "'s replica";
        let replica = Server::start(&replica, false, Some(OTHER_CORE))?;
        let pair = Pair { primary, replica: Some(replica) };
        pair.wait("it does not stream", |_, replica| match program.family {
            Family::Memcached => replica.text("link") == "streaming",
            Family::Redis => replica.text("master_link_status") == "up",
        })?;
        Ok((pair, way))
    }

    /// Waits until the replica has applied all that the primary has.
    ///
    /// # Errors
    /// It has not after a while.
    pub fn settle(&self) -> io::Result<()> {
        let name = match self.primary.family {
            Family::Memcached => "seq",
            Family::Redis => "master_repl_offset",
        };
        self.wait("the replica is behind", |primary, replica| replica.number(name) >= primary.number(name))
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Standing, &Standing) -> bool) -> io::Result<()> {
        let Some(replica) = &self.replica else { return Ok(()) };
        let begun = Instant::now();
        while !is_so(&standing(&self.primary)?, &standing(replica)?) {
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::TimedOut, format!("{}: {what}", replica.name)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
