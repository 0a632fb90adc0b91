//! The life of a server process: start everything, wait for a reason to stop, drain, stop.
//!
//! Lives here: the order of start and stop, the log's set-up, the port file (rule Z8).

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use hotspare::Cache;
use hotspare_tcp::{Node, Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use crate::admin::Admin;
use crate::args::Plan;
use crate::server::Server;
use crate::{EXIT_SYSTEM, EXIT_USAGE};

/// How long a stopping primary ships what its replicas lack.
const DRAIN: Duration = Duration::from_millis(500);

/// What did not start: the exit code, and why.
type Failure = (u8, String);

/// Serves until a signal or the shutdown command; gives the exit code.
pub(crate) fn serve(plan: Plan) -> ExitCode {
    start_log(plan.settings.verbosity);
    match start_and_wait(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            crate::say(&why);
            ExitCode::from(code)
        }
    }
}

fn start_log(verbosity: u8) {
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A program that embeds this may have its own log already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

fn start_and_wait(plan: Plan) -> Result<(), Failure> {
    let system = |why: &dyn std::fmt::Display| (EXIT_SYSTEM, why.to_string());
    let (stop, stopped) = bounded(1);
    stop_on_signals(stop.clone()).map_err(|why| system(&why))?;
    let cache = Cache::new(plan.config).map_err(|why| (EXIT_USAGE, why.to_string()))?;
    let on_command = move || {
        // One reason to stop is enough: the channel may be full.
        let _ = stop.try_send("the shutdown command");
    };
    let mut server = Server::start(cache.clone(), plan.settings, on_command).map_err(|why| system(&why))?;
    let node = match plan.replicates {
        true => Some(
            start_node(&cache, plan.replication_listen, plan.replication_secret)
                .map_err(|why| system(&why))?,
        ),
        false => None,
    };
    let admin = match plan.admin {
        None => None,
        Some(address) => {
            let counters = server.counters_source();
            let admin = Admin::start(address, plan.admin_token, cache.clone(), counters)
                .map_err(|why| system(&format!("can't listen for admin on {address}: {why}")))?;
            Some(admin)
        }
    };
    for address in server.addresses() {
        tracing::info!("listening for clients on {address}");
    }
    if let Some(address) = node.as_ref().and_then(Node::listen_address) {
        tracing::info!("listening for replication on {address}");
    }
    if let Some(admin) = &admin {
        tracing::info!("admin on {}", admin.address());
    }
    if let Some(file) = std::env::var_os("MEMCACHED_PORT_FILENAME") {
        write_port_file(Path::new(&file), server.addresses()).map_err(|why| system(&why))?;
    }
    wait(&stopped);
    server.stop_listening();
    server.shutdown();
    if let Some(node) = node {
        node.shutdown(DRAIN);
    }
    Ok(())
}

fn start_node(
    cache: &Cache,
    listen: Option<SocketAddr>,
    secret: Option<Vec<u8>>,
) -> Result<Node, hotspare_tcp::StartError> {
    let mut options = Options::new();
    if let Some(address) = listen {
        options = options.listen(address);
    }
    if let Some(secret) = secret {
        options = options.secret(secret);
    }
    Node::start(cache, options)
}

fn stop_on_signals(stop: Sender<&'static str>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("hotspare-signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            // One reason to stop is enough: the channel may be full.
            let _ = stop.try_send(name);
        }
    })?;
    Ok(())
}

fn wait(stopped: &Receiver<&'static str>) {
    match stopped.recv() {
        Ok(reason) => tracing::info!("stopping: {reason}"),
        Err(_) => tracing::error!("stopping: nobody is left to say when"),
    }
}

/// Rule Z8: complete when it appears.
fn write_port_file(file: &Path, addresses: &[SocketAddr]) -> std::io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    let mut out = std::fs::File::create(&unfinished)?;
    for address in addresses {
        writeln!(out, "TCP INET: {}", address.port())?;
    }
    writeln!(out, "UDP INET: 0")?;
    std::fs::rename(&unfinished, file)
}
