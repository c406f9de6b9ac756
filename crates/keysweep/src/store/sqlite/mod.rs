//! The store in one SQLite file: for a single machine, and the default.
//!
//! One connection writes, so that writers queue here, in order, and not at SQLite's lock; others read beside it, which
//! WAL allows. Every write begins with BEGIN IMMEDIATE: a transaction that reads first and turns into a writer later
//! is refused at once when another process has written in between.

mod access;
mod auto_scan;
mod copy;
mod fault;
mod instance;
mod lazyfree;
mod lease;
mod open;
mod people;
mod row;
mod schedule;
mod secrets;
mod survey;
mod task;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{SqliteConnection, SqlitePool};

pub use self::{copy::backup, open::OpenError};
use self::{fault::Fault, row::micros};
use super::{
    AuditPage, Beat, Claim, Created, DuePlans, Ending, LazyFreeHolders, Now, Overview, Page, PageRequest, People, Plan,
    Pulse, Resealed, SecretAt, Secrets, SharedStore, Store, StoreError, Survey, Timetable, Timing, doubt::Doubt,
};
use crate::model::{
    AccessKey, AuditEntry, AutoScan, Facts, Grant, Instance, KeyHolder, LazyFreeHold, Lease, NewTask, Project, Role,
    Sealed, Task, TaskDetail, Token, TokenHolder, User, UserRoles,
};

/// How long a verb may take, waiting for its turn included.
const PATIENCE: Duration = Duration::from_secs(3);

/// A store in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    timing: Timing,
    /// What the audit trail is told of the next change.
    told: Arc<[AuditEntry]>,
    /// A write was refused, for want of space or of the lock, since it was last found out whether one goes through.
    doubt: Doubt,
}

/// What is written to find out whether the file takes writes: more than a create, so that one fits wherever this does.
const TRIAL: &str = "CREATE TABLE trial AS SELECT zeroblob(131072) AS filler";

impl SqliteStore {
    async fn write<T>(
        &self,
        verb: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.write_and_tell(verb, |_| true).await
    }

    /// For a verb that may find nothing to do: the audit trail tells of what was done only.
    async fn write_and_tell<T>(
        &self,
        verb: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Fault>,
        is_done: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let done = self
            .timing
            .write
            .note(bounded(async {
                let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
                let outcome = verb(&mut transaction).await?;
                if is_done(&outcome) {
                    for entry in &*self.told {
                        access::add_audit(&mut transaction, entry).await?;
                    }
                }
                transaction.commit().await?;
                Ok(outcome)
            }))
            .await;
        self.doubt.note(done)
    }

    /// Writes something for nobody, which is gone again at the end.
    async fn try_to_write(&self) -> Result<(), StoreError> {
        self.write(async |db| {
            sqlx::query(TRIAL).execute(&mut *db).await?;
            sqlx::query("DROP TABLE trial").execute(db).await?;
            Ok(())
        })
        .await
    }

    /// All that one verb reads, it reads from the same state of the database.
    async fn read<T>(
        &self,
        verb: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.timing
            .read
            .note(bounded(async {
                let mut transaction = self.readers.begin().await?;
                let done = verb(&mut transaction).await?;
                transaction.commit().await?;
                Ok(done)
            }))
            .await
    }
}

