//! Flags: memcached's letters where memcached has them, and what they come to.
//!
//! Lives here: parsing, and every check that needs no system call but reading a secret's file and looking a host's
//! name up. Not here: starting anything (see `run`).

mod bench;
mod byte_count;
mod listen;
mod replication;
mod secrets;
mod suboptions;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use hotspare::{AckMode, Config, ReplicationConfig};
use hotspare_tls::Credentials;

use crate::log::LogFormat;
use crate::replication::Transport;
use crate::settings::{Protocol, Settings};
use crate::users::Users;
use bench::BenchOptions;
pub(crate) use bench::BenchPlan;
use byte_count::byte_count;
use listen::{TcpPort, UdpPort};
use replication::{Replication, beyond_loopback, own_address, replication, transport};
pub(crate) use replication::{is_loopback, node_address};
use secrets::{check_far_token, read_secret};
use suboptions::Suboptions;

const PORT_DEFAULT: u16 = 11211;
const ACK_TIMEOUT_MS_DEFAULT: u64 = 50;
const ADMIN_DEFAULT: &str = "127.0.0.1:11280";

/// With UDP the largest item: an answer has at most 65535 datagrams, and one sender's takes so much memory.
const UDP_ITEM_BYTES_MAX: usize = 64 << 20;

/// The longest address of a node: a name of 253 bytes, a colon and a port, with room for brackets.
const ADDRESS_BYTES_MAX: usize = 256;

/// A memcached-compatible cache server with a hot spare.
///
/// Unlike memcached it listens on 127.0.0.1 unless -l says otherwise.
#[derive(Debug, Parser)]
#[command(
    name = "hotspare",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    after_help = suboptions::HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: (),
    /// Print under which licenses this program may be used
    #[arg(short = 'i', long)]
    license: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a node's role, position and peers; --help explains each line
    #[command(after_long_help = status_fields())]
    Status {
        #[command(flatten)]
        admin: AdminClient,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell whether a fail-over manager may promote a node, by the exit code: 0 if it may, or is the primary
    Promotable {
        #[command(flatten)]
        admin: AdminClient,
    },
    /// Make a node the primary
    Promote {
        #[command(flatten)]
        admin: AdminClient,
        /// Even if it is empty or in the middle of a full copy, or too few others answer to know what was acknowledged
        #[arg(long)]
        force: bool,
    },
    /// Make a node follow the primary that listens for replication at ADDR
    Follow {
        /// Where the primary listens for replication
        #[arg(value_name = "ADDR", value_parser = node_address)]
        address: String,
        #[command(flatten)]
        admin: AdminClient,
        /// Even if it is the primary, and then serves nothing until it follows
        #[arg(long)]
        force: bool,
    },
    /// Let a level replica take over from a primary that is to be stopped; prints for how long nobody took writes
    Handover {
        #[command(flatten)]
        admin: AdminClient,
    },
    /// Forget the node that listened for replication at ADDR and is gone for good; say it to the primary
    Forget {
        /// Where it listened, as the warnings name it
        #[arg(value_name = "ADDR")]
        address: String,
        #[command(flatten)]
        admin: AdminClient,
    },
    /// Set how many replicas must have a write before it is answered, until the next start; async lifts the budget of
    /// --max-unacked-ms and --max-unacked-bytes, too
    Ack {
        /// async, semi-sync:N or strict:N
        #[arg(value_name = "MODE")]
        mode: AckMode,
        #[command(flatten)]
        admin: AdminClient,
    },
    /// Keep a node's role in step with keepalived: primary where the virtual address is
    Keepalived {
        /// keepalived's vrrp_notify_fifo
        #[arg(long, value_name = "PATH")]
        fifo: PathBuf,
        #[command(flatten)]
        admin: AdminClient,
        /// Where the other node listens for replication: a primary that lost the virtual address, and that the other
        /// one can't reach, then steps down
        #[arg(long, value_name = "ADDR", value_parser = node_address)]
        other: Option<String>,
        /// The vrrp_instance to obey; default: the first one that is named
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
    },
    /// Kill a primary in front of your eyes and compare the hit ratios
    Demo(DemoOptions),
    /// Put a memcached server under load and print what came of it
    Bench(BenchOptions),
    /// Make an authority and a certificate for each node of a group, for --replication-tls-cert and its like; later, certificates
    /// for more nodes
    Cert(CertOptions),
}

