//! The life of a server process: start everything, wait for a reason to stop, drain, stop.
//!
//! Lives here: the order of start and stop, the port file (rule Z8).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use hotspare::{Cache, Config, ConfigError};
use hotspare_memcached::classic::ShutdownMode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::admin::Admin;
use crate::args::Plan;
use crate::daemon::{self, PidFile};
use crate::memory_file::MemoryFile;
use crate::replication::{Node, Transport};
use crate::server::{Observation, Server, ServerError};
use crate::{EXIT_SYSTEM, EXIT_USAGE, service_manager};

/// How long a stopping primary ships what its replicas lack.
const DRAIN: Duration = Duration::from_millis(500);

/// How long a graceful stop waits for requests that have begun to come.
const GRACE: Duration = Duration::from_secs(5);

/// How often it looks whether any is left.
const GRACE_POLL: Duration = Duration::from_millis(10);

/// What did not start: the exit code, and why.
type Failure = (u8, String);

/// What a running server is asked for from outside.
#[derive(Debug)]
enum Wish {
    Stop(&'static str),
    /// Stop, but let the clients finish what they have begun, and save the items if they are to be saved.
    StopGracefully(&'static str),
    Reload,
}

/// How it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Plain,
    Graceful,
}

fn start_failure(why: &ServerError) -> Failure {
    let code = if matches!(why, ServerError::Certificates(_)) { EXIT_USAGE } else { EXIT_SYSTEM };
    (code, why.to_string())
}

fn no_admin(address: SocketAddr, why: &std::io::Error) -> Failure {
    (EXIT_SYSTEM, format!("can't listen for admin on {address}: {why}; --admin says where"))
}

/// Serves until a signal or the shutdown command; gives the exit code.
pub(crate) fn serve(plan: Plan) -> ExitCode {
    crate::log::start(plan.settings.verbosity, plan.log_format);
    crate::fault::end_process_on_panic();
    match start_and_wait(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            crate::say(&why);
            ExitCode::from(code)
        }
    }
}

fn start_and_wait(plan: Plan) -> Result<(), Failure> {
    let system = |why: &dyn std::fmt::Display| (EXIT_SYSTEM, why.to_string());
    prepare(&plan);
    let user = plan.daemon.user.as_deref().map(daemon::find_user).transpose()?.flatten();
    let (wish, wishes) = unbounded();
    listen_to_signals(wish.clone()).map_err(|why| system(&why))?;
    let observation = Observation::default();
    warn_of_large_items(&plan.config, plan.settings.item_bytes_max);
    let mut memory_file = plan.daemon.memory_file.clone().map(MemoryFile::at).transpose()?;
    let cache = make_cache(observation.of_cache(plan.config), memory_file.as_mut())?;
    let on_command = move |mode| {
        let wished = match mode {
            ShutdownMode::Now => Wish::Stop("the shutdown command"),
            ShutdownMode::Graceful => Wish::StopGracefully("the shutdown command"),
        };
        // Nobody listens any more: it is stopping already.
        let _ = wish.send(wished);
    };
    warn_of_certificate(&plan.replication_transport, plan.replication_listen);
    let loopback_only = !plan.replication_transport.proves_peers();
    let unix_socket = plan.settings.unix_socket.clone();
    let is_verbose = plan.settings.verbosity > 0;
    let habits = plan.daemon;
    let mut server = Server::start_observed(cache.clone(), plan.settings, observation, on_command)
        .map_err(|why| start_failure(&why))?;
    // Now, though the start may fail yet: clients may have written since, and what the file holds would be old. Also since
    // another user, whom this process may become, need not be allowed to remove it.
    memory_file.as_mut().map_or(Ok(()), MemoryFile::settle)?;
    let node = match plan.replicates {
        true => Some(
            Node::start(&cache, plan.replication_listen, plan.replication_transport)
                .map_err(|why| system(&why))?,
        ),
        false => None,
    };
    let admin = match plan.admin {
        None => None,
        Some(address) => {
            let counters = server.counters_source();
            let started = Admin::start(address, plan.admin_token, loopback_only, cache.clone(), counters);
            Some(started.map_err(|why| no_admin(address, &why))?)
        }
    };
    let pid_file = habits.pid_file.as_deref().map(write_pid_file).transpose()?;
    if let Some(user) = user {
        pid_file.iter().for_each(|file| file.give_to(&user));
        daemon::become_user(&user, unix_socket.as_deref())?;
    }
    memory_file.as_ref().map_or(Ok(()), MemoryFile::check_writable)?;
    if let Some(file) = std::env::var_os("MEMCACHED_PORT_FILENAME") {
        let file = Path::new(&file);
        write_port_file(file, server.addresses(), server.udp_addresses())
            .map_err(|why| system(&format!("can't write the port file {}: {why}", file.display())))?;
    }
    if habits.lock_memory {
        daemon::lock_memory();
    }
    announce(&server, unix_socket, node.as_ref(), admin.as_ref());
    if habits.in_background {
        daemon::settle(is_verbose, habits.core_files).map_err(|why| system(&why))?;
    }
    service_manager::ready();
    let stop = wait(&wishes, &mut server, &cache);
    service_manager::stopping();
    server.stop_listening();
    drop(admin);
    server.shutdown();
    if let Some(node) = node {
        node.shutdown(DRAIN);
    }
    keep_items(stop, memory_file.as_ref(), &cache)
}

