//! Restores the servers of one instance from the records in the database and in `restore.json`, whether a worker runs or not, and
//! forgets servers that are gone.

use std::time::{Duration, Instant};

use keysweep_engine::{
    BaselineRecord, BaselineRegistry, Change, HoldLevel, HoldPolicy, Reservation, RestoreOutcome, Restored,
    ServerProcess, Stop, restore,
};
use serde_json::json;

use super::{HoldError, NotReserved, RestoreFile, changes::RecordedChange, file::merged};
use crate::{
    instances::Instances,
    model::{AuditEvent, HoldLease, Instance},
    random::new_id,
    store::Store,
};

/// How long a worker that holds the instance has to restore its servers itself.
const WORKER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which it is read again whether the worker has.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long to try to reach each server.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Which records are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// None: a value that comes back later is still known.
    Nothing,
    /// Those of restored servers: values that are found later count as their own.
    Restored,
    /// Also those of servers that cannot be reached, which are gone for good.
    Everything,
}

impl Forget {
    /// Returns what two options ask for: the records of restored servers, or all.
    pub fn of(restored: bool, everything: bool) -> Self {
        match (everything, restored) {
            (true, _) => Self::Everything,
            (false, true) => Self::Restored,
            (false, false) => Self::Nothing,
        }
    }

    /// Whether a server counts as gone for good. One that answers, or that another holder has, does not.
    pub fn gives_up(self, restored: &Restored) -> bool {
        self == Self::Everything && restored.is_unreached()
    }

    /// Whether a server is still to be restored.
    pub fn leaves(self, restored: &Restored) -> bool {
        !restored.is_done() && !self.gives_up(restored)
    }
}

/// The servers of one instance that are to have their own settings again.
#[derive(Clone, Copy)]
pub struct Recovery<'a> {
    /// The store that has the records.
    pub store: &'a Store,
    /// The instances of that store.
    pub instances: &'a Instances,
    /// The file that has the records of this host.
    pub file: &'a RestoreFile,
    /// The instance.
    pub instance: &'a Instance,
    /// Name of the user, for the audit trail.
    pub by: Option<&'a str>,
}

/// Returns the records of the instance's servers, as a worker reads them.
///
/// # Errors
/// The store failed, or knows of no server while the file cannot be read.
pub(super) async fn records(
    store: &Store,
    file: &RestoreFile,
    instance: &Instance,
) -> Result<Vec<BaselineRecord>, HoldError> {
    let stored = store.baselines(&instance.id).await?;
    // Without a readable URL there is no target whose servers could be found.
    let target = instance.url.value().map(ToString::to_string).unwrap_or_default();
    let (known, _) = file.beside(stored, &target).map_err(HoldError::File)?;
    Ok(known)
}

/// A record, what became of its server, and the reservation of that one.
type Attempt = (BaselineRecord, Restored, Option<Reservation>);

/// Reserves a server in the file, and returns its record with what another process has recorded there meanwhile. A worker that has
/// lost its lease frees the server at the end of its round.
///
/// # Errors
/// Another process holds the server.
fn reserve(
    file: &RestoreFile,
    server: &ServerProcess,
    record: &BaselineRecord,
) -> Result<(Option<Reservation>, BaselineRecord), String> {
    let begun = Instant::now();
    let reservation = loop {
        match file.reserve(server) {
            Ok(reservation) => break Some(reservation),
            // The store has the records, and what becomes of them.
            Err(NotReserved::Folder { .. }) => break None,
            Err(NotReserved::Held { .. }) if begun.elapsed() < SERVER_TIMEOUT => std::thread::sleep(POLL_INTERVAL),
            Err(refusal @ NotReserved::Held { .. }) => return Err(refusal.to_string()),
        }
    };
    let filed = file.find(&record.address).ok().flatten();
    let known = merged(vec![record.clone()], filed.into_iter().collect()).into_iter().next();
    Ok((reservation, known.unwrap_or_else(|| record.clone())))
}