/// What each line of a status means, as `docs/admin.md` has it.
fn status_fields() -> String {
    const DOCS: &str = include_str!("../docs/admin.md");
    let (_, fields) = DOCS.split_once("## The status").unwrap_or_default();
    format!("What the lines mean:{}", fields.replace('`', ""))
}

/// What certificates to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct CertOptions {
    /// Where to put them; what is there is never overwritten, and an authority that is there (ca.pem, ca.key) signs
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// The nodes, and behind slashes the hosts by which their peers dial them, which include the IP address that each
    /// listens at: NAME/HOST/HOST, as in cache-1/10.0.0.1,cache-2/10.0.0.2
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    pub(crate) names: Vec<String>,
}

/// How the commands reach a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminClient {
    /// The node's admin address: what its server was started with as --admin
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = node_address)]
    pub(crate) admin: String,
    /// A file with the node's admin token
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// What the demonstration runs on.
#[derive(Debug, Clone, Default, Args)]
pub struct DemoOptions {
    /// A request trace, `KEY [VALUE_SIZE]` a line, gzip if it ends in .gz; default: a generated stream
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
struct Serve {
    /// TCP port for clients; -1 takes a free one, and so does 0, but with -U that is none; default that of -U, or 11211
    #[arg(short = 'p', long, value_name = "PORT", value_parser = listen::tcp_port)]
    port: Option<TcpPort>,
    /// Unix socket for clients, instead of TCP
    #[arg(short = 's', long, value_name = "PATH")]
    unix_socket: Option<PathBuf>,
    /// Who may connect to the unix socket, as an octal file mode
    #[arg(short = 'a', long = "unix-mask", value_name = "MODE", default_value = "700",
        value_parser = listen::file_mode)]
    unix_socket_mode: u32,
    /// Addresses for clients, ADDR or ADDR:PORT, separated by commas, * for all of IPv4; default 127.0.0.1 (memcached: all)
    #[arg(short = 'l', long, value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<String>,
    /// Memory for items and index in megabytes, or with m or g: 2g
    #[arg(short = 'm', long = "memory-limit", value_name = "MB", default_value = "64", value_parser = byte_count::megabytes)]
    memory: u64,
    /// Answer an error when memory is used up, instead of evicting
    #[arg(short = 'M', long = "disable-evictions")]
    no_evict: bool,
    /// Largest item, header and key included, in bytes, or with k, m or g: 1k to 1g, at most half of the memory [default: 1m]
    #[arg(short = 'I', long = "max-item-size", value_name = "SIZE", allow_hyphen_values = true)]
    item_size: Option<String>,
    /// Worker threads
    #[arg(short = 't', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Let in only who first sends a set with a user and password of FILE, user:password a line; read again on SIGHUP
    #[arg(short = 'Y', long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Encrypt TCP with TLS; needs -o ssl_chain_cert
    #[arg(short = 'Z', long)]
    enable_ssl: bool,
    /// Connections that may wait to be accepted
    #[arg(short = 'b', long = "listen-backlog", value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(i32).range(1..))]
    backlog: i32,
    /// Connections at once
    #[arg(short = 'c', long = "conn-limit", value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Say more; repeat for more still
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,
    /// How the log is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Log each request that takes so many milliseconds or more, at most 10 a second; default: none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    slow_log_ms: Option<u64>,
    /// UDP port for clients, at the addresses of -l; 0 is off, the default, and -1 takes a free one
    #[arg(short = 'U', long, value_name = "PORT", default_value_t = UdpPort::Off, value_parser = listen::udp_port)]
    udp_port: UdpPort,
    /// Obey the shutdown command, which anybody may send who can connect
    #[arg(short = 'A', long = "enable-shutdown")]
    shutdown_command: bool,
    /// Refuse the flush_all command
    #[arg(short = 'F', long = "disable-flush-all")]
    no_flush: bool,
    /// Refuse the commands that list keys: stats cachedump, stats detail, lru_crawler metadump
    #[arg(short = 'X', long = "disable-dumping")]
    no_dump: bool,
    /// Show no CAS uniques: all read 0
    #[arg(short = 'C', long = "disable-cas")]
    no_cas: bool,
    /// Refuse the watch command
    #[arg(short = 'W', long = "disable-watch")]
    no_watch: bool,
    /// What ends the part of a key that stats detail counts by, and turns that on [default: a colon, off]
    #[arg(short = 'D', value_name = "CHAR", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Suboptions, separated by commas: see below
    #[arg(short = 'o', long = "extended", value_name = "LIST", value_delimiter = ',')]
    suboptions: Vec<String>,
    /// Obey the debugtime command, which advances the clock: for tests
    #[arg(long, hide = true)]
    debug_time: bool,
    /// Protocol of the clients: auto (by the first byte), ascii or binary; default auto, with -S binary, with -Y ascii
    #[arg(short = 'B', long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// Clients must log in with SASL PLAIN, which only the binary protocol has
    #[arg(short = 'S', long = "enable-sasl")]
    sasl: bool,
    /// A file of user:password lines for -S, read again on SIGHUP; default: the one that MEMCACHED_SASL_PWDB names
    #[arg(long, value_name = "FILE", requires = "sasl")]
    sasl_password_file: Option<PathBuf>,
    #[command(flatten)]
    habits: Habits,
    #[command(flatten)]
    replication: Replication,
    /// Address of the admin HTTP server, which hotspare status, promote and their like ask, at 127.0.0.1:11280 unless they are
    /// told; default: none
    #[arg(long, value_name = "ADDR", help_heading = "Administration")]
    admin: Option<String>,
    /// A file with the token that admin requests must bear; needed off loopback
    #[arg(long, value_name = "FILE", requires = "admin", help_heading = "Administration")]
    admin_token_file: Option<PathBuf>,
}

