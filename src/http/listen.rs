//! Binds an address of the configuration to a socket that accepts connections.
//!
//! Promises: every problem with an address or its TLS files is found here, before anything is served, and reported in
//! one line that names the address or the file. A unix socket is never reachable with wider permissions than
//! configured, and a live server's socket is never removed. [`super::accept`] serves the listeners.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::tls::{self, TlsError, TlsFiles};
use super::transport::Transport;

/// Connections that the kernel completes before we accept them. The value that `axum` and `tokio` use; capped by
/// `net.core.somaxconn`.
const BACKLOG: u32 = 1024;

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// `mode` is the permission bits of the socket file, such as `0o660`.
    Unix {
        path: PathBuf,
        mode: u32,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One listener as the configuration asks for it.
#[derive(Debug, Clone)]
pub struct ListenerSpec {
    pub address: Address,
    pub tls: Option<TlsFiles>,
}

/// The reason why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("could not listen on {address}")]
    Bind {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("another process is listening on {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there already and is not a socket; remove it or choose another path", path.display())]
    NotASocket { path: PathBuf },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A connection as it was accepted, before any TLS.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// A bound socket. Dropping it stops listening and removes the unix socket file.
pub struct Listener {
    incoming: Incoming,
    address: Address,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) transport: Transport,
}

enum Incoming {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

impl Listener {
    /// Binds the address and reads the TLS files. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// See [`ListenError`]; nothing stays bound after one.
    pub async fn bind(spec: &ListenerSpec) -> Result<Self, ListenError> {
        // The files come first: a wrong certificate must not remove the socket of a running server.
        let tls = spec.tls.as_ref().map(tls::load).transpose()?.map(TlsAcceptor::from);
        let failed = |source| ListenError::Bind { address: spec.address.clone(), source };
        let (incoming, address) = match &spec.address {
            Address::Tcp(address) => {
                let listener = bind_tcp(*address).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                (Incoming::Tcp(listener), Address::Tcp(bound))
            }
            Address::Unix { path, mode } => {
                make_way(path).await?;
                let (listener, file) = bind_unix(path, *mode).map_err(failed)?;
                (Incoming::Unix { listener, _file: file }, spec.address.clone())
            }
        };
        Ok(Self { incoming, address, tls, transport: Transport::default() })
    }

    /// Applies these limits to the listener's connections.
    #[must_use]
    pub fn within(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The address that it listens on; for port 0, with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts the next connection, and returns it with the address of its other end. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match &self.incoming {
            Incoming::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                // Answers are written whole; waiting to merge them with a next one only delays them. A socket that
                // refuses the option is about to fail anyway.
                let _ = socket.set_nodelay(true);
                Ok((Either::Left(socket), Some(peer.ip().to_canonical())))
            }
            Incoming::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok((Either::Right(socket), None))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server must not wait for its old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit keepalive. It costs us no timer, and in the end detects peers that vanished.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes the socket file of a dead process.
async fn make_way(path: &Path) -> Result<(), ListenError> {
    let failed = |source| {
        let address = Address::Unix { path: path.to_owned(), mode: 0 };
        ListenError::Bind { address, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        // Only this error means that no process listens. A full backlog, for example, is a live server under load.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        Ok(_) | Err(_) => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::of(path)?;
    // Set before `listen`: until then no client can connect, so the wider permissions at creation admit no one.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok((socket.listen(BACKLOG)?, file))
}

/// Removes our socket file when it is dropped, unless another process has put its own there since.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), inode: (found.dev(), found.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours {
            // A file left behind is stale, and the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path, mode: u32) -> ListenerSpec {
        ListenerSpec { address: Address::Unix { path: path.to_owned(), mode }, tls: None }
    }

    #[tokio::test]
    async fn a_unix_socket_has_the_mode_and_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sabha.sock");
        let listener = Listener::bind(&unix(&path, 0o620)).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_live_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sabha.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file, as a killed process does");

        let live = Listener::bind(&unix(&path, 0o600)).await.unwrap();
        let refused = Listener::bind(&unix(&path, 0o600)).await.err().unwrap();
        assert_eq!(refused.to_string(), format!("another process is listening on {}", path.display()));
        assert!(path.exists());
        drop(live);
    }

    #[tokio::test]
    async fn an_ordinary_file_in_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let refused = Listener::bind(&unix(&path, 0o600)).await.err().unwrap();
        assert!(matches!(refused, ListenError::NotASocket { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_successors_socket_file_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sabha.sock");
        let old = Listener::bind(&unix(&path, 0o600)).await.unwrap();
        // Moved, not removed: a freed inode number could be given to the successor.
        fs::rename(&path, folder.path().join("moved.sock")).unwrap();
        let _successor = Listener::bind(&unix(&path, 0o600)).await.unwrap();
        drop(old);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let any = ListenerSpec { address: Address::Tcp(([127, 0, 0, 1], 0).into()), tls: None };
        let first = Listener::bind(&any).await.unwrap();
        let again = ListenerSpec { address: first.address().clone(), tls: None };
        let refused = Listener::bind(&again).await.err().unwrap();
        assert_eq!(refused.to_string(), format!("could not listen on {}", first.address()));
    }
}
