//! Opens the byte stream of a link. A seam: tests put recorders and faulty wires here.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::LinkError;
use crate::{
    stop::{LOOK, Stop},
    target::Address,
};

/// A byte stream whose reads and writes return within [`LOOK`], with `WouldBlock` or `TimedOut` if nothing happened.
pub trait Transport: Read + Write + Send {}

impl<T: Read + Write + Send> Transport for T {}

/// Opens byte streams to nodes.
pub trait Dialer: Send + Sync {
    /// Connects within `patience`, or says why not.
    fn dial(&self, address: &Address, patience: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError>;
}

/// Plain TCP.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tcp;

impl Dialer for Tcp {
    fn dial(&self, address: &Address, patience: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, patience, stop, Arc::new(|_| true))
    }
}

/// Plain TCP to allowed addresses only, whatever name leads to them and whoever announced them.
#[derive(Clone)]
pub struct Guarded {
    /// Whether an address may be connected to.
    pub allows: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
}

impl Dialer for Guarded {
    fn dial(&self, address: &Address, patience: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        dial(address, patience, stop, Arc::clone(&self.allows))
    }
}

/// Looks the name up and connects in a thread of its own, because neither can be interrupted: a dead name server would
/// otherwise hold up a stop. An abandoned thread ends with its system call.
fn dial(
    address: &Address,
    patience: Duration,
    stop: &Stop,
    allows: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
) -> Result<Box<dyn Transport>, LinkError> {
    let (answer, connected) = mpsc::channel();
    let (target, deadline) = (address.clone(), Instant::now() + patience);
    thread::Builder::new()
        .name("keysweep-dial".into())
        .spawn(move || drop(answer.send(connect(&target, deadline, &*allows))))
        .map_err(|error| LinkError::io(&error))?;
    loop {
        match connected.recv_timeout(LOOK) {
            Ok(stream) => return Ok(Box::new(stream?)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(LinkError::Connect("the connecting thread died".into()));
            }
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => return Err(LinkError::Stopped),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                return Err(LinkError::TimedOut(patience));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn connect(address: &Address, deadline: Instant, allows: &dyn Fn(SocketAddr) -> bool) -> Result<TcpStream, LinkError> {
    let candidates =
        (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| LinkError::Name(error.to_string()))?;
    let mut failure = LinkError::Name("it has no address".into());
    // Checked behind the look-up: a name may lead anywhere, and somewhere else the next time.
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
                prepare(&stream).map_err(|error| LinkError::io(&error))?;
                return Ok(stream);
            }
            Err(error) => failure = LinkError::Connect(plain_cause(&error)),
        }
    }
    Err(failure)
}

/// The cause without the operating system's error number, which tells an operator nothing.
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
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))
}
