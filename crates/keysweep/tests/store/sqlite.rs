//! What is particular to the store in a SQLite file: the file itself, its schema's history, its locks.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use keysweep::{
    model::{Instance, Project, Reason, Role, ScanType, Status},
    store::{Created, OpenError, PageRequest, Store, StoreError},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection, migrate::Migrator,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::tasks::new_task;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/samples/sqlite");

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

async fn raw(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).disable_statement_logging();
    options.connect().await.expect("a connection")
}

fn project(name: &str) -> Project {
    let created_at = jiff::Timestamp::from_second(1_767_225_600).expect("a time");
    Project { id: format!("{name:0>32}"), name: name.into(), created_at }
}

#[tokio::test]
async fn the_file_and_its_folder_are_made_for_their_owner_alone() {
    let folder = folder();
    let path = folder.path().join("new/data/store.db");
    let store = Store::open_sqlite(&path).await.expect("a store");
    store.add_project(&project("a")).await.expect("added");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    for entry in fs::read_dir(path.parent().expect("a folder")).expect("readable") {
        let file = entry.expect("an entry").path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn closing_leaves_one_file_that_holds_everything() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = Store::open_sqlite(&path).await.expect("a store");
    store.add_project(&project("a")).await.expect("added");
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let files: Vec<PathBuf> =
        fs::read_dir(folder.path()).expect("readable").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(files, std::slice::from_ref(&path));
    let store = Store::open_sqlite(&path).await.expect("a store");
    assert_eq!(store.projects().await.expect("read"), [project("a")]);
}

#[tokio::test]
async fn several_processes_may_open_a_new_file_at_once() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut opens = JoinSet::new();
    for number in 0..6 {
        let path = path.clone();
        opens.spawn(async move {
            let store = Store::open_sqlite(&path).await.expect("a store");
            store.add_project(&project(&format!("p{number}"))).await.expect("added");
        });
    }
    opens.join_all().await;
    let store = Store::open_sqlite(&path).await.expect("a store");
    assert_eq!(store.projects().await.expect("read").len(), 6);
}

#[tokio::test]
async fn a_new_file_that_another_process_holds_is_opened_a_moment_later() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut other = raw(&path).await;
    // SQLite refuses the change to WAL at once then; its busy timeout does not apply to it.
    other.execute("BEGIN IMMEDIATE").await.expect("held");
    let release = async {
        // Not a wait for a condition: the time for which the file is held.
        tokio::time::sleep(Duration::from_millis(150)).await;
        other.execute("ROLLBACK").await.expect("released");
    };
    let (store, ()) = tokio::join!(Store::open_sqlite(&path), release);
    store.expect("a store").ping().await.expect("it answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_the_tasks_of_one_file_without_errors() {
    const TASKS: usize = 24;
    let folder = folder();
    let path = folder.path().join("store.db");
    let (one, other) =
        (Store::open_sqlite(&path).await.expect("a store"), Store::open_sqlite(&path).await.expect("a store"));
    let sample = chain().await.remove(0).1;
    let mut connection = raw(&path).await;
    connection.execute(AssertSqlSafe(sample)).await.expect("a sample");
    connection.execute("DELETE FROM task").await.expect("no tasks");
    for number in 0..TASKS {
        let sql = format!(
            "INSERT INTO instance (id, project_id, name, url, pace, created_at)
             VALUES ('i{number}', '0123456789abcdef0123456789abcdef', 'i{number}', 'redis://h', 'normal', 0);
             INSERT INTO task (id, project_id, instance_id, status, scan_type, created_at, timeout_us)
             VALUES ('t{number}', '0123456789abcdef0123456789abcdef', 'i{number}', 'waiting', 'manual', 0, 0)"
        );
        connection.execute(AssertSqlSafe(sql)).await.expect("a task");
    }
    let mut workers = JoinSet::new();
    for (name, store) in [("one", one), ("other", other)] {
        workers.spawn(async move {
            let mut claimed = Vec::new();
            while let Some(claim) = store.claim(name, Duration::from_secs(60), 100).await.expect("no failure") {
                claimed.push(claim.task.id);
            }
            claimed
        });
    }
    let claimed = workers.join_all().await.concat();
    assert_eq!(claimed.len(), TASKS);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>().len(), TASKS, "none twice");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("store.db");
    Store::open_sqlite(&path).await.expect("a store").close().await;
    let mut newer = raw(&path).await;
    newer
        .execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)")
        .await
        .expect("written");
    newer.close().await.expect("closed");
    let before = fs::read(&path).expect("readable");

    let error = Store::open_sqlite(&path).await.expect_err("newer");
    assert!(matches!(error, OpenError::Newer { found: 9999, .. }), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains("store.db") && sentence.contains("newer keysweep"), "{sentence}");
    assert_eq!(fs::read(&path).expect("readable"), before);
}

