//! What is particular to the store in PostgreSQL: its schema's history, what replicas do to each other, a server that goes
//! away.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use keysweep::{
    model::{Project, Role},
    store::{
        Now, Store, StoreError,
        postgres::{OpenError, PostgresStore},
    },
};
use keysweep_harness::{Authority, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, migrate::Migrator};
use tokio::task::JoinSet;

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
        let store = PostgresStore::open(&server.url()).await.expect("upgraded");
        let names: Vec<_> = store.projects().await.expect("read").into_iter().map(|project| project.name).collect();
        assert_eq!(names, ["search", "shop"]);
        let holder = store.key_holder("SAMPLESAMPLESAMPLE01").await.expect("read").expect("a holder");
        assert!(holder.grants.iter().any(|grant| grant.role == Role::Admin));
        let claim = store.claim(Now::Database, "w", LEASE, 100).await.expect("no failure").expect("a task");
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
            let store = PostgresStore::open(&url).await.expect("a store");
            store.add_project(&project(&format!("p{number}"))).await.expect("added");
            store.key_check(&format!("key{number}"), &[number]).await.expect("kept")
        });
    }
    let keys: HashSet<_> = opens.join_all().await.into_iter().collect();
    assert_eq!(keys.len(), 1, "one of them was first, and its key is everybody's");
    let store = PostgresStore::open(&server.url()).await.expect("a store");
    assert_eq!(store.projects().await.expect("read").len(), 6);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let server = Postgres::start();
    PostgresStore::open(&server.url()).await.expect("a store").close().await;
    server.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, '', 0)",
    );
    let error = PostgresStore::open(&server.url()).await.expect_err("newer");
    assert!(matches!(error, OpenError::Newer { found: 9999, .. }), "{error}");
}

#[tokio::test]
async fn a_schema_that_no_release_has_made_is_refused() {
    let server = Postgres::start();
    PostgresStore::open(&server.url()).await.expect("a store").close().await;
    server.sql("UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1");
    let error = PostgresStore::open(&server.url()).await.expect_err("foreign");
    assert!(matches!(error, OpenError::Foreign(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_the_password() {
    let port = keysweep_harness::free_port();
    let error = PostgresStore::open(&format!("postgres://u:secret@127.0.0.1:{port}/d")).await.expect_err("nobody");
    assert!(matches!(error, OpenError::Store(StoreError::Unavailable(_))), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_the_server_is_an_error_in_time_and_passes() {
    let mut server = Postgres::start();
    let store = PostgresStore::open(&server.url()).await.expect("a store");
    store.add_project(&project("a")).await.expect("added");
    for crash in [false, true] {
        if crash {
            server.kill()
        } else {
            server.stop()
        }
        let begun = Instant::now();
        for _ in 0..3 {
            let answer = store.ping().await;
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        server.restart();
        assert_eq!(store.projects().await.expect("works again"), [project("a")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_stops_in_mid_transaction_does_not_hold_the_others_up_for_long() {
    let server = Postgres::start();
    let mut connection = raw(&server).await;
    let store = PostgresStore::open(&server.url()).await.expect("a store");
    connection.execute(AssertSqlSafe(chain().await.remove(0).1)).await.expect("a sample");
    // A replica's connection, as its pool makes it, in the middle of a claim; the process does not go on.
    let mut paused = raw(&server).await;
    paused.execute("SET idle_in_transaction_session_timeout = '3000ms'").await.expect("set");
    paused.execute("BEGIN").await.expect("begun");
    paused.execute("SELECT pg_advisory_xact_lock(1801812339, 1)").await.expect("locked");
    paused.execute("SELECT 1 FROM lease FOR UPDATE").await.expect("locked");
    let begun = Instant::now();
    let claim = loop {
        match store.claim(Now::Database, "w", LEASE, 100).await {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_encrypted_and_the_servers_certificate_is_verified_as_the_url_says() {
    let (server, authority, another) = (Postgres::start(), Authority::new(), Authority::new());
    server.speak_tls(&authority.issue(&["localhost"]));
    let url = |host: &str, mode: &str, authority: &Authority| {
        let url = server.url().replace("127.0.0.1", host);
        format!("{url}?sslmode={mode}&sslrootcert={}", authority.file().display())
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        let store = PostgresStore::open(&url("localhost", mode, &authority)).await.expect(mode);
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
        PostgresStore::open(&url).await.expect_err(why);
    }
}