impl Recovery<'_> {
    /// Sets the level observe, lets a worker that holds the instance restore its servers, and restores what is left. Returns what
    /// became of each server.
    ///
    /// # Errors
    /// The store failed, the connection settings cannot be read, or the store knows of no server and the file cannot be read. Servers
    /// that were reached are restored nevertheless.
    pub async fn run(self, forget: Forget) -> Result<Vec<Restored>, HoldError> {
        let before = super::get(self.store, self.instance).await?;
        let policy = HoldPolicy { level: HoldLevel::Observe, ..before.policy };
        super::set(self.store, self.instance, policy, self.by).await?;
        let servers = records(self.store, self.file, self.instance).await?.len();
        let lease = self.lease(servers).await?;
        let result = self.restore(&lease, forget).await;
        let changed = result.as_ref().ok().map(|all| all.iter().any(|restored| forget.leaves(restored)));
        self.store.release_hold(&lease, changed).await?;
        result
    }

    /// Waits until no worker holds the instance any more, and takes the lease. A worker that cannot reach its servers loses it.
    async fn lease(self, servers: usize) -> Result<HoldLease, HoldError> {
        let (owner, begun) = (new_id(), Instant::now());
        let time = SERVER_TIMEOUT * u32::try_from(servers).unwrap_or(u32::MAX).saturating_add(3);
        loop {
            let is_takeover = begun.elapsed() >= WORKER_TIMEOUT;
            if let Some(lease) = self.store.claim_hold(&self.instance.id, &owner, time, is_takeover).await? {
                return Ok(lease);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn restore(self, lease: &HoldLease, forget: Forget) -> Result<Vec<Restored>, HoldError> {
        let mut all = Vec::new();
        // A worker may have restored some meanwhile.
        let records = records(self.store, self.file, self.instance).await?;
        if records.is_empty() {
            return Ok(all);
        }
        for (record, restored, _reservation) in self.attempt(records, forget).await? {
            if record.is_restored && restored.run_id.is_none() && forget.leaves(&restored) {
                // It had its own settings when it was reached last.
                continue;
            }
            self.record(lease, record, &restored, forget).await?;
            all.push(restored);
        }
        Ok(all)
    }

    /// Tries to restore the servers of some records. Returns what became of each, with its record as it is known now.
    async fn attempt(self, records: Vec<BaselineRecord>, forget: Forget) -> Result<Vec<Attempt>, HoldError> {
        let (target, dialer) = match self.instances.connect_to(self.instance) {
            Ok(connection) => connection,
            // Without a readable URL no server will ever be reached.
            Err(error) if forget == Forget::Everything && self.instance.url.value().is_err() => {
                let unreached = |record: BaselineRecord| {
                    let cause = RestoreOutcome::Unreached(format!("{}: {error}", record.address));
                    let restored = Restored::without(&record.address, cause);
                    (record, restored, None)
                };
                return Ok(records.into_iter().map(unreached).collect());
            }
            Err(error) => return Err(error.into()),
        };
        let file = self.file.clone();
        let attempts = tokio::task::spawn_blocking(move || {
            let attempt = |record: BaselineRecord| {
                let stop = Stop::new().within(Some(SERVER_TIMEOUT));
                let (restored, reserved) =
                    restore(&*dialer, &target, &record.address, &stop, |server| reserve(&file, server, &record));
                // Another holder may have reached a server that is given up, and know what it wrote from this record alone.
                let reserved = match forget.gives_up(&restored) {
                    true => reserve(&file, &record.process(), &record).map(Some),
                    false => Ok(reserved),
                };
                match reserved {
                    Ok(reserved) => {
                        let (reservation, record) = reserved.unwrap_or((None, record));
                        (record, restored, reservation)
                    }
                    Err(cause) => {
                        let refused = RestoreOutcome::Refused(format!("{}: {cause}", record.address));
                        let restored = Restored::without(&record.address, refused);
                        (record, restored, None)
                    }
                }
            };
            records.into_iter().map(attempt).collect()
        });
        Ok(attempts.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
    }

    /// Records what became of a server.
    async fn record(
        self,
        lease: &HoldLease,
        record: BaselineRecord,
        restored: &Restored,
        forget: Forget,
    ) -> Result<(), HoldError> {
        if let RestoreOutcome::Restored { from, to } = restored.outcome {
            let (address, reason) = (record.address.clone(), "restored by an administrator".to_owned());
            let change = Change { address, from, to, reason, is_restore: true };
            RecordedChange::new(self.instance, self.by, &change).save(self.store).await?;
        }
        let is_forgotten = match restored.is_done() {
            true => forget != Forget::Nothing,
            false => !forget.leaves(restored),
        };
        if is_forgotten {
            let (own, project) = (record.baseline.setting(), Some(self.instance.project_id.as_str()));
            let event =
                AuditEvent { project_id: project, actor: self.by, action: "hold.forget", subject: &self.instance.id };
            let detail = json!({ "server": record.address, "own": own, "restored": restored.is_done() });
            self.store.with_audit(vec![event.entry(&detail)]).forget_baseline(lease, &record.address).await?;
        }
        let record = match (restored.is_done(), is_forgotten) {
            (true, _) => restored.recorded(&record),
            // The file still knows what was written, should the server come back: as another process, which nothing waits for.
            (false, true) => BaselineRecord { is_restored: true, run_id: String::new(), ..record },
            (false, false) => return Ok(()),
        };
        if !is_forgotten {
            self.store.save_baseline(lease, &record).await?;
        }
        let recorded = match self.file.find(&record.address) {
            Ok(None) => Ok(()),
            Ok(Some(_)) if is_forgotten && restored.is_done() => self.file.remove(&record.address),
            Ok(Some(_)) => self.file.save(&record),
            Err(cause) => Err(cause),
        };
        if let Err(cause) = recorded {
            tracing::warn!(%cause, "restore.json still says that the server is to be restored");
        }
        Ok(())
    }
}
