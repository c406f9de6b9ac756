//! What is particular to the store in PostgreSQL: its schema's history, what replicas do to each other, a server that goes
//! away.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use keysweep::{
    model::{Instance, NewTask, Project, Role, Stored},
    store::{Clock, Heartbeat, OpenError, Store, StoreError},
};
use keysweep_harness::{Authority, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, migrate::Migrator};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::tasks::new_task;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/samples/postgres");
const LEASE: Duration = Duration::from_secs(60);

async fn raw(server: &Postgres) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = server.url().parse().expect("a URL");
    options.disable_statement_logging().connect().await.expect("a connection")
}

fn project(name: &str) -> Project {
    let created_at = jiff::Timestamp::from_second(1_767_225_600).expect("a time");
    Project { id: format!("{name:0>32}"), name: name.into(), created_at }
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
async fn both_engines_have_the_same_migrations() {
    let other = Migrator::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"))).await;
    let names = |migrator: &Migrator| {
        migrator.iter().map(|migration| (migration.version, migration.description.to_string())).collect::<Vec<_>>()
    };
    let ours = Migrator::new(Path::new(MIGRATIONS)).await.expect("migrations");
    assert_eq!(names(&ours), names(&other.expect("migrations")));
}

#[tokio::test]
async fn every_version_of_the_schema_upgrades_to_this_one_with_what_it_held() {
    let chain = chain().await;
    for (first, _) in &chain {
        let server = Postgres::start();
        let mut connection = raw(&server).await;
        let migrator = Migrator::new(Path::new(MIGRATIONS)).await.expect("migrations");
        for (version, sample) in chain.iter().take_while(|(version, _)| version <= first) {
            migrator.run_to(*version, &mut connection).await.expect("migrated");
            connection.execute(AssertSqlSafe(sample.clone())).await.expect("the sample fits its schema");
        }
        let store = Store::open_postgres(&server.url()).await.expect("upgraded");
        // Since 0010 the waiting task has had one, in a column at first.
        let hosts = server.sql("SELECT host FROM task_host JOIN task ON task.id = task_id WHERE seq = 4");
        assert_eq!(hosts, if *first < 10 { "" } else { "cache.example" }, "from {first}");
        let names: Vec<_> = store.projects().await.expect("read").into_iter().map(|project| project.name).collect();
        assert_eq!(names, ["search", "shop"]);
        let holder = store.key_holder("SAMPLESAMPLESAMPLE01").await.expect("read").expect("a holder");
        assert!(holder.grants.iter().any(|grant| grant.role == Role::Admin));
        let claim = store.claim("w", LEASE, 100).await.expect("no failure").expect("a task");
        assert_eq!((claim.lease.epoch, claim.task.attempts), (8, 0), "the epoch goes on");
        assert_eq!(claim.checkpoint.as_deref(), Some("{\"shards\":[]}"));
        assert_eq!(store.key_check("ours", b"ours").await.expect("kept")[0], 1, "the sample's");
    }
}

#[tokio::test]
async fn several_replicas_may_start_on_an_empty_database_at_once() {
    let server = Postgres::start();
    let mut opens = JoinSet::new();
    for number in 0..6 {
        let url = server.url();
        opens.spawn(async move {
            let store = Store::open_postgres(&url).await.expect("a store");
            store.add_project(&project(&format!("p{number}"))).await.expect("added");
            store.key_check(&format!("key{number}"), &[number]).await.expect("kept")
        });
    }
    let keys: HashSet<_> = opens.join_all().await.into_iter().collect();
    assert_eq!(keys.len(), 1, "one of them was first, and all use its key");
    let store = Store::open_postgres(&server.url()).await.expect("a store");
    assert_eq!(store.projects().await.expect("read").len(), 6);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let server = Postgres::start();
    Store::open_postgres(&server.url()).await.expect("a store").close().await;
    server.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, '', 0)",
    );
    let error = Store::open_postgres(&server.url()).await.expect_err("newer");
    assert!(matches!(error, OpenError::Newer { found: 9999, .. }), "{error}");
}

