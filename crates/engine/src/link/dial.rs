//! Opens TCP connections, to any address or to allowed ones only.

use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
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
    transport::{Dialer, Transport},
};
use crate::{
    stop::{STOP_POLL, Stop},
    target::Address,
};

/// Dials plain TCP.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tcp;

impl Dialer for Tcp {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, timeout, stop, Arc::new(|_| true))
    }
}

/// Dials plain TCP to allowed addresses only, for names in a URL and for addresses that nodes announce alike.
#[derive(Clone)]
pub struct Guarded {
    /// Whether an address may be connected to.
    pub allows: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
}

impl Dialer for Guarded {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, timeout, stop, Arc::clone(&self.allows))
    }
}

/// Resolves the name and connects in a thread of its own, because neither can be interrupted: a name server that does not
/// answer would otherwise delay a stop. An abandoned thread ends with its system call.
fn dial(
    address: &Address,
    timeout: Duration,
    stop: &Stop,
    allows: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
) -> Result<Box<dyn Transport>, LinkError> {
    let (answer, connected) = mpsc::channel();
    let (target, deadline) = (address.clone(), Instant::now() + timeout);
    thread::Builder::new()
        .name("keysweep-dial".into())
        .spawn(move || drop(answer.send(connect(&target, deadline, &*allows))))
        .map_err(|error| cause::from_io(&error))?;
    loop {
        match connected.recv_timeout(STOP_POLL) {
            Ok(stream) => return Ok(Box::new(stream?)),
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

fn connect(address: &Address, deadline: Instant, allows: &dyn Fn(SocketAddr) -> bool) -> Result<TcpStream, LinkError> {
    let candidates =
        (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| LinkError::Name(error.to_string()))?;
    let mut failure = LinkError::Name("it has no address".into());
    // Checked after the resolution: a name can resolve to any address, and to another one the next time.
    for candidate in candidates {
        if !allows(candidate) {
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
                return Ok(stream);
            }
            Err(error) => failure = LinkError::Connect(plain_cause(&error)),
        }
    }
    Err(failure)
}

/// Returns the cause without the operating system's error number.
fn plain_cause(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::TimedOut => "connecting timed out".into(),
        _ => error.to_string(),
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STOP_POLL))?;
    stream.set_write_timeout(Some(STOP_POLL))
}
