//! An instance with what the list sorts and selects by: its newest task, and how much of it could be reclaimed.

use jiff::Timestamp;

use super::status::has_failed;
use crate::model::{EstimateTotal, Instance, Status, Task};

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
    /// Whether they are what the server's own average suggests, and no measurement.
    pub(super) is_hint: bool,
}

impl Listed {
    pub(super) fn new(instance: Instance, newest: Option<Task>, estimate: Option<&EstimateTotal>) -> Self {
        let stale = Stale::new(&instance, newest.as_ref(), estimate);
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
    /// Returns the latest estimate, unless a scan has reclaimed its keys since; else what the server's own average suggests.
    fn new(instance: &Instance, newest: Option<&Task>, estimate: Option<&EstimateTotal>) -> Option<Self> {
        let scanned_at = newest.filter(|task| task.status == Status::Success).and_then(|task| task.finished_at);
        let measured = estimate.filter(|estimate| scanned_at.is_none_or(|at| at < estimate.taken_at));
        if let Some((total, share)) = measured.and_then(|estimate| Some((&estimate.total, estimate.total.share?))) {
            return Some(Self { share, bytes: total.bytes, is_hint: false });
        }
        let stats = instance.stats.as_ref()?;
        let share = (stats.stale_keys? as f64 / stats.keys.max(1) as f64).min(1.0);
        Some(Self { share, bytes: Some((share * stats.used_memory as f64) as u64), is_hint: true })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use keysweep_engine::{Finding, Inspection};

    use super::*;
    use crate::model::{InstanceStats, Reason, ScanType};

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
    fn an_estimate_counts_until_a_scan_and_the_average_of_the_server_after_it() {
        let url = "redis://cache.example".to_owned();
        let server = Inspection { keys: 1_000, stale_keys: Some(100), used_memory: 50_000, ..Inspection::default() };
        let stats = Some(InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH });
        let instance =
            Instance { stats, ..Instance::new("i".into(), "p".into(), "n".into(), url, Timestamp::UNIX_EPOCH) };
        let at = |second| Timestamp::from_second(second).expect("a time");
        let total = Finding { share: Some(0.25), bytes: Some(9_000), ..Finding::default() };
        let estimate = EstimateTotal { taken_at: at(10), total };
        let hint = Stale { share: 0.1, bytes: Some(5_000), is_hint: true };
        let measured = Stale { share: 0.25, bytes: Some(9_000), is_hint: false };
        assert_eq!(Stale::new(&instance, None, None), Some(hint));
        assert_eq!(Stale::new(&instance, None, Some(&estimate)), Some(measured));
        for (status, finished, expected) in
            [(Status::Success, 5, measured), (Status::Success, 15, hint), (Status::Failed, 15, measured)]
        {
            let task = Task { finished_at: Some(at(finished)), ..task(status, None) };
            assert_eq!(Stale::new(&instance, Some(&task), Some(&estimate)), Some(expected), "{status} at {finished}");
        }
        let unknown = EstimateTotal { total: Finding::default(), ..estimate };
        assert_eq!(Stale::new(&instance, None, Some(&unknown)), Some(hint), "an estimate without a share");
        assert_eq!(Stale::new(&Instance { stats: None, ..instance }, None, Some(&unknown)), None);
    }
}
