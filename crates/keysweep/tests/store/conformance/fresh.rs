//! A new store for each test, and the rows that tests put into it.

use std::{ops::Deref, time::Duration};

use jiff::Timestamp;
use keysweep::{
    model::{AutoScan, Instance, NewTask, Project, Stored, Task},
    store::{Claim, Clock, Created, Heartbeat, Store, StoreError, TaskResult},
};
use keysweep_harness::Postgres;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::common::tasks::new_task;

/// Duration of leases in these tests.
pub const LEASE: Duration = Duration::from_secs(15);

/// Start of the tests, in seconds since the epoch.
const START: i64 = 1_767_225_600;

/// Returns a clock that stands this many seconds after the start of the tests.
pub fn at(seconds: i64) -> Clock {
    Clock::at(time(seconds))
}

/// Returns the time that such a clock shows.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).expect("a time")
}

/// An empty store, removed when it is dropped.
pub struct Fresh {
    store: Store,
    place: Place,
}

enum Place {
    Sqlite(TempDir),
    Postgres(Postgres),
}

impl Place {
    async fn open(&self) -> Store {
        match self {
            Self::Sqlite(folder) => Store::open_sqlite(&folder.path().join("store.db")).await.expect("a store"),
            Self::Postgres(server) => Store::open_postgres(&server.url()).await.expect("a store"),
        }
    }
}

impl Deref for Fresh {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Fresh {
    /// On SQLite.
    pub async fn sqlite() -> Self {
        Self::in_place(Place::Sqlite(TempDir::new().expect("a folder"))).await
    }

    /// On SQLite, in memory where the system offers that: the same statements, without surviving a power cut.
    pub async fn sqlite_in_memory() -> Self {
        let memory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new());
        Self::in_place(Place::Sqlite(memory.expect("a folder"))).await
    }

    /// On PostgreSQL.
    pub async fn postgres() -> Self {
        Self::in_place(Place::Postgres(Postgres::start())).await
    }

    async fn in_place(place: Place) -> Self {
        Self { store: place.open().await, place }
    }

    /// Opens the same database again, as the next process does.
    pub async fn reopened(self) -> Self {
        drop(self.store);
        Self::in_place(self.place).await
    }

    /// Saves auto-scan settings in place of the present ones.
    pub async fn schedule(&self, config: &AutoScan) -> Result<AutoScan, StoreError> {
        let before = self.auto_scan(&config.instance_id).await?;
        let kept = self.set_auto_scan(before.as_ref(), config).await?;
        Ok(kept.expect("no other change was made"))
    }

    /// Renames the table of the audit trail, so that inserts fail.
    pub async fn lose_audit(&self) {
        self.run("ALTER TABLE audit RENAME TO lost_audit").await;
    }

    /// Restores the table of the audit trail.
    pub async fn find_audit(&self) {
        self.run("ALTER TABLE lost_audit RENAME TO audit").await;
    }

    /// Gives the documents of every task a version that this one does not know.
    pub async fn change_document_versions(&self) {
        self.run("UPDATE task_document SET version = 9").await;
    }

    /// Gives every estimate a version that this one does not know.
    pub async fn change_estimate_versions(&self) {
        self.run("UPDATE estimate SET version = 9").await;
        self.run("UPDATE estimate_point SET version = 9").await;
    }

    /// Makes the primaries of all latest estimates unreadable, but not their totals.
    pub async fn spoil_primaries(&self) {
        self.run("UPDATE estimate SET latest = REPLACE(latest, '\"primaries\":[', '\"primaries\":[7,')").await;
    }

    /// Makes what workers have reported of held servers unreadable.
    pub async fn spoil_hold_reports(&self) {
        self.run("UPDATE hold SET status = '{'").await;
    }

    /// Adds marks to an instance's history at once.
    pub async fn insert_marks(&self, instance_id: &str, count: u32) {
        let values = format!("('{instance_id}', {START}000000, 'scan', '{{}}')");
        let rows = vec![values; count as usize].join(",");
        self.run(format!("INSERT INTO mark (instance_id, happened_at, kind, detail) VALUES {rows}")).await;
    }