/// Peers that dial this node believe a certificate for the address that they dial, and dial it only once it is promoted.
fn warn_of_certificate(transport: &Transport, listen: Option<SocketAddr>) {
    let (Some(credentials), Some(listen)) = (transport.credentials(), listen) else { return };
    if !credentials.is_for(&listen.to_string()) {
        tracing::warn!(
            "--replication-tls-cert is not for {}, where this node listens for replication: a node that is told to follow it there \
             won't believe it; issue one that names it (hotspare cert FOLDER --names NAME/ADDRESS)",
            listen.ip()
        );
    }
}

/// By default the log is as large as the items are: this is of a smaller one, and of items beyond all logs.
fn warn_of_large_items(config: &Config, item_bytes_max: usize) {
    let carried = config.replicated_item_bytes_max();
    if carried < item_bytes_max {
        let remedy = match config.sufficient_log_bytes() {
            Some(bytes) => format!("give --log-bytes {bytes} or more, or -I {carried} at most"),
            None => format!("give -I {carried} at most; no --log-bytes carries more"),
        };
        tracing::warn!(
            "-I allows items of {item_bytes_max} bytes, and replicas can be sent {carried}: larger ones are absent there, and are \
             refused where writes wait for acks (--ack); {remedy}"
        );
    }
}

/// A graceful stop saves the items, or says that they are lost.
fn keep_items(stop: Stop, memory_file: Option<&MemoryFile>, cache: &Cache) -> Result<(), Failure> {
    match (stop, memory_file) {
        (Stop::Plain, _) => {}
        (Stop::Graceful, Some(file)) => return file.save(cache),
        (Stop::Graceful, None) => {
            let items = cache.stats().items;
            if items > 0 {
                tracing::warn!(
                    "without -e FILE nothing is saved: the {items} items of this node are lost with it"
                );
            }
        }
    }
    Ok(())
}

/// The cache that an earlier process saved, or an empty one.
fn make_cache(config: Config, memory_file: Option<&mut MemoryFile>) -> Result<Cache, Failure> {
    match memory_file.and_then(|file| file.restore(&config)) {
        Some(cache) => Ok(cache),
        None => Cache::new(config).map_err(|why| (EXIT_USAGE, format!("{}{why}", flag_of(&why)))),
    }
}

/// The flag that a limit came from.
fn flag_of(why: &ConfigError) -> &'static str {
    match why {
        ConfigError::MemoryTooSmall { .. }
        | ConfigError::MemoryTooLarge { .. }
        | ConfigError::NoAddressSpace { .. } => "-m: ",
        ConfigError::ItemTooLarge { .. } => "-I: ",
        ConfigError::SlotTooLarge { .. } => "--node-slot: ",
        _ => "",
    }
}

/// What must be before anything is started.
fn prepare(plan: &Plan) {
    if plan.daemon.in_background {
        daemon::leave_session();
    }
    if plan.daemon.core_files {
        daemon::allow_core_files();
    }
    daemon::raise_descriptor_limit(plan.settings.connections_max);
}

fn write_pid_file(path: &Path) -> Result<PidFile, Failure> {
    PidFile::write(path)
        .map_err(|why| (EXIT_SYSTEM, format!("can't write the pid file {}: {why}", path.display())))
}