/// How the process itself is to live.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct Habits {
    /// Run in the background
    #[arg(short = 'd', long)]
    daemon: bool,
    /// Write the process's id into FILE, and remove it at the end
    #[arg(short = 'P', long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Become USER when everything is bound; only root can, others stay who they are
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// Save all items to FILE on SIGUSR1 or "shutdown graceful" (with -A), and go on with them at the next start; without it
    /// both lose them
    #[arg(short = 'e', long, value_name = "FILE")]
    memory_file: Option<PathBuf>,
    /// Let a crash leave a whole core file
    #[arg(short = 'r', long)]
    enable_coredumps: bool,
    /// Keep all memory from being swapped out
    #[arg(short = 'k', long)]
    lock_memory: bool,
    /// Given by -d to the process that it starts
    #[arg(long, hide = true)]
    in_background: bool,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// memcached's flags that have no effect on this engine: checked as memcached checks them, and told by `stats settings`.
#[derive(Debug, Args)]
struct WithoutEffect {
    /// The engine grows its classes itself
    #[arg(short = 'f', long = "slab-growth-factor", value_name = "FACTOR", hide = true, value_parser = factor)]
    growth_factor: Option<f64>,
    /// The engine chooses its classes itself
    #[arg(short = 'n', long = "slab-min-size", value_name = "BYTES", hide = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    slab_min_size: Option<u32>,
    /// A connection's turn is bounded in bytes
    #[arg(short = 'R', long = "max-reqs-per-event", value_name = "N", hide = true,
        value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_event: Option<u32>,
    /// The system gives large pages where it can
    #[arg(short = 'L', long = "enable-largepages", hide = true)]
    _large_pages: bool,
    /// Connections go to the workers in turn, whichever queue of the network card they came by
    #[arg(short = 'N', long = "napi-ids", value_name = "N", hide = true,
        value_parser = clap::value_parser!(u16).range(1..))]
    napi_ids: Option<u16>,
}

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Action {
    License,
    Serve(Box<Plan>),
    Control(ControlRequest),
    Keepalived(KeepalivedPlan),
    Demo(DemoOptions),
    Bench(BenchPlan),
    Cert(CertOptions),
}

/// A server to start.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) daemon: DaemonPlan,
    pub(crate) replication_listen: Option<SocketAddr>,
    pub(crate) replication_transport: Transport,
    pub(crate) replicates: bool,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) admin_token: Option<Vec<u8>>,
    pub(crate) log_format: LogFormat,
}