async fn bounded<T>(verb: impl Future<Output = Result<T, Fault>>) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, verb).await {
        Ok(done) => done.map_err(StoreError::from),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// The time that a verb goes by, in microseconds. A SQLite file has no server whose clock it could be: everybody who
/// opens it is on this machine, so this process's clock is the one that they agree on.
fn clock(now: Now) -> i64 {
    match now {
        Now::Database => micros(Timestamp::now()),
        Now::At(instant) => micros(instant),
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn telling(&self, entries: Vec<AuditEntry>) -> SharedStore {
        Arc::new(Self { told: entries.into(), ..self.clone() })
    }

    async fn add_project(&self, project: &Project) -> Result<(), StoreError> {
        self.write(async |db| people::add_project(db, project).await).await
    }

    async fn projects(&self) -> Result<Vec<Project>, StoreError> {
        self.read(async |db| people::projects(db).await).await
    }

    async fn add_user(&self, user: &User, grants: &[Grant]) -> Result<(), StoreError> {
        self.write(async |db| people::add_user(db, user, grants).await).await
    }

    async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        self.read(async |db| people::user(db, name).await).await
    }

    async fn add_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        self.write(async |db| people::add_access_key(db, key).await).await
    }

    async fn key_holder(&self, access: &str) -> Result<Option<KeyHolder>, StoreError> {
        self.read(async |db| people::key_holder(db, access).await).await
    }

    async fn add_instance(&self, instance: &Instance) -> Result<(), StoreError> {
        self.write(async |db| instance::add(db, instance).await).await
    }

    async fn instance(&self, project_id: &str, id: &str) -> Result<Option<Instance>, StoreError> {
        self.read(async |db| instance::get(db, project_id, id).await).await
    }

    async fn instances(&self, project_id: &str) -> Result<Vec<Instance>, StoreError> {
        self.read(async |db| instance::list(db, project_id).await).await
    }

    async fn record_facts(&self, instance: &Instance, facts: &Facts) -> Result<(), StoreError> {
        self.write(async |db| instance::record_facts(db, instance, facts).await).await
    }

    async fn record_unreachable(&self, instance: &Instance, cause: &str) -> Result<(), StoreError> {
        self.write(async |db| instance::record_unreachable(db, instance, cause).await).await
    }

    async fn take_looks(&self, now: Now, every: Duration, limit: u32) -> Result<Vec<Instance>, StoreError> {
        self.write(async |db| instance::take_looks(db, clock(now), every, limit).await).await
    }

    async fn update_instance(&self, now: Now, before: &Instance, after: &Instance) -> Result<Instance, StoreError> {
        self.write(async |db| instance::update(db, clock(now), before, after).await).await
    }

    async fn remove_instance(&self, project_id: &str, id: &str) -> Result<bool, StoreError> {
        self.write_and_tell(async |db| instance::remove(db, project_id, id).await, |removed| *removed).await
    }

    async fn auto_scan(&self, instance_id: &str) -> Result<Option<AutoScan>, StoreError> {
        self.read(async |db| auto_scan::get(db, instance_id).await).await
    }

    async fn auto_scans(&self, instance_ids: &[String]) -> Result<Vec<AutoScan>, StoreError> {
        self.read(async |db| auto_scan::several(db, instance_ids).await).await
    }

    async fn set_auto_scan(
        &self,
        before: Option<&AutoScan>,
        config: &AutoScan,
    ) -> Result<Option<AutoScan>, StoreError> {
        self.write_and_tell(async |db| auto_scan::set(db, before, config).await, Option::is_some).await
    }

    async fn create_task(&self, now: Now, new: &NewTask) -> Result<Created, StoreError> {
        self.write_and_tell(
            async |db| task::create(db, clock(now), new).await,
            |created| matches!(created, Created::New(_)),
        )
        .await
    }

    async fn task(&self, project_id: &str, id: &str) -> Result<Option<TaskDetail>, StoreError> {
        self.read(async |db| task::detail(db, project_id, id).await).await
    }

    async fn details(&self, project_id: &str, ids: &[String]) -> Result<Vec<TaskDetail>, StoreError> {
        self.read(async |db| task::details(db, project_id, ids).await).await
    }

    async fn newest_tasks(&self, instance_ids: &[String]) -> Result<Vec<Task>, StoreError> {
        self.read(async |db| task::newest(db, instance_ids).await).await
    }

    async fn tasks(&self, instance_id: &str, page: &PageRequest) -> Result<Page, StoreError> {
        self.read(async |db| task::page(db, instance_id, page).await).await
    }

    async fn request_cancel(&self, now: Now, project_id: &str, id: &str) -> Result<Option<Task>, StoreError> {
        self.write_and_tell(
            async |db| task::request_cancel(db, clock(now), project_id, id).await,
            |(_, is_done)| *is_done,
        )
        .await
        .map(|(task, _)| task)
    }

    async fn claim(&self, now: Now, owner: &str, lease: Duration, per_host: u32) -> Result<Option<Claim>, StoreError> {
        self.write(async |db| lease::claim(db, clock(now), owner, lease, per_host).await).await
    }

    async fn beat(&self, now: Now, lease: &Lease, renew: Duration, beat: &Beat) -> Result<Pulse, StoreError> {
        self.write(async |db| lease::beat(db, clock(now), lease, renew, beat).await).await
    }

    async fn give_back(&self, now: Now, lease: &Lease, beat: &Beat) -> Result<Pulse, StoreError> {
        self.write(async |db| lease::give_back(db, clock(now), lease, beat).await).await
    }

    async fn end(&self, now: Now, lease: &Lease, ending: &Ending) -> Result<Pulse, StoreError> {
        self.write(async |db| lease::end(db, clock(now), lease, ending).await).await
    }

    async fn hold_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<LazyFreeHolders, StoreError> {
        self.write(async |db| lazyfree::hold(db, clock(now), hold).await).await
    }

    async fn join_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<Option<LazyFreeHolders>, StoreError> {
        self.write(async |db| lazyfree::join(db, clock(now), hold).await).await
    }

    async fn let_go_lazyfree(&self, run_id: &str, task_id: &str) -> Result<u64, StoreError> {
        self.write(async |db| lazyfree::let_go(db, run_id, task_id).await).await
    }

    async fn abandoned_lazyfree(&self) -> Result<Vec<(LazyFreeHold, Instance)>, StoreError> {
        self.read(async |db| lazyfree::abandoned(db).await).await
    }

    async fn key_check(&self, key_id: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.write(async |db| people::key_check(db, key_id, sealed).await).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(async |db| {
            sqlx::query("SELECT 1 FROM project LIMIT 1").execute(db).await?;
            Ok(())
        })
        .await?;
        // Readers go on where no task can be accepted: on a full disk, and while somebody else holds the file.
        self.doubt.settle(self.try_to_write()).await
    }

    async fn close(&self) {
        // The readers first: the last connection that may write puts the log back into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl People for SqliteStore {
    async fn roles(&self, user_id: &str) -> Result<Vec<(Project, Role)>, StoreError> {
        self.read(async |db| people::roles(db, user_id).await).await
    }

    async fn users(&self) -> Result<Vec<UserRoles>, StoreError> {
        self.read(async |db| people::users(db).await).await
    }

    async fn set_password(&self, user_id: &str, password_hash: Option<&str>) -> Result<(), StoreError> {
        self.write(async |db| people::set_password(db, user_id, password_hash).await).await
    }

    async fn disable_user(&self, user_id: &str, disabled: bool) -> Result<(), StoreError> {
        self.write(async |db| people::disable_user(db, user_id, disabled).await).await
    }

    async fn remove_user(&self, user_id: &str) -> Result<(), StoreError> {
        self.write(async |db| people::remove_user(db, user_id).await).await
    }

    async fn grant(&self, user_id: &str, grant: &Grant) -> Result<(), StoreError> {
        self.write(async |db| people::grant(db, user_id, grant).await).await
    }

    async fn revoke(&self, user_id: &str, project_id: &str) -> Result<(), StoreError> {
        self.write(async |db| people::revoke(db, user_id, project_id).await).await
    }

    async fn remove_project(&self, project_id: &str) -> Result<bool, StoreError> {
        self.write_and_tell(async |db| people::remove_project(db, project_id).await, |removed| *removed).await
    }

    async fn access_keys(&self) -> Result<Vec<AccessKey>, StoreError> {
        self.read(async |db| access::keys(db).await).await
    }

    async fn disable_access_key(&self, access: &str, disabled: bool) -> Result<(), StoreError> {
        self.write(async |db| access::disable_key(db, access, disabled).await).await
    }

    async fn remove_access_key(&self, access: &str) -> Result<(), StoreError> {
        self.write(async |db| access::remove_key(db, access).await).await
    }

    async fn add_token(
        &self,
        token: &Token,
        password_hash: &str,
        forget_before: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(async |db| access::add_token(db, token, password_hash, forget_before).await).await
    }

    async fn token_holder(&self, hash: &[u8]) -> Result<Option<TokenHolder>, StoreError> {
        self.read(async |db| access::token_holder(db, hash).await).await
    }

    async fn revoke_token(&self, hash: &[u8]) -> Result<bool, StoreError> {
        self.write_and_tell(async |db| access::revoke_token(db, hash).await, |ended| *ended).await
    }

    async fn remember_signature(&self, now: Timestamp, signature: &[u8], until: Timestamp) -> Result<bool, StoreError> {
        self.write(async |db| access::remember_signature(db, now, signature, until).await).await
    }

    async fn audit(&self, project_id: &str, page: AuditPage) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(async |db| access::audit(db, project_id, page).await).await
    }
}

