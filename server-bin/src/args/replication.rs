//! The flags of replication: what they are, which go together, and what they make of a node.
//!
//! Lives here: a node's part in its group. Not here: the files of certificates (see `hotspare_tls`), what clients see.

use super::secrets::SECRET_BYTES_MIN;
use super::*;

/// The nodes of a group, itself included: each has a slot of its own, 0 to 15.
const NODES_MAX: usize = 16;

#[derive(Debug, Args)]
#[command(next_help_heading = "Replication")]
pub(super) struct Replication {
    /// Accept the group's other nodes at this IP address and port, by which they must reach this node: they are told it
    #[arg(long, value_name = "ADDR")]
    pub(super) replication_listen: Option<String>,
    /// Follow the node that listens for replication at ADDR
    #[arg(long, value_name = "ADDR")]
    pub(super) replica_of: Option<String>,
    /// Follow that node even while it is a replica itself; up to 4 links below a primary
    #[arg(long, requires_all = ["replica_of", "node_slot"])]
    pub(super) cascade: bool,
    /// Another node of the group, by its replication address; repeatable. Without --replica-of and --bootstrap this node then
    /// looks for a primary there, and waits to be promoted
    #[arg(long, value_name = "ADDR")]
    pub(super) peer: Vec<String>,
    /// The group's name [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) group: Option<String>,
    /// 0 to 15, unique in the group; default 0 for a primary, 1 for a follower
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=15))]
    pub(super) node_slot: Option<u8>,
    /// Begin as the primary of a new group, empty, unless a --peer that answers within a second holds the group's items: then wait
    /// for that one to be promoted, and follow it. In semi-sync and strict each --peer has to answer first. On loopback, and with
    /// no --peer, --replication-listen alone does
    #[arg(long, conflicts_with = "replica_of")]
    pub(super) bootstrap: bool,
    /// A file with the secret that the group shares, 16 bytes or more, the same on each node; without it, and without
    /// certificates, replication stays on loopback
    #[arg(long, value_name = "FILE")]
    pub(super) replication_secret_file: Option<PathBuf>,
    /// This node's certificate, PEM: replication is encrypted, and each peer must show one of the same authority; read again
    /// on SIGHUP, as are its key and the authority
    #[arg(long, value_name = "FILE", requires_all = ["replication_tls_key", "replication_tls_ca"])]
    pub(super) replication_tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "replication_tls_cert")]
    pub(super) replication_tls_key: Option<PathBuf>,
    /// The authority that signs the certificates of this group and no others, PEM
    #[arg(long, value_name = "FILE", requires = "replication_tls_cert")]
    pub(super) replication_tls_ca: Option<PathBuf>,
    /// Answer reads while this node is a replica
    #[arg(long)]
    pub(super) replica_reads: bool,
    /// As a replica, refuse reads while its items may be more than MS milliseconds old (less than 500 refuses some always)
    #[arg(long, value_name = "MS", requires = "replica_reads")]
    pub(super) replica_staleness_max_ms: Option<u64>,
    /// The same on each node. When a write is answered: async, at once; semi-sync:N, when N replicas have it, and refused while fewer are level;
    /// strict:N, likewise, and reads wait, too, and are misses unless N replicas answered within the last second
    #[arg(long, value_name = "MODE", default_value_t = AckMode::Async)]
    pub(super) ack: AckMode,
    /// How long a write waits for its acks; then it is answered that nobody knows
    /// [default: 50]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(super) ack_timeout_ms: Option<u64>,
    /// Refuse writes while no replica lacks less than MS milliseconds of them (a few refuse some now and then); give it to each node
    #[arg(long, value_name = "MS")]
    pub(super) max_unacked_ms: Option<u64>,
    /// Refuse writes while no replica lacks less than SIZE of them: bytes, or with k, m or g
    #[arg(long, value_name = "SIZE", value_parser = byte_count, allow_hyphen_values = true)]
    pub(super) max_unacked_bytes: Option<usize>,
    /// The replication transport, the same on each node: tcp, or quic (UDP), which needs certificates
    /// [default: tcp]
    #[arg(long, value_name = "NAME")]
    pub(super) transport: Option<String>,
    /// Size of the replication log, beside the memory: 4k to 32g; default the larger of 4m and 1/16 of the memory.
    /// Replicas get items of up to a quarter of it (and of 8m): give at least four times -I
    #[arg(long, value_name = "SIZE", value_parser = log_bytes, allow_hyphen_values = true)]
    pub(super) log_bytes: Option<usize>,
}

pub(super) fn transport(flags: &Replication) -> Result<Transport, String> {
    let secret_file = flags.replication_secret_file.as_deref();
    let secret = secret_file.map(read_group_secret).transpose()?;
    let files = (&flags.replication_tls_ca, &flags.replication_tls_cert, &flags.replication_tls_key);
    let credentials = match files {
        (Some(authority), Some(certificate), Some(key)) => {
            Some(Credentials::read(authority, certificate, key)?)
        }
        _ => None,
    };
    match (flags.transport.as_deref().unwrap_or("tcp"), credentials) {
        ("tcp", credentials) => Ok(Transport::Tcp { secret, credentials }),
        ("quic", _) if secret.is_some() => {
            Err("--replication-secret-file does nothing over QUIC: certificates prove who a peer is"
                .to_owned())
        }
        ("quic", Some(credentials)) => Ok(Transport::Quic { credentials }),
        ("quic", None) => Err("--transport quic needs --replication-tls-cert, --replication-tls-key and \
                               --replication-tls-ca; hotspare cert makes them"
            .to_owned()),
        (other, _) => Err(format!("--transport {other}: give tcp or quic")),
    }
}