/// How the process itself is to live.
#[derive(Debug)]
pub(crate) struct DaemonPlan {
    /// `-d` was given, and this is not the process that it starts.
    pub(crate) starts_second: bool,
    pub(crate) in_background: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) memory_file: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) core_files: bool,
    pub(crate) lock_memory: bool,
}

/// A node's admin server.
#[derive(Debug)]
pub(crate) struct NodeAdmin {
    pub(crate) address: String,
    pub(crate) token: Option<Vec<u8>>,
}

/// A command to a running node.
#[derive(Debug)]
pub(crate) struct ControlRequest {
    pub(crate) node: NodeAdmin,
    pub(crate) kind: ControlKind,
}

/// A node to keep in step with keepalived.
#[derive(Debug)]
pub(crate) struct KeepalivedPlan {
    pub(crate) fifo: PathBuf,
    pub(crate) node: NodeAdmin,
    pub(crate) other: Option<String>,
    pub(crate) instance: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ControlKind {
    Status { json: bool },
    Promotable,
    Promote { force: bool },
    Follow { address: String, force: bool },
    Forget { address: String },
    Ack { mode: AckMode },
    Handover,
}

/// Why the arguments can't be carried out, or help that was asked for.
#[derive(Debug)]
pub(crate) enum Refusal {
    Message(String),
    /// A host that nobody knows: the system's word, not the flag's fault.
    Host(String),
    Clap(clap::Error),
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Refusal::Message(text)
    }
}

/// Reads arguments, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Action, Refusal> {
    let read = command().try_get_matches_from(arguments);
    let cli = read.and_then(|read| Cli::from_arg_matches(&read)).map_err(Refusal::Clap)?;
    let node = |admin: AdminClient| -> Result<NodeAdmin, Refusal> {
        let token =
            admin.admin_token_file.as_deref().map(|file| read_secret(file, "admin token")).transpose()?;
        Ok(NodeAdmin { address: admin.admin, token })
    };
    let control = |admin: AdminClient, kind| -> Result<Action, Refusal> {
        Ok(Action::Control(ControlRequest { node: node(admin)?, kind }))
    };
    match cli.command {
        _ if cli.license => Ok(Action::License),
        None => Ok(Action::Serve(Box::new(plan(cli.serve)?))),
        Some(Command::Status { admin, json }) => control(admin, ControlKind::Status { json }),
        Some(Command::Promotable { admin }) => control(admin, ControlKind::Promotable),
        Some(Command::Keepalived { fifo, admin, other, instance }) => {
            Ok(Action::Keepalived(KeepalivedPlan { fifo, node: node(admin)?, other, instance }))
        }
        Some(Command::Promote { admin, force }) => control(admin, ControlKind::Promote { force }),
        Some(Command::Follow { admin, address, force }) => {
            control(admin, ControlKind::Follow { address, force })
        }
        Some(Command::Handover { admin }) => control(admin, ControlKind::Handover),
        Some(Command::Forget { address, admin }) => control(admin, ControlKind::Forget { address }),
        Some(Command::Ack { mode, admin }) => control(admin, ControlKind::Ack { mode }),
        Some(Command::Demo(options)) => Ok(Action::Demo(options)),
        Some(Command::Bench(options)) => Ok(Action::Bench(options.plan()?)),
        Some(Command::Cert(options)) => Ok(Action::Cert(options)),
    }
}

/// What may stand on the command line. A negative number is the value of the flag in front of it: who refuses it names that
/// flag.
fn command() -> clap::Command {
    let takes_negative = |arg: Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    Cli::command().mut_args(takes_negative).mut_subcommands(|subcommand| subcommand.mut_args(takes_negative))
}

/// clap's message without its usage block: what is wrong, and its tip if it has one.
pub(crate) fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty())
        .collect();
    let what = paragraphs.first().map_or("", |first| first.strip_prefix("error: ").unwrap_or(first));
    let what = byte_count::in_plain_words(what);
    match paragraphs.iter().find(|paragraph| paragraph.starts_with("tip: ")) {
        Some(tip) => format!("{what}; {tip}; see hotspare --help"),
        None => format!("{what}; see hotspare --help"),
    }
}

