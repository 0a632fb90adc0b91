//! Sockets that listen, and why one can't.
//!
//! Lives here: binding, and what accepted sockets inherit. Not here: taking them (see `accepting`).

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::{TcpListener, UnixListener};
use rustix::fs::Mode;
use rustix::process::umask;
use socket2::{Domain, SockAddr, Type};

use super::registry::{Address, Peer};
use crate::settings::Settings;

/// Bytes that the system holds for a client that does not read, beyond what is on its way. Without a bound Linux grows
/// a socket's buffer to 4 MiB (`net.ipv4.tcp_wmem`): some hundred such clients use up what all connections of a machine may
/// have (`net.ipv4.tcp_mem`), and then packets of well-behaved ones are dropped (seen in the soak test).
const SYSTEM_UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Why the server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// A TCP address can't be listened at.
    Listen(SocketAddr, std::io::Error),
    /// Datagrams can't be taken at an address.
    Udp(SocketAddr, std::io::Error),
    /// A unix socket can't be listened at.
    ListenUnix(PathBuf, std::io::Error),
    /// The certificates can't be read, or have no sense.
    Certificates(String),
    /// The system refused a thread or a poller.
    System(std::io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Listen(address, why) => {
                write!(f, "can't listen for clients on {address}: {why}; -p and -l say where")
            }
            ServerError::Udp(address, why) => {
                write!(f, "can't take datagrams at {address}: {why}; -U says where")
            }
            ServerError::ListenUnix(path, why) => {
                write!(f, "can't listen for clients on {}: {why}; -s says where", path.display())
            }
            ServerError::Certificates(why) => write!(f, "-Z: {why}"),
            ServerError::System(why) => write!(f, "can't start serving: {why}"),
        }
    }
}

impl std::error::Error for ServerError {}

/// Sockets that listen.
pub(crate) struct Bound {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) unix: Option<(UnixListener, SocketFile)>,
}

/// The file of a unix socket, removed with this value.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server's socket may have taken its place since.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Who may not remove it any more leaves it: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// What `stats conns` says of the listeners.
    pub(crate) fn peers(&self, now_ms: u64) -> Vec<Peer> {
        let tcp =
            self.tcp.iter().map(|listener| (listener.as_raw_fd(), Address::Tcp(listener.local_addr().ok())));
        let unix = self
            .unix
            .iter()
            .map(|(listener, file)| (listener.as_raw_fd(), Address::Unix(Some(file.path.clone()))));
        tcp.chain(unix).map(|(descriptor, address)| Peer::listener(descriptor, address, now_ms)).collect()
    }

    /// Where clients of each listener are accepted; `None`: at every address of the machine, so that a socket has to be
    /// asked.
    pub(crate) fn listen_addresses(&self) -> Vec<Option<Arc<Address>>> {
        let tcp = self.tcp.iter().map(|listener| {
            let address = listener.local_addr().ok().filter(|address| !address.ip().is_unspecified())?;
            Some(Address::Tcp(Some(address)))
        });
        let unix = self.unix.iter().map(|(_, file)| Some(Address::Unix(Some(file.path.clone()))));
        tcp.chain(unix).map(|address| address.map(Arc::new)).collect()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Binds what the settings name.
pub(crate) fn bind(settings: &Settings) -> Result<Bound, ServerError> {
    if let Some(path) = &settings.unix_socket {
        let bound = bind_unix(path, settings).map_err(|why| ServerError::ListenUnix(path.clone(), why))?;
        return Ok(Bound { tcp: Vec::new(), unix: Some(bound) });
    }
    let bind_one = |address: &SocketAddr| {
        bind_tcp(*address, settings.backlog).map_err(|why| ServerError::Listen(*address, why))
    };
    let tcp = settings.addresses.iter().map(bind_one).collect::<Result<_, _>>()?;
    Ok(Bound { tcp, unix: None })
}

fn bind_tcp(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // Each family has its own socket, as memcached's: [::] and 0.0.0.0 go together.
        socket.set_only_v6(true)?;
    }
    // Rule Z8: connections of a server that stopped keep nobody from its port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Accepted sockets inherit it: who vanished without a word is found out in the end.
    socket.set_keepalive(true)?;
    // And this: latency matters more than packets.
    socket.set_tcp_nodelay(true)?;
    // So is this. Where the system knows no such bound it has its own.
    let _ = socket.set_tcp_notsent_lowat(SYSTEM_UNSENT_BYTES_MAX);
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A socket file that a killed server left is replaced; any other file is not.
fn bind_unix(path: &Path, settings: &Settings) -> std::io::Result<(UnixListener, SocketFile)> {
    let found = std::fs::symlink_metadata(path).ok();
    if found.as_ref().is_some_and(|found| !found.file_type().is_socket()) {
        let why = "a file that is no socket is there, and stays";
        return Err(std::io::Error::new(ErrorKind::AlreadyExists, why));
    }
    if found.is_some() {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(why) if why.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            // A server that is too busy to answer lives, too.
            _ => return Err(ErrorKind::AddrInUse.into()),
        }
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode is there from the socket's first moment.
    let before = umask(Mode::from_raw_mode(0o777 & !settings.unix_socket_mode));
    let bound = SockAddr::unix(path).and_then(|address| socket.bind(&address));
    umask(before);
    bound?;
    let file = SocketFile { path: path.to_owned(), inode: std::fs::symlink_metadata(path)?.ino() };
    socket.listen(settings.backlog)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into()), file))
}