/// One line for each address, which scripts and tests read.
fn announce(server: &Server, unix_socket: Option<PathBuf>, node: Option<&Node>, admin: Option<&Admin>) {
    for address in server.addresses() {
        tracing::info!("listening for clients on {address}");
    }
    for address in server.udp_addresses() {
        tracing::info!("answering datagrams on {address}");
    }
    if let Some(path) = unix_socket {
        tracing::info!("listening for clients on {}", path.display());
    }
    if let Some(address) = node.and_then(Node::listen_address) {
        tracing::info!("listening for replication on {address}");
    }
    if let Some(admin) = admin {
        tracing::info!("admin on {}", admin.address());
    }
}

fn listen_to_signals(wish: Sender<Wish>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    std::thread::Builder::new().name("hotspare-signals".to_owned()).spawn(move || {
        let mut stops = false;
        for signal in signals.forever() {
            let wished = match signal {
                SIGHUP => Wish::Reload,
                SIGUSR1 => Wish::StopGracefully("SIGUSR1"),
                // Whoever asks twice does not want to wait for the drain.
                _ if std::mem::replace(&mut stops, true) => std::process::exit(128 + signal),
                SIGTERM => Wish::Stop("SIGTERM"),
                _ => Wish::Stop("SIGINT"),
            };
            // Nobody listens any more: it is stopping already.
            let _ = wish.send(wished);
        }
    })?;
    Ok(())
}

/// Until it is time to stop.
fn wait(wishes: &Receiver<Wish>, server: &mut Server, cache: &Cache) -> Stop {
    let alive_interval = service_manager::alive_interval();
    loop {
        let wish = match alive_interval {
            None => wishes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(interval) => wishes.recv_timeout(interval),
        };
        match wish {
            Err(RecvTimeoutError::Timeout) => {
                // It takes the locks of the log and the roles: were one held for ever, nobody would be told.
                let _ = cache.status();
                service_manager::alive();
            }
            Ok(Wish::Stop(reason)) => {
                tracing::info!("stopping: {reason}");
                return Stop::Plain;
            }
            Ok(Wish::StopGracefully(reason)) => {
                tracing::info!("stopping gracefully: {reason}");
                server.drain();
                finish_clients(wishes, server);
                return Stop::Graceful;
            }
            Ok(Wish::Reload) => match server.reload() {
                Ok(()) => tracing::info!("files were read again"),
                Err(why) => tracing::error!(why, "a file can't be used; what it held before stays in use"),
            },
            Err(RecvTimeoutError::Disconnected) => {
                tracing::error!("stopping: nobody is left to say when");
                return Stop::Plain;
            }
        }
    }
}

/// Until the clients have finished what they had begun, or somebody does not want to wait for them.
fn finish_clients(wishes: &Receiver<Wish>, server: &Server) {
    let end = Instant::now() + GRACE;
    while server.counters().curr_connections > 0 && Instant::now() < end {
        if let Ok(Wish::Stop(reason)) = wishes.recv_timeout(GRACE_POLL) {
            return tracing::info!("stopping at once: {reason}");
        }
    }
}

/// Rule Z8: complete when it appears.
fn write_port_file(file: &Path, tcp: &[SocketAddr], udp: &[SocketAddr]) -> std::io::Result<()> {
    // Behind the whole name: of two servers with ports.1 and ports.2 each has its own.
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let written =
        std::fs::write(&unfinished, port_lines(tcp, udp)).and_then(|()| std::fs::rename(&unfinished, file));
    if written.is_err() {
        // It may not be there at all.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

fn port_lines(tcp: &[SocketAddr], udp: &[SocketAddr]) -> String {
    let line = |transport: &str, address: &SocketAddr| {
        let family = if address.is_ipv6() { "INET6" } else { "INET" };
        format!("{transport} {family}: {}\n", address.port())
    };
    let udp = udp.iter().map(|address| line("UDP", address));
    tcp.iter().map(|address| line("TCP", address)).chain(udp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_file_has_a_line_for_each_address_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = ["127.0.0.1:5".parse().unwrap(), "[::1]:6".parse().unwrap()];
        for name in ["ports.1", "ports.2", "ports"] {
            write_port_file(&folder.path().join(name), &addresses, &[]).unwrap();
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(text, "TCP INET: 5\nTCP INET6: 6\n");
        }
        assert_eq!(port_lines(&[], &addresses), "UDP INET: 5\nUDP INET6: 6\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(write_port_file(&folder.path().join("missing/ports"), &addresses, &[]).is_err());
    }
}
