//! The store in a PostgreSQL database: for several replicas of keysweep that share one fleet.
//!
//! Verbs run at READ COMMITTED: a statement sees what was committed before it began, and a row that it waits for as it
//! is when the wait ends, but only that row. So what a verb relies on it locks first, and looks at it afterwards. Instances
//! are locked first, then schedules, leases, tasks, everywhere, so that verbs wait for each other and never in a circle; a
//! claim, which goes by leases, waits for none of them. Claims queue at a lock of their own: what they weigh, who sweeps
//! what, is in many rows.

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
use sqlx::{PgConnection, PgPool};

pub use self::{copy::Intake, open::OpenError};
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

/// A store in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    timing: Timing,
    /// What the audit trail is told of the next change.
    told: Arc<[AuditEntry]>,
    /// A write was refused, or not answered in time, since it was last found out whether one goes through.
    doubt: Doubt,
}

/// What is written to find out whether the database takes writes: more than a create, and in a place of its own, so that
/// room which was left elsewhere does not make up for a full disk. The rows are too short to be compressed; unlogged, so that
/// no subscriber of all tables hears of it.
const TRIAL: &str =
    "CREATE UNLOGGED TABLE keysweep_trial AS SELECT repeat('x', 1000) AS filler FROM generate_series(1, 128)";

impl PostgresStore {
    async fn write<T>(&self, verb: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.write_and_tell(verb, |_| true).await
    }

    /// For a verb that may find nothing to do: the audit trail tells of what was done only.
    async fn write_and_tell<T>(
        &self,
        verb: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Fault>,
        is_done: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let done = self
            .timing
            .write
            .note(bounded(async {
                let mut transaction = self.pool.begin().await?;
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

    /// Writes something for nobody, which is gone again at the end. Replicas that do so at the same time wait for each other.
    async fn try_to_write(&self) -> Result<(), StoreError> {
        let tried = self.write(async |db| {
            sqlx::query(TRIAL).execute(&mut *db).await?;
            sqlx::query("DROP TABLE keysweep_trial").execute(db).await?;
            Ok(())
        });
        match tried.await {
            Ok(()) => Ok(()),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            // A right that was taken away, or a rule against new tables: no word on whether a task would be accepted.
            Err(error) => {
                tracing::warn!(%error, "it cannot be found out whether the database takes writes");
                Ok(())
            }
        }
    }

    /// All that one verb reads, it reads from the same state of the database.
    async fn read<T>(&self, verb: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.timing
            .read
            .note(bounded(async {
                let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
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

/// The time that a verb goes by, in microseconds: the server's, which all replicas share.
async fn clock(db: &mut PgConnection, now: Now) -> Result<i64, Fault> {
    match now {
        Now::Database => Ok(sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .fetch_one(db)
            .await?),
        Now::At(instant) => Ok(micros(instant)),
    }
}

/// Waits for its turn at a lock that is not a row's, and holds it until the verb's transaction ends.
async fn queue(db: &mut PgConnection, lock: Queue) -> Result<(), Fault> {
    // The first number tells keysweep's locks from those of others in the same database.
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)").bind(LOCKS).bind(lock as i32).execute(db).await?;
    Ok(())
}

/// "keys"
const LOCKS: i32 = 0x6b65_7973;

#[derive(Debug, Clone, Copy)]
enum Queue {
    Claims = 1,
    MasterKey = 2,
    /// Who counts on a setting is in rows that others are about to write or delete.
    LazyFree = 3,
}

#[async_trait]
impl Store for PostgresStore {
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
        self.write(async |db| {
            let now = clock(db, now).await?;
            instance::take_looks(db, now, every, limit).await
        })
        .await
    }

    async fn update_instance(&self, now: Now, before: &Instance, after: &Instance) -> Result<Instance, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            instance::update(db, now, before, after).await
        })
        .await
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
            async |db| {
                let now = clock(db, now).await?;
                task::create(db, now, new).await
            },
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
            async |db| {
                let now = clock(db, now).await?;
                task::request_cancel(db, now, project_id, id).await
            },
            |(_, is_done)| *is_done,
        )
        .await
        .map(|(task, _)| task)
    }

    async fn claim(&self, now: Now, owner: &str, lease: Duration, per_host: u32) -> Result<Option<Claim>, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lease::claim(db, now, owner, lease, per_host).await
        })
        .await
    }

    async fn beat(&self, now: Now, lease: &Lease, renew: Duration, beat: &Beat) -> Result<Pulse, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lease::beat(db, now, lease, renew, beat).await
        })
        .await
    }

    async fn give_back(&self, now: Now, lease: &Lease, beat: &Beat) -> Result<Pulse, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lease::give_back(db, now, lease, beat).await
        })
        .await
    }

    async fn end(&self, now: Now, lease: &Lease, ending: &Ending) -> Result<Pulse, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lease::end(db, now, lease, ending).await
        })
        .await
    }

    async fn hold_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<LazyFreeHolders, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lazyfree::hold(db, now, hold).await
        })
        .await
    }

    async fn join_lazyfree(&self, now: Now, hold: &LazyFreeHold) -> Result<Option<LazyFreeHolders>, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            lazyfree::join(db, now, hold).await
        })
        .await
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
        // It goes on reading where no task can be accepted: as a standby, told to be read-only, and on a full disk.
        self.doubt.settle(self.try_to_write()).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[async_trait]
impl People for PostgresStore {
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
impl Timetable for PostgresStore {
    async fn due_plans(&self, now: Now, limit: u32) -> Result<DuePlans, StoreError> {
        self.read(async |db| {
            let now = clock(db, now).await?;
            Ok(DuePlans { now: row::time(now)?, plans: schedule::due(db, now, limit).await? })
        })
        .await
    }

    async fn start_run(
        &self,
        now: Now,
        plan: &Plan,
        new: &NewTask,
        look_at: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        self.write(async |db| {
            let now = clock(db, now).await?;
            schedule::start(db, now, plan, new, look_at).await
        })
        .await
    }

    async fn put_off(&self, plan: &Plan, handled: Option<Timestamp>, look_at: Timestamp) -> Result<(), StoreError> {
        self.write(async |db| schedule::put_off(db, plan, handled, look_at).await).await
    }
}

#[async_trait]
impl Secrets for PostgresStore {
    async fn secrets(&self) -> Result<Vec<SecretAt>, StoreError> {
        self.read(async |db| secrets::all(db).await).await
    }

    async fn reseal(&self, now: Now, changes: &[Resealed], key_id: &str, check: &Sealed) -> Result<bool, StoreError> {
        let change = async |db: &mut PgConnection| {
            let now = clock(db, now).await?;
            secrets::reseal(db, now, changes, key_id, check).await
        };
        self.write_and_tell(change, |changed| *changed).await
    }
}

#[async_trait]
impl Survey for PostgresStore {
    async fn overview(&self, now: Now) -> Result<Overview, StoreError> {
        self.read(async |db| {
            let now = clock(db, now).await?;
            survey::overview(db, now).await
        })
        .await
    }

    fn timing(&self) -> &Timing {
        &self.timing
    }
}