fn plan(serve: Serve) -> Result<Plan, Refusal> {
    let mut settings = settings(&serve)?;
    let replication_listen = match &serve.replication.replication_listen {
        None => None,
        Some(text) => Some(socket_address(text, "--replication-listen")?),
    };
    let replication_transport = transport(&serve.replication)?;
    settings.replication_credentials = replication_transport.credentials().cloned();
    let others = serve.replication.peer.iter().map(|address| ("--peer", address));
    for (flag, address) in others.chain(serve.replication.replica_of.iter().map(|of| ("--replica-of", of))) {
        node_address(address).map_err(|why| format!("{flag} {address}: {why}"))?;
    }
    if !replication_transport.proves_peers()
        && let Some(given) = beyond_loopback(&serve.replication, replication_listen)
    {
        let wanted = "--replication-secret-file or --replication-tls-cert";
        return Err(
            format!("{given} is not a loopback address, as far as it is known here; give {wanted}").into()
        );
    }
    if let Some(address) = replication_listen.filter(|address| address.ip().is_unspecified()) {
        return Err(format!(
            "--replication-listen {address}: the other nodes are told this address, so give the one by which they reach this node"
        ).into());
    }
    if let Some(own) = own_address(&serve.replication, replication_listen) {
        return Err(format!(
            "--replica-of {own} is this node's own --replication-listen: name the primary's, or leave it out on the primary"
        )
        .into());
    }
    let replication = replication(&serve.replication, replication_listen)?;
    let (admin, admin_token) = admin(&serve)?;
    let mut config = Config::new()
        .memory_bytes_max(settings.memory_bytes_max)
        .item_bytes_max(settings.item_bytes_max)
        .evict(!serve.no_evict);
    if let Some(clock) = &settings.debug_clock {
        config = config.clock(clock.clone());
    }
    let replicates = replication.is_some();
    if let Some(replication) = replication {
        config = config.replication(
            replication.promote_command(promote_command(admin, serve.admin_token_file.as_deref())),
        );
    }
    let daemon = daemon(&serve.habits)?;
    Ok(Plan {
        config,
        settings,
        daemon,
        replication_listen,
        replication_transport,
        replicates,
        admin,
        admin_token,
        log_format: serve.log_format,
    })
}

fn daemon(habits: &Habits) -> Result<DaemonPlan, String> {
    Ok(DaemonPlan {
        starts_second: habits.daemon && !habits.in_background,
        in_background: habits.in_background,
        pid_file: from_root(habits.pidfile.as_deref(), "-P")?,
        memory_file: from_root(habits.memory_file.as_deref(), "-e")?,
        user: habits.user.clone(),
        core_files: habits.enable_coredumps,
        lock_memory: habits.lock_memory,
    })
}

fn settings(serve: &Serve) -> Result<Settings, Refusal> {
    let memory_bytes_max =
        usize::try_from(serve.memory).ok().and_then(|megabytes| megabytes.checked_mul(1 << 20));
    let memory_bytes_max =
        memory_bytes_max.filter(|bytes| (1 << 20..=hotspare::MEMORY_BYTES_MAX).contains(bytes)).ok_or_else(
            || format!("-m {}: give 1 to {} megabytes", serve.memory, hotspare::MEMORY_BYTES_MAX >> 20),
        )?;
    let item_bytes_max = item_bytes_max(serve.item_size.as_deref(), memory_bytes_max)?;
    let sasl_users = sasl_users(serve)?;
    let protocol = spoken(serve)?;
    let suboptions = Suboptions::read(&serve.suboptions)?;
    let port = serve.port.map_or(serve.udp_port.number().unwrap_or(PORT_DEFAULT), TcpPort::number);
    let (mut addresses, plain_addresses) = listen::addresses(&serve.listen, port)?;
    let udp_addresses = udp_addresses(serve, &suboptions, &addresses, item_bytes_max)?;
    if serve.port == Some(TcpPort::Zero) && serve.udp_port != UdpPort::Off {
        addresses.clear();
    }
    let tls = suboptions.tls.settings(serve.enable_ssl)?;
    if let (None, Some(plain)) = (&tls, plain_addresses.first()) {
        return Err(format!("-l notls:{plain} does nothing without -Z").into());
    }
    Ok(Settings {
        addresses,
        udp_addresses,
        plain_addresses,
        tls,
        // Given with replication's own flags, by `plan`.
        replication_credentials: None,
        unix_socket: from_root(serve.unix_socket.as_deref(), "-s")?,
        unix_socket_mode: serve.unix_socket_mode,
        backlog: serve.backlog,
        ascii_users: serve
            .auth_file
            .as_deref()
            .map(Users::read)
            .transpose()
            .map_err(|why| format!("-Y: {why}"))?,
        threads: usize::from(serve.threads),
        connections_max: serve.connections as usize,
        item_bytes_max,
        large_value_bytes_min: Settings::LARGE_VALUE_BYTES_MIN,
        pinned_value_bytes_min: Settings::PINNED_VALUE_BYTES_MIN,
        memory_bytes_max,
        refuses_when_full: suboptions.refuses_when_full,
        idle_timeout_ms: suboptions.idle_timeout_ms,
        watcher_queue_bytes_max: suboptions.watcher_queue_bytes_max,
        track_sizes: suboptions.track_sizes,
        request_timeout_ms: suboptions.request_timeout_ms,
        request_bytes_per_second_min: suboptions.request_bytes_per_second_min,
        shutdown_command: serve.shutdown_command,
        evict: !serve.no_evict,
        dump_enabled: !serve.no_dump,
        cas_enabled: !serve.no_cas,
        flush_enabled: !serve.no_flush,
        watch_enabled: !serve.no_watch,
        prefix_delimiter: serve.delimiter.unwrap_or(b':'),
        detail_enabled: serve.delimiter.is_some(),
        lru_crawler: suboptions.lru_crawler,
        told: told(serve, suboptions.told)?,
        debug_clock: serve.debug_time.then(Arc::default),
        slow_log_ms: serve.slow_log_ms,
        verbosity: serve.verbose,
        protocol,
        ack_timeout_ms: serve.replication.ack_timeout_ms.unwrap_or(ACK_TIMEOUT_MS_DEFAULT),
        sasl_users,
    })
}

