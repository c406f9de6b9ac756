//! `admin backup` and `admin copy` through the real binary.

use std::{fs, os::unix::fs::PermissionsExt};

use keysweep_harness::{DataSet, Flavor, Installation, Postgres, Server, Service};

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

/// Registers an instance with a password and scans it; returns project, instance and the running service.
fn scanned(installation: &Installation, server: &Server) -> (String, String, Service) {
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(&["--no-auth"]);
    service.scan(&project, &instance);
    service.wait_for_histories(&project, &instance, |page| page["records"][0]["status"] == "success");
    (project, instance, service)
}

#[test]
fn a_backup_of_a_running_service_is_complete_and_private() {
    let server = Server::with(Flavor::Valkey91).password("p@ss").start();
    DataSet::new().stale(50).load(&server);
    let installation = Installation::new(BINARY);
    let (project, instance, service) = scanned(&installation, &server);
    let before = service.histories(&project, &instance);
    let file = installation.folder().join("backup.db");
    let path = file.to_str().expect("a plain path");
    installation.admin(&["backup", path]);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    service.terminate();
    // A second backup does not overwrite the first.
    let again = installation.run(&["admin", "backup", path]);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains(&format!("cannot write {path}: File exists")), "{said}");
    assert!(said.contains("choose a new name"), "{said}");

    fs::rename(&file, installation.database()).expect("put back");
    for rest in ["-wal", "-shm"] {
        let _ = fs::remove_file(installation.folder().join(format!("keysweep.db{rest}")));
    }
    let service = installation.serve(&["--no-auth"]);
    assert_eq!(service.histories(&project, &instance), before);
}

#[test]
fn a_copy_on_postgres_continues_where_sqlite_stopped() {
    let server = Server::with(Flavor::Valkey91).password("p@ss").start();
    let loaded = DataSet::new().stale(50).load(&server);
    let old = Installation::new(BINARY);
    let (project, instance, service) = scanned(&old, &server);
    let before = service.histories(&project, &instance);
    service.terminate();

    let database = Postgres::start();
    let new = Installation::on_postgres(BINARY, &database);
    let copied = old.admin(&["copy", "--to", &database.url()]);
    assert!(copied["rows"].as_u64().is_some_and(|rows| rows >= 5), "{copied}");
    fs::copy(old.key_file(), new.key_file()).expect("the key comes along");
    let service = new.serve(&["--no-auth"]);
    assert_eq!(service.histories(&project, &instance), before);
    // The password can be decrypted, and sequence numbers continue after the highest.
    DataSet::new().stale(20).load(&server);
    service.scan(&project, &instance);
    let after = service.wait_for_histories(&project, &instance, |page| {
        page["count"] == 2 && page["records"][0]["status"] == "success"
    });
    assert_eq!(after["total"].as_u64(), Some(loaded.stale + 20));

    let again = old.run(&["admin", "copy", "--to", &database.url()]);
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && message.contains("is not empty: it has projects"), "{message}");
}
