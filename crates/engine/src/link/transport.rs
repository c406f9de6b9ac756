//! The byte stream below a link, and what opens one. A seam: tests put recorders and faulty wires here.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpStream},
    time::Duration,
};

use super::error::LinkError;
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

/// Opens byte streams to nodes.
pub trait Dialer: Send + Sync {
    /// Connects within `timeout`.
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError>;
}

/// Whether an I/O error only means that no byte was moved in time.
pub(super) fn is_idle(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