    async fn run(&self, sql: impl Into<String>) {
        let sql = AssertSqlSafe(sql.into());
        match &self.place {
            Place::Sqlite(folder) => {
                let url = format!("sqlite:{}", folder.path().join("store.db").display());
                let mut database = SqliteConnection::connect(&url).await.expect("it opens");
                sqlx::query(sql).execute(&mut database).await.expect("done");
            }
            Place::Postgres(server) => {
                let mut database = PgConnection::connect(&server.url()).await.expect("it opens");
                sqlx::query(sql).execute(&mut database).await.expect("done");
            }
        }
    }

    /// Adds a project with this name.
    pub async fn project(&self, name: &str) -> Project {
        let project = Project { id: id(name), name: name.to_owned(), created_at: time(0) };
        self.add_project(&project).await.expect("added");
        project
    }

    /// Adds an instance with this name in a project with the same name.
    pub async fn instance_of_its_own(&self, name: &str) -> Instance {
        let project = self.project(name).await;
        let instance = plain_instance(&project, name);
        self.add_instance(&instance).await.expect("added");
        instance
    }

    /// Sets or removes the window of an instance, for manual scans as well. Returns the changed instance.
    pub async fn with_window(&self, instance: &Instance, window: Option<&str>) -> Instance {
        let bound = Instance { window: window.map(Stored::read), window_binds_manual: true, ..instance.clone() };
        self.update_instance(instance, &bound).await.expect("changed")
    }

    /// Pauses or resumes an instance. Returns the changed instance.
    pub async fn paused(&self, instance: &Instance, paused: bool) -> Instance {
        self.update_instance(instance, &Instance { paused, ..instance.clone() }).await.expect("changed")
    }

    /// Creates a waiting task; the instance must have no active one.
    pub async fn waiting(&self, instance: &Instance, now: Clock) -> Task {
        match self.with_clock(now).create_task(&manual(instance)).await.expect("created") {
            Created::New(task) => task,
            other => panic!("{other:?}"),
        }
    }

    /// Claims the next task, which must exist, for this worker.
    pub async fn claimed(&self, now: Clock, owner: &str) -> Claim {
        self.with_clock(now).claim(owner, LEASE, 100).await.expect("claims work").expect("a task to claim")
    }

    /// Returns the present task, without documents.
    pub async fn seen(&self, task: &Task) -> Task {
        self.task(&task.project_id, &task.id).await.expect("read").expect("it is there").task
    }
}

/// 32 hexadecimal digits that are the same for the same name.
pub fn id(name: &str) -> String {
    let mut digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(32);
    format!("{digits:0>32}")
}

/// An instance with its mandatory fields only.
pub fn plain_instance(project: &Project, name: &str) -> Instance {
    Instance::new(
        id(&format!("{name}{}", project.name)),
        project.id.clone(),
        name.to_owned(),
        "redis://cache.example:6379".into(),
        time(0),
    )
}

/// A manual task for this instance, with a new id.
pub fn manual(instance: &Instance) -> NewTask {
    NewTask {
        triggered_by: Some("ada".into()),
        timeout: Duration::from_secs(21_600),
        ..new_task(&instance.project_id, &instance.id)
    }
}

/// A heartbeat after this many scanned keys, a tenth of them reclaimed, and as many milliseconds.
pub fn heartbeat(scanned: u64) -> Heartbeat {
    Heartbeat {
        used: Duration::from_millis(scanned),
        reclaimed: scanned / 10,
        scanned,
        exact: true,
        progress: Some(format!("{{\"scanned\":{scanned}}}")),
        checkpoint: Some(format!("{{\"cursor\":{scanned}}}")),
    }
}

/// The result of a task that succeeds after this many scanned keys.
pub fn success(scanned: u64) -> TaskResult {
    TaskResult { outcome: Ok(()), heartbeat: heartbeat(scanned), report: Some("{\"outcome\":\"done\"}".into()) }
}

/// Checks that the error says that this field is taken.
#[track_caller]
pub fn assert_taken<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str, field: &str) {
    match result {
        Err(StoreError::Taken { what: found, field: by }) => assert_eq!((found, by), (what, field)),
        other => panic!("{what} should be taken by its {field}: {other:?}"),
    }
}

/// Checks that the error says that this row is missing.
#[track_caller]
pub fn assert_missing<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    match result {
        Err(StoreError::Missing(found)) => assert_eq!(found, what),
        other => panic!("{what} should be missing: {other:?}"),
    }
}
