//! What a holder needs of the service: records in the store and in the file, scans as tasks, changes in the audit trail.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use keysweep_engine::{
    Address, BaselineRecord, BaselineRegistry, Change, HolderHost, MIN_SAMPLE_INTERVAL, Reservation, ServerProcess,
};
use tokio::runtime::Handle;

use super::{Holds, LEASE, NotReserved, changes::RecordedChange, file::merged};
use crate::{
    model::{HOLD, HoldLease, Instance, Status},
    store::{HoldRenewal, ServerReservation},
};

/// How long a worker may change servers after the store answered last.
const STORE_TIMEOUT: Duration = Duration::from_secs(600);

/// Time after which it is read again whether a task scans the instance.
const SCANNING_INTERVAL: Duration = Duration::from_secs(1);

/// The service around the holder of one instance, for one round.
pub(super) struct Host {
    pub holds: Holds,
    pub lease: HoldLease,
    pub instance: Instance,
    /// The holder calls from a blocking thread; the store runs in this runtime.
    pub runtime: Handle,
    /// When the lease was renewed last.
    pub renewed_at: Instant,
    /// State of the newest task of the instance, and when that was read: its servers, which may be hundreds, share the answer.
    pub newest: Mutex<Option<(Instant, Option<Status>)>>,
}

impl Host {
    fn newest(&self) -> Option<Status> {
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = known.filter(|(read_at, _)| read_at.elapsed() < SCANNING_INTERVAL);
        let (_, status) = *known.insert(recent.unwrap_or_else(|| {
            let newest = self.runtime.block_on(self.holds.tasks.newest(std::slice::from_ref(&self.instance)));
            (Instant::now(), newest.ok().and_then(|tasks| tasks.first().map(|task| task.status)))
        }));
        status
    }

    /// Logs why `restore.json` cannot be used, and returns a sentence without paths of this host for the users of the API.
    fn unusable(&self, cause: &str) -> String {
        tracing::warn!(instance_id = self.instance.id, cause, "restore.json cannot be used");
        "the worker cannot use its restore.json; its log says why".to_owned()
    }

    fn confirm_in_store(&self, server: &ServerProcess) -> Result<(), Refusal> {
        let reserved = self.runtime.block_on(self.holds.store.reserve_server(&self.lease, server));
        let holder = match reserved.map_err(|error| Refusal::Unknown(error.to_string()))? {
            ServerReservation::Reserved => return Ok(()),
            ServerReservation::Lost => "another worker holds this instance".to_owned(),
            // The name of another project's instance is not this one's to read.
            ServerReservation::Held { project_id, name } if project_id == self.instance.project_id => {
                format!("the instance {name} holds this server")
            }
            ServerReservation::Held { .. } => "an instance of another project holds this server".to_owned(),
        };
        Err(Refusal::Other(holder))
    }
}

/// Why the writes of a server were not reserved.
enum Refusal {
    /// Another instance or worker has them.
    Other(String),
    /// The store does not answer.
    Unknown(String),
}

impl Refusal {
    fn into_sentence(self) -> String {
        match self {
            Self::Other(sentence) | Self::Unknown(sentence) => sentence,
        }
    }
}

/// Whether the store has answered lately.
fn is_recent(renewed_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(renewed_at) < STORE_TIMEOUT
}

impl BaselineRegistry for Host {
    fn unrestored(&self, target: &str) -> Result<Vec<BaselineRecord>, String> {
        let stored = self.runtime.block_on(self.holds.store.baselines(&self.lease.instance_id));
        let stored = stored.map_err(|error| error.to_string())?;
        let (known, unread) = self.holds.file.beside(stored, target).map_err(|cause| self.unusable(&cause))?;
        if let Some(cause) = unread {
            self.unusable(&cause);
        }
        Ok(known.into_iter().filter(|record| !record.is_restored).collect())
    }