/// The protocol that `-B` gives; without it the one that a login needs.
fn spoken(serve: &Serve) -> Result<Protocol, String> {
    match serve.protocol {
        None if serve.sasl => Ok(Protocol::Binary),
        None if serve.auth_file.is_some() => Ok(Protocol::Ascii),
        Some(Protocol::Auto | Protocol::Binary) if serve.auth_file.is_some() => {
            Err("-Y allows only the text protocol; leave -B out or give -B ascii".to_owned())
        }
        given => Ok(given.unwrap_or_default()),
    }
}

/// What only `stats settings` tells, the suboptions' words included.
fn told(
    serve: &Serve,
    mut told: BTreeMap<&'static str, String>,
) -> Result<BTreeMap<&'static str, String>, String> {
    let WithoutEffect { growth_factor, slab_min_size, requests_per_event, napi_ids, .. } =
        &serve.habits.without_effect;
    if let Some(count) = napi_ids.filter(|count| *count > serve.threads) {
        return Err(format!("-N {count}: give at most as many as there are threads (-t {})", serve.threads));
    }
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let rows = [
        ("growth_factor", growth_factor.map(|factor| format!("{factor:.2}"))),
        ("chunk_size", slab_min_size.map(|bytes| bytes.to_string())),
        ("reqs_per_event", requests_per_event.map(|count| count.to_string())),
        ("num_napi_ids", napi_ids.map(|count| count.to_string())),
        ("auth_enabled_ascii", file(&serve.auth_file)),
        ("memory_file", file(&serve.habits.memory_file)),
        ("inter", (!serve.listen.is_empty()).then(|| serve.listen.join(","))),
    ];
    told.extend(rows.into_iter().filter_map(|(name, text)| Some((name, text?))));
    Ok(told)
}

/// The size that `-I` gives, or the default.
fn item_bytes_max(given: Option<&str>, memory_bytes_max: usize) -> Result<usize, String> {
    match given {
        // With very little memory the default shrinks; a stated size does not.
        None => Ok((1 << 20).min(memory_bytes_max / 2)),
        Some(text) => match byte_count(text).map_err(|why| format!("-I {text}: {why}"))? {
            bytes if !(1 << 10..=1 << 30).contains(&bytes) => Err(format!("-I {text}: give 1k to 1g")),
            bytes if bytes > memory_bytes_max / 2 => {
                Err(format!("-I {text}: give at most half of the memory (-m)"))
            }
            bytes => Ok(bytes),
        },
    }
}

