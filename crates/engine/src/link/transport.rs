//! The byte stream below a link, and what opens one. A seam: tests put recorders and faulty wires here.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

use super::{error::LinkError, memory::MemoryShare};
use crate::{stop::Stop, target::Address};

/// A byte stream whose reads and writes return within `STOP_POLL`, with `WouldBlock` or
/// `TimedOut` if no byte was moved.
pub trait Transport: Read + Write + Send {
    /// Returns the IP address that the stream is connected to; `None` where the transport does not know.
    fn peer(&self) -> Option<IpAddr> {
        None
    }
}

impl Transport for TcpStream {
    fn peer(&self) -> Option<IpAddr> {
        self.peer_addr().ok().map(|address| address.ip())
    }
}

impl Transport for UnixStream {}

/// Opens byte streams to nodes.
pub trait Dialer: Send + Sync {
    /// Connects to a data node within `timeout`.
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError>;

    /// Connects to a Sentinel, whose encryption can differ from that of the data nodes.
    fn dial_sentinel(
        &self,
        address: &Address,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Box<dyn Transport>, LinkError> {
        self.dial(address, timeout, stop)
    }

    /// Returns the memory that replies on these streams draw on.
    fn memory(&self) -> MemoryShare {
        MemoryShare::default()
    }
}

/// Dials data nodes and Sentinels in different ways.
pub(super) struct Apart {
    pub nodes: Arc<dyn Dialer>,
    pub sentinels: Arc<dyn Dialer>,
}

impl Dialer for Apart {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        self.nodes.dial(address, timeout, stop)
    }

    fn dial_sentinel(
        &self,
        address: &Address,
        timeout: Duration,
        stop: &Stop,
    ) -> Result<Box<dyn Transport>, LinkError> {
        self.sentinels.dial(address, timeout, stop)
    }

    fn memory(&self) -> MemoryShare {
        self.nodes.memory()
    }
}

/// Makes a dialer of data nodes one of Sentinels, for the connections to these.
pub(crate) struct ToSentinels<'a>(pub &'a dyn Dialer);

impl Dialer for ToSentinels<'_> {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        self.0.dial_sentinel(address, timeout, stop)
    }

    fn memory(&self) -> MemoryShare {
        self.0.memory()
    }
}

/// Whether an I/O error only means that no byte was moved in time.
pub(super) fn is_idle(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
