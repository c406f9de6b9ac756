//! Servers whose settings a worker has raised, and whose service is gone: they are restored from the database, and an instance is
//! neither removed nor moved before that.

use std::{process::Output, time::Duration};

use keysweep::{hold::RestoreFile, store::Store};
use keysweep_engine::{
    Address, Baseline, BaselineRecord, BaselineRegistry, HoldLevel, HoldPolicy, Parameter, stale::CycleSetting,
};
use keysweep_harness::{Flavor, Installation, Server, free_port, installation};
use serde_json::json;

use crate::common::{
    servers::{self, address, effort, process},
    stderr,
};

/// A record of a server whose effort was raised from 3.
fn record(target: &str, address: &Address, effort: u32, is_restored: bool) -> BaselineRecord {
    let mut baseline = Baseline::of(CycleSetting { effort: 3, hz: 10 });
    baseline.add(Parameter::Effort, effort);
    let record = json!({
        "target": target, "address": address, "run_id": "an earlier process", "is_restored": is_restored,
        "effort": baseline.effort, "hz": baseline.hz,
    });
    serde_json::from_value(record).expect("a record")
}

/// Leaves in the database what a worker leaves that has raised the effort of servers from 3 to 7 and was killed.
fn leave_raised(installation: &Installation, instance: &str, servers: &[Address]) {
    let records: Vec<_> = servers.iter().map(|one| record(&format!("redis://{one}"), one, 7, false)).collect();
    leave(installation, instance, &records);
}

#[tokio::main]
async fn leave(installation: &Installation, instance: &str, records: &[BaselineRecord]) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let policy = HoldPolicy { level: HoldLevel::Hold, ..HoldPolicy::default() };
    store.set_hold(instance, &policy).await.expect("set");
    let lease = store.claim_holds("worker", Duration::from_secs(1), 1, 1).await.expect("claimed").remove(0);
    for record in records {
        assert!(store.save_baseline(&lease, record).await.expect("saved"));
    }
    store.close().await;
}

#[test]
fn a_held_instance_is_restored_from_the_database_alone_and_can_be_removed_then() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    let admin = |words: &[&str]| -> Output {
        let words = [&["admin", "instance"], words, &["cache", "--project", &project]].concat();
        installation.run(&words)
    };

    let refused = admin(&["remove"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("instance \"cache\" is held; restore it first"), "{}", stderr(&refused));
    let service = installation.serve(&["--no-auth"]);
    let path = format!("/api/v1/projects/{project}/instances/{instance}");
    let url = format!(r#"{{"url": "redis://:secret@127.0.0.1:{}"}}"#, free_port());
    let refused = service.send("PATCH", &path, &[("content-type", "application/json")], url);
    assert_eq!(refused.status, 409, "a new password is not sent to the old server: {refused:?}");
    assert_eq!(service.request("DELETE", &path).status, 409);
    service.terminate();
    assert_eq!(effort(&server), "7");

    let restored = admin(&["restore"]);
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
    assert!(stderr(&restored).contains("restored effort 3"), "{}", stderr(&restored));
    let audit = installation.admin(&["audit", "--project", &project]);
    let entry = &audit[0];
    assert_eq!((&entry["action"], &entry["actor"]), (&"hold.restore".into(), &"(command line)".into()), "{audit:#}");
    assert_eq!((&entry["detail"]["from"]["effort"], &entry["detail"]["to"]["effort"]), (&7.into(), &3.into()));
    assert_eq!(admin(&["remove"]).status.code(), Some(0), "nothing is left to restore");
}

/// `keysweep hold` in the same folder was killed after a worker had restored the server.
#[test]
fn a_value_that_only_restore_json_knows_is_restored_by_an_administrator_too() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let other = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let (target, address) = (server.url(), address(&server));
    leave(&installation, &instance, &[record(&target, &address, 4, true)]);
    let file = RestoreFile::in_data(installation.folder());
    file.save(&record(&target, &address, 7, false)).expect("saved");
    file.save(&record(&other.url(), &servers::address(&other), 7, false)).expect("saved");

    let restored = installation.run(&["admin", "instance", "restore", "cache", "--project", &project]);
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
    assert!(stderr(&restored).contains("restored effort 3"), "{}", stderr(&restored));
    assert_eq!(effort(&other), "7", "it is no server of this instance");
    let known = file.find(&address).expect("read").expect("a record");
    assert!(
        known.is_restored && [4, 7].iter().all(|effort| known.baseline.effort.written.contains(effort)),
        "{known:?}"
    );
}

/// `keysweep hold` in the same folder would raise it again, and what it writes meanwhile would not be known.
#[test]
fn a_server_that_another_process_holds_is_not_restored_by_an_administrator() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    leave_raised(&installation, &instance, &[address(&server)]);
    let reservation = RestoreFile::in_data(installation.folder()).reserve(&process(&server)).expect("reserved");
    let restore = || installation.run(&["admin", "instance", "restore", "cache", "--project", &project]);
    let refused = restore();
    assert_eq!((refused.status.code(), effort(&server)), (Some(1), "7".into()), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("holds this server; nothing was restored"), "{}", stderr(&refused));
    drop(reservation);
    let restored = restore();
    assert_eq!((restored.status.code(), effort(&server)), (Some(0), "3".into()), "{}", stderr(&restored));
}

#[test]
fn a_server_that_is_gone_for_good_is_forgotten_on_request() {
    let server = Server::with(Flavor::Valkey91).arg("--active-expire-effort", "7").start();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    // The instance has no password, so that this one fails at once, as one does after a timeout that is gone.
    let denied = Server::with(Flavor::Valkey91).password("secret").start();
    leave_raised(&installation, &instance, &[address(&server), address(&denied)]);
    let admin = |words: &[&str]| installation.run(&[&["admin", "--json", "instance"], words].concat());
    let restore = ["restore", "cache", "--project", &project];
    let failed = admin(&restore);
    assert_eq!((failed.status.code(), effort(&server)), (Some(1), "3".into()), "the other one is restored");
    assert!(stderr(&failed).contains("1 of 2 servers may have other settings"), "{}", stderr(&failed));
    assert_eq!(admin(&["remove", "cache", "--project", &project]).status.code(), Some(1));
    let forgotten = admin(&[&restore[..], &["--forget-all"]].concat());
    assert_eq!(forgotten.status.code(), Some(0), "{}", stderr(&forgotten));
    assert_eq!(admin(&["remove", "cache", "--project", &project]).status.code(), Some(0));
}