#[tokio::test]
async fn a_schema_that_no_release_has_made_is_refused() {
    let folder = folder();
    let path = folder.path().join("store.db");
    Store::open_sqlite(&path).await.expect("a store").close().await;
    let mut other = raw(&path).await;
    other.execute("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await.expect("written");
    other.close().await.expect("closed");
    let error = Store::open_sqlite(&path).await.expect_err("foreign");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let text = "not a database, but a user's notes\n".repeat(100);
    fs::write(&path, &text).expect("written");
    let error = Store::open_sqlite(&path).await.expect_err("no database");
    assert!(matches!(error, OpenError::File { why: StoreError::Unreadable(_), .. }), "{error}");
    assert!(error.to_string().contains("store.db"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("readable"), text);
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_refused_with_its_name() {
    let folder = folder();
    let file = folder.path().join("a-file");
    fs::write(&file, "").expect("written");
    let error = Store::open_sqlite(&file.join("store.db")).await.expect_err("a file is no folder");
    assert!(matches!(error, OpenError::Create { .. }), "{error}");
    assert!(error.to_string().contains("a-file"), "{error}");
    let error = Store::open_sqlite(folder.path()).await.expect_err("a folder is no file");
    assert!(matches!(error, OpenError::Create { .. }), "{error}");
}

#[tokio::test]
async fn while_another_process_holds_the_file_verbs_end_in_time_and_work_again_afterwards() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = Store::open_sqlite(&path).await.expect("a store");
    store.add_project(&project("a")).await.expect("added");
    let mut other = raw(&path).await;
    other.execute("BEGIN EXCLUSIVE").await.expect("held");

    let begun = Instant::now();
    // Two at once: the second waits for the first one's connection, within its own timeout.
    let (b, c) = (project("b"), project("c"));
    let (first, second) = tokio::join!(store.add_project(&b), store.add_project(&c));
    let elapsed = begun.elapsed();
    for answer in [first, second] {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    // In sequence they would take twice the three seconds that each has.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_eq!(store.projects().await.expect("readers go on").len(), 1);
    let unready = store.ping().await.expect_err("nothing can be written").to_string();
    assert!(unready.contains("unavailable"), "{unready}");

    other.execute("ROLLBACK").await.expect("released");
    let released = Instant::now();
    // What the last trial has found is kept for a second.
    while let Err(error) = store.ping().await {
        assert!(released.elapsed() < Duration::from_secs(4), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.add_project(&b).await.expect("works again, and the one before left nothing");
    assert_eq!(store.projects().await.expect("read"), [project("a"), project("b")]);
}

#[tokio::test]
async fn a_create_that_writes_nothing_waits_for_no_other_write() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = Store::open_sqlite(&path).await.expect("a store");
    let mut other = raw(&path).await;
    other.execute(AssertSqlSafe(chain().await.remove(0).1)).await.expect("a sample");
    let shop = store.projects().await.expect("read").remove(1);
    let instances = store.instances(&shop.id).await.expect("read");
    let [paused, active] = instances.as_slice() else { panic!("{instances:?}") };
    other.execute("BEGIN EXCLUSIVE").await.expect("held");
    assert!(matches!(store.create_task(&new_task(&paused.project_id, &paused.id)).await, Ok(Created::Paused)));
    assert!(matches!(store.create_task(&new_task(&active.project_id, &active.id)).await, Ok(Created::Active(_))));
    let gone = Instance { id: "f".repeat(32), ..active.clone() };
    assert!(matches!(
        store.create_task(&new_task(&gone.project_id, &gone.id)).await,
        Err(StoreError::Missing("instance"))
    ));
}

#[tokio::test]
async fn a_file_that_is_locked_for_good_does_not_open_and_says_so_in_time() {
    let folder = folder();
    let path = folder.path().join("store.db");
    Store::open_sqlite(&path).await.expect("a store").close().await;
    let mut other = raw(&path).await;
    other.execute("PRAGMA locking_mode = EXCLUSIVE").await.expect("set");
    other.execute("BEGIN EXCLUSIVE").await.expect("held");
    let begun = Instant::now();
    let error = Store::open_sqlite(&path).await.expect_err("locked");
    assert!(matches!(error, OpenError::File { why: StoreError::Unavailable(_), .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// The migrations on disk, with the sample that each leaves behind.
async fn chain() -> Vec<(i64, String)> {
    let migrator = Migrator::new(Path::new(MIGRATIONS)).await.expect("migrations");
    let sample = |version: i64| {
        let path = Path::new(SAMPLES).join(format!("{version:04}.sql"));
        let sql = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("a sample for each migration: {}: {error}", path.display()));
        (version, sql)
    };
    migrator.iter().map(|migration| sample(migration.version)).collect()
}

#[tokio::test]
async fn every_version_of_the_schema_upgrades_to_this_one_with_what_it_held() {
    let chain = chain().await;
    assert!(!chain.is_empty());
    for (first, _) in &chain {
        let folder = folder();
        let path = folder.path().join("store.db");
        let mut connection = raw(&path).await;
        let migrator = Migrator::new(Path::new(MIGRATIONS)).await.expect("migrations");
        // Each version up to some version has used the file before this one opens it.
        for (version, sample) in chain.iter().take_while(|(version, _)| version <= first) {
            migrator.run_to(*version, &mut connection).await.expect("migrated");
            connection.execute(AssertSqlSafe(sample.clone())).await.expect("the sample fits its schema");
        }
        connection.close().await.expect("closed");
        let store = Store::open_sqlite(&path).await.expect("upgraded");
        assert_sample_is_there(&store).await;
        let mut connection = raw(&path).await;
        let hosts: Vec<String> =
            sqlx::query_scalar("SELECT host FROM task_host JOIN task ON task.id = task_id WHERE seq = 4")
                .fetch_all(&mut connection)
                .await
                .expect("read");
        // Since 0010 the waiting task has had one, in a column at first.
        assert_eq!(hosts, if *first < 10 { vec![] } else { vec!["cache.example".to_owned()] }, "from {first}");
        let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.expect("checked");
        assert_eq!(dangling.len(), 0);
    }
}

/// What the first sample holds, as this version reads it.
async fn assert_sample_is_there(store: &Store) {
    let projects = store.projects().await.expect("read");
    let names: Vec<_> = projects.iter().map(|project| project.name.as_str()).collect();
    assert_eq!(names, ["search", "shop"]);
    let shop = &projects[1].id;
    let holder = store.key_holder("SAMPLESAMPLESAMPLE01").await.expect("read").expect("a holder");
    assert_eq!((holder.user.name.as_str(), holder.grants.len()), ("ada", 2));
    assert!(holder.grants.iter().any(|grant| grant.project_id == *shop && grant.role == Role::Admin));
    assert!(store.user("bob").await.expect("read").is_some_and(|bob| bob.disabled && bob.password_hash.is_some()));

    let instances = store.instances(shop).await.expect("read");
    let [carts, sessions] = instances.as_slice() else { panic!("{instances:?}") };
    assert!(carts.paused && carts.manage_lazyfree && carts.window_binds_manual);
    assert_eq!(carts.stats.as_ref().map(|stats| stats.keys), Some(1_200));
    assert!(carts.password.is_some() && carts.client_key.is_some() && sessions.password.is_none());

    let all = PageRequest { status: None, offset: 0, limit: 10 };
    let page = store.tasks(&sessions.id, &all).await.expect("read");
    let statuses: Vec<_> = page.tasks.iter().map(|task| (task.status, task.scan_type)).collect();
    assert_eq!(
        statuses,
        [(Status::Running, ScanType::Auto), (Status::Failed, ScanType::Manual), (Status::Success, ScanType::Manual)]
    );
    assert_eq!((page.reclaimed, page.tasks[1].reason.clone()), (254_000, Some(Reason::Cancelled)));
    let detail = store.task(shop, &page.tasks[2].id).await.expect("read").expect("it is there");
    assert_eq!(detail.report.as_deref(), Some("{\"outcome\":\"done\"}"));

    let claim = store.claim("w", Duration::from_secs(15), 100).await.expect("no failure").expect("a task");
    assert_eq!((claim.task.id.as_str(), claim.lease.epoch), (page.tasks[0].id.as_str(), 8), "the epoch goes on");
    assert_eq!(claim.task.attempts, 0, "it had got further than its mark");
    assert_eq!(claim.checkpoint.as_deref(), Some("{\"shards\":[]}"));
    assert_eq!(store.key_check("ours", b"ours").await.expect("kept")[0], 1, "the sample's");
    let new = new_task(&claim.instance.project_id, &claim.instance.id);
    assert!(matches!(store.create_task(&new).await, Ok(Created::Active(_))));
}

#[tokio::test]
async fn a_row_that_no_version_wrote_is_unreadable_and_named() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut connection = raw(&path).await;
    let migrator = Migrator::new(Path::new(MIGRATIONS)).await.expect("migrations");
    migrator.run(&mut connection).await.expect("migrated");
    connection.execute(AssertSqlSafe(chain().await.remove(0).1)).await.expect("a sample");
    connection
        .execute(
            "PRAGMA ignore_check_constraints = TRUE; UPDATE task SET scan_type = 'bored' WHERE status = 'failed';
             UPDATE task_document SET version = 99;",
        )
        .await
        .expect("spoilt");
    connection.close().await.expect("closed");
    let store = Store::open_sqlite(&path).await.expect("a store");
    let request = PageRequest { status: Some(Status::Failed), offset: 0, limit: 10 };
    let error = store.tasks("b0000000000000000000000000000001", &request).await.expect_err("bored").to_string();
    assert!(error.contains("bored") && error.contains("scan type"), "{error}");
    let project = "0123456789abcdef0123456789abcdef";
    let detail = store.task(project, "c0000000000000000000000000000001").await.expect("read").expect("a task");
    let error = detail.documents_error.expect("documents of version 99");
    assert!(error.contains("99"), "{error}");
    assert_eq!((detail.progress, detail.checkpoint, detail.report), (None, None, None));
}

#[tokio::test]
async fn a_reason_of_a_later_version_is_read_as_it_stands() {
    let folder = folder();
    let path = folder.path().join("store.db");
    Store::open_sqlite(&path).await.expect("a store").close().await;
    let mut connection = raw(&path).await;
    connection.execute(AssertSqlSafe(chain().await.remove(0).1)).await.expect("a sample");
    connection.execute("UPDATE task SET reason = 'bored' WHERE status = 'failed'").await.expect("written");
    connection.close().await.expect("closed");
    let store = Store::open_sqlite(&path).await.expect("a store");
    let request = PageRequest { status: Some(Status::Failed), offset: 0, limit: 10 };
    let page = store.tasks("b0000000000000000000000000000001", &request).await.expect("read");
    assert_eq!(page.tasks[0].reason, Some(Reason::Other("bored".into())));
}
