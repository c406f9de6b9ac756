//! The time between samples of a server. A sample takes some of its time and reclaims keys, whichever name it is known by, so
//! that the limit is of the server process and not of a target.

use std::{fmt::Debug, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    failure::{Failure, FailureKind, ShardError},
    link::{Info, Link},
    target::Address,
};

/// Shortest time between two samples of a server.
pub const MIN_SAMPLE_INTERVAL: Duration = Duration::from_secs(300);
/// Longest time between two samples of a server.
const MAX_SAMPLE_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// A server process. It is known by where it is reached and by its run id: a server names its run id itself, and may name that of
/// another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerProcess {
    /// IP address and port at which it was reached, or the path of its unix socket.
    pub address: String,
    /// Run id; empty where it reports none.
    pub run_id: String,
}

impl ServerProcess {
    /// Returns the process behind a connection to an address.
    pub(crate) fn of(link: &Link, address: &Address, info: &Info) -> Self {
        Self::at(link.peer(), address, info.run_id().unwrap_or_default())
    }

    /// Returns the process with this run id behind a connection to an address; `peer`: the IP address that was connected to.
    pub fn at(peer: Option<IpAddr>, address: &Address, run_id: String) -> Self {
        let address = match (peer.map(|ip| ip.to_canonical()), address) {
            // Both loopback addresses are this machine.
            (Some(IpAddr::V6(ip)), Address::Tcp { port, .. }) if ip.is_loopback() => format!("127.0.0.1:{port}"),
            (Some(ip), Address::Tcp { port, .. }) => format!("{ip}:{port}"),
            _ => address.to_string(),
        };
        Self { address, run_id }
    }
}

/// Keeps the time between samples of servers, over all programs that share it. Errors are sentences.
pub trait SampleLimit: Debug + Send + Sync {
    /// Reserves a sample of a server for this estimate. Returns how long to wait where it was sampled a short time ago.
    fn reserve(&self, server: &ServerProcess) -> Result<Option<Duration>, String>;

    /// Ends a reservation. The next sample of the server has to wait for `wait`; zero: it was not sampled.
    fn release(&self, server: &ServerProcess, wait: Duration);
}

/// A reserved sample, which ends when it is dropped.
pub(super) struct Reservation {
    limit: Arc<dyn SampleLimit>,
    server: ServerProcess,
    /// How long the next sample has to wait.
    pub wait: Duration,
}

impl Reservation {
    /// Reserves a sample.
    ///
    /// # Errors
    /// The server was sampled a short time ago, or that is unknown.
    pub fn new(limit: &Arc<dyn SampleLimit>, server: ServerProcess, address: &Address) -> Result<Self, ShardError> {
        let refused = |sentence| Err(ShardError::Fatal(Failure::new(FailureKind::Refused, sentence)));
        match limit.reserve(&server) {
            Ok(None) => Ok(Self { limit: Arc::clone(limit), server, wait: Duration::ZERO }),
            Ok(Some(wait)) => refused(format!(
                "{address} is not sampled: it was sampled a short time ago; try again in {} s",
                wait.as_secs_f64().ceil()
            )),
            Err(cause) => refused(format!("when {address} was sampled last is unknown: {cause}")),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.limit.release(&self.server, self.wait);
    }
}

/// Returns how long to wait after a sample until the share has returned to what the server's cycle holds, which takes
/// `reversion` seconds; five minutes at least, and where it is unknown.
pub(crate) fn sample_interval(reversion: Option<f64>) -> Duration {
    let reversion = Duration::try_from_secs_f64(reversion.unwrap_or(0.0)).unwrap_or(MAX_SAMPLE_INTERVAL);
    reversion.clamp(MIN_SAMPLE_INTERVAL, MAX_SAMPLE_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_the_same_by_name_and_by_address_and_another_one_on_another_port() {
        let at = |peer: &str, host: &str, port| {
            ServerProcess::at(peer.parse().ok(), &Address::tcp(host, port), "r".into()).address
        };
        let [named, numbered] = [at("10.0.0.7", "cache.example", 6379), at("10.0.0.7", "10.0.0.7", 6379)];
        assert_eq!((named.as_str(), &named), ("10.0.0.7:6379", &numbered));
        assert_eq!(at("::ffff:10.0.0.7", "cache.example", 6379), named);
        assert_eq!(at("::1", "localhost", 1), at("127.0.0.1", "127.0.0.1", 1));
        assert_ne!(at("10.0.0.7", "cache.example", 6380), named);
        assert_eq!(at("", "cache.example", 6379), "cache.example:6379", "the address where no other is known");
    }

    #[test]
    fn the_next_sample_waits_for_the_share_to_return() {
        assert_eq!(sample_interval(Some(1_000.0)), Duration::from_secs(1_000));
        for (reversion, interval) in [
            (None, MIN_SAMPLE_INTERVAL),
            (Some(2.0), MIN_SAMPLE_INTERVAL),
            (Some(f64::NAN), MAX_SAMPLE_INTERVAL),
            (Some(1e300), MAX_SAMPLE_INTERVAL),
        ] {
            assert_eq!(sample_interval(reversion), interval, "{reversion:?}");
        }
    }
}
