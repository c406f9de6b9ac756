//! What a holder needs of the program around it.

use std::time::Duration;

use super::baseline::BaselineRegistry;
use crate::{estimate::ServerProcess, stale::CycleSetting, target::Address};

/// The right to write to a server process, which one holder has at a time. Ends on drop.
pub type Reservation = Box<dyn Send + Sync>;

/// What a holder needs of the program around it.
pub trait HolderHost: Sync {
    /// Returns where baselines are recorded.
    fn registry(&self) -> &dyn BaselineRegistry;

    /// Whether changes are this process's to make, and can be recorded.
    fn may_write(&self) -> bool;

    /// Whether no other process holds the servers, as far as can be found out.
    fn is_ours(&self) -> bool {
        true
    }

    /// Reserves the writes of a server process for one holder, until what is returned is dropped. `is_restore`: for a restore
    /// alone, which goes on where it cannot be found out whether another holder has them.
    ///
    /// # Errors
    /// The cause: another holder has them, or they cannot be reserved.
    fn reserve(&self, _server: &ServerProcess, _is_restore: bool) -> Result<Reservation, String> {
        Ok(Box::new(()))
    }

    /// Confirms a reservation before a further write: it may have ended while this process could not renew it.
    ///
    /// # Errors
    /// The cause: another holder has the writes, or that is unknown.
    fn confirm(&self, _server: &ServerProcess) -> Result<(), String> {
        Ok(())
    }

    /// Starts a scan of one primary, which has a batch of stale keys.
    fn scan(&self, address: &Address);

    /// Whether that scan runs.
    fn is_scanning(&self, address: &Address) -> bool;

    /// Whether that scan waits for its turn.
    fn is_scan_queued(&self, _address: &Address) -> bool {
        false
    }

    /// Reserves a sample of a server; `false`: it was sampled a short time ago, for another purpose. `is_urgent`: this holder has
    /// not sampled it since it began, since a scan, or since a setting or the expiry rate changed; such a sample does not wait, and
    /// reserves nothing.
    fn reserve_sample(&self, _server: &ServerProcess, _is_urgent: bool) -> bool {
        true
    }

    /// Receives that a server was sampled, and how long samples for other purposes have to wait; zero: it was not sampled.
    fn sampled(&self, _server: &ServerProcess, _wait: Duration) {}

    /// Receives each change, for an audit trail.
    fn changed(&self, change: &Change);
}

/// A change of one server's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The server.
    pub address: Address,
    /// Its settings before.
    pub from: CycleSetting,
    /// Its settings now.
    pub to: CycleSetting,
    /// Why.
    pub reason: String,
    /// Whether these are its own settings.
    pub is_restore: bool,
}
