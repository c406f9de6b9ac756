//! Everything that is kept, in SQLite or PostgreSQL: one `Store` whose verbs stand in a file for each kind of row.
//!
//! Every verb is one transaction, none waits for a server, and none that changes a running task works without the task's
//! lease. A verb of one statement reads through [`Store::reader`], one of several through [`Store::snapshot`]; a verb that
//! writes begins with [`Store::begin`] and ends with [`Store::commit`], which also inserts the audit entries of
//! [`Store::with_audit`]. Without a commit nothing is kept.
//!
//! On SQLite one connection writes. On PostgreSQL verbs run at READ COMMITTED: a statement sees what was committed before it
//! began, and a row that it waits for as it is when the wait ends, but only that row. So a verb first locks the rows that it
//! relies on, and reads them afterwards. Instances are locked first, then schedules, leases, tasks, everywhere, so that
//! verbs wait for each other and never in a circle; a claim, which goes by leases, waits for none of them. Claims queue at a
//! lock of their own: which scans run, and where, is in many rows.

mod access_keys;
mod audit;
mod auto_scan;
mod claims;
mod clock;
mod db;
mod error;
mod health;
mod instances;
mod lazyfree;
mod leases;
mod merge;
mod overview;
mod projects;
mod schedule;
mod secrets;
mod tasks;
mod timing;
mod tokens;
mod users;

use std::{path::Path, sync::Arc};

use jiff::Timestamp;

pub use self::{
    audit::AuditPage,
    claims::{Claim, MAX_ATTEMPTS},
    clock::Clock,
    db::{Import, OpenError, backup},
    error::StoreError,
    leases::{Beat, Ending, Pulse},
    overview::{InstanceOverview, Overview},
    schedule::{DuePlans, Plan},
    secrets::{Resealed, SecretAt, SecretField},
    tasks::{Created, Page, PageRequest},
    timing::{QueryMetrics, Timing},
};
use self::{
    db::{Mode, Pool, Session, sql},
    health::WriteHealth,
    timing::Meter,
};
use crate::model::AuditEntry;

/// The store. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    clock: Clock,
    timing: Timing,
    health: WriteHealth,
    /// Inserted with the next change.
    audit: Arc<[AuditEntry]>,
}

impl Store {
    /// Opens the store in this SQLite file, and creates the file (mode 0600) and its folder (0700) when they are absent.
    pub async fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::new(Pool::open_sqlite(path).await?))
    }

    /// Opens the store in the PostgreSQL database that this URL (`postgres://user:password@host:port/name`) names.
    pub async fn open_postgres(url: &str) -> Result<Self, OpenError> {
        Ok(Self::new(Pool::open_postgres(url).await?))
    }

    fn new(pool: Pool) -> Self {
        Self {
            pool,
            clock: Clock::default(),
            timing: Timing::default(),
            health: WriteHealth::default(),
            audit: Arc::default(),
        }
    }

    /// Returns the same store with another clock, for tests.
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self { clock, ..self.clone() }
    }

    /// Returns a handle whose next write also inserts these audit entries in the same transaction. A write that fails or has
    /// nothing to do inserts none. `seq` is assigned by the store.
    pub fn telling(&self, entries: Vec<AuditEntry>) -> Self {
        Self { audit: entries.into(), ..self.clone() }
    }

    /// Returns how long this store's verbs have taken in this process.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Checks that the database answers and, after a failed write, that it takes writes again; used by `/readyz`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sql("SELECT 1 FROM project LIMIT 1").optional(&mut self.reader().await?).await?;
        self.health.settle(self.try_to_write()).await
    }

    async fn try_to_write(&self) -> Result<(), StoreError> {
        let tried = async {
            let mut tx = self.begin().await?;
            tx.try_to_write().await?;
            tx.commit().await
        };
        match tried.await {
            // A right that was taken away, or a rule against new tables: it does not tell whether a task could be created.
            Err(error @ StoreError::Internal(_)) => {
                tracing::warn!(%error, "cannot check whether the database takes writes");
                Ok(())
            }
            other => other,
        }
    }

    /// Closes all connections once the verbs under way have ended. Later verbs are `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Opens a session for one statement that reads.
    async fn reader(&self) -> Result<Session, StoreError> {
        Session::open(&self.pool, Mode::Read, Meter::new(&self.timing.read, None)).await
    }

    /// Opens a session whose statements read the same state of the database.
    async fn snapshot(&self) -> Result<Session, StoreError> {
        Session::open(&self.pool, Mode::Snapshot, Meter::new(&self.timing.read, None)).await
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> Result<Session, StoreError> {
        Session::open(&self.pool, Mode::Write, Meter::new(&self.timing.write, Some(&self.health))).await
    }

    /// Inserts the handle's audit entries and commits.
    async fn commit(&self, mut tx: Session) -> Result<(), StoreError> {
        for entry in &*self.audit {
            audit::insert(&mut tx, entry).await?;
        }
        tx.commit().await
    }

    /// Returns the time that a verb uses.
    async fn now(&self, session: &mut Session) -> Result<Timestamp, StoreError> {
        match &self.clock {
            Clock::Database => session.now().await,
            Clock::Manual(micros) => db::time("now", micros.load(std::sync::atomic::Ordering::Relaxed)),
        }
    }
}

/// Returns the time after `duration`, or the latest one that there is.
fn after(time: Timestamp, duration: std::time::Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
