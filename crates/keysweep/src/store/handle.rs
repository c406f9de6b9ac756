//! The handle through which every verb goes: the connections, the clock, what is measured, and the audit entries.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    clock::{Clock, ClockDifference},
    db::{self, Access, DbSession, Import, OpenError, Pool, sql},
    error::StoreError,
    health::WriteHealth,
    timing::{Meter, Timing},
};
use crate::model::AuditEntry;

/// Requests that write at a time, or wait for their turn to. A heartbeat waits behind that many at most: about half a second
/// where a commit takes 17 ms.
const REQUESTS: usize = 32;
/// How long a request waits to be one of them.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The store. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    clock: Clock,
    timing: Timing,
    health: WriteHealth,
    /// Places of requests that write.
    requests: Arc<Semaphore>,
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
            requests: Arc::new(Semaphore::new(REQUESTS)),
            audit: Arc::default(),
        }
    }

    /// Returns the same store with another clock, for tests.
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self { clock, ..self.clone() }
    }

    /// Returns a handle whose next write also inserts these audit entries in the same transaction. A write that fails or has
    /// nothing to do inserts none. `seq` is assigned by the store.
    pub fn with_audit(&self, entries: Vec<AuditEntry>) -> Self {
        Self { audit: entries.into(), ..self.clone() }
    }

    /// Returns how long this store's verbs have taken in this process.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Checks that the database answers and, after a failed write, that it takes writes again; used by `/readyz`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.pool.check_file()?;
        if self.pool.check_log().is_err() {
            // Or the writing connection is being replaced, and its log with it. A trial tells.
            self.health.doubt();
        }
        if self.health.is_in_doubt() {
            // In a task of its own: a client that leaves does not end a trial, for the next one to begin another.
            let store = self.clone();
            let trial = tokio::spawn(async move { store.health.settle(store.try_to_write()).await });
            trial.await.map_err(|error| StoreError::Internal(error.to_string()))??;
        }
        sql("SELECT 1 FROM project LIMIT 1").optional(&mut self.reader().await?).await?;
        Ok(())
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

    /// Passes all rows of a SQLite store, as they are at one moment, to `take`: a table after those that it refers to, some
    /// hundred rows at a time, encrypted values as `\x` and hexadecimal digits. `Unavailable` while a worker holds a lease:
    /// what it writes next would be in one of the two databases only. Not bounded as other verbs are.
    pub async fn export(
        &self,
        take: impl AsyncFnMut(&str, Vec<Value>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.pool.export(take).await
    }

    /// Begins to copy rows into a PostgreSQL store; `None` when it has projects already.
    pub async fn import(&self) -> Result<Option<Import>, StoreError> {
        self.pool.import().await
    }

    /// Closes all connections once the verbs under way have ended. Later verbs are `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Returns how far this machine's clock is from the database's; `None`: it is the same clock, as with SQLite.
    pub async fn clock_difference(&self) -> Result<Option<ClockDifference>, StoreError> {
        if !self.pool.has_own_clock() {
            return Ok(None);
        }
        let mut session = self.reader().await?;
        let (before, begun) = (Timestamp::now(), Instant::now());
        let answered = self.now(&mut session).await?;
        let round_trip = begun.elapsed();
        let middle = before.as_microsecond().saturating_add(round_trip.as_micros() as i64 / 2);
        Ok(Some(ClockDifference { micros: middle.saturating_sub(answered.as_microsecond()), round_trip }))
    }

    /// Opens a session for one statement that reads.
    pub(super) async fn reader(&self) -> Result<DbSession, StoreError> {
        DbSession::open(&self.pool, Access::Read, Meter::new(&self.timing.read, None)).await
    }

    /// Opens a session whose statements read the same state of the database.
    pub(super) async fn snapshot(&self) -> Result<DbSession, StoreError> {
        DbSession::open(&self.pool, Access::Snapshot, Meter::new(&self.timing.read, None)).await
    }

    /// Begins a transaction that writes what a worker has to: no number of requests keeps it waiting.
    pub(super) async fn begin(&self) -> Result<DbSession, StoreError> {
        self.begin_with(self.write_meter(), None).await
    }

    /// Begins a transaction that writes for a request. `Busy` while too many requests write.
    pub(super) async fn begin_request(&self) -> Result<DbSession, StoreError> {
        let meter = self.write_meter();
        let place = tokio::time::timeout(REQUEST_TIMEOUT, Arc::clone(&self.requests).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or(StoreError::Busy)?;
        self.begin_with(meter, Some(place)).await
    }

    fn write_meter(&self) -> Meter {
        Meter::new(&self.timing.write, Some(&self.health))
    }

    async fn begin_with(&self, meter: Meter, place: Option<OwnedSemaphorePermit>) -> Result<DbSession, StoreError> {
        // What is written to a file that has been removed is lost.
        meter.note(self.pool.check_file())?;
        Ok(DbSession::open(&self.pool, Access::Write, meter).await?.with_place(place))
    }

    /// Inserts the handle's audit entries and commits.
    pub(super) async fn commit(&self, mut tx: DbSession) -> Result<(), StoreError> {
        for entry in &*self.audit {
            insert_audit_entry(&mut tx, entry).await?;
        }
        tx.commit().await
    }

    /// Returns the time that a verb uses.
    pub(super) async fn now(&self, session: &mut DbSession) -> Result<Timestamp, StoreError> {
        match &self.clock {
            Clock::Database => session.now().await,
            Clock::Manual(micros) => db::time("now", micros.load(Ordering::Relaxed)),
        }
    }
}

async fn insert_audit_entry(tx: &mut DbSession, entry: &AuditEntry) -> Result<(), StoreError> {
    sql("INSERT INTO audit (happened_at, project_id, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(entry.happened_at)
        .bind(entry.project_id.as_deref())
        .bind(entry.actor.as_deref())
        .bind(&entry.action)
        .bind(&entry.subject)
        .bind(entry.detail.as_deref())
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::SqlitePool;

    use super::*;
    use crate::model::Project;

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open_sqlite(&folder.path().join("store.db")).await.expect("a store")
    }

    async fn pragma(pool: &SqlitePool, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(pool).await.expect("a number")
    }

    fn pools(store: &Store) -> (&SqlitePool, &SqlitePool) {
        match &store.pool {
            Pool::Sqlite { writer, readers, .. } => (writer, readers),
            Pool::Postgres(_) => unreachable!("opened on SQLite"),
        }
    }

    #[tokio::test]
    async fn every_commit_is_written_through_and_references_are_kept() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        let (writer, _) = pools(&store);
        assert_eq!(pragma(writer, "PRAGMA synchronous").await, 2, "FULL");
        assert_eq!(pragma(writer, "PRAGMA foreign_keys").await, 1);
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(writer).await.expect("a mode");
        assert_eq!(journal, "wal");
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        sqlx::query("DELETE FROM project").execute(pools(&store).1).await.expect_err("read only");
    }

    #[tokio::test]
    async fn requests_wait_for_a_place_and_a_turn_and_workers_for_a_turn_alone() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        let places = Arc::clone(&store.requests).acquire_many_owned(REQUESTS as u32).await.expect("all places");
        let added = Project { id: "a".repeat(32), name: "a".into(), created_at: Timestamp::UNIX_EPOCH };
        let lease = Duration::from_secs(15);
        let (refused, claim) = tokio::join!(store.add_project(&added), store.claim("w", lease, 1));
        assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
        claim.expect("a worker's write waits for no request");
        drop(places);
        let Pool::Sqlite { turn, .. } = &store.pool else { unreachable!("opened on SQLite") };
        let turn = Arc::clone(turn).acquire_owned().await.expect("the turn");
        let late = store.add_project(&added).await;
        assert!(matches!(late, Err(StoreError::Busy)), "{late:?}");
        assert!(!store.health.is_in_doubt(), "a wait tells nothing about the database");
        drop(turn);
        store.add_project(&added).await.expect("its turn");
        assert_eq!(store.requests.available_permits(), REQUESTS, "places are given back");
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_leaves_nothing_half_done() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        let (writer, _) = pools(&store);
        // The one writing connection is told that there is no page left.
        let pages = pragma(writer, "PRAGMA page_count").await;
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(writer).await.expect("set");
        let project = |number: u32| {
            let id = format!("{number:032}");
            Project { name: id.repeat(30), id, created_at: Timestamp::UNIX_EPOCH }
        };
        let mut added = 0;
        let error = loop {
            match store.add_project(&project(added)).await {
                Ok(()) => added += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert_eq!(store.projects().await.expect("read").len(), added as usize);
        // Held by the connection that it was set on; the next one finds space again.
        store.add_project(&project(added)).await.expect("there is space again");
    }
}