#[tokio::test]
async fn a_schema_that_no_release_has_made_is_refused() {
    let server = Postgres::start();
    Store::open_postgres(&server.url()).await.expect("a store").close().await;
    server.sql("UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1");
    let error = Store::open_postgres(&server.url()).await.expect_err("foreign");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn the_error_of_an_absent_server_does_not_repeat_the_password() {
    let port = keysweep_harness::free_port();
    let error = Store::open_postgres(&format!("postgres://u:secret@127.0.0.1:{port}/d")).await.expect_err("no server");
    assert!(matches!(error, OpenError::Store(StoreError::Unavailable(_))), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_the_server_is_an_error_in_time_and_passes() {
    let mut server = Postgres::start();
    let store = Store::open_postgres(&server.url()).await.expect("a store");
    store.add_project(&project("a")).await.expect("added");
    for crash in [false, true] {
        if crash {
            server.kill()
        } else {
            server.stop()
        }
        for _ in 0..3 {
            let begun = Instant::now();
            let answer = store.ping().await;
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            // A verb times out after three.
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        server.restart();
        assert_eq!(store.projects().await.expect("works again"), [project("a")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_stops_in_mid_transaction_does_not_hold_the_others_up_for_long() {
    let server = Postgres::start();
    let mut connection = raw(&server).await;
    let store = Store::open_postgres(&server.url()).await.expect("a store");
    connection.execute(AssertSqlSafe(chain().await.remove(0).1)).await.expect("a sample");
    // A connection as a replica's pool makes it, in the middle of a claim of a paused process.
    let mut paused = raw(&server).await;
    paused.execute("SET idle_in_transaction_session_timeout = '3000ms'").await.expect("set");
    paused.execute("BEGIN").await.expect("begun");
    paused.execute("SELECT pg_advisory_xact_lock(1801812339, 1)").await.expect("locked");
    paused.execute("SELECT 1 FROM lease FOR UPDATE").await.expect("locked");
    let begun = Instant::now();
    let claim = loop {
        match store.claim("w", LEASE, 100).await {
            Ok(claim) => break claim,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(claim.is_some());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    paused.execute("COMMIT").await.expect_err("it was thrown out");
    connection.close().await.expect("closed");
}

/// Key of an advisory lock that keysweep does not use.
const GATE: i64 = 0x6761_7465;

/// Makes every `event` on tasks wait at a gate, in the middle of its transaction.
async fn gate(connection: &mut PgConnection, event: &str) {
    let sql = format!(
        "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NEW; END $$;
         CREATE TRIGGER gate BEFORE {event} ON task FOR EACH ROW EXECUTE FUNCTION gate();
         SELECT pg_advisory_lock({GATE})"
    );
    connection.execute(AssertSqlSafe(sql)).await.expect("a gate");
}

async fn open_gate(connection: &mut PgConnection) {
    connection.execute(AssertSqlSafe(format!("SELECT pg_advisory_unlock({GATE})"))).await.expect("opened");
}

/// Waits until this many transactions wait for a lock, or the verb has ended. Returns whether it has.
async fn ends_before_it_waits<T>(server: &Postgres, waiting: usize, verb: &JoinHandle<T>) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if verb.is_finished() {
            return true;
        }
        if server.sql("SELECT COUNT(DISTINCT pid) FROM pg_locks WHERE NOT granted") == waiting.to_string() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{waiting} transactions should wait for a lock");
}

/// A store with one instance.
async fn with_an_instance(server: &Postgres) -> (Store, Instance) {
    let store = Store::open_postgres(&server.url()).await.expect("a store");
    let shop = project("shop");
    store.add_project(&shop).await.expect("added");
    let url = "redis://cache.example:6379";
    let mut instance = Instance::new("i".into(), shop.id, "cache".into(), url.into(), shop.created_at);
    instance.window_binds_manual = true;
    store.add_instance(&instance).await.expect("added");
    (store, instance)
}

fn manual(instance: &Instance) -> NewTask {
    new_task(&instance.project_id, &instance.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_window_that_opens_in_the_middle_of_a_claim_is_not_overwritten_with_the_old_one() {
    let server = Postgres::start();
    let midnight = Clock::at(project("p").created_at);
    let (store, open) = with_an_instance(&server).await;
    store.with_clock(midnight.clone()).create_task(&manual(&open)).await.expect("created");
    let closed = Instance { window: Some(Stored::read("02:00-05:00 UTC")), ..open.clone() };
    store.update_instance(&open, &closed).await.expect("changed");
    let mut connection = raw(&server).await;
    gate(&mut connection, "UPDATE OF not_before").await;
    let claim = tokio::spawn({
        let store = store.with_clock(midnight.clone());
        async move { store.claim("w", LEASE, 100).await }
    });
    // The claim has read the closed window and is about to write when it opens.
    assert!(!ends_before_it_waits(&server, 1, &claim).await);
    let opens = tokio::spawn({
        let store = store.clone();
        async move { store.update_instance(&closed, &open).await }
    });
    ends_before_it_waits(&server, 2, &opens).await;
    open_gate(&mut connection).await;
    assert!(claim.await.expect("no panic").expect("answered").is_none());
    opens.await.expect("no panic").expect("changed");
    let claim = store.with_clock(midnight.clone()).claim("w", LEASE, 100).await.expect("answered");
    assert!(claim.is_some(), "the window is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_window_that_opens_in_the_middle_of_a_release_is_not_overwritten_with_the_old_one() {
    let server = Postgres::start();
    let midnight = Clock::at(project("p").created_at);
    let (store, open) = with_an_instance(&server).await;
    store.with_clock(midnight.clone()).create_task(&manual(&open)).await.expect("created");
    let lease =
        store.with_clock(midnight.clone()).claim("w", LEASE, 100).await.expect("answered").expect("a task").lease;
    let closed = Instance { window: Some(Stored::read("02:00-05:00 UTC")), ..open.clone() };
    store.update_instance(&open, &closed).await.expect("changed");
    let mut connection = raw(&server).await;
    gate(&mut connection, "UPDATE OF not_before").await;
    let pause = tokio::spawn({
        let (store, lease) = (store.with_clock(midnight.clone()), lease.clone());
        async move { store.release_lease(&lease, &Heartbeat::default()).await }
    });
    assert!(!ends_before_it_waits(&server, 1, &pause).await);
    let opens = tokio::spawn({
        let store = store.clone();
        async move { store.update_instance(&closed, &open).await }
    });
    ends_before_it_waits(&server, 2, &opens).await;
    open_gate(&mut connection).await;
    pause.await.expect("no panic").expect("answered");
    opens.await.expect("no panic").expect("changed");
    let claim = store.with_clock(midnight.clone()).claim("w", LEASE, 100).await.expect("answered");
    assert!(claim.is_some(), "the window is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pause_is_not_confirmed_while_a_create_that_did_not_see_it_is_under_way() {
    let server = Postgres::start();
    let (store, instance) = with_an_instance(&server).await;
    let mut connection = raw(&server).await;
    gate(&mut connection, "INSERT").await;
    let create = tokio::spawn({
        let (store, new) = (store.clone(), manual(&instance));
        async move { store.create_task(&new).await }
    });
    assert!(!ends_before_it_waits(&server, 1, &create).await);
    let paused = tokio::spawn({
        let (store, paused) = (store.clone(), Instance { paused: true, ..instance.clone() });
        async move { store.update_instance(&instance, &paused).await }
    });
    assert!(!ends_before_it_waits(&server, 2, &paused).await, "a confirmed pause means no new task");
    open_gate(&mut connection).await;
    create.await.expect("no panic").expect("answered");
    paused.await.expect("no panic").expect("changed");
    assert!(store.claim("w", LEASE, 100).await.expect("answered").is_some(), "what was accepted runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_the_servers_certificate_is_verified_as_the_url_says() {
    let (server, authority, another) = (Postgres::start(), Authority::new(), Authority::new());
    server.speak_tls(&authority.issue(&["localhost"]));
    let url = |host: &str, mode: &str, authority: &Authority| {
        let url = server.url().replace("127.0.0.1", host);
        format!("{url}?sslmode={mode}&sslrootcert={}", authority.file().display())
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        let store = Store::open_postgres(&url("localhost", mode, &authority)).await.expect(mode);
        store.ping().await.expect(mode);
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'keysweep'";
        assert_eq!(server.sql(encrypted), "t", "{mode}");
        store.close().await;
    }
    for (url, why) in [
        (url("localhost", "verify-full", &another), "another authority's certificate"),
        (url("127.0.0.1", "verify-full", &authority), "another host's certificate"),
        (Postgres::start().url() + "?sslmode=require", "a server without TLS"),
    ] {
        Store::open_postgres(&url).await.expect_err(why);
    }
}
