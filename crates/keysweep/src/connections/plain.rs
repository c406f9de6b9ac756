//! Accepting connections, also while the process has no file descriptor left: what is logged then, and when it tries again.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};

/// Time before the next attempt after a failure.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Time between two log lines about it: a shortage of file descriptors lasts, and would fill the log.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A listener for TCP.
pub struct PlainListener {
    listener: TcpListener,
    complaints: Complaints,
}

impl PlainListener {
    /// Returns a listener on what this one accepts.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, complaints: Complaints::default() }
    }
}

impl Listener for PlainListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => self.complaints.wait_after(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Log lines about connections that could not be accepted, one a minute.
#[derive(Debug, Default)]
pub struct Complaints {
    logged_at: Option<Instant>,
}

impl Complaints {
    /// Logs an error if none was logged lately, and waits before the next attempt. A client that has gone is no reason for either.
    pub async fn wait_after(&mut self, error: &io::Error) {
        if is_of_client(error) {
            return;
        }
        if self.is_due(Instant::now()) {
            tracing::error!(%error, "connections cannot be accepted; more of these errors are logged once a minute");
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL);
        if is_due {
            self.logged_at = Some(now);
        }
        is_due
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_file_descriptors_is_logged_once_a_minute() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let due: Vec<bool> =
            [0, 1, 59, 60, 61, 119, 120].map(|seconds| complaints.is_due(now + Duration::from_secs(seconds))).into();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        // EMFILE
        assert!(!is_of_client(&io::Error::from_raw_os_error(24)));
        assert!(is_of_client(&ErrorKind::ConnectionAborted.into()));
    }
}