/// Where datagrams are answered (rule U1). A unix socket stands instead of all addresses.
fn udp_addresses(
    serve: &Serve,
    suboptions: &Suboptions,
    addresses: &[SocketAddr],
    item_bytes_max: usize,
) -> Result<Vec<SocketAddr>, String> {
    let conflicts = [
        (serve.auth_file.is_some(), "nobody can name a user over UDP; leave -Y or -U out"),
        (serve.sasl, "nobody can log in over UDP; leave -S or -U out"),
        (serve.enable_ssl, "UDP is not encrypted; leave -Z or -U out"),
        (
            suboptions.track_sizes,
            "a datagram must not start a walk through all items; leave -o track_sizes or -U out",
        ),
        (item_bytes_max > UDP_ITEM_BYTES_MAX, "an answer over UDP has an end; give at most -I 64m"),
    ];
    if serve.udp_port == UdpPort::Off {
        return Ok(Vec::new());
    }
    if let Some((_, why)) = conflicts.into_iter().find(|(is_so, _)| *is_so) {
        return Err(format!("-U {}: {why}", serve.udp_port));
    }
    let addresses = if serve.unix_socket.is_some() { &[] } else { addresses };
    Ok(serve.udp_port.at(addresses))
}

/// A path from the root: it is used later, wherever the process is then.
fn from_root(path: Option<&Path>, flag: &str) -> Result<Option<PathBuf>, String> {
    let whole =
        |path: &Path| std::path::absolute(path).map_err(|why| format!("{flag} {}: {why}", path.display()));
    path.map(whole).transpose()
}

/// What ends a prefix: the first byte, as memcached takes it.
fn delimiter(text: &str) -> Result<u8, String> {
    text.bytes().next().ok_or_else(|| "give a character".to_owned())
}

/// The factor of `-f`.
fn factor(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|factor| *factor > 1.0).ok_or_else(|| "give a number above 1".to_owned())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "auto" => Ok(Protocol::Auto),
        "ascii" => Ok(Protocol::Ascii),
        "binary" => Ok(Protocol::Binary),
        _ => Err("give auto, ascii or binary".to_owned()),
    }
}

fn sasl_users(serve: &Serve) -> Result<Option<Users>, String> {
    if !serve.sasl {
        return Ok(None);
    }
    if serve.protocol.is_some_and(|protocol| protocol != Protocol::Binary) {
        return Err("-S allows only the binary protocol; leave -B out or give -B binary".to_owned());
    }
    let named = std::env::var_os("MEMCACHED_SASL_PWDB").map(PathBuf::from);
    match serve.sasl_password_file.clone().or(named) {
        Some(file) => Users::read(&file).map(Some).map_err(|why| format!("-S: {why}")),
        None => Err("-S needs passwords; give --sasl-password-file, or MEMCACHED_SASL_PWDB".to_owned()),
    }
}

fn socket_address(text: &str, flag: &str) -> Result<SocketAddr, String> {
    text.replace("localhost:", "127.0.0.1:")
        .parse()
        .map_err(|_| format!("{flag} {text}: give an IP address and a port, such as 127.0.0.1:7001"))
}

fn admin(serve: &Serve) -> Result<(Option<SocketAddr>, Option<Vec<u8>>), String> {
    let Some(text) = &serve.admin else { return Ok((None, None)) };
    let address = socket_address(text, "--admin")?;
    let token = serve.admin_token_file.as_deref().map(|file| read_secret(file, "admin token")).transpose()?;
    if !address.ip().is_loopback() {
        check_far_token(address, token.as_deref())?;
    }
    Ok((Some(address), token))
}

/// What an operator types on this machine to promote this node.
fn promote_command(admin: Option<SocketAddr>, token_file: Option<&Path>) -> String {
    match (admin, token_file) {
        (None, _) => {
            "hotspare promote --admin ADDRESS, which it has to be started with: --admin ADDRESS".to_owned()
        }
        (Some(address), _) if address.port() == 0 => {
            "hotspare promote --admin ADDRESS, where its log says \"admin on\"".to_owned()
        }
        (Some(address), None) => format!("hotspare promote --admin {address}"),
        (Some(address), Some(file)) => {
            format!("hotspare promote --admin {address} --admin-token-file {}", file.display())
        }
    }
}

#[cfg(test)]
mod tests;
