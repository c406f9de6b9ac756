//! A database that takes no writes, through the real binary: a SQLite file on a full disk, or that another process holds, and a
//! PostgreSQL that only reads.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::Path,
    process::Command,
    time::Duration,
};

use keysweep_harness::{
    DataSet, Flavor, Installation, Loaded, Postgres, Server, Service, eventually, free_port, installation,
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Executor, sqlite::SqliteConnectOptions};

use crate::common::root;

fn loaded() -> (Server, Loaded) {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(300).stale(200).load(&server);
    (server, loaded)
}

/// Checks that a create fails in the documented form and leaves nothing behind, and that the service reports itself unready.
fn assert_refuses(service: &Service, project: &str, instance: &str) {
    let refused = service.create_scan(project, instance);
    assert_eq!((refused.status, &refused.body["error_code"]), (500, &"DCS.5000".into()), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"), "{refused:?}");
    assert!(refused.body["error_msg"].is_string() && refused.body["id"].is_null(), "{refused:?}");
    let histories = service.histories(project, instance);
    assert_eq!(histories["count"], 0, "{histories:#}");
    // A second request changes nothing.
    for _ in 0..2 {
        let unready = service.request("GET", "/readyz");
        assert_eq!((unready.status, &unready.body["status"]), (503, &"unready".into()), "{unready:?}");
        let reason = unready.body["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("database is unavailable"), "{unready:?}");
    }
    assert_eq!(service.request("GET", "/healthz").status, 200, "a restart would not help");
}

/// Checks that the service recovers without a restart.
fn assert_recovers(service: &Service, project: &str, instance: &str, loaded: &Loaded) {
    eventually("it is ready again", Duration::from_secs(15), || {
        (service.request("GET", "/readyz").status == 200).then_some(())
    });
    let task = service.scan(project, instance);
    let histories = service.wait_for_histories(project, instance, |page| page["records"][0]["status"] == "success");
    assert_eq!((histories["count"].as_u64(), histories["total"].as_u64()), (Some(1), Some(loaded.stale)));
    assert_eq!(histories["records"][0]["id"], task.id);
}

/// Fills the disk with this file.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("the disk is there");
    for size in [64 * 1024, 1] {
        let piece = vec![0; size];
        loop {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

#[test]
fn on_a_full_disk_a_create_fails_with_500_and_the_service_recovers_when_there_is_room() {
    let (server, loaded) = loaded();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let Some((service, disk)) = installation.serve_on_small_disk("4m", &["--no-auth"]) else {
        println!("SKIPPED: no file system can be mounted here (unshare --map-root-user --mount)");
        return;
    };
    let filler = disk.join("filler");
    fill(&filler);
    assert_refuses(&service, &project, &instance);
    std::fs::remove_file(&filler).expect("it is ours");
    assert_recovers(&service, &project, &instance, &loaded);
}

/// The last process to close a SQLite database deletes its log, and has to see that the service has it open: also a program with an
/// older SQLite than keysweep's, which finds that out by the locks on the file alone.
#[test]
fn another_program_that_opens_and_closes_the_database_costs_the_service_no_write() {
    let installation = installation!();
    let (project, _) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let register = |name: &str| {
        let body = json!({ "name": name, "url": format!("redis://127.0.0.1:{}", free_port()) });
        let path = format!("/api/v1/projects/{project}/instances");
        assert_eq!(service.send("POST", &path, &[], body.to_string()).status, 201, "{name}");
    };
    register("before");
    let script =
        "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); file.execute('SELECT 1 FROM project'); file.close()";
    let mut python = Command::new(root().join(".cache/venv/bin/python"));
    assert!(python.args(["-c", script]).arg(installation.database()).status().expect("it starts").success());
    register("after");
    let listed = installation.admin(&["instance", "list", "--project", &project]);
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_removed_database_file_takes_no_writes_and_no_empty_one_replaces_it() {
    let (server, loaded) = loaded();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let (file, aside) = (installation.database(), installation.folder().join("aside.db"));
    std::fs::rename(&file, &aside).expect("it is ours");
    let refused = service.create_scan(&project, &instance);
    assert_eq!((refused.status, &refused.body["id"]), (500, &Value::Null), "{refused:?}");
    let body = json!({ "name": "other", "url": server.url() });
    let refused = service.send("POST", &format!("/api/v1/projects/{project}/instances"), &[], body.to_string());
    assert_eq!((refused.status, &refused.body["error"]["code"]), (503, &"unavailable".into()), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"), "{refused:?}");
    let unready = service.request("GET", "/readyz");
    let reason = unready.body["reason"].as_str().unwrap_or_default();
    assert!(unready.status == 503 && reason.contains("put the backup back"), "{unready:?}");
    std::fs::rename(&aside, &file).expect("it is ours");
    assert_recovers(&service, &project, &instance, &loaded);
    service.terminate();
    std::fs::rename(&file, &aside).expect("it is ours");
    // Wherever the key is kept: systemd and Kubernetes lend it to the service.
    let elsewhere = installation.folder().join("elsewhere.key");
    std::fs::copy(installation.key_file(), &elsewhere).expect("it is ours");
    for key in [&installation.key_file(), &elsewhere] {
        let refused = installation.run(&["admin", "--key-file", &key.display().to_string(), "project", "list"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("put the backup of the database back"), "{said}");
        assert!(said.contains("keysweep admin project list --new-database"), "{said}");
        assert!(!file.exists(), "no empty database is left behind");
    }
    let told = installation.run(&["admin", "--json", "project", "list", "--new-database"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stdout).trim() == "[]", "{told:?}");
}

#[test]
fn a_removed_log_takes_no_writes_and_a_stop_keeps_what_it_held() {
    let (server, loaded) = loaded();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let body = json!({ "name": "in-the-log", "url": server.url() });
    let instances = format!("/api/v1/projects/{project}/instances");
    assert_eq!(service.send("POST", &instances, &[], body.to_string()).status, 201);
    std::fs::remove_file(format!("{}-wal", installation.database().display())).expect("it is ours");
    let refused = service.create_scan(&project, &instance);
    assert_eq!((refused.status, &refused.body["id"]), (500, &Value::Null), "{refused:?}");
    let unready = service.request("GET", "/readyz");
    let reason = unready.body["reason"].as_str().unwrap_or_default();
    assert!(unready.status == 503 && reason.contains("-wal of the database was removed"), "{unready:?}");
    service.terminate();
    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.get(&instances)["instances"].as_array().map(Vec::len), Some(2), "both are there");
    assert_recovers(&service, &project, &instance, &loaded);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_process_locks_the_file_a_create_fails_with_500_and_the_service_recovers() {
    let (server, loaded) = loaded();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    let mut other =
        SqliteConnectOptions::new().filename(installation.database()).connect().await.expect("a connection");
    other.execute("BEGIN EXCLUSIVE").await.expect("held");
    assert_refuses(&service, &project, &instance);
    other.execute("ROLLBACK").await.expect("released");
    assert_recovers(&service, &project, &instance, &loaded);
}

#[test]
fn while_postgresql_is_read_only_a_create_fails_with_500_and_the_service_recovers() {
    let (server, loaded) = loaded();
    let database = Postgres::start();
    let installation = Installation::on_postgres(env!("CARGO_BIN_EXE_keysweep"), &database);
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.request("GET", "/readyz").status, 200);
    // As on a standby, or on a primary that is protected from filling its disk. A new connection sees the setting once all
    // others do.
    let only_reads = |is_so: &str| {
        database.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {is_so}"));
        database.sql("SELECT pg_reload_conf()");
        eventually("PostgreSQL has read the setting", Duration::from_secs(15), || {
            (database.sql("SHOW default_transaction_read_only") == is_so).then_some(())
        });
    };
    only_reads("on");
    assert_refuses(&service, &project, &instance);
    let reason = service.request("GET", "/readyz").body["reason"].to_string();
    assert!(reason.contains("read-only transaction"), "{reason}");
    only_reads("off");
    assert_recovers(&service, &project, &instance, &loaded);
    assert_eq!(
        database.sql("SELECT to_regclass('keysweep_trial') IS NULL"),
        "t",
        "the write checks leave nothing behind"
    );
}
