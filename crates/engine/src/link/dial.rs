//! Opens byte streams to nodes, over TCP or a unix socket: to any address, or to allowed ones only.

use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    cause,
    error::LinkError,
    memory::MemoryShare,
    transport::{Dialer, Transport},
};
use crate::{
    stop::{STOP_POLL, Stop},
    target::Address,
};

/// An end to connect to, after the resolution of its name.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint<'a> {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The path of a unix socket.
    Socket(&'a Path),
}

/// Whether an end may be connected to.
type Allows = dyn Fn(Endpoint<'_>) -> bool + Send + Sync;

/// Dials any address, not encrypted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Plain;

impl Dialer for Plain {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, timeout, stop, Arc::new(|_| true))
    }
}

/// Dials allowed addresses only, for names in a URL and for addresses that nodes announce alike.
#[derive(Clone)]
pub struct Guarded {
    /// Whether an end may be connected to.
    pub allows: Arc<Allows>,
    /// The memory that replies draw on.
    pub memory: MemoryShare,
}

impl Dialer for Guarded {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, timeout, stop, Arc::clone(&self.allows))
    }

    fn memory(&self) -> MemoryShare {
        self.memory.clone()
    }
}

/// Resolves the name and connects in a thread of its own, because neither can be interrupted: a name server that does not
/// answer would otherwise delay a stop. An abandoned thread ends with its system call.
fn dial(
    address: &Address,
    timeout: Duration,
    stop: &Stop,
    allows: Arc<Allows>,
) -> Result<Box<dyn Transport>, LinkError> {
    let (answer, connected) = mpsc::channel();
    let (target, deadline) = (address.clone(), Instant::now() + timeout);
    thread::Builder::new()
        .name("keysweep-dial".into())
        .spawn(move || drop(answer.send(connect(&target, deadline, &*allows))))
        .map_err(|error| cause::from_io(&error))?;
    loop {
        match connected.recv_timeout(STOP_POLL) {
            Ok(stream) => return stream,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(LinkError::Connect("the connecting thread panicked".into()));
            }
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => return Err(LinkError::Stopped),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Err(LinkError::TimedOut(timeout));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn connect(address: &Address, deadline: Instant, allows: &Allows) -> Result<Box<dyn Transport>, LinkError> {
    match address {
        Address::Tcp { host, port } => connect_tcp(host, *port, deadline, allows),
        Address::Unix(path) => connect_socket(Path::new(path), allows),
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant, allows: &Allows) -> Result<Box<dyn Transport>, LinkError> {
    let candidates = (host, port).to_socket_addrs().map_err(|error| LinkError::Name(error.to_string()))?;
    let mut failure = LinkError::Name("it has no address".into());
    // Checked after the resolution: a name can resolve to any address, and to another one the next time.
    for candidate in candidates {
        if !allows(Endpoint::Ip(candidate)) {
            failure = LinkError::NotAllowed;
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(stream) => {
                prepare(&stream).map_err(|error| cause::from_io(&error))?;
                return Ok(Box::new(stream));
            }
            Err(error) => failure = LinkError::Connect(plain_cause(&error)),
        }
    }
    Err(failure)
}

fn connect_socket(path: &Path, allows: &Allows) -> Result<Box<dyn Transport>, LinkError> {
    if !allows(Endpoint::Socket(path)) {
        return Err(LinkError::NotAllowed);
    }
    let stream = UnixStream::connect(path).map_err(|error| LinkError::Connect(plain_cause(&error)))?;
    let prepared = stream.set_read_timeout(Some(STOP_POLL)).and_then(|()| stream.set_write_timeout(Some(STOP_POLL)));
    prepared.map_err(|error| cause::from_io(&error))?;
    Ok(Box::new(stream))
}

/// Returns the cause without the operating system's error number.
fn plain_cause(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::TimedOut => "connecting timed out".into(),
        ErrorKind::NotFound => "there is no such socket".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STOP_POLL))?;
    stream.set_write_timeout(Some(STOP_POLL))
}
