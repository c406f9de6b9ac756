//! An instance with what the list sorts and selects by: its newest task, and how much of it could be reclaimed.

use jiff::Timestamp;

use super::status::has_failed;
use crate::model::{Instance, LatestShare, Task};

/// An instance of the list.
pub(super) struct Listed {
    pub(super) instance: Instance,
    /// Its newest task, if it has any.
    pub(super) newest: Option<Task>,
    /// Its stale keys; `None`: nothing is known.
    pub(super) stale: Option<Stale>,
}

/// Stale keys of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stale {
    /// As a share of all keys, 0–1.
    pub(super) share: f64,
    /// Their bytes; `None`: unknown.
    pub(super) bytes: Option<u64>,
    /// Whether they are about what a scan left, or what the server's own average suggests, and no measurement.
    pub(super) is_approximate: bool,
}

impl Listed {
    pub(super) fn new(instance: Instance, newest: Option<Task>, latest: Option<LatestShare>) -> Self {
        let stale = Stale::new(&instance, latest);
        Self { instance, newest, stale }
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        self.stale.and_then(|stale| stale.bytes)
    }

    pub(super) fn share(&self) -> Option<f64> {
        self.stale.map(|stale| stale.share)
    }

    /// Returns when its last scan finished, or that the scan has not finished.
    pub(super) fn last_scan(&self) -> Option<Timestamp> {
        let newest = self.newest.as_ref()?;
        Some(newest.finished_at.unwrap_or(newest.created_at))
    }

    pub(super) fn is_active(&self) -> bool {
        self.newest.as_ref().is_some_and(|task| task.status.is_active())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.newest.as_ref().is_some_and(has_failed)
    }
}

impl Stale {
    /// Returns what the latest estimate measured or a later scan left, else what the server's own average suggests.
    pub(super) fn new(instance: &Instance, latest: Option<LatestShare>) -> Option<Self> {
        let stats = instance.stats.as_ref();
        let bytes = |share: f64| stats.map(|stats| (share * stats.used_memory as f64) as u64);
        match latest {
            Some(LatestShare { share, bytes, is_measured: true, .. }) => {
                Some(Self { share, bytes, is_approximate: false })
            }
            Some(LatestShare { share, .. }) => Some(Self { share, bytes: bytes(share), is_approximate: true }),
            None => {
                let share = (stats?.stale_keys? as f64 / stats?.keys.max(1) as f64).min(1.0);
                Some(Self { share, bytes: bytes(share), is_approximate: true })
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use keysweep_engine::Inspection;

    use super::*;
    use crate::model::{InstanceStats, Reason, ScanType, Status};

    /// Returns a task that was created and has finished at the beginning of 1970.
    pub(in crate::console) fn task(status: Status, reason: Option<Reason>) -> Task {
        Task {
            seq: 1,
            id: "t".into(),
            project_id: "p".into(),
            instance_id: "i".into(),
            status,
            reason,
            reason_detail: None,
            scan_type: ScanType::Manual,
            triggered_by: None,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: (!status.is_active()).then_some(Timestamp::UNIX_EPOCH),
            due_at: None,
            cancel_requested: false,
            timeout: Duration::ZERO,
            used: Duration::ZERO,
            attempts: 0,
            keys_per_second: None,
            reclaimed: 0,
            scanned: 0,
            exact: true,
        }
    }

    #[test]
    fn the_share_is_measured_or_what_a_scan_left_or_the_average_of_the_server() {
        let url = "redis://cache.example".to_owned();
        let server = Inspection { keys: 1_000, stale_keys: Some(100), used_memory: 50_000, ..Inspection::default() };
        let stats = Some(InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH });
        let instance =
            Instance { stats, ..Instance::new("i".into(), "p".into(), "n".into(), url, Timestamp::UNIX_EPOCH) };
        let measured = LatestShare {
            share: 0.25,
            low: None,
            high: None,
            bytes: Some(9_000),
            at: Timestamp::UNIX_EPOCH,
            is_measured: true,
        };
        let left = LatestShare { share: 0.02, bytes: None, is_measured: false, ..measured };
        let stale = |share, bytes, is_approximate| Some(Stale { share, bytes, is_approximate });
        assert_eq!(Stale::new(&instance, Some(measured)), stale(0.25, Some(9_000), false));
        let unknown = LatestShare { bytes: None, ..measured };
        assert_eq!(Stale::new(&instance, Some(unknown)), stale(0.25, None, false));
        assert_eq!(Stale::new(&instance, Some(left)), stale(0.02, Some(1_000), true), "not the average of the server");
        assert_eq!(Stale::new(&instance, None), stale(0.1, Some(5_000), true));
        let unpolled = Instance { stats: None, ..instance };
        assert_eq!(Stale::new(&unpolled, None), None);
        assert_eq!(Stale::new(&unpolled, Some(left)), stale(0.02, None, true));
    }
}