#[async_trait]
impl Timetable for SqliteStore {
    async fn due_plans(&self, now: Now, limit: u32) -> Result<DuePlans, StoreError> {
        let now = clock(now);
        let plans = self.read(async |db| schedule::due(db, now, limit).await).await?;
        Ok(DuePlans { now: row::time(now)?, plans })
    }

    async fn start_run(
        &self,
        now: Now,
        plan: &Plan,
        new: &NewTask,
        look_at: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        self.write(async |db| schedule::start(db, clock(now), plan, new, look_at).await).await
    }

    async fn put_off(&self, plan: &Plan, handled: Option<Timestamp>, look_at: Timestamp) -> Result<(), StoreError> {
        self.write(async |db| schedule::put_off(db, plan, handled, look_at).await).await
    }
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn secrets(&self) -> Result<Vec<SecretAt>, StoreError> {
        self.read(async |db| secrets::all(db).await).await
    }

    async fn reseal(&self, now: Now, changes: &[Resealed], key_id: &str, check: &Sealed) -> Result<bool, StoreError> {
        let change = async |db: &mut SqliteConnection| secrets::reseal(db, clock(now), changes, key_id, check).await;
        self.write_and_tell(change, |changed| *changed).await
    }
}

#[async_trait]
impl Survey for SqliteStore {
    async fn overview(&self, now: Now) -> Result<Overview, StoreError> {
        self.read(async |db| survey::overview(db, clock(now)).await).await
    }

    fn timing(&self) -> &Timing {
        &self.timing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(folder: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&folder.path().join("store.db")).await.expect("a store")
    }

    async fn pragma(pool: &SqlitePool, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(pool).await.expect("a number")
    }

    #[tokio::test]
    async fn every_commit_is_written_through_and_references_are_kept() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        assert_eq!(pragma(&store.writer, "PRAGMA synchronous").await, 2, "FULL");
        assert_eq!(pragma(&store.writer, "PRAGMA foreign_keys").await, 1);
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.writer).await.expect("a mode");
        assert_eq!(journal, "wal");
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        sqlx::query("DELETE FROM project").execute(&store.readers).await.expect_err("read only");
    }

    #[tokio::test]
    async fn a_full_disk_is_unavailable_and_leaves_nothing_half_done() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let store = store(&folder).await;
        // The one writing connection is told that there is no page left.
        let pages = pragma(&store.writer, "PRAGMA page_count").await;
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")))
            .execute(&store.writer)
            .await
            .expect("set");
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