    fn find(&self, address: &Address) -> Result<Option<BaselineRecord>, String> {
        let stored = self.runtime.block_on(self.holds.store.baseline(&self.lease.instance_id, address));
        let stored = stored.map_err(|error| error.to_string())?;
        let filed = match (self.holds.file.find(address), &stored) {
            (Ok(filed), _) => filed,
            (Err(_), Some(_)) => None,
            (Err(cause), None) => return Err(self.unusable(&cause)),
        };
        Ok(merged(stored.into_iter().collect(), filed.into_iter().collect()).pop())
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        let saved = self.runtime.block_on(self.holds.store.save_baseline(&self.lease, record));
        match saved.map_err(|error| error.to_string())? {
            true => self.holds.file.save(record).map_err(|cause| self.unusable(&cause)),
            false => Err("another worker holds the instance".into()),
        }
    }
}

impl HolderHost for Host {
    fn registry(&self) -> &dyn BaselineRegistry {
        self
    }

    fn may_write(&self) -> bool {
        is_recent(self.renewed_at, Instant::now())
    }

    /// Other instances are found by the store, which knows their names, and `keysweep hold` on this host by the file.
    fn reserve(&self, server: &ServerProcess, is_restore: bool) -> Result<Reservation, String> {
        let reserved = match self.holds.file.reserve(server) {
            Err(refusal @ NotReserved::Folder { .. }) => {
                let cause = self.unusable(&refusal.to_string());
                // A restore is recorded in the store. For any other write the server stays free for workers of other hosts.
                if is_restore { Ok(Box::new(()) as Reservation) } else { return Err(cause) }
            }
            reserved => reserved,
        };
        match self.confirm_in_store(server) {
            Err(Refusal::Unknown(_)) if is_restore => {}
            confirmed => confirmed.map_err(Refusal::into_sentence)?,
        }
        reserved.map_err(|_| "another keysweep on the worker's host holds this server".to_owned())
    }

    fn confirm(&self, server: &ServerProcess) -> Result<(), String> {
        self.confirm_in_store(server).map_err(Refusal::into_sentence)
    }

    /// While the store does not answer, the settings are restored all the same.
    fn is_ours(&self) -> bool {
        let renewed = self.runtime.block_on(self.holds.store.renew_hold(&self.lease, LEASE, None));
        !matches!(renewed, Ok(HoldRenewal::Lost))
    }

    fn scan(&self, _: &Address) {
        let created = self.runtime.block_on(self.holds.tasks.submit(&self.instance, Some(HOLD.into())));
        match created {
            Ok(task) => tracing::info!(instance_id = self.instance.id, task_id = task.id, "a batch is scanned"),
            Err(error) => {
                tracing::warn!(instance_id = self.instance.id, %error, "a batch of stale keys cannot be scanned");
            }
        }
    }

    /// Whether any task scans the instance: what it reclaims counts as expired.
    fn is_scanning(&self, _: &Address) -> bool {
        self.newest() == Some(Status::Running)
    }

    /// Whether a task waits behind others, for a place or for its maintenance window.
    fn is_scan_queued(&self, _: &Address) -> bool {
        self.newest() == Some(Status::Waiting)
    }

    fn reserve_sample(&self, server: &ServerProcess, is_urgent: bool) -> bool {
        let holder = Some(self.instance.id.as_str());
        let reserve = self.holds.store.reserve_sample(server, MIN_SAMPLE_INTERVAL, holder);
        is_urgent || matches!(self.runtime.block_on(reserve), Ok(None))
    }

    fn sampled(&self, server: &ServerProcess, wait: Duration) {
        let holder = Some(self.instance.id.as_str());
        if let Err(error) = self.runtime.block_on(self.holds.store.set_next_sample(server, wait, holder)) {
            tracing::debug!(instance_id = self.instance.id, %error, "a sample is missing from the store");
        }
    }