/// A short one would be found by whoever sees a handshake: both nonces and the proof go over the wire, and guesses cost nothing.
fn read_group_secret(file: &Path) -> Result<Vec<u8>, String> {
    let secret = read_secret(file, "replication secret")?;
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "the replication secret in {} has {} bytes and could be guessed; write at least {SECRET_BYTES_MIN} random \
             characters into the file of each node (openssl rand -hex 32 makes 64)",
            file.display(),
            secret.len()
        ));
    }
    Ok(secret)
}

pub(super) fn replication(
    flags: &Replication,
    listen: Option<SocketAddr>,
) -> Result<Option<ReplicationConfig>, String> {
    let mut config = match (&flags.replica_of, flags.bootstrap, listen) {
        (Some(primary), _, _) => ReplicationConfig::replica_of(primary),
        (None, true, _) => ReplicationConfig::primary(),
        (None, false, _) if !flags.peer.is_empty() => ReplicationConfig::follower(),
        (None, false, Some(listen)) if listen.ip().is_loopback() => ReplicationConfig::primary(),
        (None, false, Some(_)) => {
            return Err("a node that listens beyond loopback and names no peer needs --bootstrap to begin \
                        a group, or --replica-of to join one"
                .to_owned());
        }
        (None, false, None) => return refuse_without_effect(flags).map(|()| None),
    };
    if flags.bootstrap && listen.is_none() {
        return Err("--bootstrap needs --replication-listen: nobody could follow this primary".to_owned());
    }
    if flags.peer.len() > NODES_MAX {
        return Err(format!(
            "--peer: {} are named, and a group has {NODES_MAX} nodes at most",
            flags.peer.len()
        ));
    }
    config = config.replica_reads(flags.replica_reads).ack(flags.ack);
    if let Some(ms) = flags.replica_staleness_max_ms {
        config = config.replica_staleness_max_ms(ms);
    }
    for (flag, is_nothing) in [
        ("--max-unacked-ms", flags.max_unacked_ms == Some(0)),
        ("--max-unacked-bytes", flags.max_unacked_bytes == Some(0)),
    ] {
        if is_nothing {
            return Err(format!(
                "{flag} 0: a replica always lacks something for a moment; give more, or leave it out"
            ));
        }
    }
    if let Some(ms) = flags.max_unacked_ms {
        config = config.max_unacked_ms(ms);
    }
    if let Some(bytes) = flags.max_unacked_bytes {
        config = config.max_unacked_bytes(bytes as u64);
    }
    if let Some(group) = &flags.group {
        if group.is_empty() {
            return Err("--group: give a name".to_owned());
        }
        config = config.group(group);
    }
    for peer in &flags.peer {
        config = config.peer(peer);
    }
    if flags.cascade {
        config = config.cascade();
    }
    if let Some(slot) = flags.node_slot {
        config = config.slot(slot);
    }
    if let Some(bytes) = flags.log_bytes {
        config = config.log_bytes_max(bytes);
    }
    Ok(Some(config))
}

/// The log's size: no more than a cache may have.
fn log_bytes(text: &str) -> Result<usize, String> {
    match byte_count(text)? {
        bytes @ hotspare::LOG_BYTES_MIN..=hotspare::MEMORY_BYTES_MAX => Ok(bytes),
        _ => Err("give 4k to 32g".to_owned()),
    }
}

/// A flag that only replication obeys, on a server without it, is a misunderstanding.
fn refuse_without_effect(flags: &Replication) -> Result<(), String> {
    let given = [
        ("--group", flags.group.is_some()),
        ("--node-slot", flags.node_slot.is_some()),
        ("--replication-secret-file", flags.replication_secret_file.is_some()),
        ("--replication-tls-cert", flags.replication_tls_cert.is_some()),
        ("--replica-reads", flags.replica_reads),
        ("--log-bytes", flags.log_bytes.is_some()),
        ("--ack", flags.ack != AckMode::Async),
        ("--max-unacked-ms", flags.max_unacked_ms.is_some()),
        ("--max-unacked-bytes", flags.max_unacked_bytes.is_some()),
        ("--ack-timeout-ms", flags.ack_timeout_ms.is_some()),
        ("--transport", flags.transport.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(format!(
            "{flag} does nothing without replication; add --replication-listen, --replica-of or --peer"
        )),
    }
}

/// The first replication address that may be another machine, with its flag. A name other than localhost may.
pub(super) fn beyond_loopback(flags: &Replication, listen: Option<SocketAddr>) -> Option<String> {
    let listen = listen.map(|address| ("--replication-listen", address.to_string()));
    let upstream = flags.replica_of.iter().map(|address| ("--replica-of", address.clone()));
    let peers = flags.peer.iter().map(|address| ("--peer", address.clone()));
    let mut given = listen.into_iter().chain(upstream).chain(peers);
    given.find(|(_, address)| !is_loopback(address)).map(|(flag, address)| format!("{flag} {address}"))
}

/// The node to follow, if that is this one itself.
pub(super) fn own_address(flags: &Replication, listen: Option<SocketAddr>) -> Option<&str> {
    let upstream = flags.replica_of.as_deref()?;
    let is_own = |address: SocketAddr| Some(address) == listen && address.port() != 0;
    let named = upstream.replace("localhost:", "127.0.0.1:").parse();
    named.is_ok_and(is_own).then_some(upstream)
}

/// Whether an address can only be this machine.
pub(crate) fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

/// The address of a node, which is looked up when it is dialled: HOST:PORT in shape.
pub(crate) fn node_address(text: &str) -> Result<String, String> {
    let plain = text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    match port.parse::<u16>() {
        Ok(1..) if plain && !host.is_empty() && !bare_v6 => Ok(text.to_owned()),
        _ => Err("give HOST:PORT, such as 127.0.0.1:7001".to_owned()),
    }
}