    fn changed(&self, change: &Change) {
        let Change { to, reason, is_restore, .. } = change;
        tracing::info!(
            instance_id = self.instance.id,
            effort = to.effort,
            hz = to.hz,
            reason,
            "{}",
            if *is_restore { "settings restored" } else { "settings changed" }
        );
        self.holds.counts.hold_written(&self.instance.id);
        let change = RecordedChange::new(&self.instance, Some(HOLD), change);
        self.runtime.block_on(self.holds.changes.record(&self.holds.store, change));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keysweep_engine::{Baseline, HoldLevel, HoldPolicy, Parameter, RecordedTimes, stale::CycleSetting};

    use super::*;
    use crate::{
        hold::RestoreFile,
        instances::{AllowedTargets, Instances},
        model::{Project, now},
        secrets::Vault,
        store::Store,
        task::Tasks,
    };

    fn record(port: u16, recorded_at: u64, effort: u32) -> BaselineRecord {
        let mut baseline = Baseline::of(CycleSetting { effort: 1, hz: 10 });
        baseline.add(Parameter::Effort, effort);
        BaselineRecord {
            target: format!("redis://one:{port}"),
            address: Address::tcp("one", port),
            run_id: "abc".into(),
            is_restored: false,
            times: RecordedTimes { recorded_at, ..RecordedTimes::default() },
            baseline,
        }
    }

    /// Two instances of one worker share its store and its folder.
    #[tokio::test]
    async fn a_server_of_another_instance_of_the_worker_is_refused_with_the_name_of_that_instance_and_no_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open_sqlite(&folder.path().join("keysweep.db")).await.expect("a store");
        let vault = Vault::of_store(&store, &folder.path().join("keysweep.key")).await.expect("a vault");
        let instances = Instances::new(store.clone(), Arc::new(vault), AllowedTargets::default());
        let file = RestoreFile::in_data(folder.path());
        let holds = Holds::new(store.clone(), instances, Tasks::new(store.clone()), file.clone());
        let project = Project { id: "a".repeat(32), name: "shop".into(), created_at: now() };
        store.add_project(&project).await.expect("added");
        let policy = HoldPolicy { level: HoldLevel::Hold, ..HoldPolicy::default() };
        let mut hosts = Vec::new();
        for name in ["cache", "other"] {
            let id = project.id.replace('a', &name[..1]);
            let instance = Instance::new(id, project.id.clone(), name.into(), "redis://one".into(), now());
            store.add_instance(&instance).await.expect("added");
            store.set_hold(&instance.id, &policy).await.expect("set");
            let lease = store.claim_holds("worker", LEASE, 1, 9).await.expect("claimed").remove(0);
            let (holds, runtime) = (holds.clone(), Handle::current());
            hosts.push(Host { holds, lease, instance, runtime, renewed_at: Instant::now(), newest: Mutex::default() });
        }
        let (first, second) = (hosts.remove(0), hosts.remove(0));
        let server = ServerProcess { address: "10.0.0.5:6379".into(), run_id: "abc".into() };
        let answers = tokio::task::spawn_blocking(move || {
            let refused = |answer: Result<Reservation, String>| answer.err().unwrap_or_default();
            let reservation = first.reserve(&server, false).expect("reserved");
            let of_instance = refused(second.reserve(&server, false));
            drop(reservation);
            let _foreground = file.reserve(&server).expect("reserved");
            (of_instance, refused(first.reserve(&server, false)))
        });
        let answers = answers.await.expect("no panic");
        let expected =
            ("the instance cache holds this server", "another keysweep on the worker's host holds this server");
        assert_eq!((answers.0.as_str(), answers.1.as_str()), expected);
        store.close().await;
    }

    #[test]
    fn nothing_is_written_once_the_store_was_away_for_ten_minutes() {
        let renewed_at = Instant::now();
        assert!(is_recent(renewed_at, renewed_at + STORE_TIMEOUT - Duration::from_secs(1)));
        assert!(!is_recent(renewed_at, renewed_at + Duration::from_secs(600)));
    }

    /// What `keysweep hold` wrote in the foreground must not be taken for the server's own afterwards.
    #[test]
    fn what_the_file_alone_has_recorded_counts_as_written() {
        let stored = vec![record(1, 5, 4), record(2, 5, 4)];
        let found = merged(stored, vec![record(1, 9, 7), record(3, 1, 2)]);
        let ports: Vec<_> = found.iter().map(|record| record.address.to_string()).collect();
        assert_eq!(ports, ["one:1", "one:2", "one:3"]);
        assert_eq!((found[0].times.recorded_at, &found[0].baseline.effort.written), (9, &vec![4, 7]));
    }
}
